//! Splitting a file into blocks, statements, Jinja blocks and virtual updates; and telling
//! which statement is the query.

use crate::diagnostic::Diagnostic;
use crate::project::model::{Code, Language};

use super::source::Source;
use super::token::{Token, TokenKind};
use super::value::{Value, matching};

/// A piece of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Piece<'a> {
    /// A statement of SQL, or a block; never empty.
    Sql(&'a [Token]),
    /// A Jinja block.
    Jinja { token: Token, is_query: bool, body: (u32, u32) },
}

impl Piece<'_> {
    pub(crate) fn start(&self) -> usize {
        match self {
            Self::Sql(tokens) => tokens.first().map_or(0, |token| token.start as usize),
            Self::Jinja { token, .. } => token.start as usize,
        }
    }

    /// The piece as code.
    pub(crate) fn code(&self, source: &Source) -> Code {
        match self {
            Self::Sql(tokens) => {
                let value = Value { source, tokens, fallback: 0 };
                let (text, line) = (value.text().to_owned(), source.line(self.start()));
                Code { text, language: Language::Sql, line }
            }
            Self::Jinja { body, .. } => {
                let body = &source.text[body.0 as usize..body.1 as usize];
                let leading = body.len() - body.trim_start().len();
                let start = body.as_ptr() as usize - source.text.as_ptr() as usize + leading;
                Code { text: body.trim().to_owned(), language: Language::Jinja, line: source.line(start) }
            }
        }
    }
}

/// A file's pieces: those of the file itself and those of its virtual updates.
#[derive(Debug, Default)]
pub(crate) struct Pieces<'a> {
    pub(crate) main: Vec<Piece<'a>>,
    pub(crate) on_virtual_update: Vec<Piece<'a>>,
    /// Whether a semicolon ends the last statement of the file.
    pub(crate) closed: bool,
}

/// Splits tokens into pieces.
pub(crate) fn split<'a>(source: &Source, tokens: &'a [Token]) -> Result<Pieces<'a>, Diagnostic> {
    let text: &str = &source.text;
    let mut pieces = Pieces::default();
    let mut virtual_since: Option<Token> = None;
    let mut start = 0;
    let mut at = 0;
    while at <= tokens.len() {
        let Some(token) = tokens.get(at).copied() else {
            push_sql(&mut pieces, virtual_since.is_some(), &tokens[start..]);
            break;
        };
        let marks = |word| {
            token.is_word(text, word) && tokens.get(at + 1).is_some_and(|next| next.is(';')) && at == start
        };
        if let TokenKind::Jinja { is_query, body } = token.kind {
            push_sql(&mut pieces, virtual_since.is_some(), &tokens[start..at]);
            push(&mut pieces, virtual_since.is_some(), Piece::Jinja { token, is_query, body });
            start = at + 1;
        } else if marks("ON_VIRTUAL_UPDATE_BEGIN") {
            virtual_since = Some(token);
            at += 1;
            start = at + 1;
        } else if token.is_word(text, "ON_VIRTUAL_UPDATE_END") && virtual_since.is_some() {
            push_sql(&mut pieces, true, &tokens[start..at]);
            virtual_since = None;
            start = at + 1;
        } else if token.is(';') {
            push_sql(&mut pieces, virtual_since.is_some(), &tokens[start..at]);
            start = at + 1;
        }
        at += 1;
    }
    pieces.closed = closes_sql(text, tokens);
    match virtual_since {
        None => Ok(pieces),
        Some(token) => {
            let at = source.location(token.start as usize);
            Err(Diagnostic::error("unterminated", at, "the ON_VIRTUAL_UPDATE block is never closed")
                .hint("add `ON_VIRTUAL_UPDATE_END;`"))
        }
    }
}

/// Whether the tokens end in a statement of SQL and its semicolon.
fn closes_sql(text: &str, tokens: &[Token]) -> bool {
    let [.., before, last] = tokens else { return false };
    let is_jinja = matches!(before.kind, TokenKind::Jinja { .. });
    last.is(';') && !(before.is(';') || is_jinja || before.is_word(text, "ON_VIRTUAL_UPDATE_END"))
}

fn push<'a>(pieces: &mut Pieces<'a>, is_virtual: bool, piece: Piece<'a>) {
    if is_virtual { pieces.on_virtual_update.push(piece) } else { pieces.main.push(piece) }
}

fn push_sql<'a>(pieces: &mut Pieces<'a>, is_virtual: bool, tokens: &'a [Token]) {
    if !tokens.is_empty() {
        push(pieces, is_virtual, Piece::Sql(tokens));
    }
}

/// Whether a piece gives rows; `alone` says that it is the file's only statement.
pub(crate) fn is_query(source: &Source, piece: &Piece<'_>, alone: bool) -> bool {
    match piece {
        Piece::Jinja { is_query, .. } => *is_query,
        Piece::Sql(tokens) => sql_is_query(source, tokens, alone),
    }
}

fn sql_is_query(source: &Source, tokens: &[Token], alone: bool) -> bool {
    let text: &str = &source.text;
    let Some(first) = tokens.first() else { return false };
    match first.kind {
        TokenKind::Word => {
            let word = first.text(text);
            let is = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
            is(&["select", "from", "values"]) || (is(&["with"]) && main_verb_is_query(text, tokens))
        }
        TokenKind::Symbol('(') => sql_is_query(source, &tokens[1..], alone),
        TokenKind::Macro => macro_is_query(source, tokens, alone),
        _ => false,
    }
}

/// `@union(…)` is a query, any other lone macro call only where nothing else is; a call in front
/// of more (`@WITH(…) x AS (…) SELECT …`) is part of what follows.
fn macro_is_query(source: &Source, tokens: &[Token], alone: bool) -> bool {
    let text: &str = &source.text;
    let name = tokens[0].text(text).trim_start_matches('@');
    let is_call = tokens.get(1).is_some_and(|token| token.is('('));
    if !is_call || name.eq_ignore_ascii_case("def") {
        return false;
    }
    let rest = matching(tokens, 1).map_or(&[][..], |close| &tokens[close + 1..]);
    if rest.is_empty() {
        return alone || name.eq_ignore_ascii_case("union") || name.eq_ignore_ascii_case("insert_seed");
    }
    main_verb_is_query(text, rest)
}

/// Whether the first verb outside of parentheses is one that gives rows.
fn main_verb_is_query(text: &str, tokens: &[Token]) -> bool {
    let mut depth = 0;
    for token in tokens {
        match token.kind {
            TokenKind::Symbol('(') => depth += 1,
            TokenKind::Symbol(')') => depth -= 1,
            TokenKind::Word if depth == 0 => {
                let word = token.text(text);
                if ["insert", "update", "delete", "merge", "create"]
                    .iter()
                    .any(|verb| word.eq_ignore_ascii_case(verb))
                {
                    return false;
                }
                if ["select", "from", "values"].iter().any(|verb| word.eq_ignore_ascii_case(verb)) {
                    return true;
                }
            }
            _ => {}
        }
    }
    // `WITH a AS (…) (SELECT …)`: the query stands in parentheses.
    tokens.last().is_some_and(|token| token.is(')'))
}

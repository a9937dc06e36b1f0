//! A text's canonical form: made from tokens, so that nothing the parser has no node for is lost.

use std::ops::Range;

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace, Word};

use super::Dialect;
use super::parse::Lines;

/// Tokens as written with one space between, no comments (but hints), keywords in upper case, no
/// comma at the end of a list, no semicolon at the end.
pub(super) fn canonical(text: &str, tokens: &[TokenWithSpan], dialect: Dialect) -> String {
    let lines = Lines::new(text);
    let mut words = Casing { dialect, casts: Vec::new(), after: After::Other };
    let mut out = String::with_capacity(text.len());
    let mut kept = 0;
    for (at, token) in tokens.iter().enumerate() {
        let slice = lines.range(token.span).map_or("", |range| &text[range]);
        match &token.token {
            Token::Whitespace(Whitespace::MultiLineComment(comment)) if !is_hint(comment) => continue,
            Token::Whitespace(Whitespace::MultiLineComment(_)) => {}
            Token::Whitespace(_) | Token::EOF => continue,
            Token::Comma if trails(next(tokens, at)) => continue,
            _ => {}
        }
        if !out.is_empty() {
            out.push(' ');
        }
        match &token.token {
            Token::Word(word) if words.upper(word, next(tokens, at)) => {
                out.extend(slice.chars().map(|c| c.to_ascii_uppercase()));
            }
            _ => out.push_str(slice),
        }
        words.see(&token.token);
        if token.token != Token::SemiColon {
            kept = out.len();
        }
    }
    out.truncate(kept);
    out
}

/// The places of commas that end a list.
pub(super) fn trailing_commas(text: &str, tokens: &[TokenWithSpan]) -> Vec<Range<usize>> {
    let lines = Lines::new(text);
    let is_one =
        |(at, token): &(usize, &TokenWithSpan)| token.token == Token::Comma && trails(next(tokens, *at));
    tokens.iter().enumerate().filter(is_one).filter_map(|(_, token)| lines.range(token.span)).collect()
}

fn is_hint(comment: &str) -> bool {
    comment.starts_with('+') || comment.starts_with('!')
}

fn next(tokens: &[TokenWithSpan], at: usize) -> Option<&Token> {
    let later = tokens.get(at + 1..)?;
    later.iter().map(|t| &t.token).find(|t| !matches!(t, Token::Whitespace(_)))
}

/// Whether a comma before this token ends its list: engines that allow it read nothing into it.
fn trails(next: Option<&Token>) -> bool {
    match next {
        None | Some(Token::EOF | Token::RParen | Token::SemiColon) => true,
        Some(Token::Word(word)) => word.quote_style.is_none() && word.keyword == Keyword::FROM,
        Some(_) => false,
    }
}

#[derive(PartialEq)]
enum After {
    Dot,
    As,
    Cast,
    Other,
}

/// Which words' case means nothing. Where the engine folds unquoted names any keyword's and any
/// called function's does, but for aliases, which name the output as written; elsewhere only
/// words that can't be names.
struct Casing {
    dialect: Dialect,
    /// For every open parenthesis, whether it is a cast's: there a type follows `AS`.
    casts: Vec<bool>,
    after: After,
}

impl Casing {
    fn upper(&self, word: &Word, next: Option<&Token>) -> bool {
        if word.quote_style.is_some() || self.after == After::Dot || word.value.starts_with('@') {
            return false;
        }
        if is_reserved(word.keyword) {
            return true;
        }
        let folds = !matches!(self.dialect, Dialect::BigQuery | Dialect::MySql | Dialect::ClickHouse);
        let alias = self.after == After::As && !self.casts.last().copied().unwrap_or(false);
        folds && !alias && (word.keyword != Keyword::NoKeyword || next == Some(&Token::LParen))
    }

    fn see(&mut self, token: &Token) {
        match token {
            Token::LParen => self.casts.push(self.after == After::Cast),
            Token::RParen => {
                self.casts.pop();
            }
            _ => {}
        }
        self.after = match token {
            Token::Period => After::Dot,
            Token::Word(word) if word.quote_style.is_none() => match word.keyword {
                Keyword::AS => After::As,
                Keyword::CAST | Keyword::TRY_CAST | Keyword::SAFE_CAST => After::Cast,
                _ => After::Other,
            },
            _ => After::Other,
        };
    }
}

/// Reserved in all dialects.
fn is_reserved(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::SELECT
            | Keyword::FROM
            | Keyword::WHERE
            | Keyword::GROUP
            | Keyword::BY
            | Keyword::HAVING
            | Keyword::ORDER
            | Keyword::UNION
            | Keyword::EXCEPT
            | Keyword::INTERSECT
            | Keyword::ALL
            | Keyword::DISTINCT
            | Keyword::AS
            | Keyword::AND
            | Keyword::OR
            | Keyword::NOT
            | Keyword::IN
            | Keyword::IS
            | Keyword::NULL
            | Keyword::LIKE
            | Keyword::BETWEEN
            | Keyword::EXISTS
            | Keyword::CASE
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
            | Keyword::END
            | Keyword::JOIN
            | Keyword::INNER
            | Keyword::LEFT
            | Keyword::RIGHT
            | Keyword::FULL
            | Keyword::OUTER
            | Keyword::CROSS
            | Keyword::ON
            | Keyword::USING
            | Keyword::WITH
            | Keyword::LIMIT
            | Keyword::OVER
            | Keyword::PARTITION
            | Keyword::ASC
            | Keyword::DESC
            | Keyword::CAST
            | Keyword::TRUE
            | Keyword::FALSE
    )
}

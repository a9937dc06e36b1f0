//! `MODEL (…)` and `AUDIT (…)` blocks: which properties they have.

use crate::diagnostic::{Diagnostic, Location};

use super::source::Source;
use super::token::{Token, TokenKind};
use super::value::{Value, matching, split_tokens};

/// One property of a block: a key and the tokens of its value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Property<'a> {
    pub(crate) key: &'a str,
    pub(crate) key_offset: usize,
    pub(crate) value: Value<'a>,
}

impl Property<'_> {
    pub(crate) fn location(&self) -> Location {
        self.value.source.location(self.key_offset)
    }

    pub(crate) fn is(&self, key: &str) -> bool {
        self.key.eq_ignore_ascii_case(key)
    }
}

/// Where a block starts and ends among a text's tokens: the keyword's and the closing
/// parenthesis' index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) keyword: usize,
    pub(crate) close: usize,
}

/// The block `keyword (…)` that starts at a token, if one does; an error if it isn't closed.
pub(crate) fn block_at(
    source: &Source,
    tokens: &[Token],
    at: usize,
    keyword: &str,
) -> Option<Result<Block, Diagnostic>> {
    let starts = tokens.get(at)?.is_word(&source.text, keyword) && tokens.get(at + 1)?.is('(');
    starts.then(|| {
        matching(tokens, at + 1).map(|close| Block { keyword: at, close }).ok_or_else(|| {
            let at = source.location(tokens[at + 1].start as usize);
            Diagnostic::error("unclosed-block", at, format!("the {keyword} block is never closed"))
                .hint("add the missing `)` and `;`")
        })
    })
}

/// The properties of a block's inside, with findings about those that can't be read.
pub(crate) fn properties<'a>(
    source: &'a Source,
    tokens: &'a [Token],
    keys_after_clause: &[&str],
) -> (Vec<Property<'a>>, Vec<Diagnostic>) {
    let (mut properties, mut findings): (Vec<Property<'a>>, _) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let run = next_run(source, &tokens[at..], keys_after_clause);
        if let Some(comma) = tokens.get(at).filter(|token| token.is(',')) {
            let place = source.location(comma.start as usize);
            findings.push(
                Diagnostic::error("syntax", place, "expected a property before this comma")
                    .hint("remove the comma"),
            );
        } else {
            match property(source, run) {
                Ok(property) => properties.push(property),
                Err(finding) => findings.push(finding),
            }
        }
        at += run.len() + 1;
    }
    repeated(&properties, &mut findings);
    (properties, findings)
}

/// The tokens up to the comma that ends a property. A merge's `WHEN … THEN UPDATE SET a = b, c =
/// d` has commas of its own: there a property ends only before a known key.
fn next_run<'a>(source: &Source, tokens: &'a [Token], keys_after_clause: &[&str]) -> &'a [Token] {
    let text: &str = &source.text;
    let is_clause = tokens.first().is_some_and(|key| key.is_word(text, "when_matched"))
        && !tokens.get(1).is_some_and(|t| t.is('('));
    let first = split_tokens(tokens, ',').next().map_or(0, <[Token]>::len);
    if !is_clause || tokens.first().is_none_or(|token| token.is(',')) {
        return if tokens.first().is_some_and(|token| token.is(',')) { &[] } else { &tokens[..first] };
    }
    let mut end = first;
    while end < tokens.len() {
        let rest = &tokens[end + 1..];
        let known = rest.first().is_none_or(|key| {
            keys_after_clause.iter().any(|known| key.is_word(text, known))
                && !rest.get(1).is_some_and(|next| next.is('=') || next.is('.'))
        });
        if known {
            break;
        }
        end += 1 + split_tokens(rest, ',').next().map_or(0, <[Token]>::len);
    }
    &tokens[..end.min(tokens.len())]
}

fn property<'a>(source: &'a Source, run: &'a [Token]) -> Result<Property<'a>, Diagnostic> {
    let key = run[0];
    let place = || source.location(key.start as usize);
    let text = key.text(&source.text);
    match key.kind {
        TokenKind::Word | TokenKind::Quoted => {}
        TokenKind::Macro => {
            let message = format!("the macro `{text}` in place of a property isn't supported yet");
            return Err(Diagnostic::error("unsupported-macro", place(), message)
                .hint("write the properties that it gives"));
        }
        TokenKind::String
        | TokenKind::Number
        | TokenKind::Assign
        | TokenKind::Arrow
        | TokenKind::Jinja { .. }
        | TokenKind::Symbol(_) => {
            let message = format!("expected a property's name, found `{text}`");
            return Err(Diagnostic::error("syntax", place(), message)
                .hint("properties are written `name value`, with commas between them"));
        }
    }
    // `enabled: true` is read as `enabled true`, as SQLMesh does.
    let colon =
        run.len() == 3 && run[1].is(':') && matches!(run[2].kind, TokenKind::Word | TokenKind::Number);
    let tokens = if colon { &run[2..] } else { &run[1..] };
    let value = Value { source, tokens, fallback: key.end as usize };
    if value.is_empty() {
        return Err(Diagnostic::error("syntax", place(), format!("property `{text}` has no value"))
            .hint(format!("write `{text} …,`")));
    }
    Ok(Property { key: text, key_offset: key.start as usize, value })
}

fn repeated(properties: &[Property<'_>], findings: &mut Vec<Diagnostic>) {
    for (index, property) in properties.iter().enumerate() {
        if properties[..index].iter().any(|earlier| earlier.is(property.key)) {
            let message = format!("property `{}` is given twice; the last one counts", property.key);
            findings.push(
                Diagnostic::warning("repeated-property", property.location(), message)
                    .hint("remove one of them"),
            );
        }
    }
}

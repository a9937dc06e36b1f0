//! Replacing macros in a block's properties: `@name` and `@{name}` by a blueprint's or variable's
//! value, calls such as `@IF(…)` by what they give.

use crate::diagnostic::Diagnostic;

use super::source::Source;
use super::token::{Token, TokenKind};
use super::value::{matching, unquote};
use crate::project::render::RenderError;

/// Properties whose macros are expanded when they are used, not when the file is read.
const DEFERRED: [&str; 7] = [
    "audits",
    "signals",
    "physical_properties",
    "table_properties",
    "virtual_properties",
    "session_properties",
    "merge_filter",
];

/// What a block's macros see.
pub(crate) struct Macros<'a> {
    /// A variable's value as SQL text, by lower-case name.
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
    /// What a call gives; the number is its line in the file.
    pub(crate) call: &'a dyn Fn(&str, u32) -> Result<String, RenderError>,
}

/// The text of a block's inside with its macros replaced and the bytes of `leave_out` left out;
/// `None` if that changes nothing.
pub(crate) fn expand(
    source: &Source,
    inside: &[Token],
    leave_out: Option<(usize, usize)>,
    macros: &Macros<'_>,
    findings: &mut Vec<Diagnostic>,
) -> Option<Source> {
    let deferred = deferred_ranges(source, inside);
    let text: &str = &source.text;
    let (start, end) = (inside.first()?.start as usize, inside.last()?.end as usize);
    let mut out = String::with_capacity(end - start);
    let mut map = vec![(0, start)];
    let mut from = start;
    let mut left_out = leave_out;
    for (index, token) in inside.iter().enumerate() {
        if let Some((first, last)) = left_out
            && token.start as usize >= first
        {
            out.push_str(&text[from..first]);
            map.push((out.len(), last));
            from = last;
            left_out = None;
        }
        if (token.start as usize) < from {
            continue;
        }
        if token.kind != TokenKind::Macro
            || deferred.iter().any(|(first, last)| (*first..*last).contains(&index))
        {
            continue;
        }
        let written = token.text(text);
        let name = written.trim_matches(['@', '{', '}', ' ']).to_ascii_lowercase();
        if inside.get(index + 1).is_some_and(|next| next.is('(') && next.start == token.end) {
            let close = matching(inside, index + 1).map_or(end, |close| inside[close].end as usize);
            match (macros.call)(&text[token.start as usize..close], source.line(token.start as usize)) {
                Ok(value) => {
                    out.push_str(&text[from..token.start as usize]);
                    map.push((out.len(), token.start as usize));
                    out.push_str(value.trim());
                    from = close;
                    map.push((out.len(), from));
                }
                Err(error) => {
                    let at = source.location(token.start as usize);
                    let finding = Diagnostic::error(error.code, at, error.message);
                    findings.push(finding.hint(error.hint.unwrap_or_default()));
                }
            }
            continue;
        }
        let Some(value) = (macros.lookup)(&name) else {
            let at = source.location(token.start as usize);
            let message = format!("macro variable `{written}` is undefined");
            findings.push(
                Diagnostic::error("undefined-variable", at, message)
                    .hint("define it under `variables` in the config or in the model's blueprints"),
            );
            continue;
        };
        out.push_str(&text[from..token.start as usize]);
        map.push((out.len(), token.start as usize));
        out.push_str(&if written.starts_with("@{") { as_identifier(&value) } else { value });
        from = token.end as usize;
        map.push((out.len(), from));
    }
    if from == start {
        return None;
    }
    out.push_str(&text[from.min(end)..end]);
    Some(Source::expanded(source, out, map))
}

/// A value inside an identifier: a string's content, anything else as it is.
fn as_identifier(value: &str) -> String {
    match value.as_bytes() {
        [b'\'', .., b'\''] => unquote(value, TokenKind::String),
        [b'"', .., b'"'] => unquote(value, TokenKind::Quoted),
        _ => value.to_owned(),
    }
}

fn deferred_ranges(source: &Source, inside: &[Token]) -> Vec<(usize, usize)> {
    let is_deferred = |token: &Token| DEFERRED.iter().any(|key| token.is_word(&source.text, key));
    let mut ranges = Vec::new();
    for (index, token) in inside.iter().enumerate() {
        let starts = index == 0 || inside[index - 1].is(',') || inside[index - 1].is('(');
        if !starts || !is_deferred(token) {
            continue;
        }
        let end = match inside.get(index + 1).map(|next| next.kind) {
            Some(TokenKind::Symbol('(' | '[')) => {
                matching(inside, index + 1).map_or(inside.len(), |close| close + 1)
            }
            _ => inside[index..]
                .iter()
                .position(|token| token.is(','))
                .map_or(inside.len(), |length| index + length),
        };
        ranges.push((index, end));
    }
    ranges
}

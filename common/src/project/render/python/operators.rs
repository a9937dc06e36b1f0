//! Operators that Python's values have and the template engine's don't: `'%s' % x`, and the time between
//! two dates. They are written as the filter and the method that mean the same.

use std::borrow::Cow;
use std::ops::Range;

use super::super::jinja::segments;
use super::super::time::TimeVar;
use crate::project::macros::lex;

/// The method that `-` between two times becomes.
pub(super) const MINUS: &str = "minus_";

/// The template with such operators written so that the engine knows them, on the same lines.
pub(super) fn spelled(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    for segment in segments(text) {
        for (range, new) in changes(segment.content) {
            out.push_str(&text[copied..segment.at + range.start]);
            out.push_str(&new);
            copied = segment.at + range.end;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// What to write in place of parts of an expression.
fn changes(content: &str) -> Vec<(Range<usize>, String)> {
    let bytes = content.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = token(content, at);
        let change = match bytes[at] {
            b'\'' | b'"' => formatted(content, end),
            b if lex::is_word_start(b) && (at == 0 || bytes[at - 1] != b'.') => {
                difference(content, &content[at..end], end)
            }
            _ => None,
        };
        at = match change {
            Some((range, new)) => {
                let next = range.end;
                found.push((range, new));
                next
            }
            None => end,
        };
    }
    found
}

/// Where the text, name or other byte that starts at `at` ends.
fn token(content: &str, at: usize) -> usize {
    let bytes = content.as_bytes();
    match bytes[at] {
        quote @ (b'\'' | b'"') => {
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] != quote {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            (end + 1).min(bytes.len())
        }
        b if lex::is_word_byte(b) => lex::word_end(bytes, at).max(at + 1),
        _ => at + 1,
    }
}

fn blanks(content: &str, at: usize) -> usize {
    content.len() - content[at..].trim_start().len()
}

/// `'…' % operand` behind the text: a call of `format`.
fn formatted(content: &str, after: usize) -> Option<(Range<usize>, String)> {
    let sign = blanks(content, after);
    if content.as_bytes().get(sign) != Some(&b'%') {
        return None;
    }
    let start = blanks(content, sign + 1);
    let end = operand(content, start)?;
    let written = &content[start..end];
    let inner = written.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let whole = inner.filter(|_| token_group(content, start) == Some(end));
    let arguments = whole.map_or(written, |inner| inner.trim_end().trim_end_matches(','));
    Some((after..end, format!("|format({arguments})")))
}

/// The end of a name, number, text or group and of what is called or looked up in it.
fn operand(content: &str, start: usize) -> Option<usize> {
    let bytes = content.as_bytes();
    let mut end = match bytes.get(start)? {
        b'(' => token_group(content, start)?,
        b'\'' | b'"' => token(content, start),
        b if lex::is_word_byte(*b) => token(content, start),
        _ => return None,
    };
    loop {
        end = match bytes.get(end) {
            Some(b'(' | b'[') => token_group(content, end)?,
            Some(b'.') if bytes.get(end + 1).is_some_and(|b| lex::is_word_byte(*b)) => {
                token(content, end + 1)
            }
            _ => return Some(end),
        };
    }
}

/// Where the bracket that opens at `start` is closed.
fn token_group(content: &str, start: usize) -> Option<usize> {
    let bytes = content.as_bytes();
    let (mut depth, mut at) = (0_usize, start);
    while at < bytes.len() {
        match bytes[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at = token(content, at);
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// `end_date - start_date` behind its first name: a call of [`MINUS`].
fn difference(content: &str, name: &str, after: usize) -> Option<(Range<usize>, String)> {
    let is_moment = |name: &str| {
        TimeVar::named(name).is_some() && ["_date", "_dt", "_dtntz"].iter().any(|end| name.ends_with(end))
    };
    let sign = blanks(content, after);
    if !is_moment(name) || content.as_bytes().get(sign) != Some(&b'-') {
        return None;
    }
    let start = blanks(content, sign + 1);
    content.as_bytes().get(start).filter(|b| lex::is_word_start(**b))?;
    let end = token(content, start);
    let other = &content[start..end];
    is_moment(other).then(|| (after..end, format!(".{MINUS}({other})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_become_what_the_engine_knows() {
        for (template, expected) in [
            ("{{ '%s-%s' % (a, f(b)) }}", "{{ '%s-%s'|format(a, f(b)) }}"),
            ("{{ '%s' % x.y[0] ~ 'z' }}", "{{ '%s'|format(x.y[0]) ~ 'z' }}"),
            ("{{ '%s' % (x,) }} {{ 7 % 2 }}", "{{ '%s'|format(x) }} {{ 7 % 2 }}"),
            ("{{ '%s' % (a).b }}", "{{ '%s'|format((a).b) }}"),
            ("{% set x = \"%d\" % 3 %}", "{% set x = \"%d\"|format(3) %}"),
            ("{% if a == 'b' %}c{% endif %}", "{% if a == 'b' %}c{% endif %}"),
            ("{{ (end_date - start_date).days }}", "{{ (end_date.minus_(start_date)).days }}"),
            ("{{ x.end_date - start_date }}", "{{ x.end_date - start_date }}"),
            ("{{ end_date - 1 }} a - b 'x' % y", "{{ end_date - 1 }} a - b 'x' % y"),
            ("{{ '%s' % ", "{{ '%s' % "),
            ("{{ '%s' % ü", "{{ '%s'|format(ü)"),
        ] {
            assert_eq!(spelled(template), expected, "{template}");
        }
    }
}

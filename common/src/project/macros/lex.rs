//! The little lexing that macros need: where strings, quoted names and comments end.

use crate::sql::Dialect;

/// What macros don't look into, or only as a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opaque {
    Comment,
    Text,
    QuotedName,
}

/// The comment, string or quoted name that starts at `at`, with its end. An unclosed one reaches
/// to the end of the text.
pub(crate) fn opaque(text: &str, at: usize, dialect: Dialect) -> Option<(Opaque, usize)> {
    let bytes = text.as_bytes();
    let next = bytes.get(at + 1).copied();
    match bytes[at] {
        b'-' if next == Some(b'-') => Some((Opaque::Comment, line_end(bytes, at))),
        b'#' if matches!(dialect, Dialect::MySql | Dialect::BigQuery) => {
            Some((Opaque::Comment, line_end(bytes, at)))
        }
        b'/' if next == Some(b'*') => Some((Opaque::Comment, block_end(bytes, at, dialect))),
        b'/' if next == Some(b'/') && dialect == Dialect::Snowflake => {
            Some((Opaque::Comment, line_end(bytes, at)))
        }
        b'\'' => Some((Opaque::Text, string_end(bytes, at, dialect))),
        b'"' if quotes_are_strings(dialect) => Some((Opaque::Text, string_end(bytes, at, dialect))),
        b'"' => Some((Opaque::QuotedName, quoted_end(bytes, at, b'"'))),
        b'`' => Some((Opaque::QuotedName, quoted_end(bytes, at, b'`'))),
        b'[' if dialect.is_tsql() => Some((Opaque::QuotedName, quoted_end(bytes, at, b']'))),
        b'$' => dollar_end(text, at, dialect).map(|end| (Opaque::Text, end)),
        _ => None,
    }
}

/// Whether `"…"` is a string rather than a name.
pub(crate) fn quotes_are_strings(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::BigQuery | Dialect::MySql | Dialect::Spark | Dialect::Databricks)
}

/// Whether a backslash escapes inside ordinary strings.
pub(crate) fn backslash_escapes(dialect: Dialect) -> bool {
    matches!(
        dialect,
        Dialect::BigQuery
            | Dialect::MySql
            | Dialect::Spark
            | Dialect::Databricks
            | Dialect::Snowflake
            | Dialect::ClickHouse
            | Dialect::Redshift
    )
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n)
}

fn block_end(bytes: &[u8], at: usize, dialect: Dialect) -> usize {
    let nests = !matches!(
        dialect,
        Dialect::BigQuery | Dialect::MySql | Dialect::Snowflake | Dialect::Sqlite | Dialect::Redshift
    );
    let mut depth = 1;
    let mut here = at + 2;
    while here + 1 < bytes.len() {
        match &bytes[here..here + 2] {
            b"*/" => {
                depth -= 1;
                here += 2;
                if depth == 0 {
                    return here;
                }
            }
            b"/*" if nests => {
                depth += 1;
                here += 2;
            }
            _ => here += 1,
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize, dialect: Dialect) -> usize {
    let quote = bytes[at];
    let prefix = match at.checked_sub(1).map(|i| bytes[i].to_ascii_lowercase()) {
        Some(letter @ (b'e' | b'r')) if at < 2 || !is_word_byte(bytes[at - 2]) => Some(letter),
        _ => None,
    };
    let escapes = match prefix {
        Some(b'e') => true,
        Some(_) if backslash_escapes(dialect) => false,
        _ => backslash_escapes(dialect),
    };
    if dialect == Dialect::BigQuery && bytes[at..].starts_with(&[quote; 3]) {
        return triple_end(bytes, at, quote, escapes);
    }
    let mut here = at + 1;
    while here < bytes.len() {
        match bytes[here] {
            b'\\' if escapes => here += 2,
            b if b == quote && bytes.get(here + 1) == Some(&quote) => here += 2,
            b if b == quote => return here + 1,
            _ => here += 1,
        }
    }
    bytes.len()
}

fn triple_end(bytes: &[u8], at: usize, quote: u8, escapes: bool) -> usize {
    let mut here = at + 3;
    while here < bytes.len() {
        if bytes[here] == b'\\' && escapes {
            here += 2;
        } else if bytes[here..].starts_with(&[quote; 3]) {
            return here + 3;
        } else {
            here += 1;
        }
    }
    bytes.len()
}

fn quoted_end(bytes: &[u8], at: usize, close: u8) -> usize {
    let mut here = at + 1;
    while here < bytes.len() {
        if bytes[here] != close {
            here += 1;
        } else if bytes.get(here + 1) == Some(&close) {
            here += 2;
        } else {
            return here + 1;
        }
    }
    bytes.len()
}

/// The end of a `$tag$…$tag$` string.
fn dollar_end(text: &str, at: usize, dialect: Dialect) -> Option<usize> {
    if matches!(
        dialect,
        Dialect::BigQuery
            | Dialect::MySql
            | Dialect::TSql
            | Dialect::Fabric
            | Dialect::Sqlite
            | Dialect::Trino
    ) || (at > 0 && is_word_byte(text.as_bytes()[at - 1]))
    {
        return None;
    }
    let tag_len = text[at + 1..].find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
    let tag_end = at + 1 + tag_len;
    let bytes = text.as_bytes();
    if bytes.get(tag_end) != Some(&b'$') || bytes[at + 1].is_ascii_digit() {
        return None;
    }
    let tag = &text[at..=tag_end];
    Some(text[tag_end + 1..].find(tag).map_or(text.len(), |n| tag_end + 1 + n + tag.len()))
}

/// Whether the byte may stand inside a name.
pub(crate) fn is_word_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80
}

/// Whether a name may start with the byte.
pub(crate) fn is_word_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
}

/// Where the name that starts at `at` ends.
pub(crate) fn word_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|b| !is_word_byte(*b)).map_or(bytes.len(), |n| at + n)
}

/// Where white space and comments from `at` on end.
pub(crate) fn skip_blank(text: &str, mut at: usize, dialect: Dialect) -> usize {
    let bytes = text.as_bytes();
    while at < bytes.len() {
        if bytes[at].is_ascii_whitespace() {
            at += 1;
        } else if let Some((Opaque::Comment, end)) = opaque(text, at, dialect) {
            at = end;
        } else {
            break;
        }
    }
    at
}

/// The place after the bracket that closes the one at `open`.
pub(crate) fn closing(text: &str, open: usize, dialect: Dialect) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut at = open;
    while at < bytes.len() {
        if let Some((_, end)) = opaque(text, at, dialect) {
            at = end;
            continue;
        }
        match bytes[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The parts of a text between separators outside brackets, strings and comments, trimmed; empty
/// ones are left out, so trailing commas are fine. With `,`, a bare query takes all that follows:
/// its commas are its own.
pub(crate) fn split(text: &str, separator: u8, dialect: Dialect) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut parts = Vec::new();
    let (mut start, mut at, mut depth) = (0, 0, 0usize);
    while at < bytes.len() {
        if let Some((_, end)) = opaque(text, at, dialect) {
            at = end;
            continue;
        }
        match bytes[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b if b == separator && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            b if is_word_start(b) => {
                let end = word_end(bytes, at);
                let is_query = separator == b','
                    && depth == 0
                    && text[start..at].trim().is_empty()
                    && ["select", "with"].iter().any(|word| text[at..end].eq_ignore_ascii_case(word))
                    && bytes.get(end).is_some_and(u8::is_ascii_whitespace);
                at = if is_query { bytes.len() } else { end };
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    parts.push(&text[start.min(text.len())..]);
    parts.retain(|part| skip_blank(part, 0, dialect) < part.len());
    parts.into_iter().map(str::trim).collect()
}

/// The items of a list written `[a, b]`, `(a, b)`, `ARRAY[a, b]` or `ARRAY(a, b)`.
pub(crate) fn items(text: &str, dialect: Dialect) -> Option<Vec<&str>> {
    let mut list = text.trim();
    if let Some(word) = list.get(..5)
        && word.eq_ignore_ascii_case("array")
    {
        list = list[5..].trim_start();
    }
    // In T-SQL a bracket quotes a name; a list of one is then still a list of that name.
    let first = *list.as_bytes().first()?;
    if first != b'[' && first != b'(' {
        return None;
    }
    let end = if first == b'[' && dialect.is_tsql() {
        quoted_end(list.as_bytes(), 0, b']')
    } else {
        closing(list, 0, dialect)?
    };
    (end == list.len()).then(|| split(&list[1..list.len() - 1], b',', dialect))
}

/// The content of a text that is one string literal.
pub(crate) fn string_literal(text: &str, dialect: Dialect) -> Option<String> {
    let text = text.trim();
    let quote = *text.as_bytes().first()?;
    if !(quote == b'\'' || (quote == b'"' && quotes_are_strings(dialect))) {
        return None;
    }
    let (_, end) = opaque(text, 0, dialect)?;
    if end != text.len() || end < 2 || text.as_bytes()[end - 1] != quote {
        return None;
    }
    let quote = char::from(quote);
    let mut content = String::with_capacity(end);
    let mut letters = text[1..end - 1].chars();
    while let Some(letter) = letters.next() {
        let escaped = letter == quote || (letter == '\\' && backslash_escapes(dialect));
        content.push(if escaped { letters.next().unwrap_or(letter) } else { letter });
    }
    Some(content)
}

/// The name that a text is, without quotes: one plain or quoted identifier.
pub(crate) fn single_name(text: &str, dialect: Dialect) -> Option<String> {
    let text = text.trim();
    let bytes = text.as_bytes();
    if is_word_start(*bytes.first()?) {
        return (word_end(bytes, 0) == bytes.len()).then(|| text.to_owned());
    }
    match opaque(text, 0, dialect) {
        Some((Opaque::QuotedName, end)) if end == text.len() && end >= 2 => {
            let close = text.chars().next_back().filter(|c| matches!(c, '"' | '`' | ']'))?;
            Some(text[1..end - 1].replace(&format!("{close}{close}"), &close.to_string()))
        }
        _ => None,
    }
}

/// The parts of a dotted name with whether each is quoted.
pub(crate) fn name_parts(text: &str, dialect: Dialect) -> Option<Vec<(String, bool)>> {
    split(text, b'.', dialect)
        .into_iter()
        .map(|part| single_name(part, dialect).map(|name| (name, !is_word_start(part.as_bytes()[0]))))
        .collect()
}

/// Whether a name needs no quotes.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// Whether an expression can stand as an operand without brackets: a name, a literal, a call or
/// something in brackets.
pub(crate) fn is_atomic(text: &str, dialect: Dialect) -> bool {
    let text = text.trim();
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut after_word = false;
    while at < bytes.len() {
        match bytes[at] {
            b'(' | b'[' => match closing(text, at, dialect) {
                Some(end) if end == bytes.len() || bytes[end] == b'.' => at = end,
                _ => return false,
            },
            b'.' => at += 1,
            b if is_word_byte(b) && !after_word => at = word_end(bytes, at),
            _ => match opaque(text, at, dialect) {
                Some((Opaque::Text | Opaque::QuotedName, end)) => at = end,
                _ => return false,
            },
        }
        after_word = at > 0 && is_word_byte(bytes[at - 1]);
    }
    true
}

/// Whether a text has the word `AND`, `OR` or `XOR` outside brackets.
pub(crate) fn has_connector(text: &str, dialect: Dialect) -> bool {
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut between) = (0, 0usize, 0usize);
    while at < bytes.len() {
        if let Some((_, end)) = opaque(text, at, dialect) {
            at = end;
            continue;
        }
        match bytes[at] {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b if is_word_start(b) => {
                let end = word_end(bytes, at);
                if depth == 0 {
                    match text[at..end].to_ascii_lowercase().as_str() {
                        "between" | "case" => between += 1,
                        "end" => between = between.saturating_sub(1),
                        "and" if between > 0 => between -= 1,
                        "and" | "or" | "xor" => return true,
                        _ => {}
                    }
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_end_as_their_dialect_says() {
        let end = |text: &str, dialect| opaque(text, 0, dialect).map(|(_, end)| end);
        assert_eq!(end("'it''s' x", Dialect::DuckDb), Some(7));
        assert_eq!(end(r"'it\'s' x", Dialect::BigQuery), Some(7));
        assert_eq!(end(r"'it\' x", Dialect::DuckDb), Some(5));
        assert_eq!(end("'''a'b''' x", Dialect::BigQuery), Some(9));
        assert_eq!(end("$a$ ' $$ $a$ x", Dialect::Postgres), Some(12));
        assert_eq!(end("$1", Dialect::Postgres), None);
        assert_eq!(end("/* /* */ */ x", Dialect::Postgres), Some(11));
        assert_eq!(end("/* /* */ */ x", Dialect::MySql), Some(8));
        assert_eq!(end("[a]]b] x", Dialect::TSql), Some(6));
        assert_eq!(end("-- a\nb", Dialect::DuckDb), Some(4));
        assert_eq!(opaque(r"E'\'' x", 1, Dialect::Postgres), Some((Opaque::Text, 5)));
    }

    #[test]
    fn arguments_split_at_their_own_commas() {
        let parts = |text| split(text, b',', Dialect::DuckDb);
        assert_eq!(parts("a, f(b, c), [d, e], 'f, g', "), ["a", "f(b, c)", "[d, e]", "'f, g'"]);
        assert_eq!(parts("x, SELECT a, b FROM t"), ["x", "SELECT a, b FROM t"]);
        assert!(parts(" ").is_empty());
    }

    #[test]
    fn only_operands_of_one_piece_are_atomic() {
        let atomic = |text| is_atomic(text, Dialect::DuckDb);
        for text in ["a", "a.b", "f(a, b)", "'x'", "(a + b)", "1.5", "\"a b\".c", "x[1]"] {
            assert!(atomic(text), "{text}");
        }
        for text in ["a + b", "NOT a", "-a", "(a) + (b)", "a IN (1)"] {
            assert!(!atomic(text), "{text}");
        }
    }
}

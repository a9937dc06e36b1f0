//! A property's value: a run of tokens that whoever reads the property interprets.

use crate::diagnostic::Location;
use crate::sql::Dialect;

use super::source::Source;
use super::token::{Token, TokenKind};

/// A run of tokens of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value<'a> {
    pub(crate) source: &'a Source,
    pub(crate) tokens: &'a [Token],
    /// Where a message about an empty value points to.
    pub(crate) fallback: usize,
}

impl<'a> Value<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(crate) fn start(&self) -> usize {
        self.tokens.first().map_or(self.fallback, |token| token.start as usize)
    }

    pub(crate) fn location(&self) -> Location {
        self.source.location(self.start())
    }

    /// The text as written, from the first token to the last.
    pub(crate) fn text(&self) -> &'a str {
        match (self.tokens.first(), self.tokens.last()) {
            (Some(first), Some(last)) => &self.source.text[first.start as usize..last.end as usize],
            _ => "",
        }
    }

    fn part(&self, tokens: &'a [Token]) -> Self {
        Self { source: self.source, tokens, fallback: self.start() }
    }

    pub(crate) fn word_is(&self, index: usize, word: &str) -> bool {
        self.tokens.get(index).is_some_and(|token| token.is_word(&self.source.text, word))
    }

    /// What one pair of parentheses, brackets (or a call of `array`) around the whole encloses.
    pub(crate) fn inside(&self) -> Option<Self> {
        let skip = usize::from(self.word_is(0, "array"));
        let open = self.tokens.get(skip)?;
        let close = match open.kind {
            TokenKind::Symbol('(') => ')',
            TokenKind::Symbol('[') => ']',
            _ => return None,
        };
        let end = matching(self.tokens, skip)?;
        let whole = end + 1 == self.tokens.len() && self.tokens[end].is(close);
        whole.then(|| Self {
            source: self.source,
            tokens: &self.tokens[skip + 1..end],
            fallback: open.end as usize,
        })
    }

    /// The pieces between commas that no parenthesis encloses; none of them is empty.
    pub(crate) fn split(&self) -> Vec<Self> {
        split_tokens(self.tokens, ',').map(|tokens| self.part(tokens)).collect()
    }

    /// The elements of a list in parentheses or brackets, or the value itself as the only one.
    pub(crate) fn elements(&self) -> Vec<Self> {
        match self.inside() {
            Some(inside) => inside.split(),
            None if self.is_empty() => Vec::new(),
            None => vec![*self],
        }
    }

    /// Like [`Self::elements`], for SQL expressions: `(a)` and `(a, b)` are lists, but an array
    /// is an expression of its own only where it isn't the whole.
    pub(crate) fn expressions(&self) -> Vec<String> {
        self.elements().iter().map(|element| element.text().to_owned()).collect()
    }

    /// The two sides of `key = value`, `key := value` or `key => value`.
    pub(crate) fn assignment(&self) -> Option<(Self, Self)> {
        let at = self.tokens.iter().position(|token| {
            matches!(token.kind, TokenKind::Assign | TokenKind::Arrow | TokenKind::Symbol('='))
        })?;
        (at > 0 && at + 1 < self.tokens.len())
            .then(|| (self.part(&self.tokens[..at]), self.part(&self.tokens[at + 1..])))
    }

    /// The one word, name, string or number that the value is, without quotes.
    pub(crate) fn scalar(&self) -> Option<String> {
        let unwrapped = match self.inside() {
            Some(inside) if inside.tokens.len() == 1 => inside,
            _ => *self,
        };
        let text = |token: &Token| token.text(&self.source.text);
        match unwrapped.tokens {
            [one] => match one.kind {
                TokenKind::String | TokenKind::Quoted => Some(unquote(text(one), one.kind)),
                TokenKind::Word | TokenKind::Number => Some(text(one).to_owned()),
                TokenKind::Macro
                | TokenKind::Assign
                | TokenKind::Arrow
                | TokenKind::Jinja { .. }
                | TokenKind::Symbol(_) => None,
            },
            [sign, number] if sign.is('-') && number.kind == TokenKind::Number => {
                Some(format!("-{}", text(number)))
            }
            _ => None,
        }
    }

    /// The parts of a dotted name, normalised as the dialect does; whether it is a lone string.
    pub(crate) fn name_parts(&self, dialect: Dialect) -> Option<Vec<String>> {
        let mut parts = vec![NamePart::default()];
        let mut end = self.tokens.first()?.start;
        for token in self.tokens {
            if token.start != end && !token.is('.') && !parts.last().is_some_and(NamePart::is_empty) {
                return None;
            }
            end = token.end;
            let text = token.text(&self.source.text);
            let last = parts.last_mut()?;
            match token.kind {
                TokenKind::Symbol('.') if !last.is_empty() => parts.push(NamePart::default()),
                TokenKind::Word => last.text.push_str(text),
                TokenKind::Symbol('-') if !last.is_empty() => last.text.push('-'),
                TokenKind::Number if !last.is_empty() || dialect != Dialect::Generic => {
                    push_number(&mut parts, text);
                }
                TokenKind::Quoted | TokenKind::String => {
                    let name = unquote(text, token.kind);
                    last.quoted = true;
                    if dialect == Dialect::BigQuery && text.starts_with('`') {
                        push_dotted(&mut parts, &name);
                    } else {
                        last.text.push_str(&name);
                    }
                }
                TokenKind::Number
                | TokenKind::Macro
                | TokenKind::Assign
                | TokenKind::Arrow
                | TokenKind::Jinja { .. }
                | TokenKind::Symbol(_) => return None,
            }
        }
        let done = !parts.last().is_some_and(NamePart::is_empty);
        done.then(|| parts.iter().map(|part| dialect.normalize(&part.text, part.quoted)).collect())
    }
}

#[derive(Debug, Default)]
struct NamePart {
    text: String,
    quoted: bool,
}

impl NamePart {
    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

/// `2024.x` tokenises as the number `2024.` and a word.
fn push_number(parts: &mut Vec<NamePart>, text: &str) {
    for (index, piece) in text.split('.').enumerate() {
        if index > 0 {
            parts.push(NamePart::default());
        }
        if let Some(last) = parts.last_mut() {
            last.text.push_str(piece);
        }
    }
}

/// BigQuery takes `` `project.dataset.table` `` in one pair of quotes for three parts.
fn push_dotted(parts: &mut Vec<NamePart>, name: &str) {
    for (index, piece) in name.split('.').enumerate() {
        if index > 0 {
            parts.push(NamePart::default());
        }
        if let Some(last) = parts.last_mut() {
            last.quoted = true;
            last.text.push_str(piece);
        }
    }
}

/// The index of the token that closes the one at `open`.
pub(crate) fn matching(tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            TokenKind::Symbol('(' | '[' | '{') => depth += 1,
            TokenKind::Symbol(')' | ']' | '}') => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

/// The runs of tokens between separators outside of parentheses; empty runs are left out.
pub(crate) fn split_tokens(tokens: &[Token], separator: char) -> impl Iterator<Item = &[Token]> {
    let mut depth = 0i32;
    tokens
        .split(move |token| {
            match token.kind {
                TokenKind::Symbol('(' | '[' | '{') => depth += 1,
                TokenKind::Symbol(')' | ']' | '}') => depth -= 1,
                _ => {}
            }
            depth == 0 && token.is(separator)
        })
        .filter(|run| !run.is_empty())
}

/// The content of a string or a quoted name.
pub(crate) fn unquote(text: &str, kind: TokenKind) -> String {
    if kind == TokenKind::String && text.starts_with('$') {
        let tag = text[1..].find('$').map_or(1, |at| at + 2);
        return text[tag..text.len() - tag].to_owned();
    }
    let open = text.find(['\'', '"', '`', '[']).unwrap_or(0);
    let body = &text[open..];
    for triple in ["\"\"\"", "'''"] {
        if body.len() >= 6 && body.starts_with(triple) && body.ends_with(triple) {
            return body[3..body.len() - 3].to_owned();
        }
    }
    if body.len() < 2 {
        return text.to_owned();
    }
    let quote = &body[body.len() - 1..];
    body[1..body.len() - 1].replace(&quote.repeat(2), quote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::ddl::token::tokenize;

    fn with<T>(dialect: Dialect, text: &str, read: impl FnOnce(Value<'_>) -> T) -> T {
        let source = Source::new("f".into(), text.into());
        let tokens = tokenize(text, dialect).unwrap().tokens;
        read(Value { source: &source, tokens: &tokens, fallback: 0 })
    }

    #[test]
    fn lists_come_in_parentheses_brackets_or_alone() {
        for (text, expected) in [
            ("(a, b)", &["a", "b"][..]),
            ("[a, f(x, y)]", &["a", "f(x, y)"]),
            ("array(1, 2)", &["1", "2"]),
            ("ARRAY[f(x), 2]", &["f(x)", "2"]),
            ("a", &["a"]),
            ("f(a, b)", &["f(a, b)"]),
            ("(a) + (b)", &["(a) + (b)"]),
            ("((a, b), c,)", &["(a, b)", "c"]),
            ("()", &[]),
        ] {
            assert_eq!(with(Dialect::DuckDb, text, |value| value.expressions()), expected, "{text}");
        }
    }

    #[test]
    fn scalars_lose_their_quotes() {
        for (text, expected) in [
            ("abc", Some("abc")),
            ("'it''s'", Some("it's")),
            ("\"a b\"", Some("a b")),
            ("(x)", Some("x")),
            ("-3", Some("-3")),
            ("$$a$$", Some("a")),
            ("2020-01-01", None),
            ("a b", None),
        ] {
            assert_eq!(with(Dialect::DuckDb, text, |value| value.scalar()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn names_are_normalised_per_part() {
        for (dialect, text, expected) in [
            (Dialect::DuckDb, "A.\"B\"", Some(&["a", "b"][..])),
            (Dialect::Postgres, "A.\"B\"", Some(&["a", "B"])),
            (Dialect::Snowflake, "a.\"b\"", Some(&["A", "b"])),
            (Dialect::BigQuery, "`my-p.ds.T`", Some(&["my-p", "ds", "T"])),
            (Dialect::BigQuery, "my-p.ds.T", Some(&["my-p", "ds", "T"])),
            (Dialect::DuckDb, "a.t_1.2x", Some(&["a", "t_1", "2x"])),
            (Dialect::DuckDb, "a. b", Some(&["a", "b"])),
            (Dialect::DuckDb, "a b", None),
            (Dialect::DuckDb, "a.", None),
            (Dialect::DuckDb, "f(x)", None),
        ] {
            let parts = with(dialect, text, |value| value.name_parts(dialect));
            let expected = expected.map(|parts| parts.iter().map(|part| (*part).to_owned()).collect());
            assert_eq!(parts, expected, "{text}");
        }
    }
}

//! Splitting SQL text into tokens, knowing just enough of each dialect's quoting and comments to
//! find where statements and properties end.

use crate::sql::Dialect;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// An unquoted identifier or keyword.
    Word,
    /// A quoted identifier.
    Quoted,
    /// A string, with its prefix and quotes.
    String,
    /// A number without sign.
    Number,
    /// `@name` or `@{name}`.
    Macro,
    /// `:=`
    Assign,
    /// `=>`
    Arrow,
    /// A whole Jinja block, `JINJA_…_BEGIN; … JINJA_END`; its body's offsets.
    Jinja { is_query: bool, body: (u32, u32) },
    /// Any other character.
    Symbol(char),
}

/// A piece of text; offsets are bytes, the end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Token {
    pub(crate) fn text(self, source: &str) -> &str {
        &source[self.start as usize..self.end as usize]
    }

    pub(crate) fn is(self, symbol: char) -> bool {
        self.kind == TokenKind::Symbol(symbol)
    }

    pub(crate) fn is_word(self, source: &str, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text(source).eq_ignore_ascii_case(word)
    }
}

/// A text's tokens, and its comments (with their marks) apart.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) tokens: Vec<Token>,
    pub(crate) comments: Vec<(u32, u32)>,
}

/// Something that was opened and never closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unterminated {
    pub(crate) what: &'static str,
    pub(crate) offset: usize,
}

/// How a dialect quotes and comments.
#[derive(Debug, Clone, Copy)]
struct Rules {
    hash_comments: bool,
    slash_comments: bool,
    nested_comments: bool,
    backslash: bool,
    double_quoted_strings: bool,
    brackets: bool,
    dollar: bool,
    triple: bool,
}

impl Rules {
    fn of(dialect: Dialect) -> Self {
        use Dialect as D;
        let is = |these: &[D]| these.contains(&dialect);
        Self {
            hash_comments: is(&[D::BigQuery, D::MySql, D::ClickHouse]),
            slash_comments: is(&[D::Snowflake]),
            nested_comments: !is(&[D::BigQuery, D::Snowflake, D::MySql, D::Sqlite, D::Trino]),
            backslash: is(&[
                D::BigQuery,
                D::MySql,
                D::Spark,
                D::Databricks,
                D::Snowflake,
                D::Redshift,
                D::ClickHouse,
            ]),
            double_quoted_strings: is(&[D::BigQuery, D::MySql, D::Spark, D::Databricks]),
            brackets: is(&[D::TSql, D::Fabric, D::Sqlite]),
            dollar: is(&[D::DuckDb, D::Postgres, D::Redshift, D::ClickHouse, D::Snowflake]),
            triple: is(&[D::BigQuery]),
        }
    }
}

/// Tokenises a text in a dialect.
pub(crate) fn tokenize(text: &str, dialect: Dialect) -> Result<Tokens, Unterminated> {
    let mut scanner = Scanner {
        text,
        bytes: text.as_bytes(),
        at: 0,
        rules: Rules::of(dialect),
        out: Tokens { tokens: Vec::with_capacity(text.len() / 5 + 8), comments: Vec::new() },
    };
    while scanner.at < scanner.bytes.len() {
        scanner.step()?;
    }
    Ok(scanner.out)
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    rules: Rules,
    out: Tokens,
}

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn step(&mut self) -> Result<(), Unterminated> {
        let byte = self.peek(0);
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                self.at += 1;
                Ok(())
            }
            b'-' if self.peek(1) == b'-' => self.line_comment(),
            b'#' if self.rules.hash_comments => self.line_comment(),
            b'/' if self.rules.slash_comments && self.peek(1) == b'/' => self.line_comment(),
            b'/' if self.peek(1) == b'*' => self.block_comment(),
            b'{' if self.peek(1) == b'#' => self.jinja_comment(),
            b'\'' => self.string(self.at, b'\'', self.rules.backslash),
            b'"' if self.rules.double_quoted_strings => self.string(self.at, b'"', self.rules.backslash),
            b'"' => self.quoted(b'"'),
            b'`' => self.quoted(b'`'),
            b'[' if self.rules.brackets && self.opens_bracket_name() => self.quoted(b']'),
            b'$' if self.rules.dollar && self.dollar_tag().is_some() => self.dollar_string(),
            b'@' => {
                self.macro_or_at();
                Ok(())
            }
            b'0'..=b'9' => {
                self.number();
                Ok(())
            }
            b':' if self.peek(1) == b'=' => self.fixed(TokenKind::Assign, 2),
            b'=' if self.peek(1) == b'>' => self.fixed(TokenKind::Arrow, 2),
            _ if is_word_start(byte) => self.word(),
            _ => self.fixed(TokenKind::Symbol(byte as char), 1),
        }
    }

    fn push(&mut self, kind: TokenKind, start: usize, end: usize) {
        self.out.tokens.push(Token { kind, start: start as u32, end: end as u32 });
        self.at = end;
    }

    #[allow(clippy::unnecessary_wraps, reason = "the arms of `step` have one type")]
    fn fixed(&mut self, kind: TokenKind, length: usize) -> Result<(), Unterminated> {
        self.push(kind, self.at, self.at + length);
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps, reason = "the arms of `step` have one type")]
    fn line_comment(&mut self) -> Result<(), Unterminated> {
        let start = self.at;
        let length = self.bytes[start..].iter().position(|byte| *byte == b'\n');
        self.at = length.map_or(self.bytes.len(), |length| start + length);
        self.out.comments.push((start as u32, self.at as u32));
        Ok(())
    }

    fn block_comment(&mut self) -> Result<(), Unterminated> {
        let start = self.at;
        let mut depth = 1;
        self.at += 2;
        while depth > 0 {
            match (self.peek(0), self.peek(1)) {
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                }
                (b'/', b'*') if self.rules.nested_comments => {
                    depth += 1;
                    self.at += 2;
                }
                _ if self.at >= self.bytes.len() => {
                    return Err(Unterminated { what: "comment", offset: start });
                }
                _ => self.at += 1,
            }
        }
        self.out.comments.push((start as u32, self.at as u32));
        Ok(())
    }

    fn jinja_comment(&mut self) -> Result<(), Unterminated> {
        let start = self.at;
        let Some(length) = self.text[start..].find("#}") else {
            return Err(Unterminated { what: "comment", offset: start });
        };
        self.at = start + length + 2;
        self.out.comments.push((start as u32, self.at as u32));
        Ok(())
    }

    /// A string whose first quote is at `self.at`; `start` is where its prefix starts.
    fn string(&mut self, start: usize, quote: u8, backslash: bool) -> Result<(), Unterminated> {
        if self.rules.triple && self.peek(1) == quote && self.peek(2) == quote {
            let mark = &self.text[self.at..self.at + 3];
            let Some(length) = self.text[self.at + 3..].find(mark) else {
                return Err(Unterminated { what: "string", offset: start });
            };
            self.push(TokenKind::String, start, self.at + length + 6);
            return Ok(());
        }
        let mut at = self.at + 1;
        loop {
            match self.bytes.get(at) {
                None => return Err(Unterminated { what: "string", offset: start }),
                Some(b'\\') if backslash => at += 2,
                Some(byte) if *byte == quote => {
                    if self.bytes.get(at + 1) != Some(&quote) {
                        break;
                    }
                    at += 2;
                }
                Some(_) => at += 1,
            }
        }
        self.push(TokenKind::String, start, at + 1);
        Ok(())
    }

    fn quoted(&mut self, close: u8) -> Result<(), Unterminated> {
        let start = self.at;
        let mut at = start + 1;
        loop {
            match self.bytes.get(at) {
                None => return Err(Unterminated { what: "quoted name", offset: start }),
                Some(byte) if *byte == close => {
                    if self.bytes.get(at + 1) != Some(&close) || close == b']' {
                        break;
                    }
                    at += 2;
                }
                Some(_) => at += 1,
            }
        }
        self.push(TokenKind::Quoted, start, at + 1);
        Ok(())
    }

    /// Whether a `[` quotes a name rather than opening a list such as `['a', 'b']`.
    fn opens_bracket_name(&self) -> bool {
        let rest = &self.bytes[self.at + 1..];
        let body = rest.iter().position(|byte| *byte == b']').map_or(rest, |end| &rest[..end]);
        !body.is_empty() && !body.iter().any(|byte| matches!(byte, b'\'' | b',' | b'[' | b'(' | b'\n'))
    }

    /// The `$tag$` that starts here, if one does.
    fn dollar_tag(&self) -> Option<usize> {
        let rest = &self.bytes[self.at + 1..];
        let length = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'))?;
        let tag_ok = rest[length] == b'$' && !rest.first().is_some_and(u8::is_ascii_digit);
        tag_ok.then_some(length + 2)
    }

    fn dollar_string(&mut self) -> Result<(), Unterminated> {
        let start = self.at;
        let length = self.dollar_tag().unwrap_or(2);
        let tag = &self.text[start..start + length];
        let Some(body) = self.text[start + length..].find(tag) else {
            return Err(Unterminated { what: "dollar-quoted string", offset: start });
        };
        self.push(TokenKind::String, start, start + body + 2 * length);
        Ok(())
    }

    fn macro_or_at(&mut self) {
        let start = self.at;
        if self.peek(1) == b'{'
            && let Some(length) = self.bytes[start..].iter().position(|byte| *byte == b'}')
            && self.bytes[start + 2..start + length].iter().all(|byte| is_word(*byte) || *byte == b' ')
        {
            return self.push(TokenKind::Macro, start, start + length + 1);
        }
        let length = self.bytes[start + 1..].iter().take_while(|byte| is_word(**byte)).count();
        if length > 0 && is_word_start(self.peek(1)) {
            self.push(TokenKind::Macro, start, start + 1 + length);
        } else {
            self.push(TokenKind::Symbol('@'), start, start + 1);
        }
    }

    fn number(&mut self) {
        let start = self.at;
        let mut at = start;
        while let Some(byte) = self.bytes.get(at) {
            let sign_of_exponent = matches!(byte, b'+' | b'-')
                && matches!(self.bytes[at - 1], b'e' | b'E')
                && self.bytes[start..at - 1].iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
            if !(is_word(*byte) || *byte == b'.' || sign_of_exponent) {
                break;
            }
            at += 1;
        }
        self.push(TokenKind::Number, start, at);
    }

    fn word(&mut self) -> Result<(), Unterminated> {
        let start = self.at;
        let length = self.bytes[start..].iter().take_while(|byte| is_word(**byte)).count();
        let end = start + length;
        let word = &self.text[start..end];
        let next = self.bytes.get(end).copied().unwrap_or(0);
        let string_quote = next == b'\'' || (next == b'"' && self.rules.double_quoted_strings);
        if string_quote && length <= 2 && is_string_prefix(word) {
            self.at = end;
            let raw = matches!(word, "r" | "R");
            let escaped = matches!(word, "e" | "E");
            return self.string(start, next, (self.rules.backslash || escaped) && !raw);
        }
        if word.len() >= 17 && word.is_ascii() {
            if word.eq_ignore_ascii_case("JINJA_QUERY_BEGIN") && self.semicolon_after(end).is_some() {
                return self.jinja(start, end, true);
            }
            if word.eq_ignore_ascii_case("JINJA_STATEMENT_BEGIN") && self.semicolon_after(end).is_some() {
                return self.jinja(start, end, false);
            }
        }
        self.push(TokenKind::Word, start, end);
        Ok(())
    }

    /// The offset after the semicolon that follows, with nothing but space between.
    fn semicolon_after(&self, at: usize) -> Option<usize> {
        let space = self.bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        (self.bytes.get(at + space) == Some(&b';')).then_some(at + space + 1)
    }

    fn jinja(&mut self, start: usize, after_word: usize, is_query: bool) -> Result<(), Unterminated> {
        let body = self.semicolon_after(after_word).unwrap_or(after_word);
        let mut from = body;
        loop {
            let Some(found) = find_ignoring_case(&self.bytes[from..], b"JINJA_END") else {
                return Err(Unterminated { what: "Jinja block (no JINJA_END)", offset: start });
            };
            let (at, end) = (from + found, from + found + 9);
            let whole = !is_word(self.bytes[at - 1]) && !self.bytes.get(end).is_some_and(|b| is_word(*b));
            if whole {
                let kind = TokenKind::Jinja { is_query, body: (body as u32, at as u32) };
                self.push(kind, start, end);
                self.at = self.semicolon_after(end).unwrap_or(end);
                return Ok(());
            }
            from = end;
        }
    }
}

fn find_ignoring_case(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window.eq_ignore_ascii_case(word))
}

fn is_string_prefix(word: &str) -> bool {
    matches!(
        word.as_bytes(),
        [b'e' | b'E' | b'r' | b'R' | b'b' | b'B' | b'n' | b'N' | b'x' | b'X'] | [b'r' | b'R', b'b' | b'B']
    )
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(dialect: Dialect, text: &str) -> Vec<&str> {
        tokenize(text, dialect).unwrap().tokens.into_iter().map(|token| token.text(text)).collect()
    }

    #[test]
    fn quotes_and_comments_follow_the_dialect() {
        let cases: [(Dialect, &str, &[&str]); 14] = [
            (Dialect::DuckDb, "a 'it''s; -- no' b", &["a", "'it''s; -- no'", "b"]),
            (Dialect::DuckDb, "a $$x;'$$ $t$ $$ $t$", &["a", "$$x;'$$", "$t$ $$ $t$"]),
            (Dialect::DuckDb, "a /* x /* y */ ; */ b -- c\nd", &["a", "b", "d"]),
            (Dialect::MySql, "a /* x /* y */ b # c\nd", &["a", "b", "d"]),
            (Dialect::Postgres, "a #> b", &["a", "#", ">", "b"]),
            (Dialect::Postgres, r"E'a\'b' 'a\'", &[r"E'a\'b'", r"'a\'"]),
            (
                Dialect::BigQuery,
                r#"'a\'b' "x""y" """a"b""" r'\' `p-q.r`"#,
                &[r"'a\'b'", r#""x""y""#, r#""""a"b""""#, r"r'\'", "`p-q.r`"],
            ),
            (Dialect::TSql, "[a b].[c] x", &["[a b]", ".", "[c]", "x"]),
            (Dialect::TSql, "['a', 'b']", &["[", "'a'", ",", "'b'", "]"]),
            (Dialect::Snowflake, "a // b\nc", &["a", "c"]),
            (Dialect::DuckDb, "@x @{y} @f(1) x_@{z}", &["@x", "@{y}", "@f", "(", "1", ")", "x_", "@{z}"]),
            (Dialect::DuckDb, "a := 1 => 1.5e-3", &["a", ":=", "1", "=>", "1.5e-3"]),
            (Dialect::DuckDb, "{# a ' #} b", &["b"]),
            (Dialect::DuckDb, "é ü1", &["é", "ü1"]),
        ];
        for (dialect, text, expected) in cases {
            assert_eq!(texts(dialect, text), expected, "{dialect} {text}");
        }
    }

    #[test]
    fn a_jinja_block_is_one_token() {
        let text = "jinja_query_begin ;\n{{ it's }};\nJINJA_END;\nx";
        let tokens = tokenize(text, Dialect::DuckDb).unwrap().tokens;
        assert_eq!(tokens.len(), 2);
        let TokenKind::Jinja { is_query: true, body } = tokens[0].kind else { panic!("{tokens:?}") };
        assert_eq!(&text[body.0 as usize..body.1 as usize], "\n{{ it's }};\n");
    }

    #[test]
    fn what_is_never_closed_is_named() {
        for (text, what, offset) in [
            ("a 'b", "string", 2),
            ("a \"b", "quoted name", 2),
            ("a /* b", "comment", 2),
            ("$$ b", "dollar-quoted string", 0),
            ("x JINJA_QUERY_BEGIN; a", "Jinja block (no JINJA_END)", 2),
        ] {
            assert_eq!(tokenize(text, Dialect::DuckDb).unwrap_err(), Unterminated { what, offset }, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn tokens_are_in_order_and_never_overlap(text in "\\PC{0,60}") {
            if let Ok(tokens) = tokenize(&text, Dialect::DuckDb) {
                let mut end = 0;
                for token in tokens.tokens {
                    proptest::prop_assert!(token.start >= end && token.end > token.start);
                    end = token.end;
                }
            }
        }
    }
}

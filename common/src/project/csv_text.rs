//! Reading CSV as pandas does, setting by setting.

use std::iter::Peekable;
use std::str::Chars;

/// How a CSV is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) delimiter: char,
    pub(super) quote: char,
    /// Whether a doubled quote in a quoted value is one quote.
    pub(super) double_quote: bool,
    /// Takes the next character as it is, inside of quotes and outside.
    pub(super) escape: Option<char>,
    /// Whether spaces after a delimiter don't count.
    pub(super) skip_initial_space: bool,
    /// What ends a row; absent: line feeds, carriage returns, or both.
    pub(super) terminator: Option<char>,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            delimiter: ',',
            quote: '"',
            double_quote: true,
            escape: None,
            skip_initial_space: false,
            terminator: None,
        }
    }
}

/// A row, and the line on which it starts, from 1.
pub(super) type Row = (u32, Vec<String>);

/// The rows of a CSV, blank ones left out.
///
/// # Errors
/// The line on which a quoted value starts that has no end.
pub(super) fn rows(text: &str, format: &Format) -> Result<Vec<Row>, u32> {
    let mut reader = Reader { chars: text.chars().peekable(), line: 1, format };
    let mut found = Vec::new();
    while reader.chars.peek().is_some() {
        let line = reader.line;
        let (fields, plain) = reader.row()?;
        let blank = plain && fields.len() == 1 && fields[0].chars().all(|c| c == ' ' || c == '\t');
        if !blank {
            found.push((line, fields));
        }
    }
    Ok(found)
}

/// What comes after a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    Row,
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    line: u32,
    format: &'a Format,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        self.line += u32::from(c == '\n' || (c == '\r' && self.chars.peek() != Some(&'\n')));
        Some(c)
    }

    /// One row, and whether none of it is quoted or escaped.
    fn row(&mut self) -> Result<(Vec<String>, bool), u32> {
        let (mut fields, mut plain) = (Vec::new(), true);
        loop {
            let mut value = String::new();
            let next = self.value(&mut value, &mut plain)?;
            fields.push(value);
            if next == Next::Row {
                return Ok((fields, plain));
            }
        }
    }

    fn value(&mut self, value: &mut String, plain: &mut bool) -> Result<Next, u32> {
        let format = self.format;
        while format.skip_initial_space && self.chars.peek() == Some(&' ') {
            self.next();
        }
        if self.chars.peek() == Some(&format.quote) {
            *plain = false;
            self.quoted(value)?;
        }
        loop {
            let Some(c) = self.next() else { return Ok(Next::Row) };
            if c == format.delimiter {
                return Ok(Next::Value);
            }
            if self.ends_row(c) {
                return Ok(Next::Row);
            }
            match format.escape {
                Some(escape) if escape == c => {
                    *plain = false;
                    value.extend(self.next());
                }
                _ => value.push(c),
            }
        }
    }

    /// A quoted part at the beginning of a value.
    fn quoted(&mut self, value: &mut String) -> Result<(), u32> {
        let (format, line) = (self.format, self.line);
        self.next();
        loop {
            let c = self.next().ok_or(line)?;
            if format.escape == Some(c) {
                value.push(self.next().ok_or(line)?);
            } else if c != format.quote {
                value.push(c);
            } else if format.double_quote && self.chars.peek() == Some(&format.quote) {
                self.next();
                value.push(c);
            } else {
                return Ok(());
            }
        }
    }

    fn ends_row(&mut self, c: char) -> bool {
        match self.format.terminator {
            Some(terminator) => c == terminator,
            None if c == '\r' => {
                if self.chars.peek() == Some(&'\n') {
                    self.next();
                }
                true
            }
            None => c == '\n',
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, format: &Format) -> Vec<Vec<String>> {
        rows(text, format).unwrap().into_iter().map(|(_, fields)| fields).collect()
    }

    #[test]
    fn values_are_those_that_pandas_reads() {
        let plain = Format::default();
        let escape = |c| Format { escape: Some(c), ..plain };
        let single = Format { quote: '\'', ..plain };
        let skip = Format { skip_initial_space: true, ..plain };
        for (text, format, expected) in [
            ("1,x\n2,y\n", plain, &[&["1", "x"][..], &["2", "y"]][..]),
            ("1,x\r\n2,y\r3,z", plain, &[&["1", "x"], &["2", "y"], &["3", "z"]]),
            ("1,\"x\"\"y\"\n", plain, &[&["1", "x\"y"]]),
            ("1,\"x\"\"y\"\n", Format { double_quote: false, ..plain }, &[&["1", "x\"y\""]]),
            ("1,\"x\ny\"\n", plain, &[&["1", "x\ny"]]),
            ("1,\"x\"tail\n", plain, &[&["1", "xtail"]]),
            ("1, \"xy\"\n", plain, &[&["1", " \"xy\""]]),
            ("1, \"x,y\"\n", skip, &[&["1", "x,y"]]),
            ("1,  y \n", skip, &[&["1", "y "]]),
            ("1,'x,y'\n2,\"z\"\n", single, &[&["1", "x,y"], &["2", "\"z\""]]),
            ("1,'x''y'\n", single, &[&["1", "x'y"]]),
            ("1,x\\,y\n2,z\\\\w\n", escape('\\'), &[&["1", "x,y"], &["2", "z\\w"]]),
            ("1,x^,y\n2,\"z^\"w\"\n", escape('^'), &[&["1", "x,y"], &["2", "z\"w"]]),
            (
                "a,b~1,x\n~2,y~",
                Format { terminator: Some('~'), ..plain },
                &[&["a", "b"], &["1", "x\n"], &["2", "y"]],
            ),
            (
                "1;x|2;y",
                Format { delimiter: ';', terminator: Some('|'), ..plain },
                &[&["1", "x"], &["2", "y"]],
            ),
            ("1\n\n  \n2\n\"\"\n", plain, &[&["1"], &["2"], &[""]]),
            ("1,\n,\n", plain, &[&["1", ""], &["", ""]]),
            ("", plain, &[]),
        ] {
            assert_eq!(read(text, &format), expected, "{text:?}");
        }
    }

    #[test]
    fn rows_know_their_lines_and_open_quotes_are_found() {
        let plain = Format::default();
        let lines: Vec<u32> =
            rows("a\n\"b\nc\"\n\nd\r\ne", &plain).unwrap().into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 2, 5, 6]);
        assert_eq!(rows("a\n1,\"x\ny", &plain), Err(2));
    }
}

//! Dates and times without quotes in YAML: a parser of YAML 1.2 gives them as texts like any other,
//! so they are marked with a tag before it sees them.

use std::sync::LazyLock;

use regex::Regex;

/// The tag that marks them.
pub(super) const TAG: &str = "!time";

static TIME: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let time = r"([Tt]|[ \t]+)\d{1,2}:\d\d:\d\d(\.\d*)?([ \t]*(Z|[-+]\d\d?(:?\d\d)?))?";
    Regex::new(&format!(r"^(\d{{4}}-\d\d?-\d\d?{time}|\d{{4}}-\d\d-\d\d)[ \t]*(#|,|\]|\}}|$)")).ok()
});

/// The text with each plain scalar that is a date or a time marked. Lines stay lines.
pub(super) fn mark(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    let mut scan = Scan { block: None, quote: None, depth: 0 };
    for line in text.split_inclusive('\n') {
        scan.line(line, &mut out);
    }
    out
}

struct Scan {
    /// The indentation of the key that has a block scalar, while its lines go on.
    block: Option<usize>,
    /// The quote of a text that goes on.
    quote: Option<char>,
    /// How many brackets are open.
    depth: usize,
}

impl Scan {
    fn line(&mut self, line: &str, out: &mut String) {
        let body = line.trim_end_matches(['\n', '\r']);
        let blank = body.trim().is_empty();
        let mut at = body.len() - body.trim_start_matches(' ').len();
        if let Some(parent) = self.block {
            if blank || at > parent {
                out.push_str(line);
                return;
            }
            self.block = None;
        }
        out.push_str(&line[..at]);
        // Keys of a list's entry are indented by its dashes, too.
        while self.quote.is_none() && body[at..].starts_with("- ") {
            let more = body[at + 1..].len() - body[at + 1..].trim_start_matches(' ').len() + 1;
            out.push_str(&body[at..at + more]);
            at += more;
            if begins_time(&body[at..]) {
                out.push_str(TAG);
                out.push(' ');
            }
        }
        self.rest(&body[at..], at, out);
        out.push_str(&line[body.len()..]);
    }

    /// What follows a line's indentation.
    fn rest(&mut self, body: &str, indent: usize, out: &mut String) {
        let mut start = true;
        let mut before = ' ';
        for (at, c) in body.char_indices() {
            if let Some(quote) = self.quote {
                out.push(c);
                if c == quote && !(quote == '"' && before == '\\') {
                    self.quote = None;
                }
                before = if before == '\\' { ' ' } else { c };
                continue;
            }
            if c == '#' && before == ' ' {
                out.push_str(&body[at..]);
                return;
            }
            if start && c != ' ' {
                start = false;
                match c {
                    '\'' | '"' => self.quote = Some(c),
                    '|' | '>' if self.depth == 0 && at > 0 => self.block = Some(indent),
                    _ if (at > 0 || self.depth > 0) && begins_time(&body[at..]) => {
                        out.push_str(TAG);
                        out.push(' ');
                    }
                    _ => {}
                }
            }
            match c {
                '[' | '{' if self.depth > 0 || before == ' ' => {
                    self.depth += 1;
                    start = true;
                }
                ']' | '}' => self.depth = self.depth.saturating_sub(1),
                ',' if self.depth > 0 => start = true,
                ' ' if before == ':' => start = true,
                _ => {}
            }
            before = c;
            out.push(c);
        }
    }
}

fn begins_time(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && TIME.as_ref().is_some_and(|time| time.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::mark;

    #[test]
    fn plain_dates_are_marked_and_texts_are_not() {
        for (text, expected) in [
            ("a: 2020-01-01\n", "a: !time 2020-01-01\n"),
            ("a: 2020-01-01 10:00:00 # x\n", "a: !time 2020-01-01 10:00:00 # x\n"),
            ("a: 2020-01-01T10:00:00.5Z\n", "a: !time 2020-01-01T10:00:00.5Z\n"),
            ("- 2020-01-01\n- - 2020-01-02\n", "- !time 2020-01-01\n- - !time 2020-01-02\n"),
            ("- a: 2020-01-01\n  b: 1\n", "- a: !time 2020-01-01\n  b: 1\n"),
            (
                "- {a: 2020-01-01, b: [2020-01-02,2020-01-03]}\n",
                "- {a: !time 2020-01-01, b: [!time 2020-01-02,!time 2020-01-03]}\n",
            ),
            ("a: '2020-01-01'\nb: \"x, 2020-01-01\"\n", "a: '2020-01-01'\nb: \"x, 2020-01-01\"\n"),
            ("a: 2020-1-1\nb: x 2020-01-01\n", "a: 2020-1-1\nb: x 2020-01-01\n"),
            ("2020-01-01: 1\n", "2020-01-01: 1\n"),
            (
                "- rows: |\n    a, b\n    1: 2020-01-01\n  c: 2020-01-01\n",
                "- rows: |\n    a, b\n    1: 2020-01-01\n  c: !time 2020-01-01\n",
            ),
            ("a: 'x\n  b: 2020-01-01'\nc: 2020-01-01", "a: 'x\n  b: 2020-01-01'\nc: !time 2020-01-01"),
        ] {
            assert_eq!(mark(text), expected);
        }
    }
}

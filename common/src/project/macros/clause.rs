//! Macros that keep or drop the clause that follows: `@WHERE(…)`, `@JOIN(…)`, `@WITH(…)` and so on.

use super::expand::{Expander, Out};
use super::lex;
use crate::project::render::RenderError;
use crate::sql::Dialect;

/// A clause that a macro can keep or drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clause {
    With,
    Join,
    Where,
    GroupBy,
    Having,
    OrderBy,
    Limit,
}

/// Words that may stand between a table and its JOIN.
const JOIN_WORDS: [&str; 13] = [
    "natural",
    "left",
    "right",
    "full",
    "inner",
    "outer",
    "cross",
    "semi",
    "anti",
    "asof",
    "positional",
    "global",
    "any",
];
/// Words that start a clause after the ones here.
const CLAUSE_WORDS: [&str; 15] = [
    "where",
    "group",
    "having",
    "order",
    "limit",
    "qualify",
    "window",
    "union",
    "except",
    "intersect",
    "fetch",
    "offset",
    "cluster",
    "distribute",
    "sort",
];

impl Clause {
    /// The clause of a macro's lower-case name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "with" => Self::With,
            "join" => Self::Join,
            "where" => Self::Where,
            "group_by" => Self::GroupBy,
            "having" => Self::Having,
            "order_by" => Self::OrderBy,
            "limit" => Self::Limit,
            _ => return None,
        })
    }

    fn sql(self) -> &'static str {
        match self {
            Self::With => "WITH",
            Self::Join => "JOIN",
            Self::Where => "WHERE",
            Self::GroupBy => "GROUP BY",
            Self::Having => "HAVING",
            Self::OrderBy => "ORDER BY",
            Self::Limit => "LIMIT",
        }
    }

    /// Whether a word outside brackets ends the clause.
    fn ends_at(self, word: &str, before_bracket: bool) -> bool {
        let is = |words: &[&str]| words.iter().any(|w| word.eq_ignore_ascii_case(w));
        match self {
            Self::With => is(&["select", "insert", "update", "delete", "merge", "from"]),
            // LEFT(a, 1) and RIGHT(a, 1) are functions.
            Self::Join => is(&CLAUSE_WORDS) || is(&["join"]) || (is(&JOIN_WORDS) && !before_bracket),
            _ => is(&CLAUSE_WORDS),
        }
    }
}

impl Expander<'_> {
    /// Writes the clause's keyword, so that the walk goes on after the call, or skips the clause.
    pub(super) fn clause(
        &mut self,
        clause: Clause,
        text: &str,
        (condition, place): (&str, usize),
        close: usize,
        out: &mut Out,
    ) -> Result<usize, RenderError> {
        let condition = self.expand(condition)?;
        if self.compute(&condition, place)?.is_true() {
            out.push(clause.sql());
            return Ok(close);
        }
        while clause == Clause::Join && JOIN_WORDS.iter().any(|w| out.last_word().eq_ignore_ascii_case(w)) {
            out.drop_last_word();
        }
        Ok(clause_end(clause, text, close, self.context.dialect))
    }
}

/// Where the clause that starts at `at` ends.
fn clause_end(clause: Clause, text: &str, mut at: usize, dialect: Dialect) -> usize {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    while at < bytes.len() {
        if let Some((_, end)) = lex::opaque(text, at, dialect) {
            at = end;
            continue;
        }
        match bytes[at] {
            b'(' | b'[' => depth += 1,
            b')' | b']' if depth == 0 => return at,
            b')' | b']' => depth -= 1,
            b';' if depth == 0 => return at,
            b',' if depth == 0 && clause == Clause::Join => return at,
            b'@' if depth == 0 => {
                let end = lex::word_end(bytes, at + 1);
                let next = Clause::named(&text[at + 1..end].to_ascii_lowercase());
                if next.is_some() && bytes.get(lex::skip_blank(text, end, dialect)) == Some(&b'(') {
                    return at;
                }
            }
            b if lex::is_word_start(b) => {
                let end = lex::word_end(bytes, at);
                let before_bracket = bytes.get(end) == Some(&b'(');
                if depth == 0 && clause.ends_at(&text[at..end], before_bracket) {
                    return at;
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

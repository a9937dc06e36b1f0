//! Parts of a query that unit tests look at: its common table expressions, its order, and the
//! functions that tell the current time.

use std::fmt::Write as _;

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::Dialect;
use super::parse::{Lines, Query, flavor_of, tokenize};
use super::references::normalize;
use crate::interval::Timestamp;

/// A common table expression of a query's outermost WITH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommonTable {
    /// Its normalised name.
    pub name: String,
    /// A query for its rows.
    pub select: String,
    /// Whether its own query says in which order they come.
    pub is_ordered: bool,
}

impl Query {
    /// Whether the query says in which order its rows come.
    pub fn is_ordered(&self) -> bool {
        self.ast.order_by.is_some()
    }

    /// The common table expressions of the outermost WITH, in their order; nothing for a query that
    /// isn't understood.
    pub fn common_tables(&self) -> Vec<CommonTable> {
        let Some(with) = self.ast.with.as_ref().filter(|_| !self.opaque) else { return Vec::new() };
        let lines = Lines::new(&self.text);
        let end = with.cte_tables.last().and_then(|cte| lines.offset(cte.closing_paren_token.0.span.end));
        let Some(head) = end.and_then(|end| self.text.get(..end)) else { return Vec::new() };
        let table = |cte: &sqlparser::ast::Cte| {
            let name = normalize(self.dialect, &cte.alias.name);
            let select = format!("{head}\nSELECT * FROM {}", cte.alias.name);
            CommonTable { name, select, is_ordered: cte.query.order_by.is_some() }
        };
        with.cte_tables.iter().map(table).collect()
    }
}

/// Functions that tell the current time, with the type of what they give.
const CLOCKS: [(&str, &str); 8] = [
    ("CURRENT_DATE", "DATE"),
    ("TODAY", "DATE"),
    ("CURRENT_TIME", "TIME"),
    ("GET_CURRENT_TIME", "TIME"),
    ("CURRENT_DATETIME", "TIMESTAMP"),
    ("CURRENT_TIMESTAMP", "TIMESTAMP"),
    ("GET_CURRENT_TIMESTAMP", "TIMESTAMP"),
    ("NOW", "TIMESTAMP"),
];

/// A query's text in which the functions that tell the current date or time give a fixed one. A
/// text that isn't SQL stays as it is.
pub fn freeze_time(text: &str, dialect: Dialect, at: Timestamp) -> String {
    let Ok(tokens) = tokenize(flavor_of(dialect), text) else { return text.to_owned() };
    let lines = Lines::new(text);
    let tokens: Vec<&TokenWithSpan> =
        tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    let is = |at: usize, token: &Token| tokens.get(at).is_some_and(|found| found.token == *token);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (index, token) in tokens.iter().enumerate() {
        let Token::Word(word) = &token.token else { continue };
        let clock = CLOCKS.iter().find(|(name, _)| word.value.eq_ignore_ascii_case(name));
        let Some((name, data_type)) = clock.filter(|_| word.quote_style.is_none()) else { continue };
        let is_part = index > 0 && is(index - 1, &Token::Period) || is(index + 1, &Token::Period);
        let called = is(index + 1, &Token::LParen) && is(index + 2, &Token::RParen);
        // Without parentheses, the other names are columns.
        if is_part || !called && !name.starts_with("CURRENT_") {
            continue;
        }
        let last = if called { tokens[index + 2].span } else { token.span };
        let (Some(start), Some(end)) = (lines.offset(token.span.start), lines.offset(last.end)) else {
            continue;
        };
        if start < done {
            continue;
        }
        out.push_str(&text[done..start]);
        let format = match *data_type {
            "DATE" => "%Y-%m-%d",
            "TIME" => "%H:%M:%S%.f",
            _ => "%Y-%m-%d %H:%M:%S%.f",
        };
        let _ = write!(out, "CAST('{}' AS {data_type})", at.to_datetime().format(format));
        done = end;
    }
    out.push_str(&text[done..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_table_is_selected_with_those_beside_it() {
        let text =
            "WITH a AS (SELECT 1 AS x), \"B\" AS (SELECT x FROM a ORDER BY x) SELECT * FROM b ORDER BY 1";
        let query = Query::parse(text, Dialect::DuckDb).unwrap();
        assert!(query.is_ordered());
        let head = &text[..text.find(" SELECT * FROM b").unwrap()];
        let table = |name: &str, written: &str, is_ordered| CommonTable {
            name: name.to_owned(),
            select: format!("{head}\nSELECT * FROM {written}"),
            is_ordered,
        };
        assert_eq!(query.common_tables(), [table("a", "a", false), table("b", "\"B\"", true)]);
    }

    #[test]
    fn clocks_stand_still_but_columns_and_texts_do_not_change() {
        for (text, expected) in [
            ("SELECT current_date", "SELECT CAST('1970-01-01' AS DATE)"),
            (
                "SELECT now(), today( )",
                "SELECT CAST('1970-01-01 00:00:01' AS TIMESTAMP), CAST('1970-01-01' AS DATE)",
            ),
            ("SELECT CURRENT_TIMESTAMP AS x", "SELECT CAST('1970-01-01 00:00:01' AS TIMESTAMP) AS x"),
            ("SELECT 'current_date', now, t.now", "SELECT 'current_date', now, t.now"),
            ("SELECT \"current_date\"", "SELECT \"current_date\""),
        ] {
            assert_eq!(freeze_time(text, Dialect::DuckDb, Timestamp(1000)), expected);
        }
    }
}

//! Queries that the parser has no grammar for: what they read is told from their tokens alone.
//!
//! Such a query stands in for itself as `SELECT * FROM a, b`, whose names keep their places in the
//! text: they can be renamed there. Its columns and the ranges that it reads are unknown, and every
//! change of it is breaking. A text that looks like a mistake stays one.

use sqlparser::ast;
use sqlparser::keywords::{Keyword, RESERVED_FOR_TABLE_ALIAS};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Word};

use super::Dialect;
use super::parse::SqlError;

/// Words that open a query.
const OPENING: [&str; 9] =
    ["SELECT", "WITH", "FROM", "VALUES", "PIVOT", "UNPIVOT", "DESCRIBE", "SUMMARIZE", "SHOW"];
/// Words of a query's frame: one of these in the wrong place, or nearly one of these, is a slip.
const FRAME: [&str; 14] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "ORDER",
    "HAVING",
    "UNION",
    "LIMIT",
    "JOIN",
    "INNER",
    "DISTINCT",
    "BETWEEN",
    "PARTITION",
    "QUALIFY",
];
/// Words that may follow a relation beside those that the parser reserves.
const AFTER_RELATION: [&str; 18] = [
    "AS",
    "POSITIONAL",
    "VERSION",
    "TIMESTAMP",
    "AT",
    "BEFORE",
    "LOCK",
    "OPTION",
    "DIRECTED",
    "SELECT",
    "IGNORE",
    "FORCE",
    "USE",
    "CHANGES",
    "ROWS",
    "FINAL",
    "RENAME",
    "AND",
];

/// The stand-in of a query that the parser refused, unless the text looks like a mistake.
pub(super) fn stand_in(
    tokens: &[TokenWithSpan],
    dialect: Dialect,
    error: &SqlError,
) -> Option<Box<ast::Query>> {
    let tokens: Vec<&TokenWithSpan> =
        tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF)).collect();
    let tokens = match tokens.split_last() {
        Some((last, rest)) if last.token == Token::SemiColon => rest,
        _ => &tokens[..],
    };
    if is_mistake(tokens, error) {
        return None;
    }
    let relations = Scan { tokens, dialect, ctes: cte_names(tokens, dialect) }.relations();
    let mut made = vec![word("SELECT", None), made(Token::Mul)];
    for (at, relation) in relations.iter().enumerate() {
        made.push(if at == 0 { word("FROM", None) } else { self::made(Token::Comma) });
        made.extend(relation.name.iter().map(|t| (*t).clone()));
        if !relation.wants_alias {
            made.push(word("AS", None));
            made.push(word("aliased", Some('"')));
        }
    }
    let mut parser = Parser::new(&sqlparser::dialect::GenericDialect {}).with_tokens_with_locations(made);
    parser.parse_query().ok()
}

fn made(token: Token) -> TokenWithSpan {
    TokenWithSpan { token, span: Span::empty() }
}

fn word(text: &str, quote: Option<char>) -> TokenWithSpan {
    made(Token::make_word(text, quote))
}

/// What one sees at a glance: brackets that don't match, a text that ends early, a clause where a
/// value should be, a misspelt word of the frame.
fn is_mistake(tokens: &[&TokenWithSpan], error: &SqlError) -> bool {
    let opens = tokens.iter().find(|t| t.token != Token::LParen);
    let starts = opens.is_some_and(|t| OPENING.iter().any(|word| is(t, word)));
    let found = error.message.rsplit("found: ").next().unwrap_or_default();
    let early =
        found == "EOF" || (error.message.contains("an expression") && matches!(found, ")" | ";" | ","));
    let clause = FRAME.iter().any(|word| found.eq_ignore_ascii_case(word));
    !starts || !balanced(tokens) || early || clause || misspelt(tokens, error)
}

fn balanced(tokens: &[&TokenWithSpan]) -> bool {
    let mut open = Vec::new();
    for token in tokens {
        let closes = match token.token {
            Token::LParen => {
                open.push(Token::RParen);
                continue;
            }
            Token::LBracket => {
                open.push(Token::RBracket);
                continue;
            }
            Token::LBrace => {
                open.push(Token::RBrace);
                continue;
            }
            Token::RParen | Token::RBracket | Token::RBrace => open.pop(),
            _ => continue,
        };
        if closes.as_ref() != Some(&token.token) {
            return false;
        }
    }
    open.is_empty()
}

/// Whether a word at the place of the error, or one of the two before it, is nearly one of the frame.
fn misspelt(tokens: &[&TokenWithSpan], error: &SqlError) -> bool {
    let place = Location { line: error.line.into(), column: error.column.into() };
    let at = tokens.iter().position(|t| t.span.start >= place).unwrap_or(tokens.len());
    let near = at.saturating_sub(3)..(at + 1).min(tokens.len());
    // A part of a qualified name isn't a word of the frame: `shop.orders`.
    let dot =
        |at: Option<usize>| at.is_some_and(|at| tokens.get(at).is_some_and(|t| t.token == Token::Period));
    let alone = near.filter(|at| !dot(at.checked_sub(1)) && !dot(Some(at + 1)));
    let words = alone.filter_map(|at| match &tokens[at].token {
        Token::Word(word) if word.quote_style.is_none() && word.keyword == Keyword::NoKeyword => {
            Some(&word.value)
        }
        _ => None,
    });
    let mut words = words;
    words.any(|word| FRAME.iter().any(|frame| is_slip(word, frame)))
}

/// One letter too many, too few or wrong, or two that changed places.
fn is_slip(word: &str, meant: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (word.to_uppercase().chars().collect(), meant.chars().collect());
    if a.len() < 3 || a.len().abs_diff(b.len()) > 1 {
        return false;
    }
    let head = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(x, y)| x == y).count();
    let (left, right) = (&a[head..a.len() - tail], &b[head..b.len() - tail]);
    match (left, right) {
        ([x, y], [v, w]) => x == w && y == v,
        (left, right) => left.len() <= 1 && right.len() <= 1,
    }
}

fn is(token: &TokenWithSpan, text: &str) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text))
}

fn as_word(token: &TokenWithSpan) -> Option<&Word> {
    match &token.token {
        Token::Word(word) => Some(word),
        _ => None,
    }
}

/// Names of common table expressions: `name [(…)] AS [[NOT] MATERIALIZED] (` after WITH or a comma.
fn cte_names(tokens: &[&TokenWithSpan], dialect: Dialect) -> Vec<String> {
    let mut names = Vec::new();
    if !tokens.iter().any(|t| is(t, "WITH")) {
        return names;
    }
    for (at, token) in tokens.iter().enumerate() {
        let Some(name) = as_word(token) else { continue };
        let before = at.checked_sub(1).map(|before| tokens[before]);
        let begins = before.is_some_and(|t| t.token == Token::Comma || is(t, "WITH") || is(t, "RECURSIVE"));
        let mut next = at + 1;
        if tokens.get(next).is_some_and(|t| t.token == Token::LParen) {
            next = closing(tokens, next) + 1;
        }
        while tokens.get(next).is_some_and(|t| is(t, "USING") || is(t, "KEY")) {
            next += 1;
            if tokens.get(next).is_some_and(|t| t.token == Token::LParen) {
                next = closing(tokens, next) + 1;
            }
        }
        let is_as = tokens.get(next).is_some_and(|t| is(t, "AS"));
        let mut opens = next + 1;
        while tokens.get(opens).is_some_and(|t| is(t, "NOT") || is(t, "MATERIALIZED")) {
            opens += 1;
        }
        if begins && is_as && tokens.get(opens).is_some_and(|t| t.token == Token::LParen) {
            names.push(dialect.normalize(&name.value, name.quote_style.is_some()));
        }
    }
    names
}

/// The bracket that closes the one at a place.
fn closing(tokens: &[&TokenWithSpan], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 => return at,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    tokens.len()
}

struct Relation<'t> {
    /// The tokens of its name.
    name: Vec<&'t TokenWithSpan>,
    /// Whether an alias is missing where one may stand.
    wants_alias: bool,
}

/// Inside one pair of brackets.
#[derive(Default, Clone, Copy)]
struct Level {
    /// A query stands here, so FROM is a clause and no part of a function's call.
    query: bool,
    /// Between FROM and the next clause: a comma brings another relation.
    from: bool,
}

struct Scan<'t> {
    tokens: &'t [&'t TokenWithSpan],
    dialect: Dialect,
    ctes: Vec<String>,
}

impl<'t> Scan<'t> {
    fn relations(&self) -> Vec<Relation<'t>> {
        let mut found = Vec::new();
        let mut levels = vec![Level::default()];
        for (at, token) in self.tokens.iter().enumerate() {
            let Some(level) = levels.last_mut() else { break };
            match &token.token {
                Token::LParen | Token::LBracket | Token::LBrace => levels.push(Level::default()),
                Token::RParen | Token::RBracket | Token::RBrace => {
                    levels.pop();
                }
                Token::Comma if level.from => found.extend(self.relation(at + 1, true)),
                Token::Word(word) if word.quote_style.is_none() => {
                    found.extend(self.word(at, &word.value.to_ascii_uppercase(), level));
                }
                _ => {}
            }
        }
        found
    }

    fn word(&self, at: usize, word: &str, level: &mut Level) -> Option<Relation<'t>> {
        let before = at.checked_sub(1).map(|before| self.tokens[before]);
        let opens = before.is_none_or(|t| matches!(t.token, Token::LParen));
        match word {
            "SELECT" => *level = Level { query: true, from: false },
            "FROM"
                if (level.query || opens)
                    && !before.is_some_and(|t| is(t, "DISTINCT") || is(t, "SYSTEM_TIME")) =>
            {
                *level = Level { query: true, from: true };
                return self.relation(at + 1, true);
            }
            "JOIN" | "STRAIGHT_JOIN" | "APPLY" => return self.relation(at + 1, true),
            "PIVOT" | "UNPIVOT" | "DESCRIBE" | "SUMMARIZE" if opens => return self.relation(at + 1, false),
            "TABLE" | "MODEL"
                if before.is_some_and(|t| matches!(t.token, Token::LParen | Token::Comma))
                    && !level.query =>
            {
                return self.relation(at + 1, false);
            }
            "WHERE" | "GROUP" | "HAVING" | "QUALIFY" | "WINDOW" | "ORDER" | "LIMIT" | "UNION" | "EXCEPT"
            | "INTERSECT" | "FOR" => level.from = false,
            _ => {}
        }
        None
    }

    /// The relation whose name starts at a place; nothing for functions, subqueries, files and
    /// common table expressions.
    fn relation(&self, mut at: usize, may_alias: bool) -> Option<Relation<'t>> {
        while self.tokens.get(at).is_some_and(|t| is(t, "LATERAL") || is(t, "ONLY") || is(t, "STREAM")) {
            at += 1;
        }
        let mut name = Vec::new();
        loop {
            let part = self.tokens.get(at)?;
            let plain = as_word(part)?;
            if plain.quote_style.is_none()
                && (plain.value.starts_with(['@', '#']) || (name.is_empty() && is(part, "SELECT")))
            {
                return None;
            }
            name.push(*part);
            at += 1;
            match self.tokens.get(at) {
                Some(dot) if dot.token == Token::Period => name.push(*dot),
                _ => break,
            }
            at += 1;
        }
        let next = self.tokens.get(at);
        if next.is_some_and(|t| matches!(t.token, Token::LParen | Token::Colon | Token::Minus)) {
            return None;
        }
        if let [only] = name.as_slice()
            && let Some(word) = as_word(only)
            && self.ctes.contains(&self.dialect.normalize(&word.value, word.quote_style.is_some()))
        {
            return None;
        }
        Some(Relation {
            name,
            wants_alias: may_alias && !next.is_some_and(|t| is_alias(t, self.tokens.get(at + 1))),
        })
    }
}

/// Whether a token after a relation is its alias, or begins it.
fn is_alias(token: &TokenWithSpan, next: Option<&&TokenWithSpan>) -> bool {
    let Some(word) = as_word(token) else { return false };
    if word.quote_style.is_some() {
        return true;
    }
    if is(token, "AS") {
        return !next.is_some_and(|t| is(t, "OF"));
    }
    !RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword) && !AFTER_RELATION.iter().any(|after| is(token, after))
}

#[cfg(test)]
mod tests {
    use crate::sql::{Dialect, Query, QueryChange, Schemas, compare};

    fn read(text: &str, dialect: Dialect) -> Vec<String> {
        let query = Query::parse(text, dialect).unwrap_or_else(|error| panic!("{text}: {error}"));
        query.references().iter().map(|reference| reference.normalized(dialect).join(".")).collect()
    }

    #[test]
    fn relations_of_unknown_grammar_are_found() {
        for (dialect, text, expected) in [
            (
                Dialect::DuckDb,
                "SELECT a FROM s.t, u AS x WHERE a IS DISTINCT FROM b USING SAMPLE 10%",
                "s.t u",
            ),
            (
                Dialect::DuckDb,
                "WITH c AS (SELECT EXTRACT(year FROM d) AS y FROM s.t) PIVOT c ON y USING sum(1) LIMIT 10%",
                "s.t",
            ),
            (
                Dialect::BigQuery,
                "SELECT * FROM ML.PREDICT(MODEL d.m, TABLE d.t) JOIN d.u USING (a)",
                "d.m d.t d.u",
            ),
            (Dialect::Spark, "SELECT * FROM s.t VERSION AS OF 12 JOIN s.u v ON TRUE", "s.t s.u"),
            (Dialect::TSql, "SELECT x FROM a.b INNER HASH JOIN c.d e ON e.id = b.id", "a.b c.d"),
            (
                Dialect::DuckDb,
                "SELECT sum_: sum(x), b FROM s.t WHERE b IN (FROM s.u USING SAMPLE 5%)",
                "s.t s.u",
            ),
        ] {
            assert_eq!(read(text, dialect).join(" "), expected, "{text}");
        }
    }

    #[test]
    fn names_are_renamed_in_place() {
        let query = Query::parse("SELECT t.a FROM s.t USING SAMPLE 5%", Dialect::DuckDb).expect("a query");
        let renamed = query.rewrite_tables(&mut |_| Some("p.q".to_owned())).expect("certain places");
        assert_eq!(renamed, "SELECT t.a FROM p.q AS t USING SAMPLE 5%");
        let query =
            Query::parse("SELECT x.a FROM s.t AS x USING SAMPLE 5%", Dialect::DuckDb).expect("a query");
        let renamed = query.rewrite_tables(&mut |_| Some("p.q".to_owned())).expect("certain places");
        assert_eq!(renamed, "SELECT x.a FROM p.q AS x USING SAMPLE 5%");
    }

    struct Nothing;

    impl Schemas for Nothing {
        fn columns(&self, _: &[String]) -> Option<&[crate::project::model::ColumnDef]> {
            Some(&[])
        }
    }

    #[test]
    fn nothing_is_claimed_about_what_is_not_understood() {
        let parse = |text: &str| Query::parse(text, Dialect::DuckDb).expect("a query");
        let (old, new) =
            (parse("SELECT a FROM t USING SAMPLE 5%"), parse("SELECT a, b FROM t USING SAMPLE 5%"));
        assert_eq!(compare(&old, &new), QueryChange::Other);
        assert_eq!(compare(&old, &parse("select a\nfrom t using sample 5%")), QueryChange::Equal);
        assert_eq!(old.output_columns(&Nothing), None);
    }

    #[test]
    fn mistakes_stay_mistakes() {
        for text in [
            "SELECT a FORM t USING SAMPLE 5%",
            "SELECT a FROM t WHER a = 1 LIMIT 2",
            "SELEC a FROM t",
            "SELECT a, (b FROM t",
            "SELECT a FROM t WHERE",
            "SELECT a FROM t JOIN",
            "SELECT sum(a,) FROM",
            "SELECT a FROM t GRUOP BY a",
            "SELECT a FROM t SELECT b",
        ] {
            assert!(Query::parse(text, Dialect::DuckDb).is_err(), "{text}");
        }
    }
}

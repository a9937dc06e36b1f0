//! Queries of DuckDB that begin with `FROM` and have no SELECT: `FROM t WHERE x`.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::Dialect;

/// The tokens with the `SELECT *` that such a query means, at no place of the text. The parser knows `FROM t`
/// alone, without any clause behind it.
pub(super) fn with_select(tokens: Vec<TokenWithSpan>, dialect: Dialect) -> Vec<TokenWithSpan> {
    if dialect != Dialect::DuckDb {
        return tokens;
    }
    let made = |token| TokenWithSpan { token, span: Span::empty() };
    let mut out = Vec::with_capacity(tokens.len());
    let mut opens = true;
    for (at, token) in tokens.iter().enumerate() {
        let keyword = keyword(&token.token);
        if opens && keyword == Keyword::FROM && !selects(&tokens[at + 1..]) {
            out.extend([made(Token::make_word("SELECT", None)), made(Token::Mul)]);
        }
        if !matches!(token.token, Token::Whitespace(_)) {
            let also = opens && matches!(keyword, Keyword::ALL | Keyword::DISTINCT);
            opens = token.token == Token::LParen || combines(keyword) || also;
        }
        out.push(token.clone());
    }
    out
}

/// Whether a query has a SELECT of its own behind its FROM.
fn selects(rest: &[TokenWithSpan]) -> bool {
    let mut depth = 0;
    for token in rest {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return false,
            Token::RParen => depth -= 1,
            _ if depth > 0 => {}
            _ => match keyword(&token.token) {
                Keyword::SELECT => return true,
                keyword if combines(keyword) => return false,
                _ => {}
            },
        }
    }
    false
}

fn combines(keyword: Keyword) -> bool {
    matches!(keyword, Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT)
}

fn keyword(token: &Token) -> Keyword {
    match token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

#[cfg(test)]
mod tests {
    use crate::sql::{Dialect, Query, QueryChange, compare};

    #[test]
    fn a_query_without_select_selects_everything() {
        for (short, long) in [
            ("FROM t WHERE a > 1", "SELECT * FROM t WHERE a > 1"),
            ("FROM t", "SELECT * FROM t"),
            (
                "FROM t JOIN u USING (a) ORDER BY 1 LIMIT 2",
                "SELECT * FROM t JOIN u USING (a) ORDER BY 1 LIMIT 2",
            ),
            (
                "WITH c AS (FROM t WHERE a > 1) SELECT a FROM c",
                "WITH c AS (SELECT * FROM t WHERE a > 1) SELECT a FROM c",
            ),
            ("FROM t UNION ALL FROM u WHERE b", "SELECT * FROM t UNION ALL SELECT * FROM u WHERE b"),
            ("FROM t SELECT a WHERE a > 1", "SELECT a FROM t WHERE a > 1"),
            (
                "SELECT EXTRACT(YEAR FROM a) AS y FROM (FROM t WHERE b)",
                "SELECT EXTRACT(YEAR FROM a) AS y FROM (SELECT * FROM t WHERE b)",
            ),
        ] {
            let parse = |sql: &str| Query::parse(sql, Dialect::DuckDb).unwrap();
            assert!(parse(short).trouble().is_none(), "{short}");
            assert_eq!(compare(&parse(short), &parse(long)), QueryChange::Equal, "{short}");
        }
        assert!(Query::parse("FROM t WHERE", Dialect::DuckDb).is_err());
    }
}

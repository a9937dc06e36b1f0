//! From text to a syntax tree: tokens, dialects, errors, and byte offsets of what the tree spans.

use std::ops::Range;

use sqlparser::ast;
use sqlparser::dialect as flavor;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError, ParserOptions};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Word};

use super::Dialect;
use super::canonical::{canonical, trailing_commas};
use super::from_first;

/// Why a text isn't one query, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (line {line}, column {column})")]
pub struct SqlError {
    /// The line in the text, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What is wrong, in lower case without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl SqlError {
    pub(super) fn at(location: Location, message: impl Into<String>, hint: Option<&str>) -> Self {
        Self {
            line: u32::try_from(location.line.max(1)).unwrap_or(u32::MAX),
            column: u32::try_from(location.column.max(1)).unwrap_or(u32::MAX),
            message: message.into(),
            hint: hint.map(str::to_owned),
        }
    }

    /// The parser puts the place into its message's end.
    fn from_parser(error: &ParserError) -> Self {
        let text = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
            ParserError::RecursionLimitExceeded => {
                let hint = "split it into common table expressions or models";
                return Self::at(start(), "the query is nested too deeply", Some(hint));
            }
        };
        let (message, place) = text.rsplit_once(" at Line: ").unwrap_or((text, ""));
        let mut numbers = place.split(", Column: ").map(|n| n.trim().parse::<u64>().unwrap_or(1));
        let (line, column) = (numbers.next().unwrap_or(1), numbers.next().unwrap_or(1));
        let mut message = message.to_owned();
        if let Some(first) = message.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        Self::at(Location { line, column }, message, None)
    }
}

fn start() -> Location {
    Location { line: 1, column: 1 }
}

/// One query: the text it came from, its dialect and its syntax tree.
#[derive(Debug, Clone)]
pub struct Query {
    pub(super) text: String,
    pub(super) dialect: Dialect,
    pub(super) ast: Box<ast::Query>,
    /// The tree stands in for one that the parser can't make: it has the relations, and no more.
    pub(super) opaque: bool,
    /// Why, where it is so.
    trouble: Option<SqlError>,
    canonical: String,
}

impl Query {
    /// Parses exactly one query; a semicolon may follow it. `@` may start an identifier in every
    /// dialect, so that macro variables can stay in the text.
    ///
    /// # Errors
    /// Says where the text stops being a query, or that it is some other statement.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, SqlError> {
        let parsed = match parse(text, dialect) {
            Ok(parsed) => parsed,
            Err(error) => return Self::opaque(text, dialect, error),
        };
        let ast::Statement::Query(ast) = parsed.statement else {
            let hint = "a model's body is one SELECT; put other statements before or after it";
            return Err(SqlError::at(start(), "this statement is not a query", Some(hint)));
        };
        if matches!(*ast.body, ast::SetExpr::Table(_)) {
            let hint = "write SELECT * FROM name";
            return Err(SqlError::at(start(), "`TABLE name` is not supported as a query", Some(hint)));
        }
        let canonical = parsed.canonical;
        Ok(Self { text: text.to_owned(), dialect, ast, opaque: false, trouble: None, canonical })
    }

    /// A query that the parser refused, if its text looks sound: known by what it reads alone.
    fn opaque(text: &str, dialect: Dialect, error: SqlError) -> Result<Self, SqlError> {
        let Ok(tokens) = tokenize(flavor_of(dialect), text) else { return Err(error) };
        match super::opaque::stand_in(&tokens, dialect, &error) {
            Some(ast) => {
                let canonical = canonical(text, &tokens, dialect);
                Ok(Self {
                    text: text.to_owned(),
                    dialect,
                    ast,
                    opaque: true,
                    trouble: Some(error),
                    canonical,
                })
            }
            None => Err(error),
        }
    }

    /// Why the parser has no tree of the query, where it has none: then only the relations that it
    /// reads are known.
    pub fn trouble(&self) -> Option<&SqlError> {
        self.trouble.as_ref()
    }

    /// The text as given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The dialect it was parsed in.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The text with one space between tokens, without comments (but with optimizer hints) and
    /// with keywords in upper case: equal for texts that differ only in formatting, and different
    /// for all others.
    pub(crate) fn canonical(&self) -> &str {
        &self.canonical
    }
}

/// A statement before or after a query. Text that can't be parsed stays as it is.
#[derive(Debug, Clone)]
pub struct Statement {
    pub(super) text: String,
    pub(super) dialect: Dialect,
    pub(super) ast: Option<Box<ast::Statement>>,
    canonical: String,
}

/// Parses a pre- or post-statement; one that the parser doesn't know stays raw.
pub fn parse_statement(text: &str, dialect: Dialect) -> Statement {
    let (ast, canonical) = match parse(text, dialect) {
        Ok(parsed) => (Some(Box::new(parsed.statement)), parsed.canonical),
        Err(_) => {
            let tokens = tokenize(flavor_of(dialect), text).ok();
            (None, tokens.map_or_else(|| text.trim().to_owned(), |t| canonical(text, &t, dialect)))
        }
    };
    Statement { text: text.to_owned(), dialect, ast, canonical }
}

impl Statement {
    /// The text as given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// As [`Query::canonical`]; the trimmed text where not even tokens could be told apart.
    pub(crate) fn canonical(&self) -> &str {
        &self.canonical
    }
}

struct Parsed {
    statement: ast::Statement,
    canonical: String,
}

/// The places of commas that end a list, where the dialect's engine refuses those.
pub(super) fn refused_commas(text: &str, dialect: Dialect) -> Vec<Range<usize>> {
    if dialect != Dialect::Postgres {
        return Vec::new();
    }
    tokenize(flavor_of(dialect), text).map_or_else(|_| Vec::new(), |tokens| trailing_commas(text, &tokens))
}

/// Tries the dialect, then the dialect with trailing commas, then the same with the most
/// permissive grammar; the first failure is the one reported.
fn parse(text: &str, dialect: Dialect) -> Result<Parsed, SqlError> {
    let own = flavor_of(dialect);
    let mut first = None;
    for (flavor, trailing_commas) in
        [(own, false), (own, true), (&GENERIC as _, false), (&GENERIC as _, true)]
    {
        match attempt(text, dialect, flavor, trailing_commas) {
            Ok(parsed) => return Ok(parsed),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| SqlError::at(start(), "there is no query", None)))
}

fn attempt(
    text: &str,
    dialect: Dialect,
    flavor: &dyn flavor::Dialect,
    trailing_commas: bool,
) -> Result<Parsed, SqlError> {
    let tokens = tokenize(flavor, text).map_err(|error| SqlError::from_parser(&error))?;
    let canonical = canonical(text, &tokens, dialect);
    let tokens = from_first::with_select(without_materialized(tokens, dialect), dialect);
    let options = ParserOptions::new().with_trailing_commas(trailing_commas);
    let mut parser = Parser::new(flavor).with_options(options).with_tokens_with_locations(tokens);
    while parser.consume_token(&Token::SemiColon) {}
    if parser.peek_token_ref().token == Token::EOF {
        return Err(SqlError::at(start(), "there is no statement", None));
    }
    let statement = parser.parse_statement().map_err(|error| SqlError::from_parser(&error))?;
    while parser.consume_token(&Token::SemiColon) {}
    let rest = parser.peek_token_ref();
    if rest.token != Token::EOF {
        let message = format!("expected the end of the statement, found: {}", rest.token);
        return Err(SqlError::at(rest.span.start, message, None));
    }
    Ok(Parsed { statement, canonical })
}

pub(super) fn tokenize(flavor: &dyn flavor::Dialect, text: &str) -> Result<Vec<TokenWithSpan>, ParserError> {
    let tokens = Tokenizer::new(flavor, text)
        .tokenize_with_location()
        .map_err(|error| ParserError::TokenizerError(error.to_string()))?;
    Ok(join_macro_words(tokens))
}

/// Where a dialect reads `@x` as an operator and a word, makes it one word: macro variables.
/// PostgreSQL's tokenizer even swallows the sign into the operator before it (`>=@start_ds`).
fn join_macro_words(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let sign = |t: &Token| match t {
        Token::AtSign => true,
        Token::CustomBinaryOperator(operator) => operator.ends_with('@'),
        _ => false,
    };
    if !tokens.iter().any(|t| sign(&t.token)) {
        return tokens;
    }
    let mut joined: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let Token::Word(word) = &token.token else {
            joined.push(token);
            continue;
        };
        let glued = joined.last().is_some_and(|last| sign(&last.token) && last.span.end == token.span.start);
        if word.quote_style.is_some() || !glued {
            joined.push(token);
            continue;
        }
        let mut from = token.span.start;
        from.column -= 1;
        if let Some(last) = joined.pop()
            && let Token::CustomBinaryOperator(text) = &last.token
        {
            let span = Span::new(last.span.start, from);
            joined.push(TokenWithSpan { token: operator(&text[..text.len() - 1]), span });
        }
        let value = format!("@{}", word.value);
        let word = Word { value, quote_style: None, keyword: Keyword::NoKeyword };
        joined.push(TokenWithSpan { token: Token::Word(word), span: Span::new(from, token.span.end) });
    }
    joined
}

/// The parser knows `AS [NOT] MATERIALIZED (` in PostgreSQL only. It changes no result.
fn without_materialized(mut tokens: Vec<TokenWithSpan>, dialect: Dialect) -> Vec<TokenWithSpan> {
    let keyword = |t: &TokenWithSpan| match &t.token {
        Token::Word(word) => word.keyword,
        _ => Keyword::NoKeyword,
    };
    if dialect == Dialect::Postgres || !tokens.iter().any(|t| keyword(t) == Keyword::MATERIALIZED) {
        return tokens;
    }
    let mut before = [Keyword::NoKeyword; 2];
    let mut places = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if matches!(token.token, Token::Whitespace(_)) {
            continue;
        }
        let this = keyword(token);
        let later = tokens[at + 1..].iter().find(|t| !matches!(t.token, Token::Whitespace(_)));
        let opens = later.is_some_and(|t| t.token == Token::LParen || keyword(t) == Keyword::MATERIALIZED);
        match (this, before) {
            _ if !opens => {}
            (Keyword::MATERIALIZED, [_, Keyword::AS]) => places.push(at),
            (Keyword::MATERIALIZED, [Keyword::AS, Keyword::NOT]) => places.push(at),
            (Keyword::NOT, [_, Keyword::AS]) => places.push(at),
            _ => {}
        }
        before = [before[1], this];
    }
    for at in places.into_iter().rev() {
        tokens.remove(at);
    }
    tokens
}

fn operator(text: &str) -> Token {
    match text {
        "=" => Token::Eq,
        "<" => Token::Lt,
        ">" => Token::Gt,
        "<=" => Token::LtEq,
        ">=" => Token::GtEq,
        "<>" | "!=" => Token::Neq,
        "+" => Token::Plus,
        "-" => Token::Minus,
        "*" => Token::Mul,
        "/" => Token::Div,
        "%" => Token::Mod,
        "||" => Token::StringConcat,
        _ => Token::CustomBinaryOperator(text.to_owned()),
    }
}

static GENERIC: flavor::GenericDialect = flavor::GenericDialect {};

pub(super) fn flavor_of(dialect: Dialect) -> &'static dyn flavor::Dialect {
    match dialect {
        Dialect::Generic | Dialect::Trino => &GENERIC,
        Dialect::DuckDb => &flavor::DuckDbDialect {},
        Dialect::Postgres => &flavor::PostgreSqlDialect {},
        Dialect::BigQuery => &flavor::BigQueryDialect {},
        Dialect::Snowflake => &flavor::SnowflakeDialect,
        Dialect::Databricks => &flavor::DatabricksDialect {},
        Dialect::Spark => &flavor::SparkSqlDialect {},
        Dialect::MySql => &flavor::MySqlDialect {},
        Dialect::TSql | Dialect::Fabric => &flavor::MsSqlDialect {},
        Dialect::Redshift => &flavor::RedshiftSqlDialect {},
        Dialect::ClickHouse => &flavor::ClickHouseDialect {},
        Dialect::Sqlite => &flavor::SQLiteDialect {},
    }
}

/// Turns the parser's lines and columns (in characters) into byte offsets.
pub(super) struct Lines<'a> {
    text: &'a str,
    /// The bytes at which lines start.
    starts: Vec<usize>,
    /// The bytes at which characters start, with the text's end; empty where each is one byte.
    chars: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut starts = vec![0];
        starts.extend(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1));
        let chars = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices().map(|(at, _)| at).chain([text.len()]).collect()
        };
        Self { text, starts, chars }
    }

    /// The byte at a place; `None` for the parser's "no place" and places outside the text.
    pub(super) fn offset(&self, place: Location) -> Option<usize> {
        let line = *self.starts.get(usize::try_from(place.line).ok()?.checked_sub(1)?)?;
        let column = usize::try_from(place.column).ok()?.checked_sub(1)?;
        if self.chars.is_empty() {
            return line.checked_add(column).filter(|at| *at <= self.text.len());
        }
        let first = self.chars.binary_search(&line).ok()?;
        self.chars.get(first.checked_add(column)?).copied()
    }

    pub(super) fn range(&self, span: Span) -> Option<Range<usize>> {
        let (from, to) = (self.offset(span.start)?, self.offset(span.end)?);
        (from < to).then_some(from..to)
    }
}

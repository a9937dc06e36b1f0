//! Computing expressions while rendering: what `@IF`, `@EVAL`, `@FILTER` and the clause macros ask.

use std::cmp::Ordering;

use sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, UnaryOperator,
    Value,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

use super::lookup;
use crate::project::render::Value as Constant;
use crate::sql::Dialect;

/// What an expression computes to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Computed {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// A column's name: equal to itself and to no text.
    Name(String),
}

use Computed::{Bool, Float, Int, Name, Null, Text};

impl Computed {
    /// Whether a condition holds: neither NULL, FALSE, zero nor an empty text.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Null => false,
            Bool(value) => *value,
            Int(number) => *number != 0,
            Float(number) => *number != 0.0,
            Text(text) => !text.is_empty(),
            Name(_) => true,
        }
    }

    /// As SQL; a text is SQL itself.
    pub(crate) fn sql(&self, dialect: Dialect) -> String {
        match self {
            Null => "NULL".to_owned(),
            Bool(value) => lookup::literal(&Constant::Bool(*value), dialect),
            Int(number) => number.to_string(),
            Float(number) => format!("{number:?}"),
            Text(text) | Name(text) => text.clone(),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Int(number) => Some(*number as f64),
            Float(number) => Some(*number),
            Bool(value) => Some(f64::from(u8::from(*value))),
            Null | Text(_) | Name(_) => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Bool(true) => "True".to_owned(),
            Bool(false) => "False".to_owned(),
            other => other.sql(Dialect::Generic),
        }
    }
}

/// Computes an expression; errors say why it can't be computed.
pub(crate) fn compute(sql: &str, dialect: Dialect) -> Result<Computed, String> {
    if let Some(constant) = constant(sql.trim(), dialect) {
        return Ok(constant);
    }
    let expression = Parser::new(&GenericDialect {})
        .with_recursion_limit(60)
        .try_with_sql(sql)
        .and_then(|mut parser| {
            let expression = parser.parse_expr()?;
            match parser.peek_token().token {
                sqlparser::tokenizer::Token::EOF => Ok(expression),
                other => Err(sqlparser::parser::ParserError::ParserError(format!("unexpected {other}"))),
            }
        })
        .map_err(|why| why.to_string())?;
    evaluate(&expression)
}

/// The commonest expressions without a parser.
fn constant(sql: &str, dialect: Dialect) -> Option<Computed> {
    match sql {
        _ if sql.eq_ignore_ascii_case("true") => Some(Bool(true)),
        _ if sql.eq_ignore_ascii_case("false") => Some(Bool(false)),
        _ if sql.eq_ignore_ascii_case("null") => Some(Null),
        _ => sql.parse().ok().map(Int).or_else(|| super::lex::string_literal(sql, dialect).map(Text)),
    }
}

type Answer = Result<Computed, String>;

fn evaluate(expression: &Expr) -> Answer {
    match expression {
        Expr::Value(value) => literal(&value.value),
        Expr::Identifier(name) => Ok(Name(name.value.clone())),
        Expr::CompoundIdentifier(parts) => {
            Ok(Name(parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".")))
        }
        Expr::Nested(inner) => evaluate(inner),
        Expr::UnaryOp { op, expr } => unary(*op, evaluate(expr)?),
        Expr::BinaryOp { left, op, right } => binary(left, op, right),
        Expr::IsNull(inner) => Ok(Bool(evaluate(inner)? == Null)),
        Expr::IsNotNull(inner) => Ok(Bool(evaluate(inner)? != Null)),
        Expr::IsTrue(inner) => Ok(Bool(evaluate(inner)? == Bool(true))),
        Expr::IsNotTrue(inner) => Ok(Bool(evaluate(inner)? != Bool(true))),
        Expr::IsFalse(inner) => Ok(Bool(evaluate(inner)? == Bool(false))),
        Expr::IsNotFalse(inner) => Ok(Bool(evaluate(inner)? != Bool(false))),
        Expr::InList { expr, list, negated } => {
            let value = evaluate(expr)?;
            let mut found = false;
            for item in list.iter().flat_map(flatten) {
                found |= equal(&value, &evaluate(item)?);
            }
            Ok(Bool(found != *negated))
        }
        Expr::Between { expr, negated, low, high } => {
            let value = evaluate(expr)?;
            let inside = compare(&value, &evaluate(low)?)?.is_some_and(Ordering::is_ge)
                && compare(&value, &evaluate(high)?)?.is_some_and(Ordering::is_le);
            Ok(Bool(inside != *negated))
        }
        Expr::Like { negated, expr, pattern, .. } => {
            Ok(Bool(like(&evaluate(expr)?.text(), &evaluate(pattern)?.text()) != *negated))
        }
        Expr::ILike { negated, expr, pattern, .. } => {
            let lower = |e| evaluate(e).map(|value| value.text().to_lowercase());
            Ok(Bool(like(&lower(expr)?, &lower(pattern)?) != *negated))
        }
        Expr::Case { operand, conditions, else_result, .. } => {
            let operand = operand.as_deref().map(evaluate).transpose()?;
            for when in conditions {
                let condition = evaluate(&when.condition)?;
                if operand.as_ref().map_or_else(|| condition.is_true(), |value| equal(value, &condition)) {
                    return evaluate(&when.result);
                }
            }
            else_result.as_deref().map_or(Ok(Null), evaluate)
        }
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, .. } => {
            cast(evaluate(expr)?, data_type)
        }
        Expr::Substring { expr, substring_from, substring_for, .. } => {
            let part = |e: &Option<Box<Expr>>| e.as_deref().map(evaluate).transpose();
            let mut arguments = vec![evaluate(expr)?];
            arguments.extend(part(substring_from)?);
            arguments.extend(part(substring_for)?);
            function("substring", &arguments)
        }
        Expr::Trim { expr, trim_what: None, .. } => Ok(Text(evaluate(expr)?.text().trim().to_owned())),
        Expr::Function(call) => {
            let FunctionArguments::List(list) = &call.args else { return unsupported(expression) };
            let mut arguments = Vec::new();
            for argument in &list.args {
                let FunctionArg::Unnamed(FunctionArgExpr::Expr(inner)) = argument else {
                    return unsupported(expression);
                };
                arguments.push(evaluate(inner)?);
            }
            function(&call.name.to_string().to_lowercase(), &arguments)
        }
        _ => unsupported(expression),
    }
}

fn unsupported<T>(expression: &Expr) -> Result<T, String> {
    Err(format!("`{expression}` is not supported"))
}

/// The items of `x IN ((1, 2))`: a list variable is a tuple of its own.
fn flatten(item: &Expr) -> Vec<&Expr> {
    match item {
        Expr::Tuple(items) => items.iter().collect(),
        Expr::Array(array) => array.elem.iter().collect(),
        Expr::Nested(inner) => vec![inner],
        other => vec![other],
    }
}

fn literal(value: &Value) -> Answer {
    Ok(match value {
        Value::Null => Null,
        Value::Boolean(value) => Bool(*value),
        Value::Number(digits, _) => match digits.parse::<i64>() {
            Ok(number) => Int(number),
            Err(_) => Float(digits.parse().map_err(|_| format!("`{digits}` is no number"))?),
        },
        Value::SingleQuotedString(text)
        | Value::DoubleQuotedString(text)
        | Value::EscapedStringLiteral(text)
        | Value::NationalStringLiteral(text) => Text(text.clone()),
        other => return Err(format!("`{other}` is not supported")),
    })
}

fn unary(op: UnaryOperator, value: Computed) -> Answer {
    Ok(match (op, value) {
        (_, Null) => Null,
        (UnaryOperator::Not, value) => Bool(!value.is_true()),
        (UnaryOperator::Plus, value @ (Int(_) | Float(_))) => value,
        (UnaryOperator::Minus, Int(number)) => Int(number.checked_neg().ok_or("a number is too large")?),
        (UnaryOperator::Minus, Float(number)) => Float(-number),
        (op, value) => return Err(format!("`{op}` doesn't go with `{}`", value.text())),
    })
}

fn binary(left: &Expr, op: &BinaryOperator, right: &Expr) -> Answer {
    let value = evaluate(left)?;
    match op {
        BinaryOperator::And if !value.is_true() => return Ok(value),
        BinaryOperator::Or if value.is_true() => return Ok(value),
        BinaryOperator::And | BinaryOperator::Or => return evaluate(right),
        _ => {}
    }
    let other = evaluate(right)?;
    if *op == BinaryOperator::Spaceship {
        return Ok(Bool(equal(&value, &other)));
    }
    if value == Null || other == Null {
        return Ok(Null);
    }
    let ordered =
        |test: fn(Ordering) -> bool| compare(&value, &other).map(|order| Bool(order.is_some_and(test)));
    match op {
        BinaryOperator::Eq => Ok(Bool(equal(&value, &other))),
        BinaryOperator::NotEq => Ok(Bool(!equal(&value, &other))),
        BinaryOperator::Lt => ordered(Ordering::is_lt),
        BinaryOperator::LtEq => ordered(Ordering::is_le),
        BinaryOperator::Gt => ordered(Ordering::is_gt),
        BinaryOperator::GtEq => ordered(Ordering::is_ge),
        BinaryOperator::StringConcat => Ok(Text(value.text() + &other.text())),
        BinaryOperator::Plus => match (&value, &other) {
            (Text(a), Text(b)) => Ok(Text(format!("{a}{b}"))),
            _ => arithmetic(&value, &other, i64::checked_add, |a, b| a + b),
        },
        BinaryOperator::Minus => arithmetic(&value, &other, i64::checked_sub, |a, b| a - b),
        BinaryOperator::Multiply => arithmetic(&value, &other, i64::checked_mul, |a, b| a * b),
        BinaryOperator::Modulo => arithmetic(&value, &other, i64::checked_rem_euclid, f64::rem_euclid),
        BinaryOperator::DuckIntegerDivide => {
            let whole = |a: i64, b: i64| {
                let quotient = a.checked_div(b)?;
                Some(quotient - i64::from(a % b != 0 && (a < 0) != (b < 0)))
            };
            arithmetic(&value, &other, whole, |a, b| (a / b).floor())
        }
        BinaryOperator::Divide => match (value.number(), other.number()) {
            (Some(_), Some(0.0)) => Err("division by zero".to_owned()),
            (Some(a), Some(b)) => Ok(Float(a / b)),
            _ => Err(format!("`/` doesn't go with `{}` and `{}`", value.text(), other.text())),
        },
        other => Err(format!("`{other}` is not supported")),
    }
}

fn arithmetic(
    a: &Computed,
    b: &Computed,
    whole: fn(i64, i64) -> Option<i64>,
    real: fn(f64, f64) -> f64,
) -> Answer {
    match (a, b) {
        (Int(x), Int(y)) => whole(*x, *y).map(Int).ok_or_else(|| "a number is too large or zero".to_owned()),
        _ => match (a.number(), b.number()) {
            (Some(x), Some(y)) => Ok(Float(real(x, y))),
            _ => Err(format!("`{}` and `{}` are not both numbers", a.text(), b.text())),
        },
    }
}

fn equal(a: &Computed, b: &Computed) -> bool {
    match (a.number(), b.number()) {
        (Some(x), Some(y)) => x == y,
        _ => a == b,
    }
}

fn compare(a: &Computed, b: &Computed) -> Result<Option<Ordering>, String> {
    match (a, b) {
        (Null, _) | (_, Null) => Ok(None),
        (Text(x), Text(y)) => Ok(Some(x.cmp(y))),
        _ => match (a.number(), b.number()) {
            (Some(x), Some(y)) => Ok(x.partial_cmp(&y)),
            _ => Err(format!("`{}` and `{}` can't be compared", a.text(), b.text())),
        },
    }
}

/// LIKE with `%` and `_`.
fn like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut t, mut p, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('%') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '_' || *c == text[t] => (t, p) = (t + 1, p + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (t, p) = (from + 1, at + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '%')
}

fn cast(value: Computed, data_type: &DataType) -> Answer {
    let name = data_type.to_string().to_lowercase();
    let name = name.split(['(', ' ']).next().unwrap_or_default();
    let bad = |value: &Computed| format!("`{}` can't be cast to {name}", value.text());
    Ok(match name {
        _ if value == Null => Null,
        "text" | "varchar" | "char" | "string" | "nvarchar" | "character" => Text(value.text()),
        "date" => Text(value.text().chars().take(10).collect()),
        "timestamp" | "timestamptz" | "datetime" | "datetime2" | "datetimeoffset" => Text(value.text()),
        "bool" | "boolean" => match &value {
            Text(text) => Bool(text.eq_ignore_ascii_case("true") || text == "1"),
            other => Bool(other.is_true()),
        },
        "int" | "integer" | "bigint" | "smallint" | "tinyint" | "int64" | "int4" | "int8" => match &value {
            Text(text) => Int(text.trim().parse().map_err(|_| bad(&value))?),
            other => Int(other.number().ok_or_else(|| bad(&value))? as i64),
        },
        "float" | "double" | "real" | "decimal" | "numeric" | "float64" => match &value {
            Text(text) => Float(text.trim().parse().map_err(|_| bad(&value))?),
            other => Float(other.number().ok_or_else(|| bad(&value))?),
        },
        _ => return Err(format!("a cast to {name} is not supported")),
    })
}

fn function(name: &str, arguments: &[Computed]) -> Answer {
    let whole =
        |value: &Computed| value.number().map(|n| n as i64).ok_or_else(|| format!("{name} wants a number"));
    match (name, arguments) {
        ("coalesce" | "ifnull" | "nvl", all) => {
            Ok(all.iter().find(|value| **value != Null).cloned().unwrap_or(Null))
        }
        ("concat", all) => Ok(Text(all.iter().filter(|v| **v != Null).map(Computed::text).collect())),
        ("nullif", [a, b]) => Ok(if equal(a, b) { Null } else { a.clone() }),
        ("if" | "iff", [condition, yes, no]) => {
            Ok(if condition.is_true() { yes.clone() } else { no.clone() })
        }
        ("greatest" | "least", [first, rest @ ..]) => {
            let wanted = if name == "greatest" { Ordering::Greater } else { Ordering::Less };
            let mut best = first.clone();
            for value in rest {
                if compare(value, &best)? == Some(wanted) {
                    best = value.clone();
                }
            }
            Ok(best)
        }
        (_, [Null, ..]) => Ok(Null),
        ("length" | "len" | "char_length", [text]) => Ok(Int(text.text().chars().count() as i64)),
        ("lower" | "lcase", [text]) => Ok(Text(text.text().to_lowercase())),
        ("upper" | "ucase", [text]) => Ok(Text(text.text().to_uppercase())),
        ("trim", [text]) => Ok(Text(text.text().trim().to_owned())),
        ("replace", [text, from, to]) => Ok(Text(text.text().replace(&from.text(), &to.text()))),
        ("starts_with" | "startswith", [text, start]) => Ok(Bool(text.text().starts_with(&start.text()))),
        ("ends_with" | "endswith", [text, end]) => Ok(Bool(text.text().ends_with(&end.text()))),
        ("contains", [text, part]) => Ok(Bool(text.text().contains(&part.text()))),
        ("left", [text, count]) => {
            Ok(Text(text.text().chars().take(whole(count)?.max(0) as usize).collect()))
        }
        ("substring" | "substr", [text, from, rest @ ..]) => {
            let count = rest.first().map(whole).transpose()?.unwrap_or(i64::MAX).max(0) as usize;
            let skip = (whole(from)? - 1).max(0) as usize;
            Ok(Text(text.text().chars().skip(skip).take(count).collect()))
        }
        ("abs", [Int(number)]) => Ok(Int(number.saturating_abs())),
        ("abs", [Float(number)]) => Ok(Float(number.abs())),
        ("round", [number]) => Ok(Int(number.number().ok_or("round wants a number")?.round() as i64)),
        ("floor", [number]) => Ok(Int(number.number().ok_or("floor wants a number")?.floor() as i64)),
        ("ceil" | "ceiling", [number]) => {
            Ok(Int(number.number().ok_or("ceil wants a number")?.ceil() as i64))
        }
        _ => Err(format!("function `{name}` is not supported here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sql: &str) -> String {
        compute(sql, Dialect::DuckDb).map_or_else(|why| format!("error: {why}"), |value| value.text())
    }

    #[test]
    fn expressions_compute() {
        for (sql, expected) in [
            ("1 + 2 * 3", "7"),
            ("6 / 2", "3.0"),
            ("7 % 3", "1"),
            ("7 // 2", "3"),
            ("-7 // 2", "-4"),
            ("1 // 0", "error: a number is too large or zero"),
            ("-5", "-5"),
            ("'a' || 'b'", "ab"),
            ("1 = 1.0 AND 'a' <> 'b'", "True"),
            ("2 IN (1, 2)", "True"),
            ("2 NOT IN ((1, 2))", "False"),
            ("'txt' LIKE 't%t'", "True"),
            ("'txt' ILIKE 'T_T'", "True"),
            ("3 BETWEEN 1 AND 3", "True"),
            ("NULL > 1", "NULL"),
            ("NULL IS NULL", "True"),
            ("CASE WHEN 1 = 2 THEN 'x' ELSE UPPER('y') END", "Y"),
            ("COALESCE(NULL, 3)", "3"),
            ("LENGTH('abc') > 2", "True"),
            ("CAST('3' AS INT) + 1", "4"),
            ("CAST('2023-01-01' AS DATE) > '2022-12-31'", "True"),
            ("SUBSTRING('abc', 2, 1)", "b"),
            ("a = 'a'", "False"),
            ("a = a", "True"),
        ] {
            assert_eq!(text(sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_can_not_be_computed_says_why() {
        for sql in ["1 < 'a'", "foo(1)", "1 +", "1 / 0", "EXISTS (SELECT 1)"] {
            assert!(text(sql).starts_with("error: "), "{sql}");
        }
    }
}

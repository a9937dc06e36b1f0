//! What an expression over time variables can be: the earliest and the latest time.
//!
//! Engines run in UTC sessions. Where engines disagree about a form (rounding casts, weeks), the
//! enclosure covers all of them, or the form isn't understood.

use sqlparser::ast::{
    BinaryOperator, DataType, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Interval, UnaryOperator, Value,
};

use super::bound::{Anchor, DAY, Grain, Point, Step};
use crate::sql::Dialect;

/// What kind of SQL value it is, as far as arithmetic on it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Date,
    Time,
}

/// An enclosure of a time: `low <= value <= high`.
#[derive(Debug, Clone)]
pub(super) struct TimeValue {
    pub(super) low: Point,
    pub(super) high: Point,
    /// Whether the value is, or may be compared as, a day: `<=` then takes all of the day in.
    pub(super) whole_day: bool,
    kind: Kind,
}

impl TimeValue {
    fn map(self, step: Step) -> Self {
        Self { low: self.low.then(step), high: self.high.then(step), ..self }
    }

    fn day(self) -> Self {
        Self { whole_day: true, kind: Kind::Date, ..self.map(Step::Floor(Grain::Day)) }
    }
}

/// Reads an expression made of one time variable, casts, date arithmetic and truncation.
pub(super) fn time_value(expr: &Expr, dialect: Dialect) -> Option<TimeValue> {
    match expr {
        Expr::Nested(inner) => time_value(inner, dialect),
        Expr::Identifier(ident) if ident.quote_style.is_none() => variable(&ident.value),
        Expr::Value(value) => variable(text(&value.value)?),
        Expr::TypedString(typed) if !typed.uses_odbc_syntax => {
            cast(variable(text(&typed.value.value)?)?, &typed.data_type, dialect)
        }
        Expr::Cast { expr, data_type, format: None, .. } => {
            cast(time_value(expr, dialect)?, data_type, dialect)
        }
        Expr::Convert { expr, data_type: Some(data_type), charset: None, styles, .. }
            if styles.is_empty() =>
        {
            cast(time_value(expr, dialect)?, data_type, dialect)
        }
        Expr::BinaryOp { left, op, right } => arithmetic(left, op, right, dialect),
        Expr::Function(function) => call(function, dialect),
        _ => None,
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => Some(text),
        _ => None,
    }
}

fn variable(name: &str) -> Option<TimeValue> {
    let name = name.strip_prefix('@')?.to_ascii_lowercase();
    let (anchor, suffix) = match name.split_once('_')? {
        ("start", suffix) => (Anchor::Start, suffix),
        ("end", suffix) => (Anchor::End, suffix),
        _ => return None,
    };
    let point = Point { anchor, steps: Vec::new() };
    let value = |kind| TimeValue { low: point.clone(), high: point.clone(), whole_day: false, kind };
    match suffix {
        "ds" => Some(TimeValue { kind: Kind::Text, ..value(Kind::Text).day() }),
        "date" => Some(value(Kind::Date).day()),
        "dt" | "dtntz" => Some(value(Kind::Time)),
        "ts" | "tstz" => Some(value(Kind::Text)),
        // Numbers have units that the other side needn't share.
        _ => None,
    }
}

/// What a cast does to a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CastTo {
    /// Cuts to the day.
    Day,
    /// Keeps at least microseconds.
    Same,
    /// A text.
    Text,
}

pub(super) fn cast_to(data_type: &DataType, dialect: Dialect) -> Option<CastTo> {
    let fine = |precision: &Option<u64>| precision.is_none_or(|digits| digits >= 6);
    // These round to their precision, which is whole seconds or 1/300 of one by default.
    let rounds = matches!(dialect, Dialect::MySql | Dialect::TSql | Dialect::Fabric | Dialect::ClickHouse);
    match data_type {
        DataType::Date => Some(CastTo::Day),
        DataType::Timestamp(precision, _) if fine(precision) && !rounds => Some(CastTo::Same),
        DataType::TimestampNtz(precision) if fine(precision) && !rounds => Some(CastTo::Same),
        DataType::Datetime(precision) if fine(precision) && !rounds => Some(CastTo::Same),
        DataType::Custom(name, arguments) if arguments.is_empty() => {
            let name = name.to_string().to_ascii_lowercase();
            let same = ["datetime2", "datetimeoffset", "timestamptz", "timestamp_ntz", "timestamp_tz"];
            same.contains(&name.as_str()).then_some(CastTo::Same)
        }
        DataType::Varchar(None) | DataType::Text | DataType::String(None) => Some(CastTo::Text),
        _ => None,
    }
}

fn cast(value: TimeValue, data_type: &DataType, dialect: Dialect) -> Option<TimeValue> {
    match cast_to(data_type, dialect)? {
        // MySQL rounds 23:59:59.999999 up to the next day.
        CastTo::Day if dialect == Dialect::MySql && !value.whole_day => None,
        CastTo::Day => Some(value.day()),
        CastTo::Same => Some(TimeValue { kind: Kind::Time, ..value }),
        CastTo::Text => {
            let plain = value.whole_day && value.kind != Kind::Time;
            plain.then_some(TimeValue { kind: Kind::Text, ..value })
        }
    }
}

fn arithmetic(left: &Expr, op: &BinaryOperator, right: &Expr, dialect: Dialect) -> Option<TimeValue> {
    let sign = match op {
        BinaryOperator::Plus => 1,
        BinaryOperator::Minus => -1,
        _ => return None,
    };
    if let (Expr::Interval(interval), 1) = (left, sign) {
        return shift(time_value(right, dialect)?, offset(interval)?);
    }
    let value = time_value(left, dialect)?;
    if let Expr::Interval(interval) = right {
        return shift(value, offset(interval)?.times(sign));
    }
    let adds_days = matches!(
        dialect,
        Dialect::DuckDb
            | Dialect::Postgres
            | Dialect::Redshift
            | Dialect::Snowflake
            | Dialect::BigQuery
            | Dialect::Databricks
            | Dialect::Spark
    );
    let days = integer(right)?.checked_mul(sign)?.checked_mul(DAY)?;
    (adds_days && value.kind == Kind::Date).then(|| value.map(Step::Micros(days)))
}

#[derive(Debug, Clone, Copy)]
enum Offset {
    Months(i32),
    Micros(i64),
}

impl Offset {
    fn times(self, sign: i64) -> Self {
        match self {
            Self::Months(n) if sign < 0 => Self::Months(n.saturating_neg()),
            Self::Micros(n) if sign < 0 => Self::Micros(n.saturating_neg()),
            same => same,
        }
    }
}

fn shift(value: TimeValue, offset: Offset) -> Option<TimeValue> {
    let step = match offset {
        Offset::Months(n) => Step::Months(n),
        Offset::Micros(n) => Step::Micros(n),
    };
    // A day and an interval are a timestamp in some engines; it may still be compared as a day.
    Some(TimeValue { kind: Kind::Time, ..value.map(step) })
}

fn offset(interval: &Interval) -> Option<Offset> {
    let plain = interval.leading_precision.is_none()
        && interval.last_field.is_none()
        && interval.fractional_seconds_precision.is_none();
    if !plain {
        return None;
    }
    if let Some(field) = &interval.leading_field {
        let count = match &*interval.value {
            Expr::Value(value) if text(&value.value).is_some() => text(&value.value)?.trim().parse().ok()?,
            number => integer(number)?,
        };
        return unit_offset(&field_name(field)?, count);
    }
    let Expr::Value(value) = &*interval.value else { return None };
    let mut words = text(&value.value)?.split_whitespace();
    let (count, unit) = (words.next()?.parse().ok()?, words.next()?);
    words.next().is_none().then(|| unit_offset(unit, count))?
}

fn field_name(field: &DateTimeField) -> Option<String> {
    match field {
        DateTimeField::Week(Some(_)) => None,
        other => Some(other.to_string()),
    }
}

fn unit_offset(unit: &str, count: i64) -> Option<Offset> {
    let unit = unit.to_ascii_lowercase();
    let months = |each: i64| i32::try_from(count.checked_mul(each)?).ok().map(Offset::Months);
    let micros = |each: i64| count.checked_mul(each).map(Offset::Micros);
    match unit.strip_suffix('s').unwrap_or(&unit) {
        "year" | "yyyy" | "yy" => months(12),
        "quarter" | "qq" => months(3),
        "month" | "mon" | "mm" => months(1),
        "week" | "wk" => micros(7 * DAY),
        "day" | "d" | "dd" => micros(DAY),
        "hour" | "hh" => micros(DAY / 24),
        "minute" | "min" => micros(DAY / 1440),
        "second" => micros(DAY / 86_400),
        _ => None,
    }
}

pub(super) fn integer(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Nested(inner) => integer(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => integer(expr)?.checked_neg(),
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

/// A function's lower-case name and its plain positional arguments.
pub(super) fn plain_call(function: &Function) -> Option<(String, Vec<&Expr>)> {
    let bare = function.over.is_none()
        && function.filter.is_none()
        && function.within_group.is_empty()
        && matches!(function.parameters, FunctionArguments::None)
        && !function.uses_odbc_syntax;
    let FunctionArguments::List(list) = &function.args else { return None };
    if !bare || !list.clauses.is_empty() || list.duplicate_treatment.is_some() {
        return None;
    }
    let arguments = list.args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    Some((function.name.to_string().to_ascii_lowercase(), arguments.collect::<Option<_>>()?))
}

fn call(function: &Function, dialect: Dialect) -> Option<TimeValue> {
    let (name, arguments) = plain_call(function)?;
    match (name.as_str(), arguments.as_slice()) {
        ("date" | "to_date", [x]) => cast(time_value(x, dialect)?, &DataType::Date, dialect),
        ("timestamp" | "datetime", [x]) => {
            let zone = sqlparser::ast::TimezoneInfo::None;
            cast(time_value(x, dialect)?, &DataType::Timestamp(None, zone), dialect)
        }
        (
            "date_add" | "date_sub" | "timestamp_add" | "timestamp_sub" | "datetime_add" | "datetime_sub",
            [x, Expr::Interval(interval)],
        ) => {
            let sign = if name.ends_with("_sub") { -1 } else { 1 };
            let value = time_value(x, dialect)?;
            let kind = value.kind;
            Some(TimeValue { kind, ..shift(value, offset(interval)?.times(sign))? })
        }
        ("date_add" | "date_sub", [x, count]) if matches!(dialect, Dialect::Spark | Dialect::Databricks) => {
            let sign = if name == "date_sub" { -1 } else { 1 };
            let days = integer(count)?.checked_mul(sign * DAY)?;
            Some(time_value(x, dialect)?.day().map(Step::Micros(days)))
        }
        ("dateadd" | "date_add" | "timestampadd", [unit, count, x]) => {
            let value = time_value(x, dialect)?;
            let kind = value.kind;
            Some(TimeValue { kind, ..shift(value, unit_offset(&word(unit)?, integer(count)?)?)? })
        }
        ("add_months", [x, count]) => {
            // Some engines go from a month's last day to a month's last day.
            let value = time_value(x, dialect)?.map(Step::Months(i32::try_from(integer(count)?).ok()?));
            Some(TimeValue { high: value.high.then(Step::Micros(3 * DAY)), ..value })
        }
        ("date_trunc" | "timestamp_trunc" | "datetime_trunc", [a, b]) => {
            let (unit, x) = match word(a).and_then(|unit| trunc(&unit)) {
                Some(unit) => (unit, b),
                None => (trunc(&word(b)?)?, a),
            };
            Some(truncated(time_value(x, dialect)?, unit))
        }
        _ => None,
    }
}

/// What truncation cuts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trunc {
    /// A calendar unit.
    To(Grain),
    /// A week, whichever day it begins on.
    Week,
}

pub(super) fn trunc(unit: &str) -> Option<Trunc> {
    Some(Trunc::To(match unit {
        "second" => Grain::Second,
        "minute" => Grain::Minute,
        "hour" => Grain::Hour,
        "day" => Grain::Day,
        "week" | "isoweek" => return Some(Trunc::Week),
        "month" => Grain::Month,
        "quarter" => Grain::Quarter,
        "year" => Grain::Year,
        _ => return None,
    }))
}

fn truncated(value: TimeValue, unit: Trunc) -> TimeValue {
    match unit {
        Trunc::Week => {
            let day = value.day();
            TimeValue { low: day.low.then(Step::Micros(-6 * DAY)), ..day }
        }
        Trunc::To(grain) => {
            let whole_day = grain >= Grain::Day || value.whole_day;
            let kind = if grain >= Grain::Day { Kind::Time } else { value.kind };
            TimeValue { whole_day, kind, ..value.map(Step::Floor(grain)) }
        }
    }
}

/// A unit's name, written as a word or a text, in lower case.
pub(super) fn word(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(ident.value.to_ascii_lowercase()),
        Expr::Value(value) => text(&value.value).map(str::to_ascii_lowercase),
        _ => None,
    }
}

//! Whether one value that a warehouse answered is the one that a test expects.
//!
//! As in SQLMesh, the expected value is read as the column's type; decimals and floats are equal
//! where they differ by a hundred-thousandth of themselves. Whole numbers are equal exactly.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime};
use serde_json::Value as Json;

use super::Datum;

/// What values of a column are to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Whole,
    Number,
    Bool,
    Moment,
    Time,
    Interval,
    Nested,
    Text,
}

impl Class {
    /// The class of a type as DuckDB and PostgreSQL write it.
    pub(super) fn of(data_type: &str) -> Self {
        let text = data_type.trim().to_ascii_uppercase();
        if text.ends_with(']') {
            return Self::Nested;
        }
        let word = text.split(['(', ' ']).next().unwrap_or_default();
        match word {
            "TINYINT" | "SMALLINT" | "INTEGER" | "INT" | "BIGINT" | "HUGEINT" | "UTINYINT" | "USMALLINT"
            | "UINTEGER" | "UBIGINT" | "UHUGEINT" => Self::Whole,
            "DECIMAL" | "NUMERIC" | "FLOAT" | "REAL" | "DOUBLE" => Self::Number,
            "BOOLEAN" => Self::Bool,
            "DATE" | "TIMESTAMP" | "TIMESTAMPTZ" | "TIMESTAMP_S" | "TIMESTAMP_MS" | "TIMESTAMP_NS" => {
                Self::Moment
            }
            "TIME" | "TIMETZ" => Self::Time,
            "INTERVAL" => Self::Interval,
            "STRUCT" | "MAP" | "LIST" | "UNION" | "JSON" | "JSONB" => Self::Nested,
            _ => Self::Text,
        }
    }
}

/// Whether a value of a class is the expected one.
pub(super) fn equal(class: Class, expected: &Datum, actual: Option<&str>) -> bool {
    let Some(actual) = actual else { return is_null(expected) };
    if is_null(expected) {
        return class == Class::Number && actual.eq_ignore_ascii_case("nan");
    }
    match class {
        Class::Whole | Class::Number => number_equal(expected, actual),
        Class::Bool => truth(expected) == Some(matches!(actual, "t" | "true")),
        Class::Moment => same(moment(expected), parse_moment(actual)),
        Class::Time => same(text_of(expected).and_then(|text| parse_time(&text)), parse_time(actual)),
        Class::Interval => match (text_of(expected), parse_interval(actual)) {
            (Some(expected), Some(actual)) => parse_interval(&expected) == Some(actual),
            (expected, _) => expected.as_deref() == Some(actual),
        },
        Class::Nested => match serde_json::from_str::<Json>(actual) {
            Ok(json) => json_equal(expected, &json),
            Err(_) => false,
        },
        Class::Text => match expected {
            Datum::Text(text) | Datum::Time(text) => text == actual,
            _ => false,
        },
    }
}

/// A value for people.
pub(super) fn shown(value: &Datum) -> String {
    match value {
        Datum::Null => "NULL".to_owned(),
        Datum::Bool(value) => value.to_string(),
        Datum::Int(value) => value.to_string(),
        Datum::Float(value) => value.to_string(),
        Datum::Text(text) | Datum::Time(text) => text.clone(),
        Datum::List(values) => {
            format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        Datum::Map(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| format!("{key}: {}", shown(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

fn is_null(value: &Datum) -> bool {
    match value {
        Datum::Null => true,
        Datum::Float(value) => value.is_nan(),
        _ => false,
    }
}

fn same<T: PartialEq>(expected: Option<T>, actual: Option<T>) -> bool {
    expected.is_some() && expected == actual
}

fn number_equal(expected: &Datum, actual: &str) -> bool {
    let expected = match expected {
        Datum::Int(value) => value.to_string(),
        Datum::Float(value) => value.to_string(),
        Datum::Bool(value) => i32::from(*value).to_string(),
        Datum::Text(text) => text.trim().to_owned(),
        Datum::Null | Datum::Time(_) | Datum::List(_) | Datum::Map(_) => return false,
    };
    if let (Ok(expected), Ok(actual)) = (expected.parse::<i128>(), actual.parse::<i128>()) {
        return expected == actual;
    }
    match (expected.parse::<f64>(), actual.parse::<f64>()) {
        (Ok(expected), Ok(actual)) => close(expected, actual),
        _ => false,
    }
}

/// The tolerance of pandas, with which SQLMesh compares.
fn close(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= f64::max(1e-5 * f64::max(a.abs(), b.abs()), 1e-8) && (a - b).is_finite()
}

fn truth(value: &Datum) -> Option<bool> {
    match value {
        Datum::Bool(value) => Some(*value),
        Datum::Int(number) => Some(*number != 0),
        Datum::Float(number) => Some(*number != 0.0),
        Datum::Text(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Datum::Text(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn text_of(value: &Datum) -> Option<String> {
    match value {
        Datum::Text(text) | Datum::Time(text) => Some(text.clone()),
        _ => None,
    }
}

fn moment(value: &Datum) -> Option<NaiveDateTime> {
    parse_moment(&text_of(value)?)
}

/// A date or time as the point in UTC that it names.
pub(super) fn parse_moment(text: &str) -> Option<NaiveDateTime> {
    let text = text.trim();
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return date.and_hms_opt(0, 0, 0);
    }
    let text = text.replacen(['T', 't'], " ", 1);
    for format in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"] {
        if let Ok(at) = NaiveDateTime::parse_from_str(&text, format) {
            return Some(at);
        }
    }
    // Zones come as `Z`, `+02`, `+0200` and `+02:00`, with a blank before or without.
    let text = text.replace(['Z', 'z'], "+00:00");
    let split = text.rfind(['+', '-']).filter(|at| *at > 10)?;
    let (time, zone) = text.split_at(split);
    let zone = if zone.len() == 3 { format!("{zone}:00") } else { zone.to_owned() };
    let whole = format!("{}{zone}", time.trim_end());
    for format in ["%Y-%m-%d %H:%M:%S%.f%:z", "%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%d %H:%M%:z"] {
        if let Ok(at) = DateTime::<FixedOffset>::parse_from_str(&whole, format) {
            return Some(at.naive_utc());
        }
    }
    None
}

fn parse_time(text: &str) -> Option<NaiveTime> {
    let text = text.trim().split('+').next().unwrap_or_default();
    let formats = ["%H:%M:%S%.f", "%H:%M"];
    let time = formats.iter().find_map(|format| NaiveTime::parse_from_str(text, format).ok());
    time.or_else(|| parse_moment(text).map(|at| at.time()))
}

/// Months and microseconds of an interval such as `1 year 2 days 03:00:00`.
fn parse_interval(text: &str) -> Option<(i64, i64)> {
    const DAY: i64 = 86_400_000_000;
    let (mut months, mut micros) = (0, 0);
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        if word.contains(':') {
            let (sign, time) = word.strip_prefix('-').map_or((1, word), |time| (-1, time));
            let midnight = NaiveTime::default();
            micros += sign * (parse_time(time)? - midnight).num_microseconds()?;
            continue;
        }
        let number: i64 = word.parse().ok()?;
        match words.next()?.trim_end_matches([',', 's']).to_ascii_lowercase().as_str() {
            "year" => months += 12 * number,
            "month" | "mon" => months += number,
            "week" => micros += 7 * DAY * number,
            "day" => micros += DAY * number,
            "hour" => micros += DAY / 24 * number,
            "minute" | "min" => micros += DAY / 1440 * number,
            "second" | "sec" => micros += 1_000_000 * number,
            _ => return None,
        }
    }
    Some((months, micros))
}

fn json_equal(expected: &Datum, actual: &Json) -> bool {
    match (expected, actual) {
        (_, Json::Null) => is_null(expected),
        (Datum::Bool(expected), Json::Bool(actual)) => expected == actual,
        (Datum::Int(_) | Datum::Float(_), Json::Number(actual)) => {
            number_equal(expected, &actual.to_string())
        }
        (Datum::Text(expected) | Datum::Time(expected), Json::String(actual)) => {
            expected == actual || same(parse_moment(expected), parse_moment(actual))
        }
        (Datum::List(expected), Json::Array(actual)) => {
            expected.len() == actual.len() && expected.iter().zip(actual).all(|(e, a)| json_equal(e, a))
        }
        (Datum::Map(expected), Json::Object(actual)) => {
            expected.len() == actual.len()
                && expected.iter().all(|(key, value)| actual.get(key).is_some_and(|a| json_equal(value, a)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Datum {
        Datum::Text(text.to_owned())
    }

    #[test]
    fn expected_values_are_read_as_the_type_of_the_column() {
        let list = |values: &[i128]| Datum::List(values.iter().map(|value| Datum::Int(*value)).collect());
        let map = |value: Datum| Datum::Map(vec![("b".to_owned(), text("x")), ("a".to_owned(), value)]);
        for (data_type, expected, actual, equal_) in [
            ("INTEGER", Datum::Int(1), "1", true),
            ("INTEGER", text("1"), "1", true),
            ("INTEGER", Datum::Float(1.0), "1", true),
            ("INTEGER", Datum::Float(1.5), "1", false),
            ("INTEGER", Datum::Bool(true), "1", true),
            ("HUGEINT", Datum::Int(1_000_001), "1000000", false),
            ("DECIMAL(10,2)", Datum::Float(1.25), "1.25", true),
            ("DOUBLE", Datum::Float(0.333_333), "0.3333333333", true),
            ("DOUBLE", Datum::Float(0.333), "0.3333333333", false),
            ("double precision", Datum::Int(2), "2.0", true),
            ("BOOLEAN", Datum::Bool(false), "false", true),
            ("BOOLEAN", Datum::Int(1), "true", true),
            ("BOOLEAN", Datum::Bool(true), "t", true),
            ("VARCHAR", text("1"), "1", true),
            ("VARCHAR", Datum::Int(1), "1", false),
            ("VARCHAR", Datum::Time("2020-01-01".to_owned()), "2020-01-01", true),
            ("DATE", text("2020-01-01"), "2020-01-01", true),
            ("DATE", Datum::Time("2020-01-01 00:00:00".to_owned()), "2020-01-01", true),
            ("DATE", text("2020-01-02"), "2020-01-01", false),
            ("TIMESTAMP", text("2020-01-01T10:00:00"), "2020-01-01 10:00:00", true),
            ("TIMESTAMP", text("2020-01-01 10:00:00.5"), "2020-01-01 10:00:00.5", true),
            ("TIMESTAMP WITH TIME ZONE", text("2020-01-01 10:00:00"), "2020-01-01 12:00:00+02", true),
            ("TIME", text("10:00:00"), "10:00:00", true),
            ("INTERVAL", text("1 days"), "1 day", true),
            ("INTEGER[]", list(&[1, 2]), "[1,2]", true),
            ("INTEGER[]", list(&[2, 1]), "[1,2]", false),
            ("STRUCT(a INTEGER, b VARCHAR)", map(Datum::Int(1)), r#"{"a":1,"b":"x"}"#, true),
            ("STRUCT(a INTEGER, b VARCHAR)", map(Datum::Null), r#"{"a":1,"b":"x"}"#, false),
        ] {
            assert_eq!(
                equal(Class::of(data_type), &expected, Some(actual)),
                equal_,
                "{data_type}: {expected:?} and {actual}"
            );
        }
        assert!(equal(Class::Whole, &Datum::Null, None));
        assert!(!equal(Class::Whole, &Datum::Int(0), None));
        assert!(!equal(Class::Text, &Datum::Null, Some("")));
    }
}

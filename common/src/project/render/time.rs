//! The values of time variables, and how each dialect writes them.

use std::fmt::Write as _;

use chrono::{Datelike, Timelike};
use minijinja::value::Value as Jinja;

use super::TimeVars;
use super::python::{Date, DateTime};
use crate::interval::Timestamp;
use crate::sql::Dialect;

/// Which point of time a variable shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    Start,
    End,
    Execution,
}

/// How a variable shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Dt,
    DtNtz,
    Date,
    Ds,
    Ts,
    TsTz,
    Epoch,
    Millis,
    Hour,
}

/// A time variable such as `start_ds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeVar {
    pub(crate) point: Point,
    form: Form,
}

/// All names of time variables are a prefix, `_` and a suffix of these.
const PREFIXES: [(&str, Point); 4] = [
    ("start_", Point::Start),
    ("end_", Point::End),
    ("execution_", Point::Execution),
    ("latest_", Point::Execution),
];
const SUFFIXES: [(&str, Form); 9] = [
    ("dt", Form::Dt),
    ("dtntz", Form::DtNtz),
    ("date", Form::Date),
    ("ds", Form::Ds),
    ("ts", Form::Ts),
    ("tstz", Form::TsTz),
    ("epoch", Form::Epoch),
    ("millis", Form::Millis),
    ("hour", Form::Hour),
];

/// The names of all time variables.
pub(crate) fn names() -> impl Iterator<Item = String> {
    PREFIXES
        .iter()
        .flat_map(|(prefix, _)| SUFFIXES.iter().map(move |(suffix, _)| format!("{prefix}{suffix}")))
}

impl TimeVar {
    /// The time variable of a lower-case name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (point, suffix) =
            PREFIXES.iter().find_map(|(prefix, point)| Some((*point, name.strip_prefix(prefix)?)))?;
        let form = SUFFIXES.iter().find(|(text, _)| *text == suffix)?.1;
        Some(Self { point, form })
    }
}

/// A point of time with nanoseconds: what `end` variables need.
#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Timestamp,
    /// Nanoseconds within the millisecond.
    nanos: u32,
}

/// The value of a time variable at one point of use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeValue {
    form: Form,
    moment: Moment,
}

/// The value of a variable, or nothing where time doesn't have it.
pub(crate) fn value(time: TimeVars, variable: TimeVar, dialect: Dialect) -> Option<TimeValue> {
    let whole = |at| Moment { at, nanos: 0 };
    let moment = match (time, variable.point) {
        (TimeVars::Batch { start, .. }, Point::Start) => whole(start),
        (TimeVars::Batch { end, .. }, Point::End) => Moment {
            at: Timestamp(end.0.saturating_sub(1)),
            nanos: if dialect.is_tsql() { 999_999 } else { 999_000 },
        },
        (TimeVars::Batch { execution, .. } | TimeVars::ExecutionOnly { execution }, Point::Execution) => {
            whole(execution)
        }
        _ => return None,
    };
    Some(TimeValue { form: variable.form, moment })
}

impl TimeValue {
    /// The value as bare text: what Jinja and string templates see of textual forms.
    pub(crate) fn bare(self) -> String {
        match self.form {
            Form::Dt | Form::TsTz => self.moment.text(true),
            Form::DtNtz | Form::Ts => self.moment.text(false),
            Form::Date | Form::Ds => self.moment.date(),
            Form::Epoch => format!("{:?}", self.moment.millis() as f64 / 1000.0),
            Form::Millis => self.moment.millis().to_string(),
            Form::Hour => self.moment.at.to_datetime().hour().to_string(),
        }
    }

    /// The value as Python's date or time, for forms that are one.
    pub(crate) fn object(self) -> Option<Jinja> {
        let at = self.moment.at.to_datetime().naive_utc();
        let at = at.with_nanosecond(self.moment.nanos_of_second()).unwrap_or(at);
        match self.form {
            Form::Date => Some(Jinja::from_object(Date::of(at.date()))),
            Form::Dt | Form::DtNtz => Some(Jinja::from_object(DateTime::of(at, self.form == Form::Dt))),
            _ => None,
        }
    }

    /// The value as a number, for forms that are one.
    pub(crate) fn number(self) -> Option<f64> {
        match self.form {
            Form::Epoch => Some(self.moment.millis() as f64 / 1000.0),
            Form::Millis => Some(self.moment.millis() as f64),
            Form::Hour => Some(f64::from(self.moment.at.to_datetime().hour())),
            _ => None,
        }
    }

    /// Whether the number has no fraction.
    pub(crate) fn is_integer(self) -> bool {
        matches!(self.form, Form::Millis | Form::Hour)
    }

    /// Whether templates show the value as text rather than as SQL.
    pub(crate) fn is_text(self) -> bool {
        matches!(self.form, Form::Ds | Form::Ts | Form::TsTz)
    }

    /// The value as SQL of a dialect.
    pub(crate) fn sql(self, dialect: Dialect) -> String {
        match self.form {
            Form::Ds | Form::Ts | Form::TsTz => format!("'{}'", self.bare()),
            Form::Epoch | Form::Millis | Form::Hour => self.bare(),
            Form::Date => match dialect {
                Dialect::Sqlite => format!("'{}'", self.bare()),
                Dialect::ClickHouse => format!("toDate('{}')", self.bare()),
                _ => format!("CAST('{}' AS DATE)", self.bare()),
            },
            Form::DtNtz => self.naive_sql(dialect),
            Form::Dt => self.zoned_sql(dialect),
        }
    }

    fn naive_sql(self, dialect: Dialect) -> String {
        let digits = self.moment.fraction_digits();
        let text = self.moment.text(false);
        let data_type = match dialect {
            Dialect::Sqlite => return format!("'{text}'"),
            Dialect::BigQuery => "DATETIME",
            Dialect::MySql => sized("DATETIME", digits, ""),
            Dialect::Trino => sized("TIMESTAMP", digits, ""),
            Dialect::TSql | Dialect::Fabric => "DATETIME2",
            Dialect::ClickHouse => "DateTime64(6)",
            _ => "TIMESTAMP",
        };
        format!("CAST('{text}' AS {data_type})")
    }

    fn zoned_sql(self, dialect: Dialect) -> String {
        let text = self.moment.text(true);
        let data_type = match dialect {
            Dialect::Sqlite => return format!("'{text}'"),
            Dialect::MySql => return format!("TIMESTAMP('{text}')"),
            Dialect::TSql | Dialect::Fabric => {
                return format!("CAST('{text}' AS DATETIMEOFFSET) AT TIME ZONE 'UTC'");
            }
            Dialect::ClickHouse => {
                return format!("CAST('{}' AS DateTime64(6, 'UTC'))", self.moment.text(false));
            }
            Dialect::BigQuery | Dialect::Databricks | Dialect::Spark => "TIMESTAMP",
            Dialect::Redshift => "TIMESTAMP WITH TIME ZONE",
            Dialect::Trino => sized("TIMESTAMP", self.moment.fraction_digits(), " WITH TIME ZONE"),
            Dialect::Generic | Dialect::DuckDb | Dialect::Postgres | Dialect::Snowflake => "TIMESTAMPTZ",
        };
        format!("CAST('{text}' AS {data_type})")
    }
}

/// A type with the precision that its value needs.
fn sized(name: &'static str, digits: usize, zone: &'static str) -> &'static str {
    match (name, digits, zone) {
        ("DATETIME", 0, _) => "DATETIME",
        ("DATETIME", 3, _) => "DATETIME(3)",
        ("DATETIME", ..) => "DATETIME(6)",
        (_, 0, "") => "TIMESTAMP",
        (_, 3, "") => "TIMESTAMP(3)",
        (_, _, "") => "TIMESTAMP(6)",
        (_, 0, _) => "TIMESTAMP WITH TIME ZONE",
        (_, 3, _) => "TIMESTAMP(3) WITH TIME ZONE",
        _ => "TIMESTAMP(6) WITH TIME ZONE",
    }
}

impl Moment {
    /// Milliseconds, cut; only a nanosecond before a millisecond rounds up to it, as SQLMesh's
    /// float arithmetic does.
    fn millis(self) -> i64 {
        if self.nanos == 999_999 { self.at.0 + 1 } else { self.at.0 }
    }

    fn nanos_of_second(self) -> u32 {
        self.at.to_datetime().timestamp_subsec_millis() * 1_000_000 + self.nanos
    }

    /// How many digits of a fraction its type must keep: 0, 3 or 6.
    fn fraction_digits(self) -> usize {
        match self.nanos_of_second() {
            0 => 0,
            nanos if nanos % 1_000_000 == 0 => 3,
            _ => 6,
        }
    }

    fn date(self) -> String {
        let time = self.at.to_datetime();
        format!("{:04}-{:02}-{:02}", time.year(), time.month(), time.day())
    }

    fn text(self, zoned: bool) -> String {
        let time = self.at.to_datetime();
        let mut text = self.date();
        let nanos = self.nanos_of_second();
        // Writing to a String can't fail.
        let _ = write!(text, " {:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
        if !nanos.is_multiple_of(1000) {
            let _ = write!(text, ".{nanos:09}");
        } else if nanos != 0 {
            let _ = write!(text, ".{:06}", nanos / 1000);
        }
        if zoned {
            text.push_str("+00:00");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: TimeVars = TimeVars::Batch {
        start: Timestamp(1_672_531_200_000),
        end: Timestamp(1_672_617_600_000),
        execution: Timestamp(1_673_328_600_123),
    };

    fn bare(name: &str) -> String {
        value(BATCH, TimeVar::named(name).unwrap(), Dialect::DuckDb).unwrap().bare()
    }

    #[test]
    fn end_shows_one_microsecond_before_the_end() {
        assert_eq!(bare("end_ts"), "2023-01-01 23:59:59.999999");
        assert_eq!(bare("end_millis"), "1672617599999");
        assert_eq!(bare("end_epoch"), "1672617599.999");
        assert_eq!(bare("start_epoch"), "1672531200.0");
        assert_eq!(bare("latest_ts"), "2023-01-10 05:30:00.123000");
    }

    #[test]
    fn every_name_is_a_variable_and_nothing_else() {
        assert_eq!(names().count(), 36);
        assert!(names().all(|name| TimeVar::named(&name).is_some()));
        for name in ["start", "start_", "start_date_x", "begin_ds", "end_week"] {
            assert_eq!(TimeVar::named(name), None);
        }
    }
}

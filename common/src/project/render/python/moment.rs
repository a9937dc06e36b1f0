//! Python's dates and times, as templates see `start_date` and `start_dt`.

use std::fmt::{self, Write as _};

use chrono::format::{Item, StrftimeItems};
use chrono::{Datelike, NaiveDate, NaiveDateTime, TimeDelta, Timelike};
use minijinja::Error;
use minijinja::value::{Kwargs, Value, from_args};

use super::operators::MINUS;
use super::{Plain, unknown, wrong};

/// A date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Date(NaiveDate);

/// A date with a time of day, in UTC or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct DateTime {
    at: NaiveDateTime,
    zoned: bool,
}

/// The time between two others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span(TimeDelta);

impl Span {
    /// Whole days, rounded down, and the seconds and microseconds of the day that is left.
    fn parts(self) -> (i64, i64, i64) {
        let micros = self.0.num_microseconds().unwrap_or(i64::MAX);
        let day = 86_400_000_000;
        let left = micros.rem_euclid(day);
        (micros.div_euclid(day), left / 1_000_000, left % 1_000_000)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds, micros) = self.parts();
        if days != 0 {
            write!(f, "{days} day{}, ", if days.abs() == 1 { "" } else { "s" })?;
        }
        write!(f, "{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
        if micros > 0 { write!(f, ".{micros:06}") } else { Ok(()) }
    }
}

impl Plain for Span {
    fn field(&self, name: &str) -> Option<Value> {
        let (days, seconds, micros) = self.parts();
        Some(Value::from(match name {
            "days" => days,
            "seconds" => seconds,
            "microseconds" => micros,
            _ => return None,
        }))
    }

    fn method(&self, name: &str, args: &[Value]) -> Result<Value, Error> {
        from_args::<()>(args)?;
        let (days, seconds, micros) = self.parts();
        match name {
            "total_seconds" => Ok(Value::from((days * 86_400 + seconds) as f64 + micros as f64 / 1e6)),
            _ => Err(unknown()),
        }
    }
}

/// The other time of a difference, which must be of the same kind.
fn other<T: minijinja::value::Object + 'static>(args: &[Value]) -> Result<std::sync::Arc<T>, Error> {
    let (other,): (&Value,) = from_args(args)?;
    other.downcast_object().ok_or_else(|| wrong(format!("{other} is another kind of time")))
}

impl Date {
    pub(in super::super) fn of(date: NaiveDate) -> Self {
        Self(date)
    }
}

impl DateTime {
    pub(in super::super) fn of(at: NaiveDateTime, zoned: bool) -> Self {
        Self { at, zoned }
    }

    fn text(&self, separator: &str) -> String {
        let nanos = self.at.nanosecond();
        let fraction = match nanos {
            0 => String::new(),
            _ if nanos.is_multiple_of(1000) => format!(".{:06}", nanos / 1000),
            _ => format!(".{nanos:09}"),
        };
        let zone = if self.zoned { "+00:00" } else { "" };
        format!("{}{separator}{}{fraction}{zone}", Date(self.at.date()), self.at.format("%H:%M:%S"))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0.year(), self.0.month(), self.0.day())
    }
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(" "))
    }
}

impl Plain for Date {
    fn field(&self, name: &str) -> Option<Value> {
        date_field(self.0, name)
    }

    fn method(&self, name: &str, args: &[Value]) -> Result<Value, Error> {
        match name {
            "isoformat" => {
                from_args::<()>(args)?;
                Ok(Value::from(self.to_string()))
            }
            "strftime" => {
                let (format,): (&str,) = from_args(args)?;
                formatted(self.0.and_time(chrono::NaiveTime::MIN), format, false).map(Value::from)
            }
            "replace" => {
                let (named,): (Kwargs,) = from_args(args)?;
                let date = replaced(self.0, &named)?;
                named.assert_all_used()?;
                Ok(Value::from_object(Self(date)))
            }
            MINUS => Ok(Value::from_object(Span(self.0 - other::<Self>(args)?.0))),
            _ => date_method(self.0, name, args),
        }
    }
}

impl Plain for DateTime {
    fn field(&self, name: &str) -> Option<Value> {
        Some(match name {
            "hour" => Value::from(self.at.hour()),
            "minute" => Value::from(self.at.minute()),
            "second" => Value::from(self.at.second()),
            "microsecond" => Value::from(self.at.nanosecond() / 1000),
            "tzinfo" => Value::from(self.zoned.then_some("UTC")),
            _ => return date_field(self.at.date(), name),
        })
    }

    fn method(&self, name: &str, args: &[Value]) -> Result<Value, Error> {
        match name {
            "isoformat" => {
                let (separator,): (Option<&str>,) = from_args(args)?;
                Ok(Value::from(self.text(separator.unwrap_or("T"))))
            }
            "strftime" => {
                let (format,): (&str,) = from_args(args)?;
                formatted(self.at, format, self.zoned).map(Value::from)
            }
            "date" => {
                from_args::<()>(args)?;
                Ok(Value::from_object(Date(self.at.date())))
            }
            "time" => {
                from_args::<()>(args)?;
                let bare = Self { at: self.at, zoned: false }.text(" ");
                Ok(Value::from(bare.split(' ').next_back()))
            }
            "timestamp" => {
                from_args::<()>(args)?;
                Ok(Value::from(self.at.and_utc().timestamp_micros() as f64 / 1e6))
            }
            "replace" => {
                let (named,): (Kwargs,) = from_args(args)?;
                let date = replaced(self.at.date(), &named)?;
                let part =
                    |name: &str, old: u32| Ok::<_, Error>(named.get::<Option<u32>>(name)?.unwrap_or(old));
                let time = date.and_hms_nano_opt(
                    part("hour", self.at.hour())?,
                    part("minute", self.at.minute())?,
                    part("second", self.at.second())?,
                    part("microsecond", self.at.nanosecond() / 1000)?.saturating_mul(1000),
                );
                let zoned = self.zoned && !named.has("tzinfo");
                named.get::<Option<Value>>("tzinfo")?;
                named.assert_all_used()?;
                Ok(Value::from_object(Self {
                    at: time.ok_or_else(|| wrong("there is no such time"))?,
                    zoned,
                }))
            }
            MINUS => match other::<Self>(args)? {
                other if other.zoned == self.zoned => Ok(Value::from_object(Span(self.at - other.at))),
                _ => Err(wrong("one time has a zone and the other has none")),
            },
            _ => date_method(self.at.date(), name, args),
        }
    }
}

fn date_field(date: NaiveDate, name: &str) -> Option<Value> {
    match name {
        "year" => Some(Value::from(date.year())),
        "month" => Some(Value::from(date.month())),
        "day" => Some(Value::from(date.day())),
        _ => None,
    }
}

fn date_method(date: NaiveDate, name: &str, args: &[Value]) -> Result<Value, Error> {
    let value = match name {
        "weekday" => Value::from(date.weekday().num_days_from_monday()),
        "isoweekday" => Value::from(date.weekday().number_from_monday()),
        "toordinal" => Value::from(date.num_days_from_ce()),
        "isocalendar" => {
            let week = date.iso_week();
            let parts = [
                i64::from(week.year()),
                i64::from(week.week()),
                i64::from(date.weekday().number_from_monday()),
            ];
            parts.into_iter().map(Value::from).collect()
        }
        _ => return Err(unknown()),
    };
    from_args::<()>(args)?;
    Ok(value)
}

fn replaced(date: NaiveDate, named: &Kwargs) -> Result<NaiveDate, Error> {
    let year = named.get::<Option<i32>>("year")?.unwrap_or(date.year());
    let month = named.get::<Option<u32>>("month")?.unwrap_or(date.month());
    let day = named.get::<Option<u32>>("day")?.unwrap_or(date.day());
    NaiveDate::from_ymd_opt(year, month, day).ok_or_else(|| wrong("there is no such day"))
}

/// A time as Python's `strftime` writes it: microseconds, and no zone where there is none.
fn formatted(at: NaiveDateTime, format: &str, zoned: bool) -> Result<String, Error> {
    let mut ours = String::with_capacity(format.len());
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        ours.push(c);
        if c != '%' {
            continue;
        }
        match chars.next() {
            Some('f') => ours.push_str("6f"),
            Some('z' | 'Z') if !zoned => {
                ours.pop();
            }
            Some(other) => ours.push(other),
            None => ours.push('%'),
        }
    }
    let items: Vec<Item<'_>> = StrftimeItems::new(&ours).collect();
    let mut text = String::new();
    // Some specifiers, such as `%#z`, can only be read: writing them fails.
    if items.contains(&Item::Error)
        || write!(text, "{}", at.and_utc().format_with_items(items.iter())).is_err()
    {
        return Err(wrong(format!("the format '{format}' can't be read")));
    }
    Ok(text)
}

//! Times as people write them: dates, times, epoch milliseconds and words such as `1 week ago`.

use std::fmt::Write as _;

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};

use super::{IntervalUnit, Timestamp};

const SECOND: f64 = 1000.0;
const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// A time as somebody wrote it: as the end of a range, a date includes its day, a time excludes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimePoint {
    /// The time; of a date its midnight.
    pub at: Timestamp,
    /// Whether a calendar date was written (`2024-01-31`, `20240131`). Words such as `yesterday`
    /// mean a time: midnight.
    pub is_date: bool,
}

impl TimePoint {
    /// A point in time.
    pub const fn time(at: Timestamp) -> Self {
        Self { at, is_date: false }
    }

    /// The day that starts at a midnight.
    pub const fn date(midnight: Timestamp) -> Self {
        Self { at: midnight, is_date: true }
    }

    /// The first time after a range that ends here: of a date the following midnight.
    pub fn exclusive(self) -> Timestamp {
        if self.is_date { Timestamp(self.at.0.saturating_add(DAY_MILLIS)) } else { self.at }
    }
}

/// Why a text is no time or time format, with what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' {why}")]
pub struct TimeError {
    /// The text as written.
    pub text: String,
    /// What is wrong.
    pub why: &'static str,
    /// What to do about it.
    pub hint: &'static str,
}

const EXAMPLES: &str = "write a date (2024-01-31), a time (2024-01-31 06:00:00, UTC unless it has an \
                        offset), epoch milliseconds, or words such as yesterday or 2 days ago";

/// Reads a time relative to `now`. Date units without hours, minutes or seconds count from midnight:
/// `1 week ago` is a midnight, `3 hours ago` and `last week` are not. Times have no offset or end in
/// `Z`, `UTC` or `±hh:mm`, and lie in the years 1 to 9999.
///
/// # Errors
/// If the text has no such form.
pub fn parse_time(text: &str, now: Timestamp) -> Result<TimePoint, TimeError> {
    let error = |why, hint| TimeError { text: text.to_owned(), why, hint };
    let lower = text.trim().to_ascii_lowercase();
    let point = if lower.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-')
        && let Ok(millis) = lower.parse::<f64>()
    {
        match compact_date(&lower) {
            Some(midnight) => TimePoint::date(midnight),
            None if lower.len() == 8 && lower.bytes().all(|b| b.is_ascii_digit()) => {
                return Err(error("is no day of the calendar", "write a date as 2024-01-31 or 20240131"));
            }
            None => TimePoint::time(Timestamp(millis.floor() as i64)),
        }
    } else if let Some(point) = absolute(&lower) {
        point
    } else if let Some(at) = word(&lower, now).or_else(|| relative(&lower, now)) {
        TimePoint::time(at)
    } else {
        return Err(error("is no time that can be read", EXAMPLES));
    };
    if point.at < Timestamp::MIN || point.at > Timestamp::MAX {
        return Err(error("is too far away", "stay within the years 1 to 9999"));
    }
    Ok(point)
}

/// The start of a range as written.
///
/// # Errors
/// As [`parse_time`].
pub fn range_start(text: &str, now: Timestamp) -> Result<Timestamp, TimeError> {
    parse_time(text, now).map(|point| point.at)
}

/// The exclusive end of a range as written: after the day, where it is a date.
///
/// # Errors
/// As [`parse_time`].
pub fn range_end(text: &str, now: Timestamp) -> Result<Timestamp, TimeError> {
    parse_time(text, now).map(TimePoint::exclusive)
}

/// The last microsecond before an exclusive end: what a query's `BETWEEN` gets as its upper bound.
pub fn inclusive_end(end: Timestamp) -> DateTime<Utc> {
    end.to_datetime() - TimeDelta::microseconds(1)
}

/// A time in a model's time format: `strftime` with Python's meaning of `%f`, six digits.
///
/// # Errors
/// If the format has an unknown specifier.
pub fn format_time(format: &str, at: DateTime<Utc>) -> Result<String, TimeError> {
    let mut six_digits = String::with_capacity(format.len() + 1);
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        six_digits.push(c);
        if c == '%' {
            match chars.next() {
                Some('f') => six_digits.push_str("6f"),
                Some(other) => six_digits.push(other),
                None => {}
            }
        }
    }
    let items: Vec<Item<'_>> = StrftimeItems::new(&six_digits).collect();
    let mut text = String::new();
    // Some specifiers, such as `%#z`, can only be read: writing them fails.
    if items.contains(&Item::Error) || write!(text, "{}", at.format_with_items(items.iter())).is_err() {
        let hint = "use strftime specifiers such as %Y-%m-%d";
        return Err(TimeError { text: format.to_owned(), why: "is no time format", hint });
    }
    Ok(text)
}

/// `YYYYMMDD`; month and day may lack their leading zero, as in `202415`.
fn compact_date(text: &str) -> Option<Timestamp> {
    let digits = text.len() >= 6 && text.len() <= 8 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return None;
    }
    let year = text[..4].parse().ok()?;
    let split = |at: usize| {
        let (month, day) = text[4..].split_at(at);
        let short = (1..=2).contains(&month.len()) && (1..=2).contains(&day.len());
        let month = month.parse().ok().filter(|m| short && (1..=12).contains(m))?;
        NaiveDate::from_ymd_opt(year, month, day.parse().ok()?)
    };
    split(2).or_else(|| split(1)).map(midnight)
}

fn midnight(date: NaiveDate) -> Timestamp {
    Timestamp::from_datetime(date.and_time(NaiveTime::MIN).and_utc())
}

/// Dates and times of the calendar, in lower case.
fn absolute(text: &str) -> Option<TimePoint> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(TimePoint::date(midnight(date)));
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y/%m/%d") {
        return Some(TimePoint::time(midnight(date)));
    }
    let stripped = ["utc", "z"].iter().find_map(|zone| text.strip_suffix(zone));
    let utc = stripped.is_some();
    let text = &stripped.unwrap_or(text).trim_end().replacen('t', " ", 1);
    let formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M:%S%.f", "%Y/%m/%d %H:%M"];
    let naive = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    let at = naive.map(|time| time.and_utc()).or_else(|| {
        let zoned = |format: &&str| DateTime::parse_from_str(text, &format!("{format} %z")).ok();
        formats.iter().find_map(zoned).filter(|_| !utc).map(|time| time.to_utc())
    })?;
    Some(TimePoint::time(Timestamp::from_datetime(at)))
}

/// Words that name a time by themselves.
fn word(text: &str, now: Timestamp) -> Option<Timestamp> {
    let today = IntervalUnit::Day.floor(now);
    let months = |n: i64| shift(now, n, 0);
    let days = |n: i64| Timestamp(now.0.saturating_add(n * DAY_MILLIS));
    match text {
        "now" | "now()" => Some(now),
        "today" => Some(today),
        "yesterday" => Some(Timestamp(today.0.saturating_sub(DAY_MILLIS))),
        "tomorrow" => Some(Timestamp(today.0.saturating_add(DAY_MILLIS))),
        "last week" => Some(days(-7)),
        "next week" => Some(days(7)),
        "last month" => months(-1),
        "next month" => months(1),
        "last year" => months(-12),
        "next year" => months(12),
        _ => None,
    }
}

/// `2 days ago`, `in 3 hours`, `1 week and 2 days ago`; without a direction it is the past.
fn relative(text: &str, now: Timestamp) -> Option<Timestamp> {
    let spaced = text.replace(',', " ");
    let mut words: Vec<&str> = spaced.split_whitespace().filter(|word| *word != "and").collect();
    let future = words.first() == Some(&"in");
    if future {
        words.remove(0);
    } else if words.last() == Some(&"ago") {
        words.pop();
    }
    let tokens: Vec<&str> = words.into_iter().flat_map(split_count).collect();
    if tokens.is_empty() || !tokens.len().is_multiple_of(2) {
        return None;
    }
    let (mut months, mut millis) = (0i64, 0.0f64);
    let (mut has_date_unit, mut has_time_unit) = (false, false);
    for pair in tokens.chunks_exact(2) {
        let counted = !matches!(pair[0], "a" | "an");
        let count: f64 = if counted { pair[0].parse().ok().filter(|n: &f64| n.is_finite())? } else { 1.0 };
        let unit = if pair[1].len() > 1 { pair[1].strip_suffix('s').unwrap_or(pair[1]) } else { pair[1] };
        match unit {
            "decade" | "year" | "month" => {
                let length = [("decade", 120), ("year", 12)].iter().find(|(name, _)| *name == unit);
                let whole = count.fract() == 0.0 && count.abs() < 1e6;
                months += whole.then_some(count as i64)? * length.map_or(1, |(_, months)| *months);
            }
            _ => millis += count * unit_millis(unit)?,
        }
        has_date_unit |= counted && matches!(unit, "decade" | "year" | "month" | "week" | "day");
        has_time_unit |= counted && matches!(unit, "hour" | "minute" | "second");
    }
    let base = if has_date_unit && !has_time_unit { IntervalUnit::Day.floor(now) } else { now };
    let sign = if future { 1 } else { -1 };
    // Beyond this it is too far away anyhow, whichever way.
    let millis = Some(millis.round()).filter(|millis| millis.abs() < 1e17)? as i64;
    shift(base, sign * months, sign * millis)
}

/// Splits `3h` into its number and its unit.
fn split_count(word: &str) -> impl Iterator<Item = &str> {
    let at = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let (count, unit) = word.split_at(at);
    [count, unit].into_iter().filter(|part| !part.is_empty())
}

fn unit_millis(unit: &str) -> Option<f64> {
    match unit {
        "week" => Some(7.0 * 24.0 * 3600.0 * SECOND),
        "day" | "d" => Some(24.0 * 3600.0 * SECOND),
        "hour" | "hr" | "h" => Some(3600.0 * SECOND),
        "minute" | "min" => Some(60.0 * SECOND),
        "second" | "sec" => Some(SECOND),
        _ => None,
    }
}

/// Moves by calendar months (to the month's last day where it is shorter), then by milliseconds.
fn shift(at: Timestamp, months: i64, millis: i64) -> Option<Timestamp> {
    let time = at.to_datetime();
    let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    let moved = if months < 0 { time.checked_sub_months(count) } else { time.checked_add_months(count) }?;
    let (days, rest) = (millis.unsigned_abs() / DAY_MILLIS as u64, millis % DAY_MILLIS);
    let moved = if millis < 0 {
        moved.checked_sub_days(Days::new(days))
    } else {
        moved.checked_add_days(Days::new(days))
    }?;
    moved.checked_add_signed(TimeDelta::milliseconds(rest)).map(Timestamp::from_datetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        parse_time("2023-01-10 05:30:45", Timestamp(0)).unwrap().at
    }

    fn read(text: &str) -> String {
        parse_time(text, now()).map_or_else(|e| e.why.to_owned(), |point| point.at.to_string())
    }

    #[test]
    fn texts_mean_what_sqlmesh_reads() {
        for (text, time) in [
            ("now", "2023-01-10T05:30:45Z"),
            ("today", "2023-01-10T00:00:00Z"),
            ("Yesterday", "2023-01-09T00:00:00Z"),
            ("tomorrow", "2023-01-11T00:00:00Z"),
            ("1 day ago", "2023-01-09T00:00:00Z"),
            ("1 Week Ago", "2023-01-03T00:00:00Z"),
            ("1 week", "2023-01-03T00:00:00Z"),
            ("in 2 days", "2023-01-12T00:00:00Z"),
            ("in 1 hour", "2023-01-10T06:30:45Z"),
            ("3 hours ago", "2023-01-10T02:30:45Z"),
            ("1.5 hours ago", "2023-01-10T04:00:45Z"),
            ("3h ago", "2023-01-10T02:30:45Z"),
            ("5 min ago", "2023-01-10T05:25:45Z"),
            ("2 days, 3 hours ago", "2023-01-08T02:30:45Z"),
            ("1 day and 2 hours ago", "2023-01-09T03:30:45Z"),
            ("2 weeks 1 day ago", "2022-12-26T00:00:00Z"),
            ("12 months ago", "2022-01-10T00:00:00Z"),
            ("1 decade ago", "2013-01-10T00:00:00Z"),
            ("last week", "2023-01-03T05:30:45Z"),
            ("last month", "2022-12-10T05:30:45Z"),
            ("next year", "2024-01-10T05:30:45Z"),
            ("a week ago", "2023-01-03T05:30:45Z"),
            ("an hour ago", "2023-01-10T04:30:45Z"),
            ("2023-1-5", "2023-01-05T00:00:00Z"),
            ("2023/01/05", "2023-01-05T00:00:00Z"),
            (" 20230105 ", "2023-01-05T00:00:00Z"),
            ("1672876800000", "2023-01-05T00:00:00Z"),
            ("-5", "1969-12-31T23:59:59.995Z"),
            ("2023-01-05 10:00", "2023-01-05T10:00:00Z"),
            ("2023-01-05T10:00:00.5Z", "2023-01-05T10:00:00.500Z"),
            ("2023-01-05 10:00:00.123456 UTC", "2023-01-05T10:00:00.123Z"),
            ("2023-01-05T10:00:00+02:00", "2023-01-05T08:00:00Z"),
            ("2023-01-05 10:00:00 -0500", "2023-01-05T15:00:00Z"),
            ("2023-01-05 10:00:00.123+05:30", "2023-01-05T04:30:00.123Z"),
        ] {
            assert_eq!(read(text), time, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_a_remedy() {
        for text in [
            "",
            "soon",
            "2023-02-30",
            "1 fortnight ago",
            "2 days hence",
            "week ago",
            "1 2 days",
            "5",
            "20230230",
            "in",
            "ago",
            "1.5 months ago",
            "2023-01-05 24:00:00",
            "99999999999999999",
            "9999 years",
            "-9223372036854775808 days",
            "-92233720368547758080 years ago",
            "999999 decades, 1e300 weeks",
        ] {
            if text == "5" {
                assert_eq!(read(text), "1970-01-01T00:00:00.005Z");
                continue;
            }
            let error = parse_time(text, now()).unwrap_err();
            assert!(!error.hint.is_empty() && !error.why.is_empty(), "{text}");
        }
    }

    #[test]
    fn a_date_as_end_includes_its_day() {
        assert_eq!(range_end("2023-01-05", now()).unwrap().to_string(), "2023-01-06T00:00:00Z");
        assert_eq!(range_end("20230105", now()).unwrap().to_string(), "2023-01-06T00:00:00Z");
        assert_eq!(range_end("2023-01-05 00:00:00", now()).unwrap().to_string(), "2023-01-05T00:00:00Z");
        assert_eq!(range_end("yesterday", now()).unwrap().to_string(), "2023-01-09T00:00:00Z");
        assert_eq!(range_start("2023-01-05", now()).unwrap().to_string(), "2023-01-05T00:00:00Z");
    }

    #[test]
    fn time_formats_are_pythons() {
        let end = inclusive_end(now());
        assert_eq!(format_time("%Y-%m-%d %H:%M:%S.%f", end).unwrap(), "2023-01-10 05:30:44.999999");
        assert_eq!(format_time("%Y%m%d%%f", end).unwrap(), "20230110%f");
        assert!(format_time("%Q", end).is_err());
        assert!(format_time("%#z", end).is_err(), "it can only be read");
        assert!(format_time("%", end).is_err());
    }
}

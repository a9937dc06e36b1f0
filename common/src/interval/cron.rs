//! The days and times of day that a five-field cron names, in wall-clock time.
//!
//! The `cron` crate reads lists, ranges and steps. Its day-of-week numbers (1 is Sunday) and its
//! rule that both day fields must match differ from Unix, so days of week are rewritten before it
//! reads them, and matching is done here on bit masks: the next tick costs a few instructions per
//! month, whatever the cron.

use std::str::FromStr;

use chrono::{Datelike, NaiveDate};
use cron::{Schedule, TimeUnitSpec};

/// Why a cron or its time zone can't be used, with what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid cron '{cron}': {why}")]
pub struct CronError {
    /// The cron as written.
    pub cron: String,
    /// What is wrong.
    pub why: String,
    /// What to do about it.
    pub hint: &'static str,
}

const FORM: &str = "write five fields (minute hour day month weekday), such as `0 6 * * 1-5`, or \
                    @hourly, @daily, @weekly, @monthly or @yearly";
const MINUTES_PER_DAY: i64 = 24 * 60;
/// 1970-01-01 as days since the first of January of year 1, as chrono counts.
const EPOCH_DAY: i64 = 719_163;
/// A 29 February comes at least once in so many months.
const LONGEST_GAP_MONTHS: u32 = 12 * 9;

/// The fields of a cron as bit masks. Wall-clock times are minutes since 1970-01-01 00:00.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    minutes: u64,
    hours: u32,
    /// Bit 1 is the first of the month.
    days: u32,
    /// Bit 1 is January.
    months: u32,
    /// Bit 0 is Sunday.
    weekdays: u8,
    any_day: bool,
    any_weekday: bool,
    /// Whether the hour field is `*`: such a cron follows elapsed time, so hours that a clock change
    /// skips are no ticks.
    pub(super) any_hour: bool,
}

impl Fields {
    /// Reads five fields or a nickname such as `@daily`.
    pub(super) fn parse(cron: &str) -> Result<Self, CronError> {
        let error = |why: String, hint| CronError { cron: cron.to_owned(), why, hint };
        let lower = cron.trim().to_ascii_lowercase();
        let text = match lower.as_str() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts[..] else {
            return Err(error(format!("it has {} fields instead of 5", parts.len()), FORM));
        };
        let weekday_numbers = weekday_list(weekday).map_err(|why| error(why, FORM))?;
        let schedule = Schedule::from_str(&format!("0 {minute} {hour} {day} {month} {weekday_numbers}"))
            .map_err(|e| error(reason(&e.to_string()), FORM))?;
        let fields = Self {
            minutes: bits(schedule.minutes()),
            hours: bits(schedule.hours()) as u32,
            days: bits(schedule.days_of_month()) as u32,
            months: bits(schedule.months()) as u32,
            weekdays: (bits(schedule.days_of_week()) >> 1) as u8,
            any_day: is_open(day, schedule.days_of_month().is_all(), weekday),
            any_weekday: is_open(weekday, schedule.days_of_week().is_all(), day),
            any_hour: schedule.hours().is_all(),
        };
        if fields.next(0).is_none() {
            return Err(error("no such day exists".to_owned(), "name a day that its month has"));
        }
        Ok(fields)
    }

    /// The first match at or after a wall-clock minute.
    pub(super) fn next(&self, minute: i64) -> Option<i64> {
        let (day, time) = (minute.div_euclid(MINUTES_PER_DAY), minute.rem_euclid(MINUTES_PER_DAY));
        let first = self.next_day(day)?;
        if first == day {
            if let Some(time) = self.next_time(time as u32) {
                return Some(day * MINUTES_PER_DAY + i64::from(time));
            }
            return Some(self.next_day(day + 1)? * MINUTES_PER_DAY + i64::from(self.next_time(0)?));
        }
        Some(first * MINUTES_PER_DAY + i64::from(self.next_time(0)?))
    }

    /// The last match at or before a wall-clock minute.
    pub(super) fn prev(&self, minute: i64) -> Option<i64> {
        let (day, time) = (minute.div_euclid(MINUTES_PER_DAY), minute.rem_euclid(MINUTES_PER_DAY));
        let latest = MINUTES_PER_DAY as u32 - 1;
        let last = self.prev_day(day)?;
        if last == day {
            if let Some(time) = self.prev_time(time as u32) {
                return Some(day * MINUTES_PER_DAY + i64::from(time));
            }
            return Some(self.prev_day(day - 1)? * MINUTES_PER_DAY + i64::from(self.prev_time(latest)?));
        }
        Some(last * MINUTES_PER_DAY + i64::from(self.prev_time(latest)?))
    }

    /// The constant distance between ticks and the first tick of the epoch's cycle, in minutes,
    /// where there is one: such crons need no calendar in a zone without clock changes.
    pub(super) fn regular(&self) -> Option<(i64, i64)> {
        let every_month = self.months == 0b1_1111_1111_1110;
        let first = i64::from(self.next_time(0)?);
        if !(every_month && self.any_day) {
            return None;
        }
        if self.any_weekday {
            let gap = self.time_gaps().min()?;
            return (self.time_gaps().max()? == gap).then_some((gap, first));
        }
        let weekly = self.weekdays.count_ones() == 1 && self.times_per_day() == 1;
        // 1970-01-01 was a Thursday.
        let day = (i64::from(self.weekdays.trailing_zeros()) - 4).rem_euclid(7);
        weekly.then_some((7 * MINUTES_PER_DAY, day * MINUTES_PER_DAY + first))
    }

    /// The shortest distance between two ticks, in minutes.
    pub(super) fn shortest_gap(&self) -> i64 {
        let days = self.shortest_day_gap();
        let overnight = self.time_gaps().last().unwrap_or(MINUTES_PER_DAY) + (days - 1) * MINUTES_PER_DAY;
        let within = self.time_gaps().take(self.times_per_day() as usize - 1).min();
        within.map_or(overnight, |gap| gap.min(overnight))
    }

    fn times_per_day(&self) -> u32 {
        self.minutes.count_ones() * self.hours.count_ones()
    }

    /// The minutes from each time of day to the following one; the last wraps to the next day.
    fn time_gaps(&self) -> impl Iterator<Item = i64> + '_ {
        let first = self.next_time(0).unwrap_or(0);
        std::iter::successors(Some(first), |time| self.next_time(time + 1)).map(move |time| {
            let following = self.next_time(time + 1).map_or(i64::from(first) + MINUTES_PER_DAY, i64::from);
            following - i64::from(time)
        })
    }

    /// The fewest days between two days that match, over the 28 years in which weekdays repeat.
    fn shortest_day_gap(&self) -> i64 {
        let (mut day, mut shortest) = (self.next_day(0).unwrap_or(0), i64::MAX);
        let end = day + 28 * 366;
        while shortest > 1 && day < end {
            let Some(following) = self.next_day(day + 1) else { break };
            shortest = shortest.min(following - day);
            day = following;
        }
        shortest.min(28 * 366)
    }

    fn next_day(&self, day: i64) -> Option<i64> {
        let date = date_of(day)?;
        let mut mask = self.day_mask(date.year(), date.month()) & (u32::MAX << date.day());
        let (mut year, mut month) = (date.year(), date.month());
        for _ in 0..LONGEST_GAP_MONTHS {
            if mask != 0 {
                return day_of(year, month, mask.trailing_zeros());
            }
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            mask = self.day_mask(year, month);
        }
        None
    }

    fn prev_day(&self, day: i64) -> Option<i64> {
        let date = date_of(day)?;
        let mut mask = self.day_mask(date.year(), date.month()) & (u32::MAX >> (31 - date.day()));
        let (mut year, mut month) = (date.year(), date.month());
        for _ in 0..LONGEST_GAP_MONTHS {
            if mask != 0 {
                return day_of(year, month, 31 - mask.leading_zeros());
            }
            (year, month) = if month == 1 { (year - 1, 12) } else { (year, month - 1) };
            mask = self.day_mask(year, month);
        }
        None
    }

    /// The days of a month that match, bit 1 being the first. Where both day fields are restricted,
    /// either suffices, as in Unix.
    fn day_mask(&self, year: i32, month: u32) -> u32 {
        if self.months & (1 << month) == 0 {
            return 0;
        }
        let Some(first) = NaiveDate::from_ymd_opt(year, month, 1) else { return 0 };
        let length = u32::from(first.num_days_in_month());
        let existing = (u32::MAX >> (31 - length)) & !1;
        if self.any_day && self.any_weekday {
            return existing;
        }
        let week = u64::from(self.weekdays);
        let weeks = (0..6).fold(0u64, |mask, n| mask | week << (7 * n));
        let by_weekday = ((weeks >> first.weekday().num_days_from_sunday()) << 1) as u32;
        let matching = match (self.any_day, self.any_weekday) {
            (true, _) => by_weekday,
            (false, true) => self.days,
            (false, false) => self.days | by_weekday,
        };
        matching & existing
    }

    fn next_time(&self, time: u32) -> Option<u32> {
        let (hour, minute) = (time / 60, time % 60);
        if hour > 23 {
            return None;
        }
        let later = self.minutes & (u64::MAX << minute);
        if self.hours & (1 << hour) != 0 && later != 0 {
            return Some(hour * 60 + later.trailing_zeros());
        }
        let hours = self.hours & (u32::MAX << (hour + 1));
        (hours != 0).then(|| hours.trailing_zeros() * 60 + self.minutes.trailing_zeros())
    }

    fn prev_time(&self, time: u32) -> Option<u32> {
        let (hour, minute) = (time / 60, time % 60);
        let earlier = self.minutes & (u64::MAX >> (63 - minute));
        if self.hours & (1 << hour) != 0 && earlier != 0 {
            return Some(hour * 60 + 63 - earlier.leading_zeros());
        }
        let hours = self.hours & ((1 << hour) - 1);
        (hours != 0).then(|| (31 - hours.leading_zeros()) * 60 + 63 - self.minutes.leading_zeros())
    }
}

/// The values of a field as a mask.
fn bits(field: &impl TimeUnitSpec) -> u64 {
    field.iter().fold(0, |mask, value| mask | 1 << value)
}

/// Whether a day field leaves all days open: a star, or every value beside another field's star.
fn is_open(field: &str, all: bool, other: &str) -> bool {
    field.split(',').any(|part| part == "*" || part == "?") || (all && other.contains('*'))
}

/// Rewrites weekdays (names, 0 to 7, wrapping ranges, steps) as a list of the crate's numbers.
fn weekday_list(field: &str) -> Result<String, String> {
    let mut numbers = Vec::new();
    for part in field.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, ""));
        let stride = match step {
            "" if !part.contains('/') => 1,
            step => step.parse().ok().filter(|n| *n > 0).ok_or(format!("'{part}' has no valid step"))?,
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (0, 6),
            Some((from, to)) => (weekday_number(from)? % 7, weekday_number(to)?),
            None if step.is_empty() => (weekday_number(range)? % 7, weekday_number(range)? % 7),
            None => (weekday_number(range)? % 7, 6),
        };
        let to = if to < from { to + 7 } else { to };
        numbers.extend((from..=to).step_by(stride).map(|day| (day % 7 + 1).to_string()));
    }
    Ok(numbers.join(","))
}

fn weekday_number(text: &str) -> Result<u32, String> {
    const NAMES: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let named = NAMES.iter().position(|name| *name == text).map(|n| n as u32);
    let number = named.or_else(|| text.parse().ok().filter(|n| *n <= 7));
    number.ok_or_else(|| format!("'{text}' is no weekday: use 0 (or 7, Sunday) to 6, or sun to sat"))
}

/// The crate's message on one line: its first line is all that doesn't draw a caret.
fn reason(message: &str) -> String {
    let last = message.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it can't be read");
    let (head, tail) = last.split_at(last.chars().next().map_or(0, char::len_utf8));
    format!("{}{}", head.to_lowercase(), tail.trim_end_matches('.'))
}

fn date_of(day: i64) -> Option<NaiveDate> {
    NaiveDate::from_num_days_from_ce_opt(i32::try_from(day + EPOCH_DAY).ok()?)
}

fn day_of(year: i32, month: u32, day: u32) -> Option<i64> {
    Some(i64::from(NaiveDate::from_ymd_opt(year, month, day)?.num_days_from_ce()) - EPOCH_DAY)
}

//! The days and times of day that a cron names, in wall-clock time.
//!
//! Texts are read as croniter reads them, which SQLMesh uses, by three that share the labour:
//! - `cron_field` rewrites each field for the crate `cron` where croniter reads it differently, keeps aside
//!   what the crate doesn't know (`L`, `W`, `#`), and says what is wrong with a field;
//! - the crate expands the lists, ranges and steps of all fields, in one `Schedule` per cron;
//! - this module finds days and times. The crate's own iterator asks that both day fields match, unlike Unix;
//!   here matching is done on bit masks: the next tick costs a few instructions per month, whatever the cron.

use std::collections::BTreeSet;
use std::str::FromStr;

use chrono::{Datelike, NaiveDate};
use cron::{Schedule, TimeUnitSpec};

use super::cron_field::{self, DAY, HOUR, MINUTE, MONTH, SECOND, WEEKDAY, YEAR};

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
/// A day that doesn't come within so many months is none: a fifth Monday of February may take 40 years.
const LONGEST_GAP_MONTHS: u32 = 12 * 50;

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
    /// `L`: the last day of the month, too.
    last_day: bool,
    /// `15W`: the weekday nearest to the day, instead of days.
    nearest: Option<u32>,
    /// `1#2` and `L5`: weekdays that count once a month (0 is the last one), instead of weekdays.
    nth: BTreeSet<(u32, u32)>,
    /// The years, none meaning all.
    years: BTreeSet<i32>,
    /// The second of the minute at which it ticks.
    pub(super) second: i64,
    /// Whether the hour field is `*`: such a cron follows elapsed time, so hours that a clock change
    /// skips are no ticks.
    pub(super) any_hour: bool,
}

impl Fields {
    /// Reads five fields (six with a second, seven with a year) or a nickname such as `@daily`.
    pub(super) fn parse(cron: &str) -> Result<Self, CronError> {
        let error = |why: String, hint| CronError { cron: cron.to_owned(), why, hint };
        let text = cron.trim().to_ascii_lowercase();
        let [minute, hour, day, month, weekday, second, year] = seven_fields(&text)
            .map_err(|count| error(format!("it has {count} fields instead of 5"), FORM))?;
        let read = |text, kind| cron_field::parse(text, kind).map_err(|why| error(why, FORM));
        let (days, weekdays, years) = (read(day, &DAY)?, read(weekday, &WEEKDAY)?, read(year, &YEAR)?);
        let plain = [
            &read(second, &SECOND)?.list,
            &read(minute, &MINUTE)?.list,
            &read(hour, &HOUR)?.list,
            &days.list,
            &read(month, &MONTH)?.list,
            &weekdays.list,
            &years.list,
        ]
        .map(String::as_str)
        .join(" ");
        let schedule = Schedule::from_str(&plain)
            .map_err(|_| error(format!("it can't be read, not even as '{plain}'"), FORM))?;
        if schedule.seconds().count() != 1 {
            let why = "it ticks more than once a minute".to_owned();
            return Err(error(why, "name one second, for example 0"));
        }
        // The crate counts weekdays from 1.
        let every_week = (bits(schedule.days_of_week()) >> 1) as u8;
        let all_weekdays = schedule.days_of_week().is_all();
        let once_a_month = weekdays.nth.iter().fold(0, |mask, (day, _)| mask | 1 << day);
        if once_a_month != 0 && !all_weekdays && every_week & !once_a_month != 0 {
            let why = format!("'{weekday}' mixes weekdays of every week with those of a month");
            return Err(error(why, "write `#` or `L` with each of them, or with none"));
        }
        let any_year = years.star || schedule.years().count() == 130;
        let fields = Self {
            minutes: bits(schedule.minutes()),
            hours: bits(schedule.hours()) as u32,
            days: bits(schedule.days_of_month()) as u32,
            months: bits(schedule.months()) as u32,
            weekdays: every_week,
            any_day: days.star || (schedule.days_of_month().is_all() && weekday.contains('*')),
            any_weekday: weekdays.star || (all_weekdays && day.contains('*')),
            last_day: days.last,
            nearest: days.nearest,
            nth: weekdays.nth,
            years: schedule.years().iter().filter(|_| !any_year).map(|year| year as i32).collect(),
            second: schedule.seconds().iter().next().map_or(0, i64::from),
            any_hour: schedule.hours().is_all(),
        };
        let first = fields.years.first().and_then(|year| day_of(*year, 1, 1)).unwrap_or(0);
        if fields.next(first * MINUTES_PER_DAY).is_none() || !fields.days_meet(first) {
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
        let every_month = self.months == 0b1_1111_1111_1110 && self.years.is_empty();
        let first = i64::from(self.next_time(0)?);
        if !(every_month && self.any_day && self.nth.is_empty()) {
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

    /// Whether days that a month has once ever are the other field's days, too; croniter asks for it though
    /// one of them suffices.
    fn days_meet(&self, day: i64) -> bool {
        if self.any_day || self.any_weekday || (self.nth.is_empty() && self.nearest.is_none()) {
            return true;
        }
        let Some(year) = date_of(day).map(|date| date.year()) else { return false };
        (0..LONGEST_GAP_MONTHS as i32).any(|at| {
            let masks = self.masks(year + at / 12, at as u32 % 12 + 1);
            masks.is_some_and(|(by_day, by_weekday, existing)| by_day & by_weekday & existing != 0)
        })
    }

    /// The days of a month that match, bit 1 being the first. Where both day fields are restricted,
    /// either suffices, as in Unix, but for days that a month has once: those decide alone.
    fn day_mask(&self, year: i32, month: u32) -> u32 {
        let Some((by_day, by_weekday, existing)) = self.masks(year, month) else { return 0 };
        let matching = if self.any_day || self.any_weekday {
            by_day & by_weekday
        } else {
            match (self.nearest, self.nth.is_empty()) {
                (None, true) => by_day | by_weekday,
                (None, false) => by_weekday,
                (Some(_), true) => by_day,
                (Some(_), false) => by_day & by_weekday,
            }
        };
        matching & existing
    }

    /// The days of a month that its day field names, those that its weekday field names, and all.
    fn masks(&self, year: i32, month: u32) -> Option<(u32, u32, u32)> {
        if self.months & (1 << month) == 0 || !(self.years.is_empty() || self.years.contains(&year)) {
            return None;
        }
        let first = NaiveDate::from_ymd_opt(year, month, 1)?;
        let length = u32::from(first.num_days_in_month());
        let existing = (u32::MAX >> (31 - length)) & !1;
        let by_day = match self.nearest {
            Some(day) => 1 << nearest_weekday(first, day.min(length), length),
            None if self.any_day => existing,
            None => self.days | u32::from(self.last_day) << length,
        };
        let by_weekday = match (self.nth.is_empty(), self.any_weekday) {
            (false, _) => {
                self.nth.iter().fold(0, |mask, (day, nth)| mask | nth_weekday(first, *day, *nth, length))
            }
            (true, true) => existing,
            (true, false) => every_week(first, self.weekdays),
        };
        Some((by_day, by_weekday, existing))
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

/// The fields of a cron or a nickname, without a second at second 0 of all years; how many there are where
/// that is none.
fn seven_fields(text: &str) -> Result<[&str; 7], usize> {
    let text = match text {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        other => other,
    };
    let parts: Vec<&str> = text.split_ascii_whitespace().collect();
    match parts[..] {
        [minute, hour, day, month, weekday] => Ok([minute, hour, day, month, weekday, "0", "*"]),
        [minute, hour, day, month, weekday, second] => Ok([minute, hour, day, month, weekday, second, "*"]),
        [minute, hour, day, month, weekday, second, year] => {
            Ok([minute, hour, day, month, weekday, second, year])
        }
        _ => Err(parts.len()),
    }
}

/// The values of a field as a mask.
fn bits(field: &impl TimeUnitSpec) -> u64 {
    field.iter().fold(0, |mask, value| mask | 1 << value)
}

/// The days of a month that are some weekdays, bit 0 of which is Sunday.
fn every_week(first: NaiveDate, weekdays: u8) -> u32 {
    let weeks = (0..6).fold(0u64, |mask, n| mask | u64::from(weekdays) << (7 * n));
    ((weeks >> first.weekday().num_days_from_sunday()) << 1) as u32
}

/// The nth of a weekday in a month as a mask, the last for 0; none where there are fewer.
fn nth_weekday(first: NaiveDate, weekday: u32, nth: u32, length: u32) -> u32 {
    let ahead = (weekday + 7 - first.weekday().num_days_from_sunday()) % 7;
    let day = if nth == 0 { ahead + 1 + (length - ahead - 1) / 7 * 7 } else { ahead + 1 + 7 * (nth - 1) };
    if day <= length { 1 << day } else { 0 }
}

/// The day of Monday to Friday that is nearest to a day, in the same month.
fn nearest_weekday(first: NaiveDate, day: u32, length: u32) -> u32 {
    match (first.weekday().num_days_from_sunday() + day - 1) % 7 {
        6 if day > 1 => day - 1,
        6 => day + 2,
        0 if day < length => day + 1,
        0 => day - 2,
        _ => day,
    }
}

fn date_of(day: i64) -> Option<NaiveDate> {
    NaiveDate::from_num_days_from_ce_opt(i32::try_from(day + EPOCH_DAY).ok()?)
}

fn day_of(year: i32, month: u32, day: u32) -> Option<i64> {
    Some(i64::from(NaiveDate::from_ymd_opt(year, month, day)?.num_days_from_ce()) - EPOCH_DAY)
}

//! When a model ticks: a cron in a time zone.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;

use super::cron::{CronError, Fields};
use super::{IntervalUnit, Timestamp};

const MINUTE: i64 = 60_000;
const SECOND: i64 = 1000;
/// Clocks never jump by more than a day.
const LONGEST_JUMP_MINUTES: i64 = 25 * 60;

/// A parsed cron with its time zone: the ticks at which a model's intervals end.
///
/// Ticks are wall-clock times of the zone. Where clocks go back, a time that occurs twice ticks
/// twice. Where they go forward, a tick that the clock skips moves to the first time after the jump;
/// a cron with `*` as its hour drops it instead, for its other ticks go on without a break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cadence {
    cron: String,
    zone: Option<Tz>,
    fields: Fields,
    /// Distance and first tick in milliseconds, where ticks are evenly spaced in UTC.
    regular: Option<(i64, i64)>,
    unit: IntervalUnit,
}

impl Cadence {
    /// Reads a five-field cron or a nickname such as `@daily`, in an IANA time zone (UTC without).
    ///
    /// # Errors
    /// If the cron can't be read, never ticks, ticks more often than every five minutes, or the zone
    /// is unknown.
    pub fn parse(cron: &str, tz: Option<&str>) -> Result<Self, CronError> {
        let error = |why: String, hint| CronError { cron: cron.to_owned(), why, hint };
        let zone = match tz.map(|name| (name, Tz::from_str(name))) {
            None => None,
            Some((_, Ok(zone))) => (zone != Tz::UTC).then_some(zone),
            Some((name, Err(_))) => {
                let hint = "use an IANA name such as Europe/Berlin, or leave cron_tz out for UTC";
                return Err(error(format!("time zone '{name}' is unknown"), hint));
            }
        };
        let fields = Fields::parse(cron)?;
        let gap = fields.shortest_gap() * MINUTE;
        let unit = IntervalUnit::ALL.into_iter().rev().find(|unit| unit.shortest_millis() <= gap);
        let unit = unit.ok_or_else(|| {
            let why = format!("two of its ticks are only {} minutes apart", gap / MINUTE);
            error(why, "let at least five minutes pass between ticks, for example with */5")
        })?;
        let regular = match zone {
            None => fields
                .regular()
                .map(|(every, first)| (every * MINUTE, first * MINUTE + fields.second * SECOND)),
            Some(_) => None,
        };
        Ok(Self { cron: cron.to_owned(), zone, fields, regular, unit })
    }

    /// Every UTC day.
    pub fn daily() -> Self {
        Self::parse("@daily", None).expect("`@daily` is a cron, as this module's tests show")
    }

    /// The cron as written.
    pub fn cron(&self) -> &str {
        &self.cron
    }

    /// The time zone whose clock ticks.
    pub fn zone(&self) -> Tz {
        self.zone.unwrap_or(Tz::UTC)
    }

    /// The coarsest unit that fits between any two ticks.
    pub fn unit(&self) -> IntervalUnit {
        self.unit
    }

    /// The last tick at or before a time.
    pub fn floor(&self, at: Timestamp) -> Timestamp {
        self.prev(Timestamp(at.0.saturating_add(1)))
    }

    /// The first tick strictly after a time; the end of time where that is too late to be shown.
    pub fn next(&self, at: Timestamp) -> Timestamp {
        let at = clamped(at);
        if let Some((every, first)) = self.regular {
            return Timestamp(((at.0 - first).div_euclid(every) + 1) * every + first);
        }
        let second = self.fields.second * SECOND;
        let at = Timestamp(at.0 - second);
        let minute = match self.zone {
            None => self.fields.next(at.0.div_euclid(MINUTE) + 1).map(from_minute),
            Some(zone) => self.next_in(zone, at),
        };
        minute.map_or(Timestamp::MAX, |minute| Timestamp(minute.0 + second))
    }

    /// The last tick strictly before a time; the start of time where that is too early to be shown.
    pub fn prev(&self, at: Timestamp) -> Timestamp {
        let at = clamped(at);
        if let Some((every, first)) = self.regular {
            return Timestamp((at.0 - first - 1).div_euclid(every) * every + first);
        }
        let second = self.fields.second * SECOND;
        let at = Timestamp(at.0 - second);
        let minute = match self.zone {
            None => self.fields.prev((at.0 - 1).div_euclid(MINUTE)).map(from_minute),
            Some(zone) => self.prev_in(zone, at),
        };
        minute.map_or(Timestamp::MIN, |minute| Timestamp(minute.0 + second))
    }

    /// The time at which this cadence's clock shows what a UTC clock shows at `shown`; of a time that
    /// occurs twice the first, of one that is skipped the first one after.
    ///
    /// SQLMesh reads an end that was written without an offset this way when it derives a model's
    /// start from it: `2024-01-31` is then the zone's midnight.
    pub fn on_clock(&self, shown: Timestamp) -> Timestamp {
        let Some(zone) = self.zone else { return shown };
        let shown = clamped(shown);
        let mapped = local(zone, shown.0).earliest();
        mapped.or_else(|| after_jump(zone, shown.0.div_euclid(MINUTE))).unwrap_or(shown)
    }

    fn next_in(&self, zone: Tz, at: Timestamp) -> Option<Timestamp> {
        let wall = wall_of(zone, at);
        let mut minute = wall.div_euclid(MINUTE) + 1;
        let found = loop {
            minute = self.fields.next(minute)?;
            match self.instants(zone, minute) {
                Instants { first: Some(first), .. } if first > at => break first,
                Instants { last: Some(last), .. } if last > at => break last,
                _ => minute += 1,
            }
        };
        Some(self.repeated_next(zone, at, wall).map_or(found, |repeat| repeat.min(found)))
    }

    fn prev_in(&self, zone: Tz, at: Timestamp) -> Option<Timestamp> {
        let wall = wall_of(zone, at);
        let mut minute = (wall - 1).div_euclid(MINUTE);
        let found = loop {
            minute = self.fields.prev(minute)?;
            match self.instants(zone, minute) {
                Instants { last: Some(last), .. } if last < at => break last,
                Instants { first: Some(first), .. } if first < at => break first,
                _ => minute -= 1,
            }
        };
        Some(self.repeated_prev(zone, at, wall).map_or(found, |repeat| repeat.max(found)))
    }

    /// In the first pass through an hour that clocks repeat: the first tick of the second pass at a
    /// wall-clock time that has already been.
    fn repeated_next(&self, zone: Tz, at: Timestamp, wall: i64) -> Option<Timestamp> {
        let (first, last) = twice(zone, wall)?;
        if at >= last {
            return None;
        }
        let mut minute = (wall - (last.0 - first.0)).div_euclid(MINUTE);
        loop {
            minute = self.fields.next(minute)?;
            if minute * MINUTE > wall {
                return None;
            }
            if let Some((_, last)) = twice(zone, minute * MINUTE) {
                return Some(last);
            }
            minute += 1;
        }
    }

    /// In the second pass through an hour that clocks repeat: the last tick of the first pass at a
    /// wall-clock time that is still to come.
    fn repeated_prev(&self, zone: Tz, at: Timestamp, wall: i64) -> Option<Timestamp> {
        let (first, last) = twice(zone, wall)?;
        if at < last {
            return None;
        }
        let mut minute = (wall + (last.0 - first.0)).div_euclid(MINUTE);
        loop {
            minute = self.fields.prev(minute)?;
            if minute * MINUTE < wall {
                return None;
            }
            if let Some((first, _)) = twice(zone, minute * MINUTE) {
                return Some(first);
            }
            minute -= 1;
        }
    }

    /// The points in time that a wall-clock minute names, once a tick that clocks skip has been
    /// moved or dropped.
    fn instants(&self, zone: Tz, minute: i64) -> Instants {
        match local(zone, minute * MINUTE) {
            MappedLocalTime::Single(at) => Instants { first: Some(at), last: Some(at) },
            MappedLocalTime::Ambiguous(first, last) => Instants { first: Some(first), last: Some(last) },
            MappedLocalTime::None if self.fields.any_hour => Instants { first: None, last: None },
            MappedLocalTime::None => {
                let after = after_jump(zone, minute);
                Instants { first: after, last: after }
            }
        }
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.zone {
            None => f.write_str(&self.cron),
            Some(zone) => write!(f, "{} ({zone})", self.cron),
        }
    }
}

/// The same point twice for a plain time, both passes for a repeated one, none for a dropped one.
struct Instants {
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

fn clamped(at: Timestamp) -> Timestamp {
    at.clamp(Timestamp::MIN, Timestamp::MAX)
}

fn from_minute(minute: i64) -> Timestamp {
    Timestamp(minute * MINUTE)
}

/// What clocks in a zone show, in milliseconds since 1970-01-01 00:00 of that zone.
fn wall_of(zone: Tz, at: Timestamp) -> i64 {
    let offset = zone.offset_from_utc_datetime(&at.to_datetime().naive_utc()).fix();
    at.0 + i64::from(offset.local_minus_utc()) * 1000
}

/// The points in time at which clocks in a zone show something.
fn local(zone: Tz, wall: i64) -> MappedLocalTime<Timestamp> {
    let naive: NaiveDateTime =
        DateTime::<Utc>::from_timestamp_millis(wall).unwrap_or(DateTime::UNIX_EPOCH).naive_utc();
    zone.offset_from_local_datetime(&naive)
        .map(|offset| Timestamp(wall - i64::from(offset.fix().local_minus_utc()) * 1000))
}

/// The first point in time after the jump in which clocks skip a wall-clock minute.
fn after_jump(zone: Tz, minute: i64) -> Option<Timestamp> {
    (1..LONGEST_JUMP_MINUTES).find_map(|n| local(zone, (minute + n) * MINUTE).earliest())
}

/// Both points in time at which clocks show a time that they show twice.
fn twice(zone: Tz, wall: i64) -> Option<(Timestamp, Timestamp)> {
    match local(zone, wall) {
        MappedLocalTime::Ambiguous(first, last) => Some((first, last)),
        _ => None,
    }
}

/// The start of a model that states none and inherits none: one cron period before the last tick at
/// or before `end`. That is the present, or the asked end (a date's midnight) as
/// [`Cadence::on_clock`] reads it.
pub fn default_start(cadence: &Cadence, end: Timestamp) -> Timestamp {
    cadence.prev(cadence.floor(end))
}

impl FromStr for Cadence {
    type Err = CronError;
    fn from_str(cron: &str) -> Result<Self, Self::Err> {
        Self::parse(cron, None)
    }
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, Timelike};
    use proptest::prelude::*;

    use super::*;
    use crate::interval::parse_time;

    fn at(text: &str) -> Timestamp {
        parse_time(text, Timestamp(0)).unwrap().at
    }

    fn ticks(cron: &str, zone: Option<&str>, after: &str, count: usize) -> Vec<String> {
        let cadence = Cadence::parse(cron, zone).unwrap();
        let first = cadence.next(at(after));
        let all: Vec<_> =
            std::iter::successors(Some(first), |tick| Some(cadence.next(*tick))).take(count).collect();
        for pair in all.windows(2) {
            assert_eq!(cadence.prev(pair[1]), pair[0], "{cron} back from {}", pair[1]);
            assert_eq!(cadence.floor(Timestamp(pair[1].0 - 1)), pair[0]);
            assert_eq!(cadence.floor(pair[1]), pair[1]);
        }
        all.iter().map(|tick| tick.to_string()[5..16].to_owned()).collect()
    }

    #[test]
    fn units_are_the_coarsest_that_fit_between_ticks() {
        for (cron, unit) in [
            ("@hourly", IntervalUnit::Hour),
            ("@daily", IntervalUnit::Day),
            ("@midnight", IntervalUnit::Day),
            ("@weekly", IntervalUnit::Day),
            ("@monthly", IntervalUnit::Month),
            ("@yearly", IntervalUnit::Year),
            ("@annually", IntervalUnit::Year),
            ("0 9,17 * * *", IntervalUnit::Hour),
            ("0 9 * * 1-5", IntervalUnit::Day),
            ("*/20 * * * *", IntervalUnit::QuarterHour),
            ("10,40 * * * *", IntervalUnit::HalfHour),
            ("*/10 * * * *", IntervalUnit::FiveMinute),
            ("55 23 1 * *", IntervalUnit::Month),
            ("0,5 0 1 1 *", IntervalUnit::FiveMinute),
            ("0 0 1 */3 *", IntervalUnit::Month),
            ("0 0 1,15 * *", IntervalUnit::Day),
            ("0 0 29 2 *", IntervalUnit::Year),
        ] {
            assert_eq!(Cadence::parse(cron, None).unwrap().unit(), unit, "{cron}");
        }
    }

    #[test]
    fn unusable_crons_are_refused_with_a_remedy() {
        for (cron, why) in [
            ("*/3 * * * *", "two of its ticks are only 3 minutes apart"),
            ("*/7 * * * *", "two of its ticks are only 4 minutes apart"),
            ("* * * * *", "two of its ticks are only 1 minutes apart"),
            ("0 0 30 2 *", "no such day exists"),
            ("0 0 31 4,6,9,11 *", "no such day exists"),
            ("0 0 * *", "it has 4 fields instead of 5"),
            ("0 0 * * * * * *", "it has 8 fields instead of 5"),
            ("0 0 * * * */10", "it ticks more than once a minute"),
            ("0 0 * * 5l", "'5l' is no weekday: use 0 (or 7, Sunday) to 6, or sun to sat"),
            ("0 0 * * 1#6", "'1#6' counts no weekday of a month: use #1 to #5"),
            ("0 0 * * 1#1,2", "'1#1,2' mixes weekdays of every week with those of a month"),
            ("0 0 15w,20 * *", "'15w,20' has W beside other days"),
            ("@sometimes", "it has 1 fields instead of 5"),
            ("0 0 * * 8", "'8' is no weekday: use 0 (or 7, Sunday) to 6, or sun to sat"),
            ("0 0 * * 1/x", "'1/x' has no valid step"),
        ] {
            let error = Cadence::parse(cron, None).unwrap_err();
            assert_eq!(error.why, why, "{cron}");
            assert!(!error.hint.is_empty());
        }
        for cron in
            ["61 * * * *", "0 24 * * *", "0 0 0 * *", "0 0 1 13 *", "*/0 * * * *", "5- * * * *", "0 x * * *"]
        {
            let error = Cadence::parse(cron, None).unwrap_err();
            assert!(!error.why.is_empty() && !error.why.contains('\n'), "{error}");
        }
        assert_eq!(
            Cadence::parse("@daily", Some("Mars/Base")).unwrap_err().why,
            "time zone 'Mars/Base' is unknown"
        );
    }

    #[test]
    fn weekdays_count_from_sunday() {
        // 2024-01-07 is a Sunday.
        let sunday = ["01-07T00:00", "01-14T00:00"];
        for cron in ["@weekly", "0 0 * * 0", "0 0 * * 7", "0 0 * * SUN"] {
            assert_eq!(ticks(cron, None, "2024-01-02", 2), sunday, "{cron}");
        }
        let weekend = ["01-06T00:00", "01-07T00:00", "01-13T00:00"];
        for cron in ["0 0 * * 6,0", "0 0 * * 6-7", "0 0 * * sat-sun", "0 0 * * 6-0"] {
            assert_eq!(ticks(cron, None, "2024-01-02", 3), weekend, "{cron}");
        }
        assert_eq!(ticks("0 9 * * mon-fri", None, "2024-01-05 09:00:00", 1), ["01-08T09:00"]);
        assert_eq!(
            ticks("0 0 * * */3", None, "2024-01-01", 3),
            ["01-03T00:00", "01-06T00:00", "01-07T00:00"]
        );
    }

    #[test]
    fn either_day_field_matches_when_both_are_restricted() {
        let either = ["01-05T00:00", "01-12T00:00", "01-13T00:00", "01-19T00:00"];
        assert_eq!(ticks("0 0 13 * 5", None, "2024-01-01", 4), either);
        assert_eq!(ticks("0 0 13 * *", None, "2024-01-01", 1), ["01-13T00:00"]);
    }

    #[test]
    fn rare_days_are_found() {
        let leap = Cadence::parse("0 12 29 2 *", None).unwrap();
        assert_eq!(leap.next(at("1896-03-01")), at("1904-02-29 12:00:00"));
        assert_eq!(leap.prev(at("1904-02-29 12:00:00")), at("1896-02-29 12:00:00"));
        assert_eq!(ticks("0 0 31 * *", None, "2024-01-31", 2), ["03-31T00:00", "05-31T00:00"]);
    }

    #[test]
    fn a_floor_is_never_in_the_future() {
        let office = Cadence::parse("*/5 9-17 * * *", None).unwrap();
        assert_eq!(office.floor(at("2024-07-02 00:01:00")), at("2024-07-01 17:55:00"));
    }

    #[test]
    fn a_skipped_tick_moves_past_the_jump() {
        // Berlin skips 02:00 to 03:00 on 2024-03-31, which is from 01:00 UTC on.
        let half_past_two = ["03-30T01:30", "03-31T01:00", "04-01T00:30"];
        assert_eq!(ticks("30 2 * * *", Some("Europe/Berlin"), "2024-03-30", 3), half_past_two);
        let hours = ["03-31T00:00", "03-31T01:00", "03-31T02:00"];
        assert_eq!(ticks("0 1-4 * * *", Some("Europe/Berlin"), "2024-03-30 23:00:00", 3), hours);
        // A cron with every hour goes on without the skipped ticks.
        let half_hours = ["03-31T00:30", "03-31T01:00", "03-31T01:30"];
        assert_eq!(ticks("*/30 * * * *", Some("Europe/Berlin"), "2024-03-31 00:00:00", 3), half_hours);
        assert_eq!(
            ticks("30 * * * *", Some("Europe/Berlin"), "2024-03-31 00:00:00", 2),
            ["03-31T00:30", "03-31T01:30"]
        );
    }

    #[test]
    fn a_repeated_tick_ticks_twice() {
        // New York repeats 01:00 to 02:00 on 2024-11-03, Lord Howe half an hour from 01:30 on 2024-04-07.
        let twice = ["11-02T05:30", "11-03T05:30", "11-03T06:30", "11-04T06:30"];
        assert_eq!(ticks("30 1 * * *", Some("America/New_York"), "2024-11-02", 4), twice);
        let quarters = ["04-06T14:45", "04-06T15:00", "04-06T15:15", "04-06T15:30"];
        assert_eq!(ticks("*/15 * * * *", Some("Australia/Lord_Howe"), "2024-04-06 14:30:00", 4), quarters);
    }

    #[test]
    fn a_model_without_start_starts_one_period_back() {
        for (cron, end, start) in [
            ("@daily", "2024-01-10 05:30:00", "2024-01-09"),
            ("@hourly", "2024-01-10 05:30:00", "2024-01-10 04:00:00"),
            ("@monthly", "2024-01-10", "2023-12-01"),
        ] {
            assert_eq!(default_start(&Cadence::parse(cron, None).unwrap(), at(end)), at(start), "{cron}");
        }
        let sao_paulo = Cadence::parse("@daily", Some("America/Sao_Paulo")).unwrap();
        assert_eq!(
            default_start(&sao_paulo, sao_paulo.on_clock(at("2024-03-06"))),
            at("2024-03-05 03:00:00")
        );
    }

    /// A field's values, none meaning a star, and its text.
    fn field(low: u32, high: u32) -> impl Strategy<Value = Option<Vec<u32>>> {
        prop::option::of(prop::collection::vec(low..=high, 1..4))
    }

    fn shown(values: Option<&Vec<u32>>) -> String {
        values
            .map_or("*".to_owned(), |values| values.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Ticks are exactly the minutes at which the zone's clock matches, found by trying each.
        #[test]
        fn agrees_with_a_scan(minute in 0u32..60, hours in field(0, 23), days in field(1, 31), weekdays in field(0, 7),
                              zone in prop::sample::select(&["UTC", "Asia/Kolkata", "Europe/Berlin", "Australia/Lord_Howe"][..]),
                              start in 28_300_000i64..29_000_000, seconds in 0i64..60) {
            let text = format!("{minute} {} {} * {}", shown(hours.as_ref()), shown(days.as_ref()), shown(weekdays.as_ref()));
            let cadence = Cadence::parse(&text, Some(zone)).unwrap();
            let tz: Tz = zone.parse().unwrap();
            let contains = |values: &Option<Vec<u32>>, n: u32| values.as_ref().is_none_or(|v| v.contains(&n));
            let is_tick = |minute_of_epoch: i64| {
                let time = tz.from_utc_datetime(&from_minute(minute_of_epoch).to_datetime().naive_utc());
                let weekday = time.weekday().num_days_from_sunday();
                let in_week = contains(&weekdays, weekday) || (weekday == 0 && contains(&weekdays, 7));
                let in_month = contains(&days, time.day());
                let day = if days.is_some() && weekdays.is_some() { in_week || in_month } else { in_week && in_month };
                time.minute() == minute && contains(&hours, time.hour()) && day
            };
            let now = Timestamp(start * MINUTE + seconds * 1000);
            let (next, prev) = (cadence.next(now), cadence.prev(now));
            prop_assert!(prev < now && now < next);
            prop_assert_eq!(cadence.prev(next), cadence.floor(now));
            // Where clocks skip a tick, its replacement is tested above.
            let moved = |tick: Timestamp| hours.is_some() && !is_tick(tick.0 / MINUTE);
            prop_assume!(!moved(next) && !moved(prev));
            prop_assert!(is_tick(next.0 / MINUTE) && is_tick(prev.0 / MINUTE));
            let strictly_between = (prev.0 / MINUTE + 1..next.0 / MINUTE).filter(|m| m * MINUTE != now.0);
            prop_assert_eq!(strictly_between.into_iter().find(|m| is_tick(*m)), None);
        }
    }
}

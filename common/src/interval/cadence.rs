//! When a model ticks: a cron in a time zone.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;

use super::cron::{CronError, Fields};
use super::{IntervalUnit, Timestamp};

const MINUTE: i64 = 60_000;
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
            None => fields.regular().map(|(every, first)| (every * MINUTE, first * MINUTE)),
            Some(_) => None,
        };
        Ok(Self { cron: cron.to_owned(), zone, fields, regular, unit })
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
        if let Some((every, first)) = self.regular {
            return Timestamp((at.0 - first).div_euclid(every).saturating_add(1) * every + first);
        }
        let at = clamped(at);
        match self.zone {
            None => self.fields.next(at.0.div_euclid(MINUTE) + 1).map(from_minute),
            Some(zone) => self.next_in(zone, at),
        }
        .unwrap_or(Timestamp::MAX)
    }

    /// The last tick strictly before a time; the start of time where that is too early to be shown.
    pub fn prev(&self, at: Timestamp) -> Timestamp {
        if let Some((every, first)) = self.regular {
            return Timestamp((at.0 - first - 1).div_euclid(every) * every + first);
        }
        let at = clamped(at);
        match self.zone {
            None => self.fields.prev((at.0 - 1).div_euclid(MINUTE)).map(from_minute),
            Some(zone) => self.prev_in(zone, at),
        }
        .unwrap_or(Timestamp::MIN)
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

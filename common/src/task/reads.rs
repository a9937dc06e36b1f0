//! Which range of an upstream table a batch reads.

use chrono::{Datelike, Months, Utc};
use serde::{Deserialize, Serialize};

use crate::interval::{Interval, Timestamp};

const DAY: i64 = 86_400_000;

/// Which range of an upstream a batch reads, as proven from the reader's query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadRange {
    /// Nothing could be proven: all of it.
    Whole {
        /// Why nothing could be proven, for people.
        why: String,
    },
    /// A window that moves with the batch.
    Window {
        /// The first point read.
        lower: Bound,
        /// The first point no longer read.
        upper: Bound,
    },
}

impl ReadRange {
    /// The range that a batch reads; never smaller than what its query can see.
    pub fn of(&self, batch: Interval) -> Interval {
        match self {
            Self::Whole { .. } => Interval::ALL,
            Self::Window { lower, upper } => {
                let start = lower.at(batch, Round::Down);
                let end = upper.at(batch, Round::Up);
                Interval::new(start, end)
                    .unwrap_or(Interval { start: batch.start.min(start), end: batch.end.max(end) })
            }
        }
    }
}

/// One side of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// No bound on this side.
    Open,
    /// A point that moves with the batch.
    Moving(Offset),
}

/// A point relative to a batch's start or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offset {
    /// Which end of the batch.
    pub side: Side,
    /// Calendar months added first.
    pub months: i32,
    /// Milliseconds added then.
    pub millis: i64,
    /// To what the result is rounded, outward.
    pub granularity: Granularity,
}

/// Which end of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Its start.
    Start,
    /// Its end (exclusive).
    End,
}

/// To what a bound is rounded, outward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// Not at all.
    Exact,
    /// To UTC days.
    Day,
    /// To calendar months.
    Month,
    /// To calendar years.
    Year,
}

#[derive(Clone, Copy, PartialEq)]
enum Round {
    Down,
    Up,
}

impl Bound {
    fn at(self, batch: Interval, round: Round) -> Timestamp {
        match self {
            Self::Open => match round {
                Round::Down => Timestamp::MIN,
                Round::Up => Timestamp::MAX,
            },
            Self::Moving(offset) => offset.at(batch, round),
        }
    }
}

impl Offset {
    fn at(self, batch: Interval, round: Round) -> Timestamp {
        let anchor = match self.side {
            Side::Start => batch.start,
            Side::End => batch.end,
        };
        let mut shifted = add_months(anchor, self.months);
        if self.side == Side::End && self.months != 0 {
            // Queries shift the last point inside, not the first after: at the ends of months the
            // two differ, and the later one is the outward one.
            shifted = shifted.max(Timestamp(add_months(Timestamp(anchor.0 - 1), self.months).0 + 1));
        }
        let moved = Timestamp(shifted.0.saturating_add(self.millis));
        let floor = floor_to(moved, self.granularity);
        match round {
            Round::Down => floor,
            Round::Up if floor == moved => floor,
            Round::Up => match self.granularity {
                Granularity::Exact => moved,
                Granularity::Day => Timestamp(floor.0 + DAY),
                Granularity::Month => add_months(floor, 1),
                Granularity::Year => add_months(floor, 12),
            },
        }
    }
}

/// Adds calendar months as warehouses do: the day is cut to the month's last.
fn add_months(time: Timestamp, months: i32) -> Timestamp {
    if months == 0 {
        return time;
    }
    let date = time.to_datetime();
    let by = Months::new(months.unsigned_abs());
    let moved = if months > 0 { date.checked_add_months(by) } else { date.checked_sub_months(by) };
    moved.map_or(if months > 0 { Timestamp::MAX } else { Timestamp::MIN }, Timestamp::from_datetime)
}

fn floor_to(time: Timestamp, granularity: Granularity) -> Timestamp {
    let day = Timestamp(time.0.div_euclid(DAY) * DAY);
    let date = day.to_datetime();
    let floored = match granularity {
        Granularity::Exact => return time,
        Granularity::Day => return day,
        Granularity::Month => date.with_day(1),
        Granularity::Year => date.with_day(1).and_then(|d: chrono::DateTime<Utc>| d.with_month(1)),
    };
    floored.map_or(day, Timestamp::from_datetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_round_outward() {
        let batch = Interval { start: Timestamp(10 * DAY + 5), end: Timestamp(11 * DAY + 5) };
        let bound =
            |side, millis| Bound::Moving(Offset { side, months: 0, millis, granularity: Granularity::Day });
        let reads = ReadRange::Window { lower: bound(Side::Start, -30 * DAY), upper: bound(Side::End, 0) };
        assert_eq!(reads.of(batch), Interval { start: Timestamp(-20 * DAY), end: Timestamp(12 * DAY) });
        assert_eq!(ReadRange::Whole { why: String::new() }.of(batch), Interval::ALL);
    }
}

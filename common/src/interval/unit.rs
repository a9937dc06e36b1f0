//! The granularity of intervals.

use std::fmt;
use std::str::FromStr;

use chrono::{Datelike, NaiveDate};
use serde::{Deserialize, Serialize};

use super::{Interval, Timestamp};

const MINUTE: i64 = 60_000;

/// The granularity in which a model's intervals are counted; from fine to coarse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntervalUnit {
    /// Five minutes.
    FiveMinute,
    /// Fifteen minutes.
    QuarterHour,
    /// Thirty minutes.
    HalfHour,
    /// An hour.
    Hour,
    /// A UTC day.
    Day,
    /// A calendar month.
    Month,
    /// A calendar year.
    Year,
}

impl IntervalUnit {
    /// All units, from fine to coarse.
    pub const ALL: [Self; 7] =
        [Self::FiveMinute, Self::QuarterHour, Self::HalfHour, Self::Hour, Self::Day, Self::Month, Self::Year];

    /// The name as SQLMesh writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FiveMinute => "five_minute",
            Self::QuarterHour => "quarter_hour",
            Self::HalfHour => "half_hour",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The length in milliseconds; nothing for months and years, which differ in length.
    pub(crate) fn fixed_millis(self) -> Option<i64> {
        match self {
            Self::FiveMinute => Some(5 * MINUTE),
            Self::QuarterHour => Some(15 * MINUTE),
            Self::HalfHour => Some(30 * MINUTE),
            Self::Hour => Some(60 * MINUTE),
            Self::Day => Some(24 * 60 * MINUTE),
            Self::Month | Self::Year => None,
        }
    }

    /// The shortest length that counts as this unit, in milliseconds: a month has at least 28 days,
    /// a year 365. An inferred unit is the coarsest whose shortest length fits between two ticks.
    pub(crate) fn shortest_millis(self) -> i64 {
        self.fixed_millis().unwrap_or(24 * 60 * MINUTE * if self == Self::Year { 365 } else { 28 })
    }

    /// The last boundary at or before a time.
    pub fn floor(self, at: Timestamp) -> Timestamp {
        self.boundary(self.index(at))
    }

    /// The first boundary at or after a time.
    pub(crate) fn ceil(self, at: Timestamp) -> Timestamp {
        if self.is_aligned(at) { at } else { self.next(at) }
    }

    /// The first boundary strictly after a time.
    pub fn next(self, at: Timestamp) -> Timestamp {
        self.boundary(self.index(at).saturating_add(1))
    }

    /// The last boundary strictly before a time.
    pub fn prev(self, at: Timestamp) -> Timestamp {
        self.floor(Timestamp(at.0.saturating_sub(1)))
    }

    /// Whether a time is a boundary between two units.
    pub(crate) fn is_aligned(self, at: Timestamp) -> bool {
        self.floor(at) == at
    }

    /// The boundary `n` units after (or before) the one at or before a time.
    pub fn add_units(self, at: Timestamp, n: i64) -> Timestamp {
        self.boundary(self.index(at).saturating_add(n))
    }

    /// How many units a range touches: pieces of units at its ends count as whole ones.
    pub fn count(self, range: Interval) -> u64 {
        let last = Timestamp(range.end.0.saturating_sub(1));
        u64::try_from(self.index(last).saturating_sub(self.index(range.start)).saturating_add(1)).unwrap_or(0)
    }

    /// Units since 1970 (since year 0 for months and years) of the unit that holds a time.
    pub(crate) fn index(self, at: Timestamp) -> i64 {
        match self.fixed_millis() {
            Some(length) => at.0.div_euclid(length),
            None => {
                let date = at.to_datetime().date_naive();
                let year = i64::from(date.year());
                if self == Self::Year { year } else { year * 12 + i64::from(date.month0()) }
            }
        }
    }

    /// The start of the unit with an index; the end of time where that can't be shown.
    fn boundary(self, index: i64) -> Timestamp {
        if let Some(length) = self.fixed_millis() {
            return Timestamp(index.saturating_mul(length));
        }
        let (year, month0) =
            if self == Self::Year { (index, 0) } else { (index.div_euclid(12), index.rem_euclid(12)) };
        let limit = if index < 0 { Timestamp::MIN } else { Timestamp::MAX };
        let date =
            i32::try_from(year).ok().and_then(|year| NaiveDate::from_ymd_opt(year, month0 as u32 + 1, 1));
        date.and_then(|date| date.and_hms_opt(0, 0, 0))
            .map_or(limit, |time| Timestamp::from_datetime(time.and_utc()))
    }
}

impl fmt::Display for IntervalUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for IntervalUnit {
    type Err = crate::id::InvalidId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.to_ascii_lowercase();
        Self::ALL.into_iter().find(|unit| unit.name() == name).ok_or(crate::id::InvalidId {
            what: "interval unit",
            text: text.to_owned(),
            why: "use year, month, day, hour, half_hour, quarter_hour or five_minute",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").unwrap();
        Timestamp::from_datetime(date.and_hms_opt(0, 0, 0).unwrap().and_utc())
    }

    #[test]
    fn months_and_years_follow_the_calendar() {
        let month = IntervalUnit::Month;
        assert_eq!(month.floor(at("2024-02-29")), at("2024-02-01"));
        assert_eq!(month.next(at("2024-12-31")), at("2025-01-01"));
        assert_eq!(month.prev(at("2024-03-01")), at("2024-02-01"));
        assert_eq!(month.add_units(at("2024-01-01"), -13), at("2022-12-01"));
        let year = IntervalUnit::Year;
        assert_eq!(year.ceil(at("2024-01-02")), at("2025-01-01"));
        assert_eq!(year.ceil(at("2024-01-01")), at("2024-01-01"));
        assert_eq!(month.count(Interval { start: at("2023-01-01"), end: at("2024-01-01") }), 12);
        assert_eq!(month.count(Interval { start: at("2023-01-31"), end: at("2023-02-02") }), 2);
    }

    #[test]
    fn times_before_1970_floor_downwards() {
        assert_eq!(IntervalUnit::Hour.floor(Timestamp(-1)), Timestamp(-3_600_000));
        assert_eq!(IntervalUnit::Day.next(Timestamp(-1)), Timestamp(0));
        assert_eq!(IntervalUnit::Year.floor(Timestamp(-1)), at("1969-01-01"));
    }

    proptest! {
        /// Floor, next and prev are inverse where they should be and bracket every time.
        #[test]
        fn boundaries_bracket(unit in prop::sample::select(&IntervalUnit::ALL[..]),
                              ms in -4_000_000_000_000i64..8_000_000_000_000, n in -1500i64..3000) {
            let at = Timestamp(ms);
            let floor = unit.floor(at);
            prop_assert!(floor <= at && at < unit.next(at));
            prop_assert!(unit.is_aligned(floor) && unit.is_aligned(unit.next(at)));
            prop_assert_eq!(unit.prev(unit.next(at)), floor);
            prop_assert_eq!(unit.next(unit.prev(floor)), floor);
            prop_assert_eq!(unit.floor(floor), floor);
            prop_assert!(unit.ceil(at) >= at && unit.prev(unit.ceil(at)) < at);
            prop_assert_eq!(unit.add_units(at, 1), unit.next(at));
            let moved = unit.add_units(floor, n); // stays after year 1: see Timestamp::MIN
            prop_assert_eq!(unit.add_units(moved, -n), floor);
            if let Some(range) = Interval::new(floor, moved) {
                prop_assert_eq!(unit.count(range), n as u64);
            }
        }
    }
}

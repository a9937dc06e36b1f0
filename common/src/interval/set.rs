//! Timestamps, half-open intervals and merged sets of them.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since 1970-01-01 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The last point that a four-digit year can show: bounds what chrono must print.
    pub const MAX: Self = Self(253_402_300_799_999);
    /// The first point of year 1.
    pub const MIN: Self = Self(-62_135_596_800_000);

    /// The same point as chrono's type; times outside years 1 to 9999 are clamped.
    pub fn to_datetime(self) -> DateTime<Utc> {
        let clamped = self.0.clamp(Self::MIN.0, Self::MAX.0);
        DateTime::from_timestamp_millis(clamped).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// The point of a chrono time, cut to milliseconds.
    pub(crate) fn from_datetime(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_millis())
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC: `2024-01-01T00:00:00Z`, with milliseconds only where there are some.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = if self.0 % 1000 == 0 { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%.3fZ" };
        write!(f, "{}", self.to_datetime().format(format))
    }
}

/// A half-open range of time `[start, end)` in UTC, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(Timestamp, Timestamp)", into = "(Timestamp, Timestamp)")]
pub struct Interval {
    /// The first point inside.
    pub start: Timestamp,
    /// The first point after.
    pub end: Timestamp,
}

impl Interval {
    /// All of time.
    pub const ALL: Self = Self { start: Timestamp::MIN, end: Timestamp::MAX };

    /// The range from `start` to `end`, or nothing where it would be empty or turned round.
    pub fn new(start: Timestamp, end: Timestamp) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// Whether the two share a point.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether `other` lies wholly inside.
    pub fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// What both share.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }
}

impl From<(Timestamp, Timestamp)> for Interval {
    fn from((start, end): (Timestamp, Timestamp)) -> Self {
        Self { start, end: end.max(start) }
    }
}

impl From<Interval> for (Timestamp, Timestamp) {
    fn from(interval: Interval) -> Self {
        (interval.start, interval.end)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// A set of points in time, as sorted ranges that neither overlap nor touch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Interval>", into = "Vec<Interval>")]
pub struct IntervalSet(Vec<Interval>);

impl IntervalSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The ranges, sorted, merged.
    pub fn ranges(&self) -> &[Interval] {
        &self.0
    }

    /// Whether no point is inside.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From the first point to after the last.
    pub fn hull(&self) -> Option<Interval> {
        Interval::new(self.0.first()?.start, self.0.last()?.end)
    }

    /// Adds a range, merging what it overlaps or touches. O(log n + merged).
    pub fn insert(&mut self, interval: Interval) {
        if interval.start >= interval.end {
            return;
        }
        let from = self.0.partition_point(|r| r.end < interval.start);
        let to = self.0.partition_point(|r| r.start <= interval.end);
        let merged = if from < to {
            Interval {
                start: self.0[from].start.min(interval.start),
                end: self.0[to - 1].end.max(interval.end),
            }
        } else {
            interval
        };
        self.0.splice(from..to, [merged]);
    }

    /// Takes a range out, splitting what lies across its ends.
    pub fn remove(&mut self, interval: Interval) {
        if interval.start >= interval.end {
            return;
        }
        let from = self.0.partition_point(|r| r.end <= interval.start);
        let to = self.0.partition_point(|r| r.start < interval.end);
        if from >= to {
            return;
        }
        let before = Interval::new(self.0[from].start, interval.start);
        let after = Interval::new(interval.end, self.0[to - 1].end);
        self.0.splice(from..to, before.into_iter().chain(after));
    }

    /// Whether the whole range is inside.
    pub fn covers(&self, interval: Interval) -> bool {
        let at = self.0.partition_point(|r| r.end < interval.end);
        self.0.get(at).is_some_and(|r| r.contains(interval))
    }

    /// Whether any point of the range is inside.
    pub fn overlaps(&self, interval: Interval) -> bool {
        let at = self.0.partition_point(|r| r.end <= interval.start);
        self.0.get(at).is_some_and(|r| r.start < interval.end)
    }

    /// The part of the set inside a range.
    #[must_use]
    pub fn clip(&self, interval: Interval) -> Self {
        let from = self.0.partition_point(|r| r.end <= interval.start);
        self.0[from..]
            .iter()
            .take_while(|r| r.start < interval.end)
            .filter_map(|r| r.intersection(interval))
            .collect()
    }

    /// Points in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.0.iter().chain(&other.0).copied().collect()
    }

    /// Points here but not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = self.clone();
        for range in &other.0 {
            left.remove(*range);
        }
        left
    }

    /// Points in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.0.iter().flat_map(|r| other.clip(*r).0).collect()
    }
}

impl From<Interval> for IntervalSet {
    fn from(interval: Interval) -> Self {
        [interval].into_iter().collect()
    }
}

impl From<Vec<Interval>> for IntervalSet {
    fn from(ranges: Vec<Interval>) -> Self {
        ranges.into_iter().collect()
    }
}

impl From<IntervalSet> for Vec<Interval> {
    fn from(set: IntervalSet) -> Self {
        set.0
    }
}

impl FromIterator<Interval> for IntervalSet {
    fn from_iter<I: IntoIterator<Item = Interval>>(ranges: I) -> Self {
        let mut sorted: Vec<Interval> = ranges.into_iter().filter(|r| r.start < r.end).collect();
        sorted.sort_unstable();
        let mut merged: Vec<Interval> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: i64, end: i64) -> Interval {
        Interval { start: Timestamp(start), end: Timestamp(end) }
    }

    #[test]
    fn touching_ranges_merge() {
        let mut set = IntervalSet::from(range(0, 2));
        set.insert(range(4, 6));
        set.insert(range(2, 4));
        assert_eq!(set.ranges(), [range(0, 6)]);
    }

    #[test]
    fn removal_splits() {
        let mut set = IntervalSet::from(range(0, 10));
        set.remove(range(3, 4));
        assert_eq!(set.ranges(), [range(0, 3), range(4, 10)]);
    }

    proptest! {
        /// The set agrees with a naive model that keeps every point.
        #[test]
        fn agrees_with_points(steps in prop::collection::vec((any::<bool>(), 0i64..40, 0i64..12), 0..30)) {
            let mut set = IntervalSet::new();
            let mut points = std::collections::BTreeSet::new();
            for (add, start, length) in steps {
                let piece = range(start, start + length);
                if add {
                    set.insert(piece);
                    points.extend(start..start + length);
                } else {
                    set.remove(piece);
                    points.retain(|p| !(start..start + length).contains(p));
                }
                let from_set: std::collections::BTreeSet<i64> =
                    set.ranges().iter().flat_map(|r| r.start.0..r.end.0).collect();
                prop_assert_eq!(&from_set, &points);
                prop_assert!(set.ranges().windows(2).all(|w| w[0].end < w[1].start));
                if length > 0 {
                    prop_assert_eq!(set.covers(piece), (start..start + length).all(|p| points.contains(&p)));
                    prop_assert_eq!(set.overlaps(piece), (start..start + length).any(|p| points.contains(&p)));
                }
            }
        }
    }
}

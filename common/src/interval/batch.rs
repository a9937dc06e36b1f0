//! Cutting missing intervals into batches, without listing them.

use super::{Interval, IntervalSet, IntervalUnit};

/// How a set of intervals is cut into batches: at every gap, and after `size` units counted from
/// the start of each contiguous range. Batches are computed when asked for: the plan itself is as
/// small as the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    unit: IntervalUnit,
    size: Option<u32>,
    /// Each range with the number of batches before it.
    ranges: Vec<(u64, Interval)>,
    len: u64,
}

impl BatchPlan {
    /// Plans batches of at most `size` units; without a size, one for each contiguous range. A size
    /// of 0 counts as none.
    pub fn new(missing: &IntervalSet, unit: IntervalUnit, size: Option<u32>) -> Self {
        let size = size.filter(|size| *size > 0);
        let mut len = 0;
        let mut ranges = Vec::with_capacity(missing.ranges().len());
        for range in missing.ranges() {
            ranges.push((len, *range));
            len += size.map_or(1, |size| unit.count(*range).div_ceil(u64::from(size)));
        }
        Self { unit, size, ranges, len }
    }

    /// The number of batches.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The batch at an index, in order of time. O(log ranges).
    pub fn get(&self, index: u64) -> Option<Interval> {
        if index >= self.len {
            return None;
        }
        let at = self.ranges.partition_point(|(before, _)| *before <= index).checked_sub(1)?;
        let (before, range) = self.ranges[at];
        let Some(size) = self.size else { return Some(range) };
        let skip = i64::try_from(index - before).ok()?.checked_mul(i64::from(size))?;
        let start = if skip == 0 { range.start } else { self.unit.add_units(range.start, skip) };
        let end = self.unit.add_units(range.start, skip.checked_add(i64::from(size))?);
        Interval::new(start, end.min(range.end))
    }

    /// All batches, in order of time.
    pub fn iter(&self) -> impl Iterator<Item = Interval> + '_ {
        (0..self.len).filter_map(|index| self.get(index))
    }
}

/// The batches of a set of intervals, in order of time; see [`BatchPlan`].
pub fn batches(
    missing: &IntervalSet,
    unit: IntervalUnit,
    size: Option<u32>,
) -> impl Iterator<Item = Interval> + use<> {
    let plan = BatchPlan::new(missing, unit, size);
    (0..plan.len()).filter_map(move |index| plan.get(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::{Timestamp, parse_time};

    fn day(text: &str) -> Timestamp {
        parse_time(text, Timestamp(0)).unwrap().at
    }

    #[test]
    fn batches_are_cut_at_gaps_and_at_their_size() {
        let range = |from: &str, to: &str| Interval { start: day(from), end: day(to) };
        let missing: IntervalSet =
            vec![range("2024-01-01", "2024-01-06"), range("2024-01-07", "2024-01-08 12:00")].into();
        let cut: Vec<Interval> = batches(&missing, IntervalUnit::Day, Some(2)).collect();
        let expected = [
            range("2024-01-01", "2024-01-03"),
            range("2024-01-03", "2024-01-05"),
            range("2024-01-05", "2024-01-06"),
            range("2024-01-07", "2024-01-08 12:00"),
        ];
        assert_eq!(cut, expected);
        assert!(batches(&missing, IntervalUnit::Day, None).eq(missing.ranges().iter().copied()));
        let plan = BatchPlan::new(&missing, IntervalUnit::Day, Some(2));
        assert_eq!((plan.get(3), plan.get(4), plan.is_empty()), (Some(expected[3]), None, false));
    }

    #[test]
    fn batches_of_months_follow_the_calendar() {
        let year = Interval { start: day("2024-01-01"), end: day("2025-01-01") };
        let plan = BatchPlan::new(&year.into(), IntervalUnit::Month, Some(5));
        let starts: Vec<Timestamp> = plan.iter().map(|batch| batch.start).collect();
        assert_eq!(starts, [day("2024-01-01"), day("2024-06-01"), day("2024-11-01")]);
    }
}

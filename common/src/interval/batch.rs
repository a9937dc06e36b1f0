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

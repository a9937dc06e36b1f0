//! How far a restated range reaches: windows over a restated day lie in other days, too.
//!
//! SQLMesh restates the same dates below. Where the query proves that a model's batches read more of
//! an upstream than their own dates, the batches whose window meets what is restated follow.

use std::collections::{BTreeMap, BTreeSet};

use super::PlanInput;
use super::categorize::Records;
use crate::id::ModelName;
use crate::interval::{Interval, IntervalUnit};
use crate::snapshot::{SnapshotRecord, reads_through_views};
use crate::task::ReadRange;

/// What is restated above a model.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Models whose range is wider than what was asked, because windows are; and models that follow them.
    widened: BTreeSet<ModelName>,
}

impl Reach {
    /// A range that a model restates, and with it what else of its complete ranges was computed from what
    /// is restated above it, also where views lie in between. Parents come before their children.
    pub(super) fn with_windows(
        &mut self,
        input: &PlanInput<'_>,
        records: &Records,
        record: &SnapshotRecord,
        above: &BTreeMap<ModelName, Interval>,
        range: Interval,
    ) -> Interval {
        let snapshot = &record.snapshot;
        let known = input.tables.get(&record.table(false));
        let Some(done) = known.and_then(|known| known.done.hull()) else { return range };
        if snapshot.model.kind.incremental().is_none() || snapshot.model.kind.full_history_restatement_only()
        {
            return range;
        }
        let upstream = |name: &ModelName| records.get(name).map(|record| record.snapshot.clone());
        let unit = snapshot.interval_unit();
        let mut reached = range;
        for (parent, reads) in reads_through_views(snapshot, &upstream) {
            let Some(restated) = above.get(&parent) else { continue };
            let met = match reads {
                ReadRange::Window { .. } => meeting(&reads, unit, *restated, done),
                ReadRange::Whole { .. } => None,
            };
            // What is wider than what was asked comes through views, too; direct parents hand it on.
            let same =
                || Interval::new(unit.floor(restated.start), unit.ceil(restated.end))?.intersection(done);
            let met = met.or_else(|| self.widened.contains(&parent).then(same).flatten());
            if let Some(met) = met {
                reached = Interval { start: reached.start.min(met.start), end: reached.end.max(met.end) };
            }
        }
        if reached != range || snapshot.upstream().any(|parent| self.widened.contains(parent)) {
            self.widened.insert(record.name().clone());
        }
        reached
    }
}

/// The units within `done` whose reads meet a range; nothing where units read no more than their own
/// time.
fn meeting(reads: &ReadRange, unit: IntervalUnit, range: Interval, done: Interval) -> Option<Interval> {
    let cell = |start| Interval { start, end: unit.next(start) };
    let meets = |cell: Interval| reads.range(cell).is_some_and(|read| read.overlaps(range));
    let first = unit.floor(range.start);
    if !is_wider(reads, cell(first)) {
        return None;
    }
    let mut met = Interval { start: first, end: unit.ceil(range.end).max(unit.next(first)) };
    while met.end < done.end && meets(cell(met.end)) {
        met.end = unit.next(met.end);
    }
    while met.start > done.start && meets(cell(unit.prev(met.start))) {
        met.start = unit.prev(met.start);
    }
    Some(met)
}

/// Whether a unit reads more than its own time. Columns that tell days only are read by whole days:
/// that alone proves nothing.
fn is_wider(reads: &ReadRange, cell: Interval) -> bool {
    let day = IntervalUnit::Day;
    let days = Interval { start: day.floor(cell.start), end: day.ceil(cell.end) };
    reads.range(cell).is_some_and(|read| {
        let by_days = day.is_aligned(read.start) && day.is_aligned(read.end) && days.contains(read);
        !cell.contains(read) && !by_days
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::Timestamp;
    use crate::sql::{Anchor, Bound, Point, Step, Window};

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    /// From `back` before a batch's start to `ahead` after its end.
    fn window(back: i64, ahead: i64) -> ReadRange {
        let point = |anchor, millis: i64, micros: i64| {
            Bound::At(Point { anchor, steps: vec![Step::Micros(millis * 1000 + micros)] })
        };
        let window = Window { lower: point(Anchor::Start, -back, 0), upper: point(Anchor::End, ahead, 1) };
        ReadRange::Window { window, why: String::new() }
    }

    fn range(start: i64, end: i64) -> Interval {
        Interval { start: Timestamp(start), end: Timestamp(end) }
    }

    #[test]
    fn units_whose_window_meets_the_range_are_reached_as_far_as_they_are_complete() {
        let day = IntervalUnit::Day;
        let all = range(0, 100 * DAY);
        let one = range(10 * DAY, 11 * DAY);
        for (reads, done, expected) in [
            (window(0, 0), all, None),
            (window(6 * DAY, 0), all, Some((10, 17))),
            (window(0, 2 * DAY), all, Some((8, 11))),
            (window(30 * DAY, 30 * DAY), range(5 * DAY, 12 * DAY), Some((5, 12))),
        ] {
            let met = meeting(&reads, day, one, done);
            assert_eq!(met.map(|met| (met.start.0 / DAY, met.end.0 / DAY)), expected, "{reads:?}");
        }
    }

    #[test]
    fn hours_that_read_their_whole_day_because_columns_tell_no_more_reach_nothing_else() {
        let hour = IntervalUnit::Hour;
        let cell = range(10 * DAY + 4 * HOUR, 10 * DAY + 5 * HOUR);
        assert!(!is_wider(&window(4 * HOUR, 19 * HOUR), cell));
        let met = meeting(&window(HOUR, 0), hour, cell, range(0, 100 * DAY)).expect("an hour more");
        assert_eq!((met.start, met.end), (cell.start, Timestamp(cell.end.0 + HOUR)));
    }
}

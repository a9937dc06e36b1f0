//! What is left of candidate ranges when only some of their time is ready.

use super::{Interval, IntervalSet, IntervalUnit};

/// The whole units of candidate ranges that lie inside what is ready.
///
/// A candidate's last piece may be less than a unit (`allow_partials`); it counts as one.
pub fn ready_units(candidates: &IntervalSet, ready: &IntervalSet, unit: IntervalUnit) -> IntervalSet {
    let mut found = IntervalSet::new();
    for candidate in candidates.ranges() {
        for range in ready.clip(*candidate).ranges() {
            let start = if range.start == candidate.start { range.start } else { unit.ceil(range.start) };
            let end = if range.end == candidate.end { range.end } else { unit.floor(range.end) };
            if let Some(whole) = Interval::new(start, end) {
                found.insert(whole);
            }
        }
    }
    found
}

/// Candidate ranges without those units that overlap what isn't ready.
///
/// `sequential`: batches depend on the past, so nothing from the first such unit on is left.
pub fn without_unready(
    candidates: &IntervalSet,
    unready: &IntervalSet,
    unit: IntervalUnit,
    sequential: bool,
) -> IntervalSet {
    let mut left = candidates.clone();
    for candidate in candidates.ranges() {
        for range in unready.clip(*candidate).ranges() {
            let start = unit.floor(range.start).max(candidate.start);
            let end = unit.ceil(range.end).min(candidate.end);
            let end = if sequential { candidates.hull().map_or(end, |hull| hull.end) } else { end };
            left.remove(Interval { start, end });
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::Timestamp;

    const HOUR: i64 = 3_600_000;

    fn hours(ranges: &[(i64, i64)]) -> IntervalSet {
        ranges
            .iter()
            .map(|(a, b)| Interval { start: Timestamp(a * HOUR), end: Timestamp(b * HOUR) })
            .collect()
    }

    #[test]
    fn only_whole_units_inside_what_is_ready_are_left() {
        for (candidates, ready, left) in [
            (&[(0, 96)][..], &[(0, 24), (30, 72)][..], &[(0, 24), (48, 72)][..]),
            (&[(0, 96)], &[], &[]),
            (&[(0, 48)], &[(-5, 500)], &[(0, 48)]),
            // The last piece is a part of a day, and ready as such.
            (&[(0, 29)], &[(0, 29)], &[(0, 29)]),
            (&[(0, 29)], &[(0, 28)], &[(0, 24)]),
            (&[(0, 24), (48, 72)], &[(0, 72)], &[(0, 24), (48, 72)]),
        ] {
            assert_eq!(ready_units(&hours(candidates), &hours(ready), IntervalUnit::Day), hours(left));
        }
    }

    #[test]
    fn what_touches_unready_time_is_dropped_and_with_the_past_all_after_it() {
        let candidates = hours(&[(0, 96), (120, 144)]);
        let unready = hours(&[(30, 31)]);
        let day = IntervalUnit::Day;
        assert_eq!(
            without_unready(&candidates, &unready, day, false),
            hours(&[(0, 24), (48, 96), (120, 144)])
        );
        assert_eq!(without_unready(&candidates, &unready, day, true), hours(&[(0, 24)]));
        assert_eq!(without_unready(&candidates, &hours(&[(100, 110)]), day, true), candidates);
    }
}

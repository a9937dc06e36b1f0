//! Interval sets against sets of points.

use coord_common::interval::{BatchPlan, Interval, IntervalSet, IntervalUnit, Timestamp};

/// Points that the naive set knows.
const POINTS: i64 = 128;

/// Three sets, and steps that change or combine them.
pub(crate) fn algebra(bytes: &[u8]) {
    let mut sets =
        [(IntervalSet::default(), 0_u128), (IntervalSet::default(), 0), (IntervalSet::default(), 0)];
    for step in bytes.as_chunks::<4>().0 {
        let [what, which, start, length] = step.map(i64::from);
        let (of, other) = ((which % 3) as usize, (which / 3 % 3) as usize);
        let range =
            Interval::new(Timestamp(start % POINTS), Timestamp((start % POINTS + length % 40).min(POINTS)));
        let mask = range.map_or(0, points);
        let ((left, left_mask), (right, right_mask)) = (sets[of].clone(), sets[other].clone());
        match (what % 7, range) {
            (0, Some(range)) => {
                sets[of].0.insert(range);
                sets[of].1 |= mask;
            }
            (1, Some(range)) => {
                sets[of].0.remove(range);
                sets[of].1 &= !mask;
            }
            (2, _) => sets[of] = (left.union(&right), left_mask | right_mask),
            (3, _) => sets[of] = (left.difference(&right), left_mask & !right_mask),
            (4, _) => sets[of] = (left.intersection(&right), left_mask & right_mask),
            (5, Some(range)) => sets[of] = (left.clip(range), left_mask & mask),
            (_, Some(range)) => {
                assert_eq!(left.covers(range), left_mask & mask == mask, "{left:?} covers {range}");
                assert_eq!(left.overlaps(range), left_mask & mask != 0, "{left:?} overlaps {range}");
            }
            _ => {}
        }
        check(&sets[of].0, sets[of].1);
        batches(&sets[of].0, u32::from(step[3]));
    }
}

fn points(range: Interval) -> u128 {
    (range.start.0..range.end.0).fold(0, |mask, point| mask | 1 << point)
}

/// The set has these points, and its ranges are sorted, not empty and apart.
fn check(set: &IntervalSet, mask: u128) {
    assert_eq!(set.ranges().iter().fold(0, |all, range| all | points(*range)), mask, "{set:?}");
    assert!(set.ranges().iter().all(|range| range.start < range.end), "{set:?}");
    assert!(set.ranges().windows(2).all(|pair| pair[0].end < pair[1].start), "{set:?}");
    assert_eq!(set.is_empty(), mask == 0);
    let hull = set.hull().map(|hull| (hull.start.0, hull.end.0));
    let bounds =
        (mask != 0).then(|| (i64::from(mask.trailing_zeros()), POINTS - i64::from(mask.leading_zeros())));
    assert_eq!(hull, bounds);
}

/// Batches cover what they are cut from, and nothing twice.
fn batches(set: &IntervalSet, size: u32) {
    let hour = 3_600_000;
    let hours = |range: &Interval| Interval {
        start: Timestamp(range.start.0 * hour),
        end: Timestamp(range.end.0 * hour),
    };
    let set: IntervalSet = set.ranges().iter().map(hours).collect();
    let mut left = set.clone();
    for batch in BatchPlan::new(&set, IntervalUnit::Hour, Some(size)).iter() {
        assert!(left.covers(batch), "{batch} of {set:?}");
        left.remove(batch);
    }
    assert!(left.is_empty(), "{left:?} of {set:?}");
}

pub(crate) fn steps() -> Vec<Vec<u8>> {
    vec![
        vec![0, 0, 3, 10, 0, 1, 8, 20, 2, 3, 0, 0, 6, 0, 4, 6],
        vec![0, 0, 0, 39, 1, 0, 10, 5, 0, 4, 12, 9, 3, 1, 0, 0, 4, 5, 0, 0, 5, 0, 5, 30],
    ]
}

//! How a node's ranges are cut into batches, lazily: cells are found on demand, and only every
//! 32nd boundary is kept.

use std::fmt;
use std::sync::Arc;

use coord_common::interval::{Interval, IntervalSet, Timestamp};

const STRIDE: usize = 32;

/// How to cut a contiguous range into batches, from its start.
pub trait Cut: Send + Sync {
    /// The first batch of a range: starts where the range starts, and lies inside it.
    ///
    /// What remains after it is cut again in the same way.
    fn first(&self, run: Interval) -> Interval;
}

/// Doesn't cut: each contiguous range is one batch, as for FULL models and views.
#[derive(Debug, Clone, Copy)]
pub struct Whole;

impl Cut for Whole {
    fn first(&self, run: Interval) -> Interval {
        run
    }
}

/// The cells of a node: its ranges at admission, cut.
pub(super) struct Grid {
    cut: Arc<dyn Cut>,
    runs: Vec<Run>,
    count: Option<u64>,
}

impl fmt::Debug for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.runs.iter().map(|run| run.range)).finish()
    }
}

struct Run {
    range: Interval,
    /// Starts of every `STRIDE`th cell, as far as the run was walked.
    marks: Vec<Timestamp>,
    /// The start of the first cell not yet walked.
    frontier: Timestamp,
    since_mark: usize,
    /// The cell found last: the next question is mostly about it or the one after.
    hint: Option<Interval>,
}

impl Grid {
    pub(super) fn new(cut: Arc<dyn Cut>, todo: &IntervalSet) -> Self {
        let run = |range: &Interval| Run {
            range: *range,
            marks: vec![range.start],
            frontier: range.start,
            since_mark: 0,
            hint: None,
        };
        Self { cut, runs: todo.ranges().iter().map(run).collect(), count: None }
    }

    /// The cell that holds a point.
    pub(super) fn cell_at(&mut self, at: Timestamp) -> Option<Interval> {
        let index = self.runs.partition_point(|run| run.range.end <= at);
        let run = self.runs.get_mut(index)?;
        if at < run.range.start {
            return None;
        }
        let mark = run.marks.partition_point(|mark| *mark <= at) - 1;
        let mut start = run.marks[mark];
        if let Some(hint) = run.hint.filter(|hint| hint.start <= at) {
            start = start.max(hint.start);
        }
        loop {
            let cell = run.step(&*self.cut, start);
            if cell.end > at {
                run.hint = Some(cell);
                return Some(cell);
            }
            start = cell.end;
        }
    }

    /// The cell that holds a point, found without taking note of the way.
    pub(super) fn peek(&self, at: Timestamp) -> Option<Interval> {
        let run = &self.runs[self.runs.partition_point(|run| run.range.end <= at)..];
        let run = run.first().filter(|run| run.range.start <= at)?;
        let mark = run.marks.partition_point(|mark| *mark <= at) - 1;
        let mut cell = run.cell(&*self.cut, run.marks[mark]);
        while cell.end <= at {
            cell = run.cell(&*self.cut, cell.end);
        }
        Some(cell)
    }

    /// The first cell that ends after `from` and for which `holds`, which must not turn false
    /// again once it is true.
    pub(super) fn first_where(
        &mut self,
        from: Timestamp,
        holds: impl Fn(Interval) -> bool,
    ) -> Option<Interval> {
        let index = self.runs.partition_point(|run| run.range.end <= from);
        let cut = &*self.cut;
        self.runs[index..].iter_mut().find_map(|run| run.first_where(cut, from, &holds))
    }

    /// How many cells there are. Walks them all the first time.
    pub(super) fn count(&mut self) -> u64 {
        if let Some(count) = self.count {
            return count;
        }
        let mut count = 0;
        for run in &mut self.runs {
            let mut start = run.range.start;
            while start < run.range.end {
                start = run.step(&*self.cut, start).end;
                count += 1;
            }
        }
        *self.count.insert(count)
    }
}

impl Run {
    /// The cell that starts at `start`, which must be a boundary inside the run.
    fn cell(&self, cut: &dyn Cut, start: Timestamp) -> Interval {
        let rest = Interval { start, end: self.range.end };
        let cell = cut.first(rest);
        // A cut that leaves the range or takes nothing would loop: then the rest is one batch.
        if cell.start == start && cell.end > start && rest.contains(cell) { cell } else { rest }
    }

    /// The same, and a mark where one is due.
    fn step(&mut self, cut: &dyn Cut, start: Timestamp) -> Interval {
        let cell = self.cell(cut, start);
        if start == self.frontier {
            self.frontier = cell.end;
            self.since_mark += 1;
            if self.since_mark == STRIDE && cell.end < self.range.end {
                self.marks.push(cell.end);
                self.since_mark = 0;
            }
        }
        cell
    }

    fn first_where(
        &mut self,
        cut: &dyn Cut,
        from: Timestamp,
        holds: &impl Fn(Interval) -> bool,
    ) -> Option<Interval> {
        // No cell can be further to the right than the run's last point.
        let last = Interval { start: Timestamp(self.range.end.0 - 1), end: self.range.end };
        if !holds(last) {
            return None;
        }
        let mut low = self.marks.partition_point(|mark| *mark <= from).saturating_sub(1);
        let mut high = self.marks.len();
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let mark = self.marks[middle];
            if holds(self.step(cut, mark)) {
                high = middle;
            } else {
                low = middle;
            }
        }
        let mut start = self.marks[low];
        while start < self.range.end {
            let cell = self.step(cut, start);
            if cell.end > from && holds(cell) {
                return Some(cell);
            }
            start = cell.end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Every(i64);

    impl Cut for Every {
        fn first(&self, run: Interval) -> Interval {
            Interval { start: run.start, end: Timestamp((run.start.0 + self.0).min(run.end.0)) }
        }
    }

    fn range(start: i64, end: i64) -> Interval {
        Interval { start: Timestamp(start), end: Timestamp(end) }
    }

    #[test]
    fn cells_are_cut_from_the_start_of_each_run() {
        let todo = [range(0, 1000), range(1003, 1010)].into_iter().collect();
        let mut grid = Grid::new(Arc::new(Every(7)), &todo);
        assert_eq!(grid.cell_at(Timestamp(700)), Some(range(700, 707)));
        assert_eq!(grid.cell_at(Timestamp(13)), Some(range(7, 14)));
        assert_eq!(grid.cell_at(Timestamp(999)), Some(range(994, 1000)));
        assert_eq!(grid.cell_at(Timestamp(1001)), None);
        assert_eq!(grid.cell_at(Timestamp(1005)), Some(range(1003, 1010)));
        assert_eq!(grid.count(), 144);
    }

    #[test]
    fn the_first_cell_past_a_point_is_found_wherever_it_lies() {
        let todo = [range(0, 1000), range(1003, 1010)].into_iter().collect();
        for warm in [false, true] {
            let mut grid = Grid::new(Arc::new(Every(7)), &todo);
            if warm {
                grid.count();
            }
            for (from, least, expected) in [
                (0, 0, Some(range(0, 7))),
                (300, 0, Some(range(294, 301))),
                (0, 500, Some(range(504, 511))),
                (0, 1001, Some(range(1003, 1010))),
                (0, 1004, None),
            ] {
                let found = grid.first_where(Timestamp(from), |cell| cell.start.0 >= least);
                assert_eq!(found, expected, "from {from}, starting at {least} or later");
            }
        }
    }
}

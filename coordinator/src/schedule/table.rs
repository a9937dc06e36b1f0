//! Tables as all plans share them: what is done, what is in flight, who works on them.

use std::collections::{BTreeMap, BTreeSet};

use coord_common::id::{PlanId, Token, WorkerId};
use coord_common::interval::{Interval, IntervalSet, Timestamp};
use coord_common::task::{Mode, TableId};

use super::event::TableState;

/// A node of an admitted plan: the plan's admission number and the node's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeRef {
    pub(super) plan: u64,
    pub(super) node: usize,
}

/// A table's number while any plan or lease refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TableNo(u64);

#[derive(Debug)]
pub(super) struct Table {
    pub(super) id: TableId,
    pub(super) done: IntervalSet,
    pub(super) created: bool,
    /// Lost batches: whoever held them may still be writing.
    pub(super) lost: BTreeSet<Interval>,
    /// Leased batches; no two overlap.
    pub(super) in_flight: BTreeMap<Interval, Token>,
    /// Those in flight that wait behind another batch of the table.
    pub(super) queued: usize,
    /// Those in flight behind which another batch may wait.
    pub(super) places: BTreeSet<Token>,
    /// How long its batches take, in milliseconds: a moving average, once one has ended.
    pub(super) pace: Option<u64>,
    /// The worker that did the last batch of it, unless one has failed since.
    pub(super) home: Option<WorkerId>,
    /// The nodes of unsettled plans that work on it.
    pub(super) users: BTreeSet<NodeRef>,
    /// Plans that restate it.
    pub(super) holds: Vec<Hold>,
}

/// A plan that restates a table keeps plans that came later from it; everybody, once it publishes.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) plan: PlanId,
    /// Plans with a greater number came later.
    pub(super) since: u64,
    pub(super) publishing: bool,
}

impl Table {
    /// How many of its batches workers may be working on at this time.
    pub(super) fn running(&self) -> usize {
        self.in_flight.len() - self.queued
    }

    /// Takes note of how long a batch took, in milliseconds.
    pub(super) fn took(&mut self, millis: u64) {
        self.pace = Some(self.pace.map_or(millis, |pace| (pace * 7 + millis) / 8));
    }

    /// The leased batch that overlaps a range.
    pub(super) fn busy(&self, interval: Interval) -> Option<Interval> {
        let bound = Interval { start: interval.end, end: Timestamp(i64::MIN) };
        let (last, _) = self.in_flight.range(..bound).next_back()?;
        last.overlaps(interval).then_some(*last)
    }

    /// The plan that keeps another one, of a number, from the table.
    pub(super) fn held_from(&self, plan: PlanId, number: u64) -> Option<PlanId> {
        let keeps = |hold: &&Hold| hold.plan != plan && (hold.publishing || hold.since < number);
        self.holds.iter().find(keeps).map(|hold| hold.plan)
    }

    /// Lost batches that a batch shuts out: those that overlap its range, and all of them where it empties
    /// the table. One that committed behind that would leave rows of before, and look as if it were done.
    pub(super) fn lost_under(&self, interval: Interval, mode: Mode) -> Vec<Interval> {
        let all = matches!(mode, Mode::First | Mode::Anew);
        self.lost.iter().copied().filter(|lost| all || lost.overlaps(interval)).collect()
    }
}

/// All tables that somebody works on.
#[derive(Debug, Default)]
pub(super) struct Tables {
    ids: BTreeMap<TableId, TableNo>,
    tables: BTreeMap<TableNo, Table>,
    next: u64,
}

impl Tables {
    /// The table's number; a table seen for the first time starts as `state` says.
    pub(super) fn intern(&mut self, id: &TableId, state: Option<&TableState>) -> TableNo {
        if let Some(no) = self.ids.get(id) {
            return *no;
        }
        let no = TableNo(self.next);
        self.next += 1;
        let table = Table {
            id: id.clone(),
            done: state.map(|s| s.done.clone()).unwrap_or_default(),
            created: state.is_some_and(|s| s.created),
            lost: state.map(|s| s.lost.iter().copied().collect()).unwrap_or_default(),
            in_flight: BTreeMap::new(),
            queued: 0,
            places: BTreeSet::new(),
            pace: None,
            home: None,
            users: BTreeSet::new(),
            holds: Vec::new(),
        };
        self.ids.insert(id.clone(), no);
        self.tables.insert(no, table);
        no
    }

    pub(super) fn find(&self, id: &TableId) -> Option<TableNo> {
        self.ids.get(id).copied()
    }

    pub(super) fn get(&self, no: TableNo) -> &Table {
        self.tables.get(&no).expect("a table stays while a node or lease refers to it")
    }

    pub(super) fn get_mut(&mut self, no: TableNo) -> &mut Table {
        self.tables.get_mut(&no).expect("a table stays while a node or lease refers to it")
    }

    /// The tables that a plan keeps from others.
    pub(super) fn held_by(&self, plan: PlanId) -> Vec<TableNo> {
        let held = |(_, table): &(&TableNo, &Table)| table.holds.iter().any(|hold| hold.plan == plan);
        self.tables.iter().filter(held).map(|(no, _)| *no).collect()
    }

    /// Forgets a table that nobody works on any more.
    pub(super) fn release(&mut self, no: TableNo) {
        let unused =
            |table: &Table| table.users.is_empty() && table.in_flight.is_empty() && table.holds.is_empty();
        if self.tables.get(&no).is_some_and(unused)
            && let Some(table) = self.tables.remove(&no)
        {
            self.ids.remove(&table.id);
        }
    }
}

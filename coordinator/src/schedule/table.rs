//! Tables as all plans share them: what is done, what is in flight, who works on them.

use std::collections::{BTreeMap, BTreeSet};

use coord_common::id::Token;
use coord_common::interval::{Interval, IntervalSet, Timestamp};
use coord_common::task::TableId;

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
    /// The nodes of unsettled plans that work on it.
    pub(super) users: BTreeSet<NodeRef>,
}

impl Table {
    /// The leased batch that overlaps a range.
    pub(super) fn busy(&self, interval: Interval) -> Option<Interval> {
        let bound = Interval { start: interval.end, end: Timestamp(i64::MIN) };
        let (last, _) = self.in_flight.range(..bound).next_back()?;
        last.overlaps(interval).then_some(*last)
    }

    /// Lost batches that overlap a range.
    pub(super) fn lost_over(&self, interval: Interval) -> Vec<Interval> {
        self.lost.iter().copied().filter(|lost| lost.overlaps(interval)).collect()
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
            users: BTreeSet::new(),
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

    /// Forgets a table that nobody works on any more.
    pub(super) fn release(&mut self, no: TableNo) {
        let unused = |table: &Table| table.users.is_empty() && table.in_flight.is_empty();
        if self.tables.get(&no).is_some_and(unused)
            && let Some(table) = self.tables.remove(&no)
        {
            self.ids.remove(&table.id);
        }
    }
}

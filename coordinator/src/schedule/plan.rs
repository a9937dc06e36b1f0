//! One plan's nodes, and which of their batches could run: pure questions to interval sets.
//!
//! A node keeps one *candidate*: its earliest batch never leased before whose upstream ranges are
//! all committed. It is found by jumping over what the upstreams still miss, never by a scan of
//! all batches, which rests on read ranges moving forward with their batches.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use coord_common::id::PlanId;
use coord_common::interval::{Interval, IntervalSet, Timestamp};
use coord_common::task::{Batch, Failure, Mode, TableTask};

use super::Instant;
use super::event::{Edge, NodeMode, RetryLimits};
use super::fleet::{GatewayNo, Ready};
use super::grid::Grid;
use super::output::Record;
use super::table::{Table, TableNo, Tables};

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) id: PlanId,
    pub(super) number: u64,
    pub(super) priority: i32,
    pub(super) limits: RetryLimits,
    pub(super) nodes: Vec<Node>,
    pub(super) grids: Vec<Grid>,
    pub(super) phase: Phase,
    /// Leases granted for it.
    pub(super) in_flight: u32,
    /// Nodes for which something may still run.
    pub(super) active: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Cancelling,
    Settled,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) task: Arc<TableTask>,
    pub(super) table: TableNo,
    pub(super) gateway: GatewayNo,
    pub(super) mode: NodeMode,
    pub(super) assumed: IntervalSet,
    /// What its batches fill and doesn't count.
    pub(super) void: IntervalSet,
    pub(super) create: bool,
    /// Whether the table must still get the columns of the plan's snapshot.
    pub(super) migrate: bool,
    pub(super) concurrency: Option<u32>,
    pub(super) sequential: bool,
    pub(super) made_first: bool,
    pub(super) anew: bool,
    pub(super) parents: Vec<Edge>,
    /// Who reads it, and by which of their edges.
    pub(super) children: Vec<(usize, usize)>,
    /// The longest chain of descendants.
    pub(super) height: u32,
    /// Not yet committed.
    pub(super) todo: IntervalSet,
    /// The part of todo that was never leased.
    pub(super) pending: IntervalSet,
    pub(super) retry: BTreeMap<Interval, Retry>,
    /// Those of `retry` whose time has come.
    pub(super) due: BTreeSet<Interval>,
    pub(super) failed: BTreeMap<Interval, (Failure, u32)>,
    pub(super) in_flight: u32,
    pub(super) candidate: Option<Interval>,
    pub(super) offer: Option<Offer>,
    /// The parent because of which it stopped, or itself.
    pub(super) stopped: Option<usize>,
    pub(super) active: bool,
    /// Batches committed since admission.
    pub(super) finished: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    pub(super) attempts: u32,
    pub(super) losses: u32,
    pub(super) not_before: Instant,
}

/// The batch that a node would run next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) ready: Ready,
    pub(super) interval: Interval,
    pub(super) mode: Mode,
    /// Whether the table has room for it only behind one of its batches that are in flight.
    pub(super) behind: bool,
}

/// Why a batch can't run yet, and where to look further.
enum Block {
    /// An upstream table doesn't exist, or has other columns yet: no batch can run.
    Missing,
    /// A lease overlaps it, up to here.
    Busy(Timestamp),
    /// By this edge it reads what isn't committed, up to here.
    Reads(usize, Timestamp),
}

impl Node {
    /// The interval under which a batch that only creates or migrates the table is known.
    pub(super) const CREATE: Interval = Interval::ALL;

    /// Whether all is done that the plan wants of it.
    pub(super) fn is_complete(&self, table: &Table) -> bool {
        self.todo.is_empty() && !self.migrate && (!self.create || table.created)
    }

    fn may_run(&self, table: &Table) -> bool {
        if self.stopped.is_some() {
            return false;
        }
        let unprepared = self.migrate && !self.failed.is_empty();
        if unprepared || self.failed.contains_key(&Self::CREATE) {
            return self.in_flight > 0;
        }
        let waits = !self.pending.is_empty() || !self.retry.is_empty() || self.in_flight > 0;
        waits || ((self.migrate || self.wants_create(table)) && self.failed.is_empty())
    }

    /// Whether the plan's batches can read the table.
    pub(super) fn is_readable(&self, tables: &Tables) -> bool {
        tables.get(self.table).created && !self.migrate
    }

    pub(super) fn wants_create(&self, table: &Table) -> bool {
        self.todo.is_empty() && self.create && !table.created
    }

    /// Whether nothing that is recorded of the table outlasts the batch's plan, and it is the first.
    fn starts_anew(&self, batch: Interval, table: &Table) -> bool {
        let first = self.todo.hull().is_some_and(|todo| todo.start == batch.start);
        first && (table.done.is_empty() || (self.anew && table.done.difference(&self.todo).is_empty()))
    }

    /// What of a batch doesn't count.
    pub(super) fn void_of(&self, batch: Interval) -> IntervalSet {
        self.void.intersection(&IntervalSet::from(batch))
    }

    /// Whether what doesn't count of another node's batch doesn't count here either.
    pub(super) fn is_void(&self, batch: Interval, void: &IntervalSet) -> bool {
        void.intersection(&IntervalSet::from(batch)).difference(&self.void).is_empty()
    }

    /// How many batches of its table may be in flight at once, now.
    pub(super) fn limit(&self, table: &Table) -> u32 {
        if self.sequential || !table.created { 1 } else { self.concurrency.unwrap_or(u32::MAX).max(1) }
    }
}

impl Plan {
    /// Children, heights, and which tables must exist because they are read.
    pub(super) fn link(&mut self) {
        for child in 0..self.nodes.len() {
            for edge in 0..self.nodes[child].parents.len() {
                let parent = self.nodes[child].parents[edge].node;
                self.nodes[parent].children.push((child, edge));
                self.nodes[parent].create = true;
            }
        }
        for node in self.topological().into_iter().rev() {
            let below = self.nodes[node].children.iter().map(|(child, _)| self.nodes[*child].height + 1);
            self.nodes[node].height = below.max().unwrap_or(0);
        }
    }

    /// Parents before children. Nodes of a cycle are left out; planning refuses cycles.
    fn topological(&self) -> Vec<usize> {
        let mut missing: Vec<usize> = self.nodes.iter().map(|node| node.parents.len()).collect();
        let mut queue: VecDeque<usize> = (0..self.nodes.len()).filter(|n| missing[*n] == 0).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(node) = queue.pop_front() {
            order.push(node);
            for (child, _) in &self.nodes[node].children {
                missing[*child] -= 1;
                if missing[*child] == 0 {
                    queue.push_back(*child);
                }
            }
        }
        order
    }

    /// Stops what depends on a failure and lets go what no longer does; the nodes that changed.
    pub(super) fn propagate_stops(&mut self) -> Vec<usize> {
        let mut changed = Vec::new();
        for n in self.topological() {
            let node = &self.nodes[n];
            let own = (node.sequential && !node.failed.is_empty()).then_some(n);
            let broken = |parent: &usize| {
                !self.nodes[*parent].failed.is_empty() || self.nodes[*parent].stopped.is_some()
            };
            let stopped = own.or_else(|| node.parents.iter().map(|edge| edge.node).find(broken));
            if stopped != node.stopped {
                self.nodes[n].stopped = stopped;
                changed.push(n);
            }
        }
        changed
    }

    /// Whether everything that a batch reads is committed.
    pub(super) fn reads_are_done(&self, n: usize, batch: Interval, tables: &Tables) -> bool {
        self.nodes[n].parents.iter().all(|edge| {
            let parent = &self.nodes[edge.node];
            parent.is_readable(tables) && !parent.todo.overlaps(edge.reads.of(batch))
        })
    }

    pub(super) fn parents_exist(&self, n: usize, tables: &Tables) -> bool {
        let parents = self.nodes[n].parents.iter().map(|edge| &self.nodes[edge.node]);
        parents.into_iter().all(|parent| parent.is_readable(tables))
    }

    /// Looks anew for the candidate, from a point on.
    pub(super) fn rescan(&mut self, n: usize, from: Timestamp, tables: &Tables) {
        self.nodes[n].candidate = self.search(n, from, tables, |_| false);
    }

    /// Takes note that a node's upstream, read by an edge, has committed a range.
    pub(super) fn upstream_committed(&mut self, n: usize, edge: usize, range: Interval, tables: &Tables) {
        let reads = self.nodes[n].parents[edge].reads.clone();
        if self.nodes[n].pending.is_empty() {
            return;
        }
        let first = self.grids[n].first_where(Timestamp(i64::MIN), |cell| reads.of(cell).end > range.start);
        let Some(first) = first else { return };
        if self.nodes[n].candidate.is_some_and(|candidate| candidate.start <= first.start) {
            return;
        }
        let found = self.search(n, first.start, tables, |batch| reads.of(batch).start >= range.end);
        self.offer_candidate(n, found);
    }

    /// Takes note that a lease over a range of the node's table has ended.
    pub(super) fn range_released(&mut self, n: usize, range: Interval, tables: &Tables) {
        // Whole cells: a batch waits for a lease that covers any part of it.
        let from = self.grids[n].cell_at(range.start).map_or(range.start, |cell| cell.start);
        let last = self.grids[n].cell_at(Timestamp(range.end.0 - 1));
        let freed = Interval { start: from, end: last.map_or(range.end, |cell| cell.end) };
        let node = &self.nodes[n];
        if !node.pending.overlaps(freed) || node.candidate.is_some_and(|c| c.start <= freed.start) {
            return;
        }
        let found = self.search(n, from, tables, |batch| batch.start >= freed.end);
        self.offer_candidate(n, found);
    }

    /// Fits what waits or has failed to what a commit for any plan has done: to a todo without its
    /// range, or, without one, to a table that is made now; the nodes whose stop changed. Pieces that
    /// are left of a waiting batch start afresh.
    pub(super) fn refit(
        &mut self,
        n: usize,
        range: Option<Interval>,
        tables: &Tables,
        cleared: &mut Vec<Record>,
    ) -> Vec<usize> {
        let node = &mut self.nodes[n];
        // To make a table is done once it is there, to migrate it when a lease of its own says so.
        let made = !node.migrate && tables.get(node.table).created;
        let touched = |batch: &Interval| match range {
            _ if *batch == Node::CREATE => made,
            range => range.is_some_and(|range| batch.overlaps(range)),
        };
        let waiting: Vec<Interval> = node.retry.keys().copied().filter(touched).collect();
        let failed: Vec<Interval> = node.failed.keys().copied().filter(touched).collect();
        let filled: Vec<Interval> = failed
            .into_iter()
            .filter(|batch| *batch == Node::CREATE || !node.todo.overlaps(*batch))
            .collect();
        for batch in &waiting {
            node.retry.remove(batch);
            node.due.remove(batch);
            if *batch == Node::CREATE {
                continue;
            }
            for piece in node.todo.clip(*batch).ranges() {
                node.pending.insert(*piece);
            }
        }
        for batch in &filled {
            node.failed.remove(batch);
        }
        let healed = !filled.is_empty() && node.failed.is_empty();
        let named = |interval| Batch { table: node.task.table.clone(), interval };
        let gone = waiting.iter().chain(&filled);
        cleared.extend(gone.map(|batch| Record::Cleared { plan: self.id, batch: named(*batch) }));
        if !waiting.is_empty() {
            self.rescan(n, Timestamp(i64::MIN), tables);
        }
        if healed { self.propagate_stops() } else { Vec::new() }
    }

    fn offer_candidate(&mut self, n: usize, found: Option<Interval>) {
        let candidate = &mut self.nodes[n].candidate;
        *candidate = match (*candidate, found) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
    }

    /// The first batch from a point on that could run, unless `stop` says that it is too far.
    fn search(
        &mut self,
        n: usize,
        from: Timestamp,
        tables: &Tables,
        stop: impl Fn(Interval) -> bool,
    ) -> Option<Interval> {
        let Self { nodes, grids, .. } = self;
        let (node, grid) = (&nodes[n], &mut grids[n]);
        let table = tables.get(node.table);
        let mut at = from;
        loop {
            let ranges = node.pending.ranges();
            let range = ranges.get(ranges.partition_point(|range| range.end <= at))?;
            let cell = grid.cell_at(range.start.max(at))?;
            let batch = cell.intersection(*range)?;
            if stop(batch) {
                return None;
            }
            match block(nodes, node, batch, table, tables) {
                None => return Some(batch),
                Some(Block::Missing) => return None,
                Some(Block::Busy(end)) => {
                    let last = grid.cell_at(Timestamp(end.0 - 1)).map_or(batch.end, |cell| cell.start);
                    at = batch.end.max(last);
                }
                // Another piece of the same cell may read less.
                Some(Block::Reads(..)) if batch.end < cell.end => at = batch.end,
                Some(Block::Reads(edge, end)) => {
                    let reads = &node.parents[edge].reads;
                    at = grid.first_where(cell.end, |cell| reads.of(cell).start >= end)?.start;
                }
            }
        }
    }

    /// What the node would run next, given what else is in flight.
    pub(super) fn next_offer(&mut self, n: usize, tables: &Tables) -> Option<Offer> {
        let table = tables.get(self.nodes[n].table);
        if self.phase != Phase::Running || self.nodes[n].stopped.is_some() {
            return None;
        }
        let full = table.running() >= self.nodes[n].limit(table) as usize;
        if (full && table.places.is_empty()) || table.held_from(self.id, self.number).is_some() {
            return None;
        }
        let offer = self.offer_with_room(n, tables)?;
        if full && offer.mode != Mode::Write {
            return None;
        }
        Some(Offer { behind: full, ..offer })
    }

    /// What the node would run next if its table's limit allows it.
    fn offer_with_room(&mut self, n: usize, tables: &Tables) -> Option<Offer> {
        let table = tables.get(self.nodes[n].table);
        if self.nodes[n].migrate {
            return self.whole_offer(n, Mode::Migrate, table, tables);
        }
        if self.nodes[n].wants_create(table) {
            return self.whole_offer(n, Mode::Create, table, tables);
        }
        if let Some(candidate) = self.nodes[n].candidate
            && (!self.nodes[n].pending.covers(candidate) || table.busy(candidate).is_some())
        {
            self.rescan(n, candidate.start, tables);
        }
        if self.creates_ahead(n, table) {
            return self.whole_offer(n, Mode::Create, table, tables);
        }
        let node = &self.nodes[n];
        let retry = node.due.iter().copied().find(|batch| table.busy(*batch).is_none());
        let interval = retry.into_iter().chain(node.candidate).min()?;
        let first = node.todo.hull()?.start;
        if node.sequential && interval.start > first {
            return None;
        }
        let mode = match (node.mode, table.created) {
            (NodeMode::Audit, _) => Mode::Audit,
            (NodeMode::Write, false) => Mode::First,
            (NodeMode::Write, true) if node.starts_anew(interval, table) => Mode::Anew,
            (NodeMode::Write, true) => Mode::Write,
        };
        Some(self.offer(n, interval, mode))
    }

    /// Whether the table is made by a lease of its own before its batches, so that several can begin
    /// at once and those of what reads it find theirs made, too.
    fn creates_ahead(&mut self, n: usize, table: &Table) -> bool {
        let node = &self.nodes[n];
        if table.created || !node.made_first {
            return false;
        }
        if !node.failed.is_empty() {
            // What can't be made can't be filled either.
            return node.failed.contains_key(&Node::CREATE);
        }
        if node.retry.contains_key(&Node::CREATE) {
            return true;
        }
        let Some(todo) = node.todo.hull() else { return false };
        self.grids[n].cell_at(todo.start).is_some_and(|first| first.end < todo.end)
    }

    /// A batch that is about the table as a whole.
    fn whole_offer(&self, n: usize, mode: Mode, table: &Table, tables: &Tables) -> Option<Offer> {
        let node = &self.nodes[n];
        let waits = node.retry.contains_key(&Node::CREATE) && !node.due.contains(&Node::CREATE);
        let ready = !waits
            && node.failed.is_empty()
            && table.busy(Node::CREATE).is_none()
            && self.parents_exist(n, tables);
        ready.then(|| self.offer(n, Node::CREATE, mode))
    }

    fn offer(&self, n: usize, interval: Interval, mode: Mode) -> Offer {
        let ready = Ready::Batch {
            priority: Reverse(self.priority),
            plan: self.number,
            creates: Reverse(matches!(mode, Mode::Create | Mode::First | Mode::Migrate)),
            height: Reverse(self.nodes[n].height),
            start: interval.start,
            node: n,
        };
        Offer { ready, interval, mode, behind: false }
    }

    /// Brings the count of active nodes up to date.
    pub(super) fn renew_active(&mut self, n: usize, tables: &Tables) {
        let node = &mut self.nodes[n];
        let active = node.may_run(tables.get(node.table));
        if active != node.active {
            node.active = active;
            self.active = if active { self.active + 1 } else { self.active - 1 };
        }
    }
}

fn block(nodes: &[Node], node: &Node, batch: Interval, table: &Table, tables: &Tables) -> Option<Block> {
    for (index, edge) in node.parents.iter().enumerate() {
        let parent = &nodes[edge.node];
        if !parent.is_readable(tables) {
            return Some(Block::Missing);
        }
        let reads = edge.reads.of(batch);
        let todo = parent.todo.ranges();
        let before = todo.partition_point(|range| range.start < reads.end);
        if let Some(last) = todo[..before].last()
            && last.end > reads.start
        {
            return Some(Block::Reads(index, last.end));
        }
    }
    table.busy(batch).map(|busy| Block::Busy(busy.end))
}

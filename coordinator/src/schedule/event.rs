//! What the scheduler is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use coord_common::id::{PlanId, Token, WorkerId};
use coord_common::interval::{Interval, IntervalSet};
use coord_common::task::{
    Batch, DropTable, Failure, Mode, Outcome, Promote, Publish, ReadRange, TableId, TableTask, Work,
};

use super::grid::Cut;

/// Something that happened. Time is given beside it.
#[derive(Debug, Clone)]
pub enum Event {
    /// A plan is to be carried out. Its todo is already durable. Admitting a plan that is already
    /// there changes nothing.
    Admit(PlanWork),
    /// A table that was to be dropped is needed again.
    Spare(TableId),
    /// What a former leader had recorded; after all plans were admitted (also those that are being
    /// cancelled: they are cancelled again afterwards), before any worker asks.
    Recovered(Recovered),
    /// An environment's views are to be switched on behalf of a plan, which needn't be admitted.
    Promote(Promote, PlanId),
    /// Something is to be done on behalf of a plan that is no batch and no promotion. A takeover
    /// gives it again.
    Errand(Work, PlanId),
    /// A plan restates tables: plans that are admitted later don't start on them until it ends.
    /// Comes before the plan itself.
    Hold {
        /// The plan.
        plan: PlanId,
        /// What is recorded of the tables.
        tables: Vec<TableState>,
    },
    /// A plan that restates tables has ended.
    Release {
        /// The plan.
        plan: PlanId,
    },
    /// What a plan computed aside is to be put in place of tables that it holds, or dropped.
    Publish(Publish, PlanId),
    /// Ranges of tables count as empty from now on: what they were computed from was restated. What
    /// follows must be durable before that is.
    Clear(Vec<(TableId, Interval)>),
    /// A table that nothing needs is to be dropped; the id names the chore in its lease.
    Drop(DropTable, PlanId),
    /// A worker wants leases. Replaces what it asked for before.
    Ask {
        /// Who asks.
        worker: WorkerId,
        /// Gateways that it can reach.
        gateways: BTreeSet<String>,
        /// How many leases it would take to begin at once, at most.
        free: u32,
        /// Whether it also takes leases behind those that it works on, one behind each.
        queues: bool,
    },
    /// A worker says what came of a lease.
    Report {
        /// Who reports.
        worker: WorkerId,
        /// The lease's token.
        token: Token,
        /// What came of it.
        outcome: Outcome,
    },
    /// A worker is alive and works on leases.
    Heartbeat {
        /// Who is alive.
        worker: WorkerId,
        /// The leases that it believes to hold.
        tokens: Vec<Token>,
    },
    /// A worker takes no more leases, for good.
    Drain {
        /// Which worker.
        worker: WorkerId,
    },
    /// A worker's connection is closed for good. Leases that it didn't hand back expire as usual.
    WorkerGone {
        /// Which worker.
        worker: WorkerId,
    },
    /// Time has passed.
    Tick,
    /// A plan is to be given up.
    Cancel {
        /// Which plan.
        plan: PlanId,
    },
    /// How many leases each gateway allows at once in the whole fleet; others have no limit.
    Limits(BTreeMap<String, u32>),
}

/// What a plan has to compute.
#[derive(Debug, Clone)]
pub struct PlanWork {
    /// The plan.
    pub plan: PlanId,
    /// Plans with more go first; among equals the one admitted first.
    pub priority: i32,
    /// How often a batch may fail or be lost.
    pub limits: RetryLimits,
    /// The recorded state of all tables of the nodes. What the scheduler itself already knows
    /// about a table is newer and wins.
    pub tables: Vec<TableState>,
    /// One per table. Edges between them must not form a cycle.
    pub nodes: Vec<NodeWork>,
}

/// How often a batch may fail or be lost before it counts as failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryLimits {
    /// Transient failures, at least 1.
    pub max_attempts: u32,
    /// Leases whose worker vanished, at least 1.
    pub max_losses: u32,
}

impl Default for RetryLimits {
    fn default() -> Self {
        Self { max_attempts: 4, max_losses: 3 }
    }
}

/// What is recorded of a table.
#[derive(Debug, Clone)]
pub struct TableState {
    /// The table.
    pub table: TableId,
    /// What is filled.
    pub done: IntervalSet,
    /// Whether it exists in the warehouse.
    pub created: bool,
    /// Batches whose leases were lost, and which nothing has superseded since.
    pub lost: Vec<Interval>,
}

/// One table's part of a plan.
#[derive(Clone)]
pub struct NodeWork {
    /// What all its batches share.
    pub task: Arc<TableTask>,
    /// What the plan must still fill (or audit) of it.
    pub todo: IntervalSet,
    /// What counts as filled once the table is made, although nobody fills it.
    pub assumed: IntervalSet,
    /// What doesn't count although the plan fills it: it follows from rows that were restated since the
    /// plan began.
    pub void: IntervalSet,
    /// Whether the table must exist at the end, even if there is nothing to fill. Also assumed
    /// where another node reads the table.
    pub create: bool,
    /// Whether the table must get the columns of the snapshot before any batch of the plan reads or
    /// writes it.
    pub migrate: bool,
    /// What its batches do.
    pub mode: NodeMode,
    /// How todo is cut into batches.
    pub cut: Arc<dyn Cut>,
    /// How many batches of the table may be in flight at once.
    pub concurrency: Option<u32>,
    /// Whether batches depend on the past: each only after all earlier ones are committed.
    pub sequential: bool,
    /// Whether a lease of its own makes the table before the first of several batches. Otherwise that
    /// batch makes it along the way.
    pub made_first: bool,
    /// Whether a todo that covers all that is recorded of the table replaces the whole of it, as a
    /// restatement does; otherwise only a table of which nothing is recorded is filled anew.
    pub anew: bool,
    /// What it reads.
    pub parents: Vec<Edge>,
}

impl fmt::Debug for NodeWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeWork").field("table", &self.task.table).field("todo", &self.todo).finish()
    }
}

/// What a node's batches do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeMode {
    /// Fill the table.
    Write,
    /// Only run the audits.
    Audit,
}

/// A node's reading of another node of the same plan.
#[derive(Debug, Clone)]
pub struct Edge {
    /// The index of the node that is read.
    pub node: usize,
    /// Which range of it a batch reads.
    pub reads: ReadRange,
}

/// Something that a former leader had recorded.
#[derive(Debug, Clone)]
pub enum Recovered {
    /// A batch is leased. Its deadline starts anew, its token stays valid.
    Leased {
        /// The lease's token.
        token: Token,
        /// Who holds it.
        worker: WorkerId,
        /// The plan that it was granted for.
        plan: PlanId,
        /// The batch.
        batch: Batch,
        /// What it does.
        mode: Mode,
        /// Failed attempts before.
        attempts: u32,
        /// Lost leases before.
        losses: u32,
        /// The plans whose todo its commit shrinks.
        serves: Vec<PlanId>,
        /// Lost batches that it supersedes.
        supersedes: Vec<Batch>,
        /// What was cleared while it was leased.
        void: IntervalSet,
    },
    /// A promotion is leased; it was given with [`Event::Promote`] before.
    Promoting {
        /// The lease's token.
        token: Token,
        /// Who holds it.
        worker: WorkerId,
        /// The promotion.
        promote: Promote,
    },
    /// A batch waits for its next attempt.
    Waiting {
        /// The plan.
        plan: PlanId,
        /// The batch.
        batch: Batch,
        /// Failed attempts.
        attempts: u32,
        /// Lost leases.
        losses: u32,
        /// For how much longer, in milliseconds.
        delay: u64,
    },
    /// A batch has failed for good.
    Failed {
        /// The plan.
        plan: PlanId,
        /// The batch.
        batch: Batch,
        /// Failed attempts.
        attempts: u32,
        /// Why.
        failure: Failure,
    },
}

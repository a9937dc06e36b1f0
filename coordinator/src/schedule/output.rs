//! What the scheduler has decided: to be made durable first, then told.

use coord_common::id::{PlanId, Token, WorkerId};
use coord_common::interval::{Interval, IntervalSet};
use coord_common::task::{
    AuditResult, Batch, Done, DropTable, Failure, Lease, LeaseState, Mode, Promote, Publish, TableId,
    Verdict, Work,
};

/// What came of one or more events, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// What must be durable, in one transaction, before anything below is told to anybody.
    pub records: Vec<Record>,
    /// Leases for workers.
    pub grants: Vec<(WorkerId, Lease)>,
    /// Answers to reports.
    pub verdicts: Vec<(WorkerId, Token, Verdict)>,
    /// Answers to heartbeats.
    pub states: Vec<(WorkerId, Token, LeaseState)>,
    /// What the rest of the coordinator acts on.
    pub notices: Vec<Notice>,
}

/// A durable change. The keys it stands for:
///
/// | record | puts | deletes |
/// | --- | --- | --- |
/// | `Granted` | `lease/<token>` | `wait/<plan>/<batch>` |
/// | `Committed` | `iv/<table>`, `todo/<plan>/<table>` | `lease/<token>`, `lost/<batch>`, empty todos |
/// | `Lost` | `lost/<batch>` | `lease/<token>` |
/// | `Waiting` | `wait/<plan>/<batch>` | `lease/<token>` |
/// | `Failed` | `failed/<plan>/<batch>` | `lease/<token>` |
/// | `Cleared` | | `wait/<plan>/<batch>`, `failed/<plan>/<batch>` |
/// | `Released` | | `lease/<token>` |
/// | `Promoted` | the environment's "views done" | `lease/<token>` |
/// | `Filled` | `iv/<table>` | |
/// | `Published` | | `lease/<token>`, `lost/<batch>` |
/// | `Cancelled` | the plan's state | `todo/<plan>/*`, `wait/<plan>/*`, `failed/<plan>/*` |
///
/// A takeover admits every running plan with its todo, and hands back `lease`, `wait` and `failed`
/// keys as [`super::Recovered`]; `lost` keys belong to [`super::TableState`].
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A batch or promotion is leased. Comes again for the same token when another plan joins those
    /// that it serves, or when a range of it is cleared: the key is then put anew.
    Granted {
        /// The lease, as the worker gets it.
        lease: Lease,
        /// Who holds it.
        worker: WorkerId,
        /// Failed attempts before.
        attempts: u32,
        /// Lost leases before.
        losses: u32,
        /// The plans whose todo its commit shrinks.
        serves: Vec<PlanId>,
        /// What was cleared while it was leased: its commit doesn't count there.
        void: IntervalSet,
    },
    /// A batch is committed in the warehouse.
    Committed(Committed),
    /// A lease ran out. What becomes of its batch is the next record, unless its plan is cancelled.
    Lost {
        /// The lease's token.
        token: Token,
        /// The plan that it was granted for.
        plan: PlanId,
        /// The batch, whose fence the next lease over it must raise.
        batch: Batch,
    },
    /// A batch waits for its next attempt.
    Waiting {
        /// The token of the lease that ended.
        token: Token,
        /// The plan.
        plan: PlanId,
        /// The batch.
        batch: Batch,
        /// Failed attempts so far.
        attempts: u32,
        /// Lost leases so far.
        losses: u32,
        /// For how long, in milliseconds.
        delay: u64,
        /// What failed last; nothing when it was handed back or lost.
        error: Option<Failure>,
    },
    /// A batch has failed for good.
    Failed {
        /// The token of the lease that ended.
        token: Token,
        /// The plan.
        plan: PlanId,
        /// The batch.
        batch: Batch,
        /// Failed attempts.
        attempts: u32,
        /// Lost leases.
        losses: u32,
        /// What was done for it.
        mode: Mode,
        /// Why.
        failure: Failure,
    },
    /// What waited or had failed was filled on behalf of another plan.
    Cleared {
        /// The plan.
        plan: PlanId,
        /// The batch.
        batch: Batch,
    },
    /// A lease ended without a result: of a cancelled plan, or of a promotion.
    Released {
        /// The lease's token.
        token: Token,
    },
    /// An environment's views show what they should.
    Promoted {
        /// The lease's token.
        token: Token,
        /// The plan.
        plan: PlanId,
        /// What was promoted.
        promote: Promote,
    },
    /// A table holds what was computed aside.
    Filled {
        /// The table.
        table: TableId,
        /// All that is filled now.
        done: IntervalSet,
    },
    /// What a plan computed aside is in place, or dropped, on one gateway.
    Published {
        /// The lease's token.
        token: Token,
        /// The plan.
        plan: PlanId,
        /// Lost batches that can no longer change anything.
        superseded: Vec<Batch>,
    },
    /// Nothing of a cancelled plan is in flight any more.
    Cancelled {
        /// The plan.
        plan: PlanId,
    },
}

/// A batch that the warehouse committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// The lease's token.
    pub token: Token,
    /// The plan that it was granted for.
    pub plan: PlanId,
    /// The table.
    pub table: TableId,
    /// The batch's interval.
    pub interval: Interval,
    /// What was done for it.
    pub mode: Mode,
    /// Whether the table exists now.
    pub created: bool,
    /// All that is filled now.
    pub done: IntervalSet,
    /// Rows written.
    pub rows: u64,
    /// Time that the worker took, in milliseconds.
    pub millis: u64,
    /// Audits that ran.
    pub audits: Vec<AuditResult>,
    /// What is left of this table in each plan that it brought forward.
    pub shrunk: Vec<Shrunk>,
    /// Lost batches that can no longer change anything.
    pub superseded: Vec<Interval>,
}

/// What is left of a table in a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// The plan.
    pub plan: PlanId,
    /// The table.
    pub table: TableId,
    /// What it must still fill.
    pub todo: IntervalSet,
    /// Whether it must still be created.
    pub create_left: bool,
    /// Whether it must still get its columns.
    pub migrate_left: bool,
}

/// What the rest of the coordinator acts on.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// An errand is done.
    ErrandDone {
        /// The plan.
        plan: PlanId,
        /// The errand.
        work: Work,
        /// What came of it.
        done: Done,
    },
    /// An errand failed for good.
    ErrandFailed {
        /// The plan.
        plan: PlanId,
        /// The errand.
        work: Work,
        /// Why.
        failure: Failure,
    },
    /// Nothing more can run for a plan; comes once.
    PlanSettled {
        /// The plan.
        plan: PlanId,
        /// How it ended.
        outcome: PlanOutcome,
    },
    /// A cancelled plan has ended.
    PlanCancelled {
        /// The plan.
        plan: PlanId,
    },
    /// An environment's views show what they should.
    Promoted {
        /// The plan.
        plan: PlanId,
        /// What was promoted.
        promote: Promote,
    },
    /// A table is dropped.
    Dropped {
        /// Which.
        drop: DropTable,
    },
    /// A table could not be dropped; it is given up.
    DropFailed {
        /// Which.
        drop: DropTable,
        /// Why.
        failure: Failure,
    },
    /// A promotion failed in a way that a retry can't mend; it is given up.
    PromoteFailed {
        /// The plan.
        plan: PlanId,
        /// What should have been promoted.
        promote: Promote,
        /// Why.
        failure: Failure,
    },
    /// What a plan computed aside is in place, or dropped, on one gateway.
    Published {
        /// The plan.
        plan: PlanId,
        /// What was published.
        publish: Publish,
    },
    /// A publication failed in a way that a retry can't mend; it is given up.
    PublishFailed {
        /// The plan.
        plan: PlanId,
        /// What should have been published.
        publish: Publish,
        /// Why.
        failure: Failure,
    },
}

/// How a plan ended.
#[derive(Debug, Clone, PartialEq)]
pub enum PlanOutcome {
    /// All that was to be filled is filled, all tables exist.
    Complete,
    /// Some of it couldn't be.
    Failed {
        /// Batches that failed, by node and time.
        failures: Vec<FailedBatch>,
        /// Tables that weren't finished because something that they read failed.
        skipped: Vec<TableId>,
    },
}

/// A batch that failed for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedBatch {
    /// The batch.
    pub batch: Batch,
    /// Why.
    pub failure: Failure,
    /// Failed attempts.
    pub attempts: u32,
}

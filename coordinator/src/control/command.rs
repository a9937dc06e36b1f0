//! What the rest of the coordinator asks of the loop.

use std::sync::Arc;
use std::time::Duration;

use coord_common::id::{EnvironmentName, PlanId, SnapshotId, Token, WorkerId};
use coord_common::interval::Interval;
use coord_common::plan::{Blocker, Plan, Planned};
use coord_common::snapshot::SnapshotRecord;
use coord_common::task::{Lease, LeaseState, Report, TableId, Verdict};
use tokio::sync::{mpsc, oneshot, watch};

use super::approval::Approved;
use super::evidence::{Page, Told};
use super::fleet::Poll;
use super::tend::{Left, Tend, Tended, Waits};
use super::{Book, Clock, Leadership, PlanBody, PlanState, PlanView, Standing, WorkerView};
use crate::planning::Refusal;
use crate::schedule::Reason;

/// The answer's way back.
pub(crate) type Reply<T> = oneshot::Sender<T>;

/// Why a worker isn't answered.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(crate) enum Refused {
    /// It isn't registered, or not any more.
    #[error("this worker session is not registered")]
    Unknown,
    /// There are as many sessions as there may be.
    #[error("{0} worker sessions are registered, which is the limit (coordinator --max-sessions)")]
    Crowded(usize),
    /// It reports on a lease of a worker of another name.
    #[error("lease {0} is another worker's")]
    NotTheirs(Token),
}

/// Why a plan isn't applied.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ApplyError {
    /// There is no such plan.
    #[error("there is no plan `{0}`")]
    Unknown(PlanId),
    /// The environment has moved since.
    #[error("{0}")]
    Stale(String),
    /// Another plan is being applied to the environment.
    #[error("plan `{other}` is being applied to `{environment}`")]
    Busy {
        /// That plan.
        other: PlanId,
        /// The environment.
        environment: String,
    },
    /// The environment's views are being changed.
    #[error("`{environment}` is being {what}")]
    Switching {
        /// The environment.
        environment: String,
        /// How.
        what: &'static str,
    },
    /// The plan was given up.
    #[error("plan `{0}` was abandoned")]
    Abandoned(PlanId),
    /// Something speaks against it.
    #[error("{}", .0.message)]
    Blocked(Blocker),
    /// A model's kind isn't run yet.
    #[error("`{model}` is of kind {kind}, which is planned but not run yet")]
    Unsupported {
        /// The model.
        model: String,
        /// Its kind.
        kind: String,
    },
    /// The restatement was cancelled, and what it had computed is dropped.
    #[error("restatement `{0}` was cancelled, and what it had computed is dropped")]
    GivenUp(PlanId),
    /// Nobody but its author has approved it.
    #[error("`{environment}` is protected: the plan needs the approval of somebody else than {author}")]
    Unapproved {
        /// The environment.
        environment: EnvironmentName,
        /// Who made it.
        author: String,
    },
    /// Nobody approves their own plan.
    #[error("the plan is yours, `{0}`: somebody else has to approve it")]
    OwnPlan(String),
    /// The plan can't be approved any more.
    #[error("plan `{plan}` is {state}, which is too late to approve it")]
    TooLate {
        /// The plan.
        plan: PlanId,
        /// Its state.
        state: &'static str,
    },
    /// The plan can't be stopped in its state.
    #[error("plan `{plan}` is {state}")]
    NotRunning {
        /// The plan.
        plan: PlanId,
        /// Its state.
        state: &'static str,
    },
}

/// One thing asked.
pub(crate) enum Command {
    /// Time has passed.
    Tick,
    /// A worker session begins, or is known again.
    Register {
        worker: WorkerId,
        gateways: Vec<String>,
        slots: u32,
        held: Vec<Token>,
        reply: Reply<Result<(), Refused>>,
    },
    /// A worker wants leases.
    Poll { worker: WorkerId, poll: Poll, reply: Reply<Result<Vec<Lease>, Refused>> },
    /// A poll was given up by its caller.
    Unpoll { worker: WorkerId },
    /// A worker is alive.
    Heartbeat {
        worker: WorkerId,
        tokens: Vec<Token>,
        reply: Reply<Result<Vec<(Token, LeaseState)>, Refused>>,
    },
    /// A worker reports.
    Complete {
        worker: WorkerId,
        reports: Vec<Report>,
        /// Whether names of workers are proven: a report on a lease of another name is refused then,
        /// where it would only be stale otherwise.
        named: bool,
        reply: Reply<Result<Vec<(Token, Verdict)>, Refused>>,
    },
    /// A worker takes no more work.
    Drain { worker: WorkerId, reply: Reply<()> },
    /// A snapshot's record.
    Snapshot { id: SnapshotId, reply: Reply<Option<Arc<SnapshotRecord>>> },
    /// A copy of all that is known.
    Book { reply: Reply<Book> },
    /// Keep a plan.
    StorePlan { planned: Box<Planned>, by: String, reply: Reply<PlanState> },
    /// A plan's body.
    PlanBody { plan: PlanId, reply: Reply<Option<PlanBody>> },
    /// Carry a plan out.
    Apply {
        plan: PlanId,
        by: String,
        request: Option<String>,
        reply: Reply<Result<&'static str, ApplyError>>,
    },
    /// Approve a plan; whether its environment asks for it.
    Approve { plan: PlanId, by: String, reply: Reply<Result<Approved, ApplyError>> },
    /// Give a plan up.
    Cancel { plan: PlanId, by: String, reply: Reply<Result<&'static str, ApplyError>> },
    /// Tend environments.
    Tend { tend: Tend, by: String, reply: Reply<Result<Tended, Refusal>> },
    /// How far that is.
    Tended { waits: Waits, reply: Reply<Left> },
    /// Ask signals what a run that isn't applied would compute.
    AskSignals { plan: Box<Plan>, reply: Reply<super::prelude::Asked> },
    /// How far a plan is; with what ran since a place in its log.
    Progress { plan: PlanId, log: u64, since: usize, reply: Reply<Option<PlanView>> },
    /// Why a batch waits.
    Why { plan: PlanId, table: TableId, at: Interval, reply: Reply<Vec<Reason>> },
    /// What people had done, newest first.
    Evidence { page: Page, reply: Reply<Told> },
    /// The registered workers.
    Workers { reply: Reply<Vec<WorkerView>> },
}

/// How often something changed since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Turns {
    /// Turns of the loop.
    pub(crate) taken: u64,
    /// Plans that have ended.
    pub(crate) ended: u64,
}

/// A way to the loop, for any number of callers.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) sender: mpsc::Sender<Command>,
    /// What has happened so far, for those who follow it.
    pub(crate) changed: watch::Receiver<Turns>,
    /// Who leads.
    pub(crate) standing: Leadership,
    /// The wall clock.
    pub(crate) clock: Clock,
}

/// How long a call waits while nobody is known to lead: an election takes a moment.
const ELECTION_PATIENCE: Duration = Duration::from_secs(2);

/// Nobody answers: the loop is between terms, or another coordinator leads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotReady {
    /// Another coordinator leads, at this address where it advertises one.
    #[error("this coordinator stands by: another one leads{}", .0.as_ref().map(|at| format!(", at {at}")).unwrap_or_default())]
    Behind(Option<String>),
    /// Nobody is known to lead.
    #[error("no coordinator leads at the moment")]
    Nobody,
}

impl Handle {
    /// Waits for something to change since `seen`: for `pause` at least, unless a plan ends, and for
    /// `beat` more at most.
    pub(crate) async fn follow(&mut self, seen: Turns, pause: Duration, beat: Duration) {
        let ended = self.changed.wait_for(|turns| turns.ended != seen.ended);
        if tokio::time::timeout(pause, ended).await.is_err() {
            let _ = tokio::time::timeout(beat, self.changed.wait_for(|turns| *turns != seen)).await;
        }
    }

    /// Asks and waits for the answer.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, NotReady> {
        self.leads().await?;
        let (reply, answer) = oneshot::channel();
        self.sender.send(command(reply)).await.map_err(|_| NotReady::Nobody)?;
        // The term ended before it was answered; who leads next is found out by asking again.
        answer.await.map_err(|_| self.not_ready())
    }

    /// Waits a moment for somebody to lead.
    ///
    /// # Errors
    /// [`NotReady`] where it isn't this coordinator.
    pub(crate) async fn leads(&self) -> Result<(), NotReady> {
        if self.standing.get() == Standing::Leading {
            return Ok(());
        }
        let _ = tokio::time::timeout(ELECTION_PATIENCE, self.standing.anybody()).await;
        if self.standing.get() == Standing::Leading { Ok(()) } else { Err(self.not_ready()) }
    }

    fn not_ready(&self) -> NotReady {
        match self.standing.get() {
            Standing::Behind(leader) => NotReady::Behind(leader),
            Standing::Unknown | Standing::Leading => NotReady::Nobody,
        }
    }
}

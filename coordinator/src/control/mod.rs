//! The one loop that owns the scheduler, the state and the clock.
//!
//! Everything happens in turns: take what has arrived, let the scheduler decide, make its records
//! durable in transactions conditioned on this leader's term, and only then tell anybody. When the
//! store refuses, the loop ends: whoever leads next rebuilds all from the store.

mod approval;
pub(crate) mod book;
mod command;
pub(crate) mod evidence;
mod fleet;
mod flip;
mod history;
mod janitor;
mod lead;
mod plans;
mod prelude;
mod recover;
mod report;
mod restate;
mod rollback;
mod stored;
mod switch;
mod tend;
mod turn;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coord_common::id::{EnvironmentName, PlanId};
use coord_common::interval::Timestamp;
use coord_common::plan::Retention;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant as Moment, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use book::PlanState;
pub(crate) use book::{Book, PlanBody, Todo};
pub(crate) use command::{ApplyError, Command, Handle, NotReady, Refused, Turns};
pub(crate) use evidence::{Page, Told};
pub use report::{ExecutedBatch, FailureView, ModelView, PlanView, WorkerView};
pub(crate) use tend::{RollbackTo, Tend, Tended};
pub use verify::verify_record;

use crate::apply::{Group, groups};
use crate::schedule::{Config, Instant, Output, Random, Record, Scheduler};
use crate::store::{Compare, Outcome, Revision, Store, StoreError, Txn, keys};
pub(crate) use fleet::Poll;
use fleet::Workers;
use lead::Lead;
pub(crate) use lead::{Leadership, Standing};
use report::Logs;

/// Reads the wall clock: milliseconds since 1970, UTC. Only evidence and "now" of plans use it;
/// deadlines use a monotonic clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How the loop behaves.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Who this coordinator is, for people.
    pub identity: String,
    /// Where clients reach it while it leads, such as `http://host:7070`: standbys name it.
    pub address: Option<String>,
    /// How long a lease of a batch holds without a heartbeat.
    pub lease_ttl: Duration,
    /// How long this coordinator's leadership outlives it.
    pub election_ttl: Duration,
    /// First pause before a failed batch is tried again.
    pub retry_base: Duration,
    /// Whether no worker outlives the coordinator, as when both are one process: leases that are on
    /// record at the start are lost then, and needn't expire.
    pub lone: bool,
    /// For how long what was is kept.
    pub retention: Retention,
    /// Environments that change only by plans which somebody else than their author has approved.
    pub protected: BTreeSet<EnvironmentName>,
    /// Where plans are made.
    pub planning: Planning,
    /// Most connections that are open at once; those beyond are closed.
    pub connections: usize,
    /// Most sessions of workers that are registered at once; those beyond are refused.
    pub sessions: usize,
}

/// Where plans are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Planning {
    /// In a thread apart, so that nobody waits who asks for something else.
    #[default]
    Apart,
    /// In the thread of the one who asks: where all happens in one thread, in an order that can be
    /// repeated.
    InPlace,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            identity: format!("pid-{}", std::process::id()),
            address: None,
            lease_ttl: Duration::from_secs(30),
            election_ttl: Duration::from_secs(10),
            retry_base: Duration::from_secs(2),
            lone: false,
            retention: Retention::default(),
            protected: BTreeSet::new(),
            planning: Planning::default(),
            connections: 10_000,
            sessions: 10_000,
        }
    }
}

/// Why the loop ended.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The store refused or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else leads.
    #[error("this coordinator no longer leads")]
    Deposed,
}

/// Something to tell once a turn's records are durable.
pub(crate) type Answer = Box<dyn FnOnce() + Send>;

/// Most commands taken in one turn: what they record fits a few transactions.
const TURN: usize = 256;

pub(crate) struct Control {
    store: Arc<dyn Store>,
    config: ControlConfig,
    clock: Clock,
    started: Moment,
    lead: Lead,
    book: Book,
    scheduler: Scheduler,
    workers: Workers,
    logs: Logs,
    preludes: BTreeMap<coord_common::id::PlanId, prelude::Prelude>,
    /// Restatements that have ended: their tables are anybody's again.
    ended: Vec<PlanId>,
    /// The gateways on which a plan's publications aren't done yet.
    publishing: BTreeMap<PlanId, BTreeSet<String>>,
    /// The gateways whose views haven't followed yet, of a plan or a switch.
    promoting: BTreeMap<PlanId, BTreeSet<String>>,
    /// What went wrong with switches and drops, by what they were about, since this term began.
    troubles: BTreeMap<String, String>,
    /// What the next transaction is to be the evidence of.
    deeds: Vec<evidence::Deed>,
    changed: watch::Sender<Turns>,
}

/// Leads until `stop` fires or leadership is lost: campaigns, rebuilds the state, serves `inbox`.
pub(crate) async fn lead(
    store: Arc<dyn Store>,
    config: ControlConfig,
    clock: Clock,
    inbox: &mut mpsc::Receiver<Command>,
    changed: watch::Sender<Turns>,
    standing: &Leadership,
    stop: &CancellationToken,
) -> Result<(), ControlError> {
    let campaign = standing_by(Lead::campaign(store.clone(), &config, standing, stop), inbox);
    let Some(lead) = campaign.await? else { return Ok(()) };
    let mut control = Control::rebuild(store, config, clock, lead, changed).await?;
    standing.tell_floor(control.book.era.floor());
    let result = control.serve(inbox, stop).await;
    control.lead.resign().await;
    result
}

/// Waits for a campaign. What the last term left unanswered is turned away, so that callers look for
/// the leader; since then nothing is let in.
async fn standing_by<T>(campaign: impl Future<Output = T>, inbox: &mut mpsc::Receiver<Command>) -> T {
    tokio::pin!(campaign);
    loop {
        tokio::select! {
            biased;
            outcome = &mut campaign => return outcome,
            // Dropping a command drops the way back, which its caller sees as "not ready".
            Some(turned_away) = inbox.recv() => drop(turned_away),
        }
    }
}

impl Control {
    async fn rebuild(
        store: Arc<dyn Store>,
        config: ControlConfig,
        clock: Clock,
        lead: Lead,
        changed: watch::Sender<Turns>,
    ) -> Result<Self, ControlError> {
        let book = Book::load(&*store).await?;
        let (ttl, usual) = (config.lease_ttl.as_millis() as u64, Config::default());
        let limits = Config {
            ttl,
            // The worker gives up a grant after its time to live: no reason to hold it for longer.
            accept: usual.accept.min(ttl),
            recovered: ttl,
            backoff_base: config.retry_base.as_millis() as u64,
            ..usual
        };
        let base = book.era.first_token(lead.term());
        let scheduler = Scheduler::new(limits, base, Random::new(lead.term().0 as u64));
        let started = Moment::now();
        let mut control = Self {
            store,
            config,
            clock,
            started,
            lead,
            book,
            scheduler,
            workers: Workers::default(),
            logs: Logs::default(),
            preludes: BTreeMap::new(),
            ended: Vec::new(),
            publishing: BTreeMap::new(),
            promoting: BTreeMap::new(),
            troubles: BTreeMap::new(),
            deeds: Vec::new(),
            changed,
        };
        control.recover().await?;
        info!(term = control.lead.term().0, identity = control.config.identity, "leading");
        Ok(control)
    }

    async fn serve(
        &mut self,
        inbox: &mut mpsc::Receiver<Command>,
        stop: &CancellationToken,
    ) -> Result<(), ControlError> {
        let mut arrived = Vec::new();
        loop {
            let wakeup = self.wakeup();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.lead.lost() => return Err(ControlError::Deposed),
                taken = inbox.recv_many(&mut arrived, TURN) => {
                    if taken == 0 {
                        return Ok(());
                    }
                }
                () = sleep_until(wakeup) => {}
            }
            // However much arrives, what is due isn't put off.
            if wakeup <= Moment::now() {
                arrived.push(Command::Tick);
            }
            if self.lead.is_over() {
                return Err(ControlError::Deposed);
            }
            self.turn(std::mem::take(&mut arrived)).await?;
        }
    }

    /// When the scheduler wants to be asked again; at least every second, to forget workers.
    fn wakeup(&self) -> Moment {
        let idle = Moment::now() + Duration::from_secs(1);
        let next = self.scheduler.next_wakeup().map(|at| self.started + Duration::from_millis(at.0));
        next.map_or(idle, |at| at.min(idle))
    }

    fn now(&self) -> Instant {
        Instant(self.started.elapsed().as_millis() as u64)
    }

    /// One turn: decide, record, tell.
    async fn turn(&mut self, commands: Vec<Command>) -> Result<(), ControlError> {
        let mut out = Output::default();
        let mut answers = Vec::new();
        let mut later = Vec::new();
        for command in commands {
            if let Some(command) = self.take(command, &mut out, &mut answers) {
                later.push(command);
            }
        }
        self.settle(out, answers).await?;
        for command in later {
            self.administer(command).await?;
        }
        Ok(())
    }

    /// Makes decisions durable, tells them, and acts on what follows from them, until nothing
    /// follows any more.
    async fn settle(&mut self, mut out: Output, answers: Vec<Answer>) -> Result<(), ControlError> {
        let mut answers = answers;
        loop {
            self.let_go(&mut out);
            self.record_now(&mut out).await?;
            for answer in answers.drain(..) {
                answer();
            }
            let notices = std::mem::take(&mut out.notices);
            self.workers.tell(&mut out);
            self.stop_asking();
            if notices.is_empty() && self.ended.is_empty() {
                break;
            }
            out = Output::default();
            for notice in notices {
                self.act(notice, &mut out).await?;
            }
        }
        self.changed.send_modify(|turns| turns.taken += 1);
        Ok(())
    }

    /// Workers whose poll was answered want nothing more until they poll again.
    fn stop_asking(&mut self) {
        for worker in self.workers.answered() {
            self.scheduler.stop_asking(&worker);
        }
    }

    /// Makes durable at once what was decided so far, as what comes next relies on it.
    async fn record_now(&mut self, out: &mut Output) -> Result<(), ControlError> {
        let records = std::mem::take(&mut out.records);
        self.record(&records).await?;
        self.note(&records);
        Ok(())
    }

    async fn record(&mut self, records: &[Record]) -> Result<(), ControlError> {
        if records.is_empty() {
            return Ok(());
        }
        for group in groups(records)? {
            self.commit(into_txn(group)).await?;
        }
        Ok(())
    }

    /// Commits a transaction that only the leader may make.
    ///
    /// # Errors
    /// [`ControlError`] also where the outcome is unknown: the next term reads what is true.
    async fn commit(&mut self, txn: Txn) -> Result<Revision, ControlError> {
        let (txn, head) = self.testify(txn)?;
        match self.store.commit(txn.require(self.lead.compare())).await? {
            Outcome::Committed(revision) => {
                self.book.evidence = head.unwrap_or(self.book.evidence);
                Ok(revision)
            }
            Outcome::Conflict => {
                warn!("a transaction's conditions no longer hold");
                Err(ControlError::Deposed)
            }
        }
    }

    /// Keeps the book in step with what was just made durable.
    fn note(&mut self, records: &[Record]) {
        for record in records {
            match record {
                Record::Committed(committed) => {
                    let table = self.book.tables.entry(committed.table.clone()).or_default();
                    table.done = committed.done.clone();
                    table.stale = table.stale.difference(&table.done);
                    table.created = committed.created;
                    self.book.lost.retain(|batch| {
                        batch.table != committed.table || !committed.superseded.contains(&batch.interval)
                    });
                }
                Record::Filled { table, done } => {
                    self.book.tables.entry(table.clone()).or_default().done = done.clone();
                }
                Record::Published { superseded, .. } => {
                    self.book.lost.retain(|batch| !superseded.contains(batch));
                }
                Record::Lost { token, batch, .. } => {
                    warn!(%batch, token = token.0, "a lease was lost: its worker went silent");
                    self.book.lost.push(batch.clone());
                }
                Record::Granted { .. }
                | Record::Waiting { .. }
                | Record::Failed { .. }
                | Record::Cleared { .. }
                | Record::Released { .. }
                | Record::Promoted { .. }
                | Record::Cancelled { .. } => {}
            }
            self.logs.note(record);
        }
    }
}

fn into_txn(group: Group) -> Txn {
    group.into_iter().fold(Txn::new(), |txn, (key, value)| match value {
        Some(value) => txn.put(key, value),
        None => txn.delete(key),
    })
}

/// Nothing is left under a plan's todo.
pub(super) fn nothing_left(plan: coord_common::id::PlanId) -> Compare {
    Compare::NoneUnder(keys::todos_of(plan))
}

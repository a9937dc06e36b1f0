//! Which worker may run which batch, and until when: a state machine without I/O.
//!
//! [`Scheduler::on`] takes the time and an event and appends what follows to an [`Output`]. The
//! shell makes an output's records durable in one transaction that its leader term guards, and
//! only then tells workers. When that fails it steps down and a new scheduler is built from the
//! store; so decisions taken here stick, or nobody ever hears of them.
//!
//! Invariant: no two leases of a table overlap. (`tests::simulation`)
//! Invariant: a batch is leased only when all that it reads is committed. (`tests::simulation`)
//! Invariant: tokens only grow; a commit counts once; a late report changes nothing.
//! (`tests::simulation`)
//! Invariant: when a worker asks and nothing is granted, nothing is ready. (`tests::simulation`)

mod admit;
mod chore;
mod commit;
mod event;
mod explain;
mod fleet;
mod grid;
mod lease;
mod output;
mod plan;
mod publish;
mod queue;
mod random;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use coord_common::id::{PlanId, Token, WorkerId};
use coord_common::interval::{Interval, IntervalSet};
use coord_common::task::{Batch, Mode};

pub use event::{Edge, Event, NodeMode, NodeWork, PlanWork, Recovered, RetryLimits, TableState};
pub use explain::{NodeProgress, PlanProgress, Reason};
pub use grid::{Cut, Whole};
pub use output::{Committed, FailedBatch, Notice, Output, PlanOutcome, Record, Shrunk};
pub use random::Random;

use chore::Chore;
use fleet::{Fleet, GatewayNo, Ready};
use plan::{Offer, Phase, Plan};
use queue::Standing;
use table::{NodeRef, TableNo, Tables};

/// A point on the leader's monotonic clock, in milliseconds; means nothing to anybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The point some milliseconds later.
    #[must_use]
    pub fn after(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// Times that the scheduler keeps, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How long a lease holds after a heartbeat.
    pub ttl: u64,
    /// How long a fresh grant holds without a heartbeat: its answer may have got lost.
    pub accept: u64,
    /// How long a lease that a former leader granted holds without a heartbeat.
    pub recovered: u64,
    /// The delay after a first transient failure, at most; doubles with each.
    pub backoff_base: u64,
    /// The longest delay.
    pub backoff_max: u64,
    /// Batches of a table that take no longer than this, as a rule, may have another batch waiting
    /// behind them at their worker.
    pub short: u64,
    /// How many ended leases are remembered to answer repeated reports.
    pub remembered: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ttl: 30_000,
            accept: 10_000,
            recovered: 30_000,
            backoff_base: 2_000,
            backoff_max: 300_000,
            short: 1_000,
            remembered: 65_536,
        }
    }
}

/// The lease scheduler.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    random: Random,
    now: Instant,
    next_token: u64,
    next_number: u64,
    plans: BTreeMap<u64, Plan>,
    plan_numbers: BTreeMap<PlanId, u64>,
    tables: Tables,
    fleet: Fleet,
    chores: BTreeMap<u64, Chore>,
    leases: BTreeMap<Token, Held>,
    timers: BTreeSet<(Instant, Timer)>,
    /// Leases that a report ended, oldest first.
    ended: VecDeque<Token>,
    ended_by: BTreeMap<Token, WorkerId>,
    /// Plans that may have settled in the current event.
    touched: BTreeSet<u64>,
}

/// A lease that a worker holds.
#[derive(Debug)]
struct Held {
    worker: WorkerId,
    deadline: Instant,
    gateway: GatewayNo,
    target: Target,
    standing: Standing,
}

#[derive(Debug)]
enum Target {
    Batch(BatchLease),
    Chore(u64),
}

#[derive(Debug)]
struct BatchLease {
    token: Token,
    at: NodeRef,
    table: TableNo,
    interval: Interval,
    mode: Mode,
    attempts: u32,
    losses: u32,
    /// The nodes whose todo its commit shrinks; its own among them.
    serves: Vec<NodeRef>,
    /// Lost batches whose fences it raises.
    supersedes: Vec<Interval>,
    /// What was cleared while it was leased: its commit doesn't count there.
    void: IntervalSet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Lease(Token),
    Retry(NodeRef, Interval),
    Chore(u64),
}

impl Scheduler {
    /// A scheduler that knows nothing yet. Its first token is the one after `token_base`, which
    /// must not be less than any token granted before.
    pub fn new(config: Config, token_base: u64, random: Random) -> Self {
        Self {
            config,
            random,
            now: Instant::default(),
            next_token: token_base + 1,
            next_number: 0,
            plans: BTreeMap::new(),
            plan_numbers: BTreeMap::new(),
            tables: Tables::default(),
            fleet: Fleet::default(),
            chores: BTreeMap::new(),
            leases: BTreeMap::new(),
            timers: BTreeSet::new(),
            ended: VecDeque::new(),
            ended_by: BTreeMap::new(),
            touched: BTreeSet::new(),
        }
    }

    /// Takes an event into account and appends what follows from it.
    ///
    /// The time never runs backwards: an earlier `now` counts as the latest seen.
    pub fn on(&mut self, now: Instant, event: Event, out: &mut Output) {
        self.note(now, event, out);
        self.decide(out);
    }

    /// Takes an event into account, and leaves what follows from it to [`Scheduler::decide`]: several
    /// may belong together.
    pub fn note(&mut self, now: Instant, event: Event, out: &mut Output) {
        self.now = self.now.max(now);
        match event {
            Event::Admit(work) => self.admit(work, out),
            Event::Recovered(recovered) => self.recover(recovered, out),
            Event::Hold { plan, tables } => self.hold(plan, &tables),
            Event::Release { plan } => self.release(plan),
            Event::Publish(publish, plan) => self.publish(publish, plan),
            Event::Clear(ranges) => self.clear(&ranges, out),
            Event::Promote(promote, plan) => self.promote(promote, plan),
            Event::Drop(drop, plan) => self.drop_table(drop, plan),
            Event::Spare(table) => self.spare(&table),
            Event::Errand(work, plan) => self.add_chore(work, plan),
            Event::Ask { worker, gateways, free, queues } => {
                self.fleet.ask(worker, &gateways, free, queues);
            }
            Event::Report { worker, token, outcome } => {
                let verdict = self.report(&worker, token, outcome, out);
                out.verdicts.push((worker, token, verdict));
            }
            Event::Heartbeat { worker, tokens } => self.heartbeat(&worker, tokens, out),
            Event::Drain { worker } => self.fleet.drain(worker),
            Event::WorkerGone { worker } => self.fleet.gone(&worker),
            Event::Tick => {}
            Event::Cancel { plan } => self.cancel(plan, out),
            Event::Limits(limits) => self.fleet.set_limits(limits),
        }
    }

    /// Grants what can be granted, and appends what else follows from the events that were noted.
    pub fn decide(&mut self, out: &mut Output) {
        // After the event: a report or heartbeat that comes before anybody noticed that its lease
        // ran out still counts.
        self.fire_timers(out);
        while let Some((worker, ready)) = self.take() {
            self.grant(worker, ready, out);
        }
        self.grant_behind(out);
        self.settle(out);
    }

    /// What is granted next, and to whom. A table's batches go to the worker that did the last one where
    /// that has a free slot: it knows the snapshot and the table's columns.
    fn take(&mut self) -> Option<(WorkerId, Ready)> {
        let Self { fleet, plans, tables, .. } = self;
        fleet.take(|ready| {
            let at = ready.node()?;
            tables.get(plans.get(&at.plan)?.nodes[at.node].table).home.as_ref()
        })
    }

    /// A worker wants no more leases until it asks again. No event, as nothing can follow from it.
    pub fn stop_asking(&mut self, worker: &WorkerId) {
        self.fleet.stop(worker);
    }

    /// When the scheduler wants a [`Event::Tick`] at the latest; nothing if only events matter.
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whose lease a token is, while somebody holds it.
    pub fn holder(&self, token: Token) -> Option<&WorkerId> {
        self.leases.get(&token).map(|held| &held.worker)
    }

    /// Whether a plan still has to compute some of a batch, or somebody holds a lease of it.
    pub fn awaits(&self, batch: &Batch) -> bool {
        let Some(table) = self.tables.find(&batch.table).map(|table| self.tables.get(table)) else {
            return false;
        };
        let todo = |at: &NodeRef| &self.plans[&at.plan].nodes[at.node].todo;
        table.busy(batch.interval).is_some() || table.users.iter().any(|at| todo(at).overlaps(batch.interval))
    }

    fn fire_timers(&mut self, out: &mut Output) {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= self.now
        {
            self.timers.pop_first();
            match timer {
                Timer::Lease(token) => self.expire(token, out),
                Timer::Retry(node, interval) => self.retry_due(node, interval),
                Timer::Chore(number) => self.chore_due(number),
            }
        }
    }

    /// Full jitter: somewhere between now and a bound that doubles with each failure.
    fn backoff(&mut self, failures: u32) -> u64 {
        let doubled = self.config.backoff_base.saturating_mul(1 << failures.min(32));
        self.random.up_to(doubled.min(self.config.backoff_max))
    }

    /// Brings a node's place among the ready ones up to date.
    fn refresh(&mut self, at: NodeRef) {
        let Some(plan) = self.plans.get_mut(&at.plan).filter(|plan| plan.phase != Phase::Settled) else {
            return;
        };
        let offer = plan.next_offer(at.node, &self.tables);
        plan.renew_active(at.node, &self.tables);
        let node = &mut plan.nodes[at.node];
        let old = std::mem::replace(&mut node.offer, offer);
        let listed = |offer: Offer| (offer.behind, offer.ready);
        if old.map(listed) != offer.map(listed) {
            let gateway = self.fleet.get_mut(node.gateway);
            if let Some(old) = old {
                gateway.offers(old.behind).remove(&old.ready);
            }
            if let Some(new) = offer {
                gateway.offers(new.behind).insert(new.ready);
            }
        }
        self.touched.insert(at.plan);
    }

    fn refresh_users(&mut self, table: TableNo) {
        let users: Vec<NodeRef> = self.tables.get(table).users.iter().copied().collect();
        for user in users {
            self.refresh(user);
        }
    }

    fn refresh_plan(&mut self, number: u64) {
        let nodes = self.plans.get(&number).map_or(0, |plan| plan.nodes.len());
        for node in 0..nodes {
            self.refresh(NodeRef { plan: number, node });
        }
    }
}

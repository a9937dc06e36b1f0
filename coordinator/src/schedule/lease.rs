//! A lease's life: granted, kept alive, reported or lost.

use std::sync::Arc;

use coord_common::id::{PlanId, Token, WorkerId};
use coord_common::interval::Interval;
use coord_common::task::{
    Batch, Evaluate, Failure, FailureClass, Lease, LeaseState, Mode, Outcome, Verdict, Work,
};

use super::fleet::Ready;
use super::plan::{Node, Phase, Retry};
use super::queue::Standing;
use super::table::NodeRef;
use super::{BatchLease, Held, Output, Record, Scheduler, Target, Timer};

/// How a lease ended without a commit.
pub(super) enum Setback {
    /// The worker said that it failed.
    Failed(Failure),
    /// The worker gave it back.
    HandedBack,
    /// The worker wasn't heard of. It counts against the batch only where work on it had begun.
    Lost { begun: bool },
}

impl Scheduler {
    pub(super) fn grant(&mut self, worker: WorkerId, ready: Ready, out: &mut Output) {
        match ready {
            Ready::Promote(number) | Ready::Errand(number) | Ready::Drop(number) => {
                self.grant_chore(worker, number, out);
            }
            Ready::Batch { plan, node, .. } => self.grant_batch(worker, NodeRef { plan, node }, None, out),
        }
    }

    pub(super) fn new_token(&mut self) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        token
    }

    /// Grants a node's offer, to begin at once or in the place of a lease that the worker holds.
    pub(super) fn grant_batch(
        &mut self,
        worker: WorkerId,
        at: NodeRef,
        behind: Option<Token>,
        out: &mut Output,
    ) {
        let token = self.new_token();
        let plan = self.plans.get_mut(&at.plan).expect("a ready node's plan is admitted");
        let node = &mut plan.nodes[at.node];
        let offer = node.offer.expect("a node is ready only with an offer");
        let interval = offer.interval;
        let retry = node.retry.remove(&interval);
        node.due.remove(&interval);
        let Retry { attempts, losses, .. } =
            retry.unwrap_or(Retry { attempts: 0, losses: 0, not_before: self.now });
        let (table, gateway) = (node.table, node.gateway);
        let void = node.void_of(interval);
        if retry.is_some() && attempts + losses == 0 {
            // It was handed back: a later leader mustn't find it both waiting and in flight.
            let batch = Batch { table: node.task.table.clone(), interval };
            out.records.push(Record::Cleared { plan: plan.id, batch });
        }
        if retry.is_none() {
            self.take_fresh(at, interval);
        }
        let lease = BatchLease {
            token,
            at,
            table,
            interval,
            mode: offer.mode,
            attempts,
            losses,
            serves: self.served_by(at, interval, offer.mode),
            supersedes: self.tables.get(table).lost_under(interval, offer.mode),
            void,
        };
        let deadline = self.now.after(self.config.accept);
        let standing = Standing::new(behind);
        let target = Target::Batch(lease);
        self.hold_batch(Held { worker: worker.clone(), deadline, gateway, target, standing });
        if let Some(lease) = self.record_grant(token, out) {
            out.grants.push((worker, lease));
        }
    }

    /// Takes a batch that was never leased, and looks for the next behind it.
    fn take_fresh(&mut self, at: NodeRef, interval: Interval) {
        let Some(plan) = self.plans.get_mut(&at.plan) else { return };
        let node = &mut plan.nodes[at.node];
        if interval == Node::CREATE {
            return;
        }
        node.pending.remove(interval);
        plan.rescan(at.node, interval.end, &self.tables);
    }

    /// The nodes whose todo a commit of the batch shrinks: its own, and those of other plans that
    /// could run it now, too.
    fn served_by(&self, at: NodeRef, interval: Interval, mode: Mode) -> Vec<NodeRef> {
        let mut served = vec![at];
        if !mode.fills() {
            return served;
        }
        let own = &self.plans[&at.plan].nodes[at.node];
        let (void, table) = (own.void_of(interval), self.tables.get(own.table));
        for user in table.users.iter().filter(|user| **user != at) {
            let plan = &self.plans[&user.plan];
            let node = &plan.nodes[user.node];
            if node.mode == super::NodeMode::Write
                && node.todo.overlaps(interval)
                && node.is_void(interval, &void)
                && plan.reads_are_done(user.node, interval, &self.tables)
            {
                served.push(*user);
            }
        }
        served
    }

    /// Counts a batch's lease in wherever leases count.
    pub(super) fn hold_batch(&mut self, held: Held) {
        let Target::Batch(lease) = &held.target else { return };
        let (at, table, token) = (lease.at, lease.table, lease.token);
        self.tables.get_mut(table).in_flight.insert(lease.interval, token);
        self.fleet.get_mut(held.gateway).in_flight += 1;
        if let Some(plan) = self.plans.get_mut(&at.plan) {
            plan.in_flight += 1;
            plan.nodes[at.node].in_flight += 1;
        }
        self.timers.insert((held.deadline, Timer::Lease(token)));
        self.leases.insert(token, held);
        self.stand(token);
        self.refresh_users(table);
    }

    /// Writes a batch's lease down, as it is now.
    pub(super) fn record_grant(&self, token: Token, out: &mut Output) -> Option<Lease> {
        let held = self.leases.get(&token)?;
        let Target::Batch(batch) = &held.target else { return None };
        let plan = self.plans.get(&batch.at.plan)?;
        let task = Arc::clone(&plan.nodes[batch.at.node].task);
        let named = |interval: Interval| Batch { table: task.table.clone(), interval };
        // Lost without counting, maybe, because it hadn't begun for all that was heard.
        let again = batch.supersedes.contains(&batch.interval);
        let others = batch.supersedes.iter().filter(|lost| **lost != batch.interval);
        let evaluate = Evaluate {
            batch: named(batch.interval),
            mode: batch.mode,
            supersedes: others.map(|lost| named(*lost)).collect(),
            task: Arc::clone(&task),
        };
        let lease = Lease {
            token,
            plan: plan.id,
            work: Work::Evaluate(evaluate),
            ttl_millis: self.config.ttl,
            attempt: (batch.attempts + batch.losses + 1).max(if again { 2 } else { 1 }),
            behind: held.standing.behind(),
        };
        let mut serves: Vec<PlanId> =
            batch.serves.iter().filter_map(|at| Some(self.plans.get(&at.plan)?.id)).collect();
        serves.dedup();
        out.records.push(Record::Granted {
            lease: lease.clone(),
            worker: held.worker.clone(),
            attempts: batch.attempts,
            losses: batch.losses,
            serves,
            void: batch.void.clone(),
        });
        Some(lease)
    }

    pub(super) fn heartbeat(&mut self, worker: &WorkerId, tokens: Vec<Token>, out: &mut Output) {
        for token in tokens {
            let state = self.heartbeat_one(worker, token);
            out.states.push((worker.clone(), token, state));
        }
    }

    fn heartbeat_one(&mut self, worker: &WorkerId, token: Token) -> LeaseState {
        let Some(held) = self.leases.get(&token).filter(|held| held.worker == *worker) else {
            return LeaseState::Gone;
        };
        if let Target::Chore(number) = held.target
            && !self.is_wanted(number)
        {
            return LeaseState::Cancel;
        }
        let Some(held) = self.leases.get_mut(&token) else { return LeaseState::Gone };
        if let Target::Batch(lease) = &held.target
            && self.plans.get(&lease.at.plan).is_none_or(|plan| plan.phase == Phase::Cancelling)
        {
            // Not prolonged: a worker that never gives it back mustn't hold up the end.
            return LeaseState::Cancel;
        }
        self.timers.remove(&(held.deadline, Timer::Lease(token)));
        held.deadline = self.now.after(self.config.ttl);
        self.timers.insert((held.deadline, Timer::Lease(token)));
        LeaseState::Held
    }

    pub(super) fn report(
        &mut self,
        worker: &WorkerId,
        token: Token,
        outcome: Outcome,
        out: &mut Output,
    ) -> Verdict {
        if self.ended_by.get(&token) == Some(worker) {
            return Verdict::Already;
        }
        if self.leases.get(&token).is_none_or(|held| held.worker != *worker) {
            return Verdict::Stale;
        }
        let Some(held) = self.leases.remove(&token) else { return Verdict::Stale };
        self.leave_place(token, &held, true);
        self.timers.remove(&(held.deadline, Timer::Lease(token)));
        if outcome != Outcome::Fenced {
            self.remember(token, &held);
        }
        let verdict = if outcome == Outcome::Fenced { Verdict::Stale } else { Verdict::Recorded };
        let setback = match outcome {
            Outcome::Done(done) => {
                match held.target {
                    Target::Batch(lease) => {
                        self.tables.get_mut(lease.table).home = Some(worker.clone());
                        self.commit(lease, held.gateway, done, out);
                    }
                    Target::Chore(number) => self.chore_done(token, number, done, out),
                }
                return verdict;
            }
            Outcome::Failed(failure) => Setback::Failed(failure),
            Outcome::HandedBack => Setback::HandedBack,
            Outcome::Fenced => Setback::Failed(fenced()),
        };
        self.set_back(held, token, setback, out);
        verdict
    }

    pub(super) fn expire(&mut self, token: Token, out: &mut Output) {
        let Some(held) = self.leases.remove(&token) else { return };
        self.leave_place(token, &held, false);
        let begun = held.standing.begun;
        self.set_back(held, token, Setback::Lost { begun }, out);
    }

    fn set_back(&mut self, held: Held, token: Token, setback: Setback, out: &mut Output) {
        match held.target {
            Target::Batch(lease) => self.batch_set_back(lease, held.gateway, setback, out),
            Target::Chore(number) => self.chore_set_back(number, token, setback, out),
        }
    }
}

/// The failure of a lease that nobody else holds, but that the warehouse has fenced off all the
/// same. The next token is greater than any that a fence has seen.
fn fenced() -> Failure {
    Failure {
        class: FailureClass::Transient,
        code: None,
        message: "the warehouse's fence holds a newer token than the lease".to_owned(),
        hint: Some("check that no other coordinator works on the same schema".to_owned()),
    }
}

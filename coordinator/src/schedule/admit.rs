//! Plans come, are recovered, cancelled and forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coord_common::id::{PlanId, Token};
use coord_common::interval::{Interval, IntervalSet, Timestamp};
use coord_common::task::Batch;

use super::event::{NodeMode, NodeWork, PlanWork, Recovered, TableState};
use super::grid::Grid;
use super::plan::{Node, Phase, Plan, Retry};
use super::queue::Standing;
use super::table::{NodeRef, TableNo};
use super::{BatchLease, Held, Output, Scheduler, Target, Timer};

impl Scheduler {
    pub(super) fn admit(&mut self, work: PlanWork, out: &mut Output) {
        if self.plan_numbers.contains_key(&work.plan) {
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        let states: BTreeMap<_, &TableState> = work.tables.iter().map(|t| (&t.table, t)).collect();
        let grids = work.nodes.iter().map(|node| Grid::new(Arc::clone(&node.cut), &node.todo)).collect();
        let mut nodes = Vec::with_capacity(work.nodes.len());
        for (index, node) in work.nodes.into_iter().enumerate() {
            let table = self.tables.intern(&node.task.table, states.get(&node.task.table).copied());
            self.tables.get_mut(table).users.insert(NodeRef { plan: number, node: index });
            nodes.push(self.node(node, table));
        }
        let mut plan = Plan {
            id: work.plan,
            number,
            priority: work.priority,
            limits: work.limits,
            nodes,
            grids,
            phase: Phase::Running,
            in_flight: 0,
            active: 0,
        };
        plan.link();
        for node in 0..plan.nodes.len() {
            plan.rescan(node, Timestamp(i64::MIN), &self.tables);
        }
        self.plan_numbers.insert(work.plan, number);
        self.plans.insert(number, plan);
        self.join_leases(number, out);
        self.refresh_plan(number);
        self.touched.insert(number);
    }

    fn node(&mut self, work: NodeWork, table: TableNo) -> Node {
        Node {
            gateway: self.fleet.gateway(&work.task.gateway),
            task: work.task,
            table,
            mode: work.mode,
            assumed: work.assumed,
            void: work.void,
            create: work.create,
            // A table that isn't made yet is made with the right columns.
            migrate: work.migrate && self.tables.get(table).created,
            concurrency: work.concurrency,
            sequential: work.sequential,
            made_first: work.made_first,
            anew: work.anew,
            parents: work.parents,
            children: Vec::new(),
            height: 0,
            pending: work.todo.clone(),
            todo: work.todo,
            retry: BTreeMap::new(),
            due: BTreeSet::new(),
            failed: BTreeMap::new(),
            in_flight: 0,
            candidate: None,
            offer: None,
            stopped: None,
            active: false,
            finished: 0,
        }
    }

    /// Lets leases that other plans hold count for a new plan, too.
    ///
    /// Only where the new plan merely misses the range: where the range was done before, the new
    /// plan recomputes it, and the older lease may have read what the plan is about to replace.
    fn join_leases(&mut self, number: u64, out: &mut Output) {
        let plan = &self.plans[&number];
        let mut joined = Vec::new();
        for (index, node) in plan.nodes.iter().enumerate() {
            let table = self.tables.get(node.table);
            let at = NodeRef { plan: number, node: index };
            for (interval, token) in &table.in_flight {
                let void = self.leases.get(token).and_then(|held| match &held.target {
                    Target::Batch(lease) => Some(&lease.void),
                    _ => None,
                });
                if void.is_some_and(|void| self.shares(at, node, *interval, void)) {
                    joined.push((*token, at));
                }
            }
        }
        for (token, at) in joined {
            if let Some(Held { target: Target::Batch(lease), .. }) = self.leases.get_mut(&token)
                && lease.mode.fills()
            {
                lease.serves.push(at);
                self.record_grant(token, out);
            }
        }
    }

    /// Whether another plan's lease over a range does what a node misses.
    fn shares(&self, at: NodeRef, node: &Node, interval: Interval, void: &IntervalSet) -> bool {
        let done = &self.tables.get(node.table).done;
        node.mode == NodeMode::Write
            && node.is_void(interval, void)
            && node.todo.overlaps(interval)
            && !done.overlaps(interval)
            && self.plans[&at.plan].reads_are_done(at.node, interval, &self.tables)
    }

    pub(super) fn recover(&mut self, recovered: Recovered, out: &mut Output) {
        match recovered {
            Recovered::Leased {
                token,
                worker,
                plan,
                batch,
                mode,
                attempts,
                losses,
                serves,
                supersedes,
                void,
            } => {
                let Some((at, table)) = self.locate(plan, &batch) else { return };
                let mut serves: Vec<NodeRef> =
                    serves.iter().filter_map(|plan| Some(self.locate(*plan, &batch)?.0)).collect();
                if !serves.contains(&at) {
                    serves.push(at);
                }
                let interval = batch.interval;
                let mut supersedes: Vec<Interval> = supersedes.iter().map(|batch| batch.interval).collect();
                // The record leaves it out, since the raise of the batch's own slot needs no word of it.
                if self.tables.get(table).lost.contains(&interval) && !supersedes.contains(&interval) {
                    supersedes.push(interval);
                }
                // A term may have ended just before a plan joined the lease.
                let users =
                    self.tables.get(table).users.iter().filter(|user| mode.fills() && !serves.contains(user));
                let joins = |user: &&NodeRef| {
                    let node = self.plans.get(&user.plan).map(|plan| &plan.nodes[user.node]);
                    node.is_some_and(|node| self.shares(**user, node, interval, &void))
                };
                let joined: Vec<NodeRef> = users.filter(joins).copied().collect();
                serves.extend(joined.iter().copied());
                let lease = BatchLease {
                    token,
                    at,
                    table,
                    interval,
                    mode,
                    attempts,
                    losses,
                    serves,
                    supersedes,
                    void,
                };
                let gateway = self.plans[&at.plan].nodes[at.node].gateway;
                self.take_range(at, interval);
                if let Some(plan) = self.plans.get_mut(&at.plan) {
                    // A record of its wait may be older.
                    let node = &mut plan.nodes[at.node];
                    node.retry.remove(&interval);
                    node.due.remove(&interval);
                }
                self.hold_batch(Held {
                    worker,
                    deadline: self.now.after(self.config.recovered),
                    gateway,
                    target: Target::Batch(lease),
                    standing: Standing::new(None),
                });
                self.next_token = self.next_token.max(token.0 + 1);
                if !joined.is_empty() {
                    self.record_grant(token, out);
                }
            }
            Recovered::Promoting { token, worker, promote } => {
                self.recover_promotion(token, worker, &promote);
                self.next_token = self.next_token.max(token.0 + 1);
            }
            Recovered::Waiting { plan, batch, attempts, losses, delay } => {
                let Some((at, table)) = self.locate(plan, &batch) else { return };
                // What waited without having spent an attempt may still be on record when it is done.
                let made = self.tables.get(table).created && !self.plans[&at.plan].nodes[at.node].migrate;
                if batch.interval == Node::CREATE && made {
                    return;
                }
                self.take_range(at, batch.interval);
                self.wait(at, batch.interval, attempts, losses, delay);
                self.refresh(at);
            }
            Recovered::Failed { plan, batch, attempts, failure } => {
                let Some((at, _)) = self.locate(plan, &batch) else { return };
                self.take_range(at, batch.interval);
                self.mark_failed(at, batch.interval, failure, attempts);
            }
        }
    }

    /// The node of a plan that fills a batch.
    fn locate(&self, plan: PlanId, batch: &Batch) -> Option<(NodeRef, TableNo)> {
        let number = *self.plan_numbers.get(&plan)?;
        let table = self.tables.find(&batch.table)?;
        let fits = |at: &&NodeRef| {
            let todo = |at: &NodeRef| &self.plans[&at.plan].nodes[at.node].todo;
            at.plan == number && (batch.interval == Node::CREATE || todo(at).overlaps(batch.interval))
        };
        Some((*self.tables.get(table).users.iter().find(fits)?, table))
    }

    /// Takes a range from what was never leased, and lets the candidate follow.
    pub(super) fn take_range(&mut self, at: NodeRef, interval: Interval) {
        let Some(plan) = self.plans.get_mut(&at.plan) else { return };
        let node = &mut plan.nodes[at.node];
        if interval == Node::CREATE {
            return;
        }
        node.pending.remove(interval);
        if node.candidate.is_some_and(|candidate| candidate.overlaps(interval)) {
            plan.rescan(at.node, interval.start, &self.tables);
        }
        // What is left of a cell reads less than the whole.
        plan.range_released(at.node, interval, &self.tables);
    }

    pub(super) fn wait(&mut self, at: NodeRef, interval: Interval, attempts: u32, losses: u32, delay: u64) {
        let not_before = self.now.after(delay);
        let Some(plan) = self.plans.get_mut(&at.plan) else { return };
        let node = &mut plan.nodes[at.node];
        node.retry.insert(interval, Retry { attempts, losses, not_before });
        if delay == 0 {
            node.due.insert(interval);
        } else {
            self.timers.insert((not_before, Timer::Retry(at, interval)));
        }
    }

    pub(super) fn retry_due(&mut self, at: NodeRef, interval: Interval) {
        let now = self.now;
        let Some(plan) = self.plans.get_mut(&at.plan) else { return };
        let node = &mut plan.nodes[at.node];
        if node.retry.get(&interval).is_some_and(|retry| retry.not_before <= now) {
            node.due.insert(interval);
            self.refresh(at);
        }
    }

    pub(super) fn cancel(&mut self, plan: PlanId, out: &mut Output) {
        self.cancel_errands(plan, out);
        let Some(number) = self.plan_numbers.get(&plan).copied() else { return };
        let Some(plan) = self.plans.get_mut(&number) else { return };
        if plan.phase == Phase::Settled {
            self.drop_cancelled(number, out);
            return;
        }
        plan.phase = Phase::Cancelling;
        self.refresh_plan(number);
        self.touched.insert(number);
    }

    /// A settled plan needn't be asked about any more. Ignored while it runs. No event, as nothing can
    /// follow from it.
    pub fn forget(&mut self, plan: PlanId) {
        let Some(number) = self.plan_numbers.get(&plan).copied() else { return };
        if self.plans.get(&number).is_some_and(|plan| plan.phase == Phase::Settled) {
            self.plan_numbers.remove(&plan);
            self.plans.remove(&number);
        }
    }

    /// Lets go of the tables of a plan that has ended.
    pub(super) fn detach(&mut self, number: u64) {
        let Some(plan) = self.plans.get(&number) else { return };
        for (node, table) in plan.nodes.iter().map(|node| node.table).enumerate() {
            self.tables.get_mut(table).users.remove(&NodeRef { plan: number, node });
        }
        for node in &plan.nodes {
            self.tables.release(node.table);
        }
    }

    /// Remembers that a report ended a lease, so that the same report again is no surprise.
    pub(super) fn remember(&mut self, token: Token, held: &Held) {
        self.ended.push_back(token);
        self.ended_by.insert(token, held.worker.clone());
        if self.ended.len() > self.config.remembered
            && let Some(oldest) = self.ended.pop_front()
        {
            self.ended_by.remove(&oldest);
        }
    }
}

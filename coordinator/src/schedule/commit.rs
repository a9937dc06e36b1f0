//! What follows from a commit, a failure, and the end of a plan.

use coord_common::interval::{Interval, IntervalSet, Timestamp};
use coord_common::task::{Batch, Done, Failure, FailureClass, Mode, ReadRange};

use super::event::RetryLimits;
use super::fleet::GatewayNo;
use super::lease::Setback;
use super::plan::{Phase, Plan};
use super::table::{NodeRef, TableNo, Tables};
use super::{BatchLease, Committed, FailedBatch, Notice, Output, PlanOutcome, Record, Scheduler, Shrunk};

impl Scheduler {
    pub(super) fn commit(&mut self, lease: BatchLease, gateway: GatewayNo, done: Done, out: &mut Output) {
        self.free_batch(&lease, gateway);
        self.tables.get_mut(lease.table).took(done.millis);
        let appeared = self.fill(&lease);
        let superseded = self.supersede(&lease);
        let mut cleared = Vec::new();
        let mut shrunk = Vec::new();
        for at in self.affected(&lease, appeared) {
            if lease.mode == Mode::Migrate {
                self.migrated(at);
            } else if lease.serves.contains(&at) && lease.mode != Mode::Create {
                self.shrink(at, lease.interval, &mut cleared);
            } else {
                self.no_longer_to_create(at, &mut cleared);
            }
            shrunk.extend(self.what_is_left(at));
        }
        let table = self.tables.get(lease.table);
        out.records.push(Record::Committed(Committed {
            token: lease.token,
            plan: self.plans[&lease.at.plan].id,
            table: table.id.clone(),
            interval: lease.interval,
            mode: lease.mode,
            created: table.created,
            done: table.done.clone(),
            rows: done.rows,
            millis: done.millis,
            audits: done.audits,
            shrunk,
            superseded,
        }));
        out.records.extend(cleared);
        if appeared || lease.mode == Mode::Migrate {
            self.wake_all_readers(lease.table);
        }
        self.range_ended(&lease);
    }

    /// Uncounts a lease that has ended.
    fn free_batch(&mut self, lease: &BatchLease, gateway: GatewayNo) {
        self.tables.get_mut(lease.table).in_flight.remove(&lease.interval);
        self.fleet.get_mut(gateway).in_flight -= 1;
        if let Some(plan) = self.plans.get_mut(&lease.at.plan) {
            plan.in_flight -= 1;
            plan.nodes[lease.at.node].in_flight -= 1;
        }
        self.touched.insert(lease.at.plan);
    }

    /// Marks a lease's range as done; whether the table has only now come to be.
    fn fill(&mut self, lease: &BatchLease) -> bool {
        let table = self.tables.get_mut(lease.table);
        if lease.mode.fills() {
            let counts = IntervalSet::from(lease.interval).difference(&lease.void);
            table.done = table.done.union(&counts);
        }
        let appeared = lease.mode != Mode::Audit && !std::mem::replace(&mut table.created, true);
        if appeared && let Some(plan) = self.plans.get(&lease.at.plan) {
            table.done = table.done.union(&plan.nodes[lease.at.node].assumed);
        }
        appeared
    }

    /// Strikes off the lost batches whose fences the lease has raised.
    fn supersede(&mut self, lease: &BatchLease) -> Vec<Interval> {
        let table = self.tables.get_mut(lease.table);
        lease.supersedes.iter().copied().filter(|lost| table.lost.remove(lost)).collect()
    }

    fn affected(&self, lease: &BatchLease, appeared: bool) -> Vec<NodeRef> {
        let users = &self.tables.get(lease.table).users;
        users.iter().copied().filter(|at| appeared || lease.serves.contains(at)).collect()
    }

    /// Takes a committed range off a node's todo, and tells its readers.
    fn shrink(&mut self, at: NodeRef, range: Interval, cleared: &mut Vec<Record>) {
        let Some(plan) = self.plans.get_mut(&at.plan) else { return };
        let node = &mut plan.nodes[at.node];
        node.todo.remove(range);
        node.pending.remove(range);
        node.finished += 1;
        let mut changed = plan.refit(at.node, Some(range), &self.tables, cleared);
        let emptied = plan.nodes[at.node].todo.is_empty();
        for (child, edge) in plan.nodes[at.node].children.clone() {
            let whole = matches!(plan.nodes[child].parents[edge].reads, ReadRange::Whole { .. });
            if !whole || emptied {
                plan.upstream_committed(child, edge, range, &self.tables);
                changed.push(child);
            }
        }
        for node in changed {
            self.refresh(NodeRef { plan: at.plan, node });
        }
    }

    /// The table has the columns that a node's batches write.
    fn migrated(&mut self, at: NodeRef) {
        let Some(plan) = self.plans.get_mut(&at.plan) else { return };
        plan.nodes[at.node].migrate = false;
        plan.rescan(at.node, Timestamp(i64::MIN), &self.tables);
    }

    /// Strikes off what a node still had to do for its table to exist.
    fn no_longer_to_create(&mut self, at: NodeRef, cleared: &mut Vec<Record>) {
        let Some(plan) = self.plans.get_mut(&at.plan) else { return };
        for node in plan.refit(at.node, None, &self.tables, cleared) {
            self.refresh(NodeRef { plan: at.plan, node });
        }
    }

    fn what_is_left(&self, at: NodeRef) -> Option<Shrunk> {
        let plan = self.plans.get(&at.plan)?;
        let node = &plan.nodes[at.node];
        let created = self.tables.get(node.table).created;
        Some(Shrunk {
            plan: plan.id,
            table: node.task.table.clone(),
            todo: node.todo.clone(),
            create_left: node.create && !created,
            migrate_left: node.migrate,
        })
    }

    /// Lets all that reads a table look anew, now that it exists.
    fn wake_all_readers(&mut self, table: TableNo) {
        let users: Vec<NodeRef> = self.tables.get(table).users.iter().copied().collect();
        for at in users {
            let Some(plan) = self.plans.get_mut(&at.plan) else { continue };
            let readers: Vec<usize> = plan.nodes[at.node].children.iter().map(|(child, _)| *child).collect();
            for child in &readers {
                plan.rescan(*child, Timestamp(i64::MIN), &self.tables);
            }
            for node in readers {
                self.refresh(NodeRef { plan: at.plan, node });
            }
        }
    }

    /// Lets those who work on a table look anew at a range that is no longer leased.
    fn range_ended(&mut self, lease: &BatchLease) {
        let users: Vec<NodeRef> = self.tables.get(lease.table).users.iter().copied().collect();
        for at in &users {
            if let Some(plan) = self.plans.get_mut(&at.plan) {
                plan.range_released(at.node, lease.interval, &self.tables);
            }
            self.refresh(*at);
        }
        if !self.tables.get(lease.table).holds.is_empty() {
            self.wake_publications();
        }
        self.tables.release(lease.table);
    }

    pub(super) fn batch_set_back(
        &mut self,
        lease: BatchLease,
        gateway: GatewayNo,
        setback: Setback,
        out: &mut Output,
    ) {
        self.free_batch(&lease, gateway);
        let plan = &self.plans[&lease.at.plan];
        let (id, limits, phase) = (plan.id, plan.limits, plan.phase);
        let table = self.tables.get(lease.table).id.clone();
        let batch = Batch { table, interval: lease.interval };
        // Whatever was wrong there, another worker may have it better.
        self.tables.get_mut(lease.table).home = None;
        let lost = matches!(setback, Setback::Lost { .. });
        if lost {
            self.tables.get_mut(lease.table).lost.insert(lease.interval);
            out.records.push(Record::Lost { token: lease.token, plan: id, batch: batch.clone() });
        }
        if phase == Phase::Running {
            let next = self.after_setback(&lease, limits, setback);
            self.put_back(&lease, batch, next, out);
        } else if !lost {
            out.records.push(Record::Released { token: lease.token });
        }
        self.range_ended(&lease);
    }

    /// Counts a setback, and says whether the batch may be tried again.
    fn after_setback(&mut self, lease: &BatchLease, limits: RetryLimits, setback: Setback) -> Next {
        let (mut attempts, mut losses) = (lease.attempts, lease.losses);
        let (failure, last) = match setback {
            Setback::HandedBack => (None, false),
            Setback::Lost { begun } => {
                losses += u32::from(begun);
                (None, losses >= limits.max_losses)
            }
            Setback::Failed(failure) => {
                attempts += 1;
                let last = failure.class != FailureClass::Transient || attempts >= limits.max_attempts;
                (Some(failure), last)
            }
        };
        if last {
            return Next::Failed {
                attempts,
                losses,
                failure: failure.unwrap_or_else(|| lost_too_often(losses)),
            };
        }
        let delay = if failure.is_some() { self.backoff(attempts - 1) } else { 0 };
        Next::Waiting { attempts, losses, delay, error: failure }
    }

    fn put_back(&mut self, lease: &BatchLease, batch: Batch, next: Next, out: &mut Output) {
        let (token, plan) = (lease.token, self.plans[&lease.at.plan].id);
        match next {
            Next::Waiting { attempts, losses, delay, error } => {
                out.records.push(Record::Waiting { token, plan, batch, attempts, losses, delay, error });
                self.wait(lease.at, lease.interval, attempts, losses, delay);
            }
            Next::Failed { attempts, losses, failure } => {
                let error = failure.clone();
                let mode = lease.mode;
                out.records.push(Record::Failed {
                    token,
                    plan,
                    batch,
                    attempts,
                    losses,
                    mode,
                    failure: error,
                });
                self.mark_failed(lease.at, lease.interval, failure, attempts);
            }
        }
    }

    pub(super) fn mark_failed(&mut self, at: NodeRef, interval: Interval, failure: Failure, attempts: u32) {
        let Some(plan) = self.plans.get_mut(&at.plan) else { return };
        let failed = &mut plan.nodes[at.node].failed;
        let first = failed.is_empty();
        failed.insert(interval, (failure, attempts));
        let changed = if first { plan.propagate_stops() } else { Vec::new() };
        for node in changed.into_iter().chain([at.node]) {
            self.refresh(NodeRef { plan: at.plan, node });
        }
    }

    /// Ends the plans for which nothing more can run.
    pub(super) fn settle(&mut self, out: &mut Output) {
        for number in std::mem::take(&mut self.touched) {
            let Some(plan) = self.plans.get_mut(&number).filter(|plan| plan.in_flight == 0) else { continue };
            let id = plan.id;
            match plan.phase {
                Phase::Running if plan.active == 0 => {
                    plan.phase = Phase::Settled;
                    let outcome = outcome(plan, &self.tables);
                    out.notices.push(Notice::PlanSettled { plan: id, outcome });
                    self.detach(number);
                }
                Phase::Cancelling => {
                    self.detach(number);
                    self.drop_cancelled(number, out);
                }
                Phase::Running | Phase::Settled => {}
            }
        }
    }

    pub(super) fn drop_cancelled(&mut self, number: u64, out: &mut Output) {
        let Some(plan) = self.plans.remove(&number) else { return };
        self.plan_numbers.remove(&plan.id);
        out.records.push(Record::Cancelled { plan: plan.id });
        out.notices.push(Notice::PlanCancelled { plan: plan.id });
    }
}

/// What becomes of a batch after a setback.
enum Next {
    Waiting { attempts: u32, losses: u32, delay: u64, error: Option<Failure> },
    Failed { attempts: u32, losses: u32, failure: Failure },
}

pub(super) fn lost_too_often(losses: u32) -> Failure {
    Failure {
        class: FailureClass::Transient,
        code: None,
        message: format!("lost {losses} times: its workers vanished"),
        hint: Some("check whether the batch takes its workers down, such as by their memory".to_owned()),
    }
}

fn outcome(plan: &Plan, tables: &Tables) -> PlanOutcome {
    if plan.nodes.iter().all(|node| node.is_complete(tables.get(node.table))) {
        return PlanOutcome::Complete;
    }
    let mut failures = Vec::new();
    let mut skipped = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let table = &node.task.table;
        failures.extend(node.failed.iter().map(|(interval, (failure, attempts))| FailedBatch {
            batch: Batch { table: table.clone(), interval: *interval },
            failure: failure.clone(),
            attempts: *attempts,
        }));
        let upstream = node.stopped.is_some_and(|by| by != index);
        if upstream && !node.is_complete(tables.get(node.table)) {
            skipped.push(table.clone());
        }
    }
    PlanOutcome::Failed { failures, skipped }
}

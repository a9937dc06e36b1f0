//! How far a plan is, and why a batch doesn't run yet.

use std::fmt;

use coord_common::id::{PlanId, Token, WorkerId};
use coord_common::interval::{Interval, IntervalSet, Timestamp};
use coord_common::task::{Failure, TableId};

use super::plan::{Node, Phase, Plan};
use super::table::{NodeRef, Table};
use super::{Instant, Scheduler, Target};

/// How far a plan is.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanProgress {
    /// Whether nothing more will run.
    pub settled: bool,
    /// Whether it is being cancelled.
    pub cancelling: bool,
    /// By node, as admitted.
    pub nodes: Vec<NodeProgress>,
}

/// How far one table of a plan is, in batches.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeProgress {
    /// The table.
    pub table: TableId,
    /// All batches that there were at admission.
    pub total: u64,
    /// Those committed.
    pub done: u64,
    /// Those leased on behalf of the plan.
    pub in_flight: u64,
    /// Those that failed for good.
    pub failed: u64,
    /// Those that wait for another attempt.
    pub retrying: u64,
    /// What is not committed.
    pub todo: IntervalSet,
    /// Why its next batch doesn't run; empty when it is done, or only waits for its turn.
    pub waiting: Vec<Reason>,
}

/// Why a batch doesn't run.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// It is leased.
    Leased {
        /// To whom.
        worker: WorkerId,
        /// Under which token.
        token: Token,
        /// Until when, without a heartbeat.
        until: Instant,
    },
    /// A lease overlaps it: of another batch, or on behalf of another plan.
    Overlapped {
        /// The batch that is leased.
        interval: Interval,
        /// Until when, without a heartbeat.
        until: Instant,
    },
    /// It has failed for good.
    Failed(Failure),
    /// Something upstream has failed for good.
    Stopped {
        /// The nearest such table.
        upstream: TableId,
    },
    /// The plan is being cancelled.
    Cancelling,
    /// Another plan restates its table.
    Restated {
        /// Which plan.
        plan: PlanId,
    },
    /// An upstream table doesn't exist yet.
    UpstreamNotCreated {
        /// Which.
        upstream: TableId,
    },
    /// An upstream table doesn't have the columns yet that the plan gives it.
    UpstreamNotMigrated {
        /// Which.
        upstream: TableId,
    },
    /// It reads what isn't committed.
    UpstreamMisses {
        /// Of which table.
        upstream: TableId,
        /// What is missing of what it reads.
        missing: IntervalSet,
    },
    /// An earlier attempt failed; the next comes later.
    Backoff {
        /// When.
        until: Instant,
    },
    /// Batches of this table run in order, and earlier ones are not committed.
    After(Interval),
    /// As many batches of the table are in flight as may be; one, while it doesn't exist yet.
    Concurrency {
        /// How many may be.
        limit: u32,
    },
    /// As many leases of the gateway are in flight as may be.
    GatewayLimit {
        /// Which gateway.
        gateway: String,
        /// How many may be.
        limit: u32,
    },
    /// No worker that reaches the gateway has room.
    NoWorker {
        /// Which gateway.
        gateway: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leased { worker, token, .. } => write!(f, "it runs on {worker} under token {token}"),
            Self::Overlapped { interval, .. } => write!(f, "a lease over {interval} overlaps it"),
            Self::Failed(failure) => write!(f, "it failed: {failure}"),
            Self::Stopped { upstream } => write!(f, "its upstream {} failed", upstream.model),
            Self::Cancelling => f.write_str("its plan is being cancelled"),
            Self::Restated { plan } => write!(f, "plan {plan} is restating its table"),
            Self::UpstreamNotCreated { upstream } => {
                write!(f, "its upstream {} has no table yet", upstream.model)
            }
            Self::UpstreamNotMigrated { upstream } => {
                write!(f, "its upstream {} doesn't have its new columns yet", upstream.model)
            }
            Self::UpstreamMisses { upstream, missing } => {
                write!(f, "its upstream {} still misses", upstream.model)?;
                missing.hull().map_or(Ok(()), |hull| write!(f, " {hull}"))
            }
            Self::Backoff { .. } => f.write_str("it waits for another attempt"),
            Self::After(interval) => write!(f, "it waits for {interval}, which comes before it"),
            Self::Concurrency { limit } => write!(f, "its model already has {limit} batches in flight"),
            Self::GatewayLimit { gateway, limit } => {
                write!(f, "gateway {gateway} already has {limit} leases in flight")
            }
            Self::NoWorker { gateway } => write!(f, "no worker that reaches gateway {gateway} has room"),
        }
    }
}

impl Scheduler {
    /// How far a plan is; nothing when it isn't known.
    ///
    /// Counts all batches the first time: linear in their number then.
    pub fn progress(&mut self, plan: PlanId) -> Option<PlanProgress> {
        let number = *self.plan_numbers.get(&plan)?;
        let found = self.plans.get_mut(&number)?;
        let totals: Vec<u64> = found.grids.iter_mut().map(super::grid::Grid::count).collect();
        let plan = &self.plans[&number];
        let nodes = plan.nodes.iter().enumerate().map(|(index, node)| {
            let total = totals[index];
            let first = node.pending.ranges().first().map(|range| range.start);
            let waiting = match first {
                Some(at) => self.reasons(plan, index, at),
                None => self.uncreated_reasons(plan, node),
            };
            NodeProgress {
                table: node.task.table.clone(),
                total,
                done: if node.todo.is_empty() { total } else { node.finished.min(total) },
                in_flight: u64::from(node.in_flight),
                failed: node.failed.len() as u64,
                retrying: node.retry.len() as u64,
                todo: node.todo.clone(),
                waiting,
            }
        });
        let settled = plan.phase == Phase::Settled;
        Some(PlanProgress { settled, cancelling: plan.phase == Phase::Cancelling, nodes: nodes.collect() })
    }

    /// Why the batch of a plan's table at a point in time doesn't run; empty when there is nothing
    /// to run there. A plan or table that isn't known has no reasons.
    pub(crate) fn why_waiting(&self, plan: PlanId, table: &TableId, at: Timestamp) -> Vec<Reason> {
        let number = self.plan_numbers.get(&plan);
        let Some(plan) = number.and_then(|number| self.plans.get(number)) else { return Vec::new() };
        let node = plan.nodes.iter().position(|node| node.task.table == *table);
        node.map(|node| self.reasons(plan, node, at)).unwrap_or_default()
    }

    fn reasons(&self, plan: &Plan, index: usize, at: Timestamp) -> Vec<Reason> {
        let node = &plan.nodes[index];
        let point = Interval { start: at, end: Timestamp(at.0 + 1) };
        if !node.todo.overlaps(point) {
            return Vec::new();
        }
        if let Some((failure, _)) = node.failed.iter().find_map(|(b, f)| b.overlaps(point).then_some(f)) {
            return vec![Reason::Failed(failure.clone())];
        }
        if let Some(by) = node.stopped {
            return vec![Reason::Stopped { upstream: plan.nodes[by].task.table.clone() }];
        }
        // A settled plan has let go of its tables; what is left of it has failed or stopped.
        let table = match plan.phase {
            Phase::Settled => return Vec::new(),
            Phase::Cancelling => return vec![Reason::Cancelling],
            Phase::Running => self.tables.get(node.table),
        };
        if let Some(lease) = self.leased(plan.number, index, table, point) {
            return vec![lease];
        }
        let waiting = node.retry.keys().copied().find(|batch| batch.overlaps(point));
        let batch = waiting.or_else(|| {
            let range = *node.pending.clip(point).ranges().first()?;
            plan.grids[index].peek(range.start)
        });
        let batch = batch.unwrap_or(point);
        let mut reasons = self.upstream_reasons(plan, node, batch);
        let tries = [batch, Node::CREATE].into_iter().filter_map(|of| node.retry.get(&of));
        if let Some(retry) = tries.into_iter().find(|retry| retry.not_before > self.now) {
            reasons.push(Reason::Backoff { until: retry.not_before });
        }
        reasons.extend(self.own_reasons(node, table, batch));
        reasons.extend(table.held_from(plan.id, plan.number).map(|plan| Reason::Restated { plan }));
        reasons
    }

    /// Why a table that only has to exist doesn't yet.
    fn uncreated_reasons(&self, plan: &Plan, node: &Node) -> Vec<Reason> {
        let wants = |node: &Node| node.migrate || node.wants_create(self.tables.get(node.table));
        if plan.phase != Phase::Running || !wants(node) {
            return Vec::new();
        }
        node.parents.iter().filter_map(|edge| self.unreadable(&plan.nodes[edge.node])).collect()
    }

    /// Why nothing can be read from a table.
    fn unreadable(&self, parent: &Node) -> Option<Reason> {
        let upstream = parent.task.table.clone();
        match self.tables.get(parent.table).created {
            false => Some(Reason::UpstreamNotCreated { upstream }),
            true if parent.migrate => Some(Reason::UpstreamNotMigrated { upstream }),
            true => None,
        }
    }

    fn leased(&self, plan: u64, node: usize, table: &Table, point: Interval) -> Option<Reason> {
        let interval = table.busy(point)?;
        let token = *table.in_flight.get(&interval)?;
        let held = self.leases.get(&token)?;
        let Target::Batch(lease) = &held.target else { return None };
        let (worker, until) = (held.worker.clone(), held.deadline);
        Some(if lease.at == (NodeRef { plan, node }) {
            Reason::Leased { worker, token, until }
        } else {
            Reason::Overlapped { interval, until }
        })
    }

    fn upstream_reasons(&self, plan: &Plan, node: &Node, batch: Interval) -> Vec<Reason> {
        let reason = |edge: &super::Edge| {
            let parent = &plan.nodes[edge.node];
            let upstream = parent.task.table.clone();
            let missing = parent.todo.clip(edge.reads.of(batch));
            if !missing.is_empty() {
                return Some(Reason::UpstreamMisses { upstream, missing });
            }
            self.unreadable(parent)
        };
        node.parents.iter().filter_map(reason).collect()
    }

    fn own_reasons(&self, node: &Node, table: &Table, batch: Interval) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if let Some(busy) = table.busy(batch)
            && let Some(held) = table.in_flight.get(&busy).and_then(|token| self.leases.get(token))
        {
            reasons.push(Reason::Overlapped { interval: busy, until: held.deadline });
        }
        let first = node.todo.hull().filter(|hull| node.sequential && hull.start < batch.start);
        reasons.extend(first.map(|hull| Reason::After(Interval { start: hull.start, end: batch.start })));
        let limit = node.limit(table);
        if table.running() >= limit as usize {
            reasons.push(Reason::Concurrency { limit });
        }
        let gateway = self.fleet.get(node.gateway);
        if let Some(limit) = gateway.limit.filter(|_| gateway.is_full()) {
            reasons.push(Reason::GatewayLimit { gateway: gateway.name.clone(), limit });
        }
        if !gateway.has_asking() {
            reasons.push(Reason::NoWorker { gateway: gateway.name.clone() });
        }
        reasons
    }
}

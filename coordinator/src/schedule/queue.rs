//! Leases behind others: a worker's next batch is at hand when the one before it ends.
//!
//! Where no worker has a free slot, a batch may be granted *behind* a lease whose work is short: its
//! worker begins with it in that lease's place, without a call in between. Until then it counts
//! neither for the gateway's limit nor, behind a batch of its own table, for the table's. Each lease
//! has at most one behind it, and one that waits has none. Only plain batches stand or wait: what
//! makes, remakes or migrates a table, or looks after environments, begins at once or not at all.

use coord_common::id::{Token, WorkerId};
use coord_common::task::Mode;

use super::fleet::{Gateway, Ready};
use super::table::NodeRef;
use super::{BatchLease, Held, Output, Scheduler, Target};

/// How a lease stands to others of its worker.
#[derive(Debug)]
pub(super) struct Standing {
    /// The lease whose place it takes, while that is held.
    behind: Option<Token>,
    /// The lease that takes its place.
    follower: Option<Token>,
    /// Whether its worker may have begun with it, for all that was heard of the one before it.
    pub(super) begun: bool,
}

impl Standing {
    /// How a lease begins.
    pub(super) fn new(behind: Option<Token>) -> Self {
        Self { behind, follower: None, begun: behind.is_none() }
    }

    /// The lease whose place it takes.
    pub(super) fn behind(&self) -> Option<Token> {
        self.behind
    }
}

impl Held {
    /// The table of its batch.
    #[cfg(test)]
    pub(super) fn table(&self) -> Option<super::TableNo> {
        match &self.target {
            Target::Batch(lease) => Some(lease.table),
            Target::Chore(_) => None,
        }
    }
}

impl Scheduler {
    /// How many leases a worker holds that wait behind others.
    pub fn queued(&self, worker: &WorkerId) -> u32 {
        self.fleet.queued(worker)
    }

    /// Grants what is ready behind leases that are held, where nobody could begin with it at once.
    pub(super) fn grant_behind(&mut self, out: &mut Output) {
        while let Some((worker, place, at)) = self.next_behind() {
            self.grant_batch(worker, at, Some(place), out);
        }
    }

    fn next_behind(&self) -> Option<(WorkerId, Token, NodeRef)> {
        self.fleet.queueing().find_map(|gateway| {
            let own = |ready: &Ready| self.own_place(gateway, ready.node()?);
            let plain = |ready: &&Ready| ready.node().is_some_and(|at| self.offers_plain(at));
            gateway.behind.iter().find_map(own).or_else(|| {
                let at = gateway.ready.iter().find(plain)?.node()?;
                let (place, worker) = gateway.first_place()?;
                Some((worker.clone(), *place, at))
            })
        })
    }

    /// A place behind a batch of the node's own table.
    fn own_place(&self, gateway: &Gateway, at: NodeRef) -> Option<(WorkerId, Token, NodeRef)> {
        let table = self.plans.get(&at.plan)?.nodes[at.node].table;
        self.tables.get(table).places.iter().find_map(|token| {
            let worker = &self.leases.get(token)?.worker;
            gateway.has_place(*token, worker).then(|| (worker.clone(), *token, at))
        })
    }

    fn offers_plain(&self, at: NodeRef) -> bool {
        let offer = self.plans.get(&at.plan).and_then(|plan| plan.nodes[at.node].offer);
        offer.is_some_and(|offer| offer.mode == Mode::Write)
    }

    /// Counts a new lease in behind the one whose place it takes, or as one to wait behind.
    pub(super) fn stand(&mut self, token: Token) {
        let Some(held) = self.leases.get(&token) else { return };
        let (Target::Batch(lease), behind) = (&held.target, held.standing.behind) else { return };
        let (table, worker, gateway) = (lease.table, held.worker.clone(), held.gateway);
        let Some(place) = behind else { return self.offer_place(token) };
        self.fleet.get_mut(gateway).in_flight -= 1;
        self.fleet.count_queued(&worker, |queued| queued + 1);
        if self.close(place, Some(token)) == Some(table) {
            self.tables.get_mut(table).queued += 1;
        }
    }

    /// Lets another lease wait behind one whose worker has begun with it.
    fn offer_place(&mut self, token: Token) {
        let Some(held) = self.leases.get(&token) else { return };
        let Target::Batch(BatchLease { table, mode: Mode::Write, .. }) = held.target else { return };
        let (worker, gateway) = (held.worker.clone(), held.gateway);
        let table = self.tables.get_mut(table);
        if table.pace.is_some_and(|pace| pace <= self.config.short) {
            table.places.insert(token);
            self.fleet.open_place(&worker, token, gateway);
        }
    }

    /// Lets nothing wait behind a lease but its follower, if any; gives the lease's table.
    fn close(&mut self, token: Token, follower: Option<Token>) -> Option<super::TableNo> {
        let held = self.leases.get_mut(&token)?;
        let Target::Batch(BatchLease { table, .. }) = held.target else { return None };
        held.standing.follower = follower;
        self.tables.get_mut(table).places.remove(&token);
        self.fleet.close_place(&held.worker, token);
        Some(table)
    }

    /// Takes a lease that has ended out of the queue of its worker; `heard` says whether its worker
    /// said so. The one behind it steps up.
    pub(super) fn leave_place(&mut self, token: Token, held: &Held, heard: bool) {
        let Target::Batch(BatchLease { table, .. }) = held.target else { return };
        self.tables.get_mut(table).places.remove(&token);
        self.fleet.close_place(&held.worker, token);
        if let Some(place) = held.standing.behind {
            // It never began, but what ends counts as begun everywhere; the one before it keeps its
            // place to itself from now on.
            self.no_longer_waits(held, table, place);
        }
        let Some(follower) = held.standing.follower else { return };
        let Some(next) = self.leases.get_mut(&follower) else { return };
        next.standing.behind = None;
        next.standing.begun = heard;
        let (worker, gateway, Target::Batch(BatchLease { table: its, .. })) =
            (next.worker.clone(), next.gateway, &next.target)
        else {
            return;
        };
        let same = *its == table;
        self.fleet.get_mut(gateway).in_flight += 1;
        self.fleet.count_queued(&worker, |queued| queued.saturating_sub(1));
        if same {
            self.tables.get_mut(table).queued -= 1;
        }
        self.offer_place(follower);
    }

    fn no_longer_waits(&mut self, held: &Held, table: super::TableNo, place: Token) {
        self.fleet.get_mut(held.gateway).in_flight += 1;
        self.fleet.count_queued(&held.worker, |queued| queued.saturating_sub(1));
        if self.close(place, None) == Some(table) {
            self.tables.get_mut(table).queued -= 1;
        }
    }
}

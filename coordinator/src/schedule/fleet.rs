//! Who wants work and what work is ready, by gateway.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use coord_common::id::{Token, WorkerId};
use coord_common::interval::Timestamp;

use super::table::NodeRef;

/// A gateway's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GatewayNo(usize);

/// Something that could be leased; the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ready {
    /// A promotion or publication, by its number.
    Promote(u64),
    /// An errand, by its number.
    Errand(u64),
    /// A node's next batch: by plan; those that make their table first, since nothing else of it
    /// can run before; then by the longest chain of descendants, then by age.
    Batch {
        priority: Reverse<i32>,
        plan: u64,
        creates: Reverse<bool>,
        height: Reverse<u32>,
        start: Timestamp,
        node: usize,
    },
    /// A drop of a table, by its number.
    Drop(u64),
}

impl Ready {
    /// The node whose batch it is.
    pub(super) fn node(&self) -> Option<NodeRef> {
        match self {
            Self::Batch { plan, node, .. } => Some(NodeRef { plan: *plan, node: *node }),
            Self::Promote(_) | Self::Errand(_) | Self::Drop(_) => None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Gateway {
    pub(super) name: String,
    pub(super) limit: Option<u32>,
    pub(super) in_flight: u32,
    pub(super) ready: BTreeSet<Ready>,
    /// Batches of tables that have room only behind what is in flight of them.
    pub(super) behind: BTreeSet<Ready>,
    /// Leases behind which their workers take another one now; the oldest, which ends first as a
    /// rule, first.
    places: BTreeSet<(Token, WorkerId)>,
    /// Workers that ask, the one that waits longest first.
    asking: BTreeSet<(u64, WorkerId)>,
}

impl Gateway {
    pub(super) fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.in_flight >= limit)
    }

    /// The offers that begin at once, or those that begin behind others.
    pub(super) fn offers(&mut self, behind: bool) -> &mut BTreeSet<Ready> {
        if behind { &mut self.behind } else { &mut self.ready }
    }

    /// Whether another lease may wait behind one now.
    pub(super) fn has_place(&self, token: Token, worker: &WorkerId) -> bool {
        self.places.contains(&(token, worker.clone()))
    }

    /// The lease that is the first to have another behind it.
    pub(super) fn first_place(&self) -> Option<&(Token, WorkerId)> {
        self.places.first()
    }

    pub(super) fn has_asking(&self) -> bool {
        !self.asking.is_empty()
    }
}

#[derive(Debug, Default)]
struct Worker {
    gateways: Vec<GatewayNo>,
    free: u32,
    turn: u64,
    draining: bool,
    /// Whether it takes leases behind those that it holds.
    queues: bool,
    /// Leases that it holds with nothing behind them yet.
    places: BTreeMap<Token, GatewayNo>,
    /// How many it holds that wait behind others.
    queued: u32,
}

/// The workers and the gateways that they reach.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    names: BTreeMap<String, GatewayNo>,
    gateways: Vec<Gateway>,
    workers: BTreeMap<WorkerId, Worker>,
    limits: BTreeMap<String, u32>,
    turns: u64,
}

impl Fleet {
    pub(super) fn gateway(&mut self, name: &str) -> GatewayNo {
        if let Some(no) = self.names.get(name) {
            return *no;
        }
        let no = GatewayNo(self.gateways.len());
        let limit = self.limits.get(name).copied();
        self.gateways.push(Gateway { name: name.to_owned(), limit, ..Gateway::default() });
        self.names.insert(name.to_owned(), no);
        no
    }

    pub(super) fn get(&self, no: GatewayNo) -> &Gateway {
        &self.gateways[no.0]
    }

    pub(super) fn get_mut(&mut self, no: GatewayNo) -> &mut Gateway {
        &mut self.gateways[no.0]
    }

    pub(super) fn set_limits(&mut self, limits: BTreeMap<String, u32>) {
        for gateway in &mut self.gateways {
            gateway.limit = limits.get(&gateway.name).copied();
        }
        self.limits = limits;
    }

    pub(super) fn ask(&mut self, worker: WorkerId, gateways: &BTreeSet<String>, free: u32, queues: bool) {
        let gateways: Vec<GatewayNo> = gateways.iter().map(|name| self.gateway(name)).collect();
        self.leave(&worker);
        let entry = self.workers.entry(worker.clone()).or_default();
        if entry.draining {
            return;
        }
        entry.gateways = gateways;
        entry.free = free;
        self.set_queues(&worker, queues);
        self.queue(&worker);
    }

    pub(super) fn stop(&mut self, worker: &WorkerId) {
        self.leave(worker);
        if let Some(entry) = self.workers.get_mut(worker) {
            entry.free = 0;
        }
        self.set_queues(worker, false);
    }

    pub(super) fn drain(&mut self, worker: WorkerId) {
        self.leave(&worker);
        self.set_queues(&worker, false);
        let entry = self.workers.entry(worker).or_default();
        entry.free = 0;
        entry.draining = true;
    }

    pub(super) fn gone(&mut self, worker: &WorkerId) {
        self.leave(worker);
        self.set_queues(worker, false);
        self.workers.remove(worker);
    }

    /// The best thing that can be leased now, and to whom: to the worker that `home` tells, if it asks,
    /// or else to the one that waits longest.
    pub(super) fn take<'a>(
        &mut self,
        home: impl Fn(&Ready) -> Option<&'a WorkerId>,
    ) -> Option<(WorkerId, Ready)> {
        let open = |g: &&Gateway| g.has_asking() && !g.is_full();
        let (ready, gateway) = self
            .gateways
            .iter()
            .filter(open)
            .filter_map(|gateway| Some((*gateway.ready.first()?, gateway)))
            .min_by_key(|(ready, _)| *ready)?;
        let asks = |worker: &&WorkerId| {
            self.workers.get(*worker).is_some_and(|it| gateway.asking.contains(&(it.turn, (*worker).clone())))
        };
        let longest = || gateway.asking.first().map(|(_, worker)| worker);
        let worker = home(&ready).filter(asks).or_else(longest)?.clone();
        self.leave(&worker);
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.free -= 1;
        }
        self.queue(&worker);
        Some((worker, ready))
    }

    /// Puts a worker at the end of the queues that it asks in.
    fn queue(&mut self, worker: &WorkerId) {
        let Some(entry) = self.workers.get_mut(worker).filter(|entry| entry.free > 0) else { return };
        self.turns += 1;
        entry.turn = self.turns;
        for gateway in &entry.gateways {
            self.gateways[gateway.0].asking.insert((entry.turn, worker.clone()));
        }
    }

    fn leave(&mut self, worker: &WorkerId) {
        let Some(entry) = self.workers.get(worker) else { return };
        for gateway in &entry.gateways {
            self.gateways[gateway.0].asking.remove(&(entry.turn, worker.clone()));
        }
    }

    /// Lets another lease wait behind one that a worker holds.
    pub(super) fn open_place(&mut self, worker: &WorkerId, token: Token, gateway: GatewayNo) {
        let Some(entry) = self.workers.get_mut(worker) else { return };
        entry.places.insert(token, gateway);
        if entry.queues {
            self.gateways[gateway.0].places.insert((token, worker.clone()));
        }
    }

    /// Lets no lease wait behind one any more.
    pub(super) fn close_place(&mut self, worker: &WorkerId, token: Token) {
        let Some(entry) = self.workers.get_mut(worker) else { return };
        if let Some(gateway) = entry.places.remove(&token) {
            self.gateways[gateway.0].places.remove(&(token, worker.clone()));
        }
    }

    /// Whether a worker takes leases behind those that it holds.
    fn set_queues(&mut self, worker: &WorkerId, queues: bool) {
        let Some(entry) = self.workers.get_mut(worker) else { return };
        if std::mem::replace(&mut entry.queues, queues) == queues {
            return;
        }
        for (token, gateway) in &entry.places {
            let places = &mut self.gateways[gateway.0].places;
            let place = (*token, worker.clone());
            if queues {
                places.insert(place)
            } else {
                places.remove(&place)
            };
        }
    }

    /// Counts leases that wait behind others.
    pub(super) fn count_queued(&mut self, worker: &WorkerId, count: impl Fn(u32) -> u32) {
        if let Some(entry) = self.workers.get_mut(worker) {
            entry.queued = count(entry.queued);
        }
    }

    /// How many leases a worker holds that wait behind others.
    pub(super) fn queued(&self, worker: &WorkerId) -> u32 {
        self.workers.get(worker).map_or(0, |entry| entry.queued)
    }

    /// Gateways with leases behind which another may wait, and with such that would.
    pub(super) fn queueing(&self) -> impl Iterator<Item = &Gateway> {
        let waits = |gateway: &Gateway| !gateway.ready.is_empty() || !gateway.behind.is_empty();
        self.gateways.iter().filter(move |gateway| !gateway.places.is_empty() && waits(gateway))
    }
}

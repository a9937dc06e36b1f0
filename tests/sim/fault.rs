//! What goes wrong, how often, and which safety condition is taken away: all drawn from the seed.

use std::sync::Arc;

use coordinator::store::{Compare, keys};

use crate::node::Fleet;
use crate::random::Random;
use crate::store::STORE;
use crate::world::World;

/// A safety condition that is taken away, to see whether the simulation notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// None.
    None,
    /// That whoever writes still leads.
    Term,
    /// That nothing is left to do when the pointer moves.
    AllAcknowledged,
    /// That the pointer is as the plan found it when it moves.
    Base,
    /// That a batch's token still holds the fence when it commits.
    Fence,
    /// That a publication is one transaction.
    Publication,
    /// That a janitor leaves what unfinished plans work on: another one, who doesn't, comes by.
    Janitor,
}

impl Mutant {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::None,
        Self::Term,
        Self::AllAcknowledged,
        Self::Base,
        Self::Fence,
        Self::Publication,
        Self::Janitor,
    ];

    /// Whether the store looks away.
    pub(crate) fn ignores(self, compare: &Compare) -> bool {
        match self {
            Self::None | Self::Fence | Self::Publication | Self::Janitor => false,
            Self::Term => matches!(compare, Compare::CreateRevision(key, _) if key == keys::LEAD),
            Self::AllAcknowledged => {
                matches!(compare, Compare::NoneUnder(prefix) if prefix.starts_with(keys::TODOS))
            }
            Self::Base => compare.key().starts_with(keys::ENVIRONMENTS),
        }
    }
}

/// How many times in a thousand each fault happens, and what kind of run it is.
#[derive(Debug, Clone)]
pub(crate) struct Knobs {
    pub(crate) coordinators: u64,
    pub(crate) workers: u64,
    /// Milliseconds with faults.
    pub(crate) trouble: u64,
    pub(crate) store_refuses: u64,
    pub(crate) store_slow: u64,
    pub(crate) store_unknown: u64,
    pub(crate) net_slow: u64,
    pub(crate) net_loses: u64,
    pub(crate) net_doubles: u64,
    pub(crate) query_slow: u64,
    pub(crate) query_fails: u64,
    pub(crate) answer_lost: u64,
    /// Queries that fail for good, until somebody applies the plan again.
    pub(crate) query_breaks: u64,
    /// Audits that find bad rows.
    pub(crate) audit_fails: u64,
    /// Longest pause between two faults of whole nodes, in milliseconds; 0: there are none.
    pub(crate) node_faults: u64,
    /// Milliseconds by which clocks differ at most.
    pub(crate) skew: u64,
    /// Whether somebody else has a hand in the state.
    pub(crate) foreign: bool,
}

impl Knobs {
    /// Each kind of fault is there in about half of all seeds, so that each is also seen alone.
    pub(crate) fn drawn(random: &mut Random) -> Self {
        let mut rate = |most: u64| if random.chance(500) { random.between(1, most) } else { 0 };
        let [store_refuses, store_slow, store_unknown] = [rate(40), rate(60), rate(25)];
        let [net_slow, net_loses, net_doubles] = [rate(150), rate(60), rate(60)];
        let [query_slow, query_fails, answer_lost] = [rate(200), rate(100), rate(80)];
        let (skew, node_faults) = (rate(3_600_000), rate(9_000));
        Self {
            coordinators: random.between(1, 4),
            workers: random.between(1, 6),
            trouble: random.between(5_000, 60_000),
            store_refuses,
            store_slow,
            store_unknown,
            net_slow,
            net_loses,
            net_doubles,
            query_slow,
            query_fails,
            answer_lost,
            query_breaks: if random.chance(150) { random.between(1, 60) } else { 0 },
            audit_fails: if random.chance(150) { random.between(1, 150) } else { 0 },
            node_faults,
            skew,
            foreign: random.chance(400),
        }
    }

    /// Nothing goes wrong but what a script does.
    pub(crate) fn none() -> Self {
        Self {
            coordinators: 1,
            workers: 1,
            trouble: 60_000,
            store_refuses: 0,
            store_slow: 0,
            store_unknown: 0,
            net_slow: 0,
            net_loses: 0,
            net_doubles: 0,
            query_slow: 0,
            query_fails: 0,
            answer_lost: 0,
            query_breaks: 0,
            audit_fails: 0,
            node_faults: 0,
            skew: 0,
            foreign: false,
        }
    }
}

/// Faults of whole nodes and of the network between them, until the time of trouble is over.
pub(crate) async fn trouble(world: Arc<World>, fleet: Arc<Fleet>) {
    let until = world.now() + world.knobs.trouble;
    while world.now() < until {
        if world.knobs.node_faults == 0 {
            world.pause(500, 2000).await;
            continue;
        }
        world.pause(100, world.knobs.node_faults + 200).await;
        strike(&world, &fleet);
    }
    world.calm_down();
    fleet.revive();
}

fn strike(world: &Arc<World>, fleet: &Arc<Fleet>) {
    let nodes = fleet.names();
    let pick = |world: &World| nodes[world.between(0, nodes.len() as u64) as usize].clone();
    let node = pick(world);
    match world.between(0, 10) {
        0..3 => {
            world.fault(&format!("crash {node}"));
            fleet.crash(&node);
            let (world, fleet, last) = (world.clone(), fleet.clone(), world.between(50, 15_000));
            tokio::spawn(async move {
                world.pause(last, last + 1).await;
                fleet.start(&node);
            });
        }
        3..6 => {
            let last = world.between(200, 25_000);
            world.fault(&format!("freeze {node} for {last}"));
            let Some(host) = fleet.host(&node) else { return };
            host.freeze();
            let world = world.clone();
            tokio::spawn(async move {
                world.pause(last, last + 1).await;
                world.note(&format!("thaw {}", host.name));
                host.thaw();
            });
        }
        6 => {
            world.fault(&format!("drain {node}"));
            fleet.drain(&node);
        }
        _ => {
            let peer =
                if node.starts_with('c') && world.chance(400) { STORE.to_owned() } else { pick(world) };
            let ways = world.between(0, 3);
            world.fault(&format!("cut {node} {} {peer}", ["<->", "-->", "<--"][ways as usize]));
            if ways != 2 {
                world.cut(&node, &peer);
            }
            if ways != 1 {
                world.cut(&peer, &node);
            }
            let (world, last) = (world.clone(), world.between(500, 20_000));
            tokio::spawn(async move {
                world.pause(last, last + 1).await;
                world.heal(&node, &peer);
                world.heal(&peer, &node);
                world.note(&format!("heal {node} {peer}"));
            });
        }
    }
}

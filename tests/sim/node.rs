//! Nodes: coordinators and workers, the real ones, that start, crash, freeze and drain.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coord_common::interval::Timestamp;
use coordinator::store::Store;
use coordinator::{Clock, ControlConfig, Planning, Server};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use worker::agent::{Agent, AgentConfig, SnapshotSource};
use worker::engine::Engine;
use worker::execute::Executor;

use crate::engine::SimEngine;
use crate::invariants::DAY;
use crate::net::transport;
use crate::store::NodeStore;
use crate::world::{Host, World, lock};

/// The wall clock at the start: noon of the tenth of January 2024, far from any day's end.
const NOON: i64 = 1_704_888_000_000;
/// The gateway of all models.
pub(crate) const GATEWAY: &str = "wh";

/// All nodes.
pub(crate) struct Fleet {
    world: Arc<World>,
    nodes: Mutex<BTreeMap<String, Node>>,
    /// Whether nobody may start.
    closed: AtomicBool,
}

#[derive(Default)]
struct Node {
    host: Option<Arc<Host>>,
    stop: CancellationToken,
    lives: u64,
    skew: i64,
}

impl Fleet {
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        let knobs = &world.knobs;
        let coordinators = (0..knobs.coordinators).map(|n| format!("c{n}"));
        let names = coordinators.chain((0..knobs.workers).map(|n| format!("w{n}")));
        let node = |name: String| {
            let skew = world.between(0, 2 * knobs.skew + 1) as i64 - knobs.skew as i64;
            (name, Node { skew, ..Node::default() })
        };
        let nodes = Mutex::new(names.map(node).collect());
        Arc::new(Self { world: world.clone(), nodes, closed: AtomicBool::new(false) })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        lock(&self.nodes).keys().cloned().collect()
    }

    pub(crate) fn coordinators(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| name.starts_with('c')).collect()
    }

    /// The life that a node has now.
    pub(crate) fn host(&self, name: &str) -> Option<Arc<Host>> {
        lock(&self.nodes).get(name)?.host.clone().filter(|host| host.is_up())
    }

    /// Starts a node that isn't up.
    pub(crate) fn start(self: &Arc<Self>, name: &str) {
        if self.host(name).is_some() || self.closed.load(Ordering::Relaxed) {
            return;
        }
        let host = Host::new(name);
        let stop = CancellationToken::new();
        let (life, skew) = {
            let mut nodes = lock(&self.nodes);
            let Some(node) = nodes.get_mut(name) else { return };
            node.host = Some(host.clone());
            node.stop = stop.clone();
            node.lives += 1;
            (node.lives, node.skew)
        };
        self.world.note(&format!("start {name}"));
        if name.starts_with('c') {
            host.spawn(coordinate(self.world.clone(), host.clone(), skew, stop));
        } else {
            let servers = self.coordinators();
            let (fleet, node, world) = (self.clone(), name.to_owned(), self.world.clone());
            let work_world = world.clone();
            let (work, ended) = (host.clone(), host.clone());
            let (drained, has_drained) = oneshot::channel();
            host.spawn(async move {
                work_on(&work_world, &work, servers, life, stop).await;
                let _ = drained.send(());
            });
            tokio::spawn(async move {
                if has_drained.await.is_err() {
                    return;
                }
                // Another one takes its place.
                world.note(&format!("{node} has drained"));
                ended.crash();
                world.pause(10, 2000).await;
                fleet.start(&node);
            });
        }
    }

    pub(crate) fn crash(&self, name: &str) {
        if let Some(host) = self.host(name) {
            host.crash();
        }
    }

    /// Ends all nodes; none starts until [`Fleet::open`].
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.names().iter().for_each(|name| self.crash(name));
    }

    pub(crate) fn open(self: &Arc<Self>) {
        self.closed.store(false, Ordering::Relaxed);
        self.revive();
    }

    /// Asks a node to end in an orderly way.
    pub(crate) fn drain(self: &Arc<Self>, name: &str) {
        let stop = lock(&self.nodes).get(name).map(|node| node.stop.clone());
        if let Some(stop) = stop {
            stop.cancel();
        }
    }

    /// Brings all nodes back.
    pub(crate) fn revive(self: &Arc<Self>) {
        for name in self.names() {
            if let Some(host) = self.host(&name) {
                host.thaw();
            }
            self.start(&name);
        }
    }
}

/// A node's wall clock.
fn clock(world: &Arc<World>, skew: i64) -> Clock {
    let world = world.clone();
    Arc::new(move || Timestamp(NOON + world.days_passed() * DAY + world.now() as i64 + skew))
}

/// A coordinator's process, which is started again when it ends.
async fn coordinate(world: Arc<World>, host: Arc<Host>, skew: i64, stop: CancellationToken) {
    let mut stop = stop;
    loop {
        let config = ControlConfig {
            identity: host.name.clone(),
            lease_ttl: Duration::from_secs(6),
            election_ttl: Duration::from_secs(3),
            retry_base: Duration::from_millis(300),
            planning: Planning::InPlace,
            ..ControlConfig::default()
        };
        let store: Arc<dyn Store> = Arc::new(NodeStore { world: world.clone(), host: host.clone() });
        match Server::new(store, "simulated".to_owned(), config, clock(&world, skew)).await {
            Ok(server) => {
                let (services, terms) = server.in_process(stop.clone());
                world.net.listen(&host, services);
                if let Err(error) = terms.await {
                    world.note(&format!("{} ends: {error}", host.name));
                }
            }
            Err(error) => world.note(&format!("{} can't start: {error}", host.name)),
        }
        stop = CancellationToken::new();
        sleep(Duration::from_millis(700)).await;
    }
}

async fn work_on(
    world: &Arc<World>,
    host: &Arc<Host>,
    servers: Vec<String>,
    life: u64,
    stop: CancellationToken,
) {
    let Ok(worker) = format!("{}-{life}", host.name).parse() else { return };
    let way = transport(world, host, servers);
    let engine: Arc<dyn Engine> = Arc::new(SimEngine { world: world.clone(), host: host.clone() });
    let engines = BTreeMap::from([(GATEWAY.to_owned(), engine)]);
    let executor = Arc::new(Executor::new(engines, SnapshotSource::new(way.clone())));
    let config =
        AgentConfig { worker, gateways: vec![GATEWAY.to_owned()], slots: 2, grace: Duration::from_secs(2) };
    Agent::new(config, way, executor).run(stop).await;
}

//! A worker's life: connect, register, take leases, prolong them, report, drain.
//!
//! The agent trusts no clock but its own monotonic one: a lease that no *answered* heartbeat
//! prolonged is given up a margin before the coordinator may grant it anew. The fence in the
//! warehouse refuses whatever slips through.

mod held;
mod link;
mod places;
mod report;

use std::sync::Arc;
use std::time::Duration;

use coord_common::id::{Token, WorkerId};
use coord_common::task::{Lease, Outcome, Report};
use coord_proto::net::Transport;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use held::Held;
pub use link::SnapshotSource;
use link::{Granted, Link};
pub use places::Start;
use places::{Places, Turn};
use report::Ended;

/// Runs leases. What the agent needs of the rest of the worker.
#[async_trait::async_trait]
pub trait Execute: Send + Sync + 'static {
    /// Does what the lease grants as soon as `start` lets it. Ends early, with everything rolled back
    /// and [`Outcome::HandedBack`], when `start` never does or `cancel` fires.
    async fn execute(&self, lease: Lease, start: &Start<'_>, cancel: CancellationToken) -> Outcome;

    /// Says before a lease is executed up to which token all are shut out of the warehouses.
    fn shut_out(&self, upto: Token);
}

/// How an agent behaves.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The session's id, unique for each process.
    pub worker: WorkerId,
    /// Gateways that the worker's engines reach.
    pub gateways: Vec<String>,
    /// How many leases it holds at once.
    pub slots: u32,
    /// How long a drain may take before running leases are handed back.
    pub grace: Duration,
}

/// One worker session.
pub struct Agent {
    config: AgentConfig,
    link: Link,
    held: Arc<Held>,
    executor: Arc<dyn Execute>,
}

impl Agent {
    /// An agent that talks over `transport`.
    pub fn new(config: AgentConfig, transport: impl Into<Transport>, executor: Arc<dyn Execute>) -> Self {
        let held = Arc::new(Held::of(&config.worker));
        let link = Link::new(transport.into(), config.clone(), held.clone());
        Self { config, link, held, executor }
    }

    /// Works until `stop` fires, then drains: running leases get the grace period to finish, the
    /// rest is rolled back and handed back.
    pub async fn run(self, stop: CancellationToken) {
        let (reports, inbox) = mpsc::channel(self.config.slots as usize * 2 + 16);
        let quit = CancellationToken::new();
        let mut helpers = JoinSet::new();
        helpers.spawn(report::send_reports(self.link.clone(), inbox));
        helpers.spawn(heartbeats(self.link.clone(), self.held.clone(), quit.clone()));
        let mut running = JoinSet::new();
        self.take_leases(&mut running, &reports, &stop).await;
        self.link.drain().await;
        for lease in self.link.missed().await.leases {
            // Granted while the poll was given up: nobody has begun with it.
            let unstarted = Report { token: lease.token, batch: None, outcome: Outcome::HandedBack };
            let _ = reports.send(Ended { report: unstarted, urgent: true }).await;
        }
        self.drain(&mut running).await;
        // Closing the inbox ends the reporter once the last verdict is in.
        drop(reports);
        let last_words = timeout(Duration::from_secs(10), helpers.join_next());
        if last_words.await.is_err() {
            warn!("the coordinator didn't take the last reports; their leases will expire");
        }
        quit.cancel();
        helpers.shutdown().await;
    }

    async fn take_leases(
        &self,
        running: &mut JoinSet<()>,
        reports: &mpsc::Sender<Ended>,
        stop: &CancellationToken,
    ) {
        let mut places = Places::default();
        loop {
            while running.try_join_next().is_some() {}
            let free = (self.config.slots as usize).saturating_sub(places.taken());
            // A poll stays open even while all slots are taken: the coordinator learns of slots that
            // came free by the reports, and what takes their place is in the same transaction.
            let Granted { leases, floor } = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                granted = self.link.poll(free as u32) => granted,
            };
            // Before any of them begins.
            self.executor.shut_out(floor);
            for lease in leases {
                let turn = places.add(lease.token, lease.behind);
                self.start(lease, turn, running, reports.clone(), stop.clone());
            }
        }
    }

    fn start(
        &self,
        lease: Lease,
        turn: Turn,
        running: &mut JoinSet<()>,
        reports: mpsc::Sender<Ended>,
        stop: CancellationToken,
    ) {
        let cancel = self.held.add(lease.token, Duration::from_millis(lease.ttl_millis));
        let executor = self.executor.clone();
        let held = self.held.clone();
        let work = lease.batch().map(ToString::to_string).unwrap_or_default();
        debug!(token = lease.token.0, attempt = lease.attempt, work, "lease taken");
        running.spawn(async move {
            let token = lease.token;
            let batch = lease.batch().cloned();
            let start = Start::new(&turn, &stop, &cancel);
            let outcome = executor.execute(lease, &start, cancel.clone()).await;
            held.finished(token);
            debug!(token = token.0, took = ?start.took(), "lease ended");
            // What it did is told before what the one behind it does.
            let mut report = Report { token, batch, outcome };
            report.cut();
            let ended = Ended::new(report, turn.is_followed(), start.took());
            if reports.send(ended).await.is_err() {
                warn!(token = token.0, "no reporter is left; the lease will expire");
            }
            drop(turn);
        });
    }

    async fn drain(&self, running: &mut JoinSet<()>) {
        if running.is_empty() {
            return;
        }
        info!(leases = running.len(), "draining");
        let all = async { while running.join_next().await.is_some() {} };
        if timeout(self.config.grace, all).await.is_err() {
            warn!(leases = running.len(), "drain deadline passed: handing leases back");
            self.held.cancel_all();
            let rolled_back = async { while running.join_next().await.is_some() {} };
            if timeout(Duration::from_secs(5), rolled_back).await.is_err() {
                running.shutdown().await;
            }
        }
    }
}

/// Prolongs leases at a third of their time to live, and gives up those that time out.
async fn heartbeats(link: Link, held: Arc<Held>, quit: CancellationToken) {
    let mut last = Instant::now();
    loop {
        let pause = tokio::select! {
            biased;
            () = quit.cancelled() => return,
            pause = held.next_beat(last) => pause,
        };
        last = Instant::now();
        held.give_up_expired(Instant::now());
        let tokens = held.tokens();
        if tokens.is_empty() {
            continue;
        }
        if let Some(states) = link.heartbeat(tokens, pause).await {
            held.answered(last, &states);
        }
    }
}

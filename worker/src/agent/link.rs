//! The worker's one place that speaks the wire: calls that come back with an answer, however often
//! the coordinator goes away meanwhile.

use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use coord_common::id::{SnapshotId, Token};
use coord_common::task::{Lease, LeaseState, Report, Verdict};
use coord_proto::net::{Backoff, Mark, Transport, work_client};
use coord_proto::wire;
use coord_proto::wire::work_client::WorkClient;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};
use tracing::{debug, info, warn};

use super::AgentConfig;
use super::held::Held;

/// How long a poll may stay open: longer than the coordinator holds it.
const POLL_PATIENCE: Duration = Duration::from_secs(40);
/// First and longest pause before a call is made again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long a heartbeat waits for its answer at least.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(500);

/// The answer to a poll.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) leases: Vec<Lease>,
    /// All tokens up to this one are of a time that was lost: nobody may write under them.
    pub(super) floor: Token,
}

/// A connection that re-registers by itself.
#[derive(Clone)]
pub(super) struct Link {
    transport: Transport,
    client: WorkClient<Transport>,
    config: AgentConfig,
    held: Arc<Held>,
    nonce: Arc<AtomicU64>,
    /// Makes the pauses of this worker's calls different from others'.
    seed: Arc<AtomicU64>,
    /// Whether calls go unanswered, so that it is said once.
    away: Arc<AtomicBool>,
}

impl Link {
    pub(super) fn new(transport: Transport, config: AgentConfig, held: Arc<Held>) -> Self {
        let client = work_client(transport.clone());
        let seed = Arc::new(AtomicU64::new(seed(config.worker.as_str())));
        let (nonce, away) = (Arc::new(AtomicU64::new(1)), Arc::default());
        Self { transport, client, config, held, nonce, seed, away }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(BACKOFF.0, BACKOFF.1, self.seed.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits for leases; returns with none when the coordinator had none for a while. Dropped before
    /// it returns, it may be called again: the answer that got lost is given once more.
    pub(super) async fn poll(&self, free: u32) -> Granted {
        let mut backoff = self.backoff();
        loop {
            let mark = self.transport.mark();
            match timeout(POLL_PATIENCE, self.poll_once(free)).await {
                Ok(Ok(granted)) => {
                    self.answered();
                    return granted;
                }
                Ok(Err(status)) => self.recover(&status, &mut backoff).await,
                Err(_) => self.unanswered("a poll", mark),
            }
        }
    }

    async fn poll_once(&self, free: u32) -> Result<Granted, Status> {
        let nonce = self.nonce.load(Ordering::Relaxed);
        let request = wire::PollRequest { worker: self.config.worker.to_string(), free, nonce, queues: true };
        let reply = self.client.clone().poll(request).await?;
        let wire::PollReply { leases, floor } = reply.into_inner();
        // After an empty answer the same nonce asks on: leases may just have missed it.
        if !leases.is_empty() {
            self.nonce.store(nonce + 1, Ordering::Relaxed);
        }
        let leases = leases.into_iter().filter_map(understood).collect();
        Ok(Granted { leases, floor: Token(floor) })
    }

    /// The leases that the last, dropped poll was answered with; to ask after [`Link::drain`].
    pub(super) async fn missed(&self) -> Granted {
        match timeout(Duration::from_secs(1), self.poll_once(0)).await {
            Ok(Ok(granted)) => granted,
            Ok(Err(_)) | Err(_) => Granted { leases: Vec::new(), floor: Token(0) },
        }
    }

    /// One heartbeat; nothing when it went unanswered.
    pub(super) async fn heartbeat(
        &self,
        tokens: Vec<Token>,
        patience: Duration,
    ) -> Option<Vec<(Token, LeaseState)>> {
        let request = wire::HeartbeatRequest {
            worker: self.config.worker.to_string(),
            tokens: tokens.iter().map(|token| token.0).collect(),
        };
        let mut client = self.client.clone();
        let mark = self.transport.mark();
        let Ok(reply) = timeout(patience.max(SHORTEST_PATIENCE), client.heartbeat(request)).await else {
            self.unanswered("a heartbeat", mark);
            return None;
        };
        match reply {
            Ok(reply) => {
                let states = reply.into_inner().leases.into_iter().filter_map(|status| {
                    let state = wire::LeaseState::try_from(status.state).ok()?.try_into().ok()?;
                    Some((Token(status.token), state))
                });
                Some(states.collect())
            }
            // A new leader doesn't know the session. Registering names the leases that are held, and
            // prolongs them; a worker whose slots are all taken has no poll that would do it.
            Err(status) if status.code() == Code::NotFound => {
                let registered = timeout(patience.max(SHORTEST_PATIENCE), self.register()).await;
                debug!(?registered, "the session was not known");
                None
            }
            Err(status) => {
                debug!(%status, "heartbeat failed");
                None
            }
        }
    }

    /// Reports until every outcome has its verdict.
    pub(super) async fn complete(&self, ready: &[Report]) -> Vec<(Token, Verdict)> {
        let reports: Vec<wire::Report> = ready.iter().cloned().map(Into::into).collect();
        let mut backoff = self.backoff();
        loop {
            let mark = self.transport.mark();
            let request =
                wire::CompleteRequest { worker: self.config.worker.to_string(), reports: reports.clone() };
            let mut client = self.client.clone();
            match timeout(POLL_PATIENCE, client.complete(request)).await {
                Ok(Ok(reply)) => {
                    self.answered();
                    let verdicts = reply.into_inner().verdicts.into_iter().filter_map(|verdict| {
                        let word = wire::Verdict::try_from(verdict.verdict).ok()?.try_into().ok()?;
                        Some((Token(verdict.token), word))
                    });
                    return verdicts.collect();
                }
                Ok(Err(status)) if status.code() == Code::InvalidArgument => {
                    warn!(%status, "the coordinator doesn't understand the report");
                    return Vec::new();
                }
                Ok(Err(status)) => self.recover(&status, &mut backoff).await,
                Err(_) => self.unanswered("a report", mark),
            }
        }
    }

    /// Says that no more work is wanted; best effort.
    pub(super) async fn drain(&self) {
        let request = wire::DrainRequest { worker: self.config.worker.to_string() };
        let mut client = self.client.clone();
        if !matches!(timeout(Duration::from_secs(2), client.drain(request)).await, Ok(Ok(_))) {
            debug!("the coordinator didn't hear that the worker drains");
        }
    }

    /// Waits, and registers anew where the coordinator doesn't know the session.
    async fn recover(&self, status: &Status, backoff: &mut Backoff) {
        if status.code() == Code::NotFound {
            match self.register().await {
                Ok(()) => return,
                Err(status) => self.refused(&status),
            }
        } else if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) {
            warn!(code = ?status.code(), reason = status.message(), "the coordinator refuses this worker");
        } else {
            self.refused(status);
        }
        sleep(backoff.pause()).await;
    }

    fn refused(&self, status: &Status) {
        if self.away.swap(true, Ordering::Relaxed) {
            debug!(code = ?status.code(), reason = status.message(), "no coordinator that leads yet");
        } else {
            let (code, reason) = (status.code(), status.message());
            warn!(?code, reason, "looking for a coordinator that leads");
        }
    }

    /// A call was answered.
    fn answered(&self) {
        if self.away.swap(false, Ordering::Relaxed) {
            info!("a coordinator leads");
        }
    }

    /// A call that went where `mark` says was never answered, though the connection seems whole.
    fn unanswered(&self, what: &str, mark: Mark) {
        warn!("{what} went unanswered");
        self.transport.suspect(mark);
    }

    async fn register(&self) -> Result<(), Status> {
        let request = wire::RegisterRequest {
            worker: self.config.worker.to_string(),
            gateways: self.config.gateways.clone(),
            held_tokens: self.held.tokens().into_iter().map(|token| token.0).collect(),
            slots: self.config.slots,
        };
        let reply = self.client.clone().register(request).await?.into_inner();
        info!(worker = %self.config.worker, coordinator = reply.version, "registered");
        Ok(())
    }
}

/// A number that differs from worker to worker.
fn seed(worker: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    worker.hash(&mut hasher);
    hasher.finish()
}

fn understood(lease: wire::Lease) -> Option<Lease> {
    let token = lease.token;
    match lease.try_into() {
        Ok(lease) => Some(lease),
        Err(error) => {
            warn!(token, %error, "a lease can't be understood; it will expire");
            None
        }
    }
}

/// Fetches the bodies of snapshots.
#[derive(Clone)]
pub struct SnapshotSource(WorkClient<Transport>);

impl SnapshotSource {
    /// Fetches over `transport`.
    pub fn new(transport: impl Into<Transport>) -> Self {
        Self(work_client(transport.into()))
    }

    /// The snapshot's body: its JSON text.
    ///
    /// # Errors
    /// The call's status.
    pub async fn fetch(&self, id: SnapshotId) -> Result<Vec<u8>, Status> {
        let request = wire::FetchSnapshotRequest { snapshot_id: id.to_string() };
        let mut pieces = self.0.clone().fetch_snapshot(request).await?.into_inner();
        let mut body = Vec::new();
        while let Some(piece) = pieces.message().await? {
            body.extend_from_slice(&piece.data);
        }
        Ok(body)
    }
}

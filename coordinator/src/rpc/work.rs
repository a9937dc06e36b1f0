//! The service for workers.

use std::time::Duration;

use coord_common::id::{SnapshotId, Token, WorkerId};
use coord_common::task::{Lease, LeaseState, Report, Verdict};
use coord_proto::convert::{Malformed, parse};
use coord_proto::wire;
use coord_proto::wire::work_server::Work;
use tonic::{Request, Response, Status};

use super::{Pieces, caller, pieces};
use crate::access::{Permission, Proof, not_yours};
use crate::control::{Command, Handle, Poll, Refused};

/// How long a poll stays open when there is nothing to do.
const POLL: Duration = Duration::from_secs(20);

/// Answers workers.
pub(crate) struct WorkService {
    handle: Handle,
    lease_ttl: Duration,
}

impl WorkService {
    pub(crate) fn new(handle: Handle, lease_ttl: Duration) -> Self {
        Self { handle, lease_ttl }
    }
}

/// The session that a call is about, if its caller may speak for it.
fn session<T>(
    request: &Request<T>,
    permission: Permission,
    worker: impl FnOnce(&T) -> &str,
) -> Result<WorkerId, Status> {
    let session: WorkerId = parse("worker", worker(request.get_ref()))?;
    let caller = caller(request)?;
    if caller.speaks_for(&session) {
        return Ok(session);
    }
    Err(not_yours(&caller, permission, &format!("the session `{session}`")))
}

/// Takes a poll back when its caller goes away before it was answered.
struct OpenPoll {
    handle: Handle,
    worker: WorkerId,
    answered: bool,
}

impl Drop for OpenPoll {
    fn drop(&mut self) {
        if !self.answered {
            let command = Command::Unpoll { worker: self.worker.clone() };
            // A full queue leaves the poll open: its leases are taken back as unaccepted.
            let _ = self.handle.sender.try_send(command);
        }
    }
}

#[tonic::async_trait]
impl Work for WorkService {
    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterReply>, Status> {
        let worker = session(&request, Permission::REGISTER, |asked| &asked.worker)?;
        let request = request.into_inner();
        let held = request.held_tokens.into_iter().map(Token).collect();
        let (gateways, slots) = (request.gateways, request.slots);
        self.handle.ask(|reply| Command::Register { worker, gateways, slots, held, reply }).await??;
        Ok(Response::new(wire::RegisterReply {
            lease_ttl_millis: self.lease_ttl.as_millis() as u64,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn poll(&self, request: Request<wire::PollRequest>) -> Result<Response<wire::PollReply>, Status> {
        let worker = session(&request, Permission::POLL, |asked| &asked.worker)?;
        let wire::PollRequest { worker: _, free, nonce, queues } = request.into_inner();
        let mut open = OpenPoll { handle: self.handle.clone(), worker: worker.clone(), answered: false };
        let poll = Poll { free, nonce, queues };
        let answer = self.handle.ask(|reply| Command::Poll { worker, poll, reply });
        let leases = match tokio::time::timeout(POLL, answer).await {
            Ok(answer) => {
                open.answered = true;
                answer??
            }
            Err(_) => Vec::new(),
        };
        Ok(Response::new(wire::PollReply {
            leases: leases.iter().map(|lease: &Lease| lease.into()).collect(),
            // Leases come after the term has told it.
            floor: self.handle.standing.floor(),
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<wire::HeartbeatRequest>,
    ) -> Result<Response<wire::HeartbeatReply>, Status> {
        let worker = session(&request, Permission::HEARTBEAT, |asked| &asked.worker)?;
        let request = request.into_inner();
        let tokens = request.tokens.into_iter().map(Token).collect();
        let states = self.handle.ask(|reply| Command::Heartbeat { worker, tokens, reply }).await??;
        let status = |(token, state): (Token, LeaseState)| wire::LeaseStatus {
            token: token.0,
            state: wire::LeaseState::from(state).into(),
        };
        Ok(Response::new(wire::HeartbeatReply { leases: states.into_iter().map(status).collect() }))
    }

    async fn complete(
        &self,
        request: Request<wire::CompleteRequest>,
    ) -> Result<Response<wire::CompleteReply>, Status> {
        let worker = session(&request, Permission::COMPLETE, |asked| &asked.worker)?;
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut reports =
            request.reports.into_iter().map(Report::try_from).collect::<Result<Vec<_>, Malformed>>()?;
        // Whatever a worker says of itself: failures are put on record.
        reports.iter_mut().for_each(Report::cut);
        let named = caller.proof() != Proof::Local;
        let answer = self.handle.ask(|reply| Command::Complete { worker, reports, named, reply }).await?;
        let verdicts = answer.map_err(|refused| match refused {
            Refused::NotTheirs(token) => {
                not_yours(&caller, Permission::COMPLETE, &format!("the lease {token}"))
            }
            Refused::Unknown | Refused::Crowded(_) => refused.into(),
        })?;
        let verdict = |(token, verdict): (Token, Verdict)| wire::ReportVerdict {
            token: token.0,
            verdict: wire::Verdict::from(verdict).into(),
        };
        Ok(Response::new(wire::CompleteReply { verdicts: verdicts.into_iter().map(verdict).collect() }))
    }

    type FetchSnapshotStream = Pieces;

    async fn fetch_snapshot(
        &self,
        request: Request<wire::FetchSnapshotRequest>,
    ) -> Result<Response<Pieces>, Status> {
        let id: SnapshotId = parse("snapshot_id", &request.into_inner().snapshot_id)?;
        let record = self.handle.ask(|reply| Command::Snapshot { id, reply }).await?;
        let record = record.ok_or_else(|| Status::not_found(format!("there is no snapshot {id}")))?;
        let body =
            serde_json::to_vec(&record.snapshot).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(pieces(body)))
    }

    async fn drain(
        &self,
        request: Request<wire::DrainRequest>,
    ) -> Result<Response<wire::DrainReply>, Status> {
        let worker = session(&request, Permission::DRAIN, |asked| &asked.worker)?;
        self.handle.ask(|reply| Command::Drain { worker, reply }).await?;
        Ok(Response::new(wire::DrainReply {}))
    }
}

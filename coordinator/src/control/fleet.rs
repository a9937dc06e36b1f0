//! The workers that are registered, and their open polls and reports.

use std::collections::{BTreeMap, BTreeSet};

use coord_common::id::{Token, WorkerId};
use coord_common::task::{Lease, LeaseState, Verdict};
use tokio::time::{Duration, Instant};

use super::command::{Refused, Reply};
use super::report::WorkerView;
use crate::schedule::Output;

/// A worker that says nothing for so long is forgotten; its leases have long expired.
const FORGET_AFTER: Duration = Duration::from_secs(120);

/// The way back to a poll.
type PollReply = Reply<Result<Vec<Lease>, Refused>>;

struct Worker {
    gateways: BTreeSet<String>,
    slots: u32,
    seen: Instant,
    draining: bool,
    poll: Option<PollReply>,
    /// The nonce of its last poll.
    nonce: u64,
    /// Whether its last poll asked for leases behind others, too.
    queues: bool,
    /// The last answer, for a worker that asks again because it got lost.
    answer: Option<(u64, Vec<Lease>)>,
    held: BTreeSet<Token>,
}

/// All workers.
#[derive(Default)]
pub(super) struct Workers {
    workers: BTreeMap<WorkerId, Worker>,
    answered: BTreeSet<WorkerId>,
}

/// What to do with a poll.
pub(super) enum Polled {
    /// It was answered at once.
    Answered,
    /// It waits; the scheduler is to be asked on its behalf.
    Waits,
}

/// What a worker wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Poll {
    /// How many leases it would begin with at once.
    pub(crate) free: u32,
    /// The same as before where the last answer may have got lost.
    pub(crate) nonce: u64,
    /// Whether it takes leases behind those that it works on.
    pub(crate) queues: bool,
}

/// What a worker with an open poll has room for.
pub(super) struct Room {
    pub(super) gateways: BTreeSet<String>,
    pub(super) free: u32,
    pub(super) queues: bool,
}

impl Workers {
    pub(super) fn register(&mut self, id: WorkerId, gateways: Vec<String>, slots: u32, held: &[Token]) {
        // A session may register twice, as its poll and its heartbeat both find that a new leader doesn't
        // know it: what was asked and answered in between stays, or leases would be granted to nobody.
        let known = self.workers.remove(&id);
        let (poll, nonce, queues, answer) = known
            .map_or((None, 0, false, None), |known| (known.poll, known.nonce, known.queues, known.answer));
        let worker = Worker {
            gateways: gateways.into_iter().collect(),
            slots,
            seen: Instant::now(),
            draining: false,
            poll,
            nonce,
            queues,
            answer,
            held: held.iter().copied().collect(),
        };
        self.workers.insert(id, worker);
    }

    /// Whether there are as many as there may be.
    pub(super) fn is_full(&self, most: usize) -> bool {
        self.workers.len() >= most
    }

    pub(super) fn is_known(&mut self, id: &WorkerId) -> bool {
        self.workers.get_mut(id).map(|worker| worker.seen = Instant::now()).is_some()
    }

    pub(super) fn poll(&mut self, id: &WorkerId, poll: Poll, reply: PollReply) -> Polled {
        let Some(worker) = self.workers.get_mut(id) else {
            let _ = reply.send(Err(Refused::Unknown));
            return Polled::Answered;
        };
        worker.seen = Instant::now();
        if let Some((answered, leases)) = &worker.answer
            && *answered == poll.nonce
            && !leases.is_empty()
        {
            let _ = reply.send(Ok(leases.clone()));
            return Polled::Answered;
        }
        if worker.draining {
            let _ = reply.send(Ok(Vec::new()));
            return Polled::Answered;
        }
        worker.poll = Some(reply);
        worker.nonce = poll.nonce;
        worker.queues = poll.queues;
        Polled::Waits
    }

    /// Takes a poll back that its caller gave up, unless it has polled again since; what it returns
    /// is whom to stop asking for.
    pub(super) fn unpoll(&mut self, id: &WorkerId) -> Option<BTreeSet<String>> {
        let worker = self.workers.get_mut(id)?;
        if !worker.poll.as_ref()?.is_closed() {
            return None;
        }
        worker.poll = None;
        Some(worker.gateways.clone())
    }

    /// How many leases a worker has room for while its poll is open, given what is about to be told
    /// and how many of its leases wait behind others; nothing while none is open.
    pub(super) fn room(&self, id: &WorkerId, queued: u32, out: &Output) -> Option<Room> {
        let worker = self.workers.get(id).filter(|worker| worker.poll.is_some())?;
        let ended = out.verdicts.iter().filter(|(of, token, _)| of == id && worker.held.contains(token));
        let granted = out.grants.iter().filter(|(to, _)| to == id);
        let held = worker.held.len() + granted.count() - ended.count();
        let free = (worker.slots + queued).saturating_sub(held as u32);
        Some(Room { gateways: worker.gateways.clone(), free, queues: worker.queues })
    }

    pub(super) fn drain(&mut self, id: &WorkerId) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.draining = true;
            worker.poll = None;
        }
    }

    /// Hands new leases to the polls that wait for them.
    pub(super) fn tell(&mut self, out: &mut Output) {
        let mut grants: BTreeMap<WorkerId, Vec<Lease>> = BTreeMap::new();
        for (worker, lease) in out.grants.drain(..) {
            grants.entry(worker).or_default().push(lease);
        }
        for (id, leases) in grants {
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            worker.held.extend(leases.iter().map(|lease| lease.token));
            // A caller that is gone, or went in this turn, asks again with the same nonce.
            worker.answer = Some((worker.nonce, leases.clone()));
            if let Some(reply) = worker.poll.take() {
                let _ = reply.send(Ok(leases));
            }
            self.answered.insert(id);
        }
        for (id, token, _) in &out.verdicts {
            if let Some(worker) = self.workers.get_mut(id) {
                worker.held.remove(token);
            }
        }
    }

    /// Workers whose polls were answered since the last call.
    pub(super) fn answered(&mut self) -> BTreeSet<WorkerId> {
        std::mem::take(&mut self.answered)
    }

    /// Forgets workers that have been silent for long.
    pub(super) fn forget_silent(&mut self) -> Vec<WorkerId> {
        let now = Instant::now();
        let silent: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.poll.is_none() && now.duration_since(worker.seen) > FORGET_AFTER)
            .map(|(id, _)| id.clone())
            .collect();
        for id in &silent {
            self.workers.remove(id);
        }
        silent
    }

    pub(super) fn view(&self) -> Vec<WorkerView> {
        let view = |(id, worker): (&WorkerId, &Worker)| WorkerView {
            worker: id.to_string(),
            gateways: worker.gateways.iter().cloned().collect(),
            slots: worker.slots,
            held: worker.held.len() as u32,
            draining: worker.draining,
            seen_seconds_ago: worker.seen.elapsed().as_secs(),
        };
        self.workers.iter().map(view).collect()
    }
}

/// What a scheduler's output says to one worker's reports.
pub(super) fn verdicts_of(out: &Output, worker: &WorkerId, from: usize) -> Vec<(Token, Verdict)> {
    let mine = out.verdicts[from..].iter().filter(|(id, _, _)| id == worker);
    mine.map(|(_, token, verdict)| (*token, *verdict)).collect()
}

/// What a scheduler's output says to one worker's heartbeat.
pub(super) fn states_of(out: &Output, worker: &WorkerId, from: usize) -> Vec<(Token, LeaseState)> {
    let mine = out.states[from..].iter().filter(|(id, _, _)| id == worker);
    mine.map(|(_, token, state)| (*token, *state)).collect()
}

#[cfg(test)]
mod tests {
    use coord_common::id::{Hash128, PlanId};
    use coord_common::task::{Promote, Work};
    use tokio::sync::oneshot::{self, Receiver};

    use super::*;

    type Answer = Receiver<Result<Vec<Lease>, Refused>>;

    fn id() -> WorkerId {
        "w".parse().expect("an id")
    }

    fn lease(token: u64) -> Lease {
        let promote = Promote {
            environment: "dev".parse().expect("a name"),
            seq: token,
            gateway: "main".to_owned(),
            execution_time: coord_common::interval::Timestamp(0),
            views: Vec::new(),
            drop: Vec::new(),
            drop_schemas: Vec::new(),
        };
        let (plan, work) = (PlanId(Hash128(1)), Work::Promote(promote));
        Lease { token: Token(token), plan, work, ttl_millis: 1000, attempt: 1, behind: Default::default() }
    }

    fn registered() -> Workers {
        let mut workers = Workers::default();
        workers.register(id(), vec!["main".to_owned()], 4, &[]);
        workers
    }

    fn poll(workers: &mut Workers, nonce: u64) -> (bool, Answer) {
        let (reply, answer) = oneshot::channel();
        let waits =
            matches!(workers.poll(&id(), Poll { free: 1, nonce, queues: false }, reply), Polled::Waits);
        (waits, answer)
    }

    fn grant(workers: &mut Workers, token: u64) {
        let mut out = Output { grants: vec![(id(), lease(token))], ..Output::default() };
        workers.tell(&mut out);
    }

    fn tokens(answer: &mut Answer) -> Vec<u64> {
        let leases = answer.try_recv().expect("it is answered").expect("it is known");
        leases.iter().map(|lease| lease.token.0).collect()
    }

    #[test]
    fn leases_whose_answer_got_lost_are_told_again_under_the_same_nonce_and_no_other() {
        let mut workers = registered();
        let (waits, gone) = poll(&mut workers, 1);
        assert!(waits);
        drop(gone);
        grant(&mut workers, 7);
        let (waits, mut again) = poll(&mut workers, 1);
        assert!(!waits);
        assert_eq!(tokens(&mut again), [7]);
        assert!(poll(&mut workers, 2).0, "the next poll waits for others");
    }

    #[test]
    fn a_poll_that_is_taken_back_late_leaves_the_next_one_open() {
        let mut workers = registered();
        let (_, given_up) = poll(&mut workers, 1);
        drop(given_up);
        let (_, mut open) = poll(&mut workers, 1);
        assert!(workers.unpoll(&id()).is_none(), "that was about the one before");
        grant(&mut workers, 8);
        assert_eq!(tokens(&mut open), [8]);
        assert!(workers.unpoll(&id()).is_none(), "an answered poll is nobody's");
    }

    #[test]
    fn registering_twice_leaves_the_poll_in_between_open_and_its_answer_known() {
        let mut workers = registered();
        let (_, mut open) = poll(&mut workers, 1);
        workers.register(id(), vec!["main".to_owned()], 4, &[]);
        grant(&mut workers, 9);
        assert_eq!(tokens(&mut open), [9]);
        workers.register(id(), vec!["main".to_owned()], 4, &[Token(9)]);
        let (waits, mut again) = poll(&mut workers, 1);
        assert!(!waits);
        assert_eq!(tokens(&mut again), [9]);
    }

    #[test]
    fn room_counts_what_is_told_in_the_same_turn() {
        let mut workers = registered();
        let mut open = poll(&mut workers, 1).1;
        grant(&mut workers, 1);
        assert_eq!(tokens(&mut open), [1]);
        let out = Output {
            verdicts: vec![(id(), Token(1), Verdict::Recorded)],
            grants: vec![(id(), lease(2))],
            ..Output::default()
        };
        assert!(workers.room(&id(), 0, &out).is_none(), "no poll is open");
        let _open = poll(&mut workers, 2);
        assert_eq!(workers.room(&id(), 0, &out).map(|room| room.free), Some(3));
    }
}

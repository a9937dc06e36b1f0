//! The leases that a worker holds, and until when.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coord_common::id::{Token, WorkerId};
use coord_common::task::LeaseState;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long before a lease's deadline the worker lets go, as a share of its time to live: covers
/// what a cancelled statement needs to stop.
const MARGIN: u32 = 6;

/// Longest and shortest pause between heartbeats.
const BEAT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

struct HeldLease {
    cancel: CancellationToken,
    ttl: Duration,
    deadline: Instant,
}

/// Leases by token.
#[derive(Default)]
pub(super) struct Held {
    leases: Mutex<BTreeMap<Token, HeldLease>>,
    /// Told when a lease comes in that needs quicker heartbeats than those that are there.
    hurry: Notify,
    /// Whose they are, as a number, by which heartbeats of a fleet are spread.
    worker: u64,
    beats: AtomicU64,
}

impl Held {
    pub(super) fn of(worker: &WorkerId) -> Self {
        Self { worker: hash(worker), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Token, HeldLease>> {
        // A panic elsewhere leaves the map whole: every change to it is one insert or remove.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a lease; what it returns fires when the lease is lost.
    pub(super) fn add(&self, token: Token, ttl: Duration) -> CancellationToken {
        let cancel = CancellationToken::new();
        let deadline = Instant::now() + (ttl - ttl / MARGIN);
        let mut leases = self.lock();
        if leases.values().all(|lease| lease.ttl > ttl) {
            self.hurry.notify_one();
        }
        leases.insert(token, HeldLease { cancel: cancel.clone(), ttl, deadline });
        cancel
    }

    /// Forgets a lease whose work ended.
    pub(super) fn finished(&self, token: Token) {
        self.lock().remove(&token);
    }

    /// Tokens of all leases held.
    pub(super) fn tokens(&self) -> Vec<Token> {
        self.lock().keys().copied().collect()
    }

    /// Waits until the next heartbeat is due after one at `last`, and gives the pause between them.
    /// A lease that comes in meanwhile counts at once: the pause of a worker that had none can be
    /// longer than that lease lives.
    pub(super) async fn next_beat(&self, last: Instant) -> Duration {
        loop {
            let pause = self.beat_every();
            tokio::select! {
                biased;
                () = sleep_until(last + pause) => return pause,
                () = self.hurry.notified() => {}
            }
        }
    }

    /// How long to wait until the next heartbeat: a third of the shortest time to live, give or
    /// take a tenth so that a fleet doesn't beat as one.
    fn beat_every(&self) -> Duration {
        let shortest = self.lock().values().map(|lease| lease.ttl).min();
        let third = shortest.map_or(BEAT.1, |ttl| ttl / 3).clamp(BEAT.0, BEAT.1);
        let beat = self.beats.fetch_add(1, Ordering::Relaxed);
        let jitter = (hash(&(self.worker, beat)) % 200) as f64 / 1000.0;
        third.mul_f64(0.9 + jitter)
    }

    /// Takes in what the coordinator said to a heartbeat sent at `sent`.
    pub(super) fn answered(&self, sent: Instant, states: &[(Token, LeaseState)]) {
        let mut held = self.lock();
        for (token, state) in states {
            let Some(lease) = held.get_mut(token) else { continue };
            match state {
                LeaseState::Held => lease.deadline = sent + (lease.ttl - lease.ttl / MARGIN),
                LeaseState::Cancel | LeaseState::Gone => {
                    warn!(token = token.0, ?state, "lease lost: rolling back");
                    lease.cancel.cancel();
                }
            }
        }
    }

    /// Lets go of leases that no answered heartbeat prolonged in time.
    pub(super) fn give_up_expired(&self, now: Instant) {
        for (token, lease) in self.lock().iter() {
            if lease.deadline <= now && !lease.cancel.is_cancelled() {
                warn!(token = token.0, "no heartbeat was answered in time: rolling back");
                lease.cancel.cancel();
            }
        }
    }

    /// Lets go of everything.
    pub(super) fn cancel_all(&self) {
        for lease in self.lock().values() {
            lease.cancel.cancel();
        }
    }
}

/// The same in every process, so that simulations can be repeated.
fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_without_answered_heartbeats_is_given_up_before_its_deadline() {
        let held = Held::default();
        let ttl = Duration::from_secs(30);
        let cancel = held.add(Token(1), ttl);
        tokio::time::advance(Duration::from_secs(20)).await;
        held.give_up_expired(Instant::now());
        assert!(!cancel.is_cancelled());
        held.answered(Instant::now(), &[(Token(1), LeaseState::Held)]);
        tokio::time::advance(Duration::from_secs(20)).await;
        held.give_up_expired(Instant::now());
        assert!(!cancel.is_cancelled());
        tokio::time::advance(Duration::from_secs(6)).await;
        held.give_up_expired(Instant::now());
        assert!(cancel.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_lease_after_a_pause_is_kept_alive_however_short_it_is() {
        let held = Held::default();
        let start = Instant::now();
        let ttl = Duration::from_millis(600);
        let (pause, ()) = tokio::join!(held.next_beat(start), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            held.add(Token(1), ttl);
        });
        assert!(pause < ttl / 2 && start.elapsed() < ttl / 2, "{pause:?} of {ttl:?}");
        // Leases that come and go faster than hearts beat put the beat off for no longer.
        let last = Instant::now();
        let comings_and_goings = async {
            for token in 2.. {
                tokio::time::sleep(Duration::from_millis(10)).await;
                held.finished(Token(token - 1));
                held.add(Token(token), ttl);
            }
        };
        tokio::select! {
            _ = held.next_beat(last) => {}
            () = comings_and_goings => {}
        }
        assert!(last.elapsed() < ttl / 2, "{:?}", last.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_gone_is_cancelled() {
        let held = Held::default();
        let (one, two) = (held.add(Token(1), BEAT.1), held.add(Token(2), BEAT.1));
        held.answered(Instant::now(), &[(Token(1), LeaseState::Gone), (Token(2), LeaseState::Held)]);
        assert!(one.is_cancelled());
        assert!(!two.is_cancelled());
    }
}

//! The order in which a worker begins with its leases: one that was granted behind another takes its
//! place when that one has ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use coord_common::id::Token;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How long a lease waits for the place of another before it is handed back. The coordinator lets
/// leases wait only behind work that is done in a second as a rule.
const PATIENCE: Duration = Duration::from_secs(2);

/// The leases that are held, and what fires when one ends.
#[derive(Default)]
pub(super) struct Places(BTreeMap<Token, Place>);

struct Place {
    ended: CancellationToken,
    followed: Arc<AtomicBool>,
    behind: Option<Token>,
}

/// A lease's turn.
pub(super) struct Turn {
    /// Fires when the one before it has ended.
    before: Option<CancellationToken>,
    /// To fire when it has ended itself.
    ended: CancellationToken,
    /// Whether another lease waits behind it.
    followed: Arc<AtomicBool>,
}

impl Places {
    /// Takes a lease in. One whose predecessor has ended meanwhile needn't wait.
    pub(super) fn add(&mut self, token: Token, behind: Option<Token>) -> Turn {
        self.0.retain(|_, place| !place.ended.is_cancelled());
        let before = behind.and_then(|before| self.0.get(&before)).map(|place| {
            place.followed.store(true, Ordering::Relaxed);
            place.ended.clone()
        });
        let (ended, followed) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        self.0.insert(token, Place { ended: ended.clone(), followed: followed.clone(), behind });
        Turn { before, ended, followed }
    }

    /// How many leases have a place of their own, rather than waiting for another's.
    pub(super) fn taken(&mut self) -> usize {
        self.0.retain(|_, place| !place.ended.is_cancelled());
        let waits = |place: &&Place| place.behind.is_some_and(|before| self.0.contains_key(&before));
        self.0.len() - self.0.values().filter(waits).count()
    }
}

impl Turn {
    /// Whether another lease is at hand that takes the place of this one.
    pub(super) fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Relaxed)
    }

    /// Waits until the lease's turn has come; false when it didn't in time, or `stop` or `cancel`
    /// fired before.
    pub(super) async fn comes(&self, stop: &CancellationToken, cancel: &CancellationToken) -> bool {
        let Some(before) = &self.before else { return true };
        tokio::select! {
            biased;
            () = cancel.cancelled() => false,
            () = stop.cancelled() => false,
            turn = timeout(PATIENCE, before.cancelled()) => turn.is_ok(),
        }
    }
}

/// Tells the work of a lease when it may begin. What doesn't count as work, as rendering a query, is
/// done before.
pub struct Start<'a> {
    turn: &'a Turn,
    stop: &'a CancellationToken,
    cancel: &'a CancellationToken,
    begun: OnceLock<Instant>,
}

impl<'a> Start<'a> {
    pub(super) fn new(turn: &'a Turn, stop: &'a CancellationToken, cancel: &'a CancellationToken) -> Self {
        Self { turn, stop, cancel, begun: OnceLock::new() }
    }

    /// Whether the work must wait for that of another lease.
    pub fn is_put_off(&self) -> bool {
        self.turn.before.as_ref().is_some_and(|before| !before.is_cancelled())
    }

    /// Waits until the work may begin; false when it never may.
    pub async fn comes(&self) -> bool {
        let may = self.turn.comes(self.stop, self.cancel).await;
        if may {
            self.begun.get_or_init(Instant::now);
        }
        may
    }

    /// How long the work has taken so far.
    pub(super) fn took(&self) -> Duration {
        self.begun.get().map_or(Duration::ZERO, Instant::elapsed)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_behind_another_begins_when_that_one_has_ended() {
        let (mut places, never) = (Places::default(), CancellationToken::new());
        let first = places.add(Token(1), None);
        let second = places.add(Token(2), Some(Token(1)));
        assert!(first.comes(&never, &never).await);
        assert_eq!(places.taken(), 1);
        tokio::select! {
            biased;
            _ = second.comes(&never, &never) => panic!("the first has its place"),
            () = tokio::time::sleep(PATIENCE / 2) => drop(first),
        }
        assert!(second.comes(&never, &never).await);
        assert_eq!(places.taken(), 1);
        let late = places.add(Token(3), Some(Token(1)));
        assert!(late.comes(&never, &never).await, "what it should wait for has ended");
        assert_eq!(places.taken(), 2);
        drop((second, late));
        assert_eq!(places.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_waits_for_long_or_is_lost_never_begins() {
        let (mut places, never, fired) =
            (Places::default(), CancellationToken::new(), CancellationToken::new());
        let _first = places.add(Token(1), None);
        let second = places.add(Token(2), Some(Token(1)));
        assert!(!second.comes(&never, &never).await, "after a while it is handed back");
        fired.cancel();
        assert!(!second.comes(&fired, &never).await);
        assert!(!second.comes(&never, &fired).await);
    }
}

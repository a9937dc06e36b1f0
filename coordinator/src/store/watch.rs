//! Hints that something changed.

use tokio::sync::watch;

/// A hint that keys under a prefix may have changed.
///
/// Hints merge: many changes may give one, and one may be given without a change (after a lost
/// connection or a compaction). Whoever gets a hint reads again.
#[derive(Debug)]
pub struct Watch {
    hints: watch::Receiver<()>,
}

impl Watch {
    /// A watch, and what wakes it up.
    #[allow(clippy::new_ret_no_self, reason = "a channel has two ends")]
    pub fn new() -> (Hinter, Self) {
        let (sender, hints) = watch::channel(());
        (Hinter(sender), Self { hints })
    }

    /// Waits for a hint. False once the store is closed and no more will come. Safe to cancel: a
    /// hint is not lost with a dropped call.
    pub async fn changed(&mut self) -> bool {
        self.hints.changed().await.is_ok()
    }
}

/// The side of a [`Watch`] that gives the hints.
#[derive(Debug)]
pub struct Hinter(watch::Sender<()>);

impl Hinter {
    /// Says that something may have changed.
    pub fn hint(&self) {
        self.0.send_replace(());
    }

    /// Whether nobody listens any more.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Ends when nobody listens any more.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}

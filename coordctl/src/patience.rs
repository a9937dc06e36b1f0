//! Looking for a coordinator that leads, for as long as the user has patience.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use coord_proto::net::{Backoff, Unreachable};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use crate::error::CliError;
use crate::output;

/// First and longest pause before a call is made again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// After how long it is said that we wait: an election that is almost over is nobody's concern.
const SILENT: Duration = Duration::from_millis(500);

/// The wait for one answer.
pub(crate) struct Patience {
    whole: Duration,
    since: Option<Instant>,
    told: bool,
    backoff: Backoff,
    /// Whether a call may have taken place although nothing came back.
    pub(crate) unsure: bool,
}

impl Patience {
    pub(crate) fn new(whole: Duration) -> Self {
        let backoff = Backoff::new(PAUSES.0, PAUSES.1, random());
        Self { whole, since: None, told: false, backoff, unsure: false }
    }

    /// Something was answered: patience begins anew.
    pub(crate) fn renew(&mut self) {
        if self.since.take().is_some() {
            if std::mem::take(&mut self.told) {
                output::error_line("a coordinator leads again");
            }
            self.backoff.reset();
        }
    }

    /// Waits before a call that failed is made again.
    ///
    /// # Errors
    /// The call's own, where making it again can't help, or the patience is over.
    pub(crate) async fn wait(&mut self, status: Status) -> Result<(), CliError> {
        let unreachable = Unreachable::of(&status);
        let hopeless = unreachable.is_some_and(|nobody| nobody.trouble.is_some());
        if hopeless || !may_pass(&status) || self.whole.is_zero() {
            return Err(status.into());
        }
        // A coordinator that doesn't lead says so before it does anything.
        self.unsure = true;
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.whole {
            return Err(self.over(status));
        }
        // Who was never there may be somewhere else: whoever mistyped an address needn't wait to see it.
        let strange = unreachable.is_some_and(|nobody| nobody.first);
        if (strange || since.elapsed() >= SILENT) && !std::mem::replace(&mut self.told, true) {
            let left = self.whole.as_secs();
            output::error_line(&format!(
                "waiting for a coordinator that leads, for up to {left} s ({})",
                status.message()
            ));
        }
        sleep(self.backoff.pause()).await;
        Ok(())
    }

    fn over(&self, status: Status) -> CliError {
        let error = CliError::from(status);
        let message = format!("{}; gave up after {} s", error.message, self.whole.as_secs());
        CliError { message, ..error }
    }
}

/// Whether the same call may succeed later, or elsewhere: it wasn't answered by a coordinator that
/// leads.
fn may_pass(status: &Status) -> bool {
    // Broken streams end in any of these; what a coordinator decides has other codes.
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded)
}

/// A name that no other call ever had.
pub(crate) fn request_id() -> String {
    format!("{:016x}{:016x}", random(), random())
}

fn random() -> u64 {
    // Each has keys of its own.
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn patience_ends_and_begins_anew_with_each_answer() {
        let mut patience = Patience::new(Duration::from_secs(10));
        let begun = Instant::now();
        let refused = || Status::unavailable("nobody");
        while begun.elapsed() < Duration::from_secs(8) {
            patience.wait(refused()).await.expect("there is patience left");
        }
        patience.renew();
        let begun = Instant::now();
        let error = loop {
            if let Err(error) = patience.wait(refused()).await {
                break error;
            }
        };
        assert!(begun.elapsed() >= Duration::from_secs(10));
        assert!(error.message.ends_with("gave up after 10 s"), "{}", error.message);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_coordinator_decided_is_not_asked_again() {
        let mut patience = Patience::new(Duration::from_secs(10));
        for status in [Status::not_found(""), Status::failed_precondition(""), Status::internal("")] {
            assert!(patience.wait(status).await.is_err());
        }
        let mut none = Patience::new(Duration::ZERO);
        assert!(none.wait(Status::unavailable("nobody")).await.is_err());
    }
}

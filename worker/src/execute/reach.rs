//! Warehouses that were not to be reached: whoever comes next looks first, instead of spending an
//! attempt of its batch.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(3);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a lease is kept while its warehouse can't be reached: then another worker may try.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gateways whose warehouse didn't answer when it was last asked.
#[derive(Debug, Default)]
pub(super) struct OutOfReach(Mutex<BTreeSet<String>>);

impl OutOfReach {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // A panic elsewhere leaves the set whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what an attempt's failure says about the way to its warehouse.
    pub(super) fn note(&self, gateway: &str, code: Option<&str>) {
        let lost = |code: &str| {
            code.starts_with("08") || code.starts_with("57P0") || code == super::patience::TIMED_OUT
        };
        if code.is_some_and(lost) {
            self.lock().insert(gateway.to_owned());
        }
    }

    /// Whether work may begin: at once where nothing is wrong, else once the warehouse answers.
    pub(super) async fn may_begin(
        &self,
        gateway: &str,
        engine: &dyn Engine,
        cancel: &CancellationToken,
    ) -> bool {
        let since = Instant::now();
        while self.lock().contains(gateway) {
            if cancel.is_cancelled() || since.elapsed() >= PATIENCE {
                return false;
            }
            let answered = tokio::select! {
                () = cancel.cancelled() => return false,
                answered = timeout(LOOK, engine.ping()) => matches!(answered, Ok(Ok(_))),
            };
            if answered {
                self.lock().remove(gateway);
            } else {
                sleep(PAUSE).await;
            }
        }
        true
    }
}

//! Leadership: one key, bound to a lease of the store; its create revision is the term.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{ControlConfig, ControlError};
use crate::store::record::encode_json;
use crate::store::{Compare, LeaseId, Outcome, Revision, Store, Txn, keys};

/// Leadership that is held, and prolonged in the background.
pub(super) struct Lead {
    store: Arc<dyn Store>,
    lease: LeaseId,
    term: Revision,
    lost: CancellationToken,
    keeper: JoinHandle<()>,
}

impl Lead {
    /// Waits until nobody else leads, and leads; nothing when `stop` fired first.
    pub(super) async fn campaign(
        store: Arc<dyn Store>,
        config: &ControlConfig,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, ControlError> {
        let mut told = false;
        loop {
            let lease = store.grant_lease(config.election_ttl).await?;
            let claim = Txn::new().require(Compare::Absent(keys::LEAD.to_owned())).put_with_lease(
                keys::LEAD,
                encode_json(&config.identity)?,
                lease,
            );
            if let Outcome::Committed(term) = store.commit(claim).await? {
                return Ok(Some(Self::keep(store, lease, term, config.election_ttl)));
            }
            store.revoke(lease).await?;
            if !std::mem::replace(&mut told, true) {
                info!("another coordinator leads, or its leadership has yet to expire: standing by");
            }
            let mut watch = store.watch(keys::LEAD).await?;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                _ = watch.changed() => {}
                // Watches are hints; look by ourselves, too.
                () = sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    fn keep(store: Arc<dyn Store>, lease: LeaseId, term: Revision, ttl: Duration) -> Self {
        let lost = CancellationToken::new();
        let (keeps, tells) = (store.clone(), lost.clone());
        let keeper = tokio::spawn(async move {
            let mut failures = 0;
            while failures < 3 {
                sleep(ttl / 4).await;
                match keeps.keep_alive(lease).await {
                    Ok(()) => failures = 0,
                    Err(error) => {
                        warn!(%error, "leadership could not be prolonged");
                        failures += if error.retryable() { 1 } else { 3 };
                    }
                }
            }
            tells.cancel();
        });
        Self { store, lease, term, lost, keeper }
    }

    /// The term: tokens and transactions build on it.
    pub(super) fn term(&self) -> Revision {
        self.term
    }

    /// What every transaction of this leader requires.
    pub(super) fn compare(&self) -> Compare {
        Compare::CreateRevision(keys::LEAD.to_owned(), self.term)
    }

    /// Ends when leadership could not be prolonged.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Lets others lead at once.
    pub(super) async fn resign(&mut self) {
        self.keeper.abort();
        if let Err(error) = self.store.revoke(self.lease).await {
            warn!(%error, "leadership will expire by itself");
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

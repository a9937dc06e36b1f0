//! Leadership: one key, bound to a lease of the store; its create revision is the term.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{ControlConfig, ControlError};
use crate::store::record::{decode_json, encode_json};
use crate::store::{Compare, LeaseId, Outcome, Revision, Store, Txn, keys};

/// Pause after which a standby looks by itself: watches are hints.
const LOOK: Duration = Duration::from_millis(500);

/// Who leads, as far as this coordinator knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody, or it isn't known yet.
    #[default]
    Unknown,
    /// This one.
    Leading,
    /// Another one, at this address where it advertises one.
    Behind(Option<String>),
}

/// The same for any number of callers, who hear of changes in the order in which they began to wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leadership(Arc<(Mutex<Standing>, Notify, AtomicU64)>);

impl Leadership {
    /// What is known now.
    pub(crate) fn get(&self) -> Standing {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Up to which token all are of a time that was lost, as far as the last term here has told.
    pub(crate) fn floor(&self) -> u64 {
        self.0.2.load(Ordering::Acquire)
    }

    /// Tells it; a term does before it grants anything.
    pub(crate) fn tell_floor(&self, floor: u64) {
        self.0.2.store(floor, Ordering::Release);
    }

    /// Tells everybody.
    pub(crate) fn tell(&self, standing: Standing) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = standing;
        self.0.1.notify_waiters();
    }

    /// Waits until it is known who leads.
    pub(crate) async fn anybody(&self) {
        loop {
            let mut told = std::pin::pin!(self.0.1.notified());
            told.as_mut().enable();
            if self.get() != Standing::Unknown {
                return;
            }
            told.await;
        }
    }
}

/// The value of the lead key.
#[derive(Debug, Serialize, Deserialize)]
struct Leader {
    /// Who it is, for people.
    identity: String,
    /// Where clients reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

/// Leadership that is held, and prolonged in the background.
pub(super) struct Lead {
    store: Arc<dyn Store>,
    lease: LeaseId,
    term: Revision,
    ttl: Duration,
    /// When the last prolongation that succeeded was sent.
    kept: Arc<Mutex<Instant>>,
    lost: CancellationToken,
    keeper: JoinHandle<()>,
}

impl Lead {
    /// Waits until nobody else leads, and leads; nothing when `stop` fired first. Tells meanwhile
    /// who does.
    pub(super) async fn campaign(
        store: Arc<dyn Store>,
        config: &ControlConfig,
        standing: &Leadership,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, ControlError> {
        let mut told = false;
        loop {
            // Asked for first, so that nothing that happens after the look is missed.
            let mut watch = store.watch(keys::LEAD).await?;
            match store.get(keys::LEAD).await? {
                None => {
                    if let Some(lead) = Self::claim(&store, config).await? {
                        standing.tell(Standing::Leading);
                        return Ok(Some(lead));
                    }
                    continue;
                }
                Some(entry) => {
                    // Who can't be understood leads all the same.
                    let leader = decode_json::<Leader>(keys::LEAD, &entry.value).ok();
                    let address = leader.and_then(|leader| leader.address);
                    standing.tell(Standing::Behind(address));
                }
            }
            if !std::mem::replace(&mut told, true) {
                info!("another coordinator leads, or its leadership has yet to expire: standing by");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                _ = watch.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Leads, unless somebody else does.
    async fn claim(store: &Arc<dyn Store>, config: &ControlConfig) -> Result<Option<Self>, ControlError> {
        let asked = Instant::now();
        let lease = store.grant_lease(config.election_ttl).await?;
        let leader = Leader { identity: config.identity.clone(), address: config.address.clone() };
        let claim = Txn::new().require(Compare::Absent(keys::LEAD.to_owned())).put_with_lease(
            keys::LEAD,
            encode_json(&leader)?,
            lease,
        );
        if let Outcome::Committed(term) = store.commit(claim).await? {
            return Ok(Some(Self::keep(store.clone(), lease, term, config.election_ttl, asked)));
        }
        store.revoke(lease).await?;
        Ok(None)
    }

    fn keep(store: Arc<dyn Store>, lease: LeaseId, term: Revision, ttl: Duration, asked: Instant) -> Self {
        let (lost, kept) = (CancellationToken::new(), Arc::new(Mutex::new(asked)));
        let (keeps, tells, notes) = (store.clone(), lost.clone(), kept.clone());
        let keeper = tokio::spawn(async move {
            while !is_over(&notes, ttl) {
                sleep(ttl / 4).await;
                let sent = Instant::now();
                match timeout(ttl / 4, keeps.keep_alive(lease)).await {
                    Ok(Ok(())) => *notes.lock().unwrap_or_else(PoisonError::into_inner) = sent,
                    Ok(Err(error)) => {
                        warn!(%error, "leadership could not be prolonged");
                        if !error.retryable() {
                            break;
                        }
                    }
                    Err(_) => warn!("leadership could not be prolonged: no answer"),
                }
            }
            tells.cancel();
        });
        Self { store, lease, term, ttl, kept, lost, keeper }
    }

    /// Whether nothing is known to have prolonged leadership for its whole time to live, as in a
    /// process that was stopped for long: somebody else may lead, so nothing may be answered.
    pub(super) fn is_over(&self) -> bool {
        is_over(&self.kept, self.ttl)
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

fn is_over(kept: &Mutex<Instant>, ttl: Duration) -> bool {
    kept.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= ttl
}

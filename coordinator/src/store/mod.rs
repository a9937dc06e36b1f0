//! The state store: an etcd-shaped port with two back ends, etcd for a fleet and SQLite for one
//! machine.
//!
//! Keys are text, values are bytes, and every committed transaction gets one [`Revision`] of the
//! whole store. All writes are [`Txn`]s guarded by [`Compare`]s; reads are linearizable; a
//! [`Watch`] is a hint to read again and nothing more. [`conformance`] is what both back ends must
//! pass.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub mod blob;
pub mod conformance;
mod connection;
mod error;
mod etcd;
pub mod keys;
mod members;
pub mod record;
pub mod schema;
mod sqlite;
mod txn;
mod url;
mod watch;

pub use self::error::StoreError;
pub use self::etcd::EtcdStore;
pub use self::sqlite::{Clock, SqliteStore};
pub use self::txn::{
    Compare, MAX_COMPARES, MAX_KEY_BYTES, MAX_OPS, MAX_TXN_BYTES, MAX_VALUE_BYTES, Op, Txn, check_key,
};
pub use self::url::{EtcdUrl, StoreUrl, UrlError};
pub use self::watch::{Hinter, Watch};

/// A point in the store's history: grows by one with every transaction that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub i64);

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease: keys attached to it vanish when it expires or is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// One key with its value and its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key, without the store's namespace.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The revision that created the key; a key deleted and put again has a new one.
    pub create_revision: Revision,
    /// The revision that last put the key.
    pub mod_revision: Revision,
    /// How often the key was put since it was created, from 1.
    pub version: i64,
}

/// All keys under a prefix, as they were at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The entries, sorted by the bytes of their keys.
    pub entries: Vec<Entry>,
    /// The revision at which they were read.
    pub revision: Revision,
}

/// How a transaction that reached the store ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every compare held and all operations were applied, at this revision.
    Committed(Revision),
    /// A compare did not hold; nothing was changed.
    Conflict,
}

impl Outcome {
    /// The revision, where it was committed.
    pub fn committed(self) -> Option<Revision> {
        match self {
            Self::Committed(revision) => Some(revision),
            Self::Conflict => None,
        }
    }
}

/// The port to durable state.
///
/// Every method may fail with [`StoreError::Unavailable`]; only [`Store::commit`] may end in
/// [`StoreError::Unknown`].
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The entry of one key, linearizably: it shows every transaction committed before the call.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// All entries whose keys start with `prefix`, at one revision, however many they are.
    async fn range(&self, prefix: &str) -> Result<Snapshot, StoreError>;

    /// Applies a transaction wholly or not at all.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] and [`StoreError::Invalid`] before anything is sent;
    /// [`StoreError::LeaseGone`] where a put names a lease that has expired;
    /// [`StoreError::Unknown`] where the answer was lost: read again before deciding.
    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError>;

    /// A hint whenever something under `prefix` may have changed after this call returned.
    async fn watch(&self, prefix: &str) -> Result<Watch, StoreError>;

    /// A new lease. etcd rounds `ttl` up to whole seconds and to two at least, and may let a lease
    /// live longer (after a change of its leader): expiry is a lower bound.
    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Gives a lease its whole time to live again.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`] where it has expired or was revoked.
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends a lease and deletes its keys; a lease that is gone already is no error.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;
}

/// Opens the store that a URL names. The schema is not checked: see [`schema::check_schema`].
pub async fn open(url: &StoreUrl) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match url {
        StoreUrl::Etcd(url) => Arc::new(EtcdStore::connect(url).await?),
        StoreUrl::Sqlite(path) => {
            let path = path.clone();
            let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&path)).await;
            Arc::new(opened.map_err(|error| StoreError::Unavailable(error.to_string()))??)
        }
    })
}

/// The first key after all that start with `prefix`; nothing where there is none.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_its_last_byte_that_can_grow_has_grown() {
        assert_eq!(prefix_end(b"a/").as_deref(), Some(&b"a0"[..]));
        assert_eq!(prefix_end(b"a\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b""), None);
        assert_eq!(prefix_end(b"\xff"), None);
    }
}

//! Large values as they are in the simulated store, for those who check: nothing goes wrong here.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use coord_common::id::Hash128;
use coordinator::store::{
    Entry, LeaseId, Outcome, Revision, Snapshot, Store, StoreError, Txn, Watch, blob, keys,
};
use serde_json::Value;

use crate::store::Db;

/// The pieces of one value.
struct Pieces(Vec<Entry>);

/// The document of this name; null where there is none.
pub(crate) fn document(db: &Db, hash: &Value) -> Value {
    let Some(Ok(hash)) = hash.as_str().map(str::parse::<Hash128>) else { return Value::Null };
    let pieces = Pieces(db.under(&keys::blob(hash)).cloned().collect());
    let mut read = pin!(blob::get_blob(&pieces, hash));
    match read.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(Some(bytes))) => serde_json::from_slice(&bytes).unwrap_or_default(),
        _ => Value::Null,
    }
}

fn never<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("only to look".to_owned()))
}

#[async_trait]
impl Store for Pieces {
    async fn get(&self, _: &str) -> Result<Option<Entry>, StoreError> {
        never()
    }

    async fn range(&self, _: &str) -> Result<Snapshot, StoreError> {
        Ok(Snapshot { entries: self.0.clone(), revision: Revision(0) })
    }

    async fn commit(&self, _: Txn) -> Result<Outcome, StoreError> {
        never()
    }

    async fn watch(&self, _: &str) -> Result<Watch, StoreError> {
        never()
    }

    async fn grant_lease(&self, _: Duration) -> Result<LeaseId, StoreError> {
        never()
    }

    async fn keep_alive(&self, _: LeaseId) -> Result<(), StoreError> {
        never()
    }

    async fn revoke(&self, _: LeaseId) -> Result<(), StoreError> {
        never()
    }
}

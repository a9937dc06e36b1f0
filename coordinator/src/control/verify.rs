//! Whether a record of the store is what its key says it is.

use std::str::FromStr;

use coord_common::id::{EnvironmentName, Hash128, PlanId, SnapshotId};
use coord_common::interval::Timestamp;
use coord_common::task::{Batch, DropTable, TableId};
use serde::de::DeserializeOwned;

use super::book::{PlanRecord, Pointer, StoredSnapshot, Switch, Todo};
use super::evidence::{Entry as Evidence, Head};
use super::history::{Kept, Promotion};
use crate::apply::{LeaseRecord, Setback, token_of};
use crate::backup::Era;
use crate::store::record::{decode_intervals, decode_json, unseal};
use crate::store::{StoreError, blob, keys, schema};

/// Reads a record of this build's format by its key, and so tells whether it is sound.
///
/// # Errors
/// [`StoreError::Corrupt`] where the value is damaged or the key can't be understood,
/// [`StoreError::NewerSchema`] where a newer build wrote it.
pub fn verify_record(key: &str, value: &[u8]) -> Result<(), StoreError> {
    let record = Record { key, value };
    match key {
        keys::SCHEMA => return schema::verify(value),
        keys::EVIDENCE_HEAD => return record.is::<Head>(),
        keys::ERA => return record.is::<Era>(),
        keys::LEAD => return record.is::<serde_json::Value>(),
        _ => {}
    }
    let Some(end) = key.strip_prefix(keys::ROOT).and_then(|rest| rest.find('/')) else {
        return Err(record.unknown());
    };
    match &key[..keys::ROOT.len() + end + 1] {
        keys::ENVIRONMENTS => record.named::<EnvironmentName>(keys::ENVIRONMENTS)?.is::<Pointer>(),
        keys::APPLYING => record.named::<EnvironmentName>(keys::APPLYING)?.is::<PlanId>(),
        keys::SWITCHES => record.named::<EnvironmentName>(keys::SWITCHES)?.is::<Switch>(),
        keys::GONE => record.named::<EnvironmentName>(keys::GONE)?.is::<u64>(),
        keys::EVIDENCE => record.named::<u64>(keys::EVIDENCE)?.is::<Evidence>(),
        keys::PROMOTIONS => record.named::<u64>(keys::PROMOTIONS)?.is::<Promotion>(),
        keys::PLANS => record.named::<PlanId>(keys::PLANS)?.is::<PlanRecord>(),
        keys::SNAPSHOTS => record.named::<SnapshotId>(keys::SNAPSHOTS)?.is::<StoredSnapshot>(),
        keys::KEPT => record.named::<SnapshotId>(keys::KEPT)?.is::<Kept>(),
        keys::DROPS => record.named::<TableId>(keys::DROPS)?.is::<DropTable>(),
        keys::RESTATED => record.named::<TableId>(keys::RESTATED)?.is::<Timestamp>(),
        keys::TODOS => record.named::<TableId>(keys::TODOS)?.is::<Todo>(),
        keys::LOST => record.named::<Batch>(keys::LOST)?.is::<bool>(),
        keys::SETBACKS => record.named::<Batch>(keys::SETBACKS)?.is::<Setback>(),
        prefix @ (keys::INTERVALS | keys::STALE) => {
            record.named::<TableId>(prefix)?;
            decode_intervals(key, value).map(|_| ())
        }
        keys::LEASES => match token_of(key) {
            Some(_) => record.is::<LeaseRecord>(),
            None => Err(record.unknown()),
        },
        keys::BLOBS => {
            record.first::<Hash128>(keys::BLOBS)?;
            blob::verify_piece(key, value)
        }
        // A kind of record that has come since is taken as it is, if its envelope is sound.
        _ => record
            .is::<serde_json::Value>()
            .or_else(|error| unseal(key, value).map(|_| ()).map_err(|_| error)),
    }
}

struct Record<'a> {
    key: &'a str,
    value: &'a [u8],
}

impl Record<'_> {
    fn is<T: DeserializeOwned>(&self) -> Result<(), StoreError> {
        decode_json::<T>(self.key, self.value).map(|_| ())
    }

    /// The last name in the key is of a kind.
    fn named<T: FromStr>(&self, prefix: &str) -> Result<&Self, StoreError> {
        let parts = keys::parts(self.key, prefix).unwrap_or_default();
        parts.last().and_then(|part| part.parse::<T>().ok()).map(|_| self).ok_or_else(|| self.unknown())
    }

    /// The first name in the key is of a kind.
    fn first<T: FromStr>(&self, prefix: &str) -> Result<&Self, StoreError> {
        let parts = keys::parts(self.key, prefix).unwrap_or_default();
        parts.first().and_then(|part| part.parse::<T>().ok()).map(|_| self).ok_or_else(|| self.unknown())
    }

    fn unknown(&self) -> StoreError {
        StoreError::corrupt(self.key, "its key can't be understood")
    }
}

//! Snapshots that the worker has fetched: immutable, so a cached one is never stale.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use coord_common::id::{ModelName, SnapshotId};
use coord_common::snapshot::Snapshot;
use coord_common::task::{Binding, Failure, FailureClass, TableTask};

use crate::agent::SnapshotSource;

/// Snapshots kept; beyond, the cache starts anew.
const KEEP: usize = 4096;

/// A cache of snapshots.
pub(super) struct Snapshots {
    source: SnapshotSource,
    known: Mutex<HashMap<SnapshotId, Arc<Snapshot>>>,
}

impl Snapshots {
    pub(super) fn new(source: SnapshotSource) -> Self {
        Self { source, known: Mutex::default() }
    }

    /// A snapshot, from the cache or from the coordinator.
    pub(super) async fn get(&self, id: SnapshotId) -> Result<Arc<Snapshot>, Failure> {
        let cached = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(snapshot) = cached {
            return Ok(snapshot);
        }
        let body =
            self.source.fetch(id).await.map_err(|status| transient(format!("snapshot {id}: {status}")))?;
        let snapshot: Snapshot = serde_json::from_slice(&body)
            .map_err(|error| transient(format!("snapshot {id} can't be read: {error}")))?;
        let snapshot = Arc::new(snapshot);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEEP {
            known.clear();
        }
        known.insert(id, snapshot.clone());
        Ok(snapshot)
    }

    /// The EMBEDDED models that a task names.
    pub(super) async fn embedded(
        &self,
        task: &TableTask,
    ) -> Result<BTreeMap<ModelName, Arc<Snapshot>>, Failure> {
        let mut found = BTreeMap::new();
        for (name, binding) in &task.bindings {
            if let Binding::Embedded(id) = binding {
                found.insert(name.clone(), self.get(*id).await?);
            }
        }
        Ok(found)
    }
}

fn transient(message: String) -> Failure {
    Failure { class: FailureClass::Transient, code: None, message, hint: None }
}

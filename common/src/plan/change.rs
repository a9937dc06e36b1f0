//! What differs between a project and what an environment shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Environment;
use crate::id::{ModelName, SnapshotId};
use crate::project::model::ModelSource;
use crate::snapshot::{ByName, Informed, Snapshot, SnapshotRecord, query_change, same_statements};
use crate::sql::{Dialect, QueryChange};

/// How a model differs from what an environment shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The environment doesn't have it.
    Added,
    /// The project doesn't have it any more.
    Removed,
    /// Its own definition differs.
    DirectlyModified,
    /// Only something upstream differs.
    IndirectlyModified,
    /// Only what doesn't shape rows differs.
    MetadataUpdated,
    /// Nothing differs.
    Unchanged,
}

/// The difference, model by model.
pub(super) struct Diff {
    /// Every model before or after.
    pub(super) changes: BTreeMap<ModelName, Change>,
    /// The snapshot before, where there was one.
    pub(super) before: BTreeMap<ModelName, SnapshotId>,
    /// Models that were external before.
    pub(super) external_before: BTreeSet<ModelName>,
}

impl Diff {
    /// Whether the model's identity differs, also where nothing of it is worth showing.
    pub(super) fn touches(&self, snapshot: &Snapshot) -> bool {
        self.before.get(snapshot.name()) != Some(&snapshot.id)
    }
}

/// Compares what a project says with what an environment shows.
pub(super) fn diff(
    proposed: &ByName,
    base: Option<&Environment>,
    records: &BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
) -> Diff {
    let empty = BTreeMap::new();
    let shown = base.map_or(&empty, |environment| &environment.models);
    let mut changes = BTreeMap::new();
    let mut before = BTreeMap::new();
    let mut external_before = BTreeSet::new();
    for (name, snapshot) in proposed {
        let old = shown.get(name).and_then(|model| records.get(&model.snapshot));
        let change = old.map_or(Change::Added, |old| {
            let columns_before = |name: &ModelName| {
                let record = shown.get(name).and_then(|model| records.get(&model.snapshot))?;
                record.snapshot.columns.as_deref()
            };
            let columns = |name: &ModelName| proposed.get(name)?.columns.as_deref();
            between((&old.snapshot, &columns_before), (snapshot, &columns))
        });
        if let Some(old) = old {
            before.insert(name.clone(), old.id());
        }
        changes.insert(name.clone(), change);
    }
    for (name, model) in shown {
        if !proposed.contains_key(name) {
            changes.insert(name.clone(), Change::Removed);
            before.insert(name.clone(), model.snapshot);
            if model.kind == "EXTERNAL" {
                external_before.insert(name.clone());
            }
        }
    }
    Diff { changes, before, external_before }
}

fn between(before: Informed<'_, '_>, after: Informed<'_, '_>) -> Change {
    let (old, new) = (before.0, after.0);
    if old.id == new.id {
        return Change::Unchanged;
    }
    let (was, is) = (old.fingerprint, new.fingerprint);
    if was.data != is.data && !metadata_only(before, after) {
        Change::DirectlyModified
    } else if was.parent_data != is.parent_data {
        Change::IndirectlyModified
    } else if was.metadata != is.metadata {
        Change::MetadataUpdated
    } else {
        // Only metadata of something upstream differs: identity moves, the model doesn't.
        Change::Unchanged
    }
}

/// Whether everything that shapes rows is the same although the text or properties differ.
fn metadata_only(before: Informed<'_, '_>, after: Informed<'_, '_>) -> bool {
    let (old, new) = (before.0, after.0);
    let alike = old.fingerprint.metadata != new.fingerprint.metadata
        && old.settings == new.settings
        && !matches!(new.model.source, ModelSource::Seed(_));
    alike && (old.canonical == new.canonical || means_the_same(before, after))
}

fn means_the_same(before: Informed<'_, '_>, after: Informed<'_, '_>) -> bool {
    let (old, new) = (before.0, after.0);
    let names = |snapshot: &Snapshot| -> Option<Vec<String>> {
        let bare = snapshot.model.dialect == Dialect::BigQuery;
        let name = |name: &str| if bare { name.to_lowercase() } else { name.to_owned() };
        snapshot.columns.as_ref().map(|columns| columns.iter().map(|column| name(&column.name)).collect())
    };
    let queries =
        matches!((&old.model.source, &new.model.source), (ModelSource::Query(_), ModelSource::Query(_)));
    queries
        && names(old) == names(new)
        && same_statements(old, new)
        && query_change(before, after).is_ok_and(|change| change == QueryChange::Equal)
}

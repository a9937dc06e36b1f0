//! Going back to an earlier definition. Where the table was filled in another way since (by a
//! forward-only change, or by one that isn't), the old snapshot no longer says what its table holds:
//! then the definition comes back as a new snapshot.
//!
//! Rules as SQLMesh's unpausing and loading of snapshots (0.236.4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::categorize::Records;
use super::{PlanInput, Purpose};
use crate::id::{ModelName, SnapshotId, Version};
use crate::snapshot::{ByName, SnapshotRecord, restamp};

/// The proposed snapshots with new ones in place of those that can't be returned to, if there are
/// such.
pub(super) fn restorable(input: &PlanInput<'_>, order: &[ModelName]) -> Option<ByName> {
    if input.purpose == Purpose::Run || !input.options.restate_models.is_empty() {
        return None;
    }
    let lost = &input.prod?.unrestorable;
    let stamped: BTreeSet<ModelName> = input
        .proposed
        .values()
        .filter(|snapshot| lost.contains(&snapshot.id))
        .map(|snapshot| snapshot.name().clone())
        .collect();
    (!stamped.is_empty()).then(|| restamp(input.proposed, order, &stamped))
}

/// What production can't return to once it shows these records.
pub(super) fn unrestorable(input: &PlanInput<'_>, records: &Records) -> BTreeSet<SnapshotId> {
    if !input.options.environment.is_prod() {
        return BTreeSet::new();
    }
    let mut found = input.prod.map_or_else(BTreeSet::new, |prod| prod.unrestorable.clone());
    let shown = |record: &SnapshotRecord| {
        input.prod.and_then(|prod| prod.models.get(record.name())).map(|model| model.snapshot)
    };
    let promoted: Vec<_> = records.values().filter(|record| shown(record) != Some(record.id())).collect();
    if promoted.is_empty() {
        return found;
    }
    let mut by_version: BTreeMap<(&ModelName, Version), Vec<&Arc<SnapshotRecord>>> = BTreeMap::new();
    for record in input.records.values() {
        by_version.entry((record.name(), record.version)).or_default().push(record);
    }
    for record in promoted {
        let others = by_version.get(&(record.name(), record.version)).into_iter().flatten();
        found
            .extend(others.filter(|other| other.forward_only != record.forward_only).map(|other| other.id()));
    }
    found
}

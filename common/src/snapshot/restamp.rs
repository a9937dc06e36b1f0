//! Snapshots that can't be returned to: the same definition as another snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ByName, Fingerprint, Snapshot, fingerprint};
use crate::id::ModelName;
use crate::project::model::Model;

/// Gives some models a new identity, as a `stamp` in their files would, and everything below them
/// with it. `order` holds all names, parents first.
///
/// The stamp names the identity that it replaces, so that the same files lead to the same snapshots.
pub(crate) fn restamp(snapshots: &ByName, order: &[ModelName], stamped: &BTreeSet<ModelName>) -> ByName {
    let mut found = ByName::new();
    for name in order {
        let Some(old) = snapshots.get(name) else { continue };
        let upstream: Vec<(&ModelName, Fingerprint)> =
            old.upstream().filter_map(|parent| Some((parent, found.get(parent)?.fingerprint))).collect();
        let (parent_data, parent_metadata) = fingerprint::of_parents(&upstream);
        let kept = Fingerprint { parent_data, parent_metadata, ..old.fingerprint };
        let snapshot = if stamped.contains(name) {
            Arc::new(stamp(old, kept))
        } else if kept == old.fingerprint {
            old.clone()
        } else {
            Arc::new(Snapshot { id: kept.to_id(name), fingerprint: kept, ..(**old).clone() })
        };
        found.insert(name.clone(), snapshot);
    }
    found
}

fn stamp(old: &Snapshot, fingerprint: Fingerprint) -> Snapshot {
    let with = |domain, hash| fingerprint::combine_two(domain, hash, old.id.0);
    let fingerprint = Fingerprint { data: with("restamped-data/v1", old.fingerprint.data), ..fingerprint };
    let model = Model { stamp: Some(format!("revert to {}", old.id)), ..(*old.model).clone() };
    Snapshot {
        id: fingerprint.to_id(old.name()),
        model: Arc::new(model),
        fingerprint,
        settings: with("restamped-settings/v1", old.settings),
        ..old.clone()
    }
}

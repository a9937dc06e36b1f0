//! What each change means for rows that exist, and so which table a snapshot reads and fills.
//!
//! The rules are SQLMesh's (its categorizer and plan builder, 0.236.4), for its default mode
//! (`full`): what can't be proven harmless is breaking.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::change::Diff;
use super::{Change, Choice, Environment, PlanError, PlanInput, Purpose, topological};
use crate::id::{Hasher, ModelName, SnapshotId, Version};
use crate::project::model::{ModelKind, ModelSource};
use crate::snapshot::{Category, Naming, Previous, Snapshot, SnapshotRecord};
use crate::sql::{QueryChange, compare};

/// How many earlier snapshots a record remembers, as SQLMesh does.
const REMEMBERED: usize = 10;

/// Every proposed model's record, by name; those that the state holds are reused.
pub(super) struct Categorized {
    pub(super) records: BTreeMap<ModelName, Arc<SnapshotRecord>>,
}

pub(super) fn categorize(
    input: &PlanInput<'_>,
    diff: &Diff,
    base: Option<&Environment>,
) -> Result<Categorized, PlanError> {
    let mut records: BTreeMap<ModelName, Arc<SnapshotRecord>> = BTreeMap::new();
    for name in proposed_order(input)? {
        let snapshot = &input.proposed[&name];
        let record = match input.records.get(&snapshot.id) {
            Some(known) => known.clone(),
            None => Arc::new(new_record(input, diff, base, &records, snapshot)),
        };
        records.insert(name, record);
    }
    Ok(Categorized { records })
}

/// Proposed models, parents first.
pub(super) fn proposed_order(input: &PlanInput<'_>) -> Result<Vec<ModelName>, PlanError> {
    let parents = input.proposed.iter().map(|(name, s)| (name, s.parents.iter().collect())).collect();
    topological(&parents).map_err(|cycle| {
        let names: Vec<_> = cycle.iter().map(|name| format!("`{name}`")).collect();
        PlanError::new(
            "cycle",
            format!("models read each other in a circle: {}", names.join(", ")),
            "remove one of the references",
        )
    })
}

fn new_record(
    input: &PlanInput<'_>,
    diff: &Diff,
    base: Option<&Environment>,
    records: &BTreeMap<ModelName, Arc<SnapshotRecord>>,
    snapshot: &Arc<Snapshot>,
) -> SnapshotRecord {
    let name = snapshot.name();
    let old = diff.before.get(name).and_then(|id| input.records.get(id));
    let category = old.map_or(Category::Breaking, |old| category(input, diff, records, snapshot, old));
    let implied = snapshot.fingerprint.to_version();
    let version = match old {
        _ if snapshot.model.kind.is_symbolic() => implied,
        Some(old) if category.keeps_version() && !old.snapshot.model.kind.is_symbolic() => old.version,
        None if is_forward_only(&snapshot.model.kind) => stable_version(snapshot),
        _ => implied,
    };
    let dev_version = match old {
        Some(old)
            if matches!(category, Category::IndirectNonBreaking | Category::Metadata)
                && !matches!(snapshot.model.kind, ModelKind::View { .. } | ModelKind::Embedded) =>
        {
            old.dev_version
        }
        _ => implied,
    };
    let _ = base;
    let mut previous = old.map(|old| old.previous.clone()).unwrap_or_default();
    if let Some(old) = old {
        previous.push(Previous {
            id: old.id(),
            fingerprint: old.snapshot.fingerprint,
            version: old.version,
            category: old.category,
        });
        let surplus = previous.len().saturating_sub(REMEMBERED);
        previous.drain(..surplus);
    }
    let naming = match old {
        // A kept table keeps its name, even when settings changed since.
        Some(old) if old.version == version => old.naming.clone(),
        _ => Naming::of(name, input.settings),
    };
    SnapshotRecord {
        snapshot: snapshot.clone(),
        category,
        version,
        dev_version,
        previous,
        naming,
        created: input.now,
    }
}

/// The kind says that changes keep the table.
pub(super) fn is_forward_only(kind: &ModelKind) -> bool {
    kind.incremental().is_some_and(|common| common.forward_only)
}

/// A new forward-only model's version depends on its name and kind alone, so that development
/// environments agree on it.
fn stable_version(snapshot: &Snapshot) -> Version {
    Version(
        Hasher::new("stable-version/v1")
            .field("name", snapshot.name().as_str())
            .field("settings", snapshot.settings.to_string())
            .finish(),
    )
}

fn category(
    input: &PlanInput<'_>,
    diff: &Diff,
    records: &BTreeMap<ModelName, Arc<SnapshotRecord>>,
    new: &Snapshot,
    old: &SnapshotRecord,
) -> Category {
    let breaking_kind = breaking_kind_change(&old.snapshot, new);
    let own = match diff.changes.get(new.name()) {
        Some(Change::DirectlyModified) => direct(input, diff, new, &old.snapshot),
        Some(Change::MetadataUpdated) => Category::Metadata,
        _ => indirect(diff, records, new),
    };
    let forward_only = (input.options.forward_only || is_forward_only(&new.model.kind))
        && !breaking_kind
        && !matches!(new.model.source, ModelSource::Seed(_))
        && input.purpose == Purpose::Change
        && own != Category::Metadata;
    if forward_only { Category::ForwardOnly } else { own }
}

/// Whether the old table can't serve the new kind.
fn breaking_kind_change(old: &Snapshot, new: &Snapshot) -> bool {
    let (was, is) = (&old.model.kind, &new.model.kind);
    was.name() != is.name()
        && !(was.incremental().is_some()
            && is.incremental().is_some()
            && old.model.storage.partitioned_by == new.model.storage.partitioned_by)
}

fn direct(input: &PlanInput<'_>, diff: &Diff, new: &Snapshot, old: &Snapshot) -> Category {
    if let Some(choice) = input.options.categorize.get(new.name()) {
        return match choice {
            Choice::Breaking => Category::Breaking,
            Choice::NonBreaking => Category::NonBreaking,
        };
    }
    if old.model.kind.name() != new.model.kind.name() || old.model.lookback() != new.model.lookback() {
        return Category::Breaking;
    }
    match (&old.model.source, &new.model.source) {
        (ModelSource::Seed(_), ModelSource::Seed(_)) => seed(old, new),
        (ModelSource::External, ModelSource::External) => external(old, new),
        _ if downstream_has_unknown_columns(input, diff, new) => Category::Breaking,
        _ => query(old, new),
    }
}

fn query(old: &Snapshot, new: &Snapshot) -> Category {
    let (Ok(was), Ok(is)) = (crate::snapshot::load_query(old), crate::snapshot::load_query(new)) else {
        return Category::Breaking;
    };
    match compare(&was, &is) {
        QueryChange::Equal | QueryChange::Additive => Category::NonBreaking,
        QueryChange::Other => Category::Breaking,
    }
}

/// A seed's change is harmless when all old columns keep their values.
fn seed(old: &Snapshot, new: &Snapshot) -> Category {
    let columns = |snapshot: &Snapshot| crate::project::seed::column_values(&snapshot.model).ok();
    match (columns(old), columns(new)) {
        (Some(was), Some(is)) if was.iter().all(|(name, values)| is.get(name) == Some(values)) => {
            Category::NonBreaking
        }
        _ => Category::Breaking,
    }
}

/// An external's change is harmless when no column vanished or changed its type.
fn external(old: &Snapshot, new: &Snapshot) -> Category {
    let now = new.model.columns.as_deref().unwrap_or_default();
    let kept = old.model.columns.as_deref().unwrap_or_default().iter().all(|column| now.contains(column));
    if kept { Category::NonBreaking } else { Category::Breaking }
}

/// Whether any model below has columns that aren't known: then nothing below can be proven safe.
fn downstream_has_unknown_columns(input: &PlanInput<'_>, diff: &Diff, new: &Snapshot) -> bool {
    let mut below = std::collections::BTreeSet::from([new.name()]);
    let Ok(order) = proposed_order(input) else { return true };
    for name in &order {
        let snapshot = &input.proposed[name];
        if !below.contains(name) && snapshot.parents.iter().any(|parent| below.contains(parent)) {
            below.insert(snapshot.name());
            let affected = diff.changes.get(name).is_some_and(|change| *change == Change::IndirectlyModified);
            if affected && snapshot.columns.is_none() {
                return true;
            }
        }
    }
    false
}

/// What an upstream change means for a model that didn't change itself.
fn indirect(diff: &Diff, records: &BTreeMap<ModelName, Arc<SnapshotRecord>>, new: &Snapshot) -> Category {
    let materialized = matches!(new.model.kind, ModelKind::View { materialized: true });
    let upstream = || new.upstream().filter_map(|parent| records.get(parent).map(|record| (parent, record)));
    let changed = upstream().filter(|(parent, record)| {
        let before: Option<&SnapshotId> = diff.before.get(*parent);
        before != Some(&record.id())
    });
    let categories: Vec<Category> = changed.map(|(_, record)| record.category).collect();
    let any = |wanted: &[Category]| categories.iter().any(|category| wanted.contains(category));
    if any(&[Category::Breaking, Category::IndirectBreaking]) {
        Category::IndirectBreaking
    } else if !categories.is_empty() && categories.iter().all(|category| *category == Category::Metadata) {
        Category::Metadata
    } else if materialized {
        Category::IndirectBreaking
    } else if !categories.is_empty() && categories.iter().all(|category| *category == Category::ForwardOnly) {
        Category::ForwardOnly
    } else {
        Category::IndirectNonBreaking
    }
}

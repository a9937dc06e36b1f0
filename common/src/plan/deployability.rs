//! Which table a snapshot fills and is read from in a development environment: the one that
//! production could take over, or a throwaway one.
//!
//! Rules as SQLMesh's deployability index (0.236.4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::categorize::{is_forward_only, proposed_order};
use super::change::Diff;
use super::{PlanInput, Tables};
use crate::id::ModelName;
use crate::interval::Timestamp;
use crate::project::model::ModelKind;
use crate::snapshot::{Category, SnapshotRecord};

/// The table of each model that has one.
pub(super) fn tables(
    input: &PlanInput<'_>,
    records: &BTreeMap<ModelName, Arc<SnapshotRecord>>,
    diff: &Diff,
    is_dev: bool,
    start: Option<Timestamp>,
) -> Tables {
    let _ = diff;
    let throwaway = if is_dev { throwaways(input, records, start) } else { BTreeSet::new() };
    records
        .iter()
        .filter(|(_, record)| !record.snapshot.model.kind.is_symbolic())
        .map(|(name, record)| (name.clone(), record.table(throwaway.contains(name))))
        .collect()
}

/// Models whose environment reads a throwaway table.
fn throwaways(
    input: &PlanInput<'_>,
    records: &BTreeMap<ModelName, Arc<SnapshotRecord>>,
    start: Option<Timestamp>,
) -> BTreeSet<ModelName> {
    let mut throwaway = BTreeSet::new();
    // What children may be: a model that isn't deployable makes its children not deployable,
    // unless production reads it already.
    let mut taints: BTreeSet<ModelName> = BTreeSet::new();
    let live: BTreeSet<_> =
        input.prod.into_iter().flat_map(|prod| prod.models.values().map(|model| model.snapshot)).collect();
    for name in proposed_order(input).unwrap_or_default() {
        let Some(record) = records.get(&name) else { continue };
        let snapshot = &record.snapshot;
        let tainted = snapshot.upstream().any(|parent| taints.contains(parent));
        let kind = &snapshot.model.kind;
        let keeps_table = matches!(record.category, Category::ForwardOnly | Category::IndirectNonBreaking)
            || (is_forward_only(kind) && record.category != Category::Metadata);
        let valid = valid_start(input, record, start);
        let deployable = !tainted && !keeps_table && valid;
        let done = input.tables.get(&record.table(false)).is_some_and(|known| !known.done.is_empty());
        let view = matches!(kind, ModelKind::View { .. } | ModelKind::Embedded);
        let representative = deployable
            || live.contains(&record.id())
            || (record.category == Category::IndirectNonBreaking && done && !view && !tainted);
        if !representative {
            throwaway.insert(name.clone());
        }
        if !deployable && (!representative || !valid) {
            taints.insert(name);
        }
    }
    throwaway
}

/// A table that depends on its own past can only be taken over when it starts at its beginning.
fn valid_start(input: &PlanInput<'_>, record: &SnapshotRecord, start: Option<Timestamp>) -> bool {
    let Some(asked) = start else { return true };
    let snapshot = &record.snapshot;
    if !snapshot.depends_on_past() {
        return true;
    }
    let unit = snapshot.interval_unit();
    let done = input.tables.get(&record.table(false)).and_then(|known| known.done.hull());
    match done {
        Some(done) => done.end >= asked,
        None => match super::backfill::own_start(input, snapshot) {
            Some(own) => unit.floor(own) >= asked,
            None => true,
        },
    }
}

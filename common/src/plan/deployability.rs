//! Which table a snapshot fills and is read from in a development environment: the one that
//! production could take over, or a throwaway one.
//!
//! Rules as SQLMesh's deployability index (0.236.4).

use std::collections::{BTreeMap, BTreeSet};

use super::categorize::{Records, is_forward_only};
use super::options::Times;
use super::{PlanInput, Tables};
use crate::id::ModelName;
use crate::interval::Timestamp;
use crate::project::model::ModelKind;
use crate::snapshot::{Category, SnapshotRecord};

/// The table of each model that has one.
pub(super) fn tables(
    input: &PlanInput<'_>,
    order: &[ModelName],
    records: &Records,
    starts: &BTreeMap<ModelName, Timestamp>,
    times: &Times,
) -> Tables {
    let throwaway = if input.options.environment.is_prod() {
        BTreeSet::new()
    } else {
        throwaways(input, order, records, starts, times)
    };
    records
        .iter()
        .filter(|(_, record)| !record.snapshot.model.kind.is_symbolic())
        .map(|(name, record)| (name.clone(), record.table(throwaway.contains(name))))
        .collect()
}

/// Models whose environment reads a throwaway table.
fn throwaways(
    input: &PlanInput<'_>,
    order: &[ModelName],
    records: &Records,
    starts: &BTreeMap<ModelName, Timestamp>,
    times: &Times,
) -> BTreeSet<ModelName> {
    let mut throwaway = BTreeSet::new();
    // Models that keep those below them from being deployable.
    let mut taints: BTreeSet<&ModelName> = BTreeSet::new();
    let live: BTreeSet<_> =
        input.prod.into_iter().flat_map(|prod| prod.models.values().map(|model| model.snapshot)).collect();
    for name in order {
        let record = &records[name];
        let snapshot = &record.snapshot;
        let kind = &snapshot.model.kind;
        let tainted = snapshot.upstream().any(|parent| taints.contains(parent));
        let keeps_table = record.forward_only
            || record.category == Category::IndirectNonBreaking
            || (is_forward_only(kind) && record.category != Category::Metadata);
        let valid = valid_start(input, record, starts[name], times.covered_from);
        // What is restated by itself holds another time's rows than those around it.
        let by_itself = kind.auto_restatement_cron().is_some();
        let deployable = !tainted && !keeps_table && !by_itself && valid;
        let done = input.tables.get(&record.table(false)).is_some_and(|known| !known.done.is_empty());
        let view = matches!(kind, ModelKind::View { .. } | ModelKind::Embedded);
        let representative = deployable
            || live.contains(&record.id())
            || (record.category == Category::IndirectNonBreaking && done && !view && !tainted);
        if !representative {
            throwaway.insert(name.clone());
        }
        if tainted || !representative || !valid || by_itself {
            taints.insert(name);
        }
    }
    throwaway
}

/// A table that depends on its own past can only be taken over when nothing before the start is
/// left out.
fn valid_start(
    input: &PlanInput<'_>,
    record: &SnapshotRecord,
    own: Timestamp,
    from: Option<Timestamp>,
) -> bool {
    let snapshot = &record.snapshot;
    let Some(from) = from.filter(|_| snapshot.depends_on_past()) else { return true };
    let unit = snapshot.interval_unit();
    let first = unit.ceil(own);
    let done = input.tables.get(&record.table(false)).into_iter().flat_map(|known| known.done.ranges());
    let missing_from = done.filter(|range| range.start <= first).map(|range| range.end).max();
    missing_from.unwrap_or(first).max(first) >= unit.floor(from)
}

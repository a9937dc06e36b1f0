//! What signals leave of a plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use coord_common::id::ModelName;
use coord_common::interval::{IntervalSet, without_unready};
use coord_common::plan::{Plan, PlannedModel, bindings, topological};
use coord_common::task::{Check, TableId};

use super::admit::{records, tables, task};
use crate::control::book::{Book, Todo};

/// The questions to ask before a plan's batches: one for each model that has signals and something
/// to compute. Restatements ask nothing: what they compute was ready once.
pub(crate) fn checks(plan: &Plan, book: &Book, todo: &BTreeMap<TableId, Todo>) -> Vec<Check> {
    if plan.restates {
        return Vec::new();
    }
    let records = records(plan, book);
    let tables = tables(plan);
    let of = |model: &PlannedModel| {
        let table = model.filled()?;
        let record = records.get(&model.name).filter(|record| !record.snapshot.model.signals.is_empty())?;
        let candidates = todo.get(table).map(|todo| todo.ranges.clone()).filter(|set| !set.is_empty())?;
        let task = Arc::new(task(plan, record, table, bindings(record, &records, &tables)));
        Some(Check { task, candidates })
    };
    plan.models.iter().filter_map(of).collect()
}

/// What a plan computes once signals have answered: what they reject is left out, and below it
/// whatever overlaps it in time, as the rows above aren't there.
pub(crate) fn narrowed(
    plan: &Plan,
    book: &Book,
    todo: &BTreeMap<TableId, Todo>,
    ready: &BTreeMap<TableId, IntervalSet>,
) -> BTreeMap<TableId, Todo> {
    let records = records(plan, book);
    let by_name: BTreeMap<&ModelName, &PlannedModel> =
        plan.models.iter().map(|model| (&model.name, model)).collect();
    let parents: BTreeMap<&ModelName, _> =
        records.iter().map(|(name, record)| (name, record.snapshot.upstream().collect())).collect();
    // Planning has refused cycles.
    let order = topological(&parents).unwrap_or_default();
    let mut unready: BTreeMap<ModelName, IntervalSet> = BTreeMap::new();
    let mut left = todo.clone();
    for name in order {
        let above = records[&name].snapshot.upstream().filter_map(|parent| unready.get(parent));
        let above = above.fold(IntervalSet::new(), |all, one| all.union(one));
        let mut own = IntervalSet::new();
        if let Some(model) = by_name.get(&name)
            && let Some(table) = model.filled()
            && let Some(todo) = left.get_mut(table)
        {
            own = ready.get(table).map(|ready| todo.ranges.difference(ready)).unwrap_or_default();
            let all = own.union(&above);
            todo.ranges = without_unready(&todo.ranges, &all, model.batches.unit, model.sequential);
        }
        let all = own.union(&above);
        if !all.is_empty() {
            unready.insert(name, all);
        }
    }
    left.retain(|_, todo| todo.create || todo.migrate || !todo.ranges.is_empty());
    left
}

//! Restatements that are computed aside: which tables a plan fills instead of those that readers
//! see, what its batches read meanwhile, and what is published in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coord_common::id::{Hash128, Hasher, ModelName};
use coord_common::plan::{Clear, Environment, Plan, PlannedModel, Purpose, topological};
use coord_common::project::model::ModelKind;
use coord_common::snapshot::{SnapshotRecord, aside_relation, merged_relation};
use coord_common::task::{Aside, Binding, Keeps, Publish, PublishTable, Relation, TableId};

use super::StalePlan;
use crate::control::book::{Book, Todo};
use crate::schedule::TableState;
use crate::store::record::encode_intervals;

/// Records of a plan's models, by name.
type Records = BTreeMap<ModelName, Arc<SnapshotRecord>>;

/// What a plan computes aside, by model.
#[derive(Debug, Default)]
pub(crate) struct Asides(BTreeMap<ModelName, PublishTable>);

/// The table that a plan starts to fill for a model: one aside, where readers see rows that are
/// replaced.
pub(super) fn filled(plan: &Plan, model: &PlannedModel, book: &Book) -> Option<TableId> {
    let table = model.filled()?;
    if model.table.as_ref() != Some(table) || model.is_audit() {
        return Some(table.clone());
    }
    let exists = book.tables.get(table).is_some_and(|known| known.created);
    // What the environment doesn't show yet is seen with the flip.
    let shown = exists && shows(plan, model, table, book);
    let aside = goes_aside(plan) && model.restatement.is_some() && !model.missing.is_empty() && shown;
    Some(if aside { table.beside(plan.id) } else { table.clone() })
}

/// Whether a plan's environment shows a table for a model.
fn shows(plan: &Plan, model: &PlannedModel, table: &TableId, book: &Book) -> bool {
    let environment = book.environments.get(&plan.environment);
    let shown = environment.and_then(|(environment, _)| environment.models.get(&model.name));
    shown.is_some_and(|shown| shown.table.as_ref() == Some(table))
}

/// Whether a restatement moves its environment's pointer: because files have changed, or because it
/// shows other tables by the plan's times, as development environments may.
pub(crate) fn moves_the_pointer(plan: &Plan, book: &Book) -> bool {
    if plan.purpose == Purpose::Run {
        return false;
    }
    let Some((environment, _)) = book.environments.get(&plan.environment) else { return true };
    let others = || {
        let table = |name| environment.models.get(name).and_then(|shown| shown.table.as_ref());
        plan.target.iter().any(|(name, target)| table(name) != target.table.as_ref())
    };
    plan.has_changes || (environment.seq == plan.base_seq && others())
}

/// Whether a plan computes what it restates aside.
pub(crate) fn goes_aside(plan: &Plan) -> bool {
    plan.recomputes() && !plan.in_place && !plan.skips_computing()
}

impl Asides {
    /// What a plan has begun to compute aside, as its todo and the tables on record tell.
    pub(crate) fn of(plan: &Plan, book: &Book, todo: &BTreeMap<TableId, Todo>) -> Self {
        let mut found = BTreeMap::new();
        for model in &plan.models {
            let (Some(table), Some(id)) = (&model.table, model.snapshot) else { continue };
            let aside = table.beside(plan.id);
            let Some(record) = book.snapshots.get(&id) else { continue };
            if !todo.contains_key(&aside) && !book.tables.contains_key(&aside) {
                continue;
            }
            let published = record.relation(table.dev);
            let entry = PublishTable {
                table: table.clone(),
                snapshot: id,
                relation: aside_relation(&published, plan.id),
                aside: Aside { keeps: keeps(plan, model, record, &published, book), published },
                ranges: model.missing.clone(),
            };
            found.insert(model.name.clone(), entry);
        }
        Self(found)
    }

    /// What is computed aside for a model.
    pub(super) fn get(&self, model: &ModelName) -> Option<&PublishTable> {
        self.0.get(model)
    }

    /// Lets names stand for what the plan's batches must read: rows that were restated already
    /// together with those that stay.
    pub(super) fn rebind(&self, bindings: &mut BTreeMap<ModelName, Binding>) {
        for (name, binding) in bindings {
            if let (Binding::Table(relation), Some(table)) = (binding, self.0.get(name)) {
                *relation = read(table).clone();
            }
        }
    }

    /// The tables aside.
    pub(crate) fn tables(&self, plan: &Plan) -> Vec<TableId> {
        self.0.values().map(|table| table.table.beside(plan.id)).collect()
    }

    /// What is to be published or discarded, gateway by gateway, parents first.
    pub(crate) fn publications(&self, plan: &Plan, book: &Book, discard: bool, round: u32) -> Vec<Publish> {
        let records: Records = self
            .0
            .iter()
            .filter_map(|(name, table)| Some((name.clone(), book.snapshots.get(&table.snapshot)?.clone())))
            .collect();
        let parents = records
            .iter()
            .map(|(name, record)| {
                let within = record.snapshot.upstream().filter(|parent| records.contains_key(*parent));
                (name, within.collect())
            })
            .collect();
        let mut found: BTreeMap<String, Publish> = BTreeMap::new();
        // Planning refuses cycles.
        for name in topological(&parents).unwrap_or_default() {
            let gateway = gateway(plan, &records[&name]);
            let publish = found.entry(gateway.clone()).or_insert_with(|| Publish {
                gateway,
                tables: Vec::new(),
                discard,
                round,
                supersedes: Vec::new(),
            });
            publish.tables.push(self.0[&name].clone());
        }
        found.into_values().collect()
    }
}

/// What batches of the plan read as a table that is computed aside.
fn read(table: &PublishTable) -> &Relation {
    match &table.aside.keeps {
        Keeps::Outside { merged, .. } => merged,
        Keeps::Nothing | Keeps::Copy => &table.relation,
    }
}

/// The gateway of a model.
pub(super) fn gateway(plan: &Plan, record: &SnapshotRecord) -> String {
    record.snapshot.model.gateway.clone().unwrap_or_else(|| plan.layout.default_gateway.clone())
}

fn keeps(
    plan: &Plan,
    model: &PlannedModel,
    record: &SnapshotRecord,
    published: &Relation,
    book: &Book,
) -> Keeps {
    match &record.snapshot.model.kind {
        ModelKind::IncrementalByTimeRange(_) => {
            Keeps::Outside { ranges: model.missing.clone(), merged: merged_relation(published, plan.id) }
        }
        kind if kind.incremental().is_some() => {
            let done = model.table.as_ref().and_then(|table| book.tables.get(table)).map(|known| &known.done);
            let all = done.is_none_or(|done| done.difference(&model.missing).is_empty());
            if all { Keeps::Nothing } else { Keeps::Copy }
        }
        _ => Keeps::Nothing,
    }
}

/// The tables that a plan restates: others keep off them while it does.
pub(crate) fn held(plan: &Plan, book: &Book) -> Vec<TableState> {
    restated(plan).map(|(_, table)| super::admit::table_state(table, book)).collect()
}

fn restated(plan: &Plan) -> impl Iterator<Item = (&PlannedModel, &TableId)> {
    let recomputes = plan.recomputes();
    let models = plan.models.iter().filter(move |model| recomputes && model.restatement.is_some());
    models.filter_map(|model| Some((model, model.table.as_ref()?)))
}

/// Whether two restatements compute some of the same rows.
pub(crate) fn restate_the_same(one: &Plan, other: &Plan) -> bool {
    restated(one).any(|(model, table)| {
        let common = |rows: &PlannedModel| !rows.missing.intersection(&model.missing).is_empty();
        restated(other).any(|(rows, of)| of == table && common(rows))
    })
}

/// What a restatement of production makes stale, given all environments as they are now: what the
/// plan says, and what has come since it was made.
pub(crate) fn clears(plan: &Plan, book: &Book, environments: &[&Environment]) -> Vec<Clear> {
    let mut found = plan.clears.clone();
    if !plan.restates || !plan.environment.is_prod() {
        return found;
    }
    let ranges = restated(plan).filter_map(|(model, _)| Some((model.name.clone(), model.restatement?)));
    let records = super::admit::records(plan, book);
    let now =
        coord_common::plan::clears(&ranges.collect(), &records, environments, &book.snapshots, |_| true);
    found.extend(now);
    found.sort();
    found.dedup();
    found
}

/// A hash of what tables hold that a restatement replaces whole: if somebody adds to them before it
/// is published, that would be lost.
pub(crate) fn whole_tables(plan: &Plan, book: &Book) -> Hash128 {
    let mut hasher = Hasher::new("restated/v1");
    for (model, table) in restated(plan) {
        let kind = model.snapshot.and_then(|id| book.snapshots.get(&id)).map(|r| &r.snapshot.model.kind);
        let whole = kind.is_some_and(|kind| {
            kind.incremental().is_some() && !matches!(kind, ModelKind::IncrementalByTimeRange(_))
        });
        if let Some(known) = book.tables.get(table).filter(|_| whole) {
            hasher = hasher.field("table", table.to_string()).field("done", encode_intervals(&known.done));
        }
    }
    hasher.finish()
}

/// Checks that the environment shows the tables that the plan restates, whatever else became of it.
///
/// # Errors
/// [`StalePlan`] naming the models that were deployed anew.
pub(crate) fn check_restated(plan: &Plan, book: &Book) -> Result<(), StalePlan> {
    let Some((environment, _)) = book.environments.get(&plan.environment) else {
        return Err(StalePlan::new(plan, "it was removed".to_owned()));
    };
    if environment.seq == plan.base_seq {
        return Ok(());
    }
    let others: BTreeSet<String> = restated(plan)
        .filter(|(model, table)| {
            environment.models.get(&model.name).is_none_or(|shown| shown.table.as_ref() != Some(*table))
        })
        .map(|(model, _)| format!("`{}`", model.name))
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = others.into_iter().take(5).collect();
    let by = &environment.plan.to_string()[..12];
    let what =
        format!("plan {by} deployed another version of {}, so they can't be restated", names.join(", "));
    Err(StalePlan::new(plan, what))
}

//! From a plan to what the scheduler works on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coord_common::id::ModelName;
use coord_common::interval::{BatchPlan, Interval, IntervalSet, Timestamp};
use coord_common::plan::{BatchRule, Plan, PlannedModel, Purpose, Tables, bindings};
use coord_common::project::model::ModelKind;
use coord_common::snapshot::{SnapshotRecord, reads};
use coord_common::task::{Allowed, Binding, ReadRange, TableId, TableTask};

use super::aside::{Asides, filled, gateway};
use super::columns::go_later;
use crate::control::book::{Book, Todo};
use crate::schedule::{Cut, Edge, NodeMode, NodeWork, PlanWork, RetryLimits, TableState, Whole};

/// Why a plan can't be applied any more.
#[derive(Debug, thiserror::Error)]
#[error("`{environment}` has changed since this plan was made: {what}")]
pub(crate) struct StalePlan {
    environment: String,
    what: String,
}

impl StalePlan {
    pub(crate) fn new(plan: &Plan, what: String) -> Self {
        Self { environment: plan.environment.to_string(), what }
    }
}

/// Checks that the environment is as the plan found it.
///
/// # Errors
/// [`StalePlan`] saying what changed.
pub(crate) fn check_base(plan: &Plan, book: &Book, now: Timestamp) -> Result<(), StalePlan> {
    let current = book.live(&plan.environment, now);
    let seq = current.map_or(0, |environment| environment.seq);
    if seq == plan.base_seq {
        return check_tables(plan, book);
    }
    let what = match current {
        Some(environment) => {
            let changed: Vec<String> = environment
                .models
                .iter()
                .filter(|(name, model)| {
                    plan.target.get(*name).is_none_or(|target| target.snapshot != model.snapshot)
                })
                .map(|(name, _)| format!("`{name}`"))
                .take(5)
                .collect();
            let by = &environment.plan.to_string()[..12];
            let models = if changed.is_empty() {
                String::new()
            } else {
                format!(", now differing in {}", changed.join(", "))
            };
            format!(
                "plan {by} moved it to revision {seq} (this plan was made against {}){models}",
                plan.base_seq
            )
        }
        None => "it has expired or was removed".to_owned(),
    };
    Err(StalePlan { environment: plan.environment.to_string(), what })
}

/// Checks that tables which the plan found are still there: the janitor may have dropped them.
fn check_tables(plan: &Plan, book: &Book) -> Result<(), StalePlan> {
    let exists = |table: &TableId| book.tables.get(table).is_some_and(|known| known.created);
    let found = plan.models.iter().filter(|model| !model.create);
    let gone = found.filter_map(|model| model.table.as_ref()).find(|table| !exists(table));
    match gone {
        None => Ok(()),
        Some(table) => Err(StalePlan {
            environment: plan.environment.to_string(),
            what: format!("a table of `{}` that it relied on was dropped", table.model),
        }),
    }
}

/// Whether workers can run a model's kind yet. What has nothing to run is no hindrance.
pub(crate) fn is_run(model: &PlannedModel) -> bool {
    let idle = model.missing.is_empty() && !model.create && !model.migrate;
    let kinds = ["MANAGED", "CUSTOM"];
    idle || !kinds.contains(&model.kind.as_str())
}

/// What a plan has still to do, table by table, given what is recorded now.
pub(crate) fn todos(plan: &Plan, book: &Book) -> BTreeMap<TableId, Todo> {
    let mut todos = BTreeMap::new();
    let renewed = book.plans.get(&plan.id).is_some_and(|(record, _)| record.renewed);
    for model in &plan.models {
        let Some(table) = filled(plan, model, book) else { continue };
        let known = book.tables.get(&table);
        let done = known.map(|known| known.done.clone()).unwrap_or_default();
        // A range that was complete when the plan was made is in the plan only to be done again.
        let ranges = if table.aside.is_some() || renewed {
            model.missing.difference(&done)
        } else {
            again(model, &done)
        };
        let ranges = if plan.skip_backfill { ranges } else { ranges.union(&lost(model, &table, book)) };
        let create = known.is_none_or(|known| !known.created);
        let migrate = model.migrate && !create;
        if create || migrate || !ranges.is_empty() {
            todos.insert(table, Todo { ranges, create, migrate });
        }
    }
    todos
}

/// What is still left of what a plan has on record to do: other plans may have done some of it since.
/// What is to be done again stays.
pub(crate) fn still_left(
    plan: &Plan,
    book: &Book,
    recorded: &BTreeMap<TableId, Todo>,
) -> BTreeMap<TableId, Todo> {
    let mut left = recorded.clone();
    if plan.skips_computing() {
        return left;
    }
    let now = todos(plan, book);
    left.retain(|table, todo| {
        let Some(now) = now.get(table) else { return false };
        todo.ranges = todo.ranges.intersection(&now.ranges);
        todo.create &= now.create;
        todo.migrate &= now.migrate;
        todo.create || todo.migrate || !todo.ranges.is_empty()
    });
    left
}

/// What was complete when the plan was made, and isn't any more.
fn lost(model: &PlannedModel, table: &TableId, book: &Book) -> IntervalSet {
    let known = book.tables.get(table).filter(|_| model.table.as_ref() == Some(table));
    known.map(|known| model.relies.difference(&known.done)).unwrap_or_default()
}

/// The planned ranges that aren't done; where lookback computes done ranges again, those too.
fn again(model: &PlannedModel, done: &IntervalSet) -> IntervalSet {
    if model.restatement.is_some() || model.effective_from.is_some() || model.anew || model.fills.is_some() {
        return model.missing.clone();
    }
    if !model.redo {
        return model.missing.difference(done);
    }
    let covered = |range: &&Interval| !done.covers(**range);
    model.missing.ranges().iter().filter(covered).copied().collect()
}

/// What all leases over a planned model's own table share.
pub(super) fn task(
    plan: &Plan,
    record: &SnapshotRecord,
    table: &TableId,
    bindings: BTreeMap<ModelName, Binding>,
) -> TableTask {
    TableTask {
        snapshot: record.id(),
        table: table.clone(),
        target: record.relation(table.dev),
        gateway: gateway(plan, record),
        bindings,
        execution_time: plan.execution_time,
        allows: Allowed::default(),
        aside: None,
        round: 0,
    }
}

/// What the scheduler needs: one node per table with something to do.
///
/// `todo` may hold less than [`todos`] computes now: on resuming, what is on record counts.
pub(crate) fn work(plan: &Plan, book: &Book, todo: &BTreeMap<TableId, Todo>) -> PlanWork {
    let records = records(plan, book);
    let tables = tables(plan);
    let asides = Asides::of(plan, book, todo);
    let round = book.plans.get(&plan.id).map_or(0, |(record, _)| record.round);
    let mut index: BTreeMap<&ModelName, usize> = BTreeMap::new();
    let mut nodes: Vec<NodeWork> = Vec::new();
    for model in &plan.models {
        let (Some(table), Some(record)) = (model.filled(), records.get(&model.name)) else { continue };
        let aside = asides.get(&model.name);
        let filled = if aside.is_some() { table.beside(plan.id) } else { table.clone() };
        let Some(left) = todo.get(&filled) else { continue };
        index.insert(&model.name, nodes.len());
        let mut bindings = bindings(record, &records, &tables);
        asides.rebind(&mut bindings);
        nodes.push(NodeWork {
            task: Arc::new(TableTask {
                table: filled,
                target: aside.map_or_else(|| record.relation(table.dev), |aside| aside.relation.clone()),
                allows: Allowed { later: go_later(plan, model, &records), ..model.allows },
                aside: aside.map(|aside| aside.aside.clone()),
                round,
                ..task(plan, record, table, bindings)
            }),
            todo: left.ranges.clone(),
            assumed: model.assumed.clone(),
            void: book.plans.get(&plan.id).map(|(record, _)| record.void_of(table)).unwrap_or_default(),
            create: left.create,
            migrate: left.migrate,
            mode: NodeMode::Write,
            cut: cut(model, record, book),
            concurrency: model.concurrency,
            sequential: model.sequential,
            made_first: aside.is_none() && !model.sequential && is_silent(record),
            anew: model.restatement.is_some(),
            parents: Vec::new(),
        });
    }
    for (name, at) in &index {
        nodes[*at].parents = edges(name, &records, &index);
    }
    let known = nodes.iter().map(|node| table_state(&node.task.table, book)).collect();
    let priority = match plan.purpose {
        Purpose::Run => 1,
        Purpose::Change => 0,
    };
    PlanWork { plan: plan.id, priority, limits: RetryLimits::default(), tables: known, nodes }
}

/// Whether making a table does nothing but that: the model has no statements of its own, which would
/// run once more.
fn is_silent(record: &SnapshotRecord) -> bool {
    let model = &record.snapshot.model;
    model.pre_statements.is_empty() && model.post_statements.is_empty()
}

/// Which table each model's readers use.
pub(super) fn tables(plan: &Plan) -> Tables {
    plan.models.iter().filter_map(|model| Some((model.name.clone(), model.table.clone()?))).collect()
}

/// The records of all models that the plan leaves in the environment.
pub(super) fn records(plan: &Plan, book: &Book) -> BTreeMap<ModelName, Arc<SnapshotRecord>> {
    let of = |model: &PlannedModel| Some((model.name.clone(), book.snapshots.get(&model.snapshot?)?.clone()));
    plan.models.iter().filter_map(of).collect()
}

pub(super) fn table_state(table: &TableId, book: &Book) -> TableState {
    let known = book.tables.get(table).cloned().unwrap_or_default();
    let lost = book.lost.iter().filter(|batch| batch.table == *table).map(|batch| batch.interval).collect();
    TableState { table: table.clone(), done: known.done, created: known.created, lost }
}

/// What a node reads of other nodes; through views that the plan leaves alone, too: what they show
/// is what lies below them.
pub(super) fn edges(
    name: &ModelName,
    records: &BTreeMap<ModelName, Arc<SnapshotRecord>>,
    index: &BTreeMap<&ModelName, usize>,
) -> Vec<Edge> {
    let Some(record) = records.get(name) else { return Vec::new() };
    let snapshots = |parent: &ModelName| records.get(parent).map(|record| record.snapshot.clone());
    let mut found = Vec::new();
    let mut open: Vec<(ModelName, ReadRange)> = reads(&record.snapshot, &snapshots).into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some((parent, range)) = open.pop() {
        if let Some(node) = index.get(&parent) {
            found.push(Edge { node: *node, reads: range });
            continue;
        }
        let Some(below) = records.get(&parent).filter(|below| is_view(below)) else { continue };
        if seen.insert(parent.clone()) {
            let why = format!("it is read through the view `{parent}`");
            open.extend(
                below.snapshot.upstream().map(|name| (name.clone(), ReadRange::Whole { why: why.clone() })),
            );
        }
    }
    found
}

/// A view that reads through to the tables below it, or a query that is put in its place.
fn is_view(record: &SnapshotRecord) -> bool {
    matches!(record.snapshot.model.kind, ModelKind::View { materialized: false } | ModelKind::Embedded)
}

pub(super) fn cut(model: &PlannedModel, record: &SnapshotRecord, book: &Book) -> Arc<dyn Cut> {
    match record.snapshot.model.kind {
        ModelKind::IncrementalUnmanaged { insert_overwrite: false, .. } => {
            let lost = book.lost.iter().filter(|batch| Some(&batch.table) == model.filled());
            Arc::new(AsLost(lost.map(|batch| batch.interval).collect()))
        }
        ModelKind::Full | ModelKind::View { .. } | ModelKind::Seed(_) => Arc::new(Whole),
        _ if model.batches.size.is_none() => Arc::new(Whole),
        _ => Arc::new(Batches(model.batches)),
    }
}

/// Cuts out the batches whose leases were lost. Some of them may have added their rows, which can only
/// be seen where the same batch is tried again.
#[derive(Debug)]
struct AsLost(Vec<Interval>);

impl Cut for AsLost {
    fn first(&self, run: Interval) -> Interval {
        let inside = self.0.iter().filter_map(|lost| lost.intersection(run));
        match inside.min_by_key(|lost| (lost.start, lost.end)) {
            Some(lost) if lost.start == run.start => lost,
            Some(lost) => Interval { start: run.start, end: lost.start },
            None => run,
        }
    }
}

/// Cuts after so many units of the model's interval.
#[derive(Debug)]
struct Batches(BatchRule);

impl Cut for Batches {
    fn first(&self, run: Interval) -> Interval {
        BatchPlan::new(&IntervalSet::from(run), self.0.unit, self.0.size).get(0).unwrap_or(run)
    }
}

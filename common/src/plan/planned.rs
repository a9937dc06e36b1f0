//! What a plan says of each model.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::ModelName;
use crate::interval::IntervalSet;
use crate::project::model::{ModelKind, ModelSource};
use crate::snapshot::{Category, SnapshotRecord};
use crate::task::{Allowed, TableId};

use super::categorize::Records;
use super::restate::Restatements;
use super::{
    BatchRule, Change, Environment, PlanInput, PlannedModel, Purpose, Tables, backfill, change, policy,
};

impl PlannedModel {
    /// Whether it is a standalone audit: what it "fills" is what it looks at.
    pub fn is_audit(&self) -> bool {
        self.kind == ModelKind::Audit.name()
    }

    /// The table that the model's batches fill.
    pub fn filled(&self) -> Option<&TableId> {
        self.fills.as_ref().filter(|_| !self.missing.is_empty()).or(self.table.as_ref())
    }

    /// The table whose ranges are recorded where the plan computes nothing: never production's, where
    /// the environment may not write that.
    pub fn declared(&self) -> Option<&TableId> {
        self.fills.as_ref().or(self.table.as_ref())
    }

    /// All tables that the model needs while the plan is carried out.
    pub fn tables(&self) -> impl Iterator<Item = &TableId> {
        self.table.iter().chain(&self.fills)
    }
}

/// What was found out of all models.
pub(super) struct Facts<'a> {
    pub(super) input: &'a PlanInput<'a>,
    /// What the environment shows, or what a new one starts from.
    pub(super) base: Option<&'a Environment>,
    pub(super) diff: &'a change::Diff,
    pub(super) records: &'a Records,
    /// The tables that the environment will read.
    pub(super) tables: &'a Tables,
    /// Those that batches fill.
    pub(super) filled: &'a Tables,
    pub(super) windows: &'a backfill::Windows,
    pub(super) restatements: &'a Restatements,
    /// Ranges that new and changed audits look at.
    pub(super) audited: &'a BTreeMap<ModelName, IntervalSet>,
}

/// The models of the environment before or after, by name.
pub(super) fn models(facts: &Facts<'_>) -> Vec<PlannedModel> {
    let Facts { input, tables, windows, restatements, .. } = *facts;
    let model = |(name, change): (&ModelName, &Change)| {
        let Some(record) = facts.records.get(name) else { return removed(name, facts.base) };
        let restated = restatements.ranges.get(name).or_else(|| restatements.automatic.get(name)).copied();
        PlannedModel {
            restatement: restated,
            audits: facts.audited.get(name).cloned().unwrap_or_default(),
            assumed: backfill::assumed(input, record, tables.get(name), windows, restated),
            fills: facts.filled.get(name).filter(|table| tables.get(name) != Some(table)).cloned(),
            ..planned(facts, record, *change)
        }
    };
    facts.diff.changes.iter().map(model).collect()
}

fn removed(name: &ModelName, base: Option<&Environment>) -> PlannedModel {
    let before = base.and_then(|environment| environment.models.get(name));
    PlannedModel {
        name: name.clone(),
        kind: before.map_or_else(String::new, |model| model.kind.clone()),
        change: Change::Removed,
        category: None,
        snapshot: None,
        version: None,
        table: None,
        missing: IntervalSet::new(),
        relies: IntervalSet::new(),
        skipped: IntervalSet::new(),
        redo: false,
        anew: false,
        batches: BatchRule::default(),
        restatement: None,
        audits: IntervalSet::new(),
        fills: None,
        migrate: false,
        allows: Allowed::default(),
        effective_from: None,
        assumed: IntervalSet::new(),
        create: false,
        sequential: false,
        concurrency: None,
        signals: Vec::new(),
        before: before.map(|model| model.snapshot),
    }
}

fn planned(facts: &Facts<'_>, record: &Arc<SnapshotRecord>, change: Change) -> PlannedModel {
    let Facts { input, windows, diff, .. } = *facts;
    let snapshot = &record.snapshot;
    let name = snapshot.name();
    let table = facts.tables.get(name).cloned();
    let missing = windows.missing.get(name).cloned().unwrap_or_default();
    let done = table.as_ref().and_then(|id| input.tables.get(id)).map(|known| &known.done);
    let redo = done.is_some_and(|done| !done.intersection(&missing).is_empty());
    // Lookback and views over other tables compute again what is complete.
    let complete = done.is_some_and(|done| missing.ranges().iter().any(|range| done.covers(*range)));
    let created = table.as_ref().is_some_and(|id| input.tables.get(id).is_some_and(|known| known.created));
    let follows = table.as_ref().is_some_and(|table| backfill::follows_anew(input, record, table));
    let directly = matches!(change, Change::DirectlyModified | Change::MetadataUpdated);
    let is_new = !input.records.contains_key(&snapshot.id);
    let aside = table.as_ref().is_some_and(|table| table.dev);
    PlannedModel {
        name: name.clone(),
        kind: snapshot.model.kind.name().to_owned(),
        change,
        category: (change != Change::Unchanged).then(|| record.shown_category()),
        version: table.as_ref().map(|table| if table.dev { record.dev_version } else { record.version }),
        snapshot: Some(snapshot.id),
        fills: None,
        migrate: created && migrates(input, record),
        allows: policy::allowed(input, name),
        effective_from: follows.then_some(record.effective_from).flatten(),
        assumed: IntervalSet::new(),
        create: table.is_some() && !created,
        batches: BatchRule { unit: snapshot.interval_unit(), size: snapshot.model.batch_size() },
        sequential: snapshot.depends_on_past(),
        concurrency: backfill::concurrency(snapshot),
        signals: snapshot.model.signals.iter().map(|call| call.name.clone()).collect(),
        table,
        anew: complete || (redo && is_new && aside),
        relies: done.map(|done| done.difference(&missing)).unwrap_or_default(),
        missing,
        skipped: windows.skipped.get(name).cloned().unwrap_or_default(),
        redo,
        restatement: None,
        audits: IntervalSet::new(),
        before: if directly { diff.before.get(name).copied() } else { None },
    }
}

/// Whether production takes over a snapshot that keeps its table although what the query gives may
/// differ.
fn migrates(input: &PlanInput<'_>, record: &SnapshotRecord) -> bool {
    let shown = input.prod.and_then(|prod| prod.models.get(record.name()));
    let seed = matches!(record.snapshot.model.source, ModelSource::Seed(_));
    input.purpose == Purpose::Change
        && input.options.environment.is_prod()
        && record.forward_only
        && record.category != Category::Metadata
        && !record.snapshot.model.kind.is_audit()
        && !seed
        // Such a view is made beside the one before it.
        && record.view.is_none()
        && shown.is_none_or(|shown| shown.snapshot != record.id())
}

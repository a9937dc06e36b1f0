//! Which intervals each model of a plan misses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::categorize::Records;
use super::change::Diff;
use super::options::Times;
use super::restate::Restatements;
use super::{EnvironmentModel, PlanInput, PlannedModel, Purpose, Tables};
use crate::id::{ModelName, SnapshotId};
use crate::interval::{
    Interval, IntervalSet, IntervalUnit, MissingQuery, TimePoint, Timestamp, default_start, missing,
    parse_time, recorded,
};
use crate::project::model::ModelKind;
use crate::snapshot::{Category, Snapshot, SnapshotRecord};
use crate::task::TableId;

/// What is recorded of a physical table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableRecord {
    /// Ranges that are committed.
    pub done: IntervalSet,
    /// Whether the warehouse has the table.
    pub created: bool,
    /// The execution time of the last run that restated it by itself (`auto_restatement_cron`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restated: Option<Timestamp>,
    /// Ranges that were committed once, from rows that were restated since, and that nobody has asked for
    /// again: they don't count as done.
    #[serde(default, skip_serializing_if = "IntervalSet::is_empty")]
    pub stale: IntervalSet,
}

/// How missing ranges are cut into batches: at gaps, and after `size` units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchRule {
    /// The unit that is counted.
    pub unit: IntervalUnit,
    /// How many units a batch has at most; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
}

impl Default for BatchRule {
    fn default() -> Self {
        Self { unit: IntervalUnit::Day, size: None }
    }
}

/// What each model misses.
pub(super) struct Windows {
    pub(super) missing: BTreeMap<ModelName, IntervalSet>,
    /// What would be computed, but nothing is to be, or another snapshot of the version filled it.
    pub(super) skipped: BTreeMap<ModelName, IntervalSet>,
    /// What models miss that the plan isn't about.
    pub(super) unselected: BTreeMap<ModelName, IntervalSet>,
    /// Where each model's history starts.
    pub(super) starts: BTreeMap<ModelName, Timestamp>,
    pub(super) earliest: Timestamp,
}

impl Windows {
    /// Where the plan's time begins: a plan without a start of its own begins with the first range
    /// that it fills, or would fill.
    pub(super) fn begin(&self, times: &Times) -> Timestamp {
        let filled = self.missing.values().chain(self.skipped.values());
        let first = filled.filter_map(IntervalSet::hull).map(|hull| hull.start).min();
        times.start.or(first).unwrap_or(self.earliest)
    }
}

pub(super) fn windows(
    input: &PlanInput<'_>,
    scope: &Scope<'_>,
    records: &Records,
    tables: &Tables,
) -> Windows {
    let times = scope.times;
    let earliest =
        scope.starts.values().copied().min().unwrap_or_else(|| IntervalUnit::Day.floor(times.execution));
    let (mut found, mut skipped, mut unselected) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (name, record) in records {
        let Some(table) = tables.get(name) else { continue };
        let known = known_done(input, scope.before, record, table);
        let set = missing_of(input, scope, record, table, earliest, known);
        if set.is_empty() {
            continue;
        }
        let selected = scope.backfilled.is_none_or(|wanted| wanted.contains(name));
        let is_new = !input.records.contains_key(&record.id());
        if is_new && selected && !input.options.skip_backfill && !table.dev {
            // What another snapshot of this version filled needn't be computed again.
            let left = missing_of(input, scope, record, table, earliest, recorded_done(input, record, table));
            let filled = set.difference(&left);
            found.extend((!left.is_empty()).then(|| (name.clone(), left)));
            skipped.extend((!filled.is_empty()).then(|| (name.clone(), filled)));
            continue;
        }
        let into = match (selected, input.options.skip_backfill) {
            (true, false) => &mut found,
            (true, true) => &mut skipped,
            (false, _) => &mut unselected,
        };
        into.insert(name.clone(), set);
    }
    Windows {
        missing: found,
        skipped,
        unselected,
        starts: scope.starts.clone(),
        earliest: times.start.unwrap_or(earliest),
    }
}

/// What a plan is about.
pub(super) struct Scope<'a> {
    /// Its times.
    pub(super) times: &'a Times,
    /// Where each model's history starts.
    pub(super) starts: &'a BTreeMap<ModelName, Timestamp>,
    /// The models to compute, if not all.
    pub(super) backfilled: Option<&'a BTreeSet<ModelName>>,
    /// What is computed although it is complete.
    pub(super) restatements: &'a Restatements,
    /// The snapshots that the project is compared with.
    pub(super) before: &'a BTreeMap<ModelName, SnapshotId>,
    /// Models whose throwaway tables hold the whole history.
    pub(super) unbounded: &'a BTreeSet<ModelName>,
}

/// What is recorded of a table. A view that is made anew beside the one before it has what that has.
fn done(input: &PlanInput<'_>, record: &SnapshotRecord, table: &TableId) -> IntervalSet {
    let known = input.tables.get(table).map(|known| known.done.clone());
    known.or_else(|| followed(input, record, table)).unwrap_or_default()
}

/// What is recorded of the view that a new view of the same version follows.
fn followed(input: &PlanInput<'_>, record: &SnapshotRecord, table: &TableId) -> Option<IntervalSet> {
    if table.dev || record.view.is_none() || !record.forward_only {
        return None;
    }
    let same = record.previous.iter().rev().take_while(|previous| previous.version == record.version);
    let mut before = same.filter_map(|previous| input.records.get(&previous.id));
    before.find_map(|before| Some(input.tables.get(&before.table(false))?.done.clone()))
}

/// What is recorded of a table, as far as it holds for the snapshot.
fn recorded_done(input: &PlanInput<'_>, record: &SnapshotRecord, table: &TableId) -> IntervalSet {
    let known = record.counts(&done(input, record, table));
    let known = known.union(&earlier_generations(input, record, table));
    if follows_anew(input, record, table) { record.inherits(&known) } else { known }
}

/// What a view's generation takes over from earlier ones of its version: an environment that shows
/// another version gets the view made, but nothing has to be computed for it. Where it shows this
/// version, the view is computed again, as its upstream has other tables.
fn earlier_generations(input: &PlanInput<'_>, record: &SnapshotRecord, table: &TableId) -> IntervalSet {
    let shown = input.current.or(input.prod).and_then(|environment| environment.models.get(record.name()));
    let shown = shown.and_then(|model| input.records.get(&model.snapshot));
    if record.view.is_none() || table.dev || shown.is_some_and(|shown| shown.version == record.version) {
        return IntervalSet::new();
    }
    generations(input, record)
}

/// What is recorded of all views of a version.
fn generations(input: &PlanInput<'_>, record: &SnapshotRecord) -> IntervalSet {
    let same =
        |other: &&Arc<SnapshotRecord>| other.name() == record.name() && other.version == record.version;
    let tables =
        input.records.values().filter(same).filter_map(|other| input.tables.get(&other.table(false)));
    tables.fold(IntervalSet::new(), |all, known| all.union(&known.done))
}

/// What of a table counts as filled when a plan is shown. A new snapshot knows what the one before it
/// filled where it keeps that one's table, and nothing else, as in SQLMesh: rows that another snapshot of
/// the same version left are found when the plan is carried out.
fn known_done(
    input: &PlanInput<'_>,
    before: &BTreeMap<ModelName, SnapshotId>,
    record: &SnapshotRecord,
    table: &TableId,
) -> IntervalSet {
    let done = |table: &TableId| done(input, record, table);
    let old = before.get(record.name()).and_then(|id| input.records.get(id));
    if !table.dev && old.is_some_and(|old| is_rebuilt(old, record)) {
        return IntervalSet::new();
    }
    if input.records.contains_key(&record.id()) {
        return recorded_done(input, record, table);
    }
    let Some(old) = old else { return IntervalSet::new() };
    let same = old.version == record.version;
    match (table.dev, record.forward_only) {
        (true, false) if same && old.dev_version == record.dev_version => done(table),
        (true, false) => IntervalSet::new(),
        _ if same => record.inherits(&done(&record.table(false))),
        _ => IntervalSet::new(),
    }
}

/// Whether a snapshot that keeps the version of the one before it is filled again all the same: a view
/// over other tables, and a seed whose file may be another, also on the way back to an earlier snapshot.
fn is_rebuilt(old: &SnapshotRecord, new: &SnapshotRecord) -> bool {
    if old.version != new.version || old.id() == new.id() {
        return false;
    }
    match new.snapshot.model.kind {
        ModelKind::View { .. } => new.category == Category::IndirectNonBreaking && !new.forward_only,
        ModelKind::Seed(_) => {
            let follows = new.previous.last().is_some_and(|last| last.id == old.id());
            !(new.category == Category::Metadata && follows)
        }
        _ => false,
    }
}

fn missing_of(
    input: &PlanInput<'_>,
    scope: &Scope<'_>,
    record: &SnapshotRecord,
    table: &TableId,
    earliest: Timestamp,
    mut done: IntervalSet,
) -> IntervalSet {
    let times = scope.times;
    let snapshot = &record.snapshot;
    let model = &snapshot.model;
    let start = scope.starts[snapshot.name()];
    let nothing = IntervalSet::new();
    let restated = scope.restatements.ranges.get(snapshot.name()).copied();
    let mut end = restated.map_or(times.end_or_now(), |range| range.end);
    let again = restated.or_else(|| scope.restatements.automatic.get(snapshot.name()).copied());
    if let Some(range) = again {
        done.remove(range);
    }
    if times.capped_by_prod {
        let shown = input.prod.and_then(|prod| prod.models.get(snapshot.name()));
        if let Some(cap) = shown.and_then(|shown| done_end(input, shown)) {
            end = cap;
        }
    }
    let bounded = table.dev && !scope.unbounded.contains(snapshot.name());
    let asked = if bounded { times.covered_from } else { times.start };
    let asked = times.starts.get(snapshot.name()).copied().or(asked);
    let asked = restated.map_or(asked, |range| Some(range.start));
    let from = asked.unwrap_or(earliest).max(start);
    if from >= end {
        return nothing;
    }
    let point =
        |text: &Option<String>| text.as_deref().and_then(|text| parse_time(text, times.execution).ok());
    let cadence = snapshot.cadence();
    missing(&MissingQuery {
        start: from,
        end: TimePoint::time(end),
        execution: times.execution,
        unit: model.interval_unit.unwrap_or_else(|| cadence.unit()),
        cadence: &cadence,
        done: &done,
        model_start: Some(start),
        model_end: point(&model.end),
        lookback: model.lookback(),
        allow_partials: model.allow_partials,
        ignore_cron: input.options.ignore_cron,
        is_seed: matches!(model.kind, ModelKind::Seed(_)),
    })
}

/// Whether ranges that other snapshots filled are to follow the change from its effective date on:
/// until production shows the snapshot.
pub(super) fn follows_anew(input: &PlanInput<'_>, record: &SnapshotRecord, table: &TableId) -> bool {
    let shown = input.prod.and_then(|prod| prod.models.get(record.name()));
    !table.dev && record.effective_from.is_some() && shown.is_none_or(|shown| shown.snapshot != record.id())
}

/// What a new throwaway table is taken to have because production's table has it: of a change that
/// keeps that table only a preview is computed. And what a view has that is made beside another one.
fn kept(input: &PlanInput<'_>, record: &SnapshotRecord, table: &TableId) -> IntervalSet {
    let is_new = !input.records.contains_key(&record.id());
    if table.dev && record.forward_only && is_new {
        return record.inherits(&done(input, record, &record.table(false)));
    }
    match input.tables.get(table) {
        None => followed(input, record, table).unwrap_or_default(),
        Some(_) => IntervalSet::new(),
    }
}

/// The part of it that isn't previewed, now or, where nothing is computed, later.
pub(super) fn assumed(
    input: &PlanInput<'_>,
    record: &SnapshotRecord,
    table: Option<&TableId>,
    windows: &Windows,
    previewed: Option<Interval>,
) -> IntervalSet {
    let Some(table) = table else { return IntervalSet::new() };
    let none = IntervalSet::new();
    let of = |sets: &'_ BTreeMap<ModelName, IntervalSet>| sets.get(record.name()).unwrap_or(&none).clone();
    let is_view = record.view.is_some() && !table.dev;
    if is_view && input.options.skip_backfill {
        // It shows what is below it from when it is made on: as complete as the one before it.
        return generations(input, record);
    }
    let mut assumed = kept(input, record, table)
        .union(&earlier_generations(input, record, table))
        .difference(&of(&windows.missing))
        .difference(&of(&windows.skipped));
    if let Some(range) = previewed {
        assumed.remove(range);
    }
    assumed
}

/// Takes the plan's whole time as complete, in whole units, for every model that would be computed.
pub(super) fn declare(
    models: &mut [PlannedModel],
    records: &Records,
    backfilled: Option<&BTreeSet<ModelName>>,
    time: Option<Interval>,
) {
    for planned in models {
        let selected = backfilled.is_none_or(|names| names.contains(&planned.name));
        let record = records.get(&planned.name).filter(|_| selected && planned.table.is_some());
        let (Some(record), Some(time)) = (record, time) else { continue };
        let model = &record.snapshot.model;
        if let Some(range) = recorded(time, record.snapshot.interval_unit(), model.allow_partials) {
            planned.assumed.insert(range);
        }
    }
}

/// Whether forward-only changes are computed in development, into throwaway tables.
pub(super) fn has_previews(input: &PlanInput<'_>) -> bool {
    let asked = input.options.enable_preview.or(input.settings.plan.enable_preview);
    input.options.forward_only || asked.unwrap_or(true)
}

/// The models to compute, with what they read: those asked for; in development those that differ.
/// Nothing: all.
pub(super) fn backfilled(input: &PlanInput<'_>, diff: &Diff) -> Option<BTreeSet<ModelName>> {
    let options = input.options;
    let differing = !options.environment.is_prod()
        && !options.include_unmodified
        && options.restate_models.is_empty()
        && input.purpose == Purpose::Change;
    if let Some(asked) = &options.backfill_models {
        return Some(match options.no_auto_upstream {
            true => asked.clone(),
            false => with_upstream(input, asked.iter().collect()),
        });
    }
    let touched = || input.proposed.values().filter(|snapshot| diff.touches(snapshot));
    let open: Vec<&ModelName> = touched().filter(|_| differing).map(|snapshot| snapshot.name()).collect();
    (!open.is_empty()).then(|| with_upstream(input, open))
}

/// Models and everything that they read.
pub(super) fn with_upstream<'a>(
    input: &'a PlanInput<'_>,
    mut open: Vec<&'a ModelName>,
) -> BTreeSet<ModelName> {
    let mut wanted = BTreeSet::new();
    while let Some(name) = open.pop() {
        if wanted.insert(name.clone()) {
            open.extend(input.proposed.get(name).into_iter().flat_map(|snapshot| snapshot.upstream()));
        }
    }
    wanted
}

/// Where the history of each model starts: its own start, else the earliest of its parents', else
/// one cron tick back.
pub(super) fn starts(
    input: &PlanInput<'_>,
    order: &[ModelName],
    times: &Times,
) -> BTreeMap<ModelName, Timestamp> {
    let mut starts: BTreeMap<ModelName, Timestamp> = BTreeMap::new();
    for name in order {
        let snapshot = &input.proposed[name];
        let start = own_start(input, snapshot)
            .or_else(|| snapshot.upstream().filter_map(|parent| starts.get(parent).copied()).min())
            .unwrap_or_else(|| default_start(&snapshot.cadence(), times.end_or_now()));
        starts.insert(name.clone(), start);
    }
    starts
}

/// The start that the model's file or the project states.
fn own_start(input: &PlanInput<'_>, snapshot: &Snapshot) -> Option<Timestamp> {
    let text = snapshot.model.start.as_deref()?;
    parse_time(text, input.now).ok().map(|point| point.at)
}

/// The end of what is done of a model that an environment shows.
pub(super) fn done_end(input: &PlanInput<'_>, model: &EnvironmentModel) -> Option<Timestamp> {
    let done = &input.tables.get(model.table.as_ref()?)?.done;
    let counted =
        input.records.get(&model.snapshot).map_or_else(|| done.clone(), |record| record.counts(done));
    counted.hull().map(|hull| hull.end)
}

/// How many batches of a model may run at once.
pub(super) fn concurrency(snapshot: &Snapshot) -> Option<u32> {
    let kind = &snapshot.model.kind;
    if snapshot.depends_on_past() || matches!(kind, ModelKind::IncrementalByUniqueKey(_)) {
        return Some(1);
    }
    kind.incremental().and_then(|common| common.batch_concurrency)
}

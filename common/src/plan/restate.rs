//! Restatement: which ranges are computed again although they are complete, and what must be
//! forgotten elsewhere because of that.
//!
//! Rules as SQLMesh's plan builder (0.236.4). Previews of forward-only changes are restatements too,
//! of models that are new with the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::categorize::{Records, is_forward_only};
use super::change::Diff;
use super::options::Times;
use super::{Change, Environment, PlanError, PlanInput, Purpose, reach};
use crate::id::{ModelName, SnapshotId};
use crate::interval::{Cadence, Interval, IntervalSet, Rounding, TimePoint, Timestamp, inclusive_exclusive};
use crate::project::model::ModelKind;
use crate::snapshot::{Category, Snapshot, SnapshotRecord};
use crate::task::TableId;

/// What is restated.
#[derive(Debug, Default)]
pub(super) struct Restatements {
    /// The range of each restated model.
    pub(super) ranges: BTreeMap<ModelName, Interval>,
    /// What a run of production computes again by itself, beside what is due.
    pub(super) automatic: BTreeMap<ModelName, Interval>,
    /// The tables whose time for that has come.
    pub(super) due: Vec<TableId>,
    /// Models that would have been restated, and why they aren't.
    pub(super) refused: BTreeMap<ModelName, Refusal>,
}

/// Why a model isn't restated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Its properties say so, for instance because its source keeps no history.
    Disabled,
    /// A development environment shows production's own table.
    InProduction,
}

/// A range of a table that isn't complete any more once a plan's batches are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Clear {
    /// The table.
    pub table: TableId,
    /// What of it; the whole of time for tables that are only ever rebuilt whole.
    pub range: Interval,
    /// Whether the range stays on record as computed once, where SQLMesh would leave it complete: of a
    /// table that no environment shows, and of rows that follow from restated ones. Nothing else differs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_record: bool,
}

/// Restating a model that isn't there would do nothing, in silence.
pub(super) fn refuse_unknown(input: &PlanInput<'_>) -> Result<(), PlanError> {
    match input.options.restate_models.iter().find(|name| !input.proposed.contains_key(*name)) {
        Some(name) => Err(PlanError::new(
            "unknown-model",
            format!("`{name}` can't be restated: `{}` doesn't hold it", input.options.environment),
            "apply a plan that brings the model first; a restatement takes an environment as it is",
        )),
        None => Ok(()),
    }
}

/// What a plan computes again: the models asked for and everything below them; without such, the
/// forward-only changes that a development environment previews.
pub(super) fn restatements(
    input: &PlanInput<'_>,
    order: &[ModelName],
    records: &Records,
    diff: &Diff,
    times: &Times,
    starts: &BTreeMap<ModelName, Timestamp>,
    backfilled: Option<&BTreeSet<ModelName>>,
) -> Restatements {
    let mut found = Restatements::default();
    if input.purpose == Purpose::Run {
        return automatic(input, order, records, times, backfilled);
    }
    let asked: BTreeSet<&ModelName> = input.options.restate_models.iter().collect();
    let preview = asked.is_empty() && previews_needed(input, diff);
    let start = times.start.unwrap_or_else(|| earliest(input, records, starts));
    let mut reach = reach::Reach::default();
    for name in order {
        let record = &records[name];
        let snapshot = &record.snapshot;
        let wanted = asked.contains(name) || (preview && is_previewed(input, record, diff));
        let parents = || snapshot.upstream().filter(|parent| found.ranges.contains_key(*parent));
        if (preview && is_without_preview(record)) || (!wanted && parents().next().is_none()) {
            continue;
        }
        if !preview && let Some(refusal) = refusal(input, record) {
            if !matches!(snapshot.model.kind, ModelKind::Seed(_)) {
                found.refused.insert(name.clone(), refusal);
            }
            continue;
        }
        let above = parents().filter(|parent| records[*parent].snapshot.model.kind.incremental().is_some());
        let above = above.filter_map(|parent| found.ranges.get(parent).copied());
        let own = removal(input, record, start, times.end_or_now(), times.execution, preview);
        if let Some(range) = above.chain(own).reduce(hull) {
            let range = whole_units(snapshot, range);
            let mut reached = |range| reach.with_windows(input, records, record, &found.ranges, range);
            let range = if preview { range } else { reached(range) };
            found.ranges.insert(name.clone(), range);
        }
    }
    found
}

/// What a run of production computes again by itself: models whose `auto_restatement_cron` has ticked
/// since they last were, and everything below those. A run that is bounded, or whose selection leaves
/// out something below, leaves the model for a later one.
fn automatic(
    input: &PlanInput<'_>,
    order: &[ModelName],
    records: &Records,
    times: &Times,
    backfilled: Option<&BTreeSet<ModelName>>,
) -> Restatements {
    let mut found = Restatements::default();
    let options = input.options;
    if !options.environment.is_prod() || options.start.is_some() || options.end.is_some() {
        return found;
    }
    let left_out = backfilled.map(|selected| above_unselected(input, order, selected)).unwrap_or_default();
    let mut reach = reach::Reach::default();
    for name in order {
        let record = &records[name];
        let snapshot = &record.snapshot;
        if is_disabled(&snapshot.model.kind) {
            continue;
        }
        let above = snapshot.upstream().filter_map(|parent| found.automatic.get(parent).copied());
        let due = if left_out.contains(name) { None } else { due_range(input, record, times.execution) };
        let Some(range) = above.chain(due).reduce(hull) else { continue };
        let unit = snapshot.interval_unit();
        let (start, end) = (unit.floor(range.start), unit.ceil(range.end));
        let Some(range) = removal(input, record, start, end, times.execution, false) else { continue };
        let range = reach.with_windows(input, records, record, &found.automatic, range);
        found.automatic.insert(name.clone(), range);
        found.due.extend(due.map(|_| record.table(false)));
    }
    found
}

/// Models that something reads, at any distance, which a selection leaves out; and those left out.
fn above_unselected(
    input: &PlanInput<'_>,
    order: &[ModelName],
    selected: &BTreeSet<ModelName>,
) -> BTreeSet<ModelName> {
    let mut found = BTreeSet::new();
    for name in order.iter().rev() {
        if !selected.contains(name) {
            found.insert(name.clone());
        }
        if found.contains(name) {
            found.extend(input.proposed[name].upstream().cloned());
        }
    }
    found
}

/// What of a table is computed again by itself now, if anything is.
fn due_range(input: &PlanInput<'_>, record: &SnapshotRecord, execution: Timestamp) -> Option<Interval> {
    let snapshot = &record.snapshot;
    let cron = snapshot.model.kind.auto_restatement_cron()?;
    let known = input.tables.get(&record.table(false))?;
    let done = known.done.hull()?;
    let ticks = Cadence::parse(cron, None).ok()?;
    if execution < ticks.next(known.restated.unwrap_or(record.created)) {
        return None;
    }
    let common = snapshot.model.kind.incremental()?;
    let unit = snapshot.interval_unit();
    let end = unit.floor(execution);
    match common.auto_restatement_intervals {
        None => Some(done),
        Some(count) => Interval::new(unit.add_units(end, -i64::from(count)), end),
    }
}

/// Whether a development plan previews forward-only changes.
fn previews_needed(input: &PlanInput<'_>, diff: &Diff) -> bool {
    let touched = || input.proposed.values().filter(|snapshot| diff.touches(snapshot));
    !input.options.environment.is_prod()
        && (input.options.forward_only
            || super::backfill::has_previews(input)
                && touched().any(|snapshot| is_forward_only(&snapshot.model.kind)))
}

/// Whether a model's new snapshot keeps the table although rows may differ.
fn is_previewed(input: &PlanInput<'_>, record: &SnapshotRecord, diff: &Diff) -> bool {
    let kind = &record.snapshot.model.kind;
    let modified = matches!(
        diff.changes.get(record.name()),
        Some(Change::DirectlyModified | Change::IndirectlyModified)
    );
    let is_new = !input.records.contains_key(&record.id());
    is_new && modified && !kind.is_symbolic() && (record.forward_only || is_forward_only(kind))
}

/// Whether a forward-only change leaves the rows as they are.
fn is_without_preview(record: &SnapshotRecord) -> bool {
    record.forward_only && matches!(record.category, Category::Metadata | Category::IndirectNonBreaking)
}

/// Why a model can't be restated. Seeds are never: their rows are the file's.
fn refusal(input: &PlanInput<'_>, record: &SnapshotRecord) -> Option<Refusal> {
    let shown = input.prod.and_then(|prod| prod.models.get(record.name()));
    let live = shown.is_some_and(|shown| shown.snapshot == record.id());
    let dev = !input.options.environment.is_prod();
    if dev && live {
        return Some(Refusal::InProduction);
    }
    let kind = &record.snapshot.model.kind;
    let disabled = !dev && is_disabled(kind);
    (disabled || matches!(kind, ModelKind::Seed(_))).then_some(Refusal::Disabled)
}

fn is_disabled(kind: &ModelKind) -> bool {
    matches!(kind, ModelKind::Managed) || kind.incremental().is_some_and(|common| common.disable_restatement)
}

/// The range that a model itself must compute again when the plan's times are asked of it.
fn removal(
    input: &PlanInput<'_>,
    record: &SnapshotRecord,
    start: Timestamp,
    end: Timestamp,
    execution: Timestamp,
    preview: bool,
) -> Option<Interval> {
    let snapshot = &record.snapshot;
    let end = if snapshot.depends_on_past() { execution } else { end };
    let units = |start: Timestamp| {
        let rounding = if snapshot.model.allow_partials { Rounding::Partial } else { Rounding::Outward };
        inclusive_exclusive(start, TimePoint::time(end), snapshot.interval_unit(), rounding)
    };
    let done = input.tables.get(&record.table(false)).and_then(|known| known.done.hull());
    match done.filter(|_| !preview && snapshot.model.kind.full_history_restatement_only()) {
        Some(done) => units(done.start),
        None => units(start),
    }
}

fn hull(a: Interval, b: Interval) -> Interval {
    Interval { start: a.start.min(b.start), end: a.end.max(b.end) }
}

/// Widens a range that ends within a unit of the model to whole units.
fn whole_units(snapshot: &Snapshot, range: Interval) -> Interval {
    let unit = snapshot.interval_unit();
    if unit.floor(range.end) == range.end {
        return range;
    }
    Interval { start: unit.floor(range.start), end: unit.ceil(range.end) }
}

/// Where the history of everything in the plan starts.
fn earliest(input: &PlanInput<'_>, records: &Records, starts: &BTreeMap<ModelName, Timestamp>) -> Timestamp {
    let done = records
        .values()
        .filter_map(|record| input.tables.get(&record.table(false))?.done.hull())
        .map(|hull| hull.start);
    starts.values().copied().chain(done).min().unwrap_or(input.now)
}

/// Which ranges of other tables stop being complete when production recomputed `restated`: those of
/// other versions of the restated models and of everything below them, wherever an environment or a
/// kept snapshot has one. Tables that production shows are never among them: what of those must be
/// recomputed is in the plan itself. Tables that no environment shows are only said to be computed again
/// before something shows them ([`Clear::on_record`]) unless some environment shows another version.
///
/// `records` are the snapshots that the state holds, `environments` all environments. Ranges are given
/// whether or not they are recorded as complete, except that tables without any record are left out.
pub fn clears(
    restated: &BTreeMap<ModelName, Interval>,
    prod: &BTreeMap<ModelName, Arc<SnapshotRecord>>,
    environments: &[&Environment],
    records: &BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
    is_recorded: impl Fn(&TableId) -> bool,
) -> Vec<Clear> {
    let shared =
        |record: &SnapshotRecord| prod.get(record.name()).is_some_and(|live| live.version == record.version);
    let disabled =
        |name: &ModelName| prod.get(name).is_some_and(|live| is_disabled(&live.snapshot.model.kind));
    let mut affected: BTreeMap<SnapshotId, Interval> = BTreeMap::new();
    for environment in environments {
        for (id, range) in affected_in(environment, restated, records, &disabled) {
            if records.get(&id).is_some_and(|record| !shared(record)) {
                affected.entry(id).and_modify(|known| *known = hull(*known, range)).or_insert(range);
            }
        }
    }
    let widest = widest(&affected, records);
    let below = below(restated, prod, records);
    let mut found: BTreeMap<(TableId, bool), Interval> = BTreeMap::new();
    for record in records.values().filter(|record| !shared(record)) {
        let shown = affected.get(&record.id()).or_else(|| widest.get(record.name()));
        // Snapshots that no environment shows may still be promoted one day.
        let beyond = || restated.get(record.name()).or_else(|| below.get(record.name()));
        let Some(asked) = shown.or_else(beyond) else { continue };
        let snapshot = &record.snapshot;
        let whole = snapshot.model.kind.full_history_restatement_only();
        let range = if whole { Interval::ALL } else { *asked };
        // Throwaway tables stay as they are: none of them can be promoted.
        let table = record.table(false);
        if !is_recorded(&table) {
            continue;
        }
        let mut add = |range: Interval, on_record: bool| {
            let known = found.entry((table.clone(), on_record));
            known.and_modify(|known| *known = hull(*known, range)).or_insert(range);
        };
        add(range, shown.is_none());
        // Rows that follow from their own past are wrong from the first restated one on.
        if let Some(later) = Interval::new(range.end, Timestamp::MAX).filter(|_| snapshot.depends_on_self()) {
            add(later, true);
        }
    }
    found.into_iter().map(|((table, on_record), range)| Clear { table, range, on_record }).collect()
}

/// What was computed from restated rows in models that production doesn't have: of those that no
/// environment shows, nothing but their snapshots tells.
fn below<'a>(
    restated: &'a BTreeMap<ModelName, Interval>,
    prod: &BTreeMap<ModelName, Arc<SnapshotRecord>>,
    records: &'a BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
) -> BTreeMap<&'a ModelName, Interval> {
    let mut found: BTreeMap<&ModelName, Interval> = BTreeMap::new();
    let foreign: Vec<_> = records.values().filter(|record| !prod.contains_key(record.name())).collect();
    loop {
        let before = found.clone();
        for record in &foreign {
            let of = |name: &ModelName| found.get(name).or_else(|| restated.get(name)).copied();
            let above = record.snapshot.upstream().filter_map(of).chain(found.get(record.name()).copied());
            if let Some(range) = above.reduce(hull) {
                found.insert(record.name(), range);
            }
        }
        if found == before {
            return found;
        }
    }
}

/// The widest range of each model, whichever of its snapshots is affected.
fn widest<'a>(
    affected: &BTreeMap<SnapshotId, Interval>,
    records: &'a BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
) -> BTreeMap<&'a ModelName, Interval> {
    let mut widest: BTreeMap<&ModelName, Interval> = BTreeMap::new();
    for (id, range) in affected {
        let known = widest.entry(records[id].name());
        known.and_modify(|known| *known = hull(*known, *range)).or_insert(*range);
    }
    widest
}

/// The snapshots of one environment that a restatement touches: the restated models, and what reads them.
fn affected_in(
    environment: &Environment,
    restated: &BTreeMap<ModelName, Interval>,
    records: &BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
    disabled: &dyn Fn(&ModelName) -> bool,
) -> Vec<(SnapshotId, Interval)> {
    let shown: BTreeMap<&ModelName, &Arc<SnapshotRecord>> = environment
        .models
        .iter()
        .filter_map(|(name, model)| Some((name, records.get(&model.snapshot)?)))
        .collect();
    let mut children: BTreeMap<&ModelName, Vec<&ModelName>> = BTreeMap::new();
    for (name, record) in &shown {
        for parent in record.snapshot.upstream() {
            children.entry(parent).or_default().push(name);
        }
    }
    let mut found = Vec::new();
    for (restated, range) in restated {
        let mut open = vec![restated];
        let mut seen = BTreeSet::new();
        while let Some(name) = open.pop() {
            if !seen.insert(name) {
                continue;
            }
            open.extend(children.get(name).into_iter().flatten());
            if let Some(record) = shown.get(name).filter(|_| !disabled(name)) {
                found.push((record.id(), *range));
            }
        }
    }
    found
}

/// The [`Clear`]s of a plan that restates production.
pub(super) fn clears_of(input: &PlanInput<'_>, records: &Records, restatements: &Restatements) -> Vec<Clear> {
    if !input.options.environment.is_prod() || input.options.restate_models.is_empty() {
        return Vec::new();
    }
    let recorded =
        |table: &TableId| input.tables.get(table).is_some_and(|known| known.done != IntervalSet::new());
    clears(&restatements.ranges, records, input.environments, input.records, recorded)
}

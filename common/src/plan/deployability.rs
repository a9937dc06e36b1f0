//! Which table a snapshot fills and is read from in a development environment: the one that
//! production could take over, or a throwaway one.
//!
//! Rules as SQLMesh's deployability index (0.236.4).

use std::collections::{BTreeMap, BTreeSet};

use super::categorize::{Records, is_forward_only};
use super::options::Times;
use super::restate::Restatements;
use super::{PlanInput, Purpose, Tables};
use crate::id::{ModelName, SnapshotId};
use crate::interval::{IntervalSet, MissingQuery, TimePoint, Timestamp, missing, parse_time};
use crate::project::model::ModelKind;
use crate::snapshot::{Category, SnapshotRecord};

/// The tables of models.
pub(super) struct Places {
    /// The table that each model's readers use.
    pub(super) read: Tables,
    /// The table that its batches fill: where the environment shows production's own, or one that
    /// production shares, but may not write it, a throwaway one that nobody reads.
    pub(super) filled: Tables,
    /// In a run of a development environment: models that would have a throwaway table wherever it
    /// started. Runs fill those from the models' own starts on.
    pub(super) unbounded: BTreeSet<ModelName>,
}

/// What the choice of tables follows from.
pub(super) struct Ground<'a> {
    pub(super) input: &'a PlanInput<'a>,
    pub(super) records: &'a Records,
    /// Where each model's own history starts.
    pub(super) starts: &'a BTreeMap<ModelName, Timestamp>,
    pub(super) times: &'a Times,
    pub(super) restatements: &'a Restatements,
}

/// The tables of each model that has any; `order` has parents first.
pub(super) fn tables(ground: &Ground<'_>, order: &[ModelName]) -> Places {
    let covered_from = ground.times.covered_from;
    let (shown, written) = if ground.input.options.environment.is_prod() {
        (BTreeSet::new(), BTreeSet::new())
    } else {
        throwaways(ground, order, covered_from)
    };
    let is_run = ground.input.purpose == Purpose::Run;
    let unbounded = if is_run { throwaways(ground, order, None).0 } else { BTreeSet::new() };
    let places = |throwaway: &BTreeSet<ModelName>| {
        ground
            .records
            .iter()
            .filter(|(_, record)| !record.snapshot.model.kind.is_symbolic())
            .map(|(name, record)| (name.clone(), record.table(throwaway.contains(name))))
            .collect()
    };
    Places { read: places(&shown), filled: places(&written), unbounded }
}

/// Models whose environment reads a throwaway table, and those that fill one, where the environment covers
/// time from `covered_from` on.
fn throwaways(
    ground: &Ground<'_>,
    order: &[ModelName],
    covered_from: Option<Timestamp>,
) -> (BTreeSet<ModelName>, BTreeSet<ModelName>) {
    let Ground { input, records, .. } = *ground;
    let mut throwaway = BTreeSet::new();
    let mut written = BTreeSet::new();
    // Models that keep those below them from being deployable.
    let mut taints: BTreeSet<&ModelName> = BTreeSet::new();
    let live: BTreeSet<SnapshotId> =
        input.prod.into_iter().flat_map(|prod| prod.models.values().map(|model| model.snapshot)).collect();
    for name in order {
        let record = &records[name];
        let snapshot = &record.snapshot;
        let kind = &snapshot.model.kind;
        let tainted = snapshot.upstream().any(|parent| taints.contains(parent));
        let keeps_table = record.forward_only
            || record.category == Category::IndirectNonBreaking
            || (is_forward_only(kind) && record.category != Category::Metadata)
            || follows_forward_only(record, &live);
        let valid = valid_start(ground, record, covered_from);
        // What is restated by itself holds another time's rows than those around it.
        let by_itself = kind.auto_restatement_cron().is_some();
        let deployable = !tainted && !keeps_table && !by_itself && valid;
        let done = !stays_complete(ground, record).is_empty();
        let view = matches!(kind, ModelKind::View { .. } | ModelKind::Embedded);
        let representative = deployable
            || live.contains(&record.id())
            || (record.category == Category::IndirectNonBreaking && done && !view && !tainted);
        if !deployable {
            written.insert(name.clone());
        }
        if !representative {
            throwaway.insert(name.clone());
        }
        if tainted || !representative || !valid || by_itself {
            taints.insert(name);
        }
    }
    (throwaway, written)
}

/// Whether only metadata changed since a forward-only change that production doesn't show: the rows are
/// as little production's as before. SQLMesh lets development fill production's table then.
fn follows_forward_only(record: &SnapshotRecord, live: &BTreeSet<SnapshotId>) -> bool {
    if record.category != Category::Metadata || live.contains(&record.id()) {
        return false;
    }
    let kept = is_forward_only(&record.snapshot.model.kind);
    for before in record.previous.iter().rev() {
        if live.contains(&before.id) {
            return false;
        }
        if before.category != Category::Metadata {
            return before.forward_only || kept;
        }
    }
    false
}

/// A table that depends on its own past can only be taken over when nothing before the start is
/// left out.
fn valid_start(ground: &Ground<'_>, record: &SnapshotRecord, covered_from: Option<Timestamp>) -> bool {
    let snapshot = &record.snapshot;
    let Some(from) = covered_from.filter(|_| snapshot.depends_on_past()) else { return true };
    let unit = snapshot.interval_unit();
    let (own, from) = (ground.starts[record.name()], unit.floor(from));
    let done = stays_complete(ground, record);
    if done.is_empty() {
        return unit.ceil(own) >= from;
    }
    let (model, cadence) = (&snapshot.model, snapshot.cadence());
    let execution = ground.times.execution;
    let lacks = missing(&MissingQuery {
        start: own,
        end: TimePoint::time(execution),
        execution,
        unit,
        cadence: &cadence,
        done: &done,
        model_start: Some(own),
        model_end: model.end.as_deref().and_then(|text| parse_time(text, execution).ok()),
        // What lookback computes again isn't there yet, either.
        lookback: model.lookback(),
        allow_partials: model.allow_partials,
        ignore_cron: false,
        is_seed: false,
    });
    lacks.hull().is_none_or(|lacks| lacks.start >= from)
}

/// What production's table has: what is computed again isn't there yet.
fn stays_complete(ground: &Ground<'_>, record: &SnapshotRecord) -> IntervalSet {
    let known = ground.input.tables.get(&record.table(false));
    let mut done = known.map_or_else(IntervalSet::new, |known| known.done.clone());
    ground.restatements.ranges.get(record.name()).inspect(|range| done.remove(**range));
    done
}

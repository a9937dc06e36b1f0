//! Which complete ranges new or changed audits look at, where nothing else of a model changes.

use std::collections::BTreeMap;

use super::backfill::{Scope, Windows};
use super::categorize::Records;
use super::{PlanInput, Tables};
use crate::id::ModelName;
use crate::interval::{IntervalSet, MissingQuery, TimePoint, Timestamp, missing, parse_time};
use crate::project::model::{Model, ModelKind};
use crate::snapshot::{Category, SnapshotRecord};

/// The ranges of each model whose table stays while its audits change: the plan's whole window.
pub(super) fn audited(
    input: &PlanInput<'_>,
    scope: &Scope<'_>,
    records: &Records,
    tables: &Tables,
    windows: &Windows,
) -> BTreeMap<ModelName, IntervalSet> {
    let from = windows.begin(scope.times);
    let changed = records.iter().filter(|(_, record)| audits_changed(input, record));
    let ranges = changed.filter_map(|(name, record)| {
        let table = tables.get(name)?;
        let created = input.tables.get(table).is_some_and(|known| known.created);
        let ranges = if created { window(input, scope, record, from) } else { IntervalSet::new() };
        (!ranges.is_empty()).then(|| (name.clone(), ranges))
    });
    ranges.collect()
}

fn audits_changed(input: &PlanInput<'_>, record: &SnapshotRecord) -> bool {
    let model = &record.snapshot.model;
    let is_new = !input.records.contains_key(&record.id());
    // What a standalone audit has looked at it doesn't look at again, as in SQLMesh.
    let none = model.audits.is_empty() || model.kind.is_audit();
    if !is_new || record.category != Category::Metadata || none {
        return false;
    }
    let before = record.previous.last().and_then(|previous| input.records.get(&previous.id));
    before.is_some_and(|before| asked(&before.snapshot.model) != asked(model))
}

/// What of a call decides about its findings: name and arguments, and the audit's own flags, defaults
/// and query.
type Asked<'a> = (&'a str, &'a BTreeMap<String, String>, Option<Definition<'a>>);
type Definition<'a> = (bool, bool, &'a BTreeMap<String, String>, &'a str);

fn asked(model: &Model) -> Vec<Asked<'_>> {
    let mut found: Vec<Asked<'_>> = model
        .audits
        .iter()
        .map(|call| {
            let own = model.audit_definitions.get(&call.name);
            let own = own.map(|audit| (audit.skip, audit.blocking, &audit.defaults, audit.query.text.trim()));
            (call.name.as_str(), &call.args, own)
        })
        .collect();
    found.sort();
    found
}

/// All that the plan's window holds of a model, complete or not.
fn window(input: &PlanInput<'_>, scope: &Scope<'_>, record: &SnapshotRecord, from: Timestamp) -> IntervalSet {
    let (times, snapshot) = (scope.times, &record.snapshot);
    let model = &snapshot.model;
    let start = scope.starts[snapshot.name()];
    let from = times.starts.get(snapshot.name()).copied().unwrap_or(from).max(start);
    // What follows from a table's own past is looked at up to now, whatever end was asked for.
    let mut end = if snapshot.depends_on_past() { times.execution } else { times.end_or_now() };
    if times.capped_by_prod {
        let shown = input.prod.and_then(|prod| prod.models.get(snapshot.name()));
        end = shown.and_then(|shown| super::backfill::done_end(input, shown)).unwrap_or(end);
    }
    if from >= end {
        return IntervalSet::new();
    }
    let cadence = snapshot.cadence();
    missing(&MissingQuery {
        start: from,
        end: TimePoint::time(end),
        execution: times.execution,
        unit: snapshot.interval_unit(),
        cadence: &cadence,
        done: &IntervalSet::new(),
        model_start: Some(start),
        model_end: model.end.as_deref().and_then(|text| parse_time(text, times.execution).ok()),
        lookback: 0,
        allow_partials: model.allow_partials,
        ignore_cron: input.options.ignore_cron,
        is_seed: matches!(model.kind, ModelKind::Seed(_)),
    })
}

//! JSON documents for people and programs; docs/ describes each.

use std::collections::BTreeMap;
use std::sync::Arc;

use coord_common::diagnostic::Diagnostic;
use coord_common::id::{EnvironmentName, ModelName, PlanId, SnapshotId};
use coord_common::interval::{Interval, IntervalSet, Timestamp};
use coord_common::plan::{self, Environment, EnvironmentModel, Plan, PlanOptions};
use coord_common::project::model::ModelSource;
use coord_common::snapshot::{SnapshotRecord, load_text, reads};
use coord_common::task::TableId;
use coord_proto::wire;
use serde::Serialize;
use serde_json::{Value, json};
use tonic::Status;

use super::control::refusal;
use super::named;
use crate::control::book::Pointer;
use crate::control::evidence::Entry;
use crate::control::{Book, Command, Handle, Todo, Told};
use crate::planning::{Answer, Refusal};

/// What a client gets for a plan: the plan, findings, and definitions before and after of models
/// that were changed directly.
#[derive(Serialize)]
struct PlannedDocument<'a> {
    plan: &'a Plan,
    findings: &'a [Diagnostic],
    definitions: BTreeMap<&'a ModelName, [Option<String>; 2]>,
    /// Restatements of the environment that were begun and aren't at their end.
    unfinished: &'a [PlanId],
}

pub(super) fn planned(answer: &Answer, unfinished: &[PlanId]) -> serde_json::Result<Vec<u8>> {
    let plan = &answer.planned.plan;
    let new: BTreeMap<_, _> = answer.planned.new_records.iter().map(|record| (record.id(), record)).collect();
    let text = |record: &SnapshotRecord| {
        let rendered = answer.diff_rendered.then(|| load_text(&record.snapshot).ok().flatten()).flatten();
        rendered.unwrap_or_else(|| definition(record))
    };
    let mut definitions = BTreeMap::new();
    for model in &plan.models {
        let Some(before) = model.before.and_then(|id| answer.known.get(&id)) else { continue };
        let after = model.snapshot.and_then(|id| new.get(&id).copied().or_else(|| answer.known.get(&id)));
        definitions.insert(&model.name, [Some(text(before)), after.map(|record| text(record))]);
    }
    serde_json::to_vec(&PlannedDocument { plan, findings: &answer.findings, definitions, unfinished })
}

/// A model's SQL as the user wrote it.
fn definition(record: &SnapshotRecord) -> String {
    let model = &record.snapshot.model;
    let mut text = String::new();
    for code in &model.pre_statements {
        text += code.text.trim();
        text += ";\n";
    }
    match &model.source {
        ModelSource::Query(code) => text += code.text.trim(),
        ModelSource::Seed(seed) => text += &seed.csv,
        ModelSource::External => {}
    }
    for code in &model.post_statements {
        text += ";\n";
        text += code.text.trim();
    }
    text
}

pub(super) fn environments(book: &Book, now: Timestamp) -> Value {
    let environments: Vec<Value> = book
        .environments
        .values()
        .map(|(environment, _)| {
            let mut document = json!({
                "name": environment.name,
                "revision": environment.seq,
                "plan_id": environment.plan,
                "models": environment.models.len(),
                "views": environment.models.values().filter(|model| model.view.is_some()).count(),
                "end": environment.end.to_string(),
                "expires": pointer(book, environment).and_then(|p| p.expires).map(|at| at.to_string()),
                "expired": pointer(book, environment).is_some_and(|p| p.has_expired(now)),
                "finalized": is_finalized(book, environment),
            });
            mark_restating(&mut document, book, &environment.name);
            document
        })
        .collect();
    json!({ "environments": environments })
}

fn pointer<'a>(book: &'a Book, environment: &Environment) -> Option<&'a Pointer> {
    book.pointers.get(&environment.name)
}

/// Whether the views show what the pointer says.
fn is_finalized(book: &Book, environment: &Environment) -> bool {
    pointer(book, environment).is_some_and(|pointer| pointer.views_done)
}

/// What environments showed, newest first: who moved each, when, from what to what.
pub(super) fn promotions(book: &Book, environment: &str) -> Value {
    let wanted =
        book.promotions.iter().filter(|(name, _)| environment.is_empty() || name.as_str() == environment);
    let mut all = Vec::new();
    for (name, promotions) in wanted {
        for (seq, promotion) in promotions.iter().rev() {
            let from = promotion.from.and_then(|from| promotions.get(&from)).map(|from| from.plan);
            all.push(json!({
                "environment": name,
                "revision": seq,
                "at": promotion.at.to_string(),
                "by": promotion.by,
                "plan_id": promotion.plan,
                "from_plan_id": from,
                "rollback": promotion.back_to.is_some(),
                "shown": promotion.replaced.is_none(),
            }));
        }
    }
    json!({ "promotions": all })
}

pub(super) fn plans(book: &Book) -> Value {
    let mut plans: Vec<_> = book.plans.iter().collect();
    plans.sort_by_key(|(id, (record, _))| (record.created, **id));
    let plans: Vec<Value> = plans
        .into_iter()
        .map(|(id, (record, _))| {
            let history: Vec<Value> = record
                .history
                .iter()
                .map(|entry| json!({ "at": entry.at.to_string(), "what": entry.what, "by": entry.by }))
                .collect();
            json!({
                "plan_id": id,
                "environment": record.environment,
                "state": record.state.name(),
                "created": record.created.to_string(),
                "author": record.author,
                "approved_by": record.approvals.iter().map(|approval| &approval.by).collect::<Vec<_>>(),
                "failures": record.failures.len(),
                "history": history,
            })
        })
        .collect();
    json!({ "plans": plans })
}

/// What people had done, newest first.
pub(super) fn history(told: &Told) -> Value {
    let entry = |entry: &Entry| {
        let deed = &entry.deed;
        json!({
            "seq": entry.seq,
            "at": deed.at.to_string(),
            "by": deed.by,
            "did": deed.did,
            "environment": deed.environment,
            "plan_id": deed.plan,
            "approved_by": deed.approved_by,
            "checked": deed.checked,
            "hash": entry.hash.to_string(),
        })
    };
    json!({
        "history": told.entries.iter().map(entry).collect::<Vec<_>>(),
        "whole": told.broken.is_none(),
        "broken_at": told.broken,
        "looked_at": told.looked_at,
        "last": told.last,
    })
}

/// What is complete, and what is missing by now, of every model of an environment.
pub(super) fn intervals(book: &Book, name: &EnvironmentName, now: Timestamp) -> Result<Value, Refusal> {
    let Some((environment, _)) = book.environments.get(name) else {
        return Err(unknown_environment(name));
    };
    let missing = missing_now(book, name, now)?;
    let models: Vec<Value> = environment
        .models
        .iter()
        .filter(|(_, model)| model.table.is_some())
        .map(|(name, model)| {
            let known = model.table.as_ref().and_then(|table| book.tables.get(table));
            json!({
                "model": name,
                "kind": model.kind,
                "complete": known.map(|known| ranges(known.done.ranges())).unwrap_or_default(),
                "missing": missing.get(name).map(|set| ranges(set.ranges())).unwrap_or_default(),
            })
        })
        .collect();
    Ok(json!({ "environment": name, "models": models }))
}

/// What a run would compute, model by model; `asked`: what signals left of it.
pub(super) fn checked(plan: &Plan, asked: Option<&BTreeMap<TableId, Todo>>) -> Value {
    let model = |model: &plan::PlannedModel| {
        let table = model.table.as_ref()?;
        let left = match asked {
            Some(left) => left.get(table).map(|todo| todo.ranges.clone()).unwrap_or_default(),
            None => model.missing.clone(),
        };
        (!model.missing.is_empty()).then(|| {
            json!({
                "model": model.name,
                "missing": ranges(left.ranges()),
                "not_ready": ranges(model.missing.difference(&left).ranges()),
                "signals": model.signals,
            })
        })
    };
    let models: Vec<Value> = plan.models.iter().filter_map(model).collect();
    json!({ "environment": plan.environment, "gateways": plan.layout.gateways, "models": models })
}

fn unknown_environment(name: &EnvironmentName) -> Refusal {
    Refusal::new(
        "unknown-environment",
        format!("there is no environment `{name}`"),
        "`coordctl environments` lists those that exist; applying a plan makes one",
    )
}

/// What a run would compute now.
fn missing_now(
    book: &Book,
    name: &EnvironmentName,
    now: Timestamp,
) -> Result<BTreeMap<ModelName, coord_common::interval::IntervalSet>, Refusal> {
    let request = crate::planning::PlanRequest {
        options: PlanOptions::new(name.clone()),
        files: Vec::new(),
        env: BTreeMap::new(),
        gateway: None,
        run: true,
        no_signals: true,
    };
    let planned = crate::planning::plan(&request, book, now)?;
    let models = planned.planned.plan.models;
    Ok(models.into_iter().map(|model| (model.name, model.missing)).collect())
}

fn ranges(ranges: &[Interval]) -> Vec<Value> {
    ranges
        .iter()
        .map(|range| json!({ "start": range.start.to_string(), "end": range.end.to_string() }))
        .collect()
}

/// Environments, and what is recorded of their tables: ids are opaque, only equality counts. What of the
/// ranges is stale is computed again before it is shown.
pub(super) fn state(book: &Book) -> Value {
    let mut environments = serde_json::Map::new();
    let mut tables: BTreeMap<String, BTreeMap<String, IntervalSet>> = BTreeMap::new();
    let mut stale = tables.clone();
    for (environment, _) in book.environments.values() {
        let models: serde_json::Map<String, Value> =
            environment.models.iter().map(|(name, model)| (name.to_string(), shown(book, model))).collect();
        let mut document = json!({ "finalized": is_finalized(book, environment), "models": models });
        mark_restating(&mut document, book, &environment.name);
        environments.insert(environment.name.to_string(), document);
    }
    let versions = versions(book);
    for (table, known) in book.tables.iter().filter(|(table, _)| table.aside.is_none()) {
        let id = versions.get(table).unwrap_or(table).to_string();
        let of_version = tables.entry(table.model.to_string()).or_default().entry(id.clone()).or_default();
        *of_version = of_version.union(&counted(book, table, &known.done)).union(&known.stale);
        if !known.stale.is_empty() {
            stale.entry(table.model.to_string()).or_default().insert(id, known.stale.clone());
        }
    }
    let recorded = |sets: BTreeMap<String, IntervalSet>| -> serde_json::Map<String, Value> {
        sets.into_iter().map(|(id, done)| (id, Value::Array(ranges(done.ranges())))).collect()
    };
    let by_model = |sets: BTreeMap<String, _>| -> BTreeMap<String, _> {
        sets.into_iter().map(|(model, sets)| (model, recorded(sets))).collect()
    };
    let mut document = json!({ "environments": environments, "tables": by_model(tables) });
    if !stale.is_empty() {
        document["stale"] = json!(by_model(stale));
    }
    document
}

/// Every snapshot that is known: its version, and its tables that the warehouse has.
pub(super) fn snapshots(book: &Book) -> Value {
    let table = |record: &SnapshotRecord, dev: bool| {
        let known = book.tables.get(&record.table(dev)).filter(|known| known.created)?;
        Some(json!({ "relation": record.relation(dev), "complete": ranges(known.done.ranges()) }))
    };
    let snapshot = |(id, record): (&SnapshotId, &Arc<SnapshotRecord>)| {
        let document = json!({
            "model": record.name(),
            "version": record.version,
            "relation": record.relation(false),
            "table": table(record, false),
            "dev_table": table(record, true),
        });
        (id.to_string(), document)
    };
    let snapshots: serde_json::Map<String, Value> = book.snapshots.iter().map(snapshot).collect();
    json!({ "snapshots": snapshots })
}

/// What of a table's ranges counts for the snapshots that environments show of it; where none does, all.
fn counted(book: &Book, table: &TableId, done: &IntervalSet) -> IntervalSet {
    let shows = |environment: &Environment| {
        let model = environment.models.get(&table.model)?;
        let record = book.snapshots.get(&model.snapshot)?;
        (model.table.as_ref() == Some(table)).then(|| record.counts(done))
    };
    let shown = book.environments.values().filter_map(|(environment, _)| shows(environment));
    shown.reduce(|all, one| all.union(&one)).unwrap_or_else(|| done.clone())
}

/// Says by which plans an environment is being restated, where it is.
fn mark_restating(document: &mut Value, book: &Book, environment: &EnvironmentName) {
    let unfinished = book.unfinished_restatements(environment);
    if !unfinished.is_empty() {
        let plan = |id: &PlanId| {
            let state = book.plans.get(id).map_or("unknown", |(record, _)| record.state.name());
            json!({ "plan_id": id, "state": state })
        };
        document["restating"] = unfinished.iter().map(plan).collect();
    }
}

/// Views have generations of their own under one version; documents name the version, unless an
/// environment shows the same view as a version of its own.
fn versions(book: &Book) -> BTreeMap<TableId, TableId> {
    let is_version = |table: &TableId| {
        book.environments.values().any(|(environment, _)| {
            let shown =
                environment.models.get(&table.model).filter(|model| model.table.as_ref() == Some(table));
            let record = shown.and_then(|model| book.snapshots.get(&model.snapshot));
            record.is_some_and(|record| record.version == table.version)
        })
    };
    let own = |record: &SnapshotRecord| TableId { version: record.version, ..record.table(false) };
    book.snapshots
        .values()
        .filter(|record| record.view.is_some() && !is_version(&record.table(false)))
        .map(|record| (record.table(false), own(record)))
        .collect()
}

fn shown(book: &Book, model: &EnvironmentModel) -> Value {
    let record = book.snapshots.get(&model.snapshot);
    let version = record.map(|record| record.version.to_string());
    let named = |table: &TableId| match record {
        Some(record) if !table.dev => TableId { version: record.version, ..table.clone() },
        _ => table.clone(),
    };
    json!({
        "version": version,
        "table": model.table.as_ref().map(|table| named(table).to_string()),
        "dev": model.table.as_ref().is_some_and(|table| table.dev),
        "promoted": model.promoted || model.view.is_some(),
        "relation": model.relation.as_ref().map(ToString::to_string),
        "prod_relation": model.relation.as_ref().and(record).map(|record| record.relation(false).to_string()),
        "view": model.view.as_ref().map(ToString::to_string),
        "gateway": model.gateway,
    })
}

/// Why a model needs a backfill, what each of its edges reads, and why its next batch waits.
pub(super) async fn explain(handle: &Handle, request: wire::ExplainRequest) -> Result<Value, Status> {
    let book = handle.ask(|reply| Command::Book { reply }).await?;
    let wanted: Option<ModelName> = if request.model.is_empty() {
        None
    } else {
        Some(coord_proto::convert::parse("model", &request.model)?)
    };
    let plan = if request.plan_id.is_empty() {
        None
    } else {
        let id = named::plan(handle, &request.plan_id).await?;
        let body = handle.ask(|reply| Command::PlanBody { plan: id, reply }).await?;
        Some(body.ok_or_else(|| named::unknown_plan(&request.plan_id))?)
    };
    let mut records: BTreeMap<ModelName, std::sync::Arc<SnapshotRecord>> = BTreeMap::new();
    if let Some(body) = &plan {
        for model in &body.plan.models {
            let new = body.records.iter().find(|record| Some(record.id()) == model.snapshot).cloned();
            let known = model.snapshot.and_then(|id| book.snapshots.get(&id).cloned());
            if let Some(record) = new.or(known) {
                records.insert(model.name.clone(), record);
            }
        }
    } else {
        let name: EnvironmentName = coord_proto::convert::parse("environment", &request.environment)?;
        let (environment, _) =
            book.environments.get(&name).ok_or_else(|| refusal(unknown_environment(&name)))?;
        for (name, model) in &environment.models {
            if let Some(record) = book.snapshots.get(&model.snapshot) {
                records.insert(name.clone(), record.clone());
            }
        }
    }
    if let Some(wanted) = wanted.as_ref().filter(|wanted| !records.contains_key(*wanted)) {
        return Err(refusal(Refusal::new(
            "unknown-model",
            format!("there is no model `{wanted}`"),
            "`coordctl dag` lists the models",
        )));
    }
    let lookup = |name: &ModelName| records.get(name).map(|record| record.snapshot.clone());
    let mut models = Vec::new();
    for (name, record) in
        records.iter().filter(|(name, _)| wanted.as_ref().is_none_or(|wanted| wanted == *name))
    {
        let edges: Vec<Value> = reads(&record.snapshot, &lookup)
            .into_iter()
            .map(|(parent, range)| json!({ "upstream": parent, "reads": range.to_string() }))
            .collect();
        let planned =
            plan.as_ref().and_then(|body| body.plan.models.iter().find(|model| model.name == *name));
        let waits = match (plan.as_ref(), planned) {
            (Some(body), Some(model)) => why(handle, body.plan.id, model).await?,
            _ => Vec::new(),
        };
        models.push(json!({
            "model": name,
            "kind": record.snapshot.model.kind.name(),
            "edges": edges,
            "backfill": planned.map(|model| backfill_reason(&book, model)),
            "missing": planned.map(|model| ranges(model.missing.ranges())).unwrap_or_default(),
            "waits": waits,
        }));
    }
    Ok(json!({ "models": models }))
}

async fn why(handle: &Handle, plan: PlanId, model: &plan::PlannedModel) -> Result<Vec<String>, Status> {
    let (Some(table), Some(hull)) = (model.filled().cloned(), model.missing.hull()) else {
        return Ok(Vec::new());
    };
    let reasons = handle.ask(|reply| Command::Why { plan, table, at: hull, reply }).await?;
    Ok(reasons.iter().map(ToString::to_string).collect())
}

/// Why a model's intervals are missing, in words.
fn backfill_reason(book: &Book, model: &plan::PlannedModel) -> String {
    use coord_common::plan::Change;
    if model.missing.is_empty() {
        return "nothing is missing".to_owned();
    }
    let table: Option<&TableId> = model.table.as_ref();
    let known = table.and_then(|table| book.tables.get(table)).is_some_and(|known| !known.done.is_empty());
    if known {
        return "its table lacks these intervals: they became due, or an earlier apply did not finish them"
            .to_owned();
    }
    match model.change {
        Change::Added => "it is new".to_owned(),
        Change::DirectlyModified => "its definition changed, so it has a new table".to_owned(),
        Change::IndirectlyModified => "something upstream changed its rows, so it has a new table".to_owned(),
        Change::MetadataUpdated | Change::Unchanged | Change::Removed => {
            "its table was never filled".to_owned()
        }
    }
}

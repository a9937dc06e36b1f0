//! Environments: named sets of snapshots, what their views show, and what queries in them read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::backfill::Windows;
use super::change::Diff;
use super::{Hooks, PlanError, PlanInput, Purpose};
use crate::id::{EnvironmentName, ModelName, PlanId, SnapshotId};
use crate::interval::Timestamp;
use crate::project::Settings;
use crate::project::model::ModelKind;
use crate::snapshot::{SnapshotRecord, view_relation};
use crate::task::{Binding, Relation, TableId, View};

/// Which table each model's readers use; models without a table of ours aren't in it.
pub type Tables = BTreeMap<ModelName, TableId>;

/// An environment: a name and what its views show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Its name.
    pub name: EnvironmentName,
    /// Counts its flips, from 1.
    pub seq: u64,
    /// The plan that flipped it last.
    pub plan: PlanId,
    /// The first point that it covers, where a plan bounded it.
    pub start: Timestamp,
    /// The first point that it no longer covers.
    pub end: Timestamp,
    /// Its models.
    pub models: BTreeMap<ModelName, EnvironmentModel>,
    /// Statements around its runs.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// In production: snapshots that can't be returned to, as others fill their tables since.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unrestorable: BTreeSet<SnapshotId>,
}

/// One model of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentModel {
    /// The kind's name.
    pub kind: String,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The table that its view and its readers read; absent for kinds without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableId>,
    /// That table's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<Relation>,
    /// The view, where the environment has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<Relation>,
    /// The gateway that makes the view, where it isn't the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Whether the model belongs to what the environment shows, as its view, where its kind has one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub promoted: bool,
    /// Whether the view has statements to run after it was switched.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_virtual_update: bool,
}

impl EnvironmentModel {
    /// The gateway that makes the view.
    pub fn view_gateway<'a>(&'a self, default: &'a str) -> &'a str {
        self.gateway.as_deref().unwrap_or(default)
    }
}

/// For how long an environment lives after a plan was applied to it; nothing where it stays.
pub(super) fn ttl(name: &EnvironmentName, settings: &Settings) -> Option<String> {
    let pinned =
        || settings.pinned_environments.iter().any(|pinned| pinned.parse().ok().as_ref() == Some(name));
    if name.is_prod() || pinned() { None } else { settings.environment_ttl.clone() }
}

/// Whether a development environment forgets what it shows and starts again from its baseline, because
/// the settings say so (`always_recreate_environment`).
pub(super) fn is_made_anew(input: &PlanInput<'_>) -> bool {
    let options = input.options;
    let baseline = options.create_from.clone().unwrap_or_else(EnvironmentName::prod);
    input.settings.plan.always_recreate_environment
        && input.purpose == Purpose::Change
        && options.restate_models.is_empty()
        && options.environment != baseline
        && !options.environment.is_prod()
}

/// What the project is compared with: the environment itself, or where a new one starts from. A new
/// environment that starts from one which isn't there starts empty.
pub(super) fn baseline<'a>(input: &PlanInput<'a>) -> Option<&'a Environment> {
    if input.current.is_some() {
        return input.current;
    }
    match &input.options.create_from {
        _ if input.options.environment.is_prod() => None,
        Some(name) if !name.is_prod() => {
            input.environments.iter().copied().find(|environment| environment.name == *name)
        }
        _ => input.prod,
    }
}

/// What the environment will show.
pub(super) fn target(
    input: &PlanInput<'_>,
    records: &BTreeMap<ModelName, Arc<SnapshotRecord>>,
    tables: &Tables,
    diff: &Diff,
) -> BTreeMap<ModelName, EnvironmentModel> {
    let options = input.options;
    let all =
        options.environment.is_prod() || (options.include_unmodified && options.backfill_models.is_none());
    let promoted_before: BTreeSet<SnapshotId> = match input.current {
        Some(current) => current
            .models
            .values()
            .filter(|model| model.promoted || model.view.is_some())
            .map(|model| model.snapshot)
            .collect(),
        None => BTreeSet::new(),
    };
    records
        .iter()
        .map(|(name, record)| {
            let model = &record.snapshot.model;
            let differs = input.purpose == Purpose::Change
                && match &options.backfill_models {
                    None => diff.touches(&record.snapshot),
                    Some(selected) => selected.contains(name),
                };
            let promoted = all || differs || promoted_before.contains(&record.id());
            let table = tables.get(name).cloned();
            let shows = !model.kind.is_audit();
            let relation = table.as_ref().filter(|_| shows).map(|table| record.relation(table.dev));
            let view = (promoted && relation.is_some())
                .then(|| view_relation(name, &input.options.environment, input.settings));
            let own = view.is_some() && input.settings.gateway_managed_virtual_layer;
            let shown = EnvironmentModel {
                gateway: model.gateway.clone().filter(|_| own),
                kind: model.kind.name().to_owned(),
                snapshot: record.id(),
                table,
                relation,
                promoted,
                on_virtual_update: view.is_some() && !model.on_virtual_update.is_empty(),
                view,
            };
            (name.clone(), shown)
        })
        .collect()
}

/// A development environment goes on showing a model's throwaway table where the one that it would move
/// to is empty and the plan, which computes others, doesn't fill it: nobody loses sight of rows.
pub(super) fn stay(
    input: &PlanInput<'_>,
    records: &BTreeMap<ModelName, Arc<SnapshotRecord>>,
    tables: &mut Tables,
    windows: &Windows,
) {
    let options = input.options;
    let idle = windows.missing.is_empty() || options.empty_backfill || input.purpose == Purpose::Run;
    let Some(current) = input.current.filter(|_| !idle && !options.environment.is_prod()) else { return };
    let is_filled = |table: &TableId| input.tables.get(table).is_some_and(|known| !known.done.is_empty());
    for (name, table) in tables.iter_mut() {
        let record = &records[name];
        let shown = current.models.get(name).filter(|shown| shown.snapshot == record.id());
        let Some(shown) = shown.and_then(|shown| shown.table.as_ref()) else { continue };
        let is_view = matches!(record.snapshot.model.kind, ModelKind::View { materialized: false });
        let empty = !is_filled(table) && !windows.missing.contains_key(name);
        let keeps = is_filled(shown) || windows.unselected.contains_key(name);
        if shown.dev && !is_view && empty && keeps {
            *table = shown.clone();
        }
    }
}

/// Whether views of the environment get other names or are another gateway's, as its settings have
/// changed: they are made anew, and the old ones dropped.
pub(super) fn moves(input: &PlanInput<'_>, target: &BTreeMap<ModelName, EnvironmentModel>) -> bool {
    let Some(current) = input.current.filter(|_| input.purpose == Purpose::Change) else { return false };
    target.iter().any(|(name, model)| {
        let place = |model: &EnvironmentModel| Some((model.view.clone()?, model.gateway.clone()));
        let (shown, now) = (current.models.get(name).and_then(place), place(model));
        shown.is_some() && now.is_some() && shown != now
    })
}

/// Whether somebody asks for views of models that the environment knows and doesn't show.
pub(super) fn widens(input: &PlanInput<'_>, target: &BTreeMap<ModelName, EnvironmentModel>) -> bool {
    let options = input.options;
    let asked =
        options.include_unmodified && options.restate_models.is_empty() && input.purpose == Purpose::Change;
    let Some(current) = input.current.filter(|_| asked) else { return false };
    target.iter().any(|(name, model)| {
        model.view.is_some() && current.models.get(name).is_some_and(|shown| shown.view.is_none())
    })
}

/// A new development environment that differs in nothing is a mistake.
pub(super) fn refuse_empty_new(input: &PlanInput<'_>, differs: bool) -> Result<(), PlanError> {
    let new = input.current.is_none() && !input.options.environment.is_prod();
    let asked = input.options.include_unmodified
        || input.options.backfill_models.as_ref().is_some_and(|models| !models.is_empty());
    if new && !differs && !asked {
        return Err(PlanError::new(
            "no-changes",
            format!(
                "nothing differs from `{}`, so `{}` would be empty",
                input.options.create_from.as_ref().unwrap_or(&EnvironmentName::prod()),
                input.options.environment
            ),
            "change a model first, or give --include-unmodified",
        ));
    }
    Ok(())
}

/// Views to make, and views to drop, when an environment moves from `before` to `after`.
///
/// Production's views that show the same table as before are left alone; so are a development
/// environment's.
pub fn views(
    before: Option<&BTreeMap<ModelName, EnvironmentModel>>,
    after: &BTreeMap<ModelName, EnvironmentModel>,
) -> (Vec<View>, Vec<Relation>) {
    let shown: BTreeMap<&Relation, &EnvironmentModel> =
        before.into_iter().flatten().filter_map(|(_, model)| Some((model.view.as_ref()?, model))).collect();
    let mut make = Vec::new();
    let mut kept = BTreeSet::new();
    for (name, model) in after {
        let (Some(view), Some(target)) = (&model.view, &model.relation) else { continue };
        kept.insert(view);
        let same = shown.get(view).is_some_and(|old| {
            old.relation == model.relation && (!model.on_virtual_update || old.snapshot == model.snapshot)
        });
        if !same {
            make.push(View {
                model: name.clone(),
                snapshot: model.snapshot,
                view: view.clone(),
                target: target.clone(),
                on_virtual_update: model.on_virtual_update,
            });
        }
    }
    let drop = shown.keys().filter(|view| !kept.contains(*view)).map(|view| (*view).clone()).collect();
    (make, drop)
}

/// The same for each gateway on which a view was or will be. A view that another gateway makes from
/// now on isn't dropped: both may be one warehouse.
pub fn views_by_gateway(
    before: Option<&BTreeMap<ModelName, EnvironmentModel>>,
    after: &BTreeMap<ModelName, EnvironmentModel>,
    default: &str,
) -> BTreeMap<String, (Vec<View>, Vec<Relation>)> {
    type Models = BTreeMap<ModelName, EnvironmentModel>;
    let mut parts: BTreeMap<String, [Models; 2]> = BTreeMap::new();
    for (at, models) in [before, Some(after)].into_iter().enumerate() {
        for (name, model) in models.into_iter().flatten().filter(|(_, model)| model.view.is_some()) {
            let part = parts.entry(model.view_gateway(default).to_owned()).or_default();
            part[at].insert(name.clone(), model.clone());
        }
    }
    let stays: BTreeSet<&Relation> = after.values().filter_map(|model| model.view.as_ref()).collect();
    let part = |(gateway, [before, after]): (String, [Models; 2])| {
        let (make, mut drop) = views(Some(&before), &after);
        drop.retain(|view| !stays.contains(view));
        (gateway, (make, drop))
    };
    parts.into_iter().map(part).collect()
}

/// A view can't show what is in a database that its own can't see. PostgreSQL sees no other one.
pub(super) fn refuse_views_elsewhere(
    settings: &Settings,
    target: &BTreeMap<ModelName, EnvironmentModel>,
    records: &BTreeMap<ModelName, Arc<SnapshotRecord>>,
) -> Result<(), PlanError> {
    let sees_no_other =
        settings.gateway_of(None).is_some_and(|gateway| gateway.connection.kind == "postgres");
    if settings.gateway_managed_virtual_layer || !sees_no_other {
        return Ok(());
    }
    let here = settings.default_catalog(None);
    let elsewhere = target.iter().filter(|(_, model)| model.view.is_some()).find_map(|(name, _)| {
        let gateway = records.get(name)?.snapshot.model.gateway.as_deref()?;
        (settings.default_catalog(Some(gateway)) != here).then_some((name, gateway))
    });
    let Some((name, gateway)) = elsewhere else { return Ok(()) };
    Err(PlanError::new(
        "view-elsewhere",
        format!(
            "the view of `{name}` would be in the database of gateway `{}`, which can't read that of `{gateway}`",
            settings.default_gateway
        ),
        "set `gateway_managed_virtual_layer: true`: each gateway then has the views of its own models",
    ))
}

/// What the names in a snapshot's query stand for: physical tables, or embedded queries (with what
/// those name in turn).
pub fn bindings(
    record: &SnapshotRecord,
    records: &BTreeMap<ModelName, Arc<SnapshotRecord>>,
    tables: &Tables,
) -> BTreeMap<ModelName, Binding> {
    let mut found = BTreeMap::new();
    let mut open: Vec<&ModelName> = record.snapshot.parents.iter().collect();
    while let Some(name) = open.pop() {
        if found.contains_key(name) {
            continue;
        }
        let Some(parent) = records.get(name) else { continue };
        if matches!(parent.snapshot.model.kind, ModelKind::Embedded) {
            found.insert(name.clone(), Binding::Embedded(parent.id()));
            open.extend(parent.snapshot.parents.iter());
        } else if let Some(table) = tables.get(name) {
            found.insert(name.clone(), Binding::Table(parent.relation(table.dev)));
        }
    }
    found
}

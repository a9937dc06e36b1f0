//! Planning: what applying a project to an environment would do. Pure: same input, same bytes.
//!
//! A [`Plan`] is a value. It names the state of the environment that it was made against; applying
//! decides nothing anew, and is refused when that state has moved.

mod audit;
mod backfill;
mod blocker;
mod categorize;
mod change;
mod deployability;
mod document;
mod environment;
mod hooks;
mod options;
mod order;
mod planned;
mod policy;
mod propose;
mod reach;
mod restate;
mod retention;
mod revert;
mod select;
mod stages;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use backfill::{BatchRule, TableRecord};
pub use blocker::Blocker;
pub use change::Change;
pub use document::{AuditWarning, Executed, PlanDocument, document};
pub use environment::{Environment, EnvironmentModel, Tables, bindings, views, views_by_gateway};
pub use hooks::{Hooks, PlannedHooks};
pub use options::{Choice, PlanOptions, Selectors};
pub use order::topological;
pub use propose::{Known, Proposal, propose, select_all};
pub use restate::{Clear, Refusal, clears};
pub use retention::{Garbage, Needed, Retention, garbage, table_kind, tables_of};
pub use select::{Candidate, Candidates, Selector, SelectorError};
pub use stages::{PlanStage, stages};

use crate::id::{EnvironmentName, Hasher, ModelName, PlanId, SnapshotId, Version};
use crate::interval::{Interval, IntervalSet, Timestamp};
use crate::project::Settings;
use crate::snapshot::{ByName, Category, SnapshotRecord};
use crate::task::{Allowed, TableId};

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Bring an environment to what the project's files say.
    Change,
    /// Compute what an environment's own snapshots miss by now.
    Run,
}

/// What applying would do; immutable, addressed by the hash of its content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The hash of all below.
    pub id: PlanId,
    /// What it is for.
    pub purpose: Purpose,
    /// The environment.
    pub environment: EnvironmentName,
    /// The environment's sequence number that the plan was made against; 0: there was none.
    pub base_seq: u64,
    /// The first point that the plan covers.
    pub start: Timestamp,
    /// The first point that it no longer covers.
    pub end: Timestamp,
    /// The "now" of the plan.
    pub execution_time: Timestamp,
    /// Every model of the environment before or after, by name.
    pub models: Vec<PlannedModel>,
    /// What the environment will show.
    pub target: BTreeMap<ModelName, EnvironmentModel>,
    /// Snapshots that the state doesn't hold yet.
    pub new_snapshots: Vec<SnapshotId>,
    /// Whether something differs from what the environment shows.
    pub has_changes: bool,
    /// Whether the environment gets views of models that it only knew so far, as somebody asked for those.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub widens: bool,
    /// Record what is missing as complete without computing it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_backfill: bool,
    /// Make tables and views only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_backfill: bool,
    /// Whether models are computed again because somebody asked for it: the environment's snapshots
    /// stay, and [`PlannedModel::restatement`] says which ranges.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restates: bool,
    /// Whether a restatement replaces rows where they are, batch by batch: readers see old and new
    /// ones side by side meanwhile. Otherwise all is computed aside and published at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_place: bool,
    /// What stops being complete in tables that the environment doesn't show, once this plan's
    /// batches are committed. Only restatements of production have such.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clears: Vec<Clear>,
    /// Snapshots that production can't return to once the plan is applied, as others fill their tables
    /// in another way since: their definitions come back as new snapshots.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unrestorable: BTreeSet<SnapshotId>,
    /// What forward-only changes do to tables' columns and models want told: `destructive:MODEL`,
    /// `additive:MODEL`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub column_notes: Vec<String>,
    /// Tables that this run restates by itself; once it is through, the next time for that counts from
    /// its execution time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub auto_restated: Vec<TableId>,
    /// What speaks against applying: such a plan is there to be looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<Blocker>,
    /// Models below the restated ones that aren't restated, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<ModelName, Refusal>,
    /// Statements that the project runs before and after.
    #[serde(default, skip_serializing_if = "PlannedHooks::is_empty")]
    pub hooks: PlannedHooks,
    /// How views are named, and what else of the settings applying needs.
    pub layout: Layout,
}

/// What applying needs to know of the project's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    /// How many leases a gateway may have in flight, fleet-wide.
    pub concurrent_tasks: BTreeMap<String, u32>,
    /// The gateway of models that name none.
    pub default_gateway: String,
    /// The gateways that the plan's work runs on.
    pub gateways: BTreeSet<String>,
    /// For how long the environment lives once the plan is applied, as written (`in 1 week`);
    /// absent: for good, as production and pinned environments do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_ttl: Option<String>,
    /// For how long a snapshot is kept once no environment shows it, as written.
    #[serde(default = "default_snapshot_ttl")]
    pub snapshot_ttl: String,
}

fn default_snapshot_ttl() -> String {
    Settings::default().snapshot_ttl
}

/// What a plan says of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedModel {
    /// Its name.
    pub name: ModelName,
    /// Its kind's name.
    pub kind: String,
    /// How it differs from what the environment shows.
    pub change: Change,
    /// What the change means, where there is one.
    pub category: Option<Category>,
    /// The snapshot that the environment will show; absent when removed.
    pub snapshot: Option<SnapshotId>,
    /// The version that names the table; absent for kinds without one.
    pub version: Option<Version>,
    /// The table that will be filled and read; absent for kinds without one.
    pub table: Option<TableId>,
    /// The table that is filled, where it isn't the one that is read: a development environment
    /// may show a table of production's, but never writes it with what production may not take over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fills: Option<TableId>,
    /// What it misses.
    #[serde(default, skip_serializing_if = "IntervalSet::is_empty")]
    pub missing: IntervalSet,
    /// What it doesn't compute because it is complete. What stops being so before the plan's end, as
    /// something was restated, is computed after all.
    #[serde(default, skip_serializing_if = "IntervalSet::is_empty")]
    pub relies: IntervalSet,
    /// What it misses, too, and the plan doesn't compute: because nothing is to be computed, or because
    /// another snapshot of the same version filled it.
    #[serde(default, skip_serializing_if = "IntervalSet::is_empty")]
    pub skipped: IntervalSet,
    /// What its new or changed audits look at before anything is computed, where only they differ.
    #[serde(default, skip_serializing_if = "IntervalSet::is_empty")]
    pub audits: IntervalSet,
    /// How that is cut into batches.
    pub batches: BatchRule,
    /// Whether `missing` holds ranges that are complete but computed again (lookback).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redo: bool,
    /// Whether `missing` is computed whatever of it is complete: a new snapshot trusts only the rows that
    /// the one before it left in a throwaway table, lookback reaches ranges that stand alone, and a view
    /// is made again over other tables.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
    /// What is computed again although it was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restatement: Option<Interval>,
    /// Whether the table, which other snapshots filled, must first get the columns of this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub migrate: bool,
    /// Which changes of its columns the plan allows, whatever the model says.
    #[serde(default)]
    pub allows: Allowed,
    /// From here on, what is complete was filled by other snapshots and is computed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_from: Option<Timestamp>,
    /// What counts as complete although this plan doesn't compute it. A preview leaves out most of
    /// the history that production has: recorded once the table is made. An empty backfill declares
    /// all of the plan's time complete: recorded at the plan's end.
    #[serde(default, skip_serializing_if = "IntervalSet::is_empty")]
    pub assumed: IntervalSet,
    /// Whether the table must be made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create: bool,
    /// Whether batches must run one after the other, oldest first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sequential: bool,
    /// How many batches may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Names of the signals that gate its intervals.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<String>,
    /// The definition before, for people, where it was changed directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<SnapshotId>,
}

/// What planning needs to know.
pub struct PlanInput<'a> {
    /// What the project says; for a run, what the environment holds.
    pub proposed: &'a ByName,
    /// The project's settings.
    pub settings: &'a Settings,
    /// The environment as it is.
    pub current: Option<&'a Environment>,
    /// Production as it is.
    pub prod: Option<&'a Environment>,
    /// All environments as they are, by name.
    pub environments: &'a [&'a Environment],
    /// Every snapshot that the state holds.
    pub records: &'a BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
    /// What is recorded of every table.
    pub tables: &'a BTreeMap<TableId, TableRecord>,
    /// What was asked for.
    pub options: &'a PlanOptions,
    /// The clock.
    pub now: Timestamp,
    /// What the plan is for.
    pub purpose: Purpose,
    /// The project's statements around plans; those of a run are the environment's.
    pub hooks: &'a Hooks,
}

/// Why no plan could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PlanError {
    /// A stable word for programs.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl PlanError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: Some(hint.into()) }
    }
}

/// A plan and the records of the snapshots that are new with it.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Records of [`Plan::new_snapshots`].
    pub new_records: Vec<Arc<SnapshotRecord>>,
}

/// Computes what applying `input.proposed` would do. Changes nothing.
///
/// # Errors
/// [`PlanError`] when options contradict each other or the state, or the target is a development
/// environment and nothing differs.
pub fn plan(input: &PlanInput<'_>) -> Result<Planned, PlanError> {
    let options = match input.purpose {
        Purpose::Change => input.options.with_defaults(input.settings),
        Purpose::Run => input.options.clone(),
    };
    let base_seq = input.current.map_or(0, |environment| environment.seq);
    let current = input.current.filter(|_| !environment::is_made_anew(input));
    let input = &PlanInput { options: &options, current, ..*input };
    let order = proposed_order(input)?;
    let restorable = revert::restorable(input, &order);
    let input = &PlanInput { proposed: restorable.as_ref().unwrap_or(input.proposed), ..*input };
    restate::refuse_unknown(input)?;
    let base = environment::baseline(input);
    let diff = change::diff(input.proposed, base, input.records);
    refuse_removed_but_read(input.proposed, &diff)?;
    let differs = diff.changes.values().any(|change| *change == Change::Removed)
        || input.proposed.values().any(|snapshot| diff.touches(snapshot));
    if input.purpose == Purpose::Change {
        // Statements around plans are part of what an environment is.
        let others = base.is_some_and(|base| base.hooks != *input.hooks);
        environment::refuse_empty_new(input, differs || others)?;
    }
    let backfilled = backfill::backfilled(input, &diff);
    let times = options::resolve_times(input, &diff, backfilled.as_ref())?;
    let column_notes = policy::column_changes(input, &diff)?;
    let categorized = categorize::categorize(input, &order, &diff, times.effective_from);
    let records = &categorized.records;
    let starts = backfill::starts(input, &order, &times);
    let restatements =
        restate::restatements(input, &order, records, &diff, &times, &starts, backfilled.as_ref());
    let ground =
        deployability::Ground { input, records, starts: &starts, times: &times, restatements: &restatements };
    let places = deployability::tables(&ground, &order);
    let mut tables = places.read;
    let backfilled = backfilled.or_else(|| {
        let restated = || restatements.ranges.keys().collect();
        (!input.options.restate_models.is_empty()).then(|| backfill::with_upstream(input, restated()))
    });
    let scope = backfill::Scope {
        times: &times,
        starts: &starts,
        backfilled: backfilled.as_ref(),
        restatements: &restatements,
        before: &diff.before,
        unbounded: &places.unbounded,
    };
    let windows = backfill::windows(input, &scope, records, &tables);
    environment::stay(input, records, &mut tables, &windows);
    let target = environment::target(input, records, &tables, &diff);
    environment::refuse_views_elsewhere(input.settings, &target, records)?;
    let blockers = blocker::blockers(input, records, &tables, &windows, categorized.undecided);
    let audited = audit::audited(input, &scope, records, &tables, &windows);
    let facts = planned::Facts {
        input,
        base,
        diff: &diff,
        records,
        tables: &tables,
        filled: &places.filled,
        windows: &windows,
        restatements: &restatements,
        audited: &audited,
    };
    let mut models = planned::models(&facts);
    let (start, end) = (times.start.unwrap_or(windows.earliest), times.end_or_now());
    let scene = hooks::Scene {
        environment: &input.options.environment,
        target: &target,
        start,
        end,
        execution: times.execution,
    };
    let hooks = hooks::meant(input);
    let planned_hooks = hooks::planned(hooks, &scene)?;
    let hooks_differ = input.current.is_some_and(|current| current.hooks != *hooks);
    let new_records: Vec<_> =
        records.values().filter(|record| !input.records.contains_key(&record.id())).cloned().collect();
    let moves = environment::moves(input, &target);
    let widens = environment::widens(input, &target);
    if input.options.empty_backfill {
        backfill::declare(
            &mut models,
            records,
            backfilled.as_ref(),
            Interval::new(windows.begin(&times), end),
        );
    }
    let mut plan = Plan {
        id: PlanId(crate::id::Hash128(0)),
        purpose: input.purpose,
        environment: input.options.environment.clone(),
        base_seq,
        start,
        end,
        execution_time: times.execution,
        models,
        target,
        new_snapshots: new_records.iter().map(|record| record.id()).collect(),
        has_changes: differs || hooks_differ || input.current.is_none() || moves,
        widens,
        hooks: planned_hooks,
        empty_backfill: input.options.empty_backfill,
        skip_backfill: input.options.skip_backfill,
        restates: !input.options.restate_models.is_empty(),
        in_place: input.options.in_place && !input.options.restate_models.is_empty(),
        clears: restate::clears_of(input, records, &restatements),
        blockers,
        refused: restatements.refused,
        column_notes,
        auto_restated: restatements.due,
        unrestorable: revert::unrestorable(input, records),
        layout: layout(input, records.values()),
    };
    plan.id = identity(&plan);
    Ok(Planned { plan, new_records })
}

/// Proposed models, parents first.
fn proposed_order(input: &PlanInput<'_>) -> Result<Vec<ModelName>, PlanError> {
    let parents = input.proposed.iter().map(|(name, s)| (name, s.parents.iter().collect())).collect();
    topological(&parents).map_err(|cycle| {
        let names: Vec<_> = cycle.iter().map(|name| format!("`{name}`")).collect();
        PlanError::new(
            "cycle",
            format!("models read each other in a circle: {}", names.join(", ")),
            "remove one of the references",
        )
    })
}

impl Plan {
    /// Whether rows must be computed.
    pub fn requires_backfill(&self) -> bool {
        self.models.iter().any(|model| !model.missing.is_empty() || model.restatement.is_some())
    }

    /// Whether new or changed audits look at complete ranges before anything is computed.
    pub fn has_audits(&self) -> bool {
        self.models.iter().any(|model| !model.audits.is_empty())
    }

    /// Whether models are computed again although they were complete: because somebody asked for it,
    /// or, in a run, because they do so by themselves. Previews don't count: nobody sees their
    /// tables before.
    pub fn recomputes(&self) -> bool {
        let by_itself = self.purpose == Purpose::Run && self.models.iter().any(|m| m.restatement.is_some());
        self.restates || by_itself
    }

    /// Whether applying records what is missing without computing it.
    pub fn skips_computing(&self) -> bool {
        self.empty_backfill
    }

    /// The gateways that the plan's work runs on.
    pub fn gateways(&self) -> BTreeSet<String> {
        self.layout.gateways.clone()
    }

    /// Whether applying would do nothing at all. Where nothing is to be computed, ranges alone are no
    /// reason to: as SQLMesh, declaring them complete goes with a change.
    pub fn is_empty(&self) -> bool {
        let stays = !self.has_changes && !self.widens;
        let computes = self.requires_backfill() && !self.empty_backfill && !self.skip_backfill;
        stays && !computes && !self.models.iter().any(|model| model.create)
    }
}

fn identity(plan: &Plan) -> PlanId {
    let text = serde_json::to_vec(plan).unwrap_or_default();
    PlanId(Hasher::new("plan/v1").field("plan", text).finish())
}

fn layout<'a>(input: &PlanInput<'_>, records: impl Iterator<Item = &'a Arc<SnapshotRecord>>) -> Layout {
    let settings = input.settings;
    let default_gateway = settings.default_gateway.clone();
    let shown = input.current.into_iter().flat_map(|current| current.models.values());
    let gateways = records
        .filter(|record| !record.snapshot.model.kind.is_symbolic())
        .map(|record| record.snapshot.model.gateway.clone().unwrap_or_else(|| default_gateway.clone()))
        .chain([default_gateway.clone()])
        // Their views may have to go.
        .chain(shown.filter_map(|model| model.gateway.clone()))
        .collect();
    Layout {
        concurrent_tasks: settings.concurrent_tasks(),
        default_gateway,
        gateways,
        environment_ttl: environment::ttl(&input.options.environment, settings),
        snapshot_ttl: settings.snapshot_ttl.clone(),
    }
}

fn refuse_removed_but_read(proposed: &ByName, diff: &change::Diff) -> Result<(), PlanError> {
    let gone: BTreeSet<&ModelName> = diff
        .changes
        .iter()
        .filter(|(name, change)| **change == Change::Removed && !diff.external_before.contains(*name))
        .map(|(name, _)| name)
        .collect();
    for (name, snapshot) in proposed {
        if let Some(parent) = snapshot.foreign.iter().find(|parent| gone.contains(parent)) {
            return Err(PlanError::new(
                "removed-model-in-use",
                format!("`{parent}` was removed but `{name}` still reads it"),
                format!("change `{name}`, or keep `{parent}`"),
            ));
        }
    }
    Ok(())
}

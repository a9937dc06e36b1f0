//! What a user may ask of a plan, and the times that it implies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::categorize::is_forward_only;
use super::change::Diff;
use super::{PlanError, PlanInput, Purpose};
use crate::id::{EnvironmentName, ModelName};
use crate::interval::{IntervalUnit, Timestamp, parse_time};
use crate::project::Settings;
use crate::snapshot::Snapshot;

/// A user's own choice of what a change means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Rebuild the model and everything below it.
    Breaking,
    /// Rebuild the model alone.
    NonBreaking,
}

/// What a user may ask of a plan or a run. Times are as written: absolute, or relative to the
/// execution time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanOptions {
    /// The environment.
    pub environment: EnvironmentName,
    /// The first point to cover; development environments only.
    #[serde(default)]
    pub start: Option<String>,
    /// The last point to cover; a date is inclusive.
    #[serde(default)]
    pub end: Option<String>,
    /// The "now" of the plan; absent: the clock.
    #[serde(default)]
    pub execution_time: Option<String>,
    /// Where a new environment starts from; absent: production.
    #[serde(default)]
    pub create_from: Option<EnvironmentName>,
    /// Show models that didn't change in a development environment, too.
    #[serde(default)]
    pub include_unmodified: bool,
    /// Make tables and views only.
    #[serde(default)]
    pub skip_backfill: bool,
    /// Record everything as complete without computing it.
    #[serde(default)]
    pub empty_backfill: bool,
    /// Changes keep the physical table.
    #[serde(default)]
    pub forward_only: bool,
    /// From when on rows follow forward-only changes; needs `forward_only`, not in the future.
    #[serde(default)]
    pub effective_from: Option<String>,
    /// Whether development environments compute forward-only changes; absent: as the settings say.
    #[serde(default)]
    pub enable_preview: Option<bool>,
    /// Models whose tables may lose columns.
    #[serde(default)]
    pub allow_destructive: Vec<ModelName>,
    /// Models whose tables may get columns.
    #[serde(default)]
    pub allow_additive: Vec<ModelName>,
    /// Also compute what became due since production last ran.
    #[serde(default)]
    pub run: bool,
    /// Compute whole units up to the execution time, whether or not the cron has ticked.
    #[serde(default)]
    pub ignore_cron: bool,
    /// What changes mean, where the user says it.
    #[serde(default)]
    pub categorize: BTreeMap<ModelName, Choice>,
    /// Only these models are backfilled, and what they read; absent: all that need it.
    #[serde(default)]
    pub backfill_models: Option<BTreeSet<ModelName>>,
    /// These models are computed again over the plan's times, and everything below them. What is
    /// proposed must then be what the environment holds.
    #[serde(default)]
    pub restate_models: Vec<ModelName>,
    /// Restatements replace rows where they are, batch by batch, instead of all at once at the end.
    #[serde(default)]
    pub in_place: bool,
    /// With a restatement: plan changes in files as well.
    #[serde(default)]
    pub always_include_local_changes: bool,
    /// Every direct change must be categorised by the user.
    #[serde(default)]
    pub no_auto_categorization: bool,
    /// Consider at least so many ticks of each model, although the plan starts later.
    #[serde(default)]
    pub min_intervals: Option<u32>,
    /// Refuse to promote a table that lacks ranges which the one before it had.
    #[serde(default)]
    pub no_gaps: bool,
    /// In a run with selected models: leave out what they read.
    #[serde(default)]
    pub no_auto_upstream: bool,
    /// Models as the user picked them; [`propose`](super::propose) turns them into names.
    #[serde(default)]
    pub selectors: Selectors,
}

/// Selectors as written, by what they are for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Selectors {
    /// Models to take from the files; in a run, models to compute.
    #[serde(default)]
    pub select: Vec<String>,
    /// Models to backfill.
    #[serde(default)]
    pub backfill: Vec<String>,
    /// Models to compute again.
    #[serde(default)]
    pub restate: Vec<String>,
    /// Models whose table may lose columns.
    #[serde(default)]
    pub allow_destructive: Vec<String>,
    /// Models whose table may get columns.
    #[serde(default)]
    pub allow_additive: Vec<String>,
    /// For `git:`: files that differ from a branch, by branch.
    #[serde(default)]
    pub changed_files: BTreeMap<String, BTreeSet<String>>,
}

impl PlanOptions {
    /// These options, with what the project's settings say where they are silent.
    pub(super) fn with_defaults(&self, settings: &Settings) -> Self {
        let mut options = self.clone();
        options.forward_only |= settings.plan.forward_only;
        options.include_unmodified |= settings.plan.include_unmodified;
        options
    }

    /// Nothing but the environment.
    pub fn new(environment: EnvironmentName) -> Self {
        Self {
            environment,
            start: None,
            end: None,
            execution_time: None,
            create_from: None,
            include_unmodified: false,
            skip_backfill: false,
            empty_backfill: false,
            forward_only: false,
            effective_from: None,
            enable_preview: None,
            allow_destructive: Vec::new(),
            allow_additive: Vec::new(),
            run: false,
            ignore_cron: false,
            categorize: BTreeMap::new(),
            backfill_models: None,
            restate_models: Vec::new(),
            in_place: false,
            always_include_local_changes: false,
            no_auto_categorization: false,
            min_intervals: None,
            no_gaps: false,
            no_auto_upstream: false,
            selectors: Selectors::default(),
        }
    }
}

/// The times of a plan, as points.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// The asked start, or that of previews.
    pub(super) start: Option<Timestamp>,
    /// Where what a development environment covers starts, unless at the beginning.
    pub(super) covered_from: Option<Timestamp>,
    /// The asked end (exclusive), or the end of what production has.
    pub(super) end: Option<Timestamp>,
    /// The "now".
    pub(super) execution: Timestamp,
    /// From when on rows follow forward-only changes.
    pub(super) effective_from: Option<Timestamp>,
    /// Whether production's progress caps each model.
    pub(super) capped_by_prod: bool,
}

impl Times {
    /// The end, or now where there is none.
    pub(super) fn end_or_now(&self) -> Timestamp {
        self.end.unwrap_or(self.execution)
    }
}

/// Reads the options' times. `backfilled` are the models that will be computed, if not all.
pub(super) fn resolve_times(
    input: &PlanInput<'_>,
    diff: &Diff,
    backfilled: Option<&BTreeSet<ModelName>>,
) -> Result<Times, PlanError> {
    let options = input.options;
    let execution = match &options.execution_time {
        Some(text) => time("execution-time", text, input.now)?.at,
        None => input.now,
    };
    let whole_history = options.environment.is_prod() && options.restate_models.is_empty();
    if input.purpose == Purpose::Change && whole_history {
        for (flag, value) in [("start", &options.start), ("end", &options.end)] {
            if value.is_some() {
                return Err(PlanError::new(
                    "times-for-prod",
                    format!("--{flag} can't be given for production"),
                    "production always covers the whole history; plan a development environment, or leave the flag out",
                ));
            }
        }
    }
    let start = options.start.as_deref().map(|text| time("start", text, execution)).transpose()?;
    let end = options.end.as_deref().map(|text| time("end", text, execution)).transpose()?;
    let end_point = end.map(crate::interval::TimePoint::exclusive);
    if let (Some(start), Some(end)) = (start, end_point)
        && start.at >= end
    {
        return Err(PlanError::new(
            "times-turned-round",
            format!("the start {} is not before the end {}", start.at, end),
            "give a --start that is before --end",
        ));
    }
    if let Some(end) = end.filter(|end| end.at > execution) {
        return Err(PlanError::new(
            "end-in-future",
            format!("the end {} is after the execution time {execution}", end.at),
            "give an --end that is not after now, or a later --execution-time",
        ));
    }
    if let Some(start) = start.filter(|start| start.at > execution) {
        return Err(PlanError::new(
            "start-in-future",
            format!("the start {} is after the execution time {execution}", start.at),
            "give a --start in the past",
        ));
    }
    let unbounded = options.run
        || input.purpose == Purpose::Run
        || end_point.is_some()
        || options.execution_time.is_some();
    let end = end_point
        .or_else(|| if unbounded { None } else { prod_end(input, backfilled).map(|end| end.min(execution)) });
    let start = start.map(|point| point.at).or_else(|| preview_start(input, diff, backfilled, execution));
    let dev_run = input.purpose == Purpose::Run && !options.environment.is_prod();
    let covered_from = start.or_else(|| input.current.filter(|_| dev_run).map(|current| current.start));
    let effective_from = effective_from(input, execution)?;
    Ok(Times { start, covered_from, end, execution, effective_from, capped_by_prod: !unbounded })
}

fn effective_from(input: &PlanInput<'_>, execution: Timestamp) -> Result<Option<Timestamp>, PlanError> {
    let Some(text) = &input.options.effective_from else { return Ok(None) };
    if !input.options.forward_only {
        return Err(PlanError::new(
            "effective-from-alone",
            "--effective-from needs a forward-only plan",
            "give --forward-only, too; other changes always apply to the whole history",
        ));
    }
    let from = time("effective-from", text, execution)?.at;
    if from > input.now {
        return Err(PlanError::new(
            "effective-from-in-future",
            format!("--effective-from {from} is in the future"),
            "give a date that is not after now",
        ));
    }
    Ok(Some(from))
}

/// Where a development plan with forward-only changes starts unless it is told: such changes are
/// only previewed, over the last interval that production has.
fn preview_start(
    input: &PlanInput<'_>,
    diff: &Diff,
    backfilled: Option<&BTreeSet<ModelName>>,
    execution: Timestamp,
) -> Option<Timestamp> {
    let options = input.options;
    if options.environment.is_prod() || input.purpose == Purpose::Run {
        return None;
    }
    let touched = || input.proposed.values().filter(|snapshot| diff.touches(snapshot));
    let previews = super::backfill::has_previews(input)
        && touched().any(|snapshot| is_forward_only(&snapshot.model.kind));
    if !options.forward_only && !previews {
        return None;
    }
    let yesterday = IntervalUnit::Day.prev(IntervalUnit::Day.floor(execution));
    let end = if options.run { None } else { prod_end(input, backfilled) };
    let Some(end) = end else { return Some(yesterday) };
    let selected = |snapshot: &&Arc<Snapshot>| match &options.backfill_models {
        None => diff.touches(snapshot),
        Some(models) => models.contains(snapshot.name()),
    };
    let last = |snapshot: &Arc<Snapshot>| {
        let shown = input.prod.and_then(|prod| prod.models.get(snapshot.name()));
        let own = shown.and_then(|shown| super::backfill::done_end(input, shown));
        let unit = snapshot.interval_unit();
        unit.prev(unit.floor(own.unwrap_or_else(|| snapshot.cadence().floor(end))))
    };
    input.proposed.values().filter(selected).map(last).min().or(Some(yesterday))
}

fn time(flag: &str, text: &str, now: Timestamp) -> Result<crate::interval::TimePoint, PlanError> {
    parse_time(text, now).map_err(|error| {
        PlanError::new(
            "bad-time",
            format!("--{flag}: {error}"),
            "write a date (2024-01-31), a date and time (2024-01-31 12:00:00) or a relative time (1 week ago)",
        )
    })
}

/// The latest point that production has computed, over the models in question but seeds.
fn prod_end(input: &PlanInput<'_>, backfilled: Option<&BTreeSet<ModelName>>) -> Option<Timestamp> {
    let asked = |name: &ModelName| backfilled.is_none_or(|wanted| wanted.contains(name));
    let models = input.prod?.models.iter().filter(|(name, model)| model.kind != "SEED" && asked(name));
    models.filter_map(|(_, model)| super::backfill::done_end(input, model)).max()
}

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
    /// Show how definitions changed with their macros expanded.
    #[serde(default)]
    pub diff_rendered: bool,
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
            diff_rendered: false,
            no_auto_upstream: false,
            selectors: Selectors::default(),
        }
    }
}

/// The times of a plan, as points.
#[derive(Debug, Clone)]
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
    /// Starts of single models, so that at least so many intervals are considered as was asked.
    pub(super) starts: BTreeMap<ModelName, Timestamp>,
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
        return Err(turned_round(start.at, end));
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
    let usual_end = prod_end(input, backfilled).map(|end| end.min(execution));
    // A time that is given is the present, also beyond production's; without a measure (nothing but
    // seeds is meant) each model stays where production's table ends all the same.
    let later = options.execution_time.is_some() && usual_end.is_some_and(|end| execution > end);
    let unbounded = options.run || input.purpose == Purpose::Run || end_point.is_some() || later;
    let end = end_point.or(if unbounded { None } else { usual_end });
    let usual = usual_start(input, diff, backfilled);
    if let (None, Some(usual), Some(last)) = (start, usual, options.end.as_deref()) {
        refuse_short(input, diff, usual, time("end", last, execution)?.at)?;
    }
    let given = start.map(|point| point.at);
    let starts = match given.or(usual) {
        Some(start) => min_starts(input, diff, start, end.unwrap_or(execution), execution),
        None => BTreeMap::new(),
    };
    let start = given.or_else(|| preview_start(input, diff, usual, execution));
    if let (None, Some(start), Some(last)) = (given, start, options.end.as_deref()) {
        let end = time("end", last, execution)?.at;
        if start > end {
            return Err(turned_round(start, end));
        }
    }
    let dev_run = input.purpose == Purpose::Run && !options.environment.is_prod();
    // Without a start of its own the plan covers what it computes, which --min-intervals cuts short.
    let shortened = || starts.values().min().copied().filter(|_| !options.environment.is_prod());
    let covered_from =
        start.or_else(|| input.current.filter(|_| dev_run).map(|current| current.start)).or_else(shortened);
    let effective_from = effective_from(input, execution)?;
    Ok(Times { start, covered_from, end, execution, effective_from, capped_by_prod: !unbounded, starts })
}

fn turned_round(start: Timestamp, end: Timestamp) -> PlanError {
    PlanError::new(
        "times-turned-round",
        format!("the start {start} is not before the end {end}"),
        "give a --start that is before --end",
    )
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
/// only previewed, over the last interval that production has (`usual`). So are models that are
/// restated by themselves: what development computes of them never becomes production's.
fn preview_start(
    input: &PlanInput<'_>,
    diff: &Diff,
    usual: Option<Timestamp>,
    execution: Timestamp,
) -> Option<Timestamp> {
    let options = input.options;
    if options.environment.is_prod() || input.purpose == Purpose::Run {
        return None;
    }
    let touched = || input.proposed.values().filter(|snapshot| diff.touches(snapshot));
    let previews = super::backfill::has_previews(input)
        && touched().any(|snapshot| is_forward_only(&snapshot.model.kind));
    let by_itself = || touched().any(|snapshot| snapshot.model.kind.auto_restatement_cron().is_some());
    if !options.forward_only && !previews && !by_itself() {
        return None;
    }
    usual.or(Some(IntervalUnit::Day.prev(IntervalUnit::Day.floor(execution))))
}

/// The start of the last interval that production has, over the models in question: those asked for,
/// else those that differ, else all. Nothing where production has nothing, or isn't the measure.
fn usual_start(
    input: &PlanInput<'_>,
    diff: &Diff,
    backfilled: Option<&BTreeSet<ModelName>>,
) -> Option<Timestamp> {
    if input.options.run || input.purpose == Purpose::Run {
        return None;
    }
    let end = prod_end(input, backfilled)?;
    let shown = |name: &ModelName| input.prod.and_then(|prod| prod.models.get(name));
    let done = |name: &ModelName| shown(name).and_then(|shown| super::backfill::done_end(input, shown));
    let differing = |snapshot: &Snapshot| diff.touches(snapshot);
    let any_differs = input.proposed.values().any(|snapshot| differing(snapshot));
    let meant = |snapshot: &&Arc<Snapshot>| match &input.options.backfill_models {
        Some(models) if !models.is_empty() => models.contains(snapshot.name()),
        _ if any_differs => differing(snapshot),
        _ => done(snapshot.name()).is_some(),
    };
    let last = |snapshot: &Arc<Snapshot>| {
        let unit = snapshot.interval_unit();
        let end = done(snapshot.name()).unwrap_or_else(|| snapshot.cadence().floor(end));
        unit.prev(unit.floor(end))
    };
    input.proposed.values().filter(meant).map(last).min()
}

/// A model without a start of its own, or with a later one, has nothing before the end.
fn refuse_short(
    input: &PlanInput<'_>,
    diff: &Diff,
    usual: Timestamp,
    end: Timestamp,
) -> Result<(), PlanError> {
    if usual <= end {
        return Ok(());
    }
    let asked = input.options.backfill_models.as_ref();
    let shown = |name: &ModelName| input.prod.is_some_and(|prod| prod.models.contains_key(name));
    let meant = |snapshot: &&Arc<Snapshot>| {
        asked.is_some_and(|asked| asked.contains(snapshot.name()))
            || diff.touches(snapshot)
            || shown(snapshot.name())
    };
    let late = |snapshot: &&Arc<Snapshot>| {
        let start = snapshot.model.start.as_deref().and_then(|text| parse_time(text, input.now).ok());
        start.is_none_or(|start| start.at > end)
    };
    match input.proposed.values().filter(meant).find(late) {
        Some(snapshot) => Err(PlanError::new(
            "times-turned-round",
            format!("`{}` would start at {usual}, after the end {end}", snapshot.name()),
            "give a --start, or a start in the config's model_defaults",
        )),
        None => Ok(()),
    }
}

/// With `--min-intervals`: for each model to backfill the start so many ticks back, or earlier where
/// something below it starts earlier.
fn min_starts(
    input: &PlanInput<'_>,
    diff: &Diff,
    start: Timestamp,
    end: Timestamp,
    execution: Timestamp,
) -> BTreeMap<ModelName, Timestamp> {
    let options = input.options;
    let Some(ticks) = options.min_intervals.filter(|ticks| *ticks > 0) else { return BTreeMap::new() };
    let models: BTreeSet<ModelName> = match &options.backfill_models {
        Some(models) => models.clone(),
        None if options.environment.is_prod() || options.include_unmodified => BTreeSet::new(),
        None => {
            let touched = input.proposed.values().filter(|snapshot| diff.touches(snapshot));
            touched.map(|snapshot| snapshot.name().clone()).collect()
        }
    };
    let parents = input.proposed.iter().map(|(name, s)| (name, s.parents.iter().collect())).collect();
    let order = super::topological(&parents).unwrap_or_default();
    let mut starts: BTreeMap<ModelName, Timestamp> = BTreeMap::new();
    // Children first: a parent covers at least what they need.
    let mut below: BTreeMap<ModelName, Timestamp> = BTreeMap::new();
    for snapshot in order.iter().rev().filter(|name| models.contains(*name)).map(|name| &input.proposed[name])
    {
        let cadence = snapshot.cadence();
        let mut first = cadence.floor(last_point(input, snapshot, end, execution));
        for _ in 0..ticks {
            first = cadence.prev(first);
        }
        let own = below.get(snapshot.name()).copied().unwrap_or(start).min(first);
        for parent in snapshot.upstream() {
            below.entry(parent.clone()).and_modify(|known| *known = own.min(*known)).or_insert(own);
        }
        starts.insert(snapshot.name().clone(), own);
    }
    starts
}

/// From where ticks are counted back: where production's table ends, or the model itself.
fn last_point(input: &PlanInput<'_>, snapshot: &Snapshot, end: Timestamp, execution: Timestamp) -> Timestamp {
    let model_end = snapshot.model.end.as_deref().and_then(|text| parse_time(text, execution).ok());
    if let Some(over) = model_end.map(crate::interval::TimePoint::exclusive).filter(|over| *over < end) {
        return over;
    }
    let shown = input.prod.and_then(|prod| prod.models.get(snapshot.name()));
    let done = shown.filter(|_| !input.options.run).and_then(|shown| super::backfill::done_end(input, shown));
    match (done, &input.options.execution_time, &input.options.end) {
        (Some(done), Some(_), None) => done.max(execution),
        (Some(done), ..) => done,
        (None, ..) => end,
    }
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

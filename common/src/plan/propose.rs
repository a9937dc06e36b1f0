//! What a plan is about: which models are proposed for the environment, from the project's files or
//! from the state, and which of them the options mean.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::select::{Candidate, Candidates, Selector};
use super::{Environment, PlanError, PlanOptions, Purpose, Selectors};
use crate::diagnostic::Diagnostic;
use crate::id::{EnvironmentName, ModelName, SnapshotId};
use crate::project::{Project, suggest_model};
use crate::snapshot::{self, ByName, Snapshot, SnapshotRecord};

/// What is proposed, and the options with their selectors resolved.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The models that the environment should hold.
    pub proposed: ByName,
    /// The options, naming models.
    pub options: PlanOptions,
    /// What was found about the project on the way. With errors among them there is no use in
    /// planning.
    pub findings: Vec<Diagnostic>,
}

/// What the state knows.
pub struct Known<'a> {
    /// All environments, by name.
    pub environments: &'a [&'a Environment],
    /// All snapshots.
    pub records: &'a BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
}

impl Known<'_> {
    fn environment(&self, name: &EnvironmentName) -> Option<&Environment> {
        self.environments.iter().copied().find(|environment| environment.name == *name)
    }

    /// The snapshots of an environment.
    fn held(&self, environment: &Environment) -> ByName {
        let snapshot = |id: &SnapshotId| Some(self.records.get(id)?.snapshot.clone());
        let models = environment.models.iter();
        models.filter_map(|(name, model)| Some((name.clone(), snapshot(&model.snapshot)?))).collect()
    }
}

/// Finds what options mean: a run and a restatement take what the environment holds, a selection takes
/// the selected models from the files and all others from the environment, anything else takes the files.
///
/// # Errors
/// [`PlanError`] when there is no such environment, or a selector can't be understood or picks nothing.
pub fn propose(
    project: &Project,
    options: &PlanOptions,
    known: &Known<'_>,
    purpose: Purpose,
) -> Result<Proposal, PlanError> {
    let restates = !options.selectors.restate.is_empty() || !options.restate_models.is_empty();
    if purpose == Purpose::Run || (restates && !options.always_include_local_changes) {
        let Some(environment) = known.environment(&options.environment) else {
            return Err(PlanError::new(
                "unknown-environment",
                format!("there is no environment `{}`", options.environment),
                "`coordctl environments` lists those that exist; applying a plan makes one",
            ));
        };
        let held = known.held(environment);
        let options = resolve(options, &held, &held, purpose)?;
        return Ok(Proposal { proposed: held, options, findings: Vec::new() });
    }
    let (local, mut findings) = snapshot::build(project);
    let local = local.by_name;
    if findings.iter().any(Diagnostic::is_error) {
        return Ok(Proposal { proposed: local, options: options.clone(), findings });
    }
    if options.selectors.select.is_empty() {
        let options = resolve(options, &local, &local, purpose)?;
        return Ok(Proposal { proposed: local, options, findings });
    }
    let held = baseline(options, known).map(|environment| known.held(environment)).unwrap_or_default();
    let selected = selected(&options.selectors, &options.selectors.select, &local, &held, "select-model")?;
    let mut options = resolve(options, &local, &held, purpose)?;
    if options.backfill_models.is_none() {
        let here = selected.iter().filter(|name| local.contains_key(*name)).cloned().collect();
        options.backfill_models = Some(here);
    }
    let (mixed, more) = mix(project, &selected, &local, &held);
    findings = more;
    Ok(Proposal { proposed: mixed, options, findings })
}

/// The environment that unselected models are taken from.
fn baseline<'a>(options: &PlanOptions, known: &'a Known<'_>) -> Option<&'a Environment> {
    let fallback = options.create_from.clone().unwrap_or_else(EnvironmentName::prod);
    known.environment(&options.environment).or_else(|| known.environment(&fallback))
}

/// Selected models from the files, all others as the environment has them; what is selected and has no
/// file any more is gone, and what is new in the files and isn't selected doesn't come. Standalone audits
/// are always those of the files.
fn mix(
    project: &Project,
    selected: &BTreeSet<ModelName>,
    local: &ByName,
    held: &ByName,
) -> (ByName, Vec<Diagnostic>) {
    let kept: ByName = held
        .iter()
        .filter(|(name, snapshot)| !selected.contains(*name) && !snapshot.model.kind.is_audit())
        .map(|(name, snapshot)| (name.clone(), snapshot.clone()))
        .collect();
    let chosen =
        |snapshot: &&Arc<Snapshot>| selected.contains(snapshot.name()) || snapshot.model.kind.is_audit();
    let chosen = local.values().filter(chosen);
    let mut models: Vec<_> = kept.values().chain(chosen).map(|snapshot| (*snapshot.model).clone()).collect();
    models.sort_by(|a, b| a.name.cmp(&b.name));
    let (snapshots, findings) = snapshot::build_with(&Project { models, ..project.clone() }, &kept);
    (snapshots.by_name, findings)
}

/// Options with the models that their selectors pick: from the files, of restatements and runs from
/// what the environment holds.
fn resolve(
    options: &PlanOptions,
    local: &ByName,
    held: &ByName,
    purpose: Purpose,
) -> Result<PlanOptions, PlanError> {
    let selectors = &options.selectors;
    let mut resolved = options.clone();
    let pick = |texts: &[String], flag| selected(selectors, texts, local, &ByName::new(), flag);
    if purpose == Purpose::Run && !selectors.select.is_empty() {
        resolved.backfill_models = Some(pick(&selectors.select, "select-model")?);
    }
    if !selectors.backfill.is_empty() {
        resolved.backfill_models = Some(pick(&selectors.backfill, "backfill-model")?);
    }
    if !selectors.restate.is_empty() {
        let restated = selected(selectors, &selectors.restate, held, &ByName::new(), "restate-model")?;
        resolved.restate_models = restated.into_iter().collect();
        // A name that isn't there is told of, even beside others that are.
        for name in named(&selectors.restate).filter_map(|name| name.parse::<ModelName>().ok()) {
            if !held.contains_key(&name) && !resolved.restate_models.contains(&name) {
                resolved.restate_models.push(name);
            }
        }
    }
    for (texts, into, flag) in [
        (&selectors.allow_destructive, &mut resolved.allow_destructive, "allow-destructive-model"),
        (&selectors.allow_additive, &mut resolved.allow_additive, "allow-additive-model"),
    ] {
        for text in texts {
            into.extend(parse(text, flag)?.select(&candidates(selectors, local, &ByName::new())));
        }
    }
    if let Some(unknown) = options.categorize.keys().find(|name| !local.contains_key(*name)) {
        return Err(PlanError {
            code: "unknown-model",
            message: format!("there is no model `{unknown}`"),
            hint: Some(near(unknown.as_str(), local)),
        });
    }
    Ok(resolved)
}

/// The names that selectors state.
fn named(texts: &[String]) -> impl Iterator<Item = String> {
    let parsed = texts.iter().filter_map(|text| text.parse::<Selector>().ok());
    parsed.flat_map(|selector| selector.names().iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// The models that any of some selectors picks.
fn selected(
    selectors: &Selectors,
    texts: &[String],
    local: &ByName,
    held: &ByName,
    flag: &str,
) -> Result<BTreeSet<ModelName>, PlanError> {
    let from = candidates(selectors, local, held);
    let mut found = BTreeSet::new();
    for text in texts {
        found.extend(parse(text, flag)?.select(&from));
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let unknown = named(texts).find(|name| !name.parse().is_ok_and(|name| local.contains_key(&name)));
    Err(PlanError {
        code: "unknown-model",
        message: format!("--{flag} {} picks no model", texts.join(" ")),
        hint: Some(near(unknown.as_deref().unwrap_or_default(), local)),
    })
}

/// The models that any of some selectors picks, in a project's own models.
///
/// # Errors
/// [`PlanError`] when one can't be understood, or all of them pick nothing.
pub fn select_all(
    texts: &[String],
    models: &ByName,
    changed_files: &BTreeMap<String, BTreeSet<String>>,
) -> Result<BTreeSet<ModelName>, PlanError> {
    let selectors = Selectors { changed_files: changed_files.clone(), ..Selectors::default() };
    selected(&selectors, texts, models, &ByName::new(), "select-model")
}

fn parse(text: &str, flag: &str) -> Result<Selector, PlanError> {
    text.parse().map_err(|error| {
        PlanError::new(
            "bad-selector",
            format!("--{flag}: {error}"),
            "write a name, `mart.*`, `tag:daily` or `git:main`, with `+` before or after it for what is above or below",
        )
    })
}

fn near(unknown: &str, local: &ByName) -> String {
    let near = unknown.parse().ok().and_then(|name: ModelName| suggest_model(&name, local.keys()));
    near.map_or_else(
        || "`coordctl dag` lists the models".to_owned(),
        |near| format!("did you mean `{near}`?"),
    )
}

/// What can be chosen: models of the files, and those that only the environment has. What is above and
/// below follows the files.
fn candidates<'a>(selectors: &'a Selectors, local: &'a ByName, held: &'a ByName) -> Candidates<'a> {
    let mut found = Candidates::of(local);
    for (name, snapshot) in held.iter().filter(|(_, snapshot)| !snapshot.model.kind.is_audit()) {
        found.models.entry(name).or_insert_with(|| Candidate::alone(snapshot));
    }
    found.changed_files = Some(&selectors.changed_files);
    found
}

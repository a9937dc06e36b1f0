//! From files and the book to a plan, and from an environment to a run: one call of the pure core,
//! with its findings.

use std::collections::BTreeMap;
use std::sync::Arc;

use coord_common::diagnostic::Diagnostic;
use coord_common::id::{EnvironmentName, SnapshotId};
use coord_common::interval::Timestamp;
use coord_common::plan::{self, Environment, Hooks, PlanInput, PlanOptions, Planned, Purpose};
use coord_common::project::{self, Project, ProjectInput, Settings, SourceFile};
use coord_common::snapshot::{self, ByName, SnapshotRecord, Snapshots};
use serde::{Deserialize, Serialize};

use crate::control::Book;

/// What is to be planned.
pub(crate) struct PlanRequest {
    /// What was asked for.
    pub(crate) options: PlanOptions,
    /// The project's files.
    pub(crate) files: Vec<SourceFile>,
    /// Environment variables that its texts name.
    pub(crate) env: BTreeMap<String, String>,
    /// The gateway to use instead of the project's default.
    pub(crate) gateway: Option<String>,
    /// Plan what the environment holds.
    pub(crate) run: bool,
}

/// Why something was refused, for people and programs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refusal {
    /// A stable word.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Findings about the project, where they are why.
    #[serde(default)]
    pub findings: Vec<Diagnostic>,
}

impl Refusal {
    pub(crate) fn new(code: &str, message: impl Into<String>, hint: &str) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            hint: Some(hint.to_owned()),
            findings: Vec::new(),
        }
    }
}

impl From<plan::PlanError> for Refusal {
    fn from(error: plan::PlanError) -> Self {
        Self { code: error.code.to_owned(), message: error.message, hint: error.hint, findings: Vec::new() }
    }
}

/// A plan, what was found about the project, and the snapshots that it speaks of.
pub(crate) struct Answer {
    pub(crate) planned: Planned,
    pub(crate) findings: Vec<Diagnostic>,
    /// Records that the state holds of models that differ, for showing how.
    pub(crate) known: BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
}

/// Plans a request against what is known.
pub(crate) fn plan(request: &PlanRequest, book: &Book, now: Timestamp) -> Result<Answer, Refusal> {
    let input =
        ProjectInput { files: &request.files, env: &request.env, gateway: request.gateway.as_deref() };
    let (project, mut findings) = project::load(&input);
    let (proposed, purpose) = if request.run {
        (held(book, &request.options.environment)?, Purpose::Run)
    } else if !request.options.restate_models.is_empty() {
        // What is restated is what the environment shows; files don't count.
        (held(book, &request.options.environment)?, Purpose::Change)
    } else {
        (local(&project, &mut findings)?.by_name, Purpose::Change)
    };
    named_models_exist(&request.options, &proposed)?;
    let settings = &project.settings;
    let hooks = &Hooks::of(&project);
    let planned = plan_snapshots(&proposed, (settings, hooks), request, book, now, purpose)?;
    let changed = planned.plan.models.iter().filter(|model| model.before.is_some());
    let known = changed
        .flat_map(|model| [model.before, model.snapshot])
        .filter_map(|id| book.snapshots.get(&id?).map(|record| (record.id(), record.clone())))
        .collect();
    Ok(Answer { planned, findings, known })
}

/// Models that options name must be there: a misspelt one would select nothing, in silence.
fn named_models_exist(options: &PlanOptions, proposed: &ByName) -> Result<(), Refusal> {
    let named = options.backfill_models.iter().chain(options.categorize.keys());
    let Some(unknown) = named.into_iter().find(|name| !proposed.contains_key(*name)) else { return Ok(()) };
    let near = project::suggest_model(unknown, proposed.keys());
    let hint = near.map_or_else(
        || "`coordctl dag` lists the models".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    Err(Refusal::new("unknown-model", format!("there is no model `{unknown}`"), &hint))
}

/// The project's own snapshots, unless something in it is wrong.
fn local(project: &Project, findings: &mut Vec<Diagnostic>) -> Result<Snapshots, Refusal> {
    let (snapshots, more) = snapshot::build(project);
    findings.extend(more);
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    if errors == 0 {
        return Ok(snapshots);
    }
    Err(Refusal {
        code: "project-invalid".to_owned(),
        message: format!("the project has {errors} error{}", if errors == 1 { "" } else { "s" }),
        hint: Some("mend what is listed and plan again".to_owned()),
        findings: findings.clone(),
    })
}

/// What an environment holds.
fn held(book: &Book, environment: &EnvironmentName) -> Result<ByName, Refusal> {
    let Some((environment, _)) = book.environments.get(environment) else {
        return Err(Refusal::new(
            "unknown-environment",
            format!("there is no environment `{environment}`"),
            "apply a plan for it first; `coordctl environments` lists those that exist",
        ));
    };
    let snapshot = |model: &plan::EnvironmentModel| book.snapshots.get(&model.snapshot);
    Ok(environment
        .models
        .iter()
        .filter_map(|(name, model)| Some((name.clone(), snapshot(model)?.snapshot.clone())))
        .collect())
}

fn plan_snapshots(
    proposed: &ByName,
    (settings, hooks): (&Settings, &Hooks),
    request: &PlanRequest,
    book: &Book,
    now: Timestamp,
    purpose: Purpose,
) -> Result<Planned, Refusal> {
    let shown = |name: &EnvironmentName| -> Option<&Environment> {
        book.environments.get(name).map(|(environment, _)| &**environment)
    };
    let prod: EnvironmentName = EnvironmentName::prod();
    let environments: Vec<&Environment> = book.environments.values().map(|(shown, _)| &**shown).collect();
    let input = PlanInput {
        proposed,
        settings,
        current: shown(&request.options.environment),
        prod: shown(&prod),
        environments: &environments,
        records: &book.snapshots,
        tables: &book.tables,
        options: &request.options,
        now,
        purpose,
        hooks,
    };
    Ok(plan::plan(&input)?)
}

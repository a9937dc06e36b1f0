//! From files and the book to a plan, and from an environment to a run: one call of the pure core,
//! with its findings.

use std::collections::BTreeMap;
use std::sync::Arc;

use coord_common::diagnostic::Diagnostic;
use coord_common::id::{EnvironmentName, SnapshotId};
use coord_common::interval::Timestamp;
use coord_common::plan::{
    self, Environment, Hooks, Known, PlanInput, PlanOptions, Planned, Proposal, Purpose,
};
use coord_common::project::{self, ProjectInput, SourceFile};
use coord_common::snapshot::SnapshotRecord;
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
    /// Where intervals are only checked: ask no signals.
    pub(crate) no_signals: bool,
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
    /// Whether changes are shown with their macros expanded.
    pub(crate) diff_rendered: bool,
    /// Records that the state holds of models that differ, for showing how.
    pub(crate) known: BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
}

/// Plans a request against what is known.
pub(crate) fn plan(request: &PlanRequest, book: &Book, now: Timestamp) -> Result<Answer, Refusal> {
    let input =
        ProjectInput { files: &request.files, env: &request.env, gateway: request.gateway.as_deref() };
    let (project, mut findings) = project::load(&input);
    // The config of a run is read without the models: what those lack doesn't matter.
    let purpose = if request.run { Purpose::Run } else { Purpose::Change };
    let environments: Vec<&Environment> =
        book.environments.keys().filter_map(|name| book.live(name, now)).map(|shown| &**shown).collect();
    let known = Known { environments: &environments, records: &book.snapshots };
    let Proposal { proposed, options, findings: more } =
        plan::propose(&project, &request.options, &known, purpose)?;
    findings.extend(more);
    if !request.run {
        refuse_mistakes(&findings)?;
    }
    let shown = |name: &EnvironmentName| environments.iter().copied().find(|shown| shown.name == *name);
    let planned = plan::plan(&PlanInput {
        proposed: &proposed,
        settings: &project.settings,
        current: shown(&options.environment),
        prod: shown(&EnvironmentName::prod()),
        environments: &environments,
        records: &book.snapshots,
        tables: &book.tables,
        options: &options,
        now,
        purpose,
        hooks: &Hooks::of(&project),
    })?;
    let changed = planned.plan.models.iter().filter(|model| model.before.is_some());
    let known = changed
        .flat_map(|model| [model.before, model.snapshot])
        .filter_map(|id| book.snapshots.get(&id?).map(|record| (record.id(), record.clone())))
        .collect();
    Ok(Answer { planned, findings, diff_rendered: request.options.diff_rendered, known })
}

/// A project with errors isn't planned.
fn refuse_mistakes(findings: &[Diagnostic]) -> Result<(), Refusal> {
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    if errors == 0 {
        return Ok(());
    }
    Err(Refusal {
        code: "project-invalid".to_owned(),
        message: format!("the project has {errors} error{}", if errors == 1 { "" } else { "s" }),
        hint: Some("mend what is listed and plan again".to_owned()),
        findings: findings.to_vec(),
    })
}

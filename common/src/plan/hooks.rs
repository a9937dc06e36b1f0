//! Statements that a project runs around plans and runs: `before_all`, `after_all`.
//!
//! They are versioned with the environment: a run takes those that the last plan brought.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{EnvironmentModel, PlanError, PlanInput, Purpose};
use crate::id::{EnvironmentName, ModelName};
use crate::interval::Timestamp;
use crate::project::Project;
use crate::project::model::{Code, Language};
use crate::project::render::{RenderContext, RenderEnv, Stage, TimeVars, macro_use, render_statement};
use crate::sql::Dialect;
use crate::task::Relation;

/// A project's statements around plans and runs, as its configuration states them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// Before anything else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before_all: Vec<Code>,
    /// After everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after_all: Vec<Code>,
    /// Their dialect.
    pub dialect: Dialect,
    /// What their macros may see.
    pub env: RenderEnv,
}

/// A plan's statements.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PlannedHooks {
    /// As they are written, for the environment to keep.
    pub source: Hooks,
    /// Before anything else, rendered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before_all: Vec<String>,
    /// After everything, rendered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after_all: Vec<String>,
}

impl Hooks {
    /// The statements of a project.
    pub fn of(project: &Project) -> Self {
        let settings = &project.settings;
        let codes = |texts: &[String]| texts.iter().map(|text| code(text)).collect::<Vec<_>>();
        let (before_all, after_all) = (codes(&settings.before_all), codes(&settings.after_all));
        let all = || before_all.iter().chain(&after_all);
        if all().next().is_none() {
            return Self::default();
        }
        let used: BTreeSet<String> = all().flat_map(|code| macro_use(code).variables).collect();
        let jinja = all().any(|code| code.language == Language::Jinja);
        let mut variables = settings.variables_of(None);
        // A Jinja macro of the project may name any variable.
        variables.retain(|name, _| jinja || used.contains(name));
        let env = RenderEnv {
            variables,
            jinja_macros: if jinja { project.jinja_macros.clone() } else { BTreeMap::new() },
            gateway: settings.default_gateway.clone(),
            default_catalog: settings.default_catalog(None),
            schemas: BTreeMap::new(),
        };
        Self { before_all, after_all, dialect: settings.model_defaults.dialect, env }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.before_all.is_empty() && self.after_all.is_empty()
    }
}

impl PlannedHooks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
    }
}

fn code(text: &str) -> Code {
    let text = text.trim().trim_end_matches(';').trim_end().to_owned();
    let jinja = text.contains("{{") || text.contains("{%");
    Code { text, language: if jinja { Language::Jinja } else { Language::Sql }, line: 1 }
}

/// What the statements' macros see of their plan.
pub(super) struct Scene<'a> {
    pub(super) environment: &'a EnvironmentName,
    pub(super) target: &'a BTreeMap<ModelName, EnvironmentModel>,
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    pub(super) execution: Timestamp,
}

/// The statements that a plan runs: those of the files; or, where files don't count, those that the
/// environment has.
pub(super) fn meant<'a>(input: &PlanInput<'a>) -> &'a Hooks {
    match (input.purpose, input.current) {
        (Purpose::Run, Some(current)) => &current.hooks,
        (_, Some(current)) if !input.options.restate_models.is_empty() => &current.hooks,
        _ => input.hooks,
    }
}

/// Renders a plan's statements.
///
/// # Errors
/// [`PlanError`] naming the statement that can't be rendered.
pub(super) fn planned(source: &Hooks, scene: &Scene<'_>) -> Result<PlannedHooks, PlanError> {
    if source.is_empty() {
        return Ok(PlannedHooks::default());
    }
    let render = |name: &str, codes: &[Code], stage| rendered(source, name, codes, stage, scene);
    Ok(PlannedHooks {
        before_all: render("before_all", &source.before_all, Stage::BeforeAll)?,
        after_all: render("after_all", &source.after_all, Stage::AfterAll)?,
        source: source.clone(),
    })
}

fn rendered(
    source: &Hooks,
    name: &str,
    codes: &[Code],
    stage: Stage,
    scene: &Scene<'_>,
) -> Result<Vec<String>, PlanError> {
    let shown: Vec<&Relation> = scene.target.values().filter_map(|model| model.view.as_ref()).collect();
    let quote = |part: &String| source.dialect.quote(part);
    let path = |parts: Vec<&String>| parts.into_iter().map(quote).collect::<Vec<_>>().join(".");
    let schema = |view: &&Relation| path(view.catalog.iter().chain([&view.schema]).collect());
    let view = |view: &&Relation| path(view.catalog.iter().chain([&view.schema, &view.table]).collect());
    let schemas: BTreeSet<String> = shown.iter().map(schema).collect();
    let schemas: Vec<String> = schemas.into_iter().collect();
    let views: Vec<String> = shown.iter().map(view).collect();
    let time = TimeVars::Batch { start: scene.start, end: scene.end, execution: scene.execution };
    let context = RenderContext {
        this_env: Some(scene.environment.as_str()),
        schemas: &schemas,
        views: &views,
        ..RenderContext::new(&source.env, source.dialect, time, stage)
    };
    let mut statements = Vec::new();
    for (number, code) in codes.iter().enumerate() {
        let texts = render_statement(code, &context).map_err(|error| PlanError {
            code: "bad-statement",
            message: format!("statement {} of `{name}` can't be rendered: {}", number + 1, error.message),
            hint: error.hint,
        })?;
        statements.extend(texts.into_iter().filter(|text| !text.trim().is_empty()));
    }
    Ok(statements)
}

//! Expanding a model's macros for one point of use: `@` macros, macro variables, Jinja.
//!
//! The user's text stays the user's: only macro spans are replaced, nothing is reformatted.

mod audit;
pub(crate) mod jinja;
pub(crate) mod python;
mod signal;
pub(crate) mod time;
mod usage;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::ModelName;
use crate::interval::Timestamp;
use crate::project::macros::{Expander, lex};
use crate::project::model::{Code, ColumnDef, Language};
use crate::sql::Dialect;

pub use audit::render_audit;
pub use signal::render_signal;
pub use usage::{MacroUse, macro_use};

/// The column that `@STAR` and `@UNION` give while a project loads where a relation's columns aren't
/// known; a batch can't be computed so. The name is SQLMesh's.
pub const UNAVAILABLE_COLUMN: &str = "__schema_unavailable_at_load__";

/// What a model's macros may see besides time: part of its snapshot, so a worker needs no project.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RenderEnv {
    /// Variables of the project and the gateway (the gateway's win), by lower-case name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, Value>,
    /// Sources of the project's Jinja macro files, by path.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub jinja_macros: BTreeMap<String, String>,
    /// The gateway's name.
    pub gateway: String,
    /// The catalog that names without one belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_catalog: Option<String>,
    /// Columns of the models that the macros `@STAR` and `@UNION` ask for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub schemas: BTreeMap<ModelName, Vec<ColumnDef>>,
}

/// A variable's value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// No value.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Map(BTreeMap<String, Value>),
}

/// For which stage of a model's life a text is rendered: the value of `@runtime_stage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading the project.
    Loading,
    /// Creating the table.
    Creating,
    /// Computing a batch.
    Evaluating,
    /// Switching a view.
    Promoting,
    /// Dropping a view.
    Demoting,
    /// Checking a batch.
    Auditing,
    /// Running a unit test.
    Testing,
    /// Before anything of a plan or run.
    BeforeAll,
    /// After everything of a plan or run.
    AfterAll,
}

impl Stage {
    /// The name as SQLMesh writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Creating => "creating",
            Self::Evaluating => "evaluating",
            Self::Promoting => "promoting",
            Self::Demoting => "demoting",
            Self::Auditing => "auditing",
            Self::Testing => "testing",
            Self::BeforeAll => "before_all",
            Self::AfterAll => "after_all",
        }
    }
}

/// What the time variables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeVars {
    /// A batch `[start, end)` computed at an execution time: `end` variables show one microsecond
    /// before the end (one nanosecond in T-SQL).
    Batch {
        /// The first point inside.
        start: Timestamp,
        /// The first point after.
        end: Timestamp,
        /// The plan's or run's "now".
        execution: Timestamp,
    },
    /// Only an execution time: start and end variables are undefined, as in FULL and VIEW.
    ExecutionOnly {
        /// The plan's or run's "now".
        execution: Timestamp,
    },
    /// Time variables stay in the text as `@start_ds` and so on, for proofs about read ranges; a
    /// macro that would have to look at their value fails.
    Symbolic,
}

/// A point of use: everything that macros may see there.
#[derive(Debug, Clone)]
pub struct RenderContext<'a> {
    /// What the snapshot carries for macros.
    pub env: &'a RenderEnv,
    /// Values of the model's blueprint, by lower-case name, as SQL text.
    pub blueprint: &'a BTreeMap<String, String>,
    /// The dialect of the text.
    pub dialect: Dialect,
    /// What time variables are.
    pub time: TimeVars,
    /// The value of `@runtime_stage`.
    pub stage: Stage,
    /// The value of `@this_model`, as SQL text: a quoted name, or in audits a subquery.
    pub this_model: Option<&'a str>,
    /// The value of `@model_kind_name`; empty where there is no model.
    pub model_kind_name: &'a str,
    /// Values that win over variables, such as an audit's arguments: by lower-case name, as SQL
    /// text.
    pub locals: &'a BTreeMap<String, String>,
    /// The model's pre-statements: those that are `@DEF(…)` define for every text of the model.
    pub definitions: &'a [Code],
    /// The value of `@this_env`, where statements run for an environment.
    pub this_env: Option<&'a str>,
    /// The value of `@schemas`, there.
    pub schemas: &'a [String],
    /// The value of `@views`, there.
    pub views: &'a [String],
}

static NOTHING: BTreeMap<String, String> = BTreeMap::new();

impl<'a> RenderContext<'a> {
    /// A point of use outside any model; fields are public, so that callers add what they have.
    pub fn new(env: &'a RenderEnv, dialect: Dialect, time: TimeVars, stage: Stage) -> Self {
        Self {
            env,
            blueprint: &NOTHING,
            dialect,
            time,
            stage,
            this_model: None,
            model_kind_name: "",
            locals: &NOTHING,
            definitions: &[],
            this_env: None,
            schemas: &[],
            views: &[],
        }
    }
}

/// Why a text can't be rendered, and where in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderError {
    /// The line in the model's file, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// A stable word for programs (`undefined-variable`).
    pub code: &'static str,
    /// What is wrong, as one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl RenderError {
    pub(crate) fn at(
        source: &str,
        first_line: u32,
        offset: usize,
        code: &'static str,
        message: String,
        hint: Option<String>,
    ) -> Self {
        let before = source.get(..offset.min(source.len())).unwrap_or("");
        let line = first_line + before.bytes().filter(|b| *b == b'\n').count() as u32;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() as u32 + 1;
        Self { line, column, code, message, hint }
    }
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for RenderError {}

/// Expands a query's macros.
///
/// # Errors
/// What macros name or ask that isn't there or can't be computed, with its place in the file.
pub fn render(code: &Code, context: &RenderContext<'_>) -> Result<String, RenderError> {
    if code.language == Language::Sql && !code.text.contains('@') {
        return Ok(code.text.clone());
    }
    let text = source(code, context)?;
    let mut expander = Expander::new(context, &text, code.line);
    expander.define_all(context.definitions)?;
    expander.expand(&text)
}

/// The text in which `@` macros are left to expand.
fn source<'c>(code: &'c Code, context: &RenderContext<'_>) -> Result<Cow<'c, str>, RenderError> {
    Ok(match code.language {
        Language::Sql => Cow::Borrowed(code.text.as_str()),
        Language::Jinja => Cow::Owned(jinja::render(code, context)?),
    })
}

/// Expands a statement's macros; what vanishes is no statement, and a macro or Jinja may give
/// several.
///
/// # Errors
/// As [`render`].
pub fn render_statement(code: &Code, context: &RenderContext<'_>) -> Result<Vec<String>, RenderError> {
    let text = source(code, context)?;
    let mut expander = Expander::new(context, &text, code.line);
    expander.define_all(context.definitions)?;
    expander.statements(&text)
}

/// The model name of a relation as written in a dialect: its parts normalised, and the default
/// catalog left out. Nothing where the text is no name of one to three parts.
pub(crate) fn relation_name(
    text: &str,
    dialect: Dialect,
    default_catalog: Option<&str>,
) -> Option<ModelName> {
    let parts = lex::name_parts(text, dialect)?;
    let names: Vec<String> = parts.iter().map(|(name, quoted)| dialect.normalize(name, *quoted)).collect();
    let names = match names.as_slice() {
        [catalog, rest @ ..]
            if rest.len() == 2 && default_catalog.is_some_and(|d| d.eq_ignore_ascii_case(catalog)) =>
        {
            rest
        }
        all => all,
    };
    names.join(".").parse().ok()
}

#[cfg(test)]
mod tests;

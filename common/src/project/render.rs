//! Expanding a model's macros for one point of use: `@` macros, macro variables, Jinja.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::ModelName;
use crate::interval::Timestamp;
use crate::project::model::ColumnDef;

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

//! A SQLMesh project: its files become settings, models, audits and macros, with findings.

mod audit_file;
pub mod audits_builtin;
mod context;
mod cron;
mod csv_text;
mod ddl;
mod descriptions;
mod external;
mod fields;
pub(crate) mod glob;
mod kind;
mod load;
mod macros;
pub mod model;
mod model_file;
mod plain;
mod properties;
pub mod render;
pub mod seed;
pub mod settings;
mod signal_file;
mod standalone_audit;
pub(crate) mod suggest;
mod text_file;
mod time_format;
mod timeout;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diagnostic::Location;

pub use audit_file::{BUILTIN_AUDITS, is_builtin};
pub use load::{load, load_settings};
pub use model::Model;
pub use seed::seed_path;
pub use settings::Settings;
pub use timeout::{BATCH_TIMEOUT, read_timeout};

/// One file of a project, as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The path relative to the project's folder, with `/` between parts.
    pub path: Arc<str>,
    /// The whole text.
    pub text: Arc<str>,
}

/// What a project is loaded from.
#[derive(Debug, Clone, Copy)]
pub struct ProjectInput<'a> {
    /// All files of the project's folder that matter, in any order; a `.env` may be among them.
    pub files: &'a [SourceFile],
    /// The environment variables.
    pub env: &'a BTreeMap<String, String>,
    /// The gateway asked for on the command line.
    pub gateway: Option<&'a str>,
}

/// A project: all that its files say.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Its settings.
    pub settings: Settings,
    /// All models, external ones, seeds and standalone audits among them, sorted by name; names are
    /// unique.
    pub models: Vec<Model>,
    /// Audits of the project's `audits/`, standalone ones among them, by lower-case name.
    pub audits: BTreeMap<String, model::Audit>,
    /// Sources of the Jinja macros, by path.
    pub jinja_macros: BTreeMap<String, String>,
    /// Python that was left out; there is a finding for each.
    pub unsupported_python: Vec<UnsupportedPython>,
}

/// A Python file that takes part in a project but can't be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedPython {
    /// Where it defines something.
    pub location: Location,
    /// What it defines, for messages: "a model", "macros".
    pub what: &'static str,
}

#[cfg(test)]
mod tests;

/// The model whose name is nearest to a misspelt one, if one is near enough to be meant.
pub fn suggest_model<'a>(
    name: &crate::id::ModelName,
    names: impl Iterator<Item = &'a crate::id::ModelName>,
) -> Option<String> {
    let all: Vec<&str> = names.map(crate::id::ModelName::as_str).collect();
    suggest::nearest(name.as_str(), &all).map(str::to_owned)
}

//! A SQLMesh project: its files become settings, models, audits and macros, with findings.

pub mod audits_builtin;
mod macros;
pub mod model;
pub mod render;

use std::sync::Arc;

pub use model::Model;

/// One file of a project, as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The path relative to the project's folder, with `/` between parts.
    pub path: Arc<str>,
    /// The whole text.
    pub text: Arc<str>,
}

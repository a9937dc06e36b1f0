//! What a command failed with, and how that is told.

use coord_common::diagnostic::Diagnostic;
use coord_common::id::EnvironmentName;
use coord_common::plan::PlanError;
use coord_proto::net::Unreachable;
use coordinator::Refusal;
use serde_json::json;
use std::error::Error as _;

use crate::output::count;

/// Whose fault it is: the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The project or the plan failed: 1.
    User,
    /// We failed: 2.
    Ours,
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) fault: Fault,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) findings: Vec<Diagnostic>,
}

/// The result of a command.
pub(crate) type CliResult<T = ()> = Result<T, CliError>;

impl CliError {
    /// Something that the user can mend.
    pub(crate) fn user(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            fault: Fault::User,
            code: code.to_owned(),
            message: message.into(),
            hint: Some(hint.into()),
            findings: Vec::new(),
        }
    }

    /// Something that is wrong with us or what we stand on.
    pub(crate) fn ours(code: &str, message: impl Into<String>) -> Self {
        Self {
            fault: Fault::Ours,
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            findings: Vec::new(),
        }
    }

    /// An environment that nobody made.
    pub(crate) fn unknown_environment(name: &EnvironmentName) -> Self {
        let message = format!("there is no environment `{name}`");
        let hint = "`coordctl environments` lists those that exist; applying a plan makes one";
        Self::user("unknown-environment", message, hint)
    }

    /// A project with mistakes.
    pub(crate) fn project(findings: Vec<Diagnostic>) -> Self {
        let errors = findings.iter().filter(|finding| finding.is_error()).count();
        let message = format!("the project has {}", count(errors, "error"));
        Self { findings, ..Self::user("project-invalid", message, "mend what is listed and try again") }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self.fault {
            Fault::User => 1,
            Fault::Ours => 2,
        }
    }

    /// The error's document for programs.
    pub(crate) fn document(&self) -> serde_json::Value {
        let at =
            self.findings.iter().find(|finding| finding.is_error()).map(|finding| finding.at.to_string());
        let mut error = json!({ "code": self.code, "message": self.full_message(), "at": at });
        if let Some(hint) = &self.hint {
            error["hint"] = json!(hint);
        }
        if !self.findings.is_empty() {
            error["findings"] = json!(self.findings);
        }
        json!({ "error": error })
    }

    /// The message, with the first finding where that is what failed.
    fn full_message(&self) -> String {
        match self.findings.iter().find(|finding| finding.is_error()) {
            Some(first) => format!("{}: {}", self.message, first.message),
            None => self.message.clone(),
        }
    }
}

impl From<tonic::Status> for CliError {
    fn from(status: tonic::Status) -> Self {
        if let Ok(refusal) = serde_json::from_slice::<Refusal>(status.details()) {
            return Self {
                fault: Fault::User,
                code: refusal.code,
                message: refusal.message,
                hint: refusal.hint,
                findings: refusal.findings,
            };
        }
        match status.code() {
            tonic::Code::InvalidArgument => {
                Self::user("invalid-argument", status.message(), "check the command's arguments")
            }
            // A status with a cause is no answer of a coordinator: the connection failed.
            code if code == tonic::Code::Unavailable || status.source().is_some() => Self {
                hint: Some(remedy(&status).to_owned()),
                ..Self::ours(
                    "coordinator-unavailable",
                    format!("the coordinator is not to be had: {}", causes(&status)),
                )
            },
            code => Self::ours("coordinator-failed", format!("{code:?}: {}", status.message())),
        }
    }
}

/// What to do where no coordinator answers.
fn remedy(status: &tonic::Status) -> &'static str {
    match Unreachable::of(status).and_then(|nobody| nobody.trouble.as_ref()) {
        Some(trouble) => trouble.remedy(),
        None => {
            "check that a coordinator runs and that --server names it, or leave --server out to work embedded"
        }
    }
}

/// What failed below a call, to the first cause: a certificate that was refused is far down.
fn causes(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    // It only says what kind of a status this is.
    let mut cause = status.source().filter(|_| Unreachable::of(status).is_none());
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}

impl From<PlanError> for CliError {
    fn from(error: PlanError) -> Self {
        Self::user(error.code, error.message, error.hint.unwrap_or_default())
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::ours("io", error.to_string())
    }
}

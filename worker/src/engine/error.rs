//! What went wrong in a warehouse, and whether trying again can help.

use std::fmt;

use super::AuditResult;

/// What to do about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// The same attempt may succeed later.
    Transient,
    /// Something ran out: a smaller attempt may succeed.
    Resource,
    /// The same attempt fails again.
    Permanent,
    /// A greater token holds the slot: drop the work.
    Stale,
    /// The caller cancelled it.
    Cancelled,
    /// Blocking audits found bad rows; all results are here.
    AuditFailed(Vec<AuditResult>),
}

/// An error of a warehouse. It never holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct EngineError {
    /// What to do about it.
    pub class: Class,
    /// The SQLSTATE, where the warehouse gives one, or a word of ours such as
    /// [`DRIVER_MISSING`](super::DRIVER_MISSING).
    pub code: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it, in words.
    pub hint: Option<String>,
}

/// How long a SQLSTATE is.
const SQLSTATE: usize = 5;

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.code {
            Some(code) if code.len() == SQLSTATE => write!(f, " ({code})"),
            Some(_) | None => Ok(()),
        }
    }
}

impl EngineError {
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, code: None, message: message.into(), hint: None }
    }

    pub(crate) fn permanent(message: impl Into<String>) -> Self {
        Self::new(Class::Permanent, message)
    }

    pub(crate) fn transient(message: impl Into<String>) -> Self {
        Self::new(Class::Transient, message)
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(Class::Cancelled, "cancelled")
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Whether it is a race that a second try in this process wins.
    pub(crate) fn is_race(&self) -> bool {
        let races = ["40001", "40P01", "42P06", "42P07", "42710", "XX000"];
        self.class == Class::Transient && self.code.as_deref().is_some_and(|code| races.contains(&code))
    }

    /// Whether the connection broke, so that the fate of the last statement is unknown.
    pub(crate) fn connection_lost(&self) -> bool {
        self.code.as_deref().is_some_and(|code| code.starts_with("08") || code.starts_with("57P0"))
    }

    /// Whether the statement's relation or schema doesn't exist.
    pub(crate) fn missing_relation(&self) -> bool {
        matches!(self.code.as_deref(), Some("42P01" | "3F000" | "3D000"))
    }

    /// Whether the statement names a relation or column that isn't (any more) as it was.
    pub(crate) fn names_something_wrong(&self) -> bool {
        self.missing_relation() || self.code.as_deref().is_some_and(|code| code.starts_with("42"))
    }

    /// Whether a view's columns can't be changed in place.
    pub(crate) fn view_columns_differ(&self) -> bool {
        self.code.as_deref() == Some("42P16")
    }
}

/// Classes of SQLSTATEs, PostgreSQL's in particular.
pub(crate) fn class_of_sqlstate(code: &str) -> Class {
    match code {
        "57014" => Class::Cancelled,
        // Races between two who create the same thing end well at the second try.
        "42P06" | "42P07" | "42710" | "XX000" | "55P03" | "55006" | "40001" | "40P01" | "25P03" => {
            Class::Transient
        }
        "53100" | "53200" | "54000" => Class::Resource,
        "3D000" | "3F000" => Class::Permanent,
        _ => match code.get(..2) {
            Some("08" | "53" | "57" | "40") => Class::Transient,
            Some("0A" | "21" | "22" | "23" | "25" | "26" | "28" | "2B" | "42" | "44" | "54" | "P0") => {
                Class::Permanent
            }
            _ => Class::Transient,
        },
    }
}

/// DuckDB gives no SQLSTATE: its messages begin with the kind of error. Where one corresponds, the
/// SQLSTATE is filled in, so that callers need not read messages.
pub(crate) fn of_duckdb_message(message: &str) -> EngineError {
    let message = message.trim();
    let has = |part: &str| message.contains(part);
    let error = |class, code: &str| {
        let code = (!code.is_empty()).then(|| code.to_owned());
        EngineError { class, code, message: message.to_owned(), hint: None }
    };
    if has("INTERRUPT") || has("Interrupted") {
        return error(Class::Cancelled, "57014");
    }
    if has("Could not set lock on file") {
        let holder =
            message.split("Conflicting lock is held in ").nth(1).and_then(|rest| rest.split(". ").next());
        let hint = match holder {
            Some(holder) => format!("close the process that has it open: {holder}"),
            None => "close the other process that has it open".to_owned(),
        };
        return error(Class::Permanent, "55006").hint(hint);
    }
    // A duplicate key that shows only at the commit was another's, written meanwhile.
    let raced = has("Failed to commit") && has("duplicate key");
    if raced || has("Conflict on") || has("Transaction conflict") || has("write-write conflict") {
        return error(Class::Transient, "40001");
    }
    if has("Out of Memory Error") {
        return error(Class::Resource, "53200").hint("lower the batch size or raise DuckDB's memory_limit");
    }
    if has("No space left") || has("no space left") {
        return error(Class::Resource, "53100");
    }
    if has("Catalog Error") && has("does not exist") {
        return error(Class::Permanent, if has("Scalar Function") { "42883" } else { "42P01" });
    }
    const PERMANENT: [(&str, &str); 11] = [
        ("Catalog Error", ""),
        ("Binder Error", "42000"),
        ("Parser Error", "42601"),
        ("syntax error", "42601"),
        ("Conversion Error", "22000"),
        ("Constraint Error", "23000"),
        ("Out of Range Error", "22003"),
        ("Invalid Input Error", "22000"),
        ("Not implemented Error", "0A000"),
        ("Dependency Error", "2BP01"),
        ("Permission Error", "42501"),
    ];
    if let Some((_, code)) = PERMANENT.iter().find(|(kind, _)| has(kind)) {
        return error(Class::Permanent, code);
    }
    error(if has("IO Error") { Class::Resource } else { Class::Transient }, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_have_the_documented_classes() {
        for (code, class) in [
            ("08006", Class::Transient),
            ("40001", Class::Transient),
            ("40P01", Class::Transient),
            ("55P03", Class::Transient),
            ("57P01", Class::Transient),
            ("53300", Class::Transient),
            ("53100", Class::Resource),
            ("53200", Class::Resource),
            ("22012", Class::Permanent),
            ("23505", Class::Permanent),
            ("42703", Class::Permanent),
            ("28P01", Class::Permanent),
            ("57014", Class::Cancelled),
        ] {
            assert_eq!(class_of_sqlstate(code), class, "{code}");
        }
    }

    #[test]
    fn duckdb_messages_have_the_documented_classes() {
        for (message, class) in [
            ("TransactionContext Error: Conflict on update!", Class::Transient),
            ("Transaction conflict: cannot update a table that has been altered", Class::Transient),
            ("Catalog Error: Table with name x does not exist!", Class::Permanent),
            ("Binder Error: Referenced column \"x\" not found", Class::Permanent),
            ("Parser Error: syntax error at or near", Class::Permanent),
            ("Conversion Error: Could not convert string 'x' to INT32", Class::Permanent),
            ("Constraint Error: NOT NULL constraint failed", Class::Permanent),
            ("IO Error: No space left on device", Class::Resource),
            ("Out of Memory Error: could not allocate", Class::Resource),
            ("INTERRUPT Error: Interrupted!", Class::Cancelled),
        ] {
            assert_eq!(of_duckdb_message(message).class, class, "{message}");
        }
    }

    #[test]
    fn a_locked_database_names_its_holder() {
        let error = of_duckdb_message(
            "IO Error: Could not set lock on file \"/x/y.db\": Conflicting lock is held in /usr/bin/duckdb (PID 7) by user a. See also https://…",
        );
        assert_eq!(error.class, Class::Permanent);
        assert_eq!(
            error.hint.as_deref(),
            Some("close the process that has it open: /usr/bin/duckdb (PID 7) by user a")
        );
    }
}

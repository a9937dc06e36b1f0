//! What can go wrong between the coordinator and its state.

use std::path::PathBuf;

use super::LeaseId;

/// Why the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store can't be reached or refuses work just now; nothing was applied.
    #[error("the state store is unavailable: {0}")]
    Unavailable(String),
    /// The answer to a transaction was lost: it may have been applied, or may be so later, even
    /// after a read that does not show it. Read again, then go on with a transaction that compares
    /// the `mod_revision` of what both write: the late one and the new one can't both hold.
    #[error("the outcome of a state change is unknown: {0}")]
    Unknown(String),
    /// A key, a value or a transaction is over a limit that all back ends share.
    #[error("{what} is {size}, over the limit of {limit}")]
    TooLarge {
        /// What is too large, with its unit.
        what: &'static str,
        /// How large it is.
        size: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The request makes no sense, such as one key written twice in a transaction.
    #[error("invalid request to the state store: {0}")]
    Invalid(String),
    /// A stored record is damaged.
    #[error("the state record `{key}` is damaged: {why}; restore the state from a backup")]
    Corrupt {
        /// The record's key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The state or a record in it was written by a newer build.
    #[error(
        "state was written by a newer version (format {found}, this build knows {known}): upgrade coordctl"
    )]
    NewerSchema {
        /// The format that was found.
        found: u32,
        /// The newest format that this build reads.
        known: u32,
    },
    /// The state was written by an older build, and this one has no migration from it.
    #[error(
        "state was written by an older version (format {found}, this build writes {known}) and can't be migrated: use the version that wrote it, or start with an empty state"
    )]
    OlderSchema {
        /// The format that was found.
        found: u32,
        /// The format that this build writes.
        known: u32,
    },
    /// The store refused the credentials or their rights.
    #[error("the state store denied access: {0}; check the user, the password and the role in its URL")]
    Denied(String),
    /// Another process has the state file open.
    #[error("state file `{}` is in use by process {}; wait for it to end or stop it", .path.display(), pid_text(*.pid))]
    InUse {
        /// The state file.
        path: PathBuf,
        /// The process that holds it, where known.
        pid: Option<u32>,
    },
    /// The medium below the store refuses: disk full, read-only, damaged. Nothing was applied and
    /// nothing was lost.
    #[error("state at `{place}`: {problem}; {remedy}")]
    Storage {
        /// The file or the endpoint.
        place: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A lease has expired or was revoked.
    #[error("lease {:x} is gone", .0.0)]
    LeaseGone(LeaseId),
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string())
}

impl StoreError {
    /// Whether the medium below refuses, which its operator can mend while this process waits.
    pub fn may_be_mended(&self) -> bool {
        matches!(self, Self::Storage { .. })
    }

    /// Whether asking again can't help, now or in another term: the state itself is wrong, or access
    /// to it is.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Corrupt { .. }
            | Self::NewerSchema { .. }
            | Self::OlderSchema { .. }
            | Self::Denied(_)
            | Self::InUse { .. }
            | Self::Storage { .. }
            | Self::Invalid(_)
            | Self::TooLarge { .. } => true,
            Self::Unavailable(_) | Self::Unknown(_) | Self::LeaseGone(_) => false,
        }
    }

    /// Whether the same request may simply be sent again. Not so after [`StoreError::Unknown`]:
    /// that asks for a read first.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// A damaged record.
    pub(crate) fn corrupt(key: &str, why: impl Into<String>) -> Self {
        Self::Corrupt { key: key.to_owned(), why: why.into() }
    }
}

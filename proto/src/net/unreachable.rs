//! What a call says that no coordinator has answered.

use std::error::Error as _;

use tonic::Status;
use tonic::codegen::StdError;

use crate::tls::Trouble;

/// The source of a status that was made on this side: nobody has answered the call.
#[derive(Debug, Clone, thiserror::Error)]
#[error("nobody has answered")]
pub struct Unreachable {
    /// Why none of the addresses can be reached, however often it is tried; nothing where one may be.
    pub trouble: Option<Trouble>,
    /// Whether nobody has answered any call yet.
    pub first: bool,
}

impl Unreachable {
    /// What a status says, if nobody has answered.
    #[must_use]
    pub fn of(status: &Status) -> Option<&Self> {
        status.source()?.downcast_ref()
    }
}

/// An error and its causes, in one line.
pub(super) fn causes(error: &StdError) -> String {
    let mut causes = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(next) = cause {
        causes.push(next.to_string());
        cause = next.source();
    }
    causes.dedup();
    causes.join(": ")
}

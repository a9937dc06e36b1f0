//! What is said to callers who may not. Never more than who they are, as far as it is proven, and
//! what is missing.

use tonic::{Code, Status};
use tracing::warn;

use super::{Identity, Permission, Unproven};
use crate::planning::Refusal;

fn status(code: Code, refusal: &Refusal) -> Status {
    let details = serde_json::to_vec(refusal).unwrap_or_default();
    Status::with_details(code, refusal.message.clone(), details.into())
}

/// A call of somebody who isn't known. `expected`: what is taken.
pub(super) fn unauthenticated(path: &str, why: &Unproven, expected: &str) -> Status {
    let message = match why {
        Unproven::Nothing => "the coordinator must know who calls, and nothing was shown".to_owned(),
        Unproven::Refused(why) => format!("the coordinator must know who calls: {why}"),
    };
    warn!(path, reason = message, "a call was refused: unauthenticated");
    let hint = format!("show {expected}");
    status(Code::Unauthenticated, &Refusal::new("unauthenticated", message, &hint))
}

/// A call that nobody may make, or not this caller.
pub(super) fn forbidden(path: &str, identity: &Identity, permission: Option<Permission>) -> Status {
    match permission {
        Some(permission) => denied(identity, permission),
        None => {
            warn!(path, who = identity.name(), "a call was refused: no such method");
            Status::unimplemented("there is no such method")
        }
    }
}

/// Somebody lacks the role.
pub(crate) fn denied(identity: &Identity, permission: Permission) -> Status {
    let message =
        format!("{identity} may not call {}: it takes the role {}", permission.call, permission.needs());
    refused(
        identity,
        permission.call,
        &message,
        "ask whoever gives roles for it, or show another token or certificate",
    )
}

/// Somebody acts for somebody else.
pub(crate) fn not_yours(identity: &Identity, permission: Permission, whose: &str) -> Status {
    let name = identity.name();
    let message = format!("{identity} may not speak for {whose}: its own sessions begin with `{name}-`");
    refused(identity, permission.call, &message, &format!("start the worker with `--name {name}`"))
}

fn refused(identity: &Identity, call: &str, message: &str, hint: &str) -> Status {
    warn!(
        who = identity.name(),
        proof = identity.proof().name(),
        call,
        reason = message,
        "a call was refused"
    );
    status(Code::PermissionDenied, &Refusal::new("permission-denied", message, hint))
}

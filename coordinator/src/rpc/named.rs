//! Plans as people name them: by an id, or the beginning of one.

use coord_common::id::PlanId;
use tonic::Status;

use super::control::refusal;
use crate::control::{Command, Handle};
use crate::planning::Refusal;

/// Fewer digits may name one plan today and another tomorrow.
const SHORTEST: usize = 6;

/// Which plan a text names.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    One(PlanId),
    Nothing,
    /// One, but with too few digits.
    Short,
    Several,
}

/// The plan that a text names.
///
/// # Errors
/// A refusal that says why it names none.
pub(super) async fn plan(handle: &Handle, text: &str) -> Result<PlanId, Status> {
    match find(handle, text).await? {
        Named::One(id) => Ok(id),
        Named::Nothing => Err(unknown_plan(text)),
        Named::Short => Err(refusal(Refusal::new(
            "unknown-plan",
            format!("`{text}` is too short to name a plan"),
            "give at least 6 digits of its id; `coordctl plans` lists them",
        ))),
        Named::Several => Err(several(text)),
    }
}

/// The same, where the text may name something else.
///
/// # Errors
/// A refusal where it names several plans.
pub(super) async fn plan_if_any(handle: &Handle, text: &str) -> Result<Option<PlanId>, Status> {
    match find(handle, text).await? {
        Named::One(id) => Ok(Some(id)),
        Named::Nothing | Named::Short => Ok(None),
        Named::Several => Err(several(text)),
    }
}

pub(super) fn unknown_plan(text: &str) -> Status {
    refusal(Refusal::new(
        "unknown-plan",
        format!("there is no plan `{text}`"),
        "`coordctl plans` lists the plans that are kept",
    ))
}

fn several(text: &str) -> Status {
    refusal(Refusal::new(
        "unknown-plan",
        format!("the ids of several plans begin with `{text}`"),
        "give more digits; `coordctl plans` lists them",
    ))
}

async fn find(handle: &Handle, text: &str) -> Result<Named, Status> {
    if let Ok(id) = text.parse() {
        return Ok(Named::One(id));
    }
    let book = handle.ask(|reply| Command::Book { reply }).await?;
    Ok(among(book.plans.keys(), text))
}

fn among<'a>(plans: impl Iterator<Item = &'a PlanId>, text: &str) -> Named {
    let mut found = plans.filter(|id| id.to_string().starts_with(text));
    match (found.next(), found.next()) {
        (None, _) => Named::Nothing,
        (Some(_), _) if text.len() < SHORTEST => Named::Short,
        (Some(id), None) => Named::One(*id),
        (Some(_), Some(_)) => Named::Several,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_digits_name_a_plan_unless_another_begins_with_them() {
        let plans: Vec<PlanId> = ["abcdef0123456789", "abcdef0123456700", "1234560000000000"]
            .map(|half| format!("{half}{half}").parse().unwrap())
            .to_vec();
        for (text, expected) in [
            ("123456", Named::One(plans[2])),
            ("12345", Named::Short),
            ("abcdef", Named::Several),
            ("abcdef01234567", Named::Several),
            ("abcdef012345678", Named::One(plans[0])),
            ("fedcba", Named::Nothing),
            ("dev", Named::Nothing),
        ] {
            assert_eq!(among(plans.iter(), text), expected, "{text}");
        }
    }
}

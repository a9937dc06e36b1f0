//! Whether models permit what forward-only changes would do to their tables' columns, as far as the
//! columns are known before the warehouse is asked; workers ask it and check again.

use super::categorize::{breaking_kind_change, is_forward_only};
use super::change::Diff;
use super::{Change, PlanError, PlanInput, Purpose};
use crate::id::ModelName;
use crate::project::model::ColumnDef;
use crate::snapshot::{Snapshot, SnapshotRecord};
use crate::task::{Allowed, ColumnChanges, Policies, Policy, added_by_kind};

/// What to tell people about changes of columns: `destructive:MODEL` or `additive:MODEL`.
///
/// # Errors
/// A change that a model forbids.
pub(super) fn column_changes(input: &PlanInput<'_>, diff: &Diff) -> Result<Vec<String>, PlanError> {
    let mut notes = Vec::new();
    if input.purpose == Purpose::Run {
        return Ok(notes);
    }
    for (name, change) in &diff.changes {
        if *change != Change::DirectlyModified {
            continue;
        }
        let (Some(new), Some(old)) =
            (input.proposed.get(name), diff.before.get(name).and_then(|id| input.records.get(id)))
        else {
            continue;
        };
        if keeps_table(input, old, new) {
            model(input, old, new, &mut notes)?;
        }
    }
    Ok(notes)
}

/// Whether the changed model goes on with its table.
fn keeps_table(input: &PlanInput<'_>, old: &SnapshotRecord, new: &Snapshot) -> bool {
    // Going back to the model's first snapshot is no forward-only change: its table was never altered for it.
    let first = input.records.get(&new.id).is_some_and(|known| known.previous.is_empty());
    let by_kind = is_forward_only(&new.model.kind) && !breaking_kind_change(&old.snapshot, new) && !first;
    input.options.forward_only || by_kind
}

/// What a plan allows, whatever the model says.
pub(super) fn allowed(input: &PlanInput<'_>, name: &ModelName) -> Allowed {
    Allowed {
        destructive: input.options.allow_destructive.contains(name),
        additive: input.options.allow_additive.contains(name),
        later: false,
    }
}

fn model(
    input: &PlanInput<'_>,
    old: &SnapshotRecord,
    new: &Snapshot,
    notes: &mut Vec<String>,
) -> Result<(), PlanError> {
    let (Some(was), Some(is)) = (&old.snapshot.columns, &new.columns) else { return Ok(()) };
    let changes = ColumnChanges::between(was, is, &added_by_kind(&new.model.kind));
    let policies = Policies::of(&new.model, allowed(input, new.name()));
    let destroyed: Vec<&ColumnDef> = changes.destroyed().collect();
    let added: Vec<&ColumnDef> = changes.added.iter().collect();
    verdict(policies.destructive, "destructive", "lose", new, &destroyed, notes)?;
    verdict(policies.additive, "additive", "get", new, &added, notes)
}

fn verdict(
    policy: Policy,
    kind: &str,
    verb: &str,
    new: &Snapshot,
    columns: &[&ColumnDef],
    notes: &mut Vec<String>,
) -> Result<(), PlanError> {
    let names: Vec<String> = columns.iter().map(|column| format!("`{}`", column.name)).collect();
    match policy {
        Policy::Warn if !names.is_empty() => notes.push(format!("{kind}:{}", new.name())),
        Policy::Error if !names.is_empty() => {
            let code = if kind == "additive" { "additive-change" } else { "destructive-change" };
            return Err(PlanError::new(
                code,
                format!(
                    "the table of `{}` would {verb} {}: a forward-only change keeps it",
                    new.name(),
                    names.join(", ")
                ),
                format!(
                    "give --allow-{kind}-model {}, or set on_{kind}_change of the model to allow, warn or ignore",
                    new.name()
                ),
            ));
        }
        Policy::Error | Policy::Warn | Policy::Allow | Policy::Ignore => {}
    }
    Ok(())
}

//! Why a plan can be looked at but not applied.

use serde::{Deserialize, Serialize};

use super::backfill::Windows;
use super::categorize::Records;
use super::{PlanInput, Purpose, Tables};
use crate::id::ModelName;
use crate::interval::{Interval, IntervalSet};
use crate::project::model::ModelKind;
use crate::task::TableId;

/// A reason against applying a plan, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// A stable word for programs: `uncategorized`, `unsupported-kind`, `gaps`, `selection-unfilled`.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// The models that it is about.
    pub models: Vec<ModelName>,
}

/// Everything that speaks against applying. `uncategorized` are changes that nobody said the meaning of.
pub(super) fn blockers(
    input: &PlanInput<'_>,
    records: &Records,
    tables: &Tables,
    windows: &Windows,
    uncategorized: Vec<ModelName>,
) -> Vec<Blocker> {
    let mut found = Vec::new();
    if let Some(first) = uncategorized.first() {
        found.push(Blocker {
            code: "uncategorized".to_owned(),
            message: format!("nobody said what the change of {} means", named(&uncategorized)),
            hint: format!("say it for each model: --categorize {first}=breaking, or =non-breaking"),
            models: uncategorized,
        });
    }
    found.extend(unsupported(input, records, tables));
    found.extend(gaps(input, records, tables, windows));
    found.extend(unfilled(input, tables, windows));
    found
}

/// Models that no engine here can keep.
fn unsupported(input: &PlanInput<'_>, records: &Records, tables: &Tables) -> Option<Blocker> {
    let missing = |name: &&ModelName| {
        let created = tables.get(*name).and_then(|table| input.tables.get(table)).is_some_and(|t| t.created);
        matches!(records[*name].snapshot.model.kind, ModelKind::Managed) && !created
    };
    let models: Vec<ModelName> = records.keys().filter(missing).cloned().collect();
    (!models.is_empty()).then(|| Blocker {
        code: "unsupported-kind".to_owned(),
        message: format!("{}: no engine here keeps MANAGED tables up to date by itself", named(&models)),
        hint: "use `kind VIEW (materialized true)` where the warehouse has such, or `kind FULL` with a cron"
            .to_owned(),
        models,
    })
}

fn named(models: &[ModelName]) -> String {
    let names: Vec<String> = models.iter().take(5).map(|name| format!("`{name}`")).collect();
    let more = models.len().saturating_sub(5);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

/// With `--no-gaps`: new tables of incremental models that lack what the ones before them had.
fn gaps(input: &PlanInput<'_>, records: &Records, tables: &Tables, windows: &Windows) -> Option<Blocker> {
    let current = input.current.filter(|_| input.options.no_gaps)?;
    let lacking = |name: &&ModelName| {
        let (record, table) = (&records[*name], &tables[*name]);
        let Some(before) = current.models.get(*name) else { return false };
        let Some(old) = input.records.get(&before.snapshot) else { return false };
        let incremental = |kind: &crate::project::model::ModelKind| kind.incremental().is_some();
        let both = incremental(&record.snapshot.model.kind) && incremental(&old.snapshot.model.kind);
        if !both || old.version == record.version {
            return false;
        }
        let had = done(input, before.table.as_ref());
        let mut has = done(input, Some(table));
        if let Some(computed) = windows.missing.get(*name) {
            has = has.union(computed);
        }
        let (Some(start), Some(hull)) = (windows.starts.get(*name), had.hull()) else { return false };
        Interval::new(*start, hull.end).is_some_and(|range| !has.covers(range))
    };
    let models: Vec<ModelName> = tables.keys().filter(lacking).cloned().collect();
    (!models.is_empty()).then(|| Blocker {
        code: "gaps".to_owned(),
        message: format!("{} would lose ranges that are there now (--no-gaps)", named(&models)),
        hint: "backfill them: leave out --skip-backfill and the times, or --no-gaps".to_owned(),
        models,
    })
}

fn done(input: &PlanInput<'_>, table: Option<&TableId>) -> IntervalSet {
    table.and_then(|table| input.tables.get(table)).map_or_else(IntervalSet::new, |known| known.done.clone())
}

/// Selections that would make production show tables which nothing fills, in place of filled ones.
fn unfilled(input: &PlanInput<'_>, tables: &Tables, windows: &Windows) -> Option<Blocker> {
    let options = input.options;
    let current = input.current.filter(|_| options.environment.is_prod())?;
    if input.purpose == Purpose::Run || options.backfill_models.is_none() || options.skip_backfill {
        return None;
    }
    let emptied = |name: &&ModelName| {
        let kind = input.proposed.get(*name).map(|snapshot| &snapshot.model.kind);
        // A view shows what there is below it as soon as it is made.
        let fills_itself = |kind: &ModelKind| matches!(kind, ModelKind::View { materialized: false });
        if kind.is_some_and(|kind| kind.is_audit() || fills_itself(kind)) {
            return false;
        }
        let before = current.models.get(*name).and_then(|model| model.table.as_ref());
        let lacks = windows.unselected.contains_key(*name);
        before
            .is_some_and(|before| lacks && *before != tables[*name] && !done(input, Some(before)).is_empty())
    };
    let models: Vec<ModelName> = tables.keys().filter(emptied).cloned().collect();
    (!models.is_empty()).then(|| Blocker {
        code: "selection-unfilled".to_owned(),
        message: format!("{} would be shown without rows: the selection leaves them out", named(&models)),
        hint: "select what reads the selected models, too: `+` after a name".to_owned(),
        models,
    })
}

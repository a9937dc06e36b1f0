//! What applying a plan does, step by step, for `--explain`.

use serde::Serialize;

use super::{Change, Plan, PlannedModel, Purpose};
use crate::id::ModelName;
use crate::interval::batches;

/// One step of applying a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanStage {
    /// A stable word for programs: `record`, `create`, `audit`, `migrate`, `assume`, `backfill`, `clear`, `promote`.
    pub stage: &'static str,
    /// What happens, for people.
    pub what: String,
    /// The models that it happens to, with details for people.
    pub models: Vec<(ModelName, String)>,
}

/// The steps of applying a plan, in order; steps without a model are left out.
pub fn stages(plan: &Plan) -> Vec<PlanStage> {
    let pick = |wanted: &dyn Fn(&PlannedModel) -> Option<String>| -> Vec<(ModelName, String)> {
        let models = plan.models.iter();
        models.filter_map(|model| Some((model.name.clone(), wanted(model)?))).collect()
    };
    let new = |model: &PlannedModel| {
        let id = model.snapshot.filter(|id| plan.new_snapshots.contains(id))?;
        Some(format!("snapshot {id}"))
    };
    let created = |model: &PlannedModel| {
        let table = model.table.as_ref().filter(|_| model.create && !model.is_audit())?;
        Some(format!(
            "version {}{}",
            table.version,
            if table.dev { ", for this environment only" } else { "" }
        ))
    };
    let migrated = |model: &PlannedModel| {
        model
            .migrate
            .then(|| model.table.as_ref().map(|table| format!("version {}", table.version)))
            .flatten()
    };
    let filled = |model: &PlannedModel| {
        let count = batches(&model.missing, model.batches.unit, model.batches.size).count();
        let ranges: Vec<String> =
            model.missing.ranges().iter().map(|range| format!("[{}, {})", range.start, range.end)).collect();
        (count > 0).then(|| format!("{} in {count} batches", ranges.join(" ")))
    };
    let audited = |model: &PlannedModel| {
        let ranges: Vec<String> =
            model.audits.ranges().iter().map(|range| format!("[{}, {})", range.start, range.end)).collect();
        (!ranges.is_empty()).then(|| ranges.join(" "))
    };
    let shown = |model: &PlannedModel| {
        let view = plan.target.get(&model.name).and_then(|shown| shown.view.as_ref());
        match (model.change, view) {
            (Change::Removed, _) => Some("is removed".to_owned()),
            (_, Some(view)) => Some(format!("as {view}")),
            _ => None,
        }
    };
    let assumed = plan.skips_computing();
    let clears = plan.clears.iter();
    let promoted = plan.purpose == Purpose::Change && (plan.has_changes || plan.widens);
    [
        ("record", "Keep the new snapshots".to_owned(), pick(&new)),
        ("create", "Create tables".to_owned(), pick(&created)),
        ("audit", "Look at complete ranges with new or changed audits".to_owned(), pick(&audited)),
        ("migrate", "Give kept tables the columns of the change".to_owned(), pick(&migrated)),
        if assumed {
            ("assume", "Record as complete without computing".to_owned(), pick(&filled))
        } else {
            (
                "backfill",
                "Compute and run standalone audits, each batch once what it reads is complete".to_owned(),
                pick(&filled),
            )
        },
        (
            "clear",
            "Forget ranges in tables of other environments".to_owned(),
            clears
                .map(|clear| (clear.table.model.clone(), format!("version {}", clear.table.version)))
                .collect(),
        ),
        (
            "promote",
            format!("Point `{}` to the new tables, all views at once", plan.environment),
            if promoted { pick(&shown) } else { Vec::new() },
        ),
    ]
    .into_iter()
    .filter(|(.., models)| !models.is_empty())
    .map(|(stage, what, models)| PlanStage { stage, what, models })
    .collect()
}

//! A plan for people: what changes, what it means, what must be computed.

use coord_common::interval::batches;
use coord_common::plan::{Change, Plan, PlannedModel, Purpose, Refusal};
use coordinator::control::ExecutedBatch;

use super::{Color, count, line, paint, range};
use crate::client::PlanAnswer;

/// How many views are named where there are more.
const MOST_VIEWS: usize = 5;

/// Prints a plan.
pub(crate) fn plan(answer: &PlanAnswer, no_diff: bool) {
    let plan = &answer.plan;
    refused(plan);
    column_notes(plan);
    unfinished(answer);
    if plan.is_empty() && !answer.unfinished.is_empty() {
        return;
    }
    if plan.is_empty() {
        line(&format!("No changes to plan: `{}` is up to date.", plan.environment));
        return;
    }
    line(&format!("Plan {} for environment `{}`", super::short(&plan.id.to_string()), plan.environment));
    let sections = [
        ("Added", Change::Added, '+', Color::Green),
        ("Directly modified", Change::DirectlyModified, '~', Color::Yellow),
        ("Indirectly modified", Change::IndirectlyModified, '~', Color::Dim),
        ("Metadata updated", Change::MetadataUpdated, '=', Color::Dim),
        ("Removed", Change::Removed, '-', Color::Red),
    ];
    for (title, change, sign, color) in sections {
        let models: Vec<&PlannedModel> = plan.models.iter().filter(|model| model.change == change).collect();
        if models.is_empty() {
            continue;
        }
        line(&format!("\n{title}:"));
        for model in models {
            let category = match (change, model.category) {
                (Change::Added | Change::Removed, _) | (_, None) => String::new(),
                (_, Some(category)) => format!(" ({})", category.name().replace('_', "-")),
            };
            line(&paint(&format!("  {sign} {}{category}", model.name), color));
            if !no_diff && matches!(change, Change::DirectlyModified | Change::MetadataUpdated) {
                diff(answer, model);
            }
        }
    }
    backfill(plan);
    for blocker in &plan.blockers {
        super::error_line(&paint(&format!("this plan can't be applied: {}", blocker.message), Color::Yellow));
    }
}

/// What forward-only changes do to columns, where models want it told.
fn column_notes(plan: &Plan) {
    for note in &plan.column_notes {
        let text = match note.split_once(':') {
            Some(("destructive", name)) => format!("warning: the table of `{name}` loses columns"),
            Some((_, name)) => format!("warning: the table of `{name}` gets columns"),
            None => continue,
        };
        super::error_line(&paint(&text, Color::Yellow));
    }
}

/// Restatements that were begun and aren't at their end.
fn unfinished(answer: &PlanAnswer) {
    let environment = &answer.plan.environment;
    for id in &answer.unfinished {
        let id = id.to_string();
        let short = super::short(&id);
        line(&paint(&format!("The restatement {short} of `{environment}` is unfinished."), Color::Yellow));
        line(&format!(
            "  Complete it with `coordctl run {environment}` or `coordctl apply {short}`, or give it up with \
             `coordctl cancel {short}`."
        ));
    }
}

/// Models that a restatement leaves out.
fn refused(plan: &Plan) {
    for (name, refusal) in &plan.refused {
        let why = match refusal {
            Refusal::Disabled => "its restatement is disabled (disable_restatement)",
            Refusal::InProduction => "production shows the same table; restate production instead",
        };
        super::error_line(&paint(&format!("warning: `{name}` is not restated: {why}"), Color::Yellow));
    }
}

fn backfill(plan: &Plan) {
    let missing = plan.models.iter().filter(|model| !model.missing.is_empty());
    let (audits, models): (Vec<&PlannedModel>, Vec<&PlannedModel>) =
        missing.partition(|model| model.is_audit());
    if models.is_empty() {
        line("\nNothing must be computed: only tables and views are made or switched.");
    }
    let mut batches = 0;
    for (title, nodes) in [("Models needing backfill", &models), ("Standalone audits to run", &audits)] {
        if !nodes.is_empty() {
            line(&format!("\n{title}:"));
            batches += ranges(plan, nodes);
        }
    }
    if !models.is_empty() {
        let audits = match audits.len() {
            0 => String::new(),
            number => format!(" and {}", count(number, "standalone audit")),
        };
        line(&format!("\n{} in {}{audits}.", count(batches, "batch"), count(models.len(), "model")));
    }
}

/// What nodes miss, one a line; how many batches that is.
fn ranges(plan: &Plan, nodes: &[&PlannedModel]) -> usize {
    let mut total = 0;
    for model in nodes {
        let ranges: Vec<String> =
            model.missing.ranges().iter().take(3).map(|interval| format!("[{}]", range(*interval))).collect();
        let more = model.missing.ranges().len().saturating_sub(3);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let needed = batches(&model.missing, model.batches.unit, model.batches.size).count();
        total += needed;
        let again = if plan.restates && model.restatement.is_some() { " (again)" } else { "" };
        let preview = if model.table.as_ref().is_some_and(|table| table.dev) { " (preview)" } else { "" };
        let batches = if needed > 1 { format!("  {needed} batches") } else { String::new() };
        line(&format!("  {}: {}{more}{batches}{again}{preview}", model.name, ranges.join(" ")));
    }
    total
}

/// The lines that differ between the definitions before and after.
fn diff(answer: &PlanAnswer, model: &PlannedModel) {
    let Some([Some(before), Some(after)]) = answer.definitions.get(model.name.as_str()) else { return };
    if before == after {
        return;
    }
    for (sign, text) in line_diff(before, after) {
        let color = if sign == '+' { Color::Green } else { Color::Red };
        line(&paint(&format!("      {sign} {text}"), color));
    }
}

/// A line diff by the longest common subsequence; only the lines that differ.
fn line_diff<'a>(before: &'a str, after: &'a str) -> Vec<(char, &'a str)> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    if old.len() * new.len() > 4_000_000 {
        return vec![('~', "(too long to compare)")];
    }
    let mut common = vec![vec![0u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            found.push(('-', old[i]));
            i += 1;
        } else {
            found.push(('+', new[j]));
            j += 1;
        }
    }
    found
}

/// What applying did, in a few lines.
pub(crate) fn summary(plan: &Plan, executed: &[ExecutedBatch]) {
    let rows: u64 = executed.iter().map(|batch| batch.rows).sum();
    for batch in executed {
        for (audit, bad) in &batch.warnings {
            super::error_line(&paint(
                &format!(
                    "warning: audit {audit} found {bad} bad rows in {} {}",
                    batch.model,
                    range(batch.interval)
                ),
                Color::Yellow,
            ));
        }
    }
    line(&paint(
        &format!(
            "\u{2714} `{}` is up to date: {}, {}.",
            plan.environment,
            count(executed.len(), "batch"),
            count(usize::try_from(rows).unwrap_or(usize::MAX), "row")
        ),
        Color::Green,
    ));
    if plan.purpose == Purpose::Change && !plan.environment.is_prod() {
        beside(plan);
    }
}

/// Where a development environment's changed models are to be looked at.
fn beside(plan: &Plan) {
    let changed = plan.models.iter().filter(|model| model.change != Change::Unchanged);
    let views = changed.filter_map(|model| Some((&model.name, plan.target.get(&model.name)?.view.as_ref()?)));
    let views: Vec<_> = views.collect();
    for (model, view) in views.iter().take(MOST_VIEWS) {
        line(&format!("  {model} is {view} there"));
    }
    if let Some(more) = views.len().checked_sub(MOST_VIEWS).filter(|more| *more > 0) {
        line(&format!("  and {more} more"));
    }
}

#[cfg(test)]
mod tests {
    use super::line_diff;

    #[test]
    fn only_lines_that_differ_are_shown() {
        assert_eq!(line_diff("a\nb\nc", "a\nx\nc"), [('-', "b"), ('+', "x")]);
        assert!(line_diff("a", "a").is_empty());
        assert_eq!(line_diff("", "a"), [('+', "a")]);
    }
}

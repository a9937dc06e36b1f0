//! Columns that go from kept tables: once the environment's pointer has moved, in a round of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coord_common::id::ModelName;
use coord_common::interval::IntervalSet;
use coord_common::plan::{Plan, PlannedModel, bindings};
use coord_common::project::model::ModelKind;
use coord_common::snapshot::SnapshotRecord;
use coord_common::task::{Allowed, TableTask};

use super::admit::{edges, records, table_state, tables, task};
use crate::control::book::Book;
use crate::schedule::{NodeMode, NodeWork, PlanWork, RetryLimits, Whole};

type Records = BTreeMap<ModelName, Arc<SnapshotRecord>>;

/// Whether columns that a model's kept table loses stay until the pointer has moved. Not where
/// something that the plan makes anew takes whatever columns there are: it would keep them.
pub(super) fn go_later(plan: &Plan, model: &PlannedModel, records: &Records) -> bool {
    let view = |record: &SnapshotRecord| matches!(record.snapshot.model.kind, ModelKind::View { .. });
    if !model.migrate || records.get(&model.name).is_none_or(|record| view(record)) {
        return false;
    }
    let migrating: BTreeSet<&ModelName> =
        plan.models.iter().filter(|model| model.migrate).map(|model| &model.name).collect();
    let mut below = BTreeSet::from([&model.name]);
    loop {
        let more: Vec<&ModelName> = records
            .iter()
            .filter(|(name, record)| {
                !below.contains(name) && record.snapshot.upstream().any(|parent| below.contains(parent))
            })
            .map(|(name, _)| name)
            .collect();
        if more.is_empty() {
            break;
        }
        below.extend(more);
    }
    let made =
        plan.models.iter().filter(|model| below.contains(&model.name) && !migrating.contains(&model.name));
    !made.filter(|model| model.create || !model.missing.is_empty()).any(|model| {
        records
            .get(&model.name)
            .and_then(|record| record.snapshot.model.query())
            .is_some_and(|query| takes_all(&query.text))
    })
}

/// Whether a query may take all columns of something, as far as its text tells: a star that isn't the
/// sign of a product, nor an argument.
fn takes_all(query: &str) -> bool {
    let mut before = "";
    let mut rest = query;
    while let Some(at) = rest.find('*') {
        before = if rest[..at].trim().is_empty() { before } else { rest[..at].trim_end() };
        let word = before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        let selects = ["select", "distinct", "all"].iter().any(|known| word.eq_ignore_ascii_case(known));
        if selects || before.ends_with(',') || before.ends_with('.') {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// What the scheduler needs to take columns away; nothing where none can go.
pub(crate) fn columns_work(plan: &Plan, book: &Book) -> Option<PlanWork> {
    let records = records(plan, book);
    let tables = tables(plan);
    let mut index: BTreeMap<&ModelName, usize> = BTreeMap::new();
    let mut nodes: Vec<NodeWork> = Vec::new();
    for model in &plan.models {
        let (Some(table), Some(record)) = (&model.table, records.get(&model.name)) else { continue };
        if !go_later(plan, model, &records) {
            continue;
        }
        index.insert(&model.name, nodes.len());
        nodes.push(NodeWork {
            task: Arc::new(TableTask {
                allows: Allowed { later: false, ..model.allows },
                ..task(plan, record, table, bindings(record, &records, &tables))
            }),
            todo: IntervalSet::new(),
            assumed: IntervalSet::new(),
            void: IntervalSet::new(),
            create: false,
            migrate: true,
            mode: NodeMode::Write,
            cut: Arc::new(Whole),
            concurrency: None,
            sequential: false,
            made_first: false,
            anew: false,
            parents: Vec::new(),
        });
    }
    for (name, at) in &index {
        nodes[*at].parents = edges(name, &records, &index);
    }
    let known = nodes.iter().map(|node| table_state(&node.task.table, book)).collect();
    let work = PlanWork { plan: plan.id, priority: 0, limits: RetryLimits::default(), tables: known, nodes };
    (!work.nodes.is_empty()).then_some(work)
}

#[cfg(test)]
mod tests {
    use super::takes_all;

    #[test]
    fn stars_that_stand_for_columns_are_told_from_others() {
        for (query, expected) in [
            ("SELECT * FROM t", true),
            ("select a, t.* from t", true),
            ("SELECT DISTINCT * FROM t", true),
            ("SELECT a, * FROM t", true),
            ("SELECT COUNT(*), a * 2 AS b FROM t", false),
            ("SELECT a FROM t", false),
        ] {
            assert_eq!(takes_all(query), expected, "{query}");
        }
    }
}

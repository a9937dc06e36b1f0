//! New and changed audits over what is complete: a round of its own before anything is computed.

use std::sync::Arc;

use coord_common::interval::IntervalSet;
use coord_common::plan::{Plan, PlannedModel, Tables, bindings};
use coord_common::task::TableTask;

use super::admit::{cut, records, table_state, task};
use crate::control::book::Book;
use crate::schedule::{NodeMode, NodeWork, PlanWork, RetryLimits};

/// What the scheduler needs to run a plan's new or changed audits; nothing where it has none.
pub(crate) fn audit_work(plan: &Plan, book: &Book) -> Option<PlanWork> {
    let records = records(plan, book);
    let tables: Tables =
        plan.models.iter().filter_map(|model| Some((model.name.clone(), model.table.clone()?))).collect();
    let node = |model: &PlannedModel| {
        let table = model.table.as_ref().filter(|_| !model.audits.is_empty())?;
        let record = records.get(&model.name)?;
        Some(NodeWork {
            task: Arc::new(TableTask {
                allows: model.allows,
                ..task(plan, record, table, bindings(record, &records, &tables))
            }),
            todo: model.audits.clone(),
            assumed: IntervalSet::new(),
            void: IntervalSet::new(),
            create: false,
            migrate: false,
            mode: NodeMode::Audit,
            cut: cut(model, record, book),
            concurrency: model.concurrency,
            sequential: false,
            made_first: false,
            anew: false,
            parents: Vec::new(),
        })
    };
    let nodes: Vec<NodeWork> = plan.models.iter().filter_map(node).collect();
    let known = nodes.iter().map(|node| table_state(&node.task.table, book)).collect();
    let work = PlanWork { plan: plan.id, priority: 0, limits: RetryLimits::default(), tables: known, nodes };
    (!work.nodes.is_empty()).then_some(work)
}

//! The plan as a document: the versioned contract that `--format json` prints.
//!
//! Times are RFC 3339 in UTC; ranges are half-open and merged. Fields are only ever added within a
//! schema number.

use serde::Serialize;

use super::{Blocker, Change, Plan, PlannedModel};
use crate::interval::{Interval, IntervalSet, batches};

/// The document's schema number.
const SCHEMA: u32 = 1;

/// One batch that ran: model, start, end, how it ended.
pub type Executed = (String, String, String, String);

/// A plan for readers outside.
#[derive(Debug, Clone, Serialize)]
pub struct PlanDocument {
    schema: u32,
    plan_id: String,
    environment: String,
    base_revision: u64,
    start: String,
    end: String,
    execution_time: String,
    has_changes: bool,
    requires_backfill: bool,
    models: Vec<ModelDocument>,
    notes: Vec<String>,
    blockers: Vec<Blocker>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executed: Option<Vec<Executed>>,
    /// What audits found that hold nothing up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<AuditWarning>,
}

/// Bad rows that an audit found without failing its batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditWarning {
    /// The audit.
    pub audit: String,
    /// The model or standalone audit whose batch it was.
    pub model: String,
    /// The batch's first point, RFC 3339.
    pub start: String,
    /// The first point after it.
    pub end: String,
    /// How many rows.
    pub rows: u64,
}

#[derive(Debug, Clone, Serialize)]
struct ModelDocument {
    name: String,
    kind: String,
    change: Change,
    category: Option<&'static str>,
    snapshot_id: Option<String>,
    version: Option<String>,
    missing_intervals: Vec<RangeDocument>,
    batches: Vec<RangeDocument>,
    restatement: Option<RangeDocument>,
    /// Signals that applying asks first: what they reject isn't computed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    signals: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
struct RangeDocument {
    start: String,
    end: String,
}

impl From<Interval> for RangeDocument {
    fn from(interval: Interval) -> Self {
        Self { start: interval.start.to_string(), end: interval.end.to_string() }
    }
}

impl PlanDocument {
    /// The document with a further note, as `code:what`.
    #[must_use]
    pub fn with_note(mut self, note: String) -> Self {
        self.notes.push(note);
        self
    }

    /// The same document with what audits found.
    #[must_use]
    pub fn with_warnings(self, warnings: Vec<AuditWarning>) -> Self {
        Self { warnings, ..self }
    }
}

/// Writes a plan down for readers outside; `executed` lists what applying it ran.
pub fn document(plan: &Plan, executed: Option<Vec<Executed>>) -> PlanDocument {
    PlanDocument {
        schema: SCHEMA,
        plan_id: plan.id.to_string(),
        environment: plan.environment.to_string(),
        base_revision: plan.base_seq,
        start: plan.start.to_string(),
        end: plan.end.to_string(),
        execution_time: plan.execution_time.to_string(),
        has_changes: plan.has_changes,
        requires_backfill: requires_backfill(plan),
        models: plan.models.iter().map(|of| model(of, plan.empty_backfill)).collect(),
        blockers: plan.blockers.clone(),
        notes: notes(plan),
        executed,
        warnings: Vec::new(),
    }
}

fn notes(plan: &Plan) -> Vec<String> {
    let refused = plan.refused.keys().map(|name| format!("restatement_refused:{name}"));
    plan.column_notes.iter().cloned().chain(refused).collect()
}

/// Whether models miss something that is to be computed, also where that turns out to be there already.
fn requires_backfill(plan: &Plan) -> bool {
    let mut models = plan.models.iter().filter(|model| !model.is_audit());
    let misses = models.any(|m| !m.missing.is_empty() || m.restatement.is_some() || !m.skipped.is_empty());
    misses && !plan.empty_backfill && !plan.skip_backfill
}

fn model(model: &PlannedModel, empty: bool) -> ModelDocument {
    // Only what has rows can miss some; what an audit looks at is in its batches.
    let missing = if model.is_audit() { IntervalSet::new() } else { model.missing.union(&model.skipped) };
    let run = if empty { IntervalSet::new() } else { model.missing.clone() };
    ModelDocument {
        name: model.name.to_string(),
        kind: model.kind.clone(),
        change: model.change,
        category: model.category.map(super::Category::name),
        snapshot_id: model.snapshot.map(|id| id.to_string()),
        version: model.version.map(|version| version.to_string()),
        missing_intervals: missing.ranges().iter().copied().map(Into::into).collect(),
        batches: batches(&run, model.batches.unit, model.batches.size).map(Into::into).collect(),
        restatement: model.restatement.map(Into::into),
        signals: if model.missing.is_empty() { Vec::new() } else { model.signals.clone() },
    }
}

//! What people are told of plans and workers.

use std::collections::BTreeMap;

use coord_common::id::PlanId;
use coord_common::interval::Interval;
use coord_common::task::{Failure, Mode, TableId};
use serde::{Deserialize, Serialize};

use super::{Control, PlanState};
use crate::schedule::{PlanProgress, Record};

/// Most batches that a plan's log keeps; a longer one forgets none that a watcher at ten a second
/// hasn't read, and only documents of very large plans lack their beginning.
const LOG: usize = 500_000;

/// Most batches in one view: a message of a few MiB.
const PAGE: usize = 20_000;

/// One batch that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutedBatch {
    /// The model.
    pub model: String,
    /// The batch's interval.
    pub interval: Interval,
    /// `ok`, `audit_failed` or `error`; with `audit:` before it where it only ran audits.
    pub status: String,
    /// Rows written.
    pub rows: u64,
    /// Time that the worker took, in milliseconds.
    pub millis: u64,
    /// Audits that found bad rows but don't block: name and count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<(String, u64)>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// A plan as a watcher sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanView {
    /// Its state's name.
    pub state: String,
    /// Whether nothing of it goes on.
    pub ended: bool,
    /// Batches to run over all, and how many of them are done.
    pub total: u64,
    /// Those that are committed.
    pub done: u64,
    /// Those that are leased.
    pub in_flight: u64,
    /// Those that failed for good.
    pub failed: u64,
    /// The same for each model.
    pub models: Vec<ModelView>,
    /// Batches that ended since the place that was asked for.
    pub executed: Vec<ExecutedBatch>,
    /// The place in the log to ask from next.
    pub next: usize,
    /// Which log that is: each leader begins one of its own.
    #[serde(default)]
    pub log: u64,
    /// Batches that failed for good, with their errors.
    pub failures: Vec<FailureView>,
}

/// One model of a plan as a watcher sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelView {
    /// The model.
    pub model: String,
    /// Its batches.
    pub total: u64,
    /// Those that are committed.
    pub done: u64,
    /// Those that are leased.
    pub in_flight: u64,
    /// Those that failed for good.
    pub failed: u64,
    /// Why the next one waits, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

/// A batch that failed for good.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailureView {
    /// The model.
    pub model: String,
    /// The batch's interval.
    pub interval: Interval,
    /// Why.
    pub failure: Failure,
    /// After how many attempts.
    pub attempts: u32,
}

/// A worker as people see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerView {
    /// The session's id.
    pub worker: String,
    /// Gateways that it reaches.
    pub gateways: Vec<String>,
    /// How many leases it can hold.
    pub slots: u32,
    /// How many it holds.
    pub held: u32,
    /// Whether it takes no more.
    pub draining: bool,
    /// How long ago it was heard, in seconds.
    pub seen_seconds_ago: u64,
}

/// What ran, plan by plan, since this leader took over.
#[derive(Default)]
pub(super) struct Logs {
    logs: BTreeMap<PlanId, Log>,
}

#[derive(Default)]
struct Log {
    executed: Vec<ExecutedBatch>,
    /// Entries that were dropped from the front.
    dropped: usize,
    /// What failed that is no batch, and why.
    other_failure: Option<(String, Failure)>,
    last: Option<PlanProgress>,
    /// Whether `last` is the plan's end, whatever else is done for it.
    kept: bool,
    over: bool,
}

impl Logs {
    /// A plan begins or goes on. Logs of plans that ended long ago are dropped.
    pub(super) fn start(&mut self, plan: PlanId) {
        while self.logs.len() > 4 {
            let over = self.logs.iter().find(|(id, log)| log.over && **id != plan).map(|(id, _)| *id);
            match over {
                Some(id) => self.logs.remove(&id),
                None => break,
            };
        }
        self.logs.insert(plan, Log::default());
    }

    /// A plan has ended, this far.
    pub(super) fn end(&mut self, plan: PlanId, progress: Option<PlanProgress>) {
        if let Some(log) = self.logs.get_mut(&plan) {
            log.over = true;
            log.last = progress.filter(|_| !log.kept).or(log.last.take());
        }
    }

    /// A plan's batches are done; what comes now isn't counted.
    pub(super) fn keep(&mut self, plan: PlanId, progress: Option<PlanProgress>) {
        let log = self.logs.entry(plan).or_default();
        log.last = progress.or(log.last.take());
        log.kept = true;
    }

    /// Something failed that is no batch.
    pub(super) fn failed(&mut self, plan: PlanId, what: String, failure: Failure) {
        self.logs.entry(plan).or_default().other_failure = Some((what, failure));
    }

    pub(super) fn note(&mut self, record: &Record) {
        let (plan, entry) = match record {
            Record::Committed(done) => (
                done.plan,
                ExecutedBatch {
                    model: done.table.model.to_string(),
                    interval: done.interval,
                    status: status(done.mode, "ok"),
                    rows: done.rows,
                    millis: done.millis,
                    warnings: done
                        .audits
                        .iter()
                        .filter(|audit| audit.bad_rows > 0)
                        .map(|audit| (audit.name.clone(), audit.bad_rows))
                        .collect(),
                    error: None,
                },
            ),
            Record::Failed { plan, batch, mode, failure, .. } => (
                *plan,
                ExecutedBatch {
                    model: batch.table.model.to_string(),
                    interval: batch.interval,
                    status: status(*mode, failed(failure)),
                    rows: 0,
                    millis: 0,
                    warnings: Vec::new(),
                    error: Some(failure.clone()),
                },
            ),
            Record::Granted { .. }
            | Record::Lost { .. }
            | Record::Waiting { .. }
            | Record::Cleared { .. }
            | Record::Released { .. }
            | Record::Promoted { .. }
            | Record::Filled { .. }
            | Record::Published { .. }
            | Record::Cancelled { .. } => return,
        };
        // Making and changing tables is no batch; where that fails, the plan's failures say so.
        let mode = match record {
            Record::Committed(done) => done.mode,
            Record::Failed { mode, .. } => *mode,
            _ => return,
        };
        if matches!(mode, Mode::Create | Mode::Migrate) {
            return;
        }
        let log = self.logs.entry(plan).or_default();
        if log.executed.len() >= LOG {
            log.executed.drain(..LOG / 2);
            log.dropped += LOG / 2;
        }
        log.executed.push(entry);
    }
}

/// How a batch ended, told apart where it only audited.
fn status(mode: Mode, end: &str) -> String {
    if mode == Mode::Audit { format!("audit:{end}") } else { end.to_owned() }
}

fn failed(failure: &Failure) -> &'static str {
    match failure.class {
        coord_common::task::FailureClass::Audit => "audit_failed",
        coord_common::task::FailureClass::Permanent | coord_common::task::FailureClass::Transient => "error",
    }
}

impl Control {
    /// How far a plan is.
    pub(super) fn view(&mut self, plan: PlanId, log: u64, since: usize) -> Option<PlanView> {
        // Each leader has a log of its own, which is told from its beginning.
        let term = self.lead.term().0 as u64;
        let since = if log == term { since } else { 0 };
        let (record, _) = self.book.plans.get(&plan)?;
        let log = self.logs.logs.entry(plan).or_default();
        // A settled plan is forgotten by the scheduler; its last progress stays here.
        if let Some(progress) = self.scheduler.progress(plan).filter(|_| !log.kept) {
            log.last = Some(progress);
        }
        let from = since.saturating_sub(log.dropped).min(log.executed.len());
        let to = (from + PAGE).min(log.executed.len());
        let all_told = to == log.executed.len();
        let mut failures: Vec<FailureView> = record
            .failures
            .iter()
            .map(|failed| FailureView {
                model: failed.batch.table.model.to_string(),
                interval: failed.batch.interval,
                failure: failed.failure.clone(),
                attempts: failed.attempts,
            })
            .collect();
        if let Some((what, failure)) = &log.other_failure {
            failures.push(FailureView {
                model: what.clone(),
                interval: Interval::ALL,
                failure: failure.clone(),
                attempts: 1,
            });
        }
        let models = log.last.as_ref().map(models).unwrap_or_default();
        let sum = |of: fn(&ModelView) -> u64| models.iter().map(of).sum();
        Some(PlanView {
            state: record.state.name().to_owned(),
            ended: all_told && (record.state.is_final() || record.state == PlanState::Planned),
            total: sum(|model| model.total),
            done: sum(|model| model.done),
            in_flight: sum(|model| model.in_flight),
            failed: sum(|model| model.failed),
            executed: log.executed[from..to].to_vec(),
            next: log.dropped + to,
            log: term,
            models,
            failures,
        })
    }
}

fn models(progress: &PlanProgress) -> Vec<ModelView> {
    progress
        .nodes
        .iter()
        .map(|node| ModelView {
            model: model(&node.table),
            total: node.total,
            done: node.done,
            in_flight: node.in_flight,
            failed: node.failed,
            waits: node.waiting.first().map(ToString::to_string),
        })
        .collect()
}

fn model(table: &TableId) -> String {
    table.model.to_string()
}

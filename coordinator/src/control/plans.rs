//! Plans: kept, applied, flipped, given up. Each step is one conditioned transaction, and each can
//! be taken again after a crash.

use std::collections::BTreeMap;

use coord_common::id::{EnvironmentName, PlanId};
use coord_common::plan::{Plan, Purpose};
use coord_common::task::TableId;
use tracing::{info, warn};

use super::book::{
    FailureRecord, HistoryEntry, PlanBody, PlanRecord, PlanState, StoredSnapshot, Todo, read_blob,
};
use super::command::{ApplyError, Command};
use super::evidence::Deed;
use super::history::Kept;
use super::tend::later;
use super::{Control, ControlError};
use crate::apply;
use crate::schedule::{Event, FailedBatch, Notice, Output, PlanOutcome};
use crate::store::record::{encode_intervals, encode_json};
use crate::store::{Compare, Revision, StoreError, Txn, blob, keys};

/// Documents of one transaction; each is one operation and at most one compare.
pub(super) const CHUNK: usize = 60;
/// Records up to this size stay under their key.
const INLINE_BYTES: usize = 64 * 1024;

impl Control {
    /// Answers what isn't a worker's.
    pub(super) async fn administer(&mut self, command: Command) -> Result<(), ControlError> {
        match command {
            Command::Snapshot { id, reply } => drop(reply.send(self.book.snapshots.get(&id).cloned())),
            Command::Book { reply } => drop(reply.send(self.book.clone())),
            Command::StorePlan { planned, by, reply } => {
                let state = self.store_plan(*planned, &by).await?;
                let _ = reply.send(state);
            }
            Command::PlanBody { plan, reply } => {
                let body = match self.book.plans.get(&plan) {
                    Some((record, _)) => Some(read_blob(&*self.store, record.body).await?),
                    None => None,
                };
                drop(reply.send(body));
            }
            Command::Apply { plan, by, request, reply } => {
                let answer = self.apply(plan, by, request).await?;
                drop(reply.send(answer));
            }
            Command::Approve { plan, by, reply } => {
                let answer = self.approve(plan, by).await?;
                drop(reply.send(answer));
            }
            Command::Evidence { page, reply } => drop(reply.send(self.tell(&page).await?)),
            Command::Cancel { plan, by, reply } => {
                let answer = self.cancel(plan, &by).await?;
                drop(reply.send(answer));
            }
            Command::Tend { tend, by, reply } => {
                let answer = self.tend(tend, &by).await?;
                drop(reply.send(answer));
            }
            Command::Tended { waits, reply } => drop(reply.send(self.left(&waits))),
            Command::AskSignals { plan, reply } => {
                let mut out = Output::default();
                self.ask_only(plan, reply, &mut out);
                Box::pin(self.settle(out, Vec::new())).await?;
            }
            Command::Progress { plan, log, since, reply } => drop(reply.send(self.view(plan, log, since))),
            Command::Why { plan, table, at, reply } => {
                let mut reasons = self.scheduler.why_waiting(plan, &table, at.start);
                if reasons.is_empty() {
                    reasons = self.scheduler.why_waiting(plan, &table.beside(plan), at.start);
                }
                drop(reply.send(reasons));
            }
            Command::Workers { reply } => drop(reply.send(self.workers.view())),
            Command::Tick
            | Command::Register { .. }
            | Command::Poll { .. }
            | Command::Unpoll { .. }
            | Command::Heartbeat { .. }
            | Command::Complete { .. }
            | Command::Drain { .. } => {}
        }
        Ok(())
    }

    /// Puts a plan's record together with other changes, if the record is as it was read.
    pub(super) async fn put_plan(
        &mut self,
        id: PlanId,
        record: PlanRecord,
        txn: Txn,
    ) -> Result<Revision, ControlError> {
        let key = keys::plan(id);
        let unchanged = match self.book.plans.get(&id) {
            Some((_, revision)) => Compare::ModRevision(key.clone(), *revision),
            None => Compare::Absent(key.clone()),
        };
        let txn = txn.require(unchanged).put(key, encode_json(&record)?);
        let revision = self.commit(txn).await?;
        self.book.plans.insert(id, (record, revision));
        Ok(revision)
    }

    /// Starts or resumes a plan.
    async fn apply(
        &mut self,
        id: PlanId,
        by: String,
        request: Option<String>,
    ) -> Result<Result<&'static str, ApplyError>, ControlError> {
        let Some((mut record, _)) = self.book.plans.get(&id).cloned() else {
            return Ok(Err(ApplyError::Unknown(id)));
        };
        if request.is_some() && record.asked == request {
            // It may have failed or been cancelled since: that isn't to be undone.
            return Ok(Ok("again"));
        }
        match record.state {
            PlanState::Finished => return Ok(Ok("finished")),
            PlanState::Applying | PlanState::Promoting | PlanState::Publishing | PlanState::Cancelling => {
                return Ok(Ok("running"));
            }
            PlanState::Cancelled if record.restatement.as_ref().is_some_and(|known| !known.in_place) => {
                return Ok(Err(ApplyError::GivenUp(id)));
            }
            PlanState::Abandoned => return Ok(Err(ApplyError::Abandoned(id))),
            PlanState::Planned | PlanState::Failed | PlanState::Cancelled => {}
        }
        let busy = self.book.plans.iter().find(|(other, (plan, _))| {
            **other != id
                && plan.environment == record.environment
                && !plan.state.is_final()
                && plan.state != PlanState::Planned
        });
        if let Some(switch) = self.book.switches.get(&record.environment) {
            let environment = record.environment.to_string();
            return Ok(Err(ApplyError::Switching { environment, what: switch.what.name() }));
        }
        if let Some((other, _)) = busy {
            let environment = record.environment.to_string();
            return Ok(Err(ApplyError::Busy { other: *other, environment }));
        }
        let body: PlanBody = read_blob(&*self.store, record.body).await?;
        if let Some(blocker) = body.plan.blockers.first() {
            return Ok(Err(ApplyError::Blocked(blocker.clone())));
        }
        if let Some(model) = body.plan.models.iter().find(|model| !apply::is_run(model)) {
            return Ok(Err(ApplyError::Unsupported {
                model: model.name.to_string(),
                kind: model.kind.clone(),
            }));
        }
        record.asked = request;
        if self.is_flipped(id, &record.environment) {
            return self.promote_again(id, record, by).await.map(Ok);
        }
        if let Some(refusal) = self.lacks_approval(&body.plan, &record) {
            return Ok(Err(refusal));
        }
        match self.still_fits(&body.plan, &record) {
            Ok(restatement) => record.restatement = restatement,
            Err(stale) => {
                let why = stale.to_string();
                self.conflict(id, &body.plan, &why).await?;
                return Ok(Err(ApplyError::Stale(why)));
            }
        }
        if body.plan.recomputes() && body.plan.in_place {
            // Its rows are there to be seen with each batch.
            self.overtake(&body.plan).await?;
        }
        let resumed = record.state != PlanState::Planned;
        let left = if record.materialised { Some(self.todos_on_record(id).await?) } else { None };
        record.state = PlanState::Applying;
        record.failures.clear();
        let what = if resumed { "resumed" } else { "started" };
        record.history.push(HistoryEntry { at: (self.clock)(), what: what.to_owned(), by: Some(by.clone()) });
        self.witness_start(id, &record, &by, what);
        let env_key = keys::applying(&record.environment);
        let claim = Txn::new()
            .require(Compare::Absent(env_key.clone()))
            .require(self.environment_unchanged(&record.environment))
            .delete_prefix(keys::setbacks_of(id))
            .put(env_key, encode_json(&id)?);
        self.put_plan(id, record, claim).await?;
        info!(plan = %id, environment = %body.plan.environment, what, "applying");
        let left = match left {
            Some(recorded) => Some(self.shrink(&body.plan, &recorded).await?),
            None => None,
        };
        self.carry_out(&body, left).await?;
        Ok(Ok(what))
    }

    /// Whether a plan's environment shows it already, as far as the pointer goes.
    fn is_flipped(&self, id: PlanId, environment: &EnvironmentName) -> bool {
        let live = self.book.live(environment, (self.clock)());
        live.is_some_and(|environment| environment.plan == id)
    }

    /// The pointer moved but the views could not follow: only they are left to do.
    async fn promote_again(
        &mut self,
        id: PlanId,
        mut record: PlanRecord,
        by: String,
    ) -> Result<&'static str, ControlError> {
        let environment = record.environment.clone();
        record.state = PlanState::Promoting;
        record.failures.clear();
        record.history.push(HistoryEntry {
            at: (self.clock)(),
            what: "switching views again".to_owned(),
            by: Some(by.clone()),
        });
        self.witness_start(id, &record, &by, "switching views again");
        let claim = keys::applying(&environment);
        let txn = Txn::new()
            .require(Compare::Absent(claim.clone()))
            .require(self.environment_unchanged(&environment))
            .put(claim, encode_json(&id)?);
        self.put_plan(id, record, txn).await?;
        self.logs.start(id);
        let mut out = Output::default();
        self.promote(id, &environment, &mut out).await?;
        Box::pin(self.settle(out, Vec::new())).await?;
        Ok("resumed")
    }

    /// What has to hold of an environment's pointer so that nobody else moved it.
    pub(super) fn environment_unchanged(&self, environment: &EnvironmentName) -> Compare {
        let key = keys::environment(environment);
        match self.book.environments.get(environment) {
            Some((_, revision)) => Compare::ModRevision(key, *revision),
            None => Compare::Absent(key),
        }
    }

    /// What is on record of a plan's todo.
    pub(super) async fn todos_on_record(&self, id: PlanId) -> Result<BTreeMap<TableId, Todo>, ControlError> {
        let prefix = keys::todos_of(id);
        let mut todos = BTreeMap::new();
        for entry in self.store.range(&prefix).await?.entries {
            todos.insert(super::book::name(&entry, &prefix)?, super::book::decode(&entry)?);
        }
        Ok(todos)
    }

    /// Puts on record what a plan has to do, and lets the scheduler do it. `left`: what is on
    /// record already.
    pub(super) async fn carry_out(
        &mut self,
        body: &PlanBody,
        left: Option<BTreeMap<TableId, Todo>>,
    ) -> Result<(), ControlError> {
        self.keep_snapshots(body).await?;
        let mut out = Output::default();
        self.spare(body, &mut out).await?;
        self.logs.start(body.plan.id);
        match left {
            Some(todo) => self.admit(&body.plan, &todo, &mut out),
            None => self.begin(&body.plan, &mut out).await?,
        }
        Box::pin(self.settle(out, Vec::new())).await
    }

    /// Lets the scheduler do what is on record.
    pub(super) fn admit(&mut self, plan: &Plan, todo: &BTreeMap<TableId, Todo>, out: &mut Output) {
        let mut work = apply::work(plan, &self.book, todo);
        if plan.skips_computing() {
            for node in &mut work.nodes {
                // Nothing counts as complete before the plan's end.
                node.todo = coord_common::interval::IntervalSet::new();
                node.assumed = coord_common::interval::IntervalSet::new();
            }
        }
        let now = self.now();
        self.scheduler.on(now, Event::Limits(plan.layout.concurrent_tasks.clone()), out);
        self.hold(plan, out);
        self.scheduler.on(now, Event::Admit(work), out);
    }

    /// Records of snapshots are written once; those that exist stay.
    pub(super) async fn keep_snapshots(&mut self, body: &PlanBody) -> Result<(), ControlError> {
        let layout = &body.plan.layout;
        let until = later(&layout.snapshot_ttl, (self.clock)());
        let kept = Kept { until, ttl: layout.snapshot_ttl.clone(), gateway: layout.default_gateway.clone() };
        let kept_value = encode_json(&kept)?;
        let new: Vec<_> = body
            .records
            .iter()
            .filter(|record| !self.book.snapshots.contains_key(&record.id()))
            .cloned()
            .collect();
        for chunk in new.chunks(CHUNK) {
            let mut txn = Txn::new();
            for record in chunk {
                let key = keys::snapshot(record.id());
                let mut value = encode_json(&StoredSnapshot::Inline(record.clone()))?;
                if value.len() > INLINE_BYTES {
                    let bytes = serde_json::to_vec(record).map_err(|e| StoreError::Invalid(e.to_string()))?;
                    let hash = blob::put_blob(&*self.store, &bytes).await?;
                    value = encode_json(&StoredSnapshot::Blob(hash))?;
                }
                if txn.bytes() + value.len() > 1_000_000 {
                    self.commit(std::mem::take(&mut txn)).await?;
                }
                txn = txn.put(key, value).put(keys::kept(record.id()), kept_value.clone());
            }
            self.commit(txn).await?;
            for record in chunk {
                self.book.snapshots.insert(record.id(), record.clone());
                self.book.kept.insert(record.id(), kept.clone());
            }
        }
        Ok(())
    }

    /// Puts on record what a plan has to do.
    pub(super) async fn materialise(
        &mut self,
        plan: &Plan,
        todo: &BTreeMap<TableId, Todo>,
    ) -> Result<(), ControlError> {
        let entries: Vec<_> = todo.iter().collect();
        for chunk in entries.chunks(CHUNK) {
            let mut txn = Txn::new();
            for (table, left) in chunk {
                txn = txn.put(keys::todo(plan.id, table), encode_json(left)?);
            }
            self.commit(txn).await?;
        }
        let Some((record, _)) = self.book.plans.get(&plan.id) else { return Ok(()) };
        let record = PlanRecord { materialised: true, ..record.clone() };
        self.put_plan(plan.id, record, Txn::new()).await?;
        Ok(())
    }

    async fn cancel(
        &mut self,
        id: PlanId,
        by: &str,
    ) -> Result<Result<&'static str, ApplyError>, ControlError> {
        let Some((record, _)) = self.book.plans.get(&id).cloned() else {
            return Ok(Err(ApplyError::Unknown(id)));
        };
        match record.state {
            PlanState::Applying => {}
            PlanState::Cancelling => return Ok(Ok("cancelling")),
            PlanState::Cancelled => return Ok(Ok("cancelled")),
            PlanState::Failed if record.restatement.is_some() => {
                return self.abandon(id, record, by).await.map(Ok);
            }
            state @ (PlanState::Planned
            | PlanState::Promoting
            | PlanState::Publishing
            | PlanState::Finished
            | PlanState::Failed
            | PlanState::Abandoned) => {
                return Ok(Err(ApplyError::NotRunning { plan: id, state: state.name() }));
            }
        }
        let mut record = PlanRecord { state: PlanState::Cancelling, ..record };
        let at = (self.clock)();
        record.history.push(HistoryEntry { at, what: "cancelling".to_owned(), by: Some(by.to_owned()) });
        let environment = Some(record.environment.clone());
        self.witness(Deed { plan: Some(id), environment, ..self.deed(by, "cancelling") });
        self.put_plan(id, record, Txn::new()).await?;
        let mut out = Output::default();
        self.scheduler.on(self.now(), Event::Cancel { plan: id }, &mut out);
        Box::pin(self.settle(out, Vec::new())).await?;
        Ok(Ok("cancelling"))
    }

    /// Acts on what the scheduler noticed.
    pub(super) async fn act(&mut self, notice: Notice, out: &mut Output) -> Result<(), ControlError> {
        match notice {
            Notice::PlanSettled { plan, outcome: PlanOutcome::Complete } => self.complete(plan, out).await,
            Notice::PlanSettled { plan, outcome: PlanOutcome::Failed { failures, .. } } => {
                self.fail(plan, failures, out).await
            }
            Notice::Promoted { plan, promote } if self.is_switch(plan, &promote) => {
                if !self.is_last_part(plan, &promote) {
                    return Ok(());
                }
                self.switched(&promote.environment).await
            }
            Notice::PromoteFailed { plan, promote, failure } if self.is_switch(plan, &promote) => {
                self.switch_failed(&promote.environment, &failure).await
            }
            Notice::Dropped { drop } => self.dropped(&drop).await,
            Notice::DropFailed { drop, failure } => {
                self.drop_failed(&drop, &failure);
                Ok(())
            }
            Notice::PlanCancelled { plan } => {
                self.finish(plan, PlanState::Cancelled, "cancelled").await?;
                self.discard(plan, out).await
            }
            Notice::Published { plan, publish } => self.published(plan, &publish, out).await,
            Notice::PublishFailed { plan, publish, failure } => {
                self.publish_failed(plan, &publish, failure).await
            }
            Notice::ErrandDone { plan, work, done } => self.errand_done(plan, &work, done, out).await,
            Notice::ErrandFailed { plan, work, failure } => {
                self.errand_failed(plan, &work, failure, out).await
            }
            Notice::Promoted { plan, promote } => {
                if !self.is_last_part(plan, &promote) {
                    return Ok(());
                }
                self.promoted(plan, &promote.environment, out).await
            }
            Notice::PromoteFailed { plan, promote, failure } => {
                warn!(plan = %plan, environment = %promote.environment, %failure, "views could not be switched");
                self.logs.failed(plan, format!("views of {}", promote.environment), failure);
                self.promoting.remove(&plan);
                self.finish(plan, PlanState::Failed, "views could not be switched").await
            }
        }
    }

    /// All batches are acknowledged: move the pointer.
    async fn complete(&mut self, id: PlanId, out: &mut Output) -> Result<(), ControlError> {
        let Some((record, _)) = self.book.plans.get(&id).cloned() else { return Ok(()) };
        let body: PlanBody = read_blob(&*self.store, record.body).await?;
        if record.state == PlanState::Promoting {
            // What goes with the views is gone.
            return self.end_well(&body.plan, out).await;
        }
        if !record.materialised && body.plan.has_audits() {
            return self.after_audits(&body.plan, out).await;
        }
        if body.plan.skips_computing() {
            self.record_without_computing(&body.plan).await?;
        }
        if body.plan.recomputes() {
            return self.complete_restatement(id, record, &body.plan, out).await;
        }
        if !record.void.is_empty() && !body.plan.skips_computing() {
            return self.renew(id, record, &body.plan, out).await;
        }
        if body.plan.purpose == Purpose::Run {
            self.note_restated(&body.plan).await?;
            return self.end_well(&body.plan, out).await;
        }
        if let Some(why) = self.overtaken(&body.plan) {
            return self.finish(id, PlanState::Failed, &why).await;
        }
        self.flip(id, record, &body.plan).await?;
        self.promote(id, &body.plan.environment, out).await
    }

    /// Keeps when tables were restated by themselves: only once all that follows from it is through,
    /// so that a run that failed does it again.
    pub(super) async fn note_restated(&mut self, plan: &Plan) -> Result<(), ControlError> {
        for tables in plan.auto_restated.chunks(CHUNK) {
            let mut txn = Txn::new();
            for table in tables {
                txn = txn.put(keys::restated(table), encode_json(&plan.execution_time)?);
                self.book.tables.entry(table.clone()).or_default().restated = Some(plan.execution_time);
            }
            self.commit(txn).await?;
        }
        Ok(())
    }

    /// Marks what a plan covers as done although nothing was computed, because the user asked.
    async fn record_without_computing(&mut self, plan: &Plan) -> Result<(), ControlError> {
        for model in &plan.models {
            let (Some(table), Some(filled)) = (model.declared(), model.filled()) else { continue };
            let known = self.book.tables.entry(table.clone()).or_default();
            known.done = known.done.union(&model.missing).union(&model.assumed);
            let value = encode_intervals(&known.done);
            let txn = Txn::new().put(keys::intervals(table), value).delete(keys::todo(plan.id, filled));
            self.commit(txn).await?;
        }
        Ok(())
    }

    async fn fail(
        &mut self,
        id: PlanId,
        failures: Vec<FailedBatch>,
        out: &mut Output,
    ) -> Result<(), ControlError> {
        warn!(plan = %id, failures = failures.len(), "plan failed");
        let Some((record, _)) = self.book.plans.get_mut(&id) else { return Ok(()) };
        // The record must stay far below the store's limit of a value; all are under `failed/`.
        let kept = failures.into_iter().take(200);
        record.failures = kept
            .map(|failed| FailureRecord {
                batch: failed.batch,
                failure: failed.failure,
                attempts: failed.attempts,
            })
            .collect();
        let body = record.body;
        let body: PlanBody = read_blob(&*self.store, body).await?;
        self.end_badly(&body.plan, out).await
    }

    /// Ends a plan: others may move its environment again.
    pub(super) async fn finish(
        &mut self,
        id: PlanId,
        state: PlanState,
        what: &str,
    ) -> Result<(), ControlError> {
        self.finish_with(id, state, what, Txn::new()).await
    }

    /// Ends a plan together with other changes.
    pub(super) async fn finish_with(
        &mut self,
        id: PlanId,
        state: PlanState,
        what: &str,
        txn: Txn,
    ) -> Result<(), ControlError> {
        let Some((record, _)) = self.book.plans.get(&id).cloned() else { return Ok(()) };
        let mut record = record;
        record.state = state;
        record.history.push(HistoryEntry { at: (self.clock)(), what: what.to_owned(), by: None });
        let by = record.history.iter().rev().find_map(|entry| entry.by.clone()).unwrap_or_default();
        self.witness(Deed {
            plan: Some(id),
            environment: Some(record.environment.clone()),
            ..self.deed(&by, what)
        });
        let mut txn = txn.delete(keys::applying(&record.environment));
        if record.restatement.is_some() {
            self.ended.push(id);
        }
        if state == PlanState::Finished {
            txn = txn.delete_prefix(keys::todos_of(id)).delete_prefix(keys::setbacks_of(id));
        }
        self.put_plan(id, record, txn).await?;
        self.preludes.remove(&id);
        self.logs.end(id, self.scheduler.progress(id));
        self.changed.send_modify(|turns| turns.ended += 1);
        info!(plan = %id, state = state.name(), "plan ended");
        self.scheduler.forget(id);
        Ok(())
    }
}

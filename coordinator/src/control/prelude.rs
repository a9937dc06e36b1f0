//! What goes before a plan's batches and after all of them: statements, and questions to signals.
//!
//! Nothing of it is on record: a takeover starts it anew. Questions only read; statements are fenced
//! in the warehouse, which knows whether they ran for the plan.

use std::collections::BTreeMap;

use coord_common::id::{Hasher, PlanId};
use coord_common::interval::IntervalSet;
use coord_common::plan::{Plan, Purpose};
use coord_common::task::{Batch, Check, Done, Failure, HookPoint, Statements, TableId, Work};
use tracing::{info, warn};

use super::book::{FailureRecord, PlanBody, PlanState, Todo, read_blob};
use super::command::Reply;
use super::{Control, ControlError};
use crate::apply;
use crate::schedule::{Event, Output};
use crate::store::record::encode_json;
use crate::store::{Txn, keys};

/// What signals left of each table's ranges, or why they couldn't be asked.
pub(crate) type Asked = Result<BTreeMap<TableId, Todo>, (String, Failure)>;

/// Questions to signals that are under way for a plan.
pub(super) struct Prelude {
    /// The plan, where it isn't on record.
    plan: Option<Box<Plan>>,
    todo: BTreeMap<TableId, Todo>,
    /// Answers that are still out.
    left: usize,
    ready: BTreeMap<TableId, IntervalSet>,
    failed: Option<(Batch, Failure)>,
    /// Who wants the answer, where the plan isn't being applied.
    reply: Option<Reply<Asked>>,
}

impl Control {
    /// Strikes off a plan's todo what others have done since it was put on record.
    pub(super) async fn shrink(
        &mut self,
        plan: &Plan,
        recorded: &BTreeMap<TableId, Todo>,
    ) -> Result<BTreeMap<TableId, Todo>, ControlError> {
        let left = apply::still_left(plan, &self.book, recorded);
        let changed: Vec<_> =
            recorded.iter().filter(|(table, todo)| left.get(*table) != Some(*todo)).collect();
        for chunk in changed.chunks(super::plans::CHUNK) {
            let mut txn = Txn::new();
            for (table, _) in chunk {
                let key = keys::todo(plan.id, table);
                txn = match left.get(*table) {
                    Some(todo) => txn.put(key, encode_json(todo)?),
                    None => txn.delete(key),
                };
            }
            self.commit(txn).await?;
        }
        Ok(left)
    }

    /// Begins a plan that has nothing on record yet: statements first.
    pub(super) async fn begin(&mut self, plan: &Plan, out: &mut Output) -> Result<(), ControlError> {
        if plan.hooks.before_all.is_empty() {
            return self.audit_first(plan, out).await;
        }
        self.run_statements(plan, HookPoint::BeforeAll, out);
        Ok(())
    }

    fn run_statements(&mut self, plan: &Plan, point: HookPoint, out: &mut Output) {
        let sql = match point {
            HookPoint::BeforeAll => plan.hooks.before_all.clone(),
            HookPoint::AfterAll | HookPoint::AfterFailure => plan.hooks.after_all.clone(),
        };
        let statements = Statements {
            environment: plan.environment.clone(),
            point,
            gateway: plan.layout.default_gateway.clone(),
            sql,
        };
        self.scheduler.on(self.now(), Event::Errand(Work::Statements(statements), plan.id), out);
    }

    /// New and changed audits come before all that is computed: it is put on record once they have
    /// passed.
    async fn audit_first(&mut self, plan: &Plan, out: &mut Output) -> Result<(), ControlError> {
        let Some(work) = apply::audit_work(plan, &self.book) else {
            return self.ask_signals(plan, out).await;
        };
        let now = self.now();
        self.scheduler.on(now, Event::Limits(plan.layout.concurrent_tasks.clone()), out);
        self.scheduler.on(now, Event::Admit(work), out);
        Ok(())
    }

    /// The audits have passed: now all the rest.
    pub(super) async fn after_audits(&mut self, plan: &Plan, out: &mut Output) -> Result<(), ControlError> {
        self.scheduler.forget(plan.id);
        self.ask_signals(plan, out).await
    }

    /// Has signals asked what is ready; where there are none, the plan goes on at once.
    pub(super) async fn ask_signals(&mut self, plan: &Plan, out: &mut Output) -> Result<(), ControlError> {
        let todo = apply::todos(plan, &self.book);
        let checks = if plan.skips_computing() { Vec::new() } else { apply::checks(plan, &self.book, &todo) };
        if checks.is_empty() {
            return self.go_on(plan, &todo, out).await;
        }
        self.ask(plan.id, None, todo, checks, None, out);
        Ok(())
    }

    fn ask(
        &mut self,
        id: PlanId,
        plan: Option<Box<Plan>>,
        todo: BTreeMap<TableId, Todo>,
        checks: Vec<Check>,
        reply: Option<Reply<Asked>>,
        out: &mut Output,
    ) {
        let (left, ready) = (checks.len(), BTreeMap::new());
        self.preludes.insert(id, Prelude { plan, todo, left, ready, failed: None, reply });
        for check in checks {
            self.scheduler.on(self.now(), Event::Errand(Work::Check(check), id), out);
        }
    }

    /// Asks signals about a run that isn't applied.
    pub(super) fn ask_only(&mut self, plan: Box<Plan>, reply: Reply<Asked>, out: &mut Output) {
        let todo = apply::todos(&plan, &self.book);
        let checks = apply::checks(&plan, &self.book, &todo);
        if checks.is_empty() {
            drop(reply.send(Ok(todo)));
            return;
        }
        // Not the plan's own id: it may be applied meanwhile.
        let count = self.preludes.len().to_string();
        let hash = Hasher::new("check/v1").field("plan", plan.id.to_string()).field("count", count).finish();
        self.ask(PlanId(hash), Some(plan), todo, checks, Some(reply), out);
    }

    async fn go_on(
        &mut self,
        plan: &Plan,
        todo: &BTreeMap<TableId, Todo>,
        out: &mut Output,
    ) -> Result<(), ControlError> {
        self.materialise(plan, todo).await?;
        self.admit(plan, todo, out);
        Ok(())
    }

    pub(super) async fn errand_done(
        &mut self,
        id: PlanId,
        work: &Work,
        done: Done,
        out: &mut Output,
    ) -> Result<(), ControlError> {
        match work {
            Work::Check(check) => {
                if let Some(prelude) = self.preludes.get_mut(&id) {
                    prelude.ready.insert(check.task.table.clone(), done.ready);
                }
                self.answered(id, out).await
            }
            Work::Statements(statements) => match statements.point {
                HookPoint::BeforeAll => {
                    let Some(plan) = self.plan_of(id).await? else { return Ok(()) };
                    self.audit_first(&plan, out).await
                }
                HookPoint::AfterAll => self.finish(id, PlanState::Finished, "finished").await,
                HookPoint::AfterFailure => self.finish(id, PlanState::Failed, "failed").await,
            },
            Work::Evaluate(_) | Work::Promote(_) | Work::Publish(_) | Work::Drop(_) => Ok(()),
        }
    }

    pub(super) async fn errand_failed(
        &mut self,
        id: PlanId,
        work: &Work,
        failure: Failure,
        out: &mut Output,
    ) -> Result<(), ControlError> {
        match work {
            Work::Check(check) => {
                if let Some(prelude) = self.preludes.get_mut(&id)
                    && let Some(interval) = check.candidates.hull()
                {
                    let batch = Batch { table: check.task.table.clone(), interval };
                    prelude.failed.get_or_insert((batch, failure));
                }
                self.answered(id, out).await
            }
            Work::Statements(statements) => {
                let name = statements.point.name();
                warn!(plan = %id, %failure, "{name} failed");
                self.logs.failed(id, name.to_owned(), failure);
                self.finish(id, PlanState::Failed, &format!("{name} failed")).await
            }
            Work::Evaluate(_) | Work::Promote(_) | Work::Publish(_) | Work::Drop(_) => Ok(()),
        }
    }

    /// One answer has come: the last one decides.
    async fn answered(&mut self, id: PlanId, out: &mut Output) -> Result<(), ControlError> {
        let Some(prelude) = self.preludes.get_mut(&id) else { return Ok(()) };
        prelude.left -= 1;
        if prelude.left > 0 {
            return Ok(());
        }
        let Some(prelude) = self.preludes.remove(&id) else { return Ok(()) };
        let plan = match &prelude.plan {
            Some(plan) => plan.clone(),
            None => match self.plan_of(id).await? {
                Some(plan) => plan,
                None => return Ok(()),
            },
        };
        let todo = apply::narrowed(&plan, &self.book, &prelude.todo, &prelude.ready);
        match (prelude.reply, prelude.failed) {
            (Some(reply), Some((batch, failure))) => {
                drop(reply.send(Err((batch.table.model.to_string(), failure))));
                Ok(())
            }
            (Some(reply), None) => {
                drop(reply.send(Ok(todo)));
                Ok(())
            }
            (None, Some((batch, failure))) => {
                if let Some((record, _)) = self.book.plans.get_mut(&id) {
                    record.failures = vec![FailureRecord { batch, failure, attempts: 1 }];
                }
                self.end_badly(&plan, out).await
            }
            (None, None) => {
                info!(plan = %id, signals = prelude.ready.len(), "signals have answered");
                self.go_on(&plan, &todo, out).await
            }
        }
    }

    async fn plan_of(&self, id: PlanId) -> Result<Option<Box<Plan>>, ControlError> {
        let Some((record, _)) = self.book.plans.get(&id) else { return Ok(None) };
        let body: PlanBody = read_blob(&*self.store, record.body).await?;
        Ok(Some(Box::new(body.plan)))
    }

    /// All is done but what the project runs after it.
    pub(super) async fn end_well(&mut self, plan: &Plan, out: &mut Output) -> Result<(), ControlError> {
        if plan.hooks.after_all.is_empty() {
            return self.finish(plan.id, PlanState::Finished, "finished").await;
        }
        self.run_statements(plan, HookPoint::AfterAll, out);
        Ok(())
    }

    /// The plan has failed; after a run, the project's statements run all the same.
    pub(super) async fn end_badly(&mut self, plan: &Plan, out: &mut Output) -> Result<(), ControlError> {
        if plan.purpose == Purpose::Change || plan.hooks.after_all.is_empty() {
            return self.finish(plan.id, PlanState::Failed, "failed").await;
        }
        self.run_statements(plan, HookPoint::AfterFailure, out);
        Ok(())
    }
}

//! The flip: the pointer moves in one conditioned transaction, and the views follow it.

use std::sync::Arc;

use coord_common::id::{EnvironmentName, PlanId};
use coord_common::plan::{Environment, Plan, views_by_gateway};
use coord_common::task::Promote;
use tracing::info;

use super::book::{HistoryEntry, PlanBody, PlanRecord, PlanState, Pointer, read_blob};
use super::evidence::Deed;
use super::history::Promotion;
use super::tend::later;
use super::{Control, ControlError, nothing_left};
use crate::apply;
use crate::schedule::{Event, Output};
use crate::store::record::encode_json;
use crate::store::{StoreError, Txn, blob, keys};

impl Control {
    /// Why a plan may not move the pointer: it isn't where the plan found it. The claim keeps other
    /// plans away, so somebody has changed the state by other means; a transaction's compare alone
    /// would only see what changed since this term began.
    pub(super) fn overtaken(&self, plan: &Plan) -> Option<String> {
        let shown = self.book.environments.get(&plan.environment).map_or(0, |(shown, _)| shown.seq);
        if shown == plan.base_seq {
            return None;
        }
        apply::check_base(plan, &self.book, (self.clock)()).err().map(|stale| stale.to_string())
    }

    /// Moves the pointer.
    pub(super) async fn flip(
        &mut self,
        id: PlanId,
        mut record: PlanRecord,
        plan: &Plan,
    ) -> Result<(), ControlError> {
        let environment = Environment {
            name: plan.environment.clone(),
            // The warehouse never goes back: an environment that is made anew counts on.
            seq: self.book.last_seq(&plan.environment) + 1,
            plan: id,
            start: plan.start,
            end: plan.end,
            models: plan.target.clone(),
            hooks: plan.hooks.source.clone(),
            unrestorable: plan.unrestorable.clone(),
        };
        let bytes = serde_json::to_vec(&environment).map_err(|e| StoreError::Invalid(e.to_string()))?;
        let set = blob::put_blob(&*self.store, &bytes).await?;
        // What the views show: a set that they never came to show is left out.
        let shown = |pointer: Pointer| if pointer.views_done { Some(pointer.set) } else { pointer.previous };
        let previous = self.pointer(&plan.environment).await?.and_then(shown);
        let now = (self.clock)();
        let expires = plan.layout.environment_ttl.as_deref().map(|ttl| later(ttl, now));
        // Views that were being dropped may be there or not: all are made.
        let leaving = self.book.pointers.get(&plan.environment).is_some_and(|pointer| pointer.leaving);
        let pointer =
            Pointer { seq: environment.seq, plan: id, set, previous, views_done: false, expires, leaving };
        record.state = PlanState::Promoting;
        let what = format!("flipped {} to revision {}", plan.environment, environment.seq);
        record.history.push(HistoryEntry { at: now, what, by: None });
        let key = keys::environment(&plan.environment);
        let txn = Txn::new()
            .require(nothing_left(id))
            .require(self.environment_unchanged(&plan.environment))
            .put(key, encode_json(&pointer)?);
        let by = record.history.iter().rev().find_map(|entry| entry.by.clone()).unwrap_or_default();
        let from = self.shown_promotions(&plan.environment).next().map(|(seq, _)| seq);
        let promotion =
            Promotion { plan: id, set, at: now, by, from, back_to: None, asked: None, replaced: None };
        let txn = self.put_promotion(&plan.environment, pointer.seq, &promotion, txn)?;
        let checked = vec![
            "everything that the plan has to compute is committed".to_owned(),
            "the environment is as it was when the plan was read".to_owned(),
        ];
        self.witness(Deed {
            plan: Some(id),
            environment: Some(plan.environment.clone()),
            approved_by: record.approvers(),
            checked,
            ..self.deed(&promotion.by, format!("flipped to revision {}", pointer.seq))
        });
        let revision = self.put_plan(id, record, txn).await?;
        self.note_promotion(&plan.environment, pointer.seq, promotion);
        info!(plan = %id, environment = %plan.environment, seq = environment.seq, "flipped");
        let environment = Arc::new(environment);
        let before = self.book.environments.insert(plan.environment.clone(), (environment, revision));
        self.book.pointers.insert(plan.environment.clone(), pointer);
        match before {
            Some((before, _)) => self.left_behind(&before.models, &plan.target).await,
            None => Ok(()),
        }
    }

    pub(super) async fn pointer(
        &self,
        environment: &EnvironmentName,
    ) -> Result<Option<Pointer>, ControlError> {
        let entry = self.store.get(&keys::environment(environment)).await?;
        Ok(entry.as_ref().map(super::book::decode).transpose()?)
    }

    /// Has the views follow the pointer.
    pub(super) async fn promote(
        &mut self,
        id: PlanId,
        name: &EnvironmentName,
        out: &mut Output,
    ) -> Result<(), ControlError> {
        let Some((environment, _)) = self.book.environments.get(name).cloned() else { return Ok(()) };
        let Some(pointer) = self.pointer(name).await? else { return Ok(()) };
        let before: Option<Environment> = match pointer.previous {
            Some(hash) => Some(read_blob(&*self.store, hash).await?),
            None => None,
        };
        let Some((record, _)) = self.book.plans.get(&id) else { return Ok(()) };
        let body: PlanBody = read_blob(&*self.store, record.body).await?;
        let default = &body.plan.layout.default_gateway;
        let mut parts =
            views_by_gateway(before.as_ref().map(|before| &before.models), &environment.models, default);
        if pointer.leaving {
            for (gateway, (all, _)) in views_by_gateway(None, &environment.models, default) {
                parts.entry(gateway).or_default().0 = all;
            }
        }
        let part = |(gateway, (views, drop))| Promote {
            environment: name.clone(),
            seq: environment.seq,
            gateway,
            execution_time: body.plan.execution_time,
            views,
            drop,
            drop_schemas: Vec::new(),
        };
        if self.issue_promotions(id, parts.into_iter().map(part), out) {
            return Ok(());
        }
        Box::pin(self.promoted(id, name, out)).await
    }

    /// Has workers switch views, on every gateway where there is something to do; false where there
    /// is nothing.
    pub(super) fn issue_promotions(
        &mut self,
        id: PlanId,
        parts: impl Iterator<Item = Promote>,
        out: &mut Output,
    ) -> bool {
        let idle = |part: &Promote| part.views.is_empty() && part.drop.is_empty();
        let parts: Vec<Promote> = parts.filter(|part| !idle(part)).collect();
        self.promoting.insert(id, parts.iter().map(|part| part.gateway.clone()).collect());
        let any = !parts.is_empty();
        for part in parts {
            // The warehouse never goes back, even if the state was restored.
            let part = Promote { seq: part.seq + self.book.era.flips, ..part };
            self.scheduler.on(self.now(), Event::Promote(part, id), out);
        }
        any
    }

    /// One gateway's views have followed. Whether all have: then what comes next is due. Those that
    /// belong to an earlier attempt don't count.
    pub(super) fn is_last_part(&mut self, id: PlanId, promote: &Promote) -> bool {
        let seq =
            self.book.pointers.get(&promote.environment).map(|pointer| pointer.seq + self.book.era.flips);
        let Some(left) = self.promoting.get_mut(&id).filter(|_| seq == Some(promote.seq)) else {
            return false;
        };
        left.remove(&promote.gateway) && left.is_empty()
    }

    /// The views show what they should: the plan is done.
    pub(super) async fn promoted(
        &mut self,
        id: PlanId,
        name: &EnvironmentName,
        out: &mut Output,
    ) -> Result<(), ControlError> {
        self.promoting.remove(&id);
        let Some((record, _)) = self.book.plans.get(&id) else { return Ok(()) };
        let body: PlanBody = read_blob(&*self.store, record.body).await?;
        let Some(pointer) = self.pointer(name).await? else { return Ok(()) };
        let key = keys::environment(name);
        let unchanged = self.environment_unchanged(name);
        let pointer = Pointer { views_done: true, leaving: false, ..pointer };
        let txn = Txn::new().require(unchanged).put(key, encode_json(&pointer)?);
        let revision = self.commit(txn).await?;
        if let Some(entry) = self.book.environments.get_mut(name) {
            entry.1 = revision;
        }
        self.book.pointers.insert(name.clone(), pointer);
        match apply::columns_work(&body.plan, &self.book) {
            None => self.end_well(&body.plan, out).await,
            Some(work) => {
                // Nothing reads them any more.
                self.logs.keep(id, self.scheduler.progress(id));
                self.scheduler.forget(id);
                self.scheduler.on(self.now(), Event::Admit(work), out);
                Ok(())
            }
        }
    }
}

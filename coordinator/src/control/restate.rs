//! Restatements: unfinished ones stay on record until they are at their end; what was computed aside
//! is published at once, and only then does anything count.

use std::collections::{BTreeMap, BTreeSet};

use coord_common::id::PlanId;
use coord_common::plan::{Clear, Environment, Plan, PlannedModel, TableRecord};
use coord_common::task::{Failure, Publish, TableId};
use tracing::{info, warn};

use super::book::{HistoryEntry, PlanBody, PlanRecord, PlanState, Restatement, read_blob};
use super::evidence::Deed;
use super::{Control, ControlError, nothing_left};
use crate::apply::{self, Asides, StalePlan};
use crate::schedule::{Event, Output};
use crate::store::record::encode_intervals;
use crate::store::{Txn, keys};

/// Keys of one transaction, beside those of the plan's own record.
const CHUNK: usize = 100;

impl Control {
    /// Checks that a plan can be applied to the environment as it is now; for one that restates, what
    /// is kept of that. A restatement without other changes needs no more than the tables that
    /// it restates.
    pub(super) fn still_fits(
        &self,
        plan: &Plan,
        record: &PlanRecord,
    ) -> Result<Option<Restatement>, StalePlan> {
        if !plan.restates || plan.has_changes {
            apply::check_base(plan, &self.book, (self.clock)())?;
        }
        plan.recomputes().then(|| self.restatement(plan, record)).transpose()
    }

    /// What is kept of a plan that restates and is about to start or to go on.
    ///
    /// # Errors
    /// [`StalePlan`] where the environment shows other tables by now, or somebody added to a table
    /// that is to be replaced whole.
    fn restatement(&self, plan: &Plan, record: &PlanRecord) -> Result<Restatement, StalePlan> {
        apply::check_restated(plan, &self.book)?;
        let based_on = apply::whole_tables(plan, &self.book);
        let aside = apply::goes_aside(plan);
        let before = record.restatement.as_ref().and_then(|known| known.based_on);
        if aside && before.is_some_and(|before| before != based_on) {
            let what = "tables that it replaces whole were added to since it began";
            return Err(StalePlan::new(plan, what.to_owned()));
        }
        let known = record.restatement.clone().unwrap_or_default();
        if let Some(by) = known.overtaken_by {
            let what = format!("restatement {by} has computed some of the same rows since it began");
            return Err(StalePlan::new(plan, what));
        }
        Ok(Restatement { in_place: plan.in_place, aside, based_on: Some(based_on), ..known })
    }

    /// A restatement can't go on: another version of a model was deployed meanwhile. What it has
    /// rewritten in place counts for the other environments all the same.
    pub(super) async fn conflict(&mut self, id: PlanId, plan: &Plan, why: &str) -> Result<(), ControlError> {
        let Some((record, _)) = self.book.plans.get(&id).cloned() else { return Ok(()) };
        if !record.is_unfinished_restatement() {
            return Ok(());
        }
        let mut out = Output::default();
        if plan.in_place {
            let txn = self.clears(plan, &mut out).await?;
            self.commit(txn).await?;
        }
        let mut record = record;
        // It has no end that it could be brought to.
        record.state = PlanState::Cancelled;
        record.restatement = record.restatement.map(|known| Restatement { in_place: false, ..known });
        record.history.push(HistoryEntry { at: (self.clock)(), what: why.to_owned(), by: None });
        self.put_plan(id, record, Txn::new()).await?;
        self.discard(id, &mut out).await?;
        Box::pin(self.settle(out, Vec::new())).await
    }

    /// Keeps others off the tables that a plan restates.
    pub(super) fn hold(&mut self, plan: &Plan, out: &mut Output) {
        if plan.recomputes() {
            let tables = apply::held(plan, &self.book);
            self.scheduler.on(self.now(), Event::Hold { plan: plan.id, tables }, out);
        }
    }

    /// Lets others at the tables of restatements that have ended.
    pub(super) fn let_go(&mut self, out: &mut Output) {
        for plan in std::mem::take(&mut self.ended) {
            self.scheduler.on(self.now(), Event::Release { plan }, out);
        }
    }

    /// All batches of a restatement are acknowledged: publish what was computed aside.
    pub(super) async fn complete_restatement(
        &mut self,
        id: PlanId,
        record: PlanRecord,
        plan: &Plan,
        out: &mut Output,
    ) -> Result<(), ControlError> {
        let mut record = record;
        record.state = PlanState::Publishing;
        record.history.push(HistoryEntry { at: (self.clock)(), what: "publishing".to_owned(), by: None });
        let txn = Txn::new().require(nothing_left(id)).require(self.environment_unchanged(&plan.environment));
        self.put_plan(id, record, txn).await?;
        self.publish(plan, out).await
    }

    /// Has what was computed aside published, on every gateway. What is published already is found
    /// to be.
    pub(super) async fn publish(&mut self, plan: &Plan, out: &mut Output) -> Result<(), ControlError> {
        let asides = Asides::of(plan, &self.book, &BTreeMap::new());
        let publications = asides.publications(plan, &self.book, false, self.round(plan.id));
        self.publishing.insert(plan.id, publications.iter().map(|part| part.gateway.clone()).collect());
        if publications.is_empty() {
            return self.conclude(plan, out).await;
        }
        for publish in publications {
            self.scheduler.on(self.now(), Event::Publish(publish, plan.id), out);
        }
        Ok(())
    }

    fn round(&self, id: PlanId) -> u32 {
        let known = self.book.plans.get(&id).and_then(|(record, _)| record.restatement.as_ref());
        known.map_or(0, |known| known.round)
    }

    /// One gateway's tables are published, or dropped.
    pub(super) async fn published(
        &mut self,
        id: PlanId,
        publish: &Publish,
        out: &mut Output,
    ) -> Result<(), ControlError> {
        // Where another gateway's part failed, or this one is of an earlier attempt, it doesn't count.
        let round = self.round(id);
        let Some(left) = self.publishing.get_mut(&id).filter(|_| publish.round == round) else {
            return Ok(());
        };
        if !left.remove(&publish.gateway) || !left.is_empty() {
            return Ok(());
        }
        self.publishing.remove(&id);
        let Some((record, _)) = self.book.plans.get(&id).cloned() else { return Ok(()) };
        let body: PlanBody = read_blob(&*self.store, record.body).await?;
        if publish.discard { self.discarded(&body.plan).await } else { self.conclude(&body.plan, out).await }
    }

    /// The warehouse shows the restated rows: other environments' tables that were computed from the
    /// old ones no longer count, and the plan is done.
    pub(super) async fn conclude(&mut self, plan: &Plan, out: &mut Output) -> Result<(), ControlError> {
        self.forget_asides(plan).await?;
        self.overtake(plan).await?;
        self.note_restated(plan).await?;
        let txn = self.clears(plan, out).await?;
        let Some((record, revision)) = self.book.plans.get(&plan.id).cloned() else { return Ok(()) };
        let restatement = record.restatement.clone().map(|known| Restatement { aside: false, ..known });
        let record = PlanRecord { restatement, ..record };
        self.book.plans.insert(plan.id, (record.clone(), revision));
        if apply::moves_the_pointer(plan, &self.book) {
            self.commit(txn).await?;
            self.flip(plan.id, record, plan).await?;
            return self.promote(plan.id, &plan.environment, out).await;
        }
        if !plan.hooks.after_all.is_empty() {
            self.commit(txn).await?;
            return self.end_well(plan, out).await;
        }
        self.finish_with(plan.id, PlanState::Finished, "finished", txn).await
    }

    /// Notes with restatements that failed that some of what they have computed aside is older than what
    /// is shown by now.
    pub(super) async fn overtake(&mut self, plan: &Plan) -> Result<(), ControlError> {
        for (id, record) in self.open_plans(plan.id) {
            let Some(known) = record.restatement.clone().filter(|known| known.aside) else { continue };
            let body: PlanBody = read_blob(&*self.store, record.body).await?;
            if record.state == PlanState::Failed && apply::restate_the_same(plan, &body.plan) {
                let restatement = Some(Restatement { overtaken_by: Some(plan.id), ..known });
                self.put_plan(id, PlanRecord { restatement, ..record }, Txn::new()).await?;
            }
        }
        Ok(())
    }

    /// Strikes the ranges of other tables that a restatement has made stale. All but the last
    /// changes are committed; those are returned, to go with the plan's end. Leases over the ranges
    /// are marked before: whoever takes over then knows that what they commit doesn't count.
    async fn clears(&mut self, plan: &Plan, out: &mut Output) -> Result<Txn, ControlError> {
        let cleared = self.cleared(plan).await?;
        self.void(plan, &cleared).await?;
        let mut ranges = Vec::new();
        let mut left: BTreeMap<TableId, TableRecord> = BTreeMap::new();
        for clear in cleared {
            let known = self.book.tables.get(&clear.table);
            if let Some(known) = known.filter(|known| !known.done.is_empty() || !known.stale.is_empty()) {
                strike(left.entry(clear.table.clone()).or_insert_with(|| known.clone()), &clear);
            }
            // A table that isn't made yet may be in flight.
            ranges.push((clear.table, clear.range));
        }
        left.retain(|table, left| self.book.tables.get(table).is_some_and(|known| known != left));
        if !ranges.is_empty() {
            info!(plan = %plan.id, tables = ranges.len(), "other tables are no longer complete");
            self.scheduler.on(self.now(), Event::Clear(ranges), out);
            self.record_now(out).await?;
        }
        let mut txn = Txn::new();
        for (n, (table, left)) in left.iter().enumerate() {
            if n > 0 && 2 * n % CHUNK == 0 {
                self.commit(std::mem::take(&mut txn)).await?;
            }
            txn = txn.put(keys::intervals(table), encode_intervals(&left.done));
            let stale = keys::stale(table);
            let none = left.stale.is_empty();
            txn = if none { txn.delete(stale) } else { txn.put(stale, encode_intervals(&left.stale)) };
        }
        self.book.tables.extend(left);
        Ok(txn)
    }

    /// Notes with the plans that go on, or may, what of their tables doesn't count when they fill it: they
    /// don't compute again what they read of other tables' stale ranges.
    async fn void(&mut self, plan: &Plan, cleared: &[Clear]) -> Result<(), ControlError> {
        let open: Vec<(PlanId, PlanRecord)> = self.open_plans(plan.id);
        for (id, record) in open {
            let body: PlanBody = read_blob(&*self.store, record.body).await?;
            let tables: BTreeSet<&TableId> = body.plan.models.iter().flat_map(PlannedModel::tables).collect();
            let new = |clear: &&Clear| tables.contains(&clear.table) && !record.void.contains(clear);
            let more: Vec<Clear> = cleared.iter().filter(new).cloned().collect();
            if !more.is_empty() {
                let void = [record.void.clone(), more].concat();
                self.put_plan(id, PlanRecord { void, ..record }, Txn::new()).await?;
            }
        }
        Ok(())
    }

    /// Has a plan compute what was cleared while it was under way, before anybody sees what it leaves: all
    /// that it has computed or relied on, and that isn't complete by now. What it read of that may have
    /// been stale, so none of it counted. Until the next restatement ends, this is the last time.
    pub(super) async fn renew(
        &mut self,
        id: PlanId,
        record: PlanRecord,
        plan: &Plan,
        out: &mut Output,
    ) -> Result<(), ControlError> {
        let mut record = record;
        let what = "computing again what was restated meanwhile";
        record.history.push(HistoryEntry { at: (self.clock)(), what: what.to_owned(), by: None });
        let round = record.round + 1;
        let record = PlanRecord { void: Vec::new(), materialised: false, renewed: true, round, ..record };
        self.put_plan(id, record, Txn::new()).await?;
        info!(plan = %id, round, "{what}");
        self.scheduler.forget(id);
        self.ask_signals(plan, out).await
    }

    /// Plans that go on, or may, but for one.
    fn open_plans(&self, but: PlanId) -> Vec<(PlanId, PlanRecord)> {
        let open = |record: &PlanRecord| {
            record.state.is_under_way() || matches!(record.state, PlanState::Failed | PlanState::Cancelled)
        };
        let others = self.book.plans.iter().filter(|(id, (record, _))| **id != but && open(record));
        others.map(|(id, (record, _))| (*id, record.clone())).collect()
    }

    /// What a restatement has made stale: what its plan says, and what has come since it was made. Plans
    /// that go on, or may, are environments to be: their tables, too, were filled from the old rows.
    async fn cleared(&self, plan: &Plan) -> Result<Vec<Clear>, ControlError> {
        let mut environments: Vec<Environment> =
            self.book.environments.values().map(|(environment, _)| (**environment).clone()).collect();
        for (_, record) in self.open_plans(plan.id) {
            let body: PlanBody = read_blob(&*self.store, record.body).await?;
            environments.push(to_be(body.plan));
        }
        Ok(apply::clears(plan, &self.book, &environments.iter().collect::<Vec<_>>()))
    }

    /// Strikes tables aside off the record; they are gone from the warehouse.
    async fn forget_asides(&mut self, plan: &Plan) -> Result<(), ControlError> {
        let tables = Asides::of(plan, &self.book, &BTreeMap::new()).tables(plan);
        for chunk in tables.chunks(CHUNK) {
            let txn = chunk.iter().fold(Txn::new(), |txn, table| txn.delete(keys::intervals(table)));
            self.commit(txn).await?;
            for table in chunk {
                self.book.tables.remove(table);
            }
        }
        Ok(())
    }

    /// Gives up a restatement that failed: nothing of it runs, but it counts as unfinished until
    /// somebody says otherwise.
    pub(super) async fn abandon(
        &mut self,
        id: PlanId,
        mut record: PlanRecord,
        by: &str,
    ) -> Result<&'static str, ControlError> {
        record.state = PlanState::Cancelled;
        record.history.push(HistoryEntry {
            at: (self.clock)(),
            what: "cancelled".to_owned(),
            by: Some(by.to_owned()),
        });
        let environment = Some(record.environment.clone());
        self.witness(Deed { plan: Some(id), environment, ..self.deed(by, "cancelled") });
        self.put_plan(id, record, Txn::new()).await?;
        let mut out = Output::default();
        self.discard(id, &mut out).await?;
        Box::pin(self.settle(out, Vec::new())).await?;
        Ok("cancelled")
    }

    /// A restatement was given up: what it computed aside is dropped.
    pub(super) async fn discard(&mut self, id: PlanId, out: &mut Output) -> Result<(), ControlError> {
        let Some((record, _)) = self.book.plans.get(&id).cloned() else { return Ok(()) };
        if !record.restatement.as_ref().is_some_and(|known| known.aside) {
            return Ok(());
        }
        let body: PlanBody = read_blob(&*self.store, record.body).await?;
        let todo = self.todos_on_record(id).await?;
        let publications = Asides::of(&body.plan, &self.book, &todo).publications(
            &body.plan,
            &self.book,
            true,
            self.round(id),
        );
        self.publishing.insert(id, publications.iter().map(|part| part.gateway.clone()).collect());
        if publications.is_empty() {
            return self.discarded(&body.plan).await;
        }
        for publish in publications {
            self.scheduler.on(self.now(), Event::Publish(publish, id), out);
        }
        Ok(())
    }

    async fn discarded(&mut self, plan: &Plan) -> Result<(), ControlError> {
        self.forget_asides(plan).await?;
        let Some((record, _)) = self.book.plans.get(&plan.id).cloned() else { return Ok(()) };
        let restatement = record.restatement.clone().map(|known| Restatement { aside: false, ..known });
        let record = PlanRecord { restatement, materialised: false, ..record };
        let txn = Txn::new().delete_prefix(keys::todos_of(plan.id)).delete_prefix(keys::setbacks_of(plan.id));
        self.put_plan(plan.id, record, txn).await?;
        info!(plan = %plan.id, "what was computed aside is dropped");
        Ok(())
    }

    /// A publication can't be done.
    pub(super) async fn publish_failed(
        &mut self,
        id: PlanId,
        publish: &Publish,
        failure: Failure,
    ) -> Result<(), ControlError> {
        let gateway = &publish.gateway;
        warn!(plan = %id, gateway, discard = publish.discard, %failure, "tables aside could not be handled");
        // What was given up is dropped when a coordinator starts again.
        if publish.discard {
            return Ok(());
        }
        self.publishing.remove(&id);
        self.logs.failed(id, format!("publication on gateway {gateway}"), failure);
        self.finish(id, PlanState::Failed, "restated rows could not be published").await
    }
}

/// Takes a range off what a table holds, and off what it held once unless that stays on record.
fn strike(table: &mut TableRecord, clear: &Clear) {
    if clear.on_record {
        let kept = table.done.ranges().iter().filter_map(|done| done.intersection(clear.range));
        table.stale = kept.fold(std::mem::take(&mut table.stale), |stale, range| stale.union(&range.into()));
    } else {
        table.stale.remove(clear.range);
    }
    table.done.remove(clear.range);
}

/// What an environment will show once a plan is through.
fn to_be(plan: Plan) -> Environment {
    Environment {
        name: plan.environment,
        seq: plan.base_seq + 1,
        plan: plan.id,
        start: plan.start,
        end: plan.end,
        models: plan.target,
        hooks: plan.hooks.source,
        unrestorable: plan.unrestorable,
    }
}

#[cfg(test)]
mod tests {
    use coord_common::id::{Hash128, Version};
    use coord_common::interval::{Interval, Timestamp};

    use super::*;

    fn range(start: i64, end: i64) -> Interval {
        Interval { start: Timestamp(start), end: Timestamp(end) }
    }

    #[test]
    fn what_is_struck_off_stays_on_record_where_nobody_shows_it() {
        let table =
            TableId { model: "a.b".parse().unwrap(), version: Version(Hash128(1)), dev: false, aside: None };
        let clear =
            |start, end, on_record| Clear { table: table.clone(), range: range(start, end), on_record };
        let mut known = TableRecord { done: range(0, 50).into(), ..TableRecord::default() };
        strike(&mut known, &clear(10, 20, true));
        strike(&mut known, &clear(40, 90, true));
        assert_eq!(known.stale.ranges(), [range(10, 20), range(40, 50)]);
        assert_eq!(known.done.ranges(), [range(0, 10), range(20, 40)]);
        // Restated again, while some environment shows another version: it is as if it never was there.
        strike(&mut known, &clear(15, 30, false));
        assert_eq!(known.stale.ranges(), [range(10, 15), range(40, 50)]);
        assert_eq!(known.done.ranges(), [range(0, 10), range(30, 40)]);
        // Twice is once.
        let before = known.clone();
        strike(&mut known, &clear(15, 30, false));
        strike(&mut known, &clear(40, 90, true));
        assert_eq!(known, before);
    }
}

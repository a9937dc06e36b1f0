//! Going back: an environment shows again what an earlier plan promoted, with nothing computed.
//! And giving up: plans that weren't carried out, and development environments with all they have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coord_common::id::{EnvironmentName, ModelName, PlanId, SnapshotId};
use coord_common::interval::Interval;
use coord_common::plan::Environment;
use serde::Serialize;

use super::book::{HistoryEntry, PlanBody, PlanRecord, PlanState, Pointer, SwitchKind, read_blob};
use super::evidence::Deed;
use super::history::{Kept, Promotion};
use super::tend::{RollbackTo, Tended, unknown};
use super::{Control, ControlError};
use crate::planning::Refusal;
use crate::schedule::Output;
use crate::store::{StoreError, Txn, blob, keys};

/// What going back means.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GoneBack {
    /// The environment.
    pub(crate) environment: EnvironmentName,
    /// The plan whose result it showed.
    pub(crate) from_plan: PlanId,
    /// The plan whose result it shows.
    pub(crate) to_plan: PlanId,
    /// When that was promoted.
    pub(crate) promoted: String,
    /// Models whose views show other tables.
    pub(crate) changed: Vec<ModelName>,
    /// Models that it shows no more.
    pub(crate) removed: Vec<ModelName>,
    /// Intervals that the tables which it showed have, and those which it shows lack.
    pub(crate) lacking: BTreeMap<ModelName, Vec<Range>>,
}

/// A range of time, for documents.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Range {
    start: String,
    end: String,
}

impl From<&Interval> for Range {
    fn from(interval: &Interval) -> Self {
        Self { start: interval.start.to_string(), end: interval.end.to_string() }
    }
}

impl Control {
    /// Moves an environment back to what an earlier plan promoted; or, with `dry_run`, says what
    /// that would mean.
    pub(super) async fn roll_back(
        &mut self,
        name: &EnvironmentName,
        RollbackTo { plan: to, dry_run, request }: RollbackTo,
        by: &str,
        out: &mut Output,
    ) -> Result<Result<Tended, Refusal>, ControlError> {
        if let Some(tended) = self.rolled_back(name, request.as_deref()).await? {
            return Ok(Ok(tended));
        }
        let now = (self.clock)();
        let (Some(shown), Some(pointer)) =
            (self.book.live(name, now).cloned(), self.book.pointers.get(name).cloned())
        else {
            return Ok(Err(unknown(name)));
        };
        if let Some(busy) = self.busy(name, self.is_being_moved(name)) {
            return Ok(Err(busy));
        }
        let Some((seq, target)) = self.target_of_rollback(name, to) else {
            return Ok(Err(self.nothing_to_go_back_to(name, to)));
        };
        let earlier: Environment = read_blob(&*self.store, target.set).await?;
        if let Some(refusal) = self.dropped_since(&earlier) {
            return Ok(Err(refusal));
        }
        let back = self.compare(&shown, &earlier, &target);
        let mut tended = Tended { rollback: Some(back), ..Tended::default() };
        if dry_run {
            return Ok(Ok(tended));
        }
        let switch = self.new_switch(name, &pointer, SwitchKind::Rollback, Some(target.set), by).await?;
        let environment = Environment { seq: switch.seq, ..earlier };
        let bytes = serde_json::to_vec(&environment).map_err(|e| StoreError::Invalid(e.to_string()))?;
        let set = blob::put_blob(&*self.store, &bytes).await?;
        let from = self.shown_promotions(name).next().map(|(seq, _)| seq);
        let promotion = Promotion {
            plan: target.plan,
            set,
            at: now,
            by: by.to_owned(),
            from,
            back_to: Some(seq),
            asked: request,
            replaced: None,
        };
        let previous = if pointer.views_done { Some(pointer.set) } else { pointer.previous };
        let pointer =
            Pointer { seq: switch.seq, plan: target.plan, set, previous, views_done: false, ..pointer };
        let txn = self.put_promotion(name, switch.seq, &promotion, Txn::new())?;
        tended.gateways.extend(switch.gateways.clone());
        let seq = switch.seq;
        self.begin_switch(name, pointer, switch, txn).await?;
        self.note_promotion(name, seq, promotion);
        let environment = Arc::new(environment);
        if let Some(entry) = self.book.environments.get_mut(name) {
            entry.0 = environment.clone();
        }
        self.left_behind(&shown.models, &environment.models).await?;
        self.issue_switch(name, out).await?;
        tended.waits.environments.insert(name.clone());
        Ok(Ok(tended))
    }

    /// What a call did whose answer got lost, if it did anything.
    async fn rolled_back(
        &self,
        name: &EnvironmentName,
        request: Option<&str>,
    ) -> Result<Option<Tended>, ControlError> {
        let Some(request) = request else { return Ok(None) };
        let all = self.book.promotions.get(name);
        let done = all.and_then(|all| all.values().find(|one| one.asked.as_deref() == Some(request)));
        let (Some(all), Some(done)) = (all, done) else { return Ok(None) };
        let from = done.from.and_then(|seq| all.get(&seq));
        let target = done.back_to.and_then(|seq| all.get(&seq));
        let back = match (from, target) {
            (Some(from), Some(target)) => {
                let shown: Environment = read_blob(&*self.store, from.set).await?;
                let earlier: Environment = read_blob(&*self.store, done.set).await?;
                Some(self.compare(&shown, &earlier, target))
            }
            _ => None,
        };
        let mut tended = Tended { rollback: back, ..Tended::default() };
        if let Some(switch) = self.book.switches.get(name) {
            tended.gateways.extend(switch.gateways.clone());
            tended.waits.environments.insert(name.clone());
        }
        Ok(Some(tended))
    }

    /// The promotion to go back to: the plan's latest one, or the one before the current one.
    fn target_of_rollback(&self, name: &EnvironmentName, to: Option<PlanId>) -> Option<(u64, Promotion)> {
        let all = self.book.promotions.get(name)?;
        let window = self.window(name);
        let current = all.iter().rev().find(|(_, promotion)| promotion.replaced.is_none());
        let former = |seq: &u64| window.contains(seq) && all[seq].replaced.is_some();
        let seq = match to {
            Some(plan) => all.keys().rev().find(|seq| former(seq) && all[seq].plan == plan).copied(),
            None => current
                .and_then(|(_, promotion)| promotion.from)
                .filter(|seq| all.contains_key(seq) && former(seq))
                .or_else(|| all.keys().rev().find(|seq| former(seq)).copied()),
        }?;
        Some((seq, all[&seq].clone()))
    }

    fn nothing_to_go_back_to(&self, name: &EnvironmentName, to: Option<PlanId>) -> Refusal {
        let retention = self.config.retention;
        let days = retention.promotion_age / 86_400_000;
        let window = format!("the last {} promotions of {days} days are kept", retention.promotions);
        let message = match to {
            Some(plan) => format!("`{name}` can't go back to plan {plan}: {window}"),
            None => format!("`{name}` has nothing to go back to: {window}"),
        };
        Refusal::new("nothing-to-go-back-to", message, "`coordctl promotions` lists what it showed")
    }

    /// Says which tables of an earlier promotion are gone, if any are.
    fn dropped_since(&self, earlier: &Environment) -> Option<Refusal> {
        let gone = |table| !self.book.tables.contains_key(table);
        let names: Vec<String> = earlier
            .models
            .iter()
            .filter(|(_, model)| {
                model.table.as_ref().is_some_and(gone) || !self.book.snapshots.contains_key(&model.snapshot)
            })
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        (!names.is_empty()).then(|| {
            let message = format!("tables of {} were dropped since", names.join(", "));
            Refusal::new("tables-dropped", message, "plan the earlier version of the project instead")
        })
    }

    fn compare(&self, shown: &Environment, earlier: &Environment, target: &Promotion) -> GoneBack {
        let mut changed = Vec::new();
        let mut lacking = BTreeMap::new();
        for (name, model) in &shown.models {
            let Some(before) = earlier.models.get(name) else { continue };
            if before.relation == model.relation {
                continue;
            }
            changed.push(name.clone());
            let done = |model: &coord_common::plan::EnvironmentModel| {
                let known = model.table.as_ref().and_then(|table| self.book.tables.get(table));
                known.map(|known| known.done.clone()).unwrap_or_default()
            };
            let lacks = done(model).difference(&done(before));
            if !lacks.is_empty() {
                lacking.insert(name.clone(), lacks.ranges().iter().map(Range::from).collect());
            }
        }
        let removed = shown.models.keys().filter(|name| !earlier.models.contains_key(*name));
        GoneBack {
            environment: shown.name.clone(),
            from_plan: shown.plan,
            to_plan: target.plan,
            promoted: target.at.to_string(),
            removed: removed.cloned().collect(),
            changed,
            lacking,
        }
    }

    /// Why an environment can't be moved now, if it can't.
    fn busy(&self, name: &EnvironmentName, moved: bool) -> Option<Refusal> {
        let what =
            self.book.switches.get(name).map(|switch| format!("`{name}` is being {}", switch.what.name()));
        let plan = || moved.then(|| format!("a plan is being applied to `{name}`, or left half done"));
        let message = what.or_else(plan)?;
        let hint = "wait for it to end (`coordctl status`), or cancel it (`coordctl cancel`)";
        Some(Refusal::new("environment-busy", message, hint))
    }

    /// Gives a plan up that wasn't carried out. One that a development environment shows is given up
    /// with the environment.
    pub(super) async fn abandon_plan(
        &mut self,
        id: PlanId,
        by: &str,
        out: &mut Output,
    ) -> Result<Result<Tended, Refusal>, ControlError> {
        let Some((record, _)) = self.book.plans.get(&id).cloned() else {
            let hint = "`coordctl plans` lists the plans that are kept";
            return Ok(Err(Refusal::new("unknown-plan", format!("there is no plan `{id}`"), hint)));
        };
        let shown = self.book.live(&record.environment, (self.clock)()).is_some_and(|shown| shown.plan == id);
        if shown && !record.state.is_under_way() {
            return self.abandon_environment(&record.environment, by, out).await;
        }
        match record.state {
            PlanState::Planned | PlanState::Failed | PlanState::Cancelled => {
                self.give_plan_up(id, record, by).await?;
                Ok(Ok(Tended { plans: BTreeSet::from([id]), ..Tended::default() }))
            }
            PlanState::Abandoned => Ok(Ok(Tended::default())),
            PlanState::Finished => Ok(Err(Refusal::new(
                "plan-finished",
                format!("plan `{id}` is finished, and `{}` has moved on since", record.environment),
                "there is nothing to give up",
            ))),
            PlanState::Applying | PlanState::Cancelling | PlanState::Promoting | PlanState::Publishing => {
                Ok(Err(Refusal::new(
                    "plan-running",
                    format!("plan `{id}` is {}", record.state.name()),
                    "stop it first: `coordctl cancel`",
                )))
            }
        }
    }

    async fn give_plan_up(&mut self, id: PlanId, record: PlanRecord, by: &str) -> Result<(), ControlError> {
        if record.restatement.is_some() {
            // What it computed aside is dropped before it counts as given up.
            if record.state == PlanState::Failed {
                self.abandon(id, record, by).await?;
            }
            return Ok(());
        }
        let now = (self.clock)();
        let body: PlanBody = read_blob(&*self.store, record.body).await?;
        let mut record = PlanRecord { state: PlanState::Abandoned, materialised: false, ..record };
        record.history.push(HistoryEntry { at: now, what: "abandoned".to_owned(), by: Some(by.to_owned()) });
        let environment = Some(record.environment.clone());
        self.witness(Deed { plan: Some(id), environment, ..self.deed(by, "abandoned") });
        let txn = Txn::new().delete_prefix(keys::todos_of(id)).delete_prefix(keys::setbacks_of(id));
        self.put_plan(id, record, txn).await?;
        self.no_longer_kept(body.records.iter().map(|record| record.id()).collect()).await
    }

    /// Gives a development environment up at once: its plans, its views, and what it alone used.
    pub(super) async fn abandon_environment(
        &mut self,
        name: &EnvironmentName,
        by: &str,
        out: &mut Output,
    ) -> Result<Result<Tended, Refusal>, ControlError> {
        if name.is_prod() {
            return Ok(Err(Refusal::new(
                "abandon-prod",
                "production can't be abandoned",
                "`coordctl rollback prod` goes back to what it showed before",
            )));
        }
        let open: Vec<(PlanId, PlanRecord)> = self
            .book
            .plans
            .iter()
            .filter(|(_, (plan, _))| plan.environment == *name && plan.state.can_be_applied())
            .map(|(id, (plan, _))| (*id, plan.clone()))
            .collect();
        if open.is_empty() && !self.book.pointers.contains_key(name) {
            return Ok(Err(unknown(name)));
        }
        let mut plans = self.book.plans.values();
        let applying = plans.any(|(plan, _)| plan.environment == *name && plan.state.is_under_way());
        if let Some(busy) = self.busy(name, applying) {
            return Ok(Err(busy));
        }
        let mut tended = Tended::default();
        for (id, record) in open {
            self.give_plan_up(id, record, by).await?;
            tended.plans.insert(id);
        }
        if self.book.pointers.contains_key(name) {
            let mut used = BTreeSet::new();
            let promotions = self.book.promotions.get(name).into_iter().flatten();
            for set in promotions.map(|(_, promotion)| promotion.set).collect::<Vec<_>>() {
                let shown: Environment = read_blob(&*self.store, set).await?;
                used.extend(shown.models.values().map(|model| model.snapshot));
            }
            self.no_longer_kept(used).await?;
            self.retire(name, by, out).await?;
            tended
                .gateways
                .extend(self.book.switches.get(name).into_iter().flat_map(|switch| switch.gateways.clone()));
            tended.environments.insert(name.clone());
            tended.waits.environments.insert(name.clone());
        }
        Ok(Ok(tended))
    }

    /// Snapshots that the next janitor may take, unless something else needs them.
    async fn no_longer_kept(&mut self, snapshots: BTreeSet<SnapshotId>) -> Result<(), ControlError> {
        let now = (self.clock)();
        let kept = snapshots.into_iter().filter_map(|id| Some((id, self.book.kept.get(&id)?.clone())));
        let kept = kept.map(|(id, kept)| (id, Kept { until: kept.until.min(now), ..kept })).collect();
        self.put_kept(kept).await
    }
}

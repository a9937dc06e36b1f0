//! Changes of an environment's views that are no plan's: its end, and rolling it back. One
//! transaction decides; the views follow; a last transaction says so. Each can be taken again
//! after a crash.

use std::collections::{BTreeMap, BTreeSet};

use coord_common::id::{EnvironmentName, Hash128, Hasher, PlanId};
use coord_common::plan::{Environment, views_by_gateway};
use coord_common::task::{Failure, Promote, Relation};
use tracing::{info, warn};

use super::book::{PlanBody, Pointer, Switch, SwitchKind, read_blob};
use super::evidence::Deed;
use super::{Control, ControlError};
use crate::schedule::Output;
use crate::store::record::encode_json;
use crate::store::{Compare, Txn, keys};

/// Blobs that the end of an environment deletes, at most: one transaction has limits.
const MOST_SETS: usize = 100;

impl SwitchKind {
    /// What is being done to the environment.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Retire => "removed",
            Self::Rollback => "rolled back",
            Self::Restore => "restored",
        }
    }
}

impl Control {
    /// Whether a promotion is a switch's.
    pub(super) fn is_switch(&self, id: PlanId, promote: &Promote) -> bool {
        self.book.switches.get(&promote.environment).is_some_and(|switch| switch.id == id)
    }

    /// Begins to remove an environment: nobody sees it from now on, and its views are dropped.
    pub(super) async fn retire(
        &mut self,
        name: &EnvironmentName,
        by: &str,
        out: &mut Output,
    ) -> Result<(), ControlError> {
        let Some(pointer) = self.book.pointers.get(name).cloned() else { return Ok(()) };
        let now = (self.clock)();
        let expires = pointer.expires.map_or(now, |at| at.min(now));
        let switch = self.new_switch(name, &pointer, SwitchKind::Retire, None, by).await?;
        let pointer =
            Pointer { seq: switch.seq, expires: Some(expires), leaving: true, views_done: false, ..pointer };
        self.begin_switch(name, pointer, switch, Txn::new()).await?;
        self.issue_switch(name, out).await
    }

    /// A switch to the next number; `also` is a set that it moves to.
    pub(super) async fn new_switch(
        &self,
        name: &EnvironmentName,
        pointer: &Pointer,
        what: SwitchKind,
        also: Option<Hash128>,
        by: &str,
    ) -> Result<Switch, ControlError> {
        let seq = self.book.last_seq(name) + 1;
        let hash = Hasher::new("switch/v1").field("environment", name.as_str()).field("seq", seq.to_string());
        let gateway = match self.book.plans.get(&pointer.plan) {
            Some((record, _)) => {
                read_blob::<PlanBody>(&*self.store, record.body).await?.plan.layout.default_gateway
            }
            None => String::new(),
        };
        let (at, by) = ((self.clock)(), by.to_owned());
        let mut gateways = BTreeSet::from([gateway.clone()]);
        for set in [Some(pointer.set), pointer.previous, also].into_iter().flatten() {
            let shown: Environment = read_blob(&*self.store, set).await?;
            gateways.extend(shown.models.into_values().filter_map(|model| model.gateway));
        }
        Ok(Switch { id: PlanId(hash.finish()), seq, what, gateway, gateways, at, by })
    }

    /// Moves the pointer, and claims the environment until the views have followed.
    pub(super) async fn begin_switch(
        &mut self,
        name: &EnvironmentName,
        pointer: Pointer,
        switch: Switch,
        txn: Txn,
    ) -> Result<(), ControlError> {
        let txn = txn
            .require(Compare::Absent(keys::applying(name)))
            .require(self.environment_unchanged(name))
            .put(keys::environment(name), encode_json(&pointer)?)
            .put(keys::applying(name), encode_json(&switch.id)?)
            .put(keys::switch(name), encode_json(&switch)?);
        let environment = Some(name.clone());
        let checked = vec!["the environment is as it was read, and no plan is applied to it".to_owned()];
        let plan = (switch.what == SwitchKind::Rollback).then_some(pointer.plan);
        let deed = self.deed(&switch.by, switch.what.name());
        self.witness(Deed { environment, plan, checked, ..deed });
        let revision = self.commit(txn).await?;
        info!(environment = %name, seq = switch.seq, by = switch.by, what = switch.what.name(), "switching");
        if let Some(entry) = self.book.environments.get_mut(name) {
            entry.1 = revision;
        }
        self.book.pointers.insert(name.clone(), pointer);
        self.book.switches.insert(name.clone(), switch);
        self.troubles.remove(name.as_str());
        Ok(())
    }

    /// Has the views follow a switch.
    pub(super) async fn issue_switch(
        &mut self,
        name: &EnvironmentName,
        out: &mut Output,
    ) -> Result<(), ControlError> {
        let Some(switch) = self.book.switches.get(name).cloned() else { return Ok(()) };
        let parts = self.switch_work(name, &switch).await?;
        if self.issue_promotions(switch.id, parts.into_iter(), out) {
            return Ok(());
        }
        self.switched(name).await
    }

    /// What workers have to do for a switch, gateway by gateway.
    async fn switch_work(
        &self,
        name: &EnvironmentName,
        switch: &Switch,
    ) -> Result<Vec<Promote>, ControlError> {
        let (Some((environment, _)), Some(pointer)) =
            (self.book.environments.get(name), self.book.pointers.get(name))
        else {
            return Ok(Vec::new());
        };
        let before: Option<Environment> = match pointer.previous {
            Some(hash) => Some(read_blob(&*self.store, hash).await?),
            None => None,
        };
        let part = |gateway: &str| Promote {
            environment: name.clone(),
            seq: switch.seq,
            gateway: gateway.to_owned(),
            execution_time: switch.at,
            views: Vec::new(),
            drop: Vec::new(),
            drop_schemas: Vec::new(),
        };
        Ok(match switch.what {
            SwitchKind::Retire => {
                let sets = before.iter().chain([&**environment]);
                let mut shown: BTreeMap<&str, BTreeSet<Relation>> = BTreeMap::new();
                for model in sets.flat_map(|set| set.models.values()) {
                    let of = shown.entry(model.view_gateway(&switch.gateway)).or_default();
                    of.extend(model.view.clone());
                }
                let retire = |(gateway, shown): (&str, BTreeSet<Relation>)| Promote {
                    drop_schemas: self.own_schemas(name, &shown),
                    drop: shown.into_iter().collect(),
                    ..part(gateway)
                };
                shown.into_iter().map(retire).collect()
            }
            SwitchKind::Rollback | SwitchKind::Restore => {
                let before = before.as_ref().filter(|_| switch.what == SwitchKind::Rollback);
                let before = before.map(|before| &before.models);
                let parts = views_by_gateway(before, &environment.models, &switch.gateway);
                let back = |(gateway, (views, drop)): (String, _)| Promote { views, drop, ..part(&gateway) };
                parts.into_iter().map(back).collect()
            }
        })
    }

    /// Schemas that were made for an environment alone: they carry its suffix, and no other
    /// environment has a view there.
    fn own_schemas(
        &self,
        name: &EnvironmentName,
        shown: &BTreeSet<Relation>,
    ) -> Vec<(Option<String>, String)> {
        let Some(suffix) = name.suffix() else { return Vec::new() };
        let place = |view: &Relation| (view.catalog.clone(), view.schema.clone());
        let others = self.book.environments.iter().filter(|(other, _)| *other != name);
        let taken: BTreeSet<_> = others
            .flat_map(|(_, (environment, _))| environment.models.values())
            .filter_map(|model| model.view.as_ref().map(place))
            .collect();
        let own = |place: &(Option<String>, String)| {
            let (catalog, schema) = place;
            let named = schema.ends_with(&suffix)
                || catalog.as_ref().is_some_and(|catalog| catalog.ends_with(&suffix));
            named && !taken.contains(place)
        };
        let places: BTreeSet<_> = shown.iter().map(place).filter(own).collect();
        places.into_iter().collect()
    }

    /// The views have followed.
    pub(super) async fn switched(&mut self, name: &EnvironmentName) -> Result<(), ControlError> {
        let (Some(switch), Some(pointer)) =
            (self.book.switches.get(name).cloned(), self.book.pointers.get(name).cloned())
        else {
            return Ok(());
        };
        let end = Txn::new()
            .require(self.environment_unchanged(name))
            .delete(keys::switch(name))
            .delete(keys::applying(name));
        match switch.what {
            SwitchKind::Retire => {
                let seq = encode_json(&switch.seq)?;
                let sets = self.book.promotions.get(name).into_iter().flatten().map(|(_, of)| of.set);
                let sets: BTreeSet<_> =
                    sets.chain([pointer.set]).chain(pointer.previous).take(MOST_SETS).collect();
                let end = sets.into_iter().fold(end, |txn, set| txn.delete_prefix(keys::blob(set)));
                let end = end
                    .delete(keys::environment(name))
                    .delete_prefix(keys::promotions_of(name))
                    .put(keys::gone(name), seq);
                self.commit(end).await?;
                self.book.promotions.remove(name);
                self.book.environments.remove(name);
                self.book.pointers.remove(name);
                self.book.gone.insert(name.clone(), switch.seq);
            }
            SwitchKind::Rollback | SwitchKind::Restore => {
                let pointer = Pointer { views_done: true, ..pointer };
                let revision = self.commit(end.put(keys::environment(name), encode_json(&pointer)?)).await?;
                if let Some(entry) = self.book.environments.get_mut(name) {
                    entry.1 = revision;
                }
                self.book.pointers.insert(name.clone(), pointer);
            }
        }
        self.book.switches.remove(name);
        self.promoting.remove(&switch.id);
        info!(environment = %name, seq = switch.seq, what = switch.what.name(), "switched");
        Ok(())
    }

    /// The views can't follow: what is on record stays, and it can be asked for again.
    pub(super) async fn switch_failed(
        &mut self,
        name: &EnvironmentName,
        failure: &Failure,
    ) -> Result<(), ControlError> {
        warn!(environment = %name, %failure, "views could not be switched");
        let end = Txn::new().delete(keys::switch(name)).delete(keys::applying(name));
        self.commit(end).await?;
        if let Some(switch) = self.book.switches.remove(name) {
            self.promoting.remove(&switch.id);
        }
        let hint = failure.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        self.troubles.insert(name.to_string(), format!("{failure}{hint}"));
        Ok(())
    }
}

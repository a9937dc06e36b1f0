//! What people ask of environments beside plans: to end them, to go back, to tidy up. Decisions
//! are taken here in one turn; workers follow, and [`Control::left`] says how far they are.

use std::collections::{BTreeMap, BTreeSet};

use coord_common::id::{EnvironmentName, PlanId};
use coord_common::interval::{Timestamp, parse_time};
use coord_common::task::TableId;
use serde::Serialize;

use super::book::{Pointer, Switch, SwitchKind};
use super::evidence::Deed;
use super::rollback::GoneBack;
use super::{Control, ControlError};
use crate::planning::Refusal;
use crate::schedule::Output;
use crate::store::Txn;
use crate::store::keys;
use crate::store::record::encode_json;

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) enum Tend {
    /// An environment counts as gone from now on; its views stay until it is retired.
    Invalidate {
        /// Which.
        environment: EnvironmentName,
    },
    /// Remove an environment that has expired, or all of them.
    Retire {
        /// Which; absent: all that have expired.
        environment: Option<EnvironmentName>,
    },
    /// Remove all environments, production too.
    RetireAll,
    /// Show again what an earlier plan promoted.
    Rollback {
        /// Which environment.
        environment: EnvironmentName,
        /// Where to.
        to: RollbackTo,
    },
    /// Give a plan up.
    AbandonPlan {
        /// Which.
        plan: PlanId,
    },
    /// Give a development environment up.
    AbandonEnvironment {
        /// Which.
        environment: EnvironmentName,
    },
    /// Remove what nothing needs any more.
    Collect {
        /// However short ago it was needed.
        ignore_ttl: bool,
    },
}

/// Where an environment goes back to.
#[derive(Debug, Clone)]
pub(crate) struct RollbackTo {
    /// The plan; absent: what it showed before.
    pub(crate) plan: Option<PlanId>,
    /// Only say what it would mean.
    pub(crate) dry_run: bool,
    /// The call that asks, by which it is known if it comes again.
    pub(crate) request: Option<String>,
}

/// What was decided, and what workers have still to do for it.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Tended {
    /// What is to be waited for.
    #[serde(skip)]
    pub(crate) waits: Waits,
    /// Gateways that it needs.
    pub(crate) gateways: BTreeSet<String>,
    /// Environments that end.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) environments: BTreeSet<EnvironmentName>,
    /// Physical tables that are dropped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tables: Vec<String>,
    /// How many snapshots are forgotten.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) snapshots: usize,
    /// Plans that are forgotten, or given up.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) plans: BTreeSet<PlanId>,
    /// What going back means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rollback: Option<GoneBack>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What workers have still to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Waits {
    /// Environments whose views change.
    pub(crate) environments: BTreeSet<EnvironmentName>,
    /// Tables that are dropped.
    pub(crate) tables: BTreeSet<TableId>,
}

/// How far workers are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Left {
    /// How many of what was waited for are open.
    pub(crate) open: usize,
    /// What failed, and why.
    pub(crate) troubles: BTreeMap<String, String>,
}

impl Control {
    /// Decides on what is asked, and sets workers to it.
    pub(super) async fn tend(
        &mut self,
        tend: Tend,
        by: &str,
    ) -> Result<Result<Tended, Refusal>, ControlError> {
        let mut out = Output::default();
        let answer = match tend {
            Tend::Invalidate { environment } => self.invalidate(&environment, by).await?,
            Tend::Rollback { environment, to } => self.roll_back(&environment, to, by, &mut out).await?,
            Tend::AbandonPlan { plan } => self.abandon_plan(plan, by, &mut out).await?,
            Tend::AbandonEnvironment { environment } => {
                self.abandon_environment(&environment, by, &mut out).await?
            }
            Tend::Collect { ignore_ttl } => Ok(self.collect(ignore_ttl, by, &mut out).await?),
            Tend::RetireAll => self.retire_all(by, &mut out).await?,
            Tend::Retire { environment } => self.retire_expired(environment, by, &mut out).await?,
        };
        Box::pin(self.settle(out, Vec::new())).await?;
        Ok(answer)
    }

    /// An environment counts as gone from now on.
    async fn invalidate(
        &mut self,
        name: &EnvironmentName,
        by: &str,
    ) -> Result<Result<Tended, Refusal>, ControlError> {
        if name.is_prod() {
            return Ok(Err(Refusal::new(
                "invalidate-prod",
                "production can't be invalidated",
                "`coordctl rollback prod` goes back to what it showed before",
            )));
        }
        let Some(pointer) = self.book.pointers.get(name).cloned() else {
            return Ok(Err(unknown(name)));
        };
        let now = (self.clock)();
        if !pointer.has_expired(now) {
            let pointer = Pointer { expires: Some(now), ..pointer };
            let txn = Txn::new()
                .require(self.environment_unchanged(name))
                .put(keys::environment(name), encode_json(&pointer)?);
            self.witness(Deed { environment: Some(name.clone()), ..self.deed(by, "invalidated") });
            let revision = self.commit(txn).await?;
            if let Some(entry) = self.book.environments.get_mut(name) {
                entry.1 = revision;
            }
            self.book.pointers.insert(name.clone(), pointer);
        }
        Ok(Ok(Tended { environments: BTreeSet::from([name.clone()]), ..Tended::default() }))
    }

    /// Removes environments that have expired, unless a plan is being applied to them.
    async fn retire_expired(
        &mut self,
        only: Option<EnvironmentName>,
        by: &str,
        out: &mut Output,
    ) -> Result<Result<Tended, Refusal>, ControlError> {
        let now = (self.clock)();
        let expired = self.book.pointers.iter().filter(|(name, pointer)| {
            pointer.has_expired(now) && only.as_ref().is_none_or(|only| only == *name)
        });
        let expired: Vec<EnvironmentName> = expired.map(|(name, _)| name.clone()).collect();
        let mut tended = Tended::default();
        for name in expired {
            if self.is_being_moved(&name) {
                continue;
            }
            if !self.book.switches.contains_key(&name) {
                self.retire(&name, by, out).await?;
            }
            if let Some(switch) = self.book.switches.get(&name) {
                tended.gateways.extend(switch.gateways.clone());
            }
            tended.environments.insert(name);
        }
        tended.waits.environments.clone_from(&tended.environments);
        // Views that a restored state has yet to set.
        let restored = |switch: &Switch| only.is_none() && switch.what == SwitchKind::Restore;
        for (name, switch) in self.book.switches.iter().filter(|(_, switch)| restored(switch)) {
            tended.gateways.extend(switch.gateways.clone());
            tended.waits.environments.insert(name.clone());
        }
        Ok(Ok(tended))
    }

    /// Removes all environments, unless a plan is being applied to one.
    async fn retire_all(
        &mut self,
        by: &str,
        out: &mut Output,
    ) -> Result<Result<Tended, Refusal>, ControlError> {
        let all: Vec<EnvironmentName> = self.book.pointers.keys().cloned().collect();
        if let Some(moved) = all.iter().find(|name| self.is_being_moved(name)) {
            let message = format!("a plan is being applied to `{moved}`, or left half done");
            let hint = "wait for it to end (`coordctl status`), or cancel it (`coordctl cancel`)";
            return Ok(Err(Refusal::new("environment-busy", message, hint)));
        }
        let mut tended = Tended::default();
        for name in all {
            if !self.book.switches.contains_key(&name) {
                self.retire(&name, by, out).await?;
            }
            tended
                .gateways
                .extend(self.book.switches.get(&name).into_iter().flat_map(|switch| switch.gateways.clone()));
            tended.waits.environments.insert(name.clone());
            tended.environments.insert(name);
        }
        Ok(Ok(tended))
    }

    /// Whether a plan is being applied to an environment.
    pub(super) fn is_being_moved(&self, name: &EnvironmentName) -> bool {
        let moves = |plan: &super::book::PlanRecord| {
            plan.state.is_under_way() || plan.is_unfinished_restatement() || plan.has_asides()
        };
        self.book.plans.values().any(|(plan, _)| plan.environment == *name && moves(plan))
    }

    /// How far workers are with what was decided.
    pub(super) fn left(&self, waits: &Waits) -> Left {
        let switching = waits.environments.iter().filter(|name| self.book.switches.contains_key(*name));
        let untried = |table: &&TableId| {
            self.book.drops.contains_key(*table) && !self.troubles.contains_key(&table.to_string())
        };
        let names = waits.environments.iter().map(ToString::to_string);
        let names = names.chain(waits.tables.iter().map(ToString::to_string));
        let trouble = |name: String| Some((self.troubles.get(&name)?.clone(), name));
        Left {
            open: switching.count() + waits.tables.iter().filter(untried).count(),
            troubles: names.filter_map(trouble).map(|(why, name)| (name, why)).collect(),
        }
    }
}

/// There is no such environment.
pub(super) fn unknown(name: &EnvironmentName) -> Refusal {
    Refusal::new(
        "unknown-environment",
        format!("there is no environment `{name}`"),
        "`coordctl environments` lists those that exist; applying a plan makes one",
    )
}

/// The time that a time to live such as `in 1 week` ends, counted from `from`. One that can't be
/// read counts as a week: loading a project reports it.
pub(super) fn later(ttl: &str, from: Timestamp) -> Timestamp {
    const WEEK: i64 = 7 * 86_400_000;
    parse_time(ttl, from).map_or(Timestamp(from.0.saturating_add(WEEK)), |point| point.at)
}

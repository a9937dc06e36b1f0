//! What a new leader does first: take up what the last one left, from the store alone.

use std::collections::BTreeMap;

use coord_common::id::{EnvironmentName, PlanId};
use tracing::info;

use super::book::{PlanBody, PlanRecord, PlanState, decode, name, read_blob};
use super::{Control, ControlError};
use crate::apply::{LeaseRecord, LeasedWork, Setback, token_of};
use crate::schedule::{Event, Output, Recovered};
use crate::store::record::encode_json;
use crate::store::{Txn, keys};

impl Control {
    /// Resumes every plan that was under way, with its leases, retries and failures.
    pub(super) async fn recover(&mut self) -> Result<(), ControlError> {
        let mut leases = self.leases().await?;
        if self.config.lone {
            self.give_up(std::mem::take(&mut leases)).await?;
        }
        let under_way: Vec<(PlanId, PlanState, EnvironmentName)> = self
            .book
            .plans
            .iter()
            .filter(|(_, (record, _))| record.state != PlanState::Planned && !record.state.is_final())
            .map(|(id, (record, _))| (*id, record.state, record.environment.clone()))
            .collect();
        let mut out = Output::default();
        let now = self.now();
        for (id, state, _) in &under_way {
            if matches!(state, PlanState::Applying | PlanState::Cancelling) {
                self.resume(*id, &mut out).await?;
            } else if *state == PlanState::Publishing
                && let Some(body) = self.body(*id).await?
            {
                self.hold(&body.plan, &mut out);
            }
        }
        let mut known = Vec::new();
        for (id, _, _) in &under_way {
            known.extend(self.setbacks(*id).await?);
        }
        for (key, lease) in leases {
            match self.recovered(&key, lease) {
                Some(event) => known.push(event),
                None => drop(self.commit(Txn::new().delete(key)).await?),
            }
        }
        // All together: with failures alone, a plan would be at its end while leases of it are held.
        for event in known {
            self.scheduler.note(now, Event::Recovered(event), &mut out);
        }
        self.scheduler.decide(&mut out);
        for (id, state, environment) in &under_way {
            match state {
                PlanState::Cancelling => self.scheduler.on(now, Event::Cancel { plan: *id }, &mut out),
                PlanState::Promoting => self.promote(*id, environment, &mut out).await?,
                PlanState::Publishing => {
                    if let Some(body) = self.body(*id).await? {
                        self.logs.start(*id);
                        self.publish(&body.plan, &mut out).await?;
                    }
                }
                PlanState::Planned
                | PlanState::Applying
                | PlanState::Finished
                | PlanState::Failed
                | PlanState::Cancelled
                | PlanState::Abandoned => {}
            }
        }
        self.discard_leftovers(&mut out).await?;
        for environment in self.book.switches.keys().cloned().collect::<Vec<_>>() {
            self.issue_switch(&environment, &mut out).await?;
        }
        if !under_way.is_empty() {
            info!(plans = under_way.len(), "resuming what was under way");
        }
        self.settle(out, Vec::new()).await
    }

    /// Takes leases for lost whose workers can't be alive.
    async fn give_up(&mut self, leases: BTreeMap<String, LeaseRecord>) -> Result<(), ControlError> {
        for (key, lease) in leases {
            let mut txn = Txn::new().delete(key);
            if let LeasedWork::Batch { batch, .. } = lease.work {
                txn = txn.put(keys::lost(&batch), encode_json(&true)?);
                self.book.lost.push(batch);
            }
            self.commit(txn).await?;
        }
        Ok(())
    }

    /// Admits one plan with what is on record of it.
    async fn resume(&mut self, id: PlanId, out: &mut Output) -> Result<(), ControlError> {
        let Some((record, _)) = self.book.plans.get(&id).cloned() else { return Ok(()) };
        let Some(body) = self.body(id).await? else { return Ok(()) };
        self.keep_snapshots(&body).await?;
        self.spare(&body, out).await?;
        self.logs.start(id);
        if record.materialised {
            let todo = self.todos_on_record(id).await?;
            self.admit(&body.plan, &todo, out);
            return Ok(());
        }
        self.begin(&body.plan, out).await
    }

    /// A plan that is kept, with its new snapshots.
    async fn body(&self, id: PlanId) -> Result<Option<PlanBody>, ControlError> {
        Ok(match self.book.plans.get(&id) {
            Some((record, _)) => Some(read_blob(&*self.store, record.body).await?),
            None => None,
        })
    }

    /// Drops what restatements that were given up have left.
    async fn discard_leftovers(&mut self, out: &mut Output) -> Result<(), ControlError> {
        let left = |record: &PlanRecord| record.restatement.as_ref().is_some_and(|known| known.aside);
        let plans: Vec<PlanId> = self
            .book
            .plans
            .iter()
            .filter(|(_, (record, _))| record.state == PlanState::Cancelled && left(record))
            .map(|(id, _)| *id)
            .collect();
        for plan in plans {
            self.discard(plan, out).await?;
        }
        Ok(())
    }

    async fn setbacks(&self, plan: PlanId) -> Result<Vec<Recovered>, ControlError> {
        let mut found = Vec::new();
        for (prefix, failed) in [(keys::waits_of(plan), false), (keys::failures_of(plan), true)] {
            for entry in self.store.range(&prefix).await?.entries {
                let batch = name(&entry, &prefix)?;
                let Setback { attempts, losses, delay, failure } = decode(&entry)?;
                found.push(match failure {
                    Some(failure) if failed => Recovered::Failed { plan, batch, attempts, failure },
                    _ => Recovered::Waiting { plan, batch, attempts, losses, delay },
                });
            }
        }
        Ok(found)
    }

    async fn leases(&self) -> Result<BTreeMap<String, LeaseRecord>, ControlError> {
        let entries = self.store.range(keys::LEASES).await?.entries;
        let mut leases = BTreeMap::new();
        for entry in entries {
            leases.insert(entry.key.clone(), decode(&entry)?);
        }
        Ok(leases)
    }

    /// What the scheduler must know of a lease on record; nothing where its plan is over.
    fn recovered(&self, key: &str, lease: LeaseRecord) -> Option<Recovered> {
        let token = token_of(key)?;
        let (record, _) = self.book.plans.get(&lease.plan)?;
        match lease.work {
            LeasedWork::Batch { batch, mode, supersedes } => {
                // What follows the views is granted again, too.
                let again = record.state.is_final() || record.state == PlanState::Promoting;
                (!again).then_some(Recovered::Leased {
                    token,
                    worker: lease.worker,
                    plan: lease.plan,
                    batch,
                    mode,
                    attempts: lease.attempts,
                    losses: lease.losses,
                    serves: lease.serves,
                    supersedes,
                    void: lease.void,
                })
            }
            // Promotions and publications are idempotent: they are simply granted again, under a
            // newer token whose fence turns the old one away.
            LeasedWork::Promote { .. }
            | LeasedWork::Publish { .. }
            | LeasedWork::Drop { .. }
            | LeasedWork::Errand => None,
        }
    }
}

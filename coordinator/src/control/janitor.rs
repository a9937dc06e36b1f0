//! The janitor: plans that nothing needs, snapshots and tables that nothing shows. State says
//! first that a table is gone, then a worker drops it: what is on record to be dropped is asked for
//! again until it is.

use std::collections::BTreeSet;

use coord_common::id::{EnvironmentName, Hash128, Hasher, PlanId, SnapshotId};
use coord_common::plan::{Environment, Needed, garbage, table_kind};
use coord_common::task::{DropTable, Failure, TableId};
use tracing::{info, warn};

use super::book::{PlanBody, PlanState, StoredSnapshot, decode, read_blob};
use super::tend::Tended;
use super::{Control, ControlError};
use crate::apply;
use crate::schedule::{Event, Output};
use crate::store::record::encode_json;
use crate::store::{Txn, keys};

/// Records of one transaction; each is a few operations.
const CHUNK: usize = 30;

impl Control {
    /// Removes what nothing needs any more. With `ignore_ttl`, however short ago it was needed.
    pub(super) async fn collect(
        &mut self,
        ignore_ttl: bool,
        by: &str,
        out: &mut Output,
    ) -> Result<Tended, ControlError> {
        let mut tended = Tended::default();
        self.forget_promotions().await?;
        tended.plans = self.old_plans();
        self.forget_plans(&tended.plans.clone()).await?;
        let needed = self.needed().await?;
        let now = (self.clock)();
        let garbage = garbage(&self.book.snapshots, &needed, |record| {
            let kept = self.book.kept.get(&record.id());
            ignore_ttl || kept.map_or(record.created, |kept| kept.until) <= now
        });
        let drops: Vec<DropTable> = garbage
            .tables
            .iter()
            .map(|(table, record)| DropTable {
                table: table.clone(),
                relation: record.relation(table.dev),
                kind: table_kind(record),
                gateway: self.gateway_of(record.id()),
            })
            .collect();
        let relied = self.plans_on(&drops).await?;
        self.forget_plans(&relied).await?;
        tended.plans.extend(relied);
        // Tables of which nothing is on record are dropped, too, but mostly were never made.
        let known = |drop: &&DropTable| self.book.tables.contains_key(&drop.table);
        tended.tables = drops.iter().filter(known).map(|drop| drop.relation.to_string()).collect();
        if !drops.is_empty() {
            let did = format!("dropped what nothing needs: {} tables", drops.len());
            self.witness(self.deed(by, did));
        }
        self.put_drops(&drops).await?;
        self.forget_snapshots(&garbage.snapshots).await?;
        tended.snapshots = garbage.snapshots.len();
        // Those that could not be dropped before are asked for again, too.
        for drop in self.book.drops.values().cloned().collect::<Vec<_>>() {
            self.troubles.remove(&drop.table.to_string());
            tended.gateways.insert(drop.gateway.clone());
            tended.waits.tables.insert(drop.table.clone());
            let chore = Hasher::new("drop/v1").field("table", drop.table.to_string()).finish();
            self.scheduler.on(self.now(), Event::Drop(drop, PlanId(chore)), out);
        }
        info!(tables = tended.tables.len(), snapshots = tended.snapshots, "collected");
        Ok(tended)
    }

    fn gateway_of(&self, id: SnapshotId) -> String {
        let named = self.book.snapshots.get(&id).and_then(|record| record.snapshot.model.gateway.clone());
        named.or_else(|| Some(self.book.kept.get(&id)?.gateway.clone())).unwrap_or_default()
    }

    /// What environments show, what they can go back to, and what plans that aren't over work on.
    pub(super) async fn needed(&self) -> Result<Needed, ControlError> {
        let mut needed = Needed::default();
        let mut sets: BTreeSet<Hash128> = BTreeSet::new();
        for (name, (environment, _)) in &self.book.environments {
            needed.add_environment(&environment.models);
            // Views that haven't followed yet show what was before.
            let pointer = self.book.pointers.get(name).filter(|pointer| !pointer.views_done);
            sets.extend(pointer.and_then(|pointer| pointer.previous));
            let promotions = self.book.promotions.get(name);
            sets.extend(self.window(name).iter().filter_map(|seq| Some(promotions?.get(seq)?.set)));
        }
        for set in sets {
            let environment: Environment = read_blob(&*self.store, set).await?;
            needed.add_environment(&environment.models);
        }
        let now = (self.clock)();
        for (record, _) in self.book.plans.values() {
            let resumable = matches!(record.state, PlanState::Failed | PlanState::Cancelled);
            if !resumable && !record.state.is_under_way() && !record.has_asides() {
                continue;
            }
            let body: PlanBody = read_blob(&*self.store, record.body).await?;
            if record.state.is_under_way()
                || record.has_asides()
                || apply::check_base(&body.plan, &self.book, now).is_ok()
            {
                needed.add_plan(&body.plan);
            }
        }
        Ok(needed)
    }

    /// Forgets promotions that no environment can go back to any more.
    async fn forget_promotions(&mut self) -> Result<(), ControlError> {
        for name in self.book.promotions.keys().cloned().collect::<Vec<EnvironmentName>>() {
            let window = self.window(&name);
            let pointer = self.book.pointers.get(&name);
            let used: Vec<Hash128> = pointer
                .into_iter()
                .flat_map(|pointer| [Some(pointer.set), pointer.previous])
                .flatten()
                .collect();
            let Some(all) = self.book.promotions.get_mut(&name) else { continue };
            let old: Vec<(u64, Hash128)> = all
                .iter()
                .filter(|(seq, _)| !window.contains(seq))
                .map(|(seq, promotion)| (*seq, promotion.set))
                .collect();
            all.retain(|seq, _| window.contains(seq));
            for chunk in old.chunks(CHUNK) {
                let mut txn = Txn::new();
                for (seq, set) in chunk {
                    txn = txn.delete(keys::promotion(&name, *seq));
                    if !used.contains(set) {
                        txn = txn.delete_prefix(keys::blob(*set));
                    }
                }
                self.commit(txn).await?;
            }
        }
        Ok(())
    }

    /// Plans that are over for long, and that no promotion names.
    fn old_plans(&self) -> BTreeSet<PlanId> {
        let promotions = self.book.promotions.values().flat_map(|all| all.values());
        let named = promotions.map(|promotion| promotion.plan);
        let named: BTreeSet<PlanId> =
            named.chain(self.book.pointers.values().map(|pointer| pointer.plan)).collect();
        let oldest = (self.clock)().0.saturating_sub(self.config.retention.plan_age);
        let old = self.book.plans.iter().filter(|(id, (plan, _))| {
            let last = plan.history.last().map_or(plan.created, |entry| entry.at).max(plan.created);
            let busy = plan.state.is_under_way() || plan.has_asides() || plan.is_unfinished_restatement();
            !busy && last.0 <= oldest && !named.contains(id)
        });
        old.map(|(id, _)| *id).collect()
    }

    /// Plans that rely on tables that go, and that were not carried out: they have to be made anew.
    async fn plans_on(&self, drops: &[DropTable]) -> Result<BTreeSet<PlanId>, ControlError> {
        let gone: BTreeSet<&TableId> = drops.iter().map(|drop| &drop.table).collect();
        let mut found = BTreeSet::new();
        if gone.is_empty() {
            return Ok(found);
        }
        for (id, (record, _)) in &self.book.plans {
            if !record.state.can_be_applied() || record.has_asides() {
                continue;
            }
            let body: PlanBody = read_blob(&*self.store, record.body).await?;
            let mut tables = body.plan.models.iter().flat_map(coord_common::plan::PlannedModel::tables);
            if tables.any(|table| gone.contains(table)) {
                found.insert(*id);
            }
        }
        Ok(found)
    }

    async fn forget_plans(&mut self, plans: &BTreeSet<PlanId>) -> Result<(), ControlError> {
        for id in plans {
            let Some((record, _)) = self.book.plans.get(id) else { continue };
            let txn = Txn::new()
                .delete(keys::plan(*id))
                .delete_prefix(keys::todos_of(*id))
                .delete_prefix(keys::setbacks_of(*id))
                .delete_prefix(keys::blob(record.body));
            self.commit(txn).await?;
            self.book.plans.remove(id);
        }
        Ok(())
    }

    /// Tables are gone from now on, as far as plans can see.
    async fn put_drops(&mut self, drops: &[DropTable]) -> Result<(), ControlError> {
        for chunk in drops.chunks(CHUNK) {
            let mut txn = Txn::new();
            for drop in chunk {
                txn = txn
                    .put(keys::drop(&drop.table), encode_json(drop)?)
                    .delete(keys::intervals(&drop.table))
                    .delete(keys::stale(&drop.table))
                    .delete(keys::restated(&drop.table))
                    .delete_prefix(keys::lost_of(&drop.table));
            }
            self.commit(txn).await?;
            for drop in chunk {
                self.book.tables.remove(&drop.table);
                self.book.lost.retain(|batch| batch.table != drop.table);
                self.book.drops.insert(drop.table.clone(), drop.clone());
            }
        }
        Ok(())
    }

    async fn forget_snapshots(&mut self, snapshots: &BTreeSet<SnapshotId>) -> Result<(), ControlError> {
        let all: Vec<SnapshotId> = snapshots.iter().copied().collect();
        for chunk in all.chunks(CHUNK) {
            let mut txn = Txn::new();
            for id in chunk {
                let key = keys::snapshot(*id);
                if let Some(entry) = self.store.get(&key).await?
                    && let StoredSnapshot::Blob(hash) = decode(&entry)?
                {
                    txn = txn.delete_prefix(keys::blob(hash));
                }
                txn = txn.delete(key).delete(keys::kept(*id));
            }
            self.commit(txn).await?;
            for id in chunk {
                self.book.snapshots.remove(id);
                self.book.kept.remove(id);
            }
        }
        Ok(())
    }

    /// A plan needs tables that were to be dropped: they stay, and are filled anew. A drop that is
    /// under way has an older token than whoever fills them, so the fence turns it away.
    pub(super) async fn spare(&mut self, body: &PlanBody, out: &mut Output) -> Result<(), ControlError> {
        let tables = body.plan.models.iter().flat_map(|model| model.tables().cloned());
        let spared: Vec<TableId> = tables.filter(|table| self.book.drops.contains_key(table)).collect();
        for chunk in spared.chunks(CHUNK) {
            let txn = chunk.iter().fold(Txn::new(), |txn, table| txn.delete(keys::drop(table)));
            self.commit(txn).await?;
            for table in chunk {
                self.book.drops.remove(table);
                self.scheduler.on(self.now(), Event::Spare(table.clone()), out);
            }
        }
        Ok(())
    }

    pub(super) async fn dropped(&mut self, drop: &DropTable) -> Result<(), ControlError> {
        if self.book.drops.contains_key(&drop.table) {
            self.commit(Txn::new().delete(keys::drop(&drop.table))).await?;
            self.book.drops.remove(&drop.table);
        }
        Ok(())
    }

    pub(super) fn drop_failed(&mut self, drop: &DropTable, failure: &Failure) {
        warn!(table = %drop.relation, %failure, "a table could not be dropped");
        let hint = failure.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        self.troubles.insert(drop.table.to_string(), format!("{failure}{hint}"));
    }
}

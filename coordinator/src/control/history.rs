//! What environments showed: who moved each, when, from what to what. The evidence, and the window
//! that can be gone back to.

use std::collections::{BTreeMap, BTreeSet};

use coord_common::id::{EnvironmentName, Hash128, PlanId, SnapshotId};
use coord_common::interval::Timestamp;
use coord_common::plan::EnvironmentModel;
use serde::{Deserialize, Serialize};

use super::tend::later;
use super::{Control, ControlError};
use crate::store::record::encode_json;
use crate::store::{StoreError, Txn, keys};

/// One move of an environment's pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Promotion {
    /// The plan whose result is shown.
    pub(crate) plan: PlanId,
    /// The blob that holds the environment.
    pub(crate) set: Hash128,
    /// When.
    pub(crate) at: Timestamp,
    /// Who asked for it.
    pub(crate) by: String,
    /// The number of the promotion that it replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<u64>,
    /// The number of the promotion that it goes back to, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) back_to: Option<u64>,
    /// The call that asked to go back: made again as its answer got lost, it moves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked: Option<String>,
    /// When another one replaced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaced: Option<Timestamp>,
}

/// Until when a snapshot that nothing needs is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Until when.
    pub(crate) until: Timestamp,
    /// For how long after an environment leaves it.
    pub(crate) ttl: String,
    /// The gateway of its tables.
    pub(crate) gateway: String,
}

impl Control {
    /// Adds a promotion to a transaction that moves a pointer. What it replaces is marked.
    pub(super) fn put_promotion(
        &self,
        name: &EnvironmentName,
        seq: u64,
        promotion: &Promotion,
        txn: Txn,
    ) -> Result<Txn, StoreError> {
        let mut txn = txn.put(keys::promotion(name, seq), encode_json(promotion)?);
        for (seq, old) in self.shown_promotions(name) {
            let old = Promotion { replaced: Some(promotion.at), ..old.clone() };
            txn = txn.put(keys::promotion(name, seq), encode_json(&old)?);
        }
        Ok(txn)
    }

    /// Keeps the book in step with [`Control::put_promotion`].
    pub(super) fn note_promotion(&mut self, name: &EnvironmentName, seq: u64, promotion: Promotion) {
        let all = self.book.promotions.entry(name.clone()).or_default();
        for old in all.values_mut().filter(|old| old.replaced.is_none()) {
            old.replaced = Some(promotion.at);
        }
        all.insert(seq, promotion);
    }

    /// The promotion that an environment shows: at most one.
    pub(super) fn shown_promotions(&self, name: &EnvironmentName) -> impl Iterator<Item = (u64, &Promotion)> {
        let all = self.book.promotions.get(name).into_iter().flatten();
        all.filter(|(_, promotion)| promotion.replaced.is_none()).map(|(seq, promotion)| (*seq, promotion))
    }

    /// The promotions that an environment can go back to, and the one that it shows.
    pub(super) fn window(&self, name: &EnvironmentName) -> BTreeSet<u64> {
        let all = self.book.promotions.get(name).into_iter().flatten();
        let replaced = all.map(|(seq, promotion)| (*seq, promotion.replaced)).collect();
        self.config.retention.window(&replaced, (self.clock)())
    }

    /// Snapshots that an environment showed and shows no more are kept for their time from now on.
    pub(super) async fn left_behind(
        &mut self,
        before: &BTreeMap<coord_common::id::ModelName, EnvironmentModel>,
        after: &BTreeMap<coord_common::id::ModelName, EnvironmentModel>,
    ) -> Result<(), ControlError> {
        let shown: BTreeSet<SnapshotId> = after.values().map(|model| model.snapshot).collect();
        let now = (self.clock)();
        let left = before.values().map(|model| model.snapshot).filter(|id| !shown.contains(id));
        let kept = |id: SnapshotId| {
            let kept = self.book.kept.get(&id)?;
            let until = later(&kept.ttl, now).max(kept.until);
            Some((id, Kept { until, ..kept.clone() }))
        };
        let left: Vec<_> = left.filter_map(kept).collect();
        self.put_kept(left).await
    }

    /// Writes down until when snapshots are kept.
    pub(super) async fn put_kept(&mut self, all: Vec<(SnapshotId, Kept)>) -> Result<(), ControlError> {
        for chunk in all.chunks(100) {
            let mut txn = Txn::new();
            for (id, kept) in chunk {
                txn = txn.put(keys::kept(*id), encode_json(kept)?);
            }
            self.commit(txn).await?;
        }
        self.book.kept.extend(all);
        Ok(())
    }
}

//! The coordinator's copy of the durable state, read once when its term starts and kept in step
//! with every transaction it commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coord_common::id::{EnvironmentName, Hash128, PlanId, SnapshotId};
use coord_common::interval::{IntervalSet, Timestamp};
use coord_common::plan::{Clear, Environment, Plan, TableRecord};
use coord_common::snapshot::SnapshotRecord;
use coord_common::task::{Batch, DropTable, Failure, TableId};
use serde::{Deserialize, Serialize};

use super::approval::Approval;
use super::evidence::Head;
use super::history::{Kept, Promotion};

use crate::backup::Era;
use crate::store::{Entry, Revision, Store, StoreError, blob, keys, record};

/// What is known of all environments, plans, snapshots and tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    /// Environments, and the revision of each pointer.
    pub(crate) environments: BTreeMap<EnvironmentName, (Arc<Environment>, Revision)>,
    /// Their pointers.
    pub(crate) pointers: BTreeMap<EnvironmentName, Pointer>,
    /// Changes of views that are no plans'.
    pub(crate) switches: BTreeMap<EnvironmentName, Switch>,
    /// The last numbers of environments that were removed.
    pub(crate) gone: BTreeMap<EnvironmentName, u64>,
    /// What environments showed, by number; without those that nothing can go back to.
    pub(crate) promotions: BTreeMap<EnvironmentName, BTreeMap<u64, Promotion>>,
    /// Until when snapshots are kept.
    pub(crate) kept: BTreeMap<SnapshotId, Kept>,
    /// Tables to drop, which count as gone already.
    pub(crate) drops: BTreeMap<TableId, DropTable>,
    /// Plans, and the revision of each record.
    pub(crate) plans: BTreeMap<PlanId, (PlanRecord, Revision)>,
    /// Snapshots.
    pub(crate) snapshots: BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
    /// Tables.
    pub(crate) tables: BTreeMap<TableId, TableRecord>,
    /// What is added to numbers that warehouses see.
    pub(crate) era: Era,
    /// Lost batches that nothing has superseded.
    pub(crate) lost: Vec<Batch>,
    /// The end of the evidence.
    pub(crate) evidence: Head,
}

/// Where an environment's pointer points: small, as the set itself is a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pointer {
    /// Counts flips, from 1.
    pub(crate) seq: u64,
    /// The plan that flipped last.
    pub(crate) plan: PlanId,
    /// The blob that holds the environment.
    pub(crate) set: Hash128,
    /// The blob before it, for the views that it showed.
    pub(crate) previous: Option<Hash128>,
    /// Whether all views show the set.
    pub(crate) views_done: bool,
    /// From when on the environment counts as gone; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<Timestamp>,
    /// Whether dropping its views has begun: they may be there or not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) leaving: bool,
}

/// A change of an environment's views that is no plan's: durable until the views have followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Switch {
    /// What stands for it where a plan's id is asked for.
    pub(crate) id: PlanId,
    /// The pointer's number.
    pub(crate) seq: u64,
    /// What for.
    pub(crate) what: SwitchKind,
    /// The gateway of views that name none.
    pub(crate) gateway: String,
    /// The gateways whose workers can do it.
    #[serde(default)]
    pub(crate) gateways: BTreeSet<String>,
    /// When it was asked for.
    pub(crate) at: Timestamp,
    /// By whom.
    pub(crate) by: String,
}

/// What views are switched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SwitchKind {
    /// The environment goes, with all its views.
    Retire,
    /// The pointer moved to what an earlier plan had promoted.
    Rollback,
    /// The state was restored: whatever the views show, they are made anew.
    Restore,
}

impl Pointer {
    /// Whether the environment counts as gone.
    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

/// How far a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanState {
    /// Made, not applied.
    Planned,
    /// Being applied.
    Applying,
    /// Being given up.
    Cancelling,
    /// The pointer moved; views follow.
    Promoting,
    /// What was computed aside is being put in place.
    Publishing,
    /// Done.
    Finished,
    /// Some batches failed; applying it again resumes.
    Failed,
    /// Stopped by a user; applying it again resumes.
    Cancelled,
    /// Given up by a user for good.
    Abandoned,
}

impl PlanState {
    /// The state's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Applying => "applying",
            Self::Cancelling => "cancelling",
            Self::Promoting => "promoting",
            Self::Publishing => "publishing",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Abandoned => "abandoned",
        }
    }

    /// Whether it moves, or is about to move, its environment.
    pub(crate) fn is_under_way(self) -> bool {
        matches!(self, Self::Applying | Self::Cancelling | Self::Publishing | Self::Promoting)
    }

    /// Whether applying it would start or resume it.
    pub(crate) fn can_be_applied(self) -> bool {
        matches!(self, Self::Planned | Self::Failed | Self::Cancelled)
    }

    /// Whether nothing of it goes on.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Cancelled | Self::Abandoned)
    }
}

/// What is kept of a plan beside its body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlanRecord {
    /// The environment.
    pub(crate) environment: EnvironmentName,
    /// How far it is.
    pub(crate) state: PlanState,
    /// The blob that holds the plan and its new snapshots.
    pub(crate) body: Hash128,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) author: Option<String>,
    /// Who approved it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) approvals: Vec<Approval>,
    /// When it was made.
    pub(crate) created: Timestamp,
    /// Whether all it has to do is on record.
    #[serde(default)]
    pub(crate) materialised: bool,
    /// What happened to it, oldest first: the evidence.
    #[serde(default)]
    pub(crate) history: Vec<HistoryEntry>,
    /// Batches that failed for good.
    #[serde(default)]
    pub(crate) failures: Vec<FailureRecord>,
    /// For a restatement: how it goes about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restatement: Option<Restatement>,
    /// What was restated since it began and doesn't count where its batches fill it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) void: Vec<Clear>,
    /// Whether it computes once more what was restated since it began, or was cleared: only what isn't
    /// complete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) renewed: bool,
    /// How often it has begun to compute anew: what it did before isn't done again by that.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) round: u32,
    /// The call that last had it carried out: made again as its answer got lost, it starts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked: Option<String>,
}

/// What is kept of a plan that restates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restatement {
    /// Whether it replaces rows where they are, batch by batch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) in_place: bool,
    /// Whether tables aside may exist in the warehouse.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) aside: bool,
    /// What tables held that can only be replaced whole, when it began: a hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) based_on: Option<Hash128>,
    /// A restatement that has ended since over rows that this one has computed aside: from what was there
    /// to be read before, so they must not take the place of newer ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) overtaken_by: Option<PlanId>,
    /// How often it was carried out before: each time is published anew.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) round: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Restatement {
    /// Whether nothing of it is left in a state of its plan, so that it can be carried out once more.
    pub(crate) fn is_over(&self, state: PlanState) -> bool {
        let given_up = state == PlanState::Cancelled && !self.in_place;
        !self.aside && (state == PlanState::Finished || given_up)
    }

    /// The same once more.
    pub(crate) fn again(self) -> Self {
        Self { based_on: None, overtaken_by: None, round: self.round + 1, ..self }
    }
}

impl PlanRecord {
    /// What its batches fill of a table and doesn't count.
    pub(crate) fn void_of(&self, table: &TableId) -> IntervalSet {
        let of_table = self.void.iter().filter(|clear| clear.table == *table);
        of_table.fold(IntervalSet::new(), |all, clear| all.union(&clear.range.into()))
    }

    /// Whether there may be tables aside in the warehouse that only this plan knows of.
    pub(crate) fn has_asides(&self) -> bool {
        self.restatement.as_ref().is_some_and(|known| known.aside)
    }

    /// Whether it is a restatement that was begun and isn't at its end: readers may see a part of
    /// it, or will see all of it once it is resumed.
    pub(crate) fn is_unfinished_restatement(&self) -> bool {
        let Some(restatement) = &self.restatement else { return false };
        match self.state {
            PlanState::Applying | PlanState::Publishing | PlanState::Failed => true,
            // Given up: nothing of it was to be seen, unless it worked in place.
            PlanState::Cancelling | PlanState::Cancelled => restatement.in_place,
            PlanState::Planned | PlanState::Promoting | PlanState::Finished | PlanState::Abandoned => false,
        }
    }
}

/// Something that happened to a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HistoryEntry {
    /// When, by the coordinator's clock.
    pub(crate) at: Timestamp,
    /// What.
    pub(crate) what: String,
    /// Who asked for it, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
}

/// A batch that failed for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailureRecord {
    /// The batch.
    pub(crate) batch: Batch,
    /// Why.
    pub(crate) failure: Failure,
    /// After how many attempts.
    pub(crate) attempts: u32,
}

/// A plan's body: what its blob holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlanBody {
    /// The plan.
    pub(crate) plan: Plan,
    /// Its new snapshots.
    pub(crate) records: Vec<Arc<SnapshotRecord>>,
}

/// What a plan has still to do for one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Todo {
    /// What must be filled.
    pub(crate) ranges: IntervalSet,
    /// Whether the table must be made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) create: bool,
    /// Whether it must get the columns of the plan's snapshot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) migrate: bool,
}

impl Book {
    /// The restatements of an environment that were begun and aren't at their end, oldest first.
    pub(crate) fn unfinished_restatements(&self, environment: &EnvironmentName) -> Vec<PlanId> {
        let mut found: Vec<_> = self
            .plans
            .iter()
            .filter(|(_, (record, _))| {
                record.environment == *environment && record.is_unfinished_restatement()
            })
            .map(|(id, (record, _))| (record.created, *id))
            .collect();
        found.sort();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Reads everything.
    pub(crate) async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mut book = Self::default();
        if let Some(entry) = store.get(keys::ERA).await? {
            book.era = decode(&entry)?;
        }
        for entry in store.range(keys::ENVIRONMENTS).await?.entries {
            let pointer: Pointer = decode(&entry)?;
            let environment = read_environment(store, &pointer).await?;
            book.pointers.insert(environment.name.clone(), pointer);
            book.environments.insert(environment.name.clone(), (Arc::new(environment), entry.mod_revision));
        }
        for entry in store.range(keys::SWITCHES).await?.entries {
            book.switches.insert(name(&entry, keys::SWITCHES)?, decode(&entry)?);
        }
        for entry in store.range(keys::GONE).await?.entries {
            book.gone.insert(name(&entry, keys::GONE)?, decode(&entry)?);
        }
        for entry in store.range(keys::PROMOTIONS).await?.entries {
            let seq = name(&entry, keys::PROMOTIONS)?;
            let promotion = decode(&entry)?;
            book.promotions.entry(first_name(&entry, keys::PROMOTIONS)?).or_default().insert(seq, promotion);
        }
        for entry in store.range(keys::KEPT).await?.entries {
            book.kept.insert(name(&entry, keys::KEPT)?, decode(&entry)?);
        }
        for entry in store.range(keys::DROPS).await?.entries {
            book.drops.insert(name(&entry, keys::DROPS)?, decode(&entry)?);
        }
        for entry in store.range(keys::PLANS).await?.entries {
            let id = name(&entry, keys::PLANS)?;
            book.plans.insert(id, (decode(&entry)?, entry.mod_revision));
        }
        for entry in store.range(keys::SNAPSHOTS).await?.entries {
            let record = read_snapshot(store, &entry).await?;
            book.snapshots.insert(record.id(), record);
        }
        for entry in store.range(keys::INTERVALS).await?.entries {
            let done = record::decode_intervals(&entry.key, &entry.value)?;
            let known = TableRecord { done, created: true, ..TableRecord::default() };
            book.tables.insert(name(&entry, keys::INTERVALS)?, known);
        }
        for entry in store.range(keys::RESTATED).await?.entries {
            let table = name(&entry, keys::RESTATED)?;
            book.tables.entry(table).or_default().restated = Some(decode(&entry)?);
        }
        for entry in store.range(keys::STALE).await?.entries {
            let stale = record::decode_intervals(&entry.key, &entry.value)?;
            let known = book.tables.entry(name(&entry, keys::STALE)?).or_default();
            known.stale = stale.difference(&known.done);
        }
        for entry in store.range(keys::LOST).await?.entries {
            book.lost.push(name(&entry, keys::LOST)?);
        }
        if let Some(entry) = store.get(keys::EVIDENCE_HEAD).await? {
            book.evidence = decode(&entry)?;
        }
        Ok(book)
    }

    /// The number of an environment's last flip, even if it is gone: the warehouse never goes back.
    pub(crate) fn last_seq(&self, name: &EnvironmentName) -> u64 {
        let gone = self.gone.get(name).copied().unwrap_or_default();
        self.pointers.get(name).map_or(gone, |pointer| pointer.seq.max(gone))
    }

    /// An environment, unless it has expired: then it counts as gone, whether or not its views are
    /// dropped yet.
    pub(crate) fn live(&self, name: &EnvironmentName, now: Timestamp) -> Option<&Arc<Environment>> {
        let (environment, _) = self.environments.get(name)?;
        let expired = self.pointers.get(name).is_some_and(|pointer| pointer.has_expired(now));
        (!expired).then_some(environment)
    }
}

/// Reads an environment's set.
async fn read_environment(store: &dyn Store, pointer: &Pointer) -> Result<Environment, StoreError> {
    read_blob(store, pointer.set).await
}

/// Reads and decodes a blob that must be there.
pub(crate) async fn read_blob<T: serde::de::DeserializeOwned>(
    store: &dyn Store,
    hash: Hash128,
) -> Result<T, StoreError> {
    let key = keys::blob(hash);
    let missing = || StoreError::Corrupt { key: key.clone(), why: "it is missing".to_owned() };
    let bytes = blob::get_blob(store, hash).await?.ok_or_else(missing)?;
    serde_json::from_slice(&bytes).map_err(|error| StoreError::Corrupt { key, why: error.to_string() })
}

/// A snapshot's record lives in a blob: seeds carry their rows, which may be large. The key holds
/// the blob's hash.
async fn read_snapshot(store: &dyn Store, entry: &Entry) -> Result<Arc<SnapshotRecord>, StoreError> {
    match decode::<StoredSnapshot>(entry)? {
        StoredSnapshot::Inline(record) => Ok(record),
        StoredSnapshot::Blob(hash) => read_blob(store, hash).await.map(Arc::new),
    }
}

/// How a snapshot's record is kept under its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoredSnapshot {
    /// In place.
    Inline(Arc<SnapshotRecord>),
    /// In a blob, where it is large.
    Blob(Hash128),
}

/// Decodes an entry's JSON record.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(entry: &Entry) -> Result<T, StoreError> {
    record::decode_json(&entry.key, &entry.value)
}

/// The first of the names in a key after its prefix.
fn first_name<T: std::str::FromStr>(entry: &Entry, prefix: &str) -> Result<T, StoreError> {
    let bad =
        || StoreError::Corrupt { key: entry.key.clone(), why: "its key can't be understood".to_owned() };
    let parts = keys::parts(&entry.key, prefix).ok_or_else(bad)?;
    parts.first().and_then(|part| part.parse().ok()).ok_or_else(bad)
}

/// The last of the names in a key after its prefix.
pub(crate) fn name<T: std::str::FromStr>(entry: &Entry, prefix: &str) -> Result<T, StoreError> {
    let bad =
        || StoreError::Corrupt { key: entry.key.clone(), why: "its key can't be understood".to_owned() };
    let parts = keys::parts(&entry.key, prefix).ok_or_else(bad)?;
    parts.last().and_then(|part| part.parse().ok()).ok_or_else(bad)
}

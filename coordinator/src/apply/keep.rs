//! From the scheduler's records to keys: which record puts and deletes what, in groups that fit a
//! transaction.

use std::collections::BTreeMap;

use coord_common::id::{EnvironmentName, PlanId, Token, WorkerId};
use coord_common::interval::IntervalSet;
use coord_common::task::{Batch, Failure, Lease, Mode, TableId, Work};
use serde::{Deserialize, Serialize};

use crate::control::book::Todo;
use crate::schedule::{Committed, Record};
use crate::store::record::{encode_intervals, encode_json};
use crate::store::{StoreError, keys};

/// Changes of one transaction: the last change of a key counts.
pub(crate) type Group = BTreeMap<String, Option<Vec<u8>>>;

/// Operations that a group may have: the store's limit, less what the shell adds.
const MOST: usize = 120;
/// Bytes that a group may have.
const MOST_BYTES: usize = 1_000_000;

/// A lease on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    /// Who holds it.
    pub(crate) worker: WorkerId,
    /// For which plan.
    pub(crate) plan: PlanId,
    /// Which plans its commit brings forward.
    pub(crate) serves: Vec<PlanId>,
    /// Failed attempts before.
    pub(crate) attempts: u32,
    /// Lost leases before.
    pub(crate) losses: u32,
    /// What was cleared while it was leased: its commit doesn't count there.
    #[serde(default, skip_serializing_if = "IntervalSet::is_empty")]
    pub(crate) void: IntervalSet,
    /// What it grants.
    pub(crate) work: LeasedWork,
}

/// What a lease on record grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LeasedWork {
    /// A batch.
    Batch {
        /// Which.
        batch: Batch,
        /// What to do for it.
        mode: Mode,
        /// Lost batches that it supersedes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        supersedes: Vec<Batch>,
    },
    /// What a plan computed aside.
    Publish {
        /// On which gateway.
        gateway: String,
        /// Whether it is dropped.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        discard: bool,
    },
    /// A table's end.
    Drop {
        /// Which.
        table: TableId,
    },
    /// The views of an environment.
    Promote {
        /// Which.
        environment: EnvironmentName,
        /// At which sequence number.
        seq: u64,
    },
    /// What a takeover asks for again: signals, statements around a plan.
    Errand,
}

/// A batch that waits for its next attempt, or has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setback {
    /// Failed attempts.
    pub(crate) attempts: u32,
    /// Lost leases.
    pub(crate) losses: u32,
    /// How long it waits, in milliseconds; a takeover starts it anew.
    #[serde(default)]
    pub(crate) delay: u64,
    /// What failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure>,
}

/// Cuts records into groups, in order; one record's changes are never torn apart.
///
/// # Errors
/// [`StoreError`] when a record can't be encoded.
pub(crate) fn groups(records: &[Record]) -> Result<Vec<Group>, StoreError> {
    let mut groups = vec![Group::new()];
    let mut bytes = 0;
    for record in records {
        let changes = changes(record)?;
        let size: usize =
            changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
        let last = groups.len() - 1;
        if groups[last].len() + changes.len() > MOST || bytes + size > MOST_BYTES {
            groups.push(Group::new());
            bytes = 0;
        }
        bytes += size;
        let last = groups.len() - 1;
        groups[last].extend(changes);
    }
    groups.retain(|group| !group.is_empty());
    Ok(groups)
}

type Changes = Vec<(String, Option<Vec<u8>>)>;

fn changes(record: &Record) -> Result<Changes, StoreError> {
    Ok(match record {
        Record::Granted { lease, worker, attempts, losses, serves, void } => {
            granted(lease, worker, (*attempts, *losses), serves, void)?
        }
        Record::Committed(committed) => self::committed(committed)?,
        Record::Lost { token, batch, .. } => {
            vec![(keys::lease(*token), None), (keys::lost(batch), Some(encode_json(&true)?))]
        }
        Record::Waiting { token, plan, batch, attempts, losses, delay, error } => {
            let setback =
                Setback { attempts: *attempts, losses: *losses, delay: *delay, failure: error.clone() };
            vec![(keys::lease(*token), None), (keys::waiting(*plan, batch), Some(encode_json(&setback)?))]
        }
        Record::Failed { token, plan, batch, attempts, losses, failure, .. } => {
            let setback =
                Setback { attempts: *attempts, losses: *losses, delay: 0, failure: Some(failure.clone()) };
            vec![(keys::lease(*token), None), (keys::failed(*plan, batch), Some(encode_json(&setback)?))]
        }
        Record::Cleared { plan, batch } => {
            vec![(keys::waiting(*plan, batch), None), (keys::failed(*plan, batch), None)]
        }
        Record::Released { token } | Record::Promoted { token, .. } => vec![(keys::lease(*token), None)],
        Record::Filled { table, done } => vec![(keys::intervals(table), Some(encode_intervals(done)))],
        Record::Published { token, superseded, .. } => {
            let lost = superseded.iter().map(|batch| (keys::lost(batch), None));
            [(keys::lease(*token), None)].into_iter().chain(lost).collect()
        }
        // The plan's own record and prefixes are the control loop's: they need conditions.
        Record::Cancelled { .. } => Vec::new(),
    })
}

fn granted(
    lease: &Lease,
    worker: &WorkerId,
    (attempts, losses): (u32, u32),
    serves: &[PlanId],
    void: &IntervalSet,
) -> Result<Changes, StoreError> {
    let work = match &lease.work {
        Work::Evaluate(evaluate) => LeasedWork::Batch {
            batch: evaluate.batch.clone(),
            mode: evaluate.mode,
            supersedes: evaluate.supersedes.clone(),
        },
        Work::Promote(promote) => {
            LeasedWork::Promote { environment: promote.environment.clone(), seq: promote.seq }
        }
        Work::Check(_) | Work::Statements(_) => LeasedWork::Errand,
        Work::Publish(publish) => {
            LeasedWork::Publish { gateway: publish.gateway.clone(), discard: publish.discard }
        }
        Work::Drop(drop) => LeasedWork::Drop { table: drop.table.clone() },
    };
    let mut changes = Vec::new();
    if let LeasedWork::Batch { batch, .. } = &work
        && attempts + losses > 0
    {
        changes.push((keys::waiting(lease.plan, batch), None));
    }
    let record = LeaseRecord {
        worker: worker.clone(),
        plan: lease.plan,
        serves: serves.to_vec(),
        attempts,
        losses,
        void: void.clone(),
        work,
    };
    changes.push((keys::lease(lease.token), Some(encode_json(&record)?)));
    Ok(changes)
}

fn committed(committed: &Committed) -> Result<Changes, StoreError> {
    let mut changes: Changes = vec![
        (keys::lease(committed.token), None),
        (keys::intervals(&committed.table), Some(encode_intervals(&committed.done))),
    ];
    // Audits fill nothing, and are no part of what a plan has on record to do.
    for shrunk in committed.shrunk.iter().filter(|_| committed.mode != Mode::Audit) {
        let left =
            Todo { ranges: shrunk.todo.clone(), create: shrunk.create_left, migrate: shrunk.migrate_left };
        let value = if left.ranges.is_empty() && !left.create && !left.migrate {
            None
        } else {
            Some(encode_json(&left)?)
        };
        changes.push((keys::todo(shrunk.plan, &shrunk.table), value));
    }
    for interval in &committed.superseded {
        let batch = Batch { table: committed.table.clone(), interval: *interval };
        changes.push((keys::lost(&batch), None));
    }
    Ok(changes)
}

/// The token in a lease's key.
pub(crate) fn token_of(key: &str) -> Option<Token> {
    keys::parts(key, keys::LEASES)?.last()?.parse().ok().map(Token)
}

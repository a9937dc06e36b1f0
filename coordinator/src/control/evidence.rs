//! The evidence: who had what done, what was checked, and who had approved it. Each deed is written in
//! the transaction that does it, and names the hash of the one before: none can be changed, left out or
//! put between others without it showing.

use coord_common::id::{EnvironmentName, Hash128, Hasher, PlanId};
use coord_common::interval::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::{Control, ControlError};
use crate::store::record::encode_json;
use crate::store::{Compare, StoreError, Txn, keys};

/// Something that somebody had done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deed {
    /// When, by the coordinator's clock.
    pub(crate) at: Timestamp,
    /// Who, as far as it is proven.
    pub(crate) by: String,
    /// What.
    pub(crate) did: String,
    /// To which environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) environment: Option<EnvironmentName>,
    /// By which plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<PlanId>,
    /// Who had approved it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) approved_by: Vec<String>,
    /// What held, by the same transaction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) checked: Vec<String>,
}

/// A deed's place in the evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its number, from 1.
    pub(crate) seq: u64,
    /// The deed.
    #[serde(flatten)]
    pub(crate) deed: Deed,
    /// The hash of the entry before; that of nothing for the first.
    pub(crate) previous: Hash128,
    /// The hash of all the above.
    pub(crate) hash: Hash128,
}

/// The end of the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The last entry's number; 0 where there is none.
    pub(crate) seq: u64,
    /// Its hash.
    pub(crate) hash: Hash128,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: Hasher::new("evidence/v1").finish() }
    }
}

impl Head {
    /// The entry of the next deed.
    fn followed_by(self, deed: Deed) -> Result<Entry, StoreError> {
        let (seq, previous) = (self.seq + 1, self.hash);
        Ok(Entry { seq, hash: hash(seq, &deed, previous)?, deed, previous })
    }
}

fn hash(seq: u64, deed: &Deed, previous: Hash128) -> Result<Hash128, StoreError> {
    let json = serde_json::to_string(deed).map_err(|error| StoreError::Invalid(error.to_string()))?;
    let hasher = Hasher::new("evidence/v1").field("previous", previous.to_string());
    Ok(hasher.field("seq", seq.to_string()).field("deed", json).finish())
}

/// All the evidence, and whether it is whole.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Oldest first.
    pub(crate) entries: Vec<Entry>,
    /// The number of the first entry that was changed, or is missing.
    pub(crate) broken: Option<u64>,
}

/// The number of the first entry that isn't what was written.
fn broken(entries: &[Entry], head: Head) -> Option<u64> {
    let mut before = Head::default();
    for entry in entries {
        let expected = before.followed_by(entry.deed.clone()).ok();
        if expected.as_ref() != Some(entry) {
            return Some(before.seq + 1);
        }
        before = Head { seq: entry.seq, hash: entry.hash };
    }
    (before != head).then_some(before.seq + 1)
}

impl Control {
    /// A deed of somebody, now.
    pub(super) fn deed(&self, by: &str, did: impl Into<String>) -> Deed {
        Deed {
            at: (self.clock)(),
            by: by.to_owned(),
            did: did.into(),
            environment: None,
            plan: None,
            approved_by: Vec::new(),
            checked: Vec::new(),
        }
    }

    /// Has the next transaction write a deed, together with what it does.
    pub(super) fn witness(&mut self, deed: Deed) {
        self.deeds.push(deed);
    }

    /// Adds the deeds that wait to a transaction; and the evidence's end once it is committed.
    pub(super) fn testify(&mut self, mut txn: Txn) -> Result<(Txn, Option<Head>), ControlError> {
        if self.deeds.is_empty() {
            return Ok((txn, None));
        }
        let mut head = self.book.evidence;
        for deed in std::mem::take(&mut self.deeds) {
            let entry = head.followed_by(deed)?;
            let key = keys::evidence(entry.seq);
            txn = txn.require(Compare::Absent(key.clone())).put(key, encode_json(&entry)?);
            let Deed { by, did, .. } = &entry.deed;
            // Logs are kept elsewhere: with the hash in them, the state can't be rewritten unnoticed.
            info!(seq = entry.seq, hash = %entry.hash, by, did, plan = ?entry.deed.plan.map(|id| id.to_string()),
                environment = entry.deed.environment.as_ref().map(EnvironmentName::as_str), "evidence");
            head = Head { seq: entry.seq, hash: entry.hash };
        }
        Ok((txn.put(keys::EVIDENCE_HEAD, encode_json(&head)?), Some(head)))
    }

    /// All the evidence.
    pub(super) async fn tell(&self) -> Result<Told, ControlError> {
        let mut entries = Vec::new();
        for entry in self.store.range(keys::EVIDENCE).await?.entries {
            entries.push(super::book::decode(&entry)?);
        }
        let broken = broken(&entries, self.book.evidence);
        Ok(Told { entries, broken })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deed(n: i64) -> Deed {
        Deed {
            at: Timestamp(n),
            by: "ann".to_owned(),
            did: format!("deed {n}"),
            environment: Some("prod".parse().unwrap()),
            plan: None,
            approved_by: vec!["bob".to_owned()],
            checked: Vec::new(),
        }
    }

    fn chain(length: i64) -> (Vec<Entry>, Head) {
        let mut head = Head::default();
        let mut entries = Vec::new();
        for n in 1..=length {
            let entry = head.followed_by(deed(n)).unwrap();
            head = Head { seq: entry.seq, hash: entry.hash };
            entries.push(entry);
        }
        (entries, head)
    }

    #[test]
    fn evidence_that_nobody_touched_is_whole() {
        for length in 0..5 {
            let (entries, head) = chain(length);
            assert_eq!(broken(&entries, head), None, "{length}");
        }
    }

    #[test]
    fn what_was_changed_removed_swapped_or_put_in_is_found() {
        let (entries, head) = chain(5);
        let mut changed = entries.clone();
        changed[2].deed.by = "eve".to_owned();
        assert_eq!(broken(&changed, head), Some(3));
        changed[2] = Head { seq: 2, hash: entries[1].hash }.followed_by(changed[2].deed.clone()).unwrap();
        assert_eq!(broken(&changed, head), Some(4), "hashed anew, it is the next that doesn't fit");
        let mut removed = entries.clone();
        removed.remove(1);
        assert_eq!(broken(&removed, head), Some(2));
        let mut swapped = entries.clone();
        swapped.swap(3, 4);
        assert_eq!(broken(&swapped, head), Some(4));
        let mut doubled = entries.clone();
        doubled.insert(1, entries[0].clone());
        assert_eq!(broken(&doubled, head), Some(2));
        assert_eq!(broken(&entries[..4], head), Some(5), "the last one is missing");
        assert_eq!(broken(&[], head), Some(1));
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        let (entries, _) = chain(1);
        let json = serde_json::to_string(&entries[0]).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entries[0], "{json}");
    }
}

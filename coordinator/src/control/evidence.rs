//! The evidence: who had what done, what was checked, and who had approved it. Each deed is written in
//! the transaction that does it, and names the hash of the one before: none can be changed, left out or
//! put between others without it showing.

use coord_common::id::{EnvironmentName, Hash128, Hasher, PlanId};
use coord_common::interval::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::book::decode;
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
    pub(crate) fn followed_by(self, deed: Deed) -> Result<Entry, StoreError> {
        let (seq, previous) = (self.seq + 1, self.hash);
        Ok(Entry { seq, hash: hash(seq, &deed, previous)?, deed, previous })
    }
}

fn hash(seq: u64, deed: &Deed, previous: Hash128) -> Result<Hash128, StoreError> {
    let json = serde_json::to_string(deed).map_err(|error| StoreError::Invalid(error.to_string()))?;
    let hasher = Hasher::new("evidence/v1").field("previous", previous.to_string());
    Ok(hasher.field("seq", seq.to_string()).field("deed", json).finish())
}

/// A part of the evidence to tell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    /// Only entries with smaller numbers; 0: up to the end.
    pub(crate) before: u64,
    /// How many at most; 0: [`PAGE`].
    pub(crate) limit: usize,
    /// Only what was done to this environment.
    pub(crate) of: Option<EnvironmentName>,
}

/// How many entries are told at once, and at most.
const PAGE: (usize, usize) = (100, 1000);
/// How many blocks are read at once at most: what is looked for may be rare.
const BLOCKS: u64 = 50;

/// A part of the evidence, and whether what was read for it is whole.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Newest first.
    pub(crate) entries: Vec<Entry>,
    /// The lowest and the highest number that were looked at; the highest is 0 where there is none.
    pub(crate) looked_at: [u64; 2],
    /// The end of all the evidence.
    pub(crate) last: u64,
    /// The number of the first entry that was changed, or is missing, among those.
    pub(crate) broken: Option<u64>,
}

/// The number of the first entry that isn't what was written.
pub(crate) fn broken(entries: &[Entry], head: Head) -> Option<u64> {
    broken_between(entries, 1, head)
}

/// The same of a part: from the number `first` to the `end`, whose hash is known.
fn broken_between(entries: &[Entry], first: u64, end: Head) -> Option<u64> {
    let mut before = match entries.first() {
        // What it says of the one before shows when that one is looked at.
        Some(entry) if first > 1 => Head { seq: first - 1, hash: entry.previous },
        _ => Head { seq: first - 1, ..Head::default() },
    };
    for entry in entries {
        let expected = before.followed_by(entry.deed.clone()).ok();
        if expected.as_ref() != Some(entry) {
            return Some(before.seq + 1);
        }
        before = Head { seq: entry.seq, hash: entry.hash };
    }
    (before != end && end.seq + 1 > first).then_some(before.seq + 1)
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

    /// A part of the evidence.
    pub(super) async fn tell(&self, page: &Page) -> Result<Told, ControlError> {
        let last = self.book.evidence;
        let limit = if page.limit == 0 { PAGE.0 } else { page.limit.min(PAGE.1) };
        let end = match page.before {
            0 => last,
            before if before > last.seq => last,
            // What it says of the one before it holds as far as it has been looked at itself.
            before => match self.store.get(&keys::evidence(before)).await? {
                Some(entry) => Head { seq: before - 1, hash: decode::<Entry>(&entry)?.previous },
                None => Head { seq: before - 1, ..Head::default() },
            },
        };
        let mut entries: Vec<Entry> = Vec::new();
        let (mut next, mut blocks) = (end.seq, 0);
        while next > 0 && blocks < BLOCKS && wanted(&entries, page).count() < limit {
            let mut block = Vec::new();
            for entry in self.store.range(&keys::evidence_block(next)).await?.entries {
                block.push(decode::<Entry>(&entry)?);
            }
            block.retain(|entry| entry.seq <= next);
            block.append(&mut entries);
            entries = block;
            next = (next - next % keys::EVIDENCE_BLOCK).saturating_sub(1);
            blocks += 1;
        }
        // What is told must have been looked at, and the next page begins below what is told.
        let lowest = wanted(&entries, page).nth(limit.saturating_sub(1)).map(|entry| entry.seq);
        if let Some(lowest) = lowest {
            entries.retain(|entry| entry.seq >= lowest);
            next = lowest - 1;
        }
        let broken = broken_between(&entries, next + 1, end);
        let entries = wanted(&entries, page).cloned().collect();
        Ok(Told { entries, looked_at: [next + 1, end.seq], last: last.seq, broken })
    }
}

/// Those that a page is about, newest first.
fn wanted<'a>(entries: &'a [Entry], page: &'a Page) -> impl Iterator<Item = &'a Entry> {
    let all = entries.iter().rev();
    all.filter(|entry| page.of.is_none() || page.of == entry.deed.environment)
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
    fn a_part_is_looked_at_by_itself_and_all_parts_are_the_whole() {
        let (entries, head) = chain(7);
        let end = |seq: usize| Head { seq: seq as u64, hash: entries[seq - 1].hash };
        for first in 1..=7 {
            for last in first..=7 {
                let part = &entries[first - 1..last];
                assert_eq!(broken_between(part, first as u64, end(last)), None, "{first} to {last}");
            }
        }
        assert_eq!(broken_between(&[], 8, head), None, "there is nothing after the end");
        assert_eq!(broken_between(&entries[1..6], 3, end(6)), Some(3), "it begins elsewhere");
        assert_eq!(broken_between(&entries[2..5], 3, end(6)), Some(6), "the last one is missing");
        let mut changed = entries.clone();
        changed[3].deed.by = "eve".to_owned();
        changed[3] = Head { seq: 3, hash: entries[2].hash }.followed_by(changed[3].deed.clone()).unwrap();
        assert_eq!(broken_between(&changed[..4], 1, Head { seq: 4, hash: entries[4].previous }), Some(5));
        assert_eq!(broken_between(&changed[4..], 5, head), None, "the part after it is as it was");
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        let (entries, _) = chain(1);
        let json = serde_json::to_string(&entries[0]).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entries[0], "{json}");
    }
}

//! The state in a file: taken at one revision, and put into an empty store, of either kind.
//!
//! A restored state is older than the warehouse. What was in flight counts as lost, what was under
//! way has failed and can be applied again, all environments' views are set anew, and numbers go on
//! far beyond those that the warehouse may have seen ([`Era`]): nobody of the time that was lost can
//! commit over what is granted now.

mod era;
mod file;
mod settle;
mod witness;

use std::io::{BufRead, Write};

use coord_common::id::PlanId;
use coord_common::interval::Timestamp;

pub(crate) use era::Era;

use crate::control::Book;
use crate::control::book::{PlanRecord, decode, name};
use crate::store::record::{decode_json, encode_json};
use crate::store::{Compare, Entry, MAX_OPS, Outcome, Snapshot, Store, StoreError, Txn, keys, schema};
use file::{Header, Reader, Writer};

/// Bytes after which a transaction of an import is closed.
const TXN_BYTES: usize = 1 << 20;

/// Why a state can't be exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file can't be read or written.
    #[error("it can't be read or written: {0}")]
    File(#[from] std::io::Error),
    /// The file isn't what was exported.
    #[error("line {line}: {why}")]
    Damaged {
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// A newer build wrote the file.
    #[error("it is of version {found}, this build knows {known}: upgrade coordctl")]
    Newer {
        /// The file's version.
        found: u32,
        /// The newest one that this build reads.
        known: u32,
    },
    /// There is a state already.
    #[error("the store isn't empty: it has {records} records")]
    NotEmpty {
        /// How many.
        records: usize,
    },
    /// A coordinator leads.
    #[error("a coordinator leads on this store")]
    Led,
    /// A plan is being carried out.
    #[error("plan {0} is under way on this store")]
    UnderWay(PlanId),
    /// Numbers would become too large for warehouses.
    #[error("this state was restored too often: its tokens would no longer fit")]
    Exhausted,
    /// Somebody else writes to the store.
    #[error("somebody else writes to the store")]
    Disturbed,
}

/// What was written or read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many records.
    pub records: usize,
    /// The revision at which they were taken.
    pub revision: i64,
    /// The hash that the file ends with.
    pub blake3: String,
    /// Of an import: plans that were under way and can be applied again.
    pub stopped: usize,
    /// Of an import: environments whose views are to be set anew.
    pub environments: usize,
    /// Of an import: the number of the first entry of the evidence that isn't as it was written.
    pub broken: Option<u64>,
}

/// How to import.
#[derive(Debug, Clone)]
pub struct Import {
    /// Whether what is in the store may be replaced.
    pub force: bool,
    /// The time, for the plans' histories.
    pub now: Timestamp,
    /// Who asks for it.
    pub by: String,
}

/// Writes all records as they are at one revision; leadership isn't among them. Works while a
/// coordinator leads.
///
/// # Errors
/// [`BackupError`] where the store can't be read, a record is damaged, or the file can't be written.
pub async fn export(store: &dyn Store, out: impl Write) -> Result<Summary, BackupError> {
    schema::check_schema(store).await?;
    let Snapshot { entries, revision } = store.range(keys::ROOT).await?;
    let kept: Vec<&Entry> = entries.iter().filter(|entry| entry.key != keys::LEAD).collect();
    let era = era_of(&entries)?;
    let header = Header::new(revision, era, highest_flip(&entries)?, kept.len());
    let mut writer = Writer::new(out, &header)?;
    for entry in &kept {
        crate::verify_record(&entry.key, &entry.value)?;
        writer.record(&entry.key, &entry.value)?;
    }
    let blake3 = writer.finish()?;
    let records = kept.len();
    Ok(Summary { records, revision: revision.0, blake3, stopped: 0, environments: 0, broken: None })
}

/// Puts an exported state into a store, which must be empty unless told otherwise. `open` gives the
/// file from its start; it is checked as a whole before anything is written. Cut off in the middle,
/// the store is no state yet, and it can be imported again with `force`.
///
/// # Errors
/// [`BackupError`]; where the file is damaged, the store isn't empty, or in use, nothing was changed.
pub async fn import<R: BufRead>(
    store: &dyn Store,
    mut open: impl FnMut() -> std::io::Result<R>,
    how: &Import,
) -> Result<Summary, BackupError> {
    let (header, blake3) = file::check(open()?)?;
    let before = store.range(keys::ROOT).await?;
    may_replace(&before, how.force)?;
    let era = Era::after(&header, &before).ok_or(BackupError::Exhausted)?;
    let mut load = Load::begin(store, &before, how).await?;
    let mut records = Reader::new(open()?)?;
    let mut count = 0;
    while let Some((key, value)) = records.record()? {
        count += 1;
        // The format comes last: what has none is no state.
        if key != keys::SCHEMA && key != keys::ERA {
            load.put(key, value).await?;
        }
    }
    load.flush().await?;
    let book = Book::load(store).await?;
    let settled = settle::settle(store, &book, how).await?;
    for (key, value) in settled.changes {
        match value {
            Some(value) => load.put(key, value).await?,
            None => load.delete(key).await?,
        }
    }
    let evidence = witness::witness(store, &book, &before, &header, &blake3, how).await?;
    for (key, value) in evidence.records {
        load.put(key, value).await?;
    }
    load.end(&era).await?;
    Ok(Summary {
        records: count,
        revision: header.revision,
        blake3,
        broken: evidence.broken,
        stopped: settled.stopped,
        environments: settled.environments,
    })
}

/// The state's era; that of one that was never restored, where there is none.
fn era_of(entries: &[Entry]) -> Result<Era, StoreError> {
    entries.iter().find(|entry| entry.key == keys::ERA).map_or(Ok(Era::default()), decode)
}

/// The greatest number of a flip of any environment.
fn highest_flip(entries: &[Entry]) -> Result<u64, StoreError> {
    let mut highest = 0;
    for entry in entries {
        if entry.key.starts_with(keys::PROMOTIONS) {
            highest = highest.max(name(entry, keys::PROMOTIONS)?);
        } else if entry.key.starts_with(keys::GONE) {
            highest = highest.max(decode(entry)?);
        } else if entry.key.starts_with(keys::ENVIRONMENTS) {
            highest = highest.max(decode::<crate::control::book::Pointer>(entry)?.seq);
        }
    }
    Ok(highest)
}

/// Nobody leads, nothing is under way, and there is nothing or it may go. What is damaged may go,
/// too.
fn may_replace(before: &Snapshot, force: bool) -> Result<(), BackupError> {
    if before.entries.iter().any(|entry| entry.key == keys::LEAD) {
        return Err(BackupError::Led);
    }
    for entry in before.entries.iter().filter(|entry| entry.key.starts_with(keys::PLANS)) {
        let record = decode_json::<PlanRecord>(&entry.key, &entry.value);
        if record.is_ok_and(|record| record.state.is_under_way()) {
            return Err(BackupError::UnderWay(name(entry, keys::PLANS)?));
        }
    }
    if !before.entries.is_empty() && !force {
        return Err(BackupError::NotEmpty { records: before.entries.len() });
    }
    Ok(())
}

/// Writes records in as many transactions as they need, while nobody leads and nobody else imports.
struct Load<'a> {
    store: &'a dyn Store,
    mark: Vec<u8>,
    txn: Txn,
}

impl<'a> Load<'a> {
    /// Empties the store and claims it.
    async fn begin(store: &'a dyn Store, before: &Snapshot, how: &Import) -> Result<Self, BackupError> {
        let unled = || Txn::new().require(Compare::Absent(keys::LEAD.to_owned()));
        if !before.entries.is_empty() {
            done(store.commit(unled().delete_prefix(keys::ROOT)).await?)?;
        }
        let mark = encode_json(&format!("{} {} {}", how.by, how.now, std::process::id()))?;
        let claim =
            unled().require(Compare::NoneUnder(keys::ROOT.to_owned())).put(keys::IMPORTING, mark.clone());
        done(store.commit(claim).await?)?;
        let txn = Self::guarded(&mark);
        Ok(Self { store, mark, txn })
    }

    fn guarded(mark: &[u8]) -> Txn {
        Txn::new()
            .require(Compare::Absent(keys::LEAD.to_owned()))
            .require(Compare::Value(keys::IMPORTING.to_owned(), mark.to_vec()))
    }

    async fn put(&mut self, key: String, value: Vec<u8>) -> Result<(), BackupError> {
        if self.txn.len().1 + 1 > MAX_OPS || self.txn.bytes() + key.len() + value.len() > TXN_BYTES {
            self.flush().await?;
        }
        self.txn = std::mem::take(&mut self.txn).put(key, value);
        Ok(())
    }

    async fn delete(&mut self, key: String) -> Result<(), BackupError> {
        if self.txn.len().1 + 1 > MAX_OPS {
            self.flush().await?;
        }
        self.txn = std::mem::take(&mut self.txn).delete(key);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), BackupError> {
        let full = std::mem::replace(&mut self.txn, Self::guarded(&self.mark));
        if full.len().1 > 0 {
            done(self.store.commit(full).await?)?;
        }
        Ok(())
    }

    /// Makes it a state.
    async fn end(mut self, era: &Era) -> Result<(), BackupError> {
        self.flush().await?;
        let last = self.txn.delete(keys::IMPORTING).put(keys::ERA, encode_json(era)?);
        done(self.store.commit(last.put(keys::SCHEMA, schema::mark()?)).await?)
    }
}

fn done(outcome: Outcome) -> Result<(), BackupError> {
    outcome.committed().map(|_| ()).ok_or(BackupError::Disturbed)
}

#[cfg(test)]
mod tests;

//! The connection and what is asked of it, on the thread that owns both.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::super::txn::{Compare, Op};
use super::super::watch::Hinter;
use super::super::{Entry, LeaseId, Outcome, Revision, Snapshot, StoreError, Txn, Watch, prefix_end};
use super::{Clock, FREE_SPACE, MAKE_WRITABLE, RESTORE};

/// Marks a SQLite file as ours: `coor` in ASCII.
const APPLICATION_ID: i32 = 0x636f_6f72;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS kv (
        key             BLOB    NOT NULL UNIQUE,
        value           BLOB    NOT NULL,
        create_revision INTEGER NOT NULL,
        mod_revision    INTEGER NOT NULL,
        version         INTEGER NOT NULL,
        lease           INTEGER
    ) STRICT;
    CREATE INDEX IF NOT EXISTS kv_lease ON kv (lease) WHERE lease IS NOT NULL;
    CREATE TABLE IF NOT EXISTS head (
        only     INTEGER PRIMARY KEY CHECK (only = 1),
        revision INTEGER NOT NULL
    ) STRICT;
    INSERT OR IGNORE INTO head VALUES (1, 1);
";

const COLUMNS: &str = "key, value, create_revision, mod_revision, version";

struct Lease {
    ttl: Duration,
    deadline: Instant,
}

pub(super) struct Db {
    connection: Connection,
    place: String,
    clock: Clock,
    leases: BTreeMap<LeaseId, Lease>,
    next_lease: i64,
    watchers: Vec<(Vec<u8>, Hinter)>,
}

impl Db {
    pub(super) fn open(path: &Path, clock: Clock) -> Result<Self, StoreError> {
        let place = path.display().to_string();
        let connection = Connection::open(path).map_err(|error| translate(&place, &error))?;
        if is_foreign(&connection).map_err(|error| translate(&place, &error))? {
            let problem = "the file is a database of another program".to_owned();
            return Err(StoreError::Storage { place, problem, remedy: "name another state with --state" });
        }
        configure(&connection).map_err(|error| translate(&place, &error))?;
        connection
            .execute_batch(&format!("BEGIN; PRAGMA application_id = {APPLICATION_ID}; {TABLES} COMMIT;"))
            .map_err(|error| translate(&place, &error))?;
        let mut db =
            Self { connection, place, clock, leases: BTreeMap::new(), next_lease: 1, watchers: Vec::new() };
        db.drop_leased("lease IS NOT NULL", &[])?;
        Ok(db)
    }

    pub(super) fn get(&mut self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.sweep()?;
        let found = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM kv WHERE key = ?1"))
            .and_then(|mut query| query.query_row([key.as_bytes()], read_entry).optional())
            .map_err(|error| translate(&self.place, &error))?;
        found.map(finish_entry).transpose()
    }

    pub(super) fn range(&mut self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.sweep()?;
        let rows = || -> rusqlite::Result<(Vec<RawEntry>, Revision)> {
            let sql = format!("SELECT {COLUMNS} FROM kv WHERE {UNDER} ORDER BY key");
            let mut query = self.connection.prepare_cached(&sql)?;
            let rows = query.query_map(under(prefix), read_entry)?.collect::<Result<_, _>>()?;
            Ok((rows, revision(&self.connection)?))
        };
        let (rows, revision) = rows().map_err(|error| translate(&self.place, &error))?;
        let entries = rows.into_iter().map(finish_entry).collect::<Result<_, _>>()?;
        Ok(Snapshot { entries, revision })
    }

    pub(super) fn commit(&mut self, txn: &Txn) -> Result<Outcome, StoreError> {
        self.sweep()?;
        for op in &txn.ops {
            if let Op::Put { lease: Some(lease), .. } = op
                && !self.leases.contains_key(lease)
            {
                return Err(StoreError::LeaseGone(*lease));
            }
        }
        let mut touched = Vec::new();
        let place = self.place.clone();
        let failed = |error: rusqlite::Error| translate(&place, &error);
        let write = self.begin().map_err(failed)?;
        for compare in &txn.compares {
            if !holds(&write, compare).map_err(failed)? {
                return Ok(Outcome::Conflict);
            }
        }
        let before = revision(&write).map_err(failed)?;
        let next = Revision(before.0 + 1);
        for op in &txn.ops {
            apply(&write, op, next, &mut touched).map_err(failed)?;
        }
        if touched.is_empty() {
            return Ok(Outcome::Committed(before));
        }
        finish(write, next).map_err(|error| translate_commit(&place, &error))?;
        self.hint(&touched);
        Ok(Outcome::Committed(next))
    }

    pub(super) fn watch(&mut self, prefix: String) -> Watch {
        let (hinter, watch) = Watch::new();
        self.watchers.retain(|(_, hinter)| !hinter.is_closed());
        self.watchers.push((prefix.into_bytes(), hinter));
        watch
    }

    pub(super) fn grant(&mut self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.sweep()?;
        let id = LeaseId(self.next_lease);
        self.next_lease += 1;
        self.leases.insert(id, Lease { ttl, deadline: (self.clock)() + ttl });
        Ok(id)
    }

    pub(super) fn keep_alive(&mut self, id: LeaseId) -> Result<(), StoreError> {
        self.sweep()?;
        let now = (self.clock)();
        let lease = self.leases.get_mut(&id).ok_or(StoreError::LeaseGone(id))?;
        lease.deadline = now + lease.ttl;
        Ok(())
    }

    pub(super) fn revoke(&mut self, id: LeaseId) -> Result<(), StoreError> {
        self.drop_leased("lease = ?1", &[&id.0])?;
        self.leases.remove(&id);
        Ok(())
    }

    /// Ends the leases whose time is over; what fails now is tried again with the next request.
    pub(super) fn sweep_when_idle(&mut self) {
        if let Err(error) = self.sweep() {
            tracing::warn!(%error, "failed to end expired leases");
        }
    }

    fn sweep(&mut self) -> Result<(), StoreError> {
        if self.leases.is_empty() {
            return Ok(());
        }
        let now = (self.clock)();
        let over: Vec<LeaseId> =
            self.leases.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, _)| *id).collect();
        over.into_iter().try_for_each(|id| self.revoke(id))
    }

    /// Deletes the leased keys that fit a condition, in one revision.
    fn drop_leased(&mut self, condition: &str, values: &[&dyn rusqlite::ToSql]) -> Result<(), StoreError> {
        let place = self.place.clone();
        let mut run = || -> rusqlite::Result<Vec<Vec<u8>>> {
            let write = self.begin()?;
            let sql = format!("DELETE FROM kv WHERE {condition} RETURNING key");
            let keys: Vec<Vec<u8>> =
                write.prepare_cached(&sql)?.query_map(values, |row| row.get(0))?.collect::<Result<_, _>>()?;
            if !keys.is_empty() {
                let next = Revision(revision(&write)?.0 + 1);
                finish(write, next)?;
            }
            Ok(keys)
        };
        let keys = run().map_err(|error| translate(&place, &error))?;
        self.hint(&keys);
        Ok(())
    }

    fn begin(&mut self) -> rusqlite::Result<Transaction<'_>> {
        self.connection.transaction_with_behavior(TransactionBehavior::Immediate)
    }

    fn hint(&self, touched: &[Vec<u8>]) {
        for (prefix, hinter) in &self.watchers {
            if touched.iter().any(|key| key.starts_with(prefix)) {
                hinter.hint();
            }
        }
    }

    /// For tests of what a refusing disk does.
    #[cfg(test)]
    pub(super) fn pragma(&mut self, pragma: &str) -> Result<(), StoreError> {
        self.connection
            .execute_batch(&format!("PRAGMA {pragma}"))
            .map_err(|error| translate(&self.place, &error))
    }
}

/// Whether the file holds tables that are not ours; looks without changing anything.
fn is_foreign(connection: &Connection) -> rusqlite::Result<bool> {
    let id: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(id != APPLICATION_ID && tables > 0)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn revision(connection: &Connection) -> rusqlite::Result<Revision> {
    connection.prepare_cached("SELECT revision FROM head")?.query_row([], |row| row.get(0).map(Revision))
}

fn finish(write: Transaction<'_>, next: Revision) -> rusqlite::Result<()> {
    write.prepare_cached("UPDATE head SET revision = ?1")?.execute([next.0])?;
    write.commit()
}

/// The condition of keys under a prefix: bounds as in [`under`].
const UNDER: &str = "key >= ?1 AND (?2 IS NULL OR key < ?2)";

fn under(prefix: &str) -> (Vec<u8>, Option<Vec<u8>>) {
    (prefix.as_bytes().to_vec(), prefix_end(prefix.as_bytes()))
}

/// Whether a compare holds. As in etcd, the revisions of a key that does not exist are zero.
fn holds(connection: &Connection, compare: &Compare) -> rusqlite::Result<bool> {
    let revisions = |key: &str| {
        connection
            .prepare_cached("SELECT create_revision, mod_revision FROM kv WHERE key = ?1")?
            .query_row([key.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    };
    Ok(match compare {
        Compare::Absent(key) => revisions(key)?.is_none(),
        Compare::Exists(key) => revisions(key)?.is_some(),
        Compare::CreateRevision(key, at) => revisions(key)?.unwrap_or((0, 0)).0 == at.0,
        Compare::ModRevision(key, at) => revisions(key)?.unwrap_or((0, 0)).1 == at.0,
        Compare::Value(key, value) => connection
            .prepare_cached("SELECT value = ?2 FROM kv WHERE key = ?1")?
            .query_row(params![key.as_bytes(), value], |row| row.get(0))
            .optional()?
            .unwrap_or(false),
        Compare::NoneUnder(prefix) => {
            !connection.prepare_cached(&format!("SELECT 1 FROM kv WHERE {UNDER}"))?.exists(under(prefix))?
        }
    })
}

/// Applies an operation and adds the keys it changed.
fn apply(
    connection: &Connection,
    op: &Op,
    next: Revision,
    touched: &mut Vec<Vec<u8>>,
) -> rusqlite::Result<()> {
    match op {
        Op::Put { key, value, lease } => {
            connection
                .prepare_cached(
                    "INSERT INTO kv VALUES (?1, ?2, ?3, ?3, 1, ?4) ON CONFLICT (key) DO UPDATE SET
                     value = ?2, mod_revision = ?3, version = version + 1, lease = ?4",
                )?
                .execute(params![key.as_bytes(), value, next.0, lease.map(|lease| lease.0)])?;
            touched.push(key.as_bytes().to_vec());
        }
        Op::Delete(key) => {
            let gone =
                connection.prepare_cached("DELETE FROM kv WHERE key = ?1")?.execute([key.as_bytes()])?;
            if gone > 0 {
                touched.push(key.as_bytes().to_vec());
            }
        }
        Op::DeletePrefix(prefix) => {
            let mut delete =
                connection.prepare_cached(&format!("DELETE FROM kv WHERE {UNDER} RETURNING key"))?;
            for key in delete.query_map(under(prefix), |row| row.get(0))? {
                touched.push(key?);
            }
        }
    }
    Ok(())
}

/// An entry whose key is not yet known to be text.
type RawEntry = (Vec<u8>, Entry);

fn read_entry(row: &Row<'_>) -> rusqlite::Result<RawEntry> {
    let entry = Entry {
        key: String::new(),
        value: row.get(1)?,
        create_revision: Revision(row.get(2)?),
        mod_revision: Revision(row.get(3)?),
        version: row.get(4)?,
    };
    Ok((row.get(0)?, entry))
}

fn finish_entry((key, entry): RawEntry) -> Result<Entry, StoreError> {
    let key = String::from_utf8(key).map_err(|error| {
        StoreError::corrupt(&String::from_utf8_lossy(error.as_bytes()), "the key is not UTF-8")
    })?;
    Ok(Entry { key, ..entry })
}

/// What SQLite's error means to the user. Before a commit nothing was applied: a transaction that
/// fails is rolled back.
fn translate(place: &str, error: &rusqlite::Error) -> StoreError {
    let storage = |problem: String, remedy| StoreError::Storage { place: place.to_owned(), problem, remedy };
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Unavailable(format!("`{place}` is locked by another program"))
        }
        Some(ErrorCode::DiskFull) => storage("the disk is full".to_owned(), FREE_SPACE),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            storage(format!("the file can't be written ({error})"), MAKE_WRITABLE)
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            storage(format!("the file is damaged or no state file ({error})"), RESTORE)
        }
        _ => storage(error.to_string(), "check the disk, then run again"),
    }
}

/// The same for a failed commit, where an I/O error leaves the outcome open.
fn translate_commit(place: &str, error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::SystemIoFailure) => StoreError::Unknown(format!("`{place}`: {error}")),
        _ => translate(place, error),
    }
}

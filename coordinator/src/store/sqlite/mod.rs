//! The store of one machine: one SQLite file, held by one process.
//!
//! A thread of its own owns the connection; callers send it work and await the answer. Leases end
//! with the process that holds the file: nobody else could be keeping them alive.

mod db;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::oneshot;

use self::db::Db;
use super::txn::check_key;
use super::{Entry, LeaseId, Outcome, Snapshot, Store, StoreError, Txn, Watch};

/// A monotonic clock, by which leases expire.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// How often leases are looked at while nothing else happens.
const SWEEP_EVERY: Duration = Duration::from_millis(250);

type Job = Box<dyn FnOnce(&mut Db) + Send>;

/// State in one SQLite file.
pub struct SqliteStore {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl SqliteStore {
    /// Opens or creates a state file, with its folder.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where another store, in this process or another, holds the file;
    /// [`StoreError::Storage`] where it can't be written or is no state file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with_clock(path, Arc::new(Instant::now))
    }

    /// The same with a clock of one's own, so that tests and simulations decide when leases expire.
    pub fn open_with_clock(path: &Path, clock: Clock) -> Result<Self, StoreError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(|error| io_error(folder, &error))?;
        }
        // One file has one lock, by whatever link it is reached.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let lock = lock(&path)?;
        let mut db = Db::open(&path, clock)?;
        let (jobs, inbox) = mpsc::channel::<Job>();
        let run = move || {
            loop {
                match inbox.recv_timeout(SWEEP_EVERY) {
                    Ok(job) => job(&mut db),
                    Err(RecvTimeoutError::Timeout) => db.sweep_when_idle(),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            drop(db);
            drop(lock);
        };
        let thread = std::thread::Builder::new()
            .name("state".to_owned())
            .spawn(run)
            .map_err(|error| StoreError::Unavailable(format!("can't start the state thread: {error}")))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |db| {
            // A caller that went away does not undo what it asked for.
            let _ = answer.send(job(db));
        });
        let gone = || StoreError::Unknown("the state thread has ended".to_owned());
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Drop for SqliteStore {
    /// Waits until the file is closed and its lock is free, so that it can be opened again at once.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has dropped the connection and the lock as well.
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.call(move |db| db.get(&key)).await
    }

    async fn range(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        let prefix = prefix.to_owned();
        self.call(move |db| db.range(&prefix)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        txn.check()?;
        self.call(move |db| db.commit(&txn)).await
    }

    async fn watch(&self, prefix: &str) -> Result<Watch, StoreError> {
        let prefix = prefix.to_owned();
        self.call(move |db| Ok(db.watch(prefix))).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.call(move |db| db.grant(ttl)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.call(move |db| db.keep_alive(lease)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.call(move |db| db.revoke(lease)).await
    }
}

/// Takes the lock beside a state file and writes this process into it. The system frees it with
/// the process, however that ends.
fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(|error| io_error(&lock_path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The holder's name only helps the reader: without it the error stands.
            let _ = file.read_to_string(&mut text);
            return Err(StoreError::InUse { path: path.to_owned(), pid: text.trim().parse().ok() });
        }
        Err(TryLockError::Error(error)) => return Err(io_error(&lock_path, &error)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(|error| io_error(&lock_path, &error))?;
    Ok(file)
}

fn io_error(path: &Path, error: &std::io::Error) -> StoreError {
    use std::io::ErrorKind;
    let remedy = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FREE_SPACE,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => MAKE_WRITABLE,
        _ => "check that the path names a folder this user can write to",
    };
    StoreError::Storage { place: path.display().to_string(), problem: error.to_string(), remedy }
}

const FREE_SPACE: &str = "free some space and run again: what was committed before is safe";
const MAKE_WRITABLE: &str =
    "make the file and its folder writable for this user, or name another state with --state";
const RESTORE: &str = "move it away, or restore it from a backup";

#[cfg(test)]
mod tests;

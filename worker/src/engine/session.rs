//! One connection to a warehouse, and a small pool of them.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use coord_common::project::model::ColumnDef;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Rows;
use super::error::{Class, EngineError};
use super::profile::Profile;

/// What one statement answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    /// How many rows it changed.
    pub(crate) changed: u64,
    /// The rows that it returned.
    pub(crate) rows: Rows,
}

impl Answer {
    /// The first value of the first row.
    pub(crate) fn cell(&self) -> Option<&str> {
        self.rows.rows.first()?.first()?.as_deref()
    }
}

/// One connection. Whoever drops it in a transaction rolls that back.
#[async_trait]
pub(crate) trait Session: Send {
    /// Runs statements in order, in as few round trips as it can, up to the first that fails.
    /// Returns one answer for each. A text with several statements in it must come alone.
    async fn run(&mut self, statements: &[String]) -> Result<Vec<Answer>, EngineError>;

    /// The columns that a query would return, with their types; not within a transaction.
    async fn describe(&mut self, query: &str) -> Result<Vec<ColumnDef>, EngineError>;

    /// Runs one query and returns its answer as text.
    async fn query(&mut self, sql: &str) -> Result<Rows, EngineError>;

    /// What stops the statement that runs.
    fn canceller(&self) -> Box<dyn Canceller>;

    /// Whether the connection is of no more use.
    fn is_broken(&self) -> bool;
}

/// Stops the statement that a session runs, from outside.
#[async_trait]
pub(crate) trait Canceller: Send + Sync {
    /// Asks for it; the statement then fails with [`Class::Cancelled`], or ends just before.
    async fn cancel(&self);

    /// Whether a session that doesn't answer may be left alone with its statement. What it has open
    /// is rolled back once the warehouse notices, or shut out by the fence.
    fn may_abandon(&self) -> bool;
}

/// Makes connections to one warehouse.
#[async_trait]
pub(crate) trait Connector: Send + Sync {
    /// How the warehouse differs from others.
    fn profile(&self) -> &Profile;

    /// Makes a connection.
    async fn connect(&self) -> Result<Box<dyn Session>, EngineError>;
}

/// At most so many connections; idle ones are kept.
pub(crate) struct Pool {
    connector: Box<dyn Connector>,
    idle: Mutex<Vec<Box<dyn Session>>>,
    permits: Semaphore,
    spare: Semaphore,
    size: usize,
}

impl Pool {
    pub(crate) fn new(connector: Box<dyn Connector>, size: usize) -> Self {
        let size = size.max(1);
        Self {
            connector,
            idle: Mutex::default(),
            permits: Semaphore::new(size),
            spare: Semaphore::new(1),
            size,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn profile(&self) -> &Profile {
        self.connector.profile()
    }

    /// A connection; waits while all are in use.
    pub(crate) async fn get(&self) -> Result<Pooled<'_>, EngineError> {
        let permit = self.permits.acquire().await.map_err(|_| EngineError::cancelled())?;
        self.connected(permit).await
    }

    async fn connected<'a>(&'a self, permit: SemaphorePermit<'a>) -> Result<Pooled<'a>, EngineError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let session = match idle.filter(|session| !session.is_broken()) {
            Some(session) => session,
            None => self.connector.connect().await?,
        };
        Ok(Pooled { pool: self, session: Some(session), _permit: permit, clean: false })
    }

    /// A connection beyond the pool's size, to look ahead with; nothing while somebody else does.
    pub(crate) async fn get_spare(&self) -> Result<Option<Pooled<'_>>, EngineError> {
        let Ok(permit) = self.spare.try_acquire() else { return Ok(None) };
        self.connected(permit).await.map(Some)
    }

    /// A connection, unless what it is for is cancelled first.
    pub(crate) async fn get_unless(&self, cancel: &CancellationToken) -> Result<Pooled<'_>, EngineError> {
        tokio::select! {
            session = self.get() => session,
            () = cancel.cancelled() => Err(EngineError::cancelled()),
        }
    }
}

/// A connection out of the pool. It goes back only with [`Pooled::give_back`]: one that was
/// dropped on the way (an error, a cancelled future) may be in the middle of anything.
pub(crate) struct Pooled<'a> {
    pool: &'a Pool,
    session: Option<Box<dyn Session>>,
    _permit: SemaphorePermit<'a>,
    clean: bool,
}

impl Pooled<'_> {
    /// Returns the connection to the pool; it is in no transaction.
    pub(crate) fn give_back(mut self) {
        self.clean = true;
    }

    /// Returns the connection to the pool if it is as it was, and closes it otherwise: a cancel may
    /// still hit it late, an error may have left a transaction, users' own statements settings and
    /// tables.
    pub(crate) fn give_back_if(mut self, clean: bool) {
        self.clean = clean;
    }
}

const TAKEN: &str = "the session is taken out on drop only";

impl Deref for Pooled<'_> {
    type Target = dyn Session;
    fn deref(&self) -> &Self::Target {
        &**self.session.as_ref().expect(TAKEN)
    }
}

impl DerefMut for Pooled<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut **self.session.as_mut().expect(TAKEN)
    }
}

impl Drop for Pooled<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take().filter(|session| self.clean && !session.is_broken()) {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        }
    }
}

/// How long a statement gets to notice that it was cancelled before it is told again.
const CANCEL_AGAIN: Duration = Duration::from_millis(200);

/// How long a cancel may take to reach the warehouse.
const CANCEL_REACHES: Duration = Duration::from_secs(1);
/// How long a session may stay silent after it was cancelled until it is left alone.
const SILENCE: Duration = Duration::from_secs(5);

/// Waits for work on a session; on cancel, stops its statement and waits for the work to end. Where
/// nothing ends as the connection is dead, the session is given up: the caller must not use it again.
pub(crate) async fn cancellable<T>(
    cancel: &CancellationToken,
    canceller: &dyn Canceller,
    work: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    tokio::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = cancel.cancelled() => {}
    }
    let silent_since = Instant::now();
    loop {
        let ask = async {
            let _ = timeout(CANCEL_REACHES, canceller.cancel()).await;
            sleep(CANCEL_AGAIN).await;
        };
        tokio::select! {
            biased;
            // A commit that was faster than the cancel stays a success.
            done = &mut work => return done.map_err(|error| match error.class {
                Class::Stale | Class::AuditFailed(_) | Class::Permanent => error,
                Class::Transient | Class::Resource | Class::Cancelled => EngineError::cancelled(),
            }),
            () = ask => {}
        }
        if canceller.may_abandon() && silent_since.elapsed() >= SILENCE {
            return Err(EngineError::cancelled());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Deaf {
        may_abandon: bool,
    }

    #[async_trait]
    impl Canceller for Deaf {
        async fn cancel(&self) {
            std::future::pending::<()>().await;
        }

        fn may_abandon(&self) -> bool {
            self.may_abandon
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_stays_silent_after_a_cancel_is_given_up_where_it_may_be() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let started = Instant::now();
        let silent = std::future::pending::<Result<(), EngineError>>();
        let given_up = cancellable(&cancel, &Deaf { may_abandon: true }, silent).await;
        assert_eq!(given_up.unwrap_err().class, Class::Cancelled);
        assert!(started.elapsed() >= SILENCE && started.elapsed() < SILENCE * 2);

        let late = async {
            sleep(SILENCE * 3).await;
            Ok(1)
        };
        assert_eq!(cancellable(&cancel, &Deaf { may_abandon: false }, late).await, Ok(1));
    }
}

//! The engine for warehouses whose transactions cover rows and DDL: one flow for all of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use coord_common::id::Token;
use coord_common::project::model::ColumnDef;
use coord_common::sql::Dialect;
use tokio_util::sync::CancellationToken;

use super::columns::ColumnCache;
use super::error::EngineError;
use super::fence::{Ledger, Raised, end_sessions, name_session, stale};
use super::profile::Profile;
use super::session::{Connector, Pool, Session, cancellable};
use super::statements;
use super::transaction::{Attempt, Before, Transaction, count_of};
use super::tries::Tries;
use super::{
    BatchReport, BatchWrite, Discard, Engine, Fence, Outcome, Publication, Relation, RelationKind, Rows,
    Switched, ViewSwitch, Write,
};

/// How often a batch is tried before an error that may pass is the caller's.
const TRIES: u32 = 4;
/// How often a raise is tried while an older attempt is just committing.
const RAISE_TRIES: u32 = 20;
/// The pause after its first try.
const RAISE_PAUSE: Duration = Duration::from_millis(2);
/// The pause after a first try; it grows by itself with each further one.
const PAUSE: Duration = Duration::from_millis(10);

/// An engine over connections that share a [`super::Profile`].
pub(crate) struct TransactionalEngine {
    pub(crate) pool: Pool,
    /// The schema of fence rows and sequence numbers.
    schema: String,
    /// Catalogs whose ledger is known to exist, and up to which token it shuts all out.
    ready: Mutex<HashMap<Option<String>, u64>>,
    /// The token up to which all are to be shut out.
    shut: AtomicU64,
    /// Held while a token is raised, and alone while others are shut out: not every warehouse finds the
    /// conflict between the two where the raise makes a row.
    raising: tokio::sync::RwLock<()>,
    pub(crate) columns: ColumnCache,
}

impl TransactionalEngine {
    pub(crate) fn new(connector: Box<dyn Connector>, concurrency: usize, schema: impl Into<String>) -> Self {
        Self {
            pool: Pool::new(connector, concurrency),
            schema: schema.into(),
            ready: Mutex::default(),
            shut: AtomicU64::new(0),
            raising: tokio::sync::RwLock::default(),
            columns: ColumnCache::default(),
        }
    }

    /// The ledger that shares transactions with a catalog; made on demand. Whoever is to be shut out
    /// is then.
    pub(crate) async fn ledger(
        &self,
        session: &mut dyn Session,
        catalog: Option<&str>,
    ) -> Result<Ledger, EngineError> {
        let profile = self.pool.profile();
        let catalog = catalog.filter(|_| profile.transaction_per_catalog);
        let ledger = Ledger::new(profile, catalog, &self.schema);
        let key = catalog.map(str::to_owned);
        let upto = self.shut.load(Ordering::Acquire);
        let known = self.ready.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        if known.is_some_and(|shut| shut >= upto) {
            return Ok(ledger);
        }
        if known.is_none() && session.run(&[ledger.probe()]).await.is_err() {
            create_ledger(session, profile, catalog, &ledger, &self.schema).await?;
        }
        if upto > 0 {
            self.shut_out_of(session, &ledger, Token(upto)).await?;
        }
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(key, upto);
        Ok(ledger)
    }

    async fn shut_out_of(
        &self,
        session: &mut dyn Session,
        ledger: &Ledger,
        upto: Token,
    ) -> Result<(), EngineError> {
        let _alone = self.raising.write().await;
        let mut tries = Tries::upto(RAISE_TRIES, RAISE_PAUSE);
        loop {
            match ledger.shut_out(session, self.pool.profile(), upto).await {
                Err(error) if session.is_broken() => return Err(error),
                Err(error) => tries.again(error).await?,
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Describes a fresh batch's target and query, and raises its token, on a connection of its own;
    /// whether it came to that.
    async fn prepare(&self, write: &BatchWrite) -> Result<bool, EngineError> {
        let Some(query) = write.write.described() else { return Ok(false) };
        let Some(mut session) = self.pool.get_spare().await? else { return Ok(false) };
        let ledger = self.ledger(&mut *session, write.target.catalog.as_deref()).await?;
        if self.target_columns(&mut *session, &write.target).await?.is_none() {
            return Ok(false);
        }
        self.query_columns(&mut *session, &write.target, query).await?;
        self.raise(&mut *session, &ledger, &write.fence, false).await?;
        session.give_back();
        Ok(true)
    }

    /// Tries until it is written, done before, or refused for good.
    async fn write(
        &self,
        batch: &BatchWrite,
        cancel: &CancellationToken,
    ) -> Result<BatchReport, EngineError> {
        let mut commit_unknown = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let mut session = self.pool.get_unless(cancel).await?;
            let remembered = self.columns.knows(&batch.target);
            let canceller = session.canceller();
            let work = self.attempt(&mut *session, batch, tries == 1, cancel);
            let result = cancellable(cancel, &*canceller, work).await;
            let own_statements = !batch.pre.is_empty() || !batch.post.is_empty();
            let done = matches!(result, Ok(Attempt::Report(_)));
            session.give_back_if(done && !own_statements && !cancel.is_cancelled());
            match result {
                Ok(Attempt::Report(mut report)) => {
                    if commit_unknown && report.outcome == Outcome::AlreadyDone {
                        report.outcome = Outcome::Written;
                    }
                    return Ok(report);
                }
                Ok(Attempt::CommitUnknown(error)) if tries >= TRIES => return Err(error),
                Ok(Attempt::CommitUnknown(_)) => commit_unknown = true,
                Err(error) if tries < TRIES && error.is_race() => {}
                // Somebody else may have dropped or altered the table; what was known is forgotten.
                Err(error) if tries == 1 && remembered && error.names_something_wrong() => {}
                // An idle connection may have died unseen; what it had open is rolled back.
                Err(error) if tries == 1 && error.connection_lost() => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE * tries).await;
        }
    }

    async fn attempt(
        &self,
        session: &mut dyn Session,
        batch: &BatchWrite,
        first: bool,
        cancel: &CancellationToken,
    ) -> Result<Attempt, EngineError> {
        let ledger = self.ledger(session, batch.target.catalog.as_deref()).await?;
        let before = if first { self.before_data(&ledger, batch) } else { Before::Nothing };
        if matches!(before, Before::Nothing) {
            let raised = self.take_over(session, &ledger, batch).await?;
            if let Some(report) = done_before(batch, raised) {
                return Ok(Attempt::Report(report));
            }
        }
        let mut transaction = Transaction::new(self, session, batch, before);
        let mut result = transaction.run(&ledger, cancel).await;
        if matches!(&result, Err(error) if error.view_columns_differ()) {
            transaction.replace_view = true;
            result = transaction.run(&ledger, cancel).await;
        }
        if let Err(error) = &result {
            self.columns.forget(&batch.target);
            if error.code.as_deref() == Some("40001") {
                // A conflict may be the newer attempt's raise: then the work is no longer ours.
                self.raise(session, &ledger, &batch.fence, batch.once()).await?;
            }
        }
        result
    }

    /// What a first try can do in the round trip of its data. The raise is still a transaction of its
    /// own, and what it answers is looked at before the commit.
    fn before_data(&self, ledger: &Ledger, batch: &BatchWrite) -> Before {
        if batch.raised {
            return Before::Name(name_session(batch.fence.token));
        }
        let whole = batch.pre.is_empty() && self.columns.knows_all_of(batch);
        let setting = self.pool.profile().before_raise.filter(|_| whole && is_fresh(batch));
        setting.map_or(Before::Nothing, |setting| {
            Before::Raise(ledger.raise_statements(setting, &batch.fence, false))
        })
    }

    /// Raises the token; then ends what older attempts still hold open in the warehouse. Only a
    /// batch that was tried before can have any.
    async fn take_over(
        &self,
        session: &mut dyn Session,
        ledger: &Ledger,
        batch: &BatchWrite,
    ) -> Result<Raised, EngineError> {
        let profile = self.pool.profile();
        if !tried_before(batch) || profile.end_sessions.is_none() {
            return self.raise(session, ledger, &batch.fence, batch.once()).await;
        }
        let overtaken = ledger.overtaken(session, &batch.fence).await?;
        let raised = self.raise(session, ledger, &batch.fence, batch.once()).await?;
        if let Some(end) = end_sessions(profile, &overtaken) {
            // Best effort: without the right to, their locks last as long as they do.
            let _ = session.run(&[end]).await;
        }
        Ok(raised)
    }

    pub(crate) async fn raise(
        &self,
        session: &mut dyn Session,
        ledger: &Ledger,
        fence: &Fence,
        once: bool,
    ) -> Result<Raised, EngineError> {
        let mut tries = Tries::upto(RAISE_TRIES, RAISE_PAUSE);
        let _raising = self.raising.read().await;
        if fence.token.0 <= self.shut.load(Ordering::Acquire) {
            return Err(stale(fence));
        }
        loop {
            match ledger.raise(session, self.pool.profile(), fence, once).await {
                Err(error) if session.is_broken() => return Err(error),
                Err(error) => tries.again(error).await?,
                Ok(raised) => return Ok(raised),
            }
        }
    }
}

async fn create_ledger(
    session: &mut dyn Session,
    profile: &Profile,
    catalog: Option<&str>,
    ledger: &Ledger,
    schema: &str,
) -> Result<(), EngineError> {
    let mut tries = Tries::upto(RAISE_TRIES, RAISE_PAUSE);
    loop {
        let created = async {
            let count = statements::count_schemas(profile, catalog, schema);
            let exists = session.run(&[count]).await?.first().and_then(count_of) != Some(0);
            // One at a time: several in one go would be one transaction, which a race undoes whole.
            for statement in ledger.create().into_iter().skip(usize::from(exists)) {
                session.run(&[statement]).await?;
            }
            Ok(())
        };
        match created.await {
            Err(error) => tries.again(error).await?,
            Ok(()) => return Ok(()),
        }
    }
}

/// Whether nobody can have tried the batch before, so that whatever its raise answers, it must be
/// written. A migration never knows: it describes the table anew.
fn is_fresh(batch: &BatchWrite) -> bool {
    !tried_before(batch) && !matches!(batch.write, Write::Append { .. } | Write::Migrate { .. })
}

/// Whether an earlier attempt may have left something.
fn tried_before(batch: &BatchWrite) -> bool {
    batch.replayed_is_done || !batch.fence.supersedes.is_empty()
}

/// The report of a batch that the fence row says is done.
pub(super) fn done_before(batch: &BatchWrite, raised: Raised) -> Option<BatchReport> {
    let counts = batch.replayed_is_done || batch.once();
    let done = raised.done == batch.fence.token.0 || (raised.done != 0 && counts);
    done.then(|| BatchReport { outcome: Outcome::AlreadyDone, rows: raised.rows, audits: Vec::new() })
}

#[async_trait]
impl Engine for TransactionalEngine {
    fn dialect(&self) -> Dialect {
        self.pool.profile().dialect
    }

    fn concurrency(&self) -> usize {
        self.pool.size()
    }

    async fn look_ahead(&self, write: &mut BatchWrite) {
        // What the query reads may only be there after the statements before it.
        if self.pool.profile().looks_ahead && write.pre.is_empty() && is_fresh(write) {
            write.raised = self.prepare(write).await.unwrap_or(false);
        }
    }

    async fn run_batch(
        &self,
        write: &BatchWrite,
        cancel: &CancellationToken,
    ) -> Result<BatchReport, EngineError> {
        self.write(write, cancel).await
    }

    async fn switch_views(
        &self,
        switch: &ViewSwitch,
        cancel: &CancellationToken,
    ) -> Result<Switched, EngineError> {
        super::views::switch(self, switch, cancel).await
    }

    async fn publish(
        &self,
        publication: &Publication,
        cancel: &CancellationToken,
    ) -> Result<Outcome, EngineError> {
        super::publish::publish(self, publication, cancel).await
    }

    async fn drop_relations(&self, relations: &[(Relation, RelationKind)]) -> Vec<(Relation, EngineError)> {
        let mut failed = Vec::new();
        for (relation, kind) in relations {
            let name = self.pool.profile().relation(relation);
            let what = self.pool.profile().word(*kind);
            self.columns.forget(relation);
            let result = async {
                let mut session = self.pool.get().await?;
                let result = session.run(&[format!("DROP {what} IF EXISTS {name}")]).await;
                session.give_back();
                result
            };
            match result.await {
                Err(error) if !error.missing_relation() => failed.push((relation.clone(), error)),
                _ => {}
            }
        }
        failed
    }

    async fn discard(&self, discard: &Discard, cancel: &CancellationToken) -> Result<(), EngineError> {
        self.columns.forget(&discard.relation);
        super::discard::discard(self, discard, cancel).await
    }

    async fn prune(&self, catalog: Option<&str>, table: &str, upto: Token) -> Result<(), EngineError> {
        let mut tries = Tries::upto(TRIES, PAUSE);
        loop {
            let mut session = self.pool.get().await?;
            let ledger = self.ledger(&mut *session, catalog).await?;
            let result = ledger.prune(&mut *session, self.pool.profile(), table, upto).await;
            session.give_back_if(result.is_ok());
            match result {
                Err(error) => tries.again_anew(error).await?,
                Ok(()) => return Ok(()),
            }
        }
    }

    fn shut_out(&self, upto: Token) {
        self.shut.fetch_max(upto.0, Ordering::AcqRel);
    }

    async fn query(&self, sql: &str) -> Result<Rows, EngineError> {
        let mut session = self.pool.get().await?;
        let result = session.query(statements::clean(sql)).await;
        session.give_back_if(result.is_ok());
        result
    }

    async fn describe(&self, sql: &str) -> Result<Vec<ColumnDef>, EngineError> {
        let mut session = self.pool.get().await?;
        let result = session.describe(statements::clean(sql)).await;
        if result.is_ok() {
            session.give_back();
        }
        result
    }

    async fn columns(&self, relation: &Relation) -> Result<Option<Vec<ColumnDef>>, EngineError> {
        let mut session = self.pool.get().await?;
        let result = self.describe_relation(&mut *session, relation).await;
        session.give_back();
        result
    }

    async fn ping(&self) -> Result<String, EngineError> {
        let rows = self.query(self.pool.profile().version_query).await?;
        let cell = rows.rows.into_iter().flatten().flatten().next();
        cell.ok_or_else(|| EngineError::transient("the server did not tell its version"))
    }
}

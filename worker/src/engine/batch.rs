//! The engine for warehouses whose transactions cover rows and DDL: one flow for all of them.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use coord_common::id::Token;
use coord_common::project::model::ColumnDef;
use coord_common::sql::Dialect;
use tokio_util::sync::CancellationToken;

use super::error::{Class, EngineError};
use super::fence::{Ledger, Raised, end_sessions, raised};
use super::migrate;
use super::profile::Profile;
use super::session::{Answer, Connector, Pool, Session, cancellable};
use super::statements::{self, Known, Script};
use super::{
    AuditResult, BatchReport, BatchWrite, Beside, Discard, Engine, Fence, Migration, Outcome, Publication,
    Relation, RelationKind, Rows, Switched, ViewSwitch, Write,
};

/// How often a batch is tried before an error that may pass is the caller's.
const TRIES: u32 = 4;
/// How often a raise is tried while an older attempt is just committing.
const RAISE_TRIES: u32 = 40;
/// The pause after a first try; it grows by itself with each further one.
const PAUSE: Duration = Duration::from_millis(10);

/// An engine over connections that share a [`super::Profile`].
pub(crate) struct TransactionalEngine {
    pub(crate) pool: Pool,
    /// The schema of fence rows and sequence numbers.
    schema: String,
    /// Catalogs whose ledger is known to exist.
    ready: Mutex<HashSet<Option<String>>>,
    pub(crate) columns: ColumnCache,
}

/// Columns of targets, and of queries by target and shape: a model's batches differ in dates only.
#[derive(Default)]
pub(crate) struct ColumnCache {
    targets: Mutex<HashMap<Relation, Vec<ColumnDef>>>,
    queries: Mutex<HashMap<(Relation, String), Vec<ColumnDef>>>,
}

impl ColumnCache {
    /// More entries than this, and the cache of queries starts anew.
    const LIMIT: usize = 20_000;

    fn knows(&self, target: &Relation) -> bool {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).contains_key(target)
    }

    /// Whether nothing of a batch must be described before it is written.
    fn knows_all_of(&self, batch: &BatchWrite) -> bool {
        let Some(query) = batch.write.described() else { return false };
        let key = (batch.target.clone(), Self::shape(query));
        self.knows(&batch.target)
            && self.queries.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&key)
    }

    pub(crate) fn forget(&self, target: &Relation) {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).remove(target);
        self.queries.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| of != target);
    }

    /// A query with the digits of its text literals blanked, which can't change its columns' names.
    fn shape(query: &str) -> String {
        let mut quoted = false;
        let blank = |c: char| {
            quoted ^= c == '\'';
            if quoted && c.is_ascii_digit() { '0' } else { c }
        };
        query.chars().map(blank).collect()
    }
}

impl BatchWrite {
    /// What the table stands beside, where it is a table that is made before anything is written.
    fn made_aside(&self) -> Option<&Beside> {
        self.aside.as_ref().filter(|_| !matches!(self.write, Write::View { .. } | Write::AuditOnly))
    }
}

/// What one try came to.
enum Attempt {
    Report(BatchReport),
    /// The connection broke at the commit: whether it took place must be asked.
    CommitUnknown(EngineError),
}

impl TransactionalEngine {
    pub(crate) fn new(connector: Box<dyn Connector>, concurrency: usize, schema: impl Into<String>) -> Self {
        Self {
            pool: Pool::new(connector, concurrency),
            schema: schema.into(),
            ready: Mutex::default(),
            columns: ColumnCache::default(),
        }
    }

    /// The ledger that shares transactions with a catalog; made on demand.
    pub(crate) async fn ledger(
        &self,
        session: &mut dyn Session,
        catalog: Option<&str>,
    ) -> Result<Ledger, EngineError> {
        let profile = self.pool.profile();
        let catalog = catalog.filter(|_| profile.transaction_per_catalog);
        let ledger = Ledger::new(profile, catalog, &self.schema);
        let key = catalog.map(str::to_owned);
        if self.ready.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Ok(ledger);
        }
        if session.run(&[ledger.probe()]).await.is_err() {
            create_ledger(session, profile, catalog, &ledger, &self.schema).await?;
        }
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        Ok(ledger)
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
            let mut session = tokio::select! {
                session = self.pool.get() => session?,
                () = cancel.cancelled() => return Err(EngineError::cancelled()),
            };
            let remembered = self.columns.knows(&batch.target);
            let canceller = session.canceller();
            let work = self.attempt(&mut *session, batch, tries == 1, cancel);
            let result = cancellable(cancel, &*canceller, work).await;
            // A connection is used again only if it is as it was: a cancel may still hit it late, an
            // error may have left a transaction, the model's own statements settings and tables.
            let own_statements = !batch.pre.is_empty() || !batch.post.is_empty();
            if matches!(result, Ok(Attempt::Report(_))) && !own_statements && !cancel.is_cancelled() {
                session.give_back();
            } else {
                drop(session);
            }
            match result {
                Ok(Attempt::Report(mut report)) => {
                    if commit_unknown && report.outcome == Outcome::AlreadyDone {
                        report.outcome = Outcome::Written;
                    }
                    return Ok(report);
                }
                Ok(Attempt::CommitUnknown(error)) if tries >= TRIES => return Err(error),
                Ok(Attempt::CommitUnknown(_)) => commit_unknown = true,
                Err(error) if tries < TRIES && worth_another_try(&error) => {}
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
        let raise = if first { self.raise_along(&ledger, batch) } else { Vec::new() };
        if raise.is_empty() {
            let raised = self.take_over(session, &ledger, batch).await?;
            if let Some(report) = done_before(batch, raised) {
                return Ok(Attempt::Report(report));
            }
        }
        let mut transaction =
            Transaction { engine: self, session, batch, raise, begun: false, replace_view: false };
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

    /// The statements that raise the token, where they may share the data's round trip: nobody can
    /// have tried the batch before, and all that must be known to write it is known. The raise is
    /// still a transaction of its own, and what it answers is looked at before the commit.
    fn raise_along(&self, ledger: &Ledger, batch: &BatchWrite) -> Vec<String> {
        let fresh = !tried_before(batch) && !matches!(batch.write, Write::Append { .. });
        let whole = fresh && batch.pre.is_empty() && self.columns.knows_all_of(batch);
        let setting = self.pool.profile().before_raise.filter(|_| whole);
        setting.map_or_else(Vec::new, |setting| ledger.raise_statements(setting, &batch.fence, false))
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
        let mut tries = 0;
        loop {
            tries += 1;
            match ledger.raise(session, self.pool.profile(), fence, once).await {
                Err(error) if tries < RAISE_TRIES && worth_another_try(&error) && !session.is_broken() => {
                    tokio::time::sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }

    /// The target's columns, or nothing where it doesn't exist.
    async fn target_columns(
        &self,
        session: &mut dyn Session,
        target: &Relation,
    ) -> Result<Option<Vec<ColumnDef>>, EngineError> {
        let cached = self.columns.targets.lock().unwrap_or_else(PoisonError::into_inner).get(target).cloned();
        if cached.is_some() {
            return Ok(cached);
        }
        let found = self.describe_relation(session, target).await?;
        if let Some(found) = &found {
            let mut targets = self.columns.targets.lock().unwrap_or_else(PoisonError::into_inner);
            targets.insert(target.clone(), found.clone());
        }
        Ok(found)
    }

    pub(crate) async fn describe_relation(
        &self,
        session: &mut dyn Session,
        relation: &Relation,
    ) -> Result<Option<Vec<ColumnDef>>, EngineError> {
        let name = self.pool.profile().relation(relation);
        match session.describe(&format!("SELECT * FROM {name}")).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.missing_relation() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn query_columns(
        &self,
        session: &mut dyn Session,
        target: &Relation,
        query: &str,
    ) -> Result<Vec<ColumnDef>, EngineError> {
        let key = (target.clone(), ColumnCache::shape(query));
        let cached = self.columns.queries.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(cached) = cached {
            return Ok(cached);
        }
        let found = session.describe(statements::clean(query)).await?;
        let mut queries = self.columns.queries.lock().unwrap_or_else(PoisonError::into_inner);
        if queries.len() >= ColumnCache::LIMIT {
            queries.clear();
        }
        queries.insert(key, found.clone());
        Ok(found)
    }
}

async fn create_ledger(
    session: &mut dyn Session,
    profile: &Profile,
    catalog: Option<&str>,
    ledger: &Ledger,
    schema: &str,
) -> Result<(), EngineError> {
    let mut tries = 0;
    loop {
        tries += 1;
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
            Err(error) if worth_another_try(&error) && tries < RAISE_TRIES => {
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Whether an earlier attempt may have left something.
fn tried_before(batch: &BatchWrite) -> bool {
    batch.replayed_is_done || !batch.fence.supersedes.is_empty()
}

/// The report of a batch that the fence row says is done.
fn done_before(batch: &BatchWrite, raised: Raised) -> Option<BatchReport> {
    let counts = batch.replayed_is_done || batch.once();
    let done = raised.done == batch.fence.token.0 || (raised.done != 0 && counts);
    done.then(|| BatchReport { outcome: Outcome::AlreadyDone, rows: raised.rows, audits: Vec::new() })
}

/// Whether the error is a race that a second try in this process wins.
pub(crate) fn worth_another_try(error: &EngineError) -> bool {
    error.class == Class::Transient
        && matches!(error.code.as_deref(), Some("40001" | "40P01" | "42P06" | "42P07" | "42710" | "XX000"))
}

/// What the data transaction came to before its commit.
enum Worked {
    /// Rows written, and what the audits found.
    Now(u64, Vec<AuditResult>),
    /// The token, raised along with it, had completed the batch before: it is rolled back.
    Before(BatchReport),
}

/// The data transaction of one try.
struct Transaction<'a> {
    engine: &'a TransactionalEngine,
    session: &'a mut dyn Session,
    batch: &'a BatchWrite,
    /// What raises the token in the same round trip; nothing where it is raised already.
    raise: Vec<String>,
    begun: bool,
    /// Whether a view is dropped first, since its columns can't be changed in place.
    replace_view: bool,
}

impl Transaction<'_> {
    async fn run(&mut self, ledger: &Ledger, cancel: &CancellationToken) -> Result<Attempt, EngineError> {
        let work = self.work(ledger).await.and_then(refuse_bad_rows);
        let (rows, audits) = match work {
            Ok(Worked::Before(report)) => {
                self.rollback().await;
                return Ok(Attempt::Report(report));
            }
            Ok(_) if cancel.is_cancelled() => {
                self.rollback().await;
                return Err(EngineError::cancelled());
            }
            Ok(Worked::Now(rows, audits)) => (rows, audits),
            Err(error) => {
                self.rollback().await;
                return Err(error);
            }
        };
        let profile = self.engine.pool.profile();
        match ledger.commit(self.session, profile, &self.batch.fence, rows).await {
            Ok(()) => {
                self.begun = false;
                Ok(Attempt::Report(BatchReport { outcome: Outcome::Written, rows, audits }))
            }
            Err(error) if self.session.is_broken() || error.connection_lost() => {
                Ok(Attempt::CommitUnknown(error))
            }
            Err(error) => {
                self.rollback().await;
                Err(error)
            }
        }
    }

    /// Everything before the fence check.
    async fn work(&mut self, ledger: &Ledger) -> Result<Worked, EngineError> {
        let (engine, batch) = (self.engine, self.batch);
        engine.pool.profile().check_names(&batch.target)?;
        if matches!(batch.write, Write::Migrate { .. }) {
            // What others did to the table counts, too.
            engine.columns.forget(&batch.target);
        }
        let target = match batch.write {
            Write::AuditOnly => None,
            // A view whose tables lost columns can't even be described.
            Write::Migrate { migration: Migration::View { .. }, .. }
                if engine.pool.profile().dependents.is_none() =>
            {
                None
            }
            _ => engine.target_columns(self.session, &batch.target).await?,
        };
        let mut go = std::mem::take(&mut self.raise);
        let raises = !go.is_empty();
        let mut target = target;
        if let (None, Some(beside)) = (&target, batch.made_aside()) {
            // The query may read it, so it comes before that is described.
            self.begin(&mut go);
            let made = super::publish::create_aside(engine, self.session, &batch.target, beside).await?;
            go.extend(made.statements);
            self.session.run(&go).await?;
            go.clear();
            target = Some(made.columns);
        }
        if !batch.pre.is_empty() {
            // The query may need what they make, so they come before it is described.
            self.begin(&mut go);
            self.alone(&mut go, &batch.pre).await?;
        }
        let mut schema_missing = match (&target, &batch.write) {
            (Some(_), _) | (None, Write::AuditOnly) => false,
            (None, _) => self.schema_missing().await?,
        };
        let mut target = target;
        if target.is_none() && self.reads_itself() {
            // The query can't even be described without its table.
            self.begin(&mut go);
            let make = statements::declared_table(engine.pool.profile(), batch, schema_missing);
            self.alone(&mut go, &make).await?;
            target = batch.columns.clone();
            schema_missing = false;
        }
        let mut known = Known { target, schema_missing, query: self.query_columns().await? };
        if let Write::Migrate { query, migration } = &batch.write {
            return self.migrate(go, query, migration, known).await;
        }
        if let Some(target) = known.target.as_ref().filter(|_| batch.known_columns_only) {
            let has = |name: &str| target.iter().any(|column| column.name.eq_ignore_ascii_case(name));
            known.query.retain(|column| has(&column.name));
        }
        let mut script = statements::script(engine.pool.profile(), batch, &known)?;
        self.begin(&mut go);
        if self.replace_view {
            go.push(format!("DROP VIEW IF EXISTS {}", engine.pool.profile().relation(&batch.target)));
        }
        if batch.first && matches!(batch.write, Write::Append { .. }) {
            // The table is emptied, and with it goes what other batches had added.
            go.push(ledger.forget_others(&batch.fence));
        }
        let data_at = go.len() + script.create.len();
        go.append(&mut script.create);
        go.append(&mut script.data);
        let answers = self.answers(go).await?;
        if raises && let Some(report) = done_before(batch, raised(&answers, &batch.fence)?) {
            return Ok(Worked::Before(report));
        }
        if script.reshapes {
            engine.columns.forget(&batch.target);
        }
        self.rows_and_audits(&answers, data_at, &script)
    }

    async fn migrate(
        &mut self,
        mut go: Vec<String>,
        query: &str,
        migration: &Migration,
        mut known: Known,
    ) -> Result<Worked, EngineError> {
        let (profile, batch) = (self.engine.pool.profile(), self.batch);
        if let Some(declared) = &batch.columns {
            // By the names that the warehouse has for their types.
            let typed = migrate::typed_nulls(profile, declared);
            known.query = self.session.describe(&typed).await?;
        }
        let steps = migrate::steps(profile, &batch.target, query, migration, &known)?;
        self.begin(&mut go);
        self.session.run(&go).await?;
        let dependents = match profile.dependents.filter(|_| !steps.is_empty()) {
            Some(question) => migrate::dependents(self.session, profile, question, &batch.target).await?,
            None => Vec::new(),
        };
        self.engine.columns.forget(&batch.target);
        let statements = migrate::with_dependents(profile, &batch.target, steps, &dependents)?;
        self.answers(statements).await.map_err(|error| migrate::explain(error, &batch.target))?;
        self.engine.columns.forget(&batch.target);
        Ok(Worked::Now(0, Vec::new()))
    }

    /// Runs what is gathered, the statements after it, and the audits.
    async fn answers(&mut self, mut go: Vec<String>) -> Result<Vec<Answer>, EngineError> {
        let batch = self.batch;
        let mut answers = Vec::new();
        if !batch.post.is_empty() {
            answers = self.session.run(&go).await?;
            go.clear();
            self.alone(&mut go, &batch.post).await?;
        }
        go.extend(batch.audits.iter().map(statements::count));
        if !go.is_empty() {
            answers.append(&mut self.session.run(&go).await?);
        }
        Ok(answers)
    }

    fn rows_and_audits(
        &self,
        answers: &[Answer],
        data_at: usize,
        script: &Script,
    ) -> Result<Worked, EngineError> {
        let batch = self.batch;
        let changed = |at: &usize| answers.get(data_at + at).map_or(0, |answer| answer.changed);
        let rows = script.counted.iter().map(changed).sum();
        let found = answers.len().saturating_sub(batch.audits.len());
        let audits = batch.audits.iter().zip(&answers[found..]).map(|(audit, answer)| {
            let bad_rows = count_of(answer).ok_or_else(|| {
                EngineError::transient(format!("the audit `{}` returned no count", audit.name))
            })?;
            Ok(AuditResult { name: audit.name.clone(), blocking: audit.blocking, bad_rows })
        });
        Ok(Worked::Now(rows, audits.collect::<Result<_, EngineError>>()?))
    }

    /// Whether the query reads the table that it is to fill, and the table could be made beforehand.
    fn reads_itself(&self) -> bool {
        let own = self.engine.pool.profile().relation(&self.batch.target);
        self.batch.columns.is_some() && self.batch.write.described().is_some_and(|query| query.contains(&own))
    }

    /// Asked for, since making a schema that exists can need rights that nobody has.
    async fn schema_missing(&mut self) -> Result<bool, EngineError> {
        let Relation { catalog, schema, .. } = &self.batch.target;
        let count = statements::count_schemas(self.engine.pool.profile(), catalog.as_deref(), schema);
        let answers = self.session.run(&[count]).await?;
        Ok(answers.first().and_then(count_of) == Some(0))
    }

    fn begin(&mut self, go: &mut Vec<String>) {
        if !self.begun {
            self.begun = true;
            go.push("BEGIN".to_owned());
        }
    }

    /// Runs what is gathered, then the user's statements, each in a run of its own.
    async fn alone(&mut self, go: &mut Vec<String>, statements: &[String]) -> Result<(), EngineError> {
        if !go.is_empty() {
            self.session.run(go).await?;
            go.clear();
        }
        for statement in statements {
            self.session.run(std::slice::from_ref(statement)).await?;
        }
        Ok(())
    }

    async fn query_columns(&mut self) -> Result<Vec<ColumnDef>, EngineError> {
        match self.batch.write.described() {
            Some(query) => self.engine.query_columns(self.session, &self.batch.target, query).await,
            None => Ok(Vec::new()),
        }
    }

    async fn rollback(&mut self) {
        if std::mem::take(&mut self.begun) {
            // Where it fails, the warehouse has rolled back already or the connection is gone.
            let _ = self.session.run(&["ROLLBACK".to_owned()]).await;
        }
    }
}

fn count_of(answer: &Answer) -> Option<u64> {
    answer.cell()?.parse().ok()
}

fn refuse_bad_rows(work: Worked) -> Result<Worked, EngineError> {
    let Worked::Now(rows, audits) = work else { return Ok(work) };
    let failed: Vec<String> = audits
        .iter()
        .filter(|audit| audit.blocking && audit.bad_rows > 0)
        .map(|audit| format!("`{}` found {} bad rows", audit.name, audit.bad_rows))
        .collect();
    if failed.is_empty() {
        return Ok(Worked::Now(rows, audits));
    }
    let message = format!("audit failed: {}", failed.join(", "));
    Err(EngineError::new(Class::AuditFailed(audits), message)
        .hint("the table is as it was; correct the model, its sources, or the audit"))
}

#[async_trait]
impl Engine for TransactionalEngine {
    fn dialect(&self) -> Dialect {
        self.pool.profile().dialect
    }

    fn concurrency(&self) -> usize {
        self.pool.size()
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
        let mut tries = 0;
        loop {
            tries += 1;
            let mut session = self.pool.get().await?;
            let ledger = self.ledger(&mut *session, catalog).await?;
            match ledger.prune(&mut *session, self.pool.profile(), table, upto).await {
                Err(error) if tries < TRIES && worth_another_try(&error) => {
                    drop(session);
                    tokio::time::sleep(PAUSE * tries).await;
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    session.give_back();
                    return Ok(());
                }
            }
        }
    }

    async fn query(&self, sql: &str) -> Result<Rows, EngineError> {
        let mut session = self.pool.get().await?;
        let result = session.query(statements::clean(sql)).await;
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

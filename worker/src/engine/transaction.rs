//! The data transaction of a batch: all that it writes, its audits, and the commit under its fence.

use coord_common::project::model::ColumnDef;
use tokio_util::sync::CancellationToken;

use super::batch::{TransactionalEngine, done_before};
use super::error::{Class, EngineError};
use super::fence::{Ledger, raised};
use super::migrate;
use super::profile::Profile;
use super::remake::{Keepsakes, Taken};
use super::session::{Answer, Session};
use super::statements::{self, Known, Script};
use super::{
    AuditResult, BatchReport, BatchWrite, Beside, Migration, Outcome, Relation, RelationKind, Write,
};

impl BatchWrite {
    /// What the table stands beside, where it is a table that is made before anything is written.
    fn made_aside(&self) -> Option<&Beside> {
        self.aside.as_ref().filter(|_| !matches!(self.write, Write::View { .. } | Write::AuditOnly))
    }
}

/// What one try came to.
pub(super) enum Attempt {
    Report(BatchReport),
    /// The connection broke at the commit: whether it took place must be asked.
    CommitUnknown(EngineError),
}

/// What a try does before its data transaction, in the same round trip.
#[derive(Default)]
pub(super) enum Before {
    /// Nothing: the token was raised on this connection.
    #[default]
    Nothing,
    /// The session takes its attempt's name: the token was raised on another connection.
    Name(String),
    /// The token is raised.
    Raise(Vec<String>),
}

/// What the data transaction came to before its commit.
enum Worked {
    /// Rows written, and what the audits found.
    Now(u64, Vec<AuditResult>),
    /// The token, raised along with it, had completed the batch before: it is rolled back.
    Before(BatchReport),
}

/// What is to be given back to a view that is made again.
enum Again {
    Nothing,
    Kept(Keepsakes),
    Taken(Taken),
}

impl Again {
    async fn give_back(self, session: &mut dyn Session, profile: &Profile) -> Result<(), EngineError> {
        match self {
            Self::Nothing => Ok(()),
            Self::Kept(kept) => kept.give_back(session, profile).await,
            Self::Taken(taken) => taken.back(session, profile).await,
        }
    }
}

/// The data transaction of one try.
pub(super) struct Transaction<'a> {
    engine: &'a TransactionalEngine,
    session: &'a mut dyn Session,
    batch: &'a BatchWrite,
    /// What goes before the data in the same round trip.
    before: Before,
    begun: bool,
    /// Whether a view is dropped first, since its columns can't be changed in place.
    pub(super) replace_view: bool,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        engine: &'a TransactionalEngine,
        session: &'a mut dyn Session,
        batch: &'a BatchWrite,
        before: Before,
    ) -> Self {
        Self { engine, session, batch, before, begun: false, replace_view: false }
    }

    pub(super) async fn run(
        &mut self,
        ledger: &Ledger,
        cancel: &CancellationToken,
    ) -> Result<Attempt, EngineError> {
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
        let mut target = match batch.write {
            Write::AuditOnly => None,
            // A view whose tables lost columns can't even be described.
            Write::Migrate { migration: Migration::View { .. }, .. }
                if engine.pool.profile().dependents.is_none() =>
            {
                None
            }
            _ => engine.target_columns(self.session, &batch.target).await?,
        };
        let (mut go, raises) = match std::mem::take(&mut self.before) {
            Before::Nothing => (Vec::new(), false),
            Before::Name(statement) => (vec![statement], false),
            Before::Raise(statements) => (statements, true),
        };
        if target.is_none() && !go.is_empty() {
            // The table was known a moment ago and is gone: making it takes round trips of its own.
            let answers = self.session.run(&go).await?;
            go.clear();
            if raises && let Some(report) = done_before(batch, raised(&answers, &batch.fence)?) {
                return Ok(Worked::Before(report));
            }
        }
        let raises = raises && !go.is_empty();
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
        let again = self.take_view(&mut go).await?;
        if batch.first && matches!(batch.write, Write::Append { .. }) {
            // The table is emptied, and with it goes what other batches had added.
            go.push(ledger.forget_others(&batch.fence));
        }
        let data_at = go.len() + script.create.len();
        go.append(&mut script.create);
        go.append(&mut script.data);
        let answers = self.answers(go).await?;
        again.give_back(self.session, engine.pool.profile()).await?;
        if raises && let Some(report) = done_before(batch, raised(&answers, &batch.fence)?) {
            return Ok(Worked::Before(report));
        }
        if script.reshapes {
            engine.columns.forget(&batch.target);
        }
        self.rows_and_audits(&answers, data_at, &script)
    }

    /// Where the batch makes a view again, keeps what it had beside its query; and takes it away first
    /// where it can't be replaced.
    async fn take_view(&mut self, go: &mut Vec<String>) -> Result<Again, EngineError> {
        let (profile, target) = (self.engine.pool.profile(), &self.batch.target);
        let Write::View { materialized, .. } = self.batch.write else { return Ok(Again::Nothing) };
        if materialized && profile.materialized_views {
            let kept = Keepsakes::of(self.session, profile, &[target]).await?;
            // Its own comment tells what it was made of.
            return Ok(Again::Kept(kept.without_comment()));
        }
        if !self.replace_view {
            return Ok(Again::Nothing);
        }
        self.session.run(go).await?;
        go.clear();
        Taken::away(self.session, profile, target, RelationKind::View).await.map(Again::Taken)
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
        let mut steps = migrate::steps(profile, &batch.target, query, migration, &known)?;
        self.begin(&mut go);
        self.session.run(&go).await?;
        let dependents = match profile.dependents.filter(|_| !steps.is_empty()) {
            Some(question) => migrate::dependents(self.session, profile, question, &batch.target).await?,
            None => Vec::new(),
        };
        self.engine.columns.forget(&batch.target);
        if let Some(later) = steps.take_later().filter(|_| profile.savepoints) {
            // What will be in their way is told now, before anybody relies on the change.
            let trial = migrate::with_dependents(profile, &batch.target, later, &dependents)?;
            let mut go = vec!["SAVEPOINT later".to_owned()];
            go.extend(trial);
            go.push("ROLLBACK TO SAVEPOINT later".to_owned());
            self.session.run(&go).await.map_err(|error| migrate::explain(error, &batch.target))?;
        }
        let mut views: Vec<&Relation> = dependents.iter().map(|dependent| &dependent.view).collect();
        views.extend(matches!(migration, Migration::View { .. }).then_some(&batch.target));
        let kept = if steps.keeps_views() {
            Keepsakes::default()
        } else {
            Keepsakes::of(self.session, profile, &views).await?
        };
        let statements = migrate::with_dependents(profile, &batch.target, steps, &dependents)?;
        self.answers(statements).await.map_err(|error| migrate::explain(error, &batch.target))?;
        kept.give_back(self.session, profile).await?;
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

pub(super) fn count_of(answer: &Answer) -> Option<u64> {
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

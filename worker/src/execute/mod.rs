//! From a lease to the engine's verbs: fetch the snapshot, render it for the batch, name physical
//! tables, run.

mod bounds;
mod check;
mod fetch;
mod merge;
mod patience;
mod prepare;
mod publication;
mod reach;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coord_common::id::{ModelName, Token};
use coord_common::snapshot::Snapshot;
use coord_common::sql::Dialect;
use coord_common::task::{
    self, Check, Done, DropTable, Evaluate, Failure, FailureClass, Lease, Outcome, Promote, Publish,
    Statements, TableKind, Work,
};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};

use crate::agent::{Execute, SnapshotSource, Start};
use crate::engine::statements::count;
use crate::engine::{
    self, BatchReport, BatchWrite, Class, Discard, Engine, EngineError, RelationKind, Switched, ViewChange,
    ViewSwitch,
};
use check::Trouble;
use fetch::Snapshots;
use patience::within;
use reach::OutOfReach;

/// The audits of a model over a range that is complete: each one's name, and the query that counts its
/// bad rows. Audits that are skipped are left out.
///
/// # Errors
/// What can't be rendered.
pub fn audit_counts(
    work: &Evaluate,
    snapshot: &Snapshot,
    embedded: &BTreeMap<ModelName, Arc<Snapshot>>,
    dialect: Dialect,
) -> Result<Vec<(String, String)>, Failure> {
    let audits = prepare::audits(work, snapshot, embedded, dialect)?;
    Ok(audits.iter().map(|audit| (audit.name.clone(), count(audit))).collect())
}

/// Runs leases on a worker's engines.
pub struct Executor {
    engines: BTreeMap<String, Arc<dyn Engine>>,
    snapshots: Snapshots,
    batch_timeout: Option<Duration>,
    out_of_reach: Option<OutOfReach>,
}

/// How long looking ahead may take: a warehouse that answers no sooner is not helped by it.
const LOOK_AHEAD: Duration = Duration::from_secs(1);

/// A batch that is rendered, for its engine.
struct Prepared {
    engine: Arc<dyn Engine>,
    write: BatchWrite,
    limit: Option<Duration>,
}

impl Executor {
    /// An executor with the engines of each gateway, which fetches snapshots from `source`.
    pub fn new(engines: BTreeMap<String, Arc<dyn Engine>>, source: SnapshotSource) -> Self {
        Self { engines, snapshots: Snapshots::new(source), batch_timeout: None, out_of_reach: None }
    }

    /// The same, which stops batches, and statements around plans, that take longer; batches of
    /// models that say how long theirs may take, after that time.
    #[must_use]
    pub fn with_batch_timeout(self, limit: Option<Duration>) -> Self {
        Self { batch_timeout: limit, ..self }
    }

    /// The same, which begins with nothing while its warehouse can't be reached: it waits, and then
    /// hands the lease back. For workers among others: attempts are not spent, but nothing fails.
    #[must_use]
    pub fn waiting_for_warehouses(self) -> Self {
        Self { out_of_reach: Some(OutOfReach::default()), ..self }
    }

    /// What the engine must do for a batch, and how long it may take.
    async fn prepare(&self, lease: &Lease, work: &Evaluate) -> Result<Prepared, Failure> {
        let engine = self.engine(&work.task.gateway)?;
        let snapshot = self.snapshots.get(work.task.snapshot).await?;
        let embedded = self.snapshots.embedded(&work.task).await?;
        let write = prepare::batch(lease, work, &snapshot, &embedded, engine.dialect())?;
        Ok(Prepared { engine, write, limit: snapshot.model.storage.batch_timeout().or(self.batch_timeout) })
    }

    async fn evaluate(
        &self,
        lease: &Lease,
        work: &Evaluate,
        start: &Start<'_>,
        cancel: &CancellationToken,
    ) -> Outcome {
        // What waits behind another batch is prepared while that one runs.
        let mut prepared = self.prepare(lease, work).await;
        if let (Ok(prepared), true) = (&mut prepared, start.is_put_off()) {
            let looked = timeout(LOOK_AHEAD, prepared.engine.look_ahead(&mut prepared.write));
            let _ = cancel.run_until_cancelled(looked).await;
        }
        if !self.may_begin(&work.task.gateway, start, cancel).await {
            return Outcome::HandedBack;
        }
        let Prepared { engine, write, limit } = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => return Outcome::Failed(failure),
        };
        let started = Instant::now();
        match within(limit, cancel, async |cancel| engine.run_batch(&write, &cancel).await).await {
            Ok(report) => Outcome::Done(done(report, started)),
            Err(error) => outcome(error, cancel),
        }
    }

    /// Waits for a lease's turn, and for its warehouse where that is out of reach; false where another
    /// worker is to have it.
    async fn may_begin(&self, gateway: &str, start: &Start<'_>, cancel: &CancellationToken) -> bool {
        if !start.comes().await {
            return false;
        }
        match (self.engines.get(gateway), &self.out_of_reach) {
            (Some(engine), Some(out_of_reach)) => out_of_reach.may_begin(gateway, &**engine, cancel).await,
            _ => true,
        }
    }

    async fn promote(&self, work: &Promote, cancel: &CancellationToken) -> Outcome {
        let engine = match self.engine(&work.gateway) {
            Ok(engine) => engine,
            Err(failure) => return Outcome::Failed(failure),
        };
        let mut views = Vec::with_capacity(work.views.len());
        for view in &work.views {
            let statements = match self.virtual_update(work, view, engine.dialect()).await {
                Ok(statements) => statements,
                Err(failure) => return Outcome::Failed(failure),
            };
            views.push(ViewChange {
                view: view.view.clone(),
                target: view.target.clone(),
                on_virtual_update: statements,
            });
        }
        let switch = ViewSwitch {
            // Two gateways may be one warehouse, and each has views of its own.
            environment: format!("{}@{}", work.environment, work.gateway),
            seq: work.seq,
            views,
            drop: work.drop.clone(),
            drop_schemas: work.drop_schemas.clone(),
        };
        let started = Instant::now();
        match engine.switch_views(&switch, cancel).await {
            Ok(switched) => Outcome::Done(Done {
                millis: started.elapsed().as_millis() as u64,
                already: switched == Switched::Superseded,
                ..Done::default()
            }),
            Err(error) => outcome(error, cancel),
        }
    }

    async fn check(&self, work: &Check, cancel: &CancellationToken) -> Outcome {
        let engine = match self.engine(&work.task.gateway) {
            Ok(engine) => engine,
            Err(failure) => return Outcome::Failed(failure),
        };
        let started = Instant::now();
        let asked = async {
            let snapshot = self.snapshots.get(work.task.snapshot).await.map_err(Trouble::Failed)?;
            let embedded = self.snapshots.embedded(&work.task).await.map_err(Trouble::Failed)?;
            check::ready(work, &snapshot, &embedded, &*engine, cancel).await
        };
        match asked.await {
            Ok(ready) => {
                Outcome::Done(Done { ready, millis: started.elapsed().as_millis() as u64, ..Done::default() })
            }
            Err(Trouble::Failed(failure)) => Outcome::Failed(failure),
            Err(Trouble::Engine(error)) => outcome(error, cancel),
        }
    }

    async fn statements(&self, lease: &Lease, work: &Statements, cancel: &CancellationToken) -> Outcome {
        let engine = match self.engine(&work.gateway) {
            Ok(engine) => engine,
            Err(failure) => return Outcome::Failed(failure),
        };
        let started = Instant::now();
        let write = prepare::statements(lease, work);
        let run = async |cancel| engine.run_batch(&write, &cancel).await;
        match within(self.batch_timeout, cancel, run).await {
            Ok(report) => Outcome::Done(done(report, started)),
            Err(error) => {
                let message = format!("{}: {}", work.point.name(), error.message);
                outcome(EngineError { message, ..error }, cancel)
            }
        }
    }

    async fn publish(&self, lease: &Lease, work: &Publish, cancel: &CancellationToken) -> Outcome {
        let engine = match self.engine(&work.gateway) {
            Ok(engine) => engine,
            Err(failure) => return Outcome::Failed(failure),
        };
        let prepared = async {
            let mut snapshots = BTreeMap::new();
            for table in &work.tables {
                snapshots.insert(table.snapshot, self.snapshots.get(table.snapshot).await?);
            }
            publication::publication(lease, work, &snapshots)
        };
        let publication = match prepared.await {
            Ok(publication) => publication,
            Err(failure) => return Outcome::Failed(failure),
        };
        let started = Instant::now();
        match engine.publish(&publication, cancel).await {
            Ok(outcome) => Outcome::Done(Done {
                millis: started.elapsed().as_millis() as u64,
                already: outcome == engine::Outcome::AlreadyDone,
                ..Done::default()
            }),
            Err(error) => outcome(error, cancel),
        }
    }

    async fn drop_table(&self, lease: &Lease, work: &DropTable, cancel: &CancellationToken) -> Outcome {
        let engine = match self.engine(&work.gateway) {
            Ok(engine) => engine,
            Err(failure) => return Outcome::Failed(failure),
        };
        let kind = match work.kind {
            TableKind::Table => RelationKind::Table,
            TableKind::View => RelationKind::View,
            TableKind::MaterializedView => RelationKind::MaterializedView,
        };
        let discard = Discard {
            table: work.table.to_string(),
            token: lease.token,
            relation: work.relation.clone(),
            kind,
        };
        match engine.discard(&discard, cancel).await {
            Ok(()) => Outcome::Done(Done::default()),
            Err(error) => outcome(error, cancel),
        }
    }

    async fn virtual_update(
        &self,
        work: &Promote,
        view: &task::View,
        dialect: coord_common::sql::Dialect,
    ) -> Result<Vec<String>, Failure> {
        if !view.on_virtual_update {
            return Ok(Vec::new());
        }
        let snapshot = self.snapshots.get(view.snapshot).await?;
        prepare::virtual_update(work, view, &snapshot, dialect)
    }

    fn engine(&self, gateway: &str) -> Result<Arc<dyn Engine>, Failure> {
        self.engines.get(gateway).cloned().ok_or_else(|| Failure {
            class: FailureClass::Permanent,
            code: None,
            message: format!("this worker has no gateway `{gateway}`"),
            hint: Some("start workers with the project's gateways".to_owned()),
        })
    }
}

#[async_trait::async_trait]
impl Execute for Executor {
    fn shut_out(&self, upto: Token) {
        for engine in self.engines.values() {
            engine.shut_out(upto);
        }
    }

    async fn execute(&self, lease: Lease, start: &Start<'_>, cancel: CancellationToken) -> Outcome {
        let span = match &lease.work {
            Work::Evaluate(work) => info_span!("batch", batch = %work.batch, token = lease.token.0),
            Work::Publish(work) => {
                info_span!("publish", plan = %lease.plan, tables = work.tables.len(), discard = work.discard)
            }
            Work::Promote(work) => info_span!("promote", environment = %work.environment, seq = work.seq),
            Work::Check(work) => info_span!("check", table = %work.task.table),
            Work::Statements(work) => {
                info_span!("statements", environment = %work.environment, point = work.point.name())
            }
            Work::Drop(work) => info_span!("drop", table = %work.table, token = lease.token.0),
        };
        let gateway = lease.work.gateway();
        let run = async {
            match &lease.work {
                Work::Evaluate(work) => self.evaluate(&lease, work, start, &cancel).await,
                _ if !self.may_begin(gateway, start, &cancel).await => Outcome::HandedBack,
                Work::Promote(work) => self.promote(work, &cancel).await,
                Work::Check(work) => self.check(work, &cancel).await,
                Work::Statements(work) => self.statements(&lease, work, &cancel).await,
                Work::Publish(work) => self.publish(&lease, work, &cancel).await,
                Work::Drop(work) => self.drop_table(&lease, work, &cancel).await,
            }
        };
        let outcome = run.instrument(span.clone()).await;
        if let Outcome::Failed(failure) = &outcome {
            if let Some(out_of_reach) = &self.out_of_reach {
                out_of_reach.note(gateway, failure.code.as_deref());
            }
            span.in_scope(|| warn!(%failure, attempt = lease.attempt, "failed"));
        }
        outcome
    }
}

fn done(report: BatchReport, started: Instant) -> Done {
    let audit = |found: engine::AuditResult| task::AuditResult {
        name: found.name,
        blocking: found.blocking,
        bad_rows: found.bad_rows,
    };
    Done {
        rows: report.rows,
        millis: started.elapsed().as_millis() as u64,
        already: report.outcome == engine::Outcome::AlreadyDone,
        audits: report.audits.into_iter().map(audit).collect(),
        ready: coord_common::interval::IntervalSet::new(),
    }
}

/// What an engine's error means for the lease.
fn outcome(error: EngineError, cancel: &CancellationToken) -> Outcome {
    let class = match &error.class {
        Class::Stale => return Outcome::Fenced,
        _ if cancel.is_cancelled() => return Outcome::HandedBack,
        // Somebody else stopped the statement, in the warehouse: handing it back would begin anew for ever.
        Class::Cancelled | Class::Transient | Class::Resource => FailureClass::Transient,
        Class::Permanent => FailureClass::Permanent,
        Class::AuditFailed { .. } => FailureClass::Audit,
    };
    Outcome::Failed(Failure { class, code: error.code, message: error.message, hint: error.hint })
}

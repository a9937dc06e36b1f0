//! A worker's way to the warehouse: the flow of an attempt, step by step, with what goes wrong
//! between them.

use std::sync::Arc;

use async_trait::async_trait;
use coord_common::id::Token;
use coord_common::project::model::ColumnDef;
use coord_common::sql::Dialect;
use coord_common::task::Relation;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use worker::engine::{
    AuditResult, BatchReport, BatchWrite, Class, Discard, Engine, EngineError, Outcome, Publication,
    RelationKind, Rows, Switched, ViewSwitch, Write,
};

use crate::warehouse::{Draft, Stale, name};
use crate::world::{Host, World, lock};

/// How often an attempt is made anew whose connection broke.
const TRIES: u32 = 4;

/// The engine of one worker.
pub(crate) struct SimEngine {
    pub(crate) world: Arc<World>,
    pub(crate) host: Arc<Host>,
}

fn error(class: Class, code: &str, message: &str) -> EngineError {
    EngineError { class, code: Some(code.to_owned()), message: message.to_owned(), hint: None }
}

fn stale(stale: Stale) -> EngineError {
    error(Class::Stale, "stale", &format!("a newer attempt holds {}", stale.0))
}

fn cancelled() -> EngineError {
    error(Class::Cancelled, "57014", "cancelled")
}

/// Why an attempt ended.
enum Ended {
    Failed(EngineError),
    /// The connection broke at COMMIT.
    Unknown,
}

impl From<EngineError> for Ended {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

impl SimEngine {
    /// One round trip. While it is frozen a node learns of nothing, so what was cancelled meanwhile
    /// goes on until it looks.
    async fn round(&self, cancel: &CancellationToken) -> Result<(), EngineError> {
        self.host.pass().await;
        if cancel.is_cancelled() {
            return Err(cancelled());
        }
        self.world.pause(1, 6).await;
        self.host.pass().await;
        Ok(())
    }

    /// The time that a query takes; whether it then fails.
    async fn query_runs(&self, cancel: &CancellationToken) -> Result<(), EngineError> {
        let world = &self.world;
        let slow = if world.strikes(world.knobs.query_slow) { 12_000 } else { 0 };
        let work = world.pause(10, 300 + slow);
        let was_cancelled = tokio::select! {
            biased;
            () = work => false,
            () = cancel.cancelled() => true,
        };
        // Who was frozen in the meantime didn't hear of the cancel, and goes on when it thaws.
        let deaf = self.host.is_frozen();
        self.host.pass().await;
        if was_cancelled && !deaf {
            return Err(cancelled());
        }
        if world.strikes(world.knobs.query_fails) {
            world.fault(&format!("warehouse: a query of {} fails", self.host.name));
            return Err(error(Class::Transient, "53300", "too many connections"));
        }
        Ok(())
    }

    /// Sends the last round trip off: the warehouse acts on it even if the sender is gone.
    async fn finish<T: Send + 'static>(
        &self,
        act: impl FnOnce(&World) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, Ended> {
        self.host.pass().await;
        let world = &self.world;
        let lost = world.strikes(world.knobs.answer_lost);
        let arrives = !lost || world.chance(600);
        if lost {
            world.fault(&format!("warehouse: {} loses a connection at COMMIT", self.host.name));
        }
        let (answer, answered) = oneshot::channel();
        if arrives {
            let world = world.clone();
            tokio::spawn(async move {
                let late = if lost { 2000 } else { 0 };
                world.pause(1, 6 + late).await;
                let _ = answer.send(act(&world));
            });
        }
        if lost {
            world.pause(10, 1000).await;
            self.host.pass().await;
            return Err(Ended::Unknown);
        }
        let done = answered.await;
        self.world.pause(1, 4).await;
        self.host.pass().await;
        done.unwrap_or_else(|_| Err(cancelled())).map_err(Ended::Failed)
    }

    async fn attempt(&self, batch: &BatchWrite, cancel: &CancellationToken) -> Result<BatchReport, Ended> {
        self.round(cancel).await?;
        let once = matches!(batch.write, Write::Append { .. }) && !batch.first;
        let raised = lock(&self.world.warehouse).raise(&batch.fence, once).map_err(stale)?;
        self.world.note(&format!(
            "warehouse: {} raises {} {}",
            self.host.name, batch.fence.token, batch.fence.slot
        ));
        if raised.partly {
            return Err(error(Class::Permanent, "partly-done", "a part of it was added before").into());
        }
        let counts = batch.replayed_is_done || once;
        if raised.done == batch.fence.token.0 || (raised.done != 0 && counts) {
            return Ok(BatchReport { outcome: Outcome::AlreadyDone, rows: raised.rows, audits: Vec::new() });
        }
        self.round(cancel).await?;
        let draft = self.draft(batch)?;
        self.query_runs(cancel).await?;
        self.may_be_bad(batch)?;
        let rows = draft.rows;
        let (write, from) = (batch.clone(), self.host.name.clone());
        self.finish(move |world| {
            let mut warehouse = lock(&world.warehouse);
            let committed = warehouse.commit(&write.fence, draft, world.mutant);
            let what = if committed.is_ok() { "commits" } else { "is fenced off:" };
            world.note(&format!("warehouse: {from} {what} {} {}", write.fence.token, write.fence.slot));
            if committed.is_ok() {
                lock(&world.checks).written(world, &warehouse, &write);
            }
            committed.map_err(stale)
        })
        .await?;
        Ok(BatchReport { outcome: Outcome::Written, rows, audits: Vec::new() })
    }

    /// Fails an attempt as a mistake in its query would, or bad rows.
    fn may_be_bad(&self, batch: &BatchWrite) -> Result<(), EngineError> {
        let world = &self.world;
        if world.strikes(world.knobs.query_breaks) {
            world.fault(&format!("warehouse: {} divides by zero", batch.fence.slot));
            return Err(error(Class::Permanent, "22012", "division by zero"));
        }
        let blocking = batch.audits.iter().find(|audit| audit.blocking);
        match blocking.filter(|_| world.strikes(world.knobs.audit_fails)) {
            None => Ok(()),
            Some(audit) => {
                world.fault(&format!("warehouse: {} has bad rows", batch.fence.slot));
                let found = AuditResult { name: audit.name.clone(), blocking: true, bad_rows: 1 };
                Err(error(Class::AuditFailed(vec![found]), "audit", "bad rows"))
            }
        }
    }

    fn draft(&self, batch: &BatchWrite) -> Result<Draft, EngineError> {
        let draft = lock(&self.world.warehouse).draft(batch);
        draft.map_err(|missing| {
            // Only a worker that has been overtaken may find its inputs gone.
            let holder = lock(&self.world.warehouse).holder(&batch.fence.slot);
            if holder == batch.fence.token.0 {
                self.world.violate(&format!("{} reads what isn't there: {missing}", batch.fence.slot));
            }
            error(Class::Permanent, "42P01", &missing)
        })
    }
}

#[async_trait]
impl Engine for SimEngine {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn concurrency(&self) -> usize {
        4
    }

    async fn run_batch(
        &self,
        write: &BatchWrite,
        cancel: &CancellationToken,
    ) -> Result<BatchReport, EngineError> {
        let mut unknown = false;
        for _ in 0..TRIES {
            match self.attempt(write, cancel).await {
                Ok(mut report) => {
                    if unknown {
                        report.outcome = Outcome::Written;
                    }
                    return Ok(report);
                }
                Err(Ended::Unknown) => unknown = true,
                Err(Ended::Failed(error)) => return Err(error),
            }
        }
        Err(error(Class::Transient, "08006", "the connection broke at COMMIT"))
    }

    async fn switch_views(
        &self,
        switch: &ViewSwitch,
        cancel: &CancellationToken,
    ) -> Result<Switched, EngineError> {
        for _ in 0..TRIES {
            self.round(cancel).await?;
            self.query_runs(cancel).await?;
            let (wanted, from) = (switch.clone(), self.host.name.clone());
            let switched = self.finish(move |world| {
                let mut warehouse = lock(&world.warehouse);
                let before = warehouse.shown(&wanted.environment);
                let ours = warehouse.switch(&wanted);
                lock(&world.checks).switched(world, &warehouse, &wanted, before);
                world.note(&format!(
                    "warehouse: {from} switches {} to {}: {ours}",
                    wanted.environment, wanted.seq
                ));
                Ok(if ours { Switched::Done } else { Switched::Superseded })
            });
            match switched.await {
                Ok(switched) => return Ok(switched),
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::Unknown) => {}
            }
        }
        Err(error(Class::Transient, "08006", "the connection broke at COMMIT"))
    }

    async fn publish(
        &self,
        publication: &Publication,
        cancel: &CancellationToken,
    ) -> Result<Outcome, EngineError> {
        for _ in 0..TRIES {
            self.round(cancel).await?;
            if lock(&self.world.warehouse).raise_publication(publication).map_err(stale)? {
                return Ok(Outcome::AlreadyDone);
            }
            self.query_runs(cancel).await?;
            let (wanted, from) = (publication.clone(), self.host.name.clone());
            let published = self.finish(move |world| {
                let mut warehouse = lock(&world.warehouse);
                let published = warehouse.publish(&wanted, world.mutant);
                world.note(&format!("warehouse: {from} publishes {}: {}", wanted.slot, published.is_ok()));
                lock(&world.checks).published(world, &warehouse, &wanted);
                published.map_err(stale)
            });
            match published.await {
                Ok(()) => return Ok(Outcome::Written),
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::Unknown) => {}
            }
        }
        Err(error(Class::Transient, "08006", "the connection broke at COMMIT"))
    }

    async fn drop_relations(&self, _: &[(Relation, RelationKind)]) -> Vec<(Relation, EngineError)> {
        Vec::new()
    }

    async fn discard(&self, discard: &Discard, cancel: &CancellationToken) -> Result<(), EngineError> {
        self.round(cancel).await?;
        // It waits for those who read.
        self.query_runs(cancel).await?;
        let (wanted, from) = (discard.clone(), self.host.name.clone());
        let dropped = self.finish(move |world| {
            let relation = name(&wanted.relation);
            let mut warehouse = lock(&world.warehouse);
            let dropped = warehouse.discard(&wanted.table, &relation, wanted.token);
            world.note(&format!("warehouse: {from} drops {relation}: {}", dropped.is_ok()));
            if dropped.is_ok() {
                lock(&world.checks).dropped(world, &warehouse, &relation);
            }
            dropped.map_err(stale)
        });
        match dropped.await {
            Ok(()) => Ok(()),
            Err(Ended::Failed(error)) => Err(error),
            Err(Ended::Unknown) => Err(error(Class::Transient, "08006", "the connection broke at COMMIT")),
        }
    }

    async fn prune(&self, _: Option<&str>, _: &str, _: Token) -> Result<(), EngineError> {
        Ok(())
    }

    // No state is imported there.
    fn shut_out(&self, _: Token) {}

    async fn query(&self, _: &str) -> Result<Rows, EngineError> {
        Ok(Rows::default())
    }

    async fn describe(&self, _: &str) -> Result<Vec<ColumnDef>, EngineError> {
        Ok(Vec::new())
    }

    async fn columns(&self, _: &Relation) -> Result<Option<Vec<ColumnDef>>, EngineError> {
        Ok(None)
    }

    async fn ping(&self) -> Result<String, EngineError> {
        Ok("simulated".to_owned())
    }
}

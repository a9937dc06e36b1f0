//! A warehouse that isn't there, to measure everything around warehouses.

use async_trait::async_trait;
use coord_common::id::Token;
use coord_common::project::model::ColumnDef;
use coord_common::sql::Dialect;
use tokio_util::sync::CancellationToken;

use super::{
    BatchReport, BatchWrite, Discard, Engine, EngineError, Outcome, Publication, Relation, RelationKind,
    Rows, Switched, ViewSwitch,
};

/// An engine that does nothing and says that it did: no row is written, no audit runs, no fence
/// is checked. For benchmarks of the orchestration only.
#[derive(Debug, Clone, Copy)]
pub struct NoopEngine {
    /// How many verbs are said to run at once.
    pub concurrency: usize,
}

#[async_trait]
impl Engine for NoopEngine {
    fn dialect(&self) -> Dialect {
        Dialect::Generic
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    async fn run_batch(&self, _: &BatchWrite, _: &CancellationToken) -> Result<BatchReport, EngineError> {
        Ok(BatchReport { outcome: Outcome::Written, rows: 0, audits: Vec::new() })
    }

    async fn switch_views(&self, _: &ViewSwitch, _: &CancellationToken) -> Result<Switched, EngineError> {
        Ok(Switched::Done)
    }

    async fn publish(&self, _: &Publication, _: &CancellationToken) -> Result<Outcome, EngineError> {
        Ok(Outcome::Written)
    }

    async fn drop_relations(&self, _: &[(Relation, RelationKind)]) -> Vec<(Relation, EngineError)> {
        Vec::new()
    }

    async fn discard(&self, _: &Discard, _: &CancellationToken) -> Result<(), EngineError> {
        Ok(())
    }

    async fn prune(&self, _: Option<&str>, _: &str, _: Token) -> Result<(), EngineError> {
        Ok(())
    }

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
        Ok("none (no warehouse: nothing is written)".to_owned())
    }
}

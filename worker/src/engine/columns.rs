//! Columns of targets and queries, described once and remembered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use coord_common::project::model::ColumnDef;

use super::batch::TransactionalEngine;
use super::error::EngineError;
use super::session::Session;
use super::{BatchWrite, Relation, statements};

/// Columns of targets, and of queries by target and shape: a model's batches differ in dates only.
#[derive(Default)]
pub(crate) struct ColumnCache {
    targets: Mutex<HashMap<Relation, Vec<ColumnDef>>>,
    queries: Mutex<HashMap<(Relation, String), Vec<ColumnDef>>>,
}

impl ColumnCache {
    /// More entries than this, and the cache of queries starts anew.
    const LIMIT: usize = 20_000;

    pub(super) fn knows(&self, target: &Relation) -> bool {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).contains_key(target)
    }

    /// Whether nothing of a batch must be described before it is written.
    pub(super) fn knows_all_of(&self, batch: &BatchWrite) -> bool {
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

impl TransactionalEngine {
    /// The target's columns, or nothing where it doesn't exist.
    pub(super) async fn target_columns(
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

    pub(super) async fn query_columns(
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

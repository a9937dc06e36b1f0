//! What may be removed: a function over records. Whatever is needed stays; all the rest may go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{EnvironmentModel, Plan};
use crate::id::{ModelName, SnapshotId};
use crate::interval::Timestamp;
use crate::project::model::ModelKind;
use crate::snapshot::SnapshotRecord;
use crate::task::{TableId, TableKind};

/// For how long what was is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How many former promotions of an environment can be gone back to, at most.
    pub promotions: usize,
    /// For how long after they were replaced, in milliseconds.
    pub promotion_age: i64,
    /// For how long plans are kept that nothing needs, in milliseconds.
    pub plan_age: i64,
}

impl Default for Retention {
    /// The last 10 promotions of 7 days; plans of 14 days.
    fn default() -> Self {
        const DAY: i64 = 86_400_000;
        Self { promotions: 10, promotion_age: 7 * DAY, plan_age: 14 * DAY }
    }
}

impl Retention {
    /// The promotions of one environment that it can go back to, and the one that it shows. They
    /// are given by number, with when each was replaced; the one that is shown never was.
    pub fn window(&self, replaced: &BTreeMap<u64, Option<Timestamp>>, now: Timestamp) -> BTreeSet<u64> {
        let young = |at: &Timestamp| at.0.saturating_add(self.promotion_age) > now.0;
        let former = replaced.iter().rev().filter(|(_, at)| at.is_some()).take(self.promotions);
        let former = former.filter(|(_, at)| at.as_ref().is_some_and(young)).map(|(seq, _)| *seq);
        replaced.iter().filter(|(_, at)| at.is_none()).map(|(seq, _)| *seq).chain(former).collect()
    }
}

/// What must stay, whatever its age.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needed {
    /// Snapshots.
    pub snapshots: BTreeSet<SnapshotId>,
    /// Physical tables.
    pub tables: BTreeSet<TableId>,
}

impl Needed {
    /// What an environment shows, or showed and can go back to.
    pub fn add_environment(&mut self, models: &BTreeMap<ModelName, EnvironmentModel>) {
        self.snapshots.extend(models.values().map(|model| model.snapshot));
        self.tables.extend(models.values().filter_map(|model| model.table.clone()));
    }

    /// What a plan that isn't finished fills, reads and will show.
    pub fn add_plan(&mut self, plan: &Plan) {
        self.snapshots.extend(plan.models.iter().flat_map(|model| [model.snapshot, model.before]).flatten());
        self.tables.extend(plan.models.iter().filter_map(|model| model.table.clone()));
        self.add_environment(&plan.target);
    }
}

/// What may go.
#[derive(Debug, Clone, Default)]
pub struct Garbage {
    /// Snapshots.
    pub snapshots: BTreeSet<SnapshotId>,
    /// Physical tables, each with a record that knows its place.
    pub tables: BTreeMap<TableId, Arc<SnapshotRecord>>,
}

/// What may go of `records`: snapshots that aren't needed and whose time is over, and tables that
/// no snapshot that stays shares with them.
pub fn garbage(
    records: &BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
    needed: &Needed,
    is_over: impl Fn(&SnapshotRecord) -> bool,
) -> Garbage {
    let goes = |record: &SnapshotRecord| !needed.snapshots.contains(&record.id()) && is_over(record);
    let (gone, stay): (Vec<_>, Vec<_>) = records.values().partition(|record| goes(record));
    let kept: BTreeSet<TableId> = stay.into_iter().flat_map(|record| tables_of(record)).collect();
    let mut garbage = Garbage::default();
    for record in gone {
        garbage.snapshots.insert(record.id());
        for table in tables_of(record) {
            if !kept.contains(&table) && !needed.tables.contains(&table) {
                garbage.tables.insert(table, record.clone());
            }
        }
    }
    garbage
}

/// The physical tables that a snapshot can have; none for kinds without one of ours.
pub fn tables_of(record: &SnapshotRecord) -> Vec<TableId> {
    if record.snapshot.model.kind.is_symbolic() {
        return Vec::new();
    }
    vec![record.table(false), record.table(true)]
}

/// What a snapshot's tables are in the warehouse.
pub fn table_kind(record: &SnapshotRecord) -> TableKind {
    match record.snapshot.model.kind {
        ModelKind::View { materialized: false } => TableKind::View,
        ModelKind::View { materialized: true } => TableKind::MaterializedView,
        _ => TableKind::Table,
    }
}

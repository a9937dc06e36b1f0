//! What is computed aside, and how it is put in place.

use std::collections::BTreeMap;
use std::sync::Arc;

use coord_common::id::SnapshotId;
use coord_common::project::model::ModelKind;
use coord_common::snapshot::Snapshot;
use coord_common::task::{Aside, Failure, Keeps, Lease, Publish, PublishTable};

use super::bounds::bounds;
use crate::engine::{Beside, Kept, Publication, Published, RelationKind};

/// The table that a batch's own stands beside.
pub(super) fn beside(aside: &Aside, snapshot: &Snapshot) -> Result<Beside, Failure> {
    let kept = match (&aside.keeps, &snapshot.model.kind) {
        (Keeps::Outside { ranges, merged }, ModelKind::IncrementalByTimeRange(kind)) => Kept::Outside {
            column: kind.time_column.clone(),
            ranges: ranges
                .ranges()
                .iter()
                .map(|range| bounds(kind, *range))
                .collect::<Result<_, Failure>>()?,
            merged: merged.clone(),
        },
        (Keeps::Nothing, _) => Kept::Nothing,
        (Keeps::Copy | Keeps::Outside { .. }, _) => Kept::Copy,
    };
    Ok(Beside { published: aside.published.clone(), kept })
}

/// What the engine must do to put what was computed aside in place, or to drop it.
pub(super) fn publication(
    lease: &Lease,
    work: &Publish,
    snapshots: &BTreeMap<SnapshotId, Arc<Snapshot>>,
) -> Result<Publication, Failure> {
    let table = |table: &PublishTable| {
        let snapshot = &snapshots[&table.snapshot];
        let lost = work.supersedes.iter().filter(|batch| batch.table == table.table);
        Ok(Published {
            table: table.table.to_string(),
            aside: table.table.beside(lease.plan).to_string(),
            relation: table.relation.clone(),
            beside: beside(&table.aside, snapshot)?,
            kind: match snapshot.model.kind {
                ModelKind::View { materialized: true } => RelationKind::MaterializedView,
                ModelKind::View { materialized: false } => RelationKind::View,
                _ => RelationKind::Table,
            },
            supersedes: lost.map(ToString::to_string).collect(),
        })
    };
    Ok(Publication {
        // Two gateways may be one warehouse.
        slot: format!("publish:{}:{}@{}", lease.plan, work.round, work.gateway),
        token: lease.token,
        plan: lease.plan.to_string(),
        tables: work.tables.iter().map(table).collect::<Result<_, Failure>>()?,
        discard: work.discard,
    })
}

//! Restating aside: rows are computed in tables that nobody sees, and put in place all at once.

use serde::{Deserialize, Serialize};

use super::{Batch, Relation, TableId};
use crate::id::SnapshotId;
use crate::interval::IntervalSet;

/// The table beside which another one is computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// The table that readers see meanwhile; the one aside gets its columns.
    pub published: Relation,
    /// Which of its rows stay.
    pub keeps: Keeps,
}

/// Which rows of a table stay when what was computed aside is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeps {
    /// None: the table aside is the whole of it.
    Nothing,
    /// Those that no batch replaces: the table aside starts as a copy.
    Copy,
    /// Those whose time is outside of all restated ranges; the table aside holds those inside.
    Outside {
        /// The restated ranges.
        ranges: IntervalSet,
        /// A view of both together: what batches of the plan read.
        merged: Relation,
    },
}

/// Put what a plan computed aside in place, in one transaction per gateway (and catalog, where
/// transactions don't span catalogs); the tables aside go with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The gateway whose workers can run it.
    pub gateway: String,
    /// The tables, parents first.
    pub tables: Vec<PublishTable>,
    /// Whether to drop what was computed instead: the plan was given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discard: bool,
    /// How often the plan was carried out before.
    #[serde(default)]
    pub round: u32,
    /// Lost batches of the published tables, whose fences must be raised.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supersedes: Vec<Batch>,
}

/// One table to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishTable {
    /// The table that readers see.
    pub table: TableId,
    /// The snapshot whose model made the rows.
    pub snapshot: SnapshotId,
    /// What was computed aside.
    pub relation: Relation,
    /// What it stands beside.
    pub aside: Aside,
    /// The ranges that were computed.
    pub ranges: IntervalSet,
}

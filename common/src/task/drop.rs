//! Removing a physical table that nothing needs any more.

use serde::{Deserialize, Serialize};

use super::{Relation, TableId};

/// Drop a table, and shut out every older token that could still write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropTable {
    /// The table: what its fence rows belong to.
    pub table: TableId,
    /// Its place in the warehouse.
    pub relation: Relation,
    /// What it is there.
    pub kind: TableKind,
    /// The gateway whose workers can do it.
    pub gateway: String,
}

/// What a physical table is in the warehouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// A table.
    Table,
    /// A view.
    View,
    /// A view that the warehouse keeps as a table, where it can.
    MaterializedView,
}

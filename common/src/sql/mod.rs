//! Understanding SQL: parsing, references, columns, lineage, canonical form, rewriting, and the
//! range of an upstream that a query reads.

mod canonical;
mod compare;
mod dialect;
mod from_first;
mod lineage;
mod opaque;
mod parse;
mod parts;
mod plain;
mod read;
mod references;
mod resolve;
mod simplify;

pub use compare::{QueryChange, compare, compare_known};
pub use dialect::Dialect;
pub use lineage::{ColumnLineage, Lineage, OutputColumn, Schemas};
pub use parse::{Query, SqlError, Statement, parse_statement};
pub use parts::{CommonTable, freeze_time};
pub use read::{Anchor, Bound, Grain, Point, ReadRange, Step, TimeKind, UpstreamTime, Window, read_ranges};
pub use references::{Part, TableRef};

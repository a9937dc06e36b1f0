//! Understanding SQL: parsing, references, columns, lineage, canonical form, rewriting, and the
//! range of an upstream that a query reads.

mod canonical;
mod dialect;
mod parse;
mod references;

pub use dialect::Dialect;
pub use parse::{Query, SqlError, Statement, parse_statement};
pub use references::{Part, TableRef};

//! Understanding SQL: parsing, references, columns, lineage, canonical form, rewriting, and the
//! range of an upstream that a query reads.

mod dialect;

pub use dialect::Dialect;

//! Unit tests of models: given rows of what a query reads, the rows that it must return.
//!
//! Tests are YAML files under `tests/`, in SQLMesh's format. This module reads them, says which
//! statements to run, and judges the answers; it runs nothing. The given rows become common table
//! expressions before the query, so nothing is created anywhere.

mod compare;
mod fixture;
mod prepare;
mod read;
mod report;
mod select;
mod times;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use compare::{Mismatch, Table};
pub use prepare::{Bench, Check, Unready, reading};
pub use read::{files_named, is_test_file, load};
pub use report::{Outcome, Report, Verdict};
pub use select::{Selection, UnknownTest};

use crate::diagnostic::Location;
use crate::id::ModelName;
use crate::project::model::ColumnDef;

/// One test, as its file states it.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitTest {
    /// Its name, unique in its file.
    pub name: String,
    /// Where it begins.
    pub at: Location,
    /// The model that it tests.
    pub model: ModelName,
    /// What it is about, in its author's words.
    pub description: Option<String>,
    /// The gateway whose test connection runs it; absent: the chosen one.
    pub gateway: Option<String>,
    /// What the model's relations hold; empty where the test gives nothing.
    pub(crate) inputs: BTreeMap<ModelName, Fixture>,
    /// What must come out, of common table expressions first.
    pub(crate) expectations: Vec<Expectation>,
    /// Variables by name as written, with time's among them.
    pub(crate) vars: Vec<(String, Datum)>,
}

impl UnitTest {
    /// The file and the name: what patterns are matched with.
    pub fn full_name(&self) -> String {
        format!("{}::{}", self.at.path, self.name)
    }
}

/// What a relation holds in a test.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fixture {
    pub(crate) at: Location,
    pub(crate) source: Source,
    /// Types that the test gives, by normalised column, in the order of the file.
    pub(crate) columns: Vec<ColumnDef>,
}

/// Rows: as they are, or a query for them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    Rows(Vec<Row>),
    Query(String),
}

/// One row.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Row {
    /// Its line in the file.
    pub(crate) line: u32,
    /// Values by normalised column, in the order of the file.
    pub(crate) cells: Vec<(String, Datum)>,
}

impl Row {
    pub(crate) fn get(&self, column: &str) -> Option<&Datum> {
        self.cells.iter().find(|(name, _)| name == column).map(|(_, value)| value)
    }
}

/// What must come out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expectation {
    pub(crate) at: Location,
    pub(crate) of: Part,
    pub(crate) source: Source,
    /// Whether columns that no row names don't matter.
    pub(crate) partial: bool,
}

/// What of a model is looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Its query.
    Query,
    /// A common table expression of its query, by normalised name.
    Cte(String),
}

/// A value as YAML writes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Datum {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    /// A date or a time that stands without quotes.
    Time(String),
    List(Vec<Datum>),
    Map(Vec<(String, Datum)>),
}

/// What a statement answered, as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The columns with the warehouse's names of their types.
    pub columns: Vec<ColumnDef>,
    /// The values; absent: NULL.
    pub rows: Vec<Vec<Option<String>>>,
}

//! A model as its file states it: everything that the MODEL block and the statements say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Location;
use crate::id::ModelName;
use crate::interval::IntervalUnit;
use crate::sql::Dialect;

/// A model: a named query with a kind, a cron and properties.
///
/// Serialised inside snapshots: fields at their default are left out, so records stay small.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The normalised name.
    pub name: ModelName,
    /// How the table is kept.
    pub kind: ModelKind,
    /// The dialect in which the model is written.
    pub dialect: Dialect,
    /// When the model ticks: five-field cron or `@daily` and the like, as written.
    pub cron: String,
    /// The IANA zone in which the cron ticks; UTC where absent. Intervals stay UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron_tz: Option<String>,
    /// The granularity of intervals, where the file overrides what the cron implies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_unit: Option<IntervalUnit>,
    /// First point of time that the model covers, as written (absolute or relative).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Last point, as written; a date is inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Whether a piece of an interval may be computed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_partials: bool,
    /// What describes the model to people and never changes data.
    #[serde(default, skip_serializing_if = "is_default")]
    pub about: About,
    /// Forces a new version when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<String>,
    /// Explicit columns and types, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<ColumnDef>>,
    /// Audits that run after each batch, in order: project defaults first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audits: Vec<Call>,
    /// Signals that gate intervals.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<Call>,
    /// Dependencies stated beyond those of the query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<ModelName>,
    /// How the table is stored.
    #[serde(default, skip_serializing_if = "is_default")]
    pub storage: Storage,
    /// The gateway that runs the model, where it isn't the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Whether analysis may rewrite the query, where the project says; ours never does, but it is part
    /// of identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimize_query: Option<bool>,
    /// Properties that are kept and hashed but not acted on, by name, as written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, String>,
    /// Values of the blueprint that made this model, by lower-case name, as SQL text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub blueprint: BTreeMap<String, String>,
    /// Statements before the query, project defaults first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pre_statements: Vec<Code>,
    /// What makes the rows.
    pub source: ModelSource,
    /// Statements after the query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post_statements: Vec<Code>,
    /// Statements that run after the environment's view was (re)created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_virtual_update: Vec<Code>,
    /// Whether a semicolon ends the last statement of the file: to SQLMesh that is part of what it says.
    #[serde(default, skip_serializing_if = "is_default")]
    pub closed: bool,
    /// Audits that the model's own file or the project defines and this model uses, by lower-case
    /// name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub audit_definitions: BTreeMap<String, Audit>,
    /// Signals that the project defines and this model uses, by lower-case name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signal_definitions: BTreeMap<String, Signal>,
    /// Where the model's file starts.
    pub location: Location,
}

/// What describes a model to people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Who answers for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Free labels, for selectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Keys that identify a row, as written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grains: Vec<String>,
    /// Keys of other models that rows refer to, as written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// What each column means, by column.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub column_descriptions: BTreeMap<String, String>,
}

/// How a table is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// Expressions by which the table is partitioned, as written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitioned_by: Vec<String>,
    /// Expressions by which the table is clustered, as written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clustered_by: Vec<String>,
    /// A table format such as `iceberg`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_format: Option<String>,
    /// A file format such as `parquet`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_format: Option<String>,
    /// Properties of physical tables, values as SQL text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub physical_properties: BTreeMap<String, String>,
    /// Properties of views, values as SQL text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub virtual_properties: BTreeMap<String, String>,
    /// Properties of the session that computes, values as SQL text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub session_properties: BTreeMap<String, String>,
}

/// A column that the file declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnDef {
    /// The column's normalised name.
    pub name: String,
    /// Its type as written, in the model's dialect.
    pub data_type: String,
}

/// A call such as an audit's reference: `accepted_values(column := status, is_in := ('a', 'b'))`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The lower-case name.
    pub name: String,
    /// Named arguments by lower-case name, values as SQL text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
}

/// SQL of one statement or query, as the user wrote it, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// The text, without the closing semicolon.
    pub text: String,
    /// Which macro language expands it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub language: Language,
    /// The line of the file on which the text starts, from 1.
    pub line: u32,
}

/// Which macro language expands a text first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// SQL with `@` macros.
    #[default]
    Sql,
    /// Jinja, then `@` macros on what it gives.
    Jinja,
}

/// What makes a model's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelSource {
    /// A query.
    Query(Code),
    /// The rows of a CSV file.
    Seed(SeedContent),
    /// Nothing: the table is somebody else's.
    External,
}

/// A seed's CSV, whole, as read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedContent {
    /// The file's path relative to the project.
    pub path: String,
    /// The file's text, exactly.
    pub csv: String,
}

/// An audit: a query that returns bad rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// The lower-case name.
    pub name: String,
    /// Its dialect.
    pub dialect: Dialect,
    /// Whether it is left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub skip: bool,
    /// Whether bad rows fail the batch.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub blocking: bool,
    /// Whether it is a node of its own rather than part of models.
    #[serde(default, skip_serializing_if = "is_default")]
    pub standalone: bool,
    /// Defaults of its arguments, as SQL text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub defaults: BTreeMap<String, String>,
    /// The query.
    pub query: Code,
    /// Where the audit's file is.
    pub location: Location,
}

/// A query that returns ranges of time that are ready to be computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The lower-case name: that of its file.
    pub name: String,
    /// Its dialect.
    pub dialect: Dialect,
    /// The query.
    pub query: Code,
    /// Where its file is.
    pub location: Location,
}

/// How a model's table is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// Replaces the rows of a time range.
    IncrementalByTimeRange(TimeRange),
    /// Upserts by key.
    IncrementalByUniqueKey(UniqueKey),
    /// Replaces whole partitions.
    IncrementalByPartition(Incremental),
    /// Appends.
    IncrementalUnmanaged {
        /// Overwrite partitions instead of appending.
        insert_overwrite: bool,
        /// What all incremental kinds share.
        common: Incremental,
    },
    /// Rewritten whole at each evaluation.
    Full,
    /// A view.
    View {
        /// Kept as a table by the warehouse.
        materialized: bool,
    },
    /// Slowly changing dimension of type 2.
    ScdType2(Box<ScdType2>),
    /// Rows of a file.
    Seed(Seed),
    /// Inlined into its readers.
    Embedded,
    /// Somebody else's table.
    External,
    /// Kept up to date by the warehouse.
    Managed,
    /// Written by the user's own code.
    Custom {
        /// Its name and properties, as written.
        materialization: String,
    },
    /// A standalone audit: a query that returns bad rows, on its own cron. It writes nothing, though
    /// what it has looked at is recorded as if it had a table.
    Audit,
}

/// Properties of the time range kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeRange {
    /// The normalised column that holds a row's time.
    pub time_column: String,
    /// How a text or integer time column is written, in strftime terms.
    pub time_format: String,
    /// Whether tables are partitioned by the time column too.
    pub partition_by_time_column: bool,
    /// What all incremental kinds share.
    #[serde(flatten)]
    pub common: Incremental,
}

/// Properties of the unique key kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueKey {
    /// The key's expressions, as written.
    pub unique_key: Vec<String>,
    /// The WHEN clauses of the merge, as written.
    pub when_matched: Option<String>,
    /// The filter of the merge, as written.
    pub merge_filter: Option<String>,
    /// What all incremental kinds share.
    #[serde(flatten)]
    pub common: Incremental,
}

/// What all incremental kinds share.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Incremental {
    /// Interval units per batch; absent: a whole contiguous range is one batch.
    pub batch_size: Option<u32>,
    /// How many batches of the model may run at once; absent: no limit of its own.
    pub batch_concurrency: Option<u32>,
    /// How many units before a new interval are computed again.
    pub lookback: u32,
    /// Changes reuse the physical table.
    pub forward_only: bool,
    /// Restatements leave the model alone.
    pub disable_restatement: bool,
    /// What to do when a change drops columns, as written (`error` where absent).
    pub on_destructive_change: Option<String>,
    /// What to do when a change adds columns, as written (`allow` where absent).
    pub on_additive_change: Option<String>,
    /// When to restate by itself.
    pub auto_restatement_cron: Option<String>,
    /// How many of the last units that restates.
    pub auto_restatement_intervals: Option<u32>,
}

/// Properties of both SCD type 2 kinds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScdType2 {
    /// The key's expressions, as written.
    pub unique_key: Vec<String>,
    /// The column that holds since when a row is valid.
    pub valid_from_name: String,
    /// The column that holds until when a row is valid.
    pub valid_to_name: String,
    /// Whether rows that vanish are closed.
    pub invalidate_hard_deletes: bool,
    /// The type of both columns.
    pub time_data_type: String,
    /// How changes are seen.
    pub by: ScdBy,
    /// What all incremental kinds share.
    #[serde(flatten)]
    pub common: Incremental,
}

/// How an SCD type 2 model sees a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScdBy {
    /// By a column that holds when the row changed.
    Time {
        /// That column.
        updated_at_name: String,
        /// Whether first versions start then, too.
        updated_at_as_valid_from: bool,
    },
    /// By comparing columns.
    Column {
        /// The columns; empty means all of them (`*`).
        columns: Vec<String>,
        /// Whether first versions start at the execution time.
        execution_time_as_valid_from: bool,
        /// A column that holds when the row changed, where there is one.
        updated_at_name: Option<String>,
    },
}

/// Properties of a seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The CSV's path as written, relative to the model's file.
    pub path: String,
    /// Rows per INSERT.
    pub batch_size: u32,
    /// How to read the CSV: `delimiter`, `quotechar`, `na_values` and so on, as written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub csv_settings: BTreeMap<String, String>,
}

impl ScdType2 {
    /// A table's columns, given those of the model's query: when a row is valid comes last, and what
    /// holds times of ours has their type.
    pub fn with_validity(&self, query: &[ColumnDef]) -> Vec<ColumnDef> {
        let mut columns = query.to_vec();
        let typed = |name: &str| ColumnDef { name: name.to_owned(), data_type: self.time_data_type.clone() };
        if let ScdBy::Time { updated_at_name, .. } = &self.by
            && let Some(known) = columns.iter_mut().find(|column| column.name == *updated_at_name)
        {
            *known = typed(updated_at_name);
        }
        for name in [&self.valid_from_name, &self.valid_to_name] {
            match columns.iter_mut().find(|column| column.name == *name) {
                Some(known) => *known = typed(name),
                None => columns.push(typed(name)),
            }
        }
        columns
    }
}

impl ModelKind {
    /// A table's columns, given those that its model selects or declares.
    pub fn table_columns(&self, selected: Vec<ColumnDef>) -> Vec<ColumnDef> {
        match self {
            Self::ScdType2(kind) => kind.with_validity(&selected),
            _ => selected,
        }
    }

    /// The kind's name as SQLMesh writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::IncrementalByTimeRange(_) => "INCREMENTAL_BY_TIME_RANGE",
            Self::IncrementalByUniqueKey(_) => "INCREMENTAL_BY_UNIQUE_KEY",
            Self::IncrementalByPartition(_) => "INCREMENTAL_BY_PARTITION",
            Self::IncrementalUnmanaged { .. } => "INCREMENTAL_UNMANAGED",
            Self::Full => "FULL",
            Self::View { .. } => "VIEW",
            Self::ScdType2(scd) => match scd.by {
                ScdBy::Time { .. } => "SCD_TYPE_2_BY_TIME",
                ScdBy::Column { .. } => "SCD_TYPE_2_BY_COLUMN",
            },
            Self::Seed(_) => "SEED",
            Self::Embedded => "EMBEDDED",
            Self::External => "EXTERNAL",
            Self::Managed => "MANAGED",
            Self::Custom { .. } => "CUSTOM",
            Self::Audit => "AUDIT",
        }
    }

    /// What all incremental kinds share, for those.
    pub fn incremental(&self) -> Option<&Incremental> {
        match self {
            Self::IncrementalByTimeRange(kind) => Some(&kind.common),
            Self::IncrementalByUniqueKey(kind) => Some(&kind.common),
            Self::IncrementalByPartition(common) | Self::IncrementalUnmanaged { common, .. } => Some(common),
            Self::ScdType2(kind) => Some(&kind.common),
            Self::Full
            | Self::View { .. }
            | Self::Seed(_)
            | Self::Embedded
            | Self::External
            | Self::Managed
            | Self::Custom { .. }
            | Self::Audit => None,
        }
    }

    /// Whether it is a standalone audit: planned and run as models are, with nothing to read.
    pub fn is_audit(&self) -> bool {
        matches!(self, Self::Audit)
    }

    /// Whether the kind has no table of ours.
    pub fn is_symbolic(&self) -> bool {
        matches!(self, Self::Embedded | Self::External)
    }

    /// When the model is computed again by itself, where it is.
    pub fn auto_restatement_cron(&self) -> Option<&str> {
        self.incremental().and_then(|common| common.auto_restatement_cron.as_deref())
    }

    /// Whether a restatement must always redo the whole history.
    pub(crate) fn full_history_restatement_only(&self) -> bool {
        matches!(
            self,
            Self::IncrementalUnmanaged { .. }
                | Self::IncrementalByUniqueKey(_)
                | Self::IncrementalByPartition(_)
                | Self::ScdType2(_)
                | Self::Managed
                | Self::Full
                | Self::View { .. }
        )
    }

    /// Whether queries know only the execution time, not a start and an end.
    pub fn only_execution_time(&self) -> bool {
        matches!(self, Self::Full | Self::View { .. })
    }
}

impl Model {
    /// The query's code, for kinds that have one.
    pub fn query(&self) -> Option<&Code> {
        match &self.source {
            ModelSource::Query(code) => Some(code),
            ModelSource::Seed(_) | ModelSource::External => None,
        }
    }

    /// Whether changes of its query are judged by what it means rather than by how it is written.
    pub fn optimizes(&self) -> bool {
        self.optimize_query != Some(false)
    }

    /// What its table is partitioned by: a table of time ranges by its time column first, unless the model
    /// names it or says not to.
    pub fn partitioned_by(&self) -> Vec<&str> {
        let own = self.storage.partitioned_by.iter().map(String::as_str);
        let time = match &self.kind {
            ModelKind::IncrementalByTimeRange(kind) if kind.partition_by_time_column => {
                Some(kind.time_column.as_str())
            }
            _ => None,
        };
        let words = |text: &str, name: &str| {
            let mut words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            words.any(|word| word.eq_ignore_ascii_case(name))
        };
        time.filter(|name| !own.clone().any(|text| words(text, name))).into_iter().chain(own).collect()
    }

    /// Batch size in interval units, where the file limits it.
    pub fn batch_size(&self) -> Option<u32> {
        self.kind.incremental().and_then(|common| common.batch_size)
    }

    /// How many units before new intervals are computed again.
    pub fn lookback(&self) -> u32 {
        self.kind.incremental().map_or(0, |common| common.lookback)
    }
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_true(value: &bool) -> bool {
    *value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

//! Warehouses, seen as a few verbs: write a batch, switch an environment's views, drop, ask.
//!
//! Invariant: a batch's delete, insert, audits and fence check are one transaction, so a failed
//! audit or a lost lease leaves the table as it was.
//! (`conformance::a_failed_audit_leaves_the_table_as_it_was`,
//! `conformance::a_zombie_cannot_commit_after_a_newer_token_was_raised`)
//!
//! Invariant: an environment's views change together and never move back.
//! (`conformance::views_switch_together_or_not_at_all`)

mod adbc;
mod batch;
mod columns;
mod config;
mod discard;
mod duckdb;
mod error;
mod fence;
mod migrate;
mod noop;
mod postgres;
mod postgres_tls;
mod profile;
mod publish;
mod remake;
mod scd;
mod scrub;
mod session;
pub(crate) mod statements;
mod transaction;
mod tries;
mod views;

#[cfg(test)]
mod conformance;

pub use adbc::wait_until_closed;
pub use config::{AdbcConfig, DuckDbCatalog, DuckDbConfig, EngineConfig, PostgresConfig, SslMode, open};
pub use duckdb::DRIVER_MISSING;
pub use error::{Class, EngineError};
pub use noop::NoopEngine;
pub use profile::{Describe, FullReplace, Profile};
pub use scd::ScdWrite;
pub use tokio_util::sync::CancellationToken;

use async_trait::async_trait;
use coord_common::id::Token;
use coord_common::project::model::ColumnDef;
use coord_common::sql::Dialect;
pub use coord_common::task::{Policies, Relation};

/// Who may write: the row that every attempt at the same piece of work must win.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The row's key: one piece of work, whoever attempts it.
    pub slot: String,
    /// The attempt's token; greater ones shut it out.
    pub token: Token,
    /// The plan the work belongs to: work that is done is done only for its plan.
    pub plan: String,
    /// What the slot belongs to (a snapshot or table), so that its rows can be pruned together.
    pub table: String,
    /// Slots of lost attempts at overlapping work: the token shuts them out, too.
    pub supersedes: Vec<String>,
}

/// An audit: a query that returns bad rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditQuery {
    /// The audit's name.
    pub name: String,
    /// The query, one statement.
    pub sql: String,
    /// The query that the name [`AUDITED`] stands for in `sql`, where it isn't the whole table.
    pub audited: Option<String>,
    /// Whether bad rows undo the batch.
    pub blocking: bool,
}

/// A bound of rows in a time column, as SQL literals in UTC: how it is written depends on the column's
/// type, which only the warehouse knows for sure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// As a moment, for columns of dates and times.
    pub time: String,
    /// In the model's own format, for columns of texts and numbers.
    pub own: String,
}

impl Bound {
    /// The literal for a column of a type.
    pub fn of(&self, data_type: &str) -> &str {
        let data_type = data_type.trim().to_ascii_lowercase();
        let is_time = ["date", "timestamp"].iter().any(|name| data_type.starts_with(name));
        if is_time { &self.time } else { &self.own }
    }
}

#[cfg(test)]
impl From<String> for Bound {
    fn from(text: String) -> Self {
        Self { time: text.clone(), own: text }
    }
}

/// What an audit that looks at a part of its table calls that part, unquoted.
pub const AUDITED: &str = "_audited";

/// One batch to write.
#[derive(Debug, Clone)]
pub struct BatchWrite {
    /// The physical table.
    pub target: Relation,
    /// What to write into it.
    pub write: Write,
    /// Statements before the write, in its transaction.
    pub pre: Vec<String>,
    /// Statements after the write, in its transaction.
    pub post: Vec<String>,
    /// Audits, run in the same transaction after the write.
    pub audits: Vec<AuditQuery>,
    /// Who may write.
    pub fence: Fence,
    /// Whether the token was raised by looking ahead.
    pub raised: bool,
    /// The columns that the model declares, which give a new table its types; absent: the types
    /// of the query.
    pub columns: Option<Vec<ColumnDef>>,
    /// Whether an earlier attempt's success for the same plan counts ([`Outcome::AlreadyDone`]);
    /// otherwise the work is done again. The same token's success always counts.
    pub replayed_is_done: bool,
    /// Whether columns of the query that the table lacks are left out.
    pub known_columns_only: bool,
    /// Whether nothing of the table is worth keeping (no interval is recorded yet): kinds that
    /// add to a table empty it first.
    pub first: bool,
    /// For a table that is computed aside: what it stands beside. It is made with the columns of
    /// that table.
    pub aside: Option<Beside>,
}

/// The table beside which another one is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// The table that readers see meanwhile.
    pub published: Relation,
    /// Which of its rows stay.
    pub kept: Kept,
}

/// Which rows of a table stay when what was computed aside is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// None: the table aside is the whole of it.
    Nothing,
    /// Those that no batch replaces: the table aside starts as a copy.
    Copy,
    /// Those outside of ranges.
    Outside {
        /// The time column.
        column: String,
        /// Bounds as in [`Write::TimeRange`], lower and upper.
        ranges: Vec<[Bound; 2]>,
        /// A view of both together, made with the table aside.
        merged: Relation,
    },
}

/// What to put in place of what readers see, all of one catalog in one transaction.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The work's fence row.
    pub slot: String,
    /// The attempt's token.
    pub token: Token,
    /// The plan.
    pub plan: String,
    /// The tables, parents first.
    pub tables: Vec<Published>,
    /// Only drop what was computed aside.
    pub discard: bool,
}

/// One table to publish.
#[derive(Debug, Clone)]
pub struct Published {
    /// The table's id, which its fence rows have.
    pub table: String,
    /// The id of the table aside.
    pub aside: String,
    /// What was computed aside.
    pub relation: Relation,
    /// What it stands beside.
    pub beside: Beside,
    /// What both are to readers.
    pub kind: RelationKind,
    /// Slots of lost attempts at writing to the table that readers see: they are shut out.
    pub supersedes: Vec<String>,
}

impl BatchWrite {
    /// Whether doing it twice would show: then any plan's success at it counts.
    pub(crate) fn once(&self) -> bool {
        matches!(self.write, Write::Append { .. }) && !self.first
    }
}

/// What a batch does to its table.
#[derive(Debug, Clone)]
pub enum Write {
    /// Makes the table, empty, if it doesn't exist.
    Create {
        /// The query whose columns the table gets where none are declared.
        query: String,
    },
    /// Replaces the rows whose time is within both bounds; rows of the query outside are dropped.
    TimeRange {
        /// The query.
        query: String,
        /// The time column.
        column: String,
        /// The lower bound, inclusive; it is cast to the column's type.
        low: Bound,
        /// The upper bound, inclusive; it is cast to the column's type.
        high: Bound,
    },
    /// Replaces rows with equal keys and adds the others. Where the query has several rows with
    /// one key, an arbitrary one of them is kept, unless `matched` is given: then the
    /// warehouse's MERGE refuses them. Rows with a NULL in the key equal no other.
    UniqueKey {
        /// The query.
        query: String,
        /// The key's expressions over the table's columns.
        key: Vec<String>,
        /// The MERGE's own `WHEN MATCHED …` clauses, over `__MERGE_TARGET__` and `__MERGE_SOURCE__`.
        matched: Option<String>,
        /// A condition that narrows which rows of the table can match, over the same names.
        filter: Option<String>,
    },
    /// Replaces all rows whose key is among the query's keys.
    Partition {
        /// The query.
        query: String,
        /// The key's expressions over the table's columns.
        key: Vec<String>,
    },
    /// Adds the query's rows. Unless it is the first of its table, it is done once whatever happens:
    /// success at the same slot counts for all plans.
    Append {
        /// The query.
        query: String,
    },
    /// Replaces the whole table. The query may read the table itself.
    Full {
        /// The query.
        query: String,
    },
    /// Brings a table of versions of rows up to date.
    Scd(Box<ScdWrite>),
    /// Makes or replaces a view.
    View {
        /// The query.
        query: String,
        /// Whether the warehouse keeps it as a table, where it can.
        materialized: bool,
    },
    /// Replaces the whole table with given rows.
    Seed {
        /// The columns.
        columns: Vec<ColumnDef>,
        /// The values as text, in the order of `columns`; absent: NULL.
        rows: Vec<Vec<Option<String>>>,
        /// Rows per INSERT, at least one.
        batch: usize,
    },
    /// Writes nothing: runs the audits only.
    AuditOnly,
    /// Gives a table, in place, the columns of a query; a view is made anew. Views of the warehouse
    /// that show all of it follow.
    Migrate {
        /// The query.
        query: String,
        /// What is migrated.
        migration: Migration,
    },
}

/// What a [`Write::Migrate`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Migration {
    /// A table, whose rows stay.
    Table {
        /// What may be done to it.
        policies: Policies,
        /// Columns that its kind gives it beside those of the query; it gets those that it lacks.
        kept: Vec<ColumnDef>,
        /// Whether columns that the query doesn't give any more stay for now; it is only seen to it
        /// that they can go.
        later: bool,
    },
    /// A view.
    View {
        /// Whether the warehouse keeps it as a table, where it can.
        materialized: bool,
    },
}

impl Write {
    /// The query whose columns must be known before it can be written.
    pub(crate) fn described(&self) -> Option<&str> {
        match self {
            Self::Create { query }
            | Self::TimeRange { query, .. }
            | Self::UniqueKey { query, .. }
            | Self::Partition { query, .. }
            | Self::Append { query }
            | Self::Full { query }
            | Self::Migrate { query, .. } => Some(query),
            Self::Scd(write) => Some(&write.query),
            Self::View { .. } | Self::Seed { .. } | Self::AuditOnly => None,
        }
    }
}

/// Whether this attempt did the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Yes; it is committed.
    Written,
    /// It was committed before; nothing was done now, and no audit ran.
    AlreadyDone,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditResult {
    /// The audit's name.
    pub name: String,
    /// Whether bad rows undo the batch.
    pub blocking: bool,
    /// How many bad rows there are.
    pub bad_rows: u64,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchReport {
    /// Whether this attempt did the work.
    pub outcome: Outcome,
    /// How many rows the work wrote.
    pub rows: u64,
    /// What the audits found.
    pub audits: Vec<AuditResult>,
}

/// One view to point at a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewChange {
    /// The view.
    pub view: Relation,
    /// The physical table or view that it shows.
    pub target: Relation,
    /// Statements after the change, in its transaction.
    pub on_virtual_update: Vec<String>,
}

/// A change of all of an environment's views.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewSwitch {
    /// The environment's name.
    pub environment: String,
    /// The environment's sequence number; a warehouse that saw a greater one stays as it is.
    pub seq: u64,
    /// Views to make or to point elsewhere.
    pub views: Vec<ViewChange>,
    /// Views to drop.
    pub drop: Vec<Relation>,
    /// Schemas (with their catalog) to drop if nothing is left in them.
    pub drop_schemas: Vec<(Option<String>, String)>,
}

/// What became of a [`ViewSwitch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switched {
    /// The warehouse shows the environment at this sequence number.
    Done,
    /// The warehouse shows a newer one; nothing was changed.
    Superseded,
}

/// A table to drop for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discard {
    /// What the table's slots belong to: [`Fence::table`].
    pub table: String,
    /// The attempt's token. Older ones can write the table no more; newer ones win.
    pub token: Token,
    /// The table.
    pub relation: Relation,
    /// What it is.
    pub kind: RelationKind,
}

/// What kind of thing a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// A table.
    Table,
    /// A view.
    View,
    /// A view that the warehouse keeps as a table.
    MaterializedView,
}

/// A query's answer as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The values; absent: NULL.
    pub rows: Vec<Vec<Option<String>>>,
}

/// A warehouse.
#[async_trait]
pub trait Engine: Send + Sync {
    /// The dialect that the warehouse speaks.
    fn dialect(&self) -> Dialect;

    /// How many verbs run at once; more wait.
    fn concurrency(&self) -> usize;

    /// Prepares a batch while another one still runs in its place: learns what writing it takes to know,
    /// and raises its token. What can't be done now is done then.
    async fn look_ahead(&self, _write: &mut BatchWrite) {}

    /// Writes one batch in one transaction, and says what its audits found.
    ///
    /// # Errors
    /// [`Class::AuditFailed`] where a blocking audit found bad rows, [`Class::Stale`] where a
    /// greater token holds the slot; the table is as it was in every error.
    async fn run_batch(
        &self,
        write: &BatchWrite,
        cancel: &CancellationToken,
    ) -> Result<BatchReport, EngineError>;

    /// Changes an environment's views, all of one catalog in one transaction. Doing it again is
    /// harmless.
    ///
    /// # Errors
    /// As the warehouse refuses; then all views of that catalog are as they were.
    async fn switch_views(
        &self,
        switch: &ViewSwitch,
        cancel: &CancellationToken,
    ) -> Result<Switched, EngineError>;

    /// Puts what was computed aside in place and drops it there, all of one catalog in one
    /// transaction: readers see all old rows or all new ones. What is in place already stays.
    ///
    /// # Errors
    /// [`Class::Stale`] where a greater token holds the work or one of its tables; otherwise as the
    /// warehouse refuses. All tables of that catalog are as they were.
    async fn publish(
        &self,
        publication: &Publication,
        cancel: &CancellationToken,
    ) -> Result<Outcome, EngineError>;

    /// Drops relations that exist, each on its own and never what depends on them; returns those
    /// that couldn't be dropped, and why.
    async fn drop_relations(&self, relations: &[(Relation, RelationKind)]) -> Vec<(Relation, EngineError)>;

    /// Drops a table, if it exists, and shuts older tokens out, in one transaction. Doing it again
    /// is harmless; what depends on the table keeps it from being dropped.
    ///
    /// # Errors
    /// [`Class::Stale`] where a newer token has written the table, or is about to.
    async fn discard(&self, discard: &Discard, cancel: &CancellationToken) -> Result<(), EngineError>;

    /// Forgets the slots of a [`Fence::table`] up to a token, and refuses that token and older ones
    /// new slots from now on. For tables that no plan in flight writes, such as dropped ones.
    ///
    /// # Errors
    /// As the warehouse refuses.
    async fn prune(&self, catalog: Option<&str>, table: &str, upto: Token) -> Result<(), EngineError>;

    /// From now on all tokens up to this one are shut out, whatever they are for: before anything else
    /// is written, the warehouse is told. A smaller one than before changes nothing.
    fn shut_out(&self, upto: Token);

    /// Runs one query and returns its whole answer, so it should be small.
    ///
    /// # Errors
    /// As the warehouse refuses.
    async fn query(&self, sql: &str) -> Result<Rows, EngineError>;

    /// The columns that a query would return, with their types.
    ///
    /// # Errors
    /// As the warehouse refuses.
    async fn describe(&self, sql: &str) -> Result<Vec<ColumnDef>, EngineError>;

    /// The columns of a relation with their types, or nothing where it doesn't exist.
    ///
    /// # Errors
    /// As the warehouse refuses.
    async fn columns(&self, relation: &Relation) -> Result<Option<Vec<ColumnDef>>, EngineError>;

    /// Connects if need be and returns the warehouse's version.
    ///
    /// # Errors
    /// Where the warehouse can't be reached or refuses the credentials.
    async fn ping(&self) -> Result<String, EngineError>;
}

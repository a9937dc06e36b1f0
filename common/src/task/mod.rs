//! What both ends of a lease must agree on: which work it grants, and what came of it.

mod columns;
mod drop;
mod restate;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use columns::{ColumnChanges, Policies, Policy, added_by_kind};

pub use crate::sql::ReadRange;
pub use drop::{DropTable, TableKind};
pub use restate::{Aside, Keeps, Publish, PublishTable};

use crate::id::{EnvironmentName, InvalidId, ModelName, PlanId, SnapshotId, Token, Version};
use crate::interval::{Interval, IntervalSet, Timestamp};

/// One physical table of ours: a model at one version, and whether it is the throwaway table of a
/// development environment.
///
/// Prints as `model@version` or `model@version+dev`, and as `…+aside.plan` where it is computed
/// beside the table that it will replace rows of; the text is its key in the state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    /// The model.
    pub model: ModelName,
    /// The generation of its table.
    pub version: Version,
    /// Whether only development environments may read it.
    pub dev: bool,
    /// The plan that restates the table, for what that plan computes aside; nobody but its own
    /// batches reads it.
    pub aside: Option<PlanId>,
}

impl TableId {
    /// The table that a plan computes aside.
    #[must_use]
    pub fn beside(&self, plan: PlanId) -> Self {
        Self { aside: Some(plan), ..self.clone() }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}{}", self.model, self.version, if self.dev { "+dev" } else { "" })?;
        match self.aside {
            Some(plan) => write!(f, "{ASIDE}{plan}"),
            None => Ok(()),
        }
    }
}

/// What stands before the plan in the id of a table that is computed aside.
const ASIDE: &str = "+aside.";

impl FromStr for TableId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bad = || InvalidId {
            what: "table id",
            text: text.to_owned(),
            why: "it must be model@version[+dev][+aside.plan]",
        };
        let (model, rest) = text.rsplit_once('@').ok_or_else(bad)?;
        let (rest, aside) = match rest.split_once(ASIDE) {
            Some((rest, plan)) => (rest, Some(plan.parse()?)),
            None => (rest, None),
        };
        let (version, dev) = rest.strip_suffix("+dev").map_or((rest, false), |version| (version, true));
        Ok(Self { model: model.parse()?, version: version.parse()?, dev, aside })
    }
}

impl Serialize for TableId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TableId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Consecutive intervals of one table, run as one unit; the name of its fence row.
///
/// Prints as `model@version:start-end` with times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Batch {
    /// The table that it fills.
    pub table: TableId,
    /// Which intervals.
    pub interval: Interval,
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}", self.table, self.interval.start.0, self.interval.end.0)
    }
}

impl FromStr for Batch {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bad = || InvalidId { what: "batch", text: text.to_owned(), why: "it must be table:start-end" };
        let (table, range) = text.rsplit_once(':').ok_or_else(bad)?;
        // The first character may be a minus sign: times before 1970.
        let dash = range.char_indices().skip(1).find(|(_, c)| *c == '-').ok_or_else(bad)?.0;
        let start = range[..dash].parse().map_err(|_| bad())?;
        let end = range[dash + 1..].parse().map_err(|_| bad())?;
        let interval = Interval::new(Timestamp(start), Timestamp(end)).ok_or_else(bad)?;
        Ok(Self { table: table.parse()?, interval })
    }
}

impl Serialize for Batch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A table or view in the warehouse, parts unquoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Relation {
    /// The catalog, where it isn't the connection's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog: Option<String>,
    /// The schema.
    pub schema: String,
    /// The table's or view's own name.
    pub table: String,
}

impl Relation {
    /// A relation in the connection's own catalog.
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Self {
        Self { catalog: None, schema: schema.into(), table: table.into() }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(catalog) = &self.catalog {
            write!(f, "{catalog}.")?;
        }
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// What a reference in a query stands for when a batch runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// A table or view that the warehouse has.
    Table(Relation),
    /// The query of an EMBEDDED model, put in place as a subquery.
    Embedded(SnapshotId),
}

/// Everything about a table's work that all its batches share; sent once per worker, by hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableTask {
    /// The snapshot whose model makes the rows.
    pub snapshot: SnapshotId,
    /// The table that is filled.
    pub table: TableId,
    /// Its place in the warehouse.
    pub target: Relation,
    /// The gateway whose workers can run it.
    pub gateway: String,
    /// What each model that the query names stands for.
    pub bindings: BTreeMap<ModelName, Binding>,
    /// The plan's or run's "now".
    pub execution_time: Timestamp,
    /// Which changes of the table's columns the plan allows, whatever the model says.
    #[serde(default)]
    pub allows: Allowed,
    /// For a table that is computed aside: what it stands beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aside: Option<Aside>,
    /// How often the plan has begun to compute anew. What it did in another round isn't done in this one.
    #[serde(default)]
    pub round: u32,
}

/// Changes of a table's columns that a plan allows, whatever the model says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Allowed {
    /// Columns may go.
    pub destructive: bool,
    /// Columns may come.
    pub additive: bool,
    /// Columns that go do so later, once the environment's pointer has moved: until then what reads
    /// the table as it was finds all of its columns.
    pub later: bool,
}

/// What a lease grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Compute one batch, check it, commit it.
    Evaluate(Evaluate),
    /// Show an environment's snapshots: switch all its views.
    Promote(Promote),
    /// Ask a model's signals which ranges are ready.
    Check(Check),
    /// Run a project's statements around a plan or run.
    Statements(Statements),
    /// Put what a plan computed aside in place, or drop it.
    Publish(Publish),
    /// Remove a table that nothing needs any more.
    Drop(DropTable),
}

impl Work {
    /// The gateway whose workers can do it.
    pub fn gateway(&self) -> &str {
        match self {
            Self::Evaluate(evaluate) => &evaluate.task.gateway,
            Self::Promote(promote) => &promote.gateway,
            Self::Check(check) => &check.task.gateway,
            Self::Statements(statements) => &statements.gateway,
            Self::Drop(drop) => &drop.gateway,
            Self::Publish(publish) => &publish.gateway,
        }
    }
}

/// Run a project's statements around a plan or run, in one transaction, once for the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statements {
    /// The environment.
    pub environment: EnvironmentName,
    /// Which statements they are.
    pub point: HookPoint,
    /// The gateway whose workers can run them.
    pub gateway: String,
    /// The statements, rendered, in order.
    pub sql: Vec<String>,
}

/// When a project's statements run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookPoint {
    /// Before anything else of a plan or run.
    BeforeAll,
    /// After everything of a plan or run.
    AfterAll,
    /// After a run that failed: the same statements as after all.
    AfterFailure,
}

impl HookPoint {
    /// The name that fences and messages use.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeAll => "before_all",
            Self::AfterAll => "after_all",
            Self::AfterFailure => "after_all (failed run)",
        }
    }
}

/// Ask a model's signals which ranges are ready. Only reads, so nothing fences it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What the model's batches share.
    pub task: Arc<TableTask>,
    /// The ranges that would be computed.
    pub candidates: IntervalSet,
}

/// Compute one batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluate {
    /// What all batches of the table share.
    pub task: Arc<TableTask>,
    /// Which batch; its text names the fence row.
    pub batch: Batch,
    /// What to do for it.
    pub mode: Mode,
    /// Batches whose leases were lost and that overlap this one: their fences must be raised, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supersedes: Vec<Batch>,
}

/// What to do for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Only make the empty table.
    Create,
    /// Make the table and fill the batch: nothing of this table was ever recorded.
    First,
    /// Fill the batch.
    Write,
    /// Fill the batch; what the table holds counts for nothing, since no interval of it is recorded
    /// or all of them are computed again.
    Anew,
    /// Only run the audits over the batch.
    Audit,
    /// Only give the table the columns that the snapshot's query has; a view is made anew.
    Migrate,
}

impl Mode {
    /// Whether the batch's intervals are filled by it.
    pub fn fills(self) -> bool {
        match self {
            Self::First | Self::Write | Self::Anew => true,
            Self::Create | Self::Audit | Self::Migrate => false,
        }
    }
}

/// Show an environment's snapshots: all views in one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promote {
    /// The environment.
    pub environment: EnvironmentName,
    /// The pointer's sequence number; the warehouse never goes back to a smaller one.
    pub seq: u64,
    /// The gateway whose workers can run it.
    pub gateway: String,
    /// The plan's "now", for statements that run after the switch.
    pub execution_time: Timestamp,
    /// Views to make or replace.
    pub views: Vec<View>,
    /// Views to drop.
    pub drop: Vec<Relation>,
    /// Schemas, with their catalogs, to drop if nothing is left in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop_schemas: Vec<(Option<String>, String)>,
}

/// One view of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The model that it shows.
    pub model: ModelName,
    /// The snapshot that it shows, for statements that run after the switch.
    pub snapshot: SnapshotId,
    /// The view.
    pub view: Relation,
    /// The physical table behind it.
    pub target: Relation,
    /// Whether the model has statements to run after the switch.
    #[serde(default)]
    pub on_virtual_update: bool,
}

/// The grant of one piece of work to one worker until a deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its fencing token.
    pub token: Token,
    /// The plan on whose behalf it runs.
    pub plan: PlanId,
    /// What to do.
    pub work: Work,
    /// How long it holds without an answered heartbeat, in milliseconds.
    pub ttl_millis: u64,
    /// The how-manieth attempt it is, from 1.
    pub attempt: u32,
    /// The lease of the same worker whose place it takes: work on it begins when that one's has
    /// ended. Only the worker and the leader that granted it know; it isn't on record.
    #[serde(skip)]
    pub behind: Option<Token>,
}

impl Lease {
    /// The batch that it grants, where it grants one.
    pub fn batch(&self) -> Option<&Batch> {
        match &self.work {
            Work::Evaluate(evaluate) => Some(&evaluate.batch),
            Work::Promote(_) | Work::Publish(_) | Work::Drop(_) | Work::Check(_) | Work::Statements(_) => {
                None
            }
        }
    }
}

/// What a worker says of a lease that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The lease's token.
    pub token: Token,
    /// The batch that it granted, where it granted one: a leader that never saw the lease, since the
    /// former one had already recorded its end, knows it by that.
    pub batch: Option<Batch>,
    /// What came of it.
    pub outcome: Outcome,
}

/// Longest text of a failure, in bytes: it is put on record.
const LONGEST_TEXT: usize = 16 * 1024;
/// Most audits of one report.
const MOST_AUDITS: usize = 1000;

impl Report {
    /// Cuts what a warehouse or a worker may have made too long to be kept.
    pub fn cut(&mut self) {
        match &mut self.outcome {
            Outcome::Failed(failure) => {
                let Failure { class: _, code, message, hint } = failure;
                for text in [Some(message), code.as_mut(), hint.as_mut()].into_iter().flatten() {
                    text.truncate(text.floor_char_boundary(LONGEST_TEXT));
                }
            }
            Outcome::Done(done) => done.audits.truncate(MOST_AUDITS),
            Outcome::HandedBack | Outcome::Fenced => {}
        }
    }
}

/// What came of a lease, as its worker reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The warehouse committed it.
    Done(Done),
    /// It failed; the warehouse is as it was before.
    Failed(Failure),
    /// The worker gives it back unstarted or rolled back, because it drains.
    HandedBack,
    /// The fence refused it: somebody else holds a newer token.
    Fenced,
}

/// What a committed batch did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    /// Rows written.
    pub rows: u64,
    /// Time that the worker took, in milliseconds.
    pub millis: u64,
    /// An earlier attempt had already committed it: nothing was written again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub already: bool,
    /// Audits that ran, and how many bad rows each found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audits: Vec<AuditResult>,
    /// What is ready, of a [`Check`].
    #[serde(skip_serializing_if = "IntervalSet::is_empty")]
    pub ready: IntervalSet,
}

/// What one audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditResult {
    /// The audit's name.
    pub name: String,
    /// Whether bad rows fail the batch.
    pub blocking: bool,
    /// How many bad rows it found.
    pub bad_rows: u64,
}

/// Why a lease's work failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What a retry could do about it.
    pub class: FailureClass,
    /// The warehouse's own code, such as an SQLSTATE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What went wrong, without secrets.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What a retry could do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// It may work next time.
    Transient,
    /// It will fail again.
    Permanent,
    /// A blocking audit found bad rows.
    Audit,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(code) = &self.code {
            write!(f, " ({code})")?;
        }
        Ok(())
    }
}

/// What the coordinator says to a report. All are final; none is an error of the reporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Recorded.
    Recorded,
    /// It had been recorded before.
    Already,
    /// The lease is no longer the reporter's; nothing changed.
    Stale,
}

/// What a heartbeat learns about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// Go on.
    Held,
    /// Stop, roll back, hand back.
    Cancel,
    /// It isn't yours any more.
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_cut_at_characters_to_what_can_be_kept() {
        let failure = Failure {
            class: FailureClass::Permanent,
            code: None,
            message: "\u{00e4}".repeat(LONGEST_TEXT),
            hint: Some("short".to_owned()),
        };
        let mut report = Report { token: Token(1), batch: None, outcome: Outcome::Failed(failure) };
        report.cut();
        let Outcome::Failed(failure) = report.outcome else { panic!("it stays a failure") };
        assert_eq!((failure.message.len(), failure.hint.as_deref()), (LONGEST_TEXT, Some("short")));
    }

    #[test]
    fn batches_print_and_parse() {
        for text in [
            "db.m@000102030405060708090a0b0c0d0e0f:-5-10",
            "a.b.c@000102030405060708090a0b0c0d0e0f+dev:0-86400000",
            "a.b@000102030405060708090a0b0c0d0e0f+aside.0f0e0d0c0b0a09080706050403020100:0-1",
            "a.b@000102030405060708090a0b0c0d0e0f+dev+aside.0f0e0d0c0b0a09080706050403020100:0-1",
        ] {
            assert_eq!(text.parse::<Batch>().unwrap().to_string(), text);
        }
        assert!("db.m@x:1-2".parse::<Batch>().is_err());
    }
}

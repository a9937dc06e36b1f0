//! Conversions between wire types and the domain: `TryFrom` inward, `From` outward.

use std::sync::Arc;

use coord_common::id::Token;
use coord_common::interval::{Interval, IntervalSet, Timestamp};
use coord_common::task::{
    Allowed, AuditResult, Batch, Binding, Check, Done, DropTable, Evaluate, Failure, FailureClass, HookPoint,
    Lease, LeaseState, Mode, Outcome, Promote, Relation, Report, Statements, TableKind, TableTask, Verdict,
    View, Work,
};

use crate::wire;

mod restate;

/// A message that doesn't hold what it must.
#[derive(Debug, thiserror::Error)]
#[error("malformed message: `{field}` {why}")]
pub struct Malformed {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}

/// Characters of a mistake that are told.
const MOST_OF_A_MISTAKE: usize = 300;

impl From<Malformed> for tonic::Status {
    fn from(malformed: Malformed) -> Self {
        // A status travels in a header, which must stay small whatever was sent.
        let mut text = malformed.to_string();
        if let Some((end, _)) = text.char_indices().nth(MOST_OF_A_MISTAKE) {
            text.truncate(end);
            text.push('…');
        }
        Self::invalid_argument(text)
    }
}

fn missing(field: &'static str) -> Malformed {
    Malformed { field, why: "is missing".to_owned() }
}

/// Parses a text field into the domain's type.
///
/// # Errors
/// [`Malformed`] naming the field when the text isn't valid.
pub fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &'static str,
    text: &str,
) -> Result<T, Malformed> {
    text.parse().map_err(|error: T::Err| Malformed { field, why: error.to_string() })
}

/// Conversions of an enum whose variants are called the same on the wire, where a field that isn't
/// set is `Unspecified`.
macro_rules! same_names {
    ($name:ident, $field:literal, [$($variant:ident),+]) => {
        impl From<$name> for wire::$name {
            fn from(value: $name) -> Self {
                match value {
                    $($name::$variant => Self::$variant,)+
                }
            }
        }

        impl TryFrom<wire::$name> for $name {
            type Error = Malformed;
            fn try_from(value: wire::$name) -> Result<Self, Malformed> {
                match value {
                    $(wire::$name::$variant => Ok(Self::$variant),)+
                    wire::$name::Unspecified => Err(missing($field)),
                }
            }
        }
    };
}

same_names!(Mode, "evaluate.mode", [Create, First, Write, Audit, Migrate, Anew]);
same_names!(TableKind, "drop.kind", [Table, View, MaterializedView]);
same_names!(HookPoint, "statements.point", [BeforeAll, AfterAll, AfterFailure]);
same_names!(FailureClass, "failure.class", [Transient, Permanent, Audit]);
same_names!(Verdict, "verdict", [Recorded, Already, Stale]);
same_names!(LeaseState, "lease_state", [Held, Cancel, Gone]);

/// An enum's value, which fields hold as a number.
fn named<W, T>(field: &'static str, number: i32) -> Result<T, Malformed>
where
    W: TryFrom<i32>,
    T: TryFrom<W, Error = Malformed>,
{
    W::try_from(number).map_err(|_| missing(field))?.try_into()
}

impl From<Interval> for wire::Interval {
    fn from(interval: Interval) -> Self {
        Self { start: interval.start.0, end: interval.end.0 }
    }
}

impl TryFrom<wire::Interval> for Interval {
    type Error = Malformed;
    fn try_from(interval: wire::Interval) -> Result<Self, Malformed> {
        Self::new(Timestamp(interval.start), Timestamp(interval.end))
            .ok_or_else(|| Malformed { field: "interval", why: "is empty or turned round".to_owned() })
    }
}

impl From<Relation> for wire::Relation {
    fn from(relation: Relation) -> Self {
        Self { catalog: relation.catalog, schema: relation.schema, table: relation.table }
    }
}

impl From<wire::Relation> for Relation {
    fn from(relation: wire::Relation) -> Self {
        Self { catalog: relation.catalog, schema: relation.schema, table: relation.table }
    }
}

impl From<&TableTask> for wire::TableTask {
    fn from(task: &TableTask) -> Self {
        let bindings = task.bindings.iter().map(|(model, binding)| wire::Binding {
            model: model.to_string(),
            to: Some(match binding {
                Binding::Table(relation) => wire::binding::To::Table(relation.clone().into()),
                Binding::Embedded(snapshot) => wire::binding::To::EmbeddedSnapshotId(snapshot.to_string()),
            }),
        });
        Self {
            snapshot_id: task.snapshot.to_string(),
            table_id: task.table.to_string(),
            target: Some(task.target.clone().into()),
            gateway: task.gateway.clone(),
            bindings: bindings.collect(),
            execution_time: task.execution_time.0,
            allow_destructive: task.allows.destructive,
            allow_additive: task.allows.additive,
            columns_go_later: task.allows.later,
            aside: task.aside.as_ref().map(Into::into),
            round: task.round,
        }
    }
}

impl TryFrom<wire::TableTask> for TableTask {
    type Error = Malformed;
    fn try_from(task: wire::TableTask) -> Result<Self, Malformed> {
        let binding = |binding: wire::Binding| {
            let to = match binding.to.ok_or_else(|| missing("binding.to"))? {
                wire::binding::To::Table(relation) => Binding::Table(relation.into()),
                wire::binding::To::EmbeddedSnapshotId(id) => {
                    Binding::Embedded(parse("binding.embedded_snapshot_id", &id)?)
                }
            };
            Ok((parse("binding.model", &binding.model)?, to))
        };
        Ok(Self {
            snapshot: parse("task.snapshot_id", &task.snapshot_id)?,
            table: parse("task.table_id", &task.table_id)?,
            target: task.target.ok_or_else(|| missing("task.target"))?.into(),
            gateway: task.gateway,
            bindings: task.bindings.into_iter().map(binding).collect::<Result<_, Malformed>>()?,
            execution_time: Timestamp(task.execution_time),
            allows: Allowed {
                destructive: task.allow_destructive,
                additive: task.allow_additive,
                later: task.columns_go_later,
            },
            aside: task.aside.map(TryInto::try_into).transpose()?,
            round: task.round,
        })
    }
}

impl From<&Evaluate> for wire::Evaluate {
    fn from(evaluate: &Evaluate) -> Self {
        Self {
            task: Some((&*evaluate.task).into()),
            interval: Some(evaluate.batch.interval.into()),
            mode: wire::Mode::from(evaluate.mode).into(),
            supersedes: evaluate.supersedes.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<wire::Evaluate> for Evaluate {
    type Error = Malformed;
    fn try_from(evaluate: wire::Evaluate) -> Result<Self, Malformed> {
        let task: TableTask = evaluate.task.ok_or_else(|| missing("evaluate.task"))?.try_into()?;
        let interval = evaluate.interval.ok_or_else(|| missing("evaluate.interval"))?.try_into()?;
        let batch = Batch { table: task.table.clone(), interval };
        let supersedes = evaluate.supersedes.iter().map(|text| parse("evaluate.supersedes", text));
        Ok(Self {
            task: Arc::new(task),
            batch,
            mode: named::<wire::Mode, _>("evaluate.mode", evaluate.mode)?,
            supersedes: supersedes.collect::<Result<_, Malformed>>()?,
        })
    }
}

impl From<&Promote> for wire::Promote {
    fn from(promote: &Promote) -> Self {
        let view = |view: &View| wire::View {
            model: view.model.to_string(),
            snapshot_id: view.snapshot.to_string(),
            view: Some(view.view.clone().into()),
            target: Some(view.target.clone().into()),
            on_virtual_update: view.on_virtual_update,
        };
        Self {
            environment: promote.environment.to_string(),
            seq: promote.seq,
            gateway: promote.gateway.clone(),
            execution_time: promote.execution_time.0,
            views: promote.views.iter().map(view).collect(),
            drop: promote.drop.iter().cloned().map(Into::into).collect(),
            drop_schemas: promote
                .drop_schemas
                .iter()
                .map(|(catalog, schema)| wire::Schema { catalog: catalog.clone(), schema: schema.clone() })
                .collect(),
        }
    }
}

impl TryFrom<wire::Promote> for Promote {
    type Error = Malformed;
    fn try_from(promote: wire::Promote) -> Result<Self, Malformed> {
        let view = |view: wire::View| {
            Ok(View {
                model: parse("view.model", &view.model)?,
                snapshot: parse("view.snapshot_id", &view.snapshot_id)?,
                view: view.view.ok_or_else(|| missing("view.view"))?.into(),
                target: view.target.ok_or_else(|| missing("view.target"))?.into(),
                on_virtual_update: view.on_virtual_update,
            })
        };
        Ok(Self {
            environment: parse("promote.environment", &promote.environment)?,
            seq: promote.seq,
            gateway: promote.gateway,
            execution_time: Timestamp(promote.execution_time),
            views: promote.views.into_iter().map(view).collect::<Result<_, Malformed>>()?,
            drop: promote.drop.into_iter().map(Into::into).collect(),
            drop_schemas: promote.drop_schemas.into_iter().map(|of| (of.catalog, of.schema)).collect(),
        })
    }
}

impl From<&DropTable> for wire::DropTable {
    fn from(drop: &DropTable) -> Self {
        Self {
            table_id: drop.table.to_string(),
            relation: Some(drop.relation.clone().into()),
            kind: wire::TableKind::from(drop.kind).into(),
            gateway: drop.gateway.clone(),
        }
    }
}

impl TryFrom<wire::DropTable> for DropTable {
    type Error = Malformed;
    fn try_from(drop: wire::DropTable) -> Result<Self, Malformed> {
        Ok(Self {
            table: parse("drop.table_id", &drop.table_id)?,
            relation: drop.relation.ok_or_else(|| missing("drop.relation"))?.into(),
            kind: named::<wire::TableKind, _>("drop.kind", drop.kind)?,
            gateway: drop.gateway,
        })
    }
}

impl From<&Lease> for wire::Lease {
    fn from(lease: &Lease) -> Self {
        Self {
            token: lease.token.0,
            plan_id: lease.plan.to_string(),
            ttl_millis: lease.ttl_millis,
            attempt: lease.attempt,
            behind: lease.behind.map_or(0, |token| token.0),
            work: Some(match &lease.work {
                Work::Evaluate(evaluate) => wire::lease::Work::Evaluate(evaluate.into()),
                Work::Promote(promote) => wire::lease::Work::Promote(promote.into()),
                Work::Check(check) => wire::lease::Work::Check(check.into()),
                Work::Statements(statements) => wire::lease::Work::Statements(statements.into()),
                Work::Publish(publish) => wire::lease::Work::Publish(publish.into()),
                Work::Drop(drop) => wire::lease::Work::Drop(drop.into()),
            }),
        }
    }
}

impl TryFrom<wire::Lease> for Lease {
    type Error = Malformed;
    fn try_from(lease: wire::Lease) -> Result<Self, Malformed> {
        Ok(Self {
            token: Token(lease.token),
            plan: parse("lease.plan_id", &lease.plan_id)?,
            ttl_millis: lease.ttl_millis,
            attempt: lease.attempt,
            behind: (lease.behind != 0).then_some(Token(lease.behind)),
            work: match lease.work.ok_or_else(|| missing("lease.work"))? {
                wire::lease::Work::Evaluate(evaluate) => Work::Evaluate(evaluate.try_into()?),
                wire::lease::Work::Promote(promote) => Work::Promote(promote.try_into()?),
                wire::lease::Work::Check(check) => Work::Check(check.try_into()?),
                wire::lease::Work::Statements(statements) => Work::Statements(statements.try_into()?),
                wire::lease::Work::Publish(publish) => Work::Publish(publish.try_into()?),
                wire::lease::Work::Drop(drop) => Work::Drop(drop.try_into()?),
            },
        })
    }
}

impl From<&Check> for wire::Check {
    fn from(check: &Check) -> Self {
        Self { task: Some((&*check.task).into()), candidates: ranges(&check.candidates) }
    }
}

impl TryFrom<wire::Check> for Check {
    type Error = Malformed;
    fn try_from(check: wire::Check) -> Result<Self, Malformed> {
        let task: TableTask = check.task.ok_or_else(|| missing("check.task"))?.try_into()?;
        Ok(Self { task: Arc::new(task), candidates: set(check.candidates)? })
    }
}

fn ranges(set: &IntervalSet) -> Vec<wire::Interval> {
    set.ranges().iter().copied().map(Into::into).collect()
}

fn set(ranges: Vec<wire::Interval>) -> Result<IntervalSet, Malformed> {
    ranges.into_iter().map(Interval::try_from).collect()
}

impl From<&Statements> for wire::Statements {
    fn from(statements: &Statements) -> Self {
        Self {
            environment: statements.environment.to_string(),
            point: wire::HookPoint::from(statements.point).into(),
            gateway: statements.gateway.clone(),
            sql: statements.sql.clone(),
        }
    }
}

impl TryFrom<wire::Statements> for Statements {
    type Error = Malformed;
    fn try_from(statements: wire::Statements) -> Result<Self, Malformed> {
        Ok(Self {
            environment: parse("statements.environment", &statements.environment)?,
            point: named::<wire::HookPoint, _>("statements.point", statements.point)?,
            gateway: statements.gateway,
            sql: statements.sql,
        })
    }
}

impl From<Outcome> for wire::report::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done(done) => Self::Done(wire::Done {
                ready: ranges(&done.ready),
                rows: done.rows,
                millis: done.millis,
                already: done.already,
                audits: done
                    .audits
                    .into_iter()
                    .map(|audit| wire::AuditResult {
                        name: audit.name,
                        blocking: audit.blocking,
                        bad_rows: audit.bad_rows,
                    })
                    .collect(),
            }),
            Outcome::Failed(failure) => Self::Failed(wire::Failure {
                class: wire::FailureClass::from(failure.class).into(),
                code: failure.code,
                message: failure.message,
                hint: failure.hint,
            }),
            Outcome::HandedBack => Self::HandedBack(wire::HandedBack {}),
            Outcome::Fenced => Self::Fenced(wire::Fenced {}),
        }
    }
}

impl TryFrom<wire::report::Outcome> for Outcome {
    type Error = Malformed;
    fn try_from(outcome: wire::report::Outcome) -> Result<Self, Malformed> {
        Ok(match outcome {
            wire::report::Outcome::Done(done) => Self::Done(Done {
                ready: set(done.ready)?,
                rows: done.rows,
                millis: done.millis,
                already: done.already,
                audits: done
                    .audits
                    .into_iter()
                    .map(|audit| AuditResult {
                        name: audit.name,
                        blocking: audit.blocking,
                        bad_rows: audit.bad_rows,
                    })
                    .collect(),
            }),
            wire::report::Outcome::Failed(failure) => Self::Failed(Failure {
                class: named::<wire::FailureClass, _>("failure.class", failure.class)?,
                code: failure.code,
                message: failure.message,
                hint: failure.hint,
            }),
            wire::report::Outcome::HandedBack(_) => Self::HandedBack,
            wire::report::Outcome::Fenced(_) => Self::Fenced,
        })
    }
}

impl From<Report> for wire::Report {
    fn from(report: Report) -> Self {
        Self {
            token: report.token.0,
            batch: report.batch.map(|batch| batch.to_string()).unwrap_or_default(),
            outcome: Some(report.outcome.into()),
        }
    }
}

impl TryFrom<wire::Report> for Report {
    type Error = Malformed;
    fn try_from(report: wire::Report) -> Result<Self, Malformed> {
        let batch = Some(report.batch).filter(|batch| !batch.is_empty());
        Ok(Self {
            token: Token(report.token),
            batch: batch.map(|batch| parse("report.batch", &batch)).transpose()?,
            outcome: report.outcome.ok_or_else(|| missing("report.outcome"))?.try_into()?,
        })
    }
}

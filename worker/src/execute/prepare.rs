//! Rendering a snapshot for one batch: macros expanded for its dates, models named by the tables
//! that stand for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use coord_common::id::ModelName;
use coord_common::interval::{Interval, Timestamp, format_time};
use coord_common::project::audits_builtin::builtin_audit;
use coord_common::project::model::{Call, Code, ColumnDef, Model, ModelKind, ScdType2, TimeRange};
use coord_common::project::render::{
    RenderContext, Stage, TimeVars, render, render_audit, render_signal, render_statement,
};
use coord_common::project::seed;
use coord_common::snapshot::{Snapshot, model_name};
use coord_common::sql::{Dialect, Query, SqlError, parse_statement};
use coord_common::task::{
    Binding, Evaluate, Failure, FailureClass, Keeps, Lease, Mode, Policies, Policy, Promote, Relation,
    Statements, TableId, TableTask, View,
};

use super::bounds::{bounds, within};
use super::merge::merge_names;
use super::publication::beside;
use crate::engine::{AUDITED, AuditQuery, BatchWrite, Fence, Migration, ScdWrite, Write};

pub(super) type Embedded = BTreeMap<ModelName, Arc<Snapshot>>;

/// What the engine must do for a batch.
///
/// # Errors
/// What can't be rendered: it fails for good.
pub(super) fn batch(
    lease: &Lease,
    work: &Evaluate,
    snapshot: &Snapshot,
    embedded: &Embedded,
    dialect: Dialect,
) -> Result<BatchWrite, Failure> {
    let model = &*snapshot.model;
    let scene = Scene { task: &work.task, snapshot, embedded, dialect, work };
    let target = sql_name(&work.task.target, dialect);
    let write = match work.mode {
        _ if model.kind.is_audit() => Write::AuditOnly,
        Mode::Audit => Write::AuditOnly,
        Mode::Migrate => scene.migration()?,
        Mode::Create => scene.create()?,
        Mode::First | Mode::Write | Mode::Anew => scene.write()?,
    };
    let audits = match work.mode {
        Mode::Create | Mode::Migrate => Vec::new(),
        Mode::First | Mode::Write | Mode::Anew | Mode::Audit => scene.audits(&target)?,
    };
    Ok(BatchWrite {
        target: work.task.target.clone(),
        write,
        pre: scene.around(&model.pre_statements, &target)?,
        post: scene.around(&model.post_statements, &target)?,
        audits,
        fence: Fence {
            slot: slot(work),
            token: lease.token,
            plan: by(lease, work.task.round),
            table: work.task.table.to_string(),
            supersedes: superseded(work),
        },
        columns: declared(snapshot),
        raised: false,
        replayed_is_done: lease.attempt > 1,
        known_columns_only: Policies::of(model, work.task.allows).additive == Policy::Ignore,
        // A copy of what readers see is worth keeping.
        first: matches!(work.mode, Mode::First | Mode::Anew)
            && work.task.aside.as_ref().is_none_or(|aside| aside.keeps != Keeps::Copy),
        aside: work.task.aside.as_ref().map(|aside| beside(aside, snapshot)).transpose()?,
    })
}

/// The audits of a model over a range that is complete, as queries that return bad rows; those that
/// are skipped are left out.
///
/// # Errors
/// What can't be rendered.
pub(super) fn audits(
    work: &Evaluate,
    snapshot: &Snapshot,
    embedded: &Embedded,
    dialect: Dialect,
) -> Result<Vec<AuditQuery>, Failure> {
    let scene = Scene { task: &work.task, snapshot, embedded, dialect, work };
    scene.audits(&sql_name(&work.task.target, dialect))
}

/// Whose work it is: what a plan did in an earlier round is no more than what another plan did.
fn by(lease: &Lease, round: u32) -> String {
    if round == 0 { lease.plan.to_string() } else { format!("{}.{round}", lease.plan) }
}

/// Audits of their own must not look as if they had filled the batch, nor columns that came as if those
/// that go were gone.
fn slot(work: &Evaluate) -> String {
    match work.mode {
        Mode::Audit => format!("audit:{}", work.batch),
        Mode::Migrate if work.task.allows.later => format!("columns:{}", work.batch),
        _ => work.batch.to_string(),
    }
}

/// The slots of lost attempts, and of the other half of a migration.
fn superseded(work: &Evaluate) -> Vec<String> {
    let own = slot(work);
    let migrates = (work.mode == Mode::Migrate).then_some(&work.batch);
    let slots = work.supersedes.iter().chain(migrates).flat_map(|batch| {
        let columns = (batch.interval == Interval::ALL).then(|| format!("columns:{batch}"));
        [Some(batch.to_string()), columns]
    });
    slots.flatten().filter(|slot| *slot != own).collect()
}

/// The query of a signal for one candidate range: its models' names stand for their tables.
///
/// # Errors
/// What can't be rendered: it fails for good.
pub(super) fn signal(
    work: &Evaluate,
    snapshot: &Snapshot,
    embedded: &Embedded,
    call: &Call,
    dialect: Dialect,
) -> Result<String, Failure> {
    let model = &*snapshot.model;
    let scene = Scene { task: &work.task, snapshot, embedded, dialect, work };
    let signal = model
        .signal_definitions
        .get(&call.name)
        .ok_or_else(|| refuse("it isn't defined".to_owned(), None))?;
    let target = sql_name(&work.task.target, dialect);
    let context =
        RenderContext { this_model: Some(&target), ..context(snapshot, scene.times(), Stage::Evaluating) };
    let text = render_signal(signal, &call.args, &context).map_err(|error| {
        let place = format!("{}:{}:{}", signal.location.path, error.line, error.column);
        refuse(format!("{place}: {}", error.message), error.hint.clone())
    })?;
    scene.rewrite(&text)
}

/// What the engine must do to run statements around a plan: once, whoever attempts it.
pub(super) fn statements(lease: &Lease, work: &Statements) -> BatchWrite {
    let owner = format!("statements/{}", work.environment);
    BatchWrite {
        // Nothing is written but what the statements write.
        target: Relation::new("", ""),
        write: Write::AuditOnly,
        pre: work.sql.clone(),
        post: Vec::new(),
        audits: Vec::new(),
        fence: Fence {
            slot: format!("{owner}/{}", work.point.name()),
            token: lease.token,
            plan: lease.plan.to_string(),
            table: owner,
            supersedes: Vec::new(),
        },
        aside: None,
        known_columns_only: false,
        columns: None,
        raised: false,
        replayed_is_done: true,
        first: false,
    }
}

/// The columns that the model declares; of a model that reads itself those that its query tells, since
/// its table must be there before the warehouse can tell them.
fn declared(snapshot: &Snapshot) -> Option<Vec<ColumnDef>> {
    let model = &snapshot.model;
    let told = snapshot.columns.clone().filter(|_| snapshot.depends_on_self());
    let columns = model.columns.clone().or(told)?;
    let typed = columns.iter().all(|column| !column.data_type.is_empty());
    typed.then(|| model.kind.table_columns(columns))
}

/// Statements to run after a view was switched.
pub(super) fn virtual_update(
    work: &Promote,
    view: &View,
    snapshot: &Snapshot,
    dialect: Dialect,
) -> Result<Vec<String>, Failure> {
    let model = &*snapshot.model;
    let name = sql_name(&view.view, dialect);
    let time = TimeVars::Batch {
        start: work.execution_time,
        end: work.execution_time,
        execution: work.execution_time,
    };
    let context = RenderContext { this_model: Some(&name), ..context(snapshot, time, Stage::Promoting) };
    let shown: BTreeMap<ModelName, String> =
        work.views.iter().map(|view| (view.model.clone(), sql_name(&view.view, dialect))).collect();
    let mut found = Vec::new();
    for code in &model.on_virtual_update {
        for text in render_statement(code, &context).map_err(|error| permanent(model, &error))? {
            let statement = parse_statement(&text, model.dialect);
            let rewritten = statement.rewrite_tables(&mut |reference| {
                let catalog = snapshot.env.default_catalog.as_deref();
                shown.get(&model_name(reference, model.dialect, catalog)?).cloned()
            });
            found.push(rewritten.map_err(|error| invalid(model, &error))?);
        }
    }
    Ok(found)
}

/// A batch with all that rendering it needs.
struct Scene<'a> {
    task: &'a TableTask,
    snapshot: &'a Snapshot,
    embedded: &'a Embedded,
    dialect: Dialect,
    work: &'a Evaluate,
}

impl Scene<'_> {
    fn model(&self) -> &Model {
        &self.snapshot.model
    }

    fn stage(&self) -> Stage {
        match self.work.mode {
            Mode::Create | Mode::Migrate | Mode::First => Stage::Creating,
            Mode::Write | Mode::Anew => Stage::Evaluating,
            Mode::Audit => Stage::Auditing,
        }
    }

    /// All time variables: for statements and audits.
    fn times(&self) -> TimeVars {
        let interval = self.work.batch.interval;
        // Only making a table happens outside of any interval; its texts show 1970, as while loading.
        let (start, end) = match self.work.mode {
            Mode::Create | Mode::Migrate => (Timestamp(0), Timestamp(0)),
            Mode::First | Mode::Write | Mode::Anew | Mode::Audit => (interval.start, interval.end),
        };
        TimeVars::Batch { start, end, execution: self.task.execution_time }
    }

    fn migration(&self) -> Result<Write, Failure> {
        let model = self.model();
        let migration = match model.kind {
            ModelKind::View { materialized } => Migration::View { materialized },
            _ => Migration::Table {
                policies: Policies::of(model, self.task.allows),
                kept: model.kind.table_columns(Vec::new()),
                later: self.task.allows.later,
            },
        };
        Ok(Write::Migrate { query: self.query(Stage::Creating)?, migration })
    }

    /// Only the table, empty; views and seeds are made as they are.
    fn create(&self) -> Result<Write, Failure> {
        match &self.model().kind {
            ModelKind::View { .. } | ModelKind::Seed(_) => self.write(),
            ModelKind::ScdType2(kind) => self.scd(kind, true),
            _ => Ok(Write::Create { query: self.query(Stage::Creating)? }),
        }
    }

    fn scd(&self, kind: &ScdType2, only_create: bool) -> Result<Write, Failure> {
        let at = self.task.execution_time.to_datetime();
        let text =
            format_time("%Y-%m-%d %H:%M:%S.%f", at).map_err(|error| refuse(error.to_string(), None))?;
        Ok(Write::Scd(Box::new(ScdWrite {
            query: self.query(self.stage())?,
            kind: kind.clone(),
            execution: format!("'{text}'"),
            only_create,
        })))
    }

    fn write(&self) -> Result<Write, Failure> {
        let query = || self.query(self.stage());
        Ok(match &self.model().kind {
            ModelKind::IncrementalByTimeRange(kind) => self.time_range(kind, query()?)?,
            ModelKind::IncrementalByUniqueKey(kind) => Write::UniqueKey {
                query: query()?,
                key: kind.unique_key.clone(),
                matched: kind.when_matched.as_deref().map(merge_names),
                filter: kind.merge_filter.as_deref().map(merge_names),
            },
            ModelKind::IncrementalByPartition(_)
            | ModelKind::IncrementalUnmanaged { insert_overwrite: true, .. } => {
                Write::Partition { query: query()?, key: self.partitions()? }
            }
            ModelKind::IncrementalUnmanaged { insert_overwrite: false, .. } => {
                Write::Append { query: query()? }
            }
            ModelKind::Full => Write::Full { query: query()? },
            ModelKind::View { materialized } => Write::View {
                query: query()?,
                // Aside it is only there for the plan's own batches.
                materialized: *materialized && self.task.aside.is_none(),
            },
            ModelKind::Seed(kind) => Write::Seed {
                columns: seed::columns(self.model()),
                rows: seed::rows(self.model()).map_err(|finding| refuse(finding.message, finding.hint))?,
                batch: kind.batch_size.max(1) as usize,
            },
            ModelKind::ScdType2(kind) => self.scd(kind, false)?,
            kind @ (ModelKind::Managed
            | ModelKind::Custom { .. }
            | ModelKind::Embedded
            | ModelKind::External
            | ModelKind::Audit) => {
                let message = format!("`{}`: kind {} is not run yet", self.model().name, kind.name());
                return Err(refuse(message, Some("leave the model out of the plan for now".to_owned())));
            }
        })
    }

    fn partitions(&self) -> Result<Vec<String>, Failure> {
        let model = self.model();
        let key = model.storage.partitioned_by.clone();
        if key.is_empty() {
            let message = format!("`{}` overwrites partitions but has none", model.name);
            return Err(refuse(message, Some("set `partitioned_by`".to_owned())));
        }
        Ok(key)
    }

    fn time_range(&self, kind: &TimeRange, query: String) -> Result<Write, Failure> {
        let [low, high] = bounds(kind, self.work.batch.interval)?;
        Ok(Write::TimeRange { query, column: kind.time_column.clone(), low, high })
    }

    /// The model's query for the batch, with physical names.
    fn query(&self, stage: Stage) -> Result<String, Failure> {
        let time = self.query_times(self.model());
        self.render_query(self.snapshot, time, stage, 0)
    }

    fn query_times(&self, model: &Model) -> TimeVars {
        if model.kind.only_execution_time() {
            TimeVars::ExecutionOnly { execution: self.task.execution_time }
        } else {
            self.times()
        }
    }

    fn render_query(
        &self,
        snapshot: &Snapshot,
        time: TimeVars,
        stage: Stage,
        depth: usize,
    ) -> Result<String, Failure> {
        let model = &*snapshot.model;
        let code = model.query().ok_or_else(|| refuse(format!("`{}` has no query", model.name), None))?;
        let generic = Dialect::Generic;
        if model.dialect != self.dialect && model.dialect != generic && self.dialect != generic {
            let message = format!(
                "`{}` is written in {}, but this warehouse speaks {}",
                model.name, model.dialect, self.dialect
            );
            let hint = "choose a gateway that speaks the model's dialect; queries are never translated";
            return Err(refuse(message, Some(hint.to_owned())));
        }
        let this = sql_name(&self.task.target, self.dialect);
        let context = RenderContext { this_model: Some(&this), ..context(snapshot, time, stage) };
        let text = render(code, &context).map_err(|error| permanent(model, &error))?;
        let query = Query::parse(&text, model.dialect).map_err(|error| invalid(model, &error))?;
        let mut trouble = None;
        let rewritten = query.rewrite_tables(&mut |reference| {
            let name = model_name(reference, model.dialect, snapshot.env.default_catalog.as_deref())?;
            self.name_of(&name, time, stage, depth).unwrap_or_else(|failure| {
                trouble = Some(failure);
                None
            })
        });
        match trouble {
            Some(failure) => Err(failure),
            None => rewritten.map_err(|error| invalid(model, &error)),
        }
    }

    /// What a model's name becomes; nothing where it stays as it is.
    fn name_of(
        &self,
        name: &ModelName,
        time: TimeVars,
        stage: Stage,
        depth: usize,
    ) -> Result<Option<String>, Failure> {
        if depth > 64 {
            return Err(refuse(format!("`{name}` is embedded in itself"), None));
        }
        if *name == self.snapshot.model.name {
            let own = match self.task.aside.as_ref().map(|aside| &aside.keeps) {
                Some(Keeps::Outside { merged, .. }) => merged,
                Some(Keeps::Nothing | Keeps::Copy) | None => &self.task.target,
            };
            return Ok(Some(sql_name(own, self.dialect)));
        }
        match self.task.bindings.get(name) {
            Some(Binding::Table(relation)) => Ok(Some(sql_name(relation, self.dialect))),
            Some(Binding::Embedded(_)) => match self.embedded.get(name) {
                Some(snapshot) => {
                    let query = self.render_query(snapshot, time, stage, depth + 1)?;
                    Ok(Some(format!("({query}\n)")))
                }
                None => Ok(None),
            },
            None => Ok(None),
        }
    }

    /// Statements around the write; where only audits run there are none.
    fn around(&self, codes: &[Code], this: &str) -> Result<Vec<String>, Failure> {
        if self.work.mode == Mode::Audit { Ok(Vec::new()) } else { self.statements(codes, this) }
    }

    fn statements(&self, codes: &[Code], this: &str) -> Result<Vec<String>, Failure> {
        let context =
            RenderContext { this_model: Some(this), ..context(self.snapshot, self.times(), self.stage()) };
        let mut found = Vec::new();
        for code in codes {
            let texts = render_statement(code, &context).map_err(|error| permanent(self.model(), &error))?;
            for text in texts {
                found.push(self.rewrite(&text)?);
            }
        }
        Ok(found)
    }

    fn rewrite(&self, text: &str) -> Result<String, Failure> {
        let model = self.model();
        let statement = parse_statement(text, model.dialect);
        let rewritten = statement.rewrite_tables(&mut |reference| {
            let name = model_name(reference, model.dialect, self.snapshot.env.default_catalog.as_deref())?;
            self.name_of(&name, self.times(), self.stage(), 0).ok().flatten()
        });
        rewritten.map_err(|error| invalid(model, &error))
    }

    fn audits(&self, target: &str) -> Result<Vec<AuditQuery>, Failure> {
        let model = self.model();
        let mut found = Vec::new();
        for call in &model.audits {
            let own = model.audit_definitions.get(&call.name).cloned();
            let Some(audit) = own.or_else(|| builtin_audit(&call.name)) else { continue };
            if audit.skip {
                continue;
            }
            let audited = self.audited(target)?;
            let context = RenderContext {
                this_model: Some(if audited.is_some() { AUDITED } else { target }),
                ..context(self.snapshot, self.times(), Stage::Auditing)
            };
            let text =
                render_audit(&audit, &call.args, &context).map_err(|error| permanent(model, &error))?;
            found.push(AuditQuery {
                name: audit.name.clone(),
                sql: self.rewrite(&text)?,
                audited,
                blocking: blocking(call, audit.blocking, &self.work.batch.table),
            });
        }
        Ok(found)
    }

    /// What an audit looks at, where it isn't the whole table: for time ranges the batch's rows.
    fn audited(&self, target: &str) -> Result<Option<String>, Failure> {
        let ModelKind::IncrementalByTimeRange(kind) = &self.model().kind else { return Ok(None) };
        let bounds = bounds(kind, self.work.batch.interval)?;
        let column = self.dialect.quote(&kind.time_column);
        let mut columns = self.snapshot.columns.iter().flatten();
        let declared = columns.find(|known| known.name.eq_ignore_ascii_case(&kind.time_column));
        let data_type =
            declared.map(|known| known.data_type.as_str()).filter(|data_type| !data_type.is_empty());
        let within = match data_type {
            Some(data_type) => {
                let [low, high] = bounds.map(|bound| format!("CAST({} AS {data_type})", bound.of(data_type)));
                format!("{column} BETWEEN {low} AND {high}")
            }
            None => within(&column, kind, &bounds),
        };
        Ok(Some(format!("SELECT * FROM {target} WHERE {within}")))
    }
}

/// `blocking := false` on the reference wins over the audit's own word. In a throwaway table, which often
/// holds but a part of the rows, audits warn, as in SQLMesh.
fn blocking(call: &Call, own: bool, table: &TableId) -> bool {
    !table.dev && call.args.get("blocking").map_or(own, |text| !text.trim().eq_ignore_ascii_case("false"))
}

fn context(snapshot: &Snapshot, time: TimeVars, stage: Stage) -> RenderContext<'_> {
    let model = &*snapshot.model;
    RenderContext {
        blueprint: &model.blueprint,
        model_kind_name: model.kind.name(),
        definitions: &model.pre_statements,
        ..RenderContext::new(&snapshot.env, model.dialect, time, stage)
    }
}

/// A relation as SQL.
fn sql_name(relation: &Relation, dialect: Dialect) -> String {
    let parts = relation.catalog.iter().chain([&relation.schema, &relation.table]);
    parts.map(|part| dialect.quote(part)).collect::<Vec<_>>().join(".")
}

fn permanent(model: &Model, error: &coord_common::project::render::RenderError) -> Failure {
    let message = format!("{}:{}:{}: {}", model.location.path, error.line, error.column, error.message);
    refuse(message, error.hint.clone())
}

fn invalid(model: &Model, error: &SqlError) -> Failure {
    refuse(
        format!("the rendered SQL of `{}` can't be read: {}", model.name, error.message),
        error.hint.clone(),
    )
}

pub(super) fn refuse(message: String, hint: Option<String>) -> Failure {
    Failure { class: FailureClass::Permanent, code: None, message, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audits_block_where_they_say_so_but_never_in_a_throwaway_table() {
        let table = |text: &str| -> TableId { text.parse().expect("a table") };
        let kept = table("a.b@000102030405060708090a0b0c0d0e0f");
        let throwaway = table("a.b@000102030405060708090a0b0c0d0e0f+dev");
        let call = |word: Option<&str>| Call {
            name: "not_null".to_owned(),
            args: word.map(|word| ("blocking".to_owned(), word.to_owned())).into_iter().collect(),
        };
        for (word, own, blocks) in [
            (None, true, true),
            (None, false, false),
            (Some("false"), true, false),
            (Some("TRUE"), false, true),
        ] {
            assert_eq!(blocking(&call(word), own, &kept), blocks, "{word:?} {own}");
            assert!(!blocking(&call(word), own, &throwaway), "{word:?} {own}");
        }
    }
}

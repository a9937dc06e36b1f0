//! `audit`: runs audits over ranges that are complete, in the warehouse itself.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;

use coord_common::diagnostic::Diagnostic;
use coord_common::id::{ModelName, Version};
use coord_common::interval::{Interval, TimePoint, Timestamp, parse_time};
use coord_common::project::model::ModelKind;
use coord_common::project::{Settings, suggest_model};
use coord_common::snapshot::{Snapshot, Snapshots};
use coord_common::task::{Allowed, Batch, Binding, Evaluate, Mode, Relation, TableId, TableTask};
use serde::Serialize;
use serde_json::{Value, json};
use worker::engine::Engine;
use worker::execute::audit_counts;

use super::local;
use crate::args::{AuditArgs, Format, TimeArgs};
use crate::error::{CliError, CliResult};
use crate::files::ProjectFiles;
use crate::output::{self, Color, paint};
use crate::session::Session;

/// What one audit came to.
#[derive(Debug, Serialize)]
struct Finding {
    audit: String,
    /// The audited model; of standalone audits their own name.
    model: ModelName,
    /// `pass`, `fail` or `skipped`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bad_rows: Option<u64>,
    /// The query that counts bad rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    sql: Option<String>,
    /// Where the audit is defined; built-in ones are nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
}

/// `coordctl audit`: fails where an audit finds bad rows, whether it blocks or not.
pub(crate) async fn audit(session: &mut Session, args: AuditArgs) -> CliResult<ExitCode> {
    let files = session.files()?;
    let settings = files.settings()?;
    let (snapshots, findings) = local::load(session)?;
    if findings.iter().any(Diagnostic::is_error) {
        return Err(CliError::project(findings));
    }
    let (interval, execution) = times(&args.times)?;
    let nodes = chosen(&args.model, &snapshots)?;
    let known = session.client().await?.list("snapshots", "").await?;
    let scene = Scene { settings: &settings, snapshots: &snapshots, known: &known, interval, execution };
    let engines = engines(&files, &settings, nodes.iter().map(|node| scene.gateway(node)).collect())?;
    let mut found = Vec::new();
    for node in nodes {
        found.extend(scene.run(node, &*engines[&scene.gateway(node)]).await?);
    }
    match session.format() {
        Format::Json => output::json(&json!({ "audits": found }))?,
        Format::Text | Format::Csv => show(&found),
    }
    let failed = found.iter().any(|finding| finding.status == "fail");
    Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn times(args: &TimeArgs) -> CliResult<(Interval, Timestamp)> {
    let now = (Session::clock()?)();
    let point = |text: &Option<String>| {
        let parsed = text.as_deref().map(|text| parse_time(text, now)).transpose();
        parsed.map_err(|error| {
            CliError::user("bad-time", error.to_string(), "write a date, such as 2024-01-31")
        })
    };
    let execution = point(&args.execution_time)?.map_or(now, |point| point.at);
    let start = point(&args.start)?.map_or(Timestamp(0), |point| point.at);
    let end = point(&args.end)?.map_or(execution, TimePoint::exclusive);
    let interval = Interval::new(start, end).ok_or_else(|| {
        CliError::user(
            "times-turned-round",
            format!("the start {start} is not before the end {end}"),
            "give a --start that is before --end",
        )
    })?;
    Ok((interval, execution))
}

/// The nodes to audit, parents first; those that are named, or all that have audits.
fn chosen<'a>(names: &[String], snapshots: &'a Snapshots) -> CliResult<Vec<&'a Arc<Snapshot>>> {
    let mut wanted = BTreeSet::new();
    for name in names {
        let name = super::plan::model(name)?;
        if !snapshots.by_name.contains_key(&name) {
            let near = suggest_model(&name, snapshots.by_name.keys());
            let hint = near.map_or_else(
                || "`coordctl dag` lists the models".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(CliError::user("unknown-model", format!("there is no model `{name}`"), hint));
        }
        wanted.insert(name);
    }
    let all = snapshots.order.iter().filter(|name| wanted.is_empty() || wanted.contains(*name));
    let nodes = all.filter_map(|name| snapshots.by_name.get(name));
    Ok(nodes.filter(|node| !node.model.audits.is_empty()).collect())
}

fn engines(
    files: &ProjectFiles,
    settings: &Settings,
    gateways: BTreeSet<String>,
) -> CliResult<BTreeMap<String, Arc<dyn Engine>>> {
    let names: Vec<String> = gateways.into_iter().collect();
    worker::config::open_engines(settings, &files.folder, &names).map_err(crate::embedded::gateway_error)
}

struct Scene<'a> {
    settings: &'a Settings,
    snapshots: &'a Snapshots,
    /// What the state knows of each snapshot.
    known: &'a Value,
    interval: Interval,
    execution: Timestamp,
}

impl Scene<'_> {
    fn gateway(&self, node: &Snapshot) -> String {
        node.model.gateway.clone().unwrap_or_else(|| self.settings.default_gateway.clone())
    }

    async fn run(&self, node: &Arc<Snapshot>, engine: &dyn Engine) -> CliResult<Vec<Finding>> {
        let model = &node.model;
        let (task, embedded) = self.task(node)?;
        let batch = Batch { table: task.table.clone(), interval: self.interval };
        let work = Evaluate { task: Arc::new(task), batch, mode: Mode::Audit, supersedes: Vec::new() };
        let counts = audit_counts(&work, node, &embedded, engine.dialect()).map_err(|failure| CliError {
            hint: failure.hint.clone(),
            ..CliError::user("audit", failure.message, "")
        })?;
        let mut counts = counts.into_iter();
        let mut found = Vec::new();
        for call in &model.audits {
            let own = model.audit_definitions.get(&call.name);
            let finding = |status, bad_rows, sql| Finding {
                audit: call.name.clone(),
                model: model.name.clone(),
                status,
                bad_rows,
                sql,
                at: own.map(|audit| audit.location.to_string()),
            };
            if own.is_some_and(|audit| audit.skip) {
                found.push(finding("skipped", None, None));
                continue;
            }
            let Some((name, sql)) = counts.next() else { continue };
            let rows = engine.query(&sql).await.map_err(|error| CliError {
                hint: error.hint.clone(),
                ..CliError::user("query-failed", format!("audit `{name}` of `{}`: {error}", model.name), "")
            })?;
            let cell = rows.rows.first().and_then(|row| row.first()?.as_deref()?.parse::<u64>().ok());
            let bad = cell.unwrap_or_default();
            found.push(finding(if bad > 0 { "fail" } else { "pass" }, Some(bad), Some(sql)));
        }
        Ok(found)
    }

    /// What the audits look at, and the EMBEDDED models that are put in place of their names.
    fn task(&self, node: &Arc<Snapshot>) -> CliResult<(TableTask, BTreeMap<ModelName, Arc<Snapshot>>)> {
        let mut bindings = BTreeMap::new();
        let mut embedded = BTreeMap::new();
        let mut open: Vec<&ModelName> = node.parents.iter().collect();
        while let Some(name) = open.pop() {
            let Some(parent) = self.snapshots.by_name.get(name) else { continue };
            match parent.model.kind {
                ModelKind::Embedded => {
                    if embedded.insert(name.clone(), parent.clone()).is_none() {
                        bindings.insert(name.clone(), Binding::Embedded(parent.id));
                        open.extend(&parent.parents);
                    }
                }
                ModelKind::External => {}
                _ => {
                    bindings.insert(name.clone(), Binding::Table(self.table(parent)?));
                }
            }
        }
        let task = TableTask {
            snapshot: node.id,
            table: TableId {
                model: node.name().clone(),
                version: Version(node.id.0),
                dev: false,
                aside: None,
            },
            target: self.table(node)?,
            gateway: self.gateway(node),
            bindings,
            execution_time: self.execution,
            allows: Allowed::default(),
            aside: None,
            round: 0,
        };
        Ok((task, embedded))
    }

    /// The table that production reads, or would; as a plan has made it.
    fn table(&self, node: &Snapshot) -> CliResult<Relation> {
        if matches!(node.model.kind, ModelKind::External) {
            let catalog = node.name().catalog().map(str::to_owned);
            let schema = node.name().schema().unwrap_or_default();
            return Ok(Relation { catalog, ..Relation::new(schema, node.name().table()) });
        }
        let known = &self.known["snapshots"][node.id.to_string()];
        let relation = match node.model.kind.is_audit() {
            // It has none, and nobody reads it.
            true => Some(Relation::new("", "")),
            false => serde_json::from_value(known["table"]["relation"].clone()).ok(),
        };
        relation.ok_or_else(|| {
            let message = match known["dev_table"].is_null() {
                true => format!("`{}` has no table, as its files say it, to audit", node.name()),
                false => format!(
                    "only development environments have a table of `{}`, as its files say it",
                    node.name()
                ),
            };
            CliError::user("not-applied", message, "apply a plan first, which runs its audits, too")
        })
    }
}

fn show(found: &[Finding]) {
    output::line(&format!("Found {} audits.", found.len()));
    let of = |finding: &Finding| match finding.audit == finding.model.as_str() {
        true => finding.audit.clone(),
        false => format!("{} on model {}", finding.audit, finding.model),
    };
    for finding in found {
        let (text, color) = match finding.status {
            "pass" => ("PASS".to_owned(), Color::Green),
            "skipped" => ("SKIPPED".to_owned(), Color::Dim),
            _ => (format!("FAIL [{}]", finding.bad_rows.unwrap_or_default()), Color::Red),
        };
        output::line(&format!("{} {}", of(finding), paint(&text, color)));
    }
    let failed = || found.iter().filter(|finding| finding.status == "fail");
    let skipped = found.iter().filter(|finding| finding.status == "skipped").count();
    output::line(&format!("\n{} failed, {skipped} skipped.", failed().count()));
    for finding in failed() {
        let at = finding.at.as_ref().map(|at| format!(" ({at})")).unwrap_or_default();
        output::line(&format!("\n{}{at}: {} bad rows", of(finding), finding.bad_rows.unwrap_or_default()));
        output::line(finding.sql.as_deref().unwrap_or_default());
    }
}

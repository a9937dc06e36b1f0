//! Commands that read the project and nothing else: `render`, `dag`, `lint`.

use std::collections::{BTreeMap, BTreeSet};

use coord_common::diagnostic::Diagnostic;
use coord_common::id::ModelName;
use coord_common::interval::{Timestamp, parse_time};
use coord_common::plan::{self, Selectors};
use coord_common::project::render::{RenderContext, Stage, TimeVars, render as expand};
use coord_common::project::{self, suggest_model};
use coord_common::snapshot::{self, Snapshot, Snapshots};
use coord_common::sql::{Query, SqlError};
use serde_json::json;

use super::git;
use super::plan::model;
use crate::args::{DagArgs, Format, RenderArgs};
use crate::error::{CliError, CliResult};
use crate::output;
use crate::session::Session;

/// The project's snapshots, with what was found about them.
pub(super) fn load(session: &Session) -> CliResult<(Snapshots, Vec<Diagnostic>)> {
    let files = session.files()?;
    let (project, mut findings) = project::load(&files.input());
    let (snapshots, more) = snapshot::build(&project);
    findings.extend(more);
    Ok((snapshots, findings))
}

/// `coordctl render`.
pub(crate) fn render(session: &Session, args: &RenderArgs) -> CliResult {
    let (snapshots, findings) = load(session)?;
    let Some(wanted) = &args.model else { return render_all(session, &snapshots, &findings, args) };
    let name = model(wanted)?;
    let Some(found) = snapshots.by_name.get(&name) else {
        let errors: Vec<_> = findings.into_iter().filter(Diagnostic::is_error).collect();
        if !errors.is_empty() {
            return Err(CliError::project(errors));
        }
        let near = suggest_model(&name, snapshots.by_name.keys());
        let hint = near.map_or_else(
            || "`coordctl dag` lists the models".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        return Err(CliError::user("unknown-model", format!("there is no model `{name}`"), hint));
    };
    let text = Scene::new(&snapshots, args)?.query(found, 0)?;
    match session.format() {
        Format::Json => output::json(&json!({ "model": name, "sql": text })),
        Format::Text | Format::Csv => {
            output::line(text.trim());
            Ok(())
        }
    }
}

/// Every model that has a query; fails at the end where one doesn't render.
fn render_all(
    session: &Session,
    snapshots: &Snapshots,
    findings: &[Diagnostic],
    args: &RenderArgs,
) -> CliResult {
    let with_query = |snapshot: &&std::sync::Arc<Snapshot>| snapshot.model.query().is_some();
    let all = snapshots.order.iter().filter_map(|name| snapshots.by_name.get(name)).filter(with_query);
    let mut documents = Vec::new();
    let scene = Scene::new(snapshots, args)?;
    let mut errors: Vec<Diagnostic> = findings.iter().filter(|finding| finding.is_error()).cloned().collect();
    for snapshot in all {
        let name = snapshot.name();
        match scene.query(snapshot, 0) {
            Ok(text) if session.format() == Format::Json => {
                documents.push(json!({ "model": name, "sql": text }));
            }
            Ok(text) => output::line(&format!("-- {name}\n{};\n", text.trim())),
            Err(error) => {
                documents.push(json!({ "model": name, "error": error.document() }));
                errors.push(
                    Diagnostic::error(&error.code, snapshot.model.location.clone(), error.message)
                        .hint(error.hint.unwrap_or_default()),
                );
            }
        }
    }
    if session.format() == Format::Json {
        output::json(&json!({ "models": documents }))?;
    }
    if errors.is_empty() { Ok(()) } else { Err(CliError::project(errors)) }
}

/// What queries are rendered with.
struct Scene<'a> {
    snapshots: &'a Snapshots,
    args: &'a RenderArgs,
    /// Models whose queries stand in their names' place; absent: all that have one.
    expanded: Option<BTreeSet<ModelName>>,
}

impl<'a> Scene<'a> {
    fn new(snapshots: &'a Snapshots, args: &'a RenderArgs) -> CliResult<Self> {
        let all = args.expand.iter().any(|name| name.eq_ignore_ascii_case("true"));
        let none = |name: &&String| !name.eq_ignore_ascii_case("false");
        let expanded = match all {
            true => None,
            false => Some(args.expand.iter().filter(none).map(|name| model(name)).collect::<CliResult<_>>()?),
        };
        Ok(Self { snapshots, args, expanded })
    }

    /// A model's query for the batch that the arguments name, with what it reads put in where that was
    /// asked for.
    fn query(&self, found: &Snapshot, depth: usize) -> CliResult<String> {
        let text = render_one(found, self.args)?;
        if self.expanded.as_ref().is_some_and(BTreeSet::is_empty) || depth > 64 {
            return Ok(text);
        }
        let dialect = found.model.dialect;
        let invalid = |error: &SqlError| {
            CliError::user("invalid-sql", format!("{}: {error}", found.model.location.path), "mend the query")
        };
        let query = Query::parse(&text, dialect).map_err(|error| invalid(&error))?;
        let mut trouble = None;
        let rewritten = query.rewrite_tables(&mut |reference| {
            let name = snapshot::model_name(reference, dialect, found.env.default_catalog.as_deref())?;
            let wanted =
                name != *found.name() && self.expanded.as_ref().is_none_or(|all| all.contains(&name));
            let below = self.snapshots.by_name.get(&name).filter(|_| wanted)?;
            below.model.query()?;
            match self.query(below, depth + 1) {
                Ok(text) => Some(format!("({}\n)", text.trim())),
                Err(error) => {
                    trouble.get_or_insert(error);
                    None
                }
            }
        });
        match trouble {
            Some(error) => Err(error),
            None => rewritten.map_err(|error| invalid(&error)),
        }
    }
}

/// A model's query for the batch that the arguments name.
fn render_one(found: &Snapshot, args: &RenderArgs) -> CliResult<String> {
    let now = (Session::clock()?)();
    let point = |text: &Option<String>, default: Timestamp, end: bool| -> CliResult<Timestamp> {
        let Some(text) = text else { return Ok(default) };
        let point = parse_time(text, now).map_err(|error| {
            CliError::user("bad-time", error.to_string(), "write a date, such as 2024-01-31")
        })?;
        Ok(if end { point.exclusive() } else { point.at })
    };
    let execution = point(&args.times.execution_time, now, false)?;
    let unit = found.interval_unit();
    let start = point(&args.times.start, unit.prev(unit.floor(execution)), false)?;
    let end = point(&args.times.end, unit.next(start), true)?;
    if start >= end {
        return Err(CliError::user(
            "times-turned-round",
            format!("the start {start} is not before the end {end}"),
            "give a --start that is before --end",
        ));
    }
    let Some(code) = found.model.query() else {
        return Err(CliError::user(
            "no-query",
            format!("`{}` is a {} model: it has no query", found.name(), found.model.kind.name()),
            "render a model with a query",
        ));
    };
    let time = if found.model.kind.only_execution_time() {
        TimeVars::ExecutionOnly { execution }
    } else {
        TimeVars::Batch { start, end, execution }
    };
    let this = snapshot::own_name(&found.model);
    let context = RenderContext {
        this_model: Some(&this),
        blueprint: &found.model.blueprint,
        model_kind_name: found.model.kind.name(),
        definitions: &found.model.pre_statements,
        ..RenderContext::new(&found.env, found.model.dialect, time, Stage::Evaluating)
    };
    // As SQLMesh, the text of a project whose columns aren't all known can be shown.
    let rendered = expand(code, &context).or_else(|error| match error.code {
        "unknown-columns" => expand(code, &RenderContext { stage: Stage::Loading, ..context }),
        _ => Err(error),
    });
    rendered.map_err(|error| {
        CliError::user(
            error.code,
            format!("{}:{error}", found.model.location.path),
            error.hint.unwrap_or_default(),
        )
    })
}

/// `coordctl dag`.
pub(crate) fn dag(session: &Session, args: &DagArgs) -> CliResult {
    let (mut snapshots, findings) = load(session)?;
    output::findings(&findings, session.format());
    if !args.select_model.is_empty() {
        let folder = session.files()?.folder.clone();
        let selectors = Selectors { select: args.select_model.clone(), ..Selectors::default() };
        let changed = git::changed_files(&selectors, &folder)?;
        let chosen = plan::select_all(&selectors.select, &snapshots.by_name, &changed)?;
        snapshots.by_name.retain(|name, _| chosen.contains(name));
        snapshots.order.retain(|name| chosen.contains(name));
    }
    let known = |parent: &&ModelName| args.select_model.is_empty() || snapshots.by_name.contains_key(*parent);
    let edges: BTreeMap<String, Vec<String>> = snapshots
        .by_name
        .iter()
        .map(|(name, snapshot)| {
            (name.to_string(), snapshot.upstream().filter(known).map(ToString::to_string).collect())
        })
        .collect();
    if let Some(file) = &args.file {
        std::fs::write(file, dot(&edges))?;
        output::line(&format!("wrote {}", file.display()));
        return Ok(());
    }
    if session.format() == Format::Json {
        let models: Vec<_> = snapshots
            .order
            .iter()
            .filter_map(|name| snapshots.by_name.get(name))
            .map(|snapshot| {
                let parents: Vec<_> = snapshot.upstream().filter(known).collect();
                let depends_on: Vec<_> = snapshot.upstream().chain(&snapshot.foreign).collect();
                json!({
                    "model": snapshot.name(),
                    "kind": snapshot.model.kind.name(),
                    "upstream": parents,
                    "depends_on": depends_on,
                    "catalog": snapshot.env.default_catalog,
                })
            })
            .collect();
        return output::json(&json!({ "models": models }));
    }
    for name in &snapshots.order {
        let upstream = edges.get(name.as_str()).map(|parents| parents.join(", ")).unwrap_or_default();
        output::line(&if upstream.is_empty() { name.to_string() } else { format!("{name} <- {upstream}") });
    }
    Ok(())
}

fn dot(edges: &BTreeMap<String, Vec<String>>) -> String {
    let mut text = "digraph models {\n  rankdir=LR;\n".to_owned();
    for (name, parents) in edges {
        text += &format!("  {name:?};\n");
        for parent in parents {
            text += &format!("  {parent:?} -> {name:?};\n");
        }
    }
    text + "}\n"
}

/// `coordctl lint`: everything that is wrong or doubtful, without a plan.
pub(crate) fn lint(session: &Session) -> CliResult {
    let (snapshots, mut findings) = load(session)?;
    findings.extend(super::test::mistakes(session)?);
    if session.format() == Format::Json {
        output::json(&json!({ "models": snapshots.order.len(), "findings": findings }))?;
    } else {
        output::findings(&findings, session.format());
    }
    if findings.iter().any(Diagnostic::is_error) {
        return Err(CliError { findings: Vec::new(), ..CliError::project(findings) });
    }
    if session.format() != Format::Json {
        let audits = snapshots.by_name.values().filter(|node| node.model.kind.is_audit()).count();
        let beside = if audits > 0 { format!(" and {audits} standalone audits") } else { String::new() };
        output::line(&format!("{} models{beside}, no errors.", snapshots.order.len() - audits));
    }
    Ok(())
}

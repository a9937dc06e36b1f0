//! Commands that show: environments, plans, intervals, explanations, status, health.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::plan::environment;
use super::{driver, fetch};
use crate::args::{ExplainArgs, Format, InfoArgs, TableNameArgs};
use crate::error::{CliError, CliResult};
use crate::output;
use crate::session::Session;

/// Prints a document, or its rows as a table.
pub(super) fn show(session: &Session, document: &Value, rows: &str, columns: &[(&str, &str)]) -> CliResult {
    if session.format() == Format::Json {
        return output::json(document);
    }
    let cell = |row: &Value, key: &str| match &row[key] {
        Value::Null => Some(String::new()),
        Value::String(id) if key.ends_with("plan_id") && session.format() == Format::Text => {
            Some(output::short(id).to_owned())
        }
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let header: Vec<String> = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let lines: Vec<Vec<Option<String>>> = document[rows]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| columns.iter().map(|(_, key)| cell(row, key)).collect())
        .collect();
    match session.format() {
        Format::Csv => output::csv(&header, &lines)?,
        Format::Text | Format::Json => output::table(&header, &lines),
    }
    Ok(())
}

/// `coordctl environments`.
pub(crate) async fn environments(session: &mut Session) -> CliResult {
    let mut document = session.client().await?.list("environments", "").await?;
    if session.format() != Format::Json {
        for row in document["environments"].as_array_mut().into_iter().flatten() {
            let plans = row["restating"].as_array().into_iter().flatten();
            let text = |plan: &Value| plan["plan_id"].as_str().map(|id| output::short(id).to_owned());
            row["restating"] = plans.filter_map(text).collect::<Vec<_>>().join(" ").into();
        }
    }
    let columns = [
        ("environment", "name"),
        ("revision", "revision"),
        ("models", "models"),
        ("views", "views"),
        ("end", "end"),
        ("expires", "expires"),
        ("plan", "plan_id"),
        ("restating", "restating"),
    ];
    show(session, &document, "environments", &columns)
}

/// `coordctl promotions`.
pub(crate) async fn promotions(session: &mut Session, given: Option<&str>) -> CliResult {
    let name = given.map(|given| environment(Some(given), &coord_common::project::Settings::default()));
    let name = name.transpose()?.map(|name| name.to_string()).unwrap_or_default();
    let document = session.client().await?.list("promotions", &name).await?;
    let columns = [
        ("environment", "environment"),
        ("revision", "revision"),
        ("at", "at"),
        ("by", "by"),
        ("plan", "plan_id"),
        ("from", "from_plan_id"),
        ("rollback", "rollback"),
        ("shown", "shown"),
    ];
    show(session, &document, "promotions", &columns)
}

/// `coordctl plans`.
pub(crate) async fn plans(session: &mut Session) -> CliResult {
    let document = session.client().await?.list("plans", "").await?;
    let columns = [
        ("plan", "plan_id"),
        ("environment", "environment"),
        ("state", "state"),
        ("created", "created"),
        ("failures", "failures"),
    ];
    show(session, &document, "plans", &columns)
}

/// Ranges of a document in one line.
pub(super) fn ranges(value: &Value) -> String {
    let range = |range: &Value| {
        let text =
            |key: &str| range[key].as_str().unwrap_or_default().trim_end_matches("T00:00:00Z").to_owned();
        format!("[{} - {})", text("start"), text("end"))
    };
    value.as_array().into_iter().flatten().map(range).collect::<Vec<_>>().join(" ")
}

/// `coordctl intervals`.
pub(crate) async fn intervals(session: &mut Session, given: Option<String>) -> CliResult {
    let name = match &given {
        Some(_) => environment(given.as_deref(), &coord_common::project::Settings::default())?,
        None => environment(None, &session.files()?.settings()?)?,
    };
    let document = session.client().await?.list("intervals", name.as_str()).await?;
    if session.format() == Format::Json {
        return output::json(&document);
    }
    let rows: Vec<Vec<Option<String>>> = document["models"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|model| {
            let text = |key: &str| model[key].as_str().unwrap_or_default().to_owned();
            vec![
                Some(text("model")),
                Some(text("kind")),
                Some(ranges(&model["complete"])),
                Some(ranges(&model["missing"])),
            ]
        })
        .collect();
    let header = ["model", "kind", "complete", "missing"].map(str::to_owned);
    match session.format() {
        Format::Csv => output::csv(&header, &rows)?,
        Format::Text | Format::Json => output::table(&header, &rows),
    }
    Ok(())
}

/// `coordctl table_name`.
pub(crate) async fn table_name(session: &mut Session, args: TableNameArgs) -> CliResult {
    let name = match &args.environment {
        Some(_) => environment(args.environment.as_deref(), &coord_common::project::Settings::default())?,
        None => environment(None, &session.files()?.settings()?)?,
    };
    let model = super::plan::model(&args.model)?;
    let document = session.client().await?.list("state", "").await?;
    let shown = document["environments"].get(name.as_str());
    let shown = shown.ok_or_else(|| CliError::unknown_environment(&name))?;
    let key = if args.prod { "prod_relation" } else { "relation" };
    let table = shown["models"][model.as_str()][key].as_str().ok_or_else(|| {
        let message = format!("`{name}` has no model `{model}` with a table");
        CliError::user("unknown-model", message, "`coordctl dag` lists the models")
    })?;
    if session.format() == Format::Json {
        return output::json(&json!({ "environment": name, "model": model, "table": table }));
    }
    output::line(table);
    Ok(())
}

/// `coordctl explain`.
pub(crate) async fn explain(session: &mut Session, args: ExplainArgs) -> CliResult {
    let name = match (&args.environment, &args.plan) {
        (Some(name), _) => name.clone(),
        (None, Some(_)) => String::new(),
        (None, None) => session.files()?.settings()?.default_target_environment,
    };
    let (model, plan) = (args.model.unwrap_or_default(), args.plan.unwrap_or_default());
    let document = session.client().await?.explain(&name, &model, &plan).await?;
    if session.format() == Format::Json {
        return output::json(&document);
    }
    for model in document["models"].as_array().into_iter().flatten() {
        let text = |key: &str| model[key].as_str().unwrap_or_default().to_owned();
        output::line(&format!("{} ({})", text("model"), text("kind")));
        if !text("backfill").is_empty() {
            output::line(&format!("  backfill: {}", text("backfill")));
        }
        for edge in model["edges"].as_array().into_iter().flatten() {
            output::line(&format!(
                "  reads {}: {}",
                edge["upstream"].as_str().unwrap_or_default(),
                edge["reads"].as_str().unwrap_or_default()
            ));
        }
        for reason in model["waits"].as_array().into_iter().flatten() {
            output::line(&format!("  waits: {}", reason.as_str().unwrap_or_default()));
        }
    }
    Ok(())
}

/// `coordctl status`.
pub(crate) async fn status(session: &mut Session) -> CliResult {
    let mut client = session.client().await?;
    let plans = client.list("plans", "").await?;
    let workers = client.list("workers", "").await?;
    let running: Vec<Value> = plans["plans"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|plan| {
            matches!(
                plan["state"].as_str(),
                Some("applying" | "publishing" | "promoting" | "cancelling" | "failed")
            )
        })
        .cloned()
        .collect();
    let document = json!({ "plans": running, "workers": workers["workers"] });
    if session.format() == Format::Json {
        return output::json(&document);
    }
    let columns =
        [("plan", "plan_id"), ("environment", "environment"), ("state", "state"), ("failures", "failures")];
    show(session, &document, "plans", &columns)?;
    output::line("");
    let columns = [
        ("worker", "worker"),
        ("slots", "slots"),
        ("held", "held"),
        ("draining", "draining"),
        ("seen", "seen_seconds_ago"),
    ];
    show(session, &document, "workers", &columns)
}

/// `coordctl info`.
pub(crate) async fn info(session: &mut Session, args: &InfoArgs) -> CliResult {
    let files = session.files()?;
    let settings = files.settings()?;
    let (project, findings) = coord_common::project::load(&files.input());
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let mut document = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "project": files.folder,
        "models": project.models.len(),
        "errors": errors,
        "gateway": settings.default_gateway,
    });
    let reply = session.client().await?.info().await?;
    document["state"] = json!(reply.state);
    document["workers"] = json!(reply.workers);
    if !session.is_embedded() {
        document["you_are"] = json!(reply.identity);
        document["roles"] = json!(reply.roles);
    }
    if !args.skip_connection {
        document["warehouse"] = match fetch::engine(&files, &settings) {
            Ok(engine) => match engine.ping().await {
                Ok(version) => json!(version),
                Err(error) => json!(format!("not reachable: {error}")),
            },
            Err(error) => json!(format!("not reachable: {}", error.message)),
        };
    }
    if session.format() == Format::Json {
        return output::json(&document);
    }
    for (key, value) in document.as_object().into_iter().flatten() {
        output::line(&format!("{key}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
    }
    Ok(())
}

/// `coordctl doctor`.
pub(crate) async fn doctor(session: &mut Session) -> CliResult<ExitCode> {
    let mut checks: Vec<(&str, bool, String)> = Vec::new();
    let duckdb = driver::duckdb_is_here();
    checks.push((
        "duckdb driver",
        duckdb,
        if duckdb { "found".to_owned() } else { "missing: coordctl driver add duckdb".to_owned() },
    ));
    match session.files() {
        Ok(files) => {
            let (project, findings) = coord_common::project::load(&files.input());
            let errors = findings.iter().filter(|finding| finding.is_error()).count();
            checks.push((
                "project",
                errors == 0,
                format!(
                    "{}, {} in {}",
                    output::count(project.models.len(), "model"),
                    output::count(errors, "error"),
                    files.folder.display()
                ),
            ));
            let warehouse = match files.settings().and_then(|settings| fetch::engine(&files, &settings)) {
                Ok(engine) => engine.ping().await.map_err(|error| error.to_string()),
                Err(error) => Err(error.message),
            };
            checks.push(("warehouse", warehouse.is_ok(), warehouse.unwrap_or_else(|error| error)));
            let state = match session.client().await {
                Ok(mut client) => client.info().await.map(|reply| reply.state).map_err(|error| error.message),
                Err(error) => Err(error.message),
            };
            checks.push(("state", state.is_ok(), state.unwrap_or_else(|error| error)));
        }
        Err(error) => checks.push(("project", false, error.message)),
    }
    if session.format() == Format::Json {
        let rows: Vec<_> =
            checks.iter().map(|(name, ok, note)| json!({ "check": name, "ok": ok, "note": note })).collect();
        output::json(&json!({ "checks": rows }))?;
    } else {
        for (name, ok, note) in &checks {
            output::line(&format!("{} {name}: {note}", if *ok { "ok  " } else { "FAIL" }));
        }
    }
    Ok(if checks.iter().all(|(_, ok, _)| *ok) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

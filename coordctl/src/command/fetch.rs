//! Commands that ask the warehouse itself, with the project's own credentials: `fetch`, `state`.

use std::collections::BTreeSet;
use std::sync::Arc;

use coord_common::project::Settings;
use coord_common::sql::Dialect;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use worker::engine::{Engine, Rows};

use crate::args::{Format, StateArgs};
use crate::embedded::gateway_error;
use crate::error::{CliError, CliResult};
use crate::files::ProjectFiles;
use crate::output;
use crate::session::Session;

/// Opens the default gateway's warehouse.
pub(super) fn engine(files: &ProjectFiles, settings: &Settings) -> CliResult<Arc<dyn Engine>> {
    let name = settings.default_gateway.clone();
    let mut engines = worker::config::open_engines(settings, &files.folder, std::slice::from_ref(&name))
        .map_err(gateway_error)?;
    engines.remove(&name).ok_or_else(|| {
        CliError::user("gateway", format!("the project has no gateway `{name}`"), "name one in config.yaml")
    })
}

/// `coordctl fetch`.
pub(crate) async fn fetch(session: &Session, sql: &str) -> CliResult {
    let files = session.files()?;
    let engine = engine(&files, &files.settings()?)?;
    let rows = query(&*engine, sql).await?;
    match session.format() {
        Format::Text => output::table(&rows.columns, &rows.rows),
        Format::Csv => output::csv(&rows.columns, &rows.rows)?,
        Format::Json => {
            let object = |row: &Vec<Option<String>>| -> Value {
                rows.columns
                    .iter()
                    .cloned()
                    .zip(row.iter().map(|cell| json!(cell)))
                    .collect::<Map<_, _>>()
                    .into()
            };
            output::json(&rows.rows.iter().map(object).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

async fn query(engine: &dyn Engine, sql: &str) -> CliResult<Rows> {
    engine.query(sql).await.map_err(|error| CliError {
        hint: error.hint.clone(),
        ..CliError::user("query-failed", error.to_string(), "")
    })
}

/// `coordctl state`: what is recorded, and what the views hold.
pub(crate) async fn state(session: &mut Session, args: &StateArgs) -> CliResult {
    let mut document = session.client().await?.list("state", "").await?;
    if !args.no_contents && session.is_embedded() {
        let files = session.files()?;
        let settings = files.settings()?;
        let mut contents = Map::new();
        let environments = document["environments"].as_object().cloned().unwrap_or_default();
        let gateway =
            |model: &Value| model["gateway"].as_str().unwrap_or(&settings.default_gateway).to_owned();
        let shown = environments.values().flat_map(|shown| shown["models"].as_object()).flatten();
        let needed: BTreeSet<String> = shown.map(|(_, model)| gateway(model)).collect();
        let engines =
            worker::config::open_engines(&settings, &files.folder, &needed.into_iter().collect::<Vec<_>>())
                .map_err(gateway_error)?;
        for (environment, shown) in &environments {
            let mut models = Map::new();
            for (model, shown) in shown["models"].as_object().into_iter().flatten() {
                let Some(view) = shown.get("view").and_then(Value::as_str) else { continue };
                if let Some(engine) = engines.get(&gateway(shown)) {
                    models.insert(model.clone(), content(&**engine, view).await);
                }
            }
            contents.insert(environment.clone(), Value::Object(models));
        }
        document["contents"] = Value::Object(contents);
    }
    output::json(&document)
}

/// Columns, row count and a checksum that doesn't depend on the rows' order.
async fn content(engine: &dyn Engine, view: &str) -> Value {
    let dialect = engine.dialect();
    let name = view.split('.').map(|part| dialect.quote(part)).collect::<Vec<_>>().join(".");
    let Ok(head) = engine.query(&format!("SELECT * FROM {name} LIMIT 0")).await else {
        return json!({ "unreadable": true });
    };
    let cast = |column: &String| {
        let text = if dialect == Dialect::Postgres { "TEXT" } else { "VARCHAR" };
        format!("CAST({} AS {text})", dialect.quote(column))
    };
    let list: Vec<String> = head.columns.iter().map(cast).collect();
    let Ok(rows) = engine.query(&format!("SELECT {} FROM {name}", list.join(", "))).await else {
        return json!({ "unreadable": true });
    };
    let cell = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "\\N".to_owned());
    let mut lines: Vec<String> =
        rows.rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join("\u{1f}")).collect();
    lines.sort_unstable();
    let hash = Sha256::digest(lines.join("\n").as_bytes());
    let hex: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    json!({ "columns": head.columns, "rows": lines.len(), "checksum": hex })
}

//! `check_intervals`: what is missing, and what of it signals hold for ready.

use coord_common::plan::PlanOptions;
use serde_json::Value;

use super::inspect::ranges;
use super::{git, plan};
use crate::args::{CheckIntervalsArgs, Format};
use crate::client::PlanUpload;
use crate::error::CliResult;
use crate::output;
use crate::session::Session;

/// `coordctl check_intervals`.
pub(crate) async fn check_intervals(session: &mut Session, args: CheckIntervalsArgs) -> CliResult {
    let files = session.files()?;
    let settings = files.settings()?;
    let mut options = PlanOptions::new(plan::environment(args.environment.as_deref(), &settings)?);
    options.start = args.start;
    options.end = args.end;
    options.run = true;
    options.selectors.select = args.select_model;
    options.no_auto_upstream = true;
    options.selectors.changed_files = git::changed_files(&options.selectors, &files.folder)?;
    let upload = PlanUpload {
        options,
        files: files.config_for_upload()?,
        env: files.named_variables(),
        gateway: session.global.gateway.clone(),
        run: true,
    };
    let mut client = session.client().await?;
    let mut document = client.check_intervals(upload.clone(), false).await?;
    let gated = |model: &Value| model["signals"].as_array().is_some_and(|signals| !signals.is_empty());
    if !args.no_signals && models(&document).any(gated) {
        let gateways = document["gateways"].as_array().into_iter().flatten();
        let needed: Vec<String> = gateways.filter_map(|name| Some(name.as_str()?.to_owned())).collect();
        session.start_worker(&settings, files.folder.clone(), &needed)?;
        document = client.check_intervals(upload, true).await?;
    }
    show(session.format(), &document)
}

fn models(document: &Value) -> impl Iterator<Item = &Value> {
    document["models"].as_array().into_iter().flatten()
}

fn show(format: Format, document: &Value) -> CliResult {
    let row = |model: &Value| {
        let name = model["model"].as_str().unwrap_or_default().to_owned();
        vec![Some(name), Some(ranges(&model["missing"])), Some(ranges(&model["not_ready"]))]
    };
    let rows: Vec<Vec<Option<String>>> = models(document).map(row).collect();
    let header = ["model", "missing", "not ready"].map(str::to_owned);
    match format {
        Format::Json => output::json(document)?,
        Format::Csv => output::csv(&header, &rows)?,
        Format::Text if rows.is_empty() => output::line("Nothing is missing."),
        Format::Text => output::table(&header, &rows),
    }
    Ok(())
}

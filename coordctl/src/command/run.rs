//! `run` and `check_intervals`: what is due in an environment, of the models that it has. Files say
//! nothing about it.

use std::process::ExitCode;
use std::time::Duration;

use coord_common::id::EnvironmentName;
use coord_common::plan::PlanOptions;
use coord_common::project::Settings;
use serde_json::Value;

use super::inspect::ranges;
use super::plan::{environment, finish};
use super::{apply, git, tend};
use crate::args::{CheckIntervalsArgs, Format, RunArgs, TimeArgs};
use crate::client::{PlanAnswer, PlanUpload};
use crate::error::CliResult;
use crate::files::ProjectFiles;
use crate::output;
use crate::session::Session;

/// `coordctl run`.
pub(crate) async fn run(session: &mut Session, args: RunArgs) -> CliResult<ExitCode> {
    let files = session.files()?;
    let settings = files.settings()?;
    let environment = environment(args.environment.as_deref(), &settings)?;
    if environment.is_prod() && !args.skip_janitor {
        tend::tidy_up(session).await;
    }
    let mut options = run_options(environment, args.times, args.select_model, &files)?;
    options.ignore_cron = args.ignore_cron;
    options.no_auto_upstream = args.no_auto_upstream;
    let upload = upload(session, &files, options)?;
    let patience = &settings.run;
    let mut waited = 0;
    loop {
        let error = match run_once(session, &files, &settings, &upload).await {
            Err(error) if error.code == MOVED || error.code == BEING_MOVED => error,
            ended => return ended,
        };
        if let Some(code) = args.exit_on_env_update.filter(|code| *code != 0) {
            output::error(&error);
            return Ok(ExitCode::from(code));
        }
        // Embedded, nobody else could end what is in the way.
        if session.is_embedded() || waited >= patience.environment_check_max_wait {
            return Err(error);
        }
        let environment = &upload.options.environment;
        output::error_line(&format!("`{environment}` is updated by a plan; the run waits, and starts anew"));
        let pause = if error.code == MOVED { 1 } else { patience.environment_check_interval.max(1) };
        waited += pause;
        tokio::time::sleep(Duration::from_secs(pause.into())).await;
    }
}

/// Codes of refusals: another plan has moved the environment since, or is about to.
const MOVED: &str = "stale-plan";
const BEING_MOVED: &str = "environment-busy";

async fn run_once(
    session: &mut Session,
    files: &ProjectFiles,
    settings: &Settings,
    upload: &PlanUpload,
) -> CliResult<ExitCode> {
    let mut client = session.client().await?;
    let mut answer = client.plan(upload.clone()).await?;
    if !answer.unfinished.is_empty() {
        complete_restatements(session, settings, files, &answer).await?;
        answer = client.plan(upload.clone()).await?;
    }
    if answer.plan.is_empty() {
        if session.format() == Format::Text {
            output::line("Nothing to do: no interval is due.");
        }
        return finish(session, &answer);
    }
    apply::carry_out(session, settings, files.folder.clone(), &answer.plan).await
}

/// Brings restatements to their end that were begun and interrupted: a run leaves nothing half done.
async fn complete_restatements(
    session: &mut Session,
    settings: &Settings,
    files: &ProjectFiles,
    answer: &PlanAnswer,
) -> CliResult {
    let environment = &answer.plan.environment;
    for id in &answer.unfinished {
        let id = id.to_string();
        let short = output::short(&id);
        output::error_line(&format!("Completing the restatement {short} of `{environment}` first."));
        let plan = session.client().await?.show_plan(&id).await?;
        apply::bring_to_an_end(session, settings, files.folder.clone(), &plan).await?;
    }
    Ok(())
}

fn run_options(
    environment: EnvironmentName,
    times: TimeArgs,
    select: Vec<String>,
    files: &ProjectFiles,
) -> CliResult<PlanOptions> {
    let mut options = PlanOptions::new(environment);
    options.start = times.start;
    options.end = times.end;
    options.execution_time = times.execution_time;
    options.run = true;
    options.selectors.select = select;
    options.selectors.changed_files = git::changed_files(&options.selectors, &files.folder)?;
    Ok(options)
}

fn upload(session: &Session, files: &ProjectFiles, options: PlanOptions) -> CliResult<PlanUpload> {
    Ok(PlanUpload {
        options,
        files: files.config_for_upload()?,
        env: files.named_variables(),
        gateway: session.global.gateway.clone(),
        run: true,
    })
}

/// `coordctl check_intervals`.
pub(crate) async fn check_intervals(session: &mut Session, args: CheckIntervalsArgs) -> CliResult {
    let files = session.files()?;
    let settings = files.settings()?;
    let environment = environment(args.environment.as_deref(), &settings)?;
    let mut options = run_options(environment, args.times, args.select_model, &files)?;
    options.no_auto_upstream = true;
    let upload = upload(session, &files, options)?;
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

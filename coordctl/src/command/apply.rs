//! `apply`, `watch` and `cancel`: start or resume a plan, and follow it to its end.

use std::path::PathBuf;
use std::process::ExitCode;

use coord_common::plan::{AuditWarning, Executed, Plan, Purpose, document};
use coord_common::project::Settings;
use coordinator::control::{ExecutedBatch, PlanView};

use crate::args::{ApplyArgs, Format};
use crate::client::Client;
use crate::error::{CliError, CliResult, Fault};
use crate::output::{self, Progress};
use crate::session::Session;

/// `coordctl apply`.
pub(crate) async fn apply(session: &mut Session, args: ApplyArgs) -> CliResult<ExitCode> {
    let mut client = session.client().await?;
    let plan = client.show_plan(&args.plan).await?;
    if args.detach {
        let state = client.apply(&plan.id.to_string(), who()).await?;
        output::line(&format!(
            "{state}; follow it with: coordctl watch {}",
            output::short(&plan.id.to_string())
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let files = session.files()?;
    let settings = files.settings()?;
    carry_out(session, &settings, files.folder.clone(), &plan).await
}

/// Applies a stored plan and follows it.
pub(super) async fn carry_out(
    session: &mut Session,
    settings: &Settings,
    folder: PathBuf,
    plan: &Plan,
) -> CliResult<ExitCode> {
    let mut client = session.client().await?;
    let id = plan.id.to_string();
    let needed: Vec<String> = plan.gateways().into_iter().collect();
    session.start_worker(settings, folder, &needed)?;
    let state = client.apply(&id, who()).await?;
    if session.format() == Format::Text {
        match state.as_str() {
            "finished" => {
                output::line("This plan is finished already; there is nothing to do.");
                return Ok(ExitCode::SUCCESS);
            }
            "resumed" => output::line("Resuming: what is committed is not computed again."),
            "running" => output::line("This plan is being applied already; following it."),
            _ => {}
        }
    }
    follow(session, &mut client, plan).await
}

/// The same for a plan that must end before what was asked for can begin; prints no document.
pub(super) async fn bring_to_an_end(
    session: &mut Session,
    settings: &Settings,
    folder: PathBuf,
    plan: &Plan,
) -> CliResult {
    let mut client = session.client().await?;
    let id = plan.id.to_string();
    let needed: Vec<String> = plan.gateways().into_iter().collect();
    session.start_worker(settings, folder, &needed)?;
    client.apply(&id, who()).await?;
    let mut progress = Progress::new(session.format());
    let watch = client.watch(&id, |view| progress.see(view));
    let view = tokio::select! {
        view = watch => view?,
        _ = tokio::signal::ctrl_c() => return Err(interrupted(session, &id)),
    };
    progress.done(&view);
    if view.state == "finished" { Ok(()) } else { Err(failed(plan, &view)) }
}

/// `coordctl watch`.
pub(crate) async fn watch(session: &mut Session, plan: &str) -> CliResult<ExitCode> {
    let mut client = session.client().await?;
    let plan = client.show_plan(plan).await?;
    follow(session, &mut client, &plan).await
}

/// `coordctl cancel`.
pub(crate) async fn cancel(session: &mut Session, plan: &str) -> CliResult {
    let state = session.client().await?.cancel(plan, who()).await?;
    output::line(&state);
    Ok(())
}

/// `coordctl approve`.
pub(crate) async fn approve(session: &mut Session, plan: &str) -> CliResult {
    let (environment, needed) = session.client().await?.approve(plan, who()).await?;
    output::line(&match needed {
        true => format!("Approved: the plan may be applied to `{environment}`."),
        false => format!("Approved; `{environment}` isn't protected and would not have asked for it."),
    });
    Ok(())
}

async fn follow(session: &Session, client: &mut Client, plan: &Plan) -> CliResult<ExitCode> {
    let mut executed: Vec<ExecutedBatch> = Vec::new();
    let mut progress = Progress::new(session.format());
    let id = plan.id.to_string();
    let watch = client.watch(&id, |view| {
        progress.see(view);
        executed.extend(view.executed.iter().cloned());
    });
    let view = tokio::select! {
        view = watch => view?,
        _ = tokio::signal::ctrl_c() => return Err(interrupted(session, &id)),
    };
    progress.done(&view);
    if session.format() == Format::Json {
        let warnings = executed.iter().flat_map(warnings).collect();
        output::json(&document(plan, Some(executed.iter().map(row).collect())).with_warnings(warnings))?;
    }
    match view.state.as_str() {
        "finished" => {
            if session.format() == Format::Text {
                output::summary(plan, &executed);
            }
            Ok(ExitCode::SUCCESS)
        }
        "cancelled" => Err(CliError::user("cancelled", "the plan was cancelled", "apply it again to resume")),
        "abandoned" => Err(CliError::user("abandoned", "the plan was given up for good", "make a new one")),
        "planned" => Err(not_applied(&id)),
        _ => Err(failed(plan, &view)),
    }
}

/// There is nothing to follow yet.
fn not_applied(plan: &str) -> CliError {
    let plan = output::short(plan);
    CliError::user(
        "not-applied",
        format!("nobody has applied plan {plan}"),
        format!("apply it with `coordctl apply {plan}`, which follows it too"),
    )
}

/// What an interrupt leaves: embedded, nothing runs on; on a fleet, all does.
fn interrupted(session: &Session, plan: &str) -> CliError {
    let plan = output::short(plan);
    let (message, hint) = if !session.is_embedded() {
        (
            "detached: the fleet goes on",
            format!("follow it with `coordctl watch {plan}`, or stop it with `coordctl cancel {plan}`"),
        )
    } else {
        ("interrupted: what is committed stays", format!("resume it with `coordctl apply {plan}`"))
    };
    CliError::user("interrupted", message, hint)
}

fn row(batch: &ExecutedBatch) -> Executed {
    (
        batch.model.clone(),
        batch.interval.start.to_string(),
        batch.interval.end.to_string(),
        batch.status.clone(),
    )
}

fn warnings(batch: &ExecutedBatch) -> impl Iterator<Item = AuditWarning> {
    batch.warnings.iter().map(|(audit, rows)| AuditWarning {
        audit: audit.clone(),
        model: batch.model.clone(),
        start: batch.interval.start.to_string(),
        end: batch.interval.end.to_string(),
        rows: *rows,
    })
}

fn failed(plan: &Plan, view: &PlanView) -> CliError {
    let mut message = format!("plan {} failed", output::short(&plan.id.to_string()));
    for failure in &view.failures {
        message += &format!("\n  {} {}: {}", failure.model, output::range(failure.interval), failure.failure);
        if let Some(hint) = &failure.failure.hint {
            message += &format!("\n    hint: {hint}");
        }
    }
    let skipped = view.models.iter().filter(|model| model.done < model.total && model.failed == 0).count();
    if skipped > 0 {
        message += &format!("\n  not computed: {} further down", output::count(skipped, "model"));
    }
    // What runs after all runs when the environment has moved already.
    let shown = match view.failures.first() {
        Some(failure) if failure.model.starts_with("after_all") && plan.purpose == Purpose::Change => {
            "the environment shows the plan already"
        }
        _ => "the environment shows what it showed before",
    };
    let hint = format!(
        "mend the cause and apply it again ({}): what is committed is not computed again; {shown}",
        output::short(&plan.id.to_string())
    );
    CliError {
        fault: Fault::User,
        code: "plan-failed".to_owned(),
        message,
        hint: Some(hint),
        findings: Vec::new(),
    }
}

/// Who applies, for the evidence.
pub(crate) fn who() -> String {
    let user =
        std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "unknown".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", host.trim())
}

//! Environments' fates: `invalidate`, `rollback`, `abandon`, `janitor`.

use std::collections::BTreeSet;

use coord_common::project::Settings;
use serde_json::Value;

use super::apply::who;
use super::plan::environment;
use crate::args::{Format, InvalidateArgs, JanitorArgs, RollbackArgs};
use crate::client::Tend;
use crate::error::{CliError, CliResult};
use crate::output;
use crate::session::Session;

/// `coordctl invalidate`.
pub(crate) async fn invalidate(session: &mut Session, args: InvalidateArgs) -> CliResult {
    let name = environment(Some(&args.environment), &Settings::default())?;
    let answer = tend(session, Tend::Invalidate { environment: name.clone(), sync: args.sync }).await?;
    if session.format() == Format::Json {
        return output::json(&answer);
    }
    output::line(&match args.sync {
        true => format!("Environment `{name}` is removed."),
        false => format!("Environment `{name}` is invalidated; the janitor drops its views."),
    });
    Ok(())
}

/// `coordctl rollback`.
pub(crate) async fn rollback(session: &mut Session, args: RollbackArgs) -> CliResult {
    let name = environment(Some(&args.environment), &Settings::default())?;
    let to = args.to.unwrap_or_default();
    let answer = tend(session, Tend::Rollback { environment: name, to, dry_run: args.dry_run }).await?;
    if session.format() == Format::Json {
        return output::json(&answer);
    }
    went_back(&answer["rollback"], args.dry_run);
    Ok(())
}

fn went_back(back: &Value, dry_run: bool) {
    let text = |key: &str| back[key].as_str().unwrap_or_default().to_owned();
    let (shows, lack) = if dry_run { ("would show", "would miss") } else { ("shows", "miss") };
    let (name, plan, at) = (text("environment"), text("to_plan"), text("promoted"));
    output::line(&format!("`{name}` {shows} what plan {} promoted at {at}.", output::short(&plan)));
    for model in back["removed"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::line(&format!("  without {model}"));
    }
    for (model, ranges) in back["lacking"].as_object().into_iter().flatten() {
        let day = |range: &Value, key: &str| {
            range[key].as_str().unwrap_or_default().trim_end_matches("T00:00:00Z").to_owned()
        };
        let range = |range: &Value| format!("[{} - {})", day(range, "start"), day(range, "end"));
        let ranges: Vec<String> = ranges.as_array().into_iter().flatten().map(range).collect();
        output::line(&format!("  the rows of {model} {lack} {}", ranges.join(" ")));
    }
    let lacking = back["lacking"].as_object().is_some_and(|lacking| !lacking.is_empty());
    if lacking && !dry_run {
        output::line(&format!("`coordctl run {name}` computes what is missing."));
    }
}

/// `coordctl abandon`.
pub(crate) async fn abandon(session: &mut Session, what: &str) -> CliResult {
    let answer = tend(session, Tend::Abandon { what: what.to_owned() }).await?;
    if session.format() == Format::Json {
        return output::json(&answer);
    }
    let names = |key: &str| -> Vec<String> {
        let names = answer[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.map(str::to_owned).collect()
    };
    for plan in names("plans") {
        output::line(&format!("Plan {} is given up.", output::short(&plan)));
    }
    for environment in names("environments") {
        output::line(&format!(
            "Environment `{environment}` is removed; `coordctl janitor` drops the tables that only it used."
        ));
    }
    Ok(())
}

/// `coordctl janitor`.
pub(crate) async fn janitor(session: &mut Session, args: JanitorArgs) -> CliResult {
    let answer =
        tend(session, Tend::Janitor { ignore_ttl: args.ignore_ttl, environment: args.environment }).await?;
    if session.format() == Format::Json {
        return output::json(&answer);
    }
    tidied(&answer);
    Ok(())
}

/// What the janitor does, before something else: what it can't do is no reason not to go on.
pub(super) async fn tidy_up(session: &mut Session) {
    if let Err(error) = tend(session, Tend::Janitor { ignore_ttl: false, environment: None }).await {
        output::error_line(&format!("the janitor: {}", error.message));
    }
}

/// `coordctl destroy`.
pub(crate) async fn destroy(session: &mut Session, no_prompts: bool) -> CliResult {
    let question = "This removes all environments, production too, and all their tables. Go on? [y/n]";
    if !no_prompts && !output::is_terminal() {
        let hint = "give --no-prompts to remove everything without being asked";
        return Err(CliError::user("not-asked", "nobody can be asked whether to remove everything", hint));
    }
    if !no_prompts && !output::ask(question)? {
        return Ok(());
    }
    let answer = tend(session, Tend::Destroy).await?;
    if session.format() == Format::Json {
        return output::json(&answer);
    }
    tidied(&answer);
    Ok(())
}

/// Says what went.
fn tidied(answer: &Value) {
    let names = |key: &str| -> Vec<&str> {
        answer[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let (environments, tables) = (names("environments"), names("tables"));
    if environments.is_empty() && tables.is_empty() && answer["snapshots"].is_null() {
        output::line("Nothing to remove.");
    }
    if !environments.is_empty() {
        output::line(&format!("Removed environments: {}", environments.join(", ")));
    }
    for table in &tables {
        output::line(&format!("Dropped {table}"));
    }
    if let Some(snapshots) = answer["snapshots"].as_u64() {
        output::line(&format!("Forgot {snapshots} snapshot{}.", if snapshots == 1 { "" } else { "s" }));
    }
}

/// Asks the coordinator, with workers for what it needs, and fails where something could not be done.
pub(super) async fn tend(session: &mut Session, tend: Tend) -> CliResult<Value> {
    let mut client = session.client().await?;
    let mut started = BTreeSet::new();
    let answer = client
        .tend(tend, who(), |document| {
            let gateways = document["gateways"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let needed: BTreeSet<String> = gateways.map(str::to_owned).collect();
            if needed.is_subset(&started) {
                return Ok(());
            }
            started.extend(needed);
            let files = session.files()?;
            let needed: Vec<String> = started.iter().cloned().collect();
            session.start_worker(&files.settings()?, files.folder.clone(), &needed)
        })
        .await?;
    let troubles = answer["troubles"].as_object().filter(|troubles| !troubles.is_empty());
    let Some(troubles) = troubles else { return Ok(answer) };
    let lines: Vec<String> = troubles
        .iter()
        .map(|(what, why)| format!("\n  {what}: {}", why.as_str().unwrap_or_default()))
        .collect();
    Err(CliError::user(
        "not-all-done",
        format!("not all could be done:{}", lines.concat()),
        "mend the cause and give the command again; what is done stays done",
    ))
}

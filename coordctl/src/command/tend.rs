//! Environments' ends: `invalidate`, `janitor`.

use std::collections::BTreeSet;

use coord_common::project::Settings;
use serde_json::Value;

use super::apply::who;
use super::plan::environment;
use crate::args::{Format, InvalidateArgs, JanitorArgs};
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

/// `coordctl janitor`.
pub(crate) async fn janitor(session: &mut Session, args: JanitorArgs) -> CliResult {
    let answer = tend(session, Tend::Janitor { ignore_ttl: args.ignore_ttl }).await?;
    if session.format() == Format::Json {
        return output::json(&answer);
    }
    tidied(&answer);
    Ok(())
}

/// What the janitor does, before something else: what it can't do is no reason not to go on.
pub(super) async fn tidy_up(session: &mut Session) {
    if let Err(error) = tend(session, Tend::Janitor { ignore_ttl: false }).await {
        output::error_line(&format!("the janitor: {}", error.message));
    }
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
        output::line(&format!("Forgot {snapshots} snapshots."));
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

//! `coordctl history`: the evidence, page by page, and whether what was read of it is whole.

use std::process::ExitCode;

use coord_common::project::Settings;
use serde_json::{Value, json};

use super::inspect::show;
use super::plan::environment;
use crate::args::{Format, HistoryArgs};
use crate::error::CliResult;
use crate::output;
use crate::session::Session;

/// How many entries are asked for at once at most.
const PAGE: u32 = 1000;

/// `coordctl history`; exits with 1 where the evidence was touched.
pub(crate) async fn history(session: &mut Session, args: &HistoryArgs) -> CliResult<ExitCode> {
    let name = args.environment.as_deref().map(|given| environment(Some(given), &Settings::default()));
    let name = name.transpose()?.map(|name| name.to_string()).unwrap_or_default();
    let mut document = read(session, &name, args).await?;
    if session.format() != Format::Json {
        for row in document["history"].as_array_mut().into_iter().flatten() {
            let approvers = row["approved_by"].as_array().into_iter().flatten();
            row["approved_by"] = approvers.filter_map(Value::as_str).collect::<Vec<_>>().join(" ").into();
        }
    }
    let columns = [
        ("seq", "seq"),
        ("at", "at"),
        ("by", "by"),
        ("did", "did"),
        ("environment", "environment"),
        ("plan", "plan_id"),
        ("approved by", "approved_by"),
    ];
    show(session, &document, "history", &columns)?;
    if document["whole"] == true {
        if let (1.., lowest @ 2.., Format::Text) =
            (number(&document["last"]), from(&document), session.format())
        {
            output::error_line(&format!("entries before {lowest} weren't looked at: see --limit and --all"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    output::error_line(&format!(
        "the evidence was changed, or a part of it is missing, at {}",
        document["broken_at"]
    ));
    Ok(ExitCode::FAILURE)
}

/// Asks for parts until there are as many entries as are wanted. The parts overlap: each is verified
/// against the entry that the one before it ends with.
async fn read(session: &mut Session, name: &str, args: &HistoryArgs) -> CliResult<Value> {
    let mut client = session.client().await?;
    let mut entries: Vec<Value> = Vec::new();
    let (mut before, mut broken, mut last, mut highest) = (0, Value::Null, 0, None);
    loop {
        let left = if args.all { PAGE } else { args.limit - entries.len() as u32 };
        let mut part = client.history(name, before, left.min(PAGE)).await?;
        entries.extend(part["history"].as_array_mut().map(std::mem::take).unwrap_or_default());
        last = number(&part["last"]).max(last);
        highest.get_or_insert(number(&part["looked_at"][1]));
        // The first one from the beginning counts.
        if !part["broken_at"].is_null() {
            broken = part["broken_at"].take();
        }
        before = from(&part);
        if before <= 1 || !args.all && entries.len() >= args.limit as usize {
            break;
        }
    }
    let whole = broken.is_null();
    let looked_at = [before.max(1), highest.unwrap_or_default()];
    Ok(json!({
        "history": entries, "whole": whole, "broken_at": broken, "looked_at": looked_at, "last": last,
    }))
}

/// The lowest number that was looked at.
fn from(part: &Value) -> u64 {
    number(&part["looked_at"][0])
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

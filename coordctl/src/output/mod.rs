//! Everything that is printed: data to standard output, the rest to standard error.

mod plan;
mod progress;
mod table;

use std::io::{IsTerminal, Write};

use coord_common::diagnostic::Diagnostic;
use coord_common::id::ModelName;
use coord_common::interval::{Interval, Timestamp, parse_time};
use coord_common::plan::Choice;
use serde::Serialize;

use crate::args::Format;
use crate::error::{CliError, CliResult};

pub(crate) use plan::{plan, summary};
pub(crate) use progress::Progress;
pub(crate) use table::{csv, table};

/// A line of data. A reader that is gone wants no more.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A line beside the data.
pub(crate) fn error_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A document.
pub(crate) fn json(value: &impl Serialize) -> CliResult {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| CliError::ours("json", error.to_string()))?;
    line(&text);
    Ok(())
}

/// Whether somebody can answer.
pub(crate) fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Asks a question that `y` affirms.
pub(crate) fn ask(question: &str) -> CliResult<bool> {
    let _ = write!(std::io::stdout(), "{question}: ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Asks for a time; nothing where the answer is empty. What is no time is asked for again.
pub(crate) fn ask_time(question: &str) -> CliResult<Option<String>> {
    loop {
        let _ = write!(std::io::stdout(), "{question}: ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        let answer = answer.trim();
        match parse_time(answer, Timestamp(0)) {
            _ if answer.is_empty() => return Ok(None),
            Ok(_) => return Ok(Some(answer.to_owned())),
            Err(error) => error_line(&error.to_string()),
        }
    }
}

/// Asks what the change of a model means, until that is answered.
pub(crate) fn ask_category(model: &ModelName) -> CliResult<Choice> {
    loop {
        let _ = write!(std::io::stdout(), "`{model}`: [1] breaking, [2] non-breaking? ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        if std::io::stdin().read_line(&mut answer)? == 0 {
            let hint = format!("give --categorize {model}=breaking, or =non-breaking");
            return Err(CliError::user("uncategorized", "the input ended without an answer", hint));
        }
        match answer.trim().to_lowercase().as_str() {
            "1" | "b" | "breaking" => return Ok(Choice::Breaking),
            "2" | "n" | "non-breaking" => return Ok(Choice::NonBreaking),
            _ => {}
        }
    }
}

/// An error for people.
pub(crate) fn error(error: &CliError) {
    for finding in &error.findings {
        error_line(&paint(&finding.to_string(), if finding.is_error() { Color::Red } else { Color::Yellow }));
    }
    error_line(&format!("{} {}", paint("error:", Color::Red), error.message));
    if let Some(hint) = error.hint.as_ref().filter(|hint| !hint.is_empty()) {
        error_line(&format!("  hint: {hint}"));
    }
}

/// Findings that don't keep a plan from being made.
pub(crate) fn findings(findings: &[Diagnostic], format: Format) {
    if format == Format::Json {
        return;
    }
    for finding in findings {
        error_line(&paint(&finding.to_string(), if finding.is_error() { Color::Red } else { Color::Yellow }));
    }
}

/// How many of something there are: "1 batch", "2 batches".
pub(crate) fn count(number: usize, one: &str) -> String {
    let many = if one.ends_with("ch") { "es" } else { "s" };
    format!("{number} {one}{}", if number == 1 { "" } else { many })
}

/// The beginning of an id, enough to name it.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// A range for people: dates where times are midnights, the last day inclusive.
pub(crate) fn range(interval: Interval) -> String {
    if interval == Interval::ALL {
        return String::new();
    }
    let day = 86_400_000;
    if interval.start.0 % day == 0 && interval.end.0 % day == 0 {
        let last = coord_common::interval::Timestamp(interval.end.0 - day);
        let date = |at: coord_common::interval::Timestamp| at.to_datetime().format("%Y-%m-%d").to_string();
        return format!("{} - {}", date(interval.start), date(last));
    }
    format!("{} - {}", interval.start, interval.end)
}

/// What colours mean.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Color {
    Red,
    Yellow,
    Green,
    Dim,
}

/// Whether colours are wanted: on a terminal, unless NO_COLOR is set.
pub(crate) fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::io::stdout().is_terminal()
        && std::io::stderr().is_terminal()
}

/// Colours a text where colours are wanted.
pub(crate) fn paint(text: &str, color: Color) -> String {
    if !colours_wanted() {
        return text.to_owned();
    }
    let code = match color {
        Color::Red => "31",
        Color::Yellow => "33",
        Color::Green => "32",
        Color::Dim => "2",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

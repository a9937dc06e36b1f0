//! Cases were recorded on DuckDB: what of them PostgreSQL can run, and how it is written for it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::compare::array;

/// A database of a PostgreSQL server on a loopback port that trusts everybody.
#[derive(Debug, Clone)]
pub struct Database {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The database's name.
    pub name: String,
}

/// What DuckDB's table function `range` is called.
const RANGE: &str = "FROM range(";

impl Database {
    /// A case's file as it is for this database.
    pub(super) fn adapt(&self, path: &str, text: &str) -> String {
        if path.ends_with("config.yaml") { self.config(text) } else { sql(path, text) }
    }

    /// The configuration with this connection in the place of each gateway's.
    fn config(&self, text: &str) -> String {
        let Self { port, name } = self;
        let connection = format!(
            "{{type: postgres, host: 127.0.0.1, port: {port}, user: postgres, password: '', database: {name}}}"
        );
        let line = |line: &str| match line.split_once("connection: {type: duckdb") {
            Some((before, _)) if !before.ends_with("state_") => format!("{before}connection: {connection}\n"),
            _ => format!("{}\n", line.replace("dialect: duckdb", "dialect: postgres")),
        };
        text.lines().map(line).collect()
    }
}

/// The few things that both can do and write differently.
fn sql(path: &str, text: &str) -> String {
    if !path.ends_with(".sql") {
        return text.to_owned();
    }
    let mut text = text.replace("EPOCH(", "EXTRACT(EPOCH FROM ");
    for unit in ["DAY", "HOUR"] {
        text = text.replace(&format!("INTERVAL 1 {unit}"), &format!("INTERVAL '1' {unit}"));
    }
    while let Some(series) = series(&text) {
        text = series;
    }
    text
}

/// The text with its first `range(start, end, step)`, which excludes the end, as a series, which
/// includes it; the column keeps its name.
fn series(text: &str) -> Option<String> {
    let (before, rest) = text.split_once(RANGE)?;
    let (arguments, after) = call(rest)?;
    let [start, end, step] = arguments[..] else { return None };
    Some(format!(
        "{before}FROM generate_series({start}, {end} - INTERVAL '1 microsecond', {step}) AS range{after}"
    ))
}

/// The arguments of a call whose parenthesis was just opened, and what follows it.
fn call(text: &str) -> Option<(Vec<&str>, &str)> {
    let (mut depth, mut from, mut arguments) = (0, 0, Vec::new());
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' if depth == 0 => {
                arguments.push(text[from..at].trim());
                return Some((arguments, &text[at + 1..]));
            }
            ')' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    None
}

/// What PostgreSQL lacks or reads otherwise, as it stands in SQL.
const DUCKDB_ONLY: &[&str] = &[
    "range(",
    "epoch(",
    "epoch_ms(",
    "strftime(",
    "strptime(",
    "list_",
    "struct_",
    "unnest(",
    "qualify ",
    "pivot ",
    "group by all",
    "order by all",
    "exclude (",
    "asof join",
    "any_value(",
    "arg_max(",
    "arg_min(",
    "tinyint",
    "hugeint",
    "ubigint",
    "uinteger",
    "double)",
    "interval 1",
    "read_csv",
    "read_parquet",
    "//",
];

/// Why PostgreSQL can't run a case: what of DuckDB alone its models use.
pub fn refusal(case: &Value) -> Option<String> {
    let mut found = BTreeSet::new();
    for step in array(&case["steps"]) {
        for (path, text) in step["files"].as_object().into_iter().flatten() {
            if !path.ends_with(".sql") {
                continue;
            }
            let text = sql(path, text.as_str().unwrap_or_default()).to_lowercase();
            found.extend(DUCKDB_ONLY.iter().filter(|word| uses(&text, word)));
        }
    }
    let words: Vec<&str> =
        found.into_iter().copied().map(|word: &str| word.trim_end_matches(['(', ')', ' '])).collect();
    (!words.is_empty()).then(|| format!("uses {}", words.join(", ")))
}

/// Whether a word stands in a text, not as a later part of a longer one.
fn uses(text: &str, word: &str) -> bool {
    let part = |before: &str| before.ends_with(|last: char| last.is_alphanumeric() || last == '_');
    text.match_indices(word).any(|(at, _)| !part(&text[..at]) || !word.starts_with(char::is_alphabetic))
}

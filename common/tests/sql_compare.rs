//! `compare` against SQLMesh's own categories.

#![allow(clippy::unwrap_used, reason = "the fixtures are well formed")]

use coord_common::sql::{Dialect, Query, QueryChange, compare};
use serde_json::Value;

/// Where we are more careful on purpose, or don't prove an equality.
const DIFFERENCES: [&str; 2] = ["aggregate added to a query without GROUP BY", "USING instead of ON"];

/// The model's head and its query; nothing where there is more than a query.
fn split(file: &str) -> Option<(&str, &str)> {
    let at = file.find("\n);\n")? + 4;
    let query = file[at..].trim();
    let one = !query.trim_end_matches(';').contains(';') && !query.contains('@');
    one.then_some((&file[..at], query))
}

#[test]
fn queries_change_as_in_sqlmesh() {
    let cases: Value = serde_json::from_str(include_str!("fixtures/categorize.json")).unwrap();
    let (mut checked, mut wrong) = (0, Vec::new());
    for case in cases["cases"].as_array().unwrap() {
        let text = |key: &str| case[key].as_str().unwrap();
        let (Some((head, old)), Some((new_head, new))) = (split(text("old")), split(text("new"))) else {
            continue;
        };
        if head != new_head || DIFFERENCES.contains(&text("note")) {
            continue;
        }
        checked += 1;
        let parse = |sql: &str| Query::parse(sql, Dialect::DuckDb).unwrap();
        let expected = match text("expected") {
            "non_breaking" => QueryChange::Additive,
            "breaking" => QueryChange::Other,
            _ => QueryChange::Equal,
        };
        let got = compare(&parse(old), &parse(new));
        // A change that makes no difference at all may count as one that adds nothing.
        let same = got == expected || (expected, got) == (QueryChange::Additive, QueryChange::Equal);
        if !same {
            wrong.push(format!("{}: {got:?} for {}", text("note"), text("expected")));
        }
    }
    assert!(checked > 90, "{checked}");
    assert!(wrong.is_empty(), "{} of {checked}:\n{}", wrong.len(), wrong.join("\n"));
}

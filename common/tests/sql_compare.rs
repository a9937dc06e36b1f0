//! `compare` against SQLMesh's own categories.

#![allow(clippy::unwrap_used, reason = "the fixtures are well formed")]

use std::collections::BTreeMap;

use coord_common::project::model::ColumnDef;
use coord_common::sql::{Dialect, Query, QueryChange, Schemas, compare_known};
use serde_json::Value;

/// Where we are more careful on purpose.
const DIFFERENCES: [&str; 1] = ["aggregate added to a query without GROUP BY"];

struct Known(BTreeMap<String, Vec<ColumnDef>>);

impl Schemas for Known {
    fn columns(&self, relation: &[String]) -> Option<&[ColumnDef]> {
        self.0.get(&relation.join(".")).map(Vec::as_slice)
    }
}

fn schemas(tables: &Value) -> Known {
    let column = |(name, data_type): (&String, &Value)| ColumnDef {
        name: name.clone(),
        data_type: data_type.as_str().unwrap().to_owned(),
    };
    let columns = |table: &Value| table.as_object().unwrap().iter().map(column).collect();
    Known(tables.as_object().unwrap().iter().map(|(name, table)| (name.clone(), columns(table))).collect())
}

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
    let known = schemas(&cases["schemas"]);
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
        let got = compare_known((&parse(old), &known), (&parse(new), &known));
        // A change that makes no difference at all may count as one that adds nothing.
        let same = got == expected || (expected, got) == (QueryChange::Additive, QueryChange::Equal);
        if !same {
            wrong.push(format!("{}: {got:?} for {}", text("note"), text("expected")));
        }
    }
    assert!(checked > 90, "{checked}");
    assert!(wrong.is_empty(), "{} of {checked}:\n{}", wrong.len(), wrong.join("\n"));
}

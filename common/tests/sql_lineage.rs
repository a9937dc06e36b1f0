//! Lineage against SQLMesh's answers.

#![allow(clippy::unwrap_used, reason = "the fixtures are well formed")]
#![allow(clippy::disallowed_methods, reason = "reads questions; the core stays without files")]

use std::collections::{BTreeMap, BTreeSet};

use coord_common::interval::Timestamp;
use coord_common::project::model::{Code, ColumnDef, Language};
use coord_common::project::render::{RenderContext, RenderEnv, Stage, TimeVars, render};
use coord_common::sql::{Dialect, Query, Schemas};
use serde_json::Value;

struct Known(BTreeMap<String, Vec<ColumnDef>>);

impl Schemas for Known {
    fn columns(&self, relation: &[String]) -> Option<&[ColumnDef]> {
        self.0.get(&relation.join(".")).map(Vec::as_slice)
    }
}

fn schemas(cases: &Value) -> Known {
    let columns = |table: &Value| -> Vec<ColumnDef> {
        let each = table.as_object().unwrap().iter();
        each.map(|(name, data_type)| ColumnDef {
            name: name.clone(),
            data_type: data_type.as_str().unwrap().to_owned(),
        })
        .collect()
    };
    let tables = cases["schemas"].as_object().unwrap().iter();
    Known(tables.map(|(name, table)| (name.clone(), columns(table))).collect())
}

/// A model's text as it is while its project loads.
fn rendered(sql: &str) -> String {
    let zero = Timestamp(0);
    let time = TimeVars::Batch { start: zero, end: zero, execution: zero };
    let code = Code { text: sql.to_owned(), language: Language::Sql, line: 1 };
    let env = RenderEnv::default();
    render(&code, &RenderContext::new(&env, Dialect::DuckDb, time, Stage::Loading)).unwrap()
}

#[test]
fn lineage_is_as_in_sqlmesh() {
    let text = match std::env::var("ORACLE_CASES") {
        Ok(folder) => std::fs::read_to_string(format!("{folder}/lineage.json")).unwrap(),
        Err(_) => include_str!("fixtures/lineage.json").to_owned(),
    };
    let cases: Value = serde_json::from_str(&text).unwrap();
    let schemas = schemas(&cases);
    let (mut checked, mut wrong) = (0, Vec::new());
    let mut groups: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for case in cases["cases"].as_array().unwrap() {
        if case.get("quirk").is_some() {
            continue;
        }
        let sql = case["sql"].as_str().unwrap();
        let query = Query::parse(&rendered(sql), Dialect::DuckDb).unwrap_or_else(|e| panic!("{sql}: {e}"));
        checked += 1;
        let source =
            |s: &Value| (s["table"].as_str().unwrap().to_owned(), s["column"].as_str().unwrap().to_owned());
        let expected: BTreeMap<String, BTreeSet<(String, String)>> = case["expected"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, sources)| (name.clone(), sources.as_array().unwrap().iter().map(source).collect()))
            .collect();
        let lineage = query.lineage(&schemas);
        let got: BTreeMap<_, _> =
            lineage.columns.iter().map(|(n, c)| (n.clone(), c.sources.clone())).collect();
        let group = groups.entry(case["group"].as_str().unwrap()).or_default();
        *group = (group.0 + u32::from(got == expected), group.1 + 1);
        if got != expected {
            wrong.push(format!("{sql}\n  expected {expected:?}\n  got      {:?}", lineage.columns));
        }
        let names = query.output_columns(&schemas);
        if let Some(names) = names {
            let names: BTreeSet<String> = names.into_iter().map(|c| c.name).collect();
            assert_eq!(names, expected.keys().cloned().collect(), "{sql}");
        }
    }
    println!("lineage: {} of {checked} questions agree", checked - wrong.len());
    for (group, (same, all)) in &groups {
        println!("  {group:<16}{same:>6} of {all:>6} agree");
    }
    println!("{}", wrong.join("\n"));
    assert!(
        checked > 80 && wrong.len() * 100 <= checked * 2,
        "{} of {checked}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

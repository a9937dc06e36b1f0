//! What a change of one model means, as SQLMesh answered for whole files.

#![allow(clippy::disallowed_methods, reason = "reads questions; the core stays without files")]

use std::collections::BTreeMap;

use coord_common::plan::Change;
use serde_json::Value;

use crate::world::{World, empty, find};

/// Where we answer otherwise, by the note of the question.
const LISTED: [(&str, &str); 3] = [
    (
        "aggregate added to a query without GROUP BY",
        "an aggregate in a query without GROUP BY is no mere addition",
    ),
    ("stmt: moved", "a statement that moves behind the query is a change"),
    (
        "pair: SELECT order_id FROM shop.orders UNION ALL SELECT order_id FROM shop.items -> SELECT total, \
         order_id FROM shop.orders UNION ALL SELECT order_id, qty FROM shop.items",
        "branches of a UNION must grow alike",
    ),
];

/// The questions; `ORACLE_CASES=<folder>` asks others.
fn questions() -> Value {
    let text = match std::env::var("ORACLE_CASES") {
        Ok(folder) => std::fs::read_to_string(format!("{folder}/categorize.json")).expect("it can be read"),
        Err(_) => include_str!("../fixtures/categorize.json").to_owned(),
    };
    serde_json::from_str(&text).expect("it is JSON")
}

/// What is known of tables that nobody here fills.
fn external(schemas: &Value) -> String {
    let mut text = String::new();
    for (table, columns) in schemas.as_object().into_iter().flatten() {
        text += &format!("- name: {table}\n  columns:\n");
        for (column, data_type) in columns.as_object().into_iter().flatten() {
            text += &format!("    {column}: '{}'\n", data_type.as_str().unwrap_or_default());
        }
    }
    text
}

fn variables(world: &mut World, config: &str, variables: &Value) {
    let mut text = config.to_owned();
    if let Some(variables) = variables.as_object() {
        text += "variables:\n";
        variables.iter().for_each(|(name, value)| text += &format!("  {name}: {value}\n"));
    }
    world.write("config.yaml", &text);
}

/// What the second of two files means where the first is in production.
fn answer(schemas: &str, case: &Value) -> String {
    let mut world = empty();
    let config = world.files["config.yaml"].clone();
    world.write("external_models.yaml", schemas);
    let file = |key: &str| case[key].as_str().unwrap_or_default();
    variables(&mut world, &config, &case["variables_old"]);
    world.write("models/m.sql", file("old"));
    let planned = world.plan_and_apply("prod");
    let name =
        planned.plan.models.iter().map(|model| model.name.to_string()).find(|name| !schemas.contains(name));
    let name = name.expect("there is a model");
    variables(&mut world, &config, &case["variables_new"]);
    world.write("models/m.sql", file("new"));
    let planned = world.plan("prod");
    let model = find(&planned, &name);
    // A forward-only model's change means something beneath, too.
    match planned.new_records.iter().find(|record| Some(record.id()) == model.snapshot) {
        Some(record) if model.change != Change::Unchanged => record.category.name().to_owned(),
        _ => "unchanged".to_owned(),
    }
}

#[test]
fn categories_are_as_in_sqlmesh() {
    ask(&questions());
}

/// Questions of our own making, of which each was answered otherwise at first.
#[test]
fn spellings_and_properties_mean_what_they_mean_in_sqlmesh() {
    ask(&serde_json::from_str(include_str!("../fixtures/categorize_more.json")).expect("it is JSON"));
}

fn ask(questions: &Value) {
    let schemas = external(&questions["schemas"]);
    let mut classes: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let (mut wrong, mut listed) = (Vec::new(), Vec::new());
    for case in questions["cases"].as_array().into_iter().flatten() {
        let expected = case["expected"].as_str().unwrap_or_default();
        let note = case["note"].as_str().unwrap_or_default();
        let found = answer(&schemas, case);
        let same = found == expected;
        if let (false, Some((_, difference))) = (same, LISTED.iter().find(|(listed, _)| *listed == note)) {
            listed.push(*difference);
            continue;
        }
        let class = classes.entry(expected).or_default();
        *class = (class.0 + u32::from(same), class.1 + 1);
        if !same {
            wrong.push(format!("{} {note}: {expected} expected, {found} found", case["i"]));
        }
    }
    println!("categories: {} questions", questions["cases"].as_array().map_or(0, Vec::len));
    for (class, (same, all)) in &classes {
        println!("  {class:<16}{same:>6} of {all:>6} agree");
    }
    listed.iter().for_each(|difference| println!("  1 differs as listed: {difference}"));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

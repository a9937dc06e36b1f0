//! What must hold of drops: nothing goes that somebody shows, can go back to, or works on.

use std::collections::BTreeMap;

use coordinator::store::keys;
use serde_json::Value;

use crate::invariants::json;
use crate::peek::document;
use crate::store::Db;
use crate::world::World;

/// States of plans that work on their tables.
const UNDER_WAY: [&str; 4] = ["applying", "cancelling", "promoting", "publishing"];

/// Looks at a table that is said to be gone.
pub(crate) fn check_drop(world: &World, db: &Db, key: &str) {
    let Some(table) = keys::parts(key, keys::DROPS).and_then(|names| names.into_iter().next()) else {
        return;
    };
    if let Some(by) = needed(db).get(&table) {
        world.violate(&format!("{table} is to be dropped, but {by} needs it"));
    }
}

/// The tables that are needed, and for what.
fn needed(db: &Db) -> BTreeMap<String, String> {
    let mut needed = BTreeMap::new();
    let mut add = |models: &Value, by: &str| {
        for table in models.as_object().into_iter().flat_map(|models| models.values()) {
            if let Some(table) = table["table"].as_str() {
                needed.insert(table.to_owned(), by.to_owned());
            }
        }
    };
    for entry in db.under(keys::ENVIRONMENTS) {
        let pointer = json(&entry.value);
        add(&document(db, &pointer["set"])["models"], &entry.key);
        if pointer["views_done"] != true {
            add(&document(db, &pointer["previous"])["models"], &entry.key);
        }
    }
    for entry in db.under(keys::PROMOTIONS) {
        add(&document(db, &json(&entry.value)["set"])["models"], &entry.key);
    }
    for entry in db.under(keys::PLANS) {
        let record = json(&entry.value);
        if record["state"].as_str().is_some_and(|state| UNDER_WAY.contains(&state)) {
            add(&document(db, &record["body"])["plan"]["target"], &entry.key);
        }
    }
    needed
}

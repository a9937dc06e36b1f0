//! What of a recorded step and of `coordctl`'s documents must be equal.

use std::collections::{BTreeMap, BTreeSet};

use coord_common::interval::{Timestamp, parse_time};
use serde_json::{Value, json};

/// What a part of a document is compared as: subject and value.
pub(super) type Facts = BTreeMap<String, String>;

pub(super) fn equal(what: &str, expected: &Facts, found: &Facts) -> Result<(), String> {
    let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    for name in names {
        let (expected, found) = (expected.get(name), found.get(name));
        if expected != found {
            return Err(format!("{what} {name}: expected {expected:?}, found {found:?}"));
        }
    }
    Ok(())
}

/// What a plan says; models without a change and without work are left out. Under a forward-only
/// category lies another one, by which `theirs` may be told as well.
pub(super) fn plan(plan: &Value, theirs: &Value) -> Facts {
    let mut facts = Facts::new();
    for flag in ["has_changes", "requires_backfill"] {
        facts.insert(flag.to_owned(), (plan[flag] == true).to_string());
    }
    let expected: BTreeMap<String, &Value> = models(theirs).collect();
    for (name, model) in models(plan) {
        let change = model["change"].as_str().unwrap_or("unchanged");
        let recorded = expected.get(&name);
        let raw = recorded.and_then(|model| model["raw_category"].as_str());
        let category = match model["category"].as_str() {
            found if found.is_some() && found == raw => recorded.and_then(|model| model["category"].as_str()),
            found => found,
        };
        let category = category.unwrap_or_default();
        let (missing, batches) = (merged(&model["missing_intervals"]), ranges(&model["batches"]));
        if change == "unchanged" && missing.is_empty() && batches.is_empty() {
            continue;
        }
        let fact = format!("{change} {category} missing {missing:?} batches {batches:?}");
        facts.insert(name, fact);
    }
    facts
}

fn models(plan: &Value) -> impl Iterator<Item = (String, &Value)> {
    array(&plan["models"]).iter().map(|model| (short(model["name"].as_str().unwrap_or_default()), model))
}

/// Batches by model, in the order in which they ran; sorted where several run at once.
pub(super) fn executed(rows: &Value, at_once: bool) -> Facts {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in array(rows) {
        let (start, end) = (time(&row[1]), time(&row[2]));
        let batch = format!("{}-{} {}", start.0, end.0, row[3].as_str().unwrap_or("ok"));
        found.entry(short(row[0].as_str().unwrap_or_default())).or_default().push(batch);
    }
    if at_once {
        found.values_mut().for_each(|batches| batches.sort());
    }
    found.into_iter().map(|(model, batches)| (model, batches.join(", "))).collect()
}

/// Rows and checksums of what environments show.
pub(super) fn contents(state: &Value) -> Facts {
    let mut found = Facts::new();
    for (environment, views) in state["contents"].as_object().into_iter().flatten() {
        for (model, content) in views.as_object().into_iter().flatten() {
            let fact = match content.get("error") {
                Some(_) => "unreadable".to_owned(),
                None => json!([content["columns"], content["rows"], content["checksum"]]).to_string(),
            };
            found.insert(format!("{environment}:{}", short(model)), fact);
        }
    }
    found
}

pub(super) fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn short(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').map(|part| part.trim_matches('"')).collect();
    parts[parts.len().saturating_sub(2)..].join(".")
}

fn time(value: &Value) -> Timestamp {
    let text = value.as_str().unwrap_or_default();
    parse_time(text, Timestamp(0)).unwrap_or_else(|error| panic!("{error}")).at
}

/// Ranges without those that end before they start: SQLMesh reports some.
fn ranges(value: &Value) -> Vec<(i64, i64)> {
    let of = |range: &Value| match range.as_array() {
        Some(pair) => (time(&pair[0]).0, time(&pair[1]).0),
        None => (time(&range["start"]).0, time(&range["end"]).0),
    };
    array(value).iter().map(of).filter(|(start, end)| start < end).collect()
}

fn merged(value: &Value) -> Vec<(i64, i64)> {
    let mut sorted = ranges(value);
    sorted.sort_unstable();
    let mut found: Vec<(i64, i64)> = Vec::new();
    for (start, end) in sorted {
        match found.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => found.push((start, end)),
        }
    }
    found
}

/// Versions and tables are opaque ids: over a whole case, those recorded and ours must be in a
/// one-to-one relation, model by model.
#[derive(Debug, Default)]
pub(super) struct Identities {
    ours: BTreeMap<(&'static str, String, String), String>,
    theirs: BTreeMap<(&'static str, String, String), String>,
}

impl Identities {
    /// Compares which environment shows which version and table of each model.
    pub(super) fn environments(&mut self, theirs: &Value, ours: &Value) -> Result<(), String> {
        equal("environments", &shown(theirs), &shown(ours))?;
        for (environment, recorded) in theirs["environments"].as_object().into_iter().flatten() {
            let found: BTreeMap<String, &Value> = named(&ours["environments"][environment]["models"]);
            for (model, recorded) in named(&recorded["models"]) {
                let Some(found) = found.get(&model) else { continue };
                self.same("version", &model, &recorded["version"], &found["version"])?;
                if recorded["promoted"] != false {
                    self.same("table", &model, &recorded["table"], &found["table"])?;
                }
            }
        }
        Ok(())
    }

    /// Compares the recorded intervals of tables that both know.
    pub(super) fn intervals(&self, theirs: &Value, ours: &Value) -> Result<(), String> {
        let found = named(&ours["tables"]);
        for (model, tables) in named(&theirs["tables"]) {
            for (table, recorded) in tables.as_object().into_iter().flatten() {
                let Some(our) = self.ours.get(&("table", model.clone(), table.clone())) else { continue };
                let found = merged(found.get(&model).map_or(&Value::Null, |tables| &tables[our]));
                let recorded = merged(recorded);
                if recorded != found {
                    return Err(format!("intervals of {model}: expected {recorded:?}, found {found:?}"));
                }
            }
        }
        Ok(())
    }

    fn same(&mut self, kind: &'static str, model: &str, theirs: &Value, ours: &Value) -> Result<(), String> {
        let unknown = ["missing", "other"];
        let id = |value: &Value| value.as_str().filter(|id| !unknown.contains(id)).map(str::to_owned);
        let (Some(theirs), Some(ours)) = (id(theirs), id(ours)) else { return Ok(()) };
        let key = |id: &str| (kind, model.to_owned(), id.to_owned());
        let known = self.ours.entry(key(&theirs)).or_insert_with(|| ours.clone());
        let back = self.theirs.entry(key(&ours)).or_insert_with(|| theirs.clone());
        if *known != ours || *back != theirs {
            return Err(format!("{kind} of {model}: {theirs} was {known}, is {ours}, which was {back}"));
        }
        Ok(())
    }
}

/// Which models environments have, and whether they show them.
fn shown(state: &Value) -> Facts {
    let mut found = Facts::new();
    for (environment, models) in state["environments"].as_object().into_iter().flatten() {
        for (model, shown) in named(&models["models"]) {
            found.insert(format!("{environment}:{model}"), (shown["promoted"] != false).to_string());
        }
    }
    found
}

/// The values of an object by the models' short names.
fn named(object: &Value) -> BTreeMap<String, &Value> {
    object.as_object().into_iter().flatten().map(|(name, value)| (short(name), value)).collect()
}

//! What must hold at the end: everything is as if nothing had gone wrong.

use coordinator::store::keys;
use coordinator::store::record::decode_intervals;
use serde_json::Value;

use crate::invariants::{days_of, json, once};
use crate::peek::document;
use crate::project::{DAYS, Kind};
use crate::store::Db;
use crate::story::Story;
use crate::warehouse::Warehouse;
use crate::world::{World, lock};

/// Compares what each environment shows with what an undisturbed run leaves.
pub(crate) fn check(world: &World) {
    let db = lock(&world.store);
    let pointers: Vec<_> =
        db.under(keys::ENVIRONMENTS).map(|entry| (entry.key.clone(), json(&entry.value))).collect();
    for (key, pointer) in pointers {
        let environment = &key[keys::ENVIRONMENTS.len()..];
        let plan = pointer["plan"].as_str().unwrap_or_default();
        let Some(version) = lock(&world.plans).get(plan).copied() else {
            world.violate(&format!("{key} shows plan {plan}, which nobody made"));
            continue;
        };
        if pointer["views_done"] != true {
            world.violate(&format!("{key}: its views have not followed"));
        }
        check_pointer(world, &db, &key, &pointer);
        check_views(world, &db, environment, version);
    }
    check_recorded(world, &db);
    check_asides(world, &db);
    if db.get(&format!("{}dev", keys::ENVIRONMENTS)).is_none() {
        let warehouse = lock(&world.warehouse);
        if let Some((view, _)) = warehouse.views.iter().find(|(view, _)| view.starts_with("s__dev.")) {
            world.violate(&format!("{view} is still there, but dev has ended"));
        }
    }
}

/// The days that are on record of what is behind a relation.
fn recorded(db: &Db, warehouse: &Warehouse, relation: &str) -> Vec<Option<i64>> {
    let table = warehouse.relations.iter().find(|(_, name)| *name == relation).map(|(table, _)| table);
    let key = format!("{}{}", keys::INTERVALS, table.map_or("", String::as_str));
    let set = db.get(&key).and_then(|entry| decode_intervals(&key, &entry.value).ok()).unwrap_or_default();
    set.ranges().iter().flat_map(|range| days_of(*range)).map(Some).collect()
}

/// Views show what the pointer says.
fn check_pointer(world: &World, db: &Db, key: &str, pointer: &Value) {
    let warehouse = lock(&world.warehouse);
    // Whoever meddles moves the pointer, but no views.
    if Some(lock(&world.checks).meddled) == pointer["seq"].as_u64() {
        return;
    }
    let set = document(db, &pointer["set"]);
    for model in set["models"].as_object().into_iter().flat_map(|models| models.values()) {
        let name = |what: &Value| {
            let part = |part: &str| what[part].as_str().unwrap_or_default().to_owned();
            format!("{}.{}", part("schema"), part("table"))
        };
        let view = name(&model["view"]);
        let shows = warehouse.views.get(&view).map(|(_, target)| target.clone());
        if !model["view"].is_null() && shows != Some(name(&model["relation"])) {
            world.violate(&format!("{key} has {view} show {}, but it shows {shows:?}", model["relation"]));
        }
    }
}

/// What was computed aside is gone once its plan is at its end.
fn check_asides(world: &World, db: &Db) {
    let warehouse = lock(&world.warehouse);
    for (table, relation) in warehouse.relations.iter().filter(|(table, _)| table.contains("+aside.")) {
        let plan = table.rsplit('.').next().unwrap_or_default();
        let record = db.get(&format!("{}{plan}", keys::PLANS)).map(|entry| json(&entry.value));
        let open = record.is_some_and(|record| record["state"] == "failed");
        if warehouse.object(relation).is_some() && !open {
            world.violate(&format!("{relation} is left over"));
        }
    }
}

/// Each range on record is there exactly once.
fn check_recorded(world: &World, db: &Db) {
    let warehouse = lock(&world.warehouse);
    for entry in db.under(keys::INTERVALS) {
        let table = keys::parts(&entry.key, keys::INTERVALS).and_then(|names| names.into_iter().next());
        let Some(table) = table.filter(|table| !table.contains("+aside")) else { continue };
        let by_day = table.split('@').next().is_some_and(|model| world.play.is_by_day(model));
        let Some(relation) = warehouse.relations.get(&table) else { continue };
        for day in recorded(db, &warehouse, relation).into_iter().flatten().filter(|_| by_day) {
            once(world, &warehouse, relation, day);
        }
    }
}

fn check_views(world: &World, db: &Db, environment: &str, version: usize) {
    let warehouse = lock(&world.warehouse);
    let schema = if environment == "prod" { "s".to_owned() } else { format!("s__{environment}") };
    let project = &world.play.versions[version];
    let days = DAYS + world.days_passed();
    for model in &project.0 {
        let view = format!("{schema}.{}", model.name);
        let Some((_, target)) = warehouse.views.get(&view) else {
            // A development environment shows only what differs from production.
            if environment != "prod" {
                continue;
            }
            world.violate(&format!("{view} is missing"));
            continue;
        };
        // A preview stays as it was computed.
        if target.ends_with("__dev") && world.play.story == Story::Restatements {
            continue;
        }
        let wanted: Vec<Option<i64>> = match model.kind {
            // A development environment may be a preview of a part: then it has what is on record.
            Kind::Range { .. } | Kind::Append if environment != "prod" => recorded(db, &warehouse, target),
            Kind::Range { .. } | Kind::Append => (model.from..days).map(Some).collect(),
            Kind::Full | Kind::View if environment != "prod" => continue,
            Kind::Full | Kind::View => vec![None],
        };
        for day in wanted {
            let expected = project.expected(&model.name, day, &warehouse.source, days);
            let found = warehouse.read(target, day);
            if found.as_ref() != Ok(&expected) {
                world.violate(&format!("{view} ({target}) day {day:?} has {found:?}, not {expected:?}"));
            }
        }
    }
}

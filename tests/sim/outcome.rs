//! What must hold at the end: everything is as if nothing had gone wrong.

use coordinator::store::keys;
use coordinator::store::record::decode_intervals;

use crate::invariants::{days_of, json};
use crate::node::GATEWAY;
use crate::project::{DAYS, Kind};
use crate::store::Db;
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
        check_views(world, &db, environment, version, pointer["seq"].as_u64().unwrap_or_default());
    }
}

/// The days that are on record of what is behind a relation.
fn recorded(db: &Db, warehouse: &Warehouse, relation: &str) -> Vec<Option<i64>> {
    let table = warehouse.relations.iter().find(|(_, name)| *name == relation).map(|(table, _)| table);
    let key = format!("{}{}", keys::INTERVALS, table.map_or("", String::as_str));
    let set = db.get(&key).and_then(|entry| decode_intervals(&key, &entry.value).ok()).unwrap_or_default();
    set.ranges().iter().flat_map(|range| days_of(*range)).map(Some).collect()
}

fn check_views(world: &World, db: &Db, environment: &str, version: usize, seq: u64) {
    let warehouse = lock(&world.warehouse);
    let shown = warehouse.shown(&format!("{environment}@{GATEWAY}"));
    // Whoever meddles moves the pointer, but no views.
    let meddled = lock(&world.checks).meddled == seq;
    if shown != seq && !meddled {
        world.violate(&format!("views of {environment} show flip {shown} rather than {seq}"));
    }
    let schema = if environment == "prod" { "s".to_owned() } else { format!("s__{environment}") };
    let project = &world.play.versions[version];
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
        let days: Vec<Option<i64>> = match model.kind {
            // A development environment may be a preview of a part: then it has what is on record.
            Kind::Range { .. } | Kind::Append if environment != "prod" => recorded(db, &warehouse, target),
            Kind::Range { .. } | Kind::Append => (model.from..DAYS).map(Some).collect(),
            Kind::Full | Kind::View if environment != "prod" => continue,
            Kind::Full | Kind::View => vec![None],
        };
        for day in days {
            let expected = project.expected(&model.name, day, &warehouse.source);
            let found = warehouse.read(target, day);
            if found.as_ref() != Ok(&expected) {
                world.violate(&format!("{view} ({target}) day {day:?} has {found:?}, not {expected:?}"));
            }
        }
    }
}

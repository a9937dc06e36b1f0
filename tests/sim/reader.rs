//! Somebody who reads production after every transaction of the warehouse: each row must follow from
//! the rows that the reader sees of the models above it, whatever is half done elsewhere.

use crate::invariants::Checks;
use crate::node::GATEWAY;
use crate::project::{DAYS, Kind, Model};
use crate::story::Story;
use crate::warehouse::{Warehouse, value};
use crate::world::{World, lock};

/// Reads all of production.
pub(crate) fn check(checks: &Checks, world: &World, warehouse: &Warehouse, after: &str) {
    // Those who restate in place have been told what it means.
    if !checks.in_place.is_empty() {
        return;
    }
    let seq = warehouse.shown(&format!("prod@{GATEWAY}"));
    let Some(plan) = checks.shown.get(&("prod".to_owned(), seq)) else { return };
    let Some(version) = lock(&world.plans).get(plan).copied() else { return };
    for model in &world.play.versions[version].0 {
        let days: Vec<Option<i64>> = match model.kind {
            Kind::Range { .. } | Kind::Append => (model.from..DAYS).map(Some).collect(),
            // Between days and their sum there are two batches of a run.
            Kind::Full if world.play.story == Story::Runs => continue,
            Kind::Full | Kind::View => vec![None],
        };
        for day in days.into_iter().filter(|_| !model.ups.is_empty()) {
            if let Err(what) = follows(warehouse, model, day) {
                world.violate(&format!("after {after}, a reader of production sees {what}"));
                return;
            }
        }
    }
}

fn follows(warehouse: &Warehouse, model: &Model, day: Option<i64>) -> Result<(), String> {
    let read = |name: &str| {
        let view = format!("s.{name}");
        let target = warehouse.views.get(&view).map(|(_, target)| target.as_str());
        warehouse.read(target.ok_or_else(|| format!("no view {view}"))?, day)
    };
    let found = read(&model.name)?;
    let inputs = model.ups.iter().map(|up| read(up)).collect::<Result<Vec<_>, _>>()?;
    let expected = vec![value(model.tag, day.unwrap_or_default(), inputs.into_iter().flatten())];
    if found == expected {
        return Ok(());
    }
    Err(format!("{found:?} in {} of day {day:?}, but {expected:?} follows from what is above", model.name))
}

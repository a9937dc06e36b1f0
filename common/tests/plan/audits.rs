//! Audits that change while nothing else does.

use coord_common::plan::Change;
use coord_common::snapshot::Category;

use crate::world::{INCREMENTAL, STAGED, World, at, find, options, world};

const AUDITED: &str = "kind INCREMENTAL_BY_TIME_RANGE (time_column ds), audits (not_null(columns := (id)))";

fn live() -> World {
    let mut world = world();
    world.plan_and_apply("prod");
    world
}

fn audited(world: &World, environment: &str) -> Vec<(String, String)> {
    let planned = world.plan(environment);
    let models = planned.plan.models.iter().filter(|model| !model.audits.is_empty());
    let day = |time: coord_common::interval::Timestamp| time.to_string()[5..10].to_owned();
    models
        .map(|model| {
            let hull = model.audits.hull().expect("models without audits are left out");
            (model.name.to_string(), format!("{}..{}", day(hull.start), day(hull.end)))
        })
        .collect()
}

fn staged(range: &str) -> Vec<(String, String)> {
    vec![("stg.events".to_owned(), range.to_owned())]
}

#[test]
fn a_new_audit_looks_at_what_is_complete_and_computes_nothing() {
    for environment in ["prod", "dev"] {
        let mut world = live();
        world.model("stg.events", AUDITED, STAGED);
        let planned = world.plan(environment);
        let model = find(&planned, "stg.events");
        assert_eq!((model.change, model.category), (Change::MetadataUpdated, Some(Category::Metadata)));
        assert!(model.missing.is_empty() && !planned.plan.requires_backfill());
        assert_eq!(audited(&world, environment), staged("01-01..01-08"), "{environment}");
        world.apply(&planned);
        assert!(!world.plan(environment).plan.has_audits(), "once");
    }
}

#[test]
fn other_metadata_and_audits_that_go_look_at_nothing() {
    let mut world = live();
    world.model("stg.events", &format!("{AUDITED}, owner me"), STAGED);
    world.plan_and_apply("prod");
    world.model("stg.events", &format!("{AUDITED}, owner you"), STAGED);
    assert_eq!(audited(&world, "prod"), []);
    world.model("stg.events", INCREMENTAL, STAGED);
    assert_eq!(audited(&world, "prod"), []);
    world.model("stg.events", &AUDITED.replace("(id)", "(id, ds)"), STAGED);
    assert_eq!(audited(&world, "prod"), staged("01-01..01-08"), "other arguments");
}

#[test]
fn an_audit_of_a_change_that_is_computed_anyway_needs_no_round_of_its_own() {
    let mut world = live();
    world.model("stg.events", AUDITED, &format!("{STAGED} AND amount > 1"));
    assert_eq!(audited(&world, "prod"), []);
    let mut new = crate::world::world();
    new.model("stg.events", AUDITED, STAGED);
    assert_eq!(audited(&new, "prod"), []);
}

#[test]
fn a_plan_that_fills_something_audits_from_there_on() {
    let mut world = live();
    world.now = at("2024-01-10 12:00:00");
    world.model("stg.events", AUDITED, STAGED);
    let asked = coord_common::plan::PlanOptions {
        execution_time: Some("2024-01-10 12:00:00".to_owned()),
        ..options("prod")
    };
    let planned = world.try_plan(&asked).unwrap();
    let model = find(&planned, "stg.events");
    assert_eq!(
        model.audits.hull(),
        planned.plan.models.iter().filter_map(|m| m.missing.hull()).reduce(|a, b| {
            coord_common::interval::Interval { start: a.start.min(b.start), end: a.end.max(b.end) }
        })
    );
}

#[test]
fn what_follows_from_its_own_past_is_looked_at_beyond_the_end_that_is_asked_for() {
    let mut world = live();
    world.model("stg.events", AUDITED, STAGED);
    world.model(
        "mart.users",
        "kind FULL, audits (not_null(columns := (id)))",
        "SELECT id, CAST(SUM(amount) AS INT) AS total FROM stg.events GROUP BY id",
    );
    let asked = coord_common::plan::PlanOptions { end: Some("2024-01-05".to_owned()), ..options("dev") };
    let planned = world.try_plan(&asked).unwrap();
    let end = |name| find(&planned, name).audits.hull().expect("it has a new audit").end.to_string();
    assert_eq!(end("stg.events")[5..10], *"01-06");
    assert_eq!(end("mart.users")[5..10], *"01-08", "a whole table has no ranges to be left out");
}

//! Where plans differ from SQLMesh's on purpose; `docs/differences.md` says why.

use coord_common::plan::{Change, views};
use coord_common::snapshot::Category;

use crate::world::{INCREMENTAL, STAGED, empty, find, missing, options, world};

#[test]
fn fingerprints_and_ids_have_128_bits() {
    let mut world = world();
    let planned = world.plan_and_apply("prod");
    for model in &planned.plan.models {
        let id = model.snapshot.expect("it is added").to_string();
        assert_eq!(id.len(), 32, "{id}");
        let version = model.version.expect("it has a table").to_string();
        assert_eq!(version.len(), 32, "{version}");
    }
    assert_eq!(planned.plan.id.to_string().len(), 32);
}

#[test]
fn views_of_development_that_stay_are_not_made_again() {
    let mut world = world();
    world.plan_and_apply("prod");
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    let first = world.plan_and_apply("dev").plan;
    let (made, _) = views(None, &first.target);
    assert_eq!(made.len(), 4, "all below the change");
    world.model("mart.top", "kind VIEW", "SELECT id, total FROM mart.users WHERE total > 16");
    let second = world.plan_and_apply("dev").plan;
    let (made, dropped) = views(Some(&first.target), &second.target);
    let names: Vec<&str> = made.iter().map(|view| view.model.as_str()).collect();
    assert_eq!((names, dropped.len()), (vec!["mart.top"], 0));
}

#[test]
fn a_view_in_development_keeps_showing_its_change_when_another_plan_follows() {
    let mut world = world();
    world.plan_and_apply("prod");
    world.model("stg.events", INCREMENTAL, &STAGED.replace(" FROM", ", id + 1 AS next FROM"));
    world.model("mart.all", "kind VIEW", "SELECT * FROM stg.events");
    let first = world.plan_and_apply("dev");
    world.model("mart.more", "kind FULL", "SELECT id FROM mart.top");
    let second = world.plan_and_apply("dev");
    for name in ["mart.top", "mart.all"] {
        assert_eq!(find(&second, name).change, Change::Unchanged, "{name} differs");
        assert_eq!(find(&second, name).table, find(&first, name).table, "{name}");
    }
}

#[test]
fn a_table_of_development_is_left_only_for_one_that_is_there() {
    let mut world = world();
    world.plan_and_apply("prod");
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    let mut short = options("dev");
    short.start = Some("2024-01-06".into());
    let first = world.try_plan(&short).expect("a plan");
    world.apply(&first);
    assert!(find(&first, "mart.users").table.as_ref().is_some_and(|table| table.dev), "not for production");
    // The next plan covers all of time, so that production could take the table over; but it is about
    // another model, and fills none for this one.
    world.model(
        "mart.other",
        INCREMENTAL,
        "SELECT ds, id FROM stg.events WHERE ds BETWEEN @start_ds AND @end_ds",
    );
    let second = world.plan_and_apply("dev");
    assert!(!missing(&second, "mart.other").is_empty());
    assert_eq!((missing(&second, "mart.users").as_str(), find(&second, "mart.users").create), ("", false));
    assert_eq!(find(&second, "mart.users").table, find(&first, "mart.users").table);
    // A plan that is about it moves it to the table that it fills.
    let mut all = options("dev");
    all.include_unmodified = true;
    let third = world.try_plan(&all).expect("a plan");
    assert!(find(&third, "mart.users").table.as_ref().is_some_and(|table| !table.dev));
    assert_eq!(missing(&third, "mart.users"), "01-01..01-08");
}

#[test]
fn a_throwaway_table_that_was_never_made_isnt_complete() {
    let mut world = world();
    world.plan_and_apply("prod");
    let filtered = format!("{STAGED} AND amount > 1");
    world.model("stg.events", INCREMENTAL, &filtered);
    let mut forward = options("prod");
    forward.forward_only = true;
    let planned = world.try_plan(&forward).expect("a plan");
    world.apply(&planned);
    world.model("stg.events", INCREMENTAL, STAGED);
    world.plan_and_apply("prod");
    // The forward-only change again, in development: nothing ever filled its throwaway table.
    world.model("stg.events", INCREMENTAL, &filtered);
    let planned = world.plan("dev");
    assert!(find(&planned, "stg.events").table.as_ref().is_some_and(|table| table.dev));
    assert_eq!(missing(&planned, "stg.events"), "01-01..01-08");
}

#[test]
fn a_throwaway_table_has_one_record_whoever_filled_it() {
    let mut world = world();
    world.plan_and_apply("dev");
    world.write("seeds/raw.csv", "id,ds,amount,more\n1,2024-01-01,10,1\n2,2024-01-02,20,2\n");
    let columns = "columns (id INT, ds DATE, amount INT, more INT)";
    world.model("raw.events", &format!("kind SEED (path '../seeds/raw.csv'), {columns}"), "");
    let mut asked = options("dev");
    asked.start = Some("2024-01-03".into());
    let first = world.try_plan(&asked).expect("a plan");
    world.apply(&first);
    // Another environment that comes to the same definitions by another way.
    world.model(
        "raw.events",
        &format!("kind SEED (path '../seeds/raw.csv'), {columns}, description 'd'"),
        "",
    );
    asked = options("dev2");
    asked.start = Some("2024-01-06".into());
    let second = world.try_plan(&asked).expect("a plan");
    world.apply(&second);
    assert_ne!(find(&second, "mart.top").snapshot, find(&first, "mart.top").snapshot);
    assert_eq!(find(&second, "mart.top").table, find(&first, "mart.top").table);
    asked.start = Some("2024-01-03".into());
    asked.include_unmodified = true;
    let third = world.try_plan(&asked).expect("a plan");
    assert_eq!(missing(&third, "mart.top"), "");
}

#[test]
fn ranges_that_end_before_they_start_are_empty() {
    let mut world = empty();
    world.model(
        "a.weekly",
        &format!("{INCREMENTAL}, cron '@weekly', start '2024-01-08'"),
        "SELECT CAST('2024-01-08' AS DATE) AS ds",
    );
    world.model(
        "a.later",
        &format!("{INCREMENTAL}, start '2024-02-01'"),
        "SELECT CAST('2024-01-08' AS DATE) AS ds",
    );
    world.model(
        "a.ended",
        &format!("{INCREMENTAL}, start '2024-01-05', end '2024-01-03'"),
        "SELECT CAST('2024-01-08' AS DATE) AS ds",
    );
    let planned = world.plan("prod");
    for name in ["a.weekly", "a.later", "a.ended"] {
        assert_eq!(missing(&planned, name), "", "{name}");
        assert!(find(&planned, name).create, "the table is made all the same");
    }
    world.plan_and_apply("prod");
    let mut inverted = options("dev");
    inverted.include_unmodified = true;
    inverted.start = Some("2024-01-06".into());
    inverted.end = Some("2024-01-02".into());
    if let Ok(planned) = world.try_plan(&inverted) {
        assert!(!planned.plan.requires_backfill());
    }
}

#[test]
fn a_run_of_development_fills_the_tables_that_it_shows() {
    let mut world = world();
    world.plan_and_apply("prod");
    world.model("mart.users", "kind FULL", "SELECT id, 1 AS total FROM stg.events");
    let mut bounded = options("dev");
    bounded.start = Some("2024-01-06".to_owned());
    let planned = world.try_plan(&bounded).expect("a plan");
    world.apply(&planned);
    world.now = crate::world::at("2024-01-09 12:00:00");
    let run = world.run("dev");
    let users = find(&run, "mart.users");
    assert!(users.fills.is_none() && users.table.as_ref().is_some_and(|table| table.dev));
    assert_eq!(missing(&run, "mart.users"), "01-08..01-09");
}

#[test]
fn columns_that_a_kind_takes_along_make_its_change_breaking() {
    let query = "SELECT id, CAST(SUM(amount) AS INT) AS total FROM stg.events GROUP BY id";
    let mut world = world();
    let dimension = "kind SCD_TYPE_2_BY_COLUMN (unique_key id, columns [total])";
    world.model("mart.totals", dimension, query);
    world.model("mart.sum", "kind FULL", "SELECT CAST(SUM(total) AS INT) AS total FROM mart.totals");
    world.plan_and_apply("prod");
    world.model("mart.totals", "kind INCREMENTAL_BY_UNIQUE_KEY (unique_key id)", query);
    let planned = world.plan("dev");
    let category = |name| find(&planned, name).category.expect("it changes");
    assert_eq!(category("mart.totals"), Category::Breaking);
    assert_eq!(
        category("mart.sum"),
        Category::IndirectBreaking,
        "its rows came from those that were closed, too"
    );
}

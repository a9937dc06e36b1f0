//! Where plans differ from SQLMesh's on purpose; `docs/differences.md` says why.

use coord_common::plan::views;

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

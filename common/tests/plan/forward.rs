//! Changes that keep their tables.

use coord_common::interval::{Interval, IntervalSet};
use coord_common::plan::{Change, PlanError, PlanOptions, Planned};

use crate::world::{INCREMENTAL, STAGED, World, at, find, missing, options, world};

const FORWARD: &str = "kind INCREMENTAL_BY_TIME_RANGE (time_column ds, forward_only true)";

fn live(kind: &str) -> World {
    let mut world = world();
    world.model("stg.events", kind, STAGED);
    world.plan_and_apply("prod");
    world
}

fn forward(environment: &str, effective_from: Option<&str>) -> PlanOptions {
    PlanOptions {
        forward_only: true,
        effective_from: effective_from.map(str::to_owned),
        ..options(environment)
    }
}

fn planned(world: &World, options: &PlanOptions) -> Result<Planned, PlanError> {
    world.try_plan(options)
}

fn days(start: &str, end: &str) -> IntervalSet {
    Interval::new(at(start), at(end)).into_iter().collect()
}

#[test]
fn a_preview_computes_one_day_and_takes_the_rest_as_there() {
    let mut world = live(FORWARD);
    world.model("stg.events", FORWARD, &STAGED.replace("AS amount FROM", "+ 1 AS amount FROM"));
    let preview = world.plan_and_apply("dev");
    let model = find(&preview, "stg.events");
    assert_eq!(missing(&preview, "stg.events"), "01-07..01-08");
    assert_eq!(model.assumed, days("2024-01-01", "2024-01-07"));
    assert!(model.table.as_ref().is_some_and(|table| table.dev) && !model.migrate);
    assert!(world.plan("dev").plan.is_empty());
    // Production takes it over in the same table, and computes nothing.
    let taken = world.plan_and_apply("prod");
    let model = find(&taken, "stg.events");
    assert!(model.migrate && model.missing.is_empty() && !model.create);
    let top = find(&taken, "mart.top");
    assert!(top.create && !top.migrate, "the view above it may have other columns, too: it is made anew");
    assert!(!find(&taken, "raw.events").migrate);
    assert!(world.plan("prod").plan.is_empty());
}

#[test]
fn without_previews_a_development_environment_computes_nothing() {
    let mut world = live(FORWARD);
    world.model("stg.events", FORWARD, &STAGED.replace("AS amount FROM", "+ 1 AS amount FROM"));
    let silent = PlanOptions { enable_preview: Some(false), ..options("dev") };
    assert!(!planned(&world, &silent).expect("a plan").plan.requires_backfill());
}

#[test]
fn from_its_effective_date_on_a_change_is_computed_in_production() {
    let mut world = live(INCREMENTAL);
    world.model("stg.events", INCREMENTAL, &STAGED.replace("AS amount FROM", "+ 1 AS amount FROM"));
    let taken = planned(&world, &forward("prod", Some("2024-01-05"))).expect("a plan");
    let model = find(&taken, "stg.events");
    assert_eq!(missing(&taken, "stg.events"), "01-05..01-08");
    assert_eq!(model.effective_from, Some(at("2024-01-05")));
    world.apply(&taken);
    assert!(world.plan("prod").plan.is_empty());
}

#[test]
fn an_effective_date_needs_a_forward_only_plan_and_lies_in_the_past() {
    let mut world = live(INCREMENTAL);
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    let alone = PlanOptions { forward_only: false, ..forward("prod", Some("2024-01-05")) };
    for (options, code) in
        [(alone, "effective-from-alone"), (forward("prod", Some("2024-02-01")), "effective-from-in-future")]
    {
        let error = planned(&world, &options).expect_err(code);
        assert_eq!(error.code, code);
        assert!(error.hint.is_some());
    }
}

#[test]
fn columns_go_and_come_only_where_the_model_or_the_plan_permits() {
    let strict =
        "kind INCREMENTAL_BY_TIME_RANGE (time_column ds, forward_only true, on_additive_change error)";
    let less = STAGED.replace(", CAST(amount AS INT) AS amount", "");
    let more = STAGED.replace("SELECT id", "SELECT id, 1 AS one");
    for (query, code, words) in
        [(&less, "destructive-change", "lose `amount`"), (&more, "additive-change", "get `one`")]
    {
        let mut world = live(strict);
        world.write("models/mart_daily.sql", "MODEL (name mart.daily, kind VIEW); SELECT ds FROM stg.events");
        world.write("models/mart_users.sql", "MODEL (name mart.users, kind VIEW); SELECT id FROM stg.events");
        world.write("models/mart_top.sql", "MODEL (name mart.top, kind VIEW); SELECT id FROM mart.users");
        world.model("stg.events", strict, query);
        let error = planned(&world, &options("dev")).expect_err(code);
        assert_eq!(error.code, code);
        assert!(error.message.contains(words), "{}", error.message);
        let name = vec!["stg.events".parse().expect("a name")];
        let allowed = PlanOptions { allow_destructive: name.clone(), allow_additive: name, ..options("dev") };
        assert!(planned(&world, &allowed).is_ok());
        let warns = strict.replace("error", "warn").replace("true,", "true, on_destructive_change warn,");
        world.model("stg.events", &warns, query);
        let kind = code.trim_end_matches("-change");
        let noted = planned(&world, &options("prod")).expect("a plan").plan.column_notes;
        assert_eq!(noted, [format!("{kind}:stg.events")]);
    }
}

#[test]
fn what_a_forward_only_change_left_behind_comes_back_as_a_new_snapshot() {
    let mut world = live(FORWARD);
    let first = find(&world.plan("prod"), "stg.events").snapshot;
    world.model("stg.events", FORWARD, &STAGED.replace("AS amount FROM", "+ 1 AS amount FROM"));
    world.plan_and_apply("prod");
    world.model("stg.events", FORWARD, STAGED);
    let back = world.plan_and_apply("prod");
    let model = find(&back, "stg.events");
    assert_ne!(model.snapshot, first);
    assert_eq!((model.change, missing(&back, "stg.events").as_str()), (Change::DirectlyModified, ""));
    // Those below had followed it in their tables: they are made anew.
    assert_eq!(missing(&back, "mart.daily"), "01-01..01-08");
    assert!(world.plan("prod").plan.is_empty(), "the same files lead to the same snapshots");
}

#[test]
fn a_development_environment_never_fills_a_table_of_productions_that_it_may_not_hand_over() {
    let mut world = live(FORWARD);
    world.model("stg.events", FORWARD, &STAGED.replace("AS amount FROM", "+ 1 AS amount FROM"));
    world.plan_and_apply("prod");
    // A day later, with a change elsewhere.
    world.now = at("2024-01-09 12:00:00");
    world.model("mart.top", "kind VIEW", "SELECT id, total FROM mart.users WHERE total > 16");
    let dev = planned(
        &world,
        &PlanOptions { execution_time: Some("2024-01-09 12:00:00".to_owned()), ..options("dev") },
    );
    let dev = dev.expect("a plan");
    let model = find(&dev, "stg.events");
    assert_eq!(missing(&dev, "stg.events"), "01-08..01-09");
    assert!(model.table.as_ref().is_some_and(|table| !table.dev), "it shows production's table");
    assert!(model.filled().is_some_and(|table| table.dev), "and fills another one");
}

#[test]
fn a_view_that_keeps_its_version_is_made_beside_the_one_before_it_and_has_what_that_has() {
    let mut world = live(INCREMENTAL);
    let shown = |world: &World| {
        let prod = &world.environments[&"prod".parse().expect("a name")];
        prod.models[&"mart.top".parse().expect("a name")].clone()
    };
    let before = shown(&world);
    let recorded = |world: &World| world.tables[&shown(world).table.expect("a table")].done.clone();
    let done = recorded(&world);
    world.model("mart.top", "kind VIEW", "SELECT id, total FROM mart.users WHERE total > 16");
    let taken = planned(&world, &forward("prod", None)).expect("a plan");
    let top = find(&taken, "mart.top");
    assert!(top.create && !top.migrate && top.missing.is_empty(), "{top:?}");
    world.apply(&taken);
    let after = shown(&world);
    assert_ne!(before.relation, after.relation, "so the flip switches it, and going back does");
    let versions = [&before, &after].map(|model| world.records[&model.snapshot].version);
    assert_eq!(versions[0], versions[1]);
    assert_eq!(recorded(&world), done);
    assert!(world.plan("prod").plan.is_empty());
    // Metadata changes nothing about it.
    world.model("mart.top", "kind VIEW, owner somebody", "SELECT id, total FROM mart.users WHERE total > 16");
    let planned = world.plan_and_apply("prod");
    let top = find(&planned, "mart.top");
    assert!(!top.create && !top.migrate);
    assert_eq!(shown(&world).relation, after.relation);
}

#[test]
fn metadata_on_top_of_a_forward_only_change_leaves_productions_table_alone() {
    let mut world = live(FORWARD);
    world.model("stg.events", FORWARD, &STAGED.replace("AS amount FROM", "+ 1 AS amount FROM"));
    world.plan_and_apply("dev");
    let shown = |planned: &Planned| find(planned, "stg.events").table.clone().expect("a table");
    // A day later, its owner is another, or what it reads has another.
    world.now = at("2024-01-09 12:00:00");
    let owned = format!("{FORWARD}, owner somebody");
    world.model("stg.events", &owned, &STAGED.replace("AS amount FROM", "+ 1 AS amount FROM"));
    let later = PlanOptions { execution_time: Some("2024-01-09 12:00:00".to_owned()), ..options("dev") };
    let dev = planned(&world, &later).expect("a plan");
    assert!(shown(&dev).dev, "it shows what it showed");
    assert_eq!(missing(&dev, "stg.events"), "01-08..01-09");
    world.apply(&dev);
    // Once production has it, metadata that comes next is about production's rows.
    world.plan_and_apply("prod");
    world.model(
        "stg.events",
        &owned.replace("somebody", "x"),
        &STAGED.replace("AS amount FROM", "+ 1 AS amount FROM"),
    );
    let next = planned(&world, &options("dev")).expect("a plan");
    assert!(!shown(&next).dev);
    // What production shows itself is its own, whoever computes the next day of it.
    world.plan_and_apply("prod");
    world.model("mart.users", "kind FULL", "SELECT id, 1 AS total FROM stg.events");
    world.now = at("2024-01-10 12:00:00");
    let later = PlanOptions { execution_time: Some("2024-01-10 12:00:00".to_owned()), ..options("dev") };
    let dev = planned(&world, &later).expect("a plan");
    let events = find(&dev, "stg.events");
    assert!(events.fills.is_none() && !shown(&dev).dev, "{:?}", events.fills);
    assert_eq!(missing(&dev, "stg.events"), "01-08..01-10");
}

#[test]
fn a_table_of_its_own_knows_no_effective_date() {
    let mut world = live(INCREMENTAL);
    world.write("seeds/raw.csv", "id,ds,amount\n1,2024-01-01,11\n2,2024-01-02,20\n");
    let taken = planned(&world, &forward("dev", Some("2024-01-05"))).expect("a plan");
    assert_eq!(find(&taken, "raw.events").effective_from, None, "seeds keep no table");
    world.apply(&taken);
    let other = PlanOptions { start: Some("2024-01-03".to_owned()), ..options("dev2") };
    let shared = planned(&world, &other).expect("a plan");
    assert_eq!(missing(&shared, "raw.events"), "", "it is loaded already");
}

#[test]
fn a_start_that_leaves_out_what_lookback_computes_again_is_none_to_take_over_from() {
    let mut world = live(INCREMENTAL);
    let keys = "kind INCREMENTAL_BY_UNIQUE_KEY (unique_key id, lookback 2)";
    world.model("mart.keys", keys, "SELECT id, MAX(ds) AS ds FROM stg.events GROUP BY id");
    world.model("mart.log", "kind INCREMENTAL_UNMANAGED", "SELECT id, ds FROM mart.keys");
    world.plan_and_apply("prod");
    world.now = at("2024-01-09 12:00:00");
    world.model("stg.events", INCREMENTAL, &STAGED.replace(" FROM", ", id + 1 AS next FROM"));
    let asked = PlanOptions { execution_time: Some("2024-01-09 12:00:00".to_owned()), ..options("dev") };
    let planned = planned(&world, &asked).expect("a plan");
    let table = |name| find(&planned, name).table.clone().expect("it has a table");
    assert!(!table("mart.keys").dev, "its rows are production's");
    assert!(table("mart.log").dev, "it follows rows that aren't");
}

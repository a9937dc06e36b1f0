//! Which time a plan covers, and what is wrong with a project before it comes to that.

use crate::world::{INCREMENTAL, STAGED, World, at, empty, find, missing, options, world};
use coord_common::plan::PlanOptions;

fn live() -> World {
    let mut world = world();
    world.plan_and_apply("prod");
    world
}

fn with(environment: &str, set: impl FnOnce(&mut PlanOptions)) -> PlanOptions {
    let mut options = options(environment);
    set(&mut options);
    options
}

#[test]
fn history_starts_with_the_earliest_parent_that_says_when() {
    let mut world = empty();
    let config = world.files["config.yaml"].replace("  start: '2024-01-01'\n", "");
    world.write("config.yaml", &config);
    world.model("a.early", "kind FULL, start '2024-01-02'", "SELECT 1 AS id");
    world.model("a.late", "kind FULL, start '2024-01-05'", "SELECT 1 AS id");
    world.model("b.both", "kind FULL", "SELECT e.id FROM a.early AS e JOIN a.late AS l ON e.id = l.id");
    world.model("c.own", "kind FULL, start '2024-01-06'", "SELECT id FROM b.both");
    world.model("d.none", "kind FULL", "SELECT 1 AS id");
    let planned = world.plan("prod");
    for (name, expected) in [
        ("a.early", "01-02..01-08"),
        ("a.late", "01-05..01-08"),
        ("b.both", "01-02..01-08"),
        ("c.own", "01-06..01-08"),
        ("d.none", "01-07..01-08"),
    ] {
        assert_eq!(missing(&planned, name), expected, "{name}");
    }
}

#[test]
fn plans_stop_at_production_unless_told_the_time() {
    let mut world = live();
    world.now = at("2024-01-10 12:00:00");
    assert!(world.plan("prod").plan.is_empty(), "only a run goes on");
    let told = with("prod", |options| options.execution_time = Some("2024-01-10 12:00:00".into()));
    assert_eq!(missing(&world.try_plan(&told).expect("a plan"), "stg.events"), "01-08..01-10");
    let running = with("prod", |options| options.run = true);
    assert_eq!(missing(&world.try_plan(&running).expect("a plan"), "mart.top"), "01-08..01-10");
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    assert_eq!(missing(&world.plan("dev"), "stg.events"), "01-01..01-08", "dev never runs ahead");
}

#[test]
fn a_run_goes_on_where_tables_end_and_loads_seeds_once() {
    let mut world = live();
    world.now = at("2024-01-10 12:00:00");
    let run = world.run("prod");
    for (name, expected) in [
        ("stg.events", "01-08..01-10"),
        ("mart.users", "01-08..01-10"),
        ("mart.top", "01-08..01-10"),
        ("raw.events", ""),
    ] {
        assert_eq!(missing(&run, name), expected, "{name}");
    }
    assert!(!run.plan.has_changes);
    world.apply(&run);
    assert!(world.run("prod").plan.is_empty());
}

#[test]
fn lookback_computes_the_days_before_again() {
    let mut world = world();
    let kind = "kind INCREMENTAL_BY_TIME_RANGE (time_column ds, lookback 2)";
    world.model("stg.events", kind, STAGED);
    world.plan_and_apply("prod");
    world.now = at("2024-01-09 12:00:00");
    let run = world.run("prod");
    assert_eq!(missing(&run, "stg.events"), "01-06..01-09");
    assert!(find(&run, "stg.events").redo && !find(&run, "mart.daily").redo);
}

#[test]
fn part_of_the_time_in_development_keeps_only_time_ranges_for_production() {
    let mut world = live();
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    let part = with("dev", |options| options.start = Some("2024-01-05".into()));
    let planned = world.try_plan(&part).expect("a plan");
    for (name, throwaway) in [("stg.events", false), ("mart.daily", false), ("mart.users", true)] {
        assert_eq!(missing(&planned, name), "01-05..01-08", "{name}");
        assert_eq!(find(&planned, name).table.as_ref().map(|table| table.dev), Some(throwaway), "{name}");
    }
    world.apply(&planned);
    let prod = world.plan("prod");
    assert_eq!(missing(&prod, "stg.events"), "01-01..01-05");
    assert_eq!(missing(&prod, "mart.users"), "01-01..01-08");
}

#[test]
fn a_selection_is_computed_with_what_it_reads() {
    let mut world = live();
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    let daily = "mart.daily".parse().expect("a name");
    let planned = world
        .try_plan(&with("dev", |options| options.backfill_models = Some([daily].into())))
        .expect("a plan");
    assert_eq!(missing(&planned, "mart.daily"), "01-01..01-08");
    assert_eq!(missing(&planned, "stg.events"), "01-01..01-08");
    assert_eq!(missing(&planned, "mart.users"), "");
}

#[test]
fn impossible_times_are_refused() {
    let mut world = live();
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    let times = |environment: &str, start: Option<&str>, end: Option<&str>| {
        with(environment, |options| {
            options.start = start.map(str::to_owned);
            options.end = end.map(str::to_owned);
        })
    };
    for (options, code) in [
        (times("prod", Some("2024-01-03"), None), "times-for-prod"),
        (times("prod", None, Some("2024-01-03")), "times-for-prod"),
        (times("dev", Some("2024-01-05"), Some("2024-01-03")), "times-turned-round"),
        (times("dev", None, Some("2024-02-01")), "end-in-future"),
        (times("dev", Some("2024-02-01"), None), "start-in-future"),
        (times("dev", Some("soon"), None), "bad-time"),
    ] {
        let error = world.try_plan(&options).expect_err(code);
        assert_eq!(error.code, code);
        assert!(error.hint.is_some(), "{code}");
    }
}

#[test]
fn models_in_a_circle_are_an_error() {
    let mut world = empty();
    world.model("a.one", "kind FULL", "SELECT id FROM a.two");
    world.model("a.two", "kind FULL", "SELECT id FROM a.one");
    world.model("a.three", "kind FULL", "SELECT id FROM a.two");
    let (_, snapshots, findings) = world.load();
    assert!(snapshots.by_name.is_empty());
    let cycle = findings.iter().find(|finding| finding.code == "cycle").expect("a finding");
    assert!(cycle.is_error() && cycle.message.ends_with("`a.one`, `a.two`"), "{}", cycle.message);
}

#[test]
fn an_unknown_table_is_external_and_maybe_misspelt() {
    let mut world = world();
    world.model("mart.typo", "kind FULL", "SELECT id FROM stg.event");
    let (_, snapshots, findings) = world.load();
    let finding = findings.iter().find(|finding| finding.code == "unknown-table").expect("a finding");
    assert!(!finding.is_error());
    assert!(finding.hint.as_deref().is_some_and(|hint| hint.contains("`stg.events`")), "{finding:?}");
    let typo = &snapshots.by_name[&"mart.typo".parse().expect("a name")];
    assert_eq!(typo.foreign, ["stg.event".parse().expect("a name")]);
}

#[test]
fn a_model_in_another_dialect_than_its_gateway_is_planned_with_a_warning() {
    let mut world = world();
    world.model("mart.pg", "kind FULL, dialect postgres", "SELECT id FROM stg.events");
    let (_, _, findings) = world.load();
    let finding = findings.iter().find(|finding| finding.code == "dialect-mismatch").expect("a finding");
    assert!(!finding.is_error() && finding.hint.is_some());
}

#[test]
fn lookback_reaches_days_that_stand_alone_and_are_complete() {
    let mut world = world();
    let kind = "kind INCREMENTAL_BY_TIME_RANGE (time_column ds, lookback 2)";
    world.model("stg.events", kind, STAGED);
    world.plan_and_apply("prod");
    world.model("stg.events", kind, &format!("{STAGED} AND amount > 1"));
    let part = world.try_plan(&with("dev", |options| options.start = Some("2024-01-04".into())));
    world.apply(&part.expect("a plan"));
    let prod = world.plan("prod");
    assert_eq!(missing(&prod, "stg.events"), "01-01..01-04 01-06..01-08");
    assert!(find(&prod, "stg.events").anew, "its last days were complete before");
}

#[test]
fn what_a_least_count_of_ticks_cuts_short_is_no_table_for_production() {
    let mut world = live();
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    let few = world.try_plan(&with("dev", |options| options.min_intervals = Some(2))).expect("a plan");
    for (name, throwaway) in [("stg.events", false), ("mart.daily", false), ("mart.users", true)] {
        assert_eq!(missing(&few, name), "01-06..01-08", "{name}");
        assert_eq!(find(&few, name).table.as_ref().map(|table| table.dev), Some(throwaway), "{name}");
    }
    world.apply(&few);
    let later = with("dev", |options| options.start = Some("2024-01-07".into()));
    assert!(!world.try_plan(&later).expect("a plan").plan.requires_backfill());
}

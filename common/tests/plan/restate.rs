//! Restatements: what is computed again, and what must be forgotten elsewhere.

use coord_common::interval::Timestamp;
use coord_common::plan::{Planned, Purpose, Refusal};

use crate::world::{INCREMENTAL, STAGED, World, at, find, missing, options, world};

/// Plans a restatement of what an environment holds.
fn restate(world: &World, environment: &str, model: &str, start: &str, end: &str) -> Planned {
    let mut options = options(environment);
    options.restate_models = vec![model.parse().expect("a name")];
    options.start = Some(start.to_owned());
    options.end = Some(end.to_owned());
    world.plan_held(&options, Purpose::Change).expect("a plan")
}

fn live() -> World {
    let mut world = world();
    world.plan_and_apply("prod");
    world
}

#[test]
fn a_restated_range_reaches_everything_below_and_full_models_whole() {
    let world = live();
    let planned = restate(&world, "prod", "stg.events", "2024-01-03", "2024-01-04");
    assert!(planned.plan.restates && !planned.plan.has_changes && !planned.plan.is_empty());
    for (name, expected) in [
        ("raw.events", ""),
        ("stg.events", "01-03..01-05"),
        ("mart.daily", "01-03..01-05"),
        ("mart.users", "01-01..01-08"),
        ("mart.top", "01-01..01-08"),
    ] {
        assert_eq!(missing(&planned, name), expected, "{name}");
        assert_eq!(find(&planned, name).restatement.is_some(), !expected.is_empty(), "{name}");
    }
    assert!(planned.plan.clears.is_empty(), "nobody has other tables");
}

#[test]
fn changes_in_files_dont_count_in_a_restatement() {
    let mut world = live();
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    let planned = restate(&world, "prod", "mart.daily", "2024-01-03", "2024-01-03");
    assert!(!planned.plan.has_changes && planned.new_records.is_empty());
    assert_eq!(missing(&planned, "mart.daily"), "01-03..01-04");
}

#[test]
fn restating_an_hour_restates_the_days_that_read_it() {
    let mut world = world();
    world.model("stg.events", &format!("{INCREMENTAL}, cron '@hourly'"), STAGED);
    world.plan_and_apply("prod");
    let planned = restate(&world, "prod", "stg.events", "2024-01-03 04:00:00", "2024-01-03 06:00:00");
    let hours = find(&planned, "stg.events").missing.ranges().to_vec();
    assert_eq!(hours.len(), 1);
    assert_eq!((hours[0].start, hours[0].end), (at("2024-01-03 04:00:00"), at("2024-01-03 06:00:00")));
    assert_eq!(missing(&planned, "mart.daily"), "01-03..01-04");
}

#[test]
fn what_forbids_restatement_is_refused_and_carries_nothing_on() {
    let mut world = world();
    let kind = "kind INCREMENTAL_BY_TIME_RANGE (time_column ds, disable_restatement true)";
    world.model("stg.events", kind, STAGED);
    world.plan_and_apply("prod");
    let planned = restate(&world, "prod", "stg.events", "2024-01-03", "2024-01-04");
    let name = "stg.events".parse().expect("a name");
    assert_eq!(planned.plan.refused.get(&name), Some(&Refusal::Disabled));
    assert!(planned.plan.is_empty());
    // A seed has the file's rows, whatever the time: it is left alone without a word.
    let planned = restate(&world, "prod", "raw.events", "2024-01-03", "2024-01-04");
    assert!(planned.plan.is_empty() && planned.plan.refused.is_empty());
}

#[test]
fn production_tables_cant_be_restated_from_development() {
    let mut world = live();
    world.model("mart.top", "kind VIEW", "SELECT id FROM mart.users WHERE total > 15");
    world.plan_and_apply("dev");
    let planned = restate(&world, "dev", "stg.events", "2024-01-03", "2024-01-04");
    let name = "stg.events".parse().expect("a name");
    assert_eq!(planned.plan.refused.get(&name), Some(&Refusal::InProduction));
    assert_eq!(missing(&planned, "mart.top"), "");
    let planned = restate(&world, "dev", "mart.top", "2024-01-03", "2024-01-04");
    assert_eq!(missing(&planned, "mart.top"), "01-01..01-08");
}

#[test]
fn restating_production_clears_the_range_in_tables_of_other_environments_and_of_kept_snapshots() {
    let mut world = live();
    let clears = |planned: &Planned| -> Vec<(String, bool)> {
        let whole = |clear: &coord_common::plan::Clear| clear.range.start == Timestamp::MIN;
        planned.plan.clears.iter().map(|clear| (clear.table.model.to_string(), whole(clear))).collect()
    };
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    world.plan_and_apply("dev");
    let expected: Vec<(String, bool)> =
        [("mart.daily", false), ("mart.top", true), ("mart.users", true), ("stg.events", false)]
            .map(|(name, whole)| (name.to_owned(), whole))
            .into();
    let planned = restate(&world, "prod", "stg.events", "2024-01-03", "2024-01-04");
    assert_eq!(clears(&planned), expected);
    let range = planned.plan.clears[0].range;
    assert_eq!((range.start, range.end), (at("2024-01-03"), at("2024-01-05")));
    // Only what reads the restated model in that environment.
    let planned = restate(&world, "prod", "mart.daily", "2024-01-03", "2024-01-04");
    assert_eq!(clears(&planned), [("mart.daily".to_owned(), false)]);
    // Another change in development: tables of the snapshots that no environment shows any more
    // would otherwise be promoted with the old rows.
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 2"));
    world.plan_and_apply("dev");
    let planned = restate(&world, "prod", "stg.events", "2024-01-03", "2024-01-04");
    assert_eq!(clears(&planned).len(), 2 * expected.len());
    // In development nothing is cleared elsewhere.
    let planned = restate(&world, "dev", "stg.events", "2024-01-03", "2024-01-04");
    assert!(planned.plan.clears.is_empty() && !planned.plan.is_empty());
}

#[test]
fn tables_that_no_environment_shows_stay_on_record_and_are_computed_again_before_they_are_shown() {
    let mut world = live();
    let old = world.files.clone();
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    world.plan_and_apply("prod");
    let planned = restate(&world, "prod", "stg.events", "2024-01-03", "2024-01-04");
    let clears = &planned.plan.clears;
    assert_eq!(clears.len(), 4, "the tables that production showed before");
    assert!(clears.iter().all(|clear| clear.on_record));
    for clear in clears {
        if let Some(table) = world.tables.get_mut(&clear.table) {
            table.done.remove(clear.range);
        }
    }
    // Whoever goes back to them gets new rows.
    world.files = old;
    let planned = world.plan("prod");
    assert_eq!(missing(&planned, "stg.events"), "01-03..01-05");
    assert_eq!(missing(&planned, "mart.users"), "01-01..01-08");
}

#[test]
fn tables_below_that_production_doesnt_know_and_no_environment_shows_any_more_are_cleared_on_record() {
    let mut world = live();
    world.model(
        "mart.extra",
        INCREMENTAL,
        "SELECT ds, amount FROM stg.events WHERE ds BETWEEN @start_ds AND @end_ds",
    );
    world.model(
        "mart.more",
        INCREMENTAL,
        "SELECT ds, amount FROM mart.extra WHERE ds BETWEEN @start_ds AND @end_ds",
    );
    world.plan_and_apply("dev");
    world.environments.remove(&"dev".parse().expect("a name"));
    let planned = restate(&world, "prod", "stg.events", "2024-01-03", "2024-01-04");
    let cleared: Vec<_> =
        planned.plan.clears.iter().map(|clear| (clear.table.model.to_string(), clear.on_record)).collect();
    assert_eq!(cleared, [("mart.extra".to_owned(), true), ("mart.more".to_owned(), true)]);
}

#[test]
fn restating_production_leaves_throwaway_tables_alone() {
    let mut world = live();
    world.model("stg.events", INCREMENTAL, &STAGED.replace("CAST(amount AS INT)", "CAST(amount + 1 AS INT)"));
    let mut preview = options("dev");
    preview.forward_only = true;
    let planned = world.try_plan(&preview).expect("a preview");
    assert!(find(&planned, "stg.events").table.as_ref().is_some_and(|table| table.dev));
    world.apply(&planned);
    let planned = restate(&world, "prod", "stg.events", "2024-01-03", "2024-01-04");
    assert_eq!(planned.plan.clears, [], "they are never promoted");
}

#[test]
fn a_model_that_the_environment_doesnt_hold_cant_be_restated() {
    let world = live();
    let mut options = options("prod");
    options.restate_models = vec!["mart.nothing".parse().expect("a name")];
    let error = world.plan_held(&options, Purpose::Change).expect_err("unknown");
    assert_eq!(error.code, "unknown-model");
}

#[test]
fn a_run_restates_by_itself_what_is_due_and_everything_below_once() {
    let mut world = world();
    let kind = "kind INCREMENTAL_BY_TIME_RANGE (time_column ds, auto_restatement_cron '@weekly', \
                auto_restatement_intervals 3)";
    world.model("stg.events", kind, STAGED);
    world.plan_and_apply("prod");
    // 8 January 2024 is a Monday; the cron ticks on Sundays.
    world.now = at("2024-01-13 12:00:00");
    let run = world.run("prod");
    assert_eq!(missing(&run, "stg.events"), "01-08..01-13");
    assert!(run.plan.auto_restated.is_empty());
    world.apply(&run);
    world.now = at("2024-01-14 12:00:00");
    let dev_like = {
        let mut bounded = options("prod");
        bounded.start = Some("2024-01-13".to_owned());
        world.plan_held(&bounded, Purpose::Run).expect("a run")
    };
    assert_eq!(missing(&dev_like, "stg.events"), "01-13..01-14");
    let run = world.run("prod");
    for (name, expected) in [
        ("raw.events", ""),
        ("stg.events", "01-11..01-14"),
        ("mart.daily", "01-11..01-14"),
        ("mart.users", "01-01..01-14"),
    ] {
        assert_eq!(missing(&run, name), expected, "{name}");
    }
    assert_eq!(run.plan.auto_restated.len(), 1);
    // Until a run is through the table stays due: a failed one does it again.
    assert_eq!(world.run("prod").plan.auto_restated.len(), 1);
    world.apply(&run);
    world.now = at("2024-01-15 12:00:00");
    assert_eq!(missing(&world.run("prod"), "stg.events"), "01-14..01-15");
}

#[test]
fn a_selection_that_leaves_out_something_below_leaves_the_restatement_for_later() {
    let mut world = world();
    let kind = "kind INCREMENTAL_BY_TIME_RANGE (time_column ds, auto_restatement_cron '@daily')";
    world.model("stg.events", kind, STAGED);
    world.plan_and_apply("prod");
    world.now = at("2024-01-09 12:00:00");
    let mut asked = options("prod");
    let mut run = |selector: &str| {
        asked.selectors.select = vec![selector.to_owned()];
        let planned = world.propose_and_plan(&asked, Purpose::Run).expect("a run");
        (missing(&planned, "stg.events"), planned.plan.auto_restated.len())
    };
    assert_eq!(run("mart.daily"), ("01-08..01-09".to_owned(), 0));
    assert_eq!(run("stg.events+"), ("01-01..01-09".to_owned(), 1));
}

#[test]
fn windows_that_lie_over_a_restated_day_are_restated_and_so_is_what_reads_them() {
    let mut world = world();
    let rolling = "SELECT d.ds, CAST(SUM(p.amount) AS INT) AS total FROM stg.events AS d JOIN stg.events AS p \
        ON p.ds BETWEEN d.ds - INTERVAL 2 DAY AND d.ds WHERE d.ds BETWEEN @start_date AND @end_date \
        AND p.ds BETWEEN @start_date - INTERVAL 2 DAY AND @end_date GROUP BY d.ds";
    world.model("mart.rolling", INCREMENTAL, rolling);
    let copy = "SELECT ds, total FROM mart.rolling WHERE ds BETWEEN @start_ds AND @end_ds";
    world.model("mart.copied", INCREMENTAL, copy);
    world.plan_and_apply("prod");
    let planned = restate(&world, "prod", "stg.events", "2024-01-03", "2024-01-03");
    for (name, expected) in [
        ("stg.events", "01-03..01-04"),
        ("mart.daily", "01-03..01-04"),
        ("mart.rolling", "01-03..01-06"),
        ("mart.copied", "01-03..01-06"),
    ] {
        assert_eq!(missing(&planned, name), expected, "{name}");
    }
    // No further than what is complete.
    let planned = restate(&world, "prod", "stg.events", "2024-01-07", "2024-01-07");
    assert_eq!(missing(&planned, "mart.rolling"), "01-07..01-08");
}

#[test]
fn windows_over_a_restated_day_are_seen_through_views() {
    let mut world = world();
    let rolling = |of: &str, back: u8| {
        format!(
            "SELECT d.ds, CAST(SUM(p.amount) AS INT) AS amount FROM {of} AS d JOIN {of} AS p ON p.ds BETWEEN d.ds - \
             INTERVAL {back} DAY AND d.ds WHERE d.ds BETWEEN @start_date AND @end_date AND p.ds BETWEEN @start_date \
             - INTERVAL {back} DAY AND @end_date GROUP BY d.ds"
        )
    };
    world.model("mart.shown", "kind VIEW", "SELECT ds, amount FROM stg.events WHERE amount > 0");
    world.model("mart.renamed", "kind VIEW", "SELECT ds, amount FROM mart.shown");
    world.model("mart.rolling", INCREMENTAL, &rolling("mart.renamed", 2));
    // What is wider by now goes on through the next view, to windows and to what reads no more than its days.
    world.model("mart.again", "kind VIEW", "SELECT * FROM mart.rolling");
    world.model(
        "mart.copied",
        INCREMENTAL,
        "SELECT ds, amount FROM mart.again WHERE ds BETWEEN @start_ds AND @end_ds",
    );
    world.model("mart.wider", INCREMENTAL, &rolling("mart.again", 1));
    // A view that moves days can't be seen through: the same days, as SQLMesh.
    world.model("mart.moved", "kind VIEW", "SELECT ds + INTERVAL 1 DAY AS ds, amount FROM stg.events");
    world.model("mart.follows", INCREMENTAL, &rolling("mart.moved", 2));
    world.plan_and_apply("prod");
    let planned = restate(&world, "prod", "stg.events", "2024-01-02", "2024-01-02");
    for (name, expected) in [
        ("stg.events", "01-02..01-03"),
        ("mart.daily", "01-02..01-03"),
        ("mart.rolling", "01-02..01-05"),
        ("mart.copied", "01-02..01-05"),
        ("mart.wider", "01-02..01-06"),
        ("mart.follows", "01-02..01-03"),
    ] {
        assert_eq!(missing(&planned, name), expected, "{name}");
    }
}

#[test]
fn a_run_of_development_fills_throwaway_tables_from_the_models_start_on() {
    let mut world = world();
    let kind = "kind INCREMENTAL_BY_TIME_RANGE (time_column ds, auto_restatement_cron '@weekly')";
    world.model("stg.events", kind, STAGED);
    world.plan_and_apply("prod");
    world.model("stg.events", kind, &format!("{STAGED} AND amount > 1"));
    let mut bounded = options("dev");
    bounded.start = Some("2024-01-06".to_owned());
    let planned = world.try_plan(&bounded).expect("a plan");
    assert_eq!(missing(&planned, "stg.events"), "01-06..01-08");
    world.apply(&planned);
    world.now = at("2024-01-09 12:00:00");
    let planned = world.plan_held(&options("dev"), Purpose::Run).expect("a run");
    // It is computed again by itself, so it is never production's, wherever development starts.
    assert!(find(&planned, "stg.events").table.as_ref().is_some_and(|table| table.dev));
    assert_eq!(missing(&planned, "stg.events"), "01-01..01-06 01-08..01-09");
}

#[test]
fn what_development_restates_whole_it_shows() {
    let mut world = live();
    world.model("stg.events", INCREMENTAL, &STAGED.replace(" FROM", ", id + 1 AS next FROM"));
    let first = world.plan_and_apply("dev");
    let shared =
        |planned: &Planned| find(planned, "mart.daily").table.as_ref().is_some_and(|table| !table.dev);
    assert!(shared(&first), "its rows are production's");
    let part = restate(&world, "dev", "stg.events", "2024-01-03", "2024-01-04");
    assert!(shared(&part));
    let whole = restate(&world, "dev", "stg.events", "2024-01-01", "2024-01-08");
    assert_eq!(missing(&whole, "mart.daily"), "01-01..01-08");
    assert!(!shared(&whole), "nothing of production's table is left for it");
}

//! What users may choose: categories, starts, other baselines; and what keeps a plan from being applied.

use coord_common::plan::{Change, Choice, PlanOptions, Planned, Purpose, stages};

use crate::world::{INCREMENTAL, STAGED, World, at, find, missing, options, summary, world};

fn live() -> World {
    let mut world = world();
    world.plan_and_apply("prod");
    world
}

/// A plan with some options.
fn ask(world: &World, environment: &str, change: impl FnOnce(&mut PlanOptions)) -> Planned {
    let mut options = options(environment);
    change(&mut options);
    world.propose_and_plan(&options, Purpose::Change).expect("a plan")
}

fn blockers(planned: &Planned) -> Vec<&str> {
    planned.plan.blockers.iter().map(|blocker| blocker.code.as_str()).collect()
}

#[test]
fn what_isnt_decided_by_itself_must_be_chosen() {
    let base = live();
    let config = base.files["config.yaml"].clone();
    let added = "SELECT id, SUM(amount) AS total, MAX(amount) AS most FROM stg.events GROUP BY id";
    let other = "SELECT id, CAST(MAX(amount) AS INT) AS total FROM stg.events GROUP BY id";
    let added = added.replace("SUM(amount)", "CAST(SUM(amount) AS INT)");
    for (mode, query, flag, expected) in [
        ("full", other, false, vec![]),
        ("semi", added.as_str(), false, vec![]),
        ("semi", other, false, vec!["uncategorized"]),
        ("\"off\"", added.as_str(), false, vec!["uncategorized"]),
        ("full", added.as_str(), true, vec!["uncategorized"]),
    ] {
        let mut world = live();
        let mode_text = format!("plan:\n  auto_categorize_changes:\n    sql: {mode}\n");
        world.write("config.yaml", &format!("{config}{mode_text}"));
        world.model("mart.users", "kind FULL", query);
        let planned = ask(&world, "dev", |options| options.no_auto_categorization = flag);
        assert_eq!(blockers(&planned), expected, "{mode} {query}");
        let users: coord_common::id::ModelName = "mart.users".parse().expect("a name");
        let chosen = ask(&world, "dev", |options| {
            options.no_auto_categorization = flag;
            options.categorize.insert(users.clone(), Choice::NonBreaking);
        });
        assert!(blockers(&chosen).is_empty(), "{mode}");
    }
}

#[test]
fn a_promotion_that_would_lose_ranges_is_blocked_when_that_is_asked() {
    let mut world = live();
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    let gaps = |skip: bool, no_gaps: bool| {
        let planned = ask(&world, "prod", |options| {
            options.skip_backfill = skip;
            options.no_gaps = no_gaps;
        });
        let models = planned.plan.blockers.iter().flat_map(|blocker| &blocker.models);
        models.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(gaps(true, true), ["mart.daily", "stg.events"]);
    assert!(gaps(false, true).is_empty() && gaps(true, false).is_empty());
}

#[test]
fn production_never_shows_tables_that_a_selection_leaves_unfilled() {
    let mut world = live();
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    let select =
        |selector: &str| ask(&world, "prod", |options| options.selectors.select = vec![selector.to_owned()]);
    let planned = select("stg.events");
    assert_eq!(blockers(&planned), ["selection-unfilled"]);
    assert!(planned.plan.blockers[0].models.iter().any(|name| name.as_str() == "mart.daily"));
    assert!(blockers(&select("stg.events+")).is_empty());
}

#[test]
fn a_view_that_a_selection_leaves_out_is_made_all_the_same() {
    let mut world = live();
    world.model("stg.events", INCREMENTAL, &STAGED.replace("SELECT id", "SELECT id, 1 AS one"));
    let planned = ask(&world, "prod", |options| options.selectors.select = vec!["stg.events".to_owned()]);
    let top = find(&planned, "mart.top");
    assert!(top.create && top.missing.is_empty(), "it reads what is below it");
    assert_eq!(blockers(&planned), [""; 0]);
}

#[test]
fn at_least_so_many_ticks_are_considered_and_parents_cover_their_children() {
    let mut world = live();
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    world.model(
        "mart.daily",
        &format!("{INCREMENTAL}, cron '@weekly'"),
        "SELECT ds, 1 AS total FROM stg.events WHERE ds BETWEEN @start_ds AND @end_ds",
    );
    let planned = ask(&world, "dev", |options| {
        options.start = Some("1 day ago".to_owned());
        options.min_intervals = Some(2);
    });
    assert_eq!(missing(&planned, "mart.users"), "01-06..01-08");
    // A week before the last Sunday, and one more: before the project's start.
    assert_eq!(missing(&planned, "mart.daily"), "01-01..01-07");
    assert_eq!(missing(&planned, "stg.events"), "01-01..01-08");
}

#[test]
fn a_new_environment_starts_from_the_one_that_is_named() {
    let mut world = live();
    world.model("mart.users", "kind FULL", "SELECT id, 1 AS total FROM stg.events");
    world.plan_and_apply("dev");
    let from = |name: &str| {
        let mut asked = options("dev2");
        asked.create_from = Some(name.parse().expect("a name"));
        world.propose_and_plan(&asked, Purpose::Change)
    };
    assert_eq!(from("dev").expect_err("it is the same").code, "no-changes");
    assert_eq!(find(&from("prod").expect("a plan"), "mart.users").change, Change::DirectlyModified);
    let empty = from("nowhere").expect("a plan");
    assert!(summary(&empty).iter().all(|(_, change, ..)| *change == Change::Added));
}

#[test]
fn what_isnt_computed_because_nothing_is_to_be_is_still_told() {
    let mut world = live();
    world.now = at("2024-01-09 12:00:00");
    world.model("mart.users", "kind FULL", "SELECT id, 1 AS total FROM stg.events");
    let planned = ask(&world, "dev", |options| options.skip_backfill = true);
    let users = find(&planned, "mart.users");
    assert!(users.missing.is_empty() && !users.skipped.is_empty());
    assert!(!planned.plan.requires_backfill());
}

#[test]
fn where_nothing_is_computed_ranges_alone_are_no_reason_to_apply() {
    let mut world = live();
    world.now = at("2024-01-09 12:00:00");
    let later = |options: &mut PlanOptions| options.execution_time = Some("2024-01-09 12:00:00".to_owned());
    assert!(!ask(&world, "prod", later).plan.is_empty());
    let declared = ask(&world, "prod", |options| {
        later(options);
        options.empty_backfill = true;
    });
    assert!(!find(&declared, "stg.events").missing.is_empty() && declared.plan.is_empty());
    let skipped = ask(&world, "prod", |options| {
        later(options);
        options.skip_backfill = true;
    });
    assert!(skipped.plan.is_empty());
}

#[test]
fn a_view_that_is_made_anew_without_a_backfill_is_as_complete_as_before() {
    let mut world = live();
    world.model("stg.events", INCREMENTAL, &STAGED.replace("SELECT id", "SELECT id, 1 AS one"));
    let planned = ask(&world, "prod", |options| options.skip_backfill = true);
    world.apply(&planned);
    let next = world.plan("prod");
    assert_eq!(
        (missing(&next, "stg.events").as_str(), missing(&next, "mart.top").as_str()),
        ("01-01..01-08", "")
    );
}

#[test]
fn the_stages_of_a_plan_are_told_in_their_order() {
    let mut world = live();
    let names = |planned: &Planned| stages(&planned.plan).iter().map(|s| s.stage).collect::<Vec<_>>();
    assert!(names(&world.plan("prod")).is_empty());
    world.model("mart.users", "kind FULL", "SELECT id, 1 AS total FROM stg.events");
    world.remove("mart.top");
    let planned = world.plan("dev");
    assert_eq!(names(&planned), ["record", "create", "backfill", "promote"]);
    let promoted = stages(&planned.plan).pop().expect("a last stage").models;
    assert_eq!(promoted.len(), 2);
    let planned = ask(&world, "dev", |options| options.empty_backfill = true);
    assert_eq!(names(&planned), ["record", "create", "assume", "promote"]);
}

#[test]
fn an_environment_that_is_always_made_anew_is_compared_with_production() {
    let mut world = live();
    let config = world.files["config.yaml"].clone();
    world.write("config.yaml", &format!("{config}plan:\n  always_recreate_environment: true\n"));
    world.model("mart.users", "kind FULL", "SELECT id, 1 AS total FROM stg.events");
    world.plan_and_apply("dev");
    let again = world.plan("dev");
    assert_eq!(find(&again, "mart.users").change, Change::DirectlyModified);
    assert_eq!(again.plan.base_seq, 1);
}

#[test]
fn an_empty_backfill_of_development_declares_nothing_of_a_table_that_only_production_writes() {
    let mut world = live();
    let parts = "kind INCREMENTAL_BY_PARTITION, partitioned_by (id)";
    world.model("mart.parts", parts, "SELECT id, ds FROM stg.events");
    world.model("mart.count", "kind FULL", "SELECT COUNT(*) AS n FROM mart.parts");
    world.plan_and_apply("prod");
    world.model("mart.count", "kind FULL", "SELECT COUNT(*) + 1 AS n FROM mart.parts");
    let planned = ask(&world, "dev", |options| options.empty_backfill = true);
    let model = find(&planned, "mart.parts");
    assert!(!model.assumed.is_empty() && model.table.as_ref().is_some_and(|table| !table.dev));
    assert!(model.declared().is_some_and(|table| table.dev));
}

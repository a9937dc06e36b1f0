//! Plans of a part of the project: what is selected comes from the files, all else from the environment.

use coord_common::plan::{Change, PlanError, PlanOptions, Planned, Purpose};

use crate::world::{INCREMENTAL, STAGED, World, missing, options, summary, world};

fn select(world: &World, environment: &str, selectors: &[&str]) -> Result<Planned, PlanError> {
    let mut options = options(environment);
    options.selectors.select = selectors.iter().map(ToString::to_string).collect();
    world.propose_and_plan(&options, Purpose::Change)
}

/// Production is live; `stg.events` and `mart.daily` were edited, and `mart.new` was added.
fn edited() -> World {
    let mut world = world();
    world.plan_and_apply("prod");
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    world.model(
        "mart.daily",
        INCREMENTAL,
        "SELECT ds, 1 AS total FROM stg.events WHERE ds BETWEEN @start_ds AND @end_ds",
    );
    world.model("mart.new", "kind FULL", "SELECT id FROM mart.users");
    world
}

#[test]
fn unselected_edits_and_additions_stay_out() {
    let planned = select(&edited(), "dev", &["mart.daily"]).expect("a plan");
    let touched: Vec<_> = summary(&planned).into_iter().map(|(name, change, ..)| (name, change)).collect();
    assert_eq!(touched, [("mart.daily".to_owned(), Change::DirectlyModified)]);
    assert!(planned.plan.models.iter().all(|model| model.name.as_str() != "mart.new"));
}

#[test]
fn what_reads_a_selected_model_changes_with_it_but_only_the_selection_is_computed() {
    let planned = select(&edited(), "dev", &["stg.events"]).expect("a plan");
    let change = |name: &str| planned.plan.models.iter().find(|m| m.name.as_str() == name).map(|m| m.change);
    assert_eq!(change("stg.events"), Some(Change::DirectlyModified));
    assert_eq!(change("mart.daily"), Some(Change::IndirectlyModified));
    assert_eq!(missing(&planned, "stg.events"), "01-01..01-08");
    assert_eq!(missing(&planned, "mart.daily"), "");
    let shown = |name: &str| {
        planned.plan.target.iter().find(|(n, _)| n.as_str() == name).expect("there").1.view.is_some()
    };
    assert!(shown("stg.events") && !shown("mart.daily"));
}

#[test]
fn a_selected_model_without_a_file_is_removed_and_an_unselected_one_stays() {
    let mut world = edited();
    world.remove("mart.daily");
    world.remove("mart.new");
    let planned = select(&world, "dev", &["mart.d*"]).expect("a plan");
    let touched: Vec<_> = summary(&planned).into_iter().map(|(name, change, ..)| (name, change)).collect();
    assert_eq!(touched, [("mart.daily".to_owned(), Change::Removed)]);
    let planned = select(&world, "dev", &["stg.events"]).expect("a plan");
    assert!(planned.plan.models.iter().all(|model| model.change != Change::Removed));
}

#[test]
fn a_selection_that_picks_nothing_is_refused_with_what_is_near() {
    for (selector, code, hint) in [
        ("mart.dayly", "unknown-model", "did you mean `mart.daily`?"),
        ("zzz.*", "unknown-model", "`coordctl dag` lists the models"),
        ("mart.daily |", "bad-selector", ""),
    ] {
        let error = select(&edited(), "dev", &[selector]).expect_err("nothing");
        assert_eq!(error.code, code, "{selector}");
        assert!(error.hint.is_some_and(|text| text.starts_with(hint)), "{selector}");
    }
}

#[test]
fn selectors_of_a_run_and_of_a_restatement_pick_from_the_environment() {
    let world = edited();
    let mut asked = options("prod");
    asked.execution_time = Some("2024-01-09 12:00:00".to_owned());
    asked.selectors.select = vec!["mart.daily".to_owned()];
    let run = |asked: &PlanOptions| world.propose_and_plan(asked, Purpose::Run).expect("a run");
    let planned = run(&asked);
    assert_eq!(
        (missing(&planned, "mart.daily"), missing(&planned, "mart.users")),
        ("01-08..01-09".into(), "".into())
    );
    assert_eq!(missing(&planned, "stg.events"), "01-08..01-09");
    asked.no_auto_upstream = true;
    assert_eq!(missing(&run(&asked), "stg.events"), "");
    let mut asked = options("prod");
    asked.selectors.restate = vec!["mart.* & ^mart.new".to_owned()];
    let planned = world.propose_and_plan(&asked, Purpose::Change).expect("a plan");
    assert_eq!(planned.plan.models.iter().filter(|model| model.restatement.is_some()).count(), 3);
    asked.selectors.restate.push("mart.new".to_owned());
    let error = world.propose_and_plan(&asked, Purpose::Change).expect_err("it isn't in production");
    assert_eq!(error.code, "unknown-model");
}

#[test]
fn a_selection_beside_a_restatement_leaves_nothing_below_it_out() {
    let world = edited();
    let mut asked = options("prod");
    asked.selectors.restate = vec!["stg.events".to_owned()];
    asked.start = Some("2024-01-04".to_owned());
    let all = world.propose_and_plan(&asked, Purpose::Change).expect("a plan");
    asked.selectors.select = vec!["mart.daily".to_owned()];
    let planned = world.propose_and_plan(&asked, Purpose::Change).expect("a plan");
    for name in ["stg.events", "mart.daily", "mart.users", "mart.top"] {
        assert!(!missing(&planned, name).is_empty(), "{name}");
        assert_eq!(missing(&planned, name), missing(&all, name), "{name}");
    }
}

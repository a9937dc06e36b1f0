//! Standalone audits: nodes of their own, without rows.

use coord_common::interval::{IntervalSet, Timestamp};
use coord_common::plan::{Change, PlanOptions, Planned, Purpose, Selectors, document};
use coord_common::snapshot::Category;

use crate::world::{STAGED, World, at, find, options, world};

fn audit(world: &mut World, properties: &str, query: &str) {
    world.write("audits/totals.sql", &format!("AUDIT (name totals, {properties});\n{query}\n"));
}

const QUERY: &str = "SELECT * FROM mart.users WHERE total < 0";

/// A project with an audit of `mart.users`, in production.
fn live() -> World {
    let mut world = world();
    audit(&mut world, "standalone true", QUERY);
    world.plan_and_apply("prod");
    world
}

fn looked_at(planned: &Planned) -> Vec<String> {
    let day = |time: Timestamp| time.to_string()[5..10].to_owned();
    let ranges = |set: &IntervalSet| set.ranges().to_vec();
    let found = ranges(&find(planned, "totals").missing);
    found.into_iter().map(|range| format!("{}..{}", day(range.start), day(range.end))).collect()
}

#[test]
fn an_audit_is_planned_beside_models_and_shows_nothing() {
    let mut world = world();
    audit(&mut world, "standalone true", QUERY);
    let planned = world.plan("prod");
    let model = find(&planned, "totals");
    assert_eq!((model.change, model.kind.as_str()), (Change::Added, "AUDIT"));
    assert_eq!(looked_at(&planned), ["01-01..01-08"], "it starts with what it reads");
    let shown = &planned.plan.target[&"totals".parse().unwrap()];
    assert!(shown.promoted && shown.view.is_none() && shown.relation.is_none());
    let written = serde_json::to_value(document(&planned.plan, None)).unwrap();
    let written =
        written["models"].as_array().unwrap().iter().find(|m| m["name"] == "totals").cloned().unwrap();
    assert_eq!(written["missing_intervals"], serde_json::json!([]), "only rows can be missing");
    assert_eq!(written["batches"].as_array().unwrap().len(), 1);
    world.apply(&planned);
    assert!(world.plan("prod").plan.is_empty());
}

#[test]
fn an_audit_that_is_added_alone_needs_no_backfill_and_runs() {
    let mut world = world();
    world.plan_and_apply("prod");
    audit(&mut world, "standalone true", QUERY);
    for environment in ["dev", "prod"] {
        let planned = world.plan(environment);
        assert_eq!(looked_at(&planned), ["01-01..01-08"], "{environment}");
        let written = serde_json::to_value(document(&planned.plan, None)).unwrap();
        assert_eq!((&written["has_changes"], &written["requires_backfill"]), (&true.into(), &false.into()));
    }
}

#[test]
fn another_query_or_cron_is_metadata_and_looks_at_nothing_again() {
    for (properties, query) in [
        ("standalone true", "SELECT * FROM mart.users WHERE total < 1"),
        ("standalone true, cron '@weekly'", QUERY),
        ("standalone true, owner me, stamp again", QUERY),
    ] {
        let mut world = live();
        audit(&mut world, properties, query);
        let planned = world.plan("prod");
        let model = find(&planned, "totals");
        let changed = (model.change, model.category, model.missing.is_empty());
        assert_eq!(
            changed,
            (Change::MetadataUpdated, Some(Category::Metadata), true),
            "{properties} {query}"
        );
        assert!(
            planned
                .plan
                .models
                .iter()
                .all(|other| other.name == model.name || other.change == Change::Unchanged)
        );
    }
}

#[test]
fn a_breaking_change_above_has_the_audit_look_at_all_of_it_again() {
    let mut world = live();
    world.model("stg.events", crate::world::INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    let planned = world.plan("dev");
    let model = find(&planned, "totals");
    assert_eq!(
        (model.change, model.category),
        (Change::IndirectlyModified, Some(Category::IndirectBreaking))
    );
    assert_eq!(looked_at(&planned), ["01-01..01-08"]);
    // What a development environment has looked at counts for production.
    world.apply(&planned);
    assert_eq!(looked_at(&world.plan("prod")), [""; 0]);
}

#[test]
fn an_unknown_star_below_a_model_doesnt_make_its_changes_breaking() {
    let mut world = live();
    audit(
        &mut world,
        "standalone true",
        "SELECT * FROM mart.users AS u JOIN elsewhere.things AS t ON u.id = t.id",
    );
    world.plan_and_apply("prod");
    world.model(
        "mart.users",
        "kind FULL",
        "SELECT id, CAST(SUM(amount) AS INT) AS total, 1 AS one FROM stg.events GROUP BY id",
    );
    let planned = world.plan("dev");
    assert_eq!(find(&planned, "mart.users").category, Some(Category::NonBreaking));
    assert_eq!(find(&planned, "totals").category, Some(Category::IndirectNonBreaking));
}

#[test]
fn audits_have_their_own_cron() {
    let mut world = world();
    audit(&mut world, "standalone true, cron '@weekly'", QUERY);
    assert_eq!(looked_at(&world.plan("prod")), ["01-01..01-07"], "weeks end on Sundays");
    world.plan_and_apply("prod");
    world.now = at("2024-01-16 12:00:00");
    let asked = PlanOptions { execution_time: Some("2024-01-16 12:00:00".to_owned()), ..options("prod") };
    assert_eq!(looked_at(&world.try_plan(&asked).unwrap()), ["01-07..01-14"]);
}

#[test]
fn audits_cant_be_selected_and_come_from_the_files() {
    let mut world = live();
    let select = |texts: &[&str]| PlanOptions {
        selectors: Selectors {
            select: texts.iter().map(ToString::to_string).collect(),
            ..Selectors::default()
        },
        ..options("dev")
    };
    audit(&mut world, "standalone true", "SELECT * FROM mart.users WHERE total < 1");
    world.model("mart.top", "kind VIEW", "SELECT id FROM mart.users WHERE total > 16");
    let planned = world.propose_and_plan(&select(&["mart.top"]), Purpose::Change).unwrap();
    assert_eq!(find(&planned, "totals").change, Change::MetadataUpdated);
    assert_eq!(
        world.propose_and_plan(&select(&["totals"]), Purpose::Change).unwrap_err().code,
        "unknown-model"
    );
}

#[test]
fn a_restatement_has_audits_below_look_again() {
    let world = live();
    let asked = PlanOptions {
        restate_models: vec!["stg.events".parse().unwrap()],
        start: Some("2024-01-05".to_owned()),
        ..options("prod")
    };
    assert_eq!(looked_at(&world.try_plan(&asked).unwrap()), ["01-05..01-08"]);
}

#[test]
fn what_a_standalone_audit_cant_be() {
    for (properties, query, code) in [
        ("standalone true, blocking true", QUERY, "conflicting-properties"),
        ("standalone true, cron '@never'", QUERY, "invalid-cron"),
        ("standalone true, kind FULL", QUERY, "unknown-property"),
        ("standalone true", "SELEC 1", "no-query"),
    ] {
        let mut world = world();
        audit(&mut world, properties, query);
        let (.., findings) = world.load();
        let codes: Vec<_> = findings.iter().filter(|f| f.is_error()).map(|f| f.code.to_string()).collect();
        assert_eq!(codes, [code], "{properties}");
    }
    let mut world = world();
    audit(&mut world, "standalone true", QUERY);
    world.model("totals", "kind FULL", "SELECT 1 AS one");
    world.model("mart.other", "kind FULL, audits (totals)", "SELECT 1 AS one");
    let (.., findings) = world.load();
    let codes: Vec<_> = findings.iter().filter(|f| f.is_error()).map(|f| f.code.to_string()).collect();
    assert_eq!(codes, ["unknown-audit", "duplicate-model"]);
}

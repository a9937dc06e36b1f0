//! Batches, audits and views that fail.

use coord_tests::cli::{executed, executed_in_all, plan_id};
use coord_tests::fleet::{Fleet, FleetOptions};
use coord_tests::project::{Project, logged, sales};

use crate::workers::assert_all_is_done_once;

/// The sales project with a condition of the doubled model's query, and more properties.
fn doubled(project: &Project, properties: &str, column: &str) {
    project.write(
        "models/doubled.sql",
        &format!(
            "MODEL (name shop.doubled, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 2){properties});\n\nSELECT day, item, {column} AS amount FROM shop.daily WHERE day BETWEEN @start_date AND @end_date{}",
            logged("doubled")
        ),
    );
}

/// Applies prod's plan while it must fail, mends the cause, and applies the same plan again.
fn fails_then_resumes(fleet: &Fleet, says: &str, status: &str) {
    let cli = fleet.cli();
    let id = plan_id(&cli.plan(&[]));
    let failed = cli.run(&["apply", &id, "--format", "json"]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    let error = failed.error();
    assert_eq!(error["code"], "plan-failed", "{error}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("shop.doubled") && message.contains(says), "{message}");
    assert!(message.contains("not computed: 2 models further down"), "{message}");
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("apply it again")), "{error}");
    assert_eq!(fleet.plan_state(&id), "failed");
    assert_eq!(fleet.revision("prod"), None, "the pointer stays where it was");
    let ran = failed.json();
    assert_eq!(executed(&ran, "shop.doubled", status), 1, "{ran}");
    assert_eq!(executed(&ran, "shop.doubled", "ok"), 19, "siblings are done: {ran}");
    assert_eq!(executed(&ran, "shop.totals", "ok"), 1, "siblings are done: {ran}");
    let early =
        fleet.sql("SELECT COUNT(*) FROM public.batch_log WHERE model = 'rolling' AND batch > '2024-01-05'");
    assert_eq!(early, [["0"]], "what reads the failed batch is skipped");
    let before = fleet.committed();

    fleet.sql("UPDATE public.switch SET broken = 0");
    let again = cli.json(&["apply", &id]);
    assert_eq!(executed(&again, "shop.doubled", "ok"), 1, "only what is left: {again}");
    let left = executed_in_all(&again) as i64;
    assert!((61 - before..=61 - before + 1).contains(&left), "{left} after {before}");
    assert_eq!(fleet.revision("prod"), Some(1));
    assert_all_is_done_once(fleet);
}

const SWITCH: &str = "CREATE TABLE public.switch AS SELECT 1 AS broken";

#[test]
fn a_failing_audit_fails_the_plan_and_the_same_plan_resumes() {
    let project = sales();
    doubled(&project, ", audits (assert_switch)", "amount * 2");
    project.write(
        "audits/assert_switch.sql",
        "AUDIT (name assert_switch);\n\nSELECT * FROM @this_model WHERE day = '2024-01-05' AND (SELECT broken FROM public.switch) = 1\n",
    );
    let fleet = Fleet::start(FleetOptions::default(), project);
    fleet.sql(SWITCH);
    fails_then_resumes(&fleet, "assert_switch", "audit_failed");
}

#[test]
fn a_failing_batch_fails_the_plan_and_the_same_plan_resumes() {
    let project = sales();
    let column = "amount * 2 / (CASE WHEN day = '2024-01-05' AND (SELECT broken FROM public.switch) = 1 THEN 0 ELSE 1 END)";
    doubled(&project, "", column);
    let fleet = Fleet::start(FleetOptions::default(), project);
    fleet.sql(SWITCH);
    fails_then_resumes(&fleet, "division by zero", "error");
}

#[test]
fn views_that_could_not_be_switched_are_switched_by_applying_again() {
    let fleet = Fleet::start(FleetOptions::default(), sales());
    fleet.sql("CREATE SCHEMA shop; CREATE TABLE shop.totals (other INT)");
    let cli = fleet.cli();
    let id = plan_id(&cli.plan(&[]));
    let failed = cli.run(&["apply", &id, "--format", "json"]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    assert!(failed.error()["message"].as_str().is_some_and(|said| said.contains("totals")), "{failed:#?}");
    assert_eq!(
        fleet.count("SELECT COUNT(*) FROM pg_views WHERE schemaname = 'shop'"),
        0,
        "all views or none"
    );
    fleet.sql("DROP TABLE shop.totals");
    let again = cli.json(&["apply", &id]);
    assert_eq!(executed_in_all(&again), 0, "{again}");
    assert_eq!(fleet.plan_state(&id), "finished");
    assert_all_is_done_once(&fleet);
}

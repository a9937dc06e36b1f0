//! Queries that hang.

use std::time::{Duration, Instant};

use coord_tests::cli::{Cli, plan_id};
use coord_tests::fleet::{Fleet, FleetOptions, Permit, wait_until};
use coord_tests::project::{Project, logged, sales};

use crate::run::{Run, undisturbed_run_of};

/// Sales of which one batch hangs for as long as a switch is on, in a model with session properties.
fn hanging(properties: &str) -> Project {
    let project = sales();
    project.write(
        "models/doubled.sql",
        &format!(
            "MODEL (name shop.doubled, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 2){properties});\n\nSELECT day, item, amount * 2 AS amount FROM shop.daily WHERE day BETWEEN @start_date AND @end_date AND (SELECT PG_SLEEP(CASE WHEN @start_ds = '2024-01-05' AND EXISTS (SELECT 1 FROM pg_class WHERE relname = 'hangs') THEN 600 ELSE 0 END)) IS NOT NULL{}",
            logged("doubled")
        ),
    );
    project
}

const HANGING: &str =
    "SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep'";

#[test]
fn a_batch_that_hangs_is_stopped_in_the_warehouse_after_its_models_timeout() {
    let project = || hanging(", session_properties (batch_timeout = '1 second')");
    let undisturbed = undisturbed_run_of(project());
    let fleet = Fleet::start(FleetOptions { retry_base: 50, ..FleetOptions::default() }, project());
    fleet.sql("CREATE TABLE public.hangs ()");
    let mut run = Run::start_on("hang", fleet, undisturbed, 0.0);
    wait_until("a query that hangs", || run.fleet.count(HANGING) > 0);
    run.injected.add("query hung");
    wait_until("the plan's end", || run.state().as_deref() == Some("failed"));
    assert_eq!(run.fleet.count(HANGING), 0, "nothing of it is left in the warehouse");
    let said = run.fleet.cli().run(&["watch", &run.id]).stderr;
    assert!(said.contains("took longer than 1s and was stopped"), "{said}");
    assert!(said.contains("batch_timeout"), "{said}");
    assert_eq!(run.fleet.revision("prod"), None);
    run.fleet.sql("DROP TABLE public.hangs");
    run.end_resuming(1);
}

#[test]
fn a_plan_that_is_cancelled_stops_its_query_in_the_warehouse_within_seconds() {
    let project = || hanging("");
    let undisturbed = undisturbed_run_of(project());
    // As long as leases are by default: hearts beat every five seconds.
    let fleet = Fleet::start(FleetOptions { lease_ttl: 30_000, ..FleetOptions::default() }, project());
    fleet.sql("CREATE TABLE public.hangs ()");
    let mut run = Run::start_on("hang-cancelled", fleet, undisturbed, 0.0);
    wait_until("a query that hangs", || run.fleet.count(HANGING) > 0);
    run.injected.add("query hung");
    run.fleet.cli().ok(&["cancel", &run.id]);
    let asked = Instant::now();
    wait_until("its end", || run.fleet.count(HANGING) == 0);
    assert!(asked.elapsed() < Duration::from_secs(15), "it took {:?}", asked.elapsed());
    wait_until("the plan's end", || run.state().as_deref() == Some("cancelled"));
    run.fleet.sql("DROP TABLE public.hangs");
    run.fleet.cli().ok(&["apply", &run.id, "--detach"]);
    run.end();
}

#[test]
fn a_batch_that_hangs_in_duckdb_is_interrupted() {
    let _permit = Permit::wait();
    let project = Project::new(&[
        (
            "config.yaml",
            "gateways:\n  duckdb:\n    connection:\n      type: duckdb\n      database: db.db\nmodel_defaults:\n  dialect: duckdb\n  start: 2024-01-01\n  session_properties:\n    batch_timeout: 1 second\n",
        ),
        (
            "models/slow.sql",
            "MODEL (name m.slow, kind FULL);\nSELECT COUNT(*) AS n FROM RANGE(10000000) AS a, RANGE(10000000) AS b WHERE a.range * b.range % 7 = 3",
        ),
        ("models/quick.sql", "MODEL (name m.quick, kind FULL);\nSELECT 1 AS n"),
    ]);
    let cli = Cli::embedded(project.path()).now("2024-02-10 00:00:00");
    let id = plan_id(&cli.plan(&[]));
    let failed = cli.run(&["apply", &id]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    assert!(failed.stderr.contains("took longer than 1s and was stopped"), "{failed:#?}");
    project.write("models/slow.sql", "MODEL (name m.slow, kind FULL);\nSELECT 7 AS n");
    cli.plan_and_apply(&[]);
    assert_eq!(cli.ok(&["fetch", "SELECT n FROM m.slow", "--format", "csv"]).stdout.trim(), "n\n7");
}

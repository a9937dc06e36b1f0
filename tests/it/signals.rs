//! Signals and statements around plans, through the command line.

use coord_tests::cli::{Cli, executed, plan_id};
use coord_tests::fleet::Permit;
use coord_tests::project::Project;

const CONFIG: &str = "gateways:\n  duckdb:\n    connection:\n      type: duckdb\n      database: db.db\nmodel_defaults:\n  dialect: duckdb\n  start: 2024-01-01\n";

const DAYS: &str = "MODEL (name m.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1), signals (loaded(source := 'raw.loads')));\nSELECT @start_date AS day, 1 AS one";
const LOADED: &str =
    "SELECT day, day + INTERVAL 1 DAY FROM @{source} WHERE day BETWEEN @start_date AND @end_date";

fn project(signal: &str) -> (Project, Cli) {
    let project = Project::new(&[
        ("config.yaml", CONFIG),
        ("models/days.sql", DAYS),
        (
            "models/below.sql",
            "MODEL (name m.below, kind INCREMENTAL_BY_TIME_RANGE (time_column day));\nSELECT day, one FROM m.days WHERE day BETWEEN @start_date AND @end_date",
        ),
        ("models/all.sql", "MODEL (name m.all, kind FULL);\nSELECT COUNT(*) AS days FROM m.below"),
        ("signals/loaded.sql", signal),
    ]);
    let cli = Cli::embedded(project.path()).now("2024-01-06 06:00:00");
    cli.ok(&["fetch", "CREATE SCHEMA raw"]);
    cli.ok(&[
        "fetch",
        "CREATE TABLE raw.loads AS SELECT DATE '2024-01-01' + n::INT AS day FROM unnest([0, 1, 3]) AS t(n)",
    ]);
    (project, cli)
}

fn first(cli: &Cli, sql: &str) -> String {
    let csv = cli.ok(&["fetch", sql, "--format", "csv"]).stdout;
    csv.lines().nth(1).unwrap_or_default().to_owned()
}

#[test]
fn only_ready_intervals_are_computed_and_what_is_below_waits() {
    let _permit = Permit::wait();
    let (_project, cli) = project(LOADED);
    let planned = cli.plan(&[]);
    assert_eq!(planned["models"][2]["signals"], serde_json::json!(["loaded"]), "{planned}");
    let applied = cli.json(&["apply", &plan_id(&planned)]);
    assert_eq!(executed(&applied, "m.days", "ok"), 3, "{applied}");
    assert_eq!(executed(&applied, "m.below", "ok"), 2, "batches are cut at what isn't ready: {applied}");
    assert_eq!(executed(&applied, "m.all", "ok"), 1, "up to the first day that isn't ready: {applied}");
    assert_eq!(
        first(&cli, "SELECT string_agg(day::TEXT, ' ' ORDER BY day) FROM m.below"),
        "2024-01-01 2024-01-02 2024-01-04"
    );

    // The late day comes: a run computes it and what waited for it.
    cli.ok(&["fetch", "INSERT INTO raw.loads VALUES (DATE '2024-01-03'), (DATE '2024-01-05')"]);
    let run = cli.json(&["run"]);
    assert_eq!(executed(&run, "m.days", "ok"), 2, "{run}");
    assert_eq!(first(&cli, "SELECT days FROM m.all"), "5");
    assert_eq!(cli.plan(&[])["requires_backfill"], false);
}

#[test]
fn a_signal_that_fails_is_named_and_nothing_is_computed() {
    let _permit = Permit::wait();
    let (project, cli) = project("SELECT a, b FROM raw.nowhere");
    let failed = cli.run(&["plan", "--auto-apply", "--format", "json"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let message = failed.error()["message"].to_string();
    assert!(message.contains("signal `loaded` of `m.days`"), "{message}");
    assert_ne!(cli.run(&["fetch", "SELECT * FROM m.days"]).code, Some(0), "no view was made");
    project.write("signals/loaded.sql", "SELECT @end_ts, @start_ts");
    let failed = cli.run(&["plan", "--auto-apply", "--format", "json"]);
    assert!(failed.error()["message"].to_string().contains("ends before it starts"), "{failed:?}");
    project.write("signals/loaded.sql", LOADED);
    assert_eq!(executed(&cli.plan_and_apply(&[]), "m.days", "ok"), 3);
}

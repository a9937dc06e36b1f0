//! Signals and statements around plans, through the command line.

use coord_tests::cli::{Cli, executed, plan_id};
use coord_tests::fleet::Permit;
use coord_tests::project::Project;

const CONFIG: &str = "gateways:\n  duckdb:\n    connection:\n      type: duckdb\n      database: db.db\nmodel_defaults:\n  dialect: duckdb\n  start: 2024-01-01\n";

const LOADED: &str =
    "SELECT day, day + INTERVAL 1 DAY FROM read_csv(@source) WHERE day BETWEEN @start_date AND @end_date";

fn project(signal: &str) -> (Project, Cli) {
    let project = Project::new(&[
        ("config.yaml", CONFIG),
        (
            "models/below.sql",
            "MODEL (name m.below, kind INCREMENTAL_BY_TIME_RANGE (time_column day));\nSELECT day, one FROM m.days WHERE day BETWEEN @start_date AND @end_date",
        ),
        ("models/all.sql", "MODEL (name m.all, kind FULL);\nSELECT COUNT(*) AS days FROM m.below"),
        ("signals/loaded.sql", signal),
        ("loads.csv", "day\n2024-01-01\n2024-01-02\n2024-01-04\n"),
    ]);
    let source = project.path().join("loads.csv");
    project.write(
        "models/days.sql",
        &format!(
            "MODEL (name m.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1), signals (loaded(source := '{}')));\nSELECT @start_date AS day, 1 AS one",
            source.display()
        ),
    );
    let cli = Cli::embedded(project.path()).now("2024-01-06 06:00:00");
    (project, cli)
}

fn first(cli: &Cli, sql: &str) -> String {
    let csv = cli.ok(&["fetch", sql, "--format", "csv"]).stdout;
    csv.lines().nth(1).unwrap_or_default().to_owned()
}

#[test]
fn only_ready_intervals_are_computed_and_what_is_below_waits() {
    let _permit = Permit::wait();
    let (project, cli) = project(LOADED);
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

    let check = |arguments: &[&str]| {
        let document = cli.json(&[&["check_intervals", "prod"], arguments].concat());
        let model = |model: &serde_json::Value| {
            let count = |key: &str| model[key].as_array().map_or(0, Vec::len);
            format!(
                "{} {} {}",
                model["model"].as_str().unwrap_or_default(),
                count("missing"),
                count("not_ready")
            )
        };
        document["models"].as_array().into_iter().flatten().map(model).collect::<Vec<_>>()
    };
    assert_eq!(check(&[]), ["m.all 0 1", "m.below 0 2", "m.days 0 2"]);
    assert_eq!(check(&["--no-signals"]), ["m.all 1 0", "m.below 2 0", "m.days 2 0"]);
    let days = ["--no-signals", "--select-model", "m.days", "-e", "2024-01-03"];
    assert_eq!(check(&days), ["m.days 1 0"]);

    // The late day comes: a run computes it and what waited for it.
    project.write("loads.csv", "day\n2024-01-01\n2024-01-02\n2024-01-03\n2024-01-04\n2024-01-05\n");
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

/// A project whose statements log themselves.
fn logged(query: &str) -> (Project, Cli) {
    let config = format!(
        "{CONFIG}before_all:\n- CREATE TABLE IF NOT EXISTS log (what TEXT, env TEXT)\n- INSERT INTO log VALUES ('before', @this_env)\nafter_all:\n- \"INSERT INTO log VALUES ('after', @this_env)\"\n"
    );
    let model = format!("MODEL (name m.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day));\n{query}");
    let project = Project::new(&[("config.yaml", &config), ("models/days.sql", &model)]);
    let cli = Cli::embedded(project.path()).now("2024-01-03 06:00:00");
    (project, cli)
}

fn log(cli: &Cli) -> String {
    first(cli, "SELECT string_agg(what || ':' || env, ' ') FROM log")
}

#[test]
fn statements_run_once_around_plans_and_runs_and_are_versioned_with_the_environment() {
    let _permit = Permit::wait();
    let (project, cli) = logged("SELECT @start_date AS day, 1 AS one");
    cli.plan_and_apply(&[]);
    assert_eq!(log(&cli), "before:prod after:prod");
    let idle = cli.plan(&[]);
    assert_eq!(idle["has_changes"], false, "{idle}");
    cli.ok(&["run"]);
    assert_eq!(log(&cli), "before:prod after:prod", "nothing was due");
    // A run takes the statements that the last plan brought, not the file's.
    project.write("config.yaml", CONFIG);
    cli.clone().now("2024-01-04 06:00:00").ok(&["run"]);
    assert_eq!(log(&cli), "before:prod after:prod before:prod after:prod");
    let without = cli.plan_and_apply(&[]);
    assert_eq!(without["has_changes"], true, "{without}");
    cli.clone().now("2024-01-05 06:00:00").ok(&["run"]);
    assert_eq!(log(&cli), "before:prod after:prod before:prod after:prod");
}

#[test]
fn a_failed_apply_that_is_resumed_runs_before_all_once_and_a_failed_run_after_all_too() {
    let _permit = Permit::wait();
    let (project, cli) = logged(
        "SELECT day, one FROM read_csv('@{folder}/in.csv', columns = {'day': 'DATE', 'one': 'INT'}) WHERE day BETWEEN @start_date AND @end_date",
    );
    let model = std::fs::read_to_string(project.path().join("models/days.sql")).expect("it was written");
    project.write("models/days.sql", &model.replace("@{folder}", &project.path().display().to_string()));
    project.write("in.csv", "");
    let id = plan_id(&cli.plan(&[]));
    project.remove("in.csv");
    assert_eq!(cli.run(&["apply", &id]).code, Some(1));
    assert_eq!(log(&cli), "before:prod");
    project.write("in.csv", "2024-01-01,1\n");
    cli.ok(&["apply", &id]);
    assert_eq!(log(&cli), "before:prod after:prod");
    project.remove("in.csv");
    assert_eq!(cli.clone().now("2024-01-04 06:00:00").run(&["run"]).code, Some(1));
    assert_eq!(log(&cli), "before:prod after:prod before:prod after:prod");
}

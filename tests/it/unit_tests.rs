//! Unit tests of models, before plans and by themselves.

use coord_tests::cli::Cli;
use coord_tests::fleet::Permit;
use coord_tests::postgres::Postgres;
use coord_tests::project::Project;

const CONFIG: &str = "gateways:\n  duckdb:\n    connection:\n      type: duckdb\n      database: db.db\ndefault_gateway: duckdb\nmodel_defaults:\n  dialect: duckdb\n  start: 2024-01-01\n";
const FULL: &str = "MODEL (name sqlmesh_example.full_model, kind FULL);\nSELECT item_id, COUNT(DISTINCT id) AS num_orders FROM sqlmesh_example.orders GROUP BY item_id";
/// As `sqlmesh init duckdb` writes it.
const TEST: &str = "test_example_full_model:\n  model: sqlmesh_example.full_model\n  inputs:\n    sqlmesh_example.orders:\n      rows:\n      - id: 1\n        item_id: 1\n      - id: 2\n        item_id: 1\n      - id: 3\n        item_id: 2\n  outputs:\n    query:\n      rows:\n      - item_id: 1\n        num_orders: 2\n      - item_id: 2\n        num_orders: 1\n";

fn project() -> Project {
    Project::new(&[
        ("config.yaml", CONFIG),
        (
            "models/orders.sql",
            "MODEL (name sqlmesh_example.orders, kind FULL);\nSELECT 1::INT AS id, 1::INT AS item_id",
        ),
        ("models/full_model.sql", FULL),
        ("tests/test_full_model.yaml", TEST),
    ])
}

#[test]
fn a_failing_unit_test_stops_the_plan_and_shows_the_rows_that_differ() {
    let _permit = Permit::wait();
    let project = project();
    let cli = Cli::embedded(project.path()).now("2024-01-10 00:00:00");
    let good = cli.ok(&["plan", "--no-prompts"]);
    assert!(good.stderr.contains("1 unit test passed"), "{good:?}");

    project.write("models/full_model.sql", &FULL.replace("DISTINCT id", "DISTINCT item_id"));
    let bad = cli.run(&["plan", "--auto-apply"]);
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert!(bad.stderr.contains("FAIL: test_example_full_model (tests/test_full_model.yaml:1:1)"), "{bad:?}");
    assert!(bad.stderr.contains("tests/test_full_model.yaml:15:1: 1 row differs"), "{bad:?}");
    assert!(bad.stderr.contains("num_orders expected  num_orders actual"), "{bad:?}");
    assert!(cli.json(&["environments"])["environments"].as_array().is_some_and(Vec::is_empty));
    let error = cli.run(&["plan", "--format", "json"]).error();
    assert_eq!(error["code"], "unit-tests-failed", "{error}");
    assert_eq!(error["at"], "tests/test_full_model.yaml:15:1", "{error}");

    let skipped = cli.ok(&["plan", "--no-prompts", "--skip-tests"]);
    assert!(!skipped.stderr.contains("unit test"), "{skipped:?}");
}

#[test]
fn only_tests_of_what_a_plan_touches_are_run_where_that_is_asked_for() {
    let _permit = Permit::wait();
    let project = project();
    let failing = TEST.replace("num_orders: 2", "num_orders: 5");
    project.write("tests/test_full_model.yaml", &failing);
    let cli = Cli::embedded(project.path()).now("2024-01-10 00:00:00");
    let both = cli.run(&["plan", "--test-changed-only", "--skip-tests"]);
    assert!(both.code == Some(1) && both.stderr.contains("cannot be used with"), "{both:?}");
    let touched = cli.run(&["plan", "--auto-apply", "--test-changed-only", "--format", "json"]);
    assert_eq!(touched.error()["code"], "unit-tests-failed", "{touched:?}");
    cli.ok(&["plan", "--auto-apply", "--skip-tests"]);
    // The model with the failing test stays as it is.
    project.write("models/more.sql", "MODEL (name m.more, kind FULL);\nSELECT 1::INT AS one");
    cli.ok(&["plan", "--auto-apply", "--test-changed-only"]);
    project.write("models/full_model.sql", &FULL.replace("AS num_orders", "AS num_orders, 1 AS one"));
    let selected = &["plan", "dev", "--test-changed-only", "--select-model", "m.more"];
    assert!(!cli.run(selected).stderr.contains("unit-tests-failed"));
    assert_eq!(cli.run(&["plan", "--test-changed-only"]).code, Some(1));
}

#[test]
fn tests_run_by_themselves_and_are_chosen_by_name() {
    let _permit = Permit::wait();
    let project = project();
    let other =
        TEST.replace("test_example_full_model", "test_other").replace("num_orders: 2", "num_orders: 5");
    project.write("tests/more/test_other.yaml", &other);
    let cli = Cli::embedded(project.path());
    let all = cli.run(&["test", "-v"]);
    assert_eq!(all.code, Some(1), "{all:?}");
    assert!(all.stdout.contains("tests/test_full_model.yaml::test_example_full_model ... ok"), "{all:?}");
    assert!(all.stdout.contains("tests/more/test_other.yaml::test_other ... FAIL"), "{all:?}");
    assert!(all.stdout.contains("1 of 2 unit tests failed"), "{all:?}");
    for chosen in [
        &["test", "tests/test_full_model.yaml"][..],
        &["test", "tests/test_full_model.yaml::test_example_full_model"],
        &["test", "-k", "example"],
        &["test", "-k", "*full_model"],
    ] {
        let one = cli.ok(chosen);
        assert!(one.stdout.contains("1 unit test passed"), "{one:?}");
    }
    let document = cli.run(&["test", "models/full_model.sql", "--format", "json"]);
    assert_eq!(document.code, Some(1), "{document:?}");
    let tests = document.json()["tests"].clone();
    let outcomes: Vec<&str> =
        tests.as_array().into_iter().flatten().filter_map(|test| test["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["failed", "passed"], "{tests}");
    assert_eq!(cli.run(&["test", "tests/test_nowhere.yaml"]).code, Some(1));
    let none = cli.ok(&["test", "--select-model", "sqlmesh_example.orders"]);
    assert!(none.stdout.contains("0 unit tests passed"), "{none:?}");
}

#[test]
fn a_machine_without_the_driver_plans_with_a_note() {
    let _permit = Permit::wait();
    let project = project();
    let bare = project.path().join("bare").display().to_string();
    let cli = Cli::embedded(project.path())
        .env("XDG_CACHE_HOME", &bare)
        .env("COORDCTL_DUCKDB_LIB", "")
        .env("LD_LIBRARY_PATH", "");
    let plan = cli.ok(&["plan", "--no-prompts"]);
    assert!(plan.stderr.contains("Unit tests were not run: DuckDB's library is not installed"), "{plan:?}");
    let test = cli.run(&["test"]);
    assert_eq!(test.code, Some(1), "{test:?}");
    assert!(test.stderr.contains("coordctl driver add duckdb"), "{test:?}");
}

#[test]
fn what_duckdb_cannot_read_is_skipped_and_said() {
    let _permit = Permit::wait();
    let project = project();
    project.write(
        "models/full_model.sql",
        "MODEL (name sqlmesh_example.full_model, kind FULL, dialect bigquery);\nSELECT item_id, COUNT(DISTINCT id) AS num_orders FROM sqlmesh_example.orders GROUP BY item_id",
    );
    let skipped = Cli::embedded(project.path()).ok(&["test"]);
    assert!(skipped.stdout.contains("skipped: models written in bigquery"), "{skipped:?}");
    assert!(skipped.stdout.contains("0 unit tests passed, 1 skipped"), "{skipped:?}");
}

#[test]
fn a_test_connection_runs_models_of_its_own_dialect() {
    let _permit = Permit::wait();
    let postgres = Postgres::start();
    let project = project();
    let port = postgres.port();
    let server = format!(
        "{{type: postgres, host: 127.0.0.1, port: {port}, user: postgres, password: secret, database: postgres}}"
    );
    project.write(
        "config.yaml",
        &format!("gateways:\n  pg:\n    connection: {server}\n    test_connection: {server}\ndefault_gateway: pg\nmodel_defaults: {{dialect: postgres, start: 2024-01-01}}\n"),
    );
    let cli = Cli::embedded(project.path());
    let good = cli.ok(&["test"]);
    assert!(good.stdout.contains("1 unit test passed"), "{good:?}");
    project.write("models/full_model.sql", &FULL.replace("DISTINCT id", "DISTINCT item_id"));
    let bad = cli.run(&["test"]);
    assert!(bad.stdout.contains("tests/test_full_model.yaml:15:1: 1 row differs"), "{bad:?}");
}

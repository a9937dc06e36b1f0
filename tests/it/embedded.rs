//! One process, SQLite and DuckDB: what a laptop runs.

use std::time::{Duration, Instant};

use coord_tests::cli::{Cli, executed, executed_in_all, plan_id};
use coord_tests::fleet::Permit;
use coord_tests::project::Project;

const CONFIG: &str = "gateways:\n  duckdb:\n    connection:\n      type: duckdb\n      database: db.db\n\ndefault_gateway: duckdb\n\nmodel_defaults:\n  dialect: duckdb\n  start: 2024-01-01\n  cron: '@daily'\n";

/// The project that `sqlmesh init duckdb` writes: an incremental model over a seed, a full model
/// with an audit.
fn example() -> Project {
    Project::new(&[
        ("config.yaml", CONFIG),
        (
            "models/seed_model.sql",
            "MODEL (\n  name sqlmesh_example.seed_model,\n  kind SEED (\n    path '../seeds/seed_data.csv'\n  ),\n  columns (\n    id INTEGER,\n    item_id INTEGER,\n    event_date DATE\n  ),\n  grain (id, event_date)\n);\n",
        ),
        (
            "seeds/seed_data.csv",
            "id,item_id,event_date\n1,2,2020-01-01\n2,1,2020-01-01\n3,3,2020-01-03\n4,1,2020-01-04\n5,1,2020-01-05\n6,1,2020-01-06\n7,1,2020-01-07\n",
        ),
        (
            "models/incremental_model.sql",
            "MODEL (\n  name sqlmesh_example.incremental_model,\n  kind INCREMENTAL_BY_TIME_RANGE (\n    time_column event_date\n  ),\n  start '2020-01-01',\n  cron '@daily',\n  grain (id, event_date)\n);\n\nSELECT\n  id,\n  item_id,\n  event_date,\nFROM\n  sqlmesh_example.seed_model\nWHERE\n  event_date BETWEEN @start_date AND @end_date\n",
        ),
        (
            "models/full_model.sql",
            "MODEL (\n  name sqlmesh_example.full_model,\n  kind FULL,\n  cron '@daily',\n  grain item_id,\n  audits (assert_positive_order_ids),\n);\n\nSELECT\n  item_id,\n  COUNT(DISTINCT id) AS num_orders,\nFROM\n  sqlmesh_example.incremental_model\nGROUP BY item_id\n",
        ),
        (
            "audits/assert_positive_order_ids.sql",
            "AUDIT (\n  name assert_positive_order_ids,\n);\n\nSELECT *\nFROM @this_model\nWHERE\n  item_id < 0\n",
        ),
        (
            "tests/test_full_model.yaml",
            "test_example_full_model:\n  model: sqlmesh_example.full_model\n  inputs:\n    sqlmesh_example.incremental_model:\n      rows:\n      - id: 1\n        item_id: 1\n  outputs:\n    query:\n      rows:\n      - item_id: 1\n        num_orders: 1\n",
        ),
        ("macros/__init__.py", ""),
        (".gitignore", ""),
    ])
}

fn rows(cli: &Cli, sql: &str) -> Vec<Vec<String>> {
    let csv = cli.ok(&["fetch", sql, "--format", "csv"]).stdout;
    csv.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

#[test]
fn the_example_project_of_sqlmesh_init_runs_unmodified() {
    let _permit = Permit::wait();
    let project = example();
    let cli = Cli::embedded(project.path()).now("2024-01-10 00:00:00");
    let first = cli.plan_and_apply(&[]);
    assert_eq!(executed(&first, "sqlmesh_example.full_model", "ok"), 1, "{first}");
    assert_eq!(
        rows(&cli, "SELECT * FROM sqlmesh_example.full_model ORDER BY item_id"),
        [["1", "5"], ["2", "1"], ["3", "1"]]
    );
    let again = cli.plan(&[]);
    assert_eq!(again["has_changes"], false, "{again}");
    assert_eq!(again["requires_backfill"], false, "{again}");

    // The change that SQLMesh's own tutorial makes: a column in a development environment first.
    project.write(
        "models/incremental_model.sql",
        "MODEL (\n  name sqlmesh_example.incremental_model,\n  kind INCREMENTAL_BY_TIME_RANGE (\n    time_column event_date\n  ),\n  start '2020-01-01',\n  cron '@daily',\n  grain (id, event_date)\n);\n\nSELECT\n  id,\n  item_id,\n  'z' AS new_column,\n  event_date,\nFROM\n  sqlmesh_example.seed_model\nWHERE\n  event_date BETWEEN @start_date AND @end_date\n",
    );
    let dev = cli.plan_and_apply(&["dev"]);
    assert_eq!(executed(&dev, "sqlmesh_example.incremental_model", "ok"), 1, "{dev}");
    assert_eq!(executed(&dev, "sqlmesh_example.full_model", "ok"), 0, "{dev}");
    let new = "SELECT DISTINCT new_column FROM sqlmesh_example__dev.incremental_model";
    assert_eq!(rows(&cli, new), [["z"]]);
    assert_ne!(cli.run(&["fetch", "SELECT new_column FROM sqlmesh_example.incremental_model"]).code, Some(0));
    let prod = cli.plan_and_apply(&["prod"]);
    assert_eq!(executed_in_all(&prod), 0, "prod takes dev's tables: {prod}");
    assert_eq!(
        rows(&cli, "SELECT COUNT(*) FROM sqlmesh_example.incremental_model WHERE new_column = 'z'"),
        [["7"]]
    );
}

/// DuckDB writes what is in its log into the file as it closes it. A process that ends under it may
/// leave a file that can't be opened any more.
#[test]
fn a_command_ends_after_duckdb_has_closed_its_file() {
    let _permit = Permit::wait();
    let project = example();
    let log = project.path().join("db.db.wal");
    Cli::embedded(project.path()).now("2024-01-05 06:00:00").plan_and_apply(&[]);
    assert!(!log.exists());
    for day in 6..12 {
        let cli = Cli::embedded(project.path()).now(&format!("2024-01-{day:02} 06:00:00"));
        cli.ok(&["run"]);
        assert!(!log.exists(), "after the run of day {day}");
        cli.ok(&["state"]);
        assert!(!log.exists(), "after the state of day {day}");
    }
}

#[test]
fn a_run_a_day_later_computes_that_day_alone() {
    let _permit = Permit::wait();
    let project = Project::new(&[
        ("config.yaml", CONFIG),
        (
            "models/days.sql",
            "MODEL (name m.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1));\nSELECT @start_date AS day, 1 AS one",
        ),
        (
            "models/sums.sql",
            "MODEL (name m.sums, kind FULL);\nSELECT COUNT(*) AS days, MAX(day) AS last FROM m.days",
        ),
    ]);
    let cli = Cli::embedded(project.path());
    let first = cli.clone().now("2024-01-05 06:00:00").plan_and_apply(&[]);
    assert_eq!(executed(&first, "m.days", "ok"), 4, "{first}");
    let early = cli.clone().now("2024-01-05 20:00:00").run(&["run"]);
    assert!(early.stdout.contains("Nothing to do"), "{early:?}");
    let later = cli.clone().now("2024-01-06 06:00:00").json(&["run"]);
    assert_eq!(executed(&later, "m.days", "ok"), 1, "{later}");
    assert_eq!(executed(&later, "m.sums", "ok"), 1, "{later}");
    assert_eq!(rows(&cli, "SELECT days, last FROM m.sums"), [["5", "2024-01-05"]]);
    let third = cli.now("2024-01-06 08:00:00").plan(&[]);
    assert_eq!(third["requires_backfill"], false, "{third}");
}

#[test]
fn an_apply_that_was_killed_goes_on_at_once_when_applied_again() {
    let _permit = Permit::wait();
    let project = Project::new(&[
        ("config.yaml", CONFIG),
        (
            "models/days.sql",
            "MODEL (name m.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1), start '2023-01-01');\nSELECT @start_date AS day, SUM(x.range) AS sum FROM RANGE(100000) AS x",
        ),
        (
            "models/week.sql",
            "MODEL (name m.week, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1), start '2023-01-01');\nSELECT @start_date AS day, COUNT(*) AS days FROM m.days WHERE day BETWEEN @start_date - INTERVAL 6 DAY AND @end_date",
        ),
    ]);
    let cli = Cli::embedded(project.path()).now("2024-01-01 06:00:00");
    let id = plan_id(&cli.plan(&[]));
    let mut kills = 0;
    for _ in 0..3 {
        let mut apply = cli.spawn(&["apply", &id]);
        std::thread::sleep(Duration::from_millis(600));
        kills += u32::from(apply.is_running());
        apply.kill9();
    }
    assert!(kills > 0, "the test is too slow to kill anything");
    let began = Instant::now();
    let last = cli.json(&["apply", &id]);
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    assert!(executed_in_all(&last) < 730, "what was committed is not computed again");
    assert_eq!(rows(&cli, "SELECT COUNT(*), COUNT(DISTINCT day) FROM m.days"), [["365", "365"]]);
    assert_eq!(
        rows(&cli, "SELECT COUNT(*), COUNT(DISTINCT day), SUM(days) FROM m.week"),
        [["365", "365", "2534"]]
    );
    assert_eq!(cli.plan(&[])["requires_backfill"], false);
}

#[test]
fn new_audits_look_at_what_is_there_before_anything_is_computed() {
    let _permit = Permit::wait();
    let project = example();
    let cli = Cli::embedded(project.path()).now("2024-01-10 00:00:00");
    cli.plan_and_apply(&[]);
    let model = "sqlmesh_example.incremental_model";
    let audited = |audit: &str| {
        let text = format!(
            "MODEL (name {model}, kind INCREMENTAL_BY_TIME_RANGE (time_column event_date), start '2020-01-01', \
             grain (id, event_date), audits ({audit}));\n\nSELECT id, item_id, event_date FROM \
             sqlmesh_example.seed_model WHERE event_date BETWEEN @start_date AND @end_date\n"
        );
        project.write("models/incremental_model.sql", &text);
    };
    audited("not_null(columns := (id))");
    let passes = cli.plan_and_apply(&[]);
    assert_eq!(executed(&passes, model, "audit:ok"), 1, "{passes}");
    assert_eq!(executed_in_all(&passes), 1, "nothing is computed: {passes}");

    audited("unique_values(columns := (item_id), blocking := false)");
    let warns = cli.plan_and_apply(&[]);
    assert_eq!(executed(&warns, model, "audit:ok"), 1, "{warns}");

    audited("accepted_range(column := id, max_v := 3)");
    let fails = cli.run(&["plan", "--auto-apply", "--format", "json"]);
    assert_ne!(fails.code, Some(0));
    assert!(fails.stdout.contains("audit:audit_failed"), "{}", fails.stdout);
    assert_eq!(rows(&cli, &format!("SELECT COUNT(*) FROM {model}")), [["7"]], "the rows stay");
    let again = cli.plan(&[]);
    assert_eq!(again["has_changes"], true, "prod keeps what it showed: {again}");
}

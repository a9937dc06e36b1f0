//! Changes that keep their tables: previewed in development, then taken over by production, and seen
//! by nobody before.

use coord_tests::cli::{Cli, executed, plan_id};
use coord_tests::fleet::{Fleet, FleetOptions, Permit, query_dsn, wait_until};
use coord_tests::project::{Project, logged};

const CONFIG: &str = "gateways:\n  duckdb:\n    connection:\n      type: duckdb\n      database: db.db\n\ndefault_gateway: duckdb\n\nmodel_defaults:\n  dialect: duckdb\n  start: 2024-01-01\n  cron: '@daily'\n";

/// An incremental model over three days of events, a full one over it, a view over that.
fn project() -> Project {
    Project::new(&[
        ("config.yaml", CONFIG),
        (
            "seeds/events.csv",
            "day,item,amount\n2024-01-01,1,10\n2024-01-02,1,20\n2024-01-03,2,30\n2024-01-04,2,40\n",
        ),
        (
            "models/events.sql",
            "MODEL (name raw.events, kind SEED (path '../seeds/events.csv'), columns (day DATE, item INT, amount INT));\n",
        ),
        ("models/sales.sql", &sales("item, amount")),
        (
            "models/items.sql",
            "MODEL (name shop.items, kind FULL);\n\nSELECT item, COUNT(*) AS n FROM shop.sales GROUP BY item\n",
        ),
        ("models/top.sql", "MODEL (name shop.top, kind VIEW);\n\nSELECT item FROM shop.items WHERE n > 1\n"),
    ])
}

fn sales(columns: &str) -> String {
    format!(
        "MODEL (name shop.sales, kind INCREMENTAL_BY_TIME_RANGE (time_column day, forward_only true));\n\n\
         SELECT day, {columns} FROM raw.events WHERE day BETWEEN @start_date AND @end_date\n"
    )
}

fn rows(cli: &Cli, sql: &str) -> Vec<String> {
    let csv = cli.ok(&["fetch", sql, "--format", "csv"]).stdout;
    csv.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn a_forward_only_change_is_previewed_and_then_changes_the_table_in_place() {
    let _permit = Permit::wait();
    let project = project();
    let cli = Cli::embedded(project.path()).now("2024-01-04 00:00:00");
    cli.plan_and_apply(&[]);
    project.write("models/sales.sql", &sales("item, CAST(amount AS BIGINT) AS amount, amount * 2 AS twice"));
    // The preview computes one day, in a table of its own.
    let preview = cli.plan_and_apply(&["dev"]);
    assert_eq!(executed(&preview, "shop.sales", "ok"), 1, "{preview}");
    assert_eq!(rows(&cli, "SELECT * FROM shop__dev.sales"), ["2024-01-03,2,30,60"]);
    let before = ["2024-01-01,1,10", "2024-01-02,1,20", "2024-01-03,2,30"];
    assert_eq!(rows(&cli, "SELECT * FROM shop.sales ORDER BY day"), before);
    // Production gets the column and computes nothing; rows follow from then on.
    let taken = cli.plan_and_apply(&[]);
    assert_eq!(executed(&taken, "shop.sales", "ok"), 0, "{taken}");
    assert_eq!(rows(&cli, "SELECT COUNT(*), COUNT(twice) FROM shop.sales"), ["3,0"]);
    let cli = cli.now("2024-01-05 00:00:00");
    cli.ok(&["run"]);
    assert_eq!(rows(&cli, "SELECT * FROM shop.sales WHERE twice IS NOT NULL"), ["2024-01-04,2,40,80"]);
    assert_eq!(rows(&cli, "SELECT item FROM shop.top ORDER BY item"), ["1", "2"]);
    // There is nothing left to do.
    assert_eq!(cli.plan(&[])["has_changes"], false);
}

#[test]
fn columns_go_only_where_the_plan_allows_it() {
    let _permit = Permit::wait();
    let project = project();
    let cli = Cli::embedded(project.path()).now("2024-01-04 00:00:00");
    cli.plan_and_apply(&[]);
    project.write("models/sales.sql", &sales("item"));
    for environment in ["dev", "prod"] {
        let refused = cli.run(&["plan", environment, "--format", "json"]);
        let error = refused.error().to_string();
        assert!(error.contains("lose `amount`") && error.contains("--allow-destructive-model"), "{error}");
    }
    cli.plan_and_apply(&["--allow-destructive-model", "shop.sales"]);
    assert_eq!(rows(&cli, "SELECT * FROM shop.sales ORDER BY day")[0], "2024-01-01,1");
}

#[test]
fn an_effective_date_computes_again_from_there_on_and_going_back_starts_anew() {
    let _permit = Permit::wait();
    let project = project();
    let cli = Cli::embedded(project.path()).now("2024-01-04 00:00:00");
    cli.plan_and_apply(&[]);
    project.write("models/sales.sql", &sales("item, amount + 1 AS amount"));
    let flags = ["--forward-only", "--effective-from", "2024-01-03"];
    let taken = cli.plan_and_apply(&flags);
    assert_eq!(executed(&taken, "shop.sales", "ok"), 1, "{taken}");
    let amounts = "SELECT amount FROM shop.sales ORDER BY day";
    assert_eq!(rows(&cli, amounts), ["10", "20", "31"]);
    // What was there before is no longer what the old definition says: it comes back as a new one.
    project.write("models/sales.sql", &sales("item, amount"));
    let back = cli.plan_and_apply(&[]);
    assert_eq!(executed(&back, "shop.items", "ok"), 1, "{back}");
    assert_eq!(rows(&cli, amounts), ["10", "20", "31"], "rows follow the old definition from now on");
    assert_eq!(cli.plan(&[])["has_changes"], false);
}

/// A model that keeps its table, and a slow one that reads it.
fn kept(columns: &str, read: &str) -> Vec<(&'static str, String)> {
    vec![
        (
            "models/kept.sql",
            format!(
                "MODEL (name keep.kept, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 20, forward_only true, on_destructive_change allow));\n\nSELECT day::DATE AS day, {columns} FROM GENERATE_SERIES(@start_date, @end_date, INTERVAL '1 day') AS g(day){}",
                logged("kept")
            ),
        ),
        (
            "models/seen.sql",
            format!(
                "MODEL (name keep.seen, kind VIEW);\n\nSELECT day, {read} AS {read}_seen FROM keep.kept\n"
            ),
        ),
        (
            "models/slow.sql",
            format!(
                "MODEL (name keep.slow, kind FULL);\n\nSELECT COUNT({read}_seen)::INT AS n, '{read}'::TEXT AS of FROM keep.seen{}",
                logged("slow")
            ),
        ),
    ]
}

#[test]
fn columns_and_views_of_the_old_version_stay_until_the_pointer_moves_whatever_is_killed() {
    let project = Project::new(&[]);
    let write = |project: &Project, columns: &str, read: &str| {
        for (path, text) in kept(columns, read) {
            project.write(path, &text);
        }
    };
    write(&project, "1 AS a, 2 AS b", "a");
    let mut fleet = Fleet::start(FleetOptions { lease_ttl: 1000, ..FleetOptions::default() }, project);
    fleet.cli().plan_and_apply(&[]);
    write(&fleet.project, "1 AS a, 3 AS c", "c");
    fleet.pause(8.0);
    let id = plan_id(&fleet.cli().plan(&[]));
    fleet.cli().ok(&["apply", &id, "--detach"]);
    let dsn = fleet.postgres.dsn();
    let reads = |sql: &str| query_dsn(&dsn, sql).is_ok();
    wait_until("the new column", || reads("SELECT c FROM keep.kept"));
    let mut looked = 0;
    for _ in 0..2 {
        let old = ["SELECT a, b FROM keep.kept", "SELECT a_seen FROM keep.seen", "SELECT n FROM keep.slow"];
        let found = (old.map(&reads), reads("SELECT c_seen FROM keep.seen"));
        if fleet.revision("prod") == Some(1) {
            assert_eq!(found, ([true; 3], false), "all is as it was");
            looked += 1;
        }
        fleet.coordinator.kill9();
        fleet.coordinator.restart();
        fleet.wait_until_serving();
    }
    assert!(looked > 0, "the test is too slow to see anything");
    fleet.pause(0.0);
    fleet.wait_until_finished(&id);
    assert!(!reads("SELECT b FROM keep.kept"), "what goes is gone in the end");
    assert!(reads("SELECT c FROM keep.kept") && reads("SELECT c_seen FROM keep.seen"));
    assert_eq!(fleet.sql("SELECT of FROM keep.slow"), [["c"]]);
    assert_eq!(fleet.revision("prod"), Some(2));
}

//! Projects with several warehouses: two databases of PostgreSQL, one beside DuckDB, one database
//! under two names, and several files of DuckDB.

use coord_tests::cli::{Cli, executed};
use coord_tests::fleet::Permit;
use coord_tests::postgres::Postgres;
use coord_tests::project::Project;
use serde_json::Value;

const NOW: &str = "2024-01-05 06:00:00";

fn gateway(name: &str, postgres: &Postgres, database: &str) -> String {
    let port = postgres.port();
    format!(
        "  {name}:\n    connection: {{type: postgres, host: 127.0.0.1, port: {port}, user: postgres, password: '', database: {database}}}\n"
    )
}

fn config(gateways: &str, default: &str, dialect: &str, managed: bool) -> String {
    format!(
        "gateways:\n{gateways}default_gateway: {default}\ngateway_managed_virtual_layer: {managed}\n\
         model_defaults: {{dialect: {dialect}, start: 2024-01-01}}\n"
    )
}

/// A row for each day, on a gateway.
fn days(name: &str, gateway: &str, expression: &str) -> String {
    format!(
        "MODEL (name {name}, gateway {gateway}, dialect postgres, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1));\n\
         SELECT @start_date AS day, {expression} AS n"
    )
}

/// Rows of what an environment shows, as `coordctl state` counts them.
fn shown(cli: &Cli, environment: &str) -> Vec<(String, Value)> {
    let state = cli.json(&["state"]);
    let models = state["contents"][environment].as_object().cloned().unwrap_or_default();
    models.into_iter().map(|(model, content)| (model.replace('"', ""), content["rows"].clone())).collect()
}

#[test]
fn each_gateway_has_the_views_of_its_own_models() {
    let _permit = Permit::wait();
    let postgres = Postgres::start();
    postgres.create_database("one");
    postgres.create_database("two");
    let gateways = gateway("a", &postgres, "one") + &gateway("b", &postgres, "two");
    let project = Project::new(&[
        ("config.yaml", &config(&gateways, "a", "postgres", false)),
        ("models/left.sql", "MODEL (name s.left, kind FULL);\nSELECT 1 AS n"),
        ("models/right.sql", &days("s.right", "b", "1")),
    ]);
    let cli = Cli::embedded(project.path()).now(NOW);
    let refused = cli.run(&["plan", "--format", "json"]).error();
    assert_eq!(refused["code"], "view-elsewhere", "{refused}");
    assert!(refused["hint"].as_str().is_some_and(|hint| hint.contains("gateway_managed_virtual_layer")));

    project.write("config.yaml", &config(&gateways, "a", "postgres", true));
    let first = cli.plan_and_apply(&[]);
    let of = |name: &str| {
        let models = first["models"].as_array().expect("a plan has models");
        let found =
            models.iter().find(|model| model["name"].as_str().is_some_and(|full| full.ends_with(name)));
        found.and_then(|model| model["name"].as_str()).expect("the plan names the model").to_owned()
    };
    assert_eq!(executed(&first, &of("right"), "ok"), 4, "{first}");
    assert_eq!(postgres.psql("one", "SELECT n FROM s.left"), "1");
    assert_eq!(postgres.psql("two", "SELECT COUNT(*) FROM s.right"), "4");
    assert_eq!(postgres.psql("one", "SELECT to_regclass('s.right')"), "");
    let rows: Vec<Value> = shown(&cli, "prod").into_iter().map(|(_, rows)| rows).collect();
    assert_eq!(rows, [1, 4]);

    // A change of both, tried beside production, then taken over.
    project.write("models/left.sql", "MODEL (name s.left, kind FULL);\nSELECT 2 AS n");
    project.write("models/right.sql", &days("s.right", "b", "2"));
    cli.plan_and_apply(&["dev"]);
    assert_eq!(postgres.psql("one", "SELECT n FROM s__dev.left"), "2");
    assert_eq!(postgres.psql("two", "SELECT SUM(n) FROM s__dev.right"), "8");
    assert_eq!(postgres.psql("two", "SELECT SUM(n) FROM s.right"), "4");
    cli.plan_and_apply(&[]);
    assert_eq!(postgres.psql("one", "SELECT n FROM s.left"), "2");
    assert_eq!(postgres.psql("two", "SELECT SUM(n) FROM s.right"), "8");

    // And back, in both.
    cli.ok(&["rollback", "prod"]);
    assert_eq!(postgres.psql("one", "SELECT n FROM s.left"), "1");
    assert_eq!(postgres.psql("two", "SELECT SUM(n) FROM s.right"), "4");
    cli.ok(&["invalidate", "dev"]);
    cli.ok(&["janitor"]);
    for database in ["one", "two"] {
        let left = "SELECT COUNT(*) FROM pg_namespace WHERE nspname LIKE '%__dev'";
        assert_eq!(postgres.psql(database, left), "0", "{database}");
    }
}

#[test]
fn restated_rows_of_two_gateways_are_published_on_each() {
    let _permit = Permit::wait();
    let postgres = Postgres::start();
    for database in ["one", "two"] {
        postgres.create_database(database);
        postgres.psql(database, "CREATE SCHEMA raw; CREATE TABLE raw.x AS SELECT 1 AS n");
    }
    let gateways = gateway("a", &postgres, "one") + &gateway("b", &postgres, "two");
    let of = |name: &str, gateway: &str| days(name, gateway, "(SELECT n FROM raw.x)");
    let project = Project::new(&[
        ("config.yaml", &config(&gateways, "a", "postgres", true)),
        ("models/left.sql", &of("s.left", "a")),
        ("models/right.sql", &of("s.right", "b")),
    ]);
    let cli = Cli::embedded(project.path()).now(NOW);
    cli.plan_and_apply(&[]);
    for database in ["one", "two"] {
        postgres.psql(database, "UPDATE raw.x SET n = 10");
    }
    let models = ["--restate-model", "s.*", "--restate-model", "*.s.*"];
    cli.plan_and_apply(&[&models[..], &["--start", "2024-01-02", "--end", "2024-01-03"]].concat());
    assert_eq!(postgres.psql("one", "SELECT SUM(n) FROM s.left"), "22");
    assert_eq!(postgres.psql("two", "SELECT SUM(n) FROM s.right"), "22");
    let aside = "SELECT COUNT(*) FROM pg_class WHERE relname LIKE '%aside%'";
    assert_eq!(postgres.psql("two", aside), "0");
}

#[test]
fn one_database_may_be_two_gateways() {
    let _permit = Permit::wait();
    let postgres = Postgres::start();
    let gateways = gateway("a", &postgres, "postgres") + &gateway("b", &postgres, "postgres");
    let project = Project::new(&[
        ("config.yaml", &config(&gateways, "a", "postgres", true)),
        ("models/left.sql", "MODEL (name s.left, kind FULL);\nSELECT 1 AS n"),
        ("models/right.sql", "MODEL (name s.right, gateway b, kind FULL);\nSELECT n + 1 AS n FROM s.left"),
    ]);
    let cli = Cli::embedded(project.path()).now(NOW);
    cli.plan_and_apply(&[]);
    assert_eq!(postgres.psql("postgres", "SELECT n FROM s.right"), "2");
    project.write("models/left.sql", "MODEL (name s.left, kind FULL);\nSELECT 2 AS n");
    cli.plan_and_apply(&[]);
    assert_eq!(postgres.psql("postgres", "SELECT n FROM s.right"), "3");
    // The same views, of the default gateway now.
    project.write("config.yaml", &config(&gateways, "a", "postgres", false));
    cli.plan_and_apply(&[]);
    assert_eq!(postgres.psql("postgres", "SELECT n FROM s.right"), "3");
}

#[test]
fn duckdb_and_postgres_work_side_by_side() {
    let _permit = Permit::wait();
    let postgres = Postgres::start();
    let gateways = gateway("pg", &postgres, "postgres")
        + "  local:\n    connection: {type: duckdb, database: local.duckdb}\n";
    let project = Project::new(&[
        ("config.yaml", &config(&gateways, "local", "duckdb", true)),
        ("models/left.sql", "MODEL (name s.left, kind FULL);\nSELECT SUM(x.range) AS n FROM RANGE(5) AS x"),
        ("models/right.sql", &days("s.right", "pg", "EXTRACT(DAY FROM @start_date)::INT")),
    ]);
    let cli = Cli::embedded(project.path()).now(NOW);
    cli.plan_and_apply(&[]);
    assert_eq!(cli.ok(&["fetch", "SELECT n FROM s.left", "--format", "csv"]).stdout, "n\n10\n");
    assert_eq!(postgres.psql("postgres", "SELECT SUM(n) FROM s.right"), "10");
    let on_postgres = ["--gateway", "pg", "fetch", "SELECT SUM(n) AS n FROM s.right", "--format", "csv"];
    assert_eq!(cli.ok(&on_postgres).stdout, "n\n10\n");
    assert_eq!(shown(&cli, "prod").len(), 2);
    let later = cli.clone().now("2024-01-06 06:00:00");
    later.ok(&["run"]);
    assert_eq!(postgres.psql("postgres", "SELECT SUM(n) FROM s.right"), "15");
}

#[test]
fn models_live_in_several_files_of_duckdb() {
    let _permit = Permit::wait();
    let source = Project::new(&[
        (
            "config.yaml",
            "gateways: {l: {connection: {type: duckdb, database: source.duckdb}}}\nmodel_defaults: {dialect: duckdb, start: 2024-01-01}\n",
        ),
        ("models/raw.sql", "MODEL (name s.raw, kind FULL);\nSELECT 1 AS id UNION ALL SELECT 2"),
    ]);
    Cli::embedded(source.path()).now(NOW).plan_and_apply(&[]);
    let file = source.path().join("source.duckdb");
    let config = |ids: &str| {
        format!(
            "gateways:\n  l:\n    connection:\n      type: duckdb\n      catalogs:\n        wh: wh.duckdb\n        marts: {{type: duckdb, path: marts.duckdb}}\n        source: {{type: duckdb, path: '{}', read_only: true}}\nmodel_defaults: {{dialect: duckdb, start: 2024-01-01}}\nvariables: {{ids: {ids}}}\n",
            file.display()
        )
    };
    let staged = "MODEL (name s.staged, kind FULL);\nSELECT id FROM source.s.raw";
    let project = Project::new(&[
        ("config.yaml", &config("1")),
        ("external_models.yaml", "- name: source.s.raw\n  columns: {id: INT}\n"),
        ("models/staged.sql", staged),
        (
            "models/mart.sql",
            "MODEL (name marts.s.mart, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 2));\n\
             SELECT @start_date AS day, id * @VAR('ids') AS id FROM wh.s.staged",
        ),
        ("models/top.sql", "MODEL (name marts.s.top, kind VIEW);\nSELECT MAX(id) AS id FROM marts.s.mart"),
        ("models/back.sql", "MODEL (name s.back, kind FULL);\nSELECT SUM(id) AS id FROM marts.s.mart"),
    ]);
    let cli = Cli::embedded(project.path()).now(NOW);
    let one = |sql: &str| cli.ok(&["fetch", sql, "--format", "csv"]).stdout.lines().nth(1).map(str::to_owned);
    cli.plan_and_apply(&[]);
    assert_eq!(one("SELECT id FROM marts.s.top").as_deref(), Some("2"));
    assert_eq!(one("SELECT id FROM wh.s.back").as_deref(), Some("6"));
    project.write("config.yaml", &config("10"));
    cli.plan_and_apply(&["dev"]);
    assert_eq!(one("SELECT id FROM marts.s__dev.top").as_deref(), Some("20"));
    assert_eq!(one("SELECT id FROM wh.s__dev.back").as_deref(), Some("60"));
    assert_eq!(one("SELECT id FROM marts.s.top").as_deref(), Some("2"));
    cli.plan_and_apply(&[]);
    assert_eq!(one("SELECT id FROM s.back").as_deref(), Some("60"));
    cli.plan_and_apply(&["--restate-model", "marts.s.mart", "--start", "2024-01-02"]);
    // Other batches, so other days: one that stays, and two new ones.
    assert_eq!(one("SELECT id FROM s.back").as_deref(), Some("90"));
    assert_eq!(cli.plan(&[])["requires_backfill"], false);
    cli.ok(&["invalidate", "dev"]);
    cli.ok(&["janitor"]);
    assert_eq!(
        one("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name LIKE '%dev'").as_deref(),
        Some("0")
    );
}

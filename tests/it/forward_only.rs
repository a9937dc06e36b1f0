//! Changes that keep their tables: previewed in development, then taken over by production.

use coord_tests::cli::{Cli, executed};
use coord_tests::fleet::Permit;
use coord_tests::project::Project;

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

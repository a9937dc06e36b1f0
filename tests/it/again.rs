//! Batches that fail by their own SQL, then applying again: the tables end as if nothing had failed.

use coord_tests::cli::{Cli, plan_id};
use coord_tests::fleet::Permit;
use coord_tests::project::Project;

const CONFIG: &str = "gateways:\n  duckdb:\n    connection:\n      type: duckdb\n      database: db.db\nmodel_defaults:\n  dialect: duckdb\n  start: 2024-01-01\n";

/// Rows of a day, unless `bad.csv` names the model and the day.
fn model(name: &str, folder: &str, from: &str) -> String {
    format!(
        "MODEL (name m.{name}, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1));\n\
         SELECT x.day, x.n + 1 AS n, (SELECT CASE WHEN COUNT(*) > 0 THEN error('injected') ELSE 'fine' END \
         FROM read_csv('{folder}/bad.csv', header = true, all_varchar = true) AS b \
         WHERE b.model = '{name}' AND b.day = @start_ds) AS state\nFROM {from} AS x"
    )
}

fn project() -> (Project, Cli) {
    let project = Project::new(&[("config.yaml", CONFIG), ("bad.csv", "model,day\n")]);
    let folder = project.path().display().to_string();
    let window = |table: &str, days: u32| {
        format!(
            "(SELECT @start_date AS day, COALESCE(SUM(n), 0) AS n FROM m.{table} \
             WHERE day BETWEEN @start_date - INTERVAL {days} DAY AND @end_date)"
        )
    };
    let one = "(SELECT @start_date AS day, day(@start_date) AS n)".to_owned();
    for (name, from) in [("a", one), ("b", window("a", 0)), ("c", window("a", 2)), ("d", window("c", 1))] {
        project.write(&format!("models/{name}.sql"), &model(name, &folder, &from));
    }
    let cli = Cli::embedded(project.path()).now("2024-01-08 06:00:00");
    (project, cli)
}

fn rows(cli: &Cli) -> String {
    let tables = ["a", "b", "c", "d"].map(|name| format!("SELECT '{name}' AS t, day, n FROM m.{name}"));
    let all = tables.join(" UNION ALL ");
    cli.ok(&["fetch", &format!("{all} ORDER BY t, day"), "--format", "csv"]).stdout
}

#[test]
fn failing_batches_and_applying_again_end_in_the_same_tables() {
    let _permit = Permit::wait();
    let (_clean, untroubled) = project();
    untroubled.plan_and_apply(&[]);
    let expected = rows(&untroubled);
    assert_eq!(expected.lines().count(), 1 + 4 * 7, "{expected}");

    let (project, cli) = project();
    let id = plan_id(&cli.plan(&[]));
    for bad in
        ["a,2024-01-03\nc,2024-01-01\nb,2024-01-06\n", "c,2024-01-01\nd,2024-01-07\n", "d,2024-01-02\n"]
    {
        project.write("bad.csv", &format!("model,day\n{bad}"));
        assert_eq!(cli.run(&["apply", &id]).code, Some(1), "{bad}");
    }
    project.write("bad.csv", "model,day\n");
    cli.ok(&["apply", &id]);
    assert_eq!(rows(&cli), expected);
    assert_eq!(cli.plan(&[])["requires_backfill"], false);
}

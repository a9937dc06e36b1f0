//! Batches that fail by their own SQL, then applying again: the tables end as if nothing had failed.

use coord_tests::cli::{Cli, plan_id};
use coord_tests::faults::Dice;
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

/// Models of every kind that keeps rows, each of which fails where `bad.csv` names it and a batch's start.
fn all_kinds() -> (Project, Cli) {
    let project = Project::new(&[("config.yaml", CONFIG), ("bad.csv", "model,day\n")]);
    let bad = project.path().join("bad.csv").display().to_string();
    let days = "(SELECT UNNEST(generate_series(@start_date, @end_date, INTERVAL 1 DAY))::DATE AS day)";
    for (name, kind, query) in [
        ("time", "INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 2)", format!("day, day(day) AS n FROM {days}")),
        ("key", "INCREMENTAL_BY_UNIQUE_KEY (unique_key k, batch_size 2)", "(n % 3)::INT AS k, MAX(n) AS n FROM m.time WHERE day BETWEEN @start_date AND @end_date GROUP BY 1".to_owned()),
        ("part", "INCREMENTAL_BY_PARTITION, partitioned_by p", "(n % 2)::INT AS p, n FROM m.time".to_owned()),
        ("added", "INCREMENTAL_UNMANAGED", "day, n FROM m.time WHERE day BETWEEN @start_date AND @end_date".to_owned()),
        ("column", "SCD_TYPE_2_BY_COLUMN (unique_key k, columns [n])", "k, n FROM m.key".to_owned()),
        ("at", "SCD_TYPE_2_BY_TIME (unique_key k)", "k, n, TIMESTAMP '2024-01-01' + INTERVAL (n) DAY AS updated_at FROM m.key".to_owned()),
        ("whole", "FULL", "COUNT(*) AS n FROM m.added".to_owned()),
    ] {
        let day = if name == "whole" { "'any'" } else { "@start_ds" };
        let failing = format!("(SELECT COUNT(*) + CASE WHEN COUNT(*) > 0 THEN error('injected') ELSE 0 END FROM read_csv('{bad}', header = true, all_varchar = true) AS b WHERE b.model = '{name}' AND b.day IN ({day}, 'any')) = 0");
        let word = if query.contains(" WHERE ") { "AND" } else { "WHERE" };
        let (query, group) = query.split_once(" GROUP BY").map_or((query.as_str(), ""), |(q, _)| (q, "GROUP BY 1"));
        project.write(
            &format!("models/{name}.sql"),
            &format!("MODEL (name m.{name}, kind {kind});\nSELECT {query} {word} {failing} {group}"),
        );
    }
    let cli = Cli::embedded(project.path()).now("2024-01-08 06:00:00");
    (project, cli)
}

const KINDS: [&str; 7] = ["time", "key", "part", "added", "column", "at", "whole"];

/// All rows of all models.
fn contents(cli: &Cli) -> Vec<String> {
    let rows = |name: &str| {
        let found =
            cli.ok(&["fetch", &format!("SELECT * FROM m.{name} ORDER BY ALL"), "--format", "csv"]).stdout;
        assert!(found.lines().count() > 1, "{name}");
        found
    };
    KINDS.map(rows).to_vec()
}

#[test]
fn any_subset_of_failures_followed_by_applying_again_ends_in_the_same_tables_of_every_kind() {
    let _permit = Permit::wait();
    let (_clean, untroubled) = all_kinds();
    untroubled.plan_and_apply(&[]);
    let expected = contents(&untroubled);
    let seed = 7;
    let mut dice = Dice::new(seed);
    let (project, cli) = all_kinds();
    let id = plan_id(&cli.plan(&[]));
    let mut failed = 0;
    for round in 0..4 {
        let mut bad = "model,day\n".to_owned();
        for name in KINDS {
            for day in ["2024-01-01", "2024-01-03", "2024-01-05", "2024-01-07"] {
                // Less and less fails.
                if dice.roll(2 + 3 * round) == 0 {
                    bad += &format!("{name},{}\n", if name == "whole" { "any" } else { day });
                }
            }
        }
        project.write("bad.csv", &bad);
        failed += u32::from(cli.run(&["apply", &id]).code == Some(1));
    }
    assert!(failed > 1, "the dice of seed {seed} must make some of it fail");
    project.write("bad.csv", "model,day\n");
    cli.ok(&["apply", &id]);
    assert_eq!(contents(&cli), expected, "seed {seed}");
    assert_eq!(cli.plan(&[])["requires_backfill"], false);
}

//! What projects may say, as a user sees it: encodings, dialects, and macros that name tables.

use coord_tests::cli::{Cli, Finished, executed};
use coord_tests::fleet::Permit;
use coord_tests::project::Project;

const CONFIG: &str = "gateways:\n  duckdb:\n    connection:\n      type: duckdb\n      database: db.db\n\ndefault_gateway: duckdb\n\nmodel_defaults:\n  dialect: duckdb\n  start: 2024-01-01\n";

fn project(files: &[(&str, &str)]) -> (Project, Cli) {
    let project = Project::new(files);
    project.write("config.yaml", CONFIG);
    let cli = Cli::embedded(project.path()).now("2024-01-05 06:00:00");
    (project, cli)
}

fn csv(cli: &Cli, sql: &str) -> String {
    cli.ok(&["fetch", sql, "--format", "csv"]).stdout
}

#[test]
fn seeds_are_utf8_unless_they_say_latin_1() {
    let _permit = Permit::wait();
    let seed = |settings: &str| {
        format!(
            "MODEL (name m.cafes, kind SEED (path '../seeds/cafes.csv'{settings}), columns (name TEXT));\n"
        )
    };
    let (project, cli) = project(&[("models/cafes.sql", &seed(""))]);
    project.write("seeds/placeholder", "");
    std::fs::write(project.path().join("seeds/cafes.csv"), b"name\ncaf\xe9\n").expect("the folder is there");
    let refused: Finished = cli.run(&["plan", "--format", "json"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    let error = refused.error();
    assert_eq!(error["code"], "not-utf8", "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("seeds/cafes.csv")), "{error}");
    assert!(error["hint"].as_str().is_some_and(|text| text.contains("encoding")), "{error}");
    project.write("models/cafes.sql", &seed(", csv_settings (encoding = 'latin1')"));
    cli.plan_and_apply(&[]);
    assert_eq!(csv(&cli, "SELECT name FROM m.cafes"), "name\ncafé\n");
}

#[test]
fn a_model_in_another_dialect_than_its_gateways_is_planned_but_never_run() {
    let _permit = Permit::wait();
    let (_project, cli) = project(&[
        ("models/ours.sql", "MODEL (name m.ours, kind FULL);\nSELECT 1 AS one"),
        (
            "models/foreign.sql",
            "MODEL (name m.foreign, kind FULL, dialect snowflake);\nSELECT one FROM m.ours",
        ),
    ]);
    let planned = cli.ok(&["plan", "--no-prompts"]);
    assert!(
        planned.stderr.contains("models/foreign.sql") && planned.stderr.contains("snowflake"),
        "{planned:#?}"
    );
    let applied = cli.run(&["plan", "--auto-apply"]);
    assert_eq!(applied.code, Some(1), "{applied:#?}");
    assert!(applied.stderr.contains("never translated"), "{applied:#?}");
    // What is written in the warehouse's own dialect was computed; nothing is shown.
    let state = cli.json(&["state", "--no-contents"]);
    assert!(state["environments"].get("prod").is_none(), "{state}");
    let again = cli.run(&["plan", "--auto-apply", "--format", "json"]);
    assert_eq!(again.code, Some(1), "{again:#?}");
    assert_eq!(executed(&again.json(), "m.ours", "ok"), 0, "it is complete already");
}

#[test]
fn all_models_are_rendered_and_one_that_cannot_be_is_named() {
    let _permit = Permit::wait();
    let (project, cli) = project(&[
        (
            "models/a.sql",
            "MODEL (name m.a, kind INCREMENTAL_BY_TIME_RANGE (time_column day));\nSELECT @start_ds AS day, 1 + 1 AS two",
        ),
        ("models/b.sql", "MODEL (name m.b, kind VIEW);\nSELECT day FROM m.a"),
    ]);
    let text = cli.ok(&["render", "--start", "2024-01-02"]).stdout;
    let (a, b) = (text.find("-- m.a"), text.find("-- m.b"));
    assert!(a.is_some() && a < b, "upstream first: {text}");
    assert!(text.contains("'2024-01-02'") && text.contains("FROM m.a"), "{text}");
    let document = cli.json(&["render"]);
    let names: Vec<&str> =
        document["models"].as_array().into_iter().flatten().filter_map(|row| row["model"].as_str()).collect();
    assert_eq!(names, ["m.a", "m.b"], "{document}");
    project.write("models/c.sql", "MODEL (name m.c, kind FULL);\nSELECT @nowhere(1) AS x");
    let failed = cli.run(&["render"]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    assert!(failed.stdout.contains("-- m.a"), "the others are printed: {failed:#?}");
    assert!(failed.stderr.contains("models/c.sql:2"), "{failed:#?}");
}

#[test]
fn this_model_is_the_table_that_is_written_in_queries_and_statements() {
    let _permit = Permit::wait();
    let (_project, cli) = project(&[(
        "models/counted.sql",
        "MODEL (name m.counted, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1), depends_on [m.counted],\n  columns (day DATE, before BIGINT));\n\nCREATE TABLE IF NOT EXISTS log (name TEXT);\n\nSELECT @start_date AS day, (SELECT COUNT(*) FROM @this_model) AS before;\n\nINSERT INTO log SELECT COUNT(*)::TEXT FROM @this_model",
    )]);
    cli.plan_and_apply(&[]);
    let rows = csv(&cli, "SELECT day::TEXT AS day, before FROM m.counted ORDER BY 1");
    assert_eq!(rows, "day,before\n2024-01-01,0\n2024-01-02,1\n2024-01-03,2\n2024-01-04,3\n");
    assert_eq!(csv(&cli, "SELECT name FROM log ORDER BY 1"), "name\n1\n2\n3\n4\n");
}

use super::*;
use crate::diagnostic::Diagnostic;
use crate::interval::Timestamp;
use crate::project::{self, Project, ProjectInput, SourceFile};
use crate::snapshot::{self, Snapshots};
use crate::sql::Dialect;

const CONFIG: &str = "gateways:\n  local:\n    connection: {type: duckdb, database: db.db}\n    variables: {region: EU}\ndefault_gateway: local\nmodel_defaults: {dialect: duckdb, start: 2024-01-01}\nvariables: {least: 1}\n";
const ORDERS: &str = "MODEL (name m.orders, kind INCREMENTAL_BY_TIME_RANGE (time_column day), columns (id INT, item TEXT, day DATE));\nSELECT id, item, day FROM ext.raw WHERE day BETWEEN @start_date AND @end_date AND id >= @least";
const ITEMS: &str = "MODEL (name m.items, kind FULL);\nWITH named AS (SELECT id, item FROM m.orders WHERE item IS NOT NULL)\nSELECT item::TEXT AS item, COUNT(*)::INT AS num FROM named GROUP BY item";

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.into(), text: text.into() }
}

struct World {
    project: Project,
    snapshots: Snapshots,
}

impl World {
    fn new() -> Self {
        let foreign = "MODEL (name m.bq, kind FULL, dialect bigquery);\nSELECT 1 AS one";
        let jinja = "MODEL (name m.jinja, kind FULL);\nJINJA_QUERY_BEGIN;\nSELECT {{ var('least') }} AS least;\nJINJA_END;";
        let seed = "MODEL (name m.seed, kind SEED (path 's.csv'));";
        let files = [
            file("config.yaml", CONFIG),
            file("models/orders.sql", ORDERS),
            file("models/items.sql", ITEMS),
            file("models/bq.sql", foreign),
            file("models/jinja.sql", jinja),
            file("models/seed.sql", seed),
            file("models/s.csv", "a\n1\n"),
        ];
        let env = BTreeMap::new();
        let (project, findings) = project::load(&ProjectInput { files: &files, env: &env, gateway: None });
        assert!(!findings.iter().any(Diagnostic::is_error), "{findings:?}");
        let (snapshots, _) = snapshot::build(&project);
        Self { project, snapshots }
    }

    fn load(&self, text: &str) -> (Vec<UnitTest>, Vec<Diagnostic>) {
        let rows = file("tests/data/rows.csv", "id,item\n1,a\n2,\n");
        load(&self.project, &[file("tests/test_x.yaml", text), rows], &BTreeMap::new())
    }

    fn one(&self, text: &str) -> UnitTest {
        let (mut tests, findings) = self.load(text);
        assert_eq!(findings, []);
        tests.pop().unwrap()
    }

    fn prepare(&self, test: &UnitTest) -> Result<Vec<Check>, Unready> {
        let bench = Bench { models: &self.snapshots.by_name, speaks: Dialect::DuckDb, now: Timestamp(0) };
        bench.prepare(test)
    }
}

fn answer(columns: &[(&str, &str)], rows: &[&[Option<&str>]]) -> Answer {
    let column = |(name, data_type): &(&str, &str)| ColumnDef {
        name: (*name).to_owned(),
        data_type: (*data_type).to_owned(),
    };
    Answer {
        columns: columns.iter().map(column).collect(),
        rows: rows.iter().map(|row| row.iter().map(|cell| cell.map(str::to_owned)).collect()).collect(),
    }
}

#[test]
fn given_rows_stand_before_the_query_with_the_types_of_the_model() {
    let world = World::new();
    let test = world.one(
        "test_items:\n  model: m.items\n  inputs:\n    m.orders:\n      rows:\n      - id: 1\n        item: it's\n        day: 2024-01-01\n  outputs:\n    ctes:\n      named:\n      - id: 1\n        item: it's\n    query:\n      rows:\n      - item: it's\n        num: 1\n",
    );
    let checks = world.prepare(&test).unwrap();
    let with = "WITH \"_given__m__orders\" AS (\n  SELECT * FROM (VALUES\n    (CAST(1 AS INT), CAST('it''s' AS TEXT), CAST('2024-01-01' AS DATE))\n  ) AS _rows(\"id\", \"item\", \"day\")\n)\nSELECT * FROM (\n";
    let named = "WITH named AS (SELECT id, item FROM \"_given__m__orders\" AS orders WHERE item IS NOT NULL)";
    assert_eq!(checks[0].part, Part::Cte("named".to_owned()));
    assert_eq!(checks[0].sql, format!("{with}{named}\nSELECT * FROM named\n) AS _tested"));
    let query = "\nSELECT item::TEXT AS item, COUNT(*)::INT AS num FROM named GROUP BY item";
    assert_eq!(checks[1].sql, format!("{with}{named}{query}\n) AS _tested"));
}

#[test]
fn times_and_variables_of_the_test_reach_the_query() {
    let world = World::new();
    let test = world.one(
        "test_orders:\n  model: m.orders\n  vars:\n    start: 2024-01-02\n    end: 2024-01-03\n    least: 7\n  inputs:\n    ext.raw:\n    - {id: 1, item: {{ var('region') }}, day: 2024-01-02, more: 5000000000}\n  outputs:\n    query: []\n",
    );
    let sql = world.prepare(&test).unwrap().remove(0).sql;
    assert!(
        sql.contains("BETWEEN CAST('2024-01-02' AS DATE) AND CAST('2024-01-03' AS DATE) AND id >= 7"),
        "{sql}"
    );
    let jinja = world.one("test_jinja:\n  model: m.jinja\n  vars: {least: 7}\n  outputs:\n    query: []\n");
    assert_eq!(world.prepare(&jinja).unwrap()[0].sql.trim(), "SELECT 7 AS least");
    // Nothing is known of the table, so that values tell the types.
    let row = "(CAST(1 AS INT), CAST('EU' AS TEXT), CAST('2024-01-02' AS DATE), CAST(5000000000 AS BIGINT))";
    assert!(sql.contains(row), "{sql}");
}

#[test]
fn rows_come_from_csv_files_and_queries_too() {
    let world = World::new();
    let test = world.one(
        "test_items:\n  model: m.items\n  inputs:\n    m.orders:\n      format: csv\n      path: tests/data/rows.csv\n  outputs:\n    query:\n      query: SELECT 'a' AS item, 1 AS num\n",
    );
    let check = world.prepare(&test).unwrap().remove(0);
    assert!(check.sql.contains("(CAST(2 AS INT), CAST(NULL AS TEXT), CAST(NULL AS DATE))"), "{}", check.sql);
    assert_eq!(check.expected_sql.as_deref(), Some("SELECT 'a' AS item, 1 AS num"));
    let columns = [("item", "VARCHAR"), ("num", "INTEGER")];
    let actual = answer(&columns, &[&[Some("a"), Some("1")]]);
    assert_eq!(check.judge(&actual, Some(&actual)), None);
    let other = answer(&columns, &[&[Some("a"), Some("2")]]);
    assert!(check.judge(&actual, Some(&other)).is_some());
}

#[test]
fn a_mismatch_names_the_line_and_shows_the_columns_that_differ() {
    let world = World::new();
    let test = world.one(
        "test_items:\n  model: m.items\n  inputs:\n    m.orders: []\n  outputs:\n    query:\n      rows:\n      - item: a\n        num: 1\n      - item: b\n        num: 2\n",
    );
    let check = world.prepare(&test).unwrap().remove(0);
    let columns = [("num", "INTEGER"), ("item", "VARCHAR")];
    let good = answer(&columns, &[&[Some("2"), Some("b")], &[Some("1"), Some("a")]]);
    assert_eq!(check.judge(&good, None), None, "neither rows nor columns are ordered");
    let bad = answer(&columns, &[&[Some("3"), Some("b")], &[Some("1"), Some("a")]]);
    let outcome = Outcome::Failed(check.judge(&bad, None).into_iter().collect());
    let report = Report { verdicts: vec![Verdict::new(&test, outcome)] };
    assert_eq!(
        report.failures(),
        "FAIL: test_items (tests/test_x.yaml:1:1)\n\ntests/test_x.yaml:10:1: 1 row differs\n  differences:\n    line  num expected  num actual\n    10    2             3\n\n"
    );
    assert_eq!(report.summary(), "1 of 1 unit test failed");
    let short = answer(&columns, &[&[Some("1"), Some("a")]]);
    let mismatch = check.judge(&short, None).unwrap();
    assert_eq!(mismatch.message, "expected 2 rows, got 1 row");
    assert_eq!(mismatch.tables[0].rows, [["b", "2"]]);
}

#[test]
fn mistakes_in_tests_are_findings_at_their_places() {
    let world = World::new();
    let body = |rest: &str| format!("test_a:\n  model: m.items\n{rest}");
    for (text, line, message) in [
        ("test_a:\n  inputs: {}\n".to_owned(), 1, "names no model"),
        ("test_a: 1\n".to_owned(), 1, "isn't a mapping"),
        ("- a\n".to_owned(), 1, "isn't a mapping of tests"),
        (body("  inputs:\n    m.orders: []\n"), 1, "nothing of what must come out"),
        (body("  outputs:\n    partial: true\n"), 3, "neither `query` nor `ctes`"),
        (body("  inputs:\n    m.orders:\n      rows: 1\n  outputs:\n    query: []\n"), 5, "aren't a list"),
        (body("  inputs:\n    m.orders: {}\n  outputs:\n    query: []\n"), 4, "no rows"),
        (
            body("  inputs:\n    m.orders:\n      format: x\n      rows: 1\n  outputs:\n    query: []\n"),
            4,
            "format `x`",
        ),
        (
            body(
                "  inputs:\n    m.orders:\n      rows: []\n      query: SELECT 1\n  outputs:\n    query: []\n",
            ),
            4,
            "both `query` and `rows`",
        ),
        (
            body(
                "  inputs:\n    m.orders:\n      format: csv\n      path: x.csv\n  outputs:\n    query: []\n",
            ),
            4,
            "doesn't exist",
        ),
        (body("  outputs: [}\n"), 3, "YAML"),
    ] {
        let (tests, findings) = world.load(&text);
        assert_eq!(tests, [], "{text}");
        let found = findings.iter().find(|finding| finding.message.contains(message));
        assert_eq!(found.map(|finding| finding.at.line), Some(line), "{text}: {findings:?}");
    }
    let (tests, findings) = world.load("test_a:\n  model: m.itms\n  outputs:\n    query: []\n");
    assert_eq!(tests, []);
    assert!(!findings[0].is_error() && findings[0].at.line == 2, "{findings:?}");
}

#[test]
fn what_cannot_be_tested_says_why() {
    let world = World::new();
    let prepare = |model: &str, rest: &str| {
        let text = format!("test_a:\n  model: {model}\n{rest}  outputs:\n    query: []\n");
        world.prepare(&world.one(&text)).unwrap_err()
    };
    let skipped = prepare("m.bq", "");
    assert!(matches!(&skipped, Unready::Skipped(why) if why.contains("written in bigquery")), "{skipped:?}");
    for (model, inputs, message) in [
        ("m.seed", "", "no query to test"),
        ("m.items", "  inputs:\n    m.seed: []\n", "nothing says what `m.orders` holds"),
        ("m.items", "  inputs:\n    m.orders:\n    - idd: 1\n", "there is no column `idd`"),
        ("m.orders", "  vars: {start: nonsense}\n", "`start`"),
    ] {
        match prepare(model, inputs) {
            Unready::Broken(finding) => assert!(finding.message.contains(message), "{finding:?}"),
            other => panic!("{message}: {other:?}"),
        }
    }
}

#[test]
fn tests_are_chosen_by_file_name_model_and_pattern() {
    let world = World::new();
    let (tests, _) = world.load(
        "test_a:\n  model: m.items\n  outputs: {query: []}\ntest_b:\n  model: m.orders\n  outputs: {query: []}\n",
    );
    let models =
        BTreeMap::from([("models/items.sql".to_owned(), vec!["m.items".parse::<ModelName>().unwrap()])]);
    let names = |tests_: &[&str], patterns: &[&str]| {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let selection = Selection { tests: texts(tests_), patterns: texts(patterns), models: None };
        let chosen = selection.of(&tests, &models)?;
        Ok::<Vec<String>, UnknownTest>(chosen.iter().map(|test| test.name.clone()).collect())
    };
    assert_eq!(names(&[], &[]).unwrap(), ["test_a", "test_b"]);
    assert_eq!(names(&["tests/test_x.yaml"], &[]).unwrap(), ["test_a", "test_b"]);
    assert_eq!(names(&["tests/test_x.yaml::test_b", "models/items.sql"], &[]).unwrap(), ["test_a", "test_b"]);
    assert_eq!(names(&["models/items.sql"], &[]).unwrap(), ["test_a"]);
    assert_eq!(names(&[], &["_b"]).unwrap(), ["test_b"]);
    assert_eq!(names(&[], &["*x.yaml::*a"]).unwrap(), ["test_a"]);
    assert_eq!(names(&["tests/test_y.yaml"], &[]).unwrap_err(), UnknownTest("tests/test_y.yaml".to_owned()));
}

//! The files of a project: models, audits, tests, configuration, macros.

use std::collections::BTreeMap;

use coord_common::interval::Timestamp;
use coord_common::project::model::{Code, Language};
use coord_common::project::render::{
    RenderContext, RenderEnv, Stage, TimeVars, Value, macro_use, render, render_statement,
};
use coord_common::project::{self, Project, ProjectInput, SourceFile};
use coord_common::{snapshot, unit_test};

use super::queries::DIALECTS;

const CONFIG: &str = "gateways:\n  local:\n    connection: {type: duckdb}\nmodel_defaults: {dialect: duckdb, \
                      start: 2024-01-01}\nvariables: {cutoff: 3, names: [a, b], nested: {x: 1}}\n";
const UPSTREAM: &str = "MODEL (name raw.events, kind INCREMENTAL_BY_TIME_RANGE (time_column ds), cron '@hourly');\n\
                        SELECT 1 AS id, 'a' AS name, @start_ds AS ds";

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.into(), text: text.into() }
}

/// Loads a project with one more file, and makes snapshots of its models.
fn load(path: &str, text: &str) -> Project {
    let mut files = vec![file("models/events.sql", UPSTREAM), file(path, text)];
    if path != "config.yaml" {
        files.push(file("config.yaml", CONFIG));
    }
    let env = BTreeMap::from([("USER".to_owned(), "somebody".to_owned())]);
    let (project, findings) = project::load(&ProjectInput { files: &files, env: &env, gateway: None });
    let (_, more) = snapshot::build(&project);
    for finding in findings.iter().chain(&more) {
        assert!(!finding.message.is_empty() && !finding.to_string().is_empty());
    }
    if unit_test::is_test_file(path) {
        let _ = unit_test::files_named(text);
        let (tests, _) = unit_test::load(&project, &files, &env);
        assert!(tests.iter().all(|test| !test.full_name().is_empty()));
    }
    project
}

pub(crate) fn model(bytes: &[u8]) {
    load("models/m.sql", &String::from_utf8_lossy(bytes));
}

pub(crate) fn audit(bytes: &[u8]) {
    load("audits/a.sql", &String::from_utf8_lossy(bytes));
}

pub(crate) fn unit_tests(bytes: &[u8]) {
    load("tests/test_a.yaml", &String::from_utf8_lossy(bytes));
}

/// Configuration, or external models: a connection's secrets never show.
pub(crate) fn config(bytes: &[u8]) {
    let Some((first, text)) = super::choice(bytes) else { return };
    if first % 4 == 1 {
        load("external_models.yaml", &text);
        return;
    }
    let project = load("config.yaml", &text);
    for gateway in &project.settings.gateways {
        let _ = (gateway.connection.duckdb(), gateway.connection.postgres());
    }
}

/// A text with macros, rendered for a batch and without one: it ends, soon, in a text or an error.
pub(crate) fn macros(bytes: &[u8]) {
    let Some((first, text)) = super::choice(bytes) else { return };
    let variables = BTreeMap::from([
        ("cutoff".to_owned(), Value::Int(3)),
        ("names".to_owned(), Value::List(vec![Value::Text("a".to_owned()), Value::Text("b".to_owned())])),
        ("nested".to_owned(), Value::Map(BTreeMap::from([("x".to_owned(), Value::Float(0.5))]))),
    ]);
    let jinja = "{% macro twice(x) %}{{ x }}, {{ x }}{% endmacro %}".to_owned();
    let env = RenderEnv {
        variables,
        gateway: "local".to_owned(),
        jinja_macros: BTreeMap::from([("macros/a.sql".to_owned(), jinja)]),
        schemas: BTreeMap::new(),
        default_catalog: None,
    };
    let dialect = DIALECTS[first % DIALECTS.len()];
    let language = if first & 0x80 == 0 { Language::Sql } else { Language::Jinja };
    let (definition, body) = text.split_once(";;").unwrap_or(("", &text));
    let definitions = [Code { text: definition.to_owned(), language: Language::Sql, line: 1 }];
    let code = Code { text: body.to_owned(), language, line: 3 };
    let (start, end) = (Timestamp(1_704_067_200_000), Timestamp(1_704_153_600_000));
    for time in [TimeVars::Batch { start, end, execution: end }, TimeVars::Symbolic] {
        let mut context = RenderContext::new(&env, dialect, time, Stage::Evaluating);
        context.definitions = &definitions;
        context.this_model = Some("\"a\".\"b\"");
        let _ = render(&code, &context);
        let _ = render_statement(&code, &context);
    }
    let _ = macro_use(&code);
}

/// Files of `examples/` whose paths contain a word, as they are.
pub(crate) fn examples(folder: &str, extension: &str) -> Vec<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let mut open = vec![std::path::PathBuf::from(root)];
    let mut found = Vec::new();
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at).into_iter().flatten().flatten() {
            let path = entry.path();
            let shown = path.to_string_lossy().into_owned();
            if path.is_dir() {
                open.push(path);
            } else if shown.contains(folder) && shown.ends_with(extension) {
                found.extend(std::fs::read_to_string(path).ok().map(|text| (shown, text)));
            }
        }
    }
    found.sort();
    found.into_iter().map(|(_, text)| text).collect()
}

/// The examples' queries, without their definitions.
pub(crate) fn bodies() -> impl Iterator<Item = String> {
    examples("/models/", ".sql").into_iter().filter_map(|text| Some(text.split_once(");")?.1.to_owned()))
}

fn bytes(texts: impl IntoIterator<Item = String>) -> Vec<Vec<u8>> {
    texts.into_iter().map(String::into_bytes).collect()
}

pub(crate) fn models() -> Vec<Vec<u8>> {
    let own = [
        "MODEL (name a.b, kind INCREMENTAL_BY_UNIQUE_KEY (unique_key (id, x), when_matched WHEN MATCHED THEN UPDATE \
         SET target.x = source.x), partitioned_by [ds], audits (not_null(columns := [id]), unique_values(columns = \
         (id))), grain id, tags [t], columns (id INT, x TEXT), cron '0 6 * * *', owner o, description 'it''s', \
         physical_properties (a = 1, b = [2, 'c']), allow_partials true, lookback 3, batch_size 10);\n@DEF(n, 3);\n\
         SELECT id, x FROM raw.events WHERE ds > @n;\nON_VIRTUAL_UPDATE_BEGIN;\nGRANT SELECT ON @this_model TO x;\n\
         ON_VIRTUAL_UPDATE_END;",
        "MODEL (name @{schema}.t_@{x}, kind SCD_TYPE_2_BY_TIME (unique_key id), blueprints ((schema := a, x := 1), \
         (schema := b, x := 2)));\nJINJA_QUERY_BEGIN;\nSELECT {{ var('cutoff') }} FROM raw.events\nJINJA_END;",
        "MODEL (name a.s, kind SEED (path '$root/seeds/s.csv', csv_settings (delimiter = ';')), columns (a INT));",
    ];
    bytes(own.map(str::to_owned).into_iter().chain(examples("/models/", ".sql")))
}

pub(crate) fn audits() -> Vec<Vec<u8>> {
    let own = "AUDIT (name big, dialect duckdb, defaults (threshold = 3), blocking false);\nSELECT * FROM @this_model \
               WHERE x > @threshold;\nAUDIT (name alone, standalone true, cron '@daily');\nSELECT * FROM raw.events";
    bytes([own.to_owned()].into_iter().chain(examples("/audits/", ".sql")))
}

pub(crate) fn tests() -> Vec<Vec<u8>> {
    let own = "test_a:\n  model: raw.events\n  inputs:\n    x.y:\n      columns: {id: int}\n      rows:\n      - id: 1\n\
               \x20       ds: 2024-01-01\n      - {id: null}\n    z:\n      format: csv\n      rows: |\n        a,b\n\
               \x20       1,2\n    q: {query: SELECT 1 AS a}\n  outputs:\n    partial: true\n    ctes:\n      c:\n      \
               - {a: 1.5}\n    query:\n    - id: 1\n      name: a\n  vars: {start: 2024-01-01, end: 2024-01-02, \
               execution_time: 2024-01-02, cutoff: 3}\n";
    bytes([own.to_owned(), "t: {model: raw.events, outputs: {query: {rows: [{id: 1}]}}}".to_owned()])
}

pub(crate) fn configs() -> Vec<Vec<u8>> {
    let own = "gateways:\n  a:\n    connection: {type: postgres, host: h, user: u, password: \"{{ env_var('P', 'x') }}\", \
               port: 5432, database: d, concurrent_tasks: 4}\n    variables: {x: 1}\n  b:\n    connection:\n      type: \
               duckdb\n      catalogs: {main: ':memory:', other: {type: duckdb, path: o.db}}\n      extensions: [httpfs]\n\
               default_gateway: a\nmodel_defaults: {dialect: postgres, cron: '@daily', start: 1 week ago, \
               physical_properties: {a: 1}}\nvariables: {a: [1, {b: c}], d: null}\nplan: {auto_categorize_changes: {sql: \
               full}, no_gaps: true}\nformat: {}\nignore_patterns: ['*.tmp', '**/x/*']\nenvironment_suffix_target: \
               catalog\nphysical_schema_mapping: {'^a.*$': b}\nbefore_all: [\"CREATE SCHEMA x\"]\n";
    let external = "- name: raw.x\n  columns: {a: int, b: text}\n  gateway: a\n- name: '\"A\".\"b\"'\n";
    let mut all = vec![super::chosen(0, own), super::chosen(0, CONFIG), super::chosen(1, external)];
    all.extend(examples("", "config.yaml").iter().map(|text| super::chosen(0, text)));
    all
}

pub(crate) fn macro_texts() -> Vec<Vec<u8>> {
    let own = [
        "SELECT @EACH(['a', 'b'], x -> @x || 'c') FROM t @WHERE(@cutoff > 2) ds BETWEEN @start_ds AND @end_ds",
        "@DEF(f, x -> x + 1);;SELECT @f(@f(2)), @IF(@names IS NULL, 1, 2), @EVAL(1 + 2 * 3 / 4 % 5 - 6) AS a_@cutoff",
        "SELECT @REDUCE(@EACH([1, 2, 3], x -> y.x), (a, b) -> a + b), @FILTER([1, 2, 3], x -> x > 1), @'text @{cutoff}'",
        "SELECT @STAR(raw.events, exclude := [id], prefix := 'p_'), @GENERATE_SURROGATE_KEY(a, b, hash_function := 'SHA256')",
        "SELECT @AND(TRUE, NULL, a), @OR(b, c), @SQL('x'), @DATE_SPINE('day', '2024-01-01', '2024-01-05'), @PIVOT(a, [1, 2])",
        "@UNION('distinct', a, b) @GROUP_BY(TRUE) a, b @ORDER_BY(FALSE) c @LIMIT(3) @HAVING(x > 1) @JOIN(FALSE) b ON c",
        "SELECT @{cutoff}_x, \"@{cutoff}\", @VAR('names'), @BLUEPRINT_VAR('x', 'y'), @resolve_template('@{table_name}')",
        "@IF(@runtime_stage = 'evaluating', GRANT SELECT ON @this_model TO @nested); @EACH(@names, n -> DROP TABLE @n)",
    ];
    let jinja = "SELECT {{ twice(var('cutoff')) }} {% for x in range(3) %}, {{ x }} AS c{{ loop.index }}{% endfor %} \
                 {% set y = [1, 2] %}{% if start_ds %}{{ y | join(',') }}{% endif %} FROM {{ this_model }}";
    let mut all: Vec<Vec<u8>> = own.iter().map(|text| super::chosen(0, text)).collect();
    all.push(super::chosen(0x80, jinja));
    all.extend(bodies().map(|text| super::chosen(0, &text)));
    all
}

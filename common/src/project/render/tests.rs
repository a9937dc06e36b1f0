use super::*;
use crate::project::model::Code;

const EXECUTION: Timestamp = Timestamp(1_673_328_600_000);
const BATCH: TimeVars = TimeVars::Batch {
    start: Timestamp(1_672_531_200_000),
    end: Timestamp(1_672_617_600_000),
    execution: EXECUTION,
};

fn sql(text: &str) -> Code {
    Code { text: text.to_owned(), language: Language::Sql, line: 1 }
}

fn jinja(text: &str) -> Code {
    Code { text: text.to_owned(), language: Language::Jinja, line: 1 }
}

fn columns(list: &[(&str, &str)]) -> Vec<ColumnDef> {
    list.iter().map(|(name, t)| ColumnDef { name: (*name).to_owned(), data_type: (*t).to_owned() }).collect()
}

/// The same variables and columns as the oracle's.
fn env(dialect: Dialect) -> RenderEnv {
    let text = |text: &str| Value::Text(text.to_owned());
    let (int, string) = if dialect == Dialect::BigQuery { ("INT64", "STRING") } else { ("INT", "TEXT") };
    RenderEnv {
        variables: [
            ("n", Value::Int(5)),
            ("f", Value::Float(2.5)),
            ("t", text("txt")),
            ("b", Value::Bool(true)),
            ("l", Value::List(vec![Value::Int(1), Value::Int(2), Value::Int(3)])),
            ("lt", Value::List(vec![text("a"), text("b")])),
            ("nul", Value::Null),
            ("over", text("root")),
            ("m", Value::Map([("k".to_owned(), Value::Int(1))].into())),
            ("q", text("it's")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        gateway: "gw".to_owned(),
        schemas: [
            ("s.foo", columns(&[("a", int), ("b", string), ("c", string)])),
            ("s.bar", columns(&[("c", string), ("a", int), ("b", int)])),
            ("s.nt", columns(&[("x", "unknown"), ("y", "unknown")])),
        ]
        .map(|(name, columns)| (name.parse().unwrap(), columns))
        .into(),
        ..RenderEnv::default()
    }
}

fn blueprint() -> BTreeMap<String, String> {
    [("bp", "customer"), ("bps", "'str'"), ("over", "bpv"), ("bpn", "7")]
        .map(|(name, sql)| (name.to_owned(), sql.to_owned()))
        .into()
}

fn with<T>(dialect: Dialect, time: TimeVars, f: impl FnOnce(&RenderContext<'_>) -> T) -> T {
    let (env, blueprint) = (env(dialect), blueprint());
    f(&RenderContext {
        blueprint: &blueprint,
        this_model: Some("db.s.this_tbl"),
        model_kind_name: "FULL",
        ..RenderContext::new(&env, dialect, time, Stage::Evaluating)
    })
}

fn rendered(text: &str) -> Result<String, RenderError> {
    with(Dialect::DuckDb, BATCH, |context| render(&sql(text), context))
}

/// A text's words and signs; blanks, comments and the case of plain words don't count.
fn tokens(text: &str, dialect: Dialect) -> Vec<String> {
    let bytes = text.as_bytes();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let end = if let Some((kind, end)) = lex::opaque(text, at, dialect) {
            if kind != lex::Opaque::Comment {
                tokens.push(text[at..end].to_owned());
            }
            end
        } else if lex::is_word_byte(bytes[at]) {
            let end = lex::word_end(bytes, at);
            tokens.push(text[at..end].to_lowercase());
            end
        } else {
            if !bytes[at].is_ascii_whitespace() && bytes[at] != b';' {
                tokens.push(text[at..=at].to_owned());
            }
            at + 1
        };
        at = end;
    }
    tokens
}

/// Cases where ours isn't what the table says, as `dialect: input`, ours and the table's.
fn differences(table: &str) -> Vec<String> {
    let table: serde_json::Value = serde_json::from_str(table).unwrap();
    let mut wrong = Vec::new();
    for case in table.as_array().unwrap() {
        let input = case["input"].as_str().unwrap();
        let dialect: Dialect = case["dialect"].as_str().unwrap().parse().unwrap();
        let ours =
            with(dialect, BATCH, |context| render_statement(&sql(input), context).map(|all| all.join("; ")));
        let same = match (&ours, case["expected"].as_str()) {
            (Ok(ours), Some(theirs)) => tokens(ours, dialect) == tokens(theirs, dialect),
            (Err(_), None) => true,
            _ => false,
        };
        if !same {
            wrong.push(format!("{dialect}: {input}\n  ours   {ours:?}\n  theirs {}", case["expected"]));
        }
    }
    wrong
}

#[test]
fn what_sqlmesh_renders_is_what_we_render() {
    let wrong = differences(include_str!("../../../tests/fixtures/macros.json"));
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Where SQLMesh fails, drops an alias's meaning or leaves a macro in the text, we give what the
/// user meant.
#[test]
fn where_we_differ_from_sqlmesh_we_mean_to() {
    let wrong = differences(include_str!("../../../tests/fixtures/macros_ours.json"));
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn symbolic(text: &str) -> Result<String, RenderError> {
    with(Dialect::DuckDb, TimeVars::Symbolic, |context| render(&sql(text), context))
}

fn in_jinja(text: &str, time: TimeVars) -> Result<String, RenderError> {
    with(Dialect::DuckDb, time, |context| render(&jinja(text), context))
}

#[test]
fn text_without_macros_stays_byte_for_byte() {
    for text in [
        "SELECT  a,\n\tb -- it's @nope\nFROM t /* @nope */",
        "SELECT 'a@b.c', '@start_ds', $$@n$$, a @> b, x <@ y, @@version, a @- b",
        "CREATE USER x@localhost",
        "",
    ] {
        assert_eq!(rendered(text).unwrap(), text);
    }
}

#[test]
fn only_macro_spans_change() {
    assert_eq!(
        rendered("select\n  a , -- one\n  @n AS x,\n  @IF(FALSE, b), c\nFROM  t").unwrap(),
        "select\n  a , -- one\n  5 AS x\n  , c\nFROM  t"
    );
}

#[test]
fn symbolic_times_stay_in_the_text() {
    assert_eq!(symbolic("SELECT @Start_DS, @end_dt").unwrap(), "SELECT @start_ds, @end_dt");
    assert_eq!(
        symbolic("SELECT * FROM t WHERE @AND(ds >= @start_ds, ds <= @end_ds, @n = 5)").unwrap(),
        "SELECT * FROM t WHERE ds >= @start_ds AND ds <= @end_ds AND 5 = 5"
    );
    for text in ["SELECT @IF(@start_ds > '2020', 1, 2)", "SELECT @'x @start_ds'", "SELECT c_@start_ds"] {
        assert_eq!(symbolic(text).unwrap_err().code, "needs-time-value", "{text}");
    }
    assert_eq!(
        in_jinja("SELECT '{{ start_ds }}' AS d", TimeVars::Symbolic).unwrap(),
        "SELECT '@start_ds' AS d"
    );
    for text in ["{% if start_ds > '2020' %}a{% endif %}", "{{ start_ds | upper }}", "{{ start_ds ~ 'x' }}"] {
        assert_eq!(in_jinja(text, TimeVars::Symbolic).unwrap_err().code, "needs-time-value", "{text}");
    }
}

#[test]
fn full_and_view_queries_know_only_the_execution_time() {
    let only = TimeVars::ExecutionOnly { execution: EXECUTION };
    let text = "SELECT @execution_ds,\n  @start_ds";
    let error = with(Dialect::DuckDb, only, |context| render(&sql(text), context)).unwrap_err();
    assert_eq!((error.code, error.line, error.column), ("no-batch-time", 2, 3));
    assert!(error.hint.unwrap().contains("execution_"));
    assert_eq!(in_jinja("SELECT '{{ end_ds }}'", only).unwrap_err().code, "no-batch-time");
    assert_eq!(in_jinja("SELECT '{{ execution_ds }}'", only).unwrap(), "SELECT '2023-01-10'");
}

#[test]
fn errors_name_their_place_and_what_to_do() {
    for (text, code, line, column) in [
        ("SELECT\n  @nope", "undefined-variable", 2, 3),
        ("SELECT @my_macro(1)", "python-macro", 1, 8),
        ("SELECT 1,\n @IF(@n < 'a', 1, 2)", "macro-condition", 2, 2),
        ("SELECT @EACH([a], x -> x", "unclosed-macro", 1, 8),
        ("SELECT @STAR(s.nope)", "unknown-columns", 1, 8),
        ("SELECT @SAFE_DIV(a)", "macro-arguments", 1, 8),
        ("@DEF(f, x -> @f(@x)); SELECT @f(1)", "macro-limit", 1, 30),
        ("SELECT a FROM t WHERE @IF(FALSE, b)", "macro-gives-nothing", 1, 23),
    ] {
        let error = rendered(text).unwrap_err();
        assert_eq!((error.code, error.line, error.column), (code, line, column), "{text}: {error}");
    }
}

#[test]
fn macros_that_write_too_much_are_stopped() {
    let text = format!("@DEF(a, x -> @x || @x); SELECT {}1{}", "@a(".repeat(40), ")".repeat(40));
    assert_eq!(rendered(&text).unwrap_err().code, "macro-limit");
}

#[test]
fn definitions_of_pre_statements_reach_every_text() {
    let definitions = [sql("@DEF(x, 1 + @n)"), sql("DROP TABLE y"), sql("@def(twice, a -> @a * 2)")];
    let text = with(Dialect::DuckDb, BATCH, |context| {
        render(&sql("SELECT @x, @twice(@x)"), &RenderContext { definitions: &definitions, ..context.clone() })
    });
    assert_eq!(text.unwrap(), "SELECT 1 + 5, 1 + 5 * 2");
}

#[test]
fn statements_may_vanish_or_multiply() {
    let statements =
        |text| with(Dialect::DuckDb, BATCH, |context| render_statement(&sql(text), context).unwrap());
    assert!(statements("@IF(@runtime_stage = 'creating', DROP TABLE x)").is_empty());
    assert!(statements("@DEF(a, 1)").is_empty());
    assert_eq!(statements("@EACH([a, b], x -> DROP TABLE x)"), ["DROP TABLE a", "DROP TABLE b"]);
    let two = with(Dialect::DuckDb, BATCH, |context| {
        render_statement(&jinja("{% for x in var('lt') %}DROP TABLE {{ x }};{% endfor %}"), context).unwrap()
    });
    assert_eq!(two, ["DROP TABLE a", "DROP TABLE b"]);
}

#[test]
fn jinja_sees_variables_and_the_projects_macros() {
    let mut env = env(Dialect::DuckDb);
    env.jinja_macros
        .insert("macros/a.sql".into(), "{% macro one(x, y=2) %}{{ two(x) }} + {{ y }}{% endmacro %}".into());
    env.jinja_macros.insert(
        "macros/b.sql".into(),
        "{%- macro two(x) -%}f({{ x }}, {{ var('n') }}){%- endmacro -%}".into(),
    );
    let context = RenderContext::new(&env, Dialect::DuckDb, BATCH, Stage::Evaluating);
    for (text, expected) in [
        ("SELECT {{ one('a', y=3) }}", "SELECT f(a, 5) + 3"),
        ("SELECT '{{ start_ds }}', {{ end_millis }}, @n", "SELECT '2023-01-01', 1672617599999, 5"),
        ("{{ var('missing', 7) }} {{ gateway }} {{ runtime_stage }}", "7 gw evaluating"),
        ("{% for k, v in var('m').items() %}{{ v }} AS {{ k }}{% endfor %} {{ var('m').k }}", "1 AS k 1"),
        (
            "{{ start_date.strftime('%Y%m') }} {{ end_dt.date() }} {{ execution_dt.year }}",
            "202301 2023-01-01 2023",
        ),
        (
            "{% set x = [] %}{% for i in range(3) %}{% do x.append(i) %}{% endfor %}{{ x | join(', ') }}",
            "0, 1, 2",
        ),
        ("{% for i in range(9) %}{% if i > 1 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% for c in ['a', 'b'] %}{{ c }}{{ ', ' if not loop.last }}{% endfor %}", "a, b"),
    ] {
        assert_eq!(render(&jinja(text), &context).unwrap(), expected, "{text}");
    }
    let error = render(&jinja("SELECT 1,\n {{ nope }}"), &context).unwrap_err();
    assert_eq!((error.code, error.line), ("jinja", 2));
    assert_eq!(render(&jinja("SELECT * FROM {{ ref('x') }}"), &context).unwrap_err().code, "dbt");
}

#[test]
fn macro_use_finds_variables_times_functions_and_relations() {
    let text = "SELECT @STAR(s.foo), @VAR('X1'), @x2, c_@{x3}, @'y @x4', @start_ds -- @x5";
    let found = macro_use(&sql(text));
    let names = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(names(&found.variables), "x1 x2 x3 x4");
    assert_eq!(names(&found.functions), "star var");
    assert_eq!(names(&found.schemas_needed), "s.foo");
    assert!(found.time && found.start_end);
    let found = macro_use(&jinja("SELECT '{{ execution_ds }}', {{ var('Z') }}, {{ helper(1) }}"));
    assert!(
        found.time && !found.start_end && found.variables.contains("z") && found.functions.contains("helper")
    );
    assert_eq!(macro_use(&sql("SELECT 1")), super::MacroUse::default());
}

#[test]
fn every_builtin_audit_parses_in_duckdb_and_postgres() {
    use sqlparser::dialect::{DuckDbDialect, PostgreSqlDialect};
    use sqlparser::parser::Parser;
    let args: BTreeMap<String, String> = [
        ("column", "c"),
        ("columns", "(a, b)"),
        ("is_in", "('x', 'y')"),
        ("criteria", "(a > 0, c <> 'z')"),
        ("patterns", "('^a', 'b%')"),
        ("min_v", "1"),
        ("max_v", "3"),
        ("threshold", "1"),
        ("v", "3"),
        ("lower_bound_column", "a"),
        ("upper_bound_column", "b"),
        ("source_column", "a"),
        ("target_column", "b"),
        ("column_a", "a"),
        ("column_b", "b"),
        ("critical_value", "9.4"),
        ("condition", "c IS NOT NULL OR a > 1"),
    ]
    .map(|(name, sql)| (name.to_owned(), sql.to_owned()))
    .into();
    let numeric = ["mean_in_range", "stddev_in_range", "accepted_range", "z_score", "sequential_values"];
    let empty = RenderEnv::default();
    for name in crate::project::audits_builtin::builtin_audit_names() {
        let audit = crate::project::audits_builtin::builtin_audit(name).unwrap();
        let mut args = args.clone();
        if numeric.contains(&name) {
            args.insert("column".to_owned(), "a".to_owned());
        }
        for dialect in [Dialect::DuckDb, Dialect::Postgres] {
            let mut context = RenderContext::new(&empty, dialect, BATCH, Stage::Auditing);
            context.this_model = Some("(SELECT * FROM t WHERE a > 0) AS this");
            let text =
                render_audit(&audit, &args, &context).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            println!("--{dialect} {name}\n{text};");
            let parsed = match dialect {
                Dialect::DuckDb => Parser::parse_sql(&DuckDbDialect {}, &text),
                _ => Parser::parse_sql(&PostgreSqlDialect {}, &text),
            };
            parsed.unwrap_or_else(|why| panic!("{name}: {why}\n{text}"));
        }
    }
    let twin = crate::project::audits_builtin::builtin_audit("Not_Null_non_blocking").unwrap();
    assert!(!twin.blocking && twin.name == "not_null_non_blocking");
    assert!(crate::project::audits_builtin::builtin_audit("nope").is_none());
}

const PIECES: [&str; 40] = [
    "@",
    "@{",
    "}",
    "@n",
    "@t",
    "@{t}",
    "'",
    "\"",
    "`",
    "[",
    "]",
    "(",
    ")",
    ",",
    " ",
    "\n",
    "é",
    "--",
    "/*",
    "*/",
    "$$",
    "@IF(",
    "@EACH(",
    "x -> ",
    "@AND(",
    "@WHERE(",
    "@SQL(",
    "@'",
    "@DEF(",
    "@VAR('n')",
    "@start_ds",
    " AS ",
    "a",
    ".",
    "1",
    "{{ ",
    " }}",
    "{% if ",
    "\\",
    ":=",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(3000))]

    #[test]
    fn any_text_renders_or_fails_with_a_place(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..25),
        dialect in proptest::sample::select(vec![Dialect::DuckDb, Dialect::BigQuery, Dialect::TSql]),
        time in proptest::sample::select(vec![BATCH, TimeVars::Symbolic]),
    ) {
        let text = pieces.concat();
        macro_use(&sql(&text));
        macro_use(&jinja(&text));
        for code in [sql(&text), jinja(&text)] {
            if let Err(error) = with(dialect, time, |context| render_statement(&code, context)) {
                assert!(error.line >= 1 && error.column >= 1 && !error.message.is_empty());
            }
        }
    }
}

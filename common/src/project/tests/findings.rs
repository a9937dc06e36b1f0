//! One case per code at least, with its place.

use super::{CONFIG, project};
use crate::diagnostic::Diagnostic;
use crate::project::seed;

fn brief(finding: &Diagnostic) -> String {
    format!("{} {}", finding.at, finding.code)
}

/// Checks what a project's files give: `path:line:column code`, in order.
fn check(files: &[(&str, &str)], expected: &[&str]) -> Vec<Diagnostic> {
    let (_, findings) = project(files);
    let found: Vec<String> = findings.iter().map(brief).collect();
    assert_eq!(found, expected, "{files:?}\n{findings:#?}");
    for finding in &findings {
        assert!(finding.hint.is_some() && !finding.message.ends_with('.'), "{finding}");
    }
    findings
}

#[test]
fn mistakes_in_models_have_a_place() {
    for (text, expected) in [
        ("\n SELECT 1", "2:2 missing-model-block"),
        ("MODEL (name a)\nSELECT 1", "2:1 missing-semicolon|1:1 no-query"),
        ("MODEL (name a; SELECT 1", "1:7 unclosed-block"),
        ("MODEL (name a);\nSELECT 'x", "2:8 unterminated"),
        ("MODEL (name a);\nON_VIRTUAL_UPDATE_BEGIN; x", "2:1 unterminated"),
        ("MODEL (name a,, kind FULL); SELECT 1", "1:15 syntax"),
        ("MODEL (name a, 5 x); SELECT 1", "1:16 syntax"),
        ("MODEL (name a, kind); SELECT 1", "1:16 syntax"),
        ("MODEL (name a, kind FULL x); SELECT 1", "1:26 syntax"),
        ("MODEL (name a,\n cron '@daily',\n cron '@hourly'); SELECT 1", "3:2 repeated-property"),
        ("MODEL (name a, dailect x); SELECT 1", "1:16 unknown-property"),
        ("MODEL (name a, default_catalog x); SELECT 1", "1:16 unknown-property"),
        ("MODEL (name a, start 2020-01-01); SELECT 1", "1:22 invalid-value"),
        ("MODEL (name a, retention 30); SELECT 1", "1:16 unsupported-property"),
        ("MODEL (name a, allow_partials maybe); SELECT 1", "1:31 invalid-value"),
        ("MODEL (name a, allow_partials (true, x)); SELECT 1", "1:31 invalid-value"),
        ("MODEL (name a, cron_tz 'Mars/X'); SELECT 1", "1:24 invalid-value"),
        ("MODEL (name a, interval_unit week); SELECT 1", "1:30 invalid-value"),
        ("MODEL (name a, columns x); SELECT 1", "1:24 invalid-value"),
        ("MODEL (kind FULL); SELECT 1", "1:1 missing-name"),
        ("MODEL (name 'a.b'); SELECT 1", "1:13 invalid-name"),
        ("MODEL (name a.b.c.d); SELECT 1", "1:13 invalid-name"),
        ("MODEL (name a, depends_on (b, f(x))); SELECT 1", "1:31 invalid-name"),
        ("MODEL (name a,\n  kind FULLL); SELECT 1", "2:8 unknown-kind"),
        ("MODEL (name a, kind FULL (x 1)); SELECT 1", "1:27 unknown-kind-property"),
        ("MODEL (name a, kind VIEW (materialised true)); SELECT 1", "1:27 unknown-kind-property"),
        ("MODEL (name a, kind INCREMENTAL_BY_TIME_RANGE); SELECT 1", "1:21 missing-property"),
        ("MODEL (name a, kind INCREMENTAL_BY_UNIQUE_KEY (lookback 1)); SELECT 1", "1:21 missing-property"),
        ("MODEL (name a, kind INCREMENTAL_BY_PARTITION); SELECT 1", "1:16 missing-property"),
        (
            "MODEL (name a, kind INCREMENTAL_BY_TIME_RANGE (time_column d, batch_size 0)); SELECT 1",
            "1:74 invalid-value",
        ),
        (
            "MODEL (name a, kind INCREMENTAL_BY_TIME_RANGE (time_column d, lookback -1)); SELECT 1",
            "1:72 invalid-value",
        ),
        ("MODEL (name a, kind CUSTOM (materialization 'x')); SELECT 1", "1:21 unsupported-kind"),
        ("MODEL (name a, @props()); SELECT 1", "1:16 python-macro|1:16 unsupported-macro"),
        ("MODEL (name a, blueprints @f()); SELECT 1", "1:27 python-macro"),
        (
            "MODEL (name a, kind FULL, cron '@hourly', interval_unit day); SELECT 1",
            "1:43 invalid-interval-unit",
        ),
        ("MODEL (name a, owner @nobody); SELECT 1", "1:22 undefined-variable|1:22 invalid-value"),
        ("MODEL (name a, dialect postgress); SELECT 1", "1:24 unknown-dialect"),
        ("MODEL (name a, gateway lokal); SELECT 1", "1:24 unknown-gateway"),
        ("MODEL (name a, cron 'daily'); SELECT 1", "1:21 invalid-cron"),
        ("MODEL (name a, end '2024-01-01'); SELECT 1", "1:16 end-without-start"),
        ("MODEL (name a, grain x, grains (y)); SELECT 1", "1:16 conflicting-properties"),
        ("MODEL (name a);\nSELECT 1;\n SELECT 2", "3:2 several-queries"),
        ("MODEL (name a);\nSET x = 1;", "1:1 no-query"),
        ("MODEL (name a, audits (f(1))); SELECT 1", "1:26 invalid-call|1:24 unknown-audit"),
        ("MODEL (name a, audits (f + g)); SELECT 1", "1:24 invalid-call"),
        (
            "MODEL (name a, kind EMBEDDED, audits (not_null(columns := (a)))); SELECT 1",
            "1:38 embedded-audits",
        ),
        ("MODEL (name a, columns (x int,\n y)); SELECT 1", "2:2 invalid-column"),
        ("MODEL (name a, columns (x int, X text)); SELECT 1", "1:32 invalid-column"),
        (
            "MODEL (name a, audits (not_null(columns := (a)),\n  not_nul(columns := (a)))); SELECT 1",
            "2:3 unknown-audit",
        ),
        ("MODEL (name a, kind SEED (path '../s.csv'))", "1:32 missing-seed"),
        ("MODEL (name a, kind FULL, grants (x = 1)); SELECT 1", "1:27 property-without-effect"),
        (
            "MODEL (name a, kind FULL, physical_version '1'); SELECT 1",
            "1:27 property-without-effect|1:27 conflicting-properties",
        ),
        (
            "MODEL (name a, partitioned_by x); SELECT 1",
            "1:16 property-without-effect|1:16 conflicting-properties",
        ),
        ("MODEL (name @x, blueprints ((x := a, y)), kind FULL); SELECT 1", "1:38 invalid-value"),
        ("MODEL (name a, session_properties (batch_timeout = 'soon')); SELECT 1", "1:35 invalid-value"),
        (
            "MODEL (name a, session_properties (x = 1, batch_timeout = 9)); SELECT 1",
            "1:16 property-without-effect",
        ),
    ] {
        let expected: Vec<String> =
            expected.split('|').map(|place| format!("models/m.sql:{place}")).collect();
        check(&[("models/m.sql", text)], &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn places_in_expanded_blocks_are_those_of_the_file() {
    let text = "MODEL (\n  name @layer.@{x},\n  blueprints ((x := aaaaaaaaaaaaaaaaa),\n    (x := b)),\n  cron 'often'\n); SELECT 1";
    check(&[("models/m.sql", text)], &["models/m.sql:5:8 invalid-cron"]);
}

#[test]
fn near_words_are_suggested() {
    for (text, hint) in [
        ("MODEL (name a, dailect x); SELECT 1", "did you mean `dialect`?"),
        ("MODEL (name a, kind FULLL); SELECT 1", "did you mean `FULL`?"),
        ("MODEL (name a, audits (not_nul)); SELECT 1", "did you mean `not_null`?"),
        ("MODEL (name a, gateway lokal); SELECT 1", "did you mean `local`?"),
    ] {
        let (_, findings) = project(&[("models/m.sql", text)]);
        assert_eq!(findings[0].hint.as_deref(), Some(hint), "{text}");
    }
}

#[test]
fn names_may_be_taken_once() {
    let findings = check(
        &[
            ("models/a.sql", "MODEL (name a.b); SELECT 1"),
            ("models/b.sql", "MODEL (kind FULL,\n name wh.A.b); SELECT 1"),
            ("external_models.yaml", "- name: x.y\n- name: a.b\n"),
        ],
        &["models/b.sql:2:7 duplicate-model", "external_models.yaml:2:1 duplicate-model"],
    );
    assert_eq!(findings[0].message, "model `a.b` is defined twice; first at models/a.sql:1:13");
}

#[test]
fn mistakes_in_audits_have_a_place() {
    check(&[("audits/a.sql", "\nSELECT 1")], &["audits/a.sql:2:1 missing-audit-block"]);
    check(&[("audits/a.sql", "AUDIT (name a);")], &["audits/a.sql:1:1 no-query"]);
    check(&[("audits/a.sql", "AUDIT (name a);\nSELEC 1")], &["audits/a.sql:2:1 no-query"]);
    check(&[("audits/a.sql", "AUDIT (skip true); SELECT 1")], &["audits/a.sql:1:1 missing-name"]);
    check(
        &[("audits/a.sql", "AUDIT (name a, blokking true); SELECT 1")],
        &["audits/a.sql:1:16 unknown-property"],
    );
    check(
        &[("audits/a.sql", "AUDIT (name a); SET x = 1; SELECT 1")],
        &["audits/a.sql:1:17 audit-statements"],
    );
    check(
        &[("audits/a.sql", "AUDIT (name a, owner x); SELECT 1")],
        &["audits/a.sql:1:16 property-without-effect"],
    );
    let two = "AUDIT (name a); SELECT 1;\nAUDIT (name A); SELECT 2";
    check(&[("audits/a.sql", two)], &["audits/a.sql:2:1 duplicate-audit"]);
}

#[test]
fn mistakes_in_external_models_have_a_place() {
    for (text, expected) in [
        ("a: b", &["external_models.yaml:1:1 invalid-external-model"][..]),
        ("- name: a\n  x: [", &["external_models.yaml:3:1 invalid-yaml"]),
        ("- name: a\n- columns: {a: int}\n", &["external_models.yaml:2:1 invalid-external-model"]),
        ("- name: a\n  colums: {}\n", &["external_models.yaml:1:1 invalid-external-model"]),
        ("- name: a b\n", &["external_models.yaml:1:1 invalid-external-model"]),
    ] {
        let (_, findings) = project(&[("external_models.yaml", text)]);
        let found: Vec<String> = findings.iter().map(brief).collect();
        let codes = |list: &[String]| -> Vec<String> {
            list.iter().map(|text| text.rsplit(' ').next().unwrap_or_default().to_owned()).collect()
        };
        let expected: Vec<String> = expected.iter().map(|text| (*text).to_owned()).collect();
        if text.contains('[') {
            // The place is the YAML parser's.
            assert_eq!(codes(&found), codes(&expected), "{text}");
        } else {
            assert_eq!(found, expected, "{text}");
        }
    }
}

#[test]
fn mistakes_in_settings_have_a_place() {
    for (text, expected) in [
        ("a: [", "invalid-yaml"),
        ("- a", "1:1 invalid-config"),
        ("a: {{ env_var( }}", "1:1 invalid-jinja"),
        ("model_defaults: {dialect: duckdb}\nplann: {}", "2:1 unknown-setting"),
        ("model_defaults:\n  dialect: duckdb\n  dialekt: x", "3:3 unknown-setting"),
        ("model_defaults: {dialect: duckdb}\nplan:\n  forward_only: perhaps", "3:3 invalid-setting"),
        ("model_defaults: {dialect: duckdbb}", "1:18 invalid-setting"),
        ("model_defaults: {dialect: duckdb}\nenvironment_suffix_target: shema", "2:1 invalid-setting"),
        ("model_defaults: {dialect: duckdb}\nrun: {environment_check_interval: 0}", "2:7 invalid-setting"),
        ("model_defaults: {dialect: duckdb}\nphysical_schema_mapping: {'a(': b}", "2:28 invalid-setting"),
        ("model_defaults: {dialect: duckdb, cron: daily}", "1:35 invalid-cron"),
        ("model_defaults:\n  dialect: duckdb\n  gateway: g", "3:3 unknown-gateway"),
        ("project: x", "1:1 missing-setting"),
        (
            "model_defaults: {dialect: duckdb}\ngateways:\n  a:\n    connection:\n      database: x",
            "4:5 missing-setting",
        ),
        (
            "model_defaults: {dialect: duckdb}\ngateways:\n  a:\n    connection:\n      type: dukdb",
            "5:7 unknown-connection-type",
        ),
        ("model_defaults: {dialect: duckdb}\ndefault_gateway: x", "2:1 unknown-gateway"),
        ("model_defaults: {dialect: duckdb}\nusers:\n- x", "2:1 setting-without-effect"),
    ] {
        let (_, findings) = project(&[("config.yaml", text)]);
        assert_eq!(findings.len(), 1, "{text}\n{findings:#?}");
        assert!(findings[0].hint.is_some(), "{text}");
        if expected.contains(':') {
            assert_eq!(brief(&findings[0]), format!("config.yaml:{expected}"), "{text}");
        } else {
            assert_eq!(findings[0].code, expected, "{text}");
        }
    }
}

#[test]
fn what_cannot_be_loaded_is_named_and_the_rest_loads() {
    let files = [
        ("config.py", "config = 1"),
        ("dbt_project.yml", ""),
        ("macros/__init__.py", ""),
        ("macros/m.py", "from x import macro\n@macro()\ndef f(): pass"),
        ("materializations/c.py", "class C(CustomMaterialization): pass"),
        ("metrics/x.sql", "METRIC (name x)"),
        ("models/m.sql", "MODEL (name a.b, kind FULL); SELECT 1"),
        ("models/p.py", "import x\n\n@model('a.c')\ndef f(): pass"),
        ("signals/s.py", "@signal()\ndef s(): pass"),
    ];
    check(
        &files,
        &[
            "dbt_project.yml:1:1 dbt-not-supported",
            "config.py:1:1 several-configs",
            "macros/m.py:2:1 python-not-supported",
            "materializations/c.py:1:15 python-not-supported",
            "models/p.py:3:1 python-not-supported",
            "metrics/x.sql:1:1 metrics-without-effect",
        ],
    );
    let (project, _) = project(&files);
    assert_eq!(project.models.len(), 1);
    assert_eq!(project.unsupported_python.len(), 3);
}

#[test]
fn signals_are_queries_and_others_are_refused_where_a_model_uses_them() {
    let model = |name: &str, signals: &str| {
        format!("MODEL (name a.{name}, kind FULL, signals ({signals}));\nSELECT 1 AS x")
    };
    let (one, two, three) = (model("m", "ready(lag := 2)"), model("n", "late()"), model("o", "redy()"));
    let files = [
        ("models/m.sql", one.as_str()),
        ("models/n.sql", two.as_str()),
        ("models/o.sql", three.as_str()),
        ("signals/deep/Ready.sql", "SELECT @start_ts, @end_ts, @lag"),
        ("signals/drop.sql", "DROP TABLE x"),
        ("signals/unused.py", "@signal()\ndef other(batch): return True"),
        ("signals/used.py", "import x\n@signal()\ndef late(batch):\n  return True"),
    ];
    check(
        &files,
        &[
            "signals/drop.sql:1:1 signal-query",
            "models/n.sql:1:37 python-not-supported",
            "models/o.sql:1:37 unknown-signal",
        ],
    );
    let (project, findings) = project(&files);
    assert_eq!(project.models[0].signal_definitions["ready"].query.text, "SELECT @start_ts, @end_ts, @lag");
    let messages: Vec<&str> = findings.iter().map(|finding| finding.message.as_str()).collect();
    assert!(messages[1].contains("(signals/used.py:2:1)"), "{messages:?}");
    assert_eq!(findings[2].hint.as_deref(), Some("did you mean `ready`?"));
}

#[test]
fn a_project_needs_a_config_in_yaml() {
    use crate::project::{ProjectInput, SourceFile, load};
    let env = std::collections::BTreeMap::new();
    let first = |files: &[SourceFile]| brief(&load(&ProjectInput { files, env: &env, gateway: None }).1[0]);
    assert_eq!(first(&[]), "config.yaml:1:1 missing-config");
    let python = SourceFile { path: "config.py".into(), text: "".into() };
    assert_eq!(first(&[python]), "config.py:1:1 python-not-supported");
}

#[test]
fn mistakes_in_seeds_are_found_when_rows_are_read() {
    let rows = |block: &str, csv: &str| {
        let text = format!("MODEL (name a.s, kind SEED (path '../s.csv'){block});");
        let (project, _) = project(&[("config.yaml", CONFIG), ("models/s.sql", &text), ("s.csv", csv)]);
        brief(&seed::rows(&project.models[0]).unwrap_err())
    };
    assert_eq!(rows("", "a,b\n1,2\n1,2,3\n"), "s.csv:3:1 invalid-csv");
    assert_eq!(rows(", columns (a int, c int)", "a,b\n1,2\n"), "s.csv:1:1 missing-column");
    let (project, _) = project(&[("models/m.sql", "MODEL (name a.b, kind FULL); SELECT 1")]);
    assert_eq!(seed::rows(&project.models[0]).unwrap_err().code, "not-a-seed");
}

proptest::proptest! {
    #[test]
    fn no_text_of_a_model_or_config_is_too_strange(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "MODEL", "AUDIT", "(", ")", "[", "]", ",", ";", " ", "\n", "name", "kind", "FULL", "a.b", "@x", "@{x}", "@f(",
                "blueprints", ":=", "=", "'", "\"", "$$", "--", "/*", "*/", "SELECT", "1", "columns", "<", ">", "audits", "::",
                "ON_VIRTUAL_UPDATE_BEGIN;", "ON_VIRTUAL_UPDATE_END;", "JINJA_QUERY_BEGIN;", "JINJA_END;", "é", "{{", "}}",
                "INCREMENTAL_BY_UNIQUE_KEY", "when_matched", "dialect", "bigquery", "`", ".", "-", "gateway", ":", "- ",
            ]),
            0..25,
        ),
    ) {
        let text = pieces.concat();
        for model in [text.clone(), format!("MODEL (name a.b, {text}); SELECT {text}")] {
            project(&[("models/m.sql", &model), ("audits/a.sql", &model), ("external_models.yaml", &text)]);
        }
        project(&[("config.yaml", &text), (".env", &text)]);
    }
}

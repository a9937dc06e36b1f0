use std::collections::BTreeMap;

use super::{model, models, project};
use crate::interval::IntervalUnit;
use crate::project::model::{Incremental, Language, ModelKind, ModelSource, ScdBy};
use crate::sql::Dialect;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_block_gives_every_property() {
    let model = model(
        "-- Orders,\n/* by day */\nMODEL (\n  Name Sales.\"Orders\",\n  kind FULL,\n  cron '0 6 * * *',\n  \
         cron_tz 'Europe/Berlin',\n  interval_unit hour,\n  start '2024-01-01',\n  end '2024-12-31',\n  \
         allow_partials true,\n  owner 'o@x.y',\n  tags (a, 'b c'),\n  stamp 's1',\n  grains (id, (a, b)),\n  \
         references [customer_id],\n  columns (id int, \"Full Name\" varchar(10), s struct<a int, b map<int, int>>),\n  \
         column_descriptions (id = 'the key'),\n  depends_on (raw.x, wh.raw.y, other.raw.z),\n  optimize_query false,\n  \
         audits (not_null(columns := (id, s)), number_of_rows(threshold = 10)),\n);\nSELECT 1 AS id",
    );
    assert_eq!((model.name.as_str(), model.dialect), ("sales.orders", Dialect::DuckDb));
    assert_eq!(model.kind, ModelKind::Full);
    assert_eq!((model.cron.as_str(), model.cron_tz.as_deref()), ("0 6 * * *", Some("Europe/Berlin")));
    assert_eq!((model.interval_unit, model.allow_partials), (Some(IntervalUnit::Hour), true));
    assert_eq!((model.start.as_deref(), model.end.as_deref()), (Some("2024-01-01"), Some("2024-12-31")));
    assert_eq!(model.about.description.as_deref(), Some("Orders,\nby day"));
    assert_eq!((model.about.owner.as_deref(), model.stamp.as_deref()), (Some("o@x.y"), Some("s1")));
    assert_eq!(model.about.tags, ["a", "b c"]);
    assert_eq!(model.about.grains, ["id", "(a, b)"]);
    assert_eq!(model.about.references, ["customer_id"]);
    assert!(!model.optimizes());
    let columns: Vec<(String, String)> =
        model.columns.into_iter().flatten().map(|column| (column.name, column.data_type)).collect();
    let expected = [("id", "int"), ("full name", "varchar(10)"), ("s", "struct<a int, b map<int, int>>")];
    assert_eq!(columns, expected.map(|(name, data_type)| (name.to_owned(), data_type.to_owned())));
    assert_eq!(model.about.column_descriptions, map(&[("id", "the key")]));
    let depends_on: Vec<&str> = model.depends_on.iter().map(crate::id::ModelName::as_str).collect();
    assert_eq!(depends_on, ["other.raw.z", "raw.x", "raw.y"]);
    let audits: Vec<_> = model.audits.into_iter().map(|call| (call.name, call.args)).collect();
    let expected =
        [("not_null", map(&[("columns", "(id, s)")])), ("number_of_rows", map(&[("threshold", "10")]))];
    assert_eq!(audits, expected.map(|(name, args)| (name.to_owned(), args)));
}

#[test]
fn kinds_take_their_properties() {
    let kind =
        |text: &str| model(&format!("MODEL (name a.b, partitioned_by (p), kind {text}); SELECT 1")).kind;
    let ModelKind::IncrementalByTimeRange(time) = kind(
        "incremental_by_time_range (time_column (\"Ds\", '%Y%m%d'), batch_size 3, lookback 2, batch_concurrency 4, \
         forward_only true, on_destructive_change warn, auto_restatement_cron '@weekly', auto_restatement_intervals 9)",
    ) else {
        panic!()
    };
    assert_eq!((time.time_column.as_str(), time.time_format.as_str()), ("ds", "%Y%m%d"));
    let expected = Incremental {
        batch_size: Some(3),
        batch_concurrency: Some(4),
        lookback: 2,
        forward_only: true,
        disable_restatement: false,
        on_destructive_change: Some("warn".to_owned()),
        on_additive_change: None,
        auto_restatement_cron: Some("@weekly".to_owned()),
        auto_restatement_intervals: Some(9),
    };
    assert_eq!(time.common, expected);
    let ModelKind::IncrementalByUniqueKey(key) = kind(
        "INCREMENTAL_BY_UNIQUE_KEY (unique_key (id, coalesce(x, 1)), when_matched WHEN MATCHED THEN UPDATE SET \
         target.a = source.a, target.b = source.b, batch_size 2, merge_filter source.d > @start_ds)",
    ) else {
        panic!()
    };
    assert_eq!(key.unique_key, ["id", "coalesce(x, 1)"]);
    let when = "WHEN MATCHED THEN UPDATE SET target.a = source.a, target.b = source.b";
    assert_eq!(key.when_matched.as_deref(), Some(when));
    assert_eq!(key.merge_filter.as_deref(), Some("source.d > @start_ds"));
    assert_eq!((key.common.batch_size, key.common.batch_concurrency), (Some(2), Some(1)));
    let ModelKind::ScdType2(scd) = kind("SCD_TYPE_2_BY_COLUMN (unique_key id, columns *)") else { panic!() };
    let by = ScdBy::Column { columns: vec![], execution_time_as_valid_from: false, updated_at_name: None };
    assert_eq!((scd.by, scd.valid_from_name.as_str(), scd.common.forward_only), (by, "valid_from", true));
    let ModelKind::ScdType2(scd) = kind("SCD_TYPE_2 (unique_key id, valid_to_name till)") else { panic!() };
    let by = ScdBy::Time { updated_at_name: "updated_at".to_owned(), updated_at_as_valid_from: false };
    assert_eq!((scd.by, scd.valid_to_name.as_str()), (by, "till"));
    let ModelKind::IncrementalByPartition(common) = kind("INCREMENTAL_BY_PARTITION") else { panic!() };
    assert!(common.forward_only && !common.disable_restatement);
    assert_eq!(kind("VIEW (materialized true)"), ModelKind::View { materialized: true });
}

#[test]
fn without_a_kind_a_model_is_a_daily_view() {
    let model = model("MODEL (name a); SELECT 1");
    assert_eq!((model.kind, model.cron.as_str()), (ModelKind::View { materialized: false }, "@daily"));
}

#[test]
fn statements_stand_before_and_after_the_query() {
    let model = model(
        "MODEL (name a.b, kind FULL);\n@DEF(x, 1);\nSET a = 'b;c';\n\nWITH t AS (SELECT 1) INSERT INTO l SELECT 1;\n\
         WITH t AS (\n  SELECT 1 -- ;\n) SELECT * FROM t;\n\nJINJA_STATEMENT_BEGIN;\n{{ post('x;') }}\nJINJA_END;\n\
         ON_VIRTUAL_UPDATE_BEGIN;\nGRANT a TO b;\nJINJA_STATEMENT_BEGIN;\n{{ g() }}\nJINJA_END;\n\
         ON_VIRTUAL_UPDATE_END;\nDROP TABLE z;\n",
    );
    let texts = |codes: &[crate::project::model::Code]| -> Vec<(String, u32, bool)> {
        codes.iter().map(|code| (code.text.clone(), code.line, code.language == Language::Jinja)).collect()
    };
    let own = |list: &[(&str, u32, bool)]| -> Vec<(String, u32, bool)> {
        list.iter().map(|(text, line, jinja)| ((*text).to_owned(), *line, *jinja)).collect()
    };
    let pre = [
        ("@DEF(x, 1)", 2, false),
        ("SET a = 'b;c'", 3, false),
        ("WITH t AS (SELECT 1) INSERT INTO l SELECT 1", 5, false),
    ];
    assert_eq!(texts(&model.pre_statements), own(&pre));
    let query = model.query().unwrap().clone();
    assert_eq!(texts(&[query]), own(&[("WITH t AS (\n  SELECT 1 -- ;\n) SELECT * FROM t", 6, false)]));
    assert_eq!(
        texts(&model.post_statements),
        own(&[("{{ post('x;') }}", 11, true), ("DROP TABLE z", 19, false)])
    );
    assert_eq!(texts(&model.on_virtual_update), own(&[("GRANT a TO b", 14, false), ("{{ g() }}", 16, true)]));
}

#[test]
fn queries_come_in_many_shapes() {
    for (text, expected) in [
        ("SELECT 1", "SELECT 1"),
        ("FROM t", "FROM t"),
        ("VALUES (1)", "VALUES (1)"),
        ("(SELECT 1) UNION ALL (SELECT 2)", "(SELECT 1) UNION ALL (SELECT 2)"),
        ("@my_query(a, b)", "@my_query(a, b)"),
        ("@f(1); @union('all', a, b)", "@union('all', a, b)"),
        ("@WITH(TRUE) t AS (SELECT 1) SELECT * FROM t", "@WITH(TRUE) t AS (SELECT 1) SELECT * FROM t"),
        ("JINJA_QUERY_BEGIN; SELECT {{ x }} JINJA_END", "SELECT {{ x }}"),
        ("WITH t AS (SELECT 1) (SELECT * FROM t)", "WITH t AS (SELECT 1) (SELECT * FROM t)"),
    ] {
        let model = model(&format!("MODEL (name a.b, kind FULL); {text};"));
        assert_eq!(model.query().unwrap().text, expected, "{text}");
    }
}

#[test]
fn defaults_fill_what_a_model_leaves_open() {
    let config = "gateways: {local: {connection: {type: duckdb}}}\nmodel_defaults:\n  dialect: duckdb\n  \
                  kind: {name: INCREMENTAL_BY_TIME_RANGE, time_column: ds, lookback: 2}\n  cron: '@hourly'\n  start: 2024-01-01\n  \
                  owner: me\n  on_destructive_change: allow\n  batch_concurrency: 3\n  physical_properties: {a: 1, b: x, c: '@f(1)'}\n  \
                  audits: [not_null(columns := (id)), known]\n  pre_statements: ['SET x = 1;']\n  allow_partials: true\n";
    let models = models(&[
        ("config.yaml", config),
        ("audits/known.sql", "AUDIT (name Known); SELECT 1"),
        (
            "models/m.sql",
            "MODEL (name a.b, audits (number_of_rows(threshold := 1)), physical_properties (a = NONE, b = 'y', d = 4));\n\
             SET y = 2; SELECT 1",
        ),
    ]);
    let model = &models[0];
    let ModelKind::IncrementalByTimeRange(time) = &model.kind else { panic!("{:?}", model.kind) };
    assert_eq!((time.time_column.as_str(), time.common.lookback), ("ds", 2));
    assert_eq!(time.common.batch_concurrency, Some(3));
    assert_eq!(time.common.on_destructive_change.as_deref(), Some("allow"));
    assert_eq!((model.cron.as_str(), model.start.as_deref()), ("@hourly", Some("2024-01-01")));
    assert_eq!((model.about.owner.as_deref(), model.allow_partials), (Some("me"), true));
    assert_eq!(model.storage.physical_properties, map(&[("b", "'y'"), ("c", "@f(1)"), ("d", "4")]));
    let audits: Vec<&str> = model.audits.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(audits, ["not_null", "known", "number_of_rows"]);
    assert_eq!(model.audit_definitions.keys().collect::<Vec<_>>(), ["known"]);
    let pre: Vec<&str> = model.pre_statements.iter().map(|code| code.text.as_str()).collect();
    assert_eq!(pre, ["SET x = 1", "SET y = 2"]);
}

#[test]
fn blueprints_make_one_model_each() {
    let text = "MODEL (\n  name @layer.orders_@{Customer},\n  kind FULL,\n  gateway @gw,\n  stamp @region,\n  owner @who,\n  \
                audits (not_null(columns := @cols)),\n  blueprints (\n    (customer := acme, who := 'Ann', gw := local, cols := a),\n    \
                (customer := 'bolt', who := bob, gw := pg, cols := b),\n  ),\n  tags x\n);\nSELECT @customer";
    let models = models(&[("models/m.sql", text)]);
    let seen: Vec<_> = models
        .iter()
        .map(|model| {
            (
                model.name.as_str(),
                model.about.owner.as_deref(),
                model.gateway.as_deref(),
                model.stamp.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("mart.orders_acme", Some("Ann"), Some("local"), Some("us")),
            ("mart.orders_bolt", Some("bob"), Some("pg"), Some("eu")),
        ]
    );
    let blueprint = map(&[("customer", "'bolt'"), ("who", "bob"), ("gw", "pg"), ("cols", "b")]);
    assert_eq!(models[1].blueprint, blueprint);
    assert_eq!(models[1].audits[0].args, map(&[("columns", "@cols")]));
    assert_eq!(models[1].about.tags, ["x"]);
}

#[test]
fn names_follow_the_dialect_and_the_gateways_catalog() {
    for (text, expected) in [
        ("name WH.A.B", "a.b"),
        ("name other.A.B", "other.a.b"),
        ("name a.b, gateway pg", "a.b"),
        ("name lake.a.b, gateway pg", "a.b"),
        ("name wh.a.b, gateway pg", "wh.a.b"),
        ("name A.\"B\", dialect postgres", "a.B"),
        ("name a.b, dialect snowflake", "A.B"),
        ("name `p-1.ds.T`, dialect bigquery", "p-1.ds.T"),
    ] {
        assert_eq!(model(&format!("MODEL ({text}, kind FULL); SELECT 1")).name.as_str(), expected, "{text}");
    }
}

#[test]
fn names_can_come_from_paths() {
    let config = "model_defaults: {dialect: duckdb}\nmodel_naming: {infer_names: true}\n";
    let models = models(&[
        ("config.yaml", config),
        ("models/x/c/s/t.sql", "SELECT 1"),
        ("models/s/u.sql", "MODEL (kind FULL); SELECT 1"),
    ]);
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["c.s.t", "s.u"]);
}

#[test]
fn disabled_models_and_ignored_files_are_not_loaded() {
    let config = format!("{}ignore_patterns: ['models/drafts/*']\n", super::CONFIG);
    let (project, findings) = project(&[
        ("config.yaml", &config),
        ("models/a.sql", "MODEL (name a, enabled false); SELECT"),
        ("models/drafts/b.sql", "nonsense"),
        ("models/empty.sql", ""),
    ]);
    assert!(project.models.is_empty() && findings.is_empty(), "{findings:?}");
}

#[test]
fn comments_behind_columns_describe_them() {
    let model = model(
        "MODEL (name a.b, kind FULL);\nSELECT\n  id, -- the key\n  f(x, y) AS \"Y\" /* why */,\n  (SELECT 1 -- no\n  ) AS z,\n  \
         a.v::INT::TEXT, -- cast\n  b::DOUBLE AS bb, -- both\n  a.w -- last\nFROM t -- table\n",
    );
    assert_eq!(
        model.about.column_descriptions,
        map(&[("id", "the key"), ("y", "why"), ("v", "cast"), ("bb", "both"), ("w", "last")])
    );
}

#[test]
fn inline_audits_win_over_the_projects() {
    let models = models(&[
        (
            "audits/x.sql",
            "AUDIT (name x); SELECT 1;\nAUDIT (name y, blocking false, defaults (N = 5)); SELECT 2",
        ),
        (
            "models/m.sql",
            "MODEL (name a.b, kind FULL, audits (X, y, not_null_non_blocking(columns := (a))));\nSELECT 1;\n\
             AUDIT (name x, skip true);\nSELECT 3;",
        ),
    ]);
    let audits = &models[0].audit_definitions;
    let seen: Vec<_> =
        audits.values().map(|audit| (&*audit.name, &*audit.query.text, audit.query.line)).collect();
    assert_eq!(seen, [("x", "SELECT 3", 4), ("y", "SELECT 2", 2)]);
    assert!(audits["x"].skip && !audits["y"].blocking);
    assert_eq!(audits["y"].defaults, map(&[("n", "5")]));
}

#[test]
fn external_models_come_from_yaml() {
    let models = models(&[
        (
            "external_models.yaml",
            "- name: raw.A\n  columns:\n    Id: int\n    at: timestamp\n  description: d\n- name: '\"wh\".\"raw\".\"b\"'\n- name: raw.c\n  gateway: pg\n",
        ),
        ("schema.yaml", "- name: raw.old\n"),
        (
            "external_models/more.yaml",
            "- name: raw.d\n  audits:\n  - name: not_null\n    columns: [id]\n- name: raw.d\n  gateway: local\n  description: won\n",
        ),
    ]);
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["raw.a", "raw.b", "raw.d"]);
    assert_eq!(models[0].columns.as_ref().unwrap()[0].name, "id");
    assert_eq!((&models[0].kind, &models[0].source), (&ModelKind::External, &ModelSource::External));
    assert_eq!(models[2].about.description.as_deref(), Some("won"));
}

#[test]
fn macro_functions_may_give_values_of_properties() {
    let text = "MODEL (\n  name a.b,\n  kind @IF(@gateway = 'local', FULL, VIEW),\n  owner @IF(@days > 3, 'many', 'few'),\n  \
                enabled: true,\n  tags (@EACH([x, y], t -> @t))\n);\nSELECT 1 AS one";
    let model = model(text);
    assert_eq!(model.kind, ModelKind::Full);
    assert_eq!(model.about.owner.as_deref(), Some("many"));
    assert_eq!(model.about.tags, ["x", "y"]);
}

#[test]
fn a_macro_may_give_the_blueprints() {
    for given in
        ["@EACH([north, south], r -> (region := @r))", "(@EACH([north, south], r -> (region := @r)))"]
    {
        let text =
            format!("MODEL (name s.@{{region}}_sales, blueprints {given});\nSELECT '@region' AS region");
        let names: Vec<String> =
            models(&[("models/m.sql", &text)]).into_iter().map(|model| model.name.to_string()).collect();
        assert_eq!(names, ["s.north_sales", "s.south_sales"], "{given}");
    }
}

#[test]
fn a_seed_may_lie_beside_the_project() {
    let text = "MODEL (name a.b, kind SEED (path '../../data/b.csv'))";
    let seeds = models(&[("models/b.sql", text), ("../data/b.csv", "x\n1\n")]);
    assert!(matches!(&seeds[0].source, ModelSource::Seed(seed) if seed.path == "../data/b.csv"));
}

#[test]
fn names_in_fabric_keep_their_case_and_may_have_brackets() {
    let model = model("MODEL (name [dbo].[Sales], dialect fabric, kind FULL);\nSELECT 1 AS one");
    assert_eq!((model.name.as_str(), model.dialect), ("dbo.Sales", Dialect::Fabric));
}

use super::{models, project};
use crate::project::model::ModelKind;
use crate::project::seed;
use crate::project::{ProjectInput, SourceFile, load};

/// Like what `sqlmesh init duckdb` writes.
const SAMPLE: [(&str, &str); 7] = [
    (
        "config.yaml",
        "# How to reach the warehouse\ngateways:\n  duckdb:\n    connection:\n      type: duckdb\n      database: db.db\n\n\
         default_gateway: duckdb\n\nmodel_defaults:\n  dialect: duckdb\n  start: 2024-01-01 # first day\n  cron: '@daily'\n\n\
         linter:\n  enabled: true\n  rules:\n    - ambiguousorinvalidcolumn\n",
    ),
    (
        "models/shop_seed.sql",
        "MODEL (\n  name shop.seed,\n  kind SEED (\n    path '../seeds/data.csv'\n  ),\n  columns (\n    id INTEGER,\n    \
         item_id INTEGER,\n    sold_on DATE\n  ),\n  grain (id, sold_on)\n);\n  ",
    ),
    (
        "models/shop_sales.sql",
        "MODEL (\n  name shop.sales,\n  kind INCREMENTAL_BY_TIME_RANGE (\n    time_column sold_on\n  ),\n  start '2020-01-01',\n  \
         cron '@daily',\n  grain (id, sold_on)\n);\n\nSELECT\n  id,\n  item_id,\n  sold_on,\nFROM\n  shop.seed\nWHERE\n  \
         sold_on BETWEEN @start_date AND @end_date\n  ",
    ),
    (
        "models/shop_items.sql",
        "MODEL (\n  name shop.items,\n  kind FULL,\n  cron '@daily',\n  grain item_id,\n  audits (assert_positive_ids),\n);\n\n\
         SELECT\n  item_id,\n  COUNT(DISTINCT id) AS sales,\nFROM\n  shop.sales\nGROUP BY item_id\n  ",
    ),
    (
        "audits/assert_positive_ids.sql",
        "AUDIT (\n  name assert_positive_ids,\n);\n\nSELECT *\nFROM @this_model\nWHERE item_id < 0\n",
    ),
    ("seeds/data.csv", "id,item_id,sold_on\n1,2,2020-01-01\n2,,2020-01-02\n"),
    ("tests/test_items.yaml", "test_items:\n  model: shop.items\n"),
];

#[test]
fn a_fresh_project_loads() {
    let (project, findings) = project(&SAMPLE);
    let found: Vec<_> =
        findings.iter().map(|finding| (finding.code.as_str(), finding.at.line, finding.is_error())).collect();
    assert_eq!(found, [("setting-without-effect", 15, false)]);
    let names: Vec<_> = project.models.iter().map(|model| (model.name.as_str(), model.kind.name())).collect();
    assert_eq!(
        names,
        [("shop.items", "FULL"), ("shop.sales", "INCREMENTAL_BY_TIME_RANGE"), ("shop.seed", "SEED"),]
    );
    assert_eq!(project.models[0].audit_definitions["assert_positive_ids"].query.line, 5);
    assert_eq!(project.models[0].start.as_deref(), Some("2024-01-01"));
    assert_eq!(project.settings.default_catalog(None).as_deref(), Some("db"));
    let rows = seed::rows(&project.models[2]).unwrap();
    let row = |cells: [Option<&str>; 3]| cells.map(|cell| cell.map(str::to_owned)).to_vec();
    assert_eq!(
        rows,
        [row([Some("1"), Some("2"), Some("2020-01-01")]), row([Some("2"), None, Some("2020-01-02")])]
    );
    let columns: Vec<String> =
        seed::columns(&project.models[2]).into_iter().map(|column| column.data_type).collect();
    assert_eq!(columns, ["INTEGER", "INTEGER", "DATE"]);
}

#[test]
fn csv_settings_are_followed() {
    let models = models(&[
        (
            "models/s.sql",
            "MODEL (name a.s, kind SEED (path '$root/seeds/s.csv', batch_size 5, csv_settings (delimiter = '|', quotechar = '''', \
             na_values = ('-', 'x'), keep_default_na = false)));",
        ),
        ("seeds/s.csv", "A|b|c\n1|'p|q'|-\n2||NULL\n"),
    ]);
    let ModelKind::Seed(kind) = &models[0].kind else { panic!() };
    assert_eq!(kind.batch_size, 5);
    let columns: Vec<_> =
        seed::columns(&models[0]).into_iter().map(|column| (column.name, column.data_type)).collect();
    let expected = [("a", "BIGINT"), ("b", "TEXT"), ("c", "TEXT")];
    assert_eq!(columns, expected.map(|(name, data_type)| (name.to_owned(), data_type.to_owned())));
    let rows = seed::rows(&models[0]).unwrap();
    assert_eq!(rows[0], [Some("1".to_owned()), Some("p|q".to_owned()), None]);
    assert_eq!(rows[1], [Some("2".to_owned()), Some(String::new()), Some("NULL".to_owned())]);
}

#[test]
fn settings_know_gateways_connections_and_variables() {
    let text = "gateways:\n  Dev:\n    connection:\n      type: duckdb\n      catalogs:\n        z: z.db\n        \
                a: {type: postgres, path: 'password=s', read_only: true}\n      extensions: [httpfs]\n  prod:\n    connection:\n      \
                type: postgres\n      host: h\n      port: '5433'\n      user: u\n      password: s3cret\n      database: wh\n      \
                concurrent_tasks: 8\n    state_schema: x\n    variables: {A: 2}\n    model_defaults: {dialect: postgres}\n\
                model_defaults: {dialect: duckdb}\nvariables: {a: 1, b: [x, {c: 1.5}]}\nphysical_schema_mapping: {'^b.*$': bb, '^a': aa}\n\
                plan: {auto_categorize_changes: {sql: off, seed: semi}, enable_preview: true}\nenvironment_suffix_target: table\n";
    let files = [SourceFile { path: "config.yml".into(), text: text.into() }];
    let env = std::collections::BTreeMap::from([("SQLMESH__PROJECT".to_owned(), "p1".to_owned())]);
    let (project, findings) = load(&ProjectInput { files: &files, env: &env, gateway: Some("PROD") });
    let codes: Vec<_> = findings.iter().map(|finding| (finding.code.as_str(), finding.at.line)).collect();
    assert_eq!(codes, [("setting-without-effect", 18)]);
    let settings = project.settings;
    assert_eq!((settings.default_gateway.as_str(), settings.project.as_str()), ("prod", "p1"));
    assert_eq!(settings.model_defaults.dialect, crate::sql::Dialect::Postgres);
    let dev = settings.gateway("dev").unwrap();
    let duckdb = dev.connection.duckdb().unwrap();
    let catalogs: Vec<_> = duckdb.catalogs.iter().map(|c| (&*c.name, &*c.kind, c.read_only)).collect();
    assert_eq!(catalogs, [("z", "duckdb", false), ("a", "postgres", true)]);
    assert_eq!(
        (dev.connection.concurrent_tasks, settings.default_catalog(Some("dev")).as_deref()),
        (1, Some("z"))
    );
    let prod = &settings.gateway("prod").unwrap().connection;
    let postgres = prod.postgres().unwrap();
    assert_eq!((postgres.port, postgres.password.expose(), prod.concurrent_tasks), (5433, "s3cret", 8));
    assert_eq!(settings.variables_of(None)["a"], crate::project::render::Value::Int(2));
    let mapping = [("^b.*$", "bb"), ("^a", "aa")].map(|(from, to)| (from.to_owned(), to.to_owned()));
    assert_eq!(settings.physical_schema_mapping, mapping);
    let plan = &settings.plan;
    use crate::project::settings::{Categorize, SuffixTarget};
    assert_eq!((plan.categorize_sql, plan.categorize_seed), (Categorize::Off, Categorize::Semi));
    assert_eq!((plan.categorize_python, plan.enable_preview), (Categorize::Full, Some(true)));
    assert_eq!(settings.environment_suffix_target, SuffixTarget::Table);
    let printed = format!("{settings:?}");
    assert!(!printed.contains("s3cret") && !printed.contains("password=s"), "{printed}");
}

//! SCD type 2, row by row as SQLMesh keeps it: `cases.json` is what `record.py` recorded.

use std::collections::BTreeMap;

use coord_common::project::model::{ColumnDef, ModelKind, ScdType2};
use coord_common::project::{ProjectInput, SourceFile, load};
use serde::Deserialize;

use super::lab::{Lab, batch, column};
use crate::engine::{BatchWrite, Engine, Outcome, ScdWrite, Write};

super::suite! {
    versions_of_rows_are_kept_as_sqlmesh_does,
    an_evaluation_that_is_repeated_changes_nothing,
    a_key_that_is_an_expression_closes_what_vanished_only_if_asked_to,
    the_first_evaluation_counts_for_all,
    declared_columns_and_columns_of_the_table_only_keep_their_types,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    kind: String,
    columns: Vec<(String, String)>,
    steps: Vec<Step>,
}

type Row = Vec<Option<String>>;

#[derive(Deserialize)]
struct Step {
    execution: String,
    source: Vec<Row>,
    expected: Vec<Row>,
}

pub(super) fn kind(text: &str) -> ScdType2 {
    let file = |path: &str, text: &str| SourceFile { path: path.into(), text: text.into() };
    let files = [
        file("config.yaml", "model_defaults: {dialect: duckdb}"),
        file("models/m.sql", &format!("MODEL (name s.m, kind {text}); SELECT 1 AS id")),
    ];
    let (project, findings) = load(&ProjectInput { files: &files, env: &BTreeMap::new(), gateway: None });
    match &project.models[0].kind {
        ModelKind::ScdType2(kind) => (**kind).clone(),
        other => panic!("{other:?}: {findings:?}"),
    }
}

fn scd(token: u64, kind: &str, query: &str, execution: &str) -> BatchWrite {
    let write = ScdWrite {
        query: query.to_owned(),
        kind: self::kind(kind),
        execution: format!("'{execution}'"),
        only_create: false,
    };
    let write = batch(&format!("d{token}"), token, Write::Scd(Box::new(write)));
    BatchWrite { first: token == 1, ..write }
}

async fn fill_source(lab: &Lab, case: &Case, rows: &[Row]) {
    let names: Vec<&str> = case.columns.iter().map(|(name, _)| name.as_str()).collect();
    let columns = names.iter().map(|name| format!("{name} TEXT")).collect::<Vec<_>>().join(", ");
    let cell = |cell: &Option<String>| cell.as_ref().map_or("NULL".to_owned(), |text| format!("'{text}'"));
    let row = |row: &Row| format!("({})", row.iter().map(cell).collect::<Vec<_>>().join(", "));
    let mut statements =
        vec!["DROP TABLE IF EXISTS source".to_owned(), format!("CREATE TABLE source ({columns})")];
    statements.extend(rows.iter().map(|values| format!("INSERT INTO source VALUES {}", row(values))));
    let mut session = lab.engine.pool.get().await.unwrap();
    for statement in statements {
        session.run(&[statement]).await.unwrap();
    }
    session.give_back();
}

async fn versions_of_rows_are_kept_as_sqlmesh_does(lab: Lab) {
    let cases: Vec<Case> = serde_json::from_str(include_str!("cases.json")).unwrap();
    assert_eq!(cases.len(), 18);
    for case in &cases {
        let target = format!("t{}", case.name.replace([' ', ','], "_"));
        let cast = |(name, kind): &(String, String)| format!("CAST({name} AS {kind}) AS {name}");
        let query = case.columns.iter().map(cast).collect::<Vec<_>>().join(", ");
        let query = format!("SELECT {query} FROM source");
        for (day, step) in case.steps.iter().enumerate() {
            fill_source(&lab, case, &step.source).await;
            let mut write = scd(day as u64 + 1, &case.kind, &query, &step.execution);
            write.target.table.clone_from(&target);
            write.fence.slot = format!("{}:{day}", case.name);
            let report = lab.run(&write).await.unwrap_or_else(|error| panic!("{}: {error:?}", case.name));
            assert_eq!(report.outcome, Outcome::Written);
            let names = case.columns.iter().map(|(name, _)| name.as_str()).chain(["valid_from", "valid_to"]);
            let cells: Vec<String> = names.map(|name| format!("CAST({name} AS VARCHAR)")).collect();
            let rows = lab.engine.query(&format!("SELECT {} FROM s.\"{target}\"", cells.join(", "))).await;
            let (mut found, mut expected) = (rows.unwrap().rows, step.expected.clone());
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{} on day {}", case.name, day + 1);
        }
    }
}

const BY_AMOUNT: &str =
    "SCD_TYPE_2_BY_COLUMN (unique_key id, columns (amount), invalidate_hard_deletes true)";

async fn shown(lab: &Lab) -> Vec<String> {
    let day = |name: &str| format!("SUBSTR(CAST({name} AS VARCHAR), 1, 10)");
    let (from, to) = (day("valid_from"), day("valid_to"));
    lab.rows(&format!("SELECT id, amount, {from}, {to} FROM s.t ORDER BY 1, 3, 4")).await
}

async fn an_evaluation_that_is_repeated_changes_nothing(lab: Lab) {
    let rows = |token, rows: &str, day: &str| {
        let query = format!("SELECT * FROM (VALUES {rows}) AS v(id, amount)");
        scd(token, BY_AMOUNT, &query, &format!("2024-01-{day} 00:00:00"))
    };
    lab.run(&rows(1, "(1, 10), (2, 20)", "02")).await.unwrap();
    let expected = ["1,10,1970-01-01,2024-01-03", "1,11,2024-01-03,~", "2,20,1970-01-01,2024-01-03"];
    for token in [2, 3] {
        lab.run(&rows(token, "(1, 11)", "03")).await.unwrap();
        assert_eq!(shown(&lab).await, expected);
    }
}

async fn a_key_that_is_an_expression_closes_what_vanished_only_if_asked_to(lab: Lab) {
    let kind = "SCD_TYPE_2_BY_COLUMN (unique_key (COALESCE(id, 0)), columns (amount))";
    lab.run(&scd(1, kind, "SELECT 1 AS id, 10 AS amount", "2024-01-02 00:00:00")).await.unwrap();
    lab.run(&scd(2, kind, "SELECT 2 AS id, 20 AS amount", "2024-01-03 00:00:00")).await.unwrap();
    assert_eq!(shown(&lab).await, ["1,10,1970-01-01,~", "2,20,2024-01-03,~"]);
}

async fn the_first_evaluation_counts_for_all(lab: Lab) {
    lab.run(&scd(1, BY_AMOUNT, "SELECT 1 AS id, 10 AS amount", "2024-01-02 00:00:00")).await.unwrap();
    let mut again = scd(2, BY_AMOUNT, "SELECT 2 AS id, 20 AS amount", "2024-01-03 00:00:00");
    again.first = true;
    lab.run(&again).await.unwrap();
    assert_eq!(shown(&lab).await, ["2,20,1970-01-01,~"]);
}

async fn declared_columns_and_columns_of_the_table_only_keep_their_types(lab: Lab) {
    let mut make = scd(1, BY_AMOUNT, "SELECT 1 AS id, 10 AS amount", "2024-01-02 00:00:00");
    let declared = [("id", "BIGINT"), ("amount", "DECIMAL(10, 2)"), ("note", "VARCHAR")];
    let declared: Vec<ColumnDef> = declared.map(|(name, data_type)| column(name, data_type)).into();
    make.columns = Some(kind(BY_AMOUNT).with_validity(&declared));
    if let Write::Scd(write) = &mut make.write {
        write.only_create = true;
    }
    lab.run(&make).await.unwrap();
    assert_eq!(shown(&lab).await, Vec::<String>::new());
    for (token, amount) in [(2, 10), (3, 12)] {
        let query = format!("SELECT {amount} AS amount, 1 AS id");
        let mut write = scd(token, BY_AMOUNT, &query, &format!("2024-01-0{token} 00:00:00"));
        write.columns.clone_from(&make.columns);
        lab.run(&write).await.unwrap();
    }
    assert_eq!(shown(&lab).await, ["1,10.00,2024-01-02,2024-01-03", "1,12.00,2024-01-03,~"]);
    let columns = lab.engine.columns(&make.target).await.unwrap().unwrap();
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["id", "amount", "note", "valid_from", "valid_to"]);
    assert!(columns[0].data_type.to_lowercase().starts_with("bigint"), "{columns:?}");
}

//! Tables that get other columns in place.

use coord_common::task::Policy;

use super::lab::{Lab, batch, column};
use crate::engine::{BatchWrite, Class, Engine, Migration, Outcome, Policies, Relation, Write};

super::suite! {
    columns_come_go_and_widen_and_rows_stay,
    a_column_whose_type_cannot_be_widened_starts_anew,
    what_the_model_forbids_leaves_the_table_as_it_was,
    what_the_model_ignores_stays_out_of_the_table,
    columns_that_the_kind_gives_come_too_and_stay,
    views_of_all_columns_follow_and_others_stay,
    a_view_is_made_anew_under_the_views_that_show_it,
    a_migration_that_was_killed_is_done_by_the_next_attempt_and_once,
    declared_types_are_compared_as_the_warehouse_names_them,
    columns_that_go_later_stay_for_whom_reads_them_meanwhile,
}

const ALLOW: Policies = Policies { destructive: Policy::Allow, additive: Policy::Allow };

async fn table(lab: &Lab) {
    let query = "SELECT 1 AS a, CAST('x' AS VARCHAR) AS b, DATE '2024-01-01' AS ds";
    lab.run(&batch("d1", 1, Write::Append { query: query.to_owned() })).await.unwrap();
}

fn migrate(token: u64, query: &str, policies: Policies) -> BatchWrite {
    let migration = Migration::Table { policies, kept: Vec::new(), later: false };
    batch("all", token, Write::Migrate { query: query.to_owned(), migration })
}

async fn make_view(lab: &Lab, definition: &str) {
    let mut session = lab.engine.pool.get().await.unwrap();
    session.run(&[format!("CREATE VIEW s.{definition}")]).await.unwrap();
    session.give_back();
}

async fn columns(lab: &Lab) -> Vec<String> {
    let columns = lab.engine.columns(&Relation::new("s", "t")).await.unwrap().unwrap();
    columns.into_iter().map(|column| column.name).collect()
}

async fn columns_come_go_and_widen_and_rows_stay(lab: Lab) {
    table(&lab).await;
    let query = "SELECT DATE '2024-01-01' AS ds, CAST(1 AS BIGINT) AS a, 2 AS c WHERE false";
    let report = lab.run(&migrate(2, query, ALLOW)).await.unwrap();
    assert_eq!((report.outcome, report.rows), (Outcome::Written, 0));
    assert_eq!(columns(&lab).await, ["a", "ds", "c"]);
    let insert = "SELECT 5000000000 AS a, DATE '2024-01-02' AS ds, 7 AS c";
    lab.run(&batch("d2", 3, Write::Append { query: insert.to_owned() })).await.unwrap();
    assert_eq!(
        lab.rows("SELECT a, ds, c FROM s.t ORDER BY ds").await,
        ["1,2024-01-01,~", "5000000000,2024-01-02,7"]
    );
    // Nothing is left to do.
    let again = BatchWrite { replayed_is_done: false, ..migrate(4, insert, ALLOW) };
    lab.run(&again).await.unwrap();
    assert_eq!(columns(&lab).await, ["a", "ds", "c"]);
}

async fn a_column_whose_type_cannot_be_widened_starts_anew(lab: Lab) {
    table(&lab).await;
    let query = "SELECT 1 AS a, 2 AS b, DATE '2024-01-01' AS ds";
    let refused = Policies { destructive: Policy::Error, ..ALLOW };
    let error = lab.run(&migrate(2, query, refused)).await.unwrap_err();
    assert!(error.message.contains("lose `b`"), "{error:?}");
    lab.run(&migrate(3, query, ALLOW)).await.unwrap();
    assert_eq!(lab.rows("SELECT a, b, ds FROM s.t").await, ["1,~,2024-01-01"]);
}

async fn what_the_model_forbids_leaves_the_table_as_it_was(lab: Lab) {
    table(&lab).await;
    let forbids = Policies { destructive: Policy::Error, additive: Policy::Error };
    for (query, words, remedy) in [
        ("SELECT 1 AS a, DATE '2024-01-01' AS ds", "lose `b`", "--allow-destructive-model"),
        ("SELECT 1 AS a, 'x' AS b, DATE '2024-01-01' AS ds, 1 AS c", "get `c`", "--allow-additive-model"),
    ] {
        let error = lab.run(&migrate(2, query, forbids)).await.unwrap_err();
        assert_eq!(error.class, Class::Permanent);
        assert!(error.message.contains("`s.t`") && error.message.contains(words), "{error:?}");
        assert!(error.hint.is_some_and(|hint| hint.contains(remedy)));
    }
    assert_eq!(columns(&lab).await, ["a", "b", "ds"]);
}

async fn what_the_model_ignores_stays_out_of_the_table(lab: Lab) {
    table(&lab).await;
    let ignores = Policies { destructive: Policy::Ignore, additive: Policy::Ignore };
    let query = "SELECT 2 AS a, DATE '2024-01-02' AS ds, 3 AS c";
    lab.run(&migrate(2, query, ignores)).await.unwrap();
    let write = batch("d2", 3, Write::Append { query: query.to_owned() });
    lab.run(&BatchWrite { known_columns_only: true, ..write }).await.unwrap();
    assert_eq!(lab.rows("SELECT * FROM s.t ORDER BY ds").await, ["1,x,2024-01-01", "2,~,2024-01-02"]);
}

async fn columns_that_the_kind_gives_come_too_and_stay(lab: Lab) {
    table(&lab).await;
    let query = "SELECT 1 AS a, CAST('x' AS VARCHAR) AS b, DATE '2024-01-01' AS ds";
    let kept = vec![column("valid_from", "TIMESTAMP"), column("valid_to", "TIMESTAMP")];
    for token in [2, 3] {
        let migration = Migration::Table { policies: ALLOW, kept: kept.clone(), later: false };
        let write = Write::Migrate { query: query.to_owned(), migration };
        lab.run(&BatchWrite { replayed_is_done: false, ..batch("all", token, write) }).await.unwrap();
        assert_eq!(columns(&lab).await, ["a", "b", "ds", "valid_from", "valid_to"]);
    }
    assert_eq!(lab.rows("SELECT * FROM s.t").await, ["1,x,2024-01-01,~,~"]);
}

async fn views_of_all_columns_follow_and_others_stay(lab: Lab) {
    table(&lab).await;
    for view in ["v AS SELECT * FROM s.t", "w AS SELECT a FROM s.t", "x AS SELECT a + 1 AS y FROM s.w"] {
        make_view(&lab, view).await;
    }
    let more = "SELECT 1 AS a, 'x' AS b, DATE '2024-01-01' AS ds, 1 AS c";
    lab.run(&migrate(2, more, ALLOW)).await.unwrap();
    assert_eq!(lab.rows("SELECT * FROM s.v").await, ["1,x,2024-01-01,~"]);
    let less = "SELECT CAST(1 AS BIGINT) AS a, 1 AS c";
    lab.run(&BatchWrite { replayed_is_done: false, ..migrate(3, less, ALLOW) }).await.unwrap();
    assert_eq!(lab.rows("SELECT * FROM s.v").await, ["1,~"]);
    assert_eq!(lab.rows("SELECT y FROM s.x").await, ["2"]);
}

async fn a_view_is_made_anew_under_the_views_that_show_it(lab: Lab) {
    table(&lab).await;
    let view = |slot: &str, token, query: &str, migrates: bool| {
        let query = query.to_owned();
        let write = if migrates {
            Write::Migrate { query, migration: Migration::View { materialized: false } }
        } else {
            Write::View { query, materialized: false }
        };
        BatchWrite { target: Relation::new("s", "p"), ..batch(slot, token, write) }
    };
    lab.run(&view("v1", 2, "SELECT a, b FROM s.t", false)).await.unwrap();
    make_view(&lab, "v AS SELECT * FROM s.p").await;
    lab.run(&view("v2", 3, "SELECT b, a + 1 AS c FROM s.t", true)).await.unwrap();
    assert_eq!(lab.rows("SELECT * FROM s.v").await, ["x,2"]);
}

async fn a_migration_that_was_killed_is_done_by_the_next_attempt_and_once(lab: Lab) {
    table(&lab).await;
    let query = "SELECT 1 AS a, DATE '2024-01-01' AS ds, 2 AS c";
    let mut killed = migrate(2, query, ALLOW);
    killed.post = vec!["SELECT 1 FROM nowhere.nothing".to_owned()];
    lab.run(&killed).await.unwrap_err();
    assert_eq!(columns(&lab).await, ["a", "b", "ds"], "all of it or nothing");
    assert_eq!(lab.run(&migrate(3, query, ALLOW)).await.unwrap().outcome, Outcome::Written);
    assert_eq!(columns(&lab).await, ["a", "ds", "c"]);
    // Its answer was lost: the next attempt finds it done, and the first one is shut out.
    assert_eq!(lab.run(&migrate(4, query, ALLOW)).await.unwrap().outcome, Outcome::AlreadyDone);
    assert_eq!(lab.run(&killed).await.unwrap_err().class, Class::Stale);
}

async fn declared_types_are_compared_as_the_warehouse_names_them(lab: Lab) {
    table(&lab).await;
    let declared =
        vec![column("a", "INT"), column("b", "VARCHAR"), column("ds", "DATE"), column("c", "TEXT")];
    let query = "SELECT 1 AS a, 'x' AS b, '2024-01-01' AS ds, 1 AS c";
    let strict = Policies { destructive: Policy::Error, ..ALLOW };
    lab.run(&BatchWrite { columns: Some(declared), ..migrate(2, query, strict) }).await.unwrap();
    assert_eq!(columns(&lab).await, ["a", "b", "ds", "c"]);
}

async fn columns_that_go_later_stay_for_whom_reads_them_meanwhile(lab: Lab) {
    table(&lab).await;
    make_view(&lab, "v AS SELECT * FROM s.t").await;
    let query = "SELECT CAST(1 AS BIGINT) AS a, DATE '2024-01-01' AS ds, 2 AS c";
    let migration = |later| Migration::Table { policies: ALLOW, kept: Vec::new(), later };
    let write = |later| Write::Migrate { query: query.to_owned(), migration: migration(later) };
    lab.run(&batch("columns:all", 2, write(true))).await.unwrap();
    assert_eq!(columns(&lab).await, ["a", "b", "ds", "c"]);
    assert_eq!(lab.rows("SELECT b FROM s.v").await, ["x"]);
    let insert = "SELECT 5000000000 AS a, DATE '2024-01-02' AS ds, 7 AS c";
    lab.run(&batch("d2", 3, Write::Append { query: insert.to_owned() })).await.unwrap();
    assert_eq!(lab.rows("SELECT b FROM s.v ORDER BY ds").await, ["x", "~"]);
    lab.run(&batch("all", 4, write(false))).await.unwrap();
    assert_eq!(
        lab.rows("SELECT * FROM s.v ORDER BY ds").await,
        ["1,2024-01-01,~", "5000000000,2024-01-02,7"]
    );
}

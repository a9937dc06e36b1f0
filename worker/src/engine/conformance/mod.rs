//! What every warehouse must do alike: each test runs against a DuckDB file and a real PostgreSQL.

mod append;
mod drops;
mod duckdb_only;
mod hostile;
mod lab;
mod migrate;
mod postgres_only;
mod restate;
mod retries;
mod scd;
mod views;

use std::time::{Duration, Instant};

use coord_common::id::Token;

use super::{
    Bound, CancellationToken, Class, Discard, Engine, Outcome, Relation, RelationKind, Switched, ViewChange,
    ViewSwitch, Write,
};
use drops::{
    a_table_is_dropped_for_good_but_never_from_under_a_newer_attempt, pruned_slots_stay_closed_to_old_tokens,
    relations_are_dropped, what_depends_on_a_table_is_not_dropped_with_it,
};
use hostile::{a_value_is_stored_whole_or_refused, what_is_hostile_stays_a_name_or_a_value};
use lab::{Lab, audit, batch, column, day};
use restate::{
    a_publication_that_is_repeated_changes_nothing, a_publication_that_was_overtaken_is_refused,
    a_zombie_cannot_publish_after_a_newer_token_was_raised, what_was_computed_aside_appears_at_once,
    what_was_given_up_is_dropped_and_nobody_may_write_it_again, whole_tables_and_copies_replace_all_rows,
};
use views::{a_view_changes_its_columns, an_older_switch_is_superseded, views_switch_together_or_not_at_all};

/// Runs each test against both warehouses.
macro_rules! suite {
    ($($name:ident,)*) => {
        mod duckdb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::engine::conformance::lab::Lab::duckdb().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::engine::conformance::lab::Lab::postgres().await).await;
            })*
        }
    };
}

pub(crate) use suite;

suite! {
    what_is_hostile_stays_a_name_or_a_value,
    a_value_is_stored_whole_or_refused,
    what_was_computed_aside_appears_at_once,
    a_publication_that_is_repeated_changes_nothing,
    a_publication_that_was_overtaken_is_refused,
    a_zombie_cannot_publish_after_a_newer_token_was_raised,
    whole_tables_and_copies_replace_all_rows,
    what_was_given_up_is_dropped_and_nobody_may_write_it_again,
    a_time_range_is_rewritten_and_rows_outside_are_dropped,
    a_failed_audit_leaves_the_table_as_it_was,
    a_stale_token_leaves_the_table_as_it_was,
    a_zombie_cannot_commit_after_a_newer_token_was_raised,
    work_that_is_done_is_not_done_again,
    two_attempts_at_once_leave_one_set_of_rows,
    what_a_lost_connection_still_carries_counts_once,
    many_slots_of_a_new_table_at_once_all_succeed,
    a_unique_key_replaces_and_adds,
    a_merge_obeys_its_own_clauses,
    partitions_are_replaced_whole,
    a_full_table_is_old_or_new_to_readers,
    a_model_may_read_its_own_table_from_the_start,
    a_full_table_may_read_itself_and_change_its_columns,
    seeds_keep_quotes_nulls_and_unicode,
    views_switch_together_or_not_at_all,
    an_older_switch_is_superseded,
    a_view_changes_its_columns,
    pre_and_post_statements_share_the_transaction,
    declared_types_win,
    a_time_column_of_texts_is_bounded_as_its_model_writes_times,
    a_time_column_with_a_zone_is_read_as_utc,
    a_long_query_is_cancelled,
    errors_have_classes,
    relations_are_dropped,
    a_table_is_dropped_for_good_but_never_from_under_a_newer_attempt,
    what_depends_on_a_table_is_not_dropped_with_it,
    pruned_slots_stay_closed_to_old_tokens,
    whoever_is_of_a_lost_time_cannot_commit_however_batches_are_cut,
    settings_of_one_batch_do_not_reach_the_next,
}

async fn a_time_range_is_rewritten_and_rows_outside_are_dropped(lab: Lab) {
    let report = lab.run(&batch("d1", 1, day(1, 3))).await.unwrap();
    assert_eq!((report.outcome, report.rows), (Outcome::Written, 3));
    lab.run(&batch("d2", 2, day(2, 4))).await.unwrap();
    // Another plan restates the first day.
    let mut again = batch("d1", 3, day(1, 2));
    again.fence.plan = "restate".to_owned();
    assert_eq!(lab.run(&again).await.unwrap().rows, 2);
    let days = lab.rows("SELECT ds, COUNT(*) FROM s.t GROUP BY ds ORDER BY ds").await;
    assert_eq!(days, ["2024-01-01,2", "2024-01-02,4"]);
}

async fn whoever_is_of_a_lost_time_cannot_commit_however_batches_are_cut(lab: Lab) {
    lab.run(&batch("make", 1, Write::Create { query: "SELECT 1 AS i".to_owned() })).await.unwrap();
    let insert = |n: u32| Write::Append { query: format!("SELECT {n} AS i") };
    lab.run(&batch("done", 5, insert(1))).await.unwrap();
    let profile = lab.engine.pool.profile();
    let late = batch("days 1 to 4", 10, insert(3));
    let mut zombie = lab.engine.pool.get().await.unwrap();
    let ledger = lab.engine.ledger(&mut *zombie, None).await.unwrap();
    ledger.raise(&mut *zombie, profile, &late.fence, false).await.unwrap();
    zombie.run(&["BEGIN", "INSERT INTO s.t SELECT 3"].map(str::to_owned)).await.unwrap();
    lab.engine.shut_out(Token(1000));
    lab.engine.shut_out(Token(7));
    // Another slot, which knows nothing of the other one.
    assert_eq!(lab.run(&batch("days 2 to 5", 1001, insert(2))).await.unwrap().outcome, Outcome::Written);
    let error = ledger.commit(&mut *zombie, profile, &late.fence, 1).await.unwrap_err();
    assert!(matches!(error.class, Class::Stale | Class::Transient), "{error:?}");
    drop(zombie);
    let mut anew = lab.engine.pool.get().await.unwrap();
    for slot in ["days 1 to 4", "done", "never seen"] {
        let refused = ledger.raise(&mut *anew, profile, &batch(slot, 999, insert(4)).fence, false).await;
        assert_eq!(refused.unwrap_err().class, Class::Stale, "{slot}");
        let refused = lab.run(&batch(slot, 999, insert(4))).await;
        assert_eq!(refused.unwrap_err().class, Class::Stale, "{slot}");
    }
    anew.give_back();
    let mut again = batch("done", 1002, insert(1));
    again.replayed_is_done = true;
    assert_eq!(lab.run(&again).await.unwrap().outcome, Outcome::AlreadyDone, "what was done is known");
    assert_eq!(lab.rows("SELECT i FROM s.t ORDER BY i").await, ["1", "2"]);
}

async fn a_failed_audit_leaves_the_table_as_it_was(lab: Lab) {
    lab.run(&batch("d1", 1, day(1, 3))).await.unwrap();
    let mut bad = batch("other", 2, day(1, 9));
    bad.audits = vec![
        audit("warns", "SELECT * FROM s.t WHERE i > 8;", false),
        audit("blocks", "SELECT * FROM s.t WHERE i > 5 -- end", true),
    ];
    let error = lab.run(&bad).await.unwrap_err();
    let Class::AuditFailed(results) = &error.class else { panic!("{error:?}") };
    let found: Vec<_> = results.iter().map(|audit| (audit.name.as_str(), audit.bad_rows)).collect();
    assert_eq!(found, [("warns", 1), ("blocks", 4)]);
    assert_eq!(lab.rows("SELECT COUNT(*) FROM s.t").await, ["3"]);
    bad.audits.pop();
    let report = lab.run(&bad).await.unwrap();
    assert_eq!((report.rows, report.audits[0].bad_rows), (9, 1));
    let mut only = batch("audit", 3, Write::AuditOnly);
    only.audits = vec![audit("blocks", "SELECT * FROM s.t WHERE i > 5", true)];
    assert!(matches!(lab.run(&only).await.unwrap_err().class, Class::AuditFailed(_)));
}

async fn a_stale_token_leaves_the_table_as_it_was(lab: Lab) {
    lab.run(&batch("d1", 5, day(1, 3))).await.unwrap();
    let error = lab.run(&batch("d1", 4, day(1, 7))).await.unwrap_err();
    assert_eq!(error.class, Class::Stale);
    assert_eq!(lab.rows("SELECT COUNT(*) FROM s.t").await, ["3"]);
}

async fn a_zombie_cannot_commit_after_a_newer_token_was_raised(lab: Lab) {
    lab.run(&batch("make", 1, Write::Create { query: "SELECT 1 AS i".to_owned() })).await.unwrap();
    let insert = Write::Append { query: "SELECT 2 AS i".to_owned() };
    let profile = lab.engine.pool.profile();
    // The newer attempt overtakes before the zombie has begun, and after; or it has only raised.
    for (slot, begun_first, newer_writes) in [
        ("early", false, true),
        ("late", true, true),
        ("early raise", false, false),
        ("late raise", true, false),
    ] {
        let (old, newer) = (batch(slot, 10, insert.clone()), batch(slot, 11, insert.clone()));
        let mut zombie = lab.engine.pool.get().await.unwrap();
        let ledger = lab.engine.ledger(&mut *zombie, None).await.unwrap();
        ledger.raise(&mut *zombie, profile, &old.fence, false).await.unwrap();
        let work = ["BEGIN", "INSERT INTO s.t SELECT 3"].map(str::to_owned);
        if begun_first {
            zombie.run(&work).await.unwrap();
        }
        if newer_writes {
            assert_eq!(lab.run(&newer).await.unwrap().outcome, Outcome::Written);
        } else {
            let mut session = lab.engine.pool.get().await.unwrap();
            ledger.raise(&mut *session, profile, &newer.fence, false).await.unwrap();
            session.give_back();
        }
        if !begun_first {
            zombie.run(&work).await.unwrap();
        }
        let error = ledger.commit(&mut *zombie, profile, &old.fence, 1).await.unwrap_err();
        assert!(matches!(error.class, Class::Stale | Class::Transient), "{slot}: {error:?}");
        // The zombie's own session may have been ended at any moment: it comes back with a new one.
        drop(zombie);
        let mut anew = lab.engine.pool.get().await.unwrap();
        assert_eq!(
            ledger.raise(&mut *anew, profile, &old.fence, false).await.unwrap_err().class,
            Class::Stale
        );
    }
    assert_eq!(lab.rows("SELECT i FROM s.t").await, ["2", "2"]);
}

async fn work_that_is_done_is_not_done_again(lab: Lab) {
    let full = |token| batch("a", token, full(&format!("SELECT {token} AS i")));
    assert_eq!(lab.run(&full(1)).await.unwrap().outcome, Outcome::Written);
    for token in [1, 2, 3] {
        let report = lab.run(&full(token)).await.unwrap();
        assert_eq!((report.outcome, report.rows), (Outcome::AlreadyDone, 1), "token {token}");
    }
    let mut anew = full(4);
    anew.replayed_is_done = false;
    assert_eq!(lab.run(&anew).await.unwrap().outcome, Outcome::Written);
    assert_eq!(lab.run(&anew).await.unwrap().outcome, Outcome::AlreadyDone);
    assert_eq!(lab.rows("SELECT i FROM s.t").await, ["4"]);
}

async fn what_a_lost_connection_still_carries_counts_once(lab: Lab) {
    lab.run(&batch("make", 1, Write::Create { query: "SELECT 1 AS i".to_owned() })).await.unwrap();
    let profile = lab.engine.pool.profile();
    let write = batch("late", 10, Write::Append { query: "SELECT 2 AS i".to_owned() });
    // The worker gives up on a connection just before its check and COMMIT arrive, and tries anew.
    let mut lost = lab.engine.pool.get().await.unwrap();
    let ledger = lab.engine.ledger(&mut *lost, None).await.unwrap();
    ledger.raise(&mut *lost, profile, &write.fence, false).await.unwrap();
    lost.run(&["BEGIN", "INSERT INTO s.t SELECT 2"].map(str::to_owned)).await.unwrap();
    assert_eq!(lab.run(&write).await.unwrap().outcome, Outcome::Written);
    let error = ledger.commit(&mut *lost, profile, &write.fence, 1).await.unwrap_err();
    assert!(matches!(error.class, Class::Stale | Class::Transient), "{error:?}");
    drop(lost);
    assert_eq!(lab.rows("SELECT i FROM s.t").await, ["2"]);
}

async fn two_attempts_at_once_leave_one_set_of_rows(lab: Lab) {
    lab.run(&batch("make", 1, day(1, 0))).await.unwrap();
    for round in 1..=20_u32 {
        let slot = format!("d{round}");
        let attempt = |token| batch(&slot, token, day(round, 3));
        let (old, new) = (attempt(100), attempt(101));
        let (old, new) = tokio::join!(lab.run(&old), lab.run(&new));
        assert!(new.is_ok(), "the newer attempt must win: {new:?}");
        if let Err(error) = old {
            assert!(matches!(error.class, Class::Stale | Class::Transient), "{error:?}");
        }
    }
    assert_eq!(lab.rows("SELECT COUNT(*), COUNT(DISTINCT ds) FROM s.t").await, ["60,20"]);
}

async fn many_slots_of_a_new_table_at_once_all_succeed(lab: Lab) {
    let mut all = tokio::task::JoinSet::new();
    for number in 1..=12_u32 {
        let engine = lab.engine.clone();
        all.spawn(async move {
            let write = batch(&format!("d{number}"), u64::from(number), day(number, 2));
            engine.run_batch(&write, &CancellationToken::new()).await
        });
    }
    while let Some(done) = all.join_next().await {
        assert_eq!(done.unwrap().unwrap().rows, 2);
    }
    assert_eq!(lab.rows("SELECT COUNT(*), COUNT(DISTINCT ds) FROM s.t").await, ["24,12"]);
}

fn upsert(query: &str, key: &[&str]) -> Write {
    let key = key.iter().map(|part| (*part).to_owned()).collect();
    Write::UniqueKey { query: query.to_owned(), key, matched: None, filter: None }
}

async fn a_unique_key_replaces_and_adds(lab: Lab) {
    let first = "SELECT * FROM (VALUES (1, 'a', 10), (2, 'b', 20), (2, 'b', 20)) AS v(k, l, n)";
    let mut write = batch("1", 1, upsert(first, &["k", "l"]));
    write.first = true;
    assert_eq!(lab.run(&write).await.unwrap().rows, 2);
    let second = "SELECT * FROM (VALUES (2, 'b', 21), (3, 'c', 30)) AS v(k, l, n)";
    assert_eq!(lab.run(&batch("2", 2, upsert(second, &["k", "l"]))).await.unwrap().rows, 2);
    assert_eq!(lab.rows("SELECT * FROM s.t ORDER BY k").await, ["1,a,10", "2,b,21", "3,c,30"]);
    let third = "SELECT 3 AS k, 'd' AS l, 31 AS n";
    lab.run(&batch("3", 3, upsert(third, &["COALESCE(k, 0)"]))).await.unwrap();
    assert_eq!(lab.rows("SELECT * FROM s.t WHERE k = 3").await, ["3,d,31"]);
    let mut anew = batch("4", 4, upsert(third, &["k"]));
    anew.first = true;
    lab.run(&anew).await.unwrap();
    assert_eq!(lab.rows("SELECT * FROM s.t").await, ["3,d,31"]);
}

async fn a_merge_obeys_its_own_clauses(lab: Lab) {
    let make = upsert("SELECT * FROM (VALUES (1, 10), (2, 20)) AS v(k, n)", &["k"]);
    lab.run(&batch("1", 1, make)).await.unwrap();
    let merge = Write::UniqueKey {
        query: "SELECT * FROM (VALUES (1, 5), (2, 5), (3, 5)) AS v(k, n)".to_owned(),
        key: vec!["k".to_owned()],
        matched: Some(
            "WHEN MATCHED AND \"__MERGE_TARGET__\".n > 15 THEN UPDATE SET \
             n = \"__MERGE_TARGET__\".n + \"__MERGE_SOURCE__\".n"
                .to_owned(),
        ),
        filter: Some("\"__MERGE_SOURCE__\".k < 9".to_owned()),
    };
    lab.run(&batch("2", 2, merge)).await.unwrap();
    assert_eq!(lab.rows("SELECT * FROM s.t ORDER BY k").await, ["1,10", "2,25", "3,5"]);
}

async fn partitions_are_replaced_whole(lab: Lab) {
    let write = |values: &str| Write::Partition {
        query: format!("SELECT * FROM (VALUES {values}) AS v(p, n)"),
        key: vec!["p".to_owned()],
    };
    lab.run(&batch("1", 1, write("('a', 1), ('a', 2), ('b', 3)"))).await.unwrap();
    lab.run(&batch("2", 2, write("('a', 9), ('c', 4)"))).await.unwrap();
    assert_eq!(lab.rows("SELECT * FROM s.t ORDER BY p").await, ["a,9", "b,3", "c,4"]);
}

fn full(query: &str) -> Write {
    Write::Full { query: query.to_owned() }
}

async fn a_full_table_is_old_or_new_to_readers(lab: Lab) {
    let size = |n: u32| full(&format!("SELECT i FROM generate_series(1, {n}) AS a(i)"));
    lab.run(&batch("f", 1, size(1000))).await.unwrap();
    let stop = CancellationToken::new();
    let (engine, until) = (lab.engine.clone(), stop.clone());
    let reader = tokio::spawn(async move {
        let mut seen = std::collections::BTreeSet::new();
        while !until.is_cancelled() {
            seen.extend(engine.query("SELECT COUNT(*) FROM s.t").await.unwrap().rows.concat());
        }
        seen
    });
    for round in 0..20_u64 {
        let mut write = batch("f", round + 2, size(if round % 2 == 0 { 2000 } else { 1000 }));
        write.replayed_is_done = false;
        lab.run(&write).await.unwrap();
    }
    stop.cancel();
    let seen = reader.await.unwrap();
    let both = ["1000", "2000"].map(|text| Some(text.to_owned()));
    assert!(!seen.is_empty() && seen.iter().all(|count| both.contains(count)), "{seen:?}");
}

async fn a_model_may_read_its_own_table_from_the_start(lab: Lab) {
    for number in 1..=3_u32 {
        let Write::TimeRange { column: time, low, high, .. } = day(number, 1) else { panic!() };
        let query = format!(
            "SELECT CAST('2024-01-{number:02}' AS DATE) AS ds, \
             1 + COALESCE((SELECT MAX(n) FROM \"s\".\"t\"), 0) AS n"
        );
        let mut write = batch(
            &format!("d{number}"),
            u64::from(number),
            Write::TimeRange { query, column: time, low, high },
        );
        write.columns = Some(vec![column("ds", "DATE"), column("n", "INT")]);
        assert_eq!(lab.run(&write).await.unwrap().rows, 1);
    }
    assert_eq!(
        lab.rows("SELECT ds, n FROM s.t ORDER BY ds").await,
        ["2024-01-01,1", "2024-01-02,2", "2024-01-03,3"]
    );
}

async fn a_full_table_may_read_itself_and_change_its_columns(lab: Lab) {
    lab.run(&batch("1", 1, full("SELECT 1 AS i"))).await.unwrap();
    let report = lab.run(&batch("2", 2, full("SELECT i FROM s.t UNION ALL SELECT 2"))).await.unwrap();
    assert_eq!(report.rows, 2);
    assert_eq!(lab.rows("SELECT * FROM s.t ORDER BY i").await, ["1", "2"]);
    let report = lab.run(&batch("3", 3, full("SELECT 3 AS i, 'x' AS j"))).await.unwrap();
    assert_eq!(report.rows, 1);
    assert_eq!(lab.rows("SELECT * FROM s.t").await, ["3,x"]);
    let columns = lab.engine.columns(&Relation::new("s", "t")).await.unwrap().unwrap();
    assert_eq!(columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["i", "j"]);
    assert_eq!(lab.engine.columns(&Relation::new("nowhere", "t")).await.unwrap(), None);
}

async fn seeds_keep_quotes_nulls_and_unicode(lab: Lab) {
    let text = |text: &str| Some(text.to_owned());
    let seed = |rows: Vec<Vec<Option<String>>>| Write::Seed {
        columns: vec![
            column("id", "INT"),
            column("na\"me", "VARCHAR"),
            column("at", "DATE"),
            column("x", "INT"),
        ],
        rows,
        batch: 2,
    };
    let rows = vec![
        vec![text("1"), text("O'Neil \\ \"q\" $1 ;--"), text("2024-02-29"), None],
        vec![text("2"), text("żółw 🐢"), None, None],
        vec![None, text(""), None, None],
    ];
    assert_eq!(lab.run(&batch("s", 1, seed(rows))).await.unwrap().rows, 3);
    let expected = ["1,O'Neil \\ \"q\" $1 ;--,2024-02-29,~", "2,żółw 🐢,~,~", "~,,~,~"];
    assert_eq!(lab.rows("SELECT * FROM s.t ORDER BY id NULLS LAST").await, expected);
    let rows = vec![vec![text("7"), text("new"), None, None]];
    lab.run(&batch("again", 2, seed(rows))).await.unwrap();
    assert_eq!(lab.rows("SELECT id FROM s.t").await, ["7"]);
    lab.run(&batch("empty", 3, seed(Vec::new()))).await.unwrap();
    assert_eq!(lab.rows("SELECT COUNT(*) FROM s.t").await, ["0"]);
    let bad = vec![vec![text("not a number"), None, None, None]];
    assert_eq!(lab.run(&batch("bad", 4, seed(bad))).await.unwrap_err().class, Class::Permanent);
}

/// A switch of views in the schema `v`.
fn switch(seq: u64, views: &[(&str, &str)]) -> ViewSwitch {
    let change = |(view, target): &(&str, &str)| ViewChange {
        view: Relation::new("v", *view),
        target: Relation::new("p", *target),
        on_virtual_update: Vec::new(),
    };
    ViewSwitch {
        environment: "prod".to_owned(),
        seq,
        views: views.iter().map(change).collect(),
        drop: Vec::new(),
        drop_schemas: Vec::new(),
    }
}

/// Tables `p.t<n>` that hold their number.
async fn tables(lab: &Lab, numbers: &[u32]) {
    for number in numbers {
        let mut write = batch(&format!("t{number}"), 1, full(&format!("SELECT {number} AS n")));
        write.target = Relation::new("p", format!("t{number}"));
        lab.run(&write).await.unwrap();
    }
}

async fn apply(lab: &Lab, switch: &ViewSwitch) -> Result<Switched, super::EngineError> {
    lab.engine.switch_views(switch, &CancellationToken::new()).await
}

async fn pre_and_post_statements_share_the_transaction(lab: Lab) {
    tables(&lab, &[1]).await;
    let mut write = batch("1", 1, full("SELECT n FROM scratch"));
    write.pre = vec!["CREATE TEMPORARY TABLE scratch AS SELECT 7 AS n".to_owned()];
    write.post = vec![
        "INSERT INTO p.t1 SELECT 8; INSERT INTO p.t1 SELECT 9".to_owned(),
        "DROP TABLE scratch".to_owned(),
    ];
    write.audits = vec![audit("sees_all", "SELECT n FROM s.t WHERE n <> 7", true)];
    assert_eq!(lab.run(&write).await.unwrap().rows, 1);
    write.fence.slot = "2".to_owned();
    write.audits = vec![audit("fails", "SELECT n FROM s.t", true)];
    assert!(matches!(lab.run(&write).await.unwrap_err().class, Class::AuditFailed(_)));
    assert_eq!(lab.rows("SELECT n FROM s.t").await, ["7"]);
    assert_eq!(lab.rows("SELECT n FROM p.t1 ORDER BY n").await, ["1", "8", "9"]);
}

async fn declared_types_win(lab: Lab) {
    let mut write = batch("1", 1, day(1, 1));
    write.columns = Some(vec![column("i", "BIGINT"), column("ds", "TIMESTAMP")]);
    lab.run(&write).await.unwrap();
    assert_eq!(lab.rows("SELECT i, ds FROM s.t").await, ["1,2024-01-01 00:00:00"]);
    let mut write = batch("2", 2, full("SELECT 1 AS i"));
    write.target = Relation::new("s", "f");
    write.columns = Some(vec![column("i", "DOUBLE PRECISION")]);
    lab.run(&write).await.unwrap();
    let columns = lab.engine.columns(&write.target).await.unwrap().unwrap();
    assert!(columns[0].data_type.to_uppercase().starts_with("DOUBLE"), "{columns:?}");
    // Columns in another order than the table's land by name.
    let mut write =
        batch("3", 3, Write::Append { query: "SELECT DATE '2024-01-05' AS ds, 5 AS i".to_owned() });
    write.columns = None;
    lab.run(&write).await.unwrap();
    assert_eq!(lab.rows("SELECT i FROM s.t WHERE ds = '2024-01-05'").await, ["5"]);
}

async fn a_time_column_of_texts_is_bounded_as_its_model_writes_times(lab: Lab) {
    let bound = |time: &str, own: &str| Bound { time: time.to_owned(), own: own.to_owned() };
    let days = |slot: &str, token, query: &str| {
        let write = Write::TimeRange {
            query: query.to_owned(),
            column: "ds".to_owned(),
            low: bound("'2024-01-01 00:00:00'", "'2024-01-01'"),
            high: bound("'2024-01-02 23:59:59.999999'", "'2024-01-02'"),
        };
        batch(slot, token, write)
    };
    let rows = "SELECT * FROM (VALUES ('2024-01-01', 1), ('2024-01-02', 2), ('2024-01-03', 3)) AS v(ds, i)";
    assert_eq!(lab.run(&days("1", 1, rows)).await.unwrap().rows, 2, "the first day, too");
    lab.run(&days("2", 2, "SELECT CAST('2024-01-01' AS VARCHAR) AS ds, 7 AS i")).await.unwrap();
    assert_eq!(lab.rows("SELECT ds, i FROM s.t").await, ["2024-01-01,7"], "they are replaced");
}

async fn a_time_column_with_a_zone_is_read_as_utc(lab: Lab) {
    let write = Write::TimeRange {
        query: "SELECT * FROM (VALUES (TIMESTAMPTZ '2024-01-01 00:00:00+00'), \
                (TIMESTAMPTZ '2023-12-31 23:59:59+00'), (TIMESTAMPTZ '2024-01-01 23:59:59+00')) AS v(ts)"
            .to_owned(),
        column: "ts".to_owned(),
        low: "'2024-01-01 00:00:00'".to_owned().into(),
        high: "'2024-01-01 23:59:59.999999'".to_owned().into(),
    };
    let mut write = batch("1", 1, write);
    write.pre = vec!["SET TimeZone = 'Asia/Tokyo'".to_owned()];
    assert_eq!(lab.run(&write).await.unwrap().rows, 2);
}

async fn a_long_query_is_cancelled(lab: Lab) {
    lab.run(&batch("make", 1, day(1, 1))).await.unwrap();
    let long = "SELECT SUM(CAST(a.i AS BIGINT) * b.j % 7) AS i, CAST('2024-01-01' AS DATE) AS ds FROM \
                generate_series(1, 300000) AS a(i), generate_series(1, 300000) AS b(j)";
    let Write::TimeRange { column, low, high, .. } = day(1, 1) else { panic!() };
    let write = batch("long", 2, Write::TimeRange { query: long.to_owned(), column, low, high });
    let cancel = CancellationToken::new();
    let started = Instant::now();
    let (result, ()) = tokio::join!(lab.engine.run_batch(&write, &cancel), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
    });
    assert_eq!(result.unwrap_err().class, Class::Cancelled);
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(lab.rows("SELECT COUNT(*) FROM s.t").await, ["1"]);
    let error = lab.engine.run_batch(&batch("x", 3, day(1, 1)), &cancel).await.unwrap_err();
    assert_eq!(error.class, Class::Cancelled);
}

async fn errors_have_classes(lab: Lab) {
    for (query, code) in [
        ("SELECT * FROM nowhere.nothing", Some("42P01")),
        ("SELECT nothing", None),
        ("SELEC 1", Some("42601")),
        ("SELECT CAST('x' || CAST(i AS VARCHAR) AS INT) AS i FROM generate_series(1, 2) AS a(i)", None),
    ] {
        let error = lab.run(&batch("e", 1, full(query))).await.unwrap_err();
        assert_eq!(error.class, Class::Permanent, "{query}: {error:?}");
        assert!(code.is_none() || error.code.as_deref() == code, "{query}: {error:?}");
    }
    // The slot is still free for the same token.
    assert_eq!(lab.run(&batch("e", 1, full("SELECT 1 AS i"))).await.unwrap().outcome, Outcome::Written);
    let mut write = batch("n", 1, day(1, 1));
    if let Write::TimeRange { column, .. } = &mut write.write {
        "missing".clone_into(column);
    }
    write.target = Relation::new("s", "other");
    let error = lab.run(&write).await.unwrap_err();
    assert_eq!((error.class, error.code.as_deref()), (Class::Permanent, Some("42703")));
}

async fn settings_of_one_batch_do_not_reach_the_next(lab: Lab) {
    for slot in ["a", "b", "c"] {
        let mut write = batch(slot, 1, Write::Append { query: "SELECT n FROM mine".to_owned() });
        write.pre = vec!["CREATE TEMPORARY TABLE mine AS SELECT 1 AS n".to_owned()];
        lab.run(&write).await.unwrap();
    }
    assert_eq!(lab.rows("SELECT COUNT(*) FROM s.t").await, ["3"]);
    assert!(lab.engine.query("SELECT n FROM mine").await.is_err());
}

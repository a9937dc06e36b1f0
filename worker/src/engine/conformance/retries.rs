//! Every way to write, tried again in every way: the table stays as one try leaves it.

use std::io;
use std::sync::Arc;

use coord_common::id::Token;
use tokio::net::TcpListener;

use super::lab::{Lab, batch, column, connect, day};
use super::postgres_only::cut_at_commit;
use super::scd::kind;
use crate::engine::batch::TransactionalEngine;
use crate::engine::config::PostgresConfig;
use crate::engine::{BatchWrite, CancellationToken, Class, Engine, EngineError, Outcome, ScdWrite, Write};

super::suite! {
    a_batch_that_is_tried_again_leaves_the_same_table,
    a_first_batch_shuts_out_lost_ones_of_before,
}

/// A way to write: what fills a table `s.t`, and the batch after it.
struct Way {
    name: &'static str,
    writes: [Write; 2],
}

fn scd(spelled: &str, rows: &str, execution: &str) -> Write {
    let query = format!(
        "SELECT id, amount, CAST(since AS TIMESTAMP) AS updated_at FROM (VALUES {rows}) AS v(id, amount, since)"
    );
    let execution = format!("'{execution} 00:00:00'");
    Write::Scd(Box::new(ScdWrite { query, kind: kind(spelled), execution, only_create: false }))
}

/// Rows of a key and a number.
fn numbers(rows: &str) -> String {
    format!("SELECT * FROM (VALUES {rows}) AS v(k, n)")
}

fn ways() -> Vec<Way> {
    let key = || vec!["k".to_owned()];
    let unique = |rows: &str, matched: Option<&str>| Write::UniqueKey {
        query: numbers(rows),
        key: key(),
        matched: matched.map(str::to_owned),
        filter: matched.map(|_| "\"__MERGE_SOURCE__\".k < 9".to_owned()),
    };
    let partition = |rows: &str| Write::Partition { query: numbers(rows), key: key() };
    let append = |rows: &str| Write::Append { query: numbers(rows) };
    let full = |rows: &str| Write::Full { query: numbers(rows) };
    let view = |rows: &str, materialized| Write::View { query: numbers(rows), materialized };
    let seed = |numbers: [&str; 3]| Write::Seed {
        columns: vec![column("k", "INT"), column("n", "TEXT")],
        rows: numbers.map(|number| vec![Some("1".to_owned()), Some(number.to_owned())]).to_vec(),
        batch: 2,
    };
    let (before, after) = ("(1, 10), (1, 11), (2, 20)", "(2, 21), (2, 22), (3, 30)");
    let (one, two) = ("(1, 10), (2, 20)", "(2, 21), (3, 30)");
    let merge = "WHEN MATCHED AND \"__MERGE_TARGET__\".n > 15 THEN UPDATE SET n = \"__MERGE_SOURCE__\".n";
    let by_time = "SCD_TYPE_2_BY_TIME (unique_key id, invalidate_hard_deletes true)";
    let by_column = "SCD_TYPE_2_BY_COLUMN (unique_key id, columns (amount), invalidate_hard_deletes true)";
    let stays = "SCD_TYPE_2_BY_COLUMN (unique_key id, columns (amount))";
    let versions = |spelled: &str| {
        let first =
            scd(spelled, "(1, 10, '2024-01-01'), (2, 20, '2024-01-01'), (3, 30, '2024-01-01')", "2024-01-02");
        // One that changed, one that stayed, one that went, one that came.
        let second =
            scd(spelled, "(1, 11, '2024-01-02'), (2, 20, '2024-01-01'), (4, 40, '2024-01-02')", "2024-01-03");
        [first, second]
    };
    let way = |name, writes| Way { name, writes };
    vec![
        way("time range", [day(1, 3), day(2, 4)]),
        way("unique key", [unique(one, None), unique(two, None)]),
        way("unique key, merged", [unique(one, Some(merge)), unique(two, Some(merge))]),
        way("partition", [partition(before), partition(after)]),
        way("append", [append(before), append(after)]),
        way("full", [full(before), full(after)]),
        way("SCD by time", versions(by_time)),
        way("SCD by column", versions(by_column)),
        way("SCD by column, deletions ignored", versions(stays)),
        way("view", [view(one, false), view(two, false)]),
        way("materialized view", [view(one, true), view(two, true)]),
        way("seed", [seed(["a", "b", "a"]), seed(["c", "c", "d"])]),
    ]
}

async fn table(lab: &Lab) -> Vec<String> {
    let mut rows = lab.rows("SELECT * FROM s.t").await;
    rows.sort();
    rows
}

/// The second batch of a way, which nobody has tried.
fn second(write: &Write, token: u64) -> BatchWrite {
    BatchWrite { replayed_is_done: false, ..batch("d2", token, write.clone()) }
}

/// Fills the table; what it holds once the second batch has been written undisturbed.
async fn filled(lab: &Lab, way: &Way) -> Vec<String> {
    let first = BatchWrite { first: true, ..batch("d1", 1, way.writes[0].clone()) };
    lab.run(&first).await.unwrap_or_else(|error| panic!("{}: {error:?}", way.name));
    lab.run(&second(&way.writes[1], 2)).await.unwrap_or_else(|error| panic!("{}: {error:?}", way.name));
    table(lab).await
}

async fn another(lab: &Lab) -> Lab {
    if lab.config.is_some() { Lab::postgres().await } else { Lab::duckdb().await }
}

async fn a_batch_that_is_tried_again_leaves_the_same_table(lab: Lab) {
    for way in ways() {
        let lab = another(&lab).await;
        let expected = filled(&lab, &way).await;
        assert!(!expected.is_empty(), "{}", way.name);
        let again = |token| second(&way.writes[1], token);
        let by = |plan: &str, write: BatchWrite| {
            let fence = crate::engine::Fence { plan: plan.to_owned(), ..write.fence.clone() };
            BatchWrite { fence, ..write }
        };
        let append = matches!(way.writes[1], Write::Append { .. });
        let anew = if append { Outcome::AlreadyDone } else { Outcome::Written };
        let done = Outcome::AlreadyDone;
        // By the same token, by one of the same plan, by others that compute it anew, and by one that replaces a
        // batch that was lost.
        let replayed = |token| BatchWrite { replayed_is_done: true, ..again(token) };
        let mut lost = by("lost", replayed(6));
        lost.fence.supersedes = vec!["d3".to_owned()];
        for (what, write, outcome) in [
            ("the same token", again(2), done),
            ("a newer token", replayed(3), done),
            ("another plan", by("other", again(4)), anew),
            ("another round", by("plan.1", again(5)), anew),
            ("what was lost", lost, anew),
        ] {
            let report =
                lab.run(&write).await.unwrap_or_else(|error| panic!("{}, {what}: {error:?}", way.name));
            assert_eq!(report.outcome, outcome, "{}, {what}", way.name);
            assert_eq!(table(&lab).await, expected, "{}, {what}", way.name);
        }
        let stale = lab.run(&again(5)).await.unwrap_err();
        assert_eq!((stale.class, table(&lab).await), (Class::Stale, expected), "{}", way.name);
    }
}

/// An engine whose first commit of a batch is lost, or its answer is.
async fn cut(
    lab: &Lab,
    deliver: bool,
) -> io::Result<(Arc<TransactionalEngine>, tokio::task::JoinHandle<io::Result<()>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let direct = lab.config.clone().expect("it is PostgreSQL");
    let config = PostgresConfig { port: listener.local_addr()?.port(), ..direct.clone() };
    Ok((connect(&config, 1), tokio::spawn(cut_at_commit(listener, direct.port, deliver))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_leaves_the_same_table() {
    for way in ways() {
        let expected = filled(&Lab::postgres().await, &way).await;
        for deliver in [true, false] {
            let lab = Lab::postgres().await;
            let first = BatchWrite { first: true, ..batch("d1", 1, way.writes[0].clone()) };
            lab.run(&first).await.unwrap();
            let (engine, proxy) = cut(&lab, deliver).await.unwrap();
            let report = engine.run_batch(&second(&way.writes[1], 2), &CancellationToken::new()).await;
            let report =
                report.unwrap_or_else(|error| panic!("{}, delivered {deliver}: {error:?}", way.name));
            assert_eq!(report.outcome, Outcome::Written, "{}, delivered {deliver}", way.name);
            assert_eq!(table(&lab).await, expected, "{}, delivered {deliver}", way.name);
            proxy.abort();
        }
    }
}

async fn a_first_batch_shuts_out_lost_ones_of_before(lab: Lab) {
    let append = |slot: &str, token, number: u32| BatchWrite {
        replayed_is_done: false,
        ..batch(slot, token, Write::Append { query: format!("SELECT {number} AS i") })
    };
    lab.run(&append("d1", 1, 1)).await.unwrap();
    // Its worker is lost in the middle of it, and comes back once another plan has emptied the table.
    let zombie = append("d2", 2, 2);
    let mut session = lab.engine.pool.get().await.unwrap();
    let ledger = lab.engine.ledger(&mut *session, None).await.unwrap();
    ledger.raise(&mut *session, lab.engine.pool.profile(), &zombie.fence, true).await.unwrap();
    let mut first = BatchWrite { first: true, ..append("d1", 3, 7) };
    first.fence.plan = "other".to_owned();
    first.fence.supersedes = vec!["d2".to_owned()];
    lab.run(&first).await.unwrap();
    let late: Result<_, EngineError> = lab.run(&zombie).await;
    assert_eq!(late.unwrap_err().class, Class::Stale);
    let mut next = append("d2", 4, 8);
    next.fence.plan = "other".to_owned();
    assert_eq!(next.fence.token, Token(4));
    assert_eq!(lab.run(&next).await.unwrap().outcome, Outcome::Written);
    assert_eq!(lab.rows("SELECT i FROM s.t ORDER BY i").await, ["7", "8"]);
}

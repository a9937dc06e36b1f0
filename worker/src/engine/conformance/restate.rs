//! What is computed aside, and how it takes the place of what readers see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coord_common::id::Token;

use super::lab::{Lab, batch};
use crate::engine::{
    BatchWrite, Beside, Bound, CancellationToken, Class, Engine, Kept, Outcome, Publication, Published,
    Relation, RelationKind, Write,
};

/// Days of a month, half-open, as bounds.
fn days(from: u32, to: u32) -> [Bound; 2] {
    [format!("'2024-01-{from:02} 00:00:00'"), format!("'2024-01-{:02} 23:59:59.999999'", to - 1)]
        .map(Bound::from)
}

fn aside(name: &str) -> Relation {
    Relation::new("s", format!("{name}__aside"))
}

fn merged(name: &str) -> Relation {
    Relation::new("s", format!("{name}__merged"))
}

/// A table of which days 3 and 4 are computed again.
fn ranges(name: &str) -> Beside {
    Beside {
        published: Relation::new("s", name),
        kept: Kept::Outside { column: "ds".to_owned(), ranges: vec![days(3, 5)], merged: merged(name) },
    }
}

fn whole(name: &str, kept: Kept) -> Beside {
    Beside { published: Relation::new("s", name), kept }
}

fn published(name: &str, beside: Beside) -> Published {
    Published {
        table: format!("s.{name}"),
        aside: format!("s.{name}+aside"),
        relation: aside(name),
        beside,
        kind: RelationKind::Table,
        supersedes: Vec::new(),
    }
}

fn publication(token: u64, tables: Vec<Published>) -> Publication {
    Publication {
        slot: "publish:again:0".to_owned(),
        token: Token(token),
        plan: "again".to_owned(),
        tables,
        discard: false,
    }
}

/// Writes a day into a table, or into the one beside it.
fn day(name: &str, day: u32, query: &str, beside: Option<Beside>, token: u64) -> BatchWrite {
    let [low, high] = days(day, day + 1);
    let write = Write::TimeRange { query: query.to_owned(), column: "ds".to_owned(), low, high };
    let place = if beside.is_some() { "aside" } else { "published" };
    let mut batch = batch(&format!("{name} {place} {day}"), token, write);
    batch.target = if beside.is_some() { aside(name) } else { Relation::new("s", name) };
    batch.fence.table = if beside.is_some() { format!("s.{name}+aside") } else { format!("s.{name}") };
    batch.fence.plan = if beside.is_some() { "again".to_owned() } else { "first".to_owned() };
    batch.aside = beside;
    batch
}

/// Two tables of five days, one a sum over the other.
async fn two_tables(lab: &Lab) {
    for n in 1..=5 {
        let query = format!("SELECT CAST('2024-01-{n:02}' AS DATE) AS ds, 1 AS v");
        lab.run(&day("a", n, &query, None, u64::from(n))).await.unwrap();
        let query = format!("SELECT CAST('2024-01-{n:02}' AS DATE) AS ds, (SELECT SUM(v) FROM s.a) AS v");
        lab.run(&day("b", n, &query, None, u64::from(n) + 10)).await.unwrap();
    }
}

/// Computes days 3 and 4 of both again, ten times as large.
async fn again(lab: &Lab) {
    for n in 3..=4 {
        let query = format!("SELECT CAST('2024-01-{n:02}' AS DATE) AS ds, 10 AS v");
        lab.run(&day("a", n, &query, Some(ranges("a")), 20 + u64::from(n))).await.unwrap();
    }
    for n in 3..=4 {
        let query =
            format!("SELECT CAST('2024-01-{n:02}' AS DATE) AS ds, (SELECT SUM(v) FROM s.a__merged) AS v");
        lab.run(&day("b", n, &query, Some(ranges("b")), 30 + u64::from(n))).await.unwrap();
    }
}

fn both() -> Vec<Published> {
    vec![published("a", ranges("a")), published("b", ranges("b"))]
}

async fn publish(lab: &Lab, publication: &Publication) -> Result<Outcome, crate::engine::EngineError> {
    lab.engine.publish(publication, &CancellationToken::new()).await
}

const SUMS: &str = "SELECT (SELECT SUM(v) FROM s.a), (SELECT SUM(v) FROM s.b)";
pub(super) async fn what_was_computed_aside_appears_at_once(lab: Lab) {
    two_tables(&lab).await;
    let old = lab.rows(SUMS).await;
    again(&lab).await;
    assert_eq!(lab.rows(SUMS).await, old, "nobody sees what is aside");
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (engine, done) = (lab.engine.clone(), done.clone());
        tokio::spawn(async move {
            let mut seen = Vec::new();
            // Once more after the publication.
            for last in [false, true] {
                while last || !done.load(Ordering::Acquire) {
                    let rows = engine.query(SUMS).await.unwrap().rows;
                    let cells = rows[0].iter().map(|cell| cell.clone().unwrap_or_default());
                    let text = cells.collect::<Vec<_>>().join(",");
                    if seen.last() != Some(&text) {
                        seen.push(text);
                    }
                    if last {
                        break;
                    }
                }
            }
            seen
        })
    };
    assert_eq!(publish(&lab, &publication(50, both())).await.unwrap(), Outcome::Written);
    done.store(true, Ordering::Release);
    let seen = reader.await.unwrap();
    let new = lab.rows(SUMS).await;
    assert!(seen == [old[0].clone(), new[0].clone()] || seen == new, "{seen:?}");
    let days = lab.rows("SELECT v FROM s.a ORDER BY ds").await;
    assert_eq!(days, ["1", "1", "10", "10", "1"]);
    // A batch aside saw the restated rows together with those that stay.
    assert_eq!(lab.rows("SELECT MAX(v) FROM s.b").await, ["23"]);
    let left = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 's' AND table_name LIKE '%\\_\\_%' ESCAPE '\\'";
    assert_eq!(lab.rows(left).await, ["0"], "what was aside is gone");
    assert_eq!(lab.rows("SELECT COUNT(*) FROM coordctl._fence WHERE owner LIKE '%+aside'").await, ["0"]);
}

pub(super) async fn a_publication_that_is_repeated_changes_nothing(lab: Lab) {
    two_tables(&lab).await;
    again(&lab).await;
    publish(&lab, &publication(50, both())).await.unwrap();
    let new = lab.rows(SUMS).await;
    // The answer was lost: the same attempt, and a later one of the same plan.
    for token in [50, 51] {
        assert_eq!(publish(&lab, &publication(token, both())).await.unwrap(), Outcome::AlreadyDone);
        assert_eq!(lab.rows(SUMS).await, new);
    }
}

pub(super) async fn a_publication_that_was_overtaken_is_refused(lab: Lab) {
    two_tables(&lab).await;
    again(&lab).await;
    let newer = publication(61, both());
    publish(&lab, &newer).await.unwrap();
    let new = lab.rows(SUMS).await;
    // Of the same plan: the newer attempt is there to be seen. Of another plan with a table in common:
    // its rows are older than what the table shows by now.
    let error = publish(&lab, &publication(60, both())).await.unwrap_err();
    assert_eq!(error.class, Class::Stale);
    let older = Publication {
        slot: "publish:other:0".to_owned(),
        plan: "other".to_owned(),
        ..publication(59, vec![published("a", ranges("a"))])
    };
    assert_eq!(publish(&lab, &older).await.unwrap_err().class, Class::Stale);
    assert_eq!(lab.rows(SUMS).await, new);
}

pub(super) async fn a_zombie_cannot_publish_after_a_newer_token_was_raised(lab: Lab) {
    two_tables(&lab).await;
    again(&lab).await;
    // A trigger isn't at hand on all warehouses: the zombie is what the engine would do, by hand.
    let profile = lab.engine.pool.profile();
    let mut zombie = lab.engine.pool.get().await.unwrap();
    let ledger = lab.engine.ledger(&mut *zombie, None).await.unwrap();
    let fence = crate::engine::Fence {
        slot: "publish:again:0".to_owned(),
        token: Token(50),
        plan: "again".to_owned(),
        table: "publish:again:0".to_owned(),
        supersedes: Vec::new(),
    };
    ledger.raise(&mut *zombie, profile, &fence, false).await.unwrap();
    let work = ["BEGIN", "DELETE FROM s.a", "INSERT INTO s.a SELECT ds, 1000 FROM s.b"].map(str::to_owned);
    zombie.run(&work[..1]).await.unwrap();
    publish(&lab, &publication(51, both())).await.unwrap();
    let new = lab.rows(SUMS).await;
    let late = async {
        zombie.run(&work[1..]).await?;
        ledger.commit_all(&mut *zombie, &[fence], 1).await
    };
    let error = late.await.unwrap_err();
    assert!(matches!(error.class, Class::Stale | Class::Transient), "{error:?}");
    drop(zombie);
    assert_eq!(lab.rows(SUMS).await, new);
}

pub(super) async fn whole_tables_and_copies_replace_all_rows(lab: Lab) {
    let rows = |n: u32| Write::Full { query: format!("SELECT i FROM generate_series(1, {n}) AS a(i)") };
    for name in ["a", "b"] {
        let mut first = batch(name, 1, rows(3));
        first.target = Relation::new("s", name);
        lab.run(&first).await.unwrap();
    }
    let mut full = batch("a aside", 2, rows(5));
    full.target = aside("a");
    full.aside = Some(whole("a", Kept::Nothing));
    lab.run(&full).await.unwrap();
    let mut upsert = batch(
        "b aside",
        3,
        Write::UniqueKey {
            query: "SELECT 3 AS i UNION ALL SELECT 9".to_owned(),
            key: vec!["i".to_owned()],
            matched: None,
            filter: None,
        },
    );
    upsert.target = aside("b");
    upsert.aside = Some(whole("b", Kept::Copy));
    lab.run(&upsert).await.unwrap();
    assert_eq!(lab.rows("SELECT i FROM s.b ORDER BY i").await, ["1", "2", "3"]);
    let tables = vec![published("a", whole("a", Kept::Nothing)), published("b", whole("b", Kept::Copy))];
    publish(&lab, &publication(9, tables)).await.unwrap();
    assert_eq!(lab.rows("SELECT COUNT(*) FROM s.a").await, ["5"]);
    assert_eq!(lab.rows("SELECT i FROM s.b ORDER BY i").await, ["1", "2", "3", "9"]);
}

pub(super) async fn what_was_given_up_is_dropped_and_nobody_may_write_it_again(lab: Lab) {
    two_tables(&lab).await;
    let old = lab.rows(SUMS).await;
    again(&lab).await;
    let discard = Publication { discard: true, ..publication(50, both()) };
    publish(&lab, &discard).await.unwrap();
    assert_eq!(lab.rows(SUMS).await, old);
    assert!(lab.engine.columns(&aside("a")).await.unwrap().is_none());
    let late = day("a", 3, "SELECT CAST('2024-01-03' AS DATE) AS ds, 10 AS v", Some(ranges("a")), 23);
    assert_eq!(lab.run(&late).await.unwrap_err().class, Class::Stale);
    // Neither may a publication that was on its way.
    assert_eq!(publish(&lab, &publication(49, both())).await.unwrap_err().class, Class::Stale);
}

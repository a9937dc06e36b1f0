//! What is dropped stays away, and nothing else goes with it.

use super::*;

pub(super) async fn relations_are_dropped(lab: Lab) {
    tables(&lab, &[1, 2]).await;
    apply(&lab, &switch(1, &[("a", "t1")])).await.unwrap();
    let gone = Relation::new("p", "t2");
    let never = Relation::new("never", "t");
    let view = Relation::new("v", "a");
    let all = [
        (gone.clone(), RelationKind::Table),
        (never, RelationKind::Table),
        (view, RelationKind::View),
        (Relation::new("p", "t1"), RelationKind::Table),
    ];
    assert_eq!(lab.engine.drop_relations(&all).await, []);
    assert_eq!(lab.engine.columns(&gone).await.unwrap(), None);
    // Somebody else drops the table: what was known of it is forgotten, and it is made again.
    for number in [1, 2] {
        lab.run(&batch(&format!("d{number}"), 1, day(number, 1))).await.unwrap();
    }
    let mut session = lab.engine.pool.get().await.unwrap();
    session.run(&["DROP TABLE s.t".to_owned()]).await.unwrap();
    session.give_back();
    assert_eq!(lab.run(&batch("d3", 1, day(3, 1))).await.unwrap().rows, 1);
    assert_eq!(lab.rows("SELECT ds FROM s.t").await, ["2024-01-03"]);
    assert!(lab.engine.ping().await.unwrap().contains(lab.engine.pool.profile().name));
}

fn discard(token: u64) -> Discard {
    Discard {
        table: "s.t".to_owned(),
        token: Token(token),
        relation: Relation::new("s", "t"),
        kind: RelationKind::Table,
    }
}

pub(super) async fn a_table_is_dropped_for_good_but_never_from_under_a_newer_attempt(lab: Lab) {
    let never = CancellationToken::new();
    let mut unmade = discard(1);
    unmade.relation = Relation::new("nowhere", "t");
    unmade.table = "nowhere.t".to_owned();
    lab.engine.discard(&unmade, &never).await.unwrap();
    lab.run(&batch("d1", 5, day(1, 1))).await.unwrap();
    lab.run(&batch("d2", 9, day(2, 1))).await.unwrap();
    let stale = lab.engine.discard(&discard(7), &never).await.unwrap_err();
    assert_eq!(stale.class, Class::Stale);
    assert_eq!(lab.rows("SELECT COUNT(*) FROM s.t").await, ["2"]);
    // An attempt whose lease was lost is in the middle of its work when the table is dropped.
    let old = batch("d3", 10, day(3, 1));
    let profile = lab.engine.pool.profile();
    let mut zombie = lab.engine.pool.get().await.unwrap();
    let ledger = lab.engine.ledger(&mut *zombie, None).await.unwrap();
    ledger.raise(&mut *zombie, profile, &old.fence, false).await.unwrap();
    for _ in 0..2 {
        lab.engine.discard(&discard(11), &never).await.unwrap();
        assert_eq!(lab.engine.columns(&Relation::new("s", "t")).await.unwrap(), None);
    }
    zombie.run(&["BEGIN".to_owned(), "CREATE TABLE s.t AS SELECT 1 AS i".to_owned()]).await.unwrap();
    let late = ledger.commit(&mut *zombie, profile, &old.fence, 1).await.unwrap_err();
    assert!(matches!(late.class, Class::Stale | Class::Transient), "{late:?}");
    drop(zombie);
    assert_eq!(lab.engine.columns(&Relation::new("s", "t")).await.unwrap(), None);
    assert_eq!(lab.rows("SELECT COUNT(*) FROM coordctl._fence").await, ["0"]);
    for token in [4, 10, 11] {
        let error = lab.run(&batch("d1", token, day(1, 1))).await.unwrap_err();
        assert_eq!(error.class, Class::Stale, "token {token}");
    }
    // A later plan needs it again; the drop that comes late changes nothing.
    assert_eq!(lab.run(&batch("d1", 12, day(1, 1))).await.unwrap().outcome, Outcome::Written);
    assert_eq!(lab.engine.discard(&discard(11), &never).await.unwrap_err().class, Class::Stale);
    assert_eq!(lab.rows("SELECT ds FROM s.t").await, ["2024-01-01"]);
}

pub(super) async fn what_depends_on_a_table_is_not_dropped_with_it(lab: Lab) {
    // DuckDB knows of no dependencies between views and tables.
    if lab.config.is_none() {
        return;
    }
    lab.run(&batch("d1", 5, day(1, 1))).await.unwrap();
    let mut session = lab.engine.pool.get().await.unwrap();
    session.run(&["CREATE VIEW public.foreign_view AS SELECT * FROM s.t".to_owned()]).await.unwrap();
    session.give_back();
    let error = lab.engine.discard(&discard(6), &CancellationToken::new()).await.unwrap_err();
    assert!(error.message.contains("s.t") && error.hint.is_some(), "{error:?}");
    assert_eq!((error.class, error.code.as_deref()), (Class::Permanent, Some("2BP01")));
    assert_eq!(lab.rows("SELECT COUNT(*) FROM public.foreign_view").await, ["1"]);
    assert_eq!(lab.rows("SELECT COUNT(*) FROM coordctl._fence").await, ["1"], "nothing was changed");
}

pub(super) async fn pruned_slots_stay_closed_to_old_tokens(lab: Lab) {
    let append = |token| batch("a", token, Write::Append { query: "SELECT 1 AS i".to_owned() });
    lab.run(&append(5)).await.unwrap();
    lab.run(&batch("other", 9, Write::Append { query: "SELECT 2 AS i".to_owned() })).await.unwrap();
    lab.engine.prune(None, "s.t", Token(7)).await.unwrap();
    lab.engine.prune(None, "s.t", Token(6)).await.unwrap();
    assert_eq!(lab.rows("SELECT slot FROM coordctl._fence").await, ["other"]);
    for token in [4, 5, 7] {
        assert_eq!(lab.run(&append(token)).await.unwrap_err().class, Class::Stale, "token {token}");
    }
    assert_eq!(lab.run(&append(8)).await.unwrap().outcome, Outcome::Written);
    assert_eq!(lab.rows("SELECT i FROM s.t ORDER BY i").await, ["1", "1", "2"]);
}

//! Views are switched together, and in order.

use super::*;

pub(super) async fn views_switch_together_or_not_at_all(lab: Lab) {
    tables(&lab, &[1, 2, 3, 4]).await;
    assert_eq!(apply(&lab, &switch(1, &[("a", "t1"), ("b", "t2")])).await.unwrap(), Switched::Done);
    let error = apply(&lab, &switch(2, &[("a", "t3"), ("b", "missing")])).await.unwrap_err();
    assert_eq!(error.class, Class::Permanent, "{error:?}");
    assert_eq!(lab.rows("SELECT a.n, b.n FROM v.a, v.b").await, ["1,2"]);
    let mut good = switch(2, &[("a", "t3"), ("c", "t4")]);
    good.drop.push(Relation::new("v", "b"));
    good.drop.push(Relation::new("nowhere", "b"));
    good.views[0].on_virtual_update.push("CREATE VIEW v.d AS SELECT * FROM v.a".to_owned());
    assert_eq!(apply(&lab, &good).await.unwrap(), Switched::Done);
    assert_eq!(lab.rows("SELECT a.n, c.n, d.n FROM v.a, v.c, v.d").await, ["3,4,3"]);
    assert!(lab.engine.query("SELECT * FROM v.b").await.is_err());
    // A schema goes when nothing is left in it.
    let mut down = switch(3, &[]);
    down.drop = ["d", "a"].map(|view| Relation::new("v", view)).into();
    down.drop_schemas = vec![(None, "v".to_owned()), (None, "never_was".to_owned())];
    apply(&lab, &down).await.unwrap();
    assert_eq!(lab.rows("SELECT n FROM v.c").await, ["4"]);
    let mut last = ViewSwitch { seq: 4, drop: vec![Relation::new("v", "c")], ..down };
    apply(&lab, &last).await.unwrap();
    last.seq = 5;
    apply(&lab, &last).await.unwrap();
    let left = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'v'";
    assert_eq!(lab.rows(left).await, ["0"]);
}

pub(super) async fn an_older_switch_is_superseded(lab: Lab) {
    tables(&lab, &[1, 2]).await;
    assert_eq!(apply(&lab, &switch(5, &[("a", "t1")])).await.unwrap(), Switched::Done);
    assert_eq!(apply(&lab, &switch(4, &[("a", "t2")])).await.unwrap(), Switched::Superseded);
    assert_eq!(apply(&lab, &switch(5, &[("a", "t1")])).await.unwrap(), Switched::Done);
    assert_eq!(lab.rows("SELECT n FROM v.a").await, ["1"]);
    let (six, seven) = (switch(6, &[("a", "t1")]), switch(7, &[("a", "t2")]));
    let (_, newer) = tokio::join!(apply(&lab, &six), apply(&lab, &seven));
    assert_eq!(newer.unwrap(), Switched::Done);
    assert_eq!(lab.rows("SELECT n FROM v.a").await, ["2"]);
}

pub(super) async fn a_view_changes_its_columns(lab: Lab) {
    tables(&lab, &[1]).await;
    let view = |query: &str| Write::View { query: query.to_owned(), materialized: false };
    lab.run(&batch("1", 1, view("SELECT 1 AS i, 2 AS j;"))).await.unwrap();
    lab.run(&batch("2", 2, view("SELECT 'x' AS i"))).await.unwrap();
    assert_eq!(lab.rows("SELECT * FROM s.t").await, ["x"]);
    let mut to_view = switch(1, &[("a", "t1"), ("b", "t1")]);
    apply(&lab, &to_view).await.unwrap();
    to_view.seq = 2;
    to_view.views[1].target = Relation::new("s", "t");
    apply(&lab, &to_view).await.unwrap();
    assert_eq!(lab.rows("SELECT a.n, b.i FROM v.a, v.b").await, ["1,x"]);
    let kept = Write::View { query: "SELECT 5 AS i".to_owned(), materialized: true };
    let mut write = batch("3", 3, kept);
    write.target = Relation::new("s", "kept");
    for token in [3, 4] {
        write.fence.token = Token(token);
        write.replayed_is_done = false;
        lab.run(&write).await.unwrap();
    }
    assert_eq!(lab.rows("SELECT * FROM s.kept").await, ["5"]);
}

//! Names and values that would do harm if they were pasted into statements.

use coord_common::project::model::ColumnDef;

use super::lab::{Lab, batch};
use crate::engine::{
    CancellationToken, Engine, Relation, RelationKind, Switched, ViewChange, ViewSwitch, Write,
};

const HOSTILE: [&str; 9] = [
    "'; DROP TABLE s.keep; --",
    "\"; DROP TABLE s.keep; --",
    "a'b\"c`d]e",
    "back\\slash\\'",
    "$coordctl$ $$ ${x} {{ y }} @z",
    "{schema} {relation} %s ?1",
    "🦀 crab",
    "\u{202e}left\u{202c}",
    "a.b -- /* c",
];

fn text(name: &str) -> ColumnDef {
    ColumnDef { name: name.to_owned(), data_type: "TEXT".to_owned() }
}

/// A write of a table, a schema, a slot and a plan of that name.
async fn write(lab: &Lab, name: &str, token: u64, write: Write) -> Result<(), crate::engine::EngineError> {
    let mut batch = batch(name, token, write);
    batch.target = Relation::new(name, name);
    batch.fence.plan = name.to_owned();
    batch.fence.table = name.to_owned();
    lab.run(&batch).await.map(drop)
}

pub(super) async fn what_is_hostile_stays_a_name_or_a_value(lab: Lab) {
    let mut keep = batch("keep", 1, Write::Full { query: "SELECT 1 AS i".to_owned() });
    keep.target = Relation::new("s", "keep");
    lab.run(&keep).await.unwrap();
    assert_eq!(lab.rows("SELECT i FROM s.keep").await, ["1"]);
    for (n, name) in HOSTILE.iter().enumerate() {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let place = format!("{quoted}.{quoted}");
        let cells = HOSTILE.iter().map(|cell| vec![Some((*cell).to_owned()), None]).collect();
        let seed = Write::Seed { columns: vec![text(name), text("none")], rows: cells, batch: 4 };
        write(&lab, name, 10, seed).await.unwrap();
        let all = lab.engine.query(&format!("SELECT {quoted} FROM {place}")).await.unwrap();
        let mut found: Vec<String> = all.rows.into_iter().flatten().flatten().collect();
        let mut given = HOSTILE.map(str::to_owned);
        found.sort();
        given.sort();
        assert_eq!((all.columns, found), (vec![(*name).to_owned()], given.to_vec()));

        let again = Write::Full { query: format!("SELECT 'x' AS {quoted}, NULL AS none") };
        write(&lab, name, 20, again).await.unwrap();
        let materialized =
            Write::View { query: format!("SELECT '{}' AS i", name.replace('\'', "''")), materialized: true };
        let view = Relation::new(*name, "kept");
        let mut made = batch(&format!("kept{n}"), 30, materialized);
        made.target = view.clone();
        lab.run(&made).await.unwrap();
        assert_eq!(lab.rows(&format!("SELECT i FROM {quoted}.kept")).await, [(*name).to_owned()]);

        let target = Relation::new(*name, *name);
        let view = Relation::new(format!("v{name}"), *name);
        let change = ViewChange { view: view.clone(), target: target.clone(), on_virtual_update: Vec::new() };
        let mut switch = ViewSwitch {
            environment: (*name).to_owned(),
            seq: 1,
            views: vec![change],
            drop: Vec::new(),
            drop_schemas: Vec::new(),
        };
        let cancel = CancellationToken::new();
        assert_eq!(lab.engine.switch_views(&switch, &cancel).await.unwrap(), Switched::Done);
        (switch.seq, switch.views, switch.drop) = (2, Vec::new(), vec![view.clone()]);
        switch.drop_schemas.push((None, view.schema.clone()));
        assert_eq!(lab.engine.switch_views(&switch, &cancel).await.unwrap(), Switched::Done);
        assert_eq!(lab.engine.columns(&target).await.unwrap().unwrap()[0].name, *name);
        lab.engine.prune(None, name, coord_common::id::Token(40)).await.unwrap();
        assert_eq!(lab.engine.drop_relations(&[(target.clone(), RelationKind::Table)]).await, []);
        assert_eq!(lab.engine.columns(&target).await.unwrap(), None);
    }
    assert_eq!(lab.rows("SELECT i FROM s.keep").await, ["1"]);
}

pub(super) async fn a_value_is_stored_whole_or_refused(lab: Lab) {
    let long = "'; DROP TABLE x; --🦀".repeat(1 << 16);
    let seed = |cell: &str| Write::Seed {
        columns: vec![text("c")],
        rows: vec![vec![Some(cell.to_owned())]],
        batch: 1,
    };
    lab.run(&batch("long", 1, seed(&long))).await.unwrap();
    assert_eq!(lab.rows("SELECT c FROM s.t").await, std::slice::from_ref(&long));
    match lab.run(&batch("nul", 2, seed("a\0b"))).await {
        Ok(_) => assert_eq!(lab.rows("SELECT c FROM s.t").await, ["a\0b"]),
        Err(_) => assert_eq!(lab.rows("SELECT c FROM s.t").await, [long]),
    }
}

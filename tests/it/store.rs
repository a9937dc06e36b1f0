//! The state store against a real etcd: conformance, crashes, and what only etcd can do.

use std::sync::Arc;
use std::time::Duration;

use coord_tests::etcd::{Etcd, EtcdOptions};
use coord_tests::postgres::{Postgres, PostgresOptions};
use coordinator::store::blob::{get_blob, put_blob};
use coordinator::store::schema::check_schema;
use coordinator::store::{Compare, Outcome, Store, StoreError, StoreUrl, Txn, Watch, conformance, open};

async fn connect(etcd: &Etcd, namespace: &str) -> Arc<dyn Store> {
    open(&StoreUrl::parse(&etcd.url(namespace)).unwrap()).await.unwrap()
}

async fn woken(watch: &mut Watch) {
    let woken = tokio::time::timeout(Duration::from_secs(30), watch.changed()).await;
    assert!(woken.expect("a hint within the time"), "the watch goes on");
}

/// Reads until the store answers again.
async fn value(store: &dyn Store, key: &str) -> Option<Vec<u8>> {
    for _ in 0..100 {
        match store.get(key).await {
            Ok(entry) => return entry.map(|entry| entry.value),
            Err(error) => assert!(error.retryable(), "{error}"),
        }
    }
    panic!("the store did not come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_passes_the_conformance_suite() {
    let etcd = Etcd::start_with(EtcdOptions { unsafe_no_fsync: true, ..EtcdOptions::default() });
    let store = connect(&etcd, "suite").await;
    assert!(conformance::run(&store, "").await.unwrap() >= 25);
}

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let etcd = Etcd::start();
    let (a, ab, root) = (connect(&etcd, "a").await, connect(&etcd, "ab").await, connect(&etcd, "").await);
    check_schema(&*a).await.unwrap();
    check_schema(&*ab).await.unwrap();
    let mut watch = a.watch("").await.unwrap();
    ab.commit(Txn::new().put("x", "ab")).await.unwrap();
    a.commit(Txn::new().require(Compare::Absent("x".into())).put("x", "a")).await.unwrap();
    woken(&mut watch).await;
    let keys = |snapshot: coordinator::store::Snapshot| -> Vec<String> {
        snapshot.entries.into_iter().map(|entry| entry.key).collect()
    };
    assert_eq!(keys(a.range("").await.unwrap()), ["r1/schema", "x"]);
    assert_eq!(keys(root.range("").await.unwrap()), ["a/r1/schema", "a/x", "ab/r1/schema", "ab/x"]);
    assert!(etcd.etcdctl(&["get", "/a/x", "--print-value-only"]).starts_with('a'));
    let content = vec![7; 3_000_000];
    let hash = put_blob(&*a, &content).await.unwrap();
    assert_eq!(get_blob(&*a, hash).await.unwrap(), Some(content));
    assert_eq!(get_blob(&*ab, hash).await.unwrap(), None);
}

#[tokio::test]
async fn a_crash_of_etcd_loses_nothing_and_the_client_comes_back() {
    let mut etcd = Etcd::start();
    let store = connect(&etcd, "p").await;
    let mut watch = store.watch("").await.unwrap();
    store.commit(Txn::new().put("a", "1")).await.unwrap();
    woken(&mut watch).await;
    etcd.kill9();
    let read = store.get("a").await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let write = store.commit(Txn::new().put("a", "2")).await;
    assert!(matches!(write, Err(StoreError::Unavailable(_) | StoreError::Unknown(_))), "{write:?}");
    etcd.restart();
    assert_eq!(value(&*store, "a").await.unwrap(), b"1");
    woken(&mut watch).await;
    store.commit(Txn::new().put("a", "3")).await.unwrap();
    woken(&mut watch).await;
    assert_eq!(value(&*store, "a").await.unwrap(), b"3");
}

#[tokio::test]
async fn a_frozen_etcd_leaves_the_outcome_unknown() {
    let etcd = Etcd::start();
    let store = connect(&etcd, "p").await;
    store.commit(Txn::new().put("a", "1")).await.unwrap();
    etcd.stop();
    let (read, write) = tokio::join!(store.get("a"), store.commit(Txn::new().put("a", "2")));
    etcd.cont();
    assert!(read.is_err_and(|error| error.retryable()));
    let unknown = write.unwrap_err();
    assert!(matches!(unknown, StoreError::Unknown(_)) && !unknown.retryable(), "{unknown}");
    // Whichever it was, a read tells, and a guarded write goes on from there.
    let entry = loop {
        if let Ok(entry) = store.get("a").await {
            break entry.unwrap();
        }
    };
    let txn = Txn::new().require(Compare::ModRevision("a".into(), entry.mod_revision)).put("a", "3");
    assert!(matches!(store.commit(txn).await.unwrap(), Outcome::Committed(_)));
}

#[tokio::test]
async fn compaction_disturbs_neither_reads_nor_watches() {
    let etcd = Etcd::start();
    let store = connect(&etcd, "p").await;
    let mut watch = store.watch("").await.unwrap();
    for n in 0..50 {
        store.commit(Txn::new().put("a", n.to_string())).await.unwrap();
    }
    let revision = store.range("").await.unwrap().revision;
    etcd.etcdctl(&["compact", &revision.to_string()]);
    store.commit(Txn::new().put("a", "last")).await.unwrap();
    woken(&mut watch).await;
    assert_eq!(value(&*store, "a").await.unwrap(), b"last");
}

#[tokio::test]
async fn etcd_asks_for_the_right_password_and_no_error_tells_it() {
    let etcd = Etcd::start();
    etcd.etcdctl(&["user", "add", "root:hunter2"]);
    etcd.etcdctl(&["user", "grant-role", "root", "root"]);
    etcd.etcdctl(&["auth", "enable"]);
    let url = |user: &str| StoreUrl::parse(&format!("etcd://{user}{}/p", etcd.endpoint())).unwrap();
    let store = open(&url("root:hunter2@")).await.unwrap();
    store.commit(Txn::new().put("a", "1")).await.unwrap();
    store.watch("").await.unwrap();
    assert_eq!(value(&*store, "a").await.unwrap(), b"1");
    let wrong = open(&url("root:hunter3@")).await.err().unwrap();
    assert!(matches!(wrong, StoreError::Denied(_)), "{wrong}");
    assert!(!format!("{wrong} {wrong:?}").contains("hunter"));
    let nobody = open(&url("")).await.unwrap().get("a").await;
    assert!(matches!(nobody, Err(StoreError::Denied(_))), "{nobody:?}");
}

#[tokio::test]
async fn postgres_starts_asks_for_its_password_and_recovers() {
    let options = PostgresOptions { fsync: true, password: Some("s3 cret".to_owned()), ..Default::default() };
    let mut postgres = Postgres::start_with(options);
    let query = async |dsn: String, sql: &'static str| {
        let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        client.simple_query(sql).await
    };
    query(postgres.dsn(), "CREATE TABLE t AS SELECT 1 AS x").await.unwrap();
    assert!(query(postgres.dsn().replace("s3", "no"), "SELECT 1").await.is_err());
    postgres.kill9();
    assert!(query(postgres.dsn(), "SELECT 1").await.is_err());
    postgres.restart();
    query(postgres.dsn(), "SELECT x FROM t").await.unwrap();
}

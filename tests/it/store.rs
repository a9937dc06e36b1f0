//! The state store against a real etcd: conformance, crashes, and what only etcd can do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::sync::Arc;
use std::time::Duration;

use coord_tests::certificates::{Authority, Subject};
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

/// Writers count up, each its own key, through a crash of etcd: what was acknowledged is there
/// afterwards, and an unknown outcome is settled by the guard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_crash_in_their_midst() {
    const LAST: u64 = 150;
    let mut etcd = Etcd::start();
    let store = connect(&etcd, "p").await;
    let count = |store: Arc<dyn Store>, key: String| async move {
        let mut at = None;
        for n in 0..LAST {
            let guard = at.map_or(Compare::Absent(key.clone()), |at| Compare::ModRevision(key.clone(), at));
            let txn = || Txn::new().require(guard.clone()).put(key.clone(), n.to_string());
            at = loop {
                match store.commit(txn()).await {
                    Ok(Outcome::Committed(revision)) => break Some(revision),
                    // Sent again, it conflicts where it was applied, be it late.
                    Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => {}
                    Ok(Outcome::Conflict) => {
                        assert_eq!(value(&*store, &key).await, Some(n.to_string().into_bytes()));
                        break store.get(&key).await.unwrap().map(|entry| entry.mod_revision);
                    }
                    Err(error) => panic!("{error}"),
                }
            };
        }
    };
    let mut watch = store.watch("k7").await.unwrap();
    let writers: Vec<_> = (0..8).map(|n| tokio::spawn(count(store.clone(), format!("k{n}")))).collect();
    for _ in 0..2 {
        for _ in 0..10 {
            woken(&mut watch).await;
        }
        tokio::task::block_in_place(|| etcd.restart());
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let entries = store.range("").await.unwrap().entries;
    assert_eq!(entries.len(), 8);
    for entry in entries {
        assert_eq!((entry.version, entry.value), (LAST as i64, (LAST - 1).to_string().into_bytes()));
    }
}

#[tokio::test]
async fn a_dead_member_in_the_list_is_passed_over() {
    let etcd = Etcd::start();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("etcd://{dead},{}/p", etcd.endpoint());
    let store = open(&StoreUrl::parse(&url).unwrap()).await.unwrap();
    for n in 0..50 {
        store.commit(Txn::new().put("a", n.to_string())).await.unwrap();
        assert_eq!(value(&*store, "a").await.unwrap(), n.to_string().into_bytes());
    }
}

#[tokio::test]
async fn etcd_is_reached_over_tls_with_a_client_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let authority = Authority::new("etcd");
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    authority.write(folder.path(), "server", Subject::new("server"));
    authority.write(folder.path(), "client", Subject::new("coordinator"));
    let arguments = [
        format!("--cert-file={}", path("server.pem")),
        format!("--key-file={}", path("server.key")),
        format!("--trusted-ca-file={}", path("ca.pem")),
        "--client-cert-auth".to_owned(),
    ];
    let etcd = Etcd::start_with(EtcdOptions { tls: true, arguments: arguments.into(), ..Default::default() });
    let url = format!("etcd://{}/p?ca={}", etcd.endpoint(), path("ca.pem"));
    let known = format!("{url}&cert={}&key={}", path("client.pem"), path("client.key"));
    let store = open(&StoreUrl::parse(&known).unwrap()).await.unwrap();
    store.commit(Txn::new().put("a", "1")).await.unwrap();
    assert_eq!(value(&*store, "a").await.unwrap(), b"1");
    // Files that are exchanged are used from then on, unless they are no certificates at all.
    std::fs::write(path("client.key"), "not a key").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(value(&*store, "a").await.unwrap(), b"1");
    Authority::new("foreign").write(folder.path(), "client", Subject::new("somebody"));
    until(async || store.get("a").await.is_err()).await;
    authority.write(folder.path(), "client", Subject::new("coordinator, again"));
    until(async || store.get("a").await.is_ok()).await;
    let nobody = open(&StoreUrl::parse(&url).unwrap()).await.unwrap().get("a").await;
    assert!(nobody.is_err(), "{nobody:?}");
    let missing = StoreUrl::parse(&url.replace("ca.pem", "no.pem")).unwrap();
    assert!(open(&missing).await.err().unwrap().to_string().contains("no.pem"));
}

async fn until(holds: impl AsyncFn() -> bool) {
    let start = std::time::Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Prints how many transactions a second each back end takes: run it with `--ignored --nocapture`
/// on a quiet machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput() {
    let etcd = Etcd::start();
    let folder = tempfile::tempdir().unwrap();
    let sqlite = open(&StoreUrl::parse(folder.path().to_str().unwrap()).unwrap()).await.unwrap();
    for (name, store) in [("etcd", connect(&etcd, "p").await), ("sqlite", sqlite)] {
        store.commit(Txn::new().put("lead", "me")).await.unwrap();
        for (clients, puts) in [(1, 1), (16, 1), (1, 120), (4, 120)] {
            measure(name, &store, clients, puts).await;
        }
    }
}

async fn measure(name: &str, store: &Arc<dyn Store>, clients: usize, puts: usize) {
    let start = std::time::Instant::now();
    let run = |store: Arc<dyn Store>, client: usize| async move {
        let mut done = 0;
        while start.elapsed() < Duration::from_secs(3) {
            let guarded = Txn::new().require(Compare::Value("lead".into(), b"me".to_vec()));
            let txn = (0..puts).fold(guarded, |txn, n| txn.put(format!("{client}/{n}"), vec![b'x'; 100]));
            assert!(store.commit(txn).await.unwrap().committed().is_some());
            done += 1;
        }
        done
    };
    let tasks: Vec<_> = (0..clients).map(|client| tokio::spawn(run(store.clone(), client))).collect();
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    let rate = f64::from(done) / start.elapsed().as_secs_f64();
    println!("{name}: {clients} × {puts} puts: {rate:.0} txn/s, {:.0} puts/s", rate * puts as f64);
}

/// A write that got no answer may even be applied after a read has shown that it was not: its
/// guard and the next write's decide between the two, and one of them conflicts.
#[tokio::test]
async fn a_frozen_etcd_leaves_the_outcome_unknown_until_a_guarded_write() {
    let etcd = Etcd::start();
    let store = connect(&etcd, "p").await;
    let first = store.commit(Txn::new().put("a", "1")).await.unwrap().committed().unwrap();
    let guarded = |at, value: &str| Txn::new().require(Compare::ModRevision("a".into(), at)).put("a", value);
    etcd.stop();
    let (read, write) = tokio::join!(store.get("a"), store.commit(guarded(first, "2")));
    etcd.cont();
    assert!(read.is_err_and(|error| error.retryable()));
    let unknown = write.unwrap_err();
    assert!(matches!(unknown, StoreError::Unknown(_)) && !unknown.retryable(), "{unknown}");
    let mut conflicts = 0;
    loop {
        let Ok(entry) = store.get("a").await else { continue };
        match store.commit(guarded(entry.unwrap().mod_revision, "3")).await.unwrap() {
            Outcome::Committed(_) => break,
            Outcome::Conflict => conflicts += 1,
        }
    }
    assert!(conflicts <= 1, "only the late write can come between");
    let entry = store.get("a").await.unwrap().unwrap();
    assert!(entry.value == b"3" && (2..=3).contains(&entry.version), "{entry:?}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_that_compaction_overtakes_starts_again() {
    let etcd = Arc::new(Etcd::start_with(EtcdOptions { unsafe_no_fsync: true, ..Default::default() }));
    let store = connect(&etcd, "p").await;
    for first in (0..3000).step_by(120) {
        let txn = (first..first + 120).fold(Txn::new(), |txn, n| txn.put(format!("k{n:04}"), [0; 8000]));
        store.commit(txn).await.unwrap();
    }
    let compactor = tokio::spawn({
        let (store, etcd) = (store.clone(), etcd.clone());
        async move {
            for _ in 0..30 {
                store.commit(Txn::new().delete("k0000")).await.unwrap();
                let put = store.commit(Txn::new().put("k0000", "")).await.unwrap();
                let revision = put.committed().unwrap().to_string();
                tokio::task::block_in_place(|| etcd.etcdctl(&["compact", &revision]));
            }
        }
    });
    while !compactor.is_finished() {
        match store.range("").await {
            Ok(snapshot) => assert!(matches!(snapshot.entries.len(), 2999 | 3000)),
            Err(error) => assert!(error.retryable(), "{error}"),
        }
    }
    compactor.await.unwrap();
}

#[tokio::test]
async fn an_etcd_without_space_says_what_to_do() {
    let quota = "--quota-backend-bytes=4000000".to_owned();
    let etcd =
        Etcd::start_with(EtcdOptions { unsafe_no_fsync: true, arguments: vec![quota], ..Default::default() });
    let store = connect(&etcd, "p").await;
    // etcd looks at its size only as often as it commits to its file, so a fast disk takes more.
    for n in 0..=u8::MAX {
        match store.commit(Txn::new().put("a", vec![n; 1_000_000])).await {
            Ok(_) => continue,
            Err(full @ StoreError::Storage { .. }) => {
                assert!(full.to_string().contains("compact and defragment"), "{full}");
                assert_eq!(value(&*store, "a").await.unwrap()[0], n - 1);
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("etcd has no quota");
}

/// What `a_crash_amid_sqlite_writes…` runs and kills: it tells every write that was acknowledged.
#[tokio::test]
#[ignore = "a child of another test"]
async fn sqlite_writer() {
    let Ok(folder) = std::env::var("COORD_TEST_STATE") else { return };
    let store = open(&StoreUrl::parse(&folder).unwrap()).await.unwrap();
    for n in 0_u64.. {
        let txn = Txn::new().put("a", n.to_string()).put("b", n.to_string());
        store.commit(txn).await.unwrap();
        eprintln!("ack {n}");
    }
}

#[tokio::test]
async fn a_crash_amid_sqlite_writes_loses_none_that_was_acknowledged() {
    use std::io::BufRead;
    let folder = tempfile::tempdir().unwrap();
    let url = StoreUrl::parse(folder.path().to_str().unwrap()).unwrap();
    for _ in 0..5 {
        let mut writer = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sqlite_writer", "--ignored", "--nocapture"])
            .env("COORD_TEST_STATE", folder.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(writer.stderr.take().unwrap()).lines();
        let mut acks =
            lines.by_ref().filter_map(|line| line.unwrap().strip_prefix("ack ")?.parse::<u64>().ok());
        acks.nth(60).unwrap();
        let busy = open(&url).await.err().unwrap();
        assert!(matches!(busy, StoreError::InUse { pid: Some(pid), .. } if pid == writer.id()), "{busy}");
        writer.kill().unwrap();
        let least = acks.last().unwrap_or(60);
        writer.wait().unwrap();
        let store = open(&url).await.unwrap();
        let (a, b) = (value(&*store, "a").await.unwrap(), value(&*store, "b").await.unwrap());
        assert_eq!(a, b, "a transaction is whole");
        let last: u64 = String::from_utf8(a).unwrap().parse().unwrap();
        assert!(last >= least, "{least} was acknowledged, {last} is there");
    }
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

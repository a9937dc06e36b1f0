use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::*;
use crate::store::blob::{CHUNK_BYTES, blob_hash, delete_blob, get_blob, put_blob};
use crate::store::record::encode_json;
use crate::store::schema::{FORMAT, check_schema};
use crate::store::{conformance, keys};

fn state(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("deep/state.db")
}

async fn put(store: &SqliteStore, key: &str, value: &str) -> Result<Outcome, StoreError> {
    store.commit(Txn::new().put(key, value)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_passes_the_conformance_suite() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&state(&folder)).unwrap());
    assert!(conformance::run(&store, "suite/").await.unwrap() >= 25);
}

#[tokio::test]
async fn state_survives_reopening_with_its_revisions() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&state(&folder)).unwrap();
    put(&store, "a", "1").await.unwrap();
    put(&store, "a", "2").await.unwrap();
    let before = store.range("").await.unwrap();
    drop(store);
    let store = SqliteStore::open(&state(&folder)).unwrap();
    assert_eq!(store.range("").await.unwrap(), before);
}

#[tokio::test]
async fn a_second_opener_is_told_who_holds_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = state(&folder);
    let first = SqliteStore::open(&path).unwrap();
    let error = SqliteStore::open(&path).err().unwrap();
    assert_eq!(error, StoreError::InUse { path: path.clone(), pid: Some(std::process::id()) });
    assert!(error.to_string().contains(&format!("is in use by process {}", std::process::id())));
    drop(first);
    SqliteStore::open(&path).unwrap();
}

#[tokio::test]
async fn leases_expire_by_the_clock_and_end_with_their_process() {
    let folder = tempfile::tempdir().unwrap();
    let now = Arc::new(Mutex::new(Instant::now()));
    let clock: Clock = Arc::new({
        let now = Arc::clone(&now);
        move || *now.lock().unwrap()
    });
    let store = SqliteStore::open_with_clock(&state(&folder), clock).unwrap();
    let lease = store.grant_lease(Duration::from_secs(10)).await.unwrap();
    store.commit(Txn::new().put_with_lease("a", "", lease)).await.unwrap();
    *now.lock().unwrap() += Duration::from_secs(9);
    store.keep_alive(lease).await.unwrap();
    *now.lock().unwrap() += Duration::from_secs(9);
    assert!(store.get("a").await.unwrap().is_some());
    *now.lock().unwrap() += Duration::from_secs(1);
    assert!(store.get("a").await.unwrap().is_none());
    assert_eq!(store.keep_alive(lease).await, Err(StoreError::LeaseGone(lease)));

    let lease = store.grant_lease(Duration::from_secs(10)).await.unwrap();
    store.commit(Txn::new().put_with_lease("b", "", lease).put("c", "")).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&state(&folder)).unwrap();
    assert!(store.get("b").await.unwrap().is_none());
    assert!(store.get("c").await.unwrap().is_some());
}

#[tokio::test]
async fn a_full_disk_refuses_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = state(&folder);
    let store = SqliteStore::open(&path).unwrap();
    put(&store, "a", "1").await.unwrap();
    store.call(|db| db.pragma("max_page_count = 12")).await.unwrap();
    let txn = || Txn::new().put("a", "2").put("big", vec![1; 200_000]);
    let error = store.commit(txn()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("state.db`: the disk is full; free some space"), "{text}");
    assert_eq!(store.get("a").await.unwrap().unwrap().value, b"1");
    store.call(|db| db.pragma("max_page_count = 100000")).await.unwrap();
    store.commit(txn()).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().value, b"2");
}

#[tokio::test]
async fn a_read_only_file_is_named_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&state(&folder)).unwrap();
    store.call(|db| db.pragma("query_only = ON")).await.unwrap();
    let text = put(&store, "a", "1").await.unwrap_err().to_string();
    assert!(
        text.contains("deep/state.db") && text.contains("make the file and its folder writable"),
        "{text}"
    );
}

#[test]
fn what_is_no_state_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("garbage.db");
    std::fs::write(&garbage, "no database at all, but long enough to be looked at".repeat(100)).unwrap();
    let other = folder.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    for (path, why) in [(garbage, "damaged or no state file"), (other, "of another program")] {
        let before = std::fs::read(&path).unwrap();
        let text = SqliteStore::open(&path).err().unwrap().to_string();
        assert!(text.contains(why), "{text}");
        assert!(std::fs::read(&path).unwrap() == before, "the file was changed");
    }
    let text = SqliteStore::open(Path::new("/dev/null/x/state.db")).err().unwrap().to_string();
    assert!(text.contains("/dev/null/x"), "{text}");
}

#[tokio::test]
async fn the_schema_is_written_once_and_guards_against_other_formats() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&state(&folder)).unwrap();
    check_schema(&store).await.unwrap();
    check_schema(&store).await.unwrap();
    assert_eq!(store.get(keys::SCHEMA).await.unwrap().unwrap().version, 1);
    for (format, known) in [(FORMAT + 1, "upgrade coordctl"), (FORMAT - 1, "older version")] {
        let record = encode_json(&serde_json::json!({"format": format, "more": 1})).unwrap();
        store.commit(Txn::new().put(keys::SCHEMA, record)).await.unwrap();
        let text = check_schema(&store).await.unwrap_err().to_string();
        assert!(text.contains(known), "{text}");
    }
    store.commit(Txn::new().delete(keys::SCHEMA).put("r1/env/prod", "")).await.unwrap();
    assert!(matches!(check_schema(&store).await, Err(StoreError::Corrupt { .. })));
}

/// Bytes that hardly pack, so that pieces are as large as they get.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn blobs_of_all_sizes_come_back_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&state(&folder)).unwrap();
    for length in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 9 * CHUNK_BYTES + 7] {
        for content in [vec![b'x'; length], noise(length)] {
            let hash = put_blob(&store, &content).await.unwrap();
            assert_eq!(hash, blob_hash(&content));
            let before = store.range("").await.unwrap().revision;
            put_blob(&store, &content).await.unwrap();
            assert_eq!(store.range("").await.unwrap().revision, before, "it is written once");
            assert_eq!(get_blob(&store, hash).await.unwrap(), Some(content));
            delete_blob(&store, hash).await.unwrap();
            assert_eq!(get_blob(&store, hash).await.unwrap(), None);
        }
    }
}

#[tokio::test]
async fn a_damaged_blob_names_the_key_and_a_partial_one_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&state(&folder)).unwrap();
    let content = noise(3 * CHUNK_BYTES);
    let hash = put_blob(&store, &content).await.unwrap();
    let second = keys::blob_chunk(hash, 1);
    let sound = store.get(&second).await.unwrap().unwrap().value;

    let mut flipped = sound.clone();
    flipped[1000] ^= 4;
    store.commit(Txn::new().put(second.clone(), flipped)).await.unwrap();
    let found = get_blob(&store, hash).await;
    assert!(matches!(&found, Err(StoreError::Corrupt { key, .. }) if *key == second), "{found:?}");

    // A sound piece in the wrong place passes its checksum but not the hash.
    let third = store.get(&keys::blob_chunk(hash, 2)).await.unwrap().unwrap().value;
    store.commit(Txn::new().put(second.clone(), third)).await.unwrap();
    let found = get_blob(&store, hash).await;
    assert!(matches!(&found, Err(StoreError::Corrupt { why, .. }) if why.contains("hash")), "{found:?}");

    store.commit(Txn::new().delete(second.clone())).await.unwrap();
    let found = get_blob(&store, hash).await;
    assert!(matches!(&found, Err(StoreError::Corrupt { key, .. }) if *key == second), "{found:?}");

    store.commit(Txn::new().delete(keys::blob_chunk(hash, 0))).await.unwrap();
    assert_eq!(get_blob(&store, hash).await.unwrap(), None);
    put_blob(&store, &content).await.unwrap();
    assert_eq!(get_blob(&store, hash).await.unwrap(), Some(content));
}

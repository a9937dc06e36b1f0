use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use coord_common::id::{EnvironmentName, Hash128};
use coord_common::interval::{Interval, IntervalSet};
use coord_common::plan::{Environment, Hooks};
use coord_common::task::{Batch, Mode, TableId};

use super::*;
use crate::apply::{LeaseRecord, LeasedWork};
use crate::control::book::{PlanState, Pointer, SwitchKind, decode};
use crate::control::evidence::{Entry as Evidence, broken};
use crate::store::record::encode_intervals;
use crate::store::{Revision, SqliteStore, blob};

const PLAN: PlanId = PlanId(Hash128(5));

fn how(force: bool) -> Import {
    Import { force, now: Timestamp(7), by: "me".to_owned() }
}

fn store(folder: &tempfile::TempDir, name: &str) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(&folder.path().join(name)).unwrap())
}

fn batch() -> Batch {
    let table: TableId = format!("a.b@{}", Hash128(3)).parse().unwrap();
    Batch { table, interval: Interval { start: Timestamp(0), end: Timestamp(86_400_000) } }
}

fn prod() -> EnvironmentName {
    EnvironmentName::prod()
}

/// A store with an environment, a plan under way, a lease, and a binary record.
async fn fill(store: &dyn Store) {
    schema::check_schema(store).await.unwrap();
    let environment = Environment {
        name: prod(),
        seq: 4,
        plan: PLAN,
        start: Timestamp(0),
        end: Timestamp(9),
        models: std::collections::BTreeMap::new(),
        hooks: Hooks::default(),
        unrestorable: Default::default(),
    };
    let set = blob::put_blob(store, &serde_json::to_vec(&environment).unwrap()).await.unwrap();
    let pointer = Pointer {
        seq: 4,
        plan: PlanId(Hash128(6)),
        set,
        previous: None,
        views_done: true,
        expires: None,
        leaving: false,
    };
    let record: PlanRecord = serde_json::from_value(serde_json::json!({
        "environment": "prod", "state": "applying", "body": set.to_string(), "created": 1, "materialised": true,
    }))
    .unwrap();
    let work = LeasedWork::Batch { batch: batch(), mode: Mode::Write, supersedes: Vec::new() };
    let lease = LeaseRecord {
        worker: "w".parse().unwrap(),
        plan: PLAN,
        serves: vec![PLAN],
        attempts: 0,
        losses: 0,
        void: IntervalSet::default(),
        work,
    };
    let done = encode_intervals(&batch().interval.into());
    let txn = Txn::new()
        .put(keys::environment(&prod()), encode_json(&pointer).unwrap())
        .put(keys::applying(&prod()), encode_json(&PLAN).unwrap())
        .put(keys::plan(PLAN), encode_json(&record).unwrap())
        .put(keys::lease(coord_common::id::Token(1 << 20)), encode_json(&lease).unwrap())
        .put(keys::intervals(&batch().table), done);
    store.commit(txn).await.unwrap();
}

async fn exported(store: &dyn Store) -> Vec<u8> {
    let mut file = Vec::new();
    export(store, &mut file).await.unwrap();
    file
}

async fn imported(store: &dyn Store, file: &[u8], force: bool) -> Result<Summary, BackupError> {
    import(store, || Ok(Cursor::new(file.to_vec())), &how(force)).await
}

#[tokio::test]
async fn a_restored_state_has_nothing_in_flight_and_numbers_beyond_all_that_were_given_out() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (store(&folder, "old"), store(&folder, "new"));
    fill(&*old).await;
    let file = exported(&*old).await;
    let summary = imported(&*new, &file, false).await.unwrap();
    assert_eq!((summary.stopped, summary.environments), (1, 1));

    schema::check_schema(&*new).await.unwrap();
    let book = Book::load(&*new).await.unwrap();
    assert_eq!(book.plans[&PLAN].0.state, PlanState::Failed);
    assert_eq!(book.lost, [batch()]);
    assert_eq!(book.switches[&prod()].what, SwitchKind::Restore);
    assert!(!book.pointers[&prod()].views_done);
    assert!(book.tables[&batch().table].done.covers(batch().interval));
    assert!(new.range(keys::LEASES).await.unwrap().entries.is_empty());
    assert!(new.get(keys::IMPORTING).await.unwrap().is_none());

    let before = Book::load(&*old).await.unwrap().era.first_token(Revision(1_000_000_000));
    assert!(book.era.first_token(Revision(1)) > before, "a year of lost transactions");
    assert!(before < book.era.floor() && book.era.floor() < book.era.first_token(Revision(1)));
    assert_eq!(Era::default().floor(), 0, "nobody is shut out where nothing was lost");
    assert!(book.era.flips > 4 + 1_000_000 && book.era.first_token(Revision(1 << 33)) < i64::MAX as u64);
    // And once more, from the restored one.
    let third = store(&folder, "third");
    imported(&*third, &exported(&*new).await, false).await.unwrap();
    let again = Book::load(&*third).await.unwrap().era;
    assert!(again.first_token(Revision(1)) > book.era.first_token(Revision(1_000_000_000)));
}

async fn evidence(store: &dyn Store) -> Vec<Evidence> {
    let entries = store.range(keys::EVIDENCE).await.unwrap().entries;
    let entries: Vec<Evidence> = entries.iter().map(|entry| decode(entry).unwrap()).collect();
    let head = Book::load(store).await.unwrap().evidence;
    assert_eq!(broken(&entries, head), None, "{entries:?}");
    entries
}

#[tokio::test]
async fn an_import_is_evidence_of_itself_and_the_chain_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (store(&folder, "old"), store(&folder, "new"));
    fill(&*old).await;
    let first = imported(&*new, &exported(&*old).await, false).await.unwrap();
    let file = exported(&*new).await;
    let second = imported(&*new, &file, true).await.unwrap();
    let all = evidence(&*new).await;
    assert_eq!(all.len(), 2);
    for (entry, summary) in all.iter().zip([first, second]) {
        assert_eq!((entry.deed.by.as_str(), entry.deed.at, summary.broken), ("me", Timestamp(7), None));
        let did = format!("imported the state of revision {}, blake3 {}", summary.revision, summary.blake3);
        assert_eq!(entry.deed.did, did);
        assert!(
            String::from_utf8_lossy(&[exported(&*old).await, file.clone()].concat())
                .contains(&summary.blake3)
        );
    }
    let replaced = format!("a state was replaced whose evidence ended at entry 1, {}", all[0].hash);
    assert_eq!(all[1].deed.checked, ["the evidence of the file is whole: 1 entries", &replaced]);
}

#[tokio::test]
async fn what_is_in_a_store_is_replaced_only_when_told_and_never_under_a_leader_or_a_plan() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (store(&folder, "old"), store(&folder, "new"));
    fill(&*old).await;
    let file = exported(&*old).await;
    let refused = imported(&*old, &file, true).await;
    assert!(matches!(refused, Err(BackupError::UnderWay(plan)) if plan == PLAN), "{refused:?}");

    imported(&*new, &file, false).await.unwrap();
    let refused = imported(&*new, &file, false).await;
    assert!(matches!(refused, Err(BackupError::NotEmpty { .. })), "{refused:?}");
    let first = Book::load(&*new).await.unwrap().era;
    imported(&*new, &file, true).await.unwrap();
    // The store that was replaced may have given out numbers, too.
    assert!(Book::load(&*new).await.unwrap().era.terms > first.terms);

    let lease = new.grant_lease(Duration::from_secs(60)).await.unwrap();
    let lead = Txn::new().put_with_lease(keys::LEAD, encode_json(&"x").unwrap(), lease);
    new.commit(lead).await.unwrap();
    let refused = imported(&*new, &file, true).await;
    assert!(matches!(refused, Err(BackupError::Led)), "{refused:?}");
}

#[tokio::test]
async fn every_damage_to_the_file_is_found_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (store(&folder, "old"), store(&folder, "new"));
    fill(&*old).await;
    let file = exported(&*old).await;
    let mut tries = 0;
    for at in (0..file.len()).step_by(37) {
        let mut damaged = file.clone();
        damaged[at] ^= 4;
        for damaged in [damaged, file[..at].to_vec()] {
            let refused = imported(&*new, &damaged, false).await;
            assert!(refused.is_err(), "byte {at}");
            tries += 1;
        }
    }
    assert!(tries > 50);
    assert!(imported(&*new, &[&file[..], b"\n"].concat(), false).await.is_err());
    assert!(new.range("").await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn a_store_that_an_import_left_half_is_no_state() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (store(&folder, "old"), store(&folder, "new"));
    fill(&*old).await;
    let file = exported(&*old).await;
    let before = new.range(keys::ROOT).await.unwrap();
    let mut load = Load::begin(&*new, &before, &how(false)).await.unwrap();
    load.put(keys::applying(&prod()), encode_json(&PLAN).unwrap()).await.unwrap();
    load.flush().await.unwrap();
    assert!(matches!(schema::check_schema(&*new).await, Err(StoreError::Corrupt { .. })));
    // A second import takes over, and the first one can't go on.
    imported(&*new, &file, true).await.unwrap();
    load.put(keys::applying(&prod()), encode_json(&PLAN).unwrap()).await.unwrap();
    assert!(matches!(load.flush().await, Err(BackupError::Disturbed)));
    schema::check_schema(&*new).await.unwrap();
}

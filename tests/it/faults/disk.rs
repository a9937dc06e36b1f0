//! Stores that have no space left.

use std::time::Duration;

use coord_tests::fleet::{FleetOptions, wait_until};
use coord_tests::small_disk::SmallDisk;

use crate::run::{Run, skipped};

fn small_disk(case: &str, megabytes: u32) -> Option<SmallDisk> {
    match SmallDisk::new(megabytes) {
        Ok(disk) => Some(disk),
        Err(why) => {
            skipped(case, &why);
            None
        }
    }
}

/// Waits until nothing commits any more: what was granted before may still do so.
fn stands_still(run: &Run) -> i64 {
    let mut last = -1;
    wait_until("a stand-still", || {
        std::thread::sleep(Duration::from_millis(2000));
        std::mem::replace(&mut last, run.fleet.committed()) == last
    });
    last
}

#[test]
fn a_full_disk_under_sqlite_stalls_a_plan_until_there_is_space() {
    let Some(disk) = small_disk("disk-sqlite", 8) else { return };
    let state = Some(format!("sqlite:{}", disk.path().join("state.db").display()));
    let mut run = Run::start("disk-sqlite", FleetOptions { state, ..FleetOptions::default() }, 0.3);
    run.fleet.wait_for_commits(2);
    // Its log isn't long yet: what it has written once, it can write again on a full disk.
    disk.fill();
    run.injected.add("disk full");
    let committed = stands_still(&run);
    assert!(committed < run.batches(), "there was nothing left to do");
    assert!(!run.fleet.coordinator.has_ended(), "{}", run.fleet.coordinator.log());
    let log = run.fleet.coordinator.log();
    assert!(log.contains("full"), "the log says why: {log}");
    disk.free();
    run.end();
}

#[test]
fn a_full_disk_under_etcd_stalls_a_plan_until_there_is_space_and_etcd_is_back() {
    let Some(disk) = small_disk("disk-etcd", 192) else { return };
    let options = FleetOptions { etcd_folder: Some(disk.path().join("etcd")), ..FleetOptions::default() };
    let mut run = Run::start("disk-etcd", options, 0.3);
    run.fleet.wait_for_commits(5);
    disk.fill();
    run.injected.add("disk full");
    // It writes into space that it has reserved, until it needs a page more.
    wait_until("the end of etcd", || run.fleet.etcd.put_filler().is_err());
    let committed = stands_still(&run);
    assert!(committed < run.batches(), "there was nothing left to do");
    assert!(!run.fleet.coordinator.has_ended(), "{}", run.fleet.coordinator.log());
    disk.free();
    run.fleet.etcd.restart();
    run.end();
}

#[test]
fn etcd_beyond_its_quota_stalls_a_plan_until_it_is_compacted_and_disarmed() {
    let etcd_arguments = vec!["--quota-backend-bytes=2000000".to_owned()];
    let mut run = Run::start("etcd-quota", FleetOptions { etcd_arguments, ..FleetOptions::default() }, 0.3);
    run.fleet.wait_for_commits(5);
    wait_until("the alarm", || run.fleet.etcd.put_filler().is_err());
    run.injected.add("etcd out of quota");
    let committed = stands_still(&run);
    assert!(committed < run.batches(), "there was nothing left to do");
    let log = run.fleet.coordinator.log();
    assert!(log.contains("disarm"), "the log says what to do: {log}");

    run.fleet.etcd.etcdctl(&["del", "/filler"]);
    let status = run.fleet.etcd.etcdctl(&["endpoint", "status", "--write-out=json"]);
    let status: serde_json::Value = serde_json::from_str(&status).expect("etcdctl's status is JSON");
    let revision = status[0]["Status"]["header"]["revision"].as_i64().expect("a revision");
    run.fleet.etcd.etcdctl(&["compact", &revision.to_string()]);
    run.fleet.etcd.etcdctl(&["defrag"]);
    run.fleet.etcd.etcdctl(&["alarm", "disarm"]);
    run.end();
}

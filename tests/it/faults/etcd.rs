//! Three members of etcd, of which some die or stand still.

use std::time::Duration;

use coord_tests::fleet::{FleetOptions, wait_until};

use crate::run::Run;

fn three_members() -> FleetOptions {
    // A killed process loses nothing that it gave to the kernel, so nothing need wait for the disk.
    FleetOptions { etcd_members: 3, lease_ttl: 10_000, ..FleetOptions::default() }
}

#[test]
fn the_loss_of_a_member_or_of_the_leader_of_etcd_stalls_a_plan_and_no_more() {
    let mut run = Run::start("etcd-member", three_members(), 0.1);
    run.fleet.wait_for_commits(5);
    let leader = run.fleet.etcd.leader();
    let follower = (leader + 1) % 3;
    run.fleet.etcd.kill9_member(follower);
    run.injected.add("etcd member killed");
    run.fleet.wait_for_commits(15);
    run.fleet.etcd.restart_member(follower);
    let leader = run.fleet.etcd.leader();
    run.fleet.etcd.kill9_member(leader);
    run.injected.add("etcd leader killed");
    run.fleet.wait_for_commits(30);
    run.fleet.etcd.restart_member(leader);
    run.end();
}

#[test]
fn a_member_of_etcd_that_stands_still_stalls_a_plan_and_no_more() {
    let mut run = Run::start("etcd-stopped", three_members(), 0.1);
    run.fleet.wait_for_commits(5);
    let leader = run.fleet.etcd.leader();
    let follower = (leader + 1) % 3;
    run.fleet.etcd.stop_member(follower);
    run.injected.add("etcd member stopped");
    run.fleet.wait_for_commits(15);
    run.fleet.etcd.cont_member(follower);
    let leader = run.fleet.etcd.leader();
    run.fleet.etcd.stop_member(leader);
    run.injected.add("etcd leader stopped");
    run.fleet.wait_for_commits(30);
    run.fleet.etcd.cont_member(leader);
    run.end();
}

#[test]
fn etcd_without_a_majority_grants_nothing_and_goes_on_by_itself_once_it_has_one() {
    let mut run = Run::start("etcd-majority", three_members(), 0.1);
    run.fleet.wait_for_commits(10);
    for member in [0, 1] {
        run.fleet.etcd.kill9_member(member);
        run.injected.add("etcd member killed");
    }
    run.injected.add("etcd majority lost");
    // What was granted before may still commit in the warehouse; then nothing does any more.
    let mut last = -1;
    wait_until("a stand-still", || {
        std::thread::sleep(Duration::from_millis(1500));
        std::mem::replace(&mut last, run.fleet.committed()) == last
    });
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(run.fleet.committed(), last, "nothing is granted without a majority");
    assert!(!run.fleet.coordinator.has_ended(), "the coordinator outlives it");
    for member in [0, 1] {
        run.fleet.etcd.restart_member(member);
    }
    run.end();
}

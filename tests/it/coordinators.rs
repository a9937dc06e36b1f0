//! Coordinators and servers that die.

use coord_tests::cli::Cli;
use coord_tests::fleet::{Fleet, FleetOptions, wait_until};
use coord_tests::project::sales;

use crate::workers::{assert_all_is_done_once, start_plan, watch_the_pointer_until_the_end};

#[test]
fn killing_the_coordinator_again_and_again_loses_no_lease_and_no_batch() {
    let mut fleet = Fleet::start(FleetOptions { lease_ttl: 10_000, ..FleetOptions::default() }, sales());
    // Batches longer than a restart: workers are full, and must keep their leases all the same.
    fleet.pause(9.0);
    let id = start_plan(&fleet);
    wait_until("leases", || fleet.leases().len() == 4);
    let before = fleet.leases();
    fleet.coordinator.kill9();
    fleet.coordinator.restart();
    fleet.wait_until_serving();
    assert_eq!(fleet.leases(), before, "leases outlive the coordinator");
    fleet.pause(0.1);
    for kill in [5, 20, 40] {
        fleet.wait_for_commits(kill);
        fleet.coordinator.kill9();
        fleet.coordinator.restart();
        fleet.wait_until_serving();
        assert_eq!(fleet.revision("prod"), None);
    }
    watch_the_pointer_until_the_end(&fleet, &id);
    assert_all_is_done_once(&fleet);
    for worker in &fleet.workers {
        assert!(!worker.log().contains("rolling back"), "{}", worker.log());
        assert!(!worker.log().contains("no longer ours"), "{}", worker.log());
    }
}

#[test]
fn a_coordinator_that_stays_away_longer_than_leases_hold_loses_no_batch() {
    let mut fleet = Fleet::start(FleetOptions { lease_ttl: 600, ..FleetOptions::default() }, sales());
    fleet.pause(0.1);
    let id = start_plan(&fleet);
    fleet.wait_for_commits(10);
    fleet.coordinator.stop();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    fleet.coordinator.cont();
    fleet.wait_for_commits(20);
    fleet.coordinator.kill9();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    fleet.coordinator.restart();
    fleet.wait_until_serving();
    fleet.pause(0.0);
    watch_the_pointer_until_the_end(&fleet, &id);
    assert_all_is_done_once(&fleet);
}

#[test]
fn an_apply_survives_the_restart_of_everything() {
    let options = FleetOptions { fsync: true, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options, sales());
    fleet.pause(0.1);
    let id = start_plan(&fleet);
    fleet.wait_for_commits(15);
    for worker in &mut fleet.workers {
        worker.kill9();
    }
    fleet.coordinator.kill9();
    fleet.etcd.kill9();
    fleet.postgres.restart();
    fleet.etcd.restart();
    fleet.coordinator.restart();
    for worker in &mut fleet.workers {
        worker.restart();
    }
    fleet.wait_until_serving();
    assert_eq!(fleet.revision("prod"), None);
    fleet.pause(0.0);
    watch_the_pointer_until_the_end(&fleet, &id);
    assert_all_is_done_once(&fleet);
}

#[test]
fn a_coordinator_that_is_asked_to_end_does_so_at_once_and_another_goes_on() {
    let mut fleet = Fleet::start(FleetOptions::default(), sales());
    fleet.pause(0.1);
    let id = start_plan(&fleet);
    let follower = fleet.cli().spawn(&["watch", &id]);
    let mut impatient = fleet.cli().spawn(&["watch", &id, "--server-timeout", "2"]);
    fleet.wait_for_commits(10);
    let asked = std::time::Instant::now();
    fleet.coordinator.terminate();
    assert_eq!(fleet.coordinator.exit_code(), Some(0));
    assert!(asked.elapsed().as_secs() < 5, "it took {:?}", asked.elapsed());
    wait_until("the end of the impatient one", || !impatient.is_running());
    let said = impatient.wait();
    assert_eq!(said.code, Some(2), "{said:#?}");
    assert!(said.stderr.contains("waiting for a coordinator"), "{said:#?}");
    assert!(said.stderr.contains("gave up after 2 s"), "{said:#?}");
    fleet.coordinator.restart();
    fleet.wait_until_serving();
    fleet.pause(0.0);
    watch_the_pointer_until_the_end(&fleet, &id);
    let said = follower.wait();
    assert_eq!(said.code, Some(0), "the other one has followed to the end: {said:#?}");
    assert!(said.stderr.contains("a coordinator leads again"), "{said:#?}");
    assert_all_is_done_once(&fleet);
}

#[test]
fn a_crash_of_etcd_stalls_an_apply_and_no_more() {
    let mut fleet = Fleet::start(FleetOptions { fsync: true, ..FleetOptions::default() }, sales());
    fleet.pause(0.1);
    let id = start_plan(&fleet);
    for kill in [8, 25] {
        fleet.wait_for_commits(kill);
        fleet.etcd.kill9();
        std::thread::sleep(std::time::Duration::from_millis(700));
        fleet.etcd.restart();
        fleet.wait_until_serving();
        assert!(!fleet.coordinator.has_ended(), "the coordinator outlives etcd");
    }
    fleet.pause(0.0);
    watch_the_pointer_until_the_end(&fleet, &id);
    assert_all_is_done_once(&fleet);
}

#[test]
fn a_crash_of_the_warehouse_stalls_an_apply_and_no_more() {
    let mut fleet = Fleet::start(FleetOptions { retry_base: 2000, ..FleetOptions::default() }, sales());
    fleet.pause(0.1);
    let id = start_plan(&fleet);
    fleet.wait_for_commits(10);
    fleet.postgres.restart();
    fleet.pause(0.0);
    watch_the_pointer_until_the_end(&fleet, &id);
    assert_all_is_done_once(&fleet);
}

#[test]
fn a_standby_turns_callers_away_until_it_leads_and_then_goes_on() {
    let mut fleet = Fleet::start(FleetOptions::default(), sales());
    fleet.pause(0.1);
    let id = start_plan(&fleet);
    let (standby, address) = fleet.start_standby();
    let listens = address.trim_start_matches("http://").to_owned();
    wait_until("the standby to listen", || std::net::TcpStream::connect(&listens).is_ok());
    let at_the_standby = Cli::at(fleet.project.path(), &address);
    let turned_away = at_the_standby.run(&["environments", "--format", "json", "--server-timeout", "0"]);
    assert_eq!(turned_away.code, Some(2), "{turned_away:#?}");
    let said = turned_away.error()["message"].to_string();
    assert!(said.contains(&format!("another one leads, at {}", fleet.address())), "{said}");
    // With a moment's patience it is followed to the one that leads.
    assert_eq!(at_the_standby.json(&["environments"]), fleet.cli().json(&["environments"]));
    fleet.coordinator.kill9();
    fleet.turn_to(standby, address);
    for worker in &fleet.workers {
        worker.terminate();
    }
    fleet.add_worker(&[]);
    fleet.add_worker(&[]);
    fleet.wait_until_serving();
    fleet.pause(0.0);
    watch_the_pointer_until_the_end(&fleet, &id);
    assert_all_is_done_once(&fleet);
}

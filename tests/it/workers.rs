//! Workers that die, hang or leave.

use coord_tests::cli::plan_id;
use coord_tests::fleet::{Fleet, FleetOptions, wait_until};
use coord_tests::project::sales;

use crate::fleet::{assert_every_interval_is_recorded_once, assert_sales_are_right};

/// Batches of the sales project that log themselves.
pub(crate) const BATCHES: i64 = 61;

/// What must hold after any fault.
pub(crate) fn assert_all_is_done_once(fleet: &Fleet) {
    assert_eq!(fleet.committed_twice(), Vec::<Vec<String>>::new());
    assert_eq!(fleet.committed(), BATCHES);
    assert_sales_are_right(fleet);
    assert_every_interval_is_recorded_once(fleet);
}

/// Makes a plan for prod, and starts it.
pub(crate) fn start_plan(fleet: &Fleet) -> String {
    let id = plan_id(&fleet.cli().plan(&[]));
    fleet.cli().ok(&["apply", &id, "--detach"]);
    id
}

/// Waits for the end of a plan, seeing to it that the pointer never moves before.
pub(crate) fn watch_the_pointer_until_the_end(fleet: &Fleet, id: &str) {
    wait_until("the plan's end", || {
        // In this order: what is seen of the pointer is older than what is seen of the batches.
        let revision = fleet.revision("prod");
        let committed = fleet.committed();
        assert!(
            revision.is_none() || committed >= BATCHES,
            "the pointer moved after {committed} of {BATCHES} batches"
        );
        let state = fleet.plan_state(id);
        assert!(state == "applying" || state == "promoting" || state == "finished", "the plan is {state}");
        state == "finished"
    });
    assert_eq!(fleet.revision("prod"), Some(1));
}

#[test]
fn killing_workers_again_and_again_changes_nothing_about_the_result() {
    let options = FleetOptions { workers: 3, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options, sales());
    fleet.pause(0.15);
    let id = start_plan(&fleet);
    for (kill, victim) in [(3, 0), (12, 1), (25, 2), (35, 0)] {
        fleet.wait_for_commits(kill);
        // A batch that was lost three times would count as one that takes its workers down.
        fleet.wait_until_losses_are_made_good(&id);
        fleet.workers[victim].kill9();
        assert_eq!(fleet.revision("prod"), None);
        fleet.workers[victim].restart();
    }
    fleet.pause(0.0);
    watch_the_pointer_until_the_end(&fleet, &id);
    assert_all_is_done_once(&fleet);
}

#[test]
fn a_worker_stopped_beyond_its_lease_writes_nothing_when_it_wakes() {
    let options = FleetOptions { workers: 1, slots: 1, lease_ttl: 600, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options, sales());
    let id = start_plan(&fleet);
    fleet.wait_for_commits(3);
    fleet.pause(0.4);
    wait_until("a batch under way", || fleet.busy_sessions() > 0);
    fleet.workers[0].stop();
    let committed = fleet.committed();
    fleet.add_worker(&[]);
    // Its lease expires, and the other worker does the same batch again, as it is the oldest.
    fleet.wait_for_commits(committed + 4);
    fleet.workers[0].cont();
    fleet.pause(0.0);
    watch_the_pointer_until_the_end(&fleet, &id);
    assert_all_is_done_once(&fleet);
    wait_until("the word that its lease was lost", || {
        let log = fleet.workers[0].log();
        log.contains("rolling back") || log.contains("no longer ours")
    });
}

#[test]
fn a_draining_worker_finishes_short_batches_and_hands_long_ones_back() {
    let options = FleetOptions { workers: 1, slots: 2, lease_ttl: 30_000, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options, sales());
    fleet.pause(0.3);
    let id = start_plan(&fleet);
    fleet.wait_for_commits(2);
    wait_until("batches under way", || fleet.busy_sessions() == 2);
    let before = fleet.committed();
    fleet.workers[0].terminate();
    assert_eq!(fleet.workers[0].exit_code(), Some(0));
    assert_eq!(fleet.leases(), Vec::<String>::new(), "nothing stays leased to a worker that has left");
    assert!(fleet.committed() > before, "what was under way is finished");
    assert!(!fleet.workers[0].log().contains("handing leases back"));

    let slow = fleet.add_worker(&["--grace=1"]);
    fleet.pause(60.0);
    wait_until("batches under way", || fleet.busy_sessions() == 2);
    let committed = fleet.committed();
    fleet.workers[slow].terminate();
    assert_eq!(fleet.workers[slow].exit_code(), Some(0));
    assert!(fleet.workers[slow].log().contains("handing leases back"));
    assert_eq!(fleet.committed(), committed, "what was handed back is rolled back");
    assert_eq!(fleet.busy_sessions(), 0, "and no longer runs in the warehouse");
    assert_eq!(fleet.leases(), Vec::<String>::new());
    // Nobody waits for the leases' half a minute, and handing back counts as no attempt.
    fleet.pause(0.02);
    let last = fleet.add_worker(&[]);
    watch_the_pointer_until_the_end(&fleet, &id);
    assert_all_is_done_once(&fleet);
    assert!(!fleet.workers[last].log().contains("attempt"), "{}", fleet.workers[last].log());
}

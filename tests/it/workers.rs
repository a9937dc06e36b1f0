//! Workers that die, hang or leave.

use coord_tests::cli::plan_id;
use coord_tests::fleet::{Fleet, FleetOptions, wait_until};
use coord_tests::project::sales;

use crate::fleet::{assert_every_interval_is_recorded_once, assert_sales_are_right};

/// Waits for the end of a plan, seeing to it that the pointer never moves before.
pub(crate) fn watch_the_pointer_until_the_end(fleet: &Fleet, id: &str, batches: i64) {
    wait_until("the plan's end", || {
        // In this order: what is seen of the pointer is older than what is seen of the batches.
        let revision = fleet.revision("prod");
        let committed = fleet.committed();
        assert!(
            revision.is_none() || committed >= batches,
            "the pointer moved after {committed} of {batches} batches"
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
    let id = plan_id(&fleet.cli().plan(&[]));
    fleet.cli().ok(&["apply", &id, "--detach"]);
    for (kill, victim) in [(3, 0), (12, 1), (25, 2), (35, 0)] {
        fleet.wait_for_commits(kill);
        fleet.workers[victim].kill9();
        assert_eq!(fleet.revision("prod"), None);
        fleet.workers[victim].restart();
    }
    fleet.pause(0.0);
    watch_the_pointer_until_the_end(&fleet, &id, 61);
    assert_eq!(fleet.committed_twice(), Vec::<Vec<String>>::new());
    assert_eq!(fleet.committed(), 61);
    assert_sales_are_right(&fleet);
    assert_every_interval_is_recorded_once(&fleet);
}

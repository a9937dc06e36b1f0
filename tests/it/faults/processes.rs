//! Workers and coordinators that die or stand still, at any moment.

use std::time::Duration;

use coord_tests::faults::Dice;
use coord_tests::fleet::FleetOptions;

use crate::run::Run;

#[test]
fn workers_killed_and_stopped_at_random_moments_lose_nothing() {
    let options = FleetOptions { workers: 3, lease_ttl: 1000, ..FleetOptions::default() };
    let mut run = Run::start("workers", options, 0.1);
    let mut dice = Dice::new(1);
    for commits in [3, 12, 22, 32, 42] {
        run.fleet.wait_for_commits(commits);
        run.fleet.wait_until_losses_are_made_good(&run.id);
        std::thread::sleep(Duration::from_millis(dice.roll(150) as u64));
        let victim = dice.roll(3);
        if dice.roll(2) == 0 {
            run.fleet.workers[victim].kill9();
            run.fleet.workers[victim].restart();
            run.injected.add("worker killed");
        } else {
            run.fleet.workers[victim].stop();
            // Longer than its leases hold.
            std::thread::sleep(Duration::from_millis(1500));
            run.fleet.workers[victim].cont();
            run.injected.add("worker stopped");
        }
    }
    run.end();
}

#[test]
fn a_coordinator_killed_and_stopped_at_random_moments_loses_nothing() {
    let mut run = Run::start("coordinator", FleetOptions::default(), 0.1);
    let mut dice = Dice::new(2);
    for commits in [2, 11, 20, 29, 38, 47] {
        run.fleet.wait_for_commits(commits);
        std::thread::sleep(Duration::from_millis(dice.roll(150) as u64));
        if dice.roll(2) == 0 {
            run.fleet.coordinator.kill9();
            run.fleet.coordinator.restart();
            run.injected.add("coordinator killed");
        } else {
            run.fleet.coordinator.stop();
            // Longer than it leads without a heartbeat of its own.
            std::thread::sleep(Duration::from_millis(2500));
            run.fleet.coordinator.cont();
            run.injected.add("coordinator stopped");
        }
    }
    run.end();
}

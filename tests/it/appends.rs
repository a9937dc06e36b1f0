//! Rows that are added, while workers die.

use coord_tests::fleet::{Fleet, FleetOptions};
use coord_tests::project::{logged, sales};

use crate::workers::start_plan;

/// The sales project with a model that adds rows.
fn with_appends() -> coord_tests::project::Project {
    let project = sales();
    project.write(
        "models/added.sql",
        &format!(
            "MODEL (name shop.added, kind INCREMENTAL_UNMANAGED);\n\nSELECT day, item, amount FROM shop.events WHERE day BETWEEN @start_date AND @end_date{}",
            logged("added")
        ),
    );
    project
}

#[test]
fn killing_workers_never_adds_rows_twice() {
    let options = FleetOptions { workers: 2, lease_ttl: 600, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options, with_appends());
    fleet.pause(0.2);
    let id = start_plan(&fleet);
    for round in 0..6 {
        fleet.wait_for_commits(1 + round * 4);
        let victim = (round % 2) as usize;
        fleet.workers[victim].kill9();
        fleet.workers[victim].restart();
    }
    fleet.pause(0.0);
    coord_tests::fleet::wait_until("the plan's end", || fleet.plan_state(&id) == "finished");
    let rows = fleet.count("SELECT COUNT(*) FROM shop.added");
    assert_eq!(rows, fleet.count("SELECT COUNT(*) FROM shop.events WHERE day < NOW()"));
    assert_eq!(fleet.committed_twice(), Vec::<Vec<String>>::new());
}

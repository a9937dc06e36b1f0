//! Rows that are added, while workers die.

use coord_tests::fleet::{Fleet, FleetOptions, wait_until};
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

/// Sessions that are in the middle of adding rows.
const ADDING: &str = "SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'active' \
     AND query LIKE '%batch\\_log SELECT ''added''%' AND pid <> PG_BACKEND_PID()";
/// Commits of added rows.
const ADDED: &str = "SELECT COUNT(*) FROM public.batch_log WHERE model = 'added'";

#[test]
fn killing_workers_never_adds_rows_twice() {
    let options = FleetOptions { workers: 2, lease_ttl: 1000, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options, with_appends());
    fleet.pause(0.2);
    let id = start_plan(&fleet);
    wait_until("rows that are being added", || fleet.count(ADDING) > 0);
    fleet.crash_workers(&[0, 1]);
    // The second time, the rows are committed, while the coordinator may not know of it yet.
    wait_until("rows that are added", || fleet.count(ADDED) > 0);
    fleet.crash_workers(&[0, 1]);
    for round in 1..6 {
        fleet.wait_for_commits(1 + round * 4);
        fleet.wait_until_losses_are_made_good(&id);
        fleet.crash_workers(&[(round % 2) as usize]);
    }
    fleet.pause(0.0);
    fleet.wait_until_finished(&id);
    let rows = fleet.count("SELECT COUNT(*) FROM shop.added");
    assert_eq!(rows, fleet.count("SELECT COUNT(*) FROM shop.events WHERE day < NOW()"));
    assert_eq!(fleet.committed_twice(), Vec::<Vec<String>>::new());
}

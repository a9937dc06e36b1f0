//! A warehouse that restarts in the middle, and connections that break at the commit.

use std::net::Ipv4Addr;

use coord_tests::fleet::{FleetOptions, wait_until};
use coord_tests::project::Project;
use coord_tests::proxy::{Cut, Proxy};

use crate::run::Run;

#[test]
fn restarts_of_the_warehouse_in_the_middle_stall_a_plan_and_no_more() {
    let options = FleetOptions { retry_base: 2000, ..FleetOptions::default() };
    let mut run = Run::start("warehouse-restart", options, 0.1);
    for commits in [5, 25] {
        run.fleet.wait_for_commits(commits);
        run.fleet.postgres.restart();
        run.injected.add("warehouse restarted");
    }
    run.end();
}

#[test]
fn a_connection_that_breaks_at_the_commit_leaves_each_batch_written_once() {
    let options = FleetOptions { workers: 0, ..FleetOptions::default() };
    let mut run = Run::start("commit-cut", options, 0.0);
    let proxy = Proxy::to(run.fleet.postgres.port(), Ipv4Addr::LOCALHOST.into());
    proxy.cut(&[Cut::After, Cut::Before, Cut::After, Cut::After, Cut::Before, Cut::Before, Cut::After]);
    let config = Project::new(&[]);
    config.config_of_postgres_at("127.0.0.1", proxy.address().port(), "concurrent_tasks: 4");
    let address = run.fleet.address().to_owned();
    run.fleet.add_worker_within(&[], &address, config.path());
    wait_until("the cuts", || proxy.done() == 7);
    run.injected.add_some("commit cut", 7);
    run.end();
}

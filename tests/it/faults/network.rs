//! Networks that lose what is sent, one way or both, without a word.

use coord_tests::fleet::{FleetOptions, wait_until};
use coord_tests::namespace::{Lost, Namespace};
use coord_tests::project::Project;
use coord_tests::proxy::Proxy;

use crate::run::{Run, skipped};

/// A plan on one worker in a network of its own, and what must stay there for it to be reached.
struct Apart {
    run: Run,
    network: Namespace,
    _ways: (Proxy, Proxy, Project),
}

fn apart(case: &'static str, options: FleetOptions) -> Option<Apart> {
    let network = match Namespace::new() {
        Ok(network) => network,
        Err(why) => {
            skipped(case, &why);
            return None;
        }
    };
    let mut run = Run::start(case, FleetOptions { workers: 0, ..options }, 0.15);
    let port = run.fleet.address().rsplit(':').next().and_then(|port| port.parse().ok());
    let coordinator = Proxy::to(port.expect("an address ends with its port"), network.first().into());
    let warehouse = Proxy::to(run.fleet.postgres.port(), network.second().into());
    let config = Project::new(&[]);
    let host = network.second().to_string();
    config.config_of_postgres_at(&host, warehouse.address().port(), "concurrent_tasks: 4");
    let address = format!("http://{}", coordinator.address());
    run.fleet.add_worker_within(&network.within(), &address, config.path());
    Some(Apart { run, network, _ways: (coordinator, warehouse, config) })
}

/// Loses packets in the middle of a batch until the worker has noticed and another one has gone on.
fn lose(mut apart: Apart, lost: &[Lost], what: &'static str, says: &str) {
    let fleet = &mut apart.run.fleet;
    fleet.wait_for_commits(4);
    // Longer than a lease holds.
    fleet.pause(3.0);
    fleet.wait_for_commits(fleet.committed() + 2);
    wait_until("a batch under way", || fleet.busy_sessions() > 0);
    for lost in lost {
        apart.network.cut(*lost);
    }
    apart.run.injected.add(what);
    wait_until("the worker to notice", || fleet.workers[0].log().contains(says));
    fleet.add_worker(&[]);
    fleet.pause(0.05);
    fleet.wait_for_commits(fleet.committed() + 8);
    apart.network.heal();
    apart.run.end();
}

fn quick() -> FleetOptions {
    FleetOptions { lease_ttl: 1000, ..FleetOptions::default() }
}

#[test]
fn a_worker_that_is_cut_off_lets_go_and_another_goes_on() {
    if let Some(apart) = apart("network-both-ways", quick()) {
        let lost = [Lost::ToFirst, Lost::ToSecond, Lost::Back];
        lose(apart, &lost, "network cut", "no heartbeat was answered in time");
    }
}

#[test]
fn a_worker_whose_requests_get_lost_lets_go_and_another_goes_on() {
    if let Some(apart) = apart("network-requests", quick()) {
        lose(apart, &[Lost::ToFirst], "network cut one way", "no heartbeat was answered in time");
    }
}

#[test]
fn a_worker_that_hears_no_answers_lets_go_and_another_goes_on() {
    if let Some(apart) = apart("network-answers", quick()) {
        lose(apart, &[Lost::Back], "network cut one way", "no heartbeat was answered in time");
    }
}

#[test]
fn a_worker_that_loses_only_its_warehouse_stops_in_time_and_another_goes_on() {
    let worker_arguments = vec!["--batch-timeout=6".to_owned()];
    if let Some(apart) = apart("network-warehouse", FleetOptions { worker_arguments, ..quick() }) {
        lose(apart, &[Lost::ToSecond], "network cut one way", "took longer than 6s and was stopped");
    }
}

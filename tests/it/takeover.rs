//! Several coordinators, of which one after the other dies.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use coord_tests::cli::{Cli, plan_id};
use coord_tests::fleet::{Fleet, FleetOptions, wait_until};
use coord_tests::project::{Project, logged, sales};
use coordinator::store::{self, Store, StoreUrl, keys};

use crate::workers::{assert_all_is_done_once, watch_the_pointer_until_the_end};

fn three(lease_ttl: u64) -> FleetOptions {
    FleetOptions { coordinators: 3, lease_ttl, ..FleetOptions::default() }
}

#[test]
fn coordinators_killed_one_after_the_other_lose_no_lease_and_an_apply_goes_on_to_its_end() {
    let mut fleet = Fleet::start(three(20_000), sales());
    fleet.pause(0.4);
    let id = plan_id(&fleet.cli().plan(&[]));
    let apply = fleet.cli().spawn(&["apply", &id, "--format", "json"]);
    fleet.wait_for_commits(1);
    let watch = fleet.cli().spawn(&["watch", &id]);
    let mut led = BTreeSet::new();
    for commits in [4, 14, 26, 40] {
        fleet.wait_for_commits(commits);
        let leader = fleet.leader();
        led.insert(leader);
        fleet.coordinator_at(leader).kill9();
        wait_until("another leader", || fleet.leader() != leader);
        fleet.coordinator_at(leader).restart();
        assert_eq!(fleet.revision("prod"), None);
    }
    assert!(led.len() > 1, "more than one of them has led: {led:?}");
    fleet.pause(0.0);
    watch_the_pointer_until_the_end(&fleet, &id);
    for follower in [apply, watch] {
        let said = follower.wait();
        assert_eq!(said.code, Some(0), "{said:#?}");
    }
    assert_all_is_done_once(&fleet);
    for worker in &fleet.workers {
        assert!(!worker.log().contains("rolling back"), "{}", worker.log());
        assert!(!worker.log().contains("no longer ours"), "{}", worker.log());
    }
}

#[test]
fn a_leader_that_was_stopped_changes_nothing_when_it_wakes_up_and_points_to_the_new_one() {
    let mut fleet = Fleet::start(three(20_000), sales());
    fleet.pause(0.3);
    let id = plan_id(&fleet.cli().plan(&[]));
    let apply = fleet.cli().spawn(&["apply", &id]);
    fleet.wait_for_commits(6);
    let old = fleet.leader();
    fleet.coordinator_at(old).stop();
    wait_until("another leader", || fleet.leader() != old);
    let seen = fleet.committed();
    fleet.wait_for_commits(seen + 6);
    let new = fleet.leader();
    fleet.coordinator_at(old).cont();
    let at_the_old = Cli::at(fleet.project.path(), &fleet.coordinator_address(old));
    let document = at_the_old.json(&["environments"]);
    assert_eq!(document, fleet.cli().json(&["environments"]), "it sends its callers on");
    let alone = at_the_old.run(&["environments", "--server-timeout", "0"]);
    assert_eq!(alone.code, Some(2), "{alone:#?}");
    assert!(alone.stderr.contains(&fleet.coordinator_address(new)), "{alone:#?}");
    assert_eq!(fleet.leader(), new);
    fleet.pause(0.0);
    watch_the_pointer_until_the_end(&fleet, &id);
    let said = apply.wait();
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert_all_is_done_once(&fleet);
}

/// Days of one model, each a batch.
fn days() -> Project {
    let project = Project::new(&[]);
    project.write(
        "models/days.sql",
        &format!(
            "MODEL (name shop.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1), start '2021-01-01');\n\nSELECT @start_date AS day, 1 AS n{}",
            logged("days")
        ),
    );
    project
}

/// What the state says of one takeover.
struct Looks {
    runtime: tokio::runtime::Runtime,
    store: std::sync::Arc<dyn Store>,
}

impl Looks {
    fn at(fleet: &Fleet) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let url = StoreUrl::parse(&fleet.etcd.url("test")).expect("a URL");
        let store = runtime.block_on(store::open(&url)).expect("etcd runs");
        Self { runtime, store }
    }

    fn term(&self) -> Option<i64> {
        let lead = self.runtime.block_on(self.store.get(keys::LEAD)).expect("etcd answers");
        lead.map(|entry| entry.create_revision.0)
    }

    /// Tokens of the leases on record.
    fn tokens(&self) -> BTreeSet<u64> {
        let leases = self.runtime.block_on(self.store.range(keys::LEASES)).expect("etcd answers");
        let token = |key: &str| key.rsplit('/').next().and_then(|token| token.parse().ok());
        leases.entries.iter().filter_map(|entry| token(&entry.key)).collect()
    }

    /// The revision of the last commit of a batch.
    fn last_commit(&self) -> i64 {
        let tables = self.runtime.block_on(self.store.range(keys::INTERVALS)).expect("etcd answers");
        tables.entries.iter().map(|entry| entry.mod_revision.0).max().unwrap_or(0)
    }
}

#[test]
#[ignore = "takes minutes: measures takeovers and prints what docs/reliability.md has"]
fn takeover_times() {
    let tries: usize = std::env::var("TRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let options = FleetOptions { election_ttl: 10_000, slots: 4, ..three(30_000) };
    let mut fleet = Fleet::start(options, days());
    // Some end while nobody leads, others go on longer than that.
    fleet.pause(6.0);
    let looks = Looks::at(&fleet);
    let id = plan_id(&fleet.cli().plan(&[]));
    let apply = fleet.cli().spawn(&["apply", &id]);
    let (mut took, mut at_kill) = (Vec::new(), BTreeSet::new());
    for n in 0..tries {
        let seen = fleet.committed();
        fleet.wait_for_commits(seen + 10);
        wait_until("full slots", || looks.tokens().len() >= 8);
        let (leader, term) = (fleet.leader(), looks.term().expect("somebody leads"));
        fleet.coordinator_at(leader).kill9();
        let killed = Instant::now();
        at_kill.extend(looks.tokens());
        let next = loop {
            match looks.term() {
                Some(next) if next != term => break next,
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let elected = killed.elapsed();
        let granted = |token: &u64| (token >> 20) as i64 >= next;
        while !looks.tokens().iter().any(granted) && looks.last_commit() <= next {
            std::thread::sleep(Duration::from_millis(5));
        }
        took.push(killed.elapsed());
        println!(
            "try {n}: elected after {elected:.2?}, first grant or commit after {:.2?}",
            killed.elapsed()
        );
        fleet.coordinator_at(leader).restart();
    }
    fleet.pause(0.0);
    let said = apply.wait();
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert_eq!(fleet.committed_twice(), Vec::<Vec<String>>::new());
    let list = at_kill.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let fence = fleet.sql("SELECT table_schema FROM information_schema.tables WHERE table_name = '_fence'");
    let adopted =
        fleet.count(&format!("SELECT COUNT(*) FROM {}._fence WHERE tok IN ({list})", fence[0][0])) as usize;
    took.sort_unstable();
    println!(
        "{tries} takeovers: median {:.2?}, max {:.2?}; {} leases ran at a kill: {adopted} adopted, {} redone",
        took[tries / 2],
        took[tries - 1],
        at_kill.len(),
        at_kill.len() - adopted
    );
    assert!(took[tries - 1] < Duration::from_secs(20), "twice the time to live of leadership");
}

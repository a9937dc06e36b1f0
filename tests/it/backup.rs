//! The state in a file: exported, lost, imported; and moved from one kind of store to the other.

use coord_tests::cli::{Cli, plan_id};
use coord_tests::fleet::{Fleet, FleetOptions, wait_until};
use coord_tests::project::{Project, daily, logged, sales};

use crate::fleet::{assert_every_interval_is_recorded_once, assert_sales_are_right};
use crate::workers::{start_plan, watch_the_pointer_until_the_end};

/// `coordctl` on the fleet's store itself.
fn at_the_store(fleet: &Fleet) -> Cli {
    Cli::embedded(fleet.project.path()).env("COORDCTL_STATE", &fleet.state_url())
}

/// Ends the coordinator in order: nobody leads any more.
fn end_coordinator(fleet: &mut Fleet) {
    fleet.coordinator.terminate();
    assert_eq!(fleet.coordinator.exit_code(), Some(0));
}

fn code(cli: &Cli, arguments: &[&str]) -> String {
    let refused = cli.run(&[arguments, &["--format", "json"]].concat());
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    refused.error()["code"].as_str().unwrap_or_default().to_owned()
}

fn greatest_token(fleet: &Fleet) -> i64 {
    fleet.count("SELECT MAX(tok) FROM coordctl._fence")
}

#[test]
fn a_lost_store_is_restored_and_a_worker_of_the_lost_time_can_not_commit() {
    let mut fleet = Fleet::start(FleetOptions::default(), sales());
    fleet.pause(0.1);
    let id = start_plan(&fleet);
    fleet.wait_for_commits(10);
    // While the coordinator leads and batches run.
    let store = at_the_store(&fleet);
    let file = fleet.project.path().join("state.export").display().to_string();
    store.ok(&["state", "export", &file]);
    fleet.wait_for_commits(25);
    // Longer batches, so that each worker is in the middle of one when all is lost.
    fleet.pause(2.0);
    let asleep = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND NOW() - query_start > INTERVAL '300 ms'";
    wait_until("long batches", || fleet.count(asleep) == 4);
    fleet.workers[0].stop();
    fleet.coordinator.kill9();
    fleet.workers[1].kill9();
    fleet.etcd.lose_data();
    let before = greatest_token(&fleet);
    let open = fleet.sql("SELECT slot FROM coordctl._fence WHERE done = 0");
    assert!(open.len() >= 4, "{open:?}");
    let open = open.iter().map(|row| format!("'{}'", row[0])).collect::<Vec<_>>().join(", ");

    store.ok(&["state", "import", &file]);
    assert_eq!(code(&store, &["state", "import", &file]), "state-not-empty");
    fleet.coordinator.restart();
    fleet.wait_until_serving();
    assert_eq!(fleet.plan_state(&id), "failed", "it was under way");
    fleet.pause(0.0);
    fleet.workers[1].restart();
    fleet.cli().ok(&["apply", &id, "--detach"]);
    let first = greatest_token(&fleet);
    wait_until("a token of the restored state", || greatest_token(&fleet) > before);
    assert!(first == before || first > before + (1 << 50), "{first} after {before}");
    // Its batch has long been granted anew.
    fleet.workers[0].cont();
    watch_the_pointer_until_the_end(&fleet, &id);
    // What was committed in the lost time is computed once more, in place.
    assert_sales_are_right(&fleet);
    assert_every_interval_is_recorded_once(&fleet);
    let late = format!(
        "SELECT COUNT(*) FROM coordctl._fence WHERE slot IN ({open}) AND done BETWEEN 1 AND {before}"
    );
    assert_eq!(fleet.count(&late), 0, "nothing of what was open at the loss was committed by its old token");
}

#[test]
fn a_worker_of_the_lost_time_writes_nothing_though_batches_are_cut_otherwise_now() {
    let days = format!(
        "MODEL (name m.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 4));\n\nSELECT d::DATE AS day FROM GENERATE_SERIES(@start_date, @end_date, INTERVAL '1 day') AS g(d){}",
        logged("days")
    );
    // Its own clock wouldn't keep the one that sleeps from going on.
    let options = FleetOptions { workers: 1, lease_ttl: 120_000, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options, Project::new(&[("models/days.sql", &days)]));
    let store = at_the_store(&fleet);
    let file = fleet.project.path().join("state.export").display().to_string();
    let exported = store.json(&["state", "export", &file]);
    fleet.pause(2.0);
    let id = plan_id(&fleet.cli().plan(&["dev"]));
    fleet.cli().ok(&["apply", &id, "--detach"]);
    let asleep = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until("two batches", || fleet.count(asleep) == 2);
    fleet.workers[0].stop();
    let before = greatest_token(&fleet);
    let open = fleet.count("SELECT COUNT(*) FROM coordctl._fence WHERE done = 0");
    let done = fleet.count("SELECT COUNT(*) FROM coordctl._fence WHERE done > 0");
    assert!(open >= 2, "{open}");
    fleet.coordinator.kill9();
    fleet.etcd.lose_data();

    store.ok(&["state", "import", &file]);
    fleet.coordinator.restart();
    fleet.wait_until_serving();
    fleet.pause(0.0);
    fleet.add_worker(&[]);
    // The state knows nothing of the plan: the next one cuts the same table otherwise.
    fleet.project.write("models/days.sql", &days.replace("batch_size 4", "batch_size 3"));
    let id = plan_id(&fleet.cli().plan(&["dev"]));
    fleet.cli().ok(&["apply", &id]);
    fleet.workers[0].cont();
    let registered = || fleet.workers[0].log().matches("registered").count();
    wait_until("the one that slept", || registered() == 2);
    let old = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name LIKE 'coordctl:%' AND state LIKE '%transaction%'";
    wait_until("its attempts' end", || fleet.count(old) == 0);
    let rows = fleet.sql("SELECT COUNT(*), COUNT(DISTINCT day), MIN(day)::TEXT FROM m__dev.days");
    assert_eq!(rows, [["40", "40", "2024-01-01"]]);
    let tables = "SELECT COUNT(DISTINCT owner) FROM coordctl._fence WHERE owner LIKE 'm.days@%'";
    assert_eq!(fleet.count(tables), 1, "both wrote to one table");
    let late = format!("SELECT COUNT(*) FROM coordctl._fence WHERE done BETWEEN 1 AND {before}");
    assert_eq!(fleet.count(&late), done, "nothing more was committed under an old token");
    assert!(greatest_token(&fleet) > before + (1 << 50));

    let evidence = fleet.cli().json(&["history", "--all"]);
    let entries = evidence["history"].as_array().cloned().unwrap_or_default();
    let imported = entries.last().cloned().unwrap_or_default();
    assert_eq!((&evidence["whole"], &imported["seq"]), (&true.into(), &1.into()), "{evidence}");
    let (did, hash) = (imported["did"].as_str().unwrap_or_default(), exported["blake3"].as_str());
    assert!(did.starts_with("imported the state of revision"), "{imported}");
    assert!(hash.is_some_and(|hash| hash.len() == 64 && did.ends_with(hash)), "{imported} {exported}");
}

#[test]
fn a_state_moves_from_sqlite_to_etcd_and_views_follow_it_back() {
    let mut fleet = Fleet::start(FleetOptions::default(), sales());
    end_coordinator(&mut fleet);
    // Everything begins on one machine, in a file.
    let now = FleetOptions::default().now;
    let embedded = Cli::embedded(fleet.project.path()).now(&now);
    embedded.plan_and_apply(&[]);
    let file = fleet.project.path().join("state.export").display().to_string();
    embedded.ok(&["state", "export", &file]);
    let columns = "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = 'shop' AND table_name = 'daily'";
    assert_eq!(fleet.count(columns), 3);
    fleet.project.write("models/daily.sql", &daily(", COUNT(*)::INT AS sales"));
    embedded.plan_and_apply(&[]);
    assert_eq!(fleet.count(columns), 4);
    let right = fleet.digest("shop.daily");

    // The fleet's store has the mark of the coordinator that ran on it.
    let store = at_the_store(&fleet);
    assert_eq!(code(&store, &["state", "import", &file]), "state-not-empty");
    store.ok(&["state", "import", "--force", &file]);
    fleet.coordinator.restart();
    fleet.wait_until_serving();
    wait_until("the views to follow", || fleet.count(columns) == 3);
    assert_eq!(fleet.revision("prod"), Some(1), "flips count on in the state");
    assert_eq!(code(&store, &["state", "import", "--force", &file]), "state-in-use");

    // What was lost is planned and applied again: its tables are in the warehouse already.
    let cli = fleet.cli();
    wait_until("the environment to be free", || {
        let id = plan_id(&cli.plan(&[]));
        cli.run(&["apply", &id]).code == Some(0)
    });
    assert_eq!((fleet.count(columns), fleet.revision("prod")), (4, Some(2)));
    assert_eq!(fleet.digest("shop.daily"), right);

    // And back into a file.
    let again = fleet.project.path().join("again.export").display().to_string();
    store.ok(&["state", "export", &again]);
    end_coordinator(&mut fleet);
    embedded.ok(&["state", "import", "--force", &again]);
    embedded.ok(&["janitor"]);
    fleet.project.write("models/daily.sql", &daily(""));
    embedded.plan_and_apply(&[]);
    assert_eq!(fleet.count(columns), 3);
}

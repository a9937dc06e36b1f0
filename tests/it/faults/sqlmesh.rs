//! Three failures that SQLMesh doesn't recover from by itself, here: killed while it switches 200
//! views (76 of them were switched), two applies eight seconds apart (58 rows were doubled), and a
//! restatement that was killed (nobody knew of it any more).

use std::time::Duration;

use coord_tests::aftermath::{Aftermath, Sentinel};
use coord_tests::cli::plan_id;
use coord_tests::faults::Injected;
use coord_tests::fleet::{Fleet, FleetOptions, query_dsn};
use coord_tests::project::{Project, logged, sales};

use crate::run::{Run, undisturbed_run_of, wait_patiently};

const VIEWS: usize = 200;

fn show(project: &Project, value: u32) {
    for n in 0..VIEWS {
        let text = format!("MODEL (name many.v{n}, kind VIEW);\n\nSELECT {value} AS v");
        project.write(&format!("models/v{n}.sql"), &text);
    }
}

#[test]
fn two_hundred_views_switch_together_whatever_is_killed_meanwhile() {
    let project = Project::new(&[]);
    show(&project, 1);
    let mut fleet = Fleet::start(FleetOptions { lease_ttl: 3000, ..FleetOptions::default() }, project);
    fleet.cli().plan_and_apply(&[]);
    show(&fleet.project, 2);
    let views: Vec<String> = (0..VIEWS).map(|n| format!("SELECT v FROM many.v{n}")).collect();
    let sum = format!("SELECT SUM(v) FROM ({}) AS shown", views.join(" UNION ALL "));
    let reader = Sentinel::watch(fleet.postgres.dsn(), sum.clone(), |rows| match rows[0][0].as_str() {
        "200" | "400" => Ok(()),
        mix => Err(format!("{mix} is a mix of views")),
    });
    let id = plan_id(&fleet.cli().plan(&[]));
    let mut injected = Injected::default();
    // Who reads one of the last views keeps it from being switched while others have been.
    let dsn = fleet.postgres.dsn();
    let slow = std::thread::spawn(move || {
        let until = "DO $$ BEGIN FOR n IN 1..2400 LOOP EXIT WHEN TO_REGCLASS('public.go') IS NOT NULL; \
             PERFORM PG_SLEEP(0.05); END LOOP; END $$";
        query_dsn(&dsn, &format!("BEGIN; SELECT v FROM many.v150; {until}; COMMIT")).map(drop)
    });
    fleet.cli().ok(&["apply", &id, "--detach"]);
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'coordctl%'";
    for _ in 0..2 {
        wait_patiently("a switch under way", || fleet.count(waiting) > 0);
        for worker in &mut fleet.workers {
            worker.kill9();
        }
        fleet.coordinator.kill9();
        injected.add_some("worker killed", 2);
        injected.add("coordinator killed");
        let left = "SELECT COUNT(PG_TERMINATE_BACKEND(pid)) FROM pg_stat_activity WHERE application_name LIKE 'coordctl%'";
        fleet.sql(left);
        fleet.coordinator.restart();
        for worker in &mut fleet.workers {
            worker.restart();
        }
        fleet.wait_until_serving();
        assert_eq!(fleet.plan_state(&id), "promoting");
    }
    fleet.sql("CREATE TABLE public.go ()");
    slow.join().expect("the reader ends").expect("it could read");
    fleet.wait_until_finished(&id);
    assert_eq!(fleet.sql(&sum), [["400"]]);
    assert!(reader.end() > 0);
    assert_eq!(fleet.leases(), Vec::<String>::new());
    injected.survived("views");
}

/// Sales, and a model that adds rows without replacing any.
fn with_appends() -> Project {
    let project = sales();
    project.write(
        "models/appended.sql",
        &format!(
            "MODEL (name shop.appended, kind INCREMENTAL_UNMANAGED);\n\nSELECT day, item, amount FROM shop.events WHERE day BETWEEN @start_date AND @end_date{}",
            logged("appended")
        ),
    );
    project
}

#[test]
fn two_applies_eight_seconds_apart_write_each_row_once() {
    let undisturbed = undisturbed_run_of(with_appends());
    let fleet = Fleet::start(FleetOptions::default(), with_appends());
    let mut run = Run::start_of(7, "two-applies", fleet, undisturbed, 0.7);
    std::thread::sleep(Duration::from_secs(8));
    assert!(run.fleet.committed() < run.batches(), "the first one is under way");
    let same = run.fleet.cli().spawn(&["apply", &run.id]);
    let another = run.fleet.cli().spawn(&["plan", "--auto-apply", "--no-prompts"]);
    run.injected.add_some("second apply", 2);
    std::thread::sleep(Duration::from_secs(1));
    run.fleet.pause(0.0);
    let (same, another) = (same.wait(), another.wait());
    assert_eq!(same.code, Some(0), "{same:#?}");
    // It either follows the first one or is told that it's there.
    let told = another.stderr.contains("another") || another.stderr.contains(&run.id);
    assert!(another.code == Some(0) || told, "{another:#?}");
    run.end();
}

/// Restates ten days of daily sales, with or without a crash of everything in its midst.
fn restated(crash: bool) -> Aftermath {
    let mut fleet = Fleet::start(FleetOptions { lease_ttl: 1000, ..FleetOptions::default() }, sales());
    fleet.cli().plan_and_apply(&[]);
    let before = fleet.committed();
    let again = ["prod", "-r", "shop.daily", "--start", "2024-01-20", "--end", "2024-01-29"];
    let id = plan_id(&fleet.cli().plan(&again));
    if crash {
        fleet.pause(0.3);
    }
    fleet.cli().ok(&["apply", &id, "--detach"]);
    if crash {
        fleet.wait_for_commits(before + 3);
        for worker in &mut fleet.workers {
            worker.kill9();
        }
        fleet.coordinator.kill9();
        fleet.etcd.kill9();
        fleet.postgres.restart();
        fleet.etcd.restart();
        fleet.coordinator.restart();
        fleet.wait_until_serving();
        let notes = fleet.cli().plan(&[])["notes"].to_string();
        assert!(notes.contains(&format!("unfinished_restatement:{id}")), "{notes}");
        fleet.pause(0.0);
        for worker in &mut fleet.workers {
            worker.restart();
        }
        fleet.wait_until_serving();
    }
    fleet.wait_until_finished(&id);
    fleet.cli().ok(&["run", "prod"]);
    Aftermath::of(&mut fleet)
}

#[test]
fn a_restatement_that_was_killed_with_everything_is_named_and_completed() {
    let undisturbed = restated(false);
    let mut injected = Injected::default();
    undisturbed.assert_same(&restated(true));
    injected.add_some("worker killed", 2);
    injected.add("coordinator killed");
    injected.add("etcd member killed");
    injected.add("warehouse restarted");
    injected.survived("restatement");
}

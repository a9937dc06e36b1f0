//! A batch that takes its worker down each time.

use coord_tests::fleet::{Fleet, FleetOptions, wait_until};
use coord_tests::project::{Project, logged, sales};

use crate::run::{Run, undisturbed_run_of};

/// Sales of which one batch stands still for as long as a switch is on, so that it can be hit.
fn deadly() -> Project {
    let project = sales();
    project.write(
        "models/doubled.sql",
        &format!(
            "MODEL (name shop.doubled, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 2));\n\nSELECT day, item, amount * 2 AS amount FROM shop.daily WHERE day BETWEEN @start_date AND @end_date AND (SELECT PG_SLEEP(CASE WHEN @start_ds = '2024-01-05' AND EXISTS (SELECT 1 FROM pg_class WHERE relname = 'deadly') THEN 600 ELSE 0 END)) IS NOT NULL{}",
            logged("doubled")
        ),
    );
    project
}

const DEADLY: &str = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep'";

#[test]
fn a_batch_that_kills_its_worker_each_time_ends_as_failed_and_its_siblings_are_done() {
    let undisturbed = undisturbed_run_of(deadly());
    let options = FleetOptions { workers: 1, slots: 1, lease_ttl: 1000, ..FleetOptions::default() };
    let fleet = Fleet::start(options, deadly());
    fleet.sql("CREATE TABLE public.deadly ()");
    let mut run = Run::start_on("poison", fleet, undisturbed, 0.0);
    let mut victims: Vec<String> = Vec::new();
    wait_until("the plan's end", || {
        let hit = run.fleet.sql(DEADLY).into_iter().flatten().find(|session| !victims.contains(session));
        if let Some(session) = hit {
            victims.push(session);
            run.fleet.workers[0].kill9();
            run.fleet.workers[0].restart();
        }
        run.state().as_deref() == Some("failed")
    });
    assert_eq!(victims.len(), 3, "no more workers than allowed are lost to it");
    run.injected.add_some("worker killed", 3);
    let said = run.fleet.cli().run(&["watch", &run.id]).stderr;
    assert!(said.contains("lost 3 times: its workers vanished"), "{said}");
    assert_eq!(run.fleet.revision("prod"), None);
    let done = |model: &str| {
        run.fleet.count(&format!("SELECT COUNT(*) FROM public.batch_log WHERE model = '{model}'"))
    };
    assert_eq!((done("daily"), done("doubled"), done("totals")), (20, 19, 1), "siblings are done");
    run.fleet.sql("DROP TABLE public.deadly");
    run.end_resuming(1);
}

//! Restatements that are interrupted in every way: readers see all of them or nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coord_tests::cli::{Cli, executed, executed_in_all, plan_id};
use coord_tests::fleet::{Fleet, FleetOptions, Permit, query_dsn, wait_until};
use coord_tests::project::{Project, logged};

/// Forty days that read a factor, a sum over a week of them, and a total of that.
fn chain() -> Project {
    let project = Project::new(&[]);
    project.write(
        "models/days.sql",
        &format!(
            "MODEL (name chain.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 2));\n\nSELECT day::DATE AS day, (SELECT factor FROM public.source) / (CASE WHEN (SELECT broken FROM public.source) = EXTRACT(DAY FROM day) THEN 0 ELSE 1 END) AS v FROM GENERATE_SERIES(@start_date, @end_date, INTERVAL '1 day') AS g(day){}",
            logged("days")
        ),
    );
    project.write(
        "models/weeks.sql",
        &format!(
            "MODEL (name chain.weeks, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 4));\n\nSELECT d.day, SUM(w.v)::INT AS v FROM chain.days AS d JOIN chain.days AS w ON w.day BETWEEN d.day - INTERVAL '6 days' AND d.day WHERE d.day BETWEEN @start_date AND @end_date GROUP BY d.day{}",
            logged("weeks")
        ),
    );
    project.write(
        "models/shown.sql",
        "MODEL (name chain.shown, kind VIEW);\n\nSELECT day, v FROM chain.weeks\n",
    );
    project.write(
        "models/total.sql",
        &format!(
            "MODEL (name chain.total, kind FULL);\n\nSELECT SUM(v)::INT AS v FROM chain.shown{}",
            logged("total")
        ),
    );
    project
}

const SOURCE: &str = "CREATE TABLE public.source AS SELECT 1 AS factor, 0 AS broken";
const SHOWN: &str = "SELECT (SELECT SUM(v) FROM chain.days)::TEXT || ' ' || (SELECT SUM(v) FROM chain.weeks)::TEXT || ' ' || (SELECT SUM(v) FROM chain.shown)::TEXT || ' ' || (SELECT SUM(v) FROM chain.total)::TEXT";
/// All forty days at one; each week sums up to seven of them.
const OLD: &str = "40 259 259 259";
/// The last ten days, and the weeks that end on them, at ten.
const NEW: &str = "130 700 700 700";
const AGAIN: [&str; 7] = ["prod", "-r", "chain.days", "--start", "2024-01-31", "--end", "2024-02-09"];
const ASIDE: &str =
    "SELECT COUNT(*) FROM pg_class WHERE relname LIKE '%\\_\\_aside\\_%' OR relname LIKE '%\\_\\_merged\\_%'";

fn applied() -> Fleet {
    let options = FleetOptions { lease_ttl: 1000, ..FleetOptions::default() };
    let fleet = Fleet::start(options, chain());
    fleet.sql(SOURCE);
    fleet.cli().plan_and_apply(&[]);
    assert_eq!(fleet.sql(SHOWN), [[OLD]]);
    fleet.sql("UPDATE public.source SET factor = 10");
    fleet
}

fn restating(fleet: &Fleet) -> bool {
    fleet.state()["environments"]["prod"]["restating"].is_array()
}

#[test]
fn readers_see_all_of_a_restatement_or_nothing_whatever_is_killed() {
    let mut fleet = applied();
    let before = fleet.committed();
    fleet.pause(0.3);
    let id = plan_id(&fleet.cli().plan(&AGAIN));
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let dsn = fleet.postgres.dsn();
        let done = &done;
        let reader = scope.spawn(move || {
            let mut seen: Vec<String> = Vec::new();
            while !done.load(Ordering::Acquire) {
                let shown = query_dsn(&dsn, SHOWN).expect("views can be read");
                if seen.last() != Some(&shown[0][0]) {
                    seen.push(shown[0][0].clone());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            seen
        });
        fleet.cli().ok(&["apply", &id, "--detach"]);
        // A batch of the days is done; the others, weeks and total aren't.
        for (n, commits) in [1, 4, 6].into_iter().enumerate() {
            fleet.wait_for_commits(before + commits);
            assert!(restating(&fleet), "the environment says that it is being restated");
            fleet.workers[n % 2].kill9();
            fleet.coordinator.kill9();
            fleet.coordinator.restart();
            fleet.workers[n % 2].restart();
            fleet.wait_until_serving();
            let planned = fleet.cli().plan(&[]);
            let notes = planned["notes"].to_string();
            assert!(notes.contains(&format!("unfinished_restatement:{id}")), "{planned}");
        }
        fleet.pause(0.0);
        fleet.wait_until_finished(&id);
        std::thread::sleep(Duration::from_millis(50));
        done.store(true, Ordering::Release);
        reader.join().expect("the reader ends")
    });
    assert_eq!(seen, [OLD, NEW]);
    assert_eq!(fleet.count(ASIDE), 0, "nothing aside is left");
    assert!(!restating(&fleet));
    assert_eq!(fleet.revision("prod"), Some(1), "the pointer stays");
    let planned = fleet.cli().plan(&[]);
    assert_eq!((&planned["requires_backfill"], &planned["notes"]), (&false.into(), &serde_json::json!([])));
}

#[test]
fn a_publication_that_is_killed_in_its_midst_is_done_again_and_once() {
    let mut fleet = applied();
    let table = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'chain\\_\\_weeks\\_\\_%'";
    let table = fleet.sql(table)[0][0].clone();
    let dsn = fleet.postgres.dsn();
    // Somebody keeps writers off one of the tables, but no readers.
    let slow = std::thread::spawn(move || {
        let lock =
            format!("BEGIN; LOCK TABLE sqlmesh__chain.\"{table}\" IN SHARE MODE; SELECT PG_SLEEP(8); COMMIT");
        query_dsn(&dsn, &lock).map(|_| ())
    });
    let id = plan_id(&fleet.cli().plan(&AGAIN));
    fleet.cli().ok(&["apply", &id, "--detach"]);
    wait_until("the publication", || fleet.plan_state(&id) == "publishing");
    for worker in &mut fleet.workers {
        worker.kill9();
    }
    fleet.coordinator.kill9();
    fleet.coordinator.restart();
    for worker in &mut fleet.workers {
        worker.restart();
    }
    fleet.wait_until_serving();
    assert_eq!(fleet.sql(SHOWN), [[OLD]]);
    assert_eq!(fleet.plan_state(&id), "publishing");
    slow.join().expect("the lock is let go").expect("the lock was held");
    fleet.wait_until_finished(&id);
    assert_eq!(fleet.sql(SHOWN), [[NEW]]);
    assert_eq!(fleet.count(ASIDE), 0);
}

#[test]
fn a_failed_restatement_is_named_by_plans_and_completed_by_a_run() {
    let fleet = applied();
    fleet.sql("UPDATE public.source SET broken = 5");
    let id = plan_id(&fleet.cli().plan(&AGAIN));
    let failed = fleet.cli().run(&["apply", &id]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    assert_eq!(fleet.sql(SHOWN), [[OLD]]);
    let said = fleet.cli().ok(&["plan", "prod", "--no-prompts"]).stdout;
    assert!(said.contains("is unfinished") && !said.contains("No changes"), "{said}");
    fleet.sql("UPDATE public.source SET broken = 0");
    let ran = fleet.cli().ok(&["run", "prod"]);
    assert!(ran.stderr.contains("Completing the restatement"), "{ran:#?}");
    assert_eq!(fleet.plan_state(&id), "finished");
    assert_eq!(fleet.sql(SHOWN), [[NEW]]);
    assert_eq!(fleet.count(ASIDE), 0);
}

#[test]
fn a_restatement_that_is_given_up_leaves_nothing_and_can_be_planned_again() {
    let fleet = applied();
    fleet.pause(0.2);
    let before = fleet.committed();
    let id = plan_id(&fleet.cli().plan(&AGAIN));
    fleet.cli().ok(&["apply", &id, "--detach"]);
    fleet.wait_for_commits(before + 2);
    fleet.cli().ok(&["cancel", &id]);
    wait_until("the end", || fleet.plan_state(&id) == "cancelled");
    wait_until("the tables aside to go", || fleet.count(ASIDE) == 0);
    assert_eq!(fleet.sql(SHOWN), [[OLD]]);
    assert!(!restating(&fleet));
    fleet.pause(0.0);
    // The fleet's clock stands still: it is the same plan once more.
    fleet.cli().plan_and_apply(&AGAIN);
    assert_eq!(fleet.sql(SHOWN), [[NEW]]);
    assert_eq!(fleet.count(ASIDE), 0);
}

#[test]
fn a_restatement_that_failed_puts_no_older_rows_over_those_of_a_later_one() {
    let fleet = applied();
    fleet.sql("UPDATE public.source SET broken = 8");
    let early = plan_id(&fleet.cli().plan(&AGAIN));
    let five = ["prod", "-r", "chain.days", "--start", "2024-01-31", "--end", "2024-02-04"];
    let late = plan_id(&fleet.cli().plan(&five));
    assert_eq!(fleet.cli().run(&["apply", &early]).code, Some(1), "one of its days is broken");
    fleet.sql("UPDATE public.source SET broken = 0, factor = 20");
    fleet.cli().ok(&["apply", &late]);
    let shown = fleet.sql(SHOWN);
    let refused = fleet.cli().run(&["apply", &early]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("has computed some of the same rows since it began"), "{refused:#?}");
    wait_until("what it had computed is gone", || fleet.count(ASIDE) == 0);
    assert_eq!(fleet.sql(SHOWN), shown);
    fleet.cli().plan_and_apply(&AGAIN);
    assert_eq!(fleet.sql(SHOWN), [["230 1190 1190 1190"]]);
}

#[test]
fn a_restatement_in_place_shows_old_beside_new_rows_and_ends_the_same() {
    let mut fleet = applied();
    let in_place: Vec<&str> = AGAIN.into_iter().chain(["--in-place"]).collect();
    fleet.pause(0.2);
    let before = fleet.committed();
    let id = plan_id(&fleet.cli().plan(&in_place));
    fleet.cli().ok(&["apply", &id, "--detach"]);
    fleet.wait_for_commits(before + 1);
    assert_ne!(fleet.sql(SHOWN), [[OLD]]);
    fleet.coordinator.kill9();
    fleet.coordinator.restart();
    fleet.wait_until_serving();
    assert!(restating(&fleet));
    fleet.pause(0.0);
    fleet.wait_until_finished(&id);
    assert_eq!(fleet.sql(SHOWN), [[NEW]]);
}

#[test]
fn other_environments_compute_again_what_they_had_from_restated_rows() {
    let fleet = applied();
    let weeks = "models/weeks.sql";
    let changed = std::fs::read_to_string(fleet.project.path().join(weeks)).expect("the model");
    fleet.project.write(weeks, &changed.replace("SUM(w.v)::INT", "(SUM(w.v) * 2)::INT"));
    fleet.cli().plan_and_apply(&["dev"]);
    let sum = |of: &str| fleet.count(&format!("SELECT SUM(v) FROM {of}"));
    assert_eq!(sum("chain__dev.weeks"), 2 * 259);
    fleet.cli().plan_and_apply(&AGAIN);
    assert_eq!(sum("chain__dev.weeks"), 2 * 259, "until it runs");
    let ran = fleet.cli().json(&["run", "dev"]);
    assert!(executed(&ran, "chain.weeks", "ok") > 0, "{ran}");
    assert_eq!(sum("chain__dev.weeks"), 2 * 700);
    assert_eq!(sum("chain__dev.total"), 2 * 700);
}

#[test]
fn an_embedded_restatement_that_is_killed_is_completed_by_the_next_run() {
    let _permit = Permit::wait();
    let project = Project::new(&[(
        "config.yaml",
        "gateways:\n  duckdb:\n    connection:\n      type: duckdb\n      database: db.db\n\ndefault_gateway: duckdb\n\nmodel_defaults:\n  dialect: duckdb\n  start: 2023-01-01\n  cron: '@daily'\n",
    )]);
    let source = project.path().join("factor.csv");
    project.write("factor.csv", "factor\n1\n");
    project.write(
        "models/days.sql",
        &format!("MODEL (name m.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1));\nSELECT @start_date AS day, f.factor AS v, SUM(x.range) AS sum FROM READ_CSV('{}') AS f, RANGE(100000) AS x GROUP BY f.factor", source.display()),
    );
    project.write(
        "models/copy.sql",
        "MODEL (name m.copy, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1));\nSELECT day, v FROM m.days WHERE day BETWEEN @start_date AND @end_date",
    );
    project.write("models/total.sql", "MODEL (name m.total, kind FULL);\nSELECT SUM(v) AS v FROM m.copy");
    let cli = Cli::embedded(project.path()).now("2023-08-01 06:00:00");
    cli.plan_and_apply(&[]);
    let shown = || {
        let sums = "SELECT (SELECT SUM(v) FROM m.days) AS a, (SELECT SUM(v) FROM m.copy) AS b, (SELECT v FROM m.total) AS c";
        cli.ok(&["fetch", sums, "--format", "csv"]).stdout.lines().nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(shown(), "212,212,212");
    project.write("factor.csv", "factor\n2\n");
    let id = plan_id(&cli.plan(&["-r", "m.days", "--start", "2023-01-01", "--end", "2023-07-31"]));
    let note = format!("unfinished_restatement:{id}");
    let mut kills = 0;
    for patience in 1..10 {
        let mut apply = cli.spawn(&["apply", &id]);
        // On a slow machine it may not even have begun.
        std::thread::sleep(Duration::from_millis(300 * patience));
        assert!(apply.is_running(), "the test is too slow to kill anything");
        apply.kill9();
        assert_eq!(shown(), "212,212,212");
        kills += u32::from(cli.plan(&[])["notes"].to_string().contains(&note));
        if kills == 2 {
            break;
        }
    }
    assert_eq!(kills, 2);
    let ran = cli.json(&["run"]);
    assert_eq!(executed_in_all(&ran), 0, "the run itself has nothing to do: {ran}");
    assert_eq!(shown(), "424,424,424");
    assert_eq!(cli.plan(&[])["notes"], serde_json::json!([]));
}

#[test]
fn what_was_computed_from_old_rows_since_a_restatement_was_planned_is_computed_again() {
    let fleet = applied();
    // The plan is made before anybody knows of the model that will read what it restates.
    let id = plan_id(&fleet.cli().plan(&AGAIN));
    fleet.project.write(
        "models/extra.sql",
        &format!("MODEL (name chain.extra, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 10));\n\nSELECT day, v FROM chain.days WHERE day BETWEEN @start_date AND @end_date{}", logged("extra")),
    );
    let extra = "SELECT SUM(v) FROM chain__dev.extra";
    let before = fleet.committed();
    fleet.pause(0.5);
    let dev = plan_id(&fleet.cli().plan(&["dev"]));
    fleet.cli().ok(&["apply", &dev, "--detach"]);
    // Some of it is done, some in flight, some not begun.
    fleet.wait_for_commits(before + 1);
    fleet.cli().ok(&["apply", &id, "--detach"]);
    fleet.pause(0.0);
    fleet.wait_until_finished(&dev);
    fleet.wait_until_finished(&id);
    assert_eq!(fleet.sql(SHOWN), [[NEW]]);
    fleet.cli().ok(&["run", "dev"]);
    assert_eq!(fleet.count(extra), 130);
}

#[test]
fn a_model_that_reads_its_own_past_is_restated_to_its_end_whatever_is_killed() {
    let project = Project::new(&[]);
    project.write(
        "models/days.sql",
        &format!(
            "MODEL (name chain.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 10));\n\nSELECT day::DATE AS day, (SELECT factor FROM public.source) AS v FROM GENERATE_SERIES(@start_date, @end_date, INTERVAL '1 day') AS g(day){}",
            logged("days")
        ),
    );
    project.write(
        "models/running.sql",
        &format!(
            "MODEL (name chain.running, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 2), columns (day DATE, v INT));\n\nSELECT d.day, (SUM(d.v) OVER (ORDER BY d.day) + COALESCE((SELECT MAX(r.v) FROM chain.running AS r WHERE r.day = @start_date - INTERVAL '1 day'), 0))::INT AS v FROM chain.days AS d WHERE d.day BETWEEN @start_date AND @end_date{}",
            logged("running")
        ),
    );
    let mut fleet = Fleet::start(FleetOptions { lease_ttl: 1000, ..FleetOptions::default() }, project);
    fleet.sql(SOURCE);
    fleet.cli().plan_and_apply(&[]);
    let shown =
        "SELECT (SELECT SUM(v) FROM chain.days)::TEXT || ' ' || (SELECT SUM(v) FROM chain.running)::TEXT";
    let old = "40 820";
    assert_eq!(fleet.sql(shown), [[old]]);
    fleet.sql("UPDATE public.source SET factor = 10");
    let before = fleet.committed();
    fleet.pause(0.3);
    // One day of what it reads; all that follows from it.
    let id = plan_id(&fleet.cli().plan(&[
        "prod",
        "-r",
        "chain.days",
        "--start",
        "2024-01-31",
        "--end",
        "2024-01-31",
    ]));
    fleet.cli().ok(&["apply", &id, "--detach"]);
    for (n, commits) in [2, 4].into_iter().enumerate() {
        fleet.wait_for_commits(before + commits);
        assert_eq!(fleet.sql(shown), [[old]], "nothing of it is to be seen yet");
        fleet.wait_until_losses_are_made_good(&id);
        fleet.workers[n].kill9();
        fleet.coordinator.kill9();
        fleet.coordinator.restart();
        fleet.workers[n].restart();
        fleet.wait_until_serving();
    }
    fleet.pause(0.0);
    fleet.wait_until_finished(&id);
    // Thirty days as they were; the 31st ten instead of one; each later day nine more than it was.
    assert_eq!(fleet.sql(shown), [["49 910"]]);
    assert_eq!(fleet.count(ASIDE), 0);
}

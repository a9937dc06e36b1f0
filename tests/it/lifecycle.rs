//! Environments from their beginning to their end, and what is left of them.

use std::collections::BTreeSet;

use coord_tests::cli::{Cli, executed_in_all, plan_id};
use coord_tests::fleet::{Fleet, FleetOptions, Permit, query_dsn, wait_until};
use coord_tests::project::{Project, daily, sales};
use serde_json::Value;

const CONFIG: &str = "gateways:\n  duckdb:\n    connection:\n      type: duckdb\n      database: db.db\n\ndefault_gateway: duckdb\n\nmodel_defaults:\n  dialect: duckdb\n  start: 2024-01-01\n  cron: '@daily'\n";

fn days(one: u32) -> String {
    format!(
        "MODEL (name m.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1));\nSELECT @start_date AS day, {one} AS one"
    )
}

/// Days and their sum; the days' numbers tell the version.
fn small() -> Project {
    Project::new(&[
        ("config.yaml", CONFIG),
        ("models/days.sql", &days(1)),
        ("models/sums.sql", "MODEL (name m.sums, kind FULL);\nSELECT SUM(one) AS sum FROM m.days"),
    ])
}

fn rows(cli: &Cli, sql: &str) -> Vec<Vec<String>> {
    let document = cli.json(&["fetch", sql]);
    let cell = |value: &Value| value.as_str().unwrap_or("NULL").to_owned();
    let row = |row: &Value| row.as_object().map(|row| row.values().map(cell).collect()).unwrap_or_default();
    document.as_array().map(|all| all.iter().map(row).collect()).unwrap_or_default()
}

/// Everything in the warehouse but the ledger.
fn relations(cli: &Cli) -> BTreeSet<String> {
    let sql = "SELECT table_schema || '.' || table_name AS name FROM information_schema.tables WHERE table_schema NOT IN ('coordctl', 'information_schema', 'pg_catalog', 'public')";
    rows(cli, sql).into_iter().flatten().collect()
}

fn environments(cli: &Cli) -> Vec<String> {
    let document = cli.json(&["environments"]);
    let names = document["environments"].as_array().cloned().unwrap_or_default();
    names.iter().filter_map(|shown| shown["name"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_change_is_looked_at_beside_production_and_abandoned() {
    let _permit = Permit::wait();
    let project = small();
    let cli = Cli::embedded(project.path()).now("2024-01-05 06:00:00");
    cli.plan_and_apply(&[]);
    let before = relations(&cli);
    project.write("models/days.sql", &days(10));
    cli.plan_and_apply(&["dev"]);
    let both = "SELECT CAST(p.sum AS VARCHAR) AS prod, CAST(d.sum AS VARCHAR) AS dev FROM m.sums AS p, m__dev.sums AS d";
    assert_eq!(
        rows(&cli, both).concat().into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(["4".into(), "40".into()])
    );

    for (arguments, code) in [
        (&["abandon", "prod"][..], "abandon-prod"),
        (&["abandon", "nope"], "unknown-environment"),
        (&["invalidate", "prod"], "invalidate-prod"),
        (&["invalidate", "nope"], "unknown-environment"),
        (&["rollback", "prod"], "nothing-to-go-back-to"),
    ] {
        let refused = cli.run(&[arguments, &["--format", "json"]].concat());
        assert_eq!((refused.code, refused.error()["code"].as_str()), (Some(1), Some(code)), "{arguments:?}");
    }
    cli.ok(&["abandon", "dev"]);
    assert_eq!(environments(&cli), ["prod"]);
    assert!(!relations(&cli).iter().any(|name| name.starts_with("m__dev")), "its views are gone");
    let tidied = cli.json(&["janitor"]);
    assert_eq!(tidied["tables"].as_array().map(Vec::len), Some(2), "{tidied}");
    assert_eq!(relations(&cli), before, "production has what it had, and nothing else is left");
    assert_eq!(rows(&cli, "SELECT CAST(sum AS VARCHAR) AS sum FROM m.sums"), [["4"]]);

    // A plan that was never applied is given up, and can be made again.
    let id = plan_id(&cli.plan(&["dev"]));
    cli.ok(&["abandon", &id[..10]]);
    let refused = cli.run(&["apply", &id, "--format", "json"]);
    assert_eq!(refused.error()["code"], "plan-abandoned", "{refused:?}");
    let again = cli.plan_and_apply(&["dev"]);
    assert_eq!((plan_id(&again), executed_in_all(&again)), (id, 5), "its tables are computed anew");
}

#[test]
fn environments_expire_and_count_as_gone_before_the_janitor_comes() {
    let _permit = Permit::wait();
    let project = small();
    project.write("config.yaml", &format!("{CONFIG}pinned_environments: [kept]\n"));
    let cli = Cli::embedded(project.path());
    let at = |day: u32| cli.clone().now(&format!("2024-01-{day:02} 06:00:00"));
    at(5).plan_and_apply(&[]);
    project.write("models/days.sql", &days(10));
    for name in ["dev", "kept", "late"] {
        at(5).plan_and_apply(&[name]);
    }
    at(9).plan_and_apply(&["late", "--end", "2024-01-07"]);
    let gone = at(13).run(&["run", "dev", "--format", "json"]);
    assert_eq!(gone.error()["code"], "unknown-environment", "{gone:?}");
    assert_eq!(environments(&at(13)), ["dev", "kept", "late", "prod"]);
    // A run of production tidies up first, unless it is told not to.
    at(13).ok(&["run", "--skip-janitor"]);
    assert_eq!(environments(&at(13)), ["dev", "kept", "late", "prod"]);
    at(14).ok(&["run"]);
    assert_eq!(environments(&at(14)), ["kept", "late", "prod"]);
    assert!(relations(&cli).contains("m__late.days"), "it was renewed by the second plan");
}

#[test]
fn an_environment_that_ended_is_planned_and_promoted_anew() {
    let _permit = Permit::wait();
    let project = small();
    let cli = Cli::embedded(project.path()).now("2024-01-05 06:00:00");
    cli.plan_and_apply(&[]);
    project.write("models/days.sql", &days(10));
    let first = cli.plan_and_apply(&["dev"]);
    assert_eq!(executed_in_all(&first), 5);
    for _ in 0..2 {
        cli.ok(&["invalidate", "dev", "--sync"]);
        assert!(!relations(&cli).contains("m__dev.days"));
        let again = cli.plan_and_apply(&["dev"]);
        assert_eq!(executed_in_all(&again), 0, "its tables are still there: {again}");
        assert_eq!(rows(&cli, "SELECT CAST(sum AS VARCHAR) AS sum FROM m__dev.sums"), [["40"]]);
    }
    // Another suffix moves its views.
    project.write("config.yaml", &format!("{CONFIG}environment_suffix_target: table\n"));
    let moved = cli.plan_and_apply(&["dev"]);
    assert_eq!(executed_in_all(&moved), 0, "{moved}");
    assert_eq!(rows(&cli, "SELECT CAST(sum AS VARCHAR) AS sum FROM m.sums__dev"), [["40"]]);
    assert!(!relations(&cli).iter().any(|name| name.starts_with("m__dev")));
}

#[test]
fn production_goes_back_and_forward_again_without_a_batch() {
    let fleet = Fleet::start(FleetOptions::default(), sales());
    let cli = fleet.cli();
    let first = plan_id(&cli.plan_and_apply(&[]));
    let old = fleet.digest("shop.daily");
    fleet.project.write("models/daily.sql", &daily(", COUNT(*)::INT AS sales"));
    let second = plan_id(&cli.plan_and_apply(&[]));
    let new = fleet.digest("shop.daily");
    assert_ne!(old, new);
    let committed = fleet.committed();

    let dry = cli.json(&["rollback", "prod", "--dry-run"]);
    assert_eq!(
        (&dry["rollback"]["to_plan"], fleet.revision("prod")),
        (&Value::from(first.as_str()), Some(2))
    );
    let back = cli.json(&["rollback", "prod"]);
    assert_eq!(back["rollback"]["from_plan"], second.as_str(), "{back}");
    assert_eq!(fleet.digest("shop.daily"), old);
    // The janitor leaves what can be gone back to, forward as well.
    let tidied = cli.json(&["janitor", "--ignore-ttl"]);
    assert!(tidied.get("tables").is_none() && tidied.get("snapshots").is_none(), "{tidied}");
    cli.ok(&["rollback", "prod", "--to", &second[..12]]);
    assert_eq!(fleet.digest("shop.daily"), new);
    assert_eq!(fleet.committed(), committed, "nothing was computed");
    assert_eq!(cli.plan(&[])["has_changes"], false, "the project is what production shows");
    let history = cli.json(&["promotions", "prod"]);
    let told: Vec<(&Value, &Value, &Value)> = history["promotions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| (&one["plan_id"], &one["from_plan_id"], &one["rollback"]))
        .collect();
    let [one, two] = [first, second].map(Value::from);
    let (yes, no) = (Value::from(true), Value::from(false));
    assert_eq!(told, [(&two, &one, &yes), (&one, &two, &yes), (&two, &one, &no), (&one, &Value::Null, &no)]);
    assert!(history["promotions"][0]["by"].as_str().is_some_and(|by| !by.is_empty()));
}

#[test]
fn the_janitor_leaves_alone_what_a_plan_that_runs_needs() {
    let fleet = Fleet::start(FleetOptions::default(), sales());
    let cli = fleet.cli();
    cli.plan_and_apply(&[]);
    fleet.project.write("models/daily.sql", &daily(", COUNT(*)::INT AS sales"));
    // What an environment left behind is taken up by a plan, and by the janitor at the same time.
    cli.plan_and_apply(&["dev"]);
    cli.ok(&["invalidate", "dev", "--sync"]);
    fleet.project.write("models/totals.sql", "MODEL (name shop.totals, kind FULL);\n\nSELECT item, COUNT(*) AS amount, PG_SLEEP(1) IS NULL AS slept FROM shop.daily GROUP BY item");
    let id = start_plan_of(&cli, "other");
    let mut collected = BTreeSet::new();
    wait_until("the end", || {
        let tidied = cli.json(&["janitor", "--ignore-ttl"]);
        let tables = tidied["tables"].as_array().cloned().unwrap_or_default();
        collected.extend(tables.iter().filter_map(|name| name.as_str().map(str::to_owned)));
        fleet.plan_state(&id) != "applying"
    });
    fleet.wait_until_finished(&id);
    assert!(
        collected.iter().all(|name| name.contains("totals")),
        "only what the plan doesn't need: {collected:?}"
    );
    assert_eq!(fleet.count("SELECT COUNT(*) FROM shop__other.daily"), 120);
    assert_eq!(fleet.count("SELECT COUNT(*) FROM shop__other.totals"), 5);
    assert_eq!(
        fleet.count("SELECT COUNT(*) FROM shop__other.rolling"),
        fleet.count("SELECT COUNT(*) FROM shop.rolling")
    );
}

/// Plans an environment, and starts to apply it.
fn start_plan_of(cli: &Cli, environment: &str) -> String {
    let id = plan_id(&cli.plan(&[environment]));
    cli.ok(&["apply", &id, "--detach"]);
    id
}

#[test]
fn a_janitor_that_was_killed_goes_on_when_it_is_called_again() {
    let mut fleet = Fleet::start(FleetOptions::default(), sales());
    let cli = fleet.cli();
    cli.plan_and_apply(&[]);
    let tables = |fleet: &Fleet| {
        fleet.count("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'sqlmesh__shop'")
    };
    let before = tables(&fleet);
    fleet.project.write("models/daily.sql", &daily(", COUNT(*)::INT AS sales"));
    cli.plan_and_apply(&["dev"]);
    let all = tables(&fleet);
    assert!(all > before);
    // A reader keeps the table of `daily` from being dropped.
    let table = fleet.sql("SELECT table_name FROM information_schema.view_table_usage WHERE view_schema = 'shop__dev' AND view_name = 'daily'")[0][0].clone();
    cli.ok(&["abandon", "dev"]);
    let dsn = fleet.postgres.dsn();
    let reader = std::thread::spawn(move || {
        query_dsn(&dsn, &format!("SELECT COUNT(*) FROM sqlmesh__shop.{table}; SELECT PG_SLEEP(4)"))
    });
    wait_until("the reader to have begun", || {
        fleet.count("SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE '%PG_SLEEP(4)%' AND pid <> pg_backend_pid() AND wait_event = 'PgSleep'") > 0
    });
    let mut janitor = cli.spawn(&["janitor"]);
    wait_until("some tables to go", || tables(&fleet) < all);
    assert!(janitor.is_running(), "it waits for the reader");
    fleet.coordinator.kill9();
    fleet.workers[0].kill9();
    assert_ne!(janitor.wait().code, Some(0));
    fleet.coordinator.restart();
    fleet.workers[0].restart();
    fleet.wait_until_serving();
    reader.join().unwrap().unwrap();
    cli.ok(&["janitor"]);
    assert_eq!(tables(&fleet), before);
    let nothing = cli.json(&["janitor"]);
    assert!(nothing.get("tables").is_none() && nothing["troubles"] == serde_json::json!({}), "{nothing}");
    assert_eq!(fleet.count("SELECT COUNT(*) FROM coordctl._fence WHERE owner LIKE '%daily%'"), 20);
    // Nothing that was dropped is taken for computed.
    let again = cli.plan_and_apply(&["dev"]);
    assert_eq!(executed_in_all(&again), 21, "daily and the view of its readers: {again}");
}

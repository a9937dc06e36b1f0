//! Plans and applies on a fleet with nothing going wrong.

use coord_tests::cli::{executed, plan_id};
use coord_tests::fleet::{Fleet, FleetOptions};
use coord_tests::project::{daily, rolling, sales};

/// What every finished apply of the sales project must have come to.
pub(crate) fn assert_sales_are_right(fleet: &Fleet) {
    let expected = |sql: &str| fleet.digest(&format!("({sql})"));
    let raw = "SELECT day, item, SUM(amount)::INT AS amount FROM shop.events GROUP BY day, item";
    assert_eq!(fleet.digest("(SELECT day, item, amount FROM shop.daily)"), expected(raw));
    let doubled = format!("SELECT day, item, amount * 2 AS amount FROM ({raw}) AS raw");
    assert_eq!(fleet.digest("shop.doubled"), expected(&doubled));
    let serial = format!("WITH doubled AS ({doubled}) {}", rolling("doubled", ""));
    assert_eq!(fleet.digest("shop.rolling"), expected(&serial));
    let totals = format!("SELECT item, SUM(amount) AS amount FROM ({raw}) AS raw GROUP BY item");
    assert_eq!(fleet.digest("shop.totals"), expected(&totals));
    assert_eq!(fleet.count("SELECT COUNT(*) FROM shop.daily"), 120);
}

/// Every table's record is one range: the 40 days that the fleet's clock allows.
pub(crate) fn assert_every_interval_is_recorded_once(fleet: &Fleet) {
    let state = fleet.state();
    for model in ["shop.daily", "shop.doubled", "shop.rolling"] {
        let tables = state["tables"][model].as_object().unwrap_or_else(|| panic!("no {model} in {state}"));
        for ranges in tables.values() {
            let ranges = ranges.as_array().cloned().unwrap_or_default();
            assert_eq!(ranges.len(), 1, "{model}: {ranges:?}");
            assert!(ranges[0]["start"].as_str().is_some_and(|at| at.starts_with("2024-01-01")), "{ranges:?}");
            assert!(ranges[0]["end"].as_str().is_some_and(|at| at.starts_with("2024-02-10")), "{ranges:?}");
        }
    }
}

#[test]
fn a_fleet_plans_applies_finds_no_change_and_adds_a_column_in_dev_then_prod() {
    let fleet = Fleet::start(FleetOptions::default(), sales());
    let cli = fleet.cli();
    let first = cli.plan_and_apply(&[]);
    for model in ["shop.daily", "shop.doubled", "shop.rolling"] {
        assert_eq!(executed(&first, model, "ok"), 20, "{model}");
    }
    assert_sales_are_right(&fleet);
    assert_every_interval_is_recorded_once(&fleet);
    assert_eq!(fleet.revision("prod"), Some(1));

    let second = cli.plan(&[]);
    assert_eq!(second["has_changes"], false, "{second}");
    assert_eq!(second["requires_backfill"], false, "{second}");

    fleet.project.write("models/daily.sql", &daily(", COUNT(*)::INT AS sales"));
    let dev = cli.plan_and_apply(&["dev"]);
    assert_eq!(executed(&dev, "shop.daily", "ok"), 20, "{dev}");
    assert_eq!(executed(&dev, "shop.doubled", "ok"), 0, "an added column leaves readers alone: {dev}");
    assert_eq!(fleet.count("SELECT SUM(sales) FROM shop__dev.daily"), 120);
    assert_eq!(fleet.revision("prod"), Some(1));
    assert!(fleet.sql("SELECT * FROM shop.daily LIMIT 1")[0].len() == 3, "prod is as it was");

    let prod = cli.plan_and_apply(&["prod"]);
    assert_eq!(executed(&prod, "shop.daily", "ok"), 0, "prod takes dev's table: {prod}");
    assert_eq!(fleet.count("SELECT SUM(sales) FROM shop.daily"), 120);
    assert_eq!(fleet.revision("prod"), Some(2));
    assert_eq!(fleet.plan_state(&plan_id(&prod)), "finished");
    assert_sales_are_right(&fleet);
}

#[test]
fn a_rolling_window_pipelined_over_four_workers_equals_a_serial_run() {
    let project = sales();
    // Two at a time leave workers free for what is downstream.
    project
        .write("models/daily.sql", &daily("").replace("batch_size 2", "batch_size 2, batch_concurrency 2"));
    let fleet = Fleet::start(FleetOptions { workers: 4, ..FleetOptions::default() }, project);
    fleet.pause(0.02);
    let applied = fleet.cli().plan_and_apply(&[]);
    assert_eq!(executed(&applied, "shop.rolling", "ok"), 20);
    assert_sales_are_right(&fleet);
    assert_eq!(fleet.committed_twice(), Vec::<Vec<String>>::new());
    let overlap = fleet.count(
        "SELECT COUNT(*) FROM public.batch_log AS r WHERE model = 'rolling' \
         AND ended < (SELECT MAX(ended) FROM public.batch_log WHERE model = 'daily')",
    );
    assert!(overlap > 0, "no batch of the windowed model ran before its upstream model was complete");
}

/// The most batches of models that ran at the same time; began and ended are the transactions' own.
fn most_at_once(fleet: &Fleet, models: &str) -> i64 {
    fleet.count(&format!(
        "WITH log AS (SELECT * FROM public.batch_log WHERE model IN ({models})) SELECT MAX(n) FROM \
         (SELECT COUNT(*) AS n FROM log AS a JOIN log AS b ON b.began <= a.began AND a.began < b.ended \
          GROUP BY a.model, a.batch) AS counts"
    ))
}

#[test]
fn limits_of_models_and_gateways_hold_for_the_whole_fleet() {
    let project = sales();
    project
        .write("models/daily.sql", &daily("").replace("batch_size 2", "batch_size 2, batch_concurrency 2"));
    let options = FleetOptions {
        workers: 3,
        slots: 4,
        connection: "concurrent_tasks: 3".to_owned(),
        ..FleetOptions::default()
    };
    let fleet = Fleet::start(options, project);
    fleet.pause(0.05);
    fleet.cli().plan_and_apply(&[]);
    assert_eq!(most_at_once(&fleet, "'daily'"), 2, "batch_concurrency of one model");
    assert_eq!(
        most_at_once(&fleet, "'daily', 'doubled', 'rolling', 'totals'"),
        3,
        "the gateway's concurrent_tasks"
    );
    assert_sales_are_right(&fleet);
}

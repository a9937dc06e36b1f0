//! Restatements of production that meet plans of other environments: whatever order they come in, what such
//! a plan shows in the end follows from the restated rows, without another run.

use coord_tests::cli::plan_id;
use coord_tests::fleet::{Fleet, FleetOptions, wait_until};
use coord_tests::project::{Project, logged};

/// Ten days that read a factor.
fn days() -> Project {
    let project = Project::new(&[]);
    project.write(
        "models/days.sql",
        &format!("MODEL (name chain.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 5), end '2024-01-10');\n\nSELECT day::DATE AS day, (SELECT factor FROM public.source) AS v FROM GENERATE_SERIES(@start_date, @end_date, INTERVAL '1 day') AS g(day){}", logged("days")),
    );
    project
}

/// A model that only development knows: its batches log themselves, and those that end on the tenth wait
/// for the gate. `columns` are what follows the first two.
fn below(kind: &str, name: &str, of: &str, rows: &str) -> String {
    format!(
        "MODEL (name chain.{name}, kind {kind}, end '2024-01-10');\n\nSELECT day, v FROM chain.{of} WHERE {rows}{};\nINSERT INTO public.passed SELECT public.pass('{name}', @end_ds);\n",
        logged(name)
    )
}

const RANGE: &str = "day BETWEEN @start_date AND @end_date";
const BY_TIME: &str = "INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 2)";
/// Batches wait at a closed gate, which one name has; each model's own last one.
const GATE: &str = "CREATE TABLE public.gate (name TEXT); CREATE TABLE public.passed (n INT); \
     CREATE FUNCTION public.pass(name TEXT, until TEXT) RETURNS INT LANGUAGE plpgsql AS $$ BEGIN \
     WHILE until >= '2024-01-10' AND EXISTS (SELECT FROM public.gate AS g WHERE g.name = pass.name) \
     LOOP PERFORM PG_SLEEP(0.02); END LOOP; RETURN 1; END $$";
const RESTATE: [&str; 7] = ["prod", "-r", "chain.days", "--start", "2024-01-03", "--end", "2024-01-04"];
/// Ten days, two of which are ten times as much.
const NEW: i64 = 8 + 2 * 10;

/// Production holds the days; development is to get two models below them. The source has changed since.
fn applied(models: &[(&str, String)]) -> Fleet {
    let fleet = Fleet::start(FleetOptions { lease_ttl: 1000, ..FleetOptions::default() }, days());
    fleet.sql("CREATE TABLE public.source AS SELECT 1 AS factor, FALSE AS broken");
    fleet.sql(GATE);
    fleet.cli().plan_and_apply(&[]);
    fleet.sql("UPDATE public.source SET factor = 10");
    for (name, text) in models {
        fleet.project.write(&format!("models/{name}.sql"), text);
    }
    fleet
}

fn two_by_time() -> [(&'static str, String); 2] {
    [("first", below(BY_TIME, "first", "days", RANGE)), ("second", below(BY_TIME, "second", "first", RANGE))]
}

/// Starts to restate production.
fn restated(fleet: &Fleet) -> String {
    let id = plan_id(&fleet.cli().plan(&RESTATE));
    fleet.cli().ok(&["apply", &id, "--detach"]);
    id
}

fn sum(fleet: &Fleet, of: &str) -> i64 {
    fleet.count(&format!("SELECT SUM(v) FROM chain__dev.{of}"))
}

/// What the environment shows follows from the restated rows, nothing is missing, and nothing twice.
fn shows_the_new_rows(fleet: &Fleet, models: &[&str]) {
    for model in models {
        assert_eq!(sum(fleet, model), NEW, "{model}");
        assert_eq!(fleet.count(&format!("SELECT COUNT(*) FROM chain__dev.{model}")), 10, "{model}");
    }
    let planned = fleet.cli().plan(&["dev"]);
    assert_eq!(planned["requires_backfill"], false, "{planned}");
}

#[test]
fn a_plan_under_way_computes_again_what_is_cleared_before_it_moves_its_environment() {
    let fleet = applied(&two_by_time());
    fleet.sql("INSERT INTO public.gate VALUES ('second')");
    let dev = plan_id(&fleet.cli().plan(&["dev"]));
    fleet.cli().ok(&["apply", &dev, "--detach"]);
    wait_until("all but the last batch", || fleet.leases().len() == 1 && fleet.committed() == 2 + 5 + 4);
    let id = restated(&fleet);
    fleet.wait_until_finished(&id);
    assert_eq!(fleet.revision("dev"), None);
    fleet.sql("DELETE FROM public.gate");
    fleet.wait_until_finished(&dev);
    assert_eq!(fleet.revision("dev"), Some(1));
    shows_the_new_rows(&fleet, &["first", "second"]);
}

#[test]
fn a_plan_that_failed_before_a_restatement_computes_again_what_is_cleared_when_it_is_resumed() {
    let broken = "(SELECT 1 / (CASE WHEN broken THEN 0 ELSE 1 END) FROM public.source) IS NOT NULL AND ";
    let [first, (name, _)] = two_by_time();
    let fleet = applied(&[first, (name, below(BY_TIME, "second", "first", &format!("{broken}{RANGE}")))]);
    fleet.sql("UPDATE public.source SET broken = TRUE");
    let dev = plan_id(&fleet.cli().plan(&["dev"]));
    assert_eq!(fleet.cli().run(&["apply", &dev]).code, Some(1));
    let id = restated(&fleet);
    fleet.wait_until_finished(&id);
    fleet.sql("UPDATE public.source SET broken = FALSE");
    fleet.cli().ok(&["apply", &dev]);
    shows_the_new_rows(&fleet, &["first", "second"]);
}

#[test]
fn a_plan_that_was_made_before_a_restatement_computes_what_it_relied_on_too() {
    let fleet = applied(&two_by_time());
    fleet.cli().plan_and_apply(&["dev"]);
    fleet
        .project
        .write("models/second.sql", &below(BY_TIME, "second", "first", &format!("{RANGE} AND v > 0")));
    let dev = plan_id(&fleet.cli().plan(&["dev"]));
    let prod = plan_id(&fleet.cli().plan(&["prod"]));
    let id = restated(&fleet);
    fleet.wait_until_finished(&id);
    fleet.cli().ok(&["apply", &dev]);
    shows_the_new_rows(&fleet, &["first", "second"]);
    fleet.cli().ok(&["apply", &prod]);
    assert_eq!(fleet.count("SELECT SUM(v) FROM chain.second"), NEW);
}

#[test]
fn production_doesnt_take_over_tables_that_a_restatement_has_cleared_since_its_plan_was_made() {
    let fleet = applied(&two_by_time());
    fleet.cli().plan_and_apply(&["dev"]);
    let prod = plan_id(&fleet.cli().plan(&["prod"]));
    let id = restated(&fleet);
    fleet.wait_until_finished(&id);
    fleet.cli().ok(&["apply", &prod]);
    for model in ["first", "second"] {
        assert_eq!(fleet.count(&format!("SELECT SUM(v) FROM chain.{model}")), NEW, "{model}");
    }
}

#[test]
fn rows_that_are_added_while_their_table_is_cleared_are_neither_kept_nor_there_twice() {
    let fleet = applied(&[
        ("first", below(BY_TIME, "first", "days", RANGE)),
        ("added", below("INCREMENTAL_UNMANAGED (forward_only false)", "added", "first", RANGE)),
    ]);
    // The first eight days are there; what follows is being added.
    fleet.cli().plan_and_apply(&["dev", "--end", "2024-01-08"]);
    fleet.sql("INSERT INTO public.gate VALUES ('added')");
    let dev = plan_id(&fleet.cli().plan(&["dev"]));
    fleet.cli().ok(&["apply", &dev, "--detach"]);
    wait_until("rows that are being added", || {
        fleet.count("SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pass(''added%' AND pid <> PG_BACKEND_PID()") > 0
    });
    let id = restated(&fleet);
    fleet.wait_until_finished(&id);
    fleet.sql("DELETE FROM public.gate");
    fleet.wait_until_finished(&dev);
    shows_the_new_rows(&fleet, &["first", "added"]);
}

//! What changes of a project's files mean, and what they cost.

use crate::world::{INCREMENTAL, STAGED, World, at, find, missing, options, summary, world};
use coord_common::interval::batches;
use coord_common::plan::Change;
use coord_common::snapshot::Category;
use proptest::prelude::*;

use Category::{Breaking, IndirectBreaking, IndirectNonBreaking, Metadata, NonBreaking};
use Change::{DirectlyModified, IndirectlyModified, MetadataUpdated};

const WEEK: &str = "01-01..01-08";

fn live() -> World {
    let mut world = world();
    world.plan_and_apply("prod");
    world
}

fn row(
    name: &str,
    change: Change,
    category: Category,
    missing: &str,
) -> (String, Change, Option<Category>, String) {
    (name.to_owned(), change, Some(category), missing.to_owned())
}

fn with_column(world: &mut World) {
    world.model("stg.events", INCREMENTAL, &STAGED.replace(" FROM", ", id + 1 AS next FROM"));
}

fn with_filter(world: &mut World) {
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
}

#[test]
fn the_first_plan_adds_everything_with_its_whole_history() {
    let mut world = world();
    let planned = world.plan("prod");
    let added = |name| row(name, Change::Added, Breaking, WEEK);
    let all = ["mart.daily", "mart.top", "mart.users", "raw.events", "stg.events"];
    assert_eq!(summary(&planned), all.map(added));
    assert!(planned.plan.has_changes && planned.plan.models.iter().all(|model| model.create));
    assert_eq!(planned.new_records.len(), 5);
    let staged = find(&planned, "stg.events");
    assert_eq!(batches(&staged.missing, staged.batches.unit, Some(2)).count(), 4);
    assert!(!staged.sequential && find(&planned, "mart.users").sequential);
    world.apply(&planned);
    assert!(world.plan("prod").plan.is_empty());
}

#[test]
fn an_added_column_rebuilds_its_model_alone() {
    let mut world = live();
    let before = world.plan("prod");
    with_column(&mut world);
    let planned = world.plan("prod");
    assert_eq!(
        summary(&planned),
        [
            row("mart.daily", IndirectlyModified, IndirectNonBreaking, ""),
            // A view is made anew over the new table: cheap, and it must not read the old one.
            row("mart.top", IndirectlyModified, IndirectNonBreaking, WEEK),
            row("mart.users", IndirectlyModified, IndirectNonBreaking, ""),
            row("stg.events", DirectlyModified, NonBreaking, WEEK),
        ]
    );
    for name in ["mart.daily", "mart.users"] {
        assert_eq!(find(&planned, name).table, find(&before, name).table, "{name}");
    }
    // The view's version stays, but the one that is shown now isn't touched before the flip.
    assert_eq!(find(&planned, "mart.top").version, find(&before, "mart.top").version);
    assert_ne!(find(&planned, "mart.top").table, find(&before, "mart.top").table);
    assert_ne!(find(&planned, "stg.events").table, find(&before, "stg.events").table);
}

#[test]
fn a_view_that_comes_with_another_version_is_made_but_computes_nothing() {
    let mut world = live();
    world.model("mart.users", "kind FULL", "WITH e AS (SELECT id, amount FROM stg.events) SELECT id, CAST(SUM(amount) AS INT) AS total FROM e GROUP BY id");
    let first = world.plan_and_apply("dev");
    assert_eq!(find(&first, "mart.top").category, Some(IndirectBreaking));
    world.model("mart.users", "kind FULL", "WITH e AS (SELECT id, amount, ds FROM stg.events) SELECT id, CAST(SUM(amount) AS INT) AS total FROM e GROUP BY id");
    let second = world.plan_and_apply("dev");
    assert_eq!(find(&second, "mart.top").category, Some(IndirectNonBreaking));
    // Production shows the version before both: what the first one filled counts.
    let planned = world.plan_and_apply("prod");
    let view = find(&planned, "mart.top");
    assert_eq!((missing(&planned, "mart.top").as_str(), view.create), ("", true));
    assert_ne!(view.table, find(&first, "mart.top").table, "the one that reads the old table isn't shown");
    assert!(!planned.plan.requires_backfill());
    assert!(world.plan("prod").plan.is_empty());
    assert_eq!(missing(&world.run("prod"), "mart.top"), "");
}

#[test]
fn pieces_that_another_snapshot_of_the_table_left_dont_count_where_only_whole_units_do() {
    let mut world = live();
    let pieces = format!("{INCREMENTAL}, cron '@hourly', interval_unit day, allow_partials true");
    world.model("stg.events", &pieces, STAGED);
    world.plan_and_apply("prod");
    let run = world.run("prod");
    world.apply(&run);
    let table = find(&run, "stg.events").table.clone().expect("it has one");
    assert_eq!(world.tables[&table].done.hull().map(|hull| hull.end), Some(at("2024-01-08 12:00:00")));
    world.model("stg.events", INCREMENTAL, STAGED);
    let planned = world.plan_and_apply("prod");
    assert_eq!(find(&planned, "stg.events").table.as_ref(), Some(&table), "mere metadata");
    let record = &world.records[&find(&planned, "stg.events").snapshot.expect("it is there")];
    let counted = record.counts(&world.tables[&table].done);
    assert_eq!(counted.hull().map(|hull| hull.end), Some(at("2024-01-08")));
}

#[test]
fn a_changed_filter_rebuilds_everything_below() {
    let mut world = live();
    with_filter(&mut world);
    let planned = world.plan("prod");
    assert_eq!(
        summary(&planned),
        [
            row("mart.daily", IndirectlyModified, IndirectBreaking, WEEK),
            row("mart.top", IndirectlyModified, IndirectBreaking, WEEK),
            row("mart.users", IndirectlyModified, IndirectBreaking, WEEK),
            row("stg.events", DirectlyModified, Breaking, WEEK),
        ]
    );
}

#[test]
fn comments_and_layout_are_metadata() {
    for text in [
        STAGED.replace(" FROM", " -- a remark\n FROM"),
        STAGED.replace(" FROM", "\n\n  FROM").replace("SELECT", "select"),
    ] {
        let mut world = live();
        let before = world.plan("prod");
        world.model("stg.events", INCREMENTAL, &text);
        let planned = world.plan("prod");
        let staged = find(&planned, "stg.events");
        assert_eq!((staged.change, staged.category), (MetadataUpdated, Some(Metadata)), "{text}");
        assert_eq!(find(&planned, "mart.daily").category, Some(Metadata), "{text}");
        assert!(!planned.plan.requires_backfill(), "{text}");
        for model in &planned.plan.models {
            assert_eq!(model.table, find(&before, model.name.as_str()).table);
        }
    }
}

#[test]
fn an_owner_is_metadata_of_its_model_alone() {
    let mut world = live();
    world.model("stg.events", &format!("{INCREMENTAL}, owner anna"), STAGED);
    let planned = world.plan("prod");
    assert_eq!(summary(&planned), [row("stg.events", MetadataUpdated, Metadata, "")]);
    assert!(planned.plan.has_changes && !planned.plan.is_empty());
}

#[test]
fn a_change_of_rows_outweighs_a_change_of_metadata_below() {
    let mut world = live();
    with_filter(&mut world);
    world.model("mart.top", "kind VIEW, owner anna", "SELECT id, total FROM mart.users WHERE total > 15");
    let planned = world.plan("prod");
    let top = find(&planned, "mart.top");
    assert_eq!((top.change, top.category), (IndirectlyModified, Some(IndirectBreaking)));
}

#[test]
fn stars_follow_the_columns_above_them() {
    let mut world = world();
    world.model("mart.star", "kind FULL", "SELECT * FROM stg.events");
    world.plan_and_apply("prod");
    with_column(&mut world);
    let planned = world.plan("prod");
    let star = find(&planned, "mart.star");
    assert_eq!((star.change, star.category), (DirectlyModified, Some(NonBreaking)));
    world.model(
        "stg.events",
        INCREMENTAL,
        "SELECT id, ds FROM raw.events WHERE ds BETWEEN @start_ds AND @end_ds",
    );
    for name in ["mart.daily", "mart.users", "mart.top"] {
        world.remove(name);
    }
    let planned = world.plan("prod");
    assert_eq!(find(&planned, "mart.star").category, Some(Breaking), "a column vanished");
}

#[test]
fn a_removed_model_goes_unless_another_reads_it() {
    let mut world = live();
    world.remove("mart.top");
    let planned = world.plan("prod");
    assert_eq!(find(&planned, "mart.top").change, Change::Removed);
    assert!(!planned.plan.target.contains_key(&find(&planned, "mart.top").name));
    world.remove("stg.events");
    let error = world.try_plan(&options("prod")).expect_err("others read it");
    assert_eq!(error.code, "removed-model-in-use");
    assert!(error.message.contains("`stg.events`"), "{error}");
}

#[test]
fn a_seed_with_new_values_is_breaking_and_with_a_new_column_is_not() {
    let mut world = live();
    world.write("seeds/raw.csv", "id,ds,amount\n1,2024-01-01,11\n2,2024-01-02,20\n");
    assert_eq!(find(&world.plan("prod"), "raw.events").category, Some(Breaking));
    let columns = "kind SEED (path '../seeds/raw.csv'), columns (id INT, ds DATE, amount INT, x INT)";
    world.write("seeds/raw.csv", "id,ds,amount,x\n1,2024-01-01,10,1\n2,2024-01-02,20,2\n");
    world.model("raw.events", columns, "");
    assert_eq!(find(&world.plan("prod"), "raw.events").category, Some(NonBreaking));
}

#[test]
fn a_seed_whose_file_is_renamed_is_the_same() {
    let mut world = live();
    world.write("seeds/other.csv", "id,ds,amount\n1,2024-01-01,10\n2,2024-01-02,20\n");
    world.model(
        "raw.events",
        "kind SEED (path '../seeds/other.csv'), columns (id INT, ds DATE, amount INT)",
        "",
    );
    assert!(world.plan("prod").plan.is_empty());
}

#[test]
fn development_reads_the_tables_of_production_where_nothing_changed() {
    let mut world = live();
    world.model(
        "mart.users",
        "kind FULL",
        "SELECT id, CAST(MAX(amount) AS INT) AS total FROM stg.events GROUP BY id",
    );
    let planned = world.plan("dev");
    let prod = &world.environments[&options("prod").environment];
    for name in ["raw.events", "stg.events", "mart.daily"] {
        let name = name.parse().expect("a name");
        let shown = &planned.plan.target[&name];
        assert_eq!(shown.table, prod.models[&name].table);
        assert!(shown.view.is_none(), "{name} has no view of its own");
    }
    assert_eq!(missing(&planned, "mart.users"), WEEK);
    let table = find(&planned, "mart.users").table.as_ref().expect("a table");
    assert!(!table.dev, "production can take it over");
}

#[test]
fn what_development_built_is_promoted_without_computing_it_again() {
    for change in [with_column, with_filter] {
        let mut world = live();
        change(&mut world);
        let dev = world.plan_and_apply("dev");
        let prod = world.plan_and_apply("prod");
        assert_eq!(find(&prod, "stg.events").table, find(&dev, "stg.events").table);
        let computed: Vec<_> = summary(&prod).into_iter().filter(|row| !row.3.is_empty()).collect();
        assert!(computed.iter().all(|row| row.0 == "mart.top"), "{computed:?}");
        assert!(prod.new_records.is_empty() && world.plan("prod").plan.is_empty());
    }
}

#[test]
fn a_revert_gives_the_old_tables_back_at_once() {
    let mut world = live();
    let first = world.plan("prod");
    with_filter(&mut world);
    world.plan_and_apply("prod");
    world.model("stg.events", INCREMENTAL, STAGED);
    let back = world.plan("prod");
    assert!(back.plan.has_changes && !back.plan.requires_backfill());
    assert!(back.new_records.is_empty(), "the old snapshots are known");
    for model in &back.plan.models {
        assert_eq!(model.table, find(&first, model.name.as_str()).table);
    }
}

#[test]
fn a_forward_only_change_keeps_the_table_and_is_previewed_in_development() {
    let mut world = live();
    let kind = "kind INCREMENTAL_BY_TIME_RANGE (time_column ds, forward_only true)";
    world.model("stg.events", kind, &format!("{STAGED} AND amount > 1"));
    let dev = world.plan("dev");
    let staged = find(&dev, "stg.events");
    assert_eq!(staged.category, Some(Category::ForwardOnly));
    assert!(staged.table.as_ref().is_some_and(|table| table.dev));
    assert_eq!(missing(&dev, "stg.events"), "01-07..01-08");
    let prod = world.plan("prod");
    let before = &world.environments[&options("prod").environment].models[&staged.name];
    assert_eq!(find(&prod, "stg.events").table, before.table);
    assert!(!prod.plan.requires_backfill());
}

#[test]
fn merged_branches_take_the_worst_of_what_happened_to_their_parents() {
    for (first, second, expected) in [
        (with_column as fn(&mut World), "owner anna", IndirectNonBreaking),
        (with_filter, "owner anna", IndirectBreaking),
    ] {
        let mut world = live();
        first(&mut world);
        world.plan_and_apply("one");
        world.model("stg.events", INCREMENTAL, STAGED);
        world.model("raw.other", &format!("kind FULL, {second}"), "SELECT 1 AS id");
        world.plan_and_apply("two");
        first(&mut world);
        world.model(
            "mart.daily",
            INCREMENTAL,
            "SELECT ds, CAST(SUM(amount) AS INT) AS total FROM stg.events WHERE ds BETWEEN @start_ds AND @end_ds GROUP BY ds",
        );
        let merged = world.plan("prod");
        assert_eq!(find(&merged, "mart.daily").category, Some(expected));
    }
}

#[test]
fn a_development_environment_shows_what_didnt_change_once_asked_for() {
    let mut world = live();
    world.model("mart.top", "kind VIEW", "SELECT id, total FROM mart.users WHERE total > 16");
    world.plan_and_apply("dev");
    let mut all = options("dev");
    assert!(world.try_plan(&all).expect("a plan").plan.is_empty());
    all.include_unmodified = true;
    let planned = world.try_plan(&all).expect("a plan");
    assert!(planned.plan.widens && !planned.plan.has_changes && !planned.plan.is_empty());
    assert!(planned.plan.target.values().all(|model| model.view.is_some()));
    world.apply(&planned);
    assert!(world.try_plan(&all).expect("a plan").plan.is_empty());
}

#[test]
fn a_new_development_environment_without_changes_is_refused() {
    let mut world = live();
    let error = world.try_plan(&options("dev")).expect_err("nothing differs");
    assert_eq!(error.code, "no-changes");
    let mut all = options("dev");
    all.include_unmodified = true;
    let planned = world.try_plan(&all).expect("asked for");
    assert!(planned.plan.has_changes && planned.plan.target.values().all(|model| model.view.is_some()));
    world.apply(&planned);
    assert!(world.plan("dev").plan.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn plans_do_not_depend_on_the_order_of_files(order in Just(world().files.keys().cloned().collect::<Vec<_>>()).prop_shuffle()) {
        let world = world();
        let expected = world.plan("prod").plan;
        let (project, snapshots, _) = world.load_in_order(order.iter());
        let purpose = coord_common::plan::Purpose::Change;
        let planned = world.plan_snapshots(&project, &snapshots.by_name, &options("prod"), purpose).expect("a plan");
        let bytes = |plan| serde_json::to_vec(plan).expect("a plan as JSON");
        prop_assert_eq!(bytes(&planned.plan), bytes(&expected));
    }
}

#[test]
fn rows_of_another_snapshot_of_the_version_are_told_as_missing_but_never_computed_again() {
    let mut world = world();
    world.plan_and_apply("prod");
    let edited = format!("{STAGED} AND amount > 1");
    world.model("stg.events", INCREMENTAL, &edited);
    world.plan_and_apply("dev");
    // The same rows, and metadata that production never saw.
    world.model("stg.events", &format!("{INCREMENTAL}, owner somebody"), &edited);
    let planned = world.plan("prod");
    let events = find(&planned, "stg.events");
    assert!(events.missing.is_empty() && !events.skipped.is_empty());
    assert!(!planned.plan.requires_backfill());
}

#[test]
fn a_development_view_goes_when_its_model_changes_unselected() {
    let mut world = world();
    world.plan_and_apply("prod");
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 1"));
    world.plan_and_apply("dev");
    world.model("stg.events", INCREMENTAL, &format!("{STAGED} AND amount > 2"));
    let mut asked = crate::world::options("dev");
    asked.selectors.select = vec!["stg.events".to_owned()];
    let purpose = coord_common::plan::Purpose::Change;
    let planned = world.propose_and_plan(&asked, purpose).expect("a plan");
    let view = |name: &str| {
        planned.plan.target.iter().find(|(n, _)| n.as_str() == name).is_some_and(|(_, m)| m.view.is_some())
    };
    assert!(view("stg.events") && !view("mart.daily"));
}

#[test]
fn a_managed_table_is_planned_but_cannot_be_applied() {
    let mut world = live();
    world.model("mart.kept", "kind MANAGED", "SELECT id FROM stg.events");
    let planned = world.plan("prod");
    let blocker = &planned.plan.blockers[0];
    assert_eq!((blocker.code.as_str(), blocker.models[0].as_str()), ("unsupported-kind", "mart.kept"));
    assert!(blocker.hint.contains("materialized true"));
    assert_eq!(find(&planned, "mart.kept").change, Change::Added);
}

#[test]
fn a_view_is_made_again_when_a_change_that_was_taken_back_returns() {
    let mut world = live();
    with_column(&mut world);
    world.plan_and_apply("prod");
    world.model("stg.events", INCREMENTAL, STAGED);
    assert!(!world.plan_and_apply("prod").plan.requires_backfill());
    with_column(&mut world);
    let again = world.plan_and_apply("prod");
    let computed: Vec<_> = summary(&again).into_iter().filter(|row| !row.3.is_empty()).collect();
    let view = row("mart.top", Change::IndirectlyModified, Category::IndirectNonBreaking, "01-01..01-08");
    assert_eq!(computed, [view]);
    assert!(find(&again, "mart.top").anew, "what is complete doesn't keep it from being made");
    assert!(world.plan("prod").plan.is_empty());
}

#[test]
fn going_back_to_the_first_snapshot_of_a_forward_only_model_destroys_nothing() {
    let mut world = world();
    let kind = "kind INCREMENTAL_BY_TIME_RANGE (time_column ds, forward_only true)";
    world.model("stg.events", kind, STAGED);
    world.plan_and_apply("prod");
    world.model("stg.events", kind, &STAGED.replace(" FROM", ", id + 1 AS next FROM"));
    world.plan_and_apply("dev");
    world.model("stg.events", kind, STAGED);
    let back = world.try_plan(&options("dev")).expect("`next` was never in production's table");
    assert_eq!(find(&back, "stg.events").change, Change::DirectlyModified);
}

#[test]
fn a_new_environment_may_differ_in_the_statements_around_its_plans_alone() {
    let mut world = live();
    assert_eq!(world.try_plan(&options("dev")).expect_err("nothing differs").code, "no-changes");
    let config =
        format!("{}before_all:\n- CREATE TABLE IF NOT EXISTS log (id INT)\n", world.files["config.yaml"]);
    world.write("config.yaml", &config);
    let planned = world.try_plan(&options("dev")).expect("the statements differ");
    assert!(planned.plan.has_changes && !planned.plan.requires_backfill());
}

#[test]
fn another_incremental_kind_keeps_the_table_if_it_is_partitioned_as_before() {
    for (partitions, kept) in [("ds", true), ("total", false)] {
        let mut world = world();
        world.plan_and_apply("prod");
        let query = "SELECT ds, CAST(SUM(amount) AS INT) AS total FROM stg.events WHERE ds BETWEEN @start_ds AND @end_ds GROUP BY ds";
        let kind = format!("kind INCREMENTAL_BY_PARTITION, partitioned_by {partitions}");
        world.model("mart.daily", &kind, query);
        let planned = world.plan("prod");
        let daily = find(&planned, "mart.daily");
        let forward_only = daily.category == Some(Category::ForwardOnly);
        assert_eq!(forward_only, kept, "{partitions}: a table of time ranges has its days as partitions");
        assert_eq!(missing(&planned, "mart.daily").is_empty(), kept, "{partitions}");
    }
}

#[test]
fn another_kind_of_the_same_partitions_changes_what_its_query_changes() {
    let mut world = world();
    let query = "SELECT ds, CAST(COUNT(*) AS INT) AS n FROM stg.events GROUP BY ds";
    world.model("mart.keyed", "kind INCREMENTAL_BY_UNIQUE_KEY (unique_key ds)", query);
    world.model("mart.after", "kind FULL", "SELECT SUM(n) AS n FROM mart.keyed");
    world.plan_and_apply("prod");
    world.model("mart.keyed", "kind INCREMENTAL_UNMANAGED", query);
    let planned = world.plan("dev");
    // What reads it isn't previewed then.
    assert_eq!(missing(&planned, "mart.keyed"), "01-07..01-08");
    assert_eq!(missing(&planned, "mart.after"), "");
}

#[test]
fn a_star_in_the_place_of_columns_that_stay_adds_what_more_there_is() {
    let mut world = world();
    world.model("stg.events", INCREMENTAL, &STAGED.replace("CAST(amount AS INT) AS amount", "amount"));
    world.model("stg.some", "kind FULL", "SELECT id, ds FROM stg.events");
    world.model("mart.some", "kind FULL", "SELECT id FROM stg.some");
    world.plan_and_apply("prod");
    world.model("stg.some", "kind FULL", "SELECT * FROM stg.events");
    let planned = world.plan("prod");
    assert_eq!(find(&planned, "stg.some").category, Some(NonBreaking));
    assert_eq!(find(&planned, "mart.some").category, Some(IndirectNonBreaking));
    world.model("stg.some", "kind FULL", "SELECT * EXCLUDE (amount) FROM stg.events");
    assert_eq!(find(&world.plan("prod"), "stg.some").category, Some(Metadata), "the same columns");
}

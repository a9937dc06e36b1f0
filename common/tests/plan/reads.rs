//! What a batch reads of each upstream, from project files to ranges.

use coord_common::id::ModelName;
use coord_common::interval::{Interval, Timestamp};
use coord_common::snapshot::reads;
use coord_common::task::ReadRange;

use crate::world::{INCREMENTAL, World, world};

const DAY: i64 = 86_400_000;

/// The range that the batch of the 10th to the 12th of January reads of an upstream, in days of
/// January; nothing where it is the whole of it.
fn days_read(world: &World, model: &str, upstream: &str) -> Option<(i64, i64)> {
    let snapshots = world.load().1.by_name;
    let model: ModelName = model.parse().expect("a name");
    let lookup = |name: &ModelName| snapshots.get(name).cloned();
    let all = reads(&snapshots[&model], &lookup);
    let range = all.get(&upstream.parse::<ModelName>().expect("a name")).expect("it reads it");
    if matches!(range, ReadRange::Whole { .. }) {
        return None;
    }
    let january = 19_723; // days from 1970 to 1 January 2024
    let at = |day: i64| Timestamp((january + day - 1) * DAY);
    let read = range.of(Interval { start: at(10), end: at(13) });
    Some((read.start.0 / DAY - january + 1, read.end.0 / DAY - january + 1))
}

#[test]
fn a_batch_reads_its_own_days() {
    assert_eq!(days_read(&world(), "mart.daily", "stg.events"), Some((10, 13)));
}

#[test]
fn a_rolling_window_reads_the_days_before() {
    let mut world = world();
    let query = "SELECT d.ds, SUM(p.amount) AS total FROM stg.events AS d JOIN stg.events AS p \
        ON p.ds BETWEEN d.ds - INTERVAL 6 DAY AND d.ds \
        WHERE d.ds BETWEEN @start_date AND @end_date \
        AND p.ds BETWEEN @start_date - INTERVAL 6 DAY AND @end_date GROUP BY d.ds";
    world.model("mart.rolling", INCREMENTAL, query);
    assert_eq!(days_read(&world, "mart.rolling", "stg.events"), Some((4, 13)));
}

#[test]
fn bounds_inside_an_embedded_model_count() {
    let mut world = world();
    world.model("stg.view", "kind EMBEDDED", "SELECT * FROM stg.events WHERE amount > 0");
    world.model(
        "mart.of",
        INCREMENTAL,
        "SELECT ds, amount FROM stg.view WHERE ds BETWEEN @start_ds AND @end_ds",
    );
    assert_eq!(days_read(&world, "mart.of", "stg.events"), Some((10, 13)));
}

#[test]
fn an_unbounded_read_beside_a_bounded_one_is_the_whole() {
    let mut world = world();
    world.model("stg.view", "kind EMBEDDED", "SELECT * FROM stg.events");
    let query = "SELECT e.ds, e.amount FROM stg.events AS e \
        WHERE e.ds BETWEEN @start_ds AND @end_ds AND e.amount < (SELECT MAX(amount) FROM stg.view)";
    world.model("mart.of", INCREMENTAL, query);
    assert_eq!(days_read(&world, "mart.of", "stg.events"), None);
}

#[test]
fn tables_without_time_ranges_are_read_whole() {
    let world = world();
    assert_eq!(days_read(&world, "stg.events", "raw.events"), None);
    assert_eq!(days_read(&world, "mart.users", "stg.events"), None);
}

#[test]
fn a_model_that_reads_itself_has_the_types_of_what_it_reads() {
    let mut world = world();
    world.model(
        "mart.self",
        INCREMENTAL,
        "SELECT ds, CAST(COUNT(*) AS INT) AS n FROM stg.events WHERE ds BETWEEN @start_ds AND @end_ds \
         AND ds NOT IN (SELECT ds FROM mart.self WHERE ds < @start_ds) GROUP BY ds",
    );
    let (_, snapshots, _) = world.load();
    let snapshot = &snapshots.by_name[&"mart.self".parse().expect("a name")];
    let columns = snapshot.columns.iter().flatten();
    let types: Vec<(&str, &str)> = columns.map(|c| (c.name.as_str(), c.data_type.as_str())).collect();
    assert_eq!(types, [("ds", "DATE"), ("n", "INT")]);
}

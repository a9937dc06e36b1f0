//! What holds of plans of any small project and any edit of it.

use std::collections::BTreeMap;

use coord_common::plan::{Planned, Purpose};
use proptest::prelude::*;

use crate::world::{INCREMENTAL, World, empty, options};

/// One model of a random project: it reads some of those before it.
#[derive(Debug, Clone)]
struct Part {
    kind: usize,
    reads: Vec<prop::sample::Index>,
    literal: u8,
    columns: u8,
    owner: u8,
    spaces: u8,
}

/// What is done to one model.
#[derive(Debug, Clone)]
enum Edit {
    Literal(u8),
    Columns(u8),
    Owner(u8),
    Spaces(u8),
    Kind(usize),
    Reads(Vec<prop::sample::Index>),
    Remove,
}

const KINDS: [&str; 9] = [
    INCREMENTAL,
    "kind FULL",
    "kind VIEW",
    "kind INCREMENTAL_BY_TIME_RANGE (time_column ds, batch_size 2, lookback 1)",
    "kind INCREMENTAL_BY_UNIQUE_KEY (unique_key ds)",
    "kind EMBEDDED",
    "kind INCREMENTAL_UNMANAGED (on_destructive_change allow)",
    "kind INCREMENTAL_BY_PARTITION (on_destructive_change allow), partitioned_by ds",
    "kind SCD_TYPE_2_BY_COLUMN (unique_key ds, columns [ds], on_destructive_change allow)",
];
/// Kinds whose changes make another table; those of the rest keep it.
const REBUILT: usize = 6;

fn part(kinds: usize) -> impl Strategy<Value = Part> {
    let reads = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    (0..kinds, reads, 0..3u8, 0..3u8).prop_map(|(kind, reads, literal, columns)| Part {
        kind,
        reads,
        literal,
        columns,
        owner: 0,
        spaces: 0,
    })
}

fn parts(kinds: usize) -> impl Strategy<Value = Vec<Part>> {
    prop::collection::vec(part(kinds), 1..6)
}

fn edit(kinds: usize) -> impl Strategy<Value = Edit> {
    prop_oneof![
        (0..3u8).prop_map(Edit::Literal),
        (0..3u8).prop_map(Edit::Columns),
        (0..3u8).prop_map(Edit::Owner),
        (0..3u8).prop_map(Edit::Spaces),
        (0..kinds).prop_map(Edit::Kind),
        prop::collection::vec(any::<prop::sample::Index>(), 0..3).prop_map(Edit::Reads),
        Just(Edit::Remove),
    ]
}

fn edits(kinds: usize) -> impl Strategy<Value = Vec<(prop::sample::Index, Edit)>> {
    prop::collection::vec((any::<prop::sample::Index>(), edit(kinds)), 1..4)
}

fn edited(parts: &[Part], edits: &[(prop::sample::Index, Edit)]) -> Vec<Part> {
    let mut parts = parts.to_vec();
    for (at, edit) in edits {
        let last = parts.len() - 1;
        let part = at.get_mut(&mut parts);
        match edit.clone() {
            Edit::Literal(literal) => part.literal = literal,
            Edit::Columns(columns) => part.columns = columns,
            Edit::Owner(owner) => part.owner = owner,
            Edit::Spaces(spaces) => part.spaces = spaces,
            Edit::Kind(kind) => part.kind = kind,
            Edit::Reads(reads) => part.reads = reads,
            // Nothing reads the last one.
            Edit::Remove if last > 0 => drop(parts.pop()),
            Edit::Remove => {}
        }
    }
    parts
}

/// The project's files.
fn write(world: &mut World, parts: &[Part]) {
    world.files.retain(|path, _| !path.starts_with("models/"));
    for (n, part) in parts.iter().enumerate() {
        let own: Vec<String> = (0..part.columns).map(|c| format!(", ds AS c{c}")).collect();
        let literal = format!("CAST({} AS INT) AS x{}", part.literal, own.concat());
        let query = match part.reads.iter().map(|index| index.index(n.max(1))).max().filter(|_| n > 0) {
            Some(parent) => format!(
                "SELECT{}ds, {literal} FROM db.m{parent} WHERE ds BETWEEN @start_ds AND @end_ds",
                " ".repeat(1 + usize::from(part.spaces))
            ),
            None => format!("SELECT ds, {literal} FROM (SELECT CAST('2024-01-02' AS DATE) AS ds) AS t"),
        };
        // FULL and VIEW know no start and end.
        let query = match part.kind {
            1 | 2 | 5 => query.replace(" WHERE ds BETWEEN @start_ds AND @end_ds", ""),
            _ => query,
        };
        let properties = format!("{}, owner o{}", KINDS[part.kind], part.owner);
        world.model(&format!("db.m{n}"), &properties, &query);
    }
}

fn bytes(planned: &Planned) -> Vec<u8> {
    serde_json::to_vec(&planned.plan).expect("a plan is JSON")
}

/// A plan of the project with its files in another order.
fn backwards(world: &World) -> Planned {
    let (project, snapshots, _) = world.load_in_order(world.files.keys().rev());
    let options = options("prod");
    world.plan_snapshots(&project, &snapshots.by_name, &options, Purpose::Change).expect("a plan")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Same files, state and time: same bytes, in whatever order files come.
    #[test]
    fn planning_is_deterministic(parts in parts(KINDS.len()), edits in edits(KINDS.len())) {
        let mut world = empty();
        write(&mut world, &parts);
        prop_assert_eq!(bytes(&world.plan("prod")), bytes(&backwards(&world)));
        world.plan_and_apply("prod");
        write(&mut world, &edited(&parts, &edits));
        let planned = world.plan("prod");
        prop_assert_eq!(bytes(&planned), bytes(&backwards(&world)));
        prop_assert_eq!(bytes(&planned), bytes(&world.plan("prod")));
    }

    /// What was applied leaves nothing to plan.
    #[test]
    fn planning_twice_gives_an_empty_plan(parts in parts(KINDS.len()), edits in edits(KINDS.len())) {
        let mut world = empty();
        write(&mut world, &parts);
        world.plan_and_apply("prod");
        prop_assert!(world.plan("prod").plan.is_empty());
        write(&mut world, &edited(&parts, &edits));
        world.plan_and_apply("prod");
        let again = world.plan("prod").plan;
        prop_assert!(again.is_empty(), "{again:#?}");
    }

    /// Nor does what was applied to development, where it isn't but a preview.
    #[test]
    fn planning_development_twice_gives_an_empty_plan(parts in parts(REBUILT), edits in edits(REBUILT)) {
        let mut world = empty();
        write(&mut world, &parts);
        world.plan_and_apply("prod");
        write(&mut world, &edited(&parts, &edits));
        // Where nothing differs there is no environment.
        if let Ok(planned) = world.try_plan(&options("dev")) {
            world.apply(&planned);
            let again = world.plan("dev").plan;
            prop_assert!(again.is_empty(), "{again:#?}");
        }
    }

    /// Taking an edit back shows the first tables again, and computes nothing.
    #[test]
    fn reverting_needs_no_backfill(parts in parts(REBUILT), edits in edits(REBUILT)) {
        let mut world = empty();
        write(&mut world, &parts);
        world.plan_and_apply("prod");
        let shown = |world: &World| -> BTreeMap<_, _> {
            let models = &world.environments.values().next().expect("production").models;
            models.iter().map(|(name, model)| (name.clone(), (model.snapshot, model.table.clone()))).collect()
        };
        let first = shown(&world);
        write(&mut world, &edited(&parts, &edits));
        world.plan_and_apply("prod");
        write(&mut world, &parts);
        let back = world.plan_and_apply("prod").plan;
        let missing: Vec<_> = back.models.iter().filter(|model| !model.missing.is_empty()).collect();
        prop_assert!(missing.is_empty(), "{missing:#?}");
        prop_assert_eq!(shown(&world), first);
    }
}

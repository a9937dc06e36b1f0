//! Environments come and go, move their views, and leave tables behind.

use std::collections::{BTreeMap, BTreeSet};

use coord_common::interval::Timestamp;
use coord_common::plan::{Garbage, Needed, Retention, garbage, views};
use proptest::prelude::*;

use crate::world::{INCREMENTAL, STAGED, World, options, world};

const ENVIRONMENTS: [&str; 3] = ["prod", "dev", "other"];

/// One thing that happens to a project.
#[derive(Debug, Clone)]
enum Step {
    Edit(usize, u8),
    Apply(usize),
    End(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..3_usize, 0..4_u8).prop_map(|(model, version)| Step::Edit(model, version)),
        (0..3_usize).prop_map(Step::Apply),
        (1..3_usize).prop_map(Step::End),
    ];
    prop::collection::vec(step, 1..14)
}

fn edit(world: &mut World, model: usize, version: u8) {
    match model {
        0 => world.model(
            "stg.events",
            INCREMENTAL,
            &STAGED.replace("id, ds,", &format!("id + {version} AS id, ds,")),
        ),
        1 => world.model(
            "mart.users",
            "kind FULL",
            &format!(
                "SELECT id, CAST(SUM(amount) AS INT) AS total, {version} AS v FROM stg.events GROUP BY id"
            ),
        ),
        _ => world.model(
            "mart.top",
            "kind VIEW",
            &format!("SELECT id, total FROM mart.users WHERE total > {version}"),
        ),
    }
}

/// A world in which some things happened, and all environments that it ever showed.
fn lived(steps: &[Step]) -> (World, Vec<coord_common::plan::Environment>) {
    let mut world = world();
    let mut shown = Vec::new();
    world.plan_and_apply("prod");
    for step in steps {
        match step {
            Step::Edit(model, version) => edit(&mut world, *model, *version),
            Step::Apply(which) => {
                // A new environment that would differ in nothing is refused.
                let Ok(planned) = world.try_plan(&options(ENVIRONMENTS[*which])) else { continue };
                shown.extend(world.environments.get(&planned.plan.environment).cloned());
                world.apply(&planned);
            }
            Step::End(which) => {
                world.environments.remove(&ENVIRONMENTS[*which].parse().expect("a name of ours"));
            }
        }
    }
    (world, shown)
}

fn collect(world: &World, needed: &Needed) -> Garbage {
    garbage(&world.records, needed, |_| true)
}

fn needed_by_all(world: &World) -> Needed {
    let mut needed = Needed::default();
    for environment in world.environments.values() {
        needed.add_environment(&environment.models);
    }
    needed
}

/// Takes what is collected out of the world, as the janitor does.
fn remove(world: &mut World, garbage: &Garbage) {
    world.records.retain(|id, _| !garbage.snapshots.contains(id));
    world.tables.retain(|table, _| !garbage.tables.contains_key(table));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_that_is_referenced_is_ever_collected(
        steps in steps(),
        kept in any::<prop::sample::Index>(),
        expired in any::<u64>(),
    ) {
        let (world, shown) = lived(&steps);
        let mut needed = needed_by_all(&world);
        // One earlier promotion is within the window, and one plan is under way.
        if !shown.is_empty() {
            needed.add_environment(&kept.get(&shown).models);
        }
        let planned = world.try_plan(&options("dev"));
        if let Ok(planned) = &planned {
            needed.add_plan(&planned.plan);
        }
        let over = |record: &coord_common::snapshot::SnapshotRecord| (record.id().0.0 as u64 ^ expired) & 1 == 0;
        let garbage = garbage(&world.records, &needed, over);
        prop_assert!(garbage.snapshots.is_disjoint(&needed.snapshots));
        let tables: BTreeSet<_> = garbage.tables.keys().cloned().collect();
        prop_assert!(tables.is_disjoint(&needed.tables));
        for record in world.records.values() {
            if garbage.snapshots.contains(&record.id()) {
                prop_assert!(over(record), "its time isn't over");
            } else {
                prop_assert!(!tables.contains(&record.table(false)), "another snapshot has it, too");
                prop_assert!(!tables.contains(&record.table(true)));
            }
        }
    }

    #[test]
    fn what_is_left_plans_as_before(steps in steps()) {
        let (mut world, _) = lived(&steps);
        let garbage = collect(&world, &needed_by_all(&world));
        let before: Vec<_> = world.environments.keys().map(|name| world.run(name.as_str()).plan).collect();
        remove(&mut world, &garbage);
        let after: Vec<_> = world.environments.keys().map(|name| world.run(name.as_str()).plan).collect();
        prop_assert_eq!(before, after);
        // A second look finds nothing more.
        let again = collect(&world, &needed_by_all(&world));
        prop_assert!(again.snapshots.is_empty() && again.tables.is_empty());
    }
}

#[test]
fn an_environments_tables_go_with_it_but_for_those_that_production_has_taken_over() {
    let mut world = world();
    world.plan_and_apply("prod");
    edit(&mut world, 1, 1);
    world.plan_and_apply("dev");
    let both = collect(&world, &needed_by_all(&world));
    assert!(both.snapshots.is_empty() && both.tables.is_empty());
    world.environments.remove(&"dev".parse().unwrap());
    let dev = collect(&world, &needed_by_all(&world));
    let models: BTreeSet<&str> = dev.tables.keys().map(|table| table.model.as_str()).collect();
    assert_eq!(models, BTreeSet::from(["mart.top", "mart.users"]));
    // Nothing goes before its time.
    let young = garbage(&world.records, &needed_by_all(&world), |_| false);
    assert!(young.snapshots.is_empty() && young.tables.is_empty());
    world.plan_and_apply("prod");
    let before = collect(&world, &needed_by_all(&world));
    assert_eq!(before.snapshots.len(), 2, "what production showed before");
    assert!(dev.tables.keys().all(|table| !before.tables.contains_key(table) || table.dev));
}

#[test]
fn the_window_holds_the_last_promotions_that_are_young_and_the_one_that_is_shown() {
    let retention = Retention { promotions: 3, promotion_age: 100, plan_age: 0 };
    let at = |replaced: &[(u64, Option<i64>)]| -> Vec<u64> {
        let all: BTreeMap<u64, Option<Timestamp>> =
            replaced.iter().map(|(seq, at)| (*seq, at.map(Timestamp))).collect();
        retention.window(&all, Timestamp(1000)).into_iter().collect()
    };
    type Case = (&'static [(u64, Option<i64>)], &'static [u64]);
    let cases: [Case; 5] = [
        (&[], &[]),
        (&[(1, None)], &[1]),
        (&[(1, Some(950)), (2, Some(960)), (3, Some(970)), (4, Some(980)), (5, None)], &[2, 3, 4, 5]),
        (&[(1, Some(100)), (2, Some(900)), (3, Some(901)), (4, None)], &[3, 4]),
        (&[(1, Some(1)), (9, None)], &[9]),
    ];
    for (replaced, kept) in cases {
        assert_eq!(at(replaced), kept, "{replaced:?}");
    }
}

#[test]
fn views_move_when_their_suffix_does_and_the_old_ones_go() {
    let mut world = world();
    world.plan_and_apply("prod");
    edit(&mut world, 1, 1);
    let first = world.plan_and_apply("dev");
    assert!(world.plan("dev").plan.is_empty());
    let config = world.files["config.yaml"].clone();
    world.write("config.yaml", &format!("{config}environment_suffix_target: table\n"));
    let prod = world.plan("prod").plan;
    assert!(
        prod.target
            .values()
            .filter_map(|model| model.view.as_ref())
            .all(|view| !view.to_string().contains("__"))
    );
    let moved = world.plan("dev").plan;
    assert!(!moved.is_empty() && moved.has_changes && !moved.requires_backfill());
    let (make, drop) = views(Some(&first.plan.target), &moved.target);
    let names = |relations: Vec<String>| relations.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(
        names(make.iter().map(|view| view.view.to_string()).collect()),
        names(vec!["mart.users__dev".to_owned(), "mart.top__dev".to_owned()])
    );
    assert_eq!(
        names(drop.iter().map(ToString::to_string).collect()),
        names(vec!["mart__dev.users".to_owned(), "mart__dev.top".to_owned()])
    );
}

#[test]
fn environments_live_as_long_as_the_project_says() {
    let mut world = world();
    world.plan_and_apply("prod");
    edit(&mut world, 1, 1);
    let ttl = |world: &World, name: &str| world.plan(name).plan.layout.environment_ttl;
    assert_eq!(ttl(&world, "prod"), None);
    assert_eq!(ttl(&world, "dev").as_deref(), Some("in 1 week"));
    let config = world.files["config.yaml"].clone();
    let more = "environment_ttl: in 3 days\nsnapshot_ttl: in 2 days\npinned_environments: [Staging]\n";
    world.write("config.yaml", &format!("{config}{more}"));
    assert_eq!(ttl(&world, "dev").as_deref(), Some("in 3 days"));
    assert_eq!(ttl(&world, "staging"), None);
    assert_eq!(world.plan("dev").plan.layout.snapshot_ttl, "in 2 days");
}

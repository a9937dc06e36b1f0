//! Several users at once, and plans that are no longer what they were.

use coord_tests::cli::{Finished, plan_id};
use coord_tests::fleet::{Fleet, FleetOptions, wait_until};
use coord_tests::project::{daily, sales};

use crate::workers::{assert_all_is_done_once, start_plan};

fn code(finished: &Finished) -> String {
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    finished.error()["code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn of_two_plans_for_one_environment_one_is_refused() {
    let fleet = Fleet::start(FleetOptions::default(), sales());
    let cli = fleet.cli();
    let first = plan_id(&cli.plan(&[]));
    fleet.project.write("models/daily.sql", &daily(", COUNT(*)::INT AS sales"));
    let second = plan_id(&cli.plan(&[]));
    assert_ne!(first, second);
    fleet.pause(0.05);
    let racing = [&first, &second].map(|id| cli.spawn(&["apply", id, "--format", "json"]));
    let ended = racing.map(coord_tests::cli::Running::wait);
    let (won, lost): (Vec<_>, Vec<_>) = ended.iter().partition(|ended| ended.code == Some(0));
    assert_eq!((won.len(), lost.len()), (1, 1), "{ended:#?}");
    let refusal = code(lost[0]);
    assert!(refusal == "environment-busy" || refusal == "stale-plan", "{:#?}", lost[0]);
    assert_eq!(fleet.revision("prod"), Some(1));

    let loser = if plan_id(&won[0].json()) == first { &second } else { &first };
    let late = cli.run(&["apply", loser, "--format", "json"]);
    assert_eq!(code(&late), "stale-plan", "{late:#?}");
    let message = late.error()["message"].to_string();
    assert!(message.contains("prod") && message.contains("shop.daily"), "it names what changed: {message}");
}

#[test]
fn two_applies_of_one_plan_share_its_work() {
    let fleet = Fleet::start(FleetOptions::default(), sales());
    fleet.pause(0.05);
    let cli = fleet.cli();
    let id = plan_id(&cli.plan(&[]));
    let both = [0, 1].map(|_| cli.spawn(&["apply", &id]));
    for ended in both.map(coord_tests::cli::Running::wait) {
        assert_eq!(ended.code, Some(0), "{ended:#?}");
    }
    assert_all_is_done_once(&fleet);
    let again = cli.ok(&["apply", &id]);
    assert!(again.stdout.contains("finished already"), "{again:#?}");
    let as_json = cli.json(&["apply", &id]);
    assert_eq!(plan_id(&as_json), id);
    assert_eq!(fleet.committed(), 61);
}

#[test]
fn a_cancelled_plan_is_resumed_by_applying_it_again() {
    let fleet = Fleet::start(FleetOptions::default(), sales());
    fleet.pause(0.1);
    let id = start_plan(&fleet);
    let follower = fleet.cli().spawn(&["watch", &id, "--format", "json"]);
    fleet.wait_for_commits(12);
    fleet.cli().ok(&["cancel", &id]);
    assert_eq!(code(&follower.wait()), "cancelled");
    wait_until("the end", || fleet.plan_state(&id) == "cancelled");
    assert_eq!(fleet.revision("prod"), None);
    let done = fleet.committed();
    assert!((12..61).contains(&done), "{done}");
    fleet.cli().ok(&["cancel", &id]);
    assert_eq!(fleet.plan_state(&id), "cancelled", "a cancel whose answer got lost can be made again");
    fleet.pause(0.0);
    let resumed = fleet.cli().json(&["apply", &id]);
    let executed = coord_tests::cli::executed_in_all(&resumed) as i64;
    // The seed and the view don't log themselves, and may be among what is left.
    assert!((61 - done..=61 - done + 2).contains(&executed), "{executed} after {done}");
    assert_all_is_done_once(&fleet);
    assert_eq!(fleet.revision("prod"), Some(1));
}

#[test]
fn two_environments_with_the_same_change_share_its_tables_and_its_work() {
    let fleet = Fleet::start(FleetOptions::default(), sales());
    let cli = fleet.cli();
    let ids = ["one", "two"].map(|environment| plan_id(&cli.plan(&[environment])));
    fleet.pause(0.05);
    let racing = ids.each_ref().map(|id| cli.spawn(&["apply", id]));
    for ended in racing.map(coord_tests::cli::Running::wait) {
        assert_eq!(ended.code, Some(0), "{ended:#?}");
    }
    assert_eq!(fleet.committed_twice(), Vec::<Vec<String>>::new());
    assert_eq!(fleet.committed(), 61);
    assert_eq!((fleet.revision("one"), fleet.revision("two")), (Some(1), Some(1)));
    assert_eq!(fleet.digest("shop__one.rolling"), fleet.digest("shop__two.rolling"));
    assert_eq!(fleet.count("SELECT COUNT(*) FROM shop__two.daily"), 120);
}

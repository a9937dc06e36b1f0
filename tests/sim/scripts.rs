//! Stories that are told word by word: what once went wrong, where chance rarely comes by.

use std::sync::Arc;
use std::time::Duration;

use coordinator::store::keys;
use tokio::time::sleep;

use crate::client::Client;
use crate::fault::{Knobs, Mutant};
use crate::foreign;
use crate::invariants::FOREIGN;
use crate::node::Fleet;
use crate::project::Project;
use crate::random::Random;
use crate::run::{Report, act, end};
use crate::store::NodeStore;
use crate::story::{Job, Play};
use crate::world::{Host, World, lock};

fn tell(script: impl AsyncFnOnce(Arc<World>, Arc<Fleet>)) -> Report {
    let versions = vec![Project::of_one(1), Project::of_one(2)];
    let world = || World::with(Random::new(1), Mutant::None, Knobs::none(), Play::scripted(versions));
    let report = act(0, world, async |world: Arc<World>, fleet| {
        script(world.clone(), fleet).await;
        end(&world).await;
    });
    assert_eq!(report.violation, None, "{}", report.log);
    report
}

/// How much a plan has left to do.
fn left(world: &World, plan: &str) -> usize {
    lock(&world.store).under(&format!("{}{plan}/", keys::TODOS)).count()
}

async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        sleep(Duration::from_millis(5)).await;
    }
}

/// What is on record to be done isn't done again where another plan has done it meanwhile.
#[test]
fn a_plan_that_is_resumed_leaves_out_what_another_one_has_done() {
    let report = tell(async |world, fleet| {
        let mut ann = Client::new(&world, &fleet, "ann");
        let mut bob = Client::new(&world, &fleet, "bob");
        ann.bring(&Job::to("prod", 0)).await;
        let plan = ann.plan_for(&Job::to("prod", 1)).await;
        let before = lock(&world.checks).count.commits;
        assert_eq!(ann.apply(&plan).await.as_deref(), Ok("started"));
        until(|| lock(&world.checks).count.commits > before + 1).await;
        ann.cancel(&plan).await;
        ann.sees(&plan, "cancelled").await;
        assert_ne!(left(&world, &plan), 0, "it was cancelled too late");
        bob.bring(&Job::to("dev", 1)).await;
        let written = lock(&world.checks).count.written;
        assert_eq!(ann.apply(&plan).await.as_deref(), Ok("resumed"));
        ann.sees(&plan, "finished").await;
        assert_eq!(lock(&world.checks).count.written, written, "{}", world.log());
    });
    assert_eq!(report.counts.flips, 3, "{}", report.log);
}

/// Where the pointer moved in a former term, by other means than through its leader, no compare with
/// what this term has read can tell.
#[test]
fn a_pointer_that_was_moved_in_a_former_term_is_not_overwritten() {
    let report = tell(async |world, fleet| {
        let mut ann = Client::new(&world, &fleet, "ann");
        ann.bring(&Job::to("prod", 0)).await;
        let plan = ann.plan_for(&Job::to("prod", 1)).await;
        assert_eq!(ann.apply(&plan).await.as_deref(), Ok("started"));
        let store = NodeStore { world: world.clone(), host: Host::new(FOREIGN) };
        while !matches!(foreign::flip(&store, &world).await, Ok(true)) {
            assert_ne!(left(&world, &plan), 0, "it was done too early");
            sleep(Duration::from_millis(1)).await;
        }
        fleet.crash("c0");
        fleet.start("c0");
        ann.sees(&plan, "failed").await;
        assert_eq!(ann.apply(&plan).await, Err("stale-plan".to_owned()));
        ann.bring(&Job::to("prod", 1)).await;
    });
    assert_eq!(report.counts.flips, 2, "{}", report.log);
}

//! One run: a seed, from the first plan to the last check.

use std::cell::RefCell;
use std::sync::{Arc, Once};
use std::time::Duration;

use coordinator::store::keys;
use tokio::time::timeout;

use crate::client::Client;
use crate::fault::{Mutant, trouble};
use crate::foreign::{meddle, sweep};
use crate::invariants::Counts;
use crate::node::Fleet;
use crate::restore::move_house;
use crate::store::expire_leases;
use crate::story::{Job, Story};
use crate::world::{World, lock};
use crate::{in_simulated_time, outcome};

/// How long all may take once faults have ended.
const PATIENCE: Duration = Duration::from_secs(600);

/// What came of a seed.
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) violation: Option<String>,
    pub(crate) log: String,
    pub(crate) faults: u64,
    /// Simulated milliseconds.
    pub(crate) millis: u64,
    pub(crate) counts: Counts,
}

thread_local! {
    /// The first panic of this thread's run: tasks that panic end quietly otherwise.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANIC.with_borrow_mut(|first| {
                first.get_or_insert_with(|| info.to_string());
            });
            usual(info);
        }));
    });
}

/// Runs a seed to its end, or to the first invariant that is broken.
pub(crate) fn run(seed: u64, mutant: Mutant) -> Report {
    act(seed, || World::new(seed, mutant), async |world, fleet| play(&world, &fleet).await)
}

/// Runs what is scripted, in a world of its own.
pub(crate) fn act(
    seed: u64,
    world: impl FnOnce() -> Arc<World>,
    script: impl AsyncFnOnce(Arc<World>, Arc<Fleet>),
) -> Report {
    hear_panics();
    PANIC.take();
    let mut report = in_simulated_time(async move {
        let world = world();
        world.note(&format!("seed {seed} {:?} {:?}", world.knobs, world.play));
        let fleet = Fleet::new(&world);
        tokio::spawn(expire_leases(world.clone()));
        for name in fleet.names() {
            fleet.start(&name);
        }
        tokio::select! {
            biased;
            () = world.broken.notified() => {}
            () = script(world.clone(), fleet.clone()) => {}
        }
        Report {
            seed,
            violation: world.violation(),
            log: world.log(),
            faults: world.faults(),
            millis: world.now(),
            counts: lock(&world.checks).count.clone(),
        }
    });
    if let Some(panic) = PANIC.take() {
        report.violation.get_or_insert(panic);
    }
    report
}

async fn play(world: &Arc<World>, fleet: &Arc<Fleet>) {
    tokio::spawn(trouble(world.clone(), fleet.clone()));
    if world.mutant == Mutant::Janitor {
        tokio::spawn(sweep(world.clone()));
    }
    if world.knobs.foreign {
        tokio::spawn(meddle(world.clone()));
    }
    if world.play.story == Story::Restored {
        tokio::spawn(move_house(world.clone(), fleet.clone()));
    }
    let clients: Vec<_> = world
        .play
        .jobs
        .iter()
        .enumerate()
        .map(|(n, jobs)| {
            let (mut client, jobs) = (Client::new(world, fleet, &format!("u{n}")), jobs.clone());
            tokio::spawn(async move { client.work(&jobs).await })
        })
        .collect();
    let patience = Duration::from_millis(world.knobs.trouble) + PATIENCE;
    let all = async {
        for client in clients {
            // A client that panics is heard of by the hook.
            let _ = client.await;
        }
    };
    if timeout(patience, all).await.is_err() {
        world.violate("somebody waits for ever");
        return;
    }
    if !world.is_calm() {
        world.calm_down();
        fleet.revive();
    }
    if world.play.story == Story::Runs {
        let last = Job::last_run();
        if timeout(PATIENCE, Client::new(world, fleet, "last").work(&[last])).await.is_err() {
            world.violate("the last run has no end");
            return;
        }
    }
    end(world).await;
}

/// Waits until all is at rest, and looks at what is left.
pub(crate) async fn end(world: &World) {
    if timeout(PATIENCE, at_rest(world)).await.is_err() {
        world.violate("it doesn't come to rest");
        return;
    }
    outcome::check(world);
}

/// Waits until nothing is in flight.
async fn at_rest(world: &World) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let db = lock(&world.store);
        let idle = [keys::LEASES, keys::APPLYING].iter().all(|prefix| db.under(prefix).next().is_none());
        if idle {
            return;
        }
    }
}

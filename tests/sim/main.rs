//! The fleet in one thread: real coordinators, workers and clients on simulated time, with a network,
//! a store and a warehouse that fail as a seed says. What must hold is checked at every step.

mod client;
mod engine;
mod fault;
mod foreign;
mod invariants;
mod net;
mod node;
mod outcome;
mod peek;
mod project;
mod random;
mod reader;
mod restore;
mod run;
mod scripts;
mod store;
mod story;
mod tidy;
mod warehouse;
mod world;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fault::Mutant;
use run::{Report, run};

/// Runs something on one thread, where time passes only when all wait.
pub(crate) fn in_simulated_time<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime of one thread can be built").block_on(work)
}

/// A number from the environment.
fn given(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// What many seeds came to.
#[derive(Default)]
struct Sum {
    seeds: u64,
    faults: u64,
    millis: u64,
    counts: invariants::Counts,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.faults += report.faults;
        self.millis += report.millis;
        let (all, one) = (&mut self.counts, &report.counts);
        all.terms += one.terms;
        all.grants += one.grants;
        all.lost += one.lost;
        all.commits += one.commits;
        all.flips += one.flips;
        all.written += one.written;
        all.published += one.published;
        all.drops += one.drops;
        all.rollbacks += one.rollbacks;
    }

    fn print(&self, took: Duration) {
        let Self { seeds, faults, millis, counts } = self;
        println!(
            "{seeds} seeds in {:.0} s: {} simulated hours, {faults} faults; {counts:?}",
            took.as_secs_f64(),
            millis / 3_600_000
        );
    }
}

/// Runs seeds on all cores until one fails or `more` says that it is enough.
fn explore(mutant: Mutant, from: u64, more: impl Fn(u64) -> bool + Sync) -> (Sum, Option<Report>) {
    let (next, found) = (AtomicU64::new(from), AtomicBool::new(false));
    let results = Mutex::new((Sum::default(), None::<Report>));
    // To see all of them, while mending.
    let keeps_on = given("SIM_KEEP_ON").is_some();
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if found.load(Ordering::Relaxed) || !more(seed) {
                        return;
                    }
                    let report = run(seed, mutant);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.0.add(&report);
                    if let Some(what) = &report.violation {
                        println!("seed {seed}: {what}");
                        found.store(!keeps_on, Ordering::Relaxed);
                        // The least of those that failed, whichever thread was faster.
                        if results.1.as_ref().is_none_or(|other| report.seed < other.seed) {
                            results.1 = Some(report);
                        }
                    }
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn expect_no_violation(found: Option<Report>) {
    let Some(report) = found else { return };
    let lines: Vec<&str> = report.log.lines().collect();
    let tail = lines[lines.len().saturating_sub(60)..].join("\n");
    let (seed, what) = (report.seed, report.violation.unwrap_or_default());
    panic!(
        "seed {seed}: {what}\n{tail}\nreplay: SIM_SEED={seed} cargo test -p coord-tests --test sim replay -- --nocapture"
    );
}

#[test]
fn a_fleet_keeps_what_it_promises_whatever_goes_wrong() {
    let seeds = given("SIM_SEEDS").unwrap_or(2000);
    let from = given("SIM_FROM").unwrap_or(0);
    let started = Instant::now();
    let (sum, found) = explore(Mutant::None, from, |seed| seed < from + seeds);
    sum.print(started.elapsed());
    expect_no_violation(found);
    assert!(sum.counts.lost > 0 && sum.counts.flips > 0, "{:?}: faults that nobody felt", sum.counts);
}

#[test]
fn the_same_seed_takes_the_same_way() {
    let seeds = given("SIM_SEEDS").map_or(50, |seeds| seeds.min(50));
    for seed in 0..seeds {
        let [one, two] = [(), ()].map(|()| run(seed, Mutant::None));
        let differs = one.log.lines().zip(two.log.lines()).find(|(one, two)| one != two);
        assert!(one.log == two.log, "seed {seed} went another way: {differs:?}");
    }
}

#[test]
fn each_safety_condition_is_missed_when_it_is_taken_away() {
    for mutant in Mutant::ALL.into_iter().filter(|mutant| *mutant != Mutant::None) {
        let started = Instant::now();
        let (sum, found) = explore(mutant, 0, |seed| seed < 1000);
        let found =
            found.unwrap_or_else(|| panic!("without {mutant:?}, nothing failed in {} seeds", sum.seeds));
        let (seed, what) = (found.seed, found.violation.unwrap_or_default());
        println!("without {mutant:?}: seed {seed} after {:.1} s: {what}", started.elapsed().as_secs_f64());
    }
}

/// `SIM_SEED=n`, and `SIM_MUTANT=Fence` or another where a condition is to be absent.
#[test]
fn replay() {
    let Some(seed) = given("SIM_SEED") else { return };
    let wanted = std::env::var("SIM_MUTANT").unwrap_or_else(|_| "None".to_owned());
    let mutant = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == wanted);
    let report = run(seed, mutant.unwrap_or_else(|| panic!("SIM_MUTANT is none of {:?}", Mutant::ALL)));
    println!("{}\n{:?}", report.log, report.counts);
    assert_eq!(report.violation, None, "seed {seed}");
}

/// For as long as `SIM_SECONDS` says, from a seed that the clock decides, or `SIM_FROM`.
#[test]
fn soak() {
    let Some(seconds) = given("SIM_SECONDS") else { return };
    let clock = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() * 1000);
    let from = given("SIM_FROM").unwrap_or_else(clock);
    let started = Instant::now();
    let (sum, found) = explore(Mutant::None, from, |_| started.elapsed().as_secs() < seconds);
    print!("from seed {from}: ");
    sum.print(started.elapsed());
    expect_no_violation(found);
}

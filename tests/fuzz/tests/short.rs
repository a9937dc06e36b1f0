//! A short run of every target: its seeds, what once broke it, and mutations that a seed determines.
//! `FUZZ_RUNS` sets how many, `FUZZ_SEED` which.

use std::path::Path;
use std::time::{Duration, Instant};

use coord_fuzz::{Mutator, TARGETS, Target};

/// The stack of the threads that meet such input in a process: tokio's workers.
const STACK_BYTES: usize = 2 << 20;
/// Processor time that one input may take, in a build that isn't optimised.
const LIMIT: Duration = Duration::from_secs(3);
const RUNS: usize = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Inputs that broke the target once, by file.
fn broke_once(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("found").join(target.name);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|f| f.path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a file")).collect()
}

/// The processor time of this process; where the system doesn't tell, the time since the start.
fn spent(since: Instant) -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
    let ticks = |at: usize| fields.as_ref()?.get(at)?.parse::<u64>().ok();
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Duration::from_millis(10 * (user + system)),
        _ => since.elapsed(),
    }
}

fn run(target: Target, runs: usize, seed: u64) {
    let mut mutator = Mutator::new(seed, target.dictionary);
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    let start = Instant::now();
    let known = [seeds, broke_once(&target)].concat();
    for n in 0..known.len() + runs {
        let input = known.get(n).cloned().unwrap_or_else(|| mutator.next(&known));
        let (begun, before) = (Instant::now(), spent(start));
        let ended = std::panic::catch_unwind(|| (target.run)(&input));
        let (took, used) = (begun.elapsed(), spent(start) - before);
        if ended.is_err() || used > LIMIT {
            let file = std::env::temp_dir().join(format!("fuzz-{}-{seed}-{n}", target.name));
            std::fs::write(&file, &input).expect("the input is kept");
            panic!(
                "{}: input {n} of seed {seed} took {took:?} ({used:?} of CPU), kept in {}",
                target.name,
                file.display()
            );
        }
    }
}

#[test]
fn no_input_breaks_a_target() {
    let runs = number("FUZZ_RUNS").map_or(RUNS, |runs| runs as usize);
    let seed = number("FUZZ_SEED").unwrap_or(1);
    let only = std::env::var("FUZZ_TARGET").ok();
    let wanted = |target: &&Target| only.as_deref().is_none_or(|name| name == target.name);
    for target in TARGETS.iter().filter(wanted).copied() {
        let started = Instant::now();
        let thread = std::thread::Builder::new().name(target.name.to_owned()).stack_size(STACK_BYTES);
        let ended = thread.spawn(move || run(target, runs, seed)).expect("a thread").join();
        assert!(ended.is_ok(), "{} found something", target.name);
        println!("{:>12}: {runs} mutations in {:.1} s", target.name, started.elapsed().as_secs_f64());
    }
}

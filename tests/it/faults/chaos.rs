//! All of it together, as a seed says: workers, coordinator, members of etcd and the warehouse die and
//! stand still, several at a time.

use std::time::Duration;

use coord_tests::faults::Dice;
use coord_tests::fleet::FleetOptions;

use crate::run::Run;

/// Workers of the fleet.
const WORKERS: usize = 3;
/// How often a plan may fail for good: a batch whose workers vanish three times, or whose warehouse
/// breaks four times, does.
const RESUMES: u32 = 30;

/// Something that was broken and is to be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    WorkerKilled(usize),
    WorkerStopped(usize),
    CoordinatorKilled,
    CoordinatorStopped,
    MemberKilled(usize),
    MemberStopped(usize),
    Warehouse,
}

impl Broken {
    fn roll(dice: &mut Dice) -> Self {
        match dice.roll(16) {
            0..=3 => Self::WorkerKilled(dice.roll(WORKERS)),
            4..=6 => Self::WorkerStopped(dice.roll(WORKERS)),
            7..=9 => Self::CoordinatorKilled,
            10 | 11 => Self::CoordinatorStopped,
            12 => Self::MemberKilled(dice.roll(3)),
            13 => Self::MemberStopped(dice.roll(3)),
            _ => Self::Warehouse,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::WorkerKilled(_) => "worker killed",
            Self::WorkerStopped(_) => "worker stopped",
            Self::CoordinatorKilled => "coordinator killed",
            Self::CoordinatorStopped => "coordinator stopped",
            Self::MemberKilled(_) => "etcd member killed",
            Self::MemberStopped(_) => "etcd member stopped",
            Self::Warehouse => "warehouse restarted",
        }
    }

    /// Whether both break the same process.
    fn meets(self, other: Self) -> bool {
        let place = |broken| match broken {
            Self::WorkerKilled(n) | Self::WorkerStopped(n) => (0, n),
            Self::CoordinatorKilled | Self::CoordinatorStopped => (1, 0),
            Self::MemberKilled(n) | Self::MemberStopped(n) => (2, n),
            Self::Warehouse => (3, 0),
        };
        place(self) == place(other)
    }

    fn begin(self, run: &mut Run) {
        let fleet = &mut run.fleet;
        match self {
            Self::WorkerKilled(n) => fleet.workers[n].kill9(),
            Self::WorkerStopped(n) => fleet.workers[n].stop(),
            Self::CoordinatorKilled => fleet.coordinator.kill9(),
            Self::CoordinatorStopped => fleet.coordinator.stop(),
            Self::MemberKilled(n) => fleet.etcd.kill9_member(n),
            Self::MemberStopped(n) => fleet.etcd.stop_member(n),
            Self::Warehouse => fleet.postgres.restart(),
        }
        run.injected.add(self.name());
    }

    fn end(self, run: &mut Run) {
        let fleet = &mut run.fleet;
        match self {
            Self::WorkerKilled(n) => fleet.workers[n].restart(),
            Self::WorkerStopped(n) => fleet.workers[n].cont(),
            Self::CoordinatorKilled => fleet.coordinator.restart(),
            Self::CoordinatorStopped => fleet.coordinator.cont(),
            Self::MemberKilled(n) => fleet.etcd.relaunch_member(n),
            Self::MemberStopped(n) => fleet.etcd.cont_member(n),
            Self::Warehouse => {}
        }
    }
}

/// Breaks one to three things at a time, until so many faults were injected or the plan is almost
/// through.
fn chaos(seed: u64, faults: u32, pause: f64) {
    println!("chaos of seed {seed}");
    let options = FleetOptions {
        workers: WORKERS,
        etcd_members: 3,
        retry_base: 1000,
        lease_ttl: 2000,
        ..FleetOptions::default()
    };
    let mut run = Run::start("chaos", options, pause);
    let mut dice = Dice::new(seed);
    let almost = run.batches() - 4;
    while run.injected.all() < faults && run.committed().unwrap_or(0) < almost {
        let mut broken: Vec<Broken> = Vec::new();
        for _ in 0..=dice.roll(3) {
            let next = Broken::roll(&mut dice);
            if !broken.iter().any(|other| other.meets(next)) {
                next.begin(&mut run);
                broken.push(next);
                std::thread::sleep(Duration::from_millis(dice.roll(400) as u64));
            }
        }
        std::thread::sleep(Duration::from_millis(dice.roll(2000) as u64));
        for broken in broken {
            broken.end(&mut run);
        }
        run.resume_if_failed();
        std::thread::sleep(Duration::from_millis(dice.roll(1000) as u64));
    }
    run.end_resuming(RESUMES);
}

#[test]
fn whatever_breaks_together_a_plan_leaves_what_an_undisturbed_one_leaves() {
    chaos(1, 14, 0.3);
}

/// The number in an environment variable.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
#[ignore = "takes minutes: make faults"]
fn many_rounds_of_chaos_leave_what_an_undisturbed_run_leaves() {
    let first = number("FAULTS_SEED", 100);
    for seed in first..first + number("FAULTS_ROUNDS", 8) {
        chaos(seed, 40, 1.0);
    }
}

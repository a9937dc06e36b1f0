//! What people do in one run: drawn from the seed, so that each run tells a short story of its own kind.

use std::ops::Range;

use crate::project::{DAYS, Project};
use crate::random::Random;

/// What a run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Story {
    /// Environments are brought to versions of a project.
    Plans,
    /// What the world holds changes, and what was computed from it is computed again.
    Restatements,
    /// Environments go back, end, are given up, and what nothing needs is removed.
    Tidying,
    /// Days pass, and runs compute them.
    Runs,
    /// The state is exported, and imported into an empty store; only where `SIM_RESTORES` is set.
    Restored,
}

/// What people do in one run.
#[derive(Debug, Clone)]
pub(crate) struct Play {
    pub(crate) story: Story,
    pub(crate) versions: Vec<Project>,
    /// For each client, what it brings about, one after the other.
    pub(crate) jobs: Vec<Vec<Job>>,
}

/// Something that one of them wants, and tries until it is so.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) environment: &'static str,
    /// The version of the project that it has at hand.
    pub(crate) version: usize,
    pub(crate) what: What,
    /// Cancel it once, after so many milliseconds.
    pub(crate) cancel_after: Option<u64>,
}

/// What is wanted of an environment.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// That it shows the version.
    Bring,
    /// That it shows what the world holds now of some days, which has just changed.
    Restate { days: Range<i64>, in_place: bool },
    /// That it has what became due since a day has passed, if `next`.
    Run { next: bool },
    /// That what nothing needs is removed.
    Collect,
    /// That it shows what it showed before.
    GoBack,
    /// That it ends.
    End,
    /// That it is given up with all that was planned for it.
    GiveUp,
}

impl What {
    /// Whether it takes a plan, which takes the environment as it is.
    pub(crate) fn keeps_models(&self) -> bool {
        matches!(self, Self::Restate { .. } | Self::Run { .. })
    }
}

impl Job {
    /// Brings an environment to a version.
    pub(crate) fn to(environment: &'static str, version: usize) -> Self {
        Self { version, ..Self::tend(environment, What::Bring) }
    }

    fn bring(random: &mut Random, version: usize) -> Self {
        Self {
            environment: if random.chance(650) { "prod" } else { "dev" },
            version,
            what: What::Bring,
            cancel_after: random.chance(250).then(|| random.between(100, 8000)),
        }
    }

    fn tend(environment: &'static str, what: What) -> Self {
        Self { environment, version: 0, what, cancel_after: None }
    }

    /// A run of production, once all others have what they want.
    pub(crate) fn last_run() -> Self {
        Self::tend("prod", What::Run { next: false })
    }

    /// A run of production, on the next day or on the same one.
    fn run(random: &mut Random, next: bool) -> Self {
        Self { environment: "prod", what: What::Run { next }, ..Self::bring(random, 0) }
    }

    fn restate(random: &mut Random, from: i64) -> Self {
        let first = random.between(from as u64, DAYS as u64) as i64;
        let days = if random.chance(400) {
            from..DAYS
        } else {
            first..(first + random.between(1, 4) as i64).min(DAYS)
        };
        let what = What::Restate { days, in_place: random.chance(250) };
        Self { environment: "prod", what, ..Self::bring(random, 0) }
    }
}

fn tidying(random: &mut Random, jobs: &mut Vec<Vec<Job>>) {
    let prod = |random: &mut Random, version| Job { environment: "prod", ..Job::bring(random, version) };
    let dev = |random: &mut Random, version| Job { environment: "dev", ..Job::bring(random, version) };
    jobs[0].push(prod(random, 1));
    if random.chance(500) {
        jobs[0].push(Job::tend("prod", What::GoBack));
    }
    if random.chance(500) {
        jobs[0].push(prod(random, 2 * random.clone().between(0, 2) as usize));
    }
    let mut other = vec![dev(random, 1)];
    if random.chance(700) {
        let end = if random.chance(500) { What::End } else { What::GiveUp };
        other.push(Job::tend("dev", end));
    }
    if random.chance(500) {
        other.push(dev(random, 2));
    }
    jobs.push(other);
    let times = random.between(1, 5);
    jobs.push((0..times).map(|_| Job::tend("prod", What::Collect)).collect());
}

/// Whether the environment says so.
fn asked(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

impl Play {
    /// Nobody does anything by himself.
    pub(crate) fn scripted(versions: Vec<Project>) -> Self {
        Self { story: Story::Plans, versions, jobs: Vec::new() }
    }

    pub(crate) fn drawn(random: &mut Random) -> Self {
        let story = match random.between(0, 100) {
            _ if asked("SIM_RESTORES") => Story::Restored,
            0..45 => Story::Plans,
            45..68 => Story::Restatements,
            68..88 => Story::Tidying,
            _ => Story::Runs,
        };
        let first = Project::drawn(random);
        let versions: Vec<Project> = (0..3)
            .scan(first, |project, _| {
                let this = project.clone();
                *project = this.changed(random);
                Some(this)
            })
            .collect();
        let first = Job { environment: "prod", ..Job::bring(random, 0) };
        let mut jobs = vec![vec![first]];
        match story {
            Story::Plans | Story::Restored => {
                if random.chance(600) {
                    jobs[0].push(Job::bring(random, 1));
                }
                if random.chance(500) {
                    jobs.push(vec![Job::bring(random, 2)]);
                }
            }
            Story::Restatements => {
                let from = versions[0].first_day();
                if random.chance(300) {
                    jobs[0].push(Job::bring(random, 1));
                }
                jobs[0].push(Job::restate(random, from));
                if random.chance(400) {
                    jobs[0].push(Job::bring(random, 2));
                }
                if random.chance(500) {
                    jobs.push(vec![Job::bring(random, 1)]);
                }
                if random.chance(300) {
                    jobs.push(vec![Job::restate(random, from)]);
                }
            }
            Story::Tidying => tidying(random, &mut jobs),
            Story::Runs => {
                jobs[0].push(Job::run(random, true));
                if random.chance(400) {
                    jobs[0].push(Job::bring(random, 2));
                }
                if random.chance(500) {
                    jobs.push(vec![Job::bring(random, 1)]);
                }
                if random.chance(300) {
                    jobs.push(vec![Job::run(random, true)]);
                }
            }
        }
        Self { story, versions, jobs }
    }

    /// Whether a model's table has one row a day.
    pub(crate) fn is_by_day(&self, model: &str) -> bool {
        let name = model.rsplit('.').next().unwrap_or_default().replace('"', "");
        self.versions[0].is_by_day(&name)
    }

    /// Whether something that is on record is computed again where readers see it.
    pub(crate) fn redoes_in_place(&self) -> bool {
        let in_place = |job: &Job| matches!(job.what, What::Restate { in_place: true, .. });
        self.jobs.iter().flatten().any(in_place)
    }
}

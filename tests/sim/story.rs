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
}

impl Job {
    fn bring(random: &mut Random, version: usize) -> Self {
        Self {
            environment: if random.chance(650) { "prod" } else { "dev" },
            version,
            what: What::Bring,
            cancel_after: random.chance(250).then(|| random.between(100, 8000)),
        }
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

impl Play {
    pub(crate) fn drawn(random: &mut Random) -> Self {
        let story = match random.between(0, 100) {
            0..70 => Story::Plans,
            _ => Story::Restatements,
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
            Story::Plans => {
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

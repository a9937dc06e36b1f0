//! A plan that is disturbed, and what must hold at its end.

use std::io::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use coord_tests::aftermath::{Aftermath, Sentinel};
use coord_tests::cli::{Finished, plan_id};
use coord_tests::faults::Injected;
use coord_tests::fleet::{Fleet, FleetOptions, query};
use coord_tests::project::{Project, sales};

/// Views of the sales project.
const VIEWS: i64 = 6;
/// How long a plan may take to recover from whatever was done to it, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(150);

/// What the first plan of a project leaves when nothing happens.
pub(crate) fn undisturbed_run_of(project: Project) -> Arc<Aftermath> {
    let mut fleet = Fleet::start(FleetOptions::default(), project);
    fleet.cli().plan_and_apply(&[]);
    Arc::new(Aftermath::of(&mut fleet))
}

/// The same of the sales project; found once.
pub(crate) fn undisturbed() -> Arc<Aftermath> {
    static FOUND: OnceLock<Arc<Aftermath>> = OnceLock::new();
    FOUND.get_or_init(|| undisturbed_run_of(sales())).clone()
}

/// Waits for something that may take long on a machine that is busy.
pub(crate) fn wait_patiently(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Says that a test didn't run, past whatever captures output.
pub(crate) fn skipped(case: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "\n!!! SKIPPED {case}: not permitted here: {why}\n");
}

/// What a command answers as soon as the coordinator does: on a busy machine it may lose its
/// leadership without any of our faults.
pub(crate) fn patiently(fleet: &Fleet, arguments: &[&str]) -> Finished {
    let start = Instant::now();
    loop {
        let answer = fleet.cli().run(arguments);
        if answer.code == Some(0) {
            return answer;
        }
        let waits =
            answer.stderr.contains("coordinator-unavailable") || answer.stderr.contains("coordinator is not");
        assert!(waits && start.elapsed() < PATIENCE, "{arguments:?}: {answer:#?}");
    }
}

/// A project's first plan, under way on a fleet that is about to be disturbed.
pub(crate) struct Run {
    pub(crate) fleet: Fleet,
    pub(crate) id: String,
    pub(crate) injected: Injected,
    case: &'static str,
    undisturbed: Arc<Aftermath>,
    sentinel: Sentinel,
}

impl Run {
    /// Starts the sales project's plan; each of its batches takes so many seconds.
    pub(crate) fn start(case: &'static str, options: FleetOptions, pause: f64) -> Self {
        // Before the fleet is there: this one needs a place, too.
        let undisturbed = undisturbed();
        Self::start_on(case, Fleet::start(options, sales()), undisturbed, pause)
    }

    /// The same with a fleet on any project of sales.
    pub(crate) fn start_on(
        case: &'static str,
        fleet: Fleet,
        undisturbed: Arc<Aftermath>,
        pause: f64,
    ) -> Self {
        Self::start_of(VIEWS, case, fleet, undisturbed, pause)
    }

    /// The same with so many views.
    pub(crate) fn start_of(
        views: i64,
        case: &'static str,
        fleet: Fleet,
        undisturbed: Arc<Aftermath>,
        pause: f64,
    ) -> Self {
        fleet.pause(pause);
        let sentinel = Sentinel::of_first_flip(&fleet, "shop", views, undisturbed.batches());
        let id = plan_id(&patiently(&fleet, &["plan", "--no-prompts", "--format", "json"]).json());
        patiently(&fleet, &["apply", &id, "--detach"]);
        Self { fleet, id, injected: Injected::default(), case, undisturbed, sentinel }
    }

    /// How many batches there are.
    pub(crate) fn batches(&self) -> i64 {
        self.undisturbed.batches()
    }

    /// The plan's state, or nothing while nobody answers.
    pub(crate) fn state(&self) -> Option<String> {
        let answer = self.fleet.cli().run(&["plans", "--format", "json"]);
        if answer.code != Some(0) {
            return None;
        }
        let document = answer.json();
        let plans = document["plans"].as_array()?;
        let plan = plans.iter().find(|plan| plan["plan_id"] == self.id.as_str())?;
        Some(plan["state"].as_str()?.to_owned())
    }

    /// How many batches have committed, or nothing while the warehouse doesn't answer.
    pub(crate) fn committed(&self) -> Option<i64> {
        let rows = query(&self.fleet.postgres, "SELECT COUNT(*) FROM public.batch_log").ok()?;
        rows[0][0].parse().ok()
    }

    /// Applies the plan again where it has failed, as its user would.
    pub(crate) fn resume_if_failed(&mut self) {
        if self.state().as_deref() == Some("failed") {
            let applied = self.fleet.cli().run(&["apply", &self.id, "--detach"]);
            if applied.code == Some(0) {
                self.injected.add("resumed");
            }
        }
    }

    /// Lets the plan come to its end at full speed, and holds what is left against an undisturbed
    /// run.
    pub(crate) fn end(self) {
        self.end_resuming(0);
    }

    /// The same where the plan may fail so many times: batches that lose their workers again and
    /// again, or their warehouse, fail for good.
    pub(crate) fn end_resuming(mut self, most: u32) {
        let start = Instant::now();
        let resumed = |run: &Self| run.injected.count("resumed");
        loop {
            // The warehouse may be just coming up.
            let _ = query(&self.fleet.postgres, "UPDATE public.pause SET seconds = 0");
            match self.state().as_deref() {
                Some("finished") => break,
                Some("failed") if resumed(&self) < most => self.resume_if_failed(),
                Some(state @ ("failed" | "cancelled")) => {
                    panic!("the plan is {state}: {}", self.fleet.cli().run(&["watch", &self.id]).stderr)
                }
                _ => {}
            }
            assert!(start.elapsed() < PATIENCE, "the plan doesn't end: {:?}", self.state());
            std::thread::sleep(Duration::from_millis(50));
        }
        let looks = self.sentinel.end();
        assert!(looks > 0, "nobody watched");
        assert_eq!(self.fleet.revision("prod"), Some(1));
        let mut undisturbed = (*self.undisturbed).clone();
        let mut left = Aftermath::of(&mut self.fleet);
        if self.injected.count("second apply") > 0 {
            undisturbed.forget_plans_but(&self.id);
            left.forget_plans_but(&self.id);
        }
        undisturbed.assert_same(&left);
        self.injected.survived(self.case);
    }
}

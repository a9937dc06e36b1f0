//! What all that is simulated shares: the seed's randomness, the time, the log, and the first
//! invariant that was broken.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::fault::{Knobs, Mutant};
use crate::invariants::Checks;
use crate::net::Net;
use crate::random::Random;
use crate::store::Db;
use crate::story::Play;
use crate::warehouse::Warehouse;

/// Everything outside of the nodes.
pub(crate) struct World {
    started: Instant,
    pub(crate) knobs: Knobs,
    pub(crate) mutant: Mutant,
    random: Mutex<Random>,
    log: Mutex<Log>,
    /// Whether faults have ended.
    calm: AtomicBool,
    /// How many days have passed.
    days: AtomicI64,
    /// Fires when an invariant is broken.
    pub(crate) broken: Notify,
    pub(crate) store: Mutex<Db>,
    pub(crate) warehouse: Mutex<Warehouse>,
    pub(crate) checks: Mutex<Checks>,
    pub(crate) net: Net,
    /// Pairs between which nothing comes through, in this direction.
    cuts: Mutex<BTreeSet<(String, String)>>,
    /// What people do.
    pub(crate) play: Play,
    /// The version of the project that each plan was made from.
    pub(crate) plans: Mutex<BTreeMap<String, usize>>,
}

#[derive(Default)]
struct Log {
    text: String,
    violation: Option<String>,
    faults: u64,
}

/// A lock that a panic elsewhere doesn't spoil: the panic itself fails the seed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Mutant) -> Arc<Self> {
        let mut random = Random::new(seed);
        let knobs = Knobs::drawn(&mut random);
        let play = Play::drawn(&mut random);
        Self::with(random, mutant, knobs, play)
    }

    pub(crate) fn with(random: Random, mutant: Mutant, knobs: Knobs, play: Play) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            knobs,
            mutant,
            random: Mutex::new(random),
            log: Mutex::default(),
            calm: AtomicBool::new(false),
            days: AtomicI64::new(0),
            broken: Notify::new(),
            store: Mutex::default(),
            warehouse: Mutex::default(),
            checks: Mutex::default(),
            net: Net::default(),
            cuts: Mutex::default(),
            play,
            plans: Mutex::default(),
        })
    }

    /// Milliseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Days that have passed since the start, by what all clocks say.
    pub(crate) fn days_passed(&self) -> i64 {
        self.days.load(Ordering::Relaxed)
    }

    /// Has a day pass at once.
    pub(crate) fn next_day(&self) {
        self.days.fetch_add(1, Ordering::Relaxed);
        self.note("the next day begins");
    }

    pub(crate) fn note(&self, what: &str) {
        let (now, drawn) = (self.now(), lock(&self.random).drawn());
        // Writing to a text can't fail.
        let _ = writeln!(lock(&self.log).text, "{now:>8} {drawn:>6} {what}");
    }

    /// Notes a fault that was injected.
    pub(crate) fn fault(&self, what: &str) {
        lock(&self.log).faults += 1;
        self.note(what);
    }

    pub(crate) fn violate(&self, what: &str) {
        self.note(&format!("VIOLATION {what}"));
        lock(&self.log).violation.get_or_insert_with(|| what.to_owned());
        self.broken.notify_one();
    }

    pub(crate) fn violation(&self) -> Option<String> {
        lock(&self.log).violation.clone()
    }

    pub(crate) fn faults(&self) -> u64 {
        lock(&self.log).faults
    }

    pub(crate) fn log(&self) -> String {
        lock(&self.log).text.clone()
    }

    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        lock(&self.random).between(low, high)
    }

    /// Whether a fault happens that does so many times in a thousand.
    pub(crate) fn strikes(&self, in_thousand: u64) -> bool {
        // Drawn also when calm: what the seed decides next stays the same.
        let drawn = lock(&self.random).chance(in_thousand);
        drawn && !self.is_calm()
    }

    /// Whether something happens that is no fault.
    pub(crate) fn chance(&self, in_thousand: u64) -> bool {
        lock(&self.random).chance(in_thousand)
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Ends all faults.
    pub(crate) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
        lock(&self.cuts).clear();
        self.note("calm");
    }

    pub(crate) async fn pause(&self, low: u64, high: u64) {
        sleep(Duration::from_millis(self.between(low, high))).await;
    }

    pub(crate) fn cut(&self, from: &str, to: &str) {
        lock(&self.cuts).insert((from.to_owned(), to.to_owned()));
    }

    pub(crate) fn heal(&self, from: &str, to: &str) {
        lock(&self.cuts).remove(&(from.to_owned(), to.to_owned()));
    }

    pub(crate) fn is_cut(&self, from: &str, to: &str) -> bool {
        !self.is_calm() && lock(&self.cuts).contains(&(from.to_owned(), to.to_owned()))
    }
}

/// One life of a node. What belongs to it reaches the outside only through [`Host::pass`].
pub(crate) struct Host {
    pub(crate) name: String,
    up: AtomicBool,
    frozen: AtomicBool,
    thawed: Notify,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Host {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            up: AtomicBool::new(true),
            frozen: AtomicBool::new(false),
            thawed: Notify::new(),
            tasks: Mutex::default(),
        })
    }

    /// Runs something that ends with the node and isn't polled while it is frozen.
    pub(crate) fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let host = self.clone();
        let task = tokio::spawn(async move { host.gated(work).await });
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.abort_handle());
    }

    async fn gated<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            // What has become due meanwhile is polled late, as in a process that was stopped.
            self.thaws().await;
            let polled = std::future::poll_fn(|context| {
                if self.is_frozen() { Poll::Ready(None) } else { work.as_mut().poll(context).map(Some) }
            });
            if let Some(done) = polled.await {
                return done;
            }
        }
    }

    async fn thaws(&self) {
        loop {
            let mut thawed = std::pin::pin!(self.thawed.notified());
            thawed.as_mut().enable();
            if !self.is_frozen() {
                return;
            }
            thawed.await;
        }
    }

    /// Waits while the node is frozen, and for ever once it has crashed. Tasks that the code under
    /// test spawned by itself aren't gated, but can't do anything that others see either.
    pub(crate) async fn pass(&self) {
        self.thaws().await;
        if !self.up.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    pub(crate) fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
    }

    pub(crate) fn thaw(&self) {
        self.frozen.store(false, Ordering::Relaxed);
        self.thawed.notify_waiters();
    }

    /// Ends it in an instant: all that was in its memory is gone.
    pub(crate) fn crash(&self) {
        self.up.store(false, Ordering::Relaxed);
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
        self.thaw();
    }
}

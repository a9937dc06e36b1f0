//! Random plans, faults and reports; the invariants hold at every step.
//!
//! A model of the store applies the records, and now and then a new scheduler is built from
//! nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::store::Store;
use super::{
    Config, Done, Event, Every, FailureClass, Instant, Lease, NodeMode, NodeWork, Outcome, Output, PlanWork,
    Random, Scheduler, Timestamp, Token, Verdict, failure, node, plan, plan_id, whole, window, worker,
};
use crate::schedule::plan::{Node, Phase};
use crate::schedule::{Held, Whole};
use coord_common::id::WorkerId;
use coord_common::task::Promote;

const RUNS: u64 = 600;
const STEPS: u64 = 250;

struct World {
    random: Random,
    scheduler: Scheduler,
    store: Store,
    now: u64,
    tables: Vec<NodeWork>,
    /// Who believes to hold what.
    held: Vec<(WorkerId, Lease)>,
    /// Reports that were answered.
    reported: Vec<(WorkerId, Token, Outcome)>,
    workers: Vec<WorkerId>,
    sessions: u64,
    admitted: u128,
    promotions: u64,
}

fn config() -> Config {
    Config {
        ttl: 300,
        accept: 100,
        recovered: 300,
        backoff_base: 20,
        backoff_max: 500,
        short: 9,
        remembered: 1000,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = 2 + random.up_to(5) as usize;
        let tables = (0..count).map(|n| random_table(&mut random, n)).collect();
        let scheduler = Scheduler::new(config(), 0, Random::new(seed));
        let mut world = Self {
            random,
            scheduler,
            store: Store::default(),
            now: 0,
            tables,
            held: Vec::new(),
            reported: Vec::new(),
            workers: Vec::new(),
            sessions: 0,
            admitted: 0,
            promotions: 0,
        };
        for _ in 0..=world.random.up_to(3) {
            world.new_worker();
        }
        world
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.up_to(99) < percent
    }

    fn pick(&mut self, length: usize) -> Option<usize> {
        (length > 0).then(|| self.random.up_to(length as u64 - 1) as usize)
    }

    fn new_worker(&mut self) {
        self.sessions += 1;
        self.workers.push(worker(&format!("w{}", self.sessions)));
    }

    /// Feeds an event, makes its records durable, delivers its grants, checks everything.
    fn on(&mut self, event: Event) -> Output {
        let mut out = Output::default();
        self.scheduler.on(Instant(self.now), event, &mut out);
        for record in &out.records {
            self.store.apply(record);
        }
        for notice in &out.notices {
            self.store.settle(notice);
        }
        let follow: Vec<Event> = out.notices.iter().flat_map(|notice| self.store.follow(notice)).collect();
        self.held.extend(out.grants.iter().cloned());
        self.nothing_ready_is_left();
        self.counts_add_up();
        for event in follow {
            self.on(event);
        }
        out
    }

    /// Where a worker asks and the gateway has room, no batch could run: checked batch by batch.
    fn nothing_ready_is_left(&mut self) {
        let Scheduler { plans, tables, fleet, .. } = &mut self.scheduler;
        for plan in plans.values_mut().filter(|plan| plan.phase == Phase::Running) {
            for n in 0..plan.nodes.len() {
                let node = &plan.nodes[n];
                let gateway = fleet.get(node.gateway);
                let table = tables.get(node.table);
                if table.held_from(plan.id, plan.number).is_some() {
                    continue;
                }
                if node.migrate {
                    let waits = node.retry.contains_key(&Node::CREATE) && !node.due.contains(&Node::CREATE);
                    let open = gateway.has_asking() && !gateway.is_full() && node.stopped.is_none();
                    let free = table.in_flight.is_empty() && plan.parents_exist(n, tables);
                    assert!(
                        !(open && free && !waits && node.failed.is_empty()),
                        "{:?} could migrate",
                        table.id
                    );
                    continue;
                }
                let open = gateway.has_asking() && !gateway.is_full() && node.stopped.is_none();
                if !open || table.running() >= node.limit(table) as usize {
                    continue;
                }
                if node.retry.contains_key(&Node::CREATE) || node.failed.contains_key(&Node::CREATE) {
                    continue;
                }
                let first = node.todo.hull().map(|hull| hull.start);
                let fits = |start| !node.sequential || Some(start) == first;
                for range in node.pending.ranges() {
                    let mut at = range.start;
                    while at < range.end {
                        let cell = plan.grids[n].cell_at(at).unwrap();
                        let batch = cell.intersection(*range).unwrap();
                        let ready = table.busy(batch).is_none() && fits(batch.start);
                        // By cells: a piece that others left of a cell may be found only with it.
                        let ready = ready && plan.reads_are_done(n, cell, tables);
                        assert!(!ready, "{batch} could run: {table:?} {:?}", plan.nodes[n]);
                        at = cell.end;
                    }
                }
                let idle = |batch: &&_| table.busy(**batch).is_none() && fits(batch.start);
                assert!(node.due.iter().find(idle).is_none(), "{:?} could be retried", table.id);
            }
        }
    }

    /// What is counted as it changes is what a count from scratch gives.
    fn counts_add_up(&self) {
        let Scheduler { leases, tables, fleet, .. } = &self.scheduler;
        let mut running: BTreeMap<_, u32> = BTreeMap::new();
        let mut queued: BTreeMap<_, usize> = BTreeMap::new();
        let mut waiting: BTreeMap<WorkerId, u32> = BTreeMap::new();
        for held in leases.values() {
            let place = held.standing.behind().map(|place| &leases[&place]);
            *running.entry(held.gateway).or_default() += u32::from(place.is_none());
            if let (Some(place), Some(table)) = (place, held.table()) {
                assert_eq!(place.worker, held.worker);
                *waiting.entry(held.worker.clone()).or_default() += 1;
                *queued.entry(table).or_default() += usize::from(place.table() == Some(table));
            }
        }
        for (gateway, running) in running {
            assert_eq!(fleet.get(gateway).in_flight, running, "leases that count for a gateway");
        }
        for table in leases.values().filter_map(Held::table) {
            assert_eq!(tables.get(table).queued, queued.get(&table).copied().unwrap_or(0));
        }
        for worker in &self.workers {
            assert_eq!(self.scheduler.queued(worker), waiting.get(worker).copied().unwrap_or(0));
        }
    }

    fn step(&mut self) {
        match self.random.up_to(99) {
            0..3 if self.admitted < 4 => self.admit(),
            3..30 => self.ask(),
            30..60 => self.report(),
            60..68 => self.report_again(),
            68..82 => self.heartbeat(),
            82..92 => {
                self.now += self.random.up_to(60);
                self.on(Event::Tick);
            }
            92..94 => self.lose_worker(),
            94 => self.drain(),
            95 if self.chance(30) => self.cancel(),
            96 => {
                let limits = [("main".to_owned(), 1 + self.random.up_to(6) as u32)].into();
                self.store.limit = limits;
                self.on(Event::Limits(self.store.limit.clone()));
            }
            97 if self.chance(40) => self.take_over(),
            98 => self.promote(),
            99 if self.chance(60) => self.clear(),
            _ => {
                self.now += 1;
                self.on(Event::Tick);
            }
        }
    }

    fn admit(&mut self) {
        self.admitted += 1;
        let work = self.random_plan(self.admitted);
        self.store.admit(work.clone());
        if let Some(hold) = self.store.hold(work.plan) {
            self.on(hold);
        }
        self.on(Event::Admit(work));
    }

    /// Some of the tables, each over a part of time; some of it may be done already.
    fn random_plan(&mut self, number: u128) -> PlanWork {
        let chosen: Vec<usize> = (0..self.tables.len()).filter(|_| self.chance(80)).collect();
        let restates = self.chance(25);
        let aside = restates && self.chance(70);
        let mut nodes = Vec::new();
        for n in &chosen {
            let mut work = self.tables[*n].clone();
            work.parents.retain(|edge| chosen.contains(&edge.node));
            for edge in &mut work.parents {
                edge.node = chosen.iter().position(|c| *c == edge.node).unwrap();
            }
            let start = 10 * self.random.up_to(6) as i64;
            let length = 10 * self.random.up_to(14) as i64;
            let wanted = super::set(&[(start, start + length)]);
            let done = self.store.table(&work.task.table).done;
            work.todo = if restates { wanted } else { wanted.difference(&done) };
            work.migrate = self.chance(15);
            work.mode = if self.chance(5) && self.store.table(&work.task.table).created {
                NodeMode::Audit
            } else {
                NodeMode::Write
            };
            let exists = self.store.table(&work.task.table).created;
            if aside && exists && !work.todo.is_empty() && work.mode == NodeMode::Write {
                let task = Arc::make_mut(&mut work.task);
                task.table = task.table.beside(plan_id(number));
            }
            match self.random.up_to(4) {
                0 => work.cut = Arc::new(Whole),
                size => work.cut = Arc::new(Every(10 * size as i64)),
            }
            nodes.push(work);
        }
        let tables = nodes.iter().map(|node| self.store.table(&node.task.table)).collect();
        PlanWork { tables, priority: self.random.up_to(1) as i32, ..plan(number, nodes) }
    }

    fn ask(&mut self) {
        let Some(index) = self.pick(self.workers.len()) else { return };
        let free = self.random.up_to(4) as u32;
        let queues = self.chance(60);
        let names = match self.random.up_to(2) {
            0 => vec!["main"],
            1 => vec!["other"],
            _ => vec!["main", "other"],
        };
        let gateways: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
        self.on(Event::Ask { worker: self.workers[index].clone(), gateways, free, queues });
    }

    fn report(&mut self) {
        let Some(index) = self.pick(self.held.len()) else { return };
        let outcome = match self.random.up_to(19) {
            _ if self.waits(index) => Outcome::HandedBack,
            0..12 => Outcome::Done(Done { rows: 1, millis: self.random.up_to(19), ..Done::default() }),
            12..15 => failure(FailureClass::Transient),
            15 => failure(if self.chance(50) { FailureClass::Permanent } else { FailureClass::Audit }),
            16 => Outcome::Fenced,
            17 => return drop(self.held.swap_remove(index)),
            _ => Outcome::HandedBack,
        };
        self.report_one(index, outcome);
    }

    /// Whether a lease's worker can't have begun with it yet.
    fn waits(&self, index: usize) -> bool {
        let (worker, lease) = &self.held[index];
        let before = |(of, other): &(WorkerId, Lease)| of == worker && Some(other.token) == lease.behind;
        self.held.iter().any(before)
    }

    fn report_one(&mut self, index: usize, outcome: Outcome) {
        let (worker, lease) = self.held.swap_remove(index);
        let current = self.store.leases.contains_key(&lease.token);
        self.store.expect_done(&lease, &outcome);
        let event = Event::Report { worker: worker.clone(), token: lease.token, outcome: outcome.clone() };
        let out = self.on(event);
        let expected = if current && outcome != Outcome::Fenced { Verdict::Recorded } else { Verdict::Stale };
        assert_eq!(super::verdict(&out), expected);
        if expected == Verdict::Recorded {
            self.reported.push((worker, lease.token, outcome));
        }
    }

    /// The same report again changes nothing, and neither does one under somebody else's name.
    fn report_again(&mut self) {
        let Some(index) = self.pick(self.reported.len()) else { return };
        let (worker, token, outcome) = self.reported[index].clone();
        self.on(Event::Tick);
        let known = self.scheduler.ended_by.contains_key(&token);
        let stranger = self.chance(20);
        let worker = if stranger { super::worker("stranger") } else { worker };
        let expected = if known && !stranger { Verdict::Already } else { Verdict::Stale };
        let out = self.on(Event::Report { worker, token, outcome });
        assert_eq!(super::verdict(&out), expected);
        assert!(out.records.is_empty() && out.grants.is_empty() && out.notices.is_empty());
    }

    fn heartbeat(&mut self) {
        let Some(index) = self.pick(self.workers.len()) else { return };
        let worker = self.workers[index].clone();
        let mine = self.held.iter().filter(|(holder, _)| *holder == worker);
        let tokens: Vec<Token> = mine.map(|(_, lease)| lease.token).collect();
        let out = self.on(Event::Heartbeat { worker, tokens: tokens.clone() });
        assert_eq!(out.states.iter().map(|(_, token, _)| *token).collect::<Vec<_>>(), tokens);
    }

    /// A worker vanishes; some of what it held it may still report, much later.
    fn lose_worker(&mut self) {
        let Some(index) = self.pick(self.workers.len()) else { return };
        let gone = self.workers.swap_remove(index);
        if self.chance(50) {
            self.on(Event::WorkerGone { worker: gone.clone() });
        }
        if self.chance(70) {
            self.held.retain(|(holder, _)| *holder != gone);
        }
        self.new_worker();
    }

    fn drain(&mut self) {
        let Some(index) = self.pick(self.workers.len()) else { return };
        let worker = self.workers.swap_remove(index);
        self.on(Event::Drain { worker: worker.clone() });
        let gateways: BTreeSet<String> = ["main".to_owned()].into();
        let out = self.on(Event::Ask { worker: worker.clone(), gateways, free: 3, queues: false });
        assert!(out.grants.iter().all(|(to, _)| *to != worker), "a draining worker takes no more");
        self.new_worker();
    }

    fn cancel(&mut self) {
        let plan = plan_id(1 + self.random.up_to(3) as u128);
        self.store.cancel(plan);
        self.on(Event::Cancel { plan });
    }

    fn promote(&mut self) {
        self.promotions += 1;
        let promote = Promote {
            environment: "dev".parse().unwrap(),
            seq: self.promotions,
            gateway: "main".to_owned(),
            execution_time: Timestamp(0),
            views: Vec::new(),
            drop: Vec::new(),
            drop_schemas: Vec::new(),
        };
        self.store.promotions.insert(promote.seq, promote.clone());
        self.on(Event::Promote(promote, plan_id(99)));
    }

    /// Somebody has restated what a table was computed from.
    fn clear(&mut self) {
        let Some(index) = self.pick(self.tables.len()) else { return };
        let table = self.tables[index].task.table.clone();
        let start = 10 * self.random.up_to(9) as i64;
        let range = super::range(start, start + 10 + 10 * self.random.up_to(5) as i64);
        self.store.clear(&table, range);
        self.on(Event::Clear(vec![(table, range)]));
    }

    /// Another leader starts, knowing only what is in the store.
    fn take_over(&mut self) {
        self.store.forget_publications();
        let base = self.store.last_token + 100;
        self.scheduler = Scheduler::new(config(), base, Random::new(base));
        self.on(Event::Limits(self.store.limit.clone()));
        for event in self.store.recovery() {
            self.on(event);
        }
        for (token, lease) in &self.store.leases.clone() {
            assert!(self.scheduler.leases.contains_key(token), "{lease:?} stays valid");
        }
    }

    /// From here on all goes well: everything must come to an end.
    fn finish(&mut self) {
        for round in 0.. {
            assert!(round < 3000, "a plan never settles: {:?}", self.scheduler);
            let running = self.store.running().next().is_some()
                || !self.store.promotions.is_empty()
                || !self.store.publishing.is_empty();
            if !running {
                break;
            }
            self.now += 20;
            self.heartbeat();
            self.ask();
            while let Some(index) = self.pick(self.held.len()) {
                if self.waits(index) {
                    continue;
                }
                self.report_one(index, Outcome::Done(Done::default()));
            }
            self.on(Event::Tick);
        }
        assert!(self.scheduler.plans.values().all(|plan| plan.phase == Phase::Settled));
        assert!(self.store.leases.is_empty(), "leases are left: {:?}", self.store.leases);
        self.store.check_end();
    }
}

fn random_table(random: &mut Random, n: usize) -> NodeWork {
    let mut parents = Vec::new();
    for parent in 0..n {
        match random.up_to(9) {
            0 => parents.push((parent, whole())),
            1..4 => parents.push((parent, window(0))),
            4 => parents.push((parent, window(25))),
            _ => {}
        }
    }
    let mut table = node(n, &[], &parents);
    table.concurrency = [None, None, Some(1), Some(2)][random.up_to(3) as usize];
    table.sequential = random.up_to(5) == 0;
    table.made_first = !table.sequential && random.up_to(3) != 0;
    if random.up_to(4) == 0 {
        Arc::make_mut(&mut table.task).gateway = "other".to_owned();
    }
    table
}

#[test]
fn random_fleets_keep_the_invariants_and_every_plan_ends() {
    for seed in 0..RUNS {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.admit();
            for _ in 0..STEPS {
                world.step();
            }
            world.finish();
        });
        if let Err(panic) = outcome {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn equal_events_give_equal_decisions() {
    let run = |seed| {
        let mut world = World::new(seed);
        world.admit();
        for _ in 0..STEPS {
            world.step();
        }
        (world.store, world.held)
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
fn the_runs_reach_what_they_are_for() {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..100 {
        let mut world = World::new(seed);
        world.admit();
        for _ in 0..STEPS {
            world.step();
        }
        world.finish();
        for name in world.store.seen {
            *seen.entry(name).or_default() += 1;
        }
    }
    for name in [
        "complete",
        "failed",
        "cancelled",
        "lost",
        "shared",
        "superseded",
        "cleared",
        "migrated",
        "published",
        "void",
        "behind",
    ] {
        assert!(seen.get(name).is_some_and(|count| *count >= 3), "{name}: {seen:?}");
    }
}

//! The scheduler under lists of events, and under random ones.

mod errands;
mod events;
mod failures;
mod makespan;
mod queue;
mod simulation;
mod store;
mod takeover;

use std::collections::BTreeSet;
use std::sync::Arc;

use coord_common::id::{Hash128, PlanId, SnapshotId, Token, Version, WorkerId};
use coord_common::interval::{Interval, IntervalSet, Timestamp};
use coord_common::sql::{Anchor, Point, Step, Window};
use coord_common::task::{
    Done, Evaluate, Failure, FailureClass, Lease, Outcome, ReadRange, Relation, TableId, TableTask, Verdict,
    Work,
};

use super::{
    Config, Cut, Edge, Event, Instant, NodeMode, NodeWork, Output, PlanWork, Random, RetryLimits, Scheduler,
    TableState,
};

/// Batches of equal length.
pub(super) struct Every(pub(super) i64);

impl Cut for Every {
    fn first(&self, run: Interval) -> Interval {
        Interval { start: run.start, end: Timestamp((run.start.0 + self.0).min(run.end.0)) }
    }
}

fn range(start: i64, end: i64) -> Interval {
    Interval { start: Timestamp(start), end: Timestamp(end) }
}

fn set(ranges: &[(i64, i64)]) -> IntervalSet {
    ranges.iter().map(|(start, end)| range(*start, *end)).collect()
}

fn plan_id(number: u128) -> PlanId {
    PlanId(Hash128(number))
}

fn table_id(number: usize) -> TableId {
    TableId {
        model: format!("db.m{number}").parse().unwrap(),
        version: Version(Hash128(1)),
        dev: false,
        aside: None,
    }
}

fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

/// Reads from `back` before a batch's start to its end.
fn window(back: i64) -> ReadRange {
    let point =
        |anchor, micros| coord_common::sql::Bound::At(Point { anchor, steps: vec![Step::Micros(micros)] });
    // `Anchor::End` is the last microsecond inside; the bound is the first time after.
    let window = Window { lower: point(Anchor::Start, -back * 1000), upper: point(Anchor::End, 1) };
    ReadRange::Window { window, why: "it is a test".to_owned() }
}

fn whole() -> ReadRange {
    ReadRange::Whole { why: "it is a test".to_owned() }
}

/// Table `number`, to be filled over a range in batches of 10.
fn node(number: usize, todo: &[(i64, i64)], parents: &[(usize, ReadRange)]) -> NodeWork {
    let table = table_id(number);
    let target = Relation { catalog: None, schema: "s".to_owned(), table: table.to_string() };
    NodeWork {
        task: Arc::new(TableTask {
            snapshot: SnapshotId(Hash128(number as u128)),
            table,
            target,
            gateway: "main".to_owned(),
            bindings: std::collections::BTreeMap::new(),
            execution_time: Timestamp(0),
            allows: coord_common::task::Allowed::default(),
            aside: None,
            round: 0,
        }),
        todo: set(todo),
        assumed: IntervalSet::new(),
        void: IntervalSet::new(),
        create: true,
        migrate: false,
        mode: NodeMode::Write,
        cut: Arc::new(Every(10)),
        concurrency: None,
        sequential: false,
        made_first: true,
        anew: false,
        parents: parents.iter().map(|(node, reads)| Edge { node: *node, reads: reads.clone() }).collect(),
    }
}

fn existing(number: usize, done: &[(i64, i64)]) -> TableState {
    TableState { table: table_id(number), done: set(done), created: true, lost: Vec::new() }
}

fn plan(number: u128, nodes: Vec<NodeWork>) -> PlanWork {
    let limits = RetryLimits::default();
    PlanWork { plan: plan_id(number), priority: 0, limits, tables: Vec::new(), nodes }
}

/// A plan whose tables exist already, empty.
fn plan_on_tables(number: u128, nodes: Vec<NodeWork>) -> PlanWork {
    let state = |node: &NodeWork| TableState {
        table: node.task.table.clone(),
        done: IntervalSet::new(),
        created: true,
        lost: Vec::new(),
    };
    PlanWork { tables: nodes.iter().map(state).collect(), ..plan(number, nodes) }
}

fn failure(class: FailureClass) -> Outcome {
    Outcome::Failed(Failure { class, code: None, message: "broken".to_owned(), hint: None })
}

fn evaluate(lease: &Lease) -> &Evaluate {
    match &lease.work {
        Work::Evaluate(evaluate) => evaluate,
        other => panic!("{other:?} where a batch was expected"),
    }
}

/// A scheduler with a clock, for tests that read as lists of events.
struct Bench {
    scheduler: Scheduler,
    now: u64,
}

impl Bench {
    fn new(works: Vec<PlanWork>) -> Self {
        let scheduler = Scheduler::new(Config::default(), 100, Random::new(1));
        let mut bench = Self { scheduler, now: 0 };
        for work in works {
            bench.on(Event::Admit(work));
        }
        bench
    }

    fn on(&mut self, event: Event) -> Output {
        let mut out = Output::default();
        self.scheduler.on(Instant(self.now), event, &mut out);
        out
    }

    fn at(&mut self, now: u64) -> Output {
        self.now = now;
        self.on(Event::Tick)
    }

    fn ask(&mut self, name: &str, free: u32) -> Output {
        let gateways: BTreeSet<String> = ["main".to_owned()].into();
        self.on(Event::Ask { worker: worker(name), gateways, free, queues: false })
    }

    /// Leases granted to an asking worker.
    fn leases(&mut self, name: &str, free: u32) -> Vec<Lease> {
        self.ask(name, free).grants.into_iter().map(|(_, lease)| lease).collect()
    }

    /// The same as texts `m<table> start-end`.
    fn granted(&mut self, name: &str, free: u32) -> Vec<String> {
        self.leases(name, free).iter().map(shown).collect()
    }

    fn report(&mut self, name: &str, token: Token, outcome: Outcome) -> Output {
        self.on(Event::Report { worker: worker(name), token, outcome })
    }

    fn done(&mut self, name: &str, token: Token) -> Output {
        self.report(name, token, Outcome::Done(Done::default()))
    }

    fn heartbeat(&mut self, name: &str, token: Token) -> Output {
        self.on(Event::Heartbeat { worker: worker(name), tokens: vec![token] })
    }
}

fn shown(lease: &Lease) -> String {
    match &lease.work {
        Work::Evaluate(evaluate) => {
            let Interval { start, end } = evaluate.batch.interval;
            format!("{} {}-{}", evaluate.batch.table.model.table(), start.0, end.0)
        }
        Work::Promote(promote) => format!("promote {} {}", promote.environment, promote.seq),
        Work::Check(check) => format!("check {}", check.task.table.model.table()),
        Work::Statements(statements) => format!("{} {}", statements.point.name(), statements.environment),
        Work::Publish(publish) => format!("publish {}", publish.tables.len()),
        Work::Drop(drop) => format!("drop {}", drop.relation),
    }
}

fn verdict(out: &Output) -> Verdict {
    out.verdicts[0].2
}

//! Any subset of failures, then applying again: the warehouse ends as if nothing had failed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use coord_common::task::{Batch, Mode};
use proptest::prelude::*;

use super::*;
use crate::schedule::{Notice, PlanOutcome, Record, Recovered};

/// Length of the intervals that a warehouse remembers rows for.
const UNIT: i64 = 10;

/// A warehouse: what each interval of each table was computed from, as one number.
type Warehouse = BTreeMap<(usize, i64), u64>;

/// A table of a random project: how it reads those before it, and in how large batches.
#[derive(Debug, Clone)]
struct Shape {
    reads: Vec<(prop::sample::Index, u8)>,
    batch: i64,
    sequential: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let reads = prop::collection::vec((any::<prop::sample::Index>(), 0..3u8), 0..3);
    (reads, 1..4i64, prop::bool::weighted(0.2)).prop_map(|(reads, batch, sequential)| Shape {
        reads,
        batch: batch * UNIT,
        sequential,
    })
}

fn nodes(shapes: &[Shape]) -> Vec<NodeWork> {
    let make = |(n, shape): (usize, &Shape)| {
        let mut parents: BTreeMap<usize, ReadRange> = BTreeMap::new();
        for (parent, how) in shape.reads.iter().filter(|_| n > 0) {
            let reads = match how {
                0 => whole(),
                1 => window(2 * UNIT),
                _ => window(0),
            };
            parents.insert(parent.index(n), reads);
        }
        let parents: Vec<(usize, ReadRange)> = parents.into_iter().collect();
        NodeWork {
            cut: Arc::new(Every(shape.batch)),
            sequential: shape.sequential,
            made_first: !shape.sequential,
            ..node(n, &[(0, 60)], &parents)
        }
    };
    shapes.iter().enumerate().map(make).collect()
}

/// Computes a batch from what is there now.
fn compute(warehouse: &mut Warehouse, nodes: &[NodeWork], table: usize, batch: Interval) {
    let mut at = batch.start.0;
    while at < batch.end.0 {
        let unit = Interval { start: Timestamp(at), end: Timestamp(at + UNIT) };
        let mut sum = table as u64 * 1000 + at as u64;
        for edge in &nodes[table].parents {
            let reads = edge.reads.of(unit);
            let read = warehouse.iter().filter(|((parent, start), _)| {
                *parent == edge.node && reads.start.0 <= *start && *start < reads.end.0
            });
            sum = read.fold(sum, |sum, (_, value)| sum.wrapping_mul(31).wrapping_add(*value));
        }
        if nodes[table].sequential {
            let before = warehouse.get(&(table, at - UNIT)).copied().unwrap_or(0);
            sum = sum.wrapping_mul(17).wrapping_add(before);
        }
        warehouse.insert((table, at), sum);
        at += UNIT;
    }
}

/// Applies what the warehouse lacks; batches whose number is in `fails` fail. Whether all is done.
fn apply(warehouse: &mut Warehouse, shapes: &[Shape], number: u128, fails: &BTreeSet<u16>) -> bool {
    let mut works = nodes(shapes);
    let mut states = Vec::new();
    for (n, work) in works.iter_mut().enumerate() {
        let there = warehouse.keys().filter(|(table, _)| *table == n).map(|(_, at)| (*at, at + UNIT));
        let there: Vec<(i64, i64)> = there.collect();
        work.todo = work.todo.difference(&set(&there));
        if !there.is_empty() {
            states.push(existing(n, &there));
        }
    }
    let plain = nodes(shapes);
    let mut bench = Bench::new(Vec::new());
    bench.on(Event::Admit(PlanWork { tables: states, ..plan(number, works) }));
    let mut outcome = None;
    let mut granted = 0u16;
    let mut queue: VecDeque<Lease> = bench.leases("w", 2).into();
    while outcome.is_none() {
        if queue.is_empty() {
            queue.extend(bench.leases("w", 2));
        }
        let lease = queue.pop_front().unwrap_or_else(|| panic!("it goes on or ends: {:#?}", bench.scheduler));
        let work = evaluate(&lease);
        let table: usize = work.batch.table.model.table()[1..].parse().expect("tables are numbered");
        granted += 1;
        let fill = matches!(work.mode, Mode::First | Mode::Anew | Mode::Write);
        let report = if fill && fails.contains(&granted) {
            failure(FailureClass::Permanent)
        } else {
            if fill {
                compute(warehouse, &plain, table, work.batch.interval);
            }
            Outcome::Done(Done::default())
        };
        let out = bench.report("w", lease.token, report);
        queue.extend(out.grants.into_iter().map(|(_, lease)| lease));
        outcome = out.notices.iter().find_map(|notice| match notice {
            Notice::PlanSettled { outcome, .. } => Some(*outcome == PlanOutcome::Complete),
            _ => None,
        });
    }
    outcome == Some(true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_failures_followed_by_applying_again_end_in_the_same_tables(
        shapes in prop::collection::vec(shape(), 1..5),
        first in prop::collection::btree_set(1u16..40, 0..6),
        second in prop::collection::btree_set(1u16..20, 0..3),
    ) {
        let mut expected = Warehouse::new();
        prop_assert!(apply(&mut expected, &shapes, 1, &BTreeSet::new()));
        let mut warehouse = Warehouse::new();
        let _ = apply(&mut warehouse, &shapes, 2, &first);
        if warehouse != expected {
            let _ = apply(&mut warehouse, &shapes, 3, &second);
        }
        if warehouse != expected {
            prop_assert!(apply(&mut warehouse, &shapes, 4, &BTreeSet::new()));
        }
        prop_assert_eq!(warehouse, expected);
    }
}

#[test]
fn a_lease_on_record_serves_all_who_miss_its_range_under_the_next_leader() {
    let work = |number| plan_on_tables(number, vec![node(0, &[(0, 20)], &[])]);
    let mut bench = Bench::new(vec![work(1)]);
    let lease = bench.leases("a", 1).remove(0);
    // The second plan was put on record, but the term ended before it joined the lease.
    let mut next = Bench::new(vec![work(1), work(2)]);
    next.on(Event::Recovered(Recovered::Leased {
        token: lease.token,
        worker: worker("a"),
        plan: plan_id(1),
        batch: evaluate(&lease).batch.clone(),
        mode: Mode::Write,
        attempts: 0,
        losses: 0,
        serves: vec![plan_id(1)],
        supersedes: Vec::new(),
        void: IntervalSet::new(),
    }));
    let out = next.done("a", lease.token);
    let Some(Record::Committed(committed)) = out.records.first() else { panic!("{out:?}") };
    let left: Vec<_> = committed.shrunk.iter().map(|shrunk| (shrunk.plan, shrunk.todo.clone())).collect();
    assert_eq!(left, [1, 2].map(|plan| (plan_id(plan), set(&[(10, 20)]))));
}

#[test]
fn making_a_table_that_is_made_isnt_waited_for_by_the_next_leader() {
    let work = plan_on_tables(1, vec![node(0, &[(0, 20)], &[])]);
    let batch = coord_common::task::Batch { table: table_id(0), interval: Interval::ALL };
    let mut next = Bench::new(vec![work]);
    next.on(Event::Recovered(Recovered::Waiting {
        plan: plan_id(1),
        batch,
        attempts: 0,
        losses: 0,
        delay: 0,
    }));
    assert_eq!(next.granted("a", 9), ["m0 0-10", "m0 10-20"]);
}

#[test]
fn what_was_handed_back_is_struck_off_as_waiting_when_it_is_granted_again() {
    for made in [true, false] {
        let nodes = vec![node(0, &[(0, 10)], &[])];
        let mut bench = Bench::new(vec![if made { plan_on_tables(1, nodes) } else { plan(1, nodes) }]);
        let lease = bench.leases("a", 1).remove(0);
        let batch = evaluate(&lease).batch.clone();
        let out = bench.report("a", lease.token, Outcome::HandedBack);
        let waits = |record: &Record| matches!(record, Record::Waiting { .. });
        assert!(out.records.iter().any(waits), "{:?}", out.records);
        let out = bench.ask("b", 1);
        assert_eq!(out.grants.len(), 1);
        let cleared = Record::Cleared { plan: plan_id(1), batch };
        assert_eq!(out.records.first(), Some(&cleared), "{:?}", out.records);
    }
}

#[test]
fn a_batch_on_record_as_waiting_and_as_in_flight_runs_once_under_the_next_leader() {
    let work = plan_on_tables(1, vec![node(0, &[(0, 20)], &[])]);
    let mut bench = Bench::new(vec![work.clone()]);
    let lease = bench.leases("a", 1).remove(0);
    let batch = evaluate(&lease).batch.clone();
    let mut next = Bench::new(vec![work]);
    let (plan, void) = (plan_id(1), IntervalSet::new());
    next.on(Event::Recovered(Recovered::Waiting {
        plan,
        batch: batch.clone(),
        attempts: 0,
        losses: 0,
        delay: 0,
    }));
    next.on(Event::Recovered(Recovered::Leased {
        token: lease.token,
        worker: worker("a"),
        plan,
        batch,
        mode: Mode::Write,
        attempts: 0,
        losses: 0,
        serves: vec![plan],
        supersedes: Vec::new(),
        void,
    }));
    assert_eq!(next.granted("b", 9), ["m0 10-20"]);
    next.done("a", lease.token);
    assert_eq!(next.granted("b", 9), Vec::<String>::new());
}

#[test]
fn a_batch_that_empties_its_table_shuts_out_all_that_was_lost() {
    let mut lost = existing(0, &[]);
    lost.lost = vec![range(0, 10), range(20, 30)];
    let work =
        |todo: &[(i64, i64)]| PlanWork { tables: vec![lost.clone()], ..plan(1, vec![node(0, todo, &[])]) };
    let mut bench = Bench::new(vec![work(&[(0, 30)])]);
    let first = bench.leases("a", 1).remove(0);
    assert_eq!(evaluate(&first).mode, Mode::Anew);
    // Its own range needs no word, but that it was tried before.
    let named = |interval| Batch { table: table_id(0), interval };
    assert_eq!((&evaluate(&first).supersedes[..], first.attempt), (&[named(range(20, 30))][..], 2));
    bench.done("a", first.token);
    let next = bench.leases("a", 2);
    assert!(next.iter().all(|lease| evaluate(lease).supersedes.is_empty() && lease.attempt == 1));
}

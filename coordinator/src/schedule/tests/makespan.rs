//! How close to the ideal a fleet gets, and how many decisions a second hold.

use std::collections::BTreeMap;

use super::{
    Bench, Done, Event, Every, Lease, NodeWork, Outcome, PlanWork, node, plan, plan_on_tables, window,
};
use crate::schedule::{Notice, Output, PlanOutcome};

/// Runs a plan with workers that take 50 ms for each batch; how long it took.
fn makespan(work: PlanWork, workers: usize) -> u64 {
    let mut bench = Bench::new(vec![work]);
    let mut running: BTreeMap<(u64, u64), (String, Lease)> = BTreeMap::new();
    let mut settled = false;
    let mut take = |bench: &mut Bench, out: Output, running: &mut BTreeMap<_, _>| {
        for (worker, lease) in out.grants {
            running.insert((bench.now + 50, lease.token.0), (worker.to_string(), lease));
        }
        settled |= out.notices.iter().any(
            |notice| matches!(notice, Notice::PlanSettled { outcome, .. } if *outcome == PlanOutcome::Complete),
        );
    };
    for index in 0..workers {
        let out = bench.ask(&format!("w{index}"), 1);
        take(&mut bench, out, &mut running);
    }
    while let Some(((now, _), (worker, lease))) = running.pop_first() {
        bench.now = now;
        let out = bench.done(&worker, lease.token);
        take(&mut bench, out, &mut running);
        let out = bench.ask(&worker, 1);
        take(&mut bench, out, &mut running);
    }
    assert!(settled, "the plan must be complete");
    bench.now
}

fn chain(models: usize, intervals: i64) -> Vec<NodeWork> {
    let parent = |n: usize| if n == 0 { Vec::new() } else { vec![(n - 1, window(0))] };
    (0..models).map(|n| node(n, &[(0, intervals * 10)], &parent(n))).collect()
}

#[test]
fn a_chain_without_limits_takes_what_its_total_work_takes() {
    let ideal = 10 * 60 * 50 / 16;
    for work in [plan_on_tables(1, chain(10, 60)), plan(1, chain(10, 60))] {
        let creation = if work.tables.is_empty() { 50 } else { 0 };
        let took = makespan(work, 16);
        assert!(took as f64 <= 1.05 * f64::from(ideal + creation), "{took} ms, ideal {ideal} ms");
    }
}

#[test]
fn a_chain_with_one_batch_at_a_time_takes_what_its_critical_path_takes() {
    let mut nodes = chain(10, 60);
    for node in &mut nodes {
        node.concurrency = Some(1);
    }
    let ideal = (60 + 9) * 50;
    let took = makespan(plan(1, nodes), 16);
    assert!(took as f64 <= 1.05 * f64::from(ideal), "{took} ms, ideal {ideal} ms");
}

#[test]
fn windows_only_wait_for_what_they_read() {
    let mut nodes = chain(3, 60);
    nodes[1].parents[0].reads = window(30);
    nodes[2].parents[0].reads = window(300);
    let took = makespan(plan_on_tables(1, nodes), 16);
    let ideal = 180 * 50 / 16;
    assert!(took as f64 <= 1.1 * f64::from(ideal), "{took} ms, ideal {ideal} ms");
}

/// Decisions a second, of plans as wide as `models` in ten layers.
#[test]
fn thousands_of_decisions_fit_into_a_second() {
    let (models, intervals): (usize, i64) = if cfg!(debug_assertions) { (200, 60) } else { (1000, 365) };
    let layer = models / 10;
    let nodes = (0..models)
        .map(|n| {
            let parents: Vec<_> = if n < layer {
                Vec::new()
            } else {
                vec![(n - layer, window(0)), ((n / layer - 1) * layer, window(70))]
            };
            node(n, &[(0, intervals * 10)], &parents)
        })
        .collect();
    let mut bench = Bench::new(vec![plan(1, nodes)]);
    let begun = std::time::Instant::now();
    let mut cycles = 0u64;
    let mut queue: Vec<(String, Lease)> = Vec::new();
    for index in 0..50 {
        let out = bench.ask(&format!("w{index}"), 4);
        queue.extend(out.grants.into_iter().map(|(worker, lease)| (worker.to_string(), lease)));
    }
    let mut next = std::collections::VecDeque::from(queue);
    while let Some((worker, lease)) = next.pop_front() {
        cycles += 1;
        let outcome = Outcome::Done(Done::default());
        let mut out = Output::default();
        let worker_id = super::worker(&worker);
        let report = Event::Report { worker: worker_id, token: lease.token, outcome };
        bench.scheduler.on(super::Instant(cycles / 100), report, &mut out);
        next.extend(out.grants.into_iter().map(|(worker, lease)| (worker.to_string(), lease)));
        let out = bench.ask(&worker, 4);
        next.extend(out.grants.into_iter().map(|(worker, lease)| (worker.to_string(), lease)));
    }
    assert_eq!(cycles, models as u64 * (intervals as u64 + 1), "each table is made, then filled");
    let rate = cycles as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} grants and reports a second");
    let least = if cfg!(debug_assertions) { 500.0 } else { 20_000.0 };
    assert!(rate > least, "{rate:.0} a second");
}

#[test]
fn three_years_of_hours_cost_little_until_they_run() {
    let mut work = node(0, &[(0, 26_280 * 10)], &[]);
    work.cut = std::sync::Arc::new(Every(10));
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![work])]);
    let first = bench.granted("a", 2);
    assert_eq!(first, ["m0 0-10", "m0 10-20"]);
    let progress = bench.scheduler.progress(super::plan_id(1)).unwrap();
    assert_eq!((progress.nodes[0].total, progress.nodes[0].in_flight), (26_280, 2));
}

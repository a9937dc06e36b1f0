//! Leases behind others: at hand when a place comes free, and never too many at work.

use std::collections::BTreeSet;

use coord_common::id::Token;

use super::{
    Bench, Done, Event, FailureClass, Instant, Lease, Outcome, Output, failure, node, plan_on_tables, shown,
    worker,
};

/// A worker that asks for a number of leases to begin at once, and for others behind those it holds.
fn ask(bench: &mut Bench, name: &str, free: u32) -> Vec<Lease> {
    let gateways: BTreeSet<String> = ["main".to_owned()].into();
    let out = bench.on(Event::Ask { worker: worker(name), gateways, free, queues: true });
    leases(out)
}

fn leases(out: Output) -> Vec<Lease> {
    out.grants.into_iter().map(|(_, lease)| lease).collect()
}

fn done_in(bench: &mut Bench, name: &str, token: Token, millis: u64) -> Vec<Lease> {
    leases(bench.report(name, token, Outcome::Done(Done { millis, ..Done::default() })))
}

/// A scheduler in which a worker holds the second batch of a table, after the first took a while.
fn second_batch(millis: u64, concurrency: Option<u32>) -> (Bench, Token) {
    let mut only = node(0, &[(0, 60)], &[]);
    only.concurrency = concurrency;
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![only])]);
    let first = ask(&mut bench, "a", 1);
    assert_eq!(first.len(), 1, "nothing is known of how long its batches take");
    assert!(done_in(&mut bench, "a", first[0].token, millis).is_empty());
    let second = bench.leases("a", 1);
    (bench, second[0].token)
}

#[test]
fn the_next_short_batch_waits_behind_the_one_at_work_even_at_the_tables_limit() {
    let (mut bench, second) = second_batch(50, Some(1));
    let third = ask(&mut bench, "a", 0);
    assert_eq!(third.iter().map(shown).collect::<Vec<_>>(), ["m0 20-30"]);
    assert_eq!(third[0].behind, Some(second));
    assert!(ask(&mut bench, "a", 0).is_empty(), "one behind each");
    assert!(ask(&mut bench, "b", 1).is_empty(), "the table's limit holds for others");
    let fourth = done_in(&mut bench, "a", second, 50);
    assert!(fourth.is_empty() || fourth[0].behind == Some(third[0].token));
}

#[test]
fn nothing_waits_behind_long_batches() {
    let (mut bench, _) = second_batch(5_000, None);
    assert!(ask(&mut bench, "a", 0).is_empty());
}

#[test]
fn who_can_begin_at_once_goes_first() {
    let (mut bench, second) = second_batch(50, None);
    bench.leases("b", 1);
    let queued = ask(&mut bench, "a", 0);
    assert_eq!(queued.iter().map(shown).collect::<Vec<_>>(), ["m0 30-40"], "20-30 is at work elsewhere");
    assert_eq!(queued[0].behind, Some(second));
}

#[test]
fn a_gateway_at_its_limit_still_has_the_next_batch_at_hand() {
    let (mut bench, second) = second_batch(50, None);
    bench.on(Event::Limits([("main".to_owned(), 1)].into()));
    assert!(ask(&mut bench, "b", 1).is_empty());
    let queued = ask(&mut bench, "a", 0);
    assert_eq!(queued[0].behind, Some(second));
    done_in(&mut bench, "a", second, 50);
    assert!(ask(&mut bench, "b", 1).is_empty(), "the one behind has taken the place");
}

#[test]
fn a_lease_that_is_handed_back_from_behind_another_leaves_it_alone() {
    let (mut bench, _) = second_batch(50, Some(1));
    let queued = ask(&mut bench, "a", 0);
    let again = leases(bench.report("a", queued[0].token, Outcome::HandedBack));
    assert!(again.is_empty());
    assert!(ask(&mut bench, "a", 0).is_empty(), "the one before it takes longer than it should");
}

#[test]
fn a_worker_that_vanishes_with_a_lease_unbegun_counts_against_the_begun_one_alone() {
    let (mut bench, second) = second_batch(50, Some(1));
    let queued = ask(&mut bench, "a", 0);
    let out = bench.at(20_000);
    let counts = |token: Token| {
        let waiting = |record: &super::super::Record| match record {
            super::super::Record::Waiting { token: of, losses, .. } if *of == token => Some(*losses),
            _ => None,
        };
        out.records.iter().find_map(waiting)
    };
    assert_eq!((counts(second), counts(queued[0].token)), (Some(1), Some(0)));
    let again: Vec<Lease> = [ask(&mut bench, "b", 1), ask(&mut bench, "b", 1)].concat();
    assert!(again.iter().all(|lease| lease.attempt > 1), "somebody may have begun with either: {again:?}");
}

#[test]
fn a_tables_next_batch_goes_to_the_worker_that_did_the_last_one_unless_it_failed_there() {
    let mut only = node(0, &[(0, 60)], &[]);
    only.concurrency = Some(1);
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![only])]);
    let mut token = bench.leases("a", 1)[0].token;
    assert!(bench.leases("b", 1).is_empty(), "the table's limit; it waits longest from now on");
    for outcome in [Outcome::Done(Done::default()), failure(FailureClass::Transient)] {
        let gateways: BTreeSet<String> = ["main".to_owned()].into();
        let (mut out, now) = (Output::default(), Instant(bench.now));
        let failed = !matches!(outcome, Outcome::Done(_));
        bench.scheduler.note(now, Event::Report { worker: worker("a"), token, outcome }, &mut out);
        let asks = Event::Ask { worker: worker("a"), gateways, free: 1, queues: false };
        bench.scheduler.on(now, asks, &mut out);
        let (to, lease) = out.grants.remove(0);
        assert_eq!(to, worker(if failed { "b" } else { "a" }));
        token = lease.token;
    }
}

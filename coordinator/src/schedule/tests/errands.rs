//! Errands: one notice each, retries, and what cancelling leaves.

use coord_common::id::EnvironmentName;
use coord_common::task::{Check, HookPoint, LeaseState, Statements};

use super::*;
use crate::schedule::{Notice, Record};

fn check(number: usize) -> Work {
    Work::Check(Check { task: node(number, &[], &[]).task, candidates: set(&[(0, 50)]) })
}

fn statements() -> Work {
    Work::Statements(Statements {
        environment: EnvironmentName::prod(),
        point: HookPoint::BeforeAll,
        gateway: "main".to_owned(),
        sql: vec!["SELECT 1".to_owned()],
    })
}

fn noticed(out: &Output) -> Vec<&'static str> {
    let name = |notice: &Notice| match notice {
        Notice::ErrandDone { .. } => "done",
        Notice::ErrandFailed { .. } => "failed",
        Notice::PlanCancelled { .. } => "cancelled",
        _ => "other",
    };
    out.notices.iter().map(name).collect()
}

#[test]
fn errands_go_before_batches_and_their_answers_are_told_once() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 10)], &[])])]);
    bench.on(Event::Errand(check(5), plan_id(2)));
    bench.on(Event::Errand(statements(), plan_id(2)));
    let leases = bench.leases("a", 3);
    assert_eq!(leases.iter().map(shown).collect::<Vec<_>>(), ["check m5", "before_all prod", "m0 0-10"]);
    let ready = Done { ready: set(&[(0, 20)]), ..Done::default() };
    let out = bench.report("a", leases[0].token, Outcome::Done(ready.clone()));
    assert_eq!(out.notices, [Notice::ErrandDone { plan: plan_id(2), work: check(5), done: ready.clone() }]);
    assert_eq!(out.records, [Record::Released { token: leases[0].token }]);
    let again = bench.report("a", leases[0].token, Outcome::Done(ready));
    assert!(again.notices.is_empty());
    assert_eq!(verdict(&again), Verdict::Already);
}

#[test]
fn an_errand_that_is_given_twice_is_run_once() {
    let mut bench = Bench::new(Vec::new());
    bench.on(Event::Errand(check(0), plan_id(1)));
    bench.on(Event::Errand(check(0), plan_id(1)));
    bench.on(Event::Errand(check(0), plan_id(2)));
    let plans: Vec<PlanId> = bench.leases("a", 9).iter().map(|lease| lease.plan).collect();
    assert_eq!(plans, [plan_id(1), plan_id(2)]);
}

#[test]
fn errands_are_tried_again_like_batches_and_fail_like_them() {
    for (outcomes, end) in [
        (vec![failure(FailureClass::Transient); 4], "failed"),
        (vec![failure(FailureClass::Permanent)], "failed"),
        (vec![failure(FailureClass::Transient), Outcome::HandedBack, Outcome::Done(Done::default())], "done"),
    ] {
        let mut bench = Bench::new(Vec::new());
        bench.on(Event::Errand(check(0), plan_id(1)));
        for (n, outcome) in outcomes.iter().enumerate() {
            let time = bench.now + 1_000_000;
            bench.at(time);
            let lease = bench.leases("a", 1).remove(0);
            let out = bench.report("a", lease.token, outcome.clone());
            let expected: &[&str] = if n + 1 == outcomes.len() { &[end] } else { &[] };
            assert_eq!(noticed(&out), expected, "attempt {n} of {outcomes:?}");
        }
        bench.at(bench.now + 1_000_000);
        assert!(bench.leases("a", 1).is_empty());
    }
}

#[test]
fn an_errand_whose_workers_vanish_three_times_fails() {
    let mut bench = Bench::new(Vec::new());
    bench.on(Event::Errand(check(0), plan_id(1)));
    let mut notices = Vec::new();
    for n in 0..3 {
        let name = format!("w{n}");
        assert_eq!(bench.leases(&name, 1).len(), 1);
        notices = noticed(&bench.at(bench.now + 1_000_000)).clone();
    }
    assert_eq!(notices, ["failed"]);
}

#[test]
fn a_plan_that_is_cancelled_before_its_batches_ends_when_its_errands_have() {
    let mut bench = Bench::new(Vec::new());
    bench.on(Event::Errand(check(0), plan_id(1)));
    bench.on(Event::Errand(check(1), plan_id(1)));
    let lease = bench.leases("a", 1).remove(0);
    let out = bench.on(Event::Cancel { plan: plan_id(1) });
    assert!(out.notices.is_empty(), "one is still leased");
    assert_eq!(bench.heartbeat("a", lease.token).states[0].2, LeaseState::Cancel);
    assert!(bench.leases("b", 1).is_empty());
    let out = bench.report("a", lease.token, Outcome::HandedBack);
    assert_eq!(noticed(&out), ["cancelled"]);
}

//! What a new leader makes of leases that it takes over.

use coord_common::task::Mode;

use super::{
    Bench, Event, FailureClass, Instant, Lease, Outcome, Output, evaluate, existing, failure, node, plan,
    plan_id, plan_on_tables, range, set,
};
use crate::schedule::{PlanWork, Record, Recovered, TableState};

#[test]
fn a_lost_batch_is_struck_off_when_its_next_lease_commits_under_another_leader() {
    let lost = TableState { lost: vec![range(0, 10)], ..existing(0, &[]) };
    let work = || PlanWork { tables: vec![lost.clone()], ..plan(1, vec![node(0, &[(0, 10)], &[])]) };
    let lease = Bench::new(vec![work()]).leases("a", 1).remove(0);
    let mut next = Bench::new(vec![work()]);
    next.on(Event::Recovered(Recovered::Leased {
        token: lease.token,
        worker: "a".parse().unwrap(),
        plan: plan_id(1),
        batch: evaluate(&lease).batch.clone(),
        mode: Mode::Write,
        attempts: 0,
        losses: 1,
        serves: vec![plan_id(1)],
        supersedes: evaluate(&lease).supersedes.clone(),
        void: set(&[]),
    }));
    let out = next.done("a", lease.token);
    let Some(Record::Committed(committed)) = out.records.first() else { panic!("{out:?}") };
    assert_eq!(committed.superseded, [range(0, 10)]);
}

/// A lease as its record tells of it.
fn leased(lease: &Lease, worker: &str) -> Event {
    Event::Recovered(Recovered::Leased {
        token: lease.token,
        worker: worker.parse().unwrap(),
        plan: plan_id(1),
        batch: evaluate(lease).batch.clone(),
        mode: Mode::Write,
        attempts: 0,
        losses: 0,
        serves: vec![plan_id(1)],
        supersedes: Vec::new(),
        void: set(&[]),
    })
}

#[test]
fn a_plan_with_a_failed_batch_isnt_at_its_end_while_a_lease_of_it_is_held() {
    let work = || plan_on_tables(1, vec![node(0, &[(0, 20)], &[])]);
    let leases = Bench::new(vec![work()]).leases("a", 2);
    let Outcome::Failed(why) = failure(FailureClass::Permanent) else { panic!("it is a failure") };
    let mut next = Bench::new(vec![work()]);
    let (mut out, now) = (Output::default(), Instant(next.now));
    let batch = evaluate(&leases[0]).batch.clone();
    let failed = Recovered::Failed { plan: plan_id(1), batch, attempts: 1, failure: why };
    next.scheduler.note(now, Event::Recovered(failed), &mut out);
    next.scheduler.note(now, leased(&leases[1], "a"), &mut out);
    next.scheduler.decide(&mut out);
    assert!(out.notices.is_empty(), "{:?}", out.notices);
    assert!(!next.done("a", leases[1].token).notices.is_empty(), "now it is");
}

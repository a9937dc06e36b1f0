//! What a new leader makes of leases that it takes over.

use coord_common::task::Mode;

use super::{Bench, Event, evaluate, existing, node, plan, plan_id, range, set};
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

//! Lists of events, and what follows from them.

use std::sync::Arc;

use coord_common::id::Token;
use coord_common::interval::{Interval, Timestamp};
use coord_common::task::{
    Batch, Done, DropTable, FailureClass, LeaseState, Mode, Outcome, Promote, TableKind, Verdict,
};

use super::{
    Bench, Event, evaluate, existing, failure, node, plan, plan_id, plan_on_tables, range, set, shown,
    table_id, verdict, whole, window, worker,
};
use crate::schedule::{NodeMode, Notice, PlanOutcome, PlanWork, Reason, Record, Recovered, Whole};

fn promote(seq: u64) -> Promote {
    Promote {
        environment: "dev".parse().unwrap(),
        seq,
        gateway: "main".to_owned(),
        execution_time: Timestamp(0),
        views: Vec::new(),
        drop: Vec::new(),
        drop_schemas: Vec::new(),
    }
}

fn drop_of(name: &str) -> DropTable {
    DropTable {
        table: super::table_id(7),
        relation: coord_common::task::Relation::new("s", name),
        kind: TableKind::Table,
        gateway: "main".to_owned(),
    }
}

/// How a plan ended, if it did.
fn settled(out: &crate::schedule::Output) -> Option<&PlanOutcome> {
    out.notices.iter().find_map(|notice| match notice {
        Notice::PlanSettled { outcome, .. } => Some(outcome),
        Notice::PlanCancelled { .. }
        | Notice::Promoted { .. }
        | Notice::PromoteFailed { .. }
        | Notice::Published { .. }
        | Notice::PublishFailed { .. }
        | Notice::Dropped { .. }
        | Notice::DropFailed { .. }
        | Notice::ErrandDone { .. }
        | Notice::ErrandFailed { .. } => None,
    })
}

#[test]
fn a_plan_with_nothing_to_do_is_complete_at_once() {
    let mut bench = Bench::new(Vec::new());
    let out = bench.on(Event::Admit(plan_on_tables(1, vec![node(0, &[], &[])])));
    assert_eq!(settled(&out), Some(&PlanOutcome::Complete));
    assert!(settled(&bench.on(Event::Tick)).is_none(), "only once");
}

#[test]
fn a_table_that_is_not_made_first_is_made_by_its_first_batch_alone() {
    let first = crate::schedule::NodeWork { made_first: false, ..node(0, &[(0, 30)], &[]) };
    let mut bench = Bench::new(vec![plan(1, vec![first])]);
    let leases = bench.leases("a", 9);
    assert_eq!(leases.iter().map(shown).collect::<Vec<_>>(), ["m0 0-10"]);
    assert_eq!(evaluate(&leases[0]).mode, Mode::First);
    let out = bench.done("a", leases[0].token);
    let rest: Vec<_> = out.grants.iter().map(|(_, lease)| evaluate(lease).mode).collect();
    assert_eq!(rest, [Mode::Write, Mode::Write]);
}

#[test]
fn a_table_of_several_batches_is_made_so_that_they_can_begin_at_once() {
    let mut bench = Bench::new(vec![plan(1, vec![node(0, &[(0, 30)], &[])])]);
    let made = bench.leases("a", 9);
    assert_eq!(made.iter().map(|lease| evaluate(lease).mode).collect::<Vec<_>>(), [Mode::Create]);
    let out = bench.done("a", made[0].token);
    let then: Vec<_> = out.grants.iter().map(|(_, lease)| shown(lease)).collect();
    assert_eq!(then, ["m0 0-10", "m0 10-20", "m0 20-30"]);
    // Alone in its table, a batch makes it along the way.
    let mut bench = Bench::new(vec![plan(1, vec![node(0, &[(0, 10)], &[])])]);
    assert_eq!(evaluate(&bench.leases("a", 9)[0]).mode, Mode::First);
}

#[test]
fn a_table_is_made_while_its_batches_wait_for_what_they_read() {
    let one = |number, parents: &[_]| crate::schedule::NodeWork {
        concurrency: Some(1),
        ..node(number, &[(0, 30)], parents)
    };
    let mut bench = Bench::new(vec![plan(1, vec![one(0, &[]), one(1, &[(0, whole())])])]);
    let made = bench.leases("a", 9).remove(0);
    let then = bench.done("a", made.token).grants;
    let modes: Vec<_> = then.iter().map(|(_, lease)| evaluate(lease).mode).collect();
    assert_eq!(modes, [Mode::Create, Mode::Anew], "the second table, and the first one's first batch");
}

#[test]
fn what_cannot_be_made_is_not_filled_and_the_plan_ends() {
    let mut bench = Bench::new(vec![plan(1, vec![node(0, &[(0, 30)], &[])])]);
    let made = bench.leases("a", 9).remove(0);
    let out = bench.report("a", made.token, failure(FailureClass::Permanent));
    assert!(out.grants.is_empty());
    let Some(PlanOutcome::Failed { failures, .. }) = settled(&out) else { panic!("{:?}", out.notices) };
    assert_eq!(failures.len(), 1);
}

#[test]
fn a_table_that_another_plan_makes_meanwhile_is_filled() {
    let nodes = |todo| vec![node(0, &[todo], &[])];
    let mut bench = Bench::new(vec![plan(1, nodes((0, 30))), plan(2, nodes((30, 40)))]);
    let made = bench.leases("a", 1).remove(0);
    bench.report("a", made.token, failure(FailureClass::Transient));
    let other = bench.leases("a", 1).remove(0);
    assert_eq!((shown(&other).as_str(), evaluate(&other).mode), ("m0 30-40", Mode::First));
    let out = bench.done("a", other.token);
    let batch = Batch { table: table_id(0), interval: Interval::ALL };
    assert!(out.records.contains(&Record::Cleared { plan: plan_id(1), batch }), "{:?}", out.records);
    assert_eq!(bench.granted("a", 9), ["m0 0-10", "m0 10-20", "m0 20-30"]);
}

#[test]
fn a_batch_is_awaited_until_it_is_committed() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 20)], &[])])]);
    let batch = |start, end| Batch { table: table_id(0), interval: range(start, end) };
    let first = bench.leases("a", 1).remove(0);
    assert!(bench.scheduler.awaits(&batch(0, 10)) && bench.scheduler.awaits(&batch(10, 20)));
    bench.done("a", first.token);
    assert!(!bench.scheduler.awaits(&batch(0, 10)));
    assert!(bench.scheduler.awaits(&batch(10, 20)));
    assert!(!bench.scheduler.awaits(&Batch { table: table_id(7), interval: range(0, 10) }));
}

#[test]
fn a_table_of_which_nothing_outlasts_the_plan_is_filled_anew() {
    let modes = |todo: &[(i64, i64)], anew: bool, done: &[(i64, i64)]| {
        let work = crate::schedule::NodeWork { anew, sequential: true, ..node(0, todo, &[]) };
        let mut bench = Bench::new(vec![PlanWork { tables: vec![existing(0, done)], ..plan(1, vec![work]) }]);
        let first = bench.leases("a", 9).remove(0);
        let then = bench.done("a", first.token).grants.remove(0).1;
        [evaluate(&first).mode, evaluate(&then).mode]
    };
    let fill = [Mode::Anew, Mode::Write];
    let add = [Mode::Write, Mode::Write];
    assert_eq!(modes(&[(0, 30)], false, &[]), fill, "it was only made");
    assert_eq!(modes(&[(20, 40)], false, &[(0, 20)]), add);
    assert_eq!(modes(&[(0, 40)], false, &[(0, 20)]), add, "lookback computes all of it again");
    assert_eq!(modes(&[(0, 40)], true, &[(0, 20)]), fill, "it is restated");
    assert_eq!(modes(&[(20, 40)], true, &[(0, 40)]), add, "a part of it is restated");
}

#[test]
fn a_table_gets_its_columns_before_any_batch_reads_or_writes_it() {
    let migrating = |number| crate::schedule::NodeWork { migrate: true, ..node(number, &[(0, 20)], &[]) };
    let nodes = vec![migrating(0), node(1, &[(0, 20)], &[(0, window(0))])];
    let work = PlanWork { tables: vec![existing(0, &[(0, 10)]), existing(1, &[])], ..plan(1, nodes) };
    // Another plan still writes the table as it was.
    let mut bench = Bench::new(vec![plan_on_tables(2, vec![node(0, &[(20, 30)], &[])])]);
    let old = bench.leases("a", 1).remove(0);
    bench.on(Event::Admit(work));
    assert_eq!(bench.leases("a", 9), [], "it waits for what is in flight");
    let waiting = bench.scheduler.progress(plan_id(1)).unwrap().nodes.remove(1).waiting;
    assert!(waiting.contains(&Reason::UpstreamMisses { upstream: table_id(0), missing: set(&[(0, 10)]) }));
    let out = bench.done("a", old.token);
    let [(_, migrate)] = &out.grants[..] else { panic!("{out:?}") };
    assert_eq!((evaluate(migrate).mode, migrate.plan), (Mode::Migrate, plan_id(1)));
    let out = bench.done("a", migrate.token);
    let modes: Vec<Mode> = out.grants.iter().map(|(_, lease)| evaluate(lease).mode).collect();
    assert_eq!(modes, [Mode::Write, Mode::Write]);
}

#[test]
fn a_migration_that_is_refused_ends_its_plan() {
    let work = crate::schedule::NodeWork { migrate: true, ..node(0, &[(0, 20)], &[]) };
    let reader = node(1, &[(0, 20)], &[(0, window(0))]);
    let tables = vec![existing(0, &[]), existing(1, &[])];
    let mut bench = Bench::new(vec![PlanWork { tables, ..plan(1, vec![work, reader]) }]);
    let migrate = bench.leases("a", 9).remove(0);
    let out = bench.report("a", migrate.token, failure(FailureClass::Permanent));
    let [Notice::PlanSettled { outcome: PlanOutcome::Failed { failures, skipped }, .. }] = &out.notices[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!((failures.len(), &skipped[..]), (1, &[table_id(1)][..]));
}

#[test]
fn a_table_without_data_is_still_made() {
    let mut bench = Bench::new(vec![plan(1, vec![node(0, &[], &[]), node(1, &[], &[(0, whole())])])]);
    let first = bench.leases("a", 9);
    assert_eq!(first.len(), 1, "the reader waits until its upstream exists");
    assert_eq!(evaluate(&first[0]).mode, Mode::Create);
    let waiting = bench.scheduler.progress(plan_id(1)).unwrap().nodes.remove(1).waiting;
    assert_eq!(waiting, [Reason::UpstreamNotCreated { upstream: table_id(0) }]);
    let out = bench.done("a", first[0].token);
    let out = bench.done("a", out.grants[0].1.token);
    assert_eq!(settled(&out), Some(&PlanOutcome::Complete));
}

#[test]
fn a_reader_starts_as_soon_as_the_range_that_it_reads_is_committed() {
    let nodes = vec![node(0, &[(0, 40)], &[]), node(1, &[(0, 40)], &[(0, window(10))])];
    let mut bench = Bench::new(vec![plan_on_tables(1, nodes)]);
    let leases = bench.leases("a", 4);
    assert_eq!(leases.len(), 4);
    bench.ask("b", 9);
    assert!(bench.done("a", leases[1].token).grants.is_empty(), "10-20 reads 0-20");
    let out = bench.done("a", leases[0].token);
    let granted: Vec<_> = out.grants.iter().map(|(_, lease)| shown(lease)).collect();
    assert_eq!(granted, ["m1 0-10", "m1 10-20"]);
}

#[test]
fn a_reader_of_the_whole_waits_for_the_whole() {
    let mut full = node(1, &[(0, 20)], &[(0, whole())]);
    full.cut = Arc::new(Whole);
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 20)], &[]), full])]);
    let leases = bench.leases("a", 3);
    assert!(bench.done("a", leases[0].token).grants.is_empty());
    let out = bench.done("a", leases[1].token);
    assert_eq!(shown(&out.grants[0].1), "m1 0-20");
}

#[test]
fn batches_that_depend_on_the_past_run_in_order() {
    let mut work = node(0, &[(0, 30)], &[]);
    work.sequential = true;
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![work])]);
    let leases = bench.leases("a", 9);
    assert_eq!(leases.iter().map(shown).collect::<Vec<_>>(), ["m0 0-10"]);
    let out = bench.report("a", leases[0].token, failure(FailureClass::Transient));
    assert!(out.grants.is_empty(), "the next waits for the retry");
    let out = bench.at(5_000);
    assert_eq!(shown(&out.grants[0].1), "m0 0-10");
    let out = bench.report("a", out.grants[0].1.token, failure(FailureClass::Permanent));
    assert!(matches!(settled(&out), Some(PlanOutcome::Failed { failures, .. }) if failures.len() == 1));
}

#[test]
fn the_limit_of_a_gateway_holds_for_the_fleet() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 50)], &[])])]);
    bench.on(Event::Limits([("main".to_owned(), 2)].into()));
    assert_eq!(bench.granted("a", 1).len(), 1);
    let second = bench.leases("b", 4);
    assert_eq!(second.len(), 1);
    let why = bench.scheduler.why_waiting(plan_id(1), &table_id(0), Timestamp(25));
    assert_eq!(why, [Reason::GatewayLimit { gateway: "main".to_owned(), limit: 2 }]);
    assert_eq!(bench.done("b", second[0].token).grants.len(), 1);
}

#[test]
fn workers_get_only_what_their_gateways_reach() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 10)], &[])])]);
    let gateways = ["other".to_owned()].into();
    let out = bench.on(Event::Ask { worker: worker("a"), gateways, free: 1, queues: false });
    assert!(out.grants.is_empty());
    let why = bench.scheduler.why_waiting(plan_id(1), &table_id(0), Timestamp(0));
    assert_eq!(why, [Reason::NoWorker { gateway: "main".to_owned() }]);
}

#[test]
fn a_heartbeat_keeps_a_lease_and_silence_loses_it() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 10)], &[])])]);
    let lease = bench.leases("a", 1).remove(0);
    bench.now = 9_999;
    assert_eq!(bench.heartbeat("a", lease.token).states[0].2, LeaseState::Held);
    assert_eq!(bench.heartbeat("b", lease.token).states[0].2, LeaseState::Gone, "not b's");
    assert!(bench.at(39_998).records.is_empty());
    assert_eq!(bench.scheduler.next_wakeup().unwrap().0, 39_999);
    let out = bench.at(39_999);
    assert!(matches!(
        &out.records[..],
        [Record::Lost { .. }, Record::Waiting { losses: 1, attempts: 0, .. }]
    ));
    assert_eq!(bench.heartbeat("a", lease.token).states[0].2, LeaseState::Gone);
    assert_eq!(verdict(&bench.done("a", lease.token)), Verdict::Stale);
    let again = bench.leases("b", 1).remove(0);
    assert!(again.token > lease.token);
    assert_eq!(again.attempt, 2);
    assert!(evaluate(&again).supersedes.is_empty(), "its own key needs no mention");
}

#[test]
fn a_grant_that_nobody_accepts_is_taken_back_soon() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 10)], &[])])]);
    bench.leases("a", 1);
    assert!(bench.at(9_999).records.is_empty());
    assert!(!bench.at(10_000).records.is_empty());
}

#[test]
fn a_report_that_beats_the_tick_still_counts() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 10)], &[])])]);
    let lease = bench.leases("a", 1).remove(0);
    bench.now = 60_000;
    let out = bench.done("a", lease.token);
    assert_eq!(verdict(&out), Verdict::Recorded);
    assert_eq!(settled(&out), Some(&PlanOutcome::Complete));
}

#[test]
fn a_batch_lost_three_times_fails() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 10)], &[])])]);
    for round in 1..=3 {
        assert_eq!(bench.leases("a", 1).len(), 1);
        let out = bench.at(round * 20_000);
        let Some(PlanOutcome::Failed { failures, .. }) = settled(&out) else {
            assert!(round < 3);
            continue;
        };
        assert_eq!(round, 3);
        assert_eq!(failures[0].failure.message, "lost 3 times: its workers vanished");
    }
}

#[test]
fn a_lost_batch_is_superseded_until_a_lease_over_it_commits() {
    let lost = PlanWork {
        tables: vec![crate::schedule::TableState { lost: vec![range(5, 15)], ..existing(0, &[]) }],
        ..plan(1, vec![node(0, &[(0, 30)], &[])])
    };
    let mut bench = Bench::new(vec![lost]);
    let leases = bench.leases("a", 3);
    let named: Vec<usize> = leases.iter().map(|lease| evaluate(lease).supersedes.len()).collect();
    assert_eq!(named, [1, 1, 0]);
    let out = bench.done("a", leases[0].token);
    let Some(Record::Committed(committed)) = out.records.first() else { panic!("{out:?}") };
    assert_eq!(committed.superseded, [range(5, 15)]);
}

#[test]
fn transient_failures_back_off_and_then_fail_for_good() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 10)], &[])])]);
    for attempt in 1..=4u32 {
        let lease = bench.leases("a", 1).remove(0);
        assert_eq!(lease.attempt, attempt);
        let out = bench.report("a", lease.token, failure(FailureClass::Transient));
        match &out.records[0] {
            Record::Waiting { attempts, delay, .. } => {
                assert_eq!(*attempts, attempt);
                assert!(*delay <= 2_000 << (attempt - 1));
            }
            Record::Failed { attempts: 4, .. } => assert_eq!(attempt, 4),
            other => panic!("{other:?}"),
        }
        bench.at(bench.now + 20_000);
    }
}

#[test]
fn a_failure_stops_descendants_and_lets_everything_else_finish() {
    let nodes = vec![
        node(0, &[(0, 20)], &[]),
        node(1, &[(0, 20)], &[(0, window(0))]),
        node(2, &[(0, 10)], &[(1, window(0))]),
        node(3, &[(0, 10)], &[]),
    ];
    let mut bench = Bench::new(vec![plan_on_tables(1, nodes)]);
    let leases = bench.leases("a", 3);
    assert_eq!(leases.iter().map(shown).collect::<Vec<_>>(), ["m0 0-10", "m0 10-20", "m3 0-10"]);
    bench.report("a", leases[0].token, failure(FailureClass::Audit));
    let why = bench.scheduler.why_waiting(plan_id(1), &table_id(2), Timestamp(0));
    assert_eq!(why, [Reason::Stopped { upstream: table_id(1) }]);
    bench.done("a", leases[1].token);
    assert!(bench.granted("b", 9).is_empty(), "readers of m0 have stopped");
    let out = bench.done("a", leases[2].token);
    let Some(PlanOutcome::Failed { failures, skipped }) = settled(&out) else { panic!("{out:?}") };
    assert_eq!(failures[0].batch.to_string(), format!("{}:0-10", table_id(0)));
    assert_eq!(*skipped, [table_id(1), table_id(2)]);
}

#[test]
fn handing_back_counts_as_nothing() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 10)], &[])])]);
    for _ in 0..10 {
        let lease = bench.leases("a", 1).remove(0);
        assert_eq!(lease.attempt, 1);
        assert_eq!(verdict(&bench.report("a", lease.token, Outcome::HandedBack)), Verdict::Recorded);
    }
}

#[test]
fn the_same_report_twice_is_already_known_and_a_foreign_one_stale() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 20)], &[])])]);
    let lease = bench.leases("a", 1).remove(0);
    assert_eq!(verdict(&bench.done("b", lease.token)), Verdict::Stale);
    let out = bench.done("a", lease.token);
    assert_eq!(verdict(&out), Verdict::Recorded);
    let Some(Record::Committed(committed)) = out.records.first() else { panic!("{out:?}") };
    assert_eq!((&committed.done, &committed.shrunk[0].todo), (&set(&[(0, 10)]), &set(&[(10, 20)])));
    let again = bench.done("a", lease.token);
    assert_eq!((verdict(&again), again.records.len()), (Verdict::Already, 0));
    assert_eq!(verdict(&bench.done("a", Token(7))), Verdict::Stale);
}

#[test]
fn a_fenced_worker_is_stale_and_its_batch_goes_on() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 10)], &[])])]);
    let lease = bench.leases("a", 1).remove(0);
    assert_eq!(verdict(&bench.report("a", lease.token, Outcome::Fenced)), Verdict::Stale);
    bench.at(10_000);
    assert_eq!(bench.granted("b", 1), ["m0 0-10"]);
}

#[test]
fn two_plans_share_a_table_and_lease_it_once() {
    let work = |number| plan_on_tables(number, vec![node(0, &[(0, 20)], &[])]);
    let mut bench = Bench::new(vec![work(1), work(2)]);
    let leases = bench.leases("a", 9);
    assert_eq!(leases.len(), 2);
    bench.done("a", leases[0].token);
    let out = bench.done("a", leases[1].token);
    let ended = out.notices.iter().filter(|n| matches!(n, Notice::PlanSettled { .. })).count();
    assert_eq!(ended, 2);
}

#[test]
fn a_plan_that_comes_later_shares_what_is_in_flight_unless_it_restates() {
    for (done, expected) in [(vec![], true), (vec![(0, 10)], false)] {
        let state = vec![existing(0, &done)];
        let work =
            |number| PlanWork { tables: state.clone(), ..plan(number, vec![node(0, &[(0, 10)], &[])]) };
        let mut bench = Bench::new(vec![work(1)]);
        let lease = bench.leases("a", 9).remove(0);
        let out = bench.on(Event::Admit(work(2)));
        assert_eq!(out.records.len(), usize::from(expected), "the grant is written anew");
        let out = bench.done("a", lease.token);
        let ended = out.notices.iter().filter(|n| matches!(n, Notice::PlanSettled { .. })).count();
        assert_eq!(ended, if expected { 2 } else { 1 });
        assert_eq!(out.grants.len(), usize::from(!expected), "a restatement runs itself");
    }
}

#[test]
fn a_cancelled_plan_gets_no_more_and_ends_when_nothing_is_in_flight() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 30)], &[])])]);
    let leases = bench.leases("a", 2);
    assert!(bench.on(Event::Cancel { plan: plan_id(1) }).notices.is_empty());
    assert_eq!(bench.heartbeat("a", leases[0].token).states[0].2, LeaseState::Cancel);
    assert!(bench.granted("b", 5).is_empty());
    bench.report("a", leases[0].token, Outcome::HandedBack);
    let out = bench.at(10_000);
    assert_eq!(out.notices, [Notice::PlanCancelled { plan: plan_id(1) }]);
    assert!(matches!(&out.records[..], [Record::Lost { .. }, Record::Cancelled { .. }]));
    assert!(bench.granted("b", 5).is_empty());
}

#[test]
fn a_draining_worker_gets_nothing() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 30)], &[])])]);
    bench.on(Event::Drain { worker: worker("a") });
    assert!(bench.granted("a", 5).is_empty());
    assert_eq!(bench.granted("b", 1), ["m0 0-10"]);
}

#[test]
fn promotions_go_first_and_are_retried() {
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 30)], &[])])]);
    bench.on(Event::Promote(promote(4), plan_id(9)));
    let lease = bench.leases("a", 1).remove(0);
    assert_eq!(shown(&lease), "promote dev 4");
    bench.report("a", lease.token, failure(FailureClass::Transient));
    bench.at(10_000);
    let lease = bench.leases("a", 1).remove(0);
    assert_eq!((shown(&lease).as_str(), lease.attempt), ("promote dev 4", 2));
    let out = bench.done("a", lease.token);
    assert_eq!(out.notices, [Notice::Promoted { plan: plan_id(9), promote: promote(4) }]);
}

#[test]
fn tables_are_dropped_after_all_batches_and_given_up_after_a_few_failures() {
    let drop = drop_of("gone");
    let mut bench = Bench::new(vec![plan_on_tables(1, vec![node(0, &[(0, 10)], &[])])]);
    bench.on(Event::Drop(drop.clone(), plan_id(9)));
    bench.on(Event::Drop(drop.clone(), plan_id(9)));
    let mut leases = bench.leases("a", 9);
    assert_eq!(leases.iter().map(shown).collect::<Vec<_>>(), ["m0 0-10", "drop s.gone"]);
    bench.done("a", leases.remove(0).token);
    for attempt in 1..=4 {
        let out = bench.report("a", leases.remove(0).token, failure(FailureClass::Transient));
        assert_eq!(matches!(&out.notices[..], [Notice::DropFailed { .. }]), attempt == 4, "{attempt}");
        let out = bench.at(bench.now + 300_000);
        leases = out.grants.into_iter().map(|(_, lease)| lease).collect();
    }
    assert!(leases.is_empty());
    let lease = bench.on(Event::Drop(drop.clone(), plan_id(9))).grants.remove(0).1;
    let out = bench.done("a", lease.token);
    assert_eq!(out.notices, [Notice::Dropped { drop }]);
}

#[test]
fn a_table_that_is_spared_is_dropped_under_no_newer_token() {
    let drop = drop_of("gone");
    let mut bench = Bench::new(Vec::new());
    bench.on(Event::Drop(drop.clone(), plan_id(9)));
    bench.on(Event::Spare(drop.table.clone()));
    assert!(bench.leases("a", 9).is_empty(), "it wasn't leased yet");
    let token = bench.on(Event::Drop(drop.clone(), plan_id(9))).grants.remove(0).1.token;
    bench.on(Event::Spare(drop.table.clone()));
    let out = bench.report("a", token, Outcome::Fenced);
    assert_eq!(out.records, [Record::Released { token }]);
    bench.at(1_000_000);
    assert!(bench.leases("a", 9).is_empty(), "it is never leased again");
}

#[test]
fn audits_change_nothing_but_their_own_todo() {
    let audit = |number| {
        let work = crate::schedule::NodeWork { mode: NodeMode::Audit, ..node(0, &[(0, 10)], &[]) };
        PlanWork { tables: vec![existing(0, &[(0, 30)])], ..plan(number, vec![work]) }
    };
    let mut bench = Bench::new(vec![audit(1), audit(2)]);
    let leases = bench.leases("a", 9);
    assert_eq!(leases.len(), 1);
    assert_eq!(evaluate(&leases[0]).mode, Mode::Audit);
    let out = bench.report("a", leases[0].token, Outcome::Done(Done::default()));
    assert_eq!(out.grants.len(), 1, "the other plan audits for itself");
}

#[test]
fn what_a_batch_waits_for_is_told() {
    let nodes = vec![node(0, &[(0, 30)], &[]), node(1, &[(0, 30)], &[(0, window(10))])];
    let mut bench = Bench::new(vec![plan_on_tables(1, nodes)]);
    let lease = bench.leases("a", 1).remove(0);
    bench.ask("b", 1);
    bench.ask("c", 9);
    let why =
        |bench: &Bench, table, at| bench.scheduler.why_waiting(plan_id(1), &table_id(table), Timestamp(at));
    assert!(matches!(&why(&bench, 0, 5)[..], [Reason::Leased { token, .. }] if *token == lease.token));
    let missing = Reason::UpstreamMisses { upstream: table_id(0), missing: set(&[(0, 20)]) };
    assert_eq!(why(&bench, 1, 15), [missing]);
    bench.report("a", lease.token, failure(FailureClass::Transient));
    assert!(matches!(why(&bench, 0, 5)[..], [Reason::Backoff { .. }]));
    assert!(why(&bench, 0, 99).is_empty());
    let progress = bench.scheduler.progress(plan_id(1)).unwrap();
    let first = &progress.nodes[0];
    assert_eq!((first.total, first.done, first.in_flight, first.retrying), (3, 0, 2, 1));
}

#[test]
fn what_was_cleared_under_a_lease_stays_cleared_under_the_next_leader() {
    let work =
        || PlanWork { tables: vec![existing(0, &[(0, 20)])], ..plan(1, vec![node(0, &[(20, 40)], &[])]) };
    let mut bench = Bench::new(vec![work()]);
    let lease = bench.leases("a", 1).remove(0);
    let cleared = bench.on(Event::Clear(vec![(table_id(0), range(15, 25))]));
    let [Record::Granted { lease: known, worker, serves, void, .. }] = &cleared.records[..] else {
        panic!("the lease is written down anew: {:?}", cleared.records)
    };
    assert_eq!((known.token, void), (lease.token, &set(&[(15, 25)])));

    // Another leader, which knows what is on record.
    let mut next = Bench::new(vec![PlanWork { tables: vec![existing(0, &[(0, 15)])], ..work() }]);
    next.on(Event::Recovered(Recovered::Leased {
        token: lease.token,
        worker: worker.clone(),
        plan: plan_id(1),
        batch: evaluate(&lease).batch.clone(),
        mode: Mode::Write,
        attempts: 0,
        losses: 0,
        serves: serves.clone(),
        supersedes: Vec::new(),
        void: void.clone(),
    }));
    let out = next.done("a", lease.token);
    let committed = out.records.iter().find_map(|record| match record {
        Record::Committed(committed) => Some(committed.done.clone()),
        _ => None,
    });
    assert_eq!(committed, Some(set(&[(0, 15), (25, 30)])));
}

#[test]
fn what_was_cleared_under_a_plan_doesnt_count_when_it_is_filled_from_stale_rows() {
    let nodes = || vec![node(0, &[(10, 20)], &[]), node(1, &[(0, 20)], &[(0, window(0))])];
    let tables = || vec![existing(0, &[(0, 10)]), existing(1, &[])];
    let mut bench = Bench::new(vec![PlanWork { tables: tables(), ..plan(1, nodes()) }]);
    bench.on(Event::Clear(vec![(table_id(0), range(5, 8)), (table_id(1), range(5, 8))]));
    let mut committed = Vec::new();
    for _ in 0..3 {
        let lease = bench.leases("a", 1).remove(0);
        let out = bench.done("a", lease.token);
        committed.extend(out.records.iter().filter_map(|record| match record {
            Record::Committed(committed) => Some((committed.table.clone(), committed.done.clone())),
            _ => None,
        }));
    }
    let of =
        |number| committed.iter().rev().find(|(table, _)| *table == table_id(number)).map(|(_, done)| done);
    // Its reader's batch of the same days was computed from them.
    assert_eq!(of(1), Some(&set(&[(0, 5), (8, 20)])));
    assert_eq!(of(0), Some(&set(&[(0, 5), (8, 20)])));
}

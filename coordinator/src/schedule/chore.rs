//! Chores: what is leased and is no batch. Promotions and publications go before all batches and are
//! tried until they succeed; errands (questions to signals, statements around a plan) go next and
//! are tried as often as batches are; drops of tables go after all batches and are given up after a
//! few failures: whoever asked for one can ask again.
//!
//! Invariant: a chore ends in exactly one notice, unless it was given up. (`tests::errands`)

use coord_common::id::{PlanId, Token, WorkerId};
use coord_common::interval::IntervalSet;
use coord_common::task::{Done, DropTable, Failure, FailureClass, Lease, Promote, TableId, Work};

use super::commit::lost_too_often;
use super::fleet::{GatewayNo, Ready};
use super::lease::Setback;
use super::queue::Standing;
use super::{Held, Notice, Output, Record, RetryLimits, Scheduler, Target, Timer};

/// A chore that isn't done yet.
#[derive(Debug)]
pub(super) struct Chore {
    pub(super) work: Work,
    pub(super) plan: PlanId,
    pub(super) gateway: GatewayNo,
    failures: u32,
    losses: u32,
    pub(super) leased: bool,
    /// Whether it could go but for leases that overlap it.
    pub(super) blocked: bool,
    /// Whether it isn't wanted any more: a lease of it may come to its end, and that is all.
    given_up: bool,
}

impl Chore {
    fn ready(&self, number: u64) -> Ready {
        match self.work {
            Work::Promote(_) | Work::Publish(_) | Work::Evaluate(_) => Ready::Promote(number),
            Work::Check(_) | Work::Statements(_) => Ready::Errand(number),
            Work::Drop(_) => Ready::Drop(number),
        }
    }

    fn is_errand(&self) -> bool {
        matches!(self.work, Work::Check(_) | Work::Statements(_))
    }

    /// How often it may fail or be lost; without bound where nothing can go on without it.
    fn limits(&self) -> RetryLimits {
        let (ours, endless) = (RetryLimits::default(), u32::MAX);
        match self.work {
            Work::Promote(_) | Work::Publish(_) | Work::Evaluate(_) => {
                RetryLimits { max_attempts: endless, max_losses: endless }
            }
            Work::Drop(_) => RetryLimits { max_losses: endless, ..ours },
            Work::Check(_) | Work::Statements(_) => ours,
        }
    }
}

impl Scheduler {
    pub(super) fn promote(&mut self, promote: Promote, plan: PlanId) {
        self.add_chore(Work::Promote(promote), plan);
    }

    pub(super) fn drop_table(&mut self, drop: DropTable, plan: PlanId) {
        self.add_chore(Work::Drop(drop), plan);
    }

    /// Adds a chore, unless it is there already.
    pub(super) fn add_chore(&mut self, work: Work, plan: PlanId) {
        let is_it = |known: &Chore| known.work == work && known.plan == plan && !known.given_up;
        if self.chores.values().any(is_it) {
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        let gateway = self.fleet.gateway(work.gateway());
        let (leased, blocked, given_up) = (false, false, false);
        let chore = Chore { work, plan, gateway, failures: 0, losses: 0, leased, blocked, given_up };
        self.chores.insert(number, chore);
        self.chore_due(number);
    }

    pub(super) fn chore_due(&mut self, number: u64) {
        let blocked = self.is_blocked(number);
        let Some(chore) = self.chores.get_mut(&number).filter(|chore| !chore.leased) else { return };
        chore.blocked = blocked;
        if !blocked {
            let ready = chore.ready(number);
            self.fleet.get_mut(chore.gateway).ready.insert(ready);
        }
    }

    pub(super) fn grant_chore(&mut self, worker: WorkerId, number: u64, out: &mut Output) {
        let token = self.new_token();
        let supersedes = self.lost_of_publication(number);
        let chore = self.chores.get_mut(&number).expect("a ready chore isn't done");
        if let Work::Publish(publish) = &mut chore.work {
            // What was lost before and superseded since doesn't come back.
            publish.supersedes = supersedes;
        }
        let lease = Lease {
            token,
            plan: chore.plan,
            work: chore.work.clone(),
            ttl_millis: self.config.ttl,
            attempt: chore.failures.saturating_add(chore.losses).saturating_add(1),
            behind: None,
        };
        out.records.push(Record::Granted {
            lease: lease.clone(),
            worker: worker.clone(),
            attempts: chore.failures,
            losses: chore.losses,
            serves: Vec::new(),
            void: IntervalSet::new(),
        });
        out.grants.push((worker.clone(), lease));
        self.hold_chore(token, worker, number, self.config.accept);
    }

    pub(super) fn recover_promotion(&mut self, token: Token, worker: WorkerId, promote: &Promote) {
        let is_it = |known: &Chore| matches!(&known.work, Work::Promote(work) if work == promote);
        let known = self.chores.iter().find(|(_, known)| is_it(known) && !known.leased);
        if let Some(number) = known.map(|(number, _)| *number) {
            self.hold_chore(token, worker, number, self.config.ttl);
        }
    }

    fn hold_chore(&mut self, token: Token, worker: WorkerId, number: u64, millis: u64) {
        let Some(chore) = self.chores.get_mut(&number) else { return };
        chore.leased = true;
        let (gateway, ready) = (chore.gateway, chore.ready(number));
        let counted = self.fleet.get_mut(gateway);
        counted.in_flight += 1;
        counted.ready.remove(&ready);
        let deadline = self.now.after(millis);
        self.timers.insert((deadline, Timer::Lease(token)));
        self.leases.insert(
            token,
            Held { worker, deadline, gateway, target: Target::Chore(number), standing: Standing::new(None) },
        );
        self.recheck_ready_publications();
    }

    /// Whether a leased chore's worker should go on.
    pub(super) fn is_wanted(&self, number: u64) -> bool {
        self.chores.get(&number).is_some_and(|chore| !chore.given_up)
    }

    pub(super) fn chore_done(&mut self, token: Token, number: u64, done: Done, out: &mut Output) {
        let Some(Chore { work, plan, gateway, given_up, .. }) = self.chores.remove(&number) else { return };
        self.fleet.get_mut(gateway).in_flight -= 1;
        match work {
            Work::Promote(promote) => {
                out.records.push(Record::Promoted { token, plan, promote: promote.clone() });
                out.notices.push(Notice::Promoted { plan, promote });
            }
            Work::Publish(publish) => self.published(token, plan, publish, out),
            Work::Drop(drop) => {
                out.records.push(Record::Released { token });
                if !given_up {
                    out.notices.push(Notice::Dropped { drop });
                }
            }
            Work::Check(_) | Work::Statements(_) => {
                out.records.push(Record::Released { token });
                if given_up {
                    self.end_cancelled(plan, out);
                } else {
                    out.notices.push(Notice::ErrandDone { plan, work, done });
                }
            }
            Work::Evaluate(_) => {}
        }
        self.wake_publications();
    }

    pub(super) fn chore_set_back(&mut self, number: u64, token: Token, setback: Setback, out: &mut Output) {
        let Some(chore) = self.chores.get_mut(&number) else { return };
        self.fleet.get_mut(chore.gateway).in_flight -= 1;
        chore.leased = false;
        out.records.push(Record::Released { token });
        if chore.given_up {
            let (plan, is_errand) = (chore.plan, chore.is_errand());
            self.chores.remove(&number);
            if is_errand {
                self.end_cancelled(plan, out);
            }
            return;
        }
        let limits = chore.limits();
        match setback {
            Setback::HandedBack => self.chore_due(number),
            Setback::Lost { .. } => {
                chore.losses = chore.losses.saturating_add(1);
                if chore.losses < limits.max_losses {
                    return self.chore_due(number);
                }
                let failure = lost_too_often(chore.losses);
                self.chore_failed(number, failure, out);
            }
            Setback::Failed(failure) => {
                chore.failures = chore.failures.saturating_add(1);
                let failures = chore.failures;
                if failure.class != FailureClass::Transient || failures >= limits.max_attempts {
                    return self.chore_failed(number, failure, out);
                }
                let delay = self.backoff(failures - 1);
                self.timers.insert((self.now.after(delay), Timer::Chore(number)));
            }
        }
    }

    fn chore_failed(&mut self, number: u64, failure: Failure, out: &mut Output) {
        let Some(Chore { work, plan, .. }) = self.chores.remove(&number) else { return };
        match work {
            Work::Promote(promote) => out.notices.push(Notice::PromoteFailed { plan, promote, failure }),
            Work::Publish(publish) => out.notices.push(Notice::PublishFailed { plan, publish, failure }),
            Work::Drop(drop) => out.notices.push(Notice::DropFailed { drop, failure }),
            Work::Check(_) | Work::Statements(_) => {
                out.notices.push(Notice::ErrandFailed { plan, work, failure });
            }
            Work::Evaluate(_) => {}
        }
        self.wake_publications();
    }

    /// Gives up a drop. One that is leased is never leased again: its token is older than any that
    /// the table's writers will have.
    pub(super) fn spare(&mut self, table: &TableId) {
        self.give_up(|chore| matches!(&chore.work, Work::Drop(drop) if drop.table == *table));
    }

    /// Gives up a plan's errands; where it has no batches it ends with the last of them.
    pub(super) fn cancel_errands(&mut self, plan: PlanId, out: &mut Output) {
        if self.give_up(|chore| chore.plan == plan && chore.is_errand()) {
            self.end_cancelled(plan, out);
        }
    }

    /// Whether there were any.
    fn give_up(&mut self, is_it: impl Fn(&Chore) -> bool) -> bool {
        let of_them = self.chores.iter().filter(|(_, chore)| is_it(chore));
        let numbers: Vec<u64> = of_them.map(|(number, _)| *number).collect();
        for number in &numbers {
            let Some(chore) = self.chores.get_mut(number) else { continue };
            chore.given_up = true;
            if !chore.leased {
                let (gateway, ready) = (chore.gateway, chore.ready(*number));
                self.fleet.get_mut(gateway).ready.remove(&ready);
                self.chores.remove(number);
            }
        }
        !numbers.is_empty()
    }

    fn end_cancelled(&mut self, plan: PlanId, out: &mut Output) {
        let left = self.chores.values().any(|chore| chore.plan == plan && chore.is_errand());
        if !left && !self.plan_numbers.contains_key(&plan) {
            out.records.push(Record::Cancelled { plan });
            out.notices.push(Notice::PlanCancelled { plan });
        }
    }
}

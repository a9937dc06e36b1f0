//! Errands: what a plan has done before its batches or after all of them, and what isn't a batch:
//! questions to signals, statements around a plan. Leased like promotions, each on its own.
//!
//! Invariant: an errand ends in exactly one notice, unless its plan is cancelled.
//! (`tests::errands`)

use coord_common::id::{PlanId, Token, WorkerId};
use coord_common::interval::IntervalSet;
use coord_common::task::{Done, FailureClass, Lease, Work};

use super::fleet::{GatewayNo, Ready};
use super::lease::Setback;
use super::{Held, Notice, Output, Record, RetryLimits, Scheduler, Target, Timer};

/// An errand that isn't done yet.
#[derive(Debug)]
pub(super) struct Errand {
    work: Work,
    plan: PlanId,
    gateway: GatewayNo,
    failures: u32,
    losses: u32,
    leased: bool,
    /// Its plan was given up: its end is nobody's business.
    cancelled: bool,
}

impl Scheduler {
    pub(super) fn errand(&mut self, work: Work, plan: PlanId) {
        let number = self.next_number;
        self.next_number += 1;
        let gateway = self.fleet.gateway(work.gateway());
        let errand = Errand { work, plan, gateway, failures: 0, losses: 0, leased: false, cancelled: false };
        self.errands.insert(number, errand);
        self.errand_due(number);
    }

    pub(super) fn errand_due(&mut self, number: u64) {
        if let Some(errand) = self.errands.get(&number).filter(|errand| !errand.leased) {
            self.fleet.get_mut(errand.gateway).ready.insert(Ready::Errand(number));
        }
    }

    pub(super) fn grant_errand(&mut self, worker: WorkerId, number: u64, out: &mut Output) {
        let token = self.new_token();
        let errand = self.errands.get_mut(&number).expect("a ready errand isn't done");
        errand.leased = true;
        let gateway = errand.gateway;
        let lease = Lease {
            token,
            plan: errand.plan,
            work: errand.work.clone(),
            ttl_millis: self.config.ttl,
            attempt: errand.failures + errand.losses + 1,
        };
        out.records.push(Record::Granted {
            lease: lease.clone(),
            worker: worker.clone(),
            attempts: errand.failures,
            losses: errand.losses,
            serves: Vec::new(),
            void: IntervalSet::new(),
        });
        out.grants.push((worker.clone(), lease));
        let counted = self.fleet.get_mut(gateway);
        counted.in_flight += 1;
        counted.ready.remove(&Ready::Errand(number));
        let deadline = self.now.after(self.config.accept);
        self.timers.insert((deadline, Timer::Lease(token)));
        self.leases.insert(token, Held { worker, deadline, gateway, target: Target::Errand(number) });
    }

    pub(super) fn errand_done(&mut self, token: Token, number: u64, done: Done, out: &mut Output) {
        let Some(errand) = self.errands.remove(&number) else { return };
        self.fleet.get_mut(errand.gateway).in_flight -= 1;
        out.records.push(Record::Released { token });
        if errand.cancelled {
            self.errand_was_cancelled(errand.plan, out);
        } else {
            out.notices.push(Notice::ErrandDone { plan: errand.plan, work: errand.work, done });
        }
    }

    pub(super) fn errand_set_back(&mut self, number: u64, token: Token, setback: Setback, out: &mut Output) {
        let Some(errand) = self.errands.get_mut(&number) else { return };
        self.fleet.get_mut(errand.gateway).in_flight -= 1;
        errand.leased = false;
        out.records.push(Record::Released { token });
        let limits = RetryLimits::default();
        if errand.cancelled {
            let plan = errand.plan;
            self.errands.remove(&number);
            return self.errand_was_cancelled(plan, out);
        }
        let failure = match setback {
            Setback::HandedBack => return self.errand_due(number),
            Setback::Lost => {
                errand.losses += 1;
                if errand.losses < limits.max_losses {
                    return self.errand_due(number);
                }
                super::commit::lost_too_often(errand.losses)
            }
            Setback::Failed(failure) => {
                errand.failures += 1;
                let failures = errand.failures;
                if failure.class == FailureClass::Transient && failures < limits.max_attempts {
                    let delay = self.backoff(failures - 1);
                    self.timers.insert((self.now.after(delay), Timer::Errand(number)));
                    return;
                }
                failure
            }
        };
        if let Some(Errand { work, plan, .. }) = self.errands.remove(&number) {
            out.notices.push(Notice::ErrandFailed { plan, work, failure });
        }
    }

    /// Whether a leased errand's worker should go on.
    pub(super) fn errand_holds(&self, number: u64) -> bool {
        self.errands.get(&number).is_some_and(|errand| !errand.cancelled)
    }

    /// Gives up a plan's errands.
    pub(super) fn cancel_errands(&mut self, plan: PlanId, out: &mut Output) {
        let of_plan = |errand: &&mut Errand| errand.plan == plan;
        let mut any = false;
        for errand in self.errands.values_mut().filter(of_plan) {
            errand.cancelled = true;
            any = true;
        }
        let idle: Vec<u64> = self
            .errands
            .iter()
            .filter(|(_, errand)| errand.plan == plan && !errand.leased)
            .map(|(number, _)| *number)
            .collect();
        for number in idle {
            if let Some(errand) = self.errands.remove(&number) {
                self.fleet.get_mut(errand.gateway).ready.remove(&Ready::Errand(number));
            }
        }
        if any {
            self.errand_was_cancelled(plan, out);
        }
    }

    /// The plan has ended once none of its errands is left.
    fn errand_was_cancelled(&mut self, plan: PlanId, out: &mut Output) {
        let left = self.errands.values().any(|errand| errand.plan == plan);
        if !left && !self.plan_numbers.contains_key(&plan) {
            out.records.push(Record::Cancelled { plan });
            out.notices.push(Notice::PlanCancelled { plan });
        }
    }
}

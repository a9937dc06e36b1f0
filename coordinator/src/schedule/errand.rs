//! Errands: promotions and publications. They are leased like batches, before all of them, and
//! retried until they succeed or can't.

use coord_common::id::{PlanId, Token, WorkerId};
use coord_common::task::{FailureClass, Lease, Promote, Publish, Work};

use super::fleet::{GatewayNo, Ready};
use super::lease::Setback;
use super::{Held, Notice, Output, Record, Scheduler, Target, Timer};

/// An errand that isn't done yet.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) work: Task,
    pub(super) plan: PlanId,
    gateway: GatewayNo,
    failures: u32,
    pub(super) leased: bool,
    /// Whether it could go but for leases that overlap it.
    pub(super) blocked: bool,
}

/// What an errand is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Task {
    Promote(Promote),
    Publish(Publish),
}

impl Errand {
    pub(super) fn gateway(&self) -> GatewayNo {
        self.gateway
    }
}

impl Scheduler {
    /// Takes an errand; one that is known already stays as it is.
    pub(super) fn add_errand(&mut self, work: Task, plan: PlanId) {
        if self.errands.values().any(|known| known.work == work && known.plan == plan) {
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        let gateway = self.fleet.gateway(match &work {
            Task::Promote(promote) => &promote.gateway,
            Task::Publish(publish) => &publish.gateway,
        });
        let errand = Errand { work, plan, gateway, failures: 0, leased: false, blocked: false };
        self.errands.insert(number, errand);
        self.errand_due(number);
    }

    pub(super) fn errand_due(&mut self, number: u64) {
        let blocked = self.is_blocked(number);
        let Some(errand) = self.errands.get_mut(&number).filter(|errand| !errand.leased) else { return };
        errand.blocked = blocked;
        if !blocked {
            self.fleet.get_mut(errand.gateway).ready.insert(Ready::Errand(number));
        }
    }

    pub(super) fn grant_errand(&mut self, worker: WorkerId, number: u64, out: &mut Output) {
        let token = self.new_token();
        let supersedes = self.lost_of_errand(number);
        let errand = self.errands.get_mut(&number).expect("a ready errand isn't done");
        let work = match &mut errand.work {
            Task::Promote(promote) => Work::Promote(promote.clone()),
            Task::Publish(publish) => {
                // What was lost before and superseded since doesn't come back.
                publish.supersedes = supersedes;
                Work::Publish(publish.clone())
            }
        };
        let lease = Lease {
            token,
            plan: errand.plan,
            work,
            ttl_millis: self.config.ttl,
            attempt: errand.failures + 1,
        };
        out.records.push(Record::Granted {
            lease: lease.clone(),
            worker: worker.clone(),
            attempts: errand.failures,
            losses: 0,
            serves: Vec::new(),
        });
        out.grants.push((worker.clone(), lease));
        self.hold_errand(token, worker, number, self.config.accept);
    }

    pub(super) fn recover_promotion(&mut self, token: Token, worker: WorkerId, promote: &Promote) {
        let wanted = Task::Promote(promote.clone());
        let known = self.errands.iter().find(|(_, known)| known.work == wanted && !known.leased);
        if let Some(number) = known.map(|(number, _)| *number) {
            self.hold_errand(token, worker, number, self.config.ttl);
        }
    }

    fn hold_errand(&mut self, token: Token, worker: WorkerId, number: u64, millis: u64) {
        let Some(errand) = self.errands.get_mut(&number) else { return };
        errand.leased = true;
        let gateway = errand.gateway;
        let counted = self.fleet.get_mut(gateway);
        counted.in_flight += 1;
        counted.ready.remove(&Ready::Errand(number));
        let deadline = self.now.after(millis);
        self.timers.insert((deadline, Timer::Lease(token)));
        self.leases.insert(token, Held { worker, deadline, gateway, target: Target::Errand(number) });
        self.recheck_ready_publications();
    }

    pub(super) fn errand_done(&mut self, token: Token, number: u64, out: &mut Output) {
        let Some(Errand { work, plan, gateway, .. }) = self.errands.remove(&number) else { return };
        self.fleet.get_mut(gateway).in_flight -= 1;
        match work {
            Task::Promote(promote) => {
                out.records.push(Record::Promoted { token, plan, promote: promote.clone() });
                out.notices.push(Notice::Promoted { plan, promote });
            }
            Task::Publish(publish) => self.published(token, plan, publish, out),
        }
        self.wake_publications();
    }

    pub(super) fn errand_set_back(&mut self, number: u64, token: Token, setback: Setback, out: &mut Output) {
        let Some(errand) = self.errands.get_mut(&number) else { return };
        self.fleet.get_mut(errand.gateway).in_flight -= 1;
        errand.leased = false;
        out.records.push(Record::Released { token });
        let failure = match setback {
            Setback::HandedBack | Setback::Lost => return self.errand_due(number),
            Setback::Failed(failure) => failure,
        };
        if failure.class != FailureClass::Transient {
            if let Some(Errand { work, plan, .. }) = self.errands.remove(&number) {
                out.notices.push(match work {
                    Task::Promote(promote) => Notice::PromoteFailed { plan, promote, failure },
                    Task::Publish(publish) => Notice::PublishFailed { plan, publish, failure },
                });
            }
            self.wake_publications();
            return;
        }
        errand.failures += 1;
        let failures = errand.failures;
        let delay = self.backoff(failures - 1);
        self.timers.insert((self.now.after(delay), Timer::Errand(number)));
    }
}

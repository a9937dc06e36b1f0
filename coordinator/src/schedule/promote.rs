//! Promotions: leased like batches, before all of them, and retried until they succeed.

use coord_common::id::{PlanId, Token, WorkerId};
use coord_common::task::{FailureClass, Lease, Promote, Work};

use super::fleet::{GatewayNo, Ready};
use super::lease::Setback;
use super::{Held, Notice, Output, Record, Scheduler, Target, Timer};

/// A promotion that isn't done yet.
#[derive(Debug)]
pub(super) struct Promotion {
    promote: Promote,
    plan: PlanId,
    gateway: GatewayNo,
    failures: u32,
    leased: bool,
}

impl Scheduler {
    pub(super) fn promote(&mut self, promote: Promote, plan: PlanId) {
        if self.promotions.values().any(|known| known.promote == promote) {
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        let gateway = self.fleet.gateway(&promote.gateway);
        let promotion = Promotion { promote, plan, gateway, failures: 0, leased: false };
        self.promotions.insert(number, promotion);
        self.promote_due(number);
    }

    pub(super) fn promote_due(&mut self, number: u64) {
        if let Some(promotion) = self.promotions.get(&number).filter(|promotion| !promotion.leased) {
            self.fleet.get_mut(promotion.gateway).ready.insert(Ready::Promote(number));
        }
    }

    pub(super) fn grant_promotion(&mut self, worker: WorkerId, number: u64, out: &mut Output) {
        let token = self.new_token();
        let promotion = self.promotions.get(&number).expect("a ready promotion isn't done");
        let lease = Lease {
            token,
            plan: promotion.plan,
            work: Work::Promote(promotion.promote.clone()),
            ttl_millis: self.config.ttl,
            attempt: promotion.failures + 1,
        };
        out.records.push(Record::Granted {
            lease: lease.clone(),
            worker: worker.clone(),
            attempts: promotion.failures,
            losses: 0,
            serves: Vec::new(),
        });
        out.grants.push((worker.clone(), lease));
        self.hold_promotion(token, worker, number, self.config.accept);
    }

    pub(super) fn recover_promotion(&mut self, token: Token, worker: WorkerId, promote: &Promote) {
        let known = self.promotions.iter().find(|(_, known)| known.promote == *promote && !known.leased);
        if let Some(number) = known.map(|(number, _)| *number) {
            self.hold_promotion(token, worker, number, self.config.ttl);
        }
    }

    fn hold_promotion(&mut self, token: Token, worker: WorkerId, number: u64, millis: u64) {
        let Some(promotion) = self.promotions.get_mut(&number) else { return };
        promotion.leased = true;
        let gateway = promotion.gateway;
        let counted = self.fleet.get_mut(gateway);
        counted.in_flight += 1;
        counted.ready.remove(&Ready::Promote(number));
        let deadline = self.now.after(millis);
        self.timers.insert((deadline, Timer::Lease(token)));
        self.leases.insert(token, Held { worker, deadline, gateway, target: Target::Promote(number) });
    }

    pub(super) fn promoted(&mut self, token: Token, number: u64, out: &mut Output) {
        let Some(Promotion { promote, plan, gateway, .. }) = self.promotions.remove(&number) else { return };
        self.fleet.get_mut(gateway).in_flight -= 1;
        out.records.push(Record::Promoted { token, plan, promote: promote.clone() });
        out.notices.push(Notice::Promoted { plan, promote });
    }

    pub(super) fn promotion_set_back(
        &mut self,
        number: u64,
        token: Token,
        setback: Setback,
        out: &mut Output,
    ) {
        let Some(promotion) = self.promotions.get_mut(&number) else { return };
        self.fleet.get_mut(promotion.gateway).in_flight -= 1;
        promotion.leased = false;
        out.records.push(Record::Released { token });
        let failure = match setback {
            Setback::HandedBack | Setback::Lost => return self.promote_due(number),
            Setback::Failed(failure) => failure,
        };
        if failure.class != FailureClass::Transient {
            if let Some(Promotion { promote, plan, .. }) = self.promotions.remove(&number) {
                out.notices.push(Notice::PromoteFailed { plan, promote, failure });
            }
            return;
        }
        promotion.failures += 1;
        let failures = promotion.failures;
        let delay = self.backoff(failures - 1);
        self.timers.insert((self.now.after(delay), Timer::Promote(number)));
    }
}

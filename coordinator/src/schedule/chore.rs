//! Chores: promotions and publications, leased before all batches and retried until they succeed;
//! and drops of tables, leased after all batches and given up after a few failures.

use coord_common::id::{PlanId, Token, WorkerId};
use coord_common::interval::IntervalSet;
use coord_common::task::{DropTable, Failure, FailureClass, Lease, Promote, TableId, Work};

use super::fleet::{GatewayNo, Ready};
use super::lease::Setback;
use super::{Held, Notice, Output, Record, Scheduler, Target, Timer};

/// How often a drop may fail before it is given up: whoever asked for it can ask again.
const DROP_ATTEMPTS: u32 = 4;

/// A chore that isn't done yet.
#[derive(Debug)]
pub(super) struct Chore {
    pub(super) work: Work,
    pub(super) plan: PlanId,
    pub(super) gateway: GatewayNo,
    failures: u32,
    pub(super) leased: bool,
    /// Whether it could go but for leases that overlap it.
    pub(super) blocked: bool,
    /// Whether it isn't wanted any more.
    spared: bool,
}

impl Chore {
    fn ready(&self, number: u64) -> Ready {
        match self.work {
            Work::Drop(_) => Ready::Drop(number),
            _ => Ready::Promote(number),
        }
    }

    /// Whether a failure can't be mended by trying once more.
    fn is_hopeless(&self, failure: &Failure) -> bool {
        let often = matches!(self.work, Work::Drop(_)) && self.failures + 1 >= DROP_ATTEMPTS;
        failure.class != FailureClass::Transient || often
    }
}

impl Scheduler {
    pub(super) fn promote(&mut self, promote: Promote, plan: PlanId) {
        let gateway = promote.gateway.clone();
        self.add_chore(Work::Promote(promote), plan, &gateway);
    }

    pub(super) fn drop_table(&mut self, drop: DropTable, plan: PlanId) {
        let gateway = drop.gateway.clone();
        self.add_chore(Work::Drop(drop), plan, &gateway);
    }

    /// Gives up a drop. One that is leased may come to its end, but is never leased again: its token
    /// is older than any that the table's writers will have.
    pub(super) fn spare(&mut self, table: &TableId) {
        let is_it = |chore: &Chore| matches!(&chore.work, Work::Drop(drop) if drop.table == *table);
        let numbers: Vec<u64> =
            self.chores.iter().filter(|(_, chore)| is_it(chore)).map(|(number, _)| *number).collect();
        for number in numbers {
            let Some(chore) = self.chores.get_mut(&number) else { continue };
            chore.spared = true;
            if !chore.leased {
                let (gateway, ready) = (chore.gateway, chore.ready(number));
                self.fleet.get_mut(gateway).ready.remove(&ready);
                self.chores.remove(&number);
            }
        }
    }

    pub(super) fn add_chore(&mut self, work: Work, plan: PlanId, gateway: &str) {
        if self.chores.values().any(|known| known.work == work && !known.spared) {
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        let gateway = self.fleet.gateway(gateway);
        let chore = Chore { work, plan, gateway, failures: 0, leased: false, blocked: false, spared: false };
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
            attempt: chore.failures + 1,
        };
        out.records.push(Record::Granted {
            lease: lease.clone(),
            worker: worker.clone(),
            attempts: chore.failures,
            losses: 0,
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
        self.leases.insert(token, Held { worker, deadline, gateway, target: Target::Chore(number) });
        self.recheck_ready_publications();
    }

    pub(super) fn chore_done(&mut self, token: Token, number: u64, out: &mut Output) {
        let Some(Chore { work, plan, gateway, spared, .. }) = self.chores.remove(&number) else { return };
        self.fleet.get_mut(gateway).in_flight -= 1;
        match work {
            Work::Promote(promote) => {
                out.records.push(Record::Promoted { token, plan, promote: promote.clone() });
                out.notices.push(Notice::Promoted { plan, promote });
            }
            Work::Publish(publish) => self.published(token, plan, publish, out),
            Work::Drop(drop) => {
                out.records.push(Record::Released { token });
                if !spared {
                    out.notices.push(Notice::Dropped { drop });
                }
            }
            Work::Evaluate(_) | Work::Check(_) | Work::Statements(_) => {}
        }
        self.wake_publications();
    }

    pub(super) fn chore_set_back(&mut self, number: u64, token: Token, setback: Setback, out: &mut Output) {
        let Some(chore) = self.chores.get_mut(&number) else { return };
        self.fleet.get_mut(chore.gateway).in_flight -= 1;
        chore.leased = false;
        out.records.push(Record::Released { token });
        if chore.spared {
            self.chores.remove(&number);
            return;
        }
        let failure = match setback {
            Setback::HandedBack | Setback::Lost => return self.chore_due(number),
            Setback::Failed(failure) => failure,
        };
        if chore.is_hopeless(&failure) {
            if let Some(Chore { work, plan, .. }) = self.chores.remove(&number) {
                match work {
                    Work::Promote(promote) => {
                        out.notices.push(Notice::PromoteFailed { plan, promote, failure });
                    }
                    Work::Publish(publish) => {
                        out.notices.push(Notice::PublishFailed { plan, publish, failure });
                    }
                    Work::Drop(drop) => out.notices.push(Notice::DropFailed { drop, failure }),
                    Work::Evaluate(_) | Work::Check(_) | Work::Statements(_) => {}
                }
            }
            self.wake_publications();
            return;
        }
        chore.failures += 1;
        let failures = chore.failures;
        let delay = self.backoff(failures - 1);
        self.timers.insert((self.now.after(delay), Timer::Chore(number)));
    }
}

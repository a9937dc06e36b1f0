//! Restated tables: kept from others while they are computed aside, and published alone.
//!
//! Invariant: while a publication may be running, no batch of its tables is, and no other
//! publication of any of them. (`tests::simulation`)

use std::collections::BTreeSet;

use coord_common::id::{PlanId, Token};
use coord_common::interval::Interval;
use coord_common::task::{Batch, Publish, TableId, Work};

use super::chore::Chore;
use super::event::TableState;
use super::fleet::Ready;
use super::table::{Hold, TableNo};
use super::{Notice, Output, Record, Scheduler, Target};

impl Scheduler {
    /// Keeps the tables that a plan restates from plans that are admitted later.
    pub(super) fn hold(&mut self, plan: PlanId, tables: &[TableState]) {
        let since = self.next_number;
        self.next_number += 1;
        for state in tables {
            let no = self.tables.intern(&state.table, Some(state));
            let table = self.tables.get_mut(no);
            if table.holds.iter().all(|hold| hold.plan != plan) {
                table.holds.push(Hold { plan, since, publishing: false });
                self.refresh_users(no);
            }
        }
    }

    /// Lets go of what a plan kept from others.
    pub(super) fn release(&mut self, plan: PlanId) {
        for no in self.tables.held_by(plan) {
            self.tables.get_mut(no).holds.retain(|hold| hold.plan != plan);
            self.refresh_users(no);
            self.tables.release(no);
        }
        self.wake_publications();
    }

    /// A plan's tables are to be published. Nobody starts on them any more.
    pub(super) fn publish(&mut self, publish: Publish, plan: PlanId) {
        if !publish.discard {
            for no in self.tables_of(&publish) {
                let holds = &mut self.tables.get_mut(no).holds;
                holds.iter_mut().filter(|hold| hold.plan == plan).for_each(|hold| hold.publishing = true);
                self.refresh_users(no);
            }
        }
        self.add_chore(Work::Publish(publish), plan);
    }

    /// Whether a chore must wait for leases that overlap it.
    pub(super) fn is_blocked(&self, number: u64) -> bool {
        let Some(publish) = self.publication(number) else { return false };
        if self.tables_of(publish).iter().any(|no| !self.tables.get(*no).in_flight.is_empty()) {
            return true;
        }
        let ours: BTreeSet<&TableId> = publish.tables.iter().map(|table| &table.table).collect();
        let leased = self.chores.iter().filter(|(other, chore)| **other != number && chore.leased);
        leased
            .filter_map(|(other, _)| self.publication(*other))
            .any(|other| other.tables.iter().any(|table| ours.contains(&table.table)))
    }

    fn publication(&self, number: u64) -> Option<&Publish> {
        match self.chores.get(&number) {
            Some(Chore { work: Work::Publish(publish), .. }) if !publish.discard => Some(publish),
            _ => None,
        }
    }

    fn tables_of(&self, publish: &Publish) -> Vec<TableNo> {
        publish.tables.iter().filter_map(|table| self.tables.find(&table.table)).collect()
    }

    /// Lets publications go that waited for a lease which has ended.
    pub(super) fn wake_publications(&mut self) {
        let waiting: Vec<u64> =
            self.chores.iter().filter(|(_, chore)| chore.blocked).map(|(number, _)| *number).collect();
        for number in waiting {
            self.chore_due(number);
        }
    }

    /// Takes back those that a lease has come to overlap.
    pub(super) fn recheck_ready_publications(&mut self) {
        let unleased: Vec<u64> = self
            .chores
            .iter()
            .filter(|(_, chore)| !chore.leased && !chore.blocked && matches!(chore.work, Work::Publish(_)))
            .map(|(number, _)| *number)
            .collect();
        for number in unleased {
            if self.is_blocked(number)
                && let Some(chore) = self.chores.get_mut(&number)
                && self.fleet.get_mut(chore.gateway).ready.remove(&Ready::Promote(number))
            {
                chore.blocked = true;
            }
        }
    }

    /// Lost batches of the tables that a chore publishes.
    pub(super) fn lost_of_publication(&self, number: u64) -> Vec<Batch> {
        let Some(publish) = self.publication(number) else { return Vec::new() };
        let mut lost = Vec::new();
        for table in self.tables_of(publish).into_iter().map(|no| self.tables.get(no)) {
            let batch = |interval: &Interval| Batch { table: table.id.clone(), interval: *interval };
            lost.extend(table.lost.iter().map(batch));
        }
        lost
    }

    /// What was computed aside is in place, or dropped.
    pub(super) fn published(&mut self, token: Token, plan: PlanId, publish: Publish, out: &mut Output) {
        if !publish.discard {
            for published in &publish.tables {
                let Some(no) = self.tables.find(&published.table) else { continue };
                let table = self.tables.get_mut(no);
                table.done = table.done.union(&published.ranges);
                out.records.push(Record::Filled { table: table.id.clone(), done: table.done.clone() });
            }
            for batch in &publish.supersedes {
                if let Some(no) = self.tables.find(&batch.table) {
                    self.tables.get_mut(no).lost.remove(&batch.interval);
                }
            }
        }
        let superseded = publish.supersedes.clone();
        out.records.push(Record::Published { token, plan, superseded });
        out.notices.push(Notice::Published { plan, publish });
    }

    /// Ranges of tables count as empty from now on, also where a batch of a plan that is under way fills them
    /// later: what it reads, or has read, follows from rows that were restated. Leases in flight are
    /// written down anew; of batches to come, the plan's record tells.
    pub(super) fn clear(&mut self, ranges: &[(TableId, Interval)], out: &mut Output) {
        let mut voided = BTreeSet::new();
        for (table, range) in ranges {
            let Some(no) = self.tables.find(table) else { continue };
            let table = self.tables.get_mut(no);
            table.done.remove(*range);
            for user in &table.users {
                if let Some(plan) = self.plans.get_mut(&user.plan) {
                    plan.nodes[user.node].void.insert(*range);
                }
            }
            let tokens: Vec<Token> = table
                .in_flight
                .iter()
                .filter(|(batch, _)| batch.overlaps(*range))
                .map(|(_, token)| *token)
                .collect();
            for token in tokens {
                if let Some(held) = self.leases.get_mut(&token)
                    && let Target::Batch(lease) = &mut held.target
                {
                    lease.void.insert(*range);
                    voided.insert(token);
                }
            }
        }
        for token in voided {
            self.record_grant(token, out);
        }
    }
}

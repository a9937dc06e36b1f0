//! What workers ask, as events for the scheduler; answers wait until decisions are durable.

use coord_common::id::{Token, WorkerId};
use coord_common::task::{Batch, Outcome, Report, Verdict};

use super::command::{Command, Refused};
use super::fleet::{Polled, Room, states_of, verdicts_of};
use super::{Answer, Control};
use crate::access::owner;
use crate::schedule::{Event, Output};

impl Control {
    /// Whether a lease is that of a worker of another name. Sessions of one name are one worker's, in
    /// the order of their starts.
    fn is_anothers(&self, token: Token, worker: &WorkerId) -> bool {
        let holder = self.scheduler.holder(token);
        holder.is_some_and(|holder| owner(holder.as_str()) != owner(worker.as_str()))
    }

    /// Takes a command of a worker in; gives back what isn't one.
    pub(super) fn take(
        &mut self,
        command: Command,
        out: &mut Output,
        answers: &mut Vec<Answer>,
    ) -> Option<Command> {
        let now = self.now();
        match command {
            Command::Tick => {
                self.scheduler.on(now, Event::Tick, out);
                for worker in self.workers.forget_silent() {
                    self.scheduler.on(now, Event::WorkerGone { worker }, out);
                }
            }
            Command::Register { worker, gateways, slots, held, reply } => {
                let most = self.config.sessions;
                if self.workers.is_full(most) && !self.workers.is_known(&worker) {
                    answers.push(Box::new(move || {
                        let _ = reply.send(Err(Refused::Crowded(most)));
                    }));
                    return None;
                }
                self.workers.register(worker.clone(), gateways, slots, &held);
                // The leases that it still works on are alive: their deadlines start anew.
                self.scheduler.on(now, Event::Heartbeat { worker, tokens: held }, out);
                answers.push(Box::new(move || {
                    let _ = reply.send(Ok(()));
                }));
            }
            Command::Poll { worker, poll, reply } => {
                let free = poll.free;
                if let Polled::Waits = self.workers.poll(&worker, poll, reply) {
                    self.ask_for(worker, free, out);
                }
            }
            Command::Unpoll { worker } => {
                if let Some(gateways) = self.workers.unpoll(&worker) {
                    let nothing = Event::Ask { worker, gateways, free: 0, queues: false };
                    self.scheduler.on(now, nothing, out);
                }
            }
            Command::Heartbeat { worker, tokens, reply } => {
                if !self.workers.is_known(&worker) {
                    answers.push(Box::new(move || drop(reply.send(Err(Refused::Unknown)))));
                    return None;
                }
                let from = out.states.len();
                self.scheduler.on(now, Event::Heartbeat { worker: worker.clone(), tokens }, out);
                let states = states_of(out, &worker, from);
                answers.push(Box::new(move || drop(reply.send(Ok(states)))));
            }
            Command::Complete { worker, reports, named, reply } => {
                let mut foreign = reports.iter().map(|report| report.token);
                if named && let Some(token) = foreign.find(|token| self.is_anothers(*token, &worker)) {
                    answers.push(Box::new(move || drop(reply.send(Err(Refused::NotTheirs(token))))));
                    return None;
                }
                // A session that isn't registered may still report what it was granted before.
                self.workers.is_known(&worker);
                let from = out.verdicts.len();
                for Report { token, batch, outcome } in reports {
                    let repeated = batch.filter(|batch| self.is_on_record(batch, &outcome));
                    self.scheduler.note(now, Event::Report { worker: worker.clone(), token, outcome }, out);
                    if let (Some(_), Some((_, _, verdict @ Verdict::Stale))) =
                        (repeated, out.verdicts.last_mut())
                    {
                        *verdict = Verdict::Already;
                    }
                }
                let verdicts = verdicts_of(out, &worker, from);
                // Who has just done a table's batch is to have the next: it asks before that is granted.
                self.ask_for(worker, 0, out);
                self.scheduler.decide(out);
                answers.push(Box::new(move || drop(reply.send(Ok(verdicts)))));
            }
            Command::Drain { worker, reply } => {
                self.workers.drain(&worker);
                self.scheduler.on(now, Event::Drain { worker }, out);
                answers.push(Box::new(move || {
                    let _ = reply.send(());
                }));
            }
            other => return Some(other),
        }
        None
    }

    /// Asks the scheduler for what a worker with an open poll has room for, given what it has reported
    /// since it asked; at least `free` leases.
    fn ask_for(&mut self, worker: WorkerId, free: u32, out: &mut Output) {
        let queued = self.scheduler.queued(&worker);
        if let Some(Room { gateways, free: room, queues }) = self.workers.room(&worker, queued, out) {
            let free = free.max(room);
            self.scheduler.on(self.now(), Event::Ask { worker, gateways, free, queues }, out);
        }
    }

    /// Whether what a report says was recorded before, by a former leader maybe, and nobody waits for
    /// it again.
    fn is_on_record(&self, batch: &Batch, outcome: &Outcome) -> bool {
        let recorded = self.book.tables.get(&batch.table);
        matches!(outcome, Outcome::Done(_))
            && recorded.is_some_and(|table| table.done.covers(batch.interval))
            && !self.scheduler.awaits(batch)
    }
}

//! A model of the durable state: applies records, and checks each against what came before.

use std::collections::{BTreeMap, BTreeSet};

use coord_common::id::{PlanId, Token, WorkerId};
use coord_common::interval::{Interval, IntervalSet};
use coord_common::task::{
    Aside, Batch, Evaluate, Failure, Keeps, Lease, Mode, Outcome, Promote, Publish, PublishTable, TableId,
    Work,
};

use crate::schedule::{
    Committed, Event, Notice, PlanOutcome, PlanWork, Record, Recovered, RetryLimits, TableState,
};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Granted {
    pub(super) lease: Lease,
    pub(super) worker: WorkerId,
    attempts: u32,
    losses: u32,
    serves: Vec<PlanId>,
    void: IntervalSet,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Running,
    Cancelling,
    Ended,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    plans: Vec<(PlanWork, State)>,
    tables: BTreeMap<TableId, (IntervalSet, bool)>,
    todo: BTreeMap<(PlanId, TableId), IntervalSet>,
    /// Tables that must still get their columns.
    migrates: BTreeSet<(PlanId, TableId)>,
    pub(super) leases: BTreeMap<Token, Granted>,
    waits: BTreeMap<(PlanId, Batch), (u32, u32)>,
    failed: BTreeMap<(PlanId, Batch), (Failure, u32)>,
    lost: BTreeSet<Batch>,
    pub(super) promotions: BTreeMap<u64, Promote>,
    /// What is to be published or dropped, plan by plan.
    pub(super) publishing: BTreeMap<PlanId, Publish>,
    /// Ranges that were cleared under leases: what those commit doesn't count there.
    void: BTreeMap<Token, IntervalSet>,
    pub(super) limit: BTreeMap<String, u32>,
    pub(super) last_token: u64,
    commits: BTreeSet<Token>,
    expected: BTreeMap<TableId, IntervalSet>,
    pub(super) seen: BTreeSet<&'static str>,
}

impl PartialEq for Store {
    fn eq(&self, other: &Self) -> bool {
        self.tables == other.tables
            && self.todo == other.todo
            && self.migrates == other.migrates
            && self.leases == other.leases
            && self.waits == other.waits
            && self.failed == other.failed
            && self.lost == other.lost
    }
}

impl Store {
    pub(super) fn table(&self, id: &TableId) -> TableState {
        let (done, created) = self.tables.get(id).cloned().unwrap_or_default();
        let lost = self.lost.iter().filter(|batch| batch.table == *id).map(|batch| batch.interval).collect();
        TableState { table: id.clone(), done, created, lost }
    }

    pub(super) fn admit(&mut self, work: PlanWork) {
        for node in &work.nodes {
            let key = (work.plan, node.task.table.clone());
            self.todo.insert(key.clone(), node.todo.clone());
            if node.migrate && self.table(&node.task.table).created {
                self.migrates.insert(key);
            }
        }
        self.plans.push((work, State::Running));
    }

    pub(super) fn cancel(&mut self, plan: PlanId) {
        if let Some((_, state)) = self.plans.iter_mut().find(|(work, _)| work.plan == plan)
            && *state == State::Running
        {
            *state = State::Cancelling;
        }
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &PlanWork> {
        self.plans.iter().filter(|(_, state)| *state != State::Ended).map(|(work, _)| work)
    }

    fn state(&self, plan: PlanId) -> State {
        self.plans.iter().find(|(work, _)| work.plan == plan).unwrap().1
    }

    fn work(&self, plan: PlanId) -> &PlanWork {
        &self.plans.iter().find(|(work, _)| work.plan == plan).unwrap().0
    }

    /// What a report will have filled, if it counts.
    pub(super) fn expect_done(&mut self, lease: &Lease, outcome: &Outcome) {
        if let (Work::Evaluate(evaluate), Outcome::Done(_)) = (&lease.work, outcome)
            && self.leases.contains_key(&lease.token)
            && evaluate.mode.fills()
        {
            let void = self.void.get(&lease.token).cloned().unwrap_or_default();
            let counts = IntervalSet::from(evaluate.batch.interval).difference(&void);
            self.seen.extend((!void.is_empty()).then_some("void"));
            let done = self.expected.entry(evaluate.batch.table.clone()).or_default();
            *done = done.union(&counts);
        }
        if let (Work::Publish(publish), Outcome::Done(_)) = (&lease.work, outcome)
            && self.leases.contains_key(&lease.token)
            && !publish.discard
        {
            for table in &publish.tables {
                let done = self.expected.entry(table.table.clone()).or_default();
                *done = done.union(&table.ranges);
            }
        }
    }

    /// What a plan computes aside, as it is to be published.
    fn publication(&self, plan: PlanId, discard: bool) -> Option<Publish> {
        let asides = self.work(plan).nodes.iter().filter(|node| node.task.table.aside.is_some());
        let tables: Vec<PublishTable> = asides
            .map(|node| PublishTable {
                table: TableId { aside: None, ..node.task.table.clone() },
                snapshot: node.task.snapshot,
                relation: node.task.target.clone(),
                aside: Aside { published: node.task.target.clone(), keeps: Keeps::Nothing },
                ranges: node.todo.clone(),
            })
            .collect();
        let (gateway, supersedes) = ("main".to_owned(), Vec::new());
        (!tables.is_empty()).then_some(Publish { gateway, tables, discard, round: 0, supersedes })
    }

    /// What comes before a plan that restates aside.
    pub(super) fn hold(&self, plan: PlanId) -> Option<Event> {
        let publish = self.publication(plan, false)?;
        let tables = publish.tables.iter().map(|table| self.table(&table.table)).collect();
        Some(Event::Hold { plan, tables })
    }

    /// What the control loop does upon a notice.
    pub(super) fn follow(&mut self, notice: &Notice) -> Vec<Event> {
        let (plan, publish) = match notice {
            Notice::PlanSettled { plan, outcome: PlanOutcome::Complete } => {
                (*plan, self.publication(*plan, false))
            }
            Notice::PlanCancelled { plan } => (*plan, self.publication(*plan, true)),
            Notice::PlanSettled { plan, .. } => return vec![Event::Release { plan: *plan }],
            Notice::Published { plan, .. } | Notice::PublishFailed { plan, .. } => {
                self.publishing.remove(plan);
                return vec![Event::Release { plan: *plan }];
            }
            _ => return Vec::new(),
        };
        let Some(publish) = publish else { return Vec::new() };
        // Cancelling again says again that it is cancelled.
        if self.publishing.contains_key(&plan) {
            return Vec::new();
        }
        let release = publish.discard.then_some(Event::Release { plan });
        self.publishing.insert(plan, publish.clone());
        release.into_iter().chain([Event::Publish(publish, plan)]).collect()
    }

    /// A new leader grants publications anew.
    pub(super) fn forget_publications(&mut self) {
        self.leases.retain(|_, granted| !matches!(granted.lease.work, Work::Publish(_)));
    }

    /// Takes note that a range of a table no longer counts.
    pub(super) fn clear(&mut self, table: &TableId, range: Interval) {
        let known = self.tables.get_mut(table).map(|(done, _)| done);
        for done in known.into_iter().chain(self.expected.get_mut(table)) {
            done.remove(range);
        }
        for (token, granted) in &self.leases {
            if let Work::Evaluate(evaluate) = &granted.lease.work
                && evaluate.batch.table == *table
                && evaluate.batch.interval.overlaps(range)
            {
                self.void.entry(*token).or_default().insert(range);
            }
        }
    }

    /// Publications are alone with their tables.
    fn check_publication(&self, publish: &Publish) {
        for table in &publish.tables {
            let table = &table.table;
            assert!(self.in_flight(table).is_empty(), "nobody writes what is published");
            for lost in self.lost.iter().filter(|lost| lost.table == *table) {
                assert!(publish.supersedes.contains(lost), "{lost} is shut out");
            }
            let others = self.leases.values().filter_map(|granted| match &granted.lease.work {
                Work::Publish(other) if !other.discard => Some(other),
                _ => None,
            });
            let mut published = others.flat_map(|other| &other.tables);
            assert!(published.all(|other| other.table != *table), "one publication at a time");
        }
    }

    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::Granted { lease, worker, attempts, losses, serves, void } => {
                let granted = Granted {
                    lease: lease.clone(),
                    worker: worker.clone(),
                    attempts: *attempts,
                    losses: *losses,
                    serves: serves.clone(),
                    void: void.clone(),
                };
                self.check_grant(&granted);
                let known = self.void.entry(lease.token).or_default();
                *known = known.union(void);
                self.leases.insert(lease.token, granted);
            }
            Record::Committed(committed) => self.commit(committed),
            Record::Lost { token, batch, .. } => {
                assert!(self.leases.remove(token).is_some());
                self.lost.insert(batch.clone());
                self.seen.insert("lost");
            }
            Record::Waiting { token, plan, batch, attempts, losses, .. } => {
                self.leases.remove(token);
                self.waits.insert((*plan, batch.clone()), (*attempts, *losses));
            }
            Record::Failed { token, plan, batch, attempts, failure, .. } => {
                self.leases.remove(token);
                self.failed.insert((*plan, batch.clone()), (failure.clone(), *attempts));
            }
            Record::Cleared { plan, batch } => {
                let key = (*plan, batch.clone());
                assert!(self.waits.remove(&key).is_some() || self.failed.remove(&key).is_some());
                self.seen.insert("cleared");
            }
            Record::Released { token } => assert!(self.leases.remove(token).is_some()),
            Record::Promoted { token, promote, .. } => {
                assert!(self.leases.remove(token).is_some());
                assert!(self.promotions.remove(&promote.seq).is_some(), "promoted once");
            }
            Record::Filled { table, done } => {
                let known = self.tables.get(table).map(|(done, _)| done.clone()).unwrap_or_default();
                assert!(known.difference(done).is_empty(), "done never loses a range");
                self.tables.entry(table.clone()).or_default().0 = done.clone();
                self.seen.insert("published");
            }
            Record::Published { token, superseded, .. } => {
                assert!(self.leases.remove(token).is_some());
                for batch in superseded {
                    assert!(self.lost.remove(batch));
                }
            }
            Record::Cancelled { plan } => {
                self.todo.retain(|(owner, _), _| owner != plan);
                self.migrates.retain(|(owner, _)| owner != plan);
                self.waits.retain(|(owner, _), _| owner != plan);
                self.failed.retain(|(owner, _), _| owner != plan);
            }
        }
    }

    fn check_grant(&mut self, granted: &Granted) {
        let Granted { lease, attempts, losses, serves, .. } = granted;
        if let Work::Evaluate(evaluate) = &lease.work
            && evaluate.mode.fills()
        {
            for plan in serves.iter().filter(|plan| self.state(**plan) == State::Running) {
                self.check_reads(*plan, &evaluate.batch);
            }
        }
        if self.leases.contains_key(&lease.token) {
            self.seen.insert(if granted.void.is_empty() { "shared" } else { "voided" });
            return;
        }
        assert!(lease.token.0 > self.last_token, "tokens grow");
        self.last_token = lease.token.0;
        let gateway = gateway(lease);
        if let Some(limit) = self.limit.get(gateway) {
            let taken = self.leases.values().filter(|other| self::gateway(&other.lease) == gateway);
            let runs = taken.filter(|other| !self.waits(&other.lease)).count();
            assert!(self.waits(lease) || runs < *limit as usize, "the gateway's limit holds");
        }
        if let Work::Publish(publish) = &lease.work
            && !publish.discard
        {
            self.check_publication(publish);
        }
        let Work::Evaluate(evaluate) = &lease.work else { return };
        self.check_place(granted);
        let published =
            self.publishing.iter().filter(|(plan, publish)| **plan != lease.plan && !publish.discard);
        let mut published = published.flat_map(|(_, publish)| &publish.tables);
        assert!(
            published.all(|other| other.table != evaluate.batch.table),
            "{evaluate:?} is being published"
        );
        assert!(serves.contains(&lease.plan));
        self.seen.extend((serves.len() > 1).then_some("shared"));
        assert_eq!(self.state(lease.plan), State::Running, "no grant for a plan that ends");
        let limits = RetryLimits::default();
        assert!(*attempts < limits.max_attempts && *losses < limits.max_losses);
        let waited = self.waits.remove(&(lease.plan, evaluate.batch.clone()));
        assert_eq!(waited.unwrap_or_default(), (*attempts, *losses), "counts are kept");
        self.check_order(lease, evaluate);
        for lost in self.lost.iter().filter(|lost| lost.table == evaluate.batch.table) {
            let listed = evaluate.supersedes.contains(lost) || *lost == evaluate.batch;
            assert!(listed || !lost.interval.overlaps(evaluate.batch.interval), "{lost} is superseded");
        }
    }

    /// Upstreams first, one lease for each point in time, within the table's limits.
    fn check_order(&self, lease: &Lease, evaluate: &Evaluate) {
        let (plan, batch, mode) = (lease.plan, &evaluate.batch, evaluate.mode);
        let work = self.work(plan);
        let node = work.nodes.iter().find(|node| node.task.table == batch.table).unwrap();
        let todo = &self.todo[&(plan, batch.table.clone())];
        let created = self.table(&batch.table).created;
        let migrates = self.migrates.contains(&(plan, batch.table.clone()));
        assert_eq!(migrates, mode == Mode::Migrate, "columns come before rows");
        if mode == Mode::Migrate {
            assert!(created && self.in_flight(&batch.table).is_empty(), "a migration is alone");
        } else if mode == Mode::Create {
            assert!(!created && node.made_first || todo.is_empty(), "made once, {todo:?}");
        } else {
            assert!(todo.covers(batch.interval), "what is leased is still to do");
            assert!(self.failed.keys().all(|(p, b)| {
                *p != plan || b.table != batch.table || !b.interval.overlaps(batch.interval)
            }));
        }
        if mode == Mode::Migrate {
            self.check_parents(plan, batch);
        } else if mode != Mode::Create {
            self.check_reads(plan, batch);
        }
        let others = self.in_flight(&batch.table);
        assert!(others.iter().all(|other| !other.overlaps(batch.interval)), "no two leases overlap");
        assert!(created || others.is_empty(), "one at a time before the table exists");
        let own = |token: &Token| self.leases[token].lease.batch().is_some_and(|b| b.table == batch.table);
        let added = usize::from(!lease.behind.is_some_and(|place| own(&place)));
        let limit = node.concurrency.map_or(usize::MAX, |limit| limit as usize);
        assert!(self.at_work(&batch.table) + added <= limit.max(1), "the table's limit holds");
        assert!(
            !node.sequential
                || matches!(mode, Mode::Create | Mode::Migrate)
                || todo.hull().unwrap().start == batch.interval.start
        );
    }

    /// What the batch reads can be read.
    fn check_parents(&self, plan: PlanId, batch: &Batch) {
        let work = self.work(plan);
        let node = work.nodes.iter().find(|node| node.task.table == batch.table).unwrap();
        for parent in node.parents.iter().map(|edge| &work.nodes[edge.node].task.table) {
            assert!(self.table(parent).created, "upstream tables exist");
            assert!(!self.migrates.contains(&(plan, parent.clone())), "upstream tables have their columns");
        }
    }

    /// All that the batch reads is done, as the plan sees it.
    fn check_reads(&self, plan: PlanId, batch: &Batch) {
        self.check_parents(plan, batch);
        let work = self.work(plan);
        let node = work.nodes.iter().find(|node| node.task.table == batch.table).unwrap();
        for edge in &node.parents {
            let parent = &work.nodes[edge.node].task.table;
            let reads = edge.reads.of(batch.interval);
            let left = self.todo[&(plan, parent.clone())].overlaps(reads);
            assert!(!left, "{batch} reads {parent}, which misses some of {reads}");
        }
    }

    fn in_flight(&self, table: &TableId) -> Vec<Interval> {
        let batch = |granted: &Granted| match &granted.lease.work {
            Work::Evaluate(evaluate) if evaluate.batch.table == *table => Some(evaluate.batch.interval),
            _ => None,
        };
        self.leases.values().filter_map(batch).collect()
    }

    /// Whether a lease waits behind another.
    pub(super) fn waits(&self, lease: &Lease) -> bool {
        lease.behind.is_some_and(|place| self.leases.contains_key(&place))
    }

    /// How many batches of a table workers may be working on at once.
    fn at_work(&self, table: &TableId) -> usize {
        let own = |lease: &Lease| lease.batch().is_some_and(|batch| batch.table == *table);
        let begun = |lease: &Lease| {
            let place = lease.behind.and_then(|place| self.leases.get(&place));
            !place.is_some_and(|place| own(&place.lease))
        };
        self.leases.values().filter(|granted| own(&granted.lease) && begun(&granted.lease)).count()
    }

    /// A lease waits behind one of the same worker and gateway that doesn't wait itself, alone.
    fn check_place(&mut self, granted: &Granted) {
        let Some(token) = granted.lease.behind else { return };
        self.seen.insert("behind");
        let place = &self.leases[&token];
        assert_eq!(place.worker, granted.worker);
        assert_eq!(gateway(&place.lease), gateway(&granted.lease));
        assert!(!self.waits(&place.lease), "only what has begun is waited for");
        assert!(self.leases.values().all(|other| other.lease.behind != Some(token)), "one behind each");
        let plain = |lease: &Lease| matches!(&lease.work, Work::Evaluate(e) if e.mode == Mode::Write);
        assert!(plain(&place.lease) && plain(&granted.lease));
    }

    fn commit(&mut self, committed: &Committed) {
        let granted = self.leases.remove(&committed.token).expect("what commits was leased");
        assert!(self.commits.insert(committed.token), "a lease commits once");
        let own = &self.todo[&(committed.plan, committed.table.clone())];
        assert!(
            matches!(committed.mode, Mode::Create | Mode::Migrate) || own.covers(committed.interval),
            "todo goes to done once"
        );
        let before = self.table(&committed.table).done;
        assert!(before.difference(&committed.done).is_empty(), "done never loses a range");
        self.tables.insert(committed.table.clone(), (committed.done.clone(), committed.created));
        for left in &committed.shrunk {
            let key = (left.plan, left.table.clone());
            if !left.migrate_left && self.migrates.remove(&key) {
                assert_eq!(committed.mode, Mode::Migrate);
                self.seen.insert("migrated");
            }
            let old = self.todo.insert(key, left.todo.clone()).expect("only known todos shrink");
            let gone = old.difference(&left.todo);
            assert!(gone.difference(&committed.interval.into()).is_empty(), "only the batch goes");
            assert!(gone.is_empty() || granted.serves.contains(&left.plan));
        }
        for interval in &committed.superseded {
            self.seen.insert("superseded");
            assert!(self.lost.remove(&Batch { table: committed.table.clone(), interval: *interval }));
        }
    }

    pub(super) fn settle(&mut self, notice: &Notice) {
        let (plan, expected) = match notice {
            Notice::PlanSettled { plan, outcome } => {
                let open = self.todo.iter().any(|((owner, _), todo)| owner == plan && !todo.is_empty());
                let migrates = self.migrates.iter().any(|(owner, _)| owner == plan);
                let complete = !open && !migrates && self.all_created(*plan);
                assert_eq!(*outcome == PlanOutcome::Complete, complete);
                if let PlanOutcome::Failed { failures, skipped } = outcome {
                    assert!(!failures.is_empty(), "skipped {skipped:?} without a failure");
                }
                self.seen.insert(if open { "failed" } else { "complete" });
                (plan, State::Running)
            }
            Notice::PlanCancelled { plan } => {
                self.seen.insert("cancelled");
                (plan, State::Cancelling)
            }
            Notice::Promoted { .. }
            | Notice::Published { .. }
            | Notice::PublishFailed { .. }
            | Notice::Dropped { .. }
            | Notice::DropFailed { .. }
            | Notice::ErrandDone { .. }
            | Notice::ErrandFailed { .. } => return,
            Notice::PromoteFailed { promote, .. } => {
                self.promotions.remove(&promote.seq);
                return;
            }
        };
        let (_, state) = self.plans.iter_mut().find(|(work, _)| work.plan == *plan).unwrap();
        let repeated = expected == State::Cancelling && *state == State::Ended;
        assert!(*state == expected || repeated, "a plan ends once");
        *state = State::Ended;
    }

    fn all_created(&self, plan: PlanId) -> bool {
        self.work(plan).nodes.iter().all(|node| self.table(&node.task.table).created)
    }

    /// What a new leader reads and feeds to its scheduler.
    pub(super) fn recovery(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let alive: BTreeSet<PlanId> = self.running().map(|work| work.plan).collect();
        for work in self.running() {
            let mut work = work.clone();
            for node in &mut work.nodes {
                let key = (work.plan, node.task.table.clone());
                node.todo = self.todo[&key].clone();
                node.migrate = self.migrates.contains(&key);
            }
            work.tables = work.nodes.iter().map(|node| self.table(&node.task.table)).collect();
            events.extend(self.hold(work.plan));
            events.push(Event::Admit(work));
        }
        events.extend(self.promotions.values().map(|p| Event::Promote(p.clone(), super::plan_id(99))));
        events
            .extend(self.leases.values().filter_map(|granted| Some(Event::Recovered(granted.recovered()?))));
        let alive = |plan: &PlanId| alive.contains(plan);
        let waits = self.waits.iter().filter(|((plan, _), _)| alive(plan));
        events.extend(waits.map(|((plan, batch), (attempts, losses))| {
            Event::Recovered(Recovered::Waiting {
                plan: *plan,
                batch: batch.clone(),
                attempts: *attempts,
                losses: *losses,
                delay: 5,
            })
        }));
        let failed = self.failed.iter().filter(|((plan, _), _)| alive(plan));
        events.extend(failed.map(|((plan, batch), (failure, attempts))| {
            let (plan, batch, failure) = (*plan, batch.clone(), failure.clone());
            Event::Recovered(Recovered::Failed { plan, batch, attempts: *attempts, failure })
        }));
        for (plan, publish) in &self.publishing {
            events.extend(if publish.discard { None } else { self.hold(*plan) });
            events.push(Event::Publish(publish.clone(), *plan));
        }
        let ending = self.plans.iter().filter(|(_, state)| *state == State::Cancelling);
        events.extend(ending.map(|(work, _)| Event::Cancel { plan: work.plan }));
        events
    }

    pub(super) fn check_end(&self) {
        for (table, (done, _)) in &self.tables {
            let expected = self.expected.get(table).cloned().unwrap_or_default();
            assert_eq!(*done, expected, "what is done of {table} is what was reported");
        }
    }
}

impl Granted {
    fn recovered(&self) -> Option<Recovered> {
        let (token, worker) = (self.lease.token, self.worker.clone());
        match &self.lease.work {
            Work::Promote(promote) => Some(Recovered::Promoting { token, worker, promote: promote.clone() }),
            // It is granted anew.
            Work::Publish(_) => None,
            other @ (Work::Check(_) | Work::Statements(_) | Work::Drop(_)) => {
                panic!("{other:?} in the simulation")
            }
            Work::Evaluate(evaluate) => Some(Recovered::Leased {
                token,
                worker,
                plan: self.lease.plan,
                batch: evaluate.batch.clone(),
                mode: evaluate.mode,
                attempts: self.attempts,
                losses: self.losses,
                serves: self.serves.clone(),
                supersedes: evaluate.supersedes.clone(),
                void: self.void.clone(),
            }),
        }
    }
}

fn gateway(lease: &Lease) -> &str {
    lease.work.gateway()
}

//! A store in memory, as etcd behaves, and a coordinator's way to it, on which things go wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coordinator::store::{
    Compare, Entry, Hinter, LeaseId, Op, Outcome, Revision, Snapshot, Store, StoreError, Txn, Watch,
    check_key,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::world::{Host, World, lock};

/// What is stored.
#[derive(Default)]
pub(crate) struct Db {
    entries: BTreeMap<String, (Entry, Option<LeaseId>)>,
    revision: i64,
    leases: BTreeMap<LeaseId, (Duration, Instant)>,
    next_lease: i64,
    watchers: Vec<(String, Hinter)>,
}

impl Db {
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key).map(|(entry, _)| entry)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Another store, empty and new, takes its place: it counts from the start.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        let from = self.entries.range(prefix.to_owned()..);
        from.take_while(move |(key, _)| key.starts_with(prefix)).map(|(_, (entry, _))| entry)
    }

    fn holds(&self, compare: &Compare) -> bool {
        let at = |key: &str| {
            self.get(key).map_or((Revision(0), Revision(0)), |it| (it.create_revision, it.mod_revision))
        };
        match compare {
            Compare::Absent(key) => self.get(key).is_none(),
            Compare::Exists(key) => self.get(key).is_some(),
            Compare::ModRevision(key, revision) => at(key).1 == *revision,
            Compare::CreateRevision(key, revision) => at(key).0 == *revision,
            Compare::Value(key, value) => self.get(key).is_some_and(|entry| entry.value == *value),
            Compare::NoneUnder(prefix) => self.under(prefix).next().is_none(),
        }
    }

    /// Whether all compares hold, apart from those that are `ignored`.
    pub(crate) fn would_commit(&self, txn: &Txn, ignored: impl Fn(&Compare) -> bool) -> bool {
        txn.compares().iter().all(|compare| ignored(compare) || self.holds(compare))
    }

    pub(crate) fn missing_lease(&self, txn: &Txn) -> Option<LeaseId> {
        let leases = txn.ops().iter().filter_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete(_) | Op::DeletePrefix(_) => None,
        });
        leases.into_iter().find(|lease| !self.leases.contains_key(lease))
    }

    pub(crate) fn apply(&mut self, txn: &Txn) -> Revision {
        let next = Revision(self.revision + 1);
        let mut touched = Vec::new();
        for op in txn.ops() {
            match op {
                Op::Put { key, value, lease } => {
                    let before = self.entries.get(key).map(|(entry, _)| entry);
                    let entry = Entry {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: before.map_or(next, |entry| entry.create_revision),
                        mod_revision: next,
                        version: before.map_or(0, |entry| entry.version) + 1,
                    };
                    self.entries.insert(key.clone(), (entry, *lease));
                    touched.push(key.clone());
                }
                Op::Delete(key) => touched.extend(self.entries.remove(key).map(|_| key.clone())),
                Op::DeletePrefix(prefix) => {
                    let keys: Vec<String> = self.under(prefix).map(|entry| entry.key.clone()).collect();
                    for key in &keys {
                        self.entries.remove(key);
                    }
                    touched.extend(keys);
                }
            }
        }
        self.touched(&touched)
    }

    fn touched(&mut self, keys: &[String]) -> Revision {
        if !keys.is_empty() {
            self.revision += 1;
            self.watchers.retain(|(_, hinter)| !hinter.is_closed());
            for (prefix, hinter) in &self.watchers {
                if keys.iter().any(|key| key.starts_with(prefix)) {
                    hinter.hint();
                }
            }
        }
        Revision(self.revision)
    }

    /// Ends leases whose time is over; gives the keys that went.
    pub(crate) fn sweep(&mut self) -> Vec<String> {
        let now = Instant::now();
        let over: Vec<LeaseId> =
            self.leases.iter().filter(|(_, (_, until))| *until <= now).map(|(id, _)| *id).collect();
        over.into_iter().flat_map(|lease| self.revoke(lease)).collect()
    }

    fn revoke(&mut self, lease: LeaseId) -> Vec<String> {
        self.leases.remove(&lease);
        let held = self.entries.iter().filter(|(_, (_, on))| *on == Some(lease));
        let keys: Vec<String> = held.map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.entries.remove(key);
        }
        self.touched(&keys);
        keys
    }

    fn grant(&mut self, ttl: Duration) -> LeaseId {
        self.next_lease += 1;
        let id = LeaseId(self.next_lease);
        self.leases.insert(id, (ttl, Instant::now() + ttl));
        id
    }

    fn keep_alive(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        let (ttl, until) = self.leases.get_mut(&lease).ok_or(StoreError::LeaseGone(lease))?;
        *until = Instant::now() + *ttl;
        Ok(())
    }
}

/// Ends leases in time, for those who only watch.
pub(crate) async fn expire_leases(world: Arc<World>) {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.sweep();
    }
}

impl World {
    pub(crate) fn sweep(&self) {
        for key in lock(&self.store).sweep() {
            self.note(&format!("store: {key} expired"));
        }
    }

    /// What the store does with a transaction when it gets it.
    pub(crate) fn execute(&self, from: &str, txn: &Txn) -> Result<Outcome, StoreError> {
        self.sweep();
        let mut db = lock(&self.store);
        if let Some(lease) = db.missing_lease(txn) {
            return Err(StoreError::LeaseGone(lease));
        }
        if !db.would_commit(txn, |compare| self.mutant.ignores(compare)) {
            self.note(&format!("store: {from} conflict"));
            return Ok(Outcome::Conflict);
        }
        lock(&self.checks).before(self, &db, from, txn);
        let revision = db.apply(txn);
        lock(&self.checks).after(self, &db, txn);
        let keys: Vec<String> = txn.ops().iter().map(brief).collect();
        self.note(&format!("store: {from} r{revision} {}", keys.join(" ")));
        Ok(Outcome::Committed(revision))
    }
}

fn brief(op: &Op) -> String {
    match op {
        Op::Put { key, .. } => format!("+{key}"),
        Op::Delete(key) => format!("-{key}"),
        Op::DeletePrefix(key) => format!("-{key}*"),
    }
}

/// A node's way to the store.
pub(crate) struct NodeStore {
    pub(crate) world: Arc<World>,
    pub(crate) host: Arc<Host>,
}

/// The store's name among those between whom the network can be cut.
pub(crate) const STORE: &str = "store";

/// What becomes of a transaction on its way.
enum Fate {
    Usual,
    /// It isn't executed, and its caller knows.
    Refused,
    /// It isn't executed, and its caller can't know.
    Lost,
    /// It is executed, and its caller can't know.
    AnswerLost,
    /// It is executed long after its caller gave up.
    Late,
}

impl NodeStore {
    async fn there(&self) -> Result<(), StoreError> {
        self.host.pass().await;
        let world = &self.world;
        if world.is_cut(&self.host.name, STORE) || world.is_cut(STORE, &self.host.name) {
            world.pause(500, 3000).await;
            self.host.pass().await;
            return Err(StoreError::Unavailable("cut off".to_owned()));
        }
        if world.strikes(world.knobs.store_refuses) {
            world.fault(&format!("store: refuses {}", self.host.name));
            world.pause(1, 1500).await;
            self.host.pass().await;
            return Err(StoreError::Unavailable("busy".to_owned()));
        }
        if world.strikes(world.knobs.store_slow) {
            world.pause(100, 2500).await;
        }
        world.pause(1, 4).await;
        Ok(())
    }

    async fn back<T>(&self, answer: T) -> T {
        self.world.pause(1, 4).await;
        self.host.pass().await;
        answer
    }

    fn fate(&self) -> Fate {
        let world = &self.world;
        if world.is_cut(&self.host.name, STORE) {
            return Fate::Lost;
        }
        if world.is_cut(STORE, &self.host.name) {
            return Fate::AnswerLost;
        }
        if !world.strikes(world.knobs.store_unknown) {
            return Fate::Usual;
        }
        match world.between(0, 4) {
            0 => Fate::Refused,
            1 => Fate::Lost,
            2 => Fate::AnswerLost,
            _ => Fate::Late,
        }
    }

    /// Sends a transaction off: it takes place even if the sender is gone by then.
    fn send(&self, txn: Txn, after: (u64, u64)) -> oneshot::Receiver<Result<Outcome, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let (world, from) = (self.world.clone(), self.host.name.clone());
        tokio::spawn(async move {
            world.pause(after.0, after.1).await;
            let _ = answer.send(world.execute(&from, &txn));
        });
        answered
    }
}

#[async_trait]
impl Store for NodeStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        self.there().await?;
        self.world.sweep();
        let entry = lock(&self.world.store).get(key).cloned();
        Ok(self.back(entry).await)
    }

    async fn range(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.there().await?;
        self.world.sweep();
        let snapshot = {
            let db = lock(&self.world.store);
            Snapshot { entries: db.under(prefix).cloned().collect(), revision: Revision(db.revision) }
        };
        Ok(self.back(snapshot).await)
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        txn.check()?;
        self.host.pass().await;
        let unknown = || StoreError::Unknown("no answer came".to_owned());
        let world = &self.world;
        let fate = self.fate();
        if !matches!(fate, Fate::Usual) {
            world.fault(&format!("store: a transaction of {} goes wrong", self.host.name));
        }
        let (wait, answer) = match fate {
            Fate::Usual => {
                let slow = if world.strikes(world.knobs.store_slow) { 2500 } else { 0 };
                let answer = self.send(txn, (1, 4 + slow)).await.unwrap_or_else(|_| Err(unknown()));
                (4, answer)
            }
            Fate::Refused => (1000, Err(StoreError::Unavailable("no leader".to_owned()))),
            Fate::Lost => (3000, Err(unknown())),
            Fate::AnswerLost => {
                let _ = self.send(txn, (1, 4)).await;
                (3000, Err(unknown()))
            }
            Fate::Late => {
                drop(self.send(txn, (500, 12_000)));
                (2000, Err(unknown()))
            }
        };
        world.pause(1, wait).await;
        self.host.pass().await;
        answer
    }

    async fn watch(&self, prefix: &str) -> Result<Watch, StoreError> {
        self.there().await?;
        let (hinter, watch) = Watch::new();
        lock(&self.world.store).watchers.push((prefix.to_owned(), hinter));
        Ok(watch)
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.there().await?;
        let lease = lock(&self.world.store).grant(ttl);
        Ok(self.back(lease).await)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.there().await?;
        self.world.sweep();
        let kept = lock(&self.world.store).keep_alive(lease);
        self.back(kept).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.there().await?;
        lock(&self.world.store).revoke(lease);
        self.back(Ok(())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Mutant;

    #[test]
    fn the_simulated_store_behaves_as_the_others() {
        crate::in_simulated_time(async {
            let world = World::new(0, Mutant::None);
            world.calm_down();
            tokio::spawn(expire_leases(world.clone()));
            let store: Arc<dyn Store> = Arc::new(NodeStore { world, host: Host::new("test") });
            let count = coordinator::store::conformance::run(&store, "check/").await;
            assert!(count.expect("it conforms") > 30);
        });
    }
}

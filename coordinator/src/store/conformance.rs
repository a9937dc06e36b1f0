//! What every back end must do: one suite for all of them, run by their tests against the real
//! thing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{
    Compare, Entry, LeaseId, MAX_COMPARES, MAX_OPS, MAX_VALUE_BYTES, Outcome, Revision, Store, StoreError,
    Txn, Watch,
};

/// How long something that must happen may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// A time to live that all back ends can keep to: etcd knows nothing shorter.
const TTL: Duration = Duration::from_secs(2);

/// A store and the prefix that a check has for itself.
#[derive(Clone)]
struct Bench {
    store: Arc<dyn Store>,
    prefix: String,
}

/// Runs every check under its own prefix of keys below `prefix`, and gives their number. Nobody
/// else may write to the store meanwhile: revisions are counted.
///
/// # Errors
/// The first check that fails, by name, with what it found.
pub async fn run(store: &Arc<dyn Store>, prefix: &str) -> Result<usize> {
    let mut count = 0;
    macro_rules! checks {
        ($($check:ident),* $(,)?) => {$(
            let name = stringify!($check);
            let bench = Bench { store: Arc::clone(store), prefix: format!("{prefix}{name}/") };
            $check(&bench).await.with_context(|| format!("conformance check `{name}`"))?;
            count += 1;
        )*};
    }
    checks![
        a_key_that_was_never_put_is_absent,
        a_put_is_read_back_with_its_revisions,
        one_transaction_is_one_revision,
        a_transaction_that_changes_nothing_has_no_revision,
        absent_guards_creation,
        exists_guards_change,
        mod_revision_guards_change,
        create_revision_tells_a_recreated_key,
        revisions_of_an_absent_key_are_zero,
        value_is_compared_byte_by_byte,
        none_under_sees_the_whole_prefix,
        all_compares_must_hold,
        a_conflict_leaves_nothing,
        a_deleted_key_starts_anew,
        deleting_what_is_not_there_is_no_error,
        delete_prefix_takes_all_under_it,
        as_many_operations_as_allowed,
        as_many_compares_as_allowed,
        a_value_as_large_as_allowed,
        what_makes_no_sense_is_refused,
        binary_values_come_back,
        unicode_keys_sort_by_bytes,
        a_range_is_sorted_and_ends_with_its_prefix,
        a_large_range_is_whole,
        a_range_of_large_values_is_whole,
        a_range_is_at_one_revision,
        of_two_racing_transactions_one_wins,
        concurrent_increments_lose_none,
        a_watch_wakes_up,
        a_watch_sees_deletions,
        a_revoked_lease_takes_its_keys,
        an_expired_lease_takes_its_keys,
        a_lease_kept_alive_keeps_its_keys,
        a_put_without_a_lease_detaches_the_key,
        a_lease_that_is_gone_is_known_as_gone,
    ];
    Ok(count)
}

impl Bench {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn get(&self, name: &str) -> Result<Option<Entry>> {
        Ok(self.store.get(&self.key(name)).await?)
    }

    async fn entry(&self, name: &str) -> Result<Entry> {
        self.get(name).await?.with_context(|| format!("`{name}` is absent"))
    }

    async fn value(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.get(name).await?.map(|entry| entry.value))
    }

    async fn put(&self, name: &str, value: &str) -> Result<Revision> {
        self.committed(Txn::new().put(self.key(name), value)).await
    }

    async fn committed(&self, txn: Txn) -> Result<Revision> {
        self.store.commit(txn).await?.committed().context("it should have been committed")
    }

    async fn conflicts(&self, txn: Txn) -> Result<()> {
        match self.store.commit(txn).await? {
            Outcome::Conflict => Ok(()),
            Outcome::Committed(revision) => bail!("it was committed at {revision}"),
        }
    }

    /// Commits a put of `out` under a condition and tells whether the condition held.
    async fn holds(&self, compare: Compare) -> Result<bool> {
        let txn = Txn::new().require(compare).put(self.key("out"), "");
        Ok(self.store.commit(txn).await?.committed().is_some())
    }

    async fn names(&self) -> Result<Vec<String>> {
        let snapshot = self.store.range(&self.prefix).await?;
        Ok(snapshot.entries.into_iter().map(|entry| entry.key[self.prefix.len()..].to_owned()).collect())
    }

    /// Waits until a key has gone, woken by a watch.
    async fn gone(&self, name: &str) -> Result<()> {
        let mut watch = self.store.watch(&self.key(name)).await?;
        let wait = async {
            while self.get(name).await?.is_some() {
                ensure!(watch.changed().await, "the watch ended");
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, wait).await.context("the key did not go")?
    }
}

async fn woken(watch: &mut Watch) -> Result<()> {
    let woken = tokio::time::timeout(PATIENCE, watch.changed()).await.context("no hint came")?;
    ensure!(woken, "the watch ended");
    Ok(())
}

async fn a_key_that_was_never_put_is_absent(bench: &Bench) -> Result<()> {
    ensure!(bench.get("a").await?.is_none());
    ensure!(bench.names().await?.is_empty());
    Ok(())
}

async fn a_put_is_read_back_with_its_revisions(bench: &Bench) -> Result<()> {
    let first = bench.put("a", "1").await?;
    let second = bench.put("a", "2").await?;
    let expected = Entry {
        key: bench.key("a"),
        value: b"2".to_vec(),
        create_revision: first,
        mod_revision: second,
        version: 2,
    };
    ensure!(bench.entry("a").await? == expected);
    ensure!(bench.store.range(&bench.prefix).await?.entries == [expected]);
    Ok(())
}

async fn one_transaction_is_one_revision(bench: &Bench) -> Result<()> {
    let before = bench.put("a", "").await?;
    let txn = Txn::new().put(bench.key("b"), "").put(bench.key("c"), "").delete(bench.key("a"));
    let revision = bench.committed(txn).await?;
    ensure!(revision == Revision(before.0 + 1), "{before} then {revision}");
    ensure!(bench.entry("b").await?.mod_revision == revision);
    ensure!(bench.entry("c").await?.create_revision == revision);
    Ok(())
}

async fn a_transaction_that_changes_nothing_has_no_revision(bench: &Bench) -> Result<()> {
    let before = bench.put("a", "").await?;
    let txn = Txn::new().require(Compare::Exists(bench.key("a"))).delete(bench.key("b"));
    ensure!(bench.committed(txn).await? == before);
    ensure!(bench.store.range(&bench.prefix).await?.revision == before);
    Ok(())
}

async fn absent_guards_creation(bench: &Bench) -> Result<()> {
    let create = || Txn::new().require(Compare::Absent(bench.key("a"))).put(bench.key("a"), "1");
    bench.committed(create()).await?;
    bench.conflicts(create()).await
}

async fn exists_guards_change(bench: &Bench) -> Result<()> {
    ensure!(!bench.holds(Compare::Exists(bench.key("a"))).await?);
    bench.put("a", "").await?;
    ensure!(bench.holds(Compare::Exists(bench.key("a"))).await?);
    Ok(())
}

async fn mod_revision_guards_change(bench: &Bench) -> Result<()> {
    let old = bench.put("a", "1").await?;
    let new = bench.put("a", "2").await?;
    let change = |at| Txn::new().require(Compare::ModRevision(bench.key("a"), at)).put(bench.key("a"), "3");
    bench.conflicts(change(old)).await?;
    bench.committed(change(new)).await?;
    bench.conflicts(change(new)).await
}

async fn create_revision_tells_a_recreated_key(bench: &Bench) -> Result<()> {
    let first = bench.put("a", "1").await?;
    bench.put("a", "2").await?;
    ensure!(bench.holds(Compare::CreateRevision(bench.key("a"), first)).await?);
    bench.committed(Txn::new().delete(bench.key("a"))).await?;
    ensure!(!bench.holds(Compare::CreateRevision(bench.key("a"), first)).await?);
    let second = bench.put("a", "3").await?;
    ensure!(!bench.holds(Compare::CreateRevision(bench.key("a"), first)).await?);
    ensure!(bench.holds(Compare::CreateRevision(bench.key("a"), second)).await?);
    Ok(())
}

async fn revisions_of_an_absent_key_are_zero(bench: &Bench) -> Result<()> {
    ensure!(bench.holds(Compare::ModRevision(bench.key("a"), Revision(0))).await?);
    ensure!(bench.holds(Compare::CreateRevision(bench.key("a"), Revision(0))).await?);
    ensure!(!bench.holds(Compare::ModRevision(bench.key("a"), Revision(1))).await?);
    Ok(())
}

async fn value_is_compared_byte_by_byte(bench: &Bench) -> Result<()> {
    let value = |bytes: &[u8]| Compare::Value(bench.key("a"), bytes.to_vec());
    ensure!(!bench.holds(value(b"")).await?, "an absent key has no value");
    bench.committed(Txn::new().put(bench.key("a"), [0, 255])).await?;
    ensure!(bench.holds(value(&[0, 255])).await?);
    for other in [&[0][..], &[0, 254], &[0, 255, 0], &[]] {
        ensure!(!bench.holds(value(other)).await?, "{other:?}");
    }
    Ok(())
}

async fn none_under_sees_the_whole_prefix(bench: &Bench) -> Result<()> {
    let none = || Compare::NoneUnder(bench.key("dir/"));
    bench.put("dir", "").await?;
    bench.put("dir0", "").await?;
    ensure!(bench.holds(none()).await?, "keys beside the prefix do not count");
    for name in ["dir/a", "dir/\u{10ffff}", "dir/"] {
        bench.put(name, "").await?;
        ensure!(!bench.holds(none()).await?, "{name}");
        bench.committed(Txn::new().delete(bench.key(name))).await?;
        ensure!(bench.holds(none()).await?, "{name} was deleted");
    }
    Ok(())
}

async fn all_compares_must_hold(bench: &Bench) -> Result<()> {
    bench.put("a", "").await?;
    let (yes, no) = (Compare::Exists(bench.key("a")), Compare::Exists(bench.key("b")));
    for (first, second) in [(&yes, &no), (&no, &yes), (&no, &no)] {
        let txn = Txn::new().require(first.clone()).require(second.clone());
        bench.conflicts(txn.put(bench.key("c"), "")).await?;
    }
    bench.committed(Txn::new().require(yes.clone()).require(yes)).await?;
    Ok(())
}

async fn a_conflict_leaves_nothing(bench: &Bench) -> Result<()> {
    bench.put("a", "1").await?;
    let before = bench.store.range(&bench.prefix).await?;
    let txn = Txn::new()
        .require(Compare::Absent(bench.key("a")))
        .put(bench.key("a"), "2")
        .put(bench.key("b"), "")
        .delete_prefix(bench.key("c"));
    bench.conflicts(txn).await?;
    ensure!(bench.store.range(&bench.prefix).await? == before);
    Ok(())
}

async fn a_deleted_key_starts_anew(bench: &Bench) -> Result<()> {
    bench.put("a", "1").await?;
    let second = bench.put("a", "2").await?;
    bench.committed(Txn::new().delete(bench.key("a"))).await?;
    ensure!(bench.get("a").await?.is_none());
    let third = bench.put("a", "3").await?;
    let entry = bench.entry("a").await?;
    ensure!(third.0 == second.0 + 2, "a deletion is a revision");
    ensure!((entry.version, entry.create_revision, entry.mod_revision) == (1, third, third), "{entry:?}");
    Ok(())
}

async fn deleting_what_is_not_there_is_no_error(bench: &Bench) -> Result<()> {
    let txn = Txn::new().delete(bench.key("a")).delete_prefix(bench.key("b/")).put(bench.key("c"), "");
    bench.committed(txn).await?;
    ensure!(bench.names().await? == ["c"]);
    Ok(())
}

async fn delete_prefix_takes_all_under_it(bench: &Bench) -> Result<()> {
    for name in ["a", "a/", "a/1", "a/1/2", "a/\u{10ffff}", "a0"] {
        bench.put(name, "").await?;
    }
    bench.committed(Txn::new().delete_prefix(bench.key("a/"))).await?;
    ensure!(bench.names().await? == ["a", "a0"]);
    Ok(())
}

async fn as_many_operations_as_allowed(bench: &Bench) -> Result<()> {
    let puts = |n: usize| (0..n).fold(Txn::new(), |txn, n| txn.put(bench.key(&format!("{n:03}")), ""));
    let too_many = bench.store.commit(puts(MAX_OPS + 1)).await;
    ensure!(matches!(too_many, Err(StoreError::TooLarge { limit: MAX_OPS, .. })), "{too_many:?}");
    ensure!(bench.names().await?.is_empty());
    bench.committed(puts(MAX_OPS)).await?;
    ensure!(bench.names().await?.len() == MAX_OPS);
    Ok(())
}

async fn as_many_compares_as_allowed(bench: &Bench) -> Result<()> {
    let compares = |n: usize| {
        let txn = Txn::new().put(bench.key("out"), "");
        (0..n).fold(txn, |txn, n| txn.require(Compare::Absent(bench.key(&n.to_string()))))
    };
    let too_many = bench.store.commit(compares(MAX_COMPARES + 1)).await;
    ensure!(matches!(too_many, Err(StoreError::TooLarge { limit: MAX_COMPARES, .. })), "{too_many:?}");
    bench.committed(compares(MAX_COMPARES)).await?;
    Ok(())
}

async fn a_value_as_large_as_allowed(bench: &Bench) -> Result<()> {
    let value = vec![7; MAX_VALUE_BYTES];
    bench.committed(Txn::new().put(bench.key("a"), value.clone())).await?;
    ensure!(bench.value("a").await?.as_ref() == Some(&value));
    let more = bench.store.commit(Txn::new().put(bench.key("b"), [value, vec![7]].concat())).await;
    ensure!(matches!(more, Err(StoreError::TooLarge { limit: MAX_VALUE_BYTES, .. })), "{more:?}");
    ensure!(bench.names().await? == ["a"]);
    Ok(())
}

async fn what_makes_no_sense_is_refused(bench: &Bench) -> Result<()> {
    let key = bench.key("a");
    let cases = [
        Txn::new().put(key.clone(), "1").put(key.clone(), "2"),
        Txn::new().put(key.clone(), "1").delete(key.clone()),
        Txn::new().put(key.clone(), "1").delete_prefix(bench.prefix.clone()),
        Txn::new().put("", "1"),
        Txn::new().delete_prefix(""),
    ];
    for txn in cases {
        let refused = bench.store.commit(txn.clone()).await;
        ensure!(matches!(refused, Err(StoreError::Invalid(_))), "{txn:?}: {refused:?}");
    }
    ensure!(matches!(bench.store.get("").await, Err(StoreError::Invalid(_))));
    ensure!(bench.names().await?.is_empty());
    Ok(())
}

async fn binary_values_come_back(bench: &Bench) -> Result<()> {
    let all: Vec<u8> = (0..=255).collect();
    let txn = Txn::new().put(bench.key("all"), all.clone()).put(bench.key("none"), "");
    bench.committed(txn).await?;
    ensure!(bench.value("all").await? == Some(all));
    ensure!(bench.value("none").await? == Some(Vec::new()));
    Ok(())
}

async fn unicode_keys_sort_by_bytes(bench: &Bench) -> Result<()> {
    let sorted = ["Z", "a", "a b", "é", "日本/語", "🦀", "\u{10ffff}"];
    for name in sorted.iter().rev() {
        bench.put(name, name).await?;
    }
    ensure!(bench.names().await? == sorted);
    ensure!(bench.value("日本/語").await? == Some("日本/語".into()));
    Ok(())
}

async fn a_range_is_sorted_and_ends_with_its_prefix(bench: &Bench) -> Result<()> {
    for name in ["b/2", "c", "b/1", "b", "b0", "a/1"] {
        bench.put(name, "").await?;
    }
    let snapshot = bench.store.range(&bench.key("b/")).await?;
    let keys: Vec<_> = snapshot.entries.into_iter().map(|entry| entry.key).collect();
    ensure!(keys == [bench.key("b/1"), bench.key("b/2")], "{keys:?}");
    Ok(())
}

async fn fill(bench: &Bench, count: usize, value: &[u8], per_txn: usize) -> Result<()> {
    for first in (0..count).step_by(per_txn) {
        let numbers = first..count.min(first + per_txn);
        let txn = numbers.fold(Txn::new(), |txn, n| txn.put(bench.key(&format!("{n:06}")), value));
        bench.committed(txn).await?;
    }
    Ok(())
}

async fn whole(bench: &Bench, count: usize, size: usize) -> Result<()> {
    let entries = bench.store.range(&bench.prefix).await?.entries;
    ensure!(entries.len() == count, "{} of {count} entries", entries.len());
    for (n, entry) in entries.iter().enumerate() {
        ensure!(entry.key == bench.key(&format!("{n:06}")), "{} at place {n}", entry.key);
        ensure!(entry.value.len() == size);
    }
    bench.committed(Txn::new().delete_prefix(bench.prefix.clone())).await?;
    ensure!(bench.names().await?.is_empty());
    Ok(())
}

/// More entries than a page holds, and more bytes than a gRPC message holds by default.
async fn a_large_range_is_whole(bench: &Bench) -> Result<()> {
    fill(bench, 5_000, &[1; 1000], MAX_OPS).await?;
    whole(bench, 5_000, 1000).await
}

/// Fewer entries than a page holds, but more bytes than one answer may have.
async fn a_range_of_large_values_is_whole(bench: &Bench) -> Result<()> {
    fill(bench, 70, &vec![1; MAX_VALUE_BYTES], 1).await?;
    whole(bench, 70, MAX_VALUE_BYTES).await
}

/// Each write moves one key from one side of the range to the other: a range that mixed two
/// revisions would see none, or two.
async fn a_range_is_at_one_revision(bench: &Bench) -> Result<()> {
    fill(bench, 1500, b"", MAX_OPS).await?;
    let (low, high) = (bench.key("+"), bench.key("~"));
    bench.committed(Txn::new().put(low.clone(), "")).await?;
    let writer = {
        let (bench, low, high) = (bench.clone(), low.clone(), high.clone());
        tokio::spawn(async move {
            for _ in 0..20 {
                bench.committed(Txn::new().delete(low.clone()).put(high.clone(), "")).await?;
                bench.committed(Txn::new().delete(high.clone()).put(low.clone(), "")).await?;
            }
            anyhow::Ok(())
        })
    };
    let mut last = Revision(0);
    while !writer.is_finished() {
        let snapshot = bench.store.range(&bench.prefix).await?;
        let found = snapshot.entries.iter().filter(|entry| entry.key == low || entry.key == high).count();
        ensure!(found == 1, "{found} sides at {}", snapshot.revision);
        ensure!(snapshot.revision >= last, "{} after {last}", snapshot.revision);
        last = snapshot.revision;
    }
    writer.await?
}

async fn of_two_racing_transactions_one_wins(bench: &Bench) -> Result<()> {
    for round in 0..20 {
        let take = |who: &str| {
            let key = bench.key(&round.to_string());
            bench.store.commit(Txn::new().require(Compare::Absent(key.clone())).put(key, who))
        };
        let (left, right) = tokio::join!(take("left"), take("right"));
        let winner = match (left?.committed(), right?.committed()) {
            (Some(_), None) => "left",
            (None, Some(_)) => "right",
            both => bail!("round {round}: {both:?}"),
        };
        ensure!(bench.value(&round.to_string()).await? == Some(winner.into()));
    }
    Ok(())
}

async fn concurrent_increments_lose_none(bench: &Bench) -> Result<()> {
    const TASKS: u64 = 16;
    const EACH: u64 = 10;
    bench.put("n", "0").await?;
    let increment = |bench: Bench| async move {
        let mut left = EACH;
        while left > 0 {
            let entry = bench.entry("n").await?;
            let next = std::str::from_utf8(&entry.value)?.parse::<u64>()? + 1;
            let txn = Txn::new()
                .require(Compare::ModRevision(entry.key.clone(), entry.mod_revision))
                .put(entry.key, next.to_string());
            if bench.store.commit(txn).await?.committed().is_some() {
                left -= 1;
            }
        }
        anyhow::Ok(())
    };
    let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(increment(bench.clone()))).collect();
    for task in tasks {
        task.await??;
    }
    let entry = bench.entry("n").await?;
    ensure!(entry.value == (TASKS * EACH).to_string().as_bytes(), "{entry:?}");
    ensure!(entry.version == (TASKS * EACH + 1) as i64, "{entry:?}");
    Ok(())
}

async fn a_watch_wakes_up(bench: &Bench) -> Result<()> {
    let mut watch = bench.store.watch(&bench.key("dir/")).await?;
    for n in 0..5 {
        bench.put(&format!("dir/{n}"), "").await?;
        woken(&mut watch).await?;
    }
    Ok(())
}

async fn a_watch_sees_deletions(bench: &Bench) -> Result<()> {
    bench.put("a", "").await?;
    let mut watch = bench.store.watch(&bench.prefix).await?;
    bench.committed(Txn::new().delete(bench.key("a"))).await?;
    woken(&mut watch).await
}

async fn lease_with(bench: &Bench, names: &[&str]) -> Result<LeaseId> {
    let lease = bench.store.grant_lease(TTL).await?;
    let txn = names.iter().fold(Txn::new(), |txn, name| txn.put_with_lease(bench.key(name), "", lease));
    bench.committed(txn).await?;
    Ok(lease)
}

async fn a_revoked_lease_takes_its_keys(bench: &Bench) -> Result<()> {
    bench.put("c", "").await?;
    let lease = lease_with(bench, &["a", "b"]).await?;
    ensure!(bench.names().await? == ["a", "b", "c"]);
    bench.store.revoke(lease).await?;
    ensure!(bench.names().await? == ["c"]);
    bench.store.revoke(lease).await?;
    Ok(())
}

async fn an_expired_lease_takes_its_keys(bench: &Bench) -> Result<()> {
    bench.put("c", "").await?;
    lease_with(bench, &["a", "b"]).await?;
    let start = tokio::time::Instant::now();
    bench.gone("a").await?;
    ensure!(start.elapsed() > TTL / 2, "it went after {:?}", start.elapsed());
    ensure!(bench.names().await? == ["c"]);
    Ok(())
}

async fn a_lease_kept_alive_keeps_its_keys(bench: &Bench) -> Result<()> {
    let lease = lease_with(bench, &["a"]).await?;
    // Another lease of the same length that nobody keeps tells when the time is over: twice.
    for name in ["first", "second"] {
        lease_with(bench, &[name]).await?;
        let gone = bench.gone(name);
        tokio::pin!(gone);
        loop {
            tokio::select! {
                gone = &mut gone => break gone?,
                () = tokio::time::sleep(TTL / 8) => bench.store.keep_alive(lease).await?,
            }
        }
    }
    ensure!(bench.get("a").await?.is_some());
    bench.store.revoke(lease).await?;
    ensure!(bench.get("a").await?.is_none());
    Ok(())
}

async fn a_put_without_a_lease_detaches_the_key(bench: &Bench) -> Result<()> {
    let lease = lease_with(bench, &["a"]).await?;
    bench.put("a", "kept").await?;
    bench.store.revoke(lease).await?;
    ensure!(bench.value("a").await? == Some("kept".into()));
    Ok(())
}

async fn a_lease_that_is_gone_is_known_as_gone(bench: &Bench) -> Result<()> {
    let lease = bench.store.grant_lease(TTL).await?;
    bench.store.revoke(lease).await?;
    ensure!(bench.store.keep_alive(lease).await == Err(StoreError::LeaseGone(lease)));
    let put = bench.store.commit(Txn::new().put_with_lease(bench.key("a"), "", lease)).await;
    ensure!(put == Err(StoreError::LeaseGone(lease)), "{put:?}");
    ensure!(bench.get("a").await?.is_none());
    Ok(())
}

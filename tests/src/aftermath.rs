//! What a plan leaves behind. A disturbed run must leave what an undisturbed one leaves.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use coordinator::store::{self, StoreUrl};

use crate::fleet::{Fleet, query_dsn};

/// All that can be seen of a plan's end, in the warehouse and in the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aftermath {
    /// Rows and contents of every table and view, ours and the project's: nothing is left over,
    /// nothing is missing.
    relations: BTreeMap<String, String>,
    /// The batches that committed, and how often.
    commits: BTreeMap<String, i64>,
    /// The intervals on record, by model and table.
    recorded: String,
    /// The keys of the state but the leader's and the evidence, which tells what happened: no lease,
    /// loss, setback or todo is left.
    keys: Vec<String>,
}

/// What differs between runs that end alike: when batches ran, and under which tokens.
const APART: [&str; 4] = ["public.batch_log", "public.pause", "coordctl._fence", "coordctl._floor"];

impl Aftermath {
    /// Looks at a fleet of which nothing is under way, and ends its coordinator.
    pub fn of(fleet: &mut Fleet) -> Self {
        let mut relations = contents(fleet);
        let fence = "(SELECT slot, done <> 0 AS done, plan FROM coordctl._fence)";
        relations.insert("coordctl._fence".to_owned(), fleet.digest(fence));
        relations.insert("coordctl._floor".to_owned(), fleet.digest("(SELECT owner FROM coordctl._floor)"));
        let commits = fleet.sql("SELECT model || ' ' || batch, COUNT(*) FROM public.batch_log GROUP BY 1");
        let commits = commits.into_iter().map(|row| (row[0].clone(), row[1].parse().unwrap_or(-1)));
        let (commits, recorded) = (commits.collect(), format!("{:#}", fleet.state()["tables"]));
        fleet.coordinator.terminate();
        fleet.coordinator.exit_code();
        Self { relations, commits, recorded, keys: keys(&fleet.state_url()) }
    }

    /// Panics where a disturbed run has left anything else, and says what.
    pub fn assert_same(&self, disturbed: &Self) {
        let mut differences = String::new();
        compare(&mut differences, "relation", &self.relations, &disturbed.relations);
        compare(&mut differences, "batch", &self.commits, &disturbed.commits);
        let as_map = |keys: &[String]| keys.iter().map(|key| (key.clone(), ())).collect::<BTreeMap<_, _>>();
        compare(&mut differences, "key", &as_map(&self.keys), &as_map(&disturbed.keys));
        if self.recorded != disturbed.recorded {
            let _ = writeln!(differences, "recorded: {} instead of {}", disturbed.recorded, self.recorded);
        }
        assert!(differences.is_empty(), "the disturbed run has left something else:\n{differences}");
    }

    /// Leaves out other plans, of which each stays on record with its document for a while. A document's
    /// blob doesn't say whose it is.
    pub fn forget_plans_but(&mut self, plan: &str) {
        let own = format!("r1/plan/{plan}");
        self.keys.retain(|key| !key.starts_with("r1/blob/") && (!key.starts_with("r1/plan/") || *key == own));
    }

    /// How many batches committed.
    pub fn batches(&self) -> i64 {
        self.commits.values().sum()
    }
}

fn compare<V: PartialEq + std::fmt::Debug>(
    into: &mut String,
    what: &str,
    undisturbed: &BTreeMap<String, V>,
    disturbed: &BTreeMap<String, V>,
) {
    for (name, value) in undisturbed {
        match disturbed.get(name) {
            Some(found) if found == value => {}
            found => {
                let _ = writeln!(into, "{what} {name}: {found:?} instead of {value:?}");
            }
        }
    }
    for (name, value) in disturbed.iter().filter(|(name, _)| !undisturbed.contains_key(*name)) {
        let _ = writeln!(into, "{what} {name}: left over, {value:?}");
    }
}

/// Rows and contents of each table and view.
fn contents(fleet: &Fleet) -> BTreeMap<String, String> {
    let all = fleet.sql(
        "SELECT n.nspname || '.' || c.relname, FORMAT('%I.%I', n.nspname, c.relname) FROM pg_class AS c \
         JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'v', 'm') \
         AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1",
    );
    let ours = all.into_iter().filter(|relation| !APART.contains(&relation[0].as_str()));
    let digests: Vec<(String, String)> = ours
        .map(|relation| {
            let (name, quoted) = (&relation[0], &relation[1]);
            let digest = format!(
                "SELECT '{name}', COUNT(*) || ' ' || MD5(COALESCE(STRING_AGG(t::TEXT, '|' ORDER BY t::TEXT), '')) \
                 FROM {quoted} AS t"
            );
            (name.clone(), digest)
        })
        .collect();
    let all = digests.iter().map(|(_, sql)| sql.as_str()).collect::<Vec<_>>().join(" UNION ALL ");
    if all.is_empty() {
        return BTreeMap::new();
    }
    fleet.sql(&all).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
}

/// All keys of a state that no coordinator uses any more.
fn keys(state: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let found = runtime.expect("a runtime").block_on(async {
        let url = StoreUrl::parse(state).map_err(|error| error.to_string())?;
        let store = store::open(&url).await.map_err(|error| error.to_string())?;
        store.range("r1/").await.map_err(|error| error.to_string())
    });
    let entries = found.unwrap_or_else(|error| panic!("can't read {state}: {error}")).entries;
    entries
        .into_iter()
        .map(|entry| entry.key)
        .filter(|key| key != "r1/lead" && !key.starts_with("r1/evidence"))
        .collect()
}

/// A thread that asks the warehouse the same question again and again, each answer in one snapshot,
/// and holds what it sees against what may be seen.
#[derive(Debug)]
pub struct Sentinel {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64, String>>,
}

impl Sentinel {
    /// Watches a database; errors of the warehouse count as nothing seen.
    pub fn watch(
        dsn: String,
        question: String,
        may_be: impl Fn(&[Vec<String>]) -> Result<(), String> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = 0;
            while !stopped.load(Ordering::Acquire) {
                if let Ok(rows) = query_dsn(&dsn, &question) {
                    may_be(&rows)?;
                    seen += 1;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(seen)
        });
        Self { stop, thread }
    }

    /// Watches that no view of a schema is to be seen before so many batches have committed, and
    /// then all of them at once.
    pub fn of_first_flip(fleet: &Fleet, schema: &str, views: i64, batches: i64) -> Self {
        let question = format!(
            "SELECT (SELECT COUNT(*) FROM public.batch_log), (SELECT COUNT(*) FROM pg_class AS c JOIN pg_namespace AS n \
             ON n.oid = c.relnamespace WHERE c.relkind = 'v' AND n.nspname = '{schema}')"
        );
        Self::watch(fleet.postgres.dsn(), question, move |rows| {
            let number = |at: usize| rows[0][at].parse::<i64>().unwrap_or(-1);
            match (number(0), number(1)) {
                (_, 0) => Ok(()),
                (committed, shown) if shown == views && committed >= batches => Ok(()),
                (committed, shown) => Err(format!(
                    "{shown} of {views} views were to be seen after {committed} of {batches} batches"
                )),
            }
        })
    }

    /// Ends the watch, and gives how often it looked.
    ///
    /// # Panics
    /// With the first thing that it saw and that must not be.
    pub fn end(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        match self.thread.join() {
            Ok(Ok(seen)) => seen,
            Ok(Err(wrong)) => panic!("{wrong}"),
            Err(_) => panic!("the sentinel panicked"),
        }
    }
}

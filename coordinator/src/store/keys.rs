//! Where each record lives. Names are escaped, so that no name can reach into another's keys.
//!
//! ```text
//! r1/lead                                who leads; its create revision is the term
//! r1/schema                              the state's format
//! r1/era                                 what is added to numbers that warehouses see, once restored
//! r1/importing                           a state is being put in place; there is none yet
//! r1/env/<environment>                   the pointer
//! r1/applying/<environment>              the plan that may move the pointer
//! r1/switch/<environment>                a change of an environment's views that is no plan's
//! r1/gone/<environment>                  the last number of an environment that was removed
//! r1/blob/<hash>/<n>                     environments' sets, plan bodies, large snapshots, in chunks
//! r1/plan/<plan>                         how far a plan is, and what happened to it
//! r1/promotion/<environment>/<number>    what an environment showed, and who moved it there
//! r1/kept/<snapshot>                     until when a snapshot is kept that nothing needs
//! r1/drop/<table>                        a table to drop, which counts as gone already
//! r1/snap/<snapshot>                     a planned snapshot, or the blob that holds it
//! r1/iv/<table>                          intervals that a table holds; the table exists
//! r1/todo/<plan>/<table>                 intervals that a plan has still to compute
//! r1/setback/<plan>/wait/<batch>         a batch that waits for another attempt
//! r1/setback/<plan>/failed/<batch>       a batch that failed for good
//! r1/lease/<token>                       a batch or promotion in flight
//! r1/auto/<table>                        when a table was last restated by itself
//! r1/evidence/<number>                   who had what done; each names the hash of the one before
//! r1/evidence-head                       the last of them
//! r1/stale/<table>                       intervals that it held, of rows that were restated since
//! r1/lost/<batch>                        a batch whose lease was lost and whose fence is to be raised
//! ```

use std::fmt::{Display, Write};

use coord_common::id::{EnvironmentName, Hash128, PlanId, SnapshotId, Token};
use coord_common::task::{Batch, TableId};

/// What all keys of this layout start with.
pub const ROOT: &str = "r1/";
/// The leader's key.
pub const LEAD: &str = "r1/lead";
/// The key of the state's format.
pub const SCHEMA: &str = "r1/schema";
/// The key of what is added to numbers that warehouses see.
pub const ERA: &str = "r1/era";
/// The key that is there while a state is imported.
pub const IMPORTING: &str = "r1/importing";
/// All environments.
pub const ENVIRONMENTS: &str = "r1/env/";
/// All blobs.
pub const BLOBS: &str = "r1/blob/";
/// All plans.
pub const PLANS: &str = "r1/plan/";
/// All tables' intervals.
pub const INTERVALS: &str = "r1/iv/";
/// What tables held of rows that were restated since.
pub const STALE: &str = "r1/stale/";
/// When tables were last restated by themselves.
pub const RESTATED: &str = "r1/auto/";
/// All that plans have still to do.
pub const TODOS: &str = "r1/todo/";
/// All batches and promotions in flight.
pub const LEASES: &str = "r1/lease/";
/// All planned snapshots.
pub const SNAPSHOTS: &str = "r1/snap/";
/// All environments' claims.
pub const APPLYING: &str = "r1/applying/";
/// All batches whose leases were lost.
pub const LOST: &str = "r1/lost/";
/// All the evidence.
pub const EVIDENCE: &str = "r1/evidence/";
/// The end of the evidence.
pub const EVIDENCE_HEAD: &str = "r1/evidence-head";
/// All batches that wait or failed.
pub const SETBACKS: &str = "r1/setback/";

/// All changes of environments' views that are no plans'.
pub const SWITCHES: &str = "r1/switch/";
/// The last numbers of environments that were removed.
pub const GONE: &str = "r1/gone/";

/// A change of an environment's views that is no plan's.
pub fn switch(environment: &EnvironmentName) -> String {
    join(SWITCHES, &[environment])
}

/// The last number of an environment that was removed.
pub fn gone(environment: &EnvironmentName) -> String {
    join(GONE, &[environment])
}

/// All that environments showed.
pub const PROMOTIONS: &str = "r1/promotion/";
/// Until when all snapshots are kept.
pub const KEPT: &str = "r1/kept/";
/// All tables to drop.
pub const DROPS: &str = "r1/drop/";

/// One entry of the evidence. Entries sort by number.
pub fn evidence(seq: u64) -> String {
    join(EVIDENCE, &[&format_args!("{seq:020}")])
}

/// How many entries of the evidence [`evidence_block`] has.
pub const EVIDENCE_BLOCK: u64 = 100;

/// The entries whose numbers differ from this one's in the last two digits only (a prefix).
pub fn evidence_block(seq: u64) -> String {
    let mut key = evidence(seq);
    key.truncate(key.len() - 2);
    key
}

/// What an environment showed. Promotions sort by number.
pub fn promotion(environment: &EnvironmentName, seq: u64) -> String {
    join(PROMOTIONS, &[environment, &format_args!("{seq:020}")])
}

/// All that an environment showed (a prefix).
pub fn promotions_of(environment: &EnvironmentName) -> String {
    join(PROMOTIONS, &[environment]) + "/"
}

/// Until when a snapshot is kept.
pub fn kept(id: SnapshotId) -> String {
    join(KEPT, &[&id])
}

/// A table to drop.
pub fn drop(table: &TableId) -> String {
    join(DROPS, &[table])
}

/// All batches of a table whose leases were lost (a prefix).
pub fn lost_of(table: &TableId) -> String {
    join(LOST, &[table]) + ":"
}

/// An environment's pointer.
pub fn environment(name: &EnvironmentName) -> String {
    join(ENVIRONMENTS, &[name])
}

/// The chunks of a blob (a prefix).
pub fn blob(hash: Hash128) -> String {
    join(BLOBS, &[&hash]) + "/"
}

/// One chunk of a blob, from 0. Chunks sort by number.
pub fn blob_chunk(hash: Hash128, chunk: usize) -> String {
    join(BLOBS, &[&hash, &format_args!("{chunk:08}")])
}

/// A plan's progress.
pub fn plan(plan: PlanId) -> String {
    join(PLANS, &[&plan])
}

/// The intervals that a table holds.
pub fn intervals(table: &TableId) -> String {
    join(INTERVALS, &[table])
}

/// What a table held of rows that were restated since.
pub fn stale(table: &TableId) -> String {
    join(STALE, &[table])
}

/// When a table was last restated by itself.
pub fn restated(table: &TableId) -> String {
    join(RESTATED, &[table])
}

/// What a plan has still to do for a table.
pub fn todo(plan: PlanId, table: &TableId) -> String {
    join(TODOS, &[&plan, table])
}

/// All that a plan has still to do (a prefix).
pub fn todos_of(plan: PlanId) -> String {
    join(TODOS, &[&plan]) + "/"
}

/// The lease with a token. Leases sort by token.
pub fn lease(token: Token) -> String {
    join(LEASES, &[&format_args!("{:020}", token.0)])
}

/// A planned snapshot.
pub fn snapshot(id: SnapshotId) -> String {
    join(SNAPSHOTS, &[&id])
}

/// Which plan may move an environment's pointer.
pub fn applying(environment: &EnvironmentName) -> String {
    join(APPLYING, &[environment])
}

/// A batch whose lease was lost.
pub fn lost(batch: &Batch) -> String {
    join(LOST, &[batch])
}

/// All batches of a plan that wait or failed (a prefix).
pub fn setbacks_of(plan: PlanId) -> String {
    join(SETBACKS, &[&plan]) + "/"
}

/// A batch that waits for another attempt.
pub fn waiting(plan: PlanId, batch: &Batch) -> String {
    join(SETBACKS, &[&plan, &"wait", batch])
}

/// All batches of a plan that wait (a prefix).
pub fn waits_of(plan: PlanId) -> String {
    join(SETBACKS, &[&plan, &"wait"]) + "/"
}

/// A batch that failed for good.
pub fn failed(plan: PlanId, batch: &Batch) -> String {
    join(SETBACKS, &[&plan, &"failed", batch])
}

/// All batches of a plan that failed (a prefix).
pub fn failures_of(plan: PlanId) -> String {
    join(SETBACKS, &[&plan, &"failed"]) + "/"
}

/// The names in a key after `prefix` (one of this module's), unescaped; nothing where the key is
/// not under it.
pub fn parts(key: &str, prefix: &str) -> Option<Vec<String>> {
    key.strip_prefix(prefix)?.split('/').map(unescape).collect()
}

fn join(prefix: &str, names: &[&dyn Display]) -> String {
    let mut key = prefix.to_owned();
    for (n, name) in names.iter().enumerate() {
        if n > 0 {
            key.push('/');
        }
        // Writing to a text can't fail.
        let _ = write!(Escape(&mut key), "{name}");
    }
    key
}

/// Writes `/` as `%2F` and `%` as `%25`.
struct Escape<'a>(&'a mut String);

impl Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            match c {
                '/' => self.0.push_str("%2F"),
                '%' => self.0.push_str("%25"),
                _ => self.0.push(c),
            }
        }
        Ok(())
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut plain = pieces.next()?.to_owned();
    for piece in pieces {
        let (c, rest) = match (piece.strip_prefix("2F"), piece.strip_prefix("25")) {
            (Some(rest), _) => ('/', rest),
            (_, Some(rest)) => ('%', rest),
            _ => return None,
        };
        plain.push(c);
        plain.push_str(rest);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use coord_common::id::Version;
    use coord_common::interval::{Interval, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn batch(model: &str, start: i64) -> Batch {
        let table =
            TableId { model: model.parse().unwrap(), version: Version(Hash128(1)), dev: false, aside: None };
        Batch { table, interval: Interval { start: Timestamp(start), end: Timestamp(start + 1) } }
    }

    #[test]
    fn no_models_name_reaches_into_anothers_keys() {
        let plan = PlanId(Hash128(7));
        let key = todo(plan, &batch("a.b/c", 0).table);
        assert!(key.starts_with(&todos_of(plan)));
        assert_eq!(key.matches('/').count(), 3);
    }

    #[test]
    fn numbered_keys_sort_by_number() {
        assert!(lease(Token(9)) < lease(Token(10)));
        assert!(blob_chunk(Hash128(1), 9) < blob_chunk(Hash128(1), 10));
    }

    proptest! {
        #[test]
        fn the_names_in_a_key_come_back(model in "[a-z%/]{1,12}", start in any::<i32>()) {
            let batch = batch(&model, i64::from(start));
            let plan = PlanId(Hash128(3));
            let key = waiting(plan, &batch);
            prop_assert_eq!(parts(&key, &waits_of(plan)).unwrap(), vec![batch.to_string()]);
        }
    }
}

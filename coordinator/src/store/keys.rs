//! Where each record lives. Names are escaped, so that no name can reach into another's keys.
//!
//! ```text
//! r1/lead                                who leads; its create revision is the term
//! r1/schema                              the state's format
//! r1/env/<environment>                   the pointer
//! r1/blob/<hash>/<n>                     snapshot sets and plan bodies, in chunks
//! r1/plan/<plan>                         a plan's progress
//! r1/iv/<model>/<table>                  intervals that a table holds
//! r1/todo/<plan>/<model>/<table>         intervals that a plan has still to compute
//! r1/lease/<model>/<table>/<slot>        a batch in flight or failed
//! r1/ref/<snapshot>/<owner>              what keeps a snapshot
//! r1/gc/<snapshot>                       the janitor's marks
//! r1/worker/<worker> r1/join/<hash>      workers and their join tokens
//! r1/audit/head r1/audit/<sequence>      the audit chain
//! ```

use std::fmt::{Display, Write};

use coord_common::id::{EnvironmentName, Hash128, ModelName, PlanId, SnapshotId, WorkerId};

/// What all keys of this layout start with.
pub const ROOT: &str = "r1/";
/// The leader's key.
pub const LEAD: &str = "r1/lead";
/// The key of the state's format.
pub const SCHEMA: &str = "r1/schema";
/// All environments.
pub const ENVIRONMENTS: &str = "r1/env/";
/// All blobs.
pub const BLOBS: &str = "r1/blob/";
/// All plans.
pub const PLANS: &str = "r1/plan/";
/// All tables' intervals.
pub const INTERVALS: &str = "r1/iv/";
/// All that plans have still to do.
pub const TODOS: &str = "r1/todo/";
/// All batches in flight or failed.
pub const LEASES: &str = "r1/lease/";
/// All references to snapshots.
pub const REFS: &str = "r1/ref/";
/// All marks of the janitor.
pub const GC: &str = "r1/gc/";
/// All workers.
pub const WORKERS: &str = "r1/worker/";
/// All join tokens.
pub const JOINS: &str = "r1/join/";
/// The head of the audit chain; not under [`AUDITS`]' numbers in order, as `h` sorts after digits.
pub const AUDIT_HEAD: &str = "r1/audit/head";
/// The audit chain with its head.
pub const AUDITS: &str = "r1/audit/";

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

/// The intervals that a table holds; `table` is the table's id within its model.
pub fn intervals(model: &ModelName, table: impl Display) -> String {
    join(INTERVALS, &[model, &table])
}

/// The intervals of all tables of a model (a prefix).
pub fn intervals_of(model: &ModelName) -> String {
    join(INTERVALS, &[model]) + "/"
}

/// What a plan has still to do for a table.
pub fn todo(plan: PlanId, model: &ModelName, table: impl Display) -> String {
    join(TODOS, &[&plan, model, &table])
}

/// All that a plan has still to do (a prefix).
pub fn todos_of(plan: PlanId) -> String {
    join(TODOS, &[&plan]) + "/"
}

/// The lease of one slot of a table. Slots sort by number up to ten digits.
pub fn lease(model: &ModelName, table: impl Display, slot: i64) -> String {
    join(LEASES, &[model, &table, &format_args!("{slot:010}")])
}

/// All leases of a table (a prefix).
pub fn leases_of(model: &ModelName, table: impl Display) -> String {
    join(LEASES, &[model, &table]) + "/"
}

/// What keeps a snapshot: a plan or an environment's set.
pub fn reference(snapshot: SnapshotId, owner: impl Display) -> String {
    join(REFS, &[&snapshot, &owner])
}

/// All that keeps a snapshot (a prefix).
pub fn references_of(snapshot: SnapshotId) -> String {
    join(REFS, &[&snapshot]) + "/"
}

/// The janitor's mark on a snapshot.
pub fn gc(snapshot: SnapshotId) -> String {
    join(GC, &[&snapshot])
}

/// A worker's registration.
pub fn worker(id: &WorkerId) -> String {
    join(WORKERS, &[id])
}

/// A join token, by its hash.
pub fn join_token(hash: Hash128) -> String {
    join(JOINS, &[&hash])
}

/// An entry of the audit chain. Entries sort by number.
pub fn audit(sequence: u64) -> String {
    join(AUDITS, &[&format_args!("{sequence:020}")])
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_models_name_reaches_into_anothers_keys() {
        let (sly, plain): (ModelName, ModelName) = ("a.b/c".parse().unwrap(), "a.b".parse().unwrap());
        assert_eq!(intervals(&sly, "t"), "r1/iv/a.b%2Fc/t");
        assert!(!intervals(&sly, "t").starts_with(&intervals_of(&plain)));
    }

    #[test]
    fn numbered_keys_sort_by_number() {
        let model: ModelName = "m".parse().unwrap();
        assert!(lease(&model, "t", 9) < lease(&model, "t", 10));
        assert!(audit(99) < audit(100) && audit(u64::MAX).as_str() < AUDIT_HEAD);
        assert!(blob_chunk(Hash128(1), 9) < blob_chunk(Hash128(1), 10));
    }

    proptest! {
        #[test]
        fn the_names_in_a_key_come_back(table in "[^\u{0}]{1,20}", slot in 0i64..1_000_000) {
            let model: ModelName = "sch.mödel/%2F".parse().unwrap();
            let key = lease(&model, &table, slot);
            let names = parts(&key, LEASES).unwrap();
            prop_assert_eq!(names, vec![model.to_string(), table, format!("{slot:010}")]);
        }
    }
}

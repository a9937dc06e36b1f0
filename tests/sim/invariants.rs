//! What must hold after every step, whatever goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use coord_common::interval::{Interval, IntervalSet, Timestamp};
use coord_common::task::{Batch, TableId};
use coordinator::store::record::decode_intervals;
use coordinator::store::{Compare, Op, Txn, keys};
use serde_json::Value;
use worker::engine::{BatchWrite, Publication, ViewSwitch, Write};

use crate::reader;
use crate::restore::OPERATOR;
use crate::store::Db;
use crate::story::Story;
use crate::tidy;
use crate::warehouse::{Object, Warehouse};
use crate::world::{World, lock};

/// Milliseconds of a day.
pub(crate) const DAY: i64 = 86_400_000;
/// The first day of all data: the first of January 2024.
pub(crate) const FIRST: i64 = 1_704_067_200_000;

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Checks {
    /// The greatest token granted.
    token: u64,
    /// The flip that each plan was made against, and where.
    pub(crate) bases: BTreeMap<String, (String, u64)>,
    /// Plans that moved their pointer.
    flipped: BTreeSet<String>,
    /// The plan behind each flip of each environment.
    pub(crate) shown: BTreeMap<(String, u64), String>,
    /// Plans that compute again where readers see it, and aren't at their end.
    pub(crate) in_place: BTreeSet<String>,
    /// What somebody else put back, so that it may be recorded again.
    pub(crate) put_back: BTreeSet<String>,
    /// The flip of production that somebody made who doesn't lead.
    pub(crate) meddled: u64,
    /// What the last transaction that shrank a todo had left, by key.
    pub(crate) todos: BTreeMap<String, Vec<u8>>,
    /// What tables newly hold, to be found in the warehouse.
    recorded: Vec<(String, IntervalSet)>,
    pub(crate) count: Counts,
}

/// How often what was checked took place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) terms: u64,
    pub(crate) grants: u64,
    pub(crate) lost: u64,
    pub(crate) commits: u64,
    pub(crate) flips: u64,
    pub(crate) written: u64,
    pub(crate) published: u64,
    pub(crate) drops: u64,
    pub(crate) rollbacks: u64,
}

/// A record's JSON, after its version and checksum.
pub(crate) fn json(value: &[u8]) -> Value {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let body = text.splitn(3, ':').nth(2).unwrap_or_default();
    serde_json::from_str(body).unwrap_or_default()
}

fn puts(txn: &Txn) -> impl Iterator<Item = (&str, &[u8])> {
    txn.ops().iter().filter_map(|op| match op {
        Op::Put { key, value, .. } => Some((key.as_str(), value.as_slice())),
        Op::Delete(_) | Op::DeletePrefix(_) => None,
    })
}

fn deletes(txn: &Txn) -> impl Iterator<Item = &str> {
    txn.ops().iter().filter_map(|op| match op {
        Op::Delete(key) => Some(key.as_str()),
        Op::Put { .. } | Op::DeletePrefix(_) => None,
    })
}

/// The batch that a lease on record grants.
fn leased(value: &[u8]) -> Option<(Batch, String)> {
    let record = json(value);
    let batch = &record["work"]["batch"];
    let text = batch["batch"].as_str()?.parse().ok()?;
    Some((text, batch["mode"].as_str().unwrap_or_default().to_owned()))
}

impl Checks {
    /// Looks at a transaction that is about to take effect.
    pub(crate) fn before(&mut self, world: &World, db: &Db, from: &str, txn: &Txn) {
        if from == OPERATOR {
            // An import writes down what was: no more is said of it than that it is there.
            for (key, value) in puts(txn).filter(|(key, _)| key.starts_with(keys::INTERVALS)) {
                self.check_intervals(world, db, txn, key, value);
            }
            return;
        }
        self.check_term(world, db, from, txn);
        for (key, value) in puts(txn) {
            if key.starts_with(keys::LEASES) {
                self.check_grant(world, db, txn, key, value);
            } else if key.starts_with(keys::ENVIRONMENTS) {
                self.check_flip(world, db, from, txn, key, value);
            } else if key.starts_with(keys::DROPS) && db.get(key).is_none() {
                self.count.drops += 1;
                tidy::check_drop(world, db, key);
            } else if key.starts_with(keys::INTERVALS) {
                self.check_intervals(world, db, txn, key, value);
            } else if key.starts_with(keys::PLANS) {
                check_plan(world, db, key, value);
                self.note_in_place(key, value);
            } else if key.starts_with(keys::APPLYING) {
                check_claim(world, db, key, value);
            } else if key.starts_with(keys::LOST) {
                self.count.lost += 1;
            } else if key == keys::LEAD {
                self.count.terms += 1;
            }
        }
        let todos = txn.ops().iter().filter_map(|op| match op {
            Op::Delete(key) | Op::Put { key, .. } if key.starts_with(keys::TODOS) => db.get(key),
            _ => None,
        });
        self.todos.extend(todos.map(|entry| (entry.key.clone(), entry.value.clone())));
    }

    /// Only who leads now writes; what is never changed, and the claim to lead, are anybody's.
    fn check_term(&self, world: &World, db: &Db, from: &str, txn: &Txn) {
        let claims =
            txn.compares().iter().any(|compare| matches!(compare, Compare::Absent(key) if key == keys::LEAD));
        let harmless = |key: &str| key.starts_with(keys::BLOBS) || key == keys::SCHEMA;
        if claims
            || from == FOREIGN
            || !puts(txn).map(|(key, _)| key).chain(deletes(txn)).any(|key| !harmless(key))
        {
            return;
        }
        let leader =
            db.get(keys::LEAD).map(|entry| (json(&entry.value)["identity"].clone(), entry.create_revision));
        let holds = |(identity, term): (Value, _)| {
            let own = txn.compares().iter().find_map(|compare| match compare {
                Compare::CreateRevision(key, term) if key == keys::LEAD => Some(*term),
                _ => None,
            });
            identity == from && own == Some(term)
        };
        if from != "test" && !leader.is_some_and(holds) {
            world.violate(&format!("{from} writes although its term is over"));
        }
    }

    fn check_grant(&mut self, world: &World, db: &Db, txn: &Txn, key: &str, value: &[u8]) {
        let token = key[keys::LEASES.len()..].parse().unwrap_or_default();
        if db.get(key).is_some() {
            return;
        }
        self.count.grants += 1;
        if token <= self.token {
            world.violate(&format!("token {token} comes after {}", self.token));
        }
        self.token = token;
        let plan = json(value)["plan"].as_str().unwrap_or_default().to_owned();
        let state =
            db.get(&format!("{}{plan}", keys::PLANS)).map(|entry| json(&entry.value)["state"].clone());
        let over = ["planned", "abandoned"].map(Value::from);
        if state.is_some_and(|state| over.contains(&state)) {
            world.violate(&format!("lease {token} is granted for plan {plan}, which isn't applied"));
        }
        let Some((batch, _)) = leased(value) else { return };
        let gone: BTreeSet<&str> = deletes(txn).collect();
        for other in db.under(keys::LEASES).filter(|entry| !gone.contains(entry.key.as_str())) {
            if let Some((held, _)) = leased(&other.value)
                && held.table == batch.table
                && held.interval.start < batch.interval.end
                && batch.interval.start < held.interval.end
            {
                world.violate(&format!("leases over {held} and {batch} at once"));
            }
        }
    }

    fn note_in_place(&mut self, key: &str, value: &[u8]) {
        let (plan, record) = (key[keys::PLANS.len()..].to_owned(), json(value));
        let open = !["planned", "finished"].map(Value::from).contains(&record["state"]);
        match open && record["restatement"]["in_place"] == true {
            true => self.in_place.insert(plan),
            false => self.in_place.remove(&plan),
        };
    }

    /// The pointer moves by one, from where the plan found it, when nothing is left to do.
    fn check_flip(&mut self, world: &World, db: &Db, from: &str, txn: &Txn, key: &str, value: &[u8]) {
        let now = json(value);
        let before = db.get(key).map(|entry| json(&entry.value));
        let seq = |pointer: &Value| pointer["seq"].as_u64().unwrap_or_default();
        let environment = key[keys::ENVIRONMENTS.len()..].to_owned();
        // One that was removed leaves its number behind.
        let gone = db.get(&format!("{}{environment}", keys::GONE));
        let gone = gone.and_then(|entry| json(&entry.value).as_u64()).unwrap_or_default();
        let old = before.as_ref().map_or(gone, seq);
        // One that has ended counts as gone, whether or not its views are dropped yet.
        let may_be_gone = before.as_ref().is_none_or(|pointer| !pointer["expires"].is_null());
        if from == FOREIGN {
            self.meddled = seq(&now);
        }
        // The same flip is written again when its views have followed.
        let same = before.as_ref().is_some_and(|it| it["seq"] == now["seq"] && it["set"] == now["set"]);
        if same || from == FOREIGN {
            return;
        }
        self.count.flips += 1;
        let plan = now["plan"].as_str().unwrap_or_default().to_owned();
        self.shown.insert((environment, seq(&now)), plan.clone());
        if seq(&now) != old + 1 {
            world.violate(&format!("{key} moves from {old} to {}", seq(&now)));
        }
        let goes_back = puts(txn).any(|(key, _)| key.starts_with(keys::SWITCHES));
        self.count.rollbacks += u64::from(goes_back);
        match self.bases.get(&plan) {
            Some((_, base)) if *base != old && !(goes_back || (*base == 0 && may_be_gone)) => {
                world.violate(&format!(
                    "plan {plan} was made against flip {base} of {key}, and moves it from {old}"
                ));
            }
            _ => {}
        }
        let todos = format!("{}{plan}/", keys::TODOS);
        if let Some(left) = db.under(&todos).next() {
            world.violate(&format!("{key} moves although {} is left to do", left.key));
        }
        if !self.flipped.insert(plan.clone()) && !goes_back {
            world.violate(&format!("plan {plan} moves the pointer twice"));
        }
    }

    /// A table never loses a range, and each is recorded once.
    fn check_intervals(&mut self, world: &World, db: &Db, txn: &Txn, key: &str, value: &[u8]) {
        let Ok(now) = decode_intervals(key, value) else {
            world.violate(&format!("{key} can't be read"));
            return;
        };
        let before =
            db.get(key).and_then(|entry| decode_intervals(key, &entry.value).ok()).unwrap_or_default();
        let lost = before.difference(&now);
        if !lost.is_empty() && world.play.story != Story::Restatements {
            world.violate(&format!("{key} loses {lost:?}"));
        }
        let Some(table) = keys::parts(key, keys::INTERVALS).and_then(|names| names.into_iter().next()) else {
            return;
        };
        for lease in deletes(txn).filter(|key| key.starts_with(keys::LEASES)) {
            let Some((batch, mode)) = db.get(lease).and_then(|entry| leased(&entry.value)) else { continue };
            if batch.table.to_string() != table || !["write", "first"].contains(&mode.as_str()) {
                continue;
            }
            self.count.commits += 1;
            let again = before.intersection(&IntervalSet::from(batch.interval));
            let redone = world.play.redoes_in_place() || self.put_back.contains(&table);
            if !again.is_empty() && !redone {
                world.violate(&format!("{batch} is recorded twice"));
            }
        }
        self.recorded.push((table, now.difference(&before)));
    }

    /// Looks at what a transaction led to: what is on record is in the warehouse.
    pub(crate) fn after(&mut self, world: &World, _: &Db, _: &Txn) {
        for (table, new) in std::mem::take(&mut self.recorded) {
            let warehouse = lock(&world.warehouse);
            let Some(relation) = warehouse.relations.get(&table) else {
                if !new.is_empty() {
                    world.violate(&format!("{table} is on record, but was never written"));
                }
                continue;
            };
            let by_day = table.parse::<TableId>().is_ok_and(|id| world.play.is_by_day(&id.model.to_string()));
            if !by_day {
                if !new.is_empty() && warehouse.object(relation).is_none() {
                    world.violate(&format!("{relation} is on record, but isn't there"));
                }
                continue;
            }
            for day in new.ranges().iter().flat_map(|range| days_of(*range)) {
                once(world, &warehouse, relation, day);
            }
        }
    }

    /// A batch has committed in the warehouse.
    pub(crate) fn written(&mut self, world: &World, warehouse: &Warehouse, write: &BatchWrite) {
        self.count.written += 1;
        let holder = warehouse.holder(&write.fence.slot);
        if holder != write.fence.token.0 {
            world.violate(&format!(
                "{} commits under token {} after {holder} was raised",
                write.fence.slot, write.fence.token
            ));
        }
        reader::check(self, world, warehouse, &write.fence.slot);
        let Ok(batch) = write.fence.slot.parse::<Batch>() else { return };
        if matches!(write.write, Write::TimeRange { .. } | Write::Append { .. }) {
            for day in days_of(batch.interval) {
                once(world, warehouse, &crate::warehouse::name(&write.target), day);
            }
        }
    }

    pub(crate) fn switched(
        &mut self,
        world: &World,
        warehouse: &Warehouse,
        switch: &ViewSwitch,
        before: u64,
    ) {
        let now = warehouse.shown(&switch.environment);
        if now < before {
            world.violate(&format!("views of {} go back from {before} to {now}", switch.environment));
        }
        reader::check(self, world, warehouse, "a switch of views");
    }

    pub(crate) fn published(&mut self, world: &World, warehouse: &Warehouse, publication: &Publication) {
        self.count.published += 1;
        reader::check(self, world, warehouse, "a publication");
        for table in &publication.tables {
            let relation = crate::warehouse::name(&table.beside.published);
            let Some(Object::Table(rows)) = warehouse.object(&relation) else { continue };
            let mut days = BTreeSet::new();
            if let Some(twice) = rows.iter().find(|row| !days.insert(row.day)) {
                world.violate(&format!("{relation} has day {} twice after a publication", twice.day));
            }
        }
    }
}

impl Checks {
    /// A table is gone: no view may show it.
    pub(crate) fn dropped(&mut self, world: &World, warehouse: &Warehouse, relation: &str) {
        if let Some((view, _)) = warehouse.views.iter().find(|(_, (_, target))| target == relation) {
            world.violate(&format!("{relation} is dropped although {view} shows it"));
        }
    }
}

/// Who writes to the state without leading.
pub(crate) const FOREIGN: &str = "foreign";

/// A plan's end is its end, and one that failed or was cancelled is resumed only as itself.
fn check_plan(world: &World, db: &Db, key: &str, value: &[u8]) {
    let (now, before) = (json(value), db.get(key).map(|entry| json(&entry.value)));
    let state = |record: &Value| record["state"].as_str().unwrap_or_default().to_owned();
    let Some(before) = before else { return };
    let odd = match (state(&before).as_str(), state(&now).as_str()) {
        ("finished", to) => to != "finished" && to != "planned",
        ("promoting", to) => !["promoting", "finished", "failed"].contains(&to),
        ("cancelling", to) => !["cancelling", "cancelled", "failed", "finished"].contains(&to),
        _ => false,
    };
    if odd {
        world.violate(&format!("{key} goes from {} to {}", state(&before), state(&now)));
    }
}

/// One plan at a time moves an environment.
fn check_claim(world: &World, db: &Db, key: &str, value: &[u8]) {
    if let Some(held) = db.get(key).filter(|held| json(&held.value) != json(value)) {
        world.violate(&format!("{key} passes from {} to {}", json(&held.value), json(value)));
    }
}

/// Days since the start of the data that a range covers.
pub(crate) fn days_of(range: Interval) -> impl Iterator<Item = i64> {
    let day = |at: Timestamp| (at.0 - FIRST).div_euclid(DAY);
    day(range.start)..day(range.end)
}

/// A table has one row of a day.
pub(crate) fn once(world: &World, warehouse: &Warehouse, relation: &str, day: i64) {
    let count = match warehouse.object(relation) {
        Some(Object::Table(rows)) => rows.iter().filter(|row| row.day == day).count(),
        Some(Object::View(_) | Object::Merged { .. }) | None => 0,
    };
    if count != 1 {
        world.violate(&format!("{relation} has day {day} {count} times"));
    }
}

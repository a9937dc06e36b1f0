//! Somebody who changes the state by other means than through the leader, at the worst of times: who
//! restores a backup, or mends by hand. The conditions of a flip must hold against them, too.

use std::sync::Arc;

use coordinator::store::record::encode_json;
use coordinator::store::{Compare, Outcome, Revision, Store, StoreError, Txn, blob, keys};
use serde_json::{Value, json};

use crate::invariants::{FOREIGN, json as json_of};
use crate::store::NodeStore;
use crate::world::{Host, World, lock};

/// Waits for a plan that is nearly done, and gets in its way, once.
pub(crate) async fn meddle(world: Arc<World>) {
    let store = NodeStore { world: world.clone(), host: Host::new(FOREIGN) };
    let flips = world.chance(500);
    while !world.is_calm() {
        world.pause(5, 60).await;
        let done = if flips { flip(&store, &world).await } else { put_back(&store, &world).await };
        if matches!(done, Ok(true)) {
            return;
        }
    }
}

/// The plan that is being applied to production with everything on record, and the keys of what it
/// has left.
fn under_way(world: &World) -> Option<(String, Vec<String>)> {
    let db = lock(&world.store);
    let claim = db.get(&format!("{}prod", keys::APPLYING))?;
    let plan = json_of(&claim.value).as_str()?.to_owned();
    let record = json_of(&db.get(&format!("{}{plan}", keys::PLANS))?.value);
    let ready = record["state"] == "applying" && record["materialised"] == true;
    let left = db.under(&format!("{}{plan}/", keys::TODOS)).map(|entry| entry.key.clone()).collect();
    ready.then_some((plan, left))
}

/// Moves the pointer, to what it points at.
pub(crate) async fn flip(store: &NodeStore, world: &World) -> Result<bool, StoreError> {
    let key = format!("{}prod", keys::ENVIRONMENTS);
    if under_way(world).is_none_or(|(_, left)| left.is_empty()) {
        return Ok(false);
    }
    let Some(entry) = store.get(&key).await? else { return Ok(false) };
    let mut pointer = json_of(&entry.value);
    if pointer["views_done"] != true {
        return Ok(false);
    }
    let set: coord_common::id::Hash128 = match pointer["set"].as_str().map(str::parse) {
        Some(Ok(set)) => set,
        _ => return Ok(false),
    };
    let Some(bytes) = blob::get_blob(store, set).await? else { return Ok(false) };
    let mut environment: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let seq = pointer["seq"].as_u64().unwrap_or_default() + 1;
    environment["seq"] = json!(seq);
    let set = blob::put_blob(store, environment.to_string().as_bytes()).await?;
    pointer["seq"] = json!(seq);
    pointer["previous"] = pointer["set"].clone();
    pointer["set"] = json!(set.to_string());
    put(store, world, key, entry.mod_revision, encode_json(&pointer)?).await
}

/// Puts back what a plan had left to do for a table that it has done.
async fn put_back(store: &NodeStore, world: &World) -> Result<bool, StoreError> {
    let Some((plan, left)) = under_way(world) else { return Ok(false) };
    let prefix = format!("{}{plan}/", keys::TODOS);
    let found = {
        let checks = lock(&world.checks);
        let gone = checks.todos.iter().filter(|(key, _)| key.starts_with(&prefix) && !left.contains(key));
        gone.map(|(key, value)| (key.clone(), value.clone())).next_back()
    };
    let Some((key, value)) = found.filter(|_| left.len() < 2) else { return Ok(false) };
    if let Some(table) = keys::parts(&key, keys::TODOS).and_then(|names| names.into_iter().nth(1)) {
        lock(&world.checks).put_back.insert(table);
    }
    put(store, world, key, Revision(0), value).await
}

/// A janitor who doesn't ask who works on a table.
pub(crate) async fn sweep(world: Arc<World>) {
    let store = NodeStore { world: world.clone(), host: Host::new(FOREIGN) };
    while !world.is_calm() {
        world.pause(5, 60).await;
        let Some((_, left)) = under_way(&world) else { continue };
        let table = left.first().and_then(|key| keys::parts(key, keys::TODOS)?.into_iter().nth(1));
        let Some(Ok(table)) = table.map(|table| table.parse()) else { continue };
        if put(&store, &world, keys::drop(&table), Revision(0), b"null".to_vec()).await.is_ok() {
            return;
        }
    }
}

async fn put(
    store: &NodeStore,
    world: &World,
    key: String,
    at: Revision,
    value: Vec<u8>,
) -> Result<bool, StoreError> {
    world.fault(&format!("foreign: puts {key}"));
    let txn = Txn::new().require(Compare::ModRevision(key.clone(), at)).put(key, value);
    Ok(matches!(store.commit(txn).await?, Outcome::Committed(_)))
}

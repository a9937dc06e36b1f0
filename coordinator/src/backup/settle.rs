//! What a state is made to say when it is restored: nothing is in flight, nothing under way, and all
//! views are to be set anew.

use std::collections::{BTreeMap, BTreeSet};

use coord_common::id::{EnvironmentName, Hasher, PlanId};
use coord_common::plan::Environment;

use super::{BackupError, Import};
use crate::apply::{LeaseRecord, LeasedWork};
use crate::control::Book;
use crate::control::book::{
    HistoryEntry, PlanBody, PlanState, Pointer, Switch, SwitchKind, decode, read_blob,
};
use crate::store::record::encode_json;
use crate::store::{Store, keys};

/// Changes, by key; nothing is a deletion.
#[derive(Default)]
pub(super) struct Settled {
    pub(super) changes: BTreeMap<String, Option<Vec<u8>>>,
    pub(super) stopped: usize,
    pub(super) environments: usize,
}

/// Works out what has to change.
pub(super) async fn settle(store: &dyn Store, book: &Book, how: &Import) -> Result<Settled, BackupError> {
    let mut settled = Settled::default();
    for entry in store.range(keys::LEASES).await?.entries {
        let lease: LeaseRecord = decode(&entry)?;
        // Whoever held it is shut out by the next one that gets the batch.
        if let LeasedWork::Batch { batch, .. } = lease.work {
            settled.changes.insert(keys::lost(&batch), Some(encode_json(&true)?));
        }
        settled.changes.insert(entry.key, None);
    }
    for entry in store.range(keys::APPLYING).await?.entries {
        settled.changes.insert(entry.key, None);
    }
    for (id, (record, _)) in &book.plans {
        let state = match record.state {
            PlanState::Applying | PlanState::Promoting | PlanState::Publishing => PlanState::Failed,
            PlanState::Cancelling => PlanState::Cancelled,
            _ => continue,
        };
        let mut record = record.clone();
        record.state = state;
        let what = "stopped, as the state was restored from a file".to_owned();
        record.history.push(HistoryEntry { at: how.now, what, by: Some(how.by.clone()) });
        settled.changes.insert(keys::plan(*id), Some(encode_json(&record)?));
        settled.stopped += 1;
    }
    for (name, pointer) in &book.pointers {
        let switch = switch(store, book, name, pointer, how).await?;
        settled.changes.insert(keys::applying(name), Some(encode_json(&switch.id)?));
        settled.changes.insert(keys::switch(name), Some(encode_json(&switch)?));
        let pointer = Pointer { views_done: false, ..pointer.clone() };
        settled.changes.insert(keys::environment(name), Some(encode_json(&pointer)?));
        settled.environments += 1;
    }
    Ok(settled)
}

/// What sets an environment's views anew. One that is being removed goes on to be.
async fn switch(
    store: &dyn Store,
    book: &Book,
    name: &EnvironmentName,
    pointer: &Pointer,
    how: &Import,
) -> Result<Switch, BackupError> {
    if let Some(retired) = book.switches.get(name).filter(|switch| switch.what == SwitchKind::Retire) {
        return Ok(retired.clone());
    }
    let hash = Hasher::new("restored/v1")
        .field("environment", name.as_str())
        .field("seq", pointer.seq.to_string())
        .field("at", how.now.to_string());
    let gateway = match book.plans.get(&pointer.plan) {
        Some((record, _)) => read_blob::<PlanBody>(store, record.body).await?.plan.layout.default_gateway,
        None => String::new(),
    };
    let mut gateways = BTreeSet::from([gateway.clone()]);
    let shown: Environment = read_blob(store, pointer.set).await?;
    gateways.extend(shown.models.into_values().filter_map(|model| model.gateway));
    Ok(Switch {
        id: PlanId(hash.finish()),
        seq: pointer.seq,
        what: SwitchKind::Restore,
        gateway,
        gateways,
        at: how.now,
        by: how.by.clone(),
    })
}

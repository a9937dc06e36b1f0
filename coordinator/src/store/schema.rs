//! The version of the state's format as a whole.

use serde::{Deserialize, Serialize};

use super::record::{decode_json, encode_json};
use super::{Compare, Outcome, Store, StoreError, Txn, keys};

/// The format that this build reads and writes.
pub const FORMAT: u32 = 1;

/// What stands at [`keys::SCHEMA`]; fields may be added, these two words stay for ever.
#[derive(Debug, Serialize, Deserialize)]
struct Schema {
    format: u32,
}

/// Makes sure that this build may work with the state; an empty store is marked with [`FORMAT`].
///
/// # Errors
/// [`StoreError::NewerSchema`] and [`StoreError::OlderSchema`] where the state is of another
/// format, [`StoreError::Corrupt`] where there are records but no format.
pub async fn check_schema(store: &dyn Store) -> Result<(), StoreError> {
    if let Some(found) = read(store).await? {
        return accept(found);
    }
    let first = Txn::new().require(Compare::NoneUnder(keys::ROOT.to_owned())).put(keys::SCHEMA, mark()?);
    let lost = match store.commit(first).await {
        Ok(Outcome::Committed(_)) => return Ok(()),
        // Somebody else may have marked it.
        Ok(Outcome::Conflict) => None,
        Err(StoreError::Unknown(why)) => Some(why),
        Err(error) => return Err(error),
    };
    match (read(store).await?, lost) {
        (Some(found), _) => accept(found),
        // The mark may still be on its way: this may simply be called again.
        (None, Some(why)) => Err(StoreError::Unavailable(why)),
        (None, None) if store.get(keys::IMPORTING).await?.is_some() => {
            Err(StoreError::corrupt(keys::IMPORTING, "an import into it was cut off, or goes on"))
        }
        (None, None) => Err(StoreError::corrupt(keys::SCHEMA, "there are records but no format version")),
    }
}

/// The record at [`keys::SCHEMA`].
pub(crate) fn mark() -> Result<Vec<u8>, StoreError> {
    encode_json(&Schema { format: FORMAT })
}

/// Whether a value at [`keys::SCHEMA`] says this build's format.
pub(crate) fn verify(value: &[u8]) -> Result<(), StoreError> {
    accept(decode_json::<Schema>(keys::SCHEMA, value)?.format)
}

async fn read(store: &dyn Store) -> Result<Option<u32>, StoreError> {
    let Some(entry) = store.get(keys::SCHEMA).await? else { return Ok(None) };
    decode_json::<Schema>(&entry.key, &entry.value).map(|schema| Some(schema.format))
}

/// Whether this build knows a format.
pub(crate) fn accept(found: u32) -> Result<(), StoreError> {
    match found.cmp(&FORMAT) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(StoreError::NewerSchema { found, known: FORMAT }),
        std::cmp::Ordering::Less => Err(StoreError::OlderSchema { found, known: FORMAT }),
    }
}

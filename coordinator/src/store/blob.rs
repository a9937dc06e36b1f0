//! Values of any size, by the hash of their content: written once, never changed, checked on every
//! read.
//!
//! A blob is cut into pieces, each packed by itself, so that two writers of one blob always write
//! pieces that fit together. The first piece is written last and says how many there are: a blob
//! whose first piece exists is whole.

use std::io::{Read, Write};

use coord_common::id::{Hash128, Hasher};
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::record::{get_varint, put_varint, seal, unseal};
use super::{Compare, Entry, MAX_OPS, Store, StoreError, Txn, keys};

/// Bytes of content in one piece, at most; packed pieces are hardly ever larger.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes of packed pieces after which a transaction is closed.
const TXN_BYTES: usize = 1 << 20;

/// The name of some content.
pub fn blob_hash(content: &[u8]) -> Hash128 {
    Hasher::new("blob/v1").field("content", content).finish()
}

/// Stores content and gives its name. Content that is there already is not written again; a write
/// that was cut off is completed.
pub async fn put_blob(store: &dyn Store, content: &[u8]) -> Result<Hash128, StoreError> {
    let hash = blob_hash(content);
    let head = keys::blob_chunk(hash, 0);
    if store.get(&head).await?.is_some() {
        return Ok(hash);
    }
    let pieces: Vec<&[u8]> =
        if content.is_empty() { vec![content] } else { content.chunks(CHUNK_BYTES).collect() };
    let unfinished = || Txn::new().require(Compare::Absent(head.clone()));
    let mut txn = unfinished();
    for (n, piece) in pieces.iter().enumerate().rev() {
        let count = if n == 0 { pieces.len() as u64 } else { 0 };
        txn = txn.put(keys::blob_chunk(hash, n), pack(count, piece));
        let last = n == 0;
        if last || txn.bytes() + CHUNK_BYTES > TXN_BYTES || txn.len().1 == MAX_OPS {
            let full = std::mem::replace(&mut txn, unfinished());
            if store.commit(full).await?.committed().is_none() {
                // Somebody else has completed the same content in the meantime.
                return Ok(hash);
            }
        }
    }
    Ok(hash)
}

/// Reads content by its name; nothing where there is none.
///
/// # Errors
/// [`StoreError::Corrupt`] where a piece is missing or damaged, or the content does not hash to its
/// name.
pub async fn get_blob(store: &dyn Store, hash: Hash128) -> Result<Option<Vec<u8>>, StoreError> {
    let entries = store.range(&keys::blob(hash)).await?.entries;
    let head = keys::blob_chunk(hash, 0);
    let Some(first) = entries.first().filter(|entry| entry.key == head) else { return Ok(None) };
    let mut content = Vec::new();
    let count = unpack(first, &mut content)?;
    for n in 1..usize::try_from(count).unwrap_or(usize::MAX) {
        let key = keys::blob_chunk(hash, n);
        let piece = entries.get(n).filter(|entry| entry.key == key);
        unpack(piece.ok_or_else(|| StoreError::corrupt(&key, "it is missing"))?, &mut content)?;
    }
    if blob_hash(&content) != hash {
        return Err(StoreError::corrupt(&head, "the content does not hash to its name"));
    }
    Ok(Some(content))
}

/// Deletes content. Whoever calls this knows that nothing refers to it.
pub async fn delete_blob(store: &dyn Store, hash: Hash128) -> Result<(), StoreError> {
    store.commit(Txn::new().delete_prefix(keys::blob(hash))).await.map(|_| ())
}

/// Whether a value is a sound piece of some blob.
pub(crate) fn verify_piece(key: &str, value: &[u8]) -> Result<(), StoreError> {
    unpack_value(key, value, &mut Vec::new()).map(|_| ())
}

fn pack(count: u64, piece: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    put_varint(&mut payload, count);
    let mut encoder = DeflateEncoder::new(payload, Compression::default());
    let packed = encoder.write_all(piece).and_then(|()| encoder.finish());
    seal(&packed.expect("writing to memory does not fail"))
}

/// Appends a piece to the content and gives the count of pieces it states (0 in all but the first).
fn unpack(entry: &Entry, content: &mut Vec<u8>) -> Result<u64, StoreError> {
    unpack_value(&entry.key, &entry.value, content)
}

fn unpack_value(key: &str, value: &[u8], content: &mut Vec<u8>) -> Result<u64, StoreError> {
    let damaged = |why: &str| StoreError::corrupt(key, why);
    let mut payload = unseal(key, value)?;
    let count = get_varint(&mut payload).ok_or_else(|| damaged("it is cut off"))?;
    let before = content.len();
    DeflateDecoder::new(payload)
        .take(CHUNK_BYTES as u64 + 1)
        .read_to_end(content)
        .map_err(|error| damaged(&error.to_string()))?;
    if content.len() - before > CHUNK_BYTES {
        return Err(damaged("it is larger than a piece may be"));
    }
    Ok(count)
}

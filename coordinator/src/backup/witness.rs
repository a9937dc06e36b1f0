//! The entry that an import adds to the evidence that it restores.

use coord_common::id::{EnvironmentName, PlanId};

use super::file::Header;
use super::{BackupError, Import};
use crate::control::Book;
use crate::control::book::decode;
use crate::control::evidence::{Deed, Head, broken};
use crate::store::record::{decode_json, encode_json};
use crate::store::{Snapshot, Store, keys};

/// What an import writes of itself.
pub(super) struct Witnessed {
    /// The entry and the evidence's end.
    pub(super) records: [(String, Vec<u8>); 2],
    /// The first entry of the restored evidence that isn't as it was written.
    pub(super) broken: Option<u64>,
}

/// Goes on with the evidence of the file: whose import it was, of which file, and instead of what.
pub(super) async fn witness(
    store: &dyn Store,
    book: &Book,
    before: &Snapshot,
    header: &Header,
    blake3: &str,
    how: &Import,
) -> Result<Witnessed, BackupError> {
    let mut entries = Vec::new();
    for entry in store.range(keys::EVIDENCE).await?.entries {
        entries.push(decode(&entry)?);
    }
    let broken = broken(&entries, book.evidence);
    let mut checked = vec![match broken {
        Some(number) => format!("the evidence of the file is broken at entry {number}"),
        None => format!("the evidence of the file is whole: {} entries", book.evidence.seq),
    }];
    if let Some(replaced) = before.entries.iter().find(|entry| entry.key == keys::EVIDENCE_HEAD) {
        checked.push(match decode_json::<Head>(&replaced.key, &replaced.value) {
            Ok(Head { seq, hash }) => {
                format!("a state was replaced whose evidence ended at entry {seq}, {hash}")
            }
            Err(_) => "a state was replaced whose evidence could not be read".to_owned(),
        });
    }
    let deed = Deed {
        at: how.now,
        by: how.by.clone(),
        did: format!("imported the state of revision {}, blake3 {blake3}", header.revision),
        environment: None::<EnvironmentName>,
        plan: None::<PlanId>,
        approved_by: Vec::new(),
        checked,
    };
    let entry = book.evidence.followed_by(deed)?;
    let head = Head { seq: entry.seq, hash: entry.hash };
    let records = [
        (keys::evidence(entry.seq), encode_json(&entry)?),
        (keys::EVIDENCE_HEAD.to_owned(), encode_json(&head)?),
    ];
    Ok(Witnessed { records, broken })
}

//! From where numbers count that the warehouse remembers.

use serde::{Deserialize, Serialize};

use super::file::Header;
use crate::store::record::decode_json;
use crate::store::{Revision, Snapshot, keys};

/// Transactions that may have been committed between an export and the loss of its store, at most:
/// more than a year at 250 a second.
const LOST_TERMS: u64 = 1 << 33;
/// Flips of one environment in the same time, at most.
const LOST_FLIPS: u64 = 1 << 20;
/// Leases that one term's revision has room for, as a power of two.
const LEASE_BITS: u32 = 20;
/// Tokens are signed numbers in warehouses.
const MOST_TERMS: u64 = (i64::MAX as u64) >> LEASE_BITS;

/// What is added to the store's own numbers before a warehouse sees them. A store that was restored
/// counts revisions and flips anew or goes back; the warehouse's fences never do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Era {
    /// Added to terms.
    pub(crate) terms: u64,
    /// Added to the numbers of flips.
    pub(crate) flips: u64,
}

impl Era {
    /// The era of a state that is restored: beyond all that the exported store, the store that it
    /// goes to, and any that they were restored from have given out. Nothing where numbers end.
    pub(super) fn after(header: &Header, before: &Snapshot) -> Option<Self> {
        let there = before.entries.iter().find(|entry| entry.key == keys::ERA);
        let there: Self = there.and_then(|e| decode_json(&e.key, &e.value).ok()).unwrap_or_default();
        let revision = |revision: i64| u64::try_from(revision).unwrap_or_default();
        let used = header
            .era
            .terms
            .checked_add(revision(header.revision))?
            .max(there.terms.checked_add(revision(before.revision.0))?);
        let terms = used.checked_add(LOST_TERMS)?;
        let flips = header.era.flips.max(there.flips).checked_add(header.flips)?.checked_add(LOST_FLIPS)?;
        // A whole era must fit above.
        (terms.checked_add(LOST_TERMS)? < MOST_TERMS && flips < MOST_TERMS).then_some(Self { terms, flips })
    }

    /// The greatest token that can be of a time that was lost; 0 where none was. Terms count from 1, so
    /// all of this era are greater.
    pub(crate) fn floor(self) -> u64 {
        self.terms << LEASE_BITS
    }

    /// The first token of a term.
    pub(crate) fn first_token(self, term: Revision) -> u64 {
        // Every transaction raises the revision and grants fewer leases than there is room for, so
        // tokens of a later term are always greater.
        (self.terms + u64::try_from(term.0).unwrap_or_default()) << LEASE_BITS
    }
}

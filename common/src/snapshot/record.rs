//! What planning adds to a snapshot, for good: its category and the version of its table.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Fingerprint, Naming, Snapshot};
use crate::id::{ModelName, SnapshotId, Version};
use crate::interval::{Interval, IntervalSet, Timestamp, recorded};
use crate::task::{Relation, TableId};

/// What a change means for the rows that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Rows differ: the model and everything below it are rebuilt.
    Breaking,
    /// Rows below stay right: only the model itself is rebuilt.
    NonBreaking,
    /// The table stays; only new rows follow the change.
    ForwardOnly,
    /// An upstream change that makes rows differ.
    IndirectBreaking,
    /// An upstream change that leaves rows right.
    IndirectNonBreaking,
    /// Nothing that shapes rows.
    Metadata,
}

impl Category {
    /// The category's name in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Breaking => "breaking",
            Self::NonBreaking => "non_breaking",
            Self::ForwardOnly => "forward_only",
            Self::IndirectBreaking => "indirect_breaking",
            Self::IndirectNonBreaking => "indirect_non_breaking",
            Self::Metadata => "metadata",
        }
    }
}

/// A snapshot as an earlier plan left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Which snapshot.
    pub id: SnapshotId,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Its table's version.
    pub version: Version,
    /// Its category.
    pub category: Category,
    /// Whether its change kept the table whatever it meant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward_only: bool,
}

/// A planned snapshot: what the state keeps, under the snapshot's id.
///
/// It is written once; a snapshot keeps its first category.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// What its change meant when it was first planned; never [`Category::ForwardOnly`].
    pub category: Category,
    /// Whether the change keeps the table whatever it means.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward_only: bool,
    /// The version of the table that production reads.
    pub version: Version,
    /// The generation of the physical view, where it isn't the version: a view whose upstream has
    /// other tables now, or whose forward-only change keeps the version, is made anew beside the old
    /// one, so that it switches with the pointer and nothing that shows the old one sees a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<Version>,
    /// The version of the throwaway table of development environments.
    pub dev_version: Version,
    /// Snapshots of the model before it, latest last; at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<Previous>,
    /// How its tables are called.
    pub naming: Naming,
    /// When it was first planned.
    pub created: Timestamp,
    /// From when on rows follow the change, where it keeps the table: what other snapshots of the
    /// version filled from there on is computed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_from: Option<Timestamp>,
}

impl SnapshotRecord {
    /// The snapshot's id.
    pub fn id(&self) -> SnapshotId {
        self.snapshot.id
    }

    /// The model's name.
    pub fn name(&self) -> &ModelName {
        self.snapshot.name()
    }

    /// The category as people see it: forward-only changes are just that, unless rows stay the same.
    pub(crate) fn shown_category(&self) -> Category {
        if self.forward_only && self.category != Category::Metadata {
            Category::ForwardOnly
        } else {
            self.category
        }
    }

    /// The table that production reads, or the throwaway one.
    pub fn table(&self, dev: bool) -> TableId {
        TableId { model: self.name().clone(), version: self.generation(dev), dev, aside: None }
    }

    /// That table's place in the warehouse.
    pub fn relation(&self, dev: bool) -> Relation {
        self.naming.relation(self.generation(dev), dev)
    }

    /// What of a table's complete ranges counts for this snapshot: whole units, unless it takes pieces.
    /// Another snapshot of the version may have left some.
    pub fn counts(&self, done: &IntervalSet) -> IntervalSet {
        let unit = self.snapshot.interval_unit();
        let partials = self.snapshot.model.allow_partials;
        done.ranges().iter().filter_map(|range| recorded(*range, unit, partials)).collect()
    }

    /// What of a table's complete ranges, filled by other snapshots of the version, counts for this
    /// one.
    pub(crate) fn inherits(&self, done: &IntervalSet) -> IntervalSet {
        let Some(effective) = self.effective_from else { return done.clone() };
        let from = self.snapshot.interval_unit().floor(effective);
        Interval::new(Timestamp(i64::MIN), from).map_or_else(IntervalSet::new, |before| done.clip(before))
    }

    fn generation(&self, dev: bool) -> Version {
        if dev { self.dev_version } else { self.view.unwrap_or(self.version) }
    }
}

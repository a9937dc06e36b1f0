//! Snapshots: a model at one fingerprint, immutable and content-addressed, with all that a worker
//! needs to run it.
//!
//! A snapshot's identity covers its own definition and that of every upstream; its *data* part
//! alone decides whether rows would differ.

mod build;
mod fingerprint;
mod load;
mod naming;
mod reads;
mod record;
mod restamp;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use build::{Snapshots, build, build_with};
pub use fingerprint::Fingerprint;
pub(crate) use load::{Informed, context, outputs, query_change, same_statements, unrenderable};
pub use load::{load_query, load_text, model_name, own_name};
pub use naming::{Naming, aside_relation, merged_relation, view_relation};
pub use reads::{reads, reads_through_views};
pub use record::{Category, Previous, SnapshotRecord};
pub(crate) use restamp::restamp;

use crate::id::{Hash128, ModelName, SnapshotId};
use crate::interval::{Cadence, IntervalUnit};
use crate::project::model::{ColumnDef, Model};
use crate::project::render::RenderEnv;

/// A model at one fingerprint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its identity.
    pub id: SnapshotId,
    /// The model.
    pub model: Arc<Model>,
    /// What the model's macros may see.
    pub env: RenderEnv,
    /// Models of the project that it reads, sorted.
    pub parents: Vec<ModelName>,
    /// Tables that it reads and that are no models of the project, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<ModelName>,
    /// Output columns in order, where they are known; types may be empty where they aren't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<ColumnDef>>,
    /// Hashes of what it is made of.
    pub fingerprint: Fingerprint,
    /// Hash of the properties that shape rows, without any SQL text.
    pub settings: Hash128,
    /// Hash of the rendered SQL in canonical form: equal for texts that differ in layout only.
    pub canonical: Hash128,
}

impl Snapshot {
    /// The model's name.
    pub fn name(&self) -> &ModelName {
        &self.model.name
    }

    /// When the model ticks.
    ///
    /// The text was checked when the project was loaded; one that this build can't parse (written
    /// by another one) falls back to days, which only ever delays work.
    pub fn cadence(&self) -> Cadence {
        cadence(&self.model)
    }

    /// The granularity in which its intervals are counted.
    pub fn interval_unit(&self) -> IntervalUnit {
        unit(&self.model)
    }

    /// Whether its query names itself.
    pub fn depends_on_self(&self) -> bool {
        self.parents.binary_search(&self.model.name).is_ok()
    }

    /// Whether a batch depends on all earlier ones: its own rows, or a kind that can only be
    /// rebuilt whole.
    pub(crate) fn depends_on_past(&self) -> bool {
        self.depends_on_self() || self.model.kind.full_history_restatement_only()
    }

    /// Parents other than itself.
    pub fn upstream(&self) -> impl Iterator<Item = &ModelName> {
        self.parents.iter().filter(|parent| **parent != self.model.name)
    }
}

fn cadence(model: &Model) -> Cadence {
    Cadence::parse(&model.cron, model.cron_tz.as_deref()).unwrap_or_else(|_| Cadence::daily())
}

fn unit(model: &Model) -> IntervalUnit {
    model.interval_unit.unwrap_or_else(|| cadence(model).unit())
}

/// Snapshots by name.
pub type ByName = BTreeMap<ModelName, Arc<Snapshot>>;

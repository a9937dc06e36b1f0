//! What a snapshot's identity is made of.
//!
//! The split follows SQLMesh: *data* is what shapes rows, *metadata* all else that a file says;
//! both again for the upstream. Ours have 128 bits where SQLMesh's have 32.

use serde::{Deserialize, Serialize};

use super::unit;
use crate::id::{Hash128, Hasher, ModelName, SnapshotId, Version};
use crate::project::model::{Audit, Code, ColumnDef, Language, Model, ModelKind, ModelSource};
use crate::project::render::RenderEnv;
use crate::sql::Dialect;

/// The four hashes of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Of what shapes rows.
    pub data: Hash128,
    /// Of everything that the file says.
    pub metadata: Hash128,
    /// Of the versions of all upstream models.
    pub parent_data: Hash128,
    /// Of the metadata of all upstream models.
    pub parent_metadata: Hash128,
}

impl Fingerprint {
    /// The version that the snapshot's own and upstream data imply.
    pub(crate) fn to_version(self) -> Version {
        Version(
            Hasher::new("version/v1")
                .field("data", self.data.to_string())
                .field("parents", self.parent_data.to_string())
                .finish(),
        )
    }

    /// The snapshot's identity.
    pub(crate) fn to_id(self, name: &ModelName) -> SnapshotId {
        SnapshotId(
            Hasher::new("snapshot/v1")
                .field("name", name.as_str())
                .field("data", self.data.to_string())
                .field("metadata", self.metadata.to_string())
                .field("parent_data", self.parent_data.to_string())
                .field("parent_metadata", self.parent_metadata.to_string())
                .finish(),
        )
    }
}

/// Hash of the properties that shape rows, without SQL text.
pub(super) fn settings(model: &Model, env: &RenderEnv) -> Hash128 {
    let mut hash = Hasher::new("settings/v1");
    hash.add("kind", model.kind.name());
    if model.kind.is_audit() {
        // There are no rows to shape: everything that an audit says is metadata.
        return hash.finish();
    }
    kind_data(&mut hash, &model.kind);
    if model.kind.incremental().is_some() {
        hash.add("kind_dialect", model.dialect.name());
    }
    hash.add("lookback", model.lookback().to_string());
    partitions(&mut hash, model);
    add_json(&mut hash, "clustered_by", &model.storage.clustered_by);
    add_json(&mut hash, "table_format", &model.storage.table_format);
    add_json(&mut hash, "storage_format", &model.storage.storage_format);
    add_json(&mut hash, "physical_properties", &model.storage.physical_properties);
    add_json(&mut hash, "stamp", &model.stamp);
    add_json(&mut hash, "gateway", &model.gateway);
    hash.add("unit", unit(model).name());
    add_json(&mut hash, "optimize_query", &model.optimizes());
    if model.optimize_query == Some(true) {
        // To say what is so anyway is a change in SQLMesh.
        hash.add("optimize_query_given", "true");
    }
    add_json(&mut hash, "columns", &columns(model));
    add_json(&mut hash, "variables", &env.variables);
    add_json(&mut hash, "jinja_macros", &env.jinja_macros);
    add_json(&mut hash, "blueprint", &model.blueprint);
    for key in ["physical_version", "virtual_environment_mode"] {
        add_json(&mut hash, key, &model.other.get(key));
    }
    hash.finish()
}

/// The model's own columns as the engine calls them.
fn columns(model: &Model) -> Option<Vec<ColumnDef>> {
    let named = |column: &ColumnDef| ColumnDef {
        name: model.dialect.normalize(&column.name, false),
        data_type: data_type(&column.data_type),
    };
    model.columns.as_ref().map(|columns| columns.iter().map(named).collect())
}

/// A type without what its spelling leaves open: case, and a synonym or two.
fn data_type(text: &str) -> String {
    if text.contains(['"', '`', '\'']) {
        return text.to_owned();
    }
    match text.to_ascii_uppercase().as_str() {
        "INTEGER" => "INT".to_owned(),
        "BOOL" => "BOOLEAN".to_owned(),
        "NUMERIC" => "DECIMAL".to_owned(),
        other => other.to_owned(),
    }
}

/// A table of time ranges is partitioned by its time column, whether or not it says so.
fn partitions(hash: &mut Hasher, model: &Model) {
    let own: Vec<String> =
        model.storage.partitioned_by.iter().map(|text| column_name(text, model.dialect)).collect();
    match &model.kind {
        ModelKind::IncrementalByTimeRange(kind) if matches!(own.as_slice(), [only] if only.eq_ignore_ascii_case(&kind.time_column)) =>
        {
            add_json(hash, "partitioned_by", &[""; 0]);
        }
        _ => add_json(hash, "partitioned_by", &own),
    }
}

/// A column's name as the engine calls it, with quotes only where they mean something; other texts as
/// they are.
fn column_name(text: &str, dialect: Dialect) -> String {
    let inner = text.strip_prefix(['"', '`']).and_then(|text| text.strip_suffix(['"', '`']));
    let name = inner.unwrap_or(text);
    let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let folded = dialect.normalize(name, false);
    if plain && (inner.is_none() || dialect.normalize(name, true) == folded) {
        folded
    } else {
        text.to_owned()
    }
}

fn kind_data(hash: &mut Hasher, kind: &ModelKind) {
    match kind {
        ModelKind::IncrementalByTimeRange(kind) => {
            hash.add("time_column", &kind.time_column);
            hash.add("time_format", &kind.time_format);
            if !kind.partition_by_time_column {
                hash.add("partition_by_time_column", "false");
            }
        }
        ModelKind::IncrementalByUniqueKey(kind) => {
            add_json(hash, "unique_key", &kind.unique_key);
            add_json(hash, "when_matched", &kind.when_matched);
            add_json(hash, "merge_filter", &kind.merge_filter);
        }
        ModelKind::IncrementalUnmanaged { insert_overwrite, .. } => {
            add_json(hash, "insert_overwrite", insert_overwrite);
        }
        ModelKind::View { materialized } => add_json(hash, "materialized", materialized),
        ModelKind::ScdType2(kind) => {
            add_json(hash, "unique_key", &kind.unique_key);
            add_json(hash, "names", &(&kind.valid_from_name, &kind.valid_to_name));
            add_json(hash, "invalidate_hard_deletes", &kind.invalidate_hard_deletes);
            add_json(hash, "time_data_type", &kind.time_data_type);
            add_json(hash, "by", &kind.by);
            add_json(hash, "batch_size", &kind.common.batch_size);
        }
        ModelKind::Seed(kind) => add_json(hash, "csv_settings", &kind.csv_settings),
        ModelKind::Custom { materialization } => hash.add("materialization", materialization),
        ModelKind::IncrementalByPartition(_)
        | ModelKind::Full
        | ModelKind::Embedded
        | ModelKind::External
        | ModelKind::Managed
        | ModelKind::Audit => {}
    }
}

/// Hash of what shapes rows: settings and the SQL texts as written.
pub(super) fn data(model: &Model, settings: Hash128) -> Hash128 {
    let mut hash = Hasher::new("data/v1");
    hash.add("settings", settings.to_string());
    if model.kind.is_audit() {
        return hash.finish();
    }
    codes(&mut hash, "pre", &model.pre_statements);
    source(&mut hash, &model.source);
    codes(&mut hash, "post", &model.post_statements);
    hash.finish()
}

fn source(hash: &mut Hasher, source: &ModelSource) {
    match source {
        ModelSource::Query(code) => codes(hash, "query", std::slice::from_ref(code)),
        ModelSource::Seed(seed) => hash.add("csv", &seed.csv),
        ModelSource::External => hash.add("external", ""),
    }
}

fn codes(hash: &mut Hasher, name: &str, codes: &[Code]) {
    for code in codes {
        hash.add(name, code.text.trim());
        if code.language == Language::Jinja {
            hash.add("language", "jinja");
        }
    }
}

/// Hash of everything else that the file says.
pub(super) fn metadata(model: &Model, env: &RenderEnv) -> Hash128 {
    let mut hash = Hasher::new("metadata/v1");
    hash.add("dialect", model.dialect.name());
    hash.add("cron", &model.cron);
    add_json(&mut hash, "cron_tz", &model.cron_tz);
    add_json(&mut hash, "start", &model.start);
    add_json(&mut hash, "end", &model.end);
    add_json(&mut hash, "allow_partials", &model.allow_partials);
    let mut about = model.about.clone();
    about.tags.sort();
    add_json(&mut hash, "about", &about);
    match &model.kind {
        // Where a seed's file lies says nothing of its rows.
        ModelKind::Seed(seed) => add_json(&mut hash, "seed", &(seed.batch_size, &seed.csv_settings)),
        kind => add_json(&mut hash, "kind", kind),
    }
    add_json(&mut hash, "session_properties", &model.storage.session_properties);
    add_json(&mut hash, "virtual_properties", &model.storage.virtual_properties);
    add_json(&mut hash, "audits", &model.audits);
    add_json(&mut hash, "signals", &model.signals);
    add_json(&mut hash, "other", &model.other);
    if model.kind.is_audit() {
        add_json(&mut hash, "stamp", &model.stamp);
        add_json(&mut hash, "unit", &model.interval_unit);
    }
    for audit in model.audit_definitions.values() {
        add_audit(&mut hash, audit);
    }
    for signal in model.signal_definitions.values() {
        hash.add("signal", &signal.name);
        hash.add("signal_query", signal.query.text.trim());
    }
    codes(&mut hash, "pre", &model.pre_statements);
    source(&mut hash, &model.source);
    codes(&mut hash, "post", &model.post_statements);
    codes(&mut hash, "on_virtual_update", &model.on_virtual_update);
    if model.closed {
        hash.add("closed", "true");
    }
    add_json(&mut hash, "variables", &env.variables);
    hash.finish()
}

fn add_audit(hash: &mut Hasher, audit: &Audit) {
    hash.add("audit", &audit.name);
    add_json(hash, "audit_flags", &(audit.skip, audit.blocking, audit.standalone));
    add_json(hash, "audit_defaults", &audit.defaults);
    hash.add("audit_query", audit.query.text.trim());
}

/// Adds a value by its JSON text, which is canonical here: maps are ordered, floats are exact.
fn add_json(hash: &mut Hasher, name: &str, value: &impl Serialize) {
    match serde_json::to_vec(value) {
        Ok(text) => hash.add(name, text),
        // Only maps with keys that aren't text fail, and there are none; keep it total.
        Err(error) => hash.add(name, format!("unserialisable: {error}")),
    }
}

/// Hash of a query together with the columns that its stars and macros stand for.
pub(super) fn expanded(canonical: Hash128, columns: Option<&[ColumnDef]>) -> Hash128 {
    let mut hash = Hasher::new("expanded/v1").field("query", canonical.to_string());
    for column in columns.into_iter().flatten() {
        hash.add("column", &column.name);
    }
    hash.finish()
}

/// One hash of two.
pub(super) fn combine_two(domain: &str, one: Hash128, two: Hash128) -> Hash128 {
    Hasher::new(domain).field("one", one.to_string()).field("two", two.to_string()).finish()
}

/// The hashes of what the upstream models, in order of their names, are: data and metadata.
pub(super) fn of_parents(upstream: &[(&ModelName, Fingerprint)]) -> (Hash128, Hash128) {
    let versions = upstream.iter().map(|(name, parent)| (*name, parent.to_version().to_string()));
    let metadata = upstream
        .iter()
        .map(|(name, parent)| (*name, format!("{}{}", parent.metadata, parent.parent_metadata)));
    (combine("parents/v1", versions), combine("parent-metadata/v1", metadata))
}

/// Combines the upstream's hashes with their names.
fn combine<'a>(domain: &str, parents: impl Iterator<Item = (&'a ModelName, String)>) -> Hash128 {
    let mut hash = Hasher::new(domain);
    for (name, value) in parents {
        hash.add(name.as_str(), value);
    }
    hash.finish()
}

//! What a snapshot's batches read of each upstream table.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Snapshot, load};
use crate::id::ModelName;
use crate::project::model::ModelKind;
use crate::sql::{Query, ReadRange, TimeKind, UpstreamTime, read_ranges};

/// The read range of every upstream that has a table of ours, also of those behind EMBEDDED
/// models. Where nothing can be proven it is the whole of it.
pub fn reads(
    snapshot: &Snapshot,
    upstream: &dyn Fn(&ModelName) -> Option<Arc<Snapshot>>,
) -> BTreeMap<ModelName, ReadRange> {
    let mut found = BTreeMap::new();
    let query = symbolic_query(snapshot);
    for name in snapshot.upstream() {
        let Some(parent) = upstream(name) else { continue };
        match &parent.model.kind {
            ModelKind::Embedded => embedded(&parent, upstream, &mut found),
            ModelKind::External => {}
            _ => {
                found.insert(name.clone(), one(query.as_ref(), &parent));
            }
        }
    }
    found
}

/// An EMBEDDED model's own upstreams: its query is put in place, so bounds outside can't be seen.
fn embedded(
    model: &Snapshot,
    upstream: &dyn Fn(&ModelName) -> Option<Arc<Snapshot>>,
    found: &mut BTreeMap<ModelName, ReadRange>,
) {
    for name in model.upstream() {
        let Some(parent) = upstream(name) else { continue };
        if matches!(parent.model.kind, ModelKind::Embedded) {
            embedded(&parent, upstream, found);
        } else if !parent.model.kind.is_symbolic() {
            let why = format!("it is read through the embedded model `{}`", model.name());
            found.insert(name.clone(), ReadRange::Whole { why });
        }
    }
}

fn symbolic_query(snapshot: &Snapshot) -> Result<Query, String> {
    let model = &snapshot.model;
    if model.kind.incremental().is_none() {
        return Err(format!("a {} model is computed as a whole", model.kind.name()));
    }
    let code = model.query().ok_or_else(|| "the model has no query".to_owned())?;
    if !model.pre_statements.is_empty() && reads_in_statements(snapshot) {
        return Err("statements around the query read tables, too".to_owned());
    }
    let text = load::symbolic(model, &snapshot.env, code).map_err(|error| error.message)?;
    Query::parse(&text, model.dialect).map_err(|error| error.message)
}

/// Whether statements before or after the query could read upstream tables.
fn reads_in_statements(snapshot: &Snapshot) -> bool {
    let model = &snapshot.model;
    let texts =
        model.pre_statements.iter().chain(&model.post_statements).map(|code| code.text.to_lowercase());
    let names: Vec<&str> = snapshot.upstream().map(ModelName::table).collect();
    texts.into_iter().any(|text| names.iter().any(|name| text.contains(&name.to_lowercase())))
}

fn one(query: Result<&Query, &String>, parent: &Snapshot) -> ReadRange {
    let ModelKind::IncrementalByTimeRange(kind) = &parent.model.kind else {
        return ReadRange::Whole { why: format!("a {} table has no time ranges", parent.model.kind.name()) };
    };
    let query = match query {
        Ok(query) => query,
        Err(why) => return ReadRange::Whole { why: why.clone() },
    };
    let relation: Vec<String> = parent.name().as_str().split('.').map(str::to_owned).collect();
    let upstream = UpstreamTime {
        relation,
        column: kind.time_column.clone(),
        kind: time_kind(parent, &kind.time_column, &kind.time_format),
    };
    read_ranges(query, &upstream)
}

fn time_kind(parent: &Snapshot, column: &str, format: &str) -> TimeKind {
    let declared = parent.columns.iter().flatten().find(|known| known.name.eq_ignore_ascii_case(column));
    let data_type = declared.map(|known| known.data_type.to_lowercase()).unwrap_or_default();
    if data_type.starts_with("timestamp") || data_type.starts_with("datetime") {
        TimeKind::Timestamp
    } else if data_type.contains("int") || data_type.starts_with("num") || data_type.starts_with("dec") {
        TimeKind::Opaque
    } else if format.starts_with("%Y-%m-%d") || data_type == "date" {
        TimeKind::Day
    } else {
        TimeKind::Opaque
    }
}

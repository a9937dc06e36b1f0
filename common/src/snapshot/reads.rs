//! What a snapshot's batches read of each upstream table.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Snapshot, load};
use crate::id::ModelName;
use crate::project::model::ModelKind;
use crate::sql::{Query, ReadRange, TimeKind, UpstreamTime, read_ranges};

/// How deep EMBEDDED models and views may lie in each other.
const MAX_DEPTH: usize = 32;

type Lookup<'a> = &'a dyn Fn(&ModelName) -> Option<Arc<Snapshot>>;

/// Whether a model's query is put in place of its name.
type InPlace = fn(&ModelKind) -> bool;

/// The read range of every upstream that has a table of ours, also of those behind EMBEDDED
/// models, whose queries are put in place first. Where nothing can be proven it is the whole of it.
pub fn reads(snapshot: &Snapshot, upstream: Lookup<'_>) -> BTreeMap<ModelName, ReadRange> {
    reads_below(snapshot, upstream, |kind| matches!(kind, ModelKind::Embedded))
}

/// The same through views, which show what lies below them at any time: the read range of every table
/// that a batch reads in the end.
pub fn reads_through_views(snapshot: &Snapshot, upstream: Lookup<'_>) -> BTreeMap<ModelName, ReadRange> {
    reads_below(snapshot, upstream, |kind| {
        matches!(kind, ModelKind::Embedded | ModelKind::View { materialized: false })
    })
}

fn reads_below(
    snapshot: &Snapshot,
    upstream: Lookup<'_>,
    in_place: InPlace,
) -> BTreeMap<ModelName, ReadRange> {
    let mut tables = BTreeMap::new();
    tables_below(snapshot, upstream, in_place, 0, &mut tables);
    let query = symbolic_query(snapshot, upstream, in_place);
    tables.into_iter().map(|(name, parent)| (name, one(query.as_ref(), &parent))).collect()
}

/// The upstream models with tables of ours, through those whose query is put in place.
fn tables_below(
    snapshot: &Snapshot,
    upstream: Lookup<'_>,
    in_place: InPlace,
    depth: usize,
    found: &mut BTreeMap<ModelName, Arc<Snapshot>>,
) {
    for name in snapshot.upstream() {
        let Some(parent) = upstream(name) else { continue };
        match &parent.model.kind {
            kind if in_place(kind) && depth < MAX_DEPTH => {
                tables_below(&parent, upstream, in_place, depth + 1, found);
            }
            ModelKind::Embedded | ModelKind::External => {}
            _ => {
                found.insert(name.clone(), parent);
            }
        }
    }
}

/// The query with time variables in place of times, embedded queries in place of their names, and
/// every other name as the project has it.
fn symbolic_query(snapshot: &Snapshot, upstream: Lookup<'_>, in_place: InPlace) -> Result<Query, String> {
    let model = &snapshot.model;
    if model.kind.incremental().is_none() {
        return Err(format!("a {} model is computed as a whole", model.kind.name()));
    }
    if reads_in_statements(snapshot) {
        return Err("statements around the query read tables, too".to_owned());
    }
    let text = symbolic_text(snapshot, upstream, in_place, 0)?;
    Query::parse(&text, model.dialect).map_err(|error| error.message)
}

fn symbolic_text(
    snapshot: &Snapshot,
    upstream: Lookup<'_>,
    in_place: InPlace,
    depth: usize,
) -> Result<String, String> {
    let model = &snapshot.model;
    if depth > MAX_DEPTH {
        return Err("embedded models and views lie too deep in each other".to_owned());
    }
    let code = model.query().ok_or_else(|| "the model has no query".to_owned())?;
    let text = load::symbolic(model, &snapshot.env, code).map_err(|error| error.message)?;
    let query = Query::parse(&text, model.dialect).map_err(|error| error.message)?;
    let catalog = snapshot.env.default_catalog.as_deref();
    let mut trouble = None;
    let rewritten = query.rewrite_tables(&mut |reference| {
        let name = load::model_name(reference, model.dialect, catalog)?;
        let parent = upstream(&name).filter(|parent| in_place(&parent.model.kind));
        match parent.map(|parent| symbolic_text(&parent, upstream, in_place, depth + 1)) {
            None => Some(
                name.as_str().split('.').map(|part| model.dialect.quote(part)).collect::<Vec<_>>().join("."),
            ),
            Some(Ok(text)) => Some(format!("({text}\n)")),
            Some(Err(why)) => {
                trouble = Some(why);
                None
            }
        }
    });
    match trouble {
        Some(why) => Err(why),
        None => rewritten.map_err(|error| error.message),
    }
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

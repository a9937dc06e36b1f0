//! Reading a model's SQL: rendered as it is while the project loads, and parsed.

use super::Snapshot;
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{Hash128, Hasher, ModelName};
use crate::interval::Timestamp;
use crate::project::model::{Code, ColumnDef, Model, ModelSource};
use crate::project::render::{self, RenderContext, RenderEnv, RenderError, Stage, TimeVars};
use crate::sql::{Dialect, Query, QueryChange, Schemas, TableRef, compare_known, parse_statement};

/// A snapshot's query as it is while the project loads: times are 1970, the stage is `loading`.
///
/// # Errors
/// What can't be rendered or parsed. A snapshot in the state was understood once, so that only
/// happens across versions of this program.
pub fn load_query(snapshot: &Snapshot) -> Result<Query, Box<Diagnostic>> {
    query(&snapshot.model, &snapshot.env)
}

/// A snapshot, and the columns of the models that it may read.
pub(crate) type Informed<'s, 'a> = (&'s Snapshot, &'s dyn Fn(&ModelName) -> Option<&'a [ColumnDef]>);

/// How a snapshot's query changed, given the columns of what each of them reads.
///
/// # Errors
/// As [`load_query`].
pub(crate) fn query_change<'a, 'b>(
    (old, known_before): Informed<'_, 'a>,
    (new, known): Informed<'_, 'b>,
) -> Result<QueryChange, Box<Diagnostic>> {
    let ((was, known_times), (is, also)) = (timeless(old)?, timeless(new)?);
    let before = Known { default_catalog: old.env.default_catalog.as_deref(), known: known_before };
    let after = Known { default_catalog: new.env.default_catalog.as_deref(), known };
    // Without optimisation only spelling is overlooked, as in SQLMesh.
    let timeless = known_times && also;
    let before: &dyn Schemas = if timeless && old.model.optimizes() { &before } else { &() };
    let after: &dyn Schemas = if timeless && new.model.optimizes() { &after } else { &() };
    Ok(compare_known((&was, before), (&is, after)))
}

/// A query with its time variables left in place, so that nothing is simplified by what they are while a
/// project loads; or with those values (and `false`), where a macro must know them.
fn timeless(snapshot: &Snapshot) -> Result<(Query, bool), Box<Diagnostic>> {
    let model = &snapshot.model;
    let this = own_name(model);
    let context = context(model, &snapshot.env, TimeVars::Symbolic, Stage::Loading);
    let context = RenderContext { this_model: Some(&this), ..context };
    let text = model.query().and_then(|code| render::render(code, &context).ok());
    match text.and_then(|text| Query::parse(&text, model.dialect).ok()) {
        Some(query) => Ok((query, true)),
        None => Ok((load_query(snapshot)?, false)),
    }
}

/// The names of a snapshot's columns in order, and whether they are its own or up to the engine, where it
/// has no others.
pub(crate) fn outputs<'a>((snapshot, known): Informed<'_, 'a>) -> Option<Vec<(String, bool)>> {
    if let Some(columns) = &snapshot.columns {
        return Some(columns.iter().map(|column| (column.name.clone(), true)).collect());
    }
    let schemas = Known { default_catalog: snapshot.env.default_catalog.as_deref(), known };
    load_query(snapshot).ok()?.outputs(&schemas)
}

/// Whether two snapshots' statements are the same but for layout.
pub(crate) fn same_statements(old: &Snapshot, new: &Snapshot) -> bool {
    let hash = |snapshot: &Snapshot| {
        let mut hash = Hasher::new("canonical/v1");
        statements(&mut hash, &snapshot.model, &snapshot.env);
        hash.finish()
    };
    hash(old) == hash(new)
}

/// A snapshot's query as text, rendered as it is while the project loads; nothing for kinds without
/// one.
///
/// # Errors
/// What can't be rendered.
pub fn load_text(snapshot: &Snapshot) -> Result<Option<String>, Box<Diagnostic>> {
    let model = &snapshot.model;
    let Some(code) = model.query() else { return Ok(None) };
    let context = context(model, &snapshot.env, loading(model), Stage::Loading);
    render::render(code, &context).map(Some).map_err(|error| Box::new(unrenderable(model, error)))
}

/// The point of use of a model's texts.
pub(crate) fn context<'a>(
    model: &'a Model,
    env: &'a RenderEnv,
    time: TimeVars,
    stage: Stage,
) -> RenderContext<'a> {
    RenderContext {
        blueprint: &model.blueprint,
        model_kind_name: model.kind.name(),
        definitions: &model.pre_statements,
        ..RenderContext::new(env, model.dialect, time, stage)
    }
}

fn loading(model: &Model) -> TimeVars {
    let zero = Timestamp(0);
    if model.kind.only_execution_time() {
        TimeVars::ExecutionOnly { execution: zero }
    } else {
        TimeVars::Batch { start: zero, end: zero, execution: zero }
    }
}

pub(super) fn query(model: &Model, env: &RenderEnv) -> Result<Query, Box<Diagnostic>> {
    let Some(code) = model.query() else {
        return Err(Box::new(Diagnostic::error(
            "no-query",
            model.location.clone(),
            "the model has no query",
        )));
    };
    let this = own_name(model);
    let context =
        RenderContext { this_model: Some(&this), ..context(model, env, loading(model), Stage::Loading) };
    let text = render::render(code, &context).map_err(|error| Box::new(unrenderable(model, error)))?;
    Query::parse(&text, model.dialect).map_err(|error| {
        // A rendered text keeps its lines but where macros add or take some.
        let line = code.line + error.line.saturating_sub(1);
        let at = Location { path: model.location.path.clone(), line, column: error.column };
        let message = format!("the query of `{}` can't be parsed: {}", model.name, error.message);
        let hint = error
            .hint
            .unwrap_or_else(|| format!("check the SQL as {} reads it", dialect_name(model.dialect)));
        Box::new(Diagnostic::error("invalid-sql", at, message).hint(hint))
    })
}

/// A warning about a query that is only known by what it reads.
pub(super) fn doubt(model: &Model, query: &Query) -> Option<Diagnostic> {
    let (trouble, code) = (query.trouble()?, model.query()?);
    let line = code.line + trouble.line.saturating_sub(1);
    let at = Location { path: model.location.path.clone(), line, column: trouble.column };
    let message = format!(
        "the query of `{}` isn't understood in full ({}): it runs as it is written, every change of it is \
         breaking, and it reads all of its parents",
        model.name, trouble.message
    );
    Some(Diagnostic::warning("opaque-sql", at, message).hint("nothing to do, unless it is a mistake"))
}

/// A model's name as its own SQL would quote it: what `@this_model` is in its query.
pub fn own_name(model: &Model) -> String {
    let parts = model.name.as_str().split('.').map(|part| model.dialect.quote(part));
    parts.collect::<Vec<_>>().join(".")
}

fn dialect_name(dialect: Dialect) -> &'static str {
    if dialect == Dialect::Generic { "standard SQL" } else { dialect.name() }
}

pub(crate) fn unrenderable(model: &Model, error: RenderError) -> Diagnostic {
    let at = Location { path: model.location.path.clone(), line: error.line, column: error.column };
    let finding = Diagnostic::error(error.code, at, error.message);
    match error.hint {
        Some(hint) => finding.hint(hint),
        None => finding,
    }
}

/// The model that a reference names, in the project's terms.
pub fn model_name(
    reference: &TableRef,
    dialect: Dialect,
    default_catalog: Option<&str>,
) -> Option<ModelName> {
    let mut parts = reference.normalized(dialect);
    let foreign =
        |catalog: &str| !default_catalog.is_some_and(|default| default.eq_ignore_ascii_case(catalog));
    if parts.len() == 3 && !foreign(&parts[0]) {
        parts.remove(0);
    }
    parts.join(".").parse().ok()
}

/// A hash of the rendered SQL that is the same for texts that differ in layout only.
pub(super) fn canonical(model: &Model, env: &RenderEnv, query: &Query) -> Hash128 {
    let mut hash = Hasher::new("canonical/v1");
    hash.add("query", query.canonical());
    statements(&mut hash, model, env);
    hash.finish()
}

/// The same for models without a query.
pub(super) fn canonical_statements(model: &Model, env: &RenderEnv) -> Hash128 {
    let mut hash = Hasher::new("canonical/v1");
    if let ModelSource::Seed(seed) = &model.source {
        hash.add("csv", &seed.csv);
    }
    statements(&mut hash, model, env);
    hash.finish()
}

fn statements(hash: &mut Hasher, model: &Model, env: &RenderEnv) {
    for (name, codes) in [("pre", &model.pre_statements), ("post", &model.post_statements)] {
        for code in codes {
            let zero = Timestamp(0);
            let time = TimeVars::Batch { start: zero, end: zero, execution: zero };
            let this = "\"this_model\"";
            let context =
                RenderContext { this_model: Some(this), ..context(model, env, time, Stage::Loading) };
            let text = code.text.trim();
            let defines = text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("@def"));
            match render::render_statement(code, &context) {
                // One that does nothing while a project loads is there all the same.
                Ok(texts) if texts.is_empty() && !defines => hash.add(name, text),
                Ok(texts) => {
                    for text in texts {
                        hash.add(name, parse_statement(&text, model.dialect).canonical());
                    }
                }
                // What only renders when it runs is compared as it is written.
                Err(_) => hash.add(name, text),
            }
        }
    }
}

/// The query's output columns, where all are known.
pub(super) fn columns<'a>(
    query: &Query,
    default_catalog: Option<&str>,
    known: &dyn Fn(&ModelName) -> Option<&'a [ColumnDef]>,
) -> Option<Vec<ColumnDef>> {
    let schemas = Known { default_catalog, known };
    let columns = query.output_columns(&schemas)?;
    let define = |column: crate::sql::OutputColumn| ColumnDef {
        name: column.name,
        data_type: column.data_type.unwrap_or_default(),
    };
    Some(columns.into_iter().map(define).collect())
}

struct Known<'k, 'a> {
    default_catalog: Option<&'k str>,
    known: &'k dyn Fn(&ModelName) -> Option<&'a [ColumnDef]>,
}

impl Schemas for Known<'_, '_> {
    fn columns(&self, relation: &[String]) -> Option<&[ColumnDef]> {
        let own =
            |catalog: &str| self.default_catalog.is_some_and(|default| default.eq_ignore_ascii_case(catalog));
        let parts = if relation.len() == 3 && own(&relation[0]) { &relation[1..] } else { relation };
        (self.known)(&parts.join(".").parse().ok()?)
    }
}

/// A code's text for a model, rendered with time variables left in place, for proofs.
pub(super) fn symbolic(model: &Model, env: &RenderEnv, code: &Code) -> Result<String, RenderError> {
    let this = own_name(model);
    let context = context(model, env, TimeVars::Symbolic, Stage::Evaluating);
    render::render(code, &RenderContext { this_model: Some(&this), ..context })
}

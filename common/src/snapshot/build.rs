//! From a project to its snapshots: render, parse, find parents and columns, hash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::{ByName, Fingerprint, Snapshot, fingerprint, load};
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{Hash128, ModelName};
use crate::plan::topological;
use crate::project::model::{ColumnDef, Language, Model, ModelSource};
use crate::project::render::{RenderEnv, UNAVAILABLE_COLUMN, macro_use, relation_name};
use crate::project::{Project, Settings, seed, suggest};

/// A project's snapshots.
#[derive(Debug, Clone, Default)]
pub struct Snapshots {
    /// By name.
    pub by_name: ByName,
    /// Names, parents first.
    pub order: Vec<ModelName>,
}

/// What one model's own text tells.
struct Analysis {
    env: RenderEnv,
    parents: BTreeSet<ModelName>,
    canonical: Hash128,
    columns: Option<Vec<ColumnDef>>,
    /// Its macros ask for the columns of other models, or its query has a star.
    needs_schemas: bool,
    /// What isn't understood of its query, though it can run.
    doubt: Option<Diagnostic>,
    /// Hashes of the model's own.
    settings: Hash128,
    data: Hash128,
    metadata: Hash128,
}

/// Builds the snapshots of a project, with findings about its SQL. A model that can't be understood
/// is left out; there is a finding for it.
pub fn build(project: &Project) -> (Snapshots, Vec<Diagnostic>) {
    build_with(project, &ByName::new())
}

/// As [`build`], of a project some of whose models are `held` snapshots' models: those see the
/// variables and macros that they were made with, whatever the project says now.
pub fn build_with(project: &Project, held: &ByName) -> (Snapshots, Vec<Diagnostic>) {
    let names: BTreeSet<&ModelName> = project.models.iter().map(|model| &model.name).collect();
    let analysed: Vec<(&Model, Result<Analysis, Vec<Diagnostic>>)> =
        project.models.par_iter().map(|model| (model, analyse(project, held, model))).collect();
    let mut findings = Vec::new();
    let mut unknown = UnknownTables { names: &names, hints: BTreeMap::new() };
    let mut known: BTreeMap<&ModelName, (&Model, Analysis)> = BTreeMap::new();
    for (model, analysis) in analysed {
        match analysis {
            Ok(analysis) => {
                unknown.note(model, &analysis, &mut findings);
                findings.extend(analysis.doubt.clone());
                findings.extend(dialect_differs(&project.settings, model));
                known.insert(&model.name, (model, analysis));
            }
            Err(mistakes) => findings.extend(mistakes),
        }
    }
    let parents = known.iter().map(|(name, (_, a))| (*name, a.parents.iter().collect())).collect();
    let order = match topological(&parents) {
        Ok(order) => order,
        Err(cycle) => {
            findings.push(cycle_finding(&cycle, &known));
            return (Snapshots::default(), findings);
        }
    };
    let mut snapshots = Snapshots { by_name: BTreeMap::new(), order: Vec::with_capacity(order.len()) };
    for name in order {
        let Some((model, mut analysis)) = known.remove(&name) else { continue };
        let from_above = analysis.needs_schemas;
        if from_above && let Err(mistakes) = resolve_columns(model, &mut analysis, &snapshots.by_name) {
            findings.extend(mistakes);
            continue;
        }
        if analysis.parents.contains(&name) {
            // Its table is made before the warehouse could tell the query's types.
            let typed = typed(model, &analysis.env, &snapshots.by_name, &mut BTreeMap::new());
            analysis.columns = typed.or(analysis.columns);
        }
        let snapshot = finish(model, analysis, from_above, &names, &snapshots.by_name);
        snapshots.by_name.insert(name.clone(), Arc::new(snapshot));
        snapshots.order.push(name);
    }
    (snapshots, findings)
}

fn analyse(project: &Project, held: &ByName, model: &Model) -> Result<Analysis, Vec<Diagnostic>> {
    let (env, asks) = match held.get(&model.name) {
        Some(snapshot) => {
            let env = RenderEnv { schemas: BTreeMap::new(), ..snapshot.env.clone() };
            let asks = asked(model, &env);
            (env, asks)
        }
        None => environment(project, model),
    };
    let mut parents: BTreeSet<ModelName> = model.depends_on.iter().cloned().collect();
    // Their columns must be known first; other names are those of common table expressions.
    let is_model = |name: &&ModelName| project.models.binary_search_by(|model| model.name.cmp(name)).is_ok();
    parents.extend(asks.iter().filter(is_model).cloned());
    let settings = fingerprint::settings(model, &env);
    let mut analysis = Analysis {
        settings,
        data: fingerprint::data(model, settings),
        metadata: fingerprint::metadata(model, &env),
        env,
        parents,
        canonical: Hash128::default(),
        columns: None,
        needs_schemas: false,
        doubt: None,
    };
    if !asks.is_empty() {
        // Rendered once the columns of the models that it asks for are known.
        analysis.needs_schemas = true;
        return Ok(analysis);
    }
    understand(model, &mut analysis)?;
    Ok(analysis)
}

/// Renders and parses a model; fills in what that tells.
fn understand(model: &Model, analysis: &mut Analysis) -> Result<(), Vec<Diagnostic>> {
    match &model.source {
        ModelSource::Query(_) => {}
        ModelSource::Seed(_) => {
            analysis.columns = Some(seed::columns(model));
            analysis.canonical = load::canonical_statements(model, &analysis.env);
            return Ok(());
        }
        ModelSource::External => {
            analysis.columns.clone_from(&model.columns);
            return Ok(());
        }
    }
    let query = load::query(model, &analysis.env).map_err(|finding| vec![*finding])?;
    analysis.doubt = load::doubt(model, &query);
    let catalog = analysis.env.default_catalog.as_deref();
    for reference in query.references() {
        if let Some(name) = load::model_name(&reference, model.dialect, catalog) {
            analysis.parents.insert(name);
        }
    }
    if model.kind.is_audit() {
        // Its columns are nobody's business, and another query looks at the same rows.
        analysis.columns = Some(Vec::new());
        return Ok(());
    }
    analysis.canonical = load::canonical(model, &analysis.env, &query);
    analysis.columns = match &model.columns {
        Some(columns) => Some(columns.clone()),
        None if query.text().contains(UNAVAILABLE_COLUMN) => None,
        None => load::columns(&query, catalog, &|_| None),
    }
    .map(|columns| model.kind.table_columns(columns));
    analysis.needs_schemas = analysis.columns.is_none();
    Ok(())
}

/// Columns that need those of parents, and models whose macros ask for them.
fn resolve_columns(model: &Model, analysis: &mut Analysis, known: &ByName) -> Result<(), Vec<Diagnostic>> {
    let asks = asked(model, &analysis.env);
    if !asks.is_empty() {
        for name in asks {
            if let Some(columns) = known.get(&name).and_then(|snapshot| snapshot.columns.clone()) {
                analysis.env.schemas.insert(name, columns);
            }
        }
        understand(model, analysis)?;
    }
    if analysis.columns.is_none() && model.query().is_some() {
        let query = load::query(model, &analysis.env).map_err(|finding| vec![*finding])?;
        let catalog = analysis.env.default_catalog.as_deref();
        let lookup = |name: &ModelName| known.get(name).and_then(|snapshot| snapshot.columns.as_deref());
        if !query.text().contains(UNAVAILABLE_COLUMN) {
            analysis.columns =
                load::columns(&query, catalog, &lookup).map(|columns| model.kind.table_columns(columns));
        }
    }
    Ok(())
}

/// A model's columns with the types that come from what it reads, where all names are known. `seen`
/// holds what was found on the way.
fn typed(
    model: &Model,
    env: &RenderEnv,
    known: &ByName,
    seen: &mut BTreeMap<ModelName, Option<Vec<ColumnDef>>>,
) -> Option<Vec<ColumnDef>> {
    if let Some(columns) = &model.columns {
        return Some(model.kind.table_columns(columns.clone()));
    }
    let query = load::query(model, env).ok()?;
    let catalog = env.default_catalog.as_deref();
    let reads = query.references().into_iter().filter_map(|r| load::model_name(&r, model.dialect, catalog));
    for name in reads.filter(|name| *name != model.name).collect::<BTreeSet<_>>() {
        let Some(snapshot) = known.get(&name).filter(|_| !seen.contains_key(&name)) else { continue };
        let told = match snapshot.model.query() {
            Some(_) => typed(&snapshot.model, &snapshot.env, known, seen),
            None => None,
        };
        seen.insert(name, told.or_else(|| snapshot.columns.clone()));
    }
    let lookup = |name: &ModelName| seen.get(name)?.as_deref();
    load::columns(&query, catalog, &lookup).map(|columns| model.kind.table_columns(columns))
}

/// What the model's macros may see: only variables that it names, so that others don't change it.
fn environment(project: &Project, model: &Model) -> (RenderEnv, Vec<ModelName>) {
    let settings = &project.settings;
    let gateway = model.gateway.as_deref();
    let mut env = RenderEnv {
        gateway: gateway.unwrap_or(&settings.default_gateway).to_owned(),
        default_catalog: settings.default_catalog(gateway),
        ..RenderEnv::default()
    };
    let mut used = BTreeSet::new();
    let mut jinja = false;
    for code in codes(model) {
        if code.language == Language::Jinja || code.text.contains('@') {
            used.extend(macro_use(code).variables);
            jinja |= code.language == Language::Jinja;
        }
    }
    for text in properties(model).filter(|text| text.contains('@')) {
        let code = crate::project::model::Code { text: text.to_owned(), language: Language::Sql, line: 1 };
        used.extend(macro_use(&code).variables);
    }
    if !used.is_empty() {
        let all = settings.variables_of(gateway);
        env.variables = all.into_iter().filter(|(name, _)| used.contains(name)).collect();
    }
    if jinja {
        env.jinja_macros.clone_from(&project.jinja_macros);
        // A macro of the project may name any variable.
        if !project.jinja_macros.is_empty() {
            env.variables = settings.variables_of(gateway);
        }
    }
    let asks = asked(model, &env);
    (env, asks)
}

/// Models whose columns the macros ask for.
fn asked(model: &Model, env: &RenderEnv) -> Vec<ModelName> {
    let texts = codes(model).filter(|code| code.text.contains('@'));
    let needed = texts.flat_map(|code| macro_use(code).schemas_needed);
    let catalog = env.default_catalog.as_deref();
    needed.filter_map(|text| relation_name(&text, model.dialect, catalog)).collect()
}

fn codes(model: &Model) -> impl Iterator<Item = &crate::project::model::Code> {
    model
        .pre_statements
        .iter()
        .chain(model.query())
        .chain(&model.post_statements)
        .chain(&model.on_virtual_update)
        .chain(model.audit_definitions.values().map(|audit| &audit.query))
        .chain(model.signal_definitions.values().map(|signal| &signal.query))
}

fn properties(model: &Model) -> impl Iterator<Item = &str> {
    let storage = &model.storage;
    storage
        .physical_properties
        .values()
        .chain(storage.virtual_properties.values())
        .chain(storage.session_properties.values())
        .chain(model.audits.iter().chain(&model.signals).flat_map(|call| call.args.values()))
        .map(String::as_str)
}

/// `from_above`: what it selects depends on the columns of what it reads.
fn finish(
    model: &Model,
    mut analysis: Analysis,
    from_above: bool,
    names: &BTreeSet<&ModelName>,
    known: &ByName,
) -> Snapshot {
    let mut data = analysis.data;
    if from_above {
        // Other columns above are another query here, though its text is the same.
        analysis.canonical = fingerprint::expanded(analysis.canonical, analysis.columns.as_deref());
        data = fingerprint::combine_two("expanded-data/v1", data, analysis.canonical);
    }
    let (parents, foreign): (Vec<ModelName>, Vec<ModelName>) =
        analysis.parents.into_iter().partition(|parent| names.contains(parent));
    let upstream: Vec<(&ModelName, Fingerprint)> =
        parents.iter().filter_map(|parent| Some((parent, known.get(parent)?.fingerprint))).collect();
    let (parent_data, parent_metadata) = fingerprint::of_parents(&upstream);
    let fingerprint = Fingerprint { data, metadata: analysis.metadata, parent_data, parent_metadata };
    Snapshot {
        id: fingerprint.to_id(&model.name),
        model: Arc::new(model.clone()),
        env: analysis.env,
        parents,
        foreign,
        columns: analysis.columns,
        fingerprint,
        settings: analysis.settings,
        canonical: analysis.canonical,
    }
}

/// How many unknown tables are compared with all names for a hint: each costs a look at every model.
const HINTED: usize = 20;

/// Tables that are neither models nor declared external: taken as external, as SQLMesh does, but a
/// misspelt name looks just so.
struct UnknownTables<'a> {
    names: &'a BTreeSet<&'a ModelName>,
    hints: BTreeMap<ModelName, String>,
}

impl UnknownTables<'_> {
    fn note(&mut self, model: &Model, analysis: &Analysis, findings: &mut Vec<Diagnostic>) {
        for parent in analysis.parents.iter().filter(|parent| !self.names.contains(parent)) {
            let message = format!("`{parent}` is not a model: it is taken as an external table");
            let finding = Diagnostic::warning("unknown-table", model.location.clone(), message);
            findings.push(finding.hint(self.hint(parent)));
        }
    }

    fn hint(&mut self, unknown: &ModelName) -> String {
        let plain = "declare it in external_models.yaml, so that its columns are known".to_owned();
        if let Some(hint) = self.hints.get(unknown) {
            return hint.clone();
        }
        if self.hints.len() >= HINTED {
            return plain;
        }
        let all: Vec<&str> = self.names.iter().map(|name| name.as_str()).collect();
        let hint = match suggest::nearest(unknown.as_str(), &all) {
            Some(near) => format!("did you mean `{near}`? otherwise declare it in external_models.yaml"),
            None => plain,
        };
        self.hints.insert(unknown.clone(), hint.clone());
        hint
    }
}

fn cycle_finding(cycle: &[ModelName], known: &BTreeMap<&ModelName, (&Model, Analysis)>) -> Diagnostic {
    let names: Vec<String> = cycle.iter().map(|name| format!("`{name}`")).collect();
    let first = cycle.first().and_then(|name| known.get(name));
    let at = first.map_or_else(|| Location::file("models"), |(model, _)| model.location.clone());
    Diagnostic::error("cycle", at, format!("models read each other in a circle: {}", names.join(", ")))
        .hint("remove one of the references")
}

/// A model runs as it is written, so it should be written in its gateway's dialect: workers refuse
/// it otherwise. It can be planned, as on a gateway that is only there for development.
fn dialect_differs(settings: &Settings, model: &Model) -> Option<Diagnostic> {
    if !matches!(model.source, ModelSource::Query(_)) {
        return None;
    }
    let gateway = settings.gateway_of(model.gateway.as_deref())?;
    let speaks = gateway.connection.dialect()?;
    let generic = crate::sql::Dialect::Generic;
    let same = model.dialect == speaks || (model.dialect.is_tsql() && speaks.is_tsql());
    if same || model.dialect == generic || speaks == generic {
        return None;
    }
    let message = format!(
        "`{}` is written in {}, but its gateway `{}` speaks {speaks}: no worker will run it there",
        model.name, model.dialect, gateway.name
    );
    let hint = format!(
        "rewrite the model in {speaks}, set `dialect {speaks}`, or give it a gateway that speaks {}; \
         queries are never translated",
        model.dialect
    );
    Some(Diagnostic::warning("dialect-mismatch", model.location.clone(), message).hint(hint))
}

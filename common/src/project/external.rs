//! External models: tables of somebody else, listed in YAML.

use serde_yaml_ng::{Mapping, Value as Yaml};

use crate::diagnostic::{Diagnostic, Location};
use crate::sql::Dialect;

use super::SourceFile;
use super::context::Context;
use super::ddl::source::Source;
use super::ddl::token::tokenize;
use super::ddl::value::Value;
use super::fields::{Fields, model_name};
use super::model::{ColumnDef, Model, ModelKind};
use super::model_file::link_audits;
use super::plain::plain;
use super::settings::yaml::{scalar, to_sql, to_value};
use super::settings::{invalid_yaml, render};
use super::suggest::did_you_mean;

const KNOWN: [&str; 15] = [
    "name",
    "columns",
    "description",
    "column_descriptions",
    "gateway",
    "dialect",
    "audits",
    "start",
    "cron",
    "cron_tz",
    "interval_unit",
    "owner",
    "tags",
    "grains",
    "default_catalog",
];

/// The files that list external models, in the order in which they count.
pub(crate) fn files<'a>(files: &[&'a SourceFile]) -> Vec<&'a SourceFile> {
    let root = ["external_models.yaml", "schema.yaml"];
    let first = root.iter().find_map(|name| files.iter().find(|file| &*file.path == *name));
    let is_listed = |file: &&&SourceFile| {
        file.path.strip_prefix("external_models/").is_some_and(|name| name.ends_with(".yaml"))
    };
    first.into_iter().chain(files.iter().filter(is_listed)).copied().collect()
}

/// The external models of a file that belong to the default gateway or to none.
pub(crate) fn load(
    context: &Context<'_>,
    file: &SourceFile,
    findings: &mut Vec<Diagnostic>,
) -> Vec<(Model, Location)> {
    let yaml = render(&file.path, &file.text, &std::collections::BTreeMap::new()).and_then(|text| {
        serde_yaml_ng::from_str::<Yaml>(&text).map_err(|error| invalid_yaml(&file.path, &error))
    });
    let entries = match yaml {
        Ok(Yaml::Sequence(entries)) => entries,
        Ok(Yaml::Null) => return Vec::new(),
        Ok(_) => {
            let at = Location::file(file.path.clone());
            findings.push(
                Diagnostic::error("invalid-external-model", at, "the file isn't a list of models")
                    .hint("write `- name: schema.table` entries"),
            );
            return Vec::new();
        }
        Err(finding) => {
            findings.push(finding);
            return Vec::new();
        }
    };
    let places = Places::of(file);
    let mut models: Vec<(Model, Location)> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let reader = Entry { context, at: places.entry(index), findings };
        models.extend(reader.read(entry.as_mapping()));
    }
    models
}

/// Where a list's entries stand: lines that start with `-` at the list's own indentation.
struct Places<'a> {
    file: &'a SourceFile,
    lines: Vec<(u32, u32)>,
}

impl<'a> Places<'a> {
    fn of(file: &'a SourceFile) -> Self {
        let mut lines = Vec::new();
        let mut indent = None;
        for (number, line) in file.text.lines().enumerate() {
            let at = line.len() - line.trim_start().len();
            if line.trim_start().starts_with('-') && *indent.get_or_insert(at) == at {
                lines.push((number as u32 + 1, at as u32 + 1));
            }
        }
        Self { file, lines }
    }

    fn entry(&self, index: usize) -> Location {
        let (line, column) = self.lines.get(index).copied().unwrap_or((1, 1));
        Location { path: self.file.path.clone(), line, column }
    }
}

struct Entry<'a, 'f> {
    context: &'a Context<'a>,
    at: Location,
    findings: &'f mut Vec<Diagnostic>,
}

impl Entry<'_, '_> {
    fn error(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.findings.push(Diagnostic::error("invalid-external-model", self.at.clone(), message).hint(hint));
    }

    fn read(mut self, entry: Option<&Mapping>) -> Option<(Model, Location)> {
        let Some(entry) = entry else {
            self.error("the entry isn't a mapping", "write `- name: schema.table`");
            return None;
        };
        let text = |key: &str| entry.get(key).and_then(scalar);
        for key in entry.keys().filter_map(scalar).filter(|key| !KNOWN.contains(&key.as_str())) {
            self.error(format!("an external model has no property `{key}`"), did_you_mean(&key, &KNOWN));
        }
        let gateway = text("gateway").map(|name| name.to_lowercase());
        let chosen = self.context.settings.default_gateway.as_str();
        if gateway.as_deref().is_some_and(|gateway| gateway != chosen) {
            return None;
        }
        let dialect = match text("dialect").map(|text| text.parse()) {
            None => self.context.settings.model_defaults.dialect,
            Some(Ok(dialect)) => dialect,
            Some(Err(_)) => {
                self.error("the dialect is unknown", "use duckdb, postgres, bigquery, …");
                return None;
            }
        };
        let Some(name) = text("name") else {
            self.error("the external model has no name", "add `name: schema.table`");
            return None;
        };
        let mut model = self.model(&name, dialect, gateway)?;
        self.fill(entry, &mut model);
        link_audits(
            &mut model,
            &std::collections::BTreeMap::new(),
            self.context.audits,
            self.findings,
            |_| self.at.clone(),
        );
        Some((model, self.at))
    }

    fn model(&mut self, name: &str, dialect: Dialect, gateway: Option<String>) -> Option<Model> {
        let defaults = &self.context.settings.model_defaults;
        let catalog = self.context.settings.default_catalog(None);
        let source = Source::new(self.at.path.clone(), name.into());
        let tokens = tokenize(name, dialect).unwrap_or_default().tokens;
        let value = Value { source: &source, tokens: &tokens, fallback: 0 };
        let name = match model_name(&value, dialect, catalog.as_deref()) {
            Ok(name) => name,
            Err(why) => {
                self.error(format!("`{name}` is not a model's name: {why}"), "write `schema.table`");
                return None;
            }
        };
        let at = Location::file(self.at.path.clone());
        Some(Model { gateway, ..plain(defaults, name, ModelKind::External, dialect, at) })
    }

    fn fill(&mut self, entry: &Mapping, model: &mut Model) {
        let text = |key: &str| entry.get(key).and_then(scalar);
        let texts = |key: &str| match entry.get(key) {
            Some(Yaml::Sequence(items)) => items.iter().filter_map(scalar).collect(),
            Some(value) => scalar(value).into_iter().collect(),
            None => Vec::new(),
        };
        let pairs = |key: &str| -> Vec<(String, String)> {
            let map = entry.get(key).and_then(Yaml::as_mapping);
            let pair = |(key, value): (&Yaml, &Yaml)| Some((scalar(key)?, scalar(value)?));
            map.into_iter().flatten().filter_map(pair).collect()
        };
        let dialect = model.dialect;
        if entry.get("columns").is_some_and(|columns| !columns.is_null()) {
            let column = |(name, data_type): (String, String)| {
                let name = unquoted(&name)
                    .map_or_else(|| dialect.normalize(&name, false), |name| dialect.normalize(name, true));
                ColumnDef { name, data_type }
            };
            model.columns = Some(pairs("columns").into_iter().map(column).collect());
        }
        model.about.description = text("description");
        model.about.column_descriptions = pairs("column_descriptions")
            .into_iter()
            .map(|(name, text)| (dialect.normalize(&name, false), text))
            .collect();
        model.about.tags = texts("tags");
        model.about.grains = texts("grains");
        model.about.owner = text("owner").or(model.about.owner.take());
        model.start = text("start").or(model.start.take());
        model.cron = text("cron").unwrap_or_else(|| std::mem::take(&mut model.cron));
        model.cron_tz = text("cron_tz").or(model.cron_tz.take());
        model.interval_unit =
            text("interval_unit").and_then(|unit| unit.parse().ok()).or(model.interval_unit);
        self.audits(entry.get("audits"), model);
    }

    /// Audits come as calls in text or as mappings with a `name`.
    fn audits(&mut self, audits: Option<&Yaml>, model: &mut Model) {
        model.audits = self.context.default_audits.clone();
        let Some(Yaml::Sequence(audits)) = audits else { return };
        for audit in audits {
            let written = match audit {
                Yaml::Mapping(map) => {
                    let arguments = map.iter().filter_map(|(key, value)| {
                        let key = scalar(key).filter(|key| key != "name")?;
                        Some(format!("{key} := {}", to_sql_expression(value)))
                    });
                    let name = map.get("name").and_then(scalar).unwrap_or_default();
                    format!("{name}({})", arguments.collect::<Vec<_>>().join(", "))
                }
                audit => scalar(audit).unwrap_or_default(),
            };
            let source = Source::new(self.at.path.clone(), written.as_str().into());
            let tokens = tokenize(&written, model.dialect).unwrap_or_default().tokens;
            let mut findings = Vec::new();
            let mut fields = Fields { dialect: model.dialect, findings: &mut findings };
            model.audits.extend(fields.calls(&Value { source: &source, tokens: &tokens, fallback: 0 }));
            let at = self.at.clone();
            self.findings
                .extend(findings.into_iter().map(|finding| Diagnostic { at: at.clone(), ..finding }));
        }
    }
}

/// Arguments in YAML are SQL: texts are expressions, not strings.
fn to_sql_expression(value: &Yaml) -> String {
    match value {
        Yaml::String(text) => text.clone(),
        value => to_sql(&to_value(value)),
    }
}

fn unquoted(name: &str) -> Option<&str> {
    name.strip_prefix('"')?.strip_suffix('"')
}

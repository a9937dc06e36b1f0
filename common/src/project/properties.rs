//! From a MODEL block's properties to a model.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Location};
use crate::id::ModelName;
use crate::sql::Dialect;

use super::context::{Context, GatewayInfo};
use super::cron::check_cron;
use super::ddl::block::Property;
use super::ddl::source::Source;
use super::ddl::token::{Token, TokenKind, tokenize};
use super::ddl::value::Value;
use super::fields::{Fields, model_name, shorten};
use super::kind;
use super::model::{About, Model, ModelKind, Storage};
use super::plain::plain;
use super::settings::ModelDefaults;
use super::suggest::did_you_mean;
use super::timeout::{check_timeout, is_batch_timeout};

/// Properties of MODEL that SQLMesh knows.
const KNOWN: [&str; 41] = [
    "name",
    "kind",
    "dialect",
    "cron",
    "cron_tz",
    "interval_unit",
    "start",
    "end",
    "allow_partials",
    "owner",
    "description",
    "tags",
    "stamp",
    "project",
    "grain",
    "grains",
    "references",
    "columns",
    "column_descriptions",
    "audits",
    "signals",
    "depends_on",
    "partitioned_by",
    "clustered_by",
    "table_format",
    "storage_format",
    "physical_properties",
    "table_properties",
    "virtual_properties",
    "session_properties",
    "gateway",
    "physical_version",
    "optimize_query",
    "enabled",
    "formatting",
    "ignored_rules",
    "grants",
    "grants_target_layer",
    "virtual_environment_mode",
    "blueprints",
    "retention",
];

/// Properties that are kept without anything acting on them.
const WITHOUT_EFFECT: [&str; 14] = [
    "partitioned_by",
    "clustered_by",
    "table_format",
    "storage_format",
    "physical_properties",
    "table_properties",
    "virtual_properties",
    "session_properties",
    "ignored_rules",
    "formatting",
    "grants",
    "grants_target_layer",
    "virtual_environment_mode",
    "physical_version",
];

/// What a model's block is read with.
pub(crate) struct BlockReader<'a, 'f> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) dialect: Dialect,
    pub(crate) gateway: &'a GatewayInfo,
    /// Where findings about what is missing point to.
    pub(crate) block: Location,
    pub(crate) findings: &'f mut Vec<Diagnostic>,
}

/// A model whose statements are still to be filled in, and where its name stands.
pub(crate) struct Head {
    pub(crate) model: Model,
    pub(crate) name_at: Location,
}

impl BlockReader<'_, '_> {
    /// The model that properties describe; `None` if it is disabled or can't be one.
    pub(crate) fn read(mut self, properties: &[Property<'_>]) -> Option<Head> {
        let get = |key: &str| properties.iter().rev().find(|property| property.is(key));
        let defaults = &self.context.settings.model_defaults;
        if let Some(property) = get("enabled") {
            if !self.fields().flag(property).unwrap_or(true) {
                return None;
            }
        } else if defaults.enabled == Some(false) {
            return None;
        }
        let (name, name_at) = self.name(get("name"))?;
        let kind = self.kind(get("kind"));
        let mut model =
            self.with_defaults(name, kind.clone().unwrap_or(ModelKind::View { materialized: false }));
        let mut own_audits = Vec::new();
        for property in properties {
            match property.key.to_ascii_lowercase().as_str() {
                "audits" => own_audits = self.fields().calls(&property.value),
                "signals" => model.signals = self.fields().calls(&property.value),
                key if !self.schedule(key, property, &mut model)
                    && !self.about(key, property, &mut model.about)
                    && !self.storage(key, property, &mut model.storage) =>
                {
                    self.rest(key, property, &mut model);
                }
                _ => {}
            }
            self.warn(property, &model);
        }
        model.audits.extend(own_audits);
        self.check(&mut model, properties);
        kind.map(|_| Head { model, name_at })
    }

    /// The node that a standalone audit's properties describe. The project's defaults are for models.
    pub(crate) fn read_audit(mut self, properties: &[Property<'_>]) -> Option<Head> {
        let (name, name_at) = self.name(properties.iter().rev().find(|property| property.is("name")))?;
        let at = Location::file(self.block.path.clone());
        let mut model = plain(&ModelDefaults::default(), name, ModelKind::Audit, self.dialect, at);
        let catalog = self.gateway.default_catalog.as_deref();
        for property in properties {
            match property.key.to_ascii_lowercase().as_str() {
                "allow_partials" => {}
                "depends_on" => model.depends_on = self.fields().names(property, catalog),
                "stamp" => model.stamp = self.fields().text(property),
                key if !self.schedule(key, property, &mut model) => {
                    self.about(key, property, &mut model.about);
                }
                _ => {}
            }
        }
        self.check(&mut model, properties);
        Some(Head { model, name_at })
    }

    fn fields(&mut self) -> Fields<'_> {
        Fields { dialect: self.dialect, findings: self.findings }
    }

    fn error(&mut self, code: &str, at: Location, message: impl Into<String>, hint: impl Into<String>) {
        self.findings.push(Diagnostic::error(code, at, message).hint(hint));
    }

    fn name(&mut self, property: Option<&Property<'_>>) -> Option<(ModelName, Location)> {
        let catalog = self.gateway.default_catalog.as_deref();
        let Some(property) = property else {
            let at = self.block.clone();
            if self.context.settings.infer_names {
                return name_of_path(&at.path, self.dialect).map(|name| (name, at));
            }
            let hint = "add `name schema.table`, or set `model_naming.infer_names` in the config";
            self.error("missing-name", at, "the MODEL block has no name", hint);
            return None;
        };
        let at = property.value.location();
        let written = property.value.text();
        let is_string = |token: &Token| token.kind == TokenKind::String;
        let quoted = !property.value.source.is_expanded() && property.value.tokens.iter().any(is_string);
        let name = model_name(&property.value, self.dialect, catalog);
        match name {
            Ok(name) if !quoted => Some((name, at)),
            Ok(_) => {
                let hint = format!("write `name {}`", written.trim_matches('\''));
                self.error("invalid-name", at, format!("the name {} is a string", shorten(written)), hint);
                None
            }
            Err(why) => {
                let message = format!("`{}` is not a model's name: {why}", shorten(written));
                self.error("invalid-name", at, message, "write `schema.table` or `catalog.schema.table`");
                None
            }
        }
    }

    fn kind(&mut self, property: Option<&Property<'_>>) -> Option<ModelKind> {
        let settings = self.context.settings;
        let defaults = &settings.model_defaults;
        let format = settings.time_column_format.as_str();
        if let Some(property) = property {
            return kind::read(&property.value, defaults, format, &mut self.fields());
        }
        let Some(text) = &defaults.kind else { return Some(ModelKind::View { materialized: false }) };
        let source = Source::new(self.block.path.clone(), text.as_str().into());
        let tokens = tokenize(text, self.dialect).unwrap_or_default().tokens;
        let value = Value { source: &source, tokens: &tokens, fallback: 0 };
        let mut findings = Vec::new();
        let mut fields = Fields { dialect: self.dialect, findings: &mut findings };
        let kind = kind::read(&value, defaults, format, &mut fields);
        let at = self.block.clone();
        self.findings.extend(findings.into_iter().map(|finding| Diagnostic { at: at.clone(), ..finding }));
        kind
    }

    fn with_defaults(&self, name: ModelName, kind: ModelKind) -> Model {
        let defaults = &self.context.settings.model_defaults;
        let at = Location::file(self.block.path.clone());
        Model {
            audits: self.context.default_audits.clone(),
            storage: Storage {
                table_format: defaults.table_format.clone(),
                storage_format: defaults.storage_format.clone(),
                physical_properties: defaults.physical_properties.clone(),
                virtual_properties: defaults.virtual_properties.clone(),
                session_properties: defaults.session_properties.clone(),
                ..Storage::default()
            },
            gateway: self.gateway.explicit.clone(),
            optimize_query: defaults.optimize_query,
            ..plain(defaults, name, kind, self.dialect, at)
        }
    }

    /// Properties about when a model runs; whether the key was one.
    fn schedule(&mut self, key: &str, property: &Property<'_>, model: &mut Model) -> bool {
        let mut fields = self.fields();
        match key {
            "cron" => {
                if let Some(cron) = fields.text(property) {
                    check_cron(&cron, property.value.location(), fields.findings);
                    model.cron = cron;
                }
            }
            "cron_tz" => {
                let zone = fields.text(property);
                if zone.as_ref().is_some_and(|zone| zone.parse::<chrono_tz::Tz>().is_err()) {
                    fields.invalid(property, "an IANA time zone", "write `'Europe/Berlin'`, for example");
                }
                model.cron_tz = zone;
            }
            "interval_unit" => match fields.text(property).map(|text| text.parse()) {
                Some(Ok(unit)) => model.interval_unit = Some(unit),
                Some(Err(_)) => fields.invalid(
                    property,
                    "an interval unit",
                    "use year, month, day, hour, half_hour, quarter_hour or five_minute",
                ),
                None => {}
            },
            "start" => model.start = fields.text(property),
            "end" => model.end = fields.text(property),
            "allow_partials" => model.allow_partials = fields.flag(property).unwrap_or(false),
            _ => return false,
        }
        true
    }

    /// Properties that describe a model to people; whether the key was one.
    fn about(&mut self, key: &str, property: &Property<'_>, about: &mut About) -> bool {
        let mut fields = self.fields();
        match key {
            "owner" => about.owner = fields.text(property),
            "description" => about.description = fields.text(property),
            "tags" => about.tags = fields.texts(property),
            "grain" => about.grains = vec![property.value.text().to_owned()],
            "grains" => about.grains = property.value.expressions(),
            "references" => about.references = property.value.expressions(),
            "column_descriptions" => about.column_descriptions = fields.descriptions(property),
            _ => return false,
        }
        true
    }

    /// Properties about how a table is kept; whether the key was one.
    fn storage(&mut self, key: &str, property: &Property<'_>, storage: &mut Storage) -> bool {
        let mut fields = self.fields();
        match key {
            "partitioned_by" => storage.partitioned_by = property.value.expressions(),
            "clustered_by" => storage.clustered_by = property.value.expressions(),
            "table_format" => storage.table_format = Fields::text_or_expression(property),
            "storage_format" => storage.storage_format = Fields::text_or_expression(property),
            "physical_properties" | "table_properties" => {
                merge(&mut storage.physical_properties, fields.map(property));
            }
            "virtual_properties" => merge(&mut storage.virtual_properties, fields.map(property)),
            "session_properties" => {
                let own = fields.map(property);
                check_timeout(&own, property.value.location(), fields.findings);
                merge(&mut storage.session_properties, own);
            }
            _ => return false,
        }
        true
    }

    fn rest(&mut self, key: &str, property: &Property<'_>, model: &mut Model) {
        let catalog = self.gateway.default_catalog.as_deref();
        let mut fields = Fields { dialect: self.dialect, findings: self.findings };
        match key {
            "name" | "kind" | "dialect" | "enabled" | "blueprints" | "gateway" | "formatting"
            | "ignored_rules" => {}
            "columns" => model.columns = fields.columns(property),
            "depends_on" => model.depends_on = fields.names(property, catalog),
            "stamp" => model.stamp = fields.text(property),
            "optimize_query" => model.optimize_query = fields.flag(property),
            "default_catalog" => self.error(
                "unknown-property",
                property.location(),
                "`default_catalog` can't be set on a model",
                "set it in the gateway's connection, or write the catalog in the name",
            ),
            "retention" => self.error(
                "unsupported-property",
                property.location(),
                "`retention` can't be set: nothing deletes old rows",
                "leave it out, as SQLMesh takes no value for it either",
            ),
            key if KNOWN.contains(&key) => {
                model.other.insert(key.to_owned(), property.value.text().to_owned());
            }
            key => {
                let message = format!("MODEL has no property `{key}`");
                self.error("unknown-property", property.location(), message, did_you_mean(key, &KNOWN));
            }
        }
    }

    fn warn(&mut self, property: &Property<'_>, model: &Model) {
        let key = property.key.to_ascii_lowercase();
        let acted = match key.as_str() {
            "partitioned_by" => matches!(model.kind, ModelKind::IncrementalByPartition(_)),
            "session_properties" => {
                model.storage.session_properties.keys().all(|name| is_batch_timeout(name))
            }
            _ => false,
        };
        if WITHOUT_EFFECT.contains(&key.as_str()) && !acted {
            let message = format!("property `{key}` of `{}` has no effect yet", model.name);
            self.findings.push(
                Diagnostic::warning("property-without-effect", property.location(), message)
                    .hint("it is kept with the model; nothing else to do"),
            );
        }
    }

    /// What single properties can't tell.
    fn check(&mut self, model: &mut Model, properties: &[Property<'_>]) {
        let at = |key: &str| {
            let property = properties.iter().rev().find(|property| property.is(key));
            property.map(Property::location)
        };
        let block = self.block.clone();
        if let Some(end) = at("end").filter(|_| model.start.is_none()) {
            self.error(
                "end-without-start",
                end,
                "`end` needs `start`",
                "add `start '2024-01-01'`, for example",
            );
        }
        if let (Some(place), Some(unit)) = (at("interval_unit"), model.interval_unit)
            && !model.allow_partials
            && crate::interval::Cadence::parse(&model.cron, None).is_ok_and(|cadence| unit > cadence.unit())
        {
            let message =
                format!("the cron `{}` ticks more often than the interval unit `{unit}`", model.cron);
            let hint = "choose a finer `interval_unit`, or set `allow_partials true`";
            self.error("invalid-interval-unit", place, message, hint);
        }
        if let (Some(grain), Some(_)) = (at("grain"), at("grains")) {
            self.error(
                "conflicting-properties",
                grain,
                "`grain` and `grains` exclude each other",
                "keep `grains`",
            );
        }
        if let (Some(old), Some(_)) = (at("table_properties"), at("physical_properties")) {
            let message = "`table_properties` and `physical_properties` exclude each other";
            self.error("conflicting-properties", old, message, "keep `physical_properties`");
        }
        if matches!(model.kind, ModelKind::IncrementalByPartition(_))
            && model.storage.partitioned_by.is_empty()
        {
            let message = "kind INCREMENTAL_BY_PARTITION needs `partitioned_by`";
            self.error(
                "missing-property",
                at("kind").unwrap_or(block),
                message,
                "add `partitioned_by (column)`",
            );
        }
        for key in ["partitioned_by", "clustered_by"] {
            let stored =
                !model.kind.is_symbolic() && !matches!(model.kind, ModelKind::View { materialized: false });
            if let Some(place) = at(key).filter(|_| !stored) {
                let message = format!("`{key}` can't be set for kind {}", model.kind.name());
                self.error("conflicting-properties", place, message, format!("remove `{key}`"));
            }
        }
        let forward_only = model.kind.incremental().is_some_and(|common| common.forward_only);
        if let Some(place) = at("physical_version").filter(|_| !forward_only) {
            let message = "`physical_version` can only be set for forward-only models";
            self.error("conflicting-properties", place, message, "add `forward_only true` to the kind");
        }
    }
}

/// The model's own properties over the defaults; `NONE` or `NULL` unsets a default.
fn merge(defaults: &mut BTreeMap<String, String>, own: BTreeMap<String, String>) {
    for (key, value) in own {
        let unset = value.eq_ignore_ascii_case("none") || value.eq_ignore_ascii_case("null");
        if !(unset && defaults.remove(&key).is_some()) {
            defaults.insert(key, value);
        }
    }
}

/// The name that a path under `models/` stands for: its last three parts.
fn name_of_path(path: &str, dialect: Dialect) -> Option<ModelName> {
    let inside = path.strip_prefix("models/")?;
    let stem = inside.rsplit_once('.').map_or(inside, |(stem, _)| stem);
    let parts: Vec<&str> = stem.split('/').collect();
    let last = &parts[parts.len().saturating_sub(3)..];
    let name: Vec<String> = last.iter().map(|part| dialect.normalize(part, false)).collect();
    name.join(".").parse().ok()
}

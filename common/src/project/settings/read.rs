//! From a config's values to [`Settings`], with a finding for each mistake.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use serde_yaml_ng::{Mapping, Value as Yaml};

use crate::diagnostic::{Diagnostic, Location};
use crate::project::cron::check_cron;
use crate::project::render::Value;
use crate::project::suggest::did_you_mean;
use crate::project::{ProjectInput, SourceFile, timeout::check_timeout};
use crate::sql::Dialect;

use super::connection::Connection;
use super::schema::{self, Effect};
use super::text::{blank_secrets, read, with_dotenv};
use super::yaml::{locate, scalar, to_sql, to_value};
use super::{
    Categorize, Gateway, ModelDefaults, Settings, SuffixTarget, TableNaming, VirtualEnvironmentMode,
};

/// The names that a config may have, the one that counts first.
pub const CONFIG_FILES: [&str; 4] = ["config.yaml", "config.yml", "sqlmesh.yaml", "sqlmesh.yml"];

/// The project's settings; defaults where the config can't be read.
pub(crate) fn load(input: &ProjectInput<'_>, findings: &mut Vec<Diagnostic>) -> Settings {
    let file = |name: &str| input.files.iter().find(|file| &*file.path == name);
    if let Some(dbt) = file("dbt_project.yml") {
        findings.push(
            Diagnostic::error(
                "dbt-not-supported",
                Location::file(dbt.path.clone()),
                "dbt projects aren't supported",
            )
            .hint("use a SQLMesh project: `config.yaml` and `models/`"),
        );
    }
    let configs: Vec<&SourceFile> = CONFIG_FILES.iter().filter_map(|name| file(name)).collect();
    let Some(config) = configs.first() else {
        findings.push(missing(file("config.py")));
        return Settings::default();
    };
    for other in configs.iter().skip(1).copied().chain(file("config.py")) {
        let message = format!("`{}` is a second config beside `{}`", other.path, config.path);
        findings.push(
            Diagnostic::error("several-configs", Location::file(other.path.clone()), message)
                .hint("keep one of them, in YAML"),
        );
    }
    let env = with_dotenv(input.env, file(".env").map(|file| &*file.text));
    let mapping = match read(&config.path, &config.text, &env) {
        Ok(mapping) => mapping,
        Err(finding) => {
            findings.push(finding);
            return Settings::default();
        }
    };
    let mut reader = Reader { path: &config.path, text: &config.text, findings, keys: Vec::new() };
    let mut settings = Settings::default();
    reader.root(&mapping, &mut settings);
    reader.choose_gateway(input.gateway, &mapping, &mut settings);
    settings
}

fn missing(python: Option<&SourceFile>) -> Diagnostic {
    match python {
        Some(python) => {
            let at = Location::file(python.path.clone());
            Diagnostic::error("python-not-supported", at, "a config in Python isn't supported yet")
                .hint("write the same settings in `config.yaml`")
        }
        None => {
            Diagnostic::error("missing-config", Location::file("config.yaml"), "the project has no config")
                .hint("add a `config.yaml` with `gateways` and `model_defaults`")
        }
    }
}

struct Reader<'a> {
    path: &'a Arc<str>,
    text: &'a str,
    findings: &'a mut Vec<Diagnostic>,
    /// The keys from the top to what is being read.
    keys: Vec<String>,
}

impl Reader<'_> {
    fn at(&self, key: &str) -> Location {
        let mut keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        keys.push(key);
        let (line, column) = locate(self.text, &keys);
        Location { path: self.path.clone(), line, column }
    }

    fn error(&mut self, code: &str, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        let finding = Diagnostic::error(code, self.at(key), message).hint(hint);
        self.findings.push(finding);
    }

    fn dotted(&self, key: &str) -> String {
        self.keys.iter().map(String::as_str).chain([key]).collect::<Vec<_>>().join(".")
    }

    /// Goes through a section's keys: unknown ones are errors, those without effect warnings.
    fn section(
        &mut self,
        mapping: &Mapping,
        table: &[(&'static str, Effect)],
        other: &mut BTreeMap<String, Value>,
        mut each: impl FnMut(&mut Self, &str, &Yaml),
    ) {
        for (key, value) in mapping {
            let key = scalar(key).unwrap_or_default();
            match table.iter().find(|(known, _)| *known == key).map(|(_, effect)| *effect) {
                Some(Effect::Acted) if value.is_null() => {}
                Some(Effect::Acted) => each(self, &key, value),
                Some(Effect::Moot) => {
                    other.insert(self.dotted(&key), to_value(value));
                }
                Some(Effect::None) => {
                    let dotted = self.dotted(&key);
                    let message = format!("setting `{dotted}` has no effect yet");
                    self.findings.push(
                        Diagnostic::warning("setting-without-effect", self.at(&key), message)
                            .hint("it is kept; nothing else to do"),
                    );
                    let mut printable = value.clone();
                    blank_secrets(&mut printable);
                    other.insert(dotted, to_value(&printable));
                }
                None => {
                    let message = format!("unknown setting `{}`", self.dotted(&key));
                    self.error("unknown-setting", &key, message, did_you_mean(&key, &schema::names(table)));
                }
            }
        }
    }

    fn inside(
        &mut self,
        key: &str,
        value: &Yaml,
        table: &[(&'static str, Effect)],
        other: &mut BTreeMap<String, Value>,
        each: impl FnMut(&mut Self, &str, &Yaml),
    ) {
        if let Some(mapping) = self.mapping(key, value) {
            self.keys.push(key.to_owned());
            self.section(mapping, table, other, each);
            self.keys.pop();
        }
    }

    fn root(&mut self, mapping: &Mapping, out: &mut Settings) {
        let mut other = BTreeMap::new();
        let mut sections = BTreeMap::new();
        self.section(mapping, schema::ROOT, &mut other, |reader, key, value| match key {
            "gateways" | "gateway" => reader.gateways(key, value, &mut sections, &mut out.gateways),
            "default_connection" => {
                let connection = reader.connection(key, value);
                out.gateways.push(Gateway { connection, ..Gateway::default() });
            }
            "default_test_connection" => out.default_test_connection = Some(reader.connection(key, value)),
            "model_defaults" => {
                out.model_defaults = reader.model_defaults(key, value, ModelDefaults::default());
            }
            "default_gateway" => reader.text(key, value, &mut out.default_gateway),
            "project" => reader.text(key, value, &mut out.project),
            "snapshot_ttl" => reader.text(key, value, &mut out.snapshot_ttl),
            "environment_ttl" => out.environment_ttl = reader.scalar(key, value),
            "time_column_format" => reader.text(key, value, &mut out.time_column_format),
            "default_target_environment" => reader.text(key, value, &mut out.default_target_environment),
            "ignore_patterns" => out.ignore_patterns.extend(reader.texts(key, value)),
            "pinned_environments" => out.pinned_environments = reader.texts(key, value),
            "before_all" => out.before_all = reader.texts(key, value),
            "after_all" => out.after_all = reader.texts(key, value),
            "variables" => out.variables = reader.variables(key, value),
            "gateway_managed_virtual_layer" => {
                reader.flag(key, value, &mut out.gateway_managed_virtual_layer);
            }
            _ => reader.root_rest(key, value, &mut sections, out),
        });
        if let Some(first) = mapping.get("environment_catalog_mapping")
            && out.environment_suffix_target == SuffixTarget::Catalog
            && first.as_mapping().is_some_and(|map| !map.is_empty())
        {
            let message =
                "`environment_suffix_target: catalog` and `environment_catalog_mapping` exclude each other";
            self.error("invalid-setting", "environment_catalog_mapping", message, "remove one of them");
        }
        other.extend(sections);
        out.other = other;
    }

    fn root_rest(
        &mut self,
        key: &str,
        value: &Yaml,
        other: &mut BTreeMap<String, Value>,
        out: &mut Settings,
    ) {
        match key {
            "physical_schema_mapping" => out.physical_schema_mapping = self.patterns(key, value),
            "physical_schema_override" => {
                let exact = |(schema, target)| (format!("^{schema}$"), target);
                out.physical_schema_mapping = self.pairs(key, value).into_iter().map(exact).collect();
            }
            "environment_catalog_mapping" => out.environment_catalog_mapping = self.patterns(key, value),
            "environment_suffix_target" => {
                let words = [
                    ("schema", SuffixTarget::Schema),
                    ("table", SuffixTarget::Table),
                    ("catalog", SuffixTarget::Catalog),
                ];
                self.choice(key, value, &words, &mut out.environment_suffix_target);
            }
            "physical_table_naming_convention" => {
                let words = [
                    ("schema_and_table", TableNaming::SchemaAndTable),
                    ("table_only", TableNaming::TableOnly),
                    ("hash_md5", TableNaming::HashMd5),
                ];
                self.choice(key, value, &words, &mut out.physical_table_naming_convention);
            }
            "virtual_environment_mode" => {
                let words =
                    [("full", VirtualEnvironmentMode::Full), ("dev_only", VirtualEnvironmentMode::DevOnly)];
                self.choice(key, value, &words, &mut out.virtual_environment_mode);
            }
            "model_naming" => self.inside(key, value, schema::MODEL_NAMING, other, |reader, key, value| {
                reader.flag(key, value, &mut out.infer_names);
            }),
            "run" => self.inside(key, value, schema::RUN, other, |reader, key, value| match key {
                "environment_check_interval" => {
                    reader.positive(key, value, &mut out.run.environment_check_interval);
                }
                _ => reader.positive(key, value, &mut out.run.environment_check_max_wait),
            }),
            "janitor" => self.inside(key, value, schema::JANITOR, other, |reader, key, value| match key {
                "warn_on_delete_failure" => reader.flag(key, value, &mut out.janitor.warn_on_delete_failure),
                _ => reader.positive(key, value, &mut out.janitor.expired_snapshots_batch_size),
            }),
            _ => self.plan(key, value, other, out),
        }
    }

    fn plan(&mut self, key: &str, value: &Yaml, other: &mut BTreeMap<String, Value>, out: &mut Settings) {
        let plan = &mut out.plan;
        let mut nested = BTreeMap::new();
        self.inside(key, value, schema::PLAN, other, |reader, key, value| match key {
            "forward_only" => reader.flag(key, value, &mut plan.forward_only),
            "include_unmodified" => reader.flag(key, value, &mut plan.include_unmodified),
            "enable_preview" => {
                let mut flag = false;
                reader.flag(key, value, &mut flag);
                plan.enable_preview = Some(flag);
            }
            "no_diff" => reader.flag(key, value, &mut plan.no_diff),
            "no_prompts" => reader.flag(key, value, &mut plan.no_prompts),
            "auto_apply" => reader.flag(key, value, &mut plan.auto_apply),
            "always_recreate_environment" => reader.flag(key, value, &mut plan.always_recreate_environment),
            _ => reader.inside(key, value, schema::CATEGORIZE, &mut nested, |reader, key, value| {
                let words =
                    [("off", Categorize::Off), ("semi", Categorize::Semi), ("full", Categorize::Full)];
                let target = match key {
                    "sql" => &mut plan.categorize_sql,
                    "python" => &mut plan.categorize_python,
                    "seed" => &mut plan.categorize_seed,
                    _ => &mut plan.categorize_external,
                };
                // YAML 1.1 writers mean `off` where the parser reads false.
                let off = Yaml::from("off");
                reader.choice(key, if value.as_bool() == Some(false) { &off } else { value }, &words, target);
            }),
        });
    }

    fn gateways(
        &mut self,
        key: &str,
        value: &Yaml,
        other: &mut BTreeMap<String, Value>,
        out: &mut Vec<Gateway>,
    ) {
        let Some(mapping) = self.mapping(key, value) else { return };
        if mapping.contains_key("connection") {
            let gateway = self.gateway(key, value, other);
            out.push(gateway);
            return;
        }
        self.keys.push(key.to_owned());
        for (name, value) in mapping {
            let name = scalar(name).unwrap_or_default();
            let gateway = self.gateway(&name, value, other);
            out.push(Gateway { name: name.to_lowercase(), ..gateway });
        }
        self.keys.pop();
    }

    fn gateway(&mut self, name: &str, value: &Yaml, other: &mut BTreeMap<String, Value>) -> Gateway {
        let mut gateway = Gateway::default();
        self.inside(name, value, schema::GATEWAY, other, |reader, key, value| match key {
            "connection" => gateway.connection = reader.connection(key, value),
            "variables" => gateway.variables = reader.variables(key, value),
            // They matter for the chosen gateway only, see `choose_gateway`.
            _ => {}
        });
        // Connections hold secrets, so they are kept apart from settings that may be printed.
        other.retain(|key, _| !key.ends_with("_connection"));
        self.keys.push(name.to_owned());
        for (key, out) in [
            ("state_connection", &mut gateway.state_connection),
            ("test_connection", &mut gateway.test_connection),
        ] {
            if let Some(value) = value.get(key).filter(|value| !value.is_null()) {
                *out = Some(self.connection(key, value));
            }
        }
        self.keys.pop();
        gateway
    }

    fn connection(&mut self, key: &str, value: &Yaml) -> Connection {
        let Some(mapping) = self.mapping(key, value) else { return Connection::default() };
        self.keys.push(key.to_owned());
        let raw: BTreeMap<String, Value> = mapping
            .iter()
            .filter(|(_, value)| !value.is_null())
            .filter_map(|(key, value)| Some((scalar(key)?, to_value(value))))
            .collect();
        let catalog_order = mapping
            .get("catalogs")
            .and_then(Yaml::as_mapping)
            .map(|catalogs| catalogs.keys().filter_map(scalar).collect())
            .unwrap_or_default();
        let kind = mapping.get("type").and_then(scalar).unwrap_or_default().to_lowercase();
        let kinds: Vec<&str> = schema::CONNECTIONS.iter().map(|(kind, _)| *kind).collect();
        let known = schema::CONNECTIONS.iter().find(|(known, _)| *known == kind);
        match known {
            None if kind.is_empty() => {
                self.error(
                    "missing-setting",
                    "type",
                    "the connection has no `type`",
                    "add `type: duckdb`, `type: postgres`, …",
                );
            }
            None => {
                let message = format!("unknown connection type `{kind}`");
                self.error("unknown-connection-type", "type", message, did_you_mean(&kind, &kinds));
            }
            Some(_) => {}
        }
        let mut concurrent_tasks = known.map_or(1, |(_, tasks)| *tasks);
        if let Some(tasks) = mapping.get("concurrent_tasks").filter(|tasks| !tasks.is_null()) {
            self.positive("concurrent_tasks", tasks, &mut concurrent_tasks);
        }
        self.keys.pop();
        Connection { kind, concurrent_tasks, raw, catalog_order }
    }

    fn choose_gateway(&mut self, asked: Option<&str>, mapping: &Mapping, out: &mut Settings) {
        if out.gateways.is_empty() {
            let connection =
                Connection { kind: "duckdb".to_owned(), concurrent_tasks: 1, ..Connection::default() };
            out.gateways.push(Gateway { connection, ..Gateway::default() });
        }
        let first = out.gateways[0].name.clone();
        let (wanted, code_key) = match asked {
            Some(asked) => (asked.to_lowercase(), "gateways"),
            None if out.default_gateway.is_empty() => (first, "gateways"),
            None => (out.default_gateway.to_lowercase(), "default_gateway"),
        };
        if out.gateway(&wanted).is_none() {
            let names: Vec<&str> = out.gateways.iter().map(|gateway| gateway.name.as_str()).collect();
            let hint = did_you_mean(&wanted, &names);
            self.error("unknown-gateway", code_key, format!("there is no gateway `{wanted}`"), hint);
        }
        let defaults = ["gateways", "gateway"]
            .iter()
            .find_map(|key| Some((*key, mapping.get(*key)?.as_mapping()?)))
            .and_then(|(key, gateways)| {
                let chosen =
                    |name: &Yaml| scalar(name).is_some_and(|name| name.eq_ignore_ascii_case(&wanted));
                let (name, gateway) = gateways.iter().find(|(name, _)| chosen(name))?;
                Some((key.to_owned(), scalar(name)?, gateway.get("model_defaults")?))
            });
        if let Some((key, name, value)) = defaults {
            self.keys.extend([key, name]);
            out.model_defaults =
                self.model_defaults("model_defaults", value, std::mem::take(&mut out.model_defaults));
            self.keys.clear();
        }
        if let Some(name) = out.model_defaults.gateway.clone().filter(|name| out.gateway(name).is_none()) {
            let names: Vec<&str> = out.gateways.iter().map(|gateway| gateway.name.as_str()).collect();
            self.keys.push("model_defaults".to_owned());
            let hint = did_you_mean(&name, &names);
            self.error("unknown-gateway", "gateway", format!("there is no gateway `{name}`"), hint);
            self.keys.clear();
        }
        out.default_gateway = wanted;
        let has_dialect = |value: Option<&Yaml>| value.is_some_and(|value| value.get("dialect").is_some());
        if !has_dialect(mapping.get("model_defaults")) && out.model_defaults.dialect == Dialect::Generic {
            let hint = "add `dialect: duckdb` (or your engine's) under `model_defaults`";
            self.error("missing-setting", "model_defaults", "`model_defaults.dialect` is required", hint);
        }
    }

    fn model_defaults(&mut self, key: &str, value: &Yaml, mut out: ModelDefaults) -> ModelDefaults {
        let mut other = BTreeMap::new();
        self.inside(key, value, schema::MODEL_DEFAULTS, &mut other, |reader, key, value| match key {
            "kind" => out.kind = reader.kind(key, value),
            "dialect" => reader.parsed(key, value, &mut out.dialect),
            "cron" => {
                out.cron = reader.scalar(key, value);
                if let Some(cron) = &out.cron {
                    check_cron(cron, reader.at(key), reader.findings);
                }
            }
            "cron_tz" => out.cron_tz = reader.scalar(key, value),
            "owner" => out.owner = reader.scalar(key, value),
            "start" => out.start = reader.scalar(key, value),
            "table_format" => out.table_format = reader.scalar(key, value),
            "storage_format" => out.storage_format = reader.scalar(key, value),
            "on_destructive_change" => out.on_destructive_change = reader.scalar(key, value),
            "on_additive_change" => out.on_additive_change = reader.scalar(key, value),
            "physical_properties" => out.physical_properties = reader.sql_map(key, value),
            "virtual_properties" => out.virtual_properties = reader.sql_map(key, value),
            "session_properties" => {
                out.session_properties = reader.sql_map(key, value);
                check_timeout(&out.session_properties, reader.at(key), reader.findings);
            }
            "audits" => out.audits = reader.texts(key, value),
            "optimize_query" => out.optimize_query = reader.optional_flag(key, value),
            "allow_partials" => out.allow_partials = reader.optional_flag(key, value),
            "enabled" => out.enabled = reader.optional_flag(key, value),
            "interval_unit" => {
                let mut unit = crate::interval::IntervalUnit::Day;
                reader.parsed(key, value, &mut unit);
                out.interval_unit = Some(unit);
            }
            "batch_concurrency" => {
                let mut number = 1;
                reader.positive(key, value, &mut number);
                out.batch_concurrency = Some(number);
            }
            "pre_statements" => out.pre_statements = reader.texts(key, value),
            "post_statements" => out.post_statements = reader.texts(key, value),
            "on_virtual_update" => out.on_virtual_update = reader.texts(key, value),
            _ => out.gateway = reader.scalar(key, value).map(|name| name.to_lowercase()),
        });
        out
    }

    /// A kind as a MODEL block writes it: `name: X` with other keys becomes `X (key value, …)`.
    fn kind(&mut self, key: &str, value: &Yaml) -> Option<String> {
        let Yaml::Mapping(mapping) = value else { return self.scalar(key, value) };
        let name = mapping.get("name").and_then(scalar)?;
        let word = |value: &Yaml| match value {
            Yaml::String(text) if text.chars().all(|c| c.is_alphanumeric() || c == '_') => text.clone(),
            value => to_sql(&to_value(value)),
        };
        let properties: Vec<String> = mapping
            .iter()
            .filter_map(|(key, value)| Some((scalar(key)?, value)))
            .filter(|(key, _)| key != "name")
            .map(|(key, value)| format!("{key} {}", word(value)))
            .collect();
        Some(if properties.is_empty() { name } else { format!("{name} ({})", properties.join(", ")) })
    }

    fn wrong_type(&mut self, key: &str, expected: &str) {
        let message = format!("setting `{}` must be {expected}", self.dotted(key));
        self.error("invalid-setting", key, message, "see the reference of the config");
    }

    fn mapping<'m>(&mut self, key: &str, value: &'m Yaml) -> Option<&'m Mapping> {
        if !value.is_mapping() {
            self.wrong_type(key, "a mapping");
        }
        value.as_mapping()
    }

    fn scalar(&mut self, key: &str, value: &Yaml) -> Option<String> {
        let text = scalar(value);
        if text.is_none() {
            self.wrong_type(key, "a text");
        }
        text
    }

    fn text(&mut self, key: &str, value: &Yaml, out: &mut String) {
        if let Some(text) = self.scalar(key, value) {
            *out = text;
        }
    }

    fn texts(&mut self, key: &str, value: &Yaml) -> Vec<String> {
        let items: Option<Vec<String>> = match value {
            Yaml::Sequence(items) => items.iter().map(scalar).collect(),
            value => scalar(value).map(|text| vec![text]),
        };
        items.unwrap_or_else(|| {
            self.wrong_type(key, "a list of texts");
            Vec::new()
        })
    }

    fn optional_flag(&mut self, key: &str, value: &Yaml) -> Option<bool> {
        let flag = match value {
            Yaml::Bool(flag) => Some(*flag),
            value => match scalar(value).unwrap_or_default().to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(true),
                "false" | "no" | "off" | "0" => Some(false),
                _ => None,
            },
        };
        if flag.is_none() {
            self.wrong_type(key, "true or false");
        }
        flag
    }

    fn flag(&mut self, key: &str, value: &Yaml, out: &mut bool) {
        if let Some(flag) = self.optional_flag(key, value) {
            *out = flag;
        }
    }

    fn positive(&mut self, key: &str, value: &Yaml, out: &mut u32) {
        match scalar(value).and_then(|text| text.trim().parse().ok()).filter(|number| *number > 0) {
            Some(number) => *out = number,
            None => self.wrong_type(key, "a whole number greater than 0"),
        }
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &str, value: &Yaml, out: &mut T) {
        let Some(text) = self.scalar(key, value) else { return };
        match text.parse() {
            Ok(value) => *out = value,
            Err(error) => {
                self.error("invalid-setting", key, error.to_string(), "see the reference of the config");
            }
        }
    }

    fn choice<T: Copy>(&mut self, key: &str, value: &Yaml, words: &[(&'static str, T)], out: &mut T) {
        let Some(text) = self.scalar(key, value) else { return };
        match words.iter().find(|(word, _)| *word == text.to_ascii_lowercase()) {
            Some((_, value)) => *out = *value,
            None => {
                let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let message = format!("`{text}` is no value of `{}`", self.dotted(key));
                self.error("invalid-setting", key, message, did_you_mean(&text, &names));
            }
        }
    }

    fn pairs(&mut self, key: &str, value: &Yaml) -> Vec<(String, String)> {
        let Some(mapping) = self.mapping(key, value) else { return Vec::new() };
        mapping.iter().filter_map(|(key, value)| Some((scalar(key)?, scalar(value)?))).collect()
    }

    fn patterns(&mut self, key: &str, value: &Yaml) -> Vec<(String, String)> {
        let pairs = self.pairs(key, value);
        self.keys.push(key.to_owned());
        for (pattern, _) in &pairs {
            if regex::Regex::new(pattern).is_err() {
                let message = format!("`{pattern}` is not a valid regular expression");
                self.error("invalid-setting", pattern, message, "escape special characters with a backslash");
            }
        }
        self.keys.pop();
        pairs
    }

    fn variables(&mut self, key: &str, value: &Yaml) -> BTreeMap<String, Value> {
        let Some(mapping) = self.mapping(key, value) else { return BTreeMap::new() };
        let pairs =
            mapping.iter().filter_map(|(key, value)| Some((scalar(key)?.to_lowercase(), to_value(value))));
        pairs.collect()
    }

    fn sql_map(&mut self, key: &str, value: &Yaml) -> BTreeMap<String, String> {
        let Some(mapping) = self.mapping(key, value) else { return BTreeMap::new() };
        mapping.iter().filter_map(|(key, value)| Some((scalar(key)?, to_sql(&to_value(value))))).collect()
    }
}

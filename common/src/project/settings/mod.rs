//! A project's settings: gateways, defaults of models, and how environments and plans behave.

mod connection;
mod read;
mod schema;
mod text;
pub(crate) mod yaml;

use std::collections::BTreeMap;

use crate::interval::IntervalUnit;
use crate::sql::Dialect;

use super::render::Value;

pub use crate::secret::Secret;
pub use connection::{Attach, Connection, DuckDb, Postgres, Secrets};
pub use read::CONFIG_FILES;
pub(crate) use read::load;
pub use text::{Env, environment, redact_config};
pub(crate) use text::{invalid_yaml, render, render_with};

/// A project's settings, with SQLMesh's defaults where the config is silent.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Ways to warehouses, in the order of the file; names are in lower case.
    pub gateways: Vec<Gateway>,
    /// The gateway that models run on where they name none: the one asked for on the command
    /// line, `default_gateway`, or the first.
    pub default_gateway: String,
    /// What models get where they are silent.
    pub model_defaults: ModelDefaults,
    /// Where unit tests run whose gateway doesn't say; absent: a DuckDB in memory.
    pub default_test_connection: Option<Connection>,
    /// Variables of the project by lower-case name.
    pub variables: BTreeMap<String, Value>,
    /// Schemas of physical tables: regular expressions on the model's schema, in order; the first
    /// that matches at the schema's start gives the schema.
    pub physical_schema_mapping: Vec<(String, String)>,
    /// How physical tables are named.
    pub physical_table_naming_convention: TableNaming,
    /// What of a name carries the environment.
    pub environment_suffix_target: SuffixTarget,
    /// Catalogs of environments: regular expressions on the environment's name, in order.
    pub environment_catalog_mapping: Vec<(String, String)>,
    /// Whether a model's views are made through the model's own gateway.
    pub gateway_managed_virtual_layer: bool,
    /// Whether production has views over versioned tables.
    pub virtual_environment_mode: VirtualEnvironmentMode,
    /// How time columns are written by default, in strftime terms.
    pub time_column_format: String,
    /// How long snapshots outside of environments live, as written.
    pub snapshot_ttl: String,
    /// How long dev environments live, as written; absent: for ever.
    pub environment_ttl: Option<String>,
    /// Environments that never expire.
    pub pinned_environments: Vec<String>,
    /// The environment that plans and runs are about by default.
    pub default_target_environment: String,
    /// Defaults of planning.
    pub plan: PlanSettings,
    /// Defaults of runs.
    pub run: RunSettings,
    /// How the janitor works.
    pub janitor: JanitorSettings,
    /// Whether models without a name are named after their path.
    pub infer_names: bool,
    /// Statements before anything is applied.
    pub before_all: Vec<String>,
    /// Statements after all is applied.
    pub after_all: Vec<String>,
    /// Globs of files that are left alone.
    pub ignore_patterns: Vec<String>,
    /// The project's name, where several share a state.
    pub project: String,
    /// Settings without effect, by dotted path; secrets among them are blanked.
    pub other: BTreeMap<String, Value>,
}

/// One way to a warehouse.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gateway {
    /// The name in lower case; empty for the one that `default_connection` alone makes.
    pub name: String,
    /// The connection.
    pub connection: Connection,
    /// Where SQLMesh would keep its state; nothing of ours is there.
    pub state_connection: Option<Connection>,
    /// Where unit tests run.
    pub test_connection: Option<Connection>,
    /// Variables by lower-case name; they win over the project's.
    pub variables: BTreeMap<String, Value>,
}

/// What models get where they are silent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelDefaults {
    /// The kind, as a MODEL block would write it.
    pub kind: Option<String>,
    /// The dialect.
    pub dialect: Dialect,
    /// The cron, as written.
    pub cron: Option<String>,
    /// The cron's zone.
    pub cron_tz: Option<String>,
    /// Who answers for the models.
    pub owner: Option<String>,
    /// The first point of time, as written.
    pub start: Option<String>,
    /// The table format.
    pub table_format: Option<String>,
    /// The file format.
    pub storage_format: Option<String>,
    /// What to do when a change drops columns.
    pub on_destructive_change: Option<String>,
    /// What to do when a change adds columns.
    pub on_additive_change: Option<String>,
    /// Properties of tables, as SQL text.
    pub physical_properties: BTreeMap<String, String>,
    /// Properties of views, as SQL text.
    pub virtual_properties: BTreeMap<String, String>,
    /// Properties of sessions, as SQL text.
    pub session_properties: BTreeMap<String, String>,
    /// Audits that run before the model's own, as written.
    pub audits: Vec<String>,
    /// Whether queries may be rewritten.
    pub optimize_query: Option<bool>,
    /// Whether a piece of an interval may be computed.
    pub allow_partials: Option<bool>,
    /// The granularity of intervals.
    pub interval_unit: Option<IntervalUnit>,
    /// Whether models are loaded.
    pub enabled: Option<bool>,
    /// How many batches of a model may run at once.
    pub batch_concurrency: Option<u32>,
    /// Statements before the model's own.
    pub pre_statements: Vec<String>,
    /// Statements before the model's own post-statements.
    pub post_statements: Vec<String>,
    /// Statements before the model's own virtual updates.
    pub on_virtual_update: Vec<String>,
    /// The gateway.
    pub gateway: Option<String>,
}

/// How physical tables are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TableNaming {
    /// `<schema>__<table>__<version>`
    #[default]
    SchemaAndTable,
    /// `<table>__<version>`
    TableOnly,
    /// `sqlmesh_md5__<hash>`
    HashMd5,
}

/// What of a view's name carries the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SuffixTarget {
    /// The schema: `sales__dev.orders`.
    #[default]
    Schema,
    /// The table: `sales.orders__dev`.
    Table,
    /// The catalog: `wh__dev.sales.orders`.
    Catalog,
}

/// Whether production has views over versioned tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VirtualEnvironmentMode {
    /// Views everywhere.
    #[default]
    Full,
    /// Production's tables carry the models' own names.
    DevOnly,
}

/// How far changes of one kind of source are categorised by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Categorize {
    /// The user decides.
    Off,
    /// Only what is certain; the user decides the rest.
    Semi,
    /// Always; what isn't certain is breaking.
    #[default]
    Full,
}

/// Defaults of planning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanSettings {
    /// Categorisation of changed SQL models.
    pub categorize_sql: Categorize,
    /// Categorisation of changed Python models.
    pub categorize_python: Categorize,
    /// Categorisation of changed seeds.
    pub categorize_seed: Categorize,
    /// Categorisation of changed external models.
    pub categorize_external: Categorize,
    /// Whether plans are forward-only.
    pub forward_only: bool,
    /// Whether dev environments hold unmodified models too.
    pub include_unmodified: bool,
    /// Whether forward-only changes get previews in dev; absent: as the engine allows.
    pub enable_preview: Option<bool>,
    /// Whether text differences are hidden.
    pub no_diff: bool,
    /// Whether nothing is asked.
    pub no_prompts: bool,
    /// Whether plans are applied without asking.
    pub auto_apply: bool,
    /// Whether dev environments are made anew from production each time.
    pub always_recreate_environment: bool,
}

impl Default for PlanSettings {
    fn default() -> Self {
        Self {
            categorize_sql: Categorize::Full,
            categorize_python: Categorize::Full,
            categorize_seed: Categorize::Full,
            categorize_external: Categorize::Full,
            forward_only: false,
            include_unmodified: false,
            enable_preview: None,
            no_diff: false,
            no_prompts: true,
            auto_apply: false,
            always_recreate_environment: false,
        }
    }
}

/// Defaults of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSettings {
    /// Seconds between looks at an environment that isn't ready.
    pub environment_check_interval: u32,
    /// Seconds until a run gives up waiting for it.
    pub environment_check_max_wait: u32,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self { environment_check_interval: 30, environment_check_max_wait: 21_600 }
    }
}

/// How the janitor works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JanitorSettings {
    /// Whether failing to drop something only warns.
    pub warn_on_delete_failure: bool,
    /// How many snapshots are removed at once.
    pub expired_snapshots_batch_size: u32,
}

impl Default for JanitorSettings {
    fn default() -> Self {
        Self { warn_on_delete_failure: false, expired_snapshots_batch_size: 200 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            gateways: Vec::new(),
            default_gateway: String::new(),
            model_defaults: ModelDefaults::default(),
            default_test_connection: None,
            variables: BTreeMap::new(),
            physical_schema_mapping: Vec::new(),
            physical_table_naming_convention: TableNaming::default(),
            environment_suffix_target: SuffixTarget::default(),
            environment_catalog_mapping: Vec::new(),
            gateway_managed_virtual_layer: false,
            virtual_environment_mode: VirtualEnvironmentMode::default(),
            time_column_format: "%Y-%m-%d".to_owned(),
            snapshot_ttl: "in 1 week".to_owned(),
            environment_ttl: Some("in 1 week".to_owned()),
            pinned_environments: Vec::new(),
            default_target_environment: "prod".to_owned(),
            plan: PlanSettings::default(),
            run: RunSettings::default(),
            janitor: JanitorSettings::default(),
            infer_names: false,
            before_all: Vec::new(),
            after_all: Vec::new(),
            ignore_patterns: vec![".ipynb_checkpoints/*".to_owned()],
            project: String::new(),
            other: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// The schema that holds physical tables of a schema's models: the mapping's first match, or
    /// `sqlmesh__<schema>` as SQLMesh has it. A mapping that isn't a regular expression matches
    /// nothing; loading has reported it.
    pub(crate) fn physical_schema(&self, schema: &str) -> String {
        let matches = |pattern: &str| {
            regex::Regex::new(pattern)
                .is_ok_and(|regex| regex.find(schema).is_some_and(|found| found.start() == 0))
        };
        let mapped = self.physical_schema_mapping.iter().find(|(pattern, _)| matches(pattern));
        mapped.map_or_else(|| format!("sqlmesh__{schema}"), |(_, physical)| physical.clone())
    }

    /// How many leases each gateway may have in flight, fleet-wide.
    pub fn concurrent_tasks(&self) -> BTreeMap<String, u32> {
        let tasks = |gateway: &Gateway| (gateway.name.clone(), gateway.connection.concurrent_tasks);
        self.gateways.iter().map(tasks).collect()
    }

    /// A gateway by its name, in any case.
    pub fn gateway(&self, name: &str) -> Option<&Gateway> {
        self.gateways.iter().find(|gateway| gateway.name.eq_ignore_ascii_case(name))
    }

    /// The gateway of a model: its own, or the default one.
    pub fn gateway_of(&self, model_gateway: Option<&str>) -> Option<&Gateway> {
        self.gateway(model_gateway.unwrap_or(&self.default_gateway))
    }

    /// Where the unit tests of a gateway run; absent: a DuckDB in memory.
    pub fn test_connection(&self, gateway: Option<&str>) -> Option<&Connection> {
        let own = self.gateway_of(gateway).and_then(|gateway| gateway.test_connection.as_ref());
        own.or(self.default_test_connection.as_ref())
    }

    /// The variables that a model on a gateway sees: the project's under the gateway's.
    pub(crate) fn variables_of(&self, gateway: Option<&str>) -> BTreeMap<String, Value> {
        let mut all = self.variables.clone();
        if let Some(gateway) = self.gateway_of(gateway) {
            all.extend(gateway.variables.clone());
        }
        all
    }

    /// The catalog that names without one belong to, for a model on a gateway.
    pub fn default_catalog(&self, gateway: Option<&str>) -> Option<String> {
        let gateway = self.gateway_of(gateway)?;
        let catalog = gateway.connection.default_catalog()?;
        Some(
            gateway.connection.dialect().map_or(catalog.clone(), |dialect| dialect.normalize(&catalog, true)),
        )
    }
}

//! Which settings there are, and which of them have an effect here.

/// Whether a setting changes what we do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It is followed.
    Acted,
    /// It is kept, but nothing looks at it yet.
    None,
    /// It has no effect and needs no word: it is about SQLMesh itself.
    Moot,
}

use Effect::{Acted, Moot, None as Ignored};

/// Settings at the top of the file.
pub(crate) const ROOT: &[(&str, Effect)] = &[
    ("gateways", Acted),
    ("gateway", Acted),
    ("default_connection", Acted),
    ("default_test_connection", Acted),
    ("default_scheduler", Ignored),
    ("default_gateway", Acted),
    ("notification_targets", Ignored),
    ("project", Acted),
    ("snapshot_ttl", Acted),
    ("environment_ttl", Acted),
    ("ignore_patterns", Acted),
    ("time_column_format", Acted),
    ("users", Ignored),
    ("model_defaults", Acted),
    ("pinned_environments", Acted),
    ("loader", Ignored),
    ("loader_kwargs", Ignored),
    ("env_vars", Ignored),
    ("username", Ignored),
    ("physical_schema_mapping", Acted),
    ("physical_schema_override", Acted),
    ("environment_suffix_target", Acted),
    ("physical_table_naming_convention", Acted),
    ("virtual_environment_mode", Acted),
    ("gateway_managed_virtual_layer", Acted),
    ("infer_python_dependencies", Moot),
    ("environment_catalog_mapping", Acted),
    ("default_target_environment", Acted),
    ("log_limit", Moot),
    ("cicd_bot", Ignored),
    ("run", Acted),
    ("format", Moot),
    ("ui", Moot),
    ("plan", Acted),
    ("migration", Moot),
    ("model_naming", Acted),
    ("variables", Acted),
    ("disable_anonymized_analytics", Moot),
    ("before_all", Acted),
    ("after_all", Acted),
    ("linter", Ignored),
    ("janitor", Acted),
    ("cache_dir", Moot),
    ("dbt", Ignored),
];

/// Settings of one gateway.
pub(crate) const GATEWAY: &[(&str, Effect)] = &[
    ("connection", Acted),
    ("state_connection", Ignored),
    ("test_connection", Acted),
    ("scheduler", Ignored),
    ("state_schema", Ignored),
    ("variables", Acted),
    ("model_defaults", Acted),
];

/// Defaults of models.
pub(crate) const MODEL_DEFAULTS: &[(&str, Effect)] = &[
    ("kind", Acted),
    ("dialect", Acted),
    ("cron", Acted),
    ("cron_tz", Acted),
    ("owner", Acted),
    ("start", Acted),
    ("table_format", Acted),
    ("storage_format", Acted),
    ("on_destructive_change", Acted),
    ("on_additive_change", Acted),
    ("physical_properties", Acted),
    ("virtual_properties", Acted),
    ("session_properties", Acted),
    ("audits", Acted),
    ("optimize_query", Acted),
    ("allow_partials", Acted),
    ("interval_unit", Acted),
    ("enabled", Acted),
    ("formatting", Moot),
    ("batch_concurrency", Acted),
    ("pre_statements", Acted),
    ("post_statements", Acted),
    ("on_virtual_update", Acted),
    ("gateway", Acted),
];

/// Settings of planning.
pub(crate) const PLAN: &[(&str, Effect)] = &[
    ("auto_categorize_changes", Acted),
    ("forward_only", Acted),
    ("include_unmodified", Acted),
    ("enable_preview", Acted),
    ("no_diff", Acted),
    ("no_prompts", Acted),
    ("auto_apply", Acted),
    ("use_finalized_state", Ignored),
    ("always_recreate_environment", Acted),
];

/// What `plan.auto_categorize_changes` names.
pub(crate) const CATEGORIZE: &[(&str, Effect)] =
    &[("external", Acted), ("python", Acted), ("sql", Acted), ("seed", Acted)];

/// Settings of runs.
pub(crate) const RUN: &[(&str, Effect)] =
    &[("environment_check_interval", Acted), ("environment_check_max_wait", Acted)];

/// Settings of the janitor.
pub(crate) const JANITOR: &[(&str, Effect)] =
    &[("warn_on_delete_failure", Acted), ("expired_snapshots_batch_size", Acted)];

/// Settings of names.
pub(crate) const MODEL_NAMING: &[(&str, Effect)] = &[("infer_names", Acted)];

/// Types of connections, and how many tasks each runs at once by default.
pub(crate) const CONNECTIONS: &[(&str, u32)] = &[
    ("duckdb", 1),
    ("motherduck", 1),
    ("postgres", 4),
    ("bigquery", 1),
    ("snowflake", 4),
    ("databricks", 1),
    ("redshift", 4),
    ("mysql", 4),
    ("mssql", 4),
    ("azuresql", 4),
    ("fabric", 4),
    ("spark", 4),
    ("trino", 4),
    ("clickhouse", 1),
    ("athena", 4),
    ("gcp_postgres", 4),
    ("risingwave", 4),
    ("starrocks", 4),
    ("doris", 4),
    ("db2", 4),
    // Ours: computes nothing, to measure everything around warehouses.
    ("noop", 1),
];

/// The names of a table of settings.
pub(crate) fn names(table: &[(&'static str, Effect)]) -> Vec<&'static str> {
    table.iter().map(|(name, _)| *name).collect()
}

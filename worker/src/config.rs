//! From a project's gateways to open engines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coord_common::project::Settings;
use coord_common::project::render::Value;
use coord_common::project::settings as source;
use coord_common::project::settings::{Connection, Gateway};
use coord_common::secret::Secret;

use crate::engine::{
    self, DuckDbCatalog, DuckDbConfig, Engine, EngineConfig, EngineError, PostgresConfig, SslMode,
};

/// Why a gateway can't be used.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// There is no engine for its kind of connection.
    #[error(
        "gateway `{gateway}`: a connection of type `{kind}` is not supported yet; use duckdb or postgres"
    )]
    Unsupported {
        /// The gateway.
        gateway: String,
        /// The connection's type.
        kind: String,
    },
    /// Its settings lack something.
    #[error("gateway `{gateway}`: {why}")]
    Invalid {
        /// The gateway.
        gateway: String,
        /// What is wrong.
        why: String,
    },
    /// The warehouse refuses.
    #[error("gateway `{gateway}`: {source}")]
    Engine {
        /// The gateway.
        gateway: String,
        /// Why.
        source: EngineError,
    },
}

/// Opens the engines of a project's gateways. Relative paths are below `folder`. Gateways of other
/// kinds than the ones served are left out, unless they are `needed`.
///
/// # Errors
/// [`GatewayError`] for a gateway that is needed and can't be opened.
pub fn open_engines(
    settings: &Settings,
    folder: &Path,
    needed: &[String],
) -> Result<BTreeMap<String, Arc<dyn Engine>>, GatewayError> {
    let mut engines = BTreeMap::new();
    for gateway in &settings.gateways {
        if !needed.contains(&gateway.name) {
            continue;
        }
        let config = engine_config(gateway, folder)?;
        let concurrency = gateway.connection.concurrent_tasks.max(1) as usize;
        let engine = engine::open(&config, concurrency)
            .map_err(|source| GatewayError::Engine { gateway: gateway.name.clone(), source })?;
        engines.insert(gateway.name.clone(), engine);
    }
    Ok(engines)
}

/// Opens what unit tests run on: a gateway's test connection, or else a DuckDB in memory. One that
/// names no database is in memory, too.
///
/// # Errors
/// [`GatewayError`] when its kind isn't served, its settings lack something, or it can't be opened.
pub fn open_test_engine(
    gateway: &str,
    connection: Option<&Connection>,
    folder: &Path,
) -> Result<Arc<dyn Engine>, GatewayError> {
    let config = match connection.map(|connection| (connection, connection.duckdb())) {
        None => EngineConfig::DuckDb(DuckDbConfig::new(None)),
        Some((_, Some(duckdb))) => {
            let database = duckdb.database.as_ref().map(|path| folder.join(path));
            EngineConfig::DuckDb(DuckDbConfig { database, ..duckdb_config(&duckdb, folder) })
        }
        Some((connection, None)) => {
            let gateway =
                Gateway { name: gateway.to_owned(), connection: connection.clone(), ..Gateway::default() };
            engine_config(&gateway, folder)?
        }
    };
    engine::open(&config, 1).map_err(|source| GatewayError::Engine { gateway: gateway.to_owned(), source })
}

/// What opening a gateway's engine needs.
///
/// # Errors
/// [`GatewayError`] when its kind isn't served or its settings lack something.
pub(crate) fn engine_config(gateway: &Gateway, folder: &Path) -> Result<EngineConfig, GatewayError> {
    let connection = &gateway.connection;
    if let Some(duckdb) = connection.duckdb() {
        return Ok(EngineConfig::DuckDb(duckdb_config(&duckdb, folder)));
    }
    if let Some(postgres) = connection.postgres() {
        return postgres_config(gateway, &postgres, folder);
    }
    if connection.kind == "noop" {
        return Ok(EngineConfig::Noop);
    }
    if connection.kind == "postgres" {
        let why = "host, port, user, password and database are needed".to_owned();
        return Err(GatewayError::Invalid { gateway: gateway.name.clone(), why });
    }
    Err(GatewayError::Unsupported { gateway: gateway.name.clone(), kind: connection.kind.clone() })
}

/// A database "in memory" would be gone with the process while the state remembers what it held, so
/// it is a file beside the project instead.
const WITHOUT_A_PATH: &str = ".coordctl/warehouse.duckdb";

fn duckdb_config(duckdb: &source::DuckDb, folder: &Path) -> DuckDbConfig {
    let place = |path: &str| -> PathBuf { folder.join(path) };
    let database = match &duckdb.database {
        Some(path) => Some(place(path)),
        None if duckdb.catalogs.is_empty() => Some(place(WITHOUT_A_PATH)),
        None => None,
    };
    let mut config = DuckDbConfig::new(database);
    config.catalogs = duckdb.catalogs.iter().map(|attach| catalog(attach, folder)).collect();
    config.extensions = duckdb.extensions.iter().filter_map(extension).collect();
    config.settings = duckdb
        .connector_config
        .iter()
        .map(|(name, value)| (name.clone(), Secret::new(plain(value))))
        .collect();
    config
}

fn catalog(attach: &source::Attach, folder: &Path) -> DuckDbCatalog {
    let path = attach.path.expose();
    // Only DuckDB's own files are relative to the project; other kinds have addresses.
    let is_file = attach.kind == "duckdb" && !path.contains(':') && !path.is_empty();
    let given = attach.options.iter().filter(|(_, value)| !matches!(value, Value::Bool(false) | Value::Null));
    let option = |(name, value): (&String, &Value)| match value {
        Value::Bool(_) => (name.to_uppercase(), String::new()),
        value => (name.to_uppercase(), plain(value)),
    };
    let mut options: BTreeMap<String, String> = given.map(option).collect();
    if attach.kind != "duckdb" {
        options.insert("TYPE".to_owned(), attach.kind.clone());
    }
    if attach.read_only {
        options.insert("READ_ONLY".to_owned(), String::new());
    }
    DuckDbCatalog {
        name: attach.name.clone(),
        path: if is_file { folder.join(path).display().to_string() } else { path.to_owned() },
        options,
    }
}

fn extension(value: &Value) -> Option<String> {
    match value {
        Value::Text(name) => Some(name.clone()),
        Value::Map(map) => map.get("name").map(plain),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::List(_) => None,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) => text.clone(),
        Value::List(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Map(_) => String::new(),
    }
}

fn postgres_config(
    gateway: &Gateway,
    postgres: &source::Postgres,
    folder: &Path,
) -> Result<EngineConfig, GatewayError> {
    let mut config = PostgresConfig::new(&postgres.host, postgres.port, &postgres.user, &postgres.database);
    config.password = Some(postgres.password.clone());
    config.role.clone_from(&postgres.role);
    config.ssl_mode = match postgres.sslmode.as_deref() {
        None | Some("prefer" | "allow") => SslMode::Prefer,
        Some("disable") => SslMode::Disable,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(other) => {
            let why = format!(
                "sslmode `{other}` is unknown; use disable, prefer, require, verify-ca or verify-full"
            );
            return Err(GatewayError::Invalid { gateway: gateway.name.clone(), why });
        }
    };
    config.ssl_root_cert = ssl_file(postgres.sslrootcert.as_deref(), "PGSSLROOTCERT", folder);
    config.ssl_identity = match (
        ssl_file(postgres.sslcert.as_deref(), "PGSSLCERT", folder),
        ssl_file(postgres.sslkey.as_deref(), "PGSSLKEY", folder),
    ) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            let why = "sslcert and sslkey belong together".to_owned();
            return Err(GatewayError::Invalid { gateway: gateway.name.clone(), why });
        }
    };
    config.connect_timeout = Duration::from_secs(u64::from(postgres.connect_timeout.max(1)));
    if let Some(seconds) = postgres.keepalives_idle {
        config.keepalives_idle = Duration::from_secs(u64::from(seconds.max(1)));
    }
    Ok(EngineConfig::Postgres(config))
}

/// A certificate's file: the connection's own, below the project, or libpq's environment variable's.
fn ssl_file(given: Option<&str>, variable: &str, folder: &Path) -> Option<PathBuf> {
    match given {
        Some(path) => Some(folder.join(path)),
        None => std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from),
    }
}

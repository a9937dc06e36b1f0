//! What is needed to open a warehouse.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coord_common::secret::Secret;

use super::adbc::AdbcConnector;
use super::batch::TransactionalEngine;
use super::error::EngineError;
use super::postgres::PostgresConnector;
use super::profile::Profile;
use super::scrub::{Scrubbed, Scrubber};
use super::{Engine, NoopEngine, duckdb};

/// A warehouse to open.
#[derive(Debug, Clone)]
pub enum EngineConfig {
    /// A PostgreSQL database.
    Postgres(PostgresConfig),
    /// A DuckDB database, within this process.
    DuckDb(DuckDbConfig),
    /// Any other warehouse through an ADBC driver and a profile.
    Adbc(Box<AdbcConfig>),
    /// No warehouse: see [`NoopEngine`].
    Noop,
}

/// Whether a PostgreSQL connection is encrypted, and what of the server's certificate is verified;
/// as libpq names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// If the server can; nothing is verified.
    #[default]
    Prefer,
    /// Always; an authority that is known is asked.
    Require,
    /// Always, with a certificate of a known authority.
    VerifyCa,
    /// Always, with a certificate of a known authority for this host.
    VerifyFull,
}

/// How to reach a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// A host name, an address, or the directory of a Unix socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The password, where one is needed.
    pub password: Option<Secret>,
    /// The database.
    pub database: String,
    /// A role to take on after connecting.
    pub role: Option<String>,
    /// Whether connections are encrypted.
    pub ssl_mode: SslMode,
    /// The file of the authorities (PEM) that the server's certificate may be of.
    pub ssl_root_cert: Option<PathBuf>,
    /// The files of the client's certificate and its key (PEM).
    pub ssl_identity: Option<(PathBuf, PathBuf)>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a connection may be silent, as while a statement runs, before the network is probed:
    /// some half a minute later one that is dead breaks.
    pub keepalives_idle: Duration,
    /// How long a statement waits for another's lock before it is tried again later.
    pub lock_timeout: Duration,
    /// The schema for what guards against doubled work; made on demand.
    pub ledger_schema: String,
}

impl PostgresConfig {
    /// A server's database with all else by default.
    pub fn new(host: &str, port: u16, user: &str, database: &str) -> Self {
        Self {
            host: host.to_owned(),
            port,
            user: user.to_owned(),
            password: None,
            database: database.to_owned(),
            role: None,
            ssl_mode: SslMode::default(),
            ssl_root_cert: None,
            ssl_identity: None,
            connect_timeout: Duration::from_secs(10),
            keepalives_idle: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(30),
            ledger_schema: DEFAULT_LEDGER.to_owned(),
        }
    }
}

/// The schema for what guards against doubled work, where none is set.
pub(crate) const DEFAULT_LEDGER: &str = "coordctl";

/// A DuckDB database and what is attached to it.
#[derive(Debug, Clone)]
pub struct DuckDbConfig {
    /// The file, made if missing; absent: in memory.
    pub database: Option<PathBuf>,
    /// Databases to attach in this order: name and what `ATTACH` takes after it. The first becomes
    /// the default one.
    pub catalogs: Vec<DuckDbCatalog>,
    /// Extensions to load, in this order.
    pub extensions: Vec<String>,
    /// Settings by name. They may be secret.
    pub settings: BTreeMap<String, Secret>,
    /// The library, instead of a search for one.
    pub library: Option<PathBuf>,
    /// The schema for what guards against doubled work; made on demand.
    pub ledger_schema: String,
}

/// A database to attach. Its address and options may hold passwords.
#[derive(Clone)]
pub struct DuckDbCatalog {
    /// The name that it gets.
    pub name: String,
    /// Its path or address.
    pub path: String,
    /// Options of `ATTACH`, by name (`TYPE`, `READ_ONLY`); an empty value is a flag.
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for DuckDbCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DuckDbCatalog").field("name", &self.name).finish_non_exhaustive()
    }
}

impl DuckDbConfig {
    /// A database file, or one in memory, with all else by default.
    pub fn new(database: Option<PathBuf>) -> Self {
        Self {
            database,
            catalogs: Vec::new(),
            extensions: Vec::new(),
            settings: BTreeMap::new(),
            library: None,
            ledger_schema: DEFAULT_LEDGER.to_owned(),
        }
    }
}

/// A warehouse through an ADBC driver.
#[derive(Debug, Clone)]
pub struct AdbcConfig {
    /// How the warehouse differs from others.
    pub profile: Profile,
    /// The driver's library.
    pub library: PathBuf,
    /// The driver's entry point; absent: by the library's name.
    pub entrypoint: Option<String>,
    /// Options of the database, by the driver's names. They may be secret.
    pub options: BTreeMap<String, Secret>,
    /// Statements for each new connection.
    pub on_connect: Vec<String>,
    /// The schema for what guards against doubled work; made on demand.
    pub ledger_schema: String,
}

/// Opens a warehouse for so many verbs at once. Connections are made when first used, so a server
/// that is down shows at [`Engine::ping`]; a DuckDB file is opened right away.
///
/// # Errors
/// Where the configuration can't work, a driver is missing, or a DuckDB file can't be opened.
pub fn open(config: &EngineConfig, concurrency: usize) -> Result<Arc<dyn Engine>, EngineError> {
    let scrubber = Scrubber::of(config);
    let engine = open_unscrubbed(config, concurrency).map_err(|error| scrubber.error(error))?;
    Ok(Arc::new(Scrubbed { engine, scrubber }))
}

fn open_unscrubbed(config: &EngineConfig, concurrency: usize) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(match config {
        EngineConfig::Postgres(config) => {
            let connector = Box::new(PostgresConnector::new(config)?);
            Arc::new(TransactionalEngine::new(connector, concurrency, &config.ledger_schema))
        }
        EngineConfig::DuckDb(config) => {
            let connector = Box::new(duckdb::connector(config)?);
            Arc::new(TransactionalEngine::new(connector, concurrency, &config.ledger_schema))
        }
        EngineConfig::Adbc(config) => {
            let connector = Box::new(AdbcConnector::open(config)?);
            Arc::new(TransactionalEngine::new(connector, concurrency, &config.ledger_schema))
        }
        EngineConfig::Noop => Arc::new(NoopEngine { concurrency }),
    })
}

//! A gateway's connection: its raw settings, and typed views of those we use.

use std::collections::BTreeMap;
use std::fmt;

use crate::project::render::Value;
use crate::sql::Dialect;

use super::yaml::to_sql;
use crate::secret::Secret;

/// How to reach a warehouse. Its settings are kept raw and never print.
#[derive(Clone, PartialEq, Default)]
pub struct Connection {
    /// The engine as SQLMesh names it, in lower case: `duckdb`, `postgres`, `bigquery`, …
    pub kind: String,
    /// How many tasks may use the warehouse at once; at least 1.
    pub concurrent_tasks: u32,
    /// All settings by name, as given; the secrets are among them.
    pub(crate) raw: BTreeMap<String, Value>,
    /// Names of the catalogs to attach, in the order of the file.
    pub(crate) catalog_order: Vec<String>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("kind", &self.kind)
            .field("concurrent_tasks", &self.concurrent_tasks)
            .field("default_catalog", &self.default_catalog())
            .finish_non_exhaustive()
    }
}

/// A DuckDB or MotherDuck connection.
#[derive(Debug, Clone, PartialEq)]
pub struct DuckDb {
    /// The database file; absent for one in memory.
    pub database: Option<String>,
    /// Databases to attach, in order; the first is the default catalog.
    pub catalogs: Vec<Attach>,
    /// Extensions to load, as given: a name, or a map with `name` and `repository`.
    pub extensions: Vec<Value>,
    /// `SET` options by name.
    pub connector_config: BTreeMap<String, Value>,
    /// `CREATE SECRET` statements' options, by secret name where they have one.
    pub secrets: Secrets,
    /// MotherDuck's token.
    pub token: Option<Secret>,
}

/// A database to attach.
#[derive(Clone, PartialEq)]
pub struct Attach {
    /// The catalog's name.
    pub name: String,
    /// What kind of database it is: `duckdb`, `postgres`, `ducklake`, …
    pub kind: String,
    /// Its path or connection string, which may hold a password.
    pub path: Secret,
    /// Whether it may only be read.
    pub read_only: bool,
    /// Other options, as given.
    pub options: BTreeMap<String, Value>,
}

impl fmt::Debug for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attach({} {})", self.kind, self.name)
    }
}

/// Options of `CREATE SECRET` statements, which never print.
#[derive(Clone, PartialEq, Default)]
pub struct Secrets(pub Vec<(Option<String>, BTreeMap<String, Value>)>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} of them)", self.0.len())
    }
}

/// A PostgreSQL connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Postgres {
    /// The server's host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The user to log in as.
    pub user: String,
    /// The user's password.
    pub password: Secret,
    /// The database.
    pub database: String,
    /// Seconds of silence before keepalives are sent.
    pub keepalives_idle: Option<u32>,
    /// Seconds to wait for a connection.
    pub connect_timeout: u32,
    /// The role to assume after login.
    pub role: Option<String>,
    /// `disable`, `prefer`, `require`, `verify-ca` or `verify-full`.
    pub sslmode: Option<String>,
    /// The file of the authorities of the server's certificate. SQLMesh leaves this and the next two to
    /// libpq's environment variables.
    pub sslrootcert: Option<String>,
    /// The file of the client's certificate.
    pub sslcert: Option<String>,
    /// The file of its key.
    pub sslkey: Option<String>,
    /// What the server lists the session as.
    pub application_name: Option<String>,
}

impl Connection {
    /// The dialect that the engine speaks, where we know it.
    pub fn dialect(&self) -> Option<Dialect> {
        match self.kind.as_str() {
            "gcp_postgres" => Some(Dialect::Postgres),
            "azuresql" => Some(Dialect::TSql),
            kind => kind.parse().ok(),
        }
    }

    /// Whether a failed connection is looked for before each use.
    pub fn pre_ping(&self) -> bool {
        match self.raw.get("pre_ping") {
            Some(Value::Bool(value)) => *value,
            _ => matches!(self.kind.as_str(), "postgres" | "gcp_postgres" | "mysql" | "mssql" | "redshift"),
        }
    }

    /// A setting as text, where it is a scalar. The caller must not print it.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.raw.get(name)? {
            Value::Text(text) => Some(text.clone()),
            Value::Null | Value::List(_) | Value::Map(_) => None,
            scalar @ (Value::Bool(_) | Value::Int(_) | Value::Float(_)) => {
                Some(to_sql(scalar).to_lowercase())
            }
        }
    }

    /// The settings of a DuckDB or MotherDuck connection.
    pub fn duckdb(&self) -> Option<DuckDb> {
        matches!(self.kind.as_str(), "duckdb" | "motherduck").then(|| DuckDb {
            database: self.text("database").filter(|path| path != ":memory:" && !path.is_empty()),
            catalogs: self.catalog_order.iter().filter_map(|name| self.attach(name)).collect(),
            extensions: list(self.raw.get("extensions")),
            connector_config: map(self.raw.get("connector_config")),
            secrets: secrets(self.raw.get("secrets")),
            token: self.text("token").map(Secret::new),
        })
    }

    /// The settings of a PostgreSQL connection, where all that it needs is there.
    pub fn postgres(&self) -> Option<Postgres> {
        let number = |name| self.text(name).and_then(|text| text.parse().ok());
        (self.kind == "postgres").then_some(())?;
        Some(Postgres {
            host: self.text("host")?,
            port: u16::try_from(number("port")?).ok()?,
            user: self.text("user")?,
            password: Secret::new(self.text("password")?),
            database: self.text("database")?,
            keepalives_idle: number("keepalives_idle"),
            connect_timeout: number("connect_timeout").unwrap_or(10),
            role: self.text("role"),
            sslmode: self.text("sslmode"),
            sslrootcert: self.text("sslrootcert"),
            sslcert: self.text("sslcert"),
            sslkey: self.text("sslkey"),
            application_name: self.text("application_name"),
        })
    }

    /// The catalog that names without one belong to, where the settings tell it.
    pub fn default_catalog(&self) -> Option<String> {
        match self.kind.as_str() {
            "duckdb" | "motherduck" => Some(match self.catalog_order.first() {
                Some(first) => first.clone(),
                None => catalog_of_path(&self.text("database").unwrap_or_default()),
            }),
            "bigquery" => self.text("project"),
            "gcp_postgres" => self.text("db"),
            "databricks" | "trino" => self.text("catalog"),
            "athena" => self.text("catalog_name"),
            "clickhouse" => self.text("virtual_catalog"),
            // These have no catalogs; their databases are what others call schemas.
            "mysql" | "starrocks" | "doris" => None,
            "spark" => self.text("catalog").or_else(|| Some("spark_catalog".to_owned())),
            _ => self.text("database"),
        }
    }

    fn attach(&self, name: &str) -> Option<Attach> {
        let Some(Value::Map(catalogs)) = self.raw.get("catalogs") else { return None };
        let options = match catalogs.get(name)? {
            Value::Map(options) => options.clone(),
            Value::Text(path) => BTreeMap::from([("path".to_owned(), Value::Text(path.clone()))]),
            _ => return None,
        };
        let text = |key: &str| match options.get(key) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let path = text("path").unwrap_or_default();
        let mut others = options.clone();
        others.retain(|option, _| !matches!(option.as_str(), "path" | "type" | "read_only" | "token"));
        Some(Attach {
            name: name.to_owned(),
            kind: text("type").unwrap_or_else(|| "duckdb".to_owned()),
            path: Secret::new(path),
            read_only: options.get("read_only") == Some(&Value::Bool(true)),
            options: others,
        })
    }
}

/// DuckDB's name for the catalog of a database file: the file's name up to its first dot.
pub(crate) fn catalog_of_path(path: &str) -> String {
    let path = path.strip_prefix("md:").unwrap_or(path);
    let path = path.split('?').next().unwrap_or_default();
    let file = path.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = file.trim_start_matches('.').split('.').next().unwrap_or_default();
    match stem {
        "" | ":memory:" => "memory".to_owned(),
        "main" | "temp" | "system" => format!("{stem}_db"),
        _ => stem.to_owned(),
    }
}

fn list(value: Option<&Value>) -> Vec<Value> {
    match value {
        Some(Value::List(items)) => items.clone(),
        _ => Vec::new(),
    }
}

fn map(value: Option<&Value>) -> BTreeMap<String, Value> {
    match value {
        Some(Value::Map(map)) => map.clone(),
        _ => BTreeMap::new(),
    }
}

fn secrets(value: Option<&Value>) -> Secrets {
    let named = |name: Option<&String>, value: &Value| match value {
        Value::Map(map) => Some((name.cloned(), map.clone())),
        _ => None,
    };
    Secrets(match value {
        Some(Value::List(items)) => items.iter().filter_map(|item| named(None, item)).collect(),
        Some(Value::Map(map)) => map.iter().filter_map(|(name, item)| named(Some(name), item)).collect(),
        _ => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::catalog_of_path;

    #[test]
    fn a_duckdb_catalog_is_named_after_its_file() {
        for (path, expected) in [
            ("", "memory"),
            (":memory:", "memory"),
            ("db.db", "db"),
            ("/a/b.c/my-x.y.duckdb", "my-x"),
            ("main.db", "main_db"),
            ("md:wh", "wh"),
        ] {
            assert_eq!(catalog_of_path(path), expected, "{path}");
        }
    }
}

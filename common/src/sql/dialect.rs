//! The dialects that models are written in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A SQL dialect, by SQLMesh's (sqlglot's) name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// No dialect in particular.
    #[default]
    Generic,
    /// DuckDB (and MotherDuck).
    DuckDb,
    /// PostgreSQL.
    Postgres,
    /// Google BigQuery.
    BigQuery,
    /// Snowflake.
    Snowflake,
    /// Databricks.
    Databricks,
    /// Apache Spark.
    Spark,
    /// MySQL (and Doris, StarRocks).
    MySql,
    /// Microsoft SQL Server.
    TSql,
    /// Microsoft Fabric: as SQL Server, but names keep their case.
    Fabric,
    /// Amazon Redshift.
    Redshift,
    /// ClickHouse.
    ClickHouse,
    /// SQLite.
    Sqlite,
    /// Trino (and Presto, Athena).
    Trino,
}

impl Dialect {
    /// The name as SQLMesh writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generic => "",
            Self::DuckDb => "duckdb",
            Self::Postgres => "postgres",
            Self::BigQuery => "bigquery",
            Self::Snowflake => "snowflake",
            Self::Databricks => "databricks",
            Self::Spark => "spark",
            Self::MySql => "mysql",
            Self::TSql => "tsql",
            Self::Fabric => "fabric",
            Self::Redshift => "redshift",
            Self::ClickHouse => "clickhouse",
            Self::Sqlite => "sqlite",
            Self::Trino => "trino",
        }
    }

    /// Normalises an identifier as the engine resolves it: `quoted` ones keep their case where the
    /// engine keeps it. Strategies as sqlglot's: DuckDB, SQL Server, SQLite, Spark, Trino fold
    /// even quoted names; PostgreSQL and Redshift fold unquoted ones to lower case, Snowflake to
    /// upper case; BigQuery, MySQL, Fabric and
    /// ClickHouse keep case.
    pub(crate) fn normalize(self, identifier: &str, quoted: bool) -> String {
        match self {
            Self::DuckDb
            | Self::TSql
            | Self::Sqlite
            | Self::Spark
            | Self::Databricks
            | Self::Trino
            | Self::Redshift => identifier.to_lowercase(),
            Self::Postgres | Self::Generic if !quoted => identifier.to_lowercase(),
            Self::Snowflake if !quoted => identifier.to_uppercase(),
            Self::Postgres
            | Self::Generic
            | Self::Snowflake
            | Self::BigQuery
            | Self::MySql
            | Self::Fabric
            | Self::ClickHouse => identifier.to_owned(),
        }
    }

    /// Whether it is Transact-SQL, of SQL Server or of Fabric.
    pub(crate) fn is_tsql(self) -> bool {
        matches!(self, Self::TSql | Self::Fabric)
    }

    /// Writes an identifier so that the engine takes it literally.
    pub fn quote(self, identifier: &str) -> String {
        match self {
            Self::BigQuery | Self::MySql | Self::Databricks | Self::Spark | Self::ClickHouse => {
                format!("`{}`", identifier.replace('`', "``"))
            }
            Self::TSql | Self::Fabric => format!("[{}]", identifier.replace(']', "]]")),
            Self::Generic
            | Self::DuckDb
            | Self::Postgres
            | Self::Snowflake
            | Self::Redshift
            | Self::Sqlite
            | Self::Trino => format!("\"{}\"", identifier.replace('"', "\"\"")),
        }
    }
}

/// No dialect has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a known dialect")]
pub struct UnknownDialect(pub String);

impl FromStr for Dialect {
    type Err = UnknownDialect;
    fn from_str(text: &str) -> Result<Self, UnknownDialect> {
        // Settings after a comma (`snowflake, normalization_strategy=…`) don't name the dialect.
        let name = text.split(',').next().unwrap_or("").trim().to_ascii_lowercase();
        Ok(match name.as_str() {
            "" => Self::Generic,
            "duckdb" | "motherduck" => Self::DuckDb,
            "postgres" | "postgresql" | "materialize" | "risingwave" => Self::Postgres,
            "bigquery" => Self::BigQuery,
            "snowflake" => Self::Snowflake,
            "databricks" => Self::Databricks,
            "spark" | "spark2" | "hive" => Self::Spark,
            "mysql" | "doris" | "starrocks" | "singlestore" => Self::MySql,
            "tsql" | "mssql" | "azuresql" => Self::TSql,
            "fabric" => Self::Fabric,
            "redshift" => Self::Redshift,
            "clickhouse" => Self::ClickHouse,
            "sqlite" => Self::Sqlite,
            "trino" | "presto" | "athena" | "dune" => Self::Trino,
            _ => return Err(UnknownDialect(text.to_owned())),
        })
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

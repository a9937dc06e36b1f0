//! PostgreSQL, natively: fencing needs exact control of what goes over the wire when.

use std::time::Duration;

use async_trait::async_trait;
use coord_common::project::model::ColumnDef;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{CancelToken, Client, SimpleQueryMessage};

use super::Rows;
use super::config::PostgresConfig;
use super::error::{Class, EngineError, class_of_sqlstate};
use super::postgres_tls::{PostgresTls, driver_mode};
use super::profile::Profile;
use super::session::{Answer, Canceller, Connector, Session};

/// Between keepalives on a connection that is silent.
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(10);
/// How many of them may go unanswered until the connection counts as broken.
const KEEPALIVES: u32 = 3;
/// How long what was sent may stay without an acknowledgement of the network.
const UNANSWERED: Duration = Duration::from_secs(60);

/// How long it may take to stop the statement of a session that nobody waits for any more.
const LAST_CANCEL: Duration = Duration::from_secs(10);

/// Makes connections to one database.
pub(crate) struct PostgresConnector {
    config: tokio_postgres::Config,
    settings: PostgresConfig,
    target: String,
    on_connect: String,
}

impl PostgresConnector {
    pub(crate) fn new(config: &PostgresConfig) -> Result<Self, EngineError> {
        // Files that can't serve are found at the start, not with the first batch.
        PostgresTls::new(config)?;
        let mut client = tokio_postgres::Config::new();
        client
            .host(&config.host)
            .port(config.port)
            .user(&config.user)
            .dbname(&config.database)
            .application_name("coordctl")
            .connect_timeout(config.connect_timeout)
            .keepalives_idle(config.keepalives_idle)
            .keepalives_interval(KEEPALIVES_INTERVAL)
            .keepalives_retries(KEEPALIVES)
            .tcp_user_timeout(UNANSWERED)
            .ssl_mode(driver_mode(config));
        if let Some(password) = &config.password {
            client.password(password.expose());
        }
        let mut on_connect = format!(
            "SET standard_conforming_strings = on; SET client_min_messages = warning; SET lock_timeout = {}",
            config.lock_timeout.as_millis()
        );
        if let Some(role) = &config.role {
            on_connect += &format!("; SET ROLE {}", Profile::POSTGRES.quote(role));
        }
        let target = format!("{}@{}:{}/{}", config.user, config.host, config.port, config.database);
        Ok(Self { config: client, settings: config.clone(), target, on_connect })
    }

    fn connect_error(&self, error: &tokio_postgres::Error) -> EngineError {
        let mut found = of_postgres(error);
        let hint = match found.code.as_deref() {
            Some("28P01" | "28000") => Some("check `user` and `password` of the connection, and pg_hba.conf"),
            Some("3D000") => Some("create the database, or correct `database` of the connection"),
            Some("53300") => Some("raise max_connections of the server or lower the worker's concurrency"),
            _ => None,
        };
        found.message = format!("failed to connect to {}: {}", self.target, found.message);
        found.hint = hint.map(str::to_owned);
        found
    }
}

#[async_trait]
impl Connector for PostgresConnector {
    fn profile(&self) -> &Profile {
        &Profile::POSTGRES
    }

    async fn connect(&self) -> Result<Box<dyn Session>, EngineError> {
        let tls = PostgresTls::new(&self.settings)?;
        let (client, connection) =
            self.config.connect(tls.clone()).await.map_err(|error| self.connect_error(&error))?;
        let pump = tokio::spawn(async move {
            // The client's calls fail with the same error.
            let _ = connection.await;
        });
        let session = PostgresSession { client, pump, tls, busy: false };
        session.client.batch_execute(&self.on_connect).await.map_err(|error| self.connect_error(&error))?;
        Ok(Box::new(session))
    }
}

struct PostgresSession {
    client: Client,
    pump: JoinHandle<()>,
    tls: PostgresTls,
    /// Whether a statement's answer is still out.
    busy: bool,
}

impl Drop for PostgresSession {
    fn drop(&mut self) {
        self.pump.abort();
        if let (true, Ok(runtime)) = (self.busy, Handle::try_current()) {
            // The server would only notice a closed connection when it has something to say.
            let cancel = self.client.cancel_token();
            let tls = self.tls.clone();
            runtime.spawn(async move { timeout(LAST_CANCEL, cancel.cancel_query(tls)).await });
        }
    }
}

#[async_trait]
impl Session for PostgresSession {
    async fn run(&mut self, statements: &[String]) -> Result<Vec<Answer>, EngineError> {
        let text = statements.join(";\n");
        self.busy = true;
        let answered = self.client.simple_query(&text).await;
        self.busy = false;
        let messages = answered.map_err(|error| of_postgres(&error))?;
        let mut answers = Vec::with_capacity(statements.len());
        let mut open = Answer::default();
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    open.rows.columns = columns.iter().map(|column| column.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    let cells = (0..row.len()).map(|at| row.get(at).map(str::to_owned));
                    open.rows.rows.push(cells.collect());
                }
                SimpleQueryMessage::CommandComplete(changed) => {
                    open.changed = changed;
                    answers.push(std::mem::take(&mut open));
                }
                _ => {}
            }
        }
        if let [_] = statements {
            // A user's text can hold several statements: the last one answers for it.
            answers = vec![answers.pop().unwrap_or_default()];
        }
        if answers.len() != statements.len() {
            let text = format!("{} statements gave {} answers", statements.len(), answers.len());
            return Err(EngineError::permanent(text).hint("a query must be one statement"));
        }
        Ok(answers)
    }

    async fn describe(&mut self, query: &str) -> Result<Vec<ColumnDef>, EngineError> {
        let statement = self.client.prepare(query).await.map_err(|error| of_postgres(&error))?;
        let columns = statement.columns();
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        let types =
            columns.iter().map(|c| format!("format_type({}, {})", c.type_().oid(), c.type_modifier()));
        let ask = format!("SELECT {}", types.collect::<Vec<_>>().join(", "));
        let mut answers = self.run(&[ask]).await?;
        let types = answers.pop().and_then(|mut answer| answer.rows.rows.pop()).unwrap_or_default();
        let column = |(column, data_type): (&tokio_postgres::Column, Option<String>)| ColumnDef {
            name: column.name().to_owned(),
            data_type: data_type.unwrap_or_else(|| column.type_().name().to_owned()),
        };
        Ok(columns.iter().zip(types).map(column).collect())
    }

    async fn query(&mut self, sql: &str) -> Result<Rows, EngineError> {
        let mut answers = self.run(&[sql.to_owned()]).await?;
        Ok(answers.pop().unwrap_or_default().rows)
    }

    fn canceller(&self) -> Box<dyn Canceller> {
        Box::new(PostgresCanceller { token: self.client.cancel_token(), tls: self.tls.clone() })
    }

    fn is_broken(&self) -> bool {
        self.client.is_closed()
    }
}

struct PostgresCanceller {
    token: CancelToken,
    tls: PostgresTls,
}

#[async_trait]
impl Canceller for PostgresCanceller {
    async fn cancel(&self) {
        // Best effort: the work is told again while it goes on.
        let _ = self.token.cancel_query(self.tls.clone()).await;
    }

    fn may_abandon(&self) -> bool {
        // Closing the socket is all that is left to do; no thread of ours hangs on it.
        true
    }
}

/// Which right a refusal says to be missing, in the words of a GRANT.
fn missing_right(message: &str) -> String {
    let after = |what: &str| message.split_once(what).map(|(_, name)| name.trim());
    if let Some(database) = after("permission denied for database") {
        return format!("GRANT CREATE ON DATABASE {database} TO the gateway's user, who makes schemas there");
    }
    if let Some(schema) = after("permission denied for schema") {
        return format!(
            "GRANT USAGE ON SCHEMA {schema} TO the gateway's user, and CREATE where it makes tables"
        );
    }
    if let Some(what) = after("must be owner of") {
        return format!("make the gateway's user the owner of {what}, or a member of its owner's role");
    }
    match after("permission denied for").and_then(|what| what.split_once(' ')) {
        Some(("function" | "procedure", name)) => {
            format!("GRANT EXECUTE ON FUNCTION {name} TO the gateway's user")
        }
        Some(("table" | "view" | "sequence" | "relation", name)) => {
            format!("GRANT SELECT ON {name} TO the gateway's user; what it writes it must own")
        }
        _ => "the gateway's user lacks a right that this takes".to_owned(),
    }
}

/// An error of the server or the connection. The server's text never repeats the password; data
/// values in its details are left out.
fn of_postgres(error: &tokio_postgres::Error) -> EngineError {
    if let Some(server) = error.as_db_error() {
        let code = server.code().code();
        let mut class = class_of_sqlstate(code);
        if code == "23505" && server.schema() == Some("pg_catalog") {
            // Two who create the same schema or table at once: the second try finds it.
            return EngineError::transient(server.message()).code("40001");
        }
        if code == "57014" && server.message().contains("statement timeout") {
            class = Class::Resource;
        }
        let mut message = server.message().to_owned();
        if let Some(detail) = server.detail().filter(|_| code == "2BP01") {
            message = format!("{message}: {}", detail.replace('\n', "; "));
        }
        let missing = (code == "42501").then(|| missing_right(&message));
        let hint = server.hint().map(str::to_owned).or(missing);
        return EngineError { class, code: Some(code.to_owned()), message, hint };
    }
    let source = std::error::Error::source(error).map(ToString::to_string);
    let message = match source {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    if message.contains("password") {
        return EngineError::permanent(message).code("28P01");
    }
    EngineError::transient(message).code("08006")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_right_that_is_missing() {
        for (message, hint) in [
            ("permission denied for database wh", "GRANT CREATE ON DATABASE wh TO"),
            ("permission denied for schema shop", "GRANT USAGE ON SCHEMA shop TO"),
            ("permission denied for table raw", "GRANT SELECT ON raw TO"),
            ("permission denied for function pg_sleep", "GRANT EXECUTE ON FUNCTION pg_sleep TO"),
            ("must be owner of view a", "make the gateway's user the owner of view a"),
            ("something else", "the gateway's user lacks a right"),
        ] {
            assert!(missing_right(message).starts_with(hint), "{message}: {}", missing_right(message));
        }
    }
}

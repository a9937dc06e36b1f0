//! Any warehouse with an ADBC driver: the driver is a library loaded at run time.
//!
//! Drivers block, so each connection has a thread of its own.

use std::any::Any;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use adbc_core::options::{AdbcVersion, OptionDatabase, OptionValue};
use adbc_core::{CancelHandle, Connection, Database, Driver, Statement};
use adbc_driver_manager::{ManagedConnection, ManagedDatabase, ManagedDriver};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use async_trait::async_trait;
use coord_common::project::model::ColumnDef;
use tokio::sync::{OnceCell, oneshot};

use super::Rows;
use super::config::AdbcConfig;
use super::error::{EngineError, class_of_sqlstate, of_duckdb_message};
use super::profile::{Describe, Profile};
use super::session::{Answer, Canceller, Connector, Session};

/// An open database. It is released once no connection is left, and `after` only then.
pub(crate) struct SharedDatabase {
    // Fields are dropped in this order.
    database: ManagedDatabase,
    _after: Box<dyn Any + Send + Sync>,
    _open: Open,
}

impl SharedDatabase {
    pub(crate) fn new(database: ManagedDatabase, after: Box<dyn Any + Send + Sync>) -> Self {
        Self { database, _after: after, _open: Open::new() }
    }
}

/// How many databases are open in this process, and what tells that one was closed.
static DATABASES: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// Counts a database in for as long as it is open.
struct Open(());

impl Open {
    fn new() -> Self {
        *DATABASES.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        *DATABASES.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        DATABASES.1.notify_all();
    }
}

/// Waits until the databases that nobody uses any more are closed; false when one still isn't after
/// `patience`. To call before a process ends: connections end on threads of their own, the last one
/// writes the database's file out, and a library must not be torn down under it.
pub fn wait_until_closed(patience: Duration) -> bool {
    let open = DATABASES.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = DATABASES.1.wait_timeout_while(open, patience, |open| *open > 0);
    *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
}

/// Makes connections to one database of a driver.
pub(crate) struct AdbcConnector {
    profile: Profile,
    database: Arc<SharedDatabase>,
    /// Statements for the first connection only.
    once: Vec<String>,
    once_done: OnceCell<()>,
    /// Statements for each connection.
    on_connect: Vec<String>,
}

impl AdbcConnector {
    pub(crate) fn open(config: &AdbcConfig) -> Result<Self, EngineError> {
        let mut driver = load(&config.library, config.entrypoint.as_deref())?;
        let options = config.options.iter().map(|(name, value)| {
            (OptionDatabase::from(name.as_str()), OptionValue::String(value.expose().to_owned()))
        });
        let database = driver.new_database_with_opts(options).map_err(|error| of_adbc(&error))?;
        Ok(Self::new(
            config.profile.clone(),
            Arc::new(SharedDatabase::new(database, Box::new(()))),
            Vec::new(),
            config.on_connect.clone(),
        ))
    }

    pub(crate) fn new(
        profile: Profile,
        database: Arc<SharedDatabase>,
        once: Vec<String>,
        on_connect: Vec<String>,
    ) -> Self {
        Self { profile, database, once, once_done: OnceCell::new(), on_connect }
    }
}

/// Loads a driver.
pub(crate) fn load(library: &Path, entrypoint: Option<&str>) -> Result<ManagedDriver, EngineError> {
    let entrypoint = entrypoint.map(str::as_bytes);
    ManagedDriver::load_dynamic_from_filename(library, entrypoint, AdbcVersion::V110).map_err(|error| {
        EngineError::permanent(format!(
            "failed to load the driver `{}`: {}",
            library.display(),
            error.message
        ))
    })
}

#[async_trait]
impl Connector for AdbcConnector {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    async fn connect(&self) -> Result<Box<dyn Session>, EngineError> {
        let mut session = AdbcSession::start(self.database.clone(), self.profile.describe).await?;
        let first = async {
            for statement in &self.once {
                session.run(std::slice::from_ref(statement)).await?;
            }
            Ok::<(), EngineError>(())
        };
        self.once_done.get_or_try_init(|| first).await?;
        for statement in &self.on_connect {
            session.run(std::slice::from_ref(statement)).await?;
        }
        Ok(Box::new(session))
    }
}

/// What the thread of a connection is told to do.
type Job = Box<dyn FnOnce(&mut Live) + Send>;

/// The handle that stops the statement which runs now.
type Running = Arc<Mutex<Option<Box<dyn CancelHandle>>>>;

struct AdbcSession {
    describe: Describe,
    jobs: Sender<Job>,
    running: Running,
    broken: bool,
}

/// A connection on its thread.
struct Live {
    connection: ManagedConnection,
    running: Running,
}

impl AdbcSession {
    async fn start(database: Arc<SharedDatabase>, describe: Describe) -> Result<Self, EngineError> {
        let (jobs, inbox) = channel::<Job>();
        let (ready, connected) = oneshot::channel();
        let running = Running::default();
        let shared = running.clone();
        let serve = move || {
            let connection = match database.database.new_connection() {
                Ok(connection) => connection,
                Err(error) => {
                    let _ = ready.send(Err(of_adbc(&error)));
                    return;
                }
            };
            let mut live = Live { connection, running: shared };
            if ready.send(Ok(())).is_ok() {
                // Ends when the session is dropped; the driver then rolls back what is open.
                while let Ok(job) = inbox.recv() {
                    job(&mut live);
                }
            }
        };
        std::thread::Builder::new()
            .name("adbc".to_owned())
            .spawn(serve)
            .map_err(|error| EngineError::transient(format!("failed to start a thread: {error}")))?;
        connected.await.map_err(|_| thread_gone())??;
        Ok(Self { describe, jobs, running, broken: false })
    }

    /// Lets the connection's thread do something.
    async fn on_thread<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Live) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |live| {
            let _ = reply.send(work(live));
        });
        let sent = self.jobs.send(job).is_ok();
        match answer.await {
            Ok(result) if sent => result,
            _ => {
                self.broken = true;
                Err(thread_gone())
            }
        }
    }
}

fn thread_gone() -> EngineError {
    EngineError::transient("the connection's thread ended").code("08006")
}

impl Drop for AdbcSession {
    fn drop(&mut self) {
        // Whoever drops the session no longer wants what may still run on it.
        stop(&self.running);
    }
}

fn stop(running: &Running) {
    if let Some(handle) = &*running.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = handle.try_cancel();
    }
}

#[async_trait]
impl Session for AdbcSession {
    async fn run(&mut self, statements: &[String]) -> Result<Vec<Answer>, EngineError> {
        let statements = statements.to_vec();
        self.on_thread(move |live| statements.iter().map(|statement| live.execute(statement)).collect()).await
    }

    async fn describe(&mut self, query: &str) -> Result<Vec<ColumnDef>, EngineError> {
        if self.describe == Describe::ArrowSchema {
            let query = query.to_owned();
            return self.on_thread(move |live| live.schema(&query)).await;
        }
        let describe = format!("DESCRIBE {query}");
        let answer = self.on_thread(move |live| live.execute(&describe)).await?;
        let column = |row: Vec<Option<String>>| {
            let mut cells = row.into_iter().flatten();
            Some(ColumnDef { name: cells.next()?, data_type: cells.next()? })
        };
        Ok(answer.rows.rows.into_iter().filter_map(column).collect())
    }

    async fn query(&mut self, sql: &str) -> Result<Rows, EngineError> {
        // The warehouse itself turns values into text: it knows its types best.
        let described = self.describe(sql).await?;
        // By position, since two columns may have one name.
        let places = || (0..described.len()).map(|at| format!("c{at}"));
        let casts = places().map(|place| format!("CAST({place} AS VARCHAR)")).collect::<Vec<_>>().join(", ");
        let names = places().collect::<Vec<_>>().join(", ");
        let text = format!("SELECT {casts} FROM ({sql}\n) AS _q({names})");
        let mut rows = self.on_thread(move |live| live.execute(&text)).await?.rows;
        rows.columns = described.into_iter().map(|column| column.name).collect();
        Ok(rows)
    }

    fn canceller(&self) -> Box<dyn Canceller> {
        Box::new(AdbcCanceller(self.running.clone()))
    }

    fn is_broken(&self) -> bool {
        self.broken
    }
}

struct AdbcCanceller(Running);

#[async_trait]
impl Canceller for AdbcCanceller {
    async fn cancel(&self) {
        stop(&self.0);
    }

    fn may_abandon(&self) -> bool {
        // Its thread works on in this process: whoever takes its place must wait for it.
        false
    }
}

impl Live {
    fn execute(&mut self, sql: &str) -> Result<Answer, EngineError> {
        let mut statement = self.connection.new_statement().map_err(|error| of_adbc(&error))?;
        statement.set_sql_query(sql).map_err(|error| of_adbc(&error))?;
        let _guard = Guard::new(&self.running, statement.get_cancel_handle());
        let wanted = wanted(sql);
        if wanted == Wanted::Changed {
            let changed = statement.execute_update().map_err(|error| of_adbc(&error))?;
            let changed = changed.and_then(|changed| changed.try_into().ok()).unwrap_or_default();
            return Ok(Answer { changed, rows: Rows::default() });
        }
        let reader = statement.execute().map_err(|error| of_adbc(&error))?;
        let columns = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut rows = Rows { columns, rows: Vec::new() };
        for batch in reader {
            append(&mut rows.rows, &batch.map_err(|error| of_duckdb_message(&error.to_string()))?)?;
        }
        let created = wanted == Wanted::Created && rows.columns == ["Count"];
        let mut answer = Answer { changed: 0, rows };
        if created {
            answer.changed = answer.cell().and_then(|cell| cell.parse().ok()).unwrap_or_default();
        }
        Ok(answer)
    }
}

impl Live {
    /// A query's columns by its Arrow schema.
    fn schema(&mut self, query: &str) -> Result<Vec<ColumnDef>, EngineError> {
        let mut statement = self.connection.new_statement().map_err(|error| of_adbc(&error))?;
        statement.set_sql_query(query).map_err(|error| of_adbc(&error))?;
        let schema = statement.execute_schema().map_err(|error| of_adbc(&error))?;
        let column = |field: &arrow_schema::FieldRef| ColumnDef {
            name: field.name().clone(),
            data_type: standard_type(field.data_type()),
        };
        Ok(schema.fields().iter().map(column).collect())
    }
}

/// The standard SQL type closest to an Arrow type.
fn standard_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "SMALLINT".to_owned(),
        DataType::Int32 | DataType::UInt16 => "INTEGER".to_owned(),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "BIGINT".to_owned(),
        DataType::Float16 | DataType::Float32 => "REAL".to_owned(),
        DataType::Float64 => "DOUBLE PRECISION".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Date32 | DataType::Date64 => "DATE".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".to_owned(),
        DataType::Timestamp(_, None) => "TIMESTAMP".to_owned(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE".to_owned(),
        _ => "VARCHAR".to_owned(),
    }
}

/// Offers a statement's handle for as long as it runs.
struct Guard<'a>(&'a Running);

impl<'a> Guard<'a> {
    fn new(running: &'a Running, handle: Box<dyn CancelHandle>) -> Self {
        *running.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        Self(running)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What of a statement's answer is of use.
#[derive(PartialEq, Eq)]
enum Wanted {
    /// Its rows.
    Rows,
    /// The number of rows of the table that it made: DuckDB answers it as a row.
    Created,
    /// The number of rows that it changed.
    Changed,
}

fn wanted(sql: &str) -> Wanted {
    let word: String = sql.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
    match word.to_ascii_uppercase().as_str() {
        "SELECT" | "DESCRIBE" | "SHOW" => Wanted::Rows,
        "CREATE" => Wanted::Created,
        _ => Wanted::Changed,
    }
}

/// Adds a batch's rows as text.
fn append(rows: &mut Vec<Vec<Option<String>>>, batch: &RecordBatch) -> Result<(), EngineError> {
    for row in 0..batch.num_rows() {
        let cells = batch.columns().iter().map(|column| cell(column.as_ref(), row));
        rows.push(cells.collect::<Result<_, _>>()?);
    }
    Ok(())
}

/// One value as text, for the few types that our own statements return.
fn cell(column: &dyn Array, row: usize) -> Result<Option<String>, EngineError> {
    if column.is_null(row) {
        return Ok(None);
    }
    Ok(Some(match column.data_type() {
        DataType::Null => return Ok(None),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).to_owned(),
        DataType::Utf8View => column.as_string_view().value(row).to_owned(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).to_string(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        other => return Err(EngineError::permanent(format!("a value of type {other} can't be read"))),
    }))
}

/// An error of a driver: by its SQLSTATE where it has one, else by its message.
pub(crate) fn of_adbc(error: &adbc_core::error::Error) -> EngineError {
    let state: String = error.sqlstate.iter().map(|byte| char::from(byte.to_ne_bytes()[0])).collect();
    if state.chars().all(|c| c.is_ascii_alphanumeric()) && state != "00000" {
        // Details may hold data; a driver's message for a race between two who create the same
        // thing names an index of the catalogue.
        let message = error.message.split("\nDETAIL:").next().unwrap_or_default().trim();
        if state == "23505" && message.contains("constraint \"pg_") {
            return EngineError::transient(message).code("40001");
        }
        return EngineError::new(class_of_sqlstate(&state), message).code(state);
    }
    if error.status == adbc_core::error::Status::Cancelled {
        return EngineError::cancelled().code("57014");
    }
    of_duckdb_message(&error.message)
}

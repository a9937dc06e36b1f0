//! Warehouses for tests: a DuckDB file, and a PostgreSQL server that lives as long as the process.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use coord_common::id::Token;
use coord_common::project::model::ColumnDef;

use crate::engine::batch::TransactionalEngine;
use crate::engine::config::{DEFAULT_LEDGER, DuckDbConfig, PostgresConfig};
use crate::engine::postgres::PostgresConnector;
use crate::engine::{
    AuditQuery, BatchReport, BatchWrite, CancellationToken, Engine, EngineError, Fence, Relation, Write,
    duckdb,
};

/// A user whom the test server asks for a password.
pub(crate) const LOCKED_USER: &str = "locked";

/// One warehouse of a test's own.
pub(crate) struct Lab {
    pub(crate) engine: Arc<TransactionalEngine>,
    pub(crate) config: Option<PostgresConfig>,
    _folder: Option<tempfile::TempDir>,
}

impl Lab {
    pub(crate) async fn duckdb() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = DuckDbConfig::new(Some(folder.path().join("test.duckdb")));
        let connector =
            duckdb::connector(&config).unwrap_or_else(|error| panic!("{error}: {:?}", error.hint));
        let engine = Arc::new(TransactionalEngine::new(Box::new(connector), 4, DEFAULT_LEDGER));
        Self { engine, config: None, _folder: Some(folder) }
    }

    pub(crate) async fn postgres() -> Self {
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        let admin = server().await;
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let create = connect(&admin, 1);
        create.query(&format!("CREATE DATABASE {name}")).await.unwrap();
        let config = PostgresConfig { database: name, ..admin };
        Self { engine: connect(&config, 4), config: Some(config), _folder: None }
    }

    pub(crate) async fn run(&self, write: &BatchWrite) -> Result<BatchReport, EngineError> {
        self.engine.run_batch(write, &CancellationToken::new()).await
    }

    /// A query's values with commas between, NULL as `~`.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<String> {
        let rows = self.engine.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")).rows;
        let text = |cell: Option<String>| cell.unwrap_or_else(|| "~".to_owned());
        rows.into_iter().map(|row| row.into_iter().map(text).collect::<Vec<_>>().join(",")).collect()
    }
}

pub(crate) fn connect(config: &PostgresConfig, concurrency: usize) -> Arc<TransactionalEngine> {
    let connector = Box::new(PostgresConnector::new(config).unwrap());
    Arc::new(TransactionalEngine::new(connector, concurrency, DEFAULT_LEDGER))
}

/// A batch of the table `s.t` under a slot and a token.
pub(crate) fn batch(slot: &str, token: u64, write: Write) -> BatchWrite {
    BatchWrite {
        target: Relation::new("s", "t"),
        write,
        pre: Vec::new(),
        post: Vec::new(),
        audits: Vec::new(),
        fence: Fence {
            slot: slot.to_owned(),
            token: Token(token),
            plan: "plan".to_owned(),
            table: "s.t".to_owned(),
            supersedes: Vec::new(),
        },
        columns: None,
        raised: false,
        replayed_is_done: true,
        known_columns_only: false,
        first: false,
        aside: None,
    }
}

/// One day's rows: `n` numbers on each of the days around it.
pub(crate) fn day(day: u32, n: u32) -> Write {
    Write::TimeRange {
        query: format!(
            "SELECT i, CAST('2024-01-{day:02}' AS DATE) + o AS ds FROM generate_series(1, {n}) AS a(i), \
             (VALUES (-1), (0), (1)) AS b(o) -- a comment at the end"
        ),
        column: "ds".to_owned(),
        low: format!("'2024-01-{day:02} 00:00:00+00:00'").into(),
        high: format!("'2024-01-{day:02} 23:59:59.999999+00:00'").into(),
    }
}

pub(crate) fn audit(name: &str, sql: &str, blocking: bool) -> AuditQuery {
    AuditQuery { name: name.to_owned(), sql: sql.to_owned(), audited: None, blocking }
}

pub(crate) fn column(name: &str, data_type: &str) -> ColumnDef {
    ColumnDef { name: name.to_owned(), data_type: data_type.to_owned() }
}

/// Starts a server once. Its shell waits for the end of its input, which is the end of this
/// process however that comes, then stops the server and removes its files.
const SERVER: &str = r#"
set -e
bin=/usr/lib/postgresql/15/bin
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
$bin/initdb -D data -A trust -U postgres -N >/dev/null
sed -i "1i host all locked 127.0.0.1/32 scram-sha-256" data/pg_hba.conf
$bin/postgres -D data -p "$1" -k "$folder" -c listen_addresses=127.0.0.1 -c max_connections=300 -c fsync=off -c log_min_messages=fatal 2>/dev/null >/dev/null </dev/null &
server=$!
read -r _ || true
kill -INT $server
wait $server || true
"#;

async fn server() -> PostgresConfig {
    static SERVER_OF_ALL: Mutex<Option<(Child, u16)>> = Mutex::new(None);
    let (port, started) = {
        let mut server = SERVER_OF_ALL.lock().unwrap();
        let started = server.is_none();
        (server.get_or_insert_with(start).1, started)
    };
    let config = PostgresConfig::new("127.0.0.1", port, "postgres", "postgres");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match connect(&config, 1).ping().await {
            Ok(_) => break,
            Err(error) if Instant::now() > deadline => panic!("the test server did not start: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    if started {
        let role = format!("CREATE ROLE {LOCKED_USER} LOGIN PASSWORD 'right'");
        connect(&config, 1).query(&role).await.unwrap();
    }
    config
}

fn start() -> (Child, u16) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    let mut command = if root {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", "sh"]);
        command
    } else {
        Command::new("sh")
    };
    let mut child = command
        .args(["-c", SERVER, "sh", &port.to_string()])
        .current_dir("/tmp")
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell starts");
    child.stdin.as_mut().unwrap().flush().unwrap();
    (child, port)
}

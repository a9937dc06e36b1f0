//! What only DuckDB has: several catalogs, and a file that belongs to one process.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::lab::{batch, day};
use crate::engine::batch::TransactionalEngine;
use crate::engine::config::{DEFAULT_LEDGER, DuckDbCatalog, DuckDbConfig, EngineConfig, open};
use crate::engine::{
    CancellationToken, Class, Engine, EngineError, Relation, Switched, ViewChange, ViewSwitch, Write, duckdb,
};

fn engine(config: &DuckDbConfig) -> Result<Arc<TransactionalEngine>, EngineError> {
    let connector = Box::new(duckdb::connector(config)?);
    Ok(Arc::new(TransactionalEngine::new(connector, 4, DEFAULT_LEDGER)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_catalog_has_transactions_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = |name: &str| DuckDbCatalog {
        name: name.to_owned(),
        path: folder.path().join(format!("{name}.duckdb")).to_string_lossy().into_owned(),
        options: Default::default(),
    };
    let config = DuckDbConfig {
        catalogs: vec![catalog("first"), catalog("second")],
        settings: [("memory_limit", "512MB"), ("TimeZone", "Asia/Tokyo")]
            .map(|(name, value)| (name.to_owned(), coord_common::secret::Secret::new(value)))
            .into(),
        ..DuckDbConfig::new(None)
    };
    let engine = engine(&config).unwrap();
    let cancel = CancellationToken::new();
    let mut views = Vec::new();
    for catalog in ["first", "second"] {
        let mut write = batch("d", 1, day(1, 2));
        write.target.catalog = Some(catalog.to_owned());
        assert_eq!(engine.run_batch(&write, &cancel).await.unwrap().rows, 2);
        let view = Relation { catalog: Some(catalog.to_owned()), ..Relation::new("v", "t") };
        views.push(ViewChange { view, target: write.target, on_virtual_update: Vec::new() });
    }
    let switch = ViewSwitch {
        environment: "prod".to_owned(),
        seq: 1,
        views,
        drop: Vec::new(),
        drop_schemas: Vec::new(),
    };
    assert_eq!(engine.switch_views(&switch, &cancel).await.unwrap(), Switched::Done);
    let rows = engine.query("SELECT COUNT(*) FROM v.t, second.v.t AS other").await.unwrap();
    assert_eq!(rows.rows, [[Some("4".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_file_opened_twice_in_one_process_is_one_database() {
    let folder = tempfile::tempdir().unwrap();
    let config = DuckDbConfig::new(Some(folder.path().join("new/folder/x.duckdb")));
    let (one, two) = (engine(&config).unwrap(), engine(&config).unwrap());
    one.run_batch(&batch("d", 1, day(1, 2)), &CancellationToken::new()).await.unwrap();
    let rows = two.query("SELECT COUNT(*) FROM s.t").await.unwrap();
    assert_eq!(rows.rows, [[Some("2".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_can_be_closed_and_opened_again_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = DuckDbConfig::new(Some(folder.path().join("x.duckdb")));
    for number in 1..=20_u32 {
        let engine = engine(&config).unwrap();
        let write = batch(&format!("d{number}"), 1, day(number, 1));
        engine.run_batch(&write, &CancellationToken::new()).await.unwrap();
    }
    let rows = engine(&config).unwrap().query("SELECT COUNT(*) FROM s.t").await.unwrap();
    assert_eq!(rows.rows, [[Some("20".to_owned())]]);
}

/// The variable that tells this test program to be the process that holds a file.
const HOLD: &str = "COORDCTL_TEST_HOLD_FILE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_another_process_is_refused_and_the_process_named() {
    if let Some(path) = std::env::var_os(HOLD) {
        let held = engine(&DuckDbConfig::new(Some(path.into()))).unwrap();
        held.ping().await.unwrap();
        println!("held");
        let _ = std::io::stdin().read_line(&mut String::new());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.duckdb");
    let filter = "a_file_of_another_process_is_refused_and_the_process_named";
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args([filter, "--nocapture"])
        .env(HOLD, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("held")), "the other process opens the file");
    let error = open(&EngineConfig::DuckDb(DuckDbConfig::new(Some(path))), 1).err().unwrap();
    assert_eq!(error.class, Class::Permanent, "{error:?}");
    assert!(error.hint.unwrap().contains(&other.id().to_string()));
    other.stdin.take().unwrap().write_all(b"\n").unwrap();
    other.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_failed_is_never_committed() {
    let engine = engine(&DuckDbConfig::new(None)).unwrap();
    let cancel = CancellationToken::new();
    engine.run_batch(&batch("d", 1, day(1, 2)), &cancel).await.unwrap();
    let mut write =
        batch("e", 1, Write::Append { query: "SELECT 1 AS i, DATE '2024-01-01' AS ds".to_owned() });
    write.post = vec!["SELECT error('no')".to_owned()];
    assert!(engine.run_batch(&write, &cancel).await.is_err());
    write.post.clear();
    assert_eq!(engine.run_batch(&write, &cancel).await.unwrap().rows, 1);
    let rows = engine.query("SELECT COUNT(*) FROM s.t").await.unwrap();
    assert_eq!(rows.rows, [[Some("3".to_owned())]]);
}

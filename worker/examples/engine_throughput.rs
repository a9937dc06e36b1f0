//! Measures how many trivial batches per second an engine writes, by number of connections.
//!
//! `engine_throughput duckdb FILE` or `engine_throughput postgres HOST PORT USER DATABASE`

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coord_common::id::Token;
use worker::engine::{
    BatchWrite, Bound, CancellationToken, DuckDbConfig, Engine, EngineConfig, EngineError, Fence,
    PostgresConfig, Relation, Write, open,
};

/// How long each number of connections is measured.
const MEASURED: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let config = match args.as_slice() {
        ["duckdb", file] => EngineConfig::DuckDb(DuckDbConfig::new(Some((*file).into()))),
        ["postgres", host, port, user, database] => {
            EngineConfig::Postgres(PostgresConfig::new(host, port.parse()?, user, database))
        }
        ["noop"] => EngineConfig::Noop,
        _ => {
            return Err(
                "usage: engine_throughput duckdb FILE | postgres HOST PORT USER DATABASE | noop".into()
            );
        }
    };
    let run = std::process::id();
    for connections in [1, 4, 16] {
        let engine = open(&config, connections)?;
        let rate = measure(&engine, connections, &format!("{run}-{connections}")).await?;
        println!("{connections:>2} connections: {rate:>6.0} batches/s");
    }
    Ok(())
}

async fn measure(engine: &Arc<dyn Engine>, connections: usize, run: &str) -> Result<f64, EngineError> {
    let next = Arc::new(AtomicU64::new(0));
    engine.run_batch(&batch(run, 0), &CancellationToken::new()).await?;
    let started = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (engine, next, run) = (engine.clone(), next.clone(), run.to_owned());
        all.spawn(async move {
            while started.elapsed() < MEASURED {
                let number = next.fetch_add(1, Ordering::Relaxed) + 1;
                engine.run_batch(&batch(&run, number), &CancellationToken::new()).await?;
            }
            Ok::<(), EngineError>(())
        });
    }
    while let Some(done) = all.join_next().await {
        done.map_err(|_| panic!("a measuring task ended early"))??;
    }
    Ok(next.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64())
}

/// One day of one of eight tables: one row.
fn batch(run: &str, number: u64) -> BatchWrite {
    let (table, day) = (number % 8, number / 8);
    // Digits in quotes only, as in rendered models: their columns are then described once.
    let date = format!("DATE '2020-01-01' + CAST('{day}' AS INT)");
    BatchWrite {
        target: Relation::new(format!("bench_{run}"), format!("t{table}")),
        write: Write::TimeRange {
            query: format!("SELECT {date} AS ds, '{number}' AS n"),
            column: "ds".to_owned(),
            low: Bound { time: date.clone(), own: date.clone() },
            high: Bound { time: date.clone(), own: date },
        },
        pre: Vec::new(),
        post: Vec::new(),
        audits: Vec::new(),
        fence: Fence {
            slot: format!("{run}/{number}"),
            token: Token(number + 1),
            plan: "bench".to_owned(),
            table: "bench".to_owned(),
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

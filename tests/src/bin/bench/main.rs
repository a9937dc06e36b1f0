//! Measures the orchestrator: how many batches per second it gets through, what each costs, and
//! how close it comes to the ideal.
//!
//! `cargo run --release -p coord-tests --bin bench -- [all|noop|postgres|duckdb|chain|apply]…`
//!
//! All is real: processes, etcd with flushes, PostgreSQL, DuckDB. With `BENCH_SQLMESH` set to a
//! Python that can import SQLMesh, it does the same work in the same run.

#![allow(missing_docs, unreachable_pub, reason = "a program, not a library")]

mod fleet;
mod process;
mod project;
mod sqlmesh;

use coord_tests::postgres::Postgres;

use fleet::{Measured, Slots};
use project::{Project, Shape, Warehouse};

fn main() -> anyhow::Result<()> {
    let all = ["noop", "postgres", "duckdb", "chain", "apply"];
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() || wanted.iter().any(|part| part == "all") {
        wanted = all.map(str::to_owned).to_vec();
    }
    for part in &wanted {
        match part.as_str() {
            "noop" => noop()?,
            "postgres" => postgres()?,
            "duckdb" => duckdb()?,
            "chain" => chain()?,
            "apply" => apply()?,
            other => anyhow::bail!("there is no part `{other}`; choose from {all:?}"),
        }
    }
    Ok(())
}

/// A project of trivial queries in four layers.
fn layered(models: usize, days: usize, concurrency: usize, warehouse: Warehouse) -> Project {
    let shape = Shape::Layered { layers: 4 };
    Project { schema: "bench", shape, models, days, parallel: true, work_millis: 0, concurrency, warehouse }
}

fn row(what: &str, measured: &Measured) {
    println!(
        "{what:<34} {:>7} batches {:>8.0}/s {:>7.3} ms CPU each  apply {:>7.2} s  plan {:>6.2} s  \
         (coordinator {:.2} s, workers {:.2} s CPU)",
        measured.batches,
        measured.rate(),
        measured.cpu_per_batch(),
        measured.apply,
        measured.plan,
        measured.coordinator,
        measured.workers,
    );
}

/// Coordinator, etcd and workers alone.
fn noop() -> anyhow::Result<()> {
    println!("# no warehouse, etcd; wanted: at least 2,000 batches/s");
    for (workers, each) in [(1, 16), (4, 16), (4, 64)] {
        let project = layered(40, 500, 1024, Warehouse::Noop);
        let measured = fleet::on_fleet(&project, Slots { workers, each })?;
        row(&format!("noop, {workers} workers × {each} slots"), &measured);
    }
    Ok(())
}

/// Trivial SQL on PostgreSQL.
fn postgres() -> anyhow::Result<()> {
    println!("# PostgreSQL, trivial SQL, etcd; wanted: at most 0.3 ms CPU per batch, 10 × SQLMesh's rate");
    for slots in [1, 4, 16] {
        let server = Postgres::start();
        let warehouse = Warehouse::Postgres { port: server.port(), database: "postgres".to_owned() };
        let project = layered(20, 50 * slots.min(4), slots, warehouse);
        let measured = fleet::on_fleet(&project, Slots { workers: 1, each: slots })?;
        row(&format!("postgres, {slots} slots"), &measured);
        if let Some(python) = sqlmesh::python() {
            let server = Postgres::start();
            let warehouse = Warehouse::Postgres { port: server.port(), database: "postgres".to_owned() };
            let measured = sqlmesh::run(&python, &layered(10, 30, slots, warehouse), &[])?;
            row(&format!("  SQLMesh, {slots} concurrent tasks"), &measured);
        }
    }
    Ok(())
}

/// Trivial SQL on DuckDB, all in one process.
fn duckdb() -> anyhow::Result<()> {
    println!("# DuckDB, trivial SQL, all in one process: the CPU time is DuckDB's, too");
    for concurrency in [1, 4, 16] {
        let measured = fleet::embedded(&layered(20, 50, concurrency, Warehouse::DuckDb), &[])?;
        row(&format!("duckdb embedded, {concurrency} slots"), &measured);
    }
    if let Some(python) = sqlmesh::python() {
        let measured = sqlmesh::run(&python, &layered(10, 30, 4, Warehouse::DuckDb), &[])?;
        row("  SQLMesh, 4 concurrent tasks", &measured);
    }
    Ok(())
}

/// How close a chain of slow models comes to the ideal.
fn chain() -> anyhow::Result<()> {
    println!(
        "# chain of 10 models × 60 batches on 16 workers, PostgreSQL, etcd; wanted: at most 1.05 × ideal"
    );
    let (models, days, slots) = (10, 60, 16);
    for (parallel, work_millis) in [(false, 50), (true, 50), (false, 500)] {
        let server = Postgres::start();
        let warehouse = Warehouse::Postgres { port: server.port(), database: "postgres".to_owned() };
        let shape = Shape::Chain;
        let project = Project {
            schema: "bench",
            shape,
            models,
            days,
            parallel,
            work_millis,
            concurrency: slots,
            warehouse,
        };
        let measured = fleet::on_fleet(&project, Slots { workers: slots, each: 1 })?;
        // Either the longest path, or the slots are the bound.
        let path = if parallel { models } else { models + days - 1 };
        let rounds = path.max((models * days).div_ceil(slots));
        let ideal = rounds as f64 * f64::from(work_millis) / 1000.0;
        let limit = if parallel { "unset" } else { "1" };
        row(&format!("{work_millis} ms, batch_concurrency {limit}"), &measured);
        println!("{:<34} ideal {ideal:.2} s, took {:.3} × ideal", "", measured.apply / ideal);
    }
    Ok(())
}

/// Tables and views of many models, nothing computed.
fn apply() -> anyhow::Result<()> {
    println!("# apply with nothing to compute, DuckDB in one process; wanted: 1,000 models in 10 s, linear");
    for models in [100, 300, 1000] {
        for flag in ["--skip-backfill", "--empty-backfill"] {
            let project = layered(models, 30, 4, Warehouse::DuckDb);
            let measured = fleet::embedded(&project, &[flag])?;
            println!(
                "{models:>5} models {flag:<18} apply {:>6.2} s  plan {:>5.2} s  {:>6.2} ms per model  CPU {:.2} s",
                measured.apply,
                measured.plan,
                measured.apply * 1000.0 / models as f64,
                measured.cpu,
            );
        }
    }
    if let Some(python) = sqlmesh::python() {
        let measured = sqlmesh::run(&python, &layered(100, 30, 4, Warehouse::DuckDb), &["--empty-backfill"])?;
        println!("  SQLMesh, 100 models --empty-backfill: apply {:.2} s", measured.apply);
    }
    Ok(())
}

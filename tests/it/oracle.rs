//! Scenarios that SQLMesh 0.236.4 was recorded with, replayed through `coordctl`, embedded, on
//! DuckDB and on PostgreSQL: the same plans, the same batches, the same recorded intervals, the
//! same rows.
//!
//! `fixtures/oracle/differences.txt` lists the cases that differ, each with the reason. The list
//! must stay true: a case that starts to agree has to be taken off it.
//!
//! `ORACLE_CASES` names another folder of cases for PostgreSQL; then differences are printed, with
//! what DuckDB makes of the same case.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use coord_tests::oracle::{Database, Warehouse, cases, differences, each, refusal, replay};
use coord_tests::postgres::Postgres;
use serde_json::Value;

/// The cases that the tests run.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/oracle")
}

#[test]
fn recorded_scenarios_give_the_same_plans_batches_and_rows() {
    let found = each(cases(&fixtures()), |case| replay(case, &Warehouse::DuckDb).err());
    assert!(found.len() >= 50, "{} cases", found.len());
    let known = differences(&fixtures().join("differences.txt"));
    assert_listed(&found, &known);
}

/// Where PostgreSQL's list of differences is DuckDB's: what SQLMesh decided there doesn't depend on
/// the warehouse.
#[test]
fn recorded_scenarios_give_the_same_on_postgres() {
    let postgres = Postgres::start();
    let next = AtomicUsize::new(0);
    let on_postgres = |case: &Value| match refusal(case) {
        Some(reason) => Err(reason),
        None => {
            let name = format!("case{}", next.fetch_add(1, Ordering::Relaxed));
            postgres.create_database(&name);
            let database = Database { port: postgres.port(), name };
            Ok(replay(case, &Warehouse::Postgres(database)).err())
        }
    };
    let folder = std::env::var_os("ORACLE_CASES").map(PathBuf::from);
    let mut files = cases(folder.as_deref().unwrap_or(&fixtures()));
    if folder.is_none() {
        files = files.into_iter().step_by(3).collect();
    }
    let found = each(files.clone(), on_postgres);
    let refused: BTreeMap<&String, &String> =
        found.iter().filter_map(|(id, found)| Some((id, found.as_ref().err()?))).collect();
    let ran: BTreeMap<String, Option<String>> =
        found.iter().filter_map(|(id, found)| Some((id.clone(), found.as_ref().ok()?.clone()))).collect();
    if folder.is_some() {
        return print(&files, &ran, &refused);
    }
    assert!(ran.len() * 10 >= found.len() * 9, "PostgreSQL can't run {refused:?}");
    let mut known = differences(&fixtures().join("differences.txt"));
    known.retain(|id, _| ran.contains_key(id));
    assert_listed(&ran, &known);
}

fn assert_listed(found: &BTreeMap<String, Option<String>>, known: &BTreeMap<String, String>) {
    let complaint = |(id, difference): (&String, &Option<String>)| match (difference, known.get(id)) {
        (Some(difference), None) => Some(format!("{id}: {difference}")),
        (None, Some(_)) => Some(format!("{id} agrees by now: take it off the list")),
        _ => None,
    };
    let mut bad: Vec<String> = found.iter().filter_map(complaint).collect();
    bad.extend(known.keys().filter(|id| !found.contains_key(*id)).map(|id| format!("there is no case {id}")));
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// Says how many agree, and for those that don't whether they do on DuckDB.
fn print(files: &[PathBuf], ran: &BTreeMap<String, Option<String>>, refused: &BTreeMap<&String, &String>) {
    let differ = ran.values().flatten().count();
    println!("PostgreSQL ran {} cases: {} agree, {differ} differ", ran.len(), ran.len() - differ);
    println!("{} cases are DuckDB's alone: {refused:?}", refused.len());
    let suspects: Vec<PathBuf> = files
        .iter()
        .filter(|path| {
            let case = coord_tests::oracle::read(path);
            ran.get(case["id"].as_str().unwrap_or_default()).is_some_and(Option::is_some)
        })
        .cloned()
        .collect();
    let on_duckdb = each(suspects, |case| replay(case, &Warehouse::DuckDb).err());
    for (id, difference) in ran.iter().filter_map(|(id, found)| Some((id, found.as_ref()?))) {
        println!("{id}\n  on PostgreSQL: {difference}");
        match on_duckdb.get(id).and_then(Option::as_ref) {
            Some(same) if same == difference => println!("  on DuckDB: the same"),
            Some(other) => println!("  on DuckDB: {other}"),
            None => println!("  on DuckDB it agrees"),
        }
    }
}

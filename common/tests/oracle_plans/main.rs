//! Plans of whole scenarios against what SQLMesh 0.236.4 planned for the same files, options and
//! clock. Applying is simulated: what a plan names becomes the state.
//!
//! A scenario is followed up to its first step that asks for something that isn't planned yet, that
//! failed while it ran, or that differs. `ORACLE_CASES=<folder>` measures other cases, and
//! `ORACLE_SHOW=<n>` prints differences.

#![allow(clippy::disallowed_methods, reason = "reads cases; the core stays without files")]

mod scenario;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use scenario::{Difference, Scenario};

/// Least shares of comparisons that agree, in percent, as measured on the fixtures.
const FLOORS: [(&str, f64); 12] = [
    ("error", 100.0),
    ("backfill", 100.0),
    ("restatement", 100.0),
    ("has_changes", 100.0),
    ("models", 100.0),
    ("change", 100.0),
    ("category", 100.0),
    ("missing", 100.0),
    ("batches", 100.0),
    // In one run SQLMesh restates once more: its clock stood still, so what was pending looks newer than
    // what was computed.
    ("executed", 99.0),
    ("version", 100.0),
    ("table", 100.0),
];

fn cases() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/plans");
    let folder = std::env::var("ORACLE_CASES").map_or(fixtures, PathBuf::from);
    let mut paths = Vec::new();
    for group in ["classic", "random"] {
        let Ok(entries) = std::fs::read_dir(folder.join(group)) else { continue };
        paths.extend(entries.map(|entry| entry.expect("a readable folder").path()));
    }
    paths.sort();
    paths
}

#[test]
fn plans_agree_with_sqlmesh_as_far_as_they_did_before() {
    let show: usize = std::env::var("ORACLE_SHOW").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut compared: BTreeMap<&'static str, (u32, u32)> = BTreeMap::new();
    let mut stopped: BTreeMap<String, u32> = BTreeMap::new();
    let mut first: Vec<(String, Difference)> = Vec::new();
    let (mut cases_run, mut clean) = (0, 0);
    for path in cases() {
        let text = std::fs::read_to_string(&path).expect("a readable case");
        let case = serde_json::from_str(&text).expect("a case is JSON");
        let outcome = Scenario::default().follow(&case);
        cases_run += 1;
        clean += u32::from(outcome.differences.is_empty());
        for (class, (same, all)) in outcome.compared {
            let entry = compared.entry(class).or_default();
            *entry = (entry.0 + same, entry.1 + all);
        }
        *stopped.entry(outcome.stopped).or_default() += 1;
        let id = case["id"].as_str().unwrap_or_default().to_owned();
        first.extend(outcome.differences.into_iter().map(|difference| (id.clone(), difference)));
    }
    assert!(cases_run > 0, "no cases");
    println!("{clean} of {cases_run} cases without a difference; they stopped at {stopped:#?}");
    for (class, (same, all)) in &compared {
        println!("{class:<12} {same:>6} of {all:>6} agree");
    }
    for (id, difference) in first.iter().take(show) {
        println!("{id} {difference}");
    }
    if std::env::var("ORACLE_CASES").is_ok() {
        return;
    }
    for (class, floor) in FLOORS {
        let (same, all) = compared.get(class).copied().unwrap_or((0, 0));
        assert!(all > 0, "{class} was never compared");
        let share = 100.0 * f64::from(same) / f64::from(all);
        assert!(share >= floor, "{class}: {share:.1} % agree, {floor} % did before");
    }
}

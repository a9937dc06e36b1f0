//! Scenarios that SQLMesh 0.236.4 was recorded with, replayed through `coordctl`, embedded on DuckDB:
//! the same plans, the same batches, the same rows.
//!
//! `fixtures/oracle/differences.txt` lists the cases that differ, each with the reason. The list
//! must stay true: a case that starts to agree has to be taken off it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use coord_common::interval::{Timestamp, parse_time};
use coord_tests::cli::{Cli, Finished};
use coord_tests::project::Project;
use serde_json::{Value, json};

/// What a part of a document is compared as: subject and value.
type Facts = BTreeMap<String, String>;

#[test]
fn recorded_scenarios_give_the_same_plans_batches_and_rows() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/oracle");
    let known = differences(&folder);
    let cases = Mutex::new(cases(&folder));
    let bad = Mutex::new(Vec::new());
    let seen = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = cases.lock().expect("no case panics with the lock").pop();
                    let Some(path) = next else { return };
                    let case: Value = read(&path);
                    let id = case["id"].as_str().unwrap_or_default().to_owned();
                    let difference = replay(&case).err();
                    let complaint = match (&difference, known.get(&id)) {
                        (Some(difference), None) => Some(format!("{id}: {difference}")),
                        (None, Some(_)) => Some(format!("{id} agrees by now: take it off the list")),
                        _ => None,
                    };
                    bad.lock().expect("no case panics with the lock").extend(complaint);
                    seen.lock().expect("no case panics with the lock").insert(id);
                }
            });
        }
    });
    let seen = seen.into_inner().expect("all have ended");
    assert!(seen.len() >= 50, "{} cases", seen.len());
    let mut bad = bad.into_inner().expect("all have ended");
    bad.extend(known.keys().filter(|id| !seen.contains(*id)).map(|id| format!("there is no case {id}")));
    bad.sort();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("fixtures can be read");
    serde_json::from_str(&text).expect("fixtures are JSON")
}

fn cases(folder: &Path) -> Vec<PathBuf> {
    let files = |kind: &str| std::fs::read_dir(folder.join(kind)).expect("fixtures can be listed");
    let mut found: Vec<PathBuf> = ["classic", "random", "more"]
        .into_iter()
        .flat_map(files)
        .flatten()
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Case and reason, one in a line.
fn differences(folder: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder.join("differences.txt")).expect("the list can be read");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = |line: &str| {
        let (case, reason) = line.split_once(' ').expect("a line is a case and a reason");
        (case.to_owned(), reason.to_owned())
    };
    lines.map(split).collect()
}

/// Runs a case step by step; the first difference ends it.
fn replay(case: &Value) -> Result<(), String> {
    let project = Project::new(&[]);
    let data = tempfile::tempdir().expect("a folder for the warehouse");
    for (n, step) in array(&case["steps"]).iter().enumerate() {
        replay_step(&project, data.path(), step).map_err(|difference| format!("step {n}: {difference}"))?;
    }
    Ok(())
}

fn replay_step(project: &Project, data: &Path, step: &Value) -> Result<(), String> {
    for (path, text) in step["files"].as_object().into_iter().flatten() {
        match text.as_str() {
            Some(text) => project.write(path, &text.replace("{{DATA_DIR}}", &data.display().to_string())),
            None => drop(std::fs::remove_file(project.path().join(path))),
        }
    }
    let clock = step["clock"].as_str().unwrap_or_default();
    let cli = Cli::embedded(project.path()).now(clock).env("TZ", "UTC");
    let (action, expected) = (&step["action"], &step["expected"]);
    let arguments = arguments(action, clock);
    let finished = cli.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let fails = expected["error"]["type"].is_string();
    let may_fail = expected["run"]["status"] == "failure";
    if finished.code != Some(0) && !fails && !may_fail {
        return Err(format!("{arguments:?} fails: {}", finished.stderr.trim()));
    }
    if finished.code == Some(0) && fails {
        return Err(format!("{arguments:?} succeeds, but: {}", expected["error"]));
    }
    let document: Value = serde_json::from_str(&finished.stdout).unwrap_or(Value::Null);
    if expected["plan"].is_object() && document["models"].is_array() {
        let (theirs, ours) = (&expected["plan"], &document);
        equal("plan", &plan(theirs, theirs), &plan(ours, theirs))?;
    }
    if expected["state"].is_object() {
        if document["executed"].is_array() {
            equal("executed", &executed(&expected["executed"]), &executed(&document["executed"]))?;
        }
        let state = cli.run(&["state", "--format", "json"]);
        equal("contents", &contents(&expected["state"]), &contents(&parsed(&state)?))?;
    }
    Ok(())
}

fn parsed(finished: &Finished) -> Result<Value, String> {
    serde_json::from_str(&finished.stdout).map_err(|error| format!("{error}: {}", finished.stderr.trim()))
}

/// The command line of an action.
fn arguments(action: &Value, clock: &str) -> Vec<String> {
    let kind = action["type"].as_str().unwrap_or_default();
    let mut all = vec![kind.to_owned()];
    all.extend(action["environment"].as_str().map(str::to_owned));
    for (option, value) in action["options"].as_object().into_iter().flatten() {
        let singular = option.strip_suffix("_models").map(|stem| format!("{stem}_model"));
        let flag = format!("--{}", singular.as_deref().unwrap_or(option).replace('_', "-"));
        match value {
            Value::Bool(true) => all.push(flag),
            Value::Bool(false) if option == "enable_preview" => all.push("--no-enable-preview".to_owned()),
            Value::Array(values) => {
                all.extend(
                    values.iter().filter_map(Value::as_str).flat_map(|v| [flag.clone(), v.to_owned()]),
                );
            }
            Value::String(text) => all.extend([flag, text.clone()]),
            Value::Number(number) => all.extend([flag, number.to_string()]),
            Value::Bool(false) | Value::Null | Value::Object(_) => {}
        }
    }
    if kind == "plan" || kind == "run" {
        match action.get("execution_time") {
            None => all.extend(["--execution-time".to_owned(), clock.to_owned()]),
            Some(Value::String(time)) => all.extend(["--execution-time".to_owned(), time.clone()]),
            Some(_) => {}
        }
    }
    if kind == "plan" {
        all.push("--no-prompts".to_owned());
        all.extend((action["apply"] != false).then(|| "--auto-apply".to_owned()));
    }
    all.extend(["--format".to_owned(), "json".to_owned()]);
    all
}

fn equal(what: &str, expected: &Facts, found: &Facts) -> Result<(), String> {
    let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    for name in names {
        let (expected, found) = (expected.get(name), found.get(name));
        if expected != found {
            return Err(format!("{what} {name}: expected {expected:?}, found {found:?}"));
        }
    }
    Ok(())
}

/// What a plan says; models without a change and without work are left out. Under a forward-only
/// category lies another one, by which `theirs` may be told as well.
fn plan(plan: &Value, theirs: &Value) -> Facts {
    let mut facts = Facts::new();
    for flag in ["has_changes", "requires_backfill"] {
        facts.insert(flag.to_owned(), (plan[flag] == true).to_string());
    }
    let expected: BTreeMap<String, &Value> = models(theirs).collect();
    for (name, model) in models(plan) {
        let change = model["change"].as_str().unwrap_or("unchanged");
        let recorded = expected.get(&name);
        let raw = recorded.and_then(|model| model["raw_category"].as_str());
        let category = match model["category"].as_str() {
            found if found.is_some() && found == raw => recorded.and_then(|model| model["category"].as_str()),
            found => found,
        };
        let category = category.unwrap_or_default();
        let (missing, batches) = (merged(&model["missing_intervals"]), ranges(&model["batches"]));
        if change == "unchanged" && missing.is_empty() && batches.is_empty() {
            continue;
        }
        let fact = format!("{change} {category} missing {missing:?} batches {batches:?}");
        facts.insert(name, fact);
    }
    facts
}

fn models(plan: &Value) -> impl Iterator<Item = (String, &Value)> {
    array(&plan["models"]).iter().map(|model| (short(model["name"].as_str().unwrap_or_default()), model))
}

/// Batches by model, in the order in which they ran.
fn executed(rows: &Value) -> Facts {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in array(rows) {
        let (start, end) = (time(&row[1]), time(&row[2]));
        let batch = format!("{}-{} {}", start.0, end.0, row[3].as_str().unwrap_or("ok"));
        found.entry(short(row[0].as_str().unwrap_or_default())).or_default().push(batch);
    }
    found.into_iter().map(|(model, batches)| (model, batches.join(", "))).collect()
}

/// Rows and checksums of what environments show.
fn contents(state: &Value) -> Facts {
    let mut found = Facts::new();
    for (environment, views) in state["contents"].as_object().into_iter().flatten() {
        for (model, content) in views.as_object().into_iter().flatten() {
            let fact = match content.get("error") {
                Some(_) => "unreadable".to_owned(),
                None => json!([content["columns"], content["rows"], content["checksum"]]).to_string(),
            };
            found.insert(format!("{environment}:{}", short(model)), fact);
        }
    }
    found
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn short(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').map(|part| part.trim_matches('"')).collect();
    parts[parts.len().saturating_sub(2)..].join(".")
}

fn time(value: &Value) -> Timestamp {
    let text = value.as_str().unwrap_or_default();
    parse_time(text, Timestamp(0)).unwrap_or_else(|error| panic!("{error}")).at
}

/// Ranges without those that end before they start: SQLMesh reports some.
fn ranges(value: &Value) -> Vec<(i64, i64)> {
    let of = |range: &Value| match range.as_array() {
        Some(pair) => (time(&pair[0]).0, time(&pair[1]).0),
        None => (time(&range["start"]).0, time(&range["end"]).0),
    };
    array(value).iter().map(of).filter(|(start, end)| start < end).collect()
}

fn merged(value: &Value) -> Vec<(i64, i64)> {
    let mut sorted = ranges(value);
    sorted.sort_unstable();
    let mut found: Vec<(i64, i64)> = Vec::new();
    for (start, end) in sorted {
        match found.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => found.push((start, end)),
        }
    }
    found
}

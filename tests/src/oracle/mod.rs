//! Scenarios that SQLMesh 0.236.4 was recorded with, replayed through `coordctl`, embedded.

mod compare;
mod postgres;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

use crate::cli::{Cli, Finished};
use crate::project::Project;
use compare::{Identities, array, contents, equal, executed, plan};

pub use postgres::{Database, refusal};

/// Where a case's models are computed.
#[derive(Debug, Clone)]
pub enum Warehouse {
    /// In the DuckDB file that the case itself names.
    DuckDb,
    /// In a PostgreSQL database, the models' SQL written for it.
    Postgres(Database),
}

/// Reads a case.
pub fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("cases can be read");
    serde_json::from_str(&text).expect("cases are JSON")
}

/// The files of a folder's cases, in order.
pub fn cases(folder: &Path) -> Vec<PathBuf> {
    let folders = ["classic", "random", "more"].map(|kind| folder.join(kind));
    let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let mut found: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// Which cases differ and why; in the file, one in a line.
pub fn differences(file: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(file).expect("the list can be read");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = |line: &str| {
        let (case, reason) = line.split_once(' ').expect("a line is a case and a reason");
        (case.to_owned(), reason.to_owned())
    };
    lines.map(split).collect()
}

/// Looks at all cases, two at a time, and gives what was found by the cases' ids.
pub fn each<T: Send>(cases: Vec<PathBuf>, look: impl Fn(&Value) -> T + Sync) -> BTreeMap<String, T> {
    let (cases, found) = (Mutex::new(cases), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = cases.lock().expect("nobody panics with the lock").pop();
                    let Some(path) = next else { return };
                    let case = read(&path);
                    let id = case["id"].as_str().unwrap_or_default().to_owned();
                    let seen = look(&case);
                    found.lock().expect("nobody panics with the lock").insert(id, seen);
                }
            });
        }
    });
    found.into_inner().expect("all have ended")
}

/// Runs a case step by step; the first difference ends it.
///
/// # Errors
/// The difference.
pub fn replay(case: &Value, warehouse: &Warehouse) -> Result<(), String> {
    let project = Project::new(&[]);
    let data = tempfile::tempdir().expect("a folder for the warehouse");
    let mut identities = Identities::default();
    // DuckDB takes one batch at a time, PostgreSQL several.
    let at_once = matches!(warehouse, Warehouse::Postgres(_));
    for (n, step) in array(&case["steps"]).iter().enumerate() {
        write(&project, data.path(), step, warehouse);
        replay_step(&project, step, at_once, &mut identities)
            .map_err(|difference| format!("step {n}: {difference}"))?;
    }
    Ok(())
}

fn write(project: &Project, data: &Path, step: &Value, warehouse: &Warehouse) {
    for (path, text) in step["files"].as_object().into_iter().flatten() {
        let Some(text) = text.as_str() else {
            drop(std::fs::remove_file(project.path().join(path)));
            continue;
        };
        let text = text.replace("{{DATA_DIR}}", &data.display().to_string());
        match warehouse {
            Warehouse::DuckDb => project.write(path, &text),
            Warehouse::Postgres(database) => project.write(path, &database.adapt(path, &text)),
        }
    }
}

fn replay_step(
    project: &Project,
    step: &Value,
    at_once: bool,
    identities: &mut Identities,
) -> Result<(), String> {
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
            let [theirs, ours] = [expected, &document].map(|of| executed(&of["executed"], at_once));
            equal("executed", &theirs, &ours)?;
        }
        let state = cli.run(&["state", "--format", "json"]);
        let (theirs, ours) = (&expected["state"], &parsed(&state)?);
        identities.environments(theirs, ours)?;
        identities.intervals(theirs, ours)?;
        equal("contents", &contents(theirs), &contents(ours))?;
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

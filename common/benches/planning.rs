//! How long planning takes, cold and without change, and what it weighs. Run it with
//! `cargo bench -p coord-common --bench planning [-- COUNT…]`; one line per measurement.
//!
//! Each size runs in a process of its own, so nothing is warm and the peak of memory is its own.

#![allow(clippy::disallowed_methods, reason = "reads its own peak of memory")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coord_common::id::{EnvironmentName, SnapshotId};
use coord_common::interval::Timestamp;
use coord_common::plan::{self, Environment, PlanInput, PlanOptions, Planned, Purpose, TableRecord};
use coord_common::project::{self, Project, ProjectInput, SourceFile};
use coord_common::snapshot::{self, SnapshotRecord, Snapshots};
use coord_common::task::TableId;

/// 2024-01-01 plus three years.
const NOW: Timestamp = Timestamp(1_798_761_600_000);
const LAYERS: usize = 5;

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let [one, cron] = asked.as_slice() {
        let count = one.parse().expect("a number of models");
        measure(count, cron);
        return;
    }
    let this = std::env::current_exe().expect("the path of this program");
    for (count, cron) in [("100", "daily"), ("1000", "daily"), ("10000", "daily"), ("10000", "hourly")] {
        let status = Command::new(&this).args([count, cron]).status().expect("a process per size");
        assert!(status.success(), "{count} {cron}");
    }
}

fn measure(count: usize, cron: &str) {
    let files = project_files(count, cron);
    let line = |what: &str, value: String| println!("{count:>6} models, {cron:<6} {what:<30} {value}");
    let before = cpu_time();
    let started = Instant::now();
    let env = BTreeMap::new();
    let (project, findings) = project::load(&ProjectInput { files: &files, env: &env, gateway: None });
    assert!(findings.is_empty(), "{findings:?}");
    let loaded = started.elapsed();
    let (snapshots, findings) = snapshot::build(&project);
    assert!(findings.is_empty(), "{findings:?}");
    let built = started.elapsed();
    let mut state = State::default();
    let first = state.plan(&project, &snapshots);
    let cold = started.elapsed();
    line("cold, CPU time", seconds(cpu_time() - before));
    line("load", seconds(loaded));
    line("build", seconds(built - loaded));
    line("plan", seconds(cold - built));
    line("cold: load + build + plan", seconds(cold));
    line("peak memory so far", peak_memory());

    state.apply(&first);
    let (before, started) = (cpu_time(), Instant::now());
    let again = state.plan(&project, &snapshots);
    line("plan without change", seconds(started.elapsed()));
    line("plan without change, CPU time", seconds(cpu_time() - before));
    assert!(again.plan.is_empty(), "nothing changed");

    let (edited, below) = state.plan_an_edit(files);
    line("build + plan, a root edited", seconds(edited));
    line("  models that this touches", below.to_string());

    let plan = serde_json::to_vec(&first.plan).expect("a plan as JSON");
    let records: Vec<usize> = state
        .records
        .values()
        .map(|record| serde_json::to_vec(record).expect("a record as JSON").len())
        .collect();
    let tables: usize = state
        .tables
        .iter()
        .map(|(id, table)| id.to_string().len() + serde_json::to_vec(table).expect("a table as JSON").len())
        .sum();
    line("plan as JSON", megabytes(plan.len()));
    line("snapshot records as JSON", megabytes(records.iter().sum()));
    line("largest record as JSON", megabytes(records.into_iter().max().unwrap_or(0)));
    line("table records as JSON", megabytes(tables));
    line("peak memory", peak_memory());
}

/// What a coordinator would hold.
#[derive(Default)]
struct State {
    records: BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
    tables: BTreeMap<TableId, TableRecord>,
    prod: Option<Environment>,
}

impl State {
    fn plan(&self, project: &Project, snapshots: &Snapshots) -> Planned {
        let options = PlanOptions::new(EnvironmentName::prod());
        plan::plan(&PlanInput {
            proposed: &snapshots.by_name,
            settings: &project.settings,
            current: self.prod.as_ref(),
            prod: self.prod.as_ref(),
            environments: &[],
            records: &self.records,
            tables: &self.tables,
            options: &options,
            now: NOW,
            purpose: Purpose::Change,
            hooks: &plan::Hooks::default(),
        })
        .expect("a plan")
    }

    /// Adds a column to the first model below the seed; the time until that is planned, and how many
    /// models differ.
    fn plan_an_edit(&self, mut files: Vec<SourceFile>) -> (Duration, usize) {
        let root = files.iter_mut().find(|file| file.path.contains("l00_m0000")).expect("a first model");
        root.text = root.text.replace("AS v\n", "AS v, 1 AS w\n").into();
        let env = BTreeMap::new();
        let (project, _) = project::load(&ProjectInput { files: &files, env: &env, gateway: None });
        let started = Instant::now();
        let (snapshots, _) = snapshot::build(&project);
        let planned = self.plan(&project, &snapshots);
        (started.elapsed(), planned.new_records.len())
    }

    fn apply(&mut self, planned: &Planned) {
        self.records.extend(planned.new_records.iter().map(|record| (record.id(), record.clone())));
        let plan = &planned.plan;
        for model in &plan.models {
            if let Some(table) = &model.table {
                let done = model.missing.clone();
                self.tables
                    .insert(table.clone(), TableRecord { done, created: true, ..TableRecord::default() });
            }
        }
        self.prod = Some(Environment {
            name: plan.environment.clone(),
            seq: plan.base_seq + 1,
            plan: plan.id,
            start: plan.start,
            end: plan.end,
            models: plan.target.clone(),
            unrestorable: plan.unrestorable.clone(),
            hooks: plan::Hooks::default(),
        });
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

fn megabytes(bytes: usize) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

/// Time on a processor of all threads so far: unlike the clock it doesn't tell of other programs.
fn cpu_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
    let nanos = stats.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok());
    Duration::from_nanos(nanos.sum())
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.map_or_else(|| "unknown".to_owned(), |peak| peak.trim().to_owned())
}

/// A seed, layers of incremental models that read two models of the layer above, and a few FULL
/// and VIEW models on the last layer.
fn project_files(count: usize, cron: &str) -> Vec<SourceFile> {
    let top = (count / 50).max(1);
    let incremental = count - 2 * top;
    let config = format!(
        "gateways:\n  local:\n    connection:\n      type: duckdb\n      database: db.duckdb\n\
         default_gateway: local\nmodel_defaults:\n  dialect: duckdb\n  start: '2024-01-01'\n  cron: '@{cron}'\n"
    );
    let mut files = vec![
        file("config.yaml".into(), config),
        file("seeds/events.csv".into(), "ds,id,v\n2024-01-01,1,1\n".into()),
        file(
            "models/seed_events.sql".into(),
            "MODEL (\n  name bench.seed_events,\n  kind SEED (path '../seeds/events.csv'),\n  \
             columns (ds DATE, id INT, v BIGINT)\n);\n"
                .into(),
        ),
    ];
    let mut random = 7_u64;
    let mut above: Vec<String> = vec!["seed_events".to_owned()];
    let mut index = 0;
    for layer in 0..LAYERS {
        let width = incremental / LAYERS + usize::from(layer < incremental % LAYERS);
        let mut names = Vec::with_capacity(width);
        for place in 0..width {
            let name = format!("l{layer:02}_m{place:04}");
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let other = (random >> 33) as usize % above.len();
            let parents = (&above[place % above.len()], &above[other]);
            files.push(file(format!("models/{name}.sql"), incremental_model(&name, cron, parents, index)));
            names.push(name);
            index += 1;
        }
        above = names;
    }
    for place in 0..top {
        for (kind, column) in [("FULL", "SUM(a.v)"), ("VIEW", "COUNT(*)")] {
            let name = format!("{}_{place:04}", kind.to_lowercase());
            let parent = &above[place % above.len()];
            let text = format!(
                "MODEL (\n  name bench.{name},\n  kind {kind},\n  cron '@{cron}',\n  start '2024-01-01'\n);\n\n\
                 SELECT\n  CAST(a.id AS INT) AS id,\n  CAST({column} AS BIGINT) AS v\n\
                 FROM bench.{parent} AS a\nGROUP BY a.id\n"
            );
            files.push(file(format!("models/{name}.sql"), text));
        }
    }
    files
}

fn incremental_model(name: &str, cron: &str, (first, second): (&String, &String), index: usize) -> String {
    let mut text = format!(
        "MODEL (\n  name bench.{name},\n  kind INCREMENTAL_BY_TIME_RANGE (\n    time_column ds,\n    batch_size 1\n  ),\n  \
         cron '@{cron}',\n  start '2024-01-01',\n  grain (ds, id)\n);\n\n"
    );
    let joined = first != second;
    let value = if joined { "a.v + b.v" } else { "a.v" };
    let _ = write!(
        text,
        "SELECT\n  CAST(a.ds AS DATE) AS ds,\n  CAST(a.id AS INT) AS id,\n  \
         CAST(({value} + {index}) % 1000003 AS BIGINT) AS v\nFROM bench.{first} AS a\n"
    );
    if joined {
        let _ = write!(text, "JOIN bench.{second} AS b\n  ON a.ds = b.ds AND a.id = b.id\n");
    }
    text.push_str("WHERE a.ds BETWEEN @start_ds AND @end_ds\n");
    if joined {
        text.push_str("  AND b.ds BETWEEN @start_ds AND @end_ds\n");
    }
    text
}

fn file(path: String, text: String) -> SourceFile {
    SourceFile { path: path.into(), text: text.into() }
}

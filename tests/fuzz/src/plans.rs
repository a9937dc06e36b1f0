//! JSON that somebody sends, or that was stored: plans, their options, snapshots.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use coord_common::id::EnvironmentName;
use coord_common::interval::Timestamp;
use coord_common::plan::{self, Environment, Plan, PlanInput, PlanOptions, Purpose};
use coord_common::project::{self, ProjectInput, SourceFile};
use coord_common::snapshot::{self, Snapshot, SnapshotRecord};
use serde::de::DeserializeOwned;

/// What can be read comes back when it is written, and can be worked with.
pub(crate) fn json(bytes: &[u8]) {
    if let Some(read) = read::<Plan>(bytes) {
        let _ = serde_json::to_string(&plan::document(&read, None));
        let _ = (read.requires_backfill(), read.gateways(), read.is_empty());
    }
    if let Some(snapshot) = read::<Snapshot>(bytes) {
        let _ = (snapshot.cadence(), snapshot.interval_unit(), snapshot.depends_on_self());
        let _ = (snapshot::load_query(&snapshot), snapshot::load_text(&snapshot));
    }
    if let Some(record) = read::<SnapshotRecord>(bytes) {
        let _ = (record.id(), record.table(false), record.relation(true));
    }
    let _ = (read::<PlanOptions>(bytes), read::<Environment>(bytes));
}

fn read<T: DeserializeOwned + serde::Serialize>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let text = serde_json::to_string(&value).expect("what was read can be written");
    let again: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(serde_json::to_string(&again).ok(), Some(text));
    Some(value)
}

/// The first plan of a small project, and what it is made of.
pub(crate) struct Sample {
    pub(crate) plan: Plan,
    pub(crate) records: Vec<std::sync::Arc<SnapshotRecord>>,
}

pub(crate) static SAMPLE: LazyLock<Sample> = LazyLock::new(sample);

fn sample() -> Sample {
    let file = |path: &str, text: &str| SourceFile { path: path.into(), text: text.into() };
    let files = [
        file(
            "config.yaml",
            "gateways: {local: {connection: {type: duckdb}}}\nmodel_defaults: {dialect: duckdb}\n",
        ),
        file(
            "models/a.sql",
            "MODEL (name a.b, kind INCREMENTAL_BY_TIME_RANGE (time_column ds), start '2024-01-01', cron '@daily');\n\
             SELECT @start_ds AS ds, 1 AS x FROM raw.c",
        ),
        file("models/f.sql", "MODEL (name a.f, kind FULL);\nSELECT x FROM a.b"),
    ];
    let env = BTreeMap::new();
    let (project, _) = project::load(&ProjectInput { files: &files, env: &env, gateway: None });
    let (snapshots, _) = snapshot::build(&project);
    let planned = plan::plan(&PlanInput {
        proposed: &snapshots.by_name,
        settings: &project.settings,
        current: None,
        prod: None,
        environments: &[],
        records: &BTreeMap::new(),
        tables: &BTreeMap::new(),
        options: &PlanOptions::new(EnvironmentName::prod()),
        now: Timestamp(1_704_326_400_000),
        purpose: Purpose::Change,
        hooks: &plan::Hooks::default(),
    })
    .expect("the sample can be planned");
    Sample { plan: planned.plan, records: planned.new_records }
}

pub(crate) fn texts() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = vec![
        serde_json::to_vec(&SAMPLE.plan),
        serde_json::to_vec(&PlanOptions::new("dev".parse().expect("a name"))),
    ]
    .into_iter()
    .flatten()
    .collect();
    for record in &SAMPLE.records {
        all.extend(serde_json::to_vec(record).ok());
        all.extend(serde_json::to_vec(&record.snapshot).ok());
    }
    all.push(b"{\"a\":1,\"a\":[1e999,-0,0.1,18446744073709551616,\"\\ud800\"]}".to_vec());
    all.push("[".repeat(100_000).into_bytes());
    all
}

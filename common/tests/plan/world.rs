//! A small project and what a coordinator would know of it, to plan against.

use std::collections::BTreeMap;
use std::sync::Arc;

use coord_common::diagnostic::Diagnostic;
use coord_common::id::{EnvironmentName, ModelName, SnapshotId};
use coord_common::interval::{Timestamp, parse_time};
use coord_common::plan::{
    self, Change, Environment, Known, PlanError, PlanInput, PlanOptions, Planned, PlannedModel, Purpose,
    TableRecord,
};
use coord_common::project::{self, Project, ProjectInput, SourceFile};
use coord_common::snapshot::{self, ByName, Category, SnapshotRecord, Snapshots};
use coord_common::task::TableId;

const CONFIG: &str = "model_defaults:\n  dialect: duckdb\n  start: '2024-01-01'\n\
    gateways:\n  local:\n    connection: {type: duckdb}\ndefault_gateway: local\n";

/// Files, clock and state.
pub(crate) struct World {
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) now: Timestamp,
    pub(crate) records: BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
    pub(crate) tables: BTreeMap<TableId, TableRecord>,
    pub(crate) environments: BTreeMap<EnvironmentName, Environment>,
}

/// A seed, two incremental models in a row, a FULL model and a VIEW on it; it is noon of 8 January.
pub(crate) fn world() -> World {
    let mut world = empty();
    world.write("seeds/raw.csv", "id,ds,amount\n1,2024-01-01,10\n2,2024-01-02,20\n");
    world.model(
        "raw.events",
        "kind SEED (path '../seeds/raw.csv'), columns (id INT, ds DATE, amount INT)",
        "",
    );
    world.model("stg.events", INCREMENTAL, STAGED);
    world.model(
        "mart.daily",
        INCREMENTAL,
        "SELECT ds, CAST(SUM(amount) AS INT) AS total FROM stg.events WHERE ds BETWEEN @start_ds AND @end_ds GROUP BY ds",
    );
    world.model(
        "mart.users",
        "kind FULL",
        "SELECT id, CAST(SUM(amount) AS INT) AS total FROM stg.events GROUP BY id",
    );
    world.model("mart.top", "kind VIEW", "SELECT id, total FROM mart.users WHERE total > 15");
    world
}

/// A kind with a time column.
pub(crate) const INCREMENTAL: &str = "kind INCREMENTAL_BY_TIME_RANGE (time_column ds)";
/// The query of `stg.events`.
pub(crate) const STAGED: &str =
    "SELECT id, ds, CAST(amount AS INT) AS amount FROM raw.events WHERE ds BETWEEN @start_ds AND @end_ds";

/// A project with a config and nothing else.
pub(crate) fn empty() -> World {
    World {
        files: BTreeMap::from([("config.yaml".to_owned(), CONFIG.to_owned())]),
        now: at("2024-01-08 12:00:00"),
        records: BTreeMap::new(),
        tables: BTreeMap::new(),
        environments: BTreeMap::new(),
    }
}

impl World {
    pub(crate) fn write(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned(), text.to_owned());
    }

    pub(crate) fn model(&mut self, name: &str, properties: &str, query: &str) {
        let path = format!("models/{}.sql", name.replace('.', "_"));
        self.write(&path, &format!("MODEL (name {name}, {properties});\n\n{query}\n"));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.files.remove(&format!("models/{}.sql", name.replace('.', "_")));
    }

    pub(crate) fn load(&self) -> (Project, Snapshots, Vec<Diagnostic>) {
        self.load_in_order(self.files.keys())
    }

    pub(crate) fn load_in_order<'a>(
        &self,
        paths: impl Iterator<Item = &'a String>,
    ) -> (Project, Snapshots, Vec<Diagnostic>) {
        let files: Vec<SourceFile> = paths
            .map(|path| SourceFile { path: path.as_str().into(), text: self.files[path].as_str().into() })
            .collect();
        let env = BTreeMap::new();
        let (project, mut findings) =
            project::load(&ProjectInput { files: &files, env: &env, gateway: None });
        let (snapshots, more) = snapshot::build(&project);
        findings.extend(more);
        (project, snapshots, findings)
    }

    pub(crate) fn try_plan(&self, options: &PlanOptions) -> Result<Planned, PlanError> {
        let (project, snapshots, findings) = self.load();
        assert!(findings.iter().all(|finding| !finding.is_error()), "{findings:?}");
        self.plan_snapshots(&project, &snapshots.by_name, options, Purpose::Change)
    }

    pub(crate) fn plan_snapshots(
        &self,
        project: &Project,
        proposed: &ByName,
        options: &PlanOptions,
        purpose: Purpose,
    ) -> Result<Planned, PlanError> {
        plan::plan(&PlanInput {
            proposed,
            settings: &project.settings,
            current: self.environments.get(&options.environment),
            prod: self.environments.get(&EnvironmentName::prod()),
            environments: &self.environments.values().collect::<Vec<_>>(),
            records: &self.records,
            tables: &self.tables,
            options,
            now: self.now,
            purpose,
            hooks: &plan::Hooks::of(project),
        })
    }

    /// Plans as a coordinator does: selectors and all.
    pub(crate) fn propose_and_plan(
        &self,
        options: &PlanOptions,
        purpose: Purpose,
    ) -> Result<Planned, PlanError> {
        let (project, ..) = self.load();
        let environments: Vec<&Environment> = self.environments.values().collect();
        let known = Known { environments: &environments, records: &self.records };
        let proposal = plan::propose(&project, options, &known, purpose)?;
        assert!(proposal.findings.iter().all(|finding| !finding.is_error()), "{:?}", proposal.findings);
        self.plan_snapshots(&project, &proposal.proposed, &proposal.options, purpose)
    }

    pub(crate) fn plan(&self, environment: &str) -> Planned {
        self.try_plan(&options(environment)).expect("a plan")
    }

    /// Plans a run of what an environment holds.
    pub(crate) fn run(&self, environment: &str) -> Planned {
        self.plan_held(&options(environment), Purpose::Run).expect("a run")
    }

    /// Plans with what an environment holds.
    pub(crate) fn plan_held(&self, options: &PlanOptions, purpose: Purpose) -> Result<Planned, PlanError> {
        let (project, ..) = self.load();
        let models = &self.environments[&options.environment].models;
        let held = |(name, model): (&ModelName, &plan::EnvironmentModel)| {
            (name.clone(), self.records[&model.snapshot].snapshot.clone())
        };
        let proposed = models.iter().map(held).collect();
        self.plan_snapshots(&project, &proposed, options, purpose)
    }

    /// Makes everything true that a plan says.
    pub(crate) fn apply(&mut self, planned: &Planned) {
        let plan = &planned.plan;
        self.records.extend(planned.new_records.iter().map(|record| (record.id(), record.clone())));
        for model in &plan.models {
            let Some(table) = model.filled() else { continue };
            let record = self.tables.entry(table.clone()).or_default();
            record.created = true;
            record.done = record.done.union(&model.assumed).union(&model.missing);
        }
        for table in &plan.auto_restated {
            self.tables.entry(table.clone()).or_default().restated = Some(plan.execution_time);
        }
        if plan.purpose == Purpose::Change {
            let environment = Environment {
                name: plan.environment.clone(),
                seq: plan.base_seq + 1,
                plan: plan.id,
                start: plan.start,
                end: plan.end,
                models: plan.target.clone(),
                hooks: plan.hooks.source.clone(),
                unrestorable: plan.unrestorable.clone(),
            };
            self.environments.insert(plan.environment.clone(), environment);
        }
    }

    pub(crate) fn plan_and_apply(&mut self, environment: &str) -> Planned {
        let planned = self.plan(environment);
        self.apply(&planned);
        planned
    }
}

pub(crate) fn options(environment: &str) -> PlanOptions {
    PlanOptions::new(environment.parse().expect("an environment name"))
}

pub(crate) fn at(text: &str) -> Timestamp {
    parse_time(text, Timestamp(0)).expect("a time").at
}

pub(crate) fn find<'a>(planned: &'a Planned, name: &str) -> &'a PlannedModel {
    planned.plan.models.iter().find(|model| model.name.as_str() == name).expect("the model is planned")
}

/// What a model misses, as text: `01-01..01-08`.
pub(crate) fn missing(planned: &Planned, name: &str) -> String {
    let ranges = find(planned, name).missing.ranges().to_vec();
    let day = |time: Timestamp| time.to_datetime().format("%m-%d").to_string();
    let texts: Vec<String> =
        ranges.iter().map(|range| format!("{}..{}", day(range.start), day(range.end))).collect();
    texts.join(" ")
}

/// Change, category and missing of every model that is touched.
pub(crate) fn summary(planned: &Planned) -> Vec<(String, Change, Option<Category>, String)> {
    let models = planned.plan.models.iter();
    models
        .map(|model| {
            let name = model.name.to_string();
            let missing = missing(planned, &name);
            (name, model.change, model.category, missing)
        })
        .filter(|(_, change, _, missing)| *change != Change::Unchanged || !missing.is_empty())
        .collect()
}

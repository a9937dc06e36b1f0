//! Follows a recorded scenario step by step, with the state in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use coord_common::id::{EnvironmentName, ModelName, SnapshotId};
use coord_common::interval::{Interval, IntervalSet, TimePoint, Timestamp, batches, parse_time, recorded};
use coord_common::plan::{
    self, Environment, Known, Plan, PlanInput, PlanOptions, Planned, Purpose, TableRecord,
};
use coord_common::project::{self, ProjectInput, Settings, SourceFile};
use coord_common::snapshot::SnapshotRecord;
use coord_common::task::TableId;
use serde_json::Value;

/// Options that planning knows, and those that don't touch what is compared.
const KNOWN: [&str; 19] = [
    "create_from",
    "min_intervals",
    "select_models",
    "effective_from",
    "enable_preview",
    "restate_models",
    "start",
    "end",
    "skip_backfill",
    "empty_backfill",
    "include_unmodified",
    "ignore_cron",
    "run",
    "backfill_models",
    "forward_only",
    "no_gaps",
    "allow_destructive_models",
    "allow_additive_models",
    "execution_time",
];

/// Where a plan isn't SQLMesh's.
pub(crate) struct Difference {
    step: usize,
    class: &'static str,
    subject: String,
    expected: String,
    actual: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, class, subject, expected, actual } = self;
        write!(f, "step {step} {class} {subject}: expected {expected}, got {actual}")
    }
}

/// How following a scenario went.
#[derive(Default)]
pub(crate) struct Outcome {
    /// By class: how many comparisons agreed, of how many.
    pub(crate) compared: BTreeMap<&'static str, (u32, u32)>,
    /// Those of the first step that has any.
    pub(crate) differences: Vec<Difference>,
    /// Why it wasn't followed further.
    pub(crate) stopped: String,
}

/// The state that a scenario's steps leave.
#[derive(Default)]
pub(crate) struct Scenario {
    files: BTreeMap<String, String>,
    records: BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
    tables: BTreeMap<TableId, TableRecord>,
    environments: BTreeMap<EnvironmentName, Environment>,
    /// Expected ids and ours, both ways, by class and model.
    same: BTreeMap<(&'static str, String, String), String>,
    step: usize,
    outcome: Outcome,
}

impl Scenario {
    /// Follows a case as far as it goes.
    pub(crate) fn follow(mut self, case: &Value) -> Outcome {
        for (index, step) in case["steps"].as_array().into_iter().flatten().enumerate() {
            self.step = index;
            if let Err(reason) = self.step(step) {
                self.outcome.stopped = reason;
                return self.outcome;
            }
            if !self.outcome.differences.is_empty() {
                self.outcome.stopped = "difference".to_owned();
                return self.outcome;
            }
        }
        self.outcome.stopped = "end".to_owned();
        self.outcome
    }

    fn step(&mut self, step: &Value) -> Result<(), String> {
        for (path, text) in step["files"].as_object().into_iter().flatten() {
            match text.as_str() {
                Some(text) => self.files.insert(path.clone(), text.replace("{{DATA_DIR}}", "/data")),
                None => self.files.remove(path),
            };
        }
        let action = &step["action"];
        let now = time(&step["clock"]);
        let run = match action["type"].as_str() {
            Some("plan") => false,
            Some("run") => true,
            other => return Err(format!("action {}", other.unwrap_or_default())),
        };
        let options = options(action, &step["clock"])?;
        let error = &step["expected"]["error"];
        let refused = error["type"].is_string() && matches!(error["stage"].as_str(), Some("load" | "plan"))
            || (run && error["class"] == "ENV_NOT_FOUND");
        if refused && step["expected"]["plan"].is_object() {
            return Err("policy of schema changes".to_owned());
        }
        let class = error["class"].as_str().unwrap_or_default().to_owned();
        let planned = self.plan(&options, now, run);
        let blocked = |planned: &(Planned, Settings), code: &str| {
            planned.0.plan.blockers.iter().any(|blocker| blocker.code == code)
        };
        let planned = match planned {
            Ok(planned) if blocked(&planned, "uncategorized") => Err("uncategorized".to_owned()),
            other => other,
        };
        if let Ok(planned) = &planned
            && action["apply"] != false
        {
            let gaps = class == "NO_GAPS_VIOLATION";
            self.check("gaps", &class, blocked(planned, "gaps") == gaps, || {
                (gaps.to_string(), format!("{:?}", planned.0.plan.blockers))
            });
        }
        let says = |planned: &Result<(Planned, Settings), String>| match planned {
            Ok(_) => "succeeds".to_owned(),
            Err(why) => format!("fails: {why}"),
        };
        let agrees = planned.is_err() == refused;
        self.check("error", &class, agrees, || (format!("fails {refused}"), says(&planned)));
        let Ok((planned, settings)) = planned else { return Ok(()) };
        if refused {
            return Ok(());
        }
        let expected = &step["expected"];
        if expected["plan"].is_object() {
            self.compare_plan(&planned, &expected["plan"], &options);
        }
        if run {
            self.compare_executed(&planned.plan, &expected["executed"]);
        }
        let trouble = !error.is_null()
            || expected["run"]["status"] == "failure"
            || expected["executed"].as_array().into_iter().flatten().any(|row| row.get(3).is_some());
        if trouble {
            return Err("failure while applying".to_owned());
        }
        if run || action["apply"] != false {
            self.apply(&planned, &settings);
            self.compare_state(&expected["state"]["environments"]);
        }
        Ok(())
    }

    fn plan(&self, options: &PlanOptions, now: Timestamp, run: bool) -> Result<(Planned, Settings), String> {
        let files: Vec<SourceFile> = self
            .files
            .iter()
            .map(|(path, text)| SourceFile { path: path.as_str().into(), text: text.as_str().into() })
            .collect();
        let env = BTreeMap::new();
        let (project, mut findings) =
            project::load(&ProjectInput { files: &files, env: &env, gateway: None });
        let purpose = if run { Purpose::Run } else { Purpose::Change };
        let environments: Vec<&Environment> = self.environments.values().collect();
        let known = Known { environments: &environments, records: &self.records };
        let proposal = plan::propose(&project, options, &known, purpose)
            .map_err(|error| format!("{}: {}", error.code, error.message))?;
        findings.extend(proposal.findings);
        let from_files = !run && options.selectors.restate.is_empty();
        if let Some(error) = findings.iter().find(|finding| from_files && finding.is_error()) {
            return Err(format!("{error:?}"));
        }
        let input = PlanInput {
            proposed: &proposal.proposed,
            settings: &project.settings,
            current: self.environments.get(&options.environment),
            prod: self.environments.get(&EnvironmentName::prod()),
            environments: &environments,
            records: &self.records,
            tables: &self.tables,
            options: &proposal.options,
            now,
            purpose,
            hooks: &plan::Hooks::of(&project),
        };
        let planned = plan::plan(&input).map_err(|error| format!("{}: {}", error.code, error.message))?;
        Ok((planned, project.settings))
    }

    fn apply(&mut self, planned: &Planned, settings: &Settings) {
        let _ = settings;
        let plan = &planned.plan;
        self.records.extend(planned.new_records.iter().map(|record| (record.id(), record.clone())));
        for model in &plan.models {
            let Some(table) = model.filled() else { continue };
            let record = self.tables.entry(table.clone()).or_default();
            record.created = true;
            record.done = record.done.union(&model.assumed);
            let snapshot = &self.records[&model.snapshot.expect("a table has a snapshot")].snapshot;
            for range in model.missing.ranges() {
                let whole = recorded(*range, model.batches.unit, snapshot.model.allow_partials);
                if let Some(whole) = whole {
                    record.done.insert(whole);
                }
            }
        }
        for table in &plan.auto_restated {
            self.tables.entry(table.clone()).or_default().restated = Some(plan.execution_time);
        }
        for clear in &plan.clears {
            if let Some(record) = self.tables.get_mut(&clear.table) {
                record.done.remove(clear.range);
            }
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

    fn compare_plan(&mut self, planned: &Planned, expected: &Value, options: &PlanOptions) {
        let plan = &planned.plan;
        self.equal("has_changes", "", &expected["has_changes"], &plan.has_changes.into());
        if options.skip_backfill || options.empty_backfill {
            self.equal("backfill", "", &expected["requires_backfill"], &false.into());
        } else {
            self.equal(
                "backfill",
                "",
                &expected["requires_backfill"],
                &serde_json::to_value(plan::document(plan, None)).expect("JSON")["requires_backfill"],
            );
        }
        let ours: BTreeMap<String, &plan::PlannedModel> =
            plan.models.iter().map(|model| (model.name.to_string(), model)).collect();
        let models: Vec<&Value> = expected["models"].as_array().into_iter().flatten().collect();
        for (name, model) in &ours {
            let idle = model.change == plan::Change::Unchanged && model.missing.is_empty();
            let known = models.iter().any(|other| other["name"] == name.as_str());
            self.check("models", name, idle || known, || ("absent".into(), format!("{:?}", model.change)));
        }
        for theirs in models {
            let name = theirs["name"].as_str().unwrap_or_default();
            let plain = theirs["change"] == "unchanged" && theirs.get("missing_intervals").is_none();
            let Some(model) = ours.get(name) else {
                self.check("models", name, plain, || ("planned".into(), "absent".into()));
                continue;
            };
            self.compare_model(name, model, theirs, options);
        }
    }

    fn compare_model(
        &mut self,
        name: &str,
        model: &plan::PlannedModel,
        theirs: &Value,
        options: &PlanOptions,
    ) {
        let change = serde_json::to_value(model.change).expect("a change as JSON");
        self.equal("change", name, &theirs["change"], &change);
        let category = model.category.map_or(Value::Null, |category| category.name().into());
        let raw = theirs.get("raw_category").unwrap_or(&theirs["category"]);
        if category != *raw {
            self.equal("category", name, &theirs["category"], &category);
        } else {
            self.check("category", name, true, || (String::new(), String::new()));
        }
        let restated = ranges(&Value::Array(theirs.get("restatement").cloned().into_iter().collect()));
        let ours = model.restatement.map_or(Vec::new(), |range| vec![range]);
        self.check("restatement", name, restated == ours, || (show(&restated), show(&ours)));
        let missing: IntervalSet = ranges(&theirs["missing_intervals"]).into_iter().collect();
        let ours = model.missing.union(&model.skipped);
        let same = missing == ours;
        self.check("missing", name, same, || (show(missing.ranges()), show(ours.ranges())));
        let expected = ranges(&theirs["batches"]);
        let actual: Vec<Interval> = batches(&model.missing, model.batches.unit, model.batches.size).collect();
        // Nothing is executed with an empty backfill, or when it is skipped.
        let idle = options.skip_backfill || options.empty_backfill;
        if !idle || !expected.is_empty() {
            self.check("batches", name, expected == actual, || (show(&expected), show(&actual)));
        }
    }

    fn compare_executed(&mut self, plan: &Plan, expected: &Value) {
        let mut theirs: BTreeMap<String, Vec<Interval>> = BTreeMap::new();
        for row in expected.as_array().into_iter().flatten() {
            let range = Interval::new(time(&row[1]), time(&row[2]));
            theirs.entry(row[0].as_str().unwrap_or_default().to_owned()).or_default().extend(range);
        }
        for model in &plan.models {
            let ours: Vec<Interval> =
                batches(&model.missing, model.batches.unit, model.batches.size).collect();
            let name = model.name.to_string();
            let expected = theirs.remove(&name).unwrap_or_default();
            self.check("executed", &name, expected == ours, || (show(&expected), show(&ours)));
        }
    }

    fn compare_state(&mut self, environments: &Value) {
        for (environment, shown) in environments.as_object().into_iter().flatten() {
            let Some(ours) =
                environment.parse().ok().and_then(|name: EnvironmentName| self.environments.get(&name))
            else {
                self.check("env", environment, false, || ("there".into(), "absent".into()));
                continue;
            };
            let ours = ours.models.clone();
            for (name, theirs) in shown["models"].as_object().into_iter().flatten() {
                let subject = format!("{environment}:{name}");
                let Some(model) = name.parse::<ModelName>().ok().and_then(|name| ours.get(&name)) else {
                    self.check("env", &subject, false, || ("there".into(), "absent".into()));
                    continue;
                };
                let record = self.records[&model.snapshot].clone();
                if let Some(version) = theirs["version"].as_str() {
                    self.one_to_one("version", name, &subject, version, record.version.to_string());
                }
                let promoted = theirs["promoted"] != false;
                self.check("promoted", &subject, promoted == model.promoted, || {
                    (promoted.to_string(), model.promoted.to_string())
                });
                if let (true, Some(table)) = (promoted, theirs["table"].as_str()) {
                    // A view has generations of its own under one version: to the user it stays one.
                    let named = |table: &TableId| TableId {
                        version: if table.dev {
                            table.version
                        } else {
                            self.records[&model.snapshot].version
                        },
                        ..table.clone()
                    };
                    let ours =
                        model.table.as_ref().map_or("none".to_owned(), |table| named(table).to_string());
                    self.one_to_one("table", name, &subject, table, ours);
                }
            }
        }
    }

    /// Ids are opaque: only which are equal counts.
    fn one_to_one(&mut self, class: &'static str, model: &str, subject: &str, theirs: &str, ours: String) {
        let key = |id: &str| (class, model.to_owned(), id.to_owned());
        let there = self.same.entry(key(&format!(">{theirs}"))).or_insert_with(|| ours.clone()).clone();
        let back = self.same.entry(key(&format!("<{ours}"))).or_insert_with(|| theirs.to_owned()).clone();
        let agrees = there == ours && back == theirs;
        self.check(class, subject, agrees, || {
            (format!("{theirs} = {there}"), format!("{ours} (known as {back})"))
        });
    }

    fn equal(&mut self, class: &'static str, subject: &str, expected: &Value, actual: &Value) {
        self.check(class, subject, expected == actual, || (expected.to_string(), actual.to_string()));
    }

    fn check(
        &mut self,
        class: &'static str,
        subject: &str,
        agrees: bool,
        show: impl FnOnce() -> (String, String),
    ) {
        let entry = self.outcome.compared.entry(class).or_default();
        *entry = (entry.0 + u32::from(agrees), entry.1 + 1);
        if !agrees {
            let (expected, actual) = show();
            self.outcome.differences.push(Difference {
                step: self.step,
                class,
                subject: subject.to_owned(),
                expected,
                actual,
            });
        }
    }
}

fn options(action: &Value, clock: &Value) -> Result<PlanOptions, String> {
    let asked = &action["options"];
    for name in asked.as_object().into_iter().flatten().map(|(name, _)| name) {
        if !KNOWN.contains(&name.as_str()) {
            return Err(format!("option {name}"));
        }
    }
    let environment = action["environment"].as_str().unwrap_or("prod").parse().expect("an environment name");
    let text = |name: &str| asked[name].as_str().map(str::to_owned);
    let flag = |name: &str| asked[name] == true;
    let mut options = PlanOptions::new(environment);
    options.start = text("start");
    options.end = text("end");
    options.execution_time = match action.get("execution_time") {
        None => clock.as_str().map(str::to_owned),
        Some(given) => given.as_str().map(str::to_owned),
    };
    options.effective_from = text("effective_from");
    options.enable_preview = asked["enable_preview"].as_bool();
    options.skip_backfill = flag("skip_backfill");
    options.empty_backfill = flag("empty_backfill");
    options.include_unmodified = flag("include_unmodified");
    options.ignore_cron = flag("ignore_cron");
    options.run = flag("run");
    options.forward_only = flag("forward_only");
    options.no_gaps = flag("no_gaps");
    options.min_intervals = asked["min_intervals"].as_u64().and_then(|n| n.try_into().ok());
    options.create_from =
        asked["create_from"].as_str().map(|name| name.parse().expect("an environment name"));
    let list = |name: &str| -> Vec<String> {
        let items = asked[name].as_array().into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    options.selectors.restate = list("restate_models");
    options.selectors.backfill = list("backfill_models");
    options.selectors.select = list("select_models");
    options.selectors.allow_destructive = list("allow_destructive_models");
    options.selectors.allow_additive = list("allow_additive_models");
    Ok(options)
}

fn time(text: &Value) -> Timestamp {
    let point: TimePoint = parse_time(text.as_str().expect("a time"), Timestamp(0)).expect("a valid time");
    point.at
}

fn ranges(value: &Value) -> Vec<Interval> {
    let range = |pair: &Value| Interval::new(time(&pair[0]), time(&pair[1]));
    value.as_array().into_iter().flatten().filter_map(range).collect()
}

fn show(ranges: &[Interval]) -> String {
    let text: Vec<String> = ranges.iter().map(|r| format!("[{}, {})", r.start, r.end)).collect();
    text.join(" ")
}

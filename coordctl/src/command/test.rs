//! `test`: unit tests of models, run in this process on the project's test connection.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use coord_common::diagnostic::Diagnostic;
use coord_common::id::ModelName;
use coord_common::plan::{self, Selectors};
use coord_common::project::settings::Connection;
use coord_common::project::{self, Project};
use coord_common::snapshot::{self, Snapshots};
use coord_common::sql::Dialect;
use coord_common::unit_test::{
    Answer, Bench, Check, Mismatch, Outcome, Report, Selection, UnitTest, Unready, Verdict, load, reading,
};
use serde_json::{Value, json};
use worker::config::GatewayError;
use worker::engine::{DRIVER_MISSING, Engine, EngineError};

use super::git;
use crate::args::{Format, TestArgs};
use crate::embedded::gateway_error;
use crate::error::{CliError, CliResult};
use crate::files::{self, ProjectFiles};
use crate::output;
use crate::session::Session;

/// `coordctl test`.
pub(crate) async fn test(session: &Session, args: &TestArgs) -> CliResult<ExitCode> {
    let files = session.files()?;
    let (project, mut findings) = project::load(&files.input());
    let (snapshots, more) = snapshot::build(&project);
    findings.extend(more);
    if findings.iter().any(Diagnostic::is_error) {
        findings.retain(Diagnostic::is_error);
        return Err(CliError::project(findings));
    }
    let sources = files::tests(&files.folder)?;
    let (tests, mistakes) = load(&project, &sources, &files.environment());
    let selection = selection(args, &files, &snapshots)?;
    let chosen = selection.of(&tests, &models_by_file(&project)).map_err(|unknown| {
        CliError::user(
            "unknown-test",
            unknown.to_string(),
            "give a test file, FILE::TEST, or a model's file; `coordctl test -v` lists the tests",
        )
    })?;
    // What is wrong with other tests than those that are meant doesn't matter here.
    let partial = !args.tests.is_empty() || !args.patterns.is_empty() || !args.select_model.is_empty();
    let mistakes: Vec<Diagnostic> =
        mistakes.into_iter().filter(|finding| !partial || is_meant(args, finding)).collect();
    output::findings(&mistakes, session.format());
    let report = run(&files, &project, &snapshots, &chosen, args.verbose).await?;
    let good = report.is_good() && !mistakes.iter().any(Diagnostic::is_error);
    if session.format() == Format::Json {
        output::json(&document(&report, &mistakes))?;
    } else {
        if args.verbose > 0 {
            output::line(report.lines().trim_end());
        }
        show(&report);
        output::line(&summary(&report, good));
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What is wrong with the tests' files.
pub(super) fn mistakes(session: &Session) -> CliResult<Vec<Diagnostic>> {
    let files = session.files()?;
    let sources = files::tests(&files.folder)?;
    if sources.is_empty() {
        return Ok(Vec::new());
    }
    let (project, _) = project::load(&files.input());
    Ok(load(&project, &sources, &files.environment()).1)
}

/// Whose tests are run.
pub(super) struct Tested {
    /// The tests of these models,
    pub(super) models: BTreeSet<ModelName>,
    /// as far as they are selected, where there are selectors.
    pub(super) select: Vec<String>,
}

impl Tested {
    fn of<'a>(
        &self,
        tests: &'a [UnitTest],
        files: &ProjectFiles,
        snapshots: &Snapshots,
    ) -> CliResult<Vec<&'a UnitTest>> {
        let mut models = self.models.clone();
        if let Some(selected) = selected(&self.select, files, snapshots)? {
            models.retain(|name| selected.contains(name));
        }
        Ok(tests.iter().filter(|test| models.contains(&test.model)).collect())
    }
}

/// Runs tests before a plan, all or those of some models: a failure stops it. A project without tests costs
/// a look at its folder. Mistakes of models are left to the plan, which tells them.
pub(super) async fn before_plan(session: &Session, files: &ProjectFiles, only: Option<&Tested>) -> CliResult {
    let sources = files::tests(&files.folder)?;
    if sources.is_empty() {
        return Ok(());
    }
    let (project, findings) = project::load(&files.input());
    let (tests, mut mistakes) = load(&project, &sources, &files.environment());
    if findings.iter().any(Diagnostic::is_error) {
        return Ok(());
    }
    let (snapshots, more) = snapshot::build(&project);
    if more.iter().any(Diagnostic::is_error) {
        return Ok(());
    }
    let chosen: Vec<&UnitTest> = match only {
        None => tests.iter().collect(),
        Some(only) => {
            // What is wrong with other tests than those that are meant doesn't matter here.
            mistakes.clear();
            only.of(&tests, files, &snapshots)?
        }
    };
    let report = match run(files, &project, &snapshots, &chosen, 0).await {
        Ok(report) => report,
        // Planning needs no warehouse, so that a machine without a driver can plan.
        Err(error) if error.code == DRIVER_MISSING => {
            let hint = error.hint.unwrap_or_default();
            output::error_line(&format!("Unit tests were not run: {}; {hint}.", error.message));
            Report::default()
        }
        Err(error) => return Err(error),
    };
    let good = report.is_good() && !mistakes.iter().any(Diagnostic::is_error);
    let text = session.format() != Format::Json;
    if text {
        tell(&report, good);
    }
    if good {
        output::findings(&mistakes, session.format());
        return Ok(());
    }
    // People have seen the failures in full.
    let shown = if text { Vec::new() } else { report.findings() };
    let hint = "mend the model or the test, or plan with --skip-tests";
    Err(CliError {
        findings: mistakes.into_iter().chain(shown).collect(),
        ..CliError::user("unit-tests-failed", "unit tests fail: nothing is planned", hint)
    })
}

/// What a plan says of tests, beside its data.
fn tell(report: &Report, good: bool) {
    let failures = report.failures();
    if !failures.is_empty() {
        output::error_line(failures.trim_end());
        output::error_line("");
    }
    for reason in report.reasons() {
        output::error_line(&format!("Unit tests skipped: {reason}."));
    }
    if !report.verdicts.is_empty() {
        output::error_line(&summary(report, good));
    }
}

fn show(report: &Report) {
    let failures = report.failures();
    if !failures.is_empty() {
        output::line(failures.trim_end());
        output::line("");
    }
    for reason in report.reasons() {
        output::line(&format!("skipped: {reason}"));
    }
}

fn summary(report: &Report, good: bool) -> String {
    output::paint(&report.summary(), if good { output::Color::Green } else { output::Color::Red })
}

fn document(report: &Report, mistakes: &[Diagnostic]) -> Value {
    let test = |verdict: &Verdict| {
        let (outcome, why) = match &verdict.outcome {
            Outcome::Passed => ("passed", None),
            Outcome::Failed(_) => ("failed", None),
            Outcome::Broken(_) => ("error", None),
            Outcome::Skipped(why) => ("skipped", Some(why)),
        };
        let mut test = json!({ "test": verdict.name, "at": verdict.at, "outcome": outcome });
        if let Some(why) = why {
            test["why"] = json!(why);
        }
        if verdict.is_bad() {
            test["findings"] = json!(verdict.findings());
        }
        test
    };
    json!({ "tests": report.verdicts.iter().map(test).collect::<Vec<_>>(), "findings": mistakes })
}

/// Runs tests one after the other.
async fn run(
    files: &ProjectFiles,
    project: &Project,
    snapshots: &Snapshots,
    tests: &[&UnitTest],
    verbose: u8,
) -> CliResult<Report> {
    let now = (Session::clock()?)();
    let mut engines = Engines { files, project, open: BTreeMap::new() };
    let mut report = Report::default();
    for test in tests {
        let speaks = engines.dialect_of(test)?;
        // Opened only when a test needs it: a driver takes its time to load.
        let bench = Bench { models: &snapshots.by_name, speaks, now };
        let outcome = match bench.prepare(test) {
            Err(Unready::Skipped(why)) => Outcome::Skipped(why),
            Err(Unready::Broken(finding)) => Outcome::Broken(vec![*finding]),
            Ok(checks) => match engines.of(test)? {
                Ok(engine) => outcome(&*engine, test, &checks, verbose).await,
                Err(why) => Outcome::Skipped(why),
            },
        };
        report.verdicts.push(Verdict::new(test, outcome));
    }
    Ok(report)
}

/// The engines of test connections.
struct Engines<'a> {
    files: &'a ProjectFiles,
    project: &'a Project,
    /// By gateway; or why nothing here can run its tests.
    open: BTreeMap<String, Result<Arc<dyn Engine>, String>>,
}

impl<'a> Engines<'a> {
    /// A test's gateway, and where its tests run; absent: a DuckDB in memory.
    fn connection(&self, test: &UnitTest) -> CliResult<(String, Option<&'a Connection>)> {
        let settings = &self.project.settings;
        let gateway = test.gateway.as_deref().unwrap_or(&settings.default_gateway).to_lowercase();
        if settings.gateway(&gateway).is_none() && test.gateway.is_some() {
            let message = format!("unit test `{}`: there is no gateway `{gateway}`", test.name);
            let finding = Diagnostic::error("unknown-gateway", test.at.clone(), message);
            return Err(CliError::project(vec![finding.hint("name one of config.yaml's gateways")]));
        }
        let connection = settings.test_connection(Some(&gateway));
        Ok((gateway, connection))
    }

    /// The dialect of what runs a test.
    fn dialect_of(&self, test: &UnitTest) -> CliResult<Dialect> {
        let (_, connection) = self.connection(test)?;
        Ok(connection.map_or(Dialect::DuckDb, |connection| connection.dialect().unwrap_or_default()))
    }

    /// What runs a test, or why nothing here can.
    fn of(&mut self, test: &UnitTest) -> CliResult<Result<Arc<dyn Engine>, String>> {
        let (gateway, connection) = self.connection(test)?;
        if let Some(open) = self.open.get(&gateway) {
            return Ok(open.clone());
        }
        let opened = match worker::config::open_test_engine(&gateway, connection, &self.files.folder) {
            Ok(engine) => Ok(engine),
            Err(GatewayError::Unsupported { kind, .. }) => {
                Err(format!("a test connection of type `{kind}` isn't supported; use duckdb or postgres"))
            }
            Err(GatewayError::Engine { source, .. }) if source.code.as_deref() == Some(DRIVER_MISSING) => {
                let hint = source.hint.unwrap_or_default();
                return Err(CliError::user(DRIVER_MISSING, source.message, hint));
            }
            Err(error) => return Err(gateway_error(error)),
        };
        self.open.insert(gateway, opened.clone());
        Ok(opened)
    }
}

async fn outcome(engine: &dyn Engine, test: &UnitTest, checks: &[Check], verbose: u8) -> Outcome {
    let mut mismatches = Vec::new();
    for check in checks {
        if verbose > 1 {
            output::error_line(&format!("-- {}\n{};\n", test.full_name(), check.sql));
        }
        match judged(engine, check).await {
            Ok(mismatch) => mismatches.extend(mismatch),
            Err(error) => return Outcome::Broken(vec![refused(test, &error)]),
        }
    }
    if mismatches.is_empty() { Outcome::Passed } else { Outcome::Failed(mismatches) }
}

async fn judged(engine: &dyn Engine, check: &Check) -> Result<Option<Mismatch>, EngineError> {
    let actual = answer(engine, &check.sql).await?;
    let expected = match &check.expected_sql {
        Some(sql) => Some(answer(engine, sql).await?),
        None => None,
    };
    Ok(check.judge(&actual, expected.as_ref()))
}

async fn answer(engine: &dyn Engine, sql: &str) -> Result<Answer, EngineError> {
    let columns = engine.describe(sql).await?;
    let rows = engine.query(&reading(sql, &columns)).await?.rows;
    Ok(Answer { columns, rows })
}

fn refused(test: &UnitTest, error: &EngineError) -> Diagnostic {
    let message = format!("unit test `{}`: the warehouse refuses the query: {error}", test.name);
    Diagnostic::error("unit-test-error", test.at.clone(), message)
        .hint("`coordctl test -vv` prints the statement")
}

fn selection(args: &TestArgs, files: &ProjectFiles, snapshots: &Snapshots) -> CliResult<Selection> {
    let models = selected(&args.select_model, files, snapshots)?;
    let tests = args.tests.iter().map(|test| within(&files.folder, test)).collect();
    Ok(Selection { tests, patterns: args.patterns.clone(), models })
}

/// The models that selectors name, where there are any.
fn selected(
    select: &[String],
    files: &ProjectFiles,
    snapshots: &Snapshots,
) -> CliResult<Option<BTreeSet<ModelName>>> {
    if select.is_empty() {
        return Ok(None);
    }
    let selectors = Selectors { select: select.to_vec(), ..Selectors::default() };
    let changed = git::changed_files(&selectors, &files.folder)?;
    Ok(Some(plan::select_all(&selectors.select, &snapshots.by_name, &changed)?))
}

/// A path as given, here or in the project, as the project's files are named.
fn within(folder: &Path, given: &str) -> String {
    let (path, test) = given.split_once("::").map_or((given, None), |(path, test)| (path, Some(test)));
    let relative = |path: &Path| {
        let path = std::path::absolute(path).ok()?;
        let path: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
        Some(path.strip_prefix(folder).ok()?.to_string_lossy().replace('\\', "/"))
    };
    let here = Path::new(path).is_file().then(|| relative(Path::new(path))).flatten();
    let path = here.unwrap_or_else(|| path.trim_start_matches("./").to_owned());
    match test {
        Some(test) => format!("{path}::{test}"),
        None => path,
    }
}

fn is_meant(args: &TestArgs, finding: &Diagnostic) -> bool {
    args.tests
        .iter()
        .any(|test| test.split("::").next().is_some_and(|file| file.ends_with(&*finding.at.path)))
}

fn models_by_file(project: &Project) -> BTreeMap<String, Vec<ModelName>> {
    let mut files: BTreeMap<String, Vec<ModelName>> = BTreeMap::new();
    for model in &project.models {
        files.entry(model.location.path.to_string()).or_default().push(model.name.clone());
    }
    files
}

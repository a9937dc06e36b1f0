//! `coordctl` as a process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::binaries::binary;
use crate::process::Process;

/// How long a command may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// How `coordctl` is called: for which project, state, server and clock.
#[derive(Debug, Clone)]
pub struct Cli {
    project: PathBuf,
    server: Option<String>,
    env: Vec<(String, String)>,
    arguments: Vec<String>,
}

/// What a command came to.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Its data.
    pub stdout: String,
    /// What it said beside.
    pub stderr: String,
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    process: Process,
    what: String,
    folder: tempfile::TempDir,
}

impl Cli {
    /// Works embedded on a project.
    pub fn embedded(project: &Path) -> Self {
        Self { project: project.to_owned(), server: None, env: Vec::new(), arguments: Vec::new() }
    }

    /// Talks to a coordinator.
    pub fn at(project: &Path, server: &str) -> Self {
        Self { server: Some(server.to_owned()), ..Self::embedded(project) }
    }

    /// The same with an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with arguments of every command.
    #[must_use]
    pub fn arguments(mut self, arguments: Vec<String>) -> Self {
        self.arguments.extend(arguments);
        self
    }

    /// The same with a clock that stands still.
    #[must_use]
    pub fn now(self, time: &str) -> Self {
        self.env("COORDCTL_NOW", time)
    }

    /// Starts a command.
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        let folder = crate::process::temp_folder("coord-cli");
        let mut command = Command::new(binary("coordctl"));
        command.env_remove("COORDCTL_SERVER").env_remove("COORDCTL_STATE").env_remove("COORDCTL_NOW");
        command.env_remove("RUST_LOG").arg("--project").arg(&self.project);
        if let Some(server) = &self.server {
            command.args(["--server", server]);
        }
        command
            .args(&self.arguments)
            .args(arguments)
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        let (out, err) = (folder.path().join("out"), folder.path().join("err"));
        let process = Process::start_apart(&mut command, &out, &err);
        Running { process, what: arguments.join(" "), folder }
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        self.spawn(arguments).wait()
    }

    /// Runs a command that must succeed.
    pub fn ok(&self, arguments: &[&str]) -> Finished {
        let finished = self.run(arguments);
        assert_eq!(finished.code, Some(0), "coordctl {arguments:?}: {finished:#?}");
        finished
    }

    /// Runs a command that must succeed, and gives its JSON document.
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.ok(&[arguments, &["--format", "json"]].concat()).json()
    }

    /// Plans, and gives the plan's document.
    pub fn plan(&self, arguments: &[&str]) -> Value {
        self.json(&[&["plan"], arguments, &["--no-prompts"]].concat())
    }

    /// Plans and applies; the document has what was executed.
    pub fn plan_and_apply(&self, arguments: &[&str]) -> Value {
        self.json(&[&["plan"], arguments, &["--auto-apply"]].concat())
    }
}

impl Finished {
    /// The JSON document on standard output.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:#?}"))
    }

    /// The JSON error document: the last line of standard error.
    pub fn error(&self) -> Value {
        let last = self.stderr.lines().last().unwrap_or_default();
        let document: Value = serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("no error document ({error}): {self:#?}"));
        document["error"].clone()
    }
}

impl Running {
    /// Waits for its end.
    pub fn wait(mut self) -> Finished {
        let start = Instant::now();
        while self.is_running() {
            assert!(
                start.elapsed() < PATIENCE,
                "coordctl {} does not end: {:#?}",
                self.what,
                self.said(None)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let code = self.process.exit_code();
        self.said(code)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        !self.process.has_ended()
    }

    /// Kills it as a crash would.
    pub fn kill9(mut self) {
        self.process.kill();
    }

    fn said(&self, code: Option<i32>) -> Finished {
        let read = |name: &str| {
            let bytes = std::fs::read(self.folder.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Finished { code, stdout: read("out"), stderr: read("err") }
    }
}

/// A plan document's id.
pub fn plan_id(document: &Value) -> String {
    document["plan_id"].as_str().unwrap_or_else(|| panic!("no plan_id in {document}")).to_owned()
}

/// Batches that an apply executed with a status, by model.
pub fn executed(document: &Value, model: &str, status: &str) -> usize {
    let rows = document["executed"].as_array().unwrap_or_else(|| panic!("nothing executed in {document}"));
    rows.iter().filter(|row| row[0] == model && row[3] == status).count()
}

/// All batches that an apply executed.
pub fn executed_in_all(document: &Value) -> usize {
    document["executed"].as_array().map_or(0, Vec::len)
}

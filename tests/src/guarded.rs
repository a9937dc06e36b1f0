//! A coordinator that asks who calls, on a SQLite file, with tokens for everybody.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use crate::binaries::binary;
use crate::cli::Cli;
use crate::process::{Process, free_ports, temp_folder};
use crate::project::Project;

/// The clock of everything here.
const NOW: &str = "2024-01-05 06:00:00";
/// A warehouse that isn't there: what is shown here is who may do what.
const CONFIG: &str = "gateways:\n  none:\n    connection:\n      type: noop\n\ndefault_gateway: none\n\nmodel_defaults:\n  dialect: duckdb\n  start: 2024-01-01\n";

/// A coordinator with tokens; it ends with the test.
#[derive(Debug)]
pub struct Guarded {
    /// The project that `coordctl` works on.
    pub project: Project,
    tokens: BTreeMap<String, String>,
    folder: tempfile::TempDir,
    address: String,
    _coordinator: Process,
}

impl Guarded {
    /// Starts one with a token for each name with its roles, and further flags.
    pub fn start(people: &[(&str, &str)], flags: &[&str]) -> Self {
        let project = Project::new(&[("config.yaml", CONFIG)]);
        let folder = temp_folder("coord-guarded");
        let cli = Cli::embedded(project.path());
        let (mut tokens, mut lines) = (BTreeMap::new(), Vec::new());
        for (name, roles) in people {
            let (token, line) = new_token(&cli, name, roles);
            tokens.insert((*name).to_owned(), token);
            lines.push(line);
        }
        let list = folder.path().join("tokens");
        std::fs::write(&list, lines.join("\n")).expect("the temporary folder can be written");
        let [port] = free_ports();
        let mut command = Command::new(binary("coordinator"));
        command.env("RUST_LOG", "debug").env("NO_COLOR", "1").env("COORDCTL_NOW", NOW);
        command.arg(format!("--listen=127.0.0.1:{port}"));
        command.arg(format!("--state={}", folder.path().display()));
        command.arg(format!("--tokens={}", list.display())).args(flags);
        let log = folder.path().join("coordinator.log");
        let mut coordinator = Process::start(&mut command, &log);
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        coordinator.wait_until("the coordinator", &log, listens);
        let address = format!("http://127.0.0.1:{port}");
        Self { project, tokens, folder, address, _coordinator: coordinator }
    }

    /// The coordinator's address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Somebody's token.
    pub fn token(&self, name: &str) -> &str {
        &self.tokens[name]
    }

    /// `coordctl` without a token.
    pub fn anonymous(&self) -> Cli {
        Cli::at(self.project.path(), &self.address).now(NOW)
    }

    /// `coordctl` as somebody.
    pub fn as_(&self, name: &str) -> Cli {
        self.anonymous().env("COORDCTL_TOKEN", self.token(name))
    }

    /// The file with the lines of tokens.
    pub fn list(&self) -> PathBuf {
        self.folder.path().join("tokens")
    }

    /// A new token for a name that has one, which the coordinator's file doesn't list yet; and the
    /// line for it.
    pub fn rotate(&mut self, name: &str, roles: &str) -> String {
        let (token, line) = new_token(&self.anonymous(), name, roles);
        self.tokens.insert(name.to_owned(), token);
        line
    }

    /// Starts a worker as somebody.
    pub fn worker(&self, name: &str, session: &str) -> Worker {
        let token = self.folder.path().join(format!("{name}.token"));
        std::fs::write(&token, self.token(name)).expect("the temporary folder can be written");
        let log = self.folder.path().join(format!("worker-{name}-{session}.log"));
        let mut command = Command::new(binary("worker"));
        command.env("RUST_LOG", "debug").env("NO_COLOR", "1").env_remove("COORDCTL_TOKEN");
        command.arg(format!("--coordinator={}", self.address));
        command.arg(format!("--project={}", self.project.path().display()));
        command.arg(format!("--token-file={}", token.display()));
        command.args(["--slots=2", &format!("--name={session}")]);
        Worker { _process: Process::start(&mut command, &log), log }
    }

    /// Everything that the coordinator and its state hold and have said: files as texts.
    pub fn everything_written(&self) -> String {
        let files = std::fs::read_dir(self.folder.path()).expect("the folder is there");
        let files = files.filter_map(|file| Some(file.ok()?.path()));
        let text = |path: PathBuf| {
            let name = path.display().to_string();
            if name.ends_with(".token") {
                return None;
            }
            Some(String::from_utf8_lossy(&std::fs::read(path).ok()?).into_owned())
        };
        files.filter_map(text).collect()
    }
}

/// A worker's process.
#[derive(Debug)]
pub struct Worker {
    _process: Process,
    log: PathBuf,
}

impl Worker {
    /// All it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn new_token(cli: &Cli, name: &str, roles: &str) -> (String, String) {
    let document = cli.json(&["token", "new", "--name", name, "--role", roles]);
    let part = |name: &str| document[name].as_str().expect("a text").to_owned();
    (part("token"), part("line"))
}

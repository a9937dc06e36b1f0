//! One of our binaries as a process that can be killed, stopped and started again.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binaries::binary;
use crate::fleet::wait_until;
use crate::process::{Process, free_ports, temp_folder};

/// One of our processes, with all that is needed to start it again.
#[derive(Debug)]
pub struct Service {
    pub(crate) name: String,
    /// The binary and its arguments, behind what it runs within.
    command: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    process: Process,
}

impl Service {
    pub(crate) fn start(
        name: String,
        program: &'static str,
        arguments: Vec<String>,
        env: Vec<(String, String)>,
        logs: &Path,
    ) -> Self {
        Self::start_within(&[], name, program, arguments, env, logs)
    }

    /// The same with a command in front, which must become the program itself.
    pub(crate) fn start_within(
        within: &[&str],
        name: String,
        program: &'static str,
        arguments: Vec<String>,
        env: Vec<(String, String)>,
        logs: &Path,
    ) -> Self {
        let log = logs.join(format!("{name}.log"));
        let mut command: Vec<String> = within.iter().map(|word| (*word).to_owned()).collect();
        command.push(binary(program).display().to_string());
        command.extend(arguments);
        let process = launch(&command, &env, &log);
        Self { name, command, env, log, process }
    }

    /// Kills it as a crash would.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Stops its clock: connections stay open and nothing answers.
    pub fn stop(&self) {
        self.process.signal("STOP");
    }

    /// Lets it go on.
    pub fn cont(&self) {
        self.process.signal("CONT");
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.process.signal("TERM");
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    /// Waits for its end and gives the exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        wait_until(&format!("the end of {}", self.name), || self.process.has_ended());
        self.process.exit_code()
    }

    /// Starts it again as it was started before, killing it where it still runs.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = launch(&self.command, &self.env, &self.log);
    }

    /// All it ever logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn launch(words: &[String], env: &[(String, String)], log: &Path) -> Process {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env_remove("RUST_LOG").env("NO_COLOR", "1");
    command.env_remove("COORDCTL_SERVER").env_remove("COORDCTL_STATE").env_remove("COORDCTL_NOW");
    command.envs(env.iter().map(|(name, value)| (name, value)));
    Process::start(&mut command, log)
}

/// A coordinator alone.
#[derive(Debug)]
pub struct Lone {
    service: Service,
    address: String,
    _folder: tempfile::TempDir,
}

impl Lone {
    /// Starts it on a SQLite file, and waits until it listens.
    pub fn start() -> Self {
        let folder = temp_folder("coord-lone");
        let state = format!("sqlite:{}", folder.path().join("state.db").display());
        Self::start_in(folder, &state)
    }

    /// The same on another state.
    pub fn on(state: &str) -> Self {
        Self::start_in(temp_folder("coord-lone"), state)
    }

    fn start_in(folder: tempfile::TempDir, state: &str) -> Self {
        let [port] = free_ports();
        let arguments = vec![format!("--listen=127.0.0.1:{port}"), format!("--state={state}")];
        let service =
            Service::start("coordinator".to_owned(), "coordinator", arguments, Vec::new(), folder.path());
        wait_until("the coordinator to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { service, address: format!("http://127.0.0.1:{port}"), _folder: folder }
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A figure of its memory, such as `VmRSS` or `VmHWM`, in MiB.
    pub fn memory_mib(&self, what: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find(|line| line.starts_with(what)).unwrap_or_default();
        let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default();
        kib / 1024
    }

    /// The processor time that it has used, in milliseconds.
    pub fn cpu_millis(&self) -> u64 {
        let stat = self.proc("stat");
        // After the name in parentheses; ticks are hundredths of a second on Linux.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>()
            * 10
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.service.process.pid())).unwrap_or_default()
    }
}

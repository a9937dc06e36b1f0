//! Child processes with signals, ports and patience.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start or stop on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A child process that is killed when dropped.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts a command whose output goes to the end of a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        Self::start_apart(command, log, log)
    }

    /// The same with a file for each stream.
    pub(crate) fn start_apart(command: &mut Command, out: &Path, err: &Path) -> Self {
        let open = |path: &Path| {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            file.unwrap_or_else(|error| panic!("can't write `{}`: {error}", path.display()))
        };
        let child = command.stdin(Stdio::null()).stdout(open(out)).stderr(open(err)).spawn();
        Self(child.unwrap_or_else(|error| panic!("can't run {command:?}: {error}")))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal by its name (`KILL`, `STOP`, `CONT`). The child is not reaped before, so its
    /// id can't have passed to another process.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "can't send SIG{name} to {}", self.pid());
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Its exit code, once it has ended by itself.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.0.try_wait().ok().flatten().and_then(|status| status.code())
    }

    /// Kills it and waits for its end.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself; either way it is reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Waits for its end after a signal, and kills it where it takes too long.
    pub(crate) fn wait_or_kill(&mut self) {
        let start = Instant::now();
        while !self.has_ended() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }

    /// Waits until a server is ready; panics with its log where it ends or takes too long.
    pub(crate) fn wait_until(&mut self, what: &str, log: &Path, mut ready: impl FnMut() -> bool) {
        let start = Instant::now();
        while !ready() {
            if self.has_ended() || start.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                panic!("{what} did not get ready; its log:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports on 127.0.0.1 that were free a moment ago, all different.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free loopback port"));
    listeners.map(|listener| listener.local_addr().expect("a bound port has an address").port())
}

/// An empty folder of its own.
pub(crate) fn temp_folder(name: &str) -> tempfile::TempDir {
    tempfile::Builder::new().prefix(name).tempdir().expect("a temporary folder")
}

//! A real etcd of one member.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, free_ports, temp_folder};

/// How an etcd is started.
#[derive(Debug, Clone, Default)]
pub struct EtcdOptions {
    /// Leaves out the flush to disk: faster, but a test of durability would prove nothing.
    pub unsafe_no_fsync: bool,
    /// Clients connect over TLS: `arguments` name the certificates.
    pub tls: bool,
    /// More arguments.
    pub arguments: Vec<String>,
}

/// An etcd of one member on loopback ports; it ends, with its data, when dropped.
#[derive(Debug)]
pub struct Etcd {
    process: Process,
    options: EtcdOptions,
    client_port: u16,
    peer_port: u16,
    folder: tempfile::TempDir,
}

impl Etcd {
    /// Starts an etcd and waits until it is healthy.
    pub fn start() -> Self {
        Self::start_with(EtcdOptions::default())
    }

    /// The same with options.
    pub fn start_with(options: EtcdOptions) -> Self {
        let [client_port, peer_port] = free_ports();
        let folder = temp_folder("coord-etcd");
        let process = launch(&options, client_port, peer_port, folder.path());
        let mut etcd = Self { process, options, client_port, peer_port, folder };
        etcd.wait_until_healthy();
        etcd
    }

    /// `host:port` for clients.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// A state URL of a namespace in it.
    pub fn url(&self, namespace: &str) -> String {
        format!("etcd://{}/{namespace}", self.endpoint())
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills it as a crash would (SIGKILL); the data stays for [`Etcd::restart`].
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Stops its clock (SIGSTOP): connections stay open and nothing answers.
    pub fn stop(&self) {
        self.process.signal("STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn cont(&self) {
        self.process.signal("CONT");
    }

    /// Kills it where it still runs, and starts it on the same data and ports.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = launch(&self.options, self.client_port, self.peer_port, self.folder.path());
        self.wait_until_healthy();
    }

    /// Kills it, deletes its data, and starts it anew, empty, on the same ports.
    pub fn lose_data(&mut self) {
        self.process.kill();
        std::fs::remove_dir_all(self.folder.path().join("data")).expect("the data can be deleted");
        self.restart();
    }

    /// Runs `etcdctl` against it and gives its output.
    pub fn etcdctl(&self, arguments: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg("--endpoints")
            .arg(self.endpoint())
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("can't run etcdctl ({error}): apt-get install etcd"));
        assert!(
            output.status.success(),
            "etcdctl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn wait_until_healthy(&mut self) {
        let (port, tls, log) = (self.client_port, self.options.tls, log_file(self.folder.path()));
        self.process.wait_until("etcd", &log, || {
            // Behind TLS an open port must do: etcd opens it once it is ready.
            if tls { TcpStream::connect(("127.0.0.1", port)).is_ok() } else { healthy(port).unwrap_or(false) }
        });
    }
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("etcd.log")
}

fn launch(options: &EtcdOptions, client_port: u16, peer_port: u16, folder: &Path) -> Process {
    let binary = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|path| path.join("etcd"))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("etcd is not on the PATH: apt-get install etcd"));
    let scheme = if options.tls { "https" } else { "http" };
    let client = format!("{scheme}://127.0.0.1:{client_port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    let mut command = Command::new(binary);
    command.arg("--name=test").arg("--data-dir").arg(folder.join("data"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("test={peer}"), "--logger=zap", "--log-level=warn"]);
    if options.unsafe_no_fsync {
        command.arg("--unsafe-no-fsync");
    }
    Process::start(command.args(&options.arguments), &log_file(folder))
}

fn healthy(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.contains(r#""health":"true""#))
}

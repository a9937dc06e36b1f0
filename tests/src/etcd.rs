//! A real etcd of one or more members.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{Process, free_ports, temp_folder};

/// How long a cluster may take to agree on something.
const PATIENCE: Duration = Duration::from_secs(60);

/// How an etcd is started.
#[derive(Debug, Clone, Default)]
pub struct EtcdOptions {
    /// Leaves out the flush to disk: faster, but a test of durability would prove nothing.
    pub unsafe_no_fsync: bool,
    /// Clients connect over TLS: `arguments` name the certificates.
    pub tls: bool,
    /// More arguments.
    pub arguments: Vec<String>,
    /// How many members it has: one where this is 0, at most three.
    pub members: usize,
    /// Where the data is kept, instead of a temporary folder.
    pub folder: Option<PathBuf>,
}

/// An etcd on loopback ports; it ends, with its data, when dropped. What is done to it is done to
/// all members, unless the name says otherwise.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    options: EtcdOptions,
    folder: tempfile::TempDir,
    password: Option<String>,
}

#[derive(Debug)]
struct Member {
    process: Process,
    place: Place,
}

/// Where a member is.
#[derive(Debug, Clone)]
struct Place {
    client: u16,
    peer: u16,
    folder: PathBuf,
}

impl Etcd {
    /// Starts an etcd of one member and waits until it is healthy.
    pub fn start() -> Self {
        Self::start_with(EtcdOptions::default())
    }

    /// The same with options.
    pub fn start_with(options: EtcdOptions) -> Self {
        let folder = temp_folder("coord-etcd");
        let root = options.folder.clone().unwrap_or_else(|| folder.path().to_owned());
        let ports: [u16; 6] = free_ports();
        std::fs::create_dir_all(&root).expect("a folder for the data");
        let places: Vec<Place> = (0..options.members.max(1))
            .map(|n| Place { client: ports[2 * n], peer: ports[2 * n + 1], folder: root.join(name(n)) })
            .collect();
        let launched = |n: usize| Member { process: launch(&options, &places, n), place: places[n].clone() };
        let members = (0..places.len()).map(launched).collect();
        let mut etcd = Self { members, options, folder, password: None };
        etcd.wait_until_healthy();
        etcd
    }

    /// `host:port` for clients, of each member, separated by commas.
    pub fn endpoint(&self) -> String {
        let ports = self.members.iter().map(|member| format!("127.0.0.1:{}", member.place.client));
        ports.collect::<Vec<_>>().join(",")
    }

    /// A state URL of a namespace in it.
    pub fn url(&self, namespace: &str) -> String {
        let login = self.password.as_ref().map(|password| format!("root:{password}@")).unwrap_or_default();
        format!("etcd://{login}{}/{namespace}", self.endpoint())
    }

    /// From now on nobody gets in without this password, as user `root`.
    pub fn demand_password(&mut self, password: &str) {
        self.etcdctl(&["user", "add", &format!("root:{password}")]);
        self.etcdctl(&["user", "grant-role", "root", "root"]);
        self.etcdctl(&["auth", "enable"]);
        self.password = Some(password.to_owned());
    }

    /// The first member's process id.
    pub fn pid(&self) -> u32 {
        self.members[0].process.pid()
    }

    /// Kills it as a crash would (SIGKILL); the data stays for [`Etcd::restart`].
    pub fn kill9(&mut self) {
        (0..self.members.len()).for_each(|member| self.kill9_member(member));
    }

    /// The same with one member.
    pub fn kill9_member(&mut self, member: usize) {
        self.members[member].process.kill();
    }

    /// Stops its clock (SIGSTOP): connections stay open and nothing answers.
    pub fn stop(&self) {
        (0..self.members.len()).for_each(|member| self.stop_member(member));
    }

    /// The same with one member.
    pub fn stop_member(&self, member: usize) {
        self.members[member].process.signal("STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn cont(&self) {
        (0..self.members.len()).for_each(|member| self.cont_member(member));
    }

    /// The same with one member.
    pub fn cont_member(&self, member: usize) {
        self.members[member].process.signal("CONT");
    }

    /// Kills it where it still runs, and starts it on the same data and ports.
    pub fn restart(&mut self) {
        (0..self.members.len()).for_each(|member| self.launch_member(member));
        self.wait_until_healthy();
    }

    /// Kills it, deletes its data, and starts it anew, empty, on the same ports.
    pub fn lose_data(&mut self) {
        self.kill9();
        for member in &self.members {
            std::fs::remove_dir_all(&member.place.folder).expect("the data can be deleted");
        }
        self.restart();
    }

    /// The same with one member. Where too few others run, the cluster stays without a majority.
    pub fn restart_member(&mut self, member: usize) {
        self.launch_member(member);
        let (alive, majority) = (self.running(), self.members.len() / 2 + 1);
        if alive >= majority {
            self.wait_until_member_is_healthy(member);
        }
    }

    /// Starts a member again without waiting for it.
    pub fn relaunch_member(&mut self, member: usize) {
        self.launch_member(member);
    }

    /// Writes a large value, which nobody reads.
    ///
    /// # Errors
    /// What `etcdctl` said.
    pub fn put_filler(&self) -> Result<(), String> {
        let mut put = Command::new("etcdctl");
        put.env("ETCDCTL_API", "3").arg("--endpoints").arg(self.endpoint());
        put.args(["--command-timeout=5s", "put", "/filler"]).stdin(Stdio::piped());
        put.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut put = put.spawn().map_err(|error| error.to_string())?;
        if let Some(mut stdin) = put.stdin.take() {
            stdin.write_all(&[b'x'; 1_000_000]).map_err(|error| error.to_string())?;
        }
        let output = put.wait_with_output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// The member that leads; waits until there is one.
    pub fn leader(&self) -> usize {
        let start = Instant::now();
        loop {
            let leads = |member: &Member| leads(member.place.client).unwrap_or(false);
            if let Some(leader) = self.members.iter().position(leads) {
                return leader;
            }
            assert!(start.elapsed() < PATIENCE, "no member of etcd leads");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// How many members it has, running or not.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Runs `etcdctl` against it and gives its output.
    pub fn etcdctl(&self, arguments: &[&str]) -> String {
        self.try_etcdctl(arguments).unwrap_or_else(|error| panic!("etcdctl {arguments:?}: {error}"))
    }

    /// The same, where it may fail.
    ///
    /// # Errors
    /// What `etcdctl` said.
    pub fn try_etcdctl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg("--endpoints")
            .arg(self.endpoint())
            .args(self.password.iter().map(|password| format!("--user=root:{password}")))
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("can't run etcdctl ({error}): apt-get install etcd"));
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// What the members have logged.
    pub fn log(&self) -> String {
        let read = |member: &Member| std::fs::read_to_string(log_file(&member.place)).unwrap_or_default();
        self.members.iter().map(read).collect()
    }

    fn launch_member(&mut self, member: usize) {
        self.members[member].process.kill();
        let places: Vec<Place> = self.members.iter().map(|member| member.place.clone()).collect();
        self.members[member].process = launch(&self.options, &places, member);
    }

    fn running(&mut self) -> usize {
        self.members.iter_mut().filter_map(|member| (!member.process.has_ended()).then_some(())).count()
    }

    fn wait_until_healthy(&mut self) {
        (0..self.members.len()).for_each(|member| self.wait_until_member_is_healthy(member));
    }

    fn wait_until_member_is_healthy(&mut self, member: usize) {
        let (tls, Member { process, place }) = (self.options.tls, &mut self.members[member]);
        let port = place.client;
        process.wait_until("etcd", &log_file(place), || {
            // Behind TLS an open port must do: etcd opens it once it is ready.
            if tls { TcpStream::connect(("127.0.0.1", port)).is_ok() } else { healthy(port).unwrap_or(false) }
        });
    }

    /// The folder of its own; members may keep their data elsewhere ([`EtcdOptions::folder`]).
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn name(member: usize) -> String {
    format!("member{member}")
}

fn log_file(place: &Place) -> PathBuf {
    place.folder.with_extension("log")
}

fn launch(options: &EtcdOptions, places: &[Place], member: usize) -> Process {
    let binary = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|path| path.join("etcd"))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("etcd is not on the PATH: apt-get install etcd"));
    let scheme = if options.tls { "https" } else { "http" };
    let place = &places[member];
    let client = format!("{scheme}://127.0.0.1:{}", place.client);
    let peer = |place: &Place| format!("http://127.0.0.1:{}", place.peer);
    let all = places.iter().enumerate().map(|(n, place)| format!("{}={}", name(n), peer(place)));
    let all = all.collect::<Vec<_>>().join(",");
    let mut command = Command::new(binary);
    command.arg(format!("--name={}", name(member))).arg("--data-dir").arg(&place.folder);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer(place), "--initial-advertise-peer-urls", &peer(place)]);
    command.args(["--initial-cluster", &all, "--logger=zap", "--log-level=warn"]);
    if options.unsafe_no_fsync {
        command.arg("--unsafe-no-fsync");
    }
    Process::start(command.args(&options.arguments), &log_file(place))
}

fn healthy(port: u16) -> std::io::Result<bool> {
    Ok(http_get(port, "/health")?.contains(r#""health":"true""#))
}

fn leads(port: u16) -> std::io::Result<bool> {
    Ok(http_get(port, "/metrics")?.lines().any(|line| line == "etcd_server_is_leader 1"))
}

fn http_get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

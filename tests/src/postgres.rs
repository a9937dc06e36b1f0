//! A real PostgreSQL server.

use std::os::unix::fs::{MetadataExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::{Process, free_ports, temp_folder};

/// How a PostgreSQL server is started.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Flushes to disk, as a server in production does; off by default, for speed.
    pub fsync: bool,
    /// The password of `postgres`; without one, everybody on loopback is trusted.
    pub password: Option<String>,
    /// A certificate and its key (PEM texts): connections may be encrypted.
    pub certificate: Option<(String, String)>,
    /// The authority (PEM text) that clients must have certificates of, and be encrypted.
    pub client_authority: Option<String>,
    /// More settings, as `name=value`.
    pub settings: Vec<String>,
}

/// A PostgreSQL server on a loopback port; it ends, with its data, when dropped.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    options: PostgresOptions,
    port: u16,
    folder: tempfile::TempDir,
}

impl Postgres {
    /// Starts a server with an empty database `postgres`, and waits until it takes connections.
    pub fn start() -> Self {
        Self::start_with(PostgresOptions::default())
    }

    /// The same with options.
    pub fn start_with(options: PostgresOptions) -> Self {
        let [port] = free_ports();
        let folder = temp_folder("coord-postgres");
        init(&options, folder.path());
        let process = launch(&options, port, folder.path());
        let mut postgres = Self { process, options, port, folder };
        postgres.wait_until_ready();
        postgres
    }

    /// The connection string of database `postgres` for its superuser, as libpq and
    /// `tokio-postgres` read it.
    pub fn dsn(&self) -> String {
        self.dsn_of("postgres")
    }

    /// The same for another database.
    pub fn dsn_of(&self, database: &str) -> String {
        let password = self.options.password.as_ref().map(|password| format!(" password='{password}'"));
        let password = password.unwrap_or_default();
        format!("host=127.0.0.1 port={} user=postgres dbname={database}{password}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The password of `postgres`, where it has one.
    pub fn password(&self) -> Option<&str> {
        self.options.password.as_deref()
    }

    /// Makes an empty database.
    pub fn create_database(&self, name: &str) {
        let mut create = Command::new(binary("createdb"));
        create.args(["-h", "127.0.0.1", "-U", "postgres", "-w", "-p", &self.port.to_string(), name]);
        create.envs(self.options.password.as_ref().map(|password| ("PGPASSWORD", password)));
        let output = create.output().unwrap_or_else(|error| panic!("can't run {create:?}: {error}"));
        assert!(output.status.success(), "{create:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs statements as psql does, and gives what they return: a row in a line, `|` between cells.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(binary("psql"));
        psql.args(["-h", "127.0.0.1", "-U", "postgres", "-w", "-p", &self.port.to_string(), "-d", database]);
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        psql.envs(self.options.password.as_ref().map(|password| ("PGPASSWORD", password)));
        let output = psql.output().unwrap_or_else(|error| panic!("can't run {psql:?}: {error}"));
        assert!(output.status.success(), "{psql:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// The id of the server's first process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills its first process as a crash would (SIGKILL); the others follow by themselves. The
    /// data stays for [`Postgres::restart`].
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Stops its first process (SIGSTOP): new connections hang, open ones work on.
    pub fn stop(&self) {
        self.process.signal("STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn cont(&self) {
        self.process.signal("CONT");
    }

    /// Ends it at once where it still runs (SIGQUIT: recovery follows as after a crash), and starts
    /// it on the same data and port.
    pub fn restart(&mut self) {
        self.quit();
        // The children of one that was killed hold its shared memory for a moment: a new one that
        // finds it in use ends at once.
        for _ in 0..20 {
            self.process = launch(&self.options, self.port, self.folder.path());
            if self.comes_up() {
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        self.wait_until_ready();
    }

    fn quit(&mut self) {
        if !self.process.has_ended() {
            self.process.signal("QUIT");
            self.process.signal("CONT");
            self.process.wait_or_kill();
        }
    }

    /// Whether it takes connections before it ends.
    fn comes_up(&mut self) -> bool {
        while !is_ready(self.port) {
            if self.process.has_ended() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    fn wait_until_ready(&mut self) {
        let (port, log) = (self.port, log_file(self.folder.path()));
        self.process.wait_until("PostgreSQL", &log, || is_ready(port));
    }
}

impl Drop for Postgres {
    /// SIGQUIT lets the server end its children; SIGKILL would leave them for a moment.
    fn drop(&mut self) {
        self.quit();
    }
}

fn is_ready(port: u16) -> bool {
    let mut probe = Command::new(binary("pg_isready"));
    probe.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]);
    probe.status().is_ok_and(|status| status.success())
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("postgres.log")
}

fn init(options: &PostgresOptions, folder: &Path) {
    let mut initdb = as_server_user("initdb");
    initdb.arg("-D").arg(folder.join("data")).args(["-U", "postgres", "-E", "UTF8", "--locale=C", "-N"]);
    match &options.password {
        Some(password) => {
            let file = folder.join("password");
            std::fs::write(&file, password).expect("the temporary folder can be written");
            initdb.arg("--auth=scram-sha-256").arg("--pwfile").arg(file);
        }
        None => {
            initdb.arg("--auth=trust");
        }
    }
    encrypt(options, folder);
    if is_root() {
        let chown = Command::new("chown").args(["-R", "postgres:"]).arg(folder).status();
        assert!(chown.is_ok_and(|status| status.success()), "can't give the folder to user postgres");
    }
    let output = initdb.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("can't run {initdb:?}: {error}"));
    assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// Writes what a server that encrypts needs; the key must be its own.
fn encrypt(options: &PostgresOptions, folder: &Path) {
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).expect("the temporary folder can be written");
    };
    if let Some((certificate, key)) = &options.certificate {
        write("server.pem", certificate);
        write("server.key", key);
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(folder.join("server.key"), private).expect("the file is ours");
    }
    if let Some(authority) = &options.client_authority {
        write("clients.pem", authority);
        write("hba.conf", "hostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n");
    }
}

/// The settings of a server that encrypts.
fn encryption(options: &PostgresOptions, folder: &Path) -> Vec<String> {
    let file = |setting: &str, name: &str| format!("{setting}={}", folder.join(name).display());
    let mut settings = Vec::new();
    if options.certificate.is_some() {
        settings.extend([
            "ssl=on".to_owned(),
            file("ssl_cert_file", "server.pem"),
            file("ssl_key_file", "server.key"),
        ]);
    }
    if options.client_authority.is_some() {
        settings.extend([file("ssl_ca_file", "clients.pem"), file("hba_file", "hba.conf")]);
    }
    settings
}

fn launch(options: &PostgresOptions, port: u16, folder: &Path) -> Process {
    let mut postgres = as_server_user("postgres");
    postgres.arg("-D").arg(folder.join("data")).arg("-p").arg(port.to_string());
    let fsync = if options.fsync { "on" } else { "off" };
    let settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", &format!("fsync={fsync}")];
    let encryption = encryption(options, folder);
    let more = encryption.iter().chain(&options.settings).map(String::as_str);
    for setting in settings.into_iter().chain(more) {
        postgres.args(["-c", setting]);
    }
    Process::start(&mut postgres, &log_file(folder))
}

/// A command of the server's, as user `postgres` where this is root: the server refuses root.
/// `setpriv` becomes the command, so the process that was started is the server itself.
fn as_server_user(name: &str) -> Command {
    let binary = binary(name);
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(binary);
        command
    } else {
        Command::new(binary)
    };
    // The user may not be allowed to see where the test runs.
    command.current_dir("/");
    command
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The newest version's binary.
fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|version| {
            let number = version.file_name().to_str()?.parse::<u32>().ok()?;
            Some((number, version.path().join("bin").join(name)))
        })
        .filter(|(_, path)| path.is_file())
        .max();
    newest.map_or_else(
        || panic!("PostgreSQL's `{name}` is missing: apt-get install postgresql"),
        |(_, path)| path,
    )
}

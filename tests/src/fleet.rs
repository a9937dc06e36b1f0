//! A fleet: etcd, PostgreSQL, coordinators and workers, all processes of their own.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::Cli;
use crate::etcd::{Etcd, EtcdOptions};
use crate::postgres::{Postgres, PostgresOptions};
use crate::process::{free_ports, temp_folder};
use crate::project::Project;
pub use crate::service::Service;

/// How many fleets run at once: more would only slow each other down.
const MOST_FLEETS: usize = 2;
/// How long a fleet may take to do something that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

static FLEETS: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// The right to run a fleet, or anything else that is as heavy.
#[derive(Debug)]
pub struct Permit(());

impl Permit {
    /// Waits until few enough others run.
    pub fn wait() -> Self {
        let running = FLEETS.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |running: &mut usize| *running >= MOST_FLEETS;
        let mut running = FLEETS.1.wait_while(running, full).unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Self(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *FLEETS.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FLEETS.1.notify_one();
    }
}

/// How a fleet is started.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Workers.
    pub workers: usize,
    /// Coordinators: one leads, the others stand by.
    pub coordinators: usize,
    /// Leadership's time to live, in milliseconds.
    pub election_ttl: u64,
    /// Leases that each worker holds at once.
    pub slots: u32,
    /// A lease's time to live, in milliseconds.
    pub lease_ttl: u64,
    /// The coordinator's clock, which stands still.
    pub now: String,
    /// Lines under the gateway's connection.
    pub connection: String,
    /// Flushes to disk in etcd: for tests that crash it.
    pub fsync: bool,
    /// The longest pause before a first repetition, in milliseconds; it doubles with each. All
    /// repetitions of a batch must outlast what a test breaks.
    pub retry_base: u64,
    /// A folder with certificates, where connections are encrypted: `ca.pem`, and for `coordinator`,
    /// `coordctl` and each worker (`worker-0`, …) a `.pem` and a `.key`.
    pub certificates: Option<PathBuf>,
    /// Environment variables of all processes.
    pub env: Vec<(String, String)>,
    /// The password of the warehouse; without one, everybody on loopback is trusted.
    pub password: Option<String>,
    /// The password of the state; without one, everybody on loopback is trusted.
    pub etcd_password: Option<String>,
    /// Members of etcd.
    pub etcd_members: usize,
    /// More arguments of etcd.
    pub etcd_arguments: Vec<String>,
    /// Where etcd keeps its data, instead of a temporary folder.
    pub etcd_folder: Option<PathBuf>,
    /// The state, instead of etcd's.
    pub state: Option<String>,
    /// More arguments of each worker.
    pub worker_arguments: Vec<String>,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            workers: 2,
            coordinators: 1,
            election_ttl: 1000,
            slots: 2,
            lease_ttl: 1500,
            now: "2024-02-10 00:00:00".to_owned(),
            connection: "concurrent_tasks: 16".to_owned(),
            fsync: false,
            retry_base: 300,
            certificates: None,
            env: Vec::new(),
            password: None,
            etcd_password: None,
            etcd_members: 1,
            etcd_arguments: Vec::new(),
            etcd_folder: None,
            state: None,
            worker_arguments: Vec::new(),
        }
    }
}

impl FleetOptions {
    fn server_certificates(&self) -> Vec<String> {
        let flag =
            |flag: &str, folder: &Path, file: &str| format!("--{flag}={}", folder.join(file).display());
        let flags = |folder: &PathBuf| {
            [("tls-cert", "coordinator.pem"), ("tls-key", "coordinator.key"), ("tls-client-ca", "ca.pem")]
                .map(|(name, file)| flag(name, folder, file))
        };
        self.certificates.iter().flat_map(flags).collect()
    }

    fn client_certificates(&self, who: &str) -> Vec<String> {
        let flags = |folder: &PathBuf| {
            [("ca", "ca.pem".to_owned()), ("cert", format!("{who}.pem")), ("key", format!("{who}.key"))]
                .map(|(name, file)| format!("--tls-{name}={}", folder.join(file).display()))
        };
        self.certificates.iter().flat_map(flags).collect()
    }
}

/// A running fleet; it ends with the test, and shows its logs where the test failed.
#[derive(Debug)]
pub struct Fleet {
    /// Workers, in the order they were started.
    pub workers: Vec<Service>,
    /// The coordinator; the first one where there are several.
    pub coordinator: Service,
    /// The others, with their addresses.
    others: Vec<(Service, String)>,
    /// The state.
    pub etcd: Etcd,
    /// The warehouse.
    pub postgres: Postgres,
    /// The project that `coordctl` works on.
    pub project: Project,
    options: FleetOptions,
    address: String,
    logs: tempfile::TempDir,
    _permit: Permit,
}

impl Fleet {
    /// Starts a fleet on a project whose gateway `pg` is the fleet's PostgreSQL.
    pub fn start(options: FleetOptions, project: Project) -> Self {
        let permit = Permit::wait();
        let password = options.password.clone();
        let postgres = Postgres::start_with(PostgresOptions { password, ..PostgresOptions::default() });
        let mut etcd = Etcd::start_with(EtcdOptions {
            unsafe_no_fsync: !options.fsync,
            members: options.etcd_members,
            arguments: options.etcd_arguments.clone(),
            folder: options.etcd_folder.clone(),
            ..EtcdOptions::default()
        });
        if let Some(password) = &options.etcd_password {
            etcd.demand_password(password);
        }
        project.config_of_postgres(&postgres, &options.connection);
        let logs = temp_folder("coord-fleet");
        let (coordinator, mut address) = start_coordinator("coordinator", &etcd, &options, logs.path());
        let others: Vec<(Service, String)> = (1..options.coordinators)
            .map(|n| start_coordinator(&format!("coordinator-{n}"), &etcd, &options, logs.path()))
            .collect();
        for (_, other) in &others {
            address = format!("{address},{other}");
        }
        let mut fleet = Self {
            workers: Vec::new(),
            coordinator,
            others,
            etcd,
            postgres,
            project,
            options: options.clone(),
            address,
            logs,
            _permit: permit,
        };
        fleet.sql(LOG_TABLE);
        for _ in 0..options.workers {
            fleet.add_worker(&[]);
        }
        fleet.wait_until_serving();
        fleet
    }

    /// Starts one more worker, and gives its place.
    pub fn add_worker(&mut self, more: &[&str]) -> usize {
        let name = format!("worker-{}", self.workers.len());
        let mut arguments = vec![
            format!("--coordinator={}", self.address),
            format!("--project={}", self.project.path().display()),
            format!("--slots={}", self.options.slots),
            "--gateway=pg".to_owned(),
            format!("--name={name}"),
        ];
        arguments.extend(self.options.client_certificates(&name));
        arguments.extend(self.options.worker_arguments.iter().cloned());
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let worker = Service::start(name, "worker", arguments, self.options.env.clone(), self.logs.path());
        self.workers.push(worker);
        self.workers.len() - 1
    }

    /// Starts one more worker with a command in front, which reaches the coordinator at `address`
    /// and the warehouse by the config in `folder`; gives its place.
    pub fn add_worker_within(&mut self, within: &[&str], address: &str, folder: &Path) -> usize {
        let name = format!("worker-{}", self.workers.len());
        let mut arguments = vec![
            format!("--coordinator={address}"),
            format!("--project={}", folder.display()),
            format!("--slots={}", self.options.slots),
            "--gateway=pg".to_owned(),
            format!("--name={name}"),
        ];
        arguments.extend(self.options.worker_arguments.iter().cloned());
        let worker = Service::start_within(within, name, "worker", arguments, Vec::new(), self.logs.path());
        self.workers.push(worker);
        self.workers.len() - 1
    }

    /// Starts another coordinator, which stands by, and gives its address.
    pub fn start_standby(&self) -> (Service, String) {
        start_coordinator("standby", &self.etcd, &self.options, self.logs.path())
    }

    /// Turns to another coordinator: new workers and commands use its address.
    pub fn turn_to(&mut self, coordinator: Service, address: String) {
        self.coordinator = coordinator;
        self.address = address;
    }

    /// The number of the coordinator that leads, once there is one.
    pub fn leader(&self) -> usize {
        let mut found = None;
        wait_until("a leader", || {
            let record = self.etcd.etcdctl(&["get", "/test/r1/lead", "--print-value-only"]);
            found = (0..=self.others.len()).find(|n| record.contains(&self.coordinator_address(*n)));
            found.is_some()
        });
        found.expect("it was waited for")
    }

    /// One of several coordinators.
    pub fn coordinator_at(&mut self, n: usize) -> &mut Service {
        match n {
            0 => &mut self.coordinator,
            n => &mut self.others[n - 1].0,
        }
    }

    /// Its address.
    pub fn coordinator_address(&self, n: usize) -> String {
        self.address.split(',').nth(n).expect("there are so many coordinators").to_owned()
    }

    /// The coordinators' addresses, separated by commas.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where the state is.
    pub fn state_url(&self) -> String {
        self.options.state.clone().unwrap_or_else(|| self.etcd.url("test"))
    }

    /// `coordctl` against this fleet.
    pub fn cli(&self) -> Cli {
        let cli = Cli::at(self.project.path(), &self.address)
            .arguments(self.options.client_certificates("coordctl"));
        self.options.env.iter().fold(cli, |cli, (name, value)| cli.env(name, value))
    }

    /// Waits until the coordinator answers.
    pub fn wait_until_serving(&self) {
        wait_until("an answer of the coordinator", || self.cli().run(&["environments"]).code == Some(0));
    }

    /// Queries the warehouse: rows of texts.
    pub fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        query(&self.postgres, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// One number of the warehouse; 0 where the relation isn't there yet.
    pub fn count(&self, sql: &str) -> i64 {
        let rows = query(&self.postgres, sql).unwrap_or_default();
        rows.first().and_then(|row| row.first()).and_then(|cell| cell.parse().ok()).unwrap_or(0)
    }

    /// Rows and contents of a relation, in any order.
    pub fn digest(&self, relation: &str) -> String {
        let sql = format!(
            "SELECT COUNT(*), MD5(COALESCE(STRING_AGG(t::TEXT, '|' ORDER BY t::TEXT), '')) FROM {relation} AS t"
        );
        self.sql(&sql)[0].join(" ")
    }

    /// The state's document.
    pub fn state(&self) -> Value {
        self.cli().json(&["state"])
    }

    /// An environment's revision; none where it doesn't exist.
    pub fn revision(&self, environment: &str) -> Option<u64> {
        let document = self.cli().json(&["environments"]);
        let all = document["environments"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|shown| shown["name"] == environment)?;
        found["revision"].as_u64()
    }

    /// A plan's state, by its id.
    pub fn plan_state(&self, id: &str) -> String {
        let document = self.cli().json(&["plans"]);
        let all = document["plans"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|plan| plan["plan_id"] == id);
        found.and_then(|plan| plan["state"].as_str()).unwrap_or("unknown").to_owned()
    }

    /// Kills workers as a crash would, and starts them again.
    pub fn crash_workers(&mut self, which: &[usize]) {
        for worker in which {
            self.workers[*worker].kill9();
        }
        for worker in which {
            self.workers[*worker].restart();
        }
    }

    /// Waits until all batches that were lost with their workers are committed: a batch that is lost
    /// three times fails for good, so whoever goes on crashing workers must not always hit the same.
    pub fn wait_until_losses_are_made_good(&self, id: &str) {
        wait_until("commits of what was lost", || {
            self.assert_under_way(id);
            let records = self.etcd.etcdctl(&["get", "--prefix", "--print-value-only", ""]);
            records.split("\"losses\":").skip(1).all(|rest| rest.starts_with('0'))
        });
    }

    /// Waits until a plan that is under way has finished; panics with what it says of itself as soon
    /// as it has ended in any other way.
    pub fn wait_until_finished(&self, id: &str) {
        wait_until("the plan's end", || {
            let state = self.assert_under_way(id);
            state == "finished"
        });
    }

    /// A plan's state, which must be neither failed nor cancelled.
    fn assert_under_way(&self, id: &str) -> String {
        let state = self.plan_state(id);
        let said = || self.cli().run(&["watch", id]).stderr;
        assert!(!matches!(state.as_str(), "failed" | "cancelled"), "the plan is {state}: {}", said());
        state
    }

    /// Tokens of the leases on record.
    pub fn leases(&self) -> Vec<String> {
        let keys = self.etcd.etcdctl(&["get", "--prefix", "--keys-only", ""]);
        keys.lines().filter(|key| key.contains("/lease/")).map(str::to_owned).collect()
    }

    /// Sessions of the warehouse that are in the middle of a logged batch.
    pub fn busy_sessions(&self) -> i64 {
        self.count(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%PG_SLEEP(seconds)%' \
             AND pid <> PG_BACKEND_PID()",
        )
    }

    /// How many batches have committed, by what they log themselves.
    pub fn committed(&self) -> i64 {
        self.count("SELECT COUNT(*) FROM public.batch_log")
    }

    /// Batches that committed more often than once.
    pub fn committed_twice(&self) -> Vec<Vec<String>> {
        self.sql(
            "SELECT model, batch, COUNT(*) FROM public.batch_log GROUP BY model, batch HAVING COUNT(*) > 1",
        )
    }

    /// Waits until so many batches have committed.
    pub fn wait_for_commits(&self, count: i64) {
        wait_until(&format!("{count} commits"), || self.committed() >= count);
    }

    /// Makes the slow models wait so long.
    pub fn pause(&self, seconds: f64) {
        self.sql(&format!("UPDATE public.pause SET seconds = {seconds}"));
    }
}

fn start_coordinator(name: &str, etcd: &Etcd, options: &FleetOptions, logs: &Path) -> (Service, String) {
    let [port] = free_ports();
    let mut arguments = vec![
        format!("--listen=127.0.0.1:{port}"),
        format!("--state={}", options.state.clone().unwrap_or_else(|| etcd.url("test"))),
        format!("--lease-ttl-millis={}", options.lease_ttl),
        format!("--election-ttl-millis={}", options.election_ttl),
        format!("--retry-base-millis={}", options.retry_base),
    ];
    arguments.extend(options.server_certificates());
    let mut env = vec![("COORDCTL_NOW".to_owned(), options.now.clone())];
    env.extend(options.env.iter().cloned());
    let service = Service::start(name.to_owned(), "coordinator", arguments, env, logs);
    let scheme = if options.certificates.is_some() { "https" } else { "http" };
    (service, format!("{scheme}://127.0.0.1:{port}"))
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let others = self.others.iter().map(|(service, _)| service);
            for service in self.workers.iter().chain([&self.coordinator]).chain(others) {
                let log = service.log();
                let lines: Vec<&str> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(40)..].join("\n");
                println!("---- {} ----\n{last}", service.name);
            }
        }
    }
}

/// What models log of their batches, and how long the slow ones wait.
const LOG_TABLE: &str = "CREATE TABLE public.batch_log (model TEXT, batch TEXT, began TIMESTAMPTZ, \
     ended TIMESTAMPTZ); \
     CREATE TABLE public.pause AS SELECT 0.0::FLOAT8 AS seconds";

/// Waits until something holds; panics where that takes too long.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs SQL, and gives the rows as texts.
///
/// # Errors
/// The server's message.
pub fn query(postgres: &Postgres, sql: &str) -> Result<Vec<Vec<String>>, String> {
    query_dsn(&postgres.dsn(), sql)
}

/// The same with a connection string, as for a thread of its own.
///
/// # Errors
/// The server's message.
pub fn query_dsn(dsn: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let connected = tokio_postgres::connect(dsn, tokio_postgres::NoTls).await;
        let (client, connection) = connected.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let messages = client.simple_query(sql).await.map_err(|error| match error.as_db_error() {
            Some(error) => error.to_string(),
            None => error.to_string(),
        })?;
        let rows = messages.into_iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|at| row.get(at).unwrap_or("NULL").to_owned()).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    })
}

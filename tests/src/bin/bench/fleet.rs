//! A coordinator with workers, and what carrying a plan out on them costs.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use coord_tests::etcd::Etcd;

use crate::process::{Process, binary};
use crate::project::{Project, Shape};

/// What a plan and its apply took.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Batches computed.
    pub batches: usize,
    /// Time until the plan was made and kept, in seconds.
    pub plan: f64,
    /// Time from `coordctl apply` to its end, in seconds.
    pub apply: f64,
    /// CPU time of all our processes while applying, in seconds.
    pub cpu: f64,
    /// The coordinator's part of it.
    pub coordinator: f64,
    /// The workers' part of it.
    pub workers: f64,
}

impl Measured {
    /// Batches per second of applying.
    pub fn rate(&self) -> f64 {
        self.batches as f64 / self.apply
    }

    /// Milliseconds of CPU per batch.
    pub fn cpu_per_batch(&self) -> f64 {
        self.cpu * 1000.0 / self.batches as f64
    }
}

/// Coordinator and workers as processes, state in etcd.
struct Fleet {
    coordinator: Process,
    workers: Vec<Process>,
    url: String,
}

impl Fleet {
    fn start(folder: &Path, state: &str, workers: usize, slots: usize) -> anyhow::Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut command = Command::new(binary("coordinator")?);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--state", state]);
        let coordinator = Process::start(&mut command, &folder.join("coordinator.log"))?;
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(since.elapsed() < Duration::from_secs(20), "the coordinator did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let url = format!("http://127.0.0.1:{port}");
        let workers = (0..workers).map(|number| {
            let mut command = Command::new(binary("worker")?);
            command.args(["--coordinator", &url, "--slots", &slots.to_string()]);
            command.args(["--name", &format!("bench{number}"), "--project"]).arg(folder);
            Process::start(&mut command, &folder.join(format!("worker{number}.log")))
        });
        let workers = workers.collect::<anyhow::Result<_>>()?;
        Ok(Self { coordinator, workers, url })
    }

    fn cpu(&self) -> (f64, f64) {
        (self.coordinator.cpu(), self.workers.iter().map(Process::cpu).sum())
    }
}

/// How many workers, and how many slots each.
#[derive(Debug, Clone, Copy)]
pub struct Slots {
    /// Worker processes.
    pub workers: usize,
    /// Leases that each holds at once.
    pub each: usize,
}

/// What a fleet does before it is measured, as one that has just started opens connections first.
fn warm_up(project: &Project, slots: Slots) -> Project {
    Project {
        schema: "warm",
        shape: Shape::Layered { layers: 1 },
        models: 2 * slots.workers * slots.each,
        days: 3,
        parallel: true,
        work_millis: project.work_millis.min(20),
        ..project.clone()
    }
}

/// Plans and applies a project on a fleet with etcd, which has applied another one before.
///
/// # Errors
/// When anything of it fails.
pub fn on_fleet(project: &Project, slots: Slots) -> anyhow::Result<Measured> {
    let (folder, etcd) = (tempfile::tempdir()?, Etcd::start());
    project.write(folder.path())?;
    let fleet = Fleet::start(folder.path(), &etcd.url("bench"), slots.workers, slots.each)?;
    let client = Client { folder: folder.path().to_owned(), server: Some(fleet.url.clone()) };
    client.wait_for_workers(slots.workers)?;
    let (warm, before) = (warm_up(project, slots), tempfile::tempdir()?);
    warm.write(before.path())?;
    let other = Client { folder: before.path().to_owned(), ..client.clone() };
    let (id, _) = other.plan(&warm, &["warm"])?;
    other.apply(&id)?;
    let (id, plan) = client.plan(project, &[])?;
    let before = fleet.cpu();
    let (apply, coordctl) = client.apply(&id)?;
    let after = fleet.cpu();
    let (coordinator, workers) = (after.0 - before.0, after.1 - before.1);
    let cpu = coordinator + workers + coordctl;
    if let Ok(keep) = std::env::var("BENCH_KEEP") {
        std::process::Command::new("cp").arg("-r").arg(folder.path()).arg(keep).status()?;
    }
    Ok(Measured { batches: project.batches(), plan, apply, cpu, coordinator, workers })
}

/// Plans and applies a project in one process: what the warehouse computes is in its CPU time.
///
/// # Errors
/// When anything of it fails.
pub fn embedded(project: &Project, flags: &[&str]) -> anyhow::Result<Measured> {
    let folder = tempfile::tempdir()?;
    project.write(folder.path())?;
    let client = Client { folder: folder.path().to_owned(), server: None };
    let (id, plan) = client.plan(project, flags)?;
    let (apply, cpu) = client.apply(&id)?;
    Ok(Measured { batches: project.batches(), plan, apply, cpu, coordinator: 0.0, workers: 0.0 })
}

/// Our command line on a project.
#[derive(Clone)]
struct Client {
    folder: PathBuf,
    server: Option<String>,
}

impl Client {
    fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(binary("coordctl")?);
        command.current_dir(&self.folder).env_remove("COORDCTL_SERVER").env_remove("COORDCTL_STATE");
        command.args(self.server.iter().flat_map(|url| ["--server", url.as_str()]));
        Ok(command)
    }

    /// Waits for the workers to be registered: their start is no part of what is measured.
    fn wait_for_workers(&self, workers: usize) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let output = self.command()?.args(["--format", "json", "status"]).output()?;
            let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if document["workers"].as_array().is_some_and(|known| known.len() == workers) {
                return Ok(());
            }
            ensure!(since.elapsed() < Duration::from_secs(30), "not all of {workers} workers registered");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The plan's id, and the seconds it took.
    fn plan(&self, project: &Project, flags: &[&str]) -> anyhow::Result<(String, f64)> {
        let start = Instant::now();
        let mut command = self.command()?;
        command.args(["--format", "json", "plan", "--no-prompts", "--execution-time"]);
        let output = command.arg(project.execution_time()).args(flags).stdin(Stdio::null()).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the plan failed: {error}");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let id = document["plan_id"].as_str().context("a plan without an id")?.to_owned();
        Ok((id, start.elapsed().as_secs_f64()))
    }

    /// Seconds, and seconds of CPU time of the command itself.
    fn apply(&self, id: &str) -> anyhow::Result<(f64, f64)> {
        let start = Instant::now();
        let process = Process::start(self.command()?.args(["apply", id]), &self.folder.join("apply.log"))?;
        let cpu = process.wait()?;
        Ok((start.elapsed().as_secs_f64(), cpu))
    }
}

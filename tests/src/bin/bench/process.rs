//! Our own processes, and the CPU time that they take.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// Clock ticks per second in /proc: part of Linux's interface to programs.
const TICKS: f64 = 100.0;

/// Where our release binaries are: beside this one. They are built when first asked for, so that a
/// measurement is never one of yesterday's code.
///
/// # Errors
/// When they can't be built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    if FOLDER.get().is_none() {
        let packages = ["build", "--release", "-p", "coordinator", "-p", "worker", "-p", "coordctl"];
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        let status = Command::new(cargo).args(packages).args(["--manifest-path", manifest]).status()?;
        ensure!(status.success(), "the binaries can't be built");
        let folder = std::env::current_exe()?.parent().context("no folder")?.to_owned();
        let _ = FOLDER.set(folder);
    }
    let file = FOLDER.get().context("no folder")?.join(name);
    ensure!(file.is_file(), "`{}` is missing: run the benchmark with --release", file.display());
    Ok(file)
}

/// A child process that ends when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command; what it says goes to `log`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn();
        Ok(Self { child: child.with_context(|| format!("{command:?}"))?, log: log.to_owned() })
    }

    /// User and system time that it has taken, in seconds.
    pub fn cpu(&self) -> f64 {
        stat(self.child.id()).map_or(0.0, |(_, cpu)| cpu)
    }

    /// Waits for its end, and gives the CPU time that it took, in seconds.
    ///
    /// # Errors
    /// When it fails or takes longer than an hour.
    pub fn wait(self) -> anyhow::Result<f64> {
        let log = self.log.clone();
        let (status, cpu) = self.ended()?;
        ensure!(status.success(), "{status}: {}", std::fs::read_to_string(log).unwrap_or_default());
        Ok(cpu)
    }

    /// The same, however it ends.
    ///
    /// # Errors
    /// When it takes longer than an hour.
    pub fn ended(mut self) -> anyhow::Result<(ExitStatus, f64)> {
        let start = Instant::now();
        // A zombie still has its times; whoever waits for it gives them up.
        while start.elapsed() < Duration::from_secs(3600) {
            match stat(self.child.id()) {
                Some(('Z', cpu)) => {
                    return Ok((self.child.wait()?, cpu));
                }
                Some(_) => std::thread::sleep(Duration::from_millis(2)),
                None => bail!("the process is gone"),
            }
        }
        bail!("it takes too long")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process's state, and its CPU time in seconds.
fn stat(pid: u32) -> Option<(char, f64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, spaces and brackets too.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    // Its own, and that of children that it has waited for.
    let all = ticks(11)? + ticks(12)? + ticks(13)? + ticks(14)?;
    Some((fields.first()?.chars().next()?, all / TICKS))
}

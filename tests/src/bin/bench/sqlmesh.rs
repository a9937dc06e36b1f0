//! The same work with SQLMesh, where a Python with it is given.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::fleet::Measured;
use crate::process::Process;
use crate::project::Project;

/// The Python that `BENCH_SQLMESH` names.
pub fn python() -> Option<PathBuf> {
    std::env::var_os("BENCH_SQLMESH").map(PathBuf::from).filter(|python| python.is_file())
}

/// Plans and applies a project with SQLMesh, its state in the warehouse.
///
/// # Errors
/// When anything of it fails.
pub fn run(python: &Path, project: &Project, flags: &[&str]) -> anyhow::Result<Measured> {
    let folder = tempfile::tempdir()?;
    project.write(folder.path())?;
    let mut first = vec!["plan", "--no-prompts", "--skip-tests"];
    first.extend(flags);
    // A plan alone, which ends at the question whether to apply it: what planning takes is no part
    // of applying.
    let start = Instant::now();
    let (_, plan_cpu) = command(python, project, folder.path(), &first)?.ended()?;
    let plan = start.elapsed().as_secs_f64();
    first.push("--auto-apply");
    let start = Instant::now();
    let cpu = command(python, project, folder.path(), &first)?.wait()?;
    let all = start.elapsed().as_secs_f64();
    let (apply, cpu) = (all - plan, cpu - plan_cpu);
    Ok(Measured { batches: project.batches(), plan, apply, cpu, coordinator: 0.0, workers: 0.0 })
}

fn command(python: &Path, project: &Project, folder: &Path, flags: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new(python);
    command.args(["-c", "from sqlmesh.cli.main import cli; cli()"]).args(flags);
    command.args(["--execution-time", &project.execution_time()]).current_dir(folder);
    Process::start(&mut command, &folder.join("sqlmesh.log"))
}

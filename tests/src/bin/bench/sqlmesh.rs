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
    // A plan alone: what planning takes is no part of applying.
    let (plan, plan_cpu) = command(python, project, folder.path(), &first)?;
    first.push("--auto-apply");
    let (all, cpu) = command(python, project, folder.path(), &first)?;
    let (apply, cpu) = (all - plan, cpu - plan_cpu);
    Ok(Measured { batches: project.batches(), plan, apply, cpu, coordinator: 0.0, workers: 0.0 })
}

fn command(python: &Path, project: &Project, folder: &Path, flags: &[&str]) -> anyhow::Result<(f64, f64)> {
    let start = Instant::now();
    let mut command = Command::new(python);
    command.args(["-c", "from sqlmesh.cli.main import cli; cli()"]).args(flags);
    command.args(["--execution-time", &project.execution_time()]).current_dir(folder);
    let process = Process::start(&mut command, &folder.join("sqlmesh.log"))?;
    let cpu = process.wait()?;
    Ok((start.elapsed().as_secs_f64(), cpu))
}

//! `driver`: fetches a prebuilt warehouse driver with a package manager's own client, and checks
//! its hash before it is used.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::args::{DriverCommand, Format};
use crate::error::{CliError, CliResult};
use crate::output;
use crate::session::Session;

/// A prebuilt library: where it is and what it must hash to (SHA-256 of the library file).
struct Prebuilt {
    /// DuckDB's release.
    version: &'static str,
    /// The npm package that holds it, with its release.
    package: &'static str,
    library: &'static str,
    sha256: &'static str,
}

/// The libraries whose hashes this build knows.
fn duckdb() -> Option<Prebuilt> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Some(Prebuilt {
            version: "1.5.6",
            package: "@duckdb/node-bindings-linux-x64@1.5.6-r.1",
            library: "libduckdb.so",
            sha256: "3f4962cdd266eab2b479a5b5a4a6d063d279b2954ae814ed00385d553b747633",
        }),
        ("linux", "aarch64") => Some(Prebuilt {
            version: "1.5.5",
            package: "@duckdb/node-bindings-linux-arm64@1.5.5-r.5",
            library: "libduckdb.so",
            sha256: "d00d007f3f7ca1f2896a5e4b89c2ce141bf0508506a9d6d56f9598b8e59d074e",
        }),
        _ => None,
    }
}

/// `coordctl driver`.
pub(crate) fn driver(session: &Session, command: DriverCommand) -> CliResult {
    match command {
        DriverCommand::Add { name: _, from: Some(file) } => install(&file, None),
        DriverCommand::Add { name: _, from: None } => add(),
        DriverCommand::List => list(session.format()),
    }
}

/// Where drivers are kept.
pub(crate) fn folder() -> CliResult<PathBuf> {
    let home = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    home.map(|cache| cache.join("coordctl/drivers")).ok_or_else(|| {
        CliError::user("no-home", "HOME is not set, so there is no place for drivers", "set HOME")
    })
}

fn target() -> CliResult<PathBuf> {
    Ok(folder()?.join(format!("duckdb-{}", version())).join("libduckdb.so"))
}

/// DuckDB's release that this build fetches.
fn version() -> &'static str {
    duckdb().map_or("custom", |prebuilt| prebuilt.version)
}

fn add() -> CliResult {
    let Some(prebuilt) = duckdb() else {
        let message =
            format!("no prebuilt DuckDB is known for {} on {}", std::env::consts::OS, std::env::consts::ARCH);
        let hint = "download DuckDB's shared library and run `coordctl driver add duckdb --from FILE`";
        return Err(CliError::user("no-driver", message, hint));
    };
    let target = target()?;
    if target.is_file() && hash(&target)? == prebuilt.sha256 {
        output::line(&format!("DuckDB {} is already here: {}", version(), target.display()));
        return Ok(());
    }
    let work = tempfile::tempdir()?;
    output::line(&format!("fetching {}", prebuilt.package));
    run(Command::new("npm").args(["pack", "--silent", prebuilt.package]).current_dir(work.path()), "npm")?;
    let archive = std::fs::read_dir(work.path())?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "tgz"))
        .ok_or_else(|| CliError::ours("driver", "npm fetched no archive"))?;
    run(Command::new("tar").arg("-xzf").arg(&archive).current_dir(work.path()), "tar")?;
    install(&work.path().join("package").join(prebuilt.library), Some(prebuilt.sha256))
}

fn run(command: &mut Command, tool: &str) -> CliResult {
    let hint = format!(
        "install {tool} (Debian package `{tool}`) and see that it can reach its registry, or run `coordctl driver add duckdb --from FILE`"
    );
    let output = command.output().map_err(|error| {
        CliError::user("driver-tool", format!("`{tool}` could not be run: {error}"), hint.clone())
    })?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let why = why.lines().next().unwrap_or("no message").to_owned();
    Err(CliError::user("driver-tool", format!("`{tool}` failed: {why}"), hint))
}

fn install(file: &Path, expected: Option<&str>) -> CliResult {
    let found = hash(file)?;
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        let message = format!("the fetched library hashes to {found}, not to {expected}");
        return Err(CliError::user(
            "driver-hash",
            message,
            "don't use it; fetch it anew, and report this if it stays",
        ));
    }
    let target = target()?;
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Copied beside and renamed: a process that starts meanwhile sees all of it or nothing.
    let part = target.with_extension(format!("part-{}", std::process::id()));
    std::fs::copy(file, &part)?;
    std::fs::rename(&part, &target)?;
    output::line(&format!("DuckDB {}: {}\nsha256 {found}", version(), target.display()));
    Ok(())
}

fn hash(file: &Path) -> CliResult<String> {
    let bytes = std::fs::read(file).map_err(|error| {
        CliError::user(
            "unreadable-file",
            format!("`{}` can't be read: {error}", file.display()),
            "check the path",
        )
    })?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn list(format: Format) -> CliResult {
    let target = target()?;
    let here = target.is_file();
    if format == Format::Json {
        return output::json(
            &json!({ "drivers": [{ "name": "duckdb", "version": version(), "path": target, "installed": here }] }),
        );
    }
    let state = if here { "installed" } else { "missing: coordctl driver add duckdb" };
    output::line(&format!("duckdb {}  {state}  {}", version(), target.display()));
    Ok(())
}

/// Whether the embedded warehouse's driver can be found.
pub(super) fn duckdb_is_here() -> bool {
    std::env::var_os("COORDCTL_DUCKDB_LIB").is_some_and(|path| Path::new(&path).is_file())
        || target().is_ok_and(|path| path.is_file())
}

//! The workspace's own binaries, built as the tests themselves are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// The path of one of the workspace's binaries, which are built once for each test run.
pub fn binary(name: &str) -> PathBuf {
    static BUILD: Once = Once::new();
    let folder = profile_folder();
    BUILD.call_once(|| build(&folder));
    let path = folder.join(name);
    assert!(path.is_file(), "`{}` was not built", path.display());
    path
}

/// Where cargo puts binaries of the profile that the test was built with: the parent of `deps`.
fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let deps = test.ancestors().find(|folder| folder.ends_with("deps"));
    deps.and_then(Path::parent).expect("cargo puts tests into `deps`").to_owned()
}

fn build(folder: &Path) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What cargo sets for a test would make build scripts that look at it run again.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH");
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args(["build", "--workspace", "--bins"]);
    command.arg("--target-dir").arg(folder.parent().expect("a profile's folder is in the target's"));
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            command.args(["--profile", profile]);
        }
    }
    let output = command.output().unwrap_or_else(|error| panic!("can't run {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

//! Rules of the repository, as tests: what a reviewer would otherwise have to look for.

#[path = "supply.rs"]
mod supply;

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// Rust files below a folder of the workspace, with their texts.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut open = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a text");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// A file's code without its tests and comments.
fn code(text: &str) -> String {
    let production = text.split("#[cfg(test)]").next().unwrap_or(text);
    production.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn nowhere(folder: &str, words: &[&str], allowed: &[&str]) {
    for (path, text) in sources(folder) {
        let shown = path.display().to_string();
        if allowed.iter().any(|allowed| shown.contains(allowed)) {
            continue;
        }
        let code = code(&text);
        for word in words {
            assert!(!code.contains(word), "{shown} has `{word}`");
        }
    }
}

#[test]
fn the_scheduler_is_free_of_io() {
    nowhere(
        "coordinator/src/schedule",
        &["async ", "tokio", "crate::store", "wire::", "SystemTime"],
        &["/tests/"],
    );
}

#[test]
fn the_core_is_free_of_io_and_wire_types() {
    nowhere("common/src", &["async fn", "tokio", "std::fs", "std::env", "prost", "tonic"], &[]);
}

#[test]
fn wire_types_stop_at_the_edge() {
    nowhere("coordinator/src", &["wire::"], &["/rpc/", "serve.rs"]);
    nowhere("worker/src", &["wire::"], &["agent/link.rs"]);
    nowhere("coordctl/src", &["wire::"], &["client.rs"]);
}

#[test]
fn warehouse_drivers_stay_in_the_engines_room() {
    let drivers = ["tokio_postgres", "adbc_core", "adbc_driver_manager", "arrow_array"];
    nowhere("worker/src", &drivers, &["/engine/"]);
    nowhere("coordinator/src", &drivers, &[]);
    nowhere("coordctl/src", &drivers, &[]);
}

#[test]
fn no_room_is_called_utils_and_no_file_is_a_hall() {
    for folder in ["common/src", "coordinator/src", "worker/src", "coordctl/src", "proto/src", "tests/src"] {
        for (path, text) in sources(folder) {
            let shown = path.display().to_string();
            assert!(
                !shown.contains("util") && !shown.contains("helpers"),
                "{shown}: name it for what it holds"
            );
            let lines = text.lines().count();
            assert!(lines <= 600, "{shown} has {lines} lines: does it hold one thing?");
        }
    }
}

#[test]
fn every_file_of_the_rooms_says_what_it_is_for() {
    for folder in ["common/src", "coordinator/src", "worker/src", "coordctl/src", "proto/src"] {
        for (path, text) in sources(folder) {
            let is_test =
                path.to_string_lossy().contains("test") || path.to_string_lossy().contains("conformance");
            assert!(
                is_test || text.starts_with("//!"),
                "{} doesn't open with what it is for",
                path.display()
            );
        }
    }
}

#[test]
fn every_key_of_the_state_is_documented() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("a text");
    let (code, document) = (read("coordinator/src/store/keys.rs"), read("docs/state.md"));
    let keys: Vec<&str> =
        code.lines().filter_map(|line| line.strip_prefix("//! r1/")?.split_whitespace().next()).collect();
    assert!(keys.len() > 10, "keys.rs lists its keys: {keys:?}");
    for key in &keys {
        assert!(document.contains(&format!("| `r1/{key}` |")), "docs/state.md does not have `r1/{key}`");
    }
    let documented = document.lines().filter(|line| line.starts_with("| `r1/")).count();
    assert_eq!(documented, keys.len(), "docs/state.md has a key that keys.rs doesn't list");
}

/// The documents of the repository, with their texts.
fn documents() -> Vec<(PathBuf, String)> {
    let mut open = vec![root()];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = std::fs::read_to_string(&path).expect("a text");
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 10, "the documents are found");
    found
}

#[test]
fn links_between_documents_lead_somewhere() {
    for (path, text) in documents() {
        let folder = path.parent().expect("a file is in a folder");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let leads = link.contains("://") || file.is_empty() || folder.join(file).exists();
            assert!(leads, "{} links to {link}", path.display());
        }
    }
}

#[test]
fn tests_that_documents_name_exist() {
    let rooms = ["common", "coordinator", "worker", "tests"];
    let code: String = rooms.iter().flat_map(|room| sources(room)).map(|(_, text)| text).collect();
    let of_the_system = |path: &Path| path.starts_with(root().join("docs"));
    for (path, text) in documents().into_iter().filter(|(path, _)| of_the_system(path)) {
        // Every other piece is what stands between backticks.
        for name in text.split('`').skip(1).step_by(2) {
            let name = name.rsplit("::").next().unwrap_or_default();
            let is_sentence = name.matches('_').count() > 3
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            assert!(
                !is_sentence || code.contains(&format!("{name}(")),
                "{} names the test {name}, which doesn't exist",
                path.display()
            );
        }
    }
}

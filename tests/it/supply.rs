//! What our dependencies may be, by `deny.toml`: licences, sources, and what must not be among them.
//! cargo-deny checks more where it is installed (`make deny`); this needs nothing but Cargo.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Texts in quotes of a list in `deny.toml` that starts with a line.
fn listed(start: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let (_, list) = text.split_once(start).expect("the list is there");
    let (list, _) = list.split_once("\n]").expect("the list ends");
    let found: BTreeSet<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(!found.is_empty(), "{start}");
    found
}

fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let asked = Command::new(cargo)
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let metadata: Value = serde_json::from_slice(&asked.stdout).expect("metadata is JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

/// Whether an SPDX expression is satisfied by licences on a list: OR binds looser than AND, and old
/// expressions write `/` for OR.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let flat = expression.replace(" / ", " OR ").replace('/', " OR ");
    // Parentheses occur around an OR whose parts are all allowed, or not at all.
    if let (Some(open), Some(close)) = (flat.find('('), flat.find(')')) {
        let rest = format!("{}{}", &flat[..open], &flat[close + 1..]);
        let others = rest.split(" AND ").map(str::trim).filter(|part| !part.is_empty());
        return satisfied(&flat[open + 1..close], allowed)
            && others.into_iter().all(|part| satisfied(part, allowed));
    }
    flat.split(" OR ").any(|all| all.split(" AND ").all(|one| allowed.contains(one.trim())))
}

#[test]
fn all_crates_have_a_licence_and_a_source_that_deny_toml_allows() {
    let (allowed, banned) = (listed("\nallow = ["), listed("\ndeny = ["));
    let mut wrong = Vec::new();
    let packages = packages();
    assert!(packages.len() > 100);
    for package in &packages {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        let name = format!("{} {}", text("name"), text("version"));
        if !satisfied(text("license"), &allowed) {
            wrong.push(format!("{name}: licence `{}` is not on the list", text("license")));
        }
        let source = text("source");
        if !source.is_empty() && source != "registry+https://github.com/rust-lang/crates.io-index" {
            wrong.push(format!("{name}: comes from {source}"));
        }
        if banned.contains(text("name")) {
            wrong.push(format!("{name}: is banned"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn licence_expressions_are_read_as_they_are_meant() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "ISC".to_owned()]);
    let cases = [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT/GPL-3.0", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("(GPL-3.0 OR MIT) AND GPL-3.0", false),
        ("", false),
    ];
    for (expression, good) in cases {
        assert_eq!(satisfied(expression, &allowed), good, "{expression}");
    }
}

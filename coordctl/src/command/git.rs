//! What `git:` selectors need: the files that differ from a branch.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use coord_common::plan::{Selector, Selectors};

use crate::error::{CliError, CliResult};

/// The files that differ from each branch that selectors name, as paths relative to the project:
/// committed since the branch, changed and untracked ones.
pub(super) fn changed_files(
    selectors: &Selectors,
    project: &Path,
) -> CliResult<BTreeMap<String, BTreeSet<String>>> {
    let Selectors { select, backfill, restate, allow_destructive, allow_additive, .. } = selectors;
    let texts = [select, backfill, restate, allow_destructive, allow_additive].into_iter().flatten();
    // What can't be understood is refused where it is resolved.
    let parsed: Vec<Selector> = texts.filter_map(|text| text.parse().ok()).collect();
    let mut found = BTreeMap::new();
    for branch in parsed.iter().flat_map(Selector::branches) {
        if !found.contains_key(branch) {
            found.insert(branch.to_owned(), against(branch, project)?);
        }
    }
    Ok(found)
}

fn against(branch: &str, project: &Path) -> CliResult<BTreeSet<String>> {
    if branch.starts_with('-') {
        return Err(CliError::user("git", format!("`{branch}` is no branch"), "name a branch: git:main"));
    }
    let range = format!("{branch}...HEAD");
    let mut files = BTreeSet::new();
    for args in [
        &["ls-files", "-z", "--others", "--exclude-standard"][..],
        &["diff", "-z", "--relative", "--name-only", "--diff-filter=d", "HEAD"],
        &["diff", "-z", "--relative", "--name-only", "--diff-filter=d", &range],
    ] {
        files.extend(git(args, branch, project)?);
    }
    Ok(files)
}

/// The paths that a git command prints.
fn git(args: &[&str], branch: &str, project: &Path) -> CliResult<Vec<String>> {
    let failed = |why: String| {
        let hint = format!("`git:{branch}` needs git and a project in a repository that has that branch");
        CliError::user("git", format!("`git {}` failed: {why}", args.join(" ")), hint)
    };
    let output =
        Command::new("git").args(args).current_dir(project).output().map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(failed(why.lines().next().unwrap_or("no message").to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

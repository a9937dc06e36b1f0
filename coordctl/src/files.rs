//! The project's folder: found, and read. The only place that walks it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coord_common::diagnostic::Diagnostic;
use coord_common::project::settings::{self, CONFIG_FILES, redact_config};
use coord_common::project::{ProjectInput, Settings, SourceFile, load_settings, seed_path};
use coord_common::unit_test::{files_named, is_test_file};
use coord_proto::net::TOKEN_VARIABLE;

use crate::args::Global;
use crate::encoding::Encoding;
use crate::error::{CliError, CliResult};

/// Configs that are found, although they can't be used.
const PYTHON_CONFIGS: [&str; 2] = ["config.py", "sqlmesh.py"];
/// Folders whose files matter.
const FOLDERS: [&str; 7] =
    ["models", "audits", "macros", "signals", "external_models", "materializations", "metrics"];
/// Files that are read, by extension.
const EXTENSIONS: [&str; 4] = ["sql", "py", "yaml", "yml"];
/// Single files that matter beside the configs.
const SINGLE: [&str; 5] =
    ["external_models.yaml", "external_models.yml", "schema.yaml", "dbt_project.yml", ".env"];

/// A project's files, as read.
pub(crate) struct ProjectFiles {
    pub(crate) folder: PathBuf,
    pub(crate) files: Vec<SourceFile>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) gateway: Option<String>,
}

/// Reads the unit tests and the files of rows that they name; empty where there are none.
pub(crate) fn tests(folder: &Path) -> CliResult<Vec<SourceFile>> {
    let mut files = Vec::new();
    walk(folder, &folder.join("tests"), &["yaml", "yml"], &mut files)?;
    files.sort_by(|a: &SourceFile, b| a.path.cmp(&b.path));
    let named: Vec<String> = files
        .iter()
        .filter(|file| is_test_file(&file.path))
        .flat_map(|file| files_named(&file.text))
        .collect();
    for path in named {
        let path = path.trim_start_matches("./").to_owned();
        let place = folder.join(&path);
        // A file that isn't there is a finding of the test's reader, which knows the place.
        if place.is_file() && !files.iter().any(|file| *file.path == *path) {
            files.push(SourceFile { text: read_text(&place)?.into(), path: path.into() });
        }
    }
    Ok(files)
}

/// Files that make a folder a project.
fn configs() -> impl Iterator<Item = &'static str> {
    CONFIG_FILES.into_iter().chain(PYTHON_CONFIGS)
}

/// Finds the project's folder: as given, or here and upwards.
pub(crate) fn find(global: &Global) -> CliResult<PathBuf> {
    let is_project =
        |folder: &Path| configs().chain(["dbt_project.yml"]).any(|name| folder.join(name).is_file());
    if let Some(folder) = &global.project {
        if is_project(folder) {
            return Ok(std::path::absolute(folder)?);
        }
        let message = format!("`{}` is not a SQLMesh project: it has no config.yaml", folder.display());
        return Err(CliError::user(
            "no-project",
            message,
            "give the project's folder with --project, or make one with `coordctl init`",
        ));
    }
    let here = std::env::current_dir()?;
    here.ancestors().find(|folder| is_project(folder)).map(Path::to_owned).ok_or_else(|| {
        CliError::user(
            "no-project",
            "there is no config.yaml here or in any folder above",
            "give the project's folder with --project, or make one with `coordctl init`",
        )
    })
}

/// Reads all files of the project that matter.
pub(crate) fn read(global: &Global) -> CliResult<ProjectFiles> {
    let folder = find(global)?;
    let mut files = Vec::new();
    for name in configs().chain(SINGLE) {
        let path = folder.join(name);
        if path.is_file() {
            files.push(read_file(&folder, &path)?);
        }
    }
    for name in FOLDERS {
        walk(&folder, &folder.join(name), &EXTENSIONS, &mut files)?;
    }
    seeds(&folder, &mut files)?;
    if let Some(dotenv) = &global.dotenv {
        let text = std::fs::read_to_string(dotenv).map_err(|error| unreadable(dotenv, &error))?;
        files.retain(|file| &*file.path != ".env");
        files.push(SourceFile { path: ".env".into(), text: text.into() });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        // No text of a project can name it.
        .filter(|(name, _)| name != TOKEN_VARIABLE)
        .collect();
    Ok(ProjectFiles { folder, files, env, gateway: global.gateway.clone() })
}

fn walk(root: &Path, folder: &Path, extensions: &[&str], files: &mut Vec<SourceFile>) -> CliResult {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "__pycache__" {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, extensions, files)?;
        } else if path.extension().is_some_and(|e| extensions.iter().any(|known| e == *known)) {
            files.push(read_file(root, &path)?);
        }
    }
    Ok(())
}

/// Reads the files that seed models name, wherever they are: in the project, beside it, or at an
/// absolute path.
fn seeds(root: &Path, files: &mut Vec<SourceFile>) -> CliResult {
    let mut found = BTreeMap::new();
    for file in files.iter().filter(|file| file.path.ends_with(".sql")) {
        if !file.text.to_ascii_lowercase().contains("seed") {
            continue;
        }
        for text in file.text.split(['\'', '"']).filter(|text| is_path(text)) {
            if let Some(path) = seed_path(&file.path, text) {
                found.entry(path).or_insert_with(|| Encoding::stated(&file.text).map(str::to_owned));
            }
        }
    }
    for (path, encoding) in found {
        // A file that isn't there is a finding of the loader, which knows the place that names it.
        let place = root.join(&path);
        if place.is_file() && !files.iter().any(|file| *file.path == *path) {
            let text = seed_text(&place, encoding.as_deref())?;
            files.push(SourceFile { path: path.into(), text: text.into() });
        }
    }
    Ok(())
}

/// Whether a quoted text may be the path of a seed.
fn is_path(text: &str) -> bool {
    text.len() < 1024 && text.contains('.') && !text.contains('\n') && !text.ends_with(".sql")
}

/// A seed's text, in the encoding that its model states.
fn seed_text(path: &Path, encoding: Option<&str>) -> CliResult<String> {
    let Some(name) = encoding else { return read_text(path) };
    let encoding = Encoding::named(name).ok_or_else(|| {
        let message = format!("`{}` is in the encoding `{name}`, which isn't supported", path.display());
        CliError::user("unknown-encoding", message, "save it as UTF-8, or as latin-1, cp1252 or utf-16")
    })?;
    let bytes = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    encoding.decode(bytes).ok_or_else(|| {
        let message = format!("`{}` isn't in the encoding `{name}`", path.display());
        CliError::user("wrong-encoding", message, "correct `encoding` in the seed's csv_settings")
    })
}

fn read_text(path: &Path) -> CliResult<String> {
    let bytes = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    String::from_utf8(bytes).map_err(|_| {
        let message = format!("`{}` is not UTF-8", path.display());
        let hint = "save it as UTF-8; a seed may say csv_settings (encoding = 'latin1')";
        CliError::user("not-utf8", message, hint)
    })
}

fn read_file(root: &Path, path: &Path) -> CliResult<SourceFile> {
    let text = read_text(path)?;
    let relative = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = relative.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    Ok(SourceFile { path: parts.join("/").into(), text: text.into() })
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::user(
        "unreadable-file",
        format!("`{}` can't be read: {error}", path.display()),
        "check its permissions",
    )
}

impl ProjectFiles {
    /// The files as the core's input.
    pub(crate) fn input(&self) -> ProjectInput<'_> {
        ProjectInput { files: &self.files, env: &self.env, gateway: self.gateway.as_deref() }
    }

    /// The project's settings; mistakes in them are an error.
    pub(crate) fn settings(&self) -> CliResult<Settings> {
        let (settings, findings) = load_settings(&self.input());
        if findings.iter().any(Diagnostic::is_error) {
            return Err(CliError::project(findings));
        }
        Ok(settings)
    }

    /// What was found about the settings, at the places of the files as they are here.
    pub(crate) fn settings_findings(&self) -> Vec<Diagnostic> {
        load_settings(&self.input()).1
    }

    /// Whether a finding is about the settings; a coordinator reads a redacted copy, so its places
    /// are not those of the user's file.
    pub(crate) fn is_about_settings(finding: &Diagnostic) -> bool {
        configs().any(|name| name == &*finding.at.path)
    }

    /// The files without what a coordinator must not see: connections are reduced to their kind and
    /// catalogs, and `.env` stays here.
    pub(crate) fn for_upload(&self) -> CliResult<Vec<SourceFile>> {
        let mut files = Vec::with_capacity(self.files.len());
        let env = self.environment();
        for file in &self.files {
            let is_config = CONFIG_FILES.contains(&&*file.path);
            if &*file.path == ".env" {
                continue;
            }
            if is_config {
                let text =
                    redact_config(&file.text, &env).map_err(|finding| CliError::project(vec![finding]))?;
                files.push(SourceFile { path: file.path.clone(), text: text.into() });
            } else {
                files.push(file.clone());
            }
        }
        Ok(files)
    }

    /// The config alone, for commands that need nothing else of the files.
    pub(crate) fn config_for_upload(&self) -> CliResult<Vec<SourceFile>> {
        let mut files = self.for_upload()?;
        files.retain(|file| configs().any(|name| name == &*file.path));
        Ok(files)
    }

    /// The environment variables with those of the `.env` below them.
    pub(crate) fn environment(&self) -> settings::Env {
        settings::environment(&self.input())
    }

    /// Environment variables that texts other than the config name, for the upload.
    pub(crate) fn named_variables(&self) -> BTreeMap<String, String> {
        let env = self.environment();
        let mut named = BTreeMap::new();
        for file in self.files.iter().filter(|file| file.path.ends_with(".sql")) {
            for piece in file.text.split("env_var(").skip(1) {
                let name: String = piece
                    .trim_start_matches([' ', '\'', '"'])
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                if let Some(value) = env.get(&name) {
                    named.insert(name, value.clone());
                }
            }
        }
        named
    }
}

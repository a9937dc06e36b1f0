//! From a project's files to a [`Project`].

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::diagnostic::{Diagnostic, Location};
use crate::id::ModelName;

use super::context::Context;
use super::model::{Audit, Model};
use super::settings::{self, Settings};
use super::signal_file::{self, Signals};
use super::{
    Project, ProjectInput, SourceFile, UnsupportedPython, audit_file, external, glob, model_file,
    standalone_audit,
};

/// Loads a project. It loads what it can: a project with findings is still a project.
pub fn load(input: &ProjectInput<'_>) -> (Project, Vec<Diagnostic>) {
    let mut findings = Vec::new();
    let settings = settings::load(input, &mut findings);
    let mut files: Vec<&SourceFile> =
        input.files.iter().filter(|file| !is_ignored(&settings, &file.path)).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let unsupported_python = python(&files, &mut findings);
    let audits = audits(&settings, &files, &mut findings);
    let signals = signal_file::load(&settings, &files, &mut findings);
    let models = models(&settings, &files, &audits, &signals, &mut findings);
    let jinja_macros = files
        .iter()
        .filter(|file| is_in(file, "macros/", ".sql"))
        .map(|file| (file.path.to_string(), file.text.to_string()))
        .collect();
    if let Some(metrics) = files.iter().find(|file| is_in(file, "metrics/", ".sql")) {
        findings.push(
            Diagnostic::warning(
                "metrics-without-effect",
                Location::file(metrics.path.clone()),
                "metrics have no effect yet",
            )
            .hint("nothing else to do"),
        );
    }
    (Project { settings, models, audits, jinja_macros, unsupported_python }, findings)
}

/// Loads a project's settings alone, with what was found about them.
pub fn load_settings(input: &ProjectInput<'_>) -> (Settings, Vec<Diagnostic>) {
    let mut findings = Vec::new();
    let settings = settings::load(input, &mut findings);
    (settings, findings)
}

fn is_in(file: &SourceFile, folder: &str, extension: &str) -> bool {
    file.path.starts_with(folder) && file.path.ends_with(extension)
}

fn is_ignored(settings: &Settings, path: &str) -> bool {
    settings.ignore_patterns.iter().any(|pattern| glob::matches(pattern, path))
}

/// Python that takes part in a project, by the folder and the word that tell.
const PYTHON: [(&str, &str, &str); 3] = [
    ("models/", "@model", "a model"),
    ("macros/", "@macro", "macros"),
    ("materializations/", "Materialization", "a materialization"),
];

fn python(files: &[&SourceFile], findings: &mut Vec<Diagnostic>) -> Vec<UnsupportedPython> {
    let mut all = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".py")) {
        let found = PYTHON.iter().find_map(|(folder, word, what)| {
            if !file.path.starts_with(folder) {
                return None;
            }
            Some((file.text.find(word)?, *what))
        });
        let Some((offset, what)) = found else { continue };
        let at = Location::at_offset(file.path.clone(), &file.text, offset);
        let message = format!("`{}` defines {what} in Python, which isn't supported yet", file.path);
        let hint = "write it in SQL, or leave the file out with `ignore_patterns`";
        // A macro that nobody calls is in nobody's way; a call of one is an error at its place.
        let finding = match what {
            "macros" => Diagnostic::warning("python-not-supported", at.clone(), message),
            _ => Diagnostic::error("python-not-supported", at.clone(), message),
        };
        findings.push(finding.hint(hint));
        all.push(UnsupportedPython { location: at, what });
    }
    all
}

fn audits(
    settings: &Settings,
    files: &[&SourceFile],
    findings: &mut Vec<Diagnostic>,
) -> BTreeMap<String, Audit> {
    let mut all: BTreeMap<String, Audit> = BTreeMap::new();
    for file in files.iter().filter(|file| is_in(file, "audits/", ".sql") && !file.text.is_empty()) {
        for audit in audit_file::load(file, settings.model_defaults.dialect, findings) {
            if let Some(first) = all.get(&audit.name) {
                let message = format!("audit `{}` is defined twice; first at {}", audit.name, first.location);
                findings.push(
                    Diagnostic::error("duplicate-audit", audit.location.clone(), message)
                        .hint("rename one of them"),
                );
                continue;
            }
            all.insert(audit.name.clone(), audit);
        }
    }
    all
}

/// All models by name: SQL files, in the order of their paths, before external ones.
fn models(
    settings: &Settings,
    files: &[&SourceFile],
    audits: &BTreeMap<String, Audit>,
    signals: &Signals,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Model> {
    let context = Context::new(settings, files, audits, signals, findings);
    let sql: Vec<&SourceFile> = files
        .iter()
        .filter(|file| is_in(file, "models/", ".sql") && !file.text.is_empty())
        .copied()
        .collect();
    let loaded: Vec<_> = sql.par_iter().map(|file| model_file::load(&context, file)).collect();
    let mut names = Names::default();
    for (models, found) in loaded {
        findings.extend(found);
        for (model, at) in models {
            names.add(model, at, findings);
        }
    }
    for file in files.iter().filter(|file| is_in(file, "audits/", ".sql") && !file.text.is_empty()) {
        for (audit, at) in standalone_audit::load(&context, file, findings) {
            names.add(audit, at, findings);
        }
    }
    let mut externals = Names::default();
    for file in external::files(files) {
        for (model, at) in external::load(&context, file, findings) {
            externals.add_external(model, at, findings);
        }
    }
    for (model, at) in externals.0.into_values() {
        names.add(model, at, findings);
    }
    names.0.into_values().map(|(model, _)| model).collect()
}

/// Models by name, with the places of their names.
#[derive(Default)]
struct Names(BTreeMap<ModelName, (Model, Location)>);

impl Names {
    fn add(&mut self, model: Model, at: Location, findings: &mut Vec<Diagnostic>) {
        if let Some((_, first)) = self.0.get(&model.name) {
            let message = format!("model `{}` is defined twice; first at {first}", model.name);
            findings.push(Diagnostic::error("duplicate-model", at, message).hint("rename one of them"));
            return;
        }
        self.0.insert(model.name.clone(), (model, at));
    }

    /// An entry for the chosen gateway wins over one for none.
    fn add_external(&mut self, model: Model, at: Location, findings: &mut Vec<Diagnostic>) {
        match self.0.get(&model.name).map(|(first, _)| (first.gateway.is_some(), model.gateway.is_some())) {
            Some((true, false)) => {}
            Some((false, true)) => {
                self.0.insert(model.name.clone(), (model, at));
            }
            _ => self.add(model, at, findings),
        }
    }
}

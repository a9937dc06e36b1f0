//! Whole projects in, models and findings out.

mod findings;
mod grammar;
mod samples;

use std::collections::BTreeMap;

use super::{Model, Project, ProjectInput, SourceFile, load};
use crate::diagnostic::Diagnostic;

const CONFIG: &str = "gateways:\n  local:\n    connection: {type: duckdb, database: wh.db}\n  \
                      pg:\n    connection: {type: postgres, host: h, port: 5432, user: u, password: p, database: lake}\n    \
                      variables: {region: eu}\ndefault_gateway: local\nmodel_defaults:\n  dialect: duckdb\n\
                      variables: {layer: mart, region: us, days: 7}\n";

fn project(files: &[(&str, &str)]) -> (Project, Vec<Diagnostic>) {
    let mut all: BTreeMap<&str, &str> = BTreeMap::from([("config.yaml", CONFIG)]);
    all.extend(files.iter().copied());
    let files: Vec<SourceFile> =
        all.iter().map(|(path, text)| SourceFile { path: (*path).into(), text: (*text).into() }).collect();
    load(&ProjectInput { files: &files, env: &BTreeMap::new(), gateway: None })
}

/// The models of a project without errors.
fn models(files: &[(&str, &str)]) -> Vec<Model> {
    let (project, findings) = project(files);
    let errors: Vec<String> =
        findings.iter().filter(|finding| finding.is_error()).map(ToString::to_string).collect();
    assert_eq!(errors, Vec::<String>::new());
    project.models
}

/// The one model of a file.
fn model(text: &str) -> Model {
    let mut models = models(&[("models/m.sql", text)]);
    assert_eq!(models.len(), 1);
    models.remove(0)
}

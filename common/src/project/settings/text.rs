//! From a config's text to its values: `env_var`, `.env`, `SQLMESH__…` overrides; and back to a
//! text without secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::{Environment, Value as Jinja};
use serde_yaml_ng::{Mapping, Value as Yaml};

use crate::diagnostic::{Diagnostic, Location};
use crate::project::ProjectInput;
use crate::project::render::{Value, jinja, python};

use super::connection::catalog_of_path;

/// Environment variables by name.
pub type Env = BTreeMap<String, String>;

/// The environment that a project sees: the process's, under its `.env` file's.
pub fn environment(input: &ProjectInput<'_>) -> Env {
    let dotenv = input.files.iter().find(|file| &*file.path == ".env");
    with_dotenv(input.env, dotenv.map(|file| &*file.text))
}

/// The environment with the values of a `.env` file, which win as they do in SQLMesh.
pub(crate) fn with_dotenv(env: &Env, dotenv: Option<&str>) -> Env {
    let mut all = env.clone();
    for line in dotenv.unwrap_or_default().lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.starts_with('#') {
            continue;
        }
        if let Some((key, value)) = line.split_once('=') {
            all.insert(key.trim().to_owned(), dotenv_value(value.trim()));
        }
    }
    all
}

fn dotenv_value(written: &str) -> String {
    for quote in ['"', '\''] {
        if let Some(rest) = written.strip_prefix(quote)
            && let Some(end) = rest.find(quote)
        {
            let body = &rest[..end];
            return if quote == '"' { body.replace("\\n", "\n") } else { body.to_owned() };
        }
    }
    written.split(" #").next().unwrap_or_default().trim().to_owned()
}

/// Renders a config's Jinja (`env_var`), parses it and lays the `SQLMESH__…` variables over it.
pub(crate) fn read(path: &Arc<str>, text: &str, env: &Env) -> Result<Mapping, Diagnostic> {
    let rendered = render(path, text, env)?;
    let yaml: Yaml = serde_yaml_ng::from_str(&rendered).map_err(|error| invalid_yaml(path, &error))?;
    let mut mapping = match yaml {
        Yaml::Mapping(mapping) => mapping,
        Yaml::Null => Mapping::new(),
        _ => {
            return Err(Diagnostic::error(
                "invalid-config",
                Location::file(path.clone()),
                "the config isn't a mapping",
            )
            .hint("write `key: value` lines"));
        }
    };
    overlay(&mut mapping, env);
    Ok(mapping)
}

/// A finding for YAML that doesn't parse, where the parser stopped.
pub(crate) fn invalid_yaml(path: &Arc<str>, error: &serde_yaml_ng::Error) -> Diagnostic {
    let (line, column) = error.location().map_or((1, 1), |at| (at.line() as u32, at.column() as u32));
    let at = Location { path: path.clone(), line, column };
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    Diagnostic::error("invalid-yaml", at, format!("this isn't valid YAML: {message}"))
        .hint("check indentation, quotes and colons")
}

/// Renders Jinja in a YAML text; texts without are returned as they are.
pub(crate) fn render(path: &Arc<str>, text: &str, env: &Env) -> Result<String, Diagnostic> {
    render_with(path, text, env, None)
}

/// As [`render`]; `var()` gives these variables, by lower-case name.
pub(crate) fn render_with(
    path: &Arc<str>,
    text: &str,
    env: &Env,
    variables: Option<&BTreeMap<String, Value>>,
) -> Result<String, Diagnostic> {
    if !text.contains("{{") && !text.contains("{%") {
        return Ok(text.to_owned());
    }
    let mut template = Environment::new();
    let env = env.clone();
    template.add_function("env_var", move |name: String, default: Option<Jinja>| match env.get(&name) {
        Some(value) => Jinja::from(value.clone()),
        None => default.unwrap_or_else(|| Jinja::from("None")),
    });
    if let Some(variables) = variables {
        let variables = variables.clone();
        template.add_function("var", move |name: String, default: Option<Jinja>| {
            match variables.get(&name.to_lowercase()) {
                Some(value) => jinja::to_jinja(value),
                None => default.unwrap_or_else(|| Jinja::from("None")),
            }
        });
    }
    python::add(&mut template);
    template.render_str(text, ()).map_err(|error| {
        let at = Location { path: path.clone(), line: error.line().unwrap_or(1) as u32, column: 1 };
        let message = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        Diagnostic::error("invalid-jinja", at, format!("the file's Jinja fails: {message}")).hint(
            match variables {
                None => "only `{{ env_var('NAME', 'default') }}` is available here",
                Some(_) => {
                    "only `{{ var('name') }}` and `{{ env_var('NAME', 'default') }}` are available here"
                }
            },
        )
    })
}

/// Lays `SQLMESH__A__B=value` over the config as `a: {b: value}`.
fn overlay(mapping: &mut Mapping, env: &Env) {
    for (name, value) in env {
        let name = name.to_ascii_lowercase();
        let Some(path) = name.strip_prefix("sqlmesh__") else { continue };
        let segments: Vec<&str> = path.split("__").collect();
        if segments.iter().any(|segment| segment.is_empty()) || path == "disable_sqlmesh_state_migration" {
            continue;
        }
        set(mapping, &segments, value);
    }
}

fn set(mapping: &mut Mapping, segments: &[&str], value: &str) {
    match segments {
        [] => {}
        [last] => {
            mapping.insert(Yaml::from(*last), Yaml::from(value));
        }
        [first, rest @ ..] => {
            let child = mapping.entry(Yaml::from(*first)).or_insert_with(|| Yaml::Mapping(Mapping::new()));
            if !child.is_mapping() {
                *child = Yaml::Mapping(Mapping::new());
            }
            if let Yaml::Mapping(child) = child {
                set(child, rest, value);
            }
        }
    }
}

/// A config's text for others' eyes: connections are reduced to type, database and catalog names
/// and `concurrent_tasks`, environment variables are resolved, secrets of notifications removed.
///
/// # Errors
/// The finding about a config that can't be read; it has no secrets.
pub fn redact_config(text: &str, env: &Env) -> Result<String, Diagnostic> {
    let path: Arc<str> = "config.yaml".into();
    let mut mapping = read(&path, text, env)?;
    for (key, value) in &mut mapping {
        match key.as_str() {
            Some("gateways" | "gateway") => redact_gateways(value),
            Some(key) if is_connection(key) => *value = redact_connection(value),
            Some("notification_targets" | "users" | "cicd_bot") => blank_secrets(value),
            Some("env_vars") => *value = Yaml::Mapping(Mapping::new()),
            _ => {}
        }
    }
    serde_yaml_ng::to_string(&mapping).map_err(|error| invalid_yaml(&path, &error))
}

fn is_connection(key: &str) -> bool {
    key == "connection" || key.ends_with("_connection") || key.ends_with("scheduler")
}

fn redact_gateways(gateways: &mut Yaml) {
    let Yaml::Mapping(gateways) = gateways else { return };
    if gateways.keys().any(|key| key.as_str().is_some_and(is_connection)) {
        return redact_gateway(gateways);
    }
    for gateway in gateways.values_mut() {
        if let Yaml::Mapping(gateway) = gateway {
            redact_gateway(gateway);
        }
    }
}

fn redact_gateway(gateway: &mut Mapping) {
    for (key, value) in gateway.iter_mut() {
        if key.as_str().is_some_and(is_connection) {
            *value = redact_connection(value);
        }
    }
}

fn redact_connection(connection: &Yaml) -> Yaml {
    let Yaml::Mapping(connection) = connection else { return Yaml::Mapping(Mapping::new()) };
    let mut kept = Mapping::new();
    for (key, value) in connection {
        let value = match key.as_str() {
            Some(
                "type" | "concurrent_tasks" | "catalog" | "catalog_name" | "virtual_catalog" | "db"
                | "project",
            ) => value.clone(),
            Some("database") => {
                value.as_str().map_or_else(|| value.clone(), |path| catalog_of_path(path).into())
            }
            Some("catalogs") => catalog_names(value),
            _ => continue,
        };
        kept.insert(key.clone(), value);
    }
    Yaml::Mapping(kept)
}

/// The names of attached catalogs with their types: paths may be connection strings.
fn catalog_names(catalogs: &Yaml) -> Yaml {
    let Yaml::Mapping(catalogs) = catalogs else { return Yaml::Mapping(Mapping::new()) };
    let names = catalogs.iter().map(|(name, options)| {
        let mut kept = Mapping::new();
        if let Some(kind) = options.get("type") {
            kept.insert(Yaml::from("type"), kind.clone());
        }
        kept.insert(Yaml::from("path"), Yaml::from(":redacted:"));
        (name.clone(), Yaml::Mapping(kept))
    });
    Yaml::Mapping(names.collect())
}

/// Replaces passwords, tokens and addresses with secrets in them by `***`.
pub(crate) fn blank_secrets(value: &mut Yaml) {
    match value {
        Yaml::Mapping(map) => {
            for (key, value) in map.iter_mut() {
                let secret = key.as_str().is_some_and(|key| {
                    ["password", "token", "secret", "url", "webhook"].iter().any(|word| key.contains(word))
                });
                if secret { *value = Yaml::from("***") } else { blank_secrets(value) }
            }
        }
        Yaml::Sequence(items) => items.iter_mut().for_each(blank_secrets),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_dotenv_file_wins_over_the_environment() {
        let text = "# c\nA=1\nexport B=\"x y\" # z\nC='q'\nD=u # v\n\n";
        let expected = env(&[("A", "1"), ("B", "x y"), ("C", "q"), ("D", "u"), ("E", "9")]);
        assert_eq!(with_dotenv(&env(&[("A", "0"), ("E", "9")]), Some(text)), expected);
    }

    #[test]
    fn environment_variables_fill_and_override() {
        let text = "a: \"{{ env_var('A') }}\"\nb: {{ env_var('B', '7').strip() }}\nc: {d: 1}\n";
        let env = env(&[("A", "x"), ("SQLMESH__C__D", "2"), ("SQLMESH__E", "f")]);
        let mapping = read(&"config.yaml".into(), text, &env).unwrap();
        let expected: Mapping = serde_yaml_ng::from_str("a: x\nb: 7\nc: {d: '2'}\ne: f").unwrap();
        assert_eq!(mapping, expected);
    }

    #[test]
    fn redaction_leaves_no_secret() {
        let text = "gateways:\n  pg:\n    connection:\n      type: postgres\n      host: h1\n      password: hunter2\n      \
                    user: \"{{ env_var('U') }}\"\n      database: wh\n      concurrent_tasks: 3\n    variables: {x: 1}\n  \
                    dd:\n    connection:\n      type: duckdb\n      catalogs:\n        a: {type: postgres, path: 'password=hunter2'}\n        \
                    b: /secret/b.db\n    state_connection: {type: postgres, password: hunter2}\n\
                    default_connection: {type: duckdb, database: /home/hunter2/wh.db}\n\
                    notification_targets: [{type: slack, token: hunter2}]\nmodel_defaults:\n  dialect: {{ env_var('D') }}\n";
        let redacted = redact_config(text, &env(&[("U", "hunter2"), ("D", "duckdb")])).unwrap();
        assert!(
            !redacted.contains("hunter2") && !redacted.contains("h1") && !redacted.contains("secret/"),
            "{redacted}"
        );
        let back: Yaml = serde_yaml_ng::from_str(&redacted).unwrap();
        assert_eq!(back["gateways"]["pg"]["connection"]["database"], Yaml::from("wh"));
        assert_eq!(back["gateways"]["pg"]["connection"]["concurrent_tasks"], Yaml::from(3));
        assert_eq!(back["gateways"]["dd"]["connection"]["catalogs"]["a"]["type"], Yaml::from("postgres"));
        assert_eq!(back["default_connection"]["database"], Yaml::from("wh"));
        assert_eq!(back["model_defaults"]["dialect"], Yaml::from("duckdb"));
    }
}

//! From YAML files to tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::Regex;
use serde_yaml_ng::{Mapping, Value as Yaml};

use super::{Datum, Expectation, Fixture, Part, Row, Source, UnitTest, times};
use crate::diagnostic::{Diagnostic, Location};
use crate::id::ModelName;
use crate::project::model::ColumnDef;
use crate::project::render::relation_name;
use crate::project::settings::yaml::{locate, scalar};
use crate::project::settings::{Env, invalid_yaml, render_with};
use crate::project::suggest::did_you_mean;
use crate::project::{Project, SourceFile, glob, seed};
use crate::sql::Dialect;

const KEYS: [&str; 8] = ["model", "name", "description", "gateway", "schema", "inputs", "outputs", "vars"];
const OUTPUT_KEYS: [&str; 3] = ["query", "ctes", "partial"];

/// Whether a file of a project holds unit tests, by its path.
pub fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.starts_with("tests/")
        && name.starts_with("test")
        && [".yaml", ".yml"].iter().any(|extension| name.ends_with(extension))
}

/// Paths that tests take rows from, as they write them: they start at the project's folder.
pub fn files_named(text: &str) -> Vec<String> {
    let value = |line: &str| {
        let rest = line.trim_start().trim_start_matches("- ").strip_prefix("path:")?.trim();
        Some(rest.split(" #").next()?.trim().trim_matches(['\'', '"']).to_owned())
    };
    text.lines().filter_map(value).filter(|path| !path.is_empty()).collect()
}

/// Reads the tests of a project. `files` are its files under `tests/` and those that tests name;
/// `env` the environment that Jinja sees. A test with a mistake is left out; there is a finding for
/// it.
pub fn load(project: &Project, files: &[SourceFile], env: &Env) -> (Vec<UnitTest>, Vec<Diagnostic>) {
    let settings = &project.settings;
    let ignored = |path: &str| settings.ignore_patterns.iter().any(|pattern| glob::matches(pattern, path));
    let by_path: BTreeMap<&str, &SourceFile> = files.iter().map(|file| (&*file.path, file)).collect();
    let names: BTreeSet<&ModelName> = project.models.iter().map(|model| &model.name).collect();
    let mut findings = Vec::new();
    let mut tests = Vec::new();
    for file in by_path.values().filter(|file| is_test_file(&file.path) && !ignored(&file.path)) {
        match parse(project, file, env) {
            Ok(bodies) => {
                for (name, body) in &bodies {
                    let Some(name) = scalar(name) else { continue };
                    let reader = Reader {
                        names: &names,
                        files: &by_path,
                        file,
                        dialect: settings.model_defaults.dialect,
                        catalog: settings.default_catalog(None),
                        name: &name,
                        findings: &mut findings,
                    };
                    tests.extend(reader.read(body));
                }
            }
            Err(finding) => findings.push(finding),
        }
    }
    (tests, findings)
}

static GATEWAY: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?m)^\s*gateway:\s*['"]?([^'"\s#]+)"#).ok());

fn parse(project: &Project, file: &SourceFile, env: &Env) -> Result<Mapping, Diagnostic> {
    let gateway =
        GATEWAY.as_ref().and_then(|regex| regex.captures(&file.text)).map(|found| found[1].to_owned());
    let variables = project.settings.variables_of(gateway.as_deref());
    let text = render_with(&file.path, &file.text, env, Some(&variables))?;
    let yaml = serde_yaml_ng::from_str::<Yaml>(&times::mark(&text))
        .map_err(|error| invalid_yaml(&file.path, &error))?;
    match yaml {
        Yaml::Mapping(bodies) => Ok(bodies),
        Yaml::Null => Ok(Mapping::new()),
        _ => Err(Diagnostic::error(
            "invalid-unit-test",
            Location::file(file.path.clone()),
            "the file isn't a mapping of tests by their names",
        )
        .hint("write `test_name:` with `model`, `inputs` and `outputs` below it")),
    }
}

/// Why a test can't be read: a finding.
type Read<T> = Result<T, Diagnostic>;

struct Reader<'a> {
    names: &'a BTreeSet<&'a ModelName>,
    files: &'a BTreeMap<&'a str, &'a SourceFile>,
    file: &'a SourceFile,
    /// The dialect of names: the project's.
    dialect: Dialect,
    catalog: Option<String>,
    name: &'a str,
    findings: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn at(&self, keys: &[&str]) -> Location {
        let path: Vec<&str> = std::iter::once(self.name).chain(keys.iter().copied()).collect();
        let (line, column) = locate(&self.file.text, &path);
        Location { path: self.file.path.clone(), line, column }
    }

    fn error(&self, keys: &[&str], message: impl Into<String>, hint: impl Into<String>) -> Diagnostic {
        let message = format!("unit test `{}`: {}", self.name, message.into());
        Diagnostic::error("invalid-unit-test", self.at(keys), message).hint(hint)
    }

    fn read(mut self, body: &Yaml) -> Option<UnitTest> {
        let read = self.test(body);
        match read {
            Ok(test) => test,
            Err(finding) => {
                self.findings.push(finding);
                None
            }
        }
    }

    fn test(&mut self, body: &Yaml) -> Read<Option<UnitTest>> {
        let Some(body) = body.as_mapping() else {
            return Err(self.error(&[], "it isn't a mapping", "give it `model`, `inputs` and `outputs`"));
        };
        self.unknown_keys(&[], body, &KEYS);
        let Some(written) = body.get("model").and_then(scalar) else {
            return Err(self.error(&[], "it names no model", "add `model: schema.model`"));
        };
        let model = self.model_name(&["model"], &written)?;
        if !self.names.contains(&model) {
            let near = crate::project::suggest_model(&model, self.names.iter().copied());
            let hint = near.map_or_else(
                || "the test isn't run; correct its `model`".to_owned(),
                |near| format!("the test isn't run; did you mean `{near}`?"),
            );
            let message = format!("unit test `{}`: there is no model `{model}`", self.name);
            self.findings.push(Diagnostic::warning("unknown-model", self.at(&["model"]), message).hint(hint));
            return Ok(None);
        }
        let expectations = self.outputs(body.get("outputs"))?;
        Ok(Some(UnitTest {
            name: self.name.to_owned(),
            at: self.at(&[]),
            model,
            description: body.get("description").and_then(scalar),
            gateway: body.get("gateway").and_then(scalar),
            inputs: self.inputs(body.get("inputs"))?,
            expectations,
            vars: self.vars(body.get("vars"))?,
        }))
    }

    fn unknown_keys(&mut self, keys: &[&str], mapping: &Mapping, known: &[&str]) {
        for key in mapping.keys().filter_map(scalar).filter(|key| !known.contains(&key.as_str())) {
            let path: Vec<&str> = keys.iter().copied().chain([key.as_str()]).collect();
            let message = format!("unit test `{}`: `{key}` has no meaning here", self.name);
            let finding = Diagnostic::warning("unknown-key", self.at(&path), message);
            self.findings.push(finding.hint(did_you_mean(&key, known)));
        }
    }

    fn model_name(&self, keys: &[&str], written: &str) -> Read<ModelName> {
        relation_name(written, self.dialect, self.catalog.as_deref()).ok_or_else(|| {
            let message = format!("`{written}` is not a model's name");
            self.error(keys, message, "write `schema.model`")
        })
    }

    fn inputs(&self, inputs: Option<&Yaml>) -> Read<BTreeMap<ModelName, Fixture>> {
        let mut fixtures = BTreeMap::new();
        let Some(inputs) = inputs.filter(|inputs| !inputs.is_null()) else { return Ok(fixtures) };
        let Some(inputs) = inputs.as_mapping() else {
            let hint = "write each model that the query reads with its `rows`";
            return Err(self.error(&["inputs"], "`inputs` isn't a mapping", hint));
        };
        for (name, value) in inputs {
            let written = scalar(name).unwrap_or_default();
            let keys = ["inputs", written.as_str()];
            let name = self.model_name(&keys, &written)?;
            let columns = self.columns(&keys, value.get("columns"))?;
            let source = self.source(&keys, value)?;
            fixtures.insert(name, Fixture { at: self.at(&keys), source, columns });
        }
        Ok(fixtures)
    }

    fn columns(&self, keys: &[&str], columns: Option<&Yaml>) -> Read<Vec<ColumnDef>> {
        let Some(columns) = columns.filter(|columns| !columns.is_null()) else { return Ok(Vec::new()) };
        let path = [keys, &["columns"]].concat();
        let Some(columns) = columns.as_mapping() else {
            return Err(self.error(&path, "`columns` isn't a mapping", "write `column: type`"));
        };
        let column = |(name, data_type): (&Yaml, &Yaml)| {
            Some(ColumnDef { name: self.column(&scalar(name)?), data_type: scalar(data_type)? })
        };
        Ok(columns.iter().filter_map(column).collect())
    }

    fn outputs(&mut self, outputs: Option<&Yaml>) -> Read<Vec<Expectation>> {
        let hint = "add `outputs` with a `query` and its `rows`";
        let Some(outputs) = outputs.and_then(Yaml::as_mapping).filter(|outputs| !outputs.is_empty()) else {
            return Err(self.error(&["outputs"], "it says nothing of what must come out", hint));
        };
        self.unknown_keys(&["outputs"], outputs, &OUTPUT_KEYS);
        let partial = outputs.get("partial").is_some_and(is_true);
        let (ctes, query) = (outputs.get("ctes"), outputs.get("query").filter(|query| !query.is_null()));
        let ctes = ctes.filter(|ctes| !ctes.is_null());
        if ctes.is_none() && query.is_none() {
            return Err(self.error(&["outputs"], "`outputs` has neither `query` nor `ctes`", hint));
        }
        let mut expectations = Vec::new();
        for (name, value) in ctes.and_then(Yaml::as_mapping).into_iter().flatten() {
            let name = scalar(name).unwrap_or_default();
            let part = Part::Cte(self.column(&name));
            expectations.push(self.expectation(&["outputs", "ctes", &name], part, value, partial)?);
        }
        if let Some(query) = query {
            expectations.push(self.expectation(&["outputs", "query"], Part::Query, query, partial)?);
        }
        Ok(expectations)
    }

    fn expectation(&self, keys: &[&str], of: Part, value: &Yaml, partial: bool) -> Read<Expectation> {
        let source = self.source(keys, value)?;
        // Of a query's rows, all columns count.
        let partial =
            partial && matches!(source, Source::Rows(_)) || value.get("partial").is_some_and(is_true);
        Ok(Expectation { at: self.at(keys), of, source, partial })
    }

    /// Rows as a list, below `rows`, of a CSV, of another file, or by a query.
    fn source(&self, keys: &[&str], value: &Yaml) -> Read<Source> {
        let value = match value {
            Yaml::Sequence(_) => return Ok(Source::Rows(self.rows(keys, value)?)),
            value => value,
        };
        let text = |key: &str| value.get(key).and_then(scalar);
        let (query, path, format) = (text("query"), text("path"), text("format"));
        let rows_at: Vec<&str> = keys.iter().copied().chain(["rows"]).collect();
        let given = value.get("rows").filter(|rows| !rows.is_null());
        let rows = match format.as_deref() {
            Some("csv") => match (&path, given.and_then(scalar)) {
                (Some(path), _) => Some(self.csv(keys, &self.other_file(keys, path)?, value)?),
                (None, Some(csv)) => Some(self.csv(keys, &csv, value)?),
                (None, None) => None,
            },
            None | Some("yaml") => match &path {
                Some(path) => Some(self.yaml_file(keys, path)?),
                None => given.map(|rows| self.rows(&rows_at, rows)).transpose()?,
            },
            Some(other) => {
                let message = format!("rows can't be read in the format `{other}`");
                return Err(self.error(keys, message, "use csv or yaml"));
            }
        };
        match (query, rows) {
            (Some(_), Some(_)) => {
                Err(self.error(keys, "it has both `query` and `rows`", "remove one of them"))
            }
            (Some(query), None) => Ok(Source::Query(query)),
            (None, Some(rows)) => Ok(Source::Rows(rows)),
            (None, None) => Err(self.error(keys, "it has no rows", "add `rows`; `rows: []` is none at all")),
        }
    }

    fn rows(&self, keys: &[&str], rows: &Yaml) -> Read<Vec<Row>> {
        let first = self.at(keys).line;
        let Some(rows) = rows.as_sequence() else {
            return Err(self.error(keys, "its rows aren't a list", "write `- column: value` for each row"));
        };
        let lines = item_lines(&self.file.text, first);
        let row = |(index, row): (usize, &Yaml)| {
            let line = lines.get(index).copied().unwrap_or(first);
            let row = row.as_mapping().ok_or_else(|| {
                self.error(keys, "a row isn't a mapping", "write `- column: value` for each row")
            })?;
            Ok(self.row(line, row))
        };
        rows.iter().enumerate().map(row).collect()
    }

    fn row(&self, line: u32, row: &Mapping) -> Row {
        let cell = |(name, value): (&Yaml, &Yaml)| Some((self.column(&scalar(name)?), datum(value)));
        Row { line, cells: row.iter().filter_map(cell).collect() }
    }

    fn column(&self, name: &str) -> String {
        self.dialect.normalize(name, false)
    }

    fn other_file(&self, keys: &[&str], path: &str) -> Read<String> {
        let file = self.files.get(path.trim_start_matches("./"));
        file.map(|file| file.text.to_string()).ok_or_else(|| {
            let message = format!("the file `{path}` doesn't exist");
            self.error(keys, message, "paths start at the project's folder")
        })
    }

    fn yaml_file(&self, keys: &[&str], path: &str) -> Read<Vec<Row>> {
        let text = self.other_file(keys, path)?;
        let line = self.at(keys).line;
        let yaml = serde_yaml_ng::from_str::<Yaml>(&times::mark(&text))
            .map_err(|error| invalid_yaml(&path.into(), &error))?;
        let rows = yaml.get("rows").unwrap_or(&yaml).as_sequence().cloned().unwrap_or_default();
        Ok(rows.iter().filter_map(Yaml::as_mapping).map(|row| self.row(line, row)).collect())
    }

    fn csv(&self, keys: &[&str], text: &str, value: &Yaml) -> Read<Vec<Row>> {
        let settings = value.get("csv_settings").and_then(Yaml::as_mapping);
        let setting = |(key, value): (&Yaml, &Yaml)| {
            // pandas calls it `sep`, too.
            let key = scalar(key).map(|key| if key == "sep" { "delimiter".to_owned() } else { key })?;
            let value = match value {
                Yaml::Sequence(values) => values.iter().filter_map(scalar).collect::<Vec<_>>().join(" "),
                value => scalar(value)?,
            };
            Some((key, format!("'{value}'")))
        };
        let settings = settings.into_iter().flatten().filter_map(setting).collect();
        let line = self.at(keys).line;
        let table = seed::typed_csv(text, &settings).map_err(|why| {
            self.error(
                keys,
                format!("the CSV can't be read: {why}"),
                "each row needs as many values as the first",
            )
        })?;
        let row = |values: Vec<Option<String>>| {
            let cells = table.columns.iter().zip(values).map(|((name, data_type), value)| {
                (self.column(name), value.map_or(Datum::Null, |value| csv_datum(data_type, value)))
            });
            Row { line, cells: cells.collect() }
        };
        Ok(table.rows.into_iter().map(row).collect())
    }

    fn vars(&self, vars: Option<&Yaml>) -> Read<Vec<(String, Datum)>> {
        let Some(vars) = vars.filter(|vars| !vars.is_null()) else { return Ok(Vec::new()) };
        let Some(vars) = vars.as_mapping() else {
            return Err(self.error(&["vars"], "`vars` isn't a mapping", "write `name: value`"));
        };
        Ok(vars.iter().filter_map(|(name, value)| Some((scalar(name)?, datum(value)))).collect())
    }
}

fn is_true(value: &Yaml) -> bool {
    value.as_bool() == Some(true)
}

fn csv_datum(data_type: &str, value: String) -> Datum {
    match data_type {
        "BIGINT" => value.trim().parse().map_or(Datum::Text(value), Datum::Int),
        "DOUBLE" => value.trim().parse().map_or(Datum::Text(value), Datum::Float),
        "BOOLEAN" => Datum::Bool(value.eq_ignore_ascii_case("true")),
        _ => Datum::Text(value),
    }
}

fn datum(value: &Yaml) -> Datum {
    match value {
        Yaml::Null => Datum::Null,
        Yaml::Bool(value) => Datum::Bool(*value),
        Yaml::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), ..) => Datum::Int(whole.into()),
            (None, Some(whole), _) => Datum::Int(whole.into()),
            (None, None, Some(float)) => Datum::Float(float),
            (None, None, None) => Datum::Text(number.to_string()),
        },
        Yaml::String(text) => Datum::Text(text.clone()),
        Yaml::Sequence(items) => Datum::List(items.iter().map(datum).collect()),
        Yaml::Mapping(map) => {
            let pair = |(key, value): (&Yaml, &Yaml)| Some((scalar(key)?, datum(value)));
            Datum::Map(map.iter().filter_map(pair).collect())
        }
        Yaml::Tagged(tagged) if tagged.tag == times::TAG => {
            Datum::Time(scalar(&tagged.value).unwrap_or_default())
        }
        Yaml::Tagged(tagged) => datum(&tagged.value),
    }
}

/// The lines of a list's items; the list's key stands on a line from 1.
fn item_lines(text: &str, key: u32) -> Vec<u32> {
    let mut indent = None;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate().skip(key as usize) {
        let body = line.trim_start();
        let at = line.len() - body.len();
        if body.is_empty() || body.starts_with('#') {
            continue;
        }
        let is_item = body == "-" || body.starts_with("- ");
        match indent {
            None if is_item => indent = Some(at),
            None => break,
            Some(indent) if at < indent || at == indent && !is_item => break,
            Some(_) => {}
        }
        if is_item && indent == Some(at) {
            lines.push(number as u32 + 1);
        }
    }
    lines
}

//! From a test to the statements that answer it.

use std::collections::BTreeMap;

use super::value::Class;
use super::{Datum, Expectation, Fixture, Part, Row, Source, UnitTest, fixture};
use crate::diagnostic::Diagnostic;
use crate::id::ModelName;
use crate::interval::{Timestamp, parse_time};
use crate::project::model::ColumnDef;
use crate::project::render::{RenderContext, RenderEnv, Stage, TimeVars, Value, render, time};
use crate::snapshot::{self, ByName, Snapshot};
use crate::sql::{CommonTable, Dialect, Query, freeze_time};

/// What tests run on.
#[derive(Debug, Clone, Copy)]
pub struct Bench<'a> {
    /// The project's snapshots.
    pub models: &'a ByName,
    /// The dialect of the connection that runs the statements.
    pub speaks: Dialect,
    /// What relative times in tests start from.
    pub now: Timestamp,
}

/// One thing to look at: a statement, and what it must answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What of the model it is.
    pub part: Part,
    /// A query for the rows that come out. It needs nothing that isn't in it.
    pub sql: String,
    /// A query for the rows that are expected, where the test gives one.
    pub expected_sql: Option<String>,
    pub(super) at: crate::diagnostic::Location,
    /// Whether the order of the rows counts.
    pub(super) ordered: bool,
    pub(super) partial: bool,
    pub(super) rows: Vec<Row>,
    /// The model's columns, where they are known.
    pub(super) columns: Option<Vec<String>>,
    pub(super) dialect: Dialect,
}

/// Why a test has no statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unready {
    /// It can't be run here, and why.
    Skipped(String),
    /// It or its model has a mistake.
    Broken(Box<Diagnostic>),
}

impl Bench<'_> {
    /// The statements of a test, those for common table expressions first.
    ///
    /// # Errors
    /// Where the test can't be run, or has a mistake.
    pub fn prepare(&self, test: &UnitTest) -> Result<Vec<Check>, Unready> {
        let Some(snapshot) = self.models.get(&test.model) else {
            let hint = "mend what else is wrong with the project";
            return Err(broken(test, format!("the model `{}` isn't understood", test.model), hint));
        };
        let model = &snapshot.model;
        if model.query().is_none() {
            let message =
                format!("`{}` is a {} model: it has no query to test", model.name, model.kind.name());
            return Err(broken(test, message, "test a model that has a query"));
        }
        if model.dialect != self.speaks && model.dialect != Dialect::Generic {
            return Err(Unready::Skipped(format!(
                "models written in {} can't be tested on {}: queries are never translated",
                model.dialect, self.speaks
            )));
        }
        let given = self.given(test, snapshot)?;
        let query = self.query(test, snapshot, &given)?;
        let with = given.with(self.speaks);
        let columns = snapshot.columns.as_ref();
        let tables = query.common_tables();
        let check = |expected: &Expectation| self.check(test, expected, &query, &tables, columns, &with);
        test.expectations.iter().map(check).collect()
    }

    /// What each relation that the query reads holds.
    fn given(&self, test: &UnitTest, snapshot: &Snapshot) -> Result<Given, Unready> {
        let mut fixtures: Vec<(&ModelName, &Fixture)> = test.inputs.iter().collect();
        for name in snapshot.upstream().chain(&snapshot.foreign) {
            if !test.inputs.is_empty() && !test.inputs.contains_key(name) {
                let hint = "add it below `inputs`; `rows: []` is none at all";
                return Err(broken(test, format!("nothing says what `{name}` holds"), hint));
            }
        }
        let nothing = Fixture { at: test.at.clone(), source: Source::Rows(Vec::new()), columns: Vec::new() };
        if snapshot.depends_on_self() && !test.inputs.contains_key(snapshot.name()) {
            fixtures.push((snapshot.name(), &nothing));
        }
        let mut selects = BTreeMap::new();
        for (name, fixture) in fixtures {
            let columns = self.models.get(name).and_then(|snapshot| self.columns(snapshot));
            let select = fixture::select(fixture, columns.as_deref(), self.speaks).map_err(|why| {
                let message = format!("unit test `{}`: `{name}`: {why}", test.name);
                let finding = Diagnostic::error("invalid-unit-test", fixture.at.clone(), message);
                Unready::Broken(Box::new(finding.hint("correct what the test says that it holds")))
            })?;
            selects.insert(name.clone(), select);
        }
        Ok(Given(selects))
    }

    /// A model's columns; types that the connection wouldn't understand are left out.
    fn columns(&self, snapshot: &Snapshot) -> Option<Vec<ColumnDef>> {
        let mut columns = snapshot.columns.clone()?;
        let dialect = snapshot.model.dialect;
        if dialect != self.speaks && dialect != Dialect::Generic {
            for column in &mut columns {
                column.data_type.clear();
            }
        }
        Some(columns)
    }

    /// The model's query, rendered for the test, over what is given.
    fn query(&self, test: &UnitTest, snapshot: &Snapshot, given: &Given) -> Result<Query, Unready> {
        let model = &snapshot.model;
        let vars = Vars::of(test, self.now)
            .map_err(|why| broken(test, why, "write a date or a time, such as 2024-01-31"))?;
        let mut env: RenderEnv = snapshot.env.clone();
        env.variables.extend(vars.variables);
        let time = match model.kind.only_execution_time() {
            true => TimeVars::ExecutionOnly { execution: vars.execution.unwrap_or(Timestamp(0)) },
            false => TimeVars::Batch {
                start: vars.start,
                end: vars.end,
                execution: vars.execution.unwrap_or(Timestamp(0)),
            },
        };
        let this = snapshot::own_name(model);
        let context = RenderContext {
            this_model: Some(&this),
            locals: &vars.locals,
            ..snapshot::context(model, &env, time, Stage::Testing)
        };
        let Some(code) = model.query() else { return Err(Unready::Skipped("it has no query".to_owned())) };
        let mut text = render(code, &context)
            .map_err(|error| Unready::Broken(Box::new(snapshot::unrenderable(model, error))))?;
        if let Some(at) = vars.execution {
            text = freeze_time(&text, model.dialect, at);
        }
        let text = text.trim_end().trim_end_matches(';').to_owned();
        let catalog = env.default_catalog.as_deref();
        let parse = |text: &str| {
            Query::parse(text, model.dialect).map_err(|error| {
                let message = format!("the query of `{}` can't be parsed: {error}", model.name);
                let finding = Diagnostic::error("invalid-sql", model.location.clone(), message);
                Unready::Broken(Box::new(finding.hint("render it with `coordctl render`")))
            })
        };
        let over_given = parse(&text)?.rewrite_tables(&mut |reference| {
            let name = snapshot::model_name(reference, model.dialect, catalog)?;
            given.0.contains_key(&name).then(|| self.speaks.quote(&alias(&name)))
        });
        let text =
            over_given.map_err(|error| broken(test, error.to_string(), error.hint.unwrap_or_default()))?;
        parse(&text)
    }

    fn check(
        &self,
        test: &UnitTest,
        expected: &Expectation,
        query: &Query,
        tables: &[CommonTable],
        columns: Option<&Vec<ColumnDef>>,
        with: &str,
    ) -> Result<Check, Unready> {
        let (text, ordered) = match &expected.of {
            Part::Query => (query.text(), query.is_ordered()),
            Part::Cte(name) => {
                let Some(table) = tables.iter().find(|table| table.name == *name) else {
                    let all: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
                    let message = format!("`{}` has no common table expression `{name}`", test.model);
                    let hint = match all.is_empty() {
                        true => "its query has none".to_owned(),
                        false => format!("there are: {}", all.join(", ")),
                    };
                    return Err(broken_at(test, expected.at.clone(), message, hint));
                };
                (table.select.as_str(), table.is_ordered)
            }
        };
        let sql = if with.is_empty() {
            text.to_owned()
        } else {
            format!("WITH {with}\nSELECT * FROM (\n{text}\n) AS _tested")
        };
        let (rows, expected_sql) = match &expected.source {
            Source::Rows(rows) => (rows.clone(), None),
            Source::Query(query) => (Vec::new(), Some(query.trim().trim_end_matches(';').to_owned())),
        };
        Ok(Check {
            part: expected.of.clone(),
            sql,
            expected_sql,
            at: expected.at.clone(),
            ordered,
            partial: expected.partial,
            rows,
            columns: columns.map(|columns| columns.iter().map(|column| column.name.clone()).collect()),
            dialect: self.speaks,
        })
    }
}

/// A query for a query's rows that gives nested values as JSON; others stay as they are.
pub fn reading(sql: &str, columns: &[ColumnDef]) -> String {
    let is_nested = |column: &ColumnDef| Class::of(&column.data_type) == Class::Nested;
    if !columns.iter().any(is_nested) {
        return sql.to_owned();
    }
    let places: Vec<String> = (0..columns.len()).map(|at| format!("c{at}")).collect();
    let read = |(place, column): (&String, &ColumnDef)| match is_nested(column) {
        true => format!("CAST(to_json({place}) AS VARCHAR)"),
        false => place.clone(),
    };
    let list: Vec<String> = places.iter().zip(columns).map(read).collect();
    format!("SELECT {} FROM (\n{sql}\n) AS _read({})", list.join(", "), places.join(", "))
}

fn broken(test: &UnitTest, message: impl Into<String>, hint: impl Into<String>) -> Unready {
    broken_at(test, test.at.clone(), message, hint)
}

fn broken_at(
    test: &UnitTest,
    at: crate::diagnostic::Location,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Unready {
    let message = format!("unit test `{}`: {}", test.name, message.into());
    Unready::Broken(Box::new(Diagnostic::error("invalid-unit-test", at, message).hint(hint)))
}

/// Queries for what each relation holds.
struct Given(BTreeMap<ModelName, String>);

impl Given {
    /// The common table expressions that stand for the relations.
    fn with(&self, dialect: Dialect) -> String {
        let table = |(name, select): (&ModelName, &String)| {
            format!("{} AS (\n  {select}\n)", dialect.quote(&alias(name)))
        };
        self.0.iter().map(table).collect::<Vec<_>>().join(",\n")
    }
}

/// The common table expression that stands for a relation.
fn alias(name: &ModelName) -> String {
    format!("_given__{}", name.as_str().replace('.', "__"))
}

/// A test's `vars`, sorted out.
struct Vars {
    variables: BTreeMap<String, Value>,
    /// Single time variables that the test sets, as SQL.
    locals: BTreeMap<String, String>,
    start: Timestamp,
    end: Timestamp,
    execution: Option<Timestamp>,
}

/// The first day of all: what SQLMesh takes where a test gives no time.
const EPOCH: &str = "1970-01-01";

impl Vars {
    fn of(test: &UnitTest, now: Timestamp) -> Result<Self, String> {
        let given = |name: &str| test.vars.iter().find(|(given, _)| given == name).and_then(|(_, v)| text(v));
        let read = |name: &str, written: &str| {
            parse_time(written, now).map_err(|error| format!("`{name}`: {error}"))
        };
        let point = |name: &str| read(name, given(name).as_deref().unwrap_or(EPOCH));
        let mut vars = Self {
            variables: BTreeMap::new(),
            locals: BTreeMap::new(),
            start: point("start")?.at,
            end: point("end")?.exclusive(),
            execution: given("execution_time")
                .map(|written| read("execution_time", &written))
                .transpose()?
                .map(|point| point.at),
        };
        for (name, value) in &test.vars {
            if ["start", "end", "execution_time", "latest"].contains(&name.as_str()) {
                continue;
            }
            if time::names().any(|known| known == *name) {
                vars.locals.insert(name.clone(), sql(value));
            } else {
                vars.variables.insert(name.clone(), variable(value));
            }
        }
        Ok(vars)
    }
}

fn text(value: &Datum) -> Option<String> {
    match value {
        Datum::Text(text) | Datum::Time(text) => Some(text.clone()),
        Datum::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

fn sql(value: &Datum) -> String {
    match value {
        Datum::Time(text) if text.len() <= 10 => format!("CAST('{text}' AS DATE)"),
        Datum::Time(text) => format!("CAST('{text}' AS TIMESTAMP)"),
        Datum::Text(text) => format!("'{}'", text.replace('\'', "''")),
        other => super::value::shown(other),
    }
}

fn variable(value: &Datum) -> Value {
    match value {
        Datum::Null => Value::Null,
        Datum::Bool(value) => Value::Bool(*value),
        Datum::Int(value) => {
            i64::try_from(*value).map_or_else(|_| Value::Text(value.to_string()), Value::Int)
        }
        Datum::Float(value) => Value::Float(*value),
        Datum::Text(text) | Datum::Time(text) => Value::Text(text.clone()),
        Datum::List(values) => Value::List(values.iter().map(variable).collect()),
        Datum::Map(pairs) => {
            Value::Map(pairs.iter().map(|(key, value)| (key.clone(), variable(value))).collect())
        }
    }
}

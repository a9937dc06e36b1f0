//! Given rows as SQL: one common table expression for each relation that the query reads.

use std::fmt::Write as _;

use super::{Datum, Fixture, Row, Source};
use crate::project::model::ColumnDef;
use crate::sql::{Dialect, Query};

/// A column of a given relation.
struct Column {
    name: String,
    /// As the warehouse writes it; absent where nothing tells it.
    data_type: Option<String>,
}

/// A query for the rows of a fixture. `known` are the columns of the model that it stands for, with
/// types in a dialect that the warehouse reads; their types may be empty.
///
/// # Errors
/// Says what of the given rows can't be.
pub(super) fn select(
    fixture: &Fixture,
    known: Option<&[ColumnDef]>,
    dialect: Dialect,
) -> Result<String, String> {
    match &fixture.source {
        Source::Rows(rows) => of_rows(rows, &columns(fixture, rows, known, dialect)?, dialect),
        Source::Query(query) => of_query(query, fixture, known, dialect),
    }
}

fn columns(
    fixture: &Fixture,
    rows: &[Row],
    known: Option<&[ColumnDef]>,
    dialect: Dialect,
) -> Result<Vec<Column>, String> {
    let mut columns: Vec<Column> = Vec::new();
    let mut add = |name: &str, data_type: &str| {
        let data_type = Some(data_type.to_owned()).filter(|text| !text.is_empty());
        match columns.iter_mut().find(|column| column.name == name) {
            Some(column) => column.data_type = data_type.or(column.data_type.take()),
            None => columns.push(Column { name: name.to_owned(), data_type }),
        }
    };
    for column in known.into_iter().flatten().chain(&fixture.columns) {
        add(&column.name, &column.data_type);
    }
    for (name, _) in rows.iter().flat_map(|row| &row.cells) {
        let is_known = |column: &&ColumnDef| column.name == *name;
        if known.is_some_and(|known| !known.iter().chain(&fixture.columns).any(|c| is_known(&c))) {
            let all: Vec<&str> = known.into_iter().flatten().map(|column| column.name.as_str()).collect();
            return Err(format!("there is no column `{name}`; there are: {}", all.join(", ")));
        }
        add(name, "");
    }
    for column in columns.iter_mut().filter(|column| column.data_type.is_none()) {
        let values = rows.iter().filter_map(|row| row.get(&column.name));
        column.data_type = values.filter_map(|value| type_of(value, dialect)).next();
    }
    Ok(columns)
}

fn of_rows(rows: &[Row], columns: &[Column], dialect: Dialect) -> Result<String, String> {
    if columns.is_empty() {
        return Err("nothing tells its columns; list them with their types below `columns`".to_owned());
    }
    let cell = |row: Option<&Row>, column: &Column| {
        let value = row.and_then(|row| row.get(&column.name)).unwrap_or(&Datum::Null);
        let literal = literal(value, column.data_type.as_deref().unwrap_or_default(), dialect);
        match &column.data_type {
            Some(data_type) => format!("CAST({literal} AS {data_type})"),
            None => literal,
        }
    };
    let line = |row: Option<&Row>| columns.iter().map(|c| cell(row, c)).collect::<Vec<_>>().join(", ");
    let names: Vec<String> = columns.iter().map(|column| dialect.quote(&column.name)).collect();
    let names = names.join(", ");
    let mut sql = format!("SELECT * FROM (VALUES\n    ({})", line(rows.first()));
    for row in rows.iter().skip(1) {
        let _ = write!(sql, ",\n    ({})", line(Some(row)));
    }
    let _ = write!(sql, "\n  ) AS _rows({names})");
    if rows.is_empty() {
        sql.push_str(" WHERE FALSE");
    }
    Ok(sql)
}

/// A query as it is; columns of the model that it lacks are added as NULLs.
fn of_query(
    text: &str,
    fixture: &Fixture,
    known: Option<&[ColumnDef]>,
    dialect: Dialect,
) -> Result<String, String> {
    let text = text.trim().trim_end_matches(';');
    let query = Query::parse(text, dialect).map_err(|error| format!("its query can't be parsed: {error}"))?;
    let Some(selected) = query.output_columns(&()) else { return Ok(text.to_owned()) };
    let given = |name: &str| known.into_iter().flatten().chain(&fixture.columns).any(|c| c.name == name);
    if let Some(more) = selected.iter().find(|column| known.is_some() && !given(&column.name)) {
        return Err(format!("its query returns a column `{}` that the model doesn't have", more.name));
    }
    let has = |name: &str| selected.iter().any(|column| column.name == name);
    let missing: Vec<String> = known
        .into_iter()
        .flatten()
        .chain(&fixture.columns)
        .filter(|column| !has(&column.name))
        .map(|column| {
            let name = dialect.quote(&column.name);
            match column.data_type.as_str() {
                "" => format!(", NULL AS {name}"),
                data_type => format!(", CAST(NULL AS {data_type}) AS {name}"),
            }
        })
        .collect();
    if missing.is_empty() {
        return Ok(text.to_owned());
    }
    Ok(format!("SELECT _rows.*{} FROM (\n{text}\n) AS _rows", missing.concat()))
}

/// The type that a value suggests.
fn type_of(value: &Datum, dialect: Dialect) -> Option<String> {
    Some(match value {
        Datum::Null => return None,
        Datum::Bool(_) => "BOOLEAN".to_owned(),
        Datum::Int(value) if i32::try_from(*value).is_ok() => "INT".to_owned(),
        Datum::Int(_) => "BIGINT".to_owned(),
        Datum::Float(_) if dialect == Dialect::Postgres => "DOUBLE PRECISION".to_owned(),
        Datum::Float(_) => "DOUBLE".to_owned(),
        Datum::Text(_) => "TEXT".to_owned(),
        Datum::Time(text) if text.len() <= 10 => "DATE".to_owned(),
        Datum::Time(_) => "TIMESTAMP".to_owned(),
        Datum::List(values) => {
            format!("{}[]", values.iter().find_map(|value| type_of(value, dialect))?)
        }
        Datum::Map(_) if dialect == Dialect::Postgres => "JSONB".to_owned(),
        Datum::Map(pairs) => {
            format!("MAP(TEXT, {})", pairs.iter().find_map(|(_, value)| type_of(value, dialect))?)
        }
    })
}

/// A value as SQL for a column of a type.
fn literal(value: &Datum, data_type: &str, dialect: Dialect) -> String {
    let wanted = data_type.trim().to_ascii_uppercase();
    if wanted.starts_with("JSON") && !matches!(value, Datum::Null) {
        return text(&json(value).to_string());
    }
    match value {
        Datum::Null => "NULL".to_owned(),
        Datum::Bool(value) => value.to_string().to_uppercase(),
        Datum::Int(value) => value.to_string(),
        Datum::Float(value) if value.is_finite() => format!("{value:?}"),
        Datum::Float(value) => text(&value.to_string()),
        Datum::Text(value) | Datum::Time(value) => text(value),
        Datum::List(values) => {
            let items: Vec<String> = values.iter().map(|value| literal(value, "", dialect)).collect();
            let items = items.join(", ");
            if dialect == Dialect::Postgres { format!("ARRAY[{items}]") } else { format!("[{items}]") }
        }
        Datum::Map(pairs) => {
            let pair =
                |(key, value): &(String, Datum)| format!("{}: {}", text(key), literal(value, "", dialect));
            let pairs = pairs.iter().map(pair).collect::<Vec<_>>().join(", ");
            if wanted.starts_with("MAP") { format!("MAP {{{pairs}}}") } else { format!("{{{pairs}}}") }
        }
    }
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn json(value: &Datum) -> serde_json::Value {
    match value {
        Datum::Null => serde_json::Value::Null,
        Datum::Bool(value) => (*value).into(),
        Datum::Int(value) => i64::try_from(*value).map_or_else(|_| value.to_string().into(), Into::into),
        Datum::Float(value) => (*value).into(),
        Datum::Text(value) | Datum::Time(value) => value.as_str().into(),
        Datum::List(values) => values.iter().map(json).collect(),
        Datum::Map(pairs) => pairs.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
    }
}

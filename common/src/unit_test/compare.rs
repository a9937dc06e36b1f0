//! Expected rows against those that came out.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::prepare::Check;
use super::value::{Class, equal, shown};
use super::{Answer, Datum, Part, Row};
use crate::diagnostic::Location;

/// How what came out differs from what a test expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// What of the model differs.
    pub part: Part,
    /// Where the test says what it expects: the first row that differs, where one does.
    pub at: Location,
    /// What is wrong, as one sentence without a full stop.
    pub message: String,
    /// The rows that differ.
    pub tables: Vec<Table>,
}

/// Rows for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What they are.
    pub title: String,
    /// The columns.
    pub columns: Vec<String>,
    /// The values, as many in each row as there are columns.
    pub rows: Vec<Vec<String>>,
}

impl Check {
    /// How an answer differs from what is expected, if it does. `expected` is the answer to
    /// [`Check::expected_sql`], where there is one.
    pub fn judge(&self, actual: &Answer, expected: Option<&Answer>) -> Option<Mismatch> {
        let answered: Vec<String> =
            actual.columns.iter().map(|column| self.dialect.normalize(&column.name, true)).collect();
        let read = expected.map(|answer| self.rows_of(answer));
        let rows = read.as_deref().unwrap_or(&self.rows);
        let columns = match self.compared(rows, &answered, expected.is_some()) {
            Ok(columns) => columns,
            Err(message) => return Some(self.mismatch(self.at.clone(), message, Vec::new())),
        };
        let places: Vec<(String, usize, Class)> = columns
            .into_iter()
            .filter_map(|name| {
                let place = answered.iter().position(|answered| *answered == name)?;
                Some((name, place, Class::of(&actual.columns[place].data_type)))
            })
            .collect();
        let comparison = Comparison { places, expected: rows, actual: &actual.rows };
        let (missing, unexpected) =
            if self.ordered { comparison.in_order() } else { comparison.in_any_order() };
        self.report(&comparison, &missing, &unexpected)
    }

    /// The columns that count.
    fn compared(&self, rows: &[Row], answered: &[String], by_query: bool) -> Result<Vec<String>, String> {
        let mut named: Vec<String> = Vec::new();
        for (name, _) in rows.iter().flat_map(|row| &row.cells) {
            if !named.contains(name) {
                named.push(name.clone());
            }
        }
        let known = match (&self.part, &self.columns) {
            (Part::Cte(_), _) => answered.to_vec(),
            (Part::Query, Some(columns)) => columns.clone(),
            (Part::Query, None) if rows.is_empty() => answered.to_vec(),
            (Part::Query, None) => named.clone(),
        };
        let unknown = lacking(&named, &known);
        if !unknown.is_empty() && !by_query {
            return Err(format!(
                "expected rows name unknown columns: {}; there are: {}",
                unknown.join(", "),
                known.join(", ")
            ));
        }
        let compared = match (self.partial, named.is_empty()) {
            (true, false) => named,
            (true, true) => return Ok(answered.to_vec()),
            (false, _) => known,
        };
        let absent = lacking(&compared, answered);
        if !absent.is_empty() {
            return Err(format!("the query doesn't return the expected columns {}", absent.join(", ")));
        }
        let more = lacking(answered, &compared);
        if !more.is_empty() && !self.partial {
            return Err(format!("the query returns columns that aren't expected: {}", more.join(", ")));
        }
        Ok(compared)
    }

    /// The rows of an answer as if the test had listed them.
    fn rows_of(&self, answer: &Answer) -> Vec<Row> {
        let names: Vec<String> =
            answer.columns.iter().map(|column| self.dialect.normalize(&column.name, true)).collect();
        let datum = |place: usize, cell: &Option<String>| match cell {
            None => Datum::Null,
            Some(text) => datum(Class::of(&answer.columns[place].data_type), text),
        };
        let row = |cells: &Vec<Option<String>>| Row {
            line: self.at.line,
            cells: names.iter().cloned().zip(cells.iter().enumerate().map(|(i, c)| datum(i, c))).collect(),
        };
        answer.rows.iter().map(row).collect()
    }

    fn mismatch(&self, at: Location, message: String, tables: Vec<Table>) -> Mismatch {
        Mismatch { part: self.part.clone(), at, message, tables }
    }

    fn report(
        &self,
        comparison: &Comparison<'_>,
        missing: &[usize],
        unexpected: &[usize],
    ) -> Option<Mismatch> {
        if missing.is_empty() && unexpected.is_empty() {
            return None;
        }
        let first = missing.first().and_then(|at| comparison.expected.get(*at));
        let line = first.map_or(self.at.line, |row| row.line);
        let at =
            Location { line, column: if first.is_some() { 1 } else { self.at.column }, ..self.at.clone() };
        if missing.len() == unexpected.len() {
            let verb = if missing.len() == 1 { "differs" } else { "differ" };
            let message = format!("{} {verb}", counted(missing.len()));
            return Some(self.mismatch(at, message, vec![comparison.differences(missing, unexpected)]));
        }
        let mut tables = Vec::new();
        if !missing.is_empty() {
            tables
                .push(comparison.table("missing rows", missing, |at, place| comparison.expected(at, place)));
        }
        if !unexpected.is_empty() {
            tables.push(
                comparison.table("unexpected rows", unexpected, |at, place| comparison.actual(at, place)),
            );
        }
        let (expected, actual) = (comparison.expected.len(), comparison.actual.len());
        let message = format!("expected {}, got {}", counted(expected), counted(actual));
        Some(self.mismatch(at, message, tables))
    }
}

fn counted(rows: usize) -> String {
    format!("{rows} row{}", if rows == 1 { "" } else { "s" })
}

fn lacking(names: &[String], from: &[String]) -> Vec<String> {
    names.iter().filter(|name| !from.contains(name)).cloned().collect()
}

/// A value of an answer as a test would write it.
fn datum(class: Class, text: &str) -> Datum {
    match class {
        Class::Whole | Class::Number => match (text.parse(), text.parse()) {
            (Ok(whole), _) => Datum::Int(whole),
            (Err(_), Ok(number)) => Datum::Float(number),
            (Err(_), Err(_)) => Datum::Text(text.to_owned()),
        },
        Class::Bool => Datum::Bool(matches!(text, "t" | "true")),
        Class::Nested => match serde_json::from_str(text) {
            Ok(json) => of_json(&json),
            Err(_) => Datum::Text(text.to_owned()),
        },
        Class::Moment | Class::Time | Class::Interval | Class::Text => Datum::Text(text.to_owned()),
    }
}

fn of_json(json: &Json) -> Datum {
    match json {
        Json::Null => Datum::Null,
        Json::Bool(value) => Datum::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Datum::Int(whole.into()),
            None => Datum::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Datum::Text(text.clone()),
        Json::Array(values) => Datum::List(values.iter().map(of_json).collect()),
        Json::Object(map) => {
            Datum::Map(map.iter().map(|(key, value)| (key.clone(), of_json(value))).collect())
        }
    }
}

struct Comparison<'a> {
    /// The columns that count, with their places in the answer.
    places: Vec<(String, usize, Class)>,
    expected: &'a [Row],
    actual: &'a [Vec<Option<String>>],
}

impl Comparison<'_> {
    fn cell_equal(&self, expected: &Row, actual: &[Option<String>], place: &(String, usize, Class)) -> bool {
        let (name, at, class) = place;
        equal(*class, expected.get(name).unwrap_or(&Datum::Null), actual[*at].as_deref())
    }

    fn row_equal(&self, expected: &Row, actual: &[Option<String>]) -> bool {
        self.places.iter().all(|place| self.cell_equal(expected, actual, place))
    }

    /// Rows that differ at their places; what is beyond the shorter side differs, too.
    fn in_order(&self) -> (Vec<usize>, Vec<usize>) {
        let differ = |at: &usize| match (self.expected.get(*at), self.actual.get(*at)) {
            (Some(expected), Some(actual)) => !self.row_equal(expected, actual),
            _ => true,
        };
        let missing = (0..self.expected.len()).filter(differ).collect();
        (missing, (0..self.actual.len()).filter(differ).collect())
    }

    /// Rows without a partner on the other side.
    fn in_any_order(&self) -> (Vec<usize>, Vec<usize>) {
        let mut free: Vec<usize> = (0..self.actual.len()).collect();
        let mut missing = Vec::new();
        for (at, row) in self.expected.iter().enumerate() {
            match free.iter().position(|other| self.row_equal(row, &self.actual[*other])) {
                Some(found) => {
                    free.remove(found);
                }
                None => missing.push(at),
            }
        }
        (missing, free)
    }

    fn expected(&self, at: usize, place: &(String, usize, Class)) -> String {
        shown(self.expected[at].get(&place.0).unwrap_or(&Datum::Null))
    }

    fn actual(&self, at: usize, place: &(String, usize, Class)) -> String {
        self.actual[at][place.1].clone().unwrap_or_else(|| "NULL".to_owned())
    }

    fn table(
        &self,
        title: &str,
        rows: &[usize],
        cell: impl Fn(usize, &(String, usize, Class)) -> String,
    ) -> Table {
        Table {
            title: title.to_owned(),
            columns: self.places.iter().map(|(name, ..)| name.clone()).collect(),
            rows: rows.iter().map(|at| self.places.iter().map(|place| cell(*at, place)).collect()).collect(),
        }
    }

    /// The columns in which rows differ, row by row: each missing one with the unexpected one that
    /// has most in common with it.
    fn differences(&self, missing: &[usize], unexpected: &[usize]) -> Table {
        let partners = self.partners(missing, unexpected);
        let mut differing: Vec<bool> = vec![false; self.places.len()];
        for (expected, actual) in &partners {
            for (differs, place) in differing.iter_mut().zip(&self.places) {
                *differs |= !self.cell_equal(&self.expected[*expected], &self.actual[*actual], place);
            }
        }
        let places: Vec<_> =
            self.places.iter().zip(&differing).filter(|(_, d)| **d).map(|(p, _)| p).collect();
        let mut columns = vec!["line".to_owned()];
        columns.extend(
            places.iter().flat_map(|(name, ..)| [format!("{name} expected"), format!("{name} actual")]),
        );
        let row = |(expected, actual): &(usize, usize)| {
            let mut row = vec![self.expected[*expected].line.to_string()];
            for place in &places {
                row.extend([self.expected(*expected, place), self.actual(*actual, place)]);
            }
            row
        };
        Table { title: "differences".to_owned(), columns, rows: partners.iter().map(row).collect() }
    }

    fn partners(&self, missing: &[usize], unexpected: &[usize]) -> Vec<(usize, usize)> {
        let mut free: BTreeMap<usize, &Vec<Option<String>>> =
            unexpected.iter().map(|at| (*at, &self.actual[*at])).collect();
        let mut partners = Vec::new();
        for at in missing {
            let row = &self.expected[*at];
            let common = |actual: &[Option<String>]| {
                self.places.iter().filter(|place| self.cell_equal(row, actual, place)).count()
            };
            // The first one of those that are equally near.
            let nearest = free.iter().rev().max_by_key(|(_, actual)| common(actual)).map(|(at, _)| *at);
            if let Some(nearest) = nearest {
                free.remove(&nearest);
                partners.push((*at, nearest));
            }
        }
        partners
    }
}

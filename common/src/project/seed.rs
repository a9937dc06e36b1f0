//! Seeds: finding the CSV, its columns, its rows.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Location};

use super::SourceFile;
use super::ddl::token::{TokenKind, tokenize};
use super::ddl::value::unquote;
use super::model::{ColumnDef, Model, ModelKind, ModelSource, Seed, SeedContent};
use crate::sql::Dialect;

/// Texts that mean "no value", as pandas reads CSV.
const NO_VALUE: [&str; 18] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "nan", "null",
];

/// The CSV of a seed, from the project's files.
pub(crate) fn content(
    files: &BTreeMap<&str, &SourceFile>,
    model_path: &str,
    seed: &Seed,
    at: Location,
    findings: &mut Vec<Diagnostic>,
) -> Option<SeedContent> {
    let path = seed_path(model_path, &seed.path);
    if let Some(file) = path.as_deref().and_then(|path| files.get(path)) {
        return Some(SeedContent { path: file.path.to_string(), csv: file.text.to_string() });
    }
    let message = format!("the seed's file `{}` doesn't exist", path.as_deref().unwrap_or(&seed.path));
    findings.push(
        Diagnostic::error("missing-seed", at, message).hint(
            "paths are relative to the model's file; `$root/seeds/x.csv` starts at the project's folder",
        ),
    );
    None
}

/// The path of a seed's file relative to the project, as a model's file at `model_path` writes it: it
/// may lead out of the project (`../data/x.csv`) and be absolute. Nothing for an empty path.
pub fn seed_path(model_path: &str, written: &str) -> Option<String> {
    let (base, rest) = match written.get(..6) {
        Some(root) if root.eq_ignore_ascii_case("$root/") => ("", &written[6..]),
        _ if written.starts_with('/') => return Some(written.to_owned()),
        _ => (model_path.rsplit_once('/').map_or("", |(folder, _)| folder), written),
    };
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in rest.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// A seed's columns: those that the model declares, or those of the CSV with the types that their
/// values suggest (`BIGINT`, `DOUBLE`, `BOOLEAN`, else `TEXT`, as pandas infers them). Empty for
/// other models and for a CSV that can't be read.
pub fn columns(model: &Model) -> Vec<ColumnDef> {
    if let Some(columns) = &model.columns {
        return columns.clone();
    }
    let Ok(table) = Table::read(model) else { return Vec::new() };
    let types =
        (0..table.header.len()).map(|column| infer(table.rows.iter().map(|row| row[column].as_deref())));
    table
        .header
        .iter()
        .zip(types)
        .map(|(name, data_type)| ColumnDef { name: name.clone(), data_type: data_type.to_owned() })
        .collect()
}

/// A seed's rows: texts in the order of [`columns`]; `None` is NULL.
///
/// # Errors
/// A finding in the CSV: a row of another length, or a declared column that it lacks.
pub fn rows(model: &Model) -> Result<Vec<Vec<Option<String>>>, Diagnostic> {
    let table = Table::read(model)?;
    let Some(columns) = &model.columns else { return Ok(table.rows) };
    let order: Result<Vec<usize>, Diagnostic> = columns
        .iter()
        .map(|column| {
            table.header.iter().position(|name| *name == column.name).ok_or_else(|| {
                let message = format!("the CSV of `{}` has no column `{}`", model.name, column.name);
                Diagnostic::error("missing-column", Location::file(table.path.as_str()), message)
                    .hint("correct the CSV's first line, or the model's `columns`")
            })
        })
        .collect();
    let order = order?;
    Ok(table.rows.into_iter().map(|row| order.iter().map(|index| row[*index].clone()).collect()).collect())
}

/// A seed's values, column by column.
///
/// # Errors
/// As [`rows`].
pub(crate) fn column_values(model: &Model) -> Result<BTreeMap<String, Vec<Option<String>>>, Diagnostic> {
    let rows = rows(model)?;
    let columns = columns(model).into_iter().enumerate();
    Ok(columns
        .map(|(index, column)| (column.name, rows.iter().map(|row| row[index].clone()).collect()))
        .collect())
}

/// A CSV's rows with the types that its values suggest.
pub(crate) struct TypedCsv {
    /// Names as written, with types as [`columns`] infers them.
    pub(crate) columns: Vec<(String, &'static str)>,
    /// Values in the order of the columns; absent: no value.
    pub(crate) rows: Vec<Vec<Option<String>>>,
}

/// Reads a CSV that belongs to no seed.
///
/// # Errors
/// Says what isn't CSV.
pub(crate) fn typed_csv(text: &str, csv_settings: &BTreeMap<String, String>) -> Result<TypedCsv, csv::Error> {
    let settings = Settings::of(csv_settings);
    let mut reader = settings.builder().from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let header: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    let mut rows = Vec::new();
    for record in reader.records() {
        let mut row: Vec<Option<String>> = record?.iter().map(|value| settings.value(value)).collect();
        row.resize(header.len(), None);
        rows.push(row);
    }
    let types = (0..header.len()).map(|column| infer(rows.iter().map(|row| row[column].as_deref())));
    let columns = header.iter().cloned().zip(types).collect();
    Ok(TypedCsv { columns, rows })
}

struct Table {
    path: String,
    header: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

impl Table {
    fn read(model: &Model) -> Result<Self, Diagnostic> {
        let (ModelSource::Seed(content), ModelKind::Seed(seed)) = (&model.source, &model.kind) else {
            let at = model.location.clone();
            return Err(Diagnostic::error("not-a-seed", at, format!("model `{}` is not a seed", model.name))
                .hint("ask only seeds for rows"));
        };
        let settings = Settings::of(&seed.csv_settings);
        let mut reader =
            settings.builder().from_reader(content.csv.trim_start_matches('\u{feff}').as_bytes());
        let failed = |error: &csv::Error| {
            let line = error.position().map_or(1, |position| position.line() as u32);
            let at = Location { path: content.path.as_str().into(), line, column: 1 };
            Diagnostic::error("invalid-csv", at, format!("the CSV can't be read: {error}"))
                .hint("each row needs as many values as the first line has columns")
        };
        let header = reader.headers().map_err(|error| failed(&error))?;
        let header: Vec<String> = header.iter().map(|name| model.dialect.normalize(name, false)).collect();
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|error| failed(&error))?;
            let mut row: Vec<Option<String>> = record.iter().map(|value| settings.value(value)).collect();
            // Short rows end in NULLs, as pandas reads them.
            if row.len() > header.len() {
                let line = record.position().map_or(1, |position| position.line() as u32);
                let at = Location { path: content.path.as_str().into(), line, column: 1 };
                let message =
                    format!("the row has {} values, the first line {} columns", row.len(), header.len());
                return Err(
                    Diagnostic::error("invalid-csv", at, message).hint("quote values that hold commas")
                );
            }
            row.resize(header.len(), None);
            rows.push(row);
        }
        Ok(Self { path: content.path.clone(), header, rows })
    }
}

/// `csv_settings`, understood.
struct Settings {
    delimiter: u8,
    quote: u8,
    double_quote: bool,
    escape: Option<u8>,
    skip_initial_space: bool,
    terminator: Option<u8>,
    no_value: Vec<String>,
}

impl Settings {
    fn of(csv_settings: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| csv_settings.get(key).map(|written| unescape(&content_of(written)));
        let byte = |key: &str| text(key).and_then(|text| text.bytes().next());
        let flag =
            |key: &str, default: bool| text(key).map_or(default, |text| text.eq_ignore_ascii_case("true"));
        let mut no_value =
            csv_settings.get("na_values").map(|written| strings_in(written)).unwrap_or_default();
        if flag("keep_default_na", true) {
            no_value.extend(NO_VALUE.iter().map(|text| (*text).to_owned()));
            no_value.push("n/a".to_owned());
        }
        Self {
            delimiter: byte("delimiter").unwrap_or(b','),
            quote: byte("quotechar").unwrap_or(b'"'),
            double_quote: flag("doublequote", true),
            escape: byte("escapechar"),
            skip_initial_space: flag("skipinitialspace", false),
            terminator: byte("lineterminator"),
            no_value,
        }
    }

    fn builder(&self) -> csv::ReaderBuilder {
        let mut builder = csv::ReaderBuilder::new();
        builder
            .delimiter(self.delimiter)
            .quote(self.quote)
            .double_quote(self.double_quote)
            .escape(self.escape)
            .flexible(true);
        if let Some(byte) = self.terminator {
            builder.terminator(csv::Terminator::Any(byte));
        }
        builder
    }

    fn value(&self, text: &str) -> Option<String> {
        let text = if self.skip_initial_space { text.trim_start_matches(' ') } else { text };
        (!self.no_value.iter().any(|none| none == text)).then(|| text.to_owned())
    }
}

/// The content of a value that may be a string.
fn content_of(written: &str) -> String {
    strings_in(written).into_iter().next().unwrap_or_else(|| written.to_owned())
}

/// The scalars in a value such as `('a', 'b')`.
fn strings_in(written: &str) -> Vec<String> {
    let tokens = tokenize(written, Dialect::DuckDb).unwrap_or_default().tokens;
    let scalars = tokens.iter().filter_map(|token| match token.kind {
        TokenKind::String | TokenKind::Quoted => Some(unquote(token.text(written), token.kind)),
        TokenKind::Number | TokenKind::Word => Some(token.text(written).to_owned()),
        _ => None,
    });
    scalars.collect()
}

fn unescape(text: &str) -> String {
    match text {
        "\\t" => "\t".to_owned(),
        "\\n" => "\n".to_owned(),
        "\\r" => "\r".to_owned(),
        "\\\\" => "\\".to_owned(),
        text => text.to_owned(),
    }
}

/// The type that a column's values suggest.
fn infer<'a>(values: impl Iterator<Item = Option<&'a str>>) -> &'static str {
    let (mut whole, mut number, mut flag, mut gaps, mut any) = (true, true, true, false, false);
    for value in values {
        let Some(value) = value else {
            gaps = true;
            continue;
        };
        any = true;
        let trimmed = value.trim();
        whole &= trimmed.parse::<i64>().is_ok();
        number &= trimmed.parse::<f64>().is_ok();
        flag &= matches!(value, "True" | "TRUE" | "true" | "False" | "FALSE" | "false");
    }
    match any {
        // pandas makes a column of nothing but gaps a float, and one without rows a text.
        false if gaps => "DOUBLE",
        false => "TEXT",
        true if whole && !gaps => "BIGINT",
        true if number => "DOUBLE",
        true if flag && !gaps => "BOOLEAN",
        true => "TEXT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_start_at_the_model_or_at_the_root() {
        for (model, written, expected) in [
            ("models/a/b.sql", "../../seeds/x.csv", Some("seeds/x.csv")),
            ("models/b.sql", "$root/seeds/x.csv", Some("seeds/x.csv")),
            ("models/b.sql", "./x.csv", Some("models/x.csv")),
            ("models/b.sql", "../../x.csv", Some("../x.csv")),
            ("models/b.sql", "../../../x.csv", Some("../../x.csv")),
            ("models/b.sql", "/x.csv", Some("/x.csv")),
            ("models/b.sql", "..", None),
        ] {
            assert_eq!(seed_path(model, written).as_deref(), expected, "{written}");
        }
    }

    #[test]
    fn types_are_inferred_as_pandas_does() {
        for (values, expected) in [
            (&[Some("1"), Some("-2")][..], "BIGINT"),
            (&[Some("1"), None], "DOUBLE"),
            (&[Some("1.5"), Some("2")], "DOUBLE"),
            (&[Some("true"), Some("False")], "BOOLEAN"),
            (&[Some("true"), None], "TEXT"),
            (&[Some("2024-01-01")], "TEXT"),
            (&[None], "DOUBLE"),
            (&[], "TEXT"),
        ] {
            assert_eq!(infer(values.iter().copied()), expected, "{values:?}");
        }
    }
}

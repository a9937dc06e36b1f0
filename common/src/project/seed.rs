//! Seeds: finding the CSV, its columns, its rows.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Location};

use super::SourceFile;
use super::csv_text::{self, Format};
use super::ddl::source::Source;
use super::ddl::token::{TokenKind, tokenize};
use super::ddl::value::{Value, unquote};
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
pub(crate) fn typed_csv(text: &str, csv_settings: &BTreeMap<String, String>) -> Result<TypedCsv, String> {
    let settings = Settings::of(csv_settings);
    let all = csv_text::rows(text.trim_start_matches('\u{feff}'), &settings.format)
        .map_err(|line| format!("the quote of a value is never closed (line {line})"))?;
    let mut all = all.into_iter().map(|(_, values)| values);
    let header = all.next().unwrap_or_default();
    let mut rows = Vec::with_capacity(all.len());
    for values in all {
        let named = header.iter().zip(values);
        let mut row: Vec<Option<String>> = named.map(|(name, value)| settings.value(name, value)).collect();
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
        let invalid = |line: u32, message: String, hint: &str| {
            let at = Location { path: content.path.as_str().into(), line, column: 1 };
            Diagnostic::error("invalid-csv", at, message).hint(hint)
        };
        let all =
            csv_text::rows(content.csv.trim_start_matches('\u{feff}'), &settings.format).map_err(|line| {
                invalid(line, "the quote of a value is never closed".to_owned(), "close it, or double it")
            })?;
        let mut all = all.into_iter();
        let header = header(all.next().map(|(_, names)| names).unwrap_or_default(), model.dialect);
        // The first row may be longer than the first line, and no later row longer than both: what
        // stands beyond the last column is left out, as pandas reads it.
        let mut most = None;
        let mut rows = Vec::with_capacity(all.len());
        for (line, values) in all {
            let most = *most.get_or_insert(values.len().max(header.len()));
            if values.len() > most {
                let message = format!("the row has {} values, those before it {most}", values.len());
                return Err(invalid(line, message, "quote values that hold the delimiter"));
            }
            let named = header.iter().zip(values);
            let mut row: Vec<Option<String>> =
                named.map(|(name, value)| settings.value(name, value)).collect();
            // Short rows end in NULLs.
            row.resize(header.len(), None);
            rows.push(row);
        }
        Ok(Self { path: content.path.clone(), header, rows })
    }
}

/// The columns that the first line names; of two with the same name the second gets a number.
fn header(names: Vec<String>, dialect: Dialect) -> Vec<String> {
    let mut found: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let name = dialect.normalize(name.trim(), false);
        let numbered = (1..).map(|number| format!("{name}.{number}"));
        let unused = std::iter::once(name.clone()).chain(numbered).find(|name| !found.contains(name));
        found.push(unused.unwrap_or(name));
    }
    found
}

/// `csv_settings`, understood.
struct Settings {
    format: Format,
    /// Texts that are no value.
    no_value: Vec<String>,
    /// The same for single columns, by their names as the settings write them.
    no_value_of: BTreeMap<String, Vec<String>>,
}

impl Settings {
    fn of(csv_settings: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| csv_settings.get(key).map(|written| unescape(&content_of(written)));
        let mark = |key: &str| one_character(csv_settings.get(key)?).ok();
        let flag =
            |key: &str, default: bool| text(key).map_or(default, |text| text.eq_ignore_ascii_case("true"));
        let format = Format {
            delimiter: mark("delimiter").unwrap_or(','),
            quote: mark("quotechar").unwrap_or('"'),
            double_quote: flag("doublequote", true),
            escape: mark("escapechar"),
            skip_initial_space: flag("skipinitialspace", false),
            terminator: mark("lineterminator"),
        };
        let written = csv_settings.get("na_values").map(String::as_str).unwrap_or_default();
        let no_value_of = by_column(written);
        let mut no_value =
            if no_value_of.is_empty() { with_numbers(strings_in(written)) } else { Vec::new() };
        if flag("keep_default_na", true) {
            no_value.extend(NO_VALUE.iter().map(|text| (*text).to_owned()));
            no_value.push("n/a".to_owned());
        }
        Self { format, no_value, no_value_of }
    }

    fn value(&self, column: &str, text: String) -> Option<String> {
        let own = self.no_value_of.iter().find(|(name, _)| name.eq_ignore_ascii_case(column));
        let mut none = self.no_value.iter().chain(own.into_iter().flat_map(|(_, texts)| texts));
        if none.any(|none| *none == text) { None } else { Some(text) }
    }
}

/// Texts that are no value, column by column: `(a = ('x', 'y'), b = ('z'))`. Empty where it is a list.
fn by_column(written: &str) -> BTreeMap<String, Vec<String>> {
    let source = Source::new("".into(), written.into());
    let tokens = tokenize(written, Dialect::DuckDb).unwrap_or_default().tokens;
    let value = Value { source: &source, tokens: &tokens, fallback: 0 };
    let pairs = value.elements().into_iter().filter_map(|element| {
        let (column, texts) = element.assignment()?;
        Some((column.scalar()?, with_numbers(strings_in(texts.text()))))
    });
    pairs.collect()
}

/// Numbers are no values however they are written: `99` stands for `99.0`, too.
fn with_numbers(texts: Vec<String>) -> Vec<String> {
    let whole = |text: &str| text.parse::<f64>().ok().filter(|number| number.fract() == 0.0);
    let numbers: Vec<String> = texts
        .iter()
        .filter_map(|text| whole(text))
        .flat_map(|number| [format!("{number:.1}"), format!("{number:.0}")])
        .collect();
    texts.into_iter().chain(numbers).collect()
}

/// The one character that a setting is; the text where it is none or several.
pub(crate) fn one_character(written: &str) -> Result<char, String> {
    let text = unescape(&content_of(written));
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(text),
    }
}

/// The content of a value that may be a string.
fn content_of(written: &str) -> String {
    strings_in(written).into_iter().next().unwrap_or_else(|| written.to_owned())
}

/// The scalars in a value such as `('a', 'b', -1)`.
fn strings_in(written: &str) -> Vec<String> {
    let tokens = tokenize(written, Dialect::DuckDb).unwrap_or_default().tokens;
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::String | TokenKind::Quoted => found.push(unquote(token.text(written), token.kind)),
            TokenKind::Number if index > 0 && tokens[index - 1].is('-') => {
                found.push(format!("-{}", token.text(written)));
            }
            TokenKind::Number | TokenKind::Word => found.push(token.text(written).to_owned()),
            _ => {}
        }
    }
    found
}

fn unescape(text: &str) -> String {
    match text {
        "\\a" => "\u{7}".to_owned(),
        "\\b" => "\u{8}".to_owned(),
        "\\f" => "\u{c}".to_owned(),
        "\\v" => "\u{b}".to_owned(),
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

    /// A seed's columns with their types, and its rows.
    fn table(csv: &str, settings: &str) -> Result<String, String> {
        let kind = match settings {
            "" => "SEED (path '../seeds/s.csv')".to_owned(),
            settings => format!("SEED (path '../seeds/s.csv', csv_settings ({settings}))"),
        };
        let file = |path: &str, text: &str| SourceFile { path: path.into(), text: text.into() };
        let config = "gateways: {g: {connection: {type: duckdb}}}\nmodel_defaults: {dialect: duckdb}\n";
        let files = [
            file("config.yaml", config),
            file("models/s.sql", &format!("MODEL (name m.s, kind {kind});")),
            file("seeds/s.csv", csv),
        ];
        let input = crate::project::ProjectInput { files: &files, env: &BTreeMap::new(), gateway: None };
        let (project, findings) = crate::project::load(&input);
        if let Some(error) = findings.into_iter().find(Diagnostic::is_error) {
            return Err(error.message);
        }
        let model = &project.models[0];
        let types = columns(model).into_iter().map(|column| format!("{} {}", column.name, column.data_type));
        let cell = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "-".to_owned());
        let lines = rows(model).map_err(|error| error.message)?;
        let lines = lines.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join("|"));
        Ok([types.collect::<Vec<_>>().join(", ")].into_iter().chain(lines).collect::<Vec<_>>().join(" / "))
    }

    /// What SQLMesh makes of the same files.
    const SQLMESHS: &[(&str, &str, &str)] = &[
        ("a,b\n1,x\n2,y\n", "", "a BIGINT, b TEXT / 1|x / 2|y"),
        ("a;b\n1;x,y\n2;z\n", "delimiter = ';'", "a BIGINT, b TEXT / 1|x,y / 2|z"),
        ("a\tb\n1\tx\n", "delimiter = '\\t'", "a BIGINT, b TEXT / 1|x"),
        ("a,b\n1,'x,y'\n2,\"z\"\n", "quotechar = ''''", "a BIGINT, b TEXT / 1|x,y / 2|\"z\""),
        ("a,b\n1,\"x\"\"y\"\n", "doublequote = false", "a BIGINT, b TEXT / 1|x\"y\""),
        (
            "a,b\n1,\"x\\\"y\"\n2,\"p\\,q\"\n",
            "doublequote = false, escapechar = '\\'",
            "a BIGINT, b TEXT / 1|x\"y / 2|p,q",
        ),
        ("a,b\n1,x\\,y\n", "escapechar = '\\'", "a BIGINT, b TEXT / 1|x,y"),
        ("a, b\n1, x\n2,  y \n", "skipinitialspace = true", "a BIGINT, b TEXT / 1|x / 2|y "),
        ("a, b\n1, x\n2,  y \n", "", "a BIGINT, b TEXT / 1| x / 2|  y "),
        ("a, b\n1, \"x,y\"\n", "skipinitialspace = true", "a BIGINT, b TEXT / 1|x,y"),
        ("a,b\n1, NA\n2, x\n", "skipinitialspace = true", "a BIGINT, b TEXT / 1|- / 2|x"),
        ("a,b;1,x;2,y;", "lineterminator = ';'", "a BIGINT, b TEXT / 1|x / 2|y"),
        ("a,b~1,x\n~2,y~", "lineterminator = '~'", "a BIGINT, b TEXT / 1|x\n / 2|y"),
        ("a,b\r1,x\r2,y\r", "", "a BIGINT, b TEXT / 1|x / 2|y"),
        ("\u{feff}a,b\n1,é\n", "encoding = 'utf-8-sig'", "a BIGINT, b TEXT / 1|é"),
        (
            "a,b\n1,NA\n2,na\n3,n/a\n4,Null\n5,<NA>\n",
            "",
            "a BIGINT, b TEXT / 1|- / 2|na / 3|- / 4|Null / 5|-",
        ),
        (
            "a,b\n1,x\n2,MISSING\n-1,y\n4,NA\n",
            "na_values = ('MISSING', '-1')",
            "a DOUBLE, b TEXT / 1|x / 2|- / -|y / 4|-",
        ),
        ("a,b\n1,x\n-1,y\n-1.0,z\n", "na_values = [-1]", "a DOUBLE, b TEXT / 1|x / -|y / -|z"),
        (
            "a,b\n1,x\n2,y\nx,1\n",
            "na_values = (a = ('x'), b = ('y', 'z'))",
            "a DOUBLE, b TEXT / 1|x / 2|- / -|1",
        ),
        ("a,b\n1,NA\n2,\n3,null\n", "keep_default_na = false", "a BIGINT, b TEXT / 1|NA / 2| / 3|null"),
        (
            "a,b\n1,NA\n2,\n3,null\n",
            "keep_default_na = false, na_values = ('NA')",
            "a BIGINT, b TEXT / 1|- / 2| / 3|null",
        ),
        ("a,b\n1,2\n,3\n", "keep_default_na = false", "a TEXT, b BIGINT / 1|2 / |3"),
        ("a,b\n1,x\n\n2,y\n\n", "", "a BIGINT, b TEXT / 1|x / 2|y"),
        ("a,b,c\n1,x\n2,y,z\n", "", "a BIGINT, b TEXT, c TEXT / 1|x|- / 2|y|z"),
        ("a,b\n1,x,z\n2,y\n", "", "a BIGINT, b TEXT / 1|x / 2|y"),
        ("a,a\n1,x\n", "", "a BIGINT, a.1 TEXT / 1|x"),
        ("A,Bb\n1,x\n", "", "a BIGINT, bb TEXT / 1|x"),
        ("a,b\n1,true\n2,\n", "", "a BIGINT, b TEXT / 1|true / 2|-"),
        ("a,b\n", "", "a TEXT, b TEXT"),
        (
            "a;b| 1;'x^'y'| 2;NIL|",
            "delimiter = ';', quotechar = '''', escapechar = '^', doublequote = false, \
             skipinitialspace = true, lineterminator = '|', na_values = ('NIL'), keep_default_na = false, \
             encoding = 'utf-8'",
            "a BIGINT, b TEXT / 1|x'y / 2|-",
        ),
    ];

    #[test]
    fn tables_are_those_that_sqlmesh_makes() {
        for (csv, settings, expected) in SQLMESHS {
            assert_eq!(table(csv, settings).as_deref(), Ok(*expected), "{csv:?} {settings}");
        }
    }

    #[test]
    fn what_sqlmesh_refuses_is_refused() {
        for (csv, settings, expected) in [
            ("a,b\n1,x\n2,y,z\n", "", "the row has 3 values, those before it 2"),
            ("a,b\n1,\"x\n", "", "the quote of a value is never closed"),
            (
                "a||b\n1||x\n",
                "delimiter = '||'",
                "`delimiter` in csv_settings must be one character, found `||`",
            ),
            ("a,b\n1,x\n", "delim = ','", "csv_settings has no `delim`"),
        ] {
            assert_eq!(table(csv, settings), Err(expected.to_owned()), "{csv:?} {settings}");
        }
    }

    /// SQLMesh lets pandas guess the type first, and writes `1`, `2.5` and `True`.
    #[test]
    fn text_columns_keep_the_files_text() {
        let columns = "columns (zip TEXT, price TEXT, flag TEXT)";
        let file = |path: &str, text: &str| SourceFile { path: path.into(), text: text.into() };
        let files = [
            file("config.yaml", "gateways: {g: {connection: {type: duckdb}}}\n"),
            file("models/s.sql", &format!("MODEL (name m.s, kind SEED (path '../seeds/s.csv'), {columns});")),
            file("seeds/s.csv", "zip,price,flag\n01067,2.50,true\n"),
        ];
        let input = crate::project::ProjectInput { files: &files, env: &BTreeMap::new(), gateway: None };
        let (project, _) = crate::project::load(&input);
        let row = ["01067", "2.50", "true"].map(|text| Some(text.to_owned()));
        assert_eq!(rows(&project.models[0]), Ok(vec![row.to_vec()]));
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

//! Macro functions that write whole queries: `@UNION`, `@DEDUPLICATE`, `@DATE_SPINE`.

use std::collections::BTreeSet;

use super::call::Arguments;
use super::condition::{self, Computed};
use super::expand::Expander;
use super::lex;
use super::lookup::write_name;
use crate::project::render::RenderError;
use crate::sql::Dialect;

impl Expander<'_> {
    pub(super) fn union(&mut self, given: &Arguments, place: usize) -> Result<String, RenderError> {
        let dialect = self.context.dialect;
        let mut rest = given.positional.as_slice();
        let mut both = true;
        if let Some(first) = rest.first()
            && lex::name_parts(first, dialect).is_none_or(|parts| is_truth_value(&parts))
            && let Ok(Computed::Bool(value)) = condition::compute(first, dialect)
        {
            both = value;
            rest = &rest[1..];
        }
        let mut joiner = " UNION ALL ";
        if let Some(kind) = rest.first().and_then(|first| lex::string_literal(first, dialect)) {
            joiner = match kind.to_ascii_lowercase().as_str() {
                "all" => " UNION ALL ",
                "distinct" if dialect == Dialect::BigQuery => " UNION DISTINCT ",
                "distinct" => " UNION ",
                _ => return Err(self.wrong(place, "@UNION's type is 'all' or 'distinct'")),
            };
            rest = &rest[1..];
        }
        let Some(first) = rest.first() else {
            return Err(self.wrong(place, "@UNION wants at least one relation"));
        };
        let mut common: Option<BTreeSet<(String, String)>> = None;
        for relation in rest {
            let (_, columns) = self.columns(relation, place)?;
            let these: BTreeSet<(String, String)> =
                columns.iter().map(|c| (c.name.clone(), c.data_type.to_ascii_lowercase())).collect();
            common = Some(match common {
                None => these,
                Some(before) => before.intersection(&these).cloned().collect(),
            });
        }
        let common = common.unwrap_or_default();
        let (_, columns) = self.columns(first, place)?;
        let projections: Vec<String> = columns
            .iter()
            .filter(|c| common.contains(&(c.name.clone(), c.data_type.to_ascii_lowercase())))
            .map(|c| {
                let name = write_name(&c.name, dialect);
                format!("CAST({name} AS {}) AS {name}", c.data_type)
            })
            .collect();
        let projections = projections.join(", ");
        let relations = if both { rest } else { &rest[..1] };
        let selects: Vec<String> =
            relations.iter().map(|relation| format!("SELECT {projections} FROM {relation}")).collect();
        Ok(selects.join(joiner))
    }

    pub(super) fn deduplicate(&mut self, given: &Arguments, place: usize) -> Result<String, RenderError> {
        let dialect = self.context.dialect;
        let list = |position, name| given.get(position, name).and_then(|sql| lex::items(sql, dialect));
        let (Some(relation), Some(keys), Some(order)) =
            (given.get(0, "relation"), list(1, "partition_by"), list(2, "order_by"))
        else {
            return Err(self.wrong(
                place,
                "@DEDUPLICATE wants a relation, a list of columns and a list of orders such as ['ts desc']",
            ));
        };
        if order.is_empty() {
            return Err(self.wrong(place, "@DEDUPLICATE wants at least one order such as 'ts desc'"));
        }
        let mut orders = Vec::new();
        for item in order {
            let sql = lex::string_literal(item, dialect).unwrap_or_else(|| item.to_owned());
            orders.push(self.expand(&sql)?);
        }
        let window =
            format!("ROW_NUMBER() OVER (PARTITION BY {} ORDER BY {})", keys.join(", "), orders.join(", "));
        Ok(match dialect {
            Dialect::Postgres
            | Dialect::MySql
            | Dialect::TSql
            | Dialect::Fabric
            | Dialect::Sqlite
            | Dialect::Spark
            | Dialect::Trino => {
                format!("SELECT * FROM (SELECT *, {window} AS _w FROM {relation}) AS _t WHERE _w = 1")
            }
            _ => format!("SELECT * FROM {relation} QUALIFY {window} = 1"),
        })
    }

    pub(super) fn date_spine(&mut self, given: &Arguments, place: usize) -> Result<String, RenderError> {
        let dialect = self.context.dialect;
        let (Some(part), Some(start), Some(end)) =
            (given.get(0, "datepart"), given.get(1, "start_date"), given.get(2, "end_date"))
        else {
            return Err(self.wrong(place, "@DATE_SPINE wants a unit, a start and an end"));
        };
        let part = lex::string_literal(part, dialect).unwrap_or_else(|| part.to_owned()).to_lowercase();
        if !["day", "week", "month", "quarter", "year"].contains(&part.as_str()) {
            return Err(
                self.wrong(place, "@DATE_SPINE's unit is 'day', 'week', 'month', 'quarter' or 'year'")
            );
        }
        let (start, end) = match (lex::string_literal(start, dialect), lex::string_literal(end, dialect)) {
            (Some(first), Some(last)) => {
                let is_date = |text: &str| chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
                match (is_date(&first), is_date(&last)) {
                    (Some(a), Some(b)) if a <= b => {}
                    (Some(_), Some(_)) => {
                        return Err(self.wrong(place, "@DATE_SPINE's start is after its end"));
                    }
                    _ => return Err(self.wrong(place, "@DATE_SPINE's dates are written YYYY-MM-DD")),
                }
                let date = |text: &str| match dialect {
                    Dialect::Sqlite => format!("DATE({text})"),
                    Dialect::ClickHouse => format!("CAST({text} AS Nullable(DATE))"),
                    _ => format!("CAST({text} AS DATE)"),
                };
                (date(start), date(end))
            }
            _ => (start.to_owned(), end.to_owned()),
        };
        Ok(spine(&part, &start, &end, dialect))
    }
}

fn is_truth_value(parts: &[(String, bool)]) -> bool {
    matches!(parts, [(word, false)] if word.eq_ignore_ascii_case("true") || word.eq_ignore_ascii_case("false"))
}

/// A query of all dates from `start` to `end` in steps of a unit.
fn spine(part: &str, start: &str, end: &str, dialect: Dialect) -> String {
    let unit = part.to_uppercase();
    let column = format!("date_{part}");
    let (count, step) = if part == "quarter" { (3, "MONTH") } else { (1, unit.as_str()) };
    match dialect {
        Dialect::DuckDb => format!(
            "SELECT {column} FROM UNNEST(CAST(GENERATE_SERIES({start}, {end}, INTERVAL '1' {unit}) AS DATE[])) \
             AS _exploded({column})"
        ),
        Dialect::Postgres => format!(
            "SELECT {column} FROM (SELECT CAST(value AS DATE) FROM GENERATE_SERIES({start}, {end}, \
             INTERVAL '{count} {step}') AS _t(value)) AS _exploded({column})"
        ),
        Dialect::BigQuery => {
            format!(
                "SELECT {column} FROM UNNEST(GENERATE_DATE_ARRAY({start}, {end}, INTERVAL '1' {unit})) AS {column}"
            )
        }
        Dialect::Snowflake => format!(
            "SELECT {column} FROM (SELECT DATEADD({unit}, CAST({column} AS INT), {start}) AS {column} FROM \
             TABLE(FLATTEN(INPUT => ARRAY_GENERATE_RANGE(0, DATEDIFF({unit}, {start}, {end}) + 1))) \
             AS _exploded(seq, key, path, index, {column}, this)) AS _exploded({column})"
        ),
        Dialect::Databricks | Dialect::Spark => format!(
            "SELECT {column} FROM EXPLODE(SEQUENCE({start}, {end}, INTERVAL '{count}' {step})) AS _exploded({column})"
        ),
        Dialect::Trino => format!(
            "SELECT {column} FROM UNNEST(SEQUENCE({start}, {end}, INTERVAL '{count}' {step})) AS _exploded({column})"
        ),
        Dialect::Redshift | Dialect::MySql | Dialect::TSql | Dialect::Fabric => {
            let next = if dialect == Dialect::MySql {
                format!("CAST(DATE_ADD({column}, INTERVAL '1' {unit}) AS DATE)")
            } else {
                format!("CAST(DATEADD({unit}, 1, {column}) AS DATE)")
            };
            let (recursive, inner) = if dialect.is_tsql() {
                ("", format!("{column} AS {column}"))
            } else {
                ("RECURSIVE ", column.clone())
            };
            format!(
                "WITH {recursive}_generated_dates({column}) AS (SELECT {start} AS {column} UNION ALL SELECT {next} \
                 FROM _generated_dates WHERE {next} <= {end}) SELECT {column} FROM (SELECT {inner} FROM \
                 _generated_dates) AS _generated_dates"
            )
        }
        Dialect::Sqlite => format!(
            "WITH RECURSIVE _generated_dates({column}) AS (SELECT {start} UNION ALL SELECT DATE({column}, \
             '{}') FROM _generated_dates WHERE DATE({column}, '{}') <= {end}) SELECT {column} FROM _generated_dates",
            sqlite_step(part),
            sqlite_step(part)
        ),
        Dialect::Generic | Dialect::ClickHouse => format!(
            "SELECT {column} FROM UNNEST(GENERATE_DATE_ARRAY({start}, {end}, INTERVAL '1' {unit})) AS _exploded({column})"
        ),
    }
}

fn sqlite_step(part: &str) -> &'static str {
    match part {
        "day" => "+1 day",
        "week" => "+7 days",
        "month" => "+1 month",
        "quarter" => "+3 months",
        _ => "+1 year",
    }
}

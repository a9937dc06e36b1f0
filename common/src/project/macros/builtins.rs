//! Macro functions that write expressions and projections.

use std::sync::LazyLock;

use super::call::{Arguments, Outcome};
use super::expand::Expander;
use super::lex;
use super::lookup::{quote_text, write_name};
use crate::id::ModelName;
use crate::project::model::ColumnDef;
use crate::project::render::{RenderError, Stage, UNAVAILABLE_COLUMN, relation_name};
use crate::sql::Dialect;

/// Stands for NULL in surrogate keys; SQLMesh's own text, so that keys stay equal.
const NULL_KEY: &str = "'_sqlmesh_surrogate_key_null_'";

/// What stands for the columns of a relation while the project loads and they aren't known.
static UNAVAILABLE: LazyLock<Vec<ColumnDef>> =
    LazyLock::new(|| vec![ColumnDef { name: UNAVAILABLE_COLUMN.to_owned(), data_type: String::new() }]);

impl Expander<'_> {
    /// A function with expanded arguments; nothing where we have none of this name.
    pub(super) fn builtin(
        &mut self,
        name: &str,
        given: &Arguments,
        place: usize,
    ) -> Result<Option<Outcome>, RenderError> {
        let dialect = self.context.dialect;
        Ok(Some(match name {
            "and" | "or" => Outcome::Sql(connect(name, given, dialect)),
            "safe_add" => Outcome::Sql(self.safe(given, " + ", place)?),
            "safe_sub" => Outcome::Sql(self.safe(given, " - ", place)?),
            "safe_div" => {
                let (Some(numerator), Some(denominator)) =
                    (given.get(0, "numerator"), given.get(1, "denominator"))
                else {
                    return Err(self.wrong(place, "@SAFE_DIV wants a numerator and a denominator"));
                };
                Outcome::Sql(format!("{} / NULLIF({denominator}, 0)", operand(numerator, dialect)))
            }
            "generate_surrogate_key" => Outcome::Sql(self.surrogate_key(given, place)?),
            "haversine_distance" => Outcome::Sql(self.haversine(given, place)?),
            "star" => Outcome::List(self.star(given, place)?),
            "union" => Outcome::Sql(self.union(given, place)?),
            "pivot" => Outcome::List(self.pivot(given, place)?),
            "deduplicate" => Outcome::Sql(self.deduplicate(given, place)?),
            "date_spine" => Outcome::Sql(self.date_spine(given, place)?),
            "__matches" => Outcome::Sql(self.matches(given, place)?),
            "resolve_template" => Outcome::Sql(self.resolve_template(given, place)?),
            _ => return Ok(None),
        }))
    }

    fn safe(&self, given: &Arguments, sign: &str, place: usize) -> Result<String, RenderError> {
        if given.positional.is_empty() {
            return Err(self.wrong(place, "the macro wants at least one expression"));
        }
        let dialect = self.context.dialect;
        let nulls: Vec<String> =
            given.positional.iter().map(|field| format!("{} IS NULL", operand(field, dialect))).collect();
        let values: Vec<String> =
            given.positional.iter().map(|field| format!("COALESCE({field}, 0)")).collect();
        Ok(format!("CASE WHEN {} THEN NULL ELSE {} END", nulls.join(" AND "), values.join(sign)))
    }

    /// Whether a text has a match of a regular expression: what built-in audits ask in any dialect.
    fn matches(&self, given: &Arguments, place: usize) -> Result<String, RenderError> {
        let [text, pattern] = given.positional.as_slice() else {
            return Err(self.wrong(place, "the macro wants a text and a pattern"));
        };
        let text = operand(text, self.context.dialect);
        Ok(match self.context.dialect {
            Dialect::DuckDb => format!("REGEXP_MATCHES({text}, {pattern})"),
            Dialect::Postgres | Dialect::Redshift => format!("({text} ~ {pattern})"),
            Dialect::BigQuery => format!("REGEXP_CONTAINS({text}, {pattern})"),
            Dialect::Snowflake => format!("(REGEXP_INSTR({text}, {pattern}) > 0)"),
            Dialect::Spark | Dialect::Databricks => format!("({text} RLIKE {pattern})"),
            Dialect::ClickHouse => format!("match({text}, {pattern})"),
            Dialect::Sqlite => format!("({text} REGEXP {pattern})"),
            Dialect::Generic | Dialect::MySql | Dialect::TSql | Dialect::Fabric | Dialect::Trino => {
                format!("REGEXP_LIKE({text}, {pattern})")
            }
        })
    }

    fn surrogate_key(&self, given: &Arguments, place: usize) -> Result<String, RenderError> {
        let dialect = self.context.dialect;
        if given.positional.is_empty() {
            return Err(self.wrong(place, "@GENERATE_SURROGATE_KEY wants at least one column"));
        }
        let text_type = match dialect {
            Dialect::BigQuery | Dialect::Databricks | Dialect::Spark => "STRING",
            Dialect::Snowflake | Dialect::Trino => "VARCHAR",
            Dialect::TSql | Dialect::Fabric | Dialect::Redshift => "VARCHAR(MAX)",
            Dialect::ClickHouse => "Nullable(String)",
            Dialect::MySql => "CHAR",
            Dialect::Generic | Dialect::DuckDb | Dialect::Postgres | Dialect::Sqlite => "TEXT",
        };
        let fields: Vec<String> = given
            .positional
            .iter()
            .map(|field| format!("COALESCE(CAST({field} AS {text_type}), {NULL_KEY})"))
            .collect();
        let joined = match dialect {
            Dialect::DuckDb | Dialect::Postgres | Dialect::Redshift | Dialect::Sqlite => {
                fields.join(" || '|' || ")
            }
            Dialect::TSql | Dialect::Fabric => fields.join(" + '|' + "),
            _ => format!("CONCAT({})", fields.join(", '|', ")),
        };
        let function = given.named.get("hash_function").map_or_else(
            || "MD5".to_owned(),
            |text| lex::string_literal(text, dialect).unwrap_or_else(|| text.clone()),
        );
        Ok(match (dialect, function.to_ascii_uppercase().as_str()) {
            (Dialect::BigQuery, "MD5") => format!("TO_HEX(MD5({joined}))"),
            (Dialect::TSql | Dialect::Fabric, "MD5") => format!("HASHBYTES('MD5', {joined})"),
            (Dialect::ClickHouse, "MD5") => format!("LOWER(HEX(MD5({joined})))"),
            (Dialect::Trino, name @ ("MD5" | "SHA256" | "SHA512")) => {
                format!("LOWER(TO_HEX({name}(TO_UTF8({joined}))))")
            }
            (Dialect::Redshift, "SHA256") => format!("SHA2({joined}, 256)"),
            (Dialect::Redshift, "SHA512") => format!("SHA2({joined}, 512)"),
            (_, name) => format!("{name}({joined})"),
        })
    }

    fn haversine(&self, given: &Arguments, place: usize) -> Result<String, RenderError> {
        let dialect = self.context.dialect;
        let coordinate = |position, name| given.get(position, name).map(|sql| (sql, operand(sql, dialect)));
        let all =
            (coordinate(0, "lat1"), coordinate(1, "lon1"), coordinate(2, "lat2"), coordinate(3, "lon2"));
        let (Some((lat1, lat1_op)), Some((_, lon1)), Some((lat2, lat2_op)), Some((_, lon2))) = all else {
            return Err(self.wrong(place, "@HAVERSINE_DISTANCE wants two latitudes and longitudes"));
        };
        let rate = match given.get(4, "unit").map(|unit| lex::string_literal(unit, dialect)) {
            None => "1.0",
            Some(Some(unit)) if unit == "mi" => "1.0",
            Some(Some(unit)) if unit == "km" => "1.60934",
            _ => return Err(self.wrong(place, "@HAVERSINE_DISTANCE's unit is 'mi' or 'km'")),
        };
        Ok(format!(
            "7922 * ASIN(SQRT((POWER(SIN(RADIANS(({lat2_op} - {lat1_op}) / 2)), 2)) + (COS(RADIANS({lat1})) * \
             COS(RADIANS({lat2})) * POWER(SIN(RADIANS(({lon2} - {lon1}) / 2)), 2)))) * {rate}"
        ))
    }

    /// The columns of a relation that `@STAR` and `@UNION` ask for.
    pub(super) fn columns(
        &self,
        relation: &str,
        place: usize,
    ) -> Result<(ModelName, &[ColumnDef]), RenderError> {
        let env = self.context.env;
        let name = relation_name(relation, self.context.dialect, env.default_catalog.as_deref())
            .ok_or_else(|| self.wrong(place, &format!("`{relation}` is not the name of a relation")))?;
        match env.schemas.get(&name) {
            Some(columns) => Ok((name, columns)),
            // The project can be read without them; a batch can't be computed.
            None if self.context.stage == Stage::Loading => Ok((name, UNAVAILABLE.as_slice())),
            None => Err(self.error(
                place,
                "unknown-columns",
                format!("the columns of `{name}` are not known while rendering"),
                Some(format!("declare `columns` in the model `{name}`, or list them here")),
            )),
        }
    }

    fn star(&self, given: &Arguments, place: usize) -> Result<Vec<String>, RenderError> {
        let dialect = self.context.dialect;
        let Some(relation) = given.get(0, "relation") else {
            return Err(self.wrong(place, "@STAR wants a relation"));
        };
        let (name, columns) = self.columns(relation, place)?;
        let table = match given.get(1, "alias") {
            None => name.table().to_owned(),
            Some(alias) => match lex::name_parts(alias, dialect).as_deref() {
                Some([(alias, quoted)]) => dialect.normalize(alias, *quoted),
                _ => return Err(self.wrong(place, &format!("`{alias}` is not an alias"))),
            },
        };
        let excluded = match given.get(2, "exclude").or_else(|| given.get(6, "except_")) {
            None => Vec::new(),
            Some(list) => self.excluded(list, place)?,
        };
        let text = |position, name| {
            given.get(position, name).map_or_else(String::new, |sql| {
                lex::string_literal(sql, dialect).unwrap_or_else(|| sql.to_owned())
            })
        };
        let (prefix, suffix) = (text(3, "prefix"), text(4, "suffix"));
        let quoted = given.get(5, "quote_identifiers").is_none_or(|sql| !sql.eq_ignore_ascii_case("false"));
        let write = |name: &str| if quoted { dialect.quote(name) } else { write_name(name, dialect) };
        let typed = columns.iter().all(is_typed);
        Ok(columns
            .iter()
            .filter(|column| !excluded.contains(&column.name))
            .map(|column| {
                let source = format!("{}.{}", write(&table), write(&column.name));
                let alias = write(&format!("{prefix}{}{suffix}", column.name));
                if typed {
                    format!("CAST({source} AS {}) AS {alias}", column.data_type)
                } else {
                    format!("{source} AS {alias}")
                }
            })
            .collect())
    }

    fn excluded(&self, list: &str, place: usize) -> Result<Vec<String>, RenderError> {
        let dialect = self.context.dialect;
        let Some(items) = lex::items(list, dialect) else {
            return Err(self.wrong(place, "@STAR's exclude is a list such as [a, b]"));
        };
        Ok(items
            .into_iter()
            .map(|item| match lex::name_parts(item, dialect).as_deref() {
                Some([(name, quoted)]) => dialect.normalize(name, *quoted),
                _ => lex::string_literal(item, dialect).unwrap_or_else(|| item.to_owned()),
            })
            .collect())
    }

    fn pivot(&self, given: &Arguments, place: usize) -> Result<Vec<String>, RenderError> {
        let dialect = self.context.dialect;
        let values = given.get(1, "values").and_then(|list| lex::items(list, dialect));
        let (Some(column), Some(values)) = (given.get(0, "column"), values) else {
            return Err(self.wrong(place, "@PIVOT wants a column and a list of values"));
        };
        let text = |position, name, default: &str| {
            given.get(position, name).map_or_else(
                || default.to_owned(),
                |sql| {
                    lex::string_literal(sql, dialect)
                        .or_else(|| lex::single_name(sql, dialect))
                        .unwrap_or_else(|| sql.to_owned())
                },
            )
        };
        let flag = |position, name, default| {
            given.get(position, name).map_or(default, |sql: &str| sql.eq_ignore_ascii_case("true"))
        };
        let (aggregate, sign) = (text(3, "agg", "SUM"), text(4, "cmp", "="));
        let (prefix, suffix) = (text(5, "prefix", ""), text(6, "suffix", ""));
        let then_value = given.get(7, "then_value").unwrap_or("1");
        let else_value = given.get(8, "else_value").unwrap_or("0");
        let distinct = if flag(10, "distinct", false) { "DISTINCT " } else { "" };
        Ok(values
            .into_iter()
            .map(|value| {
                let call = format!(
                    "{aggregate}({distinct}CASE WHEN {column} {sign} {value} THEN {then_value} ELSE {else_value} END)"
                );
                if !flag(2, "alias", true) {
                    return call;
                }
                let name = lex::string_literal(value, dialect).unwrap_or_else(|| value.to_owned());
                let alias = format!("{prefix}{name}{suffix}");
                let alias =
                    if flag(9, "quote", true) { dialect.quote(&alias) } else { write_name(&alias, dialect) };
                format!("{call} AS {alias}")
            })
            .collect())
    }

    fn resolve_template(&self, given: &Arguments, place: usize) -> Result<String, RenderError> {
        let dialect = self.context.dialect;
        let Some(literal) = given.get(0, "template") else {
            return Err(self.wrong(place, "@RESOLVE_TEMPLATE wants a text"));
        };
        let template = lex::string_literal(literal, dialect).unwrap_or_else(|| literal.to_owned());
        let Some(this_model) = self.context.this_model else {
            return if self.context.stage == Stage::Loading {
                Ok(literal.to_owned())
            } else {
                Err(self.undefined("this_model", place))
            };
        };
        let parts = table_parts(this_model, dialect);
        let part = |from_end: usize| parts.len().checked_sub(from_end).map_or("", |i| parts[i].as_str());
        let filled = template
            .replace("@{catalog_name}", part(3))
            .replace("@{schema_name}", part(2))
            .replace("@{table_name}", part(1));
        let mode = given
            .get(1, "mode")
            .map(|sql| lex::string_literal(sql, dialect).unwrap_or_else(|| sql.to_owned()));
        Ok(match mode {
            Some(mode) if mode.eq_ignore_ascii_case("table") => filled,
            _ => quote_text(&filled, dialect),
        })
    }
}

fn is_typed(column: &ColumnDef) -> bool {
    !(column.data_type.is_empty() || column.data_type.eq_ignore_ascii_case("unknown"))
}

/// The parts of a table's name; of a subquery over it, those of the table after its FROM.
fn table_parts(this_model: &str, dialect: Dialect) -> Vec<String> {
    let names = |text: &str| -> Option<Vec<String>> {
        let parts = lex::name_parts(text, dialect)?;
        Some(parts.into_iter().map(|(name, _)| name).collect())
    };
    if let Some(parts) = names(this_model) {
        return parts;
    }
    let bytes = this_model.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if let Some((_, end)) = lex::opaque(this_model, at, dialect) {
            at = end;
        } else if lex::is_word_start(bytes[at]) {
            let end = lex::word_end(bytes, at);
            if this_model[at..end].eq_ignore_ascii_case("from") {
                let rest = this_model[end..].trim_start();
                let mut stop = 0;
                while stop < rest.len()
                    && !rest.as_bytes()[stop].is_ascii_whitespace()
                    && rest.as_bytes()[stop] != b')'
                {
                    stop = lex::opaque(rest, stop, dialect).map_or(stop + 1, |(_, end)| end);
                }
                return names(rest.get(..stop).unwrap_or_default()).unwrap_or_default();
            }
            at = end;
        } else {
            at += 1;
        }
    }
    Vec::new()
}

/// An expression that can be an operand, in brackets where it isn't one piece.
fn operand(sql: &str, dialect: Dialect) -> String {
    if lex::is_atomic(sql, dialect) { sql.to_owned() } else { format!("({sql})") }
}

/// `@AND` and `@OR`: NULLs are left out, and nothing is TRUE.
fn connect(name: &str, given: &Arguments, dialect: Dialect) -> String {
    let kept: Vec<&String> =
        given.positional.iter().filter(|sql| !sql.eq_ignore_ascii_case("null")).collect();
    match kept.as_slice() {
        [] if dialect.is_tsql() => "(1 = 1)".to_owned(),
        [] => "TRUE".to_owned(),
        [one] => (*one).clone(),
        many => {
            let wrapped: Vec<String> = many
                .iter()
                .map(|sql| if lex::has_connector(sql, dialect) { format!("({sql})") } else { (*sql).clone() })
                .collect();
            wrapped.join(if name == "and" { " AND " } else { " OR " })
        }
    }
}

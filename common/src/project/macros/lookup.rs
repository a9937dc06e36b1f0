//! What a name stands for, and how it is written in SQL, in a template and as a name.

use std::borrow::Cow;

use super::expand::Expander;
use super::lex;
use crate::project::render::time::{self, Point, TimeValue, TimeVar};
use crate::project::render::{RenderError, TimeVars, Value};
use crate::sql::Dialect;

/// What a macro variable holds.
#[derive(Debug, Clone)]
pub(super) enum Held<'v> {
    /// A value of the configuration or of ourselves.
    Value(Cow<'v, Value>),
    /// SQL text: definitions, arguments, blueprint values.
    Sql(Cow<'v, str>),
    /// A point of time.
    Time(TimeValue),
    /// A point of time that stays in the text by its name.
    Symbol(String),
}

impl Held<'_> {
    /// Whether it is a text that becomes a name where SQL wants one.
    pub(super) fn text(&self, dialect: Dialect) -> Option<String> {
        match self {
            Self::Value(value) => match value.as_ref() {
                Value::Text(text) => Some(text.clone()),
                _ => None,
            },
            Self::Sql(sql) => lex::string_literal(sql, dialect),
            Self::Time(_) | Self::Symbol(_) => None,
        }
    }

    /// As SQL.
    pub(super) fn sql(&self, dialect: Dialect) -> Cow<'_, str> {
        match self {
            Self::Value(value) => Cow::Owned(literal(value, dialect)),
            Self::Sql(sql) => Cow::Borrowed(sql),
            Self::Time(value) => Cow::Owned(value.sql(dialect)),
            Self::Symbol(name) => Cow::Owned(format!("@{name}")),
        }
    }

    /// As part of a string or a name: texts and single names without their quotes. Nothing where
    /// that needs the value of a time that is only a symbol.
    fn bare(&self, dialect: Dialect) -> Option<String> {
        Some(match self {
            Self::Value(value) => match value.as_ref() {
                Value::Text(text) => text.clone(),
                Value::List(_) => {
                    let list = literal(value, dialect);
                    format!("[{}]", &list[1..list.len() - 1])
                }
                other => literal(other, dialect),
            },
            Self::Sql(sql) => lex::string_literal(sql, dialect)
                .or_else(|| lex::single_name(sql, dialect))
                .unwrap_or_else(|| sql.to_string()),
            Self::Time(value) if value.is_text() => value.bare(),
            Self::Time(value) => value.sql(dialect),
            Self::Symbol(_) => return None,
        })
    }
}

/// A value as a SQL literal.
pub(crate) fn literal(value: &Value, dialect: Dialect) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(true) if dialect.is_tsql() => "1".to_owned(),
        Value::Bool(false) if dialect.is_tsql() => "0".to_owned(),
        Value::Bool(true) => "TRUE".to_owned(),
        Value::Bool(false) => "FALSE".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Text(text) => quote_text(text, dialect),
        Value::List(values) => {
            let items: Vec<String> = values.iter().map(|value| literal(value, dialect)).collect();
            format!("({})", items.join(", "))
        }
        Value::Map(values) if dialect == Dialect::Snowflake => {
            let pairs: Vec<String> = values
                .iter()
                .map(|(key, value)| format!("{}, {}", quote_text(key, dialect), literal(value, dialect)))
                .collect();
            format!("OBJECT_CONSTRUCT({})", pairs.join(", "))
        }
        Value::Map(values) => {
            let keys: Vec<String> = values.keys().map(|key| quote_text(key, dialect)).collect();
            let items: Vec<String> = values.values().map(|value| literal(value, dialect)).collect();
            format!("MAP([{}], [{}])", keys.join(", "), items.join(", "))
        }
    }
}

/// A value as `@VAR` gives it: lists are arrays there.
pub(super) fn array_literal(value: &Value, dialect: Dialect) -> String {
    let Value::List(values) = value else { return literal(value, dialect) };
    let items: Vec<String> = values.iter().map(|value| array_literal(value, dialect)).collect();
    let items = items.join(", ");
    match dialect {
        Dialect::Postgres | Dialect::Trino => format!("ARRAY[{items}]"),
        Dialect::Generic
        | Dialect::Spark
        | Dialect::Databricks
        | Dialect::Redshift
        | Dialect::MySql
        | Dialect::TSql
        | Dialect::Fabric
        | Dialect::Sqlite => format!("ARRAY({items})"),
        Dialect::DuckDb | Dialect::BigQuery | Dialect::Snowflake | Dialect::ClickHouse => {
            format!("[{items}]")
        }
    }
}

/// A text as a SQL string literal.
pub(crate) fn quote_text(text: &str, dialect: Dialect) -> String {
    let escaped = match dialect {
        Dialect::BigQuery | Dialect::Spark | Dialect::Databricks | Dialect::Snowflake => {
            text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n")
        }
        dialect if lex::backslash_escapes(dialect) => text.replace('\\', "\\\\").replace('\'', "''"),
        _ => text.replace('\'', "''"),
    };
    format!("'{escaped}'")
}

/// A name, in quotes only where it needs them.
pub(super) fn write_name(name: &str, dialect: Dialect) -> String {
    if lex::is_plain_name(name) { name.to_owned() } else { dialect.quote(name) }
}

impl Expander<'_> {
    /// What a lower-case name stands for; arguments of lambdas come first, then definitions, what
    /// the point of use gives, blueprint values and variables.
    pub(super) fn lookup(&self, name: &str, at: usize) -> Result<Option<Held<'_>>, RenderError> {
        let context = self.context;
        if let Some(sql) = self.bound(name).or_else(|| context.locals.get(name).map(String::as_str)) {
            return Ok(Some(Held::Sql(sql.into())));
        }
        if let Some(variable) = TimeVar::named(name) {
            return self.time(variable, name, at).map(Some);
        }
        let text = |value: &str| Held::Value(Cow::Owned(Value::Text(value.to_owned())));
        let list = |values: &[String]| {
            Held::Value(Cow::Owned(Value::List(values.iter().cloned().map(Value::Text).collect())))
        };
        Ok(Some(match name {
            "runtime_stage" => text(context.stage.name()),
            "default_catalog" => match &context.env.default_catalog {
                Some(catalog) => text(catalog),
                None => Held::Value(Cow::Owned(Value::Null)),
            },
            "this_model" if context.this_model.is_some() => {
                Held::Sql(context.this_model.unwrap_or_default().into())
            }
            "model_kind_name" if !context.model_kind_name.is_empty() => text(context.model_kind_name),
            "this_env" if context.this_env.is_some() => text(context.this_env.unwrap_or_default()),
            "schemas" if context.this_env.is_some() => list(context.schemas),
            "views" if context.this_env.is_some() => list(context.views),
            _ => match context.blueprint.get(name) {
                Some(sql) => Held::Sql(sql.as_str().into()),
                None => match context.env.variables.get(name) {
                    Some(value) => Held::Value(Cow::Borrowed(value)),
                    None if name == "gateway" => text(&context.env.gateway),
                    None => return Ok(None),
                },
            },
        }))
    }

    fn time(&self, variable: TimeVar, name: &str, at: usize) -> Result<Held<'static>, RenderError> {
        if self.context.time == TimeVars::Symbolic {
            return Ok(Held::Symbol(name.to_owned()));
        }
        match time::value(self.context.time, variable, self.context.dialect) {
            Some(value) => Ok(Held::Time(value)),
            None => Err(self.error(
                at,
                "no-batch-time",
                format!("`@{name}` is undefined here: FULL and VIEW queries know only the execution time"),
                Some(if variable.point == Point::Start || variable.point == Point::End {
                    "use an execution_ variable such as @execution_ds, or make the model incremental"
                        .to_owned()
                } else {
                    "name a variable of the execution time".to_owned()
                }),
            )),
        }
    }

    /// The error of a macro that needs to know a time which is only a symbol.
    pub(super) fn needs_time(&self, at: usize) -> RenderError {
        self.error(
            at,
            "needs-time-value",
            "the macro's result depends on the value of a time variable".to_owned(),
            None,
        )
    }

    /// The error of a variable that nobody defines.
    pub(super) fn undefined(&self, name: &str, at: usize) -> RenderError {
        let hint = match (self.context.dialect, name) {
            (_, "this_model") => {
                "@this_model is known in statements and audits, not where the project is read"
            }
            (Dialect::TSql | Dialect::Fabric | Dialect::MySql, _) => {
                "@ starts a macro variable here: define it in the project's variables or with @DEF; \
                 a session variable of the database can't be used"
            }
            _ => "define it under `variables` in the configuration or with @DEF before the query",
        };
        self.error(
            at,
            "undefined-variable",
            format!("macro variable `@{name}` is undefined"),
            Some(hint.to_owned()),
        )
    }

    /// A text with `@x` and `@{x}` replaced; `@@` is an `@`. Unknown names stay, but `@{x}` is an
    /// error when `strict`.
    pub(super) fn template(&self, text: &str, at: usize, strict: bool) -> Result<String, RenderError> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(sign) = rest.find('@') {
            out.push_str(&rest[..sign]);
            let after = &rest[sign + 1..];
            let braced = after.starts_with('{');
            let name_at = usize::from(braced);
            let length = after[name_at..]
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(after.len() - name_at);
            let name = &after[name_at..name_at + length];
            let end = name_at + length + usize::from(braced);
            let is_name =
                lex::is_plain_name(name) && (!braced || after.as_bytes().get(end - 1) == Some(&b'}'));
            if let Some(after) = after.strip_prefix('@') {
                out.push('@');
                rest = after;
                continue;
            }
            let held = if is_name { self.lookup(&name.to_ascii_lowercase(), at)? } else { None };
            match held {
                Some(held) => {
                    let bare = held.bare(self.context.dialect).ok_or_else(|| self.needs_time(at))?;
                    // Part of a name: of an item `t.c` only its last part can be.
                    let last = Some(&bare)
                        .filter(|_| strict)
                        .and_then(|bare| lex::name_parts(bare, self.context.dialect)?.pop());
                    out.push_str(last.as_ref().map_or(&bare, |(name, _)| name));
                    rest = &after[end..];
                }
                None if is_name && braced && strict => return Err(self.undefined(name, at)),
                None => {
                    out.push('@');
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        Ok(out)
    }
}

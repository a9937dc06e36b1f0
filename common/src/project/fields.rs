//! Reading values of properties: flags, numbers, names, calls, columns, maps.

use std::collections::BTreeMap;

use crate::diagnostic::Diagnostic;
use crate::id::ModelName;
use crate::project::ddl::block::Property;
use crate::project::ddl::token::TokenKind;
use crate::project::ddl::value::Value;
use crate::project::model::{Call, ColumnDef};
use crate::sql::Dialect;

/// Reads values in a dialect; what can't be read becomes a finding.
pub(crate) struct Fields<'a> {
    pub(crate) dialect: Dialect,
    pub(crate) findings: &'a mut Vec<Diagnostic>,
}

impl Fields<'_> {
    pub(crate) fn invalid(&mut self, property: &Property<'_>, expected: &str, hint: &str) {
        let found = shorten(property.value.text());
        let message = format!("property `{}` must be {expected}, found `{found}`", property.key);
        self.findings.push(Diagnostic::error("invalid-value", property.value.location(), message).hint(hint));
    }

    pub(crate) fn text(&mut self, property: &Property<'_>) -> Option<String> {
        let text = property.value.scalar();
        if text.is_none() {
            self.invalid(property, "one value", "quote it, and put a comma after it");
        }
        text
    }

    /// A value that may be an expression; its text as written unless it is a scalar.
    pub(crate) fn text_or_expression(property: &Property<'_>) -> Option<String> {
        property.value.scalar().or_else(|| Some(property.value.text().to_owned()))
    }

    pub(crate) fn flag(&mut self, property: &Property<'_>) -> Option<bool> {
        let flag = match property.value.scalar().unwrap_or_default().to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
            "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
            _ => None,
        };
        if flag.is_none() {
            self.invalid(property, "true or false", "write `true` or `false`");
        }
        flag
    }

    pub(crate) fn number(&mut self, property: &Property<'_>, least: u32) -> Option<u32> {
        let number =
            property.value.scalar().and_then(|text| text.parse().ok()).filter(|number| *number >= least);
        if number.is_none() {
            self.invalid(property, &format!("a whole number of at least {least}"), "correct the number");
        }
        number
    }

    /// A column's normalised name.
    pub(crate) fn column(&mut self, property: &Property<'_>) -> Option<String> {
        let name = self.column_name(&property.value);
        if name.is_none() {
            self.invalid(property, "a column", "name one column");
        }
        name
    }

    fn column_name(&self, value: &Value<'_>) -> Option<String> {
        let value = value.inside().unwrap_or(*value);
        let parts = value.name_parts(self.dialect)?;
        (parts.len() == 1).then(|| parts.concat())
    }

    /// Texts of a list or of one value.
    pub(crate) fn texts(&mut self, property: &Property<'_>) -> Vec<String> {
        let elements = property.value.elements();
        let texts: Option<Vec<String>> = elements.iter().map(Value::scalar).collect();
        texts.unwrap_or_else(|| {
            self.invalid(property, "a list of texts", "write `(a, 'b')`");
            Vec::new()
        })
    }

    /// Names of models in a list, or one.
    pub(crate) fn names(&mut self, property: &Property<'_>, default_catalog: Option<&str>) -> Vec<ModelName> {
        let mut names = Vec::new();
        for element in property.value.elements() {
            match model_name(&element, self.dialect, default_catalog) {
                Ok(name) => names.push(name),
                Err(why) => {
                    let message = format!("`{}` is not a model's name: {why}", shorten(element.text()));
                    self.findings.push(
                        Diagnostic::error("invalid-name", element.location(), message)
                            .hint("write `schema.table`"),
                    );
                }
            }
        }
        names.sort();
        names.dedup();
        names
    }

    /// Calls such as `f(a := 1)`, in a list or alone.
    pub(crate) fn calls(&mut self, value: &Value<'_>) -> Vec<Call> {
        value.elements().iter().filter_map(|element| self.call(element)).collect()
    }

    fn call(&mut self, value: &Value<'_>) -> Option<Call> {
        let source: &str = &value.source.text;
        let invalid = |message: String, at: &Value<'_>| {
            Diagnostic::error("invalid-call", at.location(), message).hint("write `name(argument := value)`")
        };
        let (first, rest) = value.tokens.split_first()?;
        let is_name = matches!(first.kind, TokenKind::Word | TokenKind::Quoted | TokenKind::String);
        let arguments = Value { source: value.source, tokens: rest, fallback: first.end as usize };
        let inside = arguments.inside();
        if !is_name || (!rest.is_empty() && inside.is_none()) {
            self.findings.push(invalid(format!("`{}` is not a call", shorten(value.text())), value));
            return None;
        }
        let one = Value { source: value.source, tokens: &value.tokens[..1], fallback: value.start() };
        let name = one.scalar().unwrap_or_else(|| first.text(source).to_owned()).to_lowercase();
        let mut args = BTreeMap::new();
        for argument in inside.map(|inside| inside.split()).unwrap_or_default() {
            match argument.assignment().and_then(|(key, value)| Some((key.scalar()?, value))) {
                Some((key, value)) => {
                    args.insert(key.to_lowercase(), value.text().to_owned());
                }
                None => {
                    let message = format!("argument `{}` of `{name}` has no name", shorten(argument.text()));
                    self.findings.push(invalid(message, &argument));
                }
            }
        }
        Some(Call { name, args })
    }

    /// Pairs `key = value` in a list; keys keep their case.
    pub(crate) fn map(&mut self, property: &Property<'_>) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        for element in property.value.elements() {
            match element.assignment() {
                Some((key, value)) => {
                    let key = key.scalar().unwrap_or_else(|| key.text().to_owned());
                    map.insert(key, value.text().to_owned());
                }
                None => {
                    let message =
                        format!("`{}` in `{}` is not `key = value`", shorten(element.text()), property.key);
                    self.findings.push(
                        Diagnostic::error("invalid-value", element.location(), message)
                            .hint(format!("write `{} (key = value, …)`", property.key)),
                    );
                }
            }
        }
        map
    }

    /// Descriptions of columns.
    pub(crate) fn descriptions(&mut self, property: &Property<'_>) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        for element in property.value.elements() {
            let pair = element.assignment().and_then(|(column, text)| {
                Some((column.name_parts(self.dialect)?.join("."), text.scalar()?))
            });
            match pair {
                Some((column, text)) => {
                    map.insert(column, text);
                }
                None => self.invalid(property, "a list of descriptions", "write `(column = 'text', …)`"),
            }
        }
        map
    }

    /// Declared columns: `(a int, b struct<x int, y text>)`.
    pub(crate) fn columns(&mut self, property: &Property<'_>) -> Option<Vec<ColumnDef>> {
        let Some(inside) = property.value.inside() else {
            self.invalid(property, "a list of columns", "write `(name type, …)`");
            return None;
        };
        let mut columns: Vec<ColumnDef> = Vec::new();
        for tokens in split_columns(&inside) {
            let column = Value { tokens, ..inside };
            let first = Value { tokens: &tokens[..1], ..inside };
            let data_type = Value { tokens: &tokens[1..], ..inside }.text().to_owned();
            let Some(name) = self.column_name(&first).filter(|_| !data_type.is_empty()) else {
                let message = format!("column `{}` has no type", shorten(column.text()));
                self.findings.push(
                    Diagnostic::error("invalid-column", column.location(), message).hint("write `name type`"),
                );
                continue;
            };
            if columns.iter().any(|earlier| earlier.name == name) {
                let message = format!("column `{name}` is declared twice");
                self.findings.push(
                    Diagnostic::error("invalid-column", column.location(), message)
                        .hint("remove one of them"),
                );
                continue;
            }
            columns.push(ColumnDef { name, data_type });
        }
        Some(columns)
    }
}

/// Splits at commas outside of parentheses and angle brackets.
fn split_columns<'a>(value: &Value<'a>) -> Vec<&'a [super::ddl::token::Token]> {
    let mut depth = 0i32;
    let split = value.tokens.split(|token| {
        match token.kind {
            TokenKind::Symbol('(' | '[' | '<') => depth += 1,
            TokenKind::Symbol(')' | ']' | '>') => depth -= 1,
            _ => {}
        }
        depth == 0 && token.is(',')
    });
    split.filter(|tokens| !tokens.is_empty()).collect()
}

/// A model's name: normalised, without the default catalog.
pub(crate) fn model_name(
    value: &Value<'_>,
    dialect: Dialect,
    default_catalog: Option<&str>,
) -> Result<ModelName, String> {
    let parts = value.name_parts(dialect).ok_or_else(|| "it isn't names joined by dots".to_owned())?;
    let parts = match parts.as_slice() {
        [catalog, rest @ ..] if rest.len() == 2 && Some(catalog.as_str()) == default_catalog => rest,
        all => all,
    };
    if parts.iter().any(|part| part.contains('.')) {
        return Err("a part of it has a dot".to_owned());
    }
    parts.join(".").parse().map_err(|error: crate::id::InvalidId| error.why.to_owned())
}

/// A text for a message: on one line, and not too long.
pub(crate) fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

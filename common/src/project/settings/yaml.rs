//! Finding YAML keys in a text: the parser gives values without places.

use serde_yaml_ng::Value as Yaml;

use crate::project::render::Value;

/// The line and column, from 1, of the key at a path; of its nearest parent found otherwise.
pub(crate) fn locate(text: &str, path: &[&str]) -> (u32, u32) {
    let mut found = (1, 1);
    let mut indent: Option<usize> = None;
    let mut lines = text.lines().enumerate().peekable();
    'keys: for key in path {
        while let Some((number, line)) = lines.peek().copied() {
            let body = line.trim_start().trim_start_matches("- ");
            let at = line.len() - body.len();
            if body.is_empty() || body.starts_with('#') {
                lines.next();
                continue;
            }
            let same_line = number as u32 + 1 == found.0 && indent.is_some();
            if !same_line && indent.is_some_and(|parent| at <= parent) {
                return found;
            }
            if !same_line && key_at_start(body, key) {
                found = place(line, number, at);
                indent = Some(at);
                // The next key may stand in braces on the same line.
                if !body.contains('{') {
                    lines.next();
                }
                continue 'keys;
            }
            if let Some(inner) = key_in_braces(body, key) {
                found = place(line, number, at + inner);
                continue 'keys;
            }
            lines.next();
        }
        return found;
    }
    found
}

fn place(line: &str, number: usize, at: usize) -> (u32, u32) {
    (number as u32 + 1, line[..at].chars().count() as u32 + 1)
}

fn key_at_start(body: &str, key: &str) -> bool {
    let rest = body
        .strip_prefix(key)
        .or_else(|| body.strip_prefix('"')?.strip_prefix(key)?.strip_prefix('"'))
        .or_else(|| body.strip_prefix('\'')?.strip_prefix(key)?.strip_prefix('\''));
    rest.is_some_and(|rest| rest.trim_start().starts_with(':'))
}

fn key_in_braces(body: &str, key: &str) -> Option<usize> {
    let open = body.find('{')?;
    body[open..].match_indices(key).map(|(at, _)| open + at).find(|at| {
        body[..*at].trim_end_matches(['"', '\'']).trim_end().ends_with(['{', ','])
            && body[at + key.len()..].trim_start_matches(['"', '\'']).trim_start().starts_with(':')
    })
}

/// A YAML value as a variable's value.
pub(crate) fn to_value(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(*value),
        Yaml::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Int(whole),
            (None, Some(float)) => Value::Float(float),
            (None, None) => Value::Text(number.to_string()),
        },
        Yaml::String(text) => Value::Text(text.clone()),
        Yaml::Sequence(items) => Value::List(items.iter().map(to_value).collect()),
        Yaml::Mapping(map) => {
            Value::Map(map.iter().filter_map(|(key, value)| Some((scalar(key)?, to_value(value)))).collect())
        }
        Yaml::Tagged(tagged) => to_value(&tagged.value),
    }
}

/// A scalar as text.
pub(crate) fn scalar(yaml: &Yaml) -> Option<String> {
    match yaml {
        Yaml::String(text) => Some(text.clone()),
        Yaml::Bool(value) => Some(value.to_string()),
        Yaml::Number(number) => Some(number.to_string()),
        Yaml::Tagged(tagged) => scalar(&tagged.value),
        Yaml::Null | Yaml::Sequence(_) | Yaml::Mapping(_) => None,
    }
}

/// A value as SQL text: strings in quotes, unless they hold a macro.
pub(crate) fn to_sql(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(value) => value.to_string().to_uppercase(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) if text.contains('@') => text.clone(),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::List(items) => format!("({})", items.iter().map(to_sql).collect::<Vec<_>>().join(", ")),
        Value::Map(map) => {
            let pairs = map.iter().map(|(key, value)| format!("{key} := {}", to_sql(value)));
            format!("({})", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::locate;

    #[test]
    fn keys_are_found_in_blocks_lists_and_braces() {
        let text = "# a:\ngateways:\n  dev:\n    connection: {type: duckdb, database: x}\n  prod:\n    \
                    connection:\n      type: postgres\nmodel_defaults:\n  \"dialect\": duckdb\nusers:\n  - type: x\n";
        for (path, expected) in [
            (&["gateways"][..], (2, 1)),
            (&["gateways", "dev", "connection", "database"], (4, 32)),
            (&["gateways", "prod", "connection", "type"], (7, 7)),
            (&["gateways", "prod", "connection", "nope"], (6, 5)),
            (&["model_defaults", "dialect"], (9, 3)),
            (&["users", "type"], (11, 5)),
            (&["nope"], (1, 1)),
        ] {
            assert_eq!(locate(text, path), expected, "{path:?}");
        }
    }
}

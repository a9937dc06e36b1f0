//! Filters and functions of Python's Jinja that the template engine doesn't have.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::value::{Object, ObjectRepr, Value, from_args};
use minijinja::{Environment, Error, State};

use super::wrong;

pub(super) fn add(env: &mut Environment<'_>) {
    env.add_filter("tojson", to_json);
    env.add_filter("wordcount", |text: &str| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
    });
    env.add_function("joiner", |separator: Option<String>| {
        let separator = separator.unwrap_or_else(|| ", ".to_owned());
        Value::from_object(Joiner { separator, used: AtomicBool::new(false) })
    });
}

/// A value as Python's `json` writes it, with its keys in order and safe in HTML.
fn to_json(value: Value) -> Result<Value, Error> {
    let value = serde_json::to_value(&value).map_err(|why| wrong(why.to_string()))?;
    let mut out = String::new();
    write_json(&value, &mut out);
    Ok(Value::from_safe_string(out))
}

fn write_json(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write_json(item, out);
            }
            out.push(']');
        }
        serde_json::Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (at, (key, field)) in fields.into_iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write_text(key, out);
                out.push_str(": ");
                write_json(field, out);
            }
            out.push('}');
        }
        serde_json::Value::String(text) => write_text(text, out),
        plain => out.push_str(&plain.to_string()),
    }
}

fn write_text(text: &str, out: &mut String) {
    for c in serde_json::Value::from(text).to_string().chars() {
        if c.is_ascii() && !matches!(c, '<' | '>' | '&' | '\'') {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a text can't fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
}

/// Nothing when it is called first, then its separator.
#[derive(Debug)]
struct Joiner {
    separator: String,
    used: AtomicBool,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        from_args::<()>(args)?;
        let used = self.used.swap(true, Ordering::Relaxed);
        Ok(Value::from(if used { self.separator.as_str() } else { "" }))
    }
}

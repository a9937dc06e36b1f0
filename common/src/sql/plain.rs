//! A query's syntax tree in a plain form: without places and spelling, so that texts that the parser
//! of any engine reads alike are the same tree.

use serde_json::{Map, Value, json};
use sqlparser::ast;

use super::Dialect;

/// The tree without places and spelling: identifiers are plain texts, as the engine resolves them.
pub(super) fn tree(query: &ast::Query, dialect: Dialect) -> Option<Value> {
    let mut tree = serde_json::to_value(query).ok()?;
    plain(&mut tree, dialect, false);
    Some(tree)
}

/// `path` says that the node is part of a name of a relation or function.
fn plain(node: &mut Value, dialect: Dialect, path: bool) {
    match node {
        Value::Array(items) => items.iter_mut().for_each(|item| plain(item, dialect, path)),
        Value::Object(fields) => {
            if let Some(name) = identifier(fields, dialect, path) {
                *node = Value::String(name);
                return;
            }
            fields.retain(|key, _| !(key == "span" || key.ends_with("_token") || key == "explicit"));
            if let Some(Value::Object(function)) = fields.get_mut("Function") {
                name_function(function, dialect);
            }
            for (key, field) in fields.iter_mut() {
                let named = path || key == "name" && field.is_array();
                plain(field, dialect, named);
            }
            ordering(fields, dialect);
            if fields.remove("flavor").is_some_and(|flavor| flavor == "FromFirstNoSelect") {
                fields.insert("projection".to_owned(), json!([{"Wildcard": star()}]));
            }
            if let Some(data_type) = fields.get_mut("data_type") {
                name_type(data_type, dialect);
            }
            spell(node, dialect);
        }
        _ => {}
    }
}

/// A star without anything behind it.
fn star() -> Value {
    let mut star = serde_json::to_value(ast::WildcardAdditionalOptions::default()).unwrap_or_default();
    if let Some(fields) = star.as_object_mut() {
        fields.retain(|key, _| !key.ends_with("_token"));
    }
    star
}

fn identifier(fields: &Map<String, Value>, dialect: Dialect, path: bool) -> Option<String> {
    let quote = fields.get("quote_style")?;
    let value = fields.get("value")?.as_str()?;
    let name = dialect.normalize(value, !quote.is_null());
    // There columns and aliases have no case, but tables have one.
    Some(if dialect == Dialect::BigQuery && !path { name.to_lowercase() } else { name })
}

/// An alias that is the table's own name says nothing.
fn own_alias(table: &mut Value, dialect: Dialect) {
    let own = table["name"].as_array().and_then(|path| path.last()?.get("Identifier")?.as_str());
    let own = own.map(|own| if dialect == Dialect::BigQuery { own.to_lowercase() } else { own.to_owned() });
    let alias = &table["alias"];
    let renames = alias["columns"].as_array().is_some_and(|columns| !columns.is_empty());
    if own.is_some() && own.as_deref() == alias.get("name").and_then(Value::as_str) && !renames {
        table["alias"] = Value::Null;
    }
}

/// Names of built-in functions have no case in any dialect but ClickHouse's, which accepts those
/// of standard SQL in any; some have several names.
fn name_function(function: &mut Map<String, Value>, dialect: Dialect) {
    let Some([part]) = function.get_mut("name").and_then(Value::as_array_mut).map(Vec::as_mut_slice) else {
        return;
    };
    if let Some(ident) = part.get_mut("Identifier").filter(|i| i.get("quote_style") == Some(&Value::Null))
        && let Some(Value::String(name)) = ident.get_mut("value")
    {
        name.make_ascii_lowercase();
        let duckdb = if dialect == Dialect::DuckDb { &DUCKDB_SYNONYMS[..] } else { &[] };
        if let Some((_, known)) = SYNONYMS.iter().chain(duckdb).find(|(other, _)| other == name) {
            *name = (*known).to_owned();
        }
    }
    if let Some(list) = function.get_mut("args").and_then(|args| args.get_mut("List"))
        && list["duplicate_treatment"] == "All"
    {
        list["duplicate_treatment"] = Value::Null;
    }
}

/// Other names of the same functions, in any dialect that has both.
const SYNONYMS: [(&str, &str); 7] = [
    ("ifnull", "coalesce"),
    ("nvl", "coalesce"),
    ("ucase", "upper"),
    ("lcase", "lower"),
    ("substr", "substring"),
    ("pow", "power"),
    ("ceiling", "ceil"),
];

const DUCKDB_SYNONYMS: [(&str, &str); 18] = [
    ("len", "length"),
    ("datetrunc", "date_trunc"),
    ("list_contains", "array_contains"),
    ("array_has", "array_contains"),
    ("list_has", "array_contains"),
    ("instr", "strpos"),
    ("listagg", "string_agg"),
    ("group_concat", "string_agg"),
    ("list", "array_agg"),
    ("arg_max", "max_by"),
    ("argmax", "max_by"),
    ("arg_min", "min_by"),
    ("argmin", "min_by"),
    ("logical_and", "bool_and"),
    ("logical_or", "bool_or"),
    ("today", "current_date"),
    ("datediff", "date_diff"),
    ("list_value", "array"),
];

/// What an ordering means by default need not be written.
fn ordering(fields: &mut Map<String, Value>, dialect: Dialect) {
    if !(fields.contains_key("sort") && fields.contains_key("nulls_first")) {
        return;
    }
    if fields["sort"] == "Asc" {
        fields.insert("sort".to_owned(), Value::Null);
    }
    let descending = fields["sort"] == "Desc";
    let first = match dialect {
        Dialect::DuckDb | Dialect::ClickHouse | Dialect::Trino => false,
        Dialect::Postgres | Dialect::Redshift | Dialect::Snowflake => descending,
        _ => !descending,
    };
    if fields["nulls_first"] == first {
        fields.insert("nulls_first".to_owned(), Value::Null);
    }
}

/// One name for a type that has several in the dialect.
fn name_type(data_type: &mut Value, dialect: Dialect) {
    let (name, argument) = match data_type {
        Value::String(name) => (name.clone(), Value::Null),
        Value::Object(fields) if fields.len() == 1 => match fields.iter_mut().next() {
            Some((name, argument)) => (name.clone(), argument.take()),
            None => return,
        },
        _ => return,
    };
    let zone = argument.get(1).and_then(Value::as_str);
    let (name, argument) = match (name.as_str(), argument.get(0)) {
        ("Timestamp", Some(Value::Null)) if matches!(zone, Some("None" | "WithoutTimeZone")) => {
            ("Timestamp", Value::Null)
        }
        ("Timestamp", Some(Value::Null)) if matches!(zone, Some("Tz" | "WithTimeZone")) => {
            ("TimestampTz", Value::Null)
        }
        (name, _) => (type_name(name, dialect), argument),
    };
    *data_type = if argument.is_null() || argument == "None" { json!(name) } else { json!({name: argument}) };
}

fn type_name(name: &str, dialect: Dialect) -> &str {
    let duckdb = dialect == Dialect::DuckDb;
    let bytes = duckdb || matches!(dialect, Dialect::Postgres | Dialect::Redshift);
    match name {
        "Integer" => "Int",
        "Numeric" | "Dec" => "Decimal",
        "Bool" => "Boolean",
        "Int4" if bytes => "Int",
        "Int8" if bytes => "BigInt",
        "Int2" if bytes => "SmallInt",
        "Float8" | "DoublePrecision" if bytes => "Double",
        "Varchar" | "String" | "CharacterVarying" if duckdb => "Text",
        "Real" | "Float4" if duckdb => "Float",
        "Datetime" if duckdb => "Timestamp",
        "Bytea" | "Binary" | "Varbinary" if duckdb => "Blob",
        same => same,
    }
}

/// One spelling for forms that are read alike: casts, negations, arrays, numbers.
fn spell(node: &mut Value, dialect: Dialect) {
    let Value::Object(fields) = node else { return };
    if fields.len() != 1 {
        if fields.get("distinct") == Some(&json!("All")) {
            fields.insert("distinct".to_owned(), Value::Null);
        }
        if fields.get("set_quantifier") == Some(&json!("Distinct")) {
            fields.insert("set_quantifier".to_owned(), json!("None"));
        }
        return;
    }
    let Some((kind, inner)) = fields.iter_mut().next() else { return };
    let spelled = match kind.as_str() {
        "Cast" if inner["kind"] == "DoubleColon" => {
            inner["kind"] = json!("Cast");
            return;
        }
        "Table" => {
            own_alias(inner, dialect);
            return;
        }
        "TypedString" => typed(inner),
        "IsNotNull" => Some(not(json!({"IsNull": inner.take()}))),
        "IsNotTrue" => Some(not(json!({"IsTrue": inner.take()}))),
        "IsNotFalse" => Some(not(json!({"IsFalse": inner.take()}))),
        "InList" | "InSubquery" | "Between" | "Like" | "ILike" | "Exists" | "SimilarTo" | "InUnnest" => {
            positive(kind, inner)
        }
        "UnaryOp" if inner["op"] == "Plus" => Some(inner["expr"].take()),
        "Substring" => {
            inner["special"] = json!(true);
            inner["shorthand"] = json!(false);
            return;
        }
        "Ceil" | "Floor" if inner["field"] == json!({"DateTimeField": "NoDateTime"}) => {
            inner["field"].take();
            return;
        }
        "Array" => {
            let list = json!({"elem": inner["elem"].take(), "named": false});
            *inner = list;
            return;
        }
        "Function" => call(inner),
        "Number" => return number(inner),
        "Interval" => return interval(inner),
        _ => None,
    };
    if let Some(spelled) = spelled {
        *node = spelled;
    }
}

pub(super) fn not(node: Value) -> Value {
    json!({"UnaryOp": {"op": "Not", "expr": node}})
}

/// `NOT x IN (…)` for `x NOT IN (…)`.
fn positive(kind: &str, inner: &mut Value) -> Option<Value> {
    (inner["negated"] == true).then(|| {
        inner["negated"] = json!(false);
        not(json!({kind: inner.take()}))
    })
}

/// `DATE '…'` is a cast.
fn typed(inner: &mut Value) -> Option<Value> {
    let value = inner.get_mut("value")?.take();
    Some(json!({"Cast": {
        "kind": "Cast", "expr": {"Value": value}, "data_type": inner.get_mut("data_type")?.take(),
        "format": null,
    }}))
}

/// Calls that have a sign: `MOD(a, b)`, arrays.
fn call(function: &mut Value) -> Option<Value> {
    let name =
        function["name"].as_array().filter(|n| n.len() == 1)?[0].get("Identifier")?.as_str()?.to_owned();
    if function["over"] != Value::Null || function["filter"] != Value::Null {
        return None;
    }
    let args = match &mut function["args"] {
        Value::String(none) if none == "None" => &mut Vec::new(),
        list => list.get_mut("List")?.get_mut("args")?.as_array_mut()?,
    };
    let mut args: Vec<Value> =
        args.iter().map(|arg| arg.get("Unnamed")?.get("Expr").cloned()).collect::<Option<_>>()?;
    match (name.as_str(), args.as_mut_slice()) {
        ("mod", [left, right]) => {
            let (left, right) = (operand(left.take()), operand(right.take()));
            Some(json!({"BinaryOp": {"left": left, "op": "Modulo", "right": right}}))
        }
        ("ceil", [value]) => Some(json!({"Ceil": {"expr": value.take(), "field": null}})),
        ("floor", [value]) => Some(json!({"Floor": {"expr": value.take(), "field": null}})),
        ("array", _) => Some(json!({"Array": {"elem": args, "named": false}})),
        ("current_date" | "current_timestamp" | "current_time", []) => Some(json!({"BareCall": name})),
        ("date_trunc", [unit, _]) => {
            let text = unit.get_mut("Value")?.get_mut("value")?.get_mut("SingleQuotedString")?;
            *text = json!(text.as_str()?.to_uppercase());
            let arg = &mut function["args"]["List"]["args"][0]["Unnamed"]["Expr"];
            *arg = unit.take();
            None
        }
        _ => None,
    }
}

/// An operand of a sign that was an argument.
fn operand(node: Value) -> Value {
    if node.get("BinaryOp").is_some() { json!({"Nested": node}) } else { node }
}

/// `1_000` is `1000`, `.5` is `0.5`.
fn number(literal: &mut Value) {
    if let Some(Value::String(digits)) = literal.get_mut(0) {
        digits.retain(|c| c != '_');
        if digits.starts_with('.') {
            digits.insert(0, '0');
        }
    }
}

/// `INTERVAL '1 day'` and `INTERVAL 1 DAY`.
fn interval(interval: &mut Value) {
    let literal = interval.get("value").and_then(|v| v.get("Value")?.get("value"));
    let text = literal.and_then(|v| match (v.get("SingleQuotedString"), v.get("Number")) {
        (Some(text), _) => text.as_str().map(str::to_owned),
        (_, Some(number)) => number.get(0)?.as_str().map(str::to_owned),
        _ => None,
    });
    if let Some(unit) = interval.get_mut("leading_field")
        && let Some(name) = unit.as_str().map(singular)
    {
        *unit = json!(name);
    }
    let Some(text) = text else { return };
    match (text.split_once(' '), interval["leading_field"].is_null()) {
        (Some((count, unit)), true) if unit.bytes().all(|b| b.is_ascii_alphabetic()) => {
            interval["value"] = json!(count);
            interval["leading_field"] = json!(singular(unit));
        }
        _ => interval["value"] = json!(text),
    }
}

fn singular(unit: &str) -> String {
    let unit = unit.to_ascii_uppercase();
    unit.strip_suffix('S').map_or_else(|| unit.clone(), str::to_owned)
}

//! Where a query reads all columns of a relation, so that more of them change what it gives.

use serde_json::{Map, Value, json};

use super::{groups_by_place, is_select, orders_by_place, uses};

/// Whether some node means "all columns" in a way that more columns change rows: natural joins,
/// pivots, stars that functions take or that rows are grouped by, and places counted over a star.
pub(super) fn depends_on_all_columns(node: &Value) -> bool {
    match node {
        Value::String(text) => text == "Natural",
        Value::Array(items) => items.iter().any(depends_on_all_columns),
        Value::Object(fields) => {
            let pivots = fields.contains_key("Pivot") || fields.contains_key("Unpivot");
            let keys = |select: &Map<String, Value>| {
                let packed = select.get("value_table_mode").is_some_and(|mode| !mode.is_null());
                let groups_all = select["group_by"].get("Expressions").is_none();
                packed || groups_all || groups_by_place(&select["group_by"])
            };
            let stars = is_select(fields) && starred(fields) && keys(fields)
                || fields.contains_key("body")
                    && orders_by_place(fields)
                    && fields["body"].get("Select").and_then(Value::as_object).is_some_and(starred);
            let takes = fields.get("Function").is_some_and(takes_star);
            pivots || stars || takes || fields.values().any(depends_on_all_columns)
        }
        _ => false,
    }
}

fn starred(select: &Map<String, Value>) -> bool {
    let star = |item: &Value| item.get("Wildcard").is_some() || item.get("QualifiedWildcard").is_some();
    select["projection"].as_array().is_some_and(|items| items.iter().any(star))
}

/// Whether a function other than `COUNT` takes all columns: `HASH(*)`.
fn takes_star(function: &Value) -> bool {
    let args = function.get("args").and_then(|args| args.get("List")?.get("args")?.as_array());
    let is_star = |arg: &Value| {
        arg.get("Unnamed").is_some_and(|arg| {
            arg == "Wildcard"
                || ["QualifiedWildcard", "WildcardWithOptions"].iter().any(|kind| arg.get(*kind).is_some())
        })
    };
    args.is_some_and(|args| args.iter().any(is_star)) && function["name"] != json!([{"Identifier": "count"}])
}

/// Whether a relation that the query itself makes is read as a value: `TO_JSON(x)` of `(SELECT …) AS x`.
pub(super) fn reads_whole_rows(tree: &Value) -> bool {
    let mut names = Vec::new();
    made_relations(tree, &mut names);
    let made = names.clone();
    aliases_of(tree, &made, &mut names);
    names.iter().any(|name| uses(tree, name))
}

/// The names of common table expressions and of subqueries in a FROM.
fn made_relations(node: &Value, names: &mut Vec<String>) {
    match node {
        Value::Object(fields) => {
            let made = fields.get("Derived").or_else(|| fields.contains_key("query").then_some(node));
            let name = made.and_then(|made| made.get("alias")?.get("name")?.as_str());
            names.extend(name.map(str::to_owned));
            fields.values().for_each(|field| made_relations(field, names));
        }
        Value::Array(items) => items.iter().for_each(|item| made_relations(item, names)),
        _ => {}
    }
}

/// Other names under which relations are read.
fn aliases_of(node: &Value, relations: &[String], names: &mut Vec<String>) {
    match node {
        Value::Object(fields) => {
            if let Some(table) = fields.get("Table") {
                let own = table["name"].as_array().and_then(|path| path.last()?.get("Identifier")?.as_str());
                let alias = table["alias"].get("name").and_then(Value::as_str);
                let known = own.is_some_and(|own| relations.iter().any(|relation| relation == own));
                names.extend(alias.filter(|_| known).map(str::to_owned));
            }
            fields.values().for_each(|field| aliases_of(field, relations, names));
        }
        Value::Array(items) => items.iter().for_each(|item| aliases_of(item, relations, names)),
        _ => {}
    }
}

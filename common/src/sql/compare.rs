//! How a query changed: walks two syntax trees in lockstep.
//!
//! Both trees must have the same nodes everywhere, but SELECT lists may have gained items. Trees
//! are compared in a plain form, in which what means the same is the same.

use serde_json::{Map, Value, json};
use sqlparser::ast;

use super::Dialect;
use super::parse::Query;

/// How a query changed, as far as its existing columns' rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueryChange {
    /// It means the same.
    Equal,
    /// It has more columns; those it had are as they were.
    Additive,
    /// Anything else, or not certain.
    Other,
}

/// Compares a query with the one before it.
pub fn compare(old: &Query, new: &Query) -> QueryChange {
    if old.dialect != new.dialect {
        return QueryChange::Other;
    }
    if old.canonical() == new.canonical() {
        return QueryChange::Equal;
    }
    if old.opaque || new.opaque {
        return QueryChange::Other;
    }
    let (Some(before), Some(after)) = (tree(&old.ast, old.dialect), tree(&new.ast, new.dialect)) else {
        return QueryChange::Other;
    };
    match lockstep(&before, &after, Order::NONE) {
        QueryChange::Additive if depends_on_all_columns(&before) => QueryChange::Other,
        change => change,
    }
}

/// The tree without places and spelling.
fn tree(query: &ast::Query, dialect: Dialect) -> Option<Value> {
    let mut tree = serde_json::to_value(query).ok()?;
    plain(&mut tree, dialect);
    Some(tree)
}

fn plain(node: &mut Value, dialect: Dialect) {
    match node {
        Value::Array(items) => items.iter_mut().for_each(|item| plain(item, dialect)),
        Value::Object(fields) => {
            if let Some(name) = identifier(fields, dialect) {
                *node = Value::String(name);
                return;
            }
            fields.retain(|key, _| !(key == "span" || key.ends_with("_token") || key == "explicit"));
            if let Some(Value::Object(function)) = fields.get_mut("Function") {
                fold_function_name(function);
            }
            fields.values_mut().for_each(|field| plain(field, dialect));
            if fields.get("sort") == Some(&json!("Asc")) {
                fields.insert("sort".to_owned(), Value::Null);
            }
            simplify(node);
        }
        _ => {}
    }
}

fn identifier(fields: &Map<String, Value>, dialect: Dialect) -> Option<String> {
    let quote = fields.get("quote_style")?;
    let value = fields.get("value")?.as_str()?;
    Some(dialect.normalize(value, !quote.is_null()))
}

/// Names of built-in functions have no case in any dialect but ClickHouse's, which accepts those
/// of standard SQL in any.
fn fold_function_name(function: &mut Map<String, Value>) {
    let Some([part]) = function.get_mut("name").and_then(Value::as_array_mut).map(Vec::as_mut_slice) else {
        return;
    };
    if let Some(ident) = part.get_mut("Identifier").filter(|i| i.get("quote_style") == Some(&Value::Null))
        && let Some(Value::String(name)) = ident.get_mut("value")
    {
        name.make_ascii_lowercase();
    }
}

/// Takes away what makes no difference: parentheses, `::` for CAST, the direction in which a
/// comparison is written, sums of whole numbers, conditions that are always true.
fn simplify(node: &mut Value) {
    let Value::Object(fields) = node else { return };
    if let Some(inner) = fields.get_mut("Nested") {
        *node = inner.take();
        return;
    }
    if let Some(Value::Object(cast)) = fields.get_mut("Cast")
        && cast.get("kind") == Some(&json!("DoubleColon"))
    {
        cast.insert("kind".to_owned(), json!("Cast"));
    }
    let Some(Value::Object(binary)) = fields.get_mut("BinaryOp") else { return };
    let turned = match binary.get("op").and_then(Value::as_str) {
        Some("Gt") => "Lt",
        Some("GtEq") => "LtEq",
        _ => "",
    };
    if !turned.is_empty() {
        let (left, right) = (binary["left"].take(), binary["right"].take());
        *binary = Map::new();
        binary.insert("left".to_owned(), right);
        binary.insert("op".to_owned(), json!(turned));
        binary.insert("right".to_owned(), left);
    }
    let op = binary["op"].as_str().unwrap_or("").to_owned();
    let (left, right) = (&binary["left"], &binary["right"]);
    let simpler = match op.as_str() {
        "And" if is_true(left) => Some(right.clone()),
        "And" if is_true(right) => Some(left.clone()),
        "Eq" if number(left).is_some() && number(left) == number(right) => Some(boolean(true)),
        "Plus" => fold(left, right, i64::checked_add),
        "Minus" => fold(left, right, i64::checked_sub),
        "Multiply" => fold(left, right, i64::checked_mul),
        _ => None,
    };
    if let Some(simpler) = simpler {
        *node = simpler;
    }
}

fn boolean(value: bool) -> Value {
    json!({"Value": {"value": {"Boolean": value}}})
}

fn is_true(node: &Value) -> bool {
    *node == boolean(true)
}

/// A whole number's value.
fn number(node: &Value) -> Option<i64> {
    let literal = node.get("Value")?.get("value")?.get("Number")?;
    literal.get(0)?.as_str()?.parse().ok()
}

fn fold(left: &Value, right: &Value, combine: fn(i64, i64) -> Option<i64>) -> Option<Value> {
    let sum = combine(number(left)?, number(right)?)?;
    (sum >= 0).then(|| json!({"Value": {"value": {"Number": [sum.to_string(), false]}}}))
}

/// How the query around a SELECT orders its rows.
#[derive(Clone, Copy)]
struct Order<'v> {
    /// By places in the SELECT list.
    by_place: bool,
    clause: Option<&'v Value>,
}

impl Order<'_> {
    const NONE: Self = Self { by_place: false, clause: None };
}

fn lockstep(old: &Value, new: &Value, order: Order<'_>) -> QueryChange {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            if a.len() != b.len() {
                return QueryChange::Other;
            }
            if let Some(Value::Object(operation)) = a.get("SetOperation")
                && let Some(Value::Object(changed)) = b.get("SetOperation")
            {
                return set_operation(operation, changed, order);
            }
            if is_select(a) && is_select(b) {
                return select(a, b, order);
            }
            let order = if a.contains_key("body") {
                Order { by_place: orders_by_place(a), clause: a.get("order_by") }
            } else if passes(a) {
                order
            } else {
                Order::NONE
            };
            let each = a.iter().map(|(key, value)| match b.get(key) {
                Some(other) => lockstep(value, other, order),
                None => QueryChange::Other,
            });
            match worst(each) {
                QueryChange::Additive if names_columns(a) => QueryChange::Other,
                change => change,
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            worst(a.iter().zip(b).map(|(x, y)| lockstep(x, y, Order::NONE)))
        }
        _ if old == new => QueryChange::Equal,
        _ => QueryChange::Other,
    }
}

fn worst(mut each: impl Iterator<Item = QueryChange>) -> QueryChange {
    let mut sum = QueryChange::Equal;
    while sum != QueryChange::Other {
        match each.next() {
            Some(change) => sum = sum.max(change),
            None => break,
        }
    }
    sum
}

/// Whether a query's columns get names by their places: `AS t (x, y)`.
fn names_columns(fields: &Map<String, Value>) -> bool {
    let columns = fields.get("alias").and_then(|alias| alias.get("columns")?.as_array());
    columns.is_some_and(|columns| !columns.is_empty())
}

fn is_select(fields: &Map<String, Value>) -> bool {
    fields.contains_key("projection") && fields.contains_key("selection")
}

/// Nodes between a query and its SELECTs, through which its ORDER BY counts.
fn passes(fields: &Map<String, Value>) -> bool {
    fields.len() == 1 && (fields.contains_key("Select") || fields.contains_key("Query"))
}

fn orders_by_place(query: &Map<String, Value>) -> bool {
    let by_all = query.get("order_by").and_then(|order| order.get("kind")?.get("All")).is_some();
    let limited = ["limit_clause", "fetch"].iter().any(|key| query.get(*key).is_some_and(|v| !v.is_null()));
    let places = query.get("order_by").and_then(|order| order.get("kind")?.get("Expressions")?.as_array());
    by_all && limited
        || places.is_some_and(|all| all.iter().any(|o| o.get("expr").is_some_and(|e| number(e).is_some())))
}

fn set_operation(old: &Map<String, Value>, new: &Map<String, Value>, order: Order<'_>) -> QueryChange {
    let sides = ["left", "right"].map(|side| lockstep(&old[side], &new[side], order));
    let rest = ["op", "set_quantifier"].iter().any(|key| old[*key] != new[*key]);
    if rest || by_name(old) && sides.contains(&QueryChange::Additive) {
        return QueryChange::Other;
    }
    // Columns are matched by place: branches must grow alike.
    let grown = ["left", "right"].map(|side| additions(&old[side], &new[side]));
    if let [Some(left), Some(right)] = grown
        && left.len() == right.len()
        && left != right
    {
        return QueryChange::Other;
    }
    sides[0].max(sides[1])
}

fn by_name(operation: &Map<String, Value>) -> bool {
    operation["set_quantifier"].as_str().is_some_and(|q| q.ends_with("ByName"))
}

/// The places of the items that a branch's first SELECT gained.
fn additions(old: &Value, new: &Value) -> Option<Vec<usize>> {
    let leftmost = |mut node: &Value| -> Option<Vec<Value>> {
        loop {
            if let Some(select) = node.get("Select") {
                return select.get("projection")?.as_array().cloned();
            }
            let query = node.get("Query").and_then(|query| query.get("body"));
            let operation = node.get("SetOperation").and_then(|operation| operation.get("left"));
            node = query.or(operation)?;
        }
    };
    Some(subsequence(&leftmost(old)?, &leftmost(new)?)?.1)
}

/// Matches old items with new ones in order: what changed in them, and which new ones are left.
fn subsequence(old: &[Value], new: &[Value]) -> Option<(QueryChange, Vec<usize>)> {
    let (mut at, mut added, mut change) = (0, Vec::new(), QueryChange::Equal);
    for item in old {
        loop {
            let step = lockstep(item, new.get(at)?, Order::NONE);
            at += 1;
            if step != QueryChange::Other {
                change = change.max(step);
                break;
            }
            added.push(at - 1);
        }
    }
    added.extend(at..new.len());
    Some((change, added))
}

fn select(old: &Map<String, Value>, new: &Map<String, Value>, order: Order<'_>) -> QueryChange {
    let others = old.iter().filter(|(key, _)| *key != "projection").map(|(key, value)| match new.get(key) {
        Some(other) => lockstep(value, other, Order::NONE),
        None => QueryChange::Other,
    });
    let rest = worst(others);
    let (Some(before), Some(after)) = (old["projection"].as_array(), new["projection"].as_array()) else {
        return QueryChange::Other;
    };
    let Some((items, added)) = subsequence(before, after) else { return QueryChange::Other };
    if added.is_empty() {
        return rest.max(items);
    }
    let by_place = order.by_place || groups_by_place(&old["group_by"]);
    let shifts = added.first().is_some_and(|first| *first < after.len() - added.len());
    let harmful = added.iter().any(|at| changes_rows(&after[*at], old, before, order));
    if harmful || by_place && shifts { QueryChange::Other } else { QueryChange::Additive.max(rest) }
}

fn groups_by_place(group_by: &Value) -> bool {
    let keys = group_by.get("Expressions").and_then(|e| e.get(0)?.as_array());
    keys.is_some_and(|keys| keys.iter().any(|key| number(key).is_some()))
}

/// Whether an added item makes more, fewer or other rows.
fn changes_rows(item: &Value, select: &Map<String, Value>, before: &[Value], order: Order<'_>) -> bool {
    let group_by = &select["group_by"];
    let keys = group_by.get("Expressions").and_then(|e| e.get(0)?.as_array());
    let ungrouped = keys.is_some_and(Vec::is_empty);
    let aggregates = |node: &Value| calls(node, &AGGREGATES);
    let grain = if keys.is_none() {
        !aggregates(item)
    } else {
        ungrouped && select["having"].is_null() && aggregates(item) && !before.iter().any(aggregates)
    };
    calls(item, &TABLE_FUNCTIONS) || grain || shadows(item, select, order)
}

/// Whether the item's alias takes over a name that the SELECT or its ORDER BY uses.
fn shadows(item: &Value, select: &Map<String, Value>, order: Order<'_>) -> bool {
    let alias = item.get("ExprWithAlias").and_then(|i| i.get("alias")?.as_str());
    alias.is_some_and(|alias| select.values().chain(order.clause).any(|part| uses(part, alias)))
}

fn uses(node: &Value, name: &str) -> bool {
    match node {
        Value::Object(fields) => {
            fields.get("Identifier").and_then(Value::as_str) == Some(name)
                || fields.values().any(|field| uses(field, name))
        }
        Value::Array(items) => items.iter().any(|item| uses(item, name)),
        _ => false,
    }
}

const TABLE_FUNCTIONS: [&str; 13] = [
    "unnest",
    "explode",
    "explode_outer",
    "posexplode",
    "posexplode_outer",
    "inline",
    "inline_outer",
    "stack",
    "flatten",
    "generate_series",
    "arrayjoin",
    "json_array_elements",
    "jsonb_array_elements",
];

const AGGREGATES: [&str; 39] = [
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "any_value",
    "arg_max",
    "arg_min",
    "max_by",
    "min_by",
    "array_agg",
    "string_agg",
    "group_concat",
    "listagg",
    "bool_or",
    "bool_and",
    "every",
    "logical_or",
    "logical_and",
    "countif",
    "count_if",
    "count_distinct",
    "approx_count_distinct",
    "approx_distinct",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "variance",
    "var_pop",
    "var_samp",
    "median",
    "mode",
    "quantile",
    "quantile_cont",
    "percentile_cont",
    "percentile_disc",
    "corr",
    "first",
    "last",
];

/// Whether a node calls one of the functions, not as a window and not in a query of its own.
fn calls(node: &Value, names: &[&str]) -> bool {
    match node {
        Value::Object(fields) if fields.contains_key("body") && fields.contains_key("with") => false,
        Value::Object(fields) => {
            let called = fields.get("Function").is_some_and(|function| {
                let name = function.get("name").and_then(|name| name.as_array()?.last()?.get("Identifier"));
                function.get("over").is_none_or(Value::is_null)
                    && name
                        .and_then(Value::as_str)
                        .is_some_and(|name| names.iter().any(|known| known.eq_ignore_ascii_case(name)))
            });
            called || fields.values().any(|field| calls(field, names))
        }
        Value::Array(items) => items.iter().any(|item| calls(item, names)),
        _ => false,
    }
}

/// Whether some node means "all columns" in a way that more columns change rows: natural joins,
/// pivots, and places counted over a star.
fn depends_on_all_columns(node: &Value) -> bool {
    match node {
        Value::String(text) => text == "Natural",
        Value::Array(items) => items.iter().any(depends_on_all_columns),
        Value::Object(fields) => {
            let pivots = fields.contains_key("Pivot") || fields.contains_key("Unpivot");
            let starred = |select: &Map<String, Value>| {
                let items = select["projection"].as_array();
                items.is_some_and(|items| {
                    let star =
                        |i: &Value| i.get("Wildcard").is_some() || i.get("QualifiedWildcard").is_some();
                    items.iter().any(star)
                })
            };
            let stars = is_select(fields) && starred(fields) && groups_by_place(&fields["group_by"])
                || fields.contains_key("body")
                    && orders_by_place(fields)
                    && fields["body"].get("Select").and_then(Value::as_object).is_some_and(starred);
            pivots || stars || fields.values().any(depends_on_all_columns)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(old: &str, new: &str) -> QueryChange {
        let parse = |sql: &str| Query::parse(sql, Dialect::DuckDb).unwrap();
        compare(&parse(old), &parse(new))
    }

    #[test]
    fn grain_and_places_decide() {
        use QueryChange::{Additive, Equal, Other};
        let cases = [
            ("SELECT a FROM t", "SELECT a, COUNT(*) AS n FROM t", Other),
            ("SELECT SUM(a) AS s FROM t", "SELECT SUM(a) AS s, COUNT(*) AS n FROM t", Additive),
            ("SELECT a FROM t", "SELECT a, SUM(b) OVER () AS s FROM t", Additive),
            ("SELECT a FROM t", "SELECT a, (SELECT MAX(b) FROM u) AS m FROM t", Additive),
            (
                "SELECT a, SUM(b) AS s FROM t GROUP BY ALL",
                "SELECT a, SUM(b) AS s, c FROM t GROUP BY ALL",
                Other,
            ),
            (
                "SELECT a, SUM(b) AS s FROM t GROUP BY ALL",
                "SELECT a, SUM(b) AS s, MAX(c) AS m FROM t GROUP BY ALL",
                Additive,
            ),
            (
                "SELECT a FROM t UNION ALL SELECT a FROM u",
                "SELECT b, a FROM t UNION ALL SELECT b, a FROM u",
                Additive,
            ),
            (
                "SELECT a FROM t UNION ALL SELECT a FROM u",
                "SELECT b, a FROM t UNION ALL SELECT a, b FROM u",
                Other,
            ),
            (
                "WITH c AS (SELECT a FROM t) SELECT * FROM c ORDER BY 1 LIMIT 5",
                "WITH c AS (SELECT b, a FROM t) SELECT * FROM c ORDER BY 1 LIMIT 5",
                Other,
            ),
            (
                "SELECT * FROM (SELECT a FROM t) NATURAL JOIN u",
                "SELECT * FROM (SELECT a, b FROM t) NATURAL JOIN u",
                Other,
            ),
            (
                "WITH c(x) AS (SELECT a FROM t) SELECT x FROM c",
                "WITH c(x) AS (SELECT b, a FROM t) SELECT x FROM c",
                Other,
            ),
            ("SELECT Sum(a) AS s FROM T", "select sum(\"a\") s from t;", Equal),
            ("SELECT a FROM t", "SELECT A.a FROM t AS A", Other),
        ];
        for (old, new, expected) in cases {
            assert_eq!(change(old, new), expected, "{old} -> {new}");
        }
    }
}

//! How a query changed: walks two syntax trees in lockstep.
//!
//! Both trees must have the same nodes everywhere, but SELECT lists may have gained items. Trees
//! are compared in a plain form, in which what means the same is the same.

mod whole;

use serde_json::{Map, Value, json};

use super::lineage::Schemas;
use super::parse::Query;
use super::{plain, resolve, simplify};
use whole::{depends_on_all_columns, reads_whole_rows};

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

/// Compares a query with the one before it, where nothing is known of the relations they read.
pub fn compare(old: &Query, new: &Query) -> QueryChange {
    compare_known((old, &()), (new, &()))
}

/// Compares a query with the one before it, each with what was known of the relations that it reads.
///
/// Where all columns of all relations are known, names are resolved and expressions simplified first:
/// what a reader sees to be the same is the same then. Else only spelling is overlooked.
pub fn compare_known(old: (&Query, &dyn Schemas), new: (&Query, &dyn Schemas)) -> QueryChange {
    let ((old, known_before), (new, known)) = (old, new);
    if old.dialect != new.dialect || old.opaque || new.opaque {
        return if old.canonical() == new.canonical() { QueryChange::Equal } else { QueryChange::Other };
    }
    if spellings(old).ne(spellings(new)) {
        return QueryChange::Other;
    }
    let (Some(before), Some(after)) = (meaning(old, known_before), meaning(new, known)) else {
        return if old.canonical() == new.canonical() { QueryChange::Equal } else { QueryChange::Other };
    };
    match lockstep(&before, &after, Order::NONE) {
        QueryChange::Additive if depends_on_all_columns(&before) || reads_whole_rows(&before) => {
            QueryChange::Other
        }
        QueryChange::Other if named(before) == named(after) => QueryChange::Equal,
        change => change,
    }
}

/// Words that the trees don't show, and that make a query another one in SQLMesh: `FULL JOIN` beside
/// `FULL OUTER JOIN`, `AS MATERIALIZED`.
fn spellings(query: &Query) -> impl Iterator<Item = (&str, &str)> {
    let words = query.canonical().split(' ');
    words.clone().zip(words.skip(1)).filter(|(first, second)| {
        let is = |word: &str, known: &str| word.eq_ignore_ascii_case(known);
        is(first, "FULL") && (is(second, "JOIN") || is(second, "OUTER"))
            || is(second, "MATERIALIZED") && (is(first, "AS") || is(first, "NOT"))
    })
}

/// The query's tree as its reader understands it.
fn meaning(query: &Query, schemas: &dyn Schemas) -> Option<Value> {
    let tree = plain::tree(&query.ast, query.dialect)?;
    Some(match resolve::resolved(&tree, query.dialect, schemas) {
        Some(mut resolved) => {
            simplify::simplify(&mut resolved);
            resolved
        }
        None => tree,
    })
}

/// With the names that columns have without an alias written out.
fn named(mut node: Value) -> Value {
    fn walk(node: &mut Value) {
        match node {
            Value::Array(items) => items.iter_mut().for_each(walk),
            Value::Object(fields) => fields.values_mut().for_each(walk),
            _ => return,
        }
        let Some(expr) = node.get("UnnamedExpr") else { return };
        if let Some(alias) = resolve::name_of(expr) {
            *node = json!({"ExprWithAlias": {"expr": expr, "alias": alias}});
        }
    }
    walk(&mut node);
    node
}

/// A whole number's value.
pub(super) fn number(node: &Value) -> Option<i64> {
    let literal = node.get("Value")?.get("value")?.get("Number")?;
    literal.get(0)?.as_str()?.parse().ok()
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

pub(super) fn is_select(fields: &Map<String, Value>) -> bool {
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
        !aggregates(item) && !adds_no_key(item, before)
    } else {
        ungrouped && select["having"].is_null() && aggregates(item) && !before.iter().any(aggregates)
    };
    let packed = select.get("value_table_mode").is_some_and(|mode| !mode.is_null());
    calls(item, &TABLE_FUNCTIONS) || grain || packed || shadows(item, select, order)
}

/// Whether an item that `GROUP BY ALL` groups by tells no more rows apart: a constant, or one again.
fn adds_no_key(item: &Value, before: &[Value]) -> bool {
    expression(item).is_some_and(|added| {
        is_constant(&added) || before.iter().any(|item| expression(item).as_ref() == Some(&added))
    })
}

/// What an item of a SELECT computes, without its name.
fn expression(item: &Value) -> Option<Value> {
    item.get("ExprWithAlias").and_then(|item| item.get("expr")).or(item.get("UnnamedExpr")).cloned()
}

fn is_constant(node: &Value) -> bool {
    match node {
        Value::Array(items) => items.iter().all(is_constant),
        Value::Object(fields) => fields.iter().all(|(key, field)| match key.as_str() {
            "Value" | "Cast" | "expr" | "Array" | "elem" | "UnaryOp" | "Nested" => is_constant(field),
            "BareCall" | "value" | "data_type" | "alias" | "kind" | "format" | "named" | "op" => true,
            _ => false,
        }),
        node => !node.is_string(),
    }
}

/// Whether the item's alias takes over a name that the SELECT or its ORDER BY uses.
fn shadows(item: &Value, select: &Map<String, Value>, order: Order<'_>) -> bool {
    let alias = item.get("ExprWithAlias").and_then(|i| i.get("alias")?.as_str());
    alias.is_some_and(|alias| select.values().chain(order.clause).any(|part| uses(part, alias)))
}

fn uses(node: &Value, name: &str) -> bool {
    match node {
        Value::Object(fields) => {
            // Names of relations and functions are no columns'.
            let parts = fields.iter().filter(|(key, part)| !(*key == "name" && part.is_array()));
            fields.get("Identifier").and_then(Value::as_str) == Some(name)
                || parts.into_iter().any(|(_, field)| uses(field, name))
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

#[cfg(test)]
mod tests;

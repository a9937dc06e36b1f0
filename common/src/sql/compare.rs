//! How a query changed: walks two syntax trees in lockstep.
//!
//! Both trees must have the same nodes everywhere, but SELECT lists may have gained items. Trees
//! are compared in a plain form, in which what means the same is the same.

use serde_json::{Map, Value, json};

use super::lineage::Schemas;
use super::parse::Query;
use super::{plain, resolve, simplify};

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
        QueryChange::Additive if depends_on_all_columns(&before) => QueryChange::Other,
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
    calls(item, &TABLE_FUNCTIONS) || grain || shadows(item, select, order)
}

/// Whether an item that `GROUP BY ALL` groups by tells no more rows apart: a constant, or one again.
fn adds_no_key(item: &Value, before: &[Value]) -> bool {
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
    let expr = |item: &Value| {
        item.get("ExprWithAlias").and_then(|item| item.get("expr")).or(item.get("UnnamedExpr")).cloned()
    };
    expr(item).is_some_and(|added| {
        is_constant(&added) || before.iter().any(|item| expr(item).as_ref() == Some(&added))
    })
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
    use crate::sql::Dialect;

    fn change(old: &str, new: &str) -> QueryChange {
        let parse = |sql: &str| Query::parse(sql, Dialect::DuckDb).unwrap();
        compare(&parse(old), &parse(new))
    }

    struct Known(Vec<crate::project::model::ColumnDef>);

    impl Schemas for Known {
        fn columns(&self, relation: &[String]) -> Option<&[crate::project::model::ColumnDef]> {
            (relation != ["unknown"]).then_some(self.0.as_slice())
        }
    }

    /// With `a`, `b` and `c` in every table.
    fn informed(old: &str, new: &str) -> QueryChange {
        let column = |name: &str| crate::project::model::ColumnDef {
            name: name.to_owned(),
            data_type: "INT".to_owned(),
        };
        let known = Known(["a", "b", "c"].map(column).into());
        let parse = |sql: &str| Query::parse(sql, Dialect::DuckDb).unwrap();
        compare_known((&parse(old), &known), (&parse(new), &known))
    }

    #[test]
    fn what_a_reader_sees_to_be_the_same_is_the_same() {
        let same = [
            ("SELECT a FROM t", "SELECT t.a AS a FROM t AS t"),
            ("SELECT * FROM t", "SELECT a, b, c FROM t"),
            ("SELECT * EXCLUDE (b) FROM t", "SELECT t.a, c FROM t"),
            ("SELECT a + 1 FROM t", "SELECT a + 1 AS _col_0 FROM t"),
            ("SELECT a, SUM(b) AS s FROM t GROUP BY 1", "SELECT a, SUM(b) AS s FROM t GROUP BY t.a"),
            ("SELECT a AS x FROM t GROUP BY x", "SELECT a AS x FROM t GROUP BY a"),
            ("SELECT a, b FROM t ORDER BY 2", "SELECT a, b FROM t ORDER BY b ASC NULLS LAST"),
            ("SELECT t.a FROM t JOIN u USING (a)", "SELECT t.a FROM t JOIN u ON u.a = t.a"),
            ("SELECT t.a FROM t JOIN u ON 1 = 1", "SELECT t.a FROM t CROSS JOIN u"),
            (
                "WITH x(p) AS (SELECT a FROM t) SELECT p FROM x",
                "WITH x AS (SELECT a AS p FROM t) SELECT x.p FROM x",
            ),
            ("SELECT a FROM t WHERE a > 1 AND b = 2", "SELECT a FROM t WHERE 2 = b AND (1 < a) AND TRUE"),
            ("SELECT a FROM t WHERE NOT (a > 1 OR b <> 2)", "SELECT a FROM t WHERE b = 2 AND a <= 1"),
            ("SELECT a FROM t WHERE a BETWEEN 1 AND 2", "SELECT a FROM t WHERE a >= 1 AND a <= 2"),
            ("SELECT a FROM t WHERE a + 1 > 2 * 5", "SELECT a FROM t WHERE a > 9"),
            ("SELECT a FROM t WHERE a > 1 AND a > 2", "SELECT a FROM t WHERE a > 2"),
            ("SELECT a::INT8 AS x FROM t", "SELECT CAST(a AS BIGINT) AS x FROM t"),
            ("SELECT CASE a WHEN 1 THEN b END AS x FROM t", "SELECT CASE WHEN a = 1 THEN b END AS x FROM t"),
            ("SELECT IFNULL(a, 0) AS x FROM t", "SELECT COALESCE(a, 0) AS x FROM t"),
            (
                "SELECT a FROM t WHERE b > DATE '2024-01-01'",
                "SELECT a FROM t WHERE b > CAST('2024-01-01' AS DATE)",
            ),
            ("SELECT DATE '2024-01-01' AS d FROM t", "SELECT '2024-01-01'::DATE AS d FROM t"),
            (
                "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.b = t.b)",
                "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE t.b = u.b)",
            ),
        ];
        for (old, new) in same {
            assert_eq!(informed(old, new), QueryChange::Equal, "{old} -> {new}");
        }
    }

    #[test]
    fn what_may_differ_differs() {
        let other = [
            ("SELECT t.a FROM t, u", "SELECT u.a FROM t, u"),
            ("SELECT a FROM t, u", "SELECT t.a FROM t, u"),
            ("SELECT a FROM t", "SELECT t.a FROM t AS x"),
            ("SELECT a FROM t WHERE a < 5 AND a <= 5", "SELECT a FROM t WHERE a <= 5"),
            ("SELECT a FROM t WHERE a < 5 OR a <= 5", "SELECT a FROM t WHERE a < 5"),
            ("SELECT a FROM t WHERE a - b > c", "SELECT a FROM t WHERE a - (b > c)"),
            ("SELECT a - (b - c) AS x FROM t", "SELECT a - b - c AS x FROM t"),
            ("SELECT a FROM t WHERE 1 - a = 2", "SELECT a FROM t WHERE a = 3"),
            ("SELECT a, b FROM t ORDER BY b", "SELECT a, b FROM t ORDER BY b DESC"),
            ("SELECT a AS b, b AS x FROM t ORDER BY t.b", "SELECT a AS b, b AS x FROM t ORDER BY b"),
            ("SELECT a FROM unknown WHERE (a > 1)", "SELECT a FROM unknown WHERE a > 1"),
            ("SELECT a FROM t LEFT JOIN u ON TRUE", "SELECT a FROM t CROSS JOIN u"),
        ];
        for (old, new) in other {
            assert_eq!(informed(old, new), QueryChange::Other, "{old} -> {new}");
        }
    }

    #[test]
    fn grain_and_places_decide() {
        use QueryChange::{Additive, Equal, Other};
        let cases = [
            ("SELECT a FROM t", "SELECT a, COUNT(*) AS n FROM t", Other),
            ("SELECT SUM(a) AS s FROM t", "SELECT SUM(a) AS s, COUNT(*) AS n FROM t", Additive),
            ("SELECT a FROM t", "SELECT a, GENERATE_SERIES(1, 3) AS n FROM t", Other),
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

//! A resolved tree simplified, so that conditions and values that are the same at sight are the same
//! tree. What is grouped by stays as it is, as do outputs made of it: both must match.

mod connector;
mod value;

use serde_json::{Map, Value, json};

use super::compare::{is_select, number};
use connector::connect;

/// Simplifies all expressions.
pub(super) fn simplify(node: &mut Value) {
    match node {
        Value::Array(items) => items.iter_mut().for_each(simplify),
        Value::Object(fields) if is_select(fields) => select(fields),
        Value::Object(fields) => {
            fields.values_mut().for_each(simplify);
            join(fields);
            parentheses(fields);
            if let Some(simpler) = rewritten(fields) {
                *node = simpler;
            }
        }
        _ => {}
    }
}

fn select(fields: &mut Map<String, Value>) {
    let keys: Vec<Value> =
        fields["group_by"].get("Expressions").and_then(|e| e.get(0)?.as_array().cloned()).unwrap_or_default();
    for (name, part) in fields.iter_mut() {
        match (name.as_str(), part) {
            ("group_by", _) => {}
            ("projection", Value::Array(items)) => {
                items.iter_mut().filter(|item| !contains(item, &keys)).for_each(simplify);
            }
            ("having", part) if contains(part, &keys) => {}
            (_, part) => {
                simplify(part);
                unwrap_top(part);
            }
        }
    }
    if is_boolean(&fields["selection"], true) {
        fields.insert("selection".to_owned(), Value::Null);
    }
}

fn contains(node: &Value, keys: &[Value]) -> bool {
    keys.contains(node)
        || match node {
            Value::Array(items) => items.iter().any(|item| contains(item, keys)),
            Value::Object(fields) => fields.values().any(|field| contains(field, keys)),
            _ => false,
        }
}

/// `JOIN … ON TRUE` is a cross join.
fn join(fields: &mut Map<String, Value>) {
    let Some(Value::Object(operator)) = fields.get_mut("join_operator") else { return };
    let inner = ["Join", "Inner", "Right", "RightOuter"];
    let always = inner.iter().any(|kind| {
        operator.get(*kind).and_then(|constraint| constraint.get("On")).is_some_and(|on| is_boolean(on, true))
    });
    if always {
        fields.insert("join_operator".to_owned(), json!({"CrossJoin": "None"}));
    }
}

/// What stands around an expression.
#[derive(Clone, Copy, PartialEq)]
enum Around {
    /// A clause or an alias: nothing that binds.
    Nothing,
    Parenthesis,
    Predicate,
    Connector,
    Sum,
    Difference,
    Product,
    OtherSign,
    Negative,
    Call,
    Element,
}

/// Nothing for a part of a node, whose whole decides.
fn around(fields: &Map<String, Value>) -> Option<Around> {
    if fields.len() != 1 {
        let clause =
            ["alias", "options", "relation", "condition"].iter().any(|key| fields.contains_key(*key));
        return clause.then_some(Around::Nothing);
    }
    let (kind, inner) = fields.iter().next()?;
    Some(match kind.as_str() {
        "BinaryOp" => match inner["op"].as_str().unwrap_or("") {
            "And" | "Or" => Around::Connector,
            "Plus" => Around::Sum,
            "Minus" => Around::Difference,
            "Multiply" => Around::Product,
            op if COMPARISONS.contains(&op) => Around::Predicate,
            _ => Around::OtherSign,
        },
        "UnaryOp" if inner["op"] == "Minus" => Around::Negative,
        "Nested" => Around::Parenthesis,
        "CompoundFieldAccess" => Around::Element,
        "On" | "Expressions" => Around::Nothing,
        kind if PREDICATES.contains(&kind) => Around::Predicate,
        _ => Around::Call,
    })
}

const COMPARISONS: [&str; 6] = ["Eq", "NotEq", "Lt", "LtEq", "Gt", "GtEq"];

const PREDICATES: [&str; 13] = [
    "IsNull",
    "IsTrue",
    "IsFalse",
    "IsUnknown",
    "IsDistinctFrom",
    "IsNotDistinctFrom",
    "Like",
    "ILike",
    "SimilarTo",
    "InList",
    "InSubquery",
    "InUnnest",
    "Between",
];

/// Takes away parentheses around a node's parts where they say nothing.
fn parentheses(fields: &mut Map<String, Value>) {
    let Some(here) = around(fields) else { return };
    let strip = |part: &mut Value| {
        while let Some(inner) = part.get_mut("Nested").filter(|inner| says_nothing(inner, here)) {
            *part = inner.take();
        }
    };
    for part in fields.values_mut() {
        strip(part);
        match part {
            Value::Array(items) => items.iter_mut().for_each(strip),
            Value::Object(inner) if here != Around::Nothing => {
                for part in inner.values_mut() {
                    strip(part);
                    part.as_array_mut().into_iter().flatten().for_each(strip);
                }
            }
            _ => {}
        }
    }
}

/// Parentheses around a whole clause.
fn unwrap_top(part: &mut Value) {
    while let Some(inner) = part.get_mut("Nested") {
        *part = inner.take();
    }
}

fn says_nothing(inner: &Value, here: Around) -> bool {
    let op = inner.get("BinaryOp").and_then(|binary| binary["op"].as_str());
    let predicate = op.is_some_and(|op| COMPARISONS.contains(&op))
        || inner
            .as_object()
            .is_some_and(|o| o.keys().any(|key| PREDICATES.contains(&key.as_str()) || key == "Exists"));
    if inner.get("Subquery").is_some() || here == Around::Element {
        return false;
    }
    match here {
        Around::Nothing | Around::Parenthesis => true,
        Around::Connector => op.is_none_or(|op| op != "And" && op != "Or"),
        Around::Predicate | Around::Negative | Around::Difference | Around::OtherSign if predicate => {
            here == Around::Predicate && inner.get("IsNull").is_some()
        }
        Around::Sum => op.is_none_or(|op| op == "Plus" || op == "Multiply") && !predicate,
        Around::Product => op.is_none_or(|op| op == "Multiply") && !predicate,
        Around::Difference => op.is_none_or(|op| op == "Multiply"),
        Around::Call if predicate => true,
        Around::Predicate | Around::OtherSign | Around::Negative | Around::Call => op.is_none(),
        Around::Element => false,
    }
}

/// The node's simpler form, if it has one.
fn rewritten(fields: &mut Map<String, Value>) -> Option<Value> {
    if fields.len() != 1 {
        return None;
    }
    let (kind, inner) = fields.iter_mut().next()?;
    match kind.as_str() {
        "Between" => {
            let at_least = binary(inner["expr"].clone(), "GtEq", inner["low"].take());
            let at_most = binary(inner["expr"].take(), "LtEq", inner["high"].take());
            Some(connect("And", value::compared(at_least), value::compared(at_most)))
        }
        "UnaryOp" if inner["op"] == "Not" => negated(inner["expr"].take()),
        "UnaryOp" if inner["op"] == "Minus" => {
            let twice = inner["expr"].get_mut("UnaryOp").filter(|again| again["op"] == "Minus")?;
            Some(twice["expr"].take())
        }
        "BinaryOp" => {
            let (left, right) = (inner["left"].take(), inner["right"].take());
            let op = inner["op"].as_str().unwrap_or("").to_owned();
            Some(match op.as_str() {
                "And" | "Or" => connect(&op, left, right),
                "Plus" | "Multiply" => value::folded(&op, left, right),
                "Minus" => value::less(left, right),
                "StringConcat" => value::joined(left, right),
                op if COMPARISONS.contains(&op) => value::compared(binary(left, op, right)),
                _ => json!({"BinaryOp": {"left": left, "op": inner["op"].take(), "right": right}}),
            })
        }
        "Case" => case(inner),
        "Function" => value::concat(inner),
        _ => None,
    }
}

/// `CASE x WHEN 1` as `CASE WHEN x = 1`; branches that are always or never taken.
fn case(case: &mut Value) -> Option<Value> {
    let operand = case["operand"].take();
    let otherwise = case["else_result"].clone();
    let branches = case["conditions"].as_array_mut()?;
    for branch in branches.iter_mut().filter(|_| !operand.is_null()) {
        branch["condition"] = value::compared(binary(operand.clone(), "Eq", branch["condition"].take()));
    }
    branches.retain(|branch| !is_boolean(&branch["condition"], false));
    match branches.first_mut() {
        Some(first) if is_boolean(&first["condition"], true) => Some(first["result"].take()),
        Some(_) => None,
        None if otherwise.is_null() => Some(json!({"Value": {"value": "Null"}})),
        None => Some(otherwise),
    }
}

fn negated(mut inner: Value) -> Option<Value> {
    if let Some(comparison) = inner.get_mut("BinaryOp")
        && let Some(opposite) = comparison["op"].as_str().and_then(opposite)
    {
        comparison["op"] = json!(opposite);
        return Some(value::compared(inner));
    }
    if is_boolean(&inner, true) || is_boolean(&inner, false) {
        return Some(boolean(is_boolean(&inner, false)));
    }
    if let Some(again) = inner.get_mut("UnaryOp").filter(|again| again["op"] == "Not")
        && is_condition(&again["expr"])
    {
        return Some(again["expr"].take());
    }
    let condition = if inner.get("Nested").is_some() { &mut inner["Nested"] } else { &mut inner };
    if let Some(connector) = condition.get_mut("BinaryOp") {
        let op = match connector["op"].as_str() {
            Some("And") => "Or",
            Some("Or") => "And",
            _ => return Some(super::plain::not(inner)),
        };
        let not = |part: Value| {
            let again = part.clone();
            let opposite = negated(part).unwrap_or_else(|| super::plain::not(again));
            let connects = opposite.get("BinaryOp").is_some_and(|b| b["op"] == "And" || b["op"] == "Or");
            if connects { json!({"Nested": opposite}) } else { opposite }
        };
        return Some(connect(op, not(connector["left"].take()), not(connector["right"].take())));
    }
    Some(super::plain::not(inner))
}

fn opposite(op: &str) -> Option<&'static str> {
    Some(match op {
        "Eq" => "NotEq",
        "NotEq" => "Eq",
        "Lt" => "GtEq",
        "LtEq" => "Gt",
        "Gt" => "LtEq",
        "GtEq" => "Lt",
        _ => return None,
    })
}

/// Whether its value is a truth value for certain.
fn is_condition(node: &Value) -> bool {
    node.get("BinaryOp")
        .and_then(|b| b["op"].as_str())
        .is_some_and(|op| COMPARISONS.contains(&op) || op == "And" || op == "Or")
        || node.get("UnaryOp").is_some_and(|unary| unary["op"] == "Not")
        || node.get("Exists").is_some()
        || node.get("Nested").is_some_and(is_condition)
        || node.as_object().is_some_and(|o| o.keys().any(|key| PREDICATES.contains(&key.as_str())))
}

fn binary(left: Value, op: &str, right: Value) -> Value {
    json!({"BinaryOp": {"left": left, "op": op, "right": right}})
}

fn boolean(value: bool) -> Value {
    json!({"Value": {"value": {"Boolean": value}}})
}

fn is_boolean(node: &Value, value: bool) -> bool {
    node.get("Value").and_then(|v| v.get("value")?.get("Boolean")) == Some(&Value::Bool(value))
}

/// A text literal.
fn text(node: &Value) -> Option<&str> {
    node.get("Value")?.get("value")?.get("SingleQuotedString")?.as_str()
}

/// A literal, or one with a type.
fn is_constant(node: &Value) -> bool {
    node.get("Value").is_some()
        || number(node).is_some()
        || node.get("Cast").is_some_and(|cast| text(&cast["expr"]).is_some())
}

//! AND and OR: without nesting, repetition and what is always true or false, in one order.

use serde_json::{Value, json};

use super::value::{Constant, constant};
use super::{binary, boolean, is_boolean};

/// Both sides joined by `And` or `Or`.
pub(super) fn connect(op: &str, left: Value, right: Value) -> Value {
    let mut operands = Vec::new();
    gather(op, left, &mut operands);
    gather(op, right, &mut operands);
    // FALSE ends an AND, TRUE ends an OR; the other says nothing.
    let ends = op == "Or";
    if operands.iter().any(|operand| is_boolean(operand, ends)) {
        return boolean(ends);
    }
    operands.retain(|operand| !is_boolean(operand, !ends));
    operands.sort_by_cached_key(Value::to_string);
    operands.dedup();
    bounds(op, &mut operands);
    if operands.iter().any(|operand| is_boolean(operand, ends)) {
        return boolean(ends);
    }
    operands.into_iter().reduce(|all, operand| binary(all, op, operand)).unwrap_or_else(|| boolean(!ends))
}

/// Parentheses around the other connector stay: SQLMesh keeps them, also where they say nothing.
fn gather(op: &str, mut node: Value, operands: &mut Vec<Value>) {
    let mut nested = false;
    while let Some(inner) = node.get_mut("Nested") {
        node = inner.take();
        nested = true;
    }
    match node.get_mut("BinaryOp") {
        Some(connector) if connector["op"] == op => {
            gather(op, connector["left"].take(), operands);
            gather(op, connector["right"].take(), operands);
        }
        Some(connector) if nested && (connector["op"] == "And" || connector["op"] == "Or") => {
            operands.push(json!({"Nested": node}));
        }
        _ => operands.push(node),
    }
}

/// Comparisons of the same value with constants become the one that decides.
fn bounds(op: &str, operands: &mut Vec<Value>) {
    let mut at = 0;
    while at < operands.len() {
        let mut other = at + 1;
        while other < operands.len() {
            match decided(op == "Or", &operands[at], &operands[other]) {
                Some(one) => {
                    operands[at] = one;
                    operands.remove(other);
                    other = at + 1;
                }
                None => other += 1,
            }
        }
        at += 1;
    }
}

fn decided(or: bool, a: &Value, b: &Value) -> Option<Value> {
    let (left, right) = (a.get("BinaryOp")?, b.get("BinaryOp")?);
    if left["left"] != right["left"] || constant(&left["left"]).is_some() {
        return None;
    }
    let (x, y) = (constant(&left["right"])?, constant(&right["right"])?);
    let order = x.compare(&y)?;
    match (left["op"].as_str()?, right["op"].as_str()?) {
        (one, two) if order.is_eq() && one != two && one != "Eq" && two != "Eq" => match (one, two) {
            // `x < 5` and `x <= 5`: neither is the other, and SQLMesh takes the first.
            ("Lt" | "LtEq", "Lt" | "LtEq") | ("Gt" | "GtEq", "Gt" | "GtEq") => None,
            ("LtEq", "GtEq") | ("GtEq", "LtEq") | ("NotEq", _) | (_, "NotEq") => None,
            _ => (!or).then(|| boolean(false)),
        },
        ("Lt" | "LtEq", "Lt" | "LtEq") => Some(if order.is_le() != or { a } else { b }.clone()),
        ("Gt" | "GtEq", "Gt" | "GtEq") => Some(if order.is_ge() != or { a } else { b }.clone()),
        _ if or => None,
        ("Lt", "Gt" | "GtEq") | ("LtEq", "Gt") => order.is_le().then(|| boolean(false)),
        ("LtEq", "GtEq") => order.is_lt().then(|| boolean(false)),
        ("Gt" | "GtEq", "Lt" | "LtEq") => decided(or, b, a),
        ("Eq", op) => {
            let holds = match op {
                "Lt" => order.is_lt(),
                "LtEq" => order.is_le(),
                "Gt" => order.is_gt(),
                "GtEq" => order.is_ge(),
                "NotEq" => order.is_ne(),
                _ => return None,
            };
            Some(if holds { a.clone() } else { boolean(false) })
        }
        (op, "Eq") if op != "Eq" => decided(or, b, a),
        _ => None,
    }
}

impl Constant<'_> {
    /// The order of two constants of one kind.
    fn compare(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Constant::Text(a), Constant::Text(b)) => Some(a.cmp(b)),
            (Constant::Number(a), Constant::Number(b)) => a.partial_cmp(b),
            // Dates and times sort as their texts do.
            (Constant::Typed(kind, a), Constant::Typed(other, b))
                if kind == other && (*kind == "Date" || *kind == "Timestamp") && a.len() == b.len() =>
            {
                Some(a.cmp(b))
            }
            _ => None,
        }
    }
}

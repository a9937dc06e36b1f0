//! Arithmetic, texts and comparisons of constants, and the sides of comparisons.

use serde_json::{Value, json};

use super::{binary, boolean, is_constant, text};

/// A constant that can be ordered among its kind.
pub(super) enum Constant<'v> {
    Number(f64),
    Text(&'v str),
    /// A text with a type: dates and times.
    Typed(&'v Value, &'v str),
}

pub(super) fn constant(node: &Value) -> Option<Constant<'_>> {
    if let Some(number) = real(node) {
        return Some(Constant::Number(number));
    }
    if let Some(text) = text(node) {
        return Some(Constant::Text(text));
    }
    let cast = node.get("Cast")?;
    Some(Constant::Typed(&cast["data_type"], text(&cast["expr"])?))
}

fn digits(node: &Value) -> Option<&str> {
    node.get("Value")?.get("value")?.get("Number")?.get(0)?.as_str()
}

/// A number, also a negative one.
fn real(node: &Value) -> Option<f64> {
    if let Some(negative) = node.get("UnaryOp").filter(|unary| unary["op"] == "Minus") {
        return digits(&negative["expr"])?.parse().ok().map(|n: f64| -n);
    }
    digits(node)?.parse().ok()
}

fn whole(node: &Value) -> Option<i64> {
    if let Some(negative) = node.get("UnaryOp").filter(|unary| unary["op"] == "Minus") {
        return digits(&negative["expr"])?.parse::<i64>().ok()?.checked_neg();
    }
    digits(node)?.parse().ok()
}

fn literal(number: &str) -> Value {
    let plain = |digits: &str| json!({"Value": {"value": {"Number": [digits, false]}}});
    match number.strip_prefix('-') {
        Some(digits) => json!({"UnaryOp": {"op": "Minus", "expr": plain(digits)}}),
        None => plain(number),
    }
}

fn computed(op: &str, a: &Value, b: &Value) -> Option<Value> {
    if let (Some(x), Some(y)) = (whole(a), whole(b)) {
        let result = match op {
            "Plus" => x.checked_add(y),
            "Minus" => x.checked_sub(y),
            _ => x.checked_mul(y),
        };
        return Some(literal(&result?.to_string()));
    }
    let (x, y) = (real(a)?, real(b)?);
    let result = match op {
        "Plus" => x + y,
        "Minus" => x - y,
        _ => x * y,
    };
    Some(literal(&format!("{result:?}")))
}

/// A sum or product whose constants are one.
pub(super) fn folded(op: &str, left: Value, right: Value) -> Value {
    let mut operands = Vec::new();
    gather(op, left, &mut operands);
    gather(op, right, &mut operands);
    let mut at = 0;
    while at < operands.len() {
        let later = (at + 1..operands.len())
            .find_map(|other| Some((other, computed(op, &operands[at], &operands[other])?)));
        match later {
            Some((other, result)) => {
                operands[at] = result;
                operands.remove(other);
            }
            None => at += 1,
        }
    }
    operands.into_iter().reduce(|all, operand| binary(all, op, operand)).unwrap_or(Value::Null)
}

fn gather(op: &str, mut node: Value, operands: &mut Vec<Value>) {
    match node.get_mut("BinaryOp") {
        Some(inner) if inner["op"] == op => {
            gather(op, inner["left"].take(), operands);
            gather(op, inner["right"].take(), operands);
        }
        _ => operands.push(node),
    }
}

pub(super) fn less(left: Value, right: Value) -> Value {
    computed("Minus", &left, &right).unwrap_or_else(|| binary(left, "Minus", right))
}

/// A comparison: of constants, its outcome; else the column first, and numbers on one side.
pub(super) fn compared(mut node: Value) -> Value {
    loop {
        let comparison = &mut node["BinaryOp"];
        let op = comparison["op"].as_str().unwrap_or("").to_owned();
        let (left, right) = (comparison["left"].take(), comparison["right"].take());
        if let Some(outcome) = outcome(&op, &left, &right) {
            return boolean(outcome);
        }
        if flips(&left, &right) {
            node = binary(right, turned(&op), left);
            continue;
        }
        match moved(&left, &right) {
            Some((left, right)) => node = binary(left, &op, right),
            None => return binary(left, &op, right),
        }
    }
}

fn outcome(op: &str, left: &Value, right: &Value) -> Option<bool> {
    let order = match (constant(left)?, constant(right)?) {
        (Constant::Number(a), Constant::Number(b)) => a.partial_cmp(&b)?,
        (Constant::Text(a), Constant::Text(b)) => a.cmp(b),
        _ => return None,
    };
    Some(match op {
        "Eq" => order.is_eq(),
        "NotEq" => order.is_ne(),
        "Lt" => order.is_lt(),
        "LtEq" => order.is_le(),
        "Gt" => order.is_gt(),
        _ => order.is_ge(),
    })
}

fn turned(op: &str) -> &str {
    match op {
        "Lt" => "Gt",
        "LtEq" => "GtEq",
        "Gt" => "Lt",
        "GtEq" => "LtEq",
        same => same,
    }
}

fn is_column(node: &Value) -> bool {
    node.get("CompoundIdentifier").is_some() || node.get("Identifier").is_some()
}

fn flips(left: &Value, right: &Value) -> bool {
    let (constant, other) = (is_constant(left), is_constant(right));
    match (is_column(left), is_column(right)) {
        (true, false) => false,
        (false, true) => true,
        _ if other && !constant => false,
        _ if constant && !other => true,
        _ => {
            let [left, right] = [left, right].map(Value::to_string);
            left > right
        }
    }
}

/// `x + 1 = 3` as `x = 2`.
fn moved(left: &Value, right: &Value) -> Option<(Value, Value)> {
    let sum = left.get("BinaryOp")?;
    let (op, opposite) = match sum["op"].as_str()? {
        "Plus" => ("Plus", "Minus"),
        "Minus" => ("Minus", "Plus"),
        _ => return None,
    };
    let (a, b) = (&sum["left"], &sum["right"]);
    match (real(a), real(b)) {
        (None, Some(_)) => Some((a.clone(), computed(opposite, right, b)?)),
        (Some(_), None) if op == "Plus" => Some((b.clone(), computed(opposite, right, a)?)),
        _ => None,
    }
}

fn quoted(text: String) -> Value {
    json!({"Value": {"value": {"SingleQuotedString": text}}})
}

/// `'a' || 'b'`.
pub(super) fn joined(left: Value, right: Value) -> Value {
    match (text(&left), text(&right)) {
        (Some(a), Some(b)) => quoted(format!("{a}{b}")),
        _ => binary(left, "StringConcat", right),
    }
}

/// `CONCAT('a', 'b', x)`.
pub(super) fn concat(function: &mut Value) -> Option<Value> {
    if function["name"] != json!([{"Identifier": "concat"}]) {
        return None;
    }
    let args = function["args"].get_mut("List")?.get_mut("args")?.as_array_mut()?;
    let mut at = 0;
    while at + 1 < args.len() {
        let part = |arg: &Value| text(arg.get("Unnamed")?.get("Expr")?).map(str::to_owned);
        match (part(&args[at]), part(&args[at + 1])) {
            (Some(a), Some(b)) => {
                args[at] = json!({"Unnamed": {"Expr": quoted(format!("{a}{b}"))}});
                args.remove(at + 1);
            }
            _ => at += 1,
        }
    }
    match args.as_mut_slice() {
        [only] => text(&only["Unnamed"]["Expr"]).map(|text| quoted(text.to_owned())),
        _ => None,
    }
}

//! What a condition says about columns: windows that every row satisfying it lies in, and equal
//! columns. Only forms that reject NULL count, so that they also hold above outer joins.

use std::collections::BTreeMap;

use sqlparser::ast::{BinaryOperator, DataType, Expr};

use super::bound::{Bound, DAY, Grain, Point, Step, Window};
use super::value::{self, CastTo, TimeValue, Trunc, time_value};
use crate::sql::Dialect;

/// A column of one source of a SELECT: the source's place and the column's normalised name.
pub(super) type Column = (usize, String);

/// The windows of columns.
pub(super) type Windows = BTreeMap<Column, Window>;

/// Resolves an expression that is a plain column.
pub(super) type Resolve<'r> = &'r dyn Fn(&Expr) -> Option<Column>;

/// The windows that a condition puts on columns.
pub(super) fn windows(condition: &Expr, dialect: Dialect, resolve: Resolve<'_>) -> Windows {
    match condition {
        Expr::Nested(inner) => windows(inner, dialect, resolve),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            let mut both = windows(left, dialect, resolve);
            for (column, window) in windows(right, dialect, resolve) {
                narrow(&mut both, column, window);
            }
            both
        }
        Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
            let mut other = windows(right, dialect, resolve);
            windows(left, dialect, resolve)
                .into_iter()
                .filter_map(|(column, window)| {
                    let hull = window.hull(other.remove(&column)?);
                    (!hull.is_open()).then_some((column, hull))
                })
                .collect()
        }
        Expr::BinaryOp { left, op, right } => {
            comparison(left, op, right, dialect, resolve).into_iter().collect()
        }
        Expr::Between { expr, negated: false, low, high } => {
            let mut both = Windows::new();
            let ends = [(BinaryOperator::GtEq, low), (BinaryOperator::LtEq, high)];
            for (column, window) in
                ends.iter().filter_map(|(op, end)| comparison(expr, op, end, dialect, resolve))
            {
                narrow(&mut both, column, window);
            }
            both
        }
        Expr::InList { expr, list, negated: false } => {
            let each = list.iter().map(|item| comparison(expr, &BinaryOperator::Eq, item, dialect, resolve));
            let all: Option<Vec<_>> = each.collect();
            let hull = all.into_iter().flatten().reduce(|a, b| (a.0, a.1.hull(b.1)));
            hull.into_iter().collect()
        }
        _ => Windows::new(),
    }
}

/// Adds a window to what is known about a column.
pub(super) fn narrow(all: &mut Windows, column: Column, window: Window) {
    let known = all.remove(&column).unwrap_or(Window::OPEN);
    all.insert(column, known.and(window));
}

/// Columns that a condition makes equal.
pub(super) fn equalities(condition: &Expr, resolve: Resolve<'_>, found: &mut Vec<(Column, Column)>) {
    match condition {
        Expr::Nested(inner) => equalities(inner, resolve, found),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            equalities(left, resolve, found);
            equalities(right, resolve, found);
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            found.extend(resolve(left).zip(resolve(right)));
        }
        _ => {}
    }
}

fn comparison(
    left: &Expr,
    op: &BinaryOperator,
    right: &Expr,
    dialect: Dialect,
    resolve: Resolve<'_>,
) -> Option<(Column, Window)> {
    if let Some((column, cut)) = column_side(left, dialect, resolve) {
        return Some((column, window(cut, op, &time_value(right, dialect)?)?));
    }
    let flipped = match op {
        BinaryOperator::Lt => BinaryOperator::Gt,
        BinaryOperator::LtEq => BinaryOperator::GtEq,
        BinaryOperator::Gt => BinaryOperator::Lt,
        BinaryOperator::GtEq => BinaryOperator::LtEq,
        BinaryOperator::Eq => BinaryOperator::Eq,
        _ => return None,
    };
    let (column, cut) = column_side(right, dialect, resolve)?;
    Some((column, window(cut, &flipped, &time_value(left, dialect)?)?))
}

/// How the compared side is made of the column's time: cut down, at most by a unit.
#[derive(Debug, Clone, Copy)]
struct Cut {
    unit: Option<Trunc>,
    /// MySQL's casts to a date round half a second up.
    rounds: bool,
}

fn column_side(expr: &Expr, dialect: Dialect, resolve: Resolve<'_>) -> Option<(Column, Cut)> {
    let day = Cut { unit: Some(Trunc::To(Grain::Day)), rounds: dialect == Dialect::MySql };
    match expr {
        Expr::Nested(inner) => column_side(inner, dialect, resolve),
        Expr::Cast { expr, data_type, format: None, .. } => {
            cast_side(resolve(expr)?, data_type, day, dialect)
        }
        Expr::Convert { expr, data_type: Some(data_type), charset: None, styles, .. }
            if styles.is_empty() =>
        {
            cast_side(resolve(expr)?, data_type, day, dialect)
        }
        Expr::Function(function) => {
            let (name, arguments) = value::plain_call(function)?;
            match (name.as_str(), arguments.as_slice()) {
                ("date" | "to_date", [x]) => Some((resolve(x)?, day)),
                ("date_trunc" | "timestamp_trunc" | "datetime_trunc", [a, b]) => {
                    // The unit may stand first or last; a column may be called `day`.
                    let unit = |x: &Expr| value::word(x).and_then(|word| value::trunc(&word));
                    let (unit, x) = match (unit(a), unit(b)) {
                        (Some(unit), None) => (unit, b),
                        (None, Some(unit)) => (unit, a),
                        (Some(unit), Some(_)) if matches!(a, Expr::Value(_)) => (unit, b),
                        _ => return None,
                    };
                    Some((resolve(x)?, Cut { unit: Some(unit), rounds: false }))
                }
                _ => None,
            }
        }
        plain => Some((resolve(plain)?, Cut { unit: None, rounds: false })),
    }
}

fn cast_side(column: Column, data_type: &DataType, day: Cut, dialect: Dialect) -> Option<(Column, Cut)> {
    match value::cast_to(data_type, dialect)? {
        CastTo::Day => Some((column, day)),
        // A type that keeps less than the column does cuts it, to seconds at worst.
        CastTo::Same => Some((column, Cut { unit: Some(Trunc::To(Grain::Second)), rounds: false })),
        CastTo::Text => None,
    }
}

fn window(cut: Cut, op: &BinaryOperator, value: &TimeValue) -> Option<Window> {
    let lower = || Window { lower: Bound::At(lower(cut, value)), upper: Bound::Open };
    let upper = |inclusive| Window { lower: Bound::Open, upper: Bound::At(upper(cut, value, inclusive)) };
    match op {
        BinaryOperator::Gt | BinaryOperator::GtEq => Some(lower()),
        BinaryOperator::Lt => Some(upper(false)),
        BinaryOperator::LtEq => Some(upper(true)),
        BinaryOperator::Eq => Some(lower().and(upper(true))),
        _ => None,
    }
}

/// What is cut down is no later than the column, so the column is no earlier than the value.
fn lower(cut: Cut, value: &TimeValue) -> Point {
    if cut.rounds { value.low.then(Step::Micros(-DAY / 86_400)) } else { value.low.clone() }
}

/// The first time after all that qualify.
fn upper(cut: Cut, value: &TimeValue, inclusive: bool) -> Point {
    let high = &value.high;
    let past = |grain| high.then(Step::Floor(grain)).then(Step::next(grain));
    match (cut.unit, inclusive) {
        (Some(Trunc::Week), _) => high.then(Step::Micros(7 * DAY)),
        (Some(Trunc::To(grain)), true) if value.whole_day => past(grain.max(Grain::Day)),
        (Some(Trunc::To(grain)), true) => past(grain),
        (Some(Trunc::To(grain)), false) => high.then(Step::Ceil(grain)),
        (None, true) if value.whole_day => past(Grain::Day),
        (None, true) => high.then(Step::Micros(1)),
        (None, false) => high.clone(),
    }
}

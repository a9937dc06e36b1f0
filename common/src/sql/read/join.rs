//! What kinds of joins mean for conditions.

use std::ops::Range;

use sqlparser::ast::{Expr, JoinConstraint, JoinOperator};

/// Which sources a join's condition restricts: rows that fail it contribute nothing.
pub(super) fn restricted(operator: &JoinOperator, left: Range<usize>, right: Range<usize>) -> Range<usize> {
    match operator {
        JoinOperator::Join(_)
        | JoinOperator::Inner(_)
        | JoinOperator::CrossJoin(_)
        | JoinOperator::Semi(_)
        | JoinOperator::LeftSemi(_)
        | JoinOperator::RightSemi(_) => left.start..right.end,
        JoinOperator::Left(_)
        | JoinOperator::LeftOuter(_)
        | JoinOperator::Anti(_)
        | JoinOperator::LeftAnti(_) => right,
        JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::RightAnti(_) => left,
        _ => 0..0,
    }
}

/// The condition of a join, where its kind has one.
pub(in crate::sql) fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    match operator {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c)
        | JoinOperator::Right(c)
        | JoinOperator::RightOuter(c)
        | JoinOperator::FullOuter(c)
        | JoinOperator::CrossJoin(c)
        | JoinOperator::Semi(c)
        | JoinOperator::LeftSemi(c)
        | JoinOperator::RightSemi(c)
        | JoinOperator::Anti(c)
        | JoinOperator::LeftAnti(c)
        | JoinOperator::RightAnti(c)
        | JoinOperator::StraightJoin(c) => Some(c),
        JoinOperator::AsOf { constraint, .. } => Some(constraint),
        _ => None,
    }
}

pub(super) fn condition(operator: &JoinOperator) -> Option<&Expr> {
    match constraint(operator)? {
        JoinConstraint::On(condition) => Some(condition),
        _ => None,
    }
}

pub(super) fn merges(operator: &JoinOperator) -> bool {
    matches!(constraint(operator), Some(JoinConstraint::Using(_) | JoinConstraint::Natural))
}

pub(super) fn is_outer(operator: &JoinOperator) -> bool {
    !matches!(
        operator,
        JoinOperator::Join(_)
            | JoinOperator::Inner(_)
            | JoinOperator::CrossJoin(_)
            | JoinOperator::StraightJoin(_)
    )
}

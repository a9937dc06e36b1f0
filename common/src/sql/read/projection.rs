//! Conditions on a SELECT's output, asked of what it reads.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    self, Distinct, Expr, Function, GroupByExpr, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Visit,
    Visitor, WildcardAdditionalOptions,
};

use super::bound::Window;
use super::predicate::Column;
use super::scan::Scope;
use super::value::integer;
use crate::sql::Dialect;
use crate::sql::references::normalize;

/// Windows that rows of a query must lie in to matter to its reader, by output column.
#[derive(Debug, Clone, Default)]
pub(super) struct OutputWindows(BTreeMap<String, Window>);

impl OutputWindows {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn insert(&mut self, column: String, window: Window) {
        self.0.insert(column, window);
    }

    /// The same windows under the names that another branch of a set operation has for them.
    pub(super) fn renamed(&self, first: &[String], own: &[String]) -> Self {
        let mut renamed = Self::new();
        for (name, window) in &self.0 {
            let mut places = first.iter().enumerate().filter(|(_, n)| *n == name);
            if let (Some((at, _)), None) = (places.next(), places.next())
                && let Some(own) = own.get(at).filter(|_| first.len() == own.len())
            {
                renamed.0.insert(own.clone(), window.clone());
            }
        }
        renamed
    }
}

/// The names of a query body's columns, where all are written out.
pub(super) fn output_names(body: &SetExpr, dialect: Dialect) -> Option<Vec<String>> {
    match body {
        SetExpr::Select(select) => select.projection.iter().map(|item| item_name(item, dialect)).collect(),
        SetExpr::Query(query) => output_names(&query.body, dialect),
        SetExpr::SetOperation { left, .. } => output_names(left, dialect),
        _ => None,
    }
}

/// An item's name; one that has none gets a name that no column has.
fn item_name(item: &SelectItem, dialect: Dialect) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(normalize(dialect, alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some(normalize(dialect, ident)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(path)) => {
            path.last().map(|ident| normalize(dialect, ident))
        }
        SelectItem::UnnamedExpr(_) => Some("\0".to_owned()),
        SelectItem::ExprWithAliases { .. } | SelectItem::QualifiedWildcard(..) | SelectItem::Wildcard(_) => {
            None
        }
    }
}

/// The windows of the sources' columns that follow from windows of the output: only for columns
/// that pass through as they are, and where filtering before or after the SELECT is the same.
pub(super) fn through_projection(
    select: &ast::Select,
    scope: &Scope<'_, '_>,
    outer: &OutputWindows,
) -> Vec<(Column, Window)> {
    if outer.0.is_empty() || !commutes(select) {
        return Vec::new();
    }
    let pass = |(name, window): (&String, &Window)| Some((origin(select, scope, name)?, window.clone()));
    outer.0.iter().filter_map(pass).collect()
}

fn commutes(select: &ast::Select) -> bool {
    let mut calls = Calls { window: false, aggregate: false };
    let _ = select.projection.visit(&mut calls);
    let grouped = match &select.group_by {
        GroupByExpr::All(modifiers) => modifiers.is_empty(),
        GroupByExpr::Expressions(keys, modifiers) => {
            let sets = |key: &Expr| matches!(key, Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_));
            modifiers.is_empty() && !keys.iter().any(sets) && !(keys.is_empty() && calls.aggregate)
        }
    };
    grouped
        && !calls.window
        && select.top.is_none()
        && select.qualify.is_none()
        && select.value_table_mode.is_none()
        && select.exclude.is_none()
        && select.connect_by.is_empty()
        && !matches!(select.distinct, Some(Distinct::On(_)))
}

struct Calls {
    window: bool,
    aggregate: bool,
}

impl Visitor for Calls {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            self.window |= function.over.is_some();
            self.aggregate |= may_aggregate(function);
        }
        ControlFlow::Continue(())
    }
}

/// Only names that are known for plain functions are safe: some engines let an ungrouped
/// aggregate stand beside a plain column.
fn may_aggregate(function: &Function) -> bool {
    let name = function.name.to_string().to_ascii_lowercase();
    const SCALAR: [&str; 24] = [
        "coalesce",
        "lower",
        "upper",
        "trim",
        "ltrim",
        "rtrim",
        "length",
        "substr",
        "substring",
        "concat",
        "round",
        "abs",
        "floor",
        "ceil",
        "date",
        "date_trunc",
        "nullif",
        "ifnull",
        "if",
        "iff",
        "replace",
        "greatest",
        "least",
        "md5",
    ];
    !SCALAR.contains(&name.as_str())
}

/// The source column that an output column is.
fn origin(select: &ast::Select, scope: &Scope<'_, '_>, name: &str) -> Option<Column> {
    let dialect = scope.dialect();
    let stars: Vec<&SelectItem> =
        select.projection.iter().filter(|item| item_name(item, dialect).is_none()).collect();
    let named = |item: &&SelectItem| item_name(item, dialect).as_deref() == Some(name);
    let mut hits = select.projection.iter().enumerate().filter(|(_, item)| named(item));
    match (hits.next(), hits.next(), stars.as_slice()) {
        (Some((at, item)), None, []) => {
            let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else {
                return None;
            };
            let column = scope.resolve(expr)?;
            is_key(&select.group_by, at + 1, &column, scope).then_some(column)
        }
        (None, None, [star]) if ungrouped(&select.group_by) => {
            let source = match star {
                SelectItem::Wildcard(options) if plain(options) && scope.sources.len() == 1 => Some(0),
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(path), options)
                    if plain(options) =>
                {
                    let parts = path.0.iter().map(|part| Some(normalize(dialect, part.as_ident()?)));
                    scope.qualified(&parts.collect::<Option<Vec<_>>>()?)
                }
                _ => None,
            };
            Some((source?, name.to_owned()))
        }
        _ => None,
    }
}

fn plain(options: &WildcardAdditionalOptions) -> bool {
    options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_alias.is_none()
}

fn ungrouped(group_by: &GroupByExpr) -> bool {
    matches!(group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty())
}

/// Whether a plain column in the SELECT list is one that rows are grouped by (or none are).
fn is_key(group_by: &GroupByExpr, ordinal: usize, column: &Column, scope: &Scope<'_, '_>) -> bool {
    match group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(keys, _) => {
            keys.is_empty()
                || keys.iter().any(|key| {
                    integer(key).is_some_and(|n| usize::try_from(n) == Ok(ordinal))
                        || scope.resolve(key).as_ref() == Some(column)
                })
        }
    }
}

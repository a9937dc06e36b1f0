//! What stands in a FROM, and finding columns there.

use std::rc::Rc;

use sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, JoinConstraint, JoinOperator, PivotValueSource, TableAlias,
    TableFactor, TableWithJoins,
};

use super::{Column, ColumnLineage, Env, Resolver, Rest, Table};
use crate::sql::Dialect;
use crate::sql::read::join_constraint;
use crate::sql::references::normalize;

/// One thing in a FROM.
pub(super) struct Source {
    alias: Option<String>,
    path: Vec<String>,
    table: Rc<Table>,
    /// Whether only conditions see it: the far side of a semi join.
    hidden: bool,
}

/// The names that an expression may use.
pub(super) struct Scope<'p> {
    pub(super) dialect: Dialect,
    pub(super) env: &'p Env,
    parent: Option<&'p Scope<'p>>,
    sources: Vec<Source>,
    /// Columns that USING and NATURAL joins made one of several.
    merged: Vec<Column>,
    /// The SELECT's aliases so far.
    pub(super) aliases: Vec<Column>,
}

impl<'p> Scope<'p> {
    pub(super) fn new(dialect: Dialect, env: &'p Env, parent: Option<&'p Scope<'p>>) -> Self {
        Self { dialect, env, parent, sources: Vec::new(), merged: Vec::new(), aliases: Vec::new() }
    }

    fn add(&mut self, alias: Option<String>, path: Vec<String>, table: Rc<Table>) {
        let alias = alias.or_else(|| path.last().cloned());
        self.sources.push(Source { alias, path, table, hidden: false });
    }

    /// The column that a path of names means here or in a query around; nothing if there is none.
    pub(super) fn find(&self, path: &[String]) -> Option<Column> {
        let here = match path {
            [] => None,
            [name] => self.bare(name),
            _ => self.qualified(path).or_else(|| self.bare(&path[0]).map(field)),
        };
        here.or_else(|| self.parent.and_then(|parent| parent.find(path)))
    }

    fn qualified(&self, path: &[String]) -> Option<Column> {
        (1..path.len()).rev().find_map(|length| {
            let source = self.source(&path[..length])?;
            let column = source.table.column(&path[length]).cloned();
            let found = column.or_else(|| source.table.beyond(&path[length]));
            let found = found.unwrap_or_else(|| Column::new(path[length].clone(), ColumnLineage::unknown()));
            Some(if length + 1 < path.len() { field(found) } else { found })
        })
    }

    fn source(&self, qualifier: &[String]) -> Option<&Source> {
        self.sources.iter().find(|source| match qualifier {
            [alias] => source.alias.as_ref() == Some(alias),
            path => source.path.ends_with(path),
        })
    }

    fn bare(&self, name: &str) -> Option<Column> {
        if let Some(column) = self.merged.iter().find(|column| column.name == name) {
            return Some(column.clone());
        }
        let visible = || self.sources.iter().filter(|source| !source.hidden);
        if let Some(column) = visible().find_map(|source| source.table.column(name)) {
            return Some(column.clone());
        }
        if let Some(column) = self.aliases.iter().rev().find(|column| column.name == name) {
            return Some(column.clone());
        }
        let mut open = visible().filter_map(|source| source.table.beyond(name));
        match (open.next(), open.next()) {
            (Some(column), None) => Some(column),
            (Some(_), Some(_)) => Some(Column::new(name.to_owned(), ColumnLineage::unknown())),
            // The whole row, as a value: `SELECT t FROM t`.
            (None, _) => self.source(&[name.to_owned()]).map(whole_row),
        }
    }

    /// The columns of a star, and what more there are; nothing if there is no such source.
    pub(super) fn all_columns(&self, qualifier: Option<&[String]>) -> Option<(Vec<Column>, Option<Rest>)> {
        let sources: Vec<&Source> = match qualifier {
            Some(qualifier) => vec![self.source(qualifier)?],
            None => self.sources.iter().filter(|source| !source.hidden).collect(),
        };
        let mut columns: Vec<Column> = Vec::new();
        let mut rest = None;
        for source in &sources {
            for column in &source.table.columns {
                // As in SQLMesh, a column of USING is both sides' even where one side's star names it.
                let mut merged = self.merged.iter().filter(|m| m.name == column.name);
                let merged = merged
                    .find(|m| qualifier.is_none() || m.origin.sources.is_superset(&column.origin.sources));
                match merged {
                    Some(merged) if columns.iter().any(|c| c.name == merged.name) => {}
                    Some(merged) => columns.push(merged.clone()),
                    None => columns.push(column.clone()),
                }
            }
            if !source.table.complete {
                rest = Some(match (&source.table.rest, sources.len()) {
                    (known, 1) => known.clone(),
                    _ => Rest::Made(ColumnLineage::unknown()),
                });
            }
        }
        Some((columns, rest))
    }

    /// Makes the columns of the same name on both sides of a join one.
    fn merge(&mut self, middle: usize, names: &[String]) {
        for name in names {
            let mut origin = ColumnLineage::default();
            let mut data_type = None;
            if let Some(before) = self.merged.iter().position(|column| column.name == *name) {
                origin = self.merged.remove(before).origin;
            }
            let (left, right) = self.sources.split_at(middle);
            for side in [left, right] {
                let listed = side.iter().find_map(|source| source.table.column(name).cloned());
                let found = listed.or_else(|| match side {
                    [only] => only.table.beyond(name),
                    _ => None,
                });
                match found {
                    Some(column) => {
                        origin.add(&column.origin);
                        data_type = data_type.or(column.data_type);
                    }
                    None => origin.unknown = true,
                }
            }
            self.merged.push(Column { data_type, ..Column::new(name.clone(), origin) });
        }
    }

    fn common_names(&self, middle: usize) -> Vec<String> {
        let (left, right) = self.sources.split_at(middle);
        let names = left.iter().flat_map(|source| &source.table.columns).map(|column| column.name.clone());
        names.filter(|name| right.iter().any(|source| source.table.column(name).is_some())).collect()
    }
}

fn field(column: Column) -> Column {
    Column { data_type: None, ..column }
}

fn whole_row(source: &Source) -> Column {
    let mut origin = ColumnLineage::default();
    for column in &source.table.columns {
        origin.add(&column.origin);
    }
    origin.unknown |= !source.table.complete;
    Column::new(source.alias.clone().unwrap_or_default(), origin)
}

impl Resolver<'_> {
    pub(super) fn tree(&self, tree: &TableWithJoins, scope: &mut Scope<'_>) {
        self.factor(&tree.relation, scope);
        for join in &tree.joins {
            let middle = scope.sources.len();
            self.factor(&join.relation, scope);
            let hides = matches!(
                join.join_operator,
                JoinOperator::Semi(_)
                    | JoinOperator::LeftSemi(_)
                    | JoinOperator::Anti(_)
                    | JoinOperator::LeftAnti(_)
            );
            if hides {
                scope.sources[middle..].iter_mut().for_each(|source| source.hidden = true);
                continue;
            }
            match join_constraint(&join.join_operator) {
                Some(JoinConstraint::Using(names)) => {
                    let last =
                        |name: &ast::ObjectName| Some(normalize(scope.dialect, name.0.last()?.as_ident()?));
                    let names: Vec<String> = names.iter().filter_map(last).collect();
                    scope.merge(middle, &names);
                }
                Some(JoinConstraint::Natural) => {
                    let names = scope.common_names(middle);
                    scope.merge(middle, &names);
                }
                _ => {}
            }
        }
    }

    fn factor(&self, factor: &TableFactor, scope: &mut Scope<'_>) {
        let (alias, table) = match factor {
            TableFactor::Table { name, alias, args, .. } => {
                let parts = name.0.iter().map(|part| part.as_ident());
                let parts: Option<Vec<String>> =
                    parts.map(|ident| ident.map(|ident| normalize(self.dialect, ident))).collect();
                let Some(path) = parts else {
                    return scope.add(alias_name(alias, self.dialect), Vec::new(), Rc::new(unknown()));
                };
                if let Some(args) = args {
                    (alias, self.function(&args.args, &path, scope))
                } else {
                    let table = self.relation(&path, scope);
                    let shown = alias_name(alias, self.dialect);
                    let path = if shown.is_some() { Vec::new() } else { path };
                    let columns = alias_columns(alias, self.dialect);
                    let table = if columns.is_empty() {
                        table
                    } else {
                        Rc::new(Table::clone(&table).renamed(&columns))
                    };
                    return scope.add(shown, path, table);
                }
            }
            TableFactor::Derived { lateral, subquery, alias, .. } => {
                let parent = if *lateral { Some(&*scope) } else { scope.parent };
                (alias, self.query(subquery, scope.env, parent))
            }
            TableFactor::NestedJoin { table_with_joins, .. } => return self.tree(table_with_joins, scope),
            TableFactor::UNNEST { alias, array_exprs, with_offset_alias, .. } => {
                let table = self.unnest(alias, array_exprs, with_offset_alias.as_ref(), scope);
                return scope.add(alias_name(alias, self.dialect), Vec::new(), Rc::new(table));
            }
            TableFactor::Function { name, args, alias, .. } => {
                (alias, self.function(args, &[name.to_string().to_lowercase()], scope))
            }
            TableFactor::TableFunction { expr, alias } => {
                let origin = self.origin(expr, scope);
                (alias, Table { rest: Rest::Made(origin), ..Table::default() })
            }
            TableFactor::Pivot { table, aggregate_functions, value_column, value_source, alias, .. } => {
                (alias, self.pivot(table, aggregate_functions, value_column, value_source, scope))
            }
            TableFactor::Unpivot { table, value, name, columns, alias, .. } => {
                (alias, self.unpivot(table, value, name, columns, scope))
            }
            _ => (&None, unknown()),
        };
        let table = table.renamed(&alias_columns(alias, self.dialect));
        scope.add(alias_name(alias, self.dialect), Vec::new(), Rc::new(table));
    }

    fn relation(&self, path: &[String], scope: &Scope<'_>) -> Rc<Table> {
        if let [name] = path
            && let Some((_, table)) = scope.env.iter().rev().find(|(cte, _)| cte == name)
        {
            return table.clone();
        }
        if matches!(self.dialect, Dialect::BigQuery | Dialect::Redshift)
            && path.len() > 1
            && let Some(array) = scope.qualified(path)
        {
            return Rc::new(Table { rest: Rest::Made(array.origin), ..Table::default() });
        }
        let relation = path.join(".");
        Rc::new(match self.schemas.columns(path) {
            Some(columns) => Table {
                columns: columns
                    .iter()
                    .map(|c| Column {
                        data_type: Some(c.data_type.clone()).filter(|t| !t.is_empty()),
                        ..Column::new(c.name.clone(), ColumnLineage::one(&relation, &c.name))
                    })
                    .collect(),
                complete: true,
                rest: Rest::None,
            },
            None => Table { columns: Vec::new(), complete: false, rest: Rest::Relation(relation) },
        })
    }

    fn function(&self, args: &[FunctionArg], name: &[String], scope: &Scope<'_>) -> Table {
        let mut origin = ColumnLineage::default();
        for arg in args {
            let (FunctionArg::Named { arg, .. }
            | FunctionArg::ExprNamed { arg, .. }
            | FunctionArg::Unnamed(arg)) = arg;
            if let FunctionArgExpr::Expr(expr) = arg {
                origin.add(&self.origin(expr, scope));
            }
        }
        // A file's columns come from outside all relations.
        let reads = name.last().is_some_and(|name| name.starts_with("read_") || name.ends_with("_scan"));
        origin.unknown |= reads;
        Table { rest: Rest::Made(origin), ..Table::default() }
    }

    fn unnest(
        &self,
        alias: &Option<TableAlias>,
        arrays: &[Expr],
        offset: Option<&ast::Ident>,
        scope: &Scope<'_>,
    ) -> Table {
        let mut origin = ColumnLineage::default();
        for array in arrays {
            origin.add(&self.origin(array, scope));
        }
        let mut names = alias_columns(alias, self.dialect);
        if names.is_empty() {
            names.extend(alias_name(alias, self.dialect));
        }
        let mut columns: Vec<Column> =
            names.into_iter().map(|name| Column::new(name, origin.clone())).collect();
        let offset = offset.map(|ident| normalize(self.dialect, ident));
        columns.extend(offset.map(|name| Column::new(name, ColumnLineage::default())));
        Table { columns, complete: false, rest: Rest::Made(origin) }
    }

    /// The table under a factor by itself, and a scope with nothing else.
    fn inside<'p>(&self, factor: &TableFactor, scope: &Scope<'p>) -> (Rc<Table>, Scope<'p>) {
        let mut inner = Scope::new(self.dialect, scope.env, scope.parent);
        self.factor(factor, &mut inner);
        let table = match inner.sources.as_slice() {
            [only] => only.table.clone(),
            _ => Rc::new(unknown()),
        };
        (table, inner)
    }

    fn pivot(
        &self,
        factor: &TableFactor,
        aggregates: &[ast::ExprWithAlias],
        keys: &[Expr],
        values: &PivotValueSource,
        scope: &Scope<'_>,
    ) -> Table {
        let (table, inner) = self.inside(factor, scope);
        let mut used = ColumnLineage::default();
        let mut made = ColumnLineage::default();
        for aggregate in aggregates {
            made.add(&self.origin(&aggregate.expr, &inner));
        }
        used.add(&made);
        keys.iter().for_each(|key| used.add(&self.origin(key, &inner)));
        let kept = |c: &&Column| c.origin.sources.is_empty() || !c.origin.sources.is_subset(&used.sources);
        let mut columns: Vec<Column> = table.columns.iter().filter(kept).cloned().collect();
        let PivotValueSource::List(values) = values else {
            return Table { columns, complete: false, rest: Rest::Made(made) };
        };
        for value in values {
            let name = match (&value.alias, &value.expr) {
                (Some(alias), _) => normalize(self.dialect, alias),
                (None, Expr::Value(literal)) => {
                    literal.value.clone().into_string().unwrap_or_else(|| literal.to_string())
                }
                (None, other) => other.to_string(),
            };
            columns.push(Column::new(self.dialect.normalize(&name, true), made.clone()));
        }
        Table { columns, complete: table.complete && aggregates.len() == 1, rest: table.rest.clone() }
    }

    fn unpivot(
        &self,
        factor: &TableFactor,
        value: &Expr,
        name: &ast::Ident,
        turned: &[ast::ExprWithAlias],
        scope: &Scope<'_>,
    ) -> Table {
        let (table, inner) = self.inside(factor, scope);
        let mut made = ColumnLineage::default();
        turned.iter().for_each(|column| made.add(&self.origin(&column.expr, &inner)));
        let kept = |c: &&Column| c.origin.sources.is_empty() || !c.origin.sources.is_subset(&made.sources);
        let mut columns: Vec<Column> = table.columns.iter().filter(kept).cloned().collect();
        columns.push(Column::new(normalize(self.dialect, name), ColumnLineage::default()));
        if let Expr::Identifier(ident) = value {
            columns.push(Column::new(normalize(self.dialect, ident), made));
        }
        Table { columns, complete: table.complete, rest: table.rest.clone() }
    }

    pub(super) fn lateral_views(&self, views: &[ast::LateralView], scope: &mut Scope<'_>) {
        for view in views {
            let origin = self.origin(&view.lateral_view, scope);
            let column = |ident| Column::new(normalize(self.dialect, ident), origin.clone());
            let columns: Vec<Column> = view.lateral_col_alias.iter().map(column).collect();
            let complete = !columns.is_empty();
            let rest = if complete { Rest::None } else { Rest::Made(origin) };
            let alias = view.lateral_view_name.0.last().and_then(|part| part.as_ident());
            let alias = alias.map(|ident| normalize(self.dialect, ident));
            scope.add(alias, Vec::new(), Rc::new(Table { columns, complete, rest }));
        }
    }
}

fn unknown() -> Table {
    Table { rest: Rest::Made(ColumnLineage::unknown()), ..Table::default() }
}

fn alias_name(alias: &Option<TableAlias>, dialect: Dialect) -> Option<String> {
    alias.as_ref().map(|alias| normalize(dialect, &alias.name))
}

fn alias_columns(alias: &Option<TableAlias>, dialect: Dialect) -> Vec<String> {
    let columns = alias.iter().flat_map(|alias| &alias.columns);
    columns.map(|column| normalize(dialect, &column.name)).collect()
}

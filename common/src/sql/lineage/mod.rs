//! A query's output columns: their names and types, and the source columns they are made of.

mod expression;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use sqlparser::ast::{
    self, Expr, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, SetQuantifier,
    WildcardAdditionalOptions,
};

use self::source::Scope;
use super::Dialect;
use super::parse::Query;
use super::references::{cte_sees_itself, normalize};
use crate::project::model::ColumnDef;

/// What is known about relations outside the query.
pub trait Schemas {
    /// A relation's columns in order, by its normalised name's parts; nothing if they aren't known.
    fn columns(&self, relation: &[String]) -> Option<&[ColumnDef]>;
}

/// No relation is known.
impl Schemas for () {
    fn columns(&self, _: &[String]) -> Option<&[ColumnDef]> {
        None
    }
}

/// A column of a query's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputColumn {
    /// Its normalised name.
    pub name: String,
    /// Its type in the query's dialect, where that is certain.
    pub data_type: Option<String>,
}

/// What a column is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnLineage {
    /// Relations (normalised parts joined by dots) and their columns.
    pub sources: BTreeSet<(String, String)>,
    /// Whether it may be made of more than that.
    pub unknown: bool,
}

/// What a query's columns are made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lineage {
    /// By output column; columns without a name of their own are called `_col_N` by their place.
    pub columns: BTreeMap<String, ColumnLineage>,
    /// Whether these are all columns: a star over an unknown relation has more.
    pub complete: bool,
}

impl Query {
    /// The result's columns in order, or nothing where a star can't be expanded or a column has no
    /// name that the text gives.
    pub fn output_columns(&self, schemas: &dyn Schemas) -> Option<Vec<OutputColumn>> {
        if self.opaque {
            return None;
        }
        let table = self.table(schemas);
        if !table.complete || table.columns.iter().any(|column| !column.named) {
            return None;
        }
        let output = |c: &Column| OutputColumn { name: c.name.clone(), data_type: c.data_type.clone() };
        Some(table.columns.iter().map(output).collect())
    }

    /// The names of the result's columns in order, and whether the text gives them, where no star stands
    /// for others; a column whose name is up to the engine is called as in [`Lineage`].
    pub(crate) fn outputs(&self, schemas: &dyn Schemas) -> Option<Vec<(String, bool)>> {
        let table = (!self.opaque).then(|| self.table(schemas)).filter(|table| table.complete)?;
        Some(table.columns.into_iter().map(|column| (column.name, column.named)).collect())
    }

    /// What every output column is made of.
    pub fn lineage(&self, schemas: &dyn Schemas) -> Lineage {
        if self.opaque {
            return Lineage { columns: BTreeMap::new(), complete: false };
        }
        let table = self.table(schemas);
        let mut columns: BTreeMap<String, ColumnLineage> = BTreeMap::new();
        for column in &table.columns {
            columns.entry(column.name.clone()).or_insert_with(|| column.origin.clone());
        }
        Lineage { columns, complete: table.complete }
    }

    fn table(&self, schemas: &dyn Schemas) -> Table {
        Resolver { dialect: self.dialect, schemas }.query(&self.ast, &Env::new(), None)
    }
}

impl ColumnLineage {
    fn one(relation: &str, column: &str) -> Self {
        Self { sources: BTreeSet::from([(relation.to_owned(), column.to_owned())]), unknown: false }
    }

    fn unknown() -> Self {
        Self { sources: BTreeSet::new(), unknown: true }
    }

    fn add(&mut self, other: &Self) {
        self.sources.extend(other.sources.iter().cloned());
        self.unknown |= other.unknown;
    }
}

/// A column of something that can be read from.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    /// Whether the text gives the name.
    named: bool,
    origin: ColumnLineage,
    data_type: Option<String>,
}

impl Column {
    fn new(name: String, origin: ColumnLineage) -> Self {
        Self { name, named: true, origin, data_type: None }
    }
}

/// Columns beyond those listed.
#[derive(Debug, Clone, Default)]
enum Rest {
    /// There are none.
    #[default]
    None,
    /// Those of a relation that isn't known.
    Relation(String),
    /// Some, all made of this.
    Made(ColumnLineage),
}

/// Something that can be read from.
#[derive(Debug, Clone, Default)]
struct Table {
    columns: Vec<Column>,
    complete: bool,
    rest: Rest,
}

impl Table {
    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// A column that isn't listed.
    fn beyond(&self, name: &str) -> Option<Column> {
        let origin = match &self.rest {
            Rest::None => return None,
            Rest::Relation(relation) => ColumnLineage::one(relation, name),
            Rest::Made(origin) => origin.clone(),
        };
        Some(Column::new(name.to_owned(), origin))
    }

    /// With other names for the first columns.
    fn renamed(mut self, names: &[String]) -> Self {
        for (at, name) in names.iter().enumerate() {
            match self.columns.get_mut(at) {
                Some(column) => column.name.clone_from(name),
                None => {
                    let origin = match &self.rest {
                        Rest::Made(origin) => origin.clone(),
                        _ => ColumnLineage::unknown(),
                    };
                    self.columns.push(Column::new(name.clone(), origin));
                }
            }
        }
        self
    }
}

/// Common table expressions in scope; later ones hide earlier ones.
type Env = Vec<(String, Rc<Table>)>;

struct Resolver<'s> {
    dialect: Dialect,
    schemas: &'s dyn Schemas,
}

impl Resolver<'_> {
    fn query(&self, query: &ast::Query, env: &Env, parent: Option<&Scope<'_>>) -> Table {
        if !query.pipe_operators.is_empty() {
            return Table { rest: Rest::Made(ColumnLineage::unknown()), ..Table::default() };
        }
        let Some(with) = &query.with else { return self.body(&query.body, env, parent) };
        let mut env = env.clone();
        for cte in &with.cte_tables {
            let name = normalize(self.dialect, &cte.alias.name);
            let columns: Vec<String> =
                cte.alias.columns.iter().map(|c| normalize(self.dialect, &c.name)).collect();
            if cte_sees_itself(self.dialect, with.recursive, cte)
                && let SetExpr::SetOperation { left, .. } = &*cte.query.body
            {
                let first = self.body(left, &env, parent).renamed(&columns);
                env.push((name.clone(), Rc::new(first)));
                let whole = self.query(&cte.query, &env, parent).renamed(&columns);
                env.pop();
                env.push((name, Rc::new(whole)));
            } else {
                let table = self.query(&cte.query, &env, parent).renamed(&columns);
                env.push((name, Rc::new(table)));
            }
        }
        self.body(&query.body, &env, parent)
    }

    fn body(&self, body: &SetExpr, env: &Env, parent: Option<&Scope<'_>>) -> Table {
        match body {
            SetExpr::Select(select) => self.select(select, env, parent),
            SetExpr::Query(query) => self.query(query, env, parent),
            SetExpr::SetOperation { left, right, set_quantifier, .. } => {
                let left = self.body(left, env, parent);
                let right = self.body(right, env, parent);
                let by_name = matches!(
                    set_quantifier,
                    SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName
                );
                if by_name { united_by_name(left, right) } else { united(left, right) }
            }
            SetExpr::Values(values) => self.values(values, env, parent),
            _ => Table { rest: Rest::Made(ColumnLineage::unknown()), ..Table::default() },
        }
    }

    fn values(&self, values: &ast::Values, env: &Env, parent: Option<&Scope<'_>>) -> Table {
        let scope = Scope::new(self.dialect, env, parent);
        let mut columns: Vec<Column> = Vec::new();
        for row in &values.rows {
            for (at, expr) in row.content.iter().enumerate() {
                let origin = self.origin(expr, &scope);
                match columns.get_mut(at) {
                    Some(column) => column.origin.add(&origin),
                    None => columns.push(Column { named: false, ..Column::new(format!("col{at}"), origin) }),
                }
            }
        }
        Table { columns, complete: true, rest: Rest::None }
    }

    fn select(&self, select: &ast::Select, env: &Env, parent: Option<&Scope<'_>>) -> Table {
        let mut scope = Scope::new(self.dialect, env, parent);
        for tree in &select.from {
            self.tree(tree, &mut scope);
        }
        self.lateral_views(&select.lateral_views, &mut scope);
        let mut out = Table { complete: true, ..Table::default() };
        if select.projection.is_empty() {
            self.star(&scope, None, &WildcardAdditionalOptions::default(), &mut out);
        }
        for item in &select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    let column = self.unnamed(expr, &scope, out.columns.len());
                    out.columns.push(column);
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    let column = Column {
                        data_type: self.data_type(expr, &scope),
                        ..Column::new(normalize(self.dialect, alias), self.origin(expr, &scope))
                    };
                    scope.aliases.push(column.clone());
                    out.columns.push(column);
                }
                SelectItem::ExprWithAliases { expr, aliases } => {
                    let origin = self.origin(expr, &scope);
                    let column = |alias| Column::new(normalize(self.dialect, alias), origin.clone());
                    out.columns.extend(aliases.iter().map(column));
                }
                SelectItem::Wildcard(options) => self.star(&scope, None, options, &mut out),
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    let parts = name.0.iter().filter_map(|part| part.as_ident());
                    let parts: Vec<String> = parts.map(|ident| normalize(self.dialect, ident)).collect();
                    self.star(&scope, Some(&parts), options, &mut out);
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(expr), _) => {
                    out.complete = false;
                    out.rest = Rest::Made(self.origin(expr, &scope));
                }
            }
        }
        out
    }

    fn unnamed(&self, expr: &Expr, scope: &Scope<'_>, at: usize) -> Column {
        let name = match expr {
            Expr::Identifier(ident) => Some(normalize(self.dialect, ident)),
            Expr::CompoundIdentifier(path) => path.last().map(|ident| normalize(self.dialect, ident)),
            _ => None,
        };
        Column {
            named: name.is_some(),
            name: name.or_else(|| self.implied_name(expr)).unwrap_or_else(|| format!("_col_{at}")),
            origin: self.origin(expr, scope),
            data_type: self.data_type(expr, scope),
        }
    }

    /// What SQLMesh calls an output whose name is up to the engine: what is cast, a literal's text.
    fn implied_name(&self, expr: &Expr) -> Option<String> {
        match expr {
            Expr::Identifier(ident) => Some(normalize(self.dialect, ident)),
            Expr::CompoundIdentifier(path) => path.last().map(|ident| normalize(self.dialect, ident)),
            Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => self.implied_name(inner),
            Expr::Value(value) => match &value.value {
                ast::Value::Number(digits, _) => Some(digits.clone()),
                ast::Value::SingleQuotedString(text) => Some(text.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Expands a star over one source, or all.
    fn star(
        &self,
        scope: &Scope<'_>,
        qualifier: Option<&[String]>,
        options: &WildcardAdditionalOptions,
        out: &mut Table,
    ) {
        let Some((columns, rest)) = scope.all_columns(qualifier) else {
            out.complete = false;
            out.rest = Rest::Made(ColumnLineage::unknown());
            return;
        };
        let changes = StarChanges::read(options, self.dialect);
        if let Some(rest) = rest {
            out.complete = false;
            out.rest = rest;
        }
        out.complete &= options.opt_ilike.is_none() && options.opt_alias.is_none();
        for mut column in columns {
            if changes.without.contains(&column.name) {
                continue;
            }
            if let Some(expr) = changes.replaced.get(&column.name) {
                column.origin = self.origin(expr, scope);
                column.data_type = self.data_type(expr, scope);
            }
            if let Some(name) = changes.renamed.get(&column.name) {
                column.name.clone_from(name);
            }
            out.columns.push(column);
        }
    }
}

/// What stands after a star.
#[derive(Default)]
struct StarChanges<'a> {
    without: BTreeSet<String>,
    replaced: BTreeMap<String, &'a Expr>,
    renamed: BTreeMap<String, String>,
}

impl<'a> StarChanges<'a> {
    fn read(options: &'a WildcardAdditionalOptions, dialect: Dialect) -> Self {
        let mut changes = Self::default();
        let last = |name: &ast::ObjectName| {
            name.0.last().and_then(|part| part.as_ident()).map(|ident| normalize(dialect, ident))
        };
        match &options.opt_exclude {
            Some(ast::ExcludeSelectItem::Single(name)) => changes.without.extend(last(name)),
            Some(ast::ExcludeSelectItem::Multiple(names)) => {
                changes.without.extend(names.iter().filter_map(last));
            }
            None => {}
        }
        if let Some(except) = &options.opt_except {
            let all = std::iter::once(&except.first_element).chain(&except.additional_elements);
            changes.without.extend(all.map(|ident| normalize(dialect, ident)));
        }
        let replaced = options.opt_replace.iter().flat_map(|replace| &replace.items);
        changes.replaced.extend(replaced.map(|item| (normalize(dialect, &item.column_name), &item.expr)));
        let renames = match &options.opt_rename {
            Some(ast::RenameSelectItem::Single(one)) => std::slice::from_ref(one),
            Some(ast::RenameSelectItem::Multiple(all)) => all,
            None => &[],
        };
        let rename = |r: &ast::IdentWithAlias| (normalize(dialect, &r.ident), normalize(dialect, &r.alias));
        changes.renamed.extend(renames.iter().map(rename));
        changes
    }
}

/// Columns by place, under the first's names.
fn united(mut left: Table, right: Table) -> Table {
    left.complete &= right.complete;
    let places = left.columns.iter_mut().enumerate();
    for (at, column) in places {
        match right.columns.get(at) {
            Some(other) => {
                column.origin.add(&other.origin);
                if column.data_type != other.data_type {
                    column.data_type = None;
                }
            }
            None => column.origin.unknown = true,
        }
    }
    left.rest = match (left.rest, right.rest) {
        (Rest::None, Rest::None) => Rest::None,
        _ => Rest::Made(ColumnLineage::unknown()),
    };
    left
}

fn united_by_name(mut left: Table, right: Table) -> Table {
    left.complete &= right.complete;
    for other in right.columns {
        match left.columns.iter_mut().find(|column| column.name == other.name) {
            Some(column) => {
                column.origin.add(&other.origin);
                if column.data_type != other.data_type {
                    column.data_type = None;
                }
            }
            None => left.columns.push(other),
        }
    }
    if !left.complete {
        left.rest = Rest::Made(ColumnLineage::unknown());
    }
    left
}

#[cfg(test)]
mod tests;

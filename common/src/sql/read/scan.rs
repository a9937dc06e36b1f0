//! Walks every path from a query to an upstream, with the windows that hold on it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::ops::Range;
use std::rc::Rc;

use sqlparser::ast::{
    self, Expr, Join, JoinOperator, ObjectName, SetExpr, SetQuantifier, TableAlias, TableFactor,
    TableWithJoins, Visit, Visitor,
};

use super::bound::{Grain, Step, Window};
use super::env::{Binding, Env, hidden, inner_env, lookup};
use super::join::{condition, is_outer, merges, restricted};
use super::predicate::{Column, Windows, equalities, narrow, windows};
use super::projection::{OutputWindows, output_names, through_projection};
use super::{TimeKind, UpstreamTime};
use crate::sql::Dialect;
use crate::sql::parse::Query;
use crate::sql::references::{cte_sees_itself, normalize};

type Read = Result<Option<Window>, String>;

/// Proves a window for all reads of the upstream, or says why there is none.
pub(super) fn scan(query: &Query, upstream: &UpstreamTime) -> Result<Window, String> {
    let name = upstream.relation.join(".");
    if query.opaque {
        return Err("the query is not understood in full".to_owned());
    }
    if upstream.kind == TimeKind::Opaque {
        return Err(format!(
            "the time column `{}` of `{name}` is neither date nor timestamp",
            upstream.column
        ));
    }
    let references = query.references();
    let named = references.iter().filter(|r| is_upstream(&r.normalized(query.dialect), upstream)).count();
    let mut scanner = Scanner { dialect: query.dialect, upstream, places: BTreeSet::new(), budget: 2000 };
    let window = scanner.query(&query.ast, None, &OutputWindows::new())?;
    if scanner.places.len() < named {
        return Err(format!("`{name}` is read in a place that is not understood"));
    }
    window.ok_or_else(|| format!("the query does not name `{name}`"))
}

/// Either name may lack the outer parts.
fn is_upstream(parts: &[String], upstream: &UpstreamTime) -> bool {
    parts.ends_with(&upstream.relation) || upstream.relation.ends_with(parts)
}

/// One thing in a FROM.
pub(super) struct Source<'a> {
    /// Its alias, or else its name's last part, if columns may be qualified by it.
    pub(super) alias: Option<String>,
    /// Its name, where it has no alias.
    pub(super) path: Vec<String>,
    /// Whether it is the upstream itself.
    pub(super) upstream: bool,
    kind: Kind<'a>,
}

enum Kind<'a> {
    /// The upstream; the flag says that its columns are as they are (not renamed or sampled).
    Upstream {
        plain: bool,
    },
    /// A query; the flag says that conditions on its columns may be asked for inside.
    Query {
        query: &'a ast::Query,
        env: Env<'a>,
        open: bool,
    },
    /// A common table expression.
    Cte {
        binding: Rc<Binding<'a>>,
    },
    /// A factor around others (PIVOT and the like): conditions outside don't reach inside.
    Around(&'a TableFactor),
    Other,
}

struct Scanner<'u> {
    dialect: Dialect,
    upstream: &'u UpstreamTime,
    /// Addresses of the names of the upstream that were seen.
    places: BTreeSet<usize>,
    /// Bounds the work for common table expressions that are used many times.
    budget: u32,
}

fn hull(a: Option<Window>, b: Option<Window>) -> Option<Window> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.hull(b)),
        (one, None) | (None, one) => one,
    }
}

impl Scanner<'_> {
    fn query<'a>(&mut self, query: &'a ast::Query, env: Env<'a>, outer: &OutputWindows) -> Read {
        self.budget = self.budget.checked_sub(1).ok_or("the query is too large to follow")?;
        let dialect = self.dialect;
        let mut env = env;
        let mut bindings = Vec::new();
        for (with, cte) in query.with.iter().flat_map(|with| with.cte_tables.iter().map(move |c| (with, c))) {
            let binding = Rc::new(Binding {
                name: normalize(dialect, &cte.alias.name),
                query: &cte.query,
                renames: !cte.alias.columns.is_empty(),
                env: env.clone(),
                itself: cte_sees_itself(dialect, with.recursive, cte),
                used: Cell::new(false),
                stands_for_itself: false,
                outer: env,
            });
            env = Some(binding.clone());
            bindings.push(binding);
        }
        let cuts = query.limit_clause.is_some() || query.fetch.is_some() || !query.pipe_operators.is_empty();
        let none = OutputWindows::new();
        let mut read = self.body(&query.body, &env, if cuts { &none } else { outer })?;
        for binding in bindings.iter().rev().filter(|b| !b.used.get()) {
            let inside = self.binding(binding, &none)?;
            read = hull(read, inside);
        }
        Ok(read)
    }

    /// A CTE's query. Its own name inside is the rows of the step before: nothing new.
    fn binding<'a>(&mut self, binding: &Rc<Binding<'a>>, outer: &OutputWindows) -> Read {
        if binding.stands_for_itself {
            return Ok(None);
        }
        let env = inner_env(binding);
        let none = OutputWindows::new();
        self.query(binding.query, env, if binding.itself || binding.renames { &none } else { outer })
    }

    fn body<'a>(&mut self, body: &'a SetExpr, env: &Env<'a>, outer: &OutputWindows) -> Read {
        match body {
            SetExpr::Select(select) => self.select(select, env, outer),
            SetExpr::Query(query) => self.query(query, env.clone(), outer),
            SetExpr::SetOperation { left, right, set_quantifier, .. } => {
                let by_position = matches!(
                    set_quantifier,
                    SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None
                );
                let names = output_names(body, self.dialect).filter(|_| by_position);
                let mut read = None;
                for side in [left, right] {
                    let own = output_names(side, self.dialect);
                    let inside = match (&names, own) {
                        (Some(first), Some(own)) => outer.renamed(first, &own),
                        _ => OutputWindows::new(),
                    };
                    read = hull(read, self.body(side, env, &inside)?);
                }
                Ok(read)
            }
            SetExpr::Values(values) => self.nested(values, env),
            _ => Ok(None),
        }
    }

    /// Queries inside expressions: their reads must be bounded by themselves.
    fn nested<T: Visit>(&mut self, node: &T, env: &Env<'_>) -> Read {
        let mut visitor = Nested { scanner: self, env, depth: 0, read: Ok(None) };
        let _ = node.visit(&mut visitor);
        visitor.read
    }

    fn select<'a>(&mut self, select: &'a ast::Select, env: &Env<'a>, outer: &OutputWindows) -> Read {
        let mut from = From {
            sources: Vec::new(),
            merged: false,
            outer_joins: false,
            picked: Vec::new(),
            joins: Vec::new(),
        };
        for tree in &select.from {
            self.tree(tree, env, &mut from)?;
        }
        for _ in &select.lateral_views {
            from.sources.push(Source { alias: None, path: Vec::new(), upstream: false, kind: Kind::Other });
        }
        let scope = Scope::new(&from, select, self.upstream, self.dialect);
        let known = self.known_windows(select, &from, &scope, outer);
        let mut read = None;
        for (at, source) in from.sources.iter().enumerate() {
            read = hull(read, self.source(at, source, &known, env)?);
        }
        for (_, join) in &from.joins {
            if let Some(condition) = condition(&join.join_operator) {
                read = hull(read, self.nested(condition, env)?);
            }
        }
        let parts = [&select.selection, &select.prewhere, &select.having, &select.qualify];
        for part in parts {
            read = hull(read, self.nested(part, env)?);
        }
        read = hull(read, self.nested(&select.projection, env)?);
        Ok(hull(read, self.nested(&select.group_by, env)?))
    }

    /// All windows that rows of the sources must lie in to contribute to the SELECT.
    fn known_windows(
        &self,
        select: &ast::Select,
        from: &From<'_>,
        scope: &Scope<'_, '_>,
        outer: &OutputWindows,
    ) -> Windows {
        let mut known = Windows::new();
        // CONNECT BY filters after it walks. ClickHouse fills outer joins with zeros, not NULLs.
        let filters_late = !select.connect_by.is_empty();
        if filters_late || (from.outer_joins && self.dialect == Dialect::ClickHouse) {
            return known;
        }
        let resolve = |expr: &Expr| scope.resolve(expr);
        let mut flows: Vec<(Column, Column)> = Vec::new();
        let all = 0..from.sources.len();
        let wheres = [&select.selection, &select.prewhere].into_iter().flatten().map(|w| (all.clone(), w));
        let ons =
            from.joins.iter().filter_map(|(may, join)| Some((may.clone(), condition(&join.join_operator)?)));
        for (restricted, condition) in wheres.chain(ons) {
            for (column, window) in windows(condition, self.dialect, &resolve) {
                if restricted.contains(&column.0) {
                    narrow(&mut known, column, window);
                }
            }
            let mut pairs = Vec::new();
            equalities(condition, &resolve, &mut pairs);
            let both = pairs.into_iter().flat_map(|(a, b)| [(a.clone(), b.clone()), (b, a)]);
            flows.extend(both.filter(|(_, to)| restricted.contains(&to.0)));
        }
        for (column, window) in through_projection(select, scope, outer) {
            narrow(&mut known, column, window);
        }
        spread(&mut known, &flows);
        known.retain(|(at, _), _| !from.picked.iter().any(|picked| picked.contains(at)));
        known
    }

    fn source<'a>(&mut self, at: usize, source: &Source<'a>, known: &Windows, env: &Env<'a>) -> Read {
        match &source.kind {
            Kind::Other => Ok(None),
            Kind::Upstream { plain } => {
                let column = &self.upstream.column;
                let name = self.upstream.relation.join(".");
                let window = known.get(&(at, column.clone())).filter(|window| *plain && !window.is_open());
                let Some(window) = window else {
                    return Err(format!("a read of `{name}` has no provable bound on `{column}`"));
                };
                Ok(Some(if self.upstream.kind == TimeKind::Timestamp {
                    window.clone()
                } else {
                    Window {
                        lower: window.lower.then(Step::Floor(Grain::Day)),
                        upper: window.upper.then(Step::Ceil(Grain::Day)),
                    }
                }))
            }
            Kind::Query { query, env: inner, open } => {
                let mut outer = OutputWindows::new();
                for ((_, column), window) in known.iter().filter(|((place, _), _)| *place == at && *open) {
                    outer.insert(column.clone(), window.clone());
                }
                self.query(query, inner.clone(), &outer)
            }
            Kind::Cte { binding } => {
                let mut outer = OutputWindows::new();
                for ((_, column), window) in known.iter().filter(|((place, _), _)| *place == at) {
                    outer.insert(column.clone(), window.clone());
                }
                self.binding(binding, &outer)
            }
            Kind::Around(factor) => {
                let mut inner = From {
                    sources: Vec::new(),
                    merged: false,
                    outer_joins: false,
                    picked: Vec::new(),
                    joins: Vec::new(),
                };
                self.factor(factor, env, &mut inner)?;
                let mut read = None;
                for (place, source) in inner.sources.iter().enumerate() {
                    read = hull(read, self.source(place, source, &Windows::new(), env)?);
                }
                Ok(read)
            }
        }
    }

    fn tree<'a>(
        &mut self,
        tree: &'a TableWithJoins,
        env: &Env<'a>,
        from: &mut From<'a>,
    ) -> Result<(), String> {
        let first = from.sources.len();
        self.factor(&tree.relation, env, from)?;
        for join in &tree.joins {
            let middle = from.sources.len();
            self.factor(&join.relation, env, from)?;
            let (left, right) = (first..middle, middle..from.sources.len());
            if matches!(join.join_operator, JoinOperator::AsOf { .. }) {
                from.picked.push(right.clone());
            }
            from.merged |= merges(&join.join_operator);
            from.outer_joins |= is_outer(&join.join_operator);
            from.joins.push((restricted(&join.join_operator, left, right), join));
        }
        Ok(())
    }

    fn factor<'a>(
        &mut self,
        factor: &'a TableFactor,
        env: &Env<'a>,
        from: &mut From<'a>,
    ) -> Result<(), String> {
        let mut push = |dialect: Dialect, alias: &Option<TableAlias>, path: Vec<String>, kind: Kind<'a>| {
            let alias = alias.as_ref().map(|a| normalize(dialect, &a.name));
            let path = if alias.is_some() { Vec::new() } else { path };
            let upstream = matches!(kind, Kind::Upstream { .. });
            let alias = alias.or_else(|| path.last().cloned());
            from.sources.push(Source { alias, path, upstream, kind });
        };
        match factor {
            TableFactor::Table { name, alias, args: None, version, sample, .. } => {
                let plain = !renames(alias) && version.is_none() && sample.is_none();
                let (path, kind) = self.named(name, plain, env);
                push(self.dialect, alias, path, kind);
            }
            TableFactor::Derived { lateral, subquery, alias, sample } => {
                let open = !lateral && !renames(alias) && sample.is_none();
                push(
                    self.dialect,
                    alias,
                    Vec::new(),
                    Kind::Query { query: subquery, env: env.clone(), open },
                );
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                return self.tree(table_with_joins, env, from);
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                for inner in std::iter::once(&table_with_joins.relation)
                    .chain(table_with_joins.joins.iter().map(|j| &j.relation))
                {
                    push(self.dialect, alias, Vec::new(), Kind::Around(inner));
                }
            }
            TableFactor::Pivot { table, alias, .. }
            | TableFactor::Unpivot { table, alias, .. }
            | TableFactor::MatchRecognize { table, alias, .. } => {
                push(self.dialect, alias, Vec::new(), Kind::Around(table));
            }
            TableFactor::Function { alias, .. }
            | TableFactor::TableFunction { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::Table { alias, .. } => push(self.dialect, alias, Vec::new(), Kind::Other),
            _ => push(self.dialect, &None, Vec::new(), Kind::Other),
        }
        Ok(())
    }

    /// What a name in a FROM is; `plain` says that its rows and columns are read as they are.
    fn named<'a>(&mut self, name: &'a ObjectName, plain: bool, env: &Env<'a>) -> (Vec<String>, Kind<'a>) {
        let Some(path) = path(name, self.dialect) else { return (Vec::new(), Kind::Other) };
        let cte = if let [only] = path.as_slice() { lookup(env, only) } else { None };
        let kind = match cte {
            Some(binding) if plain => Kind::Cte { binding },
            Some(binding) => Kind::Cte { binding: hidden(&binding) },
            None if is_upstream(&path, self.upstream) => {
                self.places.insert(std::ptr::from_ref(name).addr());
                Kind::Upstream { plain }
            }
            None => Kind::Other,
        };
        (path, kind)
    }
}

/// Whether an alias gives the columns other names. The parser also reads `a POSITIONAL JOIN b` as
/// an alias: that join pairs rows by place, so that no row may be left out.
fn renames(alias: &Option<TableAlias>) -> bool {
    alias.as_ref().is_some_and(|a| {
        !a.columns.is_empty() || !a.explicit && a.name.value.eq_ignore_ascii_case("positional")
    })
}

/// A FROM clause laid out flat.
struct From<'a> {
    sources: Vec<Source<'a>>,
    /// Whether USING or NATURAL makes two columns one.
    merged: bool,
    outer_joins: bool,
    /// Sources that a row of the other side picks one row of: filtering first would change which.
    picked: Vec<Range<usize>>,
    /// Joins, each with the sources that its condition restricts.
    joins: Vec<(Range<usize>, &'a Join)>,
}

/// Gives columns the windows of their equals, side by side, until nothing is new.
fn spread(known: &mut Windows, flows: &[(Column, Column)]) {
    for _ in 0..=flows.len() {
        let mut changed = false;
        for (from, to) in flows {
            let Some(window) = known.get(from).cloned() else { continue };
            let target = known.entry(to.clone()).or_insert(Window::OPEN);
            if target.lower.is_open() && !window.lower.is_open() {
                target.lower = window.lower;
                changed = true;
            }
            if target.upper.is_open() && !window.upper.is_open() {
                target.upper = window.upper;
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

fn path(name: &ObjectName, dialect: Dialect) -> Option<Vec<String>> {
    name.0.iter().map(|part| part.as_ident().map(|ident| normalize(dialect, ident))).collect()
}

struct Nested<'s, 'u, 'e> {
    scanner: &'s mut Scanner<'u>,
    env: &'s Env<'e>,
    depth: u32,
    read: Read,
}

impl Visitor for Nested<'_, '_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
        self.depth += 1;
        if self.depth > 1 {
            return ControlFlow::Continue(());
        }
        let read = self.scanner.query(query, self.env.clone(), &OutputWindows::new());
        let before = std::mem::replace(&mut self.read, Ok(None));
        self.read = before.and_then(|a| Ok(hull(a, read?)));
        if self.read.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn post_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

/// Resolves columns in one SELECT.
pub(super) struct Scope<'s, 'a> {
    pub(super) sources: &'s [Source<'a>],
    dialect: Dialect,
    /// The upstream's time column, where an unqualified one can only be that.
    bare: Option<Column>,
    /// Names that the SELECT's own aliases take from the sources' columns: in ClickHouse.
    aliases: BTreeSet<String>,
}

impl<'s, 'a> Scope<'s, 'a> {
    fn new(from: &'s From<'a>, select: &ast::Select, upstream: &UpstreamTime, dialect: Dialect) -> Self {
        let mut upstreams = from.sources.iter().enumerate().filter(|(_, source)| source.upstream);
        let only = upstreams.next().filter(|_| upstreams.next().is_none());
        // Another source with such a column would make the bare name an error, but for these.
        let lenient = dialect == Dialect::ClickHouse;
        let merged = from.merged || !select.lateral_views.is_empty() || lenient;
        let aliases = select.projection.iter().filter_map(|item| match item {
            ast::SelectItem::ExprWithAlias { alias, .. } if lenient => Some(normalize(dialect, alias)),
            _ => None,
        });
        let aliases = aliases.collect();
        let bare = only.filter(|_| !merged).map(|(at, _)| (at, upstream.column.clone()));
        Self { sources: &from.sources, dialect, bare, aliases }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The only source that a qualifier can mean.
    pub(super) fn qualified(&self, qualifier: &[String]) -> Option<usize> {
        let fits = |source: &&Source<'_>| match qualifier {
            [alias] => source.alias.as_ref() == Some(alias),
            path => source.path.ends_with(path),
        };
        let mut hits = self.sources.iter().enumerate().filter(|(_, source)| fits(source));
        let (at, _) = hits.next()?;
        hits.next().is_none().then_some(at)
    }

    /// The column that an expression plainly is.
    pub(super) fn resolve(&self, expr: &Expr) -> Option<Column> {
        match expr {
            Expr::Nested(inner) => self.resolve(inner),
            Expr::Identifier(ident) => {
                if ident.quote_style.is_none() && ident.value.starts_with('@') {
                    return None;
                }
                let name = normalize(self.dialect, ident);
                if self.aliases.contains(&name) {
                    return None;
                }
                if let [_] = self.sources {
                    return Some((0, name));
                }
                self.bare.clone().filter(|(_, column)| *column == name)
            }
            Expr::CompoundIdentifier(path) => {
                let names: Vec<String> = path.iter().map(|ident| normalize(self.dialect, ident)).collect();
                let (column, qualifier) = names.split_last()?;
                Some((self.qualified(qualifier)?, column.clone()))
            }
            _ => None,
        }
    }
}

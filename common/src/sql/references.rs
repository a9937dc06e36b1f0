//! Which relations a query reads, where their names are in the text, and renaming them there.

use std::ops::{ControlFlow, Range};

use sqlparser::ast::{
    self, AccessExpr, Expr, Ident, ObjectName, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    TableFactor, TableSampleKind, Visit, Visitor,
};
use sqlparser::tokenizer::Span;

use super::Dialect;
use super::parse::{Lines, Query, SqlError, Statement, refused_commas};

/// One part of a relation's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// The identifier without its quotes.
    pub value: String,
    /// Whether it was quoted.
    pub quoted: bool,
}

/// A place where a real relation is named: not a common table expression, function or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRef {
    /// The name's parts, outermost first.
    pub parts: Vec<Part>,
    /// The bytes of the name in the text.
    pub span: Range<usize>,
}

impl TableRef {
    /// The parts as the engine resolves them.
    pub(crate) fn normalized(&self, dialect: Dialect) -> Vec<String> {
        self.parts.iter().map(|part| dialect.normalize(&part.value, part.quoted)).collect()
    }
}

impl Query {
    /// The relations read, in order of their places; one that is read twice appears twice.
    pub fn references(&self) -> Vec<TableRef> {
        let found = find(&self.text, self.dialect, &*self.ast);
        found.into_iter().filter_map(|f| Some(TableRef { parts: f.parts, span: f.span? })).collect()
    }

    /// The text with relations renamed: `new_name` gives a relation's new name as SQL, or nothing
    /// to leave it. Only names change. A relation without an alias gets its old last part as one,
    /// so that qualified columns stay valid; qualifiers of several parts become that alias.
    ///
    /// # Errors
    /// When a name's place in the text can't be trusted: nothing is changed then.
    pub fn rewrite_tables(
        &self,
        new_name: &mut dyn FnMut(&TableRef) -> Option<String>,
    ) -> Result<String, SqlError> {
        rewrite(&self.text, self.dialect, &*self.ast, new_name)
    }
}

impl Statement {
    /// As [`Query::references`], with the tables that are written; nothing for a raw statement.
    pub fn references(&self) -> Vec<TableRef> {
        let found = self.ast.iter().flat_map(|ast| find(&self.text, self.dialect, &**ast));
        found.filter_map(|f| Some(TableRef { parts: f.parts, span: f.span? })).collect()
    }

    /// As [`Query::rewrite_tables`]; a raw statement stays as it is.
    ///
    /// # Errors
    /// When a name's place in the text can't be trusted.
    pub fn rewrite_tables(
        &self,
        new_name: &mut dyn FnMut(&TableRef) -> Option<String>,
    ) -> Result<String, SqlError> {
        match &self.ast {
            Some(ast) => rewrite(&self.text, self.dialect, &**ast, new_name),
            None => Ok(self.text.clone()),
        }
    }
}

fn rewrite<T: Visit>(
    text: &str,
    dialect: Dialect,
    ast: &T,
    new_name: &mut dyn FnMut(&TableRef) -> Option<String>,
) -> Result<String, SqlError> {
    let found = find(text, dialect, ast);
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut renamed: Vec<(Vec<String>, String)> = Vec::new();
    for place in &found {
        let Some(span) = place.span.clone() else {
            let name = place.parts.iter().map(|p| p.value.as_str()).collect::<Vec<_>>().join(".");
            let message = format!("the place of `{name}` in the text is not certain");
            return Err(SqlError::at(place.at.start, message, Some("quote each part of the name by itself")));
        };
        let reference = TableRef { parts: place.parts.clone(), span };
        let Some(mut name) = new_name(&reference) else { continue };
        if place.wants_alias {
            let parts = reference.normalized(dialect);
            let alias = alias_for(place, &found, dialect);
            name = format!("{name} AS {alias}");
            renamed.push((parts, alias));
        }
        edits.push((reference.span, name));
    }
    let mut columns = Qualifiers { lines: Lines::new(text), dialect, renamed: &renamed, edits: Vec::new() };
    if renamed.iter().any(|(parts, _)| parts.len() > 1) {
        let _ = ast.visit(&mut columns);
    }
    edits.append(&mut columns.edits);
    edits.extend(refused_commas(text, dialect).into_iter().map(|span| (span, String::new())));
    edits.sort_by_key(|(span, _)| span.start);
    let mut out = String::with_capacity(text.len() + 64);
    let mut done = 0;
    for (span, name) in edits {
        if span.start < done {
            continue;
        }
        out.push_str(&text[done..span.start]);
        out.push_str(&name);
        done = span.end;
    }
    out.push_str(&text[done..]);
    Ok(out)
}

/// The last part, unless another relation of the same SELECT would get the same alias.
fn alias_for(place: &Found, all: &[Found], dialect: Dialect) -> String {
    let normal = |f: &Found| -> Vec<String> {
        f.parts.iter().map(|part| dialect.normalize(&part.value, part.quoted)).collect()
    };
    let own = normal(place);
    let taken = all.iter().any(|other| {
        let parts = normal(other);
        other.wants_alias && other.select == place.select && parts != own && parts.last() == own.last()
    });
    if taken {
        let joined: Vec<&str> = place.parts.iter().map(|part| part.value.as_str()).collect();
        return dialect.quote(&joined.join("__"));
    }
    match place.parts.last() {
        Some(part) if part.quoted => dialect.quote(&part.value),
        // After a dot any word is a name, as an alias some are not: `s.left`.
        Some(part) if is_keyword(&part.value) => dialect.quote(&dialect.normalize(&part.value, false)),
        Some(part) => part.value.clone(),
        None => String::new(),
    }
}

fn is_keyword(word: &str) -> bool {
    sqlparser::keywords::ALL_KEYWORDS.binary_search(&word.to_uppercase().as_str()).is_ok()
}

/// A relation's place.
struct Found {
    parts: Vec<Part>,
    /// Nothing where the text there isn't the name.
    span: Option<Range<usize>>,
    at: Span,
    /// Whether it stands in a FROM without an alias, where one may follow.
    wants_alias: bool,
    /// Numbers the SELECTs, to tell which relations stand side by side.
    select: usize,
}

fn find<T: Visit>(text: &str, dialect: Dialect, ast: &T) -> Vec<Found> {
    let mut finder = Finder {
        lines: Lines::new(text),
        text,
        dialect,
        frames: Vec::new(),
        selects: Vec::new(),
        counter: 0,
        pending: None,
        found: Vec::new(),
    };
    let _ = ast.visit(&mut finder);
    finder.found.sort_by_key(|f| f.span.as_ref().map_or(0, |span| span.start));
    finder.found
}

/// One query on the way down: its common table expressions, and how many are visible by now.
struct Frame {
    ctes: Vec<CteName>,
    visible: usize,
}

struct CteName {
    query: *const ast::Query,
    name: String,
    sees_itself: bool,
}

struct SelectFrame {
    id: usize,
    aliases: Vec<String>,
}

enum Pending {
    /// Not a relation: a function, a path into a column.
    Ignore,
    /// A relation in a FROM.
    Scan { wants_alias: bool },
}

struct Finder<'a> {
    lines: Lines<'a>,
    text: &'a str,
    dialect: Dialect,
    frames: Vec<Frame>,
    selects: Vec<SelectFrame>,
    counter: usize,
    pending: Option<Pending>,
    found: Vec<Found>,
}

impl Finder<'_> {
    fn is_cte(&self, name: &str) -> bool {
        self.frames.iter().any(|frame| frame.ctes[..frame.visible].iter().any(|cte| cte.name == name))
    }

    /// BigQuery's names may have dashes; the parser tells the place of the words before them only.
    fn with_dashes(&self, at: Span, parts: &[Part]) -> Option<Range<usize>> {
        let name = parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
        let start = self.lines.offset(at.start).filter(|_| self.dialect == Dialect::BigQuery)?;
        self.text.get(start..)?.starts_with(&name).then(|| start..start + name.len())
    }

    /// BigQuery and Redshift let `FROM orders AS o, o.items` read an array of the row before.
    fn is_path(&self, name: &ObjectName) -> bool {
        let first = match name.0.first().and_then(|part| part.as_ident()) {
            Some(ident) if name.0.len() > 1 => normalize(self.dialect, ident),
            _ => return false,
        };
        matches!(self.dialect, Dialect::BigQuery | Dialect::Redshift)
            && self.selects.iter().any(|select| select.aliases.contains(&first))
    }
}

impl Visitor for Finder<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
        if let Some(parent) = self.frames.last_mut()
            && let Some(cte) = parent.ctes.get(parent.visible)
            && std::ptr::eq(cte.query, query)
            && cte.sees_itself
        {
            parent.visible += 1;
        }
        let ctes = query.with.iter().flat_map(|with| {
            with.cte_tables.iter().map(|cte| CteName {
                query: &raw const *cte.query,
                name: normalize(self.dialect, &cte.alias.name),
                sees_itself: cte_sees_itself(self.dialect, with.recursive, cte),
            })
        });
        let ctes: Vec<CteName> = ctes.collect();
        self.frames.push(Frame { ctes, visible: 0 });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
        self.frames.pop();
        if let Some(parent) = self.frames.last_mut()
            && let Some(cte) = parent.ctes.get(parent.visible)
            && std::ptr::eq(cte.query, query)
        {
            parent.visible += 1;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, _: &ast::Select) -> ControlFlow<()> {
        self.counter += 1;
        self.selects.push(SelectFrame { id: self.counter, aliases: Vec::new() });
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &ast::Select) -> ControlFlow<()> {
        self.selects.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let alias = match factor {
            TableFactor::Table { name, alias, args, version, partitions, json_path, sample, .. } => {
                let before = matches!(sample, Some(TableSampleKind::BeforeTableAlias(_)));
                let plain = version.is_none() && partitions.is_empty() && json_path.is_none() && !before;
                self.pending = Some(if args.is_some() || self.is_path(name) {
                    Pending::Ignore
                } else {
                    Pending::Scan { wants_alias: alias.is_none() && plain }
                });
                alias.as_ref().map(|a| &a.name).or_else(|| name.0.last().and_then(|part| part.as_ident()))
            }
            TableFactor::Derived { alias, .. } => alias.as_ref().map(|a| &a.name),
            TableFactor::SemanticView { .. } => {
                self.pending = Some(Pending::Ignore);
                None
            }
            _ => None,
        };
        let alias = alias.map(|ident| normalize(self.dialect, ident));
        if let (Some(select), Some(alias)) = (self.selects.last_mut(), alias) {
            select.aliases.push(alias);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        let pending = self.pending.take();
        let Some(idents) = name.0.iter().map(|part| part.as_ident()).collect::<Option<Vec<&Ident>>>() else {
            return ControlFlow::Continue(());
        };
        let (Some(first), Some(last)) = (idents.first(), idents.last()) else {
            return ControlFlow::Continue(());
        };
        // A string names a file, `@x` a variable or stage, `#x` a table of the session.
        let foreign = first.quote_style == Some('\'')
            || (first.quote_style.is_none() && first.value.starts_with(['@', '#']));
        let is_cte = idents.len() == 1 && self.is_cte(&normalize(self.dialect, first));
        let wants_alias = match pending {
            Some(Pending::Ignore) => return ControlFlow::Continue(()),
            _ if foreign || is_cte => return ControlFlow::Continue(()),
            Some(Pending::Scan { wants_alias }) => wants_alias,
            None => false,
        };
        let at = Span::new(first.span.start, last.span.end);
        let parts = parts(self.dialect, &idents);
        let span = self.lines.range(at).filter(|range| names(&self.text[range.clone()], &parts));
        let span = span.or_else(|| self.with_dashes(at, &parts));
        let select = self.selects.last().map_or(0, |select| select.id);
        self.found.push(Found { parts, span, at, wants_alias, select });
        ControlFlow::Continue(())
    }
}

/// Whether a CTE's name means itself inside its own query. T-SQL and Snowflake need no keyword.
pub(super) fn cte_sees_itself(dialect: Dialect, recursive: bool, cte: &ast::Cte) -> bool {
    let implicit = matches!(dialect, Dialect::TSql | Dialect::Fabric | Dialect::Snowflake);
    recursive || implicit && matches!(*cte.query.body, SetExpr::SetOperation { .. })
}

pub(super) fn normalize(dialect: Dialect, ident: &Ident) -> String {
    dialect.normalize(&ident.value, ident.quote_style.is_some())
}

/// The names before the first subscript in `a.b.c[1].d`.
pub(super) fn leading_path<'e>(root: &'e Expr, chain: &'e [AccessExpr]) -> Vec<&'e Ident> {
    let mut path: Vec<&Ident> = match root {
        Expr::Identifier(ident) => vec![ident],
        Expr::CompoundIdentifier(path) => path.iter().collect(),
        _ => return Vec::new(),
    };
    path.extend(chain.iter().map_while(|access| match access {
        AccessExpr::Dot(Expr::Identifier(ident)) => Some(ident),
        _ => None,
    }));
    path
}

/// BigQuery's backticks may hold a whole path.
fn parts(dialect: Dialect, idents: &[&Ident]) -> Vec<Part> {
    let split = |ident: &&Ident| -> Vec<Part> {
        let quoted = ident.quote_style.is_some();
        let whole = !(quoted && dialect == Dialect::BigQuery);
        let pieces = ident.value.split(move |c| c == '.' && !whole);
        pieces.map(|value| Part { value: value.to_owned(), quoted }).collect()
    };
    idents.iter().flat_map(split).collect()
}

/// Whether a slice of the text spells the name: the same but for quotes and blanks.
fn names(slice: &str, parts: &[Part]) -> bool {
    let plain = |c: &char| !matches!(c, '"' | '`' | '[' | ']' | '\\') && !c.is_whitespace();
    let mut wanted = parts.iter().enumerate().flat_map(|(i, part)| {
        let dot = (i > 0).then_some('.');
        dot.into_iter().chain(part.value.chars())
    });
    slice.chars().filter(plain).eq(wanted.by_ref().filter(plain))
}

/// Finds column qualifiers that name a renamed relation by several parts.
struct Qualifiers<'a> {
    lines: Lines<'a>,
    dialect: Dialect,
    renamed: &'a [(Vec<String>, String)],
    edits: Vec<(Range<usize>, String)>,
}

impl Qualifiers<'_> {
    /// `keep` parts at the end are no part of the qualifier.
    fn rewrite(&mut self, path: &[&Ident], keep: usize) {
        for length in (1..=path.len().saturating_sub(keep)).rev() {
            let qualifier: Vec<String> = parts(self.dialect, &path[..length])
                .iter()
                .map(|part| self.dialect.normalize(&part.value, part.quoted))
                .collect();
            let hit = self.renamed.iter().find(|(name, _)| qualifier.len() > 1 && name.ends_with(&qualifier));
            let Some((_, alias)) = hit else { continue };
            let span = Span::new(path[0].span.start, path[length - 1].span.end);
            self.edits.extend(self.lines.range(span).map(|range| (range, alias.clone())));
            return;
        }
    }
}

impl Visitor for Qualifiers<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<()> {
        for item in &select.projection {
            if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item
            {
                let path: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
                self.rewrite(&path, 0);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::CompoundIdentifier(path) => self.rewrite(&path.iter().collect::<Vec<_>>(), 1),
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.rewrite(&leading_path(root, access_chain), 1);
            }
            Expr::QualifiedWildcard(name, _) => {
                let path: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
                self.rewrite(&path, 0);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
#[path = "references_tests.rs"]
mod tests;

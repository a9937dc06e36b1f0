//! The columns that an expression is made of, and its type where that is certain.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    self, AccessExpr, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Value, Visit, Visitor,
};

use super::source::Scope;
use super::{ColumnLineage, Resolver};
use crate::sql::references::{leading_path, normalize};

impl Resolver<'_> {
    /// What a value is made of. Of a query inside it, its columns count and not its conditions.
    pub(super) fn origin(&self, expr: &Expr, scope: &Scope<'_>) -> ColumnLineage {
        let mut visitor = Origin {
            resolver: self,
            scope,
            depth: 0,
            skipped: BTreeSet::new(),
            locals: Vec::new(),
            origin: ColumnLineage::default(),
        };
        let _ = expr.visit(&mut visitor);
        visitor.origin
    }

    /// A type that the text or a schema states.
    pub(super) fn data_type(&self, expr: &Expr, scope: &Scope<'_>) -> Option<String> {
        match expr {
            Expr::Nested(inner) => self.data_type(inner, scope),
            Expr::Cast { data_type, .. } => Some(data_type.to_string().to_uppercase()),
            Expr::TypedString(typed) => Some(typed.data_type.to_string().to_uppercase()),
            Expr::Value(value) => match &value.value {
                Value::Number(digits, _) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                    Some("INT".to_owned())
                }
                Value::SingleQuotedString(_) => Some("TEXT".to_owned()),
                Value::Boolean(_) => Some("BOOLEAN".to_owned()),
                _ => None,
            },
            Expr::Identifier(ident) => scope.find(&[normalize(self.dialect, ident)])?.data_type,
            Expr::CompoundIdentifier(path) => {
                let path: Vec<String> = path.iter().map(|ident| normalize(self.dialect, ident)).collect();
                scope.find(&path)?.data_type
            }
            _ => None,
        }
    }
}

struct Origin<'v, 's> {
    resolver: &'v Resolver<'s>,
    scope: &'v Scope<'v>,
    depth: u32,
    /// Addresses of names that aren't columns: fields after a subscript, units of time.
    skipped: BTreeSet<usize>,
    /// Parameters of the lambdas around.
    locals: Vec<String>,
    origin: ColumnLineage,
}

impl Origin<'_, '_> {
    fn column(&mut self, path: &[&ast::Ident]) {
        let dialect = self.resolver.dialect;
        let names: Vec<String> = path.iter().map(|ident| normalize(dialect, ident)).collect();
        let variable = path.iter().any(|ident| ident.quote_style.is_none() && ident.value.starts_with('@'));
        if variable || self.locals.contains(&names[0]) {
            return;
        }
        match self.scope.find(&names) {
            Some(column) => self.origin.add(&column.origin),
            None => self.origin.unknown = true,
        }
    }

    fn skip_units(&mut self, function: &ast::Function) {
        let name = function.name.to_string().to_ascii_lowercase();
        let FunctionArguments::List(list) = &function.args else { return };
        if !(name.contains("date") || name.contains("time") || name == "last_day") {
            return;
        }
        for argument in &list.args {
            if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr @ Expr::Identifier(ident))) = argument
                && UNITS.contains(&ident.value.to_ascii_lowercase().as_str())
            {
                self.skipped.insert(std::ptr::from_ref(expr).addr());
            }
        }
    }
}

const UNITS: [&str; 14] = [
    "microsecond",
    "millisecond",
    "second",
    "minute",
    "hour",
    "day",
    "week",
    "isoweek",
    "month",
    "quarter",
    "year",
    "isoyear",
    "dayofweek",
    "dayofyear",
];

impl Visitor for Origin<'_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
        if self.depth == 0 {
            let table = self.resolver.query(query, self.scope.env, Some(self.scope));
            for column in &table.columns {
                self.origin.add(&column.origin);
            }
            self.origin.unknown |= !table.complete;
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.depth > 0 || self.skipped.contains(&std::ptr::from_ref(expr).addr()) {
            return ControlFlow::Continue(());
        }
        match expr {
            Expr::Identifier(ident) => self.column(&[ident]),
            Expr::CompoundIdentifier(path) => self.column(&path.iter().collect::<Vec<_>>()),
            Expr::CompoundFieldAccess { root, access_chain } => {
                let path = leading_path(root, access_chain);
                if !path.is_empty() {
                    self.skipped.insert(std::ptr::from_ref(&**root).addr());
                    self.column(&path);
                }
                for access in access_chain {
                    if let AccessExpr::Dot(field) = access {
                        self.skipped.insert(std::ptr::from_ref(field).addr());
                    }
                }
            }
            Expr::Function(function) => self.skip_units(function),
            Expr::Lambda(lambda) => {
                let names = lambda.params.iter().map(|p| normalize(self.resolver.dialect, &p.name));
                self.locals.extend(names);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let (Expr::Lambda(lambda), 0) = (expr, self.depth) {
            let kept = self.locals.len().saturating_sub(lambda.params.iter().count());
            self.locals.truncate(kept);
        }
        ControlFlow::Continue(())
    }
}

//! A SELECT: its relations, its outputs, and the clauses that may name them.

use serde_json::{Value, json};

use super::expression::{column, merged};
use super::{Env, Names, Resolver, Scope, Source, alias_columns, order_keys, place, rename};

impl Resolver<'_> {
    pub(super) fn select(
        &mut self,
        select: &mut Value,
        env: &Env,
        outer: Option<&Scope<'_>>,
        order: Option<&mut Value>,
    ) -> Option<Names> {
        let plain = ["lateral_views", "connect_by", "cluster_by", "distribute_by", "sort_by"];
        if plain.iter().any(|key| select[*key].as_array().is_some_and(|list| !list.is_empty())) {
            return None;
        }
        let mut scope = Scope { env, outer, sources: Vec::new(), merged: Vec::new(), aliases: Vec::new() };
        for tree in select["from"].as_array_mut()? {
            self.relations(tree, &mut scope)?;
        }
        for tree in select["from"].as_array_mut()? {
            self.conditions(tree, &scope)?;
        }
        let names = self.projection(select, &mut scope)?;
        for clause in ["prewhere", "selection", "having", "qualify"] {
            self.expression(&mut select[clause], &scope)?;
        }
        self.group_by(&mut select["group_by"], &scope)?;
        let aliases = std::mem::take(&mut scope.aliases);
        self.expression(&mut select["named_window"], &scope)?;
        self.distinct_on(&mut select["distinct"], &scope, &aliases)?;
        self.order_by(order, &scope, &aliases, grouped(select))?;
        Some(names)
    }

    /// Collects what a FROM's item and its joins bring, and turns USING into conditions.
    fn relations(&mut self, tree: &mut Value, scope: &mut Scope<'_>) -> Option<()> {
        self.relation(&mut tree["relation"], scope)?;
        for join in tree["joins"].as_array_mut()? {
            let middle = scope.sources.len();
            self.relation(&mut join["relation"], scope)?;
            let Some((kind, constraint)) =
                join["join_operator"].as_object_mut().and_then(|o| o.iter_mut().next())
            else {
                continue;
            };
            let semi = kind.contains("Semi") || kind.contains("Anti");
            if constraint == "Natural" || kind == "AsOf" {
                return None;
            }
            if let Some(names) = constraint.get("Using").and_then(Value::as_array) {
                let name =
                    |name: &Value| name.as_array()?.last()?.get("Identifier")?.as_str().map(str::to_owned);
                let names: Vec<String> = names.iter().map(name).collect::<Option<_>>()?;
                *constraint = json!({"On": using(&names, middle, scope, semi)?});
            }
            if semi {
                scope.sources[middle..].iter_mut().for_each(|source| source.hidden = true);
            }
        }
        Some(())
    }

    fn conditions(&mut self, tree: &mut Value, scope: &Scope<'_>) -> Option<()> {
        for join in tree["joins"].as_array_mut()? {
            self.expression(&mut join["join_operator"], scope)?;
        }
        Some(())
    }

    fn relation(&mut self, relation: &mut Value, scope: &mut Scope<'_>) -> Option<()> {
        let (kind, inner) = relation.as_object_mut()?.iter_mut().next()?;
        let kind = kind.clone();
        match kind.as_str() {
            "Table" if inner["args"].is_null() => self.table(inner, scope),
            "Table" => self.function(inner, "args", scope),
            "UNNEST" => self.function(inner, "array_exprs", scope),
            "Function" => self.function(inner, "args", scope),
            "Derived" => {
                let values = inner["subquery"]["body"].get("Values").is_some();
                let given = alias_columns(&inner["alias"]);
                let outer = if inner["lateral"] == true { Some(&*scope) } else { scope.outer };
                let mut names = self.query(&mut inner["subquery"], scope.env, outer)?;
                if values {
                    names.splice(..given.len().min(names.len()), given);
                } else {
                    names = rename(&mut inner["subquery"], names, &given)?;
                }
                let alias = self.alias(inner, None)?;
                if !values {
                    inner["alias"]["columns"] = json!([]);
                }
                scope.sources.push(Source { alias, path: Names::new(), columns: Some(names), hidden: false });
                Some(())
            }
            "NestedJoin" if inner["alias"].is_null() => {
                let tree = &mut inner["table_with_joins"];
                self.relations(tree, scope)?;
                self.conditions(tree, scope)
            }
            _ => None,
        }
    }

    fn table(&mut self, table: &mut Value, scope: &mut Scope<'_>) -> Option<()> {
        let part = |part: &Value| part.get("Identifier")?.as_str().map(str::to_owned);
        let path: Names = table["name"].as_array()?.iter().map(part).collect::<Option<_>>()?;
        if !alias_columns(&table["alias"]).is_empty() {
            return None;
        }
        let shared = scope.env.iter().rev().find(|(name, _)| path.len() == 1 && *name == path[0]);
        let columns = match shared {
            Some((_, names)) => names.clone(),
            None => {
                self.schemas.columns(&path)?.iter().map(|c| self.dialect.normalize(&c.name, false)).collect()
            }
        };
        let named = table["alias"].is_null();
        let alias = self.alias(table, path.last())?;
        let path = if named { path } else { Names::new() };
        scope.sources.push(Source { alias, path, columns: Some(columns), hidden: false });
        Some(())
    }

    fn function(&mut self, function: &mut Value, args: &str, scope: &mut Scope<'_>) -> Option<()> {
        self.expression(&mut function[args], scope)?;
        let given = alias_columns(&function["alias"]);
        let alias = self.alias(function, None)?;
        let columns = Some(given).filter(|given| !given.is_empty());
        scope.sources.push(Source { alias, path: Names::new(), columns, hidden: false });
        Some(())
    }

    /// The alias of a relation; one without gets its own name, or one of ours.
    fn alias(&mut self, relation: &mut Value, own: Option<&String>) -> Option<String> {
        if relation["alias"].is_null() {
            let name = own.cloned().unwrap_or_else(|| {
                self.unnamed += 1;
                format!("_{}", self.unnamed - 1)
            });
            relation["alias"] = json!({"name": name, "columns": [], "at": null});
        }
        relation["alias"]["name"].as_str().map(str::to_owned)
    }

    fn projection(&mut self, select: &mut Value, scope: &mut Scope<'_>) -> Option<Names> {
        let mut items = Vec::new();
        let mut written = select["projection"].take();
        if written.as_array()?.is_empty() {
            written = json!([{"Wildcard": {}}]);
        }
        for item in written.as_array_mut()? {
            let (kind, inner) = item.as_object_mut()?.iter_mut().next()?;
            match kind.as_str() {
                "UnnamedExpr" => {
                    let alias = name_of(inner).unwrap_or_else(|| format!("_col_{}", items.len()));
                    self.expression(inner, scope)?;
                    items.push((alias, inner.take()));
                }
                "ExprWithAlias" => {
                    self.expression(&mut inner["expr"], scope)?;
                    items.push((inner["alias"].as_str()?.to_owned(), inner["expr"].take()));
                    scope.aliases = items.clone();
                }
                "Wildcard" => self.star(scope, None, inner, &mut items)?,
                "QualifiedWildcard" => {
                    let path = inner[0].get("ObjectName")?.as_array()?.iter();
                    let path: Names = path
                        .map(|part| Some(part.get("Identifier")?.as_str()?.to_owned()))
                        .collect::<Option<_>>()?;
                    let options = inner[1].take();
                    self.star(scope, Some(&path), &options, &mut items)?;
                }
                _ => return None,
            }
        }
        let named =
            |(alias, expr): &(String, Value)| json!({"ExprWithAlias": {"expr": expr, "alias": alias}});
        select["projection"] = items.iter().map(named).collect();
        let names = items.iter().map(|(alias, _)| alias.clone()).collect();
        scope.aliases = items;
        Some(names)
    }

    fn star(
        &mut self,
        scope: &Scope<'_>,
        qualifier: Option<&[String]>,
        options: &Value,
        items: &mut Vec<(String, Value)>,
    ) -> Option<()> {
        let set = |key: &str| options.get(key).is_some_and(|value| !value.is_null());
        if ["opt_ilike", "opt_alias", "opt_except", "opt_rename"].iter().any(|key| set(key)) {
            return None;
        }
        let mut excluded = Vec::new();
        words(options.get("opt_exclude").unwrap_or(&Value::Null), &mut excluded);
        let replaced = options.get("opt_replace").and_then(|r| r.get("items")?.as_array().cloned());
        let sources: Vec<&Source> = match qualifier {
            Some(qualifier) => vec![scope.source(qualifier)?],
            None => scope.sources.iter().filter(|source| !source.hidden).collect(),
        };
        let mut seen: Vec<&str> = Vec::new();
        for source in sources {
            for name in source.columns.as_ref()? {
                if excluded.contains(name) || seen.contains(&name.as_str()) {
                    continue;
                }
                let shared = scope.merged.iter().find(|(merged, _)| merged == name && qualifier.is_none());
                let new = replaced.iter().flatten().find(|item| item["column_name"] == name.as_str());
                let expr = match (new, shared) {
                    (Some(item), _) => {
                        let mut expr = item["expr"].clone();
                        self.expression(&mut expr, scope)?;
                        expr
                    }
                    (None, Some((_, owners))) => {
                        seen.push(name);
                        merged(name, owners)
                    }
                    (None, None) => column(&source.alias, name),
                };
                items.push((name.clone(), expr));
            }
        }
        Some(())
    }

    /// Places become what they stand for, unless that is a constant.
    fn group_by(&mut self, group_by: &mut Value, scope: &Scope<'_>) -> Option<()> {
        let Some(keys) = group_by.get_mut("Expressions").and_then(|e| e.get_mut(0)?.as_array_mut()) else {
            return Some(());
        };
        for key in keys {
            match place(key) {
                Some(at) => {
                    let (_, expr) = scope.aliases.get(at)?;
                    if expr.get("Value").is_none() {
                        *key = expr.clone();
                    }
                }
                None => {
                    self.expression(key, scope)?;
                    if let Some(inner) = key.get_mut("Nested") {
                        *key = inner.take();
                    }
                }
            }
        }
        Some(())
    }

    fn distinct_on(
        &mut self,
        distinct: &mut Value,
        scope: &Scope<'_>,
        aliases: &[(String, Value)],
    ) -> Option<()> {
        for key in distinct.get_mut("On").and_then(Value::as_array_mut).into_iter().flatten() {
            match place(key) {
                Some(at) => *key = json!({"Identifier": aliases.get(at)?.0}),
                None => self.expression(key, scope)?,
            }
        }
        Some(())
    }

    /// Places become names of outputs; names of outputs stay.
    fn order_by(
        &mut self,
        order: Option<&mut Value>,
        scope: &Scope<'_>,
        aliases: &[(String, Value)],
        grouped: bool,
    ) -> Option<()> {
        let outputs = aliases.iter().map(|(alias, _)| alias.clone()).collect();
        let outputs = std::mem::replace(&mut self.outputs, outputs);
        for key in order_keys(order) {
            let expr = &mut key["expr"];
            match place(expr) {
                Some(at) => *expr = json!({"Identifier": aliases.get(at)?.0}),
                None => self.expression(expr, scope)?,
            }
            if grouped && let Some((alias, _)) = aliases.iter().find(|(_, output)| output == expr) {
                *expr = json!({"Identifier": alias});
            }
        }
        self.outputs = outputs;
        Some(())
    }
}

fn grouped(select: &Value) -> bool {
    select["group_by"]
        .get("Expressions")
        .and_then(|e| e.get(0)?.as_array())
        .is_none_or(|keys| !keys.is_empty())
}

/// The name that an expression has by itself.
pub(in super::super) fn name_of(expr: &Value) -> Option<String> {
    let (kind, inner) = expr.as_object()?.iter().next()?;
    match kind.as_str() {
        "Identifier" => inner.as_str().map(str::to_owned),
        "CompoundIdentifier" => inner.as_array()?.last()?.as_str().map(str::to_owned),
        "Nested" => name_of(inner),
        "Cast" => name_of(&inner["expr"]),
        "Value" => {
            let value = &inner["value"];
            let text = value.get("SingleQuotedString").or_else(|| value.get("Number")?.get(0))?;
            text.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// `ON` for `USING`: each name's first owner equals the new relation's.
fn using(names: &[String], middle: usize, scope: &mut Scope<'_>, semi: bool) -> Option<Value> {
    let right = scope.sources.get(middle)?.alias.clone();
    let mut all: Option<Value> = None;
    for name in names {
        let has = |source: &&Source| source.columns.as_ref().is_some_and(|columns| columns.contains(name));
        let left = scope.sources[..middle].iter().find(has)?.alias.clone();
        scope.sources[middle..].iter().find(has)?;
        let equal =
            json!({"BinaryOp": {"left": column(&left, name), "op": "Eq", "right": column(&right, name)}});
        all = Some(match all {
            Some(before) => json!({"BinaryOp": {"left": before, "op": "And", "right": equal}}),
            None => equal,
        });
        if semi {
            continue;
        }
        match scope.merged.iter_mut().find(|(merged, _)| merged == name) {
            Some((_, owners)) => owners.push(right.clone()),
            None => scope.merged.push((name.clone(), vec![left, right.clone()])),
        }
    }
    all
}

fn words(node: &Value, out: &mut Vec<String>) {
    match node {
        Value::String(text) => out.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| words(item, out)),
        Value::Object(fields) => fields.values().for_each(|field| words(field, out)),
        _ => {}
    }
}

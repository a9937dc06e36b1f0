//! Columns in expressions.

use serde_json::{Map, Value, json};

use super::{Resolver, Scope};

impl Resolver<'_> {
    /// Resolves all columns in a part of the tree; nothing where one isn't certain.
    pub(super) fn expression(&mut self, node: &mut Value, scope: &Scope<'_>) -> Option<()> {
        match node {
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.expression(item, scope)),
            Value::Object(fields) => {
                if fields.contains_key("body") && fields.contains_key("with") {
                    let outputs = std::mem::take(&mut self.outputs);
                    self.query(node, scope.env, Some(scope))?;
                    self.outputs = outputs;
                    return Some(());
                }
                if fields.len() == 1
                    && let Some((kind, inner)) = fields.iter_mut().next()
                {
                    match kind.as_str() {
                        "Identifier" => {
                            if let Some(column) = self.bare(inner.as_str()?, scope)? {
                                *node = column;
                            }
                            return Some(());
                        }
                        "CompoundIdentifier" => {
                            let path: Vec<String> = inner
                                .as_array()?
                                .iter()
                                .filter_map(|p| p.as_str().map(str::to_owned))
                                .collect();
                            *inner = json!(qualified(&path, scope)?);
                            return Some(());
                        }
                        "CompoundFieldAccess" => return self.access(inner, scope),
                        "Lambda" => return self.lambda(inner, scope),
                        _ => {}
                    }
                }
                self.fields(fields, scope)
            }
            _ => Some(()),
        }
    }

    fn fields(&mut self, fields: &mut Map<String, Value>, scope: &Scope<'_>) -> Option<()> {
        let call = fields.contains_key("uses_odbc_syntax");
        for (key, value) in fields.iter_mut() {
            if key == "data_type" || key == "collation" || call && key == "name" {
                continue;
            }
            self.expression(value, scope)?;
        }
        Some(())
    }

    fn access(&mut self, inner: &mut Value, scope: &Scope<'_>) -> Option<()> {
        // `o.tags[1]`: the root may be the relation.
        let root = inner["root"].get("Identifier").and_then(Value::as_str).map(str::to_owned);
        let field = inner["access_chain"][0].get("Dot").and_then(|dot| dot.get("Identifier").cloned());
        if let (Some(root), Some(field)) = (root, field)
            && scope.source(std::slice::from_ref(&root)).is_some()
        {
            inner["root"] = json!({"CompoundIdentifier": [root, field]});
            inner["access_chain"].as_array_mut()?.remove(0);
        }
        self.expression(&mut inner["root"], scope)?;
        for step in inner["access_chain"].as_array_mut()? {
            if step.get("Dot").is_none() {
                self.expression(step, scope)?;
            }
        }
        Some(())
    }

    fn lambda(&mut self, inner: &mut Value, scope: &Scope<'_>) -> Option<()> {
        let before = self.locals.len();
        let mut names = Vec::new();
        texts(&inner["params"], &mut names);
        self.locals.extend(names);
        let done = self.expression(&mut inner["body"], scope);
        self.locals.truncate(before);
        done
    }

    /// What a name without a qualifier means: a column, an output, or (an inner nothing) itself.
    fn bare(&self, name: &str, scope: &Scope<'_>) -> Option<Option<Value>> {
        if self.locals.iter().chain(&self.outputs).any(|known| known == name) || name.starts_with('@') {
            return Some(None);
        }
        if let Some((_, owners)) = scope.merged.iter().find(|(column, _)| column == name) {
            return Some(Some(merged(name, owners)));
        }
        let mut owners = scope.sources.iter().filter(|source| {
            !source.hidden && source.columns.as_ref().is_some_and(|columns| columns.iter().any(|c| c == name))
        });
        match (owners.next(), owners.next()) {
            (Some(owner), None) => return Some(Some(column(&owner.alias, name))),
            (Some(_), Some(_)) => return None,
            _ => {}
        }
        if let Some((_, expr)) = scope.aliases.iter().rev().find(|(alias, _)| alias == name) {
            return Some(Some(json!({"Nested": expr})));
        }
        if scope.sources.iter().any(|source| source.columns.is_none()) {
            return None;
        }
        self.bare(name, scope.outer?)
    }
}

/// A path of names: relation, column and fields in it.
fn qualified(path: &[String], scope: &Scope<'_>) -> Option<Vec<String>> {
    for length in (1..path.len()).rev() {
        let Some(source) = scope.source(&path[..length]) else { continue };
        let known = source.columns.as_ref().is_none_or(|columns| columns.contains(&path[length]));
        return known
            .then(|| std::iter::once(source.alias.clone()).chain(path[length..].iter().cloned()).collect());
    }
    let has = |columns: &Option<Vec<String>>| columns.as_ref().is_some_and(|all| all.contains(&path[0]));
    let mut owners = scope.sources.iter().filter(|source| has(&source.columns));
    if let (Some(owner), None) = (owners.next(), owners.next()) {
        return Some(std::iter::once(owner.alias.clone()).chain(path.iter().cloned()).collect());
    }
    qualified(path, scope.outer?)
}

pub(super) fn column(source: &str, name: &str) -> Value {
    json!({"CompoundIdentifier": [source, name]})
}

/// The column that a join made of several.
pub(super) fn merged(name: &str, owners: &[String]) -> Value {
    let args: Vec<Value> =
        owners.iter().map(|owner| json!({"Unnamed": {"Expr": column(owner, name)}})).collect();
    json!({"Function": {
        "name": [{"Identifier": "coalesce"}], "uses_odbc_syntax": false, "parameters": "None",
        "args": {"List": {"duplicate_treatment": null, "args": args, "clauses": []}},
        "within_group": [], "filter": null, "null_treatment": null, "over": null,
    }})
}

fn texts(node: &Value, out: &mut Vec<String>) {
    match node {
        Value::String(text) => out.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, out)),
        Value::Object(fields) => fields.values().for_each(|field| texts(field, out)),
        _ => {}
    }
}

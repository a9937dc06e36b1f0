//! A plain tree with its names resolved: every column says where it comes from, stars are written
//! out, every output has its name, and places in GROUP BY and ORDER BY are what they stand for.
//!
//! That is possible only where all relations that a query reads have known columns, and every name
//! is found once. Otherwise the tree stays as it is.

mod expression;
mod select;

pub(super) use select::name_of;

use serde_json::{Value, json};

use super::Dialect;
use super::lineage::Schemas;

/// Resolves all names; nothing where one isn't certain.
pub(super) fn resolved(tree: &Value, dialect: Dialect, schemas: &dyn Schemas) -> Option<Value> {
    let mut tree = tree.clone();
    let mut resolver = Resolver { dialect, schemas, unnamed: 0, locals: Vec::new(), outputs: Vec::new() };
    resolver.query(&mut tree, &Vec::new(), None)?;
    Some(tree)
}

/// Names of columns in order.
type Names = Vec<String>;
/// Common table expressions in scope and their columns; later ones hide earlier ones.
type Env = Vec<(String, Names)>;

struct Resolver<'s> {
    dialect: Dialect,
    schemas: &'s dyn Schemas,
    /// How many relations got a name of ours.
    unnamed: usize,
    /// Parameters of the lambdas around.
    locals: Names,
    /// In an ORDER BY, the names that mean outputs.
    outputs: Names,
}

/// Something in a FROM.
struct Source {
    alias: String,
    /// Its name as written, without an alias.
    path: Names,
    /// Nothing where they aren't known.
    columns: Option<Names>,
    /// The far side of a semi join.
    hidden: bool,
}

/// The names that an expression may use.
struct Scope<'p> {
    env: &'p Env,
    outer: Option<&'p Scope<'p>>,
    sources: Vec<Source>,
    /// Columns of USING, and the sources whose they are.
    merged: Vec<(String, Names)>,
    /// The SELECT's outputs so far.
    aliases: Vec<(String, Value)>,
}

impl Scope<'_> {
    fn source(&self, qualifier: &[String]) -> Option<&Source> {
        self.sources.iter().find(|source| match qualifier {
            [alias] => source.alias == *alias,
            path => source.path == path,
        })
    }
}

impl Resolver<'_> {
    fn query(&mut self, query: &mut Value, env: &Env, outer: Option<&Scope<'_>>) -> Option<Names> {
        if query["pipe_operators"].as_array().is_some_and(|pipes| !pipes.is_empty()) {
            return None;
        }
        let mut env = env.clone();
        if query["with"].is_object() {
            let recursive = query["with"]["recursive"] == true;
            for cte in query["with"]["cte_tables"].as_array_mut()? {
                let name = cte["alias"]["name"].as_str()?.to_owned();
                let given = alias_columns(&cte["alias"]);
                if recursive {
                    let first = if given.is_empty() { output_names(&cte["query"]["body"])? } else { given };
                    env.push((name, first));
                    self.query(&mut cte["query"], &env, outer)?;
                } else {
                    let names = self.query(&mut cte["query"], &env, outer)?;
                    cte["alias"]["columns"] = json!([]);
                    env.push((name, rename(&mut cte["query"], names, &given)?));
                }
            }
        }
        let mut order = query["order_by"].take();
        let names = self.body(&mut query["body"], &env, outer, Some(&mut order));
        query["order_by"] = order;
        names
    }

    fn body(
        &mut self,
        body: &mut Value,
        env: &Env,
        outer: Option<&Scope<'_>>,
        order: Option<&mut Value>,
    ) -> Option<Names> {
        let (kind, inner) = body.as_object_mut()?.iter_mut().next()?;
        match kind.as_str() {
            "Select" => self.select(inner, env, outer, order),
            "Query" => {
                let names = self.query(inner, env, outer)?;
                order_by_names(order, &names)?;
                Some(names)
            }
            "SetOperation" => {
                let left = self.body(&mut inner["left"], env, outer, None)?;
                self.body(&mut inner["right"], env, outer, None)?;
                order_by_names(order, &left)?;
                Some(left)
            }
            "Values" => {
                let scope =
                    Scope { env, outer, sources: Vec::new(), merged: Vec::new(), aliases: Vec::new() };
                self.expression(inner, &scope)?;
                let width = inner["rows"][0]["content"].as_array().or(inner["rows"][0].as_array())?.len();
                Some((0..width).map(|at| format!("col{at}")).collect())
            }
            _ => None,
        }
    }
}

/// Places in the ORDER BY of a set operation become names.
fn order_by_names(order: Option<&mut Value>, names: &[String]) -> Option<()> {
    for key in order_keys(order) {
        if let Some(at) = place(&key["expr"]) {
            key["expr"] = json!({"Identifier": names.get(at)?});
        }
    }
    Some(())
}

fn order_keys(order: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    let keys = order.and_then(|order| order.get_mut("kind")?.get_mut("Expressions")?.as_array_mut());
    keys.into_iter().flatten()
}

/// The place that a number means, from 0.
fn place(node: &Value) -> Option<usize> {
    super::compare::number(node).and_then(|n| usize::try_from(n).ok()?.checked_sub(1))
}

fn alias_columns(alias: &Value) -> Names {
    let columns = alias["columns"].as_array().into_iter().flatten();
    columns.filter_map(|column| column["name"].as_str().or(column.as_str()).map(str::to_owned)).collect()
}

/// The names that a body's first SELECT gives, before it is resolved.
fn output_names(body: &Value) -> Option<Names> {
    if let Some(operation) = body.get("SetOperation") {
        return output_names(&operation["left"]);
    }
    if let Some(query) = body.get("Query") {
        return output_names(&query["body"]);
    }
    let items = body.get("Select")?["projection"].as_array()?;
    items
        .iter()
        .enumerate()
        .map(|(at, item)| match item.get("ExprWithAlias") {
            Some(item) => Some(item["alias"].as_str()?.to_owned()),
            None => Some(select::name_of(item.get("UnnamedExpr")?).unwrap_or_else(|| format!("_col_{at}"))),
        })
        .collect()
}

/// Gives a resolved query's columns other names.
fn rename(query: &mut Value, mut names: Names, given: &[String]) -> Option<Names> {
    if given.is_empty() {
        return Some(names);
    }
    if given.len() > names.len() {
        return None;
    }
    names.splice(..given.len(), given.iter().cloned());
    rename_body(&mut query["body"], &names);
    Some(names)
}

fn rename_body(body: &mut Value, names: &[String]) {
    let Some((kind, inner)) = body.as_object_mut().and_then(|body| body.iter_mut().next()) else { return };
    match kind.as_str() {
        "Query" => rename_body(&mut inner["body"], names),
        "SetOperation" => {
            rename_body(&mut inner["left"], names);
            rename_body(&mut inner["right"], names);
        }
        "Select" => {
            for (item, name) in inner["projection"].as_array_mut().into_iter().flatten().zip(names) {
                if let Some(item) = item.get_mut("ExprWithAlias") {
                    item["alias"] = json!(name);
                }
            }
        }
        _ => {}
    }
}

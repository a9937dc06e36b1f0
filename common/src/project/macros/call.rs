//! Calling macro functions: arguments, lambdas and the functions that compute.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::condition::{self, Computed};
use super::expand::Expander;
use super::lex;
use crate::project::render::{RenderError, TimeVars};

/// What a call becomes.
pub(super) enum Outcome {
    /// Nothing: its place in a list vanishes.
    Nothing,
    /// A piece of SQL.
    Sql(String),
    /// Pieces that belong into the list where the call stands.
    List(Vec<String>),
    /// A definition: neither text nor a place in a list.
    Defined,
}

/// A function written `x -> …` or `(x, y) -> …`.
#[derive(Debug, Clone)]
pub(super) struct Lambda {
    /// Lower-case names of the parameters.
    pub(super) params: Vec<String>,
    /// The body, not expanded.
    pub(super) body: String,
}

/// Expanded arguments of a call.
pub(super) struct Arguments {
    pub(super) positional: Vec<String>,
    pub(super) named: BTreeMap<String, String>,
}

impl Arguments {
    /// An argument by position or by name.
    pub(super) fn get(&self, position: usize, name: &str) -> Option<&str> {
        self.named.get(name).or_else(|| self.positional.get(position)).map(String::as_str)
    }
}

/// Whether a function of this lower-case name is ours.
pub(crate) fn is_builtin(name: &str) -> bool {
    matches!(
        name,
        "def"
            | "sql"
            | "each"
            | "filter"
            | "reduce"
            | "if"
            | "eval"
            | "and"
            | "or"
            | "with"
            | "join"
            | "where"
            | "group_by"
            | "having"
            | "order_by"
            | "limit"
            | "star"
            | "generate_surrogate_key"
            | "safe_add"
            | "safe_sub"
            | "safe_div"
            | "union"
            | "haversine_distance"
            | "pivot"
            | "deduplicate"
            | "date_spine"
            | "var"
            | "blueprint_var"
            | "resolve_template"
            | "__matches"
    )
}

impl Expander<'_> {
    pub(super) fn call(&mut self, name: &str, arguments: &str, place: usize) -> Result<Outcome, RenderError> {
        if let Some(lambda) = self.functions.get(name).cloned() {
            let given = self.arguments(arguments, place)?.positional;
            let given: Vec<&str> = match given.as_slice() {
                [one] => self.unpack(one).unwrap_or_else(|| vec![one]),
                many => many.iter().map(String::as_str).collect(),
            };
            return self.apply(&lambda, &given, place, true).map(Outcome::Sql);
        }
        match name {
            "def" => self.def(arguments, place),
            "if" => self.choose(arguments, place),
            "each" | "filter" | "reduce" => self.over_items(name, arguments, place),
            "eval" => {
                let sql = self.expand(arguments)?;
                Ok(match self.compute(&sql, place)? {
                    Computed::Null => Outcome::Nothing,
                    value => Outcome::Sql(value.sql(self.context.dialect)),
                })
            }
            "sql" => {
                let given = self.arguments(arguments, place)?;
                let Some(text) = given.positional.first() else {
                    return Err(self.wrong(place, "@SQL wants a text"));
                };
                let content = lex::string_literal(text, self.context.dialect).unwrap_or_else(|| text.clone());
                Ok(Outcome::Sql(self.template(&content, place, false)?))
            }
            "var" | "blueprint_var" => self.variable_or_default(name, arguments, place),
            _ => {
                let given = self.arguments(arguments, place)?;
                match self.builtin(name, &given, place)? {
                    Some(outcome) => Ok(outcome),
                    None => Err(self.unknown(name, place)),
                }
            }
        }
    }

    fn unknown(&self, name: &str, place: usize) -> RenderError {
        self.error(
            place,
            "python-macro",
            format!("macro function `@{name}` isn't built in; python macros are not supported yet"),
            Some(format!("write it with @DEF({name}, x -> …) or as a Jinja macro")),
        )
    }

    pub(super) fn wrong(&self, place: usize, message: &str) -> RenderError {
        self.error(place, "macro-arguments", message.to_owned(), None)
    }

    /// Expands arguments; ones that become lists take several places, ones that become nothing none.
    pub(super) fn arguments(&mut self, text: &str, place: usize) -> Result<Arguments, RenderError> {
        let dialect = self.context.dialect;
        let mut arguments = Arguments { positional: Vec::new(), named: BTreeMap::new() };
        for part in lex::split(text, b',', dialect) {
            if let Some((name, value)) = named_argument(part) {
                let value = self.expand(value)?.trim().to_owned();
                arguments.named.insert(name.to_ascii_lowercase(), value);
                continue;
            }
            if !arguments.named.is_empty() {
                return Err(self.wrong(place, "an argument without a name can't follow one with a name"));
            }
            let expanded = self.expand(part)?;
            if expanded == part {
                arguments.positional.push(expanded);
            } else {
                arguments
                    .positional
                    .extend(lex::split(&expanded, b',', dialect).into_iter().map(str::to_owned));
            }
        }
        Ok(arguments)
    }

    /// The items of an argument that is a tuple.
    fn unpack<'t>(&self, text: &'t str) -> Option<Vec<&'t str>> {
        lex::items(text, self.context.dialect).filter(|items| items.len() > 1)
    }

    fn def(&mut self, arguments: &str, place: usize) -> Result<Outcome, RenderError> {
        let dialect = self.context.dialect;
        let parts = lex::split(arguments, b',', dialect);
        let [name, ..] = parts.as_slice() else {
            return Err(self.wrong(place, "@DEF wants a name and a value"));
        };
        let name = lex::single_name(name.trim_start_matches('@'), dialect)
            .ok_or_else(|| self.wrong(place, "@DEF's first argument must be a name"))?;
        let value = match arguments.find(',') {
            Some(comma) => arguments[comma + 1..].trim().trim_end_matches(',').trim_end(),
            None => return Err(self.wrong(place, "@DEF wants a name and a value")),
        };
        match lambda(value, dialect) {
            Some(lambda) => {
                self.functions.insert(name.to_ascii_lowercase(), Rc::new(lambda));
            }
            None => {
                let sql = self.expand(value)?;
                self.define(&name, sql);
            }
        }
        Ok(Outcome::Defined)
    }

    /// `@IF`: only the chosen branch is expanded.
    fn choose(&mut self, arguments: &str, place: usize) -> Result<Outcome, RenderError> {
        let parts = lex::split(arguments, b',', self.context.dialect);
        let (condition, yes, no) = match parts.as_slice() {
            [condition, yes] => (condition, yes, None),
            [condition, yes, no] => (condition, yes, Some(no)),
            _ => return Err(self.wrong(place, "@IF wants a condition, a result and perhaps another result")),
        };
        let condition = self.expand(condition)?;
        let branch = if self.compute(&condition, place)?.is_true() { Some(yes) } else { no };
        let Some(branch) = branch else { return Ok(Outcome::Nothing) };
        let branch = strip_name(branch);
        let sql = self.expand(branch)?;
        Ok(if sql.trim().is_empty() { Outcome::Nothing } else { Outcome::Sql(sql) })
    }

    fn over_items(&mut self, name: &str, arguments: &str, place: usize) -> Result<Outcome, RenderError> {
        let dialect = self.context.dialect;
        let wants = || format!("@{} wants items and a function such as x -> x + 1", name.to_uppercase());
        let parts = lex::split(arguments, b',', dialect);
        let Some(last) = parts.last() else { return Err(self.wrong(place, &wants())) };
        let items_text = &arguments[..last.as_ptr() as usize - arguments.as_ptr() as usize];
        let Some(function) = self.function(last) else { return Err(self.wrong(place, &wants())) };
        let given = self.arguments(items_text, place)?.positional;
        let items: Vec<String> = match given.as_slice() {
            [one] => match lex::items(one, dialect) {
                Some(items) => items.into_iter().map(str::to_owned).collect(),
                None => given,
            },
            _ => given,
        };
        match name {
            "each" => self.each(&function, &items, place),
            "filter" => self.filter(&function, items, place),
            _ => self.reduce(&function, items, place),
        }
    }

    /// A lambda, or a function that `@DEF` defined, by name.
    fn function(&self, text: &str) -> Option<Rc<Lambda>> {
        let dialect = self.context.dialect;
        lambda(text, dialect).map(Rc::new).or_else(|| {
            let name = lex::single_name(text.trim_start_matches('@'), dialect)?;
            self.functions.get(&name.to_ascii_lowercase()).cloned()
        })
    }

    fn apply_to_item(&mut self, function: &Lambda, item: &str, place: usize) -> Result<String, RenderError> {
        match lex::items(item, self.context.dialect) {
            Some(parts) if item.starts_with('(') && parts.len() > 1 => {
                self.apply(function, &parts, place, false)
            }
            _ => self.apply(function, &[item], place, false),
        }
    }

    fn each(&mut self, function: &Lambda, items: &[String], place: usize) -> Result<Outcome, RenderError> {
        let mut results = Vec::with_capacity(items.len());
        for item in items {
            let sql = self.apply_to_item(function, item, place)?;
            if !sql.trim().is_empty() {
                results.push(sql);
            }
        }
        // One list inside another call must arrive there as one item.
        if self.depth > 1
            && results.len() == 1
            && lex::items(&results[0], self.context.dialect).is_some_and(|i| i.len() > 1)
        {
            results[0] = format!("[{}]", results[0]);
        }
        Ok(Outcome::List(results))
    }

    fn filter(
        &mut self,
        function: &Lambda,
        items: Vec<String>,
        place: usize,
    ) -> Result<Outcome, RenderError> {
        let mut kept = Vec::new();
        for item in items {
            let condition = self.apply_to_item(function, &item, place)?;
            if self.compute(&condition, place)?.is_true() {
                kept.push(item);
            }
        }
        Ok(Outcome::List(kept))
    }

    fn reduce(
        &mut self,
        function: &Lambda,
        items: Vec<String>,
        place: usize,
    ) -> Result<Outcome, RenderError> {
        let mut items = items.into_iter();
        let Some(mut result) = items.next() else {
            return Err(self.wrong(place, "@REDUCE wants at least one item"));
        };
        for item in items {
            result = self.apply(function, &[&result, &item], place, false)?;
        }
        Ok(Outcome::Sql(result))
    }

    fn variable_or_default(
        &mut self,
        name: &str,
        arguments: &str,
        place: usize,
    ) -> Result<Outcome, RenderError> {
        let dialect = self.context.dialect;
        let given = self.arguments(arguments, place)?;
        let Some(wanted) = given.get(0, "var_name").and_then(|text| lex::string_literal(text, dialect))
        else {
            return Err(self.wrong(place, &format!("@{} wants a name in quotes", name.to_uppercase())));
        };
        let wanted = wanted.to_lowercase();
        let context = self.context;
        let value = if name == "blueprint_var" {
            context.blueprint.get(&wanted).cloned()
        } else {
            match context.env.variables.get(&wanted) {
                Some(value) => Some(super::lookup::array_literal(value, dialect)),
                None if wanted == "gateway" => Some(super::lookup::quote_text(&context.env.gateway, dialect)),
                None => None,
            }
        };
        let default = || given.get(1, "default").unwrap_or("NULL").to_owned();
        Ok(Outcome::Sql(value.unwrap_or_else(default)))
    }

    /// Computes an expanded expression.
    pub(super) fn compute(&mut self, sql: &str, place: usize) -> Result<Computed, RenderError> {
        if self.context.time == TimeVars::Symbolic && has_symbol(sql, self) {
            return Err(self.needs_time(place));
        }
        condition::compute(sql, self.context.dialect).map_err(|why| {
            let hint = "conditions are computed while rendering: use literals, variables, comparisons, \
                        arithmetic and simple functions";
            self.error(
                place,
                "macro-condition",
                format!("can't compute `{}`: {why}", sql.trim()),
                Some(hint.to_owned()),
            )
        })
    }
}

fn has_symbol(sql: &str, expander: &Expander<'_>) -> bool {
    let bytes = sql.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if let Some((_, end)) = lex::opaque(sql, at, expander.context.dialect) {
            at = end;
        } else if bytes[at] == b'@' {
            return true;
        } else {
            at += 1;
        }
    }
    false
}

/// The name and value of `name := value`.
fn named_argument(text: &str) -> Option<(&str, &str)> {
    let end = lex::word_end(text.as_bytes(), 0);
    let value = text[end..].trim_start().strip_prefix(":=")?;
    lex::is_plain_name(&text[..end]).then(|| (&text[..end], value.trim()))
}

fn strip_name(text: &str) -> &str {
    named_argument(text).map_or(text, |(_, value)| value)
}

/// A function written as a lambda.
pub(super) fn lambda(text: &str, dialect: crate::sql::Dialect) -> Option<Lambda> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let (params, rest) = if bytes.first() == Some(&b'(') {
        let close = lex::closing(text, 0, dialect)?;
        (lex::split(&text[1..close - 1], b',', dialect), &text[close..])
    } else {
        let end = lex::word_end(bytes, 0);
        (vec![&text[..end]], &text[end..])
    };
    let body = rest.trim_start().strip_prefix("->")?.trim();
    let params: Vec<String> = params.iter().map(|param| param.to_ascii_lowercase()).collect();
    params.iter().all(|param| lex::is_plain_name(param)).then(|| Lambda { params, body: body.to_owned() })
}

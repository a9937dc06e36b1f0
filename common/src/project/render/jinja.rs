//! Jinja texts: the variables that templates see, the project's macros, and where errors are.

use std::collections::BTreeMap;

use minijinja::value::{Kwargs, Rest, Value as Jinja};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior};

use super::python;
use super::time::{self, TimeVar};
use super::{RenderContext, RenderError, TimeVars, Value};
use crate::project::macros::lex;
use crate::project::model::Code;

/// Renders a Jinja text; its `@` macros stay.
pub(super) fn render(code: &Code, context: &RenderContext<'_>) -> Result<String, RenderError> {
    check(code, context)?;
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    env.set_recursion_limit(100);
    python::add(&mut env);
    add_macros(&mut env, context).map_err(|(path, why)| {
        let message =
            format!("the Jinja macros in {path} line {} can't be read: {why}", why.line().unwrap_or(1));
        RenderError::at(&code.text, code.line, 0, "jinja", message, None)
    })?;
    add_variables(&mut env, context);
    if code.text.contains("gateway()") {
        // SQLMesh has it as a function; people write it as a variable, too.
        let gateway = context.env.gateway.clone();
        env.add_function("gateway", move || gateway.clone());
    }
    let failed = |why: &Error| failure(why, code);
    let text = python::adapted(&code.text);
    let template = env.template_from_str(&text).map_err(|why| failed(&why))?;
    template.render(()).map_err(|why| failed(&why))
}

fn failure(why: &Error, code: &Code) -> RenderError {
    let mut cause: &Error = why;
    while let Some(inner) = std::error::Error::source(cause).and_then(|e| e.downcast_ref::<Error>()) {
        cause = inner;
    }
    let line = code.line + why.line().unwrap_or(1).saturating_sub(1) as u32;
    let hint = match cause.kind() {
        ErrorKind::UndefinedError => Some("a name in the template is not defined; variables are var('name')"),
        ErrorKind::UnknownFunction => Some("Jinja macros are defined in the project's macros folder"),
        _ => None,
    };
    let message = match cause.detail() {
        Some(detail) => format!("{}: {detail}", cause.kind()),
        None => cause.kind().to_string(),
    };
    RenderError { line, column: 1, code: "jinja", message, hint: hint.map(str::to_owned) }
}

/// Refuses what needs dbt, time that isn't there, and time whose value isn't known.
fn check(code: &Code, context: &RenderContext<'_>) -> Result<(), RenderError> {
    let fail = |at, name: &'static str, message: String, hint: &str| {
        Err(RenderError::at(&code.text, code.line, at, name, message, Some(hint.to_owned())))
    };
    for segment in segments(&code.text) {
        let alone = segment.is_output && lex::is_plain_name(segment.content.trim().trim_matches('-').trim());
        for word in words(segment.content) {
            let at = segment.at + word.at;
            if word.is_call && matches!(word.name, "ref" | "source") && !defines(context, word.name) {
                let message = format!("`{}()` belongs to dbt, which is not supported", word.name);
                return fail(at, "dbt", message, "name the model directly: schema.table");
            }
            let Some(variable) = TimeVar::named(word.name) else { continue };
            if context.time == TimeVars::Symbolic && !alone {
                let message = format!("the text depends on the value of `{}`", word.name);
                return fail(at, "needs-time-value", message, "use the variable only as {{ start_ds }}");
            }
            if context.time != TimeVars::Symbolic
                && time::value(context.time, variable, context.dialect).is_none()
            {
                let message = format!(
                    "`{}` is undefined here: FULL and VIEW queries know only the execution time",
                    word.name
                );
                let hint = "use an execution_ variable such as execution_ds, or make the model incremental";
                return fail(at, "no-batch-time", message, hint);
            }
        }
    }
    if context.time == TimeVars::Symbolic && macros_use_time(code, context) {
        let message = "a Jinja macro uses a time variable".to_owned();
        return fail(
            0,
            "needs-time-value",
            message,
            "give the macro's text the variable outside of the macro",
        );
    }
    Ok(())
}

fn defines(context: &RenderContext<'_>, name: &str) -> bool {
    context.env.jinja_macros.values().any(|source| macro_names(source).contains(&name))
}

/// Whether a project macro that the text may reach mentions a time variable.
fn macros_use_time(code: &Code, context: &RenderContext<'_>) -> bool {
    let called = segments(&code.text).flat_map(|segment| words(segment.content)).any(|word| word.is_call);
    called
        && context
            .env
            .jinja_macros
            .values()
            .flat_map(|source| segments(source))
            .flat_map(|segment| words(segment.content))
            .any(|word| TimeVar::named(word.name).is_some())
}

/// Makes every macro of every file a function by its name.
fn add_macros<'s>(env: &mut Environment<'s>, context: &'s RenderContext<'_>) -> Result<(), (String, Error)> {
    for (path, source) in &context.env.jinja_macros {
        env.add_template_owned(path.clone(), python::adapted(source).into_owned())
            .map_err(|why| (path.clone(), why))?;
        for name in macro_names(source) {
            let (path, macro_name) = (path.clone(), name.to_owned());
            let call =
                move |state: &State<'_, '_>, given: Rest<Jinja>, named: Kwargs| -> Result<Jinja, Error> {
                    let mut arguments = given.0;
                    arguments.push(Jinja::from(named));
                    let mut file = state.get_template(&path)?.render_captured(())?;
                    let text = file.with_state_mut(|state| state.call_macro(&macro_name, &arguments))?;
                    Ok(Jinja::from_safe_string(text))
                };
            env.add_function(name.to_owned(), call);
        }
    }
    Ok(())
}

fn add_variables(env: &mut Environment<'_>, context: &RenderContext<'_>) {
    let plain = |sql: &str| lex::string_literal(sql, context.dialect).unwrap_or_else(|| sql.to_owned());
    let mut variables: BTreeMap<String, Jinja> =
        context.env.variables.iter().map(|(name, value)| (name.clone(), to_jinja(value))).collect();
    variables.entry("gateway".to_owned()).or_insert_with(|| Jinja::from(context.env.gateway.as_str()));
    let blueprint: BTreeMap<String, Jinja> =
        context.blueprint.iter().map(|(name, sql)| (name.clone(), Jinja::from(plain(sql)))).collect();
    for (name, value) in variables.iter().chain(&blueprint) {
        env.add_global(name.clone(), value.clone());
    }

    for (name, sql) in context.locals {
        env.add_global(name.clone(), Jinja::from(plain(sql)));
    }
    for name in time::names() {
        if let Some(value) = time_value(&name, context) {
            env.add_global(name, value);
        }
    }
    env.add_global("runtime_stage", context.stage.name());
    env.add_global("model_kind_name", context.model_kind_name);
    env.add_global("default_catalog", context.env.default_catalog.clone());
    for (name, value) in [("this_model", context.this_model), ("this_env", context.this_env)] {
        if let Some(value) = value {
            env.add_global(name, value);
        }
    }
    env.add_global("schemas", context.schemas.to_vec());
    env.add_global("views", context.views.to_vec());
    env.add_function("var", getter(variables));
    env.add_function("blueprint_var", getter(blueprint));
}

fn getter(
    values: BTreeMap<String, Jinja>,
) -> impl Fn(String, Option<Jinja>) -> Jinja + Send + Sync + 'static {
    move |name, default| {
        values.get(&name.to_lowercase()).cloned().or(default).unwrap_or_else(|| Jinja::from(()))
    }
}

fn time_value(name: &str, context: &RenderContext<'_>) -> Option<Jinja> {
    if context.time == TimeVars::Symbolic {
        return Some(Jinja::from(format!("@{name}")));
    }
    let value = time::value(context.time, TimeVar::named(name)?, context.dialect)?;
    Some(match value.number() {
        Some(number) if value.is_integer() => Jinja::from(number as i64),
        Some(number) => Jinja::from(number),
        None => value.object().unwrap_or_else(|| Jinja::from(value.bare())),
    })
}

/// A value as templates see it.
pub(crate) fn to_jinja(value: &Value) -> Jinja {
    match value {
        Value::Null => Jinja::from(()),
        Value::Bool(value) => Jinja::from(*value),
        Value::Int(number) => Jinja::from(*number),
        Value::Float(number) => Jinja::from(*number),
        Value::Text(text) => Jinja::from(text.as_str()),
        Value::List(values) => values.iter().map(to_jinja).collect(),
        Value::Map(values) => {
            let pairs: BTreeMap<String, Jinja> =
                values.iter().map(|(key, value)| (key.clone(), to_jinja(value))).collect();
            Jinja::from(pairs)
        }
    }
}

/// A `{{ … }}` or `{% … %}` of a text.
pub(super) struct Segment<'t> {
    pub(super) content: &'t str,
    pub(super) at: usize,
    is_output: bool,
}

/// All expressions and blocks of a text, without comments.
pub(super) fn segments(text: &str) -> impl Iterator<Item = Segment<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let open = at + text[at..].find('{')?;
            let close = match text.as_bytes().get(open + 1) {
                Some(b'{') => "}}",
                Some(b'%') => "%}",
                Some(b'#') => "#}",
                _ => {
                    at = open + 1;
                    continue;
                }
            };
            let start = open + 2;
            let end = start + text[start..].find(close).unwrap_or(text.len() - start);
            at = (end + 2).min(text.len());
            if close != "#}" {
                return Some(Segment { content: &text[start..end], at: start, is_output: close == "}}" });
            }
        }
    })
}

/// A name in a segment.
pub(super) struct Word<'t> {
    pub(super) name: &'t str,
    pub(super) at: usize,
    pub(super) is_call: bool,
    /// The text in quotes that a call's arguments start with.
    pub(super) first_text: Option<&'t str>,
}

/// The names of a segment that are neither attributes nor in quotes.
pub(super) fn words(content: &str) -> Vec<Word<'_>> {
    let bytes = content.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b if lex::is_word_start(b) => {
                let end = lex::word_end(bytes, at);
                if at == 0 || bytes[at - 1] != b'.' {
                    let rest = content[end..].trim_start();
                    let inside = rest.strip_prefix('(').map(str::trim_start);
                    let first_text = inside.and_then(|inside| {
                        let quote = inside.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
                        inside[1..].split(quote).next()
                    });
                    words.push(Word { name: &content[at..end], at, is_call: inside.is_some(), first_text });
                }
                at = end;
            }
            b if b.is_ascii_digit() => at = lex::word_end(bytes, at),
            _ => at += 1,
        }
    }
    words
}

/// The names of the macros that a source defines.
fn macro_names(source: &str) -> Vec<&str> {
    segments(source)
        .filter(|segment| !segment.is_output)
        .filter_map(|segment| {
            let content = segment.content.trim_start_matches(['-', '+']).trim_start();
            let rest = content.strip_prefix("macro")?;
            let name = rest.trim_start();
            let end = lex::word_end(name.as_bytes(), 0);
            (rest.len() > name.len() && end > 0).then(|| &name[..end])
        })
        .collect()
}

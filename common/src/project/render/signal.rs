//! Rendering a signal: the query that returns ready ranges.

use std::collections::BTreeMap;

use super::{RenderContext, RenderError, render};
use crate::project::macros::Expander;
use crate::project::model::Signal;
use crate::sql::Dialect;

/// The query of a signal for one candidate range, which is what the context's time variables show.
/// `args` are the reference's arguments by lower-case name, as SQL text that may hold macros.
///
/// # Errors
/// As [`render`]; arguments that the signal needs and nobody gives are undefined variables.
pub fn render_signal(
    signal: &Signal,
    args: &BTreeMap<String, String>,
    context: &RenderContext<'_>,
) -> Result<String, RenderError> {
    let mut locals = context.locals.clone();
    for (name, sql) in args {
        locals.insert(name.to_lowercase(), Expander::new(context, sql, signal.query.line).expand(sql)?);
    }
    let dialect = if signal.dialect == Dialect::Generic { context.dialect } else { signal.dialect };
    render(&signal.query, &RenderContext { locals: &locals, dialect, ..context.clone() }).map_err(
        |mut error| {
            if error.code == "undefined-variable" {
                error.hint = Some(format!("give it as an argument: {}(name := value)", signal.name));
            }
            error
        },
    )
}

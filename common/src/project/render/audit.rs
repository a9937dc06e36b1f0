//! Rendering an audit: the query that returns bad rows.

use std::collections::BTreeMap;

use super::{RenderContext, RenderError, render};
use crate::project::macros::Expander;
use crate::project::model::Audit;
use crate::sql::Dialect;

/// The query of an audit that returns bad rows. `args` are the reference's arguments by lower-case
/// name, as SQL text that may hold macros; they win over the audit's defaults. The context says
/// what `@this_model` is; built-in audits are written in its dialect.
///
/// # Errors
/// As [`render`]; arguments that the audit needs and nobody gives are undefined variables.
pub fn render_audit(
    audit: &Audit,
    args: &BTreeMap<String, String>,
    context: &RenderContext<'_>,
) -> Result<String, RenderError> {
    let mut locals = context.locals.clone();
    for (name, sql) in audit.defaults.iter().chain(args) {
        locals.insert(name.to_lowercase(), Expander::new(context, sql, audit.query.line).expand(sql)?);
    }
    if context.dialect.is_tsql()
        && let Some(condition) = locals.get_mut("condition").filter(|sql| sql.eq_ignore_ascii_case("true"))
    {
        // SQL Server has no truth values.
        "1 = 1".clone_into(condition);
    }
    let dialect = if audit.dialect == Dialect::Generic { context.dialect } else { audit.dialect };
    render(&audit.query, &RenderContext { locals: &locals, dialect, ..context.clone() }).map_err(
        |mut error| {
            if error.code == "undefined-variable" {
                error.hint = Some(format!("give it as an argument: {}(name := value)", audit.name));
            }
            error
        },
    )
}

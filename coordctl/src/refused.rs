//! Flags and commands of SQLMesh's that are not ours: what to do instead.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Flags, why they are refused, and what to do.
const FLAGS: [(&str, &str, &str); 11] = [
    ("--dialect", "queries are never translated", "leave it out: the query is in its model's own dialect"),
    ("--no-format", "queries are never formatted", "leave it out"),
    ("--normalize", "queries are never formatted", "leave it out"),
    ("--leading-comma", "queries are never formatted", "leave it out"),
    ("--max-text-width", "queries are never formatted", "leave it out"),
    (
        "--force-delete",
        "what can't be dropped stays on record, so that it is tried again",
        "mend why it can't be dropped, and run the janitor again",
    ),
    ("--config", "configurations in Python aren't read", "write config.yaml"),
    ("--ignore-warnings", "warnings go to standard error", "leave it out, or add `2>/dev/null`"),
    ("--log-to-stdout", "logs go to standard error", "leave it out, or add `2>&1`"),
    ("--log-file-dir", "no files are written for logs", "leave it out, or redirect standard error"),
    ("--no-pager", "nothing is paged", "leave it out"),
];

/// Commands, why they are refused, and what to do.
const COMMANDS: [(&str, &str, &str); 12] = [
    ("create_test", "nothing writes unit tests", "write them by hand: `tests/test_*.yaml`"),
    ("evaluate", "no model is computed outside of plans", "use `render`, and `fetch` for its result"),
    ("format", "files are never rewritten", "leave the command out of scripts"),
    (
        "create_external_models",
        "nothing writes external_models.yaml yet",
        "write it by hand: a list of `name` and `columns`",
    ),
    ("table_diff", "tables aren't compared yet", "compare them with `fetch`"),
    ("clean", "there is no cache", "leave the command out of scripts"),
    ("migrate", "the state brings itself up to date", "leave the command out of scripts"),
    ("rewrite", "there are no metrics", "write the query itself"),
    ("prompt", "nothing asks a language model", "write the query itself"),
    ("ui", "there is no user interface but this one", "see `coordctl help`"),
    ("dlt_refresh", "pipelines of dlt aren't read", "write the models by hand"),
    ("dbt", "projects of dbt aren't read", "write them as SQLMesh projects"),
];

/// What to say of a command line that isn't understood, where it is SQLMesh's.
pub(crate) fn explain(usage: &clap::Error) -> Option<(String, &'static str)> {
    let (kind, what, known): (_, _, &[(&str, &str, &str)]) = match usage.kind() {
        ErrorKind::UnknownArgument => (ContextKind::InvalidArg, "", &FLAGS),
        ErrorKind::InvalidSubcommand => (ContextKind::InvalidSubcommand, "command ", &COMMANDS),
        _ => return None,
    };
    let Some(ContextValue::String(given)) = usage.get(kind) else { return None };
    let (name, why, hint) = known.iter().find(|(name, ..)| given == name)?;
    Some((format!("the {what}`{name}` of SQLMesh is not supported: {why}"), hint))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn flags_and_commands_of_sqlmesh_say_what_to_do_instead() {
        for (arguments, expected) in [
            (&["render", "a.b", "--dialect=duckdb"][..], Some("the `--dialect` of SQLMesh")),
            (&["janitor", "--force-delete"], Some("the `--force-delete` of SQLMesh")),
            (&["evaluate"], Some("the command `evaluate` of SQLMesh")),
            (&["plan", "--nonsense"], None),
            (&["nonsense"], None),
        ] {
            let given = ["coordctl"].iter().chain(arguments);
            let usage = Cli::try_parse_from(given).expect_err("none of them is ours");
            let said = explain(&usage).map(|(message, _)| message);
            assert_eq!(said.is_some(), expected.is_some(), "{arguments:?}: {usage}");
            assert!(said.unwrap_or_default().starts_with(expected.unwrap_or_default()), "{arguments:?}");
        }
    }

    #[test]
    fn flags_of_sqlmesh_that_change_nothing_are_taken() {
        for arguments in [
            &["plan", "dev", "--skip-linter", "-vv"][..],
            &["plan", "--verbose"],
            &["run", "--exit-on-env-update", "75"],
            &["audit", "--model", "a.b", "--model", "c", "-s", "1 week ago", "-e", "yesterday"],
            &["table_name", "a.b", "--env", "dev", "--prod"],
        ] {
            let given = ["coordctl"].iter().chain(arguments);
            assert!(Cli::try_parse_from(given).is_ok(), "{arguments:?}");
        }
    }
}

//! Whether a cron expression can be one.

use crate::diagnostic::{Diagnostic, Location};

const WORDS: [&str; 7] = ["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@annually", "@midnight"];

/// Reports a cron expression that is neither five fields nor a word such as `@daily`.
pub(crate) fn check_cron(cron: &str, at: Location, findings: &mut Vec<Diagnostic>) {
    if !is_cron(cron) {
        findings.push(
            Diagnostic::error("invalid-cron", at, format!("`{cron}` is not a cron expression"))
                .hint("write five fields such as `'0 6 * * *'`, or `'@daily'`"),
        );
    }
}

/// Whether a macro's name is a word such as `daily`, meant as `@daily`.
pub(crate) fn is_cron_word(name: &str) -> bool {
    WORDS.iter().any(|word| word[1..].eq_ignore_ascii_case(name))
}

fn is_cron(cron: &str) -> bool {
    if cron.starts_with('@') {
        return WORDS.iter().any(|word| word.eq_ignore_ascii_case(cron));
    }
    let fields: Vec<&str> = cron.split_whitespace().collect();
    let good = |field: &&str| field.chars().all(|c| c.is_ascii_alphanumeric() || "*,-/#?".contains(c));
    fields.len() == 5 && fields.iter().all(good)
}

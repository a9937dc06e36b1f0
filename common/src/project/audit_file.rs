//! `AUDIT (…); SELECT …;`, in files of their own and inside models' files.

use crate::diagnostic::{Diagnostic, Location};
use crate::sql::Dialect;

use super::SourceFile;
use super::ddl::source::Source;
use super::ddl::statements::{Piece, is_query, split};
use super::fields::Fields;
use super::model::Audit;
use super::suggest::did_you_mean;
use super::text_file::{TextFile, block_properties, only_block};

/// The audits that need no definition; each has a `_non_blocking` variant too.
pub const BUILTIN_AUDITS: &[&str] = &[
    "not_null",
    "unique_values",
    "accepted_values",
    "number_of_rows",
    "forall",
    "accepted_range",
    "at_least_one",
    "not_constant",
    "not_empty_string",
    "not_null_proportion",
    "not_accepted_values",
    "sequential_values",
    "unique_combination_of_columns",
    "mutually_exclusive_ranges",
    "valid_uuid",
    "valid_url",
    "valid_http_method",
    "valid_email",
    "match_regex_pattern_list",
    "not_match_regex_pattern_list",
    "match_like_pattern_list",
    "not_match_like_pattern_list",
    "z_score",
    "string_length_between",
    "string_length_equal",
    "stddev_in_range",
    "mean_in_range",
    "kl_divergence",
    "chi_square",
];

const AUDIT_PROPERTIES: [&str; 19] = [
    "name",
    "dialect",
    "skip",
    "blocking",
    "standalone",
    "defaults",
    "model",
    "description",
    "owner",
    "tags",
    "start",
    "end",
    "cron",
    "cron_tz",
    "interval_unit",
    "depends_on",
    "stamp",
    "project",
    "formatting",
];

/// What only a node of its own has: properties of standalone audits.
const OF_NODES: [&str; 9] =
    ["owner", "tags", "start", "end", "cron", "cron_tz", "interval_unit", "depends_on", "stamp"];

/// Whether an audit needs no definition.
pub fn is_builtin(name: &str) -> bool {
    BUILTIN_AUDITS.contains(&name.strip_suffix("_non_blocking").unwrap_or(name))
}

/// All audits of a file.
pub(crate) fn load(
    file: &SourceFile,
    default_dialect: Dialect,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Audit> {
    let text = match TextFile::read(file, default_dialect) {
        Ok(text) => text,
        Err(finding) => {
            findings.push(finding);
            return Vec::new();
        }
    };
    let pieces = match split(&text.source, &text.tokens.tokens) {
        Ok(pieces) => pieces.main,
        Err(finding) => {
            findings.push(finding);
            return Vec::new();
        }
    };
    let mut audits = Vec::new();
    let mut rest = pieces.as_slice();
    while let Some(first) = rest.first() {
        let next =
            1 + rest[1..].iter().position(|piece| is_audit(&text.source, piece)).unwrap_or(rest.len() - 1);
        if is_audit(&text.source, first) {
            audits.extend(read(&text.source, &rest[..next], text.dialect, findings));
        } else {
            let at = text.source.location(first.start());
            findings.push(
                Diagnostic::error("missing-audit-block", at, "expected an AUDIT block")
                    .hint("start the file with `AUDIT (name …);`"),
            );
        }
        rest = &rest[next..];
    }
    audits
}

/// Whether a piece starts an audit.
pub(crate) fn is_audit(source: &Source, piece: &Piece<'_>) -> bool {
    match piece {
        Piece::Sql(tokens) => {
            tokens[0].is_word(&source.text, "audit") && tokens.get(1).is_some_and(|token| token.is('('))
        }
        Piece::Jinja { .. } => false,
    }
}

/// One audit: its block, and the query as the last of the statements that follow.
pub(crate) fn read(
    source: &Source,
    pieces: &[Piece<'_>],
    dialect: Dialect,
    findings: &mut Vec<Diagnostic>,
) -> Option<Audit> {
    let (Piece::Sql(block_tokens), statements) = pieces.split_first()? else { return None };
    let block = match only_block(source, block_tokens, "AUDIT", findings)? {
        Ok(block) => block,
        Err(finding) => {
            findings.push(finding);
            return None;
        }
    };
    let at = source.location(pieces[0].start());
    let (properties, found) = block_properties(source, block_tokens, block);
    findings.extend(found);
    let query = query(source, statements, at.clone(), findings);
    let mut audit = Audit {
        name: String::new(),
        dialect,
        skip: false,
        blocking: true,
        standalone: false,
        defaults: std::collections::BTreeMap::new(),
        query: query.unwrap_or_else(|| pieces[0].code(source)),
        location: at.clone(),
    };
    let mut fields = Fields { dialect, findings };
    let standalone = properties.iter().rev().find(|property| property.is("standalone"));
    audit.standalone = standalone.is_some_and(|property| fields.flag(property).unwrap_or(false));
    // Nothing waits for a standalone audit.
    audit.blocking = !audit.standalone;
    for property in &properties {
        match property.key.to_ascii_lowercase().as_str() {
            "name" => audit.name = fields.text(property)?.to_lowercase(),
            "skip" => audit.skip = fields.flag(property).unwrap_or(audit.skip),
            "blocking" => {
                audit.blocking = fields.flag(property).unwrap_or(audit.blocking);
                if audit.standalone && audit.blocking {
                    let message = "a standalone audit can't be blocking";
                    let finding = Diagnostic::error("conflicting-properties", property.location(), message);
                    fields.findings.push(finding.hint("remove `blocking`, or `standalone`"));
                }
            }
            "standalone" => {}
            key if audit.standalone && OF_NODES.contains(&key) => {}
            "defaults" => {
                let defaults = fields.map(property);
                audit.defaults =
                    defaults.into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
            }
            "dialect" => {
                if let Some(Ok(dialect)) = fields.text(property).map(|text| text.parse()) {
                    audit.dialect = dialect;
                }
            }
            "description" | "formatting" => {}
            key if AUDIT_PROPERTIES.contains(&key) => {
                let message = format!("property `{key}` of an audit has no effect yet");
                let finding = Diagnostic::warning("property-without-effect", property.location(), message);
                fields.findings.push(finding.hint("nothing else to do"));
            }
            key => {
                let message = format!("AUDIT has no property `{key}`");
                let finding = Diagnostic::error("unknown-property", property.location(), message);
                fields.findings.push(finding.hint(did_you_mean(key, &AUDIT_PROPERTIES)));
            }
        }
    }
    if audit.name.is_empty() {
        let finding = Diagnostic::error("missing-name", at, "the AUDIT block has no name");
        findings.push(finding.hint("add `name my_audit`"));
        return None;
    }
    Some(audit)
}

fn query(
    source: &Source,
    statements: &[Piece<'_>],
    block: Location,
    findings: &mut Vec<Diagnostic>,
) -> Option<super::model::Code> {
    let Some((last, before)) = statements.split_last().filter(|(last, _)| is_query(source, last, true))
    else {
        // What stands in the query's place is where to look.
        let at = statements.last().map_or(block, |last| source.location(last.start()));
        let finding = Diagnostic::error("no-query", at, "the audit has no query");
        findings.push(finding.hint("put a SELECT that returns bad rows after the block"));
        return None;
    };
    if let Some(first) = before.first() {
        let at = source.location(first.start());
        let finding = Diagnostic::error(
            "audit-statements",
            at,
            "statements before an audit's query aren't supported yet",
        );
        findings.push(finding.hint("keep the query only"));
    }
    Some(last.code(source))
}

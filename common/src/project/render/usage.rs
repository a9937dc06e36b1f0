//! Which variables and functions a text's macros use, found without expanding them.

use std::collections::BTreeSet;

use super::jinja;
use super::time::{Point, TimeVar};
use crate::project::macros::lex::{self, Opaque};
use crate::project::model::{Code, Language};
use crate::sql::Dialect;

/// What a text's macros use. It may name more than is truly used, never less, but for what Jinja
/// macros of the project use in turn: scan their sources the same way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MacroUse {
    /// Lower-case names of variables, other than time variables: the project's, the blueprint's
    /// and `@DEF`'s alike.
    pub variables: BTreeSet<String>,
    /// Whether a time variable is used.
    pub time: bool,
    /// Whether a start or end variable is used.
    pub start_end: bool,
    /// Lower-case names of called macro functions, built in or not.
    pub functions: BTreeSet<String>,
    /// Relations given to `@STAR` and `@UNION`, as written: rendering needs their columns.
    pub schemas_needed: BTreeSet<String>,
}

impl MacroUse {
    /// Adds what another text uses.
    pub fn extend(&mut self, other: Self) {
        self.variables.extend(other.variables);
        self.time |= other.time;
        self.start_end |= other.start_end;
        self.functions.extend(other.functions);
        self.schemas_needed.extend(other.schemas_needed);
    }

    fn name(&mut self, name: &str) {
        let name = name.to_lowercase();
        match TimeVar::named(&name) {
            Some(variable) => {
                self.time = true;
                self.start_end |= variable.point != Point::Execution;
            }
            None => {
                self.variables.insert(name);
            }
        }
    }
}

/// Finds what a text's macros use.
pub fn macro_use(code: &Code) -> MacroUse {
    let mut found = MacroUse::default();
    if code.language == Language::Jinja {
        for word in jinja::segments(&code.text).flat_map(|segment| jinja::words(segment.content)) {
            match (word.is_call, word.first_text) {
                (true, Some(variable)) if matches!(word.name, "var" | "blueprint_var") => {
                    found.name(variable);
                }
                (true, _) => {
                    found.functions.insert(word.name.to_lowercase());
                }
                (false, _) => found.name(word.name),
            }
        }
    }
    if code.text.contains('@') {
        scan(&code.text, &mut found);
    }
    found
}

fn scan(text: &str, found: &mut MacroUse) {
    // Without a dialect only comments that all dialects share are left out.
    let dialect = Dialect::Generic;
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut text_end = 0;
    while at < bytes.len() {
        match lex::opaque(text, at, dialect) {
            Some((Opaque::Comment, end)) if at >= text_end => {
                at = end;
                continue;
            }
            Some((Opaque::Text, end)) if at >= text_end => text_end = end,
            _ => {}
        }
        if bytes[at] != b'@' {
            at += 1;
            continue;
        }
        let braced = bytes.get(at + 1) == Some(&b'{');
        let start = at + 1 + usize::from(braced);
        if !bytes.get(start).is_some_and(|b| lex::is_word_start(*b)) || (at > 0 && bytes[at - 1] == b'@') {
            at += 1;
            continue;
        }
        let end = lex::word_end(bytes, start);
        let name = &text[start..end];
        let open = lex::skip_blank(text, end, dialect);
        if !braced && bytes.get(open) == Some(&b'(') && at >= text_end {
            call(name, text, open, found);
        } else {
            found.name(name);
        }
        at = end;
    }
}

fn call(name: &str, text: &str, open: usize, found: &mut MacroUse) {
    let dialect = Dialect::Generic;
    let name = name.to_lowercase();
    let close = lex::closing(text, open, dialect).unwrap_or(text.len());
    let arguments = lex::split(text.get(open + 1..close - 1).unwrap_or_default(), b',', dialect);
    match name.as_str() {
        "var" | "blueprint_var" => {
            if let Some(variable) = arguments.first().and_then(|text| lex::string_literal(text, dialect)) {
                found.name(&variable);
            }
        }
        "star" => found.schemas_needed.extend(
            arguments
                .first()
                .map(|relation| relation.rsplit(":=").next().unwrap_or(relation).trim().to_owned()),
        ),
        "union" => {
            let relations = arguments.iter().filter(|text| lex::name_parts(text, dialect).is_some());
            found.schemas_needed.extend(relations.map(|text| (*text).to_owned()));
        }
        _ => {}
    }
    if !crate::project::macros::is_builtin(&name) {
        // `ON @this_model(a)` is a variable before a bracket.
        found.variables.insert(name.clone());
    }
    found.functions.insert(name);
}

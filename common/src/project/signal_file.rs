//! Signals: queries in `signals/NAME.sql` that say which ranges of time are ready.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Location};

use super::SourceFile;
use super::ddl::statements::{is_query, split};
use super::model::{Model, Signal};
use super::settings::Settings;
use super::text_file::TextFile;

/// All signals of a project, by lower-case name.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    sql: BTreeMap<String, Signal>,
    /// Where Python defines one: refused only where a model uses it.
    python: BTreeMap<String, Location>,
}

/// Reads `signals/`.
pub(crate) fn load(settings: &Settings, files: &[&SourceFile], findings: &mut Vec<Diagnostic>) -> Signals {
    let mut signals = Signals::default();
    for file in files.iter().filter(|file| file.path.starts_with("signals/")) {
        if file.path.ends_with(".py") {
            signals.python.extend(python(file));
        } else if let Some(signal) = file.path.ends_with(".sql").then(|| read(settings, file)) {
            match signal {
                Ok(signal) => signals.add(signal, findings),
                Err(finding) => findings.push(finding),
            }
        }
    }
    signals
}

fn read(settings: &Settings, file: &SourceFile) -> Result<Signal, Diagnostic> {
    let text = TextFile::read(file, settings.model_defaults.dialect)?;
    let pieces = split(&text.source, &text.tokens.tokens)?.main;
    let [query] = pieces.as_slice() else {
        let at = pieces.get(1).map_or(0, super::ddl::statements::Piece::start);
        let message = format!("a signal's file holds one query, this one has {} statements", pieces.len());
        return Err(Diagnostic::error("signal-query", text.source.location(at), message)
            .hint("keep one SELECT that returns the ready ranges as rows: start, end"));
    };
    if !is_query(&text.source, query, true) {
        let at = text.source.location(query.start());
        return Err(Diagnostic::error("signal-query", at, "a signal is a query")
            .hint("write a SELECT that returns the ready ranges as rows: start, end"));
    }
    Ok(Signal {
        name: stem(&file.path).to_lowercase(),
        dialect: text.dialect,
        query: query.code(&text.source),
        location: Location::file(file.path.clone()),
    })
}

fn stem(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

/// The functions that `@signal` decorates, and where.
fn python(file: &SourceFile) -> Vec<(String, Location)> {
    let mut found = Vec::new();
    for (at, _) in file.text.match_indices("@signal") {
        let rest = &file.text[at..];
        let Some(def) = rest.find("def ") else { continue };
        let name = rest[def + 4..].chars().take_while(|c| c.is_alphanumeric() || *c == '_');
        let name: String = name.collect();
        found.push((name.to_lowercase(), Location::at_offset(file.path.clone(), &file.text, at)));
    }
    found
}

impl Signals {
    fn add(&mut self, signal: Signal, findings: &mut Vec<Diagnostic>) {
        if let Some(first) = self.sql.get(&signal.name) {
            let message = format!("signal `{}` is defined twice; first in {}", signal.name, first.location);
            findings.push(
                Diagnostic::error("duplicate-signal", signal.location, message)
                    .hint("rename one of the files"),
            );
            return;
        }
        self.sql.insert(signal.name.clone(), signal);
    }

    /// Gives a model the definitions of the signals that it names; `at`: where it names them.
    pub(crate) fn link(&self, model: &mut Model, at: &Location, findings: &mut Vec<Diagnostic>) {
        for call in &model.signals {
            match self.sql.get(&call.name) {
                Some(signal) => {
                    model.signal_definitions.insert(call.name.clone(), signal.clone());
                }
                None => findings.push(self.refused(&call.name, at.clone())),
            }
        }
    }

    fn refused(&self, name: &str, at: Location) -> Diagnostic {
        if let Some(place) = self.python.get(name) {
            let message = format!("signal `{name}` is written in Python ({place}), which isn't supported");
            return Diagnostic::error("python-not-supported", at, message)
                .hint(format!("write it as a query in signals/{name}.sql"));
        }
        if name == "freshness" {
            return Diagnostic::error(
                "unknown-signal",
                at,
                "the built-in signal `freshness` isn't supported yet",
            )
            .hint("write a query that says what is ready, in signals/NAME.sql");
        }
        let all: Vec<&str> = self.sql.keys().map(String::as_str).collect();
        let hint = super::suggest::nearest(name, &all).map_or_else(
            || format!("define it in signals/{name}.sql"),
            |near| format!("did you mean `{near}`?"),
        );
        Diagnostic::error("unknown-signal", at, format!("there is no signal `{name}`")).hint(hint)
    }
}

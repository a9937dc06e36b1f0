//! Walking a text and replacing its macro spans.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::call::{self, Lambda, Outcome};
use super::clause;
use super::lex::{self, Opaque};
use super::lookup::{Held, quote_text, write_name};
use crate::project::model::Code;
use crate::project::render::{RenderContext, RenderError};
use crate::sql::Dialect;

/// How deep macros may call each other.
const MAX_DEPTH: u32 = 100;
/// How many calls one text may make.
const MAX_CALLS: u32 = 1_000_000;
/// How many bytes all expansions of one text may write.
const MAX_BYTES: usize = 10 << 20;

/// Expands texts for one point of use.
pub(crate) struct Expander<'a> {
    pub(super) context: &'a RenderContext<'a>,
    source: &'a str,
    line: u32,
    params: Vec<(String, String)>,
    /// Parameters before this one belong to callers of the function being expanded.
    floor: usize,
    definitions: BTreeMap<String, String>,
    pub(super) functions: BTreeMap<String, Rc<Lambda>>,
    /// Where in the source the outermost macro in progress starts.
    anchor: usize,
    pub(super) depth: u32,
    calls: u32,
    written: usize,
}

/// Expanded text and where its last byte is that is neither blank nor comment.
#[derive(Default)]
pub(super) struct Out {
    pub(super) text: String,
    pub(super) solid: usize,
}

impl Out {
    /// Adds user's text whose last solid byte is at `solid`, counted in it.
    fn copy(&mut self, text: &str, solid: Option<usize>) {
        if let Some(solid) = solid.filter(|n| *n > 0) {
            self.solid = self.text.len() + solid;
        }
        self.text.push_str(text);
    }

    /// Adds a result.
    pub(super) fn push(&mut self, text: &str) {
        if text.starts_with('-') && self.text.ends_with('-') {
            // Two signs together would start a comment.
            self.text.push(' ');
        }
        self.text.push_str(text);
        self.solid = self.text.len();
    }

    /// The last word before the place of writing, or nothing where something else is.
    pub(super) fn last_word(&self) -> &str {
        let solid = &self.text[..self.solid];
        let start = solid.bytes().rposition(|b| !lex::is_word_byte(b)).map_or(0, |n| n + 1);
        &solid[start..]
    }

    /// Removes what follows the last solid byte but one word.
    pub(super) fn drop_last_word(&mut self) {
        let end = self.solid - self.last_word().len();
        self.text.truncate(end);
        self.solid = self.text.trim_end().len();
    }
}

impl<'a> Expander<'a> {
    pub(crate) fn new(context: &'a RenderContext<'a>, source: &'a str, line: u32) -> Self {
        Self {
            context,
            source,
            line,
            params: Vec::new(),
            floor: 0,
            definitions: BTreeMap::new(),
            functions: BTreeMap::new(),
            anchor: 0,
            depth: 0,
            calls: 0,
            written: 0,
        }
    }

    /// Takes over what `@DEF` statements define.
    pub(crate) fn define_all(&mut self, statements: &'a [Code]) -> Result<(), RenderError> {
        let (source, line) = (self.source, self.line);
        for code in statements.iter().filter(|code| is_definition(&code.text)) {
            (self.source, self.line) = (&code.text, code.line);
            self.expand(&code.text)?;
        }
        (self.source, self.line) = (source, line);
        Ok(())
    }

    /// The value of a lambda's parameter or a definition.
    pub(super) fn bound(&self, name: &str) -> Option<&str> {
        self.param(name).or_else(|| self.definitions.get(name).map(String::as_str))
    }

    fn param(&self, name: &str) -> Option<&str> {
        let params = &self.params[self.floor..];
        params.iter().rev().find(|(param, _)| param.eq_ignore_ascii_case(name)).map(|(_, sql)| sql.as_str())
    }

    /// An error at an offset of the source.
    pub(super) fn error(
        &self,
        at: usize,
        code: &'static str,
        message: String,
        hint: Option<String>,
    ) -> RenderError {
        RenderError::at(self.source, self.line, at, code, message, hint)
    }

    /// The offset in the source of a place in `text`; in a text made by a macro, of that macro.
    pub(super) fn place(&self, text: &str, at: usize) -> usize {
        let (base, source) = (text.as_ptr() as usize, self.source.as_ptr() as usize);
        if base >= source && base + text.len() <= source + self.source.len() {
            base - source + at
        } else {
            self.anchor
        }
    }

    /// Expands all macros of a text.
    pub(crate) fn expand(&mut self, text: &str) -> Result<String, RenderError> {
        if !text.contains('@') && self.params.len() == self.floor {
            return Ok(text.to_owned());
        }
        let bytes = text.as_bytes();
        let dialect = self.context.dialect;
        let mut out = Out { text: String::with_capacity(text.len() + 32), solid: 0 };
        let (mut at, mut copied, mut solid) = (0usize, 0usize, 0usize);
        while at < bytes.len() {
            let b = bytes[at];
            if b.is_ascii_whitespace() {
                at += 1;
                continue;
            }
            let (end, is_macro) = match b {
                b'@' => sign(text, at),
                b'<' if bytes.get(at + 1) == Some(&b'@') && has_containment(dialect) => (at + 2, false),
                _ if lex::is_word_start(b) => {
                    let end = lex::word_end(bytes, at);
                    let joined = bytes.get(end) == Some(&b'@') && starts_name(bytes, end + 1);
                    (end, joined || self.is_param_use(text, at, end))
                }
                _ if b.is_ascii_digit() => (lex::word_end(bytes, at), false),
                _ => match lex::opaque(text, at, dialect) {
                    Some((Opaque::Comment, end)) => {
                        at = end;
                        continue;
                    }
                    Some((Opaque::QuotedName, end)) => (end, text[at..end].contains('@')),
                    Some((Opaque::Text, end)) => (end, false),
                    None => (at + 1, false),
                },
            };
            if is_macro {
                out.copy(&text[copied..at], solid.checked_sub(copied));
                copied = self.replace(text, at, &mut out)?;
                at = copied;
                self.check_size(out.text.len(), text, at)?;
            } else {
                at = end;
            }
            solid = at;
        }
        out.copy(&text[copied..], None);
        self.written += out.text.len();
        Ok(out.text)
    }

    /// Expands statements: what is one `@EACH` gives one for each item.
    pub(crate) fn statements(&mut self, text: &str) -> Result<Vec<String>, RenderError> {
        let dialect = self.context.dialect;
        let whole = text.trim();
        if whole.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("@each"))
            && let Some(open) = whole.find('(')
            && whole[5..open].trim().is_empty()
            && lex::closing(whole, open, dialect) == Some(whole.len())
            && let Outcome::List(list) =
                self.call("each", &whole[open + 1..whole.len() - 1], self.place(whole, 0))?
        {
            return Ok(list);
        }
        let text = self.expand(text)?;
        Ok(lex::split(&text, b';', dialect).into_iter().map(str::to_owned).collect())
    }

    /// Writes what the macro at `at` becomes, and gives its end.
    fn replace(&mut self, text: &str, at: usize, out: &mut Out) -> Result<usize, RenderError> {
        if self.depth == 0 {
            self.anchor = self.place(text, at);
        }
        let bytes = text.as_bytes();
        let dialect = self.context.dialect;
        match bytes[at] {
            b'@' => match bytes[at + 1] {
                b'{' => self.compound(text, at, out),
                b'\'' | b'"' | b'`' => {
                    let end = lex::opaque(text, at + 1, dialect).map_or(bytes.len(), |(_, end)| end);
                    let content = lex::string_literal(&text[at + 1..end], dialect)
                        .or_else(|| lex::single_name(&text[at + 1..end], dialect))
                        .unwrap_or_default();
                    let filled = self.template(&content, self.place(text, at), false)?;
                    out.push(&quote_text(&filled, dialect));
                    Ok(end)
                }
                _ => self.named(text, at, out),
            },
            b if lex::is_word_start(b) => {
                let end = lex::word_end(bytes, at);
                if bytes.get(end) == Some(&b'@') && starts_name(bytes, end + 1) {
                    return self.compound(text, at, out);
                }
                if let Some(sql) = self.param(&text[at..end]) {
                    let held = Held::Sql(sql.to_owned().into());
                    self.write(&held, bytes.get(end).copied(), out);
                }
                Ok(end)
            }
            _ => {
                let end = lex::opaque(text, at, dialect).map_or(at + 1, |(_, end)| end);
                let filled = self.template(&text[at..end], self.place(text, at), false)?;
                out.push(&filled);
                Ok(end)
            }
        }
    }

    /// A variable or a call.
    fn named(&mut self, text: &str, at: usize, out: &mut Out) -> Result<usize, RenderError> {
        let bytes = text.as_bytes();
        let end = lex::word_end(bytes, at + 1);
        if (bytes.get(end) == Some(&b'@') && starts_name(bytes, end + 1)) || bytes.get(end) == Some(&b'{') {
            return self.compound(text, at, out);
        }
        let place = self.place(text, at);
        let name = text[at + 1..end].to_ascii_lowercase();
        let open = lex::skip_blank(text, end, self.context.dialect);
        let known = self.functions.contains_key(&name) || call::is_builtin(&name);
        if bytes.get(open) == Some(&b'(') && (known || (open == end && self.lookup(&name, place)?.is_none()))
        {
            let close = lex::closing(text, open, self.context.dialect).ok_or_else(|| {
                self.error(
                    place,
                    "unclosed-macro",
                    format!("`@{}(` is never closed", &text[at + 1..end]),
                    None,
                )
            })?;
            return self.call_at(text, at, (&name, &text[open + 1..close - 1]), close, out);
        }
        match self.lookup(&name, place)? {
            Some(held) => {
                self.write(&held, bytes.get(end).copied(), out);
                Ok(end)
            }
            None if self.context.dialect == Dialect::Snowflake && names_stage(out.last_word()) => {
                let stop = bytes[at..].iter().position(|b| b.is_ascii_whitespace() || b",();".contains(b));
                let end = stop.map_or(bytes.len(), |n| at + n);
                out.push(&text[at..end]);
                Ok(end)
            }
            None => Err(self.undefined(&text[at + 1..end], place)),
        }
    }

    fn call_at(
        &mut self,
        text: &str,
        at: usize,
        (name, arguments): (&str, &str),
        close: usize,
        out: &mut Out,
    ) -> Result<usize, RenderError> {
        let place = self.place(text, at);
        self.calls += 1;
        if self.calls > MAX_CALLS || self.depth >= MAX_DEPTH {
            let message = format!("`@{name}` expands without end");
            let hint =
                format!("macros may nest {MAX_DEPTH} deep; look for a @DEF function that calls itself");
            return Err(self.error(place, "macro-limit", message, Some(hint)));
        }
        self.depth += 1;
        let end = if let Some(clause) = clause::Clause::named(name) {
            self.clause(clause, text, (arguments, place), close, out)?
        } else {
            match self.call(name, arguments, place)? {
                Outcome::Sql(sql) => {
                    out.push(&sql);
                    close
                }
                Outcome::List(list) if !list.is_empty() => {
                    out.push(&list.join(", "));
                    close
                }
                Outcome::List(_) | Outcome::Nothing => {
                    self.refuse_hole(name, out.last_word(), place)?;
                    vanish(text, close, self.context.dialect, out)
                }
                Outcome::Defined => {
                    let next = lex::skip_blank(text, close, self.context.dialect);
                    if text.as_bytes().get(next) == Some(&b';') { next + 1 } else { close }
                }
            }
        };
        self.depth -= 1;
        Ok(end)
    }

    /// Nothing can't stand where SQL wants something.
    fn refuse_hole(&self, name: &str, word: &str, place: usize) -> Result<(), RenderError> {
        const WANT_MORE: [&str; 12] = [
            "where",
            "and",
            "or",
            "not",
            "having",
            "on",
            "by",
            "union",
            "except",
            "intersect",
            "between",
            "all",
        ];
        if !WANT_MORE.iter().any(|w| word.eq_ignore_ascii_case(w)) {
            return Ok(());
        }
        let word = word.to_uppercase();
        let message = format!("`@{}` gives nothing, but something must follow {word}", name.to_uppercase());
        let hint = "give @IF a third argument, or use @AND(…) or a clause macro such as @WHERE(…)";
        Err(self.error(place, "macro-gives-nothing", message, Some(hint.to_owned())))
    }

    /// A name with `@x` or `@{x}` in it.
    fn compound(&mut self, text: &str, at: usize, out: &mut Out) -> Result<usize, RenderError> {
        let bytes = text.as_bytes();
        let mut end = at;
        loop {
            end = lex::word_end(bytes, end);
            match bytes.get(end) {
                Some(b'@') if starts_name(bytes, end + 1) => end += 1,
                Some(b'{') if end > at => match text[end..].find('}') {
                    Some(n) => end += n + 1,
                    None => break,
                },
                _ => break,
            }
        }
        let name = self.template(&text[at..end], self.place(text, at), true)?;
        if let Some(unknown) = name.strip_prefix('@') {
            return Err(self.undefined(unknown, self.place(text, at)));
        }
        if name == text[at..end] || bytes.get(end) == Some(&b'(') {
            out.push(&name);
        } else {
            out.push(&write_name(&name, self.context.dialect));
        }
        Ok(end)
    }

    /// Writes a value: as a name where SQL wants one, else as SQL.
    fn write(&self, held: &Held<'_>, next: Option<u8>, out: &mut Out) {
        let dialect = self.context.dialect;
        let after_dot = out.text.ends_with('.');
        let as_name = after_dot || next == Some(b'.') || out.last_word().eq_ignore_ascii_case("as");
        match held.text(dialect).filter(|_| as_name) {
            Some(name) if after_dot => out.push(&write_name(&name, dialect)),
            Some(name) => out.push(&dialect.quote(&name)),
            None => out.push(&held.sql(dialect)),
        }
    }

    fn is_param_use(&self, text: &str, at: usize, end: usize) -> bool {
        self.params.len() > self.floor
            && text.as_bytes().get(end) != Some(&b'(')
            && self.param(&text[at..end]).is_some()
    }

    pub(super) fn define(&mut self, name: &str, sql: String) {
        self.definitions.insert(name.to_ascii_lowercase(), sql);
    }

    /// Expands a lambda's body with its parameters bound to SQL texts.
    pub(super) fn apply(
        &mut self,
        lambda: &Lambda,
        arguments: &[&str],
        place: usize,
        own_scope: bool,
    ) -> Result<String, RenderError> {
        if arguments.len() < lambda.params.len() {
            let message =
                format!("the function wants {} arguments, not {}", lambda.params.len(), arguments.len());
            return Err(self.error(place, "macro-arguments", message, None));
        }
        let (length, floor) = (self.params.len(), self.floor);
        if own_scope {
            self.floor = length;
        }
        let bindings = lambda.params.iter().cloned().zip(arguments.iter().map(|a| (*a).to_owned()));
        self.params.extend(bindings);
        let result = self.expand(&lambda.body);
        self.params.truncate(length);
        self.floor = floor;
        result
    }

    fn check_size(&self, length: usize, text: &str, at: usize) -> Result<(), RenderError> {
        if self.written.saturating_add(length) <= MAX_BYTES {
            return Ok(());
        }
        let message = format!("the macros write more than {} MiB", MAX_BYTES >> 20);
        Err(self.error(self.place(text, at), "macro-limit", message, Some("generate less SQL".to_owned())))
    }
}

/// Removes what a vanished item leaves: an alias and one comma beside it.
fn vanish(text: &str, close: usize, dialect: Dialect, out: &mut Out) -> usize {
    let bytes = text.as_bytes();
    let mut end = close;
    let next = lex::skip_blank(text, close, dialect);
    let is_as = bytes.get(next..next + 2).is_some_and(|word| word.eq_ignore_ascii_case(b"as"));
    if is_as && bytes.get(next + 2).is_some_and(u8::is_ascii_whitespace) {
        let alias = lex::skip_blank(text, next + 3, dialect);
        end = match bytes.get(alias) {
            Some(b) if lex::is_word_start(*b) => lex::word_end(bytes, alias),
            Some(_) => lex::opaque(text, alias, dialect).map_or(close, |(_, end)| end),
            None => close,
        };
    }
    if out.solid > 0 && out.text.as_bytes()[out.solid - 1] == b',' {
        out.text.remove(out.solid - 1);
        out.solid = out.text[..out.solid - 1].trim_end().len();
        return end;
    }
    let comma = lex::skip_blank(text, end, dialect);
    if bytes.get(comma) == Some(&b',') { comma + 1 } else { end }
}

/// Where an `@` ends that is no macro, and whether it is one.
fn sign(text: &str, at: usize) -> (usize, bool) {
    let bytes = text.as_bytes();
    match bytes.get(at + 1) {
        Some(b'@') => (lex::word_end(bytes, at + 2), false),
        Some(b'\'' | b'"' | b'`') => (at, true),
        _ => (at + 1, starts_name(bytes, at + 1)),
    }
}

fn starts_name(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(|b| lex::is_word_start(*b) || *b == b'{')
}

/// Whether `<@` is an operator.
fn has_containment(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Generic | Dialect::DuckDb | Dialect::Postgres | Dialect::Redshift)
}

/// Whether a Snowflake stage may follow the word.
fn names_stage(word: &str) -> bool {
    ["from", "join", "into", "put", "list", "ls"].iter().any(|w| word.eq_ignore_ascii_case(w))
}

/// Whether a statement is an `@DEF(…)`.
fn is_definition(text: &str) -> bool {
    let text = text.trim_start();
    text.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("@def"))
        && text[4..].trim_start().starts_with('(')
}

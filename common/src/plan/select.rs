//! Selectors: expressions that pick models, as SQLMesh writes them.
//!
//! `name`, `mart.*`, `tag:x*`, `git:branch`; `+m` with what it reads, `m+` with what reads it;
//! `^` not, `&` and, `|` or, and parentheses. `&` binds closer than `|`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::id::ModelName;
use crate::snapshot::{ByName, Snapshot};

/// What selectors choose from.
#[derive(Debug, Clone, Default)]
pub struct Candidates<'a> {
    /// All models that can be chosen.
    pub models: BTreeMap<&'a ModelName, Candidate<'a>>,
    /// For `git:`: the files that differ from a branch, by branch; paths relative to the project.
    pub changed_files: Option<&'a BTreeMap<String, BTreeSet<String>>>,
}

/// One model that can be chosen.
#[derive(Debug, Clone, Default)]
pub struct Candidate<'a> {
    /// Its tags.
    pub tags: &'a [String],
    /// The file that defines it.
    pub path: &'a str,
    /// The models that it reads.
    pub parents: Vec<&'a ModelName>,
    /// The default catalog, which names leave out and selectors may state.
    pub catalog: Option<&'a str>,
}

impl<'a> Candidates<'a> {
    /// All models among some snapshots; standalone audits can't be chosen.
    pub fn of(models: &'a ByName) -> Self {
        let models = models.iter().filter(|(_, snapshot)| !snapshot.model.kind.is_audit());
        let models = models.map(|(name, snapshot)| {
            let parents = snapshot.upstream().collect();
            (name, Candidate { parents, ..Candidate::alone(snapshot) })
        });
        Self { models: models.collect(), changed_files: None }
    }
}

impl<'a> Candidate<'a> {
    /// A snapshot, as if it read nothing.
    pub(super) fn alone(snapshot: &'a Snapshot) -> Self {
        let model = &snapshot.model;
        Self {
            tags: &model.about.tags,
            path: &model.location.path,
            parents: Vec::new(),
            catalog: snapshot.env.default_catalog.as_deref(),
        }
    }
}

/// A selector, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector(Expression);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    /// Models by name, where `*` stands for any text.
    Name(String),
    /// Models by tag, without regard to case.
    Tag(String),
    /// Models whose files differ from a branch.
    Git(String),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    /// Models and what is above or below them.
    Around {
        of: Box<Expression>,
        up: bool,
        down: bool,
    },
}

/// Why a selector can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the selector `{selector}` has {found} where {expected} is expected")]
pub struct SelectorError {
    selector: String,
    found: String,
    expected: &'static str,
}

/// A piece of a selector's text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A name, perhaps with stars.
    Word(String),
    /// One of `( ) & | ^ + :`.
    Mark(char),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "`{word}`"),
            Self::Mark(mark) => write!(f, "`{mark}`"),
        }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        let mark = matches!(c, '(' | ')' | '&' | '|' | '^' | '+' | ':');
        if !mark && !c.is_whitespace() {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            found.push(Token::Word(std::mem::take(&mut word)));
        }
        if mark {
            found.push(Token::Mark(c));
        }
    }
    found
}

impl std::str::FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { text, tokens: tokens(text), at: 0 };
        let expression = parser.or()?;
        match parser.peek() {
            None => Ok(Self(expression)),
            Some(_) => Err(parser.error("the end")),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn take(&mut self, mark: char) -> bool {
        let is = self.peek() == Some(&Token::Mark(mark));
        self.at += usize::from(is);
        is
    }

    fn error(&self, expected: &'static str) -> SelectorError {
        let found = self.peek().map_or_else(|| "its end".to_owned(), Token::to_string);
        SelectorError { selector: self.text.to_owned(), found, expected }
    }

    fn or(&mut self) -> Result<Expression, SelectorError> {
        let mut parts = vec![self.and()?];
        while self.take('|') {
            parts.push(self.and()?);
        }
        Ok(one_or(parts, Expression::Or))
    }

    fn and(&mut self) -> Result<Expression, SelectorError> {
        let mut parts = vec![self.unary()?];
        while self.take('&') {
            parts.push(self.unary()?);
        }
        Ok(one_or(parts, Expression::And))
    }

    fn unary(&mut self) -> Result<Expression, SelectorError> {
        if self.take('^') {
            return Ok(Expression::Not(Box::new(self.unary()?)));
        }
        let up = self.take('+');
        let of = if self.take('(') {
            let inner = self.or()?;
            if !self.take(')') {
                return Err(self.error("`)`"));
            }
            inner
        } else {
            self.leaf()?
        };
        let down = self.take('+');
        Ok(if up || down { Expression::Around { of: Box::new(of), up, down } } else { of })
    }

    fn leaf(&mut self) -> Result<Expression, SelectorError> {
        let first = self.word()?;
        let kind = first.to_ascii_lowercase();
        if !self.take(':') {
            return Ok(Expression::Name(first.replace(['"', '`'], "")));
        }
        match kind.as_str() {
            "tag" => Ok(Expression::Tag(self.word()?.to_lowercase())),
            "git" => Ok(Expression::Git(self.word()?)),
            "resource_type" if self.peek() == Some(&Token::Word("model".to_owned())) => {
                self.at += 1;
                Ok(Expression::Name("*".to_owned()))
            }
            // Standalone audits can't be chosen.
            "resource_type" if self.peek() == Some(&Token::Word("audit".to_owned())) => {
                self.at += 1;
                Ok(Expression::Or(Vec::new()))
            }
            _ => {
                self.at -= 2;
                Err(self.error("`tag:`, `git:` or a name"))
            }
        }
    }

    fn word(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                let word = word.clone();
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.error("a model's name")),
        }
    }
}

fn one_or(mut parts: Vec<Expression>, all: impl FnOnce(Vec<Expression>) -> Expression) -> Expression {
    match parts.len() {
        1 => parts.remove(0),
        _ => all(parts),
    }
}

impl Selector {
    /// The models that it picks. A name that no candidate has picks nothing.
    pub fn select(&self, from: &Candidates<'_>) -> BTreeSet<ModelName> {
        evaluate(&self.0, from).into_iter().cloned().collect()
    }

    /// The names that it asks for without a `*`.
    pub fn names(&self) -> Vec<&str> {
        let mut found = Vec::new();
        collect_names(&self.0, &mut found);
        found
    }

    /// The branches that it compares with.
    pub fn branches(&self) -> Vec<&str> {
        let mut open = vec![&self.0];
        let mut found = Vec::new();
        while let Some(expression) = open.pop() {
            match expression {
                Expression::Git(branch) => found.push(branch.as_str()),
                Expression::Name(_) | Expression::Tag(_) => {}
                Expression::Not(of) | Expression::Around { of, .. } => open.push(of),
                Expression::And(parts) | Expression::Or(parts) => open.extend(parts),
            }
        }
        found
    }
}

fn collect_names<'a>(expression: &'a Expression, found: &mut Vec<&'a str>) {
    match expression {
        Expression::Name(name) if !name.contains('*') => found.push(name),
        Expression::Name(_) | Expression::Tag(_) | Expression::Git(_) | Expression::Not(_) => {}
        Expression::Around { of, .. } => collect_names(of, found),
        Expression::And(parts) | Expression::Or(parts) => {
            parts.iter().for_each(|part| collect_names(part, found));
        }
    }
}

fn evaluate<'a>(expression: &Expression, from: &Candidates<'a>) -> BTreeSet<&'a ModelName> {
    let all = || from.models.keys().copied();
    match expression {
        Expression::Name(pattern) if pattern.contains('*') => {
            all().filter(|name| matches(pattern, name.as_str())).collect()
        }
        Expression::Name(name) => {
            let named = from.models.iter().filter(|(other, model)| is_named(name, other, model.catalog));
            named.map(|(name, _)| *name).collect()
        }
        Expression::Tag(pattern) => {
            let tagged = |tags: &[String]| tags.iter().any(|tag| matches(pattern, &tag.to_lowercase()));
            from.models.iter().filter(|(_, model)| tagged(model.tags)).map(|(name, _)| *name).collect()
        }
        Expression::Git(branch) => {
            let files = from.changed_files.and_then(|changed| changed.get(branch));
            let changed = |path: &str| files.is_some_and(|files| files.contains(path));
            from.models.iter().filter(|(_, model)| changed(model.path)).map(|(name, _)| *name).collect()
        }
        Expression::Not(of) => {
            let without = evaluate(of, from);
            all().filter(|name| !without.contains(name)).collect()
        }
        Expression::And(parts) => {
            let mut sets = parts.iter().map(|part| evaluate(part, from));
            let first = sets.next().unwrap_or_default();
            sets.fold(first, |kept, set| kept.intersection(&set).copied().collect())
        }
        Expression::Or(parts) => parts.iter().flat_map(|part| evaluate(part, from)).collect(),
        Expression::Around { of, up, down } => {
            let of = evaluate(of, from);
            let mut found = of.clone();
            if *up {
                found.extend(reach(&of, |name| from.models.get(name).map_or(&[][..], |m| &m.parents), from));
            }
            if *down {
                let mut children: BTreeMap<&ModelName, Vec<&'a ModelName>> = BTreeMap::new();
                for (name, model) in &from.models {
                    for parent in &model.parents {
                        children.entry(parent).or_default().push(name);
                    }
                }
                found.extend(reach(&of, |name| children.get(name).map_or(&[][..], |c| c), from));
            }
            found
        }
    }
}

/// Whether a selector's name is a model's, perhaps with the default catalog before it.
fn is_named(name: &str, model: &ModelName, default_catalog: Option<&str>) -> bool {
    let inside = || {
        let (catalog, rest) = name.split_once('.')?;
        default_catalog.is_some_and(|default| default.eq_ignore_ascii_case(catalog)).then_some(rest)
    };
    let is = |name: &str| model.as_str().eq_ignore_ascii_case(name);
    is(name) || inside().is_some_and(is)
}

/// Everything that can be reached from some models, themselves among it.
fn reach<'a, 'b>(
    of: &BTreeSet<&'a ModelName>,
    next: impl Fn(&ModelName) -> &'b [&'a ModelName],
    from: &Candidates<'a>,
) -> BTreeSet<&'a ModelName>
where
    'a: 'b,
{
    let mut found = BTreeSet::new();
    let mut open: Vec<&'a ModelName> = of.iter().copied().collect();
    while let Some(name) = open.pop() {
        if from.models.contains_key(name) && found.insert(name) {
            open.extend(next(name));
        }
    }
    found
}

/// Whether a text is a pattern's, where `*` stands for any characters and `?` for one.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the last star takes one character more.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, t + 1));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match retry {
                Some((star, next)) => {
                    retry = Some((star, next + 1));
                    (p, t) = (star + 1, next);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// raw.a → stg.b → mart.c, mart.d; stg.e alone. Tags: stg.b core, mart.c Reporting, mart.d rep_daily.
    fn select(text: &str) -> String {
        let names = ["raw.a", "stg.b", "mart.c", "mart.d", "stg.e"].map(|n| n.parse::<ModelName>().unwrap());
        let tags = [
            vec![],
            vec!["core".to_owned()],
            vec!["Reporting".to_owned()],
            vec!["rep_daily".to_owned()],
            vec![],
        ];
        let parents = [vec![], vec![0], vec![1], vec![1], vec![]];
        let paths = ["a.sql", "b.sql", "c.sql", "d.sql", "e.sql"];
        let changed = BTreeMap::from([("main".to_owned(), BTreeSet::from(["b.sql".to_owned()]))]);
        let models = (0..5).map(|i| {
            let parents = parents[i].iter().map(|p: &usize| &names[*p]).collect();
            (&names[i], Candidate { tags: &tags[i], path: paths[i], parents, catalog: Some("db") })
        });
        let from = Candidates { models: models.collect(), changed_files: Some(&changed) };
        match text.parse::<Selector>() {
            Ok(selector) => {
                selector.select(&from).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn selectors_pick_what_sqlmesh_picks() {
        for (selector, expected) in [
            ("stg.b", "stg.b"),
            ("STG.b", "stg.b"),
            ("nothing.here", ""),
            ("*", "mart.c mart.d raw.a stg.b stg.e"),
            ("mart.*", "mart.c mart.d"),
            ("*.b", "stg.b"),
            ("*ar*", "mart.c mart.d"),
            ("+stg.b", "raw.a stg.b"),
            ("stg.b+", "mart.c mart.d stg.b"),
            ("+stg.b+", "mart.c mart.d raw.a stg.b"),
            ("tag:core", "stg.b"),
            ("tag:rep*", "mart.c mart.d"),
            ("tag:REPORTING", "mart.c"),
            ("+tag:reporting", "mart.c raw.a stg.b"),
            ("tag:core+", "mart.c mart.d stg.b"),
            ("git:main", "stg.b"),
            ("+git:main+", "mart.c mart.d raw.a stg.b"),
            ("git:other", ""),
            ("^mart.*", "raw.a stg.b stg.e"),
            ("^(mart.* | raw.a)", "stg.b stg.e"),
            ("stg.* & ^stg.e", "stg.b"),
            ("raw.a | stg.* & tag:core", "raw.a stg.b"),
            ("(raw.a | stg.*) & tag:core", "stg.b"),
            ("+(mart.c | stg.e)", "mart.c raw.a stg.b stg.e"),
            ("(raw.a)+ & mart.d", "mart.d"),
            ("resource_type:model & raw.*", "raw.a"),
            ("^^raw.a", "raw.a"),
            ("^+stg.b", "mart.c mart.d stg.e"),
            ("raw.a & stg.* | mart.*", "mart.c mart.d"),
            ("\"stg\".\"b\"", "stg.b"),
            ("db.stg.b", "stg.b"),
            ("+DB.stg.b", "raw.a stg.b"),
            ("db.*", ""),
            ("other.stg.b", ""),
            ("resource_type:audit", ""),
            ("resource_type:audit | stg.e", "stg.e"),
        ] {
            assert_eq!(select(selector), expected, "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_says_where() {
        for (selector, expected) in [
            ("", "the selector `` has its end where a model's name is expected"),
            ("a.b |", "the selector `a.b |` has its end where a model's name is expected"),
            ("(a.b", "the selector `(a.b` has its end where `)` is expected"),
            ("a.b c.d", "the selector `a.b c.d` has `c.d` where the end is expected"),
            ("owner:me", "the selector `owner:me` has `owner` where `tag:`, `git:` or a name is expected"),
            ("& a.b", "the selector `& a.b` has `&` where a model's name is expected"),
        ] {
            assert_eq!(select(selector), expected, "{selector}");
        }
    }

    #[test]
    fn stated_names_and_branches_are_known() {
        let selector: Selector = "+(a.b | c.*) & ^git:main".parse().unwrap();
        assert_eq!((selector.names(), selector.branches()), (vec!["a.b"], vec!["main"]));
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, expected) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acd", false),
            ("*a*a*", "banana", true),
            ("b?d", "bad", true),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}

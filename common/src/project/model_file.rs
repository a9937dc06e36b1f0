//! Reading a file of `models/`: the MODEL block, the query, the statements around it, inline
//! audits and blueprints.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Location};

use super::SourceFile;
use super::audit_file::{self, BUILTIN_AUDITS, is_builtin};
use super::context::{Context, GatewayInfo};
use super::cron::is_cron_word;
use super::ddl::block::{Property, properties};
use super::ddl::expand::{Macros, expand};
use super::ddl::source::Source;
use super::ddl::statements::{Piece, Pieces, is_query, split};
use super::ddl::token::{Token, TokenKind, tokenize};
use super::ddl::value::Value;
use super::descriptions;
use super::fields::shorten;
use super::model::{Audit, Code, Language, Model, ModelKind, ModelSource};
use super::properties::{BlockReader, Head};
use super::render::{self, RenderContext, RenderEnv, RenderError, Stage, TimeVars};
use super::seed;
use super::suggest::did_you_mean;
use super::text_file::{TextFile, only_block};

/// A blueprint's values by lower-case name, as SQL text.
type Blueprint = BTreeMap<String, String>;

/// A file's models, with the place of each one's name, and findings.
pub(crate) fn load(context: &Context<'_>, file: &SourceFile) -> (Vec<(Model, Location)>, Vec<Diagnostic>) {
    let mut findings = Vec::new();
    let models = load_into(context, file, &mut findings).unwrap_or_else(|finding| {
        findings.push(finding);
        Vec::new()
    });
    (models, findings)
}

fn load_into(
    context: &Context<'_>,
    file: &SourceFile,
    findings: &mut Vec<Diagnostic>,
) -> Result<Vec<(Model, Location)>, Diagnostic> {
    let text = TextFile::read(file, context.settings.model_defaults.dialect)?;
    let pieces = split(&text.source, &text.tokens.tokens)?;
    let header = header(context, &text, &pieces, findings)?;
    let body = Body::read(&text, &pieces, header.is_some(), findings);
    let block = match &header {
        Some(header) => text.source.location(header.keyword.start as usize),
        None => Location::file(file.path.clone()),
    };
    let inside: &[Token] = header.as_ref().map_or(&[], |header| header.inside);
    let reader = FileReader { context, text: &text, body: &body, block };
    let mut models = reader.models(inside, findings);
    if let Some(header) = &header {
        let description = descriptions::of_block(&text, header.keyword.end as usize);
        for (model, _) in &mut models {
            model.about.description = model.about.description.take().or_else(|| description.clone());
        }
    }
    Ok(models)
}

struct Header<'a> {
    keyword: Token,
    inside: &'a [Token],
}

/// The file's MODEL block; `None` where it may be left out.
fn header<'a>(
    context: &Context<'_>,
    text: &'a TextFile,
    pieces: &Pieces<'a>,
    findings: &mut Vec<Diagnostic>,
) -> Result<Option<Header<'a>>, Diagnostic> {
    if let Some(Piece::Sql(tokens)) = pieces.main.first()
        && let Some(block) = only_block(&text.source, tokens, "MODEL", findings)
    {
        let block = block?;
        return Ok(Some(Header { keyword: tokens[block.keyword], inside: &tokens[2..block.close] }));
    }
    if context.settings.infer_names && !pieces.main.is_empty() {
        return Ok(None);
    }
    let at = text.source.location(pieces.main.first().map_or(0, Piece::start));
    Err(Diagnostic::error("missing-model-block", at, "expected a MODEL block at the top of the file")
        .hint("start with `MODEL (name schema.table, kind FULL);`, or move the file out of `models/`"))
}

/// What follows the block.
struct Body {
    pre: Vec<Code>,
    query: Option<Code>,
    post: Vec<Code>,
    on_virtual_update: Vec<Code>,
    closed: bool,
    audits: BTreeMap<String, Audit>,
    column_descriptions: BTreeMap<String, String>,
}

impl Body {
    fn read(text: &TextFile, pieces: &Pieces<'_>, has_block: bool, findings: &mut Vec<Diagnostic>) -> Self {
        let source = &text.source;
        let mut rest = &pieces.main[usize::from(has_block)..];
        let alone = rest.len() + usize::from(!pieces.on_virtual_update.is_empty()) == 1;
        let mut body = Self {
            pre: Vec::new(),
            query: None,
            post: Vec::new(),
            on_virtual_update: pieces.on_virtual_update.iter().map(|piece| piece.code(source)).collect(),
            closed: pieces.closed && !rest.is_empty(),
            audits: BTreeMap::new(),
            column_descriptions: BTreeMap::new(),
        };
        while let Some((piece, after)) = rest.split_first() {
            if audit_file::is_audit(source, piece) {
                let length = rest.len().min(2);
                if let Some(audit) = audit_file::read(source, &rest[..length], text.dialect, findings) {
                    body.audits.insert(audit.name.clone(), audit);
                }
                rest = &rest[length..];
                continue;
            }
            body.statement(text, piece, alone, findings);
            rest = after;
        }
        body
    }

    fn statement(&mut self, text: &TextFile, piece: &Piece<'_>, alone: bool, findings: &mut Vec<Diagnostic>) {
        let code = piece.code(&text.source);
        if !is_query(&text.source, piece, alone) {
            if self.query.is_none() {
                self.pre.push(code);
            } else {
                self.post.push(code);
            }
            return;
        }
        if let Some(first) = &self.query {
            let at = text.source.location(piece.start());
            let message = format!("this is a second query; the first is on line {}", first.line);
            findings.push(
                Diagnostic::error("several-queries", at, message)
                    .hint("keep one query per model; join them with UNION ALL, or make another model"),
            );
            return;
        }
        if let Piece::Sql(tokens) = piece {
            self.column_descriptions = descriptions::of_columns(text, tokens);
        }
        self.query = Some(code);
    }
}

struct FileReader<'a> {
    context: &'a Context<'a>,
    text: &'a TextFile,
    body: &'a Body,
    block: Location,
}

impl FileReader<'_> {
    fn models(&self, inside: &[Token], findings: &mut Vec<Diagnostic>) -> Vec<(Model, Location)> {
        let source = &self.text.source;
        let (given, found) = properties(source, inside, &[]);
        let blueprints = given.iter().rev().find(|property| property.is("blueprints"));
        let has_macros = inside.iter().any(|token| token.kind == TokenKind::Macro);
        if blueprints.is_none() && !has_macros {
            findings.extend(found);
            return self.model(&given, &Blueprint::new(), findings).into_iter().collect();
        }
        let maps =
            blueprints.map_or_else(|| vec![Blueprint::new()], |property| self.blueprints(property, findings));
        let leave_out = blueprints.map(|property| {
            let end = property.value.tokens.last().map_or(property.key_offset, |token| token.end as usize);
            let comma = inside.iter().find(|token| token.start as usize >= end).filter(|token| token.is(','));
            (property.key_offset, comma.map_or(end, |comma| comma.end as usize))
        });
        let gateway = given.iter().rev().find(|property| property.is("gateway"));
        let mut models = Vec::new();
        for map in &maps {
            let mut own = Vec::new();
            models.extend(self.expanded(inside, leave_out, gateway, map, &mut own));
            // Blueprints repeat a mistake of the file; it is told once.
            own.retain(|finding| !findings.contains(finding));
            findings.extend(own);
        }
        models
    }

    /// The model of one blueprint, or of a block with macros.
    fn expanded(
        &self,
        inside: &[Token],
        leave_out: Option<(usize, usize)>,
        gateway: Option<&Property<'_>>,
        blueprint: &Blueprint,
        findings: &mut Vec<Diagnostic>,
    ) -> Option<(Model, Location)> {
        let name = gateway.and_then(|property| gateway_name(property, blueprint));
        let info = self.context.gateway(name.as_deref()).or_else(|| self.context.gateway(None))?;
        let lookup = |name: &str| lookup(name, blueprint, info);
        let call = |text: &str, line: u32| self.call(text, line, info, blueprint);
        let macros = Macros { lookup: &lookup, call: &call };
        let Some(expanded) = expand(&self.text.source, inside, leave_out, &macros, findings) else {
            let (given, found) = properties(&self.text.source, inside, &[]);
            findings.extend(found);
            return self.model(&given, blueprint, findings);
        };
        match tokenize(&expanded.text, self.text.dialect) {
            Ok(tokens) => {
                let (given, found) = properties(&expanded, &tokens.tokens, &[]);
                findings.extend(found);
                self.model(&given, blueprint, findings)
            }
            Err(open) => {
                let at = expanded.location(open.offset);
                let message = format!("after its macros are replaced, a {} is never closed", open.what);
                findings
                    .push(Diagnostic::error("unterminated", at, message).hint("check the variables' quotes"));
                None
            }
        }
    }

    /// What a macro function in the block gives, such as `@IF(@gateway = 'dev', FULL, VIEW)`.
    fn call(
        &self,
        text: &str,
        line: u32,
        gateway: &GatewayInfo,
        blueprint: &Blueprint,
    ) -> Result<String, RenderError> {
        let env = RenderEnv {
            gateway: gateway.name.clone(),
            default_catalog: gateway.default_catalog.clone(),
            ..RenderEnv::default()
        };
        let execution = crate::interval::Timestamp(0);
        let time = TimeVars::ExecutionOnly { execution };
        let context = RenderContext {
            blueprint,
            locals: &gateway.variables,
            ..RenderContext::new(&env, self.text.dialect, time, Stage::Loading)
        };
        render::render(&Code { text: text.to_owned(), language: Language::Sql, line }, &context)
    }

    /// The maps of `blueprints`, which may be what a macro gives.
    fn blueprints(&self, property: &Property<'_>, findings: &mut Vec<Diagnostic>) -> Vec<Blueprint> {
        let first = property.value.tokens.iter().find(|token| !token.is('(') && !token.is('['));
        let is_macro = first.is_some_and(|token| token.kind == TokenKind::Macro);
        let Some(gateway) = self.context.gateway(None).filter(|_| is_macro) else {
            return read_blueprints(property, findings);
        };
        let at = property.value.location();
        let line = property.value.source.line(property.value.start());
        let given = match self.call(property.value.text(), line, gateway, &Blueprint::new()) {
            Ok(given) => given,
            Err(error) => {
                let finding = Diagnostic::error(error.code, at, error.message);
                findings.push(finding.hint(error.hint.unwrap_or_default()));
                return Vec::new();
            }
        };
        let source = Source::new(property.value.source.path.clone(), format!("({given})").into());
        let tokens = tokenize(&source.text, self.text.dialect).unwrap_or_default().tokens;
        let whole = Value { source: &source, tokens: &tokens, fallback: 0 };
        // One list in brackets is the list itself.
        let value =
            whole.inside().filter(|inside| inside.split().len() == 1 && is_list(inside)).unwrap_or(whole);
        let mut found = Vec::new();
        let maps = read_blueprints(&Property { value, ..*property }, &mut found);
        findings.extend(found.into_iter().map(|finding| Diagnostic { at: at.clone(), ..finding }));
        maps
    }

    fn model(
        &self,
        given: &[Property<'_>],
        blueprint: &Blueprint,
        findings: &mut Vec<Diagnostic>,
    ) -> Option<(Model, Location)> {
        let get = |key: &str| given.iter().rev().find(|property| property.is(key));
        let gateway = self.gateway(get("gateway"), findings)?;
        let mut dialect = self.text.dialect;
        if let Some(property) = get("dialect") {
            match property.value.scalar().unwrap_or_default().parse() {
                Ok(given) => dialect = given,
                Err(_) => {
                    let message = format!("unknown dialect `{}`", shorten(property.value.text()));
                    findings.push(
                        Diagnostic::error("unknown-dialect", property.value.location(), message)
                            .hint("use duckdb, postgres, bigquery, snowflake, databricks, …"),
                    );
                }
            }
        }
        let reader =
            BlockReader { context: self.context, dialect, gateway, block: self.block.clone(), findings };
        let Head { mut model, name_at } = reader.read(given)?;
        model.blueprint.clone_from(blueprint);
        self.statements(&mut model, get("kind"), findings)?;
        self.link_audits(&mut model, get("audits"), findings);
        self.link_signals(&mut model, get("signals"), findings);
        Some((model, name_at))
    }

    fn gateway(
        &self,
        property: Option<&Property<'_>>,
        findings: &mut Vec<Diagnostic>,
    ) -> Option<&GatewayInfo> {
        let name = property.and_then(|property| property.value.scalar());
        let gateway = self.context.gateway(name.as_deref());
        if let (None, Some(property)) = (gateway, property) {
            let name = name.unwrap_or_default();
            let message = format!("there is no gateway `{name}`");
            findings.push(
                Diagnostic::error("unknown-gateway", property.value.location(), message)
                    .hint(did_you_mean(&name, &self.context.gateway_names())),
            );
            return self.context.gateway(None);
        }
        gateway
    }

    fn statements(
        &self,
        model: &mut Model,
        kind: Option<&Property<'_>>,
        findings: &mut Vec<Diagnostic>,
    ) -> Option<()> {
        let (context, body) = (self.context, self.body);
        let joined = |defaults: &[Code], own: &[Code]| [defaults, own].concat();
        model.pre_statements = joined(&context.pre_statements, &body.pre);
        model.post_statements = joined(&context.post_statements, &body.post);
        model.on_virtual_update = joined(&context.on_virtual_update, &body.on_virtual_update);
        model.closed = body.closed;
        model.source = match (&model.kind, &body.query) {
            (ModelKind::Seed(seed), _) => {
                let at = kind.map_or_else(|| self.block.clone(), seed_path_at);
                ModelSource::Seed(seed::content(&context.files, &self.block.path, seed, at, findings)?)
            }
            (_, Some(query)) => ModelSource::Query(query.clone()),
            (_, None) => {
                let message = format!("model `{}` has no query", model.name);
                findings.push(
                    Diagnostic::error("no-query", self.block.clone(), message)
                        .hint("end the file with a SELECT, a JINJA_QUERY_BEGIN block or one macro call"),
                );
                return None;
            }
        };
        if model.about.column_descriptions.is_empty() {
            model.about.column_descriptions.clone_from(&body.column_descriptions);
        }
        Some(())
    }

    fn link_audits(
        &self,
        model: &mut Model,
        property: Option<&Property<'_>>,
        findings: &mut Vec<Diagnostic>,
    ) {
        let own = property.filter(|property| !property.value.elements().is_empty());
        if let Some(property) = own.filter(|_| matches!(model.kind, ModelKind::Embedded)) {
            let message = "audits have nothing to look at: an embedded model has no rows of its own";
            findings.push(
                Diagnostic::error("embedded-audits", property.value.location(), message)
                    .hint("give them to a model that reads it, or make it a view"),
            );
        }
        link_audits(model, &self.body.audits, self.context.audits, findings, |name| {
            let calls = property.map(|property| property.value.elements()).unwrap_or_default();
            let call = calls.iter().find(|call| call.word_is(0, name));
            call.or(property.map(|property| &property.value))
                .map_or_else(|| self.block.clone(), Value::location)
        });
    }

    fn link_signals(
        &self,
        model: &mut Model,
        property: Option<&Property<'_>>,
        findings: &mut Vec<Diagnostic>,
    ) {
        let at = property.map_or_else(|| self.block.clone(), |property| property.value.location());
        self.context.signals.link(model, &at, findings);
    }
}

/// Gives a model the definitions of the audits that it names.
pub(crate) fn link_audits(
    model: &mut Model,
    inline: &BTreeMap<String, Audit>,
    project: &BTreeMap<String, Audit>,
    findings: &mut Vec<Diagnostic>,
    place: impl Fn(&str) -> Location,
) {
    for call in &model.audits {
        let shared = || project.get(&call.name).filter(|audit| !audit.standalone);
        match inline.get(&call.name).or_else(shared) {
            Some(audit) => {
                model.audit_definitions.insert(call.name.clone(), audit.clone());
            }
            None if is_builtin(&call.name) => {}
            None => {
                let own = inline.keys().chain(project.keys()).map(String::as_str);
                let all: Vec<&str> = own.chain(BUILTIN_AUDITS.iter().copied()).collect();
                let hint = match super::suggest::nearest(&call.name, &all) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "define it in `audits/` or in the model's file".to_owned(),
                };
                let message = format!("there is no audit `{}`", call.name);
                findings.push(Diagnostic::error("unknown-audit", place(&call.name), message).hint(hint));
            }
        }
    }
}

fn lookup(name: &str, blueprint: &Blueprint, gateway: &GatewayInfo) -> Option<String> {
    let own = blueprint.get(name).or_else(|| gateway.variables.get(name));
    own.cloned().or_else(|| match name {
        "gateway" => Some(format!("'{}'", gateway.name)),
        "default_catalog" => gateway.default_catalog.clone(),
        name if is_cron_word(name) => Some(format!("'@{name}'")),
        _ => None,
    })
}

/// The name of a gateway that may be a blueprint's value.
fn gateway_name(property: &Property<'_>, blueprint: &Blueprint) -> Option<String> {
    let text = property.value.text();
    match text.strip_prefix('@') {
        Some(name) => {
            let value = blueprint.get(&name.trim_matches(['{', '}']).to_ascii_lowercase())?;
            Some(value.trim_matches(['\'', '"']).to_owned())
        }
        None => property.value.scalar(),
    }
}

/// Whether a value is a list of lists, and no map.
fn is_list(value: &Value<'_>) -> bool {
    value.inside().is_some_and(|inside| inside.split().iter().all(|element| element.inside().is_some()))
}

fn read_blueprints(property: &Property<'_>, findings: &mut Vec<Diagnostic>) -> Vec<Blueprint> {
    let Some(inside) = property.value.inside() else {
        let what = "`blueprints` must be a list of `(key := value, …)`";
        findings.push(
            Diagnostic::error("invalid-value", property.value.location(), what)
                .hint("write `blueprints ((a := 1), (a := 2))`"),
        );
        return Vec::new();
    };
    let mut all = Vec::new();
    for element in inside.split() {
        let pairs = element.inside().map_or_else(|| vec![element], |inside| inside.split());
        let mut blueprint = Blueprint::new();
        for pair in pairs {
            match pair.assignment().and_then(|(key, value)| Some((key.scalar()?, value))) {
                Some((key, value)) => {
                    blueprint.insert(key.to_lowercase(), value.text().to_owned());
                }
                None => {
                    let message = format!("`{}` in `blueprints` is not `key := value`", shorten(pair.text()));
                    findings.push(
                        Diagnostic::error("invalid-value", pair.location(), message)
                            .hint("write `blueprints ((a := 1), (a := 2))`"),
                    );
                }
            }
        }
        all.push(blueprint);
    }
    all
}

/// Where a seed's path stands in its kind.
fn seed_path_at(kind: &Property<'_>) -> Location {
    let at = (0..kind.value.tokens.len()).find(|index| kind.value.word_is(*index, "path"));
    let token = at.and_then(|at| kind.value.tokens.get(at + 1));
    let source: &Source = kind.value.source;
    token.map_or_else(|| kind.location(), |token| source.location(token.start as usize))
}

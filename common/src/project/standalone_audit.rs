//! Standalone audits as nodes of their own: planned and run like models, on their own cron.

use crate::diagnostic::{Diagnostic, Location};

use super::SourceFile;
use super::audit_file::is_audit;
use super::context::Context;
use super::ddl::statements::{Piece, split};
use super::model::{Call, Model, ModelSource};
use super::properties::{BlockReader, Head};
use super::text_file::{TextFile, block_properties, only_block};

/// The nodes of a file of `audits/`, each with the place of its name. What the file says of audits as
/// such was read, and found, before.
pub(crate) fn load(
    context: &Context<'_>,
    file: &SourceFile,
    findings: &mut Vec<Diagnostic>,
) -> Vec<(Model, Location)> {
    let dialect = context.settings.model_defaults.dialect;
    let Ok(text) = TextFile::read(file, dialect) else { return Vec::new() };
    let Ok(pieces) = split(&text.source, &text.tokens.tokens) else { return Vec::new() };
    let blocks = pieces.main.iter().filter(|piece| is_audit(&text.source, piece));
    blocks.filter_map(|block| node(context, &text, block, findings)).collect()
}

fn node(
    context: &Context<'_>,
    text: &TextFile,
    block: &Piece<'_>,
    findings: &mut Vec<Diagnostic>,
) -> Option<(Model, Location)> {
    let Piece::Sql(tokens) = block else { return None };
    let (properties, _) = block_properties(
        &text.source,
        tokens,
        only_block(&text.source, tokens, "AUDIT", &mut Vec::new())?.ok()?,
    );
    let at = text.source.location(block.start());
    let audit = context.audits.values().find(|audit| audit.standalone && audit.location == at)?;
    // Without a query, which was found, its block stands for one: nothing can be made of it.
    if audit.query == block.code(&text.source) {
        return None;
    }
    let gateway = context.gateway(None)?;
    let reader = BlockReader { context, dialect: audit.dialect, gateway, block: at.clone(), findings };
    let Head { mut model, name_at } = reader.read_audit(&properties)?;
    model.source = ModelSource::Query(audit.query.clone());
    // Its arguments can only be its own defaults.
    model.blueprint.clone_from(&audit.defaults);
    model.audits = vec![Call { name: audit.name.clone(), args: Default::default() }];
    model.audit_definitions.insert(audit.name.clone(), audit.clone());
    model.location = at;
    Some((model, name_at))
}

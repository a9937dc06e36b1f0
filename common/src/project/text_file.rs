//! A file of SQL as its pieces: what model and audit files have in common.

use crate::diagnostic::Diagnostic;
use crate::sql::Dialect;

use super::ddl::block::{Block, block_at};
use super::ddl::source::Source;
use super::ddl::token::{Token, Tokens, tokenize};
use super::{SourceFile, ddl};

/// A file's text and its tokens in the dialect that it names.
pub(crate) struct TextFile {
    pub(crate) source: Source,
    pub(crate) tokens: Tokens,
    pub(crate) dialect: Dialect,
}

impl TextFile {
    pub(crate) fn read(file: &SourceFile, default_dialect: Dialect) -> Result<Self, Diagnostic> {
        let source = Source::new(file.path.clone(), file.text.clone());
        let dialect = sniff_dialect(&file.text).unwrap_or(default_dialect);
        match tokenize(&file.text, dialect) {
            Ok(tokens) => Ok(Self { source, tokens, dialect }),
            Err(open) => {
                let at = source.location(open.offset);
                Err(Diagnostic::error("unterminated", at, format!("this {} is never closed", open.what))
                    .hint("close it, or check the quotes before it"))
            }
        }
    }
}

/// The block that a piece is, and a finding if something follows it in the same statement.
pub(crate) fn only_block(
    source: &Source,
    piece: &[Token],
    keyword: &str,
    findings: &mut Vec<Diagnostic>,
) -> Option<Result<Block, Diagnostic>> {
    let block = block_at(source, piece, 0, keyword)?;
    if let Ok(block) = &block
        && let Some(next) = piece.get(block.close + 1)
    {
        let at = source.location(next.start as usize);
        let message = format!("expected `;` after the {keyword} block, found `{}`", next.text(&source.text));
        findings
            .push(Diagnostic::error("missing-semicolon", at, message).hint("put `;` after the closing `)`"));
    }
    Some(block)
}

/// The properties of a block among a piece's tokens.
pub(crate) fn block_properties<'a>(
    source: &'a Source,
    piece: &'a [Token],
    block: Block,
) -> (Vec<ddl::block::Property<'a>>, Vec<Diagnostic>) {
    ddl::block::properties(source, &piece[block.keyword + 2..block.close], &[])
}

/// The dialect that the first block of a text names, found before the text can be tokenised.
fn sniff_dialect(text: &str) -> Option<Dialect> {
    let mut end = text.len().min(10_000);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let bytes = &text.as_bytes()[..end];
    let mut from = 0;
    while let Some(found) = find_word(&bytes[from..], b"dialect") {
        let at = from + found;
        from = at + b"dialect".len();
        if !follows_separator(&bytes[..at]) {
            continue;
        }
        let rest = text[from..end].trim_start();
        let value = rest.trim_start_matches(['\'', '"']);
        let length = value.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let after = value[length..].trim_start_matches(['\'', '"']).trim_start();
        if rest.len() < text[from..end].len() && length > 0 && after.starts_with([',', ')', '-', '/', '#']) {
            return value[..length].parse().ok();
        }
    }
    None
}

fn find_word(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window.eq_ignore_ascii_case(word))
}

/// Whether the last thing before, comments aside, is a comma or a parenthesis.
fn follows_separator(before: &[u8]) -> bool {
    let mut lines = before.rsplit(|byte| *byte == b'\n');
    // The word's own line has no comment before it, or the word stood in that comment.
    let own = lines.next().unwrap_or_default().trim_ascii_end();
    if own.windows(2).any(|pair| pair == b"--") {
        return false;
    }
    if let Some(last) = own.last() {
        return matches!(last, b',' | b'(') || own.ends_with(b"*/");
    }
    for line in lines {
        let code =
            line.windows(2).position(|pair| pair == b"--").map_or(line, |at| &line[..at]).trim_ascii_end();
        if let Some(last) = code.last() {
            return matches!(last, b',' | b'(') || code.ends_with(b"*/");
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_names_its_dialect() {
        for (text, expected) in [
            ("MODEL (name a, dialect postgres)", Some(Dialect::Postgres)),
            ("MODEL (\n  DIALECT 'BigQuery',\n name a)", Some(Dialect::BigQuery)),
            ("MODEL (name a, -- x\n  -- y\n  dialect snowflake -- z\n)", Some(Dialect::Snowflake)),
            ("MODEL (name a, /* c */ dialect tsql)", Some(Dialect::TSql)),
            ("MODEL (name a); SELECT dialect x, y", None),
            ("MODEL (name a -- , dialect postgres,\n)", None),
        ] {
            assert_eq!(sniff_dialect(text), expected, "{text}");
        }
    }
}

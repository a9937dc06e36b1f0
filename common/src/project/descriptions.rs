//! Descriptions that stand in comments: before MODEL, and behind a query's columns.

use std::collections::BTreeMap;

use super::ddl::token::{Token, TokenKind};
use super::ddl::value::{split_tokens, unquote};
use super::text_file::TextFile;

/// What the comments up to (and right behind) the MODEL keyword say.
pub(crate) fn of_block(text: &TextFile, keyword_end: usize) -> Option<String> {
    let source: &str = &text.source.text;
    let open = source[keyword_end..].find('(').map_or(keyword_end, |at| keyword_end + at);
    let comments = text.tokens.comments.iter().take_while(|(_, end)| *end as usize <= open);
    let lines: Vec<&str> =
        comments.map(|(start, end)| body(&source[*start as usize..*end as usize])).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn body(comment: &str) -> &str {
    let inside = comment.strip_prefix("/*").and_then(|rest| rest.strip_suffix("*/"));
    let inside = inside.or_else(|| comment.strip_prefix("{#").and_then(|rest| rest.strip_suffix("#}")));
    inside.unwrap_or_else(|| comment.trim_start_matches(['-', '#', '/'])).trim()
}

/// What the comment behind each column of a query's first SELECT says, by column.
pub(crate) fn of_columns(text: &TextFile, query: &[Token]) -> BTreeMap<String, String> {
    let source: &str = &text.source.text;
    let mut all = BTreeMap::new();
    let (Some(first), Some(last)) = (query.first(), query.last()) else { return all };
    let from = text.tokens.comments.partition_point(|(start, _)| *start < first.start);
    let line_end = source[last.end as usize..].find('\n').map_or(source.len(), |at| last.end as usize + at);
    let comments = &text.tokens.comments[from..];
    if comments.first().is_none_or(|(start, _)| *start as usize > line_end) {
        return all;
    }
    for projection in split_tokens(projections(source, query), ',') {
        let (Some(column), Some(end)) = (named(projection), projection.last()) else { continue };
        let name = column.text(source);
        let name = match column.kind {
            TokenKind::Word => text.dialect.normalize(name, false),
            TokenKind::Quoted => text.dialect.normalize(&unquote(name, column.kind), true),
            _ => continue,
        };
        // On the same line, with nothing but a comma between.
        let behind = comments.iter().find(|(start, _)| *start >= end.end).filter(|(start, _)| {
            let between = &source[end.end as usize..*start as usize];
            between.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b','))
        });
        if let Some((start, end)) = behind {
            all.insert(name, body(&source[*start as usize..*end as usize]).to_owned());
        }
    }
    all
}

/// The token that names a projection: its alias or its column, without casts (`a.id::INT`).
fn named(projection: &[Token]) -> Option<&Token> {
    let cast = projection.windows(2).position(|pair| pair[0].is(':') && pair[1].is(':'));
    let Some(cast) = cast.filter(|cast| *cast > 0) else { return projection.last() };
    let aliased = projection[cast..].windows(2).any(|pair| {
        let is_name = |token: &Token| matches!(token.kind, TokenKind::Word | TokenKind::Quoted);
        (is_name(&pair[0]) || pair[0].is(')')) && is_name(&pair[1])
    });
    if aliased { projection.last() } else { projection.get(cast - 1) }
}

/// The tokens between the first SELECT and its FROM, outside of parentheses.
fn projections<'a>(source: &str, query: &'a [Token]) -> &'a [Token] {
    let mut depth = 0;
    let mut start = None;
    for (index, token) in query.iter().enumerate() {
        match token.kind {
            TokenKind::Symbol('(' | '[' | '{') => depth += 1,
            TokenKind::Symbol(')' | ']' | '}') => depth -= 1,
            TokenKind::Word if depth == 0 => match start {
                None if token.is_word(source, "select") => start = Some(index + 1),
                Some(start) if ends_projections(token.text(source)) => return &query[start..index],
                _ => {}
            },
            _ => {}
        }
    }
    start.map_or(&[], |start| &query[start..])
}

fn ends_projections(word: &str) -> bool {
    ["from", "where", "union", "group", "order", "limit", "except", "intersect"]
        .iter()
        .any(|end| word.eq_ignore_ascii_case(end))
}

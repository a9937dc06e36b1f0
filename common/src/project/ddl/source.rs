//! A text with the place that it comes from.

use std::sync::Arc;

use crate::diagnostic::Location;

/// A text, and how its offsets lead back to the user's file.
///
/// An expanded header (see [`super::expand`]) is a text of its own; its `map` sends offsets back
/// to the text that the user wrote.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: Arc<str>,
    /// The text that tokens index.
    pub(crate) text: Arc<str>,
    /// The user's text, where it isn't `text`.
    original: Option<Arc<str>>,
    /// Ascending pairs of an offset in `text` and the offset in the original that it comes from.
    map: Vec<(usize, usize)>,
}

impl Source {
    pub(crate) fn new(path: Arc<str>, text: Arc<str>) -> Self {
        Self { path, text, original: None, map: Vec::new() }
    }

    pub(crate) fn expanded(of: &Self, text: String, map: Vec<(usize, usize)>) -> Self {
        Self { path: of.path.clone(), text: text.into(), original: Some(of.text.clone()), map }
    }

    /// Whether macros were replaced in the text.
    pub(crate) fn is_expanded(&self) -> bool {
        self.original.is_some()
    }

    /// The place of a byte offset in the user's file.
    pub(crate) fn location(&self, offset: usize) -> Location {
        match &self.original {
            None => Location::at_offset(self.path.clone(), &self.text, offset),
            Some(original) => {
                let piece = self.map.partition_point(|(new, _)| *new <= offset);
                let origin = match piece.checked_sub(1) {
                    None => 0,
                    Some(last) => {
                        let (new, old) = self.map[last];
                        let next = self.map.get(piece).map_or(original.len(), |(_, old)| *old);
                        (old + (offset - new)).min(next)
                    }
                };
                Location::at_offset(self.path.clone(), original, origin)
            }
        }
    }

    /// The line of a byte offset, from 1.
    pub(crate) fn line(&self, offset: usize) -> u32 {
        self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count()
            as u32
            + 1
    }
}

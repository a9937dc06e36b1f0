//! Which times of an upstream a query reads for a batch, proven from its text.
//!
//! A query's text with symbolic time variables (`@start_ds`) is searched for every place that
//! reads the upstream. Each must be bounded on the upstream's time column by conditions that hold
//! for all rows it contributes. What isn't proven is "the whole of it".

mod bound;
mod env;
mod join;
mod predicate;
mod projection;
mod scan;
mod value;

pub(super) use join::constraint as join_constraint;

pub use bound::{Anchor, Bound, Grain, Point, Step, Window};

use std::fmt;

use crate::interval::{Interval, Timestamp};
use crate::sql::parse::Query;

/// An upstream that is incremental by time range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTime {
    /// Its name's normalised parts, outermost first.
    pub relation: Vec<String>,
    /// Its time column's normalised name.
    pub column: String,
    /// How the column tells time.
    pub kind: TimeKind,
}

/// How a time column tells time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeKind {
    /// A timestamp type: read ranges are exact.
    Timestamp,
    /// A date, a text in ISO format, or not known: read ranges are widened to whole days.
    Day,
    /// Anything else (other text formats, numbers): nothing can be proven.
    Opaque,
}

/// The part of an upstream that one batch reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadRange {
    /// All of it, or so it must be assumed.
    Whole {
        /// Why, for people.
        why: String,
    },
    /// Only rows with times in the window.
    Window {
        /// The times, as a function of the batch.
        window: Window,
        /// Why, for people.
        why: String,
    },
}

impl ReadRange {
    /// The times that a batch reads; nothing where no row can qualify.
    pub fn range(&self, batch: Interval) -> Option<Interval> {
        match self {
            Self::Whole { .. } => Some(Interval::ALL),
            Self::Window { window, .. } => window.range(batch),
        }
    }

    /// The times that a batch reads, for asking whether they are there: where no row can qualify,
    /// the first millisecond of the batch.
    pub fn of(&self, batch: Interval) -> Interval {
        let none = Interval { start: batch.start, end: Timestamp(batch.start.0 + 1) };
        self.range(batch).unwrap_or(none)
    }

    /// Why it is this range, for people.
    pub fn why(&self) -> &str {
        match self {
            Self::Whole { why } | Self::Window { why, .. } => why,
        }
    }
}

impl fmt::Display for ReadRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { why } => write!(f, "all of it: {why}"),
            Self::Window { why, .. } => f.write_str(why),
        }
    }
}

/// What a query, rendered with symbolic time variables, reads of an upstream.
pub fn read_ranges(query: &Query, upstream: &UpstreamTime) -> ReadRange {
    match scan::scan(query, upstream) {
        Ok(window) => {
            let why = format!("every read is bounded on `{}`: {window}", upstream.column);
            ReadRange::Window { window, why }
        }
        Err(why) => ReadRange::Whole { why },
    }
}

#[cfg(test)]
mod tests;

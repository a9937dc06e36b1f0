//! Half-open intervals of time, sets of them, cadences, and which intervals a model misses.
//!
//! All times are UTC, in milliseconds since 1970. Sets are merged ranges, never lists of ticks:
//! three years of done hours are one range.

mod set;
mod unit;

pub use set::{Interval, IntervalSet, Timestamp};
pub use unit::IntervalUnit;

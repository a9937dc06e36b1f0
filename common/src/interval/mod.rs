//! Half-open intervals of time, sets of them, cadences, and which intervals a model misses.
//!
//! All times are UTC, in milliseconds since 1970. Sets are merged ranges, never lists of ticks:
//! three years of done hours are one range.

mod batch;
mod cadence;
mod cron;
mod cron_field;
mod missing;
mod ready;
mod set;
mod text;
mod unit;

pub use batch::{BatchPlan, batches};
pub use cadence::{Cadence, default_start};
pub use cron::CronError;
pub use missing::{MissingQuery, Rounding, inclusive_exclusive, missing, recorded};
pub use ready::{ready_units, without_unready};
pub use set::{Interval, IntervalSet, Timestamp};
pub use text::{TimeError, TimePoint, format_time, inclusive_end, parse_time, range_end, range_start};
pub use unit::IntervalUnit;

//! Which units of a model's time are still to be computed. Range arithmetic throughout: the cost
//! grows with the number of ranges that are done, never with the number of units.

use super::{Cadence, Interval, IntervalSet, IntervalUnit, TimePoint, Timestamp};

/// Whether pieces of units at the ends of a range count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// Widen to the whole units that the range touches.
    Outward,
    /// Keep the whole units inside the range.
    Inward,
    /// Start at a unit, end where the range ends.
    Partial,
}

/// The units that a start and an end mean: a date as end means through that day, a time is exclusive.
/// Nothing where no unit is left.
pub fn inclusive_exclusive(
    start: Timestamp,
    end: TimePoint,
    unit: IntervalUnit,
    rounding: Rounding,
) -> Option<Interval> {
    let end = end.exclusive();
    match rounding {
        Rounding::Outward => Interval::new(unit.floor(start), unit.ceil(end)),
        Rounding::Inward => Interval::new(unit.ceil(start), unit.floor(end)),
        Rounding::Partial => Interval::new(unit.floor(start), end),
    }
}

/// What is recorded as done after a range was computed: its whole units, or with `allow_partials`
/// also the piece of a unit at its end.
pub fn recorded(range: Interval, unit: IntervalUnit, allow_partials: bool) -> Option<Interval> {
    let rounding = if allow_partials { Rounding::Partial } else { Rounding::Inward };
    inclusive_exclusive(range.start, TimePoint::time(range.end), unit, rounding)
}

/// One model's question for its missing intervals.
#[derive(Debug, Clone)]
pub struct MissingQuery<'a> {
    /// When the model ticks.
    pub cadence: &'a Cadence,
    /// The granularity of its intervals: the cadence's unit, unless the model overrides it.
    pub unit: IntervalUnit,
    /// What is done.
    pub done: &'a IntervalSet,
    /// From when on is asked.
    pub start: Timestamp,
    /// Until when is asked.
    pub end: TimePoint,
    /// The present, as the plan sees it: only what has ticked by then is due.
    pub execution: Timestamp,
    /// The model's start, own or inherited (see [`super::default_start`] for neither).
    pub model_start: Option<Timestamp>,
    /// The model's end.
    pub model_end: Option<TimePoint>,
    /// How many units before a missing one are computed again.
    pub lookback: u32,
    /// Whether the last piece may be a part of a unit.
    pub allow_partials: bool,
    /// Whether units are due as soon as they have passed, without waiting for the cron.
    pub ignore_cron: bool,
    /// Whether the model is a seed, which is loaded once.
    pub is_seed: bool,
}

/// The missing intervals: whole units, except that the last one may end early with
/// `allow_partials`. A unit that is done in part is missing as a whole.
///
/// With lookback, every missing unit brings the units before it within the window along, and the
/// last units of the window are always among them; nothing missing brings nothing along.
pub fn missing(query: &MissingQuery<'_>) -> IntervalSet {
    let Some(window) = window(query) else { return IntervalSet::new() };
    if query.is_seed && !query.done.is_empty() {
        return IntervalSet::new();
    }
    let mut missing = IntervalSet::from(window);
    for done in query.done.clip(window).ranges() {
        // The last piece may be part of a unit, and is done once its part is.
        let end = if done.end == window.end { done.end } else { query.unit.floor(done.end) };
        if let Some(covered) = Interval::new(query.unit.ceil(done.start), end) {
            missing.remove(covered);
        }
    }
    if query.lookback > 0 && !missing.is_empty() {
        missing = with_lookback(&missing, window, query);
    }
    match query.model_end {
        Some(end) => missing.clip(Interval { start: Timestamp::MIN, end: query.unit.ceil(end.exclusive()) }),
        None => missing,
    }
}

/// The units in question: what is asked, within the model's own time, as far as it is due.
fn window(query: &MissingQuery<'_>) -> Option<Interval> {
    let start = query.model_start.map_or(query.start, |first| first.max(query.start));
    let end = match query.model_end {
        Some(last) if last.at < query.end.at => last,
        _ => query.end,
    };
    let below_one_unit = end.at.0.saturating_sub(start.0) < query.unit.shortest_millis();
    if start > end.at || (!end.is_date && !query.allow_partials && below_one_unit) {
        return None;
    }
    let rounding = if query.allow_partials { Rounding::Partial } else { Rounding::Outward };
    let asked = inclusive_exclusive(start, end, query.unit, rounding)?;
    let due = if query.ignore_cron { query.execution } else { query.cadence.floor(query.execution) };
    let due = if query.allow_partials { due } else { query.unit.floor(due) };
    Interval::new(asked.start, asked.end.min(due))
}

/// Extends every missing range backwards, and the window's last units with it.
fn with_lookback(missing: &IntervalSet, window: Interval, query: &MissingQuery<'_>) -> IntervalSet {
    let unit = query.unit;
    let elapsed = query.model_end.map_or(0, |end| units_between(unit, end.exclusive(), window.end));
    let lookback = i64::from(query.lookback).saturating_sub(elapsed).max(0);
    let before = |at: Timestamp| unit.add_units(at, -lookback).max(window.start);
    let last = (lookback > 0).then(|| Interval { start: before(unit.ceil(window.end)), end: window.end });
    let extended = missing.ranges().iter().map(|r| Interval { start: before(r.start), end: r.end });
    extended.chain(last).collect()
}

/// How many boundaries lie strictly between two times.
fn units_between(unit: IntervalUnit, from: Timestamp, to: Timestamp) -> i64 {
    (unit.index(unit.ceil(to)) - unit.index(from) - 1).max(0)
}

//! Ends of read ranges, as functions of a batch.

use std::fmt;

use chrono::{DateTime, Datelike, Months};

use crate::interval::{Interval, Timestamp};

const SECOND: i64 = 1_000_000;
pub(super) const DAY: i64 = 86_400 * SECOND;

/// An end of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// The batch's first point.
    Start,
    /// The last microsecond inside the batch, as the `@end_…` variables show it.
    End,
}

/// A calendar unit that times are cut to, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grain {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A month.
    Month,
    /// Three months from January on.
    Quarter,
    /// A year.
    Year,
}

/// One step from the anchor to a bound. Every step keeps the order of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Calendar months; a day that the month lacks becomes its last.
    Months(i32),
    /// Microseconds.
    Micros(i64),
    /// Down to the unit.
    Floor(Grain),
    /// Up to the unit.
    Ceil(Grain),
}

/// A time derived from a batch: its anchor, then the steps in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Where to begin.
    pub anchor: Anchor,
    /// What to do then.
    pub steps: Vec<Step>,
}

impl Point {
    pub(super) fn then(&self, step: Step) -> Self {
        let mut steps = self.steps.clone();
        match (steps.last_mut(), step) {
            (_, Step::Micros(0) | Step::Months(0)) => {}
            (Some(Step::Micros(sum)), Step::Micros(more)) => *sum = sum.saturating_add(more),
            (Some(last), _) if *last == step && matches!(step, Step::Floor(_) | Step::Ceil(_)) => {}
            _ => steps.push(step),
        }
        Self { anchor: self.anchor, steps }
    }

    /// In microseconds since 1970.
    fn at(&self, batch: Interval) -> i64 {
        let first = match self.anchor {
            Anchor::Start => batch.start.0.saturating_mul(1000),
            Anchor::End => batch.end.0.saturating_mul(1000).saturating_sub(1),
        };
        self.steps.iter().fold(first, |time, step| step.apply(time))
    }
}

impl Step {
    fn apply(self, time: i64) -> i64 {
        let time = time.clamp(Timestamp::MIN.0 * 1000, Timestamp::MAX.0 * 1000);
        match self {
            Self::Micros(more) => time.saturating_add(more),
            Self::Months(count) => add_months(time, count),
            Self::Floor(grain) => floor(time, grain),
            Self::Ceil(grain) => {
                let low = floor(time, grain);
                if low == time { time } else { next(low, grain) }
            }
        }
    }

    /// From one unit's start to the next one's.
    pub(super) fn next(grain: Grain) -> Self {
        match grain {
            Grain::Month => Self::Months(1),
            Grain::Quarter => Self::Months(3),
            Grain::Year => Self::Months(12),
            fixed => Self::Micros(width(fixed)),
        }
    }
}

/// Widths of the units that have one.
fn width(grain: Grain) -> i64 {
    match grain {
        Grain::Second => SECOND,
        Grain::Minute => 60 * SECOND,
        Grain::Hour => 3600 * SECOND,
        Grain::Day | Grain::Month | Grain::Quarter | Grain::Year => DAY,
    }
}

fn next(low: i64, grain: Grain) -> i64 {
    Step::next(grain).apply(low)
}

fn floor(time: i64, grain: Grain) -> i64 {
    let low = time.saturating_sub(time.rem_euclid(width(grain)));
    let months = match grain {
        Grain::Month => 1,
        Grain::Quarter => 3,
        Grain::Year => 12,
        _ => return low,
    };
    let Some(day) = DateTime::from_timestamp_micros(low) else { return low };
    let back = day.month0() % months;
    let first = low - i64::from(day.day0()) * DAY;
    add_months(first, -i32::try_from(back).unwrap_or(0))
}

fn add_months(time: i64, count: i32) -> i64 {
    let moved = DateTime::from_timestamp_micros(time).and_then(|at| {
        let months = Months::new(count.unsigned_abs());
        if count < 0 { at.checked_sub_months(months) } else { at.checked_add_months(months) }
    });
    match moved {
        Some(at) => at.timestamp_micros(),
        None if count < 0 => Timestamp::MIN.0 * 1000,
        None => Timestamp::MAX.0 * 1000,
    }
}

/// One end of a read range. As an upper bound it is the first time after the range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// No bound on this side.
    Open,
    /// A time derived from the batch.
    At(Point),
    /// The earliest of several.
    Earliest(Vec<Bound>),
    /// The latest of several.
    Latest(Vec<Bound>),
}

impl Bound {
    fn at(&self, batch: Interval, open: i64) -> i64 {
        match self {
            Self::Open => open,
            Self::At(point) => point.at(batch),
            Self::Earliest(all) => all.iter().map(|b| b.at(batch, open)).min().unwrap_or(open),
            Self::Latest(all) => all.iter().map(|b| b.at(batch, open)).max().unwrap_or(open),
        }
    }

    /// Adds a step to every time in it: all steps keep the order.
    pub(super) fn then(&self, step: Step) -> Self {
        let each = |all: &[Self]| all.iter().map(|bound| bound.then(step)).collect();
        match self {
            Self::Open => Self::Open,
            Self::At(point) => Self::At(point.then(step)),
            Self::Earliest(all) => Self::Earliest(each(all)),
            Self::Latest(all) => Self::Latest(each(all)),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        *self == Self::Open
    }
}

/// The times of an upstream that a batch reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The first time inside.
    pub lower: Bound,
    /// The first time after.
    pub upper: Bound,
}

impl Window {
    pub(super) const OPEN: Self = Self { lower: Bound::Open, upper: Bound::Open };

    /// The times read by a batch, widened to whole milliseconds; nothing where no row can qualify.
    pub fn range(&self, batch: Interval) -> Option<Interval> {
        let lower = self.lower.at(batch, Timestamp::MIN.0 * 1000).div_euclid(1000);
        let upper = self.upper.at(batch, Timestamp::MAX.0 * 1000);
        let upper = upper.div_euclid(1000) + i64::from(upper.rem_euclid(1000) != 0);
        let clamp = |ms: i64| Timestamp(ms.clamp(Timestamp::MIN.0, Timestamp::MAX.0));
        Interval::new(clamp(lower), clamp(upper))
    }

    pub(super) fn is_open(&self) -> bool {
        self.lower.is_open() && self.upper.is_open()
    }

    /// Both hold.
    pub(super) fn and(self, other: Self) -> Self {
        let both = |a: Bound, b: Bound, join: fn(Vec<Bound>) -> Bound| match (a, b) {
            (Bound::Open, one) | (one, Bound::Open) => one,
            (a, b) if a == b => a,
            (a, b) => join(vec![a, b]),
        };
        Self {
            lower: both(self.lower, other.lower, Bound::Latest),
            upper: both(self.upper, other.upper, Bound::Earliest),
        }
    }

    /// Either holds.
    pub(super) fn hull(self, other: Self) -> Self {
        let either = |a: Bound, b: Bound, join: fn(Vec<Bound>) -> Bound| match (a, b) {
            (Bound::Open, _) | (_, Bound::Open) => Bound::Open,
            (a, b) if a == b => a,
            (a, b) => join(vec![a, b]),
        };
        Self {
            lower: either(self.lower, other.lower, Bound::Earliest),
            upper: either(self.upper, other.upper, Bound::Latest),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.anchor {
            Anchor::Start => "start",
            Anchor::End => "end - 1us",
        })?;
        self.steps.iter().try_for_each(|step| match step {
            Step::Months(n) => write!(f, " {} {} months", sign(i64::from(*n)), n.unsigned_abs()),
            Step::Micros(n) if n % DAY == 0 => {
                write!(f, " {} {} days", sign(*n), (n / DAY).unsigned_abs())
            }
            Step::Micros(n) if n % SECOND == 0 => {
                write!(f, " {} {}s", sign(*n), (n / SECOND).unsigned_abs())
            }
            Step::Micros(n) => write!(f, " {} {}us", sign(*n), n.unsigned_abs()),
            Step::Floor(grain) => write!(f, " down to the {}", name(*grain)),
            Step::Ceil(grain) => write!(f, " up to the {}", name(*grain)),
        })
    }
}

fn sign(n: i64) -> char {
    if n < 0 { '-' } else { '+' }
}

fn name(grain: Grain) -> &'static str {
    match grain {
        Grain::Second => "second",
        Grain::Minute => "minute",
        Grain::Hour => "hour",
        Grain::Day => "day",
        Grain::Month => "month",
        Grain::Quarter => "quarter",
        Grain::Year => "year",
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, word: &str, all: &[Self]| {
            let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
            write!(f, "the {word} of ({})", texts.join(", "))
        };
        match self {
            Self::Open => f.write_str("any time"),
            Self::At(point) => point.fmt(f),
            Self::Earliest(all) => list(f, "earliest", all),
            Self::Latest(all) => list(f, "latest", all),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.lower, self.upper)
    }
}

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::interval::{BatchPlan, batches, parse_time};

    fn point(text: &str) -> TimePoint {
        parse_time(text, Timestamp(0)).unwrap()
    }

    fn days(from: u32, to: u32) -> Interval {
        let day = |n: u32| point(&format!("2023-01-{n:02}")).at;
        Interval { start: day(from), end: day(to) }
    }

    fn query<'a>(cadence: &'a Cadence, done: &'a IntervalSet) -> MissingQuery<'a> {
        MissingQuery {
            cadence,
            unit: cadence.unit(),
            done,
            start: point("2023-01-01").at,
            end: point("2023-01-10"),
            execution: point("2023-01-10 05:30:00").at,
            model_start: None,
            model_end: None,
            lookback: 0,
            allow_partials: false,
            ignore_cron: false,
            is_seed: false,
        }
    }

    fn cadence(cron: &str) -> Cadence {
        Cadence::parse(cron, None).unwrap()
    }

    #[test]
    fn only_what_has_ticked_is_due() {
        let none = IntervalSet::new();
        for (cron, unit, execution, ignore_cron, partials, end) in [
            ("@daily", "day", "05:30", false, false, "2023-01-10"),
            ("0 12 * * *", "day", "05:30", false, false, "2023-01-09"),
            ("0 12 * * *", "day", "05:30", true, false, "2023-01-10"),
            ("@hourly", "hour", "05:30", false, false, "2023-01-10 05:00"),
            ("@daily", "hour", "05:30", false, false, "2023-01-10"),
            ("30 7 * * *", "hour", "07:45", false, false, "2023-01-10 07:00"),
            ("@weekly", "day", "05:30", false, false, "2023-01-08"),
            ("@hourly", "day", "05:30", false, true, "2023-01-10 05:00"),
            ("@daily", "day", "05:30", false, true, "2023-01-10"),
            ("@daily", "day", "05:30", true, true, "2023-01-10 05:30"),
        ] {
            let cadence = cadence(cron);
            let found = missing(&MissingQuery {
                unit: unit.parse().unwrap(),
                execution: point(&format!("2023-01-10 {execution}")).at,
                ignore_cron,
                allow_partials: partials,
                ..query(&cadence, &none)
            });
            let due = Interval { start: point("2023-01-01").at, end: point(end).at };
            assert_eq!(found.ranges(), [due], "{cron} {unit} {execution}");
        }
    }

    #[test]
    fn lookback_reruns_before_new_units_and_before_holes() {
        let daily = cadence("@daily");
        for (done, expected) in [
            (vec![days(1, 9)], vec![days(7, 10)]),
            (vec![days(1, 10)], vec![]),
            // A hole on the fifth: the two days before it, and the last two of the window.
            (vec![days(1, 5), days(6, 10)], vec![days(3, 6), days(8, 10)]),
            (vec![days(2, 10)], vec![days(1, 2), days(8, 10)]),
        ] {
            let done: IntervalSet = done.into();
            let found = missing(&MissingQuery { lookback: 2, ..query(&daily, &done) });
            assert_eq!(found.ranges(), expected, "{done:?}");
        }
    }

    #[test]
    fn lookback_fades_after_the_models_end() {
        let monthly = cadence("@monthly");
        let done = IntervalSet::new();
        let base = MissingQuery { lookback: 1, execution: point("2024-01-10").at, ..query(&monthly, &done) };
        let found =
            missing(&MissingQuery { end: point("2023-12-31"), model_end: Some(point("2023-02-14")), ..base });
        let months = Interval { start: point("2023-01-01").at, end: point("2023-03-01").at };
        assert_eq!(found.ranges(), [months]);
    }

    #[test]
    fn a_model_is_asked_only_within_its_own_time() {
        let daily = cadence("@daily");
        let none = IntervalSet::new();
        let within = |start: &str, end: &str| {
            let (model_start, model_end) = (Some(point(start).at), Some(point(end)));
            missing(&MissingQuery { model_start, model_end, ..query(&daily, &none) })
        };
        assert_eq!(within("2023-01-03", "2023-01-05").ranges(), [days(3, 6)]);
        assert_eq!(within("2023-01-03", "2023-01-05 00:00:00").ranges(), [days(3, 5)]);
        assert!(within("2022-01-03", "2022-12-31").is_empty());
        assert!(within("2023-02-01", "2023-03-01").is_empty());
    }

    #[test]
    fn windows_below_a_unit_and_loaded_seeds_miss_nothing() {
        let daily = cadence("@daily");
        let done: IntervalSet = days(1, 2).into();
        assert!(
            missing(&MissingQuery { end: point("2023-01-01 23:00:00"), ..query(&daily, &done) }).is_empty()
        );
        assert!(missing(&MissingQuery { is_seed: true, ..query(&daily, &done) }).is_empty());
        let none = IntervalSet::new();
        assert!(!missing(&MissingQuery { is_seed: true, ..query(&daily, &none) }).is_empty());
    }

    #[test]
    fn whole_units_are_recorded_and_pieces_only_where_allowed() {
        let range = Interval { start: point("2023-01-01 10:00").at, end: point("2023-01-04 10:00").at };
        assert_eq!(recorded(range, IntervalUnit::Day, false), Some(days(2, 4)));
        let partial = Interval { start: days(1, 2).start, end: range.end };
        assert_eq!(recorded(range, IntervalUnit::Day, true), Some(partial));
        let hours = Interval { start: range.start, end: Timestamp(range.start.0 + 7_200_000) };
        assert_eq!(recorded(hours, IntervalUnit::Day, false), None);
    }

    #[test]
    fn years_of_five_minutes_take_range_arithmetic() {
        let fine = cadence("*/5 * * * *");
        let start = point("2019-01-01").at;
        let done: IntervalSet = (0..10)
            .map(|n| Interval {
                start: Timestamp(start.0 + n * 9_000_000_000),
                end: Timestamp(start.0 + n * 9_000_000_000 + 600_000),
            })
            .collect();
        let query = MissingQuery {
            start,
            end: point("2024-01-01"),
            execution: point("2024-01-02").at,
            lookback: 3,
            ..query(&fine, &done)
        };
        // Ten thousand models ask this in one plan: the test ends soon only if each takes microseconds.
        let answers: Vec<IntervalSet> = (0..10_000).map(|_| missing(&query)).collect();
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
        let found = &answers[0];
        let plan = BatchPlan::new(found, fine.unit(), Some(1));
        assert_eq!(plan.len(), 526_176);
        assert_eq!(plan.get(526_175).unwrap().end, point("2024-01-02").at);
    }

    /// The rule spelt out piece by piece: what the range arithmetic must agree with.
    fn by_pieces(query: &MissingQuery<'_>, window: Interval) -> IntervalSet {
        let mut pieces = Vec::new();
        let mut start = window.start;
        while start < window.end {
            let end = query.unit.next(start).min(window.end);
            pieces.push(Interval { start, end });
            start = end;
        }
        let absent: Vec<bool> = pieces.iter().map(|piece| !query.done.covers(*piece)).collect();
        let reach = query.lookback as usize;
        let any = absent.contains(&true);
        let keep = |i: usize| {
            absent[i] || (any && (i + reach >= pieces.len() || absent[i..=i + reach].contains(&true)))
        };
        (0..pieces.len()).filter(|i| keep(*i)).map(|i| pieces[i]).collect()
    }

    proptest! {
        /// Missing intervals agree with the rule piece by piece, and with what is done they cover the
        /// window; batches partition them and are never longer than their size.
        #[test]
        fn agrees_with_pieces(unit in prop::sample::select(&IntervalUnit::ALL[2..]), lookback in 0u32..5,
                              length in 1i64..800, size in prop::option::of(1u32..6), partials in any::<bool>(),
                              done in prop::collection::vec((0i64..800, 1i64..90), 0..8)) {
            let hourly = cadence("@hourly");
            let start = point("2023-01-01").at;
            let scale = unit.shortest_millis() / 3;
            let after = |n: i64| Timestamp(start.0 + n * scale);
            let done: IntervalSet =
                done.iter().map(|(from, length)| Interval { start: after(*from), end: after(from + length) }).collect();
            let query = MissingQuery {
                unit, lookback, ignore_cron: true, allow_partials: partials, end: TimePoint::time(after(length)),
                execution: after(length), ..query(&hourly, &done)
            };
            let found = missing(&query);
            if let Some(window) = window(&query) {
                prop_assert_eq!(&found, &by_pieces(&query, window));
                prop_assert!(found.union(&done).covers(window));
            } else {
                prop_assert!(found.is_empty());
            }
            let plan = BatchPlan::new(&found, unit, size);
            let all: Vec<Interval> = batches(&found, unit, size).collect();
            prop_assert_eq!(all.len() as u64, plan.len());
            prop_assert_eq!(all.iter().copied().collect::<IntervalSet>(), found);
            prop_assert!(all.windows(2).all(|pair| pair[0].end <= pair[1].start));
            prop_assert!(all.iter().all(|batch| size.is_none_or(|size| unit.count(*batch) <= u64::from(size))));
        }
    }
}

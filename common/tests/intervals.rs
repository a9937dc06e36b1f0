//! Missing intervals, batches and cron ticks, compared with what SQLMesh answered.

#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "reads questions; the core stays without files")]

use std::collections::BTreeMap;

use coord_common::interval::{
    BatchPlan, Cadence, Interval, IntervalSet, IntervalUnit, MissingQuery, TimePoint, Timestamp, batches,
    default_start, missing, parse_time, recorded,
};
use serde_json::Value;

/// The questions; `ORACLE_CASES=<folder>` asks others.
fn questions() -> Vec<Value> {
    let text = match std::env::var("ORACLE_CASES") {
        Ok(folder) => std::fs::read_to_string(format!("{folder}/intervals.json")).unwrap(),
        Err(_) => include_str!("fixtures/intervals.json").to_owned(),
    };
    serde_json::from_str(&text).unwrap()
}

fn point(text: &str) -> TimePoint {
    parse_time(text, Timestamp(0)).unwrap_or_else(|e| panic!("{e}"))
}

fn time(text: &Value) -> Timestamp {
    point(text.as_str().unwrap()).at
}

fn ranges(list: &Value) -> Vec<Interval> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|pair| Interval { start: time(&pair[0]), end: time(&pair[1]) })
        .collect()
}

struct Case<'a> {
    case: &'a Value,
    cadence: Cadence,
    unit: IntervalUnit,
    done: IntervalSet,
}

impl<'a> Case<'a> {
    fn new(case: &'a Value) -> Self {
        let cadence = Cadence::parse(case["cron"].as_str().unwrap(), case["cron_tz"].as_str()).unwrap();
        let unit = case["interval_unit"].as_str().map_or(cadence.unit(), |unit| unit.parse().unwrap());
        let partials = case["allow_partials"] == true;
        let done =
            ranges(&case["existing"]).into_iter().filter_map(|r| recorded(r, unit, partials)).collect();
        Self { case, cadence, unit, done }
    }

    fn missing(&self) -> IntervalSet {
        let case = self.case;
        let text = case["end"].as_str().unwrap();
        let end = point(text);
        // What says its offset is on no other clock.
        let shown = if text.ends_with('Z') { end.at } else { self.cadence.on_clock(end.at) };
        let model_start =
            case["model_start"].as_str().map_or_else(|| default_start(&self.cadence, shown), |t| point(t).at);
        missing(&MissingQuery {
            cadence: &self.cadence,
            unit: self.unit,
            done: &self.done,
            start: time(&case["start"]),
            end,
            execution: time(&case["execution_time"]),
            model_start: Some(model_start),
            model_end: case["model_end"].as_str().map(point),
            lookback: case["lookback"].as_u64().unwrap_or(0) as u32,
            allow_partials: case["allow_partials"] == true,
            ignore_cron: case["ignore_cron"] == true,
            is_seed: false,
        })
    }
}

/// Whether what we compute beyond SQLMesh is lookback before a hole: more, and only within range.
fn only_more_lookback(ours: &IntervalSet, theirs: &IntervalSet, case: &Case<'_>) -> bool {
    let lookback = case.case["lookback"].as_i64().unwrap_or(0);
    let near = |extra: &Interval| {
        let reach = Interval { start: extra.end, end: case.unit.add_units(extra.start, lookback) };
        reach.start <= reach.end && theirs.overlaps(Interval { start: extra.end, ..reach })
    };
    theirs.difference(ours).is_empty() && ours.difference(theirs).ranges().iter().all(near)
}

/// How comparisons went.
#[derive(Default)]
struct Tally {
    /// By class: how many agreed, of how many.
    classes: BTreeMap<&'static str, (u32, u32)>,
    /// Differences that nobody listed.
    wrong: Vec<String>,
    /// How often each listed difference was met.
    listed: BTreeMap<&'static str, u32>,
}

impl Tally {
    fn agree(&mut self, case: &Value, class: &'static str, same: bool, ours: &dyn std::fmt::Debug) {
        let entry = self.classes.entry(class).or_default();
        *entry = (entry.0 + u32::from(same), entry.1 + 1);
        if !same {
            self.wrong.push(format!("{case}\n  our {class}: {ours:?}"));
        }
    }

    fn list(&mut self, difference: &'static str) {
        *self.listed.entry(difference).or_default() += 1;
    }
}

fn compare(value: &Value, tally: &mut Tally) {
    let case = Case::new(value);
    let expected = &value["expected"];
    let execution = time(&value["execution_time"]);
    let unit = case.unit.name();
    tally.agree(value, "unit", expected["interval_unit"] == unit, &unit);
    tally.agree(value, "recorded", case.done.ranges() == ranges(&expected["recorded"]), &case.done);
    let (next, prev) = (case.cadence.next(execution), case.cadence.prev(execution));
    tally.agree(value, "next tick", next == time(&expected["cron_next"]), &next);
    tally.agree(value, "previous tick", prev == time(&expected["cron_prev"]), &prev);
    let (floor, theirs) = (case.cadence.floor(execution), time(&expected["cron_floor"]));
    // Within a period of a clock change SQLMesh subtracts the period on the wall clock: its floor is an
    // hour off, and where it lies in the future it can be told.
    if theirs > execution {
        assert_eq!(floor, execution, "{value}");
        tally.list("a cron's floor beside a clock change is exact");
    } else {
        tally.agree(value, "floor", floor == theirs, &floor);
    }
    let (ours, theirs) = (case.missing(), ranges(&expected["missing"]));
    if value["quirk"] == "inverted_range" {
        assert!(theirs.iter().any(|range| range.start >= range.end), "{value} is not inverted");
        assert!(ours.is_empty(), "{value}");
        return tally.list("no range ends before it starts");
    }
    let size = value["batch_size"].as_u64().map(|size| size as u32);
    let plan = BatchPlan::new(&ours, case.unit, size);
    assert!(batches(&ours, case.unit, size).eq(plan.iter()));
    // A hole that is shorter than the lookback: SQLMesh re-runs only the units exactly one lookback
    // before it.
    if ours.ranges() != theirs && only_more_lookback(&ours, &theirs.iter().copied().collect(), &case) {
        return tally.list("lookback covers interior holes");
    }
    let units: u64 = ours.ranges().iter().map(|range| case.unit.count(*range)).sum();
    tally.agree(value, "missing", ours.ranges() == theirs, &ours);
    tally.agree(value, "count", expected["n_intervals"] == units, &units);
    tally.agree(value, "batches", plan.iter().eq(ranges(&expected["batches"])), &plan);
}

#[test]
fn intervals_are_as_in_sqlmesh() {
    let questions = questions();
    let mut tally = Tally::default();
    questions.iter().for_each(|question| compare(question, &mut tally));
    println!("intervals: {} questions", questions.len());
    for (class, (same, all)) in &tally.classes {
        println!("  {class:<16}{same:>6} of {all:>6} agree");
    }
    for (difference, count) in &tally.listed {
        println!("  {count} differ as listed: {difference}");
    }
    assert!(tally.wrong.is_empty(), "{} wrong:\n{}", tally.wrong.len(), tally.wrong.join("\n"));
    if std::env::var("ORACLE_CASES").is_err() {
        let counts: Vec<u32> = tally.listed.into_values().collect();
        assert_eq!(counts, [1, 9, 2], "what is listed comes up as often as ever");
    }
}

/// Ticks of croniter, which SQLMesh uses: the cron, a time, the ticks after and those before it; or
/// that it can't be read or has none.
#[test]
fn crons_tick_as_in_sqlmesh() {
    let recorded: Vec<Value> = serde_json::from_str(include_str!("fixtures/crons.json")).unwrap();
    let (mut wrong, mut ticking, mut dense) = (Vec::new(), 0, 0);
    for case in &recorded {
        let cron = case[0].as_str().unwrap();
        let at = Timestamp(case[1].as_i64().unwrap() * 1000);
        let cadence = match Cadence::parse(cron, None) {
            Ok(cadence) if case[2].is_array() => cadence,
            Ok(_) => {
                wrong.push(format!("{cron}: read, though it is none"));
                continue;
            }
            Err(error) if case[2].is_array() => {
                // The least distance is asked of all ticks.
                let known = error.why.contains("minutes apart") || error.why.contains("once a minute");
                dense += 1;
                if !known {
                    wrong.push(error.to_string());
                }
                continue;
            }
            Err(_) => continue,
        };
        ticking += 1;
        let seconds = |ticks: &mut dyn Iterator<Item = Timestamp>, count: &Value| -> Vec<i64> {
            ticks.take(count.as_array().unwrap().len()).map(|tick| tick.0 / 1000).collect()
        };
        let next =
            seconds(&mut std::iter::successors(Some(cadence.next(at)), |t| Some(cadence.next(*t))), &case[2]);
        let prev =
            seconds(&mut std::iter::successors(Some(cadence.prev(at)), |t| Some(cadence.prev(*t))), &case[3]);
        if serde_json::json!([next, prev]) != serde_json::json!([case[2], case[3]]) {
            wrong.push(format!("{cron} at {at}: {next:?} {prev:?} for {} {}", case[2], case[3]));
        }
    }
    println!("crons: {ticking} tick, {dense} are too dense, {} are none", recorded.len() - ticking - dense);
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

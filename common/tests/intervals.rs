//! Missing intervals, batches and cron ticks, compared with what SQLMesh answered.

#![allow(clippy::unwrap_used, reason = "a test")]

use coord_common::interval::{
    BatchPlan, Cadence, Interval, IntervalSet, IntervalUnit, MissingQuery, TimePoint, Timestamp, batches,
    default_start, missing, parse_time, recorded,
};
use serde_json::Value;

/// Cases where a hole inside done intervals is shorter than the lookback: SQLMesh re-runs only the
/// units exactly one lookback before the hole, we re-run all the units between too.
const LOOKBACK_OVER_HOLES: [u64; 9] = [44, 102, 130, 218, 236, 300, 406, 420, 440];

/// Cases where the present lies within a period of a clock change: SQLMesh subtracts the period on
/// the wall clock, and its floor is an hour off (here in the future).
const FLOOR_BESIDE_CLOCK_CHANGE: [u64; 1] = [212];

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
        let end = point(case["end"].as_str().unwrap());
        let model_start = case["model_start"]
            .as_str()
            .map_or_else(|| default_start(&self.cadence, self.cadence.on_clock(end.at)), |t| point(t).at);
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

#[test]
fn every_case_agrees_but_for_listed_differences() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("fixtures/intervals.json")).unwrap();
    let (mut wrong, mut holes, mut floors, mut inverted) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for value in &cases {
        let case = Case::new(value);
        let expected = &value["expected"];
        let id = value["i"].as_u64().unwrap();
        let execution = time(&value["execution_time"]);
        let mut agree = |what: &str, same: bool, ours: &dyn std::fmt::Debug| {
            if !same {
                wrong.push(format!("{value}\n  our {what}: {ours:?}"));
            }
        };
        let unit = case.unit.name();
        agree("unit", expected["interval_unit"] == unit, &unit);
        agree("recorded", case.done.ranges() == ranges(&expected["recorded"]), &case.done);
        let (next, prev) = (case.cadence.next(execution), case.cadence.prev(execution));
        agree("next tick", next == time(&expected["cron_next"]), &next);
        agree("previous tick", prev == time(&expected["cron_prev"]), &prev);
        let floor = case.cadence.floor(execution);
        if FLOOR_BESIDE_CLOCK_CHANGE.contains(&id) {
            assert!(time(&expected["cron_floor"]) > execution, "{id} has a usual floor");
            assert_eq!(floor, execution);
            floors.push(id);
        } else {
            agree("floor", floor == time(&expected["cron_floor"]), &floor);
        }
        let ours = case.missing();
        let theirs = ranges(&expected["missing"]);
        if value["quirk"] == "inverted_range" {
            assert!(theirs.iter().any(|range| range.start >= range.end), "{id} is not inverted");
            assert!(ours.is_empty());
            inverted += 1;
            continue;
        }
        let size = value["batch_size"].as_u64().map(|size| size as u32);
        let plan = BatchPlan::new(&ours, case.unit, size);
        assert!(batches(&ours, case.unit, size).eq(plan.iter()));
        let units: u64 = ours.ranges().iter().map(|range| case.unit.count(*range)).sum();
        if LOOKBACK_OVER_HOLES.contains(&id) {
            assert_ne!(ours.ranges(), theirs, "{id} agrees");
            agree("lookback", only_more_lookback(&ours, &theirs.into_iter().collect(), &case), &ours);
            holes.push(id);
        } else {
            agree("missing", ours.ranges() == theirs, &ours);
            agree("count", expected["n_intervals"] == units, &units);
            agree("batches", plan.iter().eq(ranges(&expected["batches"])), &plan);
        }
    }
    println!(
        "{} cases: {} differ in lookback, {} in floor, {inverted} inverted",
        cases.len(),
        holes.len(),
        floors.len()
    );
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(holes, LOOKBACK_OVER_HOLES);
    assert_eq!(floors, FLOOR_BESIDE_CLOCK_CHANGE);
    assert_eq!(inverted, 2);
}

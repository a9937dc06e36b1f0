//! Missing intervals, batches and cron ticks, compared with what SQLMesh answered.

use coord_common::interval::{
    BatchPlan, Cadence, Interval, IntervalSet, IntervalUnit, MissingQuery, TimePoint, Timestamp, batches,
    default_start, missing, parse_time, recorded,
};
use serde_json::Value;

/// Cases where a hole inside done intervals is shorter than the lookback: SQLMesh re-runs only the
/// units exactly one lookback before the hole, we re-run all the units between too.
const LOOKBACK_OVER_HOLES: [u64; 0] = [];

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

fn whole(list: &Value) -> bool {
    ranges(list).iter().all(|range| range.start < range.end)
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
            .map_or_else(|| default_start(&self.cadence, end.at), |t| point(t).at);
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

#[test]
fn every_case_agrees_but_for_listed_differences() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("fixtures/intervals.json")).unwrap();
    let (mut wrong, mut differing, mut inverted) = (Vec::new(), Vec::new(), 0);
    for value in &cases {
        let case = Case::new(value);
        let expected = &value["expected"];
        let id = value["i"].as_u64().unwrap();
        let execution = time(&value["execution_time"]);
        let mut check = |what: &str, ours: String, theirs: String| {
            if ours != theirs {
                wrong.push(format!("{id} {what}: {ours}, SQLMesh {theirs}"));
            }
        };
        check("unit", case.unit.to_string(), expected["interval_unit"].as_str().unwrap().to_owned());
        check(
            "recorded",
            format!("{:?}", case.done.ranges()),
            format!("{:?}", ranges(&expected["recorded"])),
        );
        check("floor", case.cadence.floor(execution).to_string(), time(&expected["cron_floor"]).to_string());
        check("next", case.cadence.next(execution).to_string(), time(&expected["cron_next"]).to_string());
        check("prev", case.cadence.prev(execution).to_string(), time(&expected["cron_prev"]).to_string());
        if value["quirk"] == "inverted_range" {
            assert!(!whole(&expected["missing"]), "{id} is no inverted range");
            assert!(case.missing().is_empty());
            inverted += 1;
            continue;
        }
        let ours = case.missing();
        let size = value["batch_size"].as_u64().map(|size| size as u32);
        let plan = BatchPlan::new(&ours, case.unit, size);
        let units: u64 = ours.ranges().iter().map(|range| case.unit.count(*range)).sum();
        let theirs = ranges(&expected["missing"]);
        if ours.ranges() != theirs
            || units != expected["n_intervals"]
            || plan.iter().ne(ranges(&expected["batches"]))
        {
            differing.push(id);
            if !LOOKBACK_OVER_HOLES.contains(&id) {
                wrong.push(format!(
                    "{value}\n   ours {:?} units {units} batches {:?}",
                    ours.ranges(),
                    plan.iter().collect::<Vec<_>>()
                ));
            }
        }
        assert!(batches(&ours, case.unit, size).eq(plan.iter()));
    }
    println!(
        "{} cases, {} differ in lookback over holes, {inverted} inverted ranges",
        cases.len(),
        differing.len()
    );
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(differing, LOOKBACK_OVER_HOLES);
    assert_eq!(inverted, 2);
}

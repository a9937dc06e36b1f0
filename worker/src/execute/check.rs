//! Asking a model's signals which of some candidate ranges are ready.

use std::sync::Arc;

use coord_common::interval::{Interval, IntervalSet, Timestamp, parse_time, ready_units};
use coord_common::project::model::Call;
use coord_common::snapshot::Snapshot;
use coord_common::task::{Batch, Check, Evaluate, Failure, FailureClass, Mode};
use tokio_util::sync::CancellationToken;

use super::prepare::{self, Embedded};
use crate::engine::{Engine, EngineError, Rows};

/// Why signals gave no answer.
pub(super) enum Trouble {
    Failed(Failure),
    Engine(EngineError),
}

/// What all signals of a model hold for ready, in whole interval units: each signal is asked about
/// what those before it left, range by range.
pub(super) async fn ready(
    check: &Check,
    snapshot: &Snapshot,
    embedded: &Embedded,
    engine: &dyn Engine,
    cancel: &CancellationToken,
) -> Result<IntervalSet, Trouble> {
    let unit = snapshot.interval_unit();
    let mut left = check.candidates.clone();
    for call in &snapshot.model.signals {
        let mut ready = IntervalSet::new();
        for range in left.ranges() {
            let work = at(check, *range);
            let sql = prepare::signal(&work, snapshot, embedded, call, engine.dialect())
                .map_err(|failure| Trouble::Failed(named(call, snapshot, failure)))?;
            let rows = tokio::select! {
                biased;
                rows = engine.query(&sql) => rows,
                () = cancel.cancelled() => Err(EngineError::cancelled()),
            };
            let rows = rows.map_err(|error| Trouble::Engine(naming(call, snapshot, error)))?;
            let found = ranges(&rows).map_err(|message| {
                let hint = "return two columns: the start and the exclusive end of each ready range, in UTC";
                let failure = Failure {
                    class: FailureClass::Permanent,
                    code: None,
                    message,
                    hint: Some(hint.to_owned()),
                };
                Trouble::Failed(named(call, snapshot, failure))
            })?;
            ready = ready.union(&found);
        }
        left = ready_units(&left, &ready, unit);
    }
    Ok(left)
}

/// A candidate range as if it were a batch: what the query's macros see.
fn at(check: &Check, interval: Interval) -> Evaluate {
    let batch = Batch { table: check.task.table.clone(), interval };
    Evaluate { task: Arc::clone(&check.task), batch, mode: Mode::Write, supersedes: Vec::new() }
}

fn name(call: &Call, snapshot: &Snapshot) -> String {
    format!("signal `{}` of `{}`", call.name, snapshot.name())
}

fn named(call: &Call, snapshot: &Snapshot, failure: Failure) -> Failure {
    Failure { message: format!("{}: {}", name(call, snapshot), failure.message), ..failure }
}

fn naming(call: &Call, snapshot: &Snapshot, error: EngineError) -> EngineError {
    let message = format!("{}: {}", name(call, snapshot), error.message);
    EngineError { message, ..error }
}

/// The ranges in an answer. A row without a start or an end says nothing, such as the MIN and MAX
/// of no rows.
fn ranges(rows: &Rows) -> Result<IntervalSet, String> {
    if rows.columns.len() < 2 {
        return Err(format!("its query returns {} column, not a start and an end", rows.columns.len()));
    }
    let mut found = IntervalSet::new();
    for row in &rows.rows {
        let [Some(start), Some(end), ..] = row.as_slice() else { continue };
        let (from, to) = (time(start)?, time(end)?);
        match Interval::new(from, to) {
            Some(range) => found.insert(range),
            None if from == to => {}
            None => return Err(format!("it returned a range that ends before it starts: {start} to {end}")),
        }
    }
    Ok(found)
}

/// A time as warehouses print it; one without an offset is in UTC.
fn time(text: &str) -> Result<Timestamp, String> {
    let bytes = text.as_bytes();
    let short = bytes.len() > 13 && matches!(bytes[bytes.len() - 3], b'+' | b'-') && text.contains(':');
    let whole = if short { format!("{text}:00") } else { text.to_owned() };
    // Nothing relative: `yesterday` isn't what a warehouse returns.
    let dated = bytes.iter().take(4).all(u8::is_ascii_digit) && text.contains('-');
    let point = dated.then(|| parse_time(&whole, Timestamp(0)).ok()).flatten();
    point.map(|point| point.at).ok_or_else(|| format!("it returned '{text}', which is no date or timestamp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(cells: &[[Option<&str>; 2]]) -> Rows {
        Rows {
            columns: vec!["start".to_owned(), "end".to_owned()],
            rows: cells.iter().map(|row| row.iter().map(|cell| cell.map(str::to_owned)).collect()).collect(),
        }
    }

    #[test]
    fn rows_are_half_open_ranges_of_dates_or_timestamps() {
        let day = 86_400_000;
        for (row, expected) in [
            ([Some("1970-01-02"), Some("1970-01-03")], Some((day, 2 * day))),
            ([Some("1970-01-02 00:00:00"), Some("1970-01-02 01:00:00")], Some((day, day + 3_600_000))),
            ([Some("1970-01-02 00:00:00+00"), Some("1970-01-03T00:00:00")], Some((day, 2 * day))),
            ([Some("1970-01-02 02:00:00+02"), Some("1970-01-02 00:00:00.5")], Some((day, day + 500))),
            ([Some("1970-01-02"), Some("1970-01-02")], None),
            ([None, Some("1970-01-02")], None),
            ([None, None], None),
        ] {
            let found = ranges(&rows(&[row])).unwrap();
            let expected: IntervalSet = expected
                .map(|(start, end)| Interval { start: Timestamp(start), end: Timestamp(end) })
                .into_iter()
                .collect();
            assert_eq!(found, expected, "{row:?}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for row in [
            [Some("yesterday"), Some("1970-01-02")],
            [Some("true"), Some("1")],
            [Some("1970-01-03"), Some("1970-01-02")],
        ] {
            assert!(ranges(&rows(&[row])).is_err(), "{row:?}");
        }
    }
}

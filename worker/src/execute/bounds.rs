//! The bounds of a batch's rows in its model's time column.

use coord_common::interval::{Interval, format_time, inclusive_end};
use coord_common::project::model::TimeRange;
use coord_common::task::Failure;

use super::prepare::refuse;
use crate::engine::Bound;

/// How a moment is written for columns of dates and times.
const MOMENT: &str = "%Y-%m-%d %H:%M:%S.%f";

/// The bounds of a range in a model's time column, both inclusive: the last microsecond inside stands
/// for the end.
pub(super) fn bounds(kind: &TimeRange, interval: Interval) -> Result<[Bound; 2], Failure> {
    let bound = |time| {
        let literal = |format: &str| {
            let text = format_time(format, time).map_err(|error| refuse(error.to_string(), None))?;
            Ok::<_, Failure>(format!("'{}'", text.replace('\'', "''")))
        };
        Ok::<_, Failure>(Bound { time: literal(MOMENT)?, own: literal(&kind.time_format)? })
    };
    Ok([bound(interval.start.to_datetime())?, bound(inclusive_end(interval.end))?])
}

/// The condition that a row is within bounds, where the column's type isn't known: by any type that it
/// may have.
pub(super) fn within(column: &str, kind: &TimeRange, [low, high]: &[Bound; 2]) -> String {
    let between = |column: &str, low: &str, high: &str| format!("{column} BETWEEN {low} AND {high}");
    let (by_time, by_text) = if kind.time_format == "%Y-%m-%d" {
        (between(column, &low.time, &high.time), between(column, &low.own, &high.own))
    } else {
        // Neither writing can be read as the other's type.
        let text = format!("CAST({column} AS VARCHAR)");
        let from = format!("{}'", low.time.get(..11).unwrap_or(&low.time));
        (between(&text, &from, &high.time), between(&text, &low.own, &high.own))
    };
    format!("({by_time} OR {by_text})")
}

#[cfg(test)]
mod tests {
    use coord_common::interval::Timestamp;

    use super::*;

    fn time_range(time_format: &str) -> TimeRange {
        TimeRange {
            time_column: "ds".to_owned(),
            time_format: time_format.to_owned(),
            partition_by_time_column: true,
            common: coord_common::project::model::Incremental::default(),
        }
    }

    #[test]
    fn a_bound_is_written_both_as_a_moment_and_in_the_models_own_format() {
        let days = Interval { start: Timestamp(1_704_067_200_000), end: Timestamp(1_704_240_000_000) };
        let [low, high] = bounds(&time_range("%Y%m%d"), days).expect("formats are valid");
        assert_eq!((low.time.as_str(), low.own.as_str()), ("'2024-01-01 00:00:00.000000'", "'20240101'"));
        assert_eq!((high.time.as_str(), high.own.as_str()), ("'2024-01-02 23:59:59.999999'", "'20240102'"));
    }

    #[test]
    fn where_a_type_isnt_known_rows_are_within_by_any() {
        let days = Interval { start: Timestamp(1_704_067_200_000), end: Timestamp(1_704_153_600_000) };
        let condition = |format| {
            let kind = time_range(format);
            within("ds", &kind, &bounds(&kind, days).expect("formats are valid"))
        };
        assert_eq!(
            condition("%Y-%m-%d"),
            "(ds BETWEEN '2024-01-01 00:00:00.000000' AND '2024-01-01 23:59:59.999999' \
             OR ds BETWEEN '2024-01-01' AND '2024-01-01')"
        );
        assert_eq!(
            condition("%Y%m%d"),
            "(CAST(ds AS VARCHAR) BETWEEN '2024-01-01' AND '2024-01-01 23:59:59.999999' \
             OR CAST(ds AS VARCHAR) BETWEEN '20240101' AND '20240101')"
        );
    }
}

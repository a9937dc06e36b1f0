//! The bounds of a batch's rows in its model's time column.

use coord_common::interval::{Interval, format_time, inclusive_end};
use coord_common::project::model::TimeRange;
use coord_common::snapshot::Snapshot;
use coord_common::task::Failure;

use super::prepare::refuse;

/// The bounds of a range in a model's time column, both inclusive, as SQL literals.
pub(super) fn bounds(
    snapshot: &Snapshot,
    kind: &TimeRange,
    interval: Interval,
) -> Result<[String; 2], Failure> {
    let format = bound_format(snapshot, kind);
    let literal = |time| {
        let text = format_time(&format, time).map_err(|error| refuse(error.to_string(), None))?;
        Ok::<_, Failure>(format!("'{}'", text.replace('\'', "''")))
    };
    Ok([literal(interval.start.to_datetime())?, literal(inclusive_end(interval.end))?])
}

fn bound_format(snapshot: &Snapshot, kind: &TimeRange) -> String {
    let columns = snapshot.columns.iter().flatten();
    let declared = columns.clone().find(|column| column.name.eq_ignore_ascii_case(&kind.time_column));
    let data_type = declared.map(|column| column.data_type.to_lowercase()).unwrap_or_default();
    literal_format(&data_type, &kind.time_format).to_owned()
}

/// How a bound is written that is compared with a column of a type (empty where unknown): texts and
/// numbers hold times in the model's own format; dates and times are cast from a full timestamp.
fn literal_format<'f>(data_type: &str, own: &'f str) -> &'f str {
    let is_time = ["date", "timestamp"].iter().any(|name| data_type.starts_with(name));
    let is_text = ["char", "text", "string", "int"].iter().any(|name| data_type.contains(name));
    if is_text || (!is_time && own != "%Y-%m-%d") {
        own
    } else {
        // An unknown type in the default format may be a date, whose text the cast cuts from the
        // timestamp, or a text, which compares as the engine casts it.
        "%Y-%m-%d %H:%M:%S.%f"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_of_a_time_column_is_for_texts_and_numbers() {
        let full = "%Y-%m-%d %H:%M:%S.%f";
        for (data_type, own, expected) in [
            ("date", "%Y%m%d", full),
            ("timestamp with time zone", "%Y%m%d", full),
            ("varchar(8)", "%Y%m%d", "%Y%m%d"),
            ("bigint", "%Y%m%d", "%Y%m%d"),
            ("", "%Y%m%d", "%Y%m%d"),
            ("", "%Y-%m-%d", full),
            ("text", "%Y-%m-%d", "%Y-%m-%d"),
        ] {
            assert_eq!(literal_format(data_type, own), expected, "{data_type} {own}");
        }
    }
}

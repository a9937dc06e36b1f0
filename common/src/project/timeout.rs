//! How long a batch of a model may take.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::diagnostic::{Diagnostic, Location};

use super::model::Storage;

/// The session property that says it, which SQLMesh would hand to the engine.
pub const BATCH_TIMEOUT: &str = "batch_timeout";
/// The longest that can be said: some hundred years.
const LONGEST: f64 = 3e9;

/// Reads a time span: seconds, or numbers with units as in `'1 hour 30 minutes'`, with or without
/// quotes; nothing where it is none, or isn't positive.
pub fn read_timeout(text: &str) -> Option<Duration> {
    let text = text.trim().trim_matches('\'').trim();
    let seconds = match text.parse::<f64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let words: Vec<&str> = text.split_whitespace().collect();
            let pairs = words.chunks(2).map(|pair| match pair {
                [number, unit] => Some(number.parse::<f64>().ok().filter(|n| *n >= 0.0)? * seconds_in(unit)?),
                _ => None,
            });
            pairs.sum::<Option<f64>>()?
        }
    };
    (seconds > 0.0 && seconds < LONGEST).then(|| Duration::from_secs_f64(seconds))
}

fn seconds_in(unit: &str) -> Option<f64> {
    let unit = unit.to_ascii_lowercase();
    match unit.strip_suffix('s').unwrap_or(&unit) {
        "" | "sec" | "second" => Some(1.0),
        "m" | "min" | "minute" => Some(60.0),
        "h" | "hour" => Some(3_600.0),
        "d" | "day" => Some(86_400.0),
        _ => None,
    }
}

impl Storage {
    /// How long a batch of the model may take; nothing where the model doesn't say.
    pub fn batch_timeout(&self) -> Option<Duration> {
        let given = self.session_properties.iter().find(|(name, _)| is_batch_timeout(name));
        given.and_then(|(_, text)| read_timeout(text))
    }
}

/// Finds a time span among session properties that can't be read.
pub(crate) fn check_timeout(
    properties: &BTreeMap<String, String>,
    at: Location,
    findings: &mut Vec<Diagnostic>,
) {
    let wrong = |(name, text): &(&String, &String)| is_batch_timeout(name) && read_timeout(text).is_none();
    if let Some((name, text)) = properties.iter().find(wrong) {
        let message = format!("`{name}` must be a positive number of seconds or a time span, found `{text}`");
        let hint = "write `batch_timeout = '10 minutes'`, for example";
        findings.push(Diagnostic::error("invalid-value", at, message).hint(hint));
    }
}

/// Whether a session property is ours.
pub(crate) fn is_batch_timeout(name: &str) -> bool {
    name.eq_ignore_ascii_case(BATCH_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_seconds_or_numbers_with_units() {
        for (text, seconds) in [
            ("90", Some(90.0)),
            ("'90'", Some(90.0)),
            ("0.5", Some(0.5)),
            ("'10 minutes'", Some(600.0)),
            ("'1 hour 30 MIN'", Some(5400.0)),
            ("2 s", Some(2.0)),
            ("'1 day'", Some(86_400.0)),
            ("0", None),
            ("-1", None),
            ("'-1 hours'", None),
            ("''", None),
            ("NaN", None),
            ("1e300", None),
            ("'soon'", None),
            ("'10 moons'", None),
            ("'10 minutes 3'", None),
        ] {
            assert_eq!(read_timeout(text), seconds.map(Duration::from_secs_f64), "{text}");
        }
    }
}

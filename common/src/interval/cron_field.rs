//! One field of a cron, rewritten from what croniter reads to what the crate `cron` reads.
//!
//! Names become numbers, weekdays the crate's (1 is Sunday), and ranges that wrap round or go from a value
//! to itself become ranges that don't; the crate expands ranges and steps. What it has no word for, `L`, `W`
//! and `#`, is kept beside the list.

use std::collections::BTreeSet;

/// What a field counts.
pub(super) struct Kind {
    name: &'static str,
    min: u32,
    max: u32,
    /// What the crate counts the least value as.
    first: u32,
    names: &'static [&'static str],
    hint: &'static str,
}

const fn kind(name: &'static str, min: u32, max: u32) -> Kind {
    Kind { name, min, max, first: min, names: &[], hint: "" }
}

pub(super) const MINUTE: Kind = kind("minute", 0, 59);
pub(super) const HOUR: Kind = kind("hour", 0, 23);
pub(super) const DAY: Kind = kind("day", 1, 31);
pub(super) const MONTH: Kind = Kind {
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    hint: ", or jan to dec",
    ..kind("month", 1, 12)
};
pub(super) const WEEKDAY: Kind = Kind {
    first: 1,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    hint: ", or sun to sat",
    ..kind("weekday", 0, 6)
};
pub(super) const SECOND: Kind = kind("second", 0, 59);
pub(super) const YEAR: Kind = kind("year", 1970, 2099);

/// What a field names.
#[derive(Debug, Default)]
pub(super) struct Field {
    /// The values that it names, as the crate `cron` reads them: numbers, ranges and steps, or `*`.
    pub(super) list: String,
    /// Whether it leaves its values open.
    pub(super) star: bool,
    /// `L` as a day, listed as the 31st: where that exists, it is the last.
    pub(super) last: bool,
    /// `15W` as a day.
    pub(super) nearest: Option<u32>,
    /// `1#2` and `L5` as weekdays: the weekday and which of a month, 0 being the last.
    pub(super) nth: BTreeSet<(u32, u32)>,
}

/// Reads a field in lower case.
pub(super) fn parse(text: &str, kind: &Kind) -> Result<Field, String> {
    let mut field = Field::default();
    let is_day = matches!(kind.name, "day" | "weekday");
    if text == "?" && is_day {
        field.open();
    } else {
        for part in text.split(',') {
            item(part, kind, &mut field)?;
        }
    }
    if field.nearest.is_some() && text.contains(',') {
        return Err(format!("'{text}' has W beside other days"));
    }
    Ok(field)
}

impl Field {
    fn add(&mut self, item: &str) {
        if !self.list.is_empty() {
            self.list.push(',');
        }
        self.list.push_str(item);
    }

    fn open(&mut self) {
        self.star = true;
        self.add("*");
    }

    fn add_spans(&mut self, spans: &[Span], kind: &Kind) {
        for span in spans {
            let low = span.low - kind.min + kind.first;
            let high = span.high - kind.min + kind.first;
            // The crate takes no step that is longer than its field.
            if span.step > high - low {
                self.add(&low.to_string());
            } else {
                self.add(&format!("{low}-{high}/{}", span.step));
            }
        }
    }
}

/// Values from a first to a last one, `low <= high`.
struct Span {
    low: u32,
    high: u32,
    step: u32,
}

fn item(part: &str, kind: &Kind, field: &mut Field) -> Result<(), String> {
    if part == "*" {
        field.open();
        return Ok(());
    }
    if kind.name == "day" {
        if part == "l" {
            field.last = true;
            field.add("31");
            return Ok(());
        }
        if let Some(digits) = part.strip_suffix('w').or_else(|| part.strip_prefix('w')) {
            let day = kind.value(digits)?;
            field.nearest = Some(day);
            field.add_spans(&[Span::one(day)], kind);
            return Ok(());
        }
    }
    if kind.name == "weekday" {
        if let Some((days, nth)) = part.split_once('#') {
            let nth = nth.parse().ok().filter(|nth| (1..=5).contains(nth));
            let nth = nth.ok_or_else(|| format!("'{part}' counts no weekday of a month: use #1 to #5"))?;
            // Ranges are for names only.
            let plain = !days.contains(['/', '*']) && (!days.contains('-') || kind.are_names(days));
            let spans = if plain { kind.spans(days)? } else { return Err(kind.wrong(part)) };
            field.nth.extend(spans.iter().flat_map(|span| span.low..=span.high).map(|day| (day, nth)));
            field.add_spans(&spans, kind);
            return Ok(());
        }
        if let Some(digits) = part.strip_prefix('l').filter(|rest| !rest.is_empty()) {
            let day = kind.value(digits)?;
            field.add_spans(&[Span::one(day)], kind);
            field.nth.insert((day, 0));
            return Ok(());
        }
    }
    field.add_spans(&kind.spans(part)?, kind);
    Ok(())
}

impl Span {
    fn one(value: u32) -> Self {
        Self { low: value, high: value, step: 1 }
    }
}

impl Kind {
    /// A value, a range, or either with a step; a range that wraps round is two.
    fn spans(&self, part: &str) -> Result<Vec<Span>, String> {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => {
                let number = digits(step).filter(|step| *step > 0);
                (range, Some(number.ok_or_else(|| format!("'{part}' has no valid step"))?))
            }
        };
        let (low, high) = match range.split_once('-') {
            _ if range == "*" => (self.min, self.max),
            Some((low, high)) => {
                let high = if self.name == "day" && high == "l" { "31" } else { high };
                match (self.value(low)?, self.value(high)?) {
                    // Written out, a range from a value to itself is the whole cycle.
                    (low, high) if low == high => (self.min, self.max),
                    bounds => bounds,
                }
            }
            None if step.is_some() => (self.value(range)?, self.max),
            None => return Ok(vec![Span::one(self.value(range)?)]),
        };
        let step = step.unwrap_or(1);
        if low <= high {
            return Ok(vec![Span { low, high, step }]);
        }
        let left = (self.max - low) % step;
        // How croniter goes on from the start of the cycle.
        let skipped = if left + 1 < step { step - left } else { 0 };
        let again = Span { low: self.min.saturating_add(skipped), high, step };
        let mut spans = vec![Span { low, high: self.max, step }];
        spans.extend((again.low <= high).then_some(again));
        Ok(spans)
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let named = self.names.iter().position(|name| *name == text).map(|at| at as u32 + self.min);
        let number = match named.or_else(|| digits(text)) {
            Some(7) if self.name == "weekday" => Some(0),
            number => number,
        };
        number.filter(|n| (self.min..=self.max).contains(n)).ok_or_else(|| self.wrong(text))
    }

    fn are_names(&self, range: &str) -> bool {
        range.split('-').all(|part| self.names.contains(&part))
    }

    fn wrong(&self, text: &str) -> String {
        let Self { name, min, max, hint, .. } = self;
        let sunday = if *name == "weekday" { " (or 7, Sunday)" } else { "" };
        format!("'{text}' is no {name}: use {min}{sunday} to {max}{hint}")
    }
}

fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

//! One field of a cron, read as croniter reads it.

use std::collections::BTreeSet;

/// What a field counts.
pub(super) struct Kind {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
    hint: &'static str,
}

const fn kind(name: &'static str, min: u32, max: u32) -> Kind {
    Kind { name, min, max, names: &[], hint: "" }
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
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    hint: ", or sun to sat",
    ..kind("weekday", 0, 6)
};
pub(super) const SECOND: Kind = kind("second", 0, 59);
pub(super) const YEAR: Kind = kind("year", 1970, 2099);

/// What a field names.
#[derive(Debug, Default)]
pub(super) struct Field {
    /// All values that it names; a star's are all that there are.
    pub(super) values: BTreeSet<u32>,
    /// Whether it leaves its values open.
    pub(super) star: bool,
    /// `L` as a day.
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
        field.star = true;
    } else {
        for part in text.split(',') {
            item(part, kind, &mut field)?;
        }
    }
    if field.nearest.is_some() && text.contains(',') {
        return Err(format!("'{text}' has W beside other days"));
    }
    if field.star {
        field.values.extend(kind.min..=kind.max);
    }
    Ok(field)
}

fn item(part: &str, kind: &Kind, field: &mut Field) -> Result<(), String> {
    if part == "*" {
        field.star = true;
        return Ok(());
    }
    if kind.name == "day" {
        if part == "l" {
            field.last = true;
            return Ok(());
        }
        if let Some(digits) = part.strip_suffix('w').or_else(|| part.strip_prefix('w')) {
            let day = kind.value(digits)?;
            field.nearest = Some(day);
            field.values.insert(day);
            return Ok(());
        }
    }
    if kind.name == "weekday" {
        if let Some((days, nth)) = part.split_once('#') {
            let nth = nth.parse().ok().filter(|nth| (1..=5).contains(nth));
            let nth = nth.ok_or_else(|| format!("'{part}' counts no weekday of a month: use #1 to #5"))?;
            // Ranges are for names only.
            let plain = !days.contains(['/', '*']) && (!days.contains('-') || kind.are_names(days));
            let days = if plain { kind.range(days)? } else { return Err(kind.wrong(part)) };
            field.values.extend(&days);
            field.nth.extend(days.iter().map(|day| (*day, nth)));
            return Ok(());
        }
        if let Some(digits) = part.strip_prefix('l').filter(|rest| !rest.is_empty()) {
            let day = kind.value(digits)?;
            field.values.insert(day);
            field.nth.insert((day, 0));
            return Ok(());
        }
    }
    field.values.extend(kind.range(part)?);
    Ok(())
}

impl Kind {
    /// A value, a range, or either with a step.
    fn range(&self, part: &str) -> Result<Vec<u32>, String> {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => {
                let number = digits(step).filter(|step| *step > 0);
                (range, Some(number.ok_or_else(|| format!("'{part}' has no valid step"))?))
            }
        };
        let stride = step.unwrap_or(1) as usize;
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
            None => return Ok(vec![self.value(range)?]),
        };
        if low <= high {
            return Ok((low..=high).step_by(stride).collect());
        }
        let mut found: Vec<u32> = (low..=self.max).step_by(stride).collect();
        let left = self.max - found.last().copied().unwrap_or(low);
        let stride = stride as u32;
        // How croniter goes on from the start of the cycle.
        let skipped = if left + 1 < stride { stride - left } else { 0 };
        found.extend((self.min + skipped..=high).step_by(stride as usize));
        Ok(found)
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

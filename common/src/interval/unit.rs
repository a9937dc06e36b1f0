//! The granularity of intervals.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The granularity in which a model's intervals are counted; from fine to coarse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntervalUnit {
    /// Five minutes.
    FiveMinute,
    /// Fifteen minutes.
    QuarterHour,
    /// Thirty minutes.
    HalfHour,
    /// An hour.
    Hour,
    /// A UTC day.
    Day,
    /// A calendar month.
    Month,
    /// A calendar year.
    Year,
}

impl IntervalUnit {
    /// All units, from fine to coarse.
    pub const ALL: [Self; 7] =
        [Self::FiveMinute, Self::QuarterHour, Self::HalfHour, Self::Hour, Self::Day, Self::Month, Self::Year];

    /// The name as SQLMesh writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FiveMinute => "five_minute",
            Self::QuarterHour => "quarter_hour",
            Self::HalfHour => "half_hour",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}

impl fmt::Display for IntervalUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for IntervalUnit {
    type Err = crate::id::InvalidId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.to_ascii_lowercase();
        Self::ALL.into_iter().find(|unit| unit.name() == name).ok_or(crate::id::InvalidId {
            what: "interval unit",
            text: text.to_owned(),
            why: "use year, month, day, hour, half_hour, quarter_hour or five_minute",
        })
    }
}

//! What became of tests, for people.

use std::fmt::Write as _;

use super::compare::Table;
use super::{Mismatch, Part, UnitTest};
use crate::diagnostic::{Diagnostic, Location};

/// What became of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All was as expected.
    Passed,
    /// Something else came out.
    Failed(Vec<Mismatch>),
    /// The test or its model has a mistake, or the warehouse refused a statement.
    Broken(Vec<Diagnostic>),
    /// It can't be run here, and why.
    Skipped(String),
}

/// One test with what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The test's name.
    pub name: String,
    /// Where it begins.
    pub at: Location,
    /// What it is about.
    pub description: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
}

impl Verdict {
    /// What became of a test.
    pub fn new(test: &UnitTest, outcome: Outcome) -> Self {
        Self { name: test.name.clone(), at: test.at.clone(), description: test.description.clone(), outcome }
    }

    /// Whether it failed or couldn't be run for a mistake.
    pub fn is_bad(&self) -> bool {
        match self.outcome {
            Outcome::Failed(_) | Outcome::Broken(_) => true,
            Outcome::Passed | Outcome::Skipped(_) => false,
        }
    }

    /// What is wrong, as findings at their places.
    pub fn findings(&self) -> Vec<Diagnostic> {
        let finding = |mismatch: &Mismatch| {
            let message =
                format!("unit test `{}` failed{}: {}", self.name, of(&mismatch.part), mismatch.message);
            Diagnostic::error("unit-test-failed", mismatch.at.clone(), message)
                .hint("mend the model, or the test if it is the one that is wrong")
        };
        match &self.outcome {
            Outcome::Failed(mismatches) => mismatches.iter().map(finding).collect(),
            Outcome::Broken(findings) => findings.clone(),
            Outcome::Passed | Outcome::Skipped(_) => Vec::new(),
        }
    }
}

/// What became of all tests that were meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Each with what became of it, in their order.
    pub verdicts: Vec<Verdict>,
}

impl Report {
    /// Whether none failed.
    pub fn is_good(&self) -> bool {
        !self.verdicts.iter().any(Verdict::is_bad)
    }

    /// What is wrong, as findings at their places.
    pub fn findings(&self) -> Vec<Diagnostic> {
        self.verdicts.iter().flat_map(Verdict::findings).collect()
    }

    /// The failures in full, with the rows that differ; empty where there are none.
    pub fn failures(&self) -> String {
        let mut out = String::new();
        for verdict in self.verdicts.iter().filter(|verdict| verdict.is_bad()) {
            failure(&mut out, verdict);
        }
        out
    }

    /// Each test in a line, as `--verbose` shows them.
    pub fn lines(&self) -> String {
        let mut out = String::new();
        for verdict in &self.verdicts {
            let word = match &verdict.outcome {
                Outcome::Passed => "ok",
                Outcome::Failed(_) => "FAIL",
                Outcome::Broken(_) => "ERROR",
                Outcome::Skipped(_) => "skipped",
            };
            let _ = write!(out, "{}::{} ... {word}", verdict.at.path, verdict.name);
            if let Outcome::Skipped(why) = &verdict.outcome {
                let _ = write!(out, ": {why}");
            }
            out.push('\n');
        }
        out
    }

    /// One line that sums up.
    pub fn summary(&self) -> String {
        let bad = self.verdicts.iter().filter(|verdict| verdict.is_bad()).count();
        let skipped =
            self.verdicts.iter().filter(|verdict| matches!(verdict.outcome, Outcome::Skipped(_))).count();
        let ran = self.verdicts.len() - skipped;
        let plural = if ran == 1 { "" } else { "s" };
        let mut text = match bad {
            0 => format!("{ran} unit test{plural} passed"),
            bad => format!("{bad} of {ran} unit test{plural} failed"),
        };
        if skipped > 0 {
            let _ = write!(text, ", {skipped} skipped");
        }
        text
    }

    /// Why tests were skipped, each reason once.
    pub fn reasons(&self) -> Vec<&str> {
        let mut reasons: Vec<&str> = Vec::new();
        for verdict in &self.verdicts {
            if let Outcome::Skipped(why) = &verdict.outcome
                && !reasons.contains(&why.as_str())
            {
                reasons.push(why);
            }
        }
        reasons
    }
}

fn of(part: &Part) -> String {
    match part {
        Part::Query => String::new(),
        Part::Cte(name) => format!(" (CTE {name})"),
    }
}

fn failure(out: &mut String, verdict: &Verdict) {
    let word = if matches!(verdict.outcome, Outcome::Failed(_)) { "FAIL" } else { "ERROR" };
    let _ = writeln!(out, "{word}: {} ({})", verdict.name, verdict.at);
    if let Some(description) = &verdict.description {
        let _ = writeln!(out, "{}", description.trim());
    }
    match &verdict.outcome {
        Outcome::Failed(mismatches) => {
            for mismatch in mismatches {
                let _ = writeln!(out, "\n{}: {}{}", mismatch.at, mismatch.message, of(&mismatch.part));
                for table in &mismatch.tables {
                    grid(out, table);
                }
            }
        }
        Outcome::Broken(findings) => {
            for finding in findings {
                let _ = writeln!(out, "\n{finding}");
            }
        }
        Outcome::Passed | Outcome::Skipped(_) => {}
    }
    out.push('\n');
}

/// How many rows of a table are shown.
const SHOWN: usize = 50;

fn grid(out: &mut String, table: &Table) {
    let _ = writeln!(out, "  {}:", table.title);
    let shown = table.rows.iter().take(SHOWN);
    let mut widths: Vec<usize> = table.columns.iter().map(|column| column.chars().count()).collect();
    for row in shown.clone() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in std::iter::once(&table.columns).chain(shown) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(out, "    {}", line.trim_end());
    }
    if table.rows.len() > SHOWN {
        let _ = writeln!(out, "    … and {} more", table.rows.len() - SHOWN);
    }
}

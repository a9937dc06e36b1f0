//! Progress while a plan runs: a bar with rate and time left on a terminal, plain lines otherwise.

use std::collections::BTreeSet;
use std::io::IsTerminal;

use coordinator::control::PlanView;
use indicatif::{ProgressBar, ProgressStyle};

use super::{count, error_line};
use crate::args::Format;

/// Shows how far a plan is.
pub(crate) enum Progress {
    /// On a terminal.
    Bar(ProgressBar),
    /// One line for each model that is done.
    Lines(BTreeSet<String>),
    /// Nothing: programs read the document.
    Silent,
}

impl Progress {
    pub(crate) fn new(format: Format) -> Self {
        if format != Format::Text {
            return Self::Silent;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines(BTreeSet::new());
        }
        let bar = ProgressBar::new(0);
        let template = "{wide_bar} {pos}/{len} batches  {per_sec}  {eta} left  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self::Bar(bar)
    }

    /// Takes in what a watch told.
    pub(crate) fn see(&mut self, view: &PlanView) {
        match self {
            Self::Bar(bar) => {
                bar.set_length(view.total);
                bar.set_position(view.done);
                let running =
                    view.models.iter().filter(|model| model.in_flight > 0).map(|model| model.model.as_str());
                let names: Vec<&str> = running.take(3).collect();
                bar.set_message(if names.is_empty() { view.state.clone() } else { names.join(", ") });
            }
            Self::Lines(told) => {
                for model in view.models.iter().filter(|model| model.done == model.total && model.total > 0) {
                    if told.insert(model.model.clone()) {
                        error_line(&format!(
                            "[{}/{}] {}: {} done",
                            told.len(),
                            view.models.len(),
                            model.model,
                            count(usize::try_from(model.total).unwrap_or(usize::MAX), "batch")
                        ));
                    }
                }
            }
            Self::Silent => {}
        }
    }

    /// The plan has ended.
    pub(crate) fn done(&mut self, view: &PlanView) {
        self.see(view);
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

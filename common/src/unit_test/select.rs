//! Which tests are meant: files, `file::test`, files of models, patterns, models.

use std::collections::{BTreeMap, BTreeSet};

use super::UnitTest;
use crate::id::ModelName;
use crate::project::glob;

/// Which tests are meant; what is empty or absent leaves all.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Paths of test files, `path::test`, or paths of models' files; relative to the project.
    pub tests: Vec<String>,
    /// Parts of `path::test`, or patterns of it with `*`: one must match.
    pub patterns: Vec<String>,
    /// Models whose tests are meant.
    pub models: Option<BTreeSet<ModelName>>,
}

/// What was named is neither a test, nor a file of tests, nor a model's file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no test `{0}`")]
pub struct UnknownTest(pub String);

impl Selection {
    /// The tests that are meant, each once, in their order. `models` are the models by their
    /// files.
    ///
    /// # Errors
    /// The first name that means nothing.
    pub fn of<'t>(
        &self,
        tests: &'t [UnitTest],
        models: &BTreeMap<String, Vec<ModelName>>,
    ) -> Result<Vec<&'t UnitTest>, UnknownTest> {
        let mut chosen = vec![self.tests.is_empty(); tests.len()];
        for name in &self.tests {
            let (file, test) = name.split_once("::").map_or((name.as_str(), None), |(f, t)| (f, Some(t)));
            let tested = models.get(file).filter(|_| test.is_none());
            let mut found = tested.is_some();
            for (chosen, candidate) in chosen.iter_mut().zip(tests) {
                let named = *candidate.at.path == *file && test.is_none_or(|test| candidate.name == test);
                let of_model = tested.is_some_and(|models| models.contains(&candidate.model));
                found |= named;
                *chosen |= named || of_model;
            }
            if !found {
                return Err(UnknownTest(name.clone()));
            }
        }
        let chosen = tests.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(test, _)| test);
        let fits = |test: &&UnitTest| self.fits_pattern(test) && self.fits_model(test);
        Ok(chosen.filter(fits).collect())
    }

    fn fits_pattern(&self, test: &UnitTest) -> bool {
        let name = test.full_name();
        let rooted = format!("/{name}");
        let glob = |pattern: &str| glob::text_matches(pattern, &name) || glob::text_matches(pattern, &rooted);
        let matches =
            |pattern: &String| name.contains(pattern.as_str()) || (pattern.contains('*') && glob(pattern));
        self.patterns.is_empty() || self.patterns.iter().any(matches)
    }

    fn fits_model(&self, test: &UnitTest) -> bool {
        self.models.as_ref().is_none_or(|models| models.contains(&test.model))
    }
}

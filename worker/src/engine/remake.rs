//! Views that can't be changed in place are made again: what showed them is made again too, and
//! all of them keep their owner, grants, comments and options. All within the caller's transaction.

use super::error::EngineError;
use super::migrate::{Dependent, dependents, made_again};
use super::profile::Profile;
use super::session::Session;
use super::statements::literal;
use super::{Relation, RelationKind};

/// What a view has beside its query, as a statement that gives it back.
#[derive(Debug)]
struct Keepsake {
    view: Relation,
    /// The column that it belongs to: without it there is nothing to give back.
    column: Option<String>,
    statement: String,
}

/// What views have beside their queries.
#[derive(Debug, Default)]
pub(crate) struct Keepsakes(Vec<Keepsake>);

impl Keepsakes {
    /// What the views have now; those that aren't there have nothing.
    pub(crate) async fn of(
        session: &mut dyn Session,
        profile: &Profile,
        views: &[&Relation],
    ) -> Result<Self, EngineError> {
        let Some(question) = profile.keepsakes.filter(|_| !views.is_empty()) else {
            return Ok(Self::default());
        };
        let ask = |view: &&Relation| question.replace("{relation}", &literal(&profile.relation(view)));
        let answers = session.run(&views.iter().map(ask).collect::<Vec<_>>()).await?;
        let mut kept = Vec::new();
        for (view, answer) in views.iter().zip(answers) {
            for row in answer.rows.rows {
                let mut cells = row.into_iter();
                let (column, statement) = (cells.next().flatten(), cells.next().flatten());
                kept.extend(statement.map(|statement| Keepsake { view: (*view).clone(), column, statement }));
            }
        }
        Ok(Self(kept))
    }

    /// The same without the comments on views themselves; those on columns stay.
    pub(crate) fn without_comment(mut self) -> Self {
        self.0.retain(|kept| kept.column.is_some() || !kept.statement.starts_with("COMMENT "));
        self
    }

    /// Gives it back, but for what belonged to columns that have gone.
    pub(crate) async fn give_back(
        self,
        session: &mut dyn Session,
        profile: &Profile,
    ) -> Result<(), EngineError> {
        let mut go = Vec::new();
        for Keepsake { view, column, statement } in self.0 {
            let Some(column) = column else {
                go.push(statement);
                continue;
            };
            let there = format!(
                "SELECT COUNT(*) FROM pg_catalog.pg_attribute WHERE attrelid = {}::regclass \
                 AND attname = {} AND NOT attisdropped",
                literal(&profile.relation(&view)),
                literal(&column)
            );
            if session.run(&[there]).await?.first().and_then(|answer| answer.cell()) == Some("1") {
                go.push(statement);
            }
        }
        if !go.is_empty() {
            session.run(&go).await?;
        }
        Ok(())
    }
}

/// A view that was taken out of the way, to be made again.
#[derive(Debug)]
pub(crate) struct Taken {
    view: Relation,
    dependents: Vec<Dependent>,
    kept: Keepsakes,
}

impl Taken {
    /// Drops a view, and before it the views that show it.
    ///
    /// # Errors
    /// Something else depends on it; or a materialized view does, which would be computed again.
    pub(crate) async fn away(
        session: &mut dyn Session,
        profile: &Profile,
        view: &Relation,
        kind: RelationKind,
    ) -> Result<Self, EngineError> {
        let dependents = match profile.dependents {
            Some(question) => dependents(session, profile, question, view).await?,
            None => Vec::new(),
        };
        if let Some(blocker) = dependents.iter().find(|dependent| dependent.materialized) {
            let text = format!("the materialized view `{}` shows `{view}`", blocker.view);
            return Err(EngineError::permanent(text)
                .code("2BP01")
                .hint("drop it, and make it again afterwards"));
        }
        let mut views: Vec<&Relation> = vec![view];
        views.extend(dependents.iter().map(|dependent| &dependent.view));
        let kept = Keepsakes::of(session, profile, &views).await?;
        let mut go: Vec<String> = dependents
            .iter()
            .rev()
            .map(|dependent| format!("DROP VIEW {}", profile.relation(&dependent.view)))
            .collect();
        go.push(format!("DROP {} {}", profile.word(kind), profile.relation(view)));
        session.run(&go).await?;
        Ok(Self { view: view.clone(), dependents, kept })
    }

    /// The view is there again: so is what showed it, and what all of them had.
    ///
    /// # Errors
    /// A view showed what has gone.
    pub(crate) async fn back(self, session: &mut dyn Session, profile: &Profile) -> Result<(), EngineError> {
        for dependent in &self.dependents {
            let create = made_again(profile, &self.view, dependent);
            session.run(&[create]).await.map_err(|mut error| {
                error.message = format!("`{}` shows `{}`: {}", dependent.view, self.view, error.message);
                error.hint = Some("change or drop that view first".to_owned());
                error
            })?;
        }
        self.kept.give_back(session, profile).await
    }
}

//! Pointing an environment's views elsewhere, all at once and never back.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::batch::TransactionalEngine;
use super::error::EngineError;
use super::fence::Ledger;
use super::profile::Profile;
use super::remake::Taken;
use super::session::{Session, cancellable};
use super::statements::{count_schemas, create_schema, literal};
use super::tries::Tries;
use super::{Relation, RelationKind, Switched, ViewChange, ViewSwitch};

/// How often a switch is tried against others that create or change the same things.
const TRIES: u32 = 5;
/// The pause after the first try.
const PAUSE: Duration = Duration::from_millis(20);

/// The part of a switch that one transaction can cover.
#[derive(Default)]
struct Part<'a> {
    views: Vec<&'a ViewChange>,
    drop: Vec<&'a Relation>,
    drop_schemas: Vec<&'a str>,
}

pub(crate) async fn switch(
    engine: &TransactionalEngine,
    switch: &ViewSwitch,
    cancel: &CancellationToken,
) -> Result<Switched, EngineError> {
    let profile = engine.pool.profile();
    for change in &switch.views {
        profile.check_names(&change.view)?;
    }
    let mut result = Switched::Done;
    for (catalog, part) in parts(profile, switch) {
        if switch_part(engine, switch, catalog, &part, cancel).await? == Switched::Superseded {
            result = Switched::Superseded;
        }
    }
    Ok(result)
}

/// Splits by catalog where a transaction covers only one.
fn parts<'a>(profile: &Profile, switch: &'a ViewSwitch) -> BTreeMap<Option<&'a str>, Part<'a>> {
    let key = |catalog: &'a Option<String>| catalog.as_deref().filter(|_| profile.transaction_per_catalog);
    let mut parts: BTreeMap<Option<&str>, Part<'_>> = BTreeMap::new();
    for change in &switch.views {
        parts.entry(key(&change.view.catalog)).or_default().views.push(change);
    }
    for relation in &switch.drop {
        parts.entry(key(&relation.catalog)).or_default().drop.push(relation);
    }
    for (catalog, schema) in &switch.drop_schemas {
        parts.entry(key(catalog)).or_default().drop_schemas.push(schema);
    }
    if parts.is_empty() {
        parts.insert(None, Part::default());
    }
    parts
}

async fn switch_part(
    engine: &TransactionalEngine,
    switch: &ViewSwitch,
    catalog: Option<&str>,
    part: &Part<'_>,
    cancel: &CancellationToken,
) -> Result<Switched, EngineError> {
    let mut tries = Tries::upto(TRIES, PAUSE);
    loop {
        let mut session = engine.pool.get_unless(cancel).await?;
        let canceller = session.canceller();
        let result = cancellable(cancel, &*canceller, async {
            let session = &mut *session;
            let ledger = engine.ledger(session, catalog).await?;
            let mut work = Switch { profile: engine.pool.profile(), session, ledger, switch, catalog, part };
            work.run(cancel).await
        })
        .await;
        let own_statements = part.views.iter().any(|change| !change.on_virtual_update.is_empty());
        session.give_back_if(result.is_ok() && !own_statements && !cancel.is_cancelled());
        match result {
            Err(error) => tries.again_anew(error).await?,
            Ok(switched) => return Ok(switched),
        }
    }
}

struct Switch<'a> {
    profile: &'a Profile,
    session: &'a mut dyn Session,
    ledger: Ledger,
    switch: &'a ViewSwitch,
    catalog: Option<&'a str>,
    part: &'a Part<'a>,
}

impl Switch<'_> {
    async fn run(&mut self, cancel: &CancellationToken) -> Result<Switched, EngineError> {
        let environment = literal(&self.switch.environment);
        let table = self.ledger.environment.clone();
        let row = format!("INSERT INTO {table} (env, seq) VALUES ({environment}, -1) ON CONFLICT DO NOTHING");
        self.session.run(&[row]).await?;
        let result = self.transaction(&environment, &table).await;
        let result = match result {
            Ok(Some(_)) | Err(_) => result,
            Ok(None) if cancel.is_cancelled() => Err(EngineError::cancelled()),
            Ok(None) => self.session.run(&["COMMIT".to_owned()]).await.map(|_| None),
        };
        if !matches!(result, Ok(None)) {
            let _ = self.session.run(&["ROLLBACK".to_owned()]).await;
        }
        result.map(|early| early.unwrap_or(Switched::Done))
    }

    /// Everything before COMMIT; an answer where nothing is left to do.
    async fn transaction(&mut self, environment: &str, table: &str) -> Result<Option<Switched>, EngineError> {
        let seq = self.switch.seq;
        let advance = format!("UPDATE {table} SET seq = {seq} WHERE env = {environment} AND seq < {seq}");
        let read = format!("SELECT seq FROM {table} WHERE env = {environment}");
        let answers = self.session.run(&["BEGIN".to_owned(), advance, read]).await?;
        if answers[1].changed != 1 {
            let held: u64 = answers[2].cell().and_then(|cell| cell.parse().ok()).unwrap_or_default();
            return Ok(Some(if held == seq { Switched::Done } else { Switched::Superseded }));
        }
        self.create_schemas().await?;
        self.point_views().await?;
        for relation in &self.part.drop {
            self.drop_view(relation).await?;
        }
        for schema in &self.part.drop_schemas {
            self.drop_schema(schema).await?;
        }
        Ok(None)
    }

    /// Makes missing schemas only: making one that exists can ask for more rights than there are.
    async fn create_schemas(&mut self) -> Result<(), EngineError> {
        let mut schemas: BTreeMap<&str, &Relation> = BTreeMap::new();
        for change in &self.part.views {
            schemas.entry(&change.view.schema).or_insert(&change.view);
        }
        for (schema, relation) in schemas {
            if !self.schema_exists(schema).await? {
                self.session.run(&[create_schema(self.profile, relation)]).await?;
            }
        }
        Ok(())
    }

    async fn schema_exists(&mut self, schema: &str) -> Result<bool, EngineError> {
        let answers = self.session.run(&[count_schemas(self.profile, self.catalog, schema)]).await?;
        Ok(answers[0].cell() != Some("0"))
    }

    async fn point_views(&mut self) -> Result<(), EngineError> {
        // Without the users' own statements, all views are one round trip; if a view's columns
        // can't be changed in place, one by one.
        let plain = self.part.views.iter().all(|change| change.on_virtual_update.is_empty());
        if plain && self.profile.savepoints && !self.part.views.is_empty() {
            let all: Vec<String> = self.part.views.iter().map(|change| self.create(change)).collect();
            let mut go = vec!["SAVEPOINT views".to_owned()];
            go.extend(all);
            match self.session.run(&go).await {
                Err(error) if error.view_columns_differ() => {
                    self.session.run(&["ROLLBACK TO SAVEPOINT views".to_owned()]).await?;
                }
                result => return result.map(|_| ()),
            }
        }
        for change in &self.part.views {
            self.point_view(change).await?;
            for statement in &change.on_virtual_update {
                self.session.run(std::slice::from_ref(statement)).await?;
            }
        }
        Ok(())
    }

    async fn point_view(&mut self, change: &ViewChange) -> Result<(), EngineError> {
        let create = self.create(change);
        if !self.profile.savepoints {
            return self
                .session
                .run(&[create])
                .await
                .map(|_| ())
                .map_err(|error| explain(error, &change.view));
        }
        match self.session.run(&["SAVEPOINT view".to_owned(), create.clone()]).await {
            Err(error) if error.view_columns_differ() => self.make_again(&change.view, create).await,
            result => result.map(|_| ()),
        }
        .map_err(|error| explain(error, &change.view))
    }

    /// Makes a view again whose columns can't be changed in place.
    async fn make_again(&mut self, view: &Relation, create: String) -> Result<(), EngineError> {
        self.session.run(&["ROLLBACK TO SAVEPOINT view".to_owned()]).await?;
        let taken = Taken::away(self.session, self.profile, view, RelationKind::View).await?;
        self.session.run(&[create]).await?;
        taken.back(self.session, self.profile).await
    }

    fn create(&self, change: &ViewChange) -> String {
        let [view, target] = [&change.view, &change.target].map(|relation| self.profile.relation(relation));
        format!("CREATE OR REPLACE VIEW {view} AS SELECT * FROM {target}")
    }

    async fn drop_view(&mut self, view: &Relation) -> Result<(), EngineError> {
        if !self.schema_exists(&view.schema).await? {
            return Ok(());
        }
        let drop = format!("DROP VIEW IF EXISTS {}", self.profile.relation(view));
        self.session.run(&[drop]).await.map(|_| ()).map_err(|error| explain(error, view))
    }

    /// Drops a schema unless something is left in it that isn't ours.
    async fn drop_schema(&mut self, schema: &str) -> Result<(), EngineError> {
        let catalog = self.catalog.map_or_else(|| "current_database()".to_owned(), literal);
        let left = format!(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_catalog = {catalog} AND table_schema = {}",
            literal(schema)
        );
        if self.session.run(&[left]).await?[0].cell() == Some("0") {
            let drop = format!("DROP SCHEMA IF EXISTS {}", self.profile.schema(self.catalog, schema));
            self.session.run(&[drop]).await?;
        }
        Ok(())
    }
}

/// Says which view it was, and what to do where others depend on it.
fn explain(mut error: EngineError, view: &Relation) -> EngineError {
    error.message = format!("failed to change the view `{}.{}`: {}", view.schema, view.table, error.message);
    if error.code.as_deref() == Some("2BP01") && error.hint.is_none() {
        error.hint = Some("drop what depends on the view, or point it at something else".to_owned());
    }
    error
}

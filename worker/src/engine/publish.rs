//! Tables that are computed aside, and how they take the place of what readers see: all at once.
//!
//! Invariant: a publication's rows, its drops and its fence checks are one transaction for each
//! catalog; readers see all of it or nothing.
//! (`conformance::what_was_computed_aside_appears_at_once`)

use std::collections::BTreeMap;
use std::time::Duration;

use coord_common::project::model::ColumnDef;
use tokio_util::sync::CancellationToken;

use super::batch::TransactionalEngine;
use super::error::EngineError;
use super::fence::{Ledger, end_sessions};
use super::profile::Profile;
use super::session::{Session, cancellable};
use super::statements::cast_bound;
use super::tries::Tries;
use super::{Beside, Bound, Engine, Fence, Kept, Outcome, Publication, Published, Relation, RelationKind};

/// How often a publication is tried against others that change the same things.
const TRIES: u32 = 8;
/// The pause after the first try.
const PAUSE: Duration = Duration::from_millis(20);

/// What makes a table aside.
pub(crate) struct Made {
    pub(crate) statements: Vec<String>,
    /// Its columns.
    pub(crate) columns: Vec<ColumnDef>,
}

/// The statements that make a table aside, with the view of it and of the rows that stay.
pub(crate) async fn create_aside(
    engine: &TransactionalEngine,
    session: &mut dyn Session,
    relation: &Relation,
    beside: &Beside,
) -> Result<Made, EngineError> {
    let profile = engine.pool.profile();
    let published = profile.relation(&beside.published);
    let columns = columns(engine, session, &beside.published).await?;
    let names = profile.list(columns.iter().map(|column| column.name.as_str()));
    let aside = profile.relation(relation);
    let mut statements = vec![format!("CREATE TABLE {aside} AS SELECT {names} FROM {published} LIMIT 0")];
    match &beside.kept {
        Kept::Nothing => {}
        Kept::Copy => {
            statements.push(format!("INSERT INTO {aside} ({names}) SELECT {names} FROM {published}"));
        }
        Kept::Outside { column, ranges, merged } => {
            let within = within(profile, &columns, column, ranges)?;
            statements.push(format!(
                "CREATE VIEW {} AS SELECT {names} FROM {published} WHERE NOT ({within}) \
                 UNION ALL SELECT {names} FROM {aside}",
                profile.relation(merged)
            ));
        }
    }
    Ok(Made { statements, columns })
}

async fn columns(
    engine: &TransactionalEngine,
    session: &mut dyn Session,
    relation: &Relation,
) -> Result<Vec<ColumnDef>, EngineError> {
    engine.describe_relation(session, relation).await?.ok_or_else(|| {
        EngineError::permanent(format!("`{}.{}` does not exist", relation.schema, relation.table))
            .code("42P01")
            .hint("somebody has dropped it; plan again")
    })
}

/// The condition that a row's time is in one of some ranges.
fn within(
    profile: &Profile,
    columns: &[ColumnDef],
    column: &str,
    ranges: &[[Bound; 2]],
) -> Result<String, EngineError> {
    let found = columns.iter().find(|candidate| candidate.name.eq_ignore_ascii_case(column));
    let Some(found) = found else {
        return Err(EngineError::permanent(format!("the table has no time column `{column}`")).code("42703"));
    };
    let name = profile.quote(&found.name);
    let range = |[low, high]: &[Bound; 2]| {
        let [low, high] = [low, high].map(|bound| cast_bound(bound.of(&found.data_type), &found.data_type));
        format!("{name} BETWEEN {low} AND {high}")
    };
    Ok(ranges.iter().map(range).collect::<Vec<_>>().join(" OR "))
}

pub(crate) async fn publish(
    engine: &TransactionalEngine,
    publication: &Publication,
    cancel: &CancellationToken,
) -> Result<Outcome, EngineError> {
    let per_catalog = engine.pool.profile().transaction_per_catalog;
    let mut parts: BTreeMap<Option<&str>, Vec<&Published>> = BTreeMap::new();
    for table in &publication.tables {
        let catalog = table.relation.catalog.as_deref().filter(|_| per_catalog);
        parts.entry(catalog).or_default().push(table);
    }
    let mut outcome = Outcome::AlreadyDone;
    for (catalog, tables) in &parts {
        if publish_part(engine, publication, *catalog, tables, cancel).await? == Outcome::Written {
            outcome = Outcome::Written;
        }
        for table in tables {
            engine.columns.forget(&table.relation);
            // The tables are gone: nobody may write to them any more, and their fences are of no use.
            let pruned = engine.prune(*catalog, &table.aside, publication.token).await;
            if publication.discard {
                pruned?;
            }
        }
    }
    Ok(outcome)
}

async fn publish_part(
    engine: &TransactionalEngine,
    publication: &Publication,
    catalog: Option<&str>,
    tables: &[&Published],
    cancel: &CancellationToken,
) -> Result<Outcome, EngineError> {
    let mut tries = Tries::upto(TRIES, PAUSE);
    loop {
        let mut session = engine.pool.get_unless(cancel).await?;
        let canceller = session.canceller();
        let result = cancellable(cancel, &*canceller, async {
            let session = &mut *session;
            let ledger = engine.ledger(session, catalog).await?;
            attempt(engine, session, &ledger, publication, tables, cancel).await
        })
        .await;
        session.give_back_if(result.is_ok() && !cancel.is_cancelled());
        match result {
            Err(error) => tries.again_anew(error).await?,
            Ok(outcome) => return Ok(outcome),
        }
    }
}

async fn attempt(
    engine: &TransactionalEngine,
    session: &mut dyn Session,
    ledger: &Ledger,
    publication: &Publication,
    tables: &[&Published],
    cancel: &CancellationToken,
) -> Result<Outcome, EngineError> {
    let fences = fences(publication, tables);
    for (n, fence) in fences.iter().enumerate() {
        let overtaken = ledger.overtaken(session, fence).await?;
        let raised = engine.raise(session, ledger, fence, false).await?;
        if n == 0 && raised.done != 0 {
            return Ok(Outcome::AlreadyDone);
        }
        if let Some(end) = end_sessions(engine.pool.profile(), &overtaken) {
            // Best effort: without the right to, their locks last as long as they do.
            let _ = session.run(&[end]).await;
        }
    }
    let result = transaction(engine, session, publication, tables).await;
    let result = match result {
        Ok(_) if cancel.is_cancelled() => Err(EngineError::cancelled()),
        Ok(rows) => ledger.commit_all(session, &fences, rows).await,
        Err(error) => Err(error),
    };
    if result.is_err() {
        // Where it fails, the warehouse has rolled back already or the connection is gone.
        let _ = session.run(&["ROLLBACK".to_owned()]).await;
    }
    result.map(|()| Outcome::Written)
}

/// The publication's own fence, and one for each table: of two publications of a table, the one that
/// began later holds.
fn fences(publication: &Publication, tables: &[&Published]) -> Vec<Fence> {
    let fence = |slot: String, table: &str, supersedes: &[String]| Fence {
        slot,
        token: publication.token,
        plan: publication.plan.clone(),
        table: table.to_owned(),
        supersedes: supersedes.to_vec(),
    };
    let own = fence(publication.slot.clone(), &publication.slot, &[]);
    let of_table =
        |table: &&Published| fence(format!("{}:publish", table.table), &table.table, &table.supersedes);
    let others = tables.iter().filter(|_| !publication.discard).map(of_table);
    [own].into_iter().chain(others).collect()
}

/// Everything before the fence checks; how many rows were put in place.
async fn transaction(
    engine: &TransactionalEngine,
    session: &mut dyn Session,
    publication: &Publication,
    tables: &[&Published],
) -> Result<u64, EngineError> {
    let profile = engine.pool.profile();
    let mut go = vec!["BEGIN".to_owned()];
    let mut rows = 0;
    if !publication.discard {
        go.extend(locks(profile, tables));
        session.run(&go).await?;
        go.clear();
        for table in tables {
            rows += put_in_place(engine, session, table).await?;
        }
    }
    go.extend(drops(profile, tables));
    session.run(&go).await?;
    Ok(rows)
}

/// In one order for all, so that no two publications wait for each other.
fn locks(profile: &Profile, tables: &[&Published]) -> Vec<String> {
    let Some(lock) = profile.lock_writers else { return Vec::new() };
    let written = tables.iter().filter(|table| table.kind == RelationKind::Table);
    let mut names: Vec<String> = written.map(|table| profile.relation(&table.beside.published)).collect();
    names.sort();
    names.iter().map(|name| lock.replace("{table}", name)).collect()
}

async fn put_in_place(
    engine: &TransactionalEngine,
    session: &mut dyn Session,
    table: &Published,
) -> Result<u64, EngineError> {
    let profile = engine.pool.profile();
    let target = profile.relation(&table.beside.published);
    match table.kind {
        // It shows what lies below it.
        RelationKind::View => return Ok(0),
        RelationKind::MaterializedView if !profile.materialized_views => return Ok(0),
        RelationKind::MaterializedView => {
            session.run(&[format!("REFRESH MATERIALIZED VIEW {target}")]).await?;
            return Ok(0);
        }
        RelationKind::Table => {}
    }
    let columns = columns(engine, session, &table.beside.published).await?;
    let names = profile.list(columns.iter().map(|column| column.name.as_str()));
    let delete = match &table.beside.kept {
        Kept::Nothing | Kept::Copy => format!("DELETE FROM {target}"),
        Kept::Outside { column, ranges, .. } => {
            format!("DELETE FROM {target} WHERE {}", within(profile, &columns, column, ranges)?)
        }
    };
    let aside = profile.relation(&table.relation);
    let insert = format!("INSERT INTO {target} ({names}) SELECT {names} FROM {aside}");
    let answers = session.run(&[delete, insert]).await?;
    Ok(answers.get(1).map_or(0, |answer| answer.changed))
}

/// Views before what they read.
fn drops(profile: &Profile, tables: &[&Published]) -> Vec<String> {
    let drop =
        |what: &str, relation: &Relation| format!("DROP {what} IF EXISTS {}", profile.relation(relation));
    let is_table = |table: &&&Published| table.kind == RelationKind::Table;
    let views =
        tables.iter().rev().filter(|table| !is_table(table)).map(|table| drop("VIEW", &table.relation));
    let merged = tables.iter().filter_map(|table| match &table.beside.kept {
        Kept::Outside { merged, .. } => Some(drop("VIEW", merged)),
        Kept::Nothing | Kept::Copy => None,
    });
    let asides = tables.iter().filter(is_table).map(|table| drop("TABLE", &table.relation));
    views.chain(merged).chain(asides).collect()
}

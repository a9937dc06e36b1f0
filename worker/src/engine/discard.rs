//! Dropping a table for good: never under a newer attempt's feet, and never what depends on it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Discard;
use super::batch::TransactionalEngine;
use super::error::{Class, EngineError};
use super::session::{Session, cancellable};
use super::tries::Tries;

/// How often it is tried against others that change the same things.
const TRIES: u32 = 5;
/// The pause after the first try.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) async fn discard(
    engine: &TransactionalEngine,
    discard: &Discard,
    cancel: &CancellationToken,
) -> Result<(), EngineError> {
    let mut tries = Tries::upto(TRIES, PAUSE);
    // A schema that is missing makes some warehouses refuse even DROP … IF EXISTS.
    let mut exists = true;
    loop {
        let mut session = engine.pool.get_unless(cancel).await?;
        let canceller = session.canceller();
        let result =
            cancellable(cancel, &*canceller, transaction(engine, &mut *session, discard, exists)).await;
        session.give_back_if(result.is_ok() && !cancel.is_cancelled());
        match result {
            Err(error) if exists && error.missing_relation() => exists = false,
            Err(error) => tries.again_anew(error).await.map_err(|error| explain(error, discard))?,
            Ok(()) => return Ok(()),
        }
    }
}

/// The DROP comes first: it may wait for readers, and nobody else should wait with it.
async fn transaction(
    engine: &TransactionalEngine,
    session: &mut dyn Session,
    discard: &Discard,
    exists: bool,
) -> Result<(), EngineError> {
    let profile = engine.pool.profile();
    let ledger = engine.ledger(session, discard.relation.catalog.as_deref()).await?;
    let mut begin = vec!["BEGIN".to_owned()];
    begin.extend(profile.before_drop.map(str::to_owned));
    if exists {
        let (what, name) = (profile.word(discard.kind), profile.relation(&discard.relation));
        begin.push(format!("DROP {what} IF EXISTS {name}"));
    }
    begin.extend(ledger.lock(profile));
    begin.push(ledger.newer(&discard.table, discard.token));
    let answers = session.run(&begin).await?;
    if answers.last().and_then(|answer| answer.cell()) != Some("0") {
        session.run(&["ROLLBACK".to_owned()]).await?;
        let message = format!("`{}` is written by a newer attempt", discard.table);
        return Err(EngineError::new(Class::Stale, message));
    }
    let mut end = ledger.close(&discard.table, discard.token).to_vec();
    end.push("COMMIT".to_owned());
    session.run(&end).await.map(|_| ())
}

fn explain(mut error: EngineError, discard: &Discard) -> EngineError {
    if error.class != Class::Stale {
        error.message = format!("failed to drop `{}`: {}", discard.relation, error.message);
    }
    if error.code.as_deref() == Some("2BP01") {
        error.hint =
            Some("drop what depends on the table, or point it at a view of an environment".to_owned());
    }
    error
}

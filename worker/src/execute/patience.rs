//! An end to what takes too long.

use std::time::Duration;

use coord_common::project::BATCH_TIMEOUT;
use tokio_util::sync::CancellationToken;

use crate::engine::{Class, EngineError};

/// The code of failures of what took too long.
pub(super) const TIMED_OUT: &str = "batch-timeout";

/// Waits for work, which gets a token of its own. Once it has taken longer than `limit`, it is
/// cancelled, which stops its statement in the warehouse, and the error says so. What has committed
/// just before stays a success.
pub(super) async fn within<T>(
    limit: Option<Duration>,
    cancel: &CancellationToken,
    work: impl AsyncFnOnce(CancellationToken) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let own = cancel.child_token();
    let work = work(own.clone());
    let Some(limit) = limit else { return work.await };
    tokio::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = tokio::time::sleep(limit) => own.cancel(),
    }
    work.await.map_err(|error| if cancel.is_cancelled() { error } else { timed_out(limit, &error) })
}

/// Anything can come of a statement that is stopped; what it was stopped for counts.
fn timed_out(limit: Duration, error: &EngineError) -> EngineError {
    match error.class {
        Class::Stale | Class::Permanent | Class::AuditFailed(_) => error.clone(),
        Class::Transient | Class::Resource | Class::Cancelled => EngineError {
            class: Class::Resource,
            code: Some(TIMED_OUT.to_owned()),
            message: format!("took longer than {limit:?} and was stopped"),
            hint: Some(format!(
                "make batches smaller, or allow more: the session property `{BATCH_TIMEOUT}` of the model, \
                 or `--batch-timeout` of the worker"
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    async fn until_cancelled(cancel: CancellationToken) -> Result<(), EngineError> {
        cancel.cancelled().await;
        Err(EngineError { class: Class::Cancelled, code: None, message: String::new(), hint: None })
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_stopped_and_says_so() {
        let cancel = CancellationToken::new();
        let error = within(Some(LIMIT), &cancel, until_cancelled).await.unwrap_err();
        assert_eq!((error.class, error.code.as_deref()), (Class::Resource, Some("batch-timeout")));
        assert_eq!(error.message, "took longer than 2s and was stopped");
        assert!(!cancel.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_cancelled_by_others_did_not_take_too_long() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let error = within(Some(LIMIT), &cancel, until_cancelled).await.unwrap_err();
        assert_eq!(error.class, Class::Cancelled);
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_in_time_or_commits_just_before_it_is_stopped_stays_a_success() {
        let cancel = CancellationToken::new();
        assert_eq!(within(Some(LIMIT), &cancel, async |_| Ok(1)).await, Ok(1));
        let late = async |own: CancellationToken| {
            own.cancelled().await;
            Ok(2)
        };
        assert_eq!(within(Some(LIMIT), &cancel, late).await, Ok(2));
        assert_eq!(within(None, &cancel, async |_| Ok(3)).await, Ok(3));
    }
}

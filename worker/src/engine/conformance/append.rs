//! Rows that are added: once, whatever happens to the attempts.

use super::lab::{Lab, batch};
use crate::engine::{BatchWrite, Class, Outcome, Write};

super::suite! {
    an_append_is_done_once_whichever_plan_it_was_for,
    the_first_append_empties_the_table_and_what_was_done,
    an_overlapping_append_of_a_lost_attempt_is_refused,
    an_append_that_failed_is_done_by_the_next_attempt,
}

fn append(slot: &str, token: u64, plan: &str, number: u32) -> BatchWrite {
    let mut write = batch(slot, token, Write::Append { query: format!("SELECT {number} AS i") });
    write.fence.plan = plan.to_owned();
    write.replayed_is_done = false;
    write
}

async fn rows(lab: &Lab) -> Vec<String> {
    lab.rows("SELECT i FROM s.t ORDER BY i").await
}

async fn an_append_is_done_once_whichever_plan_it_was_for(lab: Lab) {
    assert_eq!(lab.run(&append("d1", 1, "a", 1)).await.unwrap().outcome, Outcome::Written);
    assert_eq!(lab.run(&append("d2", 2, "a", 2)).await.unwrap().outcome, Outcome::Written);
    // The answer was lost: another attempt of the plan, then of a later one.
    for (token, plan) in [(3, "a"), (4, "b"), (5, "c")] {
        let report = lab.run(&append("d2", token, plan, 2)).await.unwrap();
        assert_eq!((report.outcome, report.rows), (Outcome::AlreadyDone, 1), "{plan}");
    }
    assert_eq!(lab.run(&append("d3", 6, "c", 3)).await.unwrap().outcome, Outcome::Written);
    assert_eq!(rows(&lab).await, ["1", "2", "3"]);
}

async fn the_first_append_empties_the_table_and_what_was_done(lab: Lab) {
    for (slot, token, number) in [("d1", 1, 1), ("d2", 2, 2)] {
        lab.run(&append(slot, token, "a", number)).await.unwrap();
    }
    let first = |token, plan| BatchWrite { first: true, ..append("d1", token, plan, 7) };
    assert_eq!(lab.run(&first(3, "restate")).await.unwrap().outcome, Outcome::Written);
    assert_eq!(rows(&lab).await, ["7"]);
    // What was added before is gone, so it is added again.
    assert_eq!(lab.run(&append("d2", 4, "restate", 8)).await.unwrap().outcome, Outcome::Written);
    assert_eq!(rows(&lab).await, ["7", "8"]);
    // The same plan's first batch again, as after a lost answer, empties nothing.
    let again = BatchWrite { replayed_is_done: true, ..first(5, "restate") };
    assert_eq!(lab.run(&again).await.unwrap().outcome, Outcome::AlreadyDone);
    assert_eq!(rows(&lab).await, ["7", "8"]);
}

async fn an_overlapping_append_of_a_lost_attempt_is_refused(lab: Lab) {
    lab.run(&append("d2", 1, "a", 2)).await.unwrap();
    let mut wider = append("d2-d3", 2, "b", 9);
    wider.fence.supersedes = vec!["d2".to_owned()];
    let error = lab.run(&wider).await.unwrap_err();
    assert_eq!(error.class, Class::Permanent, "{error:?}");
    assert!(error.message.contains("`d2`") && error.hint.is_some(), "{error:?}");
    assert_eq!(rows(&lab).await, ["2"]);
    // A lost attempt that came to nothing hinders nobody, and can't commit any more.
    lab.run(&BatchWrite { write: Write::AuditOnly, ..append("d4", 3, "a", 0) }).await.unwrap();
    let mut lost = append("d5", 4, "a", 5);
    lost.post = vec!["SELECT nothing".to_owned()];
    lab.run(&lost).await.unwrap_err();
    let mut wider = append("d5-d6", 6, "b", 6);
    wider.fence.supersedes = vec!["d5".to_owned()];
    assert_eq!(lab.run(&wider).await.unwrap().outcome, Outcome::Written);
    lost.post.clear();
    assert_eq!(lab.run(&lost).await.unwrap_err().class, Class::Stale);
    assert_eq!(rows(&lab).await, ["2", "6"]);
}

async fn an_append_that_failed_is_done_by_the_next_attempt(lab: Lab) {
    let mut fails = append("d1", 1, "a", 1);
    fails.post = vec!["SELECT 1 FROM nowhere.nothing".to_owned()];
    lab.run(&fails).await.unwrap_err();
    assert_eq!(lab.run(&append("d1", 2, "a", 1)).await.unwrap().outcome, Outcome::Written);
    assert_eq!(rows(&lab).await, ["1"]);
}

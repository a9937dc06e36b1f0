//! Approvals: environments that are protected change only by plans that somebody else than their
//! author has approved.

use coord_common::id::{EnvironmentName, Hash128, PlanId};
use coord_common::interval::Timestamp;
use coord_common::plan::{Plan, Purpose};
use serde::{Deserialize, Serialize};

use super::book::{HistoryEntry, PlanRecord, PlanState};
use super::command::ApplyError;
use super::evidence::Deed;
use super::{Control, ControlError};
use crate::store::Txn;

/// Somebody's approval of exactly one plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Approval {
    /// Who.
    pub(crate) by: String,
    /// When.
    pub(crate) at: Timestamp,
    /// The hash of what was approved: the blob of the plan and its snapshots.
    pub(crate) body: Hash128,
}

/// What came of an approval.
#[derive(Debug, Clone)]
pub(crate) struct Approved {
    /// The plan's environment.
    pub(crate) environment: EnvironmentName,
    /// Whether it asks for approvals.
    pub(crate) needed: bool,
}

impl PlanRecord {
    /// Who has approved what would be carried out, other than its author.
    pub(super) fn approvers(&self) -> Vec<String> {
        let counts =
            |approval: &&Approval| approval.body == self.body && Some(&approval.by) != self.author.as_ref();
        self.approvals.iter().filter(counts).map(|approval| approval.by.clone()).collect()
    }
}

impl Control {
    /// Approves a plan that isn't being carried out yet, or not any more.
    pub(super) async fn approve(
        &mut self,
        id: PlanId,
        by: String,
    ) -> Result<Result<Approved, ApplyError>, ControlError> {
        let Some((record, _)) = self.book.plans.get(&id).cloned() else {
            return Ok(Err(ApplyError::Unknown(id)));
        };
        let environment = record.environment.clone();
        match record.state {
            PlanState::Planned | PlanState::Failed | PlanState::Cancelled => {}
            PlanState::Abandoned => return Ok(Err(ApplyError::Abandoned(id))),
            state @ (PlanState::Applying
            | PlanState::Cancelling
            | PlanState::Promoting
            | PlanState::Publishing
            | PlanState::Finished) => {
                return Ok(Err(ApplyError::TooLate { plan: id, state: state.name() }));
            }
        }
        if record.author.as_ref() == Some(&by) {
            return Ok(Err(ApplyError::OwnPlan(by)));
        }
        let needed = self.config.protected.contains(&environment);
        if !record.approvers().contains(&by) {
            let mut record = record;
            let at = (self.clock)();
            record.approvals.push(Approval { by: by.clone(), at, body: record.body });
            record.history.push(HistoryEntry { at, what: "approved".to_owned(), by: Some(by.clone()) });
            let deed = self.deed(&by, "approved");
            self.witness(Deed { plan: Some(id), environment: Some(environment.clone()), ..deed });
            // Applying the plan requires that its record is as it was read, with its approvals.
            self.put_plan(id, record, Txn::new()).await?;
        }
        Ok(Ok(Approved { environment, needed }))
    }

    /// Why a plan must not be carried out yet, where its environment is protected. What crons ask for
    /// changes no definition: runs need nobody's approval.
    pub(super) fn lacks_approval(&self, plan: &Plan, record: &PlanRecord) -> Option<ApplyError> {
        let protected = self.config.protected.contains(&plan.environment);
        if !protected || plan.purpose == Purpose::Run || !record.approvers().is_empty() {
            return None;
        }
        let author = match &record.author {
            Some(author) => format!("its author, `{author}`"),
            None => "its author".to_owned(),
        };
        Some(ApplyError::Unapproved { environment: plan.environment.clone(), author })
    }

    /// The evidence of a plan's start.
    pub(super) fn witness_start(&mut self, id: PlanId, record: &PlanRecord, by: &str, what: &str) {
        let mut checked = vec![
            "the environment is as it was when the plan was read".to_owned(),
            "no other plan is applied to it".to_owned(),
        ];
        if self.config.protected.contains(&record.environment) {
            checked.push("it is protected, and the plan's approvals are those on record".to_owned());
        }
        self.witness(Deed {
            plan: Some(id),
            environment: Some(record.environment.clone()),
            approved_by: record.approvers(),
            checked,
            ..self.deed(by, what)
        });
    }
}

//! Plans as they are kept before anybody applies them.

use coord_common::id::PlanId;
use coord_common::plan::{Plan, Planned, Purpose};

use super::book::{HistoryEntry, PlanBody, PlanRecord, PlanState, Restatement};
use super::evidence::Deed;
use super::{Control, ControlError};
use crate::apply;
use crate::store::{StoreError, Txn, blob};

impl Control {
    /// Keeps a plan; one that is kept already stays as it is.
    pub(super) async fn store_plan(&mut self, planned: Planned, by: &str) -> Result<PlanState, ControlError> {
        let id = planned.plan.id;
        if let Some((record, _)) = self.book.plans.get(&id).cloned() {
            return self.plan_again(id, record, &planned.plan, by).await;
        }
        let environment = planned.plan.environment.clone();
        let plan = &planned.plan;
        let restatement =
            plan.recomputes().then(|| Restatement { in_place: plan.in_place, ..Restatement::default() });
        let body = PlanBody { plan: planned.plan, records: planned.new_records };
        let bytes = serde_json::to_vec(&body).map_err(|error| StoreError::Invalid(error.to_string()))?;
        let hash = blob::put_blob(&*self.store, &bytes).await?;
        let record = PlanRecord {
            environment: environment.clone(),
            state: PlanState::Planned,
            body: hash,
            author: Some(by.to_owned()),
            approvals: Vec::new(),
            created: (self.clock)(),
            materialised: false,
            history: Vec::new(),
            failures: Vec::new(),
            restatement,
            void: Vec::new(),
            renewed: false,
            round: 0,
            asked: None,
        };
        self.witness(Deed { plan: Some(id), environment: Some(environment), ..self.deed(by, "planned") });
        self.put_plan(id, record, Txn::new()).await?;
        Ok(PlanState::Planned)
    }

    /// A finished plan whose environment has gone since can be carried out once more; so can a
    /// restatement, which leaves the environment as it was, and what was abandoned.
    async fn plan_again(
        &mut self,
        id: PlanId,
        record: PlanRecord,
        plan: &Plan,
        by: &str,
    ) -> Result<PlanState, ControlError> {
        let again = match &record.restatement {
            _ if record.state == PlanState::Abandoned => true,
            Some(known) => known.is_over(record.state),
            None => {
                record.state == PlanState::Finished
                    && plan.purpose == Purpose::Change
                    && apply::check_base(plan, &self.book, (self.clock)()).is_ok()
            }
        };
        if !again {
            return Ok(record.state);
        }
        let restatement = record.restatement.clone().map(Restatement::again);
        let mut record = PlanRecord {
            state: PlanState::Planned,
            materialised: false,
            failures: Vec::new(),
            author: Some(by.to_owned()),
            approvals: Vec::new(),
            restatement,
            void: Vec::new(),
            renewed: false,
            round: record.round + 1,
            asked: None,
            ..record
        };
        record.history.push(HistoryEntry {
            at: (self.clock)(),
            what: "planned again".to_owned(),
            by: Some(by.to_owned()),
        });
        let environment = Some(plan.environment.clone());
        self.witness(Deed { plan: Some(id), environment, ..self.deed(by, "planned again") });
        self.put_plan(id, record, Txn::new()).await?;
        Ok(PlanState::Planned)
    }
}

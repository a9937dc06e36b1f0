//! Tending environments: each step is decided in the loop, and the next one waits for the workers.

use std::collections::BTreeMap;

use coord_proto::convert::parse;
use coord_proto::wire;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use super::control::refusal;
use super::{Pieces, named};
use crate::access::{Identity, Permission, denied};
use crate::control::{Command, Handle, RollbackTo, Tend, Tended};

/// Shortest pause between two looks.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
/// Longest pause.
const BEAT: std::time::Duration = std::time::Duration::from_millis(500);

/// Decides the first step at once, so that a refusal is the call's own; the others follow.
pub(super) async fn tend(
    handle: Handle,
    caller: &Identity,
    request: wire::TendRequest,
) -> Result<Response<Pieces>, Status> {
    let by = caller.signature(&request.by);
    let id = Some(request.request).filter(|id| !id.is_empty());
    let action = request.action.ok_or_else(|| Status::invalid_argument("an empty request"))?;
    let needed = permission(&action);
    if !needed.allows(caller) {
        return Err(denied(caller, needed));
    }
    let steps = steps(&handle, action, id).await?;
    let (sender, receiver) = mpsc::channel(4);
    let mut course = Course { handle, by, sender, troubles: BTreeMap::new() };
    let mut steps = steps.into_iter();
    let first = match steps.next() {
        Some(step) => course.decide(step).await?,
        None => Tended::default(),
    };
    // The task ends with its steps, or when the caller goes away: what is decided stays decided.
    tokio::spawn(async move {
        if let Err(status) = course.run(first, steps).await {
            let _ = course.sender.send(Err(status)).await;
        }
    });
    Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
}

/// What an action takes.
fn permission(action: &wire::tend_request::Action) -> Permission {
    use wire::tend_request::Action;
    match action {
        Action::Invalidate(_) => Permission::TEND_INVALIDATE,
        Action::Abandon(_) => Permission::TEND_ABANDON,
        Action::Janitor(janitor) if janitor.ignore_ttl => Permission::TEND_JANITOR_NOW,
        Action::Janitor(_) => Permission::TEND_JANITOR,
        Action::Rollback(rollback) if rollback.dry_run => Permission::TEND_ROLLBACK_DRY,
        Action::Rollback(_) => Permission::TEND_ROLLBACK,
        Action::Destroy(_) => Permission::TEND_DESTROY,
    }
}

async fn steps(
    handle: &Handle,
    action: wire::tend_request::Action,
    request: Option<String>,
) -> Result<Vec<Tend>, Status> {
    use wire::tend_request::Action;
    Ok(match action {
        Action::Invalidate(wire::Invalidate { environment, sync }) => {
            let environment: coord_common::id::EnvironmentName = parse("environment", &environment)?;
            let mut steps = vec![Tend::Invalidate { environment: environment.clone() }];
            if sync {
                steps.push(Tend::Retire { environment: Some(environment) });
            }
            steps
        }
        Action::Rollback(wire::Rollback { environment, to, dry_run }) => {
            let plan = match to.as_str() {
                "" => None,
                text => Some(named::plan(handle, text).await?),
            };
            let to = RollbackTo { plan, dry_run, request };
            vec![Tend::Rollback { environment: parse("environment", &environment)?, to }]
        }
        Action::Abandon(wire::Abandon { what }) => vec![abandon(handle, &what).await?],
        Action::Destroy(wire::Destroy {}) => vec![Tend::RetireAll, Tend::Collect { ignore_ttl: true }],
        Action::Janitor(wire::Janitor { ignore_ttl, environment }) if environment.is_empty() => {
            vec![Tend::Retire { environment: None }, Tend::Collect { ignore_ttl }]
        }
        // What nothing needs is everybody's: one environment's end leaves it where it is.
        Action::Janitor(wire::Janitor { environment, .. }) => {
            vec![Tend::Retire { environment: Some(parse("environment", &environment)?) }]
        }
    })
}

/// A plan by its id, or the beginning of it; otherwise an environment.
async fn abandon(handle: &Handle, what: &str) -> Result<Tend, Status> {
    if let Some(plan) = named::plan_if_any(handle, what).await? {
        return Ok(Tend::AbandonPlan { plan });
    }
    Ok(Tend::AbandonEnvironment { environment: parse("environment", what)? })
}

struct Course {
    handle: Handle,
    by: String,
    sender: mpsc::Sender<Result<wire::Chunk, Status>>,
    troubles: BTreeMap<String, String>,
}

impl Course {
    async fn decide(&self, tend: Tend) -> Result<Tended, Status> {
        let by = self.by.clone();
        let answer = self.handle.ask(|reply| Command::Tend { tend, by, reply }).await?;
        answer.map_err(refusal)
    }

    async fn run(&mut self, first: Tended, steps: impl Iterator<Item = Tend>) -> Result<(), Status> {
        let mut all = serde_json::Map::new();
        self.step(first, &mut all).await?;
        for step in steps {
            let tended = self.decide(step).await?;
            self.step(tended, &mut all).await?;
        }
        all.insert("troubles".to_owned(), json!(self.troubles));
        all.insert("ended".to_owned(), json!(true));
        self.tell(&Value::Object(all)).await;
        Ok(())
    }

    /// Tells what was decided, and waits for the workers.
    async fn step(&mut self, tended: Tended, all: &mut serde_json::Map<String, Value>) -> Result<(), Status> {
        let document = json!(tended);
        self.tell(&document).await;
        if let Value::Object(parts) = document {
            all.extend(parts);
        }
        loop {
            let waits = tended.waits.clone();
            let left = self.handle.ask(|reply| Command::Tended { waits, reply }).await?;
            if left.open == 0 {
                self.troubles.extend(left.troubles);
                return Ok(());
            }
            if self.sender.is_closed() {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
            let _ = tokio::time::timeout(BEAT, self.handle.changed.changed()).await;
        }
    }

    async fn tell(&self, document: &Value) {
        let data = document.to_string().into_bytes();
        // A caller that is gone needn't hear it.
        let _ = self.sender.send(Ok(wire::Chunk { data })).await;
    }
}

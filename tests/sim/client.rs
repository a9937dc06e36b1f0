//! People: they plan, apply, cancel and look, until their environments are as they want them.

use std::collections::BTreeMap;
use std::sync::Arc;

use coord_common::plan::Plan;
use coord_proto::net::{Transport, control_client};
use coord_proto::wire;
use coord_proto::wire::control_client::ControlClient;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::net::transport;
use crate::node::Fleet;
use crate::story::{Job, What};
use crate::world::{Host, World, lock};

/// One of them.
pub(crate) struct Client {
    world: Arc<World>,
    host: Arc<Host>,
    control: ControlClient<Transport>,
}

/// Why no plan is made for an environment that would only show what production does.
const NOTHING: &str = "no-changes";

/// How a plan ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    /// It must be made anew.
    Stale,
    /// Somebody had begun with it before, and may have read what was there before.
    Joined,
}

impl Client {
    pub(crate) fn new(world: &Arc<World>, fleet: &Fleet, name: &str) -> Self {
        let host = Host::new(name);
        let way = transport(world, &host, fleet.coordinators());
        Self { world: world.clone(), host, control: control_client(way) }
    }

    /// Does its jobs, however often it must try.
    pub(crate) async fn work(&mut self, jobs: &[Job]) {
        for (n, job) in jobs.iter().enumerate() {
            match &job.what {
                What::Collect | What::GoBack | What::End | What::GiveUp => self.tend(n, job).await,
                What::Restate { days, .. } => {
                    lock(&self.world.warehouse).source.change(days.clone());
                    self.say(&format!("sees days {days:?} change"));
                    self.bring(job).await;
                }
                What::Run { next } => {
                    if *next {
                        self.world.next_day();
                    }
                    self.bring(job).await;
                }
                What::Bring => self.bring(job).await,
            }
            self.say(&format!("has {} at version {}: {:?}", job.environment, job.version, job.what));
        }
    }

    /// Plans and applies until there is nothing left to do.
    pub(crate) async fn bring(&mut self, job: &Job) {
        let mut cancel = job.cancel_after;
        loop {
            match self.plan(job).await {
                Ok(plan) if plan.is_empty() => return,
                Ok(plan) => {
                    let id = plan.id.to_string();
                    self.keep(&plan, job);
                    self.say(&format!("plans {id} for {} against {}", job.environment, plan.base_seq));
                    let restates = matches!(job.what, What::Restate { .. });
                    match self.carry_out(&id, &mut cancel).await {
                        End::Done => return,
                        // A restatement is of the rows that were there when it began.
                        End::Joined if !restates => return,
                        End::Joined | End::Stale => {}
                    }
                }
                // Nothing differs from production: it needs no environment of its own.
                Err(status) if refusal(&status) == NOTHING => return,
                Err(status) => self.refused("plan", &status).await,
            }
        }
    }

    /// Asks for something that is no plan, until it is done, or refused again and again.
    async fn tend(&mut self, n: usize, job: &Job) {
        use wire::tend_request::Action;
        self.world.pause(0, 6000).await;
        let environment = job.environment.to_owned();
        let action = match job.what {
            What::GoBack => Action::Rollback(wire::Rollback { environment, ..wire::Rollback::default() }),
            What::End => Action::Invalidate(wire::Invalidate { environment, sync: self.world.chance(700) }),
            What::GiveUp => Action::Abandon(wire::Abandon { what: environment }),
            _ => Action::Janitor(wire::Janitor { ignore_ttl: true, environment: String::new() }),
        };
        let request = format!("{}-{n}", self.host.name);
        let mut refusals = 0;
        while refusals < 6 {
            let by = self.host.name.clone();
            let call = wire::TendRequest { by, action: Some(action.clone()), request: request.clone() };
            let answer = match self.control.tend(call).await {
                Ok(answer) => pieces(answer.into_inner()).await,
                Err(status) => Err(status),
            };
            match answer {
                Ok(_) => return,
                Err(status) => {
                    refusals += u32::from(status.code() != Code::Unavailable);
                    self.refused(&format!("{:?} ({})", job.what, refusal(&status)), &status).await;
                }
            }
        }
    }

    /// Notes what a plan was made from.
    fn keep(&self, plan: &Plan, job: &Job) {
        let id = plan.id.to_string();
        let mut plans = lock(&self.world.plans);
        let mut checks = lock(&self.world.checks);
        let shown = checks.shown.get(&(job.environment.to_owned(), plan.base_seq));
        let shown = shown.filter(|_| job.what.keeps_models()).and_then(|plan| plans.get(plan));
        let version = shown.copied().unwrap_or(job.version);
        checks.bases.insert(id.clone(), (job.environment.to_owned(), plan.base_seq));
        plans.insert(id, version);
    }

    /// Plans, and gives the plan's id.
    pub(crate) async fn plan_for(&mut self, job: &Job) -> String {
        loop {
            match self.plan(job).await {
                Ok(plan) => {
                    self.keep(&plan, job);
                    return plan.id.to_string();
                }
                Err(status) => self.refused("plan", &status).await,
            }
        }
    }

    /// Has a plan carried out, once; says why not.
    pub(crate) async fn apply(&mut self, id: &str) -> Result<String, String> {
        let (plan_id, by) = (id.to_owned(), self.host.name.clone());
        let request = wire::ApplyRequest { plan_id, by, ..wire::ApplyRequest::default() };
        self.control.apply(request).await.map(|it| it.into_inner().state).map_err(|it| refusal(&it))
    }

    pub(crate) async fn cancel(&mut self, id: &str) {
        let request = wire::CancelRequest { plan_id: id.to_owned(), by: self.host.name.clone() };
        match self.control.cancel(request).await {
            Ok(answer) => self.say(&format!("cancels {id}: {}", answer.into_inner().state)),
            Err(status) => self.refused("cancel", &status).await,
        }
    }

    /// Waits until a plan is in this state.
    pub(crate) async fn sees(&mut self, id: &str, state: &str) {
        loop {
            match self.states().await {
                Ok(states) if states.get(id).is_some_and(|it| it == state) => return,
                Ok(_) => self.world.pause(100, 200).await,
                Err(status) => self.refused("list", &status).await,
            }
        }
    }

    fn say(&self, what: &str) {
        self.world.note(&format!("{} {what}", self.host.name));
    }

    async fn refused(&self, what: &str, status: &Status) {
        self.say(&format!("{what}: {:?} {}", status.code(), status.message()));
        self.world.pause(200, 1500).await;
    }

    async fn plan(&mut self, job: &Job) -> Result<Plan, Status> {
        let mut options = json!({ "environment": job.environment });
        if let What::Restate { days, in_place } = &job.what {
            options["restate_models"] = json!(["s.m0"]);
            options["in_place"] = json!(in_place);
            options["start"] = json!(format!("2024-01-{:02}", days.start + 1));
            options["end"] = json!(format!("2024-01-{:02}", days.end));
        }
        let options = wire::PlanOptions {
            environment: job.environment.to_owned(),
            options_json: options.to_string().into_bytes(),
            env: Default::default(),
            gateway: None,
            run: matches!(job.what, What::Run { .. }),
            no_signals: false,
            by: self.host.name.clone(),
        };
        use wire::plan_request::Part;
        let mut messages = vec![wire::PlanRequest { part: Some(Part::Options(options)) }];
        for file in self.world.play.versions[job.version].files() {
            let (path, data) = (file.path.to_string(), file.text.as_bytes().to_vec());
            let part = Part::File(wire::SourceFile { path, data, last: true });
            messages.push(wire::PlanRequest { part: Some(part) });
        }
        let answer = self.control.plan(tokio_stream::iter(messages)).await?;
        let document = document(answer.into_inner()).await?;
        serde_json::from_value(document["plan"].clone()).map_err(|error| Status::internal(error.to_string()))
    }

    async fn carry_out(&mut self, id: &str, cancel: &mut Option<u64>) -> End {
        let mut began = None;
        loop {
            let (plan_id, by) = (id.to_owned(), self.host.name.clone());
            let request = wire::ApplyRequest { plan_id, by, ..wire::ApplyRequest::default() };
            match self.control.apply(request).await {
                Ok(answer) => {
                    let state = answer.into_inner().state;
                    self.say(&format!("applies {id}: {state}"));
                    if state == "finished" {
                        return End::Done;
                    }
                    began.get_or_insert(state == "started");
                }
                Err(status) => {
                    let code = refusal(&status);
                    self.refused(&format!("apply {id} ({code})"), &status).await;
                    match code.as_str() {
                        "stale-plan" | "unknown-plan" | "plan-abandoned" | "given-up" => return End::Stale,
                        _ => continue,
                    }
                }
            }
            if self.wait(id, cancel).await {
                return if began == Some(true) { End::Done } else { End::Joined };
            }
        }
    }

    /// Waits until a plan rests; whether it is finished.
    async fn wait(&mut self, id: &str, cancel: &mut Option<u64>) -> bool {
        if let Some(after) = cancel.take() {
            self.world.pause(after, after + 1).await;
            self.cancel(id).await;
        }
        loop {
            self.world.pause(300, 1500).await;
            match self.states().await {
                Ok(states) => match states.get(id).map(String::as_str) {
                    Some("finished") => return true,
                    Some("failed" | "cancelled" | "planned") | None => {
                        self.say(&format!("finds {id} {:?}", states.get(id)));
                        return false;
                    }
                    Some(_) => {}
                },
                Err(status) => self.refused("list", &status).await,
            }
        }
    }

    /// The states of all plans.
    async fn states(&mut self) -> Result<BTreeMap<String, String>, Status> {
        let request = wire::ListRequest { what: "plans".to_owned(), ..Default::default() };
        let answer = self.control.list(request).await?;
        let document = document(answer.into_inner()).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let plans = document["plans"].as_array().cloned().unwrap_or_default();
        Ok(plans.iter().map(|plan| (text(&plan["plan_id"]), text(&plan["state"]))).collect())
    }
}

async fn pieces(mut stream: tonic::Streaming<wire::Chunk>) -> Result<Vec<u8>, Status> {
    let mut body = Vec::new();
    while let Some(piece) = stream.message().await? {
        body.extend_from_slice(&piece.data);
    }
    Ok(body)
}

async fn document(stream: tonic::Streaming<wire::Chunk>) -> Result<Value, Status> {
    let body = pieces(stream).await?;
    serde_json::from_slice(&body).map_err(|error| Status::internal(error.to_string()))
}

/// The word for why something was refused.
fn refusal(status: &Status) -> String {
    if status.code() != Code::FailedPrecondition {
        return format!("{:?}", status.code());
    }
    let body: Value = serde_json::from_slice(status.details()).unwrap_or_default();
    body["code"].as_str().unwrap_or_default().to_owned()
}

//! The service for people and `coordctl`.

use std::collections::BTreeMap;
use std::time::Duration;

use coord_common::interval::Timestamp;
use coord_common::plan::PlanOptions;
use coord_common::project::SourceFile;
use coord_proto::convert::parse;
use coord_proto::wire;
use coord_proto::wire::control_server::Control;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Pieces, caller, documents, named, pieces};
use crate::control::{ApplyError, Book, Command, Handle, Page, Planning};
use crate::planning::{self, PlanRequest, Refusal};

/// Shortest pause between two messages of a watch, but for the end of a plan, which is told at once.
const WATCH_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause: progress that changes nothing is still told, so that a watcher sees life.
const WATCH_BEAT: Duration = Duration::from_millis(500);
/// Projects that are in memory at once.
const PROJECTS: usize = 4;
/// How long a caller may take for the next piece of a project.
const PIECE_PATIENCE: Duration = Duration::from_secs(30);
/// Largest project taken, in bytes of all its files.
const MAX_PROJECT: usize = 512 * 1024 * 1024;

/// Answers `coordctl`.
pub(crate) struct ControlService {
    handle: Handle,
    state: String,
    planning: Planning,
    /// Places for projects that are taken in and planned: others wait before theirs is read.
    projects: Semaphore,
}

impl ControlService {
    /// `state` says where the state is, for people.
    pub(crate) fn new(handle: Handle, state: String, planning: Planning) -> Self {
        Self { handle, state, planning, projects: Semaphore::new(PROJECTS) }
    }
}

impl ControlService {
    /// The clock, cut to the minute, as SQLMesh does: planning again at once gives the same plan.
    fn now(&self) -> Timestamp {
        Timestamp((self.handle.clock)().0.div_euclid(60_000) * 60_000)
    }

    /// Plans against what is known.
    async fn planned(&self, request: PlanRequest, book: Book) -> Result<planning::Answer, Status> {
        let now = self.now();
        let plan = move || planning::plan(&request, &book, now);
        let planned = match self.planning {
            Planning::InPlace => plan(),
            Planning::Apart => tokio::task::spawn_blocking(plan)
                .await
                .map_err(|error| Status::internal(format!("planning ended early: {error}")))?,
        };
        planned.map_err(refusal)
    }
}

/// Largest body of a status in bytes: it travels in a header, of which clients take 16 KiB.
const MAX_DETAILS: usize = 8 * 1024;

/// The status of a refusal: its code and hint travel as metadata, so that `coordctl` can print
/// them apart.
pub(super) fn refusal(mut refusal: Refusal) -> Status {
    let mut body = serde_json::to_vec(&refusal).unwrap_or_default();
    if body.len() > MAX_DETAILS {
        // Headers are small: errors first, and as many as fit.
        refusal.findings.sort_by_key(|finding| !finding.is_error());
        let (message, all) = (std::mem::take(&mut refusal.message), refusal.findings.len());
        while body.len() > MAX_DETAILS && !refusal.findings.is_empty() {
            refusal.findings.truncate(refusal.findings.len() * 3 / 4);
            refusal.message = format!("{message}; {} of {all} findings are listed", refusal.findings.len());
            body = serde_json::to_vec(&refusal).unwrap_or_default();
        }
    }
    Status::with_details(tonic::Code::FailedPrecondition, refusal.message.clone(), body.into())
}

fn apply_refusal(error: &ApplyError) -> Status {
    let (code, hint) = match error {
        ApplyError::Unknown(_) => ("unknown-plan", "`coordctl plans` lists the plans that are kept"),
        ApplyError::Stale(_) => ("stale-plan", "plan again, review, and apply the new plan"),
        ApplyError::Busy { .. } => (
            "environment-busy",
            "finish it (`coordctl apply` with its id), or give it up (`coordctl cancel`)",
        ),
        ApplyError::Abandoned(_) => ("plan-abandoned", "plan again, and apply the new plan"),
        ApplyError::Switching { .. } => ("environment-busy", "try again in a moment"),
        ApplyError::Blocked(blocker) => (blocker.code.as_str(), blocker.hint.as_str()),
        ApplyError::Unsupported { .. } => {
            ("unsupported-kind", "leave the model out with `enabled false`, or write it as another kind")
        }
        ApplyError::GivenUp(_) => ("given-up", "plan the restatement again"),
        ApplyError::Unapproved { .. } => {
            ("approval-needed", "somebody with the role approver runs `coordctl approve` with its id")
        }
        ApplyError::OwnPlan(_) => ("own-plan", "ask somebody else with the role approver"),
        ApplyError::TooLate { .. } => ("too-late", "`coordctl status` shows what runs"),
        ApplyError::NotRunning { .. } => ("not-running", "`coordctl status` shows what runs"),
    };
    refusal(Refusal::new(code, error.to_string(), hint))
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn info(&self, request: Request<wire::InfoRequest>) -> Result<Response<wire::InfoReply>, Status> {
        let caller = caller(&request)?;
        let workers = self.handle.ask(|reply| Command::Workers { reply }).await?;
        Ok(Response::new(wire::InfoReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.state.clone(),
            workers: workers.len() as u32,
            slots: workers.iter().map(|worker| worker.slots).sum(),
            leader: true,
            identity: caller.name().to_owned(),
            roles: caller.roles().iter().map(ToString::to_string).collect(),
        }))
    }

    type PlanStream = Pieces;

    async fn plan(&self, request: Request<Streaming<wire::PlanRequest>>) -> Result<Response<Pieces>, Status> {
        let caller = caller(&request)?;
        let place = self.projects.acquire().await;
        let (request, said) = receive(request.into_inner()).await?;
        let book = self.handle.ask(|reply| Command::Book { reply }).await?;
        let unfinished = book.unfinished_restatements(&request.options.environment);
        let planned = self.planned(request, book).await?;
        drop(place);
        let document =
            documents::planned(&planned, &unfinished).map_err(|error| Status::internal(error.to_string()))?;
        if !planned.planned.plan.is_empty() {
            let (planned, by) = (Box::new(planned.planned), caller.signature(&said));
            self.handle.ask(|reply| Command::StorePlan { planned, by, reply }).await?;
        }
        Ok(Response::new(pieces(document)))
    }

    type CheckIntervalsStream = Pieces;

    async fn check_intervals(
        &self,
        request: Request<Streaming<wire::PlanRequest>>,
    ) -> Result<Response<Pieces>, Status> {
        let place = self.projects.acquire().await;
        let (request, _) = receive(request.into_inner()).await?;
        let no_signals = request.no_signals;
        let book = self.handle.ask(|reply| Command::Book { reply }).await?;
        let planned = self.planned(request, book).await?;
        drop(place);
        let plan = Box::new(planned.planned.plan);
        let asked = if no_signals {
            None
        } else {
            let asked = plan.clone();
            let answer = self.handle.ask(|reply| Command::AskSignals { plan: asked, reply }).await?;
            Some(answer.map_err(|(model, failure)| {
                let hint = failure.hint.clone().unwrap_or_default();
                let text = failure.to_string();
                let text = if text.contains(&model) { text } else { format!("`{model}`: {text}") };
                refusal(Refusal::new("signal-failed", text, &hint))
            })?)
        };
        let document = documents::checked(&plan, asked.as_ref());
        Ok(Response::new(pieces(document.to_string().into_bytes())))
    }

    type ShowPlanStream = Pieces;

    async fn show_plan(&self, request: Request<wire::ShowPlanRequest>) -> Result<Response<Pieces>, Status> {
        let text = request.into_inner().plan_id;
        let plan = named::plan(&self.handle, &text).await?;
        let body = self.handle.ask(|reply| Command::PlanBody { plan, reply }).await?;
        let body = body.ok_or_else(|| named::unknown_plan(&text))?;
        let document = serde_json::to_vec(&body.plan).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(pieces(document)))
    }

    async fn apply(
        &self,
        request: Request<wire::ApplyRequest>,
    ) -> Result<Response<wire::ApplyReply>, Status> {
        let caller = caller(&request)?;
        let wire::ApplyRequest { plan_id, by, request } = request.into_inner();
        let by = caller.signature(&by);
        let request = Some(request).filter(|id| !id.is_empty());
        let plan = named::plan(&self.handle, &plan_id).await?;
        let answer = self.handle.ask(|reply| Command::Apply { plan, by, request, reply }).await?;
        let state = answer.map_err(|error| apply_refusal(&error))?;
        Ok(Response::new(wire::ApplyReply { state: state.to_owned() }))
    }

    async fn approve(
        &self,
        request: Request<wire::ApproveRequest>,
    ) -> Result<Response<wire::ApproveReply>, Status> {
        let caller = caller(&request)?;
        let wire::ApproveRequest { plan_id, by } = request.into_inner();
        let by = caller.signature(&by);
        let plan = named::plan(&self.handle, &plan_id).await?;
        let answer = self.handle.ask(|reply| Command::Approve { plan, by, reply }).await?;
        let approved = answer.map_err(|error| apply_refusal(&error))?;
        let environment = approved.environment.to_string();
        Ok(Response::new(wire::ApproveReply { environment, needed: approved.needed }))
    }

    type WatchStream = Pieces;

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Result<Response<Pieces>, Status> {
        let wire::WatchRequest { plan_id, mut log, since } = request.into_inner();
        let plan = named::plan(&self.handle, &plan_id).await?;
        let (sender, receiver) = mpsc::channel(4);
        let mut handle = self.handle.clone();
        // A coordinator that doesn't lead says so at once.
        handle.leads().await?;
        // The task ends with the plan, or when the watcher goes away.
        tokio::spawn(async move {
            let mut since = since as usize;
            loop {
                let seen = *handle.changed.borrow();
                let view = match handle.ask(|reply| Command::Progress { plan, log, since, reply }).await {
                    Ok(Some(view)) => view,
                    Ok(None) => return,
                    // Who leads now goes on telling.
                    Err(error) => {
                        let _ = sender.send(Err(error.into())).await;
                        return;
                    }
                };
                (log, since) = (view.log, view.next);
                let ended = view.ended;
                let data = serde_json::to_vec(&view).unwrap_or_default();
                if sender.send(Ok(wire::Chunk { data })).await.is_err() || ended {
                    return;
                }
                handle.follow(seen, WATCH_PAUSE, WATCH_BEAT).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn cancel(
        &self,
        request: Request<wire::CancelRequest>,
    ) -> Result<Response<wire::CancelReply>, Status> {
        let caller = caller(&request)?;
        let wire::CancelRequest { plan_id, by } = request.into_inner();
        let by = caller.signature(&by);
        let plan = named::plan(&self.handle, &plan_id).await?;
        let answer = self.handle.ask(|reply| Command::Cancel { plan, by, reply }).await?;
        let state = answer.map_err(|error| apply_refusal(&error))?;
        Ok(Response::new(wire::CancelReply { state: state.to_owned() }))
    }

    type TendStream = Pieces;

    async fn tend(&self, request: Request<wire::TendRequest>) -> Result<Response<Pieces>, Status> {
        let caller = caller(&request)?;
        super::tend::tend(self.handle.clone(), &caller, request.into_inner()).await
    }

    type ListStream = Pieces;

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<Pieces>, Status> {
        let wire::ListRequest { what, environment, before, limit } = request.into_inner();
        let book = self.handle.ask(|reply| Command::Book { reply }).await?;
        let now = (self.handle.clock)();
        let document = match what.as_str() {
            "environments" => documents::environments(&book, now),
            "history" => {
                let of = (!environment.is_empty()).then(|| parse("environment", &environment)).transpose()?;
                let page = Page { before, limit: limit as usize, of };
                documents::history(&self.handle.ask(|reply| Command::Evidence { page, reply }).await?)
            }
            "promotions" => documents::promotions(&book, &environment),
            "plans" => documents::plans(&book),
            "workers" => {
                let workers = self.handle.ask(|reply| Command::Workers { reply }).await?;
                serde_json::json!({ "workers": workers })
            }
            "intervals" => {
                let environment = parse("environment", &environment)?;
                documents::intervals(&book, &environment, now).map_err(refusal)?
            }
            "state" => documents::state(&book),
            "snapshots" => documents::snapshots(&book),
            other => return Err(Status::invalid_argument(format!("there is no list `{other}`"))),
        };
        Ok(Response::new(pieces(document.to_string().into_bytes())))
    }

    type ExplainStream = Pieces;

    async fn explain(&self, request: Request<wire::ExplainRequest>) -> Result<Response<Pieces>, Status> {
        let request = request.into_inner();
        let document = documents::explain(&self.handle, request).await?;
        Ok(Response::new(pieces(document.to_string().into_bytes())))
    }
}

/// Takes a project in, piece by piece; and who its sender says to be.
async fn receive(mut stream: Streaming<wire::PlanRequest>) -> Result<(PlanRequest, String), Status> {
    let mut options = None;
    let mut files = Vec::new();
    let mut open = Vec::new();
    let mut size = 0;
    loop {
        let next = tokio::time::timeout(PIECE_PATIENCE, stream.next()).await;
        let next = next.map_err(|_| Status::cancelled("the project's next piece didn't come"))?;
        let Some(message) = next else { break };
        match message?.part {
            Some(wire::plan_request::Part::Options(part)) => options = Some(part),
            Some(wire::plan_request::Part::File(part)) => {
                size += part.data.len();
                if size > MAX_PROJECT {
                    return Err(Status::resource_exhausted("the project is larger than 512 MiB"));
                }
                open.extend_from_slice(&part.data);
                if part.last {
                    let text = String::from_utf8(std::mem::take(&mut open))
                        .map_err(|_| Status::invalid_argument(format!("`{}` is not UTF-8", part.path)))?;
                    files.push(SourceFile { path: part.path.into(), text: text.into() });
                }
            }
            None => return Err(Status::invalid_argument("an empty message")),
        }
    }
    let options = options.ok_or_else(|| Status::invalid_argument("the options are missing"))?;
    let wire::PlanOptions { environment, options_json, env, gateway, run, no_signals, by } = options;
    let read: PlanOptions = serde_json::from_slice(&options_json)
        .map_err(|error| Status::invalid_argument(format!("the options can't be read: {error}")))?;
    if read.environment.as_str() != environment {
        return Err(Status::invalid_argument("the options name two environments"));
    }
    let env: BTreeMap<String, String> = env.into_iter().collect();
    Ok((PlanRequest { options: read, files, env, gateway, run, no_signals }, by))
}

#[cfg(test)]
mod tests {
    use coord_common::diagnostic::{Diagnostic, Location};

    use super::*;

    fn refused(errors: usize, warnings: usize) -> (Refusal, usize) {
        let at = |n: usize| Location::file(format!("models/model_{n}.sql"));
        let mut refused = Refusal::new("project-invalid", "the project has errors", "mend them");
        refused.findings.extend((0..warnings).map(|n| Diagnostic::warning("w", at(n), "may be wrong")));
        refused.findings.extend((0..errors).map(|n| Diagnostic::error("e", at(n), "is wrong")));
        let status = refusal(refused);
        let read = serde_json::from_slice(status.details()).unwrap();
        (read, status.details().len())
    }

    #[test]
    fn few_findings_travel_whole_and_in_order() {
        let (read, _) = refused(2, 1);
        assert_eq!(read.message, "the project has errors");
        let errors: Vec<bool> = read.findings.iter().map(Diagnostic::is_error).collect();
        assert_eq!(errors, [false, true, true]);
    }

    #[test]
    fn of_many_findings_errors_travel_first_and_as_many_as_a_header_takes() {
        let (read, size) = refused(20, 900);
        assert!(size <= MAX_DETAILS, "{size}");
        assert!(size > MAX_DETAILS / 2, "{size}: more would have fitted");
        let errors = read.findings.iter().take_while(|finding| finding.is_error()).count();
        assert_eq!(errors, 20);
        let listed = read.findings.len();
        assert_eq!(read.message, format!("the project has errors; {listed} of 920 findings are listed"));
    }
}

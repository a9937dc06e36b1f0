//! The one place of `coordctl` that speaks the wire: calls of the control service, and documents
//! put together from their pieces.

use std::collections::BTreeMap;
use std::time::Duration;

use coord_common::id::{EnvironmentName, PlanId};
use coord_common::plan::{Plan, PlanOptions};
use coord_common::project::SourceFile;
use coord_proto::net::{Transport, control_client};
use coord_proto::wire;
use coord_proto::wire::control_client::ControlClient;
use coordinator::Refusal;
use coordinator::control::PlanView;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tonic::{Response, Status, Streaming};

use crate::error::{CliError, CliResult};
use crate::patience::{Patience, request_id};

/// Size of a file's pieces, in bytes.
const PIECE: usize = 1024 * 1024;

/// How long a watch may be silent: a coordinator that is there tells something twice a second.
const SILENCE: Duration = Duration::from_secs(10);

/// A connection to the coordinator that leads.
#[derive(Clone)]
pub(crate) struct Client {
    control: ControlClient<Transport>,
    transport: Transport,
    patience: Duration,
}

/// A plan as the coordinator answers it.
#[derive(Debug, Deserialize)]
pub(crate) struct PlanAnswer {
    pub(crate) plan: Plan,
    pub(crate) findings: Vec<coord_common::diagnostic::Diagnostic>,
    pub(crate) definitions: BTreeMap<String, [Option<String>; 2]>,
    /// Restatements of the environment that were begun and aren't at their end.
    #[serde(default)]
    pub(crate) unfinished: Vec<PlanId>,
}

/// What is sent for a plan.
#[derive(Clone)]
pub(crate) struct PlanUpload {
    pub(crate) options: PlanOptions,
    pub(crate) files: Vec<SourceFile>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) gateway: Option<String>,
    pub(crate) run: bool,
}

/// What is asked of environments.
pub(crate) enum Tend {
    Invalidate { environment: EnvironmentName, sync: bool },
    Rollback { environment: EnvironmentName, to: String, dry_run: bool },
    Abandon { what: String },
    Janitor { ignore_ttl: bool, environment: Option<String> },
    Destroy,
}

impl PlanUpload {
    fn messages(self, no_signals: bool) -> CliResult<Vec<wire::PlanRequest>> {
        let options_json = serde_json::to_vec(&self.options).map_err(|error| unreadable(&error))?;
        let options = wire::PlanOptions {
            environment: self.options.environment.to_string(),
            options_json,
            env: self.env.into_iter().collect(),
            gateway: self.gateway,
            run: self.run,
            no_signals,
            by: crate::command::who(),
        };
        let mut messages = vec![wire::PlanRequest { part: Some(wire::plan_request::Part::Options(options)) }];
        for file in self.files {
            messages.extend(pieces(&file));
        }
        Ok(messages)
    }
}

impl Client {
    /// A client over a transport that looks for a coordinator that leads for as long as `patience`.
    pub(crate) fn new(transport: impl Into<Transport>, patience: Duration) -> Self {
        let transport = transport.into();
        Self { control: control_client(transport.clone()), transport, patience }
    }

    /// Makes a call until a coordinator that leads answers it. It may take place more than once.
    async fn ask<T, F>(&self, call: impl Fn(ControlClient<Transport>) -> F) -> CliResult<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut patience = Patience::new(self.patience);
        loop {
            match call(self.control.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(status) => patience.wait(status).await?,
            }
        }
    }

    /// The same for a call that is answered with a document.
    async fn read<T, F>(&self, call: impl Fn(ControlClient<Transport>) -> F) -> CliResult<T>
    where
        T: DeserializeOwned,
        F: Future<Output = Result<Response<Streaming<wire::Chunk>>, Status>>,
    {
        let body = self.ask(|client| async {
            let mut stream = call(client).await?.into_inner();
            let mut body = Vec::new();
            while let Some(piece) = stream.message().await? {
                body.extend_from_slice(&piece.data);
            }
            Ok(body)
        });
        serde_json::from_slice(&body.await?).map_err(|error| unreadable(&error))
    }

    /// Plans.
    pub(crate) async fn plan(&mut self, upload: PlanUpload) -> CliResult<PlanAnswer> {
        let messages = upload.messages(false)?;
        self.read(|mut client| {
            let messages = messages.clone();
            async move { client.plan(tokio_stream::iter(messages)).await }
        })
        .await
    }

    /// What an environment misses; `signals`: after its models' signals.
    pub(crate) async fn check_intervals(
        &mut self,
        upload: PlanUpload,
        signals: bool,
    ) -> CliResult<serde_json::Value> {
        let messages = upload.messages(!signals)?;
        self.read(|mut client| {
            let messages = messages.clone();
            async move { client.check_intervals(tokio_stream::iter(messages)).await }
        })
        .await
    }

    /// A stored plan.
    pub(crate) async fn show_plan(&mut self, plan: &str) -> CliResult<Plan> {
        let request = wire::ShowPlanRequest { plan_id: plan.to_owned() };
        self.read(|mut client| {
            let request = request.clone();
            async move { client.show_plan(request).await }
        })
        .await
    }

    /// Starts or resumes a plan; how it was before: `started`, `resumed`, `running` or `finished`, or
    /// `again` where the answer had got lost.
    pub(crate) async fn apply(&mut self, plan: &str, by: String) -> CliResult<String> {
        let request = wire::ApplyRequest { plan_id: plan.to_owned(), by, request: request_id() };
        let answer = self.ask(|mut client| {
            let request = request.clone();
            async move { client.apply(request).await }
        });
        Ok(answer.await?.into_inner().state)
    }

    /// Follows a plan, view by view, until it has ended, from leader to leader.
    pub(crate) async fn watch(&mut self, plan: &str, mut see: impl FnMut(&PlanView)) -> CliResult<PlanView> {
        let mut request = wire::WatchRequest { plan_id: plan.to_owned(), log: 0, since: 0 };
        let mut patience = Patience::new(self.patience);
        loop {
            let mark = self.transport.mark();
            let opened = self.control.watch(request.clone()).await;
            let broke = match opened {
                Err(status) => status,
                Ok(stream) => {
                    let mut stream = stream.into_inner();
                    loop {
                        let piece = match timeout(SILENCE, stream.message()).await {
                            Ok(Ok(Some(piece))) => piece,
                            Ok(Ok(None)) => break Status::unavailable("the coordinator went away"),
                            Ok(Err(status)) => {
                                self.transport.refused(mark, &status);
                                break status;
                            }
                            Err(_) => {
                                self.transport.suspect(mark);
                                break Status::unavailable("the coordinator went silent");
                            }
                        };
                        let view: PlanView =
                            serde_json::from_slice(&piece.data).map_err(|error| unreadable(&error))?;
                        patience.renew();
                        (request.log, request.since) = (view.log, view.next as u64);
                        see(&view);
                        if view.ended {
                            return Ok(view);
                        }
                    }
                }
            };
            patience.wait(broke).await?;
        }
    }

    /// Approves a plan: its environment, and whether that asks for it.
    pub(crate) async fn approve(&mut self, plan: &str, by: String) -> CliResult<(String, bool)> {
        let request = wire::ApproveRequest { plan_id: plan.to_owned(), by };
        let answer = self.ask(|mut client| {
            let request = request.clone();
            async move { client.approve(request).await }
        });
        let reply = answer.await?.into_inner();
        Ok((reply.environment, reply.needed))
    }

    /// Stops a plan.
    pub(crate) async fn cancel(&mut self, plan: &str, by: String) -> CliResult<String> {
        let request = wire::CancelRequest { plan_id: plan.to_owned(), by };
        let answer = self.ask(|mut client| {
            let request = request.clone();
            async move { client.cancel(request).await }
        });
        Ok(answer.await?.into_inner().state)
    }

    /// Tends environments, document by document; the last one is the answer.
    pub(crate) async fn tend(
        &mut self,
        tend: Tend,
        by: String,
        mut see: impl FnMut(&serde_json::Value) -> CliResult,
    ) -> CliResult<serde_json::Value> {
        let goes = tend.what_goes();
        let request = wire::TendRequest { by, request: request_id(), action: Some(tend.action()) };
        let mut patience = Patience::new(self.patience);
        loop {
            let broke = match self.tend_once(request.clone(), &mut patience, &mut see).await? {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            if patience.unsure && !goes.is_empty() && is_unknown(&broke) {
                // Asked before, and gone since.
                return Ok(serde_json::json!({ "environments": goes, "troubles": {}, "ended": true }));
            }
            patience.wait(broke).await?;
        }
    }

    async fn tend_once(
        &mut self,
        request: wire::TendRequest,
        patience: &mut Patience,
        see: &mut impl FnMut(&serde_json::Value) -> CliResult,
    ) -> CliResult<Result<serde_json::Value, Status>> {
        let mut stream = match self.control.tend(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Ok(Err(status)),
        };
        loop {
            let piece = match stream.message().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(Err(Status::unavailable("the coordinator went away"))),
                Err(status) => return Ok(Err(status)),
            };
            let document: serde_json::Value =
                serde_json::from_slice(&piece.data).map_err(|error| unreadable(&error))?;
            patience.renew();
            see(&document)?;
            if document["ended"] == true {
                return Ok(Ok(document));
            }
        }
    }

    /// A list, as a JSON document.
    pub(crate) async fn list(&mut self, what: &str, environment: &str) -> CliResult<serde_json::Value> {
        let (what, environment) = (what.to_owned(), environment.to_owned());
        self.list_part(wire::ListRequest { what, environment, ..Default::default() }).await
    }

    /// A part of the evidence: entries before a number, 0 standing for the end, the newest first.
    pub(crate) async fn history(
        &mut self,
        environment: &str,
        before: u64,
        limit: u32,
    ) -> CliResult<serde_json::Value> {
        let (what, environment) = ("history".to_owned(), environment.to_owned());
        self.list_part(wire::ListRequest { what, environment, before, limit }).await
    }

    async fn list_part(&mut self, request: wire::ListRequest) -> CliResult<serde_json::Value> {
        self.read(|mut client| {
            let request = request.clone();
            async move { client.list(request).await }
        })
        .await
    }

    /// Why models need a backfill, and what they read.
    pub(crate) async fn explain(
        &mut self,
        environment: &str,
        model: &str,
        plan: &str,
    ) -> CliResult<serde_json::Value> {
        let request = wire::ExplainRequest {
            environment: environment.to_owned(),
            model: model.to_owned(),
            plan_id: plan.to_owned(),
        };
        self.read(|mut client| {
            let request = request.clone();
            async move { client.explain(request).await }
        })
        .await
    }

    /// Who the coordinator is.
    pub(crate) async fn info(&mut self) -> CliResult<wire::InfoReply> {
        let answer = self.ask(|mut client| async move { client.info(wire::InfoRequest {}).await });
        Ok(answer.await?.into_inner())
    }
}

impl Tend {
    fn action(self) -> wire::tend_request::Action {
        use wire::tend_request::Action;
        match self {
            Self::Invalidate { environment, sync } => {
                Action::Invalidate(wire::Invalidate { environment: environment.to_string(), sync })
            }
            Self::Rollback { environment, to, dry_run } => {
                Action::Rollback(wire::Rollback { environment: environment.to_string(), to, dry_run })
            }
            Self::Abandon { what } => Action::Abandon(wire::Abandon { what }),
            Self::Destroy => Action::Destroy(wire::Destroy {}),
            Self::Janitor { ignore_ttl, environment } => {
                Action::Janitor(wire::Janitor { ignore_ttl, environment: environment.unwrap_or_default() })
            }
        }
    }

    /// What isn't there any more once it is done.
    fn what_goes(&self) -> Vec<String> {
        match self {
            Self::Invalidate { environment, .. } => vec![environment.to_string()],
            Self::Abandon { what } => vec![what.clone()],
            Self::Rollback { .. } | Self::Janitor { .. } | Self::Destroy => Vec::new(),
        }
    }
}

/// Whether what was asked for isn't there.
fn is_unknown(status: &Status) -> bool {
    serde_json::from_slice::<Refusal>(status.details())
        .is_ok_and(|refusal| matches!(refusal.code.as_str(), "unknown-environment" | "unknown-plan"))
}

fn pieces(file: &SourceFile) -> Vec<wire::PlanRequest> {
    let bytes = file.text.as_bytes();
    let count = bytes.len().div_ceil(PIECE).max(1);
    (0..count)
        .map(|n| {
            let data = bytes[n * PIECE..((n + 1) * PIECE).min(bytes.len())].to_vec();
            let file = wire::SourceFile { path: file.path.to_string(), data, last: n + 1 == count };
            wire::PlanRequest { part: Some(wire::plan_request::Part::File(file)) }
        })
        .collect()
}

fn unreadable(error: &serde_json::Error) -> CliError {
    CliError::ours("document", format!("a document of the coordinator can't be read: {error}"))
}

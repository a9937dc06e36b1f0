//! The one place of `coordctl` that speaks the wire: calls of the control service, and documents
//! put together from their pieces.

use std::collections::BTreeMap;

use coord_common::id::{EnvironmentName, PlanId};
use coord_common::plan::{Plan, PlanOptions};
use coord_common::project::SourceFile;
use coord_proto::net::{Transport, control_client};
use coord_proto::wire;
use coord_proto::wire::control_client::ControlClient;
use coordinator::control::PlanView;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_stream::StreamExt;
use tonic::Streaming;

use crate::error::{CliError, CliResult};

/// Size of a file's pieces, in bytes.
const PIECE: usize = 1024 * 1024;

/// A connection to a coordinator.
#[derive(Clone)]
pub(crate) struct Client(ControlClient<Transport>);

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
    Janitor { ignore_ttl: bool },
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
    /// A client over a transport.
    pub(crate) fn new(transport: impl Into<Transport>) -> Self {
        Self(control_client(transport.into()))
    }

    /// Plans.
    pub(crate) async fn plan(&mut self, upload: PlanUpload) -> CliResult<PlanAnswer> {
        let messages = upload.messages(false)?;
        let answer = self.0.plan(tokio_stream::iter(messages)).await?;
        document(answer.into_inner()).await
    }

    /// What an environment misses; `signals`: after its models' signals.
    pub(crate) async fn check_intervals(
        &mut self,
        upload: PlanUpload,
        signals: bool,
    ) -> CliResult<serde_json::Value> {
        let messages = upload.messages(!signals)?;
        let answer = self.0.check_intervals(tokio_stream::iter(messages)).await?;
        document(answer.into_inner()).await
    }

    /// A stored plan.
    pub(crate) async fn show_plan(&mut self, plan: &str) -> CliResult<Plan> {
        let answer = self.0.show_plan(wire::ShowPlanRequest { plan_id: plan.to_owned() }).await?;
        document(answer.into_inner()).await
    }

    /// Starts or resumes a plan; how it was before: `started`, `resumed`, `running` or `finished`.
    pub(crate) async fn apply(&mut self, plan: &str, by: String) -> CliResult<String> {
        let request = wire::ApplyRequest { plan_id: plan.to_owned(), by };
        Ok(self.0.apply(request).await?.into_inner().state)
    }

    /// Follows a plan, view by view, until it has ended or `see` has seen enough.
    pub(crate) async fn watch(&mut self, plan: &str, mut see: impl FnMut(&PlanView)) -> CliResult<PlanView> {
        let mut last = None;
        let mut stream = self.0.watch(wire::WatchRequest { plan_id: plan.to_owned() }).await?.into_inner();
        while let Some(piece) = stream.next().await {
            let view: PlanView = serde_json::from_slice(&piece?.data).map_err(|error| unreadable(&error))?;
            see(&view);
            last = Some(view);
        }
        match last {
            Some(view) if view.ended => Ok(view),
            _ => Err(CliError::ours(
                "watch-ended",
                "the coordinator went away while the plan ran; `coordctl watch` follows it again",
            )),
        }
    }

    /// Approves a plan: its environment, and whether that asks for it.
    pub(crate) async fn approve(&mut self, plan: &str, by: String) -> CliResult<(String, bool)> {
        let request = wire::ApproveRequest { plan_id: plan.to_owned(), by };
        let reply = self.0.approve(request).await?.into_inner();
        Ok((reply.environment, reply.needed))
    }

    /// Stops a plan.
    pub(crate) async fn cancel(&mut self, plan: &str, by: String) -> CliResult<String> {
        Ok(self.0.cancel(wire::CancelRequest { plan_id: plan.to_owned(), by }).await?.into_inner().state)
    }

    /// Tends environments, document by document; the last one is the answer.
    pub(crate) async fn tend(
        &mut self,
        tend: Tend,
        by: String,
        mut see: impl FnMut(&serde_json::Value) -> CliResult,
    ) -> CliResult<serde_json::Value> {
        use wire::tend_request::Action;
        let action = match tend {
            Tend::Invalidate { environment, sync } => {
                Action::Invalidate(wire::Invalidate { environment: environment.to_string(), sync })
            }
            Tend::Rollback { environment, to, dry_run } => {
                Action::Rollback(wire::Rollback { environment: environment.to_string(), to, dry_run })
            }
            Tend::Abandon { what } => Action::Abandon(wire::Abandon { what }),
            Tend::Destroy => Action::Destroy(wire::Destroy {}),
            Tend::Janitor { ignore_ttl } => Action::Janitor(wire::Janitor { ignore_ttl }),
        };
        let request = wire::TendRequest { by, action: Some(action) };
        let mut stream = self.0.tend(request).await?.into_inner();
        let mut last = serde_json::Value::Null;
        while let Some(piece) = stream.next().await {
            last = serde_json::from_slice(&piece?.data).map_err(|error| unreadable(&error))?;
            see(&last)?;
        }
        if last["ended"] == true {
            return Ok(last);
        }
        Err(CliError::ours("tend-ended", "the coordinator went away meanwhile; give the command again"))
    }

    /// A list, as a JSON document.
    pub(crate) async fn list(&mut self, what: &str, environment: &str) -> CliResult<serde_json::Value> {
        let request = wire::ListRequest { what: what.to_owned(), environment: environment.to_owned() };
        document(self.0.list(request).await?.into_inner()).await
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
        document(self.0.explain(request).await?.into_inner()).await
    }

    /// Who the coordinator is.
    pub(crate) async fn info(&mut self) -> CliResult<wire::InfoReply> {
        Ok(self.0.info(wire::InfoRequest {}).await?.into_inner())
    }
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

async fn document<T: DeserializeOwned>(mut stream: Streaming<wire::Chunk>) -> CliResult<T> {
    let mut body = Vec::new();
    while let Some(piece) = stream.next().await {
        body.extend_from_slice(&piece?.data);
    }
    serde_json::from_slice(&body).map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> CliError {
    CliError::ours("document", format!("a document of the coordinator can't be read: {error}"))
}

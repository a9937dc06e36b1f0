//! Coordinator and workers in this process: the same code as a fleet's, over an in-memory channel,
//! on a SQLite file.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coord_common::id::WorkerId;
use coord_common::project::Settings;
use coordinator::store::{self, StoreUrl};
use coordinator::{Clock, ControlConfig, Server};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use worker::agent::{Agent, AgentConfig, SnapshotSource};
use worker::execute::Executor;

use crate::error::{CliError, CliResult};

/// Bytes in flight on one in-memory connection.
const PIPE: usize = 1024 * 1024;

/// A coordinator in this process, and perhaps a worker.
pub(crate) struct Embedded {
    channel: Channel,
    stop: CancellationToken,
    server: JoinHandle<Result<(), coordinator::ServeError>>,
    workers: Vec<JoinHandle<()>>,
    /// The gateways that the workers have open.
    gateways: BTreeSet<String>,
}

impl Embedded {
    /// Starts a coordinator on a state.
    pub(crate) async fn start(state: &str, clock: Clock) -> CliResult<Self> {
        let url = StoreUrl::parse(state).map_err(|error| {
            CliError::user("bad-state", error.to_string(), "give a folder, sqlite:FILE or etcd://host:port")
        })?;
        let store = open_patiently(&url).await.map_err(|error| state_error(&error))?;
        // A state file has one user at a time; workers elsewhere may share an etcd with us.
        let lone = matches!(url, StoreUrl::Sqlite(_));
        let config = ControlConfig { lone, ..ControlConfig::default() };
        let server = Server::new(store, state_name(&url), config, clock).await.map_err(serve_error)?;
        let (connections, incoming) = mpsc::channel::<Result<DuplexStream, std::io::Error>>(1);
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.serve(ReceiverStream::new(incoming), stop.clone()));
        let channel = Endpoint::from_static("http://embedded").connect_with_connector_lazy(service_fn(
            move |_: Uri| {
                let connections = connections.clone();
                async move {
                    let (near, far) = tokio::io::duplex(PIPE);
                    connections
                        .send(Ok(far))
                        .await
                        .map_err(|_| std::io::Error::other("the coordinator has ended"))?;
                    Ok::<_, std::io::Error>(TokioIo::new(near))
                }
            },
        ));
        Ok(Self { channel, stop, server: serving, workers: Vec::new(), gateways: BTreeSet::new() })
    }

    /// The way to the coordinator.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Starts a worker with the engines of the gateways that are needed and not open yet.
    pub(crate) fn start_worker(
        &mut self,
        settings: &Settings,
        folder: &std::path::Path,
        needed: &[String],
    ) -> CliResult {
        let needed: Vec<String> =
            needed.iter().filter(|name| !self.gateways.contains(*name)).cloned().collect();
        if needed.is_empty() {
            return Ok(());
        }
        let engines = worker::config::open_engines(settings, folder, &needed).map_err(gateway_error)?;
        self.gateways.extend(needed);
        let slots: usize = engines.values().map(|engine| engine.concurrency()).sum();
        let id = format!("embedded-{}-{}", std::process::id(), self.workers.len());
        let worker: WorkerId = id.parse().map_err(|_| CliError::ours("worker-id", id.clone()))?;
        let config = AgentConfig {
            worker,
            gateways: engines.keys().cloned().collect(),
            slots: slots.max(1) as u32,
            grace: Duration::from_secs(5),
        };
        let executor = Arc::new(Executor::new(engines, SnapshotSource::new(self.channel())));
        let agent = Agent::new(config, self.channel(), executor);
        let stop = self.stop.clone();
        self.workers.push(tokio::spawn(agent.run(stop)));
        Ok(())
    }

    /// Lets go of leases, and of the state.
    ///
    /// # Errors
    /// Why the coordinator had ended by itself, if it had.
    pub(crate) async fn stop(self) -> CliResult {
        self.stop.cancel();
        for worker in self.workers {
            let _ = tokio::time::timeout(Duration::from_secs(6), worker).await;
        }
        drop(self.channel);
        match tokio::time::timeout(Duration::from_secs(2), self.server).await {
            Ok(Ok(Err(error))) => Err(serve_error(error)),
            // What still runs, or was aborted, ends with the process.
            Ok(Ok(Ok(())) | Err(_)) | Err(_) => Ok(()),
        }
    }
}

/// Opens a store, with a moment's patience for a process that is just ending.
pub(crate) async fn open_patiently(url: &StoreUrl) -> Result<Arc<dyn store::Store>, store::StoreError> {
    for _ in 0..20 {
        match store::open(url).await {
            Err(store::StoreError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
            opened => return opened,
        }
    }
    store::open(url).await
}

/// The state's place for people, without secrets.
fn state_name(url: &StoreUrl) -> String {
    match url {
        StoreUrl::Sqlite(path) => path.display().to_string(),
        StoreUrl::Etcd(_) => "etcd".to_owned(),
    }
}

fn serve_error(error: coordinator::ServeError) -> CliError {
    match error {
        coordinator::ServeError::Store(error) => state_error(&error),
        coordinator::ServeError::Transport(error) => CliError::ours("transport", error.to_string()),
    }
}

pub(crate) fn state_error(error: &store::StoreError) -> CliError {
    if error.is_final() {
        return CliError { hint: None, ..CliError::user("state", error.to_string(), "") };
    }
    CliError {
        hint: Some("check that etcd runs and that --state names it".to_owned()),
        ..CliError::ours("state-unavailable", error.to_string())
    }
}

/// What a worker's refusal means here.
pub(crate) fn gateway_error(error: worker::config::GatewayError) -> CliError {
    use worker::config::GatewayError;
    let hint = match &error {
        GatewayError::Engine { source, .. } => source.hint.clone(),
        GatewayError::Unsupported { .. } => Some("use --gateway to choose another gateway".to_owned()),
        GatewayError::Invalid { .. } => Some("complete the connection in config.yaml".to_owned()),
    };
    CliError { hint, ..CliError::user("gateway", error.to_string(), "") }
}

//! The worker's process: configure, start, signal, drain.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use coord_common::id::WorkerId;
use coord_common::project::settings::CONFIG_FILES;
use coord_common::project::{ProjectInput, Settings, SourceFile, load_settings, read_timeout};
use coord_proto::net::{self, ConnectOptions, Credential, TOKEN_VARIABLE};
use coord_proto::tls::{ClientTls, ClientTlsArgs};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;
use worker::agent::{Agent, AgentConfig, SnapshotSource};
use worker::config::open_engines;
use worker::execute::Executor;

/// Takes leases from a coordinator and runs their SQL in the warehouse.
#[derive(Debug, Parser)]
#[command(name = "worker", version)]
struct Args {
    /// The coordinators, of which one leads: repeated, or separated by commas.
    #[arg(
        long,
        default_value = "http://127.0.0.1:7070",
        env = "COORDCTL_SERVER",
        value_name = "URL",
        value_delimiter = ','
    )]
    coordinator: Vec<String>,
    #[command(flatten)]
    tls: ClientTlsArgs,
    /// A folder with the config.yaml whose gateways this worker reaches; nothing else of it is read.
    #[arg(long, short = 'p', default_value = ".")]
    project: PathBuf,
    /// Gateways to serve, by name [default: the config's default gateway].
    #[arg(long)]
    gateway: Vec<String>,
    /// A file with the token that the coordinator asks for; without it, COORDCTL_TOKEN is.
    #[arg(long, env = "COORDCTL_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How many leases to hold at once [default: the gateways' concurrent_tasks].
    #[arg(long)]
    slots: Option<u32>,
    /// How long a drain may take, in seconds.
    #[arg(long, default_value_t = 25)]
    grace: u64,
    /// How long a batch may take, such as `90` (seconds) or `10 minutes`: then its statement is stopped in
    /// the warehouse. A model's session property `batch_timeout` counts more [default: no limit].
    #[arg(long, value_parser = time_span)]
    batch_timeout: Option<Duration>,
    /// The session's name, to which a process id and a time are added; that of its token or certificate
    /// where the coordinator asks for one.
    #[arg(long, default_value = "worker")]
    name: String,
}

/// How long a database in this process may take to be written out and closed.
const CLOSING: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let outcome = run();
    if !worker::engine::wait_until_closed(CLOSING) {
        tracing::warn!("a database is still being written: it is left as after a crash");
    }
    outcome
}

// One thread: batches are small messages to a warehouse and back, which cost less than waking
// another thread. Engines that compute in this process have threads of their own.
#[tokio::main(flavor = "current_thread")]
async fn run() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let settings = settings(&args.project)?;
    let gateways =
        if args.gateway.is_empty() { vec![settings.default_gateway.clone()] } else { args.gateway.clone() };
    let engines = open_engines(&settings, &args.project, &gateways)?;
    for (gateway, engine) in &engines {
        let version = engine.ping().await.with_context(|| format!("gateway `{gateway}` is not to be had"))?;
        info!(gateway, version, "connected");
    }
    let slots =
        args.slots.unwrap_or_else(|| engines.values().map(|engine| engine.concurrency() as u32).sum());
    let options = ConnectOptions {
        tls: ClientTls::new(&args.tls)?,
        credential: Credential::given(args.token_file.as_deref())?,
        ..ConnectOptions::default()
    };
    let transport = net::connect(&args.coordinator, &options).context("--coordinator")?;
    let config = AgentConfig {
        worker: session(&args.name)?,
        gateways: engines.keys().cloned().collect(),
        slots: slots.max(1),
        grace: Duration::from_secs(args.grace),
    };
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone())?;
    info!(worker = %config.worker, slots, coordinator = args.coordinator.join(","), "starting");
    let executor = Executor::new(engines, SnapshotSource::new(transport.clone()));
    let executor = Arc::new(executor.with_batch_timeout(args.batch_timeout).waiting_for_warehouses());
    Agent::new(config, transport, executor).run(stop).await;
    info!("stopped");
    Ok(())
}

fn time_span(text: &str) -> Result<Duration, String> {
    read_timeout(text).ok_or_else(|| "not a positive number of seconds, nor like `10 minutes`".to_owned())
}

/// The settings of a config, the only file that a worker reads.
fn settings(folder: &Path) -> anyhow::Result<Settings> {
    let mut files = Vec::new();
    for name in CONFIG_FILES.into_iter().chain([".env"]) {
        let path = folder.join(name);
        if path.is_file() {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            files.push(SourceFile { path: name.into(), text: text.into() });
        }
    }
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        // No text of a project can name it.
        .filter(|(name, _)| name != TOKEN_VARIABLE)
        .collect();
    let (settings, findings) = load_settings(&ProjectInput { files: &files, env: &env, gateway: None });
    let errors: Vec<String> =
        findings.iter().filter(|finding| finding.is_error()).map(ToString::to_string).collect();
    anyhow::ensure!(errors.is_empty(), "{}", errors.join("\n"));
    Ok(settings)
}

/// A name that no other process ever had.
fn session(name: &str) -> anyhow::Result<WorkerId> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{name}-{}-{:x}", std::process::id(), since.as_millis()).parse()?)
}

fn stop_on_signals(stop: CancellationToken) -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        info!("draining");
        stop.cancel();
    });
    Ok(())
}

//! The coordinator's process: configure, start, signal, drain.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use coord_common::id::EnvironmentName;
use coord_common::interval::Timestamp;
use coord_common::plan::Retention;
use coord_proto::net;
use coord_proto::tls::{ClientCertificates, ServerTls, ServerTlsArgs, incoming};
use coordinator::access::{Access, OidcConfig};
use coordinator::listen::{Authentication, listen};
use coordinator::store::{self, StoreUrl};
use coordinator::{Clock, ControlConfig, Planning, Server, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Plans, leases interval batches to workers, records completions, moves environments' pointers.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version)]
struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:7070", env = "COORDINATOR_LISTEN")]
    listen: String,
    #[command(flatten)]
    tls: ServerTlsArgs,
    /// Where clients reach this coordinator while it leads, such as https://coordinator-1:7070;
    /// standbys send them there [default: the address it listens on, if that is one].
    #[arg(long, value_name = "URL", env = "COORDINATOR_ADVERTISE")]
    advertise: Option<String>,
    /// Listen beyond loopback although callers don't have to say who they are.
    #[arg(long)]
    insecure: bool,
    /// Where the state is: etcd://host:port,…/prefix, sqlite:FILE or a folder.
    #[arg(long, env = "COORDCTL_STATE")]
    state: String,
    /// How many connections are open at most; each needs a file descriptor.
    #[arg(long, default_value_t = 10_000)]
    max_connections: usize,
    /// How many sessions of workers are registered at most, each for two minutes after its last word.
    #[arg(long, default_value_t = 10_000)]
    max_sessions: usize,
    /// How long a batch's lease holds without a heartbeat, in milliseconds.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(300..))]
    lease_ttl_millis: u64,
    /// How long leadership outlives this process, in milliseconds.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    election_ttl_millis: u64,
    /// First pause before a failed batch is tried again, in milliseconds.
    #[arg(long, default_value_t = 2_000)]
    retry_base_millis: u64,
    /// How many former promotions of an environment can be gone back to, at most.
    #[arg(long, default_value_t = 10)]
    keep_promotions: usize,
    /// For how many days after they were replaced.
    #[arg(long, default_value_t = 7)]
    keep_promotions_days: u32,
    /// The fleet whose client certificates are taken: those for r://<cluster>/<role>/<name>.
    #[arg(long, value_name = "NAME", default_value = "main", env = "COORDINATOR_CLUSTER")]
    cluster: String,
    /// A file with the bearer tokens that callers may show; `coordctl token new` makes its lines.
    #[arg(long, value_name = "FILE", env = "COORDINATOR_TOKENS")]
    tokens: Option<PathBuf>,
    /// Take the tokens of this identity provider (OpenID Connect): exactly their claim `iss`.
    #[arg(long, value_name = "URL", requires_all = ["oidc_audience", "oidc_jwks"])]
    oidc_issuer: Option<String>,
    /// For whom these tokens must be: their claim `aud`.
    #[arg(long, value_name = "NAME", requires = "oidc_issuer")]
    oidc_audience: Option<String>,
    /// The provider's public keys: a JSON web key set in a file, or at an https:// address.
    #[arg(long, value_name = "FILE|URL", requires = "oidc_issuer")]
    oidc_jwks: Option<String>,
    /// Certificates that are trusted to speak for that address, instead of the public ones.
    #[arg(long, value_name = "FILE", requires = "oidc_issuer")]
    oidc_ca: Option<PathBuf>,
    /// The claim that lists roles; a path with dots where it is within others.
    #[arg(long, value_name = "CLAIM", default_value = "roles")]
    oidc_roles_claim: String,
    /// Environments that change only by plans which somebody else than their author has approved.
    #[arg(long, value_name = "ENV", value_delimiter = ',')]
    protect: Vec<EnvironmentName>,
    /// For how many days plans are kept that nothing needs.
    #[arg(long, default_value_t = 14)]
    keep_plans_days: u32,
}

// One thread: the control loop is one task, and what it waits for comes in small messages that cost
// less than waking another thread. Planning and SQLite have threads of their own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let telemetry = telemetry::start("coordinator")?;
    let access = access(&args)?;
    anyhow::ensure!(
        args.protect.is_empty() || access.is_required(),
        "--protect needs to know who calls: give --tls-client-ca, --tokens or --oidc-issuer, too"
    );
    let tokens = args.tokens.is_some() || args.oidc_issuer.is_some();
    // Who may show a token instead needs no certificate.
    let clients = if tokens { ClientCertificates::Optional } else { ClientCertificates::Required };
    let tls = ServerTls::new(&args.tls, clients)?;
    let certificates = args.tls.tls_client_ca.is_some();
    let authentication = Authentication { encrypted: tls.is_some(), certificates, tokens };
    let url = StoreUrl::parse(&args.state).context("--state")?;
    let store = store::open(&url).await?;
    let listener = listen(&args.listen, authentication, args.insecure).await?;
    let config = ControlConfig {
        address: advertised(args.advertise, listener.local_addr()?, tls.is_some())?,
        identity: format!("{}/{}", args.listen, std::process::id()),
        lease_ttl: Duration::from_millis(args.lease_ttl_millis),
        election_ttl: Duration::from_millis(args.election_ttl_millis),
        retry_base: Duration::from_millis(args.retry_base_millis),
        lone: false,
        planning: Planning::default(),
        connections: args.max_connections,
        sessions: args.max_sessions,
        retention: Retention {
            promotions: args.keep_promotions,
            promotion_age: i64::from(args.keep_promotions_days) * 86_400_000,
            plan_age: i64::from(args.keep_plans_days) * 86_400_000,
        },
        protected: args.protect.iter().cloned().collect(),
    };
    let place = match &url {
        StoreUrl::Etcd(_) => "etcd".to_owned(),
        StoreUrl::Sqlite(path) => path.display().to_string(),
    };
    let server = Server::new(store, place, config, clock()?).await?.guarded_by(access);
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone())?;
    info!(listen = %listener.local_addr()?, encrypted = tls.is_some(), "serving");
    server.serve(incoming(listener, tls), stop).await?;
    telemetry.end();
    Ok(())
}

/// What callers must show, if anything.
fn access(args: &Args) -> anyhow::Result<Access> {
    let oidc = oidc(args);
    let certificates = args.tls.tls_client_ca.is_some();
    if args.tokens.is_none() && oidc.is_none() && !certificates {
        return Ok(Access::trusting());
    }
    let mut access = Access::requiring();
    if certificates {
        access = access.certificates(&args.cluster);
    }
    if let Some(tokens) = &args.tokens {
        access = access.tokens(tokens).context("--tokens")?;
    }
    if let Some(oidc) = oidc {
        access = access.oidc(oidc).context("--oidc-jwks")?;
    }
    Ok(access.build())
}

/// Whose signed tokens are taken, if anybody's.
fn oidc(args: &Args) -> Option<OidcConfig> {
    Some(OidcConfig {
        issuer: args.oidc_issuer.clone()?,
        audience: args.oidc_audience.clone()?,
        jwks: args.oidc_jwks.clone()?,
        authority: args.oidc_ca.clone(),
        roles_claim: args.oidc_roles_claim.clone(),
    })
}

/// The address that standbys name: as it is given, or where this process listens, unless that is
/// every address of the machine.
fn advertised(given: Option<String>, listens: SocketAddr, encrypted: bool) -> anyhow::Result<Option<String>> {
    if let Some(address) = given {
        net::check_address(&address).context("--advertise")?;
        return Ok(Some(address));
    }
    let scheme = if encrypted { "https" } else { "http" };
    Ok((!listens.ip().is_unspecified()).then(|| format!("{scheme}://{listens}")))
}

/// The system's clock, unless COORDCTL_NOW sets one for tests.
fn clock() -> anyhow::Result<Clock> {
    let wall = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(since.as_millis() as i64)
    };
    match std::env::var("COORDCTL_NOW") {
        Ok(text) => {
            let at = coord_common::interval::parse_time(&text, wall()).context("COORDCTL_NOW")?.at;
            Ok(Arc::new(move || at))
        }
        Err(_) => Ok(Arc::new(wall)),
    }
}

fn stop_on_signals(stop: CancellationToken) -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        info!("stopping");
        stop.cancel();
    });
    Ok(())
}

//! What commands work with: the clock, the way to a coordinator, and how to print.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coord_common::interval::{Timestamp, parse_time};
use coord_common::project::Settings;
use coord_proto::net::{self, ConnectOptions, Credential, Transport};
use coord_proto::tls::ClientTls;
use coordinator::Clock;

use crate::args::{Format, Global};
use crate::client::Client;
use crate::embedded::Embedded;
use crate::error::{CliError, CliResult};
use crate::files::{self, ProjectFiles};

/// Sets the clock, for tests: any time that `--execution-time` takes.
pub(crate) const NOW: &str = "COORDCTL_NOW";

/// A command's surroundings.
pub(crate) struct Session {
    pub(crate) global: Global,
    embedded: Option<Embedded>,
    remote: Option<Transport>,
}

impl Session {
    pub(crate) fn new(global: Global) -> Self {
        Self { global, embedded: None, remote: None }
    }

    /// How data is printed.
    pub(crate) fn format(&self) -> Format {
        self.global.format
    }

    /// The clock: the system's, unless the environment sets it.
    pub(crate) fn clock() -> CliResult<Clock> {
        let Ok(text) = std::env::var(NOW) else { return Ok(Arc::new(wall)) };
        let at = parse_time(&text, wall()).map_err(|error| {
            CliError::user(
                "bad-time",
                format!("{NOW}: {error}"),
                "write a date and time, such as 2024-01-31 12:00:00",
            )
        })?;
        Ok(Arc::new(move || at.at))
    }

    /// The project's files.
    pub(crate) fn files(&self) -> CliResult<ProjectFiles> {
        files::read(&self.global)
    }

    /// A coordinator: the one of `--server`, or one in this process.
    pub(crate) async fn client(&mut self) -> CliResult<Client> {
        if !self.is_embedded() {
            return Ok(Client::new(self.remote()?, Duration::from_secs(self.global.server_timeout)));
        }
        if self.embedded.is_none() {
            let state = self.state()?;
            self.embedded = Some(Embedded::start(&state, Self::clock()?).await?);
        }
        match &self.embedded {
            // It is there, or it isn't: there is nobody to wait for.
            Some(embedded) => Ok(Client::new(embedded.channel(), Duration::ZERO)),
            None => Err(CliError::ours("embedded", "the embedded coordinator did not start")),
        }
    }

    /// Whether all runs in this process.
    pub(crate) fn is_embedded(&self) -> bool {
        self.global.server.iter().all(String::is_empty)
    }

    /// The way to the coordinators of `--server`.
    fn remote(&mut self) -> CliResult<Transport> {
        if let Some(remote) = &self.remote {
            return Ok(remote.clone());
        }
        let options = ConnectOptions {
            tls: self.certificates()?,
            credential: self.credential()?,
            // Somebody waits for each call.
            keepalive: Duration::from_secs(5),
            ..ConnectOptions::default()
        };
        let servers: Vec<String> =
            self.global.server.iter().filter(|server| !server.is_empty()).cloned().collect();
        let remote = net::connect(&servers, &options).map_err(|error| {
            let hint = "write http://host:port, or https://host:port with --tls-ca";
            CliError::user("bad-server", format!("--server: {error}"), hint)
        })?;
        Ok(self.remote.insert(remote).clone())
    }

    /// What coordinators are shown, if anything was given.
    fn credential(&self) -> CliResult<Option<Credential>> {
        Credential::given(self.global.token_file.as_deref()).map_err(|error| {
            let hint = "give --token-file FILE or COORDCTL_TOKEN; `coordctl token new` makes tokens";
            CliError::user("bad-token", error.to_string(), hint)
        })
    }

    /// The certificates for `--server`.
    fn certificates(&self) -> CliResult<Option<Arc<ClientTls>>> {
        ClientTls::new(&self.global.tls).map_err(|error| {
            CliError::user("bad-certificate", error.to_string(), "check --tls-ca, --tls-cert and --tls-key")
        })
    }

    /// Where the embedded state is.
    pub(crate) fn state(&self) -> CliResult<String> {
        match &self.global.state {
            Some(state) => Ok(state.clone()),
            None => Ok(files::find(&self.global)?.join(".coordctl").display().to_string()),
        }
    }

    /// Starts the embedded worker with the gateways that are needed; a fleet has its own.
    pub(crate) fn start_worker(
        &mut self,
        settings: &Settings,
        folder: PathBuf,
        needed: &[String],
    ) -> CliResult {
        match &mut self.embedded {
            Some(embedded) => embedded.start_worker(settings, &folder, needed),
            None => Ok(()),
        }
    }

    /// Ends what was started.
    ///
    /// # Errors
    /// Why the embedded coordinator had ended by itself, if it had.
    pub(crate) async fn close(self) -> CliResult {
        match self.embedded {
            Some(embedded) => embedded.stop().await,
            None => Ok(()),
        }
    }
}

fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as i64)
}

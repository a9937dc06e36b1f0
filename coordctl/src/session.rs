//! What commands work with: the clock, the way to a coordinator, and how to print.

use std::path::PathBuf;
use std::sync::Arc;

use coord_common::interval::{Timestamp, parse_time};
use coord_common::project::Settings;
use coord_proto::net::{self, ConnectError, ConnectOptions, Credential, CredentialError};
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
}

impl Session {
    pub(crate) fn new(global: Global) -> Self {
        Self { global, embedded: None }
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
        if let Some(server) = &self.global.server {
            let options = ConnectOptions { tls: self.certificates()?, ..ConnectOptions::default() };
            let channel = net::connect(server, &options).await.map_err(|error| match error {
                ConnectError::Address(error) => CliError::user(
                    "bad-server",
                    format!("--server: {error}"),
                    "write http://host:port, or https://host:port with --tls-ca",
                ),
                ConnectError::Unavailable(error) => {
                    let message = format!("there is no coordinator at {server}: {}", chain(&error));
                    CliError {
                        hint: Some("start one, or leave --server out to work embedded".to_owned()),
                        ..CliError::ours("coordinator-unavailable", message)
                    }
                }
            })?;
            return Ok(match self.credential(server)? {
                Some(credential) => Client::new(credential.over(channel.into())),
                None => Client::new(channel),
            });
        }
        if self.embedded.is_none() {
            let state = self.state()?;
            self.embedded = Some(Embedded::start(&state, Self::clock()?).await?);
        }
        match &self.embedded {
            Some(embedded) => Ok(Client::new(embedded.channel())),
            None => Err(CliError::ours("embedded", "the embedded coordinator did not start")),
        }
    }

    /// What a coordinator is shown, if anything was given.
    fn credential(&self, server: &str) -> CliResult<Option<Credential>> {
        let bad = |error: CredentialError| {
            let hint = "give --token-file FILE or COORDCTL_TOKEN; `coordctl token new` makes tokens";
            CliError::user("bad-token", error.to_string(), hint)
        };
        let credential = Credential::given(self.global.token_file.as_deref()).map_err(bad)?;
        if let Some(credential) = &credential {
            credential.check(server).map_err(bad)?;
        }
        Ok(credential)
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

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}

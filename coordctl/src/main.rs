//! `coordctl`: reads files, asks, prints. Without a server it runs coordinator and worker in its
//! own process.

mod args;
mod client;
mod command;
mod embedded;
mod encoding;
mod error;
mod files;
mod output;
mod patience;
mod refused;
mod session;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Cli, Format};
use error::CliError;
use session::Session;

/// How long a database may take to be written out and closed.
const CLOSING: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return misused(&usage),
    };
    log(cli.global.debug);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error_line(&format!("the runtime could not start: {error}"));
            return ExitCode::from(2);
        }
    };
    let format = cli.global.format;
    let outcome = runtime.block_on(async {
        let mut session = Session::new(cli.global);
        let outcome = command::run(&mut session, cli.command).await;
        let closed = session.close().await;
        // Whatever the command ran into then follows from it.
        match closed {
            Ok(()) => outcome,
            Err(cause) => Err(cause),
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    if !worker::engine::wait_until_closed(CLOSING) {
        tracing::warn!("a database is still being written: it is left as after a crash");
    }
    match outcome {
        Ok(code) => code,
        Err(error) => {
            match format {
                Format::Json => output::error_line(&error.document().to_string()),
                Format::Text | Format::Csv => output::error(&error),
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// The command line can't be understood, or asks for help. Its `--format` isn't known then.
fn misused(usage: &clap::Error) -> ExitCode {
    if !usage.use_stderr() {
        let _ = usage.print();
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let wants_json = words.iter().any(|word| word == "--format=json")
        || words.windows(2).any(|w| w == ["--format", "json"]);
    let error = refused::explain(usage).map(|(message, hint)| CliError::user("usage", message, hint));
    match (error, wants_json) {
        (Some(error), true) => output::error_line(&error.document().to_string()),
        (Some(error), false) => output::error(&error),
        (None, true) => {
            let text = usage.render().to_string();
            let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let error = CliError::user("usage", message, "`coordctl --help` lists the commands and flags");
            output::error_line(&error.document().to_string());
        }
        (None, false) => {
            let _ = usage.print();
        }
    }
    ExitCode::from(1)
}

/// Logs go to standard error; quiet unless asked for, as results are what people came for.
fn log(debug: bool) {
    // Why the embedded coordinator ends is the command's own error.
    let quiet = "error,coordinator::serve=off";
    let default = if debug { "info,coordinator=debug,worker=debug,coordctl=debug" } else { quiet };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(output::colours_wanted())
        .with_writer(std::io::stderr)
        .init();
}

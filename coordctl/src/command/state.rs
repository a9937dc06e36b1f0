//! `state export` and `state import`: the state in a file, from the store itself.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coordinator::backup::{self, BackupError, Import, Summary};
use coordinator::store::{Store, StoreUrl};
use serde_json::json;

use super::apply::who;
use crate::args::{Format, StateCommand};
use crate::embedded::{open_patiently, state_error};
use crate::error::{CliError, CliResult};
use crate::output;
use crate::session::Session;

/// Does what was asked with the state's file.
pub(crate) async fn state(session: &Session, command: StateCommand) -> CliResult {
    if !session.global.server.is_empty() {
        let hint = "leave --server out, and give --state the URL that the coordinator was given";
        return Err(CliError::user("usage", "a state is exported and imported at its store", hint));
    }
    match command {
        StateCommand::Export { file } => export(session, &file).await,
        StateCommand::Import { file, force } => import(session, file, force).await,
    }
}

async fn store(session: &Session) -> CliResult<Arc<dyn Store>> {
    let state = session.state()?;
    let url = StoreUrl::parse(&state).map_err(|error| {
        CliError::user("bad-state", error.to_string(), "give a folder, sqlite:FILE or etcd://host:port")
    })?;
    open_patiently(&url).await.map_err(|error| state_error(&error))
}

async fn export(session: &Session, file: &Path) -> CliResult {
    let store = store(session).await?;
    if file == Path::new("-") {
        let out = BufWriter::new(std::io::stdout().lock());
        backup::export(&*store, out).await.map_err(|error| failed(Path::new("standard output"), error))?;
        return Ok(());
    }
    // Whatever had the name stays until the whole of the new one is there.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unwritable = |error: std::io::Error| failed(file, BackupError::File(error));
    let mut part = tempfile::NamedTempFile::new_in(folder).map_err(unwritable)?;
    let done = backup::export(&*store, BufWriter::new(part.as_file_mut())).await;
    let done = done.map_err(|error| failed(file, error))?;
    part.as_file_mut().flush().and_then(|()| part.as_file().sync_all()).map_err(unwritable)?;
    part.persist(file).map_err(|error| unwritable(error.error))?;
    let text = format!("Exported {} records to {} (blake3 {}).", done.records, file.display(), done.blake3);
    tell(session, &done, &text)
}

async fn import(session: &Session, file: PathBuf, force: bool) -> CliResult {
    let store = store(session).await?;
    let now = (Session::clock()?)();
    let open = || File::open(&file).map(BufReader::new);
    let done = backup::import(&*store, open, &Import { force, now, by: who() }).await;
    let done = done.map_err(|error| failed(&file, error))?;
    let mut text = format!("Imported {} records from {}.", done.records, file.display());
    if done.stopped > 0 {
        text += &format!("\n{} plans were under way: apply them again (`coordctl plans`).", done.stopped);
    }
    if done.environments > 0 {
        text +=
            "\nThe views follow once a coordinator and workers run; embedded, `coordctl janitor` sets them.";
    }
    if let Some(number) = done.broken {
        output::error_line(&format!("the evidence in the file is broken at entry {number}: see `history`"));
    }
    tell(session, &done, &text)
}

fn tell(session: &Session, done: &Summary, text: &str) -> CliResult {
    if session.format() == Format::Json {
        return output::json(&json!({
            "records": done.records,
            "revision": done.revision,
            "blake3": done.blake3,
            "stopped_plans": done.stopped,
            "environments": done.environments,
        }));
    }
    output::line(text);
    Ok(())
}

fn failed(file: &Path, error: BackupError) -> CliError {
    let (code, hint) = match &error {
        BackupError::Store(error) => return state_error(error),
        BackupError::File(_) => ("state-file", "check the path, its rights and the space"),
        BackupError::Damaged { .. } => ("state-file", "use another export; nothing was changed"),
        BackupError::Newer { .. } => ("state-file", "upgrade coordctl; nothing was changed"),
        BackupError::NotEmpty { .. } => {
            ("state-not-empty", "name an empty store, or give --force to replace what is there")
        }
        BackupError::Led => {
            ("state-in-use", "stop all coordinators first; one that was killed counts for ten seconds more")
        }
        BackupError::UnderWay(_) => {
            ("state-in-use", "cancel it, or let it end, with a coordinator; then stop that")
        }
        BackupError::Exhausted => {
            ("state-file", "start with an empty state and an empty warehouse schema `coordctl`")
        }
        BackupError::Disturbed => {
            ("state-in-use", "stop whatever works on the store, and import again with --force")
        }
    };
    let message = match &error {
        BackupError::File(_) | BackupError::Damaged { .. } | BackupError::Newer { .. } => {
            format!("{}: {error}", file.display())
        }
        _ => error.to_string(),
    };
    CliError::user(code, message, hint)
}

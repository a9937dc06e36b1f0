//! `token`: makes bearer tokens. Nothing of them is kept.

use coordinator::access::NewToken;
use serde_json::json;

use crate::args::{Format, TokenCommand};
use crate::error::{CliError, CliResult};
use crate::output;
use crate::session::Session;

/// `coordctl token`.
pub(crate) fn token(session: &Session, command: TokenCommand) -> CliResult {
    let TokenCommand::New { name, role } = command;
    let new = NewToken::new(&name, &role)
        .map_err(|why| CliError::user("bad-token", why, "coordctl token new --name ann --role planner"))?;
    if session.format() == Format::Json {
        return output::json(&json!({ "token": new.token.expose(), "line": new.line }));
    }
    output::line(&format!(
        "The token of {name}, shown only now; it goes into COORDCTL_TOKEN or a --token-file:"
    ));
    output::line(new.token.expose());
    output::line("");
    output::line("The line for the coordinator's --tokens file, which is no secret:");
    output::line(&new.line);
    Ok(())
}

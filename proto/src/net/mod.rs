//! How clients reach a coordinator: what carries a call there, and how connections are made.

mod backoff;
mod connect;
mod credential;
mod gather;
mod replicas;
mod transport;
mod unreachable;

pub use backoff::Backoff;
pub use connect::{BadAddress, ConnectOptions, MAX_MESSAGE, MAX_REQUEST, channel, check_address, connect};
pub use credential::{Credential, CredentialError, TOKEN_VARIABLE, keeps_secrets};
pub use gather::{ByteStream, Gathered};
pub use replicas::{Dial, LEADER, Mark, Replicas};
pub use transport::Transport;
pub use unreachable::Unreachable;

use crate::wire::control_client::ControlClient;
use crate::wire::work_client::WorkClient;

/// A client of the workers' service with this build's message limits.
pub fn work_client(transport: Transport) -> WorkClient<Transport> {
    WorkClient::new(transport).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_REQUEST)
}

/// A client of the service for people with this build's message limits.
pub fn control_client(transport: Transport) -> ControlClient<Transport> {
    ControlClient::new(transport)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_REQUEST)
}

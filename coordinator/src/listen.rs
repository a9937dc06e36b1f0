//! Where a coordinator may listen: beyond loopback only for callers who say who they are.

use std::net::SocketAddr;

use tokio::net::{TcpListener, lookup_host};

/// What callers must show, and whether others can listen in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Authentication {
    /// Connections are encrypted.
    pub encrypted: bool,
    /// Clients need certificates; this needs encryption.
    pub certificates: bool,
    /// Callers need bearer tokens.
    pub tokens: bool,
}

/// Why a coordinator doesn't listen somewhere.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Whoever reaches it could do everything.
    #[error(
        "{0} is not a loopback address, and whoever reaches it could do everything: give --tls-cert, --tls-key \
         and --tls-client-ca, so that callers need certificates; or --tls-cert, --tls-key and bearer tokens; or \
         --insecure to listen there all the same"
    )]
    Open(SocketAddr),
    /// Tokens could be read on their way.
    #[error(
        "{0} is not a loopback address, and bearer tokens would travel there in plain text: give --tls-cert and \
         --tls-key, or --insecure to listen there all the same"
    )]
    PlainTokens(SocketAddr),
    /// No such address.
    #[error("{address} is no address to listen on: {source}")]
    Unknown {
        /// As it was given.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The system refuses.
    #[error("failed to listen on {address}: {source}")]
    Refused {
        /// As it was given.
        address: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Whether a coordinator may listen on an address: on loopback always, elsewhere only for callers who
/// must say who they are, in a way that nobody reads on the way.
///
/// # Errors
/// [`ListenError::Open`] or [`ListenError::PlainTokens`].
pub fn may_listen(
    address: SocketAddr,
    authentication: Authentication,
    insecure: bool,
) -> Result<(), ListenError> {
    let Authentication { encrypted, certificates, tokens } = authentication;
    let known = encrypted && (certificates || tokens);
    if insecure || known || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(if tokens { ListenError::PlainTokens(address) } else { ListenError::Open(address) })
}

/// Listens on `host:port`, where it may do so on every address that the name stands for.
///
/// # Errors
/// [`ListenError`].
pub async fn listen(
    address: &str,
    authentication: Authentication,
    insecure: bool,
) -> Result<TcpListener, ListenError> {
    let unknown = |source| ListenError::Unknown { address: address.to_owned(), source };
    let addresses: Vec<SocketAddr> = lookup_host(address).await.map_err(unknown)?.collect();
    for address in &addresses {
        may_listen(*address, authentication, insecure)?;
    }
    let refused = |source| ListenError::Refused { address: address.to_owned(), source };
    TcpListener::bind(addresses.as_slice()).await.map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Authentication = Authentication { encrypted: false, certificates: false, tokens: false };
    const ENCRYPTED: Authentication = Authentication { encrypted: true, ..NOTHING };
    const CERTIFICATES: Authentication = Authentication { certificates: true, ..ENCRYPTED };
    const TOKENS: Authentication = Authentication { tokens: true, ..ENCRYPTED };
    const PLAIN_TOKENS: Authentication = Authentication { tokens: true, ..NOTHING };

    #[test]
    fn on_loopback_anybody_may_call() {
        for address in ["127.0.0.1:7070", "127.3.2.1:1", "[::1]:7070", "[::ffff:127.0.0.1]:7070"] {
            for authentication in [NOTHING, ENCRYPTED, CERTIFICATES, TOKENS, PLAIN_TOKENS] {
                assert!(may_listen(address.parse().unwrap(), authentication, false).is_ok(), "{address}");
            }
        }
    }

    #[test]
    fn beyond_it_only_who_says_who_they_are() {
        for address in ["0.0.0.0:7070", "[::]:7070", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "[fe80::1]:1"] {
            let address = address.parse().unwrap();
            let may = |authentication| may_listen(address, authentication, false);
            assert!(may(CERTIFICATES).is_ok() && may(TOKENS).is_ok());
            assert!(matches!(may(NOTHING), Err(ListenError::Open(_))));
            assert!(matches!(may(ENCRYPTED), Err(ListenError::Open(_))));
            assert!(matches!(may(PLAIN_TOKENS), Err(ListenError::PlainTokens(_))));
            assert!(may_listen(address, NOTHING, true).is_ok());
        }
    }

    #[tokio::test]
    async fn a_name_is_listened_on_only_where_all_its_addresses_may_be() {
        assert!(listen("localhost:0", NOTHING, false).await.is_ok());
        let refused = listen("0.0.0.0:0", NOTHING, false).await.unwrap_err().to_string();
        for flag in ["--tls-cert", "--tls-key", "--tls-client-ca", "--insecure"] {
            assert!(refused.contains(flag), "{refused}");
        }
        assert!(matches!(listen("nowhere", NOTHING, false).await, Err(ListenError::Unknown { .. })));
    }
}

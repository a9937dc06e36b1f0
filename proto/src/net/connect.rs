//! The one place where connections to a coordinator are made.

use std::sync::Arc;
use std::time::Duration;

use tonic::codegen::http::uri::InvalidUri;
use tonic::transport::{Channel, Endpoint, Uri};

use super::credential::Credential;
use super::replicas::Replicas;
use super::transport::Transport;
use crate::tls::{ClientTls, Dialer, Troubles, dialer};

/// Largest answer, in bytes. Documents travel in pieces of a MiB; what remains are leases, of which
/// one that switches an environment's views names them all: some hundred bytes for each.
pub const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// Largest request, in bytes: projects travel in pieces of a MiB, and the largest of the others is a
/// message of 64 reports, whose texts are cut.
pub const MAX_REQUEST: usize = 4 * 1024 * 1024;

/// How connections are made.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// How long establishing a connection may take.
    pub connect_timeout: Duration,
    /// After how much silence the other side is asked whether it is there, also while no call is
    /// under way.
    pub keepalive: Duration,
    /// How long it may take to say so before the connection counts as broken.
    pub keepalive_timeout: Duration,
    /// The certificates for addresses that begin with `https`; they are needed there, and refused for
    /// others.
    pub tls: Option<Arc<ClientTls>>,
    /// What calls show of their caller. It is shown nowhere where others could read it on its way.
    pub credential: Option<Credential>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            tls: None,
            credential: None,
        }
    }
}

/// An address that can't be a coordinator's.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{address}` is no address of a coordinator: {why}")]
pub struct BadAddress {
    /// As it was given.
    pub address: String,
    /// What is wrong with it, lower case and without full stop.
    pub why: String,
}

/// Where and how to connect.
///
/// # Errors
/// [`BadAddress`] when `address` is no URL, of an unknown scheme, or one that doesn't go with the
/// certificates.
fn endpoint(address: &str, options: &ConnectOptions) -> Result<Endpoint, BadAddress> {
    let bad = |why: String| BadAddress { address: address.to_owned(), why };
    let uri: Uri = address.parse().map_err(|error: InvalidUri| bad(error.to_string()))?;
    let endpoint = match (uri.scheme_str(), &options.tls) {
        (Some("http"), None) => Endpoint::from(uri),
        // The dialer encrypts, below the channel: that would want to do it, too.
        (Some("https"), Some(_)) => Endpoint::from(unencrypted(&uri).map_err(bad)?).origin(uri),
        (Some("http"), Some(_)) => {
            return Err(bad("with --tls-ca it must begin with https://".to_owned()));
        }
        (Some("https"), None) => {
            return Err(bad("https:// needs --tls-ca, the authority of its certificate".to_owned()));
        }
        (Some(other), _) => return Err(bad(format!("the scheme `{other}` is not known"))),
        (None, _) => return Err(bad("it is no URL".to_owned())),
    };
    Ok(endpoint
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(options.keepalive)
        .keep_alive_timeout(options.keepalive_timeout))
}

/// The way to the one of several coordinators that leads; connections are made when they are needed.
///
/// # Errors
/// [`BadAddress`] when there is no address, or one is no URL, or of an unknown scheme.
pub fn connect(addresses: &[String], options: &ConnectOptions) -> Result<Transport, BadAddress> {
    for address in addresses {
        may_show(address, options)?;
    }
    let options = options.clone();
    let troubles = Troubles::default();
    let told = troubles.clone();
    let dial = move |address: &str| {
        // Also where another coordinator sends us.
        may_show(address, &options)?;
        let dialer = dialer(options.tls.clone()).telling(told.at(address));
        let transport = Transport::from(channel_by(address, &options, dialer)?);
        Ok(match &options.credential {
            Some(credential) => credential.clone().over(transport),
            None => transport,
        })
    };
    Ok(Replicas::new(addresses.to_vec(), dial)?.knowing(troubles).into())
}

/// Whether what a client shows of itself may be shown at an address.
fn may_show(address: &str, options: &ConnectOptions) -> Result<(), BadAddress> {
    let checked = options.credential.as_ref().map_or(Ok(()), |credential| credential.check(address));
    checked.map_err(|error| BadAddress { address: address.to_owned(), why: error.to_string() })
}

/// The same address without encryption, with the port that it has encrypted.
fn unencrypted(uri: &Uri) -> Result<Uri, String> {
    let host = uri.host().ok_or("it has no host")?;
    let authority = format!("{host}:{}", uri.port_u16().unwrap_or(443));
    Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query("/")
        .build()
        .map_err(|error| error.to_string())
}

/// A connection that is made with its first call, and made anew when it breaks.
///
/// # Errors
/// [`BadAddress`] when `address` is no URL, or of an unknown scheme.
pub fn channel(address: &str, options: &ConnectOptions) -> Result<Channel, BadAddress> {
    channel_by(address, options, dialer(options.tls.clone()))
}

fn channel_by(address: &str, options: &ConnectOptions, dialer: Dialer) -> Result<Channel, BadAddress> {
    Ok(endpoint(address, options)?.connect_with_connector_lazy(dialer))
}

/// Whether an address can be a coordinator's.
///
/// # Errors
/// [`BadAddress`] when it is no URL, or of an unknown scheme.
pub fn check_address(address: &str) -> Result<(), BadAddress> {
    let bad = |why: String| BadAddress { address: address.to_owned(), why };
    let uri: Uri = address.parse().map_err(|error: InvalidUri| bad(error.to_string()))?;
    match uri.scheme_str() {
        Some("http" | "https") => Ok(()),
        Some(other) => Err(bad(format!("the scheme `{other}` is not known"))),
        None => Err(bad("it is no URL".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls_of_a_known_scheme() {
        let options = ConnectOptions::default();
        assert!(endpoint("http://127.0.0.1:7070", &options).is_ok());
        for (address, why) in [
            ("127.0.0.1:7070", "it is no URL"),
            ("ftp://here", "the scheme `ftp` is not known"),
            ("http://a b", "invalid"),
            ("https://here", "https:// needs --tls-ca"),
        ] {
            let error = endpoint(address, &options).expect_err(address);
            assert!(error.why.contains(why), "{address}: {}", error.why);
        }
    }
}

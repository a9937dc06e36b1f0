//! The one place where connections to a coordinator are made.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// Largest message taken or sent, in bytes. Documents travel in pieces far below it; leases that
/// switch thousands of views come near it.
pub const MAX_MESSAGE: usize = 64 * 1024 * 1024;

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
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
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
/// [`BadAddress`] when `address` is no URL, or of an unknown scheme.
pub fn endpoint(address: &str, options: &ConnectOptions) -> Result<Endpoint, BadAddress> {
    let bad = |why: String| BadAddress { address: address.to_owned(), why };
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| bad(error.to_string()))?;
    match endpoint.uri().scheme_str() {
        Some("http") => {}
        Some(other) => return Err(bad(format!("the scheme `{other}` is not known"))),
        None => return Err(bad("it is no URL".to_owned())),
    }
    Ok(endpoint
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(options.keepalive)
        .keep_alive_timeout(options.keepalive_timeout))
}

/// A connection that is made with its first call, and made anew when it breaks.
///
/// # Errors
/// [`BadAddress`] when `address` is no URL, or of an unknown scheme.
pub fn channel(address: &str, options: &ConnectOptions) -> Result<Channel, BadAddress> {
    Ok(endpoint(address, options)?.connect_lazy())
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
            ("http://a b", "invalid uri character"),
        ] {
            let error = endpoint(address, &options).expect_err(address);
            assert!(error.why.contains(why), "{address}: {}", error.why);
        }
    }
}

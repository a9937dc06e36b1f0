//! What a client shows of itself with each call: a bearer token.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use coord_common::project::settings::Secret;
use tonic::body::Body;
use tonic::codegen::http::header::{AUTHORIZATION, HeaderValue};
use tonic::codegen::{Service, StdError, http};

use super::Transport;
use super::transport::Carried;

/// The environment variable that holds a token. Never a flag: command lines are for everybody to see.
pub const TOKEN_VARIABLE: &str = "COORDCTL_TOKEN";
/// How old what is known of a token's file may be: tokens of identity providers live for minutes, and
/// something else writes the next one in time.
const FRESH: Duration = Duration::from_secs(2);

/// Why there is no token to show. Texts name files, never what is in them.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file can't be read.
    #[error("the token file {path} can't be read: {source}")]
    Io {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is there is no token.
    #[error("{place} holds no token: one word of printable characters is expected")]
    NoToken {
        /// Where it was looked for.
        place: String,
    },
    /// Others could read the token on its way.
    #[error("a token would travel unencrypted to {address}: use https://, or a coordinator on this machine")]
    InTheClear {
        /// Where to.
        address: String,
    },
}

/// Whether what goes to an address stays secret on its way there: it is encrypted, or doesn't leave
/// this machine.
pub fn keeps_secrets(address: &str) -> bool {
    let Ok(uri) = address.parse::<http::Uri>() else { return false };
    if uri.scheme_str() == Some("https") {
        return true;
    }
    let host = uri.host().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = literal.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    is_loopback || host.eq_ignore_ascii_case("localhost")
}

/// A bearer token, or the file that it is in. Clones share what they know.
#[derive(Clone)]
pub struct Credential(Arc<Source>);

enum Source {
    Fixed(HeaderValue),
    File { path: PathBuf, known: Mutex<(Instant, HeaderValue)> },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(***)")
    }
}

impl Credential {
    /// The token that a process was given: that of the file, or else that of the environment.
    ///
    /// # Errors
    /// [`CredentialError`] when what was given is no token.
    pub fn given(file: Option<&Path>) -> Result<Option<Self>, CredentialError> {
        match (file, std::env::var(TOKEN_VARIABLE)) {
            (Some(path), _) => Self::file(path).map(Some),
            (None, Ok(text)) if !text.is_empty() => Self::text(&Secret::new(text)).map(Some),
            (None, _) => Ok(None),
        }
    }

    /// A token.
    ///
    /// # Errors
    /// [`CredentialError::NoToken`] when it is none.
    pub fn text(token: &Secret) -> Result<Self, CredentialError> {
        Ok(Self(Arc::new(Source::Fixed(header(token, TOKEN_VARIABLE)?))))
    }

    /// A token in a file, which is read again as calls are made: it may be replaced at any time.
    ///
    /// # Errors
    /// [`CredentialError`] when there is none now.
    pub fn file(path: &Path) -> Result<Self, CredentialError> {
        let known = Mutex::new((Instant::now(), read(path)?));
        Ok(Self(Arc::new(Source::File { path: path.to_owned(), known })))
    }

    /// Whether it may be shown at an address.
    ///
    /// # Errors
    /// [`CredentialError::InTheClear`] where others could read it on its way.
    pub fn check(&self, address: &str) -> Result<(), CredentialError> {
        if keeps_secrets(address) {
            return Ok(());
        }
        Err(CredentialError::InTheClear { address: address.to_owned() })
    }

    /// Shows it with every call over `transport`.
    pub fn over(self, transport: Transport) -> Transport {
        Transport::new(Shown { credential: self, transport })
    }

    /// What calls carry now. A file that can't be read just now leaves what was in it.
    fn header(&self) -> HeaderValue {
        match &*self.0 {
            Source::Fixed(header) => header.clone(),
            Source::File { path, known } => {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                if known.0.elapsed() >= FRESH {
                    known.0 = Instant::now();
                    if let Ok(header) = read(path) {
                        known.1 = header;
                    }
                }
                known.1.clone()
            }
        }
    }
}

fn read(path: &Path) -> Result<HeaderValue, CredentialError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| CredentialError::Io { path: path.to_owned(), source })?;
    header(&Secret::new(text.trim()), &path.display().to_string())
}

fn header(token: &Secret, place: &str) -> Result<HeaderValue, CredentialError> {
    let none = || CredentialError::NoToken { place: place.to_owned() };
    let text = token.expose();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(none());
    }
    let mut header = HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| none())?;
    header.set_sensitive(true);
    Ok(header)
}

/// A transport whose calls carry a token.
#[derive(Clone)]
struct Shown {
    credential: Credential,
    transport: Transport,
}

impl Service<http::Request<Body>> for Shown {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = Carried;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.transport.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Carried {
        request.headers_mut().insert(AUTHORIZATION, self.credential.header());
        self.transport.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::control_client;
    use crate::wire;

    #[test]
    fn tokens_go_only_where_nobody_else_reads_them() {
        for (address, secret) in [
            ("https://coordinator.example:7070", true),
            ("http://127.0.0.1:7070", true),
            ("http://127.8.9.1:7070", true),
            ("http://[::1]:7070", true),
            ("http://localhost:7070", true),
            ("http://coordinator.example:7070", false),
            ("http://10.0.0.1:7070", false),
            ("http://127.0.0.1.example:7070", false),
            ("http://localhost.example:7070", false),
            ("http://user@10.0.0.1:7070", false),
            ("http://127.0.0.1@10.0.0.1:7070", false),
            ("nonsense", false),
            ("", false),
        ] {
            assert_eq!(keeps_secrets(address), secret, "{address}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        for bad in ["", "a b", "a\nb", "é"] {
            let error = Credential::text(&Secret::new(bad)).expect_err(bad);
            assert!(error.to_string().starts_with("COORDCTL_TOKEN holds no token"), "{error}");
        }
        let token = Credential::text(&Secret::new("planted")).expect("a token");
        assert!(!format!("{token:?}").contains("planted"));
    }

    #[tokio::test]
    async fn every_call_carries_the_token_and_debug_output_does_not() {
        let credential = Credential::text(&Secret::new("planted")).expect("a token");
        let service = tower::service_fn(|request: http::Request<Body>| async move {
            assert_eq!(request.headers()[AUTHORIZATION], "Bearer planted");
            assert!(!format!("{:?}", request.headers()).contains("planted"));
            Ok::<_, StdError>(tonic::Status::not_found("seen").into_http::<Body>())
        });
        let mut client = control_client(credential.over(Transport::new(service)));
        let status = client.info(wire::InfoRequest {}).await.expect_err("it refuses");
        assert_eq!(status.message(), "seen");
    }
}

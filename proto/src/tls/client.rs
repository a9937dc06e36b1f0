//! The client's end.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Uri;
use tower::Service;

use super::files::{Reloading, TlsError, authorities, certificates, private_key, provider};
use super::trouble::{Told, Trouble};
use crate::net::{ByteStream, Gathered};

/// How long a server may be silent before it counts as one that waits for us to speak.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// Files of a client's certificates (PEM), read anew when they change.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Encryption")]
pub struct ClientTlsArgs {
    /// The authorities of the coordinator's certificate (PEM), for https:// addresses.
    #[arg(long, env = "COORDCTL_TLS_CA", value_name = "FILE", global = true)]
    pub tls_ca: Option<PathBuf>,
    /// This client's certificate (PEM).
    #[arg(long, env = "COORDCTL_TLS_CERT", value_name = "FILE", global = true)]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, env = "COORDCTL_TLS_KEY", value_name = "FILE", global = true)]
    pub tls_key: Option<PathBuf>,
    /// The name that the coordinator's certificate must have [default: the host of its address].
    #[arg(long, env = "COORDCTL_TLS_SERVER_NAME", value_name = "NAME", global = true)]
    pub tls_server_name: Option<String>,
}

/// A client's certificates.
pub struct ClientTls {
    config: Reloading<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads the files of a client; nothing where it has none.
    ///
    /// # Errors
    /// [`TlsError`] naming the file that can't serve, or the flag that is missing.
    pub fn new(args: &ClientTlsArgs) -> Result<Option<Arc<Self>>, TlsError> {
        let identity = match (args.tls_cert.clone(), args.tls_key.clone()) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(one), None) => return Err(TlsError::new(&one, "--tls-cert needs --tls-key")),
            (None, Some(one)) => return Err(TlsError::new(&one, "--tls-key needs --tls-cert")),
        };
        let Some(authority) = args.tls_ca.clone() else {
            return match identity {
                Some((one, _)) => Err(TlsError::new(&one, "--tls-cert needs --tls-ca")),
                None => Ok(None),
            };
        };
        let server_name = args.tls_server_name.clone().map(|name| {
            let why = format!("`{name}` is neither a DNS name nor an address");
            ServerName::try_from(name).map_err(|_| TlsError::new(Path::new("--tls-server-name"), why))
        });
        let mut files = vec![authority.clone()];
        files.extend(identity.iter().flat_map(|(certificate, key)| [certificate.clone(), key.clone()]));
        let load = move || client_config(&authority, identity.as_ref());
        let config = Reloading::new(files, load)?;
        Ok(Some(Arc::new(Self { config, server_name: server_name.transpose()? })))
    }

    /// Makes a connection to `host` encrypted, with the files as they are now.
    async fn shake_hands(&self, host: &str, stream: TcpStream) -> io::Result<Box<dyn ByteStream>> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => {
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                ServerName::try_from(host)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?
            }
        };
        let mut stream = TlsConnector::from(self.config.current()).connect(name, stream).await?;
        // With TLS 1.3 a server looks at our certificate only after we are done. Servers of HTTP/2 speak
        // first, so what comes is their settings, or why they refuse us; later it would only be "closed".
        if let Ok(first) = tokio::time::timeout(FIRST_WORD, stream.fill_buf()).await
            && first?.is_empty()
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Box::new(stream))
    }
}

/// Whether files can serve a client: an authority, and a certificate with its key.
///
/// # Errors
/// [`TlsError`] naming the file that can't.
pub fn check_client_files(authority: &Path, identity: Option<&(PathBuf, PathBuf)>) -> Result<(), TlsError> {
    client_config(authority, identity).map(drop)
}

fn client_config(authority: &Path, identity: Option<&(PathBuf, PathBuf)>) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::new(authority, error))?
        .with_root_certificates(authorities(authority)?);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?).map_err(|error| {
                TlsError::new(certificate, format!("with the key {}: {error}", key.display()))
            })?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Opens connections for a channel: a connector for `Endpoint::connect_with_connector`. The
/// endpoint's own scheme must be `http`: what is encrypted is decided here.
#[derive(Clone)]
pub struct Dialer {
    tls: Option<Arc<ClientTls>>,
    told: Option<Told>,
}

/// A connector that encrypts where it has certificates to verify with.
pub fn dialer(tls: Option<Arc<ClientTls>>) -> Dialer {
    Dialer { tls, told: None }
}

impl Dialer {
    /// The same, which tells what is wrong at its address.
    pub(crate) fn telling(self, told: Told) -> Self {
        Self { told: Some(told), ..self }
    }

    fn tell(&self, trouble: Option<Trouble>) {
        if let Some(told) = &self.told {
            told.tell(trouble);
        }
    }

    async fn dial(self, uri: Uri) -> io::Result<Dialed> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "the address has no host");
        let host = uri.host().ok_or_else(invalid)?;
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        self.tell(None);
        let looked_up = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await;
        let places: Vec<_> = looked_up.inspect_err(|error| self.tell(Trouble::of_lookup(error)))?.collect();
        let stream = TcpStream::connect(&*places).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn ByteStream> = match self.tls.clone() {
            None => Box::new(Plain { stream, unheard: self.told }),
            Some(tls) => {
                let shaken = tls.shake_hands(host, stream).await;
                shaken.inspect_err(|error| self.tell(Trouble::of_handshake(error)))?
            }
        };
        Ok(TokioIo::new(Gathered::new(stream)))
    }
}

/// A connection as channels take it, encrypted or not.
type Dialed = TokioIo<Gathered<Box<dyn ByteStream>>>;

impl Service<Uri> for Dialer {
    type Response = Dialed;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Dialed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}

/// A connection that isn't encrypted. The server's first byte tells whether it is a coordinator.
struct Plain {
    stream: TcpStream,
    /// Whom to tell what it says, while none has come.
    unheard: Option<Told>,
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let (Poll::Ready(Ok(())), Some(first)) = (&read, buf.filled().get(before).copied())
            && let Some(told) = self.unheard.take()
        {
            told.tell(Trouble::of_first_byte(first));
        }
        read
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

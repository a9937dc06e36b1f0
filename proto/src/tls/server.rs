//! The server's end.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::{info, warn};

use super::files::{Reloading, TlsError, authorities, certificates, private_key, provider};
use super::peer::{ConnectionInfo, PeerCertificate};
use crate::net::{ByteStream, Gathered};

/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once: clients beyond wait to be accepted.
const MOST_HANDSHAKES: usize = 512;
/// Connections that wait to be served.
const ACCEPTED: usize = 64;
/// How often files are looked at while nobody connects.
const LOOK: Duration = Duration::from_secs(5);
/// The pause after the system refused to accept, as when there are no file descriptors left.
const REFUSED: Duration = Duration::from_millis(200);

/// Files of a server's certificates (PEM), read anew when they change.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Encryption")]
pub struct ServerTlsArgs {
    /// The server's certificate and what leads to its authority (PEM): connections are encrypted.
    #[arg(long, env = "COORDINATOR_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, env = "COORDINATOR_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The authorities of clients' certificates (PEM): who has none is refused.
    #[arg(long, env = "COORDINATOR_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
}

/// Whether clients must have certificates, where there is an authority for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// A client without one is refused in its handshake.
    Required,
    /// A client without one is let in and must say otherwise who it is.
    Optional,
}

/// A server's certificates.
pub struct ServerTls(Reloading<ServerConfig>);

impl ServerTls {
    /// Reads the files of a server; nothing where it has none.
    ///
    /// # Errors
    /// [`TlsError`] naming the file that can't serve.
    pub fn new(args: &ServerTlsArgs, clients: ClientCertificates) -> Result<Option<Self>, TlsError> {
        let (Some(certificate), Some(key)) = (args.tls_cert.clone(), args.tls_key.clone()) else {
            return Ok(None);
        };
        let authority = args.tls_client_ca.clone();
        let files = [&certificate, &key].into_iter().chain(&authority).cloned().collect();
        let load = move || server_config(&certificate, &key, authority.as_deref(), clients);
        Ok(Some(Self(Reloading::new(files, load)?)))
    }
}

fn server_config(
    certificate: &Path,
    key: &Path,
    authority: Option<&Path>,
    clients: ClientCertificates,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::new(certificate, error))?;
    let builder = match authority {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(authorities(path)?, provider());
            let verifier = match clients {
                ClientCertificates::Required => verifier,
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| TlsError::new(path, error))?)
        }
    };
    let mut config = builder
        .with_single_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|error| TlsError::new(certificate, format!("with the key {}: {error}", key.display())))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A session that is resumed would not have its certificate looked at again; connections are few
    // and long.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A client's connection.
pub struct Connection {
    io: Gathered<Box<dyn ByteStream>>,
    info: ConnectionInfo,
}

/// What connects to a listener, once it is encrypted and its certificate verified. It goes on until
/// it is dropped.
pub fn incoming(
    listener: TcpListener,
    tls: Option<ServerTls>,
) -> impl Stream<Item = io::Result<Connection>> + Send + 'static {
    let (accepted, connections) = mpsc::channel(ACCEPTED);
    tokio::spawn(async move {
        tokio::select! {
            () = accept_all(listener, tls, accepted.clone()) => {}
            () = accepted.closed() => {}
        }
    });
    ReceiverStream::new(connections)
}

async fn accept_all(
    listener: TcpListener,
    tls: Option<ServerTls>,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    let handshakes = Arc::new(Semaphore::new(MOST_HANDSHAKES));
    let mut look = tokio::time::interval(LOOK);
    loop {
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        let arrived = tokio::select! {
            arrived = listener.accept() => arrived,
            // Whoever exchanges files reads in the log soon whether they serve.
            _ = look.tick() => {
                tls.as_ref().map(|tls| tls.0.current());
                continue;
            }
        };
        let (stream, remote) = match arrived {
            Ok(arrived) => arrived,
            Err(error) => {
                warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(REFUSED).await;
                continue;
            }
        };
        let config = tls.as_ref().map(|tls| tls.0.current());
        let accepted = accepted.clone();
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE, Connection::open(stream, config)).await;
            match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                // Gone when the server is: nobody is left to be told.
                Ok(connection) => drop(accepted.send(Ok(connection)).await),
                Err(error) => info!(%remote, %error, "a connection was refused"),
            }
            drop(permit);
        });
    }
}

impl Connection {
    async fn open(stream: TcpStream, config: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        // Answers are small: each must go at once, not wait for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        let mut info = ConnectionInfo { remote: stream.peer_addr().ok(), ..ConnectionInfo::default() };
        let Some(config) = config else { return Ok(Self { io: Gathered::new(Box::new(stream)), info }) };
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        info.encrypted = true;
        if let Some(leaf) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            let peer = PeerCertificate::read(leaf.clone().into_owned());
            info.peer = Some(Arc::new(peer.map_err(io::Error::other)?));
        }
        Ok(Self { io: Gathered::new(Box::new(stream)), info })
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

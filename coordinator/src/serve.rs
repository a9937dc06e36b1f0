//! Ties the loop to its services, over any transport.

use std::sync::Arc;
use std::time::Duration;

use coord_proto::net::{MAX_MESSAGE, MAX_REQUEST};
use coord_proto::wire::control_server::ControlServer;
use coord_proto::wire::work_server::WorkServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tower::Layer as _;
use tracing::{error, warn};

use crate::access::{Access, AccessLayer};
use crate::control::{
    self, Clock, Command, ControlConfig, ControlError, Handle, Leadership, Standing, Turns,
};
use crate::limits::{Gate, count};
use crate::rpc::{ControlService, WorkService};
use crate::store::schema::check_schema;
use crate::store::{Store, StoreError};

/// Commands that may wait for the loop: callers beyond wait themselves.
const INBOX: usize = 4096;
/// After how much silence a caller is asked whether it is there, and how long it may take to say so:
/// what a vanished one held is let go.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// Calls that one connection may have open at once: several workers behind a proxy share one.
const STREAMS: u32 = 256;
/// Largest head of a request, in bytes: identities and tokens travel there.
const HEADERS: u32 = 32 * 1024;
/// Pause before the next term after one that ended in an error.
const BETWEEN_TERMS: Duration = Duration::from_millis(500);

/// Why a coordinator can't serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The state can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The transport failed.
    #[error("failed to serve")]
    Transport(#[from] tonic::transport::Error),
}

/// A coordinator, ready to serve.
pub struct Server {
    store: Arc<dyn Store>,
    config: ControlConfig,
    clock: Clock,
    place: String,
    access: Access,
}

impl Server {
    /// A coordinator on a store; `place` names it for people, without secrets.
    ///
    /// # Errors
    /// [`ServeError`] when the state was written by a newer build, or can't be read.
    pub async fn new(
        store: Arc<dyn Store>,
        place: String,
        config: ControlConfig,
        clock: Clock,
    ) -> Result<Self, ServeError> {
        check_schema(&*store).await?;
        Ok(Self { store, config, clock, place, access: Access::trusting() })
    }

    /// From now on only callers who may do so reach it. Without this, whoever reaches it may do
    /// everything: right within one process.
    #[must_use]
    pub fn guarded_by(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// Serves connections until `stop` fires: leads whenever nobody else does.
    ///
    /// # Errors
    /// [`ServeError`] when the transport fails, or the store refuses for good.
    pub async fn serve<C, E>(
        self,
        incoming: impl Stream<Item = Result<C, E>> + Send + 'static,
        stop: CancellationToken,
    ) -> Result<(), ServeError>
    where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let most = self.config.connections;
        let (services, terms) = self.in_process(stop.clone());
        let services = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .max_concurrent_streams(Some(STREAMS))
            .http2_max_header_list_size(Some(HEADERS))
            .tcp_nodelay(true)
            .layer(Gate::new())
            .add_routes(services)
            .serve_with_incoming_shutdown(count(incoming, most), stop.clone().cancelled_owned());
        let (served, led) = tokio::join!(
            async {
                let served = services.await;
                stop.cancel();
                served
            },
            async {
                let led = terms.await;
                stop.cancel();
                led
            }
        );
        led?;
        Ok(served?)
    }

    /// The services without a transport, for callers in the same process, and what must run for them
    /// to answer: it leads whenever nobody else does, until `stop` fires.
    pub fn in_process(
        self,
        stop: CancellationToken,
    ) -> (Routes, impl Future<Output = Result<(), ServeError>> + Send) {
        let (sender, inbox) = mpsc::channel(INBOX);
        let (changed, changes) = watch::channel(Turns::default());
        let standing = Leadership::default();
        let handle =
            Handle { sender, changed: changes, standing: standing.clone(), clock: self.clock.clone() };
        let work = WorkServer::new(WorkService::new(handle.clone(), self.config.lease_ttl))
            .max_decoding_message_size(MAX_REQUEST)
            .max_encoding_message_size(MAX_MESSAGE);
        let control = ControlService::new(handle, self.place.clone(), self.config.planning);
        let control = ControlServer::new(control)
            .max_decoding_message_size(MAX_REQUEST)
            .max_encoding_message_size(MAX_MESSAGE);
        let guard = AccessLayer(self.access.clone());
        let services = Routes::new(guard.layer(work)).add_service(guard.layer(control));
        (services, lead_on(self, inbox, changed, standing, stop))
    }
}

/// Leads, term after term, until `stop` fires.
async fn lead_on(
    server: Server,
    mut inbox: mpsc::Receiver<Command>,
    changed: watch::Sender<Turns>,
    standing: Leadership,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    // What was said already while nothing else happened.
    let mut waits_for = None;
    while !stop.is_cancelled() {
        let (store, config, clock) = (server.store.clone(), server.config.clone(), server.clock.clone());
        let term = control::lead(store, config, clock, &mut inbox, changed.clone(), &standing, &stop).await;
        standing.tell(Standing::Unknown);
        match term {
            Ok(()) => {}
            Err(ControlError::Deposed) => warn!("leadership lost: standing by"),
            // Who runs the only coordinator of a state by hand would wait for nothing to happen.
            Err(ControlError::Store(error)) if error.may_be_mended() && !server.config.lone => {
                let why = error.to_string();
                if waits_for.as_ref() != Some(&why) {
                    error!(why, "the term ended: waiting until the state can be written");
                    waits_for = Some(why);
                }
            }
            Err(ControlError::Store(error)) if error.is_final() => {
                error!(%error, "the state can't be used");
                return Err(error.into());
            }
            Err(ControlError::Store(error)) => warn!(%error, "the term ended: the state will be read anew"),
        }
        // Who waits for an answer of the last term asks again.
        while let Ok(command) = inbox.try_recv() {
            drop(command);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(BETWEEN_TERMS) => {}
        }
    }
    Ok(())
}

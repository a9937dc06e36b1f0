//! What callers can take up at most: connections, and calls whose messages are in memory.
//!
//! Whoever is turned away or waits here costs next to nothing: a message is read from its
//! connection only once its call may begin, and HTTP/2 lets a sender send no more than its window.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http;
use tonic::transport::server::Connected;
use tower::Layer;
use tracing::warn;

/// Calls of workers that are read and answered at once; others wait. Enough to fill many turns of
/// the control loop, and at 4 MiB each what they hold is bounded.
const CALLS: usize = 256;

/// A connection that counts as long as it is open.
pub(crate) struct Counted<C> {
    connection: C,
    _place: OwnedSemaphorePermit,
}

/// Lets connections in while fewer than `most` are open, and closes those beyond.
pub(crate) fn count<C, E>(
    incoming: impl Stream<Item = Result<C, E>> + Send,
    most: usize,
) -> impl Stream<Item = Result<Counted<C>, E>> + Send {
    let places = Arc::new(Semaphore::new(most));
    let full = AtomicBool::new(false);
    incoming.filter_map(move |arrived| {
        let connection = match arrived {
            Ok(connection) => connection,
            Err(error) => return Some(Err(error)),
        };
        match places.clone().try_acquire_owned() {
            Ok(place) => {
                full.store(false, Ordering::Relaxed);
                Some(Ok(Counted { connection, _place: place }))
            }
            Err(_) => {
                if !full.swap(true, Ordering::Relaxed) {
                    warn!(most, "no more connections are taken: see --max-connections");
                }
                None
            }
        }
    })
}

impl<C: Connected> Connected for Counted<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.connection.connect_info()
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Counted<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

/// Bounds how many calls of workers are under way. Polls don't count: they are small, and open for
/// as long as there is nothing to do.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(CALLS)))
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, calls: self.0.clone() }
    }
}

/// A service behind a [`Gate`].
#[derive(Debug, Clone)]
pub(crate) struct Gated<S> {
    inner: S,
    calls: Arc<Semaphore>,
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The clone may not be ready; the one that was asked is.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let path = request.uri().path();
        if !path.starts_with("/coord.v1.Work/") || path.ends_with("/Poll") {
            return Box::pin(inner.call(request));
        }
        let calls = self.calls.clone();
        Box::pin(async move {
            // It is never closed.
            let _place = calls.acquire_owned().await;
            inner.call(request).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn connections_beyond_the_limit_are_closed_until_one_ends() {
        let (pipe, _other) = tokio::io::duplex(1);
        let (second, _) = tokio::io::duplex(1);
        let (third, _) = tokio::io::duplex(1);
        let (sender, receiver) = mpsc::channel(1);
        let incoming = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut counted = std::pin::pin!(count(incoming, 1));
        sender.send(Ok::<_, Infallible>(pipe)).await.expect("it is taken");
        let first = counted.next().await;
        assert!(first.is_some());
        sender.send(Ok(second)).await.expect("it is taken");
        let closed = tokio::select! {
            biased;
            _ = counted.next() => false,
            () = std::future::ready(()) => true,
        };
        assert!(closed, "the second one is not let in");
        drop(first);
        sender.send(Ok(third)).await.expect("it is taken");
        assert!(counted.next().await.is_some());
    }

    #[tokio::test]
    async fn calls_beyond_the_limit_wait_and_polls_never_do() {
        let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (now, peak) = (under_way.clone(), most.clone());
        let slow = tower::service_fn(move |_: http::Request<Body>| {
            let (now, peak) = (now.clone(), peak.clone());
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, Infallible>(http::Response::new(Body::empty()))
            }
        });
        let gated = Gate::new().layer(slow);
        let all = |path: &'static str, count: usize| {
            let mut calls = tokio::task::JoinSet::new();
            for _ in 0..count {
                let mut gated = gated.clone();
                let request = http::Request::builder().uri(path).body(Body::empty()).expect("a request");
                calls.spawn(async move { gated.call(request).await });
            }
            calls.join_all()
        };
        all("/coord.v1.Work/Complete", CALLS * 3).await;
        assert_eq!(most.load(Ordering::SeqCst), CALLS);
        all("/coord.v1.Work/Poll", CALLS * 3).await;
        assert_eq!(most.load(Ordering::SeqCst), CALLS * 3);
    }
}

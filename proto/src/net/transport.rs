//! What carries calls to a coordinator, whatever lies between.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tonic::body::Body;
use tonic::codegen::{Service, StdError, http};
use tonic::transport::Channel;
use tonic::transport::channel::ResponseFuture;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::replicas::{Mark, Replicas};

type Request = http::Request<Body>;
type Response = http::Response<Body>;
type Boxed = BoxCloneSyncService<Request, Response, StdError>;

/// Carries gRPC calls: a connection, or anything that answers HTTP requests as one would. Clones
/// are cheap and share what is behind them.
#[derive(Clone)]
pub struct Transport(Kind);

/// Connections go without a box: thousands of calls a second take this way.
#[derive(Clone)]
enum Kind {
    Channel(Channel),
    Replicas(Replicas),
    Service(Boxed),
}

impl Transport {
    /// Calls are carried by `service`: a connection with something in between, or a network that
    /// is only simulated. Its errors reach the caller as a status.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Request, Response = Response> + Clone + Send + Sync + 'static,
        S::Error: Into<StdError>,
        S::Future: Send + 'static,
    {
        Self(Kind::Service(BoxCloneSyncService::new(service.map_err(Into::into))))
    }
}

impl Transport {
    /// Where calls go now, for [`Transport::suspect`].
    pub fn mark(&self) -> Mark {
        match &self.0 {
            Kind::Replicas(replicas) => replicas.mark(),
            Kind::Channel(_) | Kind::Service(_) => Mark::default(),
        }
    }

    /// Calls that went there go unanswered, though the connection seems whole: the next ones go to
    /// another coordinator, where there is one.
    pub fn suspect(&self, mark: Mark) {
        if let Kind::Replicas(replicas) = &self.0 {
            replicas.suspect(mark);
        }
    }

    /// A stream that came from where `mark` says broke off with this status, which may name who leads.
    pub fn refused(&self, mark: Mark, status: &tonic::Status) {
        if let Kind::Replicas(replicas) = &self.0 {
            replicas.refused(mark, status);
        }
    }
}

impl From<Replicas> for Transport {
    fn from(replicas: Replicas) -> Self {
        Self(Kind::Replicas(replicas))
    }
}

impl From<Channel> for Transport {
    fn from(channel: Channel) -> Self {
        Self(Kind::Channel(channel))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Channel(_) => f.write_str("Transport(channel)"),
            Kind::Replicas(replicas) => replicas.fmt(f),
            Kind::Service(_) => f.write_str("Transport(service)"),
        }
    }
}

impl Service<Request> for Transport {
    type Response = Response;
    type Error = StdError;
    type Future = Carried;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        match &mut self.0 {
            Kind::Channel(channel) => channel.poll_ready(context).map_err(Into::into),
            Kind::Replicas(replicas) => replicas.poll_ready(context),
            Kind::Service(service) => service.poll_ready(context),
        }
    }

    fn call(&mut self, request: Request) -> Carried {
        Carried(match &mut self.0 {
            Kind::Channel(channel) => Way::Channel(channel.call(request)),
            Kind::Replicas(replicas) => Way::Service(replicas.call(request)),
            Kind::Service(service) => Way::Service(service.call(request)),
        })
    }
}

/// A call on its way.
pub struct Carried(Way);

enum Way {
    Channel(ResponseFuture),
    Service(Pin<Box<dyn Future<Output = Result<Response, StdError>> + Send>>),
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carried")
    }
}

impl Future for Carried {
    type Output = Result<Response, StdError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.0 {
            Way::Channel(answer) => ready!(Pin::new(answer).poll(context)).map_err(StdError::from),
            Way::Service(answer) => ready!(answer.as_mut().poll(context)),
        };
        Poll::Ready(answer)
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::net::control_client;
    use crate::wire;

    #[tokio::test]
    async fn any_service_carries_calls_and_its_answers_come_back() {
        let service = tower::service_fn(|request: Request| async move {
            assert_eq!(request.uri().path(), "/coord.v1.Control/Info");
            Ok::<_, StdError>(tonic::Status::not_found("nobody").into_http::<Body>())
        });
        let mut client = control_client(Transport::new(service));
        let status = client.info(wire::InfoRequest {}).await.expect_err("it refuses");
        assert_eq!((status.code(), status.message()), (Code::NotFound, "nobody"));
    }

    #[tokio::test]
    async fn what_a_service_fails_with_is_a_status() {
        let service = tower::service_fn(|_: Request| async move { Err::<Response, StdError>("cut".into()) });
        let mut client = control_client(Transport::new(service));
        let status = client.info(wire::InfoRequest {}).await.expect_err("it fails");
        assert!(status.message().contains("cut"), "{status}");
    }
}

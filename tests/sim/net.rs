//! The network: gRPC calls between nodes without sockets, delayed, lost, doubled and cut.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use coord_proto::net::Transport;
use http_body_util::{BodyExt, Full};
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service, StdError, http};
use tonic::service::Routes;

use crate::world::{Host, World, lock};

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Who can be reached.
#[derive(Default)]
pub(crate) struct Net {
    servers: Mutex<BTreeMap<String, (Arc<Host>, Routes)>>,
}

impl Net {
    pub(crate) fn listen(&self, host: &Arc<Host>, services: Routes) {
        lock(&self.servers).insert(host.name.clone(), (host.clone(), services));
    }

    fn server(&self, name: &str) -> Option<(Arc<Host>, Routes)> {
        lock(&self.servers).get(name).filter(|(host, _)| host.is_up()).cloned()
    }
}

/// A message whose whole content is known.
type Whole = (http::request::Parts, Bytes, Option<http::HeaderMap>);

fn body(bytes: Bytes, trailers: Option<http::HeaderMap>) -> Body {
    Body::new(Full::new(bytes).with_trailers(async move { trailers.map(Ok) }))
}

async fn whole(body: Body) -> Result<(Bytes, Option<http::HeaderMap>), Status> {
    let collected = body.collect().await.map_err(|error| Status::internal(error.to_string()))?;
    let trailers = collected.trailers().cloned();
    Ok((collected.to_bytes(), trailers))
}

/// The way from a node to whichever coordinator answers: the next one is tried when one doesn't lead
/// or can't be reached.
pub(crate) fn transport(world: &Arc<World>, host: &Arc<Host>, servers: Vec<String>) -> Transport {
    let way = Arc::new(Way { world: world.clone(), host: host.clone(), servers, at: Mutex::default() });
    Transport::new(tower::service_fn(move |request: Request| {
        let way = way.clone();
        async move { Ok::<_, StdError>(way.call(request).await.unwrap_or_else(tonic::Status::into_http)) }
    }))
}

struct Way {
    world: Arc<World>,
    host: Arc<Host>,
    servers: Vec<String>,
    at: Mutex<usize>,
}

/// gRPC's number for "unavailable".
const UNAVAILABLE: &str = "14";

impl Way {
    async fn call(&self, request: Request) -> Result<Response, Status> {
        let at = *lock(&self.at);
        let server = &self.servers[at % self.servers.len()];
        let answer = self.carry(server, request).await;
        let elsewhere = match &answer {
            Ok(answer) => answer.headers().get("grpc-status").is_some_and(|code| code == UNAVAILABLE),
            Err(_) => true,
        };
        let mut now_at = lock(&self.at);
        if elsewhere && *now_at == at {
            *now_at += 1;
        }
        answer
    }

    async fn carry(&self, to: &str, request: Request) -> Result<Response, Status> {
        let world = &self.world;
        let from = self.host.name.as_str();
        self.host.pass().await;
        let (parts, content) = request.into_parts();
        let (bytes, trailers) = whole(content).await?;
        let path = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        self.travel().await;
        if world.is_cut(from, to) || world.strikes(world.knobs.net_loses) {
            world.fault(&format!("net: {from}->{to} {path} is lost"));
            world.pause(500, 6000).await;
            self.host.pass().await;
            return Err(Status::unavailable("no answer"));
        }
        let message: Whole = (parts, bytes, trailers);
        if world.strikes(world.knobs.net_doubles) {
            world.fault(&format!("net: {from}->{to} {path} is doubled"));
            let (world, to, message) = (world.clone(), to.to_owned(), message.clone());
            tokio::spawn(async move {
                world.pause(0, 3000).await;
                drop(deliver(&world, &to, message).await);
            });
        }
        let answer = deliver(world, to, message).await;
        self.travel().await;
        if world.is_cut(to, from) || world.strikes(world.knobs.net_loses) {
            world.fault(&format!("net: {to}->{from} answer to {path} is lost"));
            world.pause(500, 6000).await;
            self.host.pass().await;
            return Err(Status::unavailable("no answer"));
        }
        self.host.pass().await;
        answer
    }

    async fn travel(&self) {
        let slow = if self.world.strikes(self.world.knobs.net_slow) { 2000 } else { 0 };
        self.world.pause(1, 4 + slow).await;
    }
}

/// Has a node answer, as its own task: it ends with the node, and with a caller that goes away.
async fn deliver(world: &Arc<World>, to: &str, message: Whole) -> Result<Response, Status> {
    let Some((host, mut services)) = world.net.server(to) else {
        return Err(Status::unavailable("connection refused"));
    };
    let (mut answer, answered) = oneshot::channel();
    let serving = host.clone();
    host.spawn(async move {
        let (parts, bytes, trailers) = message;
        let request = http::Request::from_parts(parts, body(bytes, trailers));
        let work = async {
            let response = match services.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let (parts, content) = response.into_parts();
            let (bytes, trailers) = whole(content).await?;
            Ok(http::Response::from_parts(parts, body(bytes, trailers)))
        };
        let done = tokio::select! {
            biased;
            done = work => Some(done),
            () = answer.closed() => None,
        };
        if let Some(done) = done {
            serving.pass().await;
            let _ = answer.send(done);
        }
    });
    answered.await.unwrap_or_else(|_| Err(Status::unavailable("connection reset")))
}

//! The members of an etcd cluster, of which one is asked until it doesn't answer. A balancer would
//! go on giving its share of requests to a member that takes connections and stands still.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coord_proto::tls::dialer;
use etcd_client::{Channel, Client, ConnectOptions, Error, TlsOptions};
use tokio::sync::OnceCell;
use tonic::transport::Endpoint;
use tracing::info;

/// How long a connection to a member may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may take until there is something to talk over.
const DIAL: Duration = Duration::from_secs(3);
/// After how much silence a member is asked whether it is there, and how long it may take to say so.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// How members are reached.
#[derive(Clone, Default)]
pub(super) struct Way {
    /// User and password.
    pub(super) options: ConnectOptions,
    /// Certificates, for encrypted connections.
    pub(super) tls: Option<TlsOptions>,
}

impl Member {
    async fn connected(&self, way: &Way) -> Result<&Client, Error> {
        let connect = async {
            let scheme = if way.tls.is_some() { "https" } else { "http" };
            let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.endpoint))?
                .connect_timeout(DIAL)
                .http2_keep_alive_interval(KEEPALIVE.0)
                .keep_alive_timeout(KEEPALIVE.1)
                .keep_alive_while_idle(true);
            if let Some(tls) = &way.tls {
                endpoint = endpoint.tls_config(tls.clone())?;
            }
            // What encrypts is put on top of the connection here.
            let channel = endpoint.connect_with_connector_lazy(dialer(None));
            Client::from_channel(Channel::Tonic(channel), Some(way.options.clone())).await
        };
        let patiently = async {
            let silent = |_| Err(Error::Internal(format!("no answer from {}", self.endpoint)));
            tokio::time::timeout(CONNECT, connect).await.unwrap_or_else(silent)
        };
        self.client.get_or_try_init(|| patiently).await
    }
}

/// A way to each member.
pub(super) struct Members {
    members: Vec<Member>,
    way: Way,
    current: AtomicUsize,
}

struct Member {
    endpoint: String,
    /// Made when it is first asked: with a user, it must answer for that.
    client: OnceCell<Client>,
}

impl Members {
    /// Connects to one of the members.
    ///
    /// # Errors
    /// Why the last one of them can't be asked.
    pub(super) async fn connect(endpoints: &[String], way: Way) -> Result<Self, Error> {
        let member = |endpoint: &String| Member { endpoint: endpoint.clone(), client: OnceCell::new() };
        let members =
            Self { members: endpoints.iter().map(member).collect(), way, current: AtomicUsize::new(0) };
        members.client().await?;
        Ok(members)
    }

    /// The member to ask now, and the way to it.
    ///
    /// # Errors
    /// Why none of them can be asked.
    pub(super) async fn client(&self) -> Result<(usize, Client), Error> {
        let mut tries = 0;
        loop {
            let at = self.current.load(Ordering::Acquire);
            tries += 1;
            match self.members[at].connected(&self.way).await {
                Ok(client) => return Ok((at, client.clone())),
                Err(error) => {
                    self.leave(at);
                    if tries >= self.members.len() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Turns to another member, as this one didn't answer, unless that was done already.
    pub(super) fn leave(&self, at: usize) {
        let next = (at + 1) % self.members.len();
        let left = self.current.compare_exchange(at, next, Ordering::AcqRel, Ordering::Acquire);
        if left.is_ok() && next != at {
            info!(
                from = self.members[at].endpoint,
                to = self.members[next].endpoint,
                "turning to another etcd member"
            );
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.members.len()
    }
}

//! Several coordinators, of which one leads: where calls go, and where they go next.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, StdError, http};

use super::connect::BadAddress;
use super::transport::Transport;
use super::unreachable::{self, Unreachable};
use crate::tls::Troubles;

/// The metadata of an answer by a coordinator that doesn't lead: the address of the one that does.
pub const LEADER: &str = "coord-leader";

/// Makes the way to an address. It opens connections lazily: nothing is sent before the first call.
pub type Dial = dyn Fn(&str) -> Result<Transport, BadAddress> + Send + Sync;

/// Carries calls to the coordinator that leads, as far as is known. A call that fails, or is turned
/// away, fails for its caller, who knows whether it may be made again; the next one goes to the
/// address that the answer named, or to the next one of the list.
#[derive(Clone)]
pub struct Replicas(Arc<Shared>);

struct Shared {
    addresses: Vec<String>,
    dial: Box<Dial>,
    place: Mutex<Place>,
    troubles: Troubles,
    /// Whether anybody has ever answered.
    answered: AtomicBool,
}

/// Where calls go at the moment.
struct Place {
    address: String,
    transport: Transport,
    /// Counts the turns to another address.
    number: u64,
    /// Which address of the list is tried after this one.
    next: usize,
}

/// The place to which calls went at some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark(u64);

impl Replicas {
    /// Coordinators at `addresses`, tried in this order from the first.
    ///
    /// # Errors
    /// [`BadAddress`] where there is none, or `dial` refuses one.
    pub fn new(
        addresses: Vec<String>,
        dial: impl Fn(&str) -> Result<Transport, BadAddress> + Send + Sync + 'static,
    ) -> Result<Self, BadAddress> {
        for address in &addresses {
            dial(address)?;
        }
        let Some(address) = addresses.first().cloned() else {
            return Err(BadAddress { address: String::new(), why: "none is given".to_owned() });
        };
        let place = Place { transport: dial(&address)?, address, number: 0, next: 1 % addresses.len() };
        Ok(Self(Arc::new(Shared {
            addresses,
            dial: Box::new(dial),
            place: Mutex::new(place),
            troubles: Troubles::default(),
            answered: AtomicBool::new(false),
        })))
    }

    /// The same, with where it is told what is wrong at addresses. To be called before any call.
    pub(super) fn knowing(mut self, troubles: Troubles) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.0) {
            shared.troubles = troubles;
        }
        self
    }

    /// Where calls go now.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.0.place().number)
    }

    /// Calls that went there go unanswered: the next ones go elsewhere, unless they do already.
    pub(super) fn suspect(&self, mark: Mark) {
        self.0.give_up(mark.0);
    }
}

impl Replicas {
    /// A stream broke off; the heads of answers are looked at by themselves.
    pub(super) fn refused(&self, mark: Mark, status: &Status) {
        if status.code() != tonic::Code::Unavailable {
            return;
        }
        match status.metadata().get(LEADER).and_then(|leader| leader.to_str().ok()) {
            Some(leader) => self.0.follow(mark.0, leader),
            None => self.0.give_up(mark.0),
        }
    }
}

impl Shared {
    fn place(&self) -> MutexGuard<'_, Place> {
        // Every change to a place is made in one piece by `turn`.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns to the next address of the list, if calls still go where `number` says.
    fn give_up(&self, number: u64) {
        let mut place = self.place();
        if place.number != number {
            return;
        }
        for _ in 0..self.addresses.len() {
            let address = self.addresses[place.next].clone();
            place.next = (place.next + 1) % self.addresses.len();
            if address != place.address && self.turn(&mut place, address) {
                return;
            }
        }
    }

    /// Turns to the address that an answer named.
    fn follow(&self, number: u64, leader: &str) {
        let mut place = self.place();
        if place.number != number {
            return;
        }
        // An answer may not lead away from encryption.
        let scheme = |address: &str| address.split_once("://").map(|(scheme, _)| scheme.to_owned());
        let followed = leader != place.address
            && scheme(leader) == scheme(&place.address)
            && self.turn(&mut place, leader.to_owned());
        if !followed {
            drop(place);
            self.give_up(number);
        }
    }

    fn turn(&self, place: &mut Place, address: String) -> bool {
        let Ok(transport) = (self.dial)(&address) else { return false };
        place.address = address;
        place.transport = transport;
        place.number += 1;
        true
    }

    /// A call without an answer. Whether it had an effect isn't known.
    fn unreachable(&self, address: &str, error: &StdError) -> Status {
        let first = !self.answered.load(Ordering::Relaxed);
        let trouble = self.troubles.of(address);
        // Another coordinator of the list may be better reached.
        let final_ = first && self.addresses.iter().all(|address| self.troubles.of(address).is_some());
        let why = trouble.as_ref().map_or_else(|| unreachable::causes(error), ToString::to_string);
        let source = Unreachable { trouble: trouble.filter(|_| final_), first };
        let mut status = Status::unavailable(format!("{address}: {why}"));
        status.set_source(Arc::new(source));
        status
    }

    /// Learns from an answer's head.
    fn heed(&self, number: u64, head: &http::HeaderMap) {
        let unavailable = tonic::Code::Unavailable as i32;
        let text = |name: &str| head.get(name).and_then(|value| value.to_str().ok());
        if text("grpc-status").and_then(|code| code.parse().ok()) != Some(unavailable) {
            return;
        }
        match text(LEADER) {
            Some(leader) => self.follow(number, leader),
            None => self.give_up(number),
        }
    }
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicas").field("addresses", &self.0.addresses).finish_non_exhaustive()
    }
}

impl Service<http::Request<Body>> for Replicas {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, StdError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let (number, address, mut transport) = {
                let place = shared.place();
                (place.number, place.address.clone(), place.transport.clone())
            };
            let carried = match poll_fn(|context| transport.poll_ready(context)).await {
                Ok(()) => transport.call(request).await,
                Err(error) => Err(error),
            };
            match carried {
                Ok(answer) => {
                    shared.answered.store(true, Ordering::Relaxed);
                    shared.heed(number, answer.headers());
                    Ok(answer)
                }
                Err(error) => {
                    let status = shared.unreachable(&address, &error);
                    shared.give_up(number);
                    Err(status.into())
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::net::control_client;
    use crate::wire;

    /// What each address answers.
    #[derive(Clone, Copy)]
    enum Coordinator {
        Leads,
        StandsBy(Option<&'static str>),
        Dead,
        Fails,
    }

    type Calls = Arc<Mutex<Vec<String>>>;

    fn replicas(addresses: &[&str], world: &[(&'static str, Coordinator)]) -> (Transport, Calls) {
        let calls = Calls::default();
        let world: BTreeMap<String, Coordinator> =
            world.iter().map(|(address, what)| ((*address).to_owned(), *what)).collect();
        let told = calls.clone();
        let dial = move |address: &str| {
            let Some(what) = world.get(address).copied() else {
                return Err(BadAddress { address: address.to_owned(), why: "unheard of".to_owned() });
            };
            let (address, told) = (address.to_owned(), told.clone());
            Ok(Transport::new(tower::service_fn(move |_: http::Request<Body>| {
                told.lock().expect("no panic").push(address.clone());
                async move {
                    match what {
                        Coordinator::Leads => Ok(Status::not_found("leads").into_http()),
                        Coordinator::Fails => Ok(Status::internal("fails").into_http()),
                        Coordinator::Dead => Err(StdError::from("refused")),
                        Coordinator::StandsBy(leader) => {
                            let mut status = Status::unavailable("stands by");
                            if let Some(leader) = leader {
                                status.metadata_mut().insert(LEADER, leader.parse().expect("ascii"));
                            }
                            Ok(status.into_http())
                        }
                    }
                }
            })))
        };
        let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
        (Transport::from(Replicas::new(addresses, dial).expect("addresses")), calls)
    }

    async fn call(transport: &Transport, times: usize) -> Vec<tonic::Code> {
        let mut codes = Vec::new();
        for _ in 0..times {
            let answer = control_client(transport.clone()).info(wire::InfoRequest {}).await;
            codes.push(answer.expect_err("nobody answers with success").code());
        }
        codes
    }

    const A: &str = "http://a:1";
    const B: &str = "http://b:1";
    const C: &str = "http://c:1";

    #[tokio::test]
    async fn calls_follow_the_leader_that_an_answer_names_also_where_the_list_lacks_it() {
        let world = [(A, Coordinator::StandsBy(Some(C))), (B, Coordinator::Dead), (C, Coordinator::Leads)];
        let (transport, calls) = replicas(&[A, B], &world);
        call(&transport, 3).await;
        assert_eq!(*calls.lock().expect("no panic"), [A, C, C]);
    }

    #[tokio::test]
    async fn who_is_dead_or_knows_no_leader_is_left_for_the_next_of_the_list_round_and_round() {
        let world = [(A, Coordinator::Dead), (B, Coordinator::StandsBy(None)), (C, Coordinator::Dead)];
        let (transport, calls) = replicas(&[A, B, C], &world);
        let codes = call(&transport, 5).await;
        assert_eq!(*calls.lock().expect("no panic"), [A, B, C, A, B]);
        assert!(codes.iter().all(|code| *code == tonic::Code::Unavailable), "{codes:?}");
    }

    #[tokio::test]
    async fn a_standby_that_names_a_dead_leader_is_asked_again_after_the_others() {
        let world = [(A, Coordinator::StandsBy(Some(B))), (B, Coordinator::Dead)];
        let (transport, calls) = replicas(&[A, B], &world);
        call(&transport, 4).await;
        assert_eq!(*calls.lock().expect("no panic"), [A, B, A, B]);
    }

    #[tokio::test]
    async fn errors_of_the_one_that_leads_change_nothing() {
        let (transport, calls) = replicas(&[A, B], &[(A, Coordinator::Fails), (B, Coordinator::Leads)]);
        call(&transport, 2).await;
        assert_eq!(*calls.lock().expect("no panic"), [A, A]);
    }

    #[tokio::test]
    async fn an_answer_leads_nowhere_else_than_the_scheme_of_the_list() {
        let world = [(A, Coordinator::StandsBy(Some("ftp://x"))), (B, Coordinator::Leads)];
        let (transport, calls) = replicas(&[A, B], &world);
        call(&transport, 2).await;
        assert_eq!(*calls.lock().expect("no panic"), [A, B]);
    }

    #[tokio::test]
    async fn a_suspicion_counts_once_however_many_calls_have_it() {
        let world = [(A, Coordinator::Leads), (B, Coordinator::Leads), (C, Coordinator::Leads)];
        let (transport, calls) = replicas(&[A, B, C], &world);
        let mark = transport.mark();
        transport.suspect(mark);
        transport.suspect(mark);
        call(&transport, 1).await;
        assert_eq!(*calls.lock().expect("no panic"), [B]);
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_may_name_the_leader_too() {
        let world = [(A, Coordinator::Leads), (B, Coordinator::Leads), (C, Coordinator::Leads)];
        let (transport, calls) = replicas(&[A, B, C], &world);
        let mut status = Status::unavailable("stands by");
        status.metadata_mut().insert(LEADER, C.parse().expect("ascii"));
        transport.refused(transport.mark(), &Status::internal("a mistake"));
        transport.refused(transport.mark(), &status);
        call(&transport, 1).await;
        assert_eq!(*calls.lock().expect("no panic"), [C]);
    }

    #[tokio::test]
    async fn one_address_alone_is_kept_whatever_it_answers() {
        let (transport, calls) = replicas(&[A], &[(A, Coordinator::Dead)]);
        call(&transport, 2).await;
        assert_eq!(*calls.lock().expect("no panic"), [A, A]);
    }
}

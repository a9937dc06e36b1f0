//! More workers than there is work for, and workers that talk nonsense.

use std::time::{Duration, Instant};

use coord_proto::wire;
use coord_proto::wire::control_client::ControlClient;
use coord_proto::wire::work_client::WorkClient;
use coord_tests::fleet::FleetOptions;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::run::Run;

const CROWD: usize = 1000;

/// Retries: a coordinator that is just taking over turns callers away.
async fn connect(address: &str) -> WorkClient<Channel> {
    let endpoint = Endpoint::from_shared(address.to_owned()).expect("the fleet's address is one");
    loop {
        if let Ok(channel) = endpoint.connect().await {
            return WorkClient::new(channel);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn register(worker: &str, gateway: &str, held: Vec<u64>) -> wire::RegisterRequest {
    wire::RegisterRequest {
        worker: worker.to_owned(),
        gateways: vec![gateway.to_owned()],
        held_tokens: held,
        slots: 2,
    }
}

fn poll(worker: &str, nonce: u64) -> wire::PollRequest {
    wire::PollRequest { worker: worker.to_owned(), free: 2, nonce, queues: false }
}

/// One of the crowd: a connection of its own, a session, a poll that stays open and one heartbeat.
async fn one_of_the_crowd(address: String, number: usize) -> Result<Duration, Status> {
    let mut client = connect(&address).await;
    let worker = format!("crowd-{number}");
    let asked = Instant::now();
    client.register(register(&worker, "elsewhere", Vec::new())).await?;
    let registered = asked.elapsed();
    client.heartbeat(wire::HeartbeatRequest { worker: worker.clone(), tokens: vec![1] }).await?;
    let polled = tokio::time::timeout(Duration::from_secs(3), client.poll(poll(&worker, 1))).await;
    assert!(polled.is_err(), "there is nothing to do at that gateway: {polled:?}");
    Ok(registered)
}

#[test]
fn a_thousand_workers_that_register_at_once_are_all_served_while_a_plan_runs() {
    let options = FleetOptions { lease_ttl: 10_000, election_ttl: 10_000, ..FleetOptions::default() };
    let mut run = Run::start("crowd", options, 0.05);
    run.fleet.wait_for_commits(3);
    let address = run.fleet.address().to_owned();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut served = runtime.block_on(async {
        let crowd: Vec<_> =
            (0..CROWD).map(|number| tokio::spawn(one_of_the_crowd(address.clone(), number))).collect();
        let mut served = Vec::with_capacity(CROWD);
        for one in crowd {
            served.push(one.await.expect("none panics").expect("each is served"));
        }
        served
    });
    served.sort();
    println!("registered: median {:?}, slowest {:?}", served[CROWD / 2], served[CROWD - 1]);
    let known = runtime.block_on(async {
        let channel =
            Endpoint::from_shared(address).expect("an address").connect().await.expect("it listens");
        let info = ControlClient::new(channel).info(wire::InfoRequest {}).await.expect("it is answered");
        info.into_inner().workers as usize
    });
    assert!(known > CROWD, "{known} workers are known");
    run.injected.add_some("worker registered at once", CROWD as u32);
    run.end();
}

/// What is said about a token.
fn report(token: u64, batch: &str, outcome: Option<wire::report::Outcome>) -> wire::Report {
    wire::Report { token, batch: batch.to_owned(), outcome }
}

fn done() -> Option<wire::report::Outcome> {
    Some(wire::report::Outcome::Done(wire::Done { rows: 7, ..wire::Done::default() }))
}

fn stale() -> i32 {
    wire::Verdict::Stale.into()
}

/// Tokens of the leases that others hold.
fn tokens(run: &Run) -> Vec<u64> {
    let last = |key: &String| key.rsplit('/').next().and_then(|token| token.parse().ok());
    run.fleet.leases().iter().filter_map(last).collect()
}

/// A worker that talks nonsense, and counts what it said.
struct Liar {
    client: WorkClient<Channel>,
    said: u32,
}

impl Liar {
    const NAME: &'static str = "liar";

    async fn report(&mut self, reports: Vec<wire::Report>) -> Result<Vec<i32>, Status> {
        self.said += reports.len().max(1) as u32;
        let request = wire::CompleteRequest { worker: Self::NAME.to_owned(), reports };
        let reply = self.client.complete(request).await?.into_inner();
        Ok(reply.verdicts.iter().map(|verdict| verdict.verdict).collect())
    }

    /// Reports of what it was never granted.
    async fn claims_what_others_do(&mut self, others: &[u64]) {
        for token in others.iter().copied().chain([0, 1, u64::MAX, 1 << 20]) {
            let verdicts = self.report(vec![report(token, "", done())]).await.expect("it is answered");
            assert_eq!(verdicts, [stale()], "token {token}");
            let handed_back = Some(wire::report::Outcome::HandedBack(wire::HandedBack {}));
            let verdicts = self.report(vec![report(token, "", handed_back)]).await.expect("it is answered");
            assert_eq!(verdicts, [stale()], "token {token}");
        }
        let many = (0..5000).map(|token| report(token, "", done())).collect();
        let verdicts = self.report(many).await.expect("it is answered");
        assert!(verdicts.iter().all(|verdict| *verdict == stale()));
        let request = wire::HeartbeatRequest { worker: Self::NAME.to_owned(), tokens: others.to_vec() };
        let states = self.client.heartbeat(request).await.expect("it is answered").into_inner().leases;
        self.said += others.len() as u32;
        let gone: i32 = wire::LeaseState::Gone.into();
        assert!(states.iter().all(|status| status.state == gone), "{states:?}");
    }

    /// Messages that aren't well-formed.
    async fn is_malformed(&mut self) {
        for batch in ["", "no batch", "m@v:2-1", "m@v:x-y", "\u{0}", &"x".repeat(1 << 20)] {
            for outcome in [None, done()] {
                let malformed = outcome.is_none() || !batch.is_empty();
                let answer = self.report(vec![report(3, batch, outcome)]).await;
                match answer {
                    Err(status) => assert_eq!(status.code(), Code::InvalidArgument, "{status}"),
                    Ok(verdicts) => assert!(!malformed && verdicts == [stale()], "{batch:?}: {verdicts:?}"),
                }
            }
        }
        for worker in ["", " ", "a/b", "\u{0}", &"w".repeat(1 << 16)] {
            self.said += 1;
            let answer = self.client.register(register(worker, "pg", Vec::new())).await;
            let code = answer.expect_err("no such name").code();
            assert_eq!(code, Code::InvalidArgument, "{worker:?}");
        }
        self.said += 2;
        let unknown = self.client.poll(poll("never-registered", 1)).await.expect_err("not known");
        assert_eq!(unknown.code(), Code::NotFound);
        let snapshot = wire::FetchSnapshotRequest { snapshot_id: "../../etc".to_owned() };
        let refused = self.client.fetch_snapshot(snapshot).await.expect_err("no such id");
        assert_eq!(refused.code(), Code::InvalidArgument);
    }

    /// Takes leases, and acknowledges each of them twice: first with a batch that isn't theirs.
    async fn acknowledges_twice(&mut self) {
        let reply = self.client.poll(poll(Self::NAME, 7)).await.expect("it is answered").into_inner();
        let again = self.client.poll(poll(Self::NAME, 7)).await.expect("it is answered").into_inner();
        let granted =
            |reply: &wire::PollReply| reply.leases.iter().map(|lease| lease.token).collect::<Vec<_>>();
        assert!(!reply.leases.is_empty() && granted(&reply) == granted(&again), "{reply:?} {again:?}");
        for token in granted(&reply) {
            let handed_back = || Some(wire::report::Outcome::HandedBack(wire::HandedBack {}));
            let first = self.report(vec![report(token, "", handed_back())]).await.expect("it is answered");
            assert_eq!(first, [i32::from(wire::Verdict::Recorded)], "token {token}");
            for outcome in [handed_back(), done()] {
                let second = self.report(vec![report(token, "", outcome)]).await.expect("it is answered");
                assert_ne!(second, [i32::from(wire::Verdict::Recorded)], "token {token}");
            }
        }
    }
}

/// Bytes that are no HTTP/2.
fn shouts_at(address: &str) -> u32 {
    use std::io::{Read as _, Write as _};
    let address = address.trim_start_matches("http://");
    let shouts: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"",
    ];
    for shout in shouts {
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout can be set");
        let _ = stream.write_all(shout);
        let _ = stream.read(&mut [0; 1024]);
    }
    shouts.len() as u32
}

#[test]
fn a_worker_that_answers_garbage_or_acknowledges_twice_changes_nothing() {
    let quiet = FleetOptions { lease_ttl: 10_000, election_ttl: 10_000, ..FleetOptions::default() };
    let options = FleetOptions { workers: 1, slots: 1, ..quiet };
    let mut run = Run::start("garbage", options, 0.2);
    run.fleet.wait_for_commits(3);
    let address = run.fleet.address().to_owned();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let said = runtime.block_on(async {
        let mut client = connect(&address).await;
        // It says that it holds what others do.
        let others = tokens(&run);
        client.register(register(Liar::NAME, "pg", others.clone())).await.expect("it is answered");
        let mut liar = Liar { client, said: 1 };
        liar.claims_what_others_do(&others).await;
        liar.is_malformed().await;
        liar.acknowledges_twice().await;
        liar.said
    });
    let shouted = shouts_at(&address);
    run.injected.add_some("bad input", said + shouted);
    assert!(!run.fleet.coordinator.has_ended());
    run.end();
}

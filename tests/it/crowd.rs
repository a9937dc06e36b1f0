//! Many workers on one coordinator, over real connections. The sessions are only their calls: what
//! a worker does beside them costs the coordinator nothing.

use std::time::{Duration, Instant};

use coord_proto::net::{self, ConnectOptions, Transport, control_client, work_client};
use coord_proto::wire;
use coord_tests::cli::Cli;
use coord_tests::etcd::{Etcd, EtcdOptions};
use coord_tests::fleet::Permit;
use coord_tests::project::sales;
use coord_tests::service::Lone;
use tokio::task::JoinSet;

/// A gateway that planning has no need of.
const NOWHERE: &str = "gateways:\n  pg:\n    connection:\n      type: postgres\n      host: 127.0.0.1\n      port: 1\n      user: u\n      password: p\n      database: d\ndefault_gateway: pg\nmodel_defaults:\n  dialect: postgres\n  start: 2024-01-01\n";

/// One session: registers with as much patience as a worker has, then polls.
async fn session(transport: Transport, n: usize) -> Transport {
    let mut client = work_client(transport.clone());
    let worker = format!("crowd-{n}");
    let register = wire::RegisterRequest {
        worker: worker.clone(),
        gateways: vec!["pg".to_owned()],
        held_tokens: Vec::new(),
        slots: 4,
    };
    let mut backoff = net::Backoff::new(Duration::from_millis(50), Duration::from_secs(2), n as u64);
    while client.register(register.clone()).await.is_err() {
        tokio::time::sleep(backoff.pause()).await;
    }
    tokio::spawn(async move {
        loop {
            let poll = wire::PollRequest { worker: worker.clone(), free: 4, nonce: 1, queues: true };
            if client.poll(poll).await.is_err() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    transport
}

fn connection(address: &str) -> Transport {
    net::connect(&[address.to_owned()], &ConnectOptions::default()).expect("an address")
}

/// Registers sessions, all at once, over so many connections; how long that took.
async fn crowd(address: &str, sessions: usize, connections: usize) -> (JoinSet<Transport>, Duration) {
    let began = Instant::now();
    let connections: Vec<Transport> = (0..connections).map(|_| connection(address)).collect();
    let mut joining = JoinSet::new();
    for n in 0..sessions {
        joining.spawn(session(connections[n % connections.len()].clone(), n));
    }
    let mut here = JoinSet::new();
    while let Some(joined) = joining.join_next().await {
        let transport = joined.expect("a session registers");
        // Kept open until the test has ended.
        here.spawn(async move {
            std::future::pending::<()>().await;
            transport
        });
    }
    (here, began.elapsed())
}

async fn workers(address: &str) -> u32 {
    let info = control_client(connection(address)).info(wire::InfoRequest {}).await;
    info.expect("the coordinator answers").into_inner().workers
}

fn join(sessions: usize, connections: usize, stay: Duration) {
    let _permit = Permit::wait();
    let lone = Lone::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (here, took) = runtime.block_on(crowd(lone.address(), sessions, connections));
    assert_eq!(runtime.block_on(workers(lone.address())), sessions as u32);
    let (before, began) = (lone.cpu_millis(), Instant::now());
    runtime.block_on(async { tokio::time::sleep(stay).await });
    let idle = (lone.cpu_millis() - before) as f64 / began.elapsed().as_millis() as f64;
    println!(
        "{sessions} workers on {connections} connections registered at once in {took:.2?}; the coordinator's memory: {} MiB now, {} MiB at most; \
         idle, it uses {:.1} % of a processor",
        lone.memory_mib("VmRSS"),
        lone.memory_mib("VmHWM"),
        idle * 100.0
    );
    assert!(lone.memory_mib("VmHWM") < 1024, "within 1 GiB");
    drop(here);
}

#[test]
fn a_thousand_workers_that_register_at_once_are_all_served() {
    join(1000, 250, Duration::from_secs(1));
}

#[test]
#[ignore = "needs `ulimit -n 12000`: prints what docs/reliability.md has"]
fn five_thousand_workers_fit_into_a_gibibyte() {
    join(5000, 5000, Duration::from_secs(60));
}

#[test]
fn a_store_that_hangs_makes_callers_wait_and_takes_no_memory() {
    let _permit = Permit::wait();
    let etcd = Etcd::start_with(EtcdOptions { unsafe_no_fsync: true, ..EtcdOptions::default() });
    let lone = Lone::on(&etcd.url("test"));
    let project = sales();
    project.write("config.yaml", NOWHERE);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (here, _) = runtime.block_on(crowd(lone.address(), 100, 20));
    // Each session reports and reports, sixteen times at once, whether it is answered or not.
    let reporters = runtime.block_on(async {
        let mut reporters = JoinSet::new();
        for connection in (0..20).map(|_| connection(lone.address())) {
            for n in 0..80 {
                reporters.spawn(report_on_and_on(connection.clone(), n));
            }
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        reporters
    });
    let before = lone.memory_mib("VmHWM");
    etcd.stop();
    // The control loop stops at the first thing that it wants to put on record.
    let plan = Cli::at(project.path(), lone.address()).spawn(&["plan", "--no-prompts"]);
    runtime.block_on(async { tokio::time::sleep(Duration::from_secs(8)).await });
    let grown = lone.memory_mib("VmHWM") - before;
    etcd.cont();
    assert_eq!(plan.wait().code, Some(0), "it goes on where it stopped");
    assert!(grown < 100, "{grown} MiB more than {before}");
    drop((here, reporters));
}

async fn report_on_and_on(transport: Transport, n: u64) {
    let failure = wire::Failure { message: "x".repeat(10_000), ..wire::Failure::default() };
    let report = |token| wire::Report {
        token,
        batch: String::new(),
        outcome: Some(wire::report::Outcome::Failed(failure.clone())),
    };
    let reports: Vec<wire::Report> = (0..20).map(|at| report(n * 20 + at)).collect();
    loop {
        let request = wire::CompleteRequest { worker: format!("crowd-{n}"), reports: reports.clone() };
        if work_client(transport.clone()).complete(request).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

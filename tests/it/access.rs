//! Who may call what, on a coordinator that asks: every role with every call, tokens that are wrong,
//! gone or new, workers that speak for others, approvals, and the evidence of all that.

use coord_proto::net::{Credential, Transport, control_client, work_client};
use coord_proto::wire;
use coord_proto::wire::work_client::WorkClient;
use coord_tests::cli::Finished;
use coord_tests::fleet::{Permit, wait_until};
use coord_tests::guarded::Guarded;
use serde_json::Value;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

const ROLES: [&str; 6] = ["viewer", "planner", "approver", "applier", "worker", "admin"];
const MODEL: &str = "MODEL (name m.a, kind FULL, cron '@daily');\nSELECT 1 AS one";

async fn over(guarded: &Guarded, token: Option<&str>) -> Transport {
    let endpoint = Endpoint::from_shared(guarded.address().to_owned()).expect("an address");
    let transport = Transport::from(endpoint.connect().await.expect("it listens"));
    match token {
        Some(token) => {
            let token = coord_common::project::settings::Secret::new(token);
            Credential::text(&token).expect("a token").over(transport)
        }
        None => transport,
    }
}

/// Calls a method with an empty message: it decodes as any request and asks for nothing that exists.
async fn call(transport: Transport, call: &str) -> Code {
    let mut client = tonic::client::Grpc::new(transport);
    client.ready().await.expect("the connection is there");
    let path = format!("/coord.v1.{}", call.replace('.', "/")).parse().expect("a path");
    let codec = tonic_prost::ProstCodec::<wire::InfoRequest, wire::InfoReply>::default();
    let answer = client.unary(tonic::Request::new(wire::InfoRequest {}), path, codec).await;
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// The documented table: calls without actions, and the roles that may.
fn table() -> Vec<(String, Vec<String>)> {
    let text = include_str!("../../docs/security.md");
    let rows = text.lines().filter(|line| line.starts_with("| `Control.") || line.starts_with("| `Work."));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let call = cells[0].trim_matches('`').to_owned();
        (call, cells[1].split(" or ").map(str::to_owned).collect())
    };
    rows.map(row).filter(|(call, _): &(String, Vec<String>)| !call.contains(' ')).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_call_what_the_table_says_and_nothing_else() {
    let _permit = Permit::wait();
    let people: Vec<(&str, &str)> = ROLES.iter().map(|role| (*role, *role)).collect();
    let guarded = Guarded::start(&people, &[]);
    let table = table();
    assert!(table.len() >= 17, "{table:?}");
    let wrong = format!("coordctl_{}", "0".repeat(64));
    for (method, may) in &table {
        assert_eq!(call(over(&guarded, None).await, method).await, Code::Unauthenticated, "{method}");
        assert_eq!(call(over(&guarded, Some(&wrong)).await, method).await, Code::Unauthenticated, "{method}");
        for role in ROLES {
            let code = call(over(&guarded, Some(guarded.token(role))).await, method).await;
            let refused = code == Code::PermissionDenied;
            assert_ne!(code, Code::Unauthenticated, "{role} {method}");
            assert_eq!(!refused, may.contains(&role.to_owned()), "{role} {method}: {code:?}");
        }
    }
    let admin = over(&guarded, Some(guarded.token("admin"))).await;
    assert_eq!(call(admin, "Control.Nonsense").await, Code::Unimplemented);
    let me = control_client(over(&guarded, Some(guarded.token("planner"))).await)
        .info(wire::InfoRequest {})
        .await
        .expect("anybody may")
        .into_inner();
    assert_eq!((me.identity.as_str(), me.roles.as_slice()), ("planner", &["planner".to_owned()][..]));
}

fn session(worker: &str) -> wire::RegisterRequest {
    let gateways = vec!["none".to_owned()];
    wire::RegisterRequest { worker: worker.to_owned(), gateways, held_tokens: Vec::new(), slots: 1 }
}

fn poll(worker: &str) -> wire::PollRequest {
    wire::PollRequest { worker: worker.to_owned(), free: 1, nonce: 1, queues: false }
}

fn report(worker: &str, lease: &wire::Lease) -> wire::CompleteRequest {
    let outcome = Some(wire::report::Outcome::HandedBack(wire::HandedBack {}));
    let report = wire::Report { token: lease.token, batch: String::new(), outcome };
    wire::CompleteRequest { worker: worker.to_owned(), reports: vec![report] }
}

fn denied<T: std::fmt::Debug>(answer: Result<T, Status>, says: &str) {
    let status = answer.expect_err("it is refused");
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains(says), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_speaks_for_its_own_sessions_and_leases_only() {
    let _permit = Permit::wait();
    let guarded = Guarded::start(&[("w1", "worker"), ("w2", "worker"), ("ann", "planner,applier")], &[]);
    guarded.project.write("models/a.sql", MODEL);
    let ann = guarded.as_("ann");
    let plan = ann.plan(&["prod"])["plan_id"].as_str().expect("an id").to_owned();
    ann.ok(&["apply", &plan, "--detach"]);
    let mut first: WorkClient<Transport> = work_client(over(&guarded, Some(guarded.token("w1"))).await);
    let mut second = work_client(over(&guarded, Some(guarded.token("w2"))).await);
    let (mine, other) = ("w1-1-1", "w2-1-1");
    first.register(session(mine)).await.expect("its own session");
    second.register(session(other)).await.expect("its own session");
    denied(second.register(session(mine)).await, "may not speak for the session `w1-1-1`");
    denied(second.poll(poll(mine)).await, "may not speak for");
    denied(second.drain(wire::DrainRequest { worker: mine.to_owned() }).await, "may not speak for");
    let beat = wire::HeartbeatRequest { worker: mine.to_owned(), tokens: Vec::new() };
    denied(second.heartbeat(beat).await, "may not speak for");
    denied(
        second.register(session("w2")).await.and(second.register(session("w")).await),
        "may not speak for",
    );
    let leases = first.poll(poll(mine)).await.expect("its own session").into_inner().leases;
    let lease = leases.first().expect("there is work");
    denied(second.complete(report(mine, lease)).await, "may not speak for the session");
    denied(second.complete(report(other, lease)).await, "may not speak for the lease");
    let beat = wire::HeartbeatRequest { worker: other.to_owned(), tokens: vec![lease.token] };
    let states = second.heartbeat(beat).await.expect("its own session").into_inner().leases;
    assert_eq!(states[0].state(), wire::LeaseState::Gone, "somebody else's lease says nothing");
    let verdicts = first.complete(report(mine, lease)).await.expect("its own lease").into_inner().verdicts;
    assert_eq!(verdicts[0].verdict(), wire::Verdict::Recorded, "nothing had changed it");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_beyond_the_limit_are_refused_and_those_that_are_there_go_on() {
    let _permit = Permit::wait();
    let guarded = Guarded::start(&[("w1", "worker")], &["--max-sessions=2"]);
    let mut workers = work_client(over(&guarded, Some(guarded.token("w1"))).await);
    for known in ["w1-1-1", "w1-1-2", "w1-1-1"] {
        workers.register(session(known)).await.expect("there is room, or it is there");
    }
    let status = workers.register(session("w1-1-3")).await.expect_err("there is no room");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("--max-sessions"), "{status}");
}

fn code(finished: &Finished) -> String {
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    finished.error()["code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn callers_are_told_what_is_missing_and_no_token_shows_anywhere() {
    let _permit = Permit::wait();
    let mut guarded = Guarded::start(&[("vic", "viewer"), ("ann", "planner,applier"), ("w1", "worker")], &[]);
    guarded.project.write("models/a.sql", MODEL);
    let json = ["--format", "json"];
    let none = guarded.anonymous().run(&[&["plans"][..], &json].concat());
    assert_eq!(code(&none), "unauthenticated");
    assert!(none.error()["hint"].as_str().is_some_and(|hint| hint.contains("COORDCTL_TOKEN")), "{none:#?}");
    let planted = "coordctl_planted0123456789";
    let wrong = guarded.anonymous().env("COORDCTL_TOKEN", planted);
    assert_eq!(code(&wrong.run(&[&["plans"][..], &json].concat())), "unauthenticated");
    let plan = guarded.as_("ann").plan(&["prod"])["plan_id"].as_str().expect("an id").to_owned();
    let vic = guarded.as_("vic");
    for command in
        [&["apply", plan.as_str()][..], &["cancel", &plan], &["plan", "--no-prompts"], &["rollback", "prod"]]
    {
        let refused = vic.run(&[command, &json].concat());
        assert_eq!(code(&refused), "permission-denied", "{command:?}");
        let message = refused.error()["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("`vic` (viewer) may not call"), "{message}");
    }
    for command in [&["janitor", "--ignore-ttl"][..], &["destroy", "--no-prompts"]] {
        assert_eq!(code(&guarded.as_("ann").run(&[command, &json].concat())), "permission-denied");
    }
    assert_eq!(code(&guarded.as_("w1").run(&[&["plans"][..], &json].concat())), "permission-denied");
    vic.ok(&["plans"]);
    // The file gets vic's new token, and loses the one of before.
    let old = guarded.as_("vic");
    let list = std::fs::read_to_string(guarded.list()).expect("the list");
    std::fs::write(guarded.list(), "nonsense\n").expect("the list");
    old.ok(&["plans"]);
    let line = guarded.rotate("vic", "viewer");
    let kept: Vec<&str> = list.lines().filter(|line| !line.starts_with("vic ")).collect();
    std::fs::write(guarded.list(), format!("{}\n{line}\n", kept.join("\n"))).expect("the list");
    wait_until("the new token", || guarded.as_("vic").run(&["plans"]).code == Some(0));
    assert_eq!(code(&old.run(&[&["plans"][..], &json].concat())), "unauthenticated");
    guarded.as_("ann").ok(&["plans"]);
    let written = guarded.everything_written();
    assert!(written.contains("a call was refused"), "{written}");
    for name in ["vic", "ann", "w1"] {
        assert!(!written.contains(guarded.token(name)), "the token of {name} shows");
    }
    assert!(!written.contains(planted), "a wrong token shows");
}

#[test]
fn workers_need_the_role_and_their_own_name() {
    let _permit = Permit::wait();
    let guarded = Guarded::start(&[("w1", "worker"), ("ann", "planner,applier")], &[]);
    guarded.project.write("models/a.sql", MODEL);
    let person = guarded.worker("ann", "ann");
    wait_until("its refusal", || person.log().contains("`ann` (planner, applier) may not call Work."));
    let stranger = guarded.worker("w1", "w2");
    wait_until("its refusal", || {
        stranger.log().contains("start the worker with") || stranger.log().contains("may not speak for")
    });
    let _worker = guarded.worker("w1", "w1");
    guarded.as_("ann").ok(&["plan", "prod", "--auto-apply"]);
    assert!(!guarded.everything_written().contains(guarded.token("w1")));
}

fn history(guarded: &Guarded) -> Vec<(String, String)> {
    let document = guarded.as_("vic").json(&["history", "prod"]);
    assert_eq!(document["whole"], true, "{document}");
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let entries = document["history"].as_array().cloned().unwrap_or_default();
    entries.iter().rev().map(|entry| (text(entry, "by"), text(entry, "did"))).collect()
}

#[test]
fn a_protected_environment_changes_only_by_plans_that_somebody_else_has_approved() {
    let _permit = Permit::wait();
    let people = [
        ("ann", "planner,approver,applier"),
        ("bob", "approver"),
        ("vic", "viewer"),
        ("w1", "worker"),
        ("cron", "planner,applier"),
    ];
    let guarded = Guarded::start(&people, &["--protect=prod"]);
    guarded.project.write("models/a.sql", MODEL);
    let _worker = guarded.worker("w1", "w1");
    let (ann, bob) = (guarded.as_("ann"), guarded.as_("bob"));
    let json = ["--format", "json"];
    ann.ok(&["plan", "dev", "--auto-apply"]);
    let plan = ann.plan(&["prod"])["plan_id"].as_str().expect("an id").to_owned();
    let apply = |cli: &coord_tests::cli::Cli| cli.run(&[&["apply", &plan][..], &json].concat());
    assert_eq!(code(&apply(&ann)), "approval-needed");
    assert_eq!(code(&ann.run(&[&["approve", &plan][..], &json].concat())), "own-plan");
    assert_eq!(
        code(&guarded.as_("vic").run(&[&["approve", &plan][..], &json].concat())),
        "permission-denied"
    );
    assert_eq!(code(&apply(&ann)), "approval-needed");
    bob.ok(&["approve", &plan]);
    ann.ok(&["apply", &plan]);
    assert_eq!(code(&bob.run(&[&["approve", &plan][..], &json].concat())), "too-late");
    // Another plan is another matter.
    guarded.project.write("models/a.sql", &MODEL.replace("1 AS one", "2 AS one"));
    let next = ann.plan(&["prod"])["plan_id"].as_str().expect("an id").to_owned();
    assert_ne!(next, plan);
    assert_eq!(code(&ann.run(&[&["apply", &next][..], &json].concat())), "approval-needed");
    guarded.as_("cron").ok(&["run", "prod", "--ignore-cron"]);
    let done = history(&guarded);
    let expected = [
        ("ann", "planned"),
        ("bob", "approved"),
        ("ann", "started"),
        ("ann", "flipped to revision 1"),
        ("ann", "finished"),
    ];
    let expected: Vec<(String, String)> =
        expected.iter().map(|(by, did)| ((*by).to_owned(), (*did).to_owned())).collect();
    assert_eq!(done[..expected.len()], expected, "{done:?}");
    let document = guarded.as_("vic").json(&["history", "--all"]);
    assert_eq!(document["looked_at"][0], 1, "{document}");
    let newest = guarded.as_("vic").json(&["history", "--limit", "2"]);
    assert_eq!(newest["history"].as_array().map(Vec::len), Some(2));
    assert_eq!(newest["history"][1], document["history"][1], "the newest come first");
    assert_eq!((&newest["whole"], &newest["looked_at"][1]), (&Value::from(true), &document["last"]));
    let all = document["history"].as_array().cloned().unwrap_or_default();
    let start = all
        .iter()
        .find(|entry| entry["did"] == "started" && entry["plan_id"] == plan.as_str())
        .expect("it started");
    assert_eq!(start["approved_by"][0], "bob", "{start}");
    assert!(start["checked"].as_array().is_some_and(|checked| checked.len() == 3), "{start}");
    let plans = guarded.as_("vic").json(&["plans"]);
    let kept = plans["plans"].as_array().cloned().unwrap_or_default();
    let kept = kept.iter().find(|kept| kept["plan_id"] == plan.as_str()).expect("it is kept");
    assert_eq!((&kept["author"], &kept["approved_by"][0]), (&Value::from("ann"), &Value::from("bob")));
}

//! Messages from the network, and what they become.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use coord_common::id::{EnvironmentName, Hash128, PlanId, SnapshotId, Token, Version};
use coord_common::interval::{Interval, Timestamp};
use coord_common::task::{
    Allowed, AuditResult, Batch, Binding, Check, Done, Evaluate, Failure, FailureClass, HookPoint, Lease,
    Mode, Outcome, Promote, Relation, Report, Statements, TableId, TableTask, View, Work,
};
use coord_proto::wire;
use prost::Message;

/// What can be understood comes back as it was.
pub(crate) fn messages(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    match first % 4 {
        0 => round(rest, |lease: &Lease| wire::Lease::from(lease)),
        1 => round(rest, |report: &Report| wire::Report::from(report.clone())),
        2 => {
            let Ok(reply) = wire::PollReply::decode(rest) else { return };
            for lease in reply.leases {
                let _ = Lease::try_from(lease);
            }
        }
        _ => {
            let _ = (wire::RegisterRequest::decode(rest), wire::PlanRequest::decode(rest));
            let _ = (wire::TendRequest::decode(rest), wire::HeartbeatRequest::decode(rest));
        }
    }
}

fn round<W, T>(bytes: &[u8], back: impl Fn(&T) -> W)
where
    W: Message + Default,
    T: TryFrom<W, Error: Debug> + PartialEq + Debug,
{
    let Ok(message) = W::decode(bytes) else { return };
    let Ok(value) = T::try_from(message) else { return };
    assert_eq!(T::try_from(back(&value)).expect("what was understood can be said"), value);
}

fn task() -> Arc<TableTask> {
    let relation = |table: &str| Relation { catalog: None, schema: "s".to_owned(), table: table.to_owned() };
    let model = || "a.b".parse().expect("a model's name");
    let snapshot = || SnapshotId(Hash128(7));
    Arc::new(TableTask {
        snapshot: snapshot(),
        table: table(),
        target: relation("t"),
        gateway: "local".to_owned(),
        bindings: BTreeMap::from([
            (model(), Binding::Table(relation("u"))),
            ("c.d".parse().expect("a model's name"), Binding::Embedded(snapshot())),
        ]),
        execution_time: Timestamp(1),
        allows: Allowed { destructive: true, additive: false, later: true },
        aside: None,
        round: 1,
    })
}

fn table() -> TableId {
    TableId {
        model: "a.b".parse().expect("a model's name"),
        version: Version(Hash128(3)),
        dev: false,
        aside: None,
    }
}

pub(crate) fn encoded() -> Vec<Vec<u8>> {
    let interval = Interval { start: Timestamp(0), end: Timestamp(86_400_000) };
    let batch = Batch { table: table(), interval };
    let environment: EnvironmentName = "dev".parse().expect("a name");
    let relation = Relation { catalog: Some("c".to_owned()), schema: "s".to_owned(), table: "v".to_owned() };
    let view = View {
        model: "a.b".parse().expect("a model's name"),
        snapshot: SnapshotId(Hash128(7)),
        view: relation.clone(),
        target: relation.clone(),
        on_virtual_update: true,
    };
    let works = [
        Work::Evaluate(Evaluate {
            task: task(),
            batch: batch.clone(),
            mode: Mode::Write,
            supersedes: vec![batch.clone()],
        }),
        Work::Check(Check { task: task(), candidates: interval.into() }),
        Work::Statements(Statements {
            environment: environment.clone(),
            point: HookPoint::BeforeAll,
            gateway: "local".to_owned(),
            sql: vec!["SELECT 1".to_owned()],
        }),
        Work::Promote(Promote {
            environment,
            seq: 3,
            gateway: "local".to_owned(),
            execution_time: Timestamp(1),
            views: vec![view],
            drop: vec![relation],
            drop_schemas: vec![(None, "x".to_owned())],
        }),
    ];
    let lease = |work| Lease {
        token: Token(9),
        plan: PlanId(Hash128(1)),
        ttl_millis: 30_000,
        attempt: 1,
        behind: Some(Token(8)),
        work,
    };
    let mut all: Vec<Vec<u8>> =
        works.map(|work| [vec![0], wire::Lease::from(&lease(work)).encode_to_vec()].concat()).to_vec();
    let done = Outcome::Done(Done {
        rows: 3,
        millis: 4,
        already: false,
        audits: vec![AuditResult { name: "a".to_owned(), blocking: true, bad_rows: 0 }],
        ready: interval.into(),
    });
    let failed = Outcome::Failed(Failure {
        class: FailureClass::Transient,
        code: Some("40001".to_owned()),
        message: "no".to_owned(),
        hint: None,
    });
    for outcome in [done, failed, Outcome::HandedBack, Outcome::Fenced] {
        let report = Report { token: Token(9), batch: Some(batch.clone()), outcome };
        all.push([vec![1], wire::Report::from(report).encode_to_vec()].concat());
    }
    all
}

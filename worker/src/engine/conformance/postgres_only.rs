//! What only a server can show: locks, passwords, name limits, connections that break.

use std::io;
use std::time::{Duration, Instant};

use coord_common::id::Token;
use coord_common::secret::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::lab::{LOCKED_USER, Lab, batch, connect, day};
use crate::engine::config::{DEFAULT_LEDGER, EngineConfig, PostgresConfig, SslMode, open};
use crate::engine::{
    BatchWrite, CancellationToken, Class, Engine, Migration, Outcome, Policies, Relation, ViewChange,
    ViewSwitch, Write,
};
use coord_common::task::Policy;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_hangs_in_its_transaction_is_overtaken() {
    let lab = Lab::postgres().await;
    lab.run(&batch("make", 1, day(2, 1))).await.unwrap();
    let mut lock = lab.engine.pool.get().await.unwrap();
    lock.run(&["SELECT pg_advisory_lock(1)".to_owned()]).await.unwrap();
    let mut hangs = batch("d", 1, day(1, 3));
    hangs.post = vec!["SELECT pg_advisory_xact_lock(1)".to_owned()];
    let overtake = async {
        let waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event = 'advisory' \
                       AND application_name = 'coordctl:1'";
        while lab.rows(waiting).await != ["1"] {
            tokio::task::yield_now().await;
        }
        let newer = lab.run(&batch("d", 2, day(1, 3))).await.unwrap();
        lock.run(&["SELECT pg_advisory_unlock(1)".to_owned()]).await.unwrap();
        newer
    };
    let (zombie, newer) = tokio::join!(lab.run(&hangs), overtake);
    assert_eq!(zombie.unwrap_err().class, Class::Stale);
    assert_eq!(newer.outcome, Outcome::Written);
    assert_eq!(lab.rows("SELECT COUNT(*) FROM s.t WHERE ds = '2024-01-01'").await, ["3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raise_that_travels_with_the_data_is_obeyed() {
    let lab = Lab::postgres().await;
    let first = batch("d1", 1, day(1, 3));
    assert_eq!(lab.run(&first).await.unwrap().outcome, Outcome::Written);
    // From here on the table and the query's columns are known.
    assert_eq!(lab.run(&first).await.unwrap().outcome, Outcome::AlreadyDone);
    assert_eq!(lab.run(&fresh("d2", 2, day(2, 2))).await.unwrap().outcome, Outcome::Written);
    overtake(&lab, &fresh("d3", 9, day(3, 5))).await;
    assert_eq!(lab.run(&fresh("d3", 3, day(3, 5))).await.unwrap_err().class, Class::Stale);
    lab.engine.prune(None, &first.fence.table, Token(9)).await.unwrap();
    assert_eq!(lab.run(&fresh("d4", 4, day(4, 5))).await.unwrap_err().class, Class::Stale);
    assert_eq!(lab.rows("SELECT COUNT(*) FROM s.t").await, ["5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_was_looked_ahead_to_has_raised_its_token_and_can_still_be_overtaken() {
    let lab = Lab::postgres().await;
    let mut early = fresh("d0", 1, day(1, 1));
    lab.engine.look_ahead(&mut early).await;
    assert!(!early.raised, "there is no table to be described yet");
    lab.run(&early).await.unwrap();
    let mut next = fresh("d1", 2, day(1, 3));
    lab.engine.look_ahead(&mut next).await;
    assert!(next.raised);
    assert_eq!(lab.rows(&holder("d1")).await, ["2,0"], "raised, and not done");
    assert_eq!(lab.run(&next).await.unwrap().outcome, Outcome::Written);
    assert_eq!(lab.rows(&holder("d1")).await, ["2,2"]);
    let mut late = fresh("d2", 3, day(2, 4));
    lab.engine.look_ahead(&mut late).await;
    assert!(late.raised);
    overtake(&lab, &fresh("d2", 4, day(2, 4))).await;
    assert_eq!(lab.run(&late).await.unwrap_err().class, Class::Stale);
    assert_eq!(lab.rows("SELECT COUNT(*) FROM s.t").await, ["3"]);
    let mut again = batch("d3", 5, day(3, 1));
    lab.engine.look_ahead(&mut again).await;
    assert!(!again.raised, "what may be done already must look when its turn comes");
}

fn fresh(slot: &str, token: u64, write: Write) -> BatchWrite {
    BatchWrite { replayed_is_done: false, ..batch(slot, token, write) }
}

fn holder(slot: &str) -> String {
    format!("SELECT tok, done FROM {DEFAULT_LEDGER}._fence WHERE slot = '{slot}'")
}

async fn overtake(lab: &Lab, newer: &BatchWrite) {
    let mut session = lab.engine.pool.get().await.unwrap();
    let ledger = lab.engine.ledger(&mut *session, None).await.unwrap();
    ledger.raise(&mut *session, lab.engine.pool.profile(), &newer.fence, false).await.unwrap();
    session.give_back();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_killed_is_replaced() {
    let lab = Lab::postgres().await;
    lab.run(&batch("d1", 1, day(1, 1))).await.unwrap();
    let other = connect(&lab.config.clone().unwrap(), 1);
    let mut write = batch("d2", 2, day(2, 1));
    write.post = vec!["SELECT pg_terminate_backend(pg_backend_pid())".to_owned()];
    let error = lab.run(&write).await.unwrap_err();
    assert_eq!(error.class, Class::Transient, "{error:?}");
    let kill = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    other.query(kill).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    write.post.clear();
    while let Err(error) = lab.run(&write).await {
        assert!(error.class == Class::Transient && Instant::now() < deadline, "{error:?}");
    }
    assert_eq!(lab.rows("SELECT COUNT(*) FROM s.t").await, ["2"]);
}

/// Passes bytes on until the commit comes by, then cuts the line: before it, or after its answer.
pub(super) async fn cut_at_commit(listener: TcpListener, server: u16, deliver: bool) -> io::Result<()> {
    let mut cut = false;
    loop {
        let (mut client, _) = listener.accept().await?;
        let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
        let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
        loop {
            tokio::select! {
                size = client.read(&mut up) => {
                    let size = size.unwrap_or(0);
                    if size == 0 { break }
                    let is_commit = String::from_utf8_lossy(&up[..size]).contains("COUNT(*) FROM hit");
                    if cut || !is_commit {
                        server.write_all(&up[..size]).await?;
                        continue;
                    }
                    cut = true;
                    if deliver {
                        server.write_all(&up[..size]).await?;
                        server.readable().await?;
                    }
                    break;
                }
                size = server.read(&mut down) => {
                    let size = size.unwrap_or(0);
                    if size == 0 { break }
                    client.write_all(&down[..size]).await?;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_looked_up_and_counts_once() {
    for deliver in [true, false] {
        let lab = Lab::postgres().await;
        lab.run(&batch("make", 1, Write::Create { query: "SELECT 1 AS i".to_owned() })).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let direct = lab.config.clone().unwrap();
        let config = PostgresConfig { port: listener.local_addr().unwrap().port(), ..direct.clone() };
        let proxy = tokio::spawn(cut_at_commit(listener, direct.port, deliver));
        let query = "SELECT i FROM generate_series(1, 3) AS a(i)".to_owned();
        let mut write = batch("a", 2, Write::Append { query });
        write.replayed_is_done = false;
        let report = connect(&config, 1).run_batch(&write, &CancellationToken::new()).await.unwrap();
        assert_eq!((report.outcome, report.rows), (Outcome::Written, 3), "delivered: {deliver}");
        assert_eq!(lab.rows("SELECT COUNT(*) FROM s.t").await, ["3"], "delivered: {deliver}");
        proxy.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_that_exist_need_no_right_to_make_them() {
    let lab = Lab::postgres().await;
    for statement in [
        "CREATE SCHEMA s",
        "CREATE SCHEMA coordctl",
        "CREATE SCHEMA v",
        "GRANT USAGE, CREATE ON SCHEMA s, coordctl, v TO locked",
    ] {
        lab.engine.query(statement).await.unwrap();
    }
    let mut config = lab.config.clone().unwrap();
    config.role = Some(LOCKED_USER.to_owned());
    let engine = connect(&config, 1);
    engine.run_batch(&batch("d", 1, day(1, 2)), &CancellationToken::new()).await.unwrap();
    assert_eq!(lab.rows("SELECT tableowner FROM pg_tables WHERE tablename = 't'").await, [LOCKED_USER]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_permanent_and_never_repeated() {
    let lab = Lab::postgres().await;
    let login = |password: Option<&str>| PostgresConfig {
        user: LOCKED_USER.to_owned(),
        password: password.map(Secret::new),
        ..lab.config.clone().unwrap()
    };
    for password in [Some("canary-w0rd"), None] {
        let error = connect(&login(password), 1).ping().await.unwrap_err();
        assert_eq!((&error.class, error.code.as_deref()), (&Class::Permanent, Some("28P01")), "{error:?}");
        assert!(error.hint.is_some() && !format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
    assert!(!format!("{:?}", login(Some("canary-w0rd"))).contains("canary"));
    assert!(connect(&login(Some("right")), 1).ping().await.unwrap().contains("PostgreSQL 15"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_refused_early() {
    let mut config = PostgresConfig::new("127.0.0.1", 1, "u", "d");
    let error = connect(&config, 1).ping().await.unwrap_err();
    assert_eq!(error.class, Class::Transient, "a server that is down may come back: {error:?}");
    config.ssl_mode = SslMode::VerifyFull;
    let error = open(&EngineConfig::Postgres(config), 1).err().unwrap();
    assert_eq!(error.class, Class::Permanent);
    let lab = Lab::postgres().await;
    let mut write = batch("n", 1, Write::AuditOnly);
    write.target = Relation::new("s", "x".repeat(64));
    let error = lab.engine.run_batch(&write, &CancellationToken::new()).await.unwrap_err();
    assert_eq!((error.class, error.code.as_deref()), (Class::Permanent, Some("42622")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_is_made_again_under_those_that_show_it_but_never_without_them() {
    let lab = Lab::postgres().await;
    let view = |query: &str| Write::View { query: query.to_owned(), materialized: false };
    lab.run(&batch("1", 1, view("SELECT 1 AS i, 2 AS j"))).await.unwrap();
    lab.engine.query("CREATE VIEW theirs AS SELECT i FROM s.t").await.unwrap();
    lab.engine.query("CREATE VIEW second AS SELECT i AS k FROM theirs").await.unwrap();
    lab.run(&batch("2", 2, view("SELECT 'x' AS i"))).await.unwrap();
    assert_eq!(lab.rows("SELECT * FROM second").await, ["x"]);

    let error = lab.run(&batch("3", 3, view("SELECT 1 AS j"))).await.unwrap_err();
    assert_eq!((&error.class, error.code.as_deref()), (&Class::Permanent, Some("42703")), "{error:?}");
    assert!(error.message.contains("theirs") && error.hint.is_some(), "{error:?}");
    assert_eq!(lab.rows("SELECT * FROM second").await, ["x"], "all is as it was");

    lab.engine.query("CREATE MATERIALIZED VIEW kept AS SELECT i FROM s.t").await.unwrap();
    let error = lab.run(&batch("4", 4, view("SELECT 1 AS i"))).await.unwrap_err();
    assert_eq!((&error.class, error.code.as_deref()), (&Class::Permanent, Some("2BP01")), "{error:?}");
    assert!(error.message.contains("kept"), "{error}");
}

/// Gives two views of `s.t` an owner, comments and grants.
const BELONGINGS: &[&str] = &[
    "CREATE ROLE reader",
    "CREATE ROLE boss",
    "GRANT CREATE, USAGE ON SCHEMA v TO boss",
    "GRANT USAGE ON SCHEMA s TO boss",
    "GRANT SELECT ON s.t2 TO boss",
    "GRANT USAGE ON SCHEMA v TO reader",
    "CREATE VIEW v.theirs AS SELECT a FROM v.a",
    "GRANT SELECT ON v.theirs TO reader",
    "COMMENT ON VIEW v.a IS 'it''s; shown'",
    "COMMENT ON COLUMN v.a.a IS 'a number'",
    "COMMENT ON COLUMN v.a.b IS 'goes'",
    "GRANT SELECT ON v.a TO reader WITH GRANT OPTION",
    "GRANT SELECT ON v.a TO PUBLIC",
    "GRANT UPDATE (a), UPDATE (b) ON v.a TO reader",
    "ALTER VIEW v.a SET (security_barrier = true)",
    "ALTER VIEW v.a OWNER TO boss",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_is_made_again_keeps_owner_grants_comments_and_options() {
    let lab = Lab::postgres().await;
    for table in [
        "CREATE SCHEMA s",
        "CREATE TABLE s.t1 AS SELECT 1 AS a, 2 AS b",
        "CREATE TABLE s.t2 AS SELECT 'x' AS a, 3 AS c",
    ] {
        lab.engine.query(table).await.unwrap();
    }
    let show = async |seq: u64, table: &str| {
        let change = ViewChange {
            view: Relation::new("v", "a"),
            target: Relation::new("s", table),
            on_virtual_update: Vec::new(),
        };
        let switch = ViewSwitch {
            environment: "prod".to_owned(),
            seq,
            views: vec![change],
            drop: Vec::new(),
            drop_schemas: Vec::new(),
        };
        lab.engine.switch_views(&switch, &CancellationToken::new()).await.unwrap()
    };
    show(1, "t1").await;
    for statement in BELONGINGS {
        lab.engine.query(statement).await.unwrap();
    }
    let belongings = "SELECT relname, pg_get_userbyid(relowner), \
                      ARRAY(SELECT g::text FROM unnest(relacl) g ORDER BY 1)::text, reloptions::text, \
                      obj_description(oid, 'pg_class'), col_description(oid, 1::int) \
                      FROM pg_class WHERE relname IN ('a', 'theirs') AND relkind = 'v' ORDER BY 1";
    let before = lab.rows(belongings).await;
    assert!(before[0].contains("boss") && before[0].contains("it's; shown"), "{before:?}");
    show(2, "t2").await;
    assert_eq!(lab.rows(belongings).await, before);
    assert_eq!(lab.rows("SELECT a FROM v.theirs").await, ["x"]);
    let columns =
        "SELECT attname, attacl::text FROM pg_attribute WHERE attrelid = 'v.a'::regclass AND attnum > 0";
    assert_eq!(lab.rows(columns).await, ["a,{reader=w/boss}", "c,~"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_over_a_table_that_loses_columns_keep_their_grants() {
    let lab = Lab::postgres().await;
    let query = "SELECT 1 AS a, 2 AS b".to_owned();
    lab.run(&batch("d1", 1, Write::Append { query })).await.unwrap();
    for statement in [
        "CREATE VIEW shown AS SELECT * FROM s.t",
        "GRANT SELECT ON shown TO PUBLIC",
        "COMMENT ON VIEW shown IS 'theirs'",
    ] {
        lab.engine.query(statement).await.unwrap();
    }
    let policies = Policies { destructive: Policy::Allow, additive: Policy::Allow };
    let migration = Migration::Table { policies, kept: Vec::new(), later: false };
    let write = Write::Migrate { query: "SELECT 2 AS b".to_owned(), migration };
    lab.run(&batch("all", 2, write)).await.unwrap();
    assert_eq!(lab.rows("SELECT * FROM shown").await, ["2"]);
    let kept = "SELECT g.grantee, obj_description(oid, 'pg_class') FROM pg_class, aclexplode(relacl) g \
                WHERE oid = 'shown'::regclass AND g.grantee = 0";
    assert_eq!(lab.rows(kept).await, ["0,theirs"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_may_make_the_ledger_at_once() {
    let lab = Lab::postgres().await;
    let config = lab.config.clone().unwrap();
    let mut all = tokio::task::JoinSet::new();
    for number in 1..=8_u32 {
        let config = config.clone();
        all.spawn(async move {
            let write = batch(&format!("d{number}"), 1, day(number, 1));
            connect(&config, 1).run_batch(&write, &CancellationToken::new()).await
        });
    }
    while let Some(done) = all.join_next().await {
        assert_eq!(done.unwrap().unwrap().outcome, Outcome::Written);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_materialized_view_is_refreshed_under_what_shows_it() {
    let lab = Lab::postgres().await;
    let view = |token, query: &str| {
        batch(&format!("v{token}"), token, Write::View { query: query.to_owned(), materialized: true })
    };
    lab.engine.query("CREATE TABLE source AS SELECT 1 AS i").await.unwrap();
    lab.run(&view(1, "SELECT i FROM source -- all")).await.unwrap();
    lab.engine.query("CREATE VIEW shown AS SELECT * FROM s.t").await.unwrap();
    lab.engine.query("INSERT INTO source VALUES (2)").await.unwrap();
    assert_eq!(lab.rows("SELECT i FROM shown").await, ["1"], "it is kept as a table");
    lab.run(&view(2, "SELECT i FROM source -- all")).await.unwrap();
    assert_eq!(lab.rows("SELECT i FROM shown ORDER BY i").await, ["1", "2"]);
    let error = lab.run(&view(3, "SELECT i + 1 AS i FROM source")).await.unwrap_err();
    assert_eq!((error.class, error.code.as_deref()), (Class::Permanent, Some("2BP01")), "another query");
    lab.engine.query("DROP VIEW shown").await.unwrap();
    lab.engine.query("GRANT SELECT ON s.t TO PUBLIC").await.unwrap();
    lab.run(&view(4, "SELECT i + 1 AS i FROM source")).await.unwrap();
    assert_eq!(lab.rows("SELECT i FROM s.t ORDER BY i").await, ["2", "3"]);
    let public =
        "SELECT COUNT(*) FROM pg_class, aclexplode(relacl) g WHERE oid = 's.t'::regclass AND g.grantee = 0";
    assert_eq!(lab.rows(public).await, ["1"]);
}

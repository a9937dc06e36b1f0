//! Connections that are encrypted, and who is let in.

use std::path::Path;

use coord_proto::tls::{
    ClientCertificates, ClientTls, ClientTlsArgs, ConnectionInfo, ServerTls, ServerTlsArgs, WorkloadName,
    dialer, incoming,
};
use coord_tests::certificates::{Authority, Subject};
use coord_tests::cli::{Cli, plan_id};
use coord_tests::fleet::{Fleet, FleetOptions, wait_until};
use coord_tests::guarded::Guarded;
use coord_tests::postgres::{Postgres, PostgresOptions};
use coord_tests::project::sales;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tonic::transport::server::Connected as _;
use tower::Service as _;
use worker::engine::{EngineConfig, EngineError, PostgresConfig, SslMode, open};

use crate::workers::{assert_all_is_done_once, start_plan, watch_the_pointer_until_the_end};

fn server_args(folder: &Path) -> ServerTlsArgs {
    let file = |name: &str| Some(folder.join(name));
    ServerTlsArgs { tls_cert: file("server.pem"), tls_key: file("server.key"), tls_client_ca: file("ca.pem") }
}

fn client_args(folder: &Path) -> ClientTlsArgs {
    let file = |name: &str| Some(folder.join(name));
    ClientTlsArgs {
        tls_ca: file("ca.pem"),
        tls_cert: file("client.pem"),
        tls_key: file("client.key"),
        tls_server_name: None,
    }
}

/// Writes what a server and a client need to believe each other.
fn write_all(authority: &Authority, folder: &Path) {
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    authority.write(folder, "server", Subject::new("server"));
    let uri = Some("r://main/worker/w-1");
    authority.write(folder, "client", Subject { uri, ..Subject::new("client") });
}

/// Starts a server that answers each connection with "hello", and gives its port and whom it has let in.
async fn serve(
    folder: &Path,
    clients: ClientCertificates,
) -> (u16, tokio::sync::mpsc::Receiver<ConnectionInfo>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = ServerTls::new(&server_args(folder), clients).unwrap();
    let (seen, infos) = tokio::sync::mpsc::channel(16);
    let mut connections = Box::pin(incoming(listener, tls));
    tokio::spawn(async move {
        while let Some(Ok(mut connection)) = connections.next().await {
            let info = connection.connect_info();
            if connection.write_all(b"hello").await.is_ok() && connection.flush().await.is_ok() {
                let _ = seen.send(info).await;
            }
        }
    });
    (port, infos)
}

/// What a client reads over a new connection, or why it can't.
async fn greeting(tls: &std::sync::Arc<ClientTls>, host: &str, port: u16) -> Result<String, String> {
    let uri = format!("http://{host}:{port}").parse().unwrap();
    let mut stream =
        dialer(Some(tls.clone())).call(uri).await.map_err(|error| error.to_string())?.into_inner();
    let mut text = [0; 5];
    stream.read_exact(&mut text).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

async fn meet(server: &Path, args: &ClientTlsArgs) -> Result<String, String> {
    let (port, _seen) = serve(server, ClientCertificates::Required).await;
    greeting(&ClientTls::new(args).unwrap().unwrap(), "127.0.0.1", port).await
}

#[tokio::test]
async fn both_ends_prove_who_they_are() {
    let folder = tempfile::tempdir().unwrap();
    write_all(&Authority::new("ours"), folder.path());
    let (port, mut seen) = serve(folder.path(), ClientCertificates::Required).await;
    let tls = ClientTls::new(&client_args(folder.path())).unwrap().unwrap();
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(greeting(&tls, host, port).await.as_deref(), Ok("hello"));
        let info = seen.recv().await.unwrap();
        assert!(info.encrypted && info.remote.is_some());
        let peer = info.peer.unwrap();
        let name = WorkloadName { cluster: "main".into(), role: "worker".into(), name: "w-1".into() };
        assert_eq!((peer.common_name(), peer.workload()), (Some("client"), Some(name)));
    }
}

#[tokio::test]
async fn whoever_cannot_prove_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    write_all(&ours, folder.path());
    let args = client_args(folder.path());
    let path = |name: &str| Some(folder.path().join(name));
    ours.write(folder.path(), "old", Subject { expired: true, ..Subject::new("client") });
    foreign.write(folder.path(), "foreign", Subject::new("client"));
    std::fs::write(folder.path().join("foreign-ca.pem"), foreign.pem()).unwrap();
    let nobody = ClientTlsArgs { tls_cert: None, tls_key: None, ..args.clone() };
    let expired = ClientTlsArgs { tls_cert: path("old.pem"), tls_key: path("old.key"), ..args.clone() };
    let stranger =
        ClientTlsArgs { tls_cert: path("foreign.pem"), tls_key: path("foreign.key"), ..args.clone() };
    let suspicious = ClientTlsArgs { tls_ca: path("foreign-ca.pem"), ..args.clone() };
    let elsewhere = ClientTlsArgs { tls_server_name: Some("other.example".to_owned()), ..args.clone() };
    let cases = [
        (nobody, "CertificateRequired"),
        (expired, "CertificateExpired"),
        (stranger, "UnknownCA"),
        (suspicious, "UnknownIssuer"),
        (elsewhere, "other.example"),
    ];
    for (args, why) in cases {
        let refused = meet(folder.path(), &args).await.unwrap_err();
        assert!(refused.contains(why), "{why}: {refused}");
    }
    ours.write(folder.path(), "server", Subject { expired: true, ..Subject::new("server") });
    let refused = meet(folder.path(), &args).await.unwrap_err();
    assert!(refused.contains("expired"), "{refused}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_nobody_where_they_are_optional() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    write_all(&authority, folder.path());
    let (port, mut seen) = serve(folder.path(), ClientCertificates::Optional).await;
    let args = ClientTlsArgs { tls_cert: None, tls_key: None, ..client_args(folder.path()) };
    let tls = ClientTls::new(&args).unwrap().unwrap();
    assert_eq!(greeting(&tls, "127.0.0.1", port).await.as_deref(), Ok("hello"));
    assert_eq!(seen.recv().await.unwrap().peer, None);
    Authority::new("foreign").write(folder.path(), "client", Subject::new("client"));
    let tls = ClientTls::new(&client_args(folder.path())).unwrap().unwrap();
    assert!(greeting(&tls, "127.0.0.1", port).await.is_err(), "a wrong certificate is worse than none");
}

#[tokio::test]
async fn what_does_not_speak_tls_keeps_nobody_else_out() {
    let folder = tempfile::tempdir().unwrap();
    write_all(&Authority::new("ours"), folder.path());
    let (port, _seen) = serve(folder.path(), ClientCertificates::Required).await;
    let mut silent = Vec::new();
    for text in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", &[0x16; 300]] {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(text).await.unwrap();
        silent.push(stream);
    }
    let tls = ClientTls::new(&client_args(folder.path())).unwrap().unwrap();
    assert_eq!(greeting(&tls, "127.0.0.1", port).await.as_deref(), Ok("hello"));
}

#[tokio::test]
async fn new_connections_use_new_certificates_and_bad_ones_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (former, next) = (Authority::new("former"), Authority::new("next"));
    write_all(&former, folder.path());
    let (port, mut seen) = serve(folder.path(), ClientCertificates::Required).await;
    let tls = ClientTls::new(&client_args(folder.path())).unwrap().unwrap();
    assert_eq!(greeting(&tls, "127.0.0.1", port).await.as_deref(), Ok("hello"));
    let first = seen.recv().await.unwrap().peer.unwrap();
    for file in ["ca.pem", "server.pem", "client.key"] {
        std::fs::write(folder.path().join(file), "-----BEGIN CERTIFICATE-----\nx").unwrap();
    }
    assert_eq!(greeting(&tls, "127.0.0.1", port).await.as_deref(), Ok("hello"));
    assert_eq!(seen.recv().await.unwrap().peer.unwrap(), first);
    write_all(&next, folder.path());
    assert_eq!(greeting(&tls, "127.0.0.1", port).await.as_deref(), Ok("hello"));
    assert_ne!(seen.recv().await.unwrap().peer.unwrap(), first);
    former.write(folder.path(), "client", Subject::new("client"));
    let refused = greeting(&tls, "127.0.0.1", port).await.unwrap_err();
    assert!(refused.contains("UnknownCA"), "{refused}");
}

fn write_fleet(authority: &Authority, folder: &Path) {
    for (role, who) in [
        ("coordinator", "coordinator"),
        ("admin", "coordctl"),
        ("worker", "worker-0"),
        ("worker", "worker-1"),
        ("worker", "worker-2"),
    ] {
        let uri = format!("r://main/{role}/{who}");
        authority.write(folder, who, Subject { uri: Some(&uri), ..Subject::new(who) });
    }
}

#[test]
fn a_fleet_goes_on_while_its_certificates_are_exchanged() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let (former, next) = (Authority::new("former"), Authority::new("next"));
    write("ca.pem", &former.pem());
    write_fleet(&former, folder.path());
    let certificates = Some(folder.path().to_owned());
    let mut fleet =
        Fleet::start(FleetOptions { certificates, lease_ttl: 4000, ..FleetOptions::default() }, sales());
    fleet.pause(0.1);
    let id = start_plan(&fleet);
    fleet.wait_for_commits(5);
    // What an interrupted copy leaves: the former files serve on, and the log names the new one.
    write("coordinator.pem", "-----BEGIN CERTIFICATE-----\n");
    fleet.cli().ok(&["status"]);
    wait_until("a warning", || fleet.coordinator.log().contains("coordinator.pem: "));
    // In three steps nobody is ever a stranger: trust both, exchange certificates, trust one.
    write("ca.pem", &[former.pem(), next.pem()].concat());
    write_fleet(&next, folder.path());
    fleet.cli().ok(&["status"]);
    write("ca.pem", &next.pem());
    fleet.cli().ok(&["status"]);
    // The workers, which run on, must connect anew.
    fleet.coordinator.kill9();
    fleet.coordinator.restart();
    fleet.wait_until_serving();
    fleet.add_worker(&[]);
    fleet.pause(0.0);
    watch_the_pointer_until_the_end(&fleet, &id);
    assert_all_is_done_once(&fleet);
    former.write(folder.path(), "coordctl", Subject::new("coordctl"));
    let refused = fleet.cli().run(&["status", "--server-timeout", "1"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("UnknownCA"), "{refused:?}");
    let plain = coord_tests::cli::Cli::at(fleet.project.path(), &fleet.address().replace("https", "http"));
    assert_eq!(
        plain.run(&["status", "--server-timeout", "1"]).code,
        Some(2),
        "who speaks plain text is not understood"
    );
    let without = coord_tests::cli::Cli::at(fleet.project.path(), fleet.address()).run(&["status"]);
    assert!(without.stderr.contains("--tls-ca"), "{without:?}");
}

#[test]
fn a_certificate_gives_its_role_and_name_and_nothing_beyond() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    write_fleet(&authority, folder.path());
    for (who, uri) in [
        ("pia", Some("r://main/planner/pia")),
        ("avi", Some("r://main/applier/avi")),
        ("vic", Some("r://main/viewer/vic")),
        ("bob", Some("r://main/approver/bob")),
        ("eve", Some("r://elsewhere/admin/eve")),
        ("odd", Some("r://main/king/odd")),
        ("mia", None),
    ] {
        authority.write(folder.path(), who, Subject { uri, ..Subject::new(who) });
    }
    let certificates = Some(folder.path().to_owned());
    let fleet = Fleet::start(FleetOptions { certificates, workers: 1, ..FleetOptions::default() }, sales());
    let as_ = |who: &str| {
        let flag = |name: &str, file: &str| format!("--tls-{name}={}", folder.path().join(file).display());
        let (certificate, key) = (format!("{who}.pem"), format!("{who}.key"));
        let flags = vec![flag("ca", "ca.pem"), flag("cert", &certificate), flag("key", &key)];
        Cli::at(fleet.project.path(), fleet.address()).now(&FleetOptions::default().now).arguments(flags)
    };
    let code = |who: &str, arguments: &[&str]| {
        let refused = as_(who).run(&[arguments, &["--format", "json"]].concat());
        refused.error()["code"].as_str().unwrap_or_default().to_owned()
    };
    for who in ["avi", "vic", "bob", "worker-0"] {
        assert_eq!(code(who, &["plan", "prod", "--no-prompts"]), "permission-denied", "{who}");
    }
    for who in ["eve", "odd", "mia"] {
        assert_eq!(code(who, &["plans"]), "unauthenticated", "{who}");
    }
    let id = plan_id(&as_("pia").plan(&["prod"]));
    for who in ["pia", "vic", "bob", "worker-0"] {
        assert_eq!(code(who, &["apply", &id]), "permission-denied", "{who}");
    }
    assert_eq!(code("coordctl", &["approve", &id]), "permission-denied", "admins don't approve");
    as_("bob").ok(&["approve", &id]);
    as_("avi").ok(&["apply", &id]);
    let history = as_("vic").json(&["history"]);
    let by = |did: &str| {
        let mut entries = history["history"].as_array().into_iter().flatten();
        entries.find(|entry| entry["did"] == did).map(|entry| entry["by"].clone())
    };
    assert_eq!((by("planned"), by("approved")), (Some("pia".into()), Some("bob".into())));
    assert_eq!((by("started"), by("finished")), (Some("avi".into()), Some("avi".into())));
}

#[test]
fn what_can_not_heal_is_said_at_once_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let path = |file: &str| folder.path().join(file).display().to_string();
    std::fs::write(path("ca.pem"), ours.pem()).unwrap();
    std::fs::write(path("foreign-ca.pem"), foreign.pem()).unwrap();
    write_fleet(&ours, folder.path());
    foreign.write(folder.path(), "stranger", Subject::new("stranger"));
    let certificates = Some(folder.path().to_owned());
    let fleet = Fleet::start(FleetOptions { certificates, workers: 0, ..FleetOptions::default() }, sales());
    let plain = Guarded::start(&[("ann", "viewer")], &[]);
    let (https, http) = (fleet.address().to_owned(), plain.address().to_owned());
    let client = |ca: &str, who: &str| {
        let (ca, certificate, key) = (path(ca), path(&format!("{who}.pem")), path(&format!("{who}.key")));
        vec![format!("--tls-ca={ca}"), format!("--tls-cert={certificate}"), format!("--tls-key={key}")]
    };
    let known = client("ca.pem", "coordctl");
    let named = [known.clone(), vec!["--tls-server-name=else.where".to_owned()]].concat();
    let port = https.rsplit(':').next().unwrap();
    let cases = [
        (https.clone(), client("foreign-ca.pem", "coordctl"), "give the authority that issued it"),
        (https.clone(), client("ca.pem", "stranger"), "an authority that the coordinator knows"),
        (https.clone(), vec![format!("--tls-ca={}", path("ca.pem"))], "give --tls-cert and --tls-key"),
        (https.clone(), named, "--tls-server-name"),
        (format!("http://127.0.0.1:{port}"), Vec::new(), "write https://"),
        (http.replace("http:", "https:"), known.clone(), "write http://"),
    ];
    for (server, flags, remedy) in cases {
        let begun = std::time::Instant::now();
        let refused = Cli::at(fleet.project.path(), &server).arguments(flags).run(&["status"]);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(remedy), "{remedy}: {refused:?}");
        assert!(!refused.stderr.contains("waiting for"), "{refused:?}");
        assert!(begun.elapsed().as_secs() < 30, "nothing is waited for");
    }
    let nobody =
        Cli::at(fleet.project.path(), "http://127.0.0.1:1").run(&["status", "--server-timeout", "1"]);
    assert!(nobody.stderr.contains("waiting for a coordinator that leads, for up to 1 s"), "{nobody:?}");
    let second = Cli::at(fleet.project.path(), &format!("https://localhost:1,{https}")).arguments(known);
    second.ok(&["status"]);
}

async fn ping(config: PostgresConfig) -> Result<String, EngineError> {
    let engine = open(&EngineConfig::Postgres(config), 1)?;
    let answer = engine.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await?;
    Ok(answer.rows[0][0].clone().unwrap_or_default())
}

#[tokio::test]
async fn postgresql_is_reached_as_sslmode_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    std::fs::write(file("ours.pem"), ours.pem()).unwrap();
    std::fs::write(file("foreign.pem"), foreign.pem()).unwrap();
    let certificate = Some(ours.issue(Subject::new("postgres")));
    let encrypting = Postgres::start_with(PostgresOptions { certificate, ..PostgresOptions::default() });
    let plain = Postgres::start();
    let config = |server: &Postgres, ssl_mode, root: Option<&str>| PostgresConfig {
        ssl_mode,
        ssl_root_cert: root.map(file),
        ..PostgresConfig::new("127.0.0.1", server.port(), "postgres", "postgres")
    };
    for (mode, root, encrypted) in [
        (SslMode::Disable, None, "f"),
        (SslMode::Prefer, None, "t"),
        (SslMode::Prefer, Some("foreign.pem"), "t"),
        (SslMode::Require, None, "t"),
        (SslMode::Require, Some("ours.pem"), "t"),
        (SslMode::VerifyCa, Some("ours.pem"), "t"),
        (SslMode::VerifyFull, Some("ours.pem"), "t"),
    ] {
        let found = ping(config(&encrypting, mode, root)).await;
        assert_eq!(found.as_deref(), Ok(encrypted), "{mode:?} {root:?}");
    }
    for (mode, root, why) in [
        (SslMode::Require, Some("foreign.pem"), "UnknownIssuer"),
        (SslMode::VerifyCa, Some("foreign.pem"), "UnknownIssuer"),
        (SslMode::VerifyCa, None, "authority"),
        (SslMode::VerifyFull, Some("missing.pem"), "missing.pem"),
    ] {
        let error = ping(config(&encrypting, mode, root)).await.unwrap_err();
        assert!(error.message.contains(why), "{mode:?} {root:?}: {error:?}");
    }
    assert_eq!(ping(config(&plain, SslMode::Prefer, None)).await.as_deref(), Ok("f"));
    let error = ping(config(&plain, SslMode::Require, None)).await.unwrap_err();
    assert!(error.message.contains("does not support TLS"), "{error:?}");
}

#[tokio::test]
async fn postgresql_may_have_another_name_unless_all_is_verified_and_may_ask_for_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let authority = Authority::new("ours");
    std::fs::write(file("ours.pem"), authority.pem()).unwrap();
    authority.write(folder.path(), "worker", Subject::new("postgres"));
    let named = Subject { elsewhere: true, ..Subject::new("postgres") };
    let server = Postgres::start_with(PostgresOptions {
        certificate: Some(authority.issue(named)),
        client_authority: Some(authority.pem()),
        ..PostgresOptions::default()
    });
    let config = |ssl_mode| PostgresConfig {
        ssl_mode,
        ssl_root_cert: Some(file("ours.pem")),
        ssl_identity: Some((file("worker.pem"), file("worker.key"))),
        ..PostgresConfig::new("127.0.0.1", server.port(), "postgres", "postgres")
    };
    assert_eq!(ping(config(SslMode::VerifyCa)).await.as_deref(), Ok("t"));
    let error = ping(config(SslMode::VerifyFull)).await.unwrap_err();
    assert!(error.message.contains("not valid for name"), "{error:?}");
    let nobody = PostgresConfig { ssl_identity: None, ..config(SslMode::VerifyCa) };
    let error = ping(nobody).await.unwrap_err();
    assert!(error.message.contains("certificate"), "{error:?}");
}

//! A planted secret is looked for everywhere, after all that can fail has failed.

use coord_common::id::Hash128;
use coord_tests::cli::{Cli, Finished};
use coord_tests::fleet::{Fleet, FleetOptions, wait_until};
use coord_tests::project::Project;
use coordinator::store::blob::get_blob;
use coordinator::store::{StoreUrl, open};

/// What each planted secret contains.
const CANARY: &str = "kanari-7f3a";

fn project() -> Project {
    Project::new(&[
        ("models/good.sql", "MODEL (name shop.good, kind FULL, audits (nobody));\n\nSELECT 1 AS i\n"),
        ("models/bad.sql", "MODEL (name shop.bad, kind FULL);\n\nSELECT 1 / i AS i FROM shop.zero\n"),
        ("models/zero.sql", "MODEL (name shop.zero, kind FULL);\n\nSELECT 0 AS i\n"),
        ("audits/nobody.sql", "AUDIT (name nobody);\n\nSELECT * FROM @this_model WHERE i > 1\n"),
    ])
}

/// The connection as people write it: what is secret comes from the environment.
fn config(fleet: &Fleet, password: &str, more: &str) -> String {
    let port = fleet.postgres.port();
    format!(
        "gateways:\n  pg:\n    connection:\n      type: postgres\n      host: 127.0.0.1\n      port: {port}\n      user: postgres\n      password: {password}\n      database: postgres\n{more}default_gateway: pg\nmodel_defaults:\n  dialect: postgres\n  start: 2024-01-01\n"
    )
}

/// Waits until a worker has ended, or works; it is killed then.
fn settle(fleet: &mut Fleet, worker: usize) {
    let worker = &mut fleet.workers[worker];
    wait_until("the worker", || worker.has_ended() || worker.log().contains("registered"));
    worker.kill9();
}

struct Said(Vec<(String, String)>);

impl Said {
    fn hear(&mut self, what: &str, finished: Finished) {
        let Finished { stdout, stderr, .. } = finished;
        self.0.push((what.to_owned(), format!("{stdout}\n{stderr}")));
    }

    fn run(&mut self, cli: &Cli, arguments: &[&str]) {
        self.hear(&arguments.join(" "), cli.run(arguments));
    }
}

#[test]
fn a_planted_secret_is_found_nowhere() {
    let [warehouse, state, wrong] = ["warehouse", "state", "wrong"].map(|what| format!("{CANARY}-{what}"));
    let env = [("RUST_LOG", "trace"), ("WAREHOUSE_PASSWORD", &warehouse), ("WRONG_PASSWORD", &wrong)];
    let mut fleet = Fleet::start(
        FleetOptions {
            workers: 0,
            password: Some(warehouse.clone()),
            etcd_password: Some(state),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..FleetOptions::default()
        },
        project(),
    );
    let mut said = Said(Vec::new());
    // Refused at the door, with settings that are wrong, and with an address that nobody has.
    for (password, more) in [
        ("\"{{ env_var('WRONG_PASSWORD') }}\"", ""),
        ("\"{{ env_var('WAREHOUSE_PASSWORD') }}\"", "      sslmode: verify-full\n"),
        (
            "\"{{ env_var('WAREHOUSE_PASSWORD') }}\"",
            "      concurrent_tasks: \"{{ env_var('WAREHOUSE_PASSWORD') }}\"\n",
        ),
        ("[\"{{ env_var('WAREHOUSE_PASSWORD') }}\"]", ""),
    ] {
        fleet.project.write("config.yaml", &config(&fleet, password, more));
        let worker = fleet.add_worker(&[]);
        settle(&mut fleet, worker);
        said.run(&Cli::embedded(fleet.project.path()), &["info"]);
        said.run(&fleet.cli(), &["plan", "--no-prompts"]);
    }
    fleet.project.write("config.yaml", &config(&fleet, "\"{{ env_var('WAREHOUSE_PASSWORD') }}\"", ""));
    fleet.add_worker(&[]);
    said.run(&fleet.cli(), &["plan", "--auto-apply"]);
    fleet.postgres.kill9();
    let worker = fleet.add_worker(&[]);
    settle(&mut fleet, worker);
    fleet.postgres.restart();
    let cli = fleet.cli();
    for command in [
        &["plan", "dev", "--no-prompts", "--include-unmodified"][..],
        &["state"],
        &["status"],
        &["plans"],
        &["promotions"],
        &["environments"],
        &["explain"],
        &["info"],
        &["doctor"],
        &["fetch", "SELECT no_such_column"],
        &["plan", "--no-prompts", "--gateway", "nobody"],
    ] {
        said.run(&cli, command);
        said.run(&cli, &[command, &["--format", "json"]].concat());
        said.run(&cli, &[command, &["--debug"]].concat());
    }
    for wrong in ["etcd://root:kanari-7f3a@", "etcd://root:kanari-7f3a@h", "http://ann:kanari-7f3a@h:1/%zz"] {
        said.run(&Cli::embedded(fleet.project.path()), &["status", "--state", wrong]);
    }
    let plans = cli.json(&["plans"]);
    wait_until("the plan's end", || cli.json(&["plans"]).to_string().contains("failed"));
    for plan in plans["plans"].as_array().into_iter().flatten() {
        let id = plan["plan_id"].as_str().unwrap_or_default();
        said.run(&cli, &["watch", id]);
        said.run(&cli, &["watch", id, "--format", "json"]);
    }
    said.0.push(("coordinator".to_owned(), fleet.coordinator.log()));
    for (n, worker) in fleet.workers.iter().enumerate() {
        said.0.push((format!("worker {n}"), worker.log()));
    }
    said.0.push(("state".to_owned(), dump(&fleet)));
    let worker = fleet.workers.iter().map(coord_tests::fleet::Service::log).collect::<String>();
    assert!(
        worker.contains("TRACE") && worker.contains("password authentication failed"),
        "something failed"
    );
    for (what, text) in &said.0 {
        assert!(!text.is_empty(), "{what} says nothing");
        let lines: Vec<&str> = text.lines().filter(|line| shows(line)).collect();
        assert!(lines.is_empty(), "{what} shows the secret: {:#?}", &lines[..lines.len().min(5)]);
    }
}

/// Whether a line has the canary: as it is, or as bytes are printed.
fn shows(line: &str) -> bool {
    let bytes = CANARY.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    line.contains(CANARY) || line.contains(&bytes)
}

/// All that the state holds, unpacked.
fn dump(fleet: &Fleet) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(&StoreUrl::parse(&fleet.state_url()).unwrap()).await.unwrap();
        let mut text = String::new();
        for entry in store.range("").await.unwrap().entries {
            text += &format!("{} {}\n", entry.key, String::from_utf8_lossy(&entry.value));
            let hash = entry.key.strip_prefix("r1/blob/").and_then(|rest| rest.split('/').next());
            if let Some(hash) = hash {
                let hash: Hash128 = hash.parse().unwrap();
                let content = get_blob(&*store, hash).await.unwrap().unwrap();
                text += &format!("{}\n", String::from_utf8_lossy(&content));
            }
        }
        assert!(text.contains("shop.bad") || text.contains("\"bad\""), "the dump can be read: {text}");
        text
    })
}

//! What users get wrong: a clear message, a hint, an exit code, an error document.

use coord_tests::cli::{Cli, Finished};
use coord_tests::fleet::Permit;
use coord_tests::postgres::{Postgres, PostgresOptions};
use coord_tests::project::Project;

const CONFIG: &str = "gateways:\n  duckdb:\n    connection:\n      type: duckdb\n      database: db.db\n\ndefault_gateway: duckdb\n\nmodel_defaults:\n  dialect: duckdb\n  start: 2024-01-01\n";
const NOW: &str = "2024-01-05 06:00:00";

fn project(models: &[(&str, &str)]) -> (Project, Cli) {
    let project = Project::new(&[("config.yaml", CONFIG)]);
    for (name, text) in models {
        project.write(&format!("models/{name}.sql"), text);
    }
    let cli = Cli::embedded(project.path()).now(NOW);
    (project, cli)
}

/// Fails with an exit code, in both formats; the message, hint and place of the error document.
fn refused(cli: &Cli, arguments: &[&str], exit: i32) -> (String, String, String) {
    let text = cli.run(arguments);
    assert_eq!(text.code, Some(exit), "{arguments:?}: {text:#?}");
    let panicked = |ended: &Finished| ended.stderr.contains("panicked");
    let json = cli.run(&[arguments, &["--format", "json"]].concat());
    assert_eq!(json.code, Some(exit), "{arguments:?}: {json:#?}");
    assert!(!panicked(&text) && !panicked(&json), "{text:#?}");
    let error = json.error();
    let part = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    let (message, hint) = (part("message"), part("hint"));
    assert!(!part("code").is_empty(), "{error}");
    assert!(
        text.stderr.contains(message.lines().next().unwrap_or_default()) || !part("at").is_empty(),
        "{text:#?} {error}"
    );
    (message, hint, part("at"))
}

const GOOD: &str = "MODEL (name m.good, kind FULL);\nSELECT 1 AS one";

#[test]
fn mistakes_in_models_are_named_with_their_place() {
    let _permit = Permit::wait();
    for (text, says) in [
        ("MODEL (name m.bad, kind FULL;\nSELECT 1 AS one", ""),
        ("MODEL (name m.bad, kind FULLY);\nSELECT 1 AS one", "FULLY"),
        ("MODEL (name m.bad, kind FULL, crom '@daily');\nSELECT 1 AS one", "crom"),
        ("MODEL (name m.bad, kind FULL);\nSELECT 1 AS one FROM", ""),
        ("MODEL (name m.bad, kind FULL, cron 'often');\nSELECT 1 AS one", "often"),
        ("MODEL (name m.bad, kind INCREMENTAL_BY_TIME_RANGE);\nSELECT 1 AS one", "time_column"),
        ("MODEL (name m.bad, kind FULL);\nSELECT @unknown_macro(1) AS one", "unknown_macro"),
    ] {
        let (_project, cli) = project(&[("good", GOOD), ("bad", text)]);
        let (message, _, at) = refused(&cli, &["plan"], 1);
        assert!(at.starts_with("models/bad.sql:"), "{text}: {message} at {at}");
        assert!(message.contains(says), "{text}: {message}");
    }
}

#[test]
fn models_that_read_each_other_are_refused() {
    let _permit = Permit::wait();
    let (_project, cli) = project(&[
        ("a", "MODEL (name m.a, kind FULL);\nSELECT * FROM m.b"),
        ("b", "MODEL (name m.b, kind FULL);\nSELECT * FROM m.a"),
    ]);
    let (message, _, _) = refused(&cli, &["plan"], 1);
    assert!(message.contains("m.a") && message.contains("m.b"), "{message}");
}

#[test]
fn a_mistake_leaves_what_is_there_as_it_is() {
    let _permit = Permit::wait();
    let (project, cli) = project(&[("good", GOOD)]);
    cli.plan_and_apply(&[]);
    let before = cli.json(&["state"]);
    project.write("models/good.sql", "MODEL (name m.good, kind FULL);\nSELECT 1 / 'x' AS one");
    assert_eq!(cli.run(&["plan", "--auto-apply"]).code, Some(1));
    project.write("models/good.sql", "MODEL (name m.good, kind");
    refused(&cli, &["plan"], 1);
    project.write("models/good.sql", GOOD);
    assert_eq!(cli.plan(&[])["has_changes"], false);
    let after = cli.json(&["state"]);
    assert_eq!(before["environments"], after["environments"]);
    assert_eq!(before["contents"], after["contents"]);
}

#[test]
fn mistakes_on_the_command_line_are_explained() {
    let _permit = Permit::wait();
    let (project, cli) = project(&[("good", GOOD)]);
    for (arguments, says) in [
        (vec!["plan", "dé"], "dé"),
        (vec!["plan", "dev$"], "dev$"),
        (vec!["plan", "dev;drop table x"], "dev"),
        (vec!["plan", "dev", "--start", "2024-01-04", "--end", "2024-01-02"], "2024-01-0"),
        (vec!["plan", "dev", "--start", "soon-ish"], "soon-ish"),
        (vec!["plan", "--categorize", "m.good=nice"], "nice"),
        (vec!["apply", "0123456789abcdef0123456789abcdef"], "0123456789abcdef"),
        (vec!["apply", "nonsense"], "nonsense"),
        (vec!["watch", "0123456789abcdef0123456789abcdef"], "0123456789abcdef"),
        (vec!["cancel", "0123456789abcdef0123456789abcdef"], "0123456789abcdef"),
        (vec!["watch", "0123"], "0123"),
        (vec!["explain", "--plan", "0123456789"], "0123456789"),
        (vec!["rollback", "prod", "--to", "0123456789"], "0123456789"),
        (vec!["abandon", "nowhere"], "nowhere"),
        (vec!["diff", "nowhere"], "nowhere"),
        (vec!["table_name", "m.good", "--env", "nowhere"], "nowhere"),
        (vec!["plan", "--server", "nonsense"], "nonsense"),
        (vec!["plan", "--stat"], "--stat"),
        (vec!["paln"], "paln"),
        (vec!["run", "nowhere"], "nowhere"),
        (vec!["intervals", "nowhere"], "nowhere"),
        (vec!["render", "m.nowhere"], "m.nowhere"),
    ] {
        let (message, hint, _) = refused(&cli, &arguments, 1);
        assert!(message.contains(says), "{arguments:?}: {message}");
        assert!(!hint.is_empty(), "{arguments:?}: {message}");
    }
    let elsewhere = Project::new(&[]);
    let (message, hint, _) = refused(&Cli::embedded(elsewhere.path()), &["plan"], 1);
    assert!(message.contains("config.yaml") && !hint.is_empty(), "{message}");
    let (message, hint, _) = refused(&cli.clone().now("yesterday-ish"), &["plan"], 1);
    assert!(message.contains("COORDCTL_NOW") && !hint.is_empty(), "{message}");
    // A file where the state's folder should be.
    project.write("file", "");
    let state = project.path().join("file/state").display().to_string();
    let (message, _, _) = refused(&cli.env("COORDCTL_STATE", &state), &["plan"], 1);
    assert!(message.contains("file"), "{message}");
}

#[test]
fn what_is_not_reachable_is_named_and_is_not_the_users_project() {
    let _permit = Permit::wait();
    let (project, cli) = project(&[("good", GOOD)]);
    let server = Cli::at(project.path(), "http://127.0.0.1:1");
    let (message, hint, _) = refused(&server, &["plan"], 2);
    assert!(message.contains("127.0.0.1:1") && !hint.is_empty(), "{message}");
    let (message, _, _) = refused(&cli.env("COORDCTL_STATE", "etcd://127.0.0.1:1/x"), &["plan"], 2);
    assert!(message.contains("127.0.0.1:1"), "{message}");
}

#[test]
fn a_wrong_password_is_said_but_never_shown() {
    let _permit = Permit::wait();
    let postgres = Postgres::start_with(PostgresOptions {
        password: Some("right".into()),
        ..PostgresOptions::default()
    });
    let project = Project::new(&[("models/good.sql", GOOD)]);
    project.config_of_postgres(&postgres, "application_name: coordctl");
    let config = std::fs::read_to_string(project.path().join("config.yaml")).expect("the config is there");
    project.write("config.yaml", &config.replace("password: right", "password: canary-7391"));
    let cli = Cli::embedded(project.path()).now(NOW);
    for arguments in [
        &["plan", "--auto-apply"][..],
        &["fetch", "SELECT 1"],
        &["info"],
        &["plan", "--debug", "--auto-apply"],
    ] {
        let ended = cli.run(arguments);
        assert!(!format!("{ended:?}").contains("canary-7391"), "{arguments:?}: {ended:#?}");
        if arguments[0] != "info" {
            assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:#?}");
            assert!(ended.stderr.contains("password authentication failed"), "{arguments:?}: {ended:#?}");
        }
    }
    let state = std::fs::read_dir(project.path().join(".coordctl")).expect("the state is there");
    for file in state.flatten() {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        assert!(
            !bytes.windows(11).any(|part| part == b"canary-7391"),
            "{:?} holds the password",
            file.path()
        );
    }
}

//! What commands ask and are asked: prompts on a terminal, selectors with git, audits, flags of SQLMesh.

use std::io::Write;
use std::process::{Command, Stdio};

use coord_tests::binaries::binary;
use coord_tests::cli::{Cli, executed, executed_in_all};
use coord_tests::fleet::{Fleet, FleetOptions, Permit};
use coord_tests::project::{Project, daily, sales};
use serde_json::Value;

use crate::workers::start_plan;

const CONFIG: &str = "gateways:\n  duckdb:\n    connection:\n      type: duckdb\n      database: db.db\n\ndefault_gateway: duckdb\n\nmodel_defaults:\n  dialect: duckdb\n  start: 2024-01-01\n";
const NOW: &str = "2024-01-05 06:00:00";

fn days(one: u32) -> String {
    format!(
        "MODEL (name m.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day), audits (number_of_rows(threshold := 2, blocking := false)));\nSELECT @start_date AS day, {one} AS one"
    )
}

/// Days, their sum, and an audit of the sum.
fn small(config: &str) -> Project {
    Project::new(&[
        ("config.yaml", config),
        ("models/days.sql", &days(1)),
        ("models/sums.sql", "MODEL (name m.sums, kind FULL);\nSELECT SUM(one) AS sum FROM m.days"),
        (
            "audits/big.sql",
            "AUDIT (name big, standalone true, cron '@daily');\nSELECT * FROM m.sums WHERE sum > 5 AND @end_ds > '2024'",
        ),
    ])
}

/// What a command prints on a terminal where somebody types `answers`; nothing where `script`, which
/// makes the terminal, isn't installed.
fn typed(project: &Project, arguments: &str, answers: &str) -> Option<String> {
    let command =
        format!("{} --project {} {arguments}", binary("coordctl").display(), project.path().display());
    let mut child = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("COORDCTL_NOW", NOW)
        .env("NO_COLOR", "1")
        .env_remove("COORDCTL_SERVER")
        .env_remove("COORDCTL_STATE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(answers.as_bytes()).expect("it reads its input");
    let output = child.wait_with_output().expect("it ends");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Checks that texts stand in another one, one after the other.
fn in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => panic!("`{part}` isn't there, or not after those before it: {text}"),
        }
    }
}

#[test]
fn prompts_ask_in_sqlmeshs_order_and_their_answers_count() {
    let _permit = Permit::wait();
    let config = format!("{CONFIG}plan:\n  no_prompts: false\n  auto_categorize_changes:\n    sql: 'off'\n");
    let project = small(&config);
    let cli = Cli::embedded(project.path()).now(NOW);
    cli.plan_and_apply(&[]);
    project.write("models/days.sql", &days(2));
    let Some(said) = typed(&project, "plan dev", "2\n2024-01-03\nnonsense\n2024-01-03\ny\n") else { return };
    in_order(
        &said,
        &[
            "`m.days`: [1] breaking, [2] non-breaking?",
            "The backfill's start",
            "the beginning of history",
            "The backfill's end",
            "m.days (non-breaking)",
            "m.days: [2024-01-03 - 2024-01-03]",
            "Apply - Backfill Tables [y/n]",
            "`dev` is up to date",
        ],
    );
    assert_eq!(cli.json(&["environments"])["environments"].as_array().map(Vec::len), Some(2));

    project.write("models/days.sql", &days(3));
    let Some(said) = typed(&project, "plan dev --forward-only", "1\n2024-01-02\n\n\nn\n") else { return };
    in_order(
        &said,
        &[
            "[1] breaking",
            "The effective date",
            "The preview's start",
            "the effective date, 2024-01-02",
            "The preview's end",
            "m.days: [2024-01-02 - 2024-01-04] (preview)",
            "Apply - Preview Tables [y/n]",
            "To apply it: coordctl apply",
        ],
    );
    // Production's times aren't asked for, and without prompts only whether to apply is.
    project.write("models/days.sql", &days(2));
    let Some(said) = typed(&project, "plan --no-prompts --categorize m.days=breaking", "y\n") else { return };
    assert!(!said.contains("start (such as"), "{said}");
    in_order(&said, &["Apply - Backfill Tables [y/n]", "`prod` is up to date"]);
}

#[test]
fn a_virtual_update_is_called_one() {
    let _permit = Permit::wait();
    let project = small(CONFIG);
    let cli = Cli::embedded(project.path()).now(NOW);
    cli.plan_and_apply(&[]);
    project.write("models/days.sql", &days(2));
    cli.plan_and_apply(&["dev"]);
    let Some(said) = typed(&project, "plan", "y\n") else { return };
    in_order(&said, &["Nothing must be computed", "Apply - Virtual Update [y/n]", "`prod` is up to date"]);
}

fn selected(cli: &Cli, selector: &str) -> Vec<String> {
    let document = cli.json(&["dag", "--select-model", selector]);
    let models = document["models"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> =
        models.iter().filter_map(|m| m["model"].as_str().map(str::to_owned)).collect();
    names.sort();
    names
}

fn git(project: &Project, arguments: &[&str]) {
    let identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"];
    let output = Command::new("git").args(identity).args(arguments).current_dir(project.path()).output();
    let output = output.expect("git is installed");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[test]
fn git_selectors_pick_committed_changed_and_untracked_files() {
    let project = Project::new(&[("config.yaml", CONFIG), (".gitignore", ".coordctl\ndb.db*\n")]);
    let model = |name: &str, query: &str| {
        project.write(&format!("models/{name}.sql"), &format!("MODEL (name m.{name}, kind FULL);\n{query}"));
    };
    model("committed", "SELECT 1 AS x");
    model("changed", "SELECT 1 AS x");
    model("staged", "SELECT 1 AS x");
    model("same", "SELECT 1 AS x");
    model("below", "SELECT x FROM m.committed");
    for arguments in [&["init", "-q", "-b", "main"][..], &["add", "-A"], &["commit", "-qm", "one"]] {
        git(&project, arguments);
    }
    git(&project, &["checkout", "-q", "-b", "feature"]);
    model("committed", "SELECT 2 AS x");
    git(&project, &["commit", "-qam", "two"]);
    model("changed", "SELECT 2 AS x");
    model("staged", "SELECT 2 AS x");
    git(&project, &["add", "models/staged.sql"]);
    model("untracked", "SELECT 2 AS x");
    let cli = Cli::embedded(project.path()).now(NOW);
    for (selector, expected) in [
        ("git:main", &["m.changed", "m.committed", "m.staged", "m.untracked"][..]),
        ("git:feature", &["m.changed", "m.staged", "m.untracked"]),
        ("git:main+ & ^git:feature", &["m.below", "m.committed"]),
        ("^git:main", &["m.below", "m.same"]),
    ] {
        assert_eq!(selected(&cli, selector), expected, "{selector}");
    }
    let refused = cli.run(&["dag", "--select-model", "git:nowhere", "--format", "json"]);
    assert_eq!((refused.code, refused.error()["code"].as_str()), (Some(1), Some("git")));
    // A plan takes the selected files alone.
    let planned = cli.plan(&["dev", "--select-model", "git:feature"]);
    let names: Vec<&str> = planned["models"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|model| model["name"].as_str())
        .collect();
    assert_eq!(names, ["m.changed", "m.staged", "m.untracked"]);
}

#[test]
fn differences_are_shown_as_written_rendered_or_not_at_all() {
    let _permit = Permit::wait();
    let project = small(CONFIG);
    let cli = Cli::embedded(project.path()).now(NOW);
    cli.plan_and_apply(&[]);
    project.write(
        "models/sums.sql",
        "MODEL (name m.sums, kind FULL);\nSELECT @EVAL(1 + 1) * SUM(one) AS sum FROM m.days",
    );
    let text = |arguments: &[&str]| cli.ok(&[&["plan", "dev", "--no-prompts"], arguments].concat()).stdout;
    let written = text(&[]);
    assert!(
        written.contains("+ SELECT @EVAL(1 + 1) * SUM(one)") && written.contains("- SELECT SUM(one)"),
        "{written}"
    );
    let rendered = text(&["--diff-rendered"]);
    assert!(rendered.contains("+ SELECT 2 * SUM(one)"), "{rendered}");
    let none = text(&["--no-diff"]);
    assert!(none.contains("~ m.sums") && !none.contains("SUM(one)"), "{none}");
    let explained = text(&["--explain"]);
    in_order(&explained, &["Keep the new snapshots", "Create tables", "m.sums", "Compute", "Point `dev`"]);
    assert!(!explained.contains("big version"), "nothing is made for an audit: {explained}");
    assert_eq!(
        cli.json(&["environments"])["environments"].as_array().map(Vec::len),
        Some(1),
        "nothing was applied"
    );
}

#[test]
fn standalone_audits_run_after_what_they_read_and_hold_nothing_up() {
    let _permit = Permit::wait();
    let project = small(CONFIG);
    let cli = Cli::embedded(project.path()).now(NOW);
    let first = cli.plan_and_apply(&[]);
    let order: Vec<&str> =
        first["executed"].as_array().into_iter().flatten().filter_map(|row| row[0].as_str()).collect();
    assert_eq!(order, ["m.days", "m.sums", "big"]);
    project.write("models/days.sql", &days(9));
    let found = cli.ok(&["plan", "--auto-apply"]);
    assert!(found.stderr.contains("audit big found 1 bad rows"), "{found:#?}");
    assert!(found.stdout.contains("`prod` is up to date"), "{found:#?}");
    let later = cli.clone().now("2024-01-07 06:00:00");
    let run = later.json(&["run"]);
    assert_eq!((executed(&run, "big", "ok"), executed_in_all(&run)), (1, 3));
    assert_eq!(executed_in_all(&later.json(&["run"])), 0);
    // Restated rows are looked at where they are computed, before anybody else sees them.
    project.write("audits/big.sql", "AUDIT (name big, standalone true);\nSELECT * FROM m.sums WHERE sum > 5");
    let restated = later.ok(&["plan", "--restate-model", "m.days", "--auto-apply"]);
    assert!(restated.stderr.contains("audit big found 1 bad rows"), "{restated:#?}");
    project.remove("audits/big.sql");
    later.plan_and_apply(&[]);
    let much_later = cli.clone().now("2024-03-07 06:00:00");
    much_later.ok(&["janitor", "--ignore-ttl"]);
}

#[test]
fn audits_are_run_again_and_their_findings_are_the_exit_code() {
    let _permit = Permit::wait();
    let project = small(CONFIG);
    let cli = Cli::embedded(project.path()).now(NOW);
    let early = cli.run(&["audit", "--format", "json"]);
    assert_eq!((early.code, early.error()["code"].as_str()), (Some(1), Some("not-applied")), "{early:#?}");
    cli.ok(&["plan", "--auto-apply"]);
    let statuses = |arguments: &[&str], code: i32| -> Vec<String> {
        let finished = cli.run(&[&["audit", "--format", "json"], arguments].concat());
        assert_eq!(finished.code, Some(code), "{finished:#?}");
        let found = finished.json();
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        found["audits"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|f| text(f, "audit") + " " + &text(f, "status"))
            .collect()
    };
    assert_eq!(statuses(&["--model", "big"], 0), ["big pass"]);
    // Of the time range there is one row, and less than two are too few.
    assert_eq!(statuses(&[], 1), ["number_of_rows fail", "big pass"]);
    assert_eq!(
        statuses(&["--model", "m.days", "-s", "2023-01-01", "-e", "2023-01-02"], 1),
        ["number_of_rows fail"]
    );
    assert_eq!(statuses(&["--model", "m.sums"], 0), [""; 0]);
    let unknown = cli.run(&["audit", "--model", "m.dayz", "--format", "json"]);
    assert_eq!(unknown.error()["hint"], "did you mean `m.days`?");
    let said = cli.run(&["audit"]);
    in_order(
        &said.stdout,
        &["Found 2 audits", "number_of_rows on model m.days FAIL [1]", "big PASS", "1 failed, 0 skipped"],
    );
}

#[test]
fn a_run_can_exit_where_a_plan_is_moving_its_environment() {
    let fleet = Fleet::start(FleetOptions::default(), sales());
    let cli = fleet.cli();
    cli.plan_and_apply(&[]);
    fleet.project.write("models/daily.sql", &daily(", COUNT(*)::INT AS sales"));
    fleet.pause(0.3);
    let _id = start_plan(&fleet);
    let run =
        cli.run(&["run", "--execution-time", "2024-02-12", "--skip-janitor", "--exit-on-env-update", "75"]);
    assert_eq!(run.code, Some(75), "{run:#?}");
    assert!(run.stderr.contains("prod"), "it says why: {run:#?}");
    fleet.pause(0.0);
}

#[test]
fn queries_are_shown_with_those_of_the_models_that_they_read_in_them() {
    let project = small(CONFIG);
    project.write(
        "models/top.sql",
        "MODEL (name m.top, kind VIEW);\nSELECT s.sum FROM m.sums AS s JOIN m.days ON s.sum = days.one",
    );
    let cli = Cli::embedded(project.path()).now(NOW);
    let shown = |arguments: &[&str]| cli.ok(&[&["render", "m.top"], arguments].concat()).stdout;
    assert!(shown(&[]).contains("FROM m.sums AS s JOIN m.days"));
    let one = shown(&["--expand", "m.sums"]);
    in_order(&one, &["FROM (SELECT SUM(one) AS sum FROM m.days", ") AS s JOIN m.days ON"]);
    let all = shown(&["--expand", "true"]);
    in_order(&all, &["SELECT SUM(one) AS sum FROM (SELECT", "AS s JOIN (SELECT", "AS \"days\" ON"]);
    assert!(!all.contains("m.days") && !all.contains("m.sums"), "{all}");
}

#[test]
fn the_janitor_can_be_sent_to_one_environment() {
    let _permit = Permit::wait();
    let project = small(CONFIG);
    let cli = Cli::embedded(project.path()).now(NOW);
    cli.plan_and_apply(&[]);
    project.write("models/days.sql", &days(2));
    for name in ["one", "two"] {
        cli.plan_and_apply(&[name]);
        cli.ok(&["invalidate", name]);
    }
    let tidied = cli.json(&["janitor", "--environment", "one"]);
    assert_eq!(tidied["environments"], serde_json::json!(["one"]), "{tidied}");
    assert!(tidied.get("tables").is_none() && tidied.get("snapshots").is_none(), "{tidied}");
    assert!(cli.json(&["janitor", "-e", "prod"]).get("environments").is_none(), "it hasn't expired");
    assert_eq!(cli.json(&["janitor"])["environments"], serde_json::json!(["two"]));
}

//! `plan` and `diff`: upload, show, and perhaps apply.

use std::path::Path;
use std::process::ExitCode;

use coord_common::id::{EnvironmentName, ModelName};
use coord_common::plan::{Blocker, Change, Choice, Plan, PlanDocument, PlanOptions, PlannedModel, Selectors};
use coord_common::project::Settings;

use super::{apply, git, test};
use crate::args::{Format, PlanArgs};
use crate::client::{PlanAnswer, PlanUpload};
use crate::error::{CliError, CliResult};
use crate::files::ProjectFiles;
use crate::output;
use crate::session::Session;

/// `coordctl plan`.
pub(crate) async fn plan(session: &mut Session, args: PlanArgs) -> CliResult<ExitCode> {
    let files = session.files()?;
    let settings = files.settings()?;
    let options = plan_options(&args, &settings, &files.folder)?;
    let preview = options.forward_only && !options.environment.is_prod();
    if !args.skip_tests && !args.test_changed_only {
        test::before_plan(session, &files, None).await?;
    }
    let mut answer = planned(session, &files, options.clone()).await?;
    if args.test_changed_only && !args.explain {
        let only = touched(&answer.plan, &args.select_model);
        test::before_plan(session, &files, Some(&only)).await?;
    }
    let mut findings = files.settings_findings();
    let others = answer.findings.iter().filter(|finding| !ProjectFiles::is_about_settings(finding));
    findings.extend(others.cloned());
    output::findings(&findings, session.format());
    let text = session.format() == Format::Text;
    let no_diff = args.no_diff || settings.plan.no_diff;
    if text && !args.no_prompts && !args.explain && output::is_terminal() {
        let asked = Prompts { no_diff, times: !settings.plan.no_prompts };
        answer = asked.settle(session, &files, options, answer).await?;
    }
    if args.explain {
        return explain(session, &answer);
    }
    let auto_apply = args.auto_apply || settings.plan.auto_apply;
    if text {
        output::plan(&answer, no_diff);
    }
    let apply = match decide(session, auto_apply, &answer) {
        Decision::Apply => true,
        Decision::Leave => false,
        Decision::Ask => output::ask(&format!("Apply - {} [y/n]", what_applying_is(&answer.plan, preview)))?,
    };
    // Without an answer to what changes mean there is nothing to review yet.
    let open = blocker(&answer.plan, UNCATEGORIZED);
    if let Some(blocker) = open.or_else(|| answer.plan.blockers.first().filter(|_| apply)) {
        if session.format() == Format::Json {
            output::json(&coord_common::plan::document(&answer.plan, None))?;
        }
        return Err(CliError::user(&blocker.code, &blocker.message, &blocker.hint));
    }
    if answer.plan.is_empty() || !apply {
        return finish(session, &answer);
    }
    apply::carry_out(session, &settings, files.folder.clone(), &answer.plan).await
}

/// The models that a plan changes or restates, and what was selected of them.
fn touched(plan: &Plan, select: &[String]) -> test::Tested {
    let touched = |model: &&PlannedModel| model.change != Change::Unchanged || model.restatement.is_some();
    let models = plan.models.iter().filter(touched).map(|model| model.name.clone()).collect();
    test::Tested { models, select: select.to_vec() }
}

/// The blocker of plans with changes whose meaning nobody said.
const UNCATEGORIZED: &str = "uncategorized";

fn blocker<'a>(plan: &'a Plan, code: &str) -> Option<&'a Blocker> {
    plan.blockers.iter().find(|blocker| blocker.code == code)
}

/// What people are asked before a plan is shown for the last time.
struct Prompts {
    no_diff: bool,
    /// Whether times are asked for, too.
    times: bool,
}

impl Prompts {
    /// Asks for what the options leave open, and plans again where there is an answer: what changes mean;
    /// from when on rows follow forward-only changes; from when to when is computed.
    async fn settle(
        &self,
        session: &mut Session,
        files: &ProjectFiles,
        mut options: PlanOptions,
        mut answer: PlanAnswer,
    ) -> CliResult<PlanAnswer> {
        if let Some(open) = blocker(&answer.plan, UNCATEGORIZED) {
            output::plan(&answer, self.no_diff);
            for name in &open.models {
                options.categorize.insert(name.clone(), output::ask_category(name)?);
            }
            answer = planned(session, files, options.clone()).await?;
        }
        if !self.times {
            return Ok(answer);
        }
        let before = options.clone();
        let plan = &answer.plan;
        if options.forward_only && options.effective_from.is_none() && !plan.new_snapshots.is_empty() {
            options.effective_from = output::ask_time(
                "The effective date (such as '1 year', '2020-01-01') from which on rows follow forward-only \
                 changes; nothing: from the deployment to production on",
            )?;
        }
        // Production's times follow from what it has.
        let timed = !plan.environment.is_prod() || plan.restates;
        if timed && plan.requires_backfill() {
            let preview = options.forward_only && !plan.environment.is_prod();
            let what = if preview { "preview" } else { "backfill" };
            if options.start.is_none() {
                let blank = match (&options.effective_from, preview) {
                    (Some(from), true) => format!("the effective date, {from}"),
                    (None, true) => "yesterday".to_owned(),
                    (_, false) => "the beginning of history".to_owned(),
                };
                let asked = output::ask_time(&format!(
                    "The {what}'s start (such as '1 year', '2020-01-01'); nothing: {blank}"
                ))?;
                options.start = asked.or_else(|| options.effective_from.clone().filter(|_| preview));
            }
            if options.end.is_none() {
                options.end = output::ask_time(&format!(
                    "The {what}'s end (such as '1 month ago', '2020-01-01'); nothing: as late as possible"
                ))?;
            }
        }
        if options == before { Ok(answer) } else { planned(session, files, options).await }
    }
}

/// What saying yes does, in SQLMesh's words.
fn what_applying_is(plan: &Plan, preview: bool) -> &'static str {
    match (plan.requires_backfill(), preview) {
        (false, _) => "Virtual Update",
        (true, false) => "Backfill Tables",
        (true, true) => "Preview Tables",
    }
}

/// Uploads the project and gets the plan.
async fn planned(session: &mut Session, files: &ProjectFiles, options: PlanOptions) -> CliResult<PlanAnswer> {
    let held = !options.selectors.restate.is_empty() && !options.always_include_local_changes;
    let gateway = session.global.gateway.clone();
    let files_for = if held { files.config_for_upload()? } else { files.for_upload()? };
    let mut client = session.client().await?;
    client
        .plan(PlanUpload { options, files: files_for, env: files.named_variables(), gateway, run: false })
        .await
}

/// `coordctl diff`.
pub(crate) async fn diff(session: &mut Session, name: &str) -> CliResult<ExitCode> {
    let files = session.files()?;
    let settings = files.settings()?;
    let name = environment(Some(name), &settings)?;
    let shown = session.client().await?.list("environments", "").await?;
    let mut shown = shown["environments"].as_array().into_iter().flatten();
    if !shown.any(|shown| shown["name"] == name.as_str() && shown["expired"] != true) {
        return Err(CliError::unknown_environment(&name));
    }
    let answer = planned(session, &files, PlanOptions::new(name)).await?;
    match session.format() {
        Format::Json => output::json(&coord_common::plan::document(&answer.plan, None))?,
        Format::Text | Format::Csv => output::plan(&answer, false),
    }
    Ok(if answer.plan.has_changes { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// The steps of applying, instead of applying.
fn explain(session: &Session, answer: &PlanAnswer) -> CliResult<ExitCode> {
    let stages = coord_common::plan::stages(&answer.plan);
    if session.format() == Format::Json {
        let plan = coord_common::plan::document(&answer.plan, None);
        output::json(&serde_json::json!({ "plan": plan, "stages": stages }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if stages.is_empty() {
        output::line("Applying this plan does nothing.");
    }
    for (number, stage) in stages.iter().enumerate() {
        output::line(&format!("{}. {}:", number + 1, stage.what));
        for (model, detail) in &stage.models {
            output::line(&format!("     {model} {detail}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

enum Decision {
    Apply,
    Leave,
    Ask,
}

fn decide(session: &Session, auto_apply: bool, answer: &PlanAnswer) -> Decision {
    if auto_apply {
        return Decision::Apply;
    }
    if answer.plan.is_empty() || session.format() != Format::Text || !output::is_terminal() {
        return Decision::Leave;
    }
    Decision::Ask
}

/// A plan that isn't applied: printed for programs, with the next step for people.
pub(super) fn finish(session: &Session, answer: &PlanAnswer) -> CliResult<ExitCode> {
    match session.format() {
        Format::Json => {
            let unfinished = answer.unfinished.iter().map(|id| format!("unfinished_restatement:{id}"));
            let document = coord_common::plan::document(&answer.plan, None);
            output::json(&unfinished.fold(document, PlanDocument::with_note))?;
        }
        Format::Text | Format::Csv if answer.plan.is_empty() => {}
        Format::Text | Format::Csv => {
            output::line(&format!(
                "\nTo apply it: coordctl apply {}",
                output::short(&answer.plan.id.to_string())
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The environment that a command is about.
pub(super) fn environment(given: Option<&str>, settings: &Settings) -> CliResult<EnvironmentName> {
    given.unwrap_or(&settings.default_target_environment).parse().map_err(|error| {
        CliError::user("bad-environment", format!("{error}"), "use letters, digits, `_` and `-`")
    })
}

fn plan_options(args: &PlanArgs, settings: &Settings, folder: &Path) -> CliResult<PlanOptions> {
    let mut options = PlanOptions::new(environment(args.environment.as_deref(), settings)?);
    options.start.clone_from(&args.times.start);
    options.end.clone_from(&args.times.end);
    options.execution_time.clone_from(&args.times.execution_time);
    options.create_from =
        args.create_from.as_deref().map(|name| environment(Some(name), settings)).transpose()?;
    options.include_unmodified = args.include_unmodified || settings.plan.include_unmodified;
    options.skip_backfill = args.skip_backfill;
    options.empty_backfill = args.empty_backfill;
    options.effective_from = args.effective_from.clone();
    options.enable_preview = match (args.enable_preview, args.no_enable_preview) {
        (false, false) => None,
        (enabled, _) => Some(enabled),
    };
    options.forward_only = args.forward_only || settings.plan.forward_only;
    options.run = args.run;
    options.ignore_cron = args.ignore_cron;
    options.in_place = args.in_place;
    options.min_intervals = args.min_intervals;
    options.no_gaps = args.no_gaps;
    options.no_auto_categorization = args.no_auto_categorization;
    options.diff_rendered = args.diff_rendered;
    options.always_include_local_changes = args.always_include_local_changes;
    options.selectors = Selectors {
        select: args.select_model.clone(),
        backfill: args.backfill_model.clone(),
        restate: args.restate_model.clone(),
        allow_destructive: args.allow_destructive_model.clone(),
        allow_additive: args.allow_additive_model.clone(),
        ..Selectors::default()
    };
    options.selectors.changed_files = git::changed_files(&options.selectors, folder)?;
    for choice in &args.categorize {
        let (name, category) = category(choice)?;
        options.categorize.insert(name, category);
    }
    Ok(options)
}

/// A model's name as written on the command line.
pub(super) fn model(name: &str) -> CliResult<ModelName> {
    name.replace(['"', '`'], "")
        .parse()
        .map_err(|error| CliError::user("bad-model", format!("{error}"), "write schema.model"))
}

fn category(text: &str) -> CliResult<(ModelName, Choice)> {
    let bad = || {
        let hint = "write MODEL=breaking or MODEL=non-breaking";
        CliError::user("bad-category", format!("--categorize {text} can't be understood"), hint)
    };
    let (name, category) = text.split_once('=').ok_or_else(bad)?;
    let choice = match category {
        "breaking" => Choice::Breaking,
        "non-breaking" | "non_breaking" => Choice::NonBreaking,
        _ => return Err(bad()),
    };
    Ok((model(name)?, choice))
}

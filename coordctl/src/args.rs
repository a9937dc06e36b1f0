//! The command line. Flags, names and defaults are SQLMesh's where it has them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use coord_proto::tls::ClientTlsArgs;
use coordinator::access::Role;

/// Plans and applies changes to SQL models, interval by interval, on one machine or a fleet.
#[derive(Debug, Parser)]
#[command(name = "coordctl", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// The project's folder [default: here, searched upwards for a config].
    #[arg(long, short = 'p', visible_alias = "paths", global = true, value_name = "DIR")]
    pub(crate) project: Option<PathBuf>,
    /// Where the state is without a server: a folder, sqlite:FILE or etcd://HOST:PORT/NAME
    /// [default: <project>/.coordctl].
    #[arg(long, global = true, env = "COORDCTL_STATE", value_name = "URL|DIR")]
    pub(crate) state: Option<String>,
    /// The coordinators, of which one leads: repeated, or separated by commas; without one, all runs
    /// in this process.
    #[arg(long, global = true, env = "COORDCTL_SERVER", value_name = "URL", value_delimiter = ',')]
    pub(crate) server: Vec<String>,
    /// How long to look for a coordinator that leads before giving up, in seconds.
    #[arg(
        long,
        global = true,
        env = "COORDCTL_SERVER_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 60
    )]
    pub(crate) server_timeout: u64,
    #[command(flatten)]
    pub(crate) tls: ClientTlsArgs,
    /// A file with the token that the coordinator asks for; without it, COORDCTL_TOKEN is.
    #[arg(long, global = true, env = "COORDCTL_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The gateway to use instead of the project's default.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) gateway: Option<String>,
    /// A file with environment variables, instead of the project's .env.
    #[arg(long, global = true, env = "SQLMESH_DOTENV_PATH", value_name = "FILE")]
    pub(crate) dotenv: Option<PathBuf>,
    /// How data is printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Say more on standard error.
    #[arg(long, global = true)]
    pub(crate) debug: bool,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
    /// Comma-separated values, where the data is a table.
    Csv,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a new project.
    Init(InitArgs),
    /// Show what applying the project to an environment would do.
    Plan(PlanArgs),
    /// Carry a plan out, or resume it.
    Apply(ApplyArgs),
    /// Approve somebody else's plan for a protected environment.
    Approve(PlanId),
    /// Compute what an environment misses by now.
    Run(RunArgs),
    /// Print a model's query with its macros expanded.
    Render(RenderArgs),
    /// Show how models depend on each other.
    Dag(DagArgs),
    /// Run audits over ranges that are complete; exits with 1 if one finds bad rows.
    Audit(AuditArgs),
    /// Check the project without a plan.
    Lint,
    /// List environments.
    Environments,
    /// Make a development environment count as gone; the janitor removes it.
    Invalidate(InvalidateArgs),
    /// Remove environments that have expired, and tables that nothing needs any more.
    Janitor(JanitorArgs),
    /// Show again what an earlier plan promoted, without computing anything.
    Rollback(RollbackArgs),
    /// Give up a plan that was not applied, or a development environment with all it has.
    Abandon(AbandonArgs),
    /// List what environments showed: who moved each, when, from what to what.
    Promotions(PromotionsArgs),
    /// List who had what done, and check that nothing of it was changed.
    History(HistoryArgs),
    /// List plans and what happened to them.
    Plans,
    /// Show what is complete and what is missing.
    Intervals(EnvironmentArg),
    /// Print the physical table behind a model.
    #[command(name = "table_name")]
    TableName(TableNameArgs),
    /// Show how the project differs from an environment; exits with 1 if it does.
    Diff(DiffArgs),
    /// Remove all environments, production too, with all their tables.
    Destroy(DestroyArgs),
    /// Show what is missing, after asking signals what is ready.
    #[command(name = "check_intervals", alias = "check-intervals")]
    CheckIntervals(CheckIntervalsArgs),
    /// Say why a model needs a backfill, what it reads, and why it waits.
    Explain(ExplainArgs),
    /// Show what runs.
    Status,
    /// Follow a plan to its end.
    Watch(PlanId),
    /// Stop a plan; what is committed stays.
    Cancel(PlanId),
    /// Run a query in the warehouse and print its rows.
    #[command(visible_alias = "fetchdf")]
    Fetch(FetchArgs),
    /// Show the project, the state and the connections.
    Info(InfoArgs),
    /// Print environments, tables and recorded intervals, for programs; export or import the state.
    State(StateArgs),
    /// Run the unit tests of models.
    Test(TestArgs),
    /// Make tokens for a coordinator that asks for them.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Manage warehouse drivers.
    #[command(subcommand)]
    Driver(DriverCommand),
    /// Check what this machine needs.
    Doctor,
}

/// Which time a command is about: dates, RFC 3339, or relative to now (`yesterday`, `1 week ago`).
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TimeArgs {
    /// The first point to cover: a date, a time, or relative to now, such as "1 week ago".
    #[arg(long, short, value_name = "TIME")]
    pub(crate) start: Option<String>,
    /// The last point to cover; a date covers the whole day.
    #[arg(long, short, value_name = "TIME")]
    pub(crate) end: Option<String>,
    /// What counts as now.
    #[arg(long, value_name = "TIME")]
    pub(crate) execution_time: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The engine.
    #[arg(default_value = "duckdb", value_parser = ["duckdb", "postgres"])]
    pub(crate) engine: String,
    /// `default` has example models, `empty` has none.
    #[arg(long, short = 't', default_value = "default", value_parser = ["default", "empty"])]
    pub(crate) template: String,
}

#[derive(Debug, Clone, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct PlanArgs {
    /// The environment [default: the project's default_target_environment, `prod`].
    pub(crate) environment: Option<String>,
    #[command(flatten)]
    pub(crate) times: TimeArgs,
    /// Where a new environment starts from.
    #[arg(long, value_name = "ENV")]
    pub(crate) create_from: Option<String>,
    /// Don't run the project's unit tests first.
    #[arg(long)]
    pub(crate) skip_tests: bool,
    /// Run only the unit tests of models that the plan changes or restates.
    #[arg(long, conflicts_with = "skip_tests")]
    pub(crate) test_changed_only: bool,
    /// As for SQLMesh; plans run no linter.
    #[arg(long, hide = true)]
    pub(crate) skip_linter: bool,
    /// As for SQLMesh; nothing more is shown.
    #[arg(long, short, action = clap::ArgAction::Count, hide = true)]
    pub(crate) verbose: u8,
    /// Make tables and views only.
    #[arg(long, visible_alias = "dry-run")]
    pub(crate) skip_backfill: bool,
    /// Record everything as complete without computing it.
    #[arg(long)]
    pub(crate) empty_backfill: bool,
    /// Changes keep the physical tables.
    #[arg(long)]
    pub(crate) forward_only: bool,
    /// Show models that didn't change in a development environment, too.
    #[arg(long)]
    pub(crate) include_unmodified: bool,
    /// Backfill only these models and what they read.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) backfill_model: Vec<String>,
    /// What a change means, where you know better: MODEL=breaking or MODEL=non-breaking.
    #[arg(long, value_name = "MODEL=CATEGORY")]
    pub(crate) categorize: Vec<String>,
    /// Also compute what became due since production last ran.
    #[arg(long)]
    pub(crate) run: bool,
    /// With --run: don't wait for crons to tick.
    #[arg(long)]
    pub(crate) ignore_cron: bool,
    /// Ask neither for times nor what changes mean; on a terminal, whether to apply is asked.
    #[arg(long)]
    pub(crate) no_prompts: bool,
    /// Apply without asking.
    #[arg(long)]
    pub(crate) auto_apply: bool,
    /// Don't show how definitions changed.
    #[arg(long)]
    pub(crate) no_diff: bool,
    /// Show how definitions changed with their macros expanded.
    #[arg(long)]
    pub(crate) diff_rendered: bool,
    /// Every direct change must be categorised: at the prompt, or with --categorize.
    #[arg(long)]
    pub(crate) no_auto_categorization: bool,
    /// Print the steps of applying instead of applying.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Compute a model again over the plan's times, and everything below it; files don't count.
    #[arg(long, short = 'r', value_name = "SELECTOR")]
    pub(crate) restate_model: Vec<String>,
    /// With --restate-model: replace rows where they are, batch by batch, for tables that are too
    /// large to be computed aside; readers see old and new rows side by side meanwhile.
    #[arg(long, requires = "restate_model")]
    pub(crate) in_place: bool,
    /// With --restate-model: plan changes in files as well.
    #[arg(long)]
    pub(crate) always_include_local_changes: bool,
    /// Models whose tables may lose columns in this plan.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) allow_destructive_model: Vec<String>,
    /// Models whose tables may get columns in this plan.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) allow_additive_model: Vec<String>,
    /// Take only matching models from the files: a name, mart.*, tag:x, git:branch, with + & | ^ ( ).
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) select_model: Vec<String>,
    /// From when on rows follow forward-only changes; needs --forward-only.
    #[arg(long, value_name = "TIME")]
    pub(crate) effective_from: Option<String>,
    /// Compute forward-only changes in a development environment, into throwaway tables.
    #[arg(long, overrides_with = "no_enable_preview")]
    pub(crate) enable_preview: bool,
    /// Don't compute forward-only changes in a development environment.
    #[arg(long)]
    pub(crate) no_enable_preview: bool,
    /// Consider at least so many intervals of each model, although the plan starts later.
    #[arg(long, value_name = "N")]
    pub(crate) min_intervals: Option<u32>,
    /// Refuse to promote tables that lack ranges which those before them had.
    #[arg(long)]
    pub(crate) no_gaps: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The plan's id, or the beginning of it.
    pub(crate) plan: String,
    /// Start it and return.
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct RunArgs {
    /// The environment [default: the project's default_target_environment, `prod`].
    pub(crate) environment: Option<String>,
    #[command(flatten)]
    pub(crate) times: TimeArgs,
    /// Don't wait for crons to tick.
    #[arg(long)]
    pub(crate) ignore_cron: bool,
    /// Don't remove first what has expired; runs of production do.
    #[arg(long)]
    pub(crate) skip_janitor: bool,
    /// Compute only these models and what they read.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) select_model: Vec<String>,
    /// With --select-model: leave out what they read.
    #[arg(long)]
    pub(crate) no_auto_upstream: bool,
    /// Exit with this code if the environment is moved, or being moved, by a plan, instead of waiting and
    /// starting anew.
    #[arg(long, value_name = "CODE")]
    pub(crate) exit_on_env_update: Option<u8>,
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Test files, FILE::TEST, or files of models, whose tests are meant [default: all].
    pub(crate) tests: Vec<String>,
    /// Run only tests whose FILE::TEST has this in it, or matches it where it has a `*`.
    #[arg(short = 'k', value_name = "PATTERN")]
    pub(crate) patterns: Vec<String>,
    /// Run only tests of these models.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) select_model: Vec<String>,
    /// List each test; twice: with its statements.
    #[arg(long, short, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Args)]
pub(crate) struct CheckIntervalsArgs {
    /// The environment [default: the project's default_target_environment, `prod`].
    pub(crate) environment: Option<String>,
    /// Ask no signals.
    #[arg(long)]
    pub(crate) no_signals: bool,
    /// Check only these models.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) select_model: Vec<String>,
    #[command(flatten)]
    pub(crate) times: TimeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// A model or standalone audit; without one, all of them.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Vec<String>,
    #[command(flatten)]
    pub(crate) times: TimeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// The model; without one, all that have a query.
    pub(crate) model: Option<String>,
    /// Put the query of a model that is read in its name's place, and so on upwards; `true`: all of them.
    #[arg(long, value_name = "MODEL")]
    pub(crate) expand: Vec<String>,
    #[command(flatten)]
    pub(crate) times: TimeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DagArgs {
    /// A file to write, in Graphviz's language.
    pub(crate) file: Option<PathBuf>,
    /// Show only matching models.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) select_model: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InvalidateArgs {
    /// The environment.
    pub(crate) environment: String,
    /// Drop its views at once.
    #[arg(long, short)]
    pub(crate) sync: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The environment.
    pub(crate) environment: String,
    /// The plan to go back to, or the beginning of its id [default: the one before].
    #[arg(long, value_name = "PLAN")]
    pub(crate) to: Option<String>,
    /// Only show what it would mean.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AbandonArgs {
    /// A plan's id, or the beginning of it; or a development environment, whose views go at once, and its
    /// tables with the next `janitor`. A plan that a development environment shows goes with the environment.
    #[arg(value_name = "PLAN|ENV")]
    pub(crate) what: String,
}

#[derive(Debug, Args)]
pub(crate) struct JanitorArgs {
    /// Remove what nothing needs however short ago it was needed.
    #[arg(long)]
    pub(crate) ignore_ttl: bool,
    /// Remove only this environment, if it has expired; its tables are left for a later janitor.
    #[arg(long, short, value_name = "ENV")]
    pub(crate) environment: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PromotionsArgs {
    /// The environment [default: all].
    pub(crate) environment: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Only what was done to this environment [default: all].
    pub(crate) environment: Option<String>,
    /// How many entries are shown, the newest ones.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Show all entries, and verify the whole chain of their hashes.
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a new token, once, and the line for the coordinator's file.
    New {
        /// Whose it is; a worker's name is also its `--name`.
        #[arg(long)]
        name: String,
        /// What its owner may do: viewer, planner, approver, applier, worker, admin.
        #[arg(long, required = true, value_delimiter = ',', value_name = "ROLE")]
        role: Vec<Role>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct EnvironmentArg {
    /// The environment [default: the project's default_target_environment, `prod`].
    pub(crate) environment: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TableNameArgs {
    /// The model.
    pub(crate) model: String,
    /// The environment [default: the project's default_target_environment, `prod`].
    #[arg(long, visible_alias = "env", value_name = "ENV")]
    pub(crate) environment: Option<String>,
    /// The table that production would take over, where the environment reads one of its own.
    #[arg(long)]
    pub(crate) prod: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The environment.
    pub(crate) environment: String,
}

#[derive(Debug, Args)]
pub(crate) struct DestroyArgs {
    /// Don't ask.
    #[arg(long)]
    pub(crate) no_prompts: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The model; without one, all of them.
    pub(crate) model: Option<String>,
    /// A plan, to explain what it would compute.
    #[arg(long, value_name = "PLAN")]
    pub(crate) plan: Option<String>,
    /// The environment, where no plan is given.
    #[arg(long, visible_alias = "env", value_name = "ENV")]
    pub(crate) environment: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PlanId {
    /// The plan's id, or the beginning of it.
    pub(crate) plan: String,
}

#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// The query.
    pub(crate) sql: String,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Don't try connections.
    #[arg(long)]
    pub(crate) skip_connection: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct StateArgs {
    #[command(subcommand)]
    pub(crate) command: Option<StateCommand>,
    /// Leave out the contents of views (row counts and checksums).
    #[arg(long)]
    pub(crate) no_contents: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Write all of the state, as it is at one moment, to a file; a coordinator may go on.
    Export {
        /// The file, or - for standard output.
        file: PathBuf,
    },
    /// Put an exported state into an empty store, etcd or SQLite; no coordinator may run.
    Import {
        /// The file.
        file: PathBuf,
        /// Replace what is in the store.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DriverCommand {
    /// Fetch a driver and check its hash.
    Add {
        /// Which driver.
        #[arg(value_parser = ["duckdb"])]
        name: String,
        /// Take a file that is already here instead of fetching one.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// Show which drivers are there.
    List,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn flags_and_commands_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_in_the_readme() {
        let readme = include_str!("../../README.md");
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let listed = [format!("`{name}`"), format!("`{name} ")].iter().any(|text| readme.contains(text));
            assert!(listed, "README.md does not list `{name}`");
        }
    }
}

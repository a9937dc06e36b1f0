//! One file per verb.

mod apply;
mod audit;
mod driver;
mod fetch;
mod git;
mod history;
mod init;
mod inspect;
mod local;
mod plan;
mod run;
mod state;
mod tend;
mod test;
mod token;

pub(crate) use apply::who;

use std::process::ExitCode;

use crate::args::{Command, StateArgs};
use crate::error::CliResult;
use crate::session::Session;

/// Does what was asked; the exit code tells programs.
pub(crate) async fn run(session: &mut Session, command: Command) -> CliResult<ExitCode> {
    match command {
        Command::Init(args) => init::init(session, &args)?,
        Command::Plan(args) => return plan::plan(session, args).await,
        Command::Apply(args) => return apply::apply(session, args).await,
        Command::Approve(args) => apply::approve(session, &args.plan).await?,
        Command::Run(args) => return run::run(session, args).await,
        Command::Audit(args) => return audit::audit(session, args).await,
        Command::Render(args) => local::render(session, &args)?,
        Command::Dag(args) => local::dag(session, &args)?,
        Command::Lint => local::lint(session)?,
        Command::Environments => inspect::environments(session).await?,
        Command::Invalidate(args) => tend::invalidate(session, args).await?,
        Command::Janitor(args) => tend::janitor(session, args).await?,
        Command::Rollback(args) => tend::rollback(session, args).await?,
        Command::Abandon(args) => tend::abandon(session, &args.what).await?,
        Command::Promotions(args) => inspect::promotions(session, args.environment.as_deref()).await?,
        Command::History(args) => return history::history(session, &args).await,
        Command::Plans => inspect::plans(session).await?,
        Command::Intervals(args) => inspect::intervals(session, args.environment).await?,
        Command::TableName(args) => inspect::table_name(session, args).await?,
        Command::Diff(args) => return plan::diff(session, &args.environment).await,
        Command::Destroy(args) => tend::destroy(session, args.no_prompts).await?,
        Command::CheckIntervals(args) => run::check_intervals(session, args).await?,
        Command::Explain(args) => inspect::explain(session, args).await?,
        Command::Status => inspect::status(session).await?,
        Command::Watch(args) => return apply::watch(session, &args.plan).await,
        Command::Cancel(args) => apply::cancel(session, &args.plan).await?,
        Command::Fetch(args) => fetch::fetch(session, &args.sql).await?,
        Command::Info(args) => inspect::info(session, &args).await?,
        Command::State(StateArgs { command: Some(command), .. }) => state::state(session, command).await?,
        Command::State(args) => fetch::state(session, &args).await?,
        Command::Test(args) => return test::test(session, &args).await,
        Command::Token(args) => token::token(session, args)?,
        Command::Driver(args) => driver::driver(session, args)?,
        Command::Doctor => return inspect::doctor(session).await,
    }
    Ok(ExitCode::SUCCESS)
}

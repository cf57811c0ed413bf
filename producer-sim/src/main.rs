//! Parses, does one task, and turns its outcome into an exit code.

use std::{error::Error, io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use producer_sim::{
    broker,
    cli::{Cli, Task},
    failure::Failure,
    generate, run,
    stop::Stop,
};
use tracing::error;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let task = Task::from(Cli::parse());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match perform(&task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{}", with_causes(&failure));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn perform(task: &Task) -> Result<(), Failure> {
    match task {
        // No signal handling: an interrupted file keeps its `.partial` name.
        Task::Generate(job) => generate::generate(job),
        Task::Run(job) => run::run(job, &on_signals()?),
        Task::Broker { listen, topics } => broker::serve(*listen, topics, &on_signals()?),
    }
}

fn on_signals() -> Result<Stop, Failure> {
    Stop::on_signals().map_err(|source| Failure::Setup {
        what: "signal handling",
        source,
    })
}

/// Returns the failure with its causes on one line.
fn with_causes(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        // Some errors repeat their cause in their own words.
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text
}

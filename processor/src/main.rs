//! The `logguard` program: parses the command line, runs one command, turns the outcome into an
//! exit code. Data goes to standard output, everything else to standard error.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;
use logguard::{
    cli::{Cli, Command, ConfigCommand, ModelCommand},
    config::{Config, LogFormat},
    deploy, exit, maintain,
    model::Bundle,
    replay, run, train,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A reader that closed the pipe (`| head`) has what it wanted.
            if exit::is_broken_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            eprintln!("error: {}", exit::describe(&error));
            ExitCode::from(exit::code_of(&error))
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    let config = Config::load(cli.config.as_deref(), cli.overrides())?;
    start_log(&config)?;
    let stdout = &mut io::stdout().lock();
    match cli.command {
        Command::Run(_) => run::run(&config),
        Command::Train(args) => train::train(&config, &args, stdout),
        Command::Replay(args) => replay::replay(&config, &args, stdout),
        Command::Migrate(args) => run::migrate(&config, &args, stdout),
        Command::Deploy(args) => deploy::deploy(&config, &args, stdout),
        Command::Maintain(args) => maintain::maintain(&config, &args, stdout),
        Command::Model {
            command: ModelCommand::Show { json, .. },
        } => show_model(&config, json, stdout),
        Command::Config {
            command: ConfigCommand::Print(_),
        } => Ok(write!(stdout, "{}", config.to_toml()?)?),
        Command::Config {
            command: ConfigCommand::Check(_),
        } => Ok(writeln!(stdout, "the configuration is valid")?),
    }
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log.filter)
        .map_err(|error| logguard::config::ConfigError::from(format!("log.filter: {error}")))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match config.log.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

fn show_model(config: &Config, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let bundle = Bundle::load(&config.model.dir)?;
    let summary = bundle.summary();
    if json {
        serde_json::to_writer(&mut *out, &summary)?;
        writeln!(out)?;
    } else {
        train::write_summary(&summary, out)?;
    }
    Ok(())
}

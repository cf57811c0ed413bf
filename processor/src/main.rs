//! The `logguard` program: parses the command line, runs one command, turns the outcome into an
//! exit code. Data goes to standard output, everything else to standard error.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use logguard::{
    alarms,
    cli::{Cli, Command, ConfigCommand, ModelCommand},
    clock::Clock,
    config::Config,
    deploy, evidence, exit, exposure, feedback, log, maintain,
    model::Bundle,
    redact::{RedactionConfig, Redactor},
    replay, run, templates, train,
};

/// librdkafka allocates every record on one thread and frees it on another, where this one is much
/// faster than the system's; `override` makes C code use it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // In a test's build alone: where the process is to stop or die, from `FAILPOINTS`.
    let _failpoints = fail::has_failpoints().then(fail::FailScenario::setup);
    let cli = Cli::parse();
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A reader that closed the pipe (`| head`) has what it wanted.
            if exit::is_broken_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            // Where nobody can be told, the exit code still tells.
            writeln!(io::stderr(), "error: {}", redacted(&exit::describe(&error))).ok();
            ExitCode::from(exit::code_of(&error))
        }
    }
}

/// Masks secrets with the built-in rules: the error may be that the configuration has no others.
fn redacted(text: &str) -> String {
    match Redactor::new(&RedactionConfig::default()) {
        Ok(redactor) => redactor.text(text).into_owned(),
        Err(error) => error.to_string(),
    }
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    let config = Config::load(cli.config.as_deref(), cli.overrides())?;
    log::start(&config)?;
    let arguments = std::env::args_os().map(|it| it.to_string_lossy().into_owned());
    let file = Config::file(cli.config.as_deref());
    for exposed in exposure::exposures(&config, file, arguments) {
        tracing::warn!("{exposed}");
    }
    let stdout = &mut io::stdout().lock();
    match cli.command {
        Command::Run(_) => run::run(&config),
        Command::Train(args) => train::train(&config, &args, stdout),
        Command::Replay(args) => replay::replay(&config, &args, stdout),
        Command::Migrate(args) => run::migrate(&config, &args, stdout),
        Command::Maintain(args) => maintain::maintain(&config, &args, stdout),
        Command::Deploy(args) => deploy::deploy(&config, &args, stdout),
        Command::Alarms(args) => alarms::alarms(&config, &args, stdout),
        Command::Evidence(args) => evidence::evidence(&config, &args, stdout),
        Command::Acknowledge(args) => feedback::acknowledge(&config, &args, stdout),
        Command::Feedback(args) => feedback::feedback(&config, &args, &Clock::system(), stdout),
        Command::Mutes(args) => feedback::mutes(&config, &args, &Clock::system(), stdout),
        Command::Model {
            command: ModelCommand::Show { json, .. },
        } => show_model(&config, json, stdout),
        Command::Model {
            command: ModelCommand::Templates(args),
        } => templates::templates(&config, &args, &Clock::system(), stdout),
        Command::Config {
            command: ConfigCommand::Print(_),
        } => Ok(write!(stdout, "{}", config.to_toml()?)?),
        Command::Config {
            command: ConfigCommand::Check(_),
        } => Ok(writeln!(stdout, "the configuration is valid")?),
    }
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

//! The program's own log: filtered, in text or JSON, on standard error, secrets masked.
//!
//! Whatever gets into a message (an error that quotes a line, a library that quotes a URL) passes
//! the same redaction as what goes to the sinks.

use std::{
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::{
    config::{Config, ConfigError, LogFormat},
    redact::Redactor,
};

/// Starts the log; to be called once.
///
/// # Errors
/// The filter cannot be parsed, or a redaction rule cannot be used.
pub fn start(config: &Config) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&config.log.filter)
        .map_err(|error| ConfigError::from(format!("log.filter: {error}")))?;
    let redactor = Redactor::new(&config.redaction)
        .map_err(|error| ConfigError::from(format!("redaction: {error}")))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Redacting(Arc::new(redactor)))
        // A log that cannot be written is no reason to die: telling of it would fail as well, and panic.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    match config.log.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Standard error behind the redaction rules.
struct Redacting(Arc<Redactor>);

/// Writes one event, which comes in one piece.
struct Event<'a>(&'a Redactor);

impl<'a> MakeWriter<'a> for Redacting {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event(&self.0)
    }
}

impl Write for Event<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&self.0.bytes(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

//! Exit codes: what kind of failure an error is.
//!
//! 0 ok, 1 failed under way, 2 usage (clap's), 3 configuration or input, 4 a dependency cannot
//! be reached.

use std::io;

use crate::{
    config::ConfigError,
    model::{BundleError, TrainError},
    sink::store::StoreError,
    source::{SourceError, file::FileError},
    train::TopicError,
};

/// A failure that is none of the kinds below.
pub const FAILURE: u8 = 1;
/// Configuration or input that has to be mended first.
pub const CONFIG: u8 = 3;
/// Something that has to be started, or reached, first.
pub const UNREACHABLE: u8 = 4;

/// Returns the exit code for `error`.
#[must_use]
pub fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<SourceError>() {
            return if error.is_unreachable() {
                UNREACHABLE
            } else {
                CONFIG
            };
        }
        if let Some(error) = cause.downcast_ref::<StoreError>() {
            return if error.is_unreachable() {
                UNREACHABLE
            } else {
                CONFIG
            };
        }
        if cause.is::<ConfigError>()
            || cause.is::<BundleError>()
            || cause.is::<FileError>()
            || cause.is::<TrainError>()
            || cause.is::<TopicError>()
        {
            return CONFIG;
        }
    }
    FAILURE
}

/// Returns whether `error` is that whoever read our output has gone.
#[must_use]
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Returns the error and its causes in one line, each cause told once.
#[must_use]
pub fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}

//! The command line: flags as typed (`args.rs`), turned into jobs (`convert.rs`).
//!
//! Nothing is started here.

mod args;
mod convert;

pub use self::{args::Cli, convert::Task};

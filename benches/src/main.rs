//! `logguard-bench`: how fast the processor is beside what the broker can deliver, in one run on one
//! machine.
//!
//! ```text
//! events ─► file ─► topic ─┬─► consume --parse nothing   (a) bytes counted
//!             │            ├─► consume --parse value     (b) and serde_json
//!             │            ├─► logguard run              (c) the whole job
//!             │            └─► Kafka Streams             a peer that only counts
//!             └─► logguard replay                        (d) from the file
//! ```
//!
//! Every measured program is a process of its own: its CPU time and its peak memory are read from
//! `/proc`. Nothing here is part of the product.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench reads the clock, waits by it, and prints"
)]

mod consume;
mod drain;
mod events;
mod fill;
mod growth;
mod latency;
mod memory;
mod peer;
mod processor;
mod realtime;
mod report;
mod topic;
mod usage;
mod watch;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures LogGuard. Build with `cargo build --release` first; figures of debug builds mean nothing.
#[derive(Debug, Parser)]
#[command(name = "logguard-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Drain filled topics with a bare consumer, a parsing one, LogGuard, and a peer; replay a file.
    Drain(drain::DrainArgs),
    /// Write a topic in real time and measure how soon rows and alarms are seen, whether LogGuard keeps
    /// up, and whether its memory stays flat.
    Latency(latency::LatencyArgs),
    /// Measure against the number of streams, templates, core points, services and partitions, and
    /// against the size of messages.
    Growth(growth::GrowthArgs),
    /// Drain one topic and print what it took (used by `drain`).
    #[command(hide = true)]
    Consume(consume::ConsumeArgs),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Drain(args) => drain::drain(&args),
        Command::Latency(args) => latency::latency(&args),
        Command::Growth(args) => growth::growth(&args),
        Command::Consume(args) => consume::consume(&args),
    }
}

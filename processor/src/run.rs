//! `logguard run`: starts every part of the live processor, waits for a signal or a failure, and
//! stops the parts in order. `logguard migrate` is here too: it prepares what `run` needs.
//!
//! ```text
//! model, store, sinks, HTTP ─► consumer thread (worker) ─► signal ─► drain ─► sinks closed ─► exit
//! ```
//!
//! A part that ends by itself ends the process: a processor without its consumer must not linger.

use std::{
    io::Write,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, anyhow};
use crossbeam_channel::bounded;
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
};

use crate::{
    cli::MigrateArgs,
    clock::Clock,
    config::Config,
    health::{self, Health},
    metrics::Metrics,
    model::{Bundle, Detector},
    pipeline::Shared,
    recovery::RecoveryDesk,
    shutdown::Shutdown,
    worker::{Worker, WorkerParts, WorkerSettings},
};

/// How long the sinks may take to write what they hold once the consumer has stopped.
const SINKS_CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// Tokio threads: the sinks wait far more than they compute.
const RUNTIME_THREADS: usize = 2;


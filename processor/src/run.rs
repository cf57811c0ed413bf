//! `logguard run`: starts every part of the live processor, waits for a signal or a failure, and
//! stops the parts in order.
//!
//! ```text
//! model, store, sinks, HTTP ─► consumer thread (worker) ─► signal ─► drain ─► sinks closed ─► exit
//! ```
//!
//! A part that ends by itself ends the process: a processor without its consumer must not linger.

use std::{
    sync::{Arc, atomic::AtomicBool},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use crossbeam_channel::bounded;
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    clock::Clock,
    config::Config,
    health::{self, Health},
    metrics::Metrics,
    model::{Bundle, Detector},
    pipeline::Shared,
    recovery::RecoveryDesk,
    shutdown::Shutdown,
    sink::{ACKS_MAX, Sinks, Store},
    source::{self, SourceError, SourceReport},
    worker::{Worker, WorkerParts, WorkerSettings},
};

/// How long the sinks may take to write what they hold once the consumer has stopped.
const SINKS_CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Runs until a signal asks to stop.
///
/// # Errors
/// Returns an error if a dependency cannot be reached at the start, or if a part fails for good.
pub async fn run(config: Config) -> anyhow::Result<()> {
    todo!()
}

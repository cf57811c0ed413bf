//! How sinks hand acks to the consumer thread without ever being held up for good by it.
//!
//! The channel is bounded. The consumer drains it between polls, while it waits on a full queue
//! and inside the revoke callback, so a full channel is a matter of milliseconds; a receiver that
//! is gone means that the process is stopping, and the ack is dropped (the records come again).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{SendTimeoutError, Sender, TrySendError};

use super::{Ack, WindowJob};
use crate::window::FinalBy;

/// How long a full ack channel is waited on before looking at the stop flag again.
const FULL_WAIT: Duration = Duration::from_millis(20);

/// Where a sink's acks go.
#[derive(Clone, Debug)]
pub(super) struct AckSender {
    acks: Sender<Ack>,
    stop: StopFlag,
}

impl AckSender {
    pub(super) fn new(acks: Sender<Ack>, stop: StopFlag) -> Self {
        Self { acks, stop }
    }

    /// Sends from a thread that may block.
    pub(super) fn send(&self, ack: Ack) {
        let mut ack = ack;
        while let Err(SendTimeoutError::Timeout(back)) = self.acks.send_timeout(ack, FULL_WAIT) {
            if self.stop.is_set() {
                return;
            }
            ack = back;
        }
    }

    /// Sends from a task, never blocking its thread.
    pub(super) async fn send_async(&self, ack: Ack) {
        let mut ack = ack;
        while let Err(TrySendError::Full(back)) = self.acks.try_send(ack) {
            if self.stop.is_set() {
                return;
            }
            ack = back;
            tokio::time::sleep(FULL_WAIT).await;
        }
    }
}

/// Tells sinks to give up what they have not written: set once, when a deadline has passed.
#[derive(Clone, Debug, Default)]
pub(super) struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Returns the ack of a window: that of the window itself, or for a gap row that of the window
/// after the gap.
pub(super) fn window_ack(job: &WindowJob) -> Ack {
    let window = &job.scored.window;
    Ack::Window {
        partition: window.stream.partition.clone(),
        assignment: job.assignment,
        provisional: window.final_by == FinalBy::Open,
        window_start: window.slot,
    }
}

//! Where results go: the store, the results topic, the alarm file, the dead-letter topic.
//!
//! ```text
//! ScoredWindow ──┬─► store (PostgreSQL upsert)     ─┐
//!                ├─► results topic                 ─┼─► Ack ──► ledger
//!                └─► alarm file (anomalies only)   ─┤
//! Rejected ────────► dead-letter topic             ─┤
//! Deploy ──────────► store (table deploys)         ─┘
//! ```
//!
//! A sink acknowledges only what is durable. Sinks are idempotent: the same window may come again.

mod ack;
pub mod alarm_file;
mod alarm_id;
pub mod dead_letter;
mod deploys;
mod front;
mod health_notes;
pub mod maintain;
mod metrics;
pub mod migrate;
mod producer;
pub mod results;
pub mod retry;
pub mod store;
mod summary;
mod told;

use std::sync::Arc;

pub use alarm_id::alarm_id;
pub use front::{
    ACKS_QUEUE_MAX, CloseReport, RunningSinks, SinkError, Sinks, SinksConfig, SinksSetup,
};
pub use metrics::{SinkLabel, SinkMeter, SinkMetrics};
pub(crate) use told::Told;

use crate::{
    decode::Rejected,
    event::{Deploy, EventTime, OffsetSpan, TopicPartition},
    model::ScoredWindow,
};

/// Identifies one assignment of one partition to this process; acks of an earlier one are ignored.
pub type AssignmentId = u64;

/// A scored window on its way to the sinks.
#[derive(Clone, Debug)]
pub struct WindowJob {
    /// The window.
    pub scored: Arc<ScoredWindow>,
    /// The assignment under which it was scored.
    pub assignment: AssignmentId,
    /// The fence issued by the store for that assignment; 0 without one: the store takes no row.
    pub fence: i64,
    /// Its alarm goes to the file, if it is an anomaly. Not so for what is open at shutdown: the
    /// next owner will know better.
    pub alarm: bool,
    /// Its alarm is older than the configured age: for the file and the table, marked.
    pub stale: bool,
}

/// A record that was not scored, on its way to the dead-letter topic.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Where it came from.
    pub partition: TopicPartition,
    /// Its offset.
    pub span: OffsetSpan,
    /// Why it was not scored.
    pub rejected: Rejected,
    /// The payload as it came, cut to [`DEAD_LETTER_BYTES_KEPT_MAX`]. It goes out redacted and cut
    /// to [`DEAD_LETTER_BYTES_MAX`].
    pub payload: Vec<u8>,
    /// Payload length before it was cut.
    pub payload_bytes: usize,
    /// The assignment under which it was read.
    pub assignment: AssignmentId,
}

/// A deploy that a record told of, on its way to the store.
#[derive(Clone, Debug)]
pub struct DeployJob {
    /// Where the record came from.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// What was rolled out.
    pub deploy: Deploy,
    /// The assignment under which it was read.
    pub assignment: AssignmentId,
}

/// Most bytes of a payload copied into a dead letter: well under the 1 MB at which brokers refuse.
pub const DEAD_LETTER_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a payload kept until then: redaction has to see a secret whole.
pub const DEAD_LETTER_BYTES_KEPT_MAX: usize = DEAD_LETTER_BYTES_MAX + 4 * 1024;

/// What a sink reports back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    /// One sink has made a window durable.
    Window {
        /// The partition.
        partition: TopicPartition,
        /// The assignment under which it was scored.
        assignment: AssignmentId,
        /// It was the row of an open window, which is replaced by the final one.
        provisional: bool,
        /// Start of the window it counts for (a gap row counts for the window after the gap).
        window_start: EventTime,
    },
    /// A dead letter or a deploy is durable, or was refused for what it is and counted.
    Letter {
        /// The partition.
        partition: TopicPartition,
        /// The assignment under which it was read.
        assignment: AssignmentId,
        /// Its offset.
        offset: i64,
    },
    /// The store refused a row because another process claimed the partition later.
    Fenced {
        /// The partition.
        partition: TopicPartition,
        /// The assignment that is fenced off.
        assignment: AssignmentId,
    },
}

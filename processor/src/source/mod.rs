//! Where records come from: Kafka for `run`, files and topics for `train` and `replay`.
//!
//! ```text
//! Kafka ──consumer thread──► RecordHandler (one call per record, per rebalance, per idle edge)
//!           ▲                      │
//!           └──── CommitPoint ◄────┘
//! ```
//!
//! Nothing here looks into a payload, and nothing but the consumer commits offsets.

mod broker;
mod consumer;
mod context;
mod error;
pub mod file;
mod kafka_config;
mod kafka_properties;
mod ledger;
mod member;
mod metadata;
mod metrics;
mod preflight;
mod start;
mod topic;

use std::time::Instant;

pub use consumer::{SourceReport, spawn};
pub use error::SourceError;
pub use kafka_config::{AssignmentStrategy, GroupProtocol, KafkaConfig, KafkaConfigError};
pub use kafka_properties::KafkaProperties;
pub(crate) use kafka_properties::is_secret;
pub use ledger::PartitionLedger;
pub use metrics::{Heartbeat, OutcomeLabel, PartitionLabel, SourceMetrics};
pub use preflight::check_topics;
pub use topic::{
    PartitionSpan, TimeRange, Timeline, TimelineEvent, TopicEvent, TopicReader, TopicSummary,
};

use crate::event::{EventTime, NextOffset, Partial, TopicPartition, WindowGrid};

/// A record as it came, borrowed from the reader's buffer.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    /// Its offset; for files the line or row number, from 0.
    pub offset: i64,
    /// Kafka's record time; `None` for files.
    pub record_time: Option<EventTime>,
    /// The payload; `None` for a tombstone.
    pub payload: Option<&'a [u8]>,
}

/// A move of the watermark that the clock made while a partition was idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleMark {
    /// Where reading stood: it holds for the records from here on.
    pub from: NextOffset,
    /// The largest event time, as if a record had brought it.
    pub time: EventTime,
    /// Start of the last window that it made final.
    pub through: EventTime,
}

/// What rides in the metadata string of a committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitMetadata {
    /// The windows that the rest is about.
    pub grid: WindowGrid,
    /// Largest event time of the records before the committed offset.
    pub max_event_time: Option<EventTime>,
    /// Start of the last window such that it and all before it are done.
    pub done_through: Option<EventTime>,
    /// Windows not yet done that may lack lines.
    pub partial: Partial,
    /// A move of the watermark beyond the committed offset, or whose windows are not all done.
    pub idle: Option<IdleMark>,
}

impl CommitMetadata {
    /// Returns what is known of a partition of which nothing is done.
    #[must_use]
    pub const fn nothing_done(grid: WindowGrid) -> Self {
        Self {
            grid,
            max_event_time: None,
            done_through: None,
            partial: Partial::No,
            idle: None,
        }
    }
}

/// What may be committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPoint {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset to read from after a restart.
    pub next: NextOffset,
    /// What a restart needs to know besides.
    pub metadata: CommitMetadata,
}

/// Where reading of an assigned partition begins, and what is known of what lies before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartPoint {
    /// The partition.
    pub partition: TopicPartition,
    /// First offset that will be read.
    pub next: NextOffset,
    /// The metadata of our last commit; `None` if there is none, or it is not ours.
    pub metadata: Option<CommitMetadata>,
    /// Records before `next` existed that we did not score (retention took them, or an operator
    /// moved the offsets): the first window may lack lines.
    pub partial: bool,
}

/// What the consumer thread drives. Every call comes from that one thread, in partition order;
/// none may block for longer than its deadline.
pub trait RecordHandler {
    /// A partition is ours, still paused. Recovery may start now.
    ///
    /// For a partition that is ours already this means: forget what is open and begin again here,
    /// because a rewind was asked for or because retention overtook reading (then
    /// [`revoked`](Self::revoked) came just before).
    fn assigned(&mut self, start: StartPoint);

    /// Returns the partitions that became ready for records since the last call.
    fn take_ready(&mut self) -> Vec<TopicPartition>;

    /// Takes one record of a ready partition.
    fn record(&mut self, partition: &TopicPartition, record: RawRecord<'_>);

    /// The end of a partition was reached: every record there is has been handed over.
    fn caught_up(&mut self, partition: &TopicPartition);

    /// Reading is known to be disturbed (or known to work again): silence is no evidence while it
    /// is. A transport error, a pause for lack of room, and waiting for room for long disturb it;
    /// a record or the end of the partition from each partition concerned clear it.
    fn transport_error(&mut self, broken: bool);

    /// Does what waits to be done (acks, hand-over to sinks, timers) until `deadline` or until
    /// there is room for more records; returns whether there is.
    fn drain(&mut self, deadline: Instant) -> bool;

    /// Returns the commit points that moved since the last call, by their metadata alone too.
    fn take_commit_points(&mut self) -> Vec<CommitPoint>;

    /// A commit point is known to be committed.
    fn committed(&mut self, _point: &CommitPoint) {}

    /// Returns the partitions to be taken back to their committed offset and assigned again, to
    /// be rebuilt from there.
    fn take_rewinds(&mut self) -> Vec<TopicPartition> {
        Vec::new()
    }

    /// The partitions are about to go. Finishes what is final, waiting for acks until `deadline`;
    /// the commit points are taken right after. With `lost` they are gone already: forget them.
    fn revoked(&mut self, partitions: &[TopicPartition], lost: bool, deadline: Instant);

    /// No more records will come. Finishes what is final and writes what is open as provisional
    /// rows, waiting for acks until `deadline`.
    fn finish(&mut self, deadline: Instant);
}

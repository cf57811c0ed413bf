//! The member of the group: which partitions are ours, how far each is, and what to do when that
//! changes. All decisions of the consumer thread, without librdkafka.
//!
//! ```text
//! assigned ─► Unresolved ─► Recovering ─► Flowing ─► revoked
//!                 ▲  (where?)   (handler)    │
//!                 └────── rewind, deleted ───┘
//! ```
//!
//! Invariants: a record is handed over only while its partition is `Flowing`, in offset order,
//! never below the start point, and none is skipped; a commit is what the handler said last.

mod commits;
mod room;
mod starts;

use std::{
    collections::BTreeMap,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

pub(super) use commits::CommitOutcome;
use rdkafka::error::KafkaError;

use super::{
    CommitPoint, KafkaConfig, RawRecord, RecordHandler, SourceMetrics, StartPoint,
    broker::{Broker, Position},
};
use crate::event::{NextOffset, TopicPartition};

/// Most time one question to the broker may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// After this long without a turn (the process was stopped, or starved) silence is no evidence:
/// nothing was fetched meanwhile, and the partitions may be someone else's by now.
const STALL_MAX: Duration = Duration::from_secs(3);

/// How far a partition is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Where to start is not known yet; asked (again) at the given time. Paused.
    Unresolved(Instant),
    /// The start is known and not told the handler yet. Paused.
    Starting(StartPoint),
    /// The handler recovers what it needs. Paused.
    Recovering,
    /// Records are handed over.
    Flowing,
}

struct Assigned {
    partition: TopicPartition,
    phase: Phase,
    /// The next offset to hand over.
    position: i64,
    /// The last event was the partition's end.
    at_end: bool,
    /// Neither a record nor an end came since reading was disturbed.
    unverified: bool,
    /// A record came when none could be taken: fetching goes back before it goes on.
    overread: bool,
    /// What the handler said last, and what of it is known to be committed.
    latest: Option<CommitPoint>,
    confirmed: Option<CommitPoint>,
}

impl Assigned {
    fn pending(&self) -> Option<&CommitPoint> {
        self.latest
            .as_ref()
            .filter(|_| self.latest != self.confirmed)
    }
}

/// The state of our membership and the handler it drives.
pub(super) struct Member<H> {
    handler: H,
    topic: Arc<str>,
    partitions: BTreeMap<i32, Assigned>,
    metrics: SourceMetrics,
    drain_timeout: Duration,
    commit_interval: Duration,
    committed_at: Instant,
    /// The asynchronous commit under way.
    in_flight: Option<(Instant, Vec<CommitPoint>)>,
    /// Partitions are paused for lack of room.
    throttled: bool,
    /// When the lag of a partition that is not fetched was last asked for, and of which.
    lag_asked: (Option<Instant>, usize),
    /// The handler was told that reading is disturbed.
    disturbed: bool,
    /// All partitions were lost, and the group has not dealt them out again since.
    cut_off: bool,
    /// No more records are handed over.
    closing: bool,
    /// Something that was done was not committed before its partition went.
    left_uncommitted: bool,
    /// The last partition was taken from us.
    all_revoked: bool,
    /// When to look for positions the broker does not have, and when that was done last.
    restart_due: Option<Instant>,
    restarted_at: Instant,
    /// The end of the last turn.
    turned_at: Instant,
    records: u64,
    bytes: u64,
}

impl<H: RecordHandler> Member<H> {
    pub(super) fn new(config: &KafkaConfig, metrics: SourceMetrics, handler: H) -> Self {
        Self {
            handler,
            topic: config.input_topic.as_str().into(),
            partitions: BTreeMap::new(),
            metrics,
            drain_timeout: Duration::from_millis(config.drain_timeout_ms),
            commit_interval: Duration::from_millis(config.commit_interval_ms),
            committed_at: Instant::now(),
            in_flight: None,
            throttled: false,
            lag_asked: (None, 0),
            disturbed: false,
            cut_off: false,
            closing: false,
            left_uncommitted: false,
            all_revoked: false,
            restart_due: None,
            restarted_at: Instant::now(),
            turned_at: Instant::now(),
            records: 0,
            bytes: 0,
        }
    }

    /// Hands a record over, if it is due.
    pub(super) fn record(&mut self, partition: i32, record: RawRecord<'_>) {
        let Some(assigned) = self.partitions.get_mut(&partition) else {
            return;
        };
        if self.throttled || self.closing || assigned.phase != Phase::Flowing {
            assigned.overread = true;
            return;
        }
        if record.offset < assigned.position {
            return;
        }
        assigned.position = NextOffset::after(record.offset).0;
        assigned.at_end = false;
        let verified = mem::take(&mut assigned.unverified);
        self.records += 1;
        self.bytes += record.payload.map_or(0, |payload| payload.len() as u64);
        self.handler.record(&assigned.partition, record);
        if verified {
            self.tell_disturbance();
        }
    }

    /// Notes that everything a partition holds has been handed over.
    pub(super) fn caught_up(&mut self, partition: i32) {
        let Some(assigned) = self.partitions.get_mut(&partition) else {
            return;
        };
        if self.throttled || self.closing || assigned.phase != Phase::Flowing {
            return;
        }
        assigned.at_end = true;
        let verified = mem::take(&mut assigned.unverified);
        self.handler.caught_up(&assigned.partition);
        if verified {
            self.tell_disturbance();
        }
    }

    /// Takes partitions on before they are assigned; returns where reading begins, where known.
    pub(super) fn assign(&mut self, broker: &impl Broker, partitions: &[i32]) -> Vec<Position> {
        self.cut_off = false;
        self.tell_disturbance();
        if partitions.is_empty() {
            return Vec::new();
        }
        self.metrics.count_rebalance("assigned");
        tracing::info!(partitions = ?partitions, "partitions assigned");
        let mut starts = self.resolve(broker, partitions);
        let mut positions = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let phase = match starts.remove(partition) {
                Some(start) => {
                    positions.push((*partition, start.next.0));
                    Phase::Starting(start)
                }
                None => Phase::Unresolved(Instant::now() + starts::RESOLVE_RETRY),
            };
            let assigned = Assigned {
                partition: self.named(*partition),
                position: 0,
                phase,
                at_end: false,
                unverified: false,
                overread: false,
                latest: None,
                confirmed: None,
            };
            self.partitions.insert(*partition, assigned);
        }
        self.count_partitions();
        positions
    }

    /// Pauses what was assigned and lets the handler recover it.
    pub(super) fn assigned(&mut self, broker: &impl Broker, partitions: &[i32]) {
        if partitions.is_empty() {
            return;
        }
        log_failure("pause", broker.pause(partitions));
        for partition in partitions {
            self.begin(*partition);
        }
    }

    /// Lets partitions go: finishes and commits what is done, unless they are lost already.
    pub(super) fn revoke(&mut self, broker: &impl Broker, partitions: &[i32], lost: bool) {
        let going = self.owned(partitions);
        if going.is_empty() {
            return;
        }
        self.metrics
            .count_rebalance(if lost { "lost" } else { "revoked" });
        tracing::info!(partitions = ?partitions, lost, "partitions revoked");
        if !self.closing {
            let patience = if lost {
                Duration::ZERO
            } else {
                self.drain_timeout
            };
            self.handler
                .revoked(&going, lost, Instant::now() + patience);
            self.absorb_commit_points();
        }
        let pending = |id| {
            self.partitions
                .get(id)
                .is_some_and(|it| it.pending().is_some())
        };
        let left_behind = if lost {
            partitions.iter().any(pending)
        } else {
            self.commit_now(broker, partitions) != CommitOutcome::Committed
        };
        self.left_uncommitted |= left_behind;
        for partition in partitions {
            self.partitions.remove(partition);
            self.metrics.forget(*partition);
        }
        self.all_revoked = self.partitions.is_empty();
        self.cut_off = lost && self.all_revoked;
        self.count_partitions();
        self.tell_disturbance();
    }

    /// Gives everything up, as after a rebalance that failed.
    pub(super) fn revoke_all(&mut self, broker: &impl Broker) {
        let all = self.ids(|_| true);
        self.revoke(broker, &all, true);
    }

    /// Tells whether something that was done was not committed before its partition went: it will
    /// be redelivered.
    pub(super) fn left_uncommitted(&self) -> bool {
        self.left_uncommitted
    }

    /// Tells, once, that the last partition was taken from us.
    pub(super) fn take_all_revoked(&mut self) -> bool {
        mem::take(&mut self.all_revoked)
    }

    /// Does what is due between polls: rewinds, starts, room, commits.
    pub(super) fn turn(&mut self, broker: &impl Broker, stop: &dyn Fn() -> bool) {
        if self.turned_at.elapsed() > STALL_MAX {
            self.disturb(broker);
        }
        self.metrics.heartbeat.beat();
        self.metrics.records.inc_by(mem::take(&mut self.records));
        self.metrics.bytes.inc_by(mem::take(&mut self.bytes));
        self.make_room(broker, stop);
        self.restart_out_of_range(broker);
        self.rewind(broker);
        self.resolve_due(broker);
        self.start_ready(broker);
        self.measure_lag(broker);
        self.commit_due(broker);
        self.turned_at = Instant::now();
    }

    /// Ends the handing over of records and lets the handler finish until `deadline`.
    pub(super) fn finish(&mut self, broker: &impl Broker, deadline: Instant) {
        log_failure("pause", broker.pause(&self.ids(|_| true)));
        self.closing = true;
        self.left_uncommitted = false;
        self.handler.finish(deadline);
        self.absorb_commit_points();
    }

    /// Tells whether no partition is ours.
    pub(super) fn is_idle(&self) -> bool {
        self.partitions.is_empty()
    }

    fn named(&self, partition: i32) -> TopicPartition {
        TopicPartition {
            topic: Arc::clone(&self.topic),
            partition,
        }
    }

    fn owned(&self, partitions: &[i32]) -> Vec<TopicPartition> {
        let owned = |id| self.partitions.get(id);
        let named = |assigned: &Assigned| assigned.partition.clone();
        partitions.iter().filter_map(owned).map(named).collect()
    }

    fn ids(&self, which: impl Fn(&Assigned) -> bool) -> Vec<i32> {
        let chosen = self.partitions.iter().filter(|(_, it)| which(it));
        chosen.map(|(partition, _)| *partition).collect()
    }

    fn count_partitions(&self) {
        let count = i64::try_from(self.partitions.len()).unwrap_or(i64::MAX);
        self.metrics.partitions_assigned.set(count);
    }
}

/// Logs a failed request to librdkafka; returns whether it went well. None of them loses records:
/// a partition that is going is the usual reason.
fn log_failure(request: &'static str, result: Result<(), KafkaError>) -> bool {
    if let Err(error) = &result {
        tracing::warn!(request, error = %error, "the Kafka client refused a request");
    }
    result.is_ok()
}

#[cfg(test)]
mod tests;

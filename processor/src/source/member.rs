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

use std::{
    collections::BTreeMap,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{consumer::CommitMode, error::KafkaError};

use super::{
    CommitPoint, KafkaConfig, RawRecord, RecordHandler, SourceMetrics, StartPoint,
    broker::{Broker, Position},
    error,
    start::{self, Finding},
};
use crate::event::{NextOffset, TopicPartition};

/// Most time the assign callback spends asking where to start; what is not known by then is asked
/// again from the loop, so that a slow broker does not cost us our membership.
const RESOLVE_BUDGET: Duration = Duration::from_secs(5);
/// Time between such attempts from the loop.
const RESOLVE_RETRY: Duration = Duration::from_secs(1);
/// Most time one question to the broker may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Slices in which a full pipeline is waited for.
const WAIT_SLICE: Duration = Duration::from_secs(1);
/// How long a full pipeline is waited for before partitions are paused: pausing throws prefetched
/// records away, so it must be worth it.
const WAIT_BEFORE_PAUSE: Duration = Duration::from_secs(5);
/// Slice of waiting while paused: the group is polled in between.
const PAUSED_SLICE: Duration = Duration::from_millis(100);
/// After this long an asynchronous commit is taken for lost and what it held is sent again;
/// librdkafka's own request timeout.
const COMMIT_REPLY_MAX: Duration = Duration::from_secs(60);

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
    /// The handler was told that reading is disturbed.
    disturbed: bool,
    /// No more records are handed over.
    closing: bool,
    /// The last partition was taken from us.
    all_revoked: bool,
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
            disturbed: false,
            closing: false,
            all_revoked: false,
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
        if partitions.is_empty() {
            return Vec::new();
        }
        self.metrics.count_rebalance("assigned");
        let mut starts = self.resolve(broker, partitions);
        let mut positions = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let phase = match starts.remove(partition) {
                Some(start) => {
                    positions.push((*partition, start.next.0));
                    Phase::Starting(start)
                }
                None => Phase::Unresolved(Instant::now() + RESOLVE_RETRY),
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
        if !lost {
            self.commit_now(broker, partitions);
        }
        for partition in partitions {
            self.partitions.remove(partition);
            self.metrics.forget(*partition);
        }
        self.all_revoked = self.partitions.is_empty();
        self.count_partitions();
        self.tell_disturbance();
    }

    /// Gives everything up, as after a rebalance that failed.
    pub(super) fn revoke_all(&mut self, broker: &impl Broker) {
        let all = self.ids(|_| true);
        self.revoke(broker, &all, true);
    }

    /// Tells, once, that the last partition was taken from us.
    pub(super) fn take_all_revoked(&mut self) -> bool {
        mem::take(&mut self.all_revoked)
    }

    /// Does what is due between polls: rewinds, starts, room, commits.
    pub(super) fn turn(&mut self, broker: &impl Broker, stop: &dyn Fn() -> bool) {
        self.metrics.heartbeat.beat();
        self.metrics.records.inc_by(mem::take(&mut self.records));
        self.metrics.bytes.inc_by(mem::take(&mut self.bytes));
        self.make_room(broker, stop);
        self.rewind(broker);
        self.resolve_due(broker);
        self.start_ready(broker);
        self.commit_due(broker);
    }

    /// Notes that reading is disturbed: until each partition gives a sign, silence is no evidence.
    pub(super) fn disturb(&mut self, broker: &impl Broker) {
        for (partition, assigned) in &mut self.partitions {
            if assigned.phase != Phase::Flowing || assigned.unverified {
                continue;
            }
            assigned.unverified = true;
            // The end of a partition is reported once; going back to it makes the broker say it
            // again (or hand over what came meanwhile).
            if mem::take(&mut assigned.at_end) && !self.throttled {
                log_failure("seek", broker.seek((*partition, assigned.position), false));
            }
        }
        self.tell_disturbance();
    }

    /// Deals with positions the broker does not have: finishes what was read, starts anew.
    pub(super) fn out_of_range(&mut self, broker: &impl Broker) {
        let (mut gone, mut others) = (Vec::new(), Vec::new());
        for (partition, assigned) in &self.partitions {
            let Ok(marks) = broker.watermarks(*partition, QUERY_TIMEOUT) else {
                others.push((*partition, assigned.position));
                continue;
            };
            if !matches!(assigned.phase, Phase::Recovering | Phase::Flowing) {
                // Its start is still to be found: anything that exists will do.
                others.push((*partition, marks.low));
            } else if (marks.low..=marks.high).contains(&assigned.position) {
                others.push((*partition, assigned.position));
            } else {
                gone.push((*partition, marks.low));
                // Beyond the end it is another topic: what we know of it is void.
                let lost = assigned.position > marks.high;
                let going = [assigned.partition.clone()];
                let patience = if lost {
                    Duration::ZERO
                } else {
                    self.drain_timeout
                };
                self.handler
                    .revoked(&going, lost, Instant::now() + patience);
            }
        }
        self.absorb_commit_points();
        let ids: Vec<i32> = gone.iter().map(|(partition, _)| *partition).collect();
        self.commit_now(broker, &ids);
        for partition in &ids {
            if let Some(assigned) = self.partitions.get_mut(partition) {
                assigned.phase = Phase::Unresolved(Instant::now());
            }
        }
        let all: Vec<Position> = gone.iter().chain(&others).copied().collect();
        let restarted = if gone.is_empty() { &all } else { &gone };
        log_failure("restart", broker.restart(restarted, &all));
        let idle: Vec<i32> = self.ids(|assigned| assigned.phase != Phase::Flowing);
        let paused = if self.throttled {
            self.ids(|_| true)
        } else {
            idle
        };
        log_failure("pause", broker.pause(&paused));
        self.disturb(broker);
    }

    /// Takes the answer to an asynchronous commit.
    pub(super) fn commit_answered(&mut self, result: Result<(), KafkaError>) {
        let Some((_, points)) = self.in_flight.take() else {
            return;
        };
        match result {
            Ok(()) => self.confirm(points),
            Err(error) => self.report_commit(&error),
        }
    }

    /// Ends the handing over of records and lets the handler finish until `deadline`.
    pub(super) fn finish(&mut self, broker: &impl Broker, deadline: Instant) {
        log_failure("pause", broker.pause(&self.ids(|_| true)));
        self.closing = true;
        self.handler.finish(deadline);
        self.absorb_commit_points();
    }

    /// Commits, and waits for it, what is not known to be committed of all partitions; returns
    /// whether nothing is left.
    pub(super) fn commit_all(&mut self, broker: &impl Broker) -> bool {
        let all = self.ids(|_| true);
        self.commit_now(broker, &all)
    }

    /// Tells whether no partition is ours.
    pub(super) fn is_idle(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Tells whether records cannot be taken at present.
    pub(super) fn is_throttled(&self) -> bool {
        self.throttled
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

    /// Asks where to start; leaves out what the broker did not say in time.
    fn resolve(&self, broker: &impl Broker, partitions: &[i32]) -> BTreeMap<i32, StartPoint> {
        let deadline = Instant::now() + RESOLVE_BUDGET;
        let mut starts = BTreeMap::new();
        let committed = match broker.committed(partitions, QUERY_TIMEOUT) {
            Ok(committed) => committed,
            Err(error) => {
                tracing::warn!(error = %error, "failed to read committed offsets, trying again");
                return starts;
            }
        };
        for (partition, committed) in committed {
            let left = deadline.saturating_duration_since(Instant::now());
            let known = committed.and_then(|committed| {
                let marks = broker.watermarks(partition, left.min(QUERY_TIMEOUT))?;
                Ok(start::decide(self.named(partition), committed, marks))
            });
            match known {
                Ok((start, finding)) => {
                    self.report_start(&start, finding);
                    starts.insert(partition, start);
                }
                Err(error) => tracing::warn!(
                    partition, error = %error,
                    "failed to find where to start reading, trying again"
                ),
            }
        }
        starts
    }

    fn report_start(&self, start: &StartPoint, finding: Finding) {
        start::log(start, finding);
        self.metrics.deleted_unread.inc_by(finding.deleted());
    }

    /// Tells the handler of a partition whose start is known.
    fn begin(&mut self, partition: i32) {
        let Some(assigned) = self.partitions.get_mut(&partition) else {
            return;
        };
        if let Phase::Starting(start) = mem::replace(&mut assigned.phase, Phase::Recovering) {
            assigned.position = start.next.0;
            (assigned.latest, assigned.confirmed) = (None, None);
            self.handler.assigned(start);
        } else {
            assigned.phase = Phase::Unresolved(Instant::now());
        }
    }

    /// Asks again where to start the partitions that are due, and goes there.
    fn resolve_due(&mut self, broker: &impl Broker) {
        let now = Instant::now();
        let due = self.ids(|it| matches!(it.phase, Phase::Unresolved(at) if at <= now));
        if due.is_empty() {
            return;
        }
        let mut starts = self.resolve(broker, &due);
        for partition in due {
            let sought = starts.remove(&partition).filter(|start| {
                let sought = broker.seek((partition, start.next.0), true);
                log_failure("seek", sought)
            });
            let Some(assigned) = self.partitions.get_mut(&partition) else {
                continue;
            };
            if let Some(start) = sought {
                assigned.phase = Phase::Starting(start);
                assigned.overread = false;
                self.begin(partition);
            } else {
                assigned.phase = Phase::Unresolved(Instant::now() + RESOLVE_RETRY);
            }
        }
    }

    /// Takes partitions back to their committed offset where the handler asks for it.
    fn rewind(&mut self, broker: &impl Broker) {
        let rewinds = self.handler.take_rewinds();
        if rewinds.is_empty() {
            return;
        }
        // What is done is committed first, or a commit under way could overtake the question
        // where to go back to, and a later one take it back.
        let ids: Vec<i32> = rewinds.iter().map(|it| it.partition).collect();
        self.absorb_commit_points();
        self.commit_now(broker, &ids);
        log_failure("pause", broker.pause(&ids));
        for partition in rewinds {
            if let Some(assigned) = self.partitions.get_mut(&partition.partition) {
                tracing::info!(%partition, "going back to the committed offset");
                assigned.phase = Phase::Unresolved(Instant::now());
                assigned.at_end = false;
                assigned.unverified = false;
            }
        }
        self.tell_disturbance();
    }

    /// Lets records of recovered partitions flow.
    fn start_ready(&mut self, broker: &impl Broker) {
        let mut ready = Vec::new();
        for partition in self.handler.take_ready() {
            let Some(assigned) = self.partitions.get_mut(&partition.partition) else {
                continue;
            };
            if assigned.phase == Phase::Recovering {
                assigned.phase = Phase::Flowing;
                ready.push(partition.partition);
            }
        }
        if !self.throttled {
            self.resume(broker, &ready);
        }
    }

    fn resume(&mut self, broker: &impl Broker, partitions: &[i32]) {
        if partitions.is_empty() {
            return;
        }
        for partition in partitions {
            if let Some(assigned) = self.partitions.get_mut(partition)
                && mem::take(&mut assigned.overread)
            {
                log_failure("seek", broker.seek((*partition, assigned.position), true));
            }
        }
        log_failure("resume", broker.resume(partitions));
    }

    /// Lets the handler work; waits for room, and pauses when that takes long.
    fn make_room(&mut self, broker: &impl Broker, stop: &dyn Fn() -> bool) {
        let slice = if self.throttled {
            PAUSED_SLICE
        } else {
            Duration::ZERO
        };
        if self.handler.drain(Instant::now() + slice) {
            self.unthrottle(broker);
            return;
        }
        if self.throttled {
            return;
        }
        let patience = Instant::now() + WAIT_BEFORE_PAUSE;
        while Instant::now() < patience && !stop() {
            if self
                .handler
                .drain(patience.min(Instant::now() + WAIT_SLICE))
            {
                return;
            }
            // Records may have come that nobody looked at.
            self.disturb(broker);
            self.commit_due(broker);
            self.metrics.heartbeat.beat();
        }
        self.throttle(broker);
    }

    fn throttle(&mut self, broker: &impl Broker) {
        tracing::warn!(
            seconds = WAIT_BEFORE_PAUSE.as_secs(),
            "the pipeline has no room for so long, pausing all partitions"
        );
        self.throttled = true;
        self.metrics.pauses.inc();
        self.metrics.paused.set(1);
        let flowing = self.ids(|assigned| assigned.phase == Phase::Flowing);
        log_failure("pause", broker.pause(&flowing));
        self.disturb(broker);
    }

    fn unthrottle(&mut self, broker: &impl Broker) {
        if !self.throttled {
            return;
        }
        tracing::info!("the pipeline has room again, going on");
        self.throttled = false;
        self.metrics.paused.set(0);
        let flowing = self.ids(|assigned| assigned.phase == Phase::Flowing);
        self.resume(broker, &flowing);
    }

    fn tell_disturbance(&mut self) {
        let disturbed = self
            .partitions
            .values()
            .any(|it| it.unverified && it.phase == Phase::Flowing);
        if disturbed != self.disturbed {
            self.disturbed = disturbed;
            self.metrics.disturbed.set(i64::from(disturbed));
            self.handler.transport_error(disturbed);
        }
    }

    fn absorb_commit_points(&mut self) {
        for point in self.handler.take_commit_points() {
            if let Some(assigned) = self.partitions.get_mut(&point.partition.partition) {
                assigned.latest = Some(point);
            }
        }
    }

    /// Commits what moved, without waiting, once per interval and one at a time.
    fn commit_due(&mut self, broker: &impl Broker) {
        if self.committed_at.elapsed() < self.commit_interval {
            return;
        }
        self.committed_at = Instant::now();
        self.absorb_commit_points();
        let under_way = |(sent, _): &(Instant, _)| sent.elapsed() < COMMIT_REPLY_MAX;
        if self.in_flight.as_ref().is_some_and(under_way) {
            return;
        }
        let points: Vec<CommitPoint> = self
            .partitions
            .values()
            .filter_map(|assigned| assigned.pending().cloned())
            .collect();
        if points.is_empty() {
            return;
        }
        match broker.commit(&points, CommitMode::Async) {
            Ok(()) => self.in_flight = Some((Instant::now(), points)),
            Err(error) => self.report_commit(&error),
        }
    }

    /// Commits, and waits for it, what is not known to be committed; returns whether all is.
    fn commit_now(&mut self, broker: &impl Broker, partitions: &[i32]) -> bool {
        let points: Vec<CommitPoint> = partitions
            .iter()
            .filter_map(|partition| self.partitions.get(partition)?.pending().cloned())
            .collect();
        if points.is_empty() {
            return true;
        }
        match broker.commit(&points, CommitMode::Sync) {
            Ok(()) => {
                self.confirm(points);
                true
            }
            Err(error) => {
                self.report_commit(&error);
                false
            }
        }
    }

    fn confirm(&mut self, points: Vec<CommitPoint>) {
        self.metrics.count_commit("ok");
        for point in points {
            if let Some(assigned) = self.partitions.get_mut(&point.partition.partition) {
                assigned.confirmed = Some(point);
            }
        }
    }

    fn report_commit(&self, error: &KafkaError) {
        if error::is_redelivered(error) {
            self.metrics.count_commit("redelivered");
            tracing::info!(error = %error, "offsets not committed, records will be redelivered");
        } else {
            self.metrics.count_commit("failed");
            tracing::warn!(error = %error, "failed to commit offsets, trying again");
        }
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

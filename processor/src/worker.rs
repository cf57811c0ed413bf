//! The consumer thread's work: records through the pipelines of their partitions, results to the
//! sinks, acks to the ledgers, commit points back to the consumer.
//!
//! ```text
//! record ─► PartitionPipeline ─► steps ─► outbox ─► sinks
//!                                  └─► ledger ◄── acks
//! ```
//!
//! Everything here runs on the consumer thread, so nothing is locked and nothing waits longer than
//! its deadline. The outbox holds what the sinks had no room for; while it is not empty the
//! consumer takes no records.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;

use crate::{
    clock::Clock,
    event::{EventTime, NextOffset, OffsetSpan, TopicPartition},
    health::Health,
    metrics::PipelineMetrics,
    model::ScoredWindow,
    pipeline::{PartitionPipeline, Shared, Step},
    recovery::{Known, Recovery, RecoveryDesk},
    sink::{
        Ack, AssignmentId, DEAD_LETTER_BYTES_MAX, DeadLetter, Sinks, WindowJob,
        store::RecoveredStream,
    },
    source::{CommitMetadata, CommitPoint, PartitionLedger, RawRecord, RecordHandler, StartPoint},
    window::{Recovered, WindowConfig},
};

/// Longest single wait for acks while the sinks have no room: short, since room can come without
/// an ack.
const ROOM_SLICE: Duration = Duration::from_millis(20);
/// How often idle partitions are looked at.
const IDLE_CHECK_EVERY: Duration = Duration::from_millis(250);

/// What a worker needs to know.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// How windows are cut.
    pub window: WindowConfig,
    /// Alarms of windows older than this are marked stale.
    pub max_alert_age: Duration,
    /// An idle partition's windows become final by the clock after this time.
    pub idle_final: Duration,
}

/// Something on its way to the sinks.
#[derive(Debug)]
enum Job {
    Window(WindowJob),
    Letter(DeadLetter),
}

impl Job {
    fn assignment(&self) -> AssignmentId {
        match self {
            Self::Window(job) => job.assignment,
            Self::Letter(letter) => letter.assignment,
        }
    }
}

/// A partition that is ours.
#[derive(Debug)]
struct Lane {
    assignment: AssignmentId,
    start: StartPoint,
    running: Option<Running>,
    /// Commit points are taken once more, then the lane goes.
    leaving: bool,
}

/// A partition whose records flow.
#[derive(Debug)]
struct Running {
    pipeline: PartitionPipeline,
    ledger: PartitionLedger,
    fence: i64,
    /// Acks that sinks still owe.
    outstanding: u64,
    committed: (NextOffset, CommitMetadata),
    /// Since when every record there is has been read.
    idle_since: Option<Instant>,
    /// Windows up to this start were written as provisional because the partition is idle.
    provisional_through: Option<EventTime>,
    /// The store could not be asked: rows are provisional and nothing is committed, until it
    /// answers and everything is read again.
    cold: bool,
}

/// Implements [`RecordHandler`] for `run`.
pub struct Worker {
    settings: WorkerSettings,
    shared: Shared,
    lanes: BTreeMap<TopicPartition, Lane>,
    steps: Vec<Step<ScoredWindow>>,
    outbox: VecDeque<Job>,
    sinks: Sinks,
    acks: Receiver<Ack>,
    desk: RecoveryDesk,
    ready: Vec<TopicPartition>,
    rewinds: Vec<TopicPartition>,
    assignments: AssignmentId,
    transport_broken: bool,
    idle_checked: Instant,
    clock: Clock,
    health: Arc<Health>,
    metrics: PipelineMetrics,
}

/// What a [`Worker`] is made of.
pub struct WorkerParts {
    /// What it needs to know.
    pub settings: WorkerSettings,
    /// Caches and model.
    pub shared: Shared,
    /// Where results go.
    pub sinks: Sinks,
    /// What the sinks report back.
    pub acks: Receiver<Ack>,
    /// Asks the store on assignment.
    pub desk: RecoveryDesk,
    /// Tells how old an alarm is.
    pub clock: Clock,
    /// Told of every turn.
    pub health: Arc<Health>,
    /// Counts.
    pub metrics: PipelineMetrics,
}

impl Worker {
    /// Returns a worker without partitions.
    #[must_use]
    pub fn new(parts: WorkerParts) -> Self {
        let WorkerParts {
            settings,
            shared,
            sinks,
            acks,
            desk,
            clock,
            health,
            metrics,
        } = parts;
        Self {
            settings,
            shared,
            lanes: BTreeMap::new(),
            steps: Vec::new(),
            outbox: VecDeque::new(),
            sinks,
            acks,
            desk,
            ready: Vec::new(),
            rewinds: Vec::new(),
            assignments: 0,
            transport_broken: false,
            idle_checked: Instant::now(),
            clock,
            health,
            metrics,
        }
    }

    fn running(&mut self, partition: &TopicPartition) -> Option<&mut Running> {
        self.lanes.get_mut(partition)?.running.as_mut()
    }

    /// Carries what the pipeline of `partition` brought about to ledger and outbox.
    fn carry(&mut self, partition: &TopicPartition, payload: Option<&[u8]>) {
        let Some(lane) = self.lanes.get_mut(partition) else {
            return;
        };
        let Some(running) = &mut lane.running else {
            return;
        };
        let mut slots: BTreeMap<EventTime, u32> = BTreeMap::new();
        let now = self.clock.now();
        for step in self.steps.drain(..) {
            match step {
                Step::Opened {
                    start,
                    offset,
                    max_event_time_before,
                } => {
                    running
                        .ledger
                        .window_opened(start, offset, max_event_time_before);
                }
                Step::Rejected {
                    offset,
                    rejected,
                    max_event_time_before,
                } => {
                    self.metrics.rejected(rejected.reason);
                    running.ledger.letter_opened(offset, max_event_time_before);
                    running.outstanding += 1;
                    let payload = payload.unwrap_or_default();
                    let head = &payload[..payload.len().min(DEAD_LETTER_BYTES_MAX)];
                    self.outbox.push_back(Job::Letter(DeadLetter {
                        partition: partition.clone(),
                        span: OffsetSpan::of(offset),
                        rejected,
                        payload: head.to_vec(),
                        payload_bytes: payload.len(),
                        assignment: lane.assignment,
                    }));
                }
                Step::Closed(scored) => {
                    let age = now - scored.window.bounds.end.to_datetime();
                    let stale = age
                        .to_std()
                        .is_ok_and(|age| age > self.settings.max_alert_age);
                    self.metrics.closed(&scored);
                    let slot = scored.window.slot;
                    let job = WindowJob {
                        scored: Arc::new(scored),
                        assignment: lane.assignment,
                        fence: running.fence,
                        stale,
                        alarm: true,
                    };
                    let acks = self.sinks.acks_per_window(&job);
                    running.outstanding += u64::from(acks);
                    *slots.entry(slot).or_default() += acks;
                    self.outbox.push_back(Job::Window(job));
                }
            }
        }
        for (slot, acks) in slots {
            running.ledger.window_closed(slot, acks);
        }
    }

    fn take_acks(&mut self) {
        while let Ok(ack) = self.acks.try_recv() {
            self.apply(&ack);
        }
    }

    fn apply(&mut self, ack: &Ack) {
        let (Ack::Window {
            partition,
            assignment,
            ..
        }
        | Ack::Letter {
            partition,
            assignment,
            ..
        }
        | Ack::Fenced {
            partition,
            assignment,
        }) = ack;
        // Acks of an earlier assignment are about rows that someone else answers for now.
        let lane = self
            .lanes
            .get_mut(partition)
            .filter(|lane| lane.assignment == *assignment);
        let Some(lane) = lane else { return };
        let Some(running) = &mut lane.running else {
            return;
        };
        match ack {
            Ack::Fenced { .. } => {
                tracing::warn!(%partition, "fenced off by a later claim; claiming again");
                lane.running = None;
                self.rewinds.push(partition.clone());
                return;
            }
            // Rows of open windows are replaced by the final ones, which the ledger waits for.
            Ack::Window {
                provisional: true, ..
            } => {}
            Ack::Window { window_start, .. } => running.ledger.window_acked(*window_start),
            Ack::Letter { offset, .. } => running.ledger.letter_acked(*offset),
        }
        running.outstanding = running.outstanding.saturating_sub(1);
    }

    /// Starts the partitions that the store has answered for.
    fn take_recoveries(&mut self) {
        while let Some(recovery) = self.desk.take() {
            self.start(recovery);
        }
    }

    fn start(
        &mut self,
        Recovery {
            partition,
            assignment,
            known,
        }: Recovery,
    ) {
        let lane = self
            .lanes
            .get_mut(&partition)
            .filter(|lane| lane.assignment == assignment);
        let Some(lane) = lane else { return };
        if lane.running.is_some() {
            tracing::info!(%partition, "the store is back; reading again from the last commit");
            lane.running = None;
            self.rewinds.push(partition);
            return;
        }
        let (cold, fence, known) = match known {
            Known::Claimed { fence, streams } => (false, fence, streams),
            Known::Unreachable => (true, 0, Vec::new()),
        };
        if cold {
            tracing::error!(
                %partition,
                "the store does not answer: starting without baselines; alarms flow, rows are \
                 provisional, offsets wait"
            );
        }
        let metadata = lane.start.metadata.unwrap_or_default();
        let (streams, baselines) = known
            .into_iter()
            .map(|RecoveredStream { service, state, .. }| {
                ((service.clone(), state.progress), (service, state.baseline))
            })
            .unzip();
        let recovered = Recovered {
            max_event_time: metadata.max_event_time,
            done_through: metadata.done_through,
            partial: lane.start.partial,
            streams,
        };
        let window = self.settings.window;
        let mut pipeline = PartitionPipeline::new(window, partition.clone(), recovered, baselines);
        pipeline.close(&mut self.shared, &mut self.steps);
        lane.running = Some(Running {
            pipeline,
            ledger: PartitionLedger::new(lane.start.next, metadata, window.length_ms),
            fence,
            outstanding: 0,
            committed: (lane.start.next, metadata),
            idle_since: None,
            provisional_through: None,
            cold,
        });
        tracing::info!(%partition, offset = lane.start.next.0, fence, "partition starts");
        self.carry(&partition, None);
        self.ready.push(partition);
    }

    /// Hands the outbox to the sinks as far as they have room.
    fn flush_outbox(&mut self) {
        while let Some(job) = self.outbox.pop_front() {
            let current = self
                .lanes
                .values()
                .any(|lane| lane.assignment == job.assignment());
            if !current {
                continue;
            }
            let refused = match job {
                Job::Window(job) => self.sinks.try_submit(job).err().map(Job::Window),
                Job::Letter(letter) => self.sinks.try_submit_letter(letter).err().map(Job::Letter),
            };
            if let Some(job) = refused {
                self.outbox.push_front(job);
                return;
            }
        }
    }

    fn turn(&mut self) {
        self.health.turn();
        self.take_acks();
        self.take_recoveries();
        if self.idle_checked.elapsed() >= IDLE_CHECK_EVERY {
            self.idle_checked = Instant::now();
            self.check_idle();
        }
        self.flush_outbox();
        self.metrics.outbox(self.outbox.len());
    }

    /// Takes turns until `done` or `deadline`; returns whether it was done.
    fn turns_until(&mut self, deadline: Instant, done: impl Fn(&Self) -> bool) -> bool {
        loop {
            self.turn();
            if done(self) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            if let Ok(ack) = self.acks.recv_timeout(left.min(ROOM_SLICE)) {
                self.apply(&ack);
            }
        }
    }

    fn owed(&self, partitions: &[TopicPartition]) -> u64 {
        let lanes = partitions
            .iter()
            .filter_map(|partition| self.lanes.get(partition));
        lanes
            .filter_map(|lane| lane.running.as_ref())
            .map(|running| running.outstanding)
            .sum()
    }

    /// Looks after partitions whose every record has been read: their time goes on by the clock.
    fn check_idle(&mut self) {
        if self.transport_broken {
            return;
        }
        let idle: Vec<_> = self
            .lanes
            .iter()
            .filter_map(|(partition, lane)| {
                let since = lane.running.as_ref()?.idle_since?;
                Some((partition.clone(), since.elapsed()))
            })
            .collect();
        for (partition, idle_for) in idle {
            if idle_for >= self.settings.idle_final {
                self.close_idle(&partition, idle_for);
            } else {
                self.write_due(&partition, idle_for);
            }
        }
    }

    /// Closes the windows of a partition that has been idle for long, for good.
    fn close_idle(&mut self, partition: &TopicPartition, idle_for: Duration) {
        let Some(lane) = self.lanes.get_mut(partition) else {
            return;
        };
        let Some(running) = &mut lane.running else {
            return;
        };
        if running.pipeline.windower().open_count() == 0 {
            return;
        }
        let Some(time) = clock_of(running, idle_for) else {
            return;
        };
        tracing::info!(%partition, ?idle_for, "idle: its open windows become final");
        running
            .pipeline
            .close_idle(&mut self.shared, time, &mut self.steps);
        let windower = running.pipeline.windower();
        let (max_event_time, closed_through) =
            (windower.max_event_time(), windower.closed_through());
        self.carry(partition, None);
        if let Some(running) = self.running(partition) {
            // Nothing was read: the position stays, and the ledger never moves it back.
            running
                .ledger
                .advance(NextOffset(0), max_event_time, closed_through);
        }
    }

    /// Writes the windows of an idle partition that are due by its clock, as provisional rows.
    fn write_due(&mut self, partition: &TopicPartition, idle_for: Duration) {
        let Some(lane) = self.lanes.get_mut(partition) else {
            return;
        };
        let Some(running) = &mut lane.running else {
            return;
        };
        if running.pipeline.windower().open_count() == 0 {
            return;
        }
        let Some(time) = clock_of(running, idle_for) else {
            return;
        };
        let watermark = time.saturating_add(-self.settings.window.lateness_ms);
        let written = running.provisional_through;
        if !running
            .pipeline
            .windower()
            .has_open_between(written, watermark)
        {
            return;
        }
        for scored in running.pipeline.score_open(&mut self.shared) {
            let bounds = scored.window.bounds;
            if bounds.end > watermark || written.is_some_and(|start| bounds.start <= start) {
                continue;
            }
            running.provisional_through = running.provisional_through.max(Some(bounds.start));
            self.outbox.push_back(Job::Window(WindowJob {
                scored: Arc::new(scored),
                assignment: lane.assignment,
                fence: running.fence,
                stale: false,
                alarm: true,
            }));
        }
    }

    /// Puts the windows still open into the outbox, as provisional rows without alarms.
    fn submit_open(&mut self) {
        for lane in self.lanes.values_mut() {
            let Some(running) = &mut lane.running else {
                continue;
            };
            for scored in running.pipeline.score_open(&mut self.shared) {
                let job = WindowJob {
                    scored: Arc::new(scored),
                    assignment: lane.assignment,
                    fence: running.fence,
                    stale: false,
                    alarm: false,
                };
                running.outstanding += u64::from(self.sinks.acks_per_window(&job));
                self.outbox.push_back(Job::Window(job));
            }
        }
    }
}

/// An idle partition's own time: its largest event time plus the time since it was read.
fn clock_of(running: &Running, idle_for: Duration) -> Option<EventTime> {
    let idle_ms = i64::try_from(idle_for.as_millis()).unwrap_or(i64::MAX);
    Some(
        running
            .pipeline
            .windower()
            .max_event_time()?
            .saturating_add(idle_ms),
    )
}

impl RecordHandler for Worker {
    fn assigned(&mut self, start: StartPoint) {
        self.assignments += 1;
        let partition = start.partition.clone();
        let done_through = start.metadata.and_then(|metadata| metadata.done_through);
        let lane = Lane {
            assignment: self.assignments,
            start,
            running: None,
            leaving: false,
        };
        self.lanes.insert(partition.clone(), lane);
        self.desk.ask(&partition, self.assignments, done_through);
    }

    fn take_ready(&mut self) -> Vec<TopicPartition> {
        std::mem::take(&mut self.ready)
    }

    fn take_rewinds(&mut self) -> Vec<TopicPartition> {
        std::mem::take(&mut self.rewinds)
    }

    fn record(&mut self, partition: &TopicPartition, record: RawRecord<'_>) {
        let Some(lane) = self.lanes.get_mut(partition) else {
            return;
        };
        let Some(running) = &mut lane.running else {
            return;
        };
        running.idle_since = None;
        running
            .pipeline
            .record(&mut self.shared, record, &mut self.steps);
        let windower = running.pipeline.windower();
        let (max_event_time, closed_through) =
            (windower.max_event_time(), windower.closed_through());
        if !self.steps.is_empty() {
            self.carry(partition, record.payload);
        }
        if let Some(running) = self.running(partition) {
            let next = NextOffset::after(record.offset);
            running.ledger.advance(next, max_event_time, closed_through);
        }
    }

    fn caught_up(&mut self, partition: &TopicPartition) {
        if let Some(running) = self.running(partition) {
            running.idle_since.get_or_insert_with(Instant::now);
        }
    }

    fn transport_error(&mut self, broken: bool) {
        self.transport_broken = broken;
        self.health.set_broker_up(!broken);
        if broken {
            // Silence is no evidence while nothing can be read; the next end of partition is.
            for running in self
                .lanes
                .values_mut()
                .filter_map(|lane| lane.running.as_mut())
            {
                running.idle_since = None;
            }
        }
    }

    fn drain(&mut self, deadline: Instant) -> bool {
        self.turns_until(deadline, |worker| worker.outbox.is_empty())
    }

    fn take_commit_points(&mut self) -> Vec<CommitPoint> {
        let mut points = Vec::new();
        self.lanes.retain(|partition, lane| {
            if let Some(running) = &mut lane.running {
                let point = running.ledger.commit_point();
                if point != running.committed && !running.cold {
                    running.committed = point;
                    let (next, metadata) = point;
                    points.push(CommitPoint {
                        partition: partition.clone(),
                        next,
                        metadata,
                    });
                }
            }
            !lane.leaving
        });
        points
    }

    fn revoked(&mut self, partitions: &[TopicPartition], lost: bool, deadline: Instant) {
        for partition in partitions {
            self.desk.forget(partition);
        }
        if !lost && !self.turns_until(deadline, |worker| worker.owed(partitions) == 0) {
            tracing::warn!(
                acks = self.owed(partitions),
                "revoked before everything was durable; the rest will be read again"
            );
        }
        for partition in partitions {
            if lost {
                self.lanes.remove(partition);
            } else if let Some(lane) = self.lanes.get_mut(partition) {
                lane.leaving = true;
            }
        }
    }

    fn finish(&mut self, deadline: Instant) {
        let partitions: Vec<_> = self.lanes.keys().cloned().collect();
        if !self.turns_until(deadline, |worker| worker.owed(&partitions) == 0) {
            tracing::warn!(
                acks = self.owed(&partitions),
                "stopping before everything was durable"
            );
            return;
        }
        self.submit_open();
        if !self.turns_until(deadline, |worker| worker.owed(&partitions) == 0) {
            tracing::warn!("stopping before every provisional row was written");
        }
    }
}

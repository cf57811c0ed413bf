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

/// What submitting needs, out of the fields of a [`Worker`]; a macro so that the lane can be
/// borrowed at the same time.
macro_rules! submission {
    ($worker:ident) => {
        $crate::worker::lane::Submission {
            outbox: &mut $worker.outbox,
            sinks: &$worker.sinks,
            metrics: &$worker.metrics,
            now: $worker.clock.now(),
            max_alert_age: $worker.settings.max_alert_age,
        }
    };
}

mod idle;
mod lane;
mod notes;
mod under_way;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;
use fail::fail_point;

use self::{
    lane::{Job, Lane, Running},
    under_way::UnderWay,
};
use crate::{
    clock::Clock,
    event::{NextOffset, TopicPartition},
    health::Health,
    metrics::PipelineMetrics,
    model::ScoredWindow,
    mutes::MutesReceiver,
    pipeline::{Shared, Step},
    recovery::{Known, Recovery, RecoveryDesk},
    sink::{Ack, AssignmentId, Sinks, WindowJob},
    source::{CommitPoint, RawRecord, RecordHandler, StartPoint},
    window::WindowConfig,
};

/// Longest single wait for acks while the sinks have no room: short, since room can come without
/// an ack.
const ROOM_SLICE: Duration = Duration::from_millis(20);
/// How often idle partitions are looked at and gauges set.
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// Results of a partition that wait for a commit before no more records are taken; what comes while
/// the broker answers is far less.
const HELD_MAX: usize = 2_000;

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
    /// Brings what is muted.
    pub mutes: MutesReceiver,
    /// Tells how old an alarm is and how long a partition has been idle.
    pub clock: Clock,
    /// Told of every turn.
    pub health: Arc<Health>,
    /// Counts.
    pub metrics: PipelineMetrics,
}

/// Implements [`RecordHandler`] for `run`.
pub struct Worker {
    settings: WorkerSettings,
    shared: Shared,
    lanes: BTreeMap<TopicPartition, Lane>,
    steps: Vec<Step<ScoredWindow>>,
    outbox: VecDeque<Job>,
    under_way: UnderWay,
    sinks: Sinks,
    acks: Receiver<Ack>,
    desk: RecoveryDesk,
    mutes: MutesReceiver,
    ready: Vec<TopicPartition>,
    rewinds: Vec<TopicPartition>,
    assignments: AssignmentId,
    reading_disturbed: bool,
    checked: Instant,
    noted: Instant,
    clock: Clock,
    health: Arc<Health>,
    metrics: PipelineMetrics,
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
            mutes,
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
            under_way: UnderWay::default(),
            sinks,
            acks,
            desk,
            mutes,
            ready: Vec::new(),
            rewinds: Vec::new(),
            assignments: 0,
            reading_disturbed: false,
            checked: clock.instant(),
            noted: clock.instant(),
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
        let running = self
            .lanes
            .get_mut(partition)
            .and_then(|lane| lane.running.as_mut());
        if let Some(running) = running {
            running.carry(&mut self.steps, payload, &mut submission!(self));
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
                self.rewind(partition);
                return;
            }
            // Rows of open windows are replaced by the final ones, which the ledger waits for.
            Ack::Window {
                provisional: true, ..
            } => {}
            Ack::Window { window_start, .. } => running.ledger.window_acked(*window_start),
            Ack::Letter { offset, .. } => running.ledger.letter_acked(*offset),
        }
        running.owed = running.owed.saturating_sub(1);
    }

    /// Forgets what is open of a partition and asks for it to be read again from its last commit.
    fn rewind(&mut self, partition: &TopicPartition) {
        if let Some(lane) = self.lanes.get_mut(partition) {
            lane.running = None;
        }
        self.ready.retain(|ready| ready != partition);
        self.rewinds.push(partition.clone());
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
        // One that is leaving is not begun any more, though its answer came meanwhile.
        let lane = self
            .lanes
            .get_mut(&partition)
            .filter(|lane| lane.assignment == assignment && !lane.leaving);
        let Some(lane) = lane else { return };
        if lane.running.is_some() {
            tracing::info!(%partition, "the store is back; reading again from the last commit");
            self.rewind(&partition);
            return;
        }
        if matches!(known, Known::Unreachable) {
            tracing::error!(
                %partition,
                "the store does not answer: starting without baselines; alarms flow, rows are \
                 provisional, offsets wait"
            );
        }
        let window = self.settings.window;
        lane.running = Some(Running::start(
            lane,
            known,
            window,
            &mut self.shared,
            &mut self.steps,
        ));
        self.carry(&partition, None);
        if let Some(running) = self.running(&partition) {
            // Nothing was read yet: the position stays, and the ledger never moves it back.
            running.advance(NextOffset(0));
        }
        self.ready.push(partition);
    }

    /// Hands the outbox to the sinks as far as they have room.
    fn flush_outbox(&mut self) {
        while let Some(job) = self.outbox.pop_front() {
            // What belongs to an earlier assignment will be read again by whoever has it now.
            if !self
                .lanes
                .values()
                .any(|lane| lane.assignment == job.assignment())
            {
                continue;
            }
            let refused = match job {
                Job::Window(job) => self.try_submit(job).err().map(Job::Window),
                Job::Letter(letter) => self.sinks.try_submit_letter(letter).err().map(Job::Letter),
                Job::Deploy(job) => self.sinks.try_submit_deploy(job).err().map(Job::Deploy),
            };
            if let Some(job) = refused {
                self.outbox.push_front(job);
                return;
            }
        }
    }

    #[allow(
        clippy::result_large_err,
        reason = "the job is handed back, not reported"
    )]
    fn try_submit(&mut self, job: WindowJob) -> Result<(), WindowJob> {
        if !self.under_way.has_room_for(&job.scored) {
            return Err(job);
        }
        let window = Arc::clone(&job.scored);
        self.sinks.try_submit(job)?;
        self.under_way.add(&window);
        Ok(())
    }

    fn turn(&mut self) {
        self.health.turn();
        self.take_acks();
        self.take_recoveries();
        if let Ok(mutes) = self.mutes.try_recv() {
            self.shared.set_mutes(mutes);
        }
        let now = self.clock.instant();
        if now.saturating_duration_since(self.checked) >= CHECK_EVERY {
            self.checked = now;
            self.check_idle();
            self.under_way.forget_done();
            self.set_gauges();
            self.note_health_due();
        }
        self.flush_outbox();
    }

    fn set_gauges(&self) {
        let running = || self.lanes.values().filter_map(|lane| lane.running.as_ref());
        self.metrics.set_gauges(crate::metrics::Gauges {
            outbox: self.outbox.len(),
            under_way_bytes: self.under_way.bytes(),
            acks_waiting: self.acks.len(),
            open_windows: running()
                .map(|it| it.pipeline.windower().open_count())
                .sum(),
            open_pairs: running()
                .map(|it| it.pipeline.windower().open_pairs())
                .sum(),
            streams: running()
                .map(|it| it.pipeline.windower().stream_count())
                .sum(),
            mutes: self.shared.mutes().len(),
            windows_pending: running().map(|it| it.ledger.windows_closed_pending()).sum(),
            letters_pending: running().map(|it| it.ledger.letters_pending()).sum(),
            baselines: running().map(|it| it.pipeline.baselines_count()).sum(),
            templates: self.shared.dictionary().len(),
            template_bytes: self.shared.dictionary().bytes(),
            unseen_texts: self.shared.unseen_texts(),
            template_evictions: self.shared.dictionary().evictions(),
        });
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

    /// Tells whether more records can be taken.
    fn has_room(&self) -> bool {
        let mut running = self.lanes.values().filter_map(|lane| lane.running.as_ref());
        self.outbox.is_empty() && running.all(|it| it.held_count() < HELD_MAX)
    }

    /// Returns how many acks the sinks still owe to these partitions.
    fn owed(&self, partitions: &[TopicPartition]) -> u64 {
        let lanes = partitions
            .iter()
            .filter_map(|partition| self.lanes.get(partition));
        lanes
            .filter_map(|lane| lane.running.as_ref())
            .map(|running| running.owed)
            .sum()
    }

    /// Puts the windows still open into the outbox, as provisional rows without alarms.
    fn submit_open(&mut self) {
        for running in self
            .lanes
            .values_mut()
            .filter_map(|lane| lane.running.as_mut())
        {
            for scored in running.pipeline.score_open(&mut self.shared) {
                running.submit(scored, false, &mut submission!(self));
            }
        }
    }
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
        self.ready.retain(|ready| *ready != partition);
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
            if !self.rewinds.contains(partition) {
                // Reading on would leave a hole behind.
                tracing::error!(%partition, offset = record.offset, "a record before its start");
                self.rewind(partition);
            }
            return;
        };
        let reached = NextOffset(record.offset);
        if running.mark.is_some_and(|mark| mark.from <= reached) {
            self.make_committed_move(partition, reached);
            return self.record(partition, record);
        }
        running.idle_since = None;
        running.provisional_through = None;
        running.speaks_again();
        running.tally.read += 1;
        let place = (partition.partition, record.offset);
        self.sinks
            .offer_line(place, record.payload, record.record_time);
        running
            .pipeline
            .record(&mut self.shared, record, &mut self.steps);
        if !self.steps.is_empty() {
            running.carry(&mut self.steps, record.payload, &mut submission!(self));
        }
        let next = NextOffset::after(record.offset);
        running.advance(next);
        if running.mark.is_some() {
            self.make_committed_move(partition, next);
        }
    }

    fn caught_up(&mut self, partition: &TopicPartition) {
        let now = self.clock.instant();
        if let Some(running) = self.running(partition) {
            running.idle_since.get_or_insert(now);
        }
    }

    fn transport_error(&mut self, broken: bool) {
        self.reading_disturbed = broken;
        self.health.set_reading(!broken);
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
        self.turns_until(deadline, Self::has_room)
    }

    fn committed(&mut self, point: &CommitPoint) {
        let lane = self.lanes.get_mut(&point.partition);
        if let Some(running) = lane.and_then(|lane| lane.running.as_mut()) {
            running.release(point.metadata.idle, &mut self.outbox);
        }
    }

    fn take_commit_points(&mut self) -> Vec<CommitPoint> {
        let mut points = Vec::new();
        self.lanes.retain(|partition, lane| {
            if let Some(running) = lane.running.as_mut().filter(|running| !running.cold) {
                let point = running.ledger.commit_point();
                if point != running.committed {
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
            self.ready.retain(|ready| ready != partition);
            if let Some(lane) = self.lanes.get_mut(partition) {
                lane.leaving = true;
            }
        }
        let drained = |worker: &Self| {
            fail_point!("revoke.draining", |_| std::process::abort());
            worker.owed(partitions) == 0
        };
        if !lost && !self.turns_until(deadline, drained) {
            tracing::warn!(
                acks = self.owed(partitions),
                "revoked before everything was durable; the rest will be read again"
            );
        }
        self.note_health(|partition| partitions.contains(partition));
        if lost {
            for partition in partitions {
                self.lanes.remove(partition);
            }
        }
    }

    fn finish(&mut self, deadline: Instant) {
        self.note_health(|_| true);
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

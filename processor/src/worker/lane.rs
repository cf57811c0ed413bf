//! A partition that is ours: its pipeline and ledger once the store has answered, and the way from
//! the one's steps to the other and to jobs for the sinks.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use crate::{
    event::{EventTime, NextOffset, OffsetSpan, Partial, TopicPartition},
    metrics::PipelineMetrics,
    model::{Baseline, ScoredWindow},
    pipeline::{PartitionPipeline, Shared, Step},
    recovery::Known,
    sink::{
        AssignmentId, DEAD_LETTER_BYTES_MAX, DeadLetter, Sinks, WindowJob, store::RecoveredStream,
    },
    source::{CommitMetadata, PartitionLedger, StartPoint},
    window::{FinalBy, Recovered, StreamProgress, WindowConfig},
};

/// Something on its way to the sinks.
#[derive(Debug)]
pub(super) enum Job {
    Window(WindowJob),
    Letter(DeadLetter),
}

impl Job {
    pub(super) fn assignment(&self) -> AssignmentId {
        match self {
            Self::Window(job) => job.assignment,
            Self::Letter(letter) => letter.assignment,
        }
    }
}

/// What submitting needs besides the lane.
pub(super) struct Submission<'a> {
    pub(super) outbox: &'a mut VecDeque<Job>,
    pub(super) sinks: &'a Sinks,
    pub(super) metrics: &'a PipelineMetrics,
    pub(super) now: DateTime<Utc>,
    pub(super) max_alert_age: Duration,
}

/// A partition that is ours.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) assignment: AssignmentId,
    pub(super) start: StartPoint,
    /// `None` until the store has answered.
    pub(super) running: Option<Running>,
    /// Commit points are taken once more, then the lane goes.
    pub(super) leaving: bool,
}

/// A partition whose records flow.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pipeline: PartitionPipeline,
    pub(super) ledger: PartitionLedger,
    partition: TopicPartition,
    assignment: AssignmentId,
    fence: i64,
    /// Acks that sinks still owe.
    pub(super) owed: u64,
    pub(super) committed: (NextOffset, CommitMetadata),
    /// Since when every record there is has been read.
    pub(super) idle_since: Option<Instant>,
    /// Windows up to this start were written as provisional because the partition is idle.
    pub(super) provisional_through: Option<EventTime>,
    /// Watermark up to which silence was looked for since the partition fell idle, and the silences told
    /// of by the clock.
    pub(super) silence_looked_at: Option<EventTime>,
    pub(super) silences_told: HashSet<(Option<Arc<str>>, EventTime)>,
    /// The store could not be asked: rows are provisional and nothing is committed, until it
    /// answers and everything is read again.
    pub(super) cold: bool,
}

impl Running {
    /// Starts the partition with what the store knows, and closes what the watermark has passed.
    pub(super) fn start(
        lane: &Lane,
        known: Known,
        window: WindowConfig,
        shared: &mut Shared,
        steps: &mut Vec<Step<ScoredWindow>>,
    ) -> Self {
        let partition = lane.start.partition.clone();
        let (cold, fence, streams) = match known {
            Known::Claimed { fence, streams } => (false, fence, streams),
            Known::Unreachable => (true, 0, Vec::new()),
        };
        let ours = lane
            .start
            .metadata
            .filter(|metadata| metadata.grid == window.grid());
        let foreign = lane.start.metadata.is_some() && ours.is_none();
        if foreign {
            tracing::warn!(
                %partition,
                "the last commit was made with another window length or grouping: streams begin \
                 anew, the first windows are marked partial"
            );
        }
        let metadata = ours.unwrap_or(CommitMetadata::nothing_done(window.grid()));
        let streams = if foreign { Vec::new() } else { streams };
        let (progress, baselines) = recovered_streams(streams, window, shared);
        let partial = if lane.start.partial || foreign {
            Partial::FromFirstRecord
        } else {
            metadata.partial
        };
        let metadata = CommitMetadata {
            partial,
            ..metadata
        };
        let recovered = Recovered {
            max_event_time: metadata.max_event_time,
            done_through: metadata.done_through,
            partial,
            streams: progress,
        };
        let mut pipeline = PartitionPipeline::new(window, partition.clone(), recovered, baselines);
        pipeline.close(shared, steps);
        tracing::info!(%partition, offset = lane.start.next.0, fence, "partition starts");
        Self {
            pipeline,
            ledger: PartitionLedger::new(lane.start.next, metadata),
            partition,
            assignment: lane.assignment,
            fence,
            owed: 0,
            committed: (lane.start.next, metadata),
            idle_since: None,
            provisional_through: None,
            silence_looked_at: None,
            silences_told: HashSet::new(),
            cold,
        }
    }

    /// Carries what the pipeline brought about to the ledger and the outbox. `payload` is that of
    /// the record that did.
    pub(super) fn carry(
        &mut self,
        steps: &mut Vec<Step<ScoredWindow>>,
        payload: Option<&[u8]>,
        submission: &mut Submission<'_>,
    ) {
        let mut slots: BTreeMap<EventTime, u32> = BTreeMap::new();
        for step in steps.drain(..) {
            match step {
                Step::Opened {
                    start,
                    offset,
                    max_event_time_before,
                } => {
                    self.ledger
                        .window_opened(start, offset, max_event_time_before);
                }
                Step::Rejected {
                    offset,
                    rejected,
                    max_event_time_before,
                } => {
                    submission.metrics.rejected(rejected.reason);
                    self.ledger.letter_opened(offset, max_event_time_before);
                    self.owed += 1;
                    let payload = payload.unwrap_or_default();
                    let head = &payload[..payload.len().min(DEAD_LETTER_BYTES_MAX)];
                    submission.outbox.push_back(Job::Letter(DeadLetter {
                        partition: self.partition.clone(),
                        span: OffsetSpan::of(offset),
                        rejected,
                        payload: head.to_vec(),
                        payload_bytes: payload.len(),
                        assignment: self.assignment,
                    }));
                }
                Step::Closed(scored) => {
                    submission.metrics.closed(&scored);
                    let slot = scored.window.slot;
                    *slots.entry(slot).or_default() += self.submit(scored, true, submission);
                }
            }
        }
        for (slot, acks) in slots {
            // Nothing of a cold start is ever done: it will all be read again.
            self.ledger
                .window_closed(slot, if self.cold { 0 } else { acks });
        }
    }

    /// Puts a window into the outbox; returns how many acks it will bring.
    pub(super) fn submit(
        &mut self,
        mut scored: ScoredWindow,
        alarm: bool,
        submission: &mut Submission<'_>,
    ) -> u32 {
        if self.cold {
            scored.window.final_by = FinalBy::Open;
            scored.verdict.cold = true;
        }
        let age = submission.now - scored.window.bounds.end.to_datetime();
        let job = WindowJob {
            scored: Arc::new(scored),
            assignment: self.assignment,
            fence: self.fence,
            alarm,
            stale: age.to_std().is_ok_and(|age| age > submission.max_alert_age),
        };
        let acks = submission.sinks.acks_per_window(&job);
        self.owed += u64::from(acks);
        submission.outbox.push_back(Job::Window(job));
        acks
    }

    /// Tells the ledger how far the windows are, after records up to `next` were taken.
    pub(super) fn advance(&mut self, next: NextOffset) {
        let windower = self.pipeline.windower();
        self.ledger.set_partial(windower.partial());
        self.ledger
            .advance(next, windower.max_event_time(), windower.closed_through());
    }
}

type Streams = (
    Vec<(Option<Arc<str>>, StreamProgress)>,
    Vec<(Option<Arc<str>>, Baseline)>,
);

/// Splits what the store has of the streams of this grouping. Baselines made by another model mean
/// nothing to this one: those streams keep their place and start with the model's own.
fn recovered_streams(
    streams: Vec<RecoveredStream>,
    window: WindowConfig,
    shared: &Shared,
) -> Streams {
    streams
        .into_iter()
        .filter(|stream| stream.service.is_some() == window.grid().by_service)
        .map(
            |RecoveredStream {
                 service,
                 state,
                 model_checksum,
             }| {
                let same_model = *model_checksum == **shared.model_checksum();
                let baseline = if same_model {
                    state.baseline
                } else {
                    Baseline::default()
                };
                ((service.clone(), state.progress), (service, baseline))
            },
        )
        .unzip()
}

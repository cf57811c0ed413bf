//! A partition that is ours: its pipeline and ledger once the store has answered, and the way from
//! the one's steps to the other and to jobs for the sinks.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use super::notes::Tally;
use crate::{
    decode::RejectReason,
    event::{EventTime, NextOffset, OffsetSpan, Partial, TopicPartition},
    metrics::PipelineMetrics,
    model::{Baseline, ScoredWindow},
    pipeline::{PartitionPipeline, Shared, Step},
    recovery::Known,
    sink::{
        AssignmentId, DEAD_LETTER_BYTES_KEPT_MAX, DeadLetter, DeployJob, Sinks, WindowJob,
        store::RecoveredStream,
    },
    source::{CommitMetadata, IdleMark, PartitionLedger, StartPoint},
    window::{FinalBy, Recovered, StreamProgress, WindowConfig},
};

/// Something on its way to the sinks.
#[derive(Debug)]
pub(super) enum Job {
    Window(WindowJob),
    Letter(DeadLetter),
    Deploy(DeployJob),
}

impl Job {
    pub(super) fn assignment(&self) -> AssignmentId {
        match self {
            Self::Window(job) => job.assignment,
            Self::Letter(letter) => letter.assignment,
            Self::Deploy(deploy) => deploy.assignment,
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

/// What waits until a move of the watermark by the clock is committed.
#[derive(Debug)]
struct Held {
    mark: IdleMark,
    /// With the acks that each will bring.
    jobs: Vec<(Job, u32)>,
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
    /// What has happened since its health was last noted.
    pub(super) tally: Tally,
    /// Windows up to this start were written as provisional because the partition is idle.
    pub(super) provisional_through: Option<EventTime>,
    /// Watermark up to which silence was looked for since the partition fell idle, and the silences told
    /// of by the clock.
    pub(super) silence_looked_at: Option<EventTime>,
    pub(super) silences_told: HashSet<Option<Arc<str>>>,
    /// The store could not be asked: rows are provisional and nothing is committed, until it
    /// answers and everything is read again.
    pub(super) cold: bool,
    /// A move of the watermark that is committed, to be made when reading comes to its place.
    pub(super) mark: Option<IdleMark>,
    /// Everything goes here while such a move is not committed yet.
    held: Option<Held>,
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
            Known::Claimed {
                fence,
                streams,
                mutes,
            } => {
                shared.set_mutes(mutes);
                (false, fence, streams)
            }
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
        let (passed, mark) = match metadata.idle {
            Some(mark) if mark.from <= lane.start.next => (Some(mark), None),
            mark => (None, mark),
        };
        if let Some(mark) = passed {
            pipeline.close_idle(shared, mark.time, steps);
        }
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
            tally: Tally::default(),
            provisional_through: None,
            silence_looked_at: None,
            silences_told: HashSet::new(),
            cold,
            mark,
            held: None,
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
                    match rejected.reason {
                        RejectReason::Late => self.tally.late += 1,
                        _ => self.tally.rejected += 1,
                    }
                    self.ledger.letter_opened(offset, max_event_time_before);
                    let payload = payload.unwrap_or_default();
                    let head = &payload[..payload.len().min(DEAD_LETTER_BYTES_KEPT_MAX)];
                    let letter = DeadLetter {
                        partition: self.partition.clone(),
                        span: OffsetSpan::of(offset),
                        rejected,
                        payload: head.to_vec(),
                        payload_bytes: payload.len(),
                        assignment: self.assignment,
                    };
                    self.hand_over(Job::Letter(letter), 1, submission.outbox);
                }
                Step::Deployed {
                    offset,
                    deploy,
                    max_event_time_before,
                } => {
                    // Of a cold start everything will be read again, this line too.
                    if self.cold || !submission.sinks.takes_deploys() {
                        continue;
                    }
                    self.ledger.letter_opened(offset, max_event_time_before);
                    self.owed += 1;
                    submission.outbox.push_back(Job::Deploy(DeployJob {
                        partition: self.partition.clone(),
                        offset,
                        deploy,
                        assignment: self.assignment,
                    }));
                }
                Step::Early(scored) => {
                    submission.metrics.early_alarms.inc();
                    self.submit(scored, true, submission);
                }
                Step::Closed(scored) => {
                    submission.metrics.closed(&scored);
                    self.tally.scored += i64::from(scored.window.content.lines());
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
            // Nothing that is said without a past stands.
            scored.early = None;
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
        self.hand_over(Job::Window(job), acks, submission.outbox);
        acks
    }

    fn hand_over(&mut self, job: Job, acks: u32, outbox: &mut VecDeque<Job>) {
        if let Some(held) = &mut self.held {
            held.jobs.push((job, acks));
        } else {
            self.owed += u64::from(acks);
            outbox.push_back(job);
        }
    }

    /// Has everything wait from here on until `mark` is committed.
    pub(super) fn hold(&mut self, mark: IdleMark) {
        self.held = Some(Held {
            mark,
            jobs: Vec::new(),
        });
    }

    /// Lets go what waited for `committed`, if something did.
    pub(super) fn release(&mut self, committed: Option<IdleMark>, outbox: &mut VecDeque<Job>) {
        if let Some(held) = self.held.take_if(|held| Some(held.mark) == committed) {
            for (job, acks) in held.jobs {
                self.hand_over(job, acks, outbox);
            }
        }
    }

    /// Returns how much waits for a commit.
    pub(super) fn held_count(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.jobs.len())
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

/// Splits what the store has of the streams of this grouping.
fn recovered_streams(
    streams: Vec<RecoveredStream>,
    window: WindowConfig,
    shared: &Shared,
) -> Streams {
    streams
        .into_iter()
        .filter(|stream| stream.service.is_some() == window.grid().by_service)
        .map(|stream| {
            let service = stream.service.clone();
            let (progress, baseline) = stream.continued_by(shared.model_checksum());
            ((service.clone(), progress), (service, baseline))
        })
        .unzip()
}

//! One window scored again, from the records it was made of and the state its stream was in.
//!
//! ```text
//! provenance + model ─► PartitionPipeline ◄─ the records of its offsets ─► ScoredWindow
//! ```
//!
//! The pipeline is that of `run`; only where it begins is different. A window depends on its
//! stream's state before it, on the largest event time before its first record (which tells late
//! records from others) and on its records, on nothing else. Pure: no clock, no I/O.

use crate::{
    decode,
    event::{EventTime, Level, OffsetSpan, Partial, StreamKey},
    model::{Baseline, ScoredWindow},
    pipeline::{PartitionPipeline, Shared, Step},
    source::RawRecord,
    window::{GroupBy, OTHER_SERVICES, Recovered, StreamProgress, WindowBounds, WindowConfig},
};

/// Where the score of a window comes from.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// Its stream.
    pub stream: StreamKey,
    /// Its time.
    pub bounds: WindowBounds,
    /// Where its lines stand, `None` if it has none.
    pub span: Option<OffsetSpan>,
    /// Largest event time of the partition before its first line.
    pub max_event_time_before: Option<EventTime>,
    /// How far behind the largest event time records could be, in milliseconds.
    pub lateness_ms: i64,
    /// Where its stream stood before it, `None` for the first window of a stream.
    pub state: Option<(StreamProgress, Baseline)>,
    /// It was scored while it was open.
    pub open: bool,
    /// It was an alarm before it was full, and its records end where that was.
    pub early: bool,
}

impl Provenance {
    /// Returns whether its records tell which stream they belong to: those of the services beyond
    /// the most that are told apart do not, for what was beyond depends on all that came before.
    #[must_use]
    pub fn is_told_apart(&self) -> bool {
        self.stream.service.as_deref() != Some(OTHER_SERVICES)
    }
}

/// A line of the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its offset.
    pub offset: i64,
    /// When it was written, by its own account.
    pub time: EventTime,
    /// Its level.
    pub level: Level,
    /// The service that wrote it.
    pub service: String,
    /// Its text, variables included.
    pub message: String,
}

/// A window that is being scored again.
#[derive(Debug)]
pub struct Rescoring<'a> {
    shared: &'a mut Shared,
    pipeline: PartitionPipeline,
    of: Provenance,
    steps: Vec<Step<ScoredWindow>>,
    scored: Option<ScoredWindow>,
    early: Option<ScoredWindow>,
}

impl<'a> Rescoring<'a> {
    /// Begins where the window began, with the model and the mutes of `shared`.
    #[must_use]
    pub fn new(of: Provenance, shared: &'a mut Shared) -> Self {
        let length_ms = of.bounds.end.as_millis() - of.bounds.start.as_millis();
        let service = of.stream.service.clone();
        let config = WindowConfig {
            length_ms,
            lateness_ms: of.lateness_ms,
            group_by: match service {
                Some(_) => GroupBy::Service,
                None => GroupBy::Partition,
            },
        };
        let (progress, baseline) = of.state.clone().unzip();
        let recovered = Recovered {
            max_event_time: of.max_event_time_before,
            done_through: Some(of.bounds.start.saturating_add(-length_ms)),
            partial: Partial::No,
            streams: Vec::from_iter(progress.map(|progress| (service.clone(), progress))),
        };
        let baselines = Vec::from_iter(baseline.map(|baseline| (service, baseline)));
        let partition = of.stream.partition.clone();
        Self {
            shared,
            pipeline: PartitionPipeline::new(config, partition, recovered, baselines),
            of,
            steps: Vec::new(),
            scored: None,
            early: None,
        }
    }

    /// Takes the next record of the window's offsets; returns the line that the window has of it.
    pub fn record(&mut self, record: RawRecord<'_>) -> Option<Line> {
        let line = self.line(&record);
        self.pipeline.record(self.shared, record, &mut self.steps);
        let counted = !self
            .steps
            .iter()
            .any(|step| matches!(step, Step::Rejected { .. }));
        self.take_steps();
        line.filter(|_| counted)
    }

    /// Ends reading; returns the window with its score, `None` if the records did not make one.
    #[must_use]
    pub fn finish(mut self) -> Option<ScoredWindow> {
        if self.of.early {
            return self.early;
        }
        if self.of.open && self.of.span.is_none() {
            let time = self.of.bounds.end;
            let silent = self.pipeline.score_silence(self.shared, time, |_| false);
            return silent.into_iter().find(|scored| self.is_it(scored));
        }
        if self.of.open {
            let open = self.pipeline.score_open(self.shared);
            return open.into_iter().find(|scored| self.is_it(scored));
        }
        if self.of.span.is_none() {
            let due = self.of.bounds.end.saturating_add(self.of.lateness_ms);
            self.pipeline.close_idle(self.shared, due, &mut self.steps);
        } else {
            self.pipeline.end(self.shared, &mut self.steps);
        }
        self.take_steps();
        self.scored
    }

    fn take_steps(&mut self) {
        for step in std::mem::take(&mut self.steps) {
            match step {
                Step::Closed(scored) if self.is_it(&scored) => self.scored = Some(scored),
                Step::Early(scored) if self.is_it(&scored) => self.early = Some(scored),
                _ => {}
            }
        }
    }

    fn is_it(&self, scored: &ScoredWindow) -> bool {
        scored.window.stream == self.of.stream && scored.window.bounds == self.of.bounds
    }

    /// The record as a line of the window, if it is one that was not refused.
    fn line(&self, record: &RawRecord<'_>) -> Option<Line> {
        let event = decode::decode(record.payload, record.record_time).ok()?;
        let bounds = self.of.bounds;
        let service = self.of.stream.service.as_deref();
        let ours = bounds.start <= event.time
            && event.time < bounds.end
            && service.is_none_or(|service| *service == *event.service);
        ours.then(|| Line {
            offset: record.offset,
            time: event.time,
            level: event.level,
            service: event.service.into_owned(),
            // Whoever asks for the line gets it as every sink would have it.
            message: self.shared.redactor().text(&event.message).into_owned(),
        })
    }
}

//! The stages of one partition, in order: the only file that names every one of them.
//!
//! ```text
//! RawRecord ─► decode ─► template ─► window ─► (closed) ─► features + score ─► redact ─► ScoredWindow
//!                 ├────────► Deployed (service, version)
//!                 └────────► Rejected ◄── late, future
//! ```
//!
//! Beside it `early` looks at windows that are still open, each second of event time.
//!
//! `run` and `replay` drive the same code, so what they say of the same records is the same.
//! Pure: no clock, no I/O; the caller carries steps to sinks and ledger.

mod early;

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc};

pub use early::PANE_MS;

use self::early::EarlyWatch;
use crate::{
    decode::{self, MaskError, Masker, RejectReason, Rejected, Template, TemplateDictionary},
    event::{Deploy, EventTime, LogEvent, NextOffset, TopicPartition},
    model::{Baseline, Detector, EarlyAlarm, Mutes, ScoredWindow},
    redact::{RedactError, RedactionConfig, Redactor},
    source::RawRecord,
    window::{
        ClosedWindow, FinalBy, Placement, Recovered, SAMPLE_BYTES_MAX, WindowConfig, Windower,
    },
};

/// Most templates remembered by text; a service has hundreds. Their texts are bounded
/// by [`DICTIONARY_BYTES_MAX`](decode::DICTIONARY_BYTES_MAX).
#[allow(clippy::expect_used, reason = "not zero")]
pub const DICTIONARY_TEMPLATES_MAX: NonZeroUsize =
    NonZeroUsize::new(200_000).expect("200,000 is not zero");
/// Baselines of forgotten streams kept before they are cleared out.
const BASELINES_SPARE: usize = 64;
/// Empty windows after which the clock stops asking whether a stream is silent: an hour at 30 s. One
/// that pauses for longer is told of when it writes again.
const SILENT_WINDOWS_MAX: u32 = 120;
/// Silences told of at one look; what is left is told of at the next.
pub const SILENCES_MAX: usize = 64;

/// What a record brought about, in order. Most records bring about nothing.
#[derive(Clone, Debug)]
pub enum Step<W> {
    /// The record opened a window.
    Opened {
        /// Start of the window.
        start: EventTime,
        /// Offset of the record.
        offset: i64,
        /// Largest event time of the records before it.
        max_event_time_before: Option<EventTime>,
    },
    /// A window that is still open is an alarm: told once, and it stands.
    Early(W),
    /// A window closed. Those of one slot follow each other.
    Closed(W),
    /// The record told of a deploy; it may count as a line all the same.
    Deployed {
        /// Offset of the record.
        offset: i64,
        /// What was rolled out.
        deploy: Deploy,
        /// Largest event time of the records before it.
        max_event_time_before: Option<EventTime>,
    },
    /// The record was not counted.
    Rejected {
        /// Offset of the record.
        offset: i64,
        /// Why.
        rejected: Rejected,
        /// Largest event time of the records before it.
        max_event_time_before: Option<EventTime>,
    },
}

impl<W> Step<W> {
    /// Returns the step with its closed window, if it has one, turned into something else.
    fn map<V>(self, turn: impl FnOnce(W) -> V) -> Step<V> {
        match self {
            Self::Opened {
                start,
                offset,
                max_event_time_before,
            } => Step::Opened {
                start,
                offset,
                max_event_time_before,
            },
            Self::Early(window) => Step::Early(turn(window)),
            Self::Closed(window) => Step::Closed(turn(window)),
            Self::Deployed {
                offset,
                deploy,
                max_event_time_before,
            } => Step::Deployed {
                offset,
                deploy,
                max_event_time_before,
            },
            Self::Rejected {
                offset,
                rejected,
                max_event_time_before,
            } => Step::Rejected {
                offset,
                rejected,
                max_event_time_before,
            },
        }
    }
}

/// Decode and window: what training needs, and the first half of scoring.
#[derive(Debug)]
pub struct Intake {
    windower: Windower,
    closed: Vec<ClosedWindow>,
}

impl Intake {
    /// Returns the intake of `partition` as it stands after `recovered`.
    #[must_use]
    pub fn new(config: WindowConfig, partition: TopicPartition, recovered: Recovered) -> Self {
        Self {
            windower: Windower::new(config, partition, recovered),
            closed: Vec::new(),
        }
    }

    /// Returns the windows, to look at.
    #[must_use]
    pub fn windower(&self) -> &Windower {
        &self.windower
    }

    /// Takes one record as it came.
    pub fn record(
        &mut self,
        dictionary: &mut TemplateDictionary,
        record: RawRecord<'_>,
        steps: &mut Vec<Step<ClosedWindow>>,
    ) {
        match decode::decode_record(record.payload, record.record_time) {
            Ok(decoded) => match refuse_future(&decoded.event, record.record_time) {
                None => {
                    self.deployed(record.offset, decoded.deploy, steps);
                    self.event(dictionary, &decoded.event, record.offset, steps);
                }
                Some(rejected) => self.reject(record.offset, rejected, steps),
            },
            Err(rejected) => self.reject(record.offset, rejected, steps),
        }
    }

    /// Takes one event that is decoded already.
    pub fn event(
        &mut self,
        dictionary: &mut TemplateDictionary,
        event: &LogEvent<'_>,
        offset: i64,
        steps: &mut Vec<Step<ClosedWindow>>,
    ) {
        let max_event_time_before = self.windower.max_event_time();
        let template = dictionary.resolve(&event.message);
        match self.windower.add(event, template, offset) {
            Placement::Counted { start, opened } => {
                if opened {
                    steps.push(Step::Opened {
                        start,
                        offset,
                        max_event_time_before,
                    });
                }
            }
            Placement::Late => {
                let watermark = self.windower.watermark().unwrap_or_default();
                let detail = format!("event time {}, watermark {watermark}", event.time);
                self.reject(
                    offset,
                    Rejected {
                        reason: RejectReason::Late,
                        detail,
                    },
                    steps,
                );
            }
            Placement::AlreadyDone => {}
        }
        self.close(FinalBy::Watermark, steps);
    }

    /// Passes on what a record tells of a deploy, late or not: it happened all the same.
    fn deployed(&self, offset: i64, deploy: Option<Deploy>, steps: &mut Vec<Step<ClosedWindow>>) {
        steps.extend(deploy.map(|deploy| Step::Deployed {
            offset,
            deploy,
            max_event_time_before: self.windower.max_event_time(),
        }));
    }

    /// Takes a record that could not be decoded.
    pub fn reject(&mut self, offset: i64, rejected: Rejected, steps: &mut Vec<Step<ClosedWindow>>) {
        let max_event_time_before = self.windower.max_event_time();
        steps.push(Step::Rejected {
            offset,
            rejected,
            max_event_time_before,
        });
    }

    /// Closes what the watermark has passed.
    pub fn close(&mut self, final_by: FinalBy, steps: &mut Vec<Step<ClosedWindow>>) {
        self.windower.close_final(final_by, &mut self.closed);
        steps.extend(self.closed.drain(..).map(Step::Closed));
    }

    /// Moves the watermark by the clock, for a partition that has fallen idle, and closes what that
    /// passes (and not what records have passed since).
    pub fn close_idle(&mut self, max_event_time: EventTime, steps: &mut Vec<Step<ClosedWindow>>) {
        self.windower.close_idle(max_event_time, &mut self.closed);
        steps.extend(self.closed.drain(..).map(Step::Closed));
    }

    /// Closes everything: the input has ended.
    pub fn end(&mut self, steps: &mut Vec<Step<ClosedWindow>>) {
        self.windower.close_all(&mut self.closed);
        steps.extend(self.closed.drain(..).map(Step::Closed));
    }
}

fn refuse_future(event: &LogEvent<'_>, record_time: Option<EventTime>) -> Option<Rejected> {
    let record_time = record_time?;
    (event.time > record_time.saturating_add(decode::FUTURE_MS_MAX)).then(|| Rejected {
        reason: RejectReason::Future,
        detail: format!("event time {}, record time {record_time}", event.time),
    })
}

/// What the partitions of a process share: caches that change no result, and the model.
#[derive(Debug)]
pub struct Shared {
    dictionary: TemplateDictionary,
    detector: Detector,
    redactor: Arc<Redactor>,
    early_alarms: bool,
}

/// The shared part cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// A mask of the model does not compile.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// A redaction rule cannot be used.
    #[error(transparent)]
    Redact(#[from] RedactError),
}

impl Shared {
    /// Returns the shared part for `detector`, with the masks its model was trained with and the
    /// built-in redaction rules.
    ///
    /// # Errors
    /// Returns an error if a mask does not compile.
    pub fn new(detector: Detector) -> Result<Self, SharedError> {
        let redactor = Redactor::new(&RedactionConfig::default())?;
        Self::redacting(detector, Arc::new(redactor))
    }

    /// Returns the same with other redaction rules.
    ///
    /// # Errors
    /// Returns an error if a mask does not compile.
    pub fn redacting(detector: Detector, redactor: Arc<Redactor>) -> Result<Self, SharedError> {
        let masker = Masker::new(detector.bundle().masks())?;
        let dictionary = TemplateDictionary::new(masker, DICTIONARY_TEMPLATES_MAX);
        Ok(Self {
            dictionary: dictionary.redacting(Arc::clone(&redactor)),
            detector,
            redactor,
            early_alarms: true,
        })
    }

    /// Returns what masks secrets in text that leaves.
    #[must_use]
    pub fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    /// Returns the template dictionary, to look at.
    #[must_use]
    pub fn dictionary(&self) -> &TemplateDictionary {
        &self.dictionary
    }

    /// Judges windows from now on with these mutes.
    pub fn set_mutes(&mut self, mutes: Arc<Mutes>) {
        self.detector.set_mutes(mutes);
    }

    /// Sets whether windows are looked at before they are full, which they are if nothing is said.
    pub fn set_early_alarms(&mut self, on: bool) {
        self.early_alarms = on;
    }

    /// Returns what is muted.
    #[must_use]
    pub fn mutes(&self) -> &Mutes {
        self.detector.mutes()
    }

    /// Scores a window that is no stream's next one, from the state it is given.
    pub fn score(&mut self, window: ClosedWindow, baseline: &mut Baseline) -> ScoredWindow {
        self.detector.score(window, baseline)
    }

    /// Returns the template of a message.
    pub fn template(&mut self, message: &str) -> Arc<Template> {
        Arc::clone(self.dictionary.resolve(message))
    }

    /// Returns the combined p-value below which windows are anomalous.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        self.detector.threshold()
    }

    /// Returns how many texts of unseen templates are kept.
    #[must_use]
    pub fn unseen_texts(&self) -> usize {
        self.detector.unseen_texts()
    }

    /// Returns the checksum of the model.
    #[must_use]
    pub fn model_checksum(&self) -> &Arc<str> {
        self.detector.bundle().checksum()
    }
}

/// All stages of one partition.
#[derive(Debug)]
pub struct PartitionPipeline {
    intake: Intake,
    baselines: HashMap<Option<Arc<str>>, Baseline>,
    steps: Vec<Step<ClosedWindow>>,
    early: EarlyWatch,
}

impl PartitionPipeline {
    /// Returns the pipeline of `partition`, with the streams that the store knows of.
    #[must_use]
    pub fn new(
        config: WindowConfig,
        partition: TopicPartition,
        start: Recovered,
        baselines: Vec<(Option<Arc<str>>, Baseline)>,
    ) -> Self {
        Self {
            early: EarlyWatch::new(start.max_event_time),
            intake: Intake::new(config, partition, start),
            baselines: baselines.into_iter().collect(),
            steps: Vec::new(),
        }
    }

    /// Returns the windows, to look at.
    #[must_use]
    pub fn windower(&self) -> &Windower {
        self.intake.windower()
    }

    /// Returns how many streams have a baseline.
    #[must_use]
    pub fn baselines_count(&self) -> usize {
        self.baselines.len()
    }

    /// Takes one record as it came.
    pub fn record(
        &mut self,
        shared: &mut Shared,
        record: RawRecord<'_>,
        steps: &mut Vec<Step<ScoredWindow>>,
    ) {
        let next = NextOffset::after(record.offset);
        self.intake
            .record(&mut shared.dictionary, record, &mut self.steps);
        self.score(shared, steps);
        self.look_early(shared, next, steps);
    }

    /// Takes one event of a file.
    pub fn event(
        &mut self,
        shared: &mut Shared,
        event: &LogEvent<'_>,
        offset: i64,
        steps: &mut Vec<Step<ScoredWindow>>,
    ) {
        self.intake
            .event(&mut shared.dictionary, event, offset, &mut self.steps);
        self.score(shared, steps);
        self.look_early(shared, NextOffset::after(offset), steps);
    }

    /// Closes what the watermark has passed already: after a restart, before the first record.
    pub fn close(&mut self, shared: &mut Shared, steps: &mut Vec<Step<ScoredWindow>>) {
        self.intake.close(FinalBy::Watermark, &mut self.steps);
        self.score(shared, steps);
    }

    /// Moves the watermark of an idle partition by the clock.
    pub fn close_idle(
        &mut self,
        shared: &mut Shared,
        max_event_time: EventTime,
        steps: &mut Vec<Step<ScoredWindow>>,
    ) {
        self.intake.close_idle(max_event_time, &mut self.steps);
        self.score(shared, steps);
        self.early.pass(self.intake.windower().max_event_time());
    }

    /// Closes everything: the input has ended.
    pub fn end(&mut self, shared: &mut Shared, steps: &mut Vec<Step<ScoredWindow>>) {
        self.intake.end(&mut self.steps);
        self.score(shared, steps);
    }

    /// Returns the windows still open, scored as they stand; nothing changes.
    #[must_use]
    pub fn score_open(&self, shared: &mut Shared) -> Vec<ScoredWindow> {
        // Copies, and only of the streams that have a window open.
        let mut baselines = HashMap::new();
        let rows = self.intake.windower().open_rows().into_iter();
        rows.map(|window| {
            let service = &window.stream.service;
            if let Some(baseline) = self.baselines.get(service)
                && !baselines.contains_key(service)
            {
                baselines.insert(service.clone(), baseline.clone());
            }
            let early = self.early.alarm_of(&window);
            score_window((&mut baselines, shared), window, early)
        })
        .collect()
    }

    /// Returns, per stream that writes nothing while all its records have been read, the row at which
    /// its silence is an alarm, as far as `time` has passed its end; nothing changes. Leaves out those
    /// `told` of, and gives [`SILENCES_MAX`] at most. The rows that the records make final later say
    /// the same, and take the place of these.
    ///
    /// Beyond the [`EMPTY_ROWS_MAX`](crate::window::EMPTY_ROWS_MAX) empty windows that records give
    /// rows of their own they make one row of the rest of the gap, whose end nobody knows before the
    /// stream writes again. It tells once more of a silence that was told of there, and how long it
    /// was: better twice than an hour too late.
    #[must_use]
    pub fn score_silence(
        &self,
        shared: &mut Shared,
        time: EventTime,
        told: impl Fn(&Option<Arc<str>>) -> bool,
    ) -> Vec<ScoredWindow> {
        let mut open: HashMap<_, Vec<_>> = HashMap::new();
        for row in self.intake.windower().open_rows() {
            let rows: &mut Vec<_> = open.entry(row.stream.service.clone()).or_default();
            rows.push(row);
        }
        let mut streams: Vec<_> = self.baselines.iter().collect();
        streams.retain(|(service, _)| !told(service));
        streams.sort_unstable_by(|a, b| a.0.cmp(b.0));
        let silent = streams.into_iter().filter_map(|(service, baseline)| {
            let open = open.remove(service).unwrap_or_default();
            self.silence_of(service.as_deref(), baseline, open, (shared, time))
        });
        silent.take(SILENCES_MAX).collect()
    }

    /// Returns the row at which the silence of one stream is an alarm, after its rows that are `open`.
    fn silence_of(
        &self,
        service: Option<&str>,
        baseline: &Baseline,
        open: Vec<ClosedWindow>,
        (shared, time): (&mut Shared, EventTime),
    ) -> Option<ScoredWindow> {
        let row = |windows| self.intake.windower().silent_row(service, windows);
        if row(1)?.bounds.end > time {
            return None;
        }
        let detector = &mut shared.detector;
        let mut baseline = baseline.clone();
        for window in open {
            let early = self.early.alarm_of(&window);
            detector.score_after(window, &mut baseline, early);
        }
        let windows = detector.silent_after(&baseline, SILENT_WINDOWS_MAX)?;
        if row(windows)?.bounds.end > time {
            return None;
        }
        let rows = (1..=windows).filter_map(row);
        rows.map(|row| detector.score(row, &mut baseline)).last()
    }

    /// Looks at what is open, if the record before `next` passed the end of a pane.
    #[inline]
    fn look_early(
        &mut self,
        shared: &mut Shared,
        next: NextOffset,
        steps: &mut Vec<Step<ScoredWindow>>,
    ) {
        let windower = self.intake.windower();
        if !self.early.is_due(windower.max_event_time()) {
            return;
        }
        self.early.pass(windower.max_event_time());
        if shared.early_alarms {
            let open = (windower, &self.baselines);
            let alarms = self.early.look(open, shared, next);
            steps.extend(alarms.into_iter().map(Step::Early));
        }
    }

    fn score(&mut self, shared: &mut Shared, steps: &mut Vec<Step<ScoredWindow>>) {
        for mut step in self.steps.drain(..) {
            if let Step::Deployed { deploy, .. } = &mut step {
                deploy.version = shared.redactor.text(&deploy.version).into_owned();
            }
            steps.push(step.map(|window| {
                let early = self.early.alarm_of(&window);
                score_window((&mut self.baselines, shared), window, early)
            }));
        }
        let windower = self.intake.windower();
        if self.baselines.len() > 2 * windower.stream_count() + BASELINES_SPARE {
            self.baselines
                .retain(|service, _| windower.knows(service.as_deref()));
        }
    }
}

fn score_window(
    (baselines, shared): (&mut HashMap<Option<Arc<str>>, Baseline>, &mut Shared),
    mut window: ClosedWindow,
    early: Option<Arc<EarlyAlarm>>,
) -> ScoredWindow {
    let baseline = baselines.entry(window.stream.service.clone()).or_default();
    if window.first {
        *baseline = Baseline::default();
    }
    redact_samples(&shared.redactor, &mut window);
    shared.detector.score_after(window, baseline, early)
}

/// Makes the samples fit to be shown. Templates are so already, see [`TemplateDictionary`].
fn redact_samples(redactor: &Redactor, window: &mut ClosedWindow) {
    let shown = |sample: &str| -> Box<str> {
        let shown = redactor.text(sample);
        let end = shown.floor_char_boundary(SAMPLE_BYTES_MAX);
        shown.split_at(end).0.into()
    };
    let samples = window.content.samples.iter();
    let samples: Vec<_> = samples.map(|sample| shown(sample)).collect();
    // An open window shares its content with the windower: copied only if need be.
    if samples != window.content.samples {
        Arc::make_mut(&mut window.content).samples = samples;
    }
    // Labelled input only.
    if window.content.first_anomalous.is_some()
        && let Some(line) = &mut Arc::make_mut(&mut window.content).first_anomalous
    {
        line.message = shown(&line.message);
    }
}

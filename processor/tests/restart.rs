//! A partition that dies at any moment, as often as it likes, leaves the same rows as one that
//! never did. Everything here is in memory: the pipeline and the ledger are the real ones, the
//! sinks are a queue that makes rows durable one by one, and a kill forgets all but what was
//! durable and what was committed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "common/log.rs"]
mod log;
#[path = "common/model.rs"]
mod model;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, LazyLock},
};

use chrono::DateTime;
use logguard::{
    event::{EventTime, NextOffset},
    model::{Bundle, Detector, ScoredWindow},
    pipeline::{PartitionPipeline, Shared, Step},
    sink::{alarm_file::format_alarm, results::result_message, store::StreamState},
    source::{CommitMetadata, IdleMark, PartitionLedger},
    window::{GroupBy, Recovered, StreamProgress, WindowConfig},
};
use proptest::prelude::*;

use crate::{
    log::{log, record},
    model::{bundle, partition},
};

const LENGTH_MS: i64 = 30_000;

fn config(group_by: GroupBy) -> WindowConfig {
    WindowConfig {
        length_ms: LENGTH_MS,
        lateness_ms: 2_000,
        group_by,
    }
}

fn shared(bundle: &Arc<Bundle>) -> Shared {
    Shared::new(Detector::new(Arc::clone(bundle), 1.0, 1)).unwrap()
}

/// What a final row says, as the results topic has it, and where its score comes from.
type Rows = BTreeMap<String, String>;

/// What must be the same however often a partition died.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    rows: Rows,
    /// Alarms that came before their window was full, as their file and table have them.
    alarms: Rows,
    letters: BTreeSet<i64>,
}

fn key(scored: &ScoredWindow) -> String {
    let window = &scored.window;
    format!(
        "{} {} {}",
        window.stream, window.bounds.start, window.bounds.end
    )
}

fn text(scored: &ScoredWindow) -> String {
    let message = serde_json::to_string(&result_message(scored, false)).unwrap();
    let window = &scored.window;
    let (previous, before) = (window.previous, window.max_event_time_before);
    format!("{message} {previous:?} {before:?}")
}

fn alarm_text(scored: &ScoredWindow) -> String {
    let early = scored.early.as_ref().unwrap();
    let now = DateTime::from_timestamp(0, 0).unwrap();
    format!("{early:?} {}", format_alarm(scored, false, now))
}

fn undisturbed(bundle: &Arc<Bundle>, group_by: GroupBy, log: &[String]) -> Outcome {
    let mut shared = shared(bundle);
    let mut pipeline = PartitionPipeline::new(
        config(group_by),
        partition(),
        Recovered::default(),
        Vec::new(),
    );
    let (mut outcome, mut steps) = (Outcome::default(), Vec::new());
    for (offset, payload) in (0..).zip(log) {
        pipeline.record(&mut shared, record(offset, payload), &mut steps);
        for step in steps.drain(..) {
            match step {
                Step::Opened { .. } | Step::Deployed { .. } => {}
                Step::Early(scored) => {
                    let before = outcome.alarms.insert(key(&scored), alarm_text(&scored));
                    assert_eq!(before, None, "an alarm raised twice");
                }
                Step::Closed(scored) => {
                    said_the_same(&outcome.alarms, &scored);
                    let before = outcome.rows.insert(key(&scored), text(&scored));
                    assert_eq!(before, None, "a window closed twice");
                }
                Step::Rejected { offset, .. } => {
                    outcome.letters.insert(offset);
                }
            }
        }
    }
    outcome
}

/// A final row stands by the alarm that told of its window, and says the same of it.
fn said_the_same(alarms: &Rows, scored: &ScoredWindow) {
    let told = alarms.get(&key(scored));
    assert_eq!(told.is_some(), scored.early.is_some());
    if let Some(early) = &scored.early {
        assert_eq!(told, Some(&alarm_text(scored)));
        assert!(scored.verdict.is_anomaly && scored.verdict.severity >= early.severity);
    }
}

/// What outlives a kill.
#[derive(Default)]
struct Durable {
    rows: Rows,
    alarms: Rows,
    /// Newest state per stream: (window start, state as JSON), in the order they were written.
    states: Vec<(Option<Arc<str>>, EventTime, String)>,
    letters: BTreeSet<i64>,
    committed: Option<(NextOffset, CommitMetadata)>,
    /// How far the log was ever read: where a silence can begin, for before it there are records.
    read_to: i64,
}

/// Something on its way to being durable.
enum Job {
    Row(Box<ScoredWindow>),
    Alarm(Box<ScoredWindow>),
    Letter(i64),
}

/// One life of the partition's owner.
struct Life {
    shared: Shared,
    pipeline: PartitionPipeline,
    ledger: PartitionLedger,
    queue: VecDeque<Job>,
    next: i64,
    /// A committed move of the watermark, to be made when reading comes to its place.
    mark: Option<IdleMark>,
    /// What waits until a move of the watermark is committed.
    held: Option<(IdleMark, Vec<Job>)>,
}

impl Life {
    fn begin(bundle: &Arc<Bundle>, group_by: GroupBy, durable: &Durable) -> Self {
        let nothing_done = CommitMetadata::nothing_done(config(group_by).grid());
        let (next, metadata) = durable.committed.unwrap_or((NextOffset(0), nothing_done));
        let mut streams: BTreeMap<Option<Arc<str>>, (EventTime, &str)> = BTreeMap::new();
        for (service, start, state) in &durable.states {
            if metadata.done_through.is_some_and(|done| *start <= done) {
                let newest = streams.entry(service.clone()).or_insert((*start, state));
                if newest.0 <= *start {
                    *newest = (*start, state);
                }
            }
        }
        let states = streams.into_iter().map(|(service, (_, state))| {
            let state: StreamState = serde_json::from_str(state).unwrap();
            (service, state)
        });
        let (progress, baselines): (Vec<(_, StreamProgress)>, Vec<_>) = states
            .map(|(service, state)| ((service.clone(), state.progress), (service, state.baseline)))
            .unzip();
        let recovered = Recovered {
            max_event_time: metadata.max_event_time,
            done_through: metadata.done_through,
            partial: metadata.partial,
            streams: progress,
        };
        let mut life = Self {
            shared: shared(bundle),
            pipeline: PartitionPipeline::new(config(group_by), partition(), recovered, baselines),
            ledger: PartitionLedger::new(next, metadata),
            queue: VecDeque::new(),
            next: next.0,
            mark: metadata.idle,
            held: None,
        };
        life.make_committed_move();
        let mut steps = Vec::new();
        life.pipeline.close(&mut life.shared, &mut steps);
        life.carry(steps);
        life
    }

    /// The clock makes final what is open.
    fn fall_idle(&mut self) {
        let last_end = self.pipeline.windower().last_open_end();
        let Some(due) = last_end.map(|end| end.saturating_add(2_000)) else {
            return;
        };
        if self.held.is_some() || self.mark.is_some() {
            return;
        }
        let through = due.saturating_add(-2_000 - LENGTH_MS);
        if let Some(mark) = self.ledger.mark_idle(due, through) {
            self.held = Some((mark, Vec::new()));
            self.move_watermark(due);
        }
    }

    fn move_watermark(&mut self, time: EventTime) {
        let mut steps = Vec::new();
        self.pipeline.close_idle(&mut self.shared, time, &mut steps);
        self.carry(steps);
        self.advance(0);
    }

    fn make_committed_move(&mut self) {
        let next = NextOffset(self.next);
        if let Some(mark) = self.mark.take_if(|mark| mark.from <= next) {
            self.move_watermark(mark.time);
        }
    }

    fn committed(&mut self, metadata: CommitMetadata) {
        if let Some((_, jobs)) = self.held.take_if(|(mark, _)| Some(*mark) == metadata.idle) {
            self.queue.extend(jobs);
        }
    }

    fn hand_over(&mut self, job: Job) {
        match &mut self.held {
            Some((_, jobs)) => jobs.push(job),
            None => self.queue.push_back(job),
        }
    }

    fn advance(&mut self, next: i64) {
        let windower = self.pipeline.windower();
        let (time, closed) = (windower.max_event_time(), windower.closed_through());
        self.ledger.advance(NextOffset(next), time, closed);
    }

    fn read(&mut self, log: &[String]) -> bool {
        let Some(payload) = log.get(usize::try_from(self.next).unwrap()) else {
            return false;
        };
        let mut steps = Vec::new();
        self.pipeline
            .record(&mut self.shared, record(self.next, payload), &mut steps);
        self.carry(steps);
        self.next += 1;
        self.advance(self.next);
        self.make_committed_move();
        true
    }

    fn carry(&mut self, steps: Vec<Step<ScoredWindow>>) {
        let mut slots: BTreeMap<EventTime, u32> = BTreeMap::new();
        for step in steps {
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
                    max_event_time_before,
                    ..
                } => {
                    self.ledger.letter_opened(offset, max_event_time_before);
                    self.hand_over(Job::Letter(offset));
                }
                Step::Deployed { .. } => panic!("no line here tells of a deploy"),
                Step::Early(scored) => self.hand_over(Job::Alarm(Box::new(scored))),
                Step::Closed(scored) => {
                    *slots.entry(scored.window.slot).or_default() += 1;
                    self.hand_over(Job::Row(Box::new(scored)));
                }
            }
        }
        for (slot, acks) in slots {
            self.ledger.window_closed(slot, acks);
        }
    }

    /// Makes the oldest job durable; with `acked` the ledger hears of it.
    fn write(&mut self, durable: &mut Durable, acked: bool) {
        match self.queue.pop_front() {
            None => {}
            Some(Job::Letter(offset)) => {
                durable.letters.insert(offset);
                if acked {
                    self.ledger.letter_acked(offset);
                }
            }
            Some(Job::Alarm(scored)) => {
                let alarm = alarm_text(&scored);
                let before = durable.alarms.insert(key(&scored), alarm.clone());
                assert!(
                    before.is_none_or(|before| before == alarm),
                    "an alarm changed: {alarm}"
                );
            }
            Some(Job::Row(scored)) => {
                let window = &scored.window;
                let row = text(&scored);
                let before = durable.rows.insert(key(&scored), row.clone());
                assert!(
                    before.is_none_or(|before| before == row),
                    "a row changed: {row}"
                );
                if !window.gap {
                    let state = StreamState {
                        progress: window.progress,
                        baseline: scored.baseline.clone(),
                    };
                    let state = serde_json::to_string(&state).unwrap();
                    let service = window.stream.service.clone();
                    durable.states.push((service, window.bounds.start, state));
                }
                if acked {
                    self.ledger.window_acked(window.slot);
                }
            }
        }
    }
}

/// What happens next to the partition's owner.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Read(u8),
    Write(u8),
    Commit,
    /// Dies with this many of the jobs under way durable and not acknowledged.
    Kill(u8),
    /// The partition falls idle, for so long that what is open becomes final.
    Idle,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => (1_u8..40).prop_map(Fate::Read),
        5 => (1_u8..12).prop_map(Fate::Write),
        3 => Just(Fate::Commit),
        1 => (0_u8..6).prop_map(Fate::Kill),
    ]
}

fn fate_with_silence() -> impl Strategy<Value = Fate> {
    prop_oneof![12 => fate(), 1 => Just(Fate::Idle)]
}

/// Returns what is durable in the end, with the windows that are still open then, and of these
/// windows' lines how many there are.
fn disturbed(
    bundle: &Arc<Bundle>,
    group_by: GroupBy,
    log: &[String],
    fates: &[Fate],
) -> (Outcome, u64) {
    let mut durable = Durable::default();
    let mut life = Life::begin(bundle, group_by, &durable);
    for fate in fates {
        match fate {
            Fate::Read(records) => {
                for _ in 0..*records {
                    life.read(log);
                }
                durable.read_to = durable.read_to.max(life.next);
            }
            Fate::Write(jobs) => {
                for _ in 0..*jobs {
                    life.write(&mut durable, true);
                }
            }
            Fate::Commit => {
                let point = life.ledger.commit_point();
                durable.committed = Some(point);
                life.committed(point.1);
            }
            Fate::Idle if life.next == durable.read_to => life.fall_idle(),
            Fate::Idle => {}
            Fate::Kill(jobs) => {
                for _ in 0..*jobs {
                    life.write(&mut durable, false);
                }
                life = Life::begin(bundle, group_by, &durable);
            }
        }
    }
    while life.read(log) {}
    let (_, metadata) = life.ledger.commit_point();
    life.committed(metadata);
    while !life.queue.is_empty() {
        life.write(&mut durable, true);
    }
    let open = life.pipeline.windower().open_rows().into_iter();
    let open = open.map(|row| u64::from(row.content.lines())).sum();
    let outcome = Outcome {
        rows: durable.rows,
        alarms: durable.alarms,
        letters: durable.letters,
    };
    (outcome, open)
}

static BUNDLE: LazyLock<Arc<Bundle>> = LazyLock::new(|| bundle(config(GroupBy::Partition)));

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn dying_changes_nothing(
        log in log(),
        fates in prop::collection::vec(fate(), 5..120),
        by_service: bool,
    ) {
        let group_by = if by_service { GroupBy::Service } else { GroupBy::Partition };
        let before = undisturbed(&BUNDLE, group_by, &log);
        let (after, _) = disturbed(&BUNDLE, group_by, &log, &fates);
        for (key, row) in &before.rows {
            prop_assert_eq!(after.rows.get(key), Some(row), "row {}", key);
        }
        prop_assert_eq!(after, before);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 75, ..ProptestConfig::default() })]

    /// The clock makes windows final at any moment: rows are what they are for good (see
    /// [`Life::write`]), and every line is in one of them, or open, or a dead letter.
    #[test]
    fn what_the_clock_made_final_stays(
        log in log(),
        fates in prop::collection::vec(fate_with_silence(), 5..120),
        by_service: bool,
    ) {
        let group_by = if by_service { GroupBy::Service } else { GroupBy::Partition };
        let (outcome, open) = disturbed(&BUNDLE, group_by, &log, &fates);
        let counted: u64 = outcome
            .rows
            .values()
            // The message comes first, then what else the row says.
            .map(|row| serde_json::Deserializer::from_str(row).into_iter().next().unwrap())
            .map(|row: serde_json::Result<serde_json::Value>| row.unwrap())
            .map(|row| row["log_count"].as_u64().unwrap())
            .sum();
        prop_assert_eq!(counted + outcome.letters.len() as u64 + open, log.len() as u64);
    }
}

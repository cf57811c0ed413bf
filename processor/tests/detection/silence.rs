//! Silence of a partition whose every record has been read: the clock tells of it first, and the
//! records tell of the same once more, or of what the clock could not know.

use std::borrow::Cow;

use logguard::{
    event::{EventTime, LogEvent, TopicPartition},
    model::{AlarmKind, Detector, ScoredWindow},
    pipeline::{PartitionPipeline, Shared, Step},
    rescore::{Provenance, Rescoring},
    window::{FinalBy, GroupBy, Recovered, WindowConfig},
};

use crate::{
    made::{LENGTH_MS, Random, line},
    scores::{TRAINING, model},
};

const CONFIG: WindowConfig = WindowConfig {
    length_ms: LENGTH_MS,
    lateness_ms: 2_000,
    group_by: GroupBy::Partition,
};
/// Lines come so long after the start of their window that the one before is final.
const WITHIN_MS: i64 = 10_000;

fn start(number: i64) -> EventTime {
    EventTime::from_millis((TRAINING + number) * LENGTH_MS).unwrap()
}

fn shared() -> Shared {
    Shared::new(Detector::new(model(), 1.0, 1)).unwrap()
}

/// A partition, and what its records have made final.
struct Partition {
    pipeline: PartitionPipeline,
    shared: Shared,
    random: Random,
    offset: i64,
    rows: Vec<ScoredWindow>,
}

impl Partition {
    fn new() -> Self {
        let partition = TopicPartition {
            topic: "made".into(),
            partition: 0,
        };
        Self {
            pipeline: PartitionPipeline::new(CONFIG, partition, Recovered::default(), Vec::new()),
            shared: shared(),
            random: Random::new(17),
            offset: 0,
            rows: Vec::new(),
        }
    }

    /// Writes so many usual lines into window `number`.
    fn write(&mut self, number: i64, count: u32) {
        let mut steps = Vec::new();
        for _ in 0..count {
            let (level, service, message) = line(&mut self.random);
            let event = LogEvent {
                time: start(number).saturating_add(WITHIN_MS),
                level,
                service: Cow::Borrowed(service),
                message: Cow::Borrowed(&message),
                label: None,
            };
            let (pipeline, shared) = (&mut self.pipeline, &mut self.shared);
            pipeline.event(shared, &event, self.offset, &mut steps);
            self.offset += 1;
        }
        self.rows
            .extend(steps.into_iter().filter_map(|step| match step {
                Step::Closed(scored) => Some(scored),
                _ => None,
            }));
    }

    /// What the clock tells of once it has passed window `number`.
    fn told_by(&mut self, number: i64) -> Vec<ScoredWindow> {
        let time = start(number + 1);
        self.pipeline
            .score_silence(&mut self.shared, time, |_| false)
    }

    /// The silences that the records tell of.
    fn silences(&self) -> Vec<&ScoredWindow> {
        let told =
            |it: &&ScoredWindow| it.verdict.is_anomaly && it.alarm_kind() == AlarmKind::Silence;
        self.rows.iter().filter(told).collect()
    }
}

#[test]
fn the_clock_and_the_records_tell_of_a_silence_by_the_same_row() {
    let mut partition = Partition::new();
    (0..30).for_each(|number| partition.write(number, 60));
    assert!(partition.told_by(29).is_empty(), "nothing is missing yet");
    let told = partition.told_by(120);
    let [told] = &told[..] else {
        panic!("{} silences", told.len());
    };
    assert!(told.verdict.is_anomaly && told.window.final_by == FinalBy::Open);
    assert!(told.window.bounds.start <= start(32), "{:?}", told.window);

    // What `evidence` does: from the state that the row before it carries, which is open.
    let open = partition.pipeline.score_open(&mut partition.shared);
    let before = open.last().unwrap();
    assert_eq!(told.window.previous, Some(before.window.bounds));
    let of = Provenance {
        stream: told.window.stream.clone(),
        bounds: told.window.bounds,
        span: told.window.span,
        max_event_time_before: told.window.max_event_time_before,
        lateness_ms: told.window.lateness_ms,
        state: Some((before.window.progress, before.baseline.clone())),
        open: true,
        early: false,
    };
    let mut fresh = shared();
    let again = Rescoring::new(of, &mut fresh).finish().unwrap();
    assert_eq!(again.verdict, told.verdict);
    assert_eq!(again.explanation, told.explanation);
    assert_eq!(again.features, told.features);

    // However long it lasted, it is told of once, in the place of the clock's row.
    (120..123).for_each(|number| partition.write(number, 60));
    let [row] = partition.silences()[..] else {
        panic!("{} silences", partition.silences().len());
    };
    assert_eq!(row.window.bounds, told.window.bounds);
    assert_eq!(row.window.progress, told.window.progress);
    assert_eq!(row.verdict, told.verdict);
    assert_eq!(row.explanation, told.explanation);
    assert_eq!(row.baseline, told.baseline);
}

#[test]
fn a_silence_longer_than_a_gap_is_listed_is_told_of_in_time_and_by_the_gap_row() {
    let mut partition = Partition::new();
    // Eight empty windows on end are its habit, so that ten are no news.
    (0..40).for_each(|number| partition.write(9 * number, 3));
    let last = 9 * 39;
    for passed in [5, 11] {
        let told = partition.told_by(last + passed);
        assert!(told.is_empty(), "told of after {passed} windows");
    }
    let told = partition.told_by(last + 190);
    let [told] = &told[..] else {
        panic!("{} silences", told.len());
    };
    let bounds = told.window.bounds;
    assert!(bounds.start > start(last + 10) && bounds.end <= start(last + 121));
    (200..203).for_each(|number| partition.write(last + number, 3));
    let [row] = partition.silences()[..] else {
        panic!("{} silences", partition.silences().len());
    };
    assert!(row.window.gap, "{:?}", row.window);
    assert_eq!(row.window.bounds.end, start(last + 200));
}

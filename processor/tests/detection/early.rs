//! Alarms of windows that are not full yet: how soon they come, what they may rest on, and that looking
//! closely costs nothing in what is found.

use std::{borrow::Cow, sync::Arc};

use logguard::{
    decode::Template,
    event::{EventTime, Level, LogEvent, NextOffset, TopicPartition},
    model::{Baseline, Decision, Detector, Mute, Mutes, Pattern, ScoredWindow},
    pipeline::{PartitionPipeline, Shared, Step},
    window::{GroupBy, Recovered, WindowConfig},
};

use crate::{
    made::{LENGTH_MS, Line, Maker, Random, line, lines},
    scores::{TRAINING, model, windows},
};

const CONFIG: WindowConfig = WindowConfig {
    length_ms: LENGTH_MS,
    lateness_ms: 2_000,
    group_by: GroupBy::Partition,
};
/// Windows before the first burst: the stream is not cold any more.
const WARM: i64 = 25;
/// Windows from one burst to the next.
const APART: i64 = 5;
/// Normal lines are this far apart on average, in milliseconds.
const SPACING_MS: u32 = 500;
const WORDS: [&str; 8] = [
    "replica", "quorum", "ledger", "socket", "journal", "tenant", "shard", "cursor",
];

/// A line and when it was written.
type Timed = (i64, Line);

/// The lines of a burst, a few a second, each kind in turn; the third is an error that also comes on
/// normal days.
fn burst(number: usize, random: &mut Random) -> Vec<Line> {
    let word = |place: usize| WORDS[place % WORDS.len()];
    let fresh = format!("{} {} lost its lease", word(number), word(number / 8 + 3));
    let count = 30 + random.below(30);
    let one = |_| match number % 3 {
        0 => (Level::Error, "order-service", fresh.clone()),
        1 => (
            Level::Warn,
            "user-service",
            format!("retry of {} {} gives up", word(number), word(number / 8)),
        ),
        _ => (
            Level::Fatal,
            "payment-service",
            "Unhandled exception in request handler - TypeError".to_owned(),
        ),
    };
    (0..count).map(one).collect()
}

/// A stream with `bursts` bursts that begin anywhere in their windows, and when each began.
fn stream(seed: u64, bursts: usize) -> (Vec<Timed>, Vec<i64>) {
    let mut random = Random::new(seed);
    let from = TRAINING * LENGTH_MS;
    let windows = WARM + APART * i64::try_from(bursts).unwrap();
    let (mut stream, mut began) = (Vec::new(), Vec::new());
    let mut at = from;
    while at < from + windows * LENGTH_MS {
        stream.push((at, line(&mut random)));
        at += i64::from(random.below(2 * SPACING_MS));
    }
    for number in 0..bursts {
        let window = WARM + APART * i64::try_from(number).unwrap();
        let mut at = from + window * LENGTH_MS + i64::from(random.below(30_000));
        began.push(at);
        for line in burst(number, &mut random) {
            stream.push((at, line));
            at += i64::from(random.below(200));
        }
    }
    stream.sort_by_key(|timed| timed.0);
    (stream, began)
}

/// An alarm, and the event time of the record that brought it.
struct Raised {
    at: i64,
    scored: ScoredWindow,
}

struct Run {
    /// In the order they came, each window's once.
    alarms: Vec<Raised>,
    rows: Vec<ScoredWindow>,
}

fn run(shared: &mut Shared, stream: &[Timed]) -> Run {
    let partition = TopicPartition {
        topic: "made".into(),
        partition: 0,
    };
    let mut pipeline = PartitionPipeline::new(CONFIG, partition, Recovered::default(), Vec::new());
    let mut steps = Vec::new();
    let (mut alarms, mut rows): (Vec<Raised>, Vec<ScoredWindow>) = (Vec::new(), Vec::new());
    for (offset, (at, (level, service, message))) in (0..).zip(stream) {
        let event = LogEvent {
            time: EventTime::from_millis(*at).unwrap(),
            level: *level,
            service: Cow::Borrowed(service),
            message: Cow::Borrowed(message),
            label: None,
        };
        pipeline.event(shared, &event, offset, &mut steps);
        for step in steps.drain(..) {
            match step {
                Step::Early(scored) => alarms.push(Raised { at: *at, scored }),
                Step::Closed(scored) => {
                    if scored.verdict.is_anomaly && scored.early.is_none() {
                        let scored = scored.clone();
                        alarms.push(Raised { at: *at, scored });
                    }
                    rows.push(scored);
                }
                _ => {}
            }
        }
    }
    Run { alarms, rows }
}

fn shared(early_alarms: bool) -> Shared {
    let mut shared = Shared::new(Detector::new(model(), 1.0, 1)).unwrap();
    shared.set_early_alarms(early_alarms);
    shared
}

/// Event time from the first line of each burst to the first alarm after it, in order.
fn latencies_ms(run: &Run, began: &[i64]) -> Vec<i64> {
    let latency = |began: &i64| {
        let first = run.alarms.iter().find(|alarm| alarm.at >= *began);
        first.map_or(i64::MAX, |alarm| alarm.at - began)
    };
    let mut latencies: Vec<_> = began.iter().map(latency).collect();
    latencies.sort_unstable();
    latencies
}

fn p95(sorted: &[i64]) -> i64 {
    sorted[sorted.len() * 95 / 100]
}

#[test]
fn a_burst_is_told_of_within_three_seconds() {
    for seed in [3, 4] {
        let (stream, began) = stream(seed, 48);
        let (on, off) = (
            run(&mut shared(true), &stream),
            run(&mut shared(false), &stream),
        );
        let (soon, late) = (latencies_ms(&on, &began), latencies_ms(&off, &began));
        assert!(p95(&soon) <= 3_000, "{soon:?}");
        assert!(p95(&late) <= 33_000 && p95(&late) > 20_000, "{late:?}");
        assert!(off.alarms.iter().all(|alarm| alarm.scored.early.is_none()));
        // What is found is the same, but for windows at the edge of a burst.
        let found = |run: &Run| run.rows.iter().filter(|row| row.verdict.is_anomaly).count();
        assert!(
            found(&on).abs_diff(found(&off)) <= 2,
            "{} {}",
            found(&on),
            found(&off)
        );
    }
}

#[test]
fn an_early_alarm_is_raised_once_and_stands_in_its_row() {
    let (stream, _) = stream(5, 24);
    let run = run(&mut shared(true), &stream);
    let key = |scored: &ScoredWindow| (scored.window.stream.clone(), scored.window.bounds);
    let mut raised: Vec<_> = run.alarms.iter().map(|alarm| key(&alarm.scored)).collect();
    let early = run
        .alarms
        .iter()
        .filter(|it| it.scored.early.is_some())
        .count();
    assert!(early >= 20, "{early}");
    let mut anomalous: Vec<_> = run
        .rows
        .iter()
        .filter(|it| it.verdict.is_anomaly)
        .map(key)
        .collect();
    raised.sort_by_key(|key| key.1);
    anomalous.sort_by_key(|key| key.1);
    assert_eq!(raised, anomalous);
    for alarm in &run.alarms {
        let Some(early) = &alarm.scored.early else {
            continue;
        };
        let row = run
            .rows
            .iter()
            .find(|row| key(row) == key(&alarm.scored))
            .unwrap();
        assert_eq!(row.early.as_ref(), Some(early));
        assert!(row.verdict.severity >= early.severity);
        assert!(row.window.content.lines() >= early.log_count);
        assert_eq!(early.at.as_millis(), alarm.at);
        assert!(!early.explanation.reasons.is_empty() && !early.explanation.pattern.is_empty());
    }
}

#[test]
fn normal_time_raises_no_more_alarms() {
    let (stream, _) = stream(6, 0);
    let mut random = Random::new(7);
    let mut longer: Vec<Timed> = stream;
    let mut at = longer.last().unwrap().0;
    for _ in 0..40_000 {
        at += i64::from(random.below(2 * SPACING_MS));
        longer.push((at, line(&mut random)));
    }
    let run = run(&mut shared(true), &longer);
    assert!(run.alarms.len() <= 1, "{}", run.alarms.len());
}

#[test]
fn few_lines_and_silence_raise_nothing_early() {
    let (mut stream, _) = stream(8, 20);
    let from = TRAINING * LENGTH_MS;
    // From some time on hardly anything comes; what does come is usual.
    stream.retain(|(at, _)| *at < from + WARM * LENGTH_MS);
    let mut random = Random::new(9);
    stream.extend((0..30).map(|n| (from + WARM * LENGTH_MS + n * 4_000, line(&mut random))));
    let run = run(&mut shared(true), &stream);
    let early: Vec<_> = run
        .alarms
        .iter()
        .filter(|it| it.scored.early.is_some())
        .collect();
    assert!(early.is_empty(), "{}", early.len());
    assert!(
        !run.alarms.is_empty(),
        "that there is so little is news at the end of the window"
    );
}

#[test]
fn a_mute_holds_for_early_alarms() {
    let (mut stream, began) = stream(5, 1);
    // So few that their number is no reason by itself.
    let mut left = 8;
    stream.retain(|(_, (_, _, message))| {
        let unusual = message.contains("lost its lease");
        left -= i32::from(unusual);
        !unusual || left >= 0
    });
    let first = run(&mut shared(true), &stream);
    let alarm = first
        .alarms
        .iter()
        .find(|alarm| alarm.at >= began[0])
        .unwrap();
    let early = alarm.scored.early.as_ref().unwrap();
    let mute = |(id, pattern): (i64, &Pattern)| Mute {
        id,
        stream: alarm.scored.window.stream.to_string(),
        pattern: pattern.clone(),
        active_from: EventTime::default(),
        expires_at: EventTime::from_millis(i64::from(u32::MAX) * 1_000).unwrap(),
    };
    let mut muted = shared(true);
    muted.set_mutes(Arc::new(Mutes::new(
        (1..).zip(&early.explanation.pattern).map(mute),
    )));
    let again = run(&mut muted, &stream);
    let bounds = alarm.scored.window.bounds;
    assert!(
        again
            .alarms
            .iter()
            .all(|it| it.scored.window.bounds != bounds)
    );
    let row = again
        .rows
        .iter()
        .find(|row| row.window.bounds == bounds)
        .unwrap();
    assert!(row.verdict.muted && row.early.is_none());
}

/// Baseline after so many normal windows, a model, and the number of the next window.
fn warm(rate: u32) -> (Detector, Baseline, i64) {
    let (mut detector, mut baseline) = (Detector::new(model(), 1.0, 1), Baseline::default());
    for window in windows(WARM, rate, |_, _, _| ()) {
        detector.score(window, &mut baseline);
    }
    (detector, baseline, TRAINING + WARM)
}

#[test]
fn what_is_passed_over_would_have_raised_nothing() {
    let (mut in_vain, mut raised) = (0, 0);
    for rate in [5, 60, 600] {
        let (mut detector, baseline, number) = warm(rate);
        let (mut maker, mut random) = (Maker::new(), Random::new(u64::from(rate)));
        for nth in 0..40 {
            let mut part = lines(&mut random, rate);
            // Every other window has some lines more than usual, or unusual ones.
            if nth % 2 == 0 {
                let more = burst(nth, &mut random);
                part.extend(more.into_iter().take(nth / 3));
            }
            let window = maker.window(number, &part);
            let start = window.bounds.start;
            let mut fresh = detector.watch(&window.stream, &baseline, start);
            let looks = detector.look(&mut fresh, (&window.content, start), &baseline);
            let alarm = detector.judge_early(window, &baseline, (start, NextOffset(1)));
            assert!(looks || alarm.is_none(), "{rate} {nth}");
            // Of the usual windows hardly any are worth a judgement.
            in_vain += u32::from(looks && alarm.is_none() && nth % 2 == 1);
            raised += u32::from(alarm.is_some());
        }
    }
    assert!(raised >= 20 && in_vain <= 6, "{in_vain} {raised}");
}

#[test]
fn a_template_forgotten_by_hand_is_new_from_the_first_look_on() {
    const NEW: &str = "Data corruption detected in table orders";
    let (mut detector, mut baseline, number) = warm(60);
    let template = Template::new(NEW).hash;
    let decision = |(id, adopt, from): (i64, bool, i64)| Decision {
        id,
        stream: "made/0".to_owned(),
        template,
        adopt,
        active_from: EventTime::from_millis(from * LENGTH_MS).unwrap(),
    };
    let decisions = [(1, true, number), (2, false, number + 2)].map(decision);
    detector.set_mutes(Arc::new(Mutes::default().with_decisions(decisions)));
    let (mut maker, mut random) = (Maker::new(), Random::new(12));
    let mut with_new = |number: i64| {
        let mut of = lines(&mut random, 60);
        of.extend(vec![(Level::Info, "order-service", NEW.to_owned()); 6]);
        maker.window(number, &of)
    };
    for known in [number, number + 1] {
        detector.score(with_new(known), &mut baseline);
    }
    let mut templates = baseline.templates().into_iter();
    assert!(templates.any(|it| it.template == template && it.adopted.is_some()));

    let window = with_new(number + 2);
    let start = window.bounds.start;
    let mut watch = detector.watch(&window.stream, &baseline, start);
    let looks = detector.look(&mut watch, (&window.content, start), &baseline);
    let alarm = detector.judge_early(window, &baseline, (start, NextOffset(1)));
    assert!(alarm.is_some(), "new again");
    assert!(looks, "what is passed over raises nothing");
}

#[test]
fn an_early_alarm_counts_as_the_final_one_does() {
    let (mut detector, baseline, number) = warm(60);
    let mut maker = Maker::new();
    let mut random = Random::new(11);
    let part = maker.window(number, &burst(0, &mut random));
    let at = (part.bounds.start, NextOffset(40));
    let early = detector.judge_early(part, &baseline, at).unwrap().early;
    // The window turns out to be a usual one.
    let full = maker.window(number, &lines(&mut random, 90));
    let mut plain_after = baseline.clone();
    let plain = detector.score(full.clone(), &mut plain_after);
    let mut after = baseline.clone();
    let stands = detector.score_after(full, &mut after, early.clone());
    assert!(!plain.verdict.is_anomaly && stands.verdict.is_anomaly);
    assert_eq!(
        Some(stands.verdict.severity),
        early.map(|early| early.severity)
    );
    assert_eq!(stands.features, plain.features);
    // Its volume is frozen, as an anomaly's is.
    assert_eq!(
        after.usual_lines().to_bits(),
        baseline.usual_lines().to_bits()
    );
    assert!((plain_after.usual_lines() - baseline.usual_lines()).abs() > 0.01);
}

//! Each stage by itself, on the simulator's lines: what one event costs where.
//!
//! `cargo bench -p logguard-bench --bench stages`

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark"
)]

use std::{hint::black_box, num::NonZeroUsize, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use logguard::{
    decode::{Masker, TemplateDictionary, decode},
    event::{LogEvent, TopicPartition},
    model::{Baseline, Bundle, Detector, Trainer},
    pipeline::{Intake, Step},
    sink::alarm_file::format_alarm,
    window::{ClosedWindow, GroupBy, Recovered, WindowConfig, Windower},
};
use producer_sim::{
    generator::{Generator, Scenario, Settings},
    output::{Stamp, encode},
};

/// Events per sample.
const EVENTS: usize = 10_000;
const WINDOW: WindowConfig = WindowConfig {
    length_ms: 30_000,
    lateness_ms: 2_000,
    group_by: GroupBy::Partition,
};

fn payloads(count: usize, rate_per_s: f64) -> Vec<Vec<u8>> {
    let mut generator = Generator::new(Settings {
        seed: 7,
        rate_per_s,
        anomaly_prob: 0.005,
        start_us: 1_767_571_200_000_000,
        first_incident_after_us: None,
        scenario: Scenario::Standard,
    });
    let mut stamp = Stamp::default();
    let lines = (0..count).map(|_| {
        let mut line = Vec::new();
        encode::json(generator.advance(), &mut stamp, &mut line).unwrap();
        line
    });
    lines.collect()
}

fn events(payloads: &[Vec<u8>]) -> Vec<LogEvent<'_>> {
    let events = payloads
        .iter()
        .map(|line| decode(Some(line), None).unwrap());
    events.collect()
}

fn dictionary() -> TemplateDictionary {
    let masker = Masker::new(&Masker::default_rules()).unwrap();
    TemplateDictionary::new(masker, NonZeroUsize::new(200_000).unwrap())
}

fn partition() -> TopicPartition {
    TopicPartition {
        topic: "log-events".into(),
        partition: 0,
    }
}

fn closed(payloads: &[Vec<u8>]) -> Vec<ClosedWindow> {
    let mut intake = Intake::new(WINDOW, partition(), Recovered::default());
    let (mut dictionary, mut steps) = (dictionary(), Vec::new());
    for (offset, event) in (0..).zip(events(payloads)) {
        intake.event(&mut dictionary, &event, offset, &mut steps);
    }
    intake.end(&mut steps);
    let windows = steps.into_iter().filter_map(|step| match step {
        Step::Closed(window) => Some(window),
        _ => None,
    });
    windows.collect()
}

fn trained() -> Bundle {
    let mut trainer = Trainer::new(&Masker::default_rules(), WINDOW.length_ms).unwrap();
    for window in closed(&payloads(200_000, 5.0)) {
        trainer.add(&window);
    }
    trainer.finish(&mut |_| {}).unwrap()
}

fn per_event(criterion: &mut Criterion) {
    let payloads = payloads(EVENTS, 3_333.0);
    let events = events(&payloads);
    let mut group = criterion.benchmark_group("per_event");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            for payload in &payloads {
                black_box(decode(Some(payload), None).unwrap());
            }
        });
    });
    let masker = Masker::new(&Masker::default_rules()).unwrap();
    let mut masked = String::new();
    group.bench_function("mask", |bencher| {
        bencher.iter(|| {
            for event in &events {
                masked.clear();
                masker.mask_into(&event.message, &mut masked);
                black_box(&masked);
            }
        });
    });
    let mut dictionary = dictionary();
    group.bench_function("mask_and_look_up", |bencher| {
        bencher.iter(|| {
            for event in &events {
                black_box(dictionary.resolve(&event.message));
            }
        });
    });
    let templates: Vec<_> = events
        .iter()
        .map(|it| Arc::clone(dictionary.resolve(&it.message)))
        .collect();
    group.bench_function("window_add", |bencher| {
        bencher.iter_batched_ref(
            || Windower::new(WINDOW, partition(), Recovered::default()),
            |windower| {
                for (offset, (event, template)) in (0..).zip(events.iter().zip(&templates)) {
                    black_box(windower.add(event, template, offset));
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn per_window(criterion: &mut Criterion) {
    let bundle = Arc::new(trained());
    let mut group = criterion.benchmark_group("per_window");
    for lines in [5, 150, 100_000_u32] {
        let rate = f64::from(lines) / 30.0;
        let windows = closed(&payloads(lines as usize * 40, rate));
        let mut detector = Detector::new(Arc::clone(&bundle), 1.0, 1);
        let mut baseline = Baseline::default();
        for window in &windows {
            detector.score(window.clone(), &mut baseline);
        }
        let window = windows[windows.len() / 2].clone();
        group.bench_function(format!("features_and_score/{lines}"), |bencher| {
            bencher.iter_batched(
                || (window.clone(), baseline.clone()),
                |(window, mut baseline)| detector.score(window, &mut baseline),
                BatchSize::SmallInput,
            );
        });
        let scored = detector.score(window, &mut baseline);
        let now = chrono::DateTime::from_timestamp(1_767_571_200, 0).unwrap();
        group.bench_function(format!("alarm_format/{lines}"), |bencher| {
            bencher.iter(|| format_alarm(black_box(&scored), false, now));
        });
    }
    group.finish();
}

criterion_group!(stages, per_event, per_window);
criterion_main!(stages);

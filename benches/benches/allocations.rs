//! Heap allocations per event in the steady state: from a record's bytes to its place in a window,
//! through the same code that `run` drives.
//!
//! `cargo bench -p logguard-bench --bench allocations`

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark"
)]

use std::{alloc::System, sync::Arc};

use logguard::{
    decode::Masker,
    event::TopicPartition,
    model::{Detector, Trainer},
    pipeline::{Intake, PartitionPipeline, Shared, Step},
    source::RawRecord,
    window::{GroupBy, Recovered, WindowConfig},
};
use producer_sim::{
    generator::{Generator, Scenario, Settings},
    output::{Stamp, encode},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Lines a second of event time: 200,000 a minute.
const RATE_PER_S: f64 = 200_000.0 / 60.0;
/// Events counted: with those before them less than a window.
const EVENTS: usize = 40_000;
const WINDOW: WindowConfig = WindowConfig {
    length_ms: 30_000,
    lateness_ms: 2_000,
    group_by: GroupBy::Partition,
};

fn payloads(count: usize, rate_per_s: f64) -> Vec<Vec<u8>> {
    let mut generator = Generator::new(Settings {
        seed: 7,
        rate_per_s,
        anomaly_prob: 0.0,
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

fn partition() -> TopicPartition {
    TopicPartition {
        topic: "log-events".into(),
        partition: 0,
    }
}

fn record(offset: i64, payload: &[u8]) -> RawRecord<'_> {
    RawRecord {
        offset,
        record_time: None,
        payload: Some(payload),
    }
}

fn detector() -> Detector {
    let mut trainer = Trainer::new(&Masker::default_rules(), WINDOW.length_ms).unwrap();
    let mut intake = Intake::new(WINDOW, partition(), Recovered::default());
    let masker = Masker::new(&Masker::default_rules()).unwrap();
    let mut dictionary =
        logguard::decode::TemplateDictionary::new(masker, 1_000.try_into().unwrap());
    let mut steps = Vec::new();
    for (offset, payload) in (0..).zip(&payloads(200_000, 5.0)) {
        intake.record(&mut dictionary, record(offset, payload), &mut steps);
    }
    for step in steps {
        if let Step::Closed(window) = step {
            trainer.add(&window);
        }
    }
    Detector::new(Arc::new(trainer.finish(&mut |_| {}).unwrap()), 1.0, 1)
}

fn main() {
    let mut shared = Shared::new(detector()).unwrap();
    let mut pipeline =
        PartitionPipeline::new(WINDOW, partition(), Recovered::default(), Vec::new());
    let payloads = payloads(2 * EVENTS, RATE_PER_S);
    let mut steps = Vec::new();
    let mut feed = |payloads: &[Vec<u8>], first: i64| {
        for (offset, payload) in (first..).zip(payloads) {
            pipeline.record(&mut shared, record(offset, payload), &mut steps);
        }
    };
    feed(&payloads[..EVENTS], 0);
    let region = Region::new(HEAP);
    feed(&payloads[EVENTS..], EVENTS as i64);
    let change = region.change();
    let count = change.allocations + change.reallocations;
    println!(
        "{EVENTS} events after {EVENTS} others: {count} allocations ({:.5} an event), {} bytes",
        count as f64 / EVENTS as f64,
        change.bytes_allocated
    );
    // Templates and services met for the first time are all that is left.
    assert!(
        count * 100 < EVENTS,
        "{count} allocations for {EVENTS} events"
    );
}

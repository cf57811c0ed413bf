//! Log lines that go on coming while a test does its worst: a thread that writes what the
//! simulator's generator makes up, far faster than its time would pass, until it is told to stop.
//!
//! What is written depends on the seed alone; how much of it, on how long the test takes.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use producer_sim::{
    generator::{Generator, MICROS_PER_SECOND, Scenario, Settings},
    output::{Stamp, encode},
};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::events::START_S;

/// How often a slice of lines is written.
const SLICE: Duration = Duration::from_millis(50);
/// Far longer than the broker takes for anything: reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time by which lines are out of order at most and still not late: below the lateness of 2 s.
const JITTER_US: u64 = 1_900_000;
/// One line in this many comes far too late.
const STRAGGLERS: u64 = 400;
/// How late those are at most.
const STRAGGLER_US: u64 = 50_000_000;

/// What is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Of the generator, and of the disorder.
    pub(crate) seed: u64,
    /// Seconds from [`START_S`] to the first line.
    pub(crate) from_s: i64,
    /// Lines per second of event time.
    pub(crate) rate_per_s: f64,
    /// Chance that an incident begins within 30 s of event time.
    pub(crate) anomaly_prob: f64,
    /// Seconds of event time in a second of the clock.
    pub(crate) speed: u32,
    /// Lines come out of order, a few of them too late.
    pub(crate) disorder: bool,
}

impl Default for Load {
    /// Four windows a second and an incident every few of them, from the second day on.
    fn default() -> Self {
        Self {
            seed: 12,
            from_s: 86_400,
            rate_per_s: 10.0,
            anomaly_prob: 0.15,
            speed: 120,
            disorder: false,
        }
    }
}

/// Numbers that are the same for the same seed (splitmix64).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Draws a number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Draws a place in something that is so long.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }
}

/// Lines being written. Ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Flow {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flow {
    /// Begins to write to the partitions of a topic, line by line in turn.
    pub(crate) fn start(brokers: &str, topic: &str, partitions: Range<usize>, load: Load) -> Self {
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("broker.address.family", "v4")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .create()
            .unwrap();
        let mut writer = Writer {
            producer,
            topic: topic.to_owned(),
            lines: Lines::new(load, partitions),
            written: Arc::clone(&written),
        };
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || writer.run(load.speed, &stopping));
        Self {
            stop,
            written,
            thread: Some(thread),
        }
    }

    /// Returns how many lines were written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Ends it; returns how many lines the topic has got.
    pub(crate) fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.written()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A test that fails already has more to say than this.
            thread.join().ok();
        }
    }
}

/// The thread.
struct Writer {
    producer: BaseProducer,
    topic: String,
    lines: Lines,
    written: Arc<AtomicU64>,
}

impl Writer {
    fn run(&mut self, speed: u32, stop: &AtomicBool) {
        let started = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let elapsed = i64::try_from(started.elapsed().as_micros()).unwrap();
            self.write_until(elapsed * i64::from(speed));
            self.producer.poll(SLICE);
        }
        while let Some(line) = self.lines.remaining() {
            self.send(line);
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    fn write_until(&mut self, elapsed_us: i64) {
        while let Some(line) = self.lines.next_before(elapsed_us) {
            self.send(line);
        }
    }

    fn send(&self, (partition, line): (usize, Vec<u8>)) {
        let record = BaseRecord::<(), _>::to(&self.topic)
            .partition(i32::try_from(partition).unwrap())
            .payload(&line);
        // A full queue fails the test: it holds far more than a slice.
        self.producer
            .send(record)
            .map_err(|(error, _)| error)
            .unwrap();
        self.written.fetch_add(1, Ordering::Relaxed);
    }
}

/// The lines in the order they are written.
struct Lines {
    load: Load,
    partitions: Range<usize>,
    generator: Generator,
    stamp: Stamp,
    start_us: i64,
    made: u64,
    random: Random,
    /// Made and not yet due, by the time they are due and their number.
    waiting: BinaryHeap<Reverse<(i64, u64, Vec<u8>)>>,
    /// No line made from now on is due before.
    complete_to_us: i64,
}

impl Lines {
    fn new(load: Load, partitions: Range<usize>) -> Self {
        let start_us = (START_S + load.from_s) * MICROS_PER_SECOND;
        Self {
            generator: Generator::new(Settings {
                seed: load.seed,
                rate_per_s: load.rate_per_s,
                anomaly_prob: load.anomaly_prob,
                start_us,
                first_incident_after_us: None,
                scenario: Scenario::Standard,
            }),
            random: Random::new(load.seed),
            load,
            partitions,
            stamp: Stamp::default(),
            start_us,
            made: 0,
            waiting: BinaryHeap::new(),
            complete_to_us: 0,
        }
    }

    /// Returns the next line that is due by then, with its partition.
    fn next_before(&mut self, elapsed_us: i64) -> Option<(usize, Vec<u8>)> {
        while self.complete_to_us <= elapsed_us {
            self.make();
        }
        let due = self.waiting.peek().is_some_and(|it| it.0.0 < elapsed_us);
        due.then(|| self.remaining()).flatten()
    }

    /// Returns the next line of those made.
    fn remaining(&mut self) -> Option<(usize, Vec<u8>)> {
        let Reverse((_, number, line)) = self.waiting.pop()?;
        let place = usize::try_from(number).unwrap() % self.partitions.len();
        Some((self.partitions.start + place, line))
    }

    fn make(&mut self) {
        let delay_us = self.delay_us();
        let event = self.generator.advance();
        let mut line = Vec::new();
        encode::json(event, &mut self.stamp, &mut line).unwrap();
        self.complete_to_us = event.time_us - self.start_us;
        let due_us = self.complete_to_us + delay_us;
        self.waiting.push(Reverse((due_us, self.made, line)));
        self.made += 1;
    }

    fn delay_us(&mut self) -> i64 {
        if !self.load.disorder {
            return 0;
        }
        let range = match self.random.below(STRAGGLERS) {
            0 => STRAGGLER_US,
            _ => JITTER_US,
        };
        i64::try_from(self.random.below(range)).unwrap()
    }
}

//! Writes a topic in real time: the simulator's events as their time comes, as long as those of the
//! drain, with bursts of an unknown error line in between.
//!
//! Nothing is kept of an event once it is sent, so that a run may be as long as one likes.

use std::{
    collections::HashMap,
    io::Write,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;
use clap::Args;
use producer_sim::{
    generator::{Event, Generator, Scenario, Settings},
    output::{Stamp, encode},
};
use rdkafka::producer::BaseProducer;

use crate::{
    events::{self, LINE_BYTES},
    fill,
};

/// Windows and lateness of the processor, in milliseconds.
pub(crate) const WINDOW_MS: i64 = 30_000;
const LATENESS_MS: i64 = 2_000;
/// Lines of one burst, and the time from one to the next.
const BURST_LINES: i64 = 40;
const BURST_GAP_US: i64 = 100_000;
/// Records between two looks at what was acknowledged, if there is no time to wait.
const SERVE_EVERY: u64 = 1_024;

/// What is written: flags of `latency`.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Events a minute, over all partitions.
    #[arg(long, default_value_t = 200_000)]
    per_minute: u32,
    /// How long to write, in seconds.
    #[arg(long, default_value_t = 330)]
    seconds: u64,
    /// Partitions; each gives a row per window.
    #[arg(long, default_value_t = 12)]
    pub(crate) partitions: i32,
    /// Compression codec.
    #[arg(long, default_value = "none")]
    codec: String,
    /// Seconds from one burst of an unknown error line to the next; a burst takes four.
    #[arg(long, default_value_t = 47, value_parser = clap::value_parser!(u32).range(5..))]
    burst_every: u32,
}

impl Load {
    /// Returns the events a second that are asked for.
    pub(crate) fn rate_per_s(&self) -> f64 {
        f64::from(self.per_minute) / 60.0
    }
}

/// A row or an alarm: partition, and end of its window in milliseconds.
pub(crate) type Key = (i32, i64);
/// When each came first.
pub(crate) type Seen = HashMap<Key, Instant>;

/// What was written when.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// When a partition's watermark was sent past a window's end.
    pub(crate) passed: Seen,
    /// When the first line of the first burst in a window was sent.
    pub(crate) bursts: Seen,
    /// The simulator's events.
    pub(crate) events: u64,
    /// Events and lines of bursts.
    pub(crate) records: u64,
    /// From the beginning until the last record was acknowledged.
    pub(crate) seconds: f64,
    /// Age, at that time, of the first event that was not written any more.
    pub(crate) behind_s: f64,
}

/// Writes events as their time comes, dealt out to the partitions in turn, and calls `meanwhile`
/// before each. Ends by the clock, also if it is behind.
pub(crate) fn write(
    load: &Load,
    brokers: &str,
    topic: &str,
    mut meanwhile: impl FnMut() -> Result<()>,
) -> Result<Written> {
    let producer = fill::producer(brokers, &load.codec, 2)?;
    let (started, start_us) = (Instant::now(), now_us()?);
    let end_us = start_us + i64::try_from(load.seconds)? * 1_000_000;
    let mut generator = Generator::new(Settings {
        seed: 11,
        rate_per_s: load.rate_per_s(),
        anomaly_prob: 0.0,
        start_us,
        first_incident_after_us: None,
        scenario: Scenario::Standard,
    });
    let mut writer = Writer {
        load,
        topic,
        producer,
        start_us,
        burst_us: start_us + burst_every_us(load),
        stamp: Stamp::default(),
        line: Vec::new(),
        written: Written::default(),
    };
    loop {
        meanwhile()?;
        let event = generator.advance();
        if writer.wait_until(event.time_us)? > end_us {
            break;
        }
        writer.send_bursts(event.time_us)?;
        writer.send_event(event)?;
    }
    fill::flush(&writer.producer)?;
    let behind_us = now_us()? - generator.event().time_us;
    Ok(Written {
        seconds: started.elapsed().as_secs_f64(),
        behind_s: Duration::from_micros(behind_us.max(0).unsigned_abs()).as_secs_f64(),
        ..writer.written
    })
}

struct Writer<'a> {
    load: &'a Load,
    topic: &'a str,
    producer: BaseProducer,
    start_us: i64,
    /// When the next line of a burst is due.
    burst_us: i64,
    stamp: Stamp,
    line: Vec<u8>,
    written: Written,
}

impl Writer<'_> {
    /// Waits until `time_us`, serving the client meanwhile; returns what time it is.
    fn wait_until(&self, time_us: i64) -> Result<i64> {
        loop {
            let now_us = now_us()?;
            if time_us <= now_us {
                return Ok(now_us);
            }
            self.producer.poll(Duration::from_millis(1));
        }
    }

    fn send_event(&mut self, event: &Event) -> Result<()> {
        let partitions = u64::from(self.load.partitions.unsigned_abs().max(1));
        let partition = i32::try_from(self.written.events % partitions)?;
        self.line.clear();
        encode::json(event, &mut self.stamp, &mut self.line)?;
        self.note_passed(partition, event.time_us / 1_000);
        self.written.events += 1;
        self.send_line(partition)
    }

    /// Sends the lines of bursts that are due by `time_us`.
    fn send_bursts(&mut self, time_us: i64) -> Result<()> {
        let every_us = burst_every_us(self.load);
        while self.burst_us <= time_us {
            let since_us = self.burst_us - self.start_us;
            let (burst, at_us) = (since_us / every_us, since_us % every_us);
            let partition = i32::try_from(burst)? % self.load.partitions;
            if at_us == 0 {
                self.note_burst(partition, self.burst_us / 1_000);
            }
            self.send_burst_line(partition, burst)?;
            let last = at_us >= (BURST_LINES - 1) * BURST_GAP_US;
            self.burst_us = if last {
                self.start_us + (burst + 1) * every_us
            } else {
                self.burst_us + BURST_GAP_US
            };
        }
        Ok(())
    }

    /// Sends one line of a burst: of a kind that no model knows.
    fn send_burst_line(&mut self, partition: i32, burst: i64) -> Result<()> {
        let word: String = burst
            .to_string()
            .bytes()
            .map(|digit| char::from(digit - b'0' + b'k'))
            .collect();
        self.line.clear();
        write!(
            self.line,
            "{{\"timestamp\":\"{}\",\"level\":\"ERROR\",\"service\":\"order-service\",\
             \"message\":\"vortex {word} collapsed while quenching manifold\"}}",
            self.stamp.format(self.burst_us)
        )?;
        self.send_line(partition)
    }

    fn send_line(&mut self, partition: i32) -> Result<()> {
        events::pad(&mut self.line, LINE_BYTES);
        fill::send(&self.producer, self.topic, partition, &self.line)?;
        self.written.records += 1;
        if self.written.records.is_multiple_of(SERVE_EVERY) {
            self.producer.poll(Duration::ZERO);
        }
        Ok(())
    }

    /// Notes that an event passes a window's end; windows from before the beginning have no rows.
    fn note_passed(&mut self, partition: i32, event_ms: i64) {
        let end = (event_ms - LATENESS_MS).div_euclid(WINDOW_MS) * WINDOW_MS;
        if end > self.start_us / 1_000 {
            let passed = &mut self.written.passed;
            passed.entry((partition, end)).or_insert_with(Instant::now);
        }
    }

    fn note_burst(&mut self, partition: i32, event_ms: i64) {
        let end = (event_ms.div_euclid(WINDOW_MS) + 1) * WINDOW_MS;
        let bursts = &mut self.written.bursts;
        bursts.entry((partition, end)).or_insert_with(Instant::now);
    }
}

fn burst_every_us(load: &Load) -> i64 {
    i64::from(load.burst_every) * 1_000_000
}

fn now_us() -> Result<i64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(i64::try_from(now.as_micros())?)
}

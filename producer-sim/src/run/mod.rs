//! `producer-sim run`: events to Kafka, each when its time has come.
//!
//! One thread draws, encodes and hands over; librdkafka's own threads send. An event counts as
//! delivered when Kafka has acknowledged it, and the program says how many were not.

pub mod kafka;
mod pace;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use self::{
    kafka::{KafkaSettings, Producer},
    pace::Pace,
};
use crate::{
    clock::now_us,
    failure::Failure,
    generator::{Generator, Settings},
    output::{Stamp, encode, truth::TruthLog},
    stop::Stop,
};

/// Time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// Events between two looks at delivery reports and progress while there is no time to wait.
const HOUSEKEEPING_EVENTS: u64 = 256;
/// How long acknowledgements are waited for at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// What to produce where.
#[derive(Clone, Debug)]
pub struct Job {
    /// The events; `start_us` is set to the present time.
    pub settings: Settings,
    /// Where they go.
    pub kafka: KafkaSettings,
    /// Stop after this many events.
    pub events: Option<u64>,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// File of the ground truth.
    pub truth: Option<PathBuf>,
}

/// Produces until `stop` is raised or the job is done, then waits for the acknowledgements.
///
/// # Errors
///
/// If Kafka or the topic is not there, or events were not acknowledged; if the ground truth cannot
/// be written.
pub fn run(job: &Job, stop: &Stop) -> Result<(), Failure> {
    let truth = TruthLog::open(job.truth.as_deref())?;
    let producer = Producer::connect(&job.kafka)?;
    info!(
        brokers = job.kafka.brokers,
        topic = job.kafka.topic,
        rate = job.settings.rate_per_s,
        anomaly_prob = job.settings.anomaly_prob,
        seed = job.settings.seed,
        "producing"
    );
    let settings = Settings {
        start_us: now_us(),
        ..job.settings
    };
    let mut run = Run {
        job,
        stop,
        generator: Generator::new(settings),
        producer,
        truth,
        pace: Pace::default(),
        started: Instant::now(),
        sent: 0,
        reported: (Instant::now(), 0),
    };
    let ended = run.produce();
    run.close(ended)
}

/// Whether there is more to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Continue,
    Stop,
}

struct Run<'a> {
    job: &'a Job,
    stop: &'a Stop,
    generator: Generator,
    producer: Producer,
    truth: TruthLog,
    pace: Pace,
    started: Instant,
    sent: u64,
    /// When progress was last reported, and the events sent until then.
    reported: (Instant, u64),
}

impl Run<'_> {
    fn produce(&mut self) -> Result<(), Failure> {
        let mut stamp = Stamp::default();
        let mut line = Vec::new();
        while self.job.events.is_none_or(|events| self.sent < events) {
            let due_us = self.generator.advance().time_us;
            if self.wait_until(due_us) == Next::Stop {
                self.generator.retract();
                break;
            }
            let event = self.generator.event();
            line.clear();
            // Writing to memory does not fail.
            encode::json(event, &mut stamp, &mut line).unwrap_or_default();
            if !self.producer.send(&line, event.service, self.stop)? {
                self.generator.retract();
                break;
            }
            self.sent += 1;
            for incident in self.generator.drain_finished() {
                self.truth.write(&incident)?;
            }
        }
        Ok(())
    }

    /// Waits until the event at hand is due, serving delivery reports meanwhile.
    fn wait_until(&mut self, due_us: i64) -> Next {
        loop {
            let wait = self.pace.wait(now_us(), due_us);
            if wait.is_some() || self.sent.is_multiple_of(HOUSEKEEPING_EVENTS) {
                let stopped = self.stop.wait_timeout(wait.unwrap_or_default());
                self.producer.serve();
                self.report_progress();
                if stopped || self.is_over() {
                    return Next::Stop;
                }
            }
            if wait.is_none() {
                let behind_us = self.pace.take_delay();
                self.generator.delay(behind_us);
                return Next::Continue;
            }
        }
    }

    fn is_over(&self) -> bool {
        let duration = self.job.duration;
        duration.is_some_and(|duration| self.started.elapsed() >= duration)
    }

    fn report_progress(&mut self) {
        let (since, sent_before) = self.reported;
        let elapsed = since.elapsed();
        if elapsed < PROGRESS_INTERVAL {
            return;
        }
        self.reported = (Instant::now(), self.sent);
        let deliveries = self.producer.deliveries();
        info!(
            sent = self.sent,
            per_second = per_second(self.sent - sent_before, elapsed),
            delivered = deliveries.delivered,
            failed = deliveries.failed,
            incidents = self.truth.incidents(),
            "progress"
        );
        let skipped = self.pace.take_skipped();
        if !skipped.is_zero() {
            warn!(
                skipped_ms = skipped.as_millis(),
                "cannot keep up with --rate: the broker or this machine is too slow"
            );
        }
    }

    /// Waits for the acknowledgements, completes the ground truth and sums up.
    fn close(mut self, ended: Result<(), Failure>) -> Result<(), Failure> {
        let (produced_for, ended_us) = (self.started.elapsed(), now_us());
        let deliveries = self.producer.close(FLUSH_TIMEOUT);
        for incident in self.generator.finish(ended_us) {
            self.truth.write(&incident)?;
        }
        info!(
            sent = self.sent,
            per_second = per_second(self.sent, produced_for),
            delivered = deliveries.delivered,
            failed = self.sent - deliveries.delivered,
            incidents = self.truth.incidents(),
            seconds = produced_for.as_secs_f32(),
            "stopped"
        );
        ended?;
        if deliveries.delivered < self.sent {
            return Err(Failure::Undelivered {
                lost: self.sent - deliveries.delivered,
                sent: self.sent,
                reason: deliveries.last_error,
            });
        }
        Ok(())
    }
}

/// Returns events per second, to one decimal.
#[allow(clippy::cast_precision_loss, reason = "a rounded figure for people")]
fn per_second(events: u64, elapsed: Duration) -> f64 {
    (events as f64 / elapsed.as_secs_f64().max(1e-3) * 10.0).round() / 10.0
}

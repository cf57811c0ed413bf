//! The alarm file: what people `tail -f`.
//!
//! ```text
//! WindowJob ──bounded queue──► thread ──lock, read, one O_APPEND write per alarm, fdatasync──► Ack
//! ```
//!
//! An alarm is one write, samples included, and stands in a file once, even with several processes
//! that append to it and die at any moment. It is acknowledged when it is on disk; alarms are rare
//! enough for that. While the file cannot be written (disk full), alarms wait here, their offsets
//! in Kafka, and everything else goes on.
//!
//! The file may be a pipe or a device (`/dev/stderr`): then alarms are written and no more.

mod appender;
mod known;
mod line;
mod lock;
mod scan;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use serde::{Deserialize, Serialize};

use self::{
    appender::{AlarmText, Appender},
    line::alarm_key,
    scan::Scan,
};
use super::{
    SinkError, WindowJob,
    ack::{AckSender, StopFlag, window_ack},
    metrics::{SinkMeter, SinkMetrics},
    retry::Outage,
};
use crate::clock::Clock;

pub use line::format_alarm;
pub(crate) use line::printable;

/// Alarms that wait for the file before reading pauses.
pub const ALARMS_QUEUE_MAX: usize = 1_000;
/// Alarms appended under one lock and one flush.
const BATCH_MAX: usize = 64;
/// How long to wait for alarms; bounds how late a stop is noticed.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// Longest sleep between retries before looking at the stop flag again.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Settings of the alarm file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlarmFileConfig {
    /// The file alarms are appended to; its directory is created. Default: `logs/anomalies.log`.
    pub path: PathBuf,
}

impl Default for AlarmFileConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("logs/anomalies.log"),
        }
    }
}

/// Returns whether a window has an alarm for the file.
#[must_use]
pub fn has_alarm(job: &WindowJob) -> bool {
    job.scored.verdict.is_anomaly && job.alarm
}

/// Returns what identifies each alarm in the text of an alarm file, in file order: its window and
/// stream as they are written. The text comes in `chunks`, cut anywhere.
#[must_use]
pub fn alarm_keys<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut keys = Vec::new();
    let mut scan = Scan::new(0, false);
    for chunk in chunks {
        scan.feed(chunk, |key| keys.push(key.to_owned()));
    }
    keys
}

/// Asks the thread to open the file anew, as after a rotation.
#[derive(Clone, Debug, Default)]
pub struct Reopen(Arc<AtomicBool>);

impl Reopen {
    /// Makes the next alarm go to whatever stands at the path then.
    pub fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn taken(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// What the thread is made of.
pub(super) struct AlarmSetup<'a> {
    pub(super) path: &'a Path,
    pub(super) clock: Clock,
    pub(super) reopen: Reopen,
    pub(super) acks: AckSender,
    pub(super) stop: StopFlag,
    pub(super) metrics: &'a SinkMetrics,
}

/// Starts the thread; it ends when its queue is closed and everything is on disk, or when stopped.
pub(super) fn start(
    setup: AlarmSetup<'_>,
) -> Result<(Sender<WindowJob>, thread::JoinHandle<()>), SinkError> {
    let meter = setup.metrics.meter("alarm_file");
    let (sender, queue) = crossbeam_channel::bounded(ALARMS_QUEUE_MAX);
    let worker = Worker {
        queue,
        appender: Appender::new(setup.path, setup.metrics),
        path: setup.path.to_owned(),
        clock: setup.clock,
        reopen: setup.reopen,
        acks: setup.acks,
        stop: setup.stop,
        outage: Outage::new("alarm_file", meter.retries.clone(), meter.up.clone()),
        meter,
    };
    let thread = thread::Builder::new()
        .name("alarm_file".to_owned())
        .spawn(move || worker.run())
        .map_err(|source| SinkError::Thread {
            sink: "alarm_file",
            source,
        })?;
    Ok((sender, thread))
}

struct Worker {
    queue: Receiver<WindowJob>,
    appender: Appender,
    path: PathBuf,
    clock: Clock,
    reopen: Reopen,
    acks: AckSender,
    stop: StopFlag,
    outage: Outage,
    meter: SinkMeter,
}

impl Worker {
    fn run(mut self) {
        while !self.stop.is_set() {
            match self.queue.recv_timeout(IDLE_WAIT) {
                Ok(job) => {
                    let more = self.queue.try_iter().take(BATCH_MAX - 1);
                    let jobs: Vec<_> = [job].into_iter().chain(more).collect();
                    self.append_until_durable(&jobs);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn append_until_durable(&mut self, jobs: &[WindowJob]) {
        let now = self.clock.now();
        let alarms: Vec<_> = jobs
            .iter()
            .map(|job| AlarmText {
                key: alarm_key(&job.scored),
                text: format_alarm(&job.scored, job.stale, now),
            })
            .collect();
        while !self.stop.is_set() {
            if self.reopen.taken() {
                self.appender.close();
            }
            match self.appender.append(&alarms) {
                Ok(()) => {
                    self.outage.succeeded(Instant::now());
                    return self.acknowledge(jobs);
                }
                Err(error) => {
                    let path = self.path.display();
                    let error = format!("cannot append to `{path}`: {error}");
                    let wait = self.outage.failed(Instant::now(), &error);
                    self.sleep(wait);
                }
            }
        }
    }

    fn acknowledge(&self, jobs: &[WindowJob]) {
        for job in jobs {
            self.meter.delivered.inc();
            self.meter.pending.dec();
            self.acks.send(window_ack(job));
        }
    }

    fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.stop.is_set() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left.min(SLEEP_MAX));
        }
    }
}

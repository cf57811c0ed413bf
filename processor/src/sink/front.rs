//! The sinks as the pipeline sees them: hand over without waiting, close with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::{runtime::Handle, task::JoinHandle};
use tracing::error;

use super::{
    Ack, DeadLetter, WindowJob,
    ack::{AckSender, StopFlag},
    alarm_file::{self, AlarmFileConfig, AlarmSetup, Reopen, has_alarm},
    dead_letter::{self, DeadLetterConfig, LETTERS_QUEUE_MAX},
    metrics::{SinkMeter, SinkMetrics},
    producer::ProducerSetup,
    results::{self, RESULTS_QUEUE_MAX, ResultsConfig},
    store::{Store, StoreConfig, Writer, WriterQueue},
};
use crate::clock::Clock;

/// Acks that may wait for the consumer. It drains them at least every second, so more room only
/// lets sinks run on; with less they wait for it.
pub const ACKS_QUEUE_MAX: usize = 8_192;
/// How often a closing sink is looked at.
const CLOSE_POLL: Duration = Duration::from_millis(10);
/// What a sink gets to notice that the deadline has passed.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Settings of every sink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SinksConfig {
    /// The store.
    pub store: StoreConfig,
    /// The results topic.
    pub results: ResultsConfig,
    /// The alarm file.
    pub alarm_file: AlarmFileConfig,
    /// The dead-letter topic.
    pub dead_letter: DeadLetterConfig,
}

/// What the sinks are started with.
#[derive(Debug)]
pub struct SinksSetup<'a> {
    /// Their settings.
    pub config: &'a SinksConfig,
    /// The store, or `None` to run without one.
    pub store: Option<Store>,
    /// How Kafka is reached (brokers, security, `client.id`); what durability rests on is set here.
    pub kafka: &'a ClientConfig,
    /// Stamps alarm lines.
    pub clock: Clock,
    /// Where acks go: a bounded channel, see [`ACKS_QUEUE_MAX`]. To be drained until
    /// [`Sinks::close`] returns.
    pub acks: Sender<Ack>,
    /// What the sinks count.
    pub metrics: SinkMetrics,
    /// Where the store's writer runs.
    pub runtime: Handle,
}

/// A sink could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The Kafka client refuses its settings.
    #[error("cannot create the Kafka producer of sink `{sink}`; check the Kafka settings")]
    Producer {
        /// The sink.
        sink: &'static str,
        /// Why.
        source: rdkafka::error::KafkaError,
    },
    /// The operating system gives no thread.
    #[error("cannot start the thread of sink `{sink}`")]
    Thread {
        /// The sink.
        sink: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// What was left when the sinks were closed: windows and letters not acknowledged. None of it is
/// lost: its offsets are not committed, so it comes again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloseReport {
    /// Rows.
    pub rows: i64,
    /// Result messages.
    pub results: i64,
    /// Alarms.
    pub alarms: i64,
    /// Dead letters.
    pub letters: i64,
}

impl CloseReport {
    /// Returns whether everything was written.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        *self == Self::default()
    }
}

/// The running sinks. Belongs to one thread, the only one that hands work over.
#[derive(Debug)]
pub struct Sinks {
    rows: Option<(WriterQueue, JoinHandle<()>)>,
    results: Worker<WindowJob>,
    alarms: Worker<WindowJob>,
    letters: Worker<DeadLetter>,
    rows_meter: SinkMeter,
    stop: StopFlag,
    reopen: Reopen,
}

/// A sink on a thread of its own.
#[derive(Debug)]
struct Worker<T> {
    queue: Sender<T>,
    thread: thread::JoinHandle<()>,
    meter: SinkMeter,
}

impl<T> Worker<T> {
    fn has_room(&self) -> bool {
        !self.queue.is_full() && !self.thread.is_finished()
    }
}

impl Sinks {
    /// Starts every sink.
    ///
    /// # Errors
    /// A Kafka setting is refused, or there is no thread to be had.
    pub fn start(setup: SinksSetup<'_>) -> Result<Self, SinkError> {
        let (stop, reopen, metrics) = (StopFlag::default(), Reopen::default(), &setup.metrics);
        let acks = AckSender::new(setup.acks, stop.clone());
        let producer = |sink, topic, queue_max| ProducerSetup {
            kafka: setup.kafka,
            topic,
            queue_max,
            acks: acks.clone(),
            stop: stop.clone(),
            meter: metrics.meter(sink),
        };
        let config = setup.config;
        let results = results::start(producer(
            "results",
            &config.results.topic,
            RESULTS_QUEUE_MAX,
        ))?;
        let letters = dead_letter::start(
            producer("dead_letter", &config.dead_letter.topic, LETTERS_QUEUE_MAX),
            &config.dead_letter,
            metrics,
        )?;
        let alarms = alarm_file::start(AlarmSetup {
            path: &config.alarm_file.path,
            clock: setup.clock,
            reopen: reopen.clone(),
            acks: acks.clone(),
            stop: stop.clone(),
            metrics,
        })?;
        let rows = setup.store.map(|store| {
            let (writer, queue) = Writer::new(store, acks.clone(), stop.clone(), metrics);
            (queue, setup.runtime.spawn(writer.run()))
        });
        let worker = |(queue, thread), sink| Worker {
            queue,
            thread,
            meter: metrics.meter(sink),
        };
        Ok(Self {
            rows,
            results: worker(results, "results"),
            alarms: worker(alarms, "alarm_file"),
            letters: Worker {
                queue: letters.0,
                thread: letters.1,
                meter: metrics.meter("dead_letter"),
            },
            rows_meter: metrics.meter("store"),
            stop,
            reopen,
        })
    }

    /// Returns how many [`Ack::Window`] the window needs to be durable everywhere: one for the row
    /// (with a store), one for the result message, one for the alarm if it has one.
    #[must_use]
    pub fn acks_per_window(&self, job: &WindowJob) -> u32 {
        u32::from(self.rows.is_some()) + 1 + u32::from(has_alarm(job))
    }

    /// Hands a window to every sink it concerns, or to none: with a full queue it comes back, to be
    /// offered again. Never blocks.
    ///
    /// # Errors
    /// Returns the window while any of its sinks has no room (or has died, see
    /// [`Self::dead_sink`]).
    #[allow(
        clippy::result_large_err,
        reason = "the job is handed back, not reported"
    )]
    pub fn try_submit(&mut self, job: WindowJob) -> Result<(), WindowJob> {
        let alarm = has_alarm(&job);
        let rows_room = self
            .rows
            .as_ref()
            .is_none_or(|(queue, _)| queue.capacity() > 0 && !queue.is_closed());
        if !rows_room || !self.results.has_room() || (alarm && !self.alarms.has_room()) {
            return Err(job);
        }
        // Only this thread fills the queues (`&mut self`), so the room is still there.
        if let Some((queue, _)) = &self.rows
            && queue.try_send(job.clone()).is_ok()
        {
            self.rows_meter.pending.inc();
        }
        if alarm && self.alarms.queue.try_send(job.clone()).is_ok() {
            self.alarms.meter.pending.inc();
        }
        if self.results.queue.try_send(job).is_ok() {
            self.results.meter.pending.inc();
        }
        Ok(())
    }

    /// Hands over a dead letter; it needs one [`Ack::Letter`]. Never blocks.
    ///
    /// # Errors
    /// Returns the letter while the queue is full.
    #[allow(
        clippy::result_large_err,
        reason = "the letter is handed back, not reported"
    )]
    pub fn try_submit_letter(&mut self, letter: DeadLetter) -> Result<(), DeadLetter> {
        self.letters
            .queue
            .try_send(letter)
            .map_err(crossbeam_channel::TrySendError::into_inner)?;
        self.letters.meter.pending.inc();
        Ok(())
    }

    /// Returns the handle that makes the alarm file be opened anew, for SIGHUP.
    #[must_use]
    pub fn reopen(&self) -> Reopen {
        self.reopen.clone()
    }

    /// Returns a sink that ended although it should run: a defect, after which the process should
    /// end as well.
    #[must_use]
    pub fn dead_sink(&self) -> Option<&'static str> {
        let rows_dead = self
            .rows
            .as_ref()
            .is_some_and(|(_, task)| task.is_finished());
        [
            ("store", rows_dead),
            ("results", self.results.thread.is_finished()),
            ("alarm_file", self.alarms.thread.is_finished()),
            ("dead_letter", self.letters.thread.is_finished()),
        ]
        .into_iter()
        .find_map(|(sink, dead)| dead.then_some(sink))
    }

    /// Takes no more work, waits until all of it is durable or the deadline has passed, and ends
    /// the sinks. The ack channel has to be drained meanwhile, by another thread.
    pub async fn close(self, deadline: Instant) -> CloseReport {
        let pending = [
            self.rows_meter.pending,
            self.results.meter.pending,
            self.alarms.meter.pending,
            self.letters.meter.pending,
        ];
        drop((self.results.queue, self.alarms.queue, self.letters.queue));
        let threads = [self.results.thread, self.alarms.thread, self.letters.thread];
        let task = self.rows.map(|(queue, task)| {
            drop(queue);
            task
        });
        let ended = || {
            threads.iter().all(thread::JoinHandle::is_finished)
                && task.as_ref().is_none_or(JoinHandle::is_finished)
        };
        while !ended() && Instant::now() < deadline {
            tokio::time::sleep(CLOSE_POLL).await;
        }
        self.stop.set();
        let grace = Instant::now() + STOP_GRACE;
        while !ended() && Instant::now() < grace {
            tokio::time::sleep(CLOSE_POLL).await;
        }
        if let Some(task) = &task {
            task.abort();
        }
        if !threads.iter().all(thread::JoinHandle::is_finished) {
            error!("a sink does not stop; leaving it behind");
        }
        let [rows, results, alarms, letters] = pending.map(|gauge| gauge.get());
        CloseReport {
            rows,
            results,
            alarms,
            letters,
        }
    }
}

//! The sinks as the pipeline sees them: hand over without waiting, close with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use prometheus_client::metrics::gauge::Gauge;
use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::{runtime::Handle, task::JoinHandle};
use tracing::error;

use super::{
    Ack, DeadLetter, DeployJob, WindowJob,
    ack::{AckSender, StopFlag},
    alarm_file::{self, AlarmFileConfig, AlarmSetup, Reopen, has_alarm},
    dead_letter::{self, DeadLetterConfig, LETTERS_QUEUE_MAX},
    deploys::{DeployQueue, DeployWriter},
    health_notes::{NoteWriter, Round},
    metrics::{SinkMeter, SinkMetrics},
    producer::ProducerSetup,
    results::{self, RESULTS_QUEUE_MAX, ResultsConfig},
    store::{PartitionHealth, RawLines, Store, StoreConfig, Writer, WriterQueue},
};
use crate::{
    clock::Clock,
    event::EventTime,
    redact::{RedactError, RedactionConfig, Redactor},
};

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
    /// What is masked in dead letters.
    pub redaction: RedactionConfig,
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
    /// [`RunningSinks::close`] returns.
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
    /// A redaction rule cannot be used.
    #[error(transparent)]
    Redact(#[from] RedactError),
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
    /// Deploys.
    pub deploys: i64,
}

impl CloseReport {
    /// Returns whether everything was written.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        *self == Self::default()
    }
}

/// Where the pipeline hands work over. Belongs to one thread, the only one that does; dropping it
/// tells the sinks that no more will come.
#[derive(Debug)]
pub struct Sinks {
    rows: Option<(WriterQueue, SinkMeter)>,
    beside: Option<BesideRows>,
    results: Queue<WindowJob>,
    alarms: Queue<WindowJob>,
    letters: Queue<DeadLetter>,
    dropped: StopFlag,
}

impl Drop for Sinks {
    fn drop(&mut self) {
        // Before the queues close: a sink that ends after this does so because it should.
        self.dropped.set();
    }
}

/// What the store takes besides rows.
#[derive(Debug)]
struct BesideRows {
    deploys: DeployQueue,
    deploys_meter: SinkMeter,
    notes: tokio::sync::mpsc::Sender<Round>,
    raw_lines: Option<RawLines>,
}

/// A sink's queue, and the count of what is in it.
#[derive(Debug)]
struct Queue<T> {
    sender: Sender<T>,
    meter: SinkMeter,
}

impl<T> Queue<T> {
    fn has_room(&self) -> bool {
        !self.sender.is_full()
    }

    fn send(&self, work: T) {
        // Full it is not, see `has_room`; a sink that has died ends the process (`dead_sink`).
        if self.sender.try_send(work).is_ok() {
            self.meter.pending.inc();
        }
    }
}

/// The sinks at work. Outlives [`Sinks`] until everything is written.
#[derive(Debug)]
pub struct RunningSinks {
    threads: [(&'static str, thread::JoinHandle<()>); 3],
    task: Option<JoinHandle<()>>,
    pending: [Gauge; 5],
    stop: StopFlag,
    /// Set when [`Sinks`] is gone.
    dropped: StopFlag,
    reopen: Reopen,
}

impl Sinks {
    /// Starts every sink.
    ///
    /// # Errors
    /// A Kafka setting is refused, or there is no thread to be had.
    pub fn start(setup: SinksSetup<'_>) -> Result<(Self, RunningSinks), SinkError> {
        let dropped = StopFlag::default();
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
            (metrics, Redactor::new(&config.redaction)?),
        )?;
        let alarms = alarm_file::start(AlarmSetup {
            path: &config.alarm_file.path,
            clock: setup.clock,
            reopen: reopen.clone(),
            acks: acks.clone(),
            stop: stop.clone(),
            metrics,
        })?;
        let redactor = Redactor::new(&config.redaction)?;
        let (store_queues, task) = setup
            .store
            .map(|store| start_store(&store, &setup.runtime, (&acks, &stop), (metrics, redactor)))
            .unzip();
        let (rows, beside) = store_queues.unzip();
        let queue = |sender, sink| Queue {
            sender,
            meter: metrics.meter(sink),
        };
        let pending = ["store", "results", "alarm_file", "dead_letter", "deploys"]
            .map(|sink| metrics.meter(sink).pending);
        let sinks = Self {
            rows,
            beside,
            results: queue(results.0, "results"),
            alarms: queue(alarms.0, "alarm_file"),
            letters: Queue {
                sender: letters.0,
                meter: metrics.meter("dead_letter"),
            },
            dropped: dropped.clone(),
        };
        let threads = [
            ("results", results.1),
            ("alarm_file", alarms.1),
            ("dead_letter", letters.1),
        ];
        let running = RunningSinks {
            threads,
            task,
            pending,
            stop,
            dropped,
            reopen,
        };
        Ok((sinks, running))
    }

    /// Returns how many [`Ack::Window`] the window needs to be durable everywhere: one for the row
    /// (with a store), one for the result message, one for the alarm if it has one.
    #[must_use]
    pub fn acks_per_window(&self, job: &WindowJob) -> u32 {
        u32::from(self.rows.is_some() && has_row(job)) + 1 + u32::from(has_alarm(job))
    }

    /// Hands a window to every sink it concerns, or to none: with a full queue it comes back, to be
    /// offered again. Never blocks.
    ///
    /// # Errors
    /// Returns the window while any of its sinks has no room.
    #[allow(
        clippy::result_large_err,
        reason = "the job is handed back, not reported"
    )]
    pub fn try_submit(&mut self, job: WindowJob) -> Result<(), WindowJob> {
        let alarm = has_alarm(&job);
        let row = self.rows.as_ref().filter(|_| has_row(&job));
        let rows_room = row.is_none_or(|(queue, _)| queue.capacity() > 0);
        if !rows_room || !self.results.has_room() || (alarm && !self.alarms.has_room()) {
            return Err(job);
        }
        // Only this thread fills the queues (`&mut self`), so the room is still there.
        if let Some((queue, meter)) = row
            && queue.try_send(job.clone()).is_ok()
        {
            meter.pending.inc();
        }
        if alarm {
            self.alarms.send(job.clone());
        }
        self.results.send(job);
        Ok(())
    }

    /// Offers a record's line to the table of raw lines, if it is to be kept there. Best effort: it
    /// needs no ack, and is dropped where there is no room. Never blocks.
    pub fn offer_line(
        &self,
        place: (i32, i64),
        payload: Option<&[u8]>,
        record_time: Option<EventTime>,
    ) {
        if let Some(lines) = self.beside.as_ref().and_then(|it| it.raw_lines.as_ref()) {
            lines.offer(place, payload, record_time);
        }
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
        if !self.letters.has_room() {
            return Err(letter);
        }
        self.letters.send(letter);
        Ok(())
    }

    /// Returns whether deploys are stored: they are where rows are.
    #[must_use]
    pub fn takes_deploys(&self) -> bool {
        self.beside.is_some()
    }

    /// Hands over a deploy; it needs one [`Ack::Letter`]. Never blocks.
    ///
    /// # Errors
    /// Returns the deploy while the queue is full.
    #[allow(
        clippy::result_large_err,
        reason = "the deploy is handed back, not reported"
    )]
    pub fn try_submit_deploy(&mut self, job: DeployJob) -> Result<(), DeployJob> {
        let Some(beside) = &self.beside else {
            return Err(job);
        };
        if beside.deploys.capacity() == 0 {
            return Err(job);
        }
        // Only this thread fills the queue (`&mut self`), so the room is still there.
        if beside.deploys.try_send(job).is_ok() {
            beside.deploys_meter.pending.inc();
        }
        Ok(())
    }

    /// Hands over notes of the partitions' health, which need no ack; returns whether there was room
    /// for them. Never blocks. Without a store they go nowhere.
    pub fn try_note_health(&mut self, notes: Vec<PartitionHealth>) -> bool {
        let Some(beside) = &self.beside else {
            return true;
        };
        notes.is_empty() || beside.notes.try_send(notes).is_ok()
    }
}

/// Starts what writes to the store, as one task.
fn start_store(
    store: &Store,
    runtime: &Handle,
    (acks, stop): (&AckSender, &StopFlag),
    (metrics, redactor): (&SinkMetrics, Redactor),
) -> (((WriterQueue, SinkMeter), BesideRows), JoinHandle<()>) {
    let (writer, rows) = Writer::new(store.clone(), acks.clone(), stop.clone(), metrics);
    let (deployer, deploys) = DeployWriter::new(store.clone(), acks.clone(), stop.clone(), metrics);
    let (noter, notes) = NoteWriter::new(store.clone(), metrics.health_notes_dropped.clone());
    let (raw_lines, liner) = RawLines::configured(store, metrics, redactor).unzip();
    let task = runtime.spawn(async move {
        let lines = async {
            if let Some(liner) = liner {
                liner.run().await;
            }
        };
        tokio::join!(writer.run(), deployer.run(), noter.run(), lines);
    });
    let beside = BesideRows {
        deploys,
        deploys_meter: metrics.meter("deploys"),
        notes,
        raw_lines,
    };
    (((rows, metrics.meter("store")), beside), task)
}

fn has_row(job: &WindowJob) -> bool {
    job.fence != 0
}

impl RunningSinks {
    /// Returns the handle that makes the alarm file be opened anew, for SIGHUP.
    #[must_use]
    pub fn reopen(&self) -> Reopen {
        self.reopen.clone()
    }

    /// Returns a sink that ended although it should run: a defect, after which the process should
    /// end as well.
    #[must_use]
    pub fn dead_sink(&self) -> Option<&'static str> {
        let dead = if self.task.as_ref().is_some_and(JoinHandle::is_finished) {
            Some("store")
        } else {
            let dead = self.threads.iter().find(|(_, thread)| thread.is_finished());
            dead.map(|(sink, _)| *sink)
        };
        // Asked last: the flag is set before a queue closes, so an end in order is seen as one.
        dead.filter(|_| !self.dropped.is_set())
    }

    /// Waits until everything handed over is durable or the deadline has passed, and ends the
    /// sinks. To be called once [`Sinks`] is dropped.
    pub async fn close(self, deadline: Instant) -> CloseReport {
        let ended = || {
            self.threads.iter().all(|(_, thread)| thread.is_finished())
                && self.task.as_ref().is_none_or(JoinHandle::is_finished)
        };
        while !ended() && Instant::now() < deadline {
            tokio::time::sleep(CLOSE_POLL).await;
        }
        self.stop.set();
        let grace = Instant::now() + STOP_GRACE;
        while !ended() && Instant::now() < grace {
            tokio::time::sleep(CLOSE_POLL).await;
        }
        if let Some(task) = &self.task {
            task.abort();
        }
        for (sink, _) in self
            .threads
            .iter()
            .filter(|(_, thread)| !thread.is_finished())
        {
            error!(sink, "a sink does not stop; leaving it behind");
        }
        let [rows, results, alarms, letters, deploys] = self.pending.map(|gauge| gauge.get());
        CloseReport {
            rows,
            results,
            alarms,
            letters,
            deploys,
        }
    }
}

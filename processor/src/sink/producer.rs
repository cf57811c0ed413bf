//! A thread that writes messages to one Kafka topic and acknowledges what the broker confirmed.
//!
//! ```text
//! bounded queue ──► BaseProducer (idempotent, acks=all) ──delivery report──► delivered: Ack
//!        ▲                                                    ├─ refused for what it is: count, Ack
//!        └──────────────── backoff ◄── anything else ─────────┘
//! ```
//!
//! A broker that is away is waited for; a message is acknowledged once, after its report. The
//! thread never blocks on its queue while reports may be due.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rdkafka::{
    ClientConfig, ClientContext,
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};
use tracing::error;

use super::{
    Ack, SinkError,
    ack::{AckSender, StopFlag},
    metrics::SinkMeter,
    retry::Outage,
};

/// Messages between the producer and the broker at a time: enough to keep requests full, and a
/// bound for what has to be sent again after an outage.
const IN_FLIGHT_MAX: usize = 1_000;
/// How long to wait for work while delivery reports are due: adds to the latency of an ack.
const REPORT_WAIT: Duration = Duration::from_millis(5);
/// How long to wait for work otherwise; bounds how late a stop is noticed.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// After this time without confirmation a message is sent again, and the outage is counted.
const MESSAGE_TIMEOUT_MS: &str = "30000";

/// Most that librdkafka holds for the broker, in KiB: a thousand of the largest dead letters would be
/// six times as much.
const QUEUE_KIB_MAX: &str = "65536";

/// Settings that the acknowledgements and the memory rest on; they override the caller's.
const FIXED_SETTINGS: [(&str, &str); 4] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("message.timeout.ms", MESSAGE_TIMEOUT_MS),
    ("queue.buffering.max.kbytes", QUEUE_KIB_MAX),
];

/// A message as it goes out.
pub(super) struct Encoded {
    pub(super) key: String,
    pub(super) payload: Vec<u8>,
}

/// Something that becomes a message, and its ack.
pub(super) trait Outgoing: Send + Sync + 'static {
    fn encode(&self) -> Encoded;
    fn ack(&self) -> Ack;
}

/// Delivery reports, in the order they came.
type ReportQueue<M> = VecDeque<(Box<M>, Result<(), RDKafkaErrorCode>)>;

/// Keeps what delivery reports say until the thread asks; called from its own `poll`.
struct Reports<M>(Mutex<ReportQueue<M>>);

impl<M: Outgoing> ClientContext for Reports<M> {}

impl<M: Outgoing> ProducerContext for Reports<M> {
    type DeliveryOpaque = Box<M>;

    fn delivery(&self, result: &DeliveryResult<'_>, message: Box<M>) {
        let outcome = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error
                .rdkafka_error_code()
                .unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reports.push_back((message, outcome));
    }
}

/// Makes a message fit to go out and says whether it does; one that does not is acknowledged at
/// once.
pub(super) type Admit<M> = Box<dyn FnMut(&mut M) -> bool + Send>;

/// What a producer thread is made of.
pub(super) struct ProducerSetup<'a> {
    pub(super) kafka: &'a ClientConfig,
    pub(super) topic: &'a str,
    pub(super) queue_max: usize,
    pub(super) acks: AckSender,
    pub(super) stop: StopFlag,
    pub(super) meter: SinkMeter,
}

/// Starts the thread; it ends when the queue is closed and everything is confirmed, or when
/// stopped.
pub(super) fn start<M: Outgoing>(
    setup: ProducerSetup<'_>,
    admit: Admit<M>,
) -> Result<(Sender<M>, thread::JoinHandle<()>), SinkError> {
    let name = setup.meter.sink;
    let mut config = setup.kafka.clone();
    for (key, value) in FIXED_SETTINGS {
        config.set(key, value);
    }
    let producer =
        producer(&config).map_err(|source| SinkError::Producer { sink: name, source })?;
    let (sender, queue) = crossbeam_channel::bounded(setup.queue_max);
    let worker = Worker {
        queue,
        admit,
        producer,
        config,
        topic: setup.topic.to_owned(),
        acks: setup.acks,
        stop: setup.stop,
        outage: Outage::new(name, setup.meter.retries.clone(), setup.meter.up.clone()),
        meter: setup.meter,
        waiting: VecDeque::new(),
        retry_at: None,
        in_flight: 0,
    };
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || worker.run())
        .map_err(|source| SinkError::Thread { sink: name, source })?;
    Ok((sender, thread))
}

fn producer<M: Outgoing>(config: &ClientConfig) -> Result<BaseProducer<Reports<M>>, KafkaError> {
    BaseProducer::from_config_and_context(config, Reports(Mutex::default()))
}

struct Worker<M: Outgoing> {
    queue: Receiver<M>,
    admit: Admit<M>,
    producer: BaseProducer<Reports<M>>,
    config: ClientConfig,
    topic: String,
    acks: AckSender,
    stop: StopFlag,
    outage: Outage,
    meter: SinkMeter,
    /// Taken from the queue but not with the broker: first tries and repetitions.
    waiting: VecDeque<Box<M>>,
    /// Nothing is sent before this instant.
    retry_at: Option<Instant>,
    in_flight: usize,
}

impl<M: Outgoing> Worker<M> {
    fn run(mut self) {
        let mut open = true;
        while !self.stop.is_set() && (open || self.in_flight > 0 || !self.waiting.is_empty()) {
            self.settle();
            self.send_waiting();
            let busy = self.in_flight > 0;
            let wait = if busy { REPORT_WAIT } else { IDLE_WAIT };
            if !open || self.in_flight + self.waiting.len() >= IN_FLIGHT_MAX {
                self.producer.poll(wait);
                continue;
            }
            match self.queue.recv_timeout(wait) {
                Ok(message) => {
                    let room = IN_FLIGHT_MAX - self.in_flight - self.waiting.len();
                    self.take(message);
                    for message in self.queue.clone().try_iter().take(room.saturating_sub(1)) {
                        self.take(message);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
    }

    fn take(&mut self, mut message: M) {
        if (self.admit)(&mut message) {
            self.waiting.push_back(Box::new(message));
        } else {
            self.finish(&message);
        }
    }

    /// Sends what waits, unless a failure asks to wait first.
    fn send_waiting(&mut self) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        while let Some(message) = self.waiting.pop_front() {
            let Encoded { key, payload } = message.encode();
            let record = BaseRecord::with_opaque_to(&self.topic, message)
                .key(&key)
                .payload(&payload);
            let Err((error, record)) = self.producer.send(record) else {
                self.in_flight += 1;
                continue;
            };
            let message = record.delivery_opaque;
            match error.rdkafka_error_code() {
                // Not a failure: reports make room.
                Some(RDKafkaErrorCode::QueueFull) => {
                    self.waiting.push_front(message);
                    return;
                }
                code => {
                    self.unsent(message, code.unwrap_or(RDKafkaErrorCode::Unknown));
                    if self.retry_at.is_some() {
                        return;
                    }
                }
            }
        }
    }

    /// Acts on the delivery reports that came.
    fn settle(&mut self) {
        self.producer.poll(Duration::ZERO);
        let mut reports = {
            let context = self.producer.context();
            std::mem::take(&mut *context.0.lock().unwrap_or_else(PoisonError::into_inner))
        };
        // Failed ones go back to the head of the line, in their order.
        let mut failed = VecDeque::new();
        while let Some((message, outcome)) = reports.pop_front() {
            self.in_flight -= 1;
            match outcome {
                Ok(()) => {
                    self.outage.succeeded(Instant::now());
                    self.meter.delivered.inc();
                    self.finish(&*message);
                }
                Err(code) => failed.push_back((message, code)),
            }
        }
        while let Some((message, code)) = failed.pop_back() {
            self.unsent(message, code);
        }
        if let Some((code, reason)) = self.producer.client().fatal_error() {
            self.replace_producer(code, &reason);
        }
    }

    /// Puts a message aside to be sent again, or gives it up if it was refused for what it is.
    fn unsent(&mut self, message: Box<M>, code: RDKafkaErrorCode) {
        if is_refused(code) {
            let Encoded { key, payload } = message.encode();
            error!(
                sink = self.meter.sink, topic = self.topic, key, bytes = payload.len(), %code,
                "the broker refuses a message for what it is; it is counted and not sent again"
            );
            self.meter.refused.inc();
            self.finish(&*message);
            return;
        }
        self.waiting.push_front(message);
        let now = Instant::now();
        // One failure of many messages at once is one failure.
        if self.retry_at.is_none() {
            self.retry_at = Some(now + self.outage.failed(now, &code));
        }
    }

    fn finish(&self, message: &M) {
        self.meter.pending.dec();
        self.acks.send(message.ack());
    }

    /// An idempotent producer that met a fatal error sends nothing more: a new one takes over, and
    /// what was under way comes back as failed reports of the old one.
    fn replace_producer(&mut self, code: RDKafkaErrorCode, reason: &str) {
        error!(sink = self.meter.sink, %code, reason, "the Kafka producer is replaced");
        let Ok(fresh) = producer(&self.config) else {
            // The same settings made one before; try again at the next turn.
            return;
        };
        let old = std::mem::replace(&mut self.producer, fresh);
        old.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
        let mut reports = VecDeque::new();
        // Purging makes every report due at once; without them messages would never be done.
        while reports.len() < self.in_flight && !self.stop.is_set() {
            old.poll(REPORT_WAIT);
            reports.append(
                &mut old
                    .context()
                    .0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
        while let Some((message, outcome)) = reports.pop_back() {
            self.in_flight -= 1;
            match outcome {
                Ok(()) => self.finish(&*message),
                Err(code) => self.unsent(message, code),
            }
        }
    }
}

/// Returns whether the broker refused a message for what it is, so that sending it again cannot
/// help.
fn is_refused(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
    )
}

//! The consumer thread: one OS thread owns the Kafka consumer, from subscribing to dropping it.
//!
//! ```text
//! poll (≤ 100 ms, callbacks run in here) ─► records ─► turn: drain, starts, commits ─► poll …
//! ```
//!
//! Callbacks come on this thread only, from inside `poll` (and from dropping the consumer), and
//! take the member's lock there; the loop never holds it while it polls. Nothing here decides:
//! see [`Member`].

use std::{
    sync::{Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
};

use super::{
    KafkaConfig, RawRecord, RecordHandler, SourceError, SourceMetrics,
    broker::{Link, partitions_of, set_positions},
    error::{Meaning, meaning},
    member::Member,
    metrics::PartitionLabel,
    preflight,
};
use crate::event::EventTime;

/// Longest poll: acks, timers and commits wait no longer than this for their turn.
const POLL_MAX: Duration = Duration::from_millis(100);
/// Most records between two turns, so that acks are drained and room is looked for under load.
const RECORDS_PER_TURN: usize = 512;
/// Tries to commit at shutdown; a rebalance in progress makes the first ones fail.
const FINAL_COMMIT_TRIES: u32 = 3;
/// Longest wait for the group to take our leave before the consumer is dropped regardless.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the topic must be unknown before it counts as deleted: leader changes and fresh
/// topics make brokers forget for moments.
const DELETED_AFTER: Duration = Duration::from_secs(10);
/// Time between such checks.
const DELETED_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What a consumer thread that ended well has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// Records handed over.
    pub records: u64,
    /// The offsets of everything done are committed; otherwise some records will be redelivered.
    pub committed: bool,
}

/// Starts the thread that reads the input topic as a member of the group and drives `handler`,
/// until `stop` returns true (asked at least every 100 ms unless the handler keeps the thread).
///
/// The topics are taken to exist: see [`check_topics`](super::check_topics). At the end the
/// handler finishes, offsets are committed, the group is left. That takes at most
/// `shutdown_timeout_ms` for the handler plus about 15 s; librdkafka is known to hang now and then
/// when it is closed, so the caller ends the process when the thread has not ended by then.
///
/// # Errors
/// An invalid configuration, settings librdkafka refuses, no thread to be had. The thread itself
/// returns what ended reading other than `stop`; a panic of the handler ends the thread.
pub fn spawn<H>(
    config: &KafkaConfig,
    metrics: SourceMetrics,
    handler: H,
    stop: impl Fn() -> bool + Send + 'static,
) -> Result<JoinHandle<Result<SourceReport, SourceError>>, SourceError>
where
    H: RecordHandler + Send + 'static,
{
    config.validate()?;
    let member = Member::new(config, metrics.clone(), handler);
    let context = SourceContext {
        member: Mutex::new(member),
        last_error: Mutex::default(),
        metrics,
        topic: config.input_topic.clone(),
    };
    let consumer: BaseConsumer<_> = config
        .consumer_config()
        .create_with_context(context)
        .map_err(|source| SourceError::Client {
            client: "consumer",
            source: source.into(),
        })?;
    let reading = Reading {
        consumer,
        config: config.clone(),
        unknown: None,
        checked_at: Instant::now(),
    };
    thread::Builder::new()
        .name("kafka-source".to_owned())
        .spawn(move || reading.run(&stop))
        .map_err(SourceError::Thread)
}

/// The consumer, on its thread.
struct Reading<H: RecordHandler + Send + 'static> {
    consumer: BaseConsumer<SourceContext<H>>,
    config: KafkaConfig,
    /// Since when the topic has been reported unknown.
    unknown: Option<Instant>,
    checked_at: Instant,
}

impl<H: RecordHandler + Send + 'static> Reading<H> {
    fn run(mut self, stop: &dyn Fn() -> bool) -> Result<SourceReport, SourceError> {
        let subscribed = self.consumer.subscribe(&[self.config.input_topic.as_str()]);
        subscribed.map_err(|source| self.fatal(source))?;
        let read = self.read_until(stop);
        let committed = self.close();
        let records = self.consumer.context().metrics.records.get();
        read.map(|()| SourceReport { records, committed })
    }

    fn read_until(&mut self, stop: &dyn Fn() -> bool) -> Result<(), SourceError> {
        while !stop() {
            self.poll_batch()?;
            self.context().lock().turn(&self.link(), stop);
            self.check_deleted()?;
        }
        Ok(())
    }

    /// Polls until there is nothing, but no more than a turn's worth of records.
    fn poll_batch(&mut self) -> Result<(), SourceError> {
        let throttled = self.context().lock().is_throttled();
        let mut wait = if throttled { Duration::ZERO } else { POLL_MAX };
        for _ in 0..RECORDS_PER_TURN {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let record = record_of(&message);
                    self.context().lock().record(message.partition(), record);
                }
                Some(Err(error)) => self.on_error(error)?,
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn on_error(&mut self, error: KafkaError) -> Result<(), SourceError> {
        let meaning = meaning(&error);
        if let Meaning::EndOfPartition(partition) = meaning {
            self.context().lock().caught_up(partition);
            return Ok(());
        }
        self.context().metrics.errors.inc();
        let reason = self.context().last_error();
        tracing::warn!(error = %error, reason, "the Kafka client reported an error");
        match meaning {
            Meaning::EndOfPartition(_) => {}
            Meaning::OutOfRange => self.context().lock().out_of_range(&self.link()),
            Meaning::TopicUnknown => {
                self.unknown.get_or_insert_with(Instant::now);
            }
            Meaning::Denied => {
                let (topic, group) = (&self.config.input_topic, &self.config.consumer_group);
                return Err(SourceError::Denied {
                    what: format!("topic `{topic}` or group `{group}` (Read and Describe on both)"),
                    source: error.into(),
                });
            }
            Meaning::Fatal => return Err(self.fatal(error)),
            Meaning::Disturbed => {}
        }
        self.context().lock().disturb(&self.link());
        Ok(())
    }

    /// Finds out whether a topic that was reported unknown is really gone.
    fn check_deleted(&mut self) -> Result<(), SourceError> {
        if self.unknown.is_none() && self.context().take_all_revoked() {
            self.unknown = Some(Instant::now());
        }
        let Some(since) = self.unknown else {
            return Ok(());
        };
        if self.checked_at.elapsed() < DELETED_CHECK_INTERVAL {
            return Ok(());
        }
        self.checked_at = Instant::now();
        let topic = &self.config.input_topic;
        match preflight::is_missing(&self.consumer, topic) {
            Ok(false) => self.unknown = None,
            Ok(true) if since.elapsed() >= DELETED_AFTER => {
                let topic = topic.clone();
                return Err(SourceError::TopicDeleted { topic });
            }
            // Not sure yet, or the broker does not answer: that is no proof of anything.
            Ok(true) | Err(_) => {}
        }
        Ok(())
    }

    /// Finishes, commits, leaves the group; returns whether all that is done is committed.
    fn close(&mut self) -> bool {
        let patience = Duration::from_millis(self.config.shutdown_timeout_ms);
        let link = self.link();
        self.context()
            .lock()
            .finish(&link, Instant::now() + patience);
        let mut committed = false;
        for _ in 0..FINAL_COMMIT_TRIES {
            committed = self.context().lock().commit_all(&link);
            if committed {
                break;
            }
            // Callbacks run in here: a rebalance in progress ends, its revocation commits as well.
            self.discard(POLL_MAX);
        }
        self.consumer.unsubscribe();
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        while !self.context().lock().is_idle() && Instant::now() < deadline {
            self.discard(POLL_MAX);
        }
        committed
    }

    /// Serves callbacks; records that come along are not handed over and stay uncommitted.
    fn discard(&self, wait: Duration) {
        if let Some(Err(error)) = self.consumer.poll(wait) {
            tracing::debug!(error = %error, "the Kafka client reported an error while closing");
        }
    }

    fn context(&self) -> &SourceContext<H> {
        self.consumer.context()
    }

    fn link(&self) -> Link<'_, SourceContext<H>> {
        Link {
            consumer: &self.consumer,
            topic: &self.config.input_topic,
        }
    }

    fn fatal(&self, source: KafkaError) -> SourceError {
        let reason = self.context().last_error();
        SourceError::Fatal {
            reason,
            source: source.into(),
        }
    }
}

/// What librdkafka calls back.
struct SourceContext<H> {
    member: Mutex<Member<H>>,
    /// The text of the last error, which its code alone does not tell.
    last_error: Mutex<String>,
    metrics: SourceMetrics,
    topic: String,
}

impl<H: RecordHandler + Send + 'static> SourceContext<H> {
    /// Returns the member. A handler that panicked has poisoned the lock: that panic ends this
    /// thread already, and while the consumer is dropped nothing of it is touched again.
    #[allow(
        clippy::expect_used,
        reason = "only this thread locks, and it is unwinding already once the lock is poisoned"
    )]
    fn lock(&self) -> MutexGuard<'_, Member<H>> {
        self.member.lock().expect("the handler did not panic")
    }

    fn link<'a>(&'a self, consumer: &'a BaseConsumer<Self>) -> Link<'a, Self> {
        Link {
            consumer,
            topic: &self.topic,
        }
    }

    fn last_error(&self) -> String {
        self.last_error
            .lock()
            .map(|reason| reason.clone())
            .unwrap_or_default()
    }

    fn take_all_revoked(&self) -> bool {
        self.lock().take_all_revoked()
    }
}

impl<H: RecordHandler + Send + 'static> ConsumerContext for SourceContext<H> {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if self.member.is_poisoned() {
            return;
        }
        let link = self.link(consumer);
        match rebalance {
            Rebalance::Assign(list) => {
                let positions = self.lock().assign(&link, &partitions_of(list));
                if let Err(error) = set_positions(list, &positions) {
                    // The guard in the member drops what lies before the start point.
                    tracing::warn!(error = %error, "failed to set the offsets to start from");
                }
            }
            Rebalance::Revoke(list) => {
                let lost = consumer.assignment_lost();
                self.lock().revoke(&link, &partitions_of(list), lost);
            }
            Rebalance::Error(error) => {
                tracing::warn!(error = %error, "a rebalance failed, all partitions are given up");
                self.lock().revoke_all(&link);
            }
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if self.member.is_poisoned() {
            return;
        }
        if let Rebalance::Assign(list) = rebalance {
            let link = self.link(consumer);
            self.lock().assigned(&link, &partitions_of(list));
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if self.member.is_poisoned() {
            return;
        }
        let first_error = offsets.elements().iter().find_map(|it| it.error().err());
        let result = result.and(first_error.map_or(Ok(()), Err));
        self.lock().commit_answered(result);
    }

    fn main_queue_min_poll_interval(&self) -> rdkafka::util::Timeout {
        POLL_MAX.into()
    }
}

impl<H: Send + 'static> ClientContext for SourceContext<H> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition comes this way too, and is no error.
        if !matches!(error, KafkaError::Global(code) if code == rdkafka::types::RDKafkaErrorCode::PartitionEOF)
            && let Ok(mut last) = self.last_error.lock()
        {
            reason.clone_into(&mut last);
        }
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        for (partition, stats) in &topic.partitions {
            // -1 is librdkafka's own partition for what has none yet.
            if *partition < 0 || stats.fetch_state == "none" || stats.hi_offset < 0 {
                continue;
            }
            let label = PartitionLabel {
                partition: *partition,
            };
            if stats.app_offset >= 0 {
                let lag = (stats.hi_offset - stats.app_offset).max(0);
                self.metrics.read_lag.get_or_create(&label).set(lag);
            }
            if stats.committed_offset >= 0 {
                let lag = (stats.hi_offset - stats.committed_offset).max(0);
                self.metrics.commit_lag.get_or_create(&label).set(lag);
            }
        }
    }
}

/// Returns a message as the stages see it.
pub(super) fn record_of<'a>(message: &'a BorrowedMessage<'_>) -> RawRecord<'a> {
    RawRecord {
        offset: message.offset(),
        record_time: message
            .timestamp()
            .to_millis()
            .and_then(EventTime::from_millis),
        payload: message.payload(),
    }
}

/// Forwards librdkafka's log lines.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

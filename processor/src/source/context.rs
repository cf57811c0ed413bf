//! What librdkafka calls back: rebalances, answers to commits, errors, statistics, log lines.
//!
//! Rebalances and answers come on the consumer thread, from inside `poll`; they take the member's
//! lock, which the loop never holds meanwhile.

use std::sync::{Mutex, MutexGuard};

use rdkafka::{
    ClientContext, Message, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
    types::RDKafkaErrorCode,
};

use super::{
    KafkaConfig, RawRecord, RecordHandler, SourceMetrics,
    broker::{Link, partitions_of, set_positions},
    consumer::POLL_MAX,
    member::Member,
    metrics::PartitionLabel,
};
use crate::event::EventTime;

/// What librdkafka calls back.
pub(super) struct SourceContext<H> {
    member: Mutex<Member<H>>,
    /// The text of the last error, which its code alone does not tell.
    last_error: Mutex<String>,
    metrics: SourceMetrics,
    topic: String,
}

impl<H: RecordHandler + Send + 'static> SourceContext<H> {
    pub(super) fn new(config: &KafkaConfig, metrics: SourceMetrics, handler: H) -> Self {
        Self {
            member: Mutex::new(Member::new(config, metrics.clone(), handler)),
            last_error: Mutex::default(),
            metrics,
            topic: config.input_topic.clone(),
        }
    }

    /// Returns how many records were handed over.
    pub(super) fn records(&self) -> u64 {
        self.metrics.records.get()
    }

    pub(super) fn count_error(&self) {
        self.metrics.errors.inc();
    }

    /// Returns the member. A handler that panicked has poisoned the lock: that panic ends this
    /// thread already, and while the consumer is dropped nothing of it is touched again.
    #[allow(
        clippy::expect_used,
        reason = "only this thread locks, and it is unwinding already once the lock is poisoned"
    )]
    pub(super) fn lock(&self) -> MutexGuard<'_, Member<H>> {
        self.member.lock().expect("the handler did not panic")
    }

    fn link<'a>(&'a self, consumer: &'a BaseConsumer<Self>) -> Link<'a, Self> {
        Link {
            consumer,
            topic: &self.topic,
        }
    }

    pub(super) fn last_error(&self) -> String {
        self.last_error
            .lock()
            .map(|reason| reason.clone())
            .unwrap_or_default()
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
        if !matches!(error, KafkaError::Global(code) if code == RDKafkaErrorCode::PartitionEOF)
            && let Ok(mut last) = self.last_error.lock()
        {
            reason.clone_into(&mut last);
        }
    }

    fn stats(&self, statistics: Statistics) {
        // While nothing is fetched it knows of no new record; the member asks for itself.
        if self.metrics.paused.get() == 1 {
            return;
        }
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        for (partition, stats) in &topic.partitions {
            // Partitions of other members are listed as well, with what was true long ago.
            if stats.fetch_state != "active" || stats.hi_offset < 0 {
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

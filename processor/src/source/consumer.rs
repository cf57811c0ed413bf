//! The consumer thread: one OS thread owns the Kafka consumer, from subscribing to dropping it.
//!
//! ```text
//! poll (≤ 100 ms, callbacks run in here) ─► records ─► turn: drain, starts, commits ─► poll …
//! ```
//!
//! Callbacks come on this thread only, from inside `poll` (and from dropping the consumer), and
//! take the member's lock there; the loop never holds it while it polls. Nothing here decides:
//! see [`member`](super::member).

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rdkafka::{
    Message,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::{
    KafkaConfig, RecordHandler, SourceError, SourceMetrics,
    broker::Link,
    context::{SourceContext, record_of},
    error::{Meaning, meaning},
    member::CommitOutcome,
    preflight,
};

/// Longest poll: acks, timers and commits wait no longer than this for their turn.
pub(super) const POLL_MAX: Duration = Duration::from_millis(100);
/// Most records between two turns, so that acks are drained and room is looked for under load.
const RECORDS_PER_TURN: usize = 512;
/// Records polled before they are handed over: the client's code and ours take turns in the processor's
/// cache, and more per turn gain nothing.
const RECORDS_PER_RUN: usize = 32;
/// How long the last commit is tried: a rebalance in progress makes the first tries fail. One try
/// alone takes up to the session timeout when the broker is gone.
const FINAL_COMMIT_PATIENCE: Duration = Duration::from_secs(3);
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
/// `shutdown_timeout_ms` for the handler and, when the broker is gone, the session timeout and
/// 10 s; librdkafka is known to hang now and then when it is closed, so the caller ends the
/// process when the thread has not ended by then.
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
    let context = SourceContext::new(config, metrics, handler);
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

/// How a run of polls ended.
enum Polled {
    /// With as many records as a run takes.
    Records,
    /// There is nothing more for now.
    Nothing,
    /// After the records before it.
    Error(KafkaError),
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
        let records = self.context().records();
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
        let mut polls_left = RECORDS_PER_TURN;
        while polls_left > 0 {
            let (polled, polls) = self.poll_run(wait);
            polls_left = polls_left.saturating_sub(polls);
            match polled {
                Polled::Records => {}
                Polled::Nothing => break,
                Polled::Error(error) => self.on_error(error)?,
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Hands over a run of records, up to the first poll that gives none; returns how many polls that took.
    /// What a callback takes away while they are polled is not handed over any more: the member knows its
    /// partitions and positions.
    fn poll_run(&self, mut wait: Duration) -> (Polled, usize) {
        let mut run = Vec::with_capacity(RECORDS_PER_RUN);
        let polled = loop {
            match self.consumer.poll(wait) {
                None => break Polled::Nothing,
                Some(Ok(message)) => run.push(message),
                Some(Err(error)) => break Polled::Error(error),
            }
            if run.len() == RECORDS_PER_RUN {
                break Polled::Records;
            }
            wait = Duration::ZERO;
        };
        let mut member = self.context().lock();
        for message in &run {
            member.record(message.partition(), record_of(message));
        }
        (polled, run.len().max(1))
    }

    fn on_error(&mut self, error: KafkaError) -> Result<(), SourceError> {
        let meaning = meaning(&error);
        if let Meaning::EndOfPartition(partition) = meaning {
            self.context().lock().caught_up(partition);
            return Ok(());
        }
        self.context().count_error();
        let reason = self.context().last_error();
        tracing::warn!(error = %error, reason, "the Kafka client reported an error");
        match meaning {
            Meaning::EndOfPartition(_) => {}
            Meaning::OutOfRange => self.context().lock().out_of_range(),
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
        if self.unknown.is_none() && self.context().lock().take_all_revoked() {
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
        let patience = Instant::now() + FINAL_COMMIT_PATIENCE;
        let mut outcome = self.context().lock().commit_all(&link);
        while outcome == CommitOutcome::Rebalancing && Instant::now() < patience {
            // Callbacks run in here: the rebalance ends, its revocation commits as well.
            self.discard(POLL_MAX);
            outcome = self.context().lock().commit_all(&link);
        }
        self.consumer.unsubscribe();
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        while !self.context().lock().is_idle() && Instant::now() < deadline {
            self.discard(POLL_MAX);
        }
        outcome == CommitOutcome::Committed && !self.context().lock().left_uncommitted()
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

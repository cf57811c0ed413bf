//! Reads a topic from its beginning to its present end, partition by partition, as `replay` and
//! `train` do.
//!
//! It joins no group and commits nothing. The end is fixed when the reader is opened: what comes
//! later is not read. Offsets may have gaps (compaction, transaction markers): the broker's word
//! that a partition ends counts as well as the last offset.

mod timeline;

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use rdkafka::{Message, Offset, TopicPartitionList, consumer::Consumer, error::KafkaError};

use super::{
    KafkaConfig, RawRecord, SourceError,
    context::record_of,
    error::{Meaning, meaning},
    preflight::{self, Client},
};
use crate::event::{EventTime, NextOffset, OffsetSpan, TopicPartition};

pub use timeline::{TimeRange, Timeline, TimelineEvent};

/// Longest wait for a partition's first and last offset.
const WATERMARK_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest poll.
const POLL_MAX: Duration = Duration::from_millis(100);
/// Silence after which reading is given up: longer than a leader election takes.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// Records between two reports of progress.
const PROGRESS_INTERVAL: u64 = 10_000;

/// The offsets `[low, high)` of a partition when the reader was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionSpan {
    /// The partition.
    pub partition: i32,
    /// Offset of its oldest record.
    pub low: i64,
    /// One past the offset of its newest record.
    pub high: i64,
}

impl PartitionSpan {
    /// Returns how many records it holds at most.
    #[must_use]
    pub fn records_max(&self) -> u64 {
        u64::try_from(self.high - self.low).unwrap_or(0)
    }
}

/// What a [`TopicReader`] reports, in this order for each partition.
#[derive(Clone, Copy, Debug)]
pub enum TopicEvent<'a> {
    /// Records before the first one that will come are gone: retention took them, before or while
    /// reading. Of an untouched partition this does not come.
    Truncated {
        /// The partition.
        partition: i32,
        /// Offset reading goes on from.
        next: NextOffset,
    },
    /// A record.
    Record {
        /// Its partition.
        partition: i32,
        /// The record.
        record: RawRecord<'a>,
    },
    /// Some records were read since the last report.
    Progress {
        /// Offsets passed in all partitions so far; of [`TopicReader::records_max`].
        passed: u64,
    },
    /// A partition was read to its end.
    PartitionEnd {
        /// The partition.
        partition: i32,
    },
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicSummary {
    /// Records handed over.
    pub records: u64,
    /// Records retention deleted while the topic was read.
    pub deleted: u64,
    /// The callback ended reading before the end.
    pub stopped: bool,
}

/// A topic with a fixed end.
pub struct TopicReader {
    client: Client,
    topic: String,
    spans: Vec<PartitionSpan>,
    /// The partitions before anything was skipped.
    whole: Vec<PartitionSpan>,
}

impl TopicReader {
    /// Connects, and notes where the topic's partitions begin and end.
    ///
    /// # Errors
    /// An invalid configuration, no broker that answers, no such topic, no permission.
    pub fn open(config: &KafkaConfig, topic: &str) -> Result<Self, SourceError> {
        config.validate()?;
        let client = preflight::connect(config)?;
        let Some(mut partitions) = preflight::metadata(&client, config, topic)? else {
            return Err(SourceError::MissingTopics {
                brokers: config.brokers.clone(),
                topics: vec![("input_topic", topic.to_owned())],
            });
        };
        partitions.sort_unstable();
        let mut reader = Self {
            client,
            topic: topic.to_owned(),
            spans: Vec::with_capacity(partitions.len()),
            whole: Vec::new(),
        };
        for partition in partitions {
            let span = reader.span(partition)?;
            reader.spans.push(span);
        }
        reader.whole.clone_from(&reader.spans);
        Ok(reader)
    }

    /// Goes on to what has come since: each partition begins where it ended, and ends where it does
    /// now.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub fn read_on(&mut self) -> Result<(), SourceError> {
        for at in 0..self.spans.len() {
            let (span, now) = (self.spans[at], self.span(self.spans[at].partition)?);
            let low = span.high.max(now.low);
            self.spans[at] = PartitionSpan {
                low,
                high: now.high.max(low),
                ..span
            };
        }
        Ok(())
    }

    /// Leaves out, at the beginning of each partition, the records that were written before `time` by
    /// their record time.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub fn skip_before(&mut self, time: EventTime) -> Result<(), SourceError> {
        let mut asked = TopicPartitionList::new();
        for span in &self.spans {
            let time = Offset::Offset(time.as_millis().max(0));
            asked
                .add_partition_offset(&self.topic, span.partition, time)
                .map_err(|source| self.fatal(source))?;
        }
        let answer = self.client.offsets_for_times(asked, WATERMARK_TIMEOUT);
        let answer = answer.map_err(|source| self.fatal(source))?;
        for span in &mut self.spans {
            let found = answer.find_partition(&self.topic, span.partition);
            span.low = match found.map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => offset.clamp(span.low, span.high),
                // No record is as young as that.
                _ => span.high,
            };
        }
        Ok(())
    }

    /// Connects, and notes what there is of the offsets `span` of one partition: nothing if retention
    /// took them all, or if the topic was made anew since.
    ///
    /// # Errors
    /// As [`Self::open`]; a partition that is not there counts as a topic that is not.
    pub fn open_span(
        config: &KafkaConfig,
        partition: &TopicPartition,
        span: OffsetSpan,
    ) -> Result<Self, SourceError> {
        config.validate()?;
        let client = preflight::connect(config)?;
        let topic = partition.topic.to_string();
        let found = preflight::metadata(&client, config, &topic)?;
        if !found.is_some_and(|numbers| numbers.contains(&partition.partition)) {
            return Err(SourceError::MissingTopics {
                brokers: config.brokers.clone(),
                topics: vec![("input_topic", topic)],
            });
        }
        let mut reader = Self {
            client,
            topic,
            spans: Vec::new(),
            whole: Vec::new(),
        };
        let there = reader.span(partition.partition)?;
        let low = span.first.max(there.low);
        reader.spans.push(PartitionSpan {
            partition: partition.partition,
            low,
            high: span.next.0.min(there.high).max(low),
        });
        Ok(reader)
    }

    /// Returns the partitions, by number.
    #[must_use]
    pub fn partitions(&self) -> &[PartitionSpan] {
        &self.spans
    }

    /// Returns how many records there are at most.
    #[must_use]
    pub fn records_max(&self) -> u64 {
        self.spans.iter().map(PartitionSpan::records_max).sum()
    }

    /// Reads all partitions, one after the other, until `on_event` breaks off.
    ///
    /// # Errors
    /// A partition from which nothing comes for 60 s, a deleted topic, a client that failed.
    pub fn read(
        &self,
        on_event: &mut dyn FnMut(TopicEvent<'_>) -> ControlFlow<()>,
    ) -> Result<TopicSummary, SourceError> {
        let mut pass = Pass {
            summary: TopicSummary::default(),
            passed: 0,
            reported: 0,
            on_event,
        };
        for span in &self.spans {
            if self.read_partition(*span, &mut pass)?.is_break() {
                pass.summary.stopped = true;
                break;
            }
        }
        // Nothing is fetched any more, whatever the caller does with the reader.
        self.client
            .assign(&TopicPartitionList::new())
            .map_err(|source| self.fatal(source))?;
        Ok(pass.summary)
    }

    fn read_partition(
        &self,
        span: PartitionSpan,
        pass: &mut Pass<'_>,
    ) -> Result<ControlFlow<()>, SourceError> {
        let partition = span.partition;
        let mut next = span.low;
        if next > 0 && pass.truncated(partition, next).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if next < span.high {
            self.start(partition, next)?;
        }
        let mut last_sign = Instant::now();
        while next < span.high {
            let polled = self.client.poll(POLL_MAX);
            if matches!(&polled, Some(Ok(_))) {
                last_sign = Instant::now();
            } else if last_sign.elapsed() > STALLED_AFTER {
                return Err(self.stalled(partition, next));
            }
            match polled {
                None => {}
                Some(Ok(message)) => {
                    let offset = message.offset();
                    if message.partition() != partition || offset < next {
                        continue;
                    }
                    if offset >= span.high {
                        break;
                    }
                    if pass.record(partition, record_of(&message), next).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    next = NextOffset::after(offset).0;
                }
                Some(Err(error)) => match self.after_error(error, partition, next)? {
                    Outcome::Ended => break,
                    Outcome::Retried => {}
                    Outcome::Truncated(low) => {
                        pass.count_deleted(next, low.min(span.high));
                        next = low;
                        if pass.truncated(partition, next).is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                },
            }
        }
        Ok(pass.partition_end(span, next))
    }

    /// Says how reading goes on after an error, and makes it do so.
    fn after_error(
        &self,
        error: KafkaError,
        partition: i32,
        next: i64,
    ) -> Result<Outcome, SourceError> {
        match meaning(&error) {
            Meaning::EndOfPartition(ended) if ended == partition => Ok(Outcome::Ended),
            // librdkafka goes on trying; whether it gets anywhere shows in time.
            Meaning::EndOfPartition(_) | Meaning::Disturbed => Ok(Outcome::Retried),
            Meaning::OutOfRange => {
                let low = self.span(partition)?.low;
                self.start(partition, next.max(low))?;
                if low <= next {
                    return Ok(Outcome::Retried);
                }
                let (topic, from, to) = (self.topic.as_str(), next, low);
                tracing::warn!(
                    topic,
                    partition,
                    from,
                    to,
                    "retention deleted records while they were read"
                );
                Ok(Outcome::Truncated(low))
            }
            _ => self.permanent(error).map(|()| Outcome::Retried),
        }
    }

    /// Returns an error that trying again does not mend; of others librdkafka makes the best.
    fn permanent(&self, error: KafkaError) -> Result<(), SourceError> {
        match meaning(&error) {
            Meaning::EndOfPartition(_) | Meaning::Disturbed | Meaning::OutOfRange => Ok(()),
            Meaning::TopicUnknown => Err(SourceError::TopicDeleted {
                topic: self.topic.clone(),
            }),
            Meaning::Denied => Err(SourceError::Denied {
                what: format!("topic `{}` (Read)", self.topic),
                source: error.into(),
            }),
            Meaning::Fatal => Err(self.fatal(error)),
        }
    }

    fn span(&self, partition: i32) -> Result<PartitionSpan, SourceError> {
        let marks = self
            .client
            .fetch_watermarks(&self.topic, partition, WATERMARK_TIMEOUT);
        let (low, high) = marks.map_err(|source| self.fatal(source))?;
        Ok(PartitionSpan {
            partition,
            low,
            high,
        })
    }

    fn start(&self, partition: i32, next: i64) -> Result<(), SourceError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(next))
            .and_then(|()| self.client.assign(&list))
            .map_err(|source| self.fatal(source))
    }

    fn fatal(&self, source: KafkaError) -> SourceError {
        SourceError::Fatal {
            reason: format!("while reading `{}`", self.topic),
            source: source.into(),
        }
    }

    fn stalled(&self, partition: i32, offset: i64) -> SourceError {
        SourceError::Stalled {
            topic: self.topic.clone(),
            partition,
            offset,
            seconds: STALLED_AFTER.as_secs(),
        }
    }
}

/// How reading a partition goes on after an error.
enum Outcome {
    /// Everything there is was read.
    Ended,
    /// As before.
    Retried,
    /// At a later offset, the oldest there is.
    Truncated(i64),
}

/// One reading of all partitions: what it adds up to, and whom it tells.
struct Pass<'a> {
    summary: TopicSummary,
    passed: u64,
    reported: u64,
    on_event: &'a mut dyn FnMut(TopicEvent<'_>) -> ControlFlow<()>,
}

impl Pass<'_> {
    fn truncated(&mut self, partition: i32, next: i64) -> ControlFlow<()> {
        let next = NextOffset(next);
        (self.on_event)(TopicEvent::Truncated { partition, next })
    }

    fn record(&mut self, partition: i32, record: RawRecord<'_>, before: i64) -> ControlFlow<()> {
        self.summary.records += 1;
        self.passed += u64::try_from(record.offset + 1 - before).unwrap_or(0);
        (self.on_event)(TopicEvent::Record { partition, record })?;
        if self.passed - self.reported >= PROGRESS_INTERVAL {
            return self.report();
        }
        ControlFlow::Continue(())
    }

    fn count_deleted(&mut self, from: i64, to: i64) {
        let deleted = u64::try_from(to - from).unwrap_or(0);
        self.summary.deleted += deleted;
        self.passed += deleted;
    }

    fn partition_end(&mut self, span: PartitionSpan, next: i64) -> ControlFlow<()> {
        self.passed += u64::try_from(span.high - next).unwrap_or(0);
        let partition = span.partition;
        (self.on_event)(TopicEvent::PartitionEnd { partition })?;
        self.report()
    }

    fn report(&mut self) -> ControlFlow<()> {
        self.reported = self.passed;
        (self.on_event)(TopicEvent::Progress {
            passed: self.passed,
        })
    }
}

//! A topic in order of event time: all partitions side by side, the earliest head first.
//!
//! ```text
//! partition 0 ─ queue ─► head ┐
//! partition 1 ─ queue ─► head ├─ the earliest ─► on_event, and its partition's next record
//! partition 2 ─ queue ─► head ┘
//! ```
//!
//! What comes out is the topic as one log, as if its lines stood in one file: training wants that.
//! Memory is one record and one bounded queue a partition: while a partition is ahead of the others
//! its queue fills and its fetching stops. It joins no group, commits nothing, and ends at the ends
//! that the partitions had when it was opened.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{Consumer, base_consumer::PartitionQueue},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
};

use super::{POLL_MAX, PROGRESS_INTERVAL, PartitionSpan, STALLED_AFTER, TopicReader};
use crate::{
    decode::{self, FUTURE_MS_MAX},
    event::{EventTime, NextOffset},
    source::{
        KafkaConfig, RawRecord, SourceError,
        context::record_of,
        error::{Meaning, meaning},
        preflight::{self, Client, LastError},
    },
};

/// Memory that all queues together may take, in KiB.
const QUEUES_KIB_MAX: usize = 65_536;
/// Least of it that a partition gets: a fetch or so.
const QUEUE_KIB_MIN: usize = 1_024;
/// Longest wait for a position to be moved.
const SEEK_TIMEOUT: Duration = Duration::from_secs(10);

/// The event times to be read, `[since, until)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// First instant; from the beginning of the topic if `None`.
    pub since: Option<EventTime>,
    /// First instant after; to the end of the topic if `None`.
    pub until: Option<EventTime>,
}

impl TimeRange {
    /// Returns whether `time` lies in it.
    #[must_use]
    pub fn contains(&self, time: EventTime) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }
}

/// What a [`Timeline`] reports.
#[derive(Clone, Copy, Debug)]
pub enum TimelineEvent<'a> {
    /// The next record. Records around the range come as well: whoever takes them looks at the time.
    Record {
        /// Its event time; `None` if it is no log event.
        time: Option<EventTime>,
        /// The record. Its offset is its number in this order, from 0.
        record: RawRecord<'a>,
    },
    /// Some records were read since the last report.
    Progress {
        /// Offsets passed in all partitions so far; of [`Timeline::records_max`].
        passed: u64,
    },
}

/// A stretch of a topic, to be read in order of event time.
pub struct Timeline {
    reader: TopicReader,
    client: Arc<Client>,
    until: Option<EventTime>,
}

impl Timeline {
    /// Connects, and notes where the range begins and where the partitions end.
    ///
    /// # Errors
    /// As [`TopicReader::open`].
    pub fn open(config: &KafkaConfig, topic: &str, range: TimeRange) -> Result<Self, SourceError> {
        let mut reader = TopicReader::open(config, topic)?;
        if let Some(since) = range.since {
            // No event is counted that is further ahead of its record's time than this.
            reader.skip_before(since.saturating_add(-FUTURE_MS_MAX))?;
        }
        let queue_kib = (QUEUES_KIB_MAX / reader.spans.len().max(1)).max(QUEUE_KIB_MIN);
        let tuning = [("queued.max.messages.kbytes", queue_kib.to_string())];
        Ok(Self {
            reader,
            client: Arc::new(preflight::connect_with(config, &tuning)?),
            until: range.until,
        })
    }

    /// Returns how many records there are at most.
    #[must_use]
    pub fn records_max(&self) -> u64 {
        self.reader.records_max()
    }

    /// Returns whether the topic holds no record at all, whatever the range.
    #[must_use]
    pub fn is_topic_empty(&self) -> bool {
        self.reader.whole.iter().all(|span| span.records_max() == 0)
    }

    /// Reads the records in order of event time until `on_event` breaks off. Those that are no log
    /// events come as soon as they are met. Returns whether it was broken off.
    ///
    /// # Errors
    /// A partition from which nothing comes for 60 s, a deleted topic, a client that failed.
    pub fn read(
        &self,
        on_event: &mut dyn FnMut(TimelineEvent<'_>) -> ControlFlow<()>,
    ) -> Result<bool, SourceError> {
        let read = Merge::start(self).and_then(|mut merge| merge.run(on_event));
        // Nothing is fetched any more, whatever the caller does with the reader.
        self.client
            .assign(&TopicPartitionList::new())
            .map_err(|source| self.reader.fatal(source))?;
        read
    }
}

/// A record that waits for its turn.
struct Head {
    /// Its event time; `None` if it is no log event.
    time: Option<EventTime>,
    offset: i64,
    record_time: Option<EventTime>,
    payload: Option<Vec<u8>>,
}

impl Head {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let record = record_of(message);
        let decoded = decode::decode_record(record.payload, record.record_time);
        Self {
            time: decoded.ok().map(|decoded| decoded.event.time),
            offset: record.offset,
            record_time: record.record_time,
            payload: record.payload.map(<[u8]>::to_vec),
        }
    }

    /// Returns what it is ordered by. One bad clock must not hold back its partition until all others
    /// have ended.
    fn turn(&self) -> Option<EventTime> {
        let latest = self.record_time.map(|it| it.saturating_add(FUTURE_MS_MAX));
        self.time
            .filter(|time| latest.is_none_or(|latest| *time <= latest))
    }
}

/// A partition being read.
struct Lane {
    span: PartitionSpan,
    queue: PartitionQueue<LastError>,
    /// What came before the partition had a queue of its own.
    early: VecDeque<Polled>,
    next: i64,
    head: Option<Head>,
}

/// All partitions being read.
struct Merge<'a> {
    timeline: &'a Timeline,
    lanes: Vec<Lane>,
    /// The heads, earliest first; of equals that of the first partition.
    turns: BinaryHeap<Reverse<(Option<EventTime>, usize)>>,
    taken: i64,
    passed: u64,
    reported: u64,
}

impl<'a> Merge<'a> {
    fn start(timeline: &'a Timeline) -> Result<Self, SourceError> {
        let Timeline { reader, client, .. } = timeline;
        let spans = reader.spans.iter().filter(|span| span.low < span.high);
        let mut list = TopicPartitionList::new();
        for span in spans.clone() {
            list.add_partition_offset(&reader.topic, span.partition, Offset::Offset(span.low))
                .map_err(|source| reader.fatal(source))?;
        }
        client
            .assign(&list)
            .map_err(|source| reader.fatal(source))?;
        let mut lanes = Vec::with_capacity(list.count());
        for span in spans {
            let queue = client.split_partition_queue(&reader.topic, span.partition);
            let queue = queue.ok_or_else(|| SourceError::TopicDeleted {
                topic: reader.topic.clone(),
            })?;
            lanes.push(Lane {
                span: *span,
                queue,
                early: VecDeque::new(),
                next: span.low,
                head: None,
            });
        }
        let mut merge = Self {
            timeline,
            lanes,
            turns: BinaryHeap::new(),
            taken: 0,
            passed: 0,
            reported: 0,
        };
        merge.serve()?;
        Ok(merge)
    }

    fn run(
        &mut self,
        on_event: &mut dyn FnMut(TimelineEvent<'_>) -> ControlFlow<()>,
    ) -> Result<bool, SourceError> {
        for lane in 0..self.lanes.len() {
            self.advance(lane)?;
        }
        while let Some(Reverse((_, lane))) = self.turns.pop() {
            let Some(head) = self.lanes[lane].head.take() else {
                continue;
            };
            let record = RawRecord {
                offset: self.taken,
                record_time: head.record_time,
                payload: head.payload.as_deref(),
            };
            self.taken += 1;
            let time = head.time;
            if on_event(TimelineEvent::Record { time, record }).is_break() {
                return Ok(true);
            }
            self.advance(lane)?;
            if self.passed - self.reported >= PROGRESS_INTERVAL {
                self.reported = self.passed;
                let passed = self.passed;
                if on_event(TimelineEvent::Progress { passed }).is_break() {
                    return Ok(true);
                }
            }
        }
        let passed = self.timeline.records_max();
        Ok(on_event(TimelineEvent::Progress { passed }).is_break())
    }

    /// Fetches the next head of a partition; it gets none at its end.
    fn advance(&mut self, lane: usize) -> Result<(), SourceError> {
        let mut last_sign = Instant::now();
        loop {
            let Lane { span, next, .. } = self.lanes[lane];
            if next >= span.high {
                return Ok(());
            }
            let head = match self.poll(lane) {
                Polled::Nothing => {
                    if last_sign.elapsed() > STALLED_AFTER {
                        return Err(self.timeline.reader.stalled(span.partition, next));
                    }
                    self.serve()?;
                    continue;
                }
                Polled::Error(error) => {
                    if self.after_error(lane, error)? {
                        self.end(lane);
                        return Ok(());
                    }
                    continue;
                }
                Polled::Head(head) => head,
            };
            last_sign = Instant::now();
            if head.offset < next {
                continue;
            }
            if head.offset >= span.high || self.is_past(&head) {
                self.end(lane);
                return Ok(());
            }
            let after = NextOffset::after(head.offset).0;
            self.passed += u64::try_from(after - next).unwrap_or(0);
            self.turns.push(Reverse((head.turn(), lane)));
            self.lanes[lane].next = after;
            self.lanes[lane].head = Some(head);
            return Ok(());
        }
    }

    fn poll(&mut self, lane: usize) -> Polled {
        let lane = &mut self.lanes[lane];
        if let Some(polled) = lane.early.pop_front() {
            return polled;
        }
        match lane.queue.poll(POLL_MAX) {
            None => Polled::Nothing,
            Some(Ok(message)) => Polled::Head(Head::of(&message)),
            Some(Err(error)) => Polled::Error(error),
        }
    }

    /// Returns whether all that belongs to the range came before: a record so far after it comes late
    /// or not at all.
    fn is_past(&self, head: &Head) -> bool {
        let until = self.timeline.until;
        let last = until.map(|until| until.saturating_add(FUTURE_MS_MAX));
        last.is_some_and(|last| head.turn().is_some_and(|time| time > last))
    }

    /// Ends a partition before its last offset.
    fn end(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        self.passed += u64::try_from(lane.span.high - lane.next).unwrap_or(0);
        lane.next = lane.span.high;
    }

    /// Serves the client's own queue, and takes what came to it before the partitions had theirs.
    fn serve(&mut self) -> Result<(), SourceError> {
        while let Some(polled) = self.timeline.client.poll(Duration::ZERO) {
            self.serve_one(polled)?;
        }
        Ok(())
    }

    fn serve_one(&mut self, polled: KafkaResult<BorrowedMessage<'_>>) -> Result<(), SourceError> {
        let (partition, polled) = match polled {
            Ok(message) => (message.partition(), Polled::Head(Head::of(&message))),
            Err(KafkaError::PartitionEOF(ended)) => {
                (ended, Polled::Error(KafkaError::PartitionEOF(ended)))
            }
            Err(error) => return self.timeline.reader.permanent(error),
        };
        let mut lanes = self.lanes.iter_mut();
        if let Some(lane) = lanes.find(|lane| lane.span.partition == partition) {
            lane.early.push_back(polled);
        }
        Ok(())
    }

    /// Says whether a partition has ended, after an error, and has reading go on where it can.
    fn after_error(&mut self, lane: usize, error: KafkaError) -> Result<bool, SourceError> {
        let Lane { span, next, .. } = self.lanes[lane];
        let reader = &self.timeline.reader;
        match meaning(&error) {
            Meaning::EndOfPartition(ended) => Ok(ended == span.partition),
            Meaning::OutOfRange => {
                let low = reader.span(span.partition)?.low.max(next);
                let offset = Offset::Offset(low);
                let client = &self.timeline.client;
                client
                    .seek(&reader.topic, span.partition, offset, SEEK_TIMEOUT)
                    .map_err(|source| reader.fatal(source))?;
                let (topic, partition, from, to) = (&reader.topic, span.partition, next, low);
                tracing::warn!(
                    topic,
                    partition,
                    from,
                    to,
                    "retention deleted records while they were read"
                );
                self.passed += u64::try_from(low.min(span.high) - next).unwrap_or(0);
                self.lanes[lane].next = low;
                Ok(false)
            }
            _ => reader.permanent(error).map(|()| false),
        }
    }
}

enum Polled {
    Nothing,
    Head(Head),
    Error(KafkaError),
}

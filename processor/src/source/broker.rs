//! What the group member asks of the broker, and librdkafka's answer to it.
//!
//! The trait is narrow so that the member's rules are tested without a broker. Every call has a
//! bound in time but the commit in `Sync` mode, which librdkafka bounds by the session timeout.

use std::{ptr, slice, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    bindings::{rd_kafka_commit_queue, rd_kafka_queue_destroy, rd_kafka_queue_get_consumer},
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol},
    error::{IsError, KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};

use super::{
    CommitMetadata, CommitPoint,
    start::{Committed, Watermarks},
};

/// Most time one seek waits for librdkafka's own threads.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

/// One partition and where to read it from.
pub(super) type Position = (i32, i64);

/// The group's side of Kafka, for one topic.
pub(super) trait Broker {
    /// Returns what the group has committed.
    fn committed(
        &self,
        partitions: &[i32],
        timeout: Duration,
    ) -> KafkaResult<Vec<(i32, KafkaResult<Committed>)>>;
    /// Returns the offsets a partition holds.
    fn watermarks(&self, partition: i32, timeout: Duration) -> KafkaResult<Watermarks>;
    /// Stops fetching.
    fn pause(&self, partitions: &[i32]) -> KafkaResult<()>;
    /// Goes on fetching.
    fn resume(&self, partitions: &[i32]) -> KafkaResult<()>;
    /// Makes `offset` the next one handed out; paused partitions stay so.
    fn seek(&self, position: Position, wait: bool) -> KafkaResult<()>;
    /// Makes librdkafka start `restarted` afresh, where a seek is not accepted any more. `all`
    /// are all partitions assigned, which some protocols need.
    fn restart(&self, restarted: &[Position], all: &[Position]) -> KafkaResult<()>;
    /// Commits; in `Async` mode the result comes by callback.
    fn commit(&self, points: &[CommitPoint], mode: CommitMode) -> KafkaResult<()>;
}

/// A consumer and the one topic it reads.
pub(super) struct Link<'a, C: ConsumerContext> {
    pub(super) consumer: &'a BaseConsumer<C>,
    pub(super) topic: &'a str,
}

impl<C: ConsumerContext> Link<'_, C> {
    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(self.topic, *partition);
        }
        list
    }

    fn positions(&self, positions: &[Position]) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, offset) in positions {
            list.add_partition_offset(self.topic, *partition, Offset::Offset(*offset))?;
        }
        Ok(list)
    }
}

impl<C: ConsumerContext> Broker for Link<'_, C> {
    fn committed(
        &self,
        partitions: &[i32],
        timeout: Duration,
    ) -> KafkaResult<Vec<(i32, KafkaResult<Committed>)>> {
        let list = self
            .consumer
            .committed_offsets(self.list(partitions), timeout)?;
        Ok(committed_of(&list))
    }

    fn watermarks(&self, partition: i32, timeout: Duration) -> KafkaResult<Watermarks> {
        let (low, high) = self
            .consumer
            .fetch_watermarks(self.topic, partition, timeout)?;
        Ok(Watermarks { low, high })
    }

    fn pause(&self, partitions: &[i32]) -> KafkaResult<()> {
        self.consumer.pause(&self.list(partitions))
    }

    fn resume(&self, partitions: &[i32]) -> KafkaResult<()> {
        self.consumer.resume(&self.list(partitions))
    }

    fn seek(&self, (partition, offset): Position, wait: bool) -> KafkaResult<()> {
        let timeout = if wait { SEEK_TIMEOUT } else { Duration::ZERO };
        let offset = Offset::Offset(offset);
        self.consumer.seek(self.topic, partition, offset, timeout)
    }

    fn restart(&self, restarted: &[Position], all: &[Position]) -> KafkaResult<()> {
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => {
                let list = self.positions(restarted)?;
                self.consumer.incremental_unassign(&list)?;
                self.consumer.incremental_assign(&list)
            }
            RebalanceProtocol::Eager | RebalanceProtocol::None => {
                self.consumer.assign(&self.positions(all)?)
            }
        }
    }

    fn commit(&self, points: &[CommitPoint], mode: CommitMode) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(points.len());
        for point in points {
            let mut element = list.add_partition(self.topic, point.partition.partition);
            element.set_offset(Offset::Offset(point.next.0))?;
            element.set_metadata(point.metadata.encode());
        }
        match mode {
            CommitMode::Sync => self.consumer.commit(&list, mode),
            CommitMode::Async => commit_answered_by_poll(self.consumer, &list),
        }
    }
}

/// Commits without waiting; a later poll calls back with the answer.
///
/// Not through rdkafka's own asynchronous commit: librdkafka answers that one only to a callback
/// of its configuration, which rdkafka 0.39 does not set, so that no answer ever comes. Here the
/// answer goes to the queue that is polled.
#[allow(
    unsafe_code,
    reason = "rdkafka does not wrap the commit that names the queue for its answer"
)]
fn commit_answered_by_poll<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: &TopicPartitionList,
) -> KafkaResult<()> {
    let client = consumer.client().native_ptr();
    // SAFETY: `consumer` is borrowed, so that its client outlives the call.
    let queue = unsafe { rd_kafka_queue_get_consumer(client) };
    if queue.is_null() {
        // Only a consumer without a group has none.
        return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownGroup));
    }
    // SAFETY: `queue` is not null and ours until it is destroyed, once, here; librdkafka takes
    // its own reference to it and its own copy of `list`. There is no callback to be called.
    let answer = unsafe {
        let answer = rd_kafka_commit_queue(client, list.ptr(), queue, None, ptr::null_mut());
        rd_kafka_queue_destroy(queue);
        answer
    };
    if answer.is_error() {
        return Err(KafkaError::ConsumerCommit(answer.into()));
    }
    Ok(())
}

/// Reads the answer to an offset query. Not through rdkafka's `metadata()`: it panics on bytes
/// that are not UTF-8, which any client of the group may have written.
fn committed_of(list: &TopicPartitionList) -> Vec<(i32, KafkaResult<Committed>)> {
    let metadata = metadata_of(list);
    list.elements()
        .iter()
        .zip(metadata)
        .map(|(element, metadata)| {
            let next = match element.offset() {
                Offset::Offset(next) => Some(next),
                _ => None,
            };
            let committed = element.error().map(|()| Committed { next, metadata });
            (element.partition(), committed)
        })
        .collect()
}

#[allow(
    unsafe_code,
    reason = "rdkafka's safe accessor panics on metadata that is not UTF-8"
)]
fn metadata_of(list: &TopicPartitionList) -> Vec<Option<CommitMetadata>> {
    if list.count() == 0 {
        return Vec::new();
    }
    // SAFETY: `list` is borrowed, so that neither it nor what its elements point to is freed or
    // changed meanwhile; librdkafka keeps `count` elements at `elems`, not null as count > 0.
    let elements = unsafe { slice::from_raw_parts((*list.ptr()).elems, list.count()) };
    elements
        .iter()
        .map(|element| {
            if element.metadata.is_null() {
                return None;
            }
            // SAFETY: librdkafka allocated `metadata_size` bytes at `metadata`, not null.
            let bytes = unsafe {
                slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size)
            };
            CommitMetadata::decode(bytes)
        })
        .collect()
}

/// Returns the partitions in a list.
pub(super) fn partitions_of(list: &TopicPartitionList) -> Vec<i32> {
    list.elements()
        .iter()
        .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
        .collect()
}

/// Makes the positions the offsets that assigning `list` starts from. Partitions without one are
/// to be sought to theirs later; they start at a place that no offset reset can touch.
pub(super) fn set_positions(
    list: &TopicPartitionList,
    positions: &[Position],
) -> Result<(), KafkaError> {
    for mut element in list.elements() {
        let partition = element.partition();
        let known = positions.iter().find(|(known, _)| *known == partition);
        element.set_offset(known.map_or(Offset::Beginning, |(_, next)| Offset::Offset(*next)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_that_is_not_utf8_is_read_as_not_ours() {
        let mut list = TopicPartitionList::new();
        list.add_partition("t", 0);
        let ours = CommitMetadata::nothing_done(crate::event::WindowGrid {
            length_ms: 30_000,
            by_service: false,
        });
        list.add_partition("t", 1).set_metadata(ours.encode());
        {
            let mut foreign = list.add_partition("t", 2);
            foreign.set_offset(Offset::Offset(5)).unwrap();
            foreign.set_metadata("??");
        }
        // What a foreign client may write and `set_metadata` cannot.
        #[allow(unsafe_code, reason = "the safe accessor takes UTF-8 only")]
        // SAFETY: the list has three elements, the last with two bytes of metadata, just set.
        unsafe {
            let element = (*list.ptr()).elems.add(2);
            (*element).metadata.cast::<u8>().write(0xff);
        }
        let read: Vec<(i32, Committed)> = committed_of(&list)
            .into_iter()
            .map(|(partition, committed)| (partition, committed.unwrap()))
            .collect();
        assert_eq!(read[0], (0, Committed::default()));
        assert_eq!(read[1].1.metadata, Some(ours));
        assert_eq!(
            read[2],
            (
                2,
                Committed {
                    next: Some(5),
                    metadata: None
                }
            )
        );
    }

    #[test]
    fn an_empty_list_is_read() {
        assert_eq!(committed_of(&TopicPartitionList::new()).len(), 0);
    }
}

//! A real Kafka broker from a test's side: topics of its own, records written by kcat (a client
//! that nobody here wrote), topics read to their end, offsets as the group committed them.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError,
    metadata::MetadataPartition,
    producer::{BaseProducer, BaseRecord, Producer},
};

/// Far longer than the broker takes for anything: reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// Records to a batch of kcat's: small, so that a slow reader gets a partition in many pieces.
const BATCH_RECORDS: usize = 50;

/// Creates a topic that keeps everything: records may be as old as their events, and the broker looks
/// every few minutes for what is older than a week.
pub(crate) async fn create_topic(brokers: &str, name: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = config(brokers).create().unwrap();
    let topic =
        NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    for outcome in admin.create_topics([&topic], &options).await.unwrap() {
        outcome.unwrap();
    }
    // The controller has it; the broker learns of it a moment later.
    let deadline = Instant::now() + PATIENCE;
    let known = || {
        let metadata = admin.inner().fetch_metadata(Some(name), PATIENCE).unwrap();
        metadata.topics()[0].partitions().len() == usize::try_from(partitions).unwrap()
    };
    while !known() {
        assert!(
            Instant::now() < deadline,
            "the broker does not know `{name}`"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes the lines of `file` to a partition, in their order.
pub(crate) fn kcat(brokers: &str, topic: &str, partition: usize, file: &Path) {
    let output = Command::new("kcat")
        .args(["-P", "-b", brokers, "-t", topic])
        .args(["-p", &partition.to_string()])
        .args(["-X", &format!("batch.num.messages={BATCH_RECORDS}")])
        .arg("-l")
        .arg(file)
        .output()
        .unwrap_or_else(|error| panic!("kcat (a Debian package) cannot be run: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kcat failed: {stderr}");
}

/// Writes lines to a partition of a topic, in records of this time.
pub(crate) fn write_at<'a>(
    brokers: &str,
    (topic, partition): (&str, i32),
    lines: impl IntoIterator<Item = &'a String>,
    millis: i64,
) {
    let producer: BaseProducer = config(brokers).create().unwrap();
    for line in lines {
        let record = BaseRecord::<(), str>::to(topic)
            .partition(partition)
            .payload(line)
            .timestamp(millis);
        let sent = producer.send(record).map_err(|(error, _)| error);
        sent.unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// A record's key and payload.
pub(crate) type Record = (String, String);

/// Returns all records of a topic, in order within each partition.
pub(crate) fn read_topic(brokers: &str, topic: &str) -> Vec<Record> {
    let consumer: BaseConsumer = config(brokers)
        .set("group.id", "reads-without-joining")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let partitions = partitions(&consumer, topic);
    let mut assignment = TopicPartitionList::new();
    for partition in &partitions {
        assignment
            .add_partition_offset(topic, *partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    let mut unfinished = partitions.len();
    while unfinished > 0 {
        assert!(Instant::now() < deadline, "`{topic}` has no end");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => unfinished -= 1,
            Some(Err(error)) => panic!("cannot read `{topic}`: {error}"),
            Some(Ok(message)) => {
                let text = |bytes: Option<&[u8]>| {
                    String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap()
                };
                records.push((text(message.key()), text(message.payload())));
            }
        }
    }
    records
}

/// Returns the offsets that a group committed, by partition; 0 where it committed none.
pub(crate) fn committed(brokers: &str, group: &str, topic: &str) -> BTreeMap<i32, i64> {
    let consumer: BaseConsumer = config(brokers).set("group.id", group).create().unwrap();
    let mut asked = TopicPartitionList::new();
    for partition in partitions(&consumer, topic) {
        asked.add_partition(topic, partition);
    }
    let committed = consumer.committed_offsets(asked, PATIENCE).unwrap();
    let offset = |offset| match offset {
        Offset::Offset(offset) => offset,
        _ => 0,
    };
    let elements = committed.elements();
    elements
        .iter()
        .map(|it| (it.partition(), offset(it.offset())))
        .collect()
}

/// Sets the offsets of a group that has no members, as an operator does: without metadata.
pub(crate) fn reset_offsets(brokers: &str, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) {
    let consumer: BaseConsumer = config(brokers).set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
            .unwrap();
    }
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

/// Deletes the records of a partition before `offset`, as retention does.
pub(crate) async fn delete_before(brokers: &str, topic: &str, partition: i32, offset: i64) {
    let admin: AdminClient<DefaultClientContext> = config(brokers).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))
        .unwrap();
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let deleted = admin.delete_records(&list, &options).await.unwrap();
    for element in deleted.elements() {
        element.error().unwrap();
    }
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let partitions = metadata.topics()[0].partitions();
    partitions.iter().map(MetadataPartition::id).collect()
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("broker.address.family", "v4");
    config
}

//! The consumer thread against Apache Kafka: what only a real broker decides.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure is the test's"
)]

mod common;
mod source_recorder;

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use common::kafka_brokers;
use logguard::source::{
    AssignmentStrategy, GroupProtocol, KafkaConfig, SourceError, TopicEvent, TopicReader,
    check_topics,
};
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use source_recorder::{Entry, Journal, Running, Switches, config, metadata_at, records};

const TIMEOUT: Duration = Duration::from_secs(30);

/// What a test does to the broker, besides being a member.
struct Kafka {
    config: KafkaConfig,
    runtime: tokio::runtime::Runtime,
    admin: AdminClient<DefaultClientContext>,
    producer: BaseProducer,
    partitions: i32,
}

impl Kafka {
    /// Creates the three topics of a configuration of its own; `None` without a broker.
    fn with_topics(partitions: i32) -> Option<Self> {
        let kafka = Self::without_topics(partitions)?;
        let config = &kafka.config;
        for topic in [
            &config.input_topic,
            &config.output_topic,
            &config.dead_letter_topic,
        ] {
            kafka.create(topic);
        }
        Some(kafka)
    }

    fn without_topics(partitions: i32) -> Option<Self> {
        let config = config(&kafka_brokers()?);
        let mut client = rdkafka::ClientConfig::new();
        client.set("bootstrap.servers", &config.brokers);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let admin = client.create().unwrap();
        let producer = config.producer_config().create().unwrap();
        Some(Self {
            config,
            runtime,
            admin,
            producer,
            partitions,
        })
    }

    fn create(&self, topic: &str) {
        let new = NewTopic::new(topic, self.partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        let created = self.admin.create_topics([&new], &options);
        self.runtime.block_on(created).unwrap()[0].as_ref().unwrap();
    }

    fn delete_topic(&self, topic: &str) {
        let deleted = self.admin.delete_topics(&[topic], &AdminOptions::new());
        self.runtime.block_on(deleted).unwrap()[0].as_ref().unwrap();
    }

    /// Deletes the records before `offset`, as retention does.
    fn delete_before(&self, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.config.input_topic, partition, Offset::Offset(offset))
            .unwrap();
        let deleted = self.admin.delete_records(&list, &AdminOptions::new());
        self.runtime.block_on(deleted).unwrap();
    }

    /// Produces so many records to each partition.
    fn produce(&self, per_partition: usize) {
        produce(
            &self.producer,
            &self.config.input_topic,
            self.partitions,
            per_partition,
        );
    }

    /// Commits as a foreign client of the group does.
    fn commit_as_another(&self, partition: i32, offset: i64, metadata: &[u8]) {
        let client: BaseConsumer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", &self.config.brokers)
            .set("group.id", &self.config.consumer_group)
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        {
            let mut element = list.add_partition(&self.config.input_topic, partition);
            element.set_offset(Offset::Offset(offset)).unwrap();
            element.set_metadata("?".repeat(metadata.len()));
        }
        #[allow(unsafe_code, reason = "the safe setter takes UTF-8 only")]
        // SAFETY: the list has one element, with as many bytes of metadata as are copied there.
        unsafe {
            let target = (*(*list.ptr()).elems).metadata.cast::<u8>();
            std::ptr::copy_nonoverlapping(metadata.as_ptr(), target, metadata.len());
        }
        client.commit(&list, CommitMode::Sync).unwrap();
    }

    /// Returns the offsets the group has committed, by partition.
    fn committed(&self) -> Vec<Option<i64>> {
        let client: BaseConsumer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", &self.config.brokers)
            .set("group.id", &self.config.consumer_group)
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.config.input_topic, 0, self.partitions - 1);
        let list = client.committed_offsets(list, TIMEOUT).unwrap();
        let offset =
            |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element
                .offset()
            {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
        list.elements().iter().map(offset).collect()
    }
}

fn produce(producer: &BaseProducer, topic: &str, partitions: i32, per_partition: usize) {
    for number in 0..per_partition {
        for partition in 0..partitions {
            let payload = format!("{partition}:{number}");
            let record = BaseRecord::<(), _>::to(topic)
                .partition(partition)
                .payload(&payload);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(TIMEOUT).unwrap();
}

/// Tells whether `member` was told the end of a partition after its record before `next`.
fn at_end(entries: &[Entry], member: char, partition: i32, next: i64) -> bool {
    let last = entries
        .iter()
        .rposition(|it| *it == Entry::Record(member, partition, next - 1));
    let end = entries
        .iter()
        .rposition(|it| *it == Entry::CaughtUp(member, partition));
    last.is_some() && end > last
}

/// The three ways of dealing out partitions.
fn protocols() -> [(GroupProtocol, AssignmentStrategy); 3] {
    [
        (GroupProtocol::Classic, AssignmentStrategy::Range),
        (
            GroupProtocol::Classic,
            AssignmentStrategy::CooperativeSticky,
        ),
        (GroupProtocol::Consumer, AssignmentStrategy::Range),
    ]
}

/// Produces to all partitions until stopped; returns how many records each got.
fn load(kafka: &Kafka, stop: &Arc<AtomicBool>) -> JoinHandle<i64> {
    let (stop, partitions) = (Arc::clone(stop), kafka.partitions);
    let topic = kafka.config.input_topic.clone();
    let producer: BaseProducer = kafka.config.producer_config().create().unwrap();
    thread::spawn(move || {
        let mut produced = 0;
        while !stop.load(Ordering::SeqCst) {
            produce(&producer, &topic, partitions, 50);
            produced += 50;
            thread::park_timeout(Duration::from_millis(10));
        }
        produced
    })
}

/// Members come and go while records come in; nothing is lost, and nothing that was committed is
/// handed over again.
fn hand_over(protocol: GroupProtocol, strategy: AssignmentStrategy) {
    const PARTITIONS: i32 = 4;
    let Some(mut kafka) = Kafka::with_topics(PARTITIONS) else {
        return;
    };
    kafka.config.group_protocol = protocol;
    kafka.config.assignment_strategy = strategy;
    let stop = Arc::new(AtomicBool::new(false));
    let load = load(&kafka, &stop);
    let journal = Journal::default();
    let a = Running::start(&kafka.config, 'a', &journal);
    journal.wait("a to read", |entries| records(entries, 'a') > 1_000);
    let b = Running::start(&kafka.config, 'b', &journal);
    journal.wait("b to read", |entries| records(entries, 'b') > 1_000);
    let so_far = records(&journal.entries(), 'a');
    journal.wait("a to go on beside b", |entries| {
        records(entries, 'a') > so_far + 500
    });
    assert!(a.stop().committed);
    let so_far = journal.entries().len();
    journal.wait("b to read everything", |entries| {
        let seen: BTreeSet<i32> = entries[so_far..]
            .iter()
            .filter_map(|it| match it {
                Entry::Record('b', partition, _) => Some(*partition),
                _ => None,
            })
            .collect();
        seen.len() == 4
    });
    let c = Running::start(&kafka.config, 'c', &journal);
    journal.wait("c to read", |entries| records(entries, 'c') > 1_000);
    stop.store(true, Ordering::SeqCst);
    let produced: i64 = load.join().unwrap();
    journal.wait("the last records", |entries| {
        (0..PARTITIONS).all(|id| {
            ['b', 'c']
                .iter()
                .any(|member| at_end(entries, *member, id, produced))
        })
    });
    assert!(b.stop().committed);
    assert!(c.stop().committed);

    for (partition, offsets) in journal.offsets() {
        let expected: Vec<i64> = (0..produced).collect();
        let again = offsets.windows(2).find(|pair| pair[1] != pair[0] + 1);
        assert!(
            offsets == expected,
            "partition {partition}: {again:?} of {produced}"
        );
    }
    for member in ['a', 'b', 'c'] {
        for start in journal.starts(member) {
            assert!(!start.partial, "{start:?}");
            let expected = (start.next.0 > 0).then(|| metadata_at(start.next.0));
            assert_eq!(start.metadata, expected, "{start:?}");
        }
    }
    assert_eq!(kafka.committed(), vec![Some(produced); 4]);
}

#[test]
fn members_hand_partitions_over_with_range() {
    hand_over(GroupProtocol::Classic, AssignmentStrategy::Range);
}

#[test]
fn members_hand_partitions_over_with_cooperative_sticky() {
    hand_over(
        GroupProtocol::Classic,
        AssignmentStrategy::CooperativeSticky,
    );
}

#[test]
fn members_hand_partitions_over_with_the_brokers_protocol() {
    hand_over(GroupProtocol::Consumer, AssignmentStrategy::Range);
}

#[test]
fn what_was_not_committed_comes_again_with_what_was_known_then() {
    let Some(kafka) = Kafka::with_topics(1) else {
        return;
    };
    kafka.produce(100);
    let journal = Journal::default();
    let first = Running::start(&kafka.config, 'a', &journal);
    journal.wait("the first 100", |entries| at_end(entries, 'a', 0, 100));
    first.stop();
    kafka.produce(50);
    let switches = Switches::default();
    switches.undone.store(true, Ordering::SeqCst);
    let second = Running::with(&kafka.config, 'b', &journal, switches);
    journal.wait("the next 50", |entries| at_end(entries, 'b', 0, 150));
    second.stop();
    let third = Running::start(&kafka.config, 'c', &journal);
    journal.wait("the same 50", |entries| at_end(entries, 'c', 0, 150));
    third.stop();
    for member in ['b', 'c'] {
        let start = journal.starts(member).remove(0);
        assert_eq!(
            (start.next.0, start.metadata, start.partial),
            (100, Some(metadata_at(100)), false)
        );
    }
    assert_eq!(kafka.committed(), [Some(150)]);
}

#[test]
fn an_offset_somebody_else_committed_starts_a_partial_window() {
    let Some(kafka) = Kafka::with_topics(3) else {
        return;
    };
    kafka.produce(100);
    kafka.commit_as_another(0, 40, b"reset by hand");
    kafka.commit_as_another(1, 50, b"\xff\xfe\x00\xc3");
    kafka.commit_as_another(2, 100, metadata_at(100).encode().as_bytes());
    let journal = Journal::default();
    let member = Running::start(&kafka.config, 'a', &journal);
    journal.wait("the records", |entries| {
        at_end(entries, 'a', 0, 100)
            && at_end(entries, 'a', 1, 100)
            && entries.contains(&Entry::CaughtUp('a', 2))
    });
    member.stop();
    let mut starts = journal.starts('a');
    starts.sort_by_key(|start| start.partition.partition);
    let found: Vec<_> = starts
        .iter()
        .map(|start| (start.next.0, start.metadata, start.partial))
        .collect();
    assert_eq!(
        found,
        [
            (40, None, true),
            (50, None, true),
            (100, Some(metadata_at(100)), false)
        ]
    );
    let offsets = journal.offsets();
    assert_eq!(offsets[&0], (40..100).collect::<Vec<i64>>());
    assert_eq!(offsets[&1], (50..100).collect::<Vec<i64>>());
    assert_eq!(offsets.get(&2), None);
}

#[test]
fn what_retention_deleted_before_the_start_is_counted_and_makes_it_partial() {
    let Some(kafka) = Kafka::with_topics(2) else {
        return;
    };
    kafka.produce(100);
    kafka.commit_as_another(0, 10, metadata_at(10).encode().as_bytes());
    kafka.delete_before(0, 50);
    kafka.delete_before(1, 30);
    let journal = Journal::default();
    let member = Running::start(&kafka.config, 'a', &journal);
    journal.wait("the records", |entries| {
        at_end(entries, 'a', 0, 100) && at_end(entries, 'a', 1, 100)
    });
    assert_eq!(member.metrics.deleted_unread.get(), 40);
    member.stop();
    for start in journal.starts('a') {
        let expected = match start.partition.partition {
            0 => (50, Some(metadata_at(10)), true),
            _ => (30, None, true),
        };
        assert_eq!((start.next.0, start.metadata, start.partial), expected);
    }
    assert_eq!(journal.offsets()[&0], (50..100).collect::<Vec<i64>>());
    assert_eq!(journal.offsets()[&1], (30..100).collect::<Vec<i64>>());
}

/// Retention overtakes a member that has been waiting for room: nothing is skipped silently.
fn overtaken(protocol: GroupProtocol, strategy: AssignmentStrategy) {
    let Some(mut kafka) = Kafka::with_topics(2) else {
        return;
    };
    kafka.config.group_protocol = protocol;
    kafka.config.assignment_strategy = strategy;
    kafka.produce(10);
    let journal = Journal::default();
    let member = Running::start(&kafka.config, 'a', &journal);
    journal.wait("the first 10", |entries| {
        at_end(entries, 'a', 0, 10) && at_end(entries, 'a', 1, 10)
    });
    member.switches.full.store(true, Ordering::SeqCst);
    wait_until("the pause", || member.metrics.paused.get() == 1);
    let paused_at = journal.entries().len();
    kafka.produce(90);
    kafka.delete_before(0, 60);
    member.switches.full.store(false, Ordering::SeqCst);
    journal.wait("what is left", |entries| {
        at_end(entries, 'a', 0, 100) && at_end(entries, 'a', 1, 100)
    });
    journal.wait("the all-clear", |entries| {
        entries[paused_at..].contains(&Entry::Disturbed('a', false))
    });
    assert_eq!(member.metrics.deleted_unread.get(), 50);
    assert_eq!(member.metrics.paused.get(), 0);
    assert!(member.stop().committed);
    let entries = journal.entries();
    let revoked = Entry::Revoked('a', vec![0], false);
    assert!(
        entries[paused_at..].contains(&revoked),
        "finished what was read before"
    );
    let start = journal.starts('a').pop().unwrap();
    assert_eq!(
        (
            start.partition.partition,
            start.next.0,
            start.metadata,
            start.partial
        ),
        (0, 60, Some(metadata_at(10)), true)
    );
    let expected: Vec<i64> = (0..10).chain(60..100).collect();
    assert_eq!(journal.offsets()[&0], expected);
    assert_eq!(journal.offsets()[&1], (0..100).collect::<Vec<i64>>());
    assert_eq!(kafka.committed(), [Some(100), Some(100)]);
}

#[test]
fn a_reader_that_retention_overtakes_starts_anew_and_says_so() {
    thread::scope(|scope| {
        for (protocol, strategy) in protocols() {
            scope.spawn(move || overtaken(protocol, strategy));
        }
    });
}

/// A pipeline without room: pauses, stays in the group, goes on where it stood.
fn held_up(protocol: GroupProtocol, strategy: AssignmentStrategy) {
    let Some(mut kafka) = Kafka::with_topics(3) else {
        return;
    };
    kafka.config.group_protocol = protocol;
    kafka.config.assignment_strategy = strategy;
    kafka.produce(2_000);
    let journal = Journal::default();
    let member = Running::start(&kafka.config, 'a', &journal);
    journal.wait("some records", |entries| records(entries, 'a') > 0);
    member.switches.full.store(true, Ordering::SeqCst);
    wait_until("the pause", || member.metrics.paused.get() == 1);
    let before = journal.entries();
    assert_eq!(before.last(), Some(&Entry::Disturbed('a', true)));
    kafka.produce(100);
    // Longer than the member may go without a poll: only polling keeps it in the group.
    thread::park_timeout(Duration::from_millis(
        kafka.config.max_poll_interval_ms + 1_000,
    ));
    assert_eq!(
        journal.entries().len(),
        before.len(),
        "nothing came while paused"
    );
    member.switches.full.store(false, Ordering::SeqCst);
    journal.wait("all of it", |entries| {
        (0..3).all(|id| at_end(entries, 'a', id, 2_100))
    });
    assert_eq!(member.metrics.pauses.get(), 1);
    member.stop();
    assert_eq!(journal.starts('a').len(), 3, "never left the group");
    for offsets in journal.offsets().values() {
        assert_eq!(*offsets, (0..2_100).collect::<Vec<i64>>());
    }
}

#[test]
fn a_pipeline_without_room_pauses_and_stays_in_the_group() {
    thread::scope(|scope| {
        for (protocol, strategy) in protocols() {
            scope.spawn(move || held_up(protocol, strategy));
        }
    });
}

/// The handler asks to go back: the same records again, from the commit on.
fn rewound(protocol: GroupProtocol, strategy: AssignmentStrategy) {
    let Some(mut kafka) = Kafka::with_topics(2) else {
        return;
    };
    kafka.config.group_protocol = protocol;
    kafka.config.assignment_strategy = strategy;
    kafka.produce(100);
    for partition in [0, 1] {
        let metadata = metadata_at(20).encode();
        kafka.commit_as_another(partition, 20, metadata.as_bytes());
    }
    let journal = Journal::default();
    let switches = Switches::default();
    switches.undone.store(true, Ordering::SeqCst);
    let member = Running::with(&kafka.config, 'a', &journal, switches);
    let both = |entries: &[Entry]| at_end(entries, 'a', 0, 100) && at_end(entries, 'a', 1, 100);
    journal.wait("the records", both);
    let so_far = journal.entries().len();
    member.switches.rewind.store(true, Ordering::SeqCst);
    journal.wait("the same again", |entries| both(&entries[so_far..]));
    member.switches.undone.store(false, Ordering::SeqCst);
    member.stop();
    for start in journal.starts('a') {
        let expected = (20, Some(metadata_at(20)), false);
        assert_eq!((start.next.0, start.metadata, start.partial), expected);
    }
    assert_eq!(journal.starts('a').len(), 4);
    for offsets in journal.offsets().values() {
        assert_eq!(*offsets, (20..100).chain(20..100).collect::<Vec<i64>>());
    }
    assert_eq!(kafka.committed(), [Some(100), Some(100)]);
}

#[test]
fn a_rewound_partition_is_read_again_from_its_commit() {
    thread::scope(|scope| {
        for (protocol, strategy) in protocols() {
            scope.spawn(move || rewound(protocol, strategy));
        }
    });
}

#[test]
fn missing_topics_are_named_all_at_once() {
    let Some(kafka) = Kafka::without_topics(1) else {
        return;
    };
    kafka.create(&kafka.config.output_topic);
    let error = check_topics(&kafka.config).unwrap_err();
    let SourceError::MissingTopics { topics, .. } = &error else {
        unreachable!("{error:?}");
    };
    let (input, dead) = (&kafka.config.input_topic, &kafka.config.dead_letter_topic);
    assert_eq!(
        *topics,
        [
            ("input_topic", input.clone()),
            ("dead_letter_topic", dead.clone())
        ]
    );
    let text = error.to_string();
    assert!(
        text.contains(&format!("topic `{input}` (`kafka.input_topic`)")),
        "{text}"
    );
    kafka.create(input);
    kafka.create(dead);
    check_topics(&kafka.config).unwrap();
}

/// The topic is deleted under a member: it says which and ends.
fn deleted(protocol: GroupProtocol, strategy: AssignmentStrategy) {
    let Some(mut kafka) = Kafka::with_topics(2) else {
        return;
    };
    kafka.config.group_protocol = protocol;
    kafka.config.assignment_strategy = strategy;
    // Clients look for changed topics every five minutes, and between that only by chance.
    let refresh = ("topic.metadata.refresh.interval.ms", "1000");
    let properties = &mut kafka.config.properties.0;
    properties.insert(refresh.0.to_owned(), refresh.1.to_owned());
    kafka.produce(10);
    let journal = Journal::default();
    let member = Running::start(&kafka.config, 'a', &journal);
    journal.wait("the records", |entries| {
        at_end(entries, 'a', 0, 10) && at_end(entries, 'a', 1, 10)
    });
    kafka.delete_topic(&kafka.config.input_topic);
    journal.wait("the end", |entries| entries.contains(&Entry::Finished('a')));
    let error = member.join().unwrap_err();
    let topic = &kafka.config.input_topic;
    assert_eq!(
        error.to_string(),
        format!("topic `{topic}` was deleted while it was read")
    );
}

#[test]
fn a_topic_that_is_deleted_while_it_is_read_is_named() {
    thread::scope(|scope| {
        for (protocol, strategy) in protocols() {
            scope.spawn(move || deleted(protocol, strategy));
        }
    });
}

#[test]
fn transactions_and_deleted_records_leave_gaps_that_do_not_hang_the_topic_reader() {
    let Some(kafka) = Kafka::with_topics(2) else {
        return;
    };
    let topic = &kafka.config.input_topic;
    kafka.produce(20);
    let producer: BaseProducer = kafka
        .config
        .producer_config()
        .set("transactional.id", topic)
        .create()
        .unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    for commits in [true, false, true, false] {
        producer.begin_transaction().unwrap();
        produce(&producer, topic, 2, 5);
        if commits {
            producer.commit_transaction(TIMEOUT).unwrap();
        } else {
            producer.abort_transaction(TIMEOUT).unwrap();
        }
    }
    kafka.delete_before(1, 7);
    let reader = TopicReader::open(&kafka.config, topic).unwrap();
    let (mut offsets, mut truncated, mut passed) = ([Vec::new(), Vec::new()], Vec::new(), 0);
    let summary = reader
        .read(&mut |event| {
            match event {
                TopicEvent::Record { partition, record } => {
                    offsets[usize::try_from(partition).unwrap()].push(record.offset);
                }
                TopicEvent::Truncated { partition, next } => truncated.push((partition, next.0)),
                TopicEvent::Progress { passed: now } => passed = now,
                TopicEvent::PartitionEnd { .. } => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    // 20 plain ones; then 5 and a marker, four times over; the 2nd and 4th five were taken back.
    let kept = |first: i64| -> Vec<i64> { (first..25).chain(32..37).collect() };
    assert_eq!(offsets, [kept(0), kept(7)]);
    assert_eq!(truncated, [(1, 7)]);
    assert_eq!((summary.records, summary.deleted), (30 + 23, 0));
    assert_eq!(passed, reader.records_max());
    assert_eq!(kafka.committed(), [None, None], "reading committed nothing");
}

/// Waits for a condition that no journal entry announces.
fn wait_until(what: &str, until: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + TIMEOUT;
    while !until() {
        assert!(
            std::time::Instant::now() < deadline,
            "waited too long for {what}"
        );
        thread::park_timeout(Duration::from_millis(20));
    }
}

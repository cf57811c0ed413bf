//! The consumer thread against librdkafka's mock broker: wiring only. What depends on a broker's
//! word (commits while rebalancing, deleted records) is tested against Apache Kafka.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure is the test's"
)]

mod source_recorder;

use std::{
    ops::ControlFlow,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use logguard::source::{KafkaConfig, SourceError, TopicEvent, TopicReader, check_topics};
use rdkafka::{
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
};
use source_recorder::{Entry, Journal, Running, Switches, metadata_at};

const PARTITIONS: i32 = 3;

fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    MockCluster::new(1).unwrap()
}

fn config(brokers: &str) -> KafkaConfig {
    KafkaConfig {
        // The mock broker keeps a first member waiting for 3 s and does not count that as a sign
        // of life.
        session_timeout_ms: 5_000,
        ..source_recorder::config(brokers)
    }
}

fn produce(brokers: &str, topic: &str, per_partition: usize) {
    let producer: BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    for number in 0..per_partition {
        for partition in 0..PARTITIONS {
            let payload = format!("{partition}:{number}");
            let record = BaseRecord::<(), _>::to(topic)
                .partition(partition)
                .payload(&payload);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

fn all_at(entries: &[Entry], member: char, next: i64) -> bool {
    let done = |id: &i32| {
        let last = entries
            .iter()
            .rposition(|it| *it == Entry::Record(member, *id, next - 1));
        let end = entries
            .iter()
            .rposition(|it| *it == Entry::CaughtUp(member, *id));
        last.is_some() && end > last
    };
    (0..PARTITIONS).all(|id| done(&id))
}

#[test]
fn records_are_read_committed_and_not_read_again() {
    let cluster = cluster();
    let config = config(&cluster.bootstrap_servers());
    cluster
        .create_topic(&config.input_topic, PARTITIONS, 1)
        .unwrap();
    produce(&config.brokers, &config.input_topic, 400);

    let journal = Journal::default();
    let first = Running::start(&config, 'a', &journal);
    journal.wait("the first 400", |entries| all_at(entries, 'a', 400));
    let metrics = first.metrics.clone();
    let report = first.stop();
    assert!(report.committed);
    assert_eq!(report.records, 3 * 400);
    assert_eq!(metrics.records.get(), 3 * 400);
    for start in journal.starts('a') {
        assert_eq!(
            (start.next.0, start.metadata, start.partial),
            (0, None, false)
        );
    }

    produce(&config.brokers, &config.input_topic, 100);
    let second = Running::start(&config, 'b', &journal);
    journal.wait("the next 100", |entries| all_at(entries, 'b', 500));
    second.stop();
    for start in journal.starts('b') {
        let expected = (400, Some(metadata_at(400)), false);
        assert_eq!((start.next.0, start.metadata, start.partial), expected);
    }
    for offsets in journal.offsets().values() {
        assert_eq!(*offsets, (0..500).collect::<Vec<i64>>());
    }
}

#[test]
fn a_broker_that_goes_away_disturbs_until_every_partition_was_heard_of_again() {
    let cluster = cluster();
    let config = config(&cluster.bootstrap_servers());
    cluster
        .create_topic(&config.input_topic, PARTITIONS, 1)
        .unwrap();
    produce(&config.brokers, &config.input_topic, 10);
    let journal = Journal::default();
    let member = Running::start(&config, 'a', &journal);
    journal.wait("the records", |entries| all_at(entries, 'a', 10));

    cluster.broker_down(1).unwrap();
    let broken = |entries: &[Entry]| entries.contains(&Entry::Disturbed('a', true));
    journal.wait("the disturbance", broken);
    let before = journal.entries().len();
    cluster.broker_up(1).unwrap();
    // The partitions are idle: only their ends, said again, prove that they are being read.
    journal.wait("the all-clear", |entries| {
        entries[before..].contains(&Entry::Disturbed('a', false))
    });
    let entries = journal.entries();
    let down = entries
        .iter()
        .position(|it| *it == Entry::Disturbed('a', true))
        .unwrap();
    let up = entries
        .iter()
        .rposition(|it| *it == Entry::Disturbed('a', false))
        .unwrap();
    for id in 0..PARTITIONS {
        assert!(
            entries[down..up].contains(&Entry::CaughtUp('a', id)),
            "{id} has not spoken"
        );
    }
    assert_eq!(member.metrics.disturbed.get(), 0);
    member.stop();
    for offsets in journal.offsets().values() {
        assert_eq!(*offsets, (0..10).collect::<Vec<i64>>());
    }
}

#[test]
fn a_member_whose_broker_is_gone_ends_all_the_same_and_says_what_is_not_committed() {
    let cluster = cluster();
    let config = config(&cluster.bootstrap_servers());
    cluster
        .create_topic(&config.input_topic, PARTITIONS, 1)
        .unwrap();
    produce(&config.brokers, &config.input_topic, 10);
    let journal = Journal::default();
    let switches = Switches::default();
    switches.undone.store(true, Ordering::SeqCst);
    let member = Running::with(&config, 'a', &journal, switches);
    journal.wait("the records", |entries| all_at(entries, 'a', 10));
    cluster.broker_down(1).unwrap();
    let broken = |entries: &[Entry]| entries.contains(&Entry::Disturbed('a', true));
    journal.wait("the disturbance", broken);
    member.switches.undone.store(false, Ordering::SeqCst);
    let stopped = Instant::now();
    let report = member.stop();
    assert!(!report.committed);
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_topic_is_read_from_its_beginning_to_the_end_it_had_partition_by_partition() {
    let cluster = cluster();
    let config = config(&cluster.bootstrap_servers());
    cluster
        .create_topic(&config.input_topic, PARTITIONS, 1)
        .unwrap();
    produce(&config.brokers, &config.input_topic, 300);
    let reader = TopicReader::open(&config, &config.input_topic).unwrap();
    assert_eq!(reader.records_max(), 900);
    produce(&config.brokers, &config.input_topic, 50);

    let mut read = Vec::new();
    let mut ends = Vec::new();
    let mut last_progress = 0;
    let summary = reader
        .read(&mut |event| {
            match event {
                TopicEvent::Record { partition, record } => {
                    let payload = String::from_utf8(record.payload.unwrap().to_vec()).unwrap();
                    assert_eq!(payload, format!("{partition}:{}", record.offset));
                    assert!(record.record_time.is_some());
                    read.push((partition, record.offset));
                }
                TopicEvent::PartitionEnd { partition } => ends.push((partition, read.len())),
                TopicEvent::Progress { passed } => last_progress = passed,
                TopicEvent::Truncated { .. } => unreachable!("nothing is deleted"),
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    let in_order = (0..PARTITIONS).flat_map(|id| (0..300).map(move |offset| (id, offset)));
    assert_eq!(read, in_order.collect::<Vec<_>>());
    assert_eq!(ends, [(0, 300), (1, 600), (2, 900)]);
    assert_eq!(
        (summary.records, summary.deleted, summary.stopped),
        (900, 0, false)
    );
    assert_eq!(last_progress, 900);
}

#[test]
fn reading_a_topic_ends_when_the_callback_says_so() {
    let cluster = cluster();
    let config = config(&cluster.bootstrap_servers());
    cluster
        .create_topic(&config.input_topic, PARTITIONS, 1)
        .unwrap();
    produce(&config.brokers, &config.input_topic, 20);
    let reader = TopicReader::open(&config, &config.input_topic).unwrap();
    let mut left = 25;
    let summary = reader
        .read(&mut |event| {
            left -= i32::from(matches!(event, TopicEvent::Record { .. }));
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap();
    assert_eq!((summary.records, summary.stopped), (25, true));
}

#[test]
fn a_broker_that_is_not_there_is_named_with_the_reason() {
    // Bound and dropped: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = config(&format!("127.0.0.1:{port}"));
    let error = check_topics(&config).unwrap_err();
    assert!(
        matches!(error, SourceError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.is_unreachable());
    let text = error.to_string();
    assert!(text.contains(&format!("`127.0.0.1:{port}`")), "{text}");
    assert!(text.contains("refused"), "{text}");
}

//! Writes the corpus to Kafka: each kind, then a good record in the same window, and at the end a
//! record that closes all windows but its own.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use rdkafka::{
    ClientConfig, ClientContext, Message,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::FromClientConfigAndContext,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};

use crate::{
    corpus::{Outcome, kinds},
    shapes::{At, Sent, event},
};

/// Room for lines of 10 MB.
const MESSAGE_BYTES_MAX: &str = "12000000";
const PATIENCE: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(1);
/// 2025-12-24T00:00:00Z, in seconds since the epoch.
const START_S: i64 = 1_766_534_400;
const WINDOW_S: i64 = 30;

/// What was written, and what has to become of it.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Records that a consumer is given.
    pub(crate) readable: u64,
    /// Lines by the start of their window.
    pub(crate) lines: BTreeMap<DateTime<Utc>, i64>,
    /// Dead letters by the offset of their record.
    pub(crate) letters: BTreeMap<i64, Letter>,
    /// Offset of the record that closes the windows.
    pub(crate) last_offset: i64,
}

/// A dead letter that has to be there.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) kind: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) payload: Vec<u8>,
}

/// Creates a topic for large records of long ago.
pub(crate) async fn create_topic(brokers: &str, name: &str) {
    let admin: AdminClient<DefaultClientContext> = config(brokers).create().unwrap();
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1))
        .set("max.message.bytes", MESSAGE_BYTES_MAX)
        .set("retention.ms", "-1");
    let outcome = admin.create_topics([&topic], &AdminOptions::new()).await;
    assert!(outcome.unwrap()[0].is_ok());
}

/// Writes the whole corpus.
pub(crate) fn everything(brokers: &str, topic: &str) -> Written {
    let mut writer = Writer {
        brokers,
        topic,
        producers: BTreeMap::new(),
    };
    let mut written = Written::default();
    let mut start = DateTime::from_timestamp(START_S, 0).unwrap();
    for kind in kinds() {
        let at = At(start);
        let records = (kind.build)(&at);
        let offsets = writer.write(&records, at.ms());
        for (record, offset) in records.iter().zip(offsets) {
            written.readable += u64::from(kind.outcome != Outcome::Unread);
            match kind.outcome {
                Outcome::Unread => {}
                Outcome::Counted => *written.lines.entry(start).or_default() += 1,
                Outcome::Letter(reason) => {
                    let payload = record.payload.clone().unwrap_or_default();
                    let letter = Letter {
                        kind: kind.name,
                        reason,
                        payload,
                    };
                    written.letters.insert(offset, letter);
                }
            }
        }
        writer.good(&mut written, start);
        start += TimeDelta::seconds(WINDOW_S);
    }
    start += TimeDelta::seconds(WINDOW_S);
    written.last_offset = writer.good(&mut written, start);
    written
}

/// Offsets that were confirmed, by the record's place in its batch.
#[derive(Default)]
struct Offsets(Mutex<BTreeMap<usize, i64>>);

impl ClientContext for Offsets {}

impl ProducerContext for Offsets {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        if let Ok(message) = result {
            let mut offsets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            offsets.insert(place, message.offset());
        }
    }
}

fn producer(config: &ClientConfig) -> BaseProducer<Offsets> {
    BaseProducer::from_config_and_context(config, Offsets::default()).unwrap()
}

/// Producers by codec; those with transactions by themselves.
struct Writer<'a> {
    brokers: &'a str,
    topic: &'a str,
    producers: BTreeMap<&'static str, BaseProducer<Offsets>>,
}

impl Writer<'_> {
    /// Writes the good record of the window that starts at `start`.
    fn good(&mut self, written: &mut Written, start: DateTime<Utc>) -> i64 {
        let at = At(start + TimeDelta::seconds(WINDOW_S / 2));
        let good = event(&at).replace("poison", "good").replace("ERROR", "INFO");
        written.readable += 1;
        *written.lines.entry(start).or_default() += 1;
        self.write(&[Sent::of(good)], at.ms())[0]
    }

    /// Writes records of one kind, in one batch if they fit; returns their offsets.
    fn write(&mut self, records: &[Sent], at_ms: i64) -> Vec<i64> {
        let first = &records[0];
        if let Some(commit) = first.transaction {
            let sender = self.transactional();
            sender.begin_transaction().unwrap();
            let offsets = deliver(&sender, self.topic, records, at_ms);
            if commit {
                sender.commit_transaction(PATIENCE).unwrap();
            } else {
                sender.abort_transaction(PATIENCE).unwrap();
            }
            return offsets;
        }
        let (brokers, codec) = (self.brokers, first.codec);
        let sender = self.producers.entry(codec).or_insert_with(|| {
            let mut config = config(brokers);
            producer(config.set("compression.type", codec))
        });
        deliver(sender, self.topic, records, at_ms)
    }

    fn transactional(&self) -> BaseProducer<Offsets> {
        let id = format!("{}-transactions", self.topic);
        let mut config = config(self.brokers);
        let sender = producer(config.set("transactional.id", id));
        sender.init_transactions(PATIENCE).unwrap();
        sender
    }
}

/// Sends the records and waits until the broker has them.
fn deliver(
    sender: &BaseProducer<Offsets>,
    topic: &str,
    records: &[Sent],
    at_ms: i64,
) -> Vec<i64> {
    for (place, sent) in records.iter().enumerate() {
        let mut record: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(topic, place).partition(0).timestamp(at_ms);
        record.payload = sent.payload.as_deref();
        record.key = sent.key.as_deref();
        record.headers = (sent.headers > 0).then(|| headers(sent.headers));
        let sent = sender.send(record);
        sent.unwrap_or_else(|(error, _)| panic!("not sent: {error}"));
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Not `flush`, which looks at the reports ten times a second only.
        sender.poll(POLL_EVERY);
        let mut offsets = sender.context().0.lock().unwrap_or_else(PoisonError::into_inner);
        if offsets.len() == records.len() {
            return std::mem::take(&mut *offsets).into_values().collect();
        }
        assert!(Instant::now() < deadline, "not all were delivered");
    }
}

fn headers(count: usize) -> OwnedHeaders {
    (0..count).fold(OwnedHeaders::new(), |headers, number| {
        let key = format!("\u{1b}[2J header {number}");
        let value = Some(b"\x00\xff\n".as_slice());
        headers.insert(Header { key: &key, value })
    })
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("broker.address.family", "v4")
        .set("message.max.bytes", MESSAGE_BYTES_MAX)
        .set("enable.idempotence", "true")
        .set("linger.ms", "1");
    config
}

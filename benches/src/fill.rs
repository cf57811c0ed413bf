//! Fills a topic from a file, every record acknowledged.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::{events, topic};

/// How a topic is filled.
#[derive(Clone, Debug)]
pub(crate) struct Filling<'a> {
    pub(crate) brokers: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) partitions: i32,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub(crate) codec: &'a str,
}

/// A producer for bulk: idempotent, large batches.
pub(crate) fn producer(brokers: &str, codec: &str, linger_ms: u32) -> Result<BaseProducer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("compression.codec", codec)
        .set("linger.ms", linger_ms.to_string())
        .set("batch.size", "262144")
        .set("queue.buffering.max.messages", "500000");
    config.create().context("cannot create a Kafka producer")
}

/// Sends one record; waits while the client's queue is full.
pub(crate) fn send(
    producer: &BaseProducer,
    topic: &str,
    partition: i32,
    payload: &[u8],
) -> Result<()> {
    loop {
        // The record's own time is the event's: peers cut their windows by it.
        let record = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(partition)
            .key(text_of(payload, "service"))
            .timestamp(time(payload)?)
            .payload(payload);
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(20));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Waits until everything sent is acknowledged.
pub(crate) fn flush(producer: &BaseProducer) -> Result<()> {
    producer.flush(Duration::from_secs(120))?;
    if producer.in_flight_count() > 0 {
        bail!(
            "{} records were not acknowledged",
            producer.in_flight_count()
        );
    }
    Ok(())
}

/// Creates the topic and sends it every line of `file`, one partition after the other; returns how
/// many.
pub(crate) fn fill(filling: &Filling<'_>, file: &Path) -> Result<u64> {
    topic::create(filling.brokers, filling.topic, filling.partitions)?;
    let producer = producer(filling.brokers, filling.codec, 50)?;
    let mut sent: u64 = 0;
    events::for_each_line(file, |line| {
        // Runs of records to one partition fill its batches.
        let partition = (sent / 64) % u64::from(filling.partitions.unsigned_abs().max(1));
        send(&producer, filling.topic, i32::try_from(partition)?, line)?;
        sent += 1;
        if sent.is_multiple_of(1_024) {
            producer.poll(Duration::ZERO);
        }
        Ok(())
    })?;
    flush(&producer)?;
    Ok(sent)
}

/// Returns the text of a member of one of our lines, which have no escapes in those asked for.
fn text_of<'a>(line: &'a [u8], member: &str) -> &'a [u8] {
    let open = format!("\"{member}\":\"");
    let found = line
        .windows(open.len())
        .position(|at| at == open.as_bytes());
    let rest = found.map_or(&[][..], |at| &line[at + open.len()..]);
    let end = rest.iter().position(|byte| *byte == b'"');
    &rest[..end.unwrap_or(0)]
}

/// Returns the event time of one of our lines in milliseconds.
fn time(line: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(text_of(line, "timestamp"))?;
    let time = logguard::decode::parse_timestamp(text);
    Ok(time.context("a line without a timestamp")?.as_millis())
}

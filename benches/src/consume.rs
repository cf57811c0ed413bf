//! (a) and (b): what the broker and the client library can deliver, with nothing or only JSON parsing
//! on top. Runs as a process of its own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde::{Deserialize, Serialize};

use crate::usage::Usage;

/// No record for this long means that something is wrong.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// What is done with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Parse {
    /// Its bytes are counted.
    Nothing,
    /// It becomes a `serde_json::Value`.
    Value,
}

/// Flags of `consume`.
#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    #[arg(long)]
    kafka_brokers: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    events: u64,
    #[arg(long, value_enum)]
    parse: Parse,
    /// librdkafka properties, KEY=VALUE.
    #[arg(long = "kafka")]
    properties: Vec<String>,
}

/// What a drain took.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Drained {
    /// Records.
    pub(crate) events: u64,
    /// From the first record to the last, in seconds.
    pub(crate) seconds: f64,
    /// Of the process, its start included.
    pub(crate) usage: Usage,
}

/// Drains the topic and prints what it took as JSON.
pub(crate) fn consume(args: &ConsumeArgs) -> Result<()> {
    let consumer = assigned(args)?;
    let (mut records, mut bytes, mut members) = (0_u64, 0_usize, 0_usize);
    let mut first: Option<Instant> = None;
    let mut last = Instant::now();
    while records < args.events {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            if last.elapsed() > STALLED_AFTER {
                bail!("{records} of {} records came, then none", args.events);
            }
            continue;
        };
        let message = message?;
        first.get_or_insert_with(Instant::now);
        let payload = message.payload().unwrap_or_default();
        bytes += payload.len();
        if args.parse == Parse::Value {
            let value: serde_json::Value = serde_json::from_slice(payload)?;
            members += value.as_object().map_or(0, serde_json::Map::len);
        }
        records += 1;
        if records % 4_096 == 0 {
            last = Instant::now();
        }
    }
    let drained = Drained {
        events: records,
        seconds: first.map_or(0.0, |first| first.elapsed().as_secs_f64()),
        usage: Usage::of_self()?,
    };
    // So that no optimiser finds the work idle.
    std::hint::black_box((bytes, members));
    serde_json::to_writer(std::io::stdout(), &drained)?;
    Ok(())
}

fn assigned(args: &ConsumeArgs) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &args.kafka_brokers)
        .set("group.id", "logguard-bench-consume")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "2")
        .set("queued.min.messages", "200000")
        .set("queued.max.messages.kbytes", "262144")
        .set("fetch.message.max.bytes", "4194304");
    for property in &args.properties {
        let (key, value) = property.split_once('=').context("expected KEY=VALUE")?;
        config.set(key, value);
    }
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(&args.topic), Duration::from_secs(10))?;
    let mut assignment = TopicPartitionList::new();
    for topic in metadata.topics() {
        for partition in topic.partitions() {
            assignment.add_partition_offset(topic.name(), partition.id(), Offset::Beginning)?;
        }
    }
    consumer.assign(&assignment)?;
    Ok(consumer)
}

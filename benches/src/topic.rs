//! Topics to measure on: made anew, and deleted when done.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    types::RDKafkaErrorCode,
};

/// How long the broker may take to create or delete a topic.
const WITHIN: Duration = Duration::from_secs(30);

fn admin(brokers: &str) -> Result<AdminClient<DefaultClientContext>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config.create().context("cannot create a Kafka client")
}

fn block_on<F: Future>(future: F) -> Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(future))
}

/// Creates `topic`, which must not exist, to keep everything.
pub(crate) fn create(brokers: &str, topic: &str, partitions: i32) -> Result<()> {
    create_as(brokers, &new(topic, partitions))
}

/// Creates `topic`, which must not exist, to keep the last GiB of each partition, and what came since
/// the broker last looked (every five minutes, if not set otherwise).
pub(crate) fn create_bounded(brokers: &str, topic: &str, partitions: i32) -> Result<()> {
    let bounded = new(topic, partitions)
        .set("retention.bytes", "1073741824")
        .set("segment.bytes", "134217728");
    create_as(brokers, &bounded)
}

fn new(topic: &str, partitions: i32) -> NewTopic<'_> {
    NewTopic::new(topic, partitions, TopicReplication::Fixed(1))
        .set("retention.ms", "-1")
        .set("message.timestamp.type", "CreateTime")
}

fn create_as(brokers: &str, new: &NewTopic<'_>) -> Result<()> {
    let options = AdminOptions::new().operation_timeout(Some(WITHIN));
    let admin = admin(brokers)?;
    let results = block_on(admin.create_topics([new], &options))??;
    for result in results {
        if let Err((name, code)) = result
            && code != RDKafkaErrorCode::TopicAlreadyExists
        {
            bail!("cannot create topic `{name}`: {code}");
        }
    }
    Ok(())
}

/// Deletes `topics`; what is not there is no matter.
pub(crate) fn delete(brokers: &str, topics: &[&str]) -> Result<()> {
    let admin = admin(brokers)?;
    let options = AdminOptions::new().operation_timeout(Some(WITHIN));
    block_on(admin.delete_topics(topics, &options))??;
    Ok(())
}

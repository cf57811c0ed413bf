//! The producer: idempotent, acknowledged by all replicas, delivery reports counted.
//!
//! Nothing is given up silently: what the client refuses is waited for, what Kafka does not
//! acknowledge is counted.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};
use tracing::{debug, warn};

use crate::{failure::Failure, stop::Stop};

/// How long the brokers may take to answer the first question.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait when the client's queue is full, before trying again.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(1);

/// Properties that the program decides itself: its promises depend on them.
const RESERVED: [&str; 5] = [
    "acks",
    "bootstrap.servers",
    "enable.idempotence",
    "request.required.acks",
    "test.mock.num.brokers",
];

/// Where events go.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Bootstrap servers, `host:port[,host:port…]`.
    pub brokers: String,
    /// The topic; it must exist.
    pub topic: String,
    /// Whether the service is the record's key; without a key records spread over partitions.
    pub key_by_service: bool,
    /// Further librdkafka properties, `key=value`.
    pub properties: Vec<String>,
}

/// What became of the events handed over.
#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    /// Acknowledged by Kafka.
    pub delivered: u64,
    /// Given up by the client.
    pub failed: u64,
    /// Why the last one was given up; empty if none was.
    pub last_error: String,
}

/// Counts delivery reports; shared with librdkafka's callbacks.
#[derive(Default)]
struct Reports {
    delivered: AtomicU64,
    failed: AtomicU64,
    last_error: Mutex<String>,
}

#[derive(Clone, Default)]
struct Context(Arc<Reports>);

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        warn!(error = %error, "kafka: {reason}");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.0.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                self.0.failed.fetch_add(1, Ordering::Relaxed);
                let mut last = self
                    .0
                    .last_error
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *last = error.to_string();
            }
        }
    }
}

/// A connected producer for one topic.
pub(super) struct Producer {
    client: BaseProducer<Context>,
    reports: Arc<Reports>,
    topic: String,
    key_by_service: bool,
}

impl Producer {
    /// Connects, and makes sure that the topic exists.
    pub(super) fn connect(settings: &KafkaSettings) -> Result<Self, Failure> {
        let config = client_config(settings)?;
        let context = Context::default();
        let reports = Arc::clone(&context.0);
        let client: BaseProducer<Context> = config
            .create_with_context(context)
            .map_err(Failure::Client)?;
        // All topics are asked for: asking for one by name would create it on many clusters.
        let metadata = client
            .client()
            .fetch_metadata(None, CONNECT_TIMEOUT)
            .map_err(|source| Failure::Unreachable {
                brokers: settings.brokers.clone(),
                timeout: CONNECT_TIMEOUT,
                source,
            })?;
        let known = metadata
            .topics()
            .iter()
            .find(|topic| topic.name() == settings.topic);
        let Some(topic) = known else {
            return Err(Failure::NoTopic {
                topic: settings.topic.clone(),
                brokers: settings.brokers.clone(),
            });
        };
        debug!(partitions = topic.partitions().len(), "topic found");
        Ok(Self {
            client,
            reports,
            topic: settings.topic.clone(),
            key_by_service: settings.key_by_service,
        })
    }

    /// Hands over one event, waiting while the client's queue is full. Returns `false` if `stop` was
    /// raised before there was room.
    pub(super) fn send(&self, line: &[u8], service: &str, stop: &Stop) -> Result<bool, Failure> {
        let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(&self.topic).payload(line);
        if self.key_by_service {
            record = record.key(service);
        }
        loop {
            match self.client.send(record) {
                Ok(()) => return Ok(true),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    if stop.wait_timeout(QUEUE_FULL_WAIT) {
                        return Ok(false);
                    }
                    self.serve();
                    record = refused;
                }
                Err((source, _)) => {
                    return Err(Failure::Produce {
                        topic: self.topic.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// Serves the delivery reports that are there. Never waits: rdkafka's own wait burns a core for
    /// the last millisecond of it.
    pub(super) fn serve(&self) {
        self.client.poll(Duration::ZERO);
    }

    /// Returns the delivery reports so far.
    pub(super) fn deliveries(&self) -> Deliveries {
        let last_error = self
            .reports
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Deliveries {
            delivered: self.reports.delivered.load(Ordering::Relaxed),
            failed: self.reports.failed.load(Ordering::Relaxed),
            last_error: last_error.clone(),
        }
    }

    /// Sends what is left and waits for the delivery reports, at most `timeout`.
    pub(super) fn close(&self, timeout: Duration) -> Deliveries {
        let flushed = self.client.flush(timeout);
        let mut deliveries = self.deliveries();
        if let Err(error) = flushed
            && deliveries.last_error.is_empty()
        {
            deliveries.last_error = format!("{error} while waiting {} s", timeout.as_secs());
        }
        deliveries
    }
}

fn client_config(settings: &KafkaSettings) -> Result<ClientConfig, Failure> {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "producer-sim")
        .set("compression.type", "lz4")
        // Enough for good batches at high rates, too little to be noticed in an alarm's delay; many
        // one-message batches would make fetching from the embedded broker slow.
        .set("linger.ms", "10");
    for property in &settings.properties {
        let refuse = |reason: &str| Failure::Property {
            property: property.clone(),
            reason: reason.to_owned(),
        };
        let (key, value) = property
            .split_once('=')
            .ok_or_else(|| refuse("expected key=value"))?;
        if RESERVED.contains(&key) {
            return Err(refuse("this property is the program's own"));
        }
        config.set(key, value);
    }
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("acks", "all")
        .set("enable.idempotence", "true");
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(properties: &[&str]) -> KafkaSettings {
        KafkaSettings {
            brokers: "127.0.0.1:1".to_owned(),
            topic: "t".to_owned(),
            key_by_service: false,
            properties: properties
                .iter()
                .map(|&property| property.to_owned())
                .collect(),
        }
    }

    #[test]
    fn properties_are_passed_on_but_promises_are_kept() {
        let config = client_config(&settings(&["linger.ms=20", "sasl.password=a=b"])).unwrap();
        assert_eq!(config.get("linger.ms"), Some("20"));
        assert_eq!(config.get("sasl.password"), Some("a=b"));
        assert_eq!(config.get("acks"), Some("all"));
        for reserved in ["acks=1", "enable.idempotence=false", "linger.ms"] {
            let refused = client_config(&settings(&[reserved])).unwrap_err();
            assert_eq!(refused.exit_code(), 3, "{reserved}");
        }
    }
}

//! Checks before anything starts: is there a broker, are there the topics?
//!
//! Nothing here creates a topic: a consumer asks, and consumers do not create what they ask for.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{IsError, KafkaError, KafkaResult},
    types::{RDKafkaErrorCode, RDKafkaRespErr},
};

use super::{KafkaConfig, SourceError};

/// Longest wait for the brokers to answer, TLS and SASL handshakes included.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait before looking whether a broker has refused us, which librdkafka takes for a reason
/// to try again: long enough for another broker of the list to answer.
const REFUSED_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Longest wait for the same answer from a consumer that is connected.
const RECHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to listen for the reason why no broker answered.
const REASON_TIMEOUT: Duration = Duration::from_millis(200);

/// Checks that the input, output and dead-letter topics exist, and returns how many partitions the
/// input topic has.
///
/// # Errors
/// [`SourceError::Unreachable`] when no broker answers within 10 s,
/// [`SourceError::LoginRefused`] or [`SourceError::Untrusted`] when one does and security stands
/// in the way, else [`SourceError::MissingTopics`] with all that are missing, or [`SourceError::Denied`].
pub fn check_topics(config: &KafkaConfig) -> Result<usize, SourceError> {
    config.validate()?;
    let client = connect(config)?;
    let mut partitions = Vec::new();
    let mut topics = Vec::new();
    for (setting, topic) in config.topics() {
        match metadata(&client, config, topic)? {
            Some(found) => partitions.push(found.len()),
            None => topics.push((setting, topic.to_owned())),
        }
    }
    if topics.is_empty() {
        return Ok(partitions.first().copied().unwrap_or(0));
    }
    Err(SourceError::MissingTopics {
        brokers: config.brokers.clone(),
        topics,
    })
}

/// A consumer that keeps the last error's text.
pub(super) type Client = BaseConsumer<LastError>;

/// Returns a consumer that is in no group.
pub(super) fn connect(config: &KafkaConfig) -> Result<Client, SourceError> {
    connect_with(config, &[])
}

/// Returns the same with further settings, which override all others.
pub(super) fn connect_with(
    config: &KafkaConfig,
    further: &[(&str, String)],
) -> Result<Client, SourceError> {
    let mut settings = config.reader_config();
    for (key, value) in further {
        settings.set(*key, value);
    }
    // Assigning by hand needs a name, though nothing is joined and nothing committed under it.
    settings.set("group.id", format!("{}-reader", config.consumer_group));
    settings
        .create_with_context(LastError::default())
        .map_err(|source| SourceError::Client {
            client: "reader",
            source: source.into(),
        })
}

/// Returns a topic's partitions, or `None` if there is no such topic.
pub(super) fn metadata(
    client: &Client,
    config: &KafkaConfig,
    topic: &str,
) -> Result<Option<Vec<i32>>, SourceError> {
    let deadline = Instant::now() + METADATA_TIMEOUT;
    let answer = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match partitions(client, topic, left.min(REFUSED_CHECK_INTERVAL)) {
            Err(KafkaError::MetadataFetch(code)) if is_no_answer(code) => {
                if let Some(refused) = refused(client, config) {
                    return Err(refused);
                }
                if left <= REFUSED_CHECK_INTERVAL {
                    break Err(KafkaError::MetadataFetch(code));
                }
            }
            answer => break answer,
        }
    };
    match answer {
        Ok(partitions) => Ok(partitions),
        Err(KafkaError::MetadataFetch(RDKafkaErrorCode::TopicAuthorizationFailed)) => {
            Err(SourceError::Denied {
                what: format!("topic `{topic}` (Describe)"),
                source: Box::new(KafkaError::MetadataFetch(
                    RDKafkaErrorCode::TopicAuthorizationFailed,
                )),
            })
        }
        Err(source) => Err(SourceError::Unreachable {
            brokers: config.brokers.clone(),
            reason: client.context().reason(),
            source: source.into(),
        }),
    }
}

/// Tells whether the broker knows nothing of a topic that is being read.
pub(super) fn is_missing<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
) -> KafkaResult<bool> {
    partitions(consumer, topic, RECHECK_TIMEOUT).map(|partitions| partitions.is_none())
}

fn partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    timeout: Duration,
) -> KafkaResult<Option<Vec<i32>>> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let found = metadata.topics().iter().find(|it| it.name() == topic);
    let Some(found) = found else {
        return Ok(None);
    };
    match found.error() {
        None => {}
        Some(
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID,
        ) => return Ok(None),
        // The topic is there; that its leader moves just now is no reason to refuse it.
        Some(error) if error.is_error() && found.partitions().is_empty() => {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        Some(_) => {}
    }
    let ids = found.partitions().iter();
    Ok(Some(
        ids.map(rdkafka::metadata::MetadataPartition::id).collect(),
    ))
}

fn is_no_answer(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::Authentication
            | Code::SSL
    )
}

/// Returns the last error if it is a refusal, serving the client's events for a moment to get it.
fn refused(client: &Client, config: &KafkaConfig) -> Option<SourceError> {
    let deadline = Instant::now() + REASON_TIMEOUT;
    while Instant::now() < deadline {
        if let Some(Err(error)) = client.poll(REASON_TIMEOUT) {
            tracing::debug!(error = %error, "no broker answered");
        }
    }
    let (brokers, reason) = (config.brokers.clone(), client.context().reason());
    match client.context().code()? {
        RDKafkaErrorCode::Authentication => Some(SourceError::LoginRefused { brokers, reason }),
        RDKafkaErrorCode::SSL => Some(SourceError::Untrusted { brokers, reason }),
        // Said after the handshake, when the broker has looked for our certificate.
        RDKafkaErrorCode::BrokerTransportFailure if reason.contains("SSL alert") => {
            Some(SourceError::Untrusted { brokers, reason })
        }
        _ => None,
    }
}

/// What a broker does that expects another protocol.
const CLOSED_AT_ONCE: &str = "it closes the connection at the first request; is \
                              `security.protocol` right for this port?";

/// What a broker does that expects no TLS; librdkafka words it by the moment it notices.
const NO_TLS: &str = "it breaks off the TLS handshake; a PLAINTEXT listener? Is `security.protocol` \
                      right for this port?";

/// Keeps the last error: its code and its text in one line.
#[derive(Default)]
pub(super) struct LastError(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl LastError {
    fn keep(&self, code: RDKafkaErrorCode, reason: &str) {
        let words: Vec<&str> = reason.split_whitespace().collect();
        if let Ok(mut last) = self.0.lock() {
            *last = Some((code, words.join(" ")));
        }
    }

    fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0.lock().ok()?.clone()
    }

    fn code(&self) -> Option<RDKafkaErrorCode> {
        self.last().map(|(code, _)| code)
    }

    fn reason(&self) -> String {
        let reason = self.last().map(|(_, reason)| reason);
        reason.unwrap_or_else(|| "no answer in time".to_owned())
    }
}

impl ClientContext for LastError {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        // One error comes of a failed check, with the last reason in it; the rest is detail.
        tracing::debug!(facility, "{message}");
        // Of this librdkafka makes no error, only a line.
        if message.contains("Disconnected") && message.contains("in state APIVERSION_QUERY") {
            self.keep(RDKafkaErrorCode::BrokerTransportFailure, CLOSED_AT_ONCE);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let all_down = KafkaError::Global(RDKafkaErrorCode::AllBrokersDown);
        let at_end = KafkaError::Global(RDKafkaErrorCode::PartitionEOF);
        // "1/1 brokers are down" says less than what came before it.
        if error != all_down
            && error != at_end
            && let Some(code) = error.rdkafka_error_code()
        {
            let no_tls = code == RDKafkaErrorCode::BrokerTransportFailure
                && reason.contains("in state SSL_HANDSHAKE")
                && !reason.contains("SSL alert");
            self.keep(code, if no_tls { NO_TLS } else { reason });
        }
    }
}

impl ConsumerContext for LastError {}

//! What can end reading from Kafka, and what a librdkafka error means for us.

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode};

use super::KafkaConfigError;

/// Why reading from Kafka could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] KafkaConfigError),
    /// librdkafka refused the settings.
    #[error("failed to create the Kafka {client}; check `kafka.properties`")]
    Client {
        /// Which client.
        client: &'static str,
        /// The settings it refused.
        #[source]
        source: Box<KafkaError>,
    },
    /// No broker answers.
    #[error(
        "no Kafka broker answers at `{brokers}` ({reason}); is it running, and is the address right?"
    )]
    Unreachable {
        /// The bootstrap servers.
        brokers: String,
        /// What librdkafka said last.
        reason: String,
        /// The failed request.
        #[source]
        source: Box<KafkaError>,
    },
    /// A broker answers and refuses the login.
    #[error(
        "Kafka at `{brokers}` refuses the login ({reason}); check `sasl.username`, \
         `sasl.password` and `sasl.mechanisms` in `kafka.properties`"
    )]
    LoginRefused {
        /// The bootstrap servers.
        brokers: String,
        /// What librdkafka said.
        reason: String,
    },
    /// A broker answers, and no TLS connection comes about.
    #[error(
        "no trusted TLS connection to Kafka at `{brokers}` ({reason}); check `ssl.ca.location` in \
         `kafka.properties`, that the broker's certificate is valid and made out to this host \
         name, and `ssl.certificate.location` if it asks for one of ours"
    )]
    Untrusted {
        /// The bootstrap servers.
        brokers: String,
        /// What librdkafka said.
        reason: String,
    },
    /// Topics do not exist.
    #[error("missing at `{brokers}`: {}; create them first", named(.topics))]
    MissingTopics {
        /// The bootstrap servers.
        brokers: String,
        /// Names, with the settings they come from.
        topics: Vec<(&'static str, String)>,
    },
    /// The broker does not let us.
    #[error("Kafka refuses access to {what}; grant it to this user")]
    Denied {
        /// Topic or group, and the operation it needs.
        what: String,
        /// The refusal.
        #[source]
        source: Box<KafkaError>,
    },
    /// The topic was there and is gone.
    #[error("topic `{topic}` was deleted while it was read")]
    TopicDeleted {
        /// The topic.
        topic: String,
    },
    /// Nothing came for so long that going on would be waiting for ever.
    #[error("reading `{topic}` partition {partition} stalled at offset {offset} for {seconds} s")]
    Stalled {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The next offset wanted.
        offset: i64,
        /// How long nothing came.
        seconds: u64,
    },
    /// librdkafka cannot go on.
    #[error("the Kafka consumer failed for good ({reason})")]
    Fatal {
        /// What librdkafka said last.
        reason: String,
        /// The error.
        #[source]
        source: Box<KafkaError>,
    },
    /// The operating system gave no thread.
    #[error("failed to start the consumer thread")]
    Thread(#[source] std::io::Error),
}

impl SourceError {
    /// Tells whether something else has to be there first: a broker that answers, or topics.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::MissingTopics { .. }
                | Self::TopicDeleted { .. }
                | Self::Stalled { .. }
                | Self::Fatal { .. }
        )
    }
}

fn named(topics: &[(&'static str, String)]) -> String {
    let names: Vec<String> = topics
        .iter()
        .map(|(setting, topic)| format!("topic `{topic}` (`kafka.{setting}`)"))
        .collect();
    names.join(", ")
}

/// What an error from a poll means for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Everything in the partition has been handed over.
    EndOfPartition(i32),
    /// A position does not exist on the broker: retention took it, or the topic was made anew.
    OutOfRange,
    /// The topic may be gone.
    TopicUnknown,
    /// We are not allowed.
    Denied,
    /// The client is unusable.
    Fatal,
    /// Reading is disturbed and goes on by itself.
    Disturbed,
}

/// Says what an error from a poll means.
pub(super) fn meaning(error: &KafkaError) -> Meaning {
    use RDKafkaErrorCode as Code;
    if let KafkaError::PartitionEOF(partition) = error {
        return Meaning::EndOfPartition(*partition);
    }
    if let KafkaError::MessageConsumptionFatal(_) = error {
        return Meaning::Fatal;
    }
    match error.rdkafka_error_code() {
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation) => {
            Meaning::OutOfRange
        }
        Some(
            Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopicId,
        ) => Meaning::TopicUnknown,
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed,
        ) => Meaning::Denied,
        Some(Code::Fatal) => Meaning::Fatal,
        _ => Meaning::Disturbed,
    }
}

/// Tells whether a failed commit is part of a rebalance: another member will read again from the
/// last commit that went through.
pub(super) fn is_redelivered(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::NoOffset
                | Code::RebalanceInProgress
                | Code::UnknownMemberId
                | Code::IllegalGeneration
                | Code::StaleMemberEpoch
                | Code::FencedMemberEpoch
                | Code::AssignmentLost
        )
    )
}

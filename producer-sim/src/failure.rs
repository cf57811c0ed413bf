//! Why the program stops without having done what it was asked, and the exit code that goes with it.

use std::{io, path::PathBuf, time::Duration};

use rdkafka::error::KafkaError;

/// An end that is not success. Clap reports wrong usage by itself, with exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A Kafka property that cannot be set.
    #[error("cannot use --kafka {property}: {reason}")]
    Property {
        /// The `key=value` as given.
        property: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client could not be made from its properties.
    #[error("cannot set up the Kafka client, check the --kafka properties")]
    Client(#[source] KafkaError),
    /// No broker answered.
    #[error("cannot reach Kafka at {brokers} within {} s, check that it is running and --kafka-brokers is right", timeout.as_secs())]
    Unreachable {
        /// The bootstrap servers.
        brokers: String,
        /// How long was waited.
        timeout: Duration,
        /// What the client said.
        #[source]
        source: KafkaError,
    },
    /// The topic does not exist.
    #[error(
        "topic `{topic}` does not exist at {brokers}: create it first, or name another with --topic"
    )]
    NoTopic {
        /// The topic.
        topic: String,
        /// The bootstrap servers.
        brokers: String,
    },
    /// The producer cannot go on.
    #[error("cannot produce to topic `{topic}`")]
    Produce {
        /// The topic.
        topic: String,
        /// What the client said.
        #[source]
        source: KafkaError,
    },
    /// Events were given up.
    #[error("{lost} of {sent} events were not acknowledged by Kafka (last error: {reason})")]
    Undelivered {
        /// Events that were not acknowledged.
        lost: u64,
        /// Events handed to the client.
        sent: u64,
        /// The last delivery error.
        reason: String,
    },
    /// The address to listen on is not to be had.
    #[error("cannot listen on {address}, choose another address with --listen")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The mock broker did not start.
    #[error("cannot start the embedded broker")]
    Broker(#[source] KafkaError),
    /// The proxy before the broker, or the wait for signals, could not be set up.
    #[error("cannot set up {what}")]
    Setup {
        /// What was to be set up.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be opened.
    #[error("cannot open `{}` for writing", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written any more.
    #[error("cannot write `{}`, it is incomplete", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Failure {
    /// Returns the exit code: 1 a file or system call failed under way, 3 configuration, 4 something
    /// this depends on cannot be reached.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Write { .. } | Self::Setup { .. } => 1,
            Self::Property { .. } | Self::Client(_) | Self::Open { .. } => 3,
            Self::Unreachable { .. }
            | Self::NoTopic { .. }
            | Self::Produce { .. }
            | Self::Undelivered { .. }
            | Self::Listen { .. }
            | Self::Broker(_) => 4,
        }
    }

    /// Returns whether the reader of standard output went away, which is no failure (`| head`).
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Write { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

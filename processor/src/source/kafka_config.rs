//! The `[kafka]` section, and the librdkafka settings made from it.
//!
//! What the offset rules depend on is fixed here and cannot be passed through: nothing commits but
//! the consumer thread, and no offset is reset behind its back.

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use serde::{Deserialize, Serialize};

use super::KafkaProperties;

/// How partitions are dealt out within a classic group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssignmentStrategy {
    /// Contiguous ranges, everything revoked at each rebalance: the quickest and the simplest.
    #[default]
    Range,
    /// Evenly, everything revoked at each rebalance.
    #[serde(rename = "roundrobin")]
    RoundRobin,
    /// Moves only what has to move, in two rounds.
    CooperativeSticky,
}

impl AssignmentStrategy {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }
}

/// Who deals out the partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    /// The members (works with every broker).
    #[default]
    Classic,
    /// The broker (KIP-848, Kafka 4.0 and later); session timeout and assignor are the broker's.
    Consumer,
}

/// Where Kafka is and how we take part in the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Bootstrap servers, `host:port` separated by commas. Default `localhost:9092`.
    pub brokers: String,
    /// Topic with the log events. Default `log-events`.
    pub input_topic: String,
    /// Topic for the result messages. Default `anomaly-results`.
    pub output_topic: String,
    /// Topic for records that cannot be scored. Default `log-events.dlq`.
    pub dead_letter_topic: String,
    /// Consumer group; replicas that share the work share it. Default `logguard-processor`.
    pub consumer_group: String,
    /// Name brokers log and set quotas by. Default `logguard`.
    pub client_id: String,
    /// Who deals out the partitions: `classic` (default, works with every broker) or `consumer`.
    pub group_protocol: GroupProtocol,
    /// Assignor of a classic group: `range` (default), `roundrobin` or `cooperative-sticky`.
    pub assignment_strategy: AssignmentStrategy,
    /// Milliseconds without a heartbeat after which the group takes a member for dead (classic
    /// groups only). Default 10,000: a killed replica's windows are scored again within 30 s.
    pub session_timeout_ms: u64,
    /// Milliseconds without a poll after which a member leaves by itself. Default 300,000: a
    /// stalled thread is no reason to shuffle partitions quickly.
    pub max_poll_interval_ms: u64,
    /// Milliseconds between commits of what is done. Default 1,000: less costs the broker, more
    /// is read again after a crash.
    pub commit_interval_ms: u64,
    /// Milliseconds to wait for acks when partitions are revoked; at most half the session
    /// timeout. Default 4,000.
    pub drain_timeout_ms: u64,
    /// Milliseconds to wait for acks at shutdown. Default 15,000: longer than a slow store needs
    /// for what is open, shorter than the 30 s after which supervisors kill.
    pub shutdown_timeout_ms: u64,
    /// Further librdkafka settings, for all clients: TLS, SASL, buffers. Those the offset rules
    /// depend on are refused. `NAME_file` gives a property by a file that holds its value. Default
    /// none.
    pub properties: KafkaProperties,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".to_owned(),
            input_topic: "log-events".to_owned(),
            output_topic: "anomaly-results".to_owned(),
            dead_letter_topic: "log-events.dlq".to_owned(),
            consumer_group: "logguard-processor".to_owned(),
            client_id: "logguard".to_owned(),
            group_protocol: GroupProtocol::default(),
            assignment_strategy: AssignmentStrategy::default(),
            session_timeout_ms: 10_000,
            max_poll_interval_ms: 300_000,
            commit_interval_ms: 1_000,
            drain_timeout_ms: 4_000,
            shutdown_timeout_ms: 15_000,
            properties: KafkaProperties::default(),
        }
    }
}

/// A `[kafka]` section that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaConfigError {
    /// A name is missing.
    #[error("`kafka.{setting}` is empty")]
    Empty {
        /// The setting.
        setting: &'static str,
    },
    /// Kafka would refuse the topic's name.
    #[error(
        "`kafka.{setting}` is `{topic}`, which is no topic name: use 1 to 249 letters, digits, `.`, `_`, `-`"
    )]
    TopicName {
        /// The setting.
        setting: &'static str,
        /// The name.
        topic: String,
    },
    /// What is written would be read again, or results and dead letters would mix.
    #[error("`kafka.{first}` and `kafka.{second}` name the same topic `{topic}`")]
    SameTopic {
        /// One setting.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// The name.
        topic: String,
    },
    /// A time is out of its range.
    #[error("`kafka.{setting}` is {value} ms: it must be {rule}")]
    Time {
        /// The setting.
        setting: &'static str,
        /// Its value in milliseconds.
        value: u64,
        /// What it must be.
        rule: String,
    },
    /// The property is fixed, or has a setting of its own.
    #[error("`kafka.properties` may not hold `{key}`: {instead}")]
    Reserved {
        /// The property.
        key: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// The value is there and in a file as well.
    #[error("`kafka.properties` holds `{key}` twice, itself and as `{key}_file`; leave one out")]
    GivenTwice {
        /// The property.
        key: String,
    },
    /// The file with the value cannot be read.
    #[error("cannot read `{path}`, which `{name}` in `kafka.properties` names: {reason}")]
    File {
        /// The setting.
        name: String,
        /// The file.
        path: String,
        /// What the file system says.
        reason: String,
    },
}

/// Properties that may not be passed through, and what to do instead.
const RESERVED: [(&str, &str); 23] = [
    ("acks", "results are always acknowledged by all replicas"),
    ("auto.commit.enable", FIXED),
    ("auto.commit.interval.ms", FIXED),
    ("auto.offset.reset", FIXED),
    ("bootstrap.servers", "set `kafka.brokers`"),
    ("client.id", "set `kafka.client_id`"),
    ("enable.auto.commit", FIXED),
    ("enable.auto.offset.store", FIXED),
    ("enable.idempotence", "producers are always idempotent"),
    ("enable.partition.eof", FIXED),
    ("group.id", "set `kafka.consumer_group`"),
    ("group.protocol", "set `kafka.group_protocol`"),
    (
        "heartbeat.interval.ms",
        "it follows from `kafka.session_timeout_ms`",
    ),
    ("log.queue", FIXED),
    ("log_level", "set the log filter of this program"),
    ("max.poll.interval.ms", "set `kafka.max_poll_interval_ms`"),
    ("metadata.broker.list", "set `kafka.brokers`"),
    ("offset.store.method", FIXED),
    (
        "partition.assignment.strategy",
        "set `kafka.assignment_strategy`",
    ),
    (
        "request.required.acks",
        "results are always acknowledged by all replicas",
    ),
    ("session.timeout.ms", "set `kafka.session_timeout_ms`"),
    (
        "transactional.id",
        "sinks are idempotent and use no transactions",
    ),
    ("statistics.interval.ms", FIXED),
];

const FIXED: &str = "its value is fixed, offsets and lag depend on it";

/// Milliseconds between librdkafka's statistics, from which lag is reported.
const STATISTICS_INTERVAL_MS: u64 = 5_000;
/// Most milliseconds between heartbeats; librdkafka's default.
const HEARTBEAT_INTERVAL_MS_MAX: u64 = 3_000;

/// Consumer settings that carry what was measured. `fetch.queue.backoff.ms` at its default of
/// 1,000 stalls a fast drain; 256 KiB a fetch and 4 MiB a queue give full speed at half the
/// memory of 1 MiB and 16 MiB (a fetch is that much of each partition, and several times as much
/// once uncompressed). Measured on loopback: one fetch at a time is under way for each broker, so far
/// from the brokers larger ones are faster. A larger record is fetched all the same. What the client
/// would tell the broker of itself costs a lock at each poll; whoever wants it sets the property.
const CONSUMER_TUNING: [(&str, &str); 5] = [
    ("enable.metrics.push", "false"),
    ("fetch.message.max.bytes", "262144"),
    ("fetch.queue.backoff.ms", "2"),
    ("queued.max.messages.kbytes", "4096"),
    ("queued.min.messages", "200000"),
];

/// Producer settings: 10 ms of batching cost nothing beside a 30 s window, lz4 costs little CPU.
const PRODUCER_TUNING: [(&str, &str); 2] = [("linger.ms", "10"), ("compression.type", "lz4")];

impl KafkaConfig {
    /// Checks the section.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), KafkaConfigError> {
        for (setting, value) in [
            ("brokers", &self.brokers),
            ("consumer_group", &self.consumer_group),
            ("client_id", &self.client_id),
        ] {
            if value.trim().is_empty() {
                return Err(KafkaConfigError::Empty { setting });
            }
        }
        self.validate_topics()?;
        self.validate_times()?;
        for key in self.properties.0.keys() {
            let property = key.strip_suffix("_file").unwrap_or(key);
            if let Some((_, instead)) = RESERVED.iter().find(|(name, _)| *name == property) {
                let key = key.clone();
                return Err(KafkaConfigError::Reserved { key, instead });
            }
        }
        Ok(())
    }

    /// Returns the three topics with their settings' names.
    pub(crate) fn topics(&self) -> [(&'static str, &str); 3] {
        [
            ("input_topic", &self.input_topic),
            ("output_topic", &self.output_topic),
            ("dead_letter_topic", &self.dead_letter_topic),
        ]
    }

    fn validate_topics(&self) -> Result<(), KafkaConfigError> {
        let topics = self.topics();
        for (setting, topic) in topics {
            if !is_topic_name(topic) {
                let topic = topic.to_owned();
                return Err(KafkaConfigError::TopicName { setting, topic });
            }
        }
        for (first, second) in [(0, 1), (0, 2), (1, 2)] {
            if topics[first].1 == topics[second].1 {
                return Err(KafkaConfigError::SameTopic {
                    first: topics[first].0,
                    second: topics[second].0,
                    topic: topics[first].1.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn validate_times(&self) -> Result<(), KafkaConfigError> {
        // librdkafka's own upper bound for its timeouts.
        const DAY_MS: u64 = 86_400_000;
        let session = self.session_timeout_ms;
        for (setting, value, min, max, why) in [
            ("session_timeout_ms", session, 1_000, 3_600_000, ""),
            (
                "max_poll_interval_ms",
                self.max_poll_interval_ms,
                session.max(10_000),
                DAY_MS,
                " (no less than the session timeout)",
            ),
            (
                "commit_interval_ms",
                self.commit_interval_ms,
                50,
                60_000,
                "",
            ),
            (
                "drain_timeout_ms",
                self.drain_timeout_ms,
                100,
                session / 2,
                " (half the session timeout)",
            ),
            (
                "shutdown_timeout_ms",
                self.shutdown_timeout_ms,
                100,
                600_000,
                "",
            ),
        ] {
            if !(min..=max).contains(&value) {
                return Err(KafkaConfigError::Time {
                    setting,
                    value,
                    rule: format!("{min} to {max} ms{why}"),
                });
            }
        }
        Ok(())
    }

    /// Returns the settings every client shares (addresses, names, what is passed through) over
    /// `tuning`, which they override.
    fn client_config(&self, tuning: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, value) in tuning {
            config.set(*key, *value);
        }
        for (key, value) in self.properties.passed() {
            config.set(key, value);
        }
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set_log_level(RDKafkaLogLevel::Info);
        config
    }

    /// Returns the settings of a producer: idempotent, acknowledged by all replicas.
    #[must_use]
    pub fn producer_config(&self) -> ClientConfig {
        let mut config = self.client_config(&PRODUCER_TUNING);
        config.set("acks", "all").set("enable.idempotence", "true");
        config
    }

    /// Returns the settings of the group's consumer.
    #[must_use]
    pub fn consumer_config(&self) -> ClientConfig {
        let mut config = self.reader_config();
        config
            .set("group.id", &self.consumer_group)
            .set(
                "max.poll.interval.ms",
                self.max_poll_interval_ms.to_string(),
            )
            .set("statistics.interval.ms", STATISTICS_INTERVAL_MS.to_string());
        match self.group_protocol {
            GroupProtocol::Classic => {
                let heartbeat = HEARTBEAT_INTERVAL_MS_MAX.min(self.session_timeout_ms / 3);
                config
                    .set("group.protocol", "classic")
                    .set(
                        "partition.assignment.strategy",
                        self.assignment_strategy.as_str(),
                    )
                    .set("session.timeout.ms", self.session_timeout_ms.to_string())
                    .set("heartbeat.interval.ms", heartbeat.to_string());
            }
            GroupProtocol::Consumer => {
                config.set("group.protocol", "consumer");
            }
        }
        config
    }

    /// Returns the settings of a consumer that reads without a group: it never commits, and a
    /// position that is gone is an error, not a silent jump.
    pub(crate) fn reader_config(&self) -> ClientConfig {
        let mut config = self.client_config(&CONSUMER_TUNING);
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error");
        config
    }
}

fn is_topic_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name.bytes().all(legal) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut KafkaConfig)) -> Result<(), String> {
        let mut config = KafkaConfig::default();
        change(&mut config);
        config.validate().map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_valid_and_make_clients() {
        let config = KafkaConfig::default();
        config.validate().unwrap();
        config.consumer_config().create_native_config().unwrap();
        config.reader_config().create_native_config().unwrap();
        config.producer_config().create_native_config().unwrap();
    }

    #[test]
    fn the_broker_side_protocol_takes_none_of_the_classic_settings() {
        let config = KafkaConfig {
            group_protocol: GroupProtocol::Consumer,
            ..KafkaConfig::default()
        };
        let client: rdkafka::error::KafkaResult<rdkafka::consumer::BaseConsumer> =
            config.consumer_config().create();
        client.unwrap();
    }

    #[test]
    fn what_cannot_work_is_said() {
        let cases = [
            (
                with(|config| config.brokers = " ".to_owned()),
                "`kafka.brokers` is empty",
            ),
            (
                with(|config| config.input_topic = "log events".to_owned()),
                "`kafka.input_topic` is `log events`, which is no topic name: use 1 to 249 letters, digits, `.`, `_`, `-`",
            ),
            (
                with(|config| config.dead_letter_topic = "log-events".to_owned()),
                "`kafka.input_topic` and `kafka.dead_letter_topic` name the same topic `log-events`",
            ),
            (
                with(|config| config.drain_timeout_ms = 6_000),
                "`kafka.drain_timeout_ms` is 6000 ms: it must be 100 to 5000 ms (half the session timeout)",
            ),
            (
                with(|config| {
                    let key = "enable.auto.commit".to_owned();
                    config.properties.0.insert(key, "true".to_owned());
                }),
                "`kafka.properties` may not hold `enable.auto.commit`: its value is fixed, offsets and lag depend on it",
            ),
        ];
        for (result, expected) in cases {
            assert_eq!(result.unwrap_err(), expected);
        }
    }

    #[test]
    fn properties_reach_every_client_and_override_the_tuning() {
        let mut config = KafkaConfig::default();
        for (key, value) in [("queued.min.messages", "10"), ("security.protocol", "ssl")] {
            config.properties.0.insert(key.to_owned(), value.to_owned());
        }
        let consumer = config.consumer_config();
        assert_eq!(consumer.get("queued.min.messages"), Some("10"));
        assert_eq!(consumer.get("security.protocol"), Some("ssl"));
        assert_eq!(
            config.producer_config().get("security.protocol"),
            Some("ssl")
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let config: KafkaConfig = serde_json::from_str(
            r#"{"properties":{"sasl.password":"hunter2","ssl":{"key":{"pem":"hunter2","location":"/k"}},
                "sasl.oauthbearer.token.endpoint.url":"https://t"}}"#,
        )
        .unwrap();
        let json = serde_json::to_string(&config).unwrap();
        for shown in [json, format!("{config:?}")] {
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(
                shown.contains("/k") && shown.contains("https://t"),
                "{shown}"
            );
        }
        assert_eq!(
            config.consumer_config().get("sasl.password"),
            Some("hunter2")
        );
    }

    #[test]
    fn files_give_properties_and_are_shown_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "hunter2\n").unwrap();
        let mut config = KafkaConfig::default();
        let path = file.display().to_string();
        let name = "sasl.password_file".to_owned();
        config.properties.0.insert(name, path.clone());
        config.properties.read_files().unwrap();
        let consumer = config.consumer_config();
        assert_eq!(consumer.get("sasl.password"), Some("hunter2"));
        assert_eq!(consumer.get("sasl.password_file"), None);
        let shown = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
        assert!(
            !shown.contains("hunter2") && shown.contains(&path),
            "{shown}"
        );

        let error = config.properties.read_files().unwrap_err().to_string();
        assert!(error.contains("`sasl.password` twice"), "{error}");
        config.properties.0.remove("sasl.password");
        std::fs::remove_file(&file).unwrap();
        let error = config.properties.read_files().unwrap_err().to_string();
        assert!(
            error.contains("`sasl.password_file`") && error.contains(&path),
            "{error}"
        );
        let reserved = with(|config| {
            let name = "group.id_file".to_owned();
            config.properties.0.insert(name, path.clone());
        });
        assert!(reserved.unwrap_err().contains("kafka.consumer_group"));
    }

    #[test]
    fn values_of_any_scalar_type_and_nested_tables_are_settings() {
        let config: KafkaConfig = serde_json::from_str(
            r#"{"properties":{"socket":{"keepalive.enable":true,"timeout":{"ms":9000}}}}"#,
        )
        .unwrap();
        let properties: Vec<(&str, &str)> = config.properties.shown().collect();
        assert_eq!(
            properties,
            [
                ("socket.keepalive.enable", "true"),
                ("socket.timeout.ms", "9000")
            ]
        );
    }

    #[test]
    fn unknown_settings_are_refused() {
        let error = serde_json::from_str::<KafkaConfig>(r#"{"broker":"x"}"#).unwrap_err();
        assert!(
            error.to_string().contains("unknown field `broker`"),
            "{error}"
        );
    }
}

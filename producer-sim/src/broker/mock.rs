//! The mock broker itself. The only place with `unsafe`: rdkafka does not wrap the two calls that
//! set the advertised address and shorten the first join of a group.

use std::{ffi::CString, net::SocketAddr};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, DefaultProducerContext, Producer as _},
};
use rdkafka_sys as sys;

use super::Topic;

/// The mock broker's only node.
const BROKER_ID: i32 = 1;
/// How long a new consumer group waits for further members (librdkafka's own value is 3 s).
const INITIAL_REBALANCE_DELAY_MS: i32 = 200;

/// A running mock broker; it ends when this is dropped.
pub(super) struct MockBroker {
    /// The client that owns the broker. It produces nothing.
    owner: BaseProducer<DefaultProducerContext>,
    address: String,
}

impl MockBroker {
    /// Starts a broker that tells clients to find it at `advertised`.
    pub(super) fn start(advertised: SocketAddr) -> Result<Self, KafkaError> {
        let owner: BaseProducer<DefaultProducerContext> = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .create()?;
        let address = owner
            .client()
            .mock_cluster()
            .ok_or(KafkaError::MockCluster(RDKafkaErrorCode::Fail))?
            .bootstrap_servers();
        advertise(&owner, advertised)?;
        Ok(Self { owner, address })
    }

    /// Returns the address that the broker really listens on.
    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    /// Creates `topic`.
    pub(super) fn create_topic(&self, topic: &Topic) -> Result<(), KafkaError> {
        let cluster = self.owner.client().mock_cluster();
        cluster
            .ok_or(KafkaError::MockCluster(RDKafkaErrorCode::Fail))?
            .create_topic(&topic.name, topic.partitions, 1)
    }
}

#[allow(unsafe_code, reason = "rdkafka wraps neither call")]
fn advertise(
    owner: &BaseProducer<DefaultProducerContext>,
    advertised: SocketAddr,
) -> Result<(), KafkaError> {
    let host = CString::new(advertised.ip().to_string())?;
    // SAFETY: `native_ptr` is the live handle that `owner` holds for longer than this call. The
    // cluster belongs to that handle and lives as long as it; it is null if there is none, which is
    // checked. Both setters lock the cluster themselves and copy `host`, which outlives the call.
    unsafe {
        let cluster = sys::rd_kafka_handle_mock_cluster(owner.client().native_ptr());
        if cluster.is_null() {
            return Err(KafkaError::MockCluster(RDKafkaErrorCode::Fail));
        }
        let port = i32::from(advertised.port());
        sys::rd_kafka_mock_broker_set_host_port(cluster, BROKER_ID, host.as_ptr(), port);
        sys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, INITIAL_REBALANCE_DELAY_MS);
    }
    Ok(())
}

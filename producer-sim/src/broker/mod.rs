//! `producer-sim broker`: librdkafka's in-process broker on a fixed address, for trying things out.
//!
//! ```text
//! clients ──► proxy (the fixed address) ──► mock broker (a port of its own choice)
//! ```
//!
//! The mock broker chooses its port itself; the proxy gives it a known one, and the broker tells
//! clients the proxy's address as its own. Nothing is written to disk.

mod mock;
mod proxy;

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener},
};

use tracing::info;

use self::mock::MockBroker;
use crate::{failure::Failure, stop::Stop};

/// A topic to create at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its number of partitions.
    pub partitions: i32,
}

/// Holds the broker at `listen` until `stop` is raised.
///
/// # Errors
///
/// If the address is taken, or the broker does not start.
pub fn serve(listen: SocketAddr, topics: &[Topic], stop: &Stop) -> Result<(), Failure> {
    let failed = |source| Failure::Listen {
        address: listen.to_string(),
        source,
    };
    let listener = TcpListener::bind(listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let broker = MockBroker::start(address).map_err(Failure::Broker)?;
    for topic in topics {
        broker.create_topic(topic).map_err(Failure::Broker)?;
    }
    let proxy =
        proxy::Proxy::start(listener, broker.address()).map_err(|source| Failure::Setup {
            what: "the broker's proxy",
            source,
        })?;
    announce(address, topics).map_err(|source| Failure::Setup {
        what: "standard output",
        source,
    })?;
    stop.wait();
    info!("stopping, what the topics held is gone");
    proxy.stop();
    Ok(())
}

/// Prints the one line that says the broker is ready.
fn announce(address: SocketAddr, topics: &[Topic]) -> std::io::Result<()> {
    let topics: Vec<String> = topics
        .iter()
        .map(|topic| format!("{}:{}", topic.name, topic.partitions))
        .collect();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "broker ready at {address} ({}); in memory only, nothing is kept on disk: each partition \
         holds its newest 5 MiB as sent (23,000 to 140,000 log lines), older ones are dropped",
        topics.join(" ")
    )?;
    out.flush()
}

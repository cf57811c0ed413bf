//! A TCP proxy: copies bytes between clients and the mock broker, both ways, until either closes.
//!
//! Knows nothing of Kafka.

use std::{io, net::TcpListener as StdListener, sync::Arc, time::Duration};

use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::Semaphore,
    time::sleep,
};
use tracing::{debug, warn};

/// Bytes copied at a time and direction: a whole fetch response in a few steps.
const COPY_BYTES: usize = 256 * 1024;
/// Connections at the same time; further ones wait to be accepted. Far more than a trial needs, and
/// below the usual limit of 1,024 open files with its two files each.
const CONNECTIONS_MAX: usize = 480;
/// Pause after a failed accept: mostly the limit of open files, which does not pass at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long connections get to end when the proxy stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// A running proxy.
pub(super) struct Proxy(Runtime);

impl Proxy {
    /// Starts to serve `listener`, connecting each client to `target`.
    pub(super) fn start(listener: StdListener, target: String) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("proxy")
            .enable_io()
            .enable_time()
            .build()?;
        listener.set_nonblocking(true)?;
        let listener = {
            let _guard = runtime.enter();
            TcpListener::from_std(listener)?
        };
        runtime.spawn(accept(listener, target.into()));
        Ok(Self(runtime))
    }

    /// Ends all connections.
    pub(super) fn stop(self) {
        self.0.shutdown_timeout(STOP_TIMEOUT);
    }
}

async fn accept(listener: TcpListener, target: Arc<str>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The semaphore is never closed, so acquiring fails never and the loop ends with the runtime.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((client, _)) => {
                let target = Arc::clone(&target);
                tokio::spawn(async move {
                    if let Err(error) = join(client, &target).await {
                        debug!(error = %error, "connection ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!(error = %error, "cannot accept a connection, trying again");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn join(mut client: TcpStream, target: &str) -> io::Result<()> {
    let mut broker = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut broker, COPY_BYTES, COPY_BYTES).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Shutdown, TcpStream},
        thread,
    };

    use super::*;

    /// Answers every connection with what it sent, once it has sent all; ends with the process.
    fn echo_server() -> String {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let mut received = Vec::new();
                    stream.read_to_end(&mut received).unwrap();
                    stream.write_all(&received).unwrap();
                });
            }
        });
        address
    }

    #[test]
    fn many_connections_get_their_own_bytes_back() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Proxy::start(listener, echo_server()).unwrap();
        let clients: Vec<_> = (0..100_u8)
            .map(|number| {
                thread::spawn(move || {
                    let sent = vec![number; 300_000];
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.write_all(&sent).unwrap();
                    // Closing one direction must reach the other side, and leave the other open.
                    stream.shutdown(Shutdown::Write).unwrap();
                    let mut received = Vec::new();
                    stream.read_to_end(&mut received).unwrap();
                    assert!(received == sent, "{number}: {} bytes", received.len());
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        proxy.stop();
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn a_broker_that_is_gone_closes_the_connection() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gone = StdListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let proxy = Proxy::start(listener, gone.to_string()).unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
        proxy.stop();
    }
}

//! A wire between a processor and its database that is slow, dead, or cut at the worst moment.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::common::with_database;

/// A message that binds the parameters of a statement begins so, and a batch of rows is the only
/// one that is so long.
const BIND: u8 = b'B';
const BATCH_BYTES_MIN: usize = 1_000;
const BUFFER_BYTES: usize = 64 * 1024;

/// What becomes of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// It arrives.
    Sound,
    /// It arrives so much later.
    Slow(Duration),
    /// It does not arrive, and nobody is told.
    Dead,
}

/// Where the wire is cut next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Cut {
    /// In the middle of the next batch: the server never sees its end.
    Request = 1,
    /// After the next batch: the server has written it, the processor is not told.
    Answer = 2,
}

/// A proxy in front of a PostgreSQL server.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    /// The cut that is to come, as its number; 0 for none.
    armed: AtomicU32,
    done: AtomicU32,
}

impl Faults {
    fn take(&self, cut: Cut) -> bool {
        let exchanged =
            self.armed
                .compare_exchange(cut as u32, 0, Ordering::AcqRel, Ordering::Acquire);
        if exchanged.is_ok() {
            self.done.fetch_add(1, Ordering::AcqRel);
        }
        exchanged.is_ok()
    }
}

impl Proxy {
    /// Starts one in front of the server of a URL.
    pub(crate) async fn start(url: &str) -> Self {
        let (_, server) = url.split_once("://").unwrap();
        let (server, _) = server.split_once('/').unwrap();
        let server = server.rsplit('@').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (wire, state) = watch::channel(Wire::Sound);
        let faults = Arc::<Faults>::default();
        let shared = Arc::clone(&faults);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, state, faults) = (server.clone(), state.clone(), Arc::clone(&shared));
                tokio::spawn(connection(client, server, state, faults));
            }
        });
        Self {
            address,
            wire,
            faults,
        }
    }

    /// Returns the URL of a database by way of the proxy.
    pub(crate) fn url(&self, database: &str) -> String {
        with_database(&format!("postgres://postgres@{}/", self.address), database)
    }

    /// Changes the wire, of connections that are open as well.
    pub(crate) fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }

    /// Makes the next batch the last of its connection.
    pub(crate) fn cut(&self, cut: Cut) {
        self.faults.armed.store(cut as u32, Ordering::Release);
    }

    /// Returns how often the wire was cut.
    pub(crate) fn cuts(&self) -> u32 {
        self.faults.done.load(Ordering::Acquire)
    }
}

async fn connection(
    client: TcpStream,
    server: String,
    wire: watch::Receiver<Wire>,
    faults: Arc<Faults>,
) {
    // A server that is away refuses; so does the proxy then.
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let answers = Arc::<AtomicU32>::default();
    let requests = Pump {
        wire: wire.clone(),
        faults: Arc::clone(&faults),
        cut_answer: Arc::clone(&answers),
    };
    let replies = Pump {
        wire,
        faults,
        cut_answer: answers,
    };
    // What ends one direction ends the other: both halves are dropped.
    tokio::select! {
        _ = requests.requests(from_client, to_server) => {}
        _ = replies.replies(from_server, to_client) => {}
    }
}

/// One direction of a connection.
struct Pump {
    wire: watch::Receiver<Wire>,
    faults: Arc<Faults>,
    /// 1 once the answer to a batch is not to arrive.
    cut_answer: Arc<AtomicU32>,
}

impl Pump {
    async fn requests(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            self.pass().await;
            if buffer[0] == BIND && length >= BATCH_BYTES_MIN {
                if self.faults.take(Cut::Request) {
                    return to.write_all(&buffer[..length / 2]).await;
                }
                if self.faults.take(Cut::Answer) {
                    self.cut_answer.store(1, Ordering::Release);
                }
            }
            to.write_all(&buffer[..length]).await?;
        }
    }

    async fn replies(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 || self.cut_answer.load(Ordering::Acquire) == 1 {
                return Ok(());
            }
            self.pass().await;
            to.write_all(&buffer[..length]).await?;
        }
    }

    /// Waits as long as the wire makes one wait.
    async fn pass(&mut self) {
        let state = *self.wire.borrow();
        match state {
            Wire::Sound => {}
            Wire::Slow(delay) => tokio::time::sleep(delay).await,
            // The proxy is there as long as the drill is.
            Wire::Dead => drop(self.wire.wait_for(|wire| *wire != Wire::Dead).await),
        }
    }
}

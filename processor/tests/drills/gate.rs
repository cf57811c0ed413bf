//! A gate before a service: while it is shut nothing answers, and what was connected is cut off.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A gate; gone when dropped.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    open: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Gate {
    /// Puts a gate before `service` (`host:port`), shut.
    pub(crate) async fn shut_before(service: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(watch::Sender::new(false));
        let gate = Arc::clone(&open);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, service.clone(), gate.subscribe()));
            }
        });
        Self {
            address,
            open,
            task,
        }
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    pub(crate) fn shut(&self) {
        self.open.send_replace(false);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shut();
        self.task.abort();
    }
}

async fn pass(mut client: TcpStream, service: String, mut open: watch::Receiver<bool>) {
    if !*open.borrow_and_update() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(service).await else {
        return;
    };
    tokio::select! {
        // Either end may go at any time.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = open.changed() => {}
    }
}

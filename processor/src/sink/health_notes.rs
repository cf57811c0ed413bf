//! Notes of the partitions' health on their way to the store, best effort: what cannot be written at
//! once is dropped and counted, and nothing waits for it. Offsets never depend on them.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tracing::debug;

use super::store::{Chain, PartitionHealth, Store};

/// Rounds of notes that may wait: one being written and one behind it. More would only be older.
const ROUNDS_MAX: usize = 2;
/// Longest write of one round; a stop waits for it.
const WRITE_WITHIN: Duration = Duration::from_secs(2);

/// One round of notes: a note a partition.
pub(super) type Round = Vec<PartitionHealth>;

/// Writes notes until its queue is closed.
pub(super) struct NoteWriter {
    store: Store,
    rounds: mpsc::Receiver<Round>,
    dropped: Counter,
}

impl NoteWriter {
    /// Returns a writer and the queue it takes rounds from; `dropped` counts those not written.
    pub(super) fn new(store: Store, dropped: Counter) -> (Self, mpsc::Sender<Round>) {
        let (sender, rounds) = mpsc::channel(ROUNDS_MAX);
        let writer = Self {
            store,
            rounds,
            dropped,
        };
        (writer, sender)
    }

    /// Runs until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        while let Some(round) = self.rounds.recv().await {
            match tokio::time::timeout(WRITE_WITHIN, self.store.note_health(&round)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    debug!(error = %Chain(&error), "health not noted");
                    self.dropped.inc();
                }
                Err(_) => {
                    debug!(within = ?WRITE_WITHIN, "health not noted: no answer in time");
                    self.dropped.inc();
                }
            }
        }
    }
}

//! Deploys that lines of the topic tell of, on their way to the store.
//!
//! ```text
//! DeployJob ──bounded queue──► one statement ──► deploys ──► Ack
//! ```
//!
//! A deploy is acknowledged when it is stored, so its line is read again after a crash before that;
//! storing it twice changes nothing. Nothing is fenced: the same line says the same, whoever reads it.

use std::time::Instant;

use tokio::sync::mpsc;
use tracing::error;

use super::{
    Ack, DeployJob,
    ack::{AckSender, StopFlag},
    metrics::{SinkMeter, SinkMetrics},
    retry::Outage,
    store::{Chain, DeploySource, Store, StoreError},
};

/// Deploys that wait for the store before reading pauses: a busy day of a large company.
pub(super) const DEPLOYS_QUEUE_MAX: usize = 1_000;
/// Deploys written in one statement.
const BATCH_MAX: usize = 100;

/// The sending end of the queue.
pub(super) type DeployQueue = mpsc::Sender<DeployJob>;

/// Writes deploys until its queue is closed and empty.
pub(super) struct DeployWriter {
    store: Store,
    jobs: mpsc::Receiver<DeployJob>,
    acks: AckSender,
    stop: StopFlag,
    outage: Outage,
    meter: SinkMeter,
}

impl DeployWriter {
    /// Returns a writer and the queue it takes deploys from.
    pub(super) fn new(
        store: Store,
        acks: AckSender,
        stop: StopFlag,
        metrics: &SinkMetrics,
    ) -> (Self, DeployQueue) {
        let (sender, jobs) = mpsc::channel(DEPLOYS_QUEUE_MAX);
        let meter = metrics.meter("deploys");
        let writer = Self {
            outage: Outage::new("deploys", meter.retries.clone(), meter.up.clone()),
            store,
            jobs,
            acks,
            stop,
            meter,
        };
        (writer, sender)
    }

    /// Runs until the queue is closed and everything in it is stored, or until stopped.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::new();
        while self.jobs.recv_many(&mut batch, BATCH_MAX).await > 0 {
            if !self.store_batch(&batch).await {
                return;
            }
            for job in batch.drain(..) {
                self.meter.pending.dec();
                let ack = Ack::Letter {
                    partition: job.partition,
                    assignment: job.assignment,
                    offset: job.offset,
                };
                self.acks.send_async(ack).await;
            }
        }
    }

    /// Repeats the write until the server has taken or refused it; false when stopped before.
    async fn store_batch(&mut self, batch: &[DeployJob]) -> bool {
        let deploys: Vec<_> = batch.iter().map(|job| job.deploy.clone()).collect();
        let jobs = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        while !self.stop.is_set() {
            match self
                .store
                .record_deploys(&deploys, &DeploySource::Event)
                .await
            {
                Ok(_) => {
                    self.outage.succeeded(Instant::now());
                    self.meter.delivered.inc_by(jobs);
                    return true;
                }
                Err(refused) if refused.is_refusal() => {
                    self.refuse(&deploys, &refused);
                    return true;
                }
                Err(error) => {
                    let wait = self.outage.failed(Instant::now(), &Chain(&error));
                    tokio::time::sleep(wait).await;
                }
            }
        }
        false
    }

    /// Gives up on deploys that the server refuses for what they are: their partition goes on.
    fn refuse(&mut self, deploys: &[crate::event::Deploy], refused: &StoreError) {
        self.outage.succeeded(Instant::now());
        self.meter
            .refused
            .inc_by(u64::try_from(deploys.len()).unwrap_or(u64::MAX));
        error!(
            ?deploys,
            error = %Chain(refused),
            "PostgreSQL refuses deploys for what they are; this line is all of them"
        );
    }
}

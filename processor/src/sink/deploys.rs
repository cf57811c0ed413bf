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
use crate::event::Deploy;

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
            let deploys: Vec<_> = batch.iter().map(|job| job.deploy.clone()).collect();
            if !self.store_batch(&deploys).await {
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

    /// Stores the deploys, those that the server refuses for what they are excepted; false when
    /// stopped before.
    async fn store_batch(&mut self, deploys: &[Deploy]) -> bool {
        match self.write_until_taken(deploys).await {
            Some(Err(_)) if deploys.len() > 1 => {}
            Some(Err(refusal)) => {
                self.refuse(deploys, &refusal);
                return true;
            }
            taken => return taken.is_some(),
        }
        // At least one of them is refused; one by one it is found out which.
        for one in deploys.chunks(1) {
            match self.write_until_taken(one).await {
                Some(Ok(())) => {}
                Some(Err(refusal)) => self.refuse(one, &refusal),
                None => return false,
            }
        }
        true
    }

    /// Repeats the write until the server has taken or refused it; `None` when stopped before.
    async fn write_until_taken(&mut self, deploys: &[Deploy]) -> Option<Result<(), StoreError>> {
        while !self.stop.is_set() {
            let written = self.store.record_deploys(deploys, &DeploySource::Event);
            match written.await {
                Ok(_) => {
                    self.outage.succeeded(Instant::now());
                    self.meter.delivered.inc_by(count(deploys));
                    return Some(Ok(()));
                }
                Err(refusal) if refusal.is_refusal() => {
                    self.outage.succeeded(Instant::now());
                    return Some(Err(refusal));
                }
                Err(error) => {
                    let wait = self.outage.failed(Instant::now(), &Chain(&error));
                    tokio::time::sleep(wait).await;
                }
            }
        }
        None
    }

    /// Gives up on deploys that the server refuses for what they are: their partition goes on.
    fn refuse(&self, deploys: &[Deploy], refusal: &StoreError) {
        self.meter.refused.inc_by(count(deploys));
        error!(
            ?deploys,
            error = %Chain(refusal),
            "PostgreSQL refuses a deploy for what it is; it is not stored, this line is all of it"
        );
    }
}

fn count(deploys: &[Deploy]) -> u64 {
    u64::try_from(deploys.len()).unwrap_or(u64::MAX)
}

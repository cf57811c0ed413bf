//! The task that writes rows: takes what waits, writes it in one statement, repeats until it is
//! stored.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fail::fail_point;
use tokio::sync::mpsc;
use tracing::error;

use super::{
    Store, StoreError,
    arrays::Arrays,
    batch::{Batch, Entry},
    error::{Chain, is_refused},
    templates::TemplateLines,
    upsert::upsert_sql,
};
use crate::sink::{
    Ack, WindowJob,
    ack::{AckSender, StopFlag},
    metrics::{SinkMeter, SinkMetrics},
    retry::Outage,
};

/// How long a row waits for company: windows of many partitions close within the same milliseconds, and
/// one statement for all of them takes less time than two.
const COMPANY: Duration = Duration::from_millis(5);

/// The sending end of the writer's queue.
pub(crate) type WriterQueue = mpsc::Sender<WindowJob>;

/// Writes rows until its queue is closed and empty.
pub(crate) struct Writer {
    store: Store,
    jobs: mpsc::Receiver<WindowJob>,
    acks: AckSender,
    stop: StopFlag,
    outage: Outage,
    meter: SinkMeter,
    metrics: SinkMetrics,
    upsert: Arc<str>,
}

/// Why a batch was not written.
enum WriteError {
    /// Trying again may help.
    Transient(StoreError),
    /// The server refused at least one of the rows for what it is.
    Refused(tokio_postgres::Error),
}

/// What became of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RowOutcome {
    Written,
    /// A better row was there.
    Kept,
    /// Another process owns the partition.
    Fenced,
}

impl Writer {
    /// Returns a writer and the queue it takes windows from.
    pub(crate) fn new(
        store: Store,
        acks: AckSender,
        stop: StopFlag,
        metrics: &SinkMetrics,
    ) -> (Self, WriterQueue) {
        let (sender, jobs) = mpsc::channel(store.config.buffer_rows_max);
        let meter = metrics.meter("store");
        let writer = Self {
            outage: Outage::new("store", meter.retries.clone(), meter.up.clone()),
            store,
            jobs,
            acks,
            stop,
            meter,
            metrics: metrics.clone(),
            upsert: upsert_sql().into(),
        };
        (writer, sender)
    }

    /// Runs until the queue is closed and everything in it is written, or until stopped.
    pub(crate) async fn run(mut self) {
        let mut next = self.jobs.recv().await;
        while let Some(job) = next.take() {
            let (batch, carried) = self.gather(job).await;
            self.store_entries(batch.into_entries()).await;
            if self.stop.is_set() {
                return;
            }
            next = match carried {
                Some(job) => Some(job),
                None => self.jobs.recv().await,
            };
        }
    }

    /// Fills a batch with what waits already or comes within [`COMPANY`]: a busy store gets large batches,
    /// an idle one gets its row soon.
    async fn gather(&mut self, first: WindowJob) -> (Batch, Option<WindowJob>) {
        let mut batch = Batch::default();
        let until = tokio::time::Instant::now() + COMPANY;
        let mut next = Some(first);
        while let Some(job) = next {
            if let Err(job) = batch.push(job) {
                return (batch, Some(job));
            }
            if batch.is_full(self.store.config.batch_rows_max) {
                break;
            }
            // What is there is taken, also after that time.
            let more = tokio::time::timeout_at(until, self.jobs.recv()).await;
            next = more.ok().flatten();
        }
        (batch, None)
    }

    /// Stores the rows; halves that hold a refused row are split until it stands alone.
    async fn store_entries(&mut self, entries: Vec<Entry>) {
        // Depth first and in order, so that the rows of a stream stay in window order.
        let mut parts = vec![entries];
        while let Some(mut part) = parts.pop() {
            match self.write_until_stored(&part).await {
                Some(Ok(outcomes)) => {
                    fail_point!("store.written", |_| std::process::abort());
                    self.settle(part, &outcomes).await;
                }
                Some(Err(refusal)) if part.len() == 1 => {
                    self.refuse(part.remove(0), &refusal).await;
                }
                Some(Err(_)) => {
                    let second = part.split_off(part.len() / 2);
                    parts.push(second);
                    parts.push(part);
                }
                None => return,
            }
        }
    }

    /// Repeats the write until the server has taken or refused it; `None` when stopped before.
    async fn write_until_stored(
        &mut self,
        entries: &[Entry],
    ) -> Option<Result<Vec<RowOutcome>, tokio_postgres::Error>> {
        loop {
            if self.stop.is_set() {
                return None;
            }
            match self.write(entries).await {
                Ok(outcomes) => {
                    self.outage.succeeded(Instant::now());
                    return Some(Ok(outcomes));
                }
                Err(WriteError::Refused(refusal)) => {
                    self.outage.succeeded(Instant::now());
                    return Some(Err(refusal));
                }
                Err(WriteError::Transient(error)) => {
                    let wait = self.outage.failed(Instant::now(), &Chain(&error));
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn write(&self, entries: &[Entry]) -> Result<Vec<RowOutcome>, WriteError> {
        fail_point!("store.before_write");
        let counted = TemplateLines::of(entries);
        let arrays = Arrays::of(entries, &counted);
        let group = &*self.store.group;
        let params = arrays.params(&group);
        let answer = self.store.query("write rows", &self.upsert, &params).await;
        let rows = answer.map_err(|error| match error {
            StoreError::Statement { source, .. } if is_refused(&source) => {
                WriteError::Refused(source)
            }
            error => WriteError::Transient(error),
        })?;
        let mut outcomes = vec![RowOutcome::Fenced; entries.len()];
        for row in rows {
            let number = usize::try_from(row.get::<_, i64>(0)).unwrap_or(0);
            if let Some(outcome) = number.checked_sub(1).and_then(|at| outcomes.get_mut(at)) {
                *outcome = if row.get(1) {
                    RowOutcome::Written
                } else {
                    RowOutcome::Kept
                };
            }
        }
        Ok(outcomes)
    }

    async fn settle(&self, entries: Vec<Entry>, outcomes: &[RowOutcome]) {
        let mut fenced = Vec::new();
        for (entry, outcome) in entries.into_iter().zip(outcomes) {
            let jobs = i64::try_from(entry.acks.len()).unwrap_or(i64::MAX);
            self.meter.pending.dec_by(jobs);
            match outcome {
                RowOutcome::Fenced => {
                    self.metrics.rows_fenced.inc();
                    let ack = Ack::Fenced {
                        partition: entry.partition,
                        assignment: entry.assignment,
                    };
                    // One word per assignment is enough.
                    if !fenced.contains(&ack) {
                        fenced.push(ack);
                    }
                    continue;
                }
                RowOutcome::Kept => {
                    self.metrics.rows_kept.inc();
                }
                RowOutcome::Written => {}
            }
            self.meter.delivered.inc();
            self.acknowledge(entry.acks).await;
        }
        self.acknowledge(fenced).await;
    }

    /// Gives up on a row that the server refuses for what it is: logged whole, counted and
    /// acknowledged, so that it holds up neither its partition nor the others. Its result message
    /// and its alarm stand.
    async fn refuse(&self, entry: Entry, refusal: &tokio_postgres::Error) {
        error!(
            row = ?entry.row,
            error = %Chain(refusal),
            "PostgreSQL refuses a row for what it is; it is not stored, this line is all of it"
        );
        let jobs = i64::try_from(entry.acks.len()).unwrap_or(i64::MAX);
        self.meter.pending.dec_by(jobs);
        self.meter.refused.inc();
        self.acknowledge(entry.acks).await;
    }

    async fn acknowledge(&self, acks: Vec<Ack>) {
        for ack in acks {
            self.acks.send_async(ack).await;
        }
    }
}

//! Raw lines for table `log_events`: off unless asked for, and best effort.
//!
//! ```text
//! consumer thread ──try──► bounded queue ──batches──► COPY log_events
//!                   └─ full, or the COPY failed: dropped and counted
//! ```
//!
//! Lines are for people to look at. They hold up neither acks nor the consumer, so they are dropped
//! where rows would wait; a record that is read again leaves its line again.

use std::{pin::pin, time::Duration};

use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, timeout, timeout_at},
};
use tokio_postgres::{binary_copy::BinaryCopyInWriter, types::Type};
use tracing::{info, warn};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    Store, StoreError,
    config::{RawLinesKept, StoreConfig},
    error::Chain,
    json::without_nul,
};
use crate::{
    decode,
    event::{EventTime, LogEvent},
    redact::Redactor,
    sink::metrics::SinkMetrics,
};

/// Lines that wait: with [`READ_BYTES_MAX`] at most 32 MB.
const QUEUE_MAX: usize = 4_096;
/// Longest message looked at, in bytes: what is cut off a stored one was masked with the rest.
const READ_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// Longest message stored, in bytes, cut at a character boundary.
const MESSAGE_BYTES_MAX: usize = 4 * 1_024;
/// Lines of one COPY, beyond which it gains little.
const BATCH_MAX: usize = 2_000;
/// How long a batch waits for more lines.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// Longest COPY while running, and while the process is being stopped.
const COPY_WITHIN: Duration = Duration::from_secs(10);
const LAST_COPY_WITHIN: Duration = Duration::from_secs(2);

const COPY_SQL: &str = "COPY log_events (\"timestamp\", level, component, message, is_anomaly) \
                        FROM STDIN BINARY";

/// A line as it is stored.
#[derive(Debug)]
struct Line {
    time: EventTime,
    level: &'static str,
    service: String,
    message: String,
    is_anomaly: i32,
}

/// The consumer's end: offers lines, never waits.
#[derive(Debug)]
pub(crate) struct RawLines {
    queue: mpsc::Sender<Line>,
    kept: RawLinesKept,
    /// Lines whose hash is at most this are in the sample.
    sample_max: u64,
    dropped: Counter,
}

/// The task that writes them.
pub(crate) struct RawLinesWriter {
    store: Store,
    lines: mpsc::Receiver<Line>,
    redactor: Redactor,
    stored: Counter,
    dropped: Counter,
    failing: bool,
}

impl RawLines {
    /// Returns both ends, `None` if no lines are to be stored.
    pub(crate) fn configured(
        store: &Store,
        metrics: &SinkMetrics,
        redactor: Redactor,
    ) -> Option<(Self, RawLinesWriter)> {
        let StoreConfig {
            log_events,
            log_events_fraction,
            ..
        } = *store.config;
        if log_events == RawLinesKept::Off {
            return None;
        }
        let (queue, lines) = mpsc::channel(QUEUE_MAX);
        let writer = RawLinesWriter {
            store: store.clone(),
            lines,
            redactor,
            stored: metrics.raw_lines_stored.clone(),
            dropped: metrics.raw_lines_dropped.clone(),
            failing: false,
        };
        let offering = Self {
            queue,
            kept: log_events,
            sample_max: sample_max(log_events_fraction),
            dropped: metrics.raw_lines_dropped.clone(),
        };
        Some((offering, writer))
    }

    /// Takes the line of a record if it is one to keep and there is room. Which lines are sampled
    /// depends on partition and offset alone.
    pub(crate) fn offer(
        &self,
        (partition, offset): (i32, i64),
        payload: Option<&[u8]>,
        record_time: Option<EventTime>,
    ) {
        let hash = xxh3_64_with_seed(&offset.to_be_bytes(), u64::from(partition.unsigned_abs()));
        if hash > self.sample_max {
            return;
        }
        let Ok(event) = decode::decode(payload, record_time) else {
            // It is in the dead-letter topic, whole.
            return;
        };
        if self.kept == RawLinesKept::Errors && !event.level.is_critical() {
            return;
        }
        if let Err(TrySendError::Full(_)) = self.queue.try_send(line(&event)) {
            self.dropped.inc();
        }
    }
}

fn line(event: &LogEvent<'_>) -> Line {
    Line {
        time: event.time,
        level: event.level.as_str(),
        service: without_nul(&event.service),
        message: head(&event.message, READ_BYTES_MAX).to_owned(),
        is_anomaly: i32::from(event.label == Some(true)),
    }
}

/// Returns the message as the table has it, without its secrets: the one place where it leaves the
/// process.
fn stored_message(redactor: &Redactor, message: &str) -> String {
    without_nul(head(&redactor.text(message), MESSAGE_BYTES_MAX))
}

/// Returns the beginning of a text, cut between characters.
fn head(text: &str, bytes_max: usize) -> &str {
    text.split_at(text.floor_char_boundary(bytes_max)).0
}

/// Returns the largest hash in a sample of `fraction`.
fn sample_max(fraction: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "from 0 to 2^64, where the cast saturates"
    )]
    let max = (fraction * u64::MAX as f64) as u64;
    max
}

impl RawLinesWriter {
    /// Writes lines until the other end is gone.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.gather(&mut batch).await {
            self.write(&batch, COPY_WITHIN).await;
            batch.clear();
        }
        if !batch.is_empty() {
            self.write(&batch, LAST_COPY_WITHIN).await;
        }
    }

    /// Fills a batch; returns whether more can come.
    async fn gather(&mut self, batch: &mut Vec<Line>) -> bool {
        if self.lines.recv_many(batch, BATCH_MAX).await == 0 {
            return false;
        }
        let until = Instant::now() + BATCH_WAIT;
        while batch.len() < BATCH_MAX {
            let more = self.lines.recv_many(batch, BATCH_MAX - batch.len());
            match timeout_at(until, more).await {
                Ok(0) => return false,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        true
    }

    async fn write(&mut self, batch: &[Line], within: Duration) {
        let lines = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        match self.copy(batch, within).await {
            Ok(()) => {
                self.stored.inc_by(lines);
                if std::mem::take(&mut self.failing) {
                    info!("raw lines are stored again");
                }
            }
            Err(error) => {
                self.dropped.inc_by(lines);
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(
                        error = %Chain(&error),
                        "cannot store raw lines; they are dropped and counted until it works again"
                    );
                }
            }
        }
    }

    async fn copy(&self, batch: &[Line], within: Duration) -> Result<(), StoreError> {
        let client = self.store.client().await?;
        match timeout(within, copy(&client, batch, &self.redactor)).await {
            Ok(done) => done.map_err(|source| {
                let server = self.store.config.server();
                StoreError::from_postgres(&server, "store raw lines", source)
            }),
            Err(_) => {
                // The COPY may still be running: this connection is not to be used again.
                drop(deadpool_postgres::Object::take(client));
                Err(StoreError::Unreachable {
                    server: self.store.config.server(),
                    source: "no answer to a COPY in time".into(),
                })
            }
        }
    }
}

async fn copy(
    client: &deadpool_postgres::Object,
    batch: &[Line],
    redactor: &Redactor,
) -> Result<(), tokio_postgres::Error> {
    let types = [
        Type::TIMESTAMPTZ,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::INT4,
    ];
    let mut writer = pin!(BinaryCopyInWriter::new(
        client.copy_in(COPY_SQL).await?,
        &types
    ));
    for line in batch {
        let time = line.time.to_datetime();
        let message = stored_message(redactor, &line.message);
        writer
            .as_mut()
            .write(&[
                &time,
                &line.level,
                &line.service,
                &message,
                &line.is_anomaly,
            ])
            .await?;
    }
    writer.finish().await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::RedactionConfig;

    #[test]
    fn a_sample_holds_its_fraction_and_everything_holds_all() {
        assert_eq!(sample_max(1.0), u64::MAX);
        let half = (0..10_000_i64)
            .filter(|offset| xxh3_64_with_seed(&offset.to_be_bytes(), 3) <= sample_max(0.5))
            .count();
        assert!((4_800..5_200).contains(&half), "{half}");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let redactor = Redactor::new(&RedactionConfig::default()).unwrap();
        let length = |message: &str| stored_message(&redactor, message).len();
        let message = "é".repeat(MESSAGE_BYTES_MAX);
        assert_eq!(length(&message), MESSAGE_BYTES_MAX);
        assert_eq!(length(&format!("x{message}\0")), MESSAGE_BYTES_MAX - 1);
        assert_eq!(stored_message(&redactor, "a\0"), "a\u{fffd}");
    }
}

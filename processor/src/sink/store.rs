//! The store: rows in PostgreSQL, fenced, and what a new owner of a partition reads back.
//!
//! ```text
//! WindowJob ──bounded queue──► batch (one row per key) ──one upsert──► anomaly_results, … ──► Ack
//!                                                          │ joins owner FOR SHARE
//! claim(partition) ──one statement──► owner.epoch + 1 and the streams' newest states
//! ```
//!
//! A row is acknowledged when the statement that wrote it has committed, or when the stored row is
//! a better one. A process that lost a partition writes nothing to it, however late it wakes up.

mod alarm;
mod alarms;
mod arrays;
mod batch;
mod columns;
mod config;
mod connection;
mod decisions;
mod deploys;
mod error;
mod features_row;
mod json;
mod learning;
mod models;
mod mutes;
mod partition_health;
mod passed_over;
mod provenance;
mod raw_lines;
mod row;
#[cfg(test)]
#[allow(clippy::cast_precision_loss, reason = "rates, for people")]
mod speed;
mod templates;
mod upsert;
mod writer;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use deadpool_postgres::Pool;
use tokio_postgres::{Row, types::ToSql};
use tracing::warn;

pub use alarms::{ALARMS_PAGE_MAX, AlarmAction, AlarmQuery, JudgedWindow, StoredAlarm};
pub use config::{RawLinesKept, SslMode, StoreConfig, StoreKind};
pub(super) use connection::connect;
pub use decisions::{StoredDecision, StoredStream};
pub use deploys::DeploySource;
pub(crate) use error::Chain;
pub use error::StoreError;
pub use features_row::TEMPLATES_LISTED_MAX;
pub use learning::{ActiveModel, Asked, Lease};
pub use mutes::{Feedback, MUTES_MAX, StoredMute};
pub use partition_health::PartitionHealth;
pub use provenance::StoredScore;
pub(super) use raw_lines::RawLines;
pub use row::{RecoveredStream, StreamState};
pub(super) use writer::{Writer, WriterQueue};

use self::passed_over::PassedOver;
use crate::event::{EventTime, TopicPartition};

/// What a process gets with a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The fence: every row of this assignment carries it.
    pub fence: i64,
    /// The partition's streams as their newest final rows, up to and including the last window that
    /// is done, left them; empty for a partition that starts afresh.
    pub streams: Vec<RecoveredStream>,
}

/// The database, as one consumer group uses it. Clones share the pool.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool,
    config: Arc<StoreConfig>,
    group: Arc<str>,
    passed_over: Arc<PassedOver>,
}

impl Store {
    /// Returns the store of a consumer group. Connects when first asked for something.
    ///
    /// # Errors
    /// A setting is out of range, or a file it names cannot be read.
    pub fn new(config: &StoreConfig, group: &str) -> Result<Self, StoreError> {
        config.validate()?;
        Ok(Self {
            pool: connection::pool(config)?,
            config: Arc::new(config.clone()),
            group: group.into(),
            passed_over: Arc::default(),
        })
    }

    /// Returns the store that the settings ask for, `None` with [`StoreKind::None`].
    ///
    /// # Errors
    /// As [`Store::new`].
    pub fn configured(config: &StoreConfig, group: &str) -> Result<Option<Self>, StoreError> {
        match config.kind {
            StoreKind::Postgres => Self::new(config, group).map(Some),
            StoreKind::None => Ok(None),
        }
    }

    /// Returns how long an assigned partition waits for a store that does not answer.
    #[must_use]
    pub fn claim_patience(&self) -> Duration {
        self.config.claim_patience
    }

    /// Claims a partition: fences off whoever had it, and reads where its streams stand, in one
    /// round trip.
    ///
    /// Rows after `done_through` are passed over: they will be scored again, from the same state as
    /// the first time. Without `done_through` nothing is known to be done, and no state is read.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn claim(
        &self,
        partition: &TopicPartition,
        done_through: Option<EventTime>,
    ) -> Result<Claim, StoreError> {
        let done_through = done_through.map(EventTime::to_datetime);
        let topic = json::without_nul(&partition.topic);
        let first = format!("{topic}/{}", partition.partition);
        // `/` is followed by `0` in byte order, so this is past the last `topic/partition/…`.
        let past = format!("{first}0");
        let params: [&(dyn ToSql + Sync); 6] = [
            &&*self.group,
            &topic,
            &partition.partition,
            &done_through,
            &first,
            &past,
        ];
        let rows = self.query("claim a partition", CLAIM_SQL, &params).await?;
        let fence = rows.first().map_or(0, |row| row.get(0));
        let streams = rows.iter().filter_map(|row| recovered(partition, row));
        Ok(Claim {
            fence,
            streams: streams.collect(),
        })
    }

    /// Returns the other consumer groups that ever claimed partitions of `topic` in this database:
    /// rows are known by window and stream, so two groups at once overwrite each other's.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn other_groups(&self, topic: &str) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT DISTINCT consumer_group FROM owner
                   WHERE topic = $1 AND consumer_group <> $2 ORDER BY 1";
        let topic = json::without_nul(topic);
        let rows = self
            .query("look for other groups", sql, &[&topic, &&*self.group])
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Checks that the server answers, for readiness probes.
    ///
    /// # Errors
    /// It does not, or refuses the role.
    pub async fn ping(&self) -> Result<(), StoreError> {
        // Handing out a connection probes it.
        self.client().await.map(|_| ())
    }

    /// Runs one statement, prepared once per connection, within the statement timeout.
    async fn query(
        &self,
        action: &'static str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let client = self.client().await?;
        let work = async {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, params).await
        };
        match tokio::time::timeout(self.config.statement_timeout, work).await {
            Ok(answer) => answer
                .map_err(|source| StoreError::from_postgres(&self.config.server(), action, source)),
            Err(_) => {
                // The statement may still be running: this connection is not to be used again.
                drop(deadpool_postgres::Object::take(client));
                Err(StoreError::Unreachable {
                    server: self.config.server(),
                    source: "no answer within `statement_timeout`".into(),
                })
            }
        }
    }

    async fn client(&self) -> Result<deadpool_postgres::Object, StoreError> {
        self.pool
            .get()
            .await
            .map_err(|error| connection::pool_error(&self.config, error))
    }
}

/// `$1` group, `$2` topic, `$3` partition, `$4` done through, `$5` and `$6` the range of the
/// partition's streams.
///
/// Streams are walked one index entry each, not read row by row. Rows begin at most 48 h back: a
/// stream is forgotten after 24 h of silence, and a gap row that ends then began no earlier.
const CLAIM_SQL: &str = "
WITH RECURSIVE claimed AS (
  INSERT INTO owner (consumer_group, topic, partition, epoch) VALUES ($1, $2, $3, 1)
  ON CONFLICT (consumer_group, topic, partition)
  DO UPDATE SET epoch = owner.epoch + 1, claimed_at = now()
  RETURNING epoch
), streams AS (
  SELECT min(stream) AS stream FROM anomaly_results
  WHERE stream >= $5 AND stream < $6
    AND window_start <= $4 AND window_start >= $4 - interval '48 hours'
  UNION ALL
  SELECT (SELECT min(r.stream) FROM anomaly_results r
          WHERE r.stream > s.stream AND r.stream < $6
            AND r.window_start <= $4 AND r.window_start >= $4 - interval '48 hours')
  FROM streams s WHERE s.stream IS NOT NULL
), newest AS (
  SELECT n.* FROM streams s CROSS JOIN LATERAL (
    SELECT r.service, r.model_checksum, r.state, r.window_start FROM anomaly_results r
    WHERE r.stream = s.stream AND NOT r.provisional AND NOT r.gap
      AND r.window_start <= $4 AND r.window_start >= $4 - interval '48 hours'
    ORDER BY r.window_start DESC, r.window_end DESC LIMIT 1
  ) n
)
SELECT claimed.epoch, newest.service, newest.model_checksum, newest.state, newest.window_start
FROM claimed LEFT JOIN newest ON true ORDER BY newest.service NULLS FIRST";

fn recovered(partition: &TopicPartition, row: &Row) -> Option<RecoveredStream> {
    let model_checksum: Option<&str> = row.get(2);
    let service: Option<&str> = row.get(1);
    let state: Option<serde_json::Value> = row.get(3);
    let parsed = serde_json::from_value(state?);
    let state = parsed
        .inspect_err(|error| {
            let window_start: Option<DateTime<Utc>> = row.get(4);
            warn!(
                %partition, service, ?window_start, %error,
                "the state in a row cannot be read; its stream starts with the model's baseline"
            );
        })
        .ok()?;
    Some(RecoveredStream {
        service: service.map(Into::into),
        model_checksum: model_checksum.unwrap_or_default().into(),
        state,
    })
}

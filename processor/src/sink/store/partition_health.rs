//! What `run` notes of its partitions in `pipeline_health`: how far reading is behind, and what
//! became of the records of the last minute.

use tokio_postgres::types::ToSql;

use super::{Store, StoreError, json::without_nul};
use crate::event::{EventTime, TopicPartition};

/// What a process noted of one partition since its last note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionHealth {
    /// The partition.
    pub partition: TopicPartition,
    /// Records not yet read; `None` while that is not known.
    pub lag: Option<i64>,
    /// Largest event time read.
    pub newest_event: Option<EventTime>,
    /// Records read, those read again after a restart included.
    pub read: i64,
    /// Lines in windows that closed.
    pub scored: i64,
    /// Records that came after their window was final.
    pub late: i64,
    /// Records not scored for any other reason.
    pub rejected: i64,
}

impl Store {
    /// Adds the notes to the rows of this minute (by the server's clock), and drops notes that are
    /// too old to matter. Replicas that hold a partition one after the other within a minute add to
    /// the same row.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn note_health(&self, notes: &[PartitionHealth]) -> Result<(), StoreError> {
        let column = |of: fn(&PartitionHealth) -> i64| notes.iter().map(of).collect::<Vec<_>>();
        let topics: Vec<_> = notes
            .iter()
            .map(|it| without_nul(&it.partition.topic))
            .collect();
        let partitions: Vec<_> = notes.iter().map(|it| it.partition.partition).collect();
        let lags: Vec<_> = notes.iter().map(|it| it.lag).collect();
        let newest: Vec<_> = notes
            .iter()
            .map(|it| it.newest_event.map(EventTime::to_datetime))
            .collect();
        let [read, scored, late, rejected] = [
            column(|it| it.read),
            column(|it| it.scored),
            column(|it| it.late),
            column(|it| it.rejected),
        ];
        let params: [&(dyn ToSql + Sync); 9] = [
            &&*self.group,
            &topics,
            &partitions,
            &lags,
            &newest,
            &read,
            &scored,
            &late,
            &rejected,
        ];
        self.query("note the pipeline's health", NOTE_SQL, &params)
            .await
            .map(drop)
    }
}

/// Seven days of notes: 10,080 short rows a partition, as long as raw lines are kept. Rows come in
/// the order of their key, so that two replicas never wait for each other crosswise.
const NOTE_SQL: &str = "
WITH expired AS (
  DELETE FROM pipeline_health
  WHERE minute < now() - interval '7 days' AND consumer_group = $1
)
INSERT INTO pipeline_health AS noted
  (minute, consumer_group, topic, partition, lag, newest_event, read, scored, late, rejected)
SELECT date_trunc('minute', now()), $1, topic, partition, lag, newest_event,
       read, scored, late, rejected
FROM UNNEST($2::text[], $3::int[], $4::int8[], $5::timestamptz[],
            $6::int8[], $7::int8[], $8::int8[], $9::int8[])
     AS input(topic, partition, lag, newest_event, read, scored, late, rejected)
ORDER BY topic, partition
ON CONFLICT (minute, consumer_group, topic, partition) DO UPDATE SET
  lag = COALESCE(EXCLUDED.lag, noted.lag),
  newest_event = GREATEST(EXCLUDED.newest_event, noted.newest_event),
  read = noted.read + EXCLUDED.read,
  scored = noted.scored + EXCLUDED.scored,
  late = noted.late + EXCLUDED.late,
  rejected = noted.rejected + EXCLUDED.rejected";

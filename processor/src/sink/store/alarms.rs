//! Table `alarms` from the reader's side: one alarm, the alarms since, and what people make of
//! them. Rows are written with their windows; nothing here adds or removes one.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::{Row, types::ToSql};

use super::{Store, StoreError};
use crate::{
    event::{EventTime, NextOffset, OffsetSpan, StreamKey, TopicPartition},
    window::WindowBounds,
};

/// Most alarms that one question brings.
pub const ALARMS_PAGE_MAX: i64 = 1_000;

/// An alarm as the table has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoredAlarm {
    /// 16 hex digits.
    pub alarm_id: String,
    /// Order of arrival.
    pub seq: i64,
    /// When its row was first written.
    pub raised_at: DateTime<Utc>,
    /// First instant of its window.
    pub window_start: DateTime<Utc>,
    /// First instant after it.
    pub window_end: DateTime<Utc>,
    /// `topic/partition` or `topic/partition/service`.
    pub stream: String,
    /// The stream's topic.
    pub topic: String,
    /// The stream's partition.
    pub partition: i32,
    /// The stream's service, where windows are grouped by service.
    pub service: Option<String>,
    /// What raised it: `window` for a window's score, `early` for that of a window that was not full yet,
    /// `silence` for what did not come.
    pub kind: String,
    /// Event time at which it was raised, if that was before its window was full.
    pub early_at: Option<DateTime<Utc>>,
    /// The clock decided.
    pub provisional: bool,
    /// Too old when it was raised to tell anyone.
    pub stale: bool,
    /// In [0, 1].
    pub anomaly_score: f64,
    /// -log10 of the combined p-value.
    pub severity: f64,
    /// Combined p-value below which windows were anomalous.
    pub threshold: f64,
    /// Lines.
    pub log_count: i32,
    /// `ERROR` lines.
    pub error_count: i32,
    /// `ERROR` and `FATAL` lines.
    pub critical_count: i32,
    /// Why, strongest first.
    pub reasons: Vec<String>,
    /// The first `ERROR` and `FATAL` messages.
    pub samples: Vec<String>,
    /// The whole explanation.
    pub explanation: Value,
    /// Its lines stand at offsets `[first_offset, next_offset)`.
    pub first_offset: Option<i64>,
    /// See `first_offset`; of an early alarm one past the record at which it was raised.
    pub next_offset: Option<i64>,
    /// Largest event time of the partition before `first_offset`.
    pub max_event_time_before: Option<DateTime<Utc>>,
    /// Start of the window whose row holds the state it was scored with.
    pub state_window_start: Option<DateTime<Utc>>,
    /// End of that window.
    pub state_window_end: Option<DateTime<Utc>>,
    /// How far behind the largest event time records could be, in milliseconds.
    pub lateness_ms: i64,
    /// Checksum of the model.
    pub model_checksum: String,
    /// When somebody said that they look after it.
    pub acknowledged_at: Option<DateTime<Utc>>,
    /// Who.
    pub acknowledged_by: Option<String>,
    /// `real` or `false-alarm`.
    pub feedback: Option<String>,
    /// What was said with it.
    pub feedback_note: Option<String>,
    /// When.
    pub feedback_at: Option<DateTime<Utc>>,
    /// By whom.
    pub feedback_by: Option<String>,
}

impl StoredAlarm {
    /// Returns its window.
    #[must_use]
    pub fn bounds(&self) -> WindowBounds {
        WindowBounds {
            start: self.window_start.into(),
            end: self.window_end.into(),
        }
    }

    /// Returns its stream.
    #[must_use]
    pub fn stream_key(&self) -> StreamKey {
        StreamKey {
            partition: TopicPartition {
                topic: self.topic.as_str().into(),
                partition: self.partition,
            },
            service: self.service.as_deref().map(Into::into),
        }
    }

    /// Returns where its lines stand, `None` for a window without lines.
    #[must_use]
    pub fn span(&self) -> Option<OffsetSpan> {
        let (first, next) = self.first_offset.zip(self.next_offset)?;
        Some(OffsetSpan {
            first,
            next: NextOffset(next),
        })
    }

    /// Returns the window whose row holds the state it was scored with.
    #[must_use]
    pub fn state_window(&self) -> Option<WindowBounds> {
        let (start, end) = self.state_window_start.zip(self.state_window_end)?;
        Some(WindowBounds {
            start: start.into(),
            end: end.into(),
        })
    }

    fn from_row(row: &Row) -> Self {
        Self {
            alarm_id: row.get("alarm_id"),
            seq: row.get("seq"),
            raised_at: row.get("raised_at"),
            window_start: row.get("window_start"),
            window_end: row.get("window_end"),
            stream: row.get("stream"),
            topic: row.get("topic"),
            partition: row.get("partition"),
            service: row.get("service"),
            kind: row.get("kind"),
            early_at: row.get("early_at"),
            provisional: row.get("provisional"),
            stale: row.get("stale"),
            anomaly_score: row.get("anomaly_score"),
            severity: row.get("severity"),
            threshold: row.get("threshold"),
            log_count: row.get("log_count"),
            error_count: row.get("error_count"),
            critical_count: row.get("critical_count"),
            reasons: row.get("reasons"),
            samples: row.get("samples"),
            explanation: row.get("explanation"),
            first_offset: row.get("first_offset"),
            next_offset: row.get("next_offset"),
            max_event_time_before: row.get("max_event_time_before"),
            state_window_start: row.get("state_window_start"),
            state_window_end: row.get("state_window_end"),
            lateness_ms: row.get("lateness_ms"),
            model_checksum: row.get("model_checksum"),
            acknowledged_at: row.get("acknowledged_at"),
            acknowledged_by: row.get("acknowledged_by"),
            feedback: row.get("feedback"),
            feedback_note: row.get("feedback_note"),
            feedback_at: row.get("feedback_at"),
            feedback_by: row.get("feedback_by"),
        }
    }
}

/// Which alarms are asked for.
#[derive(Clone, Debug, Default)]
pub struct AlarmQuery {
    /// Raised at or after this time, by the server's clock.
    pub since: Option<DateTime<Utc>>,
    /// Raised this long before the server's present time at most, in seconds.
    pub within_s: Option<f64>,
    /// Of this stream.
    pub stream: Option<String>,
    /// That arrived after the one of this number.
    pub after_seq: i64,
}

/// Something said or done about an alarm, for the record.
#[derive(Clone, Debug)]
pub struct AlarmAction<'a> {
    /// The alarm.
    pub alarm_id: &'a str,
    /// What: `evidence`, `acknowledge`, `feedback`.
    pub action: &'a str,
    /// Who.
    pub actor: &'a str,
    /// What was said with it.
    pub note: Option<&'a str>,
}

const ALARM_SQL: &str = "SELECT * FROM alarms WHERE alarm_id = $1";

const ALARMS_SQL: &str = "
SELECT * FROM alarms
WHERE seq > $1 AND ($2::timestamptz IS NULL OR raised_at >= $2)
  AND ($3::float8 IS NULL OR raised_at >= now() - make_interval(secs => $3))
  AND ($4::text IS NULL OR stream = $4)
ORDER BY seq LIMIT $5";

const ACTION_SQL: &str =
    "INSERT INTO alarm_actions (alarm_id, action, actor, note) VALUES ($1, $2, $3, $4)";

const ACKNOWLEDGE_SQL: &str = "
WITH acknowledged AS (
  UPDATE alarms SET acknowledged_at = coalesce(acknowledged_at, now()),
                    acknowledged_by = coalesce(acknowledged_by, $2)
  WHERE alarm_id = $1 RETURNING alarm_id
)
INSERT INTO alarm_actions (alarm_id, action, actor, note)
SELECT alarm_id, 'acknowledge', $2, $3 FROM acknowledged RETURNING alarm_id";

impl Store {
    /// Returns the alarm of this id, `None` if there is none.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn alarm(&self, alarm_id: &str) -> Result<Option<StoredAlarm>, StoreError> {
        let rows = self.query("read an alarm", ALARM_SQL, &[&alarm_id]).await?;
        Ok(rows.first().map(StoredAlarm::from_row))
    }

    /// Returns the first [`ALARMS_PAGE_MAX`] of the alarms asked for, in order of arrival.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn alarms(&self, query: &AlarmQuery) -> Result<Vec<StoredAlarm>, StoreError> {
        let params: [&(dyn ToSql + Sync); 5] = [
            &query.after_seq,
            &query.since,
            &query.within_s,
            &query.stream,
            &ALARMS_PAGE_MAX,
        ];
        let rows = self.query("read alarms", ALARMS_SQL, &params).await?;
        Ok(rows.iter().map(StoredAlarm::from_row).collect())
    }

    /// Puts on record what somebody did.
    ///
    /// # Errors
    /// The server is not reachable, or refuses the role.
    pub async fn record_action(&self, action: &AlarmAction<'_>) -> Result<(), StoreError> {
        let params: [&(dyn ToSql + Sync); 4] = [
            &action.alarm_id,
            &action.action,
            &action.actor,
            &action.note,
        ];
        let inserted = self.query("record an action", ACTION_SQL, &params).await;
        inserted.map(drop)
    }

    /// Notes who looks after an alarm, the first one for good; returns whether there is such an
    /// alarm.
    ///
    /// # Errors
    /// The server is not reachable, or refuses the role.
    pub async fn acknowledge(
        &self,
        alarm_id: &str,
        actor: &str,
        note: Option<&str>,
    ) -> Result<bool, StoreError> {
        let params: [&(dyn ToSql + Sync); 3] = [&alarm_id, &actor, &note];
        let rows = self
            .query("acknowledge an alarm", ACKNOWLEDGE_SQL, &params)
            .await?;
        Ok(!rows.is_empty())
    }

    /// Returns the windows that people have judged.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn judged_windows(&self) -> Result<Vec<JudgedWindow>, StoreError> {
        let rows = self.query("read feedback", JUDGED_SQL, &[]).await?;
        let judged = |row: &Row| JudgedWindow {
            bounds: WindowBounds {
                start: EventTime::from(row.get::<_, DateTime<Utc>>(0)),
                end: EventTime::from(row.get::<_, DateTime<Utc>>(1)),
            },
            service: row.get(2),
            topic: row.get(3),
            false_alarm: row.get(4),
        };
        Ok(rows.iter().map(judged).collect())
    }
}

/// A window whose alarm somebody judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedWindow {
    /// Its time.
    pub bounds: WindowBounds,
    /// Its service, where windows are grouped by service.
    pub service: Option<String>,
    /// Its topic.
    pub topic: String,
    /// The alarm was false; else it was real.
    pub false_alarm: bool,
}

const JUDGED_SQL: &str = "
SELECT window_start, window_end, service, topic, feedback = 'false-alarm'
FROM alarms WHERE feedback IS NOT NULL ORDER BY window_start, stream";

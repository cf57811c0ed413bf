//! What an alarm's proof needs from the store: the state it was scored with, and the row that says
//! how it was scored.

use serde_json::Value;
use tokio_postgres::{Row, types::ToSql};

use super::{RecoveredStream, Store, StoreError, StreamState};
use crate::window::WindowBounds;

/// What the row of a window says of its score.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredScore {
    /// The row is not final.
    pub provisional: bool,
    /// One past the largest offset of its lines.
    pub next_offset: Option<i64>,
    /// What an early alarm said of it.
    pub early: Option<Value>,
    /// 0 or 1.
    pub is_anomaly: i32,
    /// In [0, 1].
    pub anomaly_score: f64,
    /// -log10 of the combined p-value.
    pub severity: f64,
    /// Empirical CDF of the distance to the nearest core point.
    pub dbscan_score: f64,
    /// Label of the nearest core point within eps, else -1.
    pub cluster_label: i32,
    /// The reasons.
    pub explanation: Value,
    /// Checksum of the model.
    pub model_checksum: String,
    /// Every column by name, `None` if the feature store has no row.
    pub features: Option<Value>,
}

const STATE_SQL: &str = "
SELECT service, model_checksum, state FROM anomaly_results
WHERE window_start = $1 AND window_end = $2 AND stream = $3 AND NOT gap";

const SCORE_SQL: &str = "
SELECT r.provisional, r.is_anomaly, r.anomaly_score, r.severity, r.dbscan_score, r.cluster_label,
       r.explanation, r.model_checksum, f.features, r.next_offset, r.early
FROM anomaly_results r LEFT JOIN window_features f USING (window_start, window_end, stream)
WHERE r.window_start = $1 AND r.window_end = $2 AND r.stream = $3";

impl Store {
    /// Returns the state of a stream after a window, `None` if its row is gone or has none.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn state_after(
        &self,
        stream: &str,
        bounds: WindowBounds,
    ) -> Result<Option<RecoveredStream>, StoreError> {
        let rows = self.of_window("read a state", STATE_SQL, stream, bounds);
        Ok(rows.await?.first().and_then(|row| {
            let state: StreamState = serde_json::from_value(row.get(2)).ok()?;
            Some(RecoveredStream {
                service: row.get::<_, Option<&str>>(0).map(Into::into),
                model_checksum: row.get::<_, &str>(1).into(),
                state,
            })
        }))
    }

    /// Returns what the row of a window says, `None` if it is gone.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn score_of(
        &self,
        stream: &str,
        bounds: WindowBounds,
    ) -> Result<Option<StoredScore>, StoreError> {
        let rows = self.of_window("read a score", SCORE_SQL, stream, bounds);
        Ok(rows.await?.first().map(|row| StoredScore {
            provisional: row.get(0),
            is_anomaly: row.get(1),
            anomaly_score: row.get(2),
            severity: row.get(3),
            dbscan_score: row.get(4),
            cluster_label: row.get(5),
            explanation: row.get(6),
            model_checksum: row.get(7),
            features: row.get(8),
            next_offset: row.get(9),
            early: row.get(10),
        }))
    }

    async fn of_window(
        &self,
        action: &'static str,
        sql: &str,
        stream: &str,
        bounds: WindowBounds,
    ) -> Result<Vec<Row>, StoreError> {
        let (start, end) = (bounds.start.to_datetime(), bounds.end.to_datetime());
        let params: [&(dyn ToSql + Sync); 3] = [&start, &end, &stream];
        self.query(action, sql, &params).await
    }
}

//! Templates as streams have them, and what people decided of them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_postgres::{Row, types::ToSql};
use tracing::warn;

use super::{Store, StoreError, row::StreamState};
use crate::model::{Baseline, Decision};

/// Most decisions that take effect, the newest ones; whoever has more wants another model, and is
/// told so.
const DECISIONS_MAX: i64 = 10_000;

/// Streams are walked one index entry each, as when a partition is claimed.
const STATES_SQL: &str = "
WITH RECURSIVE streams AS (
  SELECT min(stream) AS stream FROM anomaly_results
  UNION ALL
  SELECT (SELECT min(r.stream) FROM anomaly_results r WHERE r.stream > s.stream)
  FROM streams s WHERE s.stream IS NOT NULL
)
SELECT n.* FROM streams s CROSS JOIN LATERAL (
  SELECT r.stream, r.window_start, r.window_end, r.model_checksum, r.state FROM anomaly_results r
  WHERE r.stream = s.stream AND NOT r.provisional AND NOT r.gap
  ORDER BY r.window_start DESC, r.window_end DESC LIMIT 1
) n WHERE $1::text IS NULL OR n.stream = $1 ORDER BY n.stream";

const TEXTS_SQL: &str = "
SELECT id, text FROM log_templates WHERE stream = $1 AND id = ANY($2)";

const DECISIONS_SQL: &str = "
SELECT *, (SELECT count(*) FROM template_decisions) AS there_are
FROM template_decisions ORDER BY decision_id DESC LIMIT $1";

const DECIDE_SQL: &str = "
INSERT INTO template_decisions (stream, template, decision, active_from, created_by)
VALUES ($1, $2, $3, $4, $5) RETURNING *";

/// A stream as its newest final row left it.
#[derive(Clone, Debug)]
pub struct StoredStream {
    /// Its name.
    pub stream: String,
    /// Length of its windows, in milliseconds.
    pub window_ms: i64,
    /// The model that scored the row.
    pub model_checksum: String,
    /// Its baseline after that row.
    pub baseline: Baseline,
}

/// A decision as the table has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredDecision {
    /// Its number.
    pub decision_id: i64,
    /// The stream.
    pub stream: String,
    /// The template, 16 hex digits.
    pub template: String,
    /// `adopt` or `forget`.
    pub decision: String,
    /// Start of the first window it holds for.
    pub active_from: DateTime<Utc>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// By whom.
    pub created_by: String,
}

impl StoredDecision {
    fn from_row(row: &Row) -> Self {
        Self {
            decision_id: row.get("decision_id"),
            stream: row.get("stream"),
            template: row.get("template"),
            decision: row.get("decision"),
            active_from: row.get("active_from"),
            created_at: row.get("created_at"),
            created_by: row.get("created_by"),
        }
    }

    /// Returns it as the scorer takes it, `None` if the row makes no sense.
    fn decision(self) -> Option<Decision> {
        Some(Decision {
            id: self.decision_id,
            stream: self.stream,
            template: u64::from_str_radix(&self.template, 16).ok()?,
            adopt: self.decision == "adopt",
            active_from: self.active_from.into(),
        })
    }
}

impl Store {
    /// Returns the streams there are, or the one of this name, by name.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn stored_streams(
        &self,
        name: Option<&str>,
    ) -> Result<Vec<StoredStream>, StoreError> {
        let rows = self.query("read streams", STATES_SQL, &[&name]).await?;
        Ok(rows.iter().filter_map(stored_stream).collect())
    }

    /// Returns the texts of a stream's templates, those that it has seen.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn template_texts(
        &self,
        stream: &str,
        ids: &[String],
    ) -> Result<Vec<(String, String)>, StoreError> {
        let params: [&(dyn ToSql + Sync); 2] = [&stream, &ids];
        let rows = self.query("read templates", TEXTS_SQL, &params).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Returns what people decided, newest first; warns once if there is more of it than is read.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn stored_decisions(&self) -> Result<Vec<StoredDecision>, StoreError> {
        let rows = self
            .query("read decisions", DECISIONS_SQL, &[&DECISIONS_MAX])
            .await?;
        self.passed_over.decisions(&rows);
        Ok(rows.iter().map(StoredDecision::from_row).collect())
    }

    /// Returns what people decided, as the scorer takes it.
    pub(super) async fn decisions(&self) -> Result<Vec<Decision>, StoreError> {
        let stored = self.stored_decisions().await?;
        Ok(stored
            .into_iter()
            .filter_map(StoredDecision::decision)
            .collect())
    }

    /// Adopts a template or forgets it, from the window at `active_from` on.
    ///
    /// # Errors
    /// The server is not reachable, or refuses the role.
    pub async fn decide(
        &self,
        (stream, template): (&str, &str),
        adopt: bool,
        active_from: DateTime<Utc>,
        actor: &str,
    ) -> Result<Option<StoredDecision>, StoreError> {
        let decision = if adopt { "adopt" } else { "forget" };
        let params: [&(dyn ToSql + Sync); 5] =
            [&stream, &template, &decision, &active_from, &actor];
        let rows = self.query("note a decision", DECIDE_SQL, &params).await?;
        Ok(rows.first().map(StoredDecision::from_row))
    }
}

fn stored_stream(row: &Row) -> Option<StoredStream> {
    let stream: String = row.get("stream");
    let (start, end): (DateTime<Utc>, DateTime<Utc>) =
        (row.get("window_start"), row.get("window_end"));
    let state: StreamState = serde_json::from_value(row.get("state"))
        .inspect_err(|error| {
            warn!(stream, window_start = %start, %error, "the state in a row cannot be read");
        })
        .ok()?;
    Some(StoredStream {
        window_ms: (end - start).num_milliseconds().max(1),
        model_checksum: row.get("model_checksum"),
        baseline: state.baseline,
        stream,
    })
}

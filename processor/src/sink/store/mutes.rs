//! Feedback on alarms, and the mutes that come of it.
//!
//! Feedback, the record of who gave it, and its mutes are one statement: all or nothing. Mutes are
//! never deleted, only brought to an early end: they tell how windows were judged.

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_postgres::{Row, types::ToSql};
use tracing::warn;

use super::{Store, StoreError, json::without_nul};
use crate::model::{Mute, Mutes, Pattern};

/// Most mutes that take effect; beyond it the oldest are passed over, and a warning says so. A team
/// that has mutes by the thousand needs another model.
pub const MUTES_MAX: i64 = 10_000;

/// What somebody says of an alarm.
#[derive(Clone, Debug)]
pub struct Feedback<'a> {
    /// The alarm.
    pub alarm_id: &'a str,
    /// It was false; else it was real.
    pub false_alarm: bool,
    /// What is said with it.
    pub note: Option<&'a str>,
    /// Who says it.
    pub actor: &'a str,
    /// What is muted: nothing, if it was real.
    pub patterns: &'a [Pattern],
    /// First window that its mutes hold for, or in which those of an alarm that turned out to be
    /// real no longer hold.
    pub active_from: DateTime<Utc>,
    /// End of its mutes.
    pub expires_at: DateTime<Utc>,
}

/// A mute as the table has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredMute {
    /// Its number.
    pub mute_id: i64,
    /// The stream.
    pub stream: String,
    /// `template`, `critical` or `volume`.
    pub kind: String,
    /// Id of the template, 16 hex digits.
    pub template: Option<String>,
    /// Its masked text.
    pub template_text: Option<String>,
    /// The alarm that was called false.
    pub alarm_id: String,
    /// Start of the first window it holds for.
    pub active_from: DateTime<Utc>,
    /// Windows that start at this time or later are judged in full again.
    pub expires_at: DateTime<Utc>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// By whom.
    pub created_by: String,
    /// When it was lifted.
    pub lifted_at: Option<DateTime<Utc>>,
    /// By whom.
    pub lifted_by: Option<String>,
}

impl StoredMute {
    fn from_row(row: &Row) -> Self {
        Self {
            mute_id: row.get("mute_id"),
            stream: row.get("stream"),
            kind: row.get("kind"),
            template: row.get("template"),
            template_text: row.get("template_text"),
            alarm_id: row.get("alarm_id"),
            active_from: row.get("active_from"),
            expires_at: row.get("expires_at"),
            created_at: row.get("created_at"),
            created_by: row.get("created_by"),
            lifted_at: row.get("lifted_at"),
            lifted_by: row.get("lifted_by"),
        }
    }

    /// Returns it as the scorer takes it, `None` if the row makes no sense.
    fn mute(self) -> Option<Mute> {
        let pattern = match (self.kind.as_str(), &self.template) {
            ("critical", _) => Pattern::Critical,
            ("volume", _) => Pattern::Volume,
            ("template", Some(id)) => Pattern::Template {
                template: u64::from_str_radix(id, 16).ok()?,
                text: self.template_text.unwrap_or_default(),
            },
            _ => return None,
        };
        Some(Mute {
            id: self.mute_id,
            stream: self.stream,
            pattern,
            active_from: self.active_from.into(),
            expires_at: self.expires_at.into(),
        })
    }
}

const FEEDBACK_SQL: &str = "
WITH judged AS (
  UPDATE alarms SET feedback = $2, feedback_note = $3, feedback_at = now(), feedback_by = $4,
                    acknowledged_at = coalesce(acknowledged_at, now()),
                    acknowledged_by = coalesce(acknowledged_by, $4)
  WHERE alarm_id = $1 RETURNING alarm_id, stream
), noted AS (
  INSERT INTO alarm_actions (alarm_id, action, actor, note)
  SELECT alarm_id, 'feedback ' || $2, $4, $3 FROM judged
), lifted AS (
  UPDATE mutes SET expires_at = greatest(active_from, $5), lifted_at = now(), lifted_by = $4
  FROM judged WHERE $2 = 'real' AND mutes.alarm_id = judged.alarm_id AND expires_at > $5
), muted AS (
  INSERT INTO mutes (stream, kind, template, template_text, alarm_id, active_from, expires_at,
                     created_by)
  SELECT judged.stream, wanted.kind, wanted.template, wanted.text, judged.alarm_id, $5, $6, $4
  FROM judged CROSS JOIN UNNEST($7::text[], $8::text[], $9::text[]) AS wanted(kind, template, text)
  WHERE NOT EXISTS (SELECT FROM mutes WHERE mutes.stream = judged.stream
    AND mutes.kind = wanted.kind AND mutes.template IS NOT DISTINCT FROM wanted.template
    AND mutes.active_from <= $5 AND mutes.expires_at >= $6)
  RETURNING *
)
SELECT judged.alarm_id AS judged, muted.* FROM judged LEFT JOIN muted ON true ORDER BY mute_id";

const MUTES_SQL: &str = "
SELECT newest.*, (SELECT count(*) FROM mutes WHERE $1 OR expires_at > now()) AS there_are FROM (
  SELECT * FROM mutes WHERE $1 OR expires_at > now() ORDER BY mute_id DESC LIMIT $2
) newest ORDER BY mute_id";

const LIFT_SQL: &str = "
WITH lifted AS (
  UPDATE mutes SET expires_at = greatest(active_from, least(expires_at, $2)),
                   lifted_at = now(), lifted_by = $3
  WHERE mute_id = $1 AND expires_at > $2 RETURNING *
), noted AS (
  INSERT INTO alarm_actions (alarm_id, action, actor, note)
  SELECT alarm_id, 'lift mute', $3, 'mute ' || mute_id FROM lifted
)
SELECT * FROM lifted";

impl Store {
    /// Notes what somebody says of an alarm, and mutes its pattern if it was false; a real one lifts
    /// what was muted for it. Returns the mutes made, without those there were already; `None` if
    /// there is no such alarm.
    ///
    /// # Errors
    /// The server is not reachable, or refuses the role.
    pub async fn give_feedback(
        &self,
        feedback: &Feedback<'_>,
    ) -> Result<Option<Vec<StoredMute>>, StoreError> {
        let (mut kinds, mut templates, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for pattern in feedback.patterns {
            let (kind, template, text) = match pattern {
                Pattern::Critical => ("critical", None, None),
                Pattern::Volume => ("volume", None, None),
                Pattern::Template { template, text } => (
                    "template",
                    Some(format!("{template:016x}")),
                    Some(without_nul(text)),
                ),
            };
            kinds.push(kind);
            templates.push(template);
            texts.push(text);
        }
        let verdict = if feedback.false_alarm {
            "false-alarm"
        } else {
            "real"
        };
        let params: [&(dyn ToSql + Sync); 9] = [
            &feedback.alarm_id,
            &verdict,
            &feedback.note,
            &feedback.actor,
            &feedback.active_from,
            &feedback.expires_at,
            &kinds,
            &templates,
            &texts,
        ];
        let rows = self.query("note feedback", FEEDBACK_SQL, &params).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let made = rows
            .iter()
            .filter(|row| row.get::<_, Option<i64>>("mute_id").is_some());
        Ok(Some(made.map(StoredMute::from_row).collect()))
    }

    /// Returns the mutes that have not expired, or all of them, in the order they were made.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn stored_mutes(&self, expired_too: bool) -> Result<Vec<StoredMute>, StoreError> {
        let params: [&(dyn ToSql + Sync); 2] = [&expired_too, &MUTES_MAX];
        let rows = self.query("read mutes", MUTES_SQL, &params).await?;
        self.passed_over.mutes(&rows);
        Ok(rows.iter().map(StoredMute::from_row).collect())
    }

    /// Returns all mutes and decisions as the scorer takes them, expired mutes included: a window that is read
    /// again is judged as the first time.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn mutes(&self) -> Result<Mutes, StoreError> {
        let stored = self.stored_mutes(true).await?;
        let decisions = self.decisions().await?;
        let mutes = Mutes::new(stored.into_iter().filter_map(|stored| {
            let id = stored.mute_id;
            let mute = stored.mute();
            if mute.is_none() {
                warn!(mute = id, "a mute makes no sense; it does not hold");
            }
            mute
        }));
        Ok(mutes.with_decisions(decisions))
    }

    /// Brings a mute to its end at `ends_at`; returns it, `None` if it is not there or over by then.
    ///
    /// # Errors
    /// The server is not reachable, or refuses the role.
    pub async fn lift_mute(
        &self,
        mute_id: i64,
        ends_at: DateTime<Utc>,
        actor: &str,
    ) -> Result<Option<StoredMute>, StoreError> {
        let params: [&(dyn ToSql + Sync); 3] = [&mute_id, &ends_at, &actor];
        let rows = self.query("lift a mute", LIFT_SQL, &params).await?;
        Ok(rows.first().map(StoredMute::from_row))
    }
}

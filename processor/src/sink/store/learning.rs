//! First models: which one is active for a topic, and the lease of the process that learns it.
//!
//! A lease holds until it expires by the server's clock, and its epoch is the fence: a model is
//! published only under the epoch it was learnt under.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Store, StoreError, models::packed};
use crate::{event::EventTime, model::Bundle};

/// `$1` group, `$2` topic.
const ACTIVE_SQL: &str = "
SELECT checksum, active_from, activated_at, activated_by FROM active_models
WHERE consumer_group = $1 AND topic = $2 ORDER BY active_from DESC LIMIT 1";

/// `$1` group, `$2` topic, `$3` holder, `$4` how long, in milliseconds.
const ACQUIRE_SQL: &str = "
WITH taken AS (
  INSERT INTO learning_leases AS lease (consumer_group, topic, holder, epoch, expires_at)
  VALUES ($1, $2, $3, 1, now() + $4 * interval '1 millisecond')
  ON CONFLICT (consumer_group, topic) DO UPDATE
  SET holder = EXCLUDED.holder, epoch = lease.epoch + 1, acquired_at = now(),
      expires_at = EXCLUDED.expires_at, progress = ''
  WHERE lease.expires_at < now()
  RETURNING epoch
)
SELECT epoch, NULL, NULL FROM taken
UNION ALL
SELECT NULL, holder, progress FROM learning_leases
WHERE consumer_group = $1 AND topic = $2 AND NOT EXISTS (SELECT FROM taken)";

/// `$1` group, `$2` topic, `$3` epoch, `$4` how long, in milliseconds, `$5` progress. One that has
/// expired and that nobody took is the holder's again.
const RENEW_SQL: &str = "
UPDATE learning_leases SET expires_at = now() + $4 * interval '1 millisecond', progress = $5
WHERE consumer_group = $1 AND topic = $2 AND epoch = $3 RETURNING epoch";

/// `$1` group, `$2` topic, `$3` epoch, `$4` active from, `$5` by whom, `$6`… the model.
///
/// The lease is locked: whoever takes it over waits until this has ended, and a statement that waited
/// for a takeover sees its epoch. With the model the lease ends.
const PUBLISH_SQL: &str = "
WITH held AS MATERIALIZED (
  SELECT epoch FROM learning_leases
  WHERE consumer_group = $1 AND topic = $2 AND epoch = $3 FOR UPDATE
), kept AS (
  INSERT INTO models (checksum, training_from, training_until, windows, lines, bundle)
  SELECT $6, $7, $8, $9, $10, $11 FROM held
  ON CONFLICT (checksum) DO NOTHING
), ended AS (
  UPDATE learning_leases SET expires_at = now(), progress = 'published'
  WHERE consumer_group = $1 AND topic = $2 AND epoch IN (SELECT epoch FROM held)
)
INSERT INTO active_models (consumer_group, topic, active_from, checksum, activated_by)
SELECT $1, $2, $4, $6, $5 FROM held
ON CONFLICT DO NOTHING RETURNING checksum";

/// The model that judges a topic's windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveModel {
    /// Its checksum.
    pub checksum: String,
    /// Start of the first window that it judges.
    pub active_from: DateTime<Utc>,
    /// When it became the active one.
    pub activated_at: DateTime<Utc>,
    /// The process that learnt it, or whoever made it the active one.
    pub activated_by: String,
}

/// The right to learn the first model of a topic, for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    topic: String,
    holder: String,
    epoch: i64,
}

/// What becomes of asking for the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is ours.
    Ours(Lease),
    /// Somebody else has it.
    Taken {
        /// Who.
        holder: String,
        /// How far they say they are.
        progress: String,
    },
}

impl Store {
    /// Returns the model that is active for a topic, the newest if there are several.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn active_model(&self, topic: &str) -> Result<Option<ActiveModel>, StoreError> {
        let rows = self
            .query(
                "look for the active model",
                ACTIVE_SQL,
                &[&&*self.group, &topic],
            )
            .await?;
        Ok(rows.first().map(|row| ActiveModel {
            checksum: row.get(0),
            active_from: row.get(1),
            activated_at: row.get(2),
            activated_by: row.get(3),
        }))
    }

    /// Takes the lease of a topic for the time `hold`, if nobody has it.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn acquire_lease(
        &self,
        topic: &str,
        holder: &str,
        hold: Duration,
    ) -> Result<Asked, StoreError> {
        let rows = self
            .query(
                "ask for the lease",
                ACQUIRE_SQL,
                &[&&*self.group, &topic, &holder, &millis(hold)],
            )
            .await?;
        // No row at all: somebody took it in this very moment.
        let (epoch, holder_now, progress) = rows.first().map_or((None, None, None), |row| {
            (row.get(0), row.get(1), row.get(2))
        });
        Ok(match epoch {
            Some(epoch) => Asked::Ours(Lease {
                topic: topic.to_owned(),
                holder: holder.to_owned(),
                epoch,
            }),
            None => Asked::Taken {
                holder: Option::unwrap_or_default(holder_now),
                progress: Option::unwrap_or_default(progress),
            },
        })
    }

    /// Holds the lease for the time `hold` from now on, and says how far its holder is; returns whether
    /// it was still ours. A time of zero gives it up.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn renew_lease(
        &self,
        lease: &Lease,
        hold: Duration,
        progress: &str,
    ) -> Result<bool, StoreError> {
        let (topic, epoch) = (&lease.topic, lease.epoch);
        let rows = self
            .query(
                "renew the lease",
                RENEW_SQL,
                &[&&*self.group, topic, &epoch, &millis(hold), &progress],
            )
            .await?;
        Ok(!rows.is_empty())
    }

    /// Keeps a model and makes it the active one of the lease's topic from a window on; returns whether
    /// the lease was still ours. If not, nothing has happened.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn publish_model(
        &self,
        lease: &Lease,
        bundle: &Bundle,
        active_from: EventTime,
    ) -> Result<bool, StoreError> {
        let summary = bundle.summary();
        let body = packed(bundle).map_err(|error| self.model_error(bundle.checksum(), error))?;
        let rows = self
            .query(
                "publish the model",
                PUBLISH_SQL,
                &[
                    &&*self.group,
                    &lease.topic,
                    &lease.epoch,
                    &active_from.to_datetime(),
                    &lease.holder,
                    &&**bundle.checksum(),
                    &summary.from.to_datetime(),
                    &summary.to.to_datetime(),
                    &i64::try_from(summary.windows).unwrap_or(i64::MAX),
                    &i64::try_from(summary.lines).unwrap_or(i64::MAX),
                    &body,
                ],
            )
            .await?;
        Ok(!rows.is_empty())
    }
}

/// As a number that the server multiplies an interval with.
fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

//! Deploys in the store: which version of a service ran from when on.

use tokio_postgres::types::ToSql;

use super::{Store, StoreError, json::without_nul};
use crate::event::Deploy;

/// Who says that there was a deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeploySource {
    /// Somebody, on the command line; the name if it is known.
    Command {
        /// Who.
        by: Option<String>,
    },
    /// A line of the topic.
    Event,
}

impl Store {
    /// Records deploys in one round trip; returns how many were new. A deploy is known by service,
    /// time and version: one that is there already stays as it was first recorded, so that lines
    /// may be read again and commands repeated.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn record_deploys(
        &self,
        deploys: &[Deploy],
        source: &DeploySource,
    ) -> Result<u64, StoreError> {
        let services: Vec<_> = deploys.iter().map(|it| without_nul(&it.service)).collect();
        let versions: Vec<_> = deploys.iter().map(|it| without_nul(&it.version)).collect();
        let times: Vec<_> = deploys.iter().map(|it| it.at.to_datetime()).collect();
        let (kind, by) = match source {
            DeploySource::Command { by } => ("command", by.as_deref()),
            DeploySource::Event => ("event", None),
        };
        let params: [&(dyn ToSql + Sync); 5] = [&services, &versions, &times, &kind, &by];
        let rows = self
            .query("record deploys", RECORD_SQL, &params)
            .await?
            .len();
        Ok(u64::try_from(rows).unwrap_or(u64::MAX))
    }
}

const RECORD_SQL: &str = "
INSERT INTO deploys (service, version, deployed_at, source, recorded_by)
SELECT service, version, deployed_at, $4, $5
FROM UNNEST($1::text[], $2::text[], $3::timestamptz[]) AS input(service, version, deployed_at)
ON CONFLICT DO NOTHING
RETURNING 1";

//! TimescaleDB's continuous aggregates, brought up to date where their policies do not reach.
//!
//! A policy refreshes the last days only. What is older, because the database had rows before it had
//! TimescaleDB or because old logs were read, would be missing once anything newer is materialised.

use tokio_postgres::Client;

use crate::sink::store::StoreError;

/// The aggregates, those that others stand on first, with the shortest range that can be refreshed
/// and the newest part, which is left to the policy and computed when asked for.
const AGGREGATES: [(&str, &str, &str); 2] = [
    ("anomaly_summary_hourly", "2 hours", "1 hour"),
    ("anomaly_summary_daily", "2 days", "1 day"),
];

/// Refreshes every aggregate as far back as there are rows, and returns their names.
///
/// Never further: a refresh over rows that retention dropped would empty the summary of those days.
/// Rows are dropped by whole days, so the day of the oldest row is complete.
pub(in crate::sink) async fn refresh(
    client: &Client,
    server: &str,
) -> Result<Vec<&'static str>, StoreError> {
    let failed = |source| StoreError::from_postgres(server, "refresh the summaries", source);
    let mut refreshed = Vec::new();
    for (name, shortest, newest) in AGGREGATES {
        let range = client
            .query_one(
                &format!(
                    "SELECT date_trunc('day', min(window_start), 'UTC')::text,
                            (now() - interval '{newest}')::text,
                            now() - interval '{newest}' - interval '{shortest}'
                              > date_trunc('day', min(window_start), 'UTC')
                     FROM anomaly_results"
                ),
                &[],
            )
            .await
            .map_err(failed)?;
        if let (Some(from), Some(until), Some(true)) = (
            range.get::<_, Option<&str>>(0),
            range.get::<_, Option<&str>>(1),
            range.get(2),
        ) {
            // A procedure that commits as it goes: alone in its statement, and without parameters.
            client
                .batch_execute(&format!(
                    "CALL refresh_continuous_aggregate('{name}', '{from}'::timestamptz, \
                     '{until}'::timestamptz)"
                ))
                .await
                .map_err(failed)?;
        }
        refreshed.push(name);
    }
    Ok(refreshed)
}

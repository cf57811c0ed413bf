//! TimescaleDB, where the server has it: hypertables, compression, retention, a continuous
//! aggregate. Elsewhere the same names are plain tables and a view.
//!
//! Its migrations have a history of their own, so that a database that began on plain PostgreSQL
//! gets them with the first `migrate` after the extension was installed.

use std::fmt;

use tokio_postgres::Client;
use tracing::{info, warn};

use super::{Retention, apply, refresh_summaries};
use crate::sink::store::{Chain, StoreConfig, StoreError, connect};

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::str_to_string,
    reason = "generated"
)]
mod timescale_schema {
    refinery::embed_migrations!("../schema/timescale");
}

const HISTORY: &str = "refinery_schema_history_timescale";
const RETENTION_ON: &str = include_str!("../../../../schema/timescale/retention_on.sql");
const RETENTION_OFF: &str = include_str!("../../../../schema/timescale/retention_off.sql");
/// Oldest version with every function the migrations call.
const VERSION_MIN: (u32, u32) = (2, 14);

/// Whether TimescaleDB is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timescale {
    /// Hypertables, compression, retention and the continuous aggregate are in place.
    Used {
        /// The extension's version.
        version: String,
    },
    /// The server does not offer it: plain tables and a view.
    Absent,
    /// The server has it, but it cannot be used: plain tables and a view.
    Unusable {
        /// Why, and what to do.
        reason: String,
    },
}

impl fmt::Display for Timescale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Used { version } => write!(f, "TimescaleDB {version}"),
            Self::Absent => f.write_str(
                "plain PostgreSQL: the same tables and views, without compression and retention",
            ),
            Self::Unusable { reason } => write!(f, "plain PostgreSQL, since {reason}"),
        }
    }
}

/// Applies the TimescaleDB part if the server has a usable one.
pub(super) async fn apply_timescale(
    config: &StoreConfig,
    retention: Retention,
    applied: &mut Vec<String>,
) -> Result<Timescale, StoreError> {
    let found = detect(config).await?;
    let Timescale::Used { .. } = &found else {
        return Ok(found);
    };
    let server = config.server();
    // A connection opened after the extension was created has its library loaded.
    let mut client = connect(config).await?;
    let mut runner = timescale_schema::migrations::runner();
    runner.set_migration_table_name(HISTORY);
    let names = apply(&runner, &mut client, &server).await?;
    applied.extend(names.into_iter().map(|name| format!("timescale {name}")));
    let policies = match retention {
        Retention::On => RETENTION_ON,
        Retention::Off => RETENTION_OFF,
    };
    client
        .batch_execute(policies)
        .await
        .map_err(|source| StoreError::from_postgres(&server, "set the retention", source))?;
    refresh_summaries(&client, &server).await?;
    Ok(found)
}

/// Finds out whether TimescaleDB can be used, creating the extension where that is allowed.
async fn detect(config: &StoreConfig) -> Result<Timescale, StoreError> {
    let server = config.server();
    let failed = |source| StoreError::from_postgres(&server, "look for TimescaleDB", source);
    let client = connect(config).await?;
    let row = client
        .query_opt(
            "SELECT installed_version IS NOT NULL FROM pg_available_extensions
             WHERE name = 'timescaledb'",
            &[],
        )
        .await
        .map_err(failed)?;
    match row.map(|row| row.get::<_, bool>(0)) {
        None => return Ok(Timescale::Absent),
        Some(true) => {}
        Some(false) => {
            if let Err(reason) = create_extension(config).await? {
                warn!(%reason, "TimescaleDB is offered by the server but not used");
                return Ok(Timescale::Unusable { reason });
            }
        }
    }
    let (version, license) = installed(&connect(config).await?).await.map_err(failed)?;
    let found = judge(version, license.as_deref());
    match &found {
        Timescale::Unusable { reason } => {
            warn!(%reason, "TimescaleDB is installed but not used");
        }
        _ => info!(timescale = %found, "TimescaleDB is used"),
    }
    Ok(found)
}

/// Creates the extension; the inner error says why that was not possible.
async fn create_extension(config: &StoreConfig) -> Result<Result<(), String>, StoreError> {
    // On a connection of its own: it must be the first statement of its session, and the server
    // ends the session when the library was not preloaded.
    let client = connect(config).await?;
    let created = client
        .batch_execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        .await;
    let Err(error) = created else {
        return Ok(Ok(()));
    };
    let advice = if error.code().is_some_and(|code| code.code() == "42501") {
        "the role may not create it; let a superuser run `CREATE EXTENSION timescaledb`"
    } else {
        "it cannot be created; is `timescaledb` in `shared_preload_libraries`?"
    };
    Ok(Err(format!("{advice} ({})", Chain(&error))))
}

async fn installed(client: &Client) -> Result<(String, Option<String>), tokio_postgres::Error> {
    let row = client
        .query_one(
            "SELECT extversion, current_setting('timescaledb.license', true)
             FROM pg_extension WHERE extname = 'timescaledb'",
            &[],
        )
        .await?;
    Ok((row.get(0), row.get(1)))
}

/// Decides by version and licence.
fn judge(version: String, license: Option<&str>) -> Timescale {
    let mut numbers = version.split(['.', '-']).map(|it| it.parse::<u32>().ok());
    let major_minor = numbers.next().flatten().zip(numbers.next().flatten());
    let reason = match (major_minor, license) {
        (None, _) => format!("the version of TimescaleDB, `{version}`, cannot be read"),
        (Some(found), _) if found < VERSION_MIN => {
            let (major, minor) = VERSION_MIN;
            format!("TimescaleDB {version} is too old; {major}.{minor} or later is needed")
        }
        (_, Some("apache")) => format!(
            "TimescaleDB {version} runs under its Apache licence, which has no compression, \
             retention or continuous aggregates; set `timescaledb.license = 'timescale'`"
        ),
        _ => return Timescale::Used { version },
    };
    Timescale::Unusable { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(version: &str, license: Option<&str>) -> Option<String> {
        match judge(version.to_owned(), license) {
            Timescale::Unusable { reason } => Some(reason),
            _ => None,
        }
    }

    #[test]
    fn versions_from_2_14_on_are_used() {
        for version in ["2.14.0", "2.14.2-dev", "2.28.3", "2.100.0", "3.0.0"] {
            assert_eq!(reason(version, Some("timescale")), None, "{version}");
            assert_eq!(reason(version, None), None, "{version}");
        }
        for version in ["2.13.1", "2.9.3", "1.7.5", "new", ""] {
            assert!(reason(version, Some("timescale")).is_some(), "{version}");
        }
    }

    #[test]
    fn the_apache_edition_is_named() {
        let reason = reason("2.20.0", Some("apache")).unwrap();
        assert!(reason.contains("Apache licence"), "{reason}");
    }

    #[test]
    fn the_history_names_every_file() {
        let runner = timescale_schema::migrations::runner();
        let names: Vec<_> = runner
            .get_migrations()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            names,
            [
                "V1__hypertables",
                "V2__compression",
                "V3__anomaly_summary_hourly",
                "V4__window_features",
                "V5__anomaly_summary_daily",
            ]
        );
    }
}

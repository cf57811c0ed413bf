//! The schema: applied by `logguard migrate`, checked by `logguard run`.
//!
//! The SQL under `schema/` is part of the program. Migrations go forward only, each in its own
//! transaction, under one advisory lock of the database, so that any number of replicas may migrate
//! at once. Nothing here runs in `run` but [`check`].

mod summaries;
mod timescale;

use refinery::{Migration, Runner, error::Kind};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use tracing::{info, warn};

pub(super) use summaries::refresh as refresh_summaries;
pub use timescale::Timescale;

use super::store::{StoreConfig, StoreError, connect};

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::str_to_string,
    reason = "generated"
)]
mod postgres_schema {
    refinery::embed_migrations!("../schema/postgres");
}

/// Where refinery notes what it applied.
const HISTORY: &str = "refinery_schema_history";
/// The roles, and what each may do.
const ROLES: &str = include_str!("../../../schema/roles.sql");
/// Advisory lock held while migrating: the bytes of `logguard`.
const LOCK: i64 = i64::from_be_bytes(*b"logguard");
/// Longest wait for another replica's migration, and for any lock a migration takes.
const LOCK_TIMEOUT: &str = "5min";

/// Whether old rows are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// Results are kept for 30 days, raw lines for 7.
    #[default]
    On,
    /// Everything is kept: for databases filled with old data.
    Off,
}

/// How to migrate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MigrateOptions {
    /// Whether old rows are dropped from now on; `None` leaves it as it is, on in a new database.
    pub retention: Option<Retention>,
    /// Make the roles `logguard_reader` and `logguard_writer`. Once they are there, every migration
    /// gives them their rights.
    pub roles: bool,
}

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrateReport {
    /// Names of the migrations applied now, in order; empty if the schema was up to date.
    pub applied: Vec<String>,
    /// The schema's version now.
    pub version: i32,
    /// Whether TimescaleDB is used, and why not.
    pub timescale: Timescale,
}

/// Brings the database to the schema of this program. Safe to run from several processes at once,
/// and again.
///
/// # Errors
/// The server is not reachable ([`StoreError::is_unreachable`]), the role lacks rights, or the
/// database was migrated by a newer or another program.
pub async fn migrate(
    config: &StoreConfig,
    options: MigrateOptions,
) -> Result<MigrateReport, StoreError> {
    config.validate()?;
    let server = config.server();
    let mut client = connect(config).await?;
    check_encoding(&client, &server).await?;
    let locked = client
        .batch_execute(&format!(
            "SET lock_timeout = '{LOCK_TIMEOUT}'; SELECT pg_advisory_lock({LOCK})"
        ))
        .await;
    locked.map_err(|source| {
        StoreError::from_postgres(&server, "wait for another migration", source)
    })?;
    // The lock ends with this session, whatever happens to this process.
    let runner = postgres_schema::migrations::runner();
    let known = newest(&runner);
    if let Some(found) = applied_version(&client, &server, HISTORY).await?
        && found > known
    {
        return Err(StoreError::SchemaNewer {
            server,
            found,
            known,
        });
    }
    let mut applied = apply(&runner, &mut client, &server).await?;
    let retention = keep_retention(&client, &server, options.retention).await?;
    let timescale = timescale::apply_timescale(config, retention, &mut applied).await?;
    if options.roles || has_roles(&client, &server).await? {
        grant_roles(&client, &server).await?;
    }
    Ok(MigrateReport {
        applied,
        version: known,
        timescale,
    })
}

/// Checks that the database has the schema this program needs. A newer one will do: migrations only
/// add, so that replicas of the version before go on while an upgrade is rolled out.
///
/// # Errors
/// The schema is missing or older, the server is not reachable, or the role lacks rights.
pub async fn check(config: &StoreConfig) -> Result<(), StoreError> {
    config.validate()?;
    let server = config.server();
    let client = connect(config).await?;
    let needed = newest(&postgres_schema::migrations::runner());
    let found = applied_version(&client, &server, HISTORY);
    // The answer decides whether to start: one that never comes must not hold up the start for good.
    let found = tokio::time::timeout(config.statement_timeout, found).await;
    let found = found.map_err(|_| StoreError::Unreachable {
        server: server.clone(),
        source: "no answer within `statement_timeout`".into(),
    })?;
    match found? {
        Some(found) if found == needed => Ok(()),
        Some(found) if found > needed => {
            warn!(found, needed, "the schema is newer than this program");
            Ok(())
        }
        found => Err(StoreError::SchemaOutdated {
            server,
            found,
            needed,
        }),
    }
}

/// Keeps what is wanted, and returns what holds.
async fn keep_retention(
    client: &Client,
    server: &str,
    wanted: Option<Retention>,
) -> Result<Retention, StoreError> {
    let wanted = wanted.map(|it| it == Retention::On);
    client
        .execute(
            "UPDATE retention SET enabled = $1 WHERE enabled <> $1",
            &[&wanted],
        )
        .await
        .map_err(|source| StoreError::from_postgres(server, "keep the retention", source))?;
    retention(client, server).await
}

/// Returns whether old rows are dropped in this database.
pub(super) async fn retention(client: &Client, server: &str) -> Result<Retention, StoreError> {
    let row = client.query_one("SELECT enabled FROM retention", &[]).await;
    let row =
        row.map_err(|source| StoreError::from_postgres(server, "read the retention", source))?;
    Ok(if row.get(0) {
        Retention::On
    } else {
        Retention::Off
    })
}

/// Returns whether the roles were given rights in this database.
async fn has_roles(client: &Client, server: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT FROM aclexplode((SELECT relacl FROM pg_class
                 WHERE oid = 'anomaly_results'::regclass)) AS grants
               WHERE grants.grantee = to_regrole('logguard_reader')::oid)";
    let row = client.query_one(sql, &[]).await;
    let row = row.map_err(|source| StoreError::from_postgres(server, "look for roles", source))?;
    Ok(row.get(0))
}

/// Makes the roles and gives them their rights, those on what was migrated just now included.
async fn grant_roles(client: &Client, server: &str) -> Result<(), StoreError> {
    let action = "create or grant the roles; it needs CREATEROLE and to own the tables";
    client
        .batch_execute(ROLES)
        .await
        .map_err(|source| StoreError::from_postgres(server, action, source))
}

/// Refuses a database that would refuse rows for the characters in them.
async fn check_encoding(client: &Client, server: &str) -> Result<(), StoreError> {
    let row = client
        .query_one("SELECT current_setting('server_encoding')", &[])
        .await
        .map_err(|source| StoreError::from_postgres(server, "read the encoding", source))?;
    match row.get::<_, String>(0) {
        encoding if encoding == "UTF8" => Ok(()),
        encoding => Err(StoreError::Encoding {
            server: server.to_owned(),
            encoding,
        }),
    }
}

/// Returns the newest version a runner carries.
fn newest(runner: &Runner) -> i32 {
    let versions = runner.get_migrations().iter().map(Migration::version);
    versions.max().unwrap_or(0)
}

/// Returns the newest version applied, `None` if there is no history.
async fn applied_version(
    client: &Client,
    server: &str,
    history: &str,
) -> Result<Option<i32>, StoreError> {
    let failed = |source| StoreError::from_postgres(server, "read the schema's version", source);
    let exists = client
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&history])
        .await
        .map_err(failed)?;
    if !exists.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client
        .query_one(&format!("SELECT max(version) FROM {history}"), &[])
        .await
        .map_err(failed)?;
    Ok(row.get(0))
}

/// Applies what is missing and returns its names.
async fn apply(
    runner: &Runner,
    client: &mut Client,
    server: &str,
) -> Result<Vec<String>, StoreError> {
    let report = runner.run_async(client).await;
    let report = report.map_err(|error| migration_error(server, error))?;
    let names = report.applied_migrations().iter().map(|migration| {
        info!(%migration, "applied");
        migration.to_string()
    });
    Ok(names.collect())
}

fn migration_error(server: &str, error: refinery::Error) -> StoreError {
    let diverged = |detail: String| StoreError::SchemaDiverged {
        server: server.to_owned(),
        detail,
    };
    if let Kind::Connection(_, source) = error.kind()
        && let Some(postgres) = source.downcast_ref::<tokio_postgres::Error>()
    {
        let denied = postgres.code().is_some_and(|code| code.code() == "42501");
        let action = if denied {
            "create the schema; grant it CREATE on the database and its schema"
        } else {
            "apply a migration"
        };
        return StoreError::Migration {
            server: server.to_owned(),
            action,
            unreachable: postgres.code().is_none(),
            source: Box::new(error),
        };
    }
    diverged(error.to_string())
}

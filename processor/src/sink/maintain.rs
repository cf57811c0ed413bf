//! `logguard maintain`: what a database needs done now and then. Drops what retention no longer keeps,
//! and brings summaries up to date; on TimescaleDB only what its policies do not do.
//!
//! Rows go in bounded pieces, each a statement of its own, so that nothing is locked for long and a
//! run that is broken off has done what it has done. Nothing here is run by `run`.

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::Client;
use tracing::debug;

use super::{
    migrate::{self, Retention},
    store::{StoreConfig, StoreError, connect},
};

/// Advisory lock held while maintaining: the bytes of `lgmaint`.
const LOCK: i64 = i64::from_be_bytes(*b"\0lgmaint");
/// Blocks that one statement walks: 8 MB, a fraction of a second.
const BLOCKS_PER_STATEMENT: i64 = 1_000;
/// Days that results, and what belongs to them, are kept.
const RESULTS_DAYS: i64 = 30;
/// Days that raw lines are kept.
const LINES_DAYS: i64 = 7;

/// How long the rows of a table are kept.
struct Rule {
    table: &'static str,
    /// The time that decides, and further conditions; older than `$1`.
    old: &'static str,
    days: i64,
    /// TimescaleDB drops whole chunks of it by itself.
    hypertable: bool,
}

/// In this order, so that what refers to an alarm goes after it.
const RULES: [Rule; 7] = [
    rule("anomaly_results", "window_start < $1", RESULTS_DAYS, true),
    rule("window_features", "window_start < $1", RESULTS_DAYS, true),
    rule("log_events", "\"timestamp\" < $1", LINES_DAYS, true),
    rule("log_templates", "last_seen < $1", RESULTS_DAYS, false),
    // What people said of an alarm is for later trainings, and for the precision by week.
    rule(
        "alarms",
        "window_start < $1 AND feedback IS NULL",
        RESULTS_DAYS,
        false,
    ),
    rule(
        "alarm_actions",
        "at < $1 AND NOT EXISTS (SELECT FROM alarms WHERE alarms.alarm_id = alarm_actions.alarm_id)",
        RESULTS_DAYS,
        false,
    ),
    rule("mutes", "expires_at < $1", RESULTS_DAYS, false),
];

const fn rule(table: &'static str, old: &'static str, days: i64, hypertable: bool) -> Rule {
    Rule {
        table,
        old,
        days,
        hypertable,
    }
}

/// How to maintain.
#[derive(Clone, Copy, Debug)]
pub struct MaintainOptions {
    /// Only count what would be dropped.
    pub dry_run: bool,
    /// The time that ages are reckoned from.
    pub now: DateTime<Utc>,
}

/// What was done to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The table.
    pub table: &'static str,
    /// Its rows are kept for so many days.
    pub days: i64,
    /// Rows dropped, or that would be; `None` if a policy of TimescaleDB does it.
    pub rows: Option<u64>,
}

/// What maintenance did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaintainReport {
    /// Table by table; empty if retention is off.
    pub dropped: Vec<Dropped>,
    /// Summaries that were refreshed; empty on plain PostgreSQL, where they are views.
    pub refreshed: Vec<&'static str>,
    /// Why nothing was dropped, if it was so.
    pub kept: Option<&'static str>,
}

/// Maintains the database once. Two at a time do no harm: the second one finds nothing to do or is
/// told that another is at work.
///
/// # Errors
/// The server is not reachable, the schema is missing or older than needed, the role lacks rights,
/// or another process is at it.
pub async fn maintain(
    config: &StoreConfig,
    options: MaintainOptions,
) -> Result<MaintainReport, StoreError> {
    migrate::check(config).await?;
    let maintenance = Maintenance {
        client: connect(config).await?,
        server: config.server(),
        options,
    };
    // The lock ends with the session.
    if !maintenance
        .flag(&format!("SELECT pg_try_advisory_lock({LOCK})"))
        .await?
    {
        return Err(StoreError::Busy {
            server: maintenance.server,
        });
    }
    let timescale = maintenance.flag(USES_TIMESCALE_SQL).await?;
    let kept = maintenance.kept().await?;
    let dropped = match kept {
        Some(_) => Vec::new(),
        None => maintenance.apply_rules(timescale).await?,
    };
    let refreshed = if timescale && !options.dry_run {
        migrate::refresh_summaries(&maintenance.client, &maintenance.server).await?
    } else {
        Vec::new()
    };
    Ok(MaintainReport {
        dropped,
        refreshed,
        kept,
    })
}

const USES_TIMESCALE_SQL: &str =
    "SELECT to_regclass('refinery_schema_history_timescale') IS NOT NULL";

struct Maintenance {
    client: Client,
    server: String,
    options: MaintainOptions,
}

impl Maintenance {
    /// Returns why nothing is to be dropped.
    async fn kept(&self) -> Result<Option<&'static str>, StoreError> {
        let retention = migrate::retention(&self.client, &self.server).await?;
        Ok((retention == Retention::Off)
            .then_some("retention is off; `logguard migrate --retention on` turns it on"))
    }

    async fn apply_rules(&self, timescale: bool) -> Result<Vec<Dropped>, StoreError> {
        let mut dropped = Vec::new();
        for rule in &RULES {
            let rows = match (timescale && rule.hypertable, self.options.dry_run) {
                (true, _) => None,
                (false, true) => Some(self.count_old(rule).await?),
                (false, false) => Some(self.drop_old(rule).await?),
            };
            dropped.push(Dropped {
                table: rule.table,
                days: rule.days,
                rows,
            });
        }
        Ok(dropped)
    }

    async fn count_old(&self, rule: &Rule) -> Result<u64, StoreError> {
        let sql = format!("SELECT count(*) FROM {} WHERE {}", rule.table, rule.old);
        let row = self.client.query_one(&sql, &[&self.before(rule)]).await;
        let count: i64 = row.map_err(|source| self.failed(source))?.get(0);
        Ok(count.unsigned_abs())
    }

    /// Walks the table once, piece by piece, in the order it is stored in: needs no index, and never
    /// comes back to rows that are gone.
    async fn drop_old(&self, rule: &Rule) -> Result<u64, StoreError> {
        let table = rule.table;
        let sql =
            format!("SELECT pg_relation_size('{table}') / current_setting('block_size')::bigint");
        let blocks = self.client.query_one(&sql, &[]).await;
        let blocks: i64 = blocks.map_err(|source| self.failed(source))?.get(0);
        let before = self.before(rule);
        let (mut dropped, mut first) = (0, 0);
        while first < blocks {
            let next = first + BLOCKS_PER_STATEMENT;
            let sql = format!(
                "DELETE FROM {table} WHERE ctid >= '({first},0)'::tid AND ctid < '({next},0)'::tid \
                 AND {}",
                rule.old
            );
            let rows = self.client.execute(&sql, &[&before]).await;
            dropped += rows.map_err(|source| self.failed(source))?;
            debug!(
                table,
                blocks = next.min(blocks),
                of = blocks,
                dropped,
                "old rows dropped"
            );
            first = next;
        }
        Ok(dropped)
    }

    fn before(&self, rule: &Rule) -> DateTime<Utc> {
        self.options.now - TimeDelta::days(rule.days)
    }

    async fn flag(&self, sql: &str) -> Result<bool, StoreError> {
        let row = self.client.query_one(sql, &[]).await;
        Ok(row.map_err(|source| self.failed(source))?.get(0))
    }

    fn failed(&self, source: tokio_postgres::Error) -> StoreError {
        StoreError::from_postgres(&self.server, "maintain the database", source)
    }
}

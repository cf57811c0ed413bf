//! Maintenance: what is dropped, what is kept, and that a dry run only counts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[path = "common/sinks.rs"]
mod sinks;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use common::{TestDatabase, fresh_database};
use logguard::sink::{
    maintain::{MaintainOptions, MaintainReport, maintain},
    migrate::{MigrateOptions, Retention, Timescale, migrate},
    store::StoreError,
};
use sinks::store_config;
use tokio_postgres::Client;

/// Noon, so that a day more or less is one on every clock.
const NOW: &str = "2026-03-15T12:00:00Z";

fn now() -> DateTime<Utc> {
    NOW.parse().unwrap()
}

fn options() -> MaintainOptions {
    MaintainOptions {
        dry_run: false,
        now: now(),
    }
}

/// One row for each of these ages in days, in every table; an action per alarm.
const ROWS: &str = "
CREATE TEMPORARY TABLE age AS
  SELECT days, timestamptz '2026-03-15T12:00:00Z' - days * interval '1 day' AS at
  FROM unnest(ARRAY[0, 6.9, 7.1, 29.9, 30.1, 400]) AS days;
INSERT INTO anomaly_results (timestamp, window_start, window_end, is_anomaly, anomaly_score,
  cluster_label, log_count, error_count, critical_count, error_rate, critical_rate, stream, topic,
  partition, final_by, severity, dbscan_score, model_checksum, explanation, state)
SELECT at, at, at + interval '30 s', 0, 0.5, 1, 4, 1, 1, 0.25, 0.25, 's', 't', 0, 'watermark', 1,
  1, 'c', '{}', '{}' FROM age;
INSERT INTO window_features SELECT at, at + interval '30 s', 's', 'c', '{}', '[]' FROM age;
INSERT INTO log_events SELECT at, 'INFO', 'a', 'm' FROM age;
INSERT INTO log_templates
  SELECT 's', days::text, 'm', 'a', 'INFO', at - interval '1 year', at, 1 FROM age;
INSERT INTO alarms (alarm_id, window_start, window_end, stream, topic, partition, provisional,
  stale, anomaly_score, severity, threshold, log_count, error_count, critical_count, reasons,
  samples, explanation, lateness_ms, model_checksum)
SELECT days::text, at, at + interval '30 s', 's', 't', 0, false, false, 1, 1, 0.5, 1, 1, 1, '{}',
  '{}', '{}', 2000, 'c' FROM age;
-- One looked at long ago though its alarm is kept, the others long ago with their alarms.
INSERT INTO alarm_actions SELECT days::text, 'evidence', 'me', '2020-01-01T00:00:00Z' FROM age;
INSERT INTO mutes (stream, kind, alarm_id, active_from, expires_at, created_by)
SELECT 's', 'volume', days::text, at - interval '1 year', at, 'me' FROM age";

async fn filled(retention: Retention) -> Option<(TestDatabase, Client, bool)> {
    let database = fresh_database().await?;
    let config = store_config(&database);
    let options = MigrateOptions {
        retention: Some(retention),
        ..MigrateOptions::default()
    };
    migrate(&config, options).await.unwrap();
    // One that says nothing of it changes nothing.
    let report = migrate(&config, MigrateOptions::default()).await.unwrap();
    let timescale = matches!(report.timescale, Timescale::Used { .. });
    let client = database.client().await;
    client.batch_execute(ROWS).await.unwrap();
    Some((database, client, timescale))
}

async fn counts(client: &Client) -> BTreeMap<&'static str, i64> {
    let mut counts = BTreeMap::new();
    for table in TABLES {
        let sql = format!("SELECT count(*) FROM {table}");
        counts.insert(table, client.query_one(&sql, &[]).await.unwrap().get(0));
    }
    counts
}

const TABLES: [&str; 7] = [
    "anomaly_results",
    "window_features",
    "log_events",
    "log_templates",
    "alarms",
    "alarm_actions",
    "mutes",
];
/// Rows older than 30 days, or 7 for raw lines.
const OLD: [u64; 7] = [2, 2, 4, 2, 2, 2, 2];

fn dropped(report: &MaintainReport) -> Vec<(&str, Option<u64>)> {
    let tables = report.dropped.iter();
    tables.map(|it| (it.table, it.rows)).collect()
}

#[tokio::test]
async fn old_rows_go_and_others_stay() {
    let Some((database, client, timescale)) = filled(Retention::On).await else {
        return;
    };
    let config = store_config(&database);
    let dry = MaintainOptions {
        dry_run: true,
        ..options()
    };
    let all = counts(&client).await;
    let counted = maintain(&config, dry).await.unwrap();
    if !timescale {
        assert_eq!(counts(&client).await, all, "a dry run drops nothing");
    }
    let report = maintain(&config, options()).await.unwrap();
    let by_policy = |place| timescale && place < 3;
    let expected: Vec<_> = (0..7)
        .map(|it| (TABLES[it], (!by_policy(it)).then_some(OLD[it])))
        .collect();
    assert_eq!(dropped(&report), expected);
    assert_eq!(report.kept, None);
    // Actions go with their alarms, which a dry run has not dropped.
    let mut expected_dry = expected;
    expected_dry[5].1 = Some(0);
    assert_eq!(dropped(&counted), expected_dry);
    for (place, table) in TABLES.into_iter().enumerate() {
        // When a policy drops its chunks is its own affair.
        if !by_policy(place) {
            let left = 6 - i64::try_from(OLD[place]).unwrap();
            assert_eq!(counts(&client).await[table], left, "{table}");
        }
    }
    let again = maintain(&config, options()).await.unwrap();
    let none = dropped(&again).into_iter().filter_map(|(_, rows)| rows);
    assert_eq!(none.sum::<u64>(), 0);
}

#[tokio::test]
async fn a_table_of_many_blocks_is_walked_to_its_end() {
    let Some((database, client, timescale)) = filled(Retention::On).await else {
        return;
    };
    if timescale {
        // Its chunks are dropped by policy, not walked.
        return;
    }
    // More than one statement's blocks, old and new rows mixed all through.
    let sql = "INSERT INTO log_events
               SELECT timestamptz '2026-03-15T12:00:00Z' - (n % 2) * interval '8 days', 'INFO', 'a',
                      repeat('x', 1900) FROM generate_series(1, 8000) n";
    client.batch_execute(sql).await.unwrap();
    let blocks = "SELECT pg_relation_size('log_events') / 8192";
    let blocks: i64 = client.query_one(blocks, &[]).await.unwrap().get(0);
    assert!(blocks > 1_500, "{blocks}");
    let config = store_config(&database);
    let report = maintain(&config, options()).await.unwrap();
    assert_eq!(dropped(&report)[2], ("log_events", Some(4_004)));
    let left = counts(&client).await["log_events"];
    assert_eq!(left, 4_002);
}

#[tokio::test]
async fn with_retention_off_nothing_goes() {
    let Some((database, client, _)) = filled(Retention::Off).await else {
        return;
    };
    let all = counts(&client).await;
    let report = maintain(&store_config(&database), options()).await.unwrap();
    assert_eq!(report.dropped, []);
    assert!(report.kept.unwrap().contains("migrate --retention on"));
    assert_eq!(counts(&client).await, all);
}

#[tokio::test]
async fn two_at_once_are_told_apart() {
    let Some((database, client, _)) = filled(Retention::On).await else {
        return;
    };
    let lock = i64::from_be_bytes(*b"\0lgmaint");
    let sql = format!("SELECT pg_advisory_lock({lock})");
    client.batch_execute(&sql).await.unwrap();
    let error = maintain(&store_config(&database), options())
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
}

#[tokio::test]
async fn a_database_without_the_schema_is_refused() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let error = maintain(&store_config(&database), options())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("run `logguard migrate`"),
        "{error}"
    );
}

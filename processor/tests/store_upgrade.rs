//! Upgrades: from every earlier version with rows in it, once, again, and by many at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[path = "common/sinks.rs"]
mod sinks;
#[path = "common/windows.rs"]
mod windows;

use common::{TestDatabase, fresh_database, offers_timescale, skipped};
use logguard::sink::migrate::{check, migrate};
use refinery::Target;
use sinks::{Harness, KEEP_ROWS, store_config};
use tokio_postgres::Client;
use windows::{Spec, job, partition};

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::str_to_string,
    reason = "generated"
)]
mod plain {
    refinery::embed_migrations!("../schema/postgres");
}
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::str_to_string,
    reason = "generated"
)]
mod timescale {
    refinery::embed_migrations!("../schema/timescale");
}

/// The last version of the first release; its TimescaleDB part had three.
const FIRST_RELEASE: i32 = 4;
const FIRST_RELEASE_TIMESCALE: i32 = 3;

/// Rows as the version before wrote them: two final windows and a provisional one.
const RESULTS: &str = "
INSERT INTO anomaly_results (timestamp, window_start, window_end, is_anomaly, anomaly_score,
  cluster_label, log_count, error_count, critical_count, error_rate, critical_rate, stream, topic,
  partition, final_by, provisional, severity, dbscan_score, model_checksum, features, explanation,
  state)
SELECT start + interval '30 s', start, start + interval '30 s', 0, 0.125, 1, 4, 1, 1, 0.25, 0.25,
  'log-events/0', 'log-events', 0, 'watermark', window_number = 2, 1, 1, 'c0ffee',
  jsonb_build_object('log_count', window_number), '{}', '{}'
FROM generate_series(0, 2) AS window_number,
  LATERAL (SELECT timestamptz '2025-12-27T10:30:00Z' + window_number * interval '30 s') AS s(start)";

/// Brings the database to `version`, with a row in every table that has one by then.
async fn at_version(database: &TestDatabase, version: i32) -> Client {
    let mut client = database.client().await;
    let runner = plain::migrations::runner().set_target(Target::Version(version));
    runner.run_async(&mut client).await.unwrap();
    for (since, sql) in [
        (1, RESULTS),
        (2, "INSERT INTO owner VALUES ('group', 'log-events', 0, 6)"),
        (
            3,
            "INSERT INTO log_events VALUES (now(), 'INFO', 'auth-service', 'hello', 0)",
        ),
    ] {
        if version >= since {
            client.batch_execute(sql).await.unwrap();
        }
    }
    client
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// What must hold of the rows of the version before, once the schema is this one's.
async fn check_rows(database: &TestDatabase, client: &Client, version: i32) {
    check(&store_config(database)).await.unwrap();
    let moved = "SELECT count(*) FROM anomaly_results r
                 JOIN window_features f USING (window_start, window_end, stream)
                 WHERE f.features = r.features AND f.features ? 'log_count'
                   AND f.model_checksum = 'c0ffee' AND f.templates = '[]'";
    assert_eq!(number(client, moved).await, 3);
    let hours = "SELECT total_windows FROM anomaly_summary_hourly";
    assert_eq!(number(client, hours).await, 2);
    let days = "SELECT total_windows FROM anomaly_summary_daily";
    assert_eq!(number(client, days).await, 2);
    if version >= 3 {
        assert_eq!(number(client, "SELECT count(*) FROM log_events").await, 1);
    }
    // The fence goes on from where it was, and writing goes on on top of the old rows.
    let mut harness = Harness::start(Some(database));
    let store = harness.store.clone().unwrap();
    let spec = Spec::default();
    let fence = store.claim(&partition(&spec), None).await.unwrap().fence;
    assert_eq!(fence, if version >= 2 { 7 } else { 1 });
    let of = |window| {
        job(&Spec {
            fence,
            window,
            ..spec.clone()
        })
    };
    harness.write(vec![of(0), of(2), of(3)]).await;
    // Final before: written, not counted. Provisional before, and new: counted.
    assert_eq!(number(client, "SELECT count FROM log_templates").await, 2);
    assert_eq!(
        number(client, "SELECT count(*) FROM anomaly_results").await,
        4
    );
    assert_eq!(
        number(client, "SELECT count(*) FROM window_features").await,
        4
    );
}

#[tokio::test]
async fn every_earlier_version_is_brought_up_to_date_with_its_rows() {
    for version in 1..=FIRST_RELEASE {
        let Some(database) = fresh_database().await else {
            return;
        };
        let client = at_version(&database, version).await;
        let config = store_config(&database);
        let first = migrate(&config, KEEP_ROWS).await.unwrap();
        assert!(!first.applied.is_empty());
        let second = migrate(&config, KEEP_ROWS).await.unwrap();
        assert_eq!(second.applied, Vec::<String>::new());
        check_rows(&database, &client, version).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_replicas_bring_an_earlier_version_up_to_date_at_once() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let client = at_version(&database, FIRST_RELEASE).await;
    let config = store_config(&database);
    let runs: Vec<_> = (0..8)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move { migrate(&config, KEEP_ROWS).await })
        })
        .collect();
    let mut applied = Vec::new();
    for run in runs {
        applied.extend(run.await.unwrap().unwrap().applied);
    }
    applied.sort();
    let all = applied.len();
    applied.dedup();
    assert_eq!(applied.len(), all, "applied twice: {applied:?}");
    check_rows(&database, &client, FIRST_RELEASE).await;
}

/// The version before, on TimescaleDB, with its old rows compressed.
#[tokio::test]
async fn the_first_release_on_timescaledb_is_brought_up_to_date() {
    let Some(database) = fresh_database().await else {
        return;
    };
    if !offers_timescale(&database).await {
        return;
    }
    at_version(&database, FIRST_RELEASE).await;
    let sql = "CREATE EXTENSION IF NOT EXISTS timescaledb";
    database.client().await.batch_execute(sql).await.unwrap();
    // A connection opened after the extension was created has its library loaded.
    let mut client = database.client().await;
    let license = "SELECT current_setting('timescaledb.license')";
    let license: String = client.query_one(license, &[]).await.unwrap().get(0);
    if license == "apache" {
        skipped("the server runs TimescaleDB under its Apache licence");
        return;
    }
    let mut runner =
        timescale::migrations::runner().set_target(Target::Version(FIRST_RELEASE_TIMESCALE));
    runner.set_migration_table_name("refinery_schema_history_timescale");
    runner.run_async(&mut client).await.unwrap();
    let compress = "SELECT compress_chunk(chunk) FROM show_chunks('anomaly_results') chunk";
    client.query(compress, &[]).await.unwrap();
    let config = store_config(&database);
    let report = migrate(&config, KEEP_ROWS).await.unwrap();
    let parts: Vec<_> = report.applied.iter().map(String::as_str).collect();
    assert_eq!(
        parts.split_at(parts.len() - 2).1,
        [
            "timescale V4__window_features",
            "timescale V5__anomaly_summary_daily"
        ]
    );
    check_rows(&database, &client, FIRST_RELEASE).await;
}

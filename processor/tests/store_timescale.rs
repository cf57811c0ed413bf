//! What TimescaleDB adds, on a server that has it; elsewhere these tests say so and pass over
//! themselves.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[path = "common/sinks.rs"]
mod sinks;
#[path = "common/windows.rs"]
mod windows;

use common::{TestDatabase, fresh_database, offers_timescale, skipped};
use logguard::{
    sink::{
        maintain::{MaintainOptions, maintain},
        migrate::{MigrateOptions, Retention, Timescale, migrate},
    },
    window::FinalBy,
};
use sinks::{Harness, KEEP_ROWS, store_config};
use tokio_postgres::Client;
use windows::{Spec, job, partition};

async fn migrated(options: MigrateOptions) -> Option<(TestDatabase, Client)> {
    let database = fresh_database().await?;
    if !offers_timescale(&database).await {
        return None;
    }
    let config = store_config(&database);
    let report = migrate(&config, options).await.unwrap();
    if let Timescale::Unusable { reason } = &report.timescale {
        skipped(reason);
        return None;
    }
    assert_ne!(report.timescale, Timescale::Absent);
    let client = database.client().await;
    Some((database, client))
}

async fn texts(client: &Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

const POLICIES: &str = "SELECT hypertable_name || ' ' || proc_name || ' '
  || coalesce(config ->> 'drop_after', config ->> 'compress_after')
  FROM timescaledb_information.jobs
  WHERE proc_name IN ('policy_retention', 'policy_compression') ORDER BY 1";

#[tokio::test]
async fn tables_that_grow_are_hypertables_with_policies() {
    let Some((database, client)) = migrated(MigrateOptions::default()).await else {
        return;
    };
    let hypertables = "SELECT hypertable_name || ' ' || compression_enabled
                       FROM timescaledb_information.hypertables ORDER BY 1";
    let expected = [
        "anomaly_results true",
        "log_events false",
        "window_features true",
    ];
    assert_eq!(texts(&client, hypertables).await, expected);
    let retained = [
        "anomaly_results policy_compression 7 days",
        "anomaly_results policy_retention 30 days",
        "log_events policy_retention 7 days",
        "window_features policy_compression 7 days",
        "window_features policy_retention 30 days",
    ];
    assert_eq!(texts(&client, POLICIES).await, retained);
    let aggregates = "SELECT view_name || ' ' || materialized_only
                      FROM timescaledb_information.continuous_aggregates ORDER BY 1";
    assert_eq!(
        texts(&client, aggregates).await,
        [
            "anomaly_summary_daily false",
            "anomaly_summary_hourly false"
        ]
    );
    let refreshes = "SELECT count(*) FROM timescaledb_information.jobs
                     WHERE proc_name = 'policy_refresh_continuous_aggregate'";
    let refreshes: i64 = client.query_one(refreshes, &[]).await.unwrap().get(0);
    assert_eq!(refreshes, 2);

    let config = store_config(&database);
    migrate(&config, KEEP_ROWS).await.unwrap();
    assert_eq!(texts(&client, POLICIES).await, [retained[0], retained[3]]);
    // What was said stays said, until something else is.
    migrate(&config, MigrateOptions::default()).await.unwrap();
    assert_eq!(texts(&client, POLICIES).await.len(), 2);
    let on = MigrateOptions {
        retention: Some(Retention::On),
        ..MigrateOptions::default()
    };
    migrate(&config, on).await.unwrap();
    assert_eq!(texts(&client, POLICIES).await, retained);
}

#[tokio::test]
async fn rows_in_compressed_chunks_are_still_replaced() {
    let Some((database, client)) = migrated(KEEP_ROWS).await else {
        return;
    };
    let mut harness = Harness::start(Some(&database));
    let store = harness.store.clone().unwrap();
    store
        .claim(&partition(&Spec::default()), None)
        .await
        .unwrap();
    let spec = |window, score, final_by| {
        job(&Spec {
            window,
            score,
            final_by,
            ..Spec::default()
        })
    };
    let rows = vec![
        spec(0, 0.1, FinalBy::Open),
        spec(1, 0.2, FinalBy::Watermark),
    ];
    harness.write(rows).await;
    // The policy may have been there before.
    for table in ["anomaly_results", "window_features"] {
        let sql = format!("SELECT compress_chunk(chunk, true) FROM show_chunks('{table}') chunk");
        assert_eq!(client.query(&sql, &[]).await.unwrap().len(), 1);
    }
    let rows = vec![
        spec(0, 0.3, FinalBy::Watermark),
        spec(1, 0.4, FinalBy::Open),
        spec(2, 0.5, FinalBy::Watermark),
    ];
    harness.write(rows).await;
    let scores = "SELECT round(anomaly_score::numeric, 1)::text || ' ' || final_revision
                  FROM anomaly_results ORDER BY window_start";
    assert_eq!(texts(&client, scores).await, ["0.3 1", "0.2 1", "0.5 1"]);
    let features = "SELECT count(*)::text FROM window_features";
    assert_eq!(texts(&client, features).await, ["3"]);
    let counted = "SELECT count::text FROM log_templates";
    assert_eq!(texts(&client, counted).await, ["3"]);
}

/// The summaries, and what they should be by the rows themselves.
async fn summaries(client: &Client, unit: &str, view: &str) -> (Vec<String>, Vec<String>) {
    let line = "bucket::text || ' ' || total_windows || ' ' || anomaly_count || ' '
                || round(avg_anomaly_score::numeric, 9) || ' ' || max_anomaly_score || ' '
                || round(avg_error_rate::numeric, 9) || ' ' || round(avg_critical_rate::numeric, 9)";
    let found = format!("SELECT {line} FROM {view} ORDER BY bucket");
    let expected = format!(
        "SELECT {line} FROM (
           SELECT date_trunc('{unit}', window_start, 'UTC') AS bucket, count(*) AS total_windows,
                  count(*) FILTER (WHERE is_anomaly = 1) AS anomaly_count,
                  avg(anomaly_score) AS avg_anomaly_score, max(anomaly_score) AS max_anomaly_score,
                  avg(error_rate) AS avg_error_rate, avg(critical_rate) AS avg_critical_rate
           FROM anomaly_results WHERE NOT provisional GROUP BY 1) s ORDER BY bucket"
    );
    (texts(client, &found).await, texts(client, &expected).await)
}

/// Twenty days of windows, every seven minutes, some provisional, up to now.
const ROWS: &str = "
INSERT INTO anomaly_results (timestamp, window_start, window_end, is_anomaly, anomaly_score,
  cluster_label, log_count, error_count, critical_count, error_rate, critical_rate, stream, topic,
  partition, final_by, provisional, severity, dbscan_score, model_checksum, explanation, state)
SELECT at, at, at + interval '30 s', (n % 9 = 0)::int, n % 10 / 10.0, 1, 4, 1, 1, n % 7 / 7.0,
  n % 5 / 5.0, 's', 't', 0, 'watermark', n % 11 = 0, 1, 1, 'c', '{}', '{}'
FROM generate_series(0, 4100) n, LATERAL (SELECT now() - n * interval '7 minutes') t(at)";

#[tokio::test]
async fn summaries_hold_what_the_rows_hold_however_old() {
    let Some((database, client)) = migrated(KEEP_ROWS).await else {
        return;
    };
    // The policies run in the background as well; here their part is played below.
    let stop = "SELECT remove_continuous_aggregate_policy(view::regclass)
                FROM unnest(ARRAY['anomaly_summary_hourly', 'anomaly_summary_daily']) view";
    client.query(stop, &[]).await.unwrap();
    client.batch_execute(ROWS).await.unwrap();
    for (unit, view) in [
        ("hour", "anomaly_summary_hourly"),
        ("day", "anomaly_summary_daily"),
    ] {
        let (found, expected) = summaries(&client, unit, view).await;
        assert_eq!(found, expected, "{view}, computed when asked for");
    }
    // What the policies do: the last days only. Older ones are missing from then on.
    for (view, reach, newest) in [
        ("anomaly_summary_hourly", "7 days", "1 hour"),
        ("anomaly_summary_daily", "8 days", "1 day"),
    ] {
        let sql = format!(
            "CALL refresh_continuous_aggregate('{view}', now() - interval '{reach}',
                                               now() - interval '{newest}')"
        );
        client.batch_execute(&sql).await.unwrap();
    }
    let (found, expected) = summaries(&client, "day", "anomaly_summary_daily").await;
    assert!(found.len() < expected.len(), "{found:?}");
    let options = MaintainOptions {
        dry_run: false,
        now: logguard::clock::Clock::system().now(),
    };
    let report = maintain(&store_config(&database), options).await.unwrap();
    let all = ["anomaly_summary_hourly", "anomaly_summary_daily"];
    assert_eq!(report.refreshed, all);
    for (unit, view) in [("hour", all[0]), ("day", all[1])] {
        let (found, expected) = summaries(&client, unit, view).await;
        assert_eq!(found, expected, "{view}, after maintenance");
    }
}

/// A refresh over chunks that retention dropped would empty the summary of their days.
#[tokio::test]
async fn summaries_outlive_the_rows_they_were_made_of() {
    let Some((database, client)) = migrated(KEEP_ROWS).await else {
        return;
    };
    client.batch_execute(ROWS).await.unwrap();
    let config = store_config(&database);
    migrate(&config, KEEP_ROWS).await.unwrap();
    let days = "SELECT count(*)::text FROM anomaly_summary_daily";
    let before = texts(&client, days).await;
    let drop = "SELECT drop_chunks('anomaly_results', older_than => INTERVAL '10 days')";
    assert!(client.query(drop, &[]).await.unwrap().len() > 5);
    migrate(&config, KEEP_ROWS).await.unwrap();
    assert_eq!(texts(&client, days).await, before);
}

/// The database began on plain PostgreSQL, and got the extension later.
#[tokio::test]
async fn rows_of_plain_postgresql_move_into_hypertables() {
    let Some(database) = fresh_database().await else {
        return;
    };
    if !offers_timescale(&database).await {
        return;
    }
    let mut client = database.client().await;
    plain::migrations::runner()
        .run_async(&mut client)
        .await
        .unwrap();
    client.batch_execute(ROWS).await.unwrap();
    let config = store_config(&database);
    let report = migrate(&config, KEEP_ROWS).await.unwrap();
    if let Timescale::Unusable { reason } = &report.timescale {
        skipped(reason);
        return;
    }
    let client = database.client().await;
    let chunks = "SELECT (count(*) > 15)::text FROM show_chunks('anomaly_results')";
    assert_eq!(texts(&client, chunks).await, ["true"]);
    let (found, expected) = summaries(&client, "day", "anomaly_summary_daily").await;
    assert_eq!(found, expected);
    assert!(found.len() >= 20, "{found:?}");
}

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::str_to_string,
    reason = "generated"
)]
mod plain {
    refinery::embed_migrations!("../schema/postgres");
}

/// The edition without compression, retention and aggregates, which a server is configured for: the
/// plain schema, and a word on why.
#[tokio::test]
async fn the_apache_edition_gets_the_plain_schema_and_is_told_why() {
    let Some(database) = fresh_database().await else {
        return;
    };
    if !offers_timescale(&database).await {
        return;
    }
    let config = store_config(&database);
    let report = migrate(&config, KEEP_ROWS).await.unwrap();
    let client = database.client().await;
    let license = "SELECT current_setting('timescaledb.license')";
    let license: String = client.query_one(license, &[]).await.unwrap().get(0);
    if license != "apache" {
        skipped("the server runs TimescaleDB under its own licence");
        return;
    }
    let Timescale::Unusable { reason } = &report.timescale else {
        panic!("{report:?}")
    };
    assert!(
        reason.contains("Apache licence") && reason.contains("timescaledb.license = 'timescale'"),
        "{reason}"
    );
    let mut harness = Harness::start(Some(&database));
    let spec = Spec::default();
    let store = harness.store.clone().unwrap();
    store.claim(&partition(&spec), None).await.unwrap();
    harness.write(vec![job(&spec)]).await;
    let days = "SELECT total_windows::text FROM anomaly_summary_daily";
    assert_eq!(texts(&client, days).await, ["1"]);
}

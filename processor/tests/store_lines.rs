//! Raw lines: which are stored, and that nothing waits for them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[path = "common/sinks.rs"]
mod sinks;
#[path = "common/windows.rs"]
mod windows;

use common::{TestDatabase, fresh_database};
use logguard::sink::{
    SinksConfig,
    migrate::migrate,
    store::{RawLinesKept, StoreConfig},
};
use serde_json::{Value, json};
use sinks::{Harness, KEEP_ROWS, store_config, until};
use tokio_postgres::Client;
use windows::{Spec, job, partition};

async fn started(kept: RawLinesKept, fraction: f64) -> Option<(TestDatabase, Client, Harness)> {
    let database = fresh_database().await?;
    let store = StoreConfig {
        log_events: kept,
        log_events_fraction: fraction,
        ..store_config(&database)
    };
    migrate(&store, KEEP_ROWS).await.unwrap();
    let config = SinksConfig {
        store,
        ..SinksConfig::default()
    };
    let harness = Harness::start_with(Some(&database), config);
    let client = database.client().await;
    Some((database, client, harness))
}

fn offer(harness: &Harness, offset: i64, level: &str, message: &str) {
    let event = json!({
        "timestamp": "2025-12-24T23:44:17.636Z", "level": level, "service": "auth-service",
        "message": message, "is_anomaly": 1
    });
    let payload = event.to_string();
    let place = (0, offset);
    harness
        .sinks
        .offer_line(place, Some(payload.as_bytes()), None);
}

async fn stored(client: &Client) -> Vec<Value> {
    let sql = "SELECT to_jsonb(e) FROM log_events e ORDER BY message";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn lines_are_stored_as_they_came_but_for_nul() {
    let Some((_database, client, harness)) = started(RawLinesKept::All, 1.0).await else {
        return;
    };
    offer(&harness, 0, "INFO", "a tab\t, \\N, größer \u{1f680}");
    offer(&harness, 1, "FATAL", "b NUL \0, password=hunter2");
    let place = (0, 2);
    harness.sinks.offer_line(place, Some(b"not JSON"), None);
    harness.sinks.offer_line(place, None, None);
    // What waits when the process ends is written still.
    let metrics = harness.metrics.clone();
    harness.close().await;
    let line = |level, message| {
        json!({"timestamp": "2025-12-24T23:44:17.636+00:00", "level": level,
               "component": "auth-service", "message": message, "is_anomaly": 1})
    };
    assert_eq!(
        stored(&client).await,
        [
            line("INFO", "a tab\t, \\N, größer \u{1f680}"),
            line("FATAL", "b NUL \u{fffd}, password=<password>")
        ]
    );
    let counted = [&metrics.raw_lines_stored, &metrics.raw_lines_dropped];
    assert_eq!(
        counted.map(prometheus_client::metrics::counter::Counter::get),
        [2, 0]
    );
}

#[tokio::test]
async fn errors_only_means_critical_lines() {
    let Some((_database, client, harness)) = started(RawLinesKept::Errors, 1.0).await else {
        return;
    };
    for (offset, level) in (0..).zip(["DEBUG", "INFO", "WARN", "ERROR", "FATAL"]) {
        offer(&harness, offset, level, level);
    }
    harness.close().await;
    let levels: Vec<_> = stored(&client)
        .await
        .iter()
        .map(|it| it["level"].clone())
        .collect();
    assert_eq!(levels, ["ERROR", "FATAL"]);
}

#[tokio::test]
async fn a_sample_is_the_same_every_time() {
    let mut samples = Vec::new();
    for _ in 0..2 {
        let Some((_database, client, harness)) = started(RawLinesKept::All, 0.25).await else {
            return;
        };
        for offset in 0..1_000 {
            offer(&harness, offset, "INFO", &format!("{offset}"));
        }
        harness.close().await;
        samples.push(stored(&client).await);
    }
    assert_eq!(samples[0], samples[1]);
    assert!(
        (200..300).contains(&samples[0].len()),
        "{}",
        samples[0].len()
    );
}

#[tokio::test]
async fn off_is_the_default_and_stores_nothing() {
    assert_eq!(StoreConfig::default().log_events, RawLinesKept::Off);
    let Some((_database, client, harness)) = started(RawLinesKept::Off, 1.0).await else {
        return;
    };
    offer(&harness, 0, "FATAL", "a");
    harness.close().await;
    assert_eq!(stored(&client).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_slow_database_drops_lines_and_holds_up_no_row() {
    let Some((database, client, mut harness)) = started(RawLinesKept::All, 1.0).await else {
        return;
    };
    let of = partition(&Spec::default());
    let store = harness.store.clone().unwrap();
    store.claim(&of, None).await.unwrap();
    let blocker = database.client().await;
    let lock = "BEGIN; LOCK TABLE log_events IN ACCESS EXCLUSIVE MODE";
    blocker.batch_execute(lock).await.unwrap();
    offer(&harness, 0, "INFO", "first");
    until("the COPY waits", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    // More than the queue holds; offering never blocks, so the loop ends.
    for offset in 1..=10_000 {
        offer(&harness, offset, "INFO", "more");
    }
    assert!(harness.metrics.raw_lines_dropped.get() > 0);
    // Rows and their acks come although lines do not.
    harness.write(vec![job(&Spec::default())]).await;
    assert_eq!(harness.metrics.raw_lines_stored.get(), 0);
    blocker.batch_execute("COMMIT").await.unwrap();
    let metrics = harness.metrics.clone();
    harness.close().await;
    let all = metrics.raw_lines_stored.get() + metrics.raw_lines_dropped.get();
    assert_eq!(all, 10_001, "every line is stored or counted");
    let sql = "SELECT count(*) FROM log_events";
    let rows: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(rows.unsigned_abs(), metrics.raw_lines_stored.get());
}

//! Rows in a real PostgreSQL: what replaces what, who may write, what is read back, and outages.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;
#[path = "common/sinks.rs"]
mod sinks;
#[path = "common/windows.rs"]
mod windows;

use chrono::{DateTime, Utc};
use common::{TestDatabase, fresh_database};
use logguard::{
    event::Level,
    model::Baseline,
    sink::{
        Ack, SinkLabel, SinksConfig,
        migrate::migrate,
        store::{Claim, Store, StoreConfig},
    },
    window::{FinalBy, StreamProgress},
};
use sinks::{Harness, KEEP_ROWS, store_config, until};
use tokio_postgres::Client;
use windows::{Spec, job, partition, window_start};

/// A database with the schema in it, and running sinks.
async fn migrated() -> Option<(TestDatabase, Client, Harness)> {
    let database = fresh_database().await?;
    migrate(&store_config(&database), KEEP_ROWS).await.unwrap();
    let client = database.client().await;
    let harness = Harness::start(Some(&database));
    Some((database, client, harness))
}

async fn claim(harness: &Harness, spec: &Spec, done_through: Option<i64>) -> Claim {
    let done_through = done_through.map(window_start);
    let store = harness.store.as_ref().unwrap();
    store.claim(&partition(spec), done_through).await.unwrap()
}

/// The score of the only row, which tells who wrote it.
async fn score(client: &Client) -> f64 {
    let sql = "SELECT anomaly_score FROM anomaly_results";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

fn count(harness: &Harness, sink: &'static str) -> [u64; 3] {
    let label = SinkLabel { sink };
    let metrics = &harness.metrics;
    [&metrics.delivered, &metrics.refused, &metrics.retries]
        .map(|family| family.get_or_create_owned(&label).get())
}

#[tokio::test]
async fn a_window_becomes_a_row() {
    let Some((_database, client, mut harness)) = migrated().await else {
        return;
    };
    let spec = Spec {
        service: Some("auth-service"),
        is_anomaly: true,
        stale: true,
        reasons: vec!["a NUL \0 in a reason"],
        lines: vec![
            (Level::Info, "fine", Some(false)),
            (Level::Error, "broken", Some(true)),
            (Level::Fatal, "dead", None),
            (Level::Warn, "hm", None),
        ],
        ..Spec::default()
    };
    let fence = claim(&harness, &spec, None).await.fence;
    assert_eq!(fence, 1);
    harness.write(vec![job(&spec)]).await;
    let row = client
        .query_one(
            "SELECT to_jsonb(r) - 'written_at' - 'features' - 'final_revision' FROM anomaly_results r",
            &[],
        )
        .await
        .unwrap();
    let mut row: serde_json::Value = row.get(0);
    let baseline = row["state"]["baseline"].take();
    serde_json::from_value::<Baseline>(baseline).unwrap();
    let explanation = row["explanation"].take();
    assert_eq!(explanation["reasons"][0], "a NUL \u{fffd} in a reason");
    assert_eq!(
        row,
        serde_json::json!({
            "early": null,
            "timestamp": "2025-12-27T10:30:30+00:00",
            "window_start": "2025-12-27T10:30:00+00:00",
            "window_end": "2025-12-27T10:30:30+00:00",
            "is_anomaly": 1, "anomaly_score": 0.25, "cluster_label": -1,
            "log_count": 4, "error_count": 1, "critical_count": 2,
            "error_rate": 0.25, "critical_rate": 0.5,
            "ground_truth": 1, "labelled_count": 2,
            "stream": "log-events/0/auth-service",
            "topic": "log-events", "partition": 0, "service": "auth-service",
            "final_by": "watermark",
            "provisional": false, "partial": false, "gap": false, "stale": true, "cold": false,
            "level_shift": false, "muted": false, "learning": false, "capped": false,
            "severity": 4.5, "dbscan_score": 0.75, "model_checksum": "c0ffee",
            "first_offset": 100, "next_offset": 104,
            "explanation": null,
            "state": {
                "baseline": null,
                "progress": {
                    "row_end": 1_766_831_430_000_i64,
                    "empty_run": 0,
                    "seen_until": 1_766_831_430_000_i64,
                },
            },
        })
    );
    assert!(harness.close().await.is_complete());
}

#[tokio::test]
async fn better_rows_replace_worse_ones_and_never_the_reverse() {
    let Some((_database, client, mut harness)) = migrated().await else {
        return;
    };
    let spec = |score, final_by, partial| Spec {
        score,
        final_by,
        partial,
        ..Spec::default()
    };
    claim(&harness, &Spec::default(), None).await;
    // What is written, one after the other, and whose score stands then.
    for (score_written, final_by, partial, stands) in [
        (0.1, FinalBy::Open, false, 0.1),
        (0.2, FinalBy::Open, false, 0.2),
        (0.3, FinalBy::Watermark, true, 0.3),
        (0.4, FinalBy::Open, false, 0.3),
        (0.5, FinalBy::Idle, true, 0.5),
        (0.6, FinalBy::Idle, false, 0.6),
        (0.7, FinalBy::Watermark, true, 0.6),
        (0.8, FinalBy::Open, false, 0.6),
        (0.9, FinalBy::Watermark, false, 0.9),
    ] {
        let spec = spec(score_written, final_by, partial);
        // Acknowledged either way: what is stored is at least as good.
        harness.write(vec![job(&spec)]).await;
        assert_eq!(score(&client).await, stands, "after {spec:?}");
    }
    assert_eq!(harness.metrics.rows_kept.get(), 3);
    assert_eq!(count(&harness, "store"), [9, 0, 0]);
}

#[tokio::test]
async fn the_same_window_many_times_in_one_batch_is_one_row() {
    let Some((_database, client, mut harness)) = migrated().await else {
        return;
    };
    claim(&harness, &Spec::default(), None).await;
    // The lock makes the writer wait, so that what follows is one batch.
    let blocker = Blocker::hold(&client).await;
    let spec = |score, final_by| Spec {
        score,
        final_by,
        ..Spec::default()
    };
    let jobs: Vec<_> = [
        (0.0, FinalBy::Open),
        (0.1, FinalBy::Open),
        (0.2, FinalBy::Watermark),
        (0.3, FinalBy::Watermark),
        (0.4, FinalBy::Open),
    ]
    .map(|(score, final_by)| job(&spec(score, final_by)))
    .into();
    let due = u32::try_from(2 * jobs.len()).unwrap();
    for job in jobs {
        harness.sinks.try_submit(job).unwrap();
    }
    blocker.release().await;
    let acks = harness.acks(due).await;
    assert!(acks.iter().all(|ack| matches!(ack, Ack::Window { .. })));
    assert_eq!(score(&client).await, 0.3);
}

/// Holds every write to `anomaly_results` up.
struct Blocker<'a>(&'a Client);

impl<'a> Blocker<'a> {
    async fn hold(client: &'a Client) -> Self {
        let sql = "BEGIN; LOCK TABLE anomaly_results IN EXCLUSIVE MODE";
        client.batch_execute(sql).await.unwrap();
        Self(client)
    }

    async fn release(self) {
        self.0.batch_execute("COMMIT").await.unwrap();
    }
}

async fn someone_waits_for_a_lock(database: &TestDatabase) {
    let client = database.client().await;
    until("a statement waits for a lock", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
}

#[tokio::test]
async fn a_fenced_process_writes_nothing() {
    let Some((_database, client, mut harness)) = migrated().await else {
        return;
    };
    let old = Spec {
        fence: claim(&harness, &Spec::default(), None).await.fence,
        ..Spec::default()
    };
    let new = Spec {
        fence: claim(&harness, &Spec::default(), None).await.fence,
        assignment: 8,
        ..Spec::default()
    };
    assert_eq!((old.fence, new.fence), (1, 2));
    let other = Spec {
        partition: 1,
        ..Spec::default()
    };
    assert_eq!(claim(&harness, &other, None).await.fence, 1);
    // In one batch: the fence of one partition holds up no other.
    let blocker = Blocker::hold(&client).await;
    for spec in [
        &old,
        &Spec {
            window: 1,
            ..old.clone()
        },
        &other,
    ] {
        harness.sinks.try_submit(job(spec)).unwrap();
    }
    blocker.release().await;
    // Three result messages, one row, and one word for both fenced rows if they shared a batch.
    until("two rows are fenced", async || {
        harness.metrics.rows_fenced.get() == 2
    })
    .await;
    until("one row is written", async || {
        count(&harness, "store")[0] == 1
    })
    .await;
    let sql = "SELECT partition FROM anomaly_results";
    assert_eq!(
        client.query_one(sql, &[]).await.unwrap().get::<_, i32>(0),
        1
    );
    let fenced = Ack::Fenced {
        partition: partition(&old),
        assignment: old.assignment,
    };
    let acks = harness.acks(5).await;
    assert!(acks.contains(&fenced), "{acks:?}");
    harness.sinks.try_submit(job(&new)).unwrap();
    until("the new owner's row is written", async || {
        count(&harness, "store")[0] == 2
    })
    .await;
    let sql = "SELECT count(*) FROM anomaly_results";
    assert_eq!(
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0),
        2
    );
}

/// A process that lost its partition writes while the new owner claims and writes the same row: its
/// statement waits, and must find out that it was fenced before it goes on.
#[tokio::test]
async fn a_process_that_waited_for_the_new_owner_overwrites_nothing() {
    let Some((database, client, mut harness)) = migrated().await else {
        return;
    };
    let spec = Spec {
        fence: claim(&harness, &Spec::default(), None).await.fence,
        ..Spec::default()
    };
    harness.write(vec![job(&spec)]).await;
    client
        .batch_execute(
            "BEGIN;
             UPDATE owner SET epoch = epoch + 1;
             UPDATE anomaly_results SET anomaly_score = 0.99",
        )
        .await
        .unwrap();
    let zombie = Spec { score: 0.5, ..spec };
    harness.sinks.try_submit(job(&zombie)).unwrap();
    someone_waits_for_a_lock(&database).await;
    client.batch_execute("COMMIT").await.unwrap();
    until("the row is fenced", async || {
        harness.metrics.rows_fenced.get() == 1
    })
    .await;
    assert_eq!(score(&client).await, 0.99);
}

/// The other order: the claim comes while the old owner's statement runs, and waits for its end, so
/// that what the new owner writes comes after.
#[tokio::test]
async fn a_claim_waits_for_the_statement_it_fences() {
    let Some((database, client, mut harness)) = migrated().await else {
        return;
    };
    let spec = Spec {
        fence: claim(&harness, &Spec::default(), None).await.fence,
        ..Spec::default()
    };
    harness.write(vec![job(&spec)]).await;
    // Hold the row, not its owner: the old owner's statement has locked the owner row by then.
    let hold = "BEGIN; UPDATE anomaly_results SET provisional = true";
    client.batch_execute(hold).await.unwrap();
    let late = Spec {
        score: 0.5,
        ..spec.clone()
    };
    harness.sinks.try_submit(job(&late)).unwrap();
    someone_waits_for_a_lock(&database).await;
    let store = harness.store.clone().unwrap();
    let of = partition(&spec);
    let claiming = tokio::spawn(async move { store.claim(&of, None).await.unwrap() });
    let other = database.client().await;
    until("the claim waits as well", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        other.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 2
    })
    .await;
    assert!(!claiming.is_finished());
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(claiming.await.unwrap().fence, 2);
    harness.acks(2).await;
    assert_eq!(score(&client).await, 0.5);
    harness
        .write(vec![job(&Spec {
            score: 0.75,
            fence: 2,
            ..spec
        })])
        .await;
    assert_eq!(score(&client).await, 0.75);
}

fn progress(window: i64) -> StreamProgress {
    StreamProgress {
        row_end: window_start(window + 1),
        empty_run: 0,
        seen_until: window_start(window + 1),
    }
}

/// The services a claim found, and where each stands.
fn streams(claim: &Claim) -> Vec<(Option<&str>, StreamProgress)> {
    let streams = claim.streams.iter();
    streams
        .map(|it| (it.service.as_deref(), it.state.progress))
        .collect()
}

#[tokio::test]
async fn a_claim_reads_where_the_streams_stand() {
    let Some((_database, client, mut harness)) = migrated().await else {
        return;
    };
    let base = Spec::default();
    // Its name sorts among the streams of partition 1, were they not told apart.
    let tenth = Spec {
        partition: 10,
        ..base.clone()
    };
    let first = Spec {
        partition: 1,
        ..base.clone()
    };
    claim(&harness, &first, None).await;
    claim(&harness, &tenth, None).await;
    let of = |service, window, final_by| {
        job(&Spec {
            service: Some(service),
            window,
            final_by,
            ..first.clone()
        })
    };
    harness
        .write(vec![
            of("auth-service", 0, FinalBy::Watermark),
            of("auth-service", 1, FinalBy::Watermark),
            of("auth-service", 2, FinalBy::Open),
            of("auth-service", 3, FinalBy::Watermark),
            of("order-service", 1, FinalBy::Idle),
            of("sleepy-service", -3 * 24 * 120, FinalBy::Watermark),
            job(&tenth),
        ])
        .await;
    let found = claim(&harness, &first, Some(2)).await;
    assert_eq!(found.fence, 2);
    assert_eq!(
        streams(&found),
        [
            (Some("auth-service"), progress(1)),
            (Some("order-service"), progress(1)),
        ]
    );
    assert_eq!(&*found.streams[0].model_checksum, "c0ffee");
    assert_eq!(found.streams[0].state.baseline, Baseline::default());
    let earlier = claim(&harness, &first, Some(0)).await;
    assert_eq!(streams(&earlier), [(Some("auth-service"), progress(0))]);
    let afresh = claim(&harness, &first, None).await;
    assert_eq!((afresh.fence, afresh.streams), (4, vec![]));
    let whole = claim(&harness, &tenth, Some(5)).await;
    assert_eq!(streams(&whole), [(None, progress(0))]);
    // A state that cannot be read costs its stream the baseline, not the partition its owner.
    let sql = "UPDATE anomaly_results SET state = '{\"progress\": 1}'";
    client.execute(sql, &[]).await.unwrap();
    let unread = claim(&harness, &tenth, Some(5)).await;
    assert_eq!((unread.fence, unread.streams), (3, vec![]));
}

#[tokio::test]
async fn another_group_on_the_same_topic_is_seen() {
    let Some((database, _client, harness)) = migrated().await else {
        return;
    };
    let spec = Spec::default();
    claim(&harness, &spec, None).await;
    let other = Store::new(&store_config(&database), "other").unwrap();
    let groups = other.other_groups(spec.topic).await.unwrap();
    assert_eq!(groups, ["group"]);
    assert!(other.other_groups("elsewhere").await.unwrap().is_empty());
    let ours = harness.store.as_ref().unwrap();
    assert!(ours.other_groups(spec.topic).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_hourly_summary_counts_final_windows() {
    let Some((_database, client, mut harness)) = migrated().await else {
        return;
    };
    claim(&harness, &Spec::default(), None).await;
    let of = |window, score, is_anomaly, final_by| {
        job(&Spec {
            window,
            score,
            is_anomaly,
            final_by,
            lines: vec![(Level::Error, "a", None), (Level::Info, "b", None)],
            ..Spec::default()
        })
    };
    harness
        .write(vec![
            of(0, 0.25, false, FinalBy::Watermark),
            of(1, 0.75, true, FinalBy::Watermark),
            of(2, 1.0, true, FinalBy::Open),
            of(60, 0.5, false, FinalBy::Idle),
        ])
        .await;
    let rows = client
        .query("SELECT * FROM anomaly_summary_hourly ORDER BY bucket", &[])
        .await
        .unwrap();
    let hours: Vec<(DateTime<Utc>, i64, i64, [f64; 4])> = rows
        .iter()
        .map(|row| {
            (
                row.get(0),
                row.get(1),
                row.get(2),
                [3, 4, 5, 6].map(|at| row.get(at)),
            )
        })
        .collect();
    let hour = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    assert_eq!(
        hours,
        [
            (hour("2025-12-27T10:00:00Z"), 2, 1, [0.5, 0.75, 0.5, 0.5]),
            (hour("2025-12-27T11:00:00Z"), 1, 0, [0.5, 0.5, 0.5, 0.5]),
        ]
    );
}

#[tokio::test]
async fn rows_wait_out_an_outage_and_terminated_connections() {
    let Some((database, _, mut harness)) = migrated().await else {
        return;
    };
    claim(&harness, &Spec::default(), None).await;
    harness.write(vec![job(&Spec::default())]).await;
    let admin_url = common::database_url().unwrap();
    let admin = common::with_database(&admin_url, "postgres");
    let (admin, connection) = tokio_postgres::connect(&admin, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let name = &database.name;
    admin
        .batch_execute(&format!(
            "ALTER DATABASE {name} ALLOW_CONNECTIONS false;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        ))
        .await
        .unwrap();
    for window in 1..=100 {
        let spec = Spec {
            window,
            ..Spec::default()
        };
        harness.sinks.try_submit(job(&spec)).unwrap();
    }
    until("two attempts fail", async || {
        count(&harness, "store")[2] >= 2
    })
    .await;
    let up = harness
        .metrics
        .up
        .get_or_create_owned(&SinkLabel { sink: "store" });
    assert_eq!(up.get(), 0);
    assert_eq!(
        harness.acks(100).await.len(),
        100,
        "the result messages are not held up"
    );
    admin
        .batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        .await
        .unwrap();
    harness.acks(100).await;
    assert_eq!(up.get(), 1);
    let sql = "SELECT count(*) FROM anomaly_results";
    let rows = database.client().await.query_one(sql, &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 101);
    // Killed in the midst of its statement.
    let blocking = database.client().await;
    let blocker = Blocker::hold(&blocking).await;
    let spec = Spec {
        window: 101,
        ..Spec::default()
    };
    harness.sinks.try_submit(job(&spec)).unwrap();
    someone_waits_for_a_lock(&database).await;
    let killed = admin
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = $1 AND wait_event_type = 'Lock'",
            &[name],
        )
        .await
        .unwrap();
    assert_eq!(killed, 1);
    blocker.release().await;
    harness.acks(2).await;
    assert!(harness.close().await.is_complete());
}

#[tokio::test]
async fn a_row_that_is_refused_for_what_it_is_holds_up_no_other() {
    let Some((_database, client, mut harness)) = migrated().await else {
        return;
    };
    claim(&harness, &Spec::default(), None).await;
    // Too long for an index entry, and not to be compressed below the limit.
    let mut state = 1_u64;
    let endless: String = (0..20_000)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
        })
        .collect();
    let endless: &'static str = endless.leak();
    let blocker = Blocker::hold(&client).await;
    for window in 0..7 {
        let spec = Spec {
            window,
            service: (window == 3).then_some(endless),
            ..Spec::default()
        };
        harness.sinks.try_submit(job(&spec)).unwrap();
    }
    blocker.release().await;
    let acks = harness.acks(14).await;
    assert!(acks.iter().all(|ack| matches!(ack, Ack::Window { .. })));
    assert_eq!(count(&harness, "store"), [6, 1, 0]);
    let sql = "SELECT count(*) FROM anomaly_results";
    assert_eq!(
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0),
        6
    );
}

#[tokio::test]
async fn a_full_queue_hands_windows_back_whole() {
    let Some(database) = fresh_database().await else {
        return;
    };
    migrate(&store_config(&database), KEEP_ROWS).await.unwrap();
    let config = SinksConfig {
        store: StoreConfig {
            buffer_rows_max: 3,
            batch_rows_max: 1,
            ..store_config(&database)
        },
        ..SinksConfig::default()
    };
    let mut harness = Harness::start_with(Some(&database), config);
    claim(&harness, &Spec::default(), None).await;
    let client = database.client().await;
    let blocker = Blocker::hold(&client).await;
    let mut accepted = 0;
    let refused = loop {
        let spec = Spec {
            window: accepted,
            ..Spec::default()
        };
        match harness.sinks.try_submit(job(&spec)) {
            Ok(()) => accepted += 1,
            Err(back) => break back,
        }
    };
    // One may be in the writer's hands.
    assert!((3..=4).contains(&accepted), "{accepted}");
    assert_eq!(refused.scored.window.bounds.start, window_start(accepted));
    blocker.release().await;
    harness.acks(u32::try_from(2 * accepted).unwrap()).await;
    assert_eq!(
        count(&harness, "results")[0],
        u64::try_from(accepted).unwrap()
    );
}

#[tokio::test]
async fn closing_gives_up_at_its_deadline_and_says_what_is_left() {
    let Some((_database, client, mut harness)) = migrated().await else {
        return;
    };
    claim(&harness, &Spec::default(), None).await;
    let _blocker = Blocker::hold(&client).await;
    harness.sinks.try_submit(job(&Spec::default())).unwrap();
    harness.acks(1).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(50);
    let report = harness.close_by(deadline).await;
    assert_eq!((report.rows, report.results), (1, 0));
    assert!(!report.is_complete());
}

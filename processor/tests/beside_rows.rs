//! What the store takes besides rows: deploys, by command and from lines of the topic, and notes of
//! the pipeline's health. Deploys hold the offsets of their lines; notes hold nothing.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;
#[path = "common/model.rs"]
mod model;
#[path = "common/program.rs"]
mod program;
#[path = "common/sinks.rs"]
mod sinks;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::DateTime;
use common::{TestDatabase, fresh_database};
use logguard::{
    clock::Clock,
    event::NextOffset,
    health::Health,
    metrics::PipelineMetrics,
    model::Detector,
    pipeline::Shared,
    recovery::RecoveryDesk,
    sink::migrate::{MigrateOptions, migrate},
    source::{RawRecord, RecordHandler, StartPoint},
    window::{GroupBy, WindowConfig},
    worker::{Worker, WorkerParts, WorkerSettings},
};
use model::{bundle, partition};
use program::{run, run_well};
use sinks::{Harness, PATIENCE, Rest, store_config, until};
use tokio::runtime::Handle;
use tokio_postgres::Client;

const BASE_S: i64 = 1_766_534_400;
const WINDOW: WindowConfig = WindowConfig {
    length_ms: 30_000,
    lateness_ms: 2_000,
    group_by: GroupBy::Partition,
};

async fn migrated() -> Option<(TestDatabase, Client)> {
    let database = fresh_database().await?;
    let options = MigrateOptions::default();
    migrate(&store_config(&database), options).await.unwrap();
    let client = database.client().await;
    Some((database, client))
}

/// Service, version, time, source and recorder of every deploy.
async fn deploys(client: &Client) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', service, version,
                      to_char(deployed_at AT TIME ZONE 'UTC', 'HH24:MI:SS'), source, recorded_by)
               FROM deploys ORDER BY deployed_at, service, version";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn the_command_records_a_deploy_once() {
    let Some((database, client)) = migrated().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let at = ["--at", "2025-12-24T23:44:17Z"];
    let url = ["--database-url", &database.url];
    let deploy = |by| {
        let args = ["deploy", "auth-service", "1.4.0", "--by", by];
        run_well(dir.path(), args.iter().chain(&at).chain(&url))
    };
    assert_eq!(
        deploy("ann"),
        "auth-service 1.4.0 at 2025-12-24T23:44:17.000Z: recorded\n"
    );
    assert_eq!(
        deploy("bob"),
        "auth-service 1.4.0 at 2025-12-24T23:44:17.000Z: known already\n"
    );
    assert_eq!(
        deploys(&client).await,
        ["auth-service 1.4.0 23:44:17 command ann"]
    );
    // Without a time it is now.
    let args = ["deploy", "auth-service", "1.4.1", "--by", "ann"];
    run_well(dir.path(), args.iter().chain(&url));
    let recent = "SELECT count(*) FROM deploys WHERE deployed_at > now() - interval '10 minutes'";
    let row = client.query_one(recent, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn the_command_refuses_what_is_no_deploy() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let refusal = |dir: &Path, args: &[&str], more: &[&str]| {
        let output = run(dir, ["deploy"].iter().chain(args).chain(more));
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), stderr)
    };
    let url = ["--database-url", &database.url];
    let long = "v".repeat(257);
    for (args, said) in [
        (["auth", " "], "the version is 0 bytes long"),
        (["", "1"], "the service is 0 bytes long"),
        (["auth", long.as_str()], "the version is 257 bytes long"),
    ] {
        let (code, stderr) = refusal(dir.path(), &args, &url);
        assert!(code == 3 && stderr.contains(said), "{code}: {stderr}");
    }
    let (code, stderr) = refusal(dir.path(), &["auth", "1", "--at", "soon"], &url);
    assert!(
        code == 3 && stderr.contains("`soon` is not a time"),
        "{code}: {stderr}"
    );
    let (code, stderr) = refusal(dir.path(), &["auth", "1"], &url);
    assert!(
        code == 3 && stderr.contains("run `logguard migrate`"),
        "{code}: {stderr}"
    );
    let nowhere = ["--database-url", "postgres://nobody@127.0.0.1:1/none"];
    assert_eq!(refusal(dir.path(), &["auth", "1"], &nowhere).0, 4);
}

/// A worker with a real store, under a clock of the test's own.
struct Bench {
    worker: Worker,
    millis: Arc<AtomicI64>,
    harness: Rest,
    next: i64,
    committed: i64,
}

impl Bench {
    async fn start(database: &TestDatabase) -> Self {
        let harness = Harness::start(Some(database));
        let store = harness.store.clone();
        let millis = Arc::new(AtomicI64::new(BASE_S * 1_000));
        let read = Arc::clone(&millis);
        let clock = Clock::from_fn(move || {
            DateTime::from_timestamp_millis(read.load(Ordering::SeqCst)).unwrap()
        });
        let (sinks, harness) = harness.split();
        let worker = Worker::new(WorkerParts {
            settings: WorkerSettings {
                window: WINDOW,
                max_alert_age: Duration::from_secs(600),
                idle_final: Duration::from_secs(300),
            },
            shared: Shared::new(Detector::new(bundle(WINDOW), 1.0, 1)).unwrap(),
            sinks,
            acks: harness.acks.clone(),
            mutes: logguard::mutes::watch(None),
            desk: RecoveryDesk::new(store, Handle::current()),
            health: Arc::new(Health::new(clock.clone())),
            clock,
            metrics: PipelineMetrics::default(),
        });
        let mut bench = Self {
            worker,
            millis,
            harness,
            next: 0,
            committed: 0,
        };
        bench.assign().await;
        bench
    }

    /// Begins to read the partition, from its beginning.
    async fn assign(&mut self) {
        self.next = 0;
        self.worker.assigned(StartPoint {
            partition: partition(),
            next: NextOffset(0),
            metadata: None,
            partial: false,
        });
        until("the partition is ready", async || {
            self.turn();
            self.worker.take_ready() == [partition()]
        })
        .await;
    }

    fn turn(&mut self) {
        assert!(self.worker.drain(Instant::now() + PATIENCE));
    }

    /// Moves the clock on and lets the worker look at it.
    fn pass(&mut self, seconds: i64) {
        self.millis.fetch_add(seconds * 1_000, Ordering::SeqCst);
        self.turn();
    }

    /// Hands over a line written this many seconds after the base, with further fields.
    fn line(&mut self, seconds: i64, fields: &str) {
        let payload = format!(
            r#"{{"timestamp":{},"level":"INFO","message":"user 17 signed in"{fields}}}"#,
            BASE_S + seconds
        );
        self.payload(payload.as_bytes());
    }

    fn payload(&mut self, payload: &[u8]) {
        let record = RawRecord {
            offset: self.next,
            record_time: None,
            payload: Some(payload),
        };
        self.worker.record(&partition(), record);
        self.next += 1;
        self.turn();
    }

    /// Returns up to where may be committed.
    fn commit_point(&mut self) -> i64 {
        self.turn();
        if let Some(point) = self.worker.take_commit_points().pop() {
            self.committed = point.next.0;
        }
        self.committed
    }
}

const DEPLOY: &str = r#","service":"auth","event":"deploy","version":"2.0""#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_tells_of_a_deploy_is_a_line_and_a_deploy() {
    let Some((database, client)) = migrated().await else {
        return;
    };
    let mut bench = Bench::start(&database).await;
    for _ in 0..2 {
        // The second time as after a crash: all of it is read again, and nothing comes twice.
        bench.line(0, "");
        bench.line(10, DEPLOY);
        // Tells of a deploy, but came too late to count as a line.
        bench.line(40, "");
        bench.line(1, r#","service":"cart","event":"deploy","version":"7""#);
        until("deploys are stored", async || {
            bench.turn();
            deploys(&client).await.len() == 2
        })
        .await;
        until("all but the open window is done", async || {
            bench.commit_point() == 2
        })
        .await;
        bench.assign().await;
        bench.committed = 0;
    }
    assert_eq!(
        deploys(&client).await,
        ["cart 7 00:00:01 event", "auth 2.0 00:00:10 event"]
    );
    let sql = "SELECT log_count FROM anomaly_results WHERE NOT provisional ORDER BY window_start";
    let rows = client.query(sql, &[]).await.unwrap();
    let counts: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(counts, [2], "the deploy's line counts in its window");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deploy_that_is_not_stored_holds_its_offset() {
    let Some((database, client)) = migrated().await else {
        return;
    };
    let mut bench = Bench::start(&database).await;
    let mut blocker = database.client().await;
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE deploys").await.unwrap();
    bench.line(0, "");
    bench.line(10, DEPLOY);
    bench.line(40, "");
    // An early alarm of the next window may be there as well.
    until("the row is written", async || {
        bench.turn();
        bench.harness.delivered("store") > 0
    })
    .await;
    // The first window is done with row and message, and yet.
    until("the message is written", async || {
        bench.turn();
        bench.harness.delivered("results") > 0
    })
    .await;
    assert!(bench.commit_point() <= 1, "{}", bench.committed);
    lock.rollback().await.unwrap();
    until("the deploy is stored", async || bench.commit_point() == 2).await;
    assert_eq!(deploys(&client).await, ["auth 2.0 00:00:10 event"]);
}

/// Lag, read, scored, late and rejected of the partition, over all minutes.
async fn noted(client: &Client) -> (Option<i64>, [i64; 4]) {
    let sql = "SELECT max(lag), coalesce(sum(read), 0)::bigint, coalesce(sum(scored), 0)::bigint,
                      coalesce(sum(late), 0)::bigint, coalesce(sum(rejected), 0)::bigint
               FROM pipeline_health
               WHERE (consumer_group, topic, partition) = ('group', 'log-events', 0)";
    let row = client.query_one(sql, &[]).await.unwrap();
    (row.get(0), [1, 2, 3, 4].map(|column| row.get(column)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_noted_once_a_minute_and_at_the_end() {
    let Some((database, client)) = migrated().await else {
        return;
    };
    let mut bench = Bench::start(&database).await;
    bench.line(0, "");
    bench.line(40, "");
    bench.line(1, "");
    bench.payload(b"no JSON");
    bench.pass(59);
    assert_eq!(noted(&client).await.1, [0; 4]);
    bench.pass(2);
    until("the first note", async || {
        noted(&client).await.1 == [4, 1, 1, 1]
    })
    .await;
    bench.line(50, "");
    bench.worker.finish(Instant::now() + PATIENCE);
    until("the last note adds to the first", async || {
        noted(&client).await.1 == [5, 1, 1, 1]
    })
    .await;
    assert_eq!(noted(&client).await.0, None, "nobody knows the lag here");
    let sql = "SELECT max(newest_event)::text FROM pipeline_health";
    let newest: &str = &client
        .query_one(sql, &[])
        .await
        .unwrap()
        .get::<_, String>(0);
    assert!(newest.starts_with("2025-12-24 00:00:50"), "{newest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_that_cannot_be_noted_holds_up_nothing() {
    let Some((database, client)) = migrated().await else {
        return;
    };
    client
        .batch_execute("DROP TABLE pipeline_health CASCADE")
        .await
        .unwrap();
    let mut bench = Bench::start(&database).await;
    for minute in 0..5 {
        bench.line(60 * minute, "");
        bench.pass(61);
    }
    // Four windows with lines and the empty ones between them are final.
    until("rows are written", async || bench.commit_point() == 4).await;
    until("the notes are counted as dropped", async || {
        bench.harness.health_notes_dropped() >= 1
    })
    .await;
}

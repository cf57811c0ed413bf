//! The whole of it against a real Kafka and a real PostgreSQL: whatever happens to the processors,
//! what they leave behind is what `replay` says of the same topic.
//!
//! ```text
//! generator ─► kcat ─► topic ─┬─► logguard run (two of them, or more) ─► rows, messages, alarms
//!                             └─► logguard replay ─► the oracle that all of it is compared with
//! ```

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

#[path = "common/broker.rs"]
mod broker;
#[path = "common/events.rs"]
mod events;
#[path = "common/oracle.rs"]
mod oracle;
#[path = "common/program.rs"]
mod program;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::Client;

use common::{TestDatabase, fresh_database, kafka_brokers};
use events::Stretch;
use oracle::{Oracle, Outcome};
use program::{Running, logguard, run_well};

const PARTITIONS: usize = 4;
const DAY_S: i64 = 86_400;
/// What the model learns from: a day of a system that is mostly well.
const TRAINING: Stretch = Stretch {
    seed: 11,
    from_s: 0,
    length_s: DAY_S,
    rate_per_s: 1.0,
    anomaly_prob: 0.005,
};
/// What the processors get: half an hour of the next day, busier and with an incident every few
/// minutes.
const LIVE: Stretch = Stretch {
    seed: 12,
    from_s: DAY_S,
    length_s: 30 * 60,
    rate_per_s: 20.0,
    anomaly_prob: 0.15,
};
/// Lines of a partition after which one comes that is no event, and one that comes too late.
const BAD_AFTER: [usize; 2] = [700, 4_000];
/// Far longer than anything takes here; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// A processor's own deadlines for a stop are shorter.
const STOPS_WITHIN: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(10);
/// Makes a processor read so slowly that there is a midst of reading to disturb.
const SLOW: [&str; 6] = [
    "--kafka",
    "fetch.message.max.bytes=16384",
    "--kafka",
    "queued.min.messages=1",
    "--kafka",
    "fetch.queue.backoff.ms=60",
];

/// Returns the directory of a model, trained at the first call.
fn model_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("end_to_end");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("training.jsonl"), events::text(&TRAINING.lines())).unwrap();
        run_well(&dir, ["train", "--input", "training.jsonl"]);
        dir.join("model")
    })
}

/// A database, topics, a group and a directory of one test's own, filled and ready.
struct Pipeline {
    brokers: String,
    database: TestDatabase,
    client: Client,
    dir: TempDir,
    name: &'static str,
    oracle: Oracle,
    started: usize,
}

impl Pipeline {
    /// Prepares everything, and writes all records. `None` without services.
    async fn prepare(name: &'static str) -> Option<Self> {
        let (brokers, database) = (kafka_brokers()?, fresh_database().await?);
        let client = database.client().await;
        let dir = tempfile::tempdir().unwrap();
        run_well(dir.path(), ["migrate", "--database-url", &database.url]);
        let mut pipeline = Self {
            name,
            oracle: Oracle::default(),
            started: 0,
            brokers,
            database,
            client,
            dir,
        };
        for (topic, partitions) in [("in", PARTITIONS), ("out", 1), ("dlq", 1)] {
            let partitions = i32::try_from(partitions).unwrap();
            broker::create_topic(&pipeline.brokers, &pipeline.own(topic), partitions).await;
        }
        pipeline.produce();
        pipeline.replay();
        Some(pipeline)
    }

    /// Returns a name on the broker that only this run of this test has.
    fn own(&self, kind: &str) -> String {
        format!("{}-{}-{kind}", self.name, self.database.name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Deals the lines out to the partitions, as kcat's files, and has them written.
    fn produce(&self) {
        let mut partitions = vec![Vec::new(); PARTITIONS];
        for (number, line) in LIVE.lines().into_iter().enumerate() {
            partitions[number % PARTITIONS].push(line);
        }
        for (partition, mut lines) in partitions.into_iter().enumerate() {
            let late = lines[0].clone();
            lines.insert(BAD_AFTER[1], late);
            lines.insert(BAD_AFTER[0], "this is no JSON".to_owned());
            let file = self.path(&format!("{partition}.jsonl"));
            fs::write(&file, events::text(&lines)).unwrap();
            broker::kcat(&self.brokers, &self.own("in"), partition, &file);
        }
    }

    fn replay(&mut self) {
        let results = self.path("replay.jsonl");
        let mut args = vec!["replay", "--from-kafka", "--json"];
        args.extend(["--kafka-brokers", &self.brokers]);
        let topic = self.own("in");
        args.extend(["--input-topic", &topic]);
        args.extend(["--model-dir", model_dir().to_str().unwrap()]);
        args.extend(["--results", results.to_str().unwrap()]);
        let report = run_well(self.dir.path(), &args);
        let report: Value = serde_json::from_str(&report).unwrap();
        assert_eq!(
            (&report["rejected"], &report["late"]),
            (&4.into(), &4.into())
        );
        self.oracle = Oracle::read(&results);
        // Half an hour is 60 windows in each of four partitions, and the incidents are in all.
        assert!(
            self.oracle.closed_count() > 200,
            "{}",
            self.oracle.closed_count()
        );
        assert!(
            self.oracle.alarm_count() > 20,
            "{}",
            self.oracle.alarm_count()
        );
    }

    /// Starts another processor.
    fn start(&mut self, further: &[&str]) -> Running {
        self.start_on("in", further)
    }

    /// Starts another processor on a topic.
    fn start_on(&mut self, topic: &str, further: &[&str]) -> Running {
        self.started += 1;
        let mut command = logguard(self.dir.path());
        command
            .arg("run")
            .args(["--kafka-brokers", &self.brokers])
            .args(["--input-topic", &self.own(topic)])
            .args(["--output-topic", &self.own("out")])
            .args(["--dead-letter-topic", &self.own("dlq")])
            .args(["--consumer-group", &self.own("group")])
            .args(["--database-url", &self.database.url])
            .arg("--model-dir")
            .arg(model_dir())
            .args([
                "--anomaly-log",
                "anomalies.log",
                "--http-listen",
                "127.0.0.1:0",
            ])
            .args(further)
            // Members that died are noticed soon.
            .env("LOGGUARD_KAFKA__SESSION_TIMEOUT_MS", "3000")
            .env("LOGGUARD_KAFKA__DRAIN_TIMEOUT_MS", "1500")
            .env("LOGGUARD_KAFKA__COMMIT_INTERVAL_MS", "100")
            // The clock has no say here.
            .env("LOGGUARD_WINDOW__IDLE_FINAL_S", "86400");
        Running::start(
            command,
            self.path(&format!("processor-{}.log", self.started)),
        )
    }

    /// Waits until `reached` of what was asked of the database or the group.
    async fn wait_until(
        &self,
        what: &str,
        processors: &mut [&mut Running],
        reached: impl AsyncFn(&Self) -> Result<(), String>,
    ) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(state) = reached(self).await {
            let ended = processors.iter_mut().any(|it| it.exited().is_some());
            if ended || Instant::now() > deadline {
                let tails: Vec<_> = processors.iter().map(|it| it.log_tail()).collect();
                let why = if ended {
                    "a processor ended"
                } else {
                    "too long"
                };
                panic!("{what}: {why}; {state}\n{}", tails.join("\n"));
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Waits until some windows are final in the table, but not all.
    async fn wait_for_the_midst(&self, processors: &mut [&mut Running]) {
        let enough = i64::try_from(self.oracle.closed_count() / 4).unwrap();
        self.wait_until("the first quarter", processors, async |it| {
            let count = it.final_rows().await;
            (count >= enough)
                .then_some(())
                .ok_or(format!("{count} final rows"))
        })
        .await;
        let all = i64::try_from(self.oracle.closed_count()).unwrap();
        let count = self.final_rows().await;
        assert!(count < all, "all rows at once: nothing is left to disturb");
    }

    async fn final_rows(&self) -> i64 {
        let sql = "SELECT count(*) FROM anomaly_results WHERE NOT provisional";
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Waits until the group has committed all that can be: what is committed is durable.
    async fn wait_for_the_end(&self, processors: &mut [&mut Running]) {
        let expected = self.oracle.committed();
        self.wait_until("the end of the topic", processors, async |it| {
            let committed = broker::committed(&it.brokers, &it.own("group"), &it.own("in"));
            let state = format!("committed {committed:?}, expected {expected:?}");
            (committed == expected).then_some(()).ok_or(state)
        })
        .await;
    }

    /// Stops the processors and compares what is there with what must be.
    async fn stop_and_compare(&self, processors: &mut [&mut Running]) {
        for processor in &*processors {
            processor.terminate();
        }
        for processor in processors {
            processor.ends_well(STOPS_WITHIN).await;
        }
        let committed = broker::committed(&self.brokers, &self.own("group"), &self.own("in"));
        assert_eq!(committed, self.oracle.committed(), "a stop moves no offset");
        let results = (self.brokers.as_str(), self.own("out"));
        let results = (results.0, results.1.as_str());
        let outcome = Outcome::gather(&self.client, results, &self.path("anomalies.log")).await;
        self.oracle.check(&outcome);
        self.check_dead_letters();
    }

    /// Every record that is no event, and every one that came too late, is in the dead-letter
    /// topic; those read again after a crash may be there again.
    fn check_dead_letters(&self) {
        let mut letters = BTreeSet::new();
        for (_, text) in broker::read_topic(&self.brokers, &self.own("dlq")) {
            let letter: Value = serde_json::from_str(&text).unwrap();
            let text = |field: &str| letter[field].as_str().unwrap().to_owned();
            letters.insert((
                letter["partition"].as_i64(),
                letter["offset"].as_i64(),
                text("reason"),
            ));
        }
        let mut expected = BTreeSet::new();
        for partition in 0..4 {
            expected.insert((Some(partition), Some(700), "not_json".to_owned()));
            expected.insert((Some(partition), Some(4_001), "late".to_owned()));
        }
        assert_eq!(letters, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_processors_leave_what_replay_says() {
    let Some(mut pipeline) = Pipeline::prepare("two").await else {
        return;
    };
    let (mut one, mut other) = (pipeline.start(&[]), pipeline.start(&[]));
    pipeline.wait_for_the_end(&mut [&mut one, &mut other]).await;
    pipeline.stop_and_compare(&mut [&mut one, &mut other]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_rolling_restart_changes_nothing() {
    let Some(mut pipeline) = Pipeline::prepare("rolling").await else {
        return;
    };
    let (mut first, mut second) = (pipeline.start(&SLOW), pipeline.start(&SLOW));
    pipeline
        .wait_for_the_midst(&mut [&mut first, &mut second])
        .await;
    first.terminate();
    let mut third = pipeline.start(&SLOW);
    first.ends_well(STOPS_WITHIN).await;
    pipeline
        .wait_for_the_end(&mut [&mut second, &mut third])
        .await;
    pipeline
        .stop_and_compare(&mut [&mut second, &mut third])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_killed_processor_changes_nothing() {
    let Some(mut pipeline) = Pipeline::prepare("killed").await else {
        return;
    };
    let (mut first, mut second) = (pipeline.start(&SLOW), pipeline.start(&SLOW));
    pipeline
        .wait_for_the_midst(&mut [&mut first, &mut second])
        .await;
    first.kill();
    pipeline.wait_for_the_end(&mut [&mut second]).await;
    pipeline.stop_and_compare(&mut [&mut second]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_alarm_comes_before_its_window_is_full_and_stands() {
    let Some(mut pipeline) = Pipeline::prepare("early").await else {
        return;
    };
    // The same lines up to the record that brings an alarm, and the rest later.
    let (next, window_start) = pipeline.oracle.first_early(0);
    let lines = fs::read_to_string(pipeline.path("0.jsonl")).unwrap();
    let lines: Vec<_> = lines.lines().map(str::to_owned).collect();
    broker::create_topic(&pipeline.brokers, &pipeline.own("cut"), 1).await;
    let produce = |pipeline: &Pipeline, part: &[String]| {
        let file = pipeline.path("part.jsonl");
        fs::write(&file, events::text(part)).unwrap();
        broker::kcat(&pipeline.brokers, &pipeline.own("cut"), 0, &file);
    };
    produce(&pipeline, &lines[..next]);
    let mut processor = pipeline.start_on("cut", &[]);
    let told = "SELECT (to_jsonb(a) - 'stale')::text, r.provisional, r.is_anomaly, a.alarm_id
                FROM alarms a JOIN anomaly_results r USING (window_start, window_end, stream)
                WHERE a.kind = 'early' AND a.window_start = $1::text::timestamptz";
    let wait = async |what: &str, provisional: bool, processor: &mut Running| {
        pipeline
            .wait_until(what, &mut [processor], async |it| {
                let rows = it.client.query(told, &[&window_start]).await.unwrap();
                let found = rows.iter().any(|row| row.get::<_, bool>(1) == provisional);
                found.then_some(()).ok_or(format!("{} alarms", rows.len()))
            })
            .await;
        let row = pipeline
            .client
            .query_one(told, &[&window_start])
            .await
            .unwrap();
        (
            row.get::<_, String>(0),
            row.get::<_, i32>(2),
            row.get::<_, String>(3),
        )
    };
    let (alarm, _, alarm_id) = wait("the alarm", true, &mut processor).await;
    produce(&pipeline, &lines[next..]);
    let (stands, is_anomaly, _) = wait("its final row", false, &mut processor).await;
    assert_eq!((stands, is_anomaly), (alarm, 1));
    processor.terminate();
    processor.ends_well(STOPS_WITHIN).await;
    let file = fs::read_to_string(pipeline.path("anomalies.log")).unwrap();
    let its: Vec<_> = file
        .lines()
        .filter(|line| line.contains(&alarm_id))
        .collect();
    assert!(
        matches!(its[..], [line] if line.contains(" | Early: ")),
        "{its:?}"
    );
}

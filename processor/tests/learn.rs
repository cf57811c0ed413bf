//! Models learnt from a topic: the same as from a file, and the first one of replicas that have none.
//!
//! ```text
//! generator ─► kcat ─► topic ─► logguard train --from-kafka ─► model.json ┐
//!        └───────────► file ──► logguard train --input ──────► model.json ┴─ the same
//!
//! topic ─┬─► logguard run --learn (several) ─► one model, rows, messages, alarms
//!        └─► logguard replay with that model ─► the oracle that all of it is compared with
//! ```

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

#[path = "common/broker.rs"]
mod broker;
#[path = "common/events.rs"]
mod events;
#[path = "common/oracle.rs"]
mod oracle;
#[path = "outages/probe.rs"]
#[allow(dead_code, reason = "memory is looked at elsewhere")]
mod probe;
#[path = "common/program.rs"]
mod program;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use common::{TestDatabase, fresh_database, kafka_brokers};
use events::Stretch;
use logguard::clock::Clock;
use oracle::{Oracle, Outcome};
use program::{Running, logguard, run, run_well};
use tempfile::TempDir;
use tokio_postgres::Client;

/// An hour of a system that is mostly well.
const HOUR: Stretch = Stretch {
    seed: 21,
    from_s: 0,
    length_s: 3_600,
    rate_per_s: 1.0,
    anomaly_prob: 0.01,
};
/// Half an hour of a system that is well but for a few minutes; the first lines of a topic.
const FIRST: Stretch = Stretch {
    seed: 22,
    from_s: 0,
    length_s: 1_800,
    rate_per_s: 2.0,
    anomaly_prob: 0.04,
};
const PARTITIONS: usize = 3;
/// Far longer than anything takes here; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL_EVERY: Duration = Duration::from_millis(20);
/// Exit code for what has to be mended first.
const INPUT: i32 = 3;

/// A topic and a directory of one test's own.
struct Topic {
    brokers: String,
    name: String,
    dir: TempDir,
}

impl Topic {
    /// Creates the topic; `None` without services.
    async fn create(kind: &str, partitions: i32) -> Option<Self> {
        let brokers = kafka_brokers()?;
        let dir = tempfile::tempdir().unwrap();
        let unique = dir.path().file_name().unwrap().to_string_lossy();
        let unique = unique.trim_start_matches('.');
        let name = format!("learn-{kind}-{}-{unique}", std::process::id());
        broker::create_topic(&brokers, &name, partitions).await;
        Some(Self { brokers, name, dir })
    }

    /// Returns the name of something that belongs to the topic.
    fn beside(&self, kind: &str) -> String {
        format!("{}-{kind}", self.name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes lines to one partition.
    fn write(&self, partition: usize, lines: &[String]) {
        let file = self.path("lines.jsonl");
        fs::write(&file, events::text(lines)).unwrap();
        broker::kcat(&self.brokers, &self.name, partition, &file);
    }

    /// The arguments that train from the topic.
    fn train<'a>(&'a self, further: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["train", "--from-kafka"];
        args.extend(["--kafka-brokers", &self.brokers]);
        args.extend(["--input-topic", &self.name]);
        args.extend(further);
        args
    }

    /// Fails unless training from the topic is refused with all of `said`.
    fn is_refused(&self, further: &[&str], said: &[&str]) {
        let output = run(self.dir.path(), self.train(further));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(INPUT), "{stderr}");
        for text in said {
            assert!(stderr.contains(text), "{stderr} does not say `{text}`");
        }
    }
}

fn model(dir: &Path) -> String {
    fs::read_to_string(dir.join("model.json")).unwrap()
}

/// One partition has far more lines than another, one ends early, one is empty: read one after the
/// other nearly all of them would be late.
#[tokio::test]
async fn a_topic_gives_the_model_that_a_file_gives() {
    let Some(topic) = Topic::create("same", 4).await else {
        return;
    };
    let lines = HOUR.lines();
    fs::write(topic.path("lines"), events::text(&lines)).unwrap();
    fs::rename(topic.path("lines"), topic.path("hour.jsonl")).unwrap();
    let mut partitions = vec![Vec::new(); 3];
    for (number, line) in lines.iter().enumerate() {
        let partition = match number {
            _ if number % 10 == 0 => 1,
            ..2_000 if number % 10 < 4 => 2,
            _ => 0,
        };
        partitions[partition].push(line.clone());
    }
    partitions[1].insert(7, "this is no JSON".to_owned());
    for (partition, lines) in partitions.iter().enumerate() {
        topic.write(partition, lines);
    }
    let dir = topic.dir.path();
    for (range, name) in [
        (&[][..], "all"),
        (
            &[
                "--since",
                "2025-12-24T00:10:00Z",
                "--until",
                "2025-12-24T00:40:00Z",
            ][..],
            "part",
        ),
    ] {
        let (one, other) = (format!("topic-{name}"), format!("file-{name}"));
        run_well(dir, topic.train(&[range, &["--model-dir", &one]].concat()));
        let file = ["train", "--input", "hour.jsonl", "--model-dir", &other];
        run_well(dir, [&file, range].concat());
        let (one, other) = (model(&dir.join(one)), model(&dir.join(other)));
        assert!(one == other, "{name}: the models differ");
    }
    let late = ["--since", "2025-12-24T02:00:00Z"];
    topic.is_refused(
        &late,
        &[
            &topic.name,
            "since 2025-12-24T02:00:00",
            "to 2025-12-24T00:59:",
        ],
    );
    topic.is_refused(
        &["--until", "2025-12-24T00:05:00Z"],
        &[&topic.name, "10 windows", "20"],
    );
    topic.is_refused(&["--since", "an hour"], &["an hour", "24h"]);
}

#[tokio::test]
async fn an_empty_topic_is_named() {
    let Some(topic) = Topic::create("empty", 2).await else {
        return;
    };
    topic.is_refused(&[], &[&topic.name, &topic.brokers, "holds no records"]);
}

/// Replicas that start without a model, and all that belongs to them alone.
struct Replicas {
    topic: Topic,
    database: TestDatabase,
    client: Client,
    started: usize,
}

impl Replicas {
    /// Prepares topics and database; `None` without services.
    async fn prepare(kind: &str) -> Option<Self> {
        let topic = Topic::create(kind, i32::try_from(PARTITIONS).unwrap()).await?;
        let database = fresh_database().await?;
        let client = database.client().await;
        let dir = topic.dir.path();
        run_well(dir, ["migrate", "--database-url", &database.url]);
        for kind in ["out", "dlq"] {
            broker::create_topic(&topic.brokers, &topic.beside(kind), 1).await;
        }
        Some(Self {
            topic,
            database,
            client,
            started: 0,
        })
    }

    /// Deals lines out to the partitions.
    fn write(&self, lines: &[String]) {
        for partition in 0..PARTITIONS {
            let every = lines.iter().skip(partition).step_by(PARTITIONS);
            self.topic
                .write(partition, &every.cloned().collect::<Vec<_>>());
        }
    }

    /// Deals lines out to the partitions, in records of two hours ago.
    fn write_old(&self, lines: &[String]) {
        let before = Clock::system().now() - TimeDelta::hours(2);
        for partition in 0..PARTITIONS {
            let every = lines.iter().skip(partition).step_by(PARTITIONS);
            let number = i32::try_from(partition).unwrap();
            let place = (self.topic.name.as_str(), number);
            broker::write_at(&self.topic.brokers, place, every, before.timestamp_millis());
        }
    }

    /// Starts another one.
    fn start(&mut self, failpoints: &str, further: &[&str]) -> Running {
        self.started += 1;
        let mut command = logguard(self.topic.dir.path());
        command
            .args(["run", "--learn", "20m"])
            .args(["--kafka-brokers", &self.topic.brokers])
            .args(["--input-topic", &self.topic.name])
            .args(["--output-topic", &self.topic.beside("out")])
            .args(["--dead-letter-topic", &self.topic.beside("dlq")])
            .args(["--consumer-group", &self.topic.beside("group")])
            .args(["--database-url", &self.database.url])
            .args(["--anomaly-log", "anomalies.log"])
            .args(["--http-listen", "127.0.0.1:0"])
            .args(further)
            .env("FAILPOINTS", failpoints)
            .env("LOGGUARD_KAFKA__SESSION_TIMEOUT_MS", "3000")
            .env("LOGGUARD_KAFKA__DRAIN_TIMEOUT_MS", "1500")
            .env("LOGGUARD_KAFKA__COMMIT_INTERVAL_MS", "100")
            // The clock has no say here.
            .env("LOGGUARD_WINDOW__IDLE_FINAL_S", "86400");
        let log = format!("processor-{}.log", self.started);
        Running::start(command, self.topic.path(&log))
    }

    async fn number(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Writes the active model to a directory, for `replay`, and says what that says of the topic.
    async fn replay(&self) -> Oracle {
        let sql = "SELECT bundle FROM models JOIN active_models USING (checksum)";
        let row = self.client.query_one(sql, &[]).await.unwrap();
        let bundle = zstd::decode_all(row.get::<_, &[u8]>(0)).unwrap();
        let dir = self.topic.path("active");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("model.json"), bundle).unwrap();
        let mut args = vec!["replay", "--from-kafka", "--model-dir", "active"];
        args.extend(["--kafka-brokers", &self.topic.brokers]);
        args.extend(["--input-topic", &self.topic.name]);
        args.extend(["--results", "replay.jsonl"]);
        run_well(self.topic.dir.path(), args);
        Oracle::read(&self.topic.path("replay.jsonl"))
    }

    /// Waits until everything is scored and committed, stops the replicas, and compares what they
    /// leave with what `replay` says.
    async fn finish(&self, replicas: Vec<Running>) {
        let oracle = self.replay().await;
        let committed = || {
            let group = self.topic.beside("group");
            broker::committed(&self.topic.brokers, &group, &self.topic.name)
        };
        let expected = oracle.committed();
        let what = "the end of the topic is committed";
        until(what, &replicas, async || committed() == expected).await;
        for replica in &replicas {
            replica.terminate();
        }
        for mut replica in replicas {
            replica.ends_well(PATIENCE).await;
        }
        let (brokers, out) = (self.topic.brokers.as_str(), self.topic.beside("out"));
        let alarms = self.topic.path("anomalies.log");
        let outcome = Outcome::gather(&self.client, (brokers, &out), &alarms).await;
        oracle.check(&outcome);
        assert!(oracle.closed_count() > 150, "{}", oracle.closed_count());
        let old = "SELECT count(*) FROM anomaly_results WHERE NOT learning";
        assert_eq!(self.number(old).await, 0, "rows that do not say learning");
        let models = "SELECT count(DISTINCT model_checksum) FROM anomaly_results";
        assert_eq!(self.number(models).await, 1);
        // One alarm a day and stream, at most; what is beyond is there to see.
        let most = "SELECT coalesce(max(alarms), 0) FROM
            (SELECT count(*) AS alarms FROM anomaly_results WHERE is_anomaly = 1 GROUP BY stream) s";
        assert!(self.number(most).await <= 1);
        let held = "SELECT count(*) FROM anomaly_results
            WHERE capped AND is_anomaly = 0 AND anomaly_score > 0.5
              AND explanation ->> 'reasons' LIKE '%held back%'";
        let capped = "SELECT count(*) FROM anomaly_results WHERE capped";
        assert_eq!(self.number(held).await, self.number(capped).await);
    }
}

/// Waits until something holds.
async fn until(what: &str, replicas: &[Running], mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        let tails = || replicas.iter().map(Running::log_tail).collect::<Vec<_>>();
        assert!(Instant::now() < deadline, "{what}: {}", tails().join("\n"));
        tokio::time::sleep(POLL_EVERY).await;
    }
}

fn says(replica: &Running, text: &str) -> bool {
    replica.log().contains(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn of_three_replicas_one_learns_and_all_run_its_model() {
    let Some(mut replicas) = Replicas::prepare("three").await else {
        return;
    };
    replicas.write(&FIRST.lines());
    // Long enough for all to have looked.
    let slow = "learning.learnt=sleep(1500)";
    let three = vec![
        replicas.start(slow, &[]),
        replicas.start(slow, &[]),
        replicas.start(slow, &[]),
    ];
    let all_at_work = async || three.iter().all(|it| says(it, "partition starts"));
    until("all three are at work", &three, all_at_work).await;
    let count = |text: &str| three.iter().filter(|it| says(it, text)).count();
    assert_eq!(count("learning the first model of the topic"), 1);
    assert_eq!(count("published for all replicas"), 1);
    assert_eq!(count("waiting for the model"), 2);
    assert_eq!(count("running the active model of the store"), 2);
    assert!(three.iter().all(|it| probe::says_yes(it, "/readyz")));
    let epochs = "SELECT count(*) FROM learning_leases WHERE epoch = 1";
    assert_eq!(replicas.number(epochs).await, 1);
    replicas.finish(three).await;
    // One that comes later has nothing to learn, with or without the flag.
    let late = replicas.start("", &[]);
    let late = vec![late];
    let at_work = async || says(&late[0], "running the active model of the store");
    until("a late one is at work", &late, at_work).await;
    assert!(!says(&late[0], "learning the first model"));
    // One with another model of its own runs that, and says so.
    let train = replicas.topic.train(&["--model-dir", "own"]);
    run_well(replicas.topic.dir.path(), train);
    let other = vec![replicas.start("", &["--model-dir", "own"])];
    let warns = async || says(&other[0], "names another model as active");
    until("it warns of the active model", &other, warns).await;
}

/// The first learner is killed, the second is paused for longer than its lease; the third publishes,
/// and the second, when it wakes up, runs that model and not its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn learners_that_die_or_sleep_are_replaced() {
    let Some(mut replicas) = Replicas::prepare("die").await else {
        return;
    };
    replicas.write(&FIRST.lines());
    let learning = "learning the first model of the topic";
    let mut first = replicas.start("learning.lease_ms=return(3000);learning.enough=pause", &[]);
    let begun = async |replica: &Running| says(replica, learning);
    until("the first learns", &[], async || begun(&first).await).await;
    let slow = "learning.lease_ms=return(3000);learning.enough=sleep(30000)";
    let second = replicas.start(slow, &[]);
    until("the second waits", &[], async || {
        says(&second, "waiting for the model")
    })
    .await;
    first.kill();
    until("the second learns", &[], async || begun(&second).await).await;
    let third = replicas.start("learning.lease_ms=return(3000)", &[]);
    until("the third waits", &[], async || {
        says(&third, "waiting for the model")
    })
    .await;
    second.pause();
    let published = async || replicas.number("SELECT count(*) FROM active_models").await == 1;
    until("the third publishes", &[], published).await;
    second.resume();
    let both = vec![second, third];
    let at_work = async || both.iter().all(|it| says(it, "partition starts"));
    until("both are at work", &both, at_work).await;
    assert!(says(&both[0], "another replica has taken over learning"));
    assert!(says(&both[1], "published for all replicas"));
    assert_eq!(
        replicas.number("SELECT count(*) FROM active_models").await,
        1
    );
    let epochs = "SELECT count(*) FROM learning_leases WHERE epoch >= 3";
    assert_eq!(replicas.number(epochs).await, 1);
    replicas.finish(both).await;
}

/// It holds more than is read at once, and nothing of the time that is looked at first.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_topic_that_fell_quiet_is_learnt_from_as_far_back_as_it_takes() {
    let Some(mut replicas) = Replicas::prepare("quiet").await else {
        return;
    };
    replicas.write_old(&FIRST.lines());
    let one = vec![replicas.start("learning.records_max=return(100)", &[])];
    let at_work = async || says(&one[0], "partition starts");
    until("it is at work", &one, at_work).await;
    assert!(says(&one[0], "reading the newest records"));
    assert!(says(&one[0], "reading further back"));
    replicas.finish(one).await;
}

/// A renewal of the lease waits for a lock, and would for as long as a statement may last.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stop_while_learning_does_not_wait_for_the_store() {
    let Some(mut replicas) = Replicas::prepare("stop").await else {
        return;
    };
    replicas.write(&FIRST.lines());
    let slow = "learning.lease_ms=return(3000);learning.enough=sleep(60000)";
    let mut one = replicas.start(slow, &[]);
    let learning = "learning the first model of the topic";
    until("it learns", &[], async || says(&one, learning)).await;
    let other = replicas.database.client().await;
    let lock = "BEGIN; LOCK TABLE learning_leases IN ACCESS EXCLUSIVE MODE";
    other.batch_execute(lock).await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waits = async || replicas.number(waiting).await > 0;
    until("a renewal waits", &[], waits).await;
    one.terminate();
    one.ends_well(Duration::from_secs(15)).await;
    assert!(says(&one, "the store does not answer"));
}

/// Without a store, on a topic that is empty at the start, and with an incident in what comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_single_process_learns_from_what_comes() {
    let Some(mut replicas) = Replicas::prepare("alone").await else {
        return;
    };
    let alone = ["--store", "none"];
    let mut one = vec![replicas.start("", &alone)];
    let waits = async || says(&one[0], "holds no log events of the last day");
    until("it waits for log events", &one, waits).await;
    assert!(!probe::says_yes(&one[0], "/readyz") && probe::says_yes(&one[0], "/livez"));
    let mut lines = [FIRST.lines(), incident()].concat();
    // The time comes first in a line.
    lines.sort();
    let half = lines.len() / 3;
    replicas.write(&lines[..half]);
    let on_the_way =
        async || probe::metric(&one[0], "logguard_learning_covered_seconds", &[]) > 0.0;
    until("it says how far it is", &one, on_the_way).await;
    assert!(!replicas.topic.path("model/model.json").exists());
    replicas.write(&lines[half..]);
    until("it is at work", &one, async || {
        says(&one[0], "partition starts")
    })
    .await;
    until("it is ready", &one, async || {
        probe::says_yes(&one[0], "/readyz")
    })
    .await;
    assert!(says(&one[0], "there seems to be an incident") && says(&one[0], "Kernel panic"));
    let results = || broker::read_topic(&replicas.topic.brokers, &replicas.topic.beside("out"));
    until("there are results", &one, async || !results().is_empty()).await;
    assert!(
        results()
            .iter()
            .all(|(_, text)| text.contains("\"learning\":true"))
    );
    let learnt = model(&replicas.topic.path("model"));
    one.pop().unwrap().kill();
    // It is there for the next start.
    let again = vec![replicas.start("", &alone)];
    let kept = async || says(&again[0], "--learn has nothing to do");
    until("its model is kept", &again, kept).await;
    assert!(model(&replicas.topic.path("model")) == learnt);
}

/// Two minutes in which something is badly wrong, in the second half of [`FIRST`].
fn incident() -> Vec<String> {
    let line = |half_second: u32| {
        let second = half_second / 2;
        let time = format!("2025-12-24T00:{}:{:02}.500Z", 15 + second / 60, second % 60);
        format!(
            r#"{{"timestamp":"{time}","level":"ERROR","service":"kernel","message":"Kernel panic"}}"#
        )
    };
    (0..240).map(line).collect()
}

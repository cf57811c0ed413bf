//! What becomes of an alarm after it was raised, against a real Kafka and a real PostgreSQL: it is
//! proved from its records, judged by people, and its pattern is muted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "mutes begin by the clock")]

mod common;

#[path = "common/broker.rs"]
mod broker;
#[path = "common/events.rs"]
mod events;
#[path = "common/program.rs"]
mod program;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::Client;

use common::{TestDatabase, fresh_database, kafka_brokers};
use events::{START_S, Stretch};
use program::{Running, logguard, run, run_well};

/// What the model learns from: half a day.
const TRAINING: Stretch = Stretch {
    seed: 11,
    from_s: 0,
    length_s: 43_200,
    rate_per_s: 1.0,
    anomaly_prob: 0.0,
};
const WINDOW_S: i64 = 30;
/// Windows of the past that the processor reads first.
const WINDOWS: i64 = 40;
/// The one of them with a line that nobody knows, and the last, whose end the clock decides.
const STRANGE: i64 = 35;
const LAST: i64 = WINDOWS - 1;
/// A line that steers terminals.
const NEW: &str = r"Kernel panic: root volume lost \u001b[31m at block 4711";
const OTHER: &str = "Certificate of the message bus has been revoked";
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Returns the directory of a model, trained at the first call.
fn model_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("evidence");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("training.jsonl"), events::text(&TRAINING.lines())).unwrap();
        run_well(&dir, ["train", "--input", "training.jsonl"]);
        dir.join("model")
    })
}

/// A database, topics, a group and a directory of one test's own.
struct World {
    brokers: String,
    database: TestDatabase,
    client: Client,
    dir: TempDir,
    /// First second of the first window.
    from_s: i64,
    started: usize,
}

impl World {
    /// Prepares it; `None` without services.
    async fn new() -> Option<Self> {
        let (brokers, database) = (kafka_brokers()?, fresh_database().await?);
        let client = database.client().await;
        let dir = tempfile::tempdir().unwrap();
        run_well(dir.path(), ["migrate", "--database-url", &database.url]);
        let now_s = Utc::now().timestamp();
        let world = Self {
            from_s: (now_s / WINDOW_S - WINDOWS - 1) * WINDOW_S,
            brokers,
            database,
            client,
            dir,
            started: 0,
        };
        for topic in ["in", "out", "dlq"] {
            broker::create_topic(&world.brokers, &world.own(topic), 1).await;
        }
        Some(world)
    }

    /// Returns a name on the broker that only this run of this test has.
    fn own(&self, kind: &str) -> String {
        format!("evidence-{}-{kind}", self.database.name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// First second of a window by its number.
    fn start_s(&self, window: i64) -> i64 {
        self.from_s + window * WINDOW_S
    }

    fn start(&self, window: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(self.start_s(window), 0).unwrap()
    }

    /// The number of the window that begins at an RFC 3339 time.
    fn window_at(&self, time: &Value) -> i64 {
        let time: DateTime<Utc> = time.as_str().unwrap().parse().unwrap();
        let since_s = time.timestamp() - self.from_s;
        assert_eq!(since_s % WINDOW_S, 0, "{time} is no start of a window");
        since_s / WINDOW_S
    }

    /// Writes windows `from..to` of usual lines; each strange one `(window, message)` comes late in
    /// its window and out of order.
    fn produce(&self, (from, to): (i64, i64), strange: &[(i64, &str)]) {
        let mut lines = Vec::new();
        for window in from..to {
            let usual = Stretch {
                seed: u64::try_from(window).unwrap(),
                from_s: self.start_s(window) - START_S,
                length_s: WINDOW_S,
                rate_per_s: 5.0,
                anomaly_prob: 0.0,
            };
            lines.extend(usual.lines());
            for (_, message) in strange.iter().filter(|(of, _)| *of == window) {
                let time = self.start(window) + chrono::Duration::milliseconds(29_400);
                let time = time.to_rfc3339_opts(SecondsFormat::Millis, true);
                lines.push(format!(
                    r#"{{"timestamp":"{time}","level":"ERROR","service":"order-service","message":"{message}"}}"#
                ));
            }
        }
        let file = self.path(&format!("{from}.jsonl"));
        fs::write(&file, events::text(&lines)).unwrap();
        broker::kcat(&self.brokers, &self.own("in"), 0, &file);
    }

    /// Starts a processor.
    fn processor(&mut self) -> Running {
        self.started += 1;
        let mut command = logguard(self.dir.path());
        command
            .arg("run")
            .args(["--kafka-brokers", &self.brokers])
            .args(["--input-topic", &self.own("in")])
            .args(["--output-topic", &self.own("out")])
            .args(["--dead-letter-topic", &self.own("dlq")])
            .args(["--consumer-group", &self.own("group")])
            .args(["--database-url", &self.database.url])
            .arg("--model-dir")
            .arg(model_dir())
            .args(["--http-listen", "127.0.0.1:0"])
            .env("LOGGUARD_KAFKA__SESSION_TIMEOUT_MS", "3000")
            .env("LOGGUARD_KAFKA__DRAIN_TIMEOUT_MS", "1500")
            .env("LOGGUARD_KAFKA__COMMIT_INTERVAL_MS", "100");
        Running::start(command, self.log())
    }

    fn log(&self) -> PathBuf {
        self.path(&format!("processor-{}.log", self.started))
    }

    /// Runs a command on the database; returns its exit code and what it printed.
    fn ask(&self, args: &[&str]) -> (i32, String) {
        let output = run(
            self.dir.path(),
            args.iter()
                .chain(&["--database-url", self.database.url.as_str()]),
        );
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8(output.stdout.clone()).unwrap();
        let code = output.status.code();
        let code = code.unwrap_or_else(|| panic!("{args:?}: {stdout}{stderr}"));
        assert!(code < 2 || stdout.is_empty(), "{args:?}: {stdout}{stderr}");
        (code, stdout)
    }

    fn ask_well(&self, args: &[&str]) -> String {
        let (code, stdout) = self.ask(args);
        assert_eq!(code, 0, "{args:?}: {stdout}");
        stdout
    }

    fn evidence(&self, alarm: &str) -> (i32, Value) {
        let args = [
            "evidence",
            alarm,
            "--json",
            "--kafka-brokers",
            &self.brokers,
        ];
        let (code, stdout) = self.ask(&args);
        (code, serde_json::from_str(&stdout).unwrap())
    }

    /// Waits for the alarm of a window.
    async fn alarm(&self, window: i64, provisional: bool, processor: &mut Running) -> String {
        let sql = "SELECT alarm_id FROM alarms WHERE window_start = $1 AND provisional = $2";
        let deadline = Instant::now() + PATIENCE;
        loop {
            let start = self.start(window);
            let row = self.client.query_opt(sql, &[&start, &provisional]).await;
            if let Some(row) = row.unwrap() {
                return row.get(0);
            }
            assert!(processor.exited().is_none(), "{}", processor.log_tail());
            let late = Instant::now() > deadline;
            assert!(!late, "no alarm of {start}: {}", processor.log_tail());
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Waits until the processor knows so many mutes.
    async fn mutes_known(&self, count: usize, processor: &mut Running) {
        let deadline = Instant::now() + PATIENCE;
        let expected = format!("\nlogguard_mutes {count}\n");
        while !self.metrics().is_some_and(|it| it.contains(&expected)) {
            assert!(processor.exited().is_none(), "{}", processor.log_tail());
            assert!(Instant::now() < deadline, "{:?}", self.metrics());
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    fn metrics(&self) -> Option<String> {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let line = log.lines().find(|line| line.contains("serving /metrics"))?;
        let address = line.split("address=").nth(1)?.trim();
        let output = std::process::Command::new("curl")
            .args(["-s", &format!("http://{address}/metrics")])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).ok()
    }

    /// Which windows are anomalies, and which are muted, in the table.
    async fn judged(&self, since: i64) -> (Vec<i64>, Vec<i64>) {
        let sql = "SELECT window_start, is_anomaly = 1, muted FROM anomaly_results
                   WHERE window_start >= $1 ORDER BY window_start";
        let rows = self.client.query(sql, &[&self.start(since)]).await.unwrap();
        let of = |column: usize| {
            let chosen = rows.iter().filter(|row| row.get(column));
            chosen
                .map(|row| {
                    let start: DateTime<Utc> = row.get(0);
                    (start.timestamp() - self.from_s) / WINDOW_S
                })
                .collect::<Vec<_>>()
        };
        (of(1), of(2))
    }

    /// Which windows are anomalies for `replay`, with the mutes of the database or without.
    fn replayed(&self, with_mutes: bool, since: i64) -> Vec<i64> {
        let results = self.path("replay.jsonl");
        let topic = self.own("in");
        let mut args = vec!["replay", "--from-kafka", "--input-topic", &topic];
        args.extend(["--kafka-brokers", &self.brokers]);
        args.extend(["--model-dir", model_dir().to_str().unwrap()]);
        args.extend(["--results", results.to_str().unwrap()]);
        if with_mutes {
            args.extend(["--database-url", &self.database.url]);
        }
        run_well(self.dir.path(), &args);
        let text = fs::read_to_string(&results).unwrap();
        let messages = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let anomalies = messages.filter(|message: &Value| message["is_anomaly"] == 1);
        anomalies
            .map(|message| self.window_at(&message["window_start"]))
            .filter(|window| *window >= since)
            .collect()
    }

    async fn change(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_alarm_is_proved_from_its_records_or_it_is_said_what_is_missing() {
    let Some(mut world) = World::new().await else {
        return;
    };
    world.produce((0, WINDOWS), &[(STRANGE, NEW), (LAST, OTHER)]);
    let mut processor = world.processor();
    let alarm = world.alarm(STRANGE, false, &mut processor).await;
    let open = world.alarm(LAST, true, &mut processor).await;
    processor.terminate();
    processor.ends_well(PATIENCE).await;

    let (code, report) = world.evidence(&alarm);
    assert_eq!(
        (code, &report["outcome"]),
        (0, &"proved".into()),
        "{report}"
    );
    assert_eq!(report["by_the_clock"], false);
    assert_eq!(report["line_count"], report["alarm"]["log_count"]);
    assert!(report["comparison"]["identical"].as_u64().unwrap() > 40);

    // What the clock decided says so, and is proved all the same.
    let (code, report) = world.evidence(&open);
    assert_eq!(
        (code, &report["by_the_clock"]),
        (0, &true.into()),
        "{report}"
    );

    // For a person: bounded, and nothing steers the terminal.
    let args = ["--kafka-brokers", &world.brokers, "--by", "ann", "--lines"];
    let text = world.ask_well(&[&["evidence", &alarm], &args[..], &["1000"]].concat());
    let line = text.lines().find(|line| line.contains("Kernel panic"));
    assert!(
        text.contains(r"root volume lost \u{1b}[31m at block 4711"),
        "{line:?}"
    );
    assert!(!text.contains('\u{1b}'));
    let short = world.ask_well(&[&["evidence", &alarm], &args[..], &["2"]].concat());
    assert!(
        short.contains("  and ") && short.lines().count() < 16,
        "{short}"
    );
    let sql = "SELECT count(*) FROM alarm_actions WHERE alarm_id = $1 AND action = 'evidence'
               AND actor = 'ann' AND at <= now()";
    let actions = world.client.query_one(sql, &[&alarm]).await.unwrap();
    assert_eq!(actions.get::<_, i64>(0), 2);

    tampering(&world, &alarm).await;

    // Retention took the first records of the window.
    let first = report_offset(&world, &alarm).await;
    delete_records(&world.brokers, &world.own("in"), first + 3).await;
    let (code, report) = world.evidence(&alarm);
    assert_eq!((code, &report["outcome"]), (1, &"cannot-be-proved".into()));
    let missing = report["missing"][0].as_str().unwrap();
    assert!(
        missing.contains(&format!("offsets {first} to {}", first + 2)),
        "{missing}"
    );
    assert!(
        report["lines"]
            .as_array()
            .is_some_and(|lines| !lines.is_empty())
    );

    let unknown = [
        "evidence",
        "0000000000000000",
        "--kafka-brokers",
        &world.brokers,
    ];
    assert_eq!(world.ask(&unknown).0, 3);
    let away = ["evidence", &alarm, "--kafka-brokers", "127.0.0.1:1"];
    assert_eq!(world.ask(&away).0, 4);
}

async fn report_offset(world: &World, alarm: &str) -> i64 {
    let sql = "SELECT first_offset FROM alarms WHERE alarm_id = $1";
    world.client.query_one(sql, &[&alarm]).await.unwrap().get(0)
}

/// Whatever is changed or taken away in the database shows.
#[allow(clippy::too_many_lines, reason = "one scene, told in order")]
async fn tampering(world: &World, alarm: &str) {
    let window = format!(
        "WHERE window_start = '{}'",
        world.start(STRANGE).to_rfc3339()
    );
    let before = format!(
        "WHERE window_start = '{}'",
        world.start(STRANGE - 1).to_rfc3339()
    );
    for (change, outcome, told) in [
        (
            format!("UPDATE anomaly_results SET severity = severity + 1e-9 {window}"),
            "differs",
            "anomaly_results.severity",
        ),
        (
            format!("UPDATE alarms SET log_count = log_count + 1 {window}"),
            "cannot-be-proved",
            "lines that were counted",
        ),
        (
            format!(
                "UPDATE window_features SET features = jsonb_set(features, '{{warn_count}}', '99')
                 {window}"
            ),
            "differs",
            "window_features.warn_count",
        ),
        (
            format!(
                "UPDATE anomaly_results SET state = jsonb_set(state, '{{baseline,mean}}', '9') {before}"
            ),
            "differs",
            "alarms.severity",
        ),
        (
            format!("DELETE FROM anomaly_results {before}"),
            "cannot-be-proved",
            "whose state",
        ),
        (
            format!("DELETE FROM anomaly_results {window}"),
            "cannot-be-proved",
            "anomaly_results",
        ),
        (
            "DELETE FROM models".to_owned(),
            "cannot-be-proved",
            "the model",
        ),
    ] {
        let keep = "BEGIN; CREATE TABLE a AS TABLE anomaly_results; CREATE TABLE f AS TABLE
            window_features; CREATE TABLE m AS TABLE models; CREATE TABLE l AS SELECT alarm_id,
            log_count FROM alarms; COMMIT";
        world.change(keep).await;
        world.change(&change).await;
        let (code, report) = world.evidence(alarm);
        let text = report.to_string();
        assert_eq!(
            (code, &report["outcome"]),
            (1, &outcome.into()),
            "{change}: {text}"
        );
        let reasons = format!(
            "{}{}",
            report["missing"], report["comparison"]["differences"]
        );
        assert!(reasons.contains(told), "{change}: {reasons}");
        let restore = "BEGIN; DELETE FROM anomaly_results; INSERT INTO anomaly_results TABLE a;
            DELETE FROM window_features; INSERT INTO window_features TABLE f; DELETE FROM models;
            INSERT INTO models TABLE m; UPDATE alarms SET log_count = l.log_count FROM l
            WHERE l.alarm_id = alarms.alarm_id; DROP TABLE a, f, m, l; COMMIT";
        world.change(restore).await;
    }
    let (code, report) = world.evidence(alarm);
    assert_eq!(code, 0, "{report}");
}

async fn delete_records(brokers: &str, topic: &str, before: i64) {
    use rdkafka::{
        ClientConfig, Offset, TopicPartitionList,
        admin::{AdminClient, AdminOptions},
        client::DefaultClientContext,
    };
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset(topic, 0, Offset::Offset(before))
        .unwrap();
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let deleted = admin.delete_records(&offsets, &options).await.unwrap();
    assert!(deleted.elements()[0].error().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[allow(clippy::too_many_lines, reason = "one scene, told in order")]
async fn a_false_alarm_mutes_its_pattern_in_its_stream_for_a_while() {
    let Some(mut world) = World::new().await else {
        return;
    };
    world.produce((0, WINDOWS), &[(STRANGE, NEW)]);
    let mut processor = world.processor();
    let alarm = world.alarm(STRANGE, false, &mut processor).await;

    let said = [
        "feedback",
        &alarm,
        "--false-alarm",
        "--expires",
        "60s",
        "--by",
        "ann",
        "--json",
    ];
    let said: Value = serde_json::from_str(&world.ask_well(&said)).unwrap();
    let mute = &said["mutes"][0];
    assert_eq!(said["mutes"].as_array().unwrap().len(), 1, "{said}");
    assert_eq!(
        (&mute["kind"], &mute["created_by"]),
        (&"template".into(), &"ann".into())
    );
    let listed = world.ask_well(&["mutes"]);
    assert!(
        listed.contains("Kernel panic") && !listed.contains('\u{1b}'),
        "{listed}"
    );
    // Said again, it is muted already.
    let again = [
        "feedback",
        &alarm,
        "--false-alarm",
        "--expires",
        "1s",
        "--json",
    ];
    let again: Value = serde_json::from_str(&world.ask_well(&again)).unwrap();
    let later = again["mutes"].as_array().unwrap();
    assert!(
        later.is_empty() || later[0]["active_from"] != mute["active_from"],
        "{again}"
    );

    let from = world.window_at(&mute["active_from"]);
    world.mutes_known(1 + later.len(), &mut processor).await;
    // The same in the first window it holds for; with something else; and when it has expired.
    let strange = [
        (from, NEW),
        (from + 1, NEW),
        (from + 1, OTHER),
        (from + 3, NEW),
    ];
    world.produce((WINDOWS, from + 6), &strange);
    let other = world.alarm(from + 1, false, &mut processor).await;
    world.alarm(from + 3, false, &mut processor).await;
    processor.terminate();
    processor.ends_well(PATIENCE).await;

    let (alarms, muted) = world.judged(WINDOWS).await;
    assert_eq!((alarms, muted), (vec![from + 1, from + 3], vec![from]));
    let sql = "SELECT explanation -> 'reasons' ->> -1 FROM anomaly_results WHERE window_start = $1";
    let reason = world
        .client
        .query_one(sql, &[&world.start(from)])
        .await
        .unwrap();
    let reason: String = reason.get(0);
    assert!(
        reason.starts_with("muted (") && reason.contains("Kernel panic"),
        "{reason}"
    );

    // What was judged with mutes is proved with mutes.
    let (code, report) = world.evidence(&other);
    assert_eq!(code, 0, "{report}");
    let about = report["alarm"]["explanation"]["pattern"].to_string();
    assert!(
        about.contains("Certificate") && !about.contains("Kernel"),
        "{about}"
    );

    assert_eq!(world.replayed(true, WINDOWS), [from + 1, from + 3]);
    assert_eq!(world.replayed(false, WINDOWS), [from, from + 1, from + 3]);

    training(&world, &alarm, &other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[allow(clippy::too_many_lines, reason = "one scene, told in order")]
async fn a_template_is_adopted_and_forgotten_by_hand() {
    let Some(mut world) = World::new().await else {
        return;
    };
    world.produce((0, WINDOWS), &[(STRANGE, NEW)]);
    let mut processor = world.processor();
    world.alarm(STRANGE, false, &mut processor).await;
    let stream = format!("{}/0", world.own("in"));
    let list = |world: &World| -> Vec<Value> {
        let text = world.ask_well(&["model", "templates", "--stream", &stream, "--json"]);
        text.lines()
            .map(|it| serde_json::from_str(it).unwrap())
            .collect()
    };
    let mut listed = list(&world);
    listed.retain(|it| it["text"].as_str().unwrap().contains("Kernel panic"));
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(
        (&listed[0]["adopted"], &listed[0]["windows"]),
        (&Value::Null, &1.into())
    );
    let id = listed[0]["template"].as_str().unwrap().to_owned();
    let decide = |world: &World, flag: &str| -> Value {
        let args = ["model", "templates", flag, &id, "--stream", &stream];
        let args = [&args[..], &["--by", "ann", "--json"]].concat();
        serde_json::from_str(&world.ask_well(&args)).unwrap()
    };
    let adopted = decide(&world, "--adopt");
    assert_eq!(
        (&adopted["decision"], &adopted["created_by"]),
        (&"adopt".into(), &"ann".into())
    );
    assert_eq!(adopted["takes_effect"], true, "{adopted}");
    let begun: DateTime<Utc> = adopted["active_from"].as_str().unwrap().parse().unwrap();
    let made: DateTime<Utc> = adopted["created_at"].as_str().unwrap().parse().unwrap();
    assert!(begun - made >= chrono::Duration::seconds(25), "{adopted}");
    let from = world.window_at(&adopted["active_from"]);
    world.mutes_known(1, &mut processor).await;
    let strange = [(from, NEW), (from + 1, NEW), (from + 1, OTHER)];
    world.produce((WINDOWS, from + 4), &strange);
    let other = world.alarm(from + 1, false, &mut processor).await;
    processor.terminate();
    processor.ends_well(PATIENCE).await;
    let (alarms, _) = world.judged(WINDOWS).await;
    assert_eq!(alarms, [from + 1], "only what was not adopted alarms");
    let (code, report) = world.evidence(&other);
    assert_eq!(code, 0, "{report}");
    assert_eq!(world.replayed(true, WINDOWS), [from + 1]);
    assert_eq!(world.replayed(false, WINDOWS), [from, from + 1]);
    let known = list(&world);
    let known = known.iter().find(|it| it["template"] == *id).unwrap();
    assert!(known["adopted"].is_number(), "{known}");
    assert_eq!(known["decision"]["created_by"], "ann");

    // What is forgotten before its adoption has begun was never adopted.
    while Utc::now() < begun {
        tokio::time::sleep(POLL_EVERY).await;
    }
    let forgotten = decide(&world, "--forget");
    let until = world.window_at(&forgotten["active_from"]).max(from + 4);
    world.produce((from + 4, until + 4), &[(until, NEW)]);
    assert_eq!(world.replayed(true, WINDOWS), [from + 1, until]);
    for unknown in ["0123456789abcdef", "short"] {
        let args = [
            "model",
            "templates",
            "--adopt",
            unknown,
            "--stream",
            &stream,
        ];
        assert_eq!(world.ask(&args).0, 3, "{unknown}");
    }
    let args = ["model", "templates", "--stream", "nowhere/0"];
    assert_eq!(world.ask(&args).0, 3);
    learnt(&world, &stream);
}

/// What training learnt stays known, and whoever decides otherwise is told so.
fn learnt(world: &World, stream: &str) {
    let model = model_dir().to_str().unwrap();
    let listed = world.ask_well(&["model", "templates", model, "--json"]);
    let most: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    let id = most["id"].as_str().unwrap();
    for flag in ["--adopt", "--forget"] {
        let args = ["model", "templates", flag, id, "--stream", stream];
        let made = world.ask_well(&[&args[..], &["--json"]].concat());
        let made: Value = serde_json::from_str(&made).unwrap();
        assert_eq!(made["takes_effect"], false, "{made}");
        let text = world.ask_well(&args);
        assert!(text.contains("changes nothing while that model"), "{text}");
    }
}

#[tokio::test]
async fn more_mutes_and_decisions_than_are_read_are_told_of() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    run_well(dir.path(), ["migrate", "--database-url", &database.url]);
    let client = database.client().await;
    let warned = |command: &[&str]| {
        let output = run(
            dir.path(),
            [command, &["--database-url", database.url.as_str()]].concat(),
        );
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let told = stderr.matches("the oldest do not hold").count();
        assert!(told == 0 || stderr.contains("found=10001"), "{stderr}");
        told
    };
    for (further, times) in [(10_000, 0), (1, 1)] {
        let insert = format!(
            "INSERT INTO mutes (stream, kind, alarm_id, active_from, expires_at, created_by)
             SELECT 't/0', 'volume', 'a', now(), now() + interval '1 day', 'ann'
             FROM generate_series(1, {further});
             INSERT INTO template_decisions (stream, template, decision, active_from, created_by)
             SELECT 't/0', lpad(to_hex(n), 16, '0'), 'adopt', now(), 'ann'
             FROM generate_series(1, {further}) AS n"
        );
        client.batch_execute(&insert).await.unwrap();
        assert_eq!(warned(&["mutes"]), times);
        assert_eq!(warned(&["model", "templates"]), times);
    }
}

/// Feedback counts in the next training.
async fn training(world: &World, false_alarm: &str, real: &str) {
    world.ask_well(&["feedback", real, "--real", "--note", "it was"]);
    let sql = "SELECT feedback, feedback_by IS NOT NULL, feedback_note FROM alarms
               WHERE alarm_id = ANY($1) ORDER BY window_start";
    let both = vec![false_alarm, real];
    let rows = world.client.query(sql, &[&both]).await.unwrap();
    assert_eq!(rows[0].get::<_, &str>(0), "false-alarm");
    assert_eq!(
        (rows[1].get::<_, &str>(0), rows[1].get::<_, &str>(2)),
        ("real", "it was")
    );
    let lines: Vec<_> = broker::read_topic(&world.brokers, &world.own("in"));
    let lines: Vec<String> = lines.into_iter().map(|(_, payload)| payload).collect();
    fs::write(world.path("live.jsonl"), events::text(&lines)).unwrap();
    let topic = format!("[kafka]\ninput_topic = \"{}\"\n", world.own("in"));
    fs::write(world.path("logguard.toml"), topic).unwrap();
    let report = world.ask_well(&["train", "--input", "live.jsonl", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let used = &report["feedback"];
    assert_eq!(
        (&used["false_alarms"], &used["real"]),
        (&1.into(), &1.into()),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_mute_is_lifted_by_hand_or_by_a_second_thought() {
    let Some(mut world) = World::new().await else {
        return;
    };
    world.produce((0, WINDOWS), &[(STRANGE, NEW)]);
    let mut processor = world.processor();
    let alarm = world.alarm(STRANGE, false, &mut processor).await;
    processor.terminate();
    processor.ends_well(PATIENCE).await;
    for by_hand in [true, false] {
        let said = ["feedback", &alarm, "--false-alarm", "--json"];
        let said: Value = serde_json::from_str(&world.ask_well(&said)).unwrap();
        let mute = &said["mutes"][0];
        let (id, from) = (mute["mute_id"].to_string(), &mute["active_from"]);
        let week: DateTime<Utc> = mute["expires_at"].as_str().unwrap().parse().unwrap();
        let begun: DateTime<Utc> = from.as_str().unwrap().parse().unwrap();
        assert_eq!(week - begun, chrono::Duration::days(7));
        if by_hand {
            world.ask_well(&["mutes", "--lift", &id, "--by", "bob"]);
            assert_eq!(world.ask(&["mutes", "--lift", "999"]).0, 3);
        } else {
            world.ask_well(&["feedback", &alarm, "--real", "--by", "bob"]);
        }
        let all = world.ask_well(&["mutes", "--all", "--json"]);
        let lifted: Vec<Value> = all
            .lines()
            .map(|it| serde_json::from_str(it).unwrap())
            .collect();
        let lifted = lifted
            .iter()
            .find(|it| it["mute_id"].as_i64() == id.parse().ok())
            .unwrap();
        assert_eq!(lifted["lifted_by"], "bob");
        let ends: DateTime<Utc> = lifted["expires_at"].as_str().unwrap().parse().unwrap();
        assert!(
            ends <= Utc::now() + chrono::Duration::minutes(2),
            "{lifted}"
        );
    }
    // Both are over by then, and the pattern alarms again.
    let sql = "SELECT extract(epoch FROM max(expires_at))::float8 FROM mutes";
    let ends_s: f64 = world.client.query_one(sql, &[]).await.unwrap().get(0);
    #[allow(clippy::cast_possible_truncation, reason = "seconds since the epoch")]
    let over = (ends_s as i64 - world.from_s) / WINDOW_S + 1;
    world.produce((WINDOWS, over + 3), &[(over, NEW)]);
    assert_eq!(world.replayed(true, WINDOWS), [over]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[allow(clippy::too_many_lines, reason = "one scene, told in order")]
async fn followers_see_the_alarms_of_all_writers_once_each() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    run_well(dir.path(), ["migrate", "--database-url", &database.url]);
    let (slow, quick) = (database.client().await, database.client().await);
    let insert = |number: i64, stream: &str| {
        format!(
            "INSERT INTO alarms (alarm_id, window_start, window_end, stream, topic, partition,
               provisional, stale, anomaly_score, severity, threshold, log_count, error_count,
               critical_count, reasons, samples, explanation, lateness_ms, model_checksum)
             VALUES (lpad('{number}', 16, '0'), now() + {number} * interval '30 s',
               now() + {number} * interval '30 s' + interval '30 s', '{stream}', 't', 0, false,
               false, 0.9, 5, 0.001, 10, 1, 1, '{{why}}', '{{}}', '{{}}', 2000, 'c')"
        )
    };
    quick.batch_execute(&insert(1, "t/0")).await.unwrap();
    let mut command = logguard(dir.path());
    command.args(["alarms", "-f", "--json", "--database-url", &database.url]);
    let out = dir.path().join("followed.jsonl");
    let mut follower = Running::start(command, out.clone());
    let seen = || -> Vec<i64> {
        let text = fs::read_to_string(&out).unwrap_or_default();
        let alarms = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let id = |alarm: Value| alarm["alarm_id"].as_str().unwrap().parse().unwrap();
        alarms.map(id).collect()
    };
    wait_for(&mut follower, || seen() == [1]).await;
    // The slow writer takes its number first and commits last.
    slow.batch_execute("BEGIN").await.unwrap();
    slow.batch_execute(&insert(2, "t/0")).await.unwrap();
    quick.batch_execute(&insert(3, "t/1")).await.unwrap();
    wait_for(&mut follower, || seen() == [1, 3]).await;
    slow.batch_execute("COMMIT").await.unwrap();
    wait_for(&mut follower, || seen() == [1, 3, 2]).await;
    quick.batch_execute(&insert(4, "t/0")).await.unwrap();
    wait_for(&mut follower, || seen().contains(&4)).await;
    assert_eq!(seen(), [1, 3, 2, 4], "each once");
    follower.terminate();
    follower.ends_well(PATIENCE).await;

    let list = |args: &[&str]| {
        let args = ["alarms", "--database-url", &database.url]
            .into_iter()
            .chain(args.iter().copied());
        run_well(dir.path(), args)
    };
    assert_eq!(list(&[]).lines().count(), 4);
    assert_eq!(list(&["--stream", "t/1"]).lines().count(), 1);
    assert_eq!(list(&["--since", "2999-01-01T00:00:00Z"]), "");
    let id = "0000000000000001";
    run_well(
        dir.path(),
        [
            "acknowledge",
            id,
            "--by",
            "ann",
            "--database-url",
            &database.url,
        ],
    );
    run_well(
        dir.path(),
        [
            "acknowledge",
            id,
            "--by",
            "bob",
            "--database-url",
            &database.url,
        ],
    );
    let sql = "SELECT acknowledged_by FROM alarms WHERE acknowledged_at IS NOT NULL";
    assert_eq!(
        quick.query_one(sql, &[]).await.unwrap().get::<_, &str>(0),
        "ann"
    );
    let sql = "SELECT string_agg(actor, ' ' ORDER BY at) FROM alarm_actions";
    assert_eq!(
        quick.query_one(sql, &[]).await.unwrap().get::<_, &str>(0),
        "ann bob"
    );
}

async fn wait_for(follower: &mut Running, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(follower.exited().is_none(), "{}", follower.log_tail());
        assert!(Instant::now() < deadline, "{}", follower.log_tail());
        tokio::time::sleep(POLL_EVERY).await;
    }
}

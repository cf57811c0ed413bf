//! `producer-sim broker` and `producer-sim run` against it, as separate processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::HashSet,
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
};
use serde_json::Value;

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn simulator() -> Command {
    Command::new(env!("CARGO_BIN_EXE_producer-sim"))
}

/// A broker process; killed when dropped, unless it was stopped.
struct Broker {
    child: Child,
    // Kept open: a broker that printed into a closed pipe would not be a fair test.
    _stdout: BufReader<ChildStdout>,
    ready: String,
    address: String,
}

impl Broker {
    fn start(args: &[&str]) -> Self {
        let mut child = simulator()
            .args(["broker", "--listen", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        let address = ready
            .split_whitespace()
            .find(|word| word.starts_with("127.0.0.1:"));
        Self {
            child,
            _stdout: stdout,
            address: address.unwrap().to_owned(),
            ready,
        }
    }

    fn consumer(&self, group: &str, topic: &str) -> BaseConsumer {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("session.timeout.ms", "2000")
            .set("heartbeat.interval.ms", "300")
            .create()
            .unwrap();
        consumer.subscribe(&[topic]).unwrap();
        consumer
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn terminate(child: &Child) {
    let status = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

/// A consumed record.
#[derive(Debug)]
struct Record {
    partition: i32,
    key: Option<Vec<u8>>,
    /// When the client took it, by Kafka's record timestamp.
    sent_ms: i64,
    event: Value,
}

fn time_ms(event: &Value) -> i64 {
    let timestamp = event["timestamp"].as_str().unwrap();
    chrono::DateTime::parse_from_rfc3339(timestamp)
        .unwrap()
        .timestamp_millis()
}

fn consume(consumer: &BaseConsumer, count: usize) -> Vec<Record> {
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while records.len() < count {
        assert!(
            Instant::now() < deadline,
            "only {} of {count} arrived",
            records.len()
        );
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message.unwrap();
            records.push(Record {
                partition: message.partition(),
                key: message.key().map(<[u8]>::to_vec),
                sent_ms: message.timestamp().to_millis().unwrap(),
                event: serde_json::from_slice(message.payload().unwrap()).unwrap(),
            });
        }
    }
    records
}

fn produce(broker: &Broker, flags: &str) -> Output {
    simulator()
        .env_remove("KAFKA_BROKERS")
        .args(flags.split_whitespace())
        .args(["--kafka-brokers", &broker.address])
        .output()
        .unwrap()
}

#[test]
fn what_is_produced_arrives_once_and_is_committed() {
    let broker = Broker::start(&[]);
    assert!(broker.ready.contains("log-events:4"), "{}", broker.ready);
    assert!(
        broker.ready.contains("nothing is kept on disk"),
        "{}",
        broker.ready
    );
    let output = produce(
        &broker,
        "--rate 5000 --events 2000 --anomaly-prob 0 --seed 1",
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "{stderr}"
    );
    assert!(
        stderr.contains("delivered=2000") && stderr.contains("failed=0"),
        "{stderr}"
    );

    let consumer = broker.consumer("readers", "log-events");
    let records = consume(&consumer, 2_000);
    let partitions: HashSet<i32> = records.iter().map(|record| record.partition).collect();
    assert!(partitions.len() > 1, "all in one partition");
    let mut newest_ms = 0;
    for record in &records {
        assert!(
            record.key.is_none() && record.event["is_anomaly"] == 0,
            "{record:?}"
        );
        let age_ms = record.sent_ms - time_ms(&record.event);
        assert!(
            (0..1_500).contains(&age_ms),
            "{age_ms} ms before it was sent: {record:?}"
        );
        newest_ms = newest_ms.max(time_ms(&record.event));
    }
    consumer.commit_consumer_state(CommitMode::Sync).unwrap();
    drop(consumer);
    // The group goes on where it was: of 10 more, it reads 10.
    assert!(produce(&broker, "--rate 100 --events 10").status.success());
    assert_eq!(
        consume(&broker.consumer("readers", "log-events"), 10).len(),
        10
    );
}

#[test]
fn keys_truth_and_own_topics() {
    let broker = Broker::start(&["--topic", "mine:3"]);
    let dir = tempfile::tempdir().unwrap();
    let truth = dir.path().join("truth.jsonl");
    let output = produce(
        &broker,
        &format!(
            "run --topic mine --key service --rate 2000 --events 3000 --anomaly-prob 0 \
             --first-incident-after 100ms --truth {}",
            truth.display()
        ),
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let records = consume(&broker.consumer("readers", "mine"), 3_000);
    let mut homes = HashSet::new();
    for Record {
        partition,
        key,
        event,
        ..
    } in &records
    {
        let service = event["service"].as_str().unwrap();
        assert_eq!(key.as_deref(), Some(service.as_bytes()));
        homes.insert((service, *partition));
    }
    assert_eq!(homes.len(), 7, "a service is in two partitions: {homes:?}");
    let truth: Value = serde_json::from_slice(&fs::read(truth).unwrap()).unwrap();
    let labelled = records
        .iter()
        .filter(|record| record.event["is_anomaly"] == 1)
        .count() as u64;
    assert!(
        labelled > 0 && truth["lines"] == labelled,
        "{labelled} {truth}"
    );
}

#[test]
fn a_signal_stops_the_producer_after_its_last_acknowledgement() {
    let broker = Broker::start(&[]);
    let child = simulator()
        .args(["--rate", "1000", "--kafka-brokers", &broker.address])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let consumer = broker.consumer("readers", "log-events");
    let before = consume(&consumer, 100).len();
    terminate(&child);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let sent: usize = stderr
        .split_once("delivered=")
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
        .unwrap();
    assert_eq!(before + consume(&consumer, sent - before).len(), sent);
    assert!(
        stderr.contains(&format!("sent={sent}")) && stderr.contains("failed=0"),
        "{stderr}"
    );
}

#[test]
fn a_signal_stops_the_broker_and_frees_the_address() {
    let mut broker = Broker::start(&[]);
    terminate(&broker.child);
    assert!(broker.child.wait().unwrap().success());
    let mut again = simulator()
        .args(["broker", "--listen", &broker.address])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(again.stdout.take().unwrap())
        .read_line(&mut ready)
        .unwrap();
    assert!(ready.contains(&broker.address), "{ready}");
    terminate(&again);
    assert!(again.wait().unwrap().success());
}

#[test]
fn what_is_missing_is_one_clear_line() {
    let broker = Broker::start(&[]);
    let missing = produce(&broker, "--topic absent --events 1");
    let taken = simulator()
        .args(["broker", "--listen", &broker.address])
        .output()
        .unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = simulator()
        .args(["--kafka-brokers", &free.to_string()])
        .output()
        .unwrap();
    for (output, expected) in [
        (missing, "topic `absent` does not exist".to_owned()),
        (taken, format!("cannot listen on {}", broker.address)),
        (nobody, format!("cannot reach Kafka at {free}")),
    ] {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{stderr}");
        assert!(
            stderr.contains(&expected) && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
}

#[test]
fn events_that_are_not_acknowledged_are_counted_and_told() {
    let mut broker = Broker::start(&[]);
    let child = simulator()
        .args([
            "--rate",
            "200",
            "--duration",
            "3s",
            "--kafka-brokers",
            &broker.address,
        ])
        .args(["--kafka", "message.timeout.ms=1500"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    consume(&broker.consumer("readers", "log-events"), 10);
    broker.child.kill().unwrap();
    broker.child.wait().unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(
        stderr.contains("were not acknowledged by Kafka"),
        "{stderr}"
    );
}

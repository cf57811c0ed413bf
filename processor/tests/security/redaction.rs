//! Secrets planted in log lines of every kind and fate (normal, anomalous, rejected, late, in
//! training) are found in no place that anything is written to.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::{
    TRAINING, broker,
    common::{TestDatabase, fresh_database, kafka_brokers},
    events::{self, START_S, Stretch},
    program::{Running, logguard, run_well},
    secrets::scrape,
};

/// Far longer than anything takes here; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(90);
/// Normal lines around what is planted: ten minutes after the training.
const LIVE: Stretch = Stretch {
    seed: 33,
    from_s: TRAINING.length_s,
    length_s: 600,
    rate_per_s: 1.0,
    anomaly_prob: 0.0,
};
/// Second of the live stretch at which the burst of errors begins, in the midst of a window.
const BURST_S: i64 = 305;

/// What a line says, and the part of it that nobody may see.
const PLANTED: [(&str, &str); 18] = [
    ("login failed password=hunter2Xq for ann", "hunter2Xq"),
    (
        r#"body {"user":"ann","password":"tr0ub 4dor"} refused"#,
        "tr0ub 4dor",
    ),
    ("at /login/passwd=c0rrectH0rse now", "c0rrectH0rse"),
    (
        "connect postgres://app:b4tteryStaple@db.example.net/shop failed",
        "b4tteryStaple",
    ),
    ("api_key=zq81mmKpW0 rejected", "zq81mmKpW0"),
    ("access token: 7f3a9c0d11e2 expired", "7f3a9c0d11e2"),
    (
        "Authorization: Bearer q1w2e3r4t5y6u7 denied",
        "q1w2e3r4t5y6u7",
    ),
    ("Set-Cookie: sid=n0mn0mn0m; Path=/", "n0mn0mn0m"),
    (
        "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.dGhlc2lnbmF0dXJl bad",
        "eyJzdWIiOiI0MiJ9",
    ),
    ("key AKIAQ5EXAMPLEKEY7ZZZ leaked", "AKIAQ5EXAMPLEKEY7ZZZ"),
    (
        "git ghp_0a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r push",
        "ghp_0a1b2c3d4e5f",
    ),
    ("slack xoxb-210987654321-zyxwvuts bot", "zyxwvuts"),
    (
        "pem -----BEGIN PRIVATE KEY-----\nMIIEvQzzTop\n-----END PRIVATE KEY----- loaded",
        "MIIEvQzzTop",
    ),
    (
        "mail to margaret.hamilton@apollo.example bounced",
        "margaret.hamilton",
    ),
    ("card 4111 1111 1111 1111 declined", "1111 1111"),
    ("card 5500000000000004 declined", "5500000000000004"),
    (
        "paid from GB29NWBK60161331926819 today",
        "NWBK60161331926819",
    ),
    ("ssn 536-22-1234 on file", "536-22-1234"),
];

/// A line of the service `checkout`.
fn line(second: i64, level: &str, message: &str) -> String {
    let time = chrono::DateTime::from_timestamp(START_S + second, 0).unwrap();
    json!({
        "timestamp": time.to_rfc3339(),
        "level": level,
        "service": "checkout",
        "message": message,
    })
    .to_string()
}

/// Normal lines, each planted message among them as it is, and a burst of them as errors.
fn live_records() -> Vec<Vec<u8>> {
    let start = LIVE.from_s;
    let mut records: Vec<(i64, Vec<u8>)> = Vec::new();
    for (place, text) in LIVE.lines().into_iter().enumerate() {
        let event: Value = serde_json::from_str(&text).unwrap();
        let time = event["timestamp"].as_str().unwrap();
        let time = chrono::DateTime::parse_from_rfc3339(time).unwrap();
        assert!(place < 10_000);
        records.push((time.timestamp() - START_S, text.into_bytes()));
    }
    for (place, (message, _)) in (0..).zip(PLANTED) {
        let normal = start + 10 + 10 * place;
        records.push((normal, line(normal, "INFO", message).into_bytes()));
        let burst = start + BURST_S + place;
        for _ in 0..5 {
            records.push((burst, line(burst, "ERROR", message).into_bytes()));
        }
        // In the middle of what came so far, three minutes before the last of it.
        records.push((
            start + 590,
            line(start + 5 + place, "ERROR", message).into_bytes(),
        ));
        for payload in rejected(message) {
            records.push((normal, payload));
        }
    }
    records.sort_by_key(|(second, _)| *second);
    records.into_iter().map(|(_, payload)| payload).collect()
}

/// The message in records that are no events: plain text, JSON cut short, JSON with escapes and a
/// wrong time, JSON in JSON, bytes that are no text.
fn rejected(message: &str) -> [Vec<u8>; 5] {
    let event = json!({"message": message, "timestamp": "soon"}).to_string();
    let escaped: String = event
        .chars()
        .map(|char| match char {
            '@' | 'w' | '=' => format!("\\u{:04x}", u32::from(char)),
            _ => char.to_string(),
        })
        .collect();
    let nested = json!({"timestamp": "soon", "message": json!({"log": message}).to_string()});
    [
        message.as_bytes().to_vec(),
        event.as_bytes()[..event.len() - 24].to_vec(),
        escaped.into_bytes(),
        nested.to_string().into_bytes(),
        [b"\xff\xfe ", message.as_bytes(), b" \xc3"].concat(),
    ]
}

fn produce(brokers: &str, topic: &str, records: &[Vec<u8>]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .create()
        .unwrap();
    for record in records {
        let record = BaseRecord::<(), Vec<u8>>::to(topic)
            .partition(0)
            .payload(record);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// Everything that the program wrote, by place.
type Sinks = BTreeMap<String, String>;

fn check_masked(sinks: &Sinks) {
    for (place, text) in sinks {
        for (message, secret) in PLANTED {
            let at = text
                .find(secret)
                .map(|at| &text.as_bytes()[at.saturating_sub(80)..]);
            let around = at.map(|from| String::from_utf8_lossy(&from[..from.len().min(200)]));
            assert!(
                around.is_none(),
                "{place} holds `{secret}` of `{message}`: {around:?}"
            );
        }
    }
}

/// Trains with secrets among the lines; returns the bundle's text.
fn train(dir: &TempDir, model: &str, redaction: &str) -> String {
    let mut lines = TRAINING.lines();
    for (place, (message, _)) in (0..).zip(PLANTED) {
        for time in 0..6_usize {
            let second = i64::try_from(600 * (time + 1)).unwrap() + place;
            let at = lines.partition_point(|it| it.as_str() < line(second, "INFO", "").as_str());
            lines.insert(at.min(lines.len()), line(second, "INFO", message));
        }
    }
    fs::write(dir.path().join("training.jsonl"), events::text(&lines)).unwrap();
    let mut command = logguard(dir.path());
    command.args(["train", "--input", "training.jsonl", "--model-dir", model]);
    command.env("LOGGUARD_REDACTION__ENABLED", redaction);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::read_to_string(dir.path().join(model).join("model.json")).unwrap()
}

/// Returns every row of every table, each column as text.
async fn rows(client: &Client) -> Sinks {
    let tables = client
        .query(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
            &[],
        )
        .await
        .unwrap();
    let mut sinks = Sinks::new();
    for table in tables {
        let table: &str = table.get(0);
        let sql = format!("SELECT coalesce(string_agg(t::text, E'\n'), '') FROM \"{table}\" t");
        let text = client.query_one(&sql, &[]).await.unwrap().get(0);
        sinks.insert(format!("table {table}"), text);
    }
    sinks
}

/// Returns the dead letters with their payloads as they were, not in base64.
fn letters(brokers: &str, topic: &str) -> Vec<String> {
    let opened = |(_, text): (String, String)| {
        let letter: Value = serde_json::from_str(&text).unwrap();
        let payload = letter["payload"].as_str().unwrap();
        match letter["payload_encoding"].as_str().unwrap() {
            "utf-8" => format!("{text} {payload}"),
            _ => {
                let payload = STANDARD.decode(payload).unwrap();
                format!("{text} {}", String::from_utf8_lossy(&payload))
            }
        }
    };
    broker::read_topic(brokers, topic)
        .into_iter()
        .map(opened)
        .collect()
}

struct Live<'a> {
    brokers: &'a str,
    database: &'a TestDatabase,
    dir: &'a TempDir,
    topics: [String; 3],
}

impl Live<'_> {
    /// Runs a processor until it has written its windows and letters; returns what `/metrics`
    /// said.
    async fn run(&self, model: &Path, letters: usize) -> String {
        let mut command = logguard(self.dir.path());
        command
            .args(["run", "--kafka-brokers", self.brokers, "--log", "trace"])
            .args([
                "--input-topic",
                &self.topics[0],
                "--output-topic",
                &self.topics[1],
            ])
            .args(["--dead-letter-topic", &self.topics[2]])
            .args([
                "--consumer-group",
                &self.topics[0],
                "--http-listen",
                "127.0.0.1:0",
            ])
            .args(["--database-url", &self.database.url])
            .args(["--anomaly-log", "anomalies.log", "--model-dir"])
            .arg(model)
            .env("LOGGUARD_KAFKA__COMMIT_INTERVAL_MS", "100");
        let file = self.dir.path().join("processor.log");
        let mut processor = Running::start(command, file.clone());
        let deadline = Instant::now() + PATIENCE;
        while broker::read_topic(self.brokers, &self.topics[2]).len() < letters {
            assert!(processor.exited().is_none(), "{}", processor.log_tail());
            assert!(
                Instant::now() < deadline,
                "letters are missing: {}",
                processor.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let metrics = scrape(&fs::read_to_string(file).unwrap());
        // What is open is written as well when it stops.
        processor.terminate();
        processor.ends_well(PATIENCE).await;
        metrics
    }

    async fn sinks(&self) -> Sinks {
        let mut sinks = rows(&self.database.client().await).await;
        let results = broker::read_topic(self.brokers, &self.topics[1]);
        let results: Vec<_> = results
            .into_iter()
            .map(|(key, text)| key + " " + &text)
            .collect();
        sinks.insert("results topic".to_owned(), results.join("\n"));
        let letters = letters(self.brokers, &self.topics[2]);
        sinks.insert("dead-letter topic".to_owned(), letters.join("\n"));
        for name in ["anomalies.log", "processor.log"] {
            let text = fs::read_to_string(self.dir.path().join(name)).unwrap();
            sinks.insert(name.to_owned(), text);
        }
        sinks
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn planted_secrets_reach_no_sink() {
    let (Some(brokers), Some(database)) = (kafka_brokers(), fresh_database().await) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    run_well(dir.path(), ["migrate", "--database-url", &database.url]);
    let topics = ["in", "out", "dlq"].map(|kind| format!("redaction-{}-{kind}", database.name));
    for topic in &topics {
        broker::create_topic(&brokers, topic, 1).await;
    }
    let bundle = train(&dir, "model", "true");
    // Without redaction they would be there: the search below can fail.
    let open = train(&dir, "open-model", "false");
    assert!(open.contains("hunter2Xq") && open.contains("NWBK60161331926819"));

    let records = live_records();
    produce(&brokers, &topics[0], &records);
    let live = Live {
        brokers: &brokers,
        database: &database,
        dir: &dir,
        topics,
    };
    // Five rejected and one late of each.
    let metrics = live.run(&dir.path().join("model"), 6 * PLANTED.len()).await;
    let mut sinks = live.sinks().await;
    sinks.insert("metrics".to_owned(), metrics);
    sinks.insert("bundle".to_owned(), bundle);
    sinks.insert("replay".to_owned(), replay(&live, "model"));
    // A model that was trained without: what is shown of its templates is masked all the same.
    sinks.insert(
        "replay with the open model".to_owned(),
        replay(&live, "open-model"),
    );
    check_masked(&sinks);

    let shows = |place: &str, mark: &str| {
        let text = &sinks[place];
        assert!(text.contains(mark), "no `{mark}` in {place}: {text:.2000}");
    };
    shows(
        "anomalies.log",
        "Sample Error 1: login failed password=<password> for ann",
    );
    shows("bundle", "connect <url> failed");
    for place in [
        "replay",
        "replay with the open model",
        "results topic",
        "table anomaly_results",
    ] {
        let placeholders = [
            "<password>",
            "<secret>",
            "<token>",
            "<api-key>",
            "<private-key>",
        ];
        let shown = placeholders.iter().any(|it| sinks[place].contains(it));
        assert!(shown, "no template of the burst is in {place}");
    }
    for mark in [
        "<password>",
        "<email>",
        "<card>",
        "<token>",
        "<api-key>",
        "<iban>",
        "<ssn>",
        "\"late\"",
    ] {
        shows("dead-letter topic", mark);
    }
}

/// Returns what a replay of the topic says, and its result messages.
fn replay(live: &Live<'_>, model: &str) -> String {
    let said = run_well(
        live.dir.path(),
        [
            "replay",
            "--from-kafka",
            "--json",
            "--kafka-brokers",
            live.brokers,
        ]
        .into_iter()
        .chain(["--input-topic", live.topics[0].as_str()])
        .chain(["--results", "results.jsonl", "--model-dir", model]),
    );
    said + &fs::read_to_string(live.dir.path().join("results.jsonl")).unwrap()
}
